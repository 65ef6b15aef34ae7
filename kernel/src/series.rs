//! The module's source: the distribution's `fs/fuse`, changed by our series, with our own files.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::cache::{self, Files};
use crate::diff::Patch;
use crate::error::KernelError;

/// The folder the patches are written against.
pub const FOLDER: &str = "fs/fuse";

/// Parts of `fs/fuse` that the module leaves to the stock FUSE: the other clients of its exported
/// symbols, and dax, which only virtio-fs can use.
const LEFT_OUT: [&str; 3] = ["cuse.c", "dax.c", "virtio_fs.c"];

/// The header written beside our files with what only the tool knows.
const VERSION_HEADER: &str = "efuse_version.h";

/// The patches and files in `kernel/`.
#[derive(Debug, Clone)]
pub struct Series {
    patches: Vec<Patch>,
    ours: Files,
    hash: String,
}

/// A patch in brief, for listings.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The patch's file name.
    pub name: String,
    /// What it does.
    pub subject: String,
    /// The files it changes.
    pub files: Vec<String>,
}

impl Series {
    /// Reads the series: `patches/NNNN-*.patch` in the order of their numbers, and the source
    /// files in `ours`.
    ///
    /// # Errors
    /// When a file cannot be read or is no patch, or two patches have one number.
    pub fn load(patches: &Path, ours: &Path) -> Result<Self, KernelError> {
        let texts = cache::read_files(patches, |name| name.ends_with(".patch"))?;
        let ours = cache::read_files(ours, is_ours)?;
        let mut hasher = blake3::Hasher::new();
        cache::hash_files(&mut hasher, &texts);
        cache::hash_files(&mut hasher, &ours);
        let mut numbers = BTreeSet::new();
        let mut parsed = Vec::new();
        // Four digits and a sorted map: the order of the names is that of the numbers.
        for (name, text) in &texts {
            let number =
                number_of(name).ok_or_else(|| misnamed(name, "NNNN-what-it-does.patch"))?;
            if !numbers.insert(number) {
                return Err(misnamed(name, "a number of its own"));
            }
            let patch = Patch::parse(name, text)?;
            if let Some(path) = patch.paths().find(|path| !is_member(path)) {
                return Err(KernelError::BadPatch {
                    patch: name.clone(),
                    line: 1,
                    what: format!("changes {path}, which is not a source file in {FOLDER}"),
                });
            }
            parsed.push(patch);
        }
        Ok(Self {
            patches: parsed,
            ours,
            hash: cache::short(&hasher),
        })
    }

    /// Hash over all patches and files of ours.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The version by which the module presents itself.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}-{}", env!("CARGO_PKG_VERSION"), self.hash)
    }

    /// The patches in order.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        self.patches
            .iter()
            .map(|patch| Summary {
                name: patch.name.clone(),
                subject: patch.subject.clone(),
                files: patch.paths().map(str::to_owned).collect(),
            })
            .collect()
    }

    /// Names of our own files.
    pub fn own_files(&self) -> impl Iterator<Item = &str> {
        self.ours.keys().map(String::as_str)
    }

    /// What the module takes of the `fs/fuse` in `folder`, unchanged.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn base(folder: &Path) -> Result<Files, KernelError> {
        cache::read_files(folder, is_theirs)
    }

    /// The complete source of the module, made from the `fs/fuse` in `folder`.
    ///
    /// # Errors
    /// When a patch does not apply, or one of our files has the name of one of theirs.
    pub fn compose(&self, folder: &Path) -> Result<Files, KernelError> {
        let mut files = Self::base(folder)?;
        for patch in &self.patches {
            patch.apply(FOLDER, &mut files)?;
        }
        for (name, content) in &self.ours {
            if files.insert(name.clone(), content.clone()).is_some() {
                return Err(KernelError::NameClash { file: name.clone() });
            }
        }
        let header = format!(
            "/* SPDX-License-Identifier: GPL-2.0-only */\n\
             /* Written by the build; the number after the dash stands for the patch series. */\n\
             #define EFUSE_VERSION \"{}\"\n",
            self.version()
        );
        files.insert(VERSION_HEADER.to_owned(), header.into_bytes());
        Ok(files)
    }
}

fn is_theirs(name: &str) -> bool {
    is_c(name) && !LEFT_OUT.contains(&name)
}

fn is_ours(name: &str) -> bool {
    is_c(name) || name == "Kbuild" || name == "Kconfig"
}

fn is_c(name: &str) -> bool {
    !name.starts_with('.') && (name.ends_with(".c") || name.ends_with(".h"))
}

fn is_member(path: &str) -> bool {
    path.strip_prefix(FOLDER)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| !name.contains('/') && is_theirs(name))
}

fn number_of(name: &str) -> Option<&str> {
    let (number, rest) = name.split_once('-')?;
    let numeric = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    (numeric && rest.len() > ".patch".len()).then_some(number)
}

fn misnamed(name: &str, wanted: &str) -> KernelError {
    KernelError::BadPatch {
        patch: name.to_owned(),
        line: 1,
        what: format!("the file's name needs {wanted}: it gives the order"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Kernel {
        folder: tempfile::TempDir,
    }

    impl Kernel {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["patches", "efuse", "fuse"] {
                fs::create_dir(folder.path().join(name)).unwrap();
            }
            let kernel = Self { folder };
            kernel.write("fuse/dev.c", "a\none\nz\n");
            kernel.write("fuse/dax.c", "dax\n");
            kernel.write("fuse/Makefile", "obj-y\n");
            kernel.write("efuse/Kbuild", "obj-m\n");
            kernel
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.folder.path().join(name), content).unwrap();
        }

        fn patch(&self, name: &str, file: &str, from: &str, to: &str) {
            self.write(
                &format!("patches/{name}"),
                &format!(
                    "Subject: [PATCH] {to}\n\nWhy: it must.\n---\ndiff --git a/{file} b/{file}\n\
                     --- a/{file}\n+++ b/{file}\n@@ -1,3 +1,3 @@\n a\n-{from}\n+{to}\n z\n"
                ),
            );
        }

        fn load(&self) -> Result<Series, KernelError> {
            let at = |name| self.folder.path().join(name);
            Series::load(&at("patches"), &at("efuse"))
        }

        fn compose(&self) -> Result<Files, KernelError> {
            self.load()?.compose(&self.folder.path().join("fuse"))
        }
    }

    #[test]
    fn patches_apply_in_the_order_of_their_numbers() {
        let kernel = Kernel::new();
        // Written in the wrong order; each needs the result of the one before.
        kernel.patch("0010-c.patch", "fs/fuse/dev.c", "three", "four");
        kernel.patch("0002-b.patch", "fs/fuse/dev.c", "two", "three");
        kernel.patch("0001-z.patch", "fs/fuse/dev.c", "one", "two");
        let files = kernel.compose().unwrap();
        assert_eq!(files["dev.c"], b"a\nfour\nz\n");
        let subjects: Vec<String> = kernel
            .load()
            .unwrap()
            .summaries()
            .into_iter()
            .map(|summary| summary.subject)
            .collect();
        assert_eq!(subjects, ["two", "three", "four"]);
    }

    #[test]
    fn the_source_is_theirs_without_what_is_left_out_and_ours() {
        let kernel = Kernel::new();
        kernel.write("efuse/ring.c", "ring\n");
        kernel.write("efuse/ring.c.orig", "old\n");
        let files = kernel.compose().unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["Kbuild", "dev.c", "efuse_version.h", "ring.c"]);
        let version = String::from_utf8(files["efuse_version.h"].clone()).unwrap();
        assert!(version.contains(kernel.load().unwrap().hash()), "{version}");
    }

    #[test]
    fn the_hash_follows_patches_and_files() {
        let kernel = Kernel::new();
        let hash = || kernel.load().unwrap().hash().to_owned();
        let first = hash();
        assert_eq!(first, hash());
        kernel.patch("0001-a.patch", "fs/fuse/dev.c", "one", "two");
        let second = hash();
        kernel.write("efuse/bpf.c", "x\n");
        let third = hash();
        assert_eq!(BTreeSet::from([first, second, third]).len(), 3);
    }

    #[test]
    fn misnamed_misplaced_and_clashing_files_are_refused() {
        let kernel = Kernel::new();
        kernel.patch("1-a.patch", "fs/fuse/dev.c", "one", "two");
        let error = kernel.load().unwrap_err().to_string();
        assert!(
            error.contains("1-a.patch") && error.contains("NNNN-"),
            "{error}"
        );

        let kernel = Kernel::new();
        kernel.patch("0001-a.patch", "fs/fuse/dev.c", "one", "two");
        kernel.patch("0001-b.patch", "fs/fuse/dev.c", "two", "three");
        let error = kernel.load().unwrap_err().to_string();
        assert!(
            error.contains("0001-b.patch") && error.contains("number of its own"),
            "{error}"
        );

        for file in ["fs/namei.c", "fs/fuse/dax.c", "fs/fuse/Makefile"] {
            let kernel = Kernel::new();
            kernel.patch("0001-a.patch", file, "one", "two");
            let error = kernel.load().unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }

        let kernel = Kernel::new();
        kernel.write("efuse/dev.c", "mine\n");
        let error = kernel.compose().unwrap_err().to_string();
        assert!(error.contains("kernel/efuse/dev.c"), "{error}");
    }

    /// The series of this project, without any kernel source at hand.
    #[test]
    fn the_real_series_can_be_read() {
        let kernel = Path::new(env!("CARGO_MANIFEST_DIR"));
        let series = Series::load(&kernel.join("patches"), &kernel.join("efuse")).unwrap();
        assert!(!series.summaries().is_empty());
        for summary in series.summaries() {
            assert!(summary.subject.starts_with("efuse: "), "{summary:?}");
        }
        assert!(series.own_files().any(|name| name == "Kbuild"));
    }
}
