/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every guest program needs: which CPUs to use, and to say how it went.
 *
 * A guest program is an ordinary Linux program that uses one feature and checks the result itself.  It
 * prints one line, `ok NAME` or `not ok NAME: reason`, and exits with 0 or 1.  It runs natively as well,
 * where it must pass too: CPUs that do not exist there are taken modulo the number of those that do.
 *
 *   -c LIST   CPUs to use, for example 1 or 0,1,2 (default: all that may be used)
 *   -n N      how much: the program says of what
 *   -k KIND   which variant: the program says which there are
 *
 * A child that fails says so on stderr and exits with GUEST_FAILED; whoever waits for it prints the line.
 */
#ifndef GUEST_H
#define GUEST_H

#include <errno.h>
#include <glob.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GUEST_CPUS_MAX	256
#define GUEST_FAILED	99

static struct {
	const char *name;
	pid_t pid;		/* of the process that prints the line */
	int cpus[GUEST_CPUS_MAX];
	int cpu_count;
	long size;
	const char *kind;
} guest;

__attribute__((noreturn, format(printf, 1, 2)))
static inline void guest_fail(const char *format, ...)
{
	bool child = getpid() != guest.pid;
	va_list args;
	char text[512];

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (child)
		dprintf(2, "# %s: child %d on CPU %d: %s\n", guest.name, getpid(), sched_getcpu(), text);
	else
		dprintf(1, "not ok %s: %s\n", guest.name, text);
	_exit(child ? GUEST_FAILED : 1);
}

#define CHECK(condition) do { \
	if (!(condition)) \
		guest_fail("line %d: %s (%s)", __LINE__, #condition, strerror(errno)); \
} while (0)

#define CHECK_EQUAL(seen, wanted) do { \
	long long seen_ = (long long)(seen), wanted_ = (long long)(wanted); \
	if (seen_ != wanted_) \
		guest_fail("line %d: %s is %lld (0x%llx), not %lld (0x%llx) (%s)", __LINE__, #seen, \
			   seen_, seen_, wanted_, wanted_, strerror(errno)); \
} while (0)

/* Not natively: there are stubs. */
static inline bool guest_in_machine(void)
{
	char line[256];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "r");

	CHECK(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, "User Mode Linux");
	fclose(f);
	return found;
}

static inline int guest_ok(void)
{
	printf("ok %s%s%s\n", guest.name, guest.kind ? " " : "", guest.kind ? guest.kind : "");
	return fflush(stdout) ? 1 : 0;
}

/* The node where the caller runs. */
struct guest_node { unsigned first, count; };	/* CPUs */

static inline struct guest_node guest_node(void)
{
	struct guest_node node = { .first = ~0u };
	unsigned cpu, number;
	char pattern[64];
	glob_t found;

	CHECK(getcpu(&cpu, &number) == 0);
	snprintf(pattern, sizeof(pattern), "/sys/devices/system/node/node%u/cpu[0-9]*", number);
	CHECK(glob(pattern, 0, NULL, &found) == 0);
	node.count = found.gl_pathc;
	for (unsigned i = 0; i < node.count; i++) {
		CHECK(sscanf(strrchr(found.gl_pathv[i], '/'), "/cpu%u", &cpu) == 1);
		node.first = cpu < node.first ? cpu : node.first;
	}
	globfree(&found);
	return node;
}

static inline int guest_usable_cpus(int cpus[GUEST_CPUS_MAX])
{
	cpu_set_t set;
	int count = 0;

	CHECK(sched_getaffinity(0, sizeof(set), &set) == 0);
	for (int cpu = 0; cpu < GUEST_CPUS_MAX; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[count++] = cpu;
	return count;
}

static inline void guest_parse_cpus(const char *list)
{
	int usable[GUEST_CPUS_MAX], usable_count = guest_usable_cpus(usable);

	guest.cpu_count = 0;
	for (char *end; guest.cpu_count < GUEST_CPUS_MAX; list = end + 1) {
		unsigned long number = strtoul(list, &end, 10);

		if (end == list || (*end && *end != ','))
			guest_fail("-c takes numbers with commas between, not \"%s\"", list);
		guest.cpus[guest.cpu_count++] = usable[number % (unsigned)usable_count];
		if (!*end)
			return;
	}
}

static inline void guest_start(int argc, char **argv, const char *name, long size)
{
	guest.name = name;
	guest.pid = getpid();
	guest.size = size;
	guest.cpu_count = guest_usable_cpus(guest.cpus);
	for (int option; (option = getopt(argc, argv, "c:n:k:")) != -1;) {
		if (option == 'c')
			guest_parse_cpus(optarg);
		else if (option == 'n')
			guest.size = strtol(optarg, NULL, 10);
		else if (option == 'k')
			guest.kind = optarg;
		else
			guest_fail("usage: %s [-c CPUS] [-n N] [-k KIND]", name);
	}
}

static inline bool guest_is(const char *kind)
{
	return guest.kind && strcmp(guest.kind, kind) == 0;
}

static inline int guest_cpu(int index)
{
	return guest.cpus[index % guest.cpu_count];
}

/* Moves a process (0: the caller) to the index-th CPU; the caller is there on return. */
static inline void guest_move(pid_t pid, int index)
{
	cpu_set_t set;
	unsigned cpu;

	CPU_ZERO(&set);
	CPU_SET(guest_cpu(index), &set);
	CHECK(sched_setaffinity(pid, sizeof(set), &set) == 0);
	if (pid)
		return;
	CHECK(getcpu(&cpu, NULL) == 0);
	CHECK_EQUAL(cpu, guest_cpu(index));
}

/* fork(), the child on the index-th CPU: it is there before the parent goes on and may move it elsewhere. */
static inline pid_t guest_fork(int index)
{
	int there[2];
	char none;
	pid_t pid;

	CHECK(pipe(there) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		guest_move(0, index);
	CHECK(close(there[1]) == 0);
	if (pid)
		CHECK(read(there[0], &none, 1) == 0);
	CHECK(close(there[0]) == 0);
	return pid;
}

static inline void guest_reap(pid_t pid)
{
	int status;

	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		guest_fail("child %d was killed by signal %d", pid, WTERMSIG(status));
	if (WEXITSTATUS(status))
		guest_fail("child %d exited with %d", pid, WEXITSTATUS(status));
}

static inline uint64_t guest_now_ns(clockid_t clock)
{
	struct timespec t;

	CHECK(clock_gettime(clock, &t) == 0);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void guest_sleep_ms(unsigned ms)
{
	struct timespec left = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

/* Reproducible noise: the n-th word of stream `seed`. */
static inline uint64_t guest_noise(uint64_t seed, uint64_t n)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + n * 0xbf58476d1ce4e5b9u + 1;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* FNV-1a over words: enough to see a lost, doubled or reordered byte. */
static inline uint64_t guest_checksum(uint64_t sum, const void *data, size_t length)
{
	const unsigned char *bytes = data;
	uint64_t word;

	for (; length >= sizeof(word); length -= sizeof(word), bytes += sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		sum = (sum ^ word) * 0x100000001b3u;
	}
	for (; length; length--)
		sum = (sum ^ *bytes++) * 0x100000001b3u;
	return sum;
}
#define GUEST_CHECKSUM_START 0xcbf29ce484222325u

static inline void guest_write_all(int fd, const void *data, size_t length)
{
	for (const char *at = data; length;) {
		ssize_t done = write(fd, at, length);

		CHECK(done > 0);
		at += done;
		length -= (size_t)done;
	}
}

/* Returns what was read: `length`, or less at the end of the file. */
static inline size_t guest_read_all(int fd, void *data, size_t length)
{
	size_t got = 0;

	while (got < length) {
		ssize_t done = read(fd, (char *)data + got, length - got);

		CHECK(done >= 0);
		if (!done)
			break;
		got += (size_t)done;
	}
	return got;
}

#endif
