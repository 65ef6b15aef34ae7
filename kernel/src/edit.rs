//! Working on the series: as commits of a git repository, and back to patch files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, Layout};
use crate::command;
use crate::error::KernelError;
use crate::series::{FOLDER, Series};

/// The tag on the distribution's unchanged source.
const BASE: &str = "base";

/// Makes a git repository in the new folder `into`, with the distribution's `fs/fuse` as its
/// first commit and each patch of the series as one on top.
///
/// # Errors
/// When the folder exists, git is missing, or a patch does not apply.
pub fn unpack(layout: &Layout, source: &Path, into: &Path) -> Result<(), KernelError> {
    let series = Series::load(&layout.patches(), &layout.ours())?;
    // Our own check first: it names hunk and line where git does not.
    series.compose(source)?;
    let folder = into.join(FOLDER);
    fs::create_dir(into).map_err(KernelError::io("create", into))?;
    fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
    for (name, content) in Series::base(source)? {
        cache::write_atomically(&folder.join(name), &content)?;
    }
    let git = Git::new(into)?;
    git.run(&["init", "--quiet"])?;
    git.run(&["add", "--all"])?;
    git.run(&[
        "commit",
        "--quiet",
        "--message",
        "fs/fuse of the distribution",
    ])?;
    git.run(&["tag", BASE])?;
    let patches: Vec<PathBuf> = series
        .summaries()
        .iter()
        .map(|patch| layout.patches().join(&patch.name))
        .collect();
    let mut am = git.command(&[
        "am",
        "--quiet",
        "--keep-cr",
        "--committer-date-is-author-date",
    ]);
    command::output(am.args(patches)).map(|_| ())
}

/// Replaces the series by the commits after `base` in a repository that [`unpack`] made. Returns
/// the names of the patches. A series that would not load leaves the old one in place.
///
/// # Errors
/// When the repository is not one of [`unpack`]'s, has uncommitted changes, or its commits make
/// no valid series.
pub fn pack(layout: &Layout, source: &Path, from: &Path) -> Result<Vec<String>, KernelError> {
    let git = Git::new(from)?;
    let not = |why: &str| KernelError::NotASeries {
        path: from.to_owned(),
        why: why.to_owned(),
    };
    if git
        .run(&["rev-parse", "--verify", "--quiet", BASE])
        .is_err()
    {
        return Err(not(
            "it has no tag `base`; `kernel edit` makes such a repository",
        ));
    }
    if !git
        .run(&["status", "--porcelain", "--untracked-files=no"])?
        .is_empty()
    {
        return Err(not("it has changes that are not committed"));
    }
    let patches = layout.patches();
    let new = patches.with_extension("new");
    cache::remove_tree(&new)?;
    fs::create_dir_all(&new).map_err(KernelError::io("create", &new))?;
    let result = pack_into(layout, &git, source, &new);
    if let Ok(names) = &result {
        replace_patches(&patches, &new, names)?;
    }
    cache::remove_tree(&new)?;
    result
}

/// Moves the named patches from one folder into another, where all other patches go.
fn replace_patches(old: &Path, new: &Path, names: &[String]) -> Result<(), KernelError> {
    for name in names {
        let path = new.join(name);
        fs::rename(&path, old.join(name)).map_err(KernelError::io("move", &path))?;
    }
    for name in cache::read_files(old, |name| name.ends_with(".patch"))?.into_keys() {
        if !names.contains(&name) {
            let path = old.join(name);
            fs::remove_file(&path).map_err(KernelError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn pack_into(
    layout: &Layout,
    git: &Git<'_>,
    source: &Path,
    new: &Path,
) -> Result<Vec<String>, KernelError> {
    let mut format = git.command(&[
        "format-patch",
        "--quiet",
        // Nothing that changes without the patch having changed: no hash of the commit, no
        // number of patches, no version of git.
        "--zero-commit",
        "--no-numbered",
        "--no-signature",
        "--abbrev=12",
        "--no-renames",
        "--output-directory",
    ]);
    command::output(format.arg(new).arg(format!("{BASE}..HEAD")))?;
    let series = Series::load(new, &layout.ours())?;
    series.compose(source)?;
    Ok(series
        .summaries()
        .into_iter()
        .map(|patch| patch.name)
        .collect())
}

struct Git<'a> {
    program: PathBuf,
    folder: &'a Path,
}

impl<'a> Git<'a> {
    fn new(folder: &'a Path) -> Result<Self, KernelError> {
        Ok(Self {
            program: command::find("git", "git")?,
            folder,
        })
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command::new(&self.program);
        command
            .arg("-C")
            .arg(self.folder)
            // The authors stay those of the patches; these are for the commits made here.
            .args([
                "-c",
                "user.name=kernel edit",
                "-c",
                "user.email=kernel@localhost",
            ])
            .args(["-c", "commit.gpgSign=false", "-c", "core.autocrlf=false"])
            .args(args);
        // A hook that runs us must not make us work on its repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Result<String, KernelError> {
        command::output(&mut self.command(args))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["kernel/patches", "kernel/efuse", "fuse"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("kernel/efuse/Kbuild"), "obj-m\n").unwrap();
        fs::write(root.join("fuse/dev.c"), "a\none\nz\n").unwrap();
        fs::write(root.join("fuse/dax.c"), "dax\n").unwrap();
        fs::write(
            root.join("kernel/patches/0001-two.patch"),
            "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n\
             From: A B <a@b>\nDate: Tue, 24 Nov 2026 18:45:08 +0000\nSubject: [PATCH] efuse: two\n\n\
             Why.\n---\n fs/fuse/dev.c | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n\n\
             diff --git a/fs/fuse/dev.c b/fs/fuse/dev.c\n--- a/fs/fuse/dev.c\n+++ b/fs/fuse/dev.c\n\
             @@ -1,3 +1,3 @@\n a\n-one\n+two\n z\n",
        )
        .unwrap();
        let layout = Layout::new(root).unwrap();
        (folder, layout)
    }

    #[test]
    fn a_series_goes_to_git_and_comes_back() {
        if command::find("git", "git").is_err() {
            eprintln!("a_series_goes_to_git_and_comes_back: SKIPPED, git is not installed");
            return;
        }
        let (folder, layout) = project();
        let source = folder.path().join("fuse");
        let work = folder.path().join("work");
        unpack(&layout, &source, &work).unwrap();
        let dev = work.join("fs/fuse/dev.c");
        assert_eq!(fs::read(&dev).unwrap(), b"a\ntwo\nz\n");
        assert!(!work.join("fs/fuse/dax.c").exists());

        fs::write(&dev, "a\nthree\nz\n").unwrap();
        let error = pack(&layout, &source, &work).unwrap_err().to_string();
        assert!(error.contains("not committed"), "{error}");

        let git = Git::new(&work).unwrap();
        git.run(&["commit", "-qam", "efuse: three"]).unwrap();
        let error = pack(&layout, &source, &work).unwrap_err().to_string();
        assert!(error.contains("say what and why"), "{error}");
        assert!(layout.patches().join("0001-two.patch").exists());

        git.run(&["commit", "-q", "--amend", "-m", "efuse: three\n\nBecause."])
            .unwrap();
        assert_eq!(
            pack(&layout, &source, &work).unwrap(),
            ["0001-efuse-two.patch", "0002-efuse-three.patch"]
        );
        let text = fs::read_to_string(layout.patches().join("0001-efuse-two.patch")).unwrap();
        assert!(text.contains("From: A B <a@b>"), "{text}");
        assert!(!layout.patches().join("0001-two.patch").exists());
        let series = Series::load(&layout.patches(), &layout.ours()).unwrap();
        assert_eq!(series.compose(&source).unwrap()["dev.c"], b"a\nthree\nz\n");
    }

    #[test]
    fn another_repository_is_refused() {
        let (folder, layout) = project();
        if command::find("git", "git").is_err() {
            eprintln!("another_repository_is_refused: SKIPPED, git is not installed");
            return;
        }
        let source = folder.path().join("fuse");
        let error = pack(&layout, &source, folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no tag `base`"), "{error}");
        assert!(unpack(&layout, &source, folder.path()).is_err());
    }
}
