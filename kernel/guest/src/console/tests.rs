//! Texts as kernels 6.12 write them.

use super::*;

fn fed(text: &str) -> Console {
    let mut console = Console::default();
    // In small pieces, since a serial line gives no others.
    for piece in text.as_bytes().chunks(7) {
        console.feed(piece);
    }
    console
}

const QUIET: &str = "\
SeaBIOS (version 1.16.2-debian-1.16.2-1)\r
[    0.048000] tsc: Unable to calibrate against PIT\r
[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on\r
[    1.500000] Warning: unable to open an initial console.\r
[    3.000000] efuse: loading out-of-tree module taints kernel.\r
[    3.100000] EXT4-fs (nullb0): mounted filesystem with ordered data mode.\r
[    3.200000] Memory cgroup out of memory: Killed process 12 (x)\r
fio said: BUG: this is only a program\r
";

const WARNING: &str = "\
[   10.000000] ------------[ cut here ]------------\r
[   10.000100] WARNING: CPU: 1 PID: 321 at fs/fuse/dev.c:411 efuse_request_end+0x1b5/0x1c0 [efuse]\r
[   10.000200] Modules linked in: efuse(OE) null_blk\r
[   10.000300] Call Trace:\r
[   10.000400]  <TASK>\r
[   10.000500]  efuse_dev_do_write+0x5a1/0xbe0 [efuse]\r
[   10.000600] ---[ end trace 0000000000000000 ]---\r
[   10.100000] unrelated\r
";

const OOPS: &str = "\
[   20.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010\r
[   20.000010] #PF: supervisor read access in kernel mode\r
[   20.000020] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI\r
[   20.000030] RIP: 0010:efuse_lookup+0x2f/0x1e0 [efuse]\r
[   20.000040] Call Trace:\r
[   20.000050] ---[ end trace 0000000000000000 ]---\r
[   20.000060] Kernel panic - not syncing: Fatal exception\r
";

const HUNG: &str = "\
[  121.000000] INFO: task fio:312 blocked for more than 60 seconds.\r
[  121.000010]       Tainted: G           OE      6.12.117+deb12-cloud-amd64 #1\r
[  121.000020] task:fio             state:D stack:0     pid:312   tgid:312   ppid:1\r
[  121.000030] Call Trace:\r
[  121.000040]  request_wait_answer+0x133/0x220 [efuse]\r
";

#[test]
fn ordinary_lines_are_no_failure() {
    let console = fed(QUIET);
    assert!(!console.bad(), "{:?}", console.failure());
    assert!(console.tail().ends_with("only a program"));
}

#[test]
fn warning_ends_at_its_last_line() {
    let console = fed(&format!("{QUIET}{WARNING}"));
    assert!(console.complete());
    let Some(GuestError::Warning { trace }) = console.failure() else {
        panic!("{:?}", console.failure());
    };
    assert!(trace.contains("cut here"), "{trace}");
    assert!(trace.contains("efuse_dev_do_write+0x5a1"), "{trace}");
    assert!(!trace.contains("unrelated"), "{trace}");
}

#[test]
fn oops_stays_an_oops_though_a_panic_follows() {
    let Some(GuestError::Oops { trace }) = fed(OOPS).failure() else {
        panic!("no oops");
    };
    assert!(trace.contains("efuse_lookup+0x2f"), "{trace}");
}

#[test]
fn a_warning_that_becomes_an_oops_is_an_oops() {
    let cut = WARNING.lines().take(3).collect::<Vec<_>>().join("\n");
    let console = fed(&format!("{cut}\n{OOPS}"));
    assert!(matches!(console.failure(), Some(GuestError::Oops { .. })));
}

#[test]
fn hung_task_has_no_last_line() {
    let console = fed(HUNG);
    assert!(console.bad() && !console.complete());
    let Some(GuestError::HungTask { trace }) = console.failure() else {
        panic!("no hang");
    };
    assert!(trace.contains("request_wait_answer"), "{trace}");
}

#[test]
fn every_kind_of_bad_line() {
    let kind = |text: &str| {
        let console = fed(&format!("[    5.000001] {text}\n"));
        console.report.map(|report| report.kind)
    };
    for (text, expected) in [
        (
            "Kernel panic - not syncing: sysrq triggered crash",
            Kind::Panic,
        ),
        (
            "BUG: KASAN: slab-use-after-free in efuse_put+0x1/0x2",
            Kind::Oops,
        ),
        ("kernel BUG at fs/fuse/dev.c:1!", Kind::Oops),
        (
            "Oops: general protection fault, probably for non-canonical address",
            Kind::Oops,
        ),
        ("BUG: scheduling while atomic: fio/1/0x2", Kind::Oops),
        (
            "WARNING: possible circular locking dependency detected",
            Kind::Warning,
        ),
        (
            "WARNING: possible recursive locking detected",
            Kind::Warning,
        ),
        ("WARNING: inconsistent lock state", Kind::Warning),
        ("WARNING: suspicious RCU usage", Kind::Warning),
        ("WARNING: held lock freed!", Kind::Warning),
        ("INFO: trying to register non-static key.", Kind::Warning),
        (
            "ODEBUG: free active (active state 0) object: 00000000 object type: work_struct",
            Kind::Warning,
        ),
        ("refcount_t: underflow; use-after-free.", Kind::Warning),
        (
            "BUG: sleeping function called from invalid context at mm/x.c:1",
            Kind::Oops,
        ),
        (
            "BUG efuse_request (Tainted: G): Object already free",
            Kind::Oops,
        ),
        ("BUG: MAX_LOCKDEP_CHAINS too low!", Kind::Oops),
        (
            "UBSAN: array-index-out-of-bounds in fs/fuse/ring.c:3:4",
            Kind::Warning,
        ),
        (
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
            Kind::HungTask,
        ),
        (
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            Kind::HungTask,
        ),
        (
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            Kind::HungTask,
        ),
        (
            "Out of memory: Killed process 77 (fio) total-vm:1kB",
            Kind::OutOfMemory,
        ),
        (
            "efuse-init: FAILED: insmod /lib/efuse.ko: invalid",
            Kind::Init,
        ),
    ] {
        assert_eq!(kind(text), Some(expected), "{text}");
    }
}

#[test]
fn a_stamp_in_the_middle_of_a_line_counts() {
    let console = fed("partial output[    5.000001] Kernel panic - not syncing: x\n");
    assert!(matches!(console.failure(), Some(GuestError::Panic { .. })));
}

#[test]
fn init_says_why() {
    let Some(GuestError::Init { message, .. }) =
        fed("[    4.000000] efuse-init: FAILED: the agent ended with status 3\n").failure()
    else {
        panic!("not seen");
    };
    assert_eq!(message, "the agent ended with status 3");
}

#[test]
fn endless_traces_and_lines_are_cut() {
    let mut text = "[    1.000000] BUG: x\n".to_owned();
    for _ in 0..2 * LONGEST {
        text.push_str("[    1.000000] more\n");
    }
    assert!(fed(&text).complete());
    let mut console = Console::default();
    console.feed(&vec![b'x'; 10 * LINE]);
    console.end();
    assert_eq!(console.tail().len(), LINE);
}
