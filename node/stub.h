/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Between pangead and a stub process.
 *
 * A stub holds one address space of the machine on one node.  Its own code and its control area lie above
 * everything the machine's kernel gives to user programs, at fixed addresses; all other addresses
 * belong to user code.  The control area is a memory file shared with pangead, one struct stub_slot per thread:
 *
 *   slot 0      the service thread: carries out map operations, never runs user code
 *   slot 1..    one thread for each CPU of the node: runs user code, and parks in its signal handler
 *
 * A slot is owned by whoever `turn` names.  Handing over is a store to `turn` and, if the other side said in
 * its *_waits flag that it sleeps, a futex wake.  The flag is stored before `turn` is read again (both
 * seq_cst), so a wake is never lost and never sent to someone awake.  Both sides sleep on the same word
 * with different futex bitsets.
 */
#ifndef PANGEA_STUB_H
#define PANGEA_STUB_H

#include <stdint.h>

#define STUB_USER_END		0x7f8000000000ul	/* user code's addresses end here */
#define STUB_TEXT		0x7f9000000000ul	/* where the stub program is linked */
#define STUB_TEXT_SIZE		0x100000ul
#define STUB_AREA		0x7f9000100000ul	/* the control area */
#define STUB_SLOT_SIZE		0x8000ul
#define STUB_SLOTS_MAX		65
#define STUB_OPS_MAX		64

/* Descriptors that the stub program is started with. */
#define STUB_FD_SOCKET		0	/* sends its userfaultfd here, once, then closes it */
#define STUB_FD_FRAMES		1	/* the node's frame cache */
#define STUB_FD_AREA		2	/* the control area; closed after mapping */
#define STUB_FD_UFFD		3

enum stub_turn { STUB_TURN_STUB = 0, STUB_TURN_DAEMON = 1, STUB_TURN_PAGE = 2 };
enum { STUB_WAKE_STUB = 1, STUB_WAKE_DAEMON = 2 };	/* futex bitsets */

struct stub_op {
	uint64_t addr, length;		/* bytes */
	uint64_t offset;		/* in the frame cache, bytes */
	uint32_t prot;
	uint32_t kind;			/* enum stub_op_kind */
};

enum stub_op_kind {
	STUB_OP_MAP = 1,		/* map PROT_NONE, register, then give prot */
	STUB_OP_PROTECT = 2,		/* same frames, other rights */
	STUB_OP_UNMAP = 3,
};

enum stub_sync { STUB_SYNC_FS = 1, STUB_SYNC_GS = 2 };

struct stub_slot {
	/* enum stub_turn; PAGE: the daemon has the slot and a frame is on its way */
	uint32_t turn;
	uint32_t stub_waits, daemon_waits;
	int32_t tid;

	/* slots 1..: why the thread parked, and what to set before it goes on */
	uint32_t signal;
	int32_t code, syscall;		/* si_code, si_syscall */
	uint32_t context_offset;	/* of the ucontext in this slot */
	uint64_t address;		/* si_addr */
	uint64_t fs_base, gs_base;
	uint32_t sync;			/* enum stub_sync */

	/* slot 0 */
	uint32_t op_count;		/* in: to do; out: done */
	int32_t op_error;		/* of ops[op_count]; 0: all done */
	struct stub_op ops[STUB_OPS_MAX];

	uint8_t stack[] __attribute__((aligned(4096)));	/* to STUB_SLOT_SIZE: signal stack, or the service's */
};

_Static_assert(sizeof(struct stub_slot) == 4096, "the control part of a slot is one page");

/* What the stub reads from STUB_FD_SOCKET first. */
struct stub_init {
	uint32_t slots;			/* in all, the service's included */
	uint32_t reserved;
};

#endif
