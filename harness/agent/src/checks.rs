//! Integration checks.
use crate::agent::Agent;
use std::time::Duration;
/// r
#[derive(Debug, Default)]
pub struct CheckResult {
    /// f
    pub failure: Option<String>,
    /// d
    pub detail: String,
    /// s
    pub skipped: Option<String>,
}
/// run
pub fn run(_agent: &Agent, _name: &str, _system: &str, _timeout: Duration) -> CheckResult {
    CheckResult::default()
}
