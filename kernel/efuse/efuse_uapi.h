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

#include <linux/types.h>

/* The interface's version, to be read as "MAJOR.MINOR" in /sys/fs/efuse/abi */
#define EFUSE_ABI_MAJOR		1
#define EFUSE_ABI_MINOR		0

/* Type of an eFUSE mount, and of one that is backed by a block device */
#define EFUSE_FS_TYPE		"efuse"
#define EFUSE_BLK_FS_TYPE	"efuseblk"

/* Control file system, with a folder for each connection as fusectl has */
#define EFUSE_CTL_FS_TYPE	"efusectl"

/* The device a daemon opens, below /dev; its minor number is dynamic */
#define EFUSE_DEV_NAME		"efuse"

#endif /* _EFUSE_UAPI_H */
