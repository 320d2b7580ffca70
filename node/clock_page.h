/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The time of day as user code reads it, without a system call.
 *
 * A node's page of this lies in every stub at CLOCK_PAGE, for reading.  On the kernel host the kernel writes it
 * (ssi/overlay/arch/um/ssi/clock.c), elsewhere pangead by what comes with each RUN (clock.c); the kernel's vDSO reads it.
 *
 * The kernel's clock counts in nanoseconds from its start.  A line leads there from the TSC of the node's host, and the
 * record from there to the clocks that user code knows, as the kernel's timekeeping does.  A line of another
 * node is never ahead of the kernel's: it starts with a time that the kernel has sent, and runs slow.  So time
 * does not go back for who moves to another node, or makes a system call.  It lags by a message's way and by 1/2048
 * of the time since the last RUN: who hears from another node what time it is there may find it to be less here.
 */
#ifndef PANGEA_CLOCK_PAGE_H
#define PANGEA_CLOCK_PAGE_H

#include "../net/wire.h"

#define CLOCK_PAGE		0x7f90001ff000
#define CLOCK_MULT_SHIFT	32

struct clock_page {
	__u32 seq;		/* odd: it is being written */
	__u32 usable;		/* 0: make a system call */
	__u64 tsc;		/* the line: where it starts, */
	__u64 now;		/* the kernel's count there, */
	__u64 mult;		/* counts a cycle << CLOCK_MULT_SHIFT, */
	__u64 length;		/* and counts for which it may be used */
	struct wire_clock record;
};

static inline __u64 clock_tsc(void)
{
	__u32 low, high;

	/* not before what comes before it in the program */
	asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (__u64)high << 32 | low;
}

/* Counts since the line's start.  The TSCs of a host's CPUs may differ by some cycles. */
static inline __u64 clock_since(const volatile struct clock_page *p, __u64 tsc)
{
	__u64 cycles = tsc - p->tsc;

	return (__s64)cycles < 0 ? 0 : (unsigned __int128)cycles * p->mult >> CLOCK_MULT_SHIFT;
}

/* Around writing; one writer at a time. */
static inline void clock_write_begin(struct clock_page *p)
{
	__atomic_store_n(&p->seq, p->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void clock_write_end(struct clock_page *p)
{
	__atomic_store_n(&p->seq, p->seq + 1, __ATOMIC_RELEASE);
}

#endif
