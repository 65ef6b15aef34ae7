/* SPDX-License-Identifier: GPL-2.0 */
/* System calls of fio and of the daemon. */
#ifndef PROBES_CALLS_H
#define PROBES_CALLS_H

SEC("raw_tp")
int call_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct bpf_pidns_info task = {};

	if (!control.active)
		return 0;
	/* Fails for tasks of other namespaces, which are none of ours. */
	if (bpf_get_ns_current_pid_tgid(config.ns_dev, config.ns_ino, &task, sizeof(task)))
		return 0;
	if (task.tgid == control.fio)
		count(COUNT_FIO_CALLS, 1);
	else if (task.tgid == control.daemon)
		count(COUNT_DAEMON_CALLS, 1);
	return 0;
}

#endif
