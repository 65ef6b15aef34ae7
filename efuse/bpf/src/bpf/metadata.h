/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Metadata: names, attributes, extended attributes and targets of links are answered
 * from maps that fill from the daemon's own replies.
 */
#ifndef EFUSE_METADATA_H
#define EFUSE_METADATA_H

#include "list.h"
#include "xattr.h"
#include "member.h"

BEFORE(lookup, entry_answer)
BEFORE(getattr, attr_answer)
BEFORE(statx, statx_answer)
BEFORE(getxattr, xattr_answer)
BEFORE(listxattr, xattr_answer)
BEFORE(readlink, xattr_answer)
BEFORE(readdirplus, list_advise)

AFTER(lookup_after, list_learn_lookup)
/*
 * Not CREATE's: the file is open for writing, and what is known of it before it is
 * closed does not outlive that.
 */
AFTER(mknod_after, entry_learn_reply)
AFTER(mkdir_after, entry_learn_reply)
AFTER(symlink_after, entry_learn_reply)
AFTER(link_after, entry_learn_reply)
AFTER(unlink_after, entry_learn_removed)
AFTER(rmdir_after, entry_learn_removed)
AFTER(rename_after, entry_learn_renamed)
AFTER(readdirplus_after, list_learn)
AFTER(getattr_after, attr_learn_reply)
AFTER(setattr_after, attr_learn_reply)
AFTER(statx_after, statx_learn)
AFTER(getxattr_after, xattr_learn)
AFTER(listxattr_after, xattr_learn)
AFTER(readlink_after, xattr_learn)

/* Members of a set that answers metadata */
#define METADATA_MEMBERS \
	.flags = EFUSE_OPS_KEEP, \
	.lookup = (void *)lookup, \
	.lookup_after = (void *)lookup_after, \
	.getattr = (void *)getattr, \
	.getattr_after = (void *)getattr_after, \
	.statx = (void *)statx, \
	.statx_after = (void *)statx_after, \
	.getxattr = (void *)getxattr, \
	.getxattr_after = (void *)getxattr_after, \
	.listxattr = (void *)listxattr, \
	.listxattr_after = (void *)listxattr_after, \
	.readlink = (void *)readlink, \
	.readlink_after = (void *)readlink_after, \
	.setattr_after = (void *)setattr_after, \
	.mknod_after = (void *)mknod_after, \
	.mkdir_after = (void *)mkdir_after, \
	.symlink_after = (void *)symlink_after, \
	.link_after = (void *)link_after, \
	.unlink_after = (void *)unlink_after, \
	.rmdir_after = (void *)rmdir_after, \
	.rename_after = (void *)rename_after, \
	.readdirplus = (void *)readdirplus, \
	.readdirplus_after = (void *)readdirplus_after

#endif /* EFUSE_METADATA_H */
