// SPDX-License-Identifier: GPL-2.0
/*
 * rt_sigaction() says and does what it should however often it is called on end, when a stub may answer it: -n calls of any
 * kind, to sane and insane addresses, are compared with what a table kept here says; meanwhile the process moves, makes
 * other calls, and children look at what they have inherited.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

enum { PAGE = 4096, SIGNALS = 64 };

struct action { uint64_t handler, flags, restorer, mask; };

#define FLAGS	(0x04000000ul | SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | \
		 0x80000000ul /* SA_RESETHAND */ | 0x800 /* SA_EXPOSE_TAGBITS */)
#define BIT(signal) (1ul << ((signal) - 1))

static struct action table[SIGNALS + 1];
static uint64_t noise_at;

static uint64_t noise(uint64_t below)
{
	return guest_noise(9, noise_at++) % below;
}

static long sigaction_call(long signal, const void *set, void *get, long size)
{
	return syscall(SYS_rt_sigaction, signal, set, get, size) ? errno : 0;
}

/* Neither harmless nor wanted: what ends the process, or takes its children away. */
static bool may_set(int signal)
{
	return signal != SIGKILL && signal != SIGSTOP && signal != SIGCHLD && signal != SIGSEGV && signal != SIGBUS;
}

static struct action any_action(int signal)
{
	static const uint64_t handlers[] = { 0, 0, 0, 0, 1, 0x10000 }, flags[] = { 0, 0, 0x04000000, 0x04000000, SA_RESTART, ~0u };
	struct action action = table[signal];

	switch (noise(4)) {
	case 0:
		return action;
	case 1:			/* as glibc sets the default */
		action.handler = 0;
		action.flags |= 0x04000000;
		action.restorer = 0x20000 + noise(2);
		return action;
	}
	return (struct action){ handlers[noise(6)], flags[noise(6)], 0x20000 + noise(3), noise(5) ? 0 : ~0ul };
}

static void note_set(int signal, struct action action)
{
	action.flags &= FLAGS;
	action.mask &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
	table[signal] = action;
}

static void check_equal(int signal, const struct action *seen, const struct action *wanted)
{
	if (memcmp(seen, wanted, sizeof(*seen)) != 0)
		guest_fail("signal %d: %lx %lx %lx %lx, not %lx %lx %lx %lx", signal, seen->handler, seen->flags, seen->restorer,
			   seen->mask, wanted->handler, wanted->flags, wanted->restorer, wanted->mask);
}

static void ask(int signal)
{
	struct action seen;

	CHECK_EQUAL(sigaction_call(signal, NULL, &seen, 8), 0);
	check_equal(signal, &seen, &table[signal]);
}

static void set(int signal)
{
	struct action action = any_action(signal), before = table[signal], seen;
	bool get = noise(2);

	if (!may_set(signal))
		return;
	CHECK_EQUAL(sigaction_call(signal, &action, get ? &seen : NULL, 8), 0);
	if (get)
		check_equal(signal, &seen, &before);
	note_set(signal, action);
}

/* One buffer for both, or two that overlap. */
static void set_in_place(int signal)
{
	_Alignas(16) uint64_t buffer[8];
	struct action action = any_action(signal), before = table[signal];
	unsigned to = noise(2) ? 0 : 1 + (unsigned)noise(4);

	if (!may_set(signal))
		return;
	memcpy(buffer, &action, sizeof(action));
	CHECK_EQUAL(sigaction_call(signal, buffer, buffer + to, 8), 0);
	check_equal(signal, (struct action *)(buffer + to), &before);
	note_set(signal, action);
}

/* Memory that is there, with another page behind it that is not, or may not be written to. */
static char *edge;

static void insane(int signal)
{
	struct action action = table[signal], seen;
	char *beyond = edge + PAGE - 8 * (size_t)noise(4);

	CHECK_EQUAL(sigaction_call(signal, NULL, beyond, 8), EFAULT);
	CHECK_EQUAL(sigaction_call(signal, NULL, (void *)(~0ul - noise(64)), 8), EFAULT);
	CHECK_EQUAL(sigaction_call(signal, NULL, (void *)0x7f9000200000, 8), EFAULT);
	CHECK_EQUAL(sigaction_call(signal, beyond, NULL, 8), EFAULT);
	CHECK_EQUAL(sigaction_call(noise(2) ? 0 : SIGNALS + 1, NULL, &seen, 8), EINVAL);
	CHECK_EQUAL(sigaction_call(signal, NULL, &seen, 16), EINVAL);
	CHECK_EQUAL(sigaction_call(SIGKILL, &action, NULL, 8), EINVAL);
	if (!may_set(signal))
		return;
	action = any_action(signal);		/* it is set, and then it cannot be said what was there */
	CHECK_EQUAL(sigaction_call(signal, &action, beyond, 8), EFAULT);
	note_set(signal, action);
}

/* What is pending of a signal goes when it is set to be ignored, even if it was. */
static void discard(int signal, uint64_t handler)
{
	struct action action = { .handler = handler };
	sigset_t blocked, before, pending;

	sigemptyset(&blocked);
	sigaddset(&blocked, signal);
	CHECK(sigprocmask(SIG_BLOCK, &blocked, &before) == 0);
	CHECK_EQUAL(sigaction_call(signal, &action, NULL, 8), 0);
	note_set(signal, action);
	CHECK(kill(getpid(), signal) == 0 && sigpending(&pending) == 0 && sigismember(&pending, signal));
	for (int other = 1; other < 20; other++)
		ask(other);
	CHECK_EQUAL(sigaction_call(signal, &action, NULL, 8), 0);
	CHECK(sigpending(&pending) == 0 && !sigismember(&pending, signal));
	CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
}

static void inherit(void)
{
	pid_t pid = guest_fork((int)noise(3));

	if (!pid) {
		for (int signal = 1; signal <= SIGNALS; signal++)
			ask(signal);
		_exit(0);
	}
	guest_reap(pid);
}

/* --- whom the stub may not answer --- */

enum { SHARED_ROUNDS = 2000, TRACED_CALLS = 300 };

/* Another process that shares memory and actions sets one, while this one asks for it on end. */
static int set_shared(void *arg)
{
	volatile uint64_t *newest = arg;
	struct action action = { .handler = 0, .flags = 0x04000000, .restorer = 0x20000 };

	for (uint64_t i = 1; i <= SHARED_ROUNDS; i++) {
		action.restorer++;
		if (sigaction_call(SIGUSR2, &action, NULL, 8))
			_exit(GUEST_FAILED);
		*newest = action.restorer;
	}
	_exit(0);
}

static void share(int cpu)
{
	static char stack[65536] __attribute__((aligned(16)));
	static volatile uint64_t newest;
	struct action seen;
	pid_t pid;

	newest = 0x20000;
	note_set(SIGUSR2, (struct action){ 0, 0x04000000, 0x20000, 0 });
	CHECK_EQUAL(sigaction_call(SIGUSR2, &table[SIGUSR2], NULL, 8), 0);
	pid = clone(set_shared, stack + sizeof(stack), CLONE_VM | CLONE_SIGHAND | SIGCHLD, (void *)&newest);
	CHECK(pid > 0);
	guest_move(pid, cpu);
	while (newest < 0x20000 + SHARED_ROUNDS) {
		uint64_t before = newest;

		CHECK_EQUAL(sigaction_call(SIGUSR2, NULL, &seen, 8), 0);
		if (seen.restorer < before)
			guest_fail("what a sibling has set before is not seen: %lx, not %lx", seen.restorer, before);
	}
	guest_reap(pid);
	table[SIGUSR2].restorer = 0x20000 + SHARED_ROUNDS;
	ask(SIGUSR2);
}

/* Who traces sees each call. */
static void be_traced(void)
{
	struct action seen;

	if (ptrace(PTRACE_TRACEME) || raise(SIGSTOP))
		_exit(GUEST_FAILED);
	for (unsigned i = 0; i < TRACED_CALLS; i++)
		if (sigaction_call(SIGUSR2, NULL, &seen, 8))
			_exit(GUEST_FAILED);
	_exit(0);
}

static void trace(int cpu)
{
	unsigned stops = 0;
	int status;
	pid_t pid = guest_fork(cpu);

	if (!pid)
		be_traced();
	for (;;) {
		CHECK(waitpid(pid, &status, 0) == pid);
		if (!WIFSTOPPED(status))
			break;
		stops++;
		CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, 0) == 0);
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	if (stops < 2 * TRACED_CALLS)
		guest_fail("%u stops, of %d calls", stops, TRACED_CALLS);
}

static void other_calls(long round)
{
	switch (noise(40)) {
	case 0:
		guest_move(0, (int)round);
		return;
	case 1:
		inherit();
		return;
	case 2:
		discard(SIGURG, 0);
		discard(SIGUSR1, 1);
		return;
	default:
		CHECK(getppid() > 0);
	}
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "sigaction", 6000);
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		CHECK_EQUAL(sigaction_call(SIGUSR2, NULL, &table[SIGUSR2], 8), 0);
		guest_move(0, cpu);
		share(cpu + 1);
		trace(cpu);
	}
	edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(edge != MAP_FAILED && mprotect(edge + PAGE, PAGE, PROT_NONE) == 0);
	memset(edge, 0, PAGE);
	for (int signal = 1; signal <= SIGNALS; signal++)
		CHECK_EQUAL(sigaction_call(signal, NULL, &table[signal], 8), 0);
	for (long round = 0; round < guest.size; round++) {
		int signal = 1 + (int)noise(SIGNALS);

		switch (noise(16)) {
		case 0:
			other_calls(round);
			break;
		case 1:
			insane(signal);
			break;
		case 2:
			set_in_place(signal);
			break;
		case 3: case 4: case 5: case 6:
			set(signal);
			break;
		default:
			ask(signal);
		}
	}
	return guest_ok();
}
