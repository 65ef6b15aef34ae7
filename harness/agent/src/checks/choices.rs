//! Paths that programs chose once for all that is alike (`EFUSE_IO_KEEP`): how often they are asked all
//! the same, and that nothing is left of the choice when others are attached.

use std::collections::BTreeMap;

use efuse_bpf::{Dev, Policy, Tunables, data_counts};

use super::direct::{self, BLOCK, Planted};
use super::{Site, Trouble, fail, grown, stackfs};
use crate::error::AgentError;

const NAME: &str = "file";
/// Read one by one, from the first to the last.
const BLOCKS: u64 = 1024;
/// Of so many blocks one is in the sample (`EFUSE_SAMPLE_GROUP`); the first read finds no choice, and
/// may or may not be of the sample.
const GROUP: u64 = 8;
const ASKED: [u64; 2] = [BLOCKS / GROUP, BLOCKS / GROUP + 1];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let below = site.lower.join(NAME);
    direct::plant(&below, 0, BLOCKS * BLOCK as u64).map_err(AgentError::io(&below, "write"))?;
    let mounted = site.mount_with(
        &stackfs("choices", &["--passthrough"])?,
        &site.context("choices"),
    )?;
    let path = mounted.root().join(NAME);
    let dev = Dev::of_mount(mounted.root())?;
    let open = |piece| Planted::open(&path, 0, piece).map_err(AgentError::io(&path, "open"));
    let pass = |file: &mut Planted| -> Result<Grown, Trouble> {
        let before = data_counts(dev)?;
        for block in 0..BLOCKS {
            file.read(block).map_err(AgentError::io(&path, "read"))?;
        }
        Ok(Grown(before, data_counts(dev)?))
    };
    let mut file = open(BLOCK)?;
    let backing = Policy::load("passthrough", dev, &Tunables::default())?.attach()?;
    let first = pass(&mut file)?;
    first.is("read_backing", &[BLOCKS])?;
    first.is("read_asked", &ASKED)?;
    // The choice is that for one block.
    let mut pieces = open(2 * BLOCK)?;
    let before = data_counts(dev)?;
    pieces.read(0).map_err(AgentError::io(&path, "read"))?;
    Grown(before, data_counts(dev)?).is("read_asked", &[1])?;
    drop(pieces);
    pass(&mut file)?.is("read_asked", &ASKED)?;
    drop(backing);

    let nobody = pass(&mut file)?;
    nobody.is("read_asked", &[0])?;
    nobody.is("read_backing", &[0])?;

    let cache = Policy::load("cache", dev, &Tunables::default())?.attach()?;
    let cold = pass(&mut file)?;
    cold.is("read_miss", &[BLOCKS])?;
    cold.is("read_asked", &ASKED)?;
    let warm = pass(&mut file)?;
    warm.is("read_cache", &[BLOCKS])?;
    warm.is("read_asked", &[BLOCKS / GROUP])?;
    drop(cache);
    let gone = pass(&mut file)?;
    gone.is("read_cache", &[0])?;
    drop(file);
    mounted.unmount()?;
    site.mount()?;
    Ok(format!(
        "a program was asked about {} of {BLOCKS} reads of {BLOCK} bytes, and another one's choice was not taken",
        first.by("read_asked")
    ))
}

/// Counts before and after.
struct Grown(BTreeMap<String, u64>, BTreeMap<String, u64>);

impl Grown {
    fn by(&self, name: &str) -> u64 {
        grown(&self.0, &self.1, name)
    }

    fn is(&self, name: &str, wanted: &[u64]) -> Result<(), Trouble> {
        let by = self.by(name);
        if wanted.contains(&by) {
            return Ok(());
        }
        fail(format!(
            "{name} grew by {by} in {BLOCKS} reads, and not by {wanted:?}: {:?}",
            self.1
        ))
    }
}
