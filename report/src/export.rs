//! `report --json`.

use efuse_model::attempt::Verified;
use serde_json::{Value, json};

use crate::count::Cell;
use crate::input::Run;
use crate::stats;
use crate::table::Table;

/// Version of this layout.
const SCHEMA: u32 = 1;

/// The aggregated table with what a reader needs to judge it.
pub fn json(run: &Run, table: &Table) -> Value {
    let plan = &run.plan;
    let coverage: Vec<Value> = plan
        .tests
        .iter()
        .flat_map(|t| plan.systems.iter().map(move |s| (t, s)))
        .map(|(t, s)| {
            let done: Vec<_> = run.of(&t.id, &s.id).collect();
            let sum = |f: fn(&Verified) -> u64| done.iter().map(|m| f(&m.verified)).sum::<u64>();
            json!({
                "test": t.id,
                "system": s.id,
                "planned": run.planned_of(&t.id, &s.id),
                "measured": done.len(),
                "probed": run.probed_of(&t.id, &s.id).count(),
                "skipped": s.skipped,
                "verified_read_bytes": sum(|v| v.read_bytes),
                "verified_write_bytes": sum(|v| v.write_bytes),
                "files_compared": sum(|v| u64::from(v.files_compared)),
                "bytes_compared": sum(|v| v.bytes_compared),
            })
        })
        .collect();
    let left_out: Vec<Value> = run
        .left_out
        .iter()
        .map(|l| {
            json!({
                "test": l.test,
                "system": l.system,
                "repetition": l.repetition,
                "probes": l.probes,
                "attempt": l.attempt,
                "step": l.step,
                "reason": l.reason,
                "made_good": l.made_good,
            })
        })
        .collect();
    // Cells without counters are told in `coverage`; here they would be nulls only.
    let counted: Vec<Cell> = Cell::all(run)
        .into_iter()
        .filter(|c| c.n + c.n_probed > 0)
        .collect();
    json!({
        "schema": SCHEMA,
        "run": plan.run,
        "workload": plan.workload,
        "created": plan.created,
        "place": plan.place,
        "accelerator": run.environment.as_ref().map(|e| e.accelerator),
        "emulated": run.emulated(),
        "kernel": run.environment.as_ref().map(|e| e.kernel.as_str()),
        "device": plan.device,
        "scale": plan.scale,
        "repetitions": plan.repetitions,
        "statistics": {
            "centre": "median",
            "ratio": "median of ratios paired by repetition",
            "interval": "percentile bootstrap of the median",
            "confidence": stats::CONFIDENCE,
            "resamples": stats::RESAMPLES,
            "seed": plan.seed,
        },
        "base": table.base,
        "rows": table.rows,
        "counters": counted,
        "coverage": coverage,
        "left_out": left_out,
        "damaged": run.damaged,
    })
}
