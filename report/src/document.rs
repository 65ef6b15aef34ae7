//! Comparisons and histories as `eval` computes them. Nothing is computed again here: the
//! judgement of a page is that of `eval gate`, `eval compare` and `eval history`.

use efuse_model::document::{Comparison, History, Sides, VERSION, Verdict};
use serde::Deserialize;

use crate::error::ReportError;

/// Reads a comparison.
///
/// # Errors
/// If it is none, of another version, one side was not found, or both are the same: with the
/// reason that `eval` gave.
pub fn comparison(text: &str) -> Result<(Verdict, Sides), ReportError> {
    let document: Comparison = parse(text, "compare")?;
    versioned(document.version, "compare")?;
    let problems = &document.verdict.problems;
    match document.sides {
        Some(sides) if !sides.same => Ok((document.verdict, sides)),
        _ => Err(ReportError::Document(if problems.is_empty() {
            "eval compared nothing".to_owned()
        } else {
            problems.join("; ")
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
