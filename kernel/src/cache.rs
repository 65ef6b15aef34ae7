//! Where things are kept, under which lock, and how a folder is brought to a wanted content
//! without touching what is right already.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::KernelError;

/// The folders of the cache.
///
/// ```text
/// target/kernel/lock            held while anything below changes
///               current.json    the kernel in use
///               deb/            the packages as downloaded
///               <version>/      unpacked: source/ headers/ image/, the module's build/, and the
///                               debug kernel's debug/
/// ```
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    base: PathBuf,
}

impl Layout {
    /// The cache of the project at `root`.
    ///
    /// # Errors
    /// When the path is one below which make cannot work, or the cache cannot be created.
    pub fn new(root: &Path) -> Result<Self, KernelError> {
        let root = root
            .canonicalize()
            .map_err(KernelError::io("find the project's root", root))?;
        let usable = root.to_str().is_some_and(|path| {
            !path.contains(|c: char| c.is_whitespace() || ":;%#$&'\"\\*?|<>()=".contains(c))
        });
        if !usable {
            return Err(KernelError::UnusablePath { path: root });
        }
        let base = root.join("target/kernel");
        fs::create_dir_all(&base).map_err(KernelError::io("create", &base))?;
        Ok(Self { root, base })
    }

    /// The project's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cache's own folder.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Downloaded packages.
    #[must_use]
    pub fn deb(&self) -> PathBuf {
        self.base.join("deb")
    }

    /// The record of the kernel in use.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.base.join("current.json")
    }

    /// The unpacked kernel of a package version. A tilde would be fine for make but not for
    /// every shell line it writes.
    #[must_use]
    pub fn kernel(&self, version: &str) -> PathBuf {
        self.base.join(version.replace(['~', ':'], "_"))
    }

    /// The patch series.
    #[must_use]
    pub fn patches(&self) -> PathBuf {
        self.root.join("kernel/patches")
    }

    /// The debug kernel's configuration, as far as it is not `allnoconfig`'s.
    #[must_use]
    pub fn debug_config(&self) -> PathBuf {
        self.root.join("kernel/debug.config")
    }

    /// Our own source files.
    #[must_use]
    pub fn ours(&self) -> PathBuf {
        self.root.join("kernel/efuse")
    }
}

/// What one process at a time may change. Who needs both takes them in this order.
#[derive(Clone, Copy, Debug)]
pub enum Lock {
    /// Packages, and the module for the packaged kernel.
    Module,
    /// The debug kernel, whose build takes so long that others do not wait for it.
    Debug,
}

impl Lock {
    /// Of the lock file in the cache.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Module => "lock",
            Self::Debug => "debug-lock",
        }
    }
}

/// Takes one of the cache's locks; it is given back when the file is dropped, whatever ends the
/// process.
///
/// # Errors
/// When the lock file cannot be made or locked.
pub fn lock(
    layout: &Layout,
    lock: Lock,
    progress: &mut dyn FnMut(&str),
) -> Result<File, KernelError> {
    let path = layout.base.join(lock.name());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(KernelError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress("waiting for another kernel build to end");
            file.lock().map_err(KernelError::io("lock", &path))?;
            Ok(file)
        }
        Err(TryLockError::Error(source)) => Err(KernelError::io("lock", &path)(source)),
    }
}

/// Files by their path relative to some folder, with their contents.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads the regular files directly in a folder whose names `wanted` accepts.
///
/// # Errors
/// When the folder or one of the files cannot be read.
pub fn read_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Files, KernelError> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).map_err(KernelError::io("read", folder))? {
        let path = entry.map_err(KernelError::io("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name
            && wanted(name)
            && path.is_file()
        {
            let content = fs::read(&path).map_err(KernelError::io("read", &path))?;
            files.insert(name.to_owned(), content);
        }
    }
    Ok(files)
}

/// Feeds files into a hash so that no two different sets of files feed the same bytes.
pub fn hash_files(hasher: &mut blake3::Hasher, files: &Files) {
    hasher.update(&(files.len() as u64).to_le_bytes());
    for (name, content) in files {
        hash_text(hasher, name);
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
}

/// Over all that goes into a build: what is told of it, and its source files.
#[must_use]
pub fn hash_build(texts: &[&str], files: &Files) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hash_text(&mut hasher, text);
    }
    hash_files(&mut hasher, files);
    short(&hasher)
}

/// Feeds a text into a hash, delimited.
fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// The 16 hexadecimal digits by which a hash is told apart everywhere in the project.
#[must_use]
pub fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Writes `content` to `path` unless it is there already, so that the file's time stamp changes
/// only when its content does: make decides by it. Returns whether it was written.
///
/// # Errors
/// When the file cannot be written.
pub fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool, KernelError> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    write_atomically(path, content)?;
    Ok(true)
}

/// Writes a file so that it has either its old or its new content, never a part.
///
/// # Errors
/// When the file cannot be written.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), KernelError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(KernelError::io("write", path))
}

/// Brings the source files of a folder to exactly `files`; other files (what a build left) stay,
/// but source files that are no longer wanted go. Returns the names that were written or removed.
///
/// # Errors
/// When the folder cannot be read or written.
pub fn sync_sources(folder: &Path, files: &Files) -> Result<Vec<String>, KernelError> {
    fs::create_dir_all(folder).map_err(KernelError::io("create", folder))?;
    let mut changed = Vec::new();
    for (name, content) in files {
        if write_if_changed(&folder.join(name), content)? {
            changed.push(name.clone());
        }
    }
    let present: BTreeSet<String> = read_files(folder, is_source)?.into_keys().collect();
    for name in present {
        if !files.contains_key(&name) {
            let path = folder.join(&name);
            fs::remove_file(&path).map_err(KernelError::io("remove", &path))?;
            changed.push(name);
        }
    }
    Ok(changed)
}

/// Whether a file in the build folder is source rather than something a build made there.
fn is_source(name: &str) -> bool {
    let generated = name.ends_with(".mod.c") || name.starts_with('.');
    !generated && (name.ends_with(".c") || name.ends_with(".h"))
}

/// Removes a folder with all that is in it; it may be missing.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_tree(folder: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io("remove", folder)(source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect()
    }

    fn hash(files: &Files) -> String {
        let mut hasher = blake3::Hasher::new();
        hash_files(&mut hasher, files);
        short(&hasher)
    }

    #[test]
    fn the_hash_tells_names_contents_and_their_borders_apart() {
        let sets = [
            files(&[]),
            files(&[("a", "")]),
            files(&[("a", "x")]),
            files(&[("ax", "")]),
            files(&[("a", ""), ("b", "x")]),
            files(&[("a", "b"), ("x", "")]),
        ];
        let hashes: BTreeSet<String> = sets.iter().map(hash).collect();
        assert_eq!(hashes.len(), sets.len());
        assert_eq!(hash(&sets[4]), hash(&sets[4].clone()));
    }

    #[test]
    fn only_changed_sources_are_written_and_build_products_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let first = files(&[("a.c", "1"), ("b.c", "1"), ("Kbuild", "x")]);
        assert_eq!(
            sync_sources(folder.path(), &first).unwrap(),
            ["Kbuild", "a.c", "b.c"]
        );
        for product in ["a.o", "efuse.mod.c", ".a.o.cmd"] {
            fs::write(at(product), "built").unwrap();
        }
        let before = fs::metadata(at("a.c")).unwrap().modified().unwrap();
        let second = files(&[("a.c", "1"), ("c.h", "2"), ("Kbuild", "x")]);
        assert_eq!(
            sync_sources(folder.path(), &second).unwrap(),
            ["c.h", "b.c"]
        );
        assert_eq!(fs::metadata(at("a.c")).unwrap().modified().unwrap(), before);
        assert!(!at("b.c").exists());
        for product in ["a.o", "efuse.mod.c", ".a.o.cmd"] {
            assert!(at(product).exists(), "{product}");
        }
        assert!(sync_sources(folder.path(), &second).unwrap().is_empty());
    }

    #[test]
    fn a_path_that_make_takes_apart_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("two words");
        fs::create_dir(&root).unwrap();
        let error = Layout::new(&root).unwrap_err().to_string();
        assert!(error.contains("two words"), "{error}");
        assert!(Layout::new(folder.path()).is_ok());
    }

    #[test]
    fn the_second_holder_of_the_lock_is_told_that_it_waits() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        let first = lock(&layout, Lock::Module, &mut |_| {
            panic!("nobody else holds it")
        })
        .unwrap();
        let other = lock(&layout, Lock::Debug, &mut |_| panic!("nor this one"));
        assert!(other.is_ok());
        let (told, hear) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                lock(&layout, Lock::Module, &mut |line| {
                    told.send(line.to_owned()).unwrap();
                })
            });
            assert!(hear.recv().unwrap().contains("waiting"));
            drop(first);
            assert!(second.join().unwrap().is_ok());
        });
    }
}
