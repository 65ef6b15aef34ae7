//! `efuse-odd`: daemons that do what few do and all may. Programs in the kernel must not change what
//! their callers see. For tests.

mod elsewhere;
mod files;
mod groups;
mod plus;
mod reused;
mod stream;

use std::ffi::CStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{Errno, FopenFlags};
use efuse_runtime::{
    Attributes, Device, Entry, FileSystem, MountOptions, Node, Opened, RingConfig, Rings, Session,
    SessionConfig, Transport, XattrReply,
};

/// An unusual daemon with files in memory; serves until it is unmounted.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// What is unusual about it.
    mode: Mode,
    /// An empty folder to mount on.
    mountpoint: PathBuf,
    /// Character device to serve.
    #[arg(long, default_value = "/dev/efuse")]
    device: PathBuf,
    /// Type of the mount.
    #[arg(long, default_value = "efuse")]
    fstype: String,
    /// Let the kernel check permissions.
    #[arg(long)]
    default_permissions: bool,
    /// Get requests by rings.
    #[arg(long)]
    ring: bool,
    /// Bytes of a reply to a read.
    #[arg(long, default_value_t = 10_000)]
    most: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Names, their nodes and attributes depend on the caller's supplementary groups.
    Groups,
    /// What is written to a file is in it when it is flushed, and not before.
    Flush,
    /// Device control changes files, or asks for more arguments.
    Ioctl,
    /// Reads give no more bytes than `--most`.
    Short,
    /// Files change elsewhere, and the kernel is not told.
    Elsewhere,
    /// Numbers of nodes are used again once they are forgotten.
    Reused,
    /// Bytes come once.
    Stream,
    /// Lists have attributes, not all of which the kernel takes.
    Plus,
}

const ROOT: u64 = efuse_abi::ROOT_ID;

/// Attributes of something of this type and mode.
fn attributes(ino: u64, mode: u32, size: u64) -> Attr {
    Attr {
        ino,
        size,
        blocks: size.div_ceil(512),
        mode,
        nlink: 1,
        blksize: 4096,
        ..Attr::default()
    }
}

/// A reply that the kernel itself may use once: whatever it keeps, programs do.
fn entry(attr: Attr) -> Entry {
    Entry {
        node: Node {
            id: attr.ino,
            generation: 0,
        },
        attr,
        entry_ttl: Duration::ZERO,
        attr_ttl: Duration::ZERO,
    }
}

/// Attributes that the kernel itself may use once, likewise.
fn once(attr: Attr) -> Attributes<Attr> {
    Attributes {
        attr,
        ttl: Duration::ZERO,
    }
}

/// The number of a file `f0`, `f1` and so on, of which there are so many.
fn number(name: &CStr, files: u64) -> Result<u64, Errno> {
    let digits = name.to_str().ok().and_then(|text| text.strip_prefix('f'));
    let n = digits.and_then(|digits| digits.parse().ok());
    n.filter(|&n| n < files).ok_or(Errno::ENOENT)
}

/// An open file past the page cache, so that reads come to the daemon or to where programs send them.
fn opened(more: FopenFlags) -> Opened {
    Opened {
        fh: 1,
        flags: FopenFlags::DIRECT_IO | more,
        backing_id: 0,
    }
}

/// Reads from a file of this size that has the same byte everywhere.
fn same_bytes(byte: u8, size: u64, arg: &ReadIn, out: &mut [u8]) -> usize {
    let len = size.saturating_sub(arg.offset).min(out.len() as u64) as usize;
    out[..len].fill(byte);
    len
}

/// What statfs says, which no test looks at but all mounts are asked for.
fn space() -> Kstatfs {
    Kstatfs {
        bsize: 4096,
        frsize: 4096,
        namelen: 255,
        ..Kstatfs::default()
    }
}

/// A text into the room for it.
fn put(out: &mut [u8], text: &str) -> Result<usize, Errno> {
    let room = out.get_mut(..text.len()).ok_or(Errno::ERANGE)?;
    room.copy_from_slice(text.as_bytes());
    Ok(text.len())
}

/// The value of an extended attribute, or its size.
fn value(out: &mut [u8], text: &str) -> Result<XattrReply, Errno> {
    if out.is_empty() {
        return Ok(XattrReply::Size(text.len() as u32));
    }
    put(out, text).map(XattrReply::Data)
}

fn serve<F: FileSystem>(cli: &Cli, fs: F) -> Result<()> {
    let (device, mut mount) = Device::mount(&MountOptions {
        device: cli.device.clone(),
        fstype: cli.fstype.clone(),
        source: "odd".to_owned(),
        allow_other: true,
        default_permissions: cli.default_permissions,
        ..MountOptions::new(&cli.mountpoint)
    })?;
    let transport: Arc<dyn Transport> = if cli.ring {
        Arc::new(Rings::new(device, RingConfig::default()))
    } else {
        Arc::new(device)
    };
    let session = Session::start(&transport, &Arc::new(fs), &SessionConfig::default())?;
    writeln!(std::io::stdout(), "ready").context("cannot write to standard output")?;
    session.wait()?;
    // It ended because somebody unmounted it.
    mount.forget();
    Ok(())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.mode {
        Mode::Groups => serve(&cli, groups::Groups),
        Mode::Flush => serve(&cli, files::Files::holding()),
        Mode::Ioctl => serve(&cli, files::Files::default()),
        Mode::Short => serve(&cli, files::Files::replying(cli.most)),
        Mode::Elsewhere => serve(&cli, elsewhere::Elsewhere::default()),
        Mode::Reused => serve(&cli, reused::Reused::default()),
        Mode::Stream => serve(&cli, stream::Stream::default()),
        Mode::Plus => serve(&cli, plus::Plus::default()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("efuse-odd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
