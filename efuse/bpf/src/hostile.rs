//! Programs that the kernel must refuse, for testing that it does.

use libbpf_rs::{MapType, ObjectBuilder};

use crate::policy::{Messages, set_dev};
use crate::{BpfError, Dev};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostile.bpf.o"));

/// A program that oversteps, and why it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The set it is in, or its own name if it is in none.
    pub set: &'static str,
    /// A part of what the verifier says.
    pub refusal: &'static str,
}

/// Loads one set of `src/bpf/hostile.bpf.c`, or one program that is in none. The inner error is
/// what the kernel said.
///
/// # Errors
/// If there is no such set.
pub fn load(name: &str, dev: Dev) -> Result<Result<(), String>, BpfError> {
    let messages = Messages::collect(200);
    let mut object = ObjectBuilder::default()
        .open_memory(OBJECT)
        .map_err(BpfError::bpf("open the hostile programs"))?;
    let mut found = false;
    for mut map in object.maps_mut() {
        if map.map_type() != MapType::StructOps {
            continue;
        }
        let wanted = map.name() == name;
        found |= wanted;
        map.set_autocreate(wanted)
            .map_err(BpfError::bpf("leave a set out"))?;
        if wanted && name != "other_type" {
            set_dev(&mut map, name, dev, 0)?;
        }
    }
    for mut program in object.progs_mut() {
        // Those of sets follow their sets.
        if !program.name().to_string_lossy().ends_with("_program") {
            let wanted = program.name() == name;
            found |= wanted;
            program.set_autoload(wanted);
        }
    }
    if !found {
        return Err(BpfError::NotAPolicy {
            policy: name.to_owned(),
            what: "is not among the hostile programs",
        });
    }
    let loaded = object.load();
    let log = messages.end();
    Ok(loaded.map(drop).map_err(|_| log))
}
