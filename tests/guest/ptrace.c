// SPDX-License-Identifier: GPL-2.0
/*
 * ptrace of a child on another CPU: single steps, breakpoints, peek and poke, general and vector
 * registers, system call stops with changed arguments and results, signals, seize, interrupt, detach;
 * /proc/PID/mem and process_vm_readv/writev.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>

static volatile uint64_t target[600] = { 11, 22, 33 };

/* Ten instructions of known length and effect. */
asm(".text\n"
    ".globl steps\n"
    "steps:	movq $1, %rax\n"
    "	addq $2, %rax\n"
    "	shlq $4, %rax\n"
    "	nop\n"
    "	nop\n"
    "	leaq 5(%rax), %rax\n"
    "	nop\n"
    "	xorq %rcx, %rcx\n"
    "	nop\n"
    "	ret\n");
long steps(void);

static void expect_stop(pid_t pid, int signal_number)
{
	int status;

	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != signal_number)
		guest_fail("the child's status is 0x%x, not a stop by signal %d", status, signal_number);
}

static struct user_regs_struct get_registers(pid_t pid)
{
	struct user_regs_struct registers;

	CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
	return registers;
}

static void child(void)
{
	CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	CHECK(raise(SIGSTOP) == 0);
	CHECK_EQUAL(target[1], 2222);
	CHECK_EQUAL(target[599], 9999);
	CHECK_EQUAL(steps(), 53);
	CHECK_EQUAL(steps(), 77);
	CHECK_EQUAL(syscall(SYS_getppid), 424242);
	CHECK(raise(SIGUSR1) == 0);
	_exit(5);
}

static void check_memory(pid_t pid)
{
	uint64_t words[3], value = 9999;
	struct iovec here = { words, sizeof(words) }, there = { (void *)target, sizeof(words) };
	char path[64];
	int fd;

	errno = 0;
	CHECK(ptrace(PTRACE_PEEKDATA, pid, &target[0], NULL) == 11 && !errno);
	CHECK(ptrace(PTRACE_POKEDATA, pid, &target[1], 2222L) == 0);
	CHECK(process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof(words));
	CHECK(words[0] == 11 && words[1] == 2222 && words[2] == 33);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK(pwrite(fd, &value, 8, (off_t)(uintptr_t)&target[599]) == 8);
	CHECK(pread(fd, words, 8, (off_t)(uintptr_t)&target[1]) == 8 && words[0] == 2222);
	CHECK(close(fd) == 0 && target[1] == 22);
	words[0] = 44;
	CHECK(process_vm_writev(pid, &here, 1, &there, 1, 0) == sizeof(words));
	CHECK(ptrace(PTRACE_PEEKDATA, pid, &target[0], NULL) == 44);
}

static void poke_byte(pid_t pid, void *at, unsigned char byte, unsigned char *old)
{
	long word = ptrace(PTRACE_PEEKTEXT, pid, at, NULL);

	*old = (unsigned char)word;
	CHECK(ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xffL) | byte) == 0);
}

/* Runs to a breakpoint at steps(), then goes through it instruction by instruction. */
static void check_steps(pid_t pid)
{
	static const int lengths[] = { 7, 4, 4, 1, 1, 4, 1, 3, 1 };
	struct user_regs_struct registers;
	unsigned char old, trap;
	uint64_t at = (uint64_t)(uintptr_t)steps;

	poke_byte(pid, steps, 0xcc, &old);
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP);
	registers = get_registers(pid);
	CHECK_EQUAL(registers.rip, at + 1);
	poke_byte(pid, steps, old, &trap);
	CHECK_EQUAL(trap, 0xcc);
	registers.rip = at;
	CHECK(ptrace(PTRACE_SETREGS, pid, NULL, &registers) == 0);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
		expect_stop(pid, SIGTRAP);
		at += (uint64_t)lengths[i];
		CHECK_EQUAL(get_registers(pid).rip, at);
	}
	CHECK_EQUAL(get_registers(pid).rax, 53);
}

/* The second call of steps(): stop at its last instruction and change the result. */
static void check_registers(pid_t pid)
{
	struct user_regs_struct registers;
	struct user_fpregs_struct floats, again;
	unsigned char old, trap;
	char *last = (char *)steps + 26;

	poke_byte(pid, last, 0xcc, &old);
	CHECK_EQUAL(old, 0xc3);
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP);
	/* Still in the first call, after the nop before ret. */
	registers = get_registers(pid);
	registers.rip--;
	CHECK(ptrace(PTRACE_SETREGS, pid, NULL, &registers) == 0);
	poke_byte(pid, last, old, &trap);
	CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP);
	poke_byte(pid, last, 0xcc, &old);
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP);
	registers = get_registers(pid);
	CHECK_EQUAL(registers.rax, 53);
	registers.rax = 77;
	registers.rip--;
	CHECK(ptrace(PTRACE_SETREGS, pid, NULL, &registers) == 0);
	poke_byte(pid, last, old, &trap);
	CHECK(ptrace(PTRACE_GETFPREGS, pid, NULL, &floats) == 0);
	for (int i = 0; i < 8; i++)
		floats.xmm_space[40 + i] = 0x1000u + (unsigned)i;
	CHECK(ptrace(PTRACE_SETFPREGS, pid, NULL, &floats) == 0);
	CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP);
	CHECK(ptrace(PTRACE_GETFPREGS, pid, NULL, &again) == 0);
	CHECK(memcmp(floats.xmm_space, again.xmm_space, sizeof(floats.xmm_space)) == 0);
}

static void check_calls(pid_t pid)
{
	struct user_regs_struct registers;

	CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0);
	CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP | 0x80);
	CHECK_EQUAL(get_registers(pid).orig_rax, SYS_getppid);
	CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGTRAP | 0x80);
	registers = get_registers(pid);
	CHECK_EQUAL(registers.rax, getpid());
	registers.rax = 424242;
	CHECK(ptrace(PTRACE_SETREGS, pid, NULL, &registers) == 0);
}

/* The signal is seen, replaced by none, and the child ends as it wants to. */
static void check_signal(pid_t pid)
{
	siginfo_t info;
	int status;

	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	expect_stop(pid, SIGUSR1);
	CHECK(ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) == 0);
	CHECK(info.si_signo == SIGUSR1 && info.si_pid == pid);
	CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQUAL(WEXITSTATUS(status), 5);
}

static void check_traced_child(int index)
{
	pid_t pid = guest_fork(index);

	if (!pid)
		child();
	expect_stop(pid, SIGSTOP);
	check_memory(pid);
	check_steps(pid);
	check_registers(pid);
	check_calls(pid);
	check_signal(pid);
}

/* A loop is seized, interrupted, stepped, moved, and goes on after the detach. */
static void check_seize(int index)
{
	struct user_regs_struct registers;
	struct iovec set = { &registers, sizeof(registers) };
	volatile uint64_t *count;
	uint64_t before;
	int status;
	pid_t pid;

	count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(count != MAP_FAILED);
	pid = guest_fork(index);
	while (!pid)
		++*count;
	CHECK(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0);
	for (int i = 0; i < 10; i++) {
		CHECK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0);
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		CHECK(WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP);
		guest_move(pid, index + i);
		for (int step = 0; step < 20; step++) {
			CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
			expect_stop(pid, SIGTRAP);
		}
		CHECK(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &set) == 0 && registers.rip);
		before = *count;
		guest_sleep_ms(10);
		CHECK_EQUAL(*count, before);
		CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
		while (*count < before + 100)
			guest_sleep_ms(1);
	}
	CHECK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
	before = *count;
	while (*count < before + 100)
		guest_sleep_ms(1);
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(munmap((void *)count, 4096) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "ptrace", 0);
	for (int i = 0; i < guest.cpu_count; i++) {
		guest_move(0, i);
		check_traced_child(i + 1);
		check_seize(i + 1);
	}
	check_traced_child(0);
	return guest_ok();
}
