/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what our own files share. Nothing in fs/fuse includes this.
 */
#ifndef _EFUSE_I_H
#define _EFUSE_I_H

#include <linux/atomic.h>
#include <linux/rcupdate.h>
#include <linux/siphash.h>
#include <linux/types.h>

#include "fuse_i.h"
#include "efuse_bpf.h"

/*
 * When something of a node was last changed, in ticks of the connection's
 * clock, and how many requests are changing it now. See change.c.
 */
struct efuse_node_slot {
	/* Attributes, but for the time of access */
	atomic64_t attr;
	/* Extended attributes and the target of a symbolic link */
	atomic64_t xattr;
	/* Time of access alone */
	atomic64_t atime;
	/* The inode left memory, and its node id may have a new meaning */
	atomic64_t evict;
	atomic_t attr_changing;
	atomic_t xattr_changing;
};

/* The same for a name in a directory. */
struct efuse_name_slot {
	atomic64_t stamp;
	atomic_t changing;
};

/* Reads and writes that programs chose a path for; one for each processor. */
struct efuse_io_stats {
	/* By direction (1 is write) and the path it took in the end */
	u64 requests[2][EFUSE_IO_PATHS];
	u64 bytes[2][EFUSE_IO_PATHS];
	/* By direction: those that took another path than was chosen */
	u64 reasons[2][EFUSE_IO_REASONS];
};

#define EFUSE_NODE_BITS	14
#define EFUSE_NAME_BITS	15

struct efuse_conn {
	/* The attached programs, or NULL. Changed under efuse_attach_lock. */
	struct efuse_ops __rcu *ops;
	/* Goes up with every change */
	atomic64_t clock;
	/* Nothing that was learnt before this is used */
	atomic64_t floor;
	/* Programs know names by their hashes with this key */
	siphash_key_t name_key;
	struct efuse_node_slot *nodes;
	struct efuse_name_slot *names;
	struct efuse_io_stats __percpu *io_stats;
};

/* change.c */
struct efuse_conn *efuse_conn_alloc(void);
void efuse_conn_destroy(struct efuse_conn *ec);
void efuse_hash_name(const struct efuse_conn *ec, const char *name,
		     unsigned int len, u64 hash[2]);
void efuse_change_begin(struct efuse_conn *ec, struct fuse_args *args);
u64 efuse_change_end(struct efuse_conn *ec, struct fuse_args *args,
		     u64 child);

/*
 * Whether what was learnt at @seq about ... still holds. None of them is true
 * while a change is under way.
 */
bool efuse_seq_valid(const struct efuse_conn *ec, u64 seq);
bool efuse_name_fresh(const struct efuse_conn *ec, u64 parent,
		      const u64 hash[2], u64 seq);
bool efuse_node_same(const struct efuse_conn *ec, u64 nodeid, u64 seq);
bool efuse_attr_fresh(const struct efuse_conn *ec, u64 nodeid, u64 seq,
		      bool atime_settled);
bool efuse_xattr_fresh(const struct efuse_conn *ec, u64 nodeid, u64 seq);

/* call.c: one run of a program */
struct efuse_call {
	/* First: programs and kfuncs are given a pointer to it */
	struct efuse_ctx ctx;
	struct efuse_conn *ec;
	struct fuse_mount *fm;
	struct fuse_args *args;
	/* LOOKUP: the inode of the answer, held */
	struct inode *inode;
	bool after;
	bool answered;
	/* The answer: 0 or a negative error, and the size of what was written */
	int error;
	u32 size;
};

static inline struct efuse_call *efuse_call(struct efuse_ctx *ctx)
{
	return container_of(ctx, struct efuse_call, ctx);
}

int efuse_call_read_arg(struct efuse_call *call, u32 index, u32 offset,
			void *buf, u32 size);
int efuse_call_read_reply(struct efuse_call *call, u32 offset, void *buf,
			  u32 size);
int efuse_call_reply(struct efuse_call *call, const void *data, u32 size,
		     u64 seq, u64 attr_seq);
int efuse_call_error(struct efuse_call *call, int error, u64 seq);
int efuse_call_dirent(struct efuse_call *call, u32 offset,
		      struct efuse_dirent *out);
int efuse_call_inode(struct efuse_call *call, u64 nodeid,
		     struct efuse_inode_info *out);

/* bpf.c */
int efuse_bpf_init(void);

/* data.c */
int efuse_data_init(void);
void efuse_data_exit(void);

#endif /* _EFUSE_I_H */
