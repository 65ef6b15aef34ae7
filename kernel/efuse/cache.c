// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: data of files in memory, in blocks of 4 KiB by inode and number.
 *
 * A block belongs to an inode in memory and so to a node id and its generation,
 * never to a file handle. Its data never change: a write takes blocks away or puts
 * new ones in their place when it has ended. Only the last block of a file may be
 * partial, and it ends where the file does.
 *
 * What keeps a late fill from bringing back old data: an inode has slots, which its
 * blocks share by number, with what is being written ("writing") and how often that
 * ended ("seq"), and the same once for changes of unknown extent and of the size
 * ("all"). A write: writing up; full barrier; I/O; under the lock: blocks away, seq
 * up, writing down. A fill samples seq while nothing is being written, reads, and
 * inserts under the lock if seq is the same. A hit needs nothing to be written where
 * it looks; so no reader sees old data after another saw new ones. A write puts its
 * own blocks in place only if it was alone in their slots from beginning to end,
 * since nobody knows in which order two writes reached the file.
 *
 * What changes through a mapping is not seen by anyone here. An inode that was mapped
 * shared and writable through its backing file is not cached any more.
 *
 * Locks: the xarray's lock of an inode (interrupts off) outside cache->lock. Blocks
 * are found under RCU and then held. The structures of a block and of an inode's
 * part stay for a grace period after they are gone.
 *
 * Memory is counted when it is taken and given back, and taken only within the
 * budget: older blocks go first, by a clock that spares what was used.
 */
#include "efuse_i.h"

#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/uio.h>

/* Turns of the clock for a block that is wanted, at most */
#define EFUSE_EVICT_SCAN	64

/* Blocks taken away while interrupts are off */
#define EFUSE_DROP_BATCH	128

static unsigned long efuse_block_bytes(void)
{
	return PAGE_SIZE + sizeof(struct efuse_block);
}

static void efuse_block_put(struct efuse_cache *cache, struct efuse_block *b)
{
	if (!refcount_dec_and_test(&b->ref))
		return;
	__free_page(b->page);
	kfree_rcu(b, rcu);
	atomic_long_sub(efuse_block_bytes(), &cache->used);
}

/* Takes a block out of its inode and the clock. Under the xarray's lock. */
static void efuse_block_remove(struct efuse_cache *cache,
			       struct efuse_icache *ic, struct efuse_block *b)
{
	__xa_erase(&ic->blocks, b->index);
	if (ic->eof == b->index)
		ic->eof = EFUSE_NO_BLOCK;
	spin_lock(&cache->lock);
	if (!list_empty(&b->clock)) {
		list_del_init(&b->clock);
		cache->blocks--;
	}
	spin_unlock(&cache->lock);
	efuse_block_put(cache, b);
}

/* Gives back up to @wanted blocks that were not used lately. */
static unsigned long efuse_cache_evict(struct efuse_cache *cache,
				       unsigned long wanted, bool all)
{
	unsigned long scan = all ? ULONG_MAX : wanted * EFUSE_EVICT_SCAN;
	unsigned long freed = 0;

	while (freed < wanted && scan--) {
		struct efuse_icache *ic;
		struct efuse_block *b;
		unsigned long flags;

		/* For the inode's structure, which may be going */
		rcu_read_lock();
		spin_lock_irqsave(&cache->lock, flags);
		b = list_first_entry_or_null(&cache->clock, struct efuse_block,
					     clock);
		if (!b) {
			spin_unlock_irqrestore(&cache->lock, flags);
			rcu_read_unlock();
			break;
		}
		if (READ_ONCE(b->used) && !all) {
			WRITE_ONCE(b->used, false);
			list_move_tail(&b->clock, &cache->clock);
			spin_unlock_irqrestore(&cache->lock, flags);
			rcu_read_unlock();
			continue;
		}
		list_del_init(&b->clock);
		cache->blocks--;
		/* In the clock it is in the inode, which holds it */
		refcount_inc(&b->ref);
		ic = b->owner;
		spin_unlock_irqrestore(&cache->lock, flags);

		xa_lock_irqsave(&ic->blocks, flags);
		if (xa_load(&ic->blocks, b->index) == b)
			efuse_block_remove(cache, ic, b);
		xa_unlock_irqrestore(&ic->blocks, flags);
		rcu_read_unlock();
		efuse_block_put(cache, b);
		freed++;
		if (!(freed % 64))
			cond_resched();
	}
	return freed;
}

/* Turns of making room that others take before we can */
#define EFUSE_CHARGE_TRIES	3

/* Takes room for @n blocks from the budget, which is not exceeded for a moment. */
static bool efuse_cache_charge(struct efuse_cache *cache, unsigned int n)
{
	unsigned long bytes = n * efuse_block_bytes();
	unsigned long budget = READ_ONCE(cache->budget);
	long used = atomic_long_read(&cache->used);
	unsigned int tries = 0;

	if (bytes > budget)
		return false;
	do {
		while (used + bytes > budget) {
			if (tries++ == EFUSE_CHARGE_TRIES)
				return false;
			efuse_cache_evict(cache,
					  DIV_ROUND_UP(used + bytes - budget,
						       efuse_block_bytes()),
					  false);
			used = atomic_long_read(&cache->used);
		}
	} while (!atomic_long_try_cmpxchg(&cache->used, &used, used + bytes));
	return true;
}

static struct efuse_cache_slot *efuse_slot(struct efuse_icache *ic,
					   pgoff_t index)
{
	return &ic->slots[index & ic->slot_mask];
}

void efuse_blocks_free(struct efuse_cache *cache, struct efuse_block **blocks,
		       unsigned int n)
{
	while (n--)
		efuse_block_put(cache, blocks[n]);
}

/*
 * New blocks for data of @ic from @first on, with the time of now for what is
 * read into them from now on.
 */
bool efuse_blocks_alloc(struct efuse_cache *cache, struct efuse_icache *ic,
			pgoff_t first, struct efuse_block **blocks,
			unsigned int n)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
	unsigned int i;

	if (!efuse_cache_charge(cache, n))
		return false;
	for (i = 0; i < n; i++) {
		struct efuse_block *b = kmalloc(sizeof(*b), gfp);

		if (!b)
			break;
		b->page = alloc_page(gfp);
		if (!b->page) {
			kfree(b);
			break;
		}
		b->owner = ic;
		b->index = first + i;
		b->seq = (u32)atomic_read(&efuse_slot(ic, b->index)->seq);
		b->generation = READ_ONCE(cache->generation);
		b->len = PAGE_SIZE;
		b->used = false;
		INIT_LIST_HEAD(&b->clock);
		refcount_set(&b->ref, 1);
		blocks[i] = b;
	}
	if (i == n)
		return true;
	atomic_long_sub((n - i) * efuse_block_bytes(), &cache->used);
	efuse_blocks_free(cache, blocks, i);
	return false;
}

/* Whether anything is being written where [first, last] is. */
static bool efuse_writing(struct efuse_icache *ic, pgoff_t first, pgoff_t last)
{
	pgoff_t i;

	if (atomic_read_acquire(&ic->all.writing))
		return true;
	if (last - first > ic->slot_mask)
		last = first + ic->slot_mask;
	for (i = first; i <= last; i++)
		if (atomic_read_acquire(&efuse_slot(ic, i)->writing))
			return true;
	return false;
}

/*
 * Before the seq of blocks is sampled for a fill: false if it would be in vain.
 * What begins later is seen at the end.
 */
bool efuse_fill_begin(struct efuse_icache *ic, pgoff_t first, unsigned int n,
		      u32 *all_seq)
{
	*all_seq = atomic_read(&ic->all.seq);
	/* A write that ended before this has moved the seq already */
	smp_rmb();
	return !efuse_writing(ic, first, first + n - 1) &&
	       !READ_ONCE(ic->fi->efuse_mapped);
}

static bool efuse_block_insert(struct efuse_cache *cache,
			       struct efuse_icache *ic, struct efuse_block *b)
{
	struct efuse_block *old;

	old = xa_load(&ic->blocks, b->index);
	if (old)
		efuse_block_remove(cache, ic, old);
	if (xa_err(__xa_store(&ic->blocks, b->index, b,
			      GFP_ATOMIC | __GFP_NOWARN)))
		return false;
	spin_lock(&cache->lock);
	if (!cache->budget || b->generation != cache->generation) {
		spin_unlock(&cache->lock);
		__xa_erase(&ic->blocks, b->index);
		return false;
	}
	list_add_tail(&b->clock, &cache->clock);
	cache->blocks++;
	spin_unlock(&cache->lock);
	if (b->len < PAGE_SIZE) {
		old = ic->eof != EFUSE_NO_BLOCK ?
			xa_load(&ic->blocks, ic->eof) : NULL;
		if (old && old != b)
			efuse_block_remove(cache, ic, old);
		ic->eof = b->index;
	}
	return true;
}

/*
 * Data have been read into @blocks, @bytes of them; @at_end: the file ends there.
 * Keeps what nobody wrote to meanwhile. The blocks stay the caller's.
 */
void efuse_fill_end(struct efuse_cache *cache, struct efuse_icache *ic,
		    struct efuse_block **blocks, unsigned int n, size_t bytes,
		    bool at_end, u32 all_seq)
{
	unsigned long flags;
	unsigned int i;

	xa_lock_irqsave(&ic->blocks, flags);
	if ((u32)atomic_read(&ic->all.seq) != all_seq ||
	    READ_ONCE(ic->fi->efuse_mapped))
		goto out;
	for (i = 0; i < n && bytes; i++) {
		struct efuse_block *b = blocks[i];
		size_t len = min_t(size_t, bytes, PAGE_SIZE);

		bytes -= len;
		if (len < PAGE_SIZE && !at_end)
			break;
		if ((u32)atomic_read(&efuse_slot(ic, b->index)->seq) !=
		    b->seq)
			continue;
		/* One is as good as the other, and this one was used */
		if (xa_load(&ic->blocks, b->index))
			continue;
		b->len = len;
		refcount_inc(&b->ref);
		if (!efuse_block_insert(cache, ic, b))
			efuse_block_put(cache, b);
	}
out:
	xa_unlock_irqrestore(&ic->blocks, flags);
}

/* Finds and holds a block. */
static struct efuse_block *efuse_block_get(struct efuse_icache *ic,
					   pgoff_t index)
{
	struct efuse_block *b;

	rcu_read_lock();
	b = xa_load(&ic->blocks, index);
	if (b && !refcount_inc_not_zero(&b->ref))
		b = NULL;
	rcu_read_unlock();
	return b;
}

/* Whether every block of a range is there, as far as can be said without holding them. */
bool efuse_cache_has(struct efuse_icache *ic, pgoff_t first, pgoff_t last)
{
	pgoff_t index;

	for (index = first; index <= last; index++)
		if (!xa_load(&ic->blocks, index))
			return false;
	return true;
}

/*
 * Reads from blocks alone. Bytes read, or a negative number if not all of it is
 * there; @to is then as it was.
 */
ssize_t efuse_cache_read(struct efuse_cache *cache, struct efuse_icache *ic,
			 loff_t pos, struct iov_iter *to)
{
	size_t count = iov_iter_count(to);
	pgoff_t first = pos >> PAGE_SHIFT;
	pgoff_t last = (pos + count - 1) >> PAGE_SHIFT;
	size_t done = 0;
	pgoff_t index;

	if (READ_ONCE(ic->fi->efuse_mapped) ||
	    efuse_writing(ic, first, last))
		return -EAGAIN;
	/* Copying what then has to be read in one piece would be a waste */
	if (!efuse_cache_has(ic, first + 1, last))
		return -ENOENT;

	for (index = first; index <= last; index++) {
		size_t offset = offset_in_page(pos + done);
		size_t want = min_t(size_t, count - done, PAGE_SIZE - offset);
		struct efuse_block *b = efuse_block_get(ic, index);
		size_t n, got;

		if (!b) {
			iov_iter_revert(to, done);
			return -ENOENT;
		}
		n = b->len > offset ? min(want, b->len - offset) : 0;
		got = copy_page_to_iter(b->page, offset, n, to);
		if (!READ_ONCE(b->used))
			WRITE_ONCE(b->used, true);
		efuse_block_put(cache, b);
		done += got;
		if (got < n)
			return done ? done : -EFAULT;
		/* The end of the file */
		if (n < want)
			break;
	}
	return done;
}

/* Whether any block of a range is there. */
bool efuse_cache_holds(struct efuse_icache *ic, pgoff_t first, pgoff_t last)
{
	unsigned long index = first;

	return xa_find(&ic->blocks, &index, last, XA_PRESENT);
}

/*
 * Takes some blocks of a range away, under the xarray's lock. Whether none is
 * left; if not, the lock may be let go before the next call.
 */
static bool efuse_drop_some(struct efuse_cache *cache, struct efuse_icache *ic,
			    pgoff_t first, pgoff_t last)
{
	unsigned int n = 0;
	struct efuse_block *b;
	unsigned long index;

	lockdep_assert_held(&ic->blocks.xa_lock);
	xa_for_each_range(&ic->blocks, index, b, first, last) {
		if (n++ == EFUSE_DROP_BATCH)
			return false;
		efuse_block_remove(cache, ic, b);
	}
	return true;
}

/* A write up to @last may have moved the end of the file. */
static void efuse_drop_eof(struct efuse_cache *cache, struct efuse_icache *ic,
			   pgoff_t last)
{
	struct efuse_block *b;

	if (ic->eof == EFUSE_NO_BLOCK || ic->eof > last)
		return;
	b = xa_load(&ic->blocks, ic->eof);
	if (b)
		efuse_block_remove(cache, ic, b);
}

/*
 * A change of data begins. @size_too: or of the size; then, and where much is
 * written, the whole inode counts as being written to.
 */
void efuse_write_begin(struct efuse_icache *ic, pgoff_t first, pgoff_t last,
		       bool size_too, struct efuse_write *w)
{
	pgoff_t i;

	w->first = first;
	w->last = last;
	w->all = size_too;
	w->ic = ic;
	if (!ic)
		return;
	w->all |= last - first >= efuse_write_most(ic);
	w->all_seq = atomic_read(&ic->all.seq);
	if (w->all)
		atomic_inc(&ic->all.writing);
	else
		for (i = first; i <= last; i++)
			atomic_inc(&efuse_slot(ic, i)->writing);
	/* Who reads what is written after this sees that a write is under way */
	smp_mb__after_atomic();
}

/* Whether a write was the only one in its slots. Under the xarray's lock. */
static bool efuse_write_alone(struct efuse_icache *ic,
			      const struct efuse_write *w,
			      struct efuse_block **blocks)
{
	pgoff_t i;

	if (w->all || atomic_read(&ic->all.writing) ||
	    (u32)atomic_read(&ic->all.seq) != w->all_seq)
		return false;
	for (i = w->first; i <= w->last; i++) {
		const struct efuse_cache_slot *slot = efuse_slot(ic, i);

		if (atomic_read(&slot->writing) != 1 ||
		    (u32)atomic_read(&slot->seq) != blocks[i - w->first]->seq)
			return false;
	}
	return true;
}

/*
 * It has ended, whether well or not. @ic: the inode's now; it may have come and
 * been filled since the beginning. @blocks, if not NULL, are what was written, and
 * stay the caller's.
 */
void efuse_write_end(struct efuse_icache *ic, struct efuse_write *w,
		     struct efuse_block **blocks)
{
	struct efuse_cache *cache;
	unsigned long flags;
	bool own;
	pgoff_t i;

	if (!ic)
		return;
	cache = ic->cache;
	xa_lock_irqsave(&ic->blocks, flags);
	if (!w->ic) {
		atomic_inc(&ic->all.writing);
		w->all = true;
	}
	own = blocks && !READ_ONCE(ic->fi->efuse_mapped) &&
	      efuse_write_alone(ic, w, blocks);
	efuse_drop_eof(cache, ic, w->last);
	for (i = w->first; own && i <= w->last; i++) {
		struct efuse_block *b = blocks[i - w->first];

		refcount_inc(&b->ref);
		if (!efuse_block_insert(cache, ic, b))
			efuse_block_put(cache, b);
	}
	/* From here on nothing older gets in */
	if (w->all)
		atomic_inc(&ic->all.seq);
	for (i = w->first; !w->all && i <= w->last; i++)
		atomic_inc(&efuse_slot(ic, i)->seq);
	while (!own && !efuse_drop_some(cache, ic, w->first, w->last)) {
		xa_unlock_irqrestore(&ic->blocks, flags);
		xa_lock_irqsave(&ic->blocks, flags);
	}
	/* The seq first; pairs with the barrier in efuse_fill_begin() */
	smp_mb__before_atomic();
	if (w->all)
		atomic_dec(&ic->all.writing);
	for (i = w->first; !w->all && i <= w->last; i++)
		atomic_dec(&efuse_slot(ic, i)->writing);
	xa_unlock_irqrestore(&ic->blocks, flags);
}

/* All data of an inode may be others from now on. */
void __efuse_data_changed(struct efuse_icache *ic)
{
	struct efuse_write w = { .last = EFUSE_NO_BLOCK };

	efuse_write_end(ic, &w, NULL);
}

void __efuse_opened(struct efuse_conn *ec, struct efuse_icache *ic)
{
	const struct efuse_ops *ops;
	bool keep;

	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	keep = ops && (ops->flags & EFUSE_OPS_KEEP_DATA);
	rcu_read_unlock();
	if (!keep)
		__efuse_data_changed(ic);
}

/*
 * The cache's part of an inode, made if it is not there; NULL if not to be
 * had.
 */
struct efuse_icache *efuse_icache_make(struct efuse_cache *cache,
				       struct inode *inode)
{
	struct fuse_inode *fi = get_fuse_inode(inode);
	struct efuse_icache *ic = efuse_icache(inode);
	struct efuse_icache *old;
	unsigned long slots;

	if (ic)
		return ic;
	slots = clamp_t(u64, i_size_read(inode) >> PAGE_SHIFT,
			EFUSE_SLOTS_MIN * EFUSE_SLOT_BLOCKS,
			EFUSE_SLOTS_MAX * EFUSE_SLOT_BLOCKS);
	slots = rounddown_pow_of_two(slots / EFUSE_SLOT_BLOCKS);
	ic = kvzalloc(struct_size(ic, slots, slots), GFP_KERNEL_ACCOUNT);
	if (!ic)
		return NULL;
	ic->slot_mask = slots - 1;
	xa_init_flags(&ic->blocks, XA_FLAGS_LOCK_IRQ);
	ic->cache = cache;
	ic->fi = fi;
	refcount_set(&ic->ref, 1);
	ic->eof = EFUSE_NO_BLOCK;
	old = cmpxchg(&fi->efuse_cache, NULL, ic);
	if (old) {
		kvfree(ic);
		return old;
	}
	return ic;
}

void efuse_icache_put(struct efuse_icache *ic)
{
	if (refcount_dec_and_test(&ic->ref))
		kvfree_rcu(ic, rcu);
}

/*
 * The inode leaves memory; nobody reads or writes it any more. Requests for its
 * node that were sent by way of another inode may still end.
 */
void __efuse_inode_gone(struct fuse_inode *fi)
{
	struct efuse_icache *ic = fi->efuse_cache;
	unsigned long flags;
	bool gone;

	do {
		xa_lock_irqsave(&ic->blocks, flags);
		gone = efuse_drop_some(ic->cache, ic, 0, EFUSE_NO_BLOCK);
		xa_unlock_irqrestore(&ic->blocks, flags);
	} while (!gone);
	xa_destroy(&ic->blocks);
	fi->efuse_cache = NULL;
	efuse_icache_put(ic);
}

static unsigned long efuse_shrink_count(struct shrinker *shrinker,
					struct shrink_control *sc)
{
	struct efuse_cache *cache = shrinker->private_data;

	return READ_ONCE(cache->blocks) ?: SHRINK_EMPTY;
}

static unsigned long efuse_shrink_scan(struct shrinker *shrinker,
				       struct shrink_control *sc)
{
	struct efuse_cache *cache = shrinker->private_data;
	unsigned long freed = efuse_cache_evict(cache, sc->nr_to_scan, false);

	return freed ?: SHRINK_STOP;
}

void efuse_cache_init(struct efuse_cache *cache)
{
	spin_lock_init(&cache->lock);
	INIT_LIST_HEAD(&cache->clock);
}

/* What is in it, and what is being read for it, may not be what it was. */
void efuse_cache_renew(struct efuse_cache *cache)
{
	unsigned long flags;

	spin_lock_irqsave(&cache->lock, flags);
	cache->generation++;
	spin_unlock_irqrestore(&cache->lock, flags);
	efuse_cache_evict(cache, ULONG_MAX, true);
}

/* Sets the budget; 0 gives everything back. One caller at a time. */
int efuse_cache_set_budget(struct efuse_cache *cache, u64 budget)
{
	unsigned long flags;
	unsigned long limit = totalram_pages() / 2;

	budget = min_t(u64, budget, (u64)limit << PAGE_SHIFT);
	if (budget && !cache->shrinker) {
		cache->shrinker = shrinker_alloc(0, "efuse-cache");
		if (!cache->shrinker)
			return -ENOMEM;
		cache->shrinker->count_objects = efuse_shrink_count;
		cache->shrinker->scan_objects = efuse_shrink_scan;
		cache->shrinker->private_data = cache;
		shrinker_register(cache->shrinker);
	}
	spin_lock_irqsave(&cache->lock, flags);
	cache->budget = budget;
	spin_unlock_irqrestore(&cache->lock, flags);
	if (!budget) {
		efuse_cache_evict(cache, ULONG_MAX, true);
		if (cache->shrinker)
			shrinker_free(cache->shrinker);
		cache->shrinker = NULL;
	} else {
		unsigned long used = atomic_long_read(&cache->used);
		unsigned long one = efuse_block_bytes();

		if (used > budget)
			efuse_cache_evict(cache,
					  DIV_ROUND_UP(used - budget, one),
					  false);
	}
	return 0;
}
