// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: running the program of a request, and what it may do meanwhile.
 *
 * Programs run in process context under rcu_read_lock(), which keeps the
 * attached set and its code in place, and never sleep. A struct efuse_call lives
 * on the stack for one run; programs hold a pointer to its first member only.
 *
 * Everything a program hands in is checked here, not by the verifier: sizes
 * against the request's own room, errors against the range the daemon may use,
 * node ids against the inodes in memory. A program that gets any of it wrong has
 * given no answer, and the daemon is asked as if it were not there.
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
#include <linux/highmem.h>

#define EFUSE_MAX_ERROR	511

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

static u32 efuse_room(const struct fuse_args *args)
{
	return args->out_numargs ? args->out_args[args->out_numargs - 1].size : 0;
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
	if (inode)
		ctx->generation = inode->i_generation;
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
	if (!program)
		goto out;
	if (args->opcode == FUSE_LOOKUP && efuse_is_dot(&args->in_args[0]))
		goto out;
	efuse_call_init(&call, ec, ops, fm, args);
	if (!efuse_may_ask(fm, &call.ctx))
		goto out;
	verdict = program(&call.ctx);
	answered = verdict == EFUSE_ANSWER && call.answered;
	if (verdict == EFUSE_LIST && args->opcode == FUSE_READDIRPLUS)
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
	struct efuse_conn *ec = efuse_conn(get_fuse_conn(inode));
	struct fuse_inode *fi = get_fuse_inode(inode);

	if (!ec || !READ_ONCE(ec->keep) || !efuse_seq_valid(ec, seq) ||
	    !efuse_attr_fresh(ec, fi->nodeid, seq,
			      READ_ONCE(fi->efuse_atime_settled)))
		return false;
	this_cpu_inc(ec->kept->getattrs);
	return true;
}

/*
 * Without locks as well. A rename meanwhile may pair the new name with the old
 * directory or the other way round; to whoever walks, it came just after.
 */
bool __efuse_entry_kept(struct dentry *entry, u64 seq)
{
	struct efuse_conn *ec = efuse_conn(get_fuse_conn_super(entry->d_sb));
	struct name_snapshot name;
	struct inode *dir;
	u64 parent = 0;
	u64 hash[2];

	if (!ec || !READ_ONCE(ec->keep) || !efuse_seq_valid(ec, seq))
		return false;
	rcu_read_lock();
	dir = d_inode_rcu(READ_ONCE(entry->d_parent));
	if (dir)
		parent = get_node_id(dir);
	rcu_read_unlock();
	take_dentry_name_snapshot(&name, entry);
	efuse_hash_name(ec, name.name.name, name.name.len, hash);
	release_dentry_name_snapshot(&name);
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

static int efuse_inode_is(struct inode *inode, void *nodeid)
{
	return get_node_id(inode) == *(u64 *)nodeid;
}

/* The inode of a node, if it is in memory and good. Under rcu_read_lock(). */
struct inode *efuse_find_inode(struct fuse_mount *fm, u64 nodeid)
{
	struct inode *inode;

	if (!fm->sb)
		return NULL;
	inode = find_inode_rcu(fm->sb, nodeid, efuse_inode_is, &nodeid);
	if (!inode || (READ_ONCE(inode->i_state) & I_NEW) || fuse_is_bad(inode))
		return NULL;
	return inode;
}

int efuse_call_inode(struct efuse_call *call, u64 nodeid,
		     struct efuse_inode_info *out)
{
	struct inode *inode = efuse_find_inode(call->fm, nodeid);

	memset(out, 0, sizeof(*out));
	if (!inode)
		return -ENOENT;
	out->size = i_size_read(inode);
	out->attr_version = READ_ONCE(get_fuse_inode(inode)->attr_version);
	out->seq = atomic64_read(&call->ec->clock);
	out->generation = inode->i_generation;
	out->mode = inode->i_mode;
	return 0;
}

int efuse_call_read_arg(struct efuse_call *call, u32 index, u32 offset,
			void *buf, u32 size)
{
	const struct fuse_args *args = call->args;
	const struct fuse_in_arg *arg;
	u32 n;

	memset(buf, 0, size);
	/* Data of a write is in pages and not ours to read */
	if (index >= args->in_numargs ||
	    (args->in_pages && index == args->in_numargs - 1))
		return -EINVAL;
	arg = &args->in_args[index];
	if (offset > arg->size)
		return -EINVAL;
	n = min(size, arg->size - offset);
	memcpy(buf, arg->value + offset, n);
	return n;
}

/* Copies between @buf and the pages of a reply. */
static void efuse_copy_pages(struct fuse_args *args, u32 offset, void *buf,
			     u32 size, bool to_pages)
{
	struct fuse_args_pages *ap =
		container_of(args, struct fuse_args_pages, args);
	unsigned int num = ap->uses_folios ? ap->num_folios : ap->num_pages;
	unsigned int i;

	for (i = 0; i < num && size; i++) {
		u32 start = ap->uses_folios ? ap->folio_descs[i].offset :
					      ap->descs[i].offset;
		u32 length = ap->uses_folios ? ap->folio_descs[i].length :
					       ap->descs[i].length;
		struct page *page = ap->uses_folios ?
			folio_page(ap->folios[i], 0) : ap->pages[i];
		u32 n;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		n = min(size, length - offset);
		if (start + offset + n > PAGE_SIZE)
			return;
		if (to_pages)
			memcpy_to_page(page, start + offset, buf, n);
		else
			memcpy_from_page(buf, page, start + offset, n);
		buf += n;
		size -= n;
		offset = 0;
	}
}

int efuse_call_read_reply(struct efuse_call *call, u32 offset, void *buf,
			  u32 size)
{
	struct fuse_args *args = call->args;
	u32 have = call->ctx.reply_size;
	u32 n;

	memset(buf, 0, size);
	if (!call->after || call->ctx.error || !args->out_numargs)
		return -EINVAL;
	/* Of several parts the first: the entry of CREATE */
	if (args->out_numargs > 1)
		have = args->out_args[0].size;
	if (offset > have)
		return -EINVAL;
	n = min(size, have - offset);
	if (args->out_pages)
		efuse_copy_pages(args, offset, buf, n, false);
	else
		memcpy(buf, args->out_args[0].value + offset, n);
	return n;
}

int efuse_call_dirent(struct efuse_call *call, u32 offset,
		      struct efuse_dirent *out)
{
	struct fuse_direntplus head;
	char name[FUSE_NAME_MAX > 255 ? 255 : FUSE_NAME_MAX];
	u32 end = call->ctx.reply_size;
	u32 next;

	memset(out, 0, sizeof(*out));
	if (call->ctx.opcode != FUSE_READDIRPLUS ||
	    offset > end || end - offset < FUSE_NAME_OFFSET_DIRENTPLUS ||
	    efuse_call_read_reply(call, offset, &head,
				  FUSE_NAME_OFFSET_DIRENTPLUS) < 0)
		return -EINVAL;
	if (!head.dirent.namelen || head.dirent.namelen > sizeof(name))
		return -EINVAL;
	next = FUSE_DIRENTPLUS_SIZE(&head);
	if (next > end - offset)
		return -EINVAL;
	efuse_call_read_reply(call, offset + FUSE_NAME_OFFSET_DIRENTPLUS, name,
			      head.dirent.namelen);
	efuse_hash_name(call->ec, name, head.dirent.namelen, out->name_hash);
	out->name_len = head.dirent.namelen;
	out->next = offset + next;
	/* ".", "..", and entries without attributes teach nothing */
	if (!(name[0] == '.' && (out->name_len == 1 ||
				 (out->name_len == 2 && name[1] == '.'))))
		out->entry = head.entry_out;
	return 0;
}

/* Attributes whose time of access would stay if the file were read again. */
static bool efuse_atime_settled(u64 atime, u32 atimensec, u64 mtime,
				u32 mtimensec, u64 ctime, u32 ctimensec)
{
	if (atime < mtime || (atime == mtime && atimensec <= mtimensec))
		return false;
	if (atime < ctime || (atime == ctime && atimensec <= ctimensec))
		return false;
	/* relatime updates once a day */
	return (s64)atime + 24 * 60 * 60 > ktime_get_real_seconds();
}

static bool efuse_attr_settled(const struct fuse_attr *attr)
{
	return efuse_atime_settled(attr->atime, attr->atimensec, attr->mtime,
				   attr->mtimensec, attr->ctime, attr->ctimensec);
}

static int efuse_check_entry(struct efuse_call *call,
			     const struct fuse_entry_out *entry, u64 seq,
			     u64 attr_seq)
{
	const struct efuse_conn *ec = call->ec;
	bool settled = efuse_attr_settled(&entry->attr);
	struct inode *inode;

	if (!efuse_name_fresh(ec, call->ctx.nodeid, call->ctx.name_hash, seq))
		return -ESTALE;
	call->entry_seq = seq;
	if (!entry->nodeid)
		return 0;
	if (entry->nodeid == FUSE_ROOT_ID ||
	    (entry->attr.flags & FUSE_ATTR_SUBMOUNT) ||
	    fuse_invalid_attr((struct fuse_attr *)&entry->attr))
		return -EINVAL;
	inode = efuse_find_inode(call->fm, entry->nodeid);
	if (!inode || inode->i_generation != (u32)entry->generation ||
	    inode_wrong_type(inode, entry->attr.mode))
		return -ENOENT;
	if (!efuse_seq_valid(ec, attr_seq) ||
	    !efuse_node_same(ec, entry->nodeid, seq) ||
	    !efuse_attr_fresh(ec, entry->nodeid, attr_seq, settled))
		return -ESTALE;
	inode = igrab(inode);
	if (!inode)
		return -ENOENT;
	call->inode = inode;
	call->attr_seq = attr_seq;
	call->atime_settled = settled;
	return 0;
}

static int efuse_check_attr(struct efuse_call *call, u32 mode, u64 size,
			    bool settled, u64 seq)
{
	/* A type that changed makes the inode bad, as it does from a daemon */
	if (!fuse_valid_type(mode) || size > LLONG_MAX)
		return -EINVAL;
	if (!efuse_attr_fresh(call->ec, call->ctx.nodeid, seq, settled))
		return -ESTALE;
	call->attr_seq = seq;
	call->atime_settled = settled;
	return 0;
}

static int efuse_check_xattr(struct efuse_call *call, u64 seq, bool present)
{
	const struct fuse_in_arg *name = &call->args->in_args[1];

	if (!efuse_xattr_fresh(call->ec, call->ctx.nodeid, seq))
		return -ESTALE;
	/* Writing takes file capabilities away, and never brings any */
	if (present &&
	    (call->args->opcode == FUSE_LISTXATTR ||
	     (name->size > 9 && !memcmp(name->value, "security.", 9))) &&
	    !efuse_attr_fresh(call->ec, call->ctx.nodeid, seq, true))
		return -ESTALE;
	return 0;
}

int efuse_call_reply(struct efuse_call *call, const void *data, u32 size,
		     u64 seq, u64 attr_seq)
{
	struct fuse_args *args = call->args;
	const struct fuse_statx_out *sx = data;
	const struct fuse_attr_out *attr = data;
	int err;

	if (call->after || call->answered || !args->out_numargs)
		return -EINVAL;
	if (size > efuse_room(args) ||
	    (!args->out_argvar && size != efuse_room(args)))
		return -EINVAL;
	if (!efuse_seq_valid(call->ec, seq))
		return -ESTALE;

	switch (args->opcode) {
	case FUSE_LOOKUP:
		err = efuse_check_entry(call, data, seq, attr_seq);
		break;
	case FUSE_GETATTR:
		err = efuse_check_attr(call, attr->attr.mode, attr->attr.size,
				       efuse_attr_settled(&attr->attr), seq);
		break;
	case FUSE_STATX:
		/* Always complete, or attributes would be lost */
		if ((sx->stat.mask & STATX_BASIC_STATS) != STATX_BASIC_STATS)
			return -EINVAL;
		err = efuse_check_attr(call, sx->stat.mode, sx->stat.size,
			efuse_atime_settled(sx->stat.atime.tv_sec,
					    sx->stat.atime.tv_nsec,
					    sx->stat.mtime.tv_sec,
					    sx->stat.mtime.tv_nsec,
					    sx->stat.ctime.tv_sec,
					    sx->stat.ctime.tv_nsec), seq);
		break;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		err = efuse_check_xattr(call, seq, true);
		break;
	case FUSE_READLINK:
		err = efuse_xattr_fresh(call->ec, args->nodeid, seq) ?
			0 : -ESTALE;
		break;
	default:
		err = -EOPNOTSUPP;
	}
	if (err)
		return err;

	if (args->out_pages)
		efuse_copy_pages(args, 0, (void *)data, size, true);
	else
		memcpy(args->out_args[0].value, data, size);
	call->size = size;
	call->answered = true;
	return 0;
}

int efuse_call_error(struct efuse_call *call, int error, u64 seq)
{
	int err = 0;

	if (call->after || call->answered)
		return -EINVAL;
	/* ENOSYS would switch the operation off for good */
	if (error > 0 || error < -EFUSE_MAX_ERROR || error == -ENOSYS)
		return -EINVAL;
	/* Success is an answer only where nothing else is to be given */
	if (!error && call->args->opcode != FUSE_ACCESS)
		return -EINVAL;
	if (!efuse_seq_valid(call->ec, seq))
		return -ESTALE;

	switch (call->args->opcode) {
	case FUSE_LOOKUP:
		if (!efuse_name_fresh(call->ec, call->ctx.nodeid,
				      call->ctx.name_hash, seq))
			err = -ESTALE;
		call->entry_seq = seq;
		break;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		err = efuse_check_xattr(call, seq, false);
		break;
	default:
		if (!efuse_attr_fresh(call->ec, call->ctx.nodeid, seq, true) &&
		    !call->args->efuse.change.open)
			err = -ESTALE;
	}
	if (err)
		return err;
	call->error = error;
	call->answered = true;
	return 0;
}
