//! What can go wrong before there is a report.

use efuse_model::store::StoreError;
use thiserror::Error;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The run's folder cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The base of the ratios is not in the run.
    #[error(
        "system {base:?} is not in this run, so nothing can be related to it; it has: {}",
        have.join(", ")
    )]
    UnknownBase {
        /// What was asked for.
        base: String,
        /// The systems of the plan.
        have: Vec<String>,
    },
    /// The published values are damaged.
    #[error("results/paper/reference.toml: {0}")]
    Reference(String),
    /// The table could not be computed.
    #[error("cannot aggregate the figures: {0}")]
    Table(#[from] polars::error::PolarsError),
    /// What `eval` handed over cannot be read.
    #[error("{0}")]
    Document(String),
    /// A chart could not be drawn.
    #[error("cannot draw the chart {chart:?}: {problem}")]
    Chart {
        /// Its title.
        chart: String,
        /// What plotters said.
        problem: String,
    },
}
