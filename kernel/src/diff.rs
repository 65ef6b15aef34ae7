//! Patches in git's format: reading them and applying them in memory.
//!
//! Applied in memory because the result is compared with what is in the build folder before
//! anything is written there, and because an error must name patch, hunk and line. Context has to
//! match exactly; only its position may have moved, as it does between point releases.

use std::path::Path;

use crate::cache::Files;
use crate::error::KernelError;

/// A patch: one purpose, any number of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The patch's file name.
    pub name: String,
    /// The first line of its message, without `[PATCH n/m]`.
    pub subject: String,
    files: Vec<FilePatch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FilePatch {
    /// As in the tree, such as `fs/fuse/dev.c`.
    path: String,
    hunks: Vec<Hunk>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hunk {
    /// Line of the first old line, from 1.
    start: usize,
    /// Context and removed lines, each with its line end.
    old: Vec<Vec<u8>>,
    /// Context and added lines.
    new: Vec<Vec<u8>>,
}

impl Patch {
    /// Reads a patch file.
    ///
    /// # Errors
    /// [`KernelError::BadPatch`] for anything but changes to the text of existing files with a
    /// message of subject and body.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, KernelError> {
        Parser {
            name,
            lines: text.split_inclusive(|&byte| byte == b'\n').collect(),
            at: 0,
        }
        .patch()
    }

    /// The files it changes, as in the tree.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.path.as_str())
    }

    /// Applies the patch to files that are direct members of `folder` (such as `fs/fuse`).
    ///
    /// # Errors
    /// [`KernelError::DoesNotApply`] with the first hunk that does not fit.
    pub fn apply(&self, folder: &str, files: &mut Files) -> Result<(), KernelError> {
        for change in &self.files {
            let name = Path::new(&change.path)
                .strip_prefix(folder)
                .ok()
                .and_then(Path::to_str)
                .unwrap_or_default();
            let Some(content) = files.get_mut(name) else {
                return Err(KernelError::DoesNotApply {
                    patch: self.name.clone(),
                    hunk: 1,
                    file: change.path.clone(),
                    line: change.hunks.first().map_or(0, |hunk| hunk.start),
                    what: format!("finds no such file among those the module takes from {folder}"),
                });
            };
            *content = change.apply(content, &self.name)?;
        }
        Ok(())
    }
}

impl FilePatch {
    fn apply(&self, content: &[u8], patch: &str) -> Result<Vec<u8>, KernelError> {
        let lines: Vec<&[u8]> = content.split_inclusive(|&byte| byte == b'\n').collect();
        let mut result = Vec::with_capacity(content.len());
        // Lines before `done` are in the result; later hunks are expected to have moved as the
        // ones before them did.
        let mut done = 0;
        let mut moved: isize = 0;
        for (number, hunk) in self.hunks.iter().enumerate() {
            let expected = (hunk.start.saturating_sub(1)).saturating_add_signed(moved);
            let place =
                hunk.find(&lines, done, expected)
                    .ok_or_else(|| KernelError::DoesNotApply {
                        patch: patch.to_owned(),
                        hunk: number + 1,
                        file: self.path.clone(),
                        line: expected + 1,
                        what: hunk.mismatch(&lines, expected),
                    })?;
            moved += place.cast_signed() - expected.cast_signed();
            result.extend(lines[done..place].concat());
            result.extend(hunk.new.concat());
            done = place + hunk.old.len();
        }
        result.extend(lines[done..].concat());
        Ok(result)
    }
}

impl Hunk {
    fn fits(&self, lines: &[&[u8]], place: usize) -> bool {
        lines
            .get(place..place + self.old.len())
            .is_some_and(|there| there.iter().zip(&self.old).all(|(a, b)| a == b))
    }

    /// The place nearest to `expected`, and not before `from`, where the old lines are.
    fn find(&self, lines: &[&[u8]], from: usize, expected: usize) -> Option<usize> {
        (0..=lines.len())
            .flat_map(|distance| {
                [
                    expected.checked_sub(distance),
                    expected.checked_add(distance),
                ]
            })
            .flatten()
            .find(|&place| place >= from && self.fits(lines, place))
    }

    /// Says how the source differs where the hunk was expected.
    fn mismatch(&self, lines: &[&[u8]], expected: usize) -> String {
        let show = |line: &[u8]| String::from_utf8_lossy(line).trim().to_owned();
        for (offset, wanted) in self.old.iter().enumerate() {
            match lines.get(expected + offset) {
                None => return "reaches beyond the end of the file".to_owned(),
                Some(there) if there != wanted => {
                    return format!(
                        "finds `{}` at line {} where it expects `{}`, and its context nowhere else",
                        show(there),
                        expected + offset + 1,
                        show(wanted),
                    );
                }
                Some(_) => {}
            }
        }
        "overlaps the hunk before it".to_owned()
    }
}

struct Parser<'a> {
    name: &'a str,
    lines: Vec<&'a [u8]>,
    at: usize,
}

impl Parser<'_> {
    fn bad<T>(&self, what: impl Into<String>) -> Result<T, KernelError> {
        Err(KernelError::BadPatch {
            patch: self.name.to_owned(),
            line: self.at + 1,
            what: what.into(),
        })
    }

    fn patch(mut self) -> Result<Patch, KernelError> {
        let subject = self.message()?;
        let mut files = Vec::new();
        while let Some(&line) = self.lines.get(self.at) {
            if line.starts_with(b"diff --git ") {
                files.push(self.file()?);
            } else if line == b"-- \n" {
                break;
            } else if !files.is_empty() && !line.trim_ascii().is_empty() {
                return self.bad("a hunk has more lines than its header says");
            } else {
                self.at += 1;
            }
        }
        if files.is_empty() {
            return self.bad("changes no file");
        }
        Ok(Patch {
            name: self.name.to_owned(),
            subject,
            files,
        })
    }

    /// Reads up to the first `---` or diff; a patch has to say what it does and why.
    fn message(&mut self) -> Result<String, KernelError> {
        let mut subject: Option<String> = None;
        let mut in_header = true;
        let mut body = false;
        while let Some(&line) = self.lines.get(self.at) {
            if line == b"---\n" || line.starts_with(b"diff --git ") {
                break;
            }
            let text = String::from_utf8_lossy(line);
            if let Some(first) = text.strip_prefix("Subject: ") {
                let first = first.trim();
                let first = match first.strip_prefix("[PATCH") {
                    Some(rest) => rest.split_once(']').map_or(rest, |(_, rest)| rest).trim(),
                    None => first,
                };
                subject = Some(first.to_owned());
            } else if text.trim().is_empty() {
                in_header = false;
            } else if let Some(subject) = &mut subject {
                if !in_header {
                    body = true;
                } else if text.starts_with(' ') {
                    // A folded header line continues the subject.
                    subject.push_str(text.trim_end());
                }
            }
            self.at += 1;
        }
        match subject {
            Some(subject) if body => Ok(subject),
            Some(_) => self.bad("its message has a subject and nothing else: say what and why"),
            None => self.bad("has no Subject: line (make it with git format-patch)"),
        }
    }

    fn file(&mut self) -> Result<FilePatch, KernelError> {
        self.at += 1;
        let mut old = None;
        while let Some(&line) = self.lines.get(self.at) {
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end();
            if let Some(path) = text.strip_prefix("--- ") {
                old = Some(path.to_owned());
            } else if let Some(new) = text.strip_prefix("+++ ") {
                let path = match (old.as_deref(), new) {
                    (Some("/dev/null"), _) => {
                        return self.bad("adds a file: ours belong in kernel/efuse/");
                    }
                    (_, "/dev/null") => return self.bad("removes a file: leave it out of Kbuild"),
                    (Some(old), new) => match (old.strip_prefix("a/"), new.strip_prefix("b/")) {
                        (Some(a), Some(b)) if a == b => a.to_owned(),
                        _ => return self.bad("its paths are not a/X and b/X of one file X"),
                    },
                    (None, _) => return self.bad("has +++ without ---"),
                };
                self.at += 1;
                let hunks = self.hunks()?;
                return Ok(FilePatch { path, hunks });
            } else if !text.starts_with("index ") {
                return self.bad(format!(
                    "`{text}`: only changes to the text of existing files are understood"
                ));
            }
            self.at += 1;
        }
        self.bad("ends within a file's header")
    }

    fn hunks(&mut self) -> Result<Vec<Hunk>, KernelError> {
        let mut hunks = Vec::new();
        while let Some(&line) = self.lines.get(self.at) {
            if !line.starts_with(b"@@ ") {
                break;
            }
            hunks.push(self.hunk(line)?);
        }
        if hunks.is_empty() {
            return self.bad("has a file without hunks");
        }
        Ok(hunks)
    }

    fn hunk(&mut self, header: &[u8]) -> Result<Hunk, KernelError> {
        let text = String::from_utf8_lossy(header);
        let mut words = text.split_whitespace().skip(1);
        let old = words.next().and_then(|word| range(word, '-'));
        let new = words.next().and_then(|word| range(word, '+'));
        let (Some((start, old_lines)), Some((_, new_lines))) = (old, new) else {
            return self.bad("has a malformed @@ line");
        };
        self.at += 1;
        let mut hunk = Hunk {
            start,
            ..Hunk::default()
        };
        while hunk.old.len() < old_lines || hunk.new.len() < new_lines {
            let Some(&line) = self.lines.get(self.at) else {
                return self.bad("ends within a hunk");
            };
            match line.split_first() {
                Some((b' ', rest)) => {
                    hunk.old.push(rest.to_owned());
                    hunk.new.push(rest.to_owned());
                }
                // Mailers and editors strip the blank of an empty context line.
                Some((b'\n', _)) => {
                    hunk.old.push(b"\n".to_vec());
                    hunk.new.push(b"\n".to_vec());
                }
                Some((b'-', rest)) => hunk.old.push(rest.to_owned()),
                Some((b'+', rest)) => hunk.new.push(rest.to_owned()),
                _ => return self.bad("has fewer lines in a hunk than its header says"),
            }
            self.at += 1;
            self.no_newline(line, &mut hunk);
        }
        if hunk.old.len() > old_lines || hunk.new.len() > new_lines {
            return self.bad("has more lines in a hunk than its header says");
        }
        Ok(hunk)
    }

    /// `\ No newline at end of file` takes the line end off the line before it.
    fn no_newline(&mut self, before: &[u8], hunk: &mut Hunk) {
        if !self
            .lines
            .get(self.at)
            .is_some_and(|line| line.starts_with(b"\\ "))
        {
            return;
        }
        let sides = match before.first() {
            Some(b'-') => [Some(&mut hunk.old), None],
            Some(b'+') => [Some(&mut hunk.new), None],
            _ => [Some(&mut hunk.old), Some(&mut hunk.new)],
        };
        for line in sides
            .into_iter()
            .flatten()
            .filter_map(|side| side.last_mut())
        {
            line.pop_if(|byte| *byte == b'\n');
        }
        self.at += 1;
    }
}

/// `-12,7` or `-12` as start and number of lines.
fn range(word: &str, sign: char) -> Option<(usize, usize)> {
    let word = word.strip_prefix(sign)?;
    match word.split_once(',') {
        Some((start, lines)) => Some((start.parse().ok()?, lines.parse().ok()?)),
        None => Some((word.parse().ok()?, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "From 0 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\n\
        Subject: [PATCH 1/2] fuse: say two\n\nBecause one is not enough.\n---\n x.c | 2 +-\n\n";
    const DIFF: &str = "diff --git a/fs/fuse/x.c b/fs/fuse/x.c\nindex 1..2 100644\n\
        --- a/fs/fuse/x.c\n+++ b/fs/fuse/x.c\n@@ -2,3 +2,3 @@ func\n b\n-one\n+two\n d\n-- \n2.39\n";

    fn source(text: &str) -> Files {
        Files::from([("x.c".to_owned(), text.as_bytes().to_vec())])
    }

    fn patch(text: &str) -> Result<Patch, KernelError> {
        Patch::parse("0001-two.patch", text.as_bytes())
    }

    fn applied(text: &str, to: &str) -> Result<String, String> {
        let mut files = source(to);
        patch(text)
            .unwrap()
            .apply("fs/fuse", &mut files)
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(files.remove("x.c").unwrap()).unwrap())
    }

    #[test]
    fn a_patch_is_read_and_applied() {
        let text = format!("{MESSAGE}{DIFF}");
        let patch = patch(&text).unwrap();
        assert_eq!(patch.subject, "fuse: say two");
        assert_eq!(patch.paths().collect::<Vec<_>>(), ["fs/fuse/x.c"]);
        assert_eq!(
            applied(&text, "a\nb\none\nd\ne\n").unwrap(),
            "a\nb\ntwo\nd\ne\n"
        );
    }

    #[test]
    fn context_may_have_moved_either_way() {
        let text = format!("{MESSAGE}{DIFF}");
        assert_eq!(applied(&text, "b\none\nd\n").unwrap(), "b\ntwo\nd\n");
        assert_eq!(
            applied(&text, "1\n2\n3\n4\nb\none\nd\n").unwrap(),
            "1\n2\n3\n4\nb\ntwo\nd\n"
        );
    }

    #[test]
    fn of_two_places_the_nearer_one_is_taken() {
        let text = format!("{MESSAGE}{DIFF}");
        assert_eq!(
            applied(&text, "a\na\nb\none\nd\n1\n2\n3\n4\nb\none\nd\n").unwrap(),
            "a\na\nb\ntwo\nd\n1\n2\n3\n4\nb\none\nd\n"
        );
    }

    #[test]
    fn a_changed_context_is_an_error_with_patch_hunk_and_line() {
        let text = format!("{MESSAGE}{DIFF}");
        assert_eq!(
            applied(&text, "a\nb\nthree\nd\n").unwrap_err(),
            "0001-two.patch does not apply: hunk 1 of fs/fuse/x.c (expected near line 2) finds \
             `three` at line 3 where it expects `one`, and its context nowhere else"
        );
        assert!(
            applied(&text, "a\nb\n")
                .unwrap_err()
                .contains("beyond the end")
        );
        let error = patch(&text.replace("fuse/x.c", "fuse/y.c"))
            .unwrap()
            .apply("fs/fuse", &mut source("a\n"))
            .unwrap_err();
        assert!(error.to_string().contains("finds no such file"), "{error}");
    }

    #[test]
    fn the_second_hunk_is_the_one_named_when_it_fails() {
        let text = format!(
            "{MESSAGE}{}@@ -9,2 +9,3 @@\n x\n+y\n z\n",
            DIFF.strip_suffix("-- \n2.39\n").unwrap()
        );
        let fits = "0\n0\n0\na\nb\none\nd\n1\n2\n3\nx\nz\n";
        assert_eq!(
            applied(&text, fits).unwrap(),
            "0\n0\n0\na\nb\ntwo\nd\n1\n2\n3\nx\ny\nz\n"
        );
        let error = applied(&text, &fits.replace('z', "Z")).unwrap_err();
        assert!(error.contains("hunk 2 of fs/fuse/x.c"), "{error}");
    }

    #[test]
    fn a_missing_line_end_is_kept_and_mended() {
        let text = format!(
            "{MESSAGE}diff --git a/fs/fuse/x.c b/fs/fuse/x.c\n--- a/fs/fuse/x.c\n+++ b/fs/fuse/x.c\n\
             @@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n"
        );
        assert_eq!(applied(&text, "a\nb").unwrap(), "a\nc\n");
        assert!(applied(&text, "a\nb\n").is_err());
    }

    #[test]
    fn what_is_no_such_patch_is_refused_with_its_line() {
        let refused = [
            (DIFF.to_owned(), "no Subject"),
            (
                format!("Subject: x\n\n---\n{DIFF}"),
                "subject and nothing else",
            ),
            (MESSAGE.to_owned(), "changes no file"),
            (
                format!(
                    "{MESSAGE}{}",
                    DIFF.replace("--- a/fs/fuse/x.c", "--- /dev/null")
                ),
                "adds a file",
            ),
            (
                format!(
                    "{MESSAGE}{}",
                    DIFF.replace("+++ b/fs/fuse/x.c", "+++ b/fs/fuse/y.c")
                ),
                "a/X and b/X",
            ),
            (
                format!(
                    "{MESSAGE}{}",
                    DIFF.replace("index 1..2 100644", "rename from z.c")
                ),
                "only changes to the text",
            ),
            (
                format!("{MESSAGE}{}", DIFF.replace("-2,3", "-2,4")),
                "than its header says",
            ),
            (
                format!("{MESSAGE}{}", DIFF.replace("@@ -2,3", "@@ -2;3")),
                "malformed",
            ),
            (
                format!("{MESSAGE}{}", DIFF.replace("-- \n2.39\n", " e\n")),
                "more lines",
            ),
        ];
        for (text, what) in refused {
            let error = patch(&text).unwrap_err().to_string();
            assert!(error.starts_with("0001-two.patch, line "), "{error}");
            assert!(error.contains(what), "{error} should say {what}");
        }
    }
}
