//! The built-in systems.

mod ext4;
mod libfuse;
pub(crate) mod stackfs;

use crate::System;

pub use ext4::Ext4;
pub use libfuse::Libfuse;
pub use stackfs::{
    EFUSE, EFUSE_BARE, EFUSE_CACHE, EFUSE_CACHE_BACKED, EFUSE_META, EFUSE_META_NOOPEN,
    EFUSE_PASSTHROUGH, EFUSE_PRELIM, EXTFUSE, FUSE, FUSE_PASSTHROUGH, FUSE_URING, RFUSE,
    RFUSE_UNBALANCED, StackFs,
};

/// Every built-in system, in the order of tables and charts.
#[must_use]
pub fn all() -> Vec<Box<dyn System>> {
    vec![
        Box::new(Ext4),
        Box::new(Libfuse),
        Box::new(FUSE),
        Box::new(FUSE_PASSTHROUGH),
        Box::new(FUSE_URING),
        Box::new(EFUSE_BARE),
        Box::new(EXTFUSE),
        Box::new(EFUSE_META),
        Box::new(EFUSE_META_NOOPEN),
        Box::new(EFUSE_PASSTHROUGH),
        Box::new(EFUSE_CACHE),
        Box::new(EFUSE_CACHE_BACKED),
        Box::new(EFUSE_PRELIM),
        Box::new(RFUSE),
        Box::new(RFUSE_UNBALANCED),
        Box::new(EFUSE),
    ]
}
