// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: what a program may do while it runs for a request: read its arguments,
 * the reply and inodes, and answer.
 *
 * Everything a program hands in is checked here, not by the verifier: sizes
 * against the request's own room, errors against the range the daemon may use,
 * node ids against the inodes in memory. A program that gets any of it wrong has
 * given no answer, and the daemon is asked as if it were not there.
 *
 * Under rcu_read_lock(), as programs run (call.c); no locks.
 */
#include "efuse_i.h"

#include <linux/fs.h>
#include <linux/highmem.h>

#define EFUSE_MAX_ERROR	511

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
	if (READ_ONCE(get_fuse_inode(inode)->efuse_mapped))
		return -ESTALE;
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
	if (call->mapped ||
	    !efuse_attr_fresh(call->ec, call->ctx.nodeid, seq, settled))
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
