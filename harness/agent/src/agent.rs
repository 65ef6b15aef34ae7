//! The agent: where it works, what it knows, what it cleans up.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use efuse_model::environment::{Accelerator, Environment, Place};
use efuse_probes::ProbeError;
use efuse_probes::perf::Switches;
use efuse_systems::{BinDirs, Registry};
use nix::mount::{MntFlags, umount2};

use crate::device;
use crate::environment;
use crate::error::{AgentError, Result};
use crate::limit::{Cancel, Limit};
use crate::sys;

/// Where and how the agent works.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Folder for mount points and logs. Several agents may share it: each has a
    /// folder of its own in it.
    pub state: PathBuf,
    /// Folder for the files of loop devices; `None`: `/dev/shm` if it is a mount of
    /// its own, else the state folder.
    pub backing: Option<PathBuf>,
    /// Host or VM.
    pub place: Place,
    /// What executes the guest, if the caller knows it.
    pub accelerator: Accelerator,
    /// Where programs are looked for, before the usual folders.
    pub bin: BinDirs,
    /// Folder with the user's own systems.
    pub systems: Option<PathBuf>,
    /// Makes a running cell give up.
    pub cancel: Cancel,
}

impl AgentOptions {
    /// Those of the guest: everything is in `/bin`, the state in `/run`.
    #[must_use]
    pub fn guest() -> Self {
        let systems = Path::new("/etc/efuse/systems");
        Self {
            state: PathBuf::from("/run/efuse"),
            backing: None,
            place: Place::Vm,
            accelerator: Accelerator::Tcg,
            bin: BinDirs::new([PathBuf::from("/bin")]),
            systems: systems.is_dir().then(|| systems.to_owned()),
            cancel: Cancel::default(),
        }
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Measures cells and runs checks on this machine.
#[derive(Debug)]
pub struct Agent {
    options: AgentOptions,
    registry: Registry,
    folder: PathBuf,
    backing: PathBuf,
    /// Whether perf events can be trusted here, once it has been asked.
    perf: OnceLock<Result<Switches, String>>,
}

impl Agent {
    /// Makes the working folder, after removing what killed agents left there.
    ///
    /// # Errors
    /// If the folder cannot be made, or the description of a user's system is wrong.
    pub fn new(options: AgentOptions) -> Result<Self> {
        let registry = Registry::load(options.systems.as_deref())?.with_bins(options.bin.clone());
        if options
            .state
            .to_string_lossy()
            .contains(char::is_whitespace)
        {
            return Err(AgentError::Io {
                path: options.state,
                action: "work in a folder with blanks in its name".into(),
                source: std::io::ErrorKind::InvalidFilename.into(),
            });
        }
        private_folder(&options.state)?;
        let state = fs::canonicalize(&options.state)
            .map_err(AgentError::io(&options.state, "find the folder"))?;
        let options = AgentOptions { state, ..options };
        sweep(&options.state);
        // Two agents of one process are told apart by the number.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = format!("agent-{}.{number}", std::process::id());
        let folder = options.state.join(&own);
        private_folder(&folder)?;
        let backing = options.backing.clone().or_else(ram_folder);
        let backing = match backing {
            Some(parent) => parent.join(format!("efuse-{own}")),
            None => folder.join("backing"),
        };
        private_folder(&backing)?;
        Ok(Self {
            options,
            registry,
            folder,
            backing,
            perf: OnceLock::new(),
        })
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// The systems it knows.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What it sees of its machine.
    #[must_use]
    pub fn environment(&self) -> Environment {
        environment::capture(
            self.options.place,
            self.options.accelerator,
            &self.options.bin,
        )
    }

    /// For each system: `None` if it can run here, else why not.
    #[must_use]
    pub fn probe(&self, systems: &[String]) -> Vec<(String, Option<String>)> {
        systems
            .iter()
            .map(|id| {
                (
                    id.clone(),
                    self.registry.availability(id, self.options.place),
                )
            })
            .collect()
    }

    /// Its own folder in the state folder: `lower` and `mnt` are the mount points of a
    /// running cell.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether perf events read here what happens, or why their figures must not be
    /// used. Tested the first time.
    ///
    /// An event stays open from then on, so that the kernel patches the branches of perf
    /// into its scheduler once and not for every cell: emulated processors may run into
    /// the breakpoint that it uses for that after it is gone (docs/decisions.md 17).
    ///
    /// # Errors
    /// With the reason.
    pub fn perf(&self) -> Result<(), &str> {
        let tested = || {
            let own = nix::unistd::gettid().as_raw().unsigned_abs();
            let open = Switches::of_threads(&[own], false)?;
            efuse_probes::perf::self_test().map(|_| open)
        };
        let perf = self
            .perf
            .get_or_init(|| tested().map_err(|e: ProbeError| e.to_string()));
        perf.as_ref().map(drop).map_err(String::as_str)
    }

    /// Where the files of loop devices go.
    pub(crate) fn backing(&self) -> &Path {
        &self.backing
    }

    /// A limit from now on.
    pub(crate) fn limit(&self, total: Duration) -> Limit {
        Limit::new(total, self.options.cancel.clone())
    }

    /// A program, or what to do without it.
    pub(crate) fn program(&self, name: &str, advice: &'static str) -> Result<PathBuf> {
        environment::find(&self.options.bin, name).ok_or_else(|| AgentError::NoProgram {
            program: name.to_owned(),
            advice,
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        clean(&self.folder, &mut problems);
        clean(&self.backing, &mut problems);
    }
}

/// `/dev/shm`, where it is a RAM file system.
fn ram_folder() -> Option<PathBuf> {
    let shm = Path::new("/dev/shm");
    sys::mounts()
        .ok()?
        .iter()
        .any(|m| m.point == shm && m.kind == "tmpfs")
        .then(|| shm.to_owned())
}

fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(AgentError::io(path, "create the folder"))
}

/// Unmounts, detaches and removes what agents left that were killed. Folders of agents
/// that live are not touched. Returns what could not be removed.
pub fn sweep(state: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for dead in dead_folders(state, "agent-") {
        clean(&dead, &mut problems);
    }
    if let Some(shm) = ram_folder() {
        for dead in dead_folders(&shm, "efuse-agent-") {
            clean(&dead, &mut problems);
        }
    }
    device::remove_null_blk(&mut problems);
    problems
}

/// Folders named `PREFIX` and the number of a process that does not exist.
fn dead_folders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|n| {
                    n.strip_prefix(prefix)?
                        .split('.')
                        .next()?
                        .parse::<u32>()
                        .ok()
                })
                .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Unmounts everything under a folder, newest first, detaches loop devices with files
/// in it, and removes it.
fn clean(folder: &Path, problems: &mut Vec<String>) {
    let points: Vec<_> = sys::mounts()
        .unwrap_or_default()
        .into_iter()
        .map(|m| m.point)
        .filter(|p| p.starts_with(folder))
        .collect();
    for point in points.iter().rev() {
        // Ends requests that wait for a daemon that is gone.
        let forced = umount2(point, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW);
        if forced.is_err()
            && let Err(e) = umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        {
            problems.push(format!("{}: cannot unmount: {}", point.display(), e.desc()));
        }
    }
    device::detach_all_under(folder, problems);
    // Only folders of ours are left, now that nothing is mounted in them.
    let still = sys::mounts().is_ok_and(|all| all.iter().any(|m| m.point.starts_with(folder)));
    if still {
        return;
    }
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            problems.push(format!("{}: cannot remove: {e}", folder.display()));
        }
        _ => {}
    }
}
