//! The shared libraries that a program needs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf::ElfStream;
use elf::abi::PT_INTERP;
use elf::endian::AnyEndian;

use crate::error::GuestError;

/// What a dynamically linked program needs in order to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closure {
    /// The dynamic loader, as the program names it.
    pub interpreter: PathBuf,
    /// `(name, file)` of every library, direct and indirect.
    pub libraries: Vec<(String, PathBuf)>,
}

/// Asks the program's own dynamic loader, which knows every rule of the search (run paths, cache,
/// hardware capabilities) and does not run the program for it. `None` for what needs no loader: a
/// static program, a script, a data file.
pub(crate) fn closure(program: &Path) -> Result<Option<Closure>, GuestError> {
    let Some(interpreter) = interpreter(program)? else {
        return Ok(None);
    };
    let libraries = of_library(&interpreter, program)?;
    Ok(Some(Closure {
        interpreter,
        libraries,
    }))
}

/// `(name, file)` of every library that a program or a library needs.
pub(crate) fn of_library(
    interpreter: &Path,
    program: &Path,
) -> Result<Vec<(String, PathBuf)>, GuestError> {
    let output = Command::new(interpreter)
        .arg("--list")
        .arg(program)
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(GuestError::io("run", interpreter))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let libraries = parse_list(&stdout).map_err(|library| GuestError::MissingLibrary {
        program: program.to_owned(),
        library,
    })?;
    if !output.status.success() {
        return Err(GuestError::Command {
            command: format!("{} --list {}", interpreter.display(), program.display()),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(libraries)
}

fn interpreter(program: &Path) -> Result<Option<PathBuf>, GuestError> {
    let mut file = File::open(program).map_err(GuestError::io("open", program))?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
        return Ok(None);
    }
    let damaged = |reason: String| GuestError::Io {
        action: "read the ELF header of",
        path: program.to_owned(),
        reason,
    };
    let mut elf =
        ElfStream::<AnyEndian, _>::open_stream(file).map_err(|error| damaged(error.to_string()))?;
    let Some(header) = elf
        .segments()
        .iter()
        .find(|segment| segment.p_type == PT_INTERP)
        .copied()
    else {
        return Ok(None);
    };
    let data = elf
        .segment_data(&header)
        .map_err(|error| damaged(error.to_string()))?;
    let text = data.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8(text.to_vec())
        .map(|path| Some(PathBuf::from(path)))
        .map_err(|error| damaged(error.to_string()))
}

/// Reads the loader's list; the error is the name of a library that was not found.
fn parse_list(text: &str) -> Result<Vec<(String, PathBuf)>, String> {
    let mut libraries = Vec::new();
    for line in text.lines().map(str::trim) {
        // Lines without an arrow are the kernel's vDSO and the loader itself.
        let Some((name, rest)) = line.split_once(" => ") else {
            continue;
        };
        if rest.starts_with("not found") {
            return Err(name.to_owned());
        }
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        libraries.push((name.to_owned(), PathBuf::from(path)));
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list() {
        let text = "\tlinux-vdso.so.1 (0x00007fb69caf4000)\n\
            \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007fb69c720000)\n\
            \tlibceph-common.so.2 => /usr/lib/ceph/libceph-common.so.2 (0x00007fb692600000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007fb69caf6000)\n";
        assert_eq!(
            parse_list(text).expect("all found"),
            [
                (
                    "libm.so.6".to_owned(),
                    PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6")
                ),
                (
                    "libceph-common.so.2".to_owned(),
                    PathBuf::from("/usr/lib/ceph/libceph-common.so.2")
                ),
            ]
        );
        assert_eq!(
            parse_list("\tlibgone.so.3 => not found\n"),
            Err("libgone.so.3".to_owned())
        );
    }

    #[test]
    fn this_very_test_needs_libc() {
        let me = std::env::current_exe().expect("a path");
        let closure = closure(&me).expect("listed").expect("dynamic");
        assert!(closure.interpreter.is_absolute());
        let (_, libc) = closure
            .libraries
            .iter()
            .find(|(name, _)| name == "libc.so.6")
            .expect("libc is there");
        assert!(libc.is_file());
    }

    #[test]
    fn a_script_needs_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").expect("written");
        assert_eq!(closure(&script).expect("read"), None);
    }
}
