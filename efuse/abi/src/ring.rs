//! Memory that a ring channel of `/dev/efuse` shares with the kernel: `kernel/efuse/efuse_uapi.h`
//! describes it. Only sizes and places are here; whoever maps it goes about the ordering.

use std::mem::offset_of;

use crate::wire::InHeader;

/// Bytes of arguments that lie in a slot itself.
pub const RING_INLINE: usize = 112;
/// Bytes of the fixed part of a reply.
pub const RING_HEAD: usize = 288;
/// FORGETs that fit into their ring.
pub const RING_FORGETS: usize = 256;
/// Pages of arguments and data are of this size, in bytes.
pub const RING_PAGE: usize = 4096;

/// Nothing to do in the slot.
pub const SLOT_FREE: u32 = 0;
/// The caller looks at the status and takes the reply itself.
pub const SLOT_POLLED: u32 = 1;
/// The caller sleeps.
pub const SLOT_SLEEPING: u32 = 2;
/// Nobody waits.
pub const SLOT_ASYNC: u32 = 3;
/// The reply is there.
pub const SLOT_DONE: u32 = 4;

/// The first page of a channel. Cursors run freely.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RingHeader {
    /// The kernel's: up to where the pending ring is filled.
    pub pending_tail: u32,
    /// The same for interrupts.
    pub intr_tail: u32,
    /// The same for FORGETs.
    pub forget_tail: u32,
    /// The kernel's: not 0 if something waits for being entered.
    pub backlog: u32,
    pad1: [u32; 12],
    /// Ours: up to where requests were taken.
    pub pending_head: u32,
    /// The same for interrupts.
    pub intr_head: u32,
    /// The same for FORGETs.
    pub forget_head: u32,
    /// Threads of ours that spin and need not be woken.
    pub spinners: u32,
    pad2: [u32; 12],
    /// Ours: where the next reply goes.
    pub complete_tail: u32,
    pad3: [u32; 15],
}

/// A request and the place for its reply.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RingSlot {
    /// One of the `SLOT_` values.
    pub status: u32,
    /// Bytes of arguments in `args`.
    pub in_inline: u32,
    /// First page of the arguments after those.
    pub in_page: u32,
    /// Their bytes.
    pub in_size: u32,
    /// First page for data of the reply.
    pub out_page: u32,
    /// Bytes of data that fit there.
    pub out_size: u32,
    /// The reply: 0 or a negative error number.
    pub error: i32,
    /// Bytes of it in `head`.
    pub head_size: u32,
    /// Bytes of it in the pages.
    pub data_size: u32,
    /// The kernel's: not 0 if it wants to know the next.
    pub timed: u32,
    /// When the request was taken, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub taken: u64,
    /// The request's header.
    pub header: InHeader,
    /// Leading arguments.
    pub args: [u8; RING_INLINE],
    /// The fixed part of the reply.
    pub head: [u8; RING_HEAD],
    pad2: [u8; 24],
}

/// The request in a slot is not wanted any more.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RingInterrupt {
    /// Its unique id.
    pub unique: u64,
    /// Where it is, if it is still there.
    pub slot: u32,
    pad: u32,
}

/// Argument of [`RING_SETUP`]; 0 asks for a default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RingSetup {
    /// Number of channels.
    pub channels: u32,
    /// Requests in a channel at once, a power of two.
    pub depth: u32,
    /// Pages for arguments and data in each channel.
    pub pages: u32,
    /// Answered: bytes of a channel's mapping.
    pub bytes: u32,
    /// How long callers poll, in microseconds.
    pub poll_us: u32,
    /// 0 or [`RING_BALANCE`].
    pub flags: u32,
}

/// In [`RingSetup::flags`]: requests may go to channels of other processors if their own is busy.
pub const RING_BALANCE: u32 = 1;

/// Argument of [`RING_ENTER`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RingEnter {
    /// Which channel.
    pub channel: u32,
    /// 0, or [`RING_WAIT`] and for how long ([`RING_WAIT_MS_SHIFT`]).
    pub flags: u32,
}

/// In [`RingEnter::flags`]: wait until there is something in a ring.
pub const RING_WAIT: u32 = 1;
/// Above this many bits in [`RingEnter::flags`]: for how many milliseconds at most, 0 for ever. The
/// call ends with ETIMEDOUT if nothing came.
pub const RING_WAIT_MS_SHIFT: u32 = 16;

const fn iowr(direction: u32, number: u32, size: usize) -> libc::c_ulong {
    ((direction << 30) | ((size as u32) << 16) | (229 << 8) | number) as libc::c_ulong
}

/// Makes the rings, before INIT is answered.
pub const RING_SETUP: libc::c_ulong = iowr(3, 0x60, size_of::<RingSetup>());
/// Hands over replies, takes what waits for room, and may wait.
pub const RING_ENTER: libc::c_ulong = iowr(1, 0x61, size_of::<RingEnter>());

/// Offset at which a channel is mapped.
#[must_use]
pub const fn ring_map_offset(channel: u32) -> i64 {
    (1 << 48) | ((channel as i64) << 32)
}

/// Where the parts of a channel are, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Slots, and entries of the pending, complete and interrupt rings.
    pub depth: u32,
    /// Pages for arguments and data.
    pub pages: u32,
    /// `u32` slot numbers.
    pub pending: usize,
    /// `u32` slot numbers plus 1.
    pub complete: usize,
    /// [`RingInterrupt`].
    pub intr: usize,
    /// [`crate::wire::ForgetOne`].
    pub forget: usize,
    /// [`RingSlot`].
    pub slots: usize,
    /// Pages.
    pub pool: usize,
    /// All of it.
    pub bytes: usize,
}

impl RingLayout {
    /// Of channels with so many slots, a power of two, and pages.
    #[must_use]
    pub const fn new(depth: u32, pages: u32) -> RingLayout {
        assert!(depth.is_power_of_two());
        let n = depth as usize;
        let pending = RING_PAGE;
        let complete = pending + n * size_of::<u32>();
        let intr = complete + n * size_of::<u32>();
        let forget = intr + n * size_of::<RingInterrupt>();
        let slots = (forget + RING_FORGETS * size_of::<crate::wire::ForgetOne>())
            .next_multiple_of(size_of::<RingSlot>());
        let pool = (slots + n * size_of::<RingSlot>()).next_multiple_of(RING_PAGE);
        RingLayout {
            depth,
            pages,
            pending,
            complete,
            intr,
            forget,
            slots,
            pool,
            bytes: pool + pages as usize * RING_PAGE,
        }
    }
}

// As static_asserts in kernel/efuse/ring_dev.c.
const _: () = {
    assert!(size_of::<RingHeader>() == 192);
    assert!(offset_of!(RingHeader, pending_head) == 64);
    assert!(offset_of!(RingHeader, complete_tail) == 128);
    assert!(size_of::<RingSlot>() == 512);
    assert!(offset_of!(RingSlot, header) == 48);
    assert!(offset_of!(RingSlot, args) == 88);
    assert!(offset_of!(RingSlot, head) == 200);
    assert!(size_of::<RingInterrupt>() == 16);
    assert!(size_of::<RingSetup>() == 24);
    assert!(size_of::<RingEnter>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for shift in 1..=10 {
            let at = RingLayout::new(1 << shift, 520);
            let n = 1 << shift;
            assert!(size_of::<RingHeader>() <= at.pending);
            assert!(at.pending + 4 * n <= at.complete);
            assert!(at.complete + 4 * n <= at.intr && at.intr.is_multiple_of(8));
            assert!(at.intr + 16 * n <= at.forget && at.forget.is_multiple_of(8));
            assert!(at.forget + 16 * RING_FORGETS <= at.slots);
            assert!(at.slots.is_multiple_of(512));
            assert!(at.slots + 512 * n <= at.pool && at.pool.is_multiple_of(RING_PAGE));
            assert_eq!(at.bytes, at.pool + 520 * RING_PAGE);
        }
    }

    #[test]
    fn requests_are_numbered_as_in_the_header() {
        assert_eq!(RING_SETUP, 0xc018_e560);
        assert_eq!(RING_ENTER, 0x4008_e561);
        assert_eq!(ring_map_offset(3), 0x1_0003_0000_0000);
    }
}
