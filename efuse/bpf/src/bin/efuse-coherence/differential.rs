//! The same operations on two directories.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{self as unix, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::Random;

/// After so many operations each process compares what it has and begins anew: folders that are
/// renamed into each other go deeper than names reach, and would fill the file system up.
const ROUND: u32 = 4000;

/// Starts the processes and waits for them.
pub(crate) fn run(
    mount: &Path,
    plain: &Path,
    operations: u32,
    processes: u32,
    seed: u64,
) -> Result<String> {
    println!("seed {seed}, {processes} processes, {operations} operations each");
    let own = std::env::current_exe().context("cannot tell this program's path")?;
    let mut children = Vec::new();
    for worker in 0..processes {
        let child = Command::new(&own)
            .arg("differential")
            .args([mount, plain])
            .arg(format!("--operations={operations}"))
            .arg(format!("--seed={seed}"))
            .arg(format!("--worker={worker}"))
            .spawn()
            .context("cannot start a process")?;
        children.push(child);
    }
    let mut failed = 0;
    for mut child in children {
        failed += u32::from(!child.wait()?.success());
    }
    ensure!(
        failed == 0,
        "{failed} of {processes} processes saw a difference (seed {seed})"
    );
    let entries = same_trees(mount, plain, seed)?;
    Ok(format!(
        "{processes} processes of {operations} operations, seed {seed}: no difference; {entries} entries in the end"
    ))
}

/// Fails if two trees differ; how many entries they have.
fn same_trees(mount: &Path, plain: &Path, seed: u64) -> Result<usize> {
    let (there, here) = (tree(mount)?, tree(plain)?);
    if let Some(path) = there
        .keys()
        .chain(here.keys())
        .find(|p| there.get(*p) != here.get(*p))
    {
        bail!(
            "{}: {:?} on the mount, {:?} on the plain directory (seed {seed})",
            path.display(),
            there.get(path),
            here.get(path)
        );
    }
    Ok(here.len())
}

/// Everything below a folder, with what must be equal.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = item?.path();
            let mut seen = show(&path)?;
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                open.push(path.clone());
            } else if meta.is_file() {
                seen += &format!(" {:?}", checksum(&fs::read(&path)?));
            }
            out.insert(path.strip_prefix(root)?.to_owned(), seen);
        }
    }
    Ok(out)
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// One process: each operation on the mount, then on the plain directory.
pub(crate) fn work(
    mount: &Path,
    plain: &Path,
    operations: u32,
    seed: u64,
    worker: u32,
) -> Result<String> {
    let mut random = Random(seed ^ u64::from(worker).wrapping_mul(0x1234_5678_9abc_def1));
    let sides = [mount, plain].map(|side| side.join(format!("p{worker}")));
    for side in &sides {
        fs::create_dir(side).with_context(|| side.display().to_string())?;
    }
    for number in 0..operations {
        if number != 0 && number.is_multiple_of(ROUND) {
            let [there, here] = &sides;
            same_trees(there, here, seed)?;
            for side in &sides {
                fs::remove_dir_all(side)
                    .and_then(|()| fs::create_dir(side))
                    .with_context(|| side.display().to_string())?;
            }
        }
        let operation = Operation::pick(&mut random);
        let [there, here] = sides.each_ref().map(|side| {
            operation
                .on(side)
                .map_err(|e| e.raw_os_error().unwrap_or(-1))
        });
        ensure!(
            there == here,
            "process {worker}, operation {number}, {operation:?}: {there:?} on the mount, \
             {here:?} on the plain directory (seed {seed})"
        );
    }
    Ok(format!("process {worker}: {operations} results equal"))
}

/// Few names, so that operations meet on them: 6 in each of 5 folders, two levels.
#[derive(Clone, Debug)]
struct Name(String);

impl Name {
    fn pick(random: &mut Random) -> Self {
        let leaf = format!("n{}", random.below(6));
        Self(match random.below(5) {
            0 => leaf,
            folder => format!("n{}/{leaf}", folder - 1),
        })
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Stat(Name),
    Missing(Name),
    Create(Name),
    Write(Name, u64, u8),
    Truncate(Name, u64),
    Read(Name),
    Unlink(Name),
    Mkdir(Name),
    Rmdir(Name),
    Rename(Name, Name),
    Exchange(Name, Name),
    Link(Name, Name),
    Symlink(Name, u64),
    Readlink(Name),
    Chmod(Name, u32),
    Mknod(Name),
    SetXattr(Name, u64, u64),
    GetXattr(Name, u64),
    ListXattr(Name),
    RemoveXattr(Name, u64),
    List(Name),
    Fallocate(Name, u64),
    OpenTruncate(Name),
    CopyRange(Name, Name),
    Mtime(Name, u64),
}

impl Operation {
    fn pick(random: &mut Random) -> Self {
        let name = Name::pick(random);
        match random.below(40) {
            0..=8 => Self::Stat(name),
            9 => Self::Missing(name),
            10..=12 => Self::Create(name),
            13..=15 => Self::Write(name, random.below(9000), random.next().to_le_bytes()[0]),
            16 => Self::Truncate(name, random.below(9000)),
            17 => Self::Read(name),
            18 | 19 => Self::Unlink(name),
            20 | 21 => Self::Mkdir(name),
            22 => Self::Rmdir(name),
            23 | 24 => Self::Rename(name, Name::pick(random)),
            25 => Self::Exchange(name, Name::pick(random)),
            26 => Self::Link(name, Name::pick(random)),
            27 => Self::Symlink(name, random.below(300)),
            28 => Self::Readlink(name),
            29 => Self::Chmod(
                name,
                0o600 | u32::try_from(random.below(0o200)).unwrap_or(0),
            ),
            30 => Self::Mknod(name),
            31 => Self::SetXattr(name, random.below(3), random.below(700)),
            32 => Self::GetXattr(name, random.below(3)),
            33 => Self::ListXattr(name),
            34 => Self::RemoveXattr(name, random.below(3)),
            35 => Self::List(name),
            36 => Self::Fallocate(name, random.below(20000)),
            37 => Self::OpenTruncate(name),
            38 => Self::CopyRange(name, Name::pick(random)),
            _ => Self::Mtime(name, random.below(1 << 30)),
        }
    }

    /// Does it below `side`, and shows what came of it.
    fn on(&self, side: &Path) -> io::Result<String> {
        let at = |name: &Name| side.join(&name.0);
        let done = |()| String::new();
        match self {
            Self::Stat(n) => show(&at(n)),
            Self::Missing(n) => show(&at(n).with_file_name("never")),
            Self::Create(n) => OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(at(n))
                .map(|_| String::new()),
            Self::Write(n, offset, byte) => {
                let file = OpenOptions::new().write(true).open(at(n))?;
                file.write_all_at(&[*byte; 777], *offset)?;
                let meta = file.metadata()?;
                Ok(format!("{} {}", meta.len(), meta.nlink()))
            }
            Self::Truncate(n, size) => c_call(&at(n), |path| {
                let size = i64::try_from(*size).unwrap_or(0);
                // SAFETY: the path is a string that outlives the call.
                unsafe { libc::truncate(path, size).into() }
            })
            .map(done),
            Self::Read(n) => fs::read(at(n)).map(|bytes| checksum(&bytes).to_string()),
            Self::Unlink(n) => fs::remove_file(at(n)).map(done),
            Self::Mkdir(n) => fs::create_dir(at(n)).map(done),
            Self::Rmdir(n) => fs::remove_dir(at(n)).map(done),
            Self::Rename(a, b) => fs::rename(at(a), at(b)).map(done),
            Self::Exchange(a, b) => exchange(&at(a), &at(b)).map(done),
            Self::Link(a, b) => fs::hard_link(at(a), at(b)).map(done),
            Self::Symlink(n, length) => {
                let target = "t".repeat(usize::try_from(*length).unwrap_or(0).max(1));
                unix::symlink(target, at(n)).map(done)
            }
            Self::Readlink(n) => fs::read_link(at(n)).map(|to| to.display().to_string()),
            // Through a link it would leave the tree; links lead nowhere here.
            Self::Chmod(n, mode) => {
                fs::set_permissions(at(n), Permissions::from_mode(*mode)).map(done)
            }
            Self::Mknod(n) => c_call(&at(n), |path| {
                // A socket: opening it fails at once, where a pipe would wait.
                // SAFETY: the path is a string that outlives the call.
                unsafe { libc::mknod(path, libc::S_IFSOCK | 0o640, 0).into() }
            })
            .map(done),
            Self::SetXattr(n, which, size) => set_xattr(&at(n), *which, *size).map(done),
            Self::GetXattr(n, which) => get_xattr(&at(n), *which)
                .map(|value| format!("{} {}", value.len(), checksum(&value))),
            Self::ListXattr(n) => list_xattr(&at(n)),
            Self::RemoveXattr(n, which) => {
                let name = xattr_name(*which);
                c_call(&at(n), |path| {
                    // SAFETY: both are strings that outlive the call.
                    unsafe { libc::lremovexattr(path, name.as_ptr()).into() }
                })
                .map(done)
            }
            Self::List(n) => {
                let mut names: Vec<_> = fs::read_dir(at(n))?
                    .map(|item| item.map(|item| item.file_name()))
                    .collect::<io::Result<_>>()?;
                names.sort();
                Ok(format!("{names:?}"))
            }
            Self::Fallocate(n, size) => {
                use std::os::fd::AsRawFd as _;
                let file = OpenOptions::new().write(true).open(at(n))?;
                let size = i64::try_from(*size).unwrap_or(0) + 1;
                // SAFETY: the descriptor is open during the call.
                check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) }.into())?;
                Ok(String::new())
            }
            Self::OpenTruncate(n) => {
                let file = OpenOptions::new().write(true).truncate(true).open(at(n))?;
                Ok(file.metadata()?.len().to_string())
            }
            Self::CopyRange(a, b) => copy_range(&at(a), &at(b)),
            Self::Mtime(n, seconds) => {
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*seconds);
                let file = OpenOptions::new().write(true).open(at(n))?;
                file.set_modified(time)?;
                Ok(file.metadata()?.mtime().to_string())
            }
        }
    }
}

/// What stat(2) says, but for numbers that differ by nature. Sizes of directories are ext4's affair.
fn show(path: &Path) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let size = if meta.is_dir() { 0 } else { meta.len() };
    Ok(format!(
        "{:o} {} {size} {} {}",
        meta.mode(),
        meta.nlink(),
        meta.uid(),
        meta.gid()
    ))
}

fn check(status: i64) -> io::Result<i64> {
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(status)
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("names have no zero byte")
}

fn c_call(path: &Path, call: impl FnOnce(*const libc::c_char) -> i64) -> io::Result<()> {
    check(call(c_path(path).as_ptr())).map(drop)
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let (a, b) = (c_path(a), c_path(b));
    // SAFETY: both are strings that outlive the call.
    let status = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    check(status.into()).map(drop)
}

fn xattr_name(which: u64) -> CString {
    CString::new(format!("user.x{which}")).expect("no zero byte")
}

pub(crate) fn set_xattr(path: &Path, which: u64, size: u64) -> io::Result<()> {
    let (path, name) = (c_path(path), xattr_name(which));
    let value = vec![b'v'; usize::try_from(size).unwrap_or(0)];
    // SAFETY: strings and value outlive the call, and the length is the value's.
    let status = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(status.into()).map(drop)
}

/// Asks for the size first, as most programs do.
pub(crate) fn get_xattr(path: &Path, which: u64) -> io::Result<Vec<u8>> {
    let (path, name) = (c_path(path), xattr_name(which));
    let mut value = vec![0u8; 1024];
    // SAFETY: the buffer is writable for its whole length.
    let [asked, read] = [0, value.len()].map(|room| unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            room,
        )
    });
    let read = usize::try_from(check(read as i64)?).unwrap_or(0);
    value.truncate(read);
    // Where another one may have changed it in between, nobody compares.
    if usize::try_from(asked).ok() == Some(read) {
        Ok(value)
    } else {
        Err(io::Error::other(format!(
            "its size is {asked}, then {read}"
        )))
    }
}

pub(crate) fn list_xattr(path: &Path) -> io::Result<String> {
    let path = c_path(path);
    let mut list = vec![0u8; 1024];
    // SAFETY: the buffer is writable for its whole length.
    let read = unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let read = usize::try_from(check(read as i64)?).unwrap_or(0);
    let mut names: Vec<_> = list[..read].split(|byte| *byte == 0).collect();
    names.sort_unstable();
    Ok(names
        .iter()
        .map(|name| format!("{} ", String::from_utf8_lossy(name)))
        .collect())
}

fn copy_range(from: &Path, to: &Path) -> io::Result<String> {
    use std::os::fd::AsRawFd as _;

    let from = OpenOptions::new().read(true).open(from)?;
    let to = OpenOptions::new().write(true).open(to)?;
    // SAFETY: both descriptors are open during the call; null offsets mean their own.
    let copied = check(unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            4096,
            0,
        ) as i64
    })?;
    Ok(format!("{copied} {}", to.metadata()?.len()))
}
