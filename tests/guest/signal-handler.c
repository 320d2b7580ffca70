// SPDX-License-Identifier: GPL-2.0
/*
 * What surrounds a handler: alternate stack, nesting, the mask, SA_RESTART, SA_NODEFER, SA_RESETHAND,
 * leaving by siglongjmp, registers that a handler changes, and -n handlers in a loop while the process
 * moves.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

static volatile sig_atomic_t depth, deepest, count;
static char *stack_low, *stack_high;
static sigjmp_buf jump;

static void set_handler(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	CHECK(sigaction(number, &action, NULL) == 0);
}

static bool on_alternate_stack(void)
{
	char here;

	return &here >= stack_low && &here < stack_high;
}

static void on_stack_handler(int number, siginfo_t *info, void *context)
{
	stack_t now;

	(void)number;
	(void)info;
	(void)context;
	CHECK(on_alternate_stack());
	CHECK(sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_ONSTACK));
	CHECK(sigaltstack(&now, NULL) == -1 && errno == EPERM);
	count++;
}

static void check_alternate_stack(void)
{
	enum { SIZE = 128 * 1024 };
	stack_t stack = { .ss_size = SIZE };

	stack_low = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(stack_low != MAP_FAILED);
	stack_high = stack_low + SIZE;
	stack.ss_sp = stack_low;
	CHECK(sigaltstack(&stack, NULL) == 0);
	set_handler(SIGUSR1, on_stack_handler, SA_ONSTACK);
	CHECK(raise(SIGUSR1) == 0);
	CHECK_EQUAL(count, 1);
	CHECK(!on_alternate_stack());
	/* And on the first page of a stack that another CPU has just written to. */
	guest_move(0, 1);
	memset(stack_low, 0xa5, SIZE);
	guest_move(0, 2);
	CHECK(raise(SIGUSR1) == 0);
	CHECK_EQUAL(count, 2);
}

static void nested_handler(int number, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (++depth > deepest)
		deepest = depth;
	if (number < SIGRTMIN + 10)
		CHECK(raise(number + 1) == 0);
	depth--;
}

static void check_nesting(void)
{
	for (int i = 0; i <= 10; i++)
		set_handler(SIGRTMIN + i, nested_handler, 0);
	CHECK(raise(SIGRTMIN) == 0);
	CHECK(deepest == 11 && depth == 0);
	/* The same signal waits for its handler to end, unless SA_NODEFER. */
	deepest = 0;
	set_handler(SIGRTMIN + 10, nested_handler, 0);
	CHECK(raise(SIGRTMIN + 10) == 0);
	CHECK_EQUAL(deepest, 1);
}

static void again_handler(int number, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (++depth > deepest)
		deepest = depth;
	if (++count < 5)
		CHECK(raise(number) == 0);
	depth--;
}

static void check_deferral(void)
{
	count = deepest = 0;
	set_handler(SIGUSR2, again_handler, 0);
	CHECK(raise(SIGUSR2) == 0);
	CHECK(count == 5 && deepest == 1);
	count = deepest = 0;
	set_handler(SIGUSR2, again_handler, SA_NODEFER);
	CHECK(raise(SIGUSR2) == 0);
	CHECK(count == 5 && deepest == 5);
}

static void mask_handler(int number, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)number;
	(void)info;
	(void)context;
	CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGUSR1) && sigismember(&now, SIGTERM) && !sigismember(&now, SIGHUP));
	count++;
}

static void check_mask(void)
{
	struct sigaction action = { .sa_sigaction = mask_handler, .sa_flags = SA_SIGINFO | SA_RESETHAND };
	struct sigaction after;
	sigset_t now;

	sigaddset(&action.sa_mask, SIGTERM);
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	count = 0;
	CHECK(raise(SIGUSR1) == 0);
	CHECK_EQUAL(count, 1);
	CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && !sigismember(&now, SIGTERM));
	CHECK(sigaction(SIGUSR1, NULL, &after) == 0 && after.sa_handler == SIG_DFL);
}

static void jump_handler(int number, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	siglongjmp(jump, number);
}

static void check_jump(void)
{
	set_handler(SIGUSR1, jump_handler, SA_ONSTACK);
	for (volatile int i = 0; i < 100; i++) {
		int number = sigsetjmp(jump, 1);

		if (!number) {
			raise(SIGUSR1);
			guest_fail("siglongjmp came back");
		}
		CHECK_EQUAL(number, SIGUSR1);
	}
}

static void count_handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	(void)context;
	count++;
}

static volatile sig_atomic_t *shared_count;

static void shared_handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	(void)context;
	++*shared_count;
}

/* A child on another CPU signals while the parent waits for its byte; each after the last was handled. */
static pid_t start_sender(int times, int *from)
{
	int fds[2];
	pid_t pid, parent = getpid();

	*shared_count = 0;
	CHECK(pipe(fds) == 0);
	pid = guest_fork(1);
	if (!pid) {
		for (int i = 0; i < times; i++) {
			guest_sleep_ms(20);
			CHECK(kill(parent, SIGUSR1) == 0);
			while (*shared_count <= i)
				guest_sleep_ms(1);
		}
		guest_sleep_ms(20);
		CHECK(write(fds[1], "z", 1) == 1);
		_exit(0);
	}
	CHECK(close(fds[1]) == 0);
	*from = fds[0];
	return pid;
}

static void check_restart(void)
{
	int from, interrupted = 0;
	char byte = 0;
	pid_t pid;

	shared_count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared_count != MAP_FAILED);
	set_handler(SIGUSR1, shared_handler, SA_RESTART);
	pid = start_sender(5, &from);
	CHECK(read(from, &byte, 1) == 1 && byte == 'z');
	CHECK_EQUAL(*shared_count, 5);
	guest_reap(pid);
	CHECK(close(from) == 0);

	set_handler(SIGUSR1, shared_handler, 0);
	pid = start_sender(5, &from);
	while (read(from, &byte, 1) == -1) {
		CHECK_EQUAL(errno, EINTR);
		interrupted++;
	}
	/* A signal may come between two reads. */
	CHECK(*shared_count == 5 && interrupted >= 1 && interrupted <= 5);
	guest_reap(pid);
	CHECK(close(from) == 0);
}

static void register_handler(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;

	(void)number;
	(void)info;
	CHECK_EQUAL(user->uc_mcontext.gregs[REG_R12], 0x1212);
	user->uc_mcontext.gregs[REG_R12] = 0x3434;
	user->uc_mcontext.gregs[REG_RIP] += 2;	/* over the ud2 */
	user->uc_mcontext.gregs[REG_EFL] |= 1;	/* carry */
}

static void check_registers(void)
{
	uint64_t changed;
	unsigned char carry;

	set_handler(SIGILL, register_handler, 0);
	asm volatile("movq $0x1212, %%r12\n\tclc\n\tud2\n\tsetc %1\n\tmovq %%r12, %0"
		     : "=r" (changed), "=q" (carry) : : "r12", "cc");
	CHECK_EQUAL(changed, 0x3434);
	CHECK_EQUAL(carry, 1);
}

/* Many handlers, while the process goes round the CPUs. */
static void check_many(long times)
{
	set_handler(SIGUSR1, count_handler, 0);
	count = 0;
	for (int i = 0; i < times; i++) {
		if (i % 16 == 0)
			guest_move(0, i / 16);
		CHECK(raise(SIGUSR1) == 0);
	}
	CHECK_EQUAL(count, times);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "signal-handler", 2000);
	guest_move(0, 0);
	check_alternate_stack();
	check_nesting();
	check_deferral();
	check_mask();
	check_jump();
	check_restart();
	check_registers();
	check_many(guest.size);
	return guest_ok();
}
