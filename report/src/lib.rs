//! Turns a run's folder into one self-contained HTML report.
//!
//! [`Run::load`](input::Run::load) sorts out what counts, [`Table::new`](table::Table::new)
//! aggregates it, [`page::render`] draws it. [`html`] and [`json`] do all of it for a run
//! that was opened.

use efuse_model::store::RunDir;

pub mod choice;
pub mod count;
pub mod document;
pub mod error;
pub mod format;
pub mod input;
pub mod metric;
pub mod page;
pub mod palette;
pub mod paper;
pub mod rings;
pub mod scaling;
pub mod served;
pub mod table;

pub use efuse_stats as stats;

mod chart;
mod export;

use error::ReportError;

/// The report of a run as one HTML document.
///
/// `base` is the system that ratios are related to; `None` takes `fuse` where the run has it.
///
/// # Errors
/// If the run cannot be read, or `base` is not one of its systems.
pub fn html(run: &RunDir, base: Option<&str>) -> Result<String, ReportError> {
    let run = input::Run::load(run)?;
    let table = table::Table::new(&run, base)?;
    page::render(&run, &table)
}

/// The aggregated table of a run as JSON.
///
/// # Errors
/// As for [`html`].
pub fn json(run: &RunDir, base: Option<&str>) -> Result<serde_json::Value, ReportError> {
    let run = input::Run::load(run)?;
    let table = table::Table::new(&run, base)?;
    Ok(export::json(&run, &table))
}

/// The page of a comparison, from what `eval --json compare` prints, and where `eval` would
/// put it.
///
/// # Errors
/// If there is nothing to show: the text is no comparison, a side was not found, or both
/// are the same.
pub fn comparison(text: &str) -> Result<(String, std::path::PathBuf), ReportError> {
    let (document, sides) = document::comparison(text)?;
    Ok((page::compare::render(&document, &sides)?, sides.page))
}

/// The page of a history, from what `eval --json history` prints, and where `eval` would put
/// it.
///
/// # Errors
/// If the text is no history.
pub fn history(text: &str) -> Result<(String, std::path::PathBuf), ReportError> {
    let document = document::history(text)?;
    Ok((page::history::render(&document)?, document.page))
}
