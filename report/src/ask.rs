//! Asks `eval`, the program beside this one, for what is compared.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(text)
}

/// What `eval --json` prints for these arguments, whatever it exits with.
///
/// # Errors
/// If there is no `eval`, or it printed nothing: with what it said.
pub fn eval(args: &[String]) -> Result<String> {
    let beside = std::env::current_exe()?.with_file_name("eval");
    let program = if beside.is_file() {
        beside
    } else {
        "eval".into()
    };
    let output = Command::new(&program)
        .arg("--json")
        .args(args)
        .output()
        .with_context(|| {
            format!(
                "cannot start {}; build it: `cargo build --release -p efuse-eval`",
                program.display()
            )
        })?;
    if output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("eval: ");
        if said.is_empty() {
            bail!("eval printed nothing ({})", output.status);
        }
        bail!("{said}");
    }
    String::from_utf8(output.stdout).context("eval printed what is no text")
}
