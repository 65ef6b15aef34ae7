// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "metadata": everything about files but their data.
 */
#include "metadata.h"

char LICENSE[] SEC("license") = "GPL";

SEC(".struct_ops.link")
struct efuse_ops metadata = {
	.name = "metadata",
	METADATA_MEMBERS,
};
