// SPDX-License-Identifier: GPL-2.0
/*
 * What runs in the machine, or natively, to be measured.  Every result is one line `KEY NANOSECONDS`, a median.
 *
 *   measure call CPU COUNT           getppid() on a CPU, and fstat(), which has a result
 *   measure work CPU MILLIONS        user time and wall time of so many million rounds of arithmetic
 *   measure miss CPU HOME WRITER PAGES ROUNDS
 *                                    loads and stores by CPU of pages at home on node HOME, last written by CPU
 *                                    WRITER; then stores to pages that it has read (upgrades)
 *   measure move FROM TO ROUNDS      from sched_setaffinity() of another process to its first system call on TO
 *   measure threads MILLIONS CPU...  wall time of so many million rounds of arithmetic by a thread on each CPU at once
 *   measure unmap CPU SIBLING ROUNDS
 *                                    munmap() of a page that was used, by a thread on CPU, while a sibling runs on SIBLING
 *   measure share CPU OTHER MS       two threads that write to one page: stores of each, and how often the
 *                                    page has changed hands
 *   measure phases                   does what its input says, one line at a time (see phases()), and answers
 *
 * Time inside is read from the time stamp counter, since a clock may need a system call; its rate is measured
 * against the clock over the whole run.  move compares counters of two nodes, so they must be on one host.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "common.h"

enum { PAGE = 4096, BIND = 2 /* MPOL_BIND */ };

static uint64_t first_ns, first_ticks;

static double to_ns(uint64_t ticks)
{
	return (double)ticks * (double)(now_ns() - first_ns) / (double)(__rdtsc() - first_ticks);
}

static void report(const char *key, uint64_t *ticks, size_t count)
{
	qsort(ticks, count, sizeof(*ticks), ascending);
	printf("%s %.0f\n", key, to_ns(ticks[count / 2]));
	fflush(stdout);
}

static uint64_t *new_times(size_t count)
{
	uint64_t *times = calloc(count, sizeof(*times));

	if (!times)
		die("memory");
	return times;
}

static void measure_call(int cpu, size_t count)
{
	uint64_t *times = new_times(count), start;
	struct stat result;

	pin(0, cpu);
	for (size_t i = 0; i < count; i++) {
		start = __rdtsc();
		syscall(SYS_getppid);
		times[i] = __rdtsc() - start;
	}
	report("call", times, count);
	for (size_t i = 0; i < count; i++) {
		start = __rdtsc();
		fstat(0, &result);
		times[i] = __rdtsc() - start;
	}
	report("result", times, count);
	free(times);
}

static uint64_t arithmetic(long millions)
{
	uint64_t x = 88172645463325252u;

	for (long i = 0; i < millions * 1000000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

static void measure_work(int cpu, long millions)
{
	struct rusage before, use;
	uint64_t start, wall, x;
	double user;

	pin(0, cpu);
	if (getrusage(RUSAGE_SELF, &before) < 0)
		die("getrusage");
	start = now_ns();
	x = arithmetic(millions);
	wall = now_ns() - start;
	if (!x || getrusage(RUSAGE_SELF, &use) < 0)
		die("getrusage");
	user = (double)(use.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1e9 +
	       (double)(use.ru_utime.tv_usec - before.ru_utime.tv_usec) * 1e3;
	printf("user %.0f\nwall %llu\n", user, (unsigned long long)wall);
}

struct area {
	volatile uint64_t *words;
	size_t pages;
};

static struct area make_area(size_t pages, int home)
{
	struct area area = { .pages = pages };
	unsigned long mask = 1ul << home;

	area.words = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (area.words == MAP_FAILED)
		die("mmap");
	if (home >= 0 && syscall(SYS_mbind, area.words, pages * PAGE, BIND, &mask, 64, 0) < 0 && errno != ENOSYS)
		die("mbind");
	return area;
}

static void store_all(struct area *area, uint64_t value)
{
	for (size_t page = 0; page < area->pages; page++)
		area->words[page * PAGE / 8 + page % 512] = value + page + 1;
}

static uint64_t load_all(struct area *area)
{
	uint64_t sum = 0;

	for (size_t page = 0; page < area->pages; page++)
		sum += area->words[page * PAGE / 8 + page % 512];
	return sum;
}

static uint64_t timed_load(struct area *area, size_t page, uint64_t wanted)
{
	uint64_t start = __rdtsc(), seen = area->words[page * PAGE / 8 + page % 512], end = __rdtsc();

	if (seen != wanted) {
		fprintf(stderr, "measure: page %zu holds a wrong value\n", page);
		exit(1);
	}
	return end - start;
}

static uint64_t timed_store(struct area *area, size_t page, uint64_t value)
{
	uint64_t start = __rdtsc();

	area->words[page * PAGE / 8 + page % 512] = value;
	_mm_mfence();
	return __rdtsc() - start;
}

/* All pages, but never one after its neighbour: a miss is to be measured, not what was fetched ahead of it. */
static size_t scattered(size_t i, size_t pages)
{
	return i * 97 % pages;
}

static void measure_miss(int cpu, int home, int writer, size_t pages, size_t rounds)
{
	struct area area = make_area(pages, home);
	uint64_t *reads = new_times(pages * rounds), *writes = new_times(pages * rounds);
	uint64_t *upgrades = new_times(pages * rounds);
	size_t n = 0;

	pin(0, cpu);
	store_all(&area, 0);		/* so that mappings are there, and only frames are missing */
	for (size_t round = 0; round < rounds; round++) {
		pin(0, writer);
		store_all(&area, round);
		pin(0, cpu);
		for (size_t i = 0, page; i < pages; i++) {
			page = scattered(i, pages);
			reads[n + i] = timed_load(&area, page, round + page + 1);
		}
		for (size_t i = 0; i < pages; i++)
			upgrades[n + i] = timed_store(&area, scattered(i, pages), 7);
		pin(0, writer);
		store_all(&area, round);
		pin(0, cpu);
		for (size_t i = 0; i < pages; i++)
			writes[n + i] = timed_store(&area, scattered(i, pages), 9);
		n += pages;
	}
	report("read", reads, n);
	report("upgrade", upgrades, n);
	report("write", writes, n);
}

struct traveller {
	_Atomic uint64_t arrived;	/* ticks at the first system call after a move */
	_Atomic int cpu;		/* where that was */
};

/* Makes system calls and notes when one of them is made on another CPU than the last. */
static void travel(struct traveller *traveller)
{
	unsigned cpu, last = ~0u;

	for (;;) {
		if (syscall(SYS_getcpu, &cpu, NULL, NULL) < 0)
			die("getcpu");
		if (cpu == last)
			continue;
		traveller->arrived = __rdtsc();
		traveller->cpu = (int)cpu;
		last = cpu;
	}
}

static uint64_t move_once(struct traveller *traveller, pid_t pid, int to)
{
	uint64_t sent = __rdtsc();

	pin(pid, to);
	while (traveller->cpu != to)
		usleep(1000);
	return traveller->arrived - sent;
}

static void measure_move(int from, int to, size_t rounds)
{
	struct traveller *traveller;
	uint64_t *times = new_times(rounds);
	pid_t pid;

	traveller = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (traveller == MAP_FAILED)
		die("mmap");
	traveller->cpu = -1;
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		have_started();
		travel(traveller);
	}
	pin(0, 0);
	for (size_t i = 0; i < rounds; i++) {
		move_once(traveller, pid, from);
		usleep(20000);
		times[i] = move_once(traveller, pid, to);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	report("move", times, rounds);
	free(times);
}

/* --- threads of one process --- */

struct worker {
	pthread_t thread;
	pthread_barrier_t *ready;
	int cpu;
	long millions;
};

static void *work_there(void *arg)
{
	struct worker *worker = arg;

	pin(0, worker->cpu);
	pthread_barrier_wait(worker->ready);
	if (!arithmetic(worker->millions))
		die("arithmetic");
	return NULL;
}

static void measure_threads(long millions, const long *cpus, unsigned count)
{
	struct worker workers[8];
	pthread_barrier_t ready;
	uint64_t start;

	pthread_barrier_init(&ready, NULL, count + 1);
	for (unsigned i = 0; i < count; i++) {
		workers[i] = (struct worker){ .ready = &ready, .cpu = (int)cpus[i], .millions = millions };
		if (pthread_create(&workers[i].thread, NULL, work_there, &workers[i]))
			die("pthread_create");
	}
	pthread_barrier_wait(&ready);
	start = now_ns();
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
	printf("threads %llu\n", (unsigned long long)(now_ns() - start));
	fflush(stdout);
}

/* A sibling that stays in user mode, in pages of its own so that only what is measured travels. */
struct sibling {
	pthread_t thread;
	int cpu;
	_Atomic int running, stop;
	_Atomic uint64_t *shared;	/* page to write to; NULL: none */
	unsigned self;
	uint64_t stores, turns;
} __attribute__((aligned(4096)));

/* Count stores to a word of one's own, and how often the other's word has changed in between. */
static void *stay(void *arg)
{
	struct sibling *s = arg;
	uint64_t seen = 0, other;

	pin(0, s->cpu);
	s->running = 1;
	while (!s->stop) {
		if (!s->shared)
			continue;
		s->shared[s->self * 64] = ++s->stores;
		other = s->shared[(1 - s->self) * 64];
		s->turns += other != seen;
		seen = other;
	}
	return NULL;
}

static void start_sibling(struct sibling *s)
{
	if (pthread_create(&s->thread, NULL, stay, s))
		die("pthread_create");
	while (!s->running)
		usleep(1000);
}

static void stop_sibling(struct sibling *s)
{
	s->stop = 1;
	pthread_join(s->thread, NULL);
}

static void measure_unmap(int cpu, int sibling_cpu, size_t rounds)
{
	static struct sibling sibling;
	uint64_t *times = new_times(rounds), start;
	volatile char *page;

	sibling.cpu = sibling_cpu;
	pin(0, cpu);
	start_sibling(&sibling);
	for (size_t i = 0; i < rounds; i++) {
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			die("mmap");
		*page = 1;
		start = __rdtsc();
		munmap((void *)page, PAGE);
		times[i] = __rdtsc() - start;
	}
	stop_sibling(&sibling);
	report("unmap", times, rounds);
	free(times);
}

static void measure_share(int cpu, int other_cpu, long ms)
{
	static _Atomic uint64_t page[PAGE / 8] __attribute__((aligned(PAGE)));
	static struct sibling both[2];

	for (unsigned i = 0; i < 2; i++) {
		both[i].cpu = i ? other_cpu : cpu;
		both[i].shared = page;
		both[i].self = i;
		start_sibling(&both[i]);
	}
	usleep((useconds_t)ms * 1000);
	stop_sibling(&both[0]);
	stop_sibling(&both[1]);
	printf("share %llu %llu %llu\n", (unsigned long long)both[0].stores, (unsigned long long)both[1].stores,
	       (unsigned long long)(both[0].turns + both[1].turns));
	fflush(stdout);
}

/*
 * Lines: area PAGES HOME, store CPU, load CPU, quit.  Only what a line says happens between its answer and the
 * next one's, so that counters read between them tell what it cost.
 */
static void phases(void)
{
	struct area area = { 0 };
	char line[128], what[16];
	uint64_t value = 0;

	while (fgets(line, sizeof(line), stdin)) {
		int a = 0, b = 0;

		if (sscanf(line, "%15s %d %d", what, &a, &b) < 1 || strcmp(what, "quit") == 0)
			return;
		if (strcmp(what, "area") == 0)
			area = make_area((size_t)a, b);
		else
			pin(0, a);
		if (strcmp(what, "store") == 0)
			store_all(&area, ++value);
		else if (strcmp(what, "load") == 0 && load_all(&area) == 1)
			die("load");
		printf("done %s\n", what);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	long number[9] = { 0 };

	for (int i = 2; i < argc && i < 11; i++)
		number[i - 2] = strtol(argv[i], NULL, 10);
	first_ns = now_ns();
	first_ticks = __rdtsc();
	if (argc == 4 && strcmp(argv[1], "call") == 0)
		measure_call((int)number[0], (size_t)number[1]);
	else if (argc == 4 && strcmp(argv[1], "work") == 0)
		measure_work((int)number[0], number[1]);
	else if (argc == 7 && strcmp(argv[1], "miss") == 0)
		measure_miss((int)number[0], (int)number[1], (int)number[2], (size_t)number[3], (size_t)number[4]);
	else if (argc == 5 && strcmp(argv[1], "move") == 0)
		measure_move((int)number[0], (int)number[1], (size_t)number[2]);
	else if (argc > 3 && argc < 12 && strcmp(argv[1], "threads") == 0)
		measure_threads(number[0], &number[1], (unsigned)argc - 3);
	else if (argc == 5 && strcmp(argv[1], "unmap") == 0)
		measure_unmap((int)number[0], (int)number[1], (size_t)number[2]);
	else if (argc == 5 && strcmp(argv[1], "share") == 0)
		measure_share((int)number[0], (int)number[1], number[2]);
	else if (argc == 2 && strcmp(argv[1], "phases") == 0)
		phases();
	else {
		fprintf(stderr, "usage: measure call|work|miss|move|threads|unmap|share|phases ARGUMENT...; see its source\n");
		return 2;
	}
	return 0;
}
