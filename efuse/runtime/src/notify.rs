use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use efuse_abi::wire::{NotifyDeleteOut, NotifyInvalEntryOut, NotifyInvalInodeOut, NotifyStoreOut};
use efuse_abi::{Errno, InitFlags, NotifyCode};
use zerocopy::IntoBytes;

use crate::transport::{BackingFiles, Transport};

/// What is negotiated in INIT. Starts with the session's choice; the file system may change it.
#[derive(Clone, Debug)]
pub struct Negotiation {
    /// Minor version that will be spoken.
    pub minor: u32,
    /// What the kernel offers.
    pub offered: InitFlags,
    /// What to ask for; anything not offered is taken out.
    pub wanted: InitFlags,
    /// Largest WRITE in bytes.
    pub max_write: u32,
    /// Largest read-ahead in bytes; the kernel offers what it starts with.
    pub max_readahead: u32,
    /// How many asynchronous requests may be under way.
    pub max_background: u16,
    /// From how many on the kernel stops reading ahead.
    pub congestion_threshold: u16,
    /// Resolution of timestamps in nanoseconds.
    pub time_gran: u32,
    /// With [`InitFlags::PASSTHROUGH`]: how many stacked file systems may lie below, plus one.
    pub max_stack_depth: u32,
}

/// Sends unsolicited messages to the kernel.
///
/// Invalidating pages or names takes locks that a caller waiting for a reply may hold: do not do
/// it from a handler for the node that the handler works on. Attributes alone are safe.
#[derive(Clone)]
pub struct Notifier(Arc<dyn Transport>);

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Notifier {
        Notifier(transport)
    }

    /// Drops cached attributes, and pages from `offset` on (`len` 0: to the end).
    pub fn inval_inode(&self, node: u64, offset: i64, len: i64) -> Result<(), Errno> {
        let message = NotifyInvalInodeOut {
            ino: node,
            off: offset,
            len,
        };
        self.0.notify(NotifyCode::InvalInode, &[message.as_bytes()])
    }

    /// Drops cached attributes only.
    pub fn inval_attributes(&self, node: u64) -> Result<(), Errno> {
        self.inval_inode(node, -1, 0)
    }

    /// Drops a name.
    pub fn inval_entry(&self, parent: u64, name: &CStr) -> Result<(), Errno> {
        let namelen = name.count_bytes() as u32;
        let message = NotifyInvalEntryOut {
            parent,
            namelen,
            flags: 0,
        };
        self.0.notify(
            NotifyCode::InvalEntry,
            &[message.as_bytes(), name.to_bytes_with_nul()],
        )
    }

    /// Says that a name was removed.
    pub fn delete(&self, parent: u64, child: u64, name: &CStr) -> Result<(), Errno> {
        let namelen = name.count_bytes() as u32;
        let message = NotifyDeleteOut {
            parent,
            child,
            namelen,
            padding: 0,
        };
        self.0.notify(
            NotifyCode::Delete,
            &[message.as_bytes(), name.to_bytes_with_nul()],
        )
    }

    /// Puts data into the page cache.
    pub fn store(&self, node: u64, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let size = u32::try_from(data.len()).map_err(|_| Errno::EINVAL)?;
        let message = NotifyStoreOut {
            nodeid: node,
            offset,
            size,
            padding: 0,
        };
        self.0
            .notify(NotifyCode::Store, &[message.as_bytes(), data])
    }
}

/// What a file system can do to its connection, beside answering.
#[derive(Clone)]
pub struct Connection {
    /// Sends notifications.
    pub notifier: Notifier,
    /// Registers backing files, where the transport can.
    pub backing: Option<Arc<dyn BackingFiles>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("backing", &self.backing.is_some())
            .finish()
    }
}
