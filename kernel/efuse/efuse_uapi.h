/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * eFUSE: what user space may rely on beyond the protocol of linux/fuse.h.
 *
 * Everything here is plain data with fixed sizes; nothing in it is a kernel
 * pointer. Additions raise the minor number of the interface, changes to what
 * is there already raise the major one.
 */
#ifndef _EFUSE_UAPI_H
#define _EFUSE_UAPI_H

#include <linux/fuse.h>
#include <linux/ioctl.h>
#include <linux/types.h>

/* The interface's version, to be read as "MAJOR.MINOR" in /sys/fs/efuse/abi */
#define EFUSE_ABI_MAJOR		1
#define EFUSE_ABI_MINOR		2

/* Type of an eFUSE mount, and of one that is backed by a block device */
#define EFUSE_FS_TYPE		"efuse"
#define EFUSE_BLK_FS_TYPE	"efuseblk"

/* Control file system, with a folder for each connection as fusectl has */
#define EFUSE_CTL_FS_TYPE	"efusectl"

/* The device a daemon opens, below /dev; its minor number is dynamic */
#define EFUSE_DEV_NAME		"efuse"

/*
 * Ring channels: requests and replies in memory that daemon and kernel share,
 * instead of read() and write() on the device.
 *
 * A daemon mounts and reads INIT as usual, makes the rings before it answers
 * INIT, answers it by write(), maps the channels, and enters them. Messages of
 * the daemon's own (notifications) still go by write(), and so does what is
 * asked by them (NOTIFY_REPLY comes by read()).
 *
 * A channel's mapping is, each part from a multiple of its elements' size on:
 *	struct efuse_ring_header	in a page of its own
 *	__u32 pending[depth]		slots with a request
 *	__u32 complete[depth]		slots with a reply, plus 1; 0 is none
 *	struct efuse_ring_intr intr[depth]
 *	struct efuse_ring_forget forget[EFUSE_RING_FORGETS]
 *	struct efuse_ring_slot slot[depth]
 *	pages for arguments and data	from a page boundary on
 * Cursors run freely; a ring's index is a cursor modulo the ring's size.
 */
#define EFUSE_RING_INLINE	112
#define EFUSE_RING_HEAD		288
#define EFUSE_RING_FORGETS	256
#define EFUSE_RING_MIN_DEPTH	2
#define EFUSE_RING_MAX_DEPTH	1024
/* An ioctl of 1 MiB in both directions has to fit */
#define EFUSE_RING_MIN_PAGES	520
#define EFUSE_RING_MAX_PAGES	16384

/* mmap() offset of a channel */
#define EFUSE_RING_MAP_TYPE	(1ULL << 48)
#define EFUSE_RING_MAP(channel)	(EFUSE_RING_MAP_TYPE | (__u64)(channel) << 32)

struct efuse_ring_header {
	/* Written by the kernel: cursors up to which the rings are filled */
	__u32 pending_tail;
	__u32 intr_tail;
	__u32 forget_tail;
	/* Not 0: something waits in the kernel for room that there is now */
	__u32 backlog;
	__u32 pad1[12];
	/* Written by the daemon: up to where it took from them */
	__u32 pending_head;
	__u32 intr_head;
	__u32 forget_head;
	/* Threads that look at pending_tail all the time and need not be woken */
	__u32 spinners;
	__u32 pad2[12];
	/* Where the daemon puts the next reply */
	__u32 complete_tail;
	__u32 pad3[15];
};

/* Values of efuse_ring_slot.status */
enum {
	/* Nothing for the daemon to do */
	EFUSE_SLOT_FREE,
	/* Its caller looks at the status and takes the reply itself */
	EFUSE_SLOT_POLLED,
	/* Its caller sleeps: the reply goes into the complete ring, to be entered soon */
	EFUSE_SLOT_SLEEPING,
	/* Nobody waits for it: the reply may be entered together with others */
	EFUSE_SLOT_ASYNC,
	/* By the daemon, in exchange for one of the above, when the reply is there */
	EFUSE_SLOT_DONE,
};

struct efuse_ring_slot {
	__u32 status;
	/* Arguments in args[], and those after them, in pages from in_page on */
	__u32 in_inline;
	__u32 in_page;
	__u32 in_size;
	/* Pages for data of the reply, and bytes that fit into it */
	__u32 out_page;
	__u32 out_size;
	/* The reply: 0 or a negative error, bytes in head[] and in the pages */
	__s32 error;
	__u32 head_size;
	__u32 data_size;
	/* By the kernel: not 0 if somebody measures, and asks for ... */
	__u32 timed;
	/* ... when the daemon took the request, by CLOCK_MONOTONIC in ns */
	__u64 taken;
	struct fuse_in_header in;
	__u8 args[EFUSE_RING_INLINE];
	__u8 head[EFUSE_RING_HEAD];
	__u8 pad2[24];
};

/* The request with this unique id, which is in that slot, is not wanted any more */
struct efuse_ring_intr {
	__u64 unique;
	__u32 slot;
	__u32 pad;
};

struct efuse_ring_forget {
	__u64 nodeid;
	__u64 nlookup;
};

/* 0 asks for a default; what was chosen is written back */
struct efuse_ring_setup {
	/* At most one per processor that there may be */
	__u32 channels;
	/* Requests in a channel at once, a power of two */
	__u32 depth;
	/* For arguments and data, in each channel */
	__u32 pages;
	/* Bytes of a channel's mapping; written only */
	__u32 bytes;
	/* How long callers look for a reply before they sleep, in microseconds */
	__u32 poll_us;
	/* EFUSE_RING_BALANCE or 0 */
	__u32 flags;
};

/* Requests may go to channels of other processors if their own is busy */
#define EFUSE_RING_BALANCE	(1 << 0)

/* Wait until there is something in a ring of the channel */
#define EFUSE_RING_WAIT		(1 << 0)
/* The same, for so many milliseconds at most: ETIMEDOUT if nothing came (since 1.2) */
#define EFUSE_RING_WAIT_MS_SHIFT	16
#define EFUSE_RING_WAIT_MS(ms) \
	(EFUSE_RING_WAIT | (__u32)(ms) << EFUSE_RING_WAIT_MS_SHIFT)

/* Hand over replies in the complete ring, and take what waits for room */
struct efuse_ring_enter {
	__u32 channel;
	__u32 flags;
};

/* Number 229 is FUSE's, which uses numbers from 0 on */
#define EFUSE_IOC_RING_SETUP	_IOWR(229, 0x60, struct efuse_ring_setup)
#define EFUSE_IOC_RING_ENTER	_IOW(229, 0x61, struct efuse_ring_enter)

#endif /* _EFUSE_UAPI_H */
