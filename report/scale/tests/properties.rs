//! What holds for every model.

use efuse_scale::{Design, Load, Model, Times, Work, simulate};
use proptest::prelude::*;

fn times(low: f64, high: f64) -> impl Strategy<Value = Times> {
    prop_oneof![
        (low..high).prop_map(Times::Fixed),
        (low..high).prop_map(Times::Exponential),
        prop::collection::vec((1u64..1000, 1u64..50), 1..6).prop_map(move |mut bins| {
            bins.sort_unstable();
            bins.dedup_by_key(|(low, _)| *low);
            let scale = ((high - low) / 1000.0).max(1.0) as u64;
            let bins: Vec<_> = bins.iter().map(|(v, n)| (v * scale, *n)).collect();
            Times::histogram(&bins, |low| low / 16).expect("counts above 0")
        }),
    ]
}

fn design() -> impl Strategy<Value = Design> {
    prop_oneof![Just(Design::OneQueue), Just(Design::PerCore)]
}

prop_compose! {
    fn closed()(
        cores in 1u32..40,
        design in design(),
        more in 0u32..60,
        callers in 1u32..200,
        threads in 1u32..50,
        think in times(0.0, 500_000.0),
        service in times(1000.0, 200_000.0),
        lock in times(0.0, 3000.0),
        work in prop::option::of((times(0.0, 50_000.0), times(0.0, 50_000.0))),
    ) -> Model {
        let work = work.map(|(caller, worker)| Work { caller, worker });
        Model { cores, design, workers: cores + more, load: Load::Closed { callers, threads, think }, service, work, lock }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn littles_law_and_no_ceiling_is_broken(model in closed(), seed in any::<u64>()) {
        let out = simulate(&model, 20_000, seed);
        let Load::Closed { callers, threads, think } = &model.load else { unreachable!() };
        prop_assert_eq!(out.requests, 20_000);
        // What is under way at both ends is counted for time and not for answers.
        let little = out.per_second * out.total_ns / 1e9;
        let slack = f64::from(*callers) / 20_000.0;
        prop_assert!((out.in_flight / little - 1.0).abs() < 0.02 + 2.0 * slack, "{out:?}");
        prop_assert!(out.in_flight <= f64::from(*callers) * (1.0 + 1e-9));
        prop_assert!(out.queueing_ns <= out.total_ns);
        // Ceilings, with room for chance and for the ends of the run.
        let room = 1.1 + 2.0 * slack;
        let queues = if model.design == Design::PerCore { f64::from(model.cores) } else { 1.0 };
        let (s, h) = (model.service.mean(), model.lock.mean());
        let work = |of: fn(&Work) -> &Times| model.work.as_ref().map_or(0.0, |w| of(w).mean());
        let (caller, worker) = (work(|w| &w.caller), work(|w| &w.worker));
        let reply = s + 2.0 * h + worker;
        let processors = if model.work.is_some() { f64::from(model.cores) } else { f64::INFINITY };
        for ceiling in [
            f64::from(*callers) * 1e9 / (think.mean() + caller + reply),
            f64::from(model.workers) * 1e9 / (s + worker),
            f64::from(*threads) * 1e9 / (caller + h),
            processors * 1e9 / (caller + worker + 2.0 * h),
            queues * 1e9 / (2.0 * h),
        ] {
            prop_assert!(out.per_second <= ceiling * room, "{out:?} above {ceiling}");
        }
        prop_assert!((0.0..=1.0).contains(&out.contended));
        prop_assert!(out.lock_busy <= 1.05);
        prop_assert!(out.processors_busy <= 1.0 + 1e-9);
    }

    #[test]
    fn a_seed_decides(model in closed(), seed in any::<u64>()) {
        let same = simulate(&model, 2000, seed) == simulate(&model, 2000, seed);
        prop_assert!(same);
    }

    /// Where the lock costs nothing, workers that all can take what is there are never worse.
    #[test]
    fn one_queue_wins_where_its_lock_is_free(cores in 2u32..16, load in 0.3f64..0.85, seed in any::<u64>()) {
        let model = |design| Model {
            cores,
            design,
            workers: cores,
            load: Load::Open { per_second: load * f64::from(cores) * 1e9 / 50_000.0 },
            service: Times::Exponential(50_000.0),
            work: None,
            lock: Times::Fixed(0.0),
        };
        let one = simulate(&model(Design::OneQueue), 40_000, seed);
        let own = simulate(&model(Design::PerCore), 40_000, seed);
        prop_assert!(one.queueing_ns < own.queueing_ns, "{} and {}", one.queueing_ns, own.queueing_ns);
    }

    /// A dearer lock never makes one queue faster, beyond chance.
    #[test]
    fn a_dearer_lock_is_no_gain(mut model in closed(), seed in any::<u64>()) {
        model.design = Design::OneQueue;
        let before = simulate(&model, 10_000, seed);
        model.lock = Times::Fixed(model.lock.mean() * 4.0 + 500.0);
        let after = simulate(&model, 10_000, seed);
        prop_assert!(after.per_second <= before.per_second * 1.1, "{before:?} {after:?}");
    }
}
