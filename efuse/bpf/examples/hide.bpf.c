// SPDX-License-Identifier: GPL-2.0-only
/* The worked example of docs/programming.md: the name "secret" is not there for anyone but root. */
#include "efuse.h"
#include "wire.h"

char LICENSE[] SEC("license") = "GPL";

static const char hidden[] = "secret";

SEC("struct_ops/lookup")
int BPF_PROG(lookup, struct efuse_ctx *req)
{
	char name[sizeof(hidden)];
	int length;

	/* Of a LOOKUP the name is the first argument, with its zero at the end. */
	length = bpf_efuse_read_arg(req, 0, 0, name, sizeof(name));
	if (!req->uid || length != sizeof(hidden))
		return EFUSE_PASS;
	for (int i = 0; i < sizeof(hidden); i++)
		if (name[i] != hidden[i])
			return EFUSE_PASS;
	/* Known just now, so there is nothing it could be older than. */
	return bpf_efuse_reply_error(req, -ENOENT, req->seq) ? EFUSE_PASS : EFUSE_ANSWER;
}

SEC(".struct_ops.link")
struct efuse_ops hide = {
	.name = "hide",
	.lookup = (void *)lookup,
};
