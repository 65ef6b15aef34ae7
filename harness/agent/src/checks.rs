//! Integration checks: what a file system has to do right before its speed matters.
//!
//! Each check gets a system mounted over a small fresh ext4 of its own.

mod balance;
mod blocked;
mod bytes;
mod cache;
mod channels;
mod choices;
mod coherence;
mod concurrent;
mod counters;
mod daemon_killed;
mod differential;
mod direct;
mod fsx;
mod hostile;
mod idle;
mod module;
mod noopen;
mod odd;
mod outside;
mod pages;
mod phases;
mod pjdfstest;
mod posix;
mod programs;
mod requests;
mod users;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use efuse_model::cell;
use efuse_model::device::Device;
use efuse_model::environment::Place;
use efuse_reader::Source;
use efuse_systems::plugin::Plugin;
use efuse_systems::{MountContext, Mounted, System};

use crate::agent::Agent;
use crate::device::BlockDevice;
use crate::error::AgentError;
use crate::limit::{Limit, Watchdog};
use crate::lockdep;
use crate::lowerfs::{Atime, LowerFs};

/// Size of the lower file system of a check.
const DEVICE_BYTES: u64 = 256 << 20;

/// The systems a check is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// Every system.
    Every,
    /// Those with a daemon.
    WithDaemon,
    /// These.
    Only(&'static [&'static str]),
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// The systems it is meant for.
    pub applies: Applies,
    run: fn(&mut Site<'_>) -> Result<String, Trouble>,
}

impl Check {
    /// Whether the check says something about this system.
    #[must_use]
    pub fn applies_to(&self, system: &str) -> bool {
        let system = cell::mounted_system(system);
        match self.applies {
            Applies::Every => true,
            // The lower file system itself is the one that has none.
            Applies::WithDaemon => system != "ext4",
            Applies::Only(list) => list.contains(&system),
        }
    }
}

/// Not stock FUSE, whose lookups race with renames (docs/decisions.md 11), and not the control,
/// which has no extended attributes.
const OURS: &[&str] = &[
    "efuse-bare",
    "extfuse",
    "efuse-meta",
    "efuse-meta-noopen",
    "efuse-passthrough",
    "efuse-cache",
    "efuse-cache-backed",
    "efuse-prelim",
    "rfuse",
    "efuse",
];

/// Every check, the quick ones first.
pub const ALL: &[Check] = &[
    Check {
        name: "bytes",
        title: "random writes, reads, truncates and mappings against a copy in memory and the lower file",
        applies: Applies::Every,
        run: bytes::run,
    },
    Check {
        name: "posix",
        title: "what each POSIX and Linux call does to files and directories",
        applies: Applies::Every,
        run: posix::run,
    },
    Check {
        name: "concurrent",
        title: "eight threads change one tree, which then equals the lower one",
        applies: Applies::Every,
        run: concurrent::run,
    },
    Check {
        name: "counters",
        title: "switches, requests and times that are counted in different ways are the same",
        applies: Applies::Every,
        run: counters::run,
    },
    Check {
        name: "daemon-killed",
        title: "a killed daemon ends all requests with an error and leaves nothing behind",
        applies: Applies::WithDaemon,
        run: daemon_killed::run,
    },
    Check {
        name: "module",
        title: "efuse.ko is unloaded and loaded again beside stock FUSE, not while it is mounted",
        applies: Applies::Only(&["efuse-bare"]),
        run: module::run,
    },
    Check {
        name: "programs",
        title: "hostile programs are refused; programs come and go on a mount in use",
        applies: Applies::Only(&["efuse-bare"]),
        run: programs::run,
    },
    Check {
        name: "balance",
        title: "requests of one processor's callers go to the channels of others, under each policy",
        applies: Applies::Only(&["rfuse"]),
        run: balance::run,
    },
    Check {
        name: "channels",
        title: "rings with fewer channels, one processor for the daemon, processors that go, handlers that wait",
        applies: Applies::Only(&["rfuse", "efuse"]),
        run: channels::run,
    },
    Check {
        name: "idle",
        title: "a daemon with rings that has nothing to do uses no processor time",
        applies: Applies::Only(&["rfuse", "efuse"]),
        run: idle::run,
    },
    Check {
        name: "hostile",
        title: "daemons that break the rules of the rings harm no other mount and leave nothing behind",
        applies: Applies::Only(&["rfuse"]),
        run: hostile::run,
    },
    Check {
        name: "users",
        title: "each user sees the same with programs as without: permissions, user namespaces, idmapped",
        applies: Applies::Only(&["efuse-bare"]),
        run: users::run,
    },
    Check {
        name: "outside",
        title: "programs attached to unmodified daemons: same tree, hits, FORGETs, detached under load",
        applies: Applies::Only(&["efuse-bare"]),
        run: outside::run,
    },
    Check {
        name: "no-open",
        title: "without OPEN and RELEASE data go to the daemon whatever programs choose, and are right",
        applies: Applies::Only(&["efuse-bare"]),
        run: noopen::run,
    },
    Check {
        name: "odd",
        title: "daemons that decide by groups, write late or change files by ioctl look the same with programs",
        applies: Applies::Only(&["efuse-bare"]),
        run: odd::run,
    },
    Check {
        name: "differential",
        title: "random operations of four processes have the results that they have in a plain directory",
        applies: Applies::Only(OURS),
        run: differential::run,
    },
    Check {
        name: "coherence",
        title: "no answer is older than a change that was complete",
        applies: Applies::Only(OURS),
        run: coherence::run,
    },
    Check {
        name: "cache",
        title: "cached data stay within their budget, and go at detach, unmount and under pressure",
        applies: Applies::Only(&["efuse-cache", "efuse-cache-backed", "efuse-prelim"]),
        run: cache::run,
    },
    Check {
        name: "pages",
        title: "pages of the page cache are filled from cached data, with what the file has",
        applies: Applies::Only(&["efuse-cache"]),
        run: pages::run,
    },
    Check {
        name: "choices",
        title: "a path that programs chose holds for what is alike, and not beyond them",
        applies: Applies::Only(&["efuse-bare"]),
        run: choices::run,
    },
    Check {
        name: "phases",
        title: "locality comes and goes, and the chosen path with it within two rounds",
        applies: Applies::Only(&["efuse-prelim"]),
        run: phases::run,
    },
    Check {
        name: "verify",
        title: "fio verifies what it wrote while the file is cut, mapped and read by others",
        applies: Applies::Every,
        run: verify::run,
    },
    Check {
        name: "fsx",
        title: "the file system exerciser",
        applies: Applies::Every,
        run: fsx::run,
    },
    Check {
        name: "pjdfstest",
        title: "the POSIX test suite fails in the same cases as on ext4",
        applies: Applies::Every,
        run: pjdfstest::run,
    },
];

/// How a check ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckResult {
    /// `None` if it passed or did not run, else why not.
    pub failure: Option<String>,
    /// What it did.
    pub detail: String,
    /// Why it did not run, where it could not.
    pub skipped: Option<String>,
}

/// Why a check has no good result.
#[derive(Debug)]
enum Trouble {
    /// It cannot run here.
    Skip(String),
    /// The system did something wrong.
    Fail(String),
}

impl From<AgentError> for Trouble {
    fn from(e: AgentError) -> Self {
        Self::Fail(e.to_string())
    }
}

impl From<efuse_systems::SystemError> for Trouble {
    fn from(e: efuse_systems::SystemError) -> Self {
        Self::Fail(e.to_string())
    }
}

impl From<efuse_bpf::BpfError> for Trouble {
    fn from(e: efuse_bpf::BpfError) -> Self {
        Self::Fail(e.to_string())
    }
}

impl From<efuse_probes::ProbeError> for Trouble {
    fn from(e: efuse_probes::ProbeError) -> Self {
        Self::Fail(e.to_string())
    }
}

impl Trouble {
    /// The trouble of one part of what is checked.
    fn of(self, part: &str) -> Self {
        match self {
            Self::Fail(why) => Self::Fail(format!("{part}: {why}")),
            skip @ Self::Skip(_) => skip,
        }
    }
}

/// A daemon by its description, as a user gives it in a file.
fn plugin(file: &str, description: impl Into<String>) -> Result<Plugin, Trouble> {
    Plugin::parse(&Source::new(file, description)).map_err(|e| Trouble::Fail(e.to_string()))
}

/// `StackFS` on eFUSE with more options, as a system that a user describes. In them, `{threads}` stands for
/// as many as the built-in systems have.
fn stackfs(id: &str, options: &[&str]) -> Result<Plugin, Trouble> {
    let words: String = options.iter().map(|word| format!(", {word:?}")).collect();
    plugin(
        id,
        format!(
            "id = {id:?}\ntitle = \"StackFS\"\nfs_type = \"efuse\"\n\
             command = [\"stackfs\", \"{{lower}}\", \"{{mountpoint}}\", \"--device\", \"/dev/efuse\", \
             \"--fstype\", \"efuse\"{words}]\n\
             [ready]\nline = \"ready\"\n[needs]\ndevices = [\"/dev/efuse\"]\n"
        ),
    )
}

/// How much a count of the kernel grew; what is not counted is 0.
fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, name: &str) -> u64 {
    let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
    of(after) - of(before)
}

fn fail<T>(text: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Fail(text.into()))
}

/// A mounted system and the lower file system below it.
struct Site<'a> {
    agent: &'a Agent,
    system: &'a str,
    limit: &'a Limit,
    /// How many times as much of what looks for rare events.
    effort: u32,
    watchdog: Watchdog,
    mounted: Option<Mounted>,
    /// Where the files are seen through the system.
    root: PathBuf,
    /// Where they are below.
    lower: PathBuf,
    fs: LowerFs,
    device: BlockDevice,
}

/// Runs one check on one system. Nothing is left mounted or running.
pub fn run(agent: &Agent, name: &str, system: &str, effort: u32, timeout: Duration) -> CheckResult {
    let limit = agent.limit(timeout);
    let attempted = attempt(agent, name, system, effort, &limit).and_then(|detail| {
        Ok(match lockdep::still_on()? {
            Some(said) => format!("{detail}; {said}"),
            None => detail,
        })
    });
    match attempted {
        Ok(detail) => CheckResult {
            detail,
            ..CheckResult::default()
        },
        Err(Trouble::Skip(reason)) => CheckResult {
            skipped: Some(reason),
            ..CheckResult::default()
        },
        Err(Trouble::Fail(reason)) => CheckResult {
            failure: Some(reason),
            ..CheckResult::default()
        },
    }
}

fn attempt(
    agent: &Agent,
    name: &str,
    system: &str,
    effort: u32,
    limit: &Limit,
) -> Result<String, Trouble> {
    let Some(check) = ALL.iter().find(|c| c.name == name) else {
        let known: Vec<_> = ALL.iter().map(|c| c.name).collect();
        return fail(format!(
            "unknown check {name:?}; the checks are: {}",
            known.join(", ")
        ));
    };
    agent.registry().get(system)?;
    if !check.applies_to(system) {
        return Err(Trouble::Skip(format!("does not apply to {system}")));
    }
    if let Some(reason) = agent.registry().availability(system, agent.options().place) {
        return Err(Trouble::Skip(reason));
    }
    let mut site = Site::new(agent, system, effort, limit)?;
    let result = (check.run)(&mut site);
    let torn_down = site.tear_down();
    // A system that is too slow or hangs fails by the limit, whatever was seen of it.
    if result.is_err() {
        limit.check()?;
    }
    let detail = result?;
    torn_down?;
    Ok(detail)
}

impl<'a> Site<'a> {
    fn new(
        agent: &'a Agent,
        system: &'a str,
        effort: u32,
        limit: &'a Limit,
    ) -> Result<Self, Trouble> {
        let mkfs = agent.program("mkfs.ext4", "install it (apt install e2fsprogs)")?;
        let device = match agent.options().place {
            Place::Host => Device::Loop {
                size_bytes: DEVICE_BYTES,
            },
            Place::Vm => Device::NvmeModel {
                size_bytes: DEVICE_BYTES,
                latency_ns: 0,
            },
        };
        let device = BlockDevice::acquire(&device, agent.backing(), limit)?;
        let point = agent.folder().join("lower");
        let fs = LowerFs::create(&device, &mkfs, &point, Atime::Relative, limit)?;
        let lower = point.join("files");
        fs::create_dir(&lower).map_err(AgentError::io(&lower, "create the folder"))?;
        let mut site = Self {
            agent,
            system,
            limit,
            effort,
            watchdog: Watchdog::arm(limit),
            mounted: None,
            root: PathBuf::new(),
            lower,
            fs,
            device,
        };
        site.mount()?;
        Ok(site)
    }

    /// Mounts the system, which must not be mounted.
    fn mount(&mut self) -> Result<(), Trouble> {
        let mountpoint = self.agent.folder().join("mnt");
        let mounted = self.mount_at(self.system, &mountpoint)?;
        self.watchdog.watch(mounted.daemon_pid(), Some(mountpoint));
        self.root = mounted.root().to_owned();
        self.mounted = Some(mounted);
        Ok(())
    }

    fn mount_at(&self, system: &str, mountpoint: &Path) -> Result<Mounted, Trouble> {
        let context = MountContext {
            mountpoint: mountpoint.to_owned(),
            slow_percent: cell::slow_percent(system),
            ..self.context("daemon")
        };
        self.mount_with(self.agent.registry().get(system)?, &context)
    }

    /// Of a mount in a folder of this name, with a log of this name.
    fn context(&self, name: &str) -> MountContext {
        let folder = self.agent.folder();
        MountContext {
            lower: self.lower.clone(),
            mountpoint: folder.join(name),
            log: folder.join(name).with_extension("log"),
            bin: self.agent.options().bin.clone(),
            slow_percent: 0,
            kernel_cache: None,
        }
    }

    /// Mounts any system, with a new log.
    fn mount_with(&self, system: &dyn System, context: &MountContext) -> Result<Mounted, Trouble> {
        let point = &context.mountpoint;
        fs::create_dir_all(point).map_err(AgentError::io(point, "create the folder"))?;
        let _ = fs::remove_file(&context.log);
        Ok(system.mount(context)?)
    }

    fn mounted(&mut self) -> Result<&mut Mounted, Trouble> {
        self.mounted
            .as_mut()
            .ok_or_else(|| Trouble::Fail("the system is not mounted".into()))
    }

    /// Unmounts the system; the lower file system stays.
    fn unmount(&mut self) -> Result<(), Trouble> {
        let result = self.mounted.take().map_or(Ok(()), Mounted::unmount);
        self.watchdog.watch(None, None);
        Ok(result?)
    }

    fn tear_down(mut self) -> Result<(), Trouble> {
        let unmounted = self.unmount();
        let (lower, device) = (self.fs.unmount(), self.device.release());
        unmounted?;
        lower?;
        Ok(device?)
    }
}
