/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every byte between hosts, except the control channel (net/control.proto).
 *
 * All fields are little-endian and naturally aligned; Pangea runs on x86-64 only, so no field is
 * swapped.  A message is a struct wire_hdr followed by the rest of its struct, `length` bytes in all.
 * Nothing that was received is looked at before wire_check() has accepted it.  Numbers are never reused.
 *
 * Channels and who speaks on them:
 *   cpu  kernel half of one CPU <-> its executor on the CPU's node.  RUN is answered by one EVENT, COPY by
 *        one COPIED.
 *   mm   kernel -> node, one per node.  REVOKE, DISCARD and CLOCK_STOP are answered by ACK, in order.
 *   dsm  node <-> node, the coherence protocol of doc/coherence.md: what somebody waits for.
 *   bulk node <-> node, the same messages: what was asked for ahead, and all that follows from it.
 * Every connection starts with HELLO from the side that connected, answered by WELCOME or REFUSE.
 *
 * This header is also compiled into the kernel, so it includes <linux/types.h> only.
 */
#ifndef PANGEA_WIRE_H
#define PANGEA_WIRE_H

#include <linux/types.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire is little-endian and so must be the machine"
#endif

#define WIRE_MAGIC		0x61676e50u	/* "Pnga" */
#define WIRE_VERSION		11
#define WIRE_PAGE_SIZE		4096
#define WIRE_NODES_MAX		16
#define WIRE_CPUS_MAX		64
#define WIRE_FP_MAX		11008		/* bytes of XSAVE area, AMX included */
#define WIRE_MAPS_MAX		192		/* map operations in one RUN */
#define WIRE_RANGES_MAX		256		/* frame ranges in one DISCARD */
#define WIRE_ARGUMENT_MAX	512		/* bytes of user memory in an EVENT */
#define WIRE_COPY_MAX		12288		/* bytes of user memory in one COPY */
#define WIRE_SEGMENTS_MAX	4		/* pieces of it */
#define WIRE_UNANSWERED_MAX	8		/* COPYs in a row that are not to be answered */
#define WIRE_FRAMES_MAX		256		/* in one message of the coherence protocol */
#define WIRE_PAGES_MAX		64		/* in one GRANT */
#define WIRE_LENGTH_MAX		16384		/* of any message but GRANT */
#define WIRE_REASON_MAX		160		/* bytes of text in REFUSE */

enum wire_type {
	/* every channel */
	WIRE_HELLO	= 1,
	WIRE_WELCOME	= 2,
	WIRE_REFUSE	= 3,
	/* cpu channel */
	WIRE_RUN	= 16,
	WIRE_EVENT	= 17,
	WIRE_COPY	= 18,
	WIRE_COPIED	= 19,
	/* mm channel */
	WIRE_INTERRUPT	= 32,
	WIRE_REVOKE	= 33,
	WIRE_MM_FREE	= 34,
	WIRE_DISCARD	= 35,
	WIRE_ACK	= 36,
	WIRE_CLOCK_STOP	= 37,
	/* dsm and bulk channel */
	WIRE_GET	= 48,
	WIRE_FETCH	= 49,
	WIRE_INVALIDATE	= 50,
	WIRE_INVALIDATE_ACK = 51,
	WIRE_GRANT	= 52,
	WIRE_DONE	= 53,
};

enum wire_purpose {
	WIRE_PURPOSE_CONTROL	= 1,	/* protobuf-c follows, not struct wire_hdr */
	WIRE_PURPOSE_CPU	= 2,
	WIRE_PURPOSE_MM		= 3,
	WIRE_PURPOSE_DSM	= 4,
	WIRE_PURPOSE_BULK	= 5,
};

struct wire_hdr {
	__le32 length;		/* bytes, this header included */
	__le16 type;		/* enum wire_type */
	__le16 reserved;	/* 0 */
	__le64 seq;		/* RUN/EVENT/INTERRUPT: run number; COPY/COPIED: newest one; REVOKE/DISCARD/CLOCK_STOP/ACK: request number; else 0 */
};

/* First message of every connection. */
struct wire_hello {
	struct wire_hdr hdr;
	__le32 magic;
	__le16 version;
	__le16 purpose;		/* enum wire_purpose */
	__le16 node;		/* speaker's node number; 0xffff: a control peer that has none yet */
	__le16 cpu;		/* purpose CPU: the Linux CPU number */
	__le32 reserved;
	__u8 machine[16];	/* which machine this is; zero for a control peer that does not know yet */
};

struct wire_refuse {
	struct wire_hdr hdr;
	__u8 reason[WIRE_REASON_MAX];	/* NUL-terminated text for a person */
};

/* General registers in the order of struct user_regs_struct. */
enum { WIRE_GP_COUNT = 27 };

/* A change of one mm's mappings on a node; `prot` 0 removes, and pfn is then 0. */
struct wire_map {
	__le64 addr;		/* bytes, page aligned */
	__le64 pfn;		/* first frame of `pages` consecutive ones */
	__le32 pages;
	__le32 prot;		/* PROT_READ | PROT_WRITE | PROT_EXEC; WIRE_MAP_WANTED, WIRE_MAP_AHEAD */
};
/*
 * One page, which the run will use at once: the node asks for its frame before it does anything else.  What follows the
 * last of these may be mapped while user code runs.
 */
#define WIRE_MAP_WANTED		8u
/* Pages that it will most likely use: the node asks for their frames, and nobody waits for them. */
#define WIRE_MAP_AHEAD		16u
#define WIRE_AHEAD_MAX		512u	/* pages in one of these */
/* A removal may be as long as the address space. */
#define WIRE_MAP_ALL_PAGES	0xffffffffu

enum wire_run_flags {
	WIRE_RUN_SINGLESTEP	= 1,
	WIRE_RUN_FP		= 2,	/* fp_length bytes of XSAVE area follow the maps */
	/* on the kernel host, where the kernel has a stub's control area too (node/stub.h): */
	WIRE_RUN_LOADED		= 4,	/* the context is in the CPU's slot already, and stays there afterwards */
	WIRE_RUN_STARTED	= 8,	/* and the thread was told to run it: it does, or has parked; no maps */
	WIRE_RUN_OTHER_TIME	= 16,	/* the task is in a time namespace: the clock is not its own */
	WIRE_RUN_GATES		= 32,	/* user code does not use the GS base: gates may find the slot's report by it */
	WIRE_RUN_APART		= 64,	/* the kernel half looks for the answer without sleeping, on a CPU of its own */
	WIRE_RUN_ACTIONS	= 128,	/* the task's signal actions come last, not with FP: rt_sigaction() may be answered there */
	WIRE_RUN_ALONE		= 256,	/* no other thread has the mm, nor another process a part of its memory */
};

/*
 * How the kernel's clocks follow from its count of nanoseconds, and where that was when this was sent.  A clock is, in
 * seconds and in nanoseconds << shift, sec and frac + (count - cycle_last) * mult.
 */
struct wire_clock {
	__le64 now;		/* the count; 0: there is no such clock, the rest is 0 as well */
	__le32 generation;	/* counts when a clock was set */
	__le32 mult, shift;
	__le32 reserved;
	__le64 cycle_last;
	__le64 real_sec, real_frac;
	__le64 mono_sec, mono_frac;
};

/* What rt_sigaction() says of signal 1.. */
struct wire_action { __le64 handler, flags, restorer, mask; };
#define WIRE_SIGNALS 64

/*
 * Run this user context until its next trap.  The maps are carried out first.  If a REVOKE for the mm with a
 * number above map_epoch has come already, those that give rights are left out: they may be stale, and
 * user code will fault for them again.
 */
struct wire_run {
	struct wire_hdr hdr;
	__le64 mm;
	__le64 map_epoch;	/* newest REVOKE that the kernel had sent to this node when it chose the maps */
	__le32 flags;		/* enum wire_run_flags */
	__le16 map_count;
	__le16 fp_length;
	__le32 pid;		/* of the process, and its name: for people */
	__le32 reserved;
	__u8 comm[16];
	struct wire_clock clock;	/* to another node than the kernel's; else 0 */
	__le64 gp[WIRE_GP_COUNT];
	/* struct wire_map maps[map_count]; __u8 fp[fp_length]; struct wire_action actions[WIRE_SIGNALS]; */
};

/* A piece of a frame. */
struct wire_segment {
	__le64 pfn;
	__le16 offset;		/* bytes */
	__le16 length;		/* bytes, not 0; offset + length is at most WIRE_PAGE_SIZE */
	__le32 reserved;
};

/*
 * What ended a RUN.  signal SIGALRM: interrupted; 0: the stub is gone, its mm cannot run on.  If it is a system call that
 * reads some bytes of user memory, `argument` may say where they are, if its length is not 0, and what they were then.
 */
struct wire_event {
	struct wire_hdr hdr;
	__le64 mm;
	__le32 signal;
	__le32 code;		/* si_code */
	__le16 flags;		/* WIRE_RUN_FP: fp_length bytes follow; not after WIRE_RUN_LOADED. WIRE_EVENT_ASKING */
	__le16 refused;		/* COPYs that were not to be answered, 1 << number since the last answer: the RUN was not begun */
	__le16 area;		/* on the kernel host: 1 + number of the stub's control area; else 0 */
	__le16 fp_length;
	__le64 fault_address;
	__le32 fault_error;	/* x86 page-fault error code */
	__le32 fault_trap;	/* x86 trap number */
	__le64 posted, posted_restorer;	/* signals (1 << signal - 1) whose action, no handler, has got that restorer since */
	struct wire_segment argument;	/* at most WIRE_ARGUMENT_MAX bytes */
	__le64 gp[WIRE_GP_COUNT];
	/* __u8 fp[fp_length]; __u8 bytes[argument.length], padded to a multiple of 8 */
};

/* Not all that the node has asked the kernel host for, for this mm, has come. */
#define WIRE_EVENT_ASKING	4u

enum wire_copy_flags { WIRE_COPY_WRITE = 1, WIRE_COPY_PAGE = 2, WIRE_COPY_UNANSWERED = 4 };

/*
 * The kernel reads or writes user memory that it supposes to be held by this CPU's node, so that no frame need
 * travel to the kernel host and back.  The node does the segments in order up to the first whose frame it
 * does not hold with the rights it takes.  PAGE: it copies the first segment, a whole frame, which it fetches if it does not
 * hold it, to the second, if it holds that Exclusive: both or none.  UNANSWERED: with WRITE, and no COPIED follows.  If it
 * cannot be done whole, nothing is until an answer has said so: no other COPY, and no RUN, whose EVENT says SIGALRM.
 */
struct wire_copy {
	struct wire_hdr hdr;
	__le32 flags;		/* enum wire_copy_flags */
	__le32 segment_count;
	/* struct wire_segment segments[segment_count]; WRITE: their bytes, padded to a multiple of 8 */
};

struct wire_copied {
	struct wire_hdr hdr;
	__le16 done;		/* segments */
	__le16 refused;		/* as in an EVENT; done is 0 then */
	__le32 bytes;		/* of what was done; 0 if it was written */
	/* the bytes, padded to a multiple of 8 */
};

/* Make CPU `cpu` report an EVENT if it still executes run number hdr.seq.  Not answered. */
struct wire_interrupt {
	struct wire_hdr hdr;
	__le32 cpu;
	__le32 reserved;
};

/* Remove [start, end) of an mm from its stub; the ACK means that no thread can use it any more. */
struct wire_revoke {
	struct wire_hdr hdr;
	__le64 mm;
	__le64 start;
	__le64 end;
};

/* The mm is gone.  Not answered. */
struct wire_mm_free {
	struct wire_hdr hdr;
	__le64 mm;
};

struct wire_range {
	__le64 pfn;
	__le64 count;
};

/* Frames at home here hold nothing any more: drop every copy.  After the ACK they read as zero. */
struct wire_discard {
	struct wire_hdr hdr;
	__le32 range_count;
	__le32 reserved;
	/* struct wire_range ranges[range_count]; */
};

/* A clock was set: nobody reads one of an older generation any more when this is answered. */
struct wire_clock_stop {
	struct wire_hdr hdr;
	__le32 generation;
	__le32 reserved;
};

struct wire_ack {
	struct wire_hdr hdr;
};

enum wire_payload {
	WIRE_PAYLOAD_NONE	= 0,	/* the receiver's copy is current */
	WIRE_PAYLOAD_ZERO	= 1,	/* the page is all zero */
	WIRE_PAYLOAD_PAGE	= 2,	/* 4096 bytes follow for each frame */
};

/*
 * All six messages of the coherence protocol; only GRANT may carry pages.  One about several frames means as many that
 * differ in their frame only, in the order of the frames.
 */
struct wire_dsm {
	struct wire_hdr hdr;
	__le64 pfn;		/* and so many that follow: */
	__u8 state;		/* 1 Shared, 2 Exclusive: wanted, granted, or (FETCH) what the requester gets */
	__u8 requester;		/* node */
	__u8 payload;		/* enum wire_payload, GRANT only */
	__u8 more;
	__u8 reserved[4];
	/* __u8 pages[1 + more][WIRE_PAGE_SIZE]; */
};
#define WIRE_GRANT_LENGTH_MAX	(32 + WIRE_PAGES_MAX * WIRE_PAGE_SIZE)

#define WIRE_ASSERT_SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), #type " changed size on the wire")

WIRE_ASSERT_SIZE(wire_hdr, 16);
WIRE_ASSERT_SIZE(wire_hello, 48);
WIRE_ASSERT_SIZE(wire_refuse, 176);
WIRE_ASSERT_SIZE(wire_map, 24);
WIRE_ASSERT_SIZE(wire_clock, 64);
WIRE_ASSERT_SIZE(wire_run, 344);
WIRE_ASSERT_SIZE(wire_event, 304);
WIRE_ASSERT_SIZE(wire_action, 32);
WIRE_ASSERT_SIZE(wire_segment, 16);
WIRE_ASSERT_SIZE(wire_copy, 24);
WIRE_ASSERT_SIZE(wire_copied, 24);
WIRE_ASSERT_SIZE(wire_interrupt, 24);
WIRE_ASSERT_SIZE(wire_revoke, 40);
WIRE_ASSERT_SIZE(wire_mm_free, 24);
WIRE_ASSERT_SIZE(wire_range, 16);
WIRE_ASSERT_SIZE(wire_discard, 24);
WIRE_ASSERT_SIZE(wire_clock_stop, 24);
WIRE_ASSERT_SIZE(wire_ack, 16);
WIRE_ASSERT_SIZE(wire_dsm, 32);

#endif
