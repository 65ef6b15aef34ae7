//! `libfuse`: the control. libfuse's own `passthrough_ll` example shows whether the
//! project's daemon is a fair baseline or a straw man.

use crate::controls::{PASSTHROUGH_LL, SHIM};
use crate::recipe::Recipe;
use crate::settings::WORKERS;
use crate::{MountContext, Mounted, Need, System, SystemError, digest_of};

/// libfuse's `passthrough_ll` on `/dev/fuse`.
#[derive(Clone, Copy, Debug)]
pub struct Libfuse;

impl Libfuse {
    fn recipe() -> Recipe {
        // clone_fd: a device descriptor per thread, as StackFS has.
        // max_idle_threads: libfuse starts up to ten threads by itself (the example
        //   cannot change that) and with this keeps all of them.
        // no_xattr: its default. The kernel then stops asking for file capabilities at
        //   each buffered write, which is the faster setting, and a control is to be as
        //   fast as it can be.
        // cache=auto, timeout: see the shared settings; both are its defaults.
        let options = format!(
            "source={{lower}},cache=auto,timeout={{timeout}},no_writeback,no_xattr,\
             clone_fd,max_idle_threads={WORKERS},allow_other,default_permissions,fsname=libfuse"
        );
        Recipe::new(
            PASSTHROUGH_LL,
            &["-f", "-o", &options, "{mountpoint}"],
            "fuse",
        )
    }
}

impl System for Libfuse {
    fn id(&self) -> &str {
        "libfuse"
    }

    fn title(&self) -> &str {
        "libfuse's passthrough_ll on stock FUSE"
    }

    fn digest(&self) -> String {
        digest_of([self.id(), &Self::recipe().fingerprint(), SHIM])
    }

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::Root,
            Need::dev_fuse(),
            Need::Program {
                name: PASSTHROUGH_LL.to_owned(),
                remedy: "the harness builds it from libfuse3-dev before a run".to_owned(),
            },
        ]
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        Self::recipe().mount(self.id(), ctx)
    }
}
