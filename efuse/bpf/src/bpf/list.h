/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Blocks of directories whose names are all known. Asking for them again, the
 * kernel is told that names alone will do: the daemon then looks up none of them,
 * and the lookups that follow are answered from the maps.
 *
 * A list of names is always a right answer, so what is in here is advice: no value
 * is checked for having been torn or given to another key.
 */
#ifndef EFUSE_LIST_H
#define EFUSE_LIST_H

#include "entry.h"

/* A block by where it begins: FUSE's offset of a directory */
struct list_key {
	__u64 nodeid;
	__u64 caller;
	__u64 offset;
};

/* When its names were learnt */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct list_key);
	__type(value, __u64);
} lists SEC(".maps");

/* When the daemon was last asked for a name that is in the directory */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct node_key);
	__type(value, __u64);
} unlisted SEC(".maps");

static __always_inline bool list_key(struct efuse_ctx *req, struct list_key *key)
{
	key->nodeid = req->nodeid;
	key->caller = req->caller;
	return bpf_efuse_read_arg(req, 0, __builtin_offsetof(struct fuse_read_in, offset),
				  &key->offset, sizeof(key->offset)) == sizeof(key->offset);
}

static __always_inline int list_advise(struct efuse_ctx *req)
{
	struct node_key dir = { .nodeid = req->nodeid, .caller = req->caller };
	struct list_key key;
	__u64 *learnt, *asked;

	/* The names' own timeouts would pass, and each be asked for by itself */
	if (!tunables.until_invalidated || !list_key(req, &key))
		return EFUSE_PASS;
	learnt = bpf_map_lookup_elem(&lists, &key);
	if (!learnt)
		return EFUSE_PASS;
	asked = bpf_map_lookup_elem(&unlisted, &dir);
	return asked && *asked >= *learnt ? EFUSE_PASS : EFUSE_LIST;
}

/* The reply to READDIRPLUS. */
static __always_inline void list_learn(struct efuse_ctx *req)
{
	__u64 seq = req->seq;
	struct list_key key;

	if (entry_learn_directory(req) && seq && list_key(req, &key))
		bpf_map_update_elem(&lists, &key, &seq, BPF_ANY);
}

/* The reply to LOOKUP: as to all that makes a name, and a name that was there. */
static __always_inline void list_learn_lookup(struct efuse_ctx *req)
{
	struct node_key dir = { .nodeid = req->nodeid, .caller = req->caller };
	__u64 seq = req->seq;

	entry_learn_reply(req);
	if (tunables.until_invalidated && !req->error && seq)
		bpf_map_update_elem(&unlisted, &dir, &seq, BPF_ANY);
}

#endif /* EFUSE_LIST_H */
