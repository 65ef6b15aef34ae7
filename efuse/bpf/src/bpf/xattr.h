/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replies of variable length by node: extended attributes, lists of their names,
 * targets of symbolic links. Longer ones than XATTR_MAX are left to the daemon.
 */
#ifndef EFUSE_XATTR_H
#define EFUSE_XATTR_H

#include "table.h"

#define XATTR_MAX   512
#define XATTR_CHUNK 64

struct xattr_key {
	__u64 nodeid;
	__u64 caller;
	__u64 name_hash[2];
	__u64 opcode;
};

struct xattr_value {
	__u64 seq;
	__u64 expires;
	/* 0, or the daemon's error as a positive number: there is no such attribute */
	__u32 error;
	__u32 size;
	__u8 data[XATTR_MAX];
	TABLE_VALUE; /* the sum is over as much of the data as there is */
};

TABLE(xattrs, 8192, struct xattr_value)

static __always_inline struct xattr_key xattr_key(struct efuse_ctx *req)
{
	struct xattr_key key = {
		.nodeid = req->nodeid,
		.caller = req->caller,
		.name_hash = { req->name_hash[0], req->name_hash[1] },
		.opcode = req->opcode,
	};

	return key;
}

static __always_inline __u64 xattr_head_sum(__u64 hash, __u64 seq, __u64 expires, __u32 error,
					    __u32 size)
{
	__u64 sum = mix(hash, seq);

	sum = mix(sum, expires);
	return mix(sum, (__u64)error << 32 | size);
}

static __always_inline __u64 xattr_expiry(void)
{
	if (tunables.until_invalidated)
		return FOREVER;
	return tunables.xattr_ttl_ns ? bpf_ktime_get_ns() + tunables.xattr_ttl_ns : 0;
}

static __always_inline int xattr_answer(struct efuse_ctx *req)
{
	struct xattr_key key = xattr_key(req);
	__u64 hash = KEY_HASH(&key);
	struct xattr_value *value = TABLE_FIND(xattrs, hash);
	struct fuse_getxattr_in in = {};
	struct fuse_getxattr_out out = {};
	__u64 seq, expires, sum;
	__u32 error, size;
	int err;

	if (!value)
		return verdict(req, MISS);
	seq = value->seq;
	expires = value->expires;
	error = value->error;
	size = value->size;
	COPIED();
	if (!left(expires))
		return verdict(req, EXPIRED);
	if (size > XATTR_MAX)
		return verdict(req, CHANGED);
	if (req->opcode == FUSE_READLINK)
		in.size = XATTR_MAX;
	else
		bpf_efuse_read_arg(req, 0, 0, &in, sizeof(in));
	out.size = size;

	/* First the answer, then whether what it was made of was whole */
	if (error)
		err = bpf_efuse_reply_error(req, -(int)(error & 511), seq);
	else if (!in.size)
		err = bpf_efuse_reply(req, &out, sizeof(out), seq, 0);
	else if (in.size < size)
		err = bpf_efuse_reply_error(req, -ERANGE, seq);
	else
		err = bpf_efuse_reply(req, value->data, size, seq, 0);
	if (err)
		return verdict(req, outcome_of(err));
	COPIED();
	sum = xattr_head_sum(hash, seq, expires, error, size);
	for (int i = 0; i < XATTR_MAX / 8; i++) {
		if (i * 8 >= size)
			break;
		sum = mix(sum, ((const __u64 *)value->data)[i]);
	}
	if (sum != value->sum)
		return verdict(req, CHANGED);
	TABLE_USED(req, value);
	return verdict(req, ANSWERED);
}

static __always_inline void xattr_learn(struct efuse_ctx *req)
{
	struct xattr_key key = xattr_key(req);
	__u64 chunk[XATTR_CHUNK / 8];
	__u64 expires = xattr_expiry();
	__u64 hash = KEY_HASH(&key);
	__u32 error = 0, size = 0;
	struct xattr_value *value;
	__u64 seq = req->seq, sum;

	if (!seq) {
		count(req, OVERLAP);
		return;
	}
	if (req->error == -ENODATA || req->error == -EOPNOTSUPP)
		error = -req->error;
	else if (!req->error)
		size = req->reply_size;
	if (!expires || (req->error && !error)) {
		count(req, UNWANTED);
		return;
	}
	if (!error && req->opcode != FUSE_READLINK) {
		struct fuse_getxattr_in in = {};

		/* Asked for the size alone: there is no value to learn */
		bpf_efuse_read_arg(req, 0, 0, &in, sizeof(in));
		if (!in.size) {
			count(req, UNWANTED);
			return;
		}
	}
	value = TABLE_PLACE(xattrs, hash);
	if (!value || size > XATTR_MAX) {
		count(req, UNFIT);
		return;
	}
	sum = xattr_head_sum(hash, seq, expires, error, size);
	for (int i = 0; i < XATTR_MAX / XATTR_CHUNK; i++) {
		if (i * XATTR_CHUNK >= size)
			break;
		/* Fills up with zeroes */
		if (bpf_efuse_read_reply(req, i * XATTR_CHUNK, chunk, sizeof(chunk)) < 0) {
			count(req, UNFIT);
			return;
		}
		for (int j = 0; j < XATTR_CHUNK / 8; j++) {
			if (i * XATTR_CHUNK + j * 8 < size)
				sum = mix(sum, chunk[j]);
			((__u64 *)value->data)[i * (XATTR_CHUNK / 8) + j] = chunk[j];
		}
	}
	value->seq = seq;
	value->expires = expires;
	value->error = error;
	value->size = size;
	value->sum = sum;
	value->tag = table_tag(hash);
	value->used = seq;
	count(req, LEARNT);
}

#endif /* EFUSE_XATTR_H */
