/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Attributes by node: one map for those of GETATTR and LOOKUP, one for replies to
 * STATX, which have more in them.
 */
#ifndef EFUSE_ATTR_H
#define EFUSE_ATTR_H

#include "table.h"

struct node_key {
	__u64 nodeid;
	__u64 caller;
};

struct attr_value {
	__u64 seq;
	__u64 expires;
	__u64 valid;
	__u32 valid_nsec;
	__u32 pad;
	struct fuse_attr attr;
	TABLE_VALUE;
};

struct statx_value {
	__u64 seq;
	__u64 expires;
	struct fuse_statx_out out;
	TABLE_VALUE;
};

TABLE(attrs, 65536, struct attr_value)
TABLE(statxs, 32768, struct statx_value)

/* Copies the attributes of a node; ANSWERED if they are there. */
static __always_inline enum outcome attr_find(struct efuse_ctx *req, __u64 nodeid,
					      struct attr_value *out)
{
	struct node_key key = { .nodeid = nodeid, .caller = req->caller };
	__u64 hash = KEY_HASH(&key);
	struct attr_value *value = TABLE_FIND(attrs, hash);
	__u64 time;

	if (!value)
		return MISS;
	*out = *value;
	COPIED();
	if (SUM(hash, out) != out->sum)
		return CHANGED;
	time = left(out->expires);
	if (!time)
		return EXPIRED;
	TABLE_USED(req, value);
	if (time != FOREVER) {
		out->valid = time / 1000000000;
		out->valid_nsec = time % 1000000000;
	}
	return ANSWERED;
}

static __always_inline enum outcome attr_learn(struct efuse_ctx *req, __u64 nodeid,
					       const struct fuse_attr *attr, __u64 valid,
					       __u32 valid_nsec)
{
	struct node_key key = { .nodeid = nodeid, .caller = req->caller };
	__u64 hash = KEY_HASH(&key);
	struct attr_value value = {
		.seq = req->seq,
		.expires = expiry(valid, valid_nsec),
		.valid = valid,
		.valid_nsec = valid_nsec,
		.attr = *attr,
		.tag = table_tag(hash),
		.used = req->seq,
	};
	struct attr_value *place;

	if (!value.seq)
		return OVERLAP;
	if (!value.expires) {
		TABLE_VOID(attrs, hash);
		return UNWANTED;
	}
	place = TABLE_PLACE(attrs, hash);
	if (!place)
		return UNFIT;
	value.sum = SUM(hash, &value);
	*place = value;
	return LEARNT;
}

static __always_inline int attr_answer(struct efuse_ctx *req)
{
	struct attr_value value;
	struct fuse_attr_out out = {};
	enum outcome outcome = attr_find(req, req->nodeid, &value);

	if (outcome == ANSWERED) {
		out.attr_valid = value.valid;
		out.attr_valid_nsec = value.valid_nsec;
		out.attr = value.attr;
		outcome = outcome_of(bpf_efuse_reply(req, &out, sizeof(out), value.seq, 0));
	}
	return verdict(req, outcome);
}

/* The reply to GETATTR or SETATTR. */
static __always_inline void attr_learn_reply(struct efuse_ctx *req)
{
	struct fuse_attr_out out;

	if (bpf_efuse_read_reply(req, 0, &out, sizeof(out)) != sizeof(out)) {
		count(req, UNWANTED);
		return;
	}
	count(req, attr_learn(req, req->nodeid, &out.attr, out.attr_valid, out.attr_valid_nsec));
}

static __always_inline int statx_answer(struct efuse_ctx *req)
{
	struct node_key key = { .nodeid = req->nodeid, .caller = req->caller };
	__u64 hash = KEY_HASH(&key);
	struct statx_value *value = TABLE_FIND(statxs, hash);
	struct statx_value copy;
	__u64 time;

	if (!value)
		return verdict(req, MISS);
	copy = *value;
	COPIED();
	if (SUM(hash, &copy) != copy.sum)
		return verdict(req, CHANGED);
	time = left(copy.expires);
	if (!time)
		return verdict(req, EXPIRED);
	TABLE_USED(req, value);
	if (time != FOREVER) {
		copy.out.attr_valid = time / 1000000000;
		copy.out.attr_valid_nsec = time % 1000000000;
	}
	return verdict(req, outcome_of(bpf_efuse_reply(req, &copy.out, sizeof(copy.out), copy.seq, 0)));
}

static __always_inline void statx_learn(struct efuse_ctx *req)
{
	struct node_key key = { .nodeid = req->nodeid, .caller = req->caller };
	__u64 hash = KEY_HASH(&key);
	struct statx_value value = {
		.seq = req->seq,
		.tag = table_tag(hash),
		.used = req->seq,
	};
	struct statx_value *place;

	if (bpf_efuse_read_reply(req, 0, &value.out, sizeof(value.out)) != sizeof(value.out)) {
		count(req, UNWANTED);
		return;
	}
	value.expires = expiry(value.out.attr_valid, value.out.attr_valid_nsec);
	if (!value.seq) {
		count(req, OVERLAP);
		return;
	}
	if (!value.expires) {
		TABLE_VOID(statxs, hash);
		count(req, UNWANTED);
		return;
	}
	place = TABLE_PLACE(statxs, hash);
	if (!place) {
		count(req, UNFIT);
		return;
	}
	value.sum = SUM(hash, &value);
	*place = value;
	count(req, LEARNT);
}

#endif /* EFUSE_ATTR_H */
