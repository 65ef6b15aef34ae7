/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tables of bounded size: arrays in which a key has a few places, and the value that
 * was used longest ago makes room. A hash map of the kernel's with LRU costs some five
 * times as much to put something into (docs/decisions.md 39), and what has just been
 * learnt is often not asked for again.
 *
 * Places are read and written without locks. Each value ends with its sum, which
 * state.h describes, then its tag and when it was used; whoever reads copies it and
 * checks the sum of the copy, over the key as well, so what another program is
 * writing just then is not taken for an answer.
 */
#ifndef EFUSE_TABLE_H
#define EFUSE_TABLE_H

#include "state.h"

/* Places that a key may be in, one after the other */
#define WAYS 4

/* How many entries each has; set by the loader (`TABLES` there). */
const volatile struct {
	__u32 entries;
	__u32 attrs;
	__u32 statxs;
	__u32 xattrs;
} tables SEC(".rodata.tables") = {};

/* The last members of a value. */
#define TABLE_VALUE                                                                                \
	__u64 sum; /* over the key and all before */                                               \
	__u64 tag; /* of the key, 0: nothing is here */                                            \
	__u64 used /* the tick */

/* No place of a table */
#define NOWHERE (~0U)

/* Of the hash of a key. */
static __always_inline __u64 table_tag(__u64 hash)
{
	return hash | 1;
}

/* Where the first of its places is. */
static __always_inline __u32 table_first(__u64 hash, __u32 size)
{
	return (__u32)((hash >> 32) * size >> 32) & ~(__u32)(WAYS - 1);
}

/*
 * The map, and two functions that say where in it a key is (or NOWHERE) and where it
 * is to be put: into its own place, a free one, or the one longest not used. The
 * verifier looks at them once, as they are neither static nor inlined, and not for
 * each way through the programs that call them.
 */
#define TABLE(name, size, value_type)                                                              \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, size);                                                         \
		__type(key, __u32);                                                                \
		__type(value, value_type);                                                         \
	} name SEC(".maps");                                                                       \
                                                                                                   \
	__noinline __u32 name##_find(__u64 hash)                                                   \
	{                                                                                          \
		__u32 first = table_first(hash, tables.name);                                      \
                                                                                                   \
		for (__u32 way = 0; way < WAYS; way++) {                                           \
			__u32 at = first + way;                                                    \
			value_type *place = bpf_map_lookup_elem(&name, &at);                       \
                                                                                                   \
			if (place && place->tag == table_tag(hash))                                \
				return at;                                                         \
		}                                                                                  \
		return NOWHERE;                                                                    \
	}                                                                                          \
                                                                                                   \
	__noinline __u32 name##_place(__u64 hash)                                                  \
	{                                                                                          \
		__u32 first = table_first(hash, tables.name);                                      \
		__u64 oldest = ~0ULL;                                                              \
		__u32 best = NOWHERE;                                                              \
                                                                                                   \
		for (__u32 way = 0; way < WAYS; way++) {                                           \
			__u32 at = first + way;                                                    \
			value_type *place = bpf_map_lookup_elem(&name, &at);                       \
                                                                                                   \
			if (!place)                                                                \
				continue;                                                          \
			if (place->tag == table_tag(hash))                                         \
				return at;                                                         \
			if (place->used < oldest) {                                                \
				oldest = place->used;                                              \
				best = at;                                                         \
			}                                                                          \
		}                                                                                  \
		return best;                                                                       \
	}

/* What is behind such a number, or NULL. */
#define TABLE_AT(name, index)                                                                      \
	({                                                                                         \
		__u32 at__ = index;                                                                \
		(typeof(name.value))bpf_map_lookup_elem(&name, &at__);                             \
	})
#define TABLE_FIND(name, hash)	TABLE_AT(name, name##_find(hash))
#define TABLE_PLACE(name, hash) TABLE_AT(name, name##_place(hash))

/* What was known of a key is older than a reply that may not be kept: its sum is wrong from here on. */
#define TABLE_VOID(name, hash)                                                                     \
	do {                                                                                       \
		typeof(TABLE_FIND(name, hash)) known = TABLE_FIND(name, hash);                     \
		if (known)                                                                         \
			known->sum = 0;                                                            \
	} while (0)

/* Not written to where it is so already: processors share it. */
#define TABLE_USED(req, found)                                                                     \
	do {                                                                                       \
		if ((found)->used != (req)->seq)                                                   \
			(found)->used = (req)->seq;                                                \
	} while (0)

#endif /* EFUSE_TABLE_H */
