// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "cache": metadata from maps, data from the cache wherever that can be.
 * What it lacks is read into it, from the backing file or from the daemon.
 */
#include "metadata.h"

char LICENSE[] SEC("license") = "GPL";

CHOOSE(read, EFUSE_IO_CACHE | EFUSE_IO_KEEP)
CHOOSE(write, EFUSE_IO_CACHE | EFUSE_IO_KEEP)

SEC(".struct_ops.link")
struct efuse_ops cache = {
	.name = "cache",
	.cache_bytes = 64 << 20,
	METADATA_MEMBERS,
	.read = (void *)read_choose,
	.write = (void *)write_choose,
};
