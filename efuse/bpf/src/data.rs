//! By which path data went: the kernel's own counts of reads and writes, whether a program looked
//! at them or not.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::{BpfError, Dev};

/// Where the control file system is mounted as a rule.
const USUAL: &str = "/sys/fs/efuse/connections";
const TYPE: &str = "efusectl";

/// Counts of a connection by name, such as `read_backing`; empty if it never had programs.
///
/// # Errors
/// If the connection is gone, or the control file system is not mounted and cannot be.
pub fn data_counts(dev: Dev) -> Result<BTreeMap<String, u64>, BpfError> {
    let file = PathBuf::from(dev.minor().to_string()).join("efuse");
    let path = Path::new(USUAL).join(&file);
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok(parse(&text));
    }
    let private = Private::mount()?;
    let path = private.0.join(&file);
    let text = fs::read_to_string(&path).map_err(|reason| BpfError::Io {
        action: "read",
        path,
        reason,
    })?;
    Ok(parse(&text))
}

/// `NAME NUMBER` a line.
fn parse(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        })
        .collect()
}

/// The control file system, mounted for a moment at a place of our own.
struct Private(PathBuf);

impl Private {
    fn mount() -> Result<Self, BpfError> {
        let template = std::env::temp_dir().join("efuse-control-XXXXXX");
        let error = |action: &'static str, path: &Path| BpfError::Io {
            action,
            path: path.to_owned(),
            reason: std::io::Error::last_os_error(),
        };
        let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let name = c_string(template.as_os_str().as_bytes());
        // SAFETY: mkdtemp writes within the string it is given.
        let name = unsafe {
            let raw = name.into_raw();
            let made = libc::mkdtemp(raw);
            let name = CString::from_raw(raw);
            if made.is_null() {
                return Err(error("make", &template));
            }
            name
        };
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let kind = c_string(TYPE.as_bytes());
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        // SAFETY: all strings end with NUL and live during the call.
        let status = unsafe {
            libc::mount(
                kind.as_ptr(),
                name.as_ptr(),
                kind.as_ptr(),
                flags,
                std::ptr::null(),
            )
        };
        if status < 0 {
            let error = error("mount efusectl at", &path);
            let _ = fs::remove_dir(&path);
            return Err(error);
        }
        Ok(Self(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.0.as_os_str().as_bytes()) {
            // SAFETY: the string ends with NUL and lives during the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_are_names_and_numbers() {
        let counts = parse("read_backing 12\nread_backing_bytes 49152\nodd\n");
        assert_eq!(counts.get("read_backing"), Some(&12));
        assert_eq!(counts.get("read_backing_bytes"), Some(&49152));
        assert_eq!(counts.len(), 2);
    }
}
