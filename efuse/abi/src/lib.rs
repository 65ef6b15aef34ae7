//! The FUSE wire format, kernel minor versions 7.31 to 7.45.
//!
//! Requests are decoded in place: [`Request::parse`] borrows structures, names and payload from the
//! buffer that the transport filled, after checking every length. Nothing here allocates and
//! nothing panics, whatever the bytes are; the property tests and the fuzz target hold that.
//!
//! A transport whose fixed arguments and payload live in different memory (ring channels,
//! io_uring) uses [`Request::from_parts`].

#![forbid(unsafe_code)]

mod dirent;
mod errno;
mod flags;
mod ioctl;
mod opcode;
mod request;
pub mod ring;
pub mod wire;

pub use dirent::{DirentBuf, DirentPlusBuf};
pub use errno::Errno;
pub use flags::{FopenFlags, InitFlags, ReleaseFlags, SetattrValid, WriteFlags};
pub use ioctl::{DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, DEV_IOC_CLONE};
pub use opcode::{NotifyCode, Opcode};
pub use request::{DecodeError, Dialect, Extension, Extensions, Op, Request};

/// Major version of the protocol; there has been no other since 2006.
pub const KERNEL_VERSION: u32 = 7;
/// Newest minor version that this crate knows (kernel 6.18).
pub const KERNEL_MINOR_VERSION: u32 = 45;
/// Oldest minor version that is spoken (kernel 5.4): older ones have shorter structures.
pub const KERNEL_MINOR_MIN: u32 = 31;
/// Node id of the root directory.
pub const ROOT_ID: u64 = 1;
/// The kernel refuses to read requests into less than this, in bytes.
pub const MIN_READ_BUFFER: usize = 8192;
/// The largest extended attribute, and list of their names, that Linux has, bytes (`XATTR_SIZE_MAX`).
pub const LARGEST_XATTR: usize = 65536;
/// Bytes before the payload of a WRITE: request header and `WriteIn`.
pub const WRITE_PAYLOAD_OFFSET: usize = size_of::<wire::InHeader>() + size_of::<wire::WriteIn>();
/// Set in a request's unique id when it is sent a second time after NOTIFY_RESEND.
pub const UNIQUE_RESEND: u64 = 1 << 63;
