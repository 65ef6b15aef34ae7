//! The daemon's life: start, end, death, errors, and what it holds.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Mounted, PATIENCE, STACKFS, can_mount};

/// Does `work` on a thread and fails if it does not come back: a hang must not hang the test.
fn bounded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    result
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("{what} hangs"))
}

fn enotconn<T: std::fmt::Debug>(what: &str, result: &std::io::Result<T>) {
    let code = result.as_ref().err().and_then(std::io::Error::raw_os_error);
    // Requests under way at the moment of death end with the second.
    let allowed = [Some(libc::ENOTCONN), Some(libc::ECONNABORTED)];
    assert!(allowed.contains(&code), "{what}: {result:?}");
}

#[test]
fn killing_the_daemon_fails_accesses_and_hangs_nothing() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::start(&["--attr-timeout", "0", "--entry-timeout", "0"]);
    fs::write(mounted.lower.join("file"), vec![1; 1 << 20]).expect("write");
    let path = mounted.mountpoint.join("file");
    let mut open = File::open(&path).expect("open");
    mounted.signal(libc::SIGKILL);
    mounted.wait();
    let mountpoint = mounted.mountpoint.clone();
    bounded("access after the daemon's death", move || {
        enotconn("stat", &fs::metadata(&path));
        enotconn("open", &File::open(&path));
        enotconn("create", &File::create(mountpoint.join("new")));
        enotconn("readdir", &fs::read_dir(&mountpoint).map(Iterator::count));
        enotconn("read", &open.read(&mut [0; 4096]));
        enotconn("fsync", &open.sync_all());
        drop(open);
    });
    mounted.unmount(&[]);
    assert!(!mounted.is_mounted());
}

#[test]
fn sigterm_unmounts_and_ends_well() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::start(&[]);
    mounted.signal(libc::SIGTERM);
    assert!(mounted.wait().success());
    assert!(!mounted.is_mounted());

    // In use: it is detached at once, and the daemon does not wait for ever.
    let mut mounted = Mounted::start(&[]);
    let open = File::create(mounted.mountpoint.join("held")).expect("create");
    mounted.signal(libc::SIGTERM);
    assert!(mounted.wait().success());
    assert!(!mounted.is_mounted());
    drop(open);
}

#[test]
fn an_unmount_from_outside_ends_the_daemon_well() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::start(&["--workers", "3"]);
    assert!(
        mounted
            .mountpoint
            .read_dir()
            .expect("readdir")
            .next()
            .is_none()
    );
    mounted.unmount(&[]);
    assert!(mounted.wait().success());
}

/// What SIGUSR1 makes the daemon say, and the number of nodes in it.
fn count(mounted: &Mounted, log: &mut impl BufRead) -> (usize, String) {
    mounted.signal(libc::SIGUSR1);
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    let number = line
        .split_once("nodes ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    (
        number.unwrap_or_else(|| panic!("unexpected line {line:?}")),
        line,
    )
}

#[test]
fn lookup_counts_return_to_the_root() {
    if !can_mount() {
        return;
    }
    let no_open = &["--no-open"];
    for options in [
        &[][..],
        &["--passthrough"],
        &["--entry-timeout", "0"],
        no_open,
    ] {
        // The root stays known, and with it what it was listed by.
        let directories = usize::from(options == no_open);
        let all_gone = format!("stackfs: nodes 1 files 0 directories {directories}\n");
        let mut mounted = Mounted::start(options);
        let mut log = mounted.stderr();
        for dir in 0..10 {
            let dir = mounted.lower.join(format!("dir{dir}"));
            fs::create_dir(&dir).expect("mkdir");
            for file in 0..50 {
                fs::write(dir.join(format!("file{file}")), b"x").expect("write");
            }
        }
        let root = mounted.mountpoint.clone();
        let run = |script: &str| {
            let status = Command::new("sh")
                .args(["-ec", script])
                .current_dir(&root)
                .status();
            assert!(status.expect("sh").success(), "{script}");
        };
        let deadline = Instant::now() + PATIENCE;
        // Repeated, because another program may drop the caches of the machine at any time.
        loop {
            run("ls -lR . >/dev/null; find . -type f | xargs cat >/dev/null");
            if count(&mounted, &mut log).0 > 400 {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{options:?}: the nodes never show"
            );
        }
        // Lookups of what is not there, links, creations, removals, also of open files.
        run("ls nothing 2>&- || :
             ln dir0/file0 dir1/again; stat dir1/again >/dev/null; mv dir0/file1 dir1/moved
             echo new > dir2/new; rm dir2/new; rm -r dir3; mkdir dir3; ln -s x dir3/link
             exec 3> dir4/gone; rm dir4/gone; echo late >&3");
        loop {
            let (nodes, line) = count(&mounted, &mut log);
            if line == all_gone {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{options:?}: {nodes} nodes are left: {line}"
            );
            // FORGETs are sent in the background once the kernel drops its inodes.
            fs::write("/proc/sys/vm/drop_caches", "2").expect("drop caches");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn without_open_few_files_are_kept_open() {
    const FILES: usize = 2 * efuse_stackfs::KEPT_FILES;
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::start(&["--no-open"]);
    let mut log = mounted.stderr();
    let open_below = |mounted: &Mounted| {
        let folder = format!("/proc/{}/fd", mounted.daemon.id());
        let opened = |fd: std::io::Result<fs::DirEntry>| {
            // An O_PATH descriptor of a node has 010000000 in its flags.
            let fd = fd.expect("a descriptor").file_name();
            let info = format!("/proc/{}/fdinfo/{}", mounted.daemon.id(), fd.display());
            let info = fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            flags.is_some_and(|octal| {
                let flags = i32::from_str_radix(octal.trim(), 8).expect("octal");
                flags & libc::O_PATH == 0
            })
        };
        fs::read_dir(folder)
            .expect("descriptors")
            .map(opened)
            .filter(|&is| is)
            .count()
    };
    let before = open_below(&mounted);
    // This test has as many open as the daemon would, and a system's usual limit may be 1024.
    efuse_stackfs::raise_descriptor_limit();
    let path = |n: usize| mounted.mountpoint.join(format!("file{n}"));
    let files: Vec<File> = (0..FILES)
        .map(|n| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            options.open(path(n)).expect("create")
        })
        .collect();
    // Nobody can open it by name any more, and it has to be opened again.
    fs::remove_file(path(0)).expect("unlink");
    for (n, file) in files.iter().enumerate() {
        file.write_all_at(format!("content {n}").as_bytes(), 0)
            .expect("write");
    }
    assert!(open_below(&mounted) <= before + efuse_stackfs::KEPT_FILES);
    fs::write("/proc/sys/vm/drop_caches", "1").expect("drop caches");
    for (n, file) in files.iter().enumerate() {
        let mut content = vec![0; 40];
        let size = file.read_at(&mut content, 0).expect("read");
        assert_eq!(content[..size], *format!("content {n}").as_bytes());
        if n > 0 {
            let below = mounted.lower.join(format!("file{n}"));
            assert_eq!(fs::read(below).expect("read"), content[..size]);
        }
    }
    let (_, line) = count(&mounted, &mut log);
    let kept = format!("files {}", efuse_stackfs::KEPT_FILES);
    assert!(line.contains(&kept), "{line}");
    drop(files);
}

#[test]
fn bad_starts_are_explained_in_one_message() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |args: &[&Path]| {
        let output = Command::new(STACKFS)
            .args(args)
            .output()
            .expect("run stackfs");
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success(), "{args:?}: {error}");
        assert!(output.stdout.is_empty(), "{args:?} said ready");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        error
    };
    let missing = folder.path().join("missing");
    let error = run(&[&missing, folder.path()]);
    assert!(error.contains(missing.to_str().expect("UTF-8")), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("write");
    let error = run(&[&file, folder.path()]);
    assert!(
        error.contains("source") && error.contains("Not a directory"),
        "{error}"
    );
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).expect("mkdir");
    let error = run(&[folder.path(), &inside]);
    assert!(error.contains("lies inside the source"), "{error}");
    let other = tempfile::tempdir().expect("a temporary folder");
    let error = run(&[
        folder.path(),
        other.path(),
        Path::new("--device=/dev/missing"),
    ]);
    assert!(error.contains("/dev/missing"), "{error}");
}

#[test]
fn direct_io_and_its_odd_cases() {
    if can_mount() {
        direct_io(&[]);
        direct_io(&["--no-open"]);
    }
}

fn direct_io(options: &[&str]) {
    let mounted = Mounted::start(options);
    let path = mounted.mountpoint.join("direct");
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .custom_flags(libc::O_DIRECT);
    let file = match options.open(&path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            println!("skipped: the temporary folder's file system has no O_DIRECT");
            return;
        }
        file => file.expect("open"),
    };
    // Two pages at a page boundary somewhere in three.
    let memory = vec![0x5au8; 3 * 4096];
    let start = memory.as_ptr().align_offset(4096);
    let pages = &memory[start..start + 8192];
    assert_eq!(file.write_at(pages, 4096).expect("aligned write"), 8192);
    assert_eq!(
        fs::read(mounted.lower.join("direct")).expect("read")[4096..],
        *pages
    );

    // O_DIRECT taken away by fcntl: unaligned I/O must work, as on any file.
    // SAFETY: no pointers.
    let cleared = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) };
    assert_eq!(cleared, 0, "fcntl");
    assert_eq!(file.write_at(b"odd", 4097).expect("unaligned write"), 3);
    let mut odd = [0; 5];
    file.read_exact_at(&mut odd, 4096).expect("unaligned read");
    assert_eq!(&odd, b"\x5aodd\x5a");

    // A shared mapping of a file whose only descriptor is O_DIRECT is written back unaligned.
    let file = options.open(&path).expect("open");
    file.set_len(5000).expect("truncate");
    // SAFETY: a new mapping of 5000 bytes of an open file, unmapped below.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        let map = libc::mmap(
            std::ptr::null_mut(),
            5000,
            protection,
            libc::MAP_SHARED,
            fd,
            0,
        );
        assert_ne!(map, libc::MAP_FAILED, "mmap");
        map.cast::<u8>().add(4998).write(b'!');
        assert_eq!(libc::msync(map, 5000, libc::MS_SYNC), 0, "msync");
        assert_eq!(libc::munmap(map, 5000), 0, "munmap");
    }
    let below = fs::read(mounted.lower.join("direct")).expect("read");
    assert_eq!((below.len(), below[4998]), (5000, b'!'));
}
