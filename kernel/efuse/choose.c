// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: which path a read or write of data takes, and how it went.
 *
 * A program is asked, or an inode still has the answer to one before: an answer with
 * EFUSE_IO_KEEP is for all that is alike, of the same direction, size and flags.
 * Requests with a block of the sample are asked about even then, so a program sees
 * the same part of all blocks at all times and can change its mind; its newest answer
 * is the one that holds. Answers of a set that was detached or replaced are not used.
 *
 * What an inode keeps is one word, read and written without locks. Any path is right
 * for any request, so a word that is late does no harm.
 *
 * A program sees a request again after it (EFUSE_IO_TELL), under RCU as always,
 * possibly in an interrupt, and by then perhaps of another set than the one before.
 */
#include "efuse_i.h"

#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/percpu.h>
#include <linux/uio.h>

/* The word that an inode keeps: size, flags, path, and the set's number, never 0 */
#define EFUSE_LIKE_SIZE		GENMASK_ULL(31, 0)
#define EFUSE_LIKE_FLAGS	GENMASK_ULL(39, 32)
#define EFUSE_LIKE_PATH		GENMASK_ULL(47, 40)
#define EFUSE_LIKE_SET		GENMASK_ULL(63, 48)

static u32 efuse_io_flags(const struct kiocb *iocb, bool backed)
{
	u32 flags = 0;

	if (iocb->ki_flags & IOCB_DIRECT)
		flags |= EFUSE_IO_DIRECT;
	if (!is_sync_kiocb(iocb))
		flags |= EFUSE_IO_ASYNC;
	if (iocb->ki_flags & IOCB_DSYNC)
		flags |= EFUSE_IO_DSYNC;
	if (iocb->ki_flags & IOCB_APPEND)
		flags |= EFUSE_IO_APPEND;
	if (backed)
		flags |= EFUSE_IO_BACKED;
	return flags;
}

/* Which block of a group of EFUSE_SAMPLE_GROUP << @order is in the sample. */
static u64 efuse_sampled_block(u64 nodeid, u64 group, unsigned int order)
{
	u64 hash = (nodeid * EFUSE_SAMPLE_NODE) ^ (group << 3 | order);

	hash *= EFUSE_SAMPLE_MIX;
	hash ^= hash >> 32;
	return (group * EFUSE_SAMPLE_GROUP << order) +
	       (hash & ((EFUSE_SAMPLE_GROUP << order) - 1));
}

/* Whether a request of @size bytes, not 0, has a block of the sample. */
static bool efuse_sampled(u64 nodeid, u64 pos, u64 size)
{
	u64 blocks = DIV_ROUND_UP_ULL(size, EFUSE_SAMPLE_BLOCK);
	unsigned int order = min(order_base_2(blocks), EFUSE_SAMPLE_ORDER);
	unsigned int group_shift = ilog2(EFUSE_SAMPLE_GROUP) + order;
	u64 first = pos / EFUSE_SAMPLE_BLOCK;
	u64 last = (pos + size - 1) / EFUSE_SAMPLE_BLOCK;
	u64 group, block;

	/* There is a whole group in it */
	if (last - first >= (2ULL << group_shift) - 2)
		return true;
	for (group = first >> group_shift; group <= last >> group_shift;
	     group++) {
		block = efuse_sampled_block(nodeid, group, order);
		if (block >= first && block <= last)
			return true;
	}
	return false;
}

/* What the program chooses for @io, negative if there is none. */
int efuse_ask_program(struct efuse_conn *ec, struct efuse_io *io, bool write)
{
	int (*program)(struct efuse_io *io);
	const struct efuse_ops *ops;
	int choice = -1;

	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	program = ops ? (write ? ops->write : ops->read) : NULL;
	if (program) {
		choice = program(io);
		this_cpu_inc(ec->io_stats->asked[write]);
		if ((choice & EFUSE_IO_PATH) >= EFUSE_IO_PATHS)
			choice = EFUSE_IO_DAEMON;
	}
	rcu_read_unlock();
	return choice;
}

/*
 * The path for a read or write of a file, with EFUSE_IO_TELL if the program wants to
 * see it afterwards; negative if there is no program. Without EFUSE_IO_TELL only
 * the reason is set in @io.
 */
int efuse_choose(struct efuse_conn *ec, const struct kiocb *iocb,
		 const struct iov_iter *iter, bool backed, bool write,
		 struct efuse_io *io)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	u64 *kept = &get_fuse_inode(inode)->efuse_choice[write];
	const struct fuse_file *ff = iocb->ki_filp->private_data;
	u32 flags = efuse_io_flags(iocb, backed);
	u64 size = iov_iter_count(iter);
	bool keep = size && size <= EFUSE_LIKE_SIZE;
	u64 was = READ_ONCE(*kept);
	u64 like, now = 0;
	int choice;

	/*
	 * Pairs with the release in efuse_set_changed(): with its new number there
	 * is no other set to be asked than the new one.
	 */
	like = FIELD_PREP(EFUSE_LIKE_SET, smp_load_acquire(&ec->set_nr)) |
	       FIELD_PREP(EFUSE_LIKE_FLAGS, flags) |
	       FIELD_PREP(EFUSE_LIKE_SIZE, size & EFUSE_LIKE_SIZE);
	io->reason = EFUSE_IO_AS_CHOSEN;
	if (keep && (was & ~EFUSE_LIKE_PATH) == like &&
	    !efuse_sampled(ff->nodeid, iocb->ki_pos, size))
		return FIELD_GET(EFUSE_LIKE_PATH, was);

	memset(io, 0, sizeof(*io));
	io->nodeid = ff->nodeid;
	io->offset = iocb->ki_pos;
	io->size = size;
	io->file_size = i_size_read(inode);
	io->flags = flags;
	io->cache_bytes = READ_ONCE(ec->cache.budget);
	choice = efuse_ask_program(ec, io, write);
	if (keep && choice >= 0 && (choice & EFUSE_IO_KEEP))
		now = like | FIELD_PREP(EFUSE_LIKE_PATH, choice & EFUSE_IO_PATH);
	if (now != was)
		WRITE_ONCE(*kept, now);
	return choice;
}

/* Another set of programs, or none, is what is asked from now on. */
void efuse_set_changed(struct efuse_conn *ec)
{
	u16 nr = ec->set_nr + 1;

	/* Pairs with the acquire in efuse_choose() */
	smp_store_release(&ec->set_nr, nr ?: 1);
}

/* A request that took a path of ours has ended. */
void efuse_io_end(struct efuse_conn *ec, struct efuse_io *io, bool write,
		  u32 path, ssize_t res, u64 began)
{
	int (*program)(struct efuse_io *io);
	const struct efuse_ops *ops;

	efuse_count(ec, write, path, res);
	if (io->reason)
		this_cpu_inc(ec->io_stats->reasons[write][io->reason]);
	if (!began)
		return;
	io->path = path;
	io->result = res;
	io->time_ns = ktime_get_ns() - began;
	/* Copying is all there is to it */
	if (path == EFUSE_IO_CACHE)
		io->busy_ns = io->time_ns;
	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	program = ops ? (write ? ops->write_after : ops->read_after) : NULL;
	if (program)
		program(io);
	rcu_read_unlock();
}
