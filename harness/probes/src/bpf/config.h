/* SPDX-License-Identifier: GPL-2.0 */
/* What user space decides: before loading, and while the probes run. */
#ifndef PROBES_CONFIG_H
#define PROBES_CONFIG_H

/*
 * Where fields lie. Stock FUSE is in vmlinux and ours in a module, and their structures
 * may differ although they have the same names; CO-RE would take vmlinux's for both. So
 * user space takes the offsets from the BTF of the one that is probed.
 */
struct config {
	__u32 minor;		/* of the mount's device: number of the connection */
	__u32 req_fm;		/* fuse_req.fm */
	__u32 req_opcode;	/* fuse_req.in.h.opcode */
	__u32 fm_fc;		/* fuse_mount.fc */
	__u32 fc_dev;		/* fuse_conn.dev */
	__u32 fc_lock;		/* fuse_conn.iq.lock */
	__u32 cs_write;		/* fuse_copy_state.write */
	__u32 cs_req;		/* fuse_copy_state.req */
	__u32 fud_fc;		/* fuse_dev.fc */
	__u32 req_args;		/* fuse_req.args */
	__u32 req_intr;		/* fuse_req.intr_entry */
	__u32 pad;
	__u64 ns_dev;		/* of the PID namespace in which PIDs are given */
	__u64 ns_ino;
};

const volatile struct config config;

struct control {
	__u32 active;		/* requests and calls that begin now are counted */
	__u32 fio;		/* processes, 0 for none */
	__u32 daemon;
	__u32 pad;
};

struct control control SEC(".data.control");

#endif
