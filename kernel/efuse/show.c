// SPDX-License-Identifier: GPL-2.0-only
/*
 * eFUSE: the file "efuse" of a connection in the control file system: how data went,
 * what the cache has, and the ring channels, a name and a number a line.
 *
 * Locks: fuse_mutex, under which the connection is found and held.
 */
#include "efuse_i.h"

#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/slab.h>

static const char * const efuse_path_names[EFUSE_IO_PATHS] = {
	[EFUSE_IO_DAEMON] = "daemon",
	[EFUSE_IO_BACKING] = "backing",
	[EFUSE_IO_CACHE] = "cache",
};

static const char * const efuse_reason_names[EFUSE_IO_REASONS] = {
	[EFUSE_IO_NO_BACKING] = "no_backing",
	[EFUSE_IO_SET_ID] = "set_id",
	[EFUSE_IO_ERROR] = "error",
	[EFUSE_IO_MISS] = "miss",
	[EFUSE_IO_UNFIT] = "unfit",
};

static int efuse_data_show(const struct efuse_conn *ec, char *buf, int size)
{
	static const char * const way[2] = { "read", "write" };
	struct efuse_io_stats sum = {};
	int len = 0;
	int cpu, w, i;

	for_each_possible_cpu(cpu) {
		const u64 *one = (const u64 *)per_cpu_ptr(ec->io_stats, cpu);

		for (i = 0; i < sizeof(sum) / sizeof(u64); i++)
			((u64 *)&sum)[i] += one[i];
	}
	for (w = 0; w < 2; w++) {
		for (i = 0; i < EFUSE_IO_PATHS; i++)
			len += scnprintf(buf + len, size - len,
					 "%s_%s %llu\n%s_%s_bytes %llu\n",
					 way[w], efuse_path_names[i],
					 sum.requests[w][i], way[w],
					 efuse_path_names[i], sum.bytes[w][i]);
		for (i = 1; i < EFUSE_IO_REASONS; i++)
			len += scnprintf(buf + len, size - len,
					 "%s_%s %llu\n", way[w],
					 efuse_reason_names[i],
					 sum.reasons[w][i]);
		len += scnprintf(buf + len, size - len, "%s_asked %llu\n",
				 way[w], sum.asked[w]);
	}
	len += scnprintf(buf + len, size - len,
			 "cache_budget %lu\ncache_used %lu\ncache_blocks %lu\n",
			 READ_ONCE(ec->cache.budget),
			 atomic_long_read(&ec->cache.used),
			 READ_ONCE(ec->cache.blocks));
	len += efuse_kept_show(ec, buf + len, size - len);
	return len;
}

static ssize_t efuse_ctl_read(struct file *file, char __user *buf, size_t len,
			      loff_t *ppos)
{
	struct fuse_conn *fc;
	struct efuse_conn *ec;
	size_t size, used = 0;
	ssize_t ret = 0;
	char *text;

	mutex_lock(&fuse_mutex);
	fc = file_inode(file)->i_private;
	if (fc)
		fc = fuse_conn_get(fc);
	mutex_unlock(&fuse_mutex);
	if (!fc)
		return 0;
	size = PAGE_SIZE + efuse_ring_show_size(fc);
	ret = -ENOMEM;
	text = kvmalloc(size, GFP_KERNEL);
	if (!text)
		goto out;
	ec = efuse_conn(fc);
	if (ec)
		used = efuse_data_show(ec, text, PAGE_SIZE);
	used += efuse_ring_show(fc, text + used, size - used);
	ret = simple_read_from_buffer(buf, len, ppos, text, used);
	kvfree(text);
out:
	fuse_conn_put(fc);
	return ret;
}

const struct file_operations efuse_ctl_ops = {
	.owner = THIS_MODULE,
	.read = efuse_ctl_read,
	.llseek = generic_file_llseek,
};
