/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Included before libfuse's passthrough_ll.c when it is built as the control; its own
 * source stays as it is.
 *
 * passthrough_ll hands O_DIRECT on to the lower file, but the libfuse of Debian 12
 * (3.14) keeps a write's payload right behind the request's header, at an odd address.
 * A lower device that wants memory aligned to its block (null_blk, loop) refuses that
 * with EINVAL, for every single write. The control then could not run the tests at
 * all; taking O_DIRECT away from it alone would compare a page cache with a device. So
 * the payload is copied to an aligned buffer first, which is what newer libfuse
 * arranges as it receives. Nothing is copied until a write has been refused: on a
 * device that takes any address the control runs as it comes.
 */
/* As in passthrough_ll.c: the headers are included here first. */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 34

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 4096
#define LARGEST_WRITE (1u << 20)

static int device_wants_alignment; /* only ever goes from 0 to 1 */

static ssize_t aligned_buf_copy(struct fuse_bufvec *dst, struct fuse_bufvec *src,
				enum fuse_buf_copy_flags flags)
{
	static __thread void *bounce;
	static __thread size_t capacity;
	struct fuse_buf *from = &src->buf[0];
	ssize_t done;

	if (src->count != 1 || (from->flags & FUSE_BUF_IS_FD) ||
	    ((uintptr_t)from->mem & (ALIGNMENT - 1)) == 0)
		return fuse_buf_copy(dst, src, flags);

	if (!__atomic_load_n(&device_wants_alignment, __ATOMIC_RELAXED)) {
		done = fuse_buf_copy(dst, src, flags);
		if (done != -EINVAL)
			return done;
		__atomic_store_n(&device_wants_alignment, 1, __ATOMIC_RELAXED);
	}
	if (from->size > capacity) {
		size_t want = from->size > LARGEST_WRITE ? from->size : LARGEST_WRITE;

		free(bounce);
		bounce = NULL;
		capacity = 0;
		if (posix_memalign(&bounce, ALIGNMENT, want))
			return -ENOMEM;
		capacity = want;
	}
	memcpy(bounce, from->mem, from->size);
	from->mem = bounce;
	return fuse_buf_copy(dst, src, flags);
}

#define fuse_buf_copy aligned_buf_copy
