//! The kernel's own counts of a connection: by which path data went, whether a program looked
//! at it or not, and what its ring channels do.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::{BpfError, Dev};

/// Where the control file system is mounted as a rule.
const USUAL: &str = "/sys/fs/efuse/connections";
const TYPE: &str = "efusectl";

/// Figures of one ring channel by name, such as `in_flight`.
pub type ChannelCounts = BTreeMap<String, u64>;

/// What a line of a channel begins with; its number follows.
const CHANNEL: &str = "channel";

/// What the kernel counts of a connection.
#[derive(Clone, Debug, Default)]
pub struct KernelCounts {
    /// By name, such as `read_backing`; empty if it never had programs.
    pub data: BTreeMap<String, u64>,
    /// Of each ring channel; empty if it has none.
    pub channels: Vec<ChannelCounts>,
}

/// Counts of a connection, all of one moment.
///
/// # Errors
/// If the connection is gone, or the control file system is not mounted and cannot be.
pub fn kernel_counts(dev: Dev) -> Result<KernelCounts, BpfError> {
    Ok(split(counts(dev)?))
}

/// [`KernelCounts::data`] alone.
///
/// # Errors
/// As [`kernel_counts`].
pub fn data_counts(dev: Dev) -> Result<BTreeMap<String, u64>, BpfError> {
    Ok(kernel_counts(dev)?.data)
}

/// [`KernelCounts::channels`] alone.
///
/// # Errors
/// As [`kernel_counts`].
pub fn ring_counts(dev: Dev) -> Result<Vec<ChannelCounts>, BpfError> {
    Ok(kernel_counts(dev)?.channels)
}

fn split(all: BTreeMap<String, u64>) -> KernelCounts {
    let mut data = BTreeMap::new();
    let mut channels = BTreeMap::<u32, ChannelCounts>::new();
    for (name, value) in all {
        let of_channel = name
            .strip_prefix(CHANNEL)
            .and_then(|rest| rest.split_once('_'))
            .and_then(|(number, what)| Some((number.parse().ok()?, what.to_owned())));
        match of_channel {
            Some((number, what)) => {
                channels.entry(number).or_default().insert(what, value);
            }
            None => {
                data.insert(name, value);
            }
        }
    }
    KernelCounts {
        data,
        channels: channels.into_values().collect(),
    }
}

fn counts(dev: Dev) -> Result<BTreeMap<String, u64>, BpfError> {
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
    use super::{KernelCounts, parse, split};

    #[test]
    fn lines_are_names_and_numbers() {
        let counts = parse("read_backing 12\nread_backing_bytes 49152\nodd\n");
        assert_eq!(counts.get("read_backing"), Some(&12));
        assert_eq!(counts.get("read_backing_bytes"), Some(&49152));
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn channels_are_in_the_order_of_their_numbers() {
        let text = "read_cache 1\nchannel10_in_flight 7\nchannel2_in_flight 5\nchannels 3\n";
        let KernelCounts { data, channels } = split(parse(text));
        assert_eq!(data.len(), 2);
        assert_eq!(channels.len(), 2);
        assert_eq!(channels[0]["in_flight"], 5);
        assert_eq!(channels[1]["in_flight"], 7);
    }
}
