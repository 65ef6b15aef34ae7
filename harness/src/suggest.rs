//! "Did you mean ...?"

/// The nearest of `candidates`, if it is near enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(distance, c)| *distance <= c.len().max(word.len()) / 3 + 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// `unknown WHAT "word"; did you mean X? There are: a, b, c`.
#[must_use]
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let hint = nearest(word, known.iter().copied())
        .map(|n| format!("; did you mean {n}?"))
        .unwrap_or_else(|| ".".to_owned());
    format!(
        "unknown {what} {word:?}{hint} There are: {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["ext4", "fuse", "fuse-passthrough", "efuse-bare"];
        assert_eq!(nearest("efuse-bear", known), Some("efuse-bare"));
        assert_eq!(nearest("fsue", known), Some("fuse"));
        assert_eq!(nearest("zfs-on-root", known), None);
    }
}
