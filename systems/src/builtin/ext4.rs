//! `ext4`: the lower file system itself, what a pass-through can at best come near to.

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::daemon::new_token;
use crate::guardian::Guardian;
use crate::recipe::free_mountpoint;
use crate::{MountContext, Mounted, Need, System, SystemError, digest_of, mountinfo};

/// The lower directory, bind mounted so that it appears and goes away like the others.
#[derive(Clone, Copy, Debug)]
pub struct Ext4;

impl System for Ext4 {
    fn id(&self) -> &str {
        "ext4"
    }

    fn title(&self) -> &str {
        "EXT4, the lower file system itself"
    }

    fn digest(&self) -> String {
        digest_of([self.id(), "bind mount of the lower directory"])
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::Root]
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        let root = free_mountpoint(&ctx.mountpoint)?;
        let lower = fs::canonicalize(&ctx.lower)
            .map_err(SystemError::io(&ctx.lower, "find the lower directory"))?;
        let guardian = Guardian::start(&root, &new_token());
        let mut mounted = Mounted {
            system: self.id().to_owned(),
            root: root.clone(),
            entry: None,
            control: None,
            daemon: None,
            guardian,
            unmount_with: None,
            strict_exit: true,
            finished: false,
        };
        mount(
            Some(&lower),
            &root,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|e| {
            SystemError::io(&root, format!("bind mount {} on it", lower.display()))(e.into())
        })?;
        mounted.entry = mountinfo::at(&root)?;
        Ok(mounted)
    }
}
