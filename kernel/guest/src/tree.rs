//! The files of an initramfs, and the archive made of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::error::GuestError;
use crate::{libraries, tool};

/// Folders that are one and the same in the guest, as on a system with a merged `/usr`; the
/// longer prefixes first.
const ALIASES: &[(&str, &str)] = &[
    ("usr/local/sbin", "bin"),
    ("usr/local/bin", "bin"),
    ("usr/sbin", "bin"),
    ("usr/bin", "bin"),
    ("sbin", "bin"),
    ("usr/lib64", "lib64"),
    ("usr/lib", "lib"),
];

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    /// A file that this host program writes decompressed when given `-dc` and the path.
    Compressed(PathBuf, PathBuf),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Folder(u32),
    File(u32, Source),
    Link(String),
}

/// Paths (relative to the root, `/`-separated, free of aliases) and what is there. Sorted, so
/// that a folder comes before what is in it.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a folder and those above it.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> Result<(), GuestError> {
        let path = normalised(Path::new(path))?;
        self.above(&path);
        self.0.insert(path, Node::Folder(mode));
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<(), GuestError> {
        // The links that make the aliases are the one thing that stands at an aliased path.
        let path = if ALIASES
            .iter()
            .any(|(alias, _)| path.trim_start_matches('/') == *alias)
        {
            path.trim_start_matches('/').to_owned()
        } else {
            normalised(Path::new(path))?
        };
        self.above(&path);
        self.0.insert(path, Node::Link(target.to_owned()));
        Ok(())
    }

    /// Adds a symbolic link unless something is there already.
    pub(crate) fn link_if_absent(&mut self, path: &str, target: &str) -> Result<(), GuestError> {
        if self.0.contains_key(&normalised(Path::new(path))?) {
            return Ok(());
        }
        self.link(path, target)
    }

    /// The links that make every alias lead to its folder.
    pub(crate) fn aliases(&mut self) -> Result<(), GuestError> {
        for (alias, target) in ALIASES {
            let up = "../".repeat(alias.matches('/').count());
            self.folder(target, 0o755)?;
            self.link(alias, &format!("{up}{target}"))?;
        }
        Ok(())
    }

    /// Adds a file with these bytes.
    pub(crate) fn bytes(
        &mut self,
        path: &Path,
        mode: u32,
        bytes: Vec<u8>,
    ) -> Result<(), GuestError> {
        self.insert_file(path, mode, Source::Bytes(bytes))
    }

    /// Adds a file that is compressed on the host, by its extension, and plain in the guest.
    pub(crate) fn decompressed(&mut self, host: &Path, path: &Path) -> Result<(), GuestError> {
        let (program, package) = match host.extension().and_then(OsStr::to_str) {
            Some("xz") => ("xz", "xz-utils"),
            Some("zst") => ("zstd", "zstd"),
            Some("gz") => ("gzip", "gzip"),
            _ => return self.insert_file(path, 0o644, Source::File(host.to_owned())),
        };
        let program = tool::find(program, package)?;
        self.insert_file(path, 0o644, Source::Compressed(program, host.to_owned()))
    }

    /// Adds a program with just these libraries.
    pub(crate) fn program(
        &mut self,
        host: &Path,
        path: &Path,
        closure: &libraries::Closure,
    ) -> Result<(), GuestError> {
        self.insert_file(path, 0o755, Source::File(host.to_owned()))?;
        self.libraries(closure, None)
    }

    /// Adds a file of the host with the libraries it needs, if it is a program, or a folder with
    /// all that is in it. What `below` has already is left out.
    pub(crate) fn host(
        &mut self,
        host: &Path,
        path: &Path,
        below: Option<&Self>,
    ) -> Result<(), GuestError> {
        let metadata = fs::metadata(host).map_err(GuestError::io("read", host))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            let guest = normalised(path)?;
            self.above(&guest);
            self.0.insert(guest, Node::Folder(mode));
            for entry in fs::read_dir(host).map_err(GuestError::io("list", host))? {
                let entry = entry.map_err(GuestError::io("list", host))?;
                self.host(&entry.path(), &path.join(entry.file_name()), below)?;
            }
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(GuestError::Specification(format!(
                "{} is neither a file nor a folder and cannot go into the guest",
                host.display()
            )));
        }
        let source = Source::File(host.to_owned());
        if let Some(Node::File(_, there)) = below.and_then(|b| b.0.get(&normalised(path).ok()?))
            && *there == source
        {
            return Ok(());
        }
        self.insert_file(path, mode, source)?;
        if let Some(closure) = libraries::closure(host)? {
            self.libraries(&closure, below)?;
        }
        Ok(())
    }

    /// The guest has no loader cache, and need not: all libraries go into the one folder that the
    /// loader searches by itself, which is the one that libc is in.
    fn libraries(
        &mut self,
        closure: &libraries::Closure,
        below: Option<&Self>,
    ) -> Result<(), GuestError> {
        let folder = closure
            .libraries
            .iter()
            .find(|(name, _)| name.starts_with("libc.so"))
            .and_then(|(_, path)| path.parent())
            .unwrap_or(Path::new("/lib"));
        let loader = (&closure.interpreter, closure.interpreter.clone());
        let files = closure.libraries.iter().map(|(name, file)| {
            // A name with a slash is opened as a path, not searched for.
            let place = if name.contains('/') {
                PathBuf::from(name)
            } else {
                folder.join(name)
            };
            (file, place)
        });
        for (file, place) in files.chain([loader]) {
            let real = file.canonicalize().map_err(GuestError::io("find", file))?;
            let source = Source::File(real.clone());
            let key = normalised(&place)?;
            let there = self.0.get(&key).or_else(|| below?.0.get(&key));
            match there {
                None => self.insert_file(&place, 0o755, source)?,
                Some(Node::File(_, other)) if *other == source => {}
                Some(Node::File(_, Source::File(other))) => {
                    return Err(GuestError::LibraryConflict {
                        name: place.display().to_string(),
                        first: other.clone(),
                        second: real,
                    });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn insert_file(&mut self, path: &Path, mode: u32, source: Source) -> Result<(), GuestError> {
        let path = normalised(path)?;
        self.above(&path);
        self.0.insert(path, Node::File(mode, source));
        Ok(())
    }

    /// Makes the folders above a path; the kernel does not do so when it unpacks.
    fn above(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0
                .entry(path[..at].to_owned())
                .or_insert(Node::Folder(0o755));
        }
    }

    /// A hash that changes when the archive would: of every path, mode and link, of the bytes
    /// that are in memory, and of name, inode, size and times of change of the host's files.
    pub(crate) fn fingerprint(&self) -> Result<String, GuestError> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (path, node) in &self.0 {
            add(path.as_bytes());
            match node {
                Node::Folder(mode) => add(&mode.to_le_bytes()),
                Node::Link(target) => add(target.as_bytes()),
                Node::File(mode, source) => {
                    add(&mode.to_le_bytes());
                    match source {
                        Source::Bytes(bytes) => add(bytes),
                        Source::File(file) | Source::Compressed(_, file) => {
                            add(stamp(file)?.as_bytes());
                        }
                    }
                }
            }
        }
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    }

    /// Writes the tree as a `newc` archive. Owners are root, times are 0: the same tree gives the
    /// same bytes.
    pub(crate) fn write<W: Write>(&self, mut out: W) -> Result<W, GuestError> {
        for (index, (path, node)) in self.0.iter().enumerate() {
            let archive = |error: io::Error| GuestError::Io {
                action: "put into the initramfs",
                path: path.into(),
                reason: error.to_string(),
            };
            let inode = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let entry = cpio::NewcBuilder::new(path).ino(inode).mtime(0);
            let (mode, source) = match node {
                Node::Folder(mode) => (libc::S_IFDIR | mode, None),
                Node::Link(target) => (
                    libc::S_IFLNK | 0o777,
                    Some(Source::Bytes(target.as_bytes().to_vec())),
                ),
                Node::File(mode, source) => (libc::S_IFREG | mode, Some(source.clone())),
            };
            let entry = entry.mode(mode);
            out = match source {
                None => entry.write(out, 0).finish(),
                Some(Source::Bytes(bytes)) => pack(entry, out, &mut bytes.as_slice(), bytes.len()),
                Some(Source::Compressed(program, file)) => {
                    let bytes = tool::output(Command::new(program).arg("-dc").arg(file))?;
                    pack(entry, out, &mut bytes.as_slice(), bytes.len())
                }
                Some(Source::File(file)) => {
                    let mut from = File::open(&file).map_err(GuestError::io("open", &file))?;
                    let length = from.metadata().map_err(archive)?.len();
                    pack(
                        entry,
                        out,
                        &mut from,
                        usize::try_from(length).unwrap_or(usize::MAX),
                    )
                }
            }
            .map_err(archive)?;
        }
        cpio::newc::trailer(out).map_err(GuestError::io("end", Path::new("the initramfs")))
    }
}

fn pack<W: Write>(
    entry: cpio::NewcBuilder,
    out: W,
    from: &mut dyn io::Read,
    length: usize,
) -> io::Result<W> {
    let size = u32::try_from(length)
        .map_err(|_| io::Error::other("files of 4 GiB and more do not fit into an initramfs"))?;
    let mut writer = entry.write(out, size);
    if io::copy(from, &mut writer)? != u64::from(size) {
        return Err(io::Error::other("it was shortened meanwhile"));
    }
    writer.finish()
}

/// What changes when a file does, without reading it.
pub(crate) fn stamp(file: &Path) -> Result<String, GuestError> {
    let metadata = fs::metadata(file).map_err(GuestError::io("read", file))?;
    Ok(format!(
        "{} {} {} {}.{} {}.{}",
        file.display(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

/// The path as the archive has it.
fn normalised(path: &Path) -> Result<String, GuestError> {
    let refuse = |why: &str| {
        GuestError::Specification(format!("{} cannot be in the guest: {why}", path.display()))
    };
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => {
                parts.push(part.to_str().ok_or_else(|| refuse("not UTF-8"))?);
            }
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("it has '..'")),
        }
    }
    if parts.is_empty() {
        return Err(refuse("it names no file"));
    }
    let path = parts.join("/");
    for (alias, target) in ALIASES {
        if let Some(rest) = path.strip_prefix(alias)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return Ok(format!("{target}{rest}"));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(path, mode, bytes)` of every entry of an archive.
    fn listed(archive: Vec<u8>) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = io::Cursor::new(archive);
        let mut entries = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut reader, &mut bytes).expect("its bytes");
            entries.push((name, mode, bytes));
            rest = reader.finish().expect("its end");
        }
    }

    #[test]
    fn archive_has_parents_links_and_bytes() {
        let mut tree = Tree::default();
        tree.aliases().expect("links");
        tree.bytes(Path::new("/usr/bin/deep/x"), 0o755, b"hello".to_vec())
            .expect("a file");
        let entries = listed(tree.write(Vec::new()).expect("written"));
        let find = |name: &str| {
            entries
                .iter()
                .position(|(path, ..)| path == name)
                .unwrap_or_else(|| panic!("{name} is missing in {entries:?}"))
        };
        assert!(find("bin") < find("bin/deep"));
        assert!(find("bin/deep") < find("bin/deep/x"));
        let (_, mode, bytes) = &entries[find("bin/deep/x")];
        assert_eq!((*mode, bytes.as_slice()), (0o100_755, b"hello".as_slice()));
        let (_, mode, target) = &entries[find("usr/local/bin")];
        assert_eq!(
            (*mode, target.as_slice()),
            (0o120_777, b"../../bin".as_slice())
        );
    }

    #[test]
    fn fingerprint_follows_content_and_host_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("f");
        let of = |text: &str| {
            let mut tree = Tree::default();
            tree.host(&file, Path::new("/f"), None).expect("a file");
            tree.bytes(Path::new("/b"), 0o644, text.as_bytes().to_vec())
                .expect("bytes");
            tree.fingerprint().expect("a hash")
        };
        fs::write(&file, "1").expect("written");
        let first = of("x");
        assert_eq!(first, of("x"));
        assert_ne!(first, of("y"));
        fs::write(&file, "22").expect("written");
        assert_ne!(first, of("x"));
    }

    #[test]
    fn libraries_below_are_left_out() {
        let me = std::env::current_exe().expect("a path");
        let mut base = Tree::default();
        base.host(&me, Path::new("/bin/a"), None).expect("added");
        assert!(base.0.keys().any(|path| path.ends_with("/libc.so.6")));
        let mut top = Tree::default();
        top.host(&me, Path::new("/bin/b"), Some(&base))
            .expect("added");
        assert_eq!(top.0.keys().collect::<Vec<_>>(), ["bin", "bin/b"]);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        assert!(normalised(Path::new("/bin/../x")).is_err());
        assert!(normalised(Path::new("/")).is_err());
        assert_eq!(normalised(Path::new("/usr/sbin/x")).expect("ok"), "bin/x");
        assert_eq!(
            normalised(Path::new("/usr/libexec/x")).expect("ok"),
            "usr/libexec/x"
        );
    }
}
