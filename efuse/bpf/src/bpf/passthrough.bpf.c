// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "passthrough": metadata from maps, data from and to the backing file
 * wherever there is one.
 */
#include "metadata.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/read")
int BPF_PROG(read_choose, struct efuse_io *io)
{
	return EFUSE_IO_BACKING;
}

SEC("struct_ops/write")
int BPF_PROG(write_choose, struct efuse_io *io)
{
	return EFUSE_IO_BACKING;
}

SEC(".struct_ops.link")
struct efuse_ops passthrough = {
	.name = "passthrough",
	METADATA_MEMBERS,
	.read = (void *)read_choose,
	.write = (void *)write_choose,
};
