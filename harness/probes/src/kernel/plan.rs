//! Which program is attached to what.

/// A program, what it is attached to, and what is missing without it.
pub(super) struct Plan {
    pub program: &'static str,
    /// Function of FUSE, function of the kernel, or tracepoint.
    pub target: Target,
    pub group: Group,
}

#[derive(Clone, Copy)]
pub(super) enum Target {
    Fuse(&'static str),
    Kernel(&'static str),
    /// Of FUSE: the module's is named after it.
    FuseEvent(&'static str),
    Event(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Requests,
    Forgets,
    /// Only the module has rings.
    Rings,
    LockNative,
    LockPv,
    Calls,
}

impl Group {
    pub const fn title(self) -> &'static str {
        match self {
            Self::Requests => "FUSE requests",
            Self::Forgets => "crossings of FORGET and INTERRUPT",
            Self::Rings => "what daemons take from rings",
            Self::LockNative | Self::LockPv => "contention on the input queue's lock",
            Self::Calls => "system calls",
        }
    }
}

pub(super) const PLANS: &[Plan] = &[
    plan(
        "background_given",
        Target::Fuse("fuse_simple_background"),
        Group::Requests,
    ),
    plan(
        "background_refused",
        Target::Fuse("fuse_simple_background"),
        Group::Requests,
    ),
    plan(
        "request_enqueue",
        Target::FuseEvent("request_send"),
        Group::Requests,
    ),
    plan(
        "request_dequeue",
        Target::Fuse("fuse_copy_args"),
        Group::Requests,
    ),
    plan(
        "request_reply",
        Target::Fuse("fuse_request_end"),
        Group::Requests,
    ),
    plan(
        "request_end",
        Target::FuseEvent("request_end"),
        Group::Requests,
    ),
    plan(
        "interrupt_enqueue",
        Target::Fuse("fuse_dev_queue_interrupt"),
        Group::Forgets,
    ),
    plan(
        "message_read",
        Target::Fuse("fuse_dev_do_read"),
        Group::Forgets,
    ),
    plan("ring_taken", Target::Fuse("efuse_ring_taken"), Group::Rings),
    plan(
        "ring_messages",
        Target::Fuse("efuse_ring_messages"),
        Group::Rings,
    ),
    plan(
        "lock_wait_native",
        Target::Kernel("native_queued_spin_lock_slowpath"),
        Group::LockNative,
    ),
    plan(
        "lock_got_native",
        Target::Kernel("native_queued_spin_lock_slowpath"),
        Group::LockNative,
    ),
    plan(
        "lock_wait_pv",
        Target::Kernel("__pv_queued_spin_lock_slowpath"),
        Group::LockPv,
    ),
    plan(
        "lock_got_pv",
        Target::Kernel("__pv_queued_spin_lock_slowpath"),
        Group::LockPv,
    ),
    plan("call_enter", Target::Event("sys_enter"), Group::Calls),
];

const fn plan(program: &'static str, target: Target, group: Group) -> Plan {
    Plan {
        program,
        target,
        group,
    }
}
