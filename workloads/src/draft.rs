//! The keys of a job: read one by one, laid over each other, resolved into a test.

use std::collections::BTreeMap;

use efuse_model::test::{FioJob, Job, Pattern, Test, Verify};
use efuse_reader::{Item, ReadError, Source, Table, human_duration_ms, human_size};

/// Every key with a single value, in the order in which messages list them.
pub(crate) const KEYS: [&str; 12] = [
    "engine",
    "pattern",
    "read_percent",
    "block",
    "depth",
    "jobs",
    "direct",
    "files",
    "file_size",
    "io",
    "runtime",
    "ramp",
];

const VERIFY_READ: &str = "verify.read";
const VERIFY_WRITE: &str = "verify.write";
const VERIFY_COMPARE: &str = "verify.compare";

/// Verification where a file says nothing about it. Never none: a figure without it
/// is no figure.
const DEFAULT_VERIFY: Verify = Verify {
    read_bytes: 4 << 20,
    write_bytes: 1 << 20,
    compare: true,
};

/// Blocks are whole sectors, and large enough for fio's verification header.
const SMALLEST_BLOCK: u64 = 512;
/// One checksum covers at most this much, so that larger blocks are a multiple of it.
const VERIFY_INTERVAL: u64 = 4096;
const LARGEST_BLOCK: u64 = 64 << 20;
const MAX_JOBS: u32 = 1024;
const MAX_DEPTH: u32 = 65_536;
const MAX_FILES: u32 = 100_000;

const PATTERNS: [Pattern; 6] = [
    Pattern::Read,
    Pattern::Write,
    Pattern::RandRead,
    Pattern::RandWrite,
    Pattern::Rw,
    Pattern::RandRw,
];

/// A value of one of [`KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Pattern(Pattern),
    Count(u32),
    Bytes(u64),
    Ms(u64),
    Flag(bool),
}

impl Value {
    /// Reads the value of a key.
    pub(crate) fn read(key: &str, item: &Item<'_>) -> Result<Self, ReadError> {
        Ok(match key {
            "engine" => Self::Text(item.text()?),
            "pattern" => Self::Pattern(pattern(item)?),
            "read_percent" => Self::Count(item.integer_u32(0, 100)?),
            "depth" => Self::Count(item.integer_u32(1, MAX_DEPTH)?),
            "jobs" => Self::Count(item.integer_u32(1, MAX_JOBS)?),
            "files" => Self::Count(item.integer_u32(1, MAX_FILES)?),
            "direct" | VERIFY_COMPARE => Self::Flag(item.boolean()?),
            "block" => Self::Bytes(block(item)?),
            "file_size" | "io" => Self::Bytes(not_zero(item, item.size()?)?),
            "runtime" => Self::Ms(not_zero(item, item.duration_ms()?)?),
            "ramp" => Self::Ms(item.duration_ms()?),
            // What is left are the sizes of the verification.
            _ => Self::Bytes(item.size()?),
        })
    }

    /// As it stands in names and titles.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Pattern(pattern) => pattern.as_fio().to_owned(),
            Self::Count(n) => n.to_string(),
            Self::Bytes(bytes) => human_size(*bytes),
            Self::Ms(ms) => human_duration_ms(*ms),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

fn pattern(item: &Item<'_>) -> Result<Pattern, ReadError> {
    let word = item.text()?;
    PATTERNS
        .into_iter()
        .find(|p| p.as_fio() == word)
        .ok_or_else(|| {
            item.error(format_args!(
                "is the unknown pattern \"{word}\"; there are {}",
                PATTERNS.map(Pattern::as_fio).join(", ")
            ))
        })
}

fn not_zero(item: &Item<'_>, value: u64) -> Result<u64, ReadError> {
    if value == 0 {
        return Err(item.error("must not be zero"));
    }
    Ok(value)
}

fn block(item: &Item<'_>) -> Result<u64, ReadError> {
    let bytes = not_zero(item, item.size()?)?;
    let whole = if bytes < VERIFY_INTERVAL {
        bytes >= SMALLEST_BLOCK && bytes.is_power_of_two()
    } else {
        bytes.is_multiple_of(VERIFY_INTERVAL) && bytes <= LARGEST_BLOCK
    };
    if !whole {
        return Err(item.error(format_args!(
            "must be 512B, 1KiB, 2KiB, or a multiple of 4KiB up to {}, so that its content \
             can be verified, but is {}",
            human_size(LARGEST_BLOCK),
            human_size(bytes)
        )));
    }
    Ok(bytes)
}

/// Values of some keys, each with the line it came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    values: BTreeMap<&'static str, (Value, usize)>,
    options: BTreeMap<String, String>,
}

/// What names a test.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub id: String,
    pub title: String,
    pub published: Option<(String, u32)>,
    /// Where the test begins in the file.
    pub line: usize,
}

impl Draft {
    /// Lays the keys of a table over what is there.
    pub(crate) fn read(&mut self, table: &mut Table<'_>) -> Result<(), ReadError> {
        for key in KEYS {
            if let Some(item) = table.take(key) {
                self.set(key, Value::read(key, &item)?, item.line());
            }
        }
        if let Some(item) = table.take("verify") {
            let mut verify = item.table()?;
            for (key, full) in [
                ("read", VERIFY_READ),
                ("write", VERIFY_WRITE),
                ("compare", VERIFY_COMPARE),
            ] {
                if let Some(item) = verify.take(key) {
                    self.set(full, Value::read(full, &item)?, item.line());
                }
            }
            verify.finish()?;
        }
        if let Some(item) = table.take("options") {
            for (key, value) in item.table()?.take_rest() {
                self.options.insert(key, value.scalar()?);
            }
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, key: &'static str, value: Value, line: usize) {
        self.values.insert(key, (value, line));
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    fn line(&self, key: &str) -> Option<usize> {
        self.values.get(key).map(|(_, line)| *line)
    }

    fn count(&self, key: &str) -> Option<u32> {
        match self.get(key) {
            Some(Value::Count(n)) => Some(*n),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Bytes(n) | Value::Ms(n)) => Some(*n),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// The finished test.
    pub(crate) fn resolve(&self, source: &Source, names: Names) -> Result<Test, ReadError> {
        let id = &names.id;
        let need = |key: &str| {
            source.error(
                names.line,
                format!("test \"{id}\" has no `{key}`, and neither have the defaults"),
            )
        };
        let count = |key: &str| self.count(key).ok_or_else(|| need(key));
        let number = |key: &str| self.number(key).ok_or_else(|| need(key));
        let Some(Value::Pattern(pattern)) = self.get("pattern").cloned() else {
            return Err(need("pattern"));
        };
        let read_percent = match (pattern.reads(), pattern.writes()) {
            (true, true) => count("read_percent")?,
            // Whatever the defaults say: the same job has the same hash.
            (reads, _) => 100 * u32::from(reads),
        };
        let block = number("block")?;
        let files = count("files")?;
        let file_size = number("file_size")?;
        let jobs = count("jobs")?;
        let (io, runtime) = (self.number("io"), self.number("runtime"));
        let at = |key: &str, problem: String| {
            source.error(
                self.line(key).unwrap_or(names.line),
                format!("test \"{id}\": {problem}"),
            )
        };
        if io.is_none() && runtime.is_none() {
            return Err(source.error(
                names.line,
                format!(
                    "test \"{id}\" would never end: give it `io` (bytes), `runtime` (time), or \
                     both, for whichever comes first"
                ),
            ));
        }
        if !file_size.is_multiple_of(block) {
            return Err(at(
                "file_size",
                format!(
                    "`file_size` {} is not a multiple of `block` {}",
                    human_size(file_size),
                    human_size(block)
                ),
            ));
        }
        let least = block * u64::from(jobs);
        if let Some(io) = io.filter(|io| *io < least) {
            return Err(at(
                "io",
                format!(
                    "`io` {} is less than one block of {} for each of {jobs} jobs",
                    human_size(io),
                    human_size(block)
                ),
            ));
        }
        let engine = match self.get("engine") {
            Some(Value::Text(engine)) => engine.clone(),
            _ => "libaio".to_owned(),
        };
        let total = file_size.saturating_mul(files.into());
        // A default that suits the larger tests may exceed the smallest one's files.
        let verify = |key: &str, otherwise: u64| self.number(key).unwrap_or(otherwise).min(total);
        Ok(Test {
            job: Job::Fio(FioJob {
                engine,
                pattern,
                read_percent: u8::try_from(read_percent)
                    .map_err(|e| at("read_percent", e.to_string()))?,
                block_bytes: block,
                iodepth: count("depth")?,
                jobs,
                direct: self.flag("direct").unwrap_or(true),
                files,
                file_bytes: file_size,
                io_bytes: io,
                runtime_ms: runtime,
                ramp_ms: self.number("ramp").unwrap_or(0),
                options: self.options.clone(),
            }),
            verify: Verify {
                read_bytes: verify(VERIFY_READ, DEFAULT_VERIFY.read_bytes),
                write_bytes: verify(VERIFY_WRITE, DEFAULT_VERIFY.write_bytes),
                compare: self.flag(VERIFY_COMPARE).unwrap_or(DEFAULT_VERIFY.compare),
            },
            id: names.id,
            title: names.title,
            published: names.published,
        })
    }
}
