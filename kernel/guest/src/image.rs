//! The initramfs: what the guest's file system consists of.
//!
//! It is made of two archives, one after the other, which the kernel unpacks in turn. The base
//! holds what the host's packages provide (busybox, fio and its libraries, `mke2fs`,
//! kernel modules) and is kept from boot to boot as long as none of those files changes; the top
//! holds what changes with our code and is made anew each time. Neither is compressed: under
//! emulation, decompressing takes the guest seconds and saves nothing but a copy in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::GuestError;
use crate::modules;
use crate::spec::GuestSpec;
use crate::stubs;
use crate::tool;
use crate::tree::Tree;

const INIT: &str = include_str!("init.sh");

/// Folders that must exist in the guest, and their modes.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/lib", 0o755),
    ("var/log", 0o755),
];

/// Small files of `/etc`. The users beside root are for tests of permissions; pjdfstest looks
/// for users and groups of just these names.
const ETC: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/bin/sh\n\
         tests:x:1001:1001:tests:/tmp:/bin/sh\n\
         pjdfstest:x:1002:1002:pjdfstest:/tmp:/bin/sh\n\
         other:x:1003:1003:other:/tmp:/bin/sh\n",
    ),
    (
        "group",
        "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nnobody:x:65533:\ntests:x:1001:\npjdfstest:x:1002:\n\
         other:x:1003:\n",
    ),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    (
        "fstab",
        "proc /proc proc nosuid,noexec,nodev 0 0\n\
         sys /sys sysfs nosuid,noexec,nodev 0 0\n\
         run /run tmpfs nosuid,nodev,mode=755 0 0\n\
         tmp /tmp tmpfs nosuid,nodev,mode=1777 0 0\n\
         pts /dev/pts devpts gid=5,mode=620,ptmxmode=666 0 0\n\
         shm /dev/shm tmpfs nosuid,nodev,mode=1777 0 0\n\
         cgroup /sys/fs/cgroup cgroup2 rw 0 0\n\
         bpf /sys/fs/bpf bpf mode=700 0 0\n\
         debug /sys/kernel/debug debugfs rw 0 0\n\
         trace /sys/kernel/tracing tracefs rw 0 0\n",
    ),
    ("hosts", "127.0.0.1 localhost efuse\n"),
    ("hostname", "efuse\n"),
    ("fuse.conf", "user_allow_other\n"),
    ("modprobe.d/efuse.conf", "options null_blk nr_devices=0\n"),
];

/// Programs of the host that the guest cannot do without, and Debian's packages of them.
const PROGRAMS: &[(&str, &str)] = &[("fio", "fio"), ("mke2fs", "e2fsprogs")];

/// How many bases are kept: the one in use and those of another branch or kernel.
const KEEP: usize = 3;

/// What the packages of the host provide.
fn base_tree(spec: &GuestSpec) -> Result<Tree, GuestError> {
    let mut tree = Tree::default();
    tree.aliases()?;
    for (folder, mode) in FOLDERS {
        tree.folder(folder, *mode)?;
    }
    for (name, text) in ETC {
        let path = Path::new("/etc").join(name);
        tree.bytes(&path, 0o644, text.as_bytes().to_vec())?;
    }
    tree.link("/etc/mtab", "/proc/self/mounts")?;
    for (tool, package) in PROGRAMS {
        let host = tool::find(tool, package)?;
        let path = Path::new("/bin").join(tool);
        match stubs::slim_closure(&host, &spec.work_dir)? {
            Some(closure) => tree.program(&host, &path, &closure)?,
            None => tree.host(&host, &path, None)?,
        }
    }
    for name in ["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"] {
        tree.link(&format!("/bin/{name}"), "mke2fs")?;
    }
    // mkfs.ext4 without its defaults makes another file system than it does on the host.
    let mke2fs_conf = Path::new("/etc/mke2fs.conf");
    if mke2fs_conf.exists() {
        tree.host(mke2fs_conf, mke2fs_conf, None)?;
    }
    modules::add(
        &mut tree,
        &spec.artifacts.modules_dir,
        &spec.artifacts.release,
    )?;
    busybox(&mut tree)?;
    Ok(tree)
}

/// busybox and a link for each of its applets whose name is not taken.
fn busybox(tree: &mut Tree) -> Result<(), GuestError> {
    let host = tool::find("busybox", "busybox-static")?;
    let applets = tool::output(Command::new(&host).arg("--list"))?;
    tree.host(&host, Path::new("/bin/busybox"), None)?;
    for applet in String::from_utf8_lossy(&applets).lines() {
        if !applet.is_empty() && !applet.contains('/') {
            tree.link_if_absent(&format!("/bin/{applet}"), "busybox")?;
        }
    }
    Ok(())
}

/// What changes with our code.
fn top_tree(spec: &GuestSpec, base: &Tree) -> Result<Tree, GuestError> {
    let mut tree = Tree::default();
    tree.bytes(Path::new("/init"), 0o755, INIT.as_bytes().to_vec())?;
    tree.host(&spec.init_binary, Path::new("/bin/eval"), Some(base))?;
    tree.host(
        &spec.artifacts.module,
        Path::new("/lib/efuse.ko"),
        Some(base),
    )?;
    for (host, guest) in &spec.files {
        if !guest.is_absolute() {
            return Err(GuestError::Specification(format!(
                "the path {} in the guest is not absolute",
                guest.display()
            )));
        }
        tree.host(host, guest, Some(base))?;
    }
    Ok(tree)
}

/// Makes the initramfs of a guest. It lies in memory and has no name, so nothing is left of it
/// however this process ends.
pub(crate) fn build(
    spec: &GuestSpec,
    progress: &mut dyn FnMut(&str),
) -> Result<OwnedFd, GuestError> {
    let base = base_tree(spec)?;
    let top = top_tree(spec, &base)?;
    let cached = cached_base(&base, &spec.work_dir, progress)?;

    let name = Path::new("the initramfs");
    let memory = memfd_create("efuse-initramfs", MFdFlags::MFD_CLOEXEC)
        .map_err(GuestError::io("make memory for", name))?;
    let mut memory = File::from(memory);
    let mut file = File::open(&cached).map_err(GuestError::io("open", &cached))?;
    io::copy(&mut file, &mut memory).map_err(GuestError::io("copy", &cached))?;
    let out = top.write(BufWriter::with_capacity(1 << 20, memory))?;
    finish(out, name).map(OwnedFd::from)
}

/// The smallest initramfs that shows that a kernel runs: it says `marker` and ends.
pub(crate) fn build_probe(marker: &str) -> Result<OwnedFd, GuestError> {
    let mut tree = Tree::default();
    let host = tool::find("busybox", "busybox-static")?;
    tree.host(&host, Path::new("/bin/busybox"), None)?;
    tree.folder("dev", 0o755)?;
    let init = format!("#!/bin/busybox sh\necho {marker}\n/bin/busybox poweroff -f\n");
    tree.bytes(Path::new("/init"), 0o755, init.into_bytes())?;
    let name = Path::new("the initramfs of the probe boot");
    let memory = memfd_create("efuse-probe", MFdFlags::MFD_CLOEXEC)
        .map_err(GuestError::io("make memory for", name))?;
    let out = tree.write(BufWriter::new(File::from(memory)))?;
    finish(out, name).map(OwnedFd::from)
}

fn finish(out: BufWriter<File>, name: &Path) -> Result<File, GuestError> {
    let mut file = out.into_inner().map_err(|error| GuestError::Io {
        action: "write",
        path: name.to_owned(),
        reason: error.error().to_string(),
    })?;
    file.flush().map_err(GuestError::io("write", name))?;
    file.seek(SeekFrom::Start(0))
        .map_err(GuestError::io("rewind", name))?;
    Ok(file)
}

/// The base's archive, from an earlier boot if the same one was made before.
fn cached_base(
    base: &Tree,
    work_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, GuestError> {
    let path = work_dir.join(format!("base-{}.cpio", base.fingerprint()?));
    if path.exists() {
        return Ok(path);
    }
    progress("packing fio, its libraries and the kernel's modules for the guest");
    // Written aside and renamed, so that a half-written base is never taken for one.
    let temporary =
        tempfile::NamedTempFile::new_in(work_dir).map_err(GuestError::io("write to", work_dir))?;
    let out = base.write(BufWriter::with_capacity(1 << 20, temporary))?;
    let temporary = out.into_inner().map_err(|error| GuestError::Io {
        action: "write",
        path: path.clone(),
        reason: error.error().to_string(),
    })?;
    temporary.persist(&path).map_err(|error| GuestError::Io {
        action: "write",
        path: path.clone(),
        reason: error.error.to_string(),
    })?;
    prune(work_dir);
    Ok(path)
}

/// Removes all but the newest few bases. A guest that starts from one just now has it open
/// already, or makes it again; a failure to remove costs space only.
fn prune(work_dir: &Path) {
    let Ok(entries) = fs::read_dir(work_dir) else {
        return;
    };
    let mut bases: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("base-") && name.ends_with(".cpio")
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    bases.sort();
    for (_, path) in bases.iter().rev().skip(KEEP) {
        let _ = fs::remove_file(path);
    }
}
