// SPDX-License-Identifier: GPL-2.0
#ifndef _GNU_SOURCE		/* the kernel's build has it */
#define _GNU_SOURCE
#endif
#include <asm/sigcontext.h>
#include <string.h>

#include "context.h"

#define FLAGS_TRAP	0x100ul
/* What user code may set: CF PF AF ZF SF TF DF OF RF NT AC ID. */
#define FLAGS_USER	0x254dd5ul
#define MXCSR_OFFSET	24
#define MXCSR_VALID	0xffffu
#define HEADER_SIZE	64

static const struct { uint8_t gp, greg; } general[] = {
	{ CONTEXT_R8, REG_R8 }, { CONTEXT_R9, REG_R9 }, { CONTEXT_R10, REG_R10 }, { CONTEXT_R11, REG_R11 },
	{ CONTEXT_R12, REG_R12 }, { CONTEXT_R13, REG_R13 }, { CONTEXT_R14, REG_R14 }, { CONTEXT_R15, REG_R15 },
	{ CONTEXT_DI, REG_RDI }, { CONTEXT_SI, REG_RSI }, { CONTEXT_BP, REG_RBP }, { CONTEXT_BX, REG_RBX },
	{ CONTEXT_DX, REG_RDX }, { CONTEXT_AX, REG_RAX }, { CONTEXT_CX, REG_RCX }, { CONTEXT_SP, REG_RSP },
	{ CONTEXT_IP, REG_RIP }, { CONTEXT_FLAGS, REG_EFL },
};

#define GENERAL_COUNT (sizeof(general) / sizeof(general[0]))

void context_layout_init(struct context_layout *layout)
{
	uint32_t low, high;

	xstate_layout(layout->end);
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	layout->features = (uint64_t)high << 32 | low;
}

void *context_fp(ucontext_t *frame, const void *frame_end, uintptr_t frame_delta, uint32_t *size)
{
	uint8_t *area = (uint8_t *)((uintptr_t)frame->uc_mcontext.fpregs + frame_delta);
	const uint8_t *end = frame_end;
	const struct _fpx_sw_bytes *sw;
	uint32_t extended;

	if (area < (uint8_t *)frame || area > end - XSTATE_HEADER_END || (uintptr_t)area % 64)
		return NULL;
	sw = (const void *)(area + XSTATE_SW_OFFSET);
	if (sw->magic1 != FP_XSTATE_MAGIC1)
		return NULL;
	extended = sw->extended_size;
	if (extended < XSTATE_HEADER_END + FP_XSTATE_MAGIC2_SIZE || extended > end - area)
		return NULL;
	*size = extended - FP_XSTATE_MAGIC2_SIZE;
	return area;
}

void context_get_gp(const ucontext_t *frame, uint64_t gp[WIRE_GP_COUNT])
{
	uint64_t segments = frame->uc_mcontext.gregs[REG_CSGSFS];

	for (size_t i = 0; i < GENERAL_COUNT; i++)
		gp[general[i].gp] = frame->uc_mcontext.gregs[general[i].greg];
	gp[CONTEXT_CS] = segments & 0xffff;
	gp[CONTEXT_SS] = segments >> 48;
}

void context_set_gp(ucontext_t *frame, const uint64_t gp[WIRE_GP_COUNT], bool singlestep)
{
	greg_t *flags = &frame->uc_mcontext.gregs[REG_EFL];

	for (size_t i = 0; i < GENERAL_COUNT; i++)
		frame->uc_mcontext.gregs[general[i].greg] = gp[general[i].gp];
	*flags = (*flags & FLAGS_USER & ~FLAGS_TRAP) | 0x202 | (singlestep ? FLAGS_TRAP : 0);
}

bool context_set_fp(const struct context_layout *layout, void *area, uint32_t size, const void *fp,
		    uint32_t length)
{
	uint8_t *to = area;
	const uint8_t *from = fp;
	uint32_t *mxcsr = (uint32_t *)(to + MXCSR_OFFSET);
	uint64_t *header = (uint64_t *)(to + XSTATE_BV_OFFSET);

	if (length < XSTATE_HEADER_END || length > size)
		return false;
	memcpy(to, from, XSTATE_SW_OFFSET);
	memcpy(to + XSTATE_BV_OFFSET, from + XSTATE_BV_OFFSET, length - XSTATE_BV_OFFSET);
	/* XRSTOR faults on what it does not know; a fault here would kill the whole stub */
	*mxcsr &= MXCSR_VALID;
	header[0] &= layout->features;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
		if (layout->end[i] > length)
			header[0] &= ~(1ull << i);
	header[0] &= (1ull << XSTATE_COMPONENTS) - 1;
	memset(header + 1, 0, HEADER_SIZE - sizeof(*header));
	return true;
}
