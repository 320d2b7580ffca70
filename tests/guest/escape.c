// SPDX-License-Identifier: GPL-2.0
/*
 * User code tries to get more than its own address space through the stub program that it runs in.
 *
 * The stub's text and control area lie in every process, above all addresses that the kernel gives out
 * (node/stub.h).  Each attempt is made in a process of its own, which must then be dead or none the better
 * for it: a process that ends with ESCAPED has got back control with a system call of its own behind it.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <asm/prctl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "../../node/stub.h"

enum { ESCAPED = 50, HARMLESS = 0 };
#define SITES_MAX 256

static const uint8_t *sites[SITES_MAX];
static volatile unsigned site_count;	/* survives on_fault() */
static sigjmp_buf not_readable;

static void on_fault(int sig)
{
	(void)sig;
	siglongjmp(not_readable, 1);
}

static void go_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
}

/* Every place in the stub's text, which has holes, where two bytes make a system call. */
static void find_sites(void)
{
	for (const uint8_t *volatile page = (const uint8_t *)STUB_TEXT;
	     page < (const uint8_t *)STUB_TEXT + STUB_TEXT_SIZE; page += 4096) {
		signal(SIGSEGV, on_fault);
		if (sigsetjmp(not_readable, 1))
			continue;
		for (const uint8_t *p = page; p < page + 4096; p++)
			if (p[0] == 0x0f && p[1] == 0x05) {
				CHECK(site_count < SITES_MAX);
				sites[site_count++] = p;
			}
	}
	signal(SIGSEGV, SIG_DFL);
}

/* Jump to a system call in the stub with these registers; what comes back if anything does. */
static __attribute__((noinline)) long jump(const void *site, long nr, long a, long b, long c, long d, long e)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = 0;
	register const void *to asm("r14") = site;
	long ret;

	/* both ways on: a return address on the stack, and one in rbp */
	asm volatile("push %%rbp\n\t"
		     "lea 1f(%%rip), %%rbp\n\t"
		     "push %%rbp\n\t"
		     "jmp *%[to]\n"
		     "2:\n\t"
		     "add $8, %%rsp\n\t"
		     "jmp 3f\n"
		     "1:\n\t"
		     "cmp %%rbp, (%%rsp)\n\t"	/* came through rbp: the stack is as it was */
		     "je 2b\n"
		     "3:\n\t"
		     "pop %%rbp"
		     : "=a"(ret) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9), [to] "r"(to)
		     : "rcx", "r11", "rbx", "r12", "r13", "memory", "cc");
	return ret;
}

static long victim;

static void try_jump(unsigned site, unsigned which)
{
	static const struct { long nr, a, b, c, d, e; } calls[] = {
		{ .nr = SYS_getpid },
		{ SYS_mmap, 0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, STUB_FD_FRAMES },
		{ SYS_munmap, STUB_ORDERS, 4096, 0, 0, 0 },
		{ SYS_mprotect, STUB_ORDERS, 4096, PROT_READ | PROT_WRITE, 0, 0 },
		{ SYS_read, STUB_FD_SOCKET, STUB_REPORTS, 1, 0, 0 },
		{ SYS_write, STUB_FD_SOCKET, STUB_TEXT, 1, 0, 0 },
		{ SYS_futex, (long)&victim, FUTEX_WAKE, 1, 0, 0 },
		{ SYS_futex, STUB_REPORTS, FUTEX_WAKE, 1, 0, 0 },
		{ SYS_arch_prctl, ARCH_GET_FS, (long)&victim, 0, 0, 0 },
		{ SYS_kill, 1, 0, 0, 0, 0 },
	};

	jump(sites[site], calls[which].nr, calls[which].a, calls[which].b, calls[which].c, calls[which].d,
	     calls[which].e);
	_exit(ESCAPED);
}

enum { CALLS = 10 };

/* --- forged signal frames --- */

static void spin(void)
{
	for (;;)
		asm volatile("pause");
}

static void call_on(void)
{
	syscall(SYS_getpid);
	_exit(HARMLESS);
}

/* The first CPU's of whichever node this runs on. */
static volatile struct stub_report *const first_report = (void *)(STUB_REPORTS + STUB_REPORT_SIZE);
static const volatile struct stub_orders *const first_orders = (void *)(STUB_ORDERS + sizeof(struct stub_orders));

/* Faults on pages that are not mapped, or interruptions, of which there were none. */
static void report_for_ever(int signal, int code)
{
	for (;;) {
		first_report->signal = signal;
		first_report->code = code;
		first_report->address = 4096;
		first_report->parked = first_orders->go;
	}
}

static void report_faults(void) { report_for_ever(SIGBUS, BUS_ADRERR); }
static void report_interruptions(void) { report_for_ever(SIGALRM, SI_TKILL); }

/* Never what the word should be. */
static void change_the_word(void)
{
	for (;;) {
		first_report->parked = 0;
		first_report->parked = ~0u;
	}
}

static uint8_t other_stack[65536] __attribute__((aligned(16)));

/* Return from a signal that never was, to a place with all signals blocked or with another signal stack. */
static __attribute__((noreturn)) void forge_return(void (*to)(void), uintptr_t signal_stack)
{
	ucontext_t uc = { 0 };

	uc.uc_mcontext.gregs[REG_RIP] = (long)to;
	uc.uc_mcontext.gregs[REG_RSP] = (long)other_stack + sizeof(other_stack) - 8;
	uc.uc_mcontext.gregs[REG_CSGSFS] = 0x33 | 0x2bl << 48;
	uc.uc_mcontext.gregs[REG_EFL] = 0x202;
	uc.uc_flags = 4 | 2;		/* UC_STRICT_RESTORE_SS, UC_SIGCONTEXT_SS */
	if (signal_stack)
		uc.uc_stack = (stack_t){ .ss_sp = (void *)signal_stack, .ss_size = 16384 };
	else
		memset(&uc.uc_sigmask, 0xff, sizeof(uc.uc_sigmask));
	/* wherever the stub returns from signals; the other sites end the process */
	for (unsigned i = 0; i < site_count; i++) {
		const uint8_t *p = sites[i];

		if (p[-5] == 0xb8 && p[-4] == 15)
			asm volatile("mov %0, %%rsp; jmp *%1" : : "r"(&uc), "r"(p), "a"(SYS_rt_sigreturn));
	}
	_exit(ESCAPED);		/* not found: the test is to be mended */
}

static void forge(unsigned which)
{
	switch (which) {
	/* killed from outside */
	case 0:
		forge_return(spin, 0);
	case 1:
		forge_return(report_faults, 0);
	case 2:
		forge_return(report_interruptions, 0);
	case 3:
		forge_return(change_the_word, 0);
	/* they end */
	case 4:
		forge_return(call_on, 0);
	case 5:
		forge_return(call_on, (uintptr_t)other_stack);
	case 6:
		forge_return(call_on, STUB_REPORTS);
	case 7:
		*(volatile uint32_t *)STUB_ORDERS = 1;
		_exit(ESCAPED);
	case 8:
		*(volatile uint32_t *)(STUB_ORDERS + sizeof(struct stub_orders)) += 1;
		_exit(ESCAPED);
	}
	_exit(ESCAPED);
}

enum { FORGERIES_WITHOUT_END = 4, FORGERIES = 9 };

/* --- a sibling that overwrites the signal stacks --- */

static void gadget(void)
{
	syscall(SYS_getpid);
	_exit(ESCAPED);
}

/* The report of the first CPU of whichever node this runs on, its signal stack above all. */
static __attribute__((noreturn)) void *overwrite(void *ignored)
{
	volatile uint64_t *word = (void *)(STUB_REPORTS + STUB_REPORT_SIZE);

	(void)ignored;
	for (;;)
		for (unsigned i = 8; i < STUB_REPORT_SIZE / 8; i++)
			word[i] = (uint64_t)gadget;
}

static void race(void)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, overwrite, NULL) == 0);
	for (long i = 0; i < guest.size; i++)
		syscall(SYS_getppid);
	_exit(HARMLESS);
}

/* --- a sibling that reports for a thread before it runs --- */

enum { TRAVELLERS = 16, AHEAD_TIMES = 2, PAUSES = 2000 };
static volatile unsigned (*travellers)[1024];		/* pages that are written on another node all the time */

static int cpu_of(const struct guest_node *node, bool inside, int but)
{
	for (int i = 0; i < guest.cpu_count; i++)
		if ((guest.cpus[i] - node->first < node->count) == inside && guest.cpus[i] != but)
			return guest.cpus[i];
	return -1;
}

/* The slot of a thread that waits for frames. */
struct victim { unsigned slot; int from; };

static __attribute__((noreturn)) void *report_ahead(void *arg)
{
	const struct victim *v = arg;
	const volatile struct stub_orders *o = (void *)(STUB_ORDERS + v->slot * sizeof(*o));
	volatile struct stub_report *r = (void *)(STUB_REPORTS + (uintptr_t)v->slot * STUB_REPORT_SIZE);

	go_to(v->from);
	for (;;) {
		r->signal = SIGBUS;
		r->code = BUS_ADRERR;
		r->parked = o->go + 1;
		for (unsigned i = 0; i < PAUSES; i++)	/* what the thread itself reports must be seen, too */
			asm volatile("pause");
	}
}

static void be_ahead(const struct guest_node *node, int cpu)
{
	struct victim v = { .slot = cpu - node->first + 1, .from = cpu_of(node, true, cpu) };
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, report_ahead, &v) == 0);
	for (long i = 0; i < guest.size / 4; i++)
		travellers[i % TRAVELLERS][0]++;
	_exit(HARMLESS);
}

static pid_t let_travel(int cpu)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	go_to(cpu);
	for (unsigned i = 0;; i++)
		travellers[i % TRAVELLERS][1]++;
}

/* --- a stack pointer that no page table has --- */

/* Page tables are found by the lower 48 bits: the kernel must not take this for the stack when it follows the thread. */
static void move_with_stack_pointer(int cpu)
{
	static cpu_set_t set;
	long ret;

	CPU_SET(cpu, &set);
	asm volatile("mov %%rsp, %%rbx; btc $48, %%rsp; syscall; mov %%rbx, %%rsp"
		     : "=a"(ret) : "0"(SYS_sched_setaffinity), "D"(0), "S"(sizeof(set)), "d"(&set)
		     : "rbx", "rcx", "r11", "memory");
	CHECK(ret == 0);
	_exit(HARMLESS);
}

/* --- */

static int outcome(pid_t child, int seconds)
{
	unsigned us = 100, waited;
	int status;

	for (waited = 0; waited < (unsigned)seconds * 1000000; waited += us) {
		pid_t pid = waitpid(child, &status, WNOHANG);

		CHECK(pid >= 0);
		if (pid)
			return status;
		us = us < 5000 ? 2 * us : 10000;	/* most end at once */
		usleep(us);
	}
	guest_fail("process %d lives on %d s after SIGKILL", child, seconds);
}

static void expect_no_escape(const char *what, unsigned a, unsigned b, pid_t child)
{
	int status = outcome(child, 60);

	if (WIFEXITED(status) && WEXITSTATUS(status) != HARMLESS)
		guest_fail("%s %u %u: exit status %d", what, a, b, WEXITSTATUS(status));
}

#define ATTEMPT(what, a, b, action) do { \
	pid_t child_ = fork(); \
	CHECK(child_ >= 0); \
	if (!child_) { \
		prctl(PR_SET_DUMPABLE, 0); \
		action; \
	} \
	expect_no_escape(what, a, b, child_); \
} while (0)

static void kill_the_endless(unsigned forgery)
{
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child)
		forge(forgery);
	usleep(100000);
	CHECK(kill(child, SIGKILL) == 0);
	outcome(child, 60);
}

static int be_ahead_everywhere(void)
{
	unsigned attempts = 0;

	travellers = mmap(NULL, TRAVELLERS * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(travellers != MAP_FAILED);
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		struct guest_node node;
		pid_t other;

		go_to(guest.cpus[cpu]);
		node = guest_node();
		if (cpu_of(&node, true, guest.cpus[cpu]) < 0 || cpu_of(&node, false, -1) < 0)
			continue;
		other = let_travel(cpu_of(&node, false, -1));
		for (unsigned i = 0; i < AHEAD_TIMES; i++, attempts++)
			ATTEMPT("ahead", guest.cpus[cpu], i, be_ahead(&node, guest.cpus[cpu]));
		CHECK(kill(other, SIGKILL) == 0);
		outcome(other, 60);
	}
	if (!attempts)
		guest_fail("it takes two CPUs of one node, and another node");
	return guest_ok();
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "escape", 2000);
	find_sites();
	if (!guest_in_machine() && !site_count)
		return guest_ok();		/* no stub here */
	CHECK(site_count > 0);
	if (guest.kind && strcmp(guest.kind, "ahead") == 0)
		return be_ahead_everywhere();
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		go_to(guest.cpus[cpu]);
		/* the same text everywhere: each jump on one CPU, by turns */
		for (unsigned site = 0; site < site_count; site++)
			for (unsigned call = 0; call < CALLS; call++)
				if ((site + call) % (unsigned)guest.cpu_count == (unsigned)cpu)
					ATTEMPT("jump", site, call, try_jump(site, call));
		/* these take seconds of patience, and all nodes but the kernel's are alike */
		for (unsigned forgery = 0; forgery < FORGERIES_WITHOUT_END && cpu < 2; forgery++)
			kill_the_endless(forgery);
		for (unsigned forgery = FORGERIES_WITHOUT_END; forgery < FORGERIES; forgery++)
			ATTEMPT("forgery", forgery, 0, forge(forgery));
		ATTEMPT("race", 0, 0, race());
		ATTEMPT("stack pointer", 0, 0, move_with_stack_pointer(guest.cpus[(cpu + 1) % guest.cpu_count]));
	}
	return guest_ok();
}
