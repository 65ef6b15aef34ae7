//! Sizes and durations as people write them.

const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

const DURATIONS: [(&str, u64); 4] = [("min", 60_000), ("ms", 1), ("s", 1_000), ("h", 3_600_000)];

/// Bytes of `"4KiB"`, `"1.5GiB"`, `"512B"`; a number without a unit is bytes.
///
/// # Errors
/// A sentence that follows the name of the key: what is wrong and what would be right.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("is not a size: \"{text}\"; write a number with B, KiB, MiB, GiB or TiB");
    match SIZES.iter().find(|(unit, _)| text.ends_with(unit)) {
        Some((unit, factor)) => {
            scaled(text.trim_end_matches(unit).trim_end(), *factor).ok_or_else(wrong)
        }
        None => text.parse().map_err(|_| wrong()),
    }
}

/// Milliseconds of `"500ms"`, `"2.5s"`, `"2min"`, `"1h"`.
///
/// # Errors
/// A sentence that follows the name of the key: what is wrong and what would be right.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    DURATIONS
        .iter()
        .find(|(unit, _)| text.ends_with(unit))
        .and_then(|(unit, factor)| scaled(text.trim_end_matches(unit).trim_end(), *factor))
        .ok_or_else(|| {
            format!("is not a duration: \"{text}\"; write a number with ms, s, min or h")
        })
}

/// `number x factor` in decimal, exact; `None` if it is no number, not whole in the
/// end, or too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || !(whole.to_owned() + fraction)
            .bytes()
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let digits = u32::try_from(fraction.len()).ok().filter(|n| *n <= 9)?;
    let divisor = 10u128.pow(digits);
    let mantissa: u128 = (whole.to_owned() + fraction).parse().ok()?;
    let product = mantissa.checked_mul(u128::from(factor))?;
    if product % divisor != 0 {
        return None;
    }
    u64::try_from(product / divisor).ok()
}

/// The shortest exact way to write a number of bytes: `4KiB`, `1MiB`, `1000B`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    let (unit, factor) = SIZES
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZES[SIZES.len() - 1]);
    format!("{}{unit}", bytes / factor)
}

/// The shortest exact way to write a number of milliseconds: `30s`, `1500ms`.
#[must_use]
pub fn human_duration_ms(ms: u64) -> String {
    if ms >= 1000 && ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("0B"), Ok(0));
        for bad in [
            "",
            "KiB",
            "4KB",
            "4k",
            "-1MiB",
            "1e3MiB",
            ".5MiB",
            "0.3B",
            "99999999999TiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration_ms("500ms"), Ok(500));
        assert_eq!(parse_duration_ms("2.5s"), Ok(2500));
        assert_eq!(parse_duration_ms("2min"), Ok(120_000));
        for bad in ["", "5", "s", "1.5 days", "0.0001s"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [0, 1, 1000, 4096, 1 << 20, 3 << 29, 5 << 40] {
            assert_eq!(parse_size(&human_size(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 1500, 60_000] {
            assert_eq!(parse_duration_ms(&human_duration_ms(ms)), Ok(ms));
        }
    }
}
