/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How much of an XSAVE area has to travel.
 *
 * Vector state is exchanged in the standard (not compacted) XSAVE format, cut after the last component that
 * is in use: 576 bytes for SSE, 832 with AVX, 2,688 with AVX-512.  A component that XSTATE_BV does not
 * name is in its initial state whatever its bytes are.  Compiled into the kernel too.
 */
#ifndef PANGEA_XSTATE_H
#define PANGEA_XSTATE_H

#include <linux/types.h>

#define XSTATE_LEGACY_SIZE	512
#define XSTATE_HEADER_END	576
#define XSTATE_BV_OFFSET	512
#define XSTATE_SW_OFFSET	464	/* 48 bytes that belong to the host's signal frame */
#define XSTATE_SW_SIZE		48
#define XSTATE_COMPONENTS	19

static inline void xstate_cpuid(__u32 leaf, __u32 sub, __u32 out[4])
{
	__asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "0"(leaf), "2"(sub));
}

/* end[i]: offset behind component i on this host; 0 when it does not exist. */
static inline void xstate_layout(__u32 end[XSTATE_COMPONENTS])
{
	__u32 r[4], i;

	end[0] = end[1] = XSTATE_HEADER_END;
	for (i = 2; i < XSTATE_COMPONENTS; i++) {
		xstate_cpuid(0xd, i, r);
		end[i] = r[0] && !(r[2] & 1) ? r[1] + r[0] : 0;
	}
}

/* Bytes of `area` (size bytes) that matter. */
static inline __u32 xstate_length(const void *area, __u32 size, const __u32 end[XSTATE_COMPONENTS])
{
	__u64 bv;
	__u32 i, length = XSTATE_HEADER_END;

	if (size < XSTATE_HEADER_END)
		return size;
	bv = *(const __u64 *)((const char *)area + XSTATE_BV_OFFSET);
	for (i = 2; i < XSTATE_COMPONENTS; i++)
		if (bv >> i & 1 && end[i] > length)
			length = end[i];
	return length < size ? length : size;
}

#endif
