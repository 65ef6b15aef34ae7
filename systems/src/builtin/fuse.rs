//! `fuse`: the baseline, StackFS on the kernel's own FUSE.

use super::stackfs;
use crate::recipe::Recipe;
use crate::{MountContext, Mounted, Need, System, SystemError, digest_of};

/// `StackFS` on `/dev/fuse`.
#[derive(Clone, Copy, Debug)]
pub struct Fuse;

impl Fuse {
    fn recipe() -> Recipe {
        stackfs::recipe("/dev/fuse", "fuse", &[])
    }
}

impl System for Fuse {
    fn id(&self) -> &str {
        "fuse"
    }

    fn title(&self) -> &str {
        "StackFS on stock FUSE"
    }

    fn digest(&self) -> String {
        digest_of([self.id(), &Self::recipe().fingerprint()])
    }

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::Root,
            Need::dev_fuse(),
            Need::own_program(stackfs::PROGRAM),
        ]
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        Self::recipe().mount(self.id(), ctx)
    }
}
