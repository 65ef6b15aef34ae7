//! Where threads run.

/// Keeps the calling thread on one CPU if it may run there. A CPU that is offline, or not for this
/// process, has no callers to be close to: the thread goes where it may.
pub(crate) fn stay_on(cpu: usize) {
    // SAFETY: a set of bits, all clear.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of_val(&set) {
        return;
    }
    // SAFETY: the bit is inside the set, as checked, and the call only reads it.
    unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}
