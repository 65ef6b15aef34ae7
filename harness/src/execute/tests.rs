//! The loop against a scripted session: deaths, kills, interrupts, resumes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;

use efuse_model::environment::Environment;
use efuse_model::store::Attempts;
use proptest::prelude::*;

use super::*;
use crate::session::{Checked, Measured};
use crate::testing;

/// What happens to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Measured.
    Done,
    /// Failed inside, the session lives.
    Fail,
    /// Failed before the system was mounted.
    Unprepared,
    /// The guest dies.
    Die,
    /// `eval` is killed with SIGKILL in the middle of it.
    Kill,
    /// `eval` is killed while it appends the attempt: half a line is on disk.
    KillTorn,
    /// Ctrl-C in the middle of it.
    Interrupt,
}

#[derive(Debug, Default)]
struct World {
    script: VecDeque<Event>,
    /// Sessions opened, and open now.
    opened: u32,
    open: u32,
    /// Cells of which the session has delivered a figure, in order.
    delivered: Vec<String>,
    environment: Option<Environment>,
    /// Figures of the system `a` are steady, of others far apart.
    noisy: bool,
    /// Where a torn line goes.
    attempts: PathBuf,
}

type Shared = Rc<RefCell<World>>;

struct Scripted {
    world: Shared,
    id: String,
    environment: Environment,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.world.borrow_mut().open -= 1;
    }
}

/// The payload of a simulated SIGKILL.
struct Killed;

impl Session for Scripted {
    fn id(&self) -> &str {
        &self.id
    }
    fn environment(&self) -> &Environment {
        &self.environment
    }
    fn probe(&mut self, systems: &[String]) -> Result<Vec<(String, Option<String>)>, SessionError> {
        Ok(systems.iter().map(|s| (s.clone(), None)).collect())
    }
    fn measure(
        &mut self,
        cell: &Cell,
        _probes: efuse_model::counters::Probes,
        _limit: Duration,
        phase: &mut dyn FnMut(Phase),
    ) -> Result<Measured, SessionError> {
        phase(Phase::Prepare);
        phase(Phase::Measure);
        let event = self.world.borrow_mut().script.pop_front();
        let outcome = match event.unwrap_or(Event::Done) {
            Event::Done => {
                let mut world = self.world.borrow_mut();
                world.delivered.push(cell.key().0);
                let n = world.delivered.len() % 7;
                match world.noisy && cell.system != "a" {
                    true => testing::done(10.0 * (n + 1) as f64, 5.0),
                    false => testing::done(10.0, 5.0),
                }
            }
            Event::Fail => testing::failed("fio exited with 1"),
            Event::Unprepared => Outcome::Failed {
                phase: Phase::Prepare,
                reason: "mkfs.ext4: no space".into(),
            },
            Event::Die => return Err(SessionError::Lost("kernel panic\n trace".into())),
            Event::Interrupt => return Err(SessionError::Interrupted(2)),
            Event::Kill => resume_unwind(Box::new(Killed)),
            Event::KillTorn => {
                let path = self.world.borrow().attempts.clone();
                let mut file = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .unwrap();
                file.write_all(br#"{"schema":1,"cell":"0123"#).unwrap();
                resume_unwind(Box::new(Killed));
            }
        };
        Ok(Measured {
            outcome,
            wall_ms: 10,
            command: "fio".into(),
            raw: Some(serde_json::json!({"jobs": []})),
        })
    }
    fn check(
        &mut self,
        _check: &str,
        _system: &str,
        _effort: u32,
        _limit: Duration,
    ) -> Result<Checked, SessionError> {
        Err(SessionError::Lost("not in these tests".into()))
    }
    fn shutdown(self: Box<Self>) -> Result<(), SessionError> {
        Ok(())
    }
}

struct ScriptedOpener(Shared);

impl Opener for ScriptedOpener {
    fn open(
        &mut self,
        opening: &Opening,
        _progress: &mut dyn FnMut(&str),
    ) -> Result<Box<dyn Session>, SessionError> {
        let mut world = self.0.borrow_mut();
        assert_eq!(world.open, 0, "two guests at once");
        fs::write(&opening.console, "boot\n").unwrap();
        world.opened += 1;
        world.open += 1;
        Ok(Box::new(Scripted {
            world: Rc::clone(&self.0),
            id: format!("boot-{}", world.opened),
            environment: world
                .environment
                .clone()
                .unwrap_or_else(testing::environment),
        }))
    }
}

#[derive(Default)]
struct Silent {
    notes: Vec<String>,
    lefts: Vec<Duration>,
}

impl Watch for Silent {
    fn opening(&mut self, _step: &str) {}
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
    fn started(&mut self, position: Position, _cell: &Cell, _slot: &Slot, _attempt: u32) {
        self.lefts.push(position.left);
    }
    fn phase(&mut self, _phase: Phase) {}
    fn finished(&mut self, _position: Position, _attempt: &Attempt) {}
}

struct Fixture {
    _dir: tempfile::TempDir,
    run: RunDir,
    plan: Plan,
    world: Shared,
}

impl Fixture {
    fn new(systems: &[&str], repetitions: u32, seed: u64) -> Self {
        Self::of(testing::plan(systems, repetitions, seed))
    }

    fn of(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(&dir.path().join("run"), &plan).unwrap();
        let world = World {
            attempts: run.path().join("attempts.jsonl"),
            ..World::default()
        };
        Self {
            _dir: dir,
            run,
            plan,
            world: Rc::new(RefCell::new(world)),
        }
    }

    /// One start of `eval`; `None` if it was killed.
    fn start(&self, script: &[Event], max_lost: u32) -> Option<Result<Completion, RunError>> {
        self.world.borrow_mut().script = script.iter().copied().collect();
        let result = catch_unwind(AssertUnwindSafe(|| {
            execute(
                &self.run,
                // As `resume` does, from disk.
                &self.run.plan().unwrap(),
                None,
                &mut ScriptedOpener(Rc::clone(&self.world)),
                &mut Silent::default(),
                &Interrupt::default(),
                Limits {
                    cell: None,
                    max_lost,
                },
                Clock::new(&self.plan),
            )
        }));
        match result {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Killed>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    fn attempts(&self) -> Attempts {
        self.run.attempts().unwrap()
    }
}

fn outcomes(attempts: &Attempts) -> Vec<bool> {
    attempts
        .list
        .iter()
        .map(|a| matches!(a.outcome, Outcome::Done { .. }))
        .collect()
}

#[test]
fn a_failed_slot_is_tried_once_more_at_the_end_and_then_left() {
    use Event::{Done, Fail};
    let f = Fixture::new(&["a"], 2, 1);
    let completion = f
        .start(&[Fail, Fail, Done, Done, Done, Fail], 3)
        .unwrap()
        .unwrap();
    assert_eq!(completion.done, 3);
    assert_eq!(completion.failed, [f.plan.order[1].clone()]);
    let attempts = f.attempts();
    assert_eq!(outcomes(&attempts), [false, false, true, true, true, false]);
    assert_eq!(attempts.list[4].attempt, 1);
    assert_eq!(f.world.borrow().opened, 1, "a failure inside costs no boot");
    // The raw output of each try is there.
    for attempt in &attempts.list {
        assert!(f.run.path().join(attempt.raw.as_ref().unwrap()).exists());
    }
}

#[test]
fn a_dead_guest_fails_its_cell_with_its_trace_and_the_run_goes_on() {
    use Event::{Die, Done};
    let f = Fixture::new(&["a", "b"], 1, 1);
    let completion = f.start(&[Done, Die, Done], 3).unwrap().unwrap();
    assert_eq!((completion.done, completion.failed.len()), (4, 0));
    let attempts = f.attempts();
    assert_eq!(outcomes(&attempts), [true, false, true, true, true]);
    let Outcome::Failed { phase, reason } = &attempts.list[1].outcome else {
        panic!("{attempts:?}");
    };
    assert_eq!(*phase, Phase::Measure);
    assert_eq!(reason, "kernel panic\n trace");
    assert_eq!(attempts.list[1].session, "boot-1");
    assert_eq!(attempts.list[2].session, "boot-2");
    assert!(f.run.path().join("console-1.log").exists());
    assert_eq!(f.world.borrow().open, 0);
}

#[test]
fn guests_that_keep_dying_end_the_run_and_resume_goes_on() {
    use Event::Die;
    let f = Fixture::new(&["a", "b"], 2, 1);
    let error = f.start(&[Die; 20], 3).unwrap().unwrap_err();
    assert!(
        matches!(error, RunError::TooManyLost { lost: 3, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("kernel panic"), "{error}");
    let completion = f.start(&[], 3).unwrap().unwrap();
    assert_eq!((completion.done, completion.failed.len()), (8, 0));
}

#[test]
fn a_machine_that_can_prepare_nothing_ends_the_run() {
    use Event::{Done, Unprepared};
    let f = Fixture::new(&["a", "b"], 3, 1);
    let script = [
        Unprepared, Unprepared, Done, Unprepared, Unprepared, Unprepared,
    ];
    let error = f.start(&script, 3).unwrap().unwrap_err();
    assert!(matches!(error, RunError::Unprepared(_)), "{error}");
    assert!(error.to_string().contains("mkfs.ext4: no space"), "{error}");
    assert_eq!(f.attempts().list.len(), script.len());
    let completion = f.start(&[], 3).unwrap().unwrap();
    assert_eq!(completion.done, f.plan.order.len());
}

#[test]
fn another_environment_is_refused_with_its_differences() {
    let f = Fixture::new(&["a"], 2, 1);
    let _ = f.start(&[Event::Done, Event::Interrupt], 3);
    let mut changed = testing::environment();
    changed.kernel = "6.13".into();
    changed.versions.insert("fio".into(), "4".into());
    f.world.borrow_mut().environment = Some(changed);
    let before = f.attempts().list;
    let error = f.start(&[], 3).unwrap().unwrap_err().to_string();
    assert!(error.contains("kernel: \"6.13\", was \"6.12\""), "{error}");
    assert!(error.contains("version fio: \"4\", was \"3\""), "{error}");
    assert_eq!(f.attempts().list, before, "nothing was measured");
    assert_eq!(f.world.borrow().open, 0);
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_no_guest() {
    let f = Fixture::new(&["a"], 2, 1);
    f.start(&[Event::Done, Event::Interrupt], 3);
    // Stands in for ENOSPC: the store refuses to write.
    fs::remove_dir_all(f.run.path().join("raw")).unwrap();
    let error = f.start(&[], 3).unwrap().unwrap_err();
    assert!(matches!(error, RunError::Store(_)), "{error}");
    assert_eq!(f.attempts().list.len(), 1);
    assert_eq!(f.world.borrow().open, 0);
    fs::create_dir(f.run.path().join("raw")).unwrap();
    let completion = f.start(&[], 3).unwrap().unwrap();
    assert_eq!(completion.done, f.plan.order.len());
}

#[test]
fn an_interrupt_before_the_first_cell_opens_nothing() {
    let f = Fixture::new(&["a"], 1, 1);
    let interrupt = Interrupt::default();
    interrupt.raise(15);
    let error = execute(
        &f.run,
        &f.plan,
        None,
        &mut ScriptedOpener(Rc::clone(&f.world)),
        &mut Silent::default(),
        &interrupt,
        Limits::default(),
        Clock::new(&f.plan),
    )
    .unwrap_err();
    assert!(matches!(error, RunError::Interrupted(15)), "{error}");
    assert_eq!(f.world.borrow().opened, 0);
}

#[test]
fn the_time_left_falls_to_one_cell() {
    let f = Fixture::new(&["a", "b"], 2, 1);
    let mut watch = Silent::default();
    execute(
        &f.run,
        &f.plan,
        None,
        &mut ScriptedOpener(Rc::clone(&f.world)),
        &mut watch,
        &Interrupt::default(),
        Limits::default(),
        Clock::new(&f.plan),
    )
    .unwrap();
    // Every scripted cell takes 10 ms, which the clock learns from the first on.
    let expected: Vec<_> = (1..=7)
        .rev()
        .map(|n| Duration::from_millis(10 * n))
        .collect();
    assert_eq!(watch.lefts[1..], expected[..], "{:?}", watch.lefts);
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Done),
        3 => Just(Event::Fail),
        1 => Just(Event::Die),
        1 => Just(Event::Kill),
        1 => Just(Event::KillTorn),
        1 => Just(Event::Interrupt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However often `eval` is killed, interrupted, or loses its guest: nothing stored is
    /// lost, no slot gets a second figure, and first tries come in the plan's order.
    #[test]
    fn resumed_runs_measure_each_slot_once(
        systems in 1usize..4,
        repetitions in 1u32..4,
        seed: u64,
        starts in prop::collection::vec(prop::collection::vec(event(), 0..12), 0..6),
    ) {
        let names = ["a", "b", "c"];
        let f = Fixture::new(&names[..systems], repetitions, seed);
        let mut before = Vec::new();
        let mut completion = None;
        for script in starts.iter().map(Vec::as_slice).chain([&[][..]]) {
            let result = f.start(script, 3);
            let now = f.attempts().list;
            prop_assert_eq!(&now[..before.len()], &before[..], "an attempt was lost");
            before = now;
            prop_assert_eq!(f.world.borrow().open, 0, "a guest was left");
            completion = result.and_then(Result::ok);
        }
        let completion = completion.expect("nothing happens in the last start");
        prop_assert_eq!(completion.done, f.plan.order.len());
        prop_assert!(completion.failed.is_empty());

        let mut figures = BTreeMap::<(String, u32), u32>::new();
        for attempt in &before {
            if matches!(attempt.outcome, Outcome::Done { .. }) {
                *figures.entry((attempt.cell.0.clone(), attempt.repetition)).or_default() += 1;
            }
        }
        prop_assert_eq!(figures.len(), f.plan.order.len());
        prop_assert!(figures.values().all(|n| *n == 1), "a slot was measured twice");
        prop_assert_eq!(f.world.borrow().delivered.len(), f.plan.order.len());

        let first_tries: Vec<Slot> = before
            .iter()
            .filter(|a| a.attempt == 0)
            .map(|a| Slot { cell: a.cell.clone(), repetition: a.repetition, probes: a.probes })
            .collect();
        prop_assert_eq!(first_tries, f.plan.order.clone());
        no_raw_is_missing(f.run.path(), &before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same where repetitions are added while measuring, probed ones among the planned.
    #[test]
    fn resumed_adaptive_runs_measure_each_slot_once_and_stop(
        repetitions in 2u32..4,
        more in 0u32..4,
        probed in 0u32..3,
        seed: u64,
        starts in prop::collection::vec(prop::collection::vec(event(), 0..20), 0..6),
    ) {
        let mut request = testing::request(&["a", "b"], repetitions, seed);
        request.probed = probed;
        request.adaptive = Some(efuse_model::plan::Adaptive {
            base: "a".into(),
            precision: 0.05,
            max_repetitions: repetitions + more,
        });
        let f = Fixture::of(crate::planning::build(request).unwrap());
        f.world.borrow_mut().noisy = true;
        let mut completion = None;
        for script in starts.iter().map(Vec::as_slice).chain([&[][..]]) {
            let result = f.start(script, 3);
            completion = result.and_then(Result::ok);
        }
        let completion = completion.expect("nothing happens in the last start");
        let grown = f.run.plan().unwrap();
        let attempts = f.attempts();
        prop_assert_eq!(completion.done, grown.order.len());
        prop_assert!(grown.order.starts_with(&f.plan.order));
        let done = |a: &&Attempt| matches!(a.outcome, Outcome::Done { .. });
        prop_assert_eq!(attempts.list.iter().filter(done).count(), grown.order.len());
        prop_assert!(grown.order.iter().all(|s| attempts.done(s)));
        for cell in &grown.cells {
            let n = grown.slots_of(&cell.key(), efuse_model::counters::Probes::Off);
            prop_assert!(n <= repetitions + more, "{} repetitions", n);
        }
        prop_assert_eq!(adaptive::next(&grown, &attempts), None);
        // Once more changes nothing.
        f.start(&[], 3).unwrap().unwrap();
        prop_assert_eq!(f.attempts().list.len(), attempts.list.len());
        no_raw_is_missing(f.run.path(), &attempts.list);
    }
}

fn no_raw_is_missing(run: &Path, attempts: &[Attempt]) {
    for raw in attempts.iter().filter_map(|a| a.raw.as_ref()) {
        let text = fs::read_to_string(run.join(raw)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
