//! A file system that shows everybody something else, by supplementary groups.
//!
//! Group `FIRST + n` has to do with the name `n<n>`: members may write it, it is there for members
//! alone, or members find another file under it. The size of each tells all groups of the caller.

use std::ffi::CStr;
use std::fs;

use efuse_abi::wire::{Attr, Kstatfs, ReadIn};
use efuse_abi::{DirentBuf, Errno};
use efuse_runtime::{Attributes, Context, Entry, FileSystem, XattrReply};

use crate::{ROOT, attributes, entry, once, put, space, value};

/// The first group that counts.
const FIRST: u32 = 3000;
/// Groups that count, and names.
const NAMES: u32 = 12;
/// The name that is a symbolic link.
const LINK: u32 = 0;
const MAY_WRITE: u32 = 2;
const DT_REG: u32 = 8;

pub(crate) struct Groups;

/// The groups of a caller that count, a bit each. Read anew for each request, as `fuse_getgroups()`
/// of libfuse does.
fn groups(cx: &Context<'_>) -> u32 {
    let path = format!("/proc/{}/status", cx.pid);
    let status = fs::read_to_string(&path).unwrap_or_else(|error| {
        eprintln!("efuse-odd: {path}: {error}");
        String::new()
    });
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse::<u32>().ok()?.checked_sub(FIRST))
        .filter(|&n| n < NAMES)
        .fold(0, |bits, n| bits | 1 << n)
}

fn is_member(groups: u32, n: u32) -> bool {
    groups & 1 << n != 0
}

/// What a caller finds under a name: names take turns in what is special about them.
fn find(groups: u32, n: u32) -> Result<Attr, Errno> {
    let member = is_member(groups, n);
    let node = match n % 3 {
        1 if !member => return Err(Errno::ENOENT),
        2 if member => 200 + n,
        _ => 100 + n,
    };
    look(groups, u64::from(node))
}

/// What a node is to a caller. Any caller may ask about any node that the kernel knows.
fn look(groups: u32, node: u64) -> Result<Attr, Errno> {
    if node == ROOT {
        let mode = libc::S_IFDIR | 0o777;
        return Ok(attributes(ROOT, mode, 0));
    }
    let n = (node % 100) as u32;
    if !(100..300).contains(&node) || n >= NAMES {
        return Err(Errno::ESTALE);
    }
    let kind = if n == LINK {
        libc::S_IFLNK
    } else {
        libc::S_IFREG
    };
    let mode = if is_member(groups, n) { 0o660 } else { 0o440 };
    let size = u64::from(groups) << 8 | u64::from(n);
    Ok(attributes(node, kind | mode, size))
}

fn number(name: &CStr) -> Result<u32, Errno> {
    let digits = name.to_str().ok().and_then(|text| text.strip_prefix('n'));
    digits
        .and_then(|digits| digits.parse().ok())
        .filter(|&n| n < NAMES)
        .ok_or(Errno::ENOENT)
}

impl FileSystem for Groups {
    fn lookup(&self, cx: &Context<'_>, parent: u64, name: &CStr) -> Result<Entry, Errno> {
        if parent != ROOT {
            return Err(Errno::ENOTDIR);
        }
        find(groups(cx), number(name)?).map(entry)
    }

    fn getattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        _fh: Option<u64>,
    ) -> Result<Attributes<Attr>, Errno> {
        look(groups(cx), node).map(once)
    }

    fn statfs(&self, _: &Context<'_>, _node: u64) -> Result<Kstatfs, Errno> {
        Ok(space())
    }

    fn access(&self, cx: &Context<'_>, node: u64, mask: u32) -> Result<(), Errno> {
        let attr = look(groups(cx), node)?;
        if mask & MAY_WRITE != 0 && attr.mode & 0o200 == 0 {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    fn readlink(&self, cx: &Context<'_>, _node: u64, out: &mut [u8]) -> Result<usize, Errno> {
        put(out, &format!("of-{:x}", groups(cx)))
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: u64,
        name: &CStr,
        out: &mut [u8],
    ) -> Result<XattrReply, Errno> {
        let groups = groups(cx);
        if name != c"user.groups" || look(groups, node)?.mode & 0o200 == 0 {
            return Err(Errno::ENODATA);
        }
        value(out, &format!("{groups:x}"))
    }

    fn listxattr(&self, cx: &Context<'_>, node: u64, out: &mut [u8]) -> Result<XattrReply, Errno> {
        let may = look(groups(cx), node)?.mode & 0o200 != 0;
        value(out, if may { "user.groups\0" } else { "" })
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        _node: u64,
        arg: &ReadIn,
        out: &mut DirentBuf<'_>,
    ) -> Result<(), Errno> {
        let groups = groups(cx);
        for n in (0..NAMES).skip(arg.offset as usize) {
            if let Ok(attr) = find(groups, n) {
                let name = format!("n{n}");
                if !out.push(attr.ino, u64::from(n) + 1, DT_REG, name.as_bytes()) {
                    break;
                }
            }
        }
        Ok(())
    }
}
