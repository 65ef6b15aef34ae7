//! A daemon that lets the kernel open by itself: nobody asks it to open or close, data go to it
//! although programs could choose, and both sides show the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use efuse_bpf::{Dev, data_counts};
use efuse_probes::kernel::Probes;
use efuse_systems::plugin::Plugin;
use efuse_systems::{MountContext, Mounted};

use super::odd::Odd;
use super::{Site, Trouble, fail, stackfs};
use crate::error::AgentError;
use crate::measure;
use crate::sys::{self, Aligned, Drop as Caches};

/// All have programs for data, which need files that the daemon opened in a certain way.
const POLICIES: [&str; 2] = ["prelim", "cache"];
const FILES: usize = 30;
const BYTES: usize = 20_000;
const PAGE: usize = 4096;
const ROUNDS: usize = 2;
/// What no daemon is sent that has said once that it need not be.
const NEVER: [&str; 5] = ["OPEN", "RELEASE", "OPENDIR", "RELEASEDIR", "FLUSH"];

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    site.unmount()?;
    let mut said = Vec::new();
    for policy in POLICIES {
        let system = with_policy(policy)?;
        let mounted = site.mount_with(&system, &site.context("noopen"))?;
        said.push(one(site, policy, &mounted).map_err(|trouble| trouble.of(policy))?);
        mounted.unmount()?;
    }
    said.push(late_below(site).map_err(|trouble| trouble.of("late writes below"))?);
    site.mount()?;
    Ok(said.join("; "))
}

/// The daemon, by its description.
fn with_policy(policy: &str) -> Result<Plugin, Trouble> {
    let options = ["--until-invalidated", "--cache-size", "8"];
    let options = [
        &["--allow-other", "--no-open", "--policy", policy][..],
        &options,
    ]
    .concat();
    stackfs("noopen", &options)
}

/// Over a file system that takes what was written when a file is closed: nobody tells the daemon of
/// that, so it closes for each write.
fn late_below(site: &Site<'_>) -> Result<String, Trouble> {
    const BYTES: u64 = 5000;
    let odd = Odd::mount(site, "flush", &[])?;
    let context = MountContext {
        lower: odd.root().to_owned(),
        ..site.context("noopen")
    };
    let mounted = site.mount_with(&with_policy("cache")?, &context)?;
    let path = mounted.root().join("f0");
    let open = File::options().append(true).open(&path);
    let mut file = open.map_err(AgentError::io(&path, "open"))?;
    for n in 1..=3 {
        let written = file.write_all(&[b'x'; BYTES as usize]);
        written.map_err(AgentError::io(&path, "write"))?;
        for place in [&path, &odd.file(0)] {
            let status = fs::metadata(place).map_err(AgentError::io(place, "stat"))?;
            if status.len() != n * BYTES {
                return fail(format!(
                    "{} has {} bytes of {} written",
                    place.display(),
                    status.len(),
                    n * BYTES
                ));
            }
        }
    }
    drop(file);
    mounted.unmount()?;
    odd.unmount()?;
    Ok("what is written is taken by a file system below that waits for close".to_owned())
}

fn one(site: &Site<'_>, policy: &str, mounted: &Mounted) -> Result<String, Trouble> {
    let there = mounted.root().join(policy);
    let below = site.lower.join(policy);
    let io = |action: &'static str| AgentError::io(&there, action);
    fs::create_dir(&there).map_err(io("create the folder"))?;
    let dev = Dev::of_mount(mounted.root())?;
    // Asked once each.
    let first = there.join("first");
    fs::write(&first, "x").map_err(io("write into"))?;
    fs::read(&first).map_err(io("read from"))?;
    fs::read_dir(&there).map_err(io("list"))?.count();

    let before = data_counts(dev)?;
    let probes = Probes::attach(measure::connection(mounted))?;
    probes.start(std::process::id(), mounted.daemon_pid())?;
    for round in 0..ROUNDS {
        for n in 0..FILES {
            let name = format!("f{n}");
            let wanted = change(&there.join(&name), round, n).map_err(io("change a file of"))?;
            for path in [there.join(&name), below.join(&name)] {
                let seen = fs::read(&path).map_err(AgentError::io(&path, "read"))?;
                if seen != wanted {
                    return fail(format!(
                        "{} has {} bytes after round {round} that are not the {} written",
                        path.display(),
                        seen.len(),
                        wanted.len()
                    ));
                }
            }
        }
        let names = [&there, &below].map(|folder| list(folder));
        match names {
            [Ok(above), Ok(below)] if above == below && above.len() > FILES => {}
            other => return fail(format!("lists after round {round}: {other:?}")),
        }
        // Then data come from the daemon again, and inodes are forgotten.
        sys::drop_caches(Caches::All)?;
    }
    probes.pause()?;
    let requests = probes.requests()?;
    let of = |opcode: &str| -> u64 {
        let of = requests.iter().filter(|r| r.opcode == opcode);
        of.map(|r| r.crossings).sum()
    };
    for opcode in NEVER {
        if of(opcode) > 0 {
            return fail(format!("the daemon was sent {} {opcode}", of(opcode)));
        }
    }
    let (reads, writes) = (of("READ"), of("WRITE"));
    if reads < (ROUNDS * FILES) as u64 || writes < (ROUNDS * FILES) as u64 {
        return fail(format!("the daemon had {reads} READ and {writes} WRITE"));
    }
    let after = data_counts(dev)?;
    let count = |name: &str| {
        let of = |counts: &std::collections::BTreeMap<String, u64>| {
            counts.get(name).copied().unwrap_or_default()
        };
        of(&after) - of(&before)
    };
    // Nothing else is right for a file whose data are in the page cache above. Its pages may be
    // filled from cached data, which are gone with the inode here.
    for name in ["read_backing", "read_cache", "write_backing", "write_cache"] {
        if count(name) > 0 {
            return fail(format!("{} {name} of files without a handle", count(name)));
        }
    }
    if count("read_no_backing") == 0 {
        return fail("nobody would have chosen a path for data");
    }
    Ok(format!(
        "{policy}: {} files changed {ROUNDS} times, {reads} READ and {writes} WRITE, none of {}",
        FILES,
        NEVER.join(", ")
    ))
}

fn list(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names = fs::read_dir(folder)?.map(|item| item.map(|item| item.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Writes a file anew, behind its end, in its middle, and directly. What is in it then.
fn change(path: &Path, round: usize, n: usize) -> io::Result<Vec<u8>> {
    let byte = |at: usize| (at * 7 + round * 31 + n * 13) as u8;
    let mut wanted: Vec<u8> = (0..BYTES).map(byte).collect();
    // Truncates it, from the second round on.
    fs::write(path, &wanted)?;
    let mut file = File::options().append(true).open(path)?;
    // Wherever it stands, it is written at the end.
    file.seek(SeekFrom::Start(5))?;
    file.write_all(b"appended")?;
    wanted.extend_from_slice(b"appended");
    drop(file);
    let file = File::options().read(true).write(true).open(path)?;
    file.write_all_at(b"middle", 4090)?;
    wanted[4090..4096].copy_from_slice(b"middle");
    let mut direct = OpenOptions::new();
    direct
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let mut direct = direct.open(path)?;
    let mut page = Aligned::new(PAGE);
    let page = page.bytes();
    page.fill(byte(1));
    direct.write_all_at(page, PAGE as u64)?;
    wanted[PAGE..2 * PAGE].copy_from_slice(page);
    direct.read_exact(page)?;
    if page != &wanted[..PAGE] {
        return Err(io::Error::other("a direct read gives other bytes"));
    }
    let size = wanted.len() - n;
    file.set_len(size as u64)?;
    wanted.truncate(size);
    Ok(wanted)
}
