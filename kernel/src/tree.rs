//! Putting the module into a kernel source tree, for a build in that tree.

use std::fs;
use std::path::Path;

use crate::SERIES;
use crate::cache::{self, Files};
use crate::error::KernelError;
use crate::series::Series;

/// The folder it goes to.
const FOLDER: &str = "fs/efuse";

/// A line to add to one of the tree's own files.
struct Hook {
    file: &'static str,
    /// Begins the line after which it goes.
    after: &'static str,
    line: &'static str,
}

const HOOKS: [Hook; 2] = [
    Hook {
        file: "fs/Kconfig",
        after: "source \"fs/fuse/Kconfig\"",
        line: "source \"fs/efuse/Kconfig\"",
    },
    Hook {
        file: "fs/Makefile",
        after: "obj-$(CONFIG_FUSE_FS)",
        line: "obj-$(CONFIG_EFUSE_FS)\t\t+= efuse/",
    },
];

/// Makes `fs/efuse` in `tree` from its `fs/fuse` and the series, and hooks it into the tree's
/// Kconfig and Makefile. Doing it again brings it up to date. Returns the files that changed,
/// relative to the tree.
///
/// # Errors
/// When `tree` is no 6.12 source tree or the series does not apply; the tree is then as before.
pub fn apply(series: &Series, tree: &Path) -> Result<Vec<String>, KernelError> {
    check_version(tree)?;
    let files = series.compose(&tree.join(crate::series::FOLDER))?;
    let hooked = HOOKS
        .iter()
        .map(|hook| Ok((hook.file.to_owned(), hook.applied(tree)?)))
        .collect::<Result<Files, KernelError>>()?;
    // Nothing was written up to here.
    let mut changed: Vec<String> = cache::sync_sources(&tree.join(FOLDER), &files)?
        .into_iter()
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    for (file, content) in &hooked {
        if cache::write_if_changed(&tree.join(file), content)? {
            changed.push(file.clone());
        }
    }
    Ok(changed)
}

impl Hook {
    /// The file's content with the hook in it.
    fn applied(&self, tree: &Path) -> Result<Vec<u8>, KernelError> {
        let path = tree.join(self.file);
        let text = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
        if text.lines().any(|line| line == self.line) {
            return Ok(text.into_bytes());
        }
        let mut found = false;
        let mut result = String::with_capacity(text.len() + self.line.len() + 1);
        for line in text.split_inclusive('\n') {
            result.push_str(line);
            if !found && line.trim_start().starts_with(self.after) {
                found = true;
                result.push_str(self.line);
                result.push('\n');
            }
        }
        if found {
            Ok(result.into_bytes())
        } else {
            Err(KernelError::NotATree {
                path: tree.to_owned(),
                why: format!("its {} has no line `{}`", self.file, self.after),
            })
        }
    }
}

/// The version in the head of a kernel's top Makefile.
#[must_use]
pub fn version_of(makefile: &str) -> Option<(u32, u32)> {
    let value = |name: &str| {
        makefile.lines().take(10).find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().parse().ok())?
        })
    };
    Some((value("VERSION")?, value("PATCHLEVEL")?))
}

fn check_version(tree: &Path) -> Result<(), KernelError> {
    let not = |why: String| KernelError::NotATree {
        path: tree.to_owned(),
        why,
    };
    let makefile = fs::read_to_string(tree.join("Makefile"))
        .map_err(|error| not(format!("its Makefile cannot be read ({error})")))?;
    let (version, patchlevel) = version_of(&makefile)
        .ok_or_else(|| not("its Makefile names no kernel VERSION and PATCHLEVEL".to_owned()))?;
    if format!("{version}.{patchlevel}") != SERIES {
        return Err(not(format!("it is {version}.{patchlevel}")));
    }
    for file in ["fs/fuse/dev.c", "fs/Kconfig", "fs/Makefile"] {
        if !tree.join(file).is_file() {
            return Err(not(format!("it has no {file}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tree = Self { folder };
            for name in ["fs/fuse", "patches", "efuse"] {
                fs::create_dir_all(tree.at(name)).unwrap();
            }
            tree.write(
                "Makefile",
                "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 4\n",
            );
            tree.write("fs/fuse/dev.c", "a\none\nz\n");
            tree.write(
                "fs/Kconfig",
                "source \"fs/autofs/Kconfig\"\nsource \"fs/fuse/Kconfig\"\nif BLOCK\n",
            );
            tree.write(
                "fs/Makefile",
                "obj-$(CONFIG_FUSE_FS)\t\t+= fuse/\nobj-$(CONFIG_X)\t+= x/\n",
            );
            tree.write("efuse/Kbuild", "obj-m\n");
            tree.write(
                "patches/0001-two.patch",
                "Subject: [PATCH] two\n\nWhy.\n---\ndiff --git a/fs/fuse/dev.c b/fs/fuse/dev.c\n\
                 --- a/fs/fuse/dev.c\n+++ b/fs/fuse/dev.c\n@@ -1,3 +1,3 @@\n a\n-one\n+two\n z\n",
            );
            tree
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.at(name)).unwrap()
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.at(name), content).unwrap();
        }

        fn apply(&self) -> Result<Vec<String>, KernelError> {
            let series = Series::load(&self.at("patches"), &self.at("efuse")).unwrap();
            apply(&series, self.folder.path())
        }
    }

    #[test]
    fn the_tree_gets_folder_and_hooks_and_its_own_fuse_stays() {
        let tree = Tree::new();
        assert_eq!(
            tree.apply().unwrap(),
            [
                "fs/efuse/Kbuild",
                "fs/efuse/dev.c",
                "fs/efuse/efuse_version.h",
                "fs/Kconfig",
                "fs/Makefile"
            ]
        );
        assert_eq!(tree.read("fs/efuse/dev.c"), "a\ntwo\nz\n");
        assert_eq!(tree.read("fs/fuse/dev.c"), "a\none\nz\n");
        assert_eq!(
            tree.read("fs/Kconfig"),
            "source \"fs/autofs/Kconfig\"\nsource \"fs/fuse/Kconfig\"\n\
             source \"fs/efuse/Kconfig\"\nif BLOCK\n"
        );
        assert_eq!(
            tree.read("fs/Makefile"),
            "obj-$(CONFIG_FUSE_FS)\t\t+= fuse/\nobj-$(CONFIG_EFUSE_FS)\t\t+= efuse/\n\
             obj-$(CONFIG_X)\t+= x/\n"
        );
    }

    #[test]
    fn a_second_time_changes_nothing_and_follows_the_series() {
        let tree = Tree::new();
        tree.apply().unwrap();
        assert!(tree.apply().unwrap().is_empty());
        tree.write("efuse/bpf.c", "bpf\n");
        assert_eq!(
            tree.apply().unwrap(),
            ["fs/efuse/bpf.c", "fs/efuse/efuse_version.h"]
        );
    }

    #[test]
    fn an_error_leaves_the_tree_alone() {
        let tree = Tree::new();
        tree.write("fs/fuse/dev.c", "a\nother\nz\n");
        let error = tree.apply().unwrap_err().to_string();
        assert!(
            error.contains("0001-two.patch does not apply: hunk 1 of fs/fuse/dev.c"),
            "{error}"
        );
        assert!(!tree.at("fs/efuse").exists());

        let tree = Tree::new();
        tree.write("fs/Makefile", "obj-y += x/\n");
        let error = tree.apply().unwrap_err().to_string();
        assert!(error.contains("fs/Makefile has no line"), "{error}");
        assert!(!tree.at("fs/efuse").exists());
    }

    #[test]
    fn other_trees_are_refused_with_the_reason() {
        let tree = Tree::new();
        tree.write("Makefile", "VERSION = 6\nPATCHLEVEL = 18\n");
        assert!(
            tree.apply()
                .unwrap_err()
                .to_string()
                .ends_with("it is 6.18")
        );
        tree.write("Makefile", "all:\n\techo\n");
        assert!(
            tree.apply()
                .unwrap_err()
                .to_string()
                .contains("names no kernel VERSION")
        );
        fs::remove_file(tree.at("Makefile")).unwrap();
        assert!(
            tree.apply()
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
        let tree = Tree::new();
        fs::remove_file(tree.at("fs/fuse/dev.c")).unwrap();
        assert!(
            tree.apply()
                .unwrap_err()
                .to_string()
                .contains("no fs/fuse/dev.c")
        );
    }
}
