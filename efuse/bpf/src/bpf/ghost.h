/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a cache of the connection's size would hold if all reads went through it,
 * without one: names of blocks alone, and of those one in eight or more. So a path that is
 * not taken has a hit rate, and locality that comes back is seen while everything
 * is read from the backing file.
 *
 * Sets of a few tags, the last one used in front. Nothing is locked: what goes
 * wrong then is an estimate.
 */
#ifndef EFUSE_GHOST_H
#define EFUSE_GHOST_H

#include "efuse.h"

/* Enough for 1 GiB; a larger cache is taken for one of that size */
#define GHOST_SETS	4096
#define GHOST_WAYS	8
/* Blocks of the sample are looked at, for which programs are asked in any case */
#define GHOST_BLOCK	EFUSE_SAMPLE_BLOCK
/* Groups of one request that are looked at: 1 MiB in groups of order 0 */
#define GHOST_GROUPS	33

struct ghost_set {
	__u32 tag[GHOST_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GHOST_SETS);
	__type(key, __u32);
	__type(value, struct ghost_set);
} ghost SEC(".maps");

/* One request. */
struct ghost_look {
	__u64 nodeid;
	__u64 first;
	__u64 last;
	__u32 sets;
	/* Of the sample: that of the file's reads */
	__u32 order;
	/* It takes blocks away and reads none */
	__u32 drop;
	/* Blocks that were looked for, and found */
	__u32 looked;
	__u32 found;
};

/* Puts @tag in front, for whatever is the last. Whether it was there. */
static __always_inline int ghost_use(struct ghost_set *set, __u32 tag)
{
	__u32 carry = tag;

#pragma unroll
	for (int i = 0; i < GHOST_WAYS; i++) {
		__u32 old = set->tag[i];

		set->tag[i] = carry;
		if (old == tag)
			return 1;
		carry = old;
	}
	return 0;
}

static __always_inline void ghost_forget(struct ghost_set *set, __u32 tag)
{
#pragma unroll
	for (int i = 0; i < GHOST_WAYS; i++)
		if (set->tag[i] == tag)
			set->tag[i] = 0;
}

static __always_inline void ghost_group(struct ghost_look *look, __u64 group)
{
	__u64 hash = efuse_sample_hash(look->nodeid, group, look->order);
	__u64 blocks = EFUSE_SAMPLE_GROUP << look->order;
	__u64 block = group * blocks + (hash & (blocks - 1));
	struct ghost_set *set;
	__u32 tag, index;

	if (block < look->first || block > look->last)
		return;
	/* One of these stands for more blocks, so there are fewer sets for them */
	index = ((__u32)(hash >> 8) % look->sets) << look->order;
	set = bpf_map_lookup_elem(&ghost, &index);
	if (!set)
		return;
	tag = (__u32)(hash >> 32) | 1;
	if (look->drop) {
		ghost_forget(set, tag);
		return;
	}
	look->looked++;
	look->found += ghost_use(set, tag);
}

static long ghost_step(__u32 index, void *arg)
{
	struct ghost_look *look = arg;

	ghost_group(look, look->first / (EFUSE_SAMPLE_GROUP << look->order) + index);
	return 0;
}

/*
 * Reads a request's blocks, or takes them away. 1 if a cache would have had them all,
 * 0 if not, negative if none of them is one that is looked at.
 */
static __always_inline int ghost_look(struct efuse_io *io, __u32 order, int drop)
{
	__u64 group = EFUSE_SAMPLE_GROUP << order;
	__u64 sets = io->cache_bytes / (GHOST_BLOCK * EFUSE_SAMPLE_GROUP * GHOST_WAYS);
	struct ghost_look look = {
		.nodeid = io->nodeid,
		.first = io->offset / GHOST_BLOCK,
		.last = (io->offset + io->size - 1) / GHOST_BLOCK,
		.order = order,
		.drop = drop,
	};
	__u64 groups;

	if (!io->size || order > EFUSE_SAMPLE_ORDER)
		return -1;
	look.sets = (sets > GHOST_SETS ? GHOST_SETS : sets) >> order;
	if (!look.sets)
		look.sets = 1;
	groups = look.last / group - look.first / group + 1;
	if (groups == 1)
		ghost_group(&look, look.first / group);
	else
		bpf_loop(groups < GHOST_GROUPS ? groups : GHOST_GROUPS, ghost_step, &look, 0);
	return look.looked ? look.found == look.looked : -1;
}

#endif /* EFUSE_GHOST_H */
