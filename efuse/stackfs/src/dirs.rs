//! Directories.

use efuse_abi::wire::{Attr, EntryOut, ReadIn};
use efuse_abi::{DirentBuf, DirentPlusBuf, Errno, FopenFlags};
use efuse_runtime::Opened;
use std::sync::Arc;

use crate::StackFs;
use crate::files::OpenDir;
use crate::table::lock;

impl StackFs {
    pub(crate) fn do_opendir(&self, node: u64, flags: i32) -> Result<Opened, Errno> {
        if self.unopened.get().is_some() {
            // As for OPEN.
            return Err(Errno::ENOSYS);
        }
        let fd = self.open_directory(node, flags & libc::O_NOATIME)?;
        let fh = self
            .dirs
            .insert(Arc::new(OpenDir::new(fd)), 0)
            .ok_or(Errno::ENFILE)?;
        Ok(Opened {
            fh,
            flags: FopenFlags::empty(),
            backing_id: 0,
        })
    }

    pub(crate) fn do_readdir(
        &self,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentBuf<'_>,
    ) -> Result<(), Errno> {
        let dir = self.directory(node, arg.fh, arg.flags as i32)?;
        let mut stream = lock(&dir.stream);
        stream.seek(dir.fd(), arg.offset)?;
        loop {
            match stream.peek(dir.fd()) {
                Ok(Some(entry)) => {
                    let name = entry.name.to_bytes();
                    if !out.push(entry.ino, entry.next, u32::from(entry.kind), name) {
                        return Ok(());
                    }
                    let step = entry.step();
                    stream.pass(step);
                }
                Ok(None) => return Ok(()),
                // What was read so far is handed out; the next call meets the error again.
                Err(_) if !out.is_empty() => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(crate) fn do_readdirplus(
        &self,
        node: u64,
        arg: &ReadIn,
        out: &mut DirentPlusBuf<'_>,
    ) -> Result<(), Errno> {
        let dir = self.directory(node, arg.fh, arg.flags as i32)?;
        let mut stream = lock(&dir.stream);
        stream.seek(dir.fd(), arg.offset)?;
        loop {
            let entry = match stream.peek(dir.fd()) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(_) if !out.is_empty() => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let name = entry.name.to_bytes();
            // A lookup that is not handed out would never be taken back: ask for room first.
            if !out.fits(name.len()) {
                return Ok(());
            }
            let step = entry.step();
            let kind = u32::from(entry.kind);
            let unknown = EntryOut {
                attr: Attr {
                    ino: entry.ino,
                    mode: kind << 12,
                    ..Attr::default()
                },
                ..EntryOut::default()
            };
            let found = if entry.is_dot() {
                Some(unknown)
            } else {
                match self.do_lookup(node, entry.name) {
                    Ok(found) => Some(EntryOut::from(&found)),
                    // Removed meanwhile.
                    Err(Errno::ENOENT) => None,
                    // The name is there; looking it up later gives the caller the error.
                    Err(_) => Some(unknown),
                }
            };
            if let Some(found) = found
                && !out.push(&found, entry.ino, entry.next, kind, name)
            {
                return Err(Errno::EIO);
            }
            stream.pass(step);
        }
    }
}
