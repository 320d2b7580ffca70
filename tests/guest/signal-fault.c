// SPDX-License-Identifier: GPL-2.0
/*
 * Faults as signals, on each CPU: kind, code and address for SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP, and
 * going on after the handler has mended the cause.  Without a handler the process dies of the same signal.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>

static volatile sig_atomic_t seen_signal, seen_code;
static char *volatile seen_address;
static volatile int64_t seen_error;
static sigjmp_buf jump;
static char *page;	/* of the check that is running */

static void note(int number, siginfo_t *info, void *context)
{
	seen_signal = number;
	seen_code = info->si_code;
	seen_address = info->si_addr;
	seen_error = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR];
}

static void leave(int number, siginfo_t *info, void *context)
{
	note(number, info, context);
	siglongjmp(jump, 1);
}

static void mend(int number, siginfo_t *info, void *context)
{
	note(number, info, context);
	CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void set_handler(void (*handler)(int, siginfo_t *, void *))
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		CHECK(sigaction(numbers[i], &action, NULL) == 0);
}

static void load(char *at)
{
	asm volatile("movb (%0), %%al" : : "r" (at) : "al", "memory");
}

static void store(char *at)
{
	asm volatile("movb $1, (%0)" : : "r" (at) : "memory");
}

static void divide(char *at)
{
	(void)at;
	asm volatile("xorl %%ecx, %%ecx\n\tmovl $1, %%eax\n\tcltd\n\tidivl %%ecx" : : : "eax", "ecx", "edx");
}

static void undefined(char *at)
{
	(void)at;
	asm volatile("ud2");
}

static void breakpoint(char *at)
{
	(void)at;
	asm volatile("int3");
}

static void call(char *at)
{
	((void (*)(void))at)();
}

/* Above what any address may be: no page fault, a general protection fault. */
static void noncanonical(char *at)
{
	(void)at;
	load((char *)0x8000000000000000);
}

static void overflow(char *at)
{
	char frame[65536];

	store(frame);
	if (at)
		overflow(frame);
	store(frame);
}

struct fault {
	const char *name;
	void (*cause)(char *at);
	char *at;
	int number, code;
	bool has_address;
};

static void check_fault(const struct fault *fault)
{
	seen_signal = 0;
	if (!sigsetjmp(jump, 1)) {
		fault->cause(fault->at);
		guest_fail("%s on CPU %d: nothing happened", fault->name, sched_getcpu());
	}
	if (seen_signal != fault->number || seen_code != fault->code)
		guest_fail("%s on CPU %d: signal %d code %d, not %d code %d", fault->name, sched_getcpu(),
			   seen_signal, seen_code, fault->number, fault->code);
	if (fault->has_address && seen_address != fault->at)
		guest_fail("%s on CPU %d: address %p, not %p", fault->name, sched_getcpu(),
			   (void *)seen_address, (void *)fault->at);
}

static char *map(int protection)
{
	char *at = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static char *map_beyond_end(void)
{
	int fd = memfd_create("short", 0);
	char *at;

	CHECK(fd >= 0 && ftruncate(fd, 100) == 0);
	at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED && close(fd) == 0);
	return at + 4096;
}

static void check_signals(void)
{
	char *none = map(PROT_NONE), *read_only = map(PROT_READ), *data = map(PROT_READ | PROT_WRITE);
	char *beyond = map_beyond_end(), *gone = map(PROT_READ);
	const struct fault faults[] = {
		{ "load from address 8", load, (char *)8, SIGSEGV, SEGV_MAPERR, true },
		{ "store to address 8", store, (char *)8, SIGSEGV, SEGV_MAPERR, true },
		{ "call of address 8", call, (char *)8, SIGSEGV, SEGV_MAPERR, true },
		{ "load from an unmapped page", load, gone + 77, SIGSEGV, SEGV_MAPERR, true },
		{ "load from PROT_NONE", load, none + 5, SIGSEGV, SEGV_ACCERR, true },
		{ "store to PROT_READ", store, read_only + 4095, SIGSEGV, SEGV_ACCERR, true },
		{ "call of data", call, data, SIGSEGV, SEGV_ACCERR, true },
		{ "load beyond the end of a file", load, beyond + 9, SIGBUS, BUS_ADRERR, true },
		{ "store beyond the end of a file", store, beyond, SIGBUS, BUS_ADRERR, true },
		{ "division by zero", divide, NULL, SIGFPE, FPE_INTDIV, false },
		{ "undefined instruction", undefined, NULL, SIGILL, ILL_ILLOPN, false },
		{ "breakpoint", breakpoint, NULL, SIGTRAP, SI_KERNEL, false },
		{ "non-canonical address", noncanonical, NULL, SIGSEGV, SI_KERNEL, false },
		{ "stack overflow", overflow, none, SIGSEGV, SEGV_MAPERR, false },
	};

	CHECK(munmap(gone, 4096) == 0);
	load(read_only);
	set_handler(leave);
	for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		check_fault(&faults[i]);
}

static void check_mending(void)
{
	set_handler(mend);
	for (int i = 0; i < 50; i++) {
		page = map(PROT_NONE);
		store(page + i);
		CHECK(seen_signal == SIGSEGV && seen_address == page + i && page[i] == 1);
		CHECK(seen_error & 2);
		CHECK(mprotect(page, 4096, PROT_READ) == 0);
		store(page + 2);
		CHECK(page[2] == 1 && page[i] == 1);
		CHECK(munmap(page, 4096) == 0);
	}
}

static void check_deaths(void)
{
	static const struct { void (*cause)(char *); int number; } deaths[] = {
		{ load, SIGSEGV }, { divide, SIGFPE }, { undefined, SIGILL }, { breakpoint, SIGTRAP },
	};
	struct rlimit no_core = { 0, 0 };

	for (size_t i = 0; i < sizeof(deaths) / sizeof(*deaths); i++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (!pid) {
			setrlimit(RLIMIT_CORE, &no_core);
			signal(deaths[i].number, SIG_DFL);
			deaths[i].cause((char *)8);
			_exit(GUEST_FAILED);
		}
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status));
		CHECK_EQUAL(WTERMSIG(status), deaths[i].number);
	}
}

int main(int argc, char **argv)
{
	struct rlimit small_stack = { 1 << 20, RLIM_INFINITY };
	stack_t stack = { .ss_size = 65536 };

	guest_start(argc, argv, "signal-fault", 0);
	stack.ss_sp = malloc(stack.ss_size);
	CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0);
	CHECK(setrlimit(RLIMIT_STACK, &small_stack) == 0);
	for (int i = 0; i < guest.cpu_count; i++) {
		guest_move(0, i);
		check_signals();
		check_mending();
		check_deaths();
	}
	stack.ss_flags = SS_DISABLE;
	CHECK(sigaltstack(&stack, NULL) == 0);
	free(stack.ss_sp);
	return guest_ok();
}
