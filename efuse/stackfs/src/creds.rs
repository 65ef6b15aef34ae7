//! Acting for a caller: ownership of what is created, umask, and the loss of set-id bits.
//!
//! Everything here concerns the calling thread only. The raw calls are used on purpose: the C
//! library's setuid family would change every thread.

use efuse_abi::Errno;

use crate::sys;

const CAP_FSETID: u32 = 4;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Ids and capabilities that the worker threads have when they act for themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    uid: u32,
    gid: u32,
    caps: [CapData; 2],
}

impl Baseline {
    /// Those of the calling thread.
    pub(crate) fn current() -> Result<Baseline, Errno> {
        let mut header = CapHeader {
            version: VERSION_3,
            pid: 0,
        };
        let mut caps = [CapData::default(); 2];
        // SAFETY: version 3 of the call reads the header and fills two CapData.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, caps.as_mut_ptr()) };
        if result < 0 {
            return Err(Errno::last());
        }
        // SAFETY: no arguments, cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Ok(Baseline { uid, gid, caps })
    }

    /// Until the guard is dropped, new files belong to `uid` and `gid` and get `umask`.
    ///
    /// All capabilities stay: whether the caller may do this was decided by the kernel above
    /// (`default_permissions`, with his supplementary groups, which a daemon cannot see), and a
    /// second check here without those groups would refuse what is allowed.
    pub(crate) fn act_as(&self, uid: u32, gid: u32, umask: u32) -> AsCaller<'_> {
        let old_umask = sys::umask(umask & 0o777);
        let switched = uid != self.uid || gid != self.gid;
        if switched {
            // SAFETY: no pointers. They report no errors; without privilege they change nothing
            // and the new file belongs to the daemon's user.
            unsafe {
                libc::syscall(libc::SYS_setfsgid, gid);
                libc::syscall(libc::SYS_setfsuid, uid);
            }
            // A fsuid other than 0 has dropped the capabilities that concern files.
            set_caps(&self.caps);
        }
        AsCaller {
            baseline: self,
            old_umask,
            switched,
        }
    }

    /// Until the guard is dropped, the kernel below clears suid and sgid on write, truncate and
    /// the like as it does for an ordinary user of group `gid`.
    ///
    /// The group counts for files with sgid but without execute permission for the group: members
    /// keep that bit. Supplementary groups are not known here, so such a member loses it.
    pub(crate) fn unprivileged(&self, gid: u32) -> Unprivileged<'_> {
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
        let mut caps = self.caps;
        caps[0].effective &= !(1 << CAP_FSETID);
        set_caps(&caps);
        Unprivileged(self)
    }
}

fn set_caps(caps: &[CapData; 2]) {
    let header = CapHeader {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 of the call reads the header and two CapData. It only drops capabilities
    // or takes back permitted ones, which is always allowed.
    unsafe { libc::syscall(libc::SYS_capset, &raw const header, caps.as_ptr()) };
}

pub(crate) struct AsCaller<'a> {
    baseline: &'a Baseline,
    old_umask: u32,
    switched: bool,
}

impl Drop for AsCaller<'_> {
    fn drop(&mut self) {
        if self.switched {
            // SAFETY: as in `act_as`.
            unsafe {
                libc::syscall(libc::SYS_setfsuid, self.baseline.uid);
                libc::syscall(libc::SYS_setfsgid, self.baseline.gid);
            }
            set_caps(&self.baseline.caps);
        }
        sys::umask(self.old_umask);
    }
}

pub(crate) struct Unprivileged<'a>(&'a Baseline);

impl Drop for Unprivileged<'_> {
    fn drop(&mut self) {
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_setfsgid, self.0.gid) };
        set_caps(&self.0.caps);
    }
}
