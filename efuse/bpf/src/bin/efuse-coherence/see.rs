//! What one caller sees of a list of paths.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::differential::{checksum, get_xattr, list_xattr};

/// Print what a caller sees: attributes, contents, targets, extended attributes, lists, errors.
#[derive(Debug, Args)]
pub(crate) struct See {
    /// The folder.
    folder: PathBuf,
    /// Paths in it, there or not.
    names: Vec<PathBuf>,
    /// Become this user.
    #[arg(long)]
    uid: Option<u32>,
    /// Become this group.
    #[arg(long)]
    gid: Option<u32>,
    /// Become a member of these groups, too.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<u32>,
    /// Enter the mount namespace of a process first.
    #[arg(long, value_name = "PID")]
    mount_namespace: Option<u32>,
    /// Then its user namespace.
    #[arg(long, value_name = "PID")]
    user_namespace: Option<u32>,
}

pub(crate) fn run(verb: &See) -> Result<String> {
    let namespace = |pid: Option<u32>, kind: &str| -> Result<Option<File>> {
        pid.map(|pid| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).context(path)
        })
        .transpose()
    };
    // The second is not to be had from inside the first.
    let mount = namespace(verb.mount_namespace, "mnt")?;
    let user = namespace(verb.user_namespace, "user")?;
    for (file, kind) in [(mount, libc::CLONE_NEWNS), (user, libc::CLONE_NEWUSER)] {
        if let Some(file) = file {
            // SAFETY: the descriptor is open during the call, and this process has one thread.
            done(unsafe { libc::setns(file.as_raw_fd(), kind) }).context("enter a namespace")?;
        }
    }
    if verb.user_namespace.is_none() {
        // SAFETY: the list has as many elements as are announced.
        done(unsafe { libc::setgroups(verb.groups.len(), verb.groups.as_ptr()) })
            .context("set the groups")?;
    }
    if let Some(gid) = verb.gid {
        // SAFETY: plain numbers.
        done(unsafe { libc::setresgid(gid, gid, gid) }).context("become the group")?;
    }
    if let Some(uid) = verb.uid {
        // SAFETY: plain numbers.
        done(unsafe { libc::setresuid(uid, uid, uid) }).context("become the user")?;
    }
    let lines = verb
        .names
        .iter()
        .map(|name| format!("{}: {}", name.display(), look(&verb.folder.join(name))));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn done(status: i32) -> io::Result<()> {
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn look(path: &Path) -> String {
    let parts: [(&str, io::Result<String>); 7] = [
        (
            "stat",
            fs::symlink_metadata(path).map(|m| {
                let size = if m.is_dir() { 0 } else { m.len() };
                format!(
                    "{:o} {} {} {size} {}",
                    m.mode(),
                    m.uid(),
                    m.gid(),
                    m.mtime()
                )
            }),
        ),
        (
            "followed",
            fs::metadata(path).map(|m| format!("{:o} {}", m.mode(), m.uid())),
        ),
        (
            "read",
            // A directory's error is its own.
            fs::read(path).map(|bytes| format!("{} {:x}", bytes.len(), checksum(&bytes))),
        ),
        (
            "target",
            fs::read_link(path).map(|target| target.display().to_string()),
        ),
        (
            "xattr",
            get_xattr(path, 0).map(|value| format!("{} {:x}", value.len(), checksum(&value))),
        ),
        ("xattrs", list_xattr(path)),
        (
            "list",
            fs::read_dir(path).and_then(|items| {
                let mut names = items
                    .map(|item| item.map(|item| item.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<Vec<_>>>()?;
                names.sort();
                Ok(names.join(" "))
            }),
        ),
    ];
    let shown = parts.map(|(what, result)| match result {
        Ok(text) => format!("{what} [{text}]"),
        Err(error) => format!("{what} error {}", error.raw_os_error().unwrap_or(-1)),
    });
    shown.join(", ")
}
