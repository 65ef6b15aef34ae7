// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: the module's own part of init and exit, and how it presents itself.
 *
 * /sys/fs/efuse/version	version and hash of the patch series
 * /sys/fs/efuse/abi		version of the interface in efuse_uapi.h
 * /sys/fs/efuse/features	what this build can do, in words
 *
 * Locking: none. What is shown is constant for the module's life, and sysfs
 * drains readers before sysfs_remove_group() returns.
 */
#define pr_fmt(fmt) "efuse: " fmt

#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/sysfs.h>

#include "efuse_i.h"
#include "efuse_uapi.h"
#include "efuse_version.h"

MODULE_VERSION(EFUSE_VERSION);

static const char * const efuse_features[] = {
	"bpf",
	"data",
#ifdef CONFIG_FUSE_PASSTHROUGH
	"passthrough",
#endif
#ifdef CONFIG_FS_POSIX_ACL
	"posix_acl",
#endif
	"ring",
};

static ssize_t version_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%s\n", EFUSE_VERSION);
}

static struct kobj_attribute version_attr = __ATTR_RO(version);

static ssize_t abi_show(struct kobject *kobj, struct kobj_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "%d.%d\n", EFUSE_ABI_MAJOR, EFUSE_ABI_MINOR);
}

static struct kobj_attribute abi_attr = __ATTR_RO(abi);

static ssize_t features_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	int len = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(efuse_features); i++)
		len += sysfs_emit_at(buf, len, "%s%s", i ? " " : "",
				     efuse_features[i]);
	len += sysfs_emit_at(buf, len, "\n");
	return len;
}

static struct kobj_attribute features_attr = __ATTR_RO(features);

static struct attribute *efuse_attrs[] = {
	&version_attr.attr,
	&abi_attr.attr,
	&features_attr.attr,
	NULL,
};

static const struct attribute_group efuse_attr_group = {
	.attrs = efuse_attrs,
};

int efuse_init(struct kobject *kobj)
{
	int err;

	err = sysfs_create_group(kobj, &efuse_attr_group);
	if (err)
		return err;

	err = efuse_data_init();
	if (err)
		goto out_group;
	err = efuse_bpf_init();
	if (err)
		goto out_data;

	pr_info("version %s\n", EFUSE_VERSION);
	return 0;

out_data:
	efuse_data_exit();
out_group:
	sysfs_remove_group(kobj, &efuse_attr_group);
	return err;
}

void efuse_exit(struct kobject *kobj)
{
	sysfs_remove_group(kobj, &efuse_attr_group);
	efuse_data_exit();
}
