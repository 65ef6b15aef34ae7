/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names by directory: which node is behind a name, or that there is none. A LOOKUP
 * is answered if both the name and the attributes of its node are known.
 */
#ifndef EFUSE_ENTRY_H
#define EFUSE_ENTRY_H

#include "attr.h"

struct entry_key {
	__u64 parent;
	__u64 caller;
	__u64 name_hash[2];
};

struct entry_value {
	__u64 seq;
	__u64 expires;
	/* 0: there is no such name */
	__u64 nodeid;
	__u64 generation;
	__u64 valid;
	__u32 valid_nsec;
	/* A missing name that the daemon reported as an error, with no time to keep it */
	__u32 error;
	TABLE_VALUE;
};

TABLE(entries, 65536, struct entry_value)

static __always_inline struct entry_key entry_key(struct efuse_ctx *req)
{
	struct entry_key key = {
		.parent = req->nodeid,
		.caller = req->caller,
		.name_hash = { req->name_hash[0], req->name_hash[1] },
	};

	return key;
}

static __always_inline int entry_answer(struct efuse_ctx *req)
{
	struct entry_key key = entry_key(req);
	__u64 hash = KEY_HASH(&key);
	struct entry_value *found = TABLE_FIND(entries, hash);
	struct fuse_entry_out out = {};
	struct entry_value value;
	struct attr_value attr;
	enum outcome outcome;
	__u64 time;

	if (!found)
		return verdict(req, MISS);
	value = *found;
	COPIED();
	if (SUM(hash, &value) != value.sum)
		return verdict(req, CHANGED);
	time = left(value.expires);
	if (!time)
		return verdict(req, EXPIRED);
	TABLE_USED(req, found);
	if (value.error)
		return verdict(req, outcome_of(bpf_efuse_reply_error(req, -ENOENT, value.seq)));
	if (time != FOREVER) {
		value.valid = time / 1000000000;
		value.valid_nsec = time % 1000000000;
	}
	out.entry_valid = value.valid;
	out.entry_valid_nsec = value.valid_nsec;
	attr.seq = 0;
	if (value.nodeid) {
		outcome = attr_find(req, value.nodeid, &attr);
		if (outcome != ANSWERED)
			return verdict(req, outcome);
		out.nodeid = value.nodeid;
		out.generation = value.generation;
		out.attr_valid = attr.valid;
		out.attr_valid_nsec = attr.valid_nsec;
		out.attr = attr.attr;
	}
	return verdict(req, outcome_of(bpf_efuse_reply(req, &out, sizeof(out), value.seq, attr.seq)));
}

static __always_inline enum outcome entry_store(struct efuse_ctx *req, const struct entry_key *key,
						struct entry_value *value)
{
	__u64 hash = KEY_HASH(key);
	struct entry_value *place;

	value->seq = req->seq;
	if (!value->seq)
		return OVERLAP;
	if (!value->expires) {
		TABLE_VOID(entries, hash);
		return UNWANTED;
	}
	place = TABLE_PLACE(entries, hash);
	if (!place)
		return UNFIT;
	value->sum = SUM(hash, value);
	value->tag = table_tag(hash);
	value->used = value->seq;
	*place = *value;
	return LEARNT;
}

static __always_inline enum outcome entry_learn(struct efuse_ctx *req, const struct entry_key *key,
						const struct fuse_entry_out *out)
{
	struct entry_value value = {
		.expires = expiry(out->entry_valid, out->entry_valid_nsec),
		.nodeid = out->nodeid,
		.generation = out->generation,
		.valid = out->entry_valid,
		.valid_nsec = out->entry_valid_nsec,
	};

	if (out->nodeid) {
		enum outcome outcome = attr_learn(req, out->nodeid, &out->attr, out->attr_valid,
						  out->attr_valid_nsec);

		/* A name without attributes answers nothing */
		if (outcome != LEARNT)
			return outcome;
	}
	return entry_store(req, key, &value);
}

/* A name is known not to be there. The daemon gave no time for that. */
static __always_inline enum outcome entry_learn_absent(struct efuse_ctx *req)
{
	struct entry_key key = entry_key(req);
	struct entry_value value = { .expires = expiry(0, 0), .error = 1 };

	return entry_store(req, &key, &value);
}

/* UNLINK and RMDIR */
static __always_inline void entry_learn_removed(struct efuse_ctx *req)
{
	if (!req->error)
		count(req, entry_learn_absent(req));
}

/* RENAME and RENAME2: the old name is gone, unless something was put in its place. */
static __always_inline void entry_learn_renamed(struct efuse_ctx *req)
{
	const __u32 noreplace = 1;
	struct fuse_rename2_in in = {};

	if (req->error)
		return;
	if (req->opcode == FUSE_RENAME2 &&
	    (bpf_efuse_read_arg(req, 0, 0, &in, sizeof(in)) != sizeof(in) || in.flags & ~noreplace))
		return;
	count(req, entry_learn_absent(req));
}

/* The reply to LOOKUP and to whatever makes a name. */
static __always_inline void entry_learn_reply(struct efuse_ctx *req)
{
	struct entry_key key = entry_key(req);
	struct fuse_entry_out out;

	if (req->error == -ENOENT && req->opcode == FUSE_LOOKUP) {
		count(req, entry_learn_absent(req));
		return;
	}
	if (bpf_efuse_read_reply(req, 0, &out, sizeof(out)) != sizeof(out)) {
		count(req, UNWANTED);
		return;
	}
	count(req, entry_learn(req, &key, &out));
}

/* More than fit into one reply: an entry takes at least 160 bytes of a page. */
#define MAX_DIRENTS 32

/* Whether everything in it is known now. */
static __always_inline bool entry_learn_directory(struct efuse_ctx *req)
{
	struct entry_key key = { .parent = req->nodeid, .caller = req->caller };
	struct efuse_dirent dirent;
	__u32 offset = 0;
	bool all = true;

	for (int i = 0; i < MAX_DIRENTS; i++) {
		const struct fuse_entry_out *out = (void *)dirent.entry;
		enum outcome outcome;

		if (bpf_efuse_dirent(req, offset, &dirent))
			return all;
		offset = dirent.next;
		if (!out->nodeid) {
			/* "." and ".." are not looked up */
			all &= dirent.name_len < 3;
			continue;
		}
		key.name_hash[0] = dirent.name_hash[0];
		key.name_hash[1] = dirent.name_hash[1];
		outcome = entry_learn(req, &key, out);
		all &= outcome == LEARNT;
		count(req, outcome);
	}
	return false;
}

#endif /* EFUSE_ENTRY_H */
