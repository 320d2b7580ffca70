// SPDX-License-Identifier: GPL-2.0
/*
 * What a kernel's primitives cost, as a program sees it: run natively, in stock UML and in a machine.
 *
 *   local [--busy] [CPU [OTHER]]
 *   local --processes CPU            fork and spawn only
 *   local --off                      power the machine off that this is the first process of
 *
 * Each line is a key and nanoseconds, the median of several measurements by the clock of the kernel that it runs on.
 * Everything runs on CPU; OTHER is for the second process of pipe2, and --busy keeps it busy meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

enum { PAGE = 4096, TOUCHED = 64 << 20, CACHED = 16 << 20, MANY = 1000 };

extern char **environ;

/* The median of so many measurements of what takes place `each` times in one. */
static void measure(const char *key, unsigned count, unsigned each, void (*once)(void *), void *arg)
{
	uint64_t times[64], start;

	for (unsigned i = 0; i < count; i++) {
		start = now_ns();
		once(arg);
		times[i] = (now_ns() - start) / each;
	}
	qsort(times, count, sizeof(times[0]), ascending);
	printf("%s %llu\n", key, (unsigned long long)times[count / 2]);
	fflush(stdout);
}

static void calls(void *unused)
{
	(void)unused;
	for (unsigned i = 0; i < MANY; i++)
		syscall(SYS_getppid);
}

static void clocks(void *unused)
{
	struct timespec t;

	(void)unused;
	for (unsigned i = 0; i < MANY; i++)
		clock_gettime(CLOCK_REALTIME, &t);
}

static void seconds(void *unused)
{
	time_t t;

	(void)unused;
	for (unsigned i = 0; i < MANY; i++)
		time(&t);
}

static void times_of_day(void *unused)
{
	struct timeval t;

	(void)unused;
	for (unsigned i = 0; i < MANY; i++)
		gettimeofday(&t, NULL);
}

static void touch_anonymous(void *unused)
{
	volatile char *p = mmap(NULL, TOUCHED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)unused;
	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < TOUCHED; i += PAGE)
		p[i] = 1;
	munmap((void *)p, TOUCHED);
}

static void touch_file(void *fd)
{
	volatile char *p = mmap(NULL, CACHED, PROT_READ, MAP_SHARED, *(int *)fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < CACHED; i += PAGE)
		(void)p[i];
	munmap((void *)p, CACHED);
}

static int cached_file(void)
{
	static char zeros[1 << 16];
	FILE *file = tmpfile();

	for (unsigned i = 0; file && i < CACHED / sizeof(zeros); i++)
		if (!fwrite(zeros, sizeof(zeros), 1, file))
			file = NULL;
	if (!file || fflush(file))
		die("a file of 16 MiB in /tmp");
	return fileno(file);
}

static void fork_and_wait(void *unused)
{
	pid_t pid = fork();

	(void)unused;
	if (!pid)
		_exit(0);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		die("fork");
}

static void spawn_and_wait(void *unused)
{
	char *argv[] = { "true", NULL };
	pid_t pid;

	(void)unused;
	errno = posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ);
	if (errno || waitpid(pid, NULL, 0) != pid)
		die("/bin/true");
}

struct pipes { int there[2], back[2]; };

static void ping(void *arg)
{
	struct pipes *p = arg;
	char byte = 0;

	for (unsigned i = 0; i < MANY; i++)
		if (write(p->there[1], &byte, 1) != 1 || read(p->back[0], &byte, 1) != 1)
			die("pipe");
}

static void pong(struct pipes *p, int cpu)
{
	char byte;

	pin(0, cpu);
	close(p->there[1]);
	while (read(p->there[0], &byte, 1) == 1)
		if (write(p->back[1], &byte, 1) != 1)
			break;
	_exit(0);
}

static void measure_pipes(const char *key, int cpu)
{
	struct pipes p;
	pid_t pid;

	if (pipe(p.there) < 0 || pipe(p.back) < 0)
		die("pipe");
	pid = fork();
	if (!pid)
		pong(&p, cpu);
	measure(key, 7, MANY, ping, &p);
	close(p.there[1]);
	waitpid(pid, NULL, 0);
}

static pid_t keep_busy(int cpu)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(0, cpu);
	for (;;)
		;
}

static void measure_all(int cpu, int other)
{
	int fd = cached_file();
	volatile char *touched;

	measure("call", 9, MANY, calls, NULL);
	measure("clock_gettime", 9, MANY, clocks, NULL);
	measure("gettimeofday", 9, MANY, times_of_day, NULL);
	measure("time", 9, MANY, seconds, NULL);
	measure("anonymous", 5, TOUCHED / PAGE, touch_anonymous, NULL);
	touch_file(&fd);
	measure("file", 5, CACHED / PAGE, touch_file, &fd);
	measure("fork", 25, 1, fork_and_wait, NULL);
	measure("spawn", 15, 1, spawn_and_wait, NULL);
	measure_pipes("pipe1", cpu);
	if (other != cpu)
		measure_pipes("pipe2", other);
	touched = mmap(NULL, TOUCHED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (touched == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < TOUCHED; i += PAGE)
		touched[i] = 1;
	measure("fork64", 9, 1, fork_and_wait, NULL);
}

int main(int argc, char **argv)
{
	int busy = argc > 1 && strcmp(argv[1], "--busy") == 0;
	int cpu = argc > 1 + busy ? atoi(argv[1 + busy]) : 0, other = argc > 2 + busy ? atoi(argv[2 + busy]) : cpu;

	if (argc == 2 && strcmp(argv[1], "--off") == 0) {
		reboot(RB_POWER_OFF);
		die("reboot");
	}
	if (argc == 3 && strcmp(argv[1], "--processes") == 0) {
		pin(0, atoi(argv[2]));
		measure("fork", 25, 1, fork_and_wait, NULL);
		measure("spawn", 15, 1, spawn_and_wait, NULL);
		return 0;
	}
	pin(0, cpu);
	if (busy) {
		pid_t pid = keep_busy(other);

		measure("call", 9, MANY, calls, NULL);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return 0;
	}
	measure_all(cpu, other);
	return 0;
}
