//! The project's `efuse-hostile` breaks the rules of the rings beside a mount that must not notice.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::requests::Requests;
use super::{Site, Trouble, fail};
use crate::error::AgentError;
use crate::process;

const SECONDS: u32 = 15;
const BYTES: usize = 200_000;

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let program = site
        .agent
        .program("efuse-hostile", "build it with `just build`")?;
    let point = site.agent.folder().join("hostile");
    fs::create_dir_all(&point).map_err(AgentError::io(&point, "create the folder"))?;
    let Some(requests) = Requests::before()? else {
        return Err(Trouble::Skip(
            "the kernel does not count efuse_request by itself: start it with slab_nomerge".into(),
        ));
    };
    let mut storm = Command::new(program);
    storm
        .arg("storm")
        .arg(&point)
        .arg(format!("--seconds={}", SECONDS.saturating_mul(site.effort)));
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let path = site.root.join("bystander");
    let (stormed, unharmed) = thread::scope(|scope| {
        let bystander = scope.spawn(|| -> Result<(), Trouble> {
            while !stop.load(Ordering::Relaxed) {
                use_it(&path, rounds.fetch_add(1, Ordering::Relaxed))?;
            }
            Ok(())
        });
        let stormed = process::run(&mut storm, site.limit);
        stop.store(true, Ordering::Relaxed);
        (stormed, bystander.join().expect("no panic in it"))
    });
    unharmed.map_err(|trouble| trouble.of("the mount beside it"))?;
    let stormed = stormed?.success("efuse-hostile")?;
    let left = requests.settle()?;
    let said = stormed.stdout.lines().last().unwrap_or_default();
    Ok(format!(
        "{said}; {} rounds of a mount beside it unharmed; {left}",
        rounds.into_inner()
    ))
}

/// Writes a file and reads it again.
fn use_it(path: &Path, round: u64) -> Result<(), Trouble> {
    let bytes: Vec<u8> = (0..BYTES)
        .map(|n| (n as u64).wrapping_mul(31).wrapping_add(round) as u8)
        .collect();
    fs::write(path, &bytes).map_err(AgentError::io(path, "write"))?;
    if fs::read(path).map_err(AgentError::io(path, "read"))? != bytes {
        return fail("what was read is not what was written");
    }
    fs::remove_file(path).map_err(AgentError::io(path, "remove"))?;
    Ok(())
}
