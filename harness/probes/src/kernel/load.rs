//! Loading the programs: what they are told, and what is said where that fails.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{Object, ObjectBuilder, PrintLevel};

use super::plan::{Group, PLANS, Target};
use crate::btf::Types;
use crate::error::{ProbeError, Result};

/// What `build.rs` has compiled.
static PROGRAMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probes.bpf.o"));
/// libbpf's last warning: its errors are numbers, and this says why.
static WARNING: Mutex<Option<String>> = Mutex::new(None);

pub(super) fn listen(_: PrintLevel, text: String) {
    let mut last = WARNING.lock().unwrap_or_else(PoisonError::into_inner);
    // The first one is the cause.
    last.get_or_insert(text);
}

pub(super) fn failed(action: String) -> impl FnOnce(libbpf_rs::Error) -> ProbeError {
    move |e| {
        let said = WARNING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let said = said.unwrap_or_default();
        let first = said.lines().next().unwrap_or_default().trim();
        let reason = if first.is_empty() {
            e.to_string()
        } else {
            format!("{e} ({first})")
        };
        ProbeError::Bpf { action, reason }
    }
}
/// `struct config` of `config.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    numbers: [u32; 11],
    ns: [u64; 2],
}

impl Config {
    pub fn of(types: &Types, minor: u32) -> Result<Self> {
        Ok(Self {
            numbers: [
                minor,
                types.offset("fuse_req", &["fm"])?,
                types.offset("fuse_req", &["in", "h", "opcode"])?,
                types.offset("fuse_mount", &["fc"])?,
                types.offset("fuse_conn", &["dev"])?,
                types.offset("fuse_conn", &["iq", "lock"])?,
                types.offset("fuse_copy_state", &["write"])?,
                types.offset("fuse_copy_state", &["req"])?,
                types.offset("fuse_dev", &["fc"])?,
                types.offset("fuse_req", &["args"])?,
                types.offset("fuse_req", &["intr_entry"])?,
            ],
            ns: [0; 2],
        })
    }

    /// Adds the name space that process numbers are given in: this process's.
    pub fn name_space(&mut self) -> Result<()> {
        let path = "/proc/self/ns/pid";
        let meta = std::fs::metadata(path).map_err(|e| ProbeError::Proc {
            path: path.into(),
            reason: e.to_string(),
        })?;
        self.ns = [meta.dev(), meta.ino()];
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.extend([0; 4]);
        bytes.extend(self.ns.iter().flat_map(|n| n.to_ne_bytes()));
        bytes
    }
}

pub(super) fn load(config: &Config, groups: &[Group], module: Option<&str>) -> Result<Object> {
    let mut open = ObjectBuilder::default()
        .open_memory(PROGRAMS)
        .map_err(failed("open the programs".into()))?;
    let bytes = config.bytes();
    for mut map in open.maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata") {
            let value = map.initial_value_mut().filter(|v| v.len() >= bytes.len());
            let value = value.ok_or_else(|| ProbeError::Bpf {
                action: "configure the programs".into(),
                reason: "their configuration has another size".into(),
            })?;
            value[..bytes.len()].copy_from_slice(&bytes);
        }
    }
    for mut program in open.progs_mut() {
        let plan = PLANS
            .iter()
            .find(|p| program.name() == p.program && groups.contains(&p.group));
        program.set_autoload(plan.is_some());
        let target = match plan.map(|p| p.target) {
            Some(Target::Fuse(name)) => {
                module.map_or_else(|| name.to_owned(), |m| format!("{m}:{name}"))
            }
            Some(Target::Kernel(name)) => name.to_owned(),
            _ => continue,
        };
        program
            .set_attach_target(0, Some(target.clone()))
            .map_err(failed(format!("find the function {target}")))?;
    }
    open.load().map_err(failed("load the programs".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_laid_out_as_in_c() {
        let config = Config {
            numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            ns: [12, 13],
        };
        let bytes = config.bytes();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[40..44], 11_u32.to_ne_bytes());
        assert_eq!(bytes[56..], 13_u64.to_ne_bytes());
    }
}
