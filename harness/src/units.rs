//! Sizes, times and devices as they are written on the command line and shown.

use std::time::Duration;

use efuse_model::counters::Probes;
use efuse_model::device::Device;

/// Parses `512M`, `2GiB`, `4096`: powers of 1024.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(bad_size(text)),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| bad_size(text))
}

fn bad_size(text: &str) -> String {
    format!("{text:?} is not a size; write bytes or a power of 1024, as in 512M or 2G")
}

/// Parses `20us`, `1.5s`, `2m`, `1h`, `0`: one number, one unit.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time; write 20us, 500ms, 90s, 5m or 1h");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" if number == "0" => 1.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

/// What `--device` says; sizes left out come from the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// `nvme-model[:size[:latency]]`.
    NvmeModel(Option<u64>, Option<u64>),
    /// `brd[:size]`.
    Brd(Option<u64>),
    /// `virtio[:size]`.
    Virtio(Option<u64>),
    /// `loop[:size]`.
    Loop(Option<u64>),
    /// `disk:PATH`.
    Disk(String),
}

/// Completion latency of `nvme-model` where neither the command line nor the workload
/// says one: a 4 KiB read of a fast flash drive, 20 us.
pub const NVME_LATENCY_NS: u64 = 20_000;

/// Device size where neither the command line nor the workload says one.
pub const DEVICE_BYTES: u64 = 2 << 30;

impl DeviceRequest {
    /// Parses the option's value.
    ///
    /// # Errors
    /// One line that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let size_only = || rest.map(parse_size).transpose();
        Ok(match name {
            "nvme-model" => {
                let mut parts = rest.unwrap_or_default().splitn(2, ':');
                let size = parts.next().filter(|s| !s.is_empty());
                let latency = parts.next().map(parse_duration).transpose()?;
                Self::NvmeModel(
                    size.map(parse_size).transpose()?,
                    latency.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
                )
            }
            "brd" => Self::Brd(size_only()?),
            "virtio" => Self::Virtio(size_only()?),
            "loop" => Self::Loop(size_only()?),
            "disk" => match rest {
                Some(path) if path.starts_with("/dev/") => Self::Disk(path.to_owned()),
                _ => return Err("a disk needs its path: disk:/dev/...".to_owned()),
            },
            _ => {
                return Err(format!(
                    "unknown device {name:?}; there are \
                     nvme-model[:size[:latency]], brd[:size], virtio[:size], loop[:size], disk:/dev/..."
                ));
            }
        })
    }

    /// The device, with what was left out taken from the workload's.
    #[must_use]
    pub fn resolve(&self, workload: &Device) -> Device {
        let size = |given: &Option<u64>| given.or(workload.size_bytes()).unwrap_or(DEVICE_BYTES);
        match self {
            Self::NvmeModel(bytes, latency) => Device::NvmeModel {
                size_bytes: size(bytes),
                latency_ns: latency.unwrap_or(match workload {
                    Device::NvmeModel { latency_ns, .. } => *latency_ns,
                    _ => NVME_LATENCY_NS,
                }),
            },
            Self::Brd(bytes) => Device::Brd {
                size_bytes: size(bytes),
            },
            Self::Virtio(bytes) => Device::Virtio {
                size_bytes: size(bytes),
            },
            Self::Loop(bytes) => Device::Loop {
                size_bytes: size(bytes),
            },
            Self::Disk(path) => Device::Disk { path: path.clone() },
        }
    }
}

/// `1.5 GiB`, `512 KiB`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut divisor = 1u64;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1024 {
        divisor *= 1024;
        unit += 1;
    }
    if bytes.is_multiple_of(divisor) {
        format!("{} {}", bytes / divisor, UNITS[unit])
    } else {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let value = bytes as f64 / divisor as f64;
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `8s`, `2m05s`, `1h02m`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

/// `nvme-model 2 GiB, 20 us`.
#[must_use]
pub fn show_device(device: &Device) -> String {
    let size = device.size_bytes().map(show_bytes).unwrap_or_default();
    match device {
        Device::NvmeModel { latency_ns, .. } => {
            let us = latency_ns / 1000;
            format!(
                "{} {size}, {us}.{} us",
                device.name(),
                latency_ns % 1000 / 100
            )
        }
        Device::Disk { path } => format!("{} {path}", device.name()),
        _ => format!("{} {size}", device.name()),
    }
}

/// A figure with as many digits as a reader uses: `25.5k`, `803`, `7.31`, `1.20M`.
#[must_use]
pub fn show_figure(value: f64) -> String {
    let a = value.abs();
    if a >= 1e6 {
        format!("{:.2}M", value / 1e6)
    } else if a >= 1e4 {
        format!("{:.1}k", value / 1e3)
    } else if a >= 100.0 {
        format!("{value:.0}")
    } else if a >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A repetition as it is named in lists: `r2`, with probes `p2`.
#[must_use]
pub fn show_slot(probes: Probes, repetition: u32) -> String {
    match probes {
        Probes::Off => format!("r{repetition}"),
        Probes::On => format!("p{repetition}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        for bad in ["", "G", "1.5G", "-1", "99999999999T", "2X"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_duration("20us"), Ok(Duration::from_micros(20)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "us", "1 day", "-1s", "1e30h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_take_the_rest_from_the_workload() {
        let workload = Device::NvmeModel {
            size_bytes: 3 << 30,
            latency_ns: 5_000,
        };
        let resolve = |s: &str| DeviceRequest::parse(s).unwrap().resolve(&workload);
        assert_eq!(resolve("nvme-model"), workload);
        assert_eq!(
            resolve("nvme-model:1G:80us"),
            Device::NvmeModel {
                size_bytes: 1 << 30,
                latency_ns: 80_000
            }
        );
        assert_eq!(
            resolve("nvme-model::0"),
            Device::NvmeModel {
                size_bytes: 3 << 30,
                latency_ns: 0
            }
        );
        assert_eq!(
            resolve("brd"),
            Device::Brd {
                size_bytes: 3 << 30
            }
        );
        for bad in ["floppy", "disk", "disk:sda", "brd:x", "nvme-model:1G:fast"] {
            assert!(DeviceRequest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_values() {
        assert_eq!(show_bytes(1536 << 20), "1.5 GiB");
        assert_eq!(show_bytes(512 << 10), "512 KiB");
        assert_eq!(show_duration(Duration::from_secs(125)), "2m05s");
        assert_eq!(show_figure(25_512.0), "25.5k");
        assert_eq!(show_figure(7.314), "7.31");
    }
}
