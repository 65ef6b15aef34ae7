//! The published values (`results/paper/reference.toml`, built in).

use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::ReportError;
use crate::metric::{Metric, Op};

/// The file as it is shipped.
const TEXT: &str = include_str!("../../results/paper/reference.toml");

/// One published figure set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// `vm` or `physical`.
    pub profile: String,
    /// Number of the test in that profile.
    pub test: u32,
    /// System, in our identifiers.
    pub system: String,
    /// `read` or `write`.
    op: String,
    iops: f64,
    bw_mib_s: f64,
    queue_us: f64,
    process_us: f64,
    /// fio's own context switches.
    pub fio_ctx: u64,
    /// fio engine.
    pub ioengine: String,
    /// Block size, bytes.
    pub block_bytes: u64,
    /// fio jobs.
    pub jobs: u32,
    /// Queue depth of each job.
    pub iodepth: u32,
    /// Length of the measured phase, milliseconds.
    pub run_ms: u64,
}

impl Published {
    /// A figure; `None` for those that were not published.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Iops => Some(self.iops),
            Metric::Throughput => Some(self.bw_mib_s),
            Metric::Slat => Some(self.queue_us),
            Metric::Clat => Some(self.process_us),
            _ => None,
        }
    }
}

/// The published values and what is known to be wrong with them.
#[derive(Clone, Debug)]
pub struct Reference {
    cells: Vec<Published>,
    /// The known limits, as the file's header states them.
    pub limits: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cell: Vec<Published>,
}

impl Reference {
    /// The values that are built in.
    ///
    /// # Errors
    /// If the file was edited into something unreadable.
    pub fn shipped() -> Result<&'static Self, ReportError> {
        static ONCE: OnceLock<Result<Reference, String>> = OnceLock::new();
        ONCE.get_or_init(|| Self::parse(TEXT))
            .as_ref()
            .map_err(|e| ReportError::Reference(e.clone()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        if let Some(odd) = file.cell.iter().find(|c| c.op != "read" && c.op != "write") {
            return Err(format!("op {:?} is neither read nor write", odd.op));
        }
        let limits = limits(text);
        if limits.is_empty() {
            return Err("its header no longer lists the known limits (lines `#  - ...`)".into());
        }
        Ok(Self {
            cells: file.cell,
            limits,
        })
    }

    /// What was published for a test, direction and system.
    #[must_use]
    pub fn get(&self, published: &(String, u32), system: &str, op: Op) -> Option<&Published> {
        self.cells.iter().find(|c| {
            c.profile == published.0
                && c.test == published.1
                && c.system == system
                && c.op == op.name()
        })
    }

    /// The systems published for a test, in the order of the file.
    #[must_use]
    pub fn systems(&self, published: &(String, u32)) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::new();
        for c in &self.cells {
            let ours = c.profile == published.0 && c.test == published.1;
            if ours && !out.contains(&c.system.as_str()) {
                out.push(&c.system);
            }
        }
        out
    }
}

/// The bullets of the comment header, continuation lines joined.
fn limits(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in text.lines().take_while(|l| l.starts_with('#')) {
        if let Some(start) = line.strip_prefix("#  - ") {
            out.push(start.trim().to_owned());
        } else if let (Some(more), Some(last)) = (line.strip_prefix("#    "), out.last_mut()) {
            last.push(' ');
            last.push_str(more.trim());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_whole() {
        let r = Reference::shipped().unwrap();
        let vm1 = ("vm".to_owned(), 1);
        assert_eq!(
            r.systems(&vm1),
            ["fuse", "extfuse", "efuse-prelim", "efuse", "ext4"]
        );
        let fuse = r.get(&vm1, "fuse", Op::Read).unwrap();
        assert_eq!(fuse.value(Metric::Iops), Some(6711.0));
        assert_eq!(fuse.value(Metric::ClatP99), None);
        assert_eq!(r.limits.len(), 4);
        assert!(
            r.limits[3].ends_with("returned the file's data"),
            "{:?}",
            r.limits[3]
        );
        assert!(r.get(&("vm".into(), 9), "fuse", Op::Read).is_none());
    }

    #[test]
    fn a_header_without_limits_is_refused() {
        let body: String = TEXT
            .lines()
            .filter(|l| !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            Reference::parse(&body)
                .unwrap_err()
                .contains("known limits")
        );
    }
}
