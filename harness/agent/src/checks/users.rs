//! Programs show nobody what the daemon or the kernel would not: each of several callers sees the
//! same with programs attached as without, whoever has filled the maps before.

use std::ffi::CString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{self as unix, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use rustix::fs::{XattrFlags, setxattr};

use super::outside::answered;
use super::{Site, Trouble, coherence, fail, plugin};
use crate::error::AgentError;
use crate::process::{self, Finished};

/// Who looks, as arguments of `efuse-coherence see`.
const CALLERS: [&[&str]; 5] = [
    &[],
    &["--uid=1001", "--gid=1001"],
    &["--uid=1002", "--gid=1002"],
    // The same user in one more group, which alone may enter "group".
    &["--uid=1002", "--gid=1002", "--groups=2000"],
    &["--uid=65534", "--gid=65534"],
];
/// Owner of "own", and of the mount in a user namespace.
const OWNER: u32 = 1001;
const NAMES: [&str; 18] = [
    "pub",
    "pub/all",
    "pub/root",
    "pub/owner",
    "pub/group",
    "pub/link",
    "pub/none",
    "private",
    "private/all",
    "private/link",
    "private/none",
    "group",
    "group/all",
    "group/none",
    "own",
    "own/all",
    "own/link",
    "own/none",
];
/// How the daemon is mounted, and whether users other than root are let in at all.
const MOUNTS: [(&str, &[&str], bool); 4] = [
    ("allow_other,default_permissions", &["--allow-other"], true),
    ("default_permissions", &["--default-permissions"], false),
    ("neither", &[], false),
    (
        "allow_other, the daemon decides",
        &["--allow-other", "--own-only"],
        true,
    ),
];
const DEVICE: &str = "/dev/efuse";

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let efuse = site.agent.program("efuse", "build it with `just build`")?;
    let see = coherence::program(site)?;
    site.unmount()?;
    plant(&site.lower).map_err(AgentError::io(&site.lower, "fill"))?;
    let mut hits = 0;
    let mut views = 0;
    for (what, options, others) in MOUNTS {
        let (seen, answered) =
            compared(site, &efuse, &see, options, others).map_err(|trouble| trouble.of(what))?;
        views += seen;
        hits += answered;
    }
    let in_namespace = user_namespace(site, &efuse, &see)?;
    site.mount()?;
    Ok(format!(
        "{views} views of {} paths by {} callers on {} mounts are the same with programs, which \
         answered {hits} requests; {in_namespace}",
        NAMES.len(),
        CALLERS.len(),
        MOUNTS.len()
    ))
}

/// One mount: what each caller sees without and with programs.
fn compared(
    site: &Site<'_>,
    efuse: &Path,
    see: &Path,
    options: &[&str],
    others: bool,
) -> Result<(usize, u64), Trouble> {
    let words: Vec<String> = options.iter().map(|o| format!("\"{o}\",")).collect();
    let text = format!(
        "id = \"users\"\ntitle = \"StackFS\"\nfs_type = \"efuse\"\nbackground = false\n\
         command = [\"stackfs\", \"{{lower}}\", \"{{mountpoint}}\", \"--device\", \"{DEVICE}\", \
         \"--fstype\", \"efuse\", \"--entry-timeout\", \"0\", \"--attr-timeout\", \"0\", {}]\n\
         [ready]\nline = \"ready\"\n[needs]\ndevices = [\"{DEVICE}\"]\n",
        words.join(" ")
    );
    let mounted = site.mount_with(&plugin("users", text)?, &site.context("users"))?;
    let root = mounted.root().to_owned();
    let view = |caller: &[&str]| looked(site, see, &root, caller);
    let without = CALLERS
        .iter()
        .map(|caller| view(caller))
        .collect::<Result<Vec<_>, _>>()?;
    // Otherwise the comparison would say nothing.
    if without[0].contains("pub/all: stat error") || without[1] == without[0] {
        return fail(format!(
            "root and a user see the same, or root sees nothing:\n{}",
            without[0]
        ));
    }
    let shut_out = without[1]
        .lines()
        .all(|line| line.contains("stat error 13"));
    if shut_out == others {
        return fail(format!("a user without programs sees\n{}", without[1]));
    }
    let refused = idmapped(&root);
    call(site, efuse, &["attach", "--until-invalidated"], &root, None)?;
    let mut views = 0;
    // Root fills the maps first, then each caller meets what all others have filled.
    let orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 2, 3, 1, 4]];
    for caller in orders.into_iter().flatten() {
        let with = view(CALLERS[caller])?;
        same(CALLERS[caller], &without[caller], &with)?;
        views += 1;
    }
    if options.contains(&"--own-only") {
        given(&root, view)?;
    } else {
        shut(&root, &without, view)?;
    }
    match (refused, idmapped(&root)) {
        // As of stock FUSE, unless the daemon asks for it in INIT, which none here does.
        (Err(Errno::EINVAL), Err(Errno::EINVAL)) => {}
        (a, b) => {
            return fail(format!(
                "an idmapped mount gives {a:?} without programs and {b:?} with them"
            ));
        }
    }
    let shown = call(site, efuse, &["show", "--json"], &root, None)?;
    let hits = answered(&shown)?;
    if hits == 0 {
        return fail("programs answered nothing");
    }
    mounted.unmount()?;
    Ok((views, hits))
}

/// What programs know of a folder is of no use to those to whom it is closed, and is again when it is opened.
fn shut(
    root: &Path,
    before: &[String],
    view: impl Fn(&[&str]) -> Result<String, Trouble>,
) -> Result<(), Trouble> {
    let folder = root.join("pub");
    let allow = |mode| {
        fs::set_permissions(&folder, Permissions::from_mode(mode))
            .map_err(AgentError::io(&folder, "change the mode of"))
    };
    let below = |seen: &str| -> String {
        let lines = seen.lines().filter(|line| line.starts_with("pub/"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    allow(0o700)?;
    for caller in &CALLERS[1..] {
        let seen = below(&view(caller)?);
        if !seen.lines().all(|line| line.contains("stat error 13")) {
            return fail(format!(
                "{caller:?} sees in a folder that was closed\n{seen}"
            ));
        }
    }
    allow(0o755)?;
    for (caller, before) in CALLERS.iter().zip(before) {
        same(caller, &below(before), &below(&view(caller)?))?;
    }
    Ok(())
}

/// Where a daemon shows each user what is the user's own: a file that changes hands.
fn given(root: &Path, view: impl Fn(&[&str]) -> Result<String, Trouble>) -> Result<(), Trouble> {
    let file = root.join("pub/all");
    for (owner, shown) in [(OWNER, true), (0, false)] {
        unix::chown(&file, Some(owner), None).map_err(AgentError::io(&file, "give away"))?;
        let seen = view(CALLERS[1])?;
        if seen.lines().any(|line| line.starts_with("pub/all: stat [")) != shown {
            return fail(format!(
                "user {OWNER} sees, after a file's owner became {owner},\n{seen}"
            ));
        }
    }
    Ok(())
}

/// A mount that a user made in a user namespace of its own, looked at from in there and from
/// outside, by users that it has no numbers for.
fn user_namespace(site: &Site<'_>, efuse: &Path, see: &Path) -> Result<String, Trouble> {
    let stackfs = site
        .agent
        .program("stackfs", "build it with `just build`")?;
    let point = site.agent.folder().join("users");
    let lower = site.lower.join("own");
    // As udev does for /dev/fuse.
    fs::set_permissions(DEVICE, Permissions::from_mode(0o666))
        .map_err(AgentError::io(DEVICE, "open to all"))?;
    let mut command = Command::new("/bin/busybox");
    command
        .args(["unshare", "-U", "-r", "-m", "--propagation", "private"])
        .arg(stackfs)
        .args([&lower, &point])
        .args(["--device", DEVICE, "--fstype", "efuse", "--allow-other"])
        .args(["--entry-timeout", "0", "--attr-timeout", "0"])
        .uid(OWNER)
        .gid(OWNER)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut daemon = Daemon(command.spawn().map_err(AgentError::io(&point, "mount"))?);
    let pid = daemon.ready()?;
    let mount = format!("--mount-namespace={pid}");
    let user = format!("--user-namespace={pid}");
    let callers: [&[&str]; 4] = [
        &[&mount, &user, "--uid=0", "--gid=0"],
        &[&mount],
        &[&mount, "--uid=1001", "--gid=1001"],
        &[&mount, "--uid=1002", "--gid=1002"],
    ];
    let view = |caller: &[&str]| -> Result<String, Trouble> {
        let mut command = Command::new(see);
        command.arg("see").args(caller).arg(&point);
        command.args(["all", "link", "none", "."]);
        Ok(process::run(&mut command, site.limit)?
            .success("efuse-coherence")?
            .stdout)
    };
    let without = callers
        .iter()
        .map(|caller| view(caller))
        .collect::<Result<Vec<_>, _>>()?;
    if without[0].contains("all: stat error") || !without[3].contains("all: stat error 13") {
        return fail(format!(
            "in the user namespace one sees\n{}and outside\n{}",
            without[0], without[3]
        ));
    }
    call(
        site,
        efuse,
        &["attach", "--until-invalidated"],
        &point,
        Some(pid),
    )?;
    for caller in [0, 1, 2, 3, 3, 2, 1, 0] {
        same(callers[caller], &without[caller], &view(callers[caller])?)?;
    }
    let shown = call(site, efuse, &["show", "--json"], &point, Some(pid))?;
    let hits = answered(&shown)?;
    if hits == 0 {
        return fail("programs answered nothing in the user namespace");
    }
    // The daemon ends, and with it the namespace and the mount.
    drop(daemon);
    Ok(format!(
        "so are {} views of a mount in a user namespace ({hits} answered); idmapped mounts are \
         refused either way",
        2 * callers.len()
    ))
}

/// A daemon of our own that is killed in the end.
struct Daemon(Child);

impl Daemon {
    /// Waits until it serves; its number.
    fn ready(&mut self) -> Result<u32, Trouble> {
        let mut line = String::new();
        if let Some(stdout) = self.0.stdout.take() {
            // If it dies, this ends as well.
            let read = BufReader::new(stdout).read_line(&mut line);
            read.map_err(AgentError::io("stackfs", "read from"))?;
        }
        if line.trim() == "ready" {
            return Ok(self.0.id());
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = io::Read::read_to_string(&mut stderr, &mut said);
        }
        fail(format!(
            "no mount in a user namespace: {}",
            process::tail(&said)
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(
    site: &Site<'_>,
    efuse: &Path,
    args: &[&str],
    root: &Path,
    mount_namespace_of: Option<u32>,
) -> Result<Finished, Trouble> {
    let mut command = match mount_namespace_of {
        None => Command::new(efuse),
        Some(pid) => {
            let mut command = Command::new("/bin/busybox");
            command
                .args(["nsenter", "-m", "-t", &pid.to_string()])
                .arg(efuse);
            command
        }
    };
    let done = process::run(command.args(args).arg(root), site.limit)?;
    if !done.status.success() {
        return fail(format!("efuse {args:?} {}: {}", done.how(), done.tail()));
    }
    Ok(done)
}

fn looked(site: &Site<'_>, see: &Path, root: &Path, caller: &[&str]) -> Result<String, Trouble> {
    let mut command = Command::new(see);
    command.arg("see").args(caller).arg(root).args(NAMES);
    let done = process::run(&mut command, site.limit)?;
    Ok(done.success("efuse-coherence")?.stdout)
}

fn same(caller: &[&str], without: &str, with: &str) -> Result<(), Trouble> {
    for (a, b) in without.lines().zip(with.lines()) {
        if a != b {
            return fail(format!("{caller:?} sees {b:?} with programs, not {a:?}"));
        }
    }
    if without.lines().count() == with.lines().count() {
        Ok(())
    } else {
        fail(format!("{caller:?} sees {with:?} with programs"))
    }
}

fn plant(tree: &Path) -> io::Result<()> {
    let file = |name: &str, mode: u32, uid: u32, gid: u32| -> io::Result<()> {
        let path = tree.join(name);
        fs::write(&path, name)?;
        setxattr(&path, "user.x0", name.as_bytes(), XattrFlags::empty())?;
        unix::chown(&path, Some(uid), Some(gid))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    for (folder, mode, uid, gid) in [
        ("pub", 0o755, 0, 0),
        ("private", 0o700, 0, 0),
        ("group", 0o750, 0, 2000),
        ("own", 0o700, OWNER, OWNER),
    ] {
        let path = tree.join(folder);
        fs::create_dir(&path)?;
        let owner = if folder == "own" { OWNER } else { 0 };
        file(&format!("{folder}/all"), 0o644, owner, owner)?;
        unix::symlink("all", path.join("link"))?;
        unix::lchown(path.join("link"), Some(owner), Some(owner))?;
        unix::chown(&path, Some(uid), Some(gid))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    file("pub/root", 0o600, 0, 0)?;
    file("pub/owner", 0o600, OWNER, OWNER)?;
    file("pub/group", 0o640, 0, 2000)
}

/// Tries to make an idmapped mount of a mount.
fn idmapped(root: &Path) -> Result<(), Errno> {
    let c_root = CString::new(root.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut holder = Command::new("/bin/busybox");
    holder.args(["unshare", "-U", "-r", "sleep", "60"]);
    let holder = Daemon(
        holder
            .uid(OWNER)
            .gid(OWNER)
            .spawn()
            .map_err(|_| Errno::ENOENT)?,
    );
    let map = PathBuf::from(format!("/proc/{}/uid_map", holder.0.id()));
    // Until then it is in our own namespace, which maps everything.
    let owner = OWNER.to_string();
    let mapped = || {
        fs::read_to_string(&map).is_ok_and(|text| text.split_whitespace().any(|word| word == owner))
    };
    for _ in 0..1000 {
        if mapped() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let namespace = OpenOptions::new()
        .read(true)
        .open(format!("/proc/{}/ns/user", holder.0.id()))
        .map_err(|_| Errno::ENOENT)?;
    // SAFETY: a string that outlives the call; the descriptor it returns is closed below.
    let tree = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            c_root.as_ptr(),
            libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
        )
    })?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: an empty string and a structure with its size, which outlive the call.
    let status = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    });
    // SAFETY: it was opened above, and nobody else has it.
    unsafe { libc::close(i32::try_from(tree).unwrap_or(-1)) };
    status.map(drop)
}
