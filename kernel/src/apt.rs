//! Choosing a kernel among what apt offers.
//!
//! The signed image comes from a source package of its own and appears in the archive some time
//! after, or (as for old point releases) without, the headers. So a version counts only when all
//! five packages exist in it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::SERIES;
use crate::command;
use crate::error::KernelError;

/// The packages of one kernel, all of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Debian's version of all of them, such as `6.12.117-1~deb12u1`.
    pub version: String,
    /// What the kernel calls itself, such as `6.12.117+deb12-cloud-amd64`.
    pub release: String,
    /// `linux-source-6.12`.
    pub source: String,
    /// `linux-image-<release>`, the signed one.
    pub image: String,
    /// `linux-headers-<release>`.
    pub headers: String,
    /// `linux-headers-<release without flavour>-common`.
    pub headers_common: String,
    /// `linux-kbuild-<release without flavour>`.
    pub kbuild: String,
}

impl Selection {
    /// The five package names.
    #[must_use]
    pub fn packages(&self) -> [&str; 5] {
        [
            &self.source,
            &self.image,
            &self.headers,
            &self.headers_common,
            &self.kbuild,
        ]
    }
}

/// Asks apt's package lists (no network) for the newest complete kernel.
///
/// # Errors
/// [`KernelError::NoPackages`] if there is none, with what is missing of the newest.
pub fn select() -> Result<Selection, KernelError> {
    let arch =
        command::output(command::new(command::find("dpkg", "dpkg")?).arg("--print-architecture"))?;
    let cache = command::find("apt-cache", "apt")?;
    let all = command::output(command::new(&cache).args(["pkgnames", "linux-"]))?;
    let wanted: BTreeSet<&str> = all.lines().filter(|name| is_of_interest(name)).collect();
    if wanted.is_empty() {
        return Err(KernelError::NoPackages {
            series: SERIES,
            detail: format!("its lists name no linux-*-{SERIES}* package"),
        });
    }
    let madison = command::output(command::new(&cache).arg("madison").args(wanted))?;
    choose(&madison, arch.trim())
}

fn is_of_interest(name: &str) -> bool {
    ["source", "image", "headers", "kbuild"].iter().any(|kind| {
        name.strip_prefix("linux-")
            .and_then(|rest| rest.strip_prefix(kind))
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_prefix(SERIES))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
    })
}

/// Picks the newest complete kernel from the output of `apt-cache madison`.
///
/// # Errors
/// [`KernelError::NoPackages`] if there is none, with what is missing of the newest.
pub fn choose(madison: &str, arch: &str) -> Result<Selection, KernelError> {
    let mut offered: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in madison.lines() {
        let mut columns = line.split('|').map(str::trim);
        if let (Some(name), Some(version)) = (columns.next(), columns.next()) {
            offered.entry(name).or_default().insert(version);
        }
    }
    let flavour = format!("-cloud-{arch}");
    let mut candidates = Vec::new();
    for (&image, versions) in &offered {
        let Some(release) = image.strip_prefix("linux-image-") else {
            continue;
        };
        // Not the meta package (linux-image-6.12-cloud-amd64), nor -dbg and -unsigned.
        let Some(abi) = release.strip_suffix(&flavour) else {
            continue;
        };
        if !abi.starts_with(&format!("{SERIES}.")) {
            continue;
        }
        candidates.extend(versions.iter().map(|&version| Selection {
            version: version.to_owned(),
            release: release.to_owned(),
            source: format!("linux-source-{SERIES}"),
            image: image.to_owned(),
            headers: format!("linux-headers-{release}"),
            headers_common: format!("linux-headers-{abi}-common"),
            kbuild: format!("linux-kbuild-{abi}"),
        }));
    }
    candidates.sort_by(|a, b| compare_versions(&b.version, &a.version));
    let missing = |selection: &Selection| -> Vec<String> {
        selection
            .packages()
            .iter()
            .filter(|&&name| {
                !offered
                    .get(name)
                    .is_some_and(|versions| versions.contains(selection.version.as_str()))
            })
            .map(|&name| name.to_owned())
            .collect()
    };
    let detail = match candidates.first() {
        None => format!("no signed linux-image-{SERIES}.*{flavour}"),
        Some(newest) => format!(
            "{} {} lacks {}",
            newest.image,
            newest.version,
            missing(newest).join(", ")
        ),
    };
    candidates
        .into_iter()
        .find(|selection| missing(selection).is_empty())
        .ok_or(KernelError::NoPackages {
            series: SERIES,
            detail,
        })
}

/// Compares two Debian package versions as dpkg does.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split_version(a);
    let (epoch_b, upstream_b, revision_b) = split_version(b);
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split_version(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Alternating runs of non-digits (where `~` sorts before everything, even the end, and letters
/// before other characters) and digits (by value).
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        None => 0,
        Some('~') => -1,
        Some(c) if c.is_ascii_alphabetic() => c as i32,
        Some(c) => c as i32 + 256,
    };
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = split_run(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split_run(b, |c| !c.is_ascii_digit());
        let (mut chars_a, mut chars_b) = (text_a.chars(), text_b.chars());
        for _ in 0..text_a.len().max(text_b.len()) {
            let order = rank(chars_a.next()).cmp(&rank(chars_b.next()));
            if order.is_ne() {
                return order;
            }
        }
        let (digits_a, rest_a) = split_run(rest_a, |c| c.is_ascii_digit());
        let (digits_b, rest_b) = split_run(rest_b, |c| c.is_ascii_digit());
        let (digits_a, digits_b) = (
            digits_a.trim_start_matches('0'),
            digits_b.trim_start_matches('0'),
        );
        let order = digits_a
            .len()
            .cmp(&digits_b.len())
            .then_with(|| digits_a.cmp(digits_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split_run(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `apt-cache madison` on Debian 12 with bookworm-security.
    const BOOKWORM: &str = include_str!("../tests/madison-bookworm.txt");

    #[test]
    fn the_newest_complete_kernel_is_chosen() {
        let selection = choose(BOOKWORM, "amd64").unwrap();
        assert_eq!(selection.version, "6.12.117-1~deb12u1");
        assert_eq!(selection.release, "6.12.117+deb12-cloud-amd64");
        assert_eq!(
            selection.packages(),
            [
                "linux-source-6.12",
                "linux-image-6.12.117+deb12-cloud-amd64",
                "linux-headers-6.12.117+deb12-cloud-amd64",
                "linux-headers-6.12.117+deb12-common",
                "linux-kbuild-6.12.117+deb12",
            ]
        );
    }

    #[test]
    fn a_kernel_whose_image_is_not_signed_yet_is_passed_over() {
        let without: String = BOOKWORM
            .lines()
            .filter(|line| !line.contains("linux-image-6.12.117+deb12-cloud-amd64 |"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(without.contains("linux-image-6.12.117+deb12-cloud-amd64-unsigned"));
        let selection = choose(&without, "amd64").unwrap();
        assert_eq!(selection.version, "6.12.115-2~deb12u1");
        assert_eq!(selection.release, "6.12.115+deb12-cloud-amd64");
    }

    #[test]
    fn source_and_headers_must_have_the_version_of_the_image() {
        let without: String = BOOKWORM
            .lines()
            .filter(|line| !line.starts_with("linux-source-6.12 |") || !line.contains("6.12.117-1"))
            .map(|line| format!("{line}\n"))
            .collect();
        let selection = choose(&without, "amd64").unwrap();
        assert_eq!(selection.version, "6.12.115-2~deb12u1");
    }

    #[test]
    fn nothing_complete_is_told_with_what_is_missing() {
        let lonely = "linux-image-6.12.9+deb13-cloud-amd64 | 6.12.9-1 | http://x y/main amd64\n\
                      linux-headers-6.12.9+deb13-cloud-amd64 | 6.12.9-1 | http://x y/main amd64\n";
        let error = choose(lonely, "amd64").unwrap_err().to_string();
        assert!(
            error.contains(
                "linux-image-6.12.9+deb13-cloud-amd64 6.12.9-1 lacks linux-source-6.12, \
                 linux-headers-6.12.9+deb13-common, linux-kbuild-6.12.9+deb13"
            ),
            "{error}"
        );
        let error = choose(BOOKWORM, "riscv64").unwrap_err().to_string();
        assert!(
            error.contains("no signed linux-image-6.12.*-cloud-riscv64"),
            "{error}"
        );
    }

    #[test]
    fn versions_compare_as_dpkg_compares_them() {
        let ascending = [
            "6.12~rc1-1",
            "6.12-1",
            "6.12.9-1",
            "6.12.48-1",
            "6.12.100-1~deb12u1",
            "6.12.100-1",
            "6.12.100-1+b1",
            "6.12.100-2~deb12u1",
            "1:6.1-1",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(a, b), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn names_of_other_series_are_of_no_interest() {
        assert!(is_of_interest("linux-source-6.12"));
        assert!(is_of_interest("linux-kbuild-6.12.9+deb13"));
        assert!(!is_of_interest("linux-source-6.1"));
        assert!(!is_of_interest("linux-image-6.120-cloud-amd64"));
        assert!(!is_of_interest("linux-perf"));
    }
}
