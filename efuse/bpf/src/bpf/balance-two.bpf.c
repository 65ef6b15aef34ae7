// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "balance-two": of two channels at random the one with fewer requests, which
 * is nearly as even as looking at all of them (Mitzenmacher, 2001).
 */
#include "balance.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/select_queue")
int BPF_PROG(select_queue, struct efuse_queue *queue)
{
	__u32 channels = queue->channels;
	__u32 one, other;

	if (!channels || stays(queue))
		return queue->local;
	one = bpf_get_prandom_u32() % channels;
	other = bpf_get_prandom_u32() % channels;
	return requests(queue, one) <= requests(queue, other) ? one : other;
}

SEC(".struct_ops.link")
struct efuse_ops balance_two = {
	.name = "balance-two",
	.select_queue = (void *)select_queue,
};
