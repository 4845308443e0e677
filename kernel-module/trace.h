/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: the cost of a read, and failures. `image` is the first eight bytes of the image ID,
 * as the log prints them.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM tesserafs

#if !defined(TESSERAFS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define TESSERAFS_TRACE_H

#include <linux/tracepoint.h>

/* The stored bytes of a chunk were read from the backing store. */
TRACE_EVENT(tesserafs_read,
	TP_PROTO(u64 image, u32 chunk, u64 offset, u32 stored),
	TP_ARGS(image, chunk, offset, stored),
	TP_STRUCT__entry(
		__field(u64, image)
		__field(u64, offset)
		__field(u32, chunk)
		__field(u32, stored)
	),
	TP_fast_assign(
		__entry->image = image;
		__entry->offset = offset;
		__entry->chunk = chunk;
		__entry->stored = stored;
	),
	TP_printk("image=%016llx chunk=%u offset=%llu stored=%u",
		  __entry->image, __entry->chunk, __entry->offset, __entry->stored)
);

/* A chunk was verified, and its first @raw bytes were decoded. */
TRACE_EVENT(tesserafs_decode,
	TP_PROTO(u64 image, u32 chunk, u32 stored, u32 raw),
	TP_ARGS(image, chunk, stored, raw),
	TP_STRUCT__entry(
		__field(u64, image)
		__field(u32, chunk)
		__field(u32, stored)
		__field(u32, raw)
	),
	TP_fast_assign(
		__entry->image = image;
		__entry->chunk = chunk;
		__entry->stored = stored;
		__entry->raw = raw;
	),
	TP_printk("image=%016llx chunk=%u stored=%u raw=%u",
		  __entry->image, __entry->chunk, __entry->stored, __entry->raw)
);

/* An operation failed; `rule` names what the image breaks, and is empty where the image does not. */
TRACE_EVENT(tesserafs_failure,
	TP_PROTO(u64 image, const char *rule, unsigned int length, int error),
	TP_ARGS(image, rule, length, error),
	TP_STRUCT__entry(
		__field(u64, image)
		__field(int, error)
		__string_len(rule, rule, length)
	),
	TP_fast_assign(
		__entry->image = image;
		__entry->error = error;
		__assign_str(rule);
	),
	TP_printk("image=%016llx error=%d rule=%s", __entry->image, __entry->error, __get_str(rule))
);

#endif /* TESSERAFS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
