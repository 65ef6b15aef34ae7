//! The fio command of each phase.
//!
//! What is the same for every system and why:
//! * `thread`: jobs are threads, so that killing fio kills all of it (fio's processes
//!   leave its process group), and a start costs less under emulation.
//! * `randrepeat` with a fixed `randseed`: every arm sees the same offsets.
//! * `norandommap` while measuring: several jobs share the files, so a map of one job
//!   says nothing, and resetting it reopens files in mid-measurement.
//! * `invalidate=0`: the agent drops the page cache of the whole kernel before the
//!   phase. fio's own invalidation goes through each arm's `posix_fadvise`, and a job
//!   that starts late would throw out what the others have just read.
//! * `allow_file_create=0`, `fallocate=none`: the files are those that were laid out;
//!   a file that the system under test does not show is an error.
//! * `clocksource=clock_gettime`: skips fio's test of the processor's clock, about half
//!   of its start.

use std::path::Path;

use efuse_model::test::{FioJob, Pattern, Test};

use super::regions;
use crate::error::{AgentError, Result};

/// Seeds differ by phase so that the verified writes are not the blocks just read.
const SEED_LAYOUT: u32 = 0x0ef0;
const SEED_READ: u32 = 0x0ef1;
const SEED_MEASURE: u32 = 0x0ef2;
const SEED_WRITE: u32 = 0x0ef3;

/// Largest span that one crc32c header covers.
const VERIFY_INTERVAL: u64 = 4096;
/// Smallest: fio's header has to fit.
const SMALLEST_BLOCK: u64 = 512;
const LAYOUT_BLOCK: u64 = 1 << 20;

/// fio's engine for mappings. Of a job with an `offset` it maps the file's beginning all the
/// same and counts addresses from the offset (3.33): blocks of slices of a file land on each
/// other, and are found to be wrong when they are verified. So it gets whole files.
const MMAP: &str = "mmap";

/// Options of [`FioJob::options`] that would change what the harness relies on.
const OWNED: &[&str] = &[
    "allow_file_create",
    "blocksize",
    "bs",
    "clocksource",
    "create_on_open",
    "create_only",
    "create_serialize",
    "direct",
    "directory",
    "do_verify",
    "exec_postrun",
    "exec_prerun",
    "fallocate",
    "filename",
    "filename_format",
    "filesize",
    "group_reporting",
    "invalidate",
    "io_size",
    "iodepth",
    "ioengine",
    "loops",
    "name",
    "nrfiles",
    "number_ios",
    "numjobs",
    "offset",
    "offset_increment",
    "output",
    "output-format",
    "overwrite",
    "percentile_list",
    "ramp_time",
    "randseed",
    "randrepeat",
    "readwrite",
    "runtime",
    "rw",
    "rwmixread",
    "rwmixwrite",
    "size",
    "thread",
    "time_based",
    "unlink",
    "verify",
    "verify_backlog",
    "verify_fatal",
    "verify_interval",
    "verify_only",
];

/// Name of the file with this number.
#[must_use]
pub fn file_name(number: u32) -> String {
    format!("f{number}")
}

/// One start of fio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    name: &'static str,
    args: Vec<String>,
}

impl Invocation {
    /// `layout`, `verify-read`, `measure` or `verify-write`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The arguments, without `--output`.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The command line as a shell takes it.
    #[must_use]
    pub fn display(&self) -> String {
        let mut out = "fio".to_owned();
        for arg in &self.args {
            let plain = arg
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_=./:,+%@".contains(&b));
            out.push(' ');
            if plain {
                out.push_str(arg);
            } else {
                out.push_str(&format!("'{}'", arg.replace('\'', r"'\''")));
            }
        }
        out
    }
}

struct Builder(Vec<String>);

impl Builder {
    fn set(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push(format!("--{key}={value}"));
        self
    }

    fn flag(&mut self, key: &str) -> &mut Self {
        self.0.push(format!("--{key}"));
        self
    }

    fn files(&mut self, dir: &Path, numbers: impl IntoIterator<Item = u32>) -> &mut Self {
        let names: Vec<_> = numbers.into_iter().map(file_name).collect();
        // In fio, a colon separates names.
        let dir = dir
            .to_string_lossy()
            .replace('\\', r"\\")
            .replace(':', r"\:");
        self.set("directory", dir).set("filename", names.join(":"))
    }
}

/// What every invocation starts with.
fn global(format: &str) -> Builder {
    let mut b = Builder(Vec::new());
    b.set("output-format", format)
        .set("clocksource", "clock_gettime")
        .flag("eta=never");
    b
}

/// Engine, block, depth and flags of the job itself.
fn io(b: &mut Builder, job: &FioJob, pattern: Pattern, seed: u32) {
    b.flag("thread")
        .flag("group_reporting")
        .set("ioengine", &job.engine)
        .set("rw", pattern.as_fio())
        .set("bs", job.block_bytes)
        .set("iodepth", job.iodepth)
        .set("direct", u8::from(job.direct))
        .set("randrepeat", 1)
        .set("randseed", seed)
        .set("fallocate", "none")
        .set("allow_file_create", 0)
        .set("create_serialize", 0)
        .set("invalidate", 0);
    let service = match pattern {
        Pattern::RandRead | Pattern::RandWrite | Pattern::RandRw => "random",
        Pattern::Read | Pattern::Write | Pattern::Rw => "sequential",
    };
    b.set("file_service_type", service);
}

fn verify(b: &mut Builder, interval: u64) {
    b.set("verify", "crc32c")
        .set("verify_interval", interval)
        .set("verify_fatal", 1)
        .set("verify_state_save", 0);
}

/// Bytes between two headers in the files of this job.
#[must_use]
pub fn interval(job: &FioJob) -> u64 {
    VERIFY_INTERVAL.min(job.block_bytes)
}

/// Bytes for each of `jobs` jobs, whole blocks, at least one.
fn share(bytes: u64, jobs: u64, block: u64) -> u64 {
    (bytes / jobs.max(1) / block).max(1) * block
}

/// Looks for what would make fio fail, or measure something else than was asked for.
///
/// # Errors
/// With the field that has to be changed.
pub fn check(test: &Test, job: &FioJob) -> Result<()> {
    let bad = |reason: String| {
        Err(AgentError::Job {
            test: test.id.clone(),
            reason,
        })
    };
    if job.jobs == 0 || job.iodepth == 0 || job.files == 0 {
        return bad("jobs, iodepth and files must be at least 1".into());
    }
    if job.block_bytes < SMALLEST_BLOCK
        || !job.block_bytes.is_multiple_of(interval(job))
        || !interval(job).is_power_of_two()
    {
        return bad(format!(
            "block_bytes is {}: it must be a power of two from {SMALLEST_BLOCK}, or a multiple of {VERIFY_INTERVAL}, for every block to be verifiable",
            job.block_bytes
        ));
    }
    if job.file_bytes < job.block_bytes || !job.file_bytes.is_multiple_of(interval(job)) {
        return bad(format!(
            "file_bytes is {}: it must be a multiple of {} and at least one block of {} bytes",
            job.file_bytes,
            interval(job),
            job.block_bytes
        ));
    }
    if job.read_percent > 100 {
        return bad(format!(
            "read_percent is {}, more than 100",
            job.read_percent
        ));
    }
    if job.io_bytes.is_none() && job.runtime_ms.is_none() {
        return bad("neither io_bytes nor runtime_ms is set: it would never end".into());
    }
    for key in job.options.keys() {
        if OWNED.contains(&key.as_str()) || key.starts_with('-') || key.contains('=') {
            return bad(format!(
                "options.{key} is set by the harness itself; use the job's own fields"
            ));
        }
    }
    Ok(())
}

/// Writes every file with crc32c headers into a folder.
#[must_use]
pub fn layout(job: &FioJob, folder: &Path, direct: bool) -> Invocation {
    let mut b = global("json");
    b.set("name", "layout");
    let block = if job.file_bytes.is_multiple_of(LAYOUT_BLOCK) {
        LAYOUT_BLOCK
    } else {
        // One write per file; small files only, as larger ones are whole MiB in practice.
        interval(job).max(greagooddivisor(job.file_bytes, interval(job)))
    };
    b.flag("thread")
        .set("ioengine", "libaio")
        .set("iodepth", 4)
        .set("direct", u8::from(direct))
        .set("rw", "write")
        .set("bs", block)
        .set("randrepeat", 1)
        .set("randseed", SEED_LAYOUT)
        .set("fallocate", "none")
        .set("file_service_type", "sequential")
        .set("filesize", job.file_bytes);
    verify(&mut b, interval(job));
    b.set("do_verify", 0).files(folder, 0..job.files);
    Invocation {
        name: "layout",
        args: b.0,
    }
}

/// The largest multiple of `step` that divides `bytes` and is at most 1 MiB.
fn greagooddivisor(bytes: u64, step: u64) -> u64 {
    (1..=LAYOUT_BLOCK / step)
        .rev()
        .map(|n| n * step)
        .find(|block| bytes.is_multiple_of(*block))
        .unwrap_or(step)
}

/// Reads laid-out blocks through the system and checks them; `None` if the test wants none.
#[must_use]
pub fn verify_read(test: &Test, job: &FioJob, root: &Path) -> Option<Invocation> {
    if test.verify.read_bytes == 0 {
        return None;
    }
    let bytes = test
        .verify
        .read_bytes
        .min(job.file_bytes * u64::from(job.files));
    let mut b = global("json");
    b.set("name", "verify-read");
    io(&mut b, job, Pattern::RandRead, SEED_READ);
    b.set("numjobs", job.jobs)
        .set("filesize", job.file_bytes)
        .set("io_size", share(bytes, job.jobs.into(), job.block_bytes));
    verify(&mut b, interval(job));
    b.files(root, 0..job.files);
    Some(Invocation {
        name: "verify-read",
        args: b.0,
    })
}

/// The measured job.
#[must_use]
pub fn measure(test: &Test, job: &FioJob, root: &Path) -> Invocation {
    let mut b = global("json+");
    b.set("name", &test.id);
    io(&mut b, job, job.pattern, SEED_MEASURE);
    b.set("numjobs", job.jobs).set("filesize", job.file_bytes);
    match job.pattern {
        Pattern::RandRead | Pattern::RandWrite | Pattern::RandRw => {
            b.flag("norandommap");
        }
        Pattern::Read | Pattern::Write | Pattern::Rw => {}
    }
    if matches!(job.pattern, Pattern::Rw | Pattern::RandRw) {
        b.set("rwmixread", job.read_percent);
    }
    if let Some(bytes) = job.io_bytes {
        b.set("io_size", share(bytes, job.jobs.into(), job.block_bytes));
    }
    if let Some(ms) = job.runtime_ms {
        b.set("runtime", format!("{ms}ms"));
        if job.io_bytes.is_none() {
            b.flag("time_based");
        }
    }
    if job.ramp_ms > 0 {
        b.set("ramp_time", format!("{}ms", job.ramp_ms));
    }
    b.set("percentile_list", "50:90:99:99.9");
    for (key, value) in &job.options {
        b.set(key, value);
    }
    b.files(root, 0..job.files);
    Invocation {
        name: "measure",
        args: b.0,
    }
}

/// Writes blocks through the system and reads them back; `None` if the test wants none.
#[must_use]
pub fn verify_write(test: &Test, job: &FioJob, root: &Path) -> Option<Invocation> {
    if test.verify.write_bytes == 0 {
        return None;
    }
    // No more jobs than blocks to write: each job writes at least one.
    let jobs = u64::from(job.jobs).min((test.verify.write_bytes / job.block_bytes).max(1));
    let mut jobs = u32::try_from(jobs).unwrap_or(job.jobs);
    if job.engine == MMAP {
        jobs = jobs.min(job.files);
    }
    let regions = regions::split(job.files, job.file_bytes, jobs, job.block_bytes);
    let each = share(
        test.verify.write_bytes,
        regions.len() as u64,
        job.block_bytes,
    );
    let mut b = global("json");
    io(&mut b, job, Pattern::RandWrite, SEED_WRITE);
    verify(&mut b, interval(job));
    b.set("do_verify", 1);
    for (n, region) in regions.iter().enumerate() {
        b.set("name", format!("verify-write-{n}"))
            .files(root, region.files.iter().copied())
            .set("offset", region.offset)
            // fio's size is over all files of a job.
            .set("size", region.total())
            .set("io_size", each.min(region.total()));
    }
    Some(Invocation {
        name: "verify-write",
        args: b.0,
    })
}

#[cfg(test)]
mod tests {
    use efuse_model::test::{Job, Verify};

    use super::*;

    /// A test, and its job apart.
    fn test() -> (Test, FioJob) {
        let test = whole();
        let job = test.job.fio().expect("a job of fio's").clone();
        (test, job)
    }

    fn whole() -> Test {
        Test {
            id: "T1".into(),
            title: String::new(),
            job: Job::Fio(FioJob {
                engine: "libaio".into(),
                pattern: Pattern::RandRw,
                read_percent: 70,
                block_bytes: 4096,
                iodepth: 32,
                jobs: 4,
                direct: true,
                files: 2,
                file_bytes: 8 << 20,
                io_bytes: Some(64 << 20),
                runtime_ms: Some(5000),
                ramp_ms: 100,
                options: [("rate_iops".to_owned(), "5000".to_owned())].into(),
            }),
            verify: Verify {
                read_bytes: 4 << 20,
                write_bytes: 1 << 20,
                compare: true,
            },
            published: None,
        }
    }

    #[test]
    fn the_measured_job_is_what_was_asked_for() {
        let (test, mut job) = test();
        let text = measure(&test, &job, Path::new("/run/mnt")).display();
        let wanted = "fio --output-format=json+ --clocksource=clock_gettime --eta=never --name=T1 --thread --group_reporting --ioengine=libaio --rw=randrw --bs=4096 --iodepth=32 --direct=1 --randrepeat=1 --randseed=3826 --fallocate=none --allow_file_create=0 --create_serialize=0 --invalidate=0 --file_service_type=random --numjobs=4 --filesize=8388608 --norandommap --rwmixread=70 --io_size=16777216 --runtime=5000ms --ramp_time=100ms --percentile_list=50:90:99:99.9 --rate_iops=5000 --directory=/run/mnt --filename=f0:f1";
        assert_eq!(text, wanted);
        job.io_bytes = None;
        assert!(
            measure(&test, &job, Path::new("/m"))
                .display()
                .contains("--runtime=5000ms --time_based")
        );
    }

    #[test]
    fn verification_has_the_engine_depth_and_flags_of_the_job() {
        let (test, job) = test();
        let root = Path::new("/run/mnt");
        for invocation in [
            verify_read(&test, &job, root).unwrap(),
            verify_write(&test, &job, root).unwrap(),
        ] {
            for option in [
                "--ioengine=libaio",
                "--bs=4096",
                "--iodepth=32",
                "--direct=1",
                "--verify=crc32c",
            ] {
                assert!(invocation.args().contains(&option.to_owned()), "{option}");
            }
        }
        let mut none = test;
        (none.verify.read_bytes, none.verify.write_bytes) = (0, 0);
        assert_eq!(verify_read(&none, &job, root), None);
        assert_eq!(verify_write(&none, &job, root), None);
    }

    #[test]
    fn mapped_files_are_not_written_in_slices() {
        let (test, mut job) = test();
        (job.files, job.jobs) = (1, 4);
        let offsets = |job: &FioJob| {
            let args = verify_write(&test, job, Path::new("/m")).unwrap().args;
            let offsets = args.iter().filter(|a| a.starts_with("--offset="));
            offsets.cloned().collect::<Vec<_>>()
        };
        assert_eq!(offsets(&job).len(), 4);
        job.engine = MMAP.into();
        assert_eq!(offsets(&job), ["--offset=0"]);
        (job.files, job.jobs) = (2, 4);
        assert_eq!(offsets(&job), ["--offset=0", "--offset=0"]);
    }

    #[test]
    fn wrong_jobs_are_refused_with_the_field() {
        let refused = |change: fn(&mut FioJob), word: &str| {
            let (test, mut job) = test();
            change(&mut job);
            let text = check(&test, &job).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        let (good, job) = test();
        check(&good, &job).unwrap();
        refused(|j| j.block_bytes = 1000, "block_bytes");
        refused(|j| j.block_bytes = 6000, "block_bytes");
        refused(|j| j.file_bytes = 100, "file_bytes");
        refused(|j| j.jobs = 0, "jobs");
        refused(|j| j.read_percent = 101, "read_percent");
        refused(|j| (j.io_bytes, j.runtime_ms) = (None, None), "never end");
        refused(
            |j| drop(j.options.insert("rw".into(), "write".into())),
            "options.rw",
        );
        refused(
            |j| drop(j.options.insert("a=b --rw".into(), String::new())),
            "options.",
        );
    }

    #[test]
    fn odd_paths_are_quoted() {
        let invocation = layout(&test().1, Path::new("/a:b/it's"), true);
        assert!(
            invocation
                .display()
                .contains(r"'--directory=/a\:b/it'\''s'"),
            "{}",
            invocation.display()
        );
    }
}
