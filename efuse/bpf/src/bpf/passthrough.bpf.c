// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "passthrough": metadata from maps, data from and to the backing file
 * wherever there is one.
 */
#include "metadata.h"

char LICENSE[] SEC("license") = "GPL";

CHOOSE(read, EFUSE_IO_BACKING | EFUSE_IO_KEEP)
CHOOSE(write, EFUSE_IO_BACKING | EFUSE_IO_KEEP)

SEC(".struct_ops.link")
struct efuse_ops passthrough = {
	.name = "passthrough",
	METADATA_MEMBERS,
	.read = (void *)read_choose,
	.write = (void *)write_choose,
};
