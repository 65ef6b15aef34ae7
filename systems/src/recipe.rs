//! How a FUSE daemon is started and mounted; shared by the built-in systems and those
//! of the user.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use efuse_model::environment::Place;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::bounded::{bounded, poll};
use crate::builtin::stackfs;
use crate::connection::Control;
use crate::daemon::{Daemon, Launch, new_token};
use crate::guardian::Guardian;
use crate::mountinfo::{self, MountEntry, is_type};
use crate::{MountContext, Mounted, Need, SystemError, settings};

/// What may stand in a command.
pub(crate) const PLACEHOLDERS: [&str; 4] = ["{lower}", "{mountpoint}", "{threads}", "{timeout}"];

/// How long a daemon may take to mount, unless it says otherwise; one that ends is noticed at
/// once. Generous: verifying its programs took more than 30 s in an emulated guest with the
/// debug kernel, beside other work.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(120);

/// Everything about a daemon, as a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Name of the program, looked up in the folders of programs, or its path.
    pub program: String,
    /// Its arguments, with [`PLACEHOLDERS`].
    pub args: Vec<String>,
    /// Additional environment, with [`PLACEHOLDERS`].
    pub env: BTreeMap<String, String>,
    /// The started process stays the daemon.
    pub foreground: bool,
    /// A line that the daemon prints when it is ready; without one the mount itself is
    /// the sign.
    pub ready_line: Option<String>,
    /// Limit for becoming ready.
    pub ready_limit: Duration,
    /// `fuse` or `efuse`; a subtype (`fuse.NAME`) counts as well.
    pub fs_type: String,
    /// Open this device, mount it, and give the daemon `/dev/fd/N` as mount point.
    pub handover: Option<PathBuf>,
    /// Set the connection's background queue to the shared setting.
    pub set_background: bool,
    /// Command that unmounts, with [`PLACEHOLDERS`]; without one umount(2).
    pub unmount: Option<Vec<String>>,
    /// Whether a status other than 0 after the unmount is an error.
    pub strict_exit: bool,
}

impl Recipe {
    /// A daemon in the foreground that mounts `fs_type` itself.
    pub(crate) fn new(program: &str, args: &[&str], fs_type: &str) -> Self {
        Self {
            program: program.to_owned(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: BTreeMap::new(),
            foreground: true,
            ready_line: None,
            ready_limit: READY_LIMIT,
            fs_type: fs_type.to_owned(),
            handover: None,
            set_background: true,
            unmount: None,
            strict_exit: true,
        }
    }

    /// The whole recipe as text, for digests.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{self:?} {}", settings::fingerprint())
    }

    /// Mounts and waits until the file system answers. On an error nothing is left.
    pub(crate) fn mount(&self, system: &str, ctx: &MountContext) -> Result<Mounted, SystemError> {
        let root = free_mountpoint(&ctx.mountpoint)?;
        let lower = fs::canonicalize(&ctx.lower)
            .map_err(SystemError::io(&ctx.lower, "find the lower directory"))?;
        let program = ctx
            .bin
            .find(&self.program)
            .ok_or_else(|| SystemError::Unavailable {
                system: system.to_owned(),
                reason: format!("the program {} is not here", self.program),
            })?;
        let slow = ctx.slow_percent > 0;
        if slow && self.program != stackfs::PROGRAM {
            return Err(SystemError::Unavailable {
                system: system.to_owned(),
                reason: stackfs::NOT_SLOWED.to_owned(),
            });
        }
        let slow = slow.then(|| format!("--slow-percent={}", ctx.slow_percent));
        let token = new_token();
        // From here on `mounted` cleans up whatever has come into being.
        let mut mounted = Mounted {
            system: system.to_owned(),
            root: root.clone(),
            entry: None,
            control: None,
            daemon: None,
            guardian: Guardian::start(&root, &token),
            unmount_with: None,
            strict_exit: self.strict_exit,
            finished: false,
        };
        if self.handover.is_some() {
            // Once more where it counts: the consequence would hit the whole machine.
            Need::TakesDescriptor {
                program: self.program.clone(),
            }
            .check(Place::Host, &ctx.bin)
            .map_err(|reason| SystemError::Unavailable {
                system: system.to_owned(),
                reason,
            })?;
        }
        let device = self
            .handover
            .as_ref()
            .map(|device| mount_device(device, &self.fs_type, system, &root))
            .transpose()?;
        let target = device.as_ref().map_or_else(
            || root.clone().into_os_string(),
            |fd| format!("/dev/fd/{}", fd.as_raw_fd()).into(),
        );
        let threads = settings::WORKERS.to_string();
        let timeout = ctx.kernel_cache.map_or_else(
            || settings::TIMEOUT_S.to_owned(),
            |cache| format!("{}.0", cache.seconds()),
        );
        let values: [(&str, &OsStr); 4] = [
            (PLACEHOLDERS[0], lower.as_os_str()),
            (PLACEHOLDERS[1], &target),
            (PLACEHOLDERS[2], OsStr::new(&threads)),
            (PLACEHOLDERS[3], OsStr::new(&timeout)),
        ];
        let daemon = Daemon::start(&Launch {
            system,
            program: &program,
            args: self
                .args
                .iter()
                .chain(&slow)
                .map(|a| expand(a, &values))
                .collect(),
            env: self
                .env
                .iter()
                .map(|(k, v)| (k.clone(), expand(v, &values)))
                .collect(),
            foreground: self.foreground,
            log: &ctx.log,
            token: &token,
            inherit: device.as_ref(),
        })?;
        // The daemon is now the only one that holds the device, so that its end is the
        // connection's end.
        drop(device);
        mounted.daemon = Some(daemon);
        self.wait_ready(&mut mounted)?;
        // Not the descriptor: the unmount command means the directory.
        let values = [values[0], (PLACEHOLDERS[1], root.as_os_str()), values[2]];
        mounted.unmount_with = self.unmount.as_ref().map(|command| {
            command
                .iter()
                .map(|a| expand(a, &values).to_string_lossy().into_owned())
                .collect()
        });
        Ok(mounted)
    }

    /// A daemon that does not understand `/dev/fd/N` may follow it to the device node
    /// and mount itself there, where it is in everybody's way: undone at once.
    fn check_device(&self) -> Result<(), SystemError> {
        let Some(device) = &self.handover else {
            return Ok(());
        };
        if mountinfo::at(device)?.is_none() {
            return Ok(());
        }
        let undone = umount2(device, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        Err(SystemError::Io {
            path: device.clone(),
            action: "hand it to the daemon, which mounted itself over the device node \
                     instead of taking the descriptor"
                .to_owned(),
            source: undone.err().unwrap_or(Errno::ENOTSUP).into(),
        })
    }

    fn wait_ready(&self, mounted: &mut Mounted) -> Result<(), SystemError> {
        let deadline = Instant::now() + self.ready_limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        let when = "before the file system was ready";
        let mut waiting_for = String::new();
        let seen = poll(self.ready_limit, || {
            let daemon = mounted.daemon.as_mut()?;
            if let Err(e) = self.check_device() {
                return Some(Err(e));
            }
            if let Err(e) = daemon.check(when) {
                return Some(Err(e));
            }
            if let Some(line) = &self.ready_line
                && !daemon.has_printed(line)
            {
                waiting_for = format!("the daemon has not printed the line \"{line}\"");
                return None;
            }
            waiting_for = format!(
                "no file system of type {} is mounted at {}",
                self.fs_type,
                mounted.root.display()
            );
            match mountinfo::at(&mounted.root) {
                Ok(Some(entry)) if is_type(&entry.fs_type, &self.fs_type) => Some(Ok(entry)),
                Ok(Some(entry)) => {
                    waiting_for = format!(
                        "what is mounted at {} is {} and not {}",
                        mounted.root.display(),
                        entry.fs_type,
                        self.fs_type
                    );
                    None
                }
                Ok(None) => None,
                Err(e) => Some(Err(e)),
            }
        })
        .transpose()?;
        if let Some(entry) = seen {
            let background = self
                .set_background
                .then_some((settings::MAX_BACKGROUND, settings::CONGESTION_THRESHOLD));
            let control = Control::open(&entry, background);
            mounted.entry = Some(entry);
            mounted.control = match control {
                // Only needed to end a daemon that hangs.
                Err(_) if !self.set_background => None,
                control => control?,
            };
            let root = mounted.root.clone();
            // A call that hangs is freed by the abort of the clean-up.
            match bounded(left().max(Duration::from_millis(1)), move || {
                nix::sys::statvfs::statvfs(&root)
            }) {
                Some(Ok(_)) => {
                    if let Some(daemon) = &mut mounted.daemon {
                        daemon.adopt();
                        daemon.check(when)?;
                    }
                    return Ok(());
                }
                Some(Err(e)) => {
                    // A dead daemon is the better explanation of an error.
                    let ended = poll(Duration::from_millis(500), || {
                        mounted.daemon.as_mut()?.check(when).err()
                    });
                    if let Some(error) = ended {
                        return Err(error);
                    }
                    waiting_for = format!("statfs(2) on it fails: {}", e.desc());
                }
                None => waiting_for = "statfs(2) on it does not return".to_owned(),
            }
        }
        Err(SystemError::NotReady {
            system: mounted.system.clone(),
            seconds: self.ready_limit.as_secs(),
            what: waiting_for,
            log: mounted
                .daemon
                .as_ref()
                .map_or_else(String::new, |d| d.log().tail()),
        })
    }
}

/// The mount point's real path, if nothing is mounted there.
pub(crate) fn free_mountpoint(path: &Path) -> Result<PathBuf, SystemError> {
    let root = fs::canonicalize(path).map_err(SystemError::io(path, "find the mount point"))?;
    match mountinfo::at(&root)? {
        None => Ok(root),
        Some(MountEntry { .. }) => Err(SystemError::Occupied { path: root }),
    }
}

/// Opens a FUSE device and mounts it, as `fusermount3` would; the descriptor is what a
/// libfuse daemon accepts as `/dev/fd/N` in place of a mount point.
fn mount_device(
    device: &Path,
    fs_type: &str,
    source: &str,
    root: &Path,
) -> Result<OwnedFd, SystemError> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(SystemError::io(device, "open the device"))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        file.as_raw_fd()
    );
    mount(
        Some(source),
        root,
        Some(fs_type),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|e| {
        SystemError::io(root, format!("mount a file system of type {fs_type}"))(e.into())
    })?;
    Ok(file.into())
}

/// Puts values in place of placeholders, each occurrence, in one pass.
fn expand(template: &str, values: &[(&str, &OsStr)]) -> OsString {
    let mut out = OsString::new();
    let mut rest = template;
    while !rest.is_empty() {
        let next = values
            .iter()
            .filter_map(|(name, value)| Some((rest.find(name)?, *name, *value)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, value)) = next else {
            out.push(rest);
            break;
        };
        out.push(&rest[..at]);
        out.push(value);
        rest = &rest[at + name.len()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_expanded_again() {
        let values: [(&str, &OsStr); 2] = [
            ("{lower}", OsStr::new("/a/{mountpoint}")),
            ("{mountpoint}", OsStr::new("/m")),
        ];
        assert_eq!(
            expand("x={lower}:{mountpoint}:{lower}{other}", &values),
            OsString::from("x=/a/{mountpoint}:/m:/a/{mountpoint}{other}")
        );
    }

    #[test]
    fn every_part_of_a_recipe_shows_in_its_fingerprint() {
        let base = Recipe::new("p", &["a"], "fuse");
        let mut other = base.clone();
        other.env.insert("K".into(), "V".into());
        assert_ne!(base.fingerprint(), other.fingerprint());
        assert_eq!(base.fingerprint(), base.clone().fingerprint());
    }
}
