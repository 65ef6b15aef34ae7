//! An invented run with the fixed paths, the choice between them, and rings.

use efuse_model::counters::{Adaptive, BY_BACKING, BY_CACHE, Channel, Counters, FILLED, Served};
use efuse_model::test::Pattern;

use super::counted::{done_counted, metrics};
use super::{Fixture, system, test};

/// The load of two ring channels: three quarters of the requests in the first, and a few of
/// the second that came from elsewhere.
pub fn rings(counters: &mut Counters, requests: u64) {
    let channel = |requests, redirected, migrated, service_ns| Channel {
        requests,
        polled: requests / 2,
        waited: migrated,
        redirected,
        migrated,
        forgets: 3,
        wakeups: requests / 10,
        depth: 64,
        sleepers: 5,
        service_ns,
        ..Channel::default()
    };
    let first = requests / 4 * 3;
    let second = requests - first;
    counters.channels = vec![
        channel(first, 0, 0, 90_000),
        channel(second, second / 5, second / 50, 110_000),
    ];
}

/// What a policy chose that took the cache for so many percent of the reads, of which it had
/// nine in ten.
pub fn chosen(counters: &mut Counters, (reads, writes): (u64, u64), cache_percent: u64) {
    let looked = reads * cache_percent / 100;
    let served = |opcode: &str, all: &[(&str, u64)], daemon: u64| Served {
        opcode: opcode.into(),
        kernel: all.iter().map(|(w, n)| ((*w).to_owned(), *n)).collect(),
        passed: [("set-id".to_owned(), daemon)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect(),
    };
    counters.served = vec![
        served(
            "READ",
            &[
                (BY_CACHE, looked / 10 * 9),
                (FILLED, looked - looked / 10 * 9),
                (BY_BACKING, reads - looked),
            ],
            0,
        ),
        served(
            "WRITE",
            &[(BY_BACKING, writes - writes / 100)],
            writes / 100,
        ),
    ];
    counters.adaptive = Some(Adaptive {
        on_cache: if cache_percent > 50 { 3 } else { 0 },
        on_backing: if cache_percent > 50 { 1 } else { 4 },
        rounds: 40,
        changes: 2,
        short_rounds: 10,
    });
}

/// The counters of a finished attempt.
pub fn counters(f: &mut Fixture, attempt: usize) -> &mut Counters {
    let metrics = metrics(&mut f.attempts[attempt].outcome).unwrap();
    metrics.counters.as_mut().unwrap()
}

/// T1 is faster by the cache and T2 by the backing file; `efuse-prelim` is at 0.95 and 0.98
/// of the better one in the middle repetition of three. 1000 reads and 1000 writes in each.
pub fn fixture() -> Fixture {
    // IOPS in T1 and in T2.
    let systems = [
        ("fuse", 400.0, 400.0),
        ("efuse-passthrough", 1000.0, 1000.0),
        ("efuse-cache-backed", 2000.0, 900.0),
        ("efuse-prelim", 1900.0, 980.0),
        ("rfuse", 500.0, 450.0),
        ("efuse", 1850.0, 990.0),
    ];
    let mut f = Fixture::new(
        systems.iter().map(|(id, ..)| system(id, None)).collect(),
        vec![
            test("T1", Pattern::RandRw, None),
            test("T2", Pattern::RandRead, None),
        ],
        3,
    );
    for (rep, noise) in [(0, 0.99), (1, 1.0), (2, 1.01)] {
        for (id, first, second) in systems {
            for (test, iops) in [("T1", first), ("T2", second)] {
                let noise = if id == "efuse-prelim" { noise } else { 1.0 };
                let write = (test == "T1").then_some(iops / 2.0);
                f.attempt(
                    test,
                    id,
                    rep,
                    done_counted(Some(iops * noise), write, 1.0, Some(0.5)),
                );
                let last = f.attempts.len() - 1;
                let c = counters(&mut f, last);
                let (writes, cache) = if test == "T1" { (1000, 80) } else { (0, 10) };
                match id {
                    "efuse-prelim" => chosen(c, (1000, writes), cache),
                    "rfuse" => rings(c, 2000),
                    "efuse" => {
                        chosen(c, (1000, writes), cache);
                        rings(c, 40);
                    }
                    _ => {}
                }
            }
        }
    }
    f
}
