// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: pages of the page cache that are filled from the cache of data.
 *
 * Buffered reads and mappings find their data in the page cache first. What is not
 * there would be asked of the daemon; a program may choose the cache for it, flagged
 * EFUSE_IO_PAGES, and what the daemon then has to be asked for goes into the cache as
 * well. Files with a backing file have no pages here.
 *
 * A block holds what the daemon would reply, never what only a page has: a page that
 * is to be written is written by requests, and these take blocks away as any do. So a
 * page that is filled from a block is no older than one that the daemon filled, as
 * long as whoever drops pages because of a change has taken away the blocks before.
 *
 * Locks: none of ours. The pages are locked and not yet valid, so that nobody sees or
 * maps them meanwhile; all this happens in process context.
 */
#include "efuse_i.h"

#include <linux/bvec.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/uio.h>

/* Of a request of the daemon: where its reply is kept, too. */
struct efuse_pages {
	struct efuse_icache *ic;
	struct efuse_io io;
	u64 began;
	u32 all_seq;
	unsigned int n;
	struct efuse_block *blocks[];
};

/* Whether all of it was there. Bytes up to the end of the file in @bytes. */
static bool efuse_pages_copy(struct efuse_conn *ec, struct efuse_icache *ic,
			     struct fuse_args_pages *ap, loff_t pos,
			     size_t *bytes)
{
	pgoff_t first = pos >> PAGE_SHIFT;
	unsigned int i;

	*bytes = 0;
	/* What then has to be asked for in one piece would be copied in vain */
	if (!efuse_cache_has(ic, first + 1, first + ap->num_pages - 1))
		return false;
	for (i = 0; i < ap->num_pages; i++) {
		struct bio_vec bvec;
		struct iov_iter iter;
		ssize_t got;

		bvec_set_page(&bvec, ap->pages[i], PAGE_SIZE, 0);
		iov_iter_bvec(&iter, ITER_DEST, &bvec, 1, PAGE_SIZE);
		got = efuse_cache_read(&ec->cache, ic,
				       pos + ((loff_t)i << PAGE_SHIFT), &iter);
		if (got < 0)
			return false;
		*bytes += got;
		if (got < PAGE_SIZE)
			break;
	}
	/* The file ends there */
	if (i < ap->num_pages)
		zero_user_segment(ap->pages[i], offset_in_page(*bytes),
				  PAGE_SIZE);
	while (++i < ap->num_pages)
		zero_user_segment(ap->pages[i], 0, PAGE_SIZE);
	return true;
}

/* Blocks for what the daemon will reply. Without them it is not kept. */
static void efuse_pages_begin(struct efuse_conn *ec, struct efuse_icache *ic,
			      struct fuse_args_pages *ap, loff_t pos,
			      const struct efuse_io *io, u64 began)
{
	unsigned int n = ap->num_pages;
	pgoff_t first = pos >> PAGE_SHIFT;
	struct efuse_pages *p;
	u32 all_seq;

	if (!efuse_fill_begin(ic, first, n, &all_seq))
		return;
	p = kmalloc(struct_size(p, blocks, n), GFP_KERNEL | __GFP_NOWARN);
	if (!p)
		return;
	if (!efuse_blocks_alloc(&ec->cache, ic, first, p->blocks, n)) {
		kfree(p);
		return;
	}
	p->ic = ic;
	p->io = *io;
	p->began = began;
	p->all_seq = all_seq;
	p->n = n;
	ap->args.efuse.pages = p;
}

bool __efuse_fill_pages(struct efuse_conn *ec, struct fuse_file *ff,
			struct fuse_args_pages *ap, loff_t pos, size_t count)
{
	struct inode *inode = ap->pages[0]->mapping->host;
	struct efuse_io io = {
		.nodeid = ff->nodeid,
		.offset = pos,
		.size = count,
		.file_size = i_size_read(inode),
		.cache_bytes = READ_ONCE(ec->cache.budget),
		.flags = EFUSE_IO_PAGES,
	};
	struct efuse_icache *ic;
	size_t bytes;
	u64 began = 0;
	int choice;

	if (!rcu_access_pointer(ec->ops) || !io.cache_bytes ||
	    fuse_file_passthrough(ff) ||
	    count != (size_t)ap->num_pages << PAGE_SHIFT)
		return false;
	choice = efuse_ask_program(ec, &io, false);
	if (choice < 0 || (choice & EFUSE_IO_PATH) != EFUSE_IO_CACHE)
		return false;
	ic = efuse_icache_make(&ec->cache, inode);
	if (!ic)
		return false;
	if (choice & EFUSE_IO_TELL)
		began = ktime_get_ns();
	if (!efuse_pages_copy(ec, ic, ap, pos, &bytes)) {
		efuse_pages_begin(ec, ic, ap, pos, &io, began);
		return false;
	}
	ap->args.out_args[0].size = bytes;
	efuse_io_end(ec, &io, false, EFUSE_IO_CACHE, bytes, began);
	return true;
}

void __efuse_pages_filled(struct fuse_mount *fm, struct fuse_args_pages *ap,
			  ssize_t res)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);
	struct efuse_pages *p = ap->args.efuse.pages;
	size_t left = res > 0 ? res : 0;
	unsigned int i;

	ap->args.efuse.pages = NULL;
	for (i = 0; i < p->n && left; i++) {
		size_t len = min_t(size_t, left, PAGE_SIZE);

		memcpy_page(p->blocks[i]->page, 0, ap->pages[i], 0, len);
		left -= len;
	}
	if (res > 0) {
		loff_t end = ((loff_t)p->blocks[0]->index << PAGE_SHIFT) + res;

		/* A short reply may be no more than that */
		efuse_fill_end(&ec->cache, p->ic, p->blocks, p->n, res,
			       end == i_size_read(&p->ic->fi->inode),
			       p->all_seq);
	}
	efuse_blocks_free(&ec->cache, p->blocks, p->n);
	p->io.reason = EFUSE_IO_MISS;
	efuse_io_end(ec, &p->io, false, EFUSE_IO_DAEMON, res, p->began);
	kfree(p);
}
