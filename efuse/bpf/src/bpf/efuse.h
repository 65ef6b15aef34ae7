/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a program for eFUSE needs: the context, the functions it may call, and the
 * set of programs. The kernel's side is kernel/efuse/efuse_bpf.h; fields are found
 * by name when a program is loaded, so only what is used has to be here.
 */
#ifndef EFUSE_H
#define EFUSE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* What a program returns */
#define EFUSE_PASS	0 /* ask the daemon */
#define EFUSE_ANSWER	1 /* take what bpf_efuse_reply() or _reply_error() was given */
#define EFUSE_LIST	2 /* READDIRPLUS: names alone will do */

/* What a program for data returns: which way, and whether it wants to see it after */
#define EFUSE_IO_DAEMON	 0
#define EFUSE_IO_BACKING 1
#define EFUSE_IO_CACHE	 2
#define EFUSE_IO_TELL	 (1U << 8)
/*
 * Or need not be asked about what is alike: of the same node, direction, size and flags,
 * but for requests with a block of the sample. Its next answer for that node and direction
 * without this ends it.
 */
#define EFUSE_IO_KEEP	 (1U << 9)

/*
 * The sample is one block of each group of EFUSE_SAMPLE_GROUP << order, always the same; the
 * order is that of the request's size, so that one request of so many has such a block.
 */
#define EFUSE_SAMPLE_BLOCK 4096
#define EFUSE_SAMPLE_GROUP 8
#define EFUSE_SAMPLE_ORDER 4 /* for 9 blocks and more */

static __always_inline __u32 efuse_sample_order(__u64 blocks)
{
	return (blocks > 1) + (blocks > 2) + (blocks > 4) + (blocks > 8);
}

/* Which of the blocks of a group it is, by this number's remainder; as in kernel/efuse/choose.c. */
static __always_inline __u64 efuse_sample_hash(__u64 nodeid, __u64 group, __u32 order)
{
	__u64 hash = (nodeid * 0x9e3779b97f4a7c15ULL) ^ (group << 3 | order);

	hash *= 0xff51afd7ed558ccdULL;
	return hash ^ (hash >> 32);
}

/* efuse_io.flags */
#define EFUSE_IO_DIRECT (1U << 0)
#define EFUSE_IO_ASYNC	(1U << 1)
#define EFUSE_IO_DSYNC	(1U << 2)
#define EFUSE_IO_APPEND (1U << 3)
#define EFUSE_IO_BACKED (1U << 4)
#define EFUSE_IO_PAGES	(1U << 5)

/* efuse_ops.flags: replies depend on who asks; cached data hold beyond the next open */
#define EFUSE_OPS_PER_CALLER	(1U << 0)
#define EFUSE_OPS_KEEP_DATA	(1U << 1)
/*
 * Names and attributes in answers hold until they change: the kernel may use them
 * again without asking. The loader takes it back without --until-invalidated.
 */
#define EFUSE_OPS_KEEP	(1U << 2)

/* The request. Only cookie may be written. */
struct efuse_ctx {
	__u64 nodeid;	    /* for names the directory's */
	__u64 seq;	    /* to keep with what is learnt; after: 0 = learn nothing */
	__u64 caller;	    /* part of every key */
	__u64 name_hash[2]; /* the name as a key: of an entry or an attribute */
	__u64 cookie;	    /* from the program before to the one after */
	__u32 opcode;
	__u32 uid;
	__u32 gid;
	__u32 pid;
	__u32 in_size;
	__u32 out_size;
	__s32 error;	  /* after: the daemon's, 0 or negative */
	__u32 reply_size; /* after */
	__u32 generation; /* of nodeid: the two name one file for good */
} __attribute__((preserve_access_index));

/* A read or write of data. Only cookie may be written. */
struct efuse_io {
	__u64 nodeid;
	__u64 offset;
	__u64 size;
	__u64 file_size;
	__u64 cache_bytes; /* memory that the cache may have */
	__u64 cookie; /* from the program before to the one after */
	__u32 flags;
	__u32 path;    /* after: the way it went */
	__u32 reason;  /* after: why not the one that was chosen, or 0 */
	__s64 result;  /* after: bytes, or a negative error */
	__u64 time_ns; /* after: from the choice on */
	__u64 busy_ns; /* after: processors worked on it so long, or 0: not known */
} __attribute__((preserve_access_index));

/* efuse_queue.flags: nobody waits for the reply */
#define EFUSE_QUEUE_ASYNC (1U << 0)

/* A request that is to go into a ring channel. Read-only. */
struct efuse_queue {
	__u32 opcode;
	__u32 flags;
	__u32 local;	  /* the channel of the caller's processor */
	__u32 channels;	  /* how many there are */
	__u32 background; /* asynchronous requests of the connection */
	__u32 congestion; /* how many of those are too many */
} __attribute__((preserve_access_index));

/* How much a channel has to do. */
struct efuse_load {
	__u32 depth;	 /* requests that have room at once */
	__u32 in_flight; /* have it now */
	__u32 waiting;	 /* wait for it */
	__u32 untaken;	 /* have it, and no worker yet */
	__u32 sleepers;	 /* workers that wait for requests */
	__u32 stuck;	 /* busy, and no worker came by for a while */
	__u64 service_ns;
};

/* Sizes are those of the FUSE protocol, see wire.h; not relocated. */
struct efuse_dirent {
	__u64 name_hash[2];
	__u32 next;
	__u32 name_len;
	__u8 entry[128]; /* struct fuse_entry_out */
};

struct efuse_inode_info {
	__u64 size;
	__u64 attr_version;
	__u64 seq;
	__u32 generation;
	__u32 mode;
};

/* Each is described in kernel/efuse/bpf.c. */
extern int bpf_efuse_read_arg(struct efuse_ctx *req, __u32 index, __u32 offset, void *buf,
			      __u32 buf__sz) __ksym;
extern int bpf_efuse_read_reply(struct efuse_ctx *req, __u32 offset, void *buf,
				__u32 buf__sz) __ksym;
extern int bpf_efuse_reply(struct efuse_ctx *req, const void *data, __u32 data__sz, __u64 seq,
			   __u64 attr_seq) __ksym;
extern int bpf_efuse_reply_error(struct efuse_ctx *req, int error, __u64 seq) __ksym;
extern int bpf_efuse_dirent(struct efuse_ctx *req, __u32 offset, struct efuse_dirent *out) __ksym;
extern int bpf_efuse_inode(struct efuse_ctx *req, __u64 nodeid,
			   struct efuse_inode_info *out) __ksym;
extern int bpf_efuse_queue_load(struct efuse_queue *queue, __u32 channel,
				struct efuse_load *out) __ksym;
extern __u64 bpf_efuse_idle_ns(__u32 cpu) __ksym;

/*
 * A set of programs; any of them may be left out. The first four members are where
 * `efuse attach` expects them, which fills in dev and flags, and another cache_bytes.
 */
struct efuse_ops {
	__u32 dev; /* (major << 20) | minor of the mount's st_dev */
	__u32 flags;
	char name[16];
	__u64 cache_bytes; /* memory for cached data at most; 0 is no cache */
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
	int (*open)(struct efuse_ctx *req);
	int (*setattr_after)(struct efuse_ctx *req);
	int (*create_after)(struct efuse_ctx *req);
	int (*mknod_after)(struct efuse_ctx *req);
	int (*mkdir_after)(struct efuse_ctx *req);
	int (*symlink_after)(struct efuse_ctx *req);
	int (*link_after)(struct efuse_ctx *req);
	int (*unlink)(struct efuse_ctx *req);
	int (*unlink_after)(struct efuse_ctx *req);
	int (*rmdir_after)(struct efuse_ctx *req);
	int (*rename_after)(struct efuse_ctx *req);
	int (*readdirplus)(struct efuse_ctx *req);
	int (*readdirplus_after)(struct efuse_ctx *req);
	int (*read)(struct efuse_io *io);
	int (*read_after)(struct efuse_io *io);
	int (*write)(struct efuse_io *io);
	int (*write_after)(struct efuse_io *io);
	int (*select_queue)(struct efuse_queue *queue);
};

#endif /* EFUSE_H */
