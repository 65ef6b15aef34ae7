//! A directory that is only ever listed with attributes, and those of some files are none: the kernel
//! takes back at once what such an entry counted.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use efuse_abi::wire::{Attr, EntryOut, Kstatfs, ReadIn};
use efuse_abi::{DirentPlusBuf, Errno, InitFlags};
use efuse_runtime::{Attributes, Connection, Context, Entry, FileSystem, Negotiation, XattrReply};

use crate::{ROOT, attributes, entry, number, once, space, value};

/// Files `f0` and so on. Those with odd numbers have no type in a list.
const FILES: u64 = 12;
const FIRST: u64 = 10;
const DT_REG: u32 = 8;

#[derive(Default)]
pub(crate) struct Plus {
    /// Lookups of nodes that the kernel has to take back.
    known: Mutex<BTreeMap<u64, u64>>,
}

impl Plus {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(node: u64) -> Result<Attr, Errno> {
    match node {
        ROOT => Ok(attributes(ROOT, libc::S_IFDIR | 0o777, 0)),
        FIRST.. if node < FIRST + FILES => Ok(attributes(node, libc::S_IFREG | 0o644, node)),
        _ => Err(Errno::ESTALE),
    }
}

impl FileSystem for Plus {
    fn init(&self, negotiation: &mut Negotiation, _: &Connection) -> Result<(), Errno> {
        negotiation.wanted |= InitFlags::DO_READDIRPLUS;
        Ok(())
    }

    fn lookup(&self, _: &Context<'_>, _parent: u64, name: &CStr) -> Result<Entry, Errno> {
        let n = number(name, FILES)?;
        let found = entry(look(FIRST + n)?);
        *self.known().entry(FIRST + n).or_default() += 1;
        Ok(found)
    }

    fn forget(&self, node: u64, count: u64) {
        let mut known = self.known();
        let left = known.get(&node).and_then(|n| n.checked_sub(count));
        match left {
            Some(0) => drop(known.remove(&node)),
            Some(left) => drop(known.insert(node, left)),
            None => eprintln!("efuse-odd: node {node} is forgotten more often than looked up"),
        }
    }

    fn getattr(
        &self,
        _: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        look(node).map(once)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        _node: u64,
        arg: &ReadIn,
        out: &mut DirentPlusBuf<'_>,
    ) -> Result<(), Errno> {
        for n in arg.offset..FILES {
            let node = FIRST + n;
            let mut attr = look(node)?;
            if n % 2 == 1 {
                attr.mode &= 0o777;
            }
            let listed = EntryOut {
                nodeid: node,
                attr,
                ..EntryOut::default()
            };
            if !out.push(&listed, node, n + 1, DT_REG, format!("f{n}").as_bytes()) {
                break;
            }
            *self.known().entry(node).or_default() += 1;
        }
        Ok(())
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        // Each time another name, so that no program knows the answer.
        if node != ROOT || !name.to_bytes().starts_with(b"user.known") {
            return Err(Errno::ENODATA);
        }
        let known = self.known();
        let counts = known.iter().map(|(node, count)| format!("{node}:{count}"));
        value(out, &counts.collect::<Vec<_>>().join(" "))
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }
}
