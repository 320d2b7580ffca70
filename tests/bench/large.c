// SPDX-License-Identifier: GPL-2.0
/*
 * What takes much memory.  Each result is a line `KEY NANOSECONDS`.
 *
 *   large stream CPU HOME MIB      `fill`: store to all pages of so many MiB, at home on node HOME, by a CPU of the same number;
 *                                  `stream`: read them, one word after the other, on CPU
 *   large store CPU HOME MIB       likewise, but store to it: `store`, and, after it has been read on HOME, once more: `upgrade`
 *   large hop FROM TO MIB ROUNDS   from sched_setaffinity() of a process of so many MiB, which only computes, to its first
 *                                  instruction on TO: a median
 *   large random CPU MIB           a page, all of which are stored to in random order
 *   large touch MIB                nothing: a host that is a virtual machine has so much memory then, as what it does not use
 *                                  for seconds may be taken from it, and costs more to get back than all that is measured
 *
 * hop compares time stamp counters of two nodes, so they must be on one host.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "common.h"

enum { PAGE = 4096, BIND = 2 /* MPOL_BIND */ };

static volatile uint64_t *map_mib(long mib, int home)
{
	size_t size = (size_t)mib << 20;
	unsigned long mask = 1ul << home;
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		die("mmap");
	if (home >= 0 && syscall(SYS_mbind, map, size, BIND, &mask, 64, 0) < 0 && errno != ENOSYS)
		die("mbind");
	return map;
}

static void store_pages(volatile uint64_t *words, long mib)
{
	for (size_t i = 0; i < (size_t)mib << 17; i += PAGE / 8)
		words[i] = i;
}

static void store_words(volatile uint64_t *words, long mib)
{
	for (size_t i = 0; i < (size_t)mib << 17; i++)
		words[i] = i;
}

/* Of the first word of each page, which tells its number, and the others. */
static uint64_t load_words(volatile uint64_t *words, long mib)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < (size_t)mib << 17; i++)
		sum += words[i];
	return sum;
}

static void check_sum(uint64_t sum, long mib, size_t step)
{
	for (size_t i = 0; i < (size_t)mib << 17; i += step)
		sum -= i;
	if (sum) {
		fprintf(stderr, "large: what was read is not what was written\n");
		exit(1);
	}
}

static void measure_stream(int cpu, int home, long mib)
{
	volatile uint64_t *words = map_mib(mib, home);
	uint64_t start, sum;

	pin(0, home);
	start = now_ns();
	store_pages(words, mib);
	printf("fill %llu\n", (unsigned long long)(now_ns() - start));
	pin(0, cpu);
	start = now_ns();
	sum = load_words(words, mib);
	printf("stream %llu\n", (unsigned long long)(now_ns() - start));
	check_sum(sum, mib, PAGE / 8);
}

static void measure_store(int cpu, int home, long mib)
{
	static const char *const what[] = { "store", "upgrade" };
	volatile uint64_t *words = map_mib(mib, home);
	uint64_t start;

	pin(0, home);
	store_pages(words, mib);
	for (int i = 0; i < 2; i++) {
		pin(0, cpu);
		start = now_ns();
		store_words(words, mib);
		printf("%s %llu\n", what[i], (unsigned long long)(now_ns() - start));
		pin(0, home);
		check_sum(load_words(words, mib), mib, 1);
	}
}

/* --- a process that moves --- */

enum { GAPS_MAX = 200, GAP_NS = 20000, COMPUTE_NS = 40000000, HOP_TRIES = 3 };

/* Times without an instruction, in ticks, and the host's CPU (TSC_AUX) at first and behind them. */
struct hopper {
	unsigned count, cpu;
	struct { uint64_t start, end; unsigned cpu; } gap[GAPS_MAX];
};

static void compute(struct hopper *h, double rate)
{
	uint64_t start = __rdtscp(&h->cpu), last = start, now;
	unsigned cpu, before = h->cpu;

	while ((now = __rdtscp(&cpu)) < start + (uint64_t)(COMPUTE_NS * rate)) {
		if ((cpu != before || now - last > (uint64_t)(GAP_NS * rate)) && h->count < GAPS_MAX) {
			h->gap[h->count].start = last;
			h->gap[h->count].cpu = cpu;
			h->gap[h->count++].end = now;
		}
		last = now;
		before = cpu;
	}
}

/*
 * When the process went on, after that: on another CPU of the host, or, if both nodes have the same one, after the longest
 * gap, which can as well be one that the host has made later.  0: never.
 */
static uint64_t went_on(const struct hopper *h, uint64_t after)
{
	uint64_t longest = 0, end = 0;
	unsigned cpu = h->cpu;

	for (unsigned i = 0; i < h->count; cpu = h->gap[i++].cpu) {
		uint64_t gap = h->gap[i].end - h->gap[i].start;

		if (h->gap[i].end <= after)
			continue;
		if (h->gap[i].cpu != cpu)
			return h->gap[i].end;
		if (gap > longest) {
			longest = gap;
			end = h->gap[i].end;
		}
	}
	return end;
}

static double ticks_per_ns(void)
{
	uint64_t ns = now_ns(), ticks = __rdtsc();

	usleep(50000);
	return (double)(__rdtsc() - ticks) / (double)(now_ns() - ns);
}

/*
 * The child computes for COMPUTE_NS; meanwhile it is moved.  Ticks from the call to its first instruction there; 0: the host was
 * so busy that the call came too late.
 */
static uint64_t hop_once(int from, int to, long mib, double rate)
{
	struct hopper *h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile uint64_t *words;
	uint64_t called, end;
	int ready[2];
	char byte = 0;
	pid_t pid;

	if (h == MAP_FAILED || pipe(ready) < 0)
		die("mmap");
	pid = fork();
	if (!pid) {
		static struct hopper own;

		pin(0, from);
		words = map_mib(mib, -1);
		store_pages(words, mib);
		if (write(ready[1], &byte, 1) != 1)
			die("pipe");
		compute(&own, rate);
		*h = own;
		_exit(words[PAGE / 8] != PAGE / 8);
	}
	if (pid < 0 || read(ready[0], &byte, 1) != 1)
		die("fork");
	usleep(15000);
	called = __rdtsc();
	pin(pid, to);
	waitpid(pid, NULL, 0);
	end = went_on(h, called);
	munmap(h, sizeof(*h));
	close(ready[0]);
	close(ready[1]);
	return end ? end - called : 0;
}

static uint64_t hop_in_time(int from, int to, long mib, double rate)
{
	uint64_t ticks = 0;

	for (unsigned tries = 0; !ticks && tries < HOP_TRIES; tries++)
		ticks = hop_once(from, to, mib, rate);
	if (!ticks) {
		fprintf(stderr, "large: the process has not moved\n");
		exit(1);
	}
	return (uint64_t)((double)ticks / rate);
}

static void measure_hop(int from, int to, long mib, size_t rounds)
{
	double rate = ticks_per_ns();
	uint64_t times[64];

	pin(0, 0);
	for (size_t i = 0; i < rounds && i < 64; i++)
		times[i] = hop_in_time(from, to, mib, rate);
	qsort(times, rounds, sizeof(times[0]), ascending);
	printf("hop %llu\n", (unsigned long long)times[rounds / 2]);
}

/* --- random order --- */

static void measure_random(int cpu, long mib)
{
	volatile uint64_t *words = map_mib(mib, -1);
	size_t pages = (size_t)mib << 8, power = 1, x = 1, page;
	uint64_t start;

	while (power < pages)
		power *= 2;
	pin(0, cpu);
	start = now_ns();
	for (size_t i = 0; i < power; i++) {
		x = (x * 5 + 12345) & (power - 1);		/* each number once (Hull and Dobell 1962), */
		page = x * 0x9e3779b97f4a7c15u & (power - 1);	/* and far from the one before */
		if (page < pages)
			words[page * PAGE / 8] = page;
	}
	printf("random %llu\n", (unsigned long long)((now_ns() - start) / pages));
	for (page = 0; page < pages; page++)
		if (words[page * PAGE / 8] != page) {
			fprintf(stderr, "large: page %zu does not hold what was written\n", page);
			exit(1);
		}
}

int main(int argc, char **argv)
{
	long number[4] = { 0 };

	for (int i = 2; i < argc && i < 6; i++)
		number[i - 2] = strtol(argv[i], NULL, 10);
	if (argc == 5 && !strcmp(argv[1], "stream"))
		measure_stream((int)number[0], (int)number[1], number[2]);
	else if (argc == 5 && !strcmp(argv[1], "store"))
		measure_store((int)number[0], (int)number[1], number[2]);
	else if (argc == 6 && !strcmp(argv[1], "hop") && number[3] > 0 && number[3] <= 64)
		measure_hop((int)number[0], (int)number[1], number[2], (size_t)number[3]);
	else if (argc == 3 && !strcmp(argv[1], "touch") && number[0] > 0)
		store_pages(map_mib(number[0], -1), number[0]);
	else if (argc == 4 && !strcmp(argv[1], "random") && number[1] > 0)
		measure_random((int)number[0], number[1]);
	else {
		fprintf(stderr, "usage: large stream|store|hop|random|touch ARGUMENT...; see its source\n");
		return 2;
	}
	return 0;
}
