/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program for a member of the set out of a function of one argument.
 */
#ifndef EFUSE_MEMBER_H
#define EFUSE_MEMBER_H

#include "efuse.h"

/* A program belongs to one member of the set, so each opcode has its own. */
#define BEFORE(member, answer)                                                                     \
	SEC("struct_ops/" #member)                                                                 \
	int BPF_PROG(member, struct efuse_ctx *req)                                                \
	{                                                                                          \
		return answer(req);                                                                \
	}

#define AFTER(member, learn)                                                                       \
	SEC("struct_ops/" #member)                                                                 \
	int BPF_PROG(member, struct efuse_ctx *req)                                                \
	{                                                                                          \
		learn(req);                                                                        \
		return EFUSE_PASS;                                                                 \
	}

/* A program for data: the path of a read or a write, of which "io" may be part. */
#define CHOOSE(member, path)                                                                       \
	SEC("struct_ops/" #member)                                                                 \
	int BPF_PROG(member##_choose, struct efuse_io *io)                                         \
	{                                                                                          \
		return path;                                                                       \
	}

#endif /* EFUSE_MEMBER_H */
