//! The part of the environment that only the outside knows, and what must be there
//! before anything starts.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use efuse_model::environment::{Accelerator, Clock, Environment, Place};

/// QEMU's name here.
pub const QEMU: &str = "qemu-system-x86_64";

/// Standard output of a command that succeeds, trimmed.
fn output(program: &Path, args: &[&str], dir: Option<&Path>) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args);
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let out = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn first_line(program: &str, args: &[&str]) -> String {
    output(Path::new(program), args, None)
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "absent".to_owned())
}

/// `git rev-parse`, with `-dirty` where tracked files were changed; `unknown` outside a
/// repository.
#[must_use]
pub fn revision(root: &Path) -> String {
    let git = |args: &[&str]| output(Path::new("git"), args, Some(root));
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        None => "unknown".to_owned(),
        Some(hash) => {
            let clean = git(&["status", "--porcelain", "--untracked-files=no"])
                .is_some_and(|changes| changes.is_empty());
            if clean { hash } else { format!("{hash}-dirty") }
        }
    }
}

/// The newest clang there is: eBPF programs are built with it.
fn clang() -> String {
    let numbered = (16..=30).rev().map(|n| format!("clang-{n}"));
    numbered
        .chain(["clang".to_owned()])
        .find(|name| which::which(name).is_ok())
        .map_or_else(
            || "absent".to_owned(),
            |name| first_line(&name, &["--version"]),
        )
}

/// What the agent cannot see. Taken once, when `eval` starts: what is committed or
/// installed while it measures does not change what it measures with.
#[derive(Clone, Debug)]
pub struct Outside {
    revision: String,
    versions: Vec<(&'static str, String)>,
}

impl Outside {
    /// Looks at revision and tools.
    #[must_use]
    pub fn look(root: &Path, place: Place) -> Self {
        let mut versions = vec![
            ("clang", clang()),
            ("rustc", first_line("rustc", &["--version"])),
        ];
        if place == Place::Vm {
            let release = nix::sys::utsname::uname().map_or_else(
                |_| "unknown".to_owned(),
                |u| u.release().to_string_lossy().into_owned(),
            );
            versions.push(("qemu", first_line(QEMU, &["--version"])));
            versions.push(("host kernel", release));
        }
        Self {
            revision: revision(root),
            versions,
        }
    }

    /// Completes what the agent saw.
    pub fn complete(&self, environment: &mut Environment, accelerator: Accelerator, clock: Clock) {
        environment.accelerator = accelerator;
        environment.clock = clock;
        environment.revision.clone_from(&self.revision);
        for (name, version) in &self.versions {
            environment
                .versions
                .insert((*name).to_owned(), version.clone());
        }
    }
}

/// Refuses to start where a tool or a right is missing, and says what to do.
///
/// # Errors
/// One message that names everything that is missing.
pub fn preflight(place: Place) -> Result<()> {
    let mut missing: Vec<(&str, &str)> = Vec::new();
    let mut need = |program: &'static str, package: &'static str| {
        if which::which(program).is_err() && !Path::new("/usr/sbin").join(program).exists() {
            missing.push((program, package));
        }
    };
    need("fio", "fio");
    need("mkfs.ext4", "e2fsprogs");
    if place == Place::Vm {
        need(QEMU, "qemu-system-x86");
    }
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|m| m.0).collect();
        let packages: Vec<_> = missing.iter().map(|m| m.1).collect();
        bail!(
            "not installed: {}. Run `./x`, or as root: apt-get install {}",
            programs.join(", "),
            packages.join(" ")
        );
    }
    if place == Place::Host && !nix::unistd::geteuid().is_root() {
        bail!(
            "measuring on the host mounts file systems and needs root: run it with sudo, \
             or measure in a guest (--place vm), which needs none"
        );
    }
    Ok(())
}

/// Refuses a guest that does not fit into the memory there is.
///
/// # Errors
/// If less is available than the guest is to have.
pub fn check_memory(guest_mib: u32) -> Result<()> {
    let Some(available) = available_mib() else {
        return Ok(());
    };
    if u64::from(guest_mib) > available {
        bail!(
            "the guest is to have {guest_mib} MiB of memory and {available} MiB are available here; \
             choose a smaller device (--device NAME:SIZE, with --scale for smaller files), or set --memory"
        );
    }
    Ok(())
}

fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_says_whether_the_tree_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(revision(dir.path()), "unknown");
        let git = |args: &[&str]| {
            let status = Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@t"])
                .args(args)
                .current_dir(dir.path())
                .output()
                .unwrap()
                .status;
            assert!(status.success(), "git {args:?}");
        };
        git(&["init", "-q"]);
        std::fs::write(dir.path().join("f"), "1").unwrap();
        git(&["add", "f"]);
        git(&["commit", "-q", "-m", "m"]);
        let clean = revision(dir.path());
        assert_eq!(clean.len(), 12, "{clean}");
        std::fs::write(dir.path().join("f"), "2").unwrap();
        assert_eq!(revision(dir.path()), format!("{clean}-dirty"));
    }

    #[test]
    fn a_guest_larger_than_the_machine_is_refused() {
        assert!(check_memory(1).is_ok());
        let message = check_memory(u32::MAX).unwrap_err().to_string();
        assert!(message.contains("--memory"), "{message}");
    }
}
