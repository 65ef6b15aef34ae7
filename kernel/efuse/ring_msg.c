// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: FORGETs and interrupts in rings, messages that have no slot and no reply.
 *
 * What finds no room stays, FORGETs in the channel's list and interrupts in its
 * bitmap, until a worker enters. See ring.c for the locks and the memory ordering.
 */
#include <linux/slab.h>

#include "ring.h"

/* For probes: so many messages since the daemon entered last. */
noinline void efuse_ring_messages(struct fuse_conn *fc, u32 forgets,
				  u32 interrupts);
noinline void efuse_ring_messages(struct fuse_conn *fc, u32 forgets,
				  u32 interrupts)
{
	asm volatile("");
}

/* Interrupts into their ring as long as there is room. */
void efuse_flush_intr(struct efuse_channel *ch)
{
	u32 used = ch->intr_tail - READ_ONCE(ch->hdr->intr_head);
	struct efuse_ring_intr *intr;
	unsigned long nr;

	lockdep_assert_held(&ch->lock);
	for_each_set_bit(nr, ch->intr_map, ch->depth) {
		if (used >= ch->depth)
			break;
		used++;
		__clear_bit(nr, ch->intr_map);
		intr = &ch->intr[ch->intr_tail & (ch->depth - 1)];
		intr->unique = ch->slots[nr].req->in.h.unique;
		intr->slot = nr;
		ch->stats.interrupts++;
		WRITE_ONCE(ch->intr_tail, ch->intr_tail + 1);
		/* The entry first; pairs with the daemon's acquire */
		smp_store_release(&ch->hdr->intr_tail, ch->intr_tail);
	}
}

/* The same for FORGETs; frees those that are in the ring now. */
void efuse_flush_forgets(struct efuse_channel *ch)
{
	u32 used = ch->forget_tail - READ_ONCE(ch->hdr->forget_head);
	struct efuse_ring_forget *forget;
	struct fuse_forget_link *link;

	lockdep_assert_held(&ch->lock);
	while ((link = ch->forgets) && used < EFUSE_RING_FORGETS) {
		used++;
		forget = &ch->forget[ch->forget_tail & (EFUSE_RING_FORGETS - 1)];
		forget->nodeid = link->forget_one.nodeid;
		forget->nlookup = link->forget_one.nlookup;
		WRITE_ONCE(ch->forget_tail, ch->forget_tail + 1);
		/* The entry first; pairs with the daemon's acquire */
		smp_store_release(&ch->hdr->forget_tail, ch->forget_tail);
		ch->forgets = link->next;
		if (!ch->forgets)
			ch->forgets_tail = &ch->forgets;
		kfree(link);
	}
}

void efuse_ring_send_forget(struct fuse_iqueue *fiq,
			    struct fuse_forget_link *link)
{
	struct efuse_ring *ring = efuse_ring(fiq);
	struct efuse_channel *ch =
		&ring->ch[raw_smp_processor_id() % ring->channels];

	spin_lock(&ch->lock);
	if (!ch->connected) {
		spin_unlock(&ch->lock);
		kfree(link);
		return;
	}
	link->next = NULL;
	*ch->forgets_tail = link;
	ch->forgets_tail = &link->next;
	ch->stats.forgets++;
	efuse_flush_forgets(ch);
	spin_unlock(&ch->lock);
	efuse_wake_worker(ch);
}

void efuse_ring_send_interrupt(struct fuse_iqueue *fiq,
			       struct fuse_req *req)
{
	struct efuse_channel *ch;

	if (!req->ring.ch) {
		fuse_dev_fiq_ops.send_interrupt(fiq, req);
		return;
	}
	ch = efuse_lock_channel(req);
	if (ch->connected && test_bit(FR_SENT, &req->flags)) {
		__set_bit(req->ring.slot, ch->intr_map);
		efuse_flush_intr(ch);
	}
	spin_unlock(&ch->lock);
	efuse_wake_worker(ch);
}

/* How many a cursor went on; it cannot be beyond what is there. */
static u32 efuse_gone_on(u32 *seen, u32 head, u32 tail)
{
	u32 n = min(head - *seen, tail - *seen);

	*seen += n;
	return n;
}

void efuse_look_at_heads(struct efuse_channel *ch)
{
	u32 forgets, interrupts;

	lockdep_assert_held(&ch->lock);
	forgets = efuse_gone_on(&ch->forget_seen,
				READ_ONCE(ch->hdr->forget_head),
				ch->forget_tail);
	interrupts = efuse_gone_on(&ch->intr_seen,
				   READ_ONCE(ch->hdr->intr_head),
				   ch->intr_tail);
	if (forgets || interrupts)
		efuse_ring_messages(ch->fc, forgets, interrupts);
}
