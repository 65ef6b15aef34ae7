//! The files of a cell, with fio's crc32c headers in every block.
//!
//! fio writes them, once for all cells with files of the same number and size: under
//! emulation its start and the making of random, checksummed content are the dearest
//! part of a small cell. Later cells get a copy from RAM, written as fio writes it
//! (1 MiB direct appends, file after file), and so does the first, so that the files of
//! all cells are laid out alike. Large files are written by fio each time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use efuse_model::test::FioJob;

use crate::error::{AgentError, Result};
use crate::fio::Report;
use crate::fio::command::{self, file_name};
use crate::limit::Limit;
use crate::sys::Aligned;

/// Files of a cell up to this are kept, bytes. All that is kept is at most twice as much.
const KEPT: u64 = 64 << 20;
const PIECE: usize = 1 << 20;
const PREFIX: &str = "layout-";

/// Bytes of all files of a job.
#[must_use]
pub fn total(job: &FioJob) -> u64 {
    job.file_bytes * u64::from(job.files)
}

/// Writes the files of a job into `lower`. `kept` is a folder on a RAM file system, or
/// at least one with a page cache; `fio` runs a command.
///
/// # Errors
/// If fio fails, or the file system is full.
pub fn write(
    job: &FioJob,
    lower: &Path,
    kept: &Path,
    limit: &Limit,
    fio: &dyn Fn(&command::Invocation) -> Result<Report>,
) -> Result<()> {
    if total(job) > KEPT || !has_room(kept, job) {
        return by_fio(job, lower, true, fio);
    }
    let model = kept.join(format!(
        "{PREFIX}{}x{}-{}",
        job.files,
        job.file_bytes,
        command::interval(job)
    ));
    if !model.exists() {
        make_room(kept, job)?;
        // Renamed when it is whole: a fio that was killed leaves no half of it.
        let partial = model.with_extension("partial");
        fs::create_dir(&partial).map_err(AgentError::io(&partial, "create the folder"))?;
        let made = by_fio(job, &partial, false, fio);
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&partial);
            return Err(e);
        }
        fs::rename(&partial, &model).map_err(AgentError::io(&model, "rename into place"))?;
    }
    let mut buffer = Aligned::new(PIECE);
    for name in (0..job.files).map(file_name) {
        limit.check()?;
        copy(
            &model.join(&name),
            &lower.join(&name),
            job.file_bytes,
            buffer.bytes(),
        )?;
    }
    Ok(())
}

fn by_fio(
    job: &FioJob,
    folder: &Path,
    direct: bool,
    fio: &dyn Fn(&command::Invocation) -> Result<Report>,
) -> Result<()> {
    let (_, written) = fio(&command::layout(job, folder, direct))?
        .bytes()
        .map_err(|e| AgentError::Fio(format!("fio (layout): {e}")))?;
    if written == total(job) {
        return Ok(());
    }
    Err(AgentError::Fio(format!(
        "fio (layout) wrote {written} bytes, not {}",
        total(job)
    )))
}

fn copy(from: &Path, to: &Path, len: u64, buffer: &mut [u8]) -> Result<()> {
    let read = File::open(from).map_err(AgentError::io(from, "open"))?;
    let write = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(to)
        .map_err(AgentError::io(to, "create"))?;
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut buffer[..want];
        read.read_exact_at(piece, at)
            .map_err(AgentError::io(from, "read"))?;
        write
            .write_all_at(piece, at)
            .map_err(AgentError::io(to, "write"))?;
        at += want as u64;
    }
    Ok(())
}

/// Whether a job's files fit beside what else is in memory.
fn has_room(kept: &Path, job: &FioJob) -> bool {
    nix::sys::statvfs::statvfs(kept)
        .is_ok_and(|space| space.blocks_available() * space.fragment_size() / 4 > total(job))
}

/// Forgets what is kept if it would become too much.
fn make_room(kept: &Path, job: &FioJob) -> Result<()> {
    let failed = |e: io::Error| AgentError::io(kept, "list")(e);
    let mut all: Vec<PathBuf> = Vec::new();
    let mut bytes = 0;
    for entry in fs::read_dir(kept).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ours = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(PREFIX));
        if !ours {
            continue;
        }
        for file in fs::read_dir(&path).map_err(failed)? {
            bytes += file.and_then(|f| f.metadata()).map_err(failed)?.len();
        }
        all.push(path);
    }
    if bytes + total(job) > 2 * KEPT {
        for path in all {
            fs::remove_dir_all(&path).map_err(AgentError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use efuse_model::test::Pattern;

    use super::*;
    use crate::limit::Cancel;

    fn job(files: u32, file_bytes: u64) -> FioJob {
        FioJob {
            engine: "libaio".into(),
            pattern: Pattern::RandRead,
            read_percent: 100,
            block_bytes: 4096,
            iodepth: 1,
            jobs: 1,
            direct: true,
            files,
            file_bytes,
            io_bytes: Some(4096),
            runtime_ms: None,
            ramp_ms: 0,
            options: [].into(),
        }
    }

    /// Does what fio would, and counts how often.
    fn scribe<'a>(
        job: &'a FioJob,
        calls: &'a Cell<u8>,
    ) -> impl Fn(&command::Invocation) -> Result<Report> + 'a {
        move |invocation| {
            calls.set(calls.get() + 1);
            let option = |key: &str| {
                let all = invocation.args().iter();
                all.filter_map(|a| a.strip_prefix(key))
                    .next_back()
                    .unwrap()
                    .to_owned()
            };
            for name in option("--filename=").split(':') {
                let content: Vec<u8> = (0..job.file_bytes).map(|n| (n % 251) as u8).collect();
                fs::write(Path::new(&option("--directory=")).join(name), content).unwrap();
            }
            let json = format!(
                r#"{{"jobs":[{{"error":0,"read":{{"io_bytes":0}},"write":{{"io_bytes":{}}}}}]}}"#,
                total(job)
            );
            Ok(Report::parse(&json).unwrap())
        }
    }

    #[test]
    fn files_are_made_once_and_copied_whole() {
        let kept = tempfile::tempdir().unwrap();
        let limit = Limit::new(Duration::from_secs(600), Cancel::default());
        let calls = Cell::new(0);
        // Not whole pieces.
        let job = job(2, (2 << 20) + 8192);
        for _ in 0..2 {
            let lower = tempfile::tempdir().unwrap();
            write(
                &job,
                lower.path(),
                kept.path(),
                &limit,
                &scribe(&job, &calls),
            )
            .unwrap();
            for name in ["f0", "f1"] {
                let content = fs::read(lower.path().join(name)).unwrap();
                assert_eq!(content.len() as u64, job.file_bytes);
                assert!(
                    content
                        .iter()
                        .enumerate()
                        .all(|(n, b)| usize::from(*b) == n % 251)
                );
            }
        }
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let kept = tempfile::tempdir().unwrap();
        let limit = Limit::new(Duration::from_secs(600), Cancel::default());
        let calls = Cell::new(0);
        for n in 0..3 {
            let lower = tempfile::tempdir().unwrap();
            let job = job(1, (60 << 20) + n * 4096);
            write(
                &job,
                lower.path(),
                kept.path(),
                &limit,
                &scribe(&job, &calls),
            )
            .unwrap();
        }
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 1);
        let (lower, large) = (tempfile::tempdir().unwrap(), job(1, KEPT + 4096));
        write(
            &large,
            lower.path(),
            kept.path(),
            &limit,
            &scribe(&large, &calls),
        )
        .unwrap();
        assert_eq!(
            fs::read_dir(kept.path()).unwrap().count(),
            1,
            "too large to be kept"
        );
        assert_eq!(calls.get(), 4);
    }

    #[test]
    fn a_layout_that_failed_is_not_taken_for_one() {
        let (kept, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let limit = Limit::new(Duration::from_secs(600), Cancel::default());
        let job = job(1, 8192);
        let broken = |_: &command::Invocation| Err(AgentError::Fio("broken".into()));
        let failed = write(&job, lower.path(), kept.path(), &limit, &broken);
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        let calls = Cell::new(0);
        write(
            &job,
            lower.path(),
            kept.path(),
            &limit,
            &scribe(&job, &calls),
        )
        .unwrap();
        assert_eq!(calls.get(), 1);
    }
}
