// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: reading into the cache and writing from it.
 *
 * What others will read must not be in pages that a process can write to meanwhile:
 * a reader could put its own bytes into the cache, a careless writer could make it
 * differ from the file. So a fill reads whole blocks into pages of the cache, and
 * copies to the caller when that has ended; a write whose blocks are in the cache
 * is copied into new ones first, and written from there.
 *
 * An asynchronous caller is not waited for: its pages are held meanwhile, marked as
 * dirty before and, if they were cleaned, once more after, as for direct I/O.
 *
 * Locks: none beyond those of cache.c. A fill may end in an interrupt; what takes
 * long or cannot be done there goes on in a work queue.
 */
#include "efuse_i.h"

#include <linux/bvec.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

/* Blocks of one fill: 1 MiB, and one more where it is not aligned */
#define EFUSE_FILL_MAX		257
/* Blocks that are copied in an interrupt */
#define EFUSE_FILL_INTERRUPT	8

struct efuse_fill {
	/* The request for whole blocks */
	struct kiocb iocb;
	struct kiocb *orig;
	struct efuse_conn *ec;
	struct efuse_icache *ic;
	struct efuse_io io;
	u64 began;
	/* What was asked for */
	loff_t pos;
	size_t count;
	/* The caller's pages, if it does not wait */
	struct page **pages;
	unsigned int nr_pages;
	size_t page_offset;
	bool pinned;
	bool backed;
	/* Of them the ones that are in place */
	unsigned int n;
	u32 all_seq;
	long res;
	/* Work on it until it waited, and after that */
	u64 submit_ns;
	u64 finish_ns;
	refcount_t ref;
	struct work_struct work;
	struct bio_vec *bvecs;
	struct efuse_block *blocks[];
};

static void efuse_fill_put(struct efuse_fill *f)
{
	if (refcount_dec_and_test(&f->ref))
		kvfree(f);
}

/* Gives everything back but the structure. */
static void efuse_fill_release(struct efuse_fill *f)
{
	if (f->pinned && f->nr_pages)
		unpin_user_pages(f->pages, f->nr_pages);
	f->nr_pages = 0;
	efuse_blocks_free(&f->ec->cache, f->blocks, f->n);
	f->n = 0;
}

static loff_t efuse_fill_start(const struct efuse_fill *f)
{
	return round_down(f->pos, PAGE_SIZE);
}

/* Bytes of what was asked for among the first @res that were read. */
static size_t efuse_fill_have(const struct efuse_fill *f, ssize_t res)
{
	size_t skip = f->pos - efuse_fill_start(f);

	return res > (ssize_t)skip ? min_t(size_t, f->count, res - skip) : 0;
}

static void efuse_fill_keep(struct efuse_fill *f, ssize_t res)
{
	size_t asked = (size_t)f->n << PAGE_SHIFT;
	bool at_end = res < asked;

	/* A file may have been read short, and a daemon may reply short */
	if (at_end)
		at_end = efuse_fill_start(f) + res ==
			 i_size_read(file_inode(f->iocb.ki_filp));
	efuse_fill_end(&f->ec->cache, f->ic, f->blocks, f->n, res, at_end,
		       f->all_seq);
}

/* Copies to the pages of a caller that does not wait. */
static size_t efuse_fill_copy(struct efuse_fill *f, ssize_t res)
{
	size_t have = efuse_fill_have(f, res);
	size_t from = offset_in_page(f->pos);
	size_t to = f->page_offset;
	size_t done = 0;

	while (done < have) {
		size_t n = min3(have - done, PAGE_SIZE - offset_in_page(from),
				PAGE_SIZE - offset_in_page(to));

		memcpy_page(f->pages[to >> PAGE_SHIFT], offset_in_page(to),
			    f->blocks[from >> PAGE_SHIFT]->page,
			    offset_in_page(from), n);
		done += n;
		from += n;
		to += n;
	}
	return done;
}

static bool efuse_fill_pages_dirty(const struct efuse_fill *f)
{
	unsigned int i;

	for (i = 0; f->pinned && i < f->nr_pages; i++)
		if (!PageDirty(f->pages[i]))
			return false;
	return true;
}

static void efuse_fill_dirty(struct efuse_fill *f)
{
	unsigned int i;

	for (i = 0; f->pinned && i < f->nr_pages; i++)
		if (!PageDirty(f->pages[i]))
			set_page_dirty_lock(f->pages[i]);
}

static u32 efuse_fill_path(const struct efuse_fill *f)
{
	return f->backed ? EFUSE_IO_BACKING : EFUSE_IO_DAEMON;
}

/* The caller's request has ended, with @res for its caller. */
static void efuse_fill_done(struct efuse_fill *f, ssize_t res)
{
	efuse_fill_release(f);
	if (res > 0)
		f->orig->ki_pos = f->pos + res;
	f->io.reason = EFUSE_IO_MISS;
	if (READ_ONCE(f->submit_ns))
		f->io.busy_ns = READ_ONCE(f->submit_ns) + f->finish_ns;
	efuse_io_end(f->ec, &f->io, false, efuse_fill_path(f), res, f->began);
}

static void efuse_fill_complete(struct efuse_fill *f)
{
	struct kiocb *orig = f->orig;
	long res = f->res;

	efuse_fill_done(f, res);
	efuse_fill_put(f);
	orig->ki_complete(orig, res);
}

static void efuse_fill_dirty_work(struct work_struct *work)
{
	struct efuse_fill *f = container_of(work, struct efuse_fill, work);

	efuse_fill_dirty(f);
	efuse_fill_complete(f);
}

static void efuse_fill_finish(struct efuse_fill *f)
{
	u64 from = f->began ? ktime_get_ns() : 0;

	if (f->res > 0) {
		efuse_fill_keep(f, f->res);
		f->res = efuse_fill_copy(f, f->res);
	}
	if (from)
		f->finish_ns = ktime_get_ns() - from;
	/* Which sleeps, and a block device may end requests where it may not */
	if (!efuse_fill_pages_dirty(f)) {
		INIT_WORK(&f->work, efuse_fill_dirty_work);
		queue_work(efuse_data_wq, &f->work);
		return;
	}
	efuse_fill_complete(f);
}

static void efuse_fill_work(struct work_struct *work)
{
	efuse_fill_finish(container_of(work, struct efuse_fill, work));
}

static void efuse_fill_read_done(struct kiocb *iocb, long res)
{
	struct efuse_fill *f = container_of(iocb, struct efuse_fill, iocb);

	f->res = res;
	if (f->n > EFUSE_FILL_INTERRUPT && !in_task()) {
		INIT_WORK(&f->work, efuse_fill_work);
		queue_work(efuse_data_wq, &f->work);
		return;
	}
	efuse_fill_finish(f);
}

/* Holds the pages of a caller that does not wait; @to is behind them then. */
static bool efuse_fill_hold(struct efuse_fill *f, struct iov_iter *to,
			    unsigned int max)
{
	size_t got = 0;

	f->pinned = iov_iter_extract_will_pin(to);
	while (got < f->count) {
		struct page **pages = f->pages + f->nr_pages;
		size_t offset;
		ssize_t n;

		if (f->nr_pages == max)
			break;
		n = iov_iter_extract_pages(to, &pages, f->count - got,
					   max - f->nr_pages, 0, &offset);
		if (n <= 0)
			break;
		if (!got)
			f->page_offset = offset;
		f->nr_pages += DIV_ROUND_UP(offset + n, PAGE_SIZE);
		got += n;
	}
	if (got < f->count) {
		iov_iter_revert(to, got);
		return false;
	}
	efuse_fill_dirty(f);
	return true;
}

static ssize_t efuse_fill_submit(struct efuse_fill *f, struct fuse_file *ff)
{
	const struct cred *old;
	struct iov_iter iter;
	unsigned int i;
	ssize_t ret;

	for (i = 0; i < f->n; i++)
		bvec_set_page(&f->bvecs[i], f->blocks[i]->page, PAGE_SIZE, 0);
	iov_iter_bvec(&iter, ITER_DEST, f->bvecs, f->n,
		      (size_t)f->n << PAGE_SHIFT);
	if (!f->backed)
		return fuse_direct_read_iter(&f->iocb, &iter);
	old = override_creds(ff->cred);
	ret = vfs_iocb_iter_read(f->iocb.ki_filp, &f->iocb, &iter);
	revert_creds(old);
	return ret;
}

/*
 * Reads through the cache what is not in it. False if that cannot be done, and
 * another way is to be taken; else the result is in @ret.
 */
bool efuse_fill_read(struct efuse_conn *ec, struct efuse_icache *ic,
		     struct kiocb *iocb, struct iov_iter *to,
		     const struct efuse_io *io, u64 began, bool backed,
		     ssize_t *ret)
{
	struct file *file = iocb->ki_filp;
	struct fuse_file *ff = file->private_data;
	size_t count = iov_iter_count(to);
	loff_t start = round_down(iocb->ki_pos, PAGE_SIZE);
	loff_t end = round_up(iocb->ki_pos + count, PAGE_SIZE);
	bool wait = is_sync_kiocb(iocb);
	unsigned int max = 0;
	struct efuse_fill *f;
	unsigned int i, n;
	ssize_t res;
	u32 all_seq;

	if (count > (EFUSE_FILL_MAX - 1) << PAGE_SHIFT || end < start)
		return false;
	/* A daemon's reply may end ahead of what was asked for, see below */
	if (!backed && !wait && iocb->ki_pos != start)
		return false;
	n = (end - start) >> PAGE_SHIFT;
	if (!efuse_fill_begin(ic, start >> PAGE_SHIFT, n, &all_seq))
		return false;
	if (!wait) {
		/* In pieces they would begin anywhere in their pages */
		if ((!user_backed_iter(to) && !iov_iter_is_bvec(to)) ||
		    iov_iter_single_seg_count(to) != count)
			return false;
		max = n + 1;
	}
	f = kvmalloc(sizeof(*f) + n * sizeof(f->blocks[0]) +
		     n * sizeof(*f->bvecs) + max * sizeof(*f->pages),
		     GFP_KERNEL | __GFP_NOWARN);
	if (!f)
		return false;
	memset(f, 0, sizeof(*f));
	f->bvecs = (void *)&f->blocks[n];
	f->pages = (void *)&f->bvecs[n];
	f->ec = ec;
	f->ic = ic;
	f->orig = iocb;
	f->io = *io;
	f->began = began;
	f->pos = iocb->ki_pos;
	f->count = count;
	f->backed = backed;
	f->all_seq = all_seq;
	refcount_set(&f->ref, wait ? 1 : 2);
	if (!efuse_blocks_alloc(&ec->cache, ic, start >> PAGE_SHIFT, f->blocks,
				n)) {
		kvfree(f);
		return false;
	}
	f->n = n;
	if (!wait && !efuse_fill_hold(f, to, max)) {
		efuse_fill_release(f);
		kvfree(f);
		return false;
	}
	kiocb_clone(&f->iocb, iocb, backed ? fuse_file_passthrough(ff) : file);
	f->iocb.ki_pos = start;
	f->iocb.ki_flags &= ~IOCB_DIO_CALLER_COMP;
	if (!wait)
		f->iocb.ki_complete = efuse_fill_read_done;

	res = efuse_fill_submit(f, ff);
	if (wait) {
		size_t have, from, done = 0;

		if (res < 0) {
			efuse_fill_release(f);
			efuse_fill_put(f);
			*ret = res;
			return true;
		}
		efuse_fill_keep(f, res);
		have = efuse_fill_have(f, res);
		if (!backed && res && !have) {
			/* No end of file: its reply is short */
			efuse_fill_release(f);
			efuse_fill_put(f);
			return false;
		}
		from = offset_in_page(f->pos);
		for (i = 0; i < n && done < have; i++) {
			size_t want = min(have - done, PAGE_SIZE - from);
			size_t got = copy_page_to_iter(f->blocks[i]->page, from,
						       want, to);

			done += got;
			from = 0;
			if (got < want)
				break;
		}
		*ret = !done && have ? -EFAULT : done;
		efuse_fill_done(f, *ret);
		efuse_fill_put(f);
		return true;
	}

	*ret = res;
	if (res >= 0) {
		efuse_fill_keep(f, res);
		*ret = efuse_fill_copy(f, res);
		efuse_fill_dirty(f);
	}
	if (began)
		WRITE_ONCE(f->submit_ns, ktime_get_ns() - began);
	if (res >= 0) {
		efuse_fill_done(f, *ret);
		efuse_fill_put(f);
	} else if (res != -EIOCBQUEUED) {
		iov_iter_revert(to, count);
		efuse_fill_release(f);
		efuse_fill_put(f);
	}
	efuse_fill_put(f);
	return true;
}

/*
 * Copies a write into new blocks, if some of those it changes are in the cache.
 * NULL if they are not, or it cannot be done; @from is then as it was.
 */
struct efuse_bounce *efuse_bounce_write(struct efuse_conn *ec,
					struct efuse_icache *ic, loff_t pos,
					struct iov_iter *from)
{
	size_t count = iov_iter_count(from);
	unsigned int n = count >> PAGE_SHIFT;
	pgoff_t first = pos >> PAGE_SHIFT;
	struct efuse_bounce *bounce;
	unsigned int i;

	if (!n || offset_in_page(pos | count) ||
	    n > min_t(unsigned int, EFUSE_BOUNCE_MAX, efuse_write_most(ic)) ||
	    !efuse_cache_holds(ic, first, first + n - 1))
		return NULL;
	bounce = kmalloc(sizeof(*bounce), GFP_KERNEL | __GFP_NOWARN);
	if (!bounce)
		return NULL;
	if (!efuse_blocks_alloc(&ec->cache, ic, first, bounce->blocks, n)) {
		kfree(bounce);
		return NULL;
	}
	bounce->n = n;
	bounce->cache = &ec->cache;
	for (i = 0; i < n; i++) {
		struct page *page = bounce->blocks[i]->page;

		if (copy_page_from_iter(page, 0, PAGE_SIZE, from) !=
		    PAGE_SIZE) {
			iov_iter_revert(from, count - iov_iter_count(from));
			efuse_bounce_free(bounce);
			return NULL;
		}
		bvec_set_page(&bounce->bvecs[i], page, PAGE_SIZE, 0);
	}
	iov_iter_bvec(&bounce->iter, ITER_SOURCE, bounce->bvecs, n, count);
	return bounce;
}

void efuse_bounce_free(struct efuse_bounce *bounce)
{
	efuse_blocks_free(bounce->cache, bounce->blocks, bounce->n);
	kfree(bounce);
}
