/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of the FUSE protocol (linux/fuse.h, version 7.41) that the metadata
 * programs read and write. Fixed by the protocol, so nothing here is relocated.
 */
#ifndef EFUSE_WIRE_H
#define EFUSE_WIRE_H

#include <linux/types.h>

enum opcode {
	FUSE_LOOKUP = 1,
	FUSE_GETATTR = 3,
	FUSE_READLINK = 5,
	FUSE_GETXATTR = 22,
	FUSE_LISTXATTR = 23,
	FUSE_RENAME2 = 45,
	FUSE_STATX = 52,
	OPCODES = 64,
};

enum error {
	ENOENT = 2,
	ERANGE = 34,
	ENODATA = 61,
	EOPNOTSUPP = 95,
	ESTALE = 116,
};

struct fuse_attr {
	__u64 ino, size, blocks, atime, mtime, ctime;
	__u32 atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev, blksize, flags;
};

struct fuse_entry_out {
	__u64 nodeid, generation, entry_valid, attr_valid;
	__u32 entry_valid_nsec, attr_valid_nsec;
	struct fuse_attr attr;
};

struct fuse_attr_out {
	__u64 attr_valid;
	__u32 attr_valid_nsec, dummy;
	struct fuse_attr attr;
};

/* struct fuse_statx is not looked into */
struct fuse_statx_out {
	__u64 attr_valid;
	__u32 attr_valid_nsec, flags;
	__u64 spare[2];
	__u64 stat[32];
};

struct fuse_read_in {
	__u64 fh, offset;
	__u32 size, read_flags;
	__u64 lock_owner;
	__u32 flags, padding;
};

struct fuse_rename2_in {
	__u64 newdir;
	__u32 flags, padding;
};

struct fuse_getxattr_in {
	__u32 size, padding;
};

struct fuse_getxattr_out {
	__u32 size, padding;
};

#endif /* EFUSE_WIRE_H */
