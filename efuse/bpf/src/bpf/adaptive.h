/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The adaptive choice between cache and backing file, for each file apart.
 *
 * A file begins on the cache, for as many reads as it has blocks, so that there is
 * something to compare. Then come rounds: a probe, in which reads take turns on both
 * paths and tell how long they took, and a prediction that the path that was faster
 * for these very reads stays so for the rest of the round. A hit or a miss is no
 * criterion of its own: it shows in the time. The other path has to be faster by some
 * per cent before it is taken. The first probe after a round may find a cold cache,
 * but leaves in it what it read: where reads come back, the next one finds that.
 *
 * Counts are shared by all processors without a lock. What goes wrong then is a few
 * reads of a probe, and never data: any path is right for any read.
 */
#ifndef EFUSE_ADAPTIVE_H
#define EFUSE_ADAPTIVE_H

#include "efuse.h"

const volatile struct {
	/* Reads of a probe, half of them on each path */
	__u32 probe;
	/* Reads of a round, the probe included */
	__u32 round;
	/* Per cent that the other path has to be faster */
	__u32 hysteresis;
	/* Reads on the cache before the first probe, at most */
	__u32 warm;
	/* Larger reads are not cached, bytes */
	__u32 largest;
} adaptive SEC(".rodata.adaptive") = {
	.probe = 32,
	.round = 1024,
	.hysteresis = 10,
	.warm = 8192,
	.largest = 1 << 20,
};

struct file_state {
	/* Reads since the round began */
	__u64 reads;
	/* Of the probe, by path: backing file, cache */
	__u64 time[2];
	__u64 bytes[2];
	__u64 hits;
	/* Reads until the first probe */
	__u64 warm;
	/* Rounds, and in how many of them the path changed */
	__u32 rounds;
	__u32 changes;
	__u32 path;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct file_state);
} files SEC(".maps");

/* Whether a file's path is left to us: buffered I/O has the page cache below. */
static __always_inline int undecided(const struct efuse_io *io)
{
	return (io->flags & EFUSE_IO_DIRECT) && io->size <= adaptive.largest;
}

static __always_inline struct file_state *file_state(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state = bpf_map_lookup_elem(&files, &nodeid);
	struct file_state fresh = {
		.path = EFUSE_IO_CACHE,
		.warm = io->file_size / 4096,
	};

	if (state)
		return state;
	if (fresh.warm > adaptive.warm)
		fresh.warm = adaptive.warm;
	bpf_map_update_elem(&files, &nodeid, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&files, &nodeid);
}

/* The end of a probe: the path for the rest of the round. */
static __always_inline void predict(struct file_state *state)
{
	__u64 kept = 100 - adaptive.hysteresis;
	__u64 backing, cache;
	__u32 path = state->path;

	state->rounds++;
	if (!state->bytes[0] || !state->bytes[1])
		return;
	backing = state->time[0] * 1024 / state->bytes[0];
	cache = state->time[1] * 1024 / state->bytes[1];
	if (path == EFUSE_IO_CACHE && backing * 100 < cache * kept)
		path = EFUSE_IO_BACKING;
	else if (path == EFUSE_IO_BACKING && cache * 100 < backing * kept)
		path = EFUSE_IO_CACHE;
	if (path != state->path)
		state->changes++;
	state->path = path;
}

static __always_inline int adaptive_read(struct efuse_io *io)
{
	struct file_state *state;
	__u64 n;

	if (!undecided(io))
		return EFUSE_IO_BACKING;
	state = file_state(io);
	if (!state)
		return EFUSE_IO_BACKING;
	n = __sync_fetch_and_add(&state->reads, 1);
	if (state->warm) {
		if (n < state->warm)
			return EFUSE_IO_CACHE;
		state->warm = 0;
		n = adaptive.round;
	}
	if (n >= adaptive.round) {
		state->reads = 1;
		state->time[0] = state->time[1] = 0;
		state->bytes[0] = state->bytes[1] = 0;
		state->hits = 0;
		n = 0;
	}
	if (n < adaptive.probe) {
		io->cookie = n & 1;
		return (n & 1 ? EFUSE_IO_CACHE : EFUSE_IO_BACKING) | EFUSE_IO_TELL;
	}
	/* By now those of the probe have ended, or nearly all of them */
	if (n == 2 * adaptive.probe)
		predict(state);
	return state->path;
}

static __always_inline void adaptive_read_after(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state = bpf_map_lookup_elem(&files, &nodeid);
	__u32 path = io->cookie & 1;

	if (!state || io->result <= 0)
		return;
	__sync_fetch_and_add(&state->time[path], io->time_ns);
	__sync_fetch_and_add(&state->bytes[path], io->result);
	if (io->path == EFUSE_IO_CACHE)
		__sync_fetch_and_add(&state->hits, 1);
}

/* Writes keep cached blocks true only where reads look for them. */
static __always_inline int adaptive_write(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state;

	if (!undecided(io))
		return EFUSE_IO_BACKING;
	state = bpf_map_lookup_elem(&files, &nodeid);
	return state && state->path == EFUSE_IO_CACHE ? EFUSE_IO_CACHE : EFUSE_IO_BACKING;
}

#endif /* EFUSE_ADAPTIVE_H */
