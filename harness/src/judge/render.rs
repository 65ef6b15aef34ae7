//! A verdict as text and Markdown; its page is drawn by `report`.

use std::fmt::Write as _;

use efuse_stats::Interval;
use serde::Serialize;

use super::{Call, Judged, Outcome};
use crate::table::Table;

/// Everything that `verdict.json` holds.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What was judged, as in `run a against baseline b`.
    pub title: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Probability of a false alarm accepted for all comparisons together.
    pub alpha: f64,
    /// Smallest change that matters, as a share.
    pub threshold: f64,
    /// The comparisons.
    pub judged: Vec<Judged>,
    /// What could not be judged at all, or stands in the way of a whole judgement.
    pub problems: Vec<String>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

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
        j.metric.to_owned(),
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

impl Verdict {
    /// How many comparisons have each call, the worst first.
    #[must_use]
    pub fn counts(&self) -> String {
        let count = |call| self.judged.iter().filter(|j| j.call == call).count();
        let parts: Vec<_> = Call::ALL
            .into_iter()
            .map(|call| (call, count(call)))
            .filter(|(_, n)| *n > 0)
            .map(|(call, n)| format!("{n} {}", call.word()))
            .collect();
        if parts.is_empty() {
            "nothing compared".to_owned()
        } else {
            parts.join(", ")
        }
    }

    /// For the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.title);
        if !self.judged.is_empty() {
            let mut table = Table::new(&HEAD);
            for judged in &self.judged {
                table.row(cells(judged));
            }
            out.push_str(&table.render());
        }
        for line in self.insufficient() {
            let _ = writeln!(out, "insufficient  {line}");
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem  {problem}");
        }
        for note in &self.notes {
            let _ = writeln!(out, "note  {note}");
        }
        let _ = writeln!(out, "\n{}: {}", self.outcome.words(), self.counts());
        out
    }

    /// Why comparisons are insufficient, one line each.
    #[must_use]
    pub fn insufficient(&self) -> Vec<String> {
        self.judged
            .iter()
            .filter_map(|j| {
                let reason = j.reason.as_ref()?;
                Some(format!("{} {} {}: {reason}", j.test, j.system, j.metric))
            })
            .collect()
    }

    /// For a pull request or a job's summary.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "## {}\n\n**{}**: {}\n\n",
            escape_markdown(&self.title),
            self.outcome.words(),
            self.counts()
        );
        if !self.judged.is_empty() {
            let head = HEAD.map(|h| h.trim_start_matches('>'));
            let _ = writeln!(
                out,
                "| {} |\n|{}",
                head.join(" | "),
                "---|".repeat(HEAD.len())
            );
            for judged in &self.judged {
                let cells = cells(judged).map(|c| escape_markdown(&c));
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
            out.push('\n');
        }
        for line in self
            .insufficient()
            .iter()
            .chain(&self.problems)
            .chain(&self.notes)
        {
            let _ = writeln!(out, "- {}", escape_markdown(line));
        }
        let _ = writeln!(
            out,
            "\nThreshold {:.1} %, false alarms of all comparisons together at most {:.0} %; the rules are in docs/method.md.",
            self.threshold * 100.0,
            self.alpha * 100.0
        );
        out
    }
}

fn escape_markdown(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('\n', " ")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
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
        assert!(verdict.markdown().contains("## run &lt;a> \\| b"));
        assert!(verdict.text().contains("could not judge: nothing compared"));
    }
}
