/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What policies for ring channels share: what a busy channel is, and when a request
 * stays at home. What the kernel does without a program is kernel/efuse/balance.c.
 */
#ifndef EFUSE_BALANCE_H
#define EFUSE_BALANCE_H

#include "efuse.h"

#define MAX_CHANNELS 128

/* Set before the programs are loaded. */
const volatile struct {
	/* Channels that are tried at random before a request stays at home */
	__u32 tries;
} balancing SEC(".rodata.balancing") = {
	.tries = 10, /* section 4.5 of the 2025 design */
};

/* One more request would wait there, as far as can be seen */
static __always_inline bool busy(const struct efuse_load *load)
{
	return load->in_flight >= load->depth || load->waiting ||
	       (load->untaken && !load->sleepers);
}

/*
 * Whether a request stays in the channel of its caller's processor: a synchronous one
 * unless the workers there are stuck, an asynchronous one unless there are too many
 * or the channel is busy.
 */
static __always_inline bool stays(struct efuse_queue *queue)
{
	struct efuse_load load;

	if (bpf_efuse_queue_load(queue, queue->local, &load))
		return true;
	if (!(queue->flags & EFUSE_QUEUE_ASYNC))
		return !load.stuck;
	return queue->background <= queue->congestion && !busy(&load);
}

/* Requests that a channel has; many if there is no such channel */
static __always_inline __u32 requests(struct efuse_queue *queue, __u32 channel)
{
	struct efuse_load load;

	if (bpf_efuse_queue_load(queue, channel, &load))
		return ~0U;
	return load.in_flight + load.waiting;
}

#endif /* EFUSE_BALANCE_H */
