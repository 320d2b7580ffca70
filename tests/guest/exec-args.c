// SPDX-License-Identifier: GPL-2.0
/*
 * execve() gets its arguments whole, wherever they lie; and where it fails, what was read for it is not taken for what is
 * there later: -n rounds in which the caller then stores to the same memory elsewhere, and writes that to a pipe,
 * where it waits and wakes up on the CPU of the execve().
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, STRINGS = 40, LONGEST = 60000 };

extern char **environ;

/* --- all of it arrives --- */

/* Lengths around pages, among others; letters only. */
static size_t string_length(unsigned i)
{
	static const size_t some[] = { 0, 1, 7, PAGE - 2, PAGE - 1, PAGE, PAGE + 1, LONGEST };

	return i % 2 ? some[i / 2 % (sizeof(some) / sizeof(some[0]))] : guest_noise(1, i) % 300;
}

static char letter(unsigned string, size_t i)
{
	return (char)('a' + guest_noise(string + 2, i) % 26);
}

static void check_arguments(char **strings)
{
	for (unsigned i = 0; i < STRINGS; i++) {
		size_t length = string_length(i);

		CHECK_EQUAL(strlen(strings[i]), length);
		for (size_t n = 0; n < length; n++)
			if (strings[i][n] != letter(i, n))
				guest_fail("string %u: byte %zu of %zu is wrong", i, n, length);
	}
	CHECK(!strings[STRINGS]);
	_exit(0);
}

static void execute(void)
{
	char *strings[STRINGS + 5] = { "exec-args", "-k", "check", "--" };

	for (unsigned i = 0; i < STRINGS; i++) {
		strings[4 + i] = malloc(string_length(i) + 1);
		CHECK(strings[4 + i]);
		for (size_t n = 0; n < string_length(i); n++)
			strings[4 + i][n] = letter(i, n);
		strings[4 + i][string_length(i)] = 0;
	}
	execve("/proc/self/exe", strings, environ);
	guest_fail("execve: %s", strerror(errno));
}

/* --- what was read is not kept --- */

static void make_no_program(char *path)
{
	int fd = mkostemp(path, O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, "\1\2\3\4", 4) == 4 && fchmod(fd, 0755) == 0);
	close(fd);
}

static void fill(char *page, long round, char mark)
{
	for (size_t i = 0; i < PAGE - 1; i++)
		page[i] = letter((unsigned)round, i);
	page[0] = mark;
	page[PAGE - 1] = 0;
}

static void write_after_failure(const char *path, char *page, long round, const int *go, int pipe_end)
{
	char *arguments[] = { "none", page, page + 1, NULL };

	fill(page, round, 'A');
	CHECK(execve(path, arguments, environ) < 0 && errno == ENOEXEC);
	guest_move(0, (int)round + 1);
	fill(page, round + 1000, 'B');
	CHECK(write(go[1], "", 1) == 1);
	CHECK_EQUAL(write(pipe_end, page, PAGE), PAGE);
	guest_move(0, (int)round);
}

static void read_page(int fd, char *page)
{
	for (size_t have = 0; have < PAGE;) {
		ssize_t n = read(fd, page + have, PAGE - have);

		CHECK(n > 0);
		have += (size_t)n;
	}
}

static void check_round(const char *path, char *page, long round)
{
	static char seen[PAGE], wanted[PAGE];
	int go[2], ends[2];
	char byte;
	pid_t pid;

	guest_move(0, (int)round + 1);		/* nobody else enters user mode where it executes */
	CHECK(pipe(go) == 0 && pipe(ends) == 0 && fcntl(ends[1], F_SETPIPE_SZ, PAGE) == PAGE);
	CHECK_EQUAL(write(ends[1], seen, PAGE), PAGE);
	pid = guest_fork((int)round);
	if (!pid) {
		write_after_failure(path, page, round, go, ends[1]);
		_exit(0);
	}
	CHECK(close(go[1]) == 0 && close(ends[1]) == 0);
	CHECK(read(go[0], &byte, 1) == 1);
	guest_sleep_ms(5);		/* it waits: if it did not yet the round says less */
	guest_move(pid, (int)round);
	read_page(ends[0], seen);
	read_page(ends[0], seen);
	guest_reap(pid);
	fill(wanted, round + 1000, 'B');
	CHECK(memcmp(seen, wanted, PAGE) == 0);
	CHECK(close(go[0]) == 0 && close(ends[0]) == 0);
}

int main(int argc, char **argv)
{
	char path[256], *page;
	pid_t pid;

	guest_start(argc, argv, "exec-args", 24);
	if (guest_is("check"))
		check_arguments(argv + optind);
	snprintf(path, sizeof(path), "%s/exec-args.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	make_no_program(path);
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	for (long round = 0; round < guest.size; round++)
		check_round(path, page, round);
	CHECK(unlink(path) == 0);
	for (int i = 0; i < guest.cpu_count; i++) {
		pid = guest_fork(i);
		if (!pid)
			execute();
		guest_reap(pid);
	}
	return guest_ok();
}
