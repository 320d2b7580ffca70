// SPDX-License-Identifier: GPL-2.0
/*
 * What a system call writes to memory is there when it has returned, and for whoever may look at it before: -n rounds of small
 * results on memory that this CPU, another CPU, or nobody has used last; many of them in a call, one over the other, with
 * a signal, a fork, a tracer or the end of the process right behind.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { PAGE = 4096, PAGES = 48, PARTS = 20, FILE_SIZE = 64 << 10 };

static uint8_t *memory;
static int file;
static uint64_t round_number, noise_at;

static uint64_t noise(uint64_t below)
{
	return guest_noise(round_number, noise_at++) % below;
}

static uint8_t byte_at(size_t offset)
{
	return (uint8_t)guest_noise(1, offset);
}

/* Anywhere, often across the end of a page. */
static uint8_t *place(size_t length)
{
	return noise(2) ? memory + noise(PAGES * PAGE - length) : memory + (1 + noise(PAGES - 2)) * PAGE - noise(length);
}

/* Read into it here what was used there. */
static void use_elsewhere(void)
{
	switch (noise(4)) {
	case 0:
		CHECK(!madvise(memory, PAGES * PAGE, MADV_DONTNEED));
		break;
	case 1:
		guest_move(0, (int)noise(64));
		memset(memory, (int)noise(256), PAGES * PAGE);
	}
	guest_move(0, (int)noise(64));
}

static void check_bytes(const uint8_t *at, size_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		CHECK_EQUAL(at[i], byte_at(offset + i));
}

static void one(void)
{
	size_t length = 1 + noise(noise(4) ? 600 : 12000), offset = noise(FILE_SIZE - length);
	uint8_t *at = place(length), before = at[-1], behind = at[length];

	CHECK_EQUAL(pread(file, at, length, (off_t)offset), length);
	check_bytes(at, offset, length);
	CHECK_EQUAL(at[-1], before);
	CHECK_EQUAL(at[length], behind);
}

/* More than are put off, some over others: the last one counts. */
static void many(void)
{
	struct iovec parts[PARTS];
	size_t offset = noise(FILE_SIZE / 2), total = 0, count = 1 + noise(PARTS), start[PARTS];
	uint8_t *shadow = malloc(PAGES * PAGE);

	CHECK(shadow);
	memcpy(shadow, memory, PAGES * PAGE);
	for (size_t i = 0; i < count; i++) {
		parts[i].iov_len = 1 + noise(900);
		parts[i].iov_base = i && noise(2) ? (uint8_t *)parts[i - 1].iov_base + noise(3) - 1 : place(1000);
		if ((uint8_t *)parts[i].iov_base < memory)
			parts[i].iov_base = memory;
		start[i] = total;
		total += parts[i].iov_len;
	}
	CHECK_EQUAL(preadv(file, parts, (int)count, (off_t)offset), total);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < parts[i].iov_len; j++)
			shadow[(uint8_t *)parts[i].iov_base + j - memory] = byte_at(offset + start[i] + j);
	CHECK(memcmp(shadow, memory, PAGES * PAGE) == 0);
	free(shadow);
}

/* What the call has written is read by the same call, or the next. */
static void and_read(void)
{
	int ends[2], length = 1 + (int)noise(500);
	uint8_t *at = place(512), *to = place(512);
	struct pollfd *p = (void *)(((uintptr_t)place(64) + 7) & ~7ul);
	size_t offset = noise(FILE_SIZE - 512);

	CHECK(!pipe(ends));
	CHECK_EQUAL(pread(file, at, (size_t)length, (off_t)offset), length);
	CHECK_EQUAL(write(ends[1], at, (size_t)length), length);
	*p = (struct pollfd){ ends[0], POLLIN, 0 };
	CHECK_EQUAL(poll(p, 1, -1), 1);
	CHECK_EQUAL(p->revents, POLLIN);
	CHECK_EQUAL(read(ends[0], to, 512), length);
	check_bytes(to, offset, (size_t)length);
	close(ends[0]);
	close(ends[1]);
}

/* The handler runs in the call that says what was blocked. */
static volatile sig_atomic_t handled;
static sigset_t *was_blocked;

static void handle(int signal)
{
	handled = sigismember(was_blocked, signal) ? 1 : -1;
}

static void and_signal(void)
{
	struct sigaction action = { .sa_handler = handle };
	sigset_t blocked;

	was_blocked = (void *)((uintptr_t)place(256) & ~7ul);
	memset(was_blocked, 0, sizeof(*was_blocked));
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK(!sigaction(SIGUSR1, &action, NULL) && !sigprocmask(SIG_BLOCK, &blocked, NULL));
	handled = 0;
	CHECK(!kill(getpid(), SIGUSR1) && !sigprocmask(SIG_UNBLOCK, &blocked, was_blocked));
	CHECK_EQUAL(handled, 1);
}

/* Its number is in the parent's memory then, and what was read before in the child's. */
static void and_fork(void)
{
	size_t length = 1 + noise(600), offset = noise(FILE_SIZE - length);
	uint8_t *at = place(length);
	int *number = (void *)(((uintptr_t)place(64) + 7) & ~7ul), pid;

	CHECK_EQUAL(pread(file, at, length, (off_t)offset), length);
	if ((uint8_t *)number + 4 > at && (uint8_t *)number < at + length)
		return;
	*number = -1;
	pid = (int)syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, number, NULL, 0);
	CHECK(pid >= 0);
	if (!pid) {
		CHECK_EQUAL(*number, -1);
		check_bytes(at, offset, length);
		_exit(0);
	}
	CHECK_EQUAL(*number, pid);
	check_bytes(at, offset, length);
	guest_reap(pid);
}

/* Who stops it behind the call sees what the call has written. */
static void and_trace(void)
{
	size_t offset = noise(FILE_SIZE - 8) & ~7ul;
	uint64_t *at = (void *)((uintptr_t)place(64) & ~7ul), wanted;
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		CHECK(!ptrace(PTRACE_TRACEME) && !raise(SIGSTOP));
		_exit(pread(file, at, 8, (off_t)offset) == 8 ? 0 : GUEST_FAILED);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (size_t i = 0; i < 8; i++)
		((uint8_t *)&wanted)[i] = byte_at(offset + i);
	do {
		CHECK(!ptrace(PTRACE_SYSCALL, pid, NULL, NULL) && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	} while (ptrace(PTRACE_PEEKUSER, pid, (void *)(15 * 8ul), NULL) != SYS_pread64);
	CHECK(!ptrace(PTRACE_SYSCALL, pid, NULL, NULL) && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK_EQUAL(ptrace(PTRACE_PEEKDATA, pid, at, NULL), wanted);
	CHECK(!ptrace(PTRACE_CONT, pid, NULL, NULL));
	guest_reap(pid);
}

/* Where it must not write, it says so, and what lies before that is read. */
static void refused(void)
{
	uint8_t *edge = memory + PAGES * PAGE;		/* which may only be read */
	size_t length = 1 + noise(600);
	struct stat s;
	ssize_t n;

	n = pread(file, edge - length, length + 100, 0);
	CHECK(n == (ssize_t)length || (n < 0 && errno == EFAULT));
	if (n > 0)
		check_bytes(edge - length, 0, length);
	CHECK_EQUAL(edge[0], 0);
	CHECK_EQUAL(pread(file, edge, 8, 0), -1);
	CHECK_EQUAL(errno, EFAULT);
	CHECK(!fstat(file, &s) && s.st_size == FILE_SIZE);
}

/* By then its memory has gone, and nobody minds. */
static void and_end(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		syscall(SYS_prlimit64, 0, 0, NULL, place(16));
		execl("/proc/self/exe", "results", "-k", "end", (char *)NULL);
		_exit(GUEST_FAILED);
	}
	guest_reap(pid);
}

int main(int argc, char **argv)
{
	static void (*const kinds[])(void) = { one, one, one, many, and_read, and_signal, and_fork, refused };
	uint8_t *bytes;

	guest_start(argc, argv, "results", 600);
	if (guest.kind)
		_exit(strcmp(guest.kind, "end") != 0);
	file = memfd_create("results", 0);
	bytes = malloc(FILE_SIZE);
	CHECK(file >= 0 && bytes);
	for (size_t i = 0; i < FILE_SIZE; i++)
		bytes[i] = byte_at(i);
	CHECK_EQUAL(pwrite(file, bytes, FILE_SIZE, 0), FILE_SIZE);
	memory = mmap(NULL, (PAGES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED && !mprotect(memory + PAGES * PAGE, PAGE, PROT_READ));
	for (round_number = 0; round_number < (uint64_t)guest.size; round_number++) {
		noise_at = 0;
		use_elsewhere();
		kinds[noise(sizeof(kinds) / sizeof(kinds[0]))]();
		if (round_number % 100 == 0) {
			and_trace();
			and_end();
		}
	}
	return guest_ok();
}
