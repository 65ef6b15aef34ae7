//! Mounts for real: every system that this machine can run, over EXT4 on a loop device.
//!
//! Needs root, `/dev/fuse`, loop devices and mkfs.ext4; what cannot be had is skipped
//! with the reason on standard error.

mod common;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use common::{Fixture, bins, is_mounted, registry, runs, skip};
use efuse_model::environment::Place;
use efuse_systems::plugin::Plugin;
use efuse_systems::{System, settings};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Deterministic bytes that repeat only after 251.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 7 + i / 251 + seed) % 251).unwrap())
        .collect()
}

/// Ordinary file work through the system, checked against the lower directory.
fn exercise(root: &Path, lower: &Path) {
    let data = pattern(300_000, 1);
    fs::write(root.join("a"), &data).unwrap();
    assert_eq!(fs::read(lower.join("a")).unwrap(), data);
    fs::create_dir(root.join("d")).unwrap();
    fs::write(lower.join("d/b"), b"below").unwrap();
    assert_eq!(fs::read(root.join("d/b")).unwrap(), b"below");
    fs::rename(root.join("a"), root.join("d/a")).unwrap();
    assert!(lower.join("d/a").exists());
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(root.join("d/a"))
        .unwrap();
    file.seek(SeekFrom::Start(4000)).unwrap();
    file.write_all(b"across a page").unwrap();
    file.sync_all().unwrap();
    let mut back = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut back).unwrap();
    assert_eq!(back, fs::read(lower.join("d/a")).unwrap());
    assert_eq!(&back[4000..4013], b"across a page");
    drop(file);
    let names: Vec<_> = fs::read_dir(root.join("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    fs::remove_dir_all(root.join("d")).unwrap();
    assert!(!lower.join("d").exists());
}

/// Direct I/O of small and of largest requests, with aligned buffers as fio has them.
fn direct(root: &Path, lower: &Path) {
    let name = "direct";
    let mib = 1 << 20;
    fs::write(lower.join(name), vec![0u8; 4 * mib]).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(root.join(name))
        .unwrap();
    let mut space = vec![0u8; mib + 4096];
    let shift = space.as_ptr().align_offset(4096);
    let buffer = &mut space[shift..shift + mib];
    for (round, length) in [4096, mib].into_iter().enumerate() {
        let data = pattern(length, round);
        buffer[..length].copy_from_slice(&data);
        let at = (round as u64 + 1) * mib as u64;
        file.write_all_at(&buffer[..length], at).unwrap();
        buffer[..length].fill(0);
        file.read_exact_at(&mut buffer[..length], at).unwrap();
        assert_eq!(buffer[..length], data[..]);
        let below = fs::read(lower.join(name)).unwrap();
        let at = usize::try_from(at).unwrap();
        assert_eq!(below[at..at + length], data[..]);
    }
    drop(file);
    fs::remove_file(root.join(name)).unwrap();
}

/// The whole life of a system.
fn live(system: &dyn System, fixture: &Fixture) {
    eprintln!("mounting {}", system.id());
    let mut mounted = system.mount(&fixture.context()).unwrap();
    let root = mounted.root().to_owned();
    assert!(is_mounted(&root));
    exercise(&root, &fixture.lower);
    direct(&root, &fixture.lower);
    mounted.alive().unwrap();
    let pid = mounted.daemon_pid();
    assert_eq!(pid.is_some(), system.id() != "ext4");
    mounted.unmount().unwrap();
    assert!(!is_mounted(&root));
    if let Some(pid) = pid {
        assert!(!runs(pid), "{} left process {pid}", system.id());
    }
}

#[test]
fn every_available_system_lives_and_goes_away() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let registry = registry();
    for system in registry.iter() {
        match registry.availability(system.id(), Place::Host) {
            None => live(system, &fixture),
            Some(reason) => skip(&format!("{}: {reason}", system.id())),
        }
    }
}

#[test]
fn the_examples_work() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let registry = efuse_systems::Registry::load(Some(&folder))
        .unwrap()
        .with_bins(bins());
    for id in [
        "bindfs",
        "bindfs-background",
        "fuse-noopen",
        "passthrough-ll-efuse",
    ] {
        match registry.availability(id, Place::Host) {
            None => live(registry.get(id).unwrap(), &fixture),
            Some(reason) => skip(&format!("{id}: {reason}")),
        }
    }
}

#[test]
fn an_unmodified_daemon_takes_a_device_that_is_mounted_already() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    if let Some(reason) = registry().availability("libfuse", Place::Host) {
        return skip(&reason);
    }
    // The example for /dev/efuse, on the one device that every machine has.
    let text = include_str!("../examples/passthrough-ll-efuse.toml");
    live(&plugin(&text.replace("/dev/efuse", "/dev/fuse")), &fixture);
}

#[test]
fn a_daemon_that_would_mount_over_the_device_is_refused() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(bindfs) = bins().find("bindfs") else {
        return skip("bindfs is not installed");
    };
    if !fs::read(&bindfs)
        .unwrap()
        .windows(12)
        .any(|w| w == b"libfuse.so.2")
    {
        return skip("this bindfs is not built with libfuse 2");
    }
    let error = plugin(
        "id = 'x'\ntitle = 'x'\ndevice = '/dev/fuse'\n\
         command = ['bindfs', '-f', '{lower}', '{mountpoint}']\n",
    )
    .mount(&fixture.context())
    .unwrap_err()
    .to_string();
    assert!(error.contains("uses libfuse 2"), "{error}");
    assert!(!is_mounted(Path::new("/dev/fuse")));
    assert!(!is_mounted(&fixture.context().mountpoint));
}

#[test]
fn the_control_passes_o_direct_down_and_has_the_shared_settings() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let registry = registry();
    if let Some(reason) = registry.availability("libfuse", Place::Host) {
        return skip(&reason);
    }
    let mounted = registry
        .get("libfuse")
        .unwrap()
        .mount(&fixture.context())
        .unwrap();
    fs::write(fixture.lower.join("f"), pattern(1 << 20, 3)).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(mounted.root().join("f"))
        .unwrap();
    let pid = mounted.daemon_pid().unwrap();
    let direct = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap()
        .filter_map(|e| fs::read_to_string(e.unwrap().path()).ok())
        .filter_map(|text| {
            let flags = text.lines().find_map(|l| l.strip_prefix("flags:"))?;
            i32::from_str_radix(flags.trim(), 8).ok()
        })
        // An O_PATH descriptor never has the flag.
        .any(|flags| flags & libc::O_DIRECT != 0);
    assert!(direct, "the daemon has no descriptor with O_DIRECT");
    drop(file);

    let control = fixture.dir.path().join("control");
    fs::create_dir(&control).unwrap();
    mount(
        Some("fusectl"),
        &control,
        Some("fusectl"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let number = mounted.connection().unwrap().to_string();
    let read = |name: &str| fs::read_to_string(control.join(&number).join(name));
    let values = (read("max_background"), read("congestion_threshold"));
    umount2(&control, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(
        values.0.unwrap().trim(),
        settings::MAX_BACKGROUND.to_string()
    );
    assert_eq!(
        values.1.unwrap().trim(),
        settings::CONGESTION_THRESHOLD.to_string()
    );
    mounted.unmount().unwrap();
}

/// Mounts the control, or says why not.
fn control(fixture: &Fixture) -> Option<efuse_systems::Mounted> {
    let registry = registry();
    if let Some(reason) = registry.availability("libfuse", Place::Host) {
        skip(&reason);
        return None;
    }
    Some(
        registry
            .get("libfuse")
            .unwrap()
            .mount(&fixture.context())
            .unwrap(),
    )
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

#[test]
fn a_killed_daemon_is_noticed_and_leaves_nothing() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(mut mounted) = control(&fixture) else {
        return;
    };
    let root = mounted.root().to_owned();
    signal(mounted.daemon_pid().unwrap(), Signal::SIGKILL);
    let error = common::eventually(|| mounted.alive().err()).to_string();
    assert!(
        error.starts_with("libfuse: the daemon was killed by SIGKILL while it was mounted; "),
        "{error}"
    );
    assert!(fs::read_dir(&root).is_err());
    let error = mounted.unmount().unwrap_err().to_string();
    assert!(error.contains("killed by SIGKILL"), "{error}");
    assert!(!is_mounted(&root));
}

#[test]
fn a_daemon_that_does_not_answer_is_ended() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(mounted) = control(&fixture) else {
        return;
    };
    let root = mounted.root().to_owned();
    let pid = mounted.daemon_pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    let error = mounted.unmount().unwrap_err().to_string();
    assert!(error.contains("still running"), "{error}");
    assert!(!is_mounted(&root));
    assert!(!runs(pid));
}

#[test]
fn a_caller_stuck_in_a_dead_file_system_is_freed() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(mounted) = control(&fixture) else {
        return;
    };
    let root = mounted.root().to_owned();
    let pid = mounted.daemon_pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    let path = root.join("does-not-answer");
    // It holds the mount busy for as long as it waits for an answer.
    let stuck = std::thread::spawn(move || fs::metadata(path));
    common::eventually(|| {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|t| fs::read_to_string(t.unwrap().path().join("wchan")).ok())
            .any(|w| w.contains("fuse") || w.contains("request_wait_answer"))
            .then_some(())
    });
    let error = mounted.unmount().unwrap_err().to_string();
    assert!(error.contains("only by force"), "{error}");
    assert!(!is_mounted(&root));
    assert!(stuck.join().unwrap().is_err());
}

#[test]
fn an_open_file_does_not_keep_it_mounted() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(mounted) = control(&fixture) else {
        return;
    };
    let root = mounted.root().to_owned();
    let pid = mounted.daemon_pid().unwrap();
    let file = fs::File::create(root.join("held")).unwrap();
    let error = mounted.unmount().unwrap_err().to_string();
    assert!(
        error.contains("a file in it was still in use after 5 s"),
        "{error}"
    );
    assert!(!is_mounted(&root));
    assert!(!runs(pid));
    drop(file);
}

#[test]
fn dropping_unmounts() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let Some(mounted) = control(&fixture) else {
        return;
    };
    let root = mounted.root().to_owned();
    let pid = mounted.daemon_pid().unwrap();
    drop(mounted);
    assert!(!is_mounted(&root));
    assert!(!runs(pid));
}

#[test]
fn a_mount_point_in_use_is_refused() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let registry = registry();
    let ext4 = registry.get("ext4").unwrap();
    let first = ext4.mount(&fixture.context()).unwrap();
    let error = ext4.mount(&fixture.context()).unwrap_err().to_string();
    assert!(
        error.ends_with("already a mount point; unmount it first"),
        "{error}"
    );
    assert!(is_mounted(first.root()));
    first.unmount().unwrap();
}

fn plugin(text: &str) -> Plugin {
    Plugin::parse(&efuse_reader::Source::new("x.toml", text)).unwrap()
}

#[test]
fn daemons_that_never_get_ready() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let context = fixture.context();
    let root = fs::canonicalize(&context.mountpoint).unwrap();
    let root = root.display();
    let log = context.log.display();
    for (text, expected) in [
        (
            "command = ['sh', '-c', 'echo no such option >&2; exit 7']",
            format!(
                "x: the daemon exited with status 7 before the file system was ready; its log {log} ends with: no such option"
            ),
        ),
        (
            "command = ['sh', '-c', 'sleep 1000']\nready = { timeout = '1s' }",
            format!(
                "x: not ready after 1 s: no file system of type fuse is mounted at {root}; it printed nothing (log: {log})"
            ),
        ),
        (
            "command = ['sh', '-c', 'echo hello; sleep 1000']\nready = { line = 'up', timeout = '1s' }",
            format!(
                "x: not ready after 1 s: the daemon has not printed the line \"up\"; its log {log} ends with: hello"
            ),
        ),
        (
            "command = ['sh', '-c', 'sleep 1000']\ndevice = '/dev/fuse'\nready = { timeout = '1s' }",
            format!(
                "x: not ready after 1 s: statfs(2) on it does not return; it printed nothing (log: {log})"
            ),
        ),
        (
            "command = ['sh', '-c', 'exit 0']\ndevice = '/dev/fuse'",
            format!(
                "x: the daemon exited with status 0 before the file system was ready; it printed nothing (log: {log})"
            ),
        ),
        (
            "command = ['no-such-daemon']",
            "x: the program no-such-daemon is not here".to_owned(),
        ),
    ] {
        let text = format!("id = 'x'\ntitle = 'x'\n{text}\n");
        let error = plugin(&text).mount(&context).unwrap_err().to_string();
        assert_eq!(error, expected);
        assert!(!is_mounted(&context.mountpoint));
    }
}

/// Not a test of its own: the part that gets killed.
#[test]
#[ignore = "started by the test below"]
fn mount_and_wait_to_be_killed() {
    let Ok(dir) = std::env::var("EFUSE_TEST_MOUNT_IN") else {
        return;
    };
    let mounted = registry()
        .get("libfuse")
        .unwrap()
        .mount(&common::context_in(Path::new(&dir)))
        .unwrap();
    let pid = mounted.daemon_pid().unwrap();
    let note = Path::new(&dir).join("pid");
    fs::write(note.with_extension("tmp"), pid.to_string()).unwrap();
    fs::rename(note.with_extension("tmp"), &note).unwrap();
    std::thread::park();
}

#[test]
fn even_a_killed_harness_leaves_nothing() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    if let Some(reason) = registry().availability("libfuse", Place::Host) {
        return skip(&reason);
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "mount_and_wait_to_be_killed"])
        .env("EFUSE_TEST_MOUNT_IN", fixture.dir.path())
        .spawn()
        .unwrap();
    let note = fixture.dir.path().join("pid");
    let daemon: u32 = common::eventually(|| fs::read_to_string(&note).ok()?.parse().ok());
    let context = fixture.context();
    assert!(is_mounted(&context.mountpoint));
    child.kill().unwrap();
    child.wait().unwrap();
    common::eventually(|| {
        let gone = !is_mounted(&context.mountpoint) && !runs(daemon);
        gone.then_some(())
    });
}
