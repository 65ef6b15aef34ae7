/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The adaptive choice between cache and backing file, for each file apart.
 *
 * A file begins on the cache, for twice as many blocks as it has or as many as fit, or for a
 * round if it is far larger, so that there is something to compare. Then come rounds: a probe,
 * in which some reads take the other path, between many that do not; a prediction that the cheaper
 * path stays so; the rest of the round. Of the reads on the path that is taken some are told of all the time.
 *
 * A path's cost is what a byte took: time, or where the processor of the reader is
 * never idle, the processor's work alone. Waiting overlaps then, and who waits less
 * for one read does not get more of them. The cost of the cache is that of a hit
 * and that of a miss by the share of hits. On the cache that is known from the reads
 * themselves. Off it the reads of a probe say little, as they find a cold cache, and
 * the share is that of a model of it (ghost.h), less what the model was too good by
 * when that could be seen. A cache that is taken again is cold as well, and it is the model
 * that counts until as many blocks were read as in the beginning.
 *
 * Costs are averages over rounds, and begin with what is usual for reads of that size in
 * other files: they are the machine's. The share of hits is the file's, and the last
 * round's alone.
 *
 * Between probes the kernel keeps the path and asks about reads of the sample only, of
 * which each counts for as many as there are to one.
 *
 * Counts are shared by all processors without a lock. What goes wrong then is a few
 * reads of a probe, and never data: any path is right for any read.
 */
#ifndef EFUSE_ADAPTIVE_H
#define EFUSE_ADAPTIVE_H

#include "efuse.h"
#include "ghost.h"

/* Set before the programs are loaded, by name: `efuse attach --adaptive`. */
const volatile struct adaptive_tunables {
	/* Reads of a probe on the path that is not taken */
	__u32 probe;
	/* Of so many reads of a probe one is on that path, and of all reads one is told of */
	__u32 spread;
	/* Reads of a round, the probe included. Here and in a probe 64 KiB more count once more */
	__u32 round;
	/* Per cent that the cache has to be cheaper to be taken */
	__u32 take;
	/* Per cent that the backing file has to be cheaper for the cache to be left */
	__u32 keep;
	/* Blocks read through the cache before the first probe, at most */
	__u32 warm;
	/* Larger reads are not cached, bytes */
	__u32 largest;
	/* Per cent of idle time below which the processor is what is short */
	__u32 idle;
} adaptive SEC(".rodata.adaptive") = {
	.probe = 16,
	.spread = 8,
	.round = 1024,
	.take = 10,
	.keep = 3,
	.warm = 16384,
	.largest = 1 << 20,
	.idle = 10,
};

/* Writes up to this size keep the cache, larger ones take their blocks away (efuse_i.h) */
#define ADAPTIVE_KEPT (32 * GHOST_BLOCK)

/* How a read went that was told of */
enum how {
	BACKING,
	HIT,
	MISS_CACHE,
	HOWS,
};

/* As what a cost is counted */
enum measure {
	TIME,
	WORK,
	MEASURES,
};

/*
 * Costs are in 1/4096 ns a byte. An interrupt that takes the time of one read for the
 * end of many others counts as no more than so many times what is usual.
 */
#define COST_SHIFT	12
#define COST_CLIP	4
/* Reads that what is usual counts for, beside a file's own */
#define USUAL_READS	32

/* What is usual for reads of a size, whatever the file; moves slowly. */
struct usual {
	__u64 cost[MEASURES];
};

#define SIZES 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZES * HOWS);
	__type(key, __u32);
	__type(value, struct usual);
} usual SEC(".maps");

/* Of a file's reads of one kind. Halved at each prediction. */
struct cost {
	__u64 reads[MEASURES];
	__u64 sum[MEASURES];
};

/* Of one file. The first four are read by `efuse show`. */
struct file_state {
	__u32 path;
	/* Rounds that were predicted, and how many of them changed the path */
	__u32 rounds;
	__u32 changes;
	/* Rounds in which processors were short */
	__u32 short_rounds;
	/* Reads, and how far the round is; a large read counts for more than one there */
	__u64 reads;
	__u64 at;
	/* Blocks until the first probe, and until what the cache has says something of it */
	__s64 warm;
	__s64 cold;
	struct cost cost[HOWS];
	/* Since the last prediction: reads that were told of and chosen for the cache, hits */
	__u64 told;
	__u64 hits;
	/* Reads that the model was asked for, and would have had */
	__u64 looked;
	__u64 found;
	/* When the last prediction was, and the idle time of that processor then */
	__u64 since;
	__u64 idle;
	__u32 cpu;
	/* How much of what the model has the cache had, of 256 */
	__u32 trust;
	/* Size of the last read, as an index of "usual" */
	__u32 size;
	/* Of the sample that it is in */
	__u32 order;
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

static __always_inline void begin(struct file_state *state)
{
	state->since = bpf_ktime_get_ns();
	state->cpu = bpf_get_smp_processor_id();
	state->idle = bpf_efuse_idle_ns(state->cpu);
}

/* Blocks that are read through a cold cache until it has most of what it will have. */
static __always_inline __u64 warm_blocks(const struct efuse_io *io)
{
	__u64 blocks = io->file_size / GHOST_BLOCK;
	__u64 room = io->cache_bytes / GHOST_BLOCK;

	/* In any order: once over all of them would leave out a third */
	if (blocks <= room)
		return 2 * blocks;
	/* Of what does not fit by far few blocks can be hit; which, the model finds out */
	return blocks / 4 > room ? adaptive.round : room;
}

/* A file that is read for the first time. */
static __noinline int file_begins(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state fresh = {
		.path = EFUSE_IO_CACHE,
		.trust = 256,
	};
	__u64 blocks = warm_blocks(io);

	fresh.warm = blocks < adaptive.warm ? blocks : adaptive.warm;
	begin(&fresh);
	bpf_map_update_elem(&files, &nodeid, &fresh, BPF_NOEXIST);
	return 0;
}

static __always_inline struct file_state *file_state(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state = bpf_map_lookup_elem(&files, &nodeid);

	if (state)
		return state;
	file_begins(io);
	return bpf_map_lookup_elem(&files, &nodeid);
}

static __always_inline struct usual *usual_of(__u32 size, __u32 how)
{
	__u32 index = (size % SIZES) * HOWS + how;

	return bpf_map_lookup_elem(&usual, &index);
}

/* Powers of two from 512 bytes on. */
static __always_inline __u32 size_class(__u64 size)
{
	__u32 class = 0;

	size >>= 10;
#pragma unroll
	for (int i = 0; i < SIZES - 1; i++) {
		class += size != 0;
		size >>= 1;
	}
	return class;
}

/* 0 if neither this file nor another had such a read. */
static __always_inline __u64 cost_of(const struct file_state *state, __u32 how, int measure)
{
	const struct cost *cost = &state->cost[how];
	struct usual *usual = usual_of(state->size, how);
	__u64 most = usual ? usual->cost[measure] : 0;
	__u64 weight = most ? USUAL_READS : 0;
	__u64 reads = cost->reads[measure] + weight;

	return reads ? (cost->sum[measure] + most * weight) / reads : 0;
}

/* Whether the processor of the reader was never idle since the last prediction. */
static __always_inline int processor_short(const struct file_state *state)
{
	__u64 wall = bpf_ktime_get_ns() - state->since;
	__u64 idle = bpf_efuse_idle_ns(state->cpu);

	/* Without a count of it, time is what is left */
	if (!idle)
		return 0;
	return (idle - state->idle) * 100 < wall * adaptive.idle;
}

/* The share of reads that the cache has or would have, of 256. */
static __always_inline __u64 hit_share(struct file_state *state)
{
	__u64 model = state->looked ? state->found * 256 / state->looked : 0;
	__u64 share;

	/* What spoilt it may have ended */
	if (state->path != EFUSE_IO_CACHE)
		state->trust += (256 - state->trust + 15) / 16;
	if (state->path != EFUSE_IO_CACHE || !state->told || state->cold > 0)
		return model * state->trust / 256;
	share = state->hits * 256 / state->told;
	if (model >= 32)
		state->trust = share < model ? share * 256 / model : 256;
	return share;
}

/* A round's counts start again. */
static __always_inline void begin_counts(struct file_state *state)
{
	state->told = 0;
	state->hits = 0;
	state->looked = 0;
	state->found = 0;
	begin(state);
}

/* What a read counts for in a round. */
static __always_inline __u64 read_steps(__u64 blocks)
{
	return 1 + blocks / 16;
}

/* Reads that a share of hits is taken from without doubt */
#define MANY 64

/* The end of a probe: the path until the next one. */
static __noinline int predict(struct file_state *state, struct efuse_io *io)
{
	__u64 blocks = (io->size + GHOST_BLOCK - 1) / GHOST_BLOCK;
	__u64 backing, hit, miss, cache, share, margin;
	__u32 path;
	int measure;

	if (!state)
		return 0;
	path = state->path;
	state->rounds++;
	measure = processor_short(state) ? WORK : TIME;
	if (measure == WORK)
		state->short_rounds++;
	/* Who waits in read(2) sleeps in it, and its work is not known */
	if (!cost_of(state, BACKING, WORK))
		measure = TIME;
	share = hit_share(state);
	backing = cost_of(state, BACKING, measure);
	hit = cost_of(state, HIT, measure);
	miss = cost_of(state, MISS_CACHE, measure);
	if (!hit)
		hit = backing / 4;
	if (!miss)
		miss = backing;
	cache = (hit * share + miss * (256 - share)) / 256;
	margin = state->told < MANY && adaptive.take > adaptive.keep ? adaptive.take :
								       adaptive.keep;
	if (path == EFUSE_IO_CACHE && backing * 100 < cache * (100 - margin))
		path = EFUSE_IO_BACKING;
	else if (path == EFUSE_IO_BACKING && cache * 100 < backing * (100 - adaptive.take))
		path = EFUSE_IO_CACHE;
	if (state->cold > 0)
		state->cold -= adaptive.round * blocks / read_steps(blocks);
	if (path != state->path) {
		state->changes++;
		state->cold = path == EFUSE_IO_CACHE ? warm_blocks(io) : 0;
	}
	state->path = path;

#pragma unroll
	for (int how = 0; how < HOWS; how++) {
#pragma unroll
		for (int m = 0; m < MEASURES; m++) {
			state->cost[how].reads[m] /= 2;
			state->cost[how].sum[m] /= 2;
		}
	}
	begin_counts(state);
	return 0;
}

/* Reads of so many blocks to one that has a block of the sample. */
static __always_inline __u64 reads_to_one(__u64 blocks, __u32 order)
{
	__u64 group = EFUSE_SAMPLE_GROUP << order;

	return blocks && blocks < group ? group / blocks : 1;
}

static __always_inline int adaptive_read(struct efuse_io *io)
{
	__u64 blocks = (io->size + GHOST_BLOCK - 1) / GHOST_BLOCK;
	struct file_state *state;
	__u64 step = read_steps(blocks);
	__u64 at, end, before, weight = 1;
	__u32 order = efuse_sample_order(blocks);
	int had, path;

	if (!undecided(io))
		return EFUSE_IO_BACKING | EFUSE_IO_KEEP;
	state = file_state(io);
	if (!state)
		return EFUSE_IO_BACKING;
	had = ghost_look(io, order, 0);
	if (state->warm > 0) {
		before = __sync_fetch_and_add(&state->reads, 1);
		if (__sync_fetch_and_sub(&state->warm, blocks) > (__s64)blocks) {
			io->cookie = 1;
			return EFUSE_IO_CACHE |
			       (before % adaptive.spread ? 0 : EFUSE_IO_TELL);
		}
		/* Hits were few because it was cold */
		begin_counts(state);
		state->at = 0;
	}
	if (had >= 0) {
		state->order = order;
		__sync_fetch_and_add(&state->looked, 1);
		if (had)
			__sync_fetch_and_add(&state->found, 1);
	}
	end = adaptive.probe * (adaptive.spread + 2);
	if (state->at >= end) {
		/* Others than those of the sample are counted with them */
		if (had < 0)
			return state->path | EFUSE_IO_KEEP;
		weight = reads_to_one(blocks, order);
	}
	before = __sync_fetch_and_add(&state->reads, weight);
	at = __sync_fetch_and_add(&state->at, step * weight);
	if (at >= adaptive.round) {
		state->at = step;
		at = 0;
	}
	/* By then the reads of the probe have ended, or nearly all of them */
	if (at < end && at + step >= end)
		predict(state, io);
	path = state->path;
	if (at >= end) {
		if (before / adaptive.spread == (before + weight) / adaptive.spread)
			return path | EFUSE_IO_KEEP;
		io->cookie = path == EFUSE_IO_CACHE;
		return path | EFUSE_IO_TELL | EFUSE_IO_KEEP;
	}
	if (before % adaptive.spread > 1)
		return path;
	if (before % adaptive.spread == 0) {
		if (at >= adaptive.probe * adaptive.spread)
			return path;
		path = path == EFUSE_IO_CACHE ? EFUSE_IO_BACKING : EFUSE_IO_CACHE;
	}
	io->cookie = path == EFUSE_IO_CACHE;
	return path | EFUSE_IO_TELL;
}

/* A read of so many bytes took so long. */
static __always_inline void learn(struct cost *cost, struct usual *usual, int measure, __u64 ns,
				  __u64 bytes)
{
	__u64 one = (ns << COST_SHIFT) / bytes;
	__u64 most = usual->cost[measure];

	if (!most) {
		usual->cost[measure] = one ? one : 1;
	} else {
		if (one > most * COST_CLIP)
			one = most * COST_CLIP;
		usual->cost[measure] = most - most / USUAL_READS + one / USUAL_READS;
	}
	__sync_fetch_and_add(&cost->reads[measure], 1);
	__sync_fetch_and_add(&cost->sum[measure], one);
}

static __always_inline void adaptive_read_after(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state = bpf_map_lookup_elem(&files, &nodeid);
	struct usual *usual;
	__u32 how;

	if (!state || io->result <= 0)
		return;
	how = !io->cookie ? BACKING : io->path == EFUSE_IO_CACHE ? HIT : MISS_CACHE;
	state->size = size_class(io->result);
	usual = usual_of(state->size, how);
	if (!usual || how >= HOWS)
		return;
	if (how != BACKING && state->path == EFUSE_IO_CACHE) {
		__sync_fetch_and_add(&state->told, 1);
		if (how == HIT)
			__sync_fetch_and_add(&state->hits, 1);
	}
	learn(&state->cost[how], usual, TIME, io->time_ns, io->result);
	if (io->busy_ns)
		learn(&state->cost[how], usual, WORK, io->busy_ns, io->result);
}

/* Writes keep cached blocks true only where reads look for them. */
static __always_inline int adaptive_write(struct efuse_io *io)
{
	__u64 nodeid = io->nodeid;
	struct file_state *state;
	int path;

	if (!undecided(io))
		return EFUSE_IO_BACKING | EFUSE_IO_KEEP;
	state = bpf_map_lookup_elem(&files, &nodeid);
	path = state && state->path == EFUSE_IO_CACHE ? EFUSE_IO_CACHE : EFUSE_IO_BACKING;
	if (io->size <= ADAPTIVE_KEPT)
		return path | EFUSE_IO_KEEP;
	/* All of these are to be seen */
	if (state)
		ghost_look(io, state->order, 1);
	return path;
}

#endif /* EFUSE_ADAPTIVE_H */
