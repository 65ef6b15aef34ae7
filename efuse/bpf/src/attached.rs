//! What is attached to connections just now, and what it has counted. Everything is read from the
//! kernel: it does not matter who attached it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use serde::Serialize;

use crate::{BpfError, Dev, tables};

/// Where the kernel's `struct efuse_ops` begins in the map's value: after the BPF core's own part,
/// on a cache line of its own (`register_bpf_struct_ops()`).
const OPS_AT: usize = 64;
/// Where its programs begin: after dev, flags, name, the size of the cache, and a reserved word.
const HEAD: usize = 40;
/// Where the name ends.
const NAME_END: usize = 24;

/// A program of a set.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub id: u32,
    /// Instructions of machine code, bytes.
    pub bytes: u32,
}

/// A map of a set.
#[derive(Debug)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Entries it has room for.
    pub max_entries: u32,
    /// Memory it is charged for, bytes.
    pub memory: u64,
    pub(crate) handle: MapHandle,
}

/// How requests of one opcode went; see `enum outcome` in `state.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Answered in the kernel.
    pub answered: u64,
    /// Passed to the daemon: not in the maps.
    pub miss: u64,
    /// Passed: the daemon's timeout had passed.
    pub expired: u64,
    /// Passed: something had changed since.
    pub changed: u64,
    /// Passed: the inode is not in memory.
    pub gone: u64,
    /// Passed: too large, or no valid reply.
    pub unfit: u64,
    /// Replies of the daemon that were kept.
    pub learnt: u64,
    /// Replies not kept, as another change was under way.
    pub overlap: u64,
    /// Replies not kept, as the daemon allows no time.
    pub unwanted: u64,
}

impl Counts {
    const FIELDS: usize = 9;

    fn from_words(words: [u64; Self::FIELDS]) -> Self {
        let [
            answered,
            miss,
            expired,
            changed,
            gone,
            unfit,
            learnt,
            overlap,
            unwanted,
        ] = words;
        Self {
            answered,
            miss,
            expired,
            changed,
            gone,
            unfit,
            learnt,
            overlap,
            unwanted,
        }
    }

    /// Why requests went to the daemon, by a word for each reason.
    #[must_use]
    pub fn reasons(&self) -> [(&'static str, u64); 5] {
        [
            ("miss", self.miss),
            ("expired", self.expired),
            ("changed", self.changed),
            ("gone", self.gone),
            ("unfit", self.unfit),
        ]
    }

    /// Requests that a program saw before the daemon.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.answered + self.passed()
    }

    /// Those of them that went to the daemon.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.reasons().iter().map(|(_, n)| n).sum()
    }
}

/// A set of programs in its place.
#[derive(Debug)]
pub struct Attached {
    /// The connection.
    pub dev: Dev,
    /// The policy's name.
    pub name: String,
    /// Number of the link that holds it.
    pub link: u32,
    /// Its programs.
    pub programs: Vec<Program>,
    /// Their maps.
    pub maps: Vec<Map>,
}

/// Everything that is attached. Takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// If the kernel does not tell.
pub fn attached() -> Result<Vec<Attached>, BpfError> {
    // The iterator takes "not allowed" for the end.
    let mut first = 0;
    // SAFETY: the kernel writes a number to where the pointer points.
    let status = unsafe { libbpf_sys::bpf_link_get_next_id(0, &raw mut first) };
    if status < 0 && status != -libc::ENOENT {
        return Err(BpfError::bpf("list what is attached")(
            libbpf_rs::Error::from_raw_os_error(-status),
        ));
    }
    let mut found = Vec::new();
    for link in LinkInfoIter::default() {
        let LinkTypeInfo::StructOps(info) = &link.info else {
            continue;
        };
        // It may go while we look at it.
        let Ok(ops) = MapHandle::from_map_id(info.map_id) else {
            continue;
        };
        if let Some(set) = set_of(link.id, &ops)? {
            found.push(set);
        }
    }
    found.sort_by_key(|set| set.dev);
    Ok(found)
}

/// What is attached to a connection.
///
/// # Errors
/// If nothing is.
pub fn attached_to(dev: Dev) -> Result<Attached, BpfError> {
    attached()?
        .into_iter()
        .find(|set| set.dev == dev)
        .ok_or(BpfError::NotAttached { dev })
}

/// `None` if the map is no set of ours.
fn set_of(link: u32, ops: &MapHandle) -> Result<Option<Attached>, BpfError> {
    let Ok(Some(value)) = ops.lookup(&0u32.to_ne_bytes(), MapFlags::ANY) else {
        return Ok(None);
    };
    let word = |at: usize| {
        value
            .get(at..at + 4)
            .map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
    };
    let Some(dev) = word(OPS_AT) else {
        return Ok(None);
    };
    let name: Vec<u8> = value[OPS_AT + 8..OPS_AT + NAME_END]
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    // Where a program is, the kernel shows its number.
    let mut ids: Vec<u32> = value[OPS_AT + HEAD..]
        .chunks_exact(8)
        .map(|slot| u64::from_ne_bytes(slot.try_into().expect("eight bytes")))
        .filter_map(|id| u32::try_from(id).ok())
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();

    let mut programs = Vec::new();
    let mut map_ids = Vec::new();
    let mut iter = ProgInfoIter::with_query_opts(
        libbpf_rs::query::ProgInfoQueryOptions::default().include_map_ids(true),
    );
    for info in &mut iter {
        if ids.binary_search(&info.id).is_ok() {
            map_ids.extend(info.map_ids.iter().copied());
            programs.push(Program {
                name: info.name.to_string_lossy().into_owned(),
                id: info.id,
                bytes: u32::try_from(info.jited_prog_insns.len()).unwrap_or(u32::MAX),
            });
        }
    }
    // Another module's struct_ops has no programs that are all of ours; nor has it our maps.
    if programs.len() != ids.len() || programs.is_empty() {
        return Ok(None);
    }
    map_ids.sort_unstable();
    map_ids.dedup();
    let mut maps = Vec::new();
    for id in map_ids {
        let handle = MapHandle::from_map_id(id).map_err(BpfError::bpf(format!("open map {id}")))?;
        maps.push(Map {
            name: handle.name().to_string_lossy().into_owned(),
            max_entries: handle.max_entries(),
            memory: memory_of(&handle),
            handle,
        });
    }
    Ok(Some(Attached {
        dev: Dev::from_raw(dev),
        name: String::from_utf8_lossy(&name).into_owned(),
        link,
        programs,
        maps,
    }))
}

/// As the kernel charges it, from the descriptor's fdinfo; 0 if it does not say.
fn memory_of(map: &MapHandle) -> u64 {
    use std::os::fd::AsFd as _;

    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        })
        .unwrap_or(0)
}

impl Attached {
    /// How requests went so far, by opcode; only those that came.
    ///
    /// # Errors
    /// If the policy's counters cannot be read. One without any has none.
    pub fn counts(&self) -> Result<BTreeMap<u32, Counts>, BpfError> {
        let mut counts = BTreeMap::new();
        let Some(map) = self
            .maps
            .iter()
            .find(|map| map.name == "stats" && map.handle.map_type() == MapType::PercpuArray)
        else {
            return Ok(counts);
        };
        for opcode in 0..map.max_entries {
            let values = map
                .handle
                .lookup_percpu(&opcode.to_ne_bytes(), MapFlags::ANY)
                .map_err(BpfError::bpf("read the counters"))?
                .unwrap_or_default();
            let mut sum = [0u64; Counts::FIELDS];
            for value in values {
                for (sum, word) in sum.iter_mut().zip(value.chunks_exact(8)) {
                    *sum += u64::from_ne_bytes(word.try_into().expect("eight bytes"));
                }
            }
            if sum.iter().any(|n| *n != 0) {
                counts.insert(opcode, Counts::from_words(sum));
            }
        }
        Ok(counts)
    }

    /// Entries in a map, by counting them.
    ///
    /// # Errors
    /// If there is no such map.
    pub fn used(&self, map: &str) -> Result<usize, BpfError> {
        let map = self
            .maps
            .iter()
            .find(|m| m.name == map)
            .ok_or(BpfError::NotAttached { dev: self.dev })?;
        if map.handle.map_type() == MapType::Array && tables::NAMES.contains(&map.name.as_str()) {
            let what = format!("read map {}", map.name);
            return tables::used(&map.handle).map_err(BpfError::bpf(what));
        }
        Ok(map.handle.keys().count())
    }

    /// Takes the programs off, whoever attached them.
    ///
    /// # Errors
    /// If they are gone already.
    pub fn detach(&self) -> Result<(), BpfError> {
        // SAFETY: a plain system call; a descriptor that it returns is ours.
        let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(self.link) };
        if fd < 0 {
            return Err(BpfError::NotAttached { dev: self.dev });
        }
        // SAFETY: just opened, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor is open during the call.
        let status = unsafe { libbpf_sys::bpf_link_detach(fd.as_raw_fd()) };
        if status < 0 {
            return Err(BpfError::bpf("detach the programs")(
                libbpf_rs::Error::from_raw_os_error(-status),
            ));
        }
        Ok(())
    }
}

/// Name of an opcode that programs see, as in the FUSE protocol.
#[must_use]
pub fn opcode_name(opcode: u32) -> &'static str {
    match opcode {
        1 => "LOOKUP",
        3 => "GETATTR",
        4 => "SETATTR",
        5 => "READLINK",
        6 => "SYMLINK",
        8 => "MKNOD",
        9 => "MKDIR",
        10 => "UNLINK",
        11 => "RMDIR",
        12 => "RENAME",
        13 => "LINK",
        14 => "OPEN",
        16 => "WRITE",
        21 => "SETXATTR",
        22 => "GETXATTR",
        23 => "LISTXATTR",
        24 => "REMOVEXATTR",
        34 => "ACCESS",
        35 => "CREATE",
        43 => "FALLOCATE",
        44 => "READDIRPLUS",
        45 => "RENAME2",
        47 => "COPY_FILE_RANGE",
        51 => "TMPFILE",
        52 => "STATX",
        _ => "OTHER",
    }
}
