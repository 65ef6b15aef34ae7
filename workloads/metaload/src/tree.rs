//! The tree that the operations work on, and what is known about every file of it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fsetxattr};

use crate::LoadError;

/// Name of the extended attribute that every file has.
pub const XATTR: &str = "user.efuse.test";

/// Largest file of the tree, bytes.
const LARGEST: u64 = 4096;

/// `dirs` folders with `files` files each.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    dirs: u32,
    files: u32,
}

impl Tree {
    /// A tree at this place, which may or may not have been laid out.
    #[must_use]
    pub fn new(root: &Path, dirs: u32, files: u32) -> Self {
        Self {
            root: root.to_owned(),
            dirs,
            files,
        }
    }

    /// The folder that holds it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files in all folders.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.dirs) * u64::from(self.files)
    }

    /// Whether there is no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Folders and files, without the root.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.len() + u64::from(self.dirs)
    }

    fn folder(&self, dir: u64) -> PathBuf {
        self.root.join(format!("d{dir:04}"))
    }

    /// Path of the file with this number.
    #[must_use]
    pub fn file(&self, n: u64) -> PathBuf {
        let (dir, file) = (n / u64::from(self.files), n % u64::from(self.files));
        self.folder(dir).join(format!("f{file:05}"))
    }

    /// Path of a file that does not exist; there are as many as files that do.
    #[must_use]
    pub fn missing(&self, n: u64) -> PathBuf {
        let (dir, file) = (n / u64::from(self.files), n % u64::from(self.files));
        self.folder(dir).join(format!("missing{file:05}"))
    }

    /// Size of the file with this number, bytes.
    #[must_use]
    pub const fn size(n: u64) -> u64 {
        (n * 37) % LARGEST
    }

    /// Value of [`XATTR`] of the file with this number.
    #[must_use]
    pub fn xattr(n: u64) -> Vec<u8> {
        format!("value of file {n}, {}", "x".repeat((n % 64) as usize)).into_bytes()
    }

    /// Writes it, with sizes and extended attributes.
    ///
    /// # Errors
    /// If anything cannot be written.
    pub fn lay_out(&self) -> Result<(), LoadError> {
        let zeros = vec![b'.'; LARGEST as usize];
        for dir in 0..u64::from(self.dirs) {
            let folder = self.folder(dir);
            fs::create_dir(&folder).map_err(LoadError::io("create the folder", &folder))?;
            for file in 0..u64::from(self.files) {
                let n = dir * u64::from(self.files) + file;
                let path = self.file(n);
                let mut f = File::create_new(&path).map_err(LoadError::io("create", &path))?;
                f.write_all(&zeros[..Self::size(n) as usize])
                    .map_err(LoadError::io("write", &path))?;
                fsetxattr(&f, XATTR, &Self::xattr(n), XattrFlags::empty())
                    .map_err(LoadError::errno("set the extended attribute of", &path))?;
            }
        }
        Ok(())
    }
}
