/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: ring channels, what ring*.c and balance.c share. See ring.c for
 * who owns what, and for the locks.
 */
#ifndef _EFUSE_RING_H
#define _EFUSE_RING_H

#include "efuse_i.h"
#include "efuse_uapi.h"

enum efuse_slot_state {
	SLOT_FREE,
	/* A request is being copied into it */
	SLOT_FILLING,
	/* The daemon has it */
	SLOT_SENT,
	/* A reply is being copied from it */
	SLOT_TAKING,
};

struct efuse_slot {
	struct fuse_req *req;
	u64 sent;
	enum efuse_slot_state state;
	/* In the channel's pages */
	u32 page;
	u32 pages;
	/* Arguments in the slot itself, and their number */
	u32 in_inline;
	u32 in_inline_args;
	u32 in_size;
	u32 out_page;
	u32 out_size;
};

/* Under ch->lock, read without it */
struct efuse_ring_stats {
	u64 requests;
	/* Taken by their callers themselves */
	u64 polled;
	u64 waited;
	u64 forgets;
	u64 interrupts;
	u64 wakeups;
	/* Replies that made no sense */
	u64 bad;
	/* From callers of other channels; without the lock, so not exact */
	u64 redirected;
	/* Waited in another channel before */
	u64 migrated;
};

struct efuse_channel {
	/* Of all that is the kernel's own here, see ring.c */
	spinlock_t lock;
	bool connected;
	/* Something on the list of those that wait may find room now */
	bool fillable;
	u32 depth;
	u32 pages;
	u32 in_flight;
	u32 n_waiting;
	/* Our cursors, which the header only shows */
	u32 pending_tail;
	u32 complete_head;
	u32 intr_tail;
	u32 forget_tail;
	/* The daemon's, as far as efuse_ring_messages() has heard of them */
	u32 intr_seen;
	u32 forget_seen;
	/* Of the worker that entered last */
	int worker_cpu;
	/* Workers that wait in the kernel */
	atomic_t sleepers;
	/* When a worker last came by */
	u64 progress;
	u32 not_polled;
	u64 service_ns;
	u64 poll_ns;
	u64 unique;
	struct list_head waiting;
	struct fuse_forget_link *forgets;
	struct fuse_forget_link **forgets_tail;
	struct efuse_slot *slots;
	unsigned long *slot_map;
	unsigned long *page_map;
	/* Slots whose request is to be interrupted */
	unsigned long *intr_map;
	wait_queue_head_t waitq;
	struct efuse_ring_stats stats;

	/* The mapping */
	void *mem;
	size_t bytes;
	struct efuse_ring_header *hdr;
	u32 *pending;
	u32 *complete;
	struct efuse_ring_intr *intr;
	struct efuse_ring_forget *forget;
	struct efuse_ring_slot *shared;
	void *pool;
	struct fuse_conn *fc;
} ____cacheline_aligned_in_smp;

struct efuse_ring {
	unsigned int channels;
	/* Requests may go to channels of other processors */
	bool balance;
	atomic_t turn;
	struct efuse_channel ch[] __counted_by(channels);
};

static inline struct efuse_ring *efuse_ring(struct fuse_iqueue *fiq)
{
	return fiq->priv;
}

static inline struct efuse_ring_slot *efuse_shared(struct efuse_channel *ch,
						   u32 slot)
{
	return &ch->shared[slot];
}

/* After something was put into a ring, with or without ch->lock */
void efuse_wake_worker(struct efuse_channel *ch);
bool efuse_has_work(struct efuse_channel *ch);
/* What waits goes into slots as long as there is room */
void efuse_ring_fill(struct efuse_channel *ch);
/* End requests whose slots are in the complete ring */
void efuse_ring_commit(struct efuse_channel *ch);
void efuse_ring_release(struct fuse_iqueue *fiq);
/* Under ch->lock */
void efuse_set_fillable(struct efuse_channel *ch, bool fillable);

/* Locks it */
struct efuse_channel *efuse_lock_channel(struct fuse_req *req);

/* ring_msg.c */
void efuse_ring_send_forget(struct fuse_iqueue *fiq,
			    struct fuse_forget_link *link);
void efuse_ring_send_interrupt(struct fuse_iqueue *fiq,
			       struct fuse_req *req);
/* Under ch->lock */
void efuse_flush_intr(struct efuse_channel *ch);
void efuse_flush_forgets(struct efuse_channel *ch);
void efuse_look_at_heads(struct efuse_channel *ch);

/* balance.c */
struct efuse_channel *efuse_select_channel(struct efuse_ring *ring,
					   struct fuse_req *req);
bool efuse_ring_steal(struct efuse_ring *ring, struct efuse_channel *to);

#endif /* _EFUSE_RING_H */
