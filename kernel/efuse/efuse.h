/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what our files and the hooks in fs/fuse know of each other.
 *
 * fuse_i.h includes this ahead of its own types, and efuse_hooks.h after them.
 */
#ifndef _EFUSE_H
#define _EFUSE_H

#include <linux/types.h>

struct efuse_channel;
struct efuse_conn;
struct inode;
struct kobject;

/* What a request changes, as slots of the connection's tables; see change.c */
struct efuse_change {
	u32 name[2];
	u32 node[2];
	u8 names;
	u8 nodes;
	/* Extended attributes of the nodes change, too */
	bool xattr;
	/* Counted as under way in the slots */
	bool open;
};

struct efuse_icache;
struct efuse_pages;

/* A change of data under way, in blocks; see cache.c */
struct efuse_write {
	/* NULL: nothing of the inode was cached when it began */
	struct efuse_icache *ic;
	pgoff_t first;
	pgoff_t last;
	u32 all_seq;
	bool all;
	/* Of a request: there is a change to be ended */
	bool open;
};

/*
 * eFUSE's part of a request, in struct fuse_args. All zero when the request is
 * none of ours: no program was attached when it began.
 */
struct efuse_request {
	/* The connection's clock when the request began */
	u64 seq;
	/* From the program that runs before to the one that runs after */
	u64 cookie;
	/* Of its name, from whoever needed it first; [1] is 0 until then */
	u64 name_hash[2];
	/* Held: the inode that a program named in its answer to a LOOKUP */
	struct inode *inode;
	struct efuse_change change;
	struct efuse_write write;
	/* A page fill's: where the reply is kept, or NULL; see pages.c */
	struct efuse_pages *pages;
	/* When name and attributes of the answer were learnt; 0: to be asked for again */
	u64 entry_seq;
	u64 attr_seq;
	bool atime_settled;
	/* A program was asked already */
	bool asked;
	/* Only what the daemon has now will do */
	bool fresh;
};

/* Of a struct fuse_req, see ring.c */
struct efuse_ring_req {
	/* NULL: in none. Set before the request can be found there */
	struct efuse_channel *ch;
	/* Valid once the request left the list of those that wait */
	u32 slot;
	/* Its caller may poll the slot */
	bool polled;
};

/*
 * Called once from the module's init, when file system types, device and sysfs
 * folder are registered. @kobj is the folder /sys/fs/efuse, which stays until
 * efuse_exit() has returned. On error nothing of ours is left behind.
 */
int efuse_init(struct kobject *kobj);

/* Called once from the exit, while file system types and device are there. */
void efuse_exit(struct kobject *kobj);

#endif /* _EFUSE_H */
