//! A verdict as text and Markdown; its page is drawn by `report`.

use std::fmt::Write as _;

use efuse_model::document::{Judged, Verdict};
use efuse_stats::Interval;

use crate::table::Table;

const HEAD: [&str; 9] = [
    "test",
    "system",
    "figure",
    "verdict",
    ">ratio",
    "95 % interval",
    ">n",
    ">p (Holm)",
    ">limit",
];

fn cells(j: &Judged) -> [String; 9] {
    let dash = || "-".to_owned();
    [
        j.test.clone(),
        j.system.clone(),
        j.metric.clone(),
        j.call.word().to_owned(),
        j.ratio.map_or_else(dash, |r| format!("{r:.3}")),
        j.interval.map_or_else(dash, |Interval { low, high }| {
            format!("[{low:.3}, {high:.3}]")
        }),
        match j.n {
            (a, b) if a == b => a.to_string(),
            (a, b) => format!("{a}/{b}"),
        },
        j.p_holm.map_or_else(dash, |p| format!("{p:.3}")),
        format!(
            "{:.1} %{}",
            j.limit * 100.0,
            if j.floor.is_some_and(|f| f >= j.limit) {
                " (A/A)"
            } else {
                ""
            }
        ),
    ]
}

/// For the terminal.
#[must_use]
pub fn text(verdict: &Verdict) -> String {
    let mut out = format!("{}\n\n", verdict.title);
    if !verdict.judged.is_empty() {
        let mut table = Table::new(&HEAD);
        for judged in &verdict.judged {
            table.row(cells(judged));
        }
        out.push_str(&table.render());
    }
    for line in insufficient(verdict) {
        let _ = writeln!(out, "insufficient  {line}");
    }
    for problem in &verdict.problems {
        let _ = writeln!(out, "problem  {problem}");
    }
    for note in &verdict.notes {
        let _ = writeln!(out, "note  {note}");
    }
    let _ = writeln!(out, "\n{}: {}", verdict.outcome.words(), verdict.counts());
    out
}

/// Why comparisons are insufficient, one line each.
#[must_use]
pub fn insufficient(verdict: &Verdict) -> Vec<String> {
    verdict
        .judged
        .iter()
        .filter_map(|j| {
            let reason = j.reason.as_ref()?;
            Some(format!("{} {} {}: {reason}", j.test, j.system, j.metric))
        })
        .collect()
}

/// For a pull request or a job's summary.
#[must_use]
pub fn markdown(verdict: &Verdict) -> String {
    let mut out = format!(
        "## {}\n\n**{}**: {}\n\n",
        escape_markdown(&verdict.title),
        verdict.outcome.words(),
        verdict.counts()
    );
    if !verdict.judged.is_empty() {
        let head = HEAD.map(|h| h.trim_start_matches('>'));
        let _ = writeln!(
            out,
            "| {} |\n|{}",
            head.join(" | "),
            "---|".repeat(HEAD.len())
        );
        for judged in &verdict.judged {
            let cells = cells(judged).map(|c| escape_markdown(&c));
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push('\n');
    }
    for line in insufficient(verdict)
        .iter()
        .chain(&verdict.problems)
        .chain(&verdict.notes)
    {
        let _ = writeln!(out, "- {}", escape_markdown(line));
    }
    let _ = writeln!(
        out,
        "\nThreshold {:.1} %, false alarms of all comparisons together at most {:.0} %; the rules are in docs/method.md.",
        verdict.threshold * 100.0,
        verdict.alpha * 100.0
    );
    out
}

fn escape_markdown(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('\n', " ")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use efuse_model::document::Outcome;

    use super::*;

    #[test]
    fn nothing_in_a_name_becomes_markup() {
        let verdict = Verdict {
            title: "run <a> | b".into(),
            outcome: Outcome::CouldNotJudge,
            alpha: 0.05,
            threshold: 0.05,
            judged: vec![],
            problems: vec!["<script>".into()],
            notes: vec![],
        };
        assert!(markdown(&verdict).contains("## run &lt;a> \\| b"));
        assert!(text(&verdict).contains("could not judge: nothing compared"));
    }
}
