// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "balance": the document's. The next channel in turn, or if that is busy one
 * of some at random.
 */
#include "balance.h"

char LICENSE[] SEC("license") = "GPL";

__u32 turn;

SEC("struct_ops/select_queue")
int BPF_PROG(select_queue, struct efuse_queue *queue)
{
	__u32 channels = queue->channels;
	struct efuse_load load;
	__u32 channel;

	if (!channels || stays(queue))
		return queue->local;
	channel = __sync_fetch_and_add(&turn, 1) % channels;
	for (__u32 i = 0; i < balancing.tries && i < MAX_CHANNELS; i++) {
		if (channel != queue->local && !bpf_efuse_queue_load(queue, channel, &load) &&
		    !busy(&load))
			return channel;
		channel = bpf_get_prandom_u32() % channels;
	}
	return queue->local;
}

SEC(".struct_ops.link")
struct efuse_ops balance = {
	.name = "balance",
	.select_queue = (void *)select_queue,
};
