/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all metadata programs share: how long something is believed, how torn
 * values are told, and what is counted.
 *
 * Nothing here removes what has become wrong. Each value holds the tick at which
 * it was learnt, and the kernel takes an answer only if nothing changed since
 * (kernel/efuse/change.c). What is not asked for any more leaves the maps by age.
 */
#ifndef EFUSE_STATE_H
#define EFUSE_STATE_H

#include "efuse.h"
#include "wire.h"

/* Set before the programs are loaded; `struct Tunables` of the loader. */
const volatile struct {
	/*
	 * How long extended attributes and targets of links are believed where
	 * until_invalidated is off, ns. The protocol has no timeout for them; 0 is
	 * never.
	 */
	__u64 xattr_ttl_ns;
	/*
	 * The daemon is the only one who changes the tree, and all it does comes
	 * through this mount: what was learnt holds until it is changed here or
	 * the daemon says so. Otherwise the timeouts of each reply hold.
	 */
	__u32 until_invalidated;
	__u32 pad;
} tunables SEC(".rodata.efuse") = {};

#define FOREVER (~0ULL)

/* Why a request was answered or not, and what became of a reply */
enum outcome {
	ANSWERED,
	MISS,	  /* not in the maps */
	EXPIRED,  /* the daemon's timeout has passed */
	CHANGED,  /* something it depends on changed since, or was replaced just now */
	GONE,	  /* its inode is not in memory, and the daemon may have forgotten it */
	UNFIT,	  /* too large for the maps, or no valid reply */
	LEARNT,	  /* after: kept */
	OVERLAP,  /* after: not kept, as another change was under way */
	UNWANTED, /* after: not kept, as the daemon allows no time or the reply is of no use */
	OUTCOMES,
};

struct counts {
	__u64 n[OUTCOMES];
};

/* By opcode. Read by `efuse show` and the harness. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OPCODES);
	__type(key, __u32);
	__type(value, struct counts);
} stats SEC(".maps");

static __always_inline void count(struct efuse_ctx *req, enum outcome outcome)
{
	__u32 opcode = req->opcode;
	struct counts *counts = bpf_map_lookup_elem(&stats, &opcode);
	__u64 index = outcome;

	/* The compiler knows the range and drops the check that the verifier needs */
	asm volatile("" : "+r"(index));
	if (counts && index < OUTCOMES)
		counts->n[index]++;
}

/* What bpf_efuse_reply() said, as an outcome. */
static __always_inline enum outcome outcome_of(int err)
{
	switch (err) {
	case 0:
		return ANSWERED;
	case -ESTALE:
		return CHANGED;
	case -ENOENT:
		return GONE;
	default:
		return UNFIT;
	}
}

static __always_inline int verdict(struct efuse_ctx *req, enum outcome outcome)
{
	count(req, outcome);
	return outcome == ANSWERED ? EFUSE_ANSWER : EFUSE_PASS;
}

/* When something ends that the daemon believes for so long; 0 if it is of no use. */
static __always_inline __u64 expiry(__u64 seconds, __u32 nsec)
{
	const __u64 second = 1000000000;

	if (tunables.until_invalidated)
		return FOREVER;
	if (!seconds && !nsec)
		return 0;
	/* Thirty years are as good as any longer time, and do not overflow */
	if (seconds > second)
		seconds = second;
	return bpf_ktime_get_ns() + seconds * second + nsec;
}

/* Nanoseconds left; 0 if it has ended. */
static __always_inline __u64 left(__u64 expires)
{
	__u64 now;

	if (expires == FOREVER)
		return FOREVER;
	now = bpf_ktime_get_ns();
	return expires > now ? expires - now : 0;
}

/*
 * An element of a hash map may be given to another key while it is read. So each
 * value ends with a sum over key and value: what does not match was torn or is
 * someone else's. Not for security, the maps are written by us alone.
 */
/*
 * After a value has been copied: what follows uses the copy and does not read the
 * map again, as the compiler otherwise may.
 */
#define COPIED() asm volatile("" ::: "memory")

static __always_inline __u64 mix(__u64 sum, __u64 word)
{
	sum = (sum ^ word) * 0x9e3779b97f4a7c15ULL;
	return sum ^ (sum >> 29);
}

static __always_inline __u64 mix_words(__u64 sum, const __u64 *words, int n)
{
	for (int i = 0; i < n; i++)
		sum = mix(sum, words[i]);
	return sum;
}

/* Of a key, for finding it, and what the sum of its value begins with. */
#define KEY_HASH(key) mix_words(0, (const __u64 *)(key), sizeof(*(key)) / 8)

/* Sum of a key, of which this is the hash, and of a value up to its member "sum". */
#define SUM(hash, value)                                                                           \
	mix_words(hash, (const __u64 *)(value), __builtin_offsetof(typeof(*(value)), sum) / 8)

#endif /* EFUSE_STATE_H */
