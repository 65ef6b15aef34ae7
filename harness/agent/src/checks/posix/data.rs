//! Content: truncation, allocation, holes, copies, appends, locks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::fcntl::{FallocateFlags, fallocate};

use super::{Case, call, ensure, equal, file, refused};
use crate::sys;

pub(super) const CASES: &[Case] = &[
    ("truncate", truncate),
    ("fallocate", allocate),
    ("punch-hole", punch_hole),
    ("lseek-hole", lseek_hole),
    ("copy-file-range", copy_file_range),
    ("append", append),
    ("append-concurrent", append_concurrent),
    ("flock", flock),
    ("fcntl-locks", fcntl_locks),
    ("eof", eof),
    ("large-offset", large_offset),
    ("open-modes", open_modes),
    ("fsync", fsync),
    ("vectors", vectors),
    ("exec-busy", exec_busy),
    ("limited", limited),
];

/// A direct write beyond the largest size that the writer may make, which cuts it to no whole sector.
fn limited(dir: &Path) -> io::Result<()> {
    const LIMIT: libc::rlim_t = 1000;
    #[repr(align(4096))]
    struct Block([u8; 4096]);
    let f = file(dir, "f", &[7; 8192])?;
    let block = Block([9; 4096]);
    let open = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&f)?;
    let (fd, limit) = (
        open.as_raw_fd(),
        libc::rlimit {
            rlim_cur: LIMIT,
            rlim_max: LIMIT,
        },
    );
    let pieces = [libc::iovec {
        iov_base: block.0.as_ptr().cast_mut().cast(),
        iov_len: block.0.len(),
    }; 1];
    // SAFETY: the child makes system calls alone, with what is above and is not moved, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) != 0 {
                libc::_exit(1);
            }
            let plain = libc::pwrite(fd, block.0.as_ptr().cast(), block.0.len(), 0);
            let vector = libc::pwritev(fd, pieces.as_ptr(), 1, 0);
            let most = LIMIT as libc::ssize_t;
            libc::_exit(if plain > most || vector > most { 2 } else { 0 });
        }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the number is where it says.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    ensure(status == 0, format!("the writer ended with {status:#x}"))?;
    let content = fs::read(&f)?;
    ensure(
        content.len() == 8192 && content[1000..].iter().all(|&byte| byte == 7),
        "bytes beyond the limit have changed",
    )
}

fn truncate(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", &[7; 10_000])?;
    let open = OpenOptions::new().read(true).write(true).open(&f)?;
    open.set_len(5000)?;
    open.set_len(9000)?;
    let mut wanted = vec![7; 5000];
    wanted.resize(9000, 0);
    ensure(fs::read(&f)? == wanted, "what was cut off comes back")?;
    let path = super::c_path(&f);
    // SAFETY: a string with a NUL at the end.
    call(unsafe { libc::truncate(path.as_ptr(), 3) }.into())?;
    equal("content", fs::read(&f)?, vec![7; 3])?;
    refused("a folder", call(unsafe_truncate(dir)), libc::EISDIR)
}

fn unsafe_truncate(dir: &Path) -> i64 {
    let path = super::c_path(dir);
    // SAFETY: a string with a NUL at the end.
    unsafe { libc::truncate(path.as_ptr(), 0) }.into()
}

fn allocate(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"abc")?;
    let open = OpenOptions::new().read(true).write(true).open(&f)?;
    fallocate(&open, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20)?;
    equal("size with KEEP_SIZE", open.metadata()?.size(), 3)?;
    ensure(
        open.metadata()?.blocks() * 512 >= 1 << 20,
        "nothing is allocated",
    )?;
    fallocate(&open, FallocateFlags::empty(), 0, 100_000)?;
    equal("size", open.metadata()?.size(), 100_000)?;
    let content = fs::read(&f)?;
    ensure(
        content.starts_with(b"abc") && content[3..].iter().all(|b| *b == 0),
        "content",
    )
}

fn punch_hole(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", &[9; 65536])?;
    let open = OpenOptions::new().read(true).write(true).open(&f)?;
    open.sync_all()?;
    let blocks = open.metadata()?.blocks();
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&open, flags, 5000, 40_000)?;
    let mut wanted = vec![9; 65536];
    wanted[5000..45_000].fill(0);
    ensure(
        fs::read(&f)? == wanted,
        "other bytes than those of the hole are zero",
    )?;
    ensure(open.metadata()?.blocks() < blocks, "no block is freed")?;
    fallocate(&open, FallocateFlags::FALLOC_FL_ZERO_RANGE, 60_000, 10_000)?;
    equal("size after ZERO_RANGE", open.metadata()?.size(), 70_000)?;
    ensure(
        fs::read(&f)?[60_000..].iter().all(|b| *b == 0),
        "ZERO_RANGE leaves bytes",
    )
}

fn lseek_hole(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    let open = OpenOptions::new().read(true).write(true).open(&f)?;
    open.write_all_at(&[1; 4096], 1 << 20)?;
    open.set_len(2 << 20)?;
    open.sync_all()?;
    let seek = |offset, whence| {
        // SAFETY: integers only.
        call(unsafe { libc::lseek(open.as_raw_fd(), offset, whence) })
    };
    equal("first data", seek(0, libc::SEEK_DATA)?, 1 << 20)?;
    equal(
        "hole after it",
        seek(1 << 20, libc::SEEK_HOLE)?,
        (1 << 20) + 4096,
    )?;
    equal("hole at the start", seek(0, libc::SEEK_HOLE)?, 0)?;
    refused(
        "data after the last",
        seek((1 << 20) + 4096, libc::SEEK_DATA),
        libc::ENXIO,
    )
}

fn copy_file_range(dir: &Path) -> io::Result<()> {
    let content: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let from = File::open(file(dir, "from", &content)?)?;
    let to = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("to"))?;
    let (mut at, mut offset) = (1000i64, 10i64);
    let mut left = 150_000usize;
    while left > 0 {
        // SAFETY: both descriptors are open, both offsets are valid for writing.
        let n = unsafe {
            libc::copy_file_range(
                from.as_raw_fd(),
                &raw mut at,
                to.as_raw_fd(),
                &raw mut offset,
                left,
                0,
            )
        };
        let n = usize::try_from(call(i64::try_from(n).unwrap_or(-1))?).expect("not negative");
        ensure(n > 0, "it copies nothing")?;
        left -= n;
    }
    let copied = fs::read(dir.join("to"))?;
    equal("size", copied.len(), 150_010)?;
    ensure(
        copied[..10] == [0; 10] && copied[10..] == content[1000..151_000],
        "content",
    )
}

fn append(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"start")?;
    let mut a = OpenOptions::new().append(true).open(&f)?;
    let mut b = OpenOptions::new().append(true).open(&f)?;
    a.write_all(b"-a")?;
    b.write_all(b"-b")?;
    a.seek(SeekFrom::Start(0))?;
    a.write_all(b"-c")?;
    equal("content", fs::read_to_string(&f)?.as_str(), "start-a-b-c")
}

fn append_concurrent(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4u8)
            .map(|n| {
                let f = &f;
                scope.spawn(move || -> io::Result<()> {
                    let mut open = OpenOptions::new().append(true).open(f)?;
                    (0..50).try_for_each(|_| open.write_all(&[n; 100]))
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().map_err(|_| io::Error::other("panic"))?)
    })?;
    let content = fs::read(&f)?;
    equal("size", content.len(), 4 * 50 * 100)?;
    ensure(
        content.chunks(100).all(|c| c.iter().all(|b| *b == c[0])),
        "a record is torn",
    )
}

fn flock(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    let (a, b) = (File::open(&f)?, File::open(&f)?);
    a.lock()?;
    ensure(b.try_lock().is_err(), "two exclusive locks")?;
    a.unlock()?;
    b.lock_shared()?;
    a.lock_shared()?;
    drop(b);
    a.lock()
}

fn fcntl_locks(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", &[0; 100])?;
    let (a, b) = (
        OpenOptions::new().read(true).write(true).open(&f)?,
        OpenOptions::new().read(true).write(true).open(&f)?,
    );
    // Locks of an open file description: two of one process exclude each other.
    let lock = |file: &File, kind: i32, start: i64, len: i64| {
        // SAFETY: all fields of `flock` are integers; zero is valid for each.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        range.l_type = i16::try_from(kind).expect("small");
        (range.l_start, range.l_len) = (start, len);
        // SAFETY: F_OFD_SETLK reads one `flock` through the pointer.
        call(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) }.into())
    };
    lock(&a, libc::F_WRLCK, 0, 50)?;
    refused(
        "an overlapping lock",
        lock(&b, libc::F_RDLCK, 40, 20),
        libc::EAGAIN,
    )?;
    lock(&b, libc::F_WRLCK, 50, 50)?;
    lock(&a, libc::F_UNLCK, 0, 0)?;
    lock(&b, libc::F_WRLCK, 0, 100).map(drop)
}

fn eof(dir: &Path) -> io::Result<()> {
    for size in [0usize, 1, 4095, 4096, 4097, 131_071, 131_073] {
        let f = file(dir, "f", &vec![b'z'; size])?;
        let mut open = File::open(&f)?;
        let mut content = Vec::new();
        open.read_to_end(&mut content)?;
        equal("bytes", content.len(), size)?;
        let mut more = [0; 10];
        equal(
            "bytes past the end",
            open.read_at(&mut more, size as u64 + 5000)?,
            0,
        )?;
        if size > 3 {
            equal(
                "bytes before the end",
                open.read_at(&mut more, size as u64 - 3)?,
                3,
            )?;
        }
    }
    Ok(())
}

fn large_offset(dir: &Path) -> io::Result<()> {
    let f = dir.join("f");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&f)?;
    let at = (5 << 30) + 123;
    open.write_all_at(b"far", at)?;
    equal("size", open.metadata()?.size(), at + 3)?;
    let mut text = [1; 5];
    open.read_exact_at(&mut text, at - 2)?;
    equal("content", &text, b"\0\0far")
}

fn open_modes(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"x")?;
    let mut read = File::open(&f)?;
    refused(
        "a write to a file opened for reading",
        read.write(b"y"),
        libc::EBADF,
    )?;
    let mut write = OpenOptions::new().write(true).open(&f)?;
    refused(
        "a read of a file opened for writing",
        write.read(&mut [0]),
        libc::EBADF,
    )?;
    refused(
        "a folder for writing",
        OpenOptions::new().write(true).open(dir),
        libc::EISDIR,
    )
}

fn fsync(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"x")?;
    let open = OpenOptions::new().write(true).open(&f)?;
    open.sync_all()?;
    open.sync_data()?;
    File::open(dir)?.sync_all()
}

fn vectors(dir: &Path) -> io::Result<()> {
    let f = dir.join("f");
    let mut open = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&f)?;
    let (a, b) = (vec![1u8; 5000], vec![2u8; 7001]);
    let n = open.write_vectored(&[io::IoSlice::new(&a), io::IoSlice::new(&b)])?;
    equal("bytes written", n, 12_001)?;
    open.seek(SeekFrom::Start(4999))?;
    let (mut x, mut y) = ([0; 1], [0; 2]);
    let n = open.read_vectored(&mut [io::IoSliceMut::new(&mut x), io::IoSliceMut::new(&mut y)])?;
    equal("bytes read", n, 3)?;
    equal("content", (x, y), ([1], [2, 2]))
}

/// Whether a folder is on a mount of the kernel's own FUSE.
fn stock_fuse(dir: &Path) -> io::Result<bool> {
    let mounts = sys::mounts().map_err(io::Error::other)?;
    let mount = mounts
        .iter()
        .filter(|mount| dir.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len());
    Ok(mount.is_some_and(|mount| mount.kind == "fuse" || mount.kind.starts_with("fuse.")))
}

fn exec_busy(dir: &Path) -> io::Result<()> {
    // Under this name a copy of busybox sleeps as well.
    let program = dir.join("sleep");
    fs::copy("/bin/sleep", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let open = || OpenOptions::new().write(true).open(&program);
    // Nobody else may hold it open for writing either.
    let mut child = {
        let writer = open()?;
        let early = Command::new(&program).arg("600").spawn();
        refused("running a file that is being written", early, libc::ETXTBSY)?;
        drop(writer);
        Command::new(&program).arg("600").spawn()?
    };
    let mut busy = refused("writing to a running program", open(), libc::ETXTBSY);
    // Stock FUSE lets the daemon cut the file, by which the program dies, and only then asks.
    if busy.is_ok() && !stock_fuse(dir)? {
        let cut = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_TRUNC)
            .open(&program);
        busy = refused("cutting a running program", cut, libc::ETXTBSY).and_then(|()| {
            let size = fs::metadata("/bin/sleep")?.len();
            equal(
                "size of a running program",
                fs::metadata(&program)?.len(),
                size,
            )
        });
    }
    child.kill()?;
    child.wait()?;
    busy?;
    open().map(drop)
}
