/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * eFUSE: what has to be different before any source file is read.
 *
 * The Kbuild file includes this ahead of everything but the configuration.
 * It keeps the series small: without it every EXPORT_SYMBOL and every use of
 * dax in fs/fuse would need a patch.
 */
#ifndef _EFUSE_OVERRIDE_H
#define _EFUSE_OVERRIDE_H

#include <linux/export.h>

/*
 * fs/fuse exports symbols for virtio-fs and cuse. Those stay with the stock
 * FUSE, which exports the same names; a module must not do so again.
 */
#undef EXPORT_SYMBOL
#define EXPORT_SYMBOL(sym)
#undef EXPORT_SYMBOL_GPL
#define EXPORT_SYMBOL_GPL(sym)

/* Only virtio-fs can use dax, and dax.c is not part of this module. */
#undef CONFIG_FUSE_DAX

#endif /* _EFUSE_OVERRIDE_H */
