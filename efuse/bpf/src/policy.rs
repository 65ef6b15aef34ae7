//! Loading a set of programs and attaching it to a connection.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use libbpf_rs::{
    Link, MapCore as _, MapMut, MapType, Object, ObjectBuilder, OpenMapMut, OpenObject, PrintLevel,
};

use crate::{BpfError, Dev, adaptive, tables};

/// The built-in policies by name, each compiled from `src/bpf/NAME.bpf.c`.
macro_rules! built_in {
    ($($name:literal),+) => {
        const BUILT_IN: &[(&str, &[u8])] = &[$((
            $name,
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")),
        )),+];

        /// Names of the built-in policies.
        pub const POLICIES: &[&str] = &[$($name),+];
    };
}

built_in!(
    "metadata",
    "extfuse",
    "passthrough",
    "cache",
    "prelim",
    "balance",
    "balance-least",
    "balance-two"
);

/// The read-only section that holds [`Tunables`].
const TUNABLES: &str = ".rodata.efuse";

/// `efuse_ops.flags`: replies depend on who asks.
const PER_CALLER: u32 = 1;
/// `efuse_ops.flags`: cached data hold until they are changed.
const KEEP_DATA: u32 = 2;
/// `efuse_ops.flags`: answers hold until something changes.
const KEEP: u32 = 4;
/// Where `efuse_ops.cache_bytes` is.
const CACHE_BYTES: std::ops::Range<usize> = 24..32;

/// What can be set before the programs are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunables {
    /// The daemon is the only one who changes the tree, and every change comes through this
    /// mount or is announced by it: what was learnt holds until then, whatever the timeouts.
    pub until_invalidated: bool,
    /// Without that: how long extended attributes and targets of links are believed, ns. The
    /// protocol has no timeout for them; 0 is never.
    pub xattr_ttl_ns: u64,
    /// The daemon decides by who asks even with `default_permissions` (as `bindfs --mirror`).
    pub per_caller: bool,
    /// Memory for cached data, bytes, instead of the policy's own; it must have a cache.
    pub cache_bytes: Option<u64>,
    /// Constants of the adaptive choice, as of [`crate::adaptive_tunable`].
    pub adaptive: Vec<(String, u32)>,
    /// Entries of maps, by name, instead of the program's own.
    pub map_entries: Vec<(String, u32)>,
}

/// What the programs see of the tunables (`state.h`).
fn rodata(tunables: &Tunables) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&tunables.xattr_ttl_ns.to_ne_bytes());
    bytes[8..12].copy_from_slice(&u32::from(tunables.until_invalidated).to_ne_bytes());
    bytes
}

/// A loaded set of programs, not attached yet.
#[derive(Debug)]
pub struct Policy {
    name: String,
    dev: Dev,
    object: Object,
}

/// Programs that answer for a connection, until this is dropped or pinned.
#[derive(Debug)]
pub struct Attachment {
    link: Link,
    _object: Object,
}

impl Attachment {
    /// Leaves the programs attached when this process ends, under a name in a BPF file system.
    ///
    /// # Errors
    /// If the path is taken or not in a BPF file system.
    pub fn pin(mut self, path: &Path) -> Result<(), BpfError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|reason| BpfError::Io {
                action: "make",
                path: folder.to_owned(),
                reason,
            })?;
        }
        self.link.pin(path).map_err(BpfError::bpf(format!(
            "pin at {}; is a bpf file system mounted there",
            path.display()
        )))
    }
}

impl Policy {
    /// Loads a policy, which is the name of a built-in one or the path of a compiled one.
    ///
    /// # Errors
    /// If there is none of that name, it lacks a setting that is asked for, or the kernel
    /// refuses it.
    pub fn load(name: &str, dev: Dev, tunables: &Tunables) -> Result<Self, BpfError> {
        let mut object = open(name)?;
        settle(name, dev, tunables, &mut object)?;
        let messages = Messages::collect(LOG_LINES);
        let loaded = object.load();
        let log = messages.end();
        let object = loaded.map_err(|error| BpfError::Load {
            policy: name.to_owned(),
            reason: load_hint(&error),
            log,
        })?;
        Ok(Self {
            name: name.to_owned(),
            dev,
            object,
        })
    }

    /// Its set of programs.
    fn ops(&mut self) -> Result<MapMut<'_>, BpfError> {
        self.object
            .maps_mut()
            .find(|map| map.map_type() == MapType::StructOps)
            .ok_or(BpfError::NotAPolicy {
                policy: self.name.clone(),
                what: "has no set of programs",
            })
    }

    /// Attaches it. From now on it answers.
    ///
    /// # Errors
    /// If the connection is not there or has programs already.
    pub fn attach(mut self) -> Result<Attachment, BpfError> {
        let messages = Messages::collect(LOG_LINES);
        let mut ops = self.ops()?;
        let link = ops.attach_struct_ops();
        drop(messages);
        let link = link.map_err(|error| BpfError::Attach {
            policy: self.name.clone(),
            dev: self.dev,
            reason: attach_hint(&error),
        })?;
        Ok(Attachment {
            link,
            _object: self.object,
        })
    }

    /// Puts it in the place of what is attached through the link pinned at `path`, without a
    /// moment in which neither is there.
    ///
    /// # Errors
    /// If there is no such link, or it belongs to another connection.
    pub fn replace(mut self, path: &Path) -> Result<(), BpfError> {
        use std::os::fd::{AsFd as _, AsRawFd as _};

        if !path.exists() {
            return Err(BpfError::NotAttached { dev: self.dev });
        }
        let link = Link::open(path).map_err(BpfError::bpf(format!("open {}", path.display())))?;
        let messages = Messages::collect(LOG_LINES);
        let mut ops = self.ops()?;
        // Gives the set to the kernel, which then finds the place taken. If it does not, the link
        // that was there is not this connection's any more.
        if ops.attach_struct_ops().is_ok() {
            return Err(BpfError::NotAttached { dev: self.dev });
        }
        drop(messages);
        // SAFETY: both descriptors are open during the call; no options are passed.
        let status = unsafe {
            libbpf_sys::bpf_link_update(
                link.as_fd().as_raw_fd(),
                ops.as_fd().as_raw_fd(),
                std::ptr::null(),
            )
        };
        if status < 0 {
            let error = libbpf_rs::Error::from_raw_os_error(-status);
            return Err(BpfError::Attach {
                policy: self.name,
                dev: self.dev,
                reason: attach_hint(&error),
            });
        }
        Ok(())
    }
}

fn open(name: &str) -> Result<OpenObject, BpfError> {
    let read;
    let bytes = if let Some((_, bytes)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        bytes
    } else if name.contains('/') || name.ends_with(".o") {
        read = fs::read(name).map_err(|reason| BpfError::Io {
            action: "read",
            path: name.into(),
            reason,
        })?;
        read.as_slice()
    } else {
        return Err(BpfError::UnknownPolicy {
            name: name.to_owned(),
            known: POLICIES.join(", "),
        });
    };
    let messages = Messages::collect(LOG_LINES);
    let opened = ObjectBuilder::default().open_memory(bytes);
    let log = messages.end();
    opened.map_err(|error| BpfError::Load {
        policy: name.to_owned(),
        reason: error.to_string(),
        log,
    })
}

/// Tells programs that have tables how large these are.
fn tell_sizes(object: &mut OpenObject) {
    let sizes: BTreeMap<String, u32> = object
        .maps()
        .map(|map| (map.name().to_string_lossy().into_owned(), map.max_entries()))
        .collect();
    let bytes = tables::section(&sizes);
    for mut map in object.maps_mut() {
        if map.name().to_string_lossy().ends_with(tables::SECTION)
            && let Some(value) = map.initial_value_mut()
            && let Some(value) = value.get_mut(..bytes.len())
        {
            value.copy_from_slice(&bytes);
        }
    }
}

/// Everything that has to be in place before the programs are loaded.
fn settle(
    name: &str,
    dev: Dev,
    tunables: &Tunables,
    object: &mut OpenObject,
) -> Result<(), BpfError> {
    let mut has_ops = false;
    let mut has_tunables = false;
    let mut has_adaptive = false;
    let mut entries = tunables.map_entries.clone();
    for mut map in object.maps_mut() {
        let map_name = map.name().to_string_lossy().into_owned();
        if map.map_type() == MapType::StructOps {
            let mut flags = if tunables.until_invalidated {
                KEEP_DATA | flags_of(&mut map) & KEEP
            } else {
                0
            };
            if tunables.per_caller {
                flags |= PER_CALLER;
            }
            set_dev(&mut map, name, dev, flags)?;
            if let Some(bytes) = tunables.cache_bytes {
                set_cache(&mut map, name, bytes)?;
            }
            has_ops = true;
        } else if map_name.ends_with(TUNABLES) {
            let bytes = rodata(tunables);
            if let Some(value) = map.initial_value_mut().filter(|v| v.len() >= bytes.len()) {
                value[..bytes.len()].copy_from_slice(&bytes);
                has_tunables = true;
            }
        } else if map_name.ends_with(adaptive::SECTION) {
            let value = map.initial_value_mut();
            if let Some(set) = value.and_then(|v| adaptive::set(v, &tunables.adaptive)) {
                set.map_err(|what| BpfError::BadSetting {
                    policy: name.to_owned(),
                    what,
                })?;
                has_adaptive = true;
            }
        } else if let Some(at) = entries.iter().position(|(wanted, _)| *wanted == map_name) {
            let (_, count) = entries.swap_remove(at);
            map.set_max_entries(count)
                .map_err(BpfError::bpf(format!("set the size of map {map_name}")))?;
        }
    }
    tell_sizes(object);
    if !has_ops {
        return Err(BpfError::NotAPolicy {
            policy: name.to_owned(),
            what: "has no `struct efuse_ops` in a section .struct_ops.link",
        });
    }
    let missing = |what: String| BpfError::NoSuchSetting {
        policy: name.to_owned(),
        what,
    };
    if let Some((map, _)) = entries.first() {
        return Err(missing(format!("map {map}")));
    }
    if rodata(tunables) != [0; 16] && !has_tunables {
        return Err(missing("tunables".to_owned()));
    }
    if !tunables.adaptive.is_empty() && !has_adaptive {
        return Err(missing("adaptive choice".to_owned()));
    }
    Ok(())
}

/// What the policy itself has in `struct efuse_ops.flags`.
fn flags_of(map: &mut OpenMapMut<'_>) -> u32 {
    map.initial_value_mut()
        .and_then(|value| value.get(4..8)?.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// Fills in the first members of `struct efuse_ops` in `efuse.h`: dev, flags.
pub(crate) fn set_dev(
    map: &mut OpenMapMut<'_>,
    policy: &str,
    dev: Dev,
    flags: u32,
) -> Result<(), BpfError> {
    let value = map
        .initial_value_mut()
        .filter(|value| value.len() >= 8)
        .ok_or(BpfError::NotAPolicy {
            policy: policy.to_owned(),
            what: "has a set of programs that does not begin as struct efuse_ops",
        })?;
    value[..4].copy_from_slice(&dev.raw().to_ne_bytes());
    value[4..8].copy_from_slice(&flags.to_ne_bytes());
    Ok(())
}

/// Sets the size of the cache. Sets made for an older `efuse.h` have a program there, which is 0
/// before they are loaded; so has one without a cache.
fn set_cache(map: &mut OpenMapMut<'_>, policy: &str, bytes: u64) -> Result<(), BpfError> {
    map.initial_value_mut()
        .and_then(|value| value.get_mut(CACHE_BYTES))
        .filter(|value| value.iter().any(|byte| *byte != 0))
        .ok_or_else(|| BpfError::NoSuchSetting {
            policy: policy.to_owned(),
            what: "cache".to_owned(),
        })?
        .copy_from_slice(&bytes.to_ne_bytes());
    Ok(())
}

fn load_hint(error: &libbpf_rs::Error) -> String {
    use libbpf_rs::ErrorKind;

    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            "it takes CAP_BPF and CAP_PERFMON, and programs that the verifier accepts"
        }
        ErrorKind::NotFound => "is the module efuse loaded, and of this version",
        _ => "see below",
    };
    format!("{error} ({hint})")
}

fn attach_hint(error: &libbpf_rs::Error) -> String {
    let text = format!("{error:#}");
    // The kind of libbpf-rs does not tell these apart.
    if text.contains("(os error 16)") {
        "programs are attached there already; detach them first".to_owned()
    } else if text.contains("(os error 1)") {
        "not permitted: it takes CAP_SYS_ADMIN, as mounting does".to_owned()
    } else if text.contains("(os error 19)") {
        "there is no such mount, or its daemon has ended".to_owned()
    } else {
        text
    }
}

/// What libbpf says meanwhile, instead of standard error. One at a time in the process.
pub(crate) struct Messages {
    lines: usize,
    before: Option<(PrintLevel, libbpf_rs::PrintCallback)>,
}

static MESSAGES: Mutex<String> = Mutex::new(String::new());

/// Lines of a log that go into an error; the last ones say what is wrong.
const LOG_LINES: usize = 25;

impl Messages {
    /// Begins; of what is said the last `lines` are kept.
    pub(crate) fn collect(lines: usize) -> Self {
        #[expect(
            clippy::needless_pass_by_value,
            reason = "the type of libbpf's callback"
        )]
        fn keep(_: PrintLevel, text: String) {
            MESSAGES
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push_str(&text);
        }
        MESSAGES
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
        Self {
            lines,
            before: libbpf_rs::set_print(Some((PrintLevel::Warn, keep))),
        }
    }

    /// Ends, and tells what was said.
    pub(crate) fn end(self) -> String {
        let text = std::mem::take(
            &mut *MESSAGES
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(self.lines)..]
            .iter()
            .flat_map(|line| ["\n  ", line])
            .collect()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        libbpf_rs::set_print(self.before.take());
    }
}
