/* SPDX-License-Identifier: GPL-2.0 */
/* Plain counters, one of each per processor. */
#ifndef PROBES_COUNTS_H
#define PROBES_COUNTS_H

/* Known to user space by number. */
enum count {
	COUNT_FIO_CALLS,
	COUNT_DAEMON_CALLS,
	COUNT_CONTENDED,
	COUNT_WAIT_NS,
	COUNT_LOST_ENQUEUE,	/* no room for a request */
	COUNT_LOST_END,		/* the end of a request was not seen */
	COUNT_LOST_REPLY,	/* its reply was not seen */
	COUNT_LOST_MAX,		/* a largest value was not stored */
	COUNT_FORGOTTEN,	/* nodes that FORGET and BATCH_FORGET named */
	COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 which, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &which);

	/* Atomic: an interrupt may run a program on the same processor. */
	if (value)
		__sync_fetch_and_add(value, by);
}

#endif
