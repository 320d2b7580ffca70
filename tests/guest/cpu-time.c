// SPDX-License-Identifier: GPL-2.0
/*
 * CPU time is accounted to who used it, on each CPU: getrusage, times, the process and thread clocks,
 * /proc/PID/stat, for a child that computes, one that sleeps, and a parent that waits.  The CPU field of
 * /proc/PID/stat is right.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/times.h>

/* Computes for so much CPU time, by the process's own clock; nearly no system calls. */
static void compute(uint64_t ns)
{
	volatile uint64_t sum = 0;

	while (guest_now_ns(CLOCK_PROCESS_CPUTIME_ID) < ns)
		for (int i = 0; i < 1000000; i++)
			sum += guest_noise(sum, (uint64_t)i);
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void expect(const char *what, double seen, double least, double most)
{
	if (seen < least || seen > most)
		guest_fail("%s is %.3f s, not between %.3f and %.3f", what, seen, least, most);
}

static void read_stat(pid_t pid, double *user, double *kernel, int *cpu)
{
	static const char format[] =
		") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld %*d %*d %*d %*d %*d %*d %*u %*u %*d "
		"%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %d";
	char path[64], line[1024], *field;
	long utime, stime;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	CHECK(file && fgets(line, sizeof(line), file));
	fclose(file);
	field = strrchr(line, ')');
	CHECK(field != NULL);
	CHECK(sscanf(field, format, &utime, &stime, cpu) == 3);
	*user = (double)utime / (double)sysconf(_SC_CLK_TCK);
	*kernel = (double)stime / (double)sysconf(_SC_CLK_TCK);
}

static void check_computing(int index)
{
	struct rusage before, after;
	double user, kernel, wall, used;
	uint64_t start = guest_now_ns(CLOCK_MONOTONIC);
	int cpu, status;
	siginfo_t info;
	pid_t pid;

	CHECK(getrusage(RUSAGE_CHILDREN, &before) == 0);
	pid = guest_fork(index);
	if (!pid) {
		compute(800000000);
		_exit(0);
	}
	CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
	read_stat(pid, &user, &kernel, &cpu);
	CHECK_EQUAL(cpu, guest_cpu(index));
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK_EQUAL(status, 0);
	wall = (double)(guest_now_ns(CLOCK_MONOTONIC) - start) / 1e9;
	CHECK(getrusage(RUSAGE_CHILDREN, &after) == 0);
	used = seconds(after.ru_utime) - seconds(before.ru_utime);
	/* On a busy host the time that the kernel half waits for a CPU there is in its system time. */
	expect("user time of a computing child", used, 0.3, wall + 0.05);
	expect("user time in /proc/PID/stat", user, used - 0.05, used + 0.05);
	expect("CPU time of a computing child", used + seconds(after.ru_stime) - seconds(before.ru_stime),
	       0.78, wall + 0.05);
}

static void check_sleeping(int index)
{
	struct rusage use;
	int status;
	pid_t pid = guest_fork(index);

	if (!pid) {
		guest_sleep_ms(500);
		_exit(0);
	}
	CHECK_EQUAL(wait4(pid, &status, 0, &use), pid);
	CHECK_EQUAL(status, 0);
	expect("CPU time of a sleeping child", seconds(use.ru_utime) + seconds(use.ru_stime), 0, 0.2);
}

/* Kernel time goes to who makes the system calls. */
static void check_calling(int index)
{
	struct rusage use;
	int status;
	pid_t pid = guest_fork(index);

	if (!pid) {
		uint64_t end = guest_now_ns(CLOCK_MONOTONIC) + 500000000;

		while (guest_now_ns(CLOCK_MONOTONIC) < end)
			for (int i = 0; i < 50; i++)
				getppid();
		_exit(0);
	}
	CHECK_EQUAL(wait4(pid, &status, 0, &use), pid);
	CHECK_EQUAL(status, 0);
	expect("CPU time of a calling child", seconds(use.ru_utime) + seconds(use.ru_stime), 0.05, 10);
}

/* The parent itself has used next to nothing; times() agrees with getrusage(). */
static void check_parent(void)
{
	struct tms ticks;
	struct rusage children;
	double tick = (double)sysconf(_SC_CLK_TCK);

	CHECK(times(&ticks) != (clock_t)-1);
	CHECK(getrusage(RUSAGE_CHILDREN, &children) == 0);
	expect("times() of the children", (double)ticks.tms_cutime / tick, seconds(children.ru_utime) - 0.05,
	       seconds(children.ru_utime) + 0.05);
	expect("CPU time of the waiting parent", (double)(ticks.tms_utime + ticks.tms_stime) / tick, 0,
	       0.3 * guest.cpu_count);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "cpu-time", 0);
	for (int i = 0; i < guest.cpu_count; i++) {
		check_computing(i);
		check_sleeping(i);
		check_calling(i);
	}
	check_parent();
	return guest_ok();
}
