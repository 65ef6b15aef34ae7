// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that must not load. Each set has one that does what its name says; "fair"
 * does nothing wrong, so that the others are refused for what they do. The list with
 * the reasons is in src/verbs/selftest.rs.
 */
#include "efuse.h"

char LICENSE[] SEC("license") = "GPL";

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct efuse_ctx);
} forged SEC(".maps");

#define HOSTILE_IN(section, set)                                                                   \
	int set##_program(unsigned long long *ctx);                                                \
	SEC(".struct_ops.link")                                                                    \
	struct efuse_ops set = { .name = "hostile", .lookup = (void *)set##_program };             \
	SEC(section) int BPF_PROG(set##_program, struct efuse_ctx *req)

#define HOSTILE(set) HOSTILE_IN("struct_ops/lookup", set)

HOSTILE(fair)
{
	req->cookie = req->nodeid;
	return bpf_efuse_reply_error(req, -2, req->seq) ? EFUSE_PASS : EFUSE_ANSWER;
}

HOSTILE(write_node)
{
	req->nodeid = 1;
	return EFUSE_PASS;
}

HOSTILE(write_seq)
{
	req->seq = ~0ULL;
	return EFUSE_PASS;
}

HOSTILE(write_half)
{
	*(volatile __u32 *)&req->cookie = 1;
	return EFUSE_PASS;
}

HOSTILE(write_behind)
{
	((volatile __u64 *)req)[32] = 1;
	return EFUSE_PASS;
}

HOSTILE(read_behind)
{
	return ((volatile __u64 *)req)[512] != 0;
}

HOSTILE(write_task)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	task->pid = 1;
	return EFUSE_PASS;
}

HOSTILE(reply_long)
{
	__u64 small[2] = {};

	bpf_efuse_reply(req, small, 4096, 0, 0);
	return EFUSE_ANSWER;
}

HOSTILE(reply_unbounded)
{
	__u64 small[2] = {};

	bpf_efuse_reply(req, small, req->out_size, 0, 0);
	return EFUSE_ANSWER;
}

HOSTILE(read_unbounded)
{
	__u8 name[32];

	bpf_efuse_read_arg(req, 0, 0, name, req->in_size);
	return EFUSE_PASS;
}

HOSTILE(dirent_small)
{
	__u64 small[2] = {};

	bpf_efuse_dirent(req, 0, (void *)small);
	return EFUSE_PASS;
}

HOSTILE(forged_stack)
{
	__u64 mine[16] = {};

	bpf_efuse_reply_error((void *)mine, -2, 0);
	return EFUSE_ANSWER;
}

HOSTILE(forged_map)
{
	__u32 zero = 0;
	struct efuse_ctx *mine = bpf_map_lookup_elem(&forged, &zero);

	if (mine)
		bpf_efuse_reply_error(mine, -2, 0);
	return EFUSE_ANSWER;
}

HOSTILE(forged_null)
{
	bpf_efuse_reply_error((void *)0, -2, 0);
	return EFUSE_ANSWER;
}

HOSTILE(moved_ctx)
{
	bpf_efuse_reply_error((void *)req + 8, -2, 0);
	return EFUSE_ANSWER;
}

HOSTILE(endless)
{
	for (;;)
		bpf_efuse_inode(req, 1, (void *)&(struct efuse_inode_info){});
	return EFUSE_PASS;
}

HOSTILE_IN("struct_ops.s/lookup", sleeping)
{
	return EFUSE_PASS;
}

HOSTILE(user_memory)
{
	char byte = 0;

	bpf_copy_from_user(&byte, 1, (void *)1);
	return byte;
}

HOSTILE(signal)
{
	return bpf_send_signal(9);
}

/* The functions belong to eFUSE's type alone. */
SEC("socket")
int kfunc_in_socket(void *ctx)
{
	return bpf_efuse_reply_error(ctx, -2, 0);
}

SEC("tracepoint/syscalls/sys_enter_getpid")
int kfunc_in_trace(void *ctx)
{
	return bpf_efuse_reply_error(ctx, -2, 0);
}

SEC("syscall")
int kfunc_in_syscall(void *ctx)
{
	return bpf_efuse_reply_error(ctx, -2, 0);
}

/* Another type of sets, also of a struct_ops. */
struct tcp_congestion_ops {
	__u32 (*ssthresh)(void *sk);
	void (*cong_avoid)(void *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(void *sk);
	char name[16];
};

SEC("struct_ops/ssthresh")
__u32 BPF_PROG(other_program, void *sk)
{
	return bpf_efuse_reply_error(sk, -2, 0);
}

SEC(".struct_ops.link")
struct tcp_congestion_ops other_type = { .ssthresh = (void *)other_program, .name = "hostile" };
