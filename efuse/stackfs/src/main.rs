//! The daemon: mounts a [`StackFs`] and serves it until it is unmounted.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use efuse_bpf::{Attachment, Dev, Policy, Tunables, adaptive_tunable};
use efuse_runtime::{
    Device, Mount, MountOptions, RingConfig, Rings, Session, SessionConfig, Transport, Uring,
};
use efuse_stackfs::{Options, StackFs, raise_descriptor_limit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Shows the directory SOURCE at MOUNTPOINT, through FUSE.
///
/// Stays in the foreground and prints "ready" once the mount serves. Ends with status 0 when it is
/// unmounted; SIGTERM, SIGINT and SIGHUP unmount it first (lazily if it is in use). SIGUSR1 prints
/// how many nodes and handles the kernel holds to standard error.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Directory to show.
    source: PathBuf,

    /// Directory to show it at; must not lie inside SOURCE.
    mountpoint: PathBuf,

    /// Character device to serve.
    #[arg(long, value_name = "PATH", default_value = "/dev/fuse")]
    device: PathBuf,

    /// File system type to mount: "fuse" for /dev/fuse, "efuse" for /dev/efuse.
    #[arg(long, value_name = "TYPE", default_value = "fuse")]
    fstype: String,

    /// How requests come: "device" reads and writes it, "ring" shares memory with the kernel
    /// (/dev/efuse only), with a channel and at least one thread for each processor; "uring" is
    /// FUSE over io_uring (/dev/fuse only; Linux 6.14 or newer with Y in
    /// /sys/module/fuse/parameters/enable_uring), with a queue for each processor.
    #[arg(long, value_name = "WAY", default_value = "device")]
    transport: Way,

    /// With rings: channels, instead of one for each processor.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ring_channels: u32,

    /// With rings: requests in a channel at once, a power of two; 0 leaves it to the kernel.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ring_depth: u32,

    /// With rings: how long callers look for their reply before they sleep, in microseconds.
    #[arg(long, value_name = "US", default_value_t = RingConfig::default().poll_us)]
    ring_poll_us: u32,

    /// With rings: how long a thread looks for a request before it sleeps, in microseconds. Where
    /// one processor is all there is, and with --pin true, nobody looks.
    #[arg(long, value_name = "US", default_value_t = RingConfig::default().spin.as_micros() as u64,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    ring_spin_us: u64,

    /// With rings and io_uring: keep the threads of a channel or queue on its processor. Without
    /// this only those of io_uring are kept.
    #[arg(long, value_name = "true|false")]
    pin: Option<bool>,

    /// With rings: requests stay in the channel of their caller's processor, however busy it is.
    /// A program select_queue still decides if there is one.
    #[arg(long)]
    ring_unbalanced: bool,

    /// Threads that serve requests, each with a descriptor and buffers (2 MiB) of its own. A thread
    /// waits while its request is at the disk, so more of them keep a deeper queue there.
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,

    /// With rings: so many threads there may be when handlers block. One is started for a channel
    /// whose threads are all in handlers and none of which came back for 10 ms, while something
    /// waits there; it ends when it had nothing to do for 5 s. Not more than --workers keeps their
    /// number as it is [default: twice the threads at the start, and at least 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_workers: Option<u16>,

    /// Let the kernel read and write regular files directly (Linux 6.9 or newer, as root). Falls
    /// back to the daemon where the kernel refuses.
    #[arg(long)]
    passthrough: bool,

    /// How long the kernel may trust a name, in seconds.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = seconds)]
    entry_timeout: Duration,

    /// How long the kernel may trust attributes, in seconds.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = seconds)]
    attr_timeout: Duration,

    /// Let other users in. Implies --default-permissions: the daemon itself checks nothing.
    #[arg(long)]
    allow_other: bool,

    /// Let the kernel check permissions by mode, owner and group.
    #[arg(long)]
    default_permissions: bool,

    /// Let the kernel check POSIX ACLs, too. Costs one more request for each node.
    #[arg(long)]
    posix_acl: bool,

    /// Largest read or write request, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(4..=1024))]
    max_write: u32,

    /// Asynchronous requests that may be under way before the kernel makes callers wait.
    #[arg(long, value_name = "N", default_value_t = SessionConfig::default().max_background,
          value_parser = clap::value_parser!(u16).range(1..))]
    max_background: u16,

    /// Attach these programs to the mount, which then answer for the daemon as far as they can: a
    /// built-in policy (metadata, extfuse, passthrough, cache, prelim, balance, balance-least,
    /// balance-two) or the path of a compiled one. On /dev/efuse only. They
    /// end with the daemon.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// With --policy: memory for cached data, MiB, where the policy has a cache.
    #[arg(long, value_name = "MIB", requires = "policy")]
    cache_size: Option<u32>,

    /// With --policy: a constant of the adaptive choice between cache and backing file, where the
    /// policy makes one; may be given more than once.
    #[arg(long, value_name = "NAME=NUMBER", requires = "policy", value_parser = adaptive_tunable)]
    adaptive: Vec<(String, u32)>,

    /// With --policy: nobody changes SOURCE but through this mount. What the programs learnt then
    /// holds until it is changed here, and not only for the timeouts.
    #[arg(long, requires = "policy")]
    until_invalidated: bool,

    /// Debug knob: make each handler take PERCENT longer than it needs, by keeping its thread busy.
    /// For testing whether a measurement notices.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    slow_percent: u16,

    /// Debug knob: let each request wait for a random time of up to MAX microseconds before it is
    /// done, and again before its reply. For looking for races.
    #[arg(long, value_name = "MAX", default_value_t = 0)]
    delay_replies_us: u32,

    /// With --delay-replies-us: what the times follow from.
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 0,
        requires = "delay_replies_us"
    )]
    delay_seed: u64,

    /// Debug knob: the daemon, and not the kernel, decides who sees what: nobody but root finds
    /// what belongs to others and is no directory. For testing that programs keep callers apart. Only with timeouts of
    /// 0 is it true, as the kernel's own caches are everybody's.
    #[arg(long, conflicts_with = "default_permissions")]
    own_only: bool,

    /// Files and directories are opened and closed by the kernel alone. The daemon keeps up to 1024
    /// files and 128 directories open that were used last, and opens others again, which it must
    /// be able to do whatever their modes. For local file systems: where close has something to
    /// do, each write does it. Implies --default-permissions. docs/conformance.md tells what differs.
    #[arg(long, conflicts_with_all = ["passthrough", "own_only"])]
    no_open: bool,
}

/// How requests come.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    /// By reading and writing the device.
    Device,
    /// By shared memory.
    Ring,
    /// By io_uring.
    Uring,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stackfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let limit = raise_descriptor_limit();
    if limit < 1 << 13 {
        eprintln!("stackfs: only {limit} open files allowed; each node the kernel knows needs one");
    }
    refuse_loop(&cli.source, &cli.mountpoint)?;

    let fs = Arc::new(StackFs::new(
        &cli.source,
        Options {
            entry_ttl: cli.entry_timeout,
            attr_ttl: cli.attr_timeout,
            passthrough: cli.passthrough,
            posix_acl: cli.posix_acl,
            own_only: cli.own_only,
            no_open: cli.no_open,
        },
    )?);
    let max_write = (cli.max_write << 10) & !4095;
    // From here on signals must not kill the process past the unmount.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
        .context("cannot install signal handlers")?;
    let policy = cli.policy.as_deref();
    let (device, mount) = Device::mount(&MountOptions {
        device: cli.device,
        fstype: cli.fstype,
        source: cli.source.display().to_string(),
        allow_other: cli.allow_other,
        default_permissions: (cli.default_permissions || cli.allow_other || cli.no_open)
            && !cli.own_only,
        max_read: max_write,
        ..MountOptions::new(&cli.mountpoint)
    })?;
    // Before the first request, so that programs see all of them.
    let attachment = policy
        .map(|name| {
            let tunables = Tunables {
                until_invalidated: cli.until_invalidated,
                cache_bytes: cli.cache_size.map(|mib| u64::from(mib) << 20),
                adaptive: cli.adaptive.clone(),
                ..Tunables::default()
            };
            attach(name, mount.mountpoint(), &tunables)
        })
        .transpose()?;
    let transport: Arc<dyn Transport> = match cli.transport {
        Way::Device => Arc::new(device),
        Way::Ring => Arc::new(Rings::new(
            device,
            RingConfig {
                channels: cli.ring_channels,
                depth: cli.ring_depth,
                poll_us: cli.ring_poll_us,
                spin: Duration::from_micros(cli.ring_spin_us),
                pin: cli.pin.unwrap_or(RingConfig::default().pin),
                balance: !cli.ring_unbalanced,
                ..RingConfig::default()
            },
        )),
        Way::Uring => {
            let uring = Uring::new(device, usize::from(cli.workers), cli.pin.unwrap_or(true));
            Arc::new(uring.context("cannot find out how many queues there are")?)
        }
    };
    let config = SessionConfig {
        workers: usize::from(cli.workers),
        max_workers: cli.max_workers.map(usize::from),
        max_write,
        max_background: cli.max_background,
        congestion_threshold: cli.max_background - cli.max_background / 4,
        slow_percent: cli.slow_percent,
        delay: Duration::from_micros(cli.delay_replies_us.into()),
        delay_seed: cli.delay_seed,
        ..SessionConfig::default()
    };
    let session = Session::start(&transport, &fs, &config)?;
    writeln!(std::io::stdout(), "ready").context("cannot write to standard output")?;

    let (ended, end) = mpsc::channel();
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("wait".to_owned())
        .spawn(move || {
            // Nobody listens any more if the main thread gave up waiting.
            let _ = ended.send(session.wait());
            handle.close();
        })
        .context("cannot start a thread")?;
    watch(&mut signals, mount, &fs);
    drop(attachment);
    match end.recv_timeout(GRACE) {
        Ok(result) => Ok(result?),
        Err(_) => {
            eprintln!("stackfs: detached while in use; files still open there fail from now on");
            Ok(())
        }
    }
}

/// Loads programs and attaches them to the mount.
fn attach(policy: &str, mountpoint: &Path, tunables: &Tunables) -> Result<Attachment> {
    let dev = Dev::of_mount(mountpoint)?;
    Ok(Policy::load(policy, dev, tunables)?.attach()?)
}

/// How long files that are open at a lazy unmount may keep the daemon.
const GRACE: Duration = Duration::from_secs(2);

/// Handles signals until the session ends or was told to.
fn watch(signals: &mut Signals, mut mount: Mount, fs: &StackFs) {
    for signal in signals.forever() {
        if signal == SIGUSR1 {
            let now = fs.statistics();
            eprintln!(
                "stackfs: nodes {} files {} directories {}",
                now.nodes, now.files, now.directories
            );
            continue;
        }
        if mount
            .unmount(false)
            .or_else(|_| mount.unmount(true))
            .is_ok()
        {
            return;
        }
    }
    // The connection is gone, so whatever is mounted there now is not ours.
    mount.forget();
}

/// Looking up the mount point through itself would wait for itself.
fn refuse_loop(source: &Path, mountpoint: &Path) -> Result<()> {
    let real = |path: &Path| {
        path.canonicalize()
            .with_context(|| format!("cannot use {}", path.display()))
    };
    let (source, mountpoint) = (real(source)?, real(mountpoint)?);
    if mountpoint != source && mountpoint.starts_with(&source) {
        bail!(
            "mount point {} lies inside the source {}; mount somewhere else",
            mountpoint.display(),
            source.display()
        );
    }
    Ok(())
}
