// SPDX-License-Identifier: GPL-2.0
/*
 * The code of gates (gate.c), and whether there may be any.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include "ssi_internal.h"
#include "stub.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2	/* rdgsbase; nodes are compared by that flag of CPUID (node/features.h) */
#endif

int ssi_may_gate(void)
{
	const char *gates = getenv("PANGEA_GATES");

	return !(gates && !strcmp(gates, "off")) && getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

#define ENTRY 0, 0, 0, 0		/* distances and such, filled in */

static const uint8_t gate[] = {
	0, ENTRY,						/* the instruction that has made room for the jump */
	0x48, 0x8d, 0x0d, 7, 0, 0, 0,				/* lea 2f(%rip), %rcx */
	0xe9, ENTRY,						/* jmp common */
	0x0f, 0x05,						/* 1: syscall */
	0x0f, 0x0b,						/* 2: ud2 */
	0, 0, 0,
	ENTRY, ENTRY,						/* .quad of where the call ends, for who answers it itself */
};

/* What the gates of a page have in common.  rcx: 2 above */
static const uint8_t common[] = {
	0xf3, 0x49, 0x0f, 0xae, 0xcb,				/* rdgsbase %r11 */
	0x49, 0xc1, 0xeb, 22,					/* shr $22, %r11 */
	0x49, 0x81, 0xfb, ENTRY,				/* cmp $(STUB_REPORTS >> 22), %r11 */
	0x75, 13,						/* jne 1f */
	0x49, 0xbb, ENTRY, ENTRY,				/* movabs $STUB_GATE, %r11 */
	0x41, 0xff, 0xe3,					/* jmp *%r11 */
	0x4c, 0x8d, 0x59, 0xfe,					/* 1: lea -2(%rcx), %r11 */
	0x41, 0xff, 0xe3,					/* jmp *%r11 */
};

#define GATE_JUMP	13
#define COMMON_REPORTS	12
#define COMMON_STUB	20

_Static_assert(sizeof(gate) == SSI_GATE_SIZE && sizeof(common) <= SSI_GATE_COMMON, "there is room for it");
_Static_assert(SSI_GATE_RETURN == GATE_JUMP + 4 + 2, "behind the system call of a gate");
_Static_assert(SSI_GATE_RETURN + STUB_GATE_ENDS == SSI_GATE_SIZE - 8, "what the stub looks for comes last");

void ssi_prepare_gates(unsigned char *page, unsigned long size)
{
	const uint32_t reports = STUB_REPORTS >> 22;
	const uint64_t stub = STUB_GATE;
	unsigned char *end = page + size - SSI_GATE_COMMON;

	memcpy(end, common, sizeof(common));
	memcpy(end + COMMON_REPORTS, &reports, sizeof(reports));
	memcpy(end + COMMON_STUB, &stub, sizeof(stub));
}

void ssi_write_gate(unsigned char *page, unsigned long size, unsigned int n, const unsigned char *instruction,
		    unsigned long ip)
{
	unsigned char *at = page + n * SSI_GATE_SIZE;
	uint32_t distance = page + size - SSI_GATE_COMMON - (at + GATE_JUMP + 4);

	memcpy(at, gate, sizeof(gate));
	memcpy(at, instruction, SSI_GATE_ROOM);
	memcpy(at + GATE_JUMP, &distance, sizeof(distance));
	memcpy(at + SSI_GATE_RETURN + STUB_GATE_ENDS, &ip, sizeof(ip));
}
