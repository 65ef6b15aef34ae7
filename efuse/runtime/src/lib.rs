//! Runs a [`FileSystem`] in user space.
//!
//! A [`Transport`] brings requests from the kernel and takes replies back; the first one is the
//! character device ([`Device`], `/dev/fuse` or `/dev/efuse`), [`Rings`] share memory with
//! the kernel module, [`Uring`] is FUSE over io_uring. Each worker thread owns one
//! [`Channel`] of it, so the path of a request touches no lock and allocates nothing: receive into
//! the channel's buffer, decode in place, call the handler, reply from the channel's data buffer.
//!
//! ```no_run
//! use efuse_runtime::{Device, FileSystem, MountOptions, Session, SessionConfig, Transport};
//! use std::sync::Arc;
//!
//! struct Empty;
//! impl FileSystem for Empty {}
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = MountOptions::new("/mnt".as_ref());
//! let (device, mount) = Device::mount(&options)?;
//! let transport: Arc<dyn Transport> = Arc::new(device);
//! let session = Session::start(&transport, &Arc::new(Empty), &SessionConfig::default())?;
//! session.wait()?;
//! drop(mount);
//! # Ok(())
//! # }
//! ```

mod buffer;
mod cpu;
mod crew;
mod device;
mod dispatch;
mod fs;
mod mount;
mod notify;
mod ring;
mod session;
mod slow;
mod transport;
mod uring;
mod worker;

pub use buffer::AlignedBuffer;
pub use device::Device;
pub use fs::{
    Attributes, Context, Entry, FileSystem, Ioctl, IoctlReply, Node, Opened, PollReply, XattrReply,
};
pub use mount::{Mount, MountError, MountOptions};
pub use notify::{Connection, Negotiation, Notifier};
#[doc(hidden)]
pub use ring::BenchChannel;
pub use ring::{RingConfig, Rings};
pub use session::{Session, SessionConfig, SessionError};
pub use transport::{
    BackingFiles, Channel, Exchange, RawRequest, ReceiveError, Transport, TransportError,
};
pub use uring::Uring;
