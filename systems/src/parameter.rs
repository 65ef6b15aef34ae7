//! A parameter of the kernel's fuse module that is off by default, on for as long as it takes to mount.
//!
//! `enable_uring` is looked at when a connection is made; a mount keeps what it got. So it is Y only
//! while one is being mounted, and then what the machine was set to again. Other mounts made
//! in that moment are offered io_uring, and do not get it unless they ask.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Whether connections may use io_uring.
pub(crate) const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// A parameter that is Y until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Raised {
    /// Where N is written again; `None` if it was Y anyway. Locked, so that nobody takes our Y for
    /// the machine's setting.
    file: Option<Flock<File>>,
}

impl Raised {
    /// Sets the parameter to Y if it is not.
    ///
    /// # Errors
    /// There is no such parameter, or it is N and may not be written.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) => {
                let yes = fs::read_to_string(path).is_ok_and(|text| text.trim() == "Y");
                return if yes {
                    Ok(Self { file: None })
                } else {
                    Err(error)
                };
            }
        };
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if text.trim() == "Y" {
            return Ok(Self { file: None });
        }
        set(&mut file, "Y")?;
        Ok(Self { file: Some(file) })
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = set(file, "N")
        {
            eprintln!(
                "a parameter of the fuse module was set to Y and cannot be set back: {error}"
            );
        }
    }
}

fn set(file: &mut File, value: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_comes_back_and_two_do_not_mistake_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parameter");
        let now = || fs::read_to_string(&path).unwrap();
        fs::write(&path, "N").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let raised = Raised::new(&path).unwrap();
                        assert_eq!(now(), "Y");
                        drop(raised);
                    }
                });
            }
        });
        assert_eq!(now(), "N");

        fs::write(&path, "Y\n").unwrap();
        drop(Raised::new(&path).unwrap());
        assert_eq!(now(), "Y\n");
        assert!(Raised::new(&dir.path().join("none")).is_err());
    }
}
