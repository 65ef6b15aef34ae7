/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what our own files share. Nothing in fs/fuse includes this.
 */
#ifndef _EFUSE_I_H
#define _EFUSE_I_H

#include <linux/atomic.h>
#include <linux/bvec.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/siphash.h>
#include <linux/types.h>
#include <linux/uio.h>
#include <linux/xarray.h>

#include "fuse_i.h"
#include "efuse_bpf.h"

struct cred;

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
	/* By direction: those that a program was asked about */
	u64 asked[2];
};

/* Data of an inode in memory, see cache.c. */
struct efuse_block {
	struct page *page;
	struct efuse_icache *owner;
	pgoff_t index;
	/* In the clock, under cache->lock */
	struct list_head clock;
	refcount_t ref;
	/* Valid bytes: all, or in the last block up to the file's end */
	u32 len;
	/* The slot's seq, and the cache's generation, when it was read or written */
	u32 seq;
	u32 generation;
	/* Since the clock came by */
	bool used;
	struct rcu_head rcu;
};

struct efuse_cache_slot {
	atomic_t writing;
	atomic_t seq;
};

/* Slots of an inode: one for so many blocks, a power of two within these bounds */
#define EFUSE_SLOT_BLOCKS	4
#define EFUSE_SLOTS_MIN		32
#define EFUSE_SLOTS_MAX		4096
/* Blocks of a write that are told apart from the rest of the inode, at most */
#define EFUSE_WRITE_MOST	128
#define EFUSE_NO_BLOCK		ULONG_MAX

/* The cache's part of an inode. */
struct efuse_icache {
	struct xarray blocks;
	struct efuse_cache *cache;
	/* Not after the inode is gone, for those that hold this alone */
	struct fuse_inode *fi;
	/* The inode's, and one for each request that changes its data */
	refcount_t ref;
	/* The partial block, or EFUSE_NO_BLOCK; under the xarray's lock */
	pgoff_t eof;
	struct rcu_head rcu;
	struct efuse_cache_slot all;
	/* Their number is that for the size the file had at first, less one here */
	unsigned int slot_mask;
	struct efuse_cache_slot slots[];
};

/* A wider write counts as one to the whole inode; the slots of others are different ones. */
static inline unsigned int efuse_write_most(const struct efuse_icache *ic)
{
	return min_t(unsigned int, (ic->slot_mask + 1) / 2, EFUSE_WRITE_MOST);
}

struct efuse_cache {
	/* Of the clock and of what is in it */
	spinlock_t lock;
	/* Blocks from the one to go next on, and their number */
	struct list_head clock;
	unsigned long blocks;
	/* Bytes; 0: nothing is kept. Changed under efuse_attach_lock and lock */
	unsigned long budget;
	/* Another one where changes may have gone unnoticed; likewise */
	u32 generation;
	atomic_long_t used;
	struct shrinker *shrinker;
};

/* A write that goes from blocks of the cache. */
#define EFUSE_BOUNCE_MAX	32

struct efuse_bounce {
	struct efuse_cache *cache;
	struct iov_iter iter;
	unsigned int n;
	struct efuse_block *blocks[EFUSE_BOUNCE_MAX];
	struct bio_vec bvecs[EFUSE_BOUNCE_MAX];
};

/* Times that an answer was used again instead of asking a program. */
struct efuse_kept {
	u64 lookups;
	u64 getattrs;
};

#define EFUSE_NODE_BITS	14
#define EFUSE_NAME_BITS	15

struct efuse_conn {
	/* The attached programs, or NULL. Changed under efuse_attach_lock. */
	struct efuse_ops __rcu *ops;
	/* EFUSE_OPS_KEEP of the attached set */
	bool keep;
	/* And whether what they learn is for the one caller alone */
	bool per_caller;
	/* Another one for each set, 0 before the first. Under efuse_attach_lock */
	u16 set_nr;
	/* Goes up with every change */
	atomic64_t clock;
	/* Nothing that was learnt before this is used */
	atomic64_t floor;
	/* Programs know names by their hashes with this key */
	siphash_key_t name_key;
	struct efuse_node_slot *nodes;
	struct efuse_name_slot *names;
	struct efuse_io_stats __percpu *io_stats;
	struct efuse_cache cache;
	struct efuse_kept __percpu *kept;
};

/* change.c */
struct efuse_conn *efuse_conn_alloc(void);
void efuse_conn_destroy(struct efuse_conn *ec);
void efuse_hash_name(const struct efuse_conn *ec, const char *name,
		     unsigned int len, u64 hash[2]);
const u64 *efuse_request_name(const struct efuse_conn *ec,
			      struct fuse_args *args, int arg);
u64 efuse_hash_caller(const struct efuse_conn *ec, const struct cred *cred);
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

/* call.c, answer.c: one run of a program */
struct efuse_call {
	/* First: programs and kfuncs are given a pointer to it */
	struct efuse_ctx ctx;
	struct efuse_conn *ec;
	struct fuse_mount *fm;
	struct fuse_args *args;
	/* LOOKUP: the inode of the answer, held */
	struct inode *inode;
	/* When name and attributes of the answer were learnt */
	u64 entry_seq;
	u64 attr_seq;
	bool atime_settled;
	bool after;
	bool answered;
	/* Stores to a mapping of the file below change its times, unseen */
	bool mapped;
	/* The answer: 0 or a negative error, and the size of what was written */
	int error;
	u32 size;
};

static inline struct efuse_call *efuse_call(struct efuse_ctx *ctx)
{
	return container_of(ctx, struct efuse_call, ctx);
}

/* Bytes that there are for the last argument of a reply. */
static inline u32 efuse_room(const struct fuse_args *args)
{
	return args->out_numargs ? args->out_args[args->out_numargs - 1].size : 0;
}

/* answer.c */
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

/* call.c */
int efuse_kept_show(const struct efuse_conn *ec, char *buf, int size);

/* bpf.c */
int efuse_bpf_init(void);

/* choose.c */
int efuse_choose(struct efuse_conn *ec, const struct kiocb *iocb,
		 const struct iov_iter *iter, bool backed, bool write,
		 struct efuse_io *io);
void efuse_set_changed(struct efuse_conn *ec);
int efuse_ask_program(struct efuse_conn *ec, struct efuse_io *io, bool write);
void efuse_io_end(struct efuse_conn *ec, struct efuse_io *io, bool write,
		  u32 path, ssize_t res, u64 began);

static inline void efuse_count(struct efuse_conn *ec, bool write, u32 path,
			       ssize_t bytes)
{
	this_cpu_inc(ec->io_stats->requests[write][path]);
	if (bytes > 0)
		this_cpu_add(ec->io_stats->bytes[write][path], bytes);
}

/* data.c */
extern struct workqueue_struct *efuse_data_wq;
int efuse_data_init(void);
void efuse_data_exit(void);
void efuse_request_begin(struct fuse_mount *fm, struct fuse_args *args);
void efuse_request_end(struct fuse_mount *fm, struct fuse_args *args,
		       u64 child);

/* answer.c */
struct inode *efuse_find_inode(struct fuse_mount *fm, u64 nodeid);

/* cache.c */
void efuse_cache_init(struct efuse_cache *cache);
void efuse_cache_renew(struct efuse_cache *cache);
int efuse_cache_set_budget(struct efuse_cache *cache, u64 budget);
void efuse_icache_put(struct efuse_icache *ic);
struct efuse_icache *efuse_icache_make(struct efuse_cache *cache,
				       struct inode *inode);
ssize_t efuse_cache_read(struct efuse_cache *cache, struct efuse_icache *ic,
			 loff_t pos, struct iov_iter *to);
bool efuse_cache_has(struct efuse_icache *ic, pgoff_t first, pgoff_t last);
bool efuse_cache_holds(struct efuse_icache *ic, pgoff_t first, pgoff_t last);
bool efuse_blocks_alloc(struct efuse_cache *cache, struct efuse_icache *ic,
			pgoff_t first, struct efuse_block **blocks,
			unsigned int n);
void efuse_blocks_free(struct efuse_cache *cache, struct efuse_block **blocks,
		       unsigned int n);
bool efuse_fill_begin(struct efuse_icache *ic, pgoff_t first, unsigned int n,
		      u32 *all_seq);
void efuse_fill_end(struct efuse_cache *cache, struct efuse_icache *ic,
		    struct efuse_block **blocks, unsigned int n, size_t bytes,
		    bool at_end, u32 all_seq);
void efuse_write_begin(struct efuse_icache *ic, pgoff_t first, pgoff_t last,
		       bool size_too, struct efuse_write *w);
void efuse_write_end(struct efuse_icache *ic, struct efuse_write *w,
		     struct efuse_block **blocks);

/* fill.c */
bool efuse_fill_read(struct efuse_conn *ec, struct efuse_icache *ic,
		     struct kiocb *iocb, struct iov_iter *to,
		     const struct efuse_io *io, u64 began, bool backed,
		     ssize_t *ret);
struct efuse_bounce *efuse_bounce_write(struct efuse_conn *ec,
					struct efuse_icache *ic, loff_t pos,
					struct iov_iter *from);
void efuse_bounce_free(struct efuse_bounce *bounce);

/* balance.c */
int efuse_queue_load(struct efuse_queue *queue, u32 nr, struct efuse_load *out);

#endif /* _EFUSE_I_H */
