// SPDX-License-Identifier: GPL-2.0
/*
 * Probes of FUSE requests and system calls, for stock FUSE and for the efuse module.
 *
 * No program waits, and none takes a lock of its own. User space chooses what each is
 * attached to: the functions and tracepoints have other addresses and names in the
 * module.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "config.h"
#include "counts.h"
#include "histogram.h"
#include "requests.h"
#include "lock.h"
#include "calls.h"

char LICENSE[] SEC("license") = "GPL";
