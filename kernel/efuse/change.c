// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: what changed when, so that nothing that was learnt before a change is
 * used after it.
 *
 * A connection has a clock that goes up with every change. Whatever a program
 * learns from a reply it keeps together with the tick at which the request
 * began, and hands that tick back when it answers from what it learnt. The
 * answer is taken only if nothing that it depends on was changed since, or is
 * being changed just now. So a reply that was under way while something changed
 * cannot bring back the old state, however late a program stores it, and no
 * program has to remove anything from its maps for correctness.
 *
 * Changes are noted in two tables, by node and by (directory, name). They are
 * hashed and have no chains: two that share a slot share its stamps, which costs
 * a needless question to the daemon now and then and never a wrong answer.
 *
 * Ordering, without locks. A change: "changing" up; full barrier; request and
 * reply; clock up; stamp; "changing" down (release). A question: "changing"
 * (acquire), then the stamps. If the question misses both ends of the change, it
 * came before the change began, and the old state is right. The clock is read
 * before a request that teaches something is sent: a change whose stamp is not
 * above that tick was complete at the daemon before.
 *
 * Stamps only go up; two changes that end at once may store in either order.
 */
#include "efuse_i.h"

#include <linux/cred.h>
#include <linux/hash.h>
#include <linux/percpu.h>
#include <linux/stringhash.h>
#include <linux/random.h>
#include <linux/slab.h>

/* Clocks of two connections have no tick in common: maps cannot be mixed up. */
#define EFUSE_EPOCH_SHIFT	40

static atomic64_t efuse_epoch = ATOMIC64_INIT(0);

struct efuse_conn *efuse_conn_alloc(void)
{
	struct efuse_conn *ec;

	ec = kzalloc(sizeof(*ec), GFP_KERNEL_ACCOUNT);
	if (!ec)
		return NULL;
	ec->nodes = kvcalloc(1U << EFUSE_NODE_BITS, sizeof(*ec->nodes),
			     GFP_KERNEL_ACCOUNT);
	ec->names = kvcalloc(1U << EFUSE_NAME_BITS, sizeof(*ec->names),
			     GFP_KERNEL_ACCOUNT);
	ec->io_stats = alloc_percpu_gfp(struct efuse_io_stats,
					GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	ec->kept = alloc_percpu_gfp(struct efuse_kept,
				    GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!ec->nodes || !ec->names || !ec->io_stats || !ec->kept) {
		efuse_conn_destroy(ec);
		return NULL;
	}
	efuse_cache_init(&ec->cache);
	get_random_bytes(&ec->name_key, sizeof(ec->name_key));
	atomic64_set(&ec->clock, (s64)((u64)atomic64_inc_return(&efuse_epoch) <<
				       EFUSE_EPOCH_SHIFT));
	return ec;
}

void efuse_conn_destroy(struct efuse_conn *ec)
{
	kvfree(ec->nodes);
	kvfree(ec->names);
	free_percpu(ec->io_stats);
	free_percpu(ec->kept);
	kfree(ec);
}

/*
 * 64 bits that nobody can aim at without the key, and 40 more that a chance
 * collision would have to hit as well.
 */
void efuse_hash_name(const struct efuse_conn *ec, const char *name,
		     unsigned int len, u64 hash[2])
{
	hash[0] = siphash(name, len, &ec->name_key);
	hash[1] = (u64)len << 32 | full_name_hash(NULL, name, len);
}

/*
 * What a daemon can decide by: ids and supplementary groups, which it finds in
 * /proc/PID/status. Never EFUSE_ANYONE.
 */
u64 efuse_hash_caller(const struct efuse_conn *ec, const struct cred *cred)
{
	const struct group_info *groups = cred->group_info;
	u64 hash = siphash_2u64((u64)__kgid_val(cred->fsgid) << 32 |
				__kuid_val(cred->fsuid), groups->ngroups,
				&ec->name_key);
	int i;

	/* Sorted, so that equal sets have equal hashes */
	for (i = 0; i < groups->ngroups; i++)
		hash = siphash_2u64(hash, __kgid_val(groups->gid[i]),
				    &ec->name_key);
	return hash == EFUSE_ANYONE ? 0 : hash;
}

static u32 efuse_node_index(u64 nodeid)
{
	return hash_64(nodeid, EFUSE_NODE_BITS);
}

static u32 efuse_name_index(u64 parent, const u64 hash[2])
{
	return hash_64(hash[0] + parent * GOLDEN_RATIO_64, EFUSE_NAME_BITS);
}

static void efuse_stamp(atomic64_t *stamp, u64 now)
{
	s64 old = atomic64_read(stamp);

	while ((u64)old < now && !atomic64_try_cmpxchg(stamp, &old, now))
		;
}

/* Of the request's own name, argument @arg. */
const u64 *efuse_request_name(const struct efuse_conn *ec,
			      struct fuse_args *args, int arg)
{
	const struct fuse_in_arg *in = &args->in_args[arg];

	if (!args->efuse.name_hash[1])
		efuse_hash_name(ec, in->value, in->size - 1,
				args->efuse.name_hash);
	return args->efuse.name_hash;
}

static void efuse_change_name(struct efuse_change *c, u64 parent,
			      const u64 hash[2])
{
	c->name[c->names++] = efuse_name_index(parent, hash);
}

static void efuse_change_node(struct efuse_change *c, u64 nodeid)
{
	c->node[c->nodes++] = efuse_node_index(nodeid);
}

/*
 * What a request changes, as far as its arguments tell. Names come first: in a
 * request with names node[0] is a directory.
 *
 * The rest is noted when the kernel itself drops what it knows, which all goes
 * through fuse_invalidate_attr_mask(): the node behind an unlinked or renamed
 * name, data written to a backing file or a mapping, access times.
 */
static void efuse_change_of(const struct efuse_conn *ec,
			    struct fuse_args *args, struct efuse_change *c)
{
	const struct fuse_in_arg *in = args->in_args;
	u64 hash[2];
	u32 flags;

	switch (args->opcode) {
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_CREATE:
		efuse_change_name(c, args->nodeid,
				  efuse_request_name(ec, args, 1));
		efuse_change_node(c, args->nodeid);
		break;
	case FUSE_SYMLINK:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		efuse_change_name(c, args->nodeid,
				  efuse_request_name(ec, args, 0));
		efuse_change_node(c, args->nodeid);
		break;
	case FUSE_LINK:
		efuse_change_name(c, args->nodeid,
				  efuse_request_name(ec, args, 1));
		efuse_change_node(c, args->nodeid);
		efuse_change_node(c, ((const struct fuse_link_in *)
				      in[0].value)->oldnodeid);
		break;
	case FUSE_RENAME:
	case FUSE_RENAME2: {
		/* newdir is the first member of either structure */
		u64 newdir = ((const struct fuse_rename_in *)
			      in[0].value)->newdir;

		efuse_change_name(c, args->nodeid,
				  efuse_request_name(ec, args, 1));
		efuse_hash_name(ec, in[2].value, in[2].size - 1, hash);
		efuse_change_name(c, newdir, hash);
		efuse_change_node(c, args->nodeid);
		/* Twice it would overlap with itself */
		if (newdir != args->nodeid)
			efuse_change_node(c, newdir);
		break;
	}
	case FUSE_SETATTR:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_IOCTL:
		/* Modes and access control lists go together */
		efuse_change_node(c, args->nodeid);
		c->xattr = true;
		break;
	case FUSE_WRITE:
	case FUSE_FALLOCATE:
	case FUSE_FSYNC:
	case FUSE_TMPFILE:
		efuse_change_node(c, args->nodeid);
		break;
	case FUSE_COPY_FILE_RANGE:
		efuse_change_node(c, ((const struct fuse_copy_file_range_in *)
				      in[0].value)->nodeid_out);
		break;
	case FUSE_OPEN:
		flags = ((const struct fuse_open_in *)in[0].value)->flags;
		if (flags & O_TRUNC)
			efuse_change_node(c, args->nodeid);
		break;
	case FUSE_RELEASE:
		/* A daemon may write back what it had held until now */
		flags = ((const struct fuse_release_in *)in[0].value)->flags;
		if ((flags & O_ACCMODE) != O_RDONLY)
			efuse_change_node(c, args->nodeid);
		break;
	}
}

void efuse_change_begin(struct efuse_conn *ec, struct fuse_args *args)
{
	struct efuse_change *c = &args->efuse.change;
	int i;

	memset(c, 0, sizeof(*c));
	args->efuse.name_hash[1] = 0;
	efuse_change_of(ec, args, c);
	if (c->names || c->nodes) {
		for (i = 0; i < c->names; i++)
			atomic_inc(&ec->names[c->name[i]].changing);
		for (i = 0; i < c->nodes; i++) {
			struct efuse_node_slot *node = &ec->nodes[c->node[i]];

			atomic_inc(&node->attr_changing);
			if (c->xattr)
				atomic_inc(&node->xattr_changing);
		}
		/* Ahead of the request: what is learnt meanwhile is void */
		smp_mb__after_atomic();
		c->open = true;
	}
	args->efuse.seq = atomic64_read(&ec->clock);
}

/* Stamps one slot. Whether nobody else changed it since @began. */
static bool efuse_change_close(atomic64_t *stamp, atomic_t *changing, u64 began,
			       u64 now, bool open)
{
	bool alone = atomic_read_acquire(changing) == open &&
		     atomic64_read(stamp) <= began;

	efuse_stamp(stamp, now);
	if (open)
		atomic_dec_return_release(changing);
	return alone;
}

/*
 * Ends what efuse_change_begin() began, or, for a request that was under way
 * before programs were attached, only notes it. @child is the node of the reply
 * or 0. Returns the tick for what is learnt from the reply, 0 if another change
 * overlapped.
 */
u64 efuse_change_end(struct efuse_conn *ec, struct fuse_args *args, u64 child)
{
	struct efuse_change *c = &args->efuse.change;
	u64 began = args->efuse.seq;
	bool open = c->open;
	bool alone = open;
	u64 now;
	int i;

	if (!open) {
		/* Known since the beginning: it changes nothing */
		if (began)
			return began;
		memset(c, 0, sizeof(*c));
		efuse_change_of(ec, args, c);
		if (!c->names && !c->nodes)
			return 0;
	}

	now = atomic64_inc_return(&ec->clock);
	for (i = 0; i < c->names; i++) {
		struct efuse_name_slot *name = &ec->names[c->name[i]];

		alone &= efuse_change_close(&name->stamp, &name->changing,
					    began, now, open);
	}
	for (i = 0; i < c->nodes; i++) {
		struct efuse_node_slot *node = &ec->nodes[c->node[i]];
		bool same = efuse_change_close(&node->attr, &node->attr_changing,
					       began, now, open);

		/* Of the directory itself nothing is learnt */
		if (!c->names || i)
			alone &= same;
		if (c->xattr)
			efuse_change_close(&node->xattr, &node->xattr_changing,
					   began, now, open);
	}
	/* Its names may be others as well, which depend on this */
	if (args->opcode == FUSE_IOCTL &&
	    ((const struct fuse_ioctl_in *)args->in_args[0].value)->flags &
	    FUSE_IOCTL_DIR)
		efuse_stamp(&ec->nodes[c->node[0]].evict, now);
	if (child && args->opcode != FUSE_LINK) {
		/* New, as a rule; CREATE may have found and truncated it */
		struct efuse_node_slot *node =
			&ec->nodes[efuse_node_index(child)];

		alone &= efuse_change_close(&node->attr, &node->attr_changing,
					    began, now, false);
		efuse_change_close(&node->xattr, &node->xattr_changing, began,
				   now, false);
	}
	c->open = false;
	return alone ? now : 0;
}

void __efuse_attr_changed(struct efuse_conn *ec, u64 nodeid, u32 mask)
{
	struct efuse_node_slot *node = &ec->nodes[efuse_node_index(nodeid)];
	u64 now = atomic64_inc_return(&ec->clock);

	efuse_stamp(mask == STATX_ATIME ? &node->atime : &node->attr, now);
}

void __efuse_node_changed(struct efuse_conn *ec, u64 nodeid)
{
	struct efuse_node_slot *node = &ec->nodes[efuse_node_index(nodeid)];
	u64 now = atomic64_inc_return(&ec->clock);

	efuse_stamp(&node->attr, now);
	efuse_stamp(&node->xattr, now);
}

void __efuse_node_evicted(struct efuse_conn *ec, u64 nodeid)
{
	struct efuse_node_slot *node = &ec->nodes[efuse_node_index(nodeid)];

	efuse_stamp(&node->evict, atomic64_inc_return(&ec->clock));
}

void __efuse_entry_changed(struct efuse_conn *ec, u64 parent, u64 child,
			   const struct qstr *name)
{
	u64 hash[2];

	efuse_hash_name(ec, name->name, name->len, hash);
	efuse_stamp(&ec->names[efuse_name_index(parent, hash)].stamp,
		    atomic64_inc_return(&ec->clock));
	__efuse_node_changed(ec, parent);
	if (child)
		__efuse_node_changed(ec, child);
}

void __efuse_all_changed(struct efuse_conn *ec)
{
	efuse_stamp(&ec->floor, atomic64_inc_return(&ec->clock));
}

bool efuse_seq_valid(const struct efuse_conn *ec, u64 seq)
{
	return seq >= atomic64_read(&ec->floor) &&
	       seq <= atomic64_read(&ec->clock);
}

bool efuse_name_fresh(const struct efuse_conn *ec, u64 parent,
		      const u64 hash[2], u64 seq)
{
	const struct efuse_name_slot *name =
		&ec->names[efuse_name_index(parent, hash)];

	return !atomic_read_acquire(&name->changing) &&
	       (u64)atomic64_read(&name->stamp) <= seq &&
	       efuse_node_same(ec, parent, seq);
}

bool efuse_node_same(const struct efuse_conn *ec, u64 nodeid, u64 seq)
{
	const struct efuse_node_slot *node =
		&ec->nodes[efuse_node_index(nodeid)];

	return (u64)atomic64_read(&node->evict) <= seq;
}

/*
 * @atime_settled: the time of access is so that reading again would not change
 * it on a file system below that is mounted with relatime.
 */
bool efuse_attr_fresh(const struct efuse_conn *ec, u64 nodeid, u64 seq,
		      bool atime_settled)
{
	const struct efuse_node_slot *node =
		&ec->nodes[efuse_node_index(nodeid)];

	/*
	 * Whoever asks has read the connection's attr_version: where that is a new
	 * one, the stamp is seen that came ahead of it.
	 */
	smp_rmb();
	return !atomic_read_acquire(&node->attr_changing) &&
	       (u64)atomic64_read(&node->attr) <= seq &&
	       (atime_settled || (u64)atomic64_read(&node->atime) <= seq) &&
	       efuse_node_same(ec, nodeid, seq);
}

bool efuse_xattr_fresh(const struct efuse_conn *ec, u64 nodeid, u64 seq)
{
	const struct efuse_node_slot *node =
		&ec->nodes[efuse_node_index(nodeid)];

	return !atomic_read_acquire(&node->xattr_changing) &&
	       (u64)atomic64_read(&node->xattr) <= seq &&
	       efuse_node_same(ec, nodeid, seq);
}
