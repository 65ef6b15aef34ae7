//! `efuse show`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use efuse_bpf::{
    Adaptive, Attached, ChannelCounts, Counts, Dev, Program, attached, kernel_counts, mounts,
    opcode_name, ring_counts,
};
use serde::Serialize;

/// Show what is attached (programs, maps, and how requests went) and what ring channels do.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Only this mount point.
    mount: Option<PathBuf>,
    /// Again and again, with the counts since the time before.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// As JSON, one document a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct MapShown {
    name: String,
    entries: Option<usize>,
    max_entries: u32,
    memory_bytes: u64,
}

#[derive(Default, Serialize)]
struct Shown {
    dev: String,
    mounts: Vec<PathBuf>,
    /// None if there are only rings.
    policy: Option<String>,
    programs: Vec<Program>,
    maps: Vec<MapShown>,
    opcodes: BTreeMap<&'static str, Counts>,
    /// By which path reads and writes of data went.
    data: BTreeMap<String, u64>,
    /// What each ring channel has and had to do.
    channels: Vec<ChannelCounts>,
    /// How paths were chosen, where that is done by file.
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive: Option<Adaptive>,
}

/// Figures of a channel in the order in which they are shown; the kernel's are sorted by name.
const CHANNEL: [&str; 14] = [
    "requests",
    "in_flight",
    "depth",
    "waiting",
    "sleepers",
    "service_ns",
    "polled",
    "waited",
    "redirected",
    "migrated",
    "forgets",
    "interrupts",
    "wakeups",
    "bad",
];

/// Maps whose entries are all there from the start, or are internal.
const PLAIN: [&str; 1] = ["stats"];

pub(crate) fn run(verb: &Show) -> Result<()> {
    let only = verb.mount.as_deref().map(Dev::of_mount).transpose()?;
    loop {
        let shown = everything(only)?;
        if shown.is_empty() && verb.every.is_none() {
            match &verb.mount {
                Some(mount) => bail!(
                    "no programs are attached to {}, and it has no rings",
                    mount.display()
                ),
                None if !verb.json => println!("no programs are attached, and no mount has rings"),
                None => {}
            }
        }
        for shown in &shown {
            let text = if verb.json {
                serde_json::to_string(shown)? + "\n"
            } else {
                render(shown)
            };
            std::io::stdout().write_all(text.as_bytes())?;
        }
        match verb.every {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
            None => return Ok(()),
        }
    }
}

/// Every connection with programs, then those that only have rings.
fn everything(only: Option<Dev>) -> Result<Vec<Shown>> {
    let wanted = |dev: Dev| only.is_none_or(|only| dev == only);
    let mounted = mounts()?;
    let mounts_of = |dev: Dev| -> Vec<PathBuf> {
        let of = mounted.iter().filter(|(of, _)| *of == dev);
        of.map(|(_, at)| at.clone()).collect()
    };
    let (mut shown, mut seen) = (Vec::new(), Vec::new());
    for set in attached()?.iter().filter(|set| wanted(set.dev)) {
        seen.push(set.dev);
        shown.push(look(set, mounts_of(set.dev))?);
    }
    for dev in mounted.iter().map(|(dev, _)| *dev) {
        if !wanted(dev) || seen.contains(&dev) {
            continue;
        }
        seen.push(dev);
        let channels = ring_counts(dev)?;
        if !channels.is_empty() {
            shown.push(Shown {
                dev: dev.to_string(),
                mounts: mounts_of(dev),
                channels,
                ..Shown::default()
            });
        }
    }
    Ok(shown)
}

fn look(set: &Attached, mounts: Vec<PathBuf>) -> Result<Shown> {
    let counts = kernel_counts(set.dev)?;
    let maps = set
        .maps
        .iter()
        .filter(|map| !map.name.contains(".rodata"))
        .map(|map| MapShown {
            name: map.name.clone(),
            entries: (!PLAIN.contains(&map.name.as_str()))
                .then(|| set.used(&map.name).ok())
                .flatten(),
            max_entries: map.max_entries,
            memory_bytes: map.memory,
        })
        .collect();
    let opcodes = set
        .counts()?
        .into_iter()
        .map(|(opcode, counts)| (opcode_name(opcode), counts))
        .collect();
    Ok(Shown {
        dev: set.dev.to_string(),
        mounts,
        policy: Some(set.name.clone()),
        programs: set.programs.clone(),
        maps,
        opcodes,
        data: counts.data,
        channels: counts.channels,
        adaptive: set.adaptive()?,
    })
}

fn render(shown: &Shown) -> String {
    let mut out = String::new();
    let at = match shown.mounts.first() {
        Some(at) => at.display().to_string(),
        None => "(no mount any more)".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{at}  connection {}  policy {}",
        shown.dev,
        shown.policy.as_deref().unwrap_or("none")
    );
    if !shown.programs.is_empty() {
        let names: Vec<&str> = shown.programs.iter().map(|p| p.name.as_str()).collect();
        let _ = writeln!(out, "  programs  {}", names.join(" "));
    }
    for map in &shown.maps {
        let entries = map
            .entries
            .map_or_else(|| "-".to_owned(), |n| n.to_string());
        let _ = writeln!(
            out,
            "  map       {:<14} {entries:>8} of {:>8} entries {:>8} KiB",
            map.name,
            map.max_entries,
            map.memory_bytes >> 10
        );
    }
    let data: Vec<String> = shown
        .data
        .iter()
        .filter(|(_, n)| **n != 0)
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    if !data.is_empty() {
        let _ = writeln!(out, "  data      {}", data.join("  "));
    }
    for (n, channel) in shown.channels.iter().enumerate() {
        let figures: Vec<String> = CHANNEL
            .iter()
            .filter_map(|name| Some(format!("{name} {}", channel.get(*name)?)))
            .collect();
        let _ = writeln!(out, "  channel {n:<3} {}", figures.join("  "));
    }
    if let Some(a) = &shown.adaptive {
        let _ = writeln!(
            out,
            "  adaptive  files on cache {}  on backing file {}  rounds {}  changes {}  rounds with processors short {}",
            a.on_cache, a.on_backing, a.rounds, a.changes, a.short_rounds
        );
    }
    if !shown.opcodes.is_empty() {
        let _ = writeln!(
            out,
            "  {:<15} {:>10} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
            "opcode",
            "answered",
            "hits",
            "miss",
            "expired",
            "changed",
            "gone",
            "unfit",
            "learnt",
            "overlap",
            "unwanted"
        );
    }
    for (name, c) in &shown.opcodes {
        let rate = if c.seen() == 0 {
            "-".to_owned()
        } else {
            format!("{:.1}%", c.answered as f64 * 100.0 / c.seen() as f64)
        };
        let _ = writeln!(
            out,
            "  {name:<15} {:>10} {rate:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
            c.answered,
            c.miss,
            c.expired,
            c.changed,
            c.gone,
            c.unfit,
            c.learnt,
            c.overlap,
            c.unwanted
        );
    }
    out
}
