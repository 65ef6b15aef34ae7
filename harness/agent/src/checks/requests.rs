//! Requests of the module in the kernel's memory, of which none may be left over.

use super::{Trouble, fail};
use crate::slabs;

const CACHE: &str = "efuse_request";

/// How many there were before something that may leave some.
pub(super) struct Requests {
    before: u64,
}

impl Requests {
    /// `None` where the kernel does not count them by themselves.
    pub fn before() -> Result<Option<Self>, Trouble> {
        Ok(slabs::objects(CACHE)?.map(|before| Self { before }))
    }

    /// Waits until there are no more than before; fails if that does not come about.
    pub fn settle(self) -> Result<String, Trouble> {
        let Self { before } = self;
        let after = slabs::settle(CACHE, before)?;
        if after > before {
            return fail(format!("{before} requests in memory before, {after} after"));
        }
        Ok(format!(
            "{after} requests of the module in memory, {before} before"
        ))
    }
}
