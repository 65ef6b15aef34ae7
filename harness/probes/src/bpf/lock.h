/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Waiting for the lock of the connection's input queue.
 *
 * The tracepoint contention_begin comes only where waiters queue up, so with two
 * processors never: the single waiter spins on the pending bit. The slow path's function
 * is entered by every one that did not get the lock at once. It runs with preemption off
 * and this lock is not taken in interrupts, so one start per processor is enough; the
 * program touches nothing for other locks, among them those of BPF's own maps.
 */
#ifndef PROBES_LOCK_H
#define PROBES_LOCK_H

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lock_start SEC(".maps");

static __always_inline bool is_queue_lock(__u64 lock)
{
	return control.active && connection && lock == connection + config.fc_lock;
}

static __always_inline int lock_wait(__u64 lock)
{
	__u32 zero = 0;
	__u64 *start;

	if (!is_queue_lock(lock))
		return 0;
	start = bpf_map_lookup_elem(&lock_start, &zero);
	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int lock_got(__u64 lock)
{
	__u32 zero = 0;
	__u64 *start;

	if (!is_queue_lock(lock))
		return 0;
	start = bpf_map_lookup_elem(&lock_start, &zero);
	if (!start || !*start)
		return 0;
	count(COUNT_CONTENDED, 1);
	count(COUNT_WAIT_NS, bpf_ktime_get_ns() - *start);
	*start = 0;
	return 0;
}

SEC("fentry")
int lock_wait_native(__u64 *ctx)
{
	return lock_wait(ctx[0]);
}

/* void queued_spin_lock_slowpath(lock, val) */
SEC("fexit")
int lock_got_native(__u64 *ctx)
{
	return lock_got(ctx[0]);
}

/* In a guest of a hypervisor that helps with locks. */
SEC("fentry")
int lock_wait_pv(__u64 *ctx)
{
	return lock_wait(ctx[0]);
}

SEC("fexit")
int lock_got_pv(__u64 *ctx)
{
	return lock_got(ctx[0]);
}

#endif
