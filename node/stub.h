/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Between pangead and a stub process.
 *
 * A stub holds one address space of the machine on one node.  Its own code and its control areas lie above
 * everything the machine's kernel gives to user programs, at fixed addresses; all other addresses
 * belong to user code.  All control areas of a node are in one memory file, the arena, which pangead has mapped and,
 * on the kernel host, the kernel, which hands its own CPUs' slots over itself (ssi/overlay/arch/um/ssi/local.c); a
 * stub maps its own area only.  Slots:
 *
 *   slot 0      the service thread: carries out map operations, never runs user code
 *   slot 1..    one thread for each CPU of the node: runs user code, and parks in its signal handler
 *   the last    on the kernel host, if there are other nodes: likewise, for any of their CPUs, while its program starts
 *               (ssi/overlay/arch/um/ssi/start.c)
 *
 * Each slot has orders, which only pangead can write, and a report, which user code can write too, because it is
 * in its address space.  So nothing that is read from a report is trusted, and no report makes a thread do
 * anything: a CPU thread runs when its orders say so, and the service thread reads its orders only.
 *
 * A CPU thread has parked when report.parked equals orders.go, and runs when it finds orders.go greater.  Who
 * waits says so (the *_waits flag) before reading the word again, and who changes the word looks at the
 * flag afterwards, all seq_cst; so a wake is never lost and never sent to someone awake.  A CPU thread sleeps on its flag,
 * which who resumes it clears, and looks at its orders again whatever has woken it.
 *
 * The service thread waits for its orders.go as well, carries out its operations, and answers with STUB_RESULT_...:
 *
 *   to pangead  by a byte on STUB_FD_SOCKET, where user code can neither read nor write
 *   to the kernel, which gives orders only while none of the stub's other threads runs user code, in its report
 *
 * Where system calls are frequent the kernel replaces them by jumps (gates), which come here without a trap.  They leave in
 * the report what a signal would have, and park in the same way.
 *
 * Programs that start others ask for the action of each signal and set it to what it is already, 128 system calls.  So while
 * orders.actions_known says so, the stub answers rt_sigaction() from what stands there, unless that would change more than
 * whether an action that is no handler has a restorer, which glibc always sets.  That it notes in its report (posted), for
 * the kernel to do when it is entered next; nobody else can see the difference before.
 *
 * Who gives orders owns the slot meanwhile (orders.owner).  What the kernel has mapped pangead does not know, so
 * orders.kernel_maps tells it to forget what it believes to be mapped; orders.kernel_takes, that the kernel has unmapped
 * something, which stands in orders.taken before it is counted, and before it is unmapped.
 */
#ifndef PANGEA_STUB_H
#define PANGEA_STUB_H

#define STUB_USER_END		0x7f8000000000		/* user code's addresses end here */
#define STUB_TEXT		0x7f9000000000		/* where the stub program is linked */
#define STUB_TEXT_SIZE		0x100000
#define STUB_ORDERS		0x7f9000100000		/* one page a slot; then CLOCK_PAGE (clock_page.h) */
#define STUB_REPORTS		0x7f9000200000
#define STUB_REPORT_SIZE	0x8000			/* with the signal stack behind it */
#define STUB_SLOTS_MAX		65
#define STUB_GATE		0x7f9000080000		/* gates lead here (ssi/overlay/arch/um/ssi/gate.c) */

#define STUB_GATE_ENDS		5	/* behind what a gate reports as its place it says where its system call ends */

/* What a CPU thread leaves there, in its report, that came through a gate: as a signal frame, and its stack. */
#define STUB_GATE_FRAME		0x6000
#define STUB_GATE_FP		0x6400
#define STUB_GATE_STACK		0x7800			/* to STUB_REPORT_SIZE */

#define STUB_OPS_MAX		64
#define STUB_TAKEN_MAX		16

/* Descriptors that the stub program is started with. */
#define STUB_FD_SOCKET		0	/* sends its userfaultfd here, once; then the service thread's answers */
#define STUB_FD_FRAMES		1	/* the node's frame cache */
#define STUB_FD_AREA		2	/* the arena; closed after mapping */
#define STUB_FD_UFFD		3

/* enum stub_op.kind; the service thread is in assembler */
#define STUB_OP_MAP		1	/* with no rights; before they are given it is registered */
#define STUB_OP_REGISTER	2
#define STUB_OP_PROTECT		3
#define STUB_OP_UNMAP		4
#define STUB_OP_GIVE		5	/* with rights and entries; to be registered at once */
#define STUB_OP_SHOW		6	/* with rights, likewise */

/* enum stub_owner */
#define STUB_OWNER_NONE		0
#define STUB_OWNER_DAEMON	1
#define STUB_OWNER_KERNEL	2	/* the answer goes to the report */

/* UFFDIO_REGISTER_MODE_...: MISSING, WP, MINOR: every mapping of a frame is registered for all of them */
#define STUB_REGISTER_MODES	7

/* What the service thread answers. */
#define STUB_RESULT_DONE	1
#define STUB_RESULT_FULL	2	/* the host has no room for another mapping */
#define STUB_RESULT_FAILED	3

#include <stddef.h>
#include <stdint.h>

struct stub_op {
	uint64_t addr, length, mode;	/* bytes; REGISTER: as struct uffdio_register begins */
	uint64_t offset;		/* in the frame cache, bytes */
	uint32_t prot;
	uint32_t kind;
};

enum stub_sync { STUB_SYNC_FS = 1, STUB_SYNC_GS = 2 };

/* A signal's, as the kernel's struct sigaction and its arguments have it. */
struct stub_action { uint64_t handler, flags, restorer, mask; };
#define STUB_SA_RESTORER 0x04000000u

struct stub_orders {
	/* slots 1..: run once more than the last time; what to set before */
	uint32_t go;
	uint32_t daemon_waits;
	uint32_t sync;			/* enum stub_sync */
	union {
		uint32_t op_count;	/* slot 0 */
		uint32_t ran;		/* slots 1..: it may have run user code; set before go is changed */
	};
	uint64_t fs_base, gs_base;
	union {
		struct stub_op ops[STUB_OPS_MAX];	/* slot 0 */
		struct stub_action actions[64];		/* slots 1..: of signal 1.. */
	};
	/* the thread, for signals and to place it */
	int32_t pid, tid;
	uint32_t spin;			/* how often to look at go before sleeping */
	uint32_t placed;		/* 1 + the host's CPU on which the kernel has put it; 0: pangead's choice */
	/* slot 0 */
	uint32_t owner;			/* STUB_OWNER_...; who changes it from NONE */
	uint32_t kernel_maps;		/* times that the kernel was, and has mapped */
	uint64_t mm;			/* for which the kernel has taken the stub; 0: it has not */
	uint32_t other_time;		/* its tasks are in a time namespace: the clock page is not for them */
	uint32_t kernel_takes;		/* ranges that it has unmapped without mapping, the newest in taken[]; wraps around */
	struct { uint64_t start, end; } taken[STUB_TAKEN_MAX];
	uint32_t actions_known;		/* during this run */
	uint32_t actions_told;		/* there have been some since the stub was emptied */
	uint32_t kept;			/* slot 0, in store: the kernel knows its mappings, which are to stay */
	uint8_t rest[4096 - 84 - STUB_OPS_MAX * sizeof(struct stub_op) - STUB_TAKEN_MAX * 16];
};

struct stub_report {
	uint32_t parked;		/* orders.go when the thread parked */
	uint32_t stub_waits;		/* slots 1..: and the futex to wake then, of 1 */
	int32_t tid;
	/* why it parked; slot 0: STUB_RESULT_... */
	uint32_t signal;
	int32_t code, syscall;		/* si_code, si_syscall */
	uint32_t context_offset;	/* of the ucontext in this report */
	uint32_t gate_ready;		/* what a gate leaves can be left */
	uint64_t address;		/* si_addr */
	uint32_t alarm;			/* SIGALRM came in a gate */
	/* since the run's context was loaded, by whom it is emptied: signals (1 << signal - 1) whose action has got that restorer */
	uint64_t posted, posted_restorer;
	uint8_t stack[] __attribute__((aligned(64)));	/* to STUB_REPORT_SIZE */
};

_Static_assert(sizeof(struct stub_orders) == 4096, "the orders of a slot are one page");
_Static_assert(offsetof(struct stub_orders, go) == 0 && offsetof(struct stub_orders, daemon_waits) == 4 &&
	       offsetof(struct stub_report, parked) == 0 && offsetof(struct stub_report, stub_waits) == 4 &&
	       offsetof(struct stub_orders, op_count) == 12 && offsetof(struct stub_orders, ops) == 32 &&
	       offsetof(struct stub_op, offset) == 24 && offsetof(struct stub_op, prot) == 32 &&
	       offsetof(struct stub_op, kind) == 36 && sizeof(struct stub_op) == 40 &&
	       offsetof(struct stub_orders, spin) == 2600 && offsetof(struct stub_orders, owner) == 2608 && offsetof(struct stub_orders, other_time) == 2624 && offsetof(struct stub_report, signal) == 12 &&
	       offsetof(struct stub_report, gate_ready) == 28 && offsetof(struct stub_report, alarm) == 40,
	       "what the code in assembler in stub.c knows");
_Static_assert(STUB_REPORT_SIZE == 1 << 15 && STUB_REPORTS % STUB_REPORT_SIZE == 0 && sizeof(struct stub_orders) == 1 << 12,
	       "how park() finds its orders");

/* The GS base of user code; where that is 0, gates may have it to find the report. */
static inline uint64_t stub_user_gs(uint64_t gs_base)
{
	return gs_base - STUB_REPORTS < STUB_SLOTS_MAX * STUB_REPORT_SIZE ? 0 : gs_base;
}

/*
 * Where a frame has its only entry in a stub (node/pager.c): 0: nowhere; SHOWN_MANY: anything.  Noted before the entry is
 * made, by whoever sees that the node holds the frame.
 */
#define SHOWN_MANY	(~0ull)
#define SHOWN_ADDRESS	36		/* bits of a page's number */

static inline uint64_t stub_shown_at(unsigned area, uint64_t address)
{
	return (uint64_t)(area + 1) << SHOWN_ADDRESS | address / 4096;
}

static inline void stub_note_shown(uint64_t *shown, uint64_t at)
{
	uint64_t old = __atomic_load_n(shown, __ATOMIC_RELAXED);

	while (old != at && old != SHOWN_MANY &&
	       !__atomic_compare_exchange_n(shown, &old, old ? SHOWN_MANY : at, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* What the stub reads from STUB_FD_SOCKET first. */
struct stub_init {
	uint32_t slots;			/* in all, the service's included */
	uint32_t area;			/* number */
};

#define STUB_MM_NONE	(~0ull)	/* orders.mm of a stub that the kernel has taken and found dead */
#define STUB_SPARES_MIN	4	/* a pipeline of a shell's worth */
#define STUB_SPARES_MAX	16	/* those of what has ended included */
#define STUB_FREED_MAX	32	/* that pangead has not looked at yet */

/*
 * The arena begins with what the kernel counts of runs on its host; a CPU's are written by that CPU only.
 * mapping: odd while it looks at what frames the node holds and gives orders by that.
 *
 * The stubs that pangead has in store stand in spare[], as 1 + the number of their area.  The kernel takes one by writing
 * 0 there and then orders.mm of its slot 0, or STUB_MM_NONE if it is dead.  The mms that the kernel has ended stand in freed[]
 * until pangead takes them from there; if that is full, they are said over the mm channel.  Who leaves fewer than
 * STUB_SPARES_MIN in store, or frees an mm then, has freed a few mms, or one and is idle, wakes who waits for reap_wakes to
 * change.
 */
struct stub_arena {
	struct { uint64_t runs, interrupts, user_ns, mapping, maps, map_ns; } cpu[STUB_SLOTS_MAX];
	uint64_t freed[STUB_FREED_MAX];
	uint32_t spare[STUB_SPARES_MAX];
	uint32_t reap_wakes;
};

#define STUB_CLOCK	4096	/* offset of struct clock_page, which every stub has mapped */
#define STUB_AREAS	8192	/* offset of the first area */
#define STUB_AREAS_MAX		32768
#define STUB_AREA_SIZE(slots)	((uint64_t)(slots) * (sizeof(struct stub_orders) + STUB_REPORT_SIZE))

_Static_assert(sizeof(struct stub_arena) <= STUB_CLOCK, "what comes before the areas");

/* Orders and report of a slot, where an area of so many slots is mapped. */
static inline struct stub_orders *stub_orders_of(void *area, unsigned slot)
{
	return (struct stub_orders *)area + slot;
}

static inline struct stub_report *stub_report_of(void *area, unsigned slots, unsigned slot)
{
	return (void *)((uint8_t *)area + slots * sizeof(struct stub_orders) + (uint64_t)slot * STUB_REPORT_SIZE);
}

#endif
