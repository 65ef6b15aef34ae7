//! Pages are drawn by `report`, the program beside this one: it needs libraries that nothing
//! else here does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// The `report` beside this program, else cargo's.
fn program(root: &Path) -> Command {
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("report"))
        .filter(|p| p.is_file());
    match beside {
        Some(path) => Command::new(path),
        None => {
            let mut cargo = Command::new("cargo");
            cargo
                .args(["run", "--quiet", "--release", "-p", "efuse-report", "--"])
                .current_dir(root);
            cargo
        }
    }
}

fn check(shown: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!(
            "`{shown}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Renders the report of a run and gives its path.
///
/// # Errors
/// If `report` cannot be started or refuses.
pub fn run_page(root: &Path, run: &Path) -> Result<PathBuf> {
    let out = run.join("report.html");
    let shown = format!("report {} -o {}", run.display(), out.display());
    let output = program(root)
        .arg(run)
        .arg("-o")
        .arg(&out)
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    check(&shown, &output)?;
    Ok(out)
}

/// Draws a document of [`efuse_model::document`] (`kind` is the verb that made it) to `out`.
///
/// # Errors
/// If `report` cannot be started or refuses, or the folder of `out` cannot be made.
pub fn document_page<T: Serialize>(
    root: &Path,
    kind: &str,
    document: &T,
    out: &Path,
) -> Result<()> {
    if let Some(folder) = out.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let out = std::path::absolute(out)?;
    let text = serde_json::to_vec(document)?;
    let shown = format!("report {kind} --from - -o {}", out.display());
    let mut child = program(root)
        .args([kind, "--from", "-", "-o"])
        .arg(&out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    // It reads all of its input before it writes anything. One that refuses may close the
    // pipe early, and its own message is the one that counts.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(&text));
    let output = child.wait_with_output()?;
    check(&shown, &output)?;
    if let Some(Err(e)) = written {
        return Err(e).with_context(|| format!("cannot hand the figures to `{shown}`"));
    }
    Ok(())
}

/// A name as part of a file's name: what is no letter, digit, `.`, `_` or `-` becomes `_`.
#[must_use]
pub fn file_part(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars()
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

/// Where pages that belong to no single run are.
#[must_use]
pub fn pages_folder(root: &Path) -> PathBuf {
    root.join("results/pages")
}
