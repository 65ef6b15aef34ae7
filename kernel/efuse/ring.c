// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: requests and replies in memory that is shared with the daemon.
 *
 * efuse_uapi.h has the layout. A request goes through these hands:
 *
 *	caller	finds a slot and pages for it in the channel of its processor,
 *		copies the arguments, puts the slot into the pending ring, wakes
 *		a worker that sleeps, polls the slot's status for a while, sleeps
 *	daemon	takes the slot from the pending ring, writes the reply, exchanges
 *		the status for EFUSE_SLOT_DONE; unless the caller polls, puts the
 *		slot into the complete ring and enters the kernel
 *	caller (if it polled) or worker (in the kernel)
 *		copies the reply, frees slot and pages, ends the request
 *
 * What finds no room waits on a list and is copied by a worker in the kernel,
 * first come, first served; so are asynchronous requests with much to copy, as
 * they are sent under fc->bg_lock. FORGETs that find no room wait on another.
 *
 * Trust. The mapping has no pointers, and nothing in it decides where the kernel
 * reads or writes: what is where, and how large, is in struct efuse_slot, which is
 * not mapped. Words that the daemon writes are read once and then checked:
 *	complete[]	below depth, of a slot that is sent and EFUSE_SLOT_DONE,
 *			under ch->lock; a slot is therefore ended once
 *	head_size, data_size, error
 *			against what the slot has room for
 *	*_head, spinners
 *			only decide whether somebody is woken or waits, and (the
 *			differences of cursors) are too large for the ring: it is full
 * Data are copied while the daemon may change them; what the copy says is checked
 * by the same code as what comes by write().
 *
 * Locks:	fc->lock > fc->bg_lock > ch->lock > waitq.lock
 *		fuse_mutex > fc->lock (making the rings)
 * ch->lock protects the channel's bitmaps, lists, slots' states and the kernel's
 * cursors. Requests are copied and ended without it: a slot in SLOT_FILLING or
 * SLOT_TAKING belongs to whoever made it so.
 *
 * A request is on ch->waiting with FR_PENDING set, or has a slot; both change
 * under ch->lock, so that a killed caller can take it from the list. While it is on
 * the list it may move to another channel's, under the locks of both (balance.c). FR_SENT
 * is set and cleared with SLOT_SENT.
 *
 * Memory ordering.
 *	A slot's contents before pending_tail: store-release here, load-acquire there.
 *	The reply before the status: the exchange there has release, and whoever
 *	sees EFUSE_SLOT_DONE here has acquire semantics.
 *	Caller going to sleep and daemon: both change the status by an atomic
 *	operation. If the daemon's is first, the caller's cmpxchg() fails and it
 *	takes the reply; if the caller's is first, the daemon gets
 *	EFUSE_SLOT_SLEEPING and enters.
 *	Worker going to sleep and caller: the worker is in the wait queue before it
 *	looks at pending_tail (full barrier in prepare_to_wait_event()); a caller has
 *	written pending_tail before it looks at the wait queue (full barrier in
 *	wq_has_sleeper()). One of them sees the other.
 *	Worker whose time is up and caller: the worker looks at the rings once more
 *	when it is out of the wait queue (ring_dev.c), so that it does not end with a
 *	wakeup that was meant for a request.
 *	Spinning worker and caller: the worker takes itself out of spinners, with a
 *	full barrier, before it takes a request or enters the kernel, which
 *	looks at pending_tail. A caller reads spinners after a full barrier, and
 *	after pending_head (smp_rmb()), so that it does not count one who has taken
 *	a request already.
 *	FR_SENT and FR_INTERRUPTED: as in dev.c, each is set before a full barrier
 *	and the other one tested after it.
 *
 * Abort: with ch->connected false under ch->lock nothing is put into a slot any
 * more. Requests in SLOT_SENT and on the list are ended by fuse_abort_conn(), those
 * being copied by whoever copies them. Asynchronous requests are never refused
 * under fc->bg_lock: fuse_abort_conn() empties the background queue, under
 * that lock and for the last time, before it comes to the channels.
 */
#define pr_fmt(fmt) "efuse: " fmt

#include <linux/bitmap.h>
#include <linux/nospec.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "ring.h"
#include "fuse_trace.h"

/* So much is copied under fc->bg_lock */
#define EFUSE_RING_ATOMIC_COPY	SZ_8K
/* Weight of a new service time in the average is 1 / (1 << this) */
#define EFUSE_RING_EWMA_SHIFT	3
/* Callers whose reply is known to take long poll once in so many times */
#define EFUSE_RING_POLL_AGAIN	64

/*
 * For probes: the daemon took a request at that time, 0 if it did not say.
 */
noinline void efuse_ring_taken(struct fuse_req *req, u64 when);
noinline void efuse_ring_taken(struct fuse_req *req, u64 when)
{
	asm volatile("");
}

/* What is written by the daemon is at most the daemon's own affair. */
bool efuse_has_work(struct efuse_channel *ch)
{
	struct efuse_ring_header *hdr = ch->hdr;

	return READ_ONCE(ch->pending_tail) != READ_ONCE(hdr->pending_head) ||
	       READ_ONCE(ch->fillable) ||
	       READ_ONCE(ch->intr_tail) != READ_ONCE(hdr->intr_head) ||
	       READ_ONCE(ch->forget_tail) != READ_ONCE(hdr->forget_head) ||
	       !READ_ONCE(ch->connected);
}

/* After something was put into a ring, with or without ch->lock. */
void efuse_wake_worker(struct efuse_channel *ch)
{
	struct efuse_ring_header *hdr = ch->hdr;
	u32 todo;

	/* A full barrier, for the spinners as well */
	if (!wq_has_sleeper(&ch->waitq))
		return;
	/*
	 * One that spins takes one request, and is gone with it: what else there is
	 * needs somebody else. It stops being a spinner before it takes one: a head
	 * that has gone on must not go with spinners of before.
	 */
	todo = READ_ONCE(ch->pending_tail) - READ_ONCE(hdr->pending_head);
	todo += READ_ONCE(ch->fillable);
	todo += READ_ONCE(ch->intr_tail) != READ_ONCE(hdr->intr_head);
	todo += READ_ONCE(ch->forget_tail) != READ_ONCE(hdr->forget_head);
	smp_rmb();
	if (todo <= 1 && READ_ONCE(hdr->spinners))
		return;
	wake_up(&ch->waitq);
}

void efuse_set_fillable(struct efuse_channel *ch, bool fillable)
{
	lockdep_assert_held(&ch->lock);
	if (ch->fillable == fillable)
		return;
	WRITE_ONCE(ch->fillable, fillable);
	WRITE_ONCE(ch->hdr->backlog, fillable);
}

/* Where arguments and reply go. Leading arguments that fit go into the slot. */
static void efuse_slot_plan(const struct fuse_req *req, struct efuse_slot *slot)
{
	const struct fuse_args *args = req->args;
	u32 total = 0;
	unsigned int i;

	slot->in_inline = 0;
	slot->in_inline_args = 0;
	for (i = 0; i < args->in_numargs; i++) {
		total += args->in_args[i].size;
		if (total <= EFUSE_RING_INLINE) {
			slot->in_inline = total;
			slot->in_inline_args = i + 1;
		}
	}
	slot->in_size = total - slot->in_inline;

	total = fuse_len_args(args->out_numargs,
			      (struct fuse_arg *)args->out_args);
	if (args->out_argvar)
		slot->out_size = args->out_args[args->out_numargs - 1].size;
	else
		slot->out_size = total > EFUSE_RING_HEAD ? total : 0;
}

/*
 * Find slot and pages for a request, which is none of those that wait any more.
 * -EAGAIN: there is no room, and nothing has changed.
 */
static int efuse_slot_reserve(struct efuse_channel *ch, struct fuse_req *req)
{
	struct efuse_slot plan;
	unsigned long page = 0;
	u32 in_pages, pages, nr;

	lockdep_assert_held(&ch->lock);
	efuse_slot_plan(req, &plan);
	in_pages = DIV_ROUND_UP(plan.in_size, PAGE_SIZE);
	pages = in_pages + DIV_ROUND_UP(plan.out_size, PAGE_SIZE);
	if (pages > ch->pages)
		return req->args->opcode == FUSE_SETXATTR ? -E2BIG : -EIO;

	nr = find_first_zero_bit(ch->slot_map, ch->depth);
	if (nr >= ch->depth)
		return -EAGAIN;
	if (pages) {
		page = bitmap_find_next_zero_area(ch->page_map, ch->pages, 0,
						  pages, 0);
		if (page >= ch->pages)
			return -EAGAIN;
		bitmap_set(ch->page_map, page, pages);
	}
	__set_bit(nr, ch->slot_map);
	__clear_bit(nr, ch->intr_map);
	ch->in_flight++;

	plan.req = req;
	plan.sent = 0;
	plan.state = SLOT_FILLING;
	plan.page = page;
	plan.pages = pages;
	plan.out_page = page + in_pages;
	ch->slots[nr] = plan;
	req->ring.slot = nr;
	clear_bit(FR_PENDING, &req->flags);
	return 0;
}

static void efuse_slot_free(struct efuse_channel *ch, u32 nr)
{
	struct efuse_slot *slot = &ch->slots[nr];

	lockdep_assert_held(&ch->lock);
	if (slot->pages)
		bitmap_clear(ch->page_map, slot->page, slot->pages);
	slot->state = SLOT_FREE;
	slot->req = NULL;
	__clear_bit(nr, ch->slot_map);
	__clear_bit(nr, ch->intr_map);
	ch->in_flight--;
	if (ch->n_waiting)
		efuse_set_fillable(ch, true);
}

/* Copy a request into its slot and give it to the daemon. */
static void efuse_slot_send(struct efuse_channel *ch, struct fuse_req *req,
			    u32 status, bool wake)
{
	u32 nr = req->ring.slot;
	struct efuse_slot *slot = &ch->slots[nr];
	struct efuse_ring_slot *sh = efuse_shared(ch, nr);
	struct kvec kvec[2];
	unsigned int n = 0;

	sh->in_inline = slot->in_inline;
	sh->in_page = slot->page;
	sh->in_size = slot->in_size;
	sh->out_page = slot->out_page;
	sh->out_size = slot->out_size;
	sh->timed = trace_efuse_request_send_enabled();
	sh->taken = 0;
	sh->in = req->in.h;
	if (slot->in_inline) {
		kvec[n].iov_base = sh->args;
		kvec[n++].iov_len = slot->in_inline;
	}
	if (slot->in_size) {
		kvec[n].iov_base = ch->pool + (size_t)slot->page * PAGE_SIZE;
		kvec[n++].iov_len = slot->in_size;
	}
	/* Cannot fail, the pieces are as large as the arguments */
	efuse_copy_args(req, kvec, n);
	WRITE_ONCE(sh->status, status);

	spin_lock(&ch->lock);
	if (unlikely(!ch->connected)) {
		efuse_slot_free(ch, nr);
		spin_unlock(&ch->lock);
		req->out.h.error = -ECONNABORTED;
		fuse_request_end(req);
		return;
	}
	slot->sent = local_clock();
	slot->state = SLOT_SENT;
	ch->stats.requests++;
	set_bit(FR_SENT, &req->flags);
	/* Pairs with the one in request_wait_answer() */
	smp_mb__after_atomic();
	if (test_bit(FR_INTERRUPTED, &req->flags))
		__set_bit(nr, ch->intr_map);
	WRITE_ONCE(ch->pending[ch->pending_tail & (ch->depth - 1)], nr);
	WRITE_ONCE(ch->pending_tail, ch->pending_tail + 1);
	/* Slot and entry first; pairs with the daemon's acquire */
	smp_store_release(&ch->hdr->pending_tail, ch->pending_tail);
	if (test_bit(nr, ch->intr_map))
		efuse_flush_intr(ch);
	spin_unlock(&ch->lock);

	/* Not @req or the slot any more, the reply may be there already */
	if (wake)
		efuse_wake_worker(ch);
}

static bool efuse_may_poll(struct efuse_channel *ch)
{
	if (!ch->poll_ns || num_online_cpus() < 2 ||
	    READ_ONCE(ch->worker_cpu) == raw_smp_processor_id())
		return false;
	/* It would only take the processor from others */
	if (READ_ONCE(ch->service_ns) > 2 * ch->poll_ns) {
		u32 not = READ_ONCE(ch->not_polled) + 1;

		WRITE_ONCE(ch->not_polled, not);
		return not % EFUSE_RING_POLL_AGAIN == 0;
	}
	return true;
}

/*
 * A FORGET that is a request, of a name that READDIRPLUS brought and that could not
 * be kept. Nobody replies to it; its sender waits until the daemon is to hear of it.
 */
static void efuse_ring_forget_now(struct fuse_iqueue *fiq, struct fuse_req *req)
{
	const struct fuse_forget_in *in = req->args->in_args[0].value;
	struct fuse_forget_link *forget;

	forget = kzalloc(sizeof(*forget),
			 GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	forget->forget_one.nodeid = req->args->nodeid;
	forget->forget_one.nlookup = in->nlookup;
	efuse_ring_send_forget(fiq, forget);
	clear_bit(FR_PENDING, &req->flags);
	fuse_request_end(req);
}

static void efuse_ring_send_req(struct fuse_iqueue *fiq, struct fuse_req *req)
{
	struct efuse_ring *ring = efuse_ring(fiq);
	bool background = test_bit(FR_BACKGROUND, &req->flags);
	struct efuse_channel *ch;
	bool polled;
	int err;

	if (req->args->opcode == FUSE_FORGET) {
		efuse_ring_forget_now(fiq, req);
		return;
	}
	/* What a notification asked for, with a unique id of its own */
	if (!test_bit(FR_ISREPLY, &req->flags)) {
		fuse_dev_fiq_ops.send_req(fiq, req);
		return;
	}

	ch = efuse_select_channel(ring, req);
	polled = !background && efuse_may_poll(ch);
	req->ring.ch = ch;
	spin_lock(&ch->lock);
	if (!ch->connected) {
		spin_unlock(&ch->lock);
		req->out.h.error = -ENOTCONN;
		clear_bit(FR_PENDING, &req->flags);
		fuse_request_end(req);
		return;
	}
	ch->unique += 2;
	req->in.h.unique = (u64)(ch - ring->ch + 1) << 48 |
			   (ch->unique & GENMASK_ULL(47, 0));

	err = -EAGAIN;
	if (!ch->n_waiting &&
	    (!background || req->in.h.len <= EFUSE_RING_ATOMIC_COPY))
		err = efuse_slot_reserve(ch, req);
	if (err == -EAGAIN || (err && background)) {
		list_add_tail(&req->list, &ch->waiting);
		ch->n_waiting++;
		ch->stats.waited++;
		/* If there is no room, whoever makes some says so */
		if (ch->n_waiting == 1 && ch->in_flight < ch->depth)
			efuse_set_fillable(ch, true);
		spin_unlock(&ch->lock);
		efuse_wake_worker(ch);
		return;
	}
	spin_unlock(&ch->lock);
	if (err) {
		clear_bit(FR_PENDING, &req->flags);
		req->out.h.error = err;
		fuse_request_end(req);
		return;
	}
	req->ring.polled = polled;
	efuse_slot_send(ch, req, polled ? EFUSE_SLOT_POLLED :
			background ? EFUSE_SLOT_ASYNC : EFUSE_SLOT_SLEEPING,
			true);
}

/* What waits goes into slots, in its order, until one finds no room. */
void efuse_ring_fill(struct efuse_channel *ch)
{
	struct fuse_req *req;
	bool wake = false;
	u32 status;
	int err;

	while (READ_ONCE(ch->fillable)) {
		spin_lock(&ch->lock);
		req = list_first_entry_or_null(&ch->waiting, struct fuse_req,
					       list);
		err = req ? efuse_slot_reserve(ch, req) : -EAGAIN;
		if (err == -EAGAIN) {
			efuse_set_fillable(ch, false);
			spin_unlock(&ch->lock);
			return;
		}
		list_del_init(&req->list);
		ch->n_waiting--;
		clear_bit(FR_PENDING, &req->flags);
		spin_unlock(&ch->lock);
		if (err) {
			req->out.h.error = err;
			fuse_request_end(req);
		} else {
			status = test_bit(FR_BACKGROUND, &req->flags) ?
				 EFUSE_SLOT_ASYNC : EFUSE_SLOT_SLEEPING;
			/* The first one is for whoever is here */
			efuse_slot_send(ch, req, status, wake);
			wake = true;
		}
		cond_resched();
	}
}

/*
 * End the request in a slot if its reply is there. @req is the request that is
 * meant, NULL for any.
 */
static bool efuse_slot_take(struct efuse_channel *ch, u32 nr,
			    struct fuse_req *req)
{
	struct efuse_slot *slot = &ch->slots[nr];
	struct efuse_ring_slot *sh = efuse_shared(ch, nr);
	u32 head, data, room;
	struct kvec kvec[2];
	unsigned int n = 0;
	int error;
	bool bad;
	u64 took;

	spin_lock(&ch->lock);
	/* Pairs with the daemon's release, after which the reply is there */
	if (slot->state != SLOT_SENT || (req && slot->req != req) ||
	    smp_load_acquire(&sh->status) != EFUSE_SLOT_DONE) {
		spin_unlock(&ch->lock);
		return false;
	}
	slot->state = SLOT_TAKING;
	WRITE_ONCE(ch->progress, local_clock());
	if (req)
		ch->stats.polled++;
	req = slot->req;
	room = slot->out_size;
	took = local_clock() - slot->sent;
	/* Clocks of processors may differ a little */
	if ((s64)took > 0)
		WRITE_ONCE(ch->service_ns, ch->service_ns +
			   ((s64)(took - ch->service_ns) >>
			    EFUSE_RING_EWMA_SHIFT));
	clear_bit(FR_SENT, &req->flags);
	spin_unlock(&ch->lock);

	if (READ_ONCE(sh->timed))
		efuse_ring_taken(req, READ_ONCE(sh->taken));
	error = READ_ONCE(sh->error);
	head = READ_ONCE(sh->head_size);
	data = READ_ONCE(sh->data_size);
	bad = error > 0 || error <= -512 || head > EFUSE_RING_HEAD ||
	      data > room;
	if (!bad && !error) {
		if (head) {
			kvec[n].iov_base = sh->head;
			kvec[n++].iov_len = head;
		}
		if (data) {
			kvec[n].iov_base = ch->pool +
				(size_t)slot->out_page * PAGE_SIZE;
			kvec[n++].iov_len = data;
		}
		bad = efuse_copy_reply(req, kvec, n, head + data);
	}
	req->out.h.error = bad ? -EIO : error;

	spin_lock(&ch->lock);
	if (bad)
		ch->stats.bad++;
	efuse_slot_free(ch, nr);
	spin_unlock(&ch->lock);
	if (READ_ONCE(ch->fillable))
		efuse_wake_worker(ch);

	fuse_request_end(req);
	return true;
}

void __efuse_ring_poll(struct fuse_req *req)
{
	struct efuse_channel *ch = req->ring.ch;
	struct efuse_ring_slot *sh = efuse_shared(ch, req->ring.slot);
	u64 deadline = ktime_get_ns() + ch->poll_ns;
	u32 status;

	while (!test_bit(FR_FINISHED, &req->flags)) {
		/* As in efuse_slot_take(), which looks again */
		if (smp_load_acquire(&sh->status) == EFUSE_SLOT_DONE) {
			efuse_slot_take(ch, req->ring.slot, req);
			return;
		}
		if (need_resched() || signal_pending(current) ||
		    ktime_get_ns() > deadline)
			break;
		cpu_relax();
	}
	if (test_bit(FR_FINISHED, &req->flags))
		return;
	/*
	 * The slot is still this request's, unless the daemon broke the rules; it
	 * then reads one word of its own memory otherwise than it was.
	 */
	status = cmpxchg(&sh->status, EFUSE_SLOT_POLLED, EFUSE_SLOT_SLEEPING);
	if (status == EFUSE_SLOT_DONE)
		efuse_slot_take(ch, req->ring.slot, req);
}

/* While it waits, a request may be moved to another channel, under both locks. */
struct efuse_channel *efuse_lock_channel(struct fuse_req *req)
{
	struct efuse_channel *ch;

	for (;;) {
		ch = READ_ONCE(req->ring.ch);
		spin_lock(&ch->lock);
		if (likely(ch == READ_ONCE(req->ring.ch)))
			return ch;
		spin_unlock(&ch->lock);
	}
}

bool __efuse_ring_cancel(struct fuse_req *req)
{
	struct efuse_channel *ch = efuse_lock_channel(req);
	bool pending;

	pending = test_bit(FR_PENDING, &req->flags);
	if (pending) {
		list_del_init(&req->list);
		ch->n_waiting--;
		/* There may be room for the next one */
		if (ch->n_waiting)
			efuse_set_fillable(ch, true);
	}
	spin_unlock(&ch->lock);
	if (pending && READ_ONCE(ch->fillable))
		efuse_wake_worker(ch);
	return pending;
}

void __efuse_ring_abort(struct fuse_conn *fc, struct list_head *to_end)
{
	struct efuse_ring *ring = efuse_ring(&fc->iq);
	struct fuse_forget_link *link;
	struct efuse_channel *ch;
	struct fuse_req *req;
	unsigned int i;
	u32 nr;

	for (i = 0; i < ring->channels; i++) {
		ch = &ring->ch[i];
		spin_lock(&ch->lock);
		WRITE_ONCE(ch->connected, false);
		for (nr = 0; nr < ch->depth; nr++) {
			req = ch->slots[nr].req;
			if (ch->slots[nr].state != SLOT_SENT)
				continue;
			efuse_slot_free(ch, nr);
			list_add_tail(&req->list, to_end);
		}
		list_for_each_entry(req, &ch->waiting, list)
			clear_bit(FR_PENDING, &req->flags);
		list_splice_tail_init(&ch->waiting, to_end);
		ch->n_waiting = 0;
		efuse_set_fillable(ch, false);
		while ((link = ch->forgets)) {
			ch->forgets = link->next;
			kfree(link);
		}
		ch->forgets_tail = &ch->forgets;
		spin_unlock(&ch->lock);
		wake_up_all(&ch->waitq);
	}
}

/* End requests whose slots are in the complete ring, one round at most. */
void efuse_ring_commit(struct efuse_channel *ch)
{
	u32 i, slot;

	for (i = 0; i < ch->depth; i++) {
		spin_lock(&ch->lock);
		slot = xchg(&ch->complete[ch->complete_head & (ch->depth - 1)],
			    0);
		if (slot)
			ch->complete_head++;
		spin_unlock(&ch->lock);
		if (!slot)
			return;
		slot--;
		if (slot < ch->depth)
			efuse_slot_take(ch, array_index_nospec(slot, ch->depth),
					NULL);
		cond_resched();
	}
}

const struct fuse_iqueue_ops efuse_ring_ops = {
	.send_forget	= efuse_ring_send_forget,
	.send_interrupt	= efuse_ring_send_interrupt,
	.send_req	= efuse_ring_send_req,
	.release	= efuse_ring_release,
};
