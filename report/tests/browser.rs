//! The page in a real browser: no errors, no requests, whole charts, no overflow, both
//! themes.
//!
//! Needs Chromium. Without it the test says so and passes, except with `EFUSE_CI=1`.
//! With `EFUSE_REPORT_KEEP=FOLDER` the page and screenshots are left there to be looked at.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use efuse_model::store::RunDir;
use serde_json::Value;

/// Runs in the page before anything else of it.
const WATCH: &str = r#"<script>
window.__problems = [];
addEventListener("error", e => __problems.push("error: " + e.message));
addEventListener("unhandledrejection", e => __problems.push("rejection: " + e.reason));
document.addEventListener("securitypolicyviolation", e => __problems.push("blocked: " + e.violatedDirective + " " + e.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...a) => __problems.push(kind + ": " + a.join(" "));
</script>"#;

/// Measures the page and sends the findings to the page around it.
const PROBE: &str = r#"<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  const background = () => getComputedStyle(document.body).backgroundColor;
  const inside = (svg, text) => {
    const a = svg.getBoundingClientRect(), b = text.getBoundingClientRect();
    return b.left >= a.left - 1 && b.right <= a.right + 1 && b.top >= a.top - 1 && b.bottom <= a.bottom + 1;
  };
  const overlaps = svg => {
    const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent.trim(), t.getBoundingClientRect()]);
    const out = [];
    boxes.forEach(([s, a], i) => boxes.slice(i + 1).forEach(([t, b]) => {
      const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (w > 1 && h > 2) out.push(s + " | " + t);
    }));
    return out;
  };
  const charts = [...document.querySelectorAll("svg.chart")].map(svg => {
    const r = svg.getBoundingClientRect();
    return {
      label: svg.getAttribute("aria-label"),
      role: svg.getAttribute("role"),
      lines: +svg.dataset.lines, points: +svg.dataset.points,
      drawn_lines: svg.querySelectorAll(".t-name, .curve").length,
      drawn_points: svg.querySelectorAll(".pt").length,
      marks: svg.querySelectorAll(".pt, .mark, .hollow, .bar, .part, .curve").length,
      dashes: [...svg.querySelectorAll(".curve")].map(c => getComputedStyle(c).strokeDasharray),
      bands: svg.querySelectorAll(".band").length,
      unfilled: [...svg.querySelectorAll(".part.p0, .band")].filter(p => getComputedStyle(p).fill === "none").length,
      width: r.width, height: r.height,
      clipped: [...svg.querySelectorAll("text")].filter(t => !inside(svg, t)).map(t => t.textContent.trim()),
      overlaps: overlaps(svg),
      unthemed: [...svg.querySelectorAll("[fill^='#'], [stroke^='#']")].length,
    };
  });
  const wide = [...document.querySelectorAll("body *")].filter(e => {
    if (e.closest(".scroll, svg, .skip") && !e.matches(".scroll")) return false;
    return e.getBoundingClientRect().right > root.clientWidth + 1;
  }).map(e => e.tagName + "." + e.className);
  const first = background();
  const button = document.getElementById("theme");
  const words = button.textContent;
  button.click();
  const second = background();
  button.click();
  parent.postMessage(JSON.stringify({
    problems: __problems, charts, wide,
    requests: performance.getEntriesByType("resource").map(e => e.name),
    client: root.clientWidth, scroll: root.scrollWidth,
    first, second, third: background(), words,
    prefers_dark: matchMedia("(prefers-color-scheme: dark)").matches,
    unnamed: [...document.querySelectorAll("section")].filter(s => !s.getAttribute("aria-labelledby")).length,
    ids: [...document.querySelectorAll("[id]")].map(e => e.id),
    targets: [...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href")),
    figures_without_table: [...document.querySelectorAll("figure[id]")].filter(f => !f.querySelector("table")).length,
    charts_without_caption: [...document.querySelectorAll("svg.chart")].filter(s => !s.closest("figure")?.querySelector("figcaption")).length,
    captions_without_environment: [...document.querySelectorAll("figcaption")].filter(c => !/kernel .*revision/.test(c.textContent)).length,
    captions_without_command: [...document.querySelectorAll("figcaption")].filter(c => !/^fio /.test(c.querySelector("pre")?.textContent ?? "")).length,
    captions_without_n: [...document.querySelectorAll("figcaption")].filter(c => !/n\s=\s\d+ repetition/.test(c.textContent)).length,
    captions_without_mark: [...document.querySelectorAll("figcaption")].filter(c => !c.textContent.includes("Emulated")).length,
  }), "*");
}, 50));
</script>"#;

struct Browser {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Browser {
    /// `None`, with the reason printed, where there is none.
    fn find() -> Option<Self> {
        let program = [
            "/usr/bin/chromium",
            "/usr/bin/chromium-browser",
            "/usr/bin/google-chrome",
        ]
        .into_iter()
        .map(PathBuf::from)
        .find(|p| p.exists());
        let Some(program) = program else {
            assert!(
                std::env::var_os("EFUSE_CI").is_none_or(|v| v != "1"),
                "Chromium is missing and EFUSE_CI=1: apt-get install chromium"
            );
            eprintln!("skipped: no Chromium in /usr/bin (apt-get install chromium)");
            return None;
        };
        Some(Self {
            program,
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn run(&self, more: &[String], page: &Path) -> String {
        let profile = tempfile::tempdir_in(self.dir.path()).unwrap();
        let output = Command::new(&self.program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--virtual-time-budget=20000",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(more)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "chromium ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A page that holds `page` in a frame of this width. (A window of 390 pixels is
    /// narrower than Chromium's own minimum, a frame is not.)
    fn framed(&self, page: &Path, width: u32, height: u32) -> PathBuf {
        let path = self.dir.path().join(format!("frame-{width}-{height}.html"));
        let html = format!(
            r#"<!doctype html><body style="margin:0"><pre id="probe" hidden></pre><script>
addEventListener("message", e => document.getElementById("probe").textContent = btoa(unescape(encodeURIComponent(e.data))));
</script><iframe style="border:0" width="{width}" height="{height}" src="file://{}"></iframe>"#,
            page.display()
        );
        fs::write(&path, html).unwrap();
        path
    }

    fn measure(&self, page: &Path, width: u32, dark: bool) -> Value {
        let frame = self.framed(page, width, 900);
        let dom = self.run(
            &[
                scheme(dark),
                "--window-size=1400,1000".into(),
                "--dump-dom".into(),
            ],
            &frame,
        );
        let sent = dom
            .split_once(r#"id="probe" hidden="">"#)
            .and_then(|(_, rest)| rest.split_once("</pre>"))
            .map(|(text, _)| text.to_owned())
            .unwrap_or_else(|| panic!("no probe in {dom}"));
        assert!(!sent.is_empty(), "the page did not report back");
        serde_json::from_slice(&base64(&sent)).unwrap()
    }

    /// A copy of the page that tells what it looks like and what went wrong in it.
    fn probed(&self, html: &str) -> PathBuf {
        let page = self.dir.path().join("probed.html");
        let with_probe = html
            .replacen("<head>", &format!("<head>{WATCH}"), 1)
            .replacen("</body>", &format!("{PROBE}</body>"), 1);
        assert!(with_probe.contains("__problems = []") && with_probe.contains("postMessage"));
        fs::write(&page, with_probe).unwrap();
        page
    }

    fn screenshot(&self, page: &Path, to: &Path, (width, height): (u32, u32), dark: bool) {
        let frame = self.framed(page, width, height);
        self.run(
            &[
                scheme(dark),
                format!("--window-size={},{height}", width.max(500)),
                format!("--screenshot={}", to.display()),
            ],
            &frame,
        );
        assert!(
            fs::metadata(to).unwrap().len() > 10_000,
            "an empty screenshot"
        );
    }
}

fn scheme(dark: bool) -> String {
    format!(
        "--blink-settings=preferredColorScheme={}",
        if dark { 0 } else { 1 }
    )
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for c in text
        .bytes()
        .filter(|c| *c != b'=' && !c.is_ascii_whitespace())
    {
        held = (held << 6) | u32::from(value(c));
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    out
}

fn texts(v: &Value) -> Vec<&str> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect()
}

/// What holds at every width and in both themes, of a page with `emulated` figures or not.
fn check(found: &Value, emulated: bool, what: &str) {
    assert_eq!(
        texts(&found["problems"]),
        Vec::<&str>::new(),
        "{what}: console"
    );
    assert_eq!(
        texts(&found["requests"]),
        Vec::<&str>::new(),
        "{what}: requests"
    );
    assert_eq!(
        texts(&found["wide"]),
        Vec::<&str>::new(),
        "{what}: wider than the page"
    );
    assert_eq!(
        found["client"], found["scroll"],
        "{what}: the page scrolls sideways"
    );
    assert_eq!(found["unnamed"], 0, "{what}: sections without a name");
    assert_eq!(found["figures_without_table"], 0, "{what}");
    for every in [
        "charts_without_caption",
        "captions_without_environment",
        "captions_without_command",
        "captions_without_n",
    ] {
        assert_eq!(found[every], 0, "{what}: {every}");
    }
    if emulated {
        assert_eq!(found["captions_without_mark"], 0, "{what}");
    }
    let ids = texts(&found["ids"]);
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{what}: an id occurs twice");
    for target in texts(&found["targets"]) {
        let id = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{what}: link to {target}"));
        assert!(
            ids.contains(&id),
            "{what}: a link to {target} that is not there"
        );
    }
    for chart in found["charts"].as_array().unwrap() {
        let label = chart["label"].as_str().unwrap();
        assert_eq!(chart["role"], "img", "{label}");
        assert_eq!(
            label.contains("Emulated"),
            emulated,
            "{what}: mark in {label}"
        );
        assert_eq!(chart["drawn_lines"], chart["lines"], "{what}: {label}");
        assert_eq!(chart["drawn_points"], chart["points"], "{what}: {label}");
        assert!(
            chart["marks"].as_u64().unwrap() > 0,
            "{what}: empty: {label}"
        );
        assert!(chart["width"].as_f64().unwrap() > 300.0, "{what}: {label}");
        assert!(chart["height"].as_f64().unwrap() > 60.0, "{what}: {label}");
        assert_eq!(
            texts(&chart["clipped"]),
            Vec::<&str>::new(),
            "{what}: clipped in {label}"
        );
        assert_eq!(
            texts(&chart["overlaps"]),
            Vec::<&str>::new(),
            "{what}: overlaps in {label}"
        );
        assert_eq!(
            chart["unfilled"], 0,
            "{what}: a part without a colour in {label}"
        );
        assert_eq!(chart["unthemed"], 0, "{what}: fixed colours in {label}");
    }
}

/// The page of a run that was measured, not of a fixture: `EFUSE_REPORT_RUN` names its folder.
#[test]
fn the_page_of_a_measured_run_works_in_a_browser() {
    let Some(folder) = std::env::var_os("EFUSE_REPORT_RUN").map(PathBuf::from) else {
        eprintln!("skipped: EFUSE_REPORT_RUN names no run (`just smoke` measures one and sets it)");
        return;
    };
    let Some(browser) = Browser::find() else {
        return;
    };
    let run = RunDir::open(&folder).unwrap();
    let emulated = run.environment().unwrap().unwrap().accelerator.emulated();
    let measured = run.attempts().unwrap().list.len();
    assert!(measured > 0, "{}: nothing was measured", folder.display());
    // The page that the user gets, as `eval` had it rendered.
    let html = fs::read_to_string(folder.join("report.html")).unwrap();
    let probed = browser.probed(&html);
    for (width, dark) in [(1280, false), (1280, true), (390, false)] {
        let what = format!("{width} px, {}", if dark { "dark" } else { "light" });
        let found = browser.measure(&probed, width, dark);
        check(&found, emulated, &what);
        assert!(!found["charts"].as_array().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let runs = tempfile::tempdir().unwrap();
    let run = common::everything(runs.path());
    let html = efuse_report::html(&run, None).unwrap();
    let plain = browser.dir.path().join("report.html");
    fs::write(&plain, &html).unwrap();
    let probed = browser.probed(&html);

    for (width, dark) in [
        (1280, false),
        (1280, true),
        (390, false),
        (390, true),
        (768, false),
    ] {
        let what = format!("{width} px, {}", if dark { "dark" } else { "light" });
        let found = browser.measure(&probed, width, dark);
        assert_eq!(
            found["prefers_dark"], dark,
            "{what}: the browser's own setting"
        );
        check(&found, true, &what);
        let (light_page, dark_page) = ("rgb(255, 255, 255)", "rgb(20, 23, 28)");
        let (this, other) = if dark {
            (dark_page, light_page)
        } else {
            (light_page, dark_page)
        };
        assert_eq!(found["first"], this, "{what}");
        assert_eq!(found["second"], other, "{what}: after the button");
        assert_eq!(found["third"], this, "{what}: after the button twice");
        // Two in the summary; two for each figure of T1 and T2, one for M1's five; two
        // for each of the two published tests. Then the distributions, switches and CPU
        // of each test; system calls, requests with four distributions, and two of the
        // probes' cost where there are probes; published switches.
        let charts = found["charts"].as_array().unwrap();
        let rates = 2 + 5 * 2 + 5 * 2 + 5 + 4;
        let counters = (2 + 2 + 1) + 2 * 3 + 2 * (1 + 1 + 4 + 2) + 2;
        assert_eq!(charts.len(), rates + counters, "{what}");
        let chart = |start: &str| {
            charts
                .iter()
                .find(|c| c["label"].as_str().unwrap().starts_with(start))
                .unwrap_or_else(|| panic!("{what}: no chart {start}"))
        };
        // The skipped system has no curve; its row is in the table.
        let cdf = chart("T1, read completion latency, cumulative");
        assert_eq!(cdf["lines"], 6, "{what}");
        let dashes = texts(&cdf["dashes"]);
        assert!(
            dashes.iter().any(|d| *d != dashes[0]),
            "{what}: only colour tells the curves apart"
        );
        assert_eq!(
            chart("read IOPS related to fuse")["bands"],
            3,
            "{what}: a floor for each test"
        );
        assert_eq!(chart("T1, read IOPS with probes")["bands"], 1, "{what}");
        // T1's read IOPS: seven systems with three repetitions each.
        let t1 = charts
            .iter()
            .find(|c| c["label"].as_str().unwrap().starts_with("T1, read IOPS in"))
            .unwrap();
        assert_eq!(t1["points"], 21, "{what}");
        assert_eq!(t1["lines"], 8, "{what}: the skipped system keeps its row");
    }

    if let Some(keep) = std::env::var_os("EFUSE_REPORT_KEEP").map(PathBuf::from) {
        fs::create_dir_all(&keep).unwrap();
        fs::copy(&plain, keep.join("report.html")).unwrap();
        for (name, size, dark) in [
            ("light.png", (1280, 9000), false),
            ("dark.png", (1280, 9000), true),
            ("narrow.png", (390, 16000), false),
        ] {
            browser.screenshot(&plain, &keep.join(name), size, dark);
        }
    }
}

/// The sections of the adaptive choice and of ring channels.
#[test]
fn choice_and_rings_work_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let runs = tempfile::tempdir().unwrap();
    let run = common::choosing::fixture().write(runs.path());
    let html = efuse_report::html(&run, None).unwrap();
    let probed = browser.probed(&html);
    for (width, dark) in [(1280, false), (390, true)] {
        let what = format!("choice and rings, {width} px");
        let found = browser.measure(&probed, width, dark);
        check(&found, true, &what);
        let of = |part: &str| {
            let charts = found["charts"].as_array().unwrap().iter();
            let of = charts.filter(|c| c["label"].as_str().unwrap().contains(part));
            of.map(|c| c["lines"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        // T1 and T2: of two systems reads and writes, or reads; two channels each.
        assert_eq!(of("by the path that they took"), [4, 2], "{what}");
        assert_eq!(of("requests by ring channel"), [4, 4], "{what}");
        // Reads of both tests, writes of one.
        assert_eq!(of("over the better fixed path"), [2, 1], "{what}");
    }
}

/// Pages of several runs: a comparison, and a history of two environments.
#[test]
fn pages_of_several_runs_work_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let history = |keep: fn(usize) -> bool| {
        let mut document = common::several::history();
        let mut n = 0..;
        document.environments.retain(|_| n.next().is_some_and(keep));
        let text = serde_json::to_string(&document).unwrap();
        efuse_report::history(&text).unwrap().0
    };
    let compare = common::several::comparison().to_string();
    let pages = [
        // Comparisons of four figures of T1 and of one of T2.
        (
            "compare",
            efuse_report::comparison(&compare).unwrap().0,
            true,
            5,
        ),
        ("history-emulated", history(|n| n == 0), true, 3),
        ("history-kvm", history(|n| n == 1), false, 1),
        ("history", history(|_| true), true, 4),
    ];
    for (name, html, emulated, count) in pages {
        let probed = browser.probed(&html);
        for (width, dark) in [(1280, false), (390, true)] {
            let what = format!("{name}, {width} px");
            let found = browser.measure(&probed, width, dark);
            let charts = found["charts"].as_array().unwrap();
            assert_eq!(charts.len(), count, "{what}");
            let bands = |c: &Value| c["bands"].as_u64().unwrap();
            assert!(
                charts.iter().map(bands).sum::<u64>() > 0,
                "{what}: no floor"
            );
            if name == "history" {
                // Marked where emulated and only there: the last chart is of another environment.
                let marked = |c: &Value| c["label"].as_str().unwrap().contains("Emulated");
                assert!(
                    charts[..3].iter().all(marked) && !marked(&charts[3]),
                    "{what}"
                );
            } else {
                check(&found, emulated, &what);
            }
        }
        if let Some(keep) = std::env::var_os("EFUSE_REPORT_KEEP").map(PathBuf::from) {
            fs::create_dir_all(&keep).unwrap();
            let plain = keep.join(format!("{name}.html"));
            fs::write(&plain, &html).unwrap();
            browser.screenshot(
                &plain,
                &keep.join(format!("{name}.png")),
                (1280, 2600),
                false,
            );
        }
    }
}
