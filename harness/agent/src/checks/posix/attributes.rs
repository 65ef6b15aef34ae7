//! Modes, owners, times, extended attributes.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Case, c_path, call, ensure, equal, file, refused};

pub(super) const CASES: &[Case] = &[
    ("chmod", chmod),
    ("chown", owners),
    ("suid-clear-chown", suid_clear_chown),
    ("suid-clear-write", suid_clear_write),
    ("sticky", sticky),
    ("setgid-dir", setgid_dir),
    ("permission", permission),
    ("utimens", utimens),
    ("times", times),
    ("xattr", xattr),
    ("statfs", statfs),
    ("statx-birth", statx_birth),
];

/// A user without rights.
const USER: u32 = 12_345;

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

fn chmod(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    for bits in [0o000, 0o600, 0o644, 0o4755, 0o2755, 0o1777, 0o7777] {
        fs::set_permissions(&f, Permissions::from_mode(bits))?;
        equal("mode", mode(&f)?, bits)?;
    }
    let open = File::open(&f)?;
    open.set_permissions(Permissions::from_mode(0o611))?;
    equal("mode after fchmod", mode(&f)?, 0o611)
}

fn owners(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    chown(&f, Some(USER), Some(USER + 1))?;
    let meta = fs::metadata(&f)?;
    equal("owner", (meta.uid(), meta.gid()), (USER, USER + 1))?;
    chown(&f, None, Some(7))?;
    let meta = fs::metadata(&f)?;
    equal("owner after chgrp", (meta.uid(), meta.gid()), (USER, 7))?;
    std::os::unix::fs::symlink("f", dir.join("s"))?;
    std::os::unix::fs::lchown(dir.join("s"), Some(3), Some(4))?;
    equal("owner of the target", fs::metadata(&f)?.uid(), USER)?;
    equal(
        "owner of the link",
        fs::symlink_metadata(dir.join("s"))?.uid(),
        3,
    )
}

fn suid_clear_chown(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    fs::set_permissions(&f, Permissions::from_mode(0o6755))?;
    chown(&f, Some(USER), Some(USER))?;
    equal("mode after chown", mode(&f)?, 0o755)
}

/// Does something as another user, in a thread of its own, and returns its `errno`.
fn as_user(what: impl FnOnce() -> io::Result<()> + Send) -> io::Result<i32> {
    // The raw system calls change the credentials of this one thread only, unlike
    // those of libc, which change those of the whole process.
    let run = || -> io::Result<i32> {
        // SAFETY: integers only; the thread ends after this and is never used as root.
        call(unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) })?;
        // SAFETY: as above.
        call(unsafe { libc::syscall(libc::SYS_setresgid, USER, USER, USER) })?;
        // SAFETY: as above.
        call(unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) })?;
        Ok(match what() {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        })
    };
    thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .map_err(|_| io::Error::other("the case panicked"))?
    })
}

fn suid_clear_write(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"text")?;
    chown(&f, Some(USER), Some(USER))?;
    open_up(dir)?;
    fs::set_permissions(&f, Permissions::from_mode(0o6777))?;
    let path = f.clone();
    let errno = as_user(move || {
        OpenOptions::new()
            .write(true)
            .open(&path)?
            .write_all(b"new!")
    })?;
    equal("error of the write", errno, 0)?;
    equal("mode after a write", mode(&f)?, 0o777)?;
    fs::set_permissions(&f, Permissions::from_mode(0o6777))?;
    let path = f.clone();
    let errno = as_user(move || OpenOptions::new().write(true).open(&path)?.set_len(1))?;
    equal("error of the truncate", errno, 0)?;
    equal("mode after a truncate", mode(&f)?, 0o777)
}

/// Lets other users into a folder.
fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o777))
}

fn sticky(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o1777))?;
    let f = file(dir, "root's", b"")?;
    let path = f.clone();
    let errno = as_user(move || fs::remove_file(&path))?;
    ensure(
        [libc::EPERM, libc::EACCES].contains(&errno),
        format!("unlink of root's file gives {errno}"),
    )?;
    let path = dir.join("own");
    let errno = as_user(move || {
        File::create(&path)?;
        fs::remove_file(&path)
    })?;
    equal("error of unlinking one's own", errno, 0)
}

fn setgid_dir(dir: &Path) -> io::Result<()> {
    chown(dir, None, Some(77))?;
    fs::set_permissions(dir, Permissions::from_mode(0o2755))?;
    equal(
        "group of a new file",
        fs::metadata(file(dir, "f", b"")?)?.gid(),
        77,
    )?;
    let sub = dir.join("d");
    fs::create_dir(&sub)?;
    let meta = fs::metadata(&sub)?;
    equal("group of a new folder", meta.gid(), 77)?;
    equal("its setgid bit", meta.mode() & 0o2000, 0o2000)
}

fn permission(dir: &Path) -> io::Result<()> {
    open_up(dir)?;
    let f = file(dir, "secret", b"x")?;
    fs::set_permissions(&f, Permissions::from_mode(0o600))?;
    let path = f.clone();
    equal(
        "open of another's file",
        as_user(move || File::open(&path).map(drop))?,
        libc::EACCES,
    )?;
    let (path, own) = (f.clone(), dir.join("own"));
    let errno = as_user(move || {
        fs::write(&own, "mine")?;
        refused(
            "chmod of another's file",
            fs::set_permissions(&path, Permissions::from_mode(0o666)),
            libc::EPERM,
        )
    })?;
    equal("error", errno, 0)?;
    equal(
        "owner of a file made by a user",
        fs::metadata(dir.join("own"))?.uid(),
        USER,
    )?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    equal(
        "stat in a closed folder",
        as_user(move || fs::metadata(&f).map(drop))?,
        libc::EACCES,
    )
}

fn utimens(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"")?;
    let open = OpenOptions::new().write(true).open(&f)?;
    let (a, m) = (
        Duration::new(1_000_000_000, 123_456_789),
        Duration::new(2_147_483_648, 5),
    );
    let at = |d| SystemTime::UNIX_EPOCH + d;
    open.set_times(fs::FileTimes::new().set_accessed(at(a)).set_modified(at(m)))?;
    let meta = fs::metadata(&f)?;
    equal(
        "atime",
        (meta.atime(), meta.atime_nsec()),
        (1_000_000_000, 123_456_789),
    )?;
    equal(
        "mtime",
        (meta.mtime(), meta.mtime_nsec()),
        (2_147_483_648, 5),
    )?;
    open.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(1))?;
    let meta = fs::metadata(&f)?;
    equal("mtime before 1970", meta.mtime(), -1)?;
    equal("atime that was left out", meta.atime(), 1_000_000_000)
}

fn times(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"1")?;
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let touch = |p: &Path| File::open(p)?.set_times(fs::FileTimes::new().set_modified(old));
    touch(&f)?;
    let before = fs::metadata(&f)?;
    OpenOptions::new().append(true).open(&f)?.write_all(b"2")?;
    let after = fs::metadata(&f)?;
    ensure(after.mtime() > 1000, "a write leaves mtime")?;
    ensure(ctime(&after) >= ctime(&before), "ctime goes back")?;
    touch(dir)?;
    fs::hard_link(&f, dir.join("g"))?;
    ensure(
        fs::metadata(dir)?.mtime() > 1000,
        "a new name leaves the folder's mtime",
    )?;
    touch(&f)?;
    File::create(&f)?;
    ensure(fs::metadata(&f)?.mtime() > 1000, "O_TRUNC leaves mtime")?;
    touch(&f)?;
    fs::set_permissions(&f, Permissions::from_mode(0o600))?;
    equal("mtime after chmod", fs::metadata(&f)?.mtime(), 1000)
}

fn ctime(meta: &fs::Metadata) -> (i64, i64) {
    (meta.ctime(), meta.ctime_nsec())
}

fn set(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> io::Result<i64> {
    // SAFETY: strings with a NUL at the end, a buffer with its length.
    call(
        unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                flags,
            )
        }
        .into(),
    )
}

fn get(path: &CStr, name: &CStr, room: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; room];
    // SAFETY: strings with a NUL at the end, a buffer with its length.
    let n = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            room,
        )
    };
    let n = usize::try_from(call(i64::try_from(n).unwrap_or(-1))?).expect("not negative");
    value.truncate(n.min(room));
    Ok(value)
}

fn xattr(dir: &Path) -> io::Result<()> {
    let path = c_path(&file(dir, "f", b"")?);
    let name = c"user.efuse";
    refused(
        "one that is not there",
        get(&path, name, 100),
        libc::ENODATA,
    )?;
    set(&path, name, b"value", 0)?;
    equal("value", get(&path, name, 100)?, b"value".to_vec())?;
    refused("a short buffer", get(&path, name, 2), libc::ERANGE)?;
    refused(
        "XATTR_CREATE of one that is there",
        set(&path, name, b"x", libc::XATTR_CREATE),
        libc::EEXIST,
    )?;
    set(&path, name, &[], libc::XATTR_REPLACE)?;
    equal("an empty value", get(&path, name, 100)?, vec![])?;
    let big = vec![b'v'; 3000];
    set(&path, c"user.big", &big, 0)?;
    equal("a big value", get(&path, c"user.big", 4000)?.len(), 3000)?;
    let mut list = vec![0u8; 1000];
    // SAFETY: a string with a NUL at the end, a buffer with its length.
    let n = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let n = usize::try_from(call(i64::try_from(n).unwrap_or(-1))?).expect("not negative");
    let names: Vec<_> = list[..n]
        .split(|b| *b == 0)
        .filter(|s| s.starts_with(b"user."))
        .collect();
    equal("names", names.len(), 2)?;
    // SAFETY: strings with a NUL at the end.
    call(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }.into())?;
    refused("one that was removed", get(&path, name, 100), libc::ENODATA)?;
    let trusted = CString::new("trusted.efuse").expect("no NUL");
    set(&path, &trusted, b"t", 0)?;
    equal("a trusted one", get(&path, &trusted, 10)?, b"t".to_vec())
}

fn statfs(dir: &Path) -> io::Result<()> {
    let before = nix::sys::statvfs::statvfs(dir)?;
    ensure(before.blocks() > 0 && before.blocks_free() > 0, "no blocks")?;
    equal("longest name", before.name_max(), 255)?;
    let big = dir.join("big");
    fs::write(&big, vec![1u8; 8 << 20])?;
    File::open(&big)?.sync_all()?;
    let after = nix::sys::statvfs::statvfs(dir)?;
    let used = (before.blocks_free() - after.blocks_free().min(before.blocks_free()))
        * before.fragment_size();
    ensure(
        used >= 8 << 20,
        format!("8 MiB written, {used} bytes less are free"),
    )
}

fn statx_birth(dir: &Path) -> io::Result<()> {
    let f = file(dir, "f", b"12345")?;
    let meta = fs::metadata(&f)?;
    equal("blocks", meta.blksize() >= 512, true)?;
    File::open(&f)?.sync_all()?;
    ensure(fs::metadata(&f)?.blocks() > 0, "five bytes occupy no block")?;
    meta.created().map(drop)
}
