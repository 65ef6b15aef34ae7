use efuse_model::document::Outcome;
use proptest::prelude::*;

use super::*;

fn question(name: &str, ratios: &[f64], floor: Option<f64>) -> Question {
    Question {
        test: "T1".into(),
        system: "s".into(),
        metric: Metric::parse(name).unwrap(),
        data: Ok(Data::Paired(ratios.to_vec())),
        floor,
    }
}

/// `n` ratios around `center`, apart by a little.
fn around(center: f64, n: u32) -> Vec<f64> {
    (0..n)
        .map(|i| center * (1.0 + f64::from(i % 3) / 1000.0))
        .collect()
}

fn call(name: &str, ratios: &[f64], floor: Option<f64>) -> Call {
    judge(&[question(name, ratios, floor)], 0.05, 1)[0].call
}

#[test]
fn directions_thresholds_and_floors() {
    assert_eq!(call("read-iops", &around(0.9, 8), None), Call::Regression);
    assert_eq!(call("read-iops", &around(1.1, 8), None), Call::Improved);
    // Of a latency more is worse.
    assert_eq!(call("read-clat", &around(1.1, 8), None), Call::Regression);
    assert_eq!(call("read-clat", &around(0.9, 8), None), Call::Improved);
    // Certain, and too small to matter.
    assert_eq!(call("read-iops", &around(0.97, 8), None), Call::Same);
    // Within what the system differs from itself by.
    assert_eq!(call("read-iops", &around(0.9, 8), Some(0.2)), Call::Same);
    let wide = [0.8, 1.3, 0.9, 1.2, 1.0, 0.7, 1.4, 1.1];
    assert_eq!(call("read-iops", &wide, None), Call::Inconclusive);
}

#[test]
fn too_few_repetitions_are_no_judgement_however_large_the_change() {
    let few = judge(&[question("read-iops", &around(0.5, 5), None)], 0.05, 1);
    assert_eq!(few[0].call, Call::Insufficient);
    let reason = few[0].reason.as_ref().unwrap();
    assert!(reason.contains("6 are needed"), "{reason}");
    let one = judge(&[question("read-iops", &[0.5], None)], 0.05, 1);
    assert_eq!(one[0].call, Call::Insufficient);
    assert!(one[0].reason.as_ref().unwrap().contains("one repetition"));
    // Enough for one comparison is not enough for twelve.
    let many: Vec<_> = (0..12)
        .map(|_| question("read-iops", &around(0.5, 6), None))
        .collect();
    assert!(
        judge(&many, 0.05, 1)
            .iter()
            .all(|j| j.call == Call::Insufficient)
    );
}

#[test]
fn a_missing_figure_is_insufficient_and_takes_no_part_in_the_family() {
    let mut missing = question("read-p99", &[], None);
    missing.data = Err("s has no read-p99".into());
    let judged = judge(
        &[missing, question("read-iops", &around(0.5, 6), None)],
        0.05,
        1,
    );
    assert_eq!(judged[0].call, Call::Insufficient);
    assert_eq!(judged[1].call, Call::Regression);
    assert_eq!(Outcome::of(&judged, &[]), Outcome::Regression);
    assert_eq!(Outcome::of(&judged[..1], &[]), Outcome::CouldNotJudge);
    assert_eq!(Outcome::of(&[], &[]), Outcome::CouldNotJudge);
}

#[test]
fn separate_runs_are_exchanged() {
    let question = |new: Vec<f64>, old: Vec<f64>| Question {
        data: Ok(Data::Separate { new, old }),
        ..question("write-iops", &[], None)
    };
    let worse = question(around(0.8, 6), around(1.0, 6));
    let same = question(around(1.0, 6), around(1.0, 6));
    let few = question(around(0.8, 3), around(1.0, 3));
    let calls: Vec<_> = judge(&[worse, same], 0.05, 1)
        .iter()
        .map(|j| j.call)
        .collect();
    assert_eq!(calls, [Call::Regression, Call::Same]);
    assert_eq!(judge(&[few], 0.05, 1)[0].call, Call::Insufficient);
}

#[test]
fn figures_that_cannot_be_compared() {
    let metric = Metric::parse("iops").unwrap();
    assert!(usable("x", metric, &[1.0, 2.0]).is_ok());
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let message = usable("x", metric, &[1.0, bad]).unwrap_err();
        assert!(message.contains("no figure to compare"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the figures, a regression is never called where the interval holds 1, the
    /// change is within the limit, or the repetitions are too few.
    #[test]
    fn a_regression_is_never_called_without_all_its_conditions(
        ratios in prop::collection::vec(0.5f64..1.5, 1..12), floor in prop::option::of(0.0f64..0.3),
    ) {
        let judged = judge(&[question("read-iops", &ratios, floor)], 0.05, 1).remove(0);
        if judged.call == Call::Regression {
            let (ratio, interval) = (judged.ratio.unwrap(), judged.interval.unwrap());
            prop_assert!(interval.high < 1.0);
            prop_assert!(1.0 / ratio > 1.0 + judged.limit);
            prop_assert!(ratios.len() >= 6 && judged.p_holm.unwrap() <= ALPHA);
        }
    }
}
