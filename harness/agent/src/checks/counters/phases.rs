//! Phases with a ramp.

use std::path::Path;

use efuse_model::counters::Probes;
use efuse_model::test::FioJob;

use crate::fio::barrier::RAMP_MISSED;

use super::{Site, Trouble, data_requests, fail, measured, test, test_of};

/// fio's own count of what came after the ramp, and ours, may differ by this part: the ramp
/// ends for each job by its own clock. With the ramp they would be a factor of two apart.
/// Less is counted where a slow machine began late, and then that is said.
const RAMP_PART: f64 = 0.4;

/// What happens in the ramp is not counted.
pub(super) fn ramp(site: &Site<'_>, fio: &Path) -> Result<String, Trouble> {
    let (_, job) = test();
    let job = FioJob {
        io_bytes: None,
        runtime_ms: Some(1500),
        ramp_ms: 1500,
        ..job
    };
    let (metrics, counters) = measured(site, fio, &test_of(&job), &job, Probes::On)?;
    let (ios, data) = data_requests(&metrics, &counters);
    let switches = counters.fio_switches.perf.unwrap_or(0);
    let text = format!(
        "after a ramp fio completed {ios} requests and {data} were counted, it switched {} times and {switches} were counted",
        metrics.fio_ctx
    );
    let late = counters.missing.iter().find(|m| m.contains(RAMP_MISSED));
    #[expect(clippy::cast_precision_loss, reason = "requests of seconds")]
    let part = |own: u64, ours: u64| ours as f64 / own as f64;
    for part in [part(ios, data), part(metrics.fio_ctx, switches)] {
        if part > 1.0 + RAMP_PART || (part < 1.0 - RAMP_PART && late.is_none()) {
            return fail(text);
        }
    }
    Ok(late.map_or_else(|| text.clone(), |late| format!("{text} ({late})")))
}
