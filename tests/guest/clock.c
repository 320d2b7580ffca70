// SPDX-License-Identifier: GPL-2.0
/*
 * Clocks: what the C library says lies between what two system calls say, on each CPU, in a time namespace too; it does
 * not go back while a process is moved -n times; and in a machine that tells the time without system calls, it does, and
 * a clock that is set is seen at once by who does nothing but look, who is not ahead of one that is slowed down either.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>

#define ROUNDS 1000
#define SECOND 1000000000ull

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME };

static uint64_t by_system_call(clockid_t clock)
{
	struct timespec t;

	CHECK(syscall(SYS_clock_gettime, clock, &t) == 0);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void check_between(clockid_t clock)
{
	uint64_t before = by_system_call(clock), now = guest_now_ns(clock), after = by_system_call(clock);

	if (now < before || now > after)
		guest_fail("clock %d on CPU %d: %llu is not between %llu and %llu", clock, sched_getcpu(),
			   (unsigned long long)now, (unsigned long long)before, (unsigned long long)after);
}

static void check_seconds(void)
{
	long before = syscall(SYS_time, NULL), now = time(NULL), after = syscall(SYS_time, NULL);

	CHECK(before <= now && now <= after);
}

static void check_time_of_day(void)
{
	uint64_t before = by_system_call(CLOCK_REALTIME) / 1000, now, after;
	struct timeval t;

	CHECK(gettimeofday(&t, NULL) == 0);
	now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
	after = by_system_call(CLOCK_REALTIME) / 1000;
	CHECK(before <= now && now <= after);
}

static void check_clocks(void)
{
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		guest_move(0, cpu);
		for (unsigned i = 0; i < ROUNDS; i++) {
			check_between(clocks[i % 3]);
			check_seconds();
			check_time_of_day();
		}
	}
}

static void check_moves(void)
{
	uint64_t last = 0, now;

	for (long i = 0; i < guest.size; i++) {
		guest_move(0, (int)(guest_noise(1, (uint64_t)i) % 64));
		for (unsigned j = 0; j < 20; j++, last = now) {
			now = guest_now_ns(CLOCK_MONOTONIC);
			if (now < last)
				guest_fail("move %ld: %llu comes after %llu", i, (unsigned long long)now,
					   (unsigned long long)last);
		}
	}
}

/* --- without system calls --- */

static bool has_page(void)
{
	const char *file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	char name[16] = "";
	int fd;

	for (unsigned i = 0; i < 20 && strcmp(name, "pangea\n"); i++) {
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, name, sizeof(name) - 1) < 0)
			return false;
		close(fd);
		if (strcmp(name, "pangea\n") && strcmp(name, "timer\n"))
			return false;		/* not a machine's */
		guest_sleep_ms(100);
	}
	return !strcmp(name, "pangea\n");
}

static void forbid_call(int number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* Now and then there must be one: a page that has heard nothing for a while is not read. */
static void check_no_calls(void)
{
	struct timespec t;
	struct timeval v;
	unsigned calls;

	forbid_call(SYS_clock_gettime);
	forbid_call(SYS_gettimeofday);
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		calls = 0;
		guest_move(0, cpu);
		for (unsigned i = 0; i < ROUNDS; i++)
			calls += clock_gettime(clocks[i % 2], &t) || gettimeofday(&v, NULL);
		if (calls > ROUNDS / 10)
			guest_fail("%u system calls in %u readings on CPU %d", calls, ROUNDS, guest_cpu(cpu));
	}
}

static void in_child(void (*check)(void))
{
	pid_t pid = guest_fork(0);

	if (!pid) {
		check();
		_exit(0);
	}
	guest_reap(pid);
}

/* --- a clock that is set --- */

struct shared { volatile int ready, set; volatile uint64_t seen; };

static void watch(struct shared *s)
{
	s->ready = 1;
	while (!s->set)
		guest_now_ns(CLOCK_REALTIME);
	s->seen = guest_now_ns(CLOCK_REALTIME);
}

static void set_clock(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / SECOND), (long)(ns % SECOND) };

	CHECK(clock_settime(CLOCK_REALTIME, &t) == 0);
}

static void check_setting(int cpu)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t real;
	pid_t pid;

	CHECK(s != MAP_FAILED);
	pid = guest_fork(cpu);
	if (!pid) {
		watch(s);
		_exit(0);
	}
	while (!s->ready)
		guest_sleep_ms(1);
	guest_sleep_ms(10);
	real = guest_now_ns(CLOCK_REALTIME);
	set_clock(real + 1000 * SECOND);
	s->set = 1;
	guest_reap(pid);
	set_clock(guest_now_ns(CLOCK_REALTIME) - 1000 * SECOND);
	CHECK(s->seen >= real + 1000 * SECOND && s->seen < real + 2000 * SECOND);
	CHECK(munmap(s, sizeof(*s)) == 0);
}

/* --- a clock whose rate is changed --- */

static void set_tick(long us)
{
	struct timex t = { .modes = ADJ_TICK, .tick = us };

	CHECK(adjtimex(&t) >= 0);
}

/* What is read after some time without a system call is not ahead of one. */
static void watch_rate(struct shared *s)
{
	uint64_t start, now, after;

	s->ready = 1;
	while (!s->set) {
		start = guest_now_ns(CLOCK_MONOTONIC);
		do
			now = guest_now_ns(CLOCK_MONOTONIC);
		while (now - start < 15000000);
		after = by_system_call(CLOCK_MONOTONIC);
		if (now > after)
			guest_fail("CPU %d is %llu ns ahead of a clock that was slowed down", sched_getcpu(),
				   (unsigned long long)(now - after));
	}
}

static void check_rate(int cpu)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	CHECK(s != MAP_FAILED);
	pid = guest_fork(cpu);
	if (!pid) {
		watch_rate(s);
		_exit(0);
	}
	while (!s->ready)
		guest_sleep_ms(1);
	for (unsigned i = 0; i < 60; i++) {
		set_tick(i % 2 ? 9000 : 11000);
		guest_sleep_ms(7);
	}
	set_tick(10000);
	s->set = 1;
	guest_reap(pid);
	CHECK(munmap(s, sizeof(*s)) == 0);
}

/* --- time namespaces --- */

static void check_namespace(void)
{
	uint64_t outside = guest_now_ns(CLOCK_MONOTONIC);
	pid_t pid;
	int fd;

	CHECK(unshare(CLONE_NEWTIME) == 0);
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && write(fd, "monotonic 5000 0\n", 17) == 17 && close(fd) == 0);
	pid = guest_fork(0);
	if (!pid) {
		check_clocks();
		CHECK(guest_now_ns(CLOCK_MONOTONIC) >= outside + 5000 * SECOND);
		_exit(0);
	}
	guest_reap(pid);
	check_clocks();
	CHECK(guest_now_ns(CLOCK_MONOTONIC) < outside + 5000 * SECOND);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "clock", 300);
	guest_move(0, 0);
	check_clocks();
	check_moves();
	if (has_page()) {
		in_child(check_no_calls);
		for (int cpu = 0; cpu < guest.cpu_count && !geteuid(); cpu++) {
			check_setting(cpu);
			check_rate(cpu);
		}
		check_clocks();
	}
	if (!geteuid() && !access("/proc/self/timens_offsets", W_OK))
		in_child(check_namespace);
	return guest_ok();
}
