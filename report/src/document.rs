//! Comparisons and histories as `eval` computes them. Nothing is computed again here: the
//! judgement of a page is that of `eval gate`, `eval compare` and `eval history`.

use efuse_model::document::{History, Sides, VERSION};
use serde::Deserialize;

use crate::error::ReportError;
use crate::stats::Interval;

/// A comparison, as `eval compare --json` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Comparison {
    version: u32,
    /// What was compared.
    pub title: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Probability of a false alarm accepted for all comparisons together.
    pub alpha: f64,
    /// Smallest change that matters, as a share.
    pub threshold: f64,
    /// One for each figure of each cell.
    pub judged: Vec<Judged>,
    /// What could not be judged.
    pub problems: Vec<String>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// Both sides; none if one was not found.
    pub sides: Option<Sides>,
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was judged, nothing is worse.
    Pass,
    /// Something is worse.
    Regression,
    /// Not everything could be judged.
    CouldNotJudge,
}

/// What one comparison says, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Worse, beyond chance and by more than the limit.
    Regression,
    /// Too few repetitions, or no figure.
    Insufficient,
    /// Neither a change nor its absence can be said.
    Inconclusive,
    /// Certainly within the limit.
    Same,
    /// Better, beyond chance and by more than the limit.
    Improved,
}

impl Call {
    /// Every call, the worst first.
    pub const ALL: [Self; 5] = [
        Self::Regression,
        Self::Insufficient,
        Self::Inconclusive,
        Self::Same,
        Self::Improved,
    ];

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Insufficient => "insufficient",
            Self::Inconclusive => "inconclusive",
            Self::Same => "same",
            Self::Improved => "improved",
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    /// The test.
    pub test: String,
    /// The system.
    pub system: String,
    /// The figure.
    pub metric: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// What it says.
    pub call: Call,
    /// Median of the new side and of the old.
    #[serde(default)]
    pub medians: Option<(f64, f64)>,
    /// New over old.
    pub ratio: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// Repetitions, new and old.
    pub n: (usize, usize),
    /// p-value after Holm's correction.
    pub p_holm: Option<f64>,
    /// Cliff's delta.
    pub delta: Option<f64>,
    /// That in a word.
    pub magnitude: Option<String>,
    /// A/A floor as a share.
    pub floor: Option<f64>,
    /// The larger of threshold and floor.
    pub limit: f64,
    /// Why it could not be judged.
    pub reason: Option<String>,
}

/// Reads a comparison.
///
/// # Errors
/// If it is none, of another version, one side was not found, or both are the same: with the
/// reason that `eval` gave.
pub fn comparison(text: &str) -> Result<(Comparison, Sides), ReportError> {
    let mut document: Comparison = parse(text, "compare")?;
    versioned(document.version, "compare")?;
    match document.sides.take() {
        Some(sides) if !sides.same => Ok((document, sides)),
        _ => Err(ReportError::Document(if document.problems.is_empty() {
            "eval compared nothing".to_owned()
        } else {
            document.problems.join("; ")
        })),
    }
}

/// Reads a history.
///
/// # Errors
/// If it is none, or of another version.
pub fn history(text: &str) -> Result<History, ReportError> {
    let document: History = parse(text, "history")?;
    versioned(document.version, "history")?;
    Ok(document)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, verb: &str) -> Result<T, ReportError> {
    serde_json::from_str(text).map_err(|e| {
        ReportError::Document(format!("this is not what `eval --json {verb}` prints: {e}"))
    })
}

fn versioned(version: u32, verb: &str) -> Result<(), ReportError> {
    if version == VERSION {
        return Ok(());
    }
    Err(ReportError::Document(format!(
        "`eval --json {verb}` printed version {version}, this program draws version {VERSION}; \
         use programs of one build"
    )))
}
