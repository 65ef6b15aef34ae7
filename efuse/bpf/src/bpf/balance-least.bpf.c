// SPDX-License-Identifier: GPL-2.0-only
/* The policy "balance-least": the channel with the fewest requests, of all of them. */
#include "balance.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/select_queue")
int BPF_PROG(select_queue, struct efuse_queue *queue)
{
	__u32 least, best;

	if (stays(queue))
		return queue->local;
	best = queue->local;
	least = requests(queue, best);
	for (__u32 i = 0; i < MAX_CHANNELS && i < queue->channels; i++) {
		__u32 n = requests(queue, i);

		if (n < least) {
			least = n;
			best = i;
		}
	}
	return best;
}

SEC(".struct_ops.link")
struct efuse_ops balance_least = {
	.name = "balance-least",
	.select_queue = (void *)select_queue,
};
