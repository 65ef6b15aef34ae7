//! Running the programs that do the work: apt, dpkg, tar, make.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::KernelError;

/// How many lines of a failed program's output go into the error.
const TAIL: usize = 20;

/// A command line as one would type it, for messages.
#[must_use]
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        if arg.is_empty() || arg.contains(|c: char| c.is_whitespace() || "'\"$`*".contains(c)) {
            format!("'{arg}'")
        } else {
            arg.into_owned()
        }
    }));
    words.join(" ")
}

/// Finds a program in `PATH`, and in the folders of the system administrator's tools, which are
/// not in every user's `PATH`.
///
/// # Errors
/// [`KernelError::MissingProgram`], naming the package that has it.
pub fn find(program: &str, package: &'static str) -> Result<PathBuf, KernelError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| KernelError::MissingProgram {
            program: program.to_owned(),
            package,
        })
}

/// A [`Command`] in the C locale that reads nothing from the terminal.
pub fn new(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it printed on standard output.
///
/// # Errors
/// When it cannot be started, or ends with an error; then with the tail of its output.
pub fn output(command: &mut Command) -> Result<String, KernelError> {
    let output = command
        .output()
        .map_err(|source| cannot_start(command, &source))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = if stderr.trim().is_empty() {
        &stdout
    } else {
        &*stderr
    };
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(failed(command, output.status, tail))
}

/// Runs a command to its end and hands each line it prints (standard output and error as they
/// come) to `line`. Returns how it ended.
///
/// # Errors
/// When it cannot be started or its output cannot be read. An unsuccessful end is no error here.
pub fn stream(
    command: &mut Command,
    line: &mut dyn FnMut(&str),
) -> Result<ExitStatus, KernelError> {
    let (reader, writer) = io::pipe().map_err(|source| cannot_start(command, &source))?;
    let second = writer
        .try_clone()
        .map_err(|source| cannot_start(command, &source))?;
    let mut child = command
        .stdout(writer)
        .stderr(second)
        .spawn()
        .map_err(|source| cannot_start(command, &source))?;
    // The command keeps copies of the writing end, which would hold the pipe open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let read = read_lines(reader, line);
    let status = child
        .wait()
        .map_err(|source| cannot_start(command, &source))?;
    read.map_err(|source| cannot_start(command, &source))?;
    Ok(status)
}

fn read_lines(reader: impl Read, line: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
    Ok(())
}

fn failed(command: &Command, status: ExitStatus, output: String) -> KernelError {
    KernelError::Command {
        command: describe(command),
        status: status.to_string(),
        output,
    }
}

fn cannot_start(command: &Command, source: &io::Error) -> KernelError {
    KernelError::Command {
        command: describe(command),
        status: format!("could not be run: {source}"),
        output: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_arrive_line_by_line() {
        let mut seen = Vec::new();
        let mut command = new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three"]);
        let status = stream(&mut command, &mut |line| seen.push(line.to_owned())).unwrap();
        assert!(status.success());
        assert_eq!(seen, ["one", "two", "three"]);
    }

    #[test]
    fn a_failure_names_command_status_and_last_words() {
        let mut command = new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert_eq!(
            error,
            "sh -c 'echo broken >&2; exit 3' failed (exit status: 3):\nbroken"
        );
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find("no-such-program-here", "some-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program-here is needed and not installed: apt-get install some-package"
        );
    }
}
