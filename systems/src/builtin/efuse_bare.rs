//! `efuse-bare`: the efuse module with no program attached. It must behave and perform
//! like stock FUSE; a difference here would be in every other efuse figure too.

use super::stackfs;
use crate::recipe::Recipe;
use crate::{MountContext, Mounted, Need, System, SystemError, digest_of};

/// `StackFS` on `/dev/efuse`.
#[derive(Clone, Copy, Debug)]
pub struct EfuseBare;

impl EfuseBare {
    fn recipe() -> Recipe {
        stackfs::recipe("/dev/efuse", "efuse", &[])
    }
}

impl System for EfuseBare {
    fn id(&self) -> &str {
        "efuse-bare"
    }

    fn title(&self) -> &str {
        "StackFS on eFUSE without a program"
    }

    fn digest(&self) -> String {
        digest_of([self.id(), &Self::recipe().fingerprint()])
    }

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::Root,
            Need::device("/dev/efuse"),
            Need::own_program(stackfs::PROGRAM),
        ]
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        Self::recipe().mount(self.id(), ctx)
    }
}
