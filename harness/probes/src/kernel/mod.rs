//! The probes inside the kernel: BPF programs on FUSE's functions and tracepoints.

mod figures;
mod load;
mod plan;

use libbpf_rs::{Link, MapCore as _, MapFlags, Object, PrintLevel};

use crate::btf::Types;
use crate::error::{ProbeError, Result};
pub use figures::UnderWay;
use load::{Config, failed, listen, load};
use plan::{Group, PLANS, Target};

/// The connection whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// `fuse` for the kernel's own, else the name of the module: `efuse`.
    pub family: &'a str,
    /// Number of the connection: minor number of its mount's device.
    pub number: u32,
}

/// Probes that are attached.
pub struct Probes {
    object: Object,
    links: Vec<Link>,
    requests: bool,
    forgets: bool,
    lock: bool,
    calls: bool,
    daemon: bool,
    missing: Vec<String>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("links", &self.links.len())
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}
impl Probes {
    /// Loads the programs and attaches them. Without a connection only system calls are
    /// counted. Nothing is counted before [`Probes::start`].
    ///
    /// What this kernel does not offer is said in the counters' `missing`.
    ///
    /// # Errors
    /// If nothing at all can be counted.
    pub fn attach(connection: Option<Connection<'_>>) -> Result<Self> {
        libbpf_rs::set_print(Some((PrintLevel::Warn, listen)));
        let mut missing = Vec::new();
        let mut groups = vec![Group::Calls];
        let mut config = Config::default();
        let mut module = None;
        if let Some(connection) = connection {
            module = Some(connection.family).filter(|f| *f != "fuse");
            match Types::of(module).and_then(|t| Ok((Config::of(&t, connection.number)?, t))) {
                Ok((of, types)) => {
                    config = of;
                    groups.extend([Group::Requests, Group::Forgets]);
                    for (group, function) in [
                        (Group::LockNative, "native_queued_spin_lock_slowpath"),
                        (Group::LockPv, "__pv_queued_spin_lock_slowpath"),
                        (Group::Rings, "efuse_ring_taken"),
                    ] {
                        if types.has_function(function) {
                            groups.push(group);
                        }
                    }
                }
                Err(e) => missing.push(format!("{}: {e}", Group::Requests.title())),
            }
        }
        config.name_space()?;
        // A program that does not load takes the others with it: without FUSE's
        // functions there still are the system calls.
        let loaded = match load(&config, &groups, module) {
            Err(e) if groups.len() > 1 => {
                missing.push(format!("{}: {e}", Group::Requests.title()));
                groups = vec![Group::Calls];
                load(&config, &groups, module)
            }
            other => other,
        };
        let object = loaded.map_err(|e| {
            let mut all = missing.clone();
            all.push(format!("{}: {e}", Group::Calls.title()));
            ProbeError::Bpf {
                action: "attach any probe".into(),
                reason: all.join("; "),
            }
        })?;
        let mut probes = Self {
            object,
            links: Vec::new(),
            requests: false,
            forgets: false,
            lock: false,
            calls: false,
            daemon: connection.is_some(),
            missing,
        };
        let mut attach = |group| match probes.attach_group(group, module) {
            Ok(()) => true,
            Err(e) => {
                probes.missing.push(format!("{}: {e}", group.title()));
                false
            }
        };
        let has = |group| groups.contains(&group);
        let calls = attach(Group::Calls);
        let requests = has(Group::Requests) && attach(Group::Requests);
        // Without it, times on rings would be wrong: then there are none.
        let rings = !has(Group::Rings) || attach(Group::Rings);
        let requests = requests && rings;
        let forgets = requests && attach(Group::Forgets);
        // Every kernel has the first function; the second one's are where it is used.
        let native = requests && has(Group::LockNative) && attach(Group::LockNative);
        if native && has(Group::LockPv) {
            attach(Group::LockPv);
        }
        if requests && !has(Group::LockNative) {
            probes.missing.push(format!(
                "{}: this kernel has no native_queued_spin_lock_slowpath",
                Group::LockNative.title()
            ));
        }
        (probes.calls, probes.requests, probes.lock) = (calls, requests, native);
        probes.forgets = forgets;
        Ok(probes)
    }

    fn attach_group(&mut self, group: Group, module: Option<&str>) -> Result<()> {
        for plan in PLANS.iter().filter(|p| p.group == group) {
            let program = self
                .object
                .progs_mut()
                .find(|p| p.name() == plan.program)
                .ok_or_else(|| ProbeError::Bpf {
                    action: format!("attach {}", plan.program),
                    reason: "it is not among the programs".into(),
                })?;
            let family = module.unwrap_or("fuse");
            let (link, to) = match plan.target {
                Target::Fuse(name) | Target::Kernel(name) => (program.attach_trace(), name.into()),
                Target::FuseEvent(name) => {
                    let name = format!("{family}_{name}");
                    (program.attach_raw_tracepoint(&name), name)
                }
                Target::Event(name) => (program.attach_raw_tracepoint(name), name.into()),
            };
            let link = link.map_err(failed(format!("attach to {to}")))?;
            self.links.push(link);
        }
        Ok(())
    }

    /// Begins counting.
    ///
    /// # Errors
    /// If the programs cannot be told.
    pub fn start(&self, fio: u32, daemon: Option<u32>) -> Result<()> {
        self.control([1, fio, daemon.unwrap_or(0), 0])
    }

    fn control(&self, words: [u32; 4]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.map(".data.control")?
            .update(&0_u32.to_ne_bytes(), &bytes, MapFlags::ANY)
            .map_err(failed("set .data.control".into()))
    }

    fn map(&self, name: &str) -> Result<libbpf_rs::Map<'_>> {
        self.object
            .maps()
            .find(|m| m.name() == name)
            .ok_or_else(|| ProbeError::Bpf {
                action: format!("find the map {name}"),
                reason: "it is not there".into(),
            })
    }

    /// Ends counting.
    ///
    /// # Errors
    /// If the programs cannot be told.
    pub fn pause(&self) -> Result<()> {
        self.control([0; 4])
    }
}

#[cfg(test)]
mod tests {
    use efuse_model::counters::Counters;

    use super::*;

    /// The verifier's word on every program, where this kernel lets them be attached.
    #[test]
    fn every_program_is_accepted_or_there_is_a_reason() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: BPF needs root");
            return;
        }
        let number = 0;
        let family = "fuse";
        match Probes::attach(Some(Connection { family, number })) {
            Ok(probes) => {
                eprintln!("missing here: {:?}", probes.missing);
                assert!(probes.missing.iter().all(|m| m.contains(": ")));
                assert!(probes.calls, "{probes:?}");
                let refused = |m: &String| m.contains("BPF program load failed: -EACCES");
                assert!(!probes.missing.iter().any(refused), "{probes:?}");
            }
            Err(e) => eprintln!("no probes here: {e}"),
        }
    }

    /// Where this kernel has no BPF for it, the reason is said and nothing breaks.
    #[test]
    fn system_calls_of_this_process_or_a_reason() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: BPF needs root");
            return;
        }
        let probes = match Probes::attach(None) {
            Ok(probes) => probes,
            Err(e) => {
                eprintln!("no probes here: {e}");
                assert!(e.to_string().contains("system calls"), "{e}");
                return;
            }
        };
        probes.start(std::process::id(), None).unwrap();
        for _ in 0..100 {
            nix::unistd::getppid();
        }
        let mut counters = Counters::default();
        probes.pause().unwrap();
        probes.read(&mut counters).unwrap();
        assert!(counters.fio_syscalls.unwrap() >= 100, "{counters:?}");
        assert_eq!(counters.daemon_syscalls, None);
        assert!(counters.requests.is_empty());
    }
}
