//! An EXT4 file system on a loop device, with an empty mount point beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use efuse_systems::controls::build_controls;
use efuse_systems::{BinDirs, MountContext, Registry};

/// Says why something was not tested.
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Removed with everything in it when dropped.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub lower: PathBuf,
    device: String,
}

fn run(program: &str, args: &[&str]) -> Result<Output, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!(
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Fixture {
    /// `None`, with the reason printed, where it cannot be had.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("mounting needs root");
            return None;
        }
        match Self::make() {
            Ok(fixture) => Some(fixture),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn make() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = dir.path().join("image");
        let lower = dir.path().join("lower");
        for folder in [&lower, &dir.path().join("mnt")] {
            fs::create_dir(folder).map_err(|e| e.to_string())?;
        }
        let file = fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(64 << 20).map_err(|e| e.to_string())?;
        let image = image.to_str().ok_or("a temporary path that is not text")?;
        run("mkfs.ext4", &["-q", "-F", image])?;
        let output = run("losetup", &["--find", "--show", image])?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let fixture = Self { dir, lower, device };
        let lower = fixture
            .lower
            .to_str()
            .ok_or("a temporary path that is not text")?;
        run("mount", &["-t", "ext4", &fixture.device, lower])?;
        Ok(fixture)
    }

    pub fn context(&self) -> MountContext {
        context_in(self.dir.path())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // After a failed test the mount point may still be in use below `lower`.
        for folder in ["mnt", "lower"] {
            let path = self.dir.path().join(folder);
            if is_mounted(&path) {
                let _ = run("umount", &["-l", &path.to_string_lossy()]);
            }
        }
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

pub fn context_in(dir: &Path) -> MountContext {
    MountContext {
        lower: dir.join("lower"),
        mountpoint: dir.join("mnt"),
        log: dir.join("daemon.log"),
        bin: bins(),
        slow_percent: 0,
        kernel_cache: None,
    }
}

/// The controls, built once, then the folder in which Cargo put the programs.
pub fn bins() -> BinDirs {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for control in build_controls(root).unwrap() {
            if let Err(reason) = control.outcome {
                skip(&format!("{}: {reason}", control.name));
            }
        }
        root.join("target/tools")
    });
    let mut bins = BinDirs::discover().with_first(tools.clone());
    if let Ok(own) = std::env::current_exe()
        && let Some(profile) = own.ancestors().nth(2)
    {
        bins = bins.with_first(profile.to_owned());
    }
    bins
}

pub fn registry() -> Registry {
    Registry::load(None).unwrap().with_bins(bins())
}

pub fn is_mounted(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wanted = path.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|l| l.split(' ').nth(4) == Some(wanted))
}

/// Whether a process runs. One that has ended and that nobody has reaped yet does not.
pub fn runs(pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // PID (NAME) STATE ...; the name may contain anything.
    let state = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.starts_with(['Z', 'X'])
}

/// Waits for something that is bound to happen.
pub fn eventually<T>(mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(10));
    }
}
