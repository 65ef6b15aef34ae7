/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Log-linear histograms: the same buckets as harness/model/src/histogram.rs, and user
 * space checks that it agrees on their number.
 */
#ifndef PROBES_HISTOGRAM_H
#define PROBES_HISTOGRAM_H

#define SUB_BITS	4
#define SUBS		(1ULL << SUB_BITS)
#define BUCKETS		((64 - SUB_BITS + 1) << SUB_BITS)

/* How often to try to store a largest value that others store at the same time. */
#define MAX_TRIES	16

struct histogram {
	__u64 sum;
	__u64 max;
	__u64 bucket[BUCKETS];
};

/* Number of the highest bit that is set; there is no instruction for it. @n is not 0. */
static __always_inline __u32 highest_bit(__u64 n)
{
	__u32 bit = 0;

	if (n >> 32) { bit += 32; n >>= 32; }
	if (n >> 16) { bit += 16; n >>= 16; }
	if (n >> 8) { bit += 8; n >>= 8; }
	if (n >> 4) { bit += 4; n >>= 4; }
	if (n >> 2) { bit += 2; n >>= 2; }
	return bit + (n >> 1);
}

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 exponent;

	if (ns < SUBS)
		return ns;
	exponent = highest_bit(ns);
	return ((exponent - SUB_BITS + 1) << SUB_BITS) +
		((ns >> (exponent - SUB_BITS)) & (SUBS - 1));
}

static __always_inline void histogram_add(struct histogram *h, __u64 ns)
{
	__u64 bucket = bucket_of(ns);
	__u64 max = h->max;
	int i;

	/* For the verifier, which cannot tell what the compiler can. */
	barrier_var(bucket);
	if (bucket >= BUCKETS)
		return;
	__sync_fetch_and_add(&h->bucket[bucket], 1);
	__sync_fetch_and_add(&h->sum, ns);
	for (i = 0; i < MAX_TRIES && max < ns; i++) {
		__u64 seen = __sync_val_compare_and_swap(&h->max, max, ns);

		if (seen == max)
			return;
		max = seen;
	}
	if (max < ns)
		count(COUNT_LOST_MAX, 1);
}

#endif
