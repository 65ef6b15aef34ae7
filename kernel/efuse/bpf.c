// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: the program type. A struct_ops type "efuse_ops", whose programs are
 * given a struct efuse_ctx and may call the functions below; neither is to be had
 * by programs of any other type.
 *
 * A set belongs to one connection, which its number "dev" names, and is there as
 * long as its link and the connection's mounts are. One connection has one set at
 * a time.
 *
 * Locks: the last unmount holds s_umount and calls the BPF core, which takes a
 * mutex of its own around its calls to us; inside that come efuse_attach_lock, then
 * fuse_mutex. ec->ops is changed under efuse_attach_lock and
 * read under RCU; the BPF core lets a grace period pass before it frees a set
 * that was taken off. fc->efuse is set once and lives as long as the connection.
 */
#define pr_fmt(fmt) "efuse: " fmt

#include "efuse_i.h"

#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/capability.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/tick.h>

/* A set of programs in its place. */
struct efuse_attachment {
	struct list_head entry;
	struct efuse_ops *ops;
	/* Not held: it calls efuse_ops_unreg() before it goes */
	struct bpf_link *link;
	/* Held */
	struct fuse_conn *fc;
};

static DEFINE_MUTEX(efuse_attach_lock);
static LIST_HEAD(efuse_attachments);

/* Our module's types, set once at registration, before any program loads. */
static const struct btf *efuse_btf;

BTF_ID_LIST(efuse_ctx_ids)
BTF_ID(struct, efuse_ctx)
BTF_ID(struct, efuse_io)
BTF_ID(struct, efuse_queue)

__bpf_kfunc_start_defs();

/**
 * bpf_efuse_read_arg - read an argument of the request
 * @req: the request
 * @index: which argument, as in the FUSE protocol: a structure first, then names
 * @offset: where to begin in it
 * @buf: what is read; filled up with zeroes
 * @buf__sz: its size
 *
 * Return: number of bytes read, or -EINVAL if there is no such argument.
 */
__bpf_kfunc int bpf_efuse_read_arg(struct efuse_ctx *req, u32 index, u32 offset,
				   void *buf, u32 buf__sz)
{
	return efuse_call_read_arg(efuse_call(req), index, offset, buf,
				   buf__sz);
}

/**
 * bpf_efuse_read_reply - read the daemon's reply, in a program that runs after it
 * @req: the request
 * @offset: where to begin in the reply
 * @buf: what is read; filled up with zeroes
 * @buf__sz: its size
 *
 * Return: number of bytes read, or -EINVAL if there is no reply to read.
 */
__bpf_kfunc int bpf_efuse_read_reply(struct efuse_ctx *req, u32 offset,
				     void *buf, u32 buf__sz)
{
	return efuse_call_read_reply(efuse_call(req), offset, buf, buf__sz);
}

/**
 * bpf_efuse_reply - write the reply, in a program that runs before the daemon
 * @req: the request
 * @data: the reply as the daemon would give it
 * @data__sz: its size: all of it where the protocol fixes it, else at most the
 *	room there is
 * @seq: when the program learnt what it answers; req->seq if just now
 * @attr_seq: LOOKUP: the same for the attributes in it
 *
 * Takes effect if the program then returns EFUSE_ANSWER.
 *
 * Return: 0, -ESTALE if something that the answer depends on has changed since
 * or is being changed, -ENOENT if the inode it names is not in memory, -EINVAL
 * if it is no valid reply, -EOPNOTSUPP if the request cannot be answered so.
 */
__bpf_kfunc int bpf_efuse_reply(struct efuse_ctx *req, const void *data,
				u32 data__sz, u64 seq, u64 attr_seq)
{
	return efuse_call_reply(efuse_call(req), data, data__sz, seq, attr_seq);
}

/**
 * bpf_efuse_reply_error - let the request fail, before the daemon is asked
 * @req: the request
 * @error: a negative error number, not -ENOSYS; 0 for ACCESS
 * @seq: when the program learnt it; req->seq if just now
 *
 * Takes effect if the program then returns EFUSE_ANSWER.
 *
 * Return: as bpf_efuse_reply().
 */
__bpf_kfunc int bpf_efuse_reply_error(struct efuse_ctx *req, int error, u64 seq)
{
	return efuse_call_error(efuse_call(req), error, seq);
}

/**
 * bpf_efuse_dirent - read an entry of a READDIRPLUS reply, after it
 * @req: the request
 * @offset: where the entry begins: 0, then ->next of the one before
 * @out: the entry; its node id is 0 if it has no attributes
 *
 * Return: 0, or -EINVAL if there is no (further) entry.
 */
__bpf_kfunc int bpf_efuse_dirent(struct efuse_ctx *req, u32 offset,
				 struct efuse_dirent *out)
{
	return efuse_call_dirent(efuse_call(req), offset, out);
}

/**
 * bpf_efuse_inode - what the kernel knows of a node
 * @req: the request
 * @nodeid: the node
 * @out: what is known
 *
 * Return: 0, or -ENOENT if its inode is not in memory.
 */
__bpf_kfunc int bpf_efuse_inode(struct efuse_ctx *req, u64 nodeid,
				struct efuse_inode_info *out)
{
	return efuse_call_inode(efuse_call(req), nodeid, out);
}

/**
 * bpf_efuse_queue_load - how much a ring channel has to do
 * @queue: the argument of select_queue
 * @channel: which channel
 * @out: its load
 *
 * Return: 0, or -EINVAL if there is no such channel.
 */
__bpf_kfunc int bpf_efuse_queue_load(struct efuse_queue *queue, u32 channel,
				     struct efuse_load *out)
{
	return efuse_queue_load(queue, channel, out);
}

/**
 * bpf_efuse_idle_ns - how long a processor has had nothing to do
 * @cpu: its number
 *
 * For a policy that has to know whether processors are what is short: the
 * difference of two calls, beside the time between them.
 *
 * Return: nanoseconds since some time in the past, waiting for I/O included; 0
 * where the kernel does not count it.
 */
__bpf_kfunc u64 bpf_efuse_idle_ns(u32 cpu)
{
	u64 idle, iowait;

	if (cpu >= nr_cpu_ids || !cpu_online(cpu))
		return 0;
	idle = get_cpu_idle_time_us(cpu, NULL);
	iowait = get_cpu_iowait_time_us(cpu, NULL);
	if (idle == -1ULL || iowait == -1ULL)
		return 0;
	return (idle + iowait) * NSEC_PER_USEC;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(efuse_kfunc_ids)
BTF_ID_FLAGS(func, bpf_efuse_read_arg, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_read_reply, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_reply, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_reply_error, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_dirent, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_inode, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_queue_load, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_efuse_idle_ns)
BTF_KFUNCS_END(efuse_kfunc_ids)

/* Other struct_ops types share the hook; only ours may call. */
static int efuse_kfunc_filter(const struct bpf_prog *prog, u32 kfunc_id)
{
	if (!btf_id_set8_contains(&efuse_kfunc_ids, kfunc_id))
		return 0;
	if (prog->type != BPF_PROG_TYPE_STRUCT_OPS ||
	    prog->aux->attach_btf != efuse_btf)
		return -EACCES;
	return 0;
}

static const struct btf_kfunc_id_set efuse_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &efuse_kfunc_ids,
	.filter = efuse_kfunc_filter,
};

static const struct bpf_func_proto *
efuse_get_func_proto(enum bpf_func_id func_id, const struct bpf_prog *prog)
{
	return bpf_base_func_proto(func_id, prog);
}

static bool efuse_is_valid_access(int off, int size, enum bpf_access_type type,
				  const struct bpf_prog *prog,
				  struct bpf_insn_access_aux *info)
{
	return bpf_tracing_btf_ctx_access(off, size, type, prog, info);
}

/* Only cookie may be written, and only whole. */
static int efuse_btf_struct_access(struct bpf_verifier_log *log,
				   const struct bpf_reg_state *reg, int off,
				   int size)
{
	int cookie;

	if (reg->btf == efuse_btf && reg->btf_id == efuse_ctx_ids[0]) {
		cookie = offsetof(struct efuse_ctx, cookie);
	} else if (reg->btf == efuse_btf && reg->btf_id == efuse_ctx_ids[1]) {
		cookie = offsetof(struct efuse_io, cookie);
	} else {
		bpf_log(log, "efuse: only struct efuse_ctx and efuse_io can be written\n");
		return -EACCES;
	}
	if (off != cookie || size != sizeof(u64)) {
		bpf_log(log, "efuse: of the argument only cookie can be written\n");
		return -EACCES;
	}
	return 0;
}

static const struct bpf_verifier_ops efuse_verifier_ops = {
	.get_func_proto = efuse_get_func_proto,
	.is_valid_access = efuse_is_valid_access,
	.btf_struct_access = efuse_btf_struct_access,
};

static int efuse_ops_init(struct btf *btf)
{
	const struct btf_type *t = btf_type_by_id(btf, efuse_ctx_ids[0]);

	/* Built against another kernel's types: better no programs than wrong ones */
	if (!t || !btf_type_is_struct(t) || t->size != sizeof(struct efuse_ctx))
		return -EINVAL;
	t = btf_type_by_id(btf, efuse_ctx_ids[1]);
	if (!t || !btf_type_is_struct(t) || t->size != sizeof(struct efuse_io))
		return -EINVAL;
	t = btf_type_by_id(btf, efuse_ctx_ids[2]);
	if (!t || !btf_type_is_struct(t) || t->size != sizeof(struct efuse_queue))
		return -EINVAL;
	efuse_btf = btf;
	return 0;
}

static int efuse_ops_check_member(const struct btf_type *t,
				  const struct btf_member *member,
				  const struct bpf_prog *prog)
{
	return prog->sleepable ? -EINVAL : 0;
}

/* Copies what is no program. 1 means done, 0 that the core goes on. */
static int efuse_ops_init_member(const struct btf_type *t,
				 const struct btf_member *member, void *kdata,
				 const void *udata)
{
	const struct efuse_ops *from = udata;
	struct efuse_ops *to = kdata;

	switch (__btf_member_bit_offset(t, member) / 8) {
	case offsetof(struct efuse_ops, dev):
		to->dev = from->dev;
		return 1;
	case offsetof(struct efuse_ops, flags):
		if (from->flags & ~EFUSE_OPS_FLAGS)
			return -EINVAL;
		to->flags = from->flags;
		return 1;
	case offsetof(struct efuse_ops, cache_bytes):
		to->cache_bytes = from->cache_bytes;
		return 1;
	case offsetof(struct efuse_ops, name):
		if (strnlen(from->name, sizeof(from->name)) ==
		    sizeof(from->name))
			return -E2BIG;
		memcpy(to->name, from->name, sizeof(to->name));
		return 1;
	}
	return 0;
}

static int efuse_ops_validate(void *kdata)
{
	return 0;
}

/* The connection of a mount with its tables, held. */
static struct fuse_conn *efuse_find_conn(u32 dev)
{
	struct fuse_conn *found = NULL;
	struct efuse_conn *ec;
	struct fuse_conn *fc;

	mutex_lock(&fuse_mutex);
	list_for_each_entry(fc, &fuse_conn_list, entry) {
		if (fc->dev == dev) {
			found = fuse_conn_get(fc);
			break;
		}
	}
	mutex_unlock(&fuse_mutex);
	if (!found)
		return ERR_PTR(-ENODEV);
	if (!READ_ONCE(found->connected)) {
		fuse_conn_put(found);
		return ERR_PTR(-ENODEV);
	}

	lockdep_assert_held(&efuse_attach_lock);
	if (!found->efuse) {
		ec = efuse_conn_alloc();
		if (!ec) {
			fuse_conn_put(found);
			return ERR_PTR(-ENOMEM);
		}
		/* Pairs with efuse_conn() */
		smp_store_release(&found->efuse, ec);
	}
	return found;
}

/*
 * A program is as good as the daemon: it may present files with any owner and
 * mode. So it takes what mounting for all users of the connection takes.
 */
static bool efuse_may_attach(const struct fuse_conn *fc)
{
	return ns_capable(fc->user_ns, CAP_SYS_ADMIN);
}

/* @ops, or none, are the programs from now on. */
static void efuse_set_ops(struct efuse_conn *ec, struct efuse_ops *ops)
{
	lockdep_assert_held(&efuse_attach_lock);
	WRITE_ONCE(ec->keep, ops && (ops->flags & EFUSE_OPS_KEEP));
	WRITE_ONCE(ec->per_caller, ops && (ops->flags & EFUSE_OPS_PER_CALLER));
	rcu_assign_pointer(ec->ops, ops);
	efuse_set_changed(ec);
}

static int efuse_ops_reg(void *kdata, struct bpf_link *link)
{
	struct efuse_attachment *attachment;
	struct efuse_ops *ops = kdata;
	struct fuse_conn *fc;
	struct efuse_conn *ec;
	int err = 0;

	/* Without a link nothing would take the programs off again */
	if (!link)
		return -EOPNOTSUPP;
	attachment = kzalloc(sizeof(*attachment), GFP_KERNEL_ACCOUNT);
	if (!attachment)
		return -ENOMEM;

	mutex_lock(&efuse_attach_lock);
	fc = efuse_find_conn(ops->dev);
	if (IS_ERR(fc)) {
		err = PTR_ERR(fc);
		goto out;
	}
	ec = fc->efuse;
	if (!efuse_may_attach(fc))
		err = -EPERM;
	else if (rcu_access_pointer(ec->ops))
		err = -EBUSY;
	if (err) {
		fuse_conn_put(fc);
		goto out;
	}
	err = efuse_cache_set_budget(&ec->cache, ops->cache_bytes);
	if (err) {
		fuse_conn_put(fc);
		goto out;
	}
	attachment->ops = ops;
	attachment->link = link;
	attachment->fc = fc;
	list_add(&attachment->entry, &efuse_attachments);
	/*
	 * Changes without programs were not noted: what is older is void. What is read
	 * for the cache before and during this is too old as well.
	 */
	__efuse_all_changed(ec);
	efuse_cache_renew(&ec->cache);
	efuse_set_ops(ec, ops);
	efuse_cache_renew(&ec->cache);
	attachment = NULL;
out:
	mutex_unlock(&efuse_attach_lock);
	kfree(attachment);
	return err;
}

static struct efuse_attachment *efuse_find_attachment(const void *ops)
{
	struct efuse_attachment *attachment;

	lockdep_assert_held(&efuse_attach_lock);
	list_for_each_entry(attachment, &efuse_attachments, entry) {
		if (attachment->ops == ops)
			return attachment;
	}
	return NULL;
}

static void efuse_ops_unreg(void *kdata, struct bpf_link *link)
{
	struct efuse_attachment *attachment;
	struct efuse_ops *ops;

	mutex_lock(&efuse_attach_lock);
	attachment = efuse_find_attachment(kdata);
	if (attachment) {
		efuse_set_ops(attachment->fc->efuse, NULL);
		list_del(&attachment->entry);
	}
	mutex_unlock(&efuse_attach_lock);
	if (attachment) {
		/* Programs that still run need the connection, not the set */
		synchronize_rcu();
		mutex_lock(&efuse_attach_lock);
		/* Others may be attached by now, and begin with an empty one */
		efuse_cache_set_budget(&attachment->fc->efuse->cache, 0);
		ops = rcu_dereference_protected(attachment->fc->efuse->ops,
						true);
		if (ops)
			efuse_cache_set_budget(&attachment->fc->efuse->cache,
					       ops->cache_bytes);
		mutex_unlock(&efuse_attach_lock);
		fuse_conn_put(attachment->fc);
		kfree(attachment);
	}
}

/* Puts another set in the place of one; changes are noted without a gap. */
static int efuse_ops_update(void *kdata, void *old_kdata, struct bpf_link *link)
{
	struct efuse_attachment *attachment;
	struct efuse_ops *old = old_kdata;
	struct efuse_ops *ops = kdata;
	int err = 0;

	if (ops->dev != old->dev)
		return -EINVAL;
	mutex_lock(&efuse_attach_lock);
	attachment = efuse_find_attachment(old);
	if (!attachment)
		err = -ENOENT;
	else if (!efuse_may_attach(attachment->fc))
		err = -EPERM;
	else
		err = efuse_cache_set_budget(&attachment->fc->efuse->cache,
					     ops->cache_bytes);
	/* On an error what was there stays */
	if (!err) {
		attachment->ops = ops;
		/* What is kept was kept under the old rules */
		if ((old->flags ^ ops->flags) &
		    (EFUSE_OPS_KEEP | EFUSE_OPS_PER_CALLER))
			__efuse_all_changed(attachment->fc->efuse);
		efuse_set_ops(attachment->fc->efuse, ops);
	}
	mutex_unlock(&efuse_attach_lock);
	return err;
}

/* The types of the programs, for the core; never called. */
static int efuse_stub(struct efuse_ctx *req)
{
	return EFUSE_PASS;
}

static int efuse_io_stub(struct efuse_io *io)
{
	return EFUSE_IO_DAEMON;
}

static int efuse_queue_stub(struct efuse_queue *queue)
{
	return -1;
}

static struct efuse_ops efuse_ops_stubs = {
	.lookup = efuse_stub,
	.lookup_after = efuse_stub,
	.getattr = efuse_stub,
	.getattr_after = efuse_stub,
	.statx = efuse_stub,
	.statx_after = efuse_stub,
	.getxattr = efuse_stub,
	.getxattr_after = efuse_stub,
	.listxattr = efuse_stub,
	.listxattr_after = efuse_stub,
	.readlink = efuse_stub,
	.readlink_after = efuse_stub,
	.access = efuse_stub,
	.access_after = efuse_stub,
	.open = efuse_stub,
	.open_after = efuse_stub,
	.setattr = efuse_stub,
	.setattr_after = efuse_stub,
	.create = efuse_stub,
	.create_after = efuse_stub,
	.mknod = efuse_stub,
	.mknod_after = efuse_stub,
	.mkdir = efuse_stub,
	.mkdir_after = efuse_stub,
	.symlink = efuse_stub,
	.symlink_after = efuse_stub,
	.link = efuse_stub,
	.link_after = efuse_stub,
	.unlink = efuse_stub,
	.unlink_after = efuse_stub,
	.rmdir = efuse_stub,
	.rmdir_after = efuse_stub,
	.rename = efuse_stub,
	.rename_after = efuse_stub,
	.setxattr = efuse_stub,
	.setxattr_after = efuse_stub,
	.removexattr = efuse_stub,
	.removexattr_after = efuse_stub,
	.read = efuse_io_stub,
	.read_after = efuse_io_stub,
	.write = efuse_io_stub,
	.write_after = efuse_io_stub,
	.fallocate = efuse_stub,
	.fallocate_after = efuse_stub,
	.copy_file_range = efuse_stub,
	.copy_file_range_after = efuse_stub,
	.tmpfile = efuse_stub,
	.tmpfile_after = efuse_stub,
	.readdirplus = efuse_stub,
	.readdirplus_after = efuse_stub,
	.select_queue = efuse_queue_stub,
};

static struct bpf_struct_ops bpf_efuse_ops = {
	.verifier_ops = &efuse_verifier_ops,
	.init = efuse_ops_init,
	.check_member = efuse_ops_check_member,
	.init_member = efuse_ops_init_member,
	.validate = efuse_ops_validate,
	.reg = efuse_ops_reg,
	.unreg = efuse_ops_unreg,
	.update = efuse_ops_update,
	.cfi_stubs = &efuse_ops_stubs,
	.owner = THIS_MODULE,
	.name = "efuse_ops",
};

/*
 * The last mount of a connection goes; it is not on the list of connections any
 * more. Whoever attaches at the same time has either not found it there, or is
 * seen here, as efuse_attach_lock is held from finding it to being attached.
 */
void efuse_conn_gone(struct fuse_conn *fc)
{
	struct efuse_attachment *attachment;
	struct bpf_link *link = NULL;

	mutex_lock(&efuse_attach_lock);
	list_for_each_entry(attachment, &efuse_attachments, entry) {
		if (attachment->fc != fc)
			continue;
		/* One that goes just now takes the programs off by itself */
		link = bpf_link_inc_not_zero(attachment->link);
		if (IS_ERR(link))
			link = NULL;
		break;
	}
	mutex_unlock(&efuse_attach_lock);
	if (link) {
		link->ops->detach(link);
		bpf_link_put(link);
	}
}

/* A grace period after the last reference to a connection has gone. */
void efuse_conn_free(struct fuse_conn *fc)
{
	if (fc->efuse)
		efuse_conn_destroy(fc->efuse);
}

/* There is no way to take the registrations back: they go with the module. */
int efuse_bpf_init(void)
{
	int err;

	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_STRUCT_OPS,
					&efuse_kfunc_set);
	if (err)
		return err;
	return register_bpf_struct_ops(&bpf_efuse_ops, efuse_ops);
}
