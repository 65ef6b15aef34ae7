/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what our files and the hooks in fs/fuse know of each other.
 */
#ifndef _EFUSE_H
#define _EFUSE_H

struct kobject;

/*
 * Called once from the module's init, when file system types, device and sysfs
 * folder are registered. @kobj is the folder /sys/fs/efuse, which stays until
 * efuse_exit() has returned. On error nothing of ours is left behind.
 */
int efuse_init(struct kobject *kobj);

/* Called once from the exit, while file system types and device are there. */
void efuse_exit(struct kobject *kobj);

#endif /* _EFUSE_H */
