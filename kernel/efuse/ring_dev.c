// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: the daemon's side of ring channels: it makes them, maps them, and enters them
 * through the device. ring.c has the rules and the locks.
 */
#define pr_fmt(fmt) "efuse: " fmt

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sched/clock.h>
#include <linux/vmalloc.h>

#include "ring.h"

#define EFUSE_RING_DEPTH	64
#define EFUSE_RING_PAGES	1024
#define EFUSE_RING_MAX_POLL_US	10000

/* As in efuse/abi/src/ring.rs */
static_assert(sizeof(struct efuse_ring_header) == 192);
static_assert(offsetof(struct efuse_ring_header, pending_head) == 64);
static_assert(offsetof(struct efuse_ring_header, complete_tail) == 128);
static_assert(sizeof(struct efuse_ring_slot) == 512);
static_assert(offsetof(struct efuse_ring_slot, in) == 48);
static_assert(offsetof(struct efuse_ring_slot, args) == 88);
static_assert(offsetof(struct efuse_ring_slot, head) == 200);
static_assert(sizeof(struct efuse_ring_intr) == 16);
static_assert(sizeof(struct efuse_ring_forget) == 16);
static_assert(sizeof(struct efuse_ring_setup) == 24);
static_assert(sizeof(struct efuse_ring_enter) == 8);

static void efuse_ring_free(struct efuse_ring *ring)
{
	struct efuse_channel *ch;
	unsigned int i;

	for (i = 0; i < ring->channels; i++) {
		ch = &ring->ch[i];
		/* Mappings have references of their own to the pages */
		vfree(ch->mem);
		kvfree(ch->slots);
		bitmap_free(ch->slot_map);
		bitmap_free(ch->intr_map);
		bitmap_free(ch->page_map);
	}
	kvfree(ring);
}

/* The connection has ended, and nobody has its device open. */
void efuse_ring_release(struct fuse_iqueue *fiq)
{
	efuse_ring_free(efuse_ring(fiq));
}

static size_t efuse_slots_offset(u32 depth)
{
	size_t at = PAGE_SIZE + 2 * depth * sizeof(u32) +
		    depth * sizeof(struct efuse_ring_intr) +
		    EFUSE_RING_FORGETS * sizeof(struct efuse_ring_forget);

	return ALIGN(at, sizeof(struct efuse_ring_slot));
}

static size_t efuse_pool_offset(u32 depth)
{
	return PAGE_ALIGN(efuse_slots_offset(depth) +
			  depth * sizeof(struct efuse_ring_slot));
}

static size_t efuse_channel_bytes(const struct efuse_ring_setup *setup)
{
	return efuse_pool_offset(setup->depth) +
	       (size_t)setup->pages * PAGE_SIZE;
}

static int efuse_channel_init(struct efuse_channel *ch,
			      const struct efuse_ring_setup *setup)
{
	u32 depth = setup->depth;
	void *at;

	spin_lock_init(&ch->lock);
	init_waitqueue_head(&ch->waitq);
	INIT_LIST_HEAD(&ch->waiting);
	ch->forgets_tail = &ch->forgets;
	ch->connected = true;
	ch->depth = depth;
	ch->pages = setup->pages;
	ch->poll_ns = (u64)setup->poll_us * NSEC_PER_USEC;
	ch->worker_cpu = -1;
	ch->bytes = setup->bytes;
	ch->mem = __vmalloc(ch->bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO |
			    __GFP_NOWARN);
	ch->slots = kvcalloc(depth, sizeof(*ch->slots), GFP_KERNEL_ACCOUNT);
	ch->slot_map = bitmap_zalloc(depth, GFP_KERNEL_ACCOUNT);
	ch->intr_map = bitmap_zalloc(depth, GFP_KERNEL_ACCOUNT);
	ch->page_map = bitmap_zalloc(ch->pages, GFP_KERNEL_ACCOUNT);
	if (!ch->mem || !ch->slots || !ch->slot_map || !ch->intr_map ||
	    !ch->page_map)
		return -ENOMEM;

	ch->hdr = ch->mem;
	at = ch->mem + PAGE_SIZE;
	ch->pending = at;
	ch->complete = ch->pending + depth;
	at = ch->complete + depth;
	ch->intr = at;
	at = ch->intr + depth;
	ch->forget = at;
	ch->shared = ch->mem + efuse_slots_offset(depth);
	ch->pool = ch->mem + efuse_pool_offset(depth);
	return 0;
}

static int efuse_ring_defaults(struct efuse_ring_setup *setup)
{
	if (setup->flags & ~EFUSE_RING_BALANCE)
		return -EINVAL;
	if (!setup->channels)
		setup->channels = num_possible_cpus();
	if (!setup->depth)
		setup->depth = EFUSE_RING_DEPTH;
	if (!setup->pages)
		setup->pages = EFUSE_RING_PAGES;
	if (setup->channels > nr_cpu_ids ||
	    !is_power_of_2(setup->depth) ||
	    setup->depth < EFUSE_RING_MIN_DEPTH ||
	    setup->depth > EFUSE_RING_MAX_DEPTH ||
	    setup->pages < EFUSE_RING_MIN_PAGES ||
	    setup->pages > EFUSE_RING_MAX_PAGES ||
	    setup->poll_us > EFUSE_RING_MAX_POLL_US)
		return -EINVAL;
	setup->bytes = efuse_channel_bytes(setup);
	if (array_size(setup->channels, setup->bytes) >> PAGE_SHIFT >
	    totalram_pages() / 4)
		return -ENOMEM;
	return 0;
}

static long efuse_ring_setup(struct fuse_dev *fud, void __user *argp)
{
	struct fuse_conn *fc = fud->fc;
	struct efuse_ring_setup setup;
	struct efuse_ring *ring;
	unsigned int i;
	int err;

	if (copy_from_user(&setup, argp, sizeof(setup)))
		return -EFAULT;
	err = efuse_ring_defaults(&setup);
	if (err)
		return err;

	ring = kvzalloc(struct_size(ring, ch, setup.channels),
			GFP_KERNEL_ACCOUNT);
	if (!ring)
		return -ENOMEM;
	ring->channels = setup.channels;
	ring->balance = setup.flags & EFUSE_RING_BALANCE;
	for (i = 0; i < setup.channels; i++) {
		ring->ch[i].fc = fc;
		err = efuse_channel_init(&ring->ch[i], &setup);
		if (err)
			goto out_free;
	}
	err = -EFAULT;
	if (copy_to_user(argp, &setup, sizeof(setup)))
		goto out_free;

	/*
	 * Until INIT is answered there is no other request. Should the daemon answer
	 * it at this very moment, some requests wait for its read() as ever.
	 */
	mutex_lock(&fuse_mutex);
	spin_lock(&fc->lock);
	err = -EBUSY;
	if (fc->connected && !fc->initialized &&
	    fc->iq.ops == &fuse_dev_fiq_ops) {
		err = 0;
		fc->iq.priv = ring;
		/* Whoever finds these operations finds the rings */
		smp_store_release(&fc->iq.ops, &efuse_ring_ops);
	}
	spin_unlock(&fc->lock);
	mutex_unlock(&fuse_mutex);
	if (!err)
		return 0;
out_free:
	efuse_ring_free(ring);
	return err;
}

static struct efuse_channel *efuse_ring_channel(struct fuse_dev *fud, u32 nr)
{
	struct efuse_ring *ring;

	if (!efuse_has_ring(fud->fc))
		return NULL;
	ring = efuse_ring(&fud->fc->iq);
	if (nr >= ring->channels)
		return NULL;
	return &ring->ch[array_index_nospec(nr, ring->channels)];
}

/*
 * As wait_event_interruptible_exclusive(), for a time: there is none in the kernel that
 * is both. What is left of the time, 0 if it is over, or -ERESTARTSYS. In jiffies, as
 * nobody waits for the end of it.
 */
static long efuse_ring_wait(struct efuse_channel *ch, long timeout)
{
	might_sleep();
	return ___wait_event(ch->waitq,
			     ___wait_cond_timeout(efuse_has_work(ch)),
			     TASK_INTERRUPTIBLE, 1, timeout,
			     __ret = schedule_timeout(__ret));
}

static long efuse_ring_enter(struct fuse_dev *fud, void __user *argp)
{
	long left = MAX_SCHEDULE_TIMEOUT;
	struct efuse_ring_enter enter;
	struct efuse_channel *ch;
	bool woken = false;
	u32 ms;

	if (copy_from_user(&enter, argp, sizeof(enter)))
		return -EFAULT;
	ms = enter.flags >> EFUSE_RING_WAIT_MS_SHIFT;
	if (enter.flags & ~EFUSE_RING_WAIT_MS(U16_MAX) ||
	    (ms && !(enter.flags & EFUSE_RING_WAIT)))
		return -EINVAL;
	if (ms)
		left = msecs_to_jiffies(ms);
	ch = efuse_ring_channel(fud, enter.channel);
	if (!ch)
		return -EINVAL;

	efuse_ring_commit(ch);
	for (;;) {
		WRITE_ONCE(ch->worker_cpu, raw_smp_processor_id());
		WRITE_ONCE(ch->progress, local_clock());
		efuse_ring_fill(ch);
		spin_lock(&ch->lock);
		if (!ch->connected) {
			spin_unlock(&ch->lock);
			return fud->fc->aborted ? -ECONNABORTED : -ENODEV;
		}
		ch->stats.wakeups += woken;
		woken = false;
		efuse_look_at_heads(ch);
		efuse_flush_intr(ch);
		efuse_flush_forgets(ch);
		spin_unlock(&ch->lock);
		if (!(enter.flags & EFUSE_RING_WAIT) || efuse_has_work(ch))
			return 0;
		if (efuse_ring_steal(efuse_ring(&fud->fc->iq), ch))
			continue;
		atomic_inc(&ch->sleepers);
		left = efuse_ring_wait(ch, left);
		atomic_dec(&ch->sleepers);
		if (left < 0)
			return left;
		/*
		 * Out of the queue: whatever comes from here on wakes somebody else. What
		 * came before may have woken nobody but this one, as its time ended.
		 */
		if (!left && !efuse_has_work(ch))
			return -ETIMEDOUT;
		woken = true;
	}
}

long efuse_ring_ioctl(struct fuse_dev *fud, unsigned int cmd,
		      void __user *argp)
{
	if (cmd != EFUSE_IOC_RING_SETUP && cmd != EFUSE_IOC_RING_ENTER)
		return -ENOTTY;
	if (!fud)
		return -EPERM;
	if (cmd == EFUSE_IOC_RING_SETUP)
		return efuse_ring_setup(fud, argp);
	return efuse_ring_enter(fud, argp);
}

int efuse_ring_mmap(struct fuse_dev *fud, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	struct efuse_channel *ch;
	unsigned long at;
	int err;

	if (!fud)
		return -ENODEV;
	if ((offset & ~GENMASK_ULL(47, 32)) != EFUSE_RING_MAP_TYPE)
		return -EINVAL;
	ch = efuse_ring_channel(fud, (offset >> 32) & 0xffff);
	if (!ch || vma->vm_end - vma->vm_start != ch->bytes ||
	    !(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	vm_flags_mod(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP,
		     VM_MAYEXEC);
	for (at = 0; at < ch->bytes; at += PAGE_SIZE) {
		err = vm_insert_page(vma, vma->vm_start + at,
				     vmalloc_to_page(ch->mem + at));
		if (err)
			return err;
	}
	return 0;
}
