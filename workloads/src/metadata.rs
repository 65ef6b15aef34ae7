//! `[[metadata]]`: tests of names and attributes, one for each kind and each setting of
//! the kernel's caches.

use efuse_model::metadata::{KernelCache, MetadataJob, MetadataKind};
use efuse_model::test::{Job, Test, Verify};
use efuse_reader::{Item, ReadError, Table};

const MAX_DIRS: u32 = 10_000;
const MAX_FILES: u32 = 100_000;
const MAX_THREADS: u32 = 1024;

/// Reads one table into its tests, each with the line it begins on.
pub(crate) fn read(mut table: Table<'_>) -> Result<Vec<(usize, Test)>, ReadError> {
    let line = table.line();
    let id = template(&table.need("id")?)?;
    let title = template(&table.need("title")?)?;
    let kinds = choices(
        table.need("kind")?,
        &MetadataKind::ALL.map(|k| (k.name(), k)),
    )?;
    let caches = choices(
        table.need("kernel_cache")?,
        &KernelCache::ALL.map(|c| (c.name(), c)),
    )?;
    let dirs = table.need("dirs")?.integer_u32(1, MAX_DIRS)?;
    let files = table.need("files")?.integer_u32(1, MAX_FILES)?;
    let threads = table.need("threads")?.integer_u32(1, MAX_THREADS)?;
    let runtime = table.need("runtime")?;
    let runtime_ms = match runtime.duration_ms()? {
        0 => return Err(runtime.error("must not be zero")),
        ms => ms,
    };
    let ramp_ms = match table.take("ramp") {
        Some(item) => item.duration_ms()?,
        None => 0,
    };
    let warm = match table.take("warm") {
        Some(item) => item.boolean()?,
        None => false,
    };
    table.finish()?;
    let mut tests = Vec::new();
    for (kind_name, kind) in &kinds {
        for (cache_name, cache) in &caches {
            let fill = |text: &str| {
                text.replace("{kind}", kind_name)
                    .replace("{kernel_cache}", cache_name)
            };
            let test = Test {
                id: fill(&id),
                title: fill(&title),
                job: Job::Metadata(MetadataJob {
                    kind: *kind,
                    dirs,
                    files,
                    threads,
                    runtime_ms,
                    ramp_ms,
                    warm,
                    kernel_cache: *cache,
                }),
                // The operations check their own answers.
                verify: Verify {
                    read_bytes: 0,
                    write_bytes: 0,
                    compare: true,
                },
                published: None,
            };
            tests.push((line, test));
        }
    }
    Ok(tests)
}

/// One value or a list of them, by name.
fn choices<T: Copy + PartialEq>(
    item: Item<'_>,
    known: &[(&'static str, T)],
) -> Result<Vec<(&'static str, T)>, ReadError> {
    let empty = item.error("must have at least one value");
    let items = if item.is_list() {
        item.list()?
    } else {
        vec![item]
    };
    let mut out: Vec<(&'static str, T)> = Vec::new();
    for item in items {
        let word = item.text()?;
        let Some(found) = known.iter().find(|(name, _)| *name == word) else {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            return Err(item.error(format_args!(
                "has the unknown value \"{word}\"; there are {}",
                names.join(", ")
            )));
        };
        if out.iter().any(|(name, _)| name == &found.0) {
            return Err(item.error(format_args!("has {word} twice")));
        }
        out.push(*found);
    }
    if out.is_empty() {
        return Err(empty);
    }
    Ok(out)
}

/// A text whose placeholders are {kind} and {kernel_cache}.
fn template(item: &Item<'_>) -> Result<String, ReadError> {
    let text = item.text()?;
    for (at, _) in text.match_indices('{') {
        let word = text[at + 1..].split('}').next().unwrap_or_default();
        if !["kind", "kernel_cache"].contains(&word) {
            return Err(item.error(format_args!(
                "has the unknown placeholder {{{word}}}; there are {{kind}}, {{kernel_cache}}"
            )));
        }
    }
    Ok(text)
}
