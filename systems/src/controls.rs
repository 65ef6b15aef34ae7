//! Third-party programs that serve as controls, built from the source that the
//! distribution ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::SystemError;
use crate::bins::MISSING_NOTE;

/// libfuse's low-level pass-through example.
pub const PASSTHROUGH_LL: &str = "passthrough_ll";

/// Included before its source; why is said there.
pub(crate) const SHIM: &str = include_str!("../controls/aligned_writes.h");

const SHIM_NAME: &str = "aligned_writes.h";
const EXAMPLES: &str = "/usr/share/doc/libfuse3-dev/examples";
const SOURCES: [&str; 2] = ["passthrough_ll.c", "passthrough_helpers.h"];
const PACKAGE: &str = "libfuse3-dev";

/// What libfuse's own build finds out about glibc and Linux and puts into `config.h`.
const FLAGS: [&str; 4] = ["-O2", "-w", "-DHAVE_FALLOCATE", "-DHAVE_COPY_FILE_RANGE"];

/// A control that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Name of the program.
    pub name: String,
    /// The program, or why there is none and what to do.
    pub outcome: Result<PathBuf, String>,
}

/// Builds every control into `<root>/target/tools/`, unless one of the same content is
/// there already, and reports each.
///
/// A control that cannot be built leaves a note beside the programs, which
/// [`crate::BinDirs::note`] finds: its system is then skipped for that reason.
///
/// # Errors
/// If the folder cannot be written; a control that does not build is not an error.
pub fn build_controls(root: &Path) -> Result<Vec<Control>, SystemError> {
    let tools = root.join("target/tools");
    fs::create_dir_all(&tools).map_err(SystemError::io(&tools, "create the folder"))?;
    let program = tools.join(PASSTHROUGH_LL);
    let note = tools.join(format!("{PASSTHROUGH_LL}.{MISSING_NOTE}"));
    let outcome = match build_passthrough_ll(Path::new(EXAMPLES), &program) {
        Ok(()) => {
            if note.exists() {
                fs::remove_file(&note).map_err(SystemError::io(&note, "remove the old note"))?;
            }
            Ok(program)
        }
        Err(SystemError::Control { problem, .. }) => {
            // One that is left of an earlier build would be measured as if it were
            // the one that was asked for.
            if program.exists() {
                fs::remove_file(&program)
                    .map_err(SystemError::io(&program, "remove the outdated program"))?;
            }
            fs::write(&note, &problem).map_err(SystemError::io(&note, "write the note"))?;
            Err(problem)
        }
        Err(other) => return Err(other),
    };
    Ok(vec![Control {
        name: PASSTHROUGH_LL.to_owned(),
        outcome,
    }])
}

fn build_passthrough_ll(examples: &Path, program: &Path) -> Result<(), SystemError> {
    let problem = |problem: String| SystemError::Control {
        name: PASSTHROUGH_LL.to_owned(),
        problem,
    };
    let mut hasher = blake3::Hasher::new();
    for name in SOURCES {
        let path = examples.join(name);
        let text = fs::read(&path).map_err(|e| {
            problem(format!(
                "cannot read {} ({e}); install {PACKAGE}",
                path.display()
            ))
        })?;
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(&text);
    }
    let run = |command: &mut Command| -> Result<String, SystemError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command
            .output()
            .map_err(|e| problem(format!("cannot run {name} ({e}); install it")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // The first complaint; the others mostly follow from it.
        let first = said
            .lines()
            .map(str::trim)
            .find(|l| l.contains("error"))
            .or_else(|| said.lines().map(str::trim).find(|l| !l.is_empty()))
            .unwrap_or("it said nothing");
        Err(problem(format!("{name} failed: {first}")))
    };
    let compiler = run(Command::new("cc").arg("--version"))?;
    let library =
        run(Command::new("pkg-config").args(["--modversion", "--cflags", "--libs", "fuse3"]))?;
    for part in [SHIM, &compiler, &library, &FLAGS.join(" ")] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize().to_hex().to_string();
    let stamp = program.with_extension("hash");
    if program.exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == hash) {
        return Ok(());
    }

    let tools = program.parent().unwrap_or(Path::new("."));
    let build = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(tools)
        .map_err(SystemError::io(tools, "make a folder to build in"))?;
    let shim = build.path().join(SHIM_NAME);
    fs::write(&shim, SHIM).map_err(SystemError::io(&shim, "write"))?;
    let built = build.path().join(PASSTHROUGH_LL);
    let flags = run(Command::new("pkg-config").args(["--cflags", "--libs", "fuse3"]))?;
    run(Command::new("cc")
        .args(FLAGS)
        .arg("-include")
        .arg(&shim)
        .arg(examples.join(SOURCES[0]))
        .args(flags.split_whitespace())
        .arg("-o")
        .arg(&built))?;
    // The stamp goes first and comes last, so that a program never has the stamp of
    // another one.
    if stamp.exists() {
        fs::remove_file(&stamp).map_err(SystemError::io(&stamp, "remove"))?;
    }
    fs::rename(&built, program).map_err(SystemError::io(program, "put the program in place"))?;
    fs::write(&stamp, hash).map_err(SystemError::io(&stamp, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_says_which_package() {
        let dir = tempfile::tempdir().unwrap();
        let error = build_passthrough_ll(dir.path(), &dir.path().join("p"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("passthrough_ll: cannot read "), "{error}");
        assert!(error.ends_with("; install libfuse3-dev"), "{error}");
    }

    #[test]
    fn a_source_that_does_not_compile_gives_the_compilers_words() {
        if Command::new("cc").arg("--version").output().is_err() || !Path::new(EXAMPLES).exists() {
            eprintln!("skipped: needs cc and {PACKAGE}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(SOURCES[0]),
            "int main(void) { return nothing; }",
        )
        .unwrap();
        fs::write(dir.path().join(SOURCES[1]), "").unwrap();
        let error = build_passthrough_ll(dir.path(), &dir.path().join("p"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cc failed") && error.contains("nothing"),
            "{error}"
        );
    }
}
