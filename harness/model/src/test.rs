//! A test: one fio job, fully resolved, the same on every system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metadata::MetadataJob;

/// Access pattern of a job, in fio's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    RandRead,
    /// Random writes.
    RandWrite,
    /// Sequential mix, see [`FioJob::read_percent`].
    Rw,
    /// Random mix, see [`FioJob::read_percent`].
    RandRw,
}

impl Pattern {
    /// The value of fio's `rw=` option.
    #[must_use]
    pub const fn as_fio(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::Rw => "rw",
            Self::RandRw => "randrw",
        }
    }

    /// Whether the job reads at all.
    #[must_use]
    pub const fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::RandWrite)
    }

    /// Whether the job writes at all.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::RandRead)
    }
}

/// How much content verification surrounds the measured phase (rule 1).
///
/// Before it, blocks that were laid out with a crc32c header through the *lower* file
/// system are read and checked through the system under test (this also warms the
/// mount); after it, blocks are written through the system and read back with fio's
/// `verify=crc32c`; last, every file's checksum through the system is compared with
/// the lower directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Bytes read and checked before the measured phase, over all jobs.
    pub read_bytes: u64,
    /// Bytes written and read back after the measured phase, over all jobs.
    pub write_bytes: u64,
    /// Compare every file with the lower directory's at the end.
    pub compare: bool,
}

/// One fio job with absolute sizes and times.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FioJob {
    /// fio's `ioengine=`.
    pub engine: String,
    /// fio's `rw=`.
    pub pattern: Pattern,
    /// Share of reads in a mixed pattern, percent (fio's `rwmixread=`).
    pub read_percent: u8,
    /// Block size, bytes.
    pub block_bytes: u64,
    /// Queue depth of each job.
    pub iodepth: u32,
    /// Number of fio jobs (threads of one process), all on the same files.
    pub jobs: u32,
    /// `O_DIRECT`.
    pub direct: bool,
    /// Number of files.
    pub files: u32,
    /// Size of each file, bytes.
    pub file_bytes: u64,
    /// Stop after this many bytes in all jobs together, if set.
    pub io_bytes: Option<u64>,
    /// Stop after this many milliseconds, if set. With both, whichever comes first;
    /// with this alone the job is time based.
    pub runtime_ms: Option<u64>,
    /// Unmeasured lead-in, milliseconds (fio's `ramp_time=`).
    pub ramp_ms: u64,
    /// Further fio options, passed as they are on every arm.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What a test does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Job {
    /// Data, by fio.
    Fio(FioJob),
    /// Names and attributes, by `metaload`.
    Metadata(MetadataJob),
}

impl Job {
    /// The job, if it is fio's.
    #[must_use]
    pub const fn fio(&self) -> Option<&FioJob> {
        match self {
            Self::Fio(job) => Some(job),
            Self::Metadata(_) => None,
        }
    }

    /// The job, if it is one of metadata.
    #[must_use]
    pub const fn metadata(&self) -> Option<&MetadataJob> {
        match self {
            Self::Metadata(job) => Some(job),
            Self::Fio(_) => None,
        }
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Fio(job) => job.file_bytes.saturating_mul(job.files.into()),
            // At most a block of data a file, and its inode.
            Self::Metadata(job) => u64::from(job.dirs)
                .saturating_mul(u64::from(job.files) + 1)
                .saturating_mul(4096 + 256),
        }
    }
}

/// A named job with its verification.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Short name, unique in the workload: `T1`.
    pub id: String,
    /// One line for charts and tables.
    pub title: String,
    /// The job.
    pub job: Job,
    /// The checks around it.
    pub verify: Verify,
    /// Which published profile and test this one repeats (`("vm", 1)`), for the
    /// report's "published" column.
    #[serde(default)]
    pub published: Option<(String, u32)>,
}
