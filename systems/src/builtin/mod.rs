//! The built-in systems, one file each.

mod efuse_bare;
mod ext4;
mod fuse;
mod fuse_passthrough;
mod libfuse;
pub(crate) mod stackfs;

use crate::System;

pub use efuse_bare::EfuseBare;
pub use ext4::Ext4;
pub use fuse::Fuse;
pub use fuse_passthrough::FusePassthrough;
pub use libfuse::Libfuse;

/// Every built-in system, in the order of tables and charts.
#[must_use]
pub fn all() -> Vec<Box<dyn System>> {
    vec![
        Box::new(Ext4),
        Box::new(Libfuse),
        Box::new(Fuse),
        Box::new(FusePassthrough),
        Box::new(EfuseBare),
    ]
}
