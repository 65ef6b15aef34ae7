/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: the hooks that fs/fuse calls. On a connection that never had a program
 * each costs one load and one branch that is not taken.
 */
#ifndef _EFUSE_HOOKS_H
#define _EFUSE_HOOKS_H

bool __efuse_before(struct efuse_conn *ec, struct fuse_mount *fm,
		    struct fuse_args *args, ssize_t *ret);
void __efuse_before_background(struct efuse_conn *ec, struct fuse_mount *fm,
			       struct fuse_args *args);
void __efuse_after(struct efuse_conn *ec, struct fuse_mount *fm,
		   struct fuse_args *args, ssize_t ret);
void __efuse_lookup_done(struct fuse_args *args, struct inode *inode);
void __efuse_attr_answered(struct inode *inode, const struct fuse_args *args,
			   const struct fuse_attr *attr);
bool __efuse_attr_kept(struct inode *inode, u64 seq);
bool __efuse_entry_kept(struct dentry *entry, u64 seq);
void __efuse_attr_changed(struct efuse_conn *ec, u64 nodeid, u32 mask);
void __efuse_node_changed(struct efuse_conn *ec, u64 nodeid);
void __efuse_node_evicted(struct efuse_conn *ec, u64 nodeid);
void __efuse_entry_changed(struct efuse_conn *ec, u64 parent, u64 child,
			   const struct qstr *name);
void __efuse_all_changed(struct efuse_conn *ec);
void efuse_conn_gone(struct fuse_conn *fc);
void efuse_conn_free(struct fuse_conn *fc);
int __efuse_read_iter(struct efuse_conn *ec, struct kiocb *iocb,
		      struct iov_iter *to, ssize_t *ret);
int __efuse_write_iter(struct efuse_conn *ec, struct kiocb *iocb,
		       struct iov_iter *from, ssize_t *ret);
bool __efuse_has_data(struct efuse_conn *ec);
bool __efuse_fill_pages(struct efuse_conn *ec, struct fuse_file *ff,
			struct fuse_args_pages *ap, loff_t pos, size_t count);
void __efuse_pages_filled(struct fuse_mount *fm, struct fuse_args_pages *ap,
			  ssize_t res);
void __efuse_data_changed(struct efuse_icache *ic);
void __efuse_inode_gone(struct fuse_inode *fi);
void __efuse_opened(struct efuse_conn *ec, struct efuse_icache *ic);

extern const struct file_operations efuse_ctl_ops;

/* Set once in a connection's life and freed with it. */
static inline struct efuse_conn *efuse_conn(struct fuse_conn *fc)
{
	/* Pairs with the release where programs are attached first */
	return smp_load_acquire(&fc->efuse);
}

/*
 * Before a synchronous request is allocated. True if a program has answered it,
 * with the request's result in @ret.
 */
static inline bool efuse_before(struct fuse_mount *fm, struct fuse_args *args,
				ssize_t *ret)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);

	return ec && __efuse_before(ec, fm, args, ret);
}

/* Before an asynchronous request is allocated. */
static inline void efuse_before_background(struct fuse_mount *fm,
					   struct fuse_args *args)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);

	if (ec)
		__efuse_before_background(ec, fm, args);
}

/*
 * A request has ended, with @ret as its result, or was not sent at all. Its
 * arguments are still there. May be called twice, the second does nothing.
 */
static inline void efuse_after(struct fuse_mount *fm, struct fuse_args *args,
			       ssize_t ret)
{
	struct efuse_conn *ec = efuse_conn(fm->fc);

	if (ec)
		__efuse_after(ec, fm, args, ret);
}

/*
 * The same for a LOOKUP, ahead of what is only needed if the daemon is asked.
 * The request then does not ask the program again.
 */
static inline bool efuse_lookup_asked(struct fuse_mount *fm,
				      struct fuse_args *args, int *err)
{
	ssize_t ret;

	if (!efuse_before(fm, args, &ret))
		return false;
	*err = ret;
	return true;
}

/* Whether a program and not the daemon gave the reply to a LOOKUP. */
static inline bool efuse_lookup_answered(const struct fuse_args *args)
{
	return args->efuse.inode;
}

/*
 * A LOOKUP has been dealt with. @inode is the one whose nlookup was raised for
 * it, NULL if none was. Must be called once for each LOOKUP that succeeded.
 */
static inline void efuse_lookup_done(struct fuse_args *args,
				     struct inode *inode)
{
	if (args->efuse.inode)
		__efuse_lookup_done(args, inode);
}

/*
 * What a FORGET may take back: lookups that the daemon itself has granted.
 * Those that programs answered are in nlookup as well, as for any reply.
 */
static inline u64 efuse_forget_count(const struct fuse_inode *fi)
{
	return fi->nlookup - min(fi->nlookup, fi->efuse_nlookup);
}

/* @attr, which a program may have answered with, went into @inode. */
static inline void efuse_attr_answered(struct inode *inode,
				       const struct fuse_args *args,
				       const struct fuse_attr *attr)
{
	if (args->efuse.attr_seq)
		__efuse_attr_answered(inode, args, attr);
}

/* Other attributes go into an inode. Under fi->lock. */
static inline void efuse_attr_replaced(struct fuse_inode *fi)
{
	WRITE_ONCE(fi->efuse_attr_seq, 0);
}

/*
 * When a program learnt what it answered about the name, in the dentry of it; 0 if
 * it was not asked. Dentries of fuse use d_time for nothing else.
 */
static inline void efuse_entry_answered(struct dentry *entry, u64 seq)
{
	if (IS_ENABLED(CONFIG_64BIT))
		WRITE_ONCE(entry->d_time, seq);
}

/* Whether a dentry that has no time may be found again as long as nothing changes. */
static inline bool efuse_entry_worth_keeping(const struct dentry *entry)
{
	return READ_ONCE(entry->d_time);
}

/* Whether a program would answer with what @entry says. */
static inline bool efuse_entry_kept(struct dentry *entry)
{
	u64 seq = READ_ONCE(entry->d_time);

	return IS_ENABLED(CONFIG_64BIT) && seq && __efuse_entry_kept(entry, seq);
}

/* Whether the attributes in @inode are what a program would answer with. */
static inline bool efuse_attr_kept(struct inode *inode)
{
	u64 seq = READ_ONCE(get_fuse_inode(inode)->efuse_attr_seq);

	return seq && __efuse_attr_kept(inode, seq);
}

/* Attributes in @mask (STATX_*) are not what they were. */
static inline void efuse_attr_changed(struct inode *inode, u32 mask)
{
	struct efuse_conn *ec = efuse_conn(get_fuse_conn(inode));

	if (ec)
		__efuse_attr_changed(ec, get_node_id(inode), mask);
}

/* The daemon says that a node is not what it was. */
static inline void efuse_node_changed(struct fuse_conn *fc, u64 nodeid)
{
	struct efuse_conn *ec = efuse_conn(fc);

	if (ec)
		__efuse_node_changed(ec, nodeid);
}

/* An inode goes; from the FORGET on its node id may mean another file. */
static inline void efuse_node_evicted(struct fuse_conn *fc, u64 nodeid)
{
	struct efuse_conn *ec = efuse_conn(fc);

	if (ec)
		__efuse_node_evicted(ec, nodeid);
}

/* The daemon says that a name is not what it was; @child may be 0. */
static inline void efuse_entry_changed(struct fuse_conn *fc, u64 parent,
				       u64 child, const struct qstr *name)
{
	struct efuse_conn *ec = efuse_conn(fc);

	if (ec)
		__efuse_entry_changed(ec, parent, child, name);
}

/* Who does a read or write of data, as the functions below say */
enum {
	/* Whoever would without eFUSE */
	EFUSE_AS_USUAL,
	/* It is done or under way, with its result in @ret */
	EFUSE_DONE,
	/* The daemon, past the page cache */
	EFUSE_ASK_DAEMON,
};

/* A read or write of an open file, before anything else is done about it. */
static inline int efuse_read_iter(struct kiocb *iocb, struct iov_iter *to,
				  ssize_t *ret)
{
	struct fuse_file *ff = iocb->ki_filp->private_data;
	struct efuse_conn *ec = efuse_conn(ff->fm->fc);

	return ec ? __efuse_read_iter(ec, iocb, to, ret) : EFUSE_AS_USUAL;
}

static inline int efuse_write_iter(struct kiocb *iocb, struct iov_iter *from,
				   ssize_t *ret)
{
	struct fuse_file *ff = iocb->ki_filp->private_data;
	struct efuse_conn *ec = efuse_conn(ff->fm->fc);

	return ec ? __efuse_write_iter(ec, iocb, from, ret) : EFUSE_AS_USUAL;
}

/*
 * Whether programs choose paths for data, so that splicing to and from files with
 * a backing file is to be done by reading and writing them.
 */
static inline bool efuse_has_data(const struct fuse_file *ff)
{
	struct efuse_conn *ec = efuse_conn(ff->fm->fc);

	return ec && __efuse_has_data(ec);
}

/*
 * Locked pages are to be filled by a READ of @count bytes whose arguments are there.
 * True if it is done, as by a reply of out_args[0].size bytes. Otherwise the daemon
 * is asked, and efuse_pages_filled() is called with what came of that, before others
 * see the pages.
 */
static inline bool efuse_fill_pages(struct fuse_file *ff,
				    struct fuse_args_pages *ap, loff_t pos,
				    size_t count)
{
	struct efuse_conn *ec = efuse_conn(ff->fm->fc);

	return ec && __efuse_fill_pages(ec, ff, ap, pos, count);
}

/* The daemon's reply to that: bytes, or a negative error. */
static inline void efuse_pages_filled(struct fuse_mount *fm,
				      struct fuse_args_pages *ap, ssize_t res)
{
	if (ap->args.efuse.pages)
		__efuse_pages_filled(fm, ap, res);
}

/* The cache's part of an inode, NULL if there never was one. */
static inline struct efuse_icache *efuse_icache(struct inode *inode)
{
	/* Pairs with the exchange in efuse_icache_make() */
	return smp_load_acquire(&get_fuse_inode(inode)->efuse_cache);
}

/* All data of an inode may be others from now on. */
static inline void efuse_data_changed(struct inode *inode)
{
	struct efuse_icache *ic = efuse_icache(inode);

	if (ic)
		__efuse_data_changed(ic);
}

/*
 * The daemon's attributes say that the data of an inode are others, ahead of what
 * that does to pages, which are filled from the cache. Data of a backing file are read
 * there, and its times change with every write of ours.
 */
static inline void efuse_data_outdated(struct inode *inode)
{
	if (!fuse_inode_backing(get_fuse_inode(inode)))
		efuse_data_changed(inode);
}

/* A file was opened, and its page cache is not to be kept. */
static inline void efuse_opened(struct inode *inode)
{
	struct efuse_icache *ic = efuse_icache(inode);

	if (ic)
		__efuse_opened(efuse_conn(get_fuse_conn(inode)), ic);
}

/* Before a backing file is mapped. Stores to the mapping are seen by nobody. */
static inline void efuse_mapped(struct inode *inode, unsigned long vm_flags)
{
	if ((vm_flags & (VM_SHARED | VM_MAYWRITE)) != (VM_SHARED | VM_MAYWRITE))
		return;
	WRITE_ONCE(get_fuse_inode(inode)->efuse_mapped, true);
	/* Before what is cached goes, with all that looks there */
	smp_mb();
	efuse_data_changed(inode);
}

/* An inode leaves memory. */
static inline void efuse_inode_gone(struct fuse_inode *fi)
{
	if (fi->efuse_cache)
		__efuse_inode_gone(fi);
}

/*
 * Rings, see ring.c. The copying is dev.c's: arguments of a request, and a reply
 * of @nbytes behind its header, to and from pieces of the kernel's memory.
 */
extern const struct fuse_iqueue_ops efuse_ring_ops;

int efuse_copy_args(struct fuse_req *req, const struct kvec *kvec,
		    unsigned int nr);
int efuse_copy_reply(struct fuse_req *req, const struct kvec *kvec,
		     unsigned int nr, unsigned int nbytes);
bool __efuse_ring_cancel(struct fuse_req *req);
void __efuse_ring_poll(struct fuse_req *req);
void __efuse_ring_abort(struct fuse_conn *fc, struct list_head *to_end);
long efuse_ring_ioctl(struct fuse_dev *fud, unsigned int cmd,
		      void __user *argp);
int efuse_ring_mmap(struct fuse_dev *fud, struct vm_area_struct *vma);

/* Figures of the channels, and room that they take at most */
size_t efuse_ring_show(struct fuse_conn *fc, char *buf, size_t size);
size_t efuse_ring_show_size(struct fuse_conn *fc);

static inline bool efuse_has_ring(struct fuse_conn *fc)
{
	/* Pairs with the release where rings are made */
	return smp_load_acquire(&fc->iq.ops) == &efuse_ring_ops;
}

/* Take back a request that waits for room in a ring. False if it does not. */
static inline bool efuse_ring_cancel(struct fuse_req *req)
{
	return req->ring.ch && __efuse_ring_cancel(req);
}

/* Look for the reply of a request for a while; it may have ended afterwards. */
static inline void efuse_ring_poll(struct fuse_req *req)
{
	if (req->ring.polled)
		__efuse_ring_poll(req);
}

/* Move all requests in rings to @to_end, and let none in. Under fc->lock. */
static inline void efuse_ring_abort(struct fuse_conn *fc,
				    struct list_head *to_end)
{
	if (efuse_has_ring(fc))
		__efuse_ring_abort(fc, to_end);
}

#endif /* _EFUSE_HOOKS_H */
