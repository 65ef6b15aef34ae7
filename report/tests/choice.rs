//! The adaptive choice of a path for data, and the load of ring channels.

mod common;

use common::choosing::{self, counters};
use common::{Fixture, skeleton};
use efuse_report::choice::{self, Choice};
use efuse_report::count::Cell;
use efuse_report::input::Run;
use efuse_report::metric::Op;
use efuse_report::rings;
use efuse_report::table::Table;

fn load(f: &Fixture) -> Run {
    let dir = tempfile::tempdir().unwrap();
    Run::load(&f.write(dir.path())).unwrap()
}

fn page(f: &Fixture) -> String {
    let dir = tempfile::tempdir().unwrap();
    efuse_report::html(&f.write(dir.path()), None).unwrap()
}

/// The markup of a section; `None` where there is none.
fn section<'a>(html: &'a str, id: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(&format!("<section id=\"{id}\""))?;
    Some(rest.split_once("</section>").unwrap().0)
}

/// The table's row that begins with these cells, as text.
fn row(section: &str, cells: &str) -> String {
    let text = skeleton(&format!("<body>{section}<script>"));
    let mut rows = text
        .lines()
        .filter(|l| l.starts_with(&format!("| {cells} |")));
    rows.next()
        .unwrap_or_else(|| panic!("no row {cells}: {text}"))
        .to_owned()
}

#[test]
fn paths_and_rounds_by_hand() {
    let run = load(&choosing::fixture());
    let Choice {
        n,
        read,
        write,
        rounds,
    } = Cell::of(&run, "T1", "efuse-prelim")
        .unwrap()
        .choice
        .unwrap();
    // Three repetitions of 1000 reads, of which 800 through the cache and 720 hits.
    assert_eq!(n, 3);
    assert_eq!((read.cache, read.filled, read.backing), (2160, 240, 600));
    assert_eq!((write.backing, write.by_daemon()), (2970, 30));
    assert_eq!(read.percent(read.backing), Some(20.0));
    assert_eq!(read.hit_percent(), Some(90.0));
    assert_eq!(
        (rounds.rounds, rounds.changes, rounds.on_cache),
        (120, 6, 9)
    );
    // No policy that chooses, and no path that it was asked for.
    for system in ["rfuse", "efuse-passthrough"] {
        assert_eq!(Cell::of(&run, "T1", system).unwrap().choice, None);
    }
    let html = page(&choosing::fixture());
    let section = section(&html, "choice").unwrap();
    assert_eq!(
        row(section, "T1 | efuse-prelim | reads"),
        "| T1 | efuse-prelim | reads | 3,000 | 72.0 | 8.00 | 20.0 | 0 | 90.0 | \u{2013}"
    );
    assert_eq!(
        row(section, "T1 | efuse | writes"),
        "| T1 | efuse | writes | 3,000 | 0 | 0 | 99.0 | 1.00 | \u{2013} | set-id 30"
    );
    assert_eq!(
        row(section, "T2 | efuse-prelim | 3"),
        "| T2 | efuse-prelim | 3 | 120 | 6 (5.00 %) | 30 (25.0 %) | 0 (0 %) | 12 (100 %)"
    );
    assert!(section.contains("Emulated (TCG): ratios only."));
}

#[test]
fn the_choice_is_related_to_the_better_fixed_path_of_each_test() {
    let run = load(&choosing::fixture());
    let table = Table::new(&run, None).unwrap();
    let of = |test, op| choice::against(&run, &table, test, op);
    let t1 = of("T1", Op::Read).unwrap();
    assert_eq!((t1.better, t1.path()), ("efuse-cache-backed", "cache"));
    assert_eq!((t1.chosen.median, t1.chosen.n), (0.95, 3));
    assert_eq!(t1.other.median, 0.5);
    let t2 = of("T2", Op::Read).unwrap();
    assert_eq!(
        (t2.better, t2.path()),
        ("efuse-passthrough", "backing file")
    );
    assert_eq!(t2.chosen.median, 0.98);
    assert_eq!(of("T2", Op::Write), None, "there are none");
    let html = page(&choosing::fixture());
    let text = section(&html, "choice").unwrap();
    assert_eq!(
        row(text, "T2 | reads"),
        "| T2 | reads | backing file (efuse-passthrough) | 0.98x (0.97\u{2013}0.99, n=3) lower in all 3 \
         | 0.90x (0.90\u{2013}0.90, n=3) lower in all 3"
    );
    // An open square for the other path in each test and direction.
    assert_eq!(text.matches("class=\"hollow").count(), 3);
}

#[test]
fn without_both_fixed_paths_there_is_no_ratio_but_the_shares_stay() {
    let mut f = choosing::fixture();
    f.attempts.retain(|a| a.system != "efuse-cache-backed");
    let html = page(&f);
    let section = section(&html, "choice").unwrap();
    assert!(section.contains("fig-choice\"") && !section.contains("fig-choice-worth"));
    assert!(section.contains("What the choice is worth is told by runs that have"));
}

#[test]
fn a_repetition_that_one_side_lacks_is_in_no_pair() {
    let mut f = choosing::fixture();
    f.attempts
        .retain(|a| a.system != "efuse-prelim" || a.repetition > 0);
    let run = load(&f);
    let table = Table::new(&run, None).unwrap();
    let against = choice::against(&run, &table, "T1", Op::Read).unwrap();
    assert_eq!(against.chosen.n, 2);
    assert_eq!(against.other.n, 3);
}

#[test]
fn channels_by_hand() {
    let mut f = choosing::fixture();
    let run = load(&f);
    let channels = Cell::of(&run, "T1", "rfuse").unwrap().channels;
    assert_eq!(channels.len(), 2);
    // 2000 requests and 2000 operations in each of three repetitions.
    assert_eq!(channels[0].channel.requests, 4500);
    assert_eq!(channels[1].origins(), [1500 - 300 - 30, 300, 30]);
    assert_eq!(channels[1].per_operation(1500), Some(0.25));
    assert_eq!(channels[0].channel.service_ns, 90_000, "a median, no sum");
    assert_eq!(rings::unevenness(&channels), Some(1.5));
    assert!(Cell::of(&run, "T1", "fuse").unwrap().channels.is_empty());

    let html = page(&f);
    let text = section(&html, "rings").unwrap();
    assert_eq!(
        row(text, "T1 | rfuse | 1"),
        "| T1 | rfuse | 1 | 1,500 | 25.0 | 0.250 | 50.0 | 300 | 30 | 30 | 110 | 5 | 64 | 150 | 0 | 9 | 0"
    );
    assert!(
        text.contains(
            "12,000 requests, of which 600 (5.00 %) were redirected, 60 (0.500 %) were taken over"
        ),
        "{text}"
    );
    assert!(text.contains("had 1.50 times an even share"), "{text}");
    assert!(!text.contains("made no sense"), "{text}");
    assert!(text.contains("Emulated (TCG): ratios only."));
    // A panel for each test, a bar for each channel of both systems, and of the second
    // channels three parts.
    assert_eq!(text.matches("<svg class=\"chart\"").count(), 2);
    assert_eq!(text.matches("class=\"part p0 s").count(), 8);
    assert_eq!(text.matches("class=\"part p2 s").count(), 4);

    // Replies that make no sense are told first.
    let at = f.attempts.iter().position(|a| a.system == "rfuse").unwrap();
    counters(&mut f, at).channels[0].bad = 2;
    let html = page(&f);
    let text = section(&html, "rings").unwrap();
    assert!(
        text.contains("<strong>2 replies made no sense.</strong>"),
        "{text}"
    );
}

#[test]
fn what_was_stored_without_them_has_no_section_or_says_so() {
    let mut f = choosing::fixture();
    // One test of each as it was stored before.
    for at in 0..f.attempts.len() {
        if f.attempts[at].test == "T2" {
            match f.attempts[at].system.as_str() {
                "rfuse" => counters(&mut f, at).channels.clear(),
                "efuse" => counters(&mut f, at).adaptive = None,
                _ => {}
            }
        }
    }
    let html = page(&f);
    let rings = section(&html, "rings").unwrap();
    assert_eq!(
        row(rings, "T2 | rfuse"),
        "| T2 | rfuse | stored without the load of its channels"
    );
    let choice = section(&html, "choice").unwrap();
    assert_eq!(
        row(choice, "T2 | efuse | reads"),
        "| T2 | efuse | reads | nothing to choose for was seen"
    );
    // Without any of them.
    for at in 0..f.attempts.len() {
        let c = counters(&mut f, at);
        c.channels.clear();
        c.adaptive = None;
    }
    let html = page(&f);
    assert_eq!(section(&html, "rings"), None);
    assert_eq!(section(&html, "choice"), None);
    assert!(!html.contains("href=\"#rings\"") && !html.contains("href=\"#choice\""));
}

#[test]
fn a_system_without_requests_or_operations_gives_no_figure_and_no_error() {
    let mut f = choosing::fixture();
    for at in 0..f.attempts.len() {
        let metrics = common::counted::metrics(&mut f.attempts[at].outcome).unwrap();
        for op in [&mut metrics.read, &mut metrics.write]
            .into_iter()
            .flatten()
        {
            op.ios = 0;
        }
        for channel in &mut counters(&mut f, at).channels {
            *channel = Default::default();
        }
    }
    let html = page(&f);
    let text = section(&html, "rings").unwrap();
    assert!(text.contains("no request reached its daemon."), "{text}");
    assert!(
        !text.contains("<svg class=\"chart\"") && !text.contains("NaN"),
        "{text}"
    );
}
