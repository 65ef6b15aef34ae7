//! One operation of each kind.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use efuse_model::metadata::MetadataKind;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::fs::getxattr;

use crate::LoadError;
use crate::tree::{Tree, XATTR};

/// Files of the small tree of [`MetadataKind::Unpack`], in folders of ten.
const PACKAGE: u64 = 100;

/// Lists left over from an operation that is many: entries of a walk.
enum Walk {
    Folder(PathBuf),
    Listing(fs::ReadDir),
}

/// What a thread does, again and again.
pub(crate) struct Worker<'a> {
    tree: &'a Tree,
    kind: MetadataKind,
    rng: ChaCha8Rng,
    /// The thread's own folder, for kinds that write.
    own: PathBuf,
    thread: u32,
    count: u64,
    walk: Vec<Walk>,
    met: u64,
    inode: Option<u64>,
}

impl<'a> Worker<'a> {
    /// Makes the thread's own folder if the kind needs one.
    pub(crate) fn new(tree: &'a Tree, kind: MetadataKind, thread: u32) -> Result<Self, LoadError> {
        if tree.is_empty() && !kind.writes() {
            return Err(LoadError::Job(format!(
                "{} needs a tree with files: --dirs and --files",
                kind.name()
            )));
        }
        let own = tree.root().join(format!("t{thread:03}"));
        if kind.writes() {
            fs::create_dir(&own).map_err(LoadError::io("create the folder", &own))?;
        }
        Ok(Self {
            tree,
            kind,
            rng: ChaCha8Rng::seed_from_u64(u64::from(thread)),
            own,
            thread,
            count: 0,
            walk: Vec::new(),
            met: 0,
            inode: None,
        })
    }

    /// Removes what the thread has made.
    pub(crate) fn finish(mut self) -> Result<(), LoadError> {
        if !self.kind.writes() {
            return Ok(());
        }
        // A package that is half unpacked is finished, which checks and removes it.
        while self.kind == MetadataKind::Unpack && !self.count.is_multiple_of(2 * PACKAGE) {
            self.operate()?;
        }
        if self.inode.is_some() {
            let last = self.renamed(self.count);
            fs::remove_file(&last).map_err(LoadError::io("remove", &last))?;
        }
        fs::remove_dir(&self.own).map_err(LoadError::io("remove the folder", &self.own))
    }

    fn random(&mut self) -> u64 {
        // The bias of a modulus below 2^-40 does not matter for picking files.
        self.rng.next_u64() % self.tree.len()
    }

    /// Does one operation and checks its answer.
    pub(crate) fn operate(&mut self) -> Result<(), LoadError> {
        match self.kind {
            MetadataKind::Find => self.find(),
            MetadataKind::CreateUnlink => self.create_unlink(),
            MetadataKind::Rename => self.rename(),
            MetadataKind::Unpack => self.unpack(),
            _ => {
                let n = self.random();
                self.ask(n)
            }
        }
    }

    /// Asks once for every name that will be asked for: of files the thread's share of
    /// `threads`, of a walk the whole.
    pub(crate) fn warm(&mut self, threads: u32) -> Result<(), LoadError> {
        if self.kind.writes() {
            return Ok(());
        }
        if self.kind == MetadataKind::Find {
            return (0..self.tree.entries()).try_for_each(|_| self.find());
        }
        (u64::from(self.thread)..self.tree.len())
            .step_by(threads as usize)
            .try_for_each(|n| self.ask(n))
    }

    /// An operation on the file with this number, of the kinds that leave it as it is.
    fn ask(&self, n: u64) -> Result<(), LoadError> {
        match self.kind {
            MetadataKind::Missing => absent(&self.tree.missing(n)),
            MetadataKind::Xattr => self.xattr(n),
            MetadataKind::OpenClose => {
                let path = self.tree.file(n);
                File::open(&path)
                    .map(drop)
                    .map_err(LoadError::io("open", &path))
            }
            _ => self.stat(n),
        }
    }

    fn stat(&self, n: u64) -> Result<(), LoadError> {
        let path = self.tree.file(n);
        let m = fs::symlink_metadata(&path).map_err(LoadError::io("stat", &path))?;
        let size = Tree::size(n);
        if !m.is_file() || m.size() != size {
            let problem = format!("its size is {}, not {size}", m.size());
            return Err(LoadError::wrong(&path, problem));
        }
        Ok(())
    }

    /// One entry of the walk; the last one of a walk checks that all were met.
    fn find(&mut self) -> Result<(), LoadError> {
        if self.walk.is_empty() {
            self.walk.push(Walk::Folder(self.tree.root().to_owned()));
        }
        while let Some(step) = self.walk.pop() {
            let mut listing = match step {
                Walk::Folder(path) => fs::read_dir(&path).map_err(LoadError::io("list", &path))?,
                Walk::Listing(listing) => listing,
            };
            let Some(entry) = listing.next() else {
                continue;
            };
            let path = entry
                .map_err(LoadError::io("list a folder of", self.tree.root()))?
                .path();
            self.walk.push(Walk::Listing(listing));
            let m = fs::symlink_metadata(&path).map_err(LoadError::io("stat", &path))?;
            if m.is_dir() {
                self.walk.push(Walk::Folder(path));
            }
            self.met += 1;
            return Ok(());
        }
        let (met, all) = (self.met, self.tree.entries());
        self.met = 0;
        if met != all {
            let problem = format!("a walk met {met} entries, not {all}");
            return Err(LoadError::wrong(self.tree.root(), problem));
        }
        // The empty step between two walks counts as the first entry of the next.
        self.find()
    }

    fn create_unlink(&mut self) -> Result<(), LoadError> {
        let path = self.own.join(format!("n{}", self.count));
        self.count += 1;
        File::create_new(&path).map_err(LoadError::io("create", &path))?;
        let m = fs::symlink_metadata(&path).map_err(LoadError::io("stat", &path))?;
        if m.size() != 0 || m.nlink() != 1 {
            let problem = format!("new, but {} bytes and {} links", m.size(), m.nlink());
            return Err(LoadError::wrong(&path, problem));
        }
        fs::remove_file(&path).map_err(LoadError::io("remove", &path))?;
        absent(&path)
    }

    fn renamed(&self, count: u64) -> PathBuf {
        self.own.join(format!("r{}", count % 1000))
    }

    fn rename(&mut self) -> Result<(), LoadError> {
        let from = self.renamed(self.count);
        let Some(inode) = self.inode else {
            let file = File::create_new(&from).map_err(LoadError::io("create", &from))?;
            let m = file.metadata().map_err(LoadError::io("stat", &from))?;
            self.inode = Some(m.ino());
            return self.rename();
        };
        self.count += 1;
        let to = self.renamed(self.count);
        fs::rename(&from, &to).map_err(LoadError::io("rename", &from))?;
        let m = fs::symlink_metadata(&to).map_err(LoadError::io("stat", &to))?;
        if m.ino() != inode {
            let problem = format!("inode {} after the rename, {inode} before", m.ino());
            return Err(LoadError::wrong(&to, problem));
        }
        absent(&from)
    }

    fn xattr(&self, n: u64) -> Result<(), LoadError> {
        let path = self.tree.file(n);
        let mut value = [0u8; 256];
        let length = getxattr(&path, XATTR, &mut value)
            .map_err(LoadError::errno("read the extended attribute of", &path))?;
        if value.get(..length) != Some(&Tree::xattr(n)) {
            return Err(LoadError::wrong(
                &path,
                format!("{XATTR} has another value"),
            ));
        }
        Ok(())
    }

    /// The first [`PACKAGE`] operations of a round write a file each, the next ones stat,
    /// read, check and remove one each.
    fn unpack(&mut self) -> Result<(), LoadError> {
        let step = self.count % (2 * PACKAGE);
        self.count += 1;
        let n = step % PACKAGE;
        let folder = self.own.join(format!("p{}", n / 10));
        let path = folder.join(format!("s{}", n % 10));
        let content = content(n);
        if step < PACKAGE {
            if n.is_multiple_of(10) {
                fs::create_dir(&folder).map_err(LoadError::io("create the folder", &folder))?;
            }
            let mut file = File::create_new(&path).map_err(LoadError::io("create", &path))?;
            return file
                .write_all(&content)
                .map_err(LoadError::io("write", &path));
        }
        let m = fs::symlink_metadata(&path).map_err(LoadError::io("stat", &path))?;
        let mut read = Vec::with_capacity(content.len());
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut read))
            .map_err(LoadError::io("read", &path))?;
        if m.size() != content.len() as u64 || read != content {
            return Err(LoadError::wrong(&path, "it does not hold what was written"));
        }
        fs::remove_file(&path).map_err(LoadError::io("remove", &path))?;
        if n % 10 == 9 {
            fs::remove_dir(&folder).map_err(LoadError::io("remove the folder", &folder))?;
        }
        Ok(())
    }
}

fn content(n: u64) -> Vec<u8> {
    let length = 256 + (n * 613) % 7937;
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&(n << 32 | bytes.len() as u64).to_le_bytes());
    }
    bytes.truncate(length as usize);
    bytes
}

fn absent(path: &Path) -> Result<(), LoadError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(LoadError::io("stat", path)(e)),
        Ok(_) => Err(LoadError::wrong(path, "it is there but must not be")),
    }
}
