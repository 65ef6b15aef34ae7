// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "prelim": the first three modules. Metadata from maps, data from the
 * cache or the backing file, whichever was faster lately for that file.
 */
#include "metadata.h"
#include "adaptive.h"

char LICENSE[] SEC("license") = "GPL";

CHOOSE(read, adaptive_read(io))

SEC("struct_ops/read_after")
int BPF_PROG(read_tell, struct efuse_io *io)
{
	adaptive_read_after(io);
	return 0;
}

CHOOSE(write, adaptive_write(io))

SEC(".struct_ops.link")
struct efuse_ops prelim = {
	.name = "prelim",
	.cache_bytes = 64 << 20,
	METADATA_MEMBERS,
	.read = (void *)read_choose,
	.read_after = (void *)read_tell,
	.write = (void *)write_choose,
};
