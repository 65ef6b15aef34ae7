// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: data of regular files. A program chooses the path of reads and writes
 * (choose.c), then we do the I/O, after it has returned.
 *
 * The choice is made where the system call enters the file system, ahead of pages
 * and requests. It concerns files with a backing file (FOPEN_PASSTHROUGH): their
 * data are in the page cache of the file system below and nowhere else, so that
 * any mix of paths is coherent. The daemon's path past the page cache is mainline's
 * for direct I/O. Without a program for data such files behave as in mainline.
 *
 * A file without one that the daemon opened for direct I/O (FOPEN_DIRECT_IO) can be
 * read from the cache as well, as long as none of its pages are in the page cache.
 *
 * Whatever changes data is announced to the cache before and after it: writes to
 * backing files here, requests in efuse_request_begin() and _end(), and what only
 * the daemon or mainline's code knows of by efuse_data_changed().
 *
 * This does what mainline's backing_file_read_iter() and _write_iter() do, but for
 * - no question for privileges to clear: a file with suid or sgid is written by
 *   the daemon, and capabilities are cleared by the file system below;
 * - direct writes inside the file run side by side, as below;
 * - a write that ends in process context is completed there.
 *
 * Locks: inode->i_rwsem of ours is outside that of the file below. fi->lock is
 * taken in process context only. Completions of reads may run in interrupts.
 */
#include "efuse_i.h"

#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

/* One request that goes on after the system call. */
struct efuse_aio {
	/* The request to the file below */
	struct kiocb iocb;
	struct kiocb *orig;
	/* For the program after it, if @began is not 0 */
	struct efuse_io io;
	u64 began;
	long res;
	bool write;
	/* A write's: what it changes, and if not NULL where it is written from */
	struct efuse_write change;
	struct efuse_bounce *bounce;
	/* Who submitted and who completes */
	refcount_t ref;
	struct work_struct work;
};

static struct kmem_cache *efuse_aio_cache;
struct workqueue_struct *efuse_data_wq;

static struct efuse_conn *efuse_file_conn(const struct file *file)
{
	const struct fuse_file *ff = file->private_data;

	return efuse_conn(ff->fm->fc);
}

/* A write to the backing file has ended; @pos is behind what it wrote. */
static void efuse_write_done(struct file *file, struct efuse_write *change,
			     struct efuse_bounce *bounce, loff_t pos,
			     ssize_t res)
{
	struct inode *inode = file_inode(file);
	struct efuse_icache *ic = efuse_icache(inode);
	bool whole = bounce && res == (ssize_t)bounce->n << PAGE_SHIFT;

	fuse_write_update_attr(inode, pos, res);
	if (ic)
		efuse_write_end(ic, change, whole ? bounce->blocks : NULL);
	if (bounce)
		efuse_bounce_free(bounce);
}

static void efuse_aio_put(struct efuse_aio *aio)
{
	if (refcount_dec_and_test(&aio->ref))
		kmem_cache_free(efuse_aio_cache, aio);
}

/* What is left to do when the request below has ended, in whatever context. */
static void efuse_aio_end(struct efuse_aio *aio, long res)
{
	struct kiocb *orig = aio->orig;
	struct file *file = orig->ki_filp;

	orig->ki_pos = aio->iocb.ki_pos;
	if (aio->write)
		efuse_write_done(file, &aio->change, aio->bounce, orig->ki_pos,
				 res);
	efuse_io_end(efuse_file_conn(file), &aio->io, aio->write,
		     EFUSE_IO_BACKING, res, aio->began);
	efuse_aio_put(aio);
}

static void efuse_aio_complete(struct efuse_aio *aio, long res)
{
	struct kiocb *orig = aio->orig;

	efuse_aio_end(aio, res);
	orig->ki_complete(orig, res);
}

static void efuse_aio_read_done(struct kiocb *iocb, long res)
{
	efuse_aio_complete(container_of(iocb, struct efuse_aio, iocb), res);
}

static void efuse_aio_work(struct work_struct *work)
{
	struct efuse_aio *aio = container_of(work, struct efuse_aio, work);

	efuse_aio_complete(aio, aio->res);
}

static void efuse_aio_write_done(struct kiocb *iocb, long res)
{
	struct efuse_aio *aio = container_of(iocb, struct efuse_aio, iocb);

	kiocb_end_write(iocb);
	if (in_task()) {
		efuse_aio_complete(aio, res);
		return;
	}
	aio->res = res;
	INIT_WORK(&aio->work, efuse_aio_work);
	queue_work(efuse_data_wq, &aio->work);
}

/*
 * Reads or writes the backing file. The caller's request holds the open file, and
 * that the backing file, until the last of submission and completion.
 */
static ssize_t efuse_backing_io(struct kiocb *iocb, struct iov_iter *iter,
				struct efuse_io *io, bool write, u64 began,
				struct efuse_write *change,
				struct efuse_bounce *bounce)
{
	struct file *file = iocb->ki_filp;
	struct fuse_file *ff = file->private_data;
	struct file *backing = fuse_file_passthrough(ff);
	const struct cred *old;
	struct efuse_aio *aio;
	struct kiocb kio;
	ssize_t ret;

	if (is_sync_kiocb(iocb)) {
		kiocb_clone(&kio, iocb, backing);
		old = override_creds(ff->cred);
		ret = write ? vfs_iocb_iter_write(backing, &kio, iter) :
			      vfs_iocb_iter_read(backing, &kio, iter);
		revert_creds(old);
		if (write)
			efuse_write_done(file, change, bounce, kio.ki_pos, ret);
		if (ret < 0)
			return ret;
		iocb->ki_pos = kio.ki_pos;
		efuse_io_end(efuse_file_conn(file), io, write,
			     EFUSE_IO_BACKING, ret, began);
		return ret;
	}

	aio = kmem_cache_alloc(efuse_aio_cache, GFP_KERNEL);
	if (!aio) {
		if (write)
			efuse_write_done(file, change, bounce, iocb->ki_pos,
					 -ENOMEM);
		return -ENOMEM;
	}
	kiocb_clone(&aio->iocb, iocb, backing);
	/* The caller completes its own request, not one below */
	aio->iocb.ki_flags &= ~IOCB_DIO_CALLER_COMP;
	aio->iocb.ki_complete = write ? efuse_aio_write_done :
					efuse_aio_read_done;
	aio->orig = iocb;
	aio->write = write;
	if (write) {
		aio->change = *change;
		aio->bounce = bounce;
	}
	aio->io.reason = io->reason;
	aio->began = began;
	if (began)
		aio->io = *io;
	refcount_set(&aio->ref, 2);
	old = override_creds(ff->cred);
	ret = write ? vfs_iocb_iter_write(backing, &aio->iocb, iter) :
		      vfs_iocb_iter_read(backing, &aio->iocb, iter);
	revert_creds(old);
	if (began)
		/* Too late if it has ended already; then it is not known */
		WRITE_ONCE(aio->io.busy_ns, ktime_get_ns() - began);
	if (ret >= 0) {
		efuse_aio_end(aio, ret);
	} else if (ret != -EIOCBQUEUED) {
		if (write)
			efuse_write_done(file, &aio->change, bounce,
					 iocb->ki_pos, ret);
		efuse_aio_put(aio);
	}
	efuse_aio_put(aio);
	return ret;
}

/* Whether the daemon may do better, after nothing was done. */
static bool efuse_daemon_may_help(ssize_t err)
{
	switch (err) {
	case -EIO:
	case -EINVAL:
	case -ENOMEM:
	case -EOPNOTSUPP:
	case -EPERM:
	case -EACCES:
	case -EBADF:
	case -ESTALE:
		return true;
	default:
		return false;
	}
}

static int efuse_ask_daemon(struct efuse_conn *ec, bool write, u32 reason,
			    const struct iov_iter *iter)
{
	if (reason)
		this_cpu_inc(ec->io_stats->reasons[write][reason]);
	efuse_count(ec, write, EFUSE_IO_DAEMON, iov_iter_count(iter));
	return EFUSE_ASK_DAEMON;
}

/* Files whose data programs choose a path for. */
static bool efuse_data_file(const struct fuse_file *ff)
{
	/* FOPEN_DIRECT_IO as well: the daemon wants to see reads and writes */
	return fuse_file_passthrough((struct fuse_file *)ff) &&
	       !(ff->open_flags & FOPEN_DIRECT_IO);
}

bool __efuse_has_data(struct efuse_conn *ec)
{
	const struct efuse_ops *ops;
	bool has;

	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	has = ops && (ops->read || ops->write);
	rcu_read_unlock();
	return has;
}

/*
 * Whether a file without a backing file can be read from the cache: opened for
 * direct I/O, and with none of its data in the page cache or on the way from there.
 */
static bool efuse_cached_file(struct efuse_conn *ec, struct fuse_file *ff,
			      struct inode *inode)
{
	return READ_ONCE(ec->cache.budget) && !fuse_file_passthrough(ff) &&
	       (ff->open_flags & FOPEN_DIRECT_IO) &&
	       /* Of these what was read once cannot be read again */
	       !(ff->open_flags & (FOPEN_STREAM | FOPEN_NONSEEKABLE)) &&
	       !inode->i_mapping->nrpages &&
	       RB_EMPTY_ROOT(&get_fuse_inode(inode)->writepages);
}

/* A file of neither kind; programs that would choose get it counted. */
static int efuse_no_choice(struct efuse_conn *ec, bool write)
{
	const struct efuse_ops *ops;

	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	if (ops && (write ? ops->write : ops->read))
		this_cpu_inc(ec->io_stats->reasons[write][EFUSE_IO_NO_BACKING]);
	rcu_read_unlock();
	return EFUSE_AS_USUAL;
}

/* Reads from the cache, and into it what is not there. Whether it is done. */
static bool efuse_read_cached(struct efuse_conn *ec, struct kiocb *iocb,
			      struct iov_iter *to, struct efuse_io *io,
			      bool backed, u64 began, ssize_t *ret)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct efuse_icache *ic;

	io->reason = EFUSE_IO_UNFIT;
	/* What direct I/O would refuse below stays refused */
	if ((iocb->ki_flags & IOCB_DIRECT) &&
	    ((iocb->ki_pos | iov_iter_count(to)) & (SECTOR_SIZE - 1)))
		return false;
	if (!READ_ONCE(ec->cache.budget))
		return false;
	ic = efuse_icache_make(&ec->cache, inode);
	if (!ic)
		return false;
	*ret = efuse_cache_read(&ec->cache, ic, iocb->ki_pos, to);
	if (*ret >= 0 || *ret == -EFAULT) {
		io->reason = EFUSE_IO_AS_CHOSEN;
		if (*ret > 0)
			iocb->ki_pos += *ret;
		efuse_io_end(ec, io, false, EFUSE_IO_CACHE, *ret, began);
		return true;
	}
	if (!efuse_fill_read(ec, ic, iocb, to, io, began, backed, ret))
		return false;
	io->reason = EFUSE_IO_MISS;
	return true;
}

int __efuse_read_iter(struct efuse_conn *ec, struct kiocb *iocb,
		      struct iov_iter *to, ssize_t *ret)
{
	struct file *file = iocb->ki_filp;
	struct fuse_file *ff = file->private_data;
	size_t count = iov_iter_count(to);
	/* Below it may be cut short, so that reverting it would go too far */
	const struct iov_iter whole = *to;
	struct file *backing;
	struct efuse_io io;
	u64 began = 0;
	bool backed;
	int choice;
	u32 path;

	if (!rcu_access_pointer(ec->ops))
		return EFUSE_AS_USUAL;
	backed = efuse_data_file(ff);
	if (!backed && !efuse_cached_file(ec, ff, file_inode(file)))
		return efuse_no_choice(ec, false);
	choice = efuse_choose(ec, iocb, to, backed, false, &io);
	if (choice < 0)
		return EFUSE_AS_USUAL;
	path = choice & EFUSE_IO_PATH;
	if (path == EFUSE_IO_DAEMON)
		return efuse_ask_daemon(ec, false, 0, to);
	*ret = 0;
	if (!count)
		return EFUSE_DONE;
	if (backed) {
		backing = fuse_file_passthrough(ff);
		*ret = -EINVAL;
		if ((iocb->ki_flags & IOCB_DIRECT) &&
		    !(backing->f_mode & FMODE_CAN_ODIRECT))
			return EFUSE_DONE;
	}

	if (choice & EFUSE_IO_TELL)
		began = ktime_get_ns();
	if (path == EFUSE_IO_CACHE &&
	    efuse_read_cached(ec, iocb, to, &io, backed, began, ret)) {
		if (!io.reason)
			return EFUSE_DONE;
	} else if (!backed) {
		return efuse_ask_daemon(ec, false, io.reason ?:
					EFUSE_IO_NO_BACKING, to);
	} else {
		*ret = efuse_backing_io(iocb, to, &io, false, began, NULL,
					NULL);
	}
	if (efuse_daemon_may_help(*ret)) {
		*to = whole;
		return efuse_ask_daemon(ec, false, EFUSE_IO_ERROR, to);
	}
	fuse_invalidate_atime(file_inode(file));
	return EFUSE_DONE;
}

/* Direct writes that stay inside the file run side by side, as they do below. */
static bool efuse_write_lock(struct inode *inode, const struct kiocb *iocb,
			     size_t count, bool *shared)
{
	*shared = (iocb->ki_flags & (IOCB_DIRECT | IOCB_APPEND)) == IOCB_DIRECT &&
		  iocb->ki_pos + count <= i_size_read(inode);
	if (iocb->ki_flags & IOCB_NOWAIT)
		return *shared ? inode_trylock_shared(inode) :
				 inode_trylock(inode);
	if (*shared)
		inode_lock_shared(inode);
	else
		inode_lock(inode);
	return true;
}

int __efuse_write_iter(struct efuse_conn *ec, struct kiocb *iocb,
		       struct iov_iter *from, ssize_t *ret)
{
	struct file *file = iocb->ki_filp;
	struct fuse_file *ff = file->private_data;
	struct inode *inode = file_inode(file);
	struct efuse_bounce *bounce = NULL;
	size_t count = iov_iter_count(from);
	const struct iov_iter whole = *from;
	struct efuse_write change;
	struct efuse_icache *ic;
	struct efuse_io io;
	u64 began = 0;
	bool shared, set_id;
	int choice;

	if (!rcu_access_pointer(ec->ops))
		return EFUSE_AS_USUAL;
	/* Without a backing file writes go to the daemon, and take blocks away */
	if (!efuse_data_file(ff))
		return efuse_no_choice(ec, true);
	choice = efuse_choose(ec, iocb, from, true, true, &io);
	if (choice < 0)
		return EFUSE_AS_USUAL;
	/*
	 * Whether set-id bits go depends on the caller, of whom the file below sees
	 * nothing. A daemon that does not take them off is asked to by mainline.
	 */
	set_id = inode->i_mode & (S_ISUID | S_ISGID);
	if (unlikely(set_id) && !ff->fm->fc->handle_killpriv_v2)
		return EFUSE_AS_USUAL;
	if ((choice & EFUSE_IO_PATH) == EFUSE_IO_DAEMON)
		return efuse_ask_daemon(ec, true, 0, from);
	if (unlikely(set_id))
		return efuse_ask_daemon(ec, true, EFUSE_IO_SET_ID, from);
	*ret = 0;
	if (!count)
		return EFUSE_DONE;
	*ret = -EINVAL;
	if ((iocb->ki_flags & IOCB_DIRECT) &&
	    !(fuse_file_passthrough(ff)->f_mode & FMODE_CAN_ODIRECT))
		return EFUSE_DONE;

	if (choice & EFUSE_IO_TELL)
		began = ktime_get_ns();
	*ret = -EAGAIN;
	if (!efuse_write_lock(inode, iocb, count, &shared))
		return EFUSE_DONE;
	ic = efuse_icache(inode);
	if (ic && (choice & EFUSE_IO_PATH) == EFUSE_IO_CACHE && shared)
		bounce = efuse_bounce_write(ec, ic, iocb->ki_pos, from);
	efuse_write_begin(ic, iocb->ki_pos >> PAGE_SHIFT,
			  iocb->ki_flags & IOCB_APPEND ? EFUSE_NO_BLOCK :
			  (iocb->ki_pos + count - 1) >> PAGE_SHIFT,
			  (iocb->ki_flags & IOCB_APPEND) ||
			  iocb->ki_pos + count > i_size_read(inode), &change);
	*ret = efuse_backing_io(iocb, bounce ? &bounce->iter : from, &io, true,
				began, &change, bounce);
	if (shared)
		inode_unlock_shared(inode);
	else
		inode_unlock(inode);
	/* What was appended and could not be made safe is there already */
	if (*ret == -EIO && (iocb->ki_flags & IOCB_APPEND))
		return EFUSE_DONE;
	if (efuse_daemon_may_help(*ret)) {
		*from = whole;
		return efuse_ask_daemon(ec, true, EFUSE_IO_ERROR, from);
	}
	return EFUSE_DONE;
}

/*
 * What a request changes of a node's data, in blocks. All of it where that is not
 * told, or where the size changes, too.
 */
static bool efuse_request_changes(const struct fuse_args *args, u64 *nodeid,
				  u64 *offset, u64 *size)
{
	const void *in = args->in_args[0].value;

	*nodeid = args->nodeid;
	*offset = 0;
	*size = 0;
	switch (args->opcode) {
	case FUSE_WRITE:
		*offset = ((const struct fuse_write_in *)in)->offset;
		*size = ((const struct fuse_write_in *)in)->size;
		return *size;
	case FUSE_SETATTR:
		return ((const struct fuse_setattr_in *)in)->valid & FATTR_SIZE;
	case FUSE_OPEN:
		return ((const struct fuse_open_in *)in)->flags & O_TRUNC;
	case FUSE_COPY_FILE_RANGE:
		*nodeid = ((const struct fuse_copy_file_range_in *)
			   in)->nodeid_out;
		return true;
	case FUSE_FALLOCATE:
	case FUSE_IOCTL:
		return true;
	default:
		return false;
	}
}

/* The cache's part of a node, if there is any. Under rcu_read_lock(). */
static struct efuse_icache *efuse_node_cache(struct fuse_mount *fm, u64 nodeid,
					     loff_t *size)
{
	struct inode *inode = efuse_find_inode(fm, nodeid);

	if (!inode)
		return NULL;
	*size = i_size_read(inode);
	return efuse_icache(inode);
}

/*
 * A request begins. Who sends one that changes a node's data may hold another inode
 * than the one that now has the node's number, so that the cache's part is held.
 */
void efuse_request_begin(struct fuse_mount *fm, struct fuse_args *args)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);
	struct efuse_write *w = &args->efuse.write;
	struct efuse_icache *ic;
	u64 nodeid, offset, size;
	loff_t i_size = 0;

	w->open = false;
	if (!READ_ONCE(ec->cache.budget) ||
	    !efuse_request_changes(args, &nodeid, &offset, &size))
		return;
	rcu_read_lock();
	ic = efuse_node_cache(fm, nodeid, &i_size);
	if (ic && !refcount_inc_not_zero(&ic->ref))
		ic = NULL;
	efuse_write_begin(ic, offset >> PAGE_SHIFT,
			  size && offset + size <= i_size ?
			  (offset + size - 1) >> PAGE_SHIFT : EFUSE_NO_BLOCK,
			  !size || offset + size > i_size, w);
	rcu_read_unlock();
	w->open = true;
}

/* It has ended. @child: the node that it found or made, or 0. */
void efuse_request_end(struct fuse_mount *fm, struct fuse_args *args, u64 child)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);
	struct efuse_write *w = &args->efuse.write;
	struct efuse_icache *ic, *held;
	u64 nodeid, offset, size;
	loff_t i_size;
	bool changes;

	if (!w->open && !READ_ONCE(ec->cache.budget))
		return;
	changes = efuse_request_changes(args, &nodeid, &offset, &size);
	rcu_read_lock();
	if (w->open || changes) {
		held = w->open ? w->ic : NULL;
		ic = held ?: efuse_node_cache(fm, nodeid, &i_size);
		if (ic && w->open)
			efuse_write_end(ic, w, NULL);
		else if (ic)
			__efuse_data_changed(ic);
		if (held)
			efuse_icache_put(held);
		w->open = false;
	}
	/* It may have been there, and cut */
	if (child && args->opcode == FUSE_CREATE) {
		ic = efuse_node_cache(fm, child, &i_size);
		if (ic)
			__efuse_data_changed(ic);
	}
	rcu_read_unlock();
}

int efuse_data_init(void)
{
	efuse_aio_cache = KMEM_CACHE(efuse_aio, SLAB_HWCACHE_ALIGN);
	if (!efuse_aio_cache)
		return -ENOMEM;
	/* Writes wait for it, also those that free memory */
	efuse_data_wq = alloc_workqueue("efuse-data", WQ_MEM_RECLAIM, 0);
	if (!efuse_data_wq) {
		kmem_cache_destroy(efuse_aio_cache);
		return -ENOMEM;
	}
	return 0;
}

void efuse_data_exit(void)
{
	destroy_workqueue(efuse_data_wq);
	kmem_cache_destroy(efuse_aio_cache);
}
