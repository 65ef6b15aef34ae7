// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: running the program of a request.
 *
 * Programs run in process context under rcu_read_lock(), which keeps the
 * attached set and its code in place, and never sleep. A struct efuse_call lives
 * on the stack for one run; programs hold a pointer to its first member only.
 *
 * Counting lookups. The kernel raises nlookup for every LOOKUP reply and gives
 * the sum back with FORGET. A reply of ours the daemon knows nothing of, so it
 * is counted in efuse_nlookup as well, which FORGET leaves out. This is right
 * only as long as the daemon has a reason to keep the node: the answer must name
 * an inode that is in memory, and the request holds it until the lookup is
 * through (efuse_lookup_done()).
 */
#include "efuse_i.h"

#include <linux/bpf.h>
#include <linux/fs.h>

/* Offset in struct efuse_ops of the program before; the one after follows it. */
static const u16 efuse_members[] = {
#define EFUSE_MEMBER(opcode, member) \
	[opcode] = offsetof(struct efuse_ops, member) + 1
	EFUSE_MEMBER(FUSE_LOOKUP, lookup),
	EFUSE_MEMBER(FUSE_GETATTR, getattr),
	EFUSE_MEMBER(FUSE_STATX, statx),
	EFUSE_MEMBER(FUSE_GETXATTR, getxattr),
	EFUSE_MEMBER(FUSE_LISTXATTR, listxattr),
	EFUSE_MEMBER(FUSE_READLINK, readlink),
	EFUSE_MEMBER(FUSE_ACCESS, access),
	EFUSE_MEMBER(FUSE_OPEN, open),
	EFUSE_MEMBER(FUSE_SETATTR, setattr),
	EFUSE_MEMBER(FUSE_CREATE, create),
	EFUSE_MEMBER(FUSE_MKNOD, mknod),
	EFUSE_MEMBER(FUSE_MKDIR, mkdir),
	EFUSE_MEMBER(FUSE_SYMLINK, symlink),
	EFUSE_MEMBER(FUSE_LINK, link),
	EFUSE_MEMBER(FUSE_UNLINK, unlink),
	EFUSE_MEMBER(FUSE_RMDIR, rmdir),
	EFUSE_MEMBER(FUSE_RENAME, rename),
	EFUSE_MEMBER(FUSE_RENAME2, rename),
	EFUSE_MEMBER(FUSE_SETXATTR, setxattr),
	EFUSE_MEMBER(FUSE_REMOVEXATTR, removexattr),
	EFUSE_MEMBER(FUSE_FALLOCATE, fallocate),
	EFUSE_MEMBER(FUSE_COPY_FILE_RANGE, copy_file_range),
	EFUSE_MEMBER(FUSE_TMPFILE, tmpfile),
	EFUSE_MEMBER(FUSE_READDIRPLUS, readdirplus),
#undef EFUSE_MEMBER
};

typedef int (*efuse_program_t)(struct efuse_ctx *req);

/* Opcodes beyond the table, such as INIT, FORGET or CUSE's, have no program. */
static efuse_program_t efuse_program(const struct efuse_ops *ops, u32 opcode,
				     bool after)
{
	u16 member;

	if (!ops || opcode >= ARRAY_SIZE(efuse_members))
		return NULL;
	member = efuse_members[opcode];
	if (!member)
		return NULL;
	return *(efuse_program_t *)((void *)ops + member - 1 +
				    (after ? sizeof(efuse_program_t) : 0));
}

/* The argument that is the request's name, -1 if it has none. */
static int efuse_name_arg(u32 opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_SYMLINK:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_REMOVEXATTR:
		return 0;
	case FUSE_GETXATTR:
	case FUSE_SETXATTR:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_CREATE:
	case FUSE_LINK:
	case FUSE_RENAME:
	case FUSE_RENAME2:
		return 1;
	default:
		return -1;
	}
}

static bool efuse_is_dot(const struct fuse_in_arg *arg)
{
	const char *name = arg->value;

	return name[0] == '.' &&
	       (arg->size == 2 || (arg->size == 3 && name[1] == '.'));
}

/* Under rcu_read_lock(). */
static void efuse_call_init(struct efuse_call *call, struct efuse_conn *ec,
			    const struct efuse_ops *ops, struct fuse_mount *fm,
			    struct fuse_args *args)
{
	struct fuse_conn *fc = fm->fc;
	struct efuse_ctx *ctx = &call->ctx;
	int name = efuse_name_arg(args->opcode);
	struct inode *inode;
	int i;

	memset(call, 0, sizeof(*call));
	call->ec = ec;
	call->fm = fm;
	call->args = args;
	ctx->nodeid = args->nodeid;
	inode = efuse_find_inode(fm, args->nodeid);
	if (inode) {
		ctx->generation = inode->i_generation;
		call->mapped = READ_ONCE(get_fuse_inode(inode)->efuse_mapped);
	}
	ctx->seq = args->efuse.seq;
	ctx->cookie = args->efuse.cookie;
	ctx->opcode = args->opcode;
	if (fc->user_ns == &init_user_ns) {
		ctx->uid = __kuid_val(current_fsuid());
		ctx->gid = __kgid_val(current_fsgid());
	} else {
		ctx->uid = from_kuid(fc->user_ns, current_fsuid());
		ctx->gid = from_kgid(fc->user_ns, current_fsgid());
	}
	ctx->pid = pid_nr_ns(task_pid(current), fc->pid_ns);
	/* Lists are often cut to what the caller may see */
	if (fc->default_permissions && !(ops->flags & EFUSE_OPS_PER_CALLER) &&
	    args->opcode != FUSE_LISTXATTR)
		ctx->caller = EFUSE_ANYONE;
	else
		ctx->caller = efuse_hash_caller(ec, current_cred());
	for (i = 0; i < args->in_numargs; i++)
		ctx->in_size += args->in_args[i].size;
	ctx->out_size = efuse_room(args);
	if (name >= 0)
		memcpy(ctx->name_hash, efuse_request_name(ec, args, name),
		       sizeof(ctx->name_hash));
}

/* Whether programs may look at what this caller asks at all. */
static bool efuse_may_ask(struct fuse_mount *fm, const struct efuse_ctx *ctx)
{
	/* As fuse_get_req() would refuse; the error is left to it */
	if (!READ_ONCE(fm->fc->initialized) || !READ_ONCE(fm->fc->connected) ||
	    fm->fc->conn_error)
		return false;
	if (ctx->uid == (u32)-1 || ctx->gid == (u32)-1)
		return false;
	return fuse_allow_current_process(fm->fc);
}

bool __efuse_before(struct efuse_conn *ec, struct fuse_mount *fm,
		    struct fuse_args *args, ssize_t *ret)
{
	const struct efuse_ops *ops;
	struct efuse_call call;
	efuse_program_t program;
	bool answered = false;
	int verdict;

	call.inode = NULL;
	if (args->efuse.asked || !rcu_access_pointer(ec->ops))
		return false;
	args->efuse.asked = true;
	efuse_change_begin(ec, args);
	efuse_request_begin(fm, args);

	rcu_read_lock();
	ops = rcu_dereference(ec->ops);
	program = efuse_program(ops, args->opcode, false);
	if (!program || args->efuse.fresh)
		goto out;
	if (args->opcode == FUSE_LOOKUP && efuse_is_dot(&args->in_args[0]))
		goto out;
	efuse_call_init(&call, ec, ops, fm, args);
	if (!efuse_may_ask(fm, &call.ctx))
		goto out;
	verdict = program(&call.ctx);
	answered = verdict == EFUSE_ANSWER && call.answered;
	/* A daemon that lets the kernel choose has both */
	if (verdict == EFUSE_LIST && args->opcode == FUSE_READDIRPLUS &&
	    fm->fc->readdirplus_auto)
		args->opcode = FUSE_READDIR;
	args->efuse.cookie = call.ctx.cookie;
	if (answered && call.ctx.caller == EFUSE_ANYONE &&
	    (ops->flags & EFUSE_OPS_KEEP)) {
		args->efuse.entry_seq = call.entry_seq;
		args->efuse.attr_seq = call.attr_seq;
		args->efuse.atime_settled = call.atime_settled;
	}
out:
	rcu_read_unlock();
	if (!answered) {
		/* Named in an answer that the program took back */
		iput(call.inode);
		return false;
	}

	args->efuse.inode = call.inode;
	efuse_change_end(ec, args, 0);
	efuse_request_end(fm, args, 0);
	*ret = call.error;
	if (!call.error && args->out_argvar) {
		args->out_args[args->out_numargs - 1].size = call.size;
		*ret = call.size;
	}
	return true;
}

void __efuse_before_background(struct efuse_conn *ec, struct fuse_mount *fm,
			       struct fuse_args *args)
{
	if (rcu_access_pointer(ec->ops)) {
		efuse_change_begin(ec, args);
		efuse_request_begin(fm, args);
	}
}

/* The node that a reply brought, 0 if it is none that brings one. */
static u64 efuse_reply_node(const struct fuse_args *args)
{
	switch (args->opcode) {
	case FUSE_CREATE:
	case FUSE_TMPFILE:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		return ((const struct fuse_entry_out *)
			args->out_args[0].value)->nodeid;
	default:
		return 0;
	}
}

/* Whether somebody else may be allowed other things after it. */
static bool efuse_changes_access(const struct fuse_args *args)
{
	const struct fuse_in_arg *in = args->in_args;

	switch (args->opcode) {
	case FUSE_SETATTR:
		return ((const struct fuse_setattr_in *)in[0].value)->valid &
		       (FATTR_MODE | FATTR_UID | FATTR_GID);
	case FUSE_SETXATTR:
		return in[1].size > 7 && !memcmp(in[1].value, "system.", 7);
	case FUSE_REMOVEXATTR:
		return in[0].size > 7 && !memcmp(in[0].value, "system.", 7);
	default:
		return false;
	}
}

void __efuse_after(struct efuse_conn *ec, struct fuse_mount *fm,
		   struct fuse_args *args, ssize_t ret)
{
	const struct efuse_ops *ops;
	efuse_program_t program;
	struct efuse_call call;
	u64 child, seq;

	/*
	 * Who sends the same arguments again begins anew, or what it changes
	 * would be noted once. Mainline's IOCTL does so, for CUSE alone, which
	 * is not in this module.
	 */
	args->efuse.asked = false;
	if (!args->efuse.seq && !rcu_access_pointer(ec->ops))
		return;
	child = ret < 0 ? 0 : efuse_reply_node(args);
	seq = efuse_change_end(ec, args, child);
	efuse_request_end(fm, args, child);
	/* Names below, and who may see them, are the daemon's affair then */
	if ((!fm->fc->default_permissions || READ_ONCE(ec->per_caller)) &&
	    efuse_changes_access(args))
		__efuse_all_changed(ec);
	/* Nobody knows whether an interrupted change took place, and where */
	if (ret == -EINTR && seq != args->efuse.seq)
		__efuse_all_changed(ec);

	/* Arguments of asynchronous requests are not looked at */
	if (args->efuse.seq && !args->end) {
		rcu_read_lock();
		ops = rcu_dereference(ec->ops);
		program = efuse_program(ops, args->opcode, true);
		if (program && !(args->opcode == FUSE_LOOKUP &&
				 efuse_is_dot(&args->in_args[0]))) {
			efuse_call_init(&call, ec, ops, fm, args);
			call.after = true;
			call.ctx.seq = seq;
			call.ctx.error = ret < 0 ? ret : 0;
			if (ret >= 0)
				call.ctx.reply_size = args->out_argvar ?
					ret : efuse_room(args);
			if (call.ctx.uid != (u32)-1 && call.ctx.gid != (u32)-1)
				program(&call.ctx);
		}
		rcu_read_unlock();
	}
	args->efuse.seq = 0;
}

void __efuse_lookup_done(struct fuse_args *args, struct inode *inode)
{
	if (inode) {
		struct fuse_inode *fi = get_fuse_inode(inode);

		spin_lock(&fi->lock);
		fi->efuse_nlookup++;
		spin_unlock(&fi->lock);
	}
	iput(args->efuse.inode);
	args->efuse.inode = NULL;
}

/*
 * The attributes of an answer may be used again if they are what the inode has
 * now: a reply that came in between may have kept them out of it. What comes
 * later and replaces them says so under the same lock.
 */
void __efuse_attr_answered(struct inode *inode, const struct fuse_args *args,
			   const struct fuse_attr *attr)
{
	struct user_namespace *user_ns = get_fuse_conn(inode)->user_ns;
	struct fuse_inode *fi = get_fuse_inode(inode);
	struct timespec64 atime = { attr->atime, attr->atimensec };
	struct timespec64 mtime = { attr->mtime, attr->mtimensec };
	struct timespec64 ctime = { attr->ctime, attr->ctimensec };
	struct timespec64 have[3];

	spin_lock(&fi->lock);
	have[0] = inode_get_atime(inode);
	have[1] = inode_get_mtime(inode);
	have[2] = inode_get_ctime(inode);
	if (((inode->i_mode ^ attr->mode) & 07777) == 0 &&
	    i_size_read(inode) == attr->size &&
	    inode->i_nlink == attr->nlink && inode->i_blocks == attr->blocks &&
	    uid_eq(inode->i_uid, make_kuid(user_ns, attr->uid)) &&
	    gid_eq(inode->i_gid, make_kgid(user_ns, attr->gid)) &&
	    timespec64_equal(&have[0], &atime) &&
	    timespec64_equal(&have[1], &mtime) &&
	    timespec64_equal(&have[2], &ctime)) {
		WRITE_ONCE(fi->efuse_atime_settled, args->efuse.atime_settled);
		WRITE_ONCE(fi->efuse_attr_seq, args->efuse.attr_seq);
	}
	spin_unlock(&fi->lock);
}

/* Without locks: what has changed since @seq is told by its stamp alone. */
bool __efuse_attr_kept(struct inode *inode, u64 seq)
{
	struct fuse_conn *fc = get_fuse_conn(inode);
	struct fuse_inode *fi = get_fuse_inode(inode);
	struct efuse_conn *ec = efuse_conn(fc);

	if (!ec || !READ_ONCE(ec->keep) || !READ_ONCE(fc->connected) ||
	    READ_ONCE(fi->efuse_mapped) || !efuse_seq_valid(ec, seq) ||
	    !efuse_attr_fresh(ec, fi->nodeid, seq,
			      READ_ONCE(fi->efuse_atime_settled)))
		return false;
	this_cpu_inc(ec->kept->getattrs);
	return true;
}

/*
 * In a walk under RCU there is no reference to the dentry, which the lock does not
 * need; it keeps name and directory together.
 */
bool __efuse_entry_kept(struct dentry *entry, u64 seq)
{
	struct fuse_conn *fc = get_fuse_conn_super(entry->d_sb);
	struct efuse_conn *ec = efuse_conn(fc);
	struct inode *dir;
	u64 parent = 0;
	u64 hash[2];

	if (!ec || !READ_ONCE(ec->keep) || !READ_ONCE(fc->connected) ||
	    !efuse_seq_valid(ec, seq))
		return false;
	rcu_read_lock();
	spin_lock(&entry->d_lock);
	dir = d_inode_rcu(entry->d_parent);
	if (dir)
		parent = get_node_id(dir);
	efuse_hash_name(ec, entry->d_name.name, entry->d_name.len, hash);
	spin_unlock(&entry->d_lock);
	rcu_read_unlock();
	if (!parent || !efuse_name_fresh(ec, parent, hash, seq))
		return false;
	this_cpu_inc(ec->kept->lookups);
	return true;
}

/* Lines for the control file system. */
int efuse_kept_show(const struct efuse_conn *ec, char *buf, int size)
{
	u64 lookups = 0, getattrs = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct efuse_kept *kept = per_cpu_ptr(ec->kept, cpu);

		lookups += READ_ONCE(kept->lookups);
		getattrs += READ_ONCE(kept->getattrs);
	}
	return scnprintf(buf, size, "kept_lookup %llu\nkept_getattr %llu\n",
			 lookups, getattrs);
}
