// SPDX-License-Identifier: GPL-2.0
/*
 * Copy-on-write after fork over -n MiB, parent and children on different CPUs, all writing at the same
 * time: everybody keeps seeing his own bytes.  Then chains of forks, and fork while the parent's memory
 * is elsewhere.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <sys/mman.h>

enum { PAGE_WORDS = 512, CHILDREN = 3, GENERATIONS = 6 };

static uint64_t *memory;
static size_t pages;

static void fill(uint64_t seed)
{
	for (size_t page = 0; page < pages; page++)
		for (size_t i = 0; i < PAGE_WORDS; i += 73)
			memory[page * PAGE_WORDS + i] = guest_noise(seed, page * PAGE_WORDS + i);
}

static void expect(uint64_t seed, size_t from, size_t step)
{
	for (size_t page = from; page < pages; page += step)
		for (size_t i = 0; i < PAGE_WORDS; i += 73)
			if (memory[page * PAGE_WORDS + i] != guest_noise(seed, page * PAGE_WORDS + i))
				guest_fail("page %zu word %zu is not of generation %llu", page, i,
					   (unsigned long long)seed);
}

static void child(uint64_t seed, int self)
{
	expect(seed, (size_t)self, CHILDREN);
	fill(seed + 1000 + (uint64_t)self);
	expect(seed + 1000 + (uint64_t)self, 0, 1);
}

static void check_siblings(uint64_t seed)
{
	pid_t pids[CHILDREN];

	fill(seed);
	for (int i = 0; i < CHILDREN; i++) {
		pids[i] = guest_fork(i + 1);
		if (!pids[i]) {
			child(seed, i);
			_exit(0);
		}
	}
	fill(seed + 1);
	expect(seed + 1, 0, 1);
	for (int i = 0; i < CHILDREN; i++)
		guest_reap(pids[i]);
	expect(seed + 1, 0, 1);
}

/* Each generation changes one page in five and leaves the rest shared with its ancestors. */
static void generation(int depth)
{
	pid_t pid;

	if (depth == GENERATIONS)
		return;
	pid = guest_fork(depth + 1);
	if (!pid) {
		for (size_t page = (size_t)depth; page < pages; page += GENERATIONS)
			memory[page * PAGE_WORDS] = (uint64_t)depth + 50;
		generation(depth + 1);
		for (size_t page = 0; page < pages; page++) {
			size_t owner = page % GENERATIONS;
			uint64_t wanted = owner <= (size_t)depth ? owner + 50 : 7;

			CHECK_EQUAL(memory[page * PAGE_WORDS], wanted);
		}
		_exit(0);
	}
	guest_reap(pid);
}

static void check_generations(void)
{
	for (size_t page = 0; page < pages; page++)
		memory[page * PAGE_WORDS] = 7;
	generation(0);
	for (size_t page = 0; page < pages; page++)
		CHECK_EQUAL(memory[page * PAGE_WORDS], 7);
}

/* system calls copy to pages that are shared with a child: the child keeps the old bytes. */
static void check_kernel_writes(void)
{
	int go[2], zero;
	char byte;
	pid_t pid;

	CHECK(pipe(go) == 0);
	fill(5);
	pid = guest_fork(1);
	if (!pid) {
		CHECK(read(go[0], &byte, 1) == 1);
		expect(5, 0, 1);
		_exit(0);
	}
	zero = memfd_create("zero", 0);
	CHECK(zero >= 0 && ftruncate(zero, (off_t)pages * 4096) == 0);
	CHECK_EQUAL(read(zero, memory, pages * 4096), pages * 4096);
	for (size_t i = 0; i < pages * PAGE_WORDS; i++)
		CHECK_EQUAL(memory[i], 0);
	CHECK(write(go[1], "", 1) == 1);
	guest_reap(pid);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "cow", 16);
	guest_move(0, 0);
	pages = (size_t)guest.size * 256;
	memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	check_siblings(10);
	guest_move(0, 1);
	check_siblings(20);
	guest_move(0, 2);
	check_generations();
	check_kernel_writes();
	return guest_ok();
}
