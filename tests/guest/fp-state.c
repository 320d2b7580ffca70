// SPDX-License-Identifier: GPL-2.0
/*
 * Floating-point and vector registers survive system calls, signals, preemption and -n moves between
 * CPUs, and a new process starts with its parent's.  All sixteen ymm registers (xmm where there is no
 * AVX), the x87 stack and both control words.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

struct vectors { unsigned char bytes[16][32]; } __attribute__((aligned(32)));

static volatile sig_atomic_t handled;
static bool has_avx;

#define EACH(do) \
	do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)
#define LOAD_YMM(n) "vmovdqa " #n "*32(%1), %%ymm" #n "\n\t"
#define STORE_YMM(n) "vmovdqa %%ymm" #n ", " #n "*32(%2)\n\t"
#define LOAD_XMM(n) "movdqa " #n "*32(%1), %%xmm" #n "\n\t"
#define STORE_XMM(n) "movdqa %%xmm" #n ", " #n "*32(%2)\n\t"
#define CLOBBERS "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
	"xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/* Load all, do one system call, store all: nothing of the compiler's comes between. */
__attribute__((target("avx")))
static long call_ymm(long number, const struct vectors *in, struct vectors *out, long a, long b, long c)
{
	register long rdi asm("rdi") = a;
	register long rsi asm("rsi") = b;
	register long rdx asm("rdx") = c;
	long result = number;

	asm volatile(EACH(LOAD_YMM) "syscall\n\t" EACH(STORE_YMM)
		     : "+a" (result) : "r" (in), "r" (out), "r" (rdi), "r" (rsi), "r" (rdx) : CLOBBERS);
	return result;
}

static long call_xmm(long number, const struct vectors *in, struct vectors *out, long a, long b, long c)
{
	register long rdi asm("rdi") = a;
	register long rsi asm("rsi") = b;
	register long rdx asm("rdx") = c;
	long result = number;

	asm volatile(EACH(LOAD_XMM) "syscall\n\t" EACH(STORE_XMM)
		     : "+a" (result) : "r" (in), "r" (out), "r" (rdi), "r" (rsi), "r" (rdx) : CLOBBERS);
	return result;
}

static void make(struct vectors *v, uint64_t seed)
{
	for (int n = 0; n < 16; n++)
		for (int i = 0; i < 32; i++)
			v->bytes[n][i] = (unsigned char)guest_noise(seed, (uint64_t)(n * 32 + i));
}

static long call(long number, uint64_t seed, long a, long b, long c)
{
	struct vectors in, out;
	size_t width = has_avx ? 32 : 16;
	long result;

	make(&in, seed);
	memset(&out, 0, sizeof(out));
	result = has_avx ? call_ymm(number, &in, &out, a, b, c) : call_xmm(number, &in, &out, a, b, c);
	for (int n = 0; n < 16; n++)
		if (memcmp(in.bytes[n], out.bytes[n], width))
			guest_fail("system call %ld changed vector register %d on CPU %d", number, n,
				   sched_getcpu());
	return result;
}

static void clobber(int number)
{
	struct vectors in, out;

	(void)number;
	make(&in, 4242);
	if (has_avx)
		call_ymm(SYS_getppid, &in, &out, 0, 0, 0);
	else
		call_xmm(SYS_getppid, &in, &out, 0, 0, 0);
	asm volatile("fninit\n\tfld1\n\tfldpi" : : : "st", "st(1)");
	asm volatile("fstp %%st\n\tfstp %%st" : : : "st", "st(1)");
	handled++;
}

static void check_calls(long rounds)
{
	for (long i = 0; i < rounds; i++) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(guest_cpu((int)i), &set);
		CHECK(call(SYS_getppid, (uint64_t)i, 0, 0, 0) > 0);
		CHECK(call(SYS_sched_setaffinity, (uint64_t)i + 1, 0, sizeof(set), (long)&set) == 0);
		CHECK_EQUAL(sched_getcpu(), guest_cpu((int)i));
		CHECK(call(SYS_kill, (uint64_t)i + 2, getpid(), SIGUSR1, 0) == 0);
		CHECK_EQUAL(handled, i + 1);
	}
}

static void check_x87(void)
{
	uint16_t control = 0x0b7f, seen = 0;
	uint32_t mxcsr = 0x3f80, mxcsr_seen = 0;
	double a = 0, b = 0;

	asm volatile("fldcw %0\n\tldmxcsr %1" : : "m" (control), "m" (mxcsr));
	for (int move = 0; move < 12; move++) {
		guest_move(0, move);
		CHECK(raise(SIGUSR1) == 0);
		asm volatile("fnstcw %0\n\tstmxcsr %1" : "=m" (seen), "=m" (mxcsr_seen));
		CHECK_EQUAL(seen, control);
		CHECK_EQUAL(mxcsr_seen & 0xffc0, mxcsr);
	}
	/* The x87 stack across one system call. */
	asm volatile("fldl %3\n\tfldl %4\n\tmovl %5, %%eax\n\tsyscall\n\tfstpl %1\n\tfstpl %0"
		     : "=m" (a), "=m" (b), "=m" (control)
		     : "m" ((double){1.25}), "m" ((double){-7.5}), "i" (SYS_sched_yield)
		     : "rax", "rcx", "r11", "memory", "st", "st(1)");
	CHECK(a == 1.25 && b == -7.5);
	control = 0x037f;
	mxcsr = 0x1f80;
	asm volatile("fldcw %0\n\tldmxcsr %1" : : "m" (control), "m" (mxcsr));
}

static void check_fork(void)
{
	struct vectors in, out;
	long pid;

	make(&in, 99);
	memset(&out, 0, sizeof(out));
	pid = has_avx ? call_ymm(SYS_fork, &in, &out, 0, 0, 0) : call_xmm(SYS_fork, &in, &out, 0, 0, 0);
	CHECK(pid >= 0);
	for (int n = 0; n < 16; n++)
		if (memcmp(in.bytes[n], out.bytes[n], has_avx ? 32 : 16))
			_exit(GUEST_FAILED);
	if (!pid)
		_exit(0);
	guest_reap((pid_t)pid);
}

/* Accumulates in registers while a timer interrupts; children compute other things on the same CPUs. */
static double series(long terms, double seed)
{
	double sum[8] = { 0 };

	for (long i = 1; i <= terms; i++)
		for (int lane = 0; lane < 8; lane++)
			sum[lane] += seed / ((double)i + lane);
	return sum[0] + sum[3] * 3 + sum[7] * 7;
}

static void check_preemption(void)
{
	enum { TERMS = 8000000, CHILDREN = 6 };
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } };
	pid_t pids[CHILDREN];

	for (int i = 0; i < CHILDREN; i++) {
		pids[i] = guest_fork(i / 2);
		if (!pids[i]) {
			double quiet = series(TERMS, i + 1.5), disturbed;

			CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
			disturbed = series(TERMS, i + 1.5);
			if (quiet != disturbed)
				guest_fail("a sum was %.17g and then %.17g", quiet, disturbed);
			_exit(0);
		}
	}
	for (int i = 0; i < CHILDREN; i++)
		guest_reap(pids[i]);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "fp-state", 300);
	has_avx = __builtin_cpu_supports("avx");
	CHECK(signal(SIGUSR1, clobber) != SIG_ERR && signal(SIGALRM, clobber) != SIG_ERR);
	check_calls(guest.size);
	check_x87();
	for (int i = 0; i < 3 * guest.cpu_count; i++) {
		guest_move(0, i);
		check_fork();
	}
	check_preemption();
	return guest_ok();
}
