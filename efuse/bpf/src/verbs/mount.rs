//! `efuse mount`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use efuse_bpf::Dev;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};

/// What stands for the mount point in the daemon's command.
const PLACE: &str = "{}";
/// What libfuse 2 needs, as programs name it.
const OLD_LIBRARY: &[u8] = b"libfuse.so.2\0";

/// Run an unmodified daemon of libfuse 3 on an eFUSE mount.
///
/// Opens the device, mounts it, and runs the daemon with /dev/fd/N in the place of {}, which libfuse 3 takes
/// for a file system that is mounted already: `efuse mount /mnt/x -- sshfs -f host: {}`. The daemon stays in
/// the foreground (-f). Ends when the daemon does, with its status, and unmounts then; SIGINT, SIGTERM and
/// SIGHUP unmount, which ends the daemon.
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// An empty folder to mount on.
    mountpoint: PathBuf,
    /// The daemon and its arguments, one of which has {} in it.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
    /// Options of the mount.
    #[arg(
        short,
        long,
        value_name = "A,B",
        default_value = "allow_other,default_permissions"
    )]
    options: String,
    /// Character device that the daemon is to serve.
    #[arg(long, default_value = "/dev/efuse")]
    device: PathBuf,
    /// Type of the mount.
    #[arg(long, default_value = "efuse")]
    fstype: String,
}

/// A mount, which goes when this is dropped unless it is gone by then.
struct Mounted<'a> {
    path: &'a Path,
    dev: Dev,
}

impl Mounted<'_> {
    /// Lazily: whoever uses it is served no more, as the daemon ends with it.
    fn unmount(&self) -> Result<()> {
        // Nothing, or another's, is there if somebody else has unmounted it.
        if Dev::of_mount(self.path).ok() != Some(self.dev) {
            return Ok(());
        }
        umount2(self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .with_context(|| format!("cannot unmount {}", self.path.display()))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("efuse: {error:#}");
        }
    }
}

pub(crate) fn run(verb: &Mount) -> Result<()> {
    let (program, arguments) = verb.command.split_first().context("no command")?;
    if !arguments.iter().any(|word| place(word).is_some()) {
        bail!("{PLACE} is in none of the daemon's arguments: it stands for the mount point");
    }
    takes_descriptors(Path::new(program))?;
    // From here on, so that none is missed; the daemon begins with none of them blocked.
    let signals = signals();
    signals.thread_block().context("cannot block signals")?;
    let root = fs::canonicalize(&verb.mountpoint)
        .with_context(|| format!("cannot find {}", verb.mountpoint.display()))?;
    if Dev::of_mount(&root).is_ok() {
        bail!("{} is mounted already", root.display());
    }
    let device = mount_device(verb, program, &root)?;
    let mounted = Mounted {
        path: &root,
        dev: Dev::of_mount(&root)?,
    };
    let mut command = Command::new(program);
    command.args(
        arguments
            .iter()
            .map(|word| expanded(word, device.as_raw_fd())),
    );
    let mut daemon = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // The daemon's alone, so that its end is that of the connection.
    drop(device);
    let status = wait(&mut daemon, &mounted, &signals)?;
    drop(mounted);
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => bail!("{} exited with status {code}", program.display()),
        (None, signal) => bail!(
            "{} was killed by signal {}",
            program.display(),
            signal.unwrap_or_default()
        ),
    }
}

fn signals() -> SigSet {
    [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ]
    .into_iter()
    .collect()
}

/// Until the daemon ends. The first signal unmounts, the second kills it.
fn wait(daemon: &mut Child, mounted: &Mounted<'_>, signals: &SigSet) -> Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = daemon.try_wait().context("cannot wait for the daemon")? {
            return Ok(status);
        }
        match signals.wait().context("cannot wait for signals")? {
            Signal::SIGCHLD => {}
            _ if asked => daemon.kill().context("cannot kill the daemon")?,
            _ => {
                asked = true;
                mounted.unmount()?;
            }
        }
    }
}

/// Where the mount point's place in a word begins.
fn place(word: &OsString) -> Option<usize> {
    let mut windows = word.as_bytes().windows(PLACE.len());
    windows.position(|window| window == PLACE.as_bytes())
}

fn expanded(word: &OsString, fd: RawFd) -> OsString {
    let Some(at) = place(word) else {
        return word.clone();
    };
    let bytes = word.as_bytes();
    let path = format!("/dev/fd/{fd}");
    OsString::from_vec([&bytes[..at], path.as_bytes(), &bytes[at + PLACE.len()..]].concat())
}

/// Opens the device and mounts it, as `fusermount3` would; the descriptor is for the daemon.
fn mount_device(verb: &Mount, source: &OsString, root: &Path) -> Result<File> {
    let device = File::options()
        .read(true)
        .write(true)
        .open(&verb.device)
        .with_context(|| {
            format!(
                "cannot open {}; `kernel host` builds and loads the module",
                verb.device.display()
            )
        })?;
    fcntl(&device, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot hand the device over")?;
    let comma = if verb.options.is_empty() { "" } else { "," };
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{comma}{}",
        device.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid(),
        verb.options
    );
    let name = Path::new(source).file_name().unwrap_or(source);
    match mount(
        Some(name),
        root,
        Some(verb.fstype.as_str()),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    ) {
        Ok(()) => Ok(device),
        Err(Errno::EPERM) => bail!("mounting takes root"),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot mount a file system of type {} with options {options} on {}",
                verb.fstype,
                root.display()
            )
        }),
    }
}

/// libfuse 2 would follow `/dev/fd/N` to the device and mount itself over that, in everybody's way.
fn takes_descriptors(program: &Path) -> Result<()> {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.components().count() > 1 {
        Some(program.to_owned())
    } else {
        std::env::split_paths(&searched)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    };
    let Some(path) = found else {
        bail!("there is no program {} in PATH", program.display());
    };
    let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if content
        .windows(OLD_LIBRARY.len())
        .any(|window| window == OLD_LIBRARY)
    {
        bail!(
            "{} uses libfuse 2, which takes no descriptor for a mount point",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_put_where_the_mount_point_belongs() {
        for (word, wanted) in [
            ("{}", "/dev/fd/7"),
            ("--at={}", "--at=/dev/fd/7"),
            ("host:", "host:"),
        ] {
            assert_eq!(expanded(&OsString::from(word), 7), OsString::from(wanted));
        }
    }

    #[test]
    fn a_daemon_of_libfuse_2_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, library: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("\0{library}\0")).unwrap();
            takes_descriptors(&path)
        };
        assert!(program("new", "libfuse3.so.3").is_ok());
        let old = program("old", "libfuse.so.2").unwrap_err();
        assert!(old.to_string().contains("libfuse 2"));
        assert!(takes_descriptors(Path::new("no such program")).is_err());
    }
}
