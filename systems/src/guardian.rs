//! Cleans up when this process is killed so hard that it cannot.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bounded::poll;
use crate::daemon::TOKEN_VARIABLE;

/// Waits for a line on its standard input. End of file instead means that the process
/// at the other end is gone without having said so: then the mount is taken away and
/// whatever carries the mount's token in its environment is ended.
///
/// It runs in whatever `sh` there is, busybox in the guest.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r line && exit 0
umount -l "$1"
for signal in TERM KILL; do
    for file in /proc/[0-9]*/environ; do
        if grep -qF "$2" "$file" 2>/dev/null; then
            pid=${file%/environ}
            kill -$signal "${pid#/proc/}" 2>/dev/null
        fi
    done
    sleep 1
done
"#;

/// A shell that outlives this process for as long as it takes to clean up.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Starts watching; `None` where there is no shell: the guardian is a second line
    /// of defence and its absence is no reason not to measure.
    pub(crate) fn start(mountpoint: &Path, token: &str) -> Option<Self> {
        Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("efuse-guardian")
            .arg(mountpoint)
            .arg(format!("{TOKEN_VARIABLE}={token}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a terminal's Ctrl-C.
            .process_group(0)
            .spawn()
            .ok()
            .map(|shell| Self { shell })
    }

    /// Everything has been cleaned up.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // A shell that is gone already needs no telling.
            let _ = pipe.write_all(b"done\n");
        }
        let gone = poll(Duration::from_secs(5), || {
            self.shell.try_wait().ok().flatten()
        });
        if gone.is_none() {
            let _ = self.shell.kill();
            let _ = self.shell.wait();
        }
    }
}
