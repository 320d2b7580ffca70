// SPDX-License-Identifier: GPL-2.0
/*
 * Sleeping in the host until something happens, or a signal comes.
 *
 * The handler of a signal may leave a note only, or work for the current task; whoever sleeps must see to that at once.  The
 * look and the sleep are one restartable sequence: a handler that has interrupted it anywhere, also in the system
 * call, which the host then makes again, leads it out behind.
 */
#include <errno.h>
#include <sched.h>
#include <ucontext.h>
#include <os.h>
#include <ssi.h>
#include "../os-Linux/internal.h"
#include "ssi_internal.h"

#define LOOKS_BEFORE_YIELD	128
#define CROWDED_NS		10000	/* that others have run for in between */

/* In the order of the C calling convention; rcx and r11 are the system call's to destroy. */
asm(".pushsection .text\n"
    "wait_call:\n"
    "	mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi; mov %rcx, %rdx; mov %r8, %r10\n"
    "	mov (%r9), %rcx; mov 8(%r9), %r11; xor %r8d, %r8d; xor %r9d, %r9d\n"
    "wait_begin:\n"
    "	cmpl $0, (%rcx); jne wait_out\n"
    "	cmpl $0, (%r11); jne wait_out\n"
    "	syscall\n"
    "wait_end:\n"
    "	ret\n"
    "wait_out:\n"
    "	mov $-4, %rax; ret\n"		/* -EINTR */
    ".popsection");
long wait_call(long nr, long a, long b, long c, long d, const unsigned int **words);
extern char wait_begin[], wait_end[], wait_out[];

_Static_assert(EINTR == 4, "what wait_call() returns");

long ssi_wait_call(long nr, long a, long b, long c, long d)
{
	const unsigned int *words[2];

	os_signal_words(words);
	return wait_call(nr, a, b, c, d, words);
}

void ssi_leave_wait(void *context)
{
	greg_t *ip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	if (*ip >= (greg_t)wait_begin && *ip < (greg_t)wait_end)
		*ip = (greg_t)wait_out;
}

int ssi_stay_awake(long long until, int (*wanted)(void))
{
	unsigned looks = 0;
	long long now;

	while (!wanted() && !os_signals_pending()) {
		__builtin_ia32_pause();
		if (++looks % LOOKS_BEFORE_YIELD)
			continue;
		now = os_nsecs();
		if (now >= until)
			return 0;
		sched_yield();
		if (os_nsecs() > now + CROWDED_NS)
			return -EBUSY;
	}
	return 1;
}
