//! Real boots. They need QEMU, the programs that go into the guest, and the kernel under
//! `target/kernel`; where one is missing they say so and do nothing, unless `EFUSE_CI` is set.
//!
//! None asserts a time. Limits are there to end what hangs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use efuse_guest::{AccelRequest, Guest, GuestError, GuestSpec};
use efuse_kernel::Artifacts;
use efuse_model::protocol::{FromAgent, PROTOCOL, ToAgent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a boot under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Guests boot one after the other: several at once on few processors prove nothing more.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
        .to_owned()
}

struct Bench {
    artifacts: Artifacts,
    agent: PathBuf,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    /// `None` if something is missing that cannot be demanded here.
    fn new(test: &str) -> Option<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let ci = std::env::var_os("EFUSE_CI").is_some();
        let missing = ["qemu-system-x86_64", "busybox", "fio", "mke2fs"]
            .into_iter()
            .find(|tool| {
                let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
                !std::env::split_paths(&path).any(|folder| folder.join(tool).exists())
            });
        let reason = match missing {
            Some(tool) => Some(format!("{tool} is not installed")),
            None if !ci && !root().join("target/kernel/current.json").exists() => {
                Some("there is no kernel yet (`./x kernel` fetches it)".to_owned())
            }
            None => None,
        };
        if let Some(reason) = reason {
            assert!(!ci, "{test}: {reason}");
            println!("skipped {test}: {reason}");
            return None;
        }
        let artifacts = efuse_kernel::ensure(&root(), &mut |line| println!("{line}"))
            .expect("the kernel and its module");
        Some(Self {
            artifacts,
            agent: example("echo-agent"),
            dir: tempfile::tempdir().expect("a folder"),
            _turn: turn,
        })
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn spec(&self) -> GuestSpec {
        GuestSpec::new(
            self.artifacts.clone(),
            &self.agent,
            self.dir.path().join("console.log"),
            self.work_dir(),
        )
        .memory_mib(1024)
        .accel(AccelRequest::Tcg)
        .time_limit(Duration::from_secs(600))
    }

    /// Boots and waits for the agent.
    fn boot(&self, spec: &GuestSpec) -> Guest {
        let (guest, ready) = Guest::boot(spec, PATIENCE, &mut |line| println!("{line}"))
            .unwrap_or_else(|error| panic!("{error}\nthe console:\n{}", self.console()));
        match ready {
            FromAgent::Ready { protocol, .. } => assert_eq!(protocol, PROTOCOL),
            other => panic!("{other:?}"),
        }
        println!("ready after {:.2} s", guest.uptime().as_secs_f64());
        guest
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.dir.path().join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Cargo builds examples beside the tests.
fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("a path");
    let path = me
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps")
        .join("examples")
        .join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

fn check(seq: u64, check: &str) -> ToAgent {
    ToAgent::Check {
        seq,
        check: check.to_owned(),
        system: String::new(),
        effort: 1,
        timeout_ms: 60_000,
    }
}

/// Runs a shell script in the guest.
fn sh(guest: &Guest, script: &str) -> String {
    guest
        .send(&check(7, &format!("sh {script}")))
        .expect("sent");
    match guest.recv(PATIENCE) {
        Ok(FromAgent::Checked {
            failure: None,
            detail,
            ..
        }) => detail,
        other => panic!("{script}: {other:?}"),
    }
}

fn is_qemu(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu"))
}

fn wait_until_gone(pid: u32) {
    for _ in 0..600 {
        if !is_qemu(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("QEMU {pid} is still running");
}

#[test]
fn what_a_guest_offers() {
    let Some(bench) = Bench::new("what_a_guest_offers") else {
        return;
    };
    let extra = bench.dir.path().join("extra/sub");
    fs::create_dir_all(&extra).expect("made");
    fs::write(extra.join("file"), "from the host").expect("written");
    let spec = bench
        .spec()
        .virtio_disk(64 << 20)
        .file(bench.dir.path().join("extra"), "/srv/extra");
    let guest = bench.boot(&spec);

    let release = sh(&guest, "uname -r");
    assert_eq!(release.trim(), bench.artifacts.release);
    assert_eq!(sh(&guest, "cat /srv/extra/sub/file"), "from the host");
    // PID 1 is the shell, the agent its child.
    assert_eq!(sh(&guest, "cat /proc/1/comm").trim(), "init");
    for mounted in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/dev/shm",
        "/dev/pts",
        "/sys/fs/cgroup",
        "/sys/fs/bpf",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/config",
        "/sys/fs/fuse/connections",
    ] {
        sh(&guest, &format!("grep -q ' {mounted} ' /proc/mounts"));
    }
    let modules = sh(&guest, "cat /proc/modules");
    for module in ["efuse", "null_blk", "loop", "virtio_blk"] {
        assert!(modules.contains(&format!("{module} ")), "{modules}");
    }
    assert!(sh(&guest, "cat /proc/filesystems").contains("\tefuse\n"));
    assert_eq!(
        sh(&guest, "ls /sys/block | grep -c nullb || true").trim(),
        "0"
    );
    sh(&guest, "test -d /sys/kernel/config/nullb");
    assert_eq!(
        sh(&guest, "cat /sys/block/vda/serial"),
        efuse_guest::DISK_SERIAL
    );
    assert_eq!(
        sh(&guest, "blockdev --getsize64 /dev/vda").trim(),
        "67108864"
    );
    // The programs work, with their libraries and configuration.
    sh(
        &guest,
        "mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt",
    );
    let fio = sh(
        &guest,
        "fio --name=t --directory=/mnt --size=1M --bs=4k --rw=randwrite --ioengine=libaio \
         --direct=1 --iodepth=4 --verify=crc32c --output-format=json+",
    );
    assert!(fio.contains("\"total_ios\" : 256"), "{fio}");
    sh(
        &guest,
        "modprobe brd rd_nr=1 rd_size=4096 && test -b /dev/ram0 && rmmod brd",
    );
    assert_eq!(sh(&guest, "id -u tests").trim(), "1001");
    assert_eq!(sh(&guest, "stat -c %a /tmp").trim(), "1777");
    sh(&guest, "umount /mnt && rmmod efuse");
    guest.shutdown().expect("in order");
    let left: Vec<_> = fs::read_dir(bench.work_dir())
        .expect("listed")
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !["base-", "vmlinux-", "stubs-"]
                .iter()
                .any(|kept| name.starts_with(kept))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn long_lines_and_floods_pass_both_ways() {
    let Some(bench) = Bench::new("long_lines_and_floods_pass_both_ways") else {
        return;
    };
    let guest = bench.boot(&bench.spec());
    let name: String = (0..1 << 20)
        .map(|n: u32| char::from(b'a' + u8::try_from(n % 26).expect("small")))
        .collect();
    for seq in 0..3 {
        let systems = vec![name.clone()];
        guest.send(&ToAgent::Probe { seq, systems }).expect("sent");
        match guest.recv(PATIENCE) {
            Ok(FromAgent::Availability { seq: got, systems }) => {
                assert_eq!(got, seq);
                assert!(systems == [(name.clone(), None)], "the line was damaged");
            }
            other => panic!("{other:?}"),
        }
    }
    // Many more messages than may wait, not received while requests go the other way.
    guest.send(&check(1, "flood 100")).expect("sent");
    for seq in 0..100 {
        let systems = vec!["x".repeat(10_000)];
        guest.send(&ToAgent::Probe { seq, systems }).expect("sent");
        if let Ok(FromAgent::Log { text }) = guest.recv(PATIENCE) {
            assert!(text.starts_with(&format!("{seq} ")), "{text:.40}");
        } else {
            panic!("message {seq} is missing");
        }
    }
    assert!(matches!(
        guest.recv(PATIENCE),
        Ok(FromAgent::Checked { .. })
    ));
    for expected in 0..100 {
        match guest.recv(PATIENCE) {
            Ok(FromAgent::Availability { seq, .. }) => assert_eq!(seq, expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        guest.recv(Duration::from_millis(10)),
        Err(GuestError::Timeout { .. })
    ));
    // Drop kills it.
    let pid = guest.pid().expect("started");
    assert!(is_qemu(pid));
    drop(guest);
    assert!(!is_qemu(pid));
}

#[test]
fn panic_comes_with_its_trace_and_ends_the_guest() {
    let Some(bench) = Bench::new("panic_comes_with_its_trace_and_ends_the_guest") else {
        return;
    };
    let guest = bench.boot(&bench.spec());
    guest.send(&check(1, "panic")).expect("sent");
    for _ in 0..2 {
        match guest.recv(PATIENCE) {
            Err(GuestError::Panic { trace }) => {
                assert!(trace.contains("sysrq triggered crash"), "{trace}");
                assert!(trace.contains("sysrq_handle_crash"), "{trace}");
            }
            other => panic!("{other:?}\n{}", bench.console()),
        }
    }
    assert!(guest.send(&ToAgent::Shutdown).is_err());
    assert!(matches!(guest.shutdown(), Err(GuestError::Panic { .. })));
}

#[test]
fn hung_task_and_warning_come_with_their_traces() {
    let Some(bench) = Bench::new("hung_task_and_warning_come_with_their_traces") else {
        return;
    };
    let guest = bench.boot(&bench.spec());
    guest.send(&check(1, "hung-task")).expect("sent");
    assert!(matches!(
        guest.recv(PATIENCE),
        Ok(FromAgent::Checked { failure: None, .. })
    ));
    match guest.recv(PATIENCE) {
        Err(GuestError::HungTask { trace }) => {
            assert!(trace.contains("INFO: task touch:"), "{trace}");
            assert!(trace.contains("Call Trace:"), "{trace}");
        }
        other => panic!("{other:?}\n{}", bench.console()),
    }
    drop(guest);

    let guest = bench.boot(&bench.spec());
    guest.send(&check(1, "kmsg-warning")).expect("sent");
    let error = loop {
        match guest.recv(PATIENCE) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let GuestError::Warning { trace } = error else {
        panic!("{error:?}");
    };
    assert!(trace.contains("efuse_test+0x1/0x2"), "{trace}");
}

#[test]
fn an_agent_that_ends_or_talks_rubbish_is_reported() {
    let Some(bench) = Bench::new("an_agent_that_ends_or_talks_rubbish_is_reported") else {
        return;
    };
    let guest = bench.boot(&bench.spec());
    guest.send(&check(3, "exit")).expect("sent");
    match guest.recv(PATIENCE) {
        Err(GuestError::Init { message, .. }) => {
            assert_eq!(message, "the agent ended with status 3");
        }
        other => panic!("{other:?}\n{}", bench.console()),
    }
    drop(guest);

    let guest = bench.boot(&bench.spec());
    guest.send(&check(1, "rubbish")).expect("sent");
    match guest.recv(PATIENCE) {
        Err(GuestError::Protocol { line, .. }) => assert_eq!(line, "this is not JSON"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_that_does_not_load_fails_the_boot() {
    let Some(mut bench) = Bench::new("a_module_that_does_not_load_fails_the_boot") else {
        return;
    };
    bench.artifacts.module = bench.dir.path().join("efuse.ko");
    fs::write(&bench.artifacts.module, "no module").expect("written");
    match Guest::boot(&bench.spec(), PATIENCE, &mut |line| println!("{line}")) {
        Err(GuestError::Init { message, .. }) => {
            assert!(message.contains("insmod /lib/efuse.ko"), "{message}");
        }
        other => panic!("{other:?}\n{}", bench.console()),
    }
}

#[test]
fn time_limit_and_cancel_end_a_guest_that_hangs() {
    let Some(bench) = Bench::new("time_limit_and_cancel_end_a_guest_that_hangs") else {
        return;
    };
    let limit = Duration::from_secs(2);
    let guest = Guest::start(&bench.spec().time_limit(limit), &mut |_| {}).expect("starts");
    let pid = guest.pid().expect("started");
    match guest.recv(PATIENCE) {
        Err(GuestError::TimeLimit { limit: told, .. }) => assert_eq!(told, limit),
        other => panic!("{other:?}"),
    }
    wait_until_gone(pid);
    drop(guest);

    let guest = bench.boot(&bench.spec());
    guest.send(&check(1, "sleep")).expect("sent");
    let canceller = guest.canceller();
    std::thread::scope(|scope| {
        scope.spawn(|| canceller.cancel());
        assert!(matches!(guest.recv(PATIENCE), Err(GuestError::Cancelled)));
    });
    wait_until_gone(guest.pid().expect("started"));
}

#[test]
fn killing_the_owner_leaves_no_qemu() {
    let Some(bench) = Bench::new("killing_the_owner_leaves_no_qemu") else {
        return;
    };
    let mut owner = Command::new(example("boot"))
        .arg(root())
        .arg(bench.work_dir())
        .args(["tcg", "--hold"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(owner.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    let pid: u32 = first
        .split_once("(pid ")
        .and_then(|(_, rest)| rest.split_once(','))
        .and_then(|(pid, _)| pid.parse().ok())
        .unwrap_or_else(|| panic!("{first}"));
    assert!(is_qemu(pid));
    let second = lines.next().expect("a line").expect("text");
    assert!(second.starts_with("ready"), "{second}");
    // Its own group: the terminal's Ctrl-C does not reach it.
    let group = nix::unistd::getpgid(Some(Pid::from_raw(pid.try_into().expect("a number"))));
    assert_eq!(group.expect("running").as_raw().unsigned_abs(), pid);

    let owner_pid = Pid::from_raw(owner.id().try_into().expect("a number"));
    kill(owner_pid, Signal::SIGKILL).expect("killed");
    owner.wait().expect("reaped");
    wait_until_gone(pid);
}

#[test]
fn the_second_boot_uses_the_base_of_the_first() {
    let Some(bench) = Bench::new("the_second_boot_uses_the_base_of_the_first") else {
        return;
    };
    let bases = || {
        let mut found: Vec<_> = fs::read_dir(bench.work_dir())
            .expect("listed")
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("base-"))
            .map(|entry| {
                let made = entry.metadata().and_then(|data| data.modified());
                (entry.path(), made.expect("a time"))
            })
            .collect();
        found.sort();
        found
    };
    let mut said = Vec::new();
    let guest = Guest::start(&bench.spec(), &mut |line| said.push(line.to_owned()));
    drop(guest.expect("starts"));
    assert!(
        said.iter().any(|line| line.starts_with("packing")),
        "{said:?}"
    );
    let first = bases();
    assert_eq!(first.len(), 1);

    // Our code changes; the host's programs do not.
    let script = bench.dir.path().join("agent");
    fs::write(&script, "#!/bin/sh\necho one >/dev/kmsg\n").expect("written");
    let mut spec = bench.spec();
    spec.init_binary = script;
    said.clear();
    let guest = Guest::start(&spec, &mut |line| said.push(line.to_owned()));
    drop(guest.expect("starts"));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(bases(), first);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let Some(bench) = Bench::new("what_cannot_be_is_refused_with_a_reason") else {
        return;
    };
    let refused = |spec: &GuestSpec| match Guest::start(spec, &mut |_| {}) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert!(refused(&bench.spec().vcpus(0)).contains("processor"));
    assert!(refused(&bench.spec().memory_mib(64)).contains("512 MiB"));
    assert!(refused(&bench.spec().virtio_disk(1000)).contains("512 bytes"));
    assert!(refused(&bench.spec().file("/etc/hosts", "hosts")).contains("not absolute"));
    let gone = refused(&bench.spec().program("/nowhere/stackfs"));
    assert!(gone.contains("/nowhere/stackfs"), "{gone}");
    // More than QEMU itself takes: its message arrives.
    let guest = Guest::start(&bench.spec().vcpus(4096), &mut |_| {}).expect("spawned");
    match guest.recv(PATIENCE) {
        Err(GuestError::Exited { stderr, .. }) => assert!(stderr.contains("CPUs"), "{stderr}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_probe_boot_is_made_once() {
    let Some(bench) = Bench::new("the_probe_boot_is_made_once") else {
        return;
    };
    let mut said = 0;
    let mut probe = || {
        efuse_guest::probe_kvm(&bench.artifacts, &bench.work_dir(), &mut |_| said += 1)
            .expect("an answer")
    };
    let first = probe();
    println!("KVM works: {} ({})", first.works, first.detail);
    assert_eq!(probe(), first);
    assert!(said <= 1, "{said} boots");
    if !first.works {
        let spec = bench.spec().accel(AccelRequest::Kvm);
        match Guest::start(&spec, &mut |_| {}) {
            Err(GuestError::KvmUnusable { reason }) => assert_eq!(reason, first.detail),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started"),
        }
    }
}
