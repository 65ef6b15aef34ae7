//! Where threads run.

/// Keeps the calling thread on one CPU if it may run there. A CPU that is offline, or not for this
/// process, has no callers to be close to: the thread goes where it may.
pub(crate) fn stay_on(cpu: usize) {
    // SAFETY: a set of bits, all clear.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of_val(&set) || !may_run_on(cpu) {
        return;
    }
    // SAFETY: the bit is inside the set, as checked, and the call only reads it.
    unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// The kernel would let a thread leave the CPUs that it was started with (taskset); a daemon that was
/// given some of them keeps to these.
fn may_run_on(cpu: usize) -> bool {
    // SAFETY: a set of bits, all clear.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes at most so many bytes to the set; the caller checked the bit.
    unsafe {
        // Where the set is too small for this machine, nothing is known.
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) < 0
            || libc::CPU_ISSET(cpu, &set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<usize> {
        (0..libc::CPU_SETSIZE as usize)
            .filter(|cpu| may_run_on(*cpu))
            .collect()
    }

    #[test]
    fn a_thread_stays_on_a_cpu_and_within_those_it_was_given() {
        let all = allowed();
        let (first, last) = (all[0], all[all.len() - 1]);
        stay_on(last);
        assert_eq!(allowed(), [last]);
        // Not where it may not run, nor where no CPU can be.
        stay_on(first);
        stay_on(usize::MAX);
        assert_eq!(allowed(), [last]);
    }
}
