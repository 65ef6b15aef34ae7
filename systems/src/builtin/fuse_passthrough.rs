//! `fuse-passthrough`: what a user of today would pick. Reads and writes go to a backing
//! file inside the mainline kernel; names and attributes still go to the daemon.

use super::stackfs;
use crate::recipe::Recipe;
use crate::{KernelFeature, MountContext, Mounted, Need, System, SystemError, digest_of};

/// `StackFS` on `/dev/fuse` with backing files.
#[derive(Clone, Copy, Debug)]
pub struct FusePassthrough;

impl FusePassthrough {
    fn recipe() -> Recipe {
        stackfs::recipe("/dev/fuse", "fuse", &["--passthrough"])
    }
}

impl System for FusePassthrough {
    fn id(&self) -> &str {
        "fuse-passthrough"
    }

    fn title(&self) -> &str {
        "StackFS on stock FUSE with passthrough"
    }

    fn digest(&self) -> String {
        digest_of([self.id(), &Self::recipe().fingerprint()])
    }

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::Root,
            Need::dev_fuse(),
            Need::own_program(stackfs::PROGRAM),
            Need::Kernel(KernelFeature::FusePassthrough),
        ]
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        Self::recipe().mount(self.id(), ctx)
    }
}
