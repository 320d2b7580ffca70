/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A user context on the move: between a host signal frame and the wire.
 *
 * Pure, but for CPUID in context_layout_init().  The signal frame lies in memory that user code can write,
 * so nothing found there is trusted; neither is what came over the wire.
 */
#ifndef PANGEA_CONTEXT_H
#define PANGEA_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "../net/wire.h"
#include "xstate.h"

/* Order of struct user_regs_struct. */
enum context_gp {
	CONTEXT_R15, CONTEXT_R14, CONTEXT_R13, CONTEXT_R12, CONTEXT_BP, CONTEXT_BX, CONTEXT_R11, CONTEXT_R10,
	CONTEXT_R9, CONTEXT_R8, CONTEXT_AX, CONTEXT_CX, CONTEXT_DX, CONTEXT_SI, CONTEXT_DI, CONTEXT_ORIG_AX,
	CONTEXT_IP, CONTEXT_CS, CONTEXT_FLAGS, CONTEXT_SP, CONTEXT_SS, CONTEXT_FS_BASE, CONTEXT_GS_BASE,
	CONTEXT_DS, CONTEXT_ES, CONTEXT_FS, CONTEXT_GS,
};

struct context_layout {
	uint32_t end[XSTATE_COMPONENTS];
	uint64_t features;	/* XSTATE_BV bits that this host can load */
};

void context_layout_init(struct context_layout *layout);

/*
 * Where the vector state of a signal frame lies, and its size in bytes; NULL when the frame does not hold
 * together.  frame_delta: this process's address of the frame minus the address that its own pointers use.
 */
void *context_fp(ucontext_t *frame, const void *frame_end, uintptr_t frame_delta, uint32_t *size);

/* General registers; segment selectors stay those of the frame. */
void context_get_gp(const ucontext_t *frame, uint64_t gp[WIRE_GP_COUNT]);
void context_set_gp(ucontext_t *frame, const uint64_t gp[WIRE_GP_COUNT], bool singlestep);

/*
 * Load length bytes of vector state into the frame's area of `size` bytes, reduced to what this host can
 * restore without a fault.  false: too short, or too long for the area.
 */
bool context_set_fp(const struct context_layout *layout, void *area, uint32_t size, const void *fp,
		    uint32_t length);

#endif
