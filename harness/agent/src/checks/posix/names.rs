//! Directories and names.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};

use super::{Case, c_path, call, ensure, equal, file, refused};

pub(super) const CASES: &[Case] = &[
    ("create", create),
    ("mkdir", mkdir),
    ("rename", rename),
    ("rename-over", rename_over),
    ("rename-dir", rename_dir),
    ("rename-exchange", rename_exchange),
    ("rename-noreplace", rename_noreplace),
    ("link", link),
    ("symlink", symlinks),
    ("mknod", nodes),
    ("tmpfile", tmpfile),
    ("readdir-1000", readdir_1000),
    ("readdir-rewind", readdir_rewind),
    ("unlink-open", unlink_open),
    ("long-names", long_names),
    ("dot-dot", dot_dot),
];

fn create(dir: &Path) -> io::Result<()> {
    let path = dir.join("f");
    refused("open of nothing", File::open(&path), libc::ENOENT)?;
    let new = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)
    };
    new()?.write_all(b"hello")?;
    refused("O_EXCL on a file", new(), libc::EEXIST)?;
    let meta = fs::metadata(&path)?;
    equal("size", meta.size(), 5)?;
    equal("links", meta.nlink(), 1)?;
    refused(
        "a file as a folder",
        File::open(path.join("x")),
        libc::ENOTDIR,
    )?;
    File::create(&path)?;
    equal("size after O_TRUNC", fs::metadata(&path)?.size(), 0)?;
    fs::remove_file(&path)?;
    refused("stat after unlink", fs::metadata(&path), libc::ENOENT)
}

fn mkdir(dir: &Path) -> io::Result<()> {
    let sub = dir.join("d");
    let links = fs::metadata(dir)?.nlink();
    fs::create_dir(&sub)?;
    equal("links of the parent", fs::metadata(dir)?.nlink(), links + 1)?;
    equal("links of a new folder", fs::metadata(&sub)?.nlink(), 2)?;
    refused("mkdir twice", fs::create_dir(&sub), libc::EEXIST)?;
    file(&sub, "f", b"")?;
    refused(
        "rmdir of a full folder",
        fs::remove_dir(&sub),
        libc::ENOTEMPTY,
    )?;
    refused("unlink of a folder", fs::remove_file(&sub), libc::EISDIR)?;
    fs::remove_file(sub.join("f"))?;
    fs::remove_dir(&sub)?;
    equal(
        "links of the parent after rmdir",
        fs::metadata(dir)?.nlink(),
        links,
    )
}

fn rename(dir: &Path) -> io::Result<()> {
    let (a, b) = (file(dir, "a", b"A")?, dir.join("b"));
    let ino = fs::metadata(&a)?.ino();
    fs::rename(&a, &b)?;
    refused("the old name", fs::metadata(&a), libc::ENOENT)?;
    equal("inode", fs::metadata(&b)?.ino(), ino)?;
    equal("content", fs::read(&b)?, b"A".to_vec())?;
    refused("rename of nothing", fs::rename(&a, &b), libc::ENOENT)
}

fn rename_over(dir: &Path) -> io::Result<()> {
    let (a, b) = (file(dir, "a", b"new")?, file(dir, "b", b"old")?);
    let mut old = File::open(&b)?;
    fs::rename(&a, &b)?;
    equal("content", fs::read(&b)?, b"new".to_vec())?;
    equal("links of the replaced file", old.metadata()?.nlink(), 0)?;
    let mut text = String::new();
    old.read_to_string(&mut text)?;
    equal("content of the replaced file", text.as_str(), "old")?;
    fs::create_dir(dir.join("d"))?;
    refused(
        "a file over a folder",
        fs::rename(&b, dir.join("d")),
        libc::EISDIR,
    )
}

fn rename_dir(dir: &Path) -> io::Result<()> {
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::create_dir(&a)?;
    file(&a, "f", b"x")?;
    fs::rename(&a, &b)?;
    equal("content", fs::read(b.join("f"))?, b"x".to_vec())?;
    refused(
        "a folder into itself",
        fs::rename(&b, b.join("c")),
        libc::EINVAL,
    )?;
    fs::create_dir(&a)?;
    fs::rename(&a, dir.join("c"))?;
    refused(
        "over a full folder",
        fs::rename(dir.join("c"), &b),
        libc::ENOTEMPTY,
    )
}

fn rename2(a: &Path, b: &Path, flags: u32) -> io::Result<i64> {
    let (a, b) = (c_path(a), c_path(b));
    // SAFETY: both paths are strings with a NUL at the end.
    let result = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            flags,
        )
    };
    call(result.into())
}

fn rename_exchange(dir: &Path) -> io::Result<()> {
    let (a, b) = (file(dir, "a", b"A")?, dir.join("b"));
    fs::create_dir(&b)?;
    file(&b, "in", b"B")?;
    rename2(&a, &b, libc::RENAME_EXCHANGE)?;
    equal("b", fs::read(&b)?, b"A".to_vec())?;
    equal("a/in", fs::read(a.join("in"))?, b"B".to_vec())
}

fn rename_noreplace(dir: &Path) -> io::Result<()> {
    let (a, b) = (file(dir, "a", b"A")?, file(dir, "b", b"B")?);
    refused(
        "a name that is taken",
        rename2(&a, &b, libc::RENAME_NOREPLACE),
        libc::EEXIST,
    )?;
    rename2(&a, &dir.join("c"), libc::RENAME_NOREPLACE).map(drop)
}

fn link(dir: &Path) -> io::Result<()> {
    let (a, b) = (file(dir, "a", b"A")?, dir.join("b"));
    fs::hard_link(&a, &b)?;
    let (x, y) = (fs::metadata(&a)?, fs::metadata(&b)?);
    equal("inode", y.ino(), x.ino())?;
    equal("links", x.nlink(), 2)?;
    refused("a second time", fs::hard_link(&a, &b), libc::EEXIST)?;
    OpenOptions::new().append(true).open(&b)?.write_all(b"B")?;
    equal(
        "content through the other name",
        fs::read(&a)?,
        b"AB".to_vec(),
    )?;
    fs::remove_file(&a)?;
    equal("links after unlink", fs::metadata(&b)?.nlink(), 1)?;
    equal("content after unlink", fs::read(&b)?, b"AB".to_vec())
}

fn symlinks(dir: &Path) -> io::Result<()> {
    let (s, target) = (dir.join("s"), "x".repeat(1000));
    symlink(&target, &s)?;
    equal("target", fs::read_link(&s)?.to_string_lossy().len(), 1000)?;
    equal("size", fs::symlink_metadata(&s)?.size(), 1000)?;
    refused("a dangling link", fs::metadata(&s), libc::ENAMETOOLONG)?;
    fs::remove_file(&s)?;
    file(dir, "f", b"F")?;
    symlink("f", &s)?;
    equal("content through a link", fs::read(&s)?, b"F".to_vec())?;
    let flags = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&s);
    refused("O_NOFOLLOW", flags, libc::ELOOP)?;
    symlink("loop", dir.join("loop"))?;
    refused("a loop", fs::metadata(dir.join("loop")), libc::ELOOP)
}

fn nodes(dir: &Path) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o600);
    mknod(&dir.join("pipe"), SFlag::S_IFIFO, mode, 0)?;
    ensure(
        fs::metadata(dir.join("pipe"))?.file_type().is_fifo(),
        "it is no pipe",
    )?;
    mknod(&dir.join("sock"), SFlag::S_IFSOCK, mode, 0)?;
    ensure(
        fs::metadata(dir.join("sock"))?.file_type().is_socket(),
        "it is no socket",
    )?;
    let dev = nix::sys::stat::makedev(1, 3);
    mknod(&dir.join("null"), SFlag::S_IFCHR, mode, dev)?;
    equal("device number", fs::metadata(dir.join("null"))?.rdev(), dev)
}

fn tmpfile(dir: &Path) -> io::Result<()> {
    let mut tmp = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)?;
    tmp.write_all(b"tmp")?;
    equal("links", tmp.metadata()?.nlink(), 0)?;
    equal("names in the folder", fs::read_dir(dir)?.count(), 0)?;
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tmp));
    let (own, name) = (c_path(Path::new(&own)), c_path(&dir.join("named")));
    // SAFETY: both paths are strings with a NUL at the end.
    let linked = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            own.as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    call(linked.into())?;
    equal("content", fs::read(dir.join("named"))?, b"tmp".to_vec())
}

fn readdir_1000(dir: &Path) -> io::Result<()> {
    let names: BTreeSet<_> = (0..1000).map(|n| format!("entry-number-{n:04}")).collect();
    for name in &names {
        File::create(dir.join(name))?;
    }
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let seen = list()?;
    equal("entries", seen.len(), 1000)?;
    ensure(
        seen.into_iter().collect::<BTreeSet<_>>() == names,
        "names are missing or twice",
    )?;
    // Removing while listing must neither repeat nor lose what is not removed.
    let mut left = 0;
    for (n, entry) in fs::read_dir(dir)?.enumerate() {
        let entry = entry?;
        if n % 2 == 0 {
            fs::remove_file(entry.path())?;
        } else {
            left += 1;
        }
    }
    equal("entries after removing every second", list()?.len(), left)?;
    equal("entries seen while removing", left, 500)
}

fn readdir_rewind(dir: &Path) -> io::Result<()> {
    file(dir, "a", b"")?;
    let mut open = nix::dir::Dir::open(dir, nix::fcntl::OFlag::O_RDONLY, Mode::empty())?;
    let mut count = || open.iter().filter(Result::is_ok).count();
    equal("entries with dot and dot dot", count(), 3)?;
    file(dir, "b", b"")?;
    // A new iterator rewinds; the new name has to be seen.
    equal("entries after rewind", count(), 4)
}

fn unlink_open(dir: &Path) -> io::Result<()> {
    let path = dir.join("f");
    let mut f = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    f.write_all(b"still here")?;
    fs::remove_file(&path)?;
    equal("names in the folder", fs::read_dir(dir)?.count(), 0)?;
    equal("links", f.metadata()?.nlink(), 0)?;
    f.write_all(b", and more")?;
    f.set_len(12)?;
    f.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    f.read_to_string(&mut text)?;
    equal("content", text.as_str(), "still here, ")?;
    file(dir, "f", b"another")?;
    equal("links of the old one", f.metadata()?.nlink(), 0)
}

fn long_names(dir: &Path) -> io::Result<()> {
    file(dir, &"n".repeat(255), b"x")?;
    equal(
        "content",
        fs::read(dir.join("n".repeat(255)))?,
        b"x".to_vec(),
    )?;
    refused(
        "a longer name",
        File::create(dir.join("n".repeat(256))),
        libc::ENAMETOOLONG,
    )?;
    let odd = "new\nline \u{1f980} \\ 'quote'";
    file(dir, odd, b"y")?;
    equal("content", fs::read(dir.join(odd))?, b"y".to_vec())
}

fn dot_dot(dir: &Path) -> io::Result<()> {
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::create_dir_all(a.join("sub"))?;
    fs::create_dir(&b)?;
    fs::rename(a.join("sub"), b.join("sub"))?;
    let parent = fs::metadata(b.join("sub/.."))?.ino();
    equal(
        "the parent of a moved folder",
        parent,
        fs::metadata(&b)?.ino(),
    )
}
