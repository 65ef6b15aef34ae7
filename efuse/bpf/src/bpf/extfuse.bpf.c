// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy "extfuse": what ExtFUSE (Bijlani and Ramachandran, ATC 2019) answers in
 * the kernel, for comparison: names that are there, attributes and extended
 * attributes. No missing names, links, lists, or directories read ahead. STATX, which
 * is younger, counts as GETATTR.
 */
#include "entry.h"
#include "xattr.h"
#include "member.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline void entry_learn_present(struct efuse_ctx *req)
{
	if (!req->error)
		entry_learn_reply(req);
}

BEFORE(lookup, entry_answer)
BEFORE(getattr, attr_answer)
BEFORE(statx, statx_answer)
BEFORE(getxattr, xattr_answer)

AFTER(lookup_after, entry_learn_present)
AFTER(create_after, entry_learn_present)
AFTER(mknod_after, entry_learn_present)
AFTER(mkdir_after, entry_learn_present)
AFTER(symlink_after, entry_learn_present)
AFTER(link_after, entry_learn_present)
AFTER(getattr_after, attr_learn_reply)
AFTER(setattr_after, attr_learn_reply)
AFTER(statx_after, statx_learn)
AFTER(getxattr_after, xattr_learn)

SEC(".struct_ops.link")
struct efuse_ops extfuse = {
	.name = "extfuse",
	.lookup = (void *)lookup,
	.lookup_after = (void *)lookup_after,
	.getattr = (void *)getattr,
	.getattr_after = (void *)getattr_after,
	.statx = (void *)statx,
	.statx_after = (void *)statx_after,
	.getxattr = (void *)getxattr,
	.getxattr_after = (void *)getxattr_after,
	.setattr_after = (void *)setattr_after,
	.create_after = (void *)create_after,
	.mknod_after = (void *)mknod_after,
	.mkdir_after = (void *)mkdir_after,
	.symlink_after = (void *)symlink_after,
	.link_after = (void *)link_after,
};
