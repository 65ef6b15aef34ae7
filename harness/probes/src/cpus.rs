//! The processors of this machine.

use crate::error::{ProbeError, Result};

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Numbers of the processors that are online.
///
/// # Errors
/// If the kernel's list cannot be read.
pub fn online() -> Result<Vec<usize>> {
    let text = std::fs::read_to_string(ONLINE).map_err(|e| ProbeError::Proc {
        path: ONLINE.into(),
        reason: e.to_string(),
    })?;
    parse(text.trim()).ok_or_else(|| ProbeError::Proc {
        path: ONLINE.into(),
        reason: format!("{:?} is no list of processors", text.trim()),
    })
}

/// `0-3,6`: the kernel's form of a list.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_form_of_a_list() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse(""), None);
        assert_eq!(parse("0-x"), None);
        assert!(!online().unwrap().is_empty());
    }
}
