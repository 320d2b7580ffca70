// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that the machine has replaced by jumps (ssi/overlay/arch/um/ssi/gate.c) do what they did: -n rounds on each
 * CPU of calls that are made often, of registers, the red zone and vector state over them, of signals that come
 * meanwhile, of a child, of one that is moved, of a program with a GS base of its own, and of single steps.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>

enum { OFTEN = 100, MOVES = 60, GENERAL = 12, VECTORS = 16 };

struct state {
	uint64_t general[GENERAL];	/* rbx rbp rsi rdx r8 r9 r10 r12 r13 r14 r15 rdi */
	uint64_t zone[2];		/* the ends of the red zone */
	uint64_t vector[VECTORS][2];
	uint64_t result;
};

/* One page of the program's file, to be mapped near the libraries, where gates are in reach. */
asm(".pushsection .text.probe, \"ax\"\n	.balign 4096\n"
    ".globl probe_page\nprobe_page:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rdi\n"
    "	mov 96(%rdi), %rax; mov %rax, -8(%rsp); mov 104(%rdi), %rax; mov %rax, -128(%rsp)\n"
    "	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n	movdqu 112+16*\\n(%rdi), %xmm\\n\n	.endr\n"
    "	mov (%rdi), %rbx; mov 8(%rdi), %rbp; mov 16(%rdi), %rsi; mov 24(%rdi), %rdx; mov 32(%rdi), %r8\n"
    "	mov 40(%rdi), %r9; mov 48(%rdi), %r10; mov 56(%rdi), %r12; mov 64(%rdi), %r13; mov 72(%rdi), %r14\n"
    "	mov 80(%rdi), %r15; mov 88(%rdi), %rdi\n"
    "	.balign 64\n"
    ".globl probe_site\nprobe_site:\n"
    "	mov $110, %eax\n"		/* getppid */
    "	syscall\n"
    "	xchg %rdi, (%rsp); mov %rax, 368(%rdi)\n"
    "	mov %rbx, (%rdi); mov %rbp, 8(%rdi); mov %rsi, 16(%rdi); mov %rdx, 24(%rdi); mov %r8, 32(%rdi)\n"
    "	mov %r9, 40(%rdi); mov %r10, 48(%rdi); mov %r12, 56(%rdi); mov %r13, 64(%rdi); mov %r14, 72(%rdi)\n"
    "	mov %r15, 80(%rdi); mov (%rsp), %rax; mov %rax, 88(%rdi)\n"
    "	mov -8(%rsp), %rax; mov %rax, 96(%rdi); mov -128(%rsp), %rax; mov %rax, 104(%rdi)\n"
    "	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n	movdqu %xmm\\n, 112+16*\\n(%rdi)\n	.endr\n"
    "	pop %rdi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
    "	.balign 4096\n"
    ".popsection");
extern const unsigned char probe_page[], probe_site[];

_Static_assert(offsetof(struct state, zone) == 96 && offsetof(struct state, vector) == 112 &&
	       offsetof(struct state, result) == 368, "what the code above knows");

static void (*probe)(struct state *);
static volatile sig_atomic_t alarms;

/* Where the file has that page. */
static off_t file_offset(const void *address)
{
	unsigned long start, end, offset;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && (unsigned long)address >= start &&
		    (unsigned long)address < end) {
			fclose(maps);
			return (off_t)((unsigned long)address - start + offset);
		}
	guest_fail("%p is not mapped", address);
	return 0;
}

static void map_probe(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	void *at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, file_offset(probe_page));

	CHECK(fd >= 0 && at != MAP_FAILED);
	close(fd);
	probe = (void (*)(struct state *))at;
}

/* Has its call been replaced? */
static bool is_gate(void)
{
	return ((const unsigned char *)probe)[probe_site - probe_page] == 0xe9;
}

static bool has_gates(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	bool found = false;
	char line[512];

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		found |= strstr(line, "[gates]") != NULL;
	fclose(maps);
	return found;
}

static void check_probe(uint64_t seed, pid_t parent)
{
	uint64_t words[sizeof(struct state) / 8];
	struct state state;

	for (unsigned i = 0; i < sizeof(words) / 8; i++)
		words[i] = guest_noise(seed, i);
	memcpy(&state, words, sizeof(state));
	probe(&state);
	CHECK_EQUAL(state.result, parent);
	for (unsigned i = 0; i < offsetof(struct state, result) / 8; i++)
		if (((uint64_t *)&state)[i] != words[i])
			guest_fail("word %u of the registers has changed from %llx to %llx", i,
				   (unsigned long long)words[i], (unsigned long long)((uint64_t *)&state)[i]);
}

static void call_often(void)
{
	int null = open("/dev/null", O_WRONLY), pipes[2];
	pid_t parent = getppid();
	char byte = 'x';

	CHECK(null >= 0 && pipe(pipes) == 0);
	for (unsigned i = 0; i < OFTEN; i++) {
		CHECK_EQUAL(getppid(), parent);
		CHECK_EQUAL(syscall(SYS_getppid), parent);
		CHECK_EQUAL(lseek(null, (off_t)i, SEEK_SET), 0);
		CHECK_EQUAL(write(pipes[1], &byte, 1), 1);
		CHECK_EQUAL(read(pipes[0], &byte, 1), 1);
		CHECK(close(-1) == -1 && errno == EBADF);
		check_probe(i, parent);
	}
	close(null);
	close(pipes[0]);
	close(pipes[1]);
}

static void count_alarm(int number)
{
	(void)number;
	alarms++;
	CHECK(getppid() > 0);
}

/* Between, in and behind calls; and calls that wait are interrupted. */
static void call_with_signals(void)
{
	const struct itimerval often = { { 0, 5000 }, { 0, 5000 } }, never = { 0 };
	struct sigaction action = { .sa_handler = count_alarm };
	pid_t parent = getppid();
	int before = alarms;
	unsigned waits = 0;

	CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (unsigned i = 0; i < 4 * OFTEN && alarms - before < OFTEN; i++)
		check_probe(i, parent);
	while (waits < OFTEN / 4) {
		int ret = poll(NULL, 0, 5000);

		CHECK(ret == -1 && errno == EINTR);
		waits++;
	}
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	CHECK(alarms - before >= OFTEN / 4);
}

static void call_in_child(void)
{
	pid_t self = getpid(), pid = fork();

	CHECK(pid >= 0);
	if (pid)
		guest_reap(pid);
	else {
		for (unsigned i = 0; i < OFTEN; i++)
			check_probe(i, self);
		_exit(0);
	}
}

/* Also out of the middle of a gate, to other nodes. */
static void call_on_the_move(void)
{
	pid_t self = getpid(), pid = fork();

	CHECK(pid >= 0);
	if (!pid)
		for (uint64_t i = 0;; i++)
			check_probe(i, self);
	for (int i = 0; i < MOVES; i++) {
		guest_move(pid, i);
		guest_sleep_ms(i % 4);
	}
	CHECK(waitpid(pid, NULL, WNOHANG) == 0);	/* it has not failed */
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

static void call_with_gs(void)
{
	uint64_t value = 0x1234567812345678, seen;
	pid_t parent = getppid();

	CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, &value) == 0);
	for (unsigned i = 0; i < OFTEN; i++) {
		check_probe(i, parent);
		asm volatile("mov %%gs:0, %0" : "=r"(seen));
		CHECK_EQUAL(seen, value);
	}
	CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0) == 0);
	for (unsigned i = 0; i < OFTEN; i++)
		check_probe(i, parent);
	CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &seen) == 0);
	CHECK_EQUAL(seen, 0);
}

/* Through the gate, to behind the call: within a few steps, none of which is seen elsewhere than in code of the program. */
static void step(void)
{
	pid_t self = getpid(), pid = fork();
	struct user_regs_struct registers;
	unsigned steps = 0;
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 && raise(SIGSTOP) == 0);
		check_probe(1, self);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (;;) {
		CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status))
			break;
		CHECK_EQUAL(WSTOPSIG(status), SIGTRAP);
		CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
		CHECK(!guest_in_machine() || registers.rip < 0x7f8000000000);
		steps++;
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && steps > 100);
}

int main(int argc, char **argv)
{
	bool gates;

	guest_start(argc, argv, "gates", 1);
	map_probe();
	gates = has_gates();
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		guest_move(0, cpu);
		for (long i = 0; i < guest.size; i++) {
			call_often();
			call_with_signals();
			call_in_child();
			call_on_the_move();
			call_with_gs();
			step();
		}
		/* nodes are numbered as their CPUs are */
		if (gates && !is_gate())
			guest_fail("the call has not been replaced");
	}
	return guest_ok();
}
