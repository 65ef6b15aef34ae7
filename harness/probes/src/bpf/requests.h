/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The life of a request, by the address of its struct fuse_req:
 *
 *   given     entry of fuse_simple_background, for a background request: before it waits
 *             for max_background, in the caller or in the connection's background queue
 *   enqueue   tracepoint fuse_request_send: it goes into the input queue; a request that
 *             is none of the background is given at that moment
 *   dequeue   fuse_copy_args towards the daemon: just after it was taken off the queue,
 *             before its arguments are copied
 *   reply     entry of fuse_request_end: the answer has been copied and checked
 *   end       tracepoint fuse_request_end: the caller is about to be woken
 *
 * Each event reads the clock once, for itself. A request is added to all three
 * histograms at its end or to none, so their counts are equal; one that the daemon never
 * took is in none. Queueing begins when the request is given.
 *
 * When it is given there is no struct fuse_req yet. Its arguments are there, stay where
 * they are until its end, and belong to no other request meanwhile.
 *
 * On rings the arguments are copied before a request is in the queue, and the daemon takes
 * it without the kernel. It says when, by the same clock, as long as the tracepoint is
 * used; the kernel hands that on with the reply, and it takes the place of the other.
 *
 * FORGET and INTERRUPT are no struct fuse_req when they are read and have no reply: they
 * are crossings only. A read that returned something without a request was one of them.
 * What a daemon took from a ring is seen when it enters the kernel: more than one FORGET
 * since it was there last are a batch.
 */
#ifndef PROBES_REQUESTS_H
#define PROBES_REQUESTS_H

#define OPCODES			64	/* those above share slot 0, which is none */
#define OPCODE_FORGET		2
#define OPCODE_INTERRUPT	36
#define OPCODE_BATCH_FORGET	42
/* struct fuse_in_header and one fuse_forget_in, fuse_interrupt_in or fuse_batch_forget_in. */
#define SHORT_MESSAGE		48
/* struct fuse_forget_one, of which a BATCH_FORGET has one a node. */
#define FORGET_ONE		16

/* More than may be under way: max_background is 4096 and the rest are threads. */
#define REQUESTS		16384

struct request {
	__u64 given;
	__u64 held;		/* nanoseconds from given to enqueue */
	__u64 dequeued;
	__u64 replied;
	__u32 opcode;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REQUESTS);
	__type(key, __u64);
	__type(value, struct request);
} requests SEC(".maps");

/* When background requests were given that are not enqueued yet, by their arguments. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REQUESTS);
	__type(key, __u64);
	__type(value, __u64);
} given SEC(".maps");

struct opcode {
	__u64 crossings;
	__u64 held;
	struct histogram queueing;
	struct histogram processing;
	struct histogram total;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OPCODES);
	__type(key, __u32);
	__type(value, struct opcode);
} opcodes SEC(".maps");

/* The connection, once a request of it was seen. It outlives the probes. */
__u64 connection;
/* INTERRUPT messages that are queued: they are read before anything else. */
__u64 interrupts;

static __always_inline __u64 pointer_at(__u64 base, __u32 offset)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
	return value;
}

static __always_inline __u32 number_at(__u64 base, __u32 offset)
{
	__u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset));
	return value;
}

static __always_inline bool is_ours(__u64 fc)
{
	if (!fc)
		return false;
	if (fc == connection)
		return true;
	if (number_at(fc, config.fc_dev) != config.minor)
		return false;
	connection = fc;
	return true;
}

static __always_inline struct opcode *opcode_slot(__u32 opcode)
{
	if (opcode >= OPCODES)
		opcode = 0;
	return bpf_map_lookup_elem(&opcodes, &opcode);
}

static __always_inline void cross(__u32 opcode)
{
	struct opcode *slot = opcode_slot(opcode);

	if (slot)
		__sync_fetch_and_add(&slot->crossings, 1);
}

/* int fuse_simple_background(fm, args, gfp_flags) */
SEC("fentry")
int background_given(__u64 *ctx)
{
	__u64 args = ctx[1], now;

	if (!control.active || !is_ours(pointer_at(ctx[0], config.fm_fc)))
		return 0;
	now = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&given, &args, &now, BPF_ANY))
		count(COUNT_LOST_ENQUEUE, 1);
	return 0;
}

SEC("fexit")
int background_refused(__u64 *ctx)
{
	__u64 args = ctx[1];

	/* On success the request may have ended, and its arguments are another's. */
	if ((__s32)ctx[3])
		bpf_map_delete_elem(&given, &args);
	return 0;
}

SEC("raw_tp")
int request_enqueue(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 req = ctx->args[0], args, now, *since;
	struct request request = {};

	if (!control.active)
		return 0;
	if (!is_ours(pointer_at(pointer_at(req, config.req_fm), config.fm_fc)))
		return 0;
	request.opcode = number_at(req, config.req_opcode);
	now = bpf_ktime_get_ns();
	request.given = now;
	args = pointer_at(req, config.req_args);
	since = bpf_map_lookup_elem(&given, &args);
	if (since) {
		request.given = *since;
		request.held = now - *since;
		bpf_map_delete_elem(&given, &args);
	}
	if (!bpf_map_update_elem(&requests, &req, &request, BPF_NOEXIST))
		return 0;
	/* There is no room, or the memory was used by one whose end was not seen. */
	if (!bpf_map_lookup_elem(&requests, &req)) {
		count(COUNT_LOST_ENQUEUE, 1);
		return 0;
	}
	count(COUNT_LOST_END, 1);
	bpf_map_update_elem(&requests, &req, &request, BPF_EXIST);
	return 0;
}

SEC("fentry")
int request_dequeue(__u64 *ctx)
{
	__u64 cs = ctx[0], req;
	struct request *request;

	if (!number_at(cs, config.cs_write))
		return 0;
	req = pointer_at(cs, config.cs_req);
	request = bpf_map_lookup_elem(&requests, &req);
	if (request)
		request->dequeued = bpf_ktime_get_ns();
	return 0;
}

SEC("fentry")
int request_reply(__u64 *ctx)
{
	__u64 req = ctx[0];
	struct request *request = bpf_map_lookup_elem(&requests, &req);

	if (request)
		request->replied = bpf_ktime_get_ns();
	return 0;
}

/*
 * An INTERRUPT that is still queued when its request ends is taken off and never read.
 * Another thread of the daemon may read it between here and there, and is then taken for
 * one that reads a FORGET.
 */
static __always_inline void interrupt_withdrawn(__u64 req)
{
	__u64 entry = req + config.req_intr;

	if (!interrupts || pointer_at(entry, 0) == entry)
		return;
	if (is_ours(pointer_at(pointer_at(req, config.req_fm), config.fm_fc)))
		__sync_fetch_and_sub(&interrupts, 1);
}

SEC("raw_tp")
int request_end(struct bpf_raw_tracepoint_args *ctx)
{
	/* First of all: what follows is the probe's own time. */
	__u64 now = bpf_ktime_get_ns();
	__u64 req = ctx->args[0];
	struct request *found = bpf_map_lookup_elem(&requests, &req);
	struct request request;
	struct opcode *slot;

	interrupt_withdrawn(req);
	if (!found)
		return 0;
	request = *found;
	bpf_map_delete_elem(&requests, &req);
	if (!request.dequeued)
		return 0;
	slot = opcode_slot(request.opcode);
	if (!slot)
		return 0;
	__sync_fetch_and_add(&slot->crossings, 1);
	if (!request.replied) {
		count(COUNT_LOST_REPLY, 1);
		return 0;
	}
	histogram_add(&slot->queueing, request.dequeued - request.given);
	__sync_fetch_and_add(&slot->held, request.held);
	histogram_add(&slot->processing, request.replied - request.dequeued);
	histogram_add(&slot->total, now - request.given);
	return 0;
}

/* fuse_dev_queue_interrupt(fiq, req) */
SEC("fentry")
int interrupt_enqueue(__u64 *ctx)
{
	__u64 req = ctx[1];

	if (control.active &&
	    is_ours(pointer_at(pointer_at(req, config.req_fm), config.fm_fc)))
		__sync_fetch_and_add(&interrupts, 1);
	return 0;
}

/* ssize_t fuse_dev_do_read(fud, file, cs, nbytes) */
SEC("fexit")
int message_read(__u64 *ctx)
{
	__u64 fud = ctx[0], cs = ctx[2];
	__s64 bytes = ctx[4];

	if (!control.active || bytes <= 0 || pointer_at(cs, config.cs_req))
		return 0;
	if (!is_ours(pointer_at(fud, config.fud_fc)))
		return 0;
	if (bytes > SHORT_MESSAGE) {
		count(COUNT_FORGOTTEN, (bytes - SHORT_MESSAGE) / FORGET_ONE);
		cross(OPCODE_BATCH_FORGET);
	} else if (interrupts) {
		__sync_fetch_and_sub(&interrupts, 1);
		cross(OPCODE_INTERRUPT);
	} else {
		count(COUNT_FORGOTTEN, 1);
		cross(OPCODE_FORGET);
	}
	return 0;
}

/* void efuse_ring_taken(req, when) */
SEC("fentry")
int ring_taken(__u64 *ctx)
{
	__u64 req = ctx[0];
	struct request *request = bpf_map_lookup_elem(&requests, &req);

	if (request)
		request->dequeued = ctx[1];
	return 0;
}

/* void efuse_ring_messages(fc, forgets, interrupts) */
SEC("fentry")
int ring_messages(__u64 *ctx)
{
	__u32 forgets = ctx[1], interrupted = ctx[2];
	struct opcode *slot;

	if (!control.active || !is_ours(ctx[0]))
		return 0;
	if (forgets) {
		count(COUNT_FORGOTTEN, forgets);
		cross(forgets > 1 ? OPCODE_BATCH_FORGET : OPCODE_FORGET);
	}
	slot = opcode_slot(OPCODE_INTERRUPT);
	if (slot)
		__sync_fetch_and_add(&slot->crossings, interrupted);
	return 0;
}

#endif
