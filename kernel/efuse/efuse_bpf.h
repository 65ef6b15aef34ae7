/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what programs see. The kernel's side of efuse/bpf/src/bpf/efuse.h;
 * programs find fields by name (BTF), so fields may be added anywhere.
 */
#ifndef _EFUSE_BPF_H
#define _EFUSE_BPF_H

#include <linux/types.h>

/* The set is not for daemons that decide by who asks: see efuse_ctx.caller */
#define EFUSE_OPS_PER_CALLER	(1U << 0)
/* Cached data hold until they are changed, and not only until the next open */
#define EFUSE_OPS_KEEP_DATA	(1U << 1)
/* Names and attributes in answers hold until they change, not for one use alone */
#define EFUSE_OPS_KEEP		(1U << 2)
#define EFUSE_OPS_FLAGS		(EFUSE_OPS_PER_CALLER | \
				 EFUSE_OPS_KEEP_DATA | EFUSE_OPS_KEEP)

#define EFUSE_OPS_NAME_LEN	16

/* What a program returns; anything else counts as EFUSE_PASS */
#define EFUSE_PASS		0	/* ask the daemon */
#define EFUSE_ANSWER		1	/* take what bpf_efuse_reply() was given */
#define EFUSE_LIST		2	/* READDIRPLUS: names alone will do */

/*
 * What a program for data returns: the path that a read or write takes, and
 * whether it wants to know how that went. Anything else counts as the daemon.
 */
#define EFUSE_IO_DAEMON		0	/* ask the daemon, as EFUSE_PASS */
#define EFUSE_IO_BACKING	1	/* the backing file, in the kernel */
#define EFUSE_IO_CACHE		2	/* the cache; what it lacks is read into it */
#define EFUSE_IO_PATHS		3
#define EFUSE_IO_PATH		0xff
#define EFUSE_IO_TELL		(1U << 8)	/* run the program after it, too */
/*
 * What is alike need not be asked about: of the same node, direction, size and
 * flags, but for requests that have a block of the sample. Holds until an answer
 * for that node and direction lacks it, or another set is attached.
 */
#define EFUSE_IO_KEEP		(1U << 9)

/*
 * The sample is one block of each group of 8 times what a request has, rounded up to a
 * power of two but no more than 16, so that it takes in one request of 8 of up to
 * that size: the block whose number in the group is the remainder of a hash,
 * h = ((nodeid * NODE) ^ (group << 3 | order)) * MIX; h ^= h >> 32.
 */
#define EFUSE_SAMPLE_BLOCK	4096
#define EFUSE_SAMPLE_GROUP	8	/* << order */
#define EFUSE_SAMPLE_ORDER	4	/* at most */
#define EFUSE_SAMPLE_NODE	0x9e3779b97f4a7c15ULL
#define EFUSE_SAMPLE_MIX	0xff51afd7ed558ccdULL

/* efuse_io.flags */
#define EFUSE_IO_DIRECT		(1U << 0)	/* O_DIRECT */
#define EFUSE_IO_ASYNC		(1U << 1)	/* the caller does not wait for it */
#define EFUSE_IO_DSYNC		(1U << 2)	/* to be on the medium at its end */
#define EFUSE_IO_APPEND		(1U << 3)	/* at the end, wherever that is */
#define EFUSE_IO_BACKED		(1U << 4)	/* there is a backing file */
#define EFUSE_IO_PAGES		(1U << 5)	/* pages of the page cache are filled */

/* efuse_io.reason: why a request did not take the path that was chosen */
#define EFUSE_IO_AS_CHOSEN	0
#define EFUSE_IO_NO_BACKING	1	/* there is no backing file */
#define EFUSE_IO_SET_ID		2	/* the daemon is to clear suid or sgid */
#define EFUSE_IO_ERROR		3	/* the path failed before it did anything */
#define EFUSE_IO_MISS		4	/* not all of it was in the cache */
#define EFUSE_IO_UNFIT		5	/* nothing that can be cached, or no memory */
#define EFUSE_IO_REASONS	6

/* efuse_ctx.caller of what is the same for every caller */
#define EFUSE_ANYONE		(~0ULL)

/*
 * The argument of every program: plain data, no kernel pointers. Read-only but
 * for cookie.
 */
struct efuse_ctx {
	/*
	 * Always NULL. To the verifier a structure of numbers alone is just so
	 * many bytes, and it would let a program hand the functions a copy of
	 * its own making; one with a pointer in it must be the real one.
	 */
	const void *genuine;
	/* The request's node: for names the directory */
	u64 nodeid;
	/*
	 * Now, for what is learnt from this request. Of a request that changed
	 * something, in the program after it: 0 if another change overlapped
	 * and nothing can be learnt.
	 */
	u64 seq;
	/*
	 * Part of every key: EFUSE_ANYONE, or where the daemon itself decides by
	 * who asks, a hash of user, group and supplementary groups.
	 */
	u64 caller;
	/* The request's name (of an entry or an extended attribute) as a key */
	u64 name_hash[2];
	/* Any value, kept from the program before to the one after */
	u64 cookie;
	u32 opcode;
	u32 uid;
	u32 gid;
	u32 pid;
	/* Bytes of the request's arguments, and room for the reply */
	u32 in_size;
	u32 out_size;
	/* After: what the daemon said, 0 or a negative error, and its size */
	s32 error;
	u32 reply_size;
	/* Of the request's node, with which its number names one file for good */
	u32 generation;
	u32 pad;
};

/* One entry of a READDIRPLUS reply */
struct efuse_dirent {
	u64 name_hash[2];
	/* Offset of the next one, 0 after the last */
	u32 next;
	u32 name_len;
	struct fuse_entry_out entry;
};

/* What the kernel knows of a node */
struct efuse_inode_info {
	u64 size;
	u64 attr_version;
	u64 seq;
	u32 generation;
	u32 mode;
};

/*
 * The argument of the programs for data: one call of read or write, before it
 * becomes requests. Read-only but for cookie.
 */
struct efuse_io {
	u64 nodeid;
	u64 offset;
	u64 size;
	/* Of the file, as far as the kernel knows */
	u64 file_size;
	/* Memory that the cache may have, bytes */
	u64 cache_bytes;
	/* Any value, kept from the program before to the one after */
	u64 cookie;
	u32 flags;
	/* After: EFUSE_IO_..., the path it took in the end and why not another */
	u32 path;
	u32 reason;
	u32 pad;
	/* After: bytes or a negative error, and how long it took */
	s64 result;
	u64 time_ns;
	/*
	 * After: how long processors worked on it, of that what is the path's.
	 * 0 if that is not known, as where the caller slept meanwhile.
	 */
	u64 busy_ns;
};

/* In efuse_queue.flags: nobody waits for the reply */
#define EFUSE_QUEUE_ASYNC	(1 << 0)

/* The argument of select_queue: a request that is to go into a ring channel. */
struct efuse_queue {
	/* Always NULL, see struct efuse_ctx */
	const void *genuine;
	u32 opcode;
	u32 flags;
	/* The channel of the caller's processor, and how many there are */
	u32 local;
	u32 channels;
	/* Asynchronous requests of the connection, and how many are too many */
	u32 background;
	u32 congestion;
};

/* How much a channel has to do. */
struct efuse_load {
	/* Requests that have room at once, that have it now, and that wait for it */
	u32 depth;
	u32 in_flight;
	u32 waiting;
	/* Those that no worker has taken yet */
	u32 untaken;
	/* Workers that wait for requests */
	u32 sleepers;
	/* Not 0: its workers have not come by for a while, and something waits */
	u32 stuck;
	/* From the request's sending to its reply, weighted average */
	u64 service_ns;
};

/*
 * A set of programs for one connection. A member that is not set costs nothing.
 * For each opcode the first runs before the request is sent and may answer it,
 * the second (_after) sees the daemon's reply.
 */
struct efuse_ops {
	/*
	 * The connection: st_dev of the mount, (major << 20) | minor. Where
	 * these four are is relied upon by whoever reads the set back.
	 */
	u32 dev;
	u32 flags;
	char name[EFUSE_OPS_NAME_LEN];
	/* Memory for cached data at most, bytes; 0: no cache */
	u64 cache_bytes;
	u64 reserved;
	int (*lookup)(struct efuse_ctx *req);
	int (*lookup_after)(struct efuse_ctx *req);
	int (*getattr)(struct efuse_ctx *req);
	int (*getattr_after)(struct efuse_ctx *req);
	int (*statx)(struct efuse_ctx *req);
	int (*statx_after)(struct efuse_ctx *req);
	int (*getxattr)(struct efuse_ctx *req);
	int (*getxattr_after)(struct efuse_ctx *req);
	int (*listxattr)(struct efuse_ctx *req);
	int (*listxattr_after)(struct efuse_ctx *req);
	int (*readlink)(struct efuse_ctx *req);
	int (*readlink_after)(struct efuse_ctx *req);
	int (*access)(struct efuse_ctx *req);
	int (*access_after)(struct efuse_ctx *req);
	int (*open)(struct efuse_ctx *req);
	int (*open_after)(struct efuse_ctx *req);
	int (*setattr)(struct efuse_ctx *req);
	int (*setattr_after)(struct efuse_ctx *req);
	/*
	 * Member 23. For a program the core keeps its number where other types
	 * have their attach type, and 6.12.y takes this one for BPF_TRACE_RAW_TP,
	 * whose arguments may be NULL.
	 */
	u64 no_program;
	int (*create)(struct efuse_ctx *req);
	int (*create_after)(struct efuse_ctx *req);
	int (*mknod)(struct efuse_ctx *req);
	int (*mknod_after)(struct efuse_ctx *req);
	int (*mkdir)(struct efuse_ctx *req);
	int (*mkdir_after)(struct efuse_ctx *req);
	int (*symlink)(struct efuse_ctx *req);
	int (*symlink_after)(struct efuse_ctx *req);
	int (*link)(struct efuse_ctx *req);
	int (*link_after)(struct efuse_ctx *req);
	int (*unlink)(struct efuse_ctx *req);
	int (*unlink_after)(struct efuse_ctx *req);
	int (*rmdir)(struct efuse_ctx *req);
	int (*rmdir_after)(struct efuse_ctx *req);
	/* RENAME and RENAME2 */
	int (*rename)(struct efuse_ctx *req);
	int (*rename_after)(struct efuse_ctx *req);
	int (*setxattr)(struct efuse_ctx *req);
	int (*setxattr_after)(struct efuse_ctx *req);
	int (*removexattr)(struct efuse_ctx *req);
	int (*removexattr_after)(struct efuse_ctx *req);
	/* Data of regular files: choose the path */
	int (*read)(struct efuse_io *io);
	int (*read_after)(struct efuse_io *io);
	int (*write)(struct efuse_io *io);
	int (*write_after)(struct efuse_io *io);
	int (*fallocate)(struct efuse_ctx *req);
	int (*fallocate_after)(struct efuse_ctx *req);
	int (*copy_file_range)(struct efuse_ctx *req);
	int (*copy_file_range_after)(struct efuse_ctx *req);
	int (*tmpfile)(struct efuse_ctx *req);
	int (*tmpfile_after)(struct efuse_ctx *req);
	int (*readdirplus)(struct efuse_ctx *req);
	int (*readdirplus_after)(struct efuse_ctx *req);
	/* The ring channel for a request; negative: that of the caller's processor */
	int (*select_queue)(struct efuse_queue *queue);
};

#endif /* _EFUSE_BPF_H */
