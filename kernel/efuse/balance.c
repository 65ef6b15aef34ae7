// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: which ring channel a request goes to, and how much each has to do.
 *
 * A request goes to the channel of its caller's processor unless that cannot serve it
 * soon. An asynchronous one (readahead, writeback, direct I/O in flight, RELEASE) goes
 * elsewhere if there are more of them than the connection's congestion threshold, or no
 * worker of the channel is idle; a synchronous one, whose caller would come along to
 * another processor's caches, only if the channel's workers have been stuck for a while.
 * Elsewhere is the next channel in turn, or if that is busy one of ten at random. A program
 * select_queue decides instead if there is one.
 *
 * A request that waits for room is taken by the worker of another channel that has
 * nothing to do. Only the request moves: nothing was copied for it yet.
 *
 * Figures are read without the channels' locks, and two words of the daemon's memory are
 * among them: whatever they say, a request goes to some channel, once.
 *
 * Locks: called under fc->bg_lock for asynchronous requests. Two channels are locked at
 * once by efuse_ring_steal() alone, the one with the lower number first.
 */
#define pr_fmt(fmt) "efuse: " fmt

#include <linux/nospec.h>
#include <linux/random.h>
#include <linux/sched/clock.h>

#include "ring.h"

/* Tries at random, as in the 2025 design, section 4.5 */
#define EFUSE_BALANCE_TRIES	10
/* Workers that hand over nothing for so long are stuck: four times the default poll */
#define EFUSE_BALANCE_STUCK_NS	(200 * NSEC_PER_USEC)

/* What a program select_queue is given, and what belongs to it. */
struct efuse_selection {
	struct efuse_queue queue;
	struct efuse_ring *ring;
};

/* Requests that no worker has taken. At most a ring full, whatever the daemon says. */
static u32 efuse_untaken(const struct efuse_channel *ch)
{
	u32 n = READ_ONCE(ch->pending_tail) - READ_ONCE(ch->hdr->pending_head);

	return min(n, ch->depth);
}

/* Whether one more request would have to wait, as far as can be seen. */
static bool efuse_channel_busy(const struct efuse_channel *ch)
{
	if (READ_ONCE(ch->in_flight) >= ch->depth || READ_ONCE(ch->n_waiting))
		return true;
	return efuse_untaken(ch) && !atomic_read(&ch->sleepers);
}

static bool efuse_channel_stuck(const struct efuse_channel *ch)
{
	return efuse_channel_busy(ch) &&
	       (s64)(local_clock() - READ_ONCE(ch->progress)) >
	       (s64)EFUSE_BALANCE_STUCK_NS;
}

static u32 efuse_elsewhere(struct efuse_ring *ring, u32 local)
{
	u32 nr, i;

	nr = (u32)atomic_inc_return(&ring->turn) % ring->channels;
	for (i = 0; i < EFUSE_BALANCE_TRIES; i++) {
		if (nr != local && !efuse_channel_busy(&ring->ch[nr]))
			return nr;
		nr = get_random_u32_below(ring->channels);
	}
	return local;
}

/* Whether a program chose; what it chose is in *@nr. */
static bool efuse_program_selects(struct efuse_ring *ring,
				  struct fuse_conn *fc,
				  const struct fuse_req *req, u32 *nr)
{
	struct efuse_conn *ec = efuse_conn(fc);
	const struct efuse_ops *ops;
	int choice = -1;
	bool has;

	if (!ec)
		return false;
	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	has = ops && ops->select_queue;
	if (has) {
		struct efuse_selection sel = {
			.queue.opcode = req->args->opcode,
			.queue.local = *nr,
			.queue.channels = ring->channels,
			.queue.background = READ_ONCE(fc->num_background),
			.queue.congestion = READ_ONCE(fc->congestion_threshold),
			.ring = ring,
		};

		if (test_bit(FR_BACKGROUND, &req->flags))
			sel.queue.flags |= EFUSE_QUEUE_ASYNC;
		choice = ops->select_queue(&sel.queue);
	}
	rcu_read_unlock();
	if (choice >= 0 && choice < ring->channels)
		*nr = choice;
	return has;
}

struct efuse_channel *efuse_select_channel(struct efuse_ring *ring,
					   struct fuse_req *req)
{
	u32 local = raw_smp_processor_id() % ring->channels;
	struct efuse_channel *ch = &ring->ch[local];
	struct fuse_conn *fc = ch->fc;
	bool away;
	u32 nr = local;

	if (ring->channels == 1)
		return ch;
	if (!efuse_program_selects(ring, fc, req, &nr) && ring->balance) {
		if (test_bit(FR_BACKGROUND, &req->flags))
			away = READ_ONCE(fc->num_background) >
			       READ_ONCE(fc->congestion_threshold) ||
			       efuse_channel_busy(ch);
		else
			away = efuse_channel_stuck(ch);
		if (away)
			nr = efuse_elsewhere(ring, local);
	}
	if (nr == local)
		return ch;
	ch = &ring->ch[array_index_nospec(nr, ring->channels)];
	/* Counted without the lock; a figure, not a decision */
	WRITE_ONCE(ch->stats.redirected, ch->stats.redirected + 1);
	return ch;
}

static bool efuse_steal_from(struct efuse_channel *from,
			     struct efuse_channel *to)
{
	struct efuse_channel *first = from < to ? from : to;
	struct efuse_channel *second = from < to ? to : from;
	struct fuse_req *req = NULL;
	bool left = false;

	spin_lock(&first->lock);
	spin_lock_nested(&second->lock, SINGLE_DEPTH_NESTING);
	if (from->connected && to->connected && !to->n_waiting &&
	    to->in_flight < to->depth)
		req = list_first_entry_or_null(&from->waiting, struct fuse_req,
					       list);
	if (req) {
		WRITE_ONCE(req->ring.ch, to);
		list_move_tail(&req->list, &to->waiting);
		from->n_waiting--;
		to->n_waiting++;
		to->stats.migrated++;
		efuse_set_fillable(to, true);
		/* What is behind it may need less room than it did */
		left = from->n_waiting && from->in_flight < from->depth;
		if (left)
			efuse_set_fillable(from, true);
	}
	spin_unlock(&second->lock);
	spin_unlock(&first->lock);
	if (left)
		efuse_wake_worker(from);
	return req;
}

/* Something to do for a worker that has nothing. True if there is now. */
bool efuse_ring_steal(struct efuse_ring *ring, struct efuse_channel *to)
{
	u32 self = to - ring->ch;
	struct efuse_channel *from;
	u32 i;

	if (!ring->balance)
		return false;
	for (i = 1; i < ring->channels; i++) {
		from = &ring->ch[(self + i) % ring->channels];
		if (READ_ONCE(from->n_waiting) && efuse_steal_from(from, to))
			return true;
	}
	return false;
}

/* For programs: how much a channel has to do. */
int efuse_queue_load(struct efuse_queue *queue, u32 nr, struct efuse_load *out)
{
	struct efuse_ring *ring =
		container_of(queue, struct efuse_selection, queue)->ring;
	const struct efuse_channel *ch;

	if (nr >= ring->channels) {
		memset(out, 0, sizeof(*out));
		return -EINVAL;
	}
	ch = &ring->ch[array_index_nospec(nr, ring->channels)];
	out->depth = ch->depth;
	out->in_flight = READ_ONCE(ch->in_flight);
	out->waiting = READ_ONCE(ch->n_waiting);
	out->untaken = efuse_untaken(ch);
	out->sleepers = atomic_read(&ch->sleepers);
	out->stuck = efuse_channel_stuck(ch);
	out->service_ns = READ_ONCE(ch->service_ns);
	return 0;
}

size_t efuse_ring_show_size(struct fuse_conn *fc)
{
	return efuse_has_ring(fc) ? efuse_ring(&fc->iq)->channels * 512 : 0;
}

/* A line for each figure, for the control file system. */
size_t efuse_ring_show(struct fuse_conn *fc, char *buf, size_t size)
{
	struct efuse_ring *ring;
	struct efuse_channel *ch;
	size_t len = 0;
	u32 i;

	if (!efuse_has_ring(fc))
		return 0;
	ring = efuse_ring(&fc->iq);
#define SHOW(name, value) \
	(len += scnprintf(buf + len, size - len, "channel%u_" name " %llu\n", \
			  i, (u64)(value)))
	for (i = 0; i < ring->channels; i++) {
		ch = &ring->ch[i];
		SHOW("depth", ch->depth);
		SHOW("in_flight", READ_ONCE(ch->in_flight));
		SHOW("waiting", READ_ONCE(ch->n_waiting));
		SHOW("sleepers", atomic_read(&ch->sleepers));
		SHOW("service_ns", READ_ONCE(ch->service_ns));
		SHOW("requests", READ_ONCE(ch->stats.requests));
		SHOW("polled", READ_ONCE(ch->stats.polled));
		SHOW("waited", READ_ONCE(ch->stats.waited));
		SHOW("redirected", READ_ONCE(ch->stats.redirected));
		SHOW("migrated", READ_ONCE(ch->stats.migrated));
		SHOW("forgets", READ_ONCE(ch->stats.forgets));
		SHOW("interrupts", READ_ONCE(ch->stats.interrupts));
		SHOW("wakeups", READ_ONCE(ch->stats.wakeups));
		SHOW("bad", READ_ONCE(ch->stats.bad));
	}
#undef SHOW
	return len;
}
