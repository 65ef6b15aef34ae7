//! Programs are attached from outside to daemons that know nothing of eFUSE: libfuse's own
//! low-level example, sshfs for libfuse's path interface, squashfuse for a read-only image. None
//! of them is changed; the harness hands them `/dev/efuse` as `/dev/fd/N`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{self as unix, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use efuse_bpf::Dev;
use efuse_model::metadata::KernelCache;
use efuse_systems::plugin::Plugin;
use efuse_systems::{MountContext, System as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{Site, Trouble, fail, plugin};
use crate::error::AgentError;
use crate::process::{self, Finished};
use crate::sys::{self, Drop as Caches};

/// A daemon, and what can be asked of it.
struct Daemon {
    file: &'static str,
    description: &'static str,
    /// It serves an image that mksquashfs made of the folder.
    image: bool,
    /// It knows extended attributes.
    xattrs: bool,
}

const DAEMONS: [Daemon; 3] = [
    Daemon {
        file: "passthrough-ll-efuse.toml",
        description: include_str!("../../../../systems/examples/passthrough-ll-efuse.toml"),
        image: false,
        xattrs: false,
    },
    Daemon {
        file: "sshfs-efuse.toml",
        description: include_str!("../../../../systems/examples/sshfs-efuse.toml"),
        image: false,
        xattrs: false,
    },
    Daemon {
        file: "squashfuse-efuse.toml",
        description: include_str!("../../../../systems/examples/squashfuse-efuse.toml"),
        image: true,
        xattrs: true,
    },
];

/// Daemons of somebody else that have to be there for the check to say anything.
const FEWEST: usize = 2;
const FOLDERS: usize = 3;
const FILES: usize = 12;
/// Times that caches are dropped and programs come and go.
const ROUNDS: usize = 3;
const READERS: usize = 2;
/// With a command that mounts, or ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// A folder that comes and goes. Nobody else opens files in it: libfuse would keep them under
/// other names after they are removed.
const CHURN: &str = "churn";
const XATTR: &str = "user.efuse";

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let efuse = site.agent.program("efuse", "build it with `just build`")?;
    site.unmount()?;
    let mut said = Vec::new();
    let mut missing = Vec::new();
    for daemon in &DAEMONS {
        let plugin = plugin(daemon.file, daemon.description)?;
        let agent = site.agent;
        let obstacle = plugin.needs().iter().find_map(|need| {
            need.check(agent.options().place, &agent.options().bin)
                .err()
        });
        match obstacle {
            Some(reason) => missing.push(format!("{}: {reason}", plugin.id())),
            None => said.push(
                accelerated(site, &efuse, daemon, &plugin)
                    .map_err(|trouble| trouble.of(plugin.id()))?,
            ),
        }
    }
    if said.len() < FEWEST {
        return Err(Trouble::Skip(missing.join("; ")));
    }
    match by_command(site, &efuse) {
        Ok(()) => said.push("efuse mount serves one until a signal".to_owned()),
        Err(Trouble::Skip(reason)) => missing.push(reason),
        Err(trouble) => return Err(trouble.of("efuse mount")),
    }
    site.mount()?;
    said.extend(missing);
    Ok(said.join("; "))
}

/// Mounts one daemon as users do, by the command, and ends it by a signal.
fn by_command(site: &Site<'_>, efuse: &Path) -> Result<(), Trouble> {
    let program = "passthrough_ll";
    let Some(daemon) = site.agent.options().bin.find(program) else {
        return Err(Trouble::Skip(format!("{program} is not here")));
    };
    let root = site.agent.folder().join("by-command");
    fs::create_dir_all(&root).map_err(AgentError::io(&root, "create the folder"))?;
    fs::write(site.lower.join("seen"), "through it")
        .map_err(AgentError::io(&site.lower, "write a file"))?;
    let mut running = Command::new(efuse)
        .arg("mount")
        .arg(&root)
        .arg("--")
        .arg(daemon)
        .args([
            "-f",
            "-o",
            &format!("source={}", site.lower.display()),
            "{}",
        ])
        .spawn()
        .map_err(AgentError::io(efuse, "start"))?;
    let file = root.join("seen");
    let seen = until(site, "the file is not seen", || {
        Ok(fs::read_to_string(&file).ok())
    });
    let seen = seen.and_then(|text| {
        let pid = i32::try_from(running.id()).expect("a process number");
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .map_err(|e| Trouble::Fail(format!("SIGTERM: {e}")))?;
        let ended = until(site, "it does not end", || {
            running
                .try_wait()
                .map_err(AgentError::io(efuse, "wait for"))
        })?;
        Ok((text, ended))
    });
    if seen.is_err() {
        let _ = running.kill();
        let _ = running.wait();
    }
    let (text, ended) = seen?;
    if text != "through it" || !ended.success() || Dev::of_mount(&root).is_ok() {
        return fail(format!(
            "{text:?} was read, it ended with {ended}, still mounted: {}",
            Dev::of_mount(&root).is_ok()
        ));
    }
    Ok(())
}

/// Looks again and again until there is something.
fn until<T>(
    site: &Site<'_>,
    otherwise: &str,
    mut look: impl FnMut() -> Result<Option<T>, AgentError>,
) -> Result<T, Trouble> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        site.limit.check()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(20));
    }
    fail(otherwise)
}

/// Mounts one daemon, attaches programs, and compares all it says with the tree itself.
fn accelerated(
    site: &Site<'_>,
    efuse: &Path,
    daemon: &Daemon,
    plugin: &Plugin,
) -> Result<String, Trouble> {
    let name = plugin.id();
    let tree = &site.lower;
    plant(tree).map_err(AgentError::io(tree, "fill"))?;
    let mut wanted = list("the tree", tree, daemon.xattrs)?;
    let served = if daemon.image {
        image(site)?
    } else {
        tree.clone()
    };
    let context = MountContext {
        lower: served,
        kernel_cache: Some(KernelCache::None),
        ..site.context("outside")
    };
    let mut mounted = site.mount_with(plugin, &context)?;
    let root = mounted.root().to_owned();
    let call = |args: &[&str]| -> Result<Finished, Trouble> {
        let done = process::run(Command::new(efuse).args(args).arg(&root), site.limit)?;
        if !done.status.success() {
            return fail(format!("{args:?} {}: {}", done.how(), done.tail()));
        }
        Ok(done)
    };
    // Each walk must see the same; from the second on much of it is answered in the kernel.
    call(&["attach", "--until-invalidated"])?;
    let walk = |what: &str, wanted: &Tree| -> Result<(), Trouble> {
        same(what, wanted, &list(what, &root, daemon.xattrs)?)
    };
    walk("the first walk", &wanted)?;
    let before = answered(&call(&["show", "--json"])?)?;
    walk("the second walk", &wanted)?;
    let hits = answered(&call(&["show", "--json"])?)? - before;
    if hits == 0 {
        return fail("nothing of the second walk was answered by programs");
    }

    let walks = storm(site, &root, daemon, &wanted, &mut |round| {
        sys::drop_caches(Caches::All)?;
        match round % 3 {
            0 => call(&["attach", "--replace", "--until-invalidated"]).map(drop),
            1 => call(&["detach"]).map(drop),
            _ => call(&["attach", "--until-invalidated"]).map(drop),
        }
    })?;
    mounted.alive()?;

    if !daemon.image {
        change(&root).map_err(AgentError::io(&root, "change the tree"))?;
        wanted = list("the changed tree", tree, daemon.xattrs)?;
    }
    // FORGETs of everything, then it is looked up anew.
    sys::drop_caches(Caches::All)?;
    walk("the last walk", &wanted)?;
    mounted.alive()?;
    // With programs attached: they go with the mount.
    mounted.unmount()?;
    Ok(format!(
        "{name}: {hits} of a walk's requests answered, {walks} walks of {} entries under {ROUNDS} \
         rounds of dropped caches, detaching and attaching",
        wanted.len()
    ))
}

/// Reads and, where that is possible, changes the tree while `round` does something to it.
fn storm(
    site: &Site<'_>,
    root: &Path,
    daemon: &Daemon,
    wanted: &Tree,
    round: &mut dyn FnMut(usize) -> Result<(), Trouble>,
) -> Result<usize, Trouble> {
    let stop = AtomicBool::new(false);
    let walks = AtomicUsize::new(0);
    let churned = root.join(CHURN);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| -> Result<(), Trouble> {
                    while !stop.load(Ordering::Relaxed) {
                        let seen = list("a walk under load", root, daemon.xattrs)?;
                        same("a walk under load", wanted, &seen)?;
                        walks.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let writer = (!daemon.image).then(|| {
            let (stop, churned) = (&stop, &churned);
            scope.spawn(move || churn(churned, stop))
        });
        // Each round takes effect on at least one whole walk.
        let rounds = (0..ROUNDS).try_for_each(|n| {
            let before = walks.load(Ordering::Relaxed);
            round(n)?;
            while walks.load(Ordering::Relaxed) < before + READERS
                && !readers.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                site.limit.check()?;
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let mut results = vec![rounds];
        results.extend(readers.into_iter().map(|r| r.join().expect("no panic")));
        if let Some(writer) = writer {
            let result = writer.join().expect("no panic");
            results.push(result.map_err(|e| AgentError::io(&churned, "churn")(e).into()));
        }
        results.into_iter().collect::<Result<(), Trouble>>()
    })?;
    Ok(walks.load(Ordering::Relaxed))
}

/// Makes, changes, moves and removes, and looks at each step whether it is seen.
fn churn(folder: &Path, stop: &AtomicBool) -> io::Result<()> {
    let must = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(io::Error::other(what.to_owned()))
        }
    };
    let mut n = 0usize;
    while !stop.load(Ordering::Relaxed) {
        fs::create_dir(folder)?;
        let (a, b) = (folder.join("a"), folder.join("b"));
        must(!a.exists(), "a new folder is not empty")?;
        fs::write(&a, vec![b'a'; n % 5000])?;
        must(
            fs::metadata(&a)?.len() == (n % 5000) as u64,
            "a size is stale",
        )?;
        fs::rename(&a, &b)?;
        must(!a.exists() && b.exists(), "a rename is not seen")?;
        fs::set_permissions(&b, fs::Permissions::from_mode(0o640))?;
        must(fs::metadata(&b)?.mode() & 0o777 == 0o640, "a mode is stale")?;
        fs::OpenOptions::new().write(true).open(&b)?.set_len(7)?;
        must(fs::metadata(&b)?.len() == 7, "a truncated size is stale")?;
        fs::remove_file(&b)?;
        must(!b.exists(), "an unlinked file is seen")?;
        fs::remove_dir(folder)?;
        must(!folder.exists(), "a removed folder is seen")?;
        n += 1;
    }
    Ok(())
}

/// What a path has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Not of folders, which is each file system's own affair.
    size: u64,
    /// SFTP and squashfs know whole seconds.
    mtime: i64,
    /// Of content or target.
    content: u64,
    xattr: Option<Vec<u8>>,
}

type Tree = BTreeMap<PathBuf, Entry>;

/// Looks at everything below a folder but `CHURN`, and beside each entry at a name that is not
/// there.
fn list(what: &str, root: &Path, xattrs: bool) -> Result<Tree, Trouble> {
    let mut out = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).map_err(AgentError::io(&dir, "list"))? {
            let path = item.map_err(AgentError::io(&dir, "list"))?.path();
            if path.ends_with(CHURN) {
                continue;
            }
            let absent = path.with_extension("absent");
            if fs::symlink_metadata(&absent).is_ok() {
                return fail(format!("{what}: {} is there", absent.display()));
            }
            match look(&path, xattrs) {
                Ok(entry) => {
                    if entry.mode & libc::S_IFMT == libc::S_IFDIR {
                        open.push(path.clone());
                    }
                    out.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), entry);
                }
                Err(e) => return fail(format!("{what}: {}: {e}", path.display())),
            }
        }
    }
    Ok(out)
}

fn look(path: &Path, xattrs: bool) -> io::Result<Entry> {
    let meta = fs::symlink_metadata(path)?;
    let content = if meta.is_file() {
        xxh3_64(&fs::read(path)?)
    } else if meta.is_symlink() {
        xxh3_64(fs::read_link(path)?.as_os_str().as_bytes())
    } else {
        0
    };
    Ok(Entry {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        size: if meta.is_dir() { 0 } else { meta.len() },
        mtime: meta.mtime(),
        content,
        xattr: if xattrs && meta.is_file() {
            get_xattr(path)?
        } else {
            None
        },
    })
}

fn same(what: &str, wanted: &Tree, seen: &Tree) -> Result<(), Trouble> {
    let differs = wanted
        .keys()
        .chain(seen.keys())
        .find(|path| wanted.get(*path) != seen.get(*path));
    match differs {
        None => Ok(()),
        Some(path) => fail(format!(
            "{what}: {} shows {:?}, not {:?}",
            path.display(),
            seen.get(path),
            wanted.get(path)
        )),
    }
}

/// Requests that programs answered so far, as `efuse show` has it.
pub(super) fn answered(shown: &Finished) -> Result<u64, Trouble> {
    let document: Value = serde_json::from_str(shown.stdout.lines().next().unwrap_or_default())
        .map_err(|e| Trouble::Fail(format!("efuse show --json: {e}")))?;
    let opcodes = document["opcodes"].as_object();
    let opcodes = opcodes.ok_or_else(|| Trouble::Fail("efuse show has no opcodes".into()))?;
    Ok(opcodes
        .values()
        .filter_map(|counts| counts["answered"].as_u64())
        .sum())
}

fn image(site: &Site<'_>) -> Result<PathBuf, Trouble> {
    let mksquashfs = site
        .agent
        .program("mksquashfs", "install it (apt install squashfs-tools)")?;
    let image = site.agent.folder().join("outside.squashfs");
    process::run(
        Command::new(mksquashfs).args([&site.lower, &image]).args([
            "-noappend",
            "-quiet",
            "-no-progress",
            "-processors",
            "1",
        ]),
        site.limit,
    )?
    .success("mksquashfs")?;
    Ok(image)
}

/// Fills a folder anew.
fn plant(tree: &Path) -> io::Result<()> {
    for item in fs::read_dir(tree)? {
        fs::remove_dir_all(item?.path())?;
    }
    for d in 0..FOLDERS {
        let folder = tree.join(format!("d{d}"));
        fs::create_dir(&folder)?;
        for f in 0..FILES {
            let path = folder.join(format!("f{f}"));
            let byte = u8::try_from(d * FILES + f).unwrap_or(0);
            fs::write(&path, vec![byte; f * 1777])?;
            let owner = u32::try_from(1000 + f).unwrap_or(0);
            unix::chown(&path, Some(owner), Some(owner + 1))?;
            let mode = 0o600 + u32::try_from(f).unwrap_or(0);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            if f % 2 == 0 {
                let value = format!("value {d} {f}");
                lsetxattr(&path, XATTR, value.as_bytes(), XattrFlags::empty())?;
            }
        }
        unix::symlink("f1", folder.join("link"))?;
    }
    Ok(())
}

/// Some of each kind of change, in the order of a path that is moved.
fn change(root: &Path) -> io::Result<()> {
    let at = |path: &str| root.join(path);
    fs::write(at("d0/f1"), b"written anew")?;
    fs::rename(at("d0/f2"), at("d1/moved"))?;
    fs::remove_file(at("d0/f3"))?;
    fs::rename(at("d0/f4"), at("d0/f5"))?;
    fs::rename(at("d2"), at("d3"))?;
    unix::symlink("nowhere", at("d3/new-link"))?;
    fs::create_dir(at("d3/new"))?;
    fs::write(at("d3/new/file"), vec![b'n'; 70_000])
}

/// `None` if it has none.
fn get_xattr(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 100];
    match lgetxattr(path, XATTR, &mut value) {
        Ok(n) => {
            value.truncate(n);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
