/* SPDX-License-Identifier: MIT */
/* io.c - chooses the engine that reads chunks. Owns nothing. */
#include "core/core_int.h"

static const struct io_ops *try_one(const struct io_ops *ops, uint32_t depth)
{
	int err = ops->open(depth);

	if (!err)
		return ops;
	off_verbose(1, "%s is not available here (%s)", ops->name,
		    strerrordesc_np(-err));
	return NULL;
}

const struct io_ops *io_open(uint32_t depth, bool need_threads)
{
	const struct io_ops *ops = NULL;

	if (!need_threads && off_opt.io != OPT_IO_PREAD)
		ops = try_one(&io_uring_ops, depth);
	return ops ? ops : try_one(&io_pread_ops, depth);
}
