// SPDX-License-Identifier: GPL-2.0
/*
 * A process of -n MiB is moved 100 times round all CPUs while it verifies its memory.
 * Every word is checked in the course of the run, and on every stop a part is checked and written anew.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <sys/mman.h>

enum { MOVES = 100, PAGE_WORDS = 512 };

static uint64_t *memory;
static size_t words;

static uint64_t word(size_t i, uint32_t generation)
{
	return guest_noise(generation, i);
}

static void fill(void)
{
	for (size_t i = 0; i < words; i++)
		memory[i] = word(i, 0);
}

/* Part `part` of MOVES holds what its last visit left there. */
static void visit(size_t part, uint32_t seen, uint32_t left)
{
	size_t start = words / MOVES * part, end = part + 1 == MOVES ? words : words / MOVES * (part + 1);

	for (size_t i = start; i < end; i++) {
		if (memory[i] != word(i, seen))
			guest_fail("word %zu is 0x%llx, not 0x%llx, on CPU %d after %u moves", i,
				   (unsigned long long)memory[i], (unsigned long long)word(i, seen),
				   sched_getcpu(), left);
		memory[i] = word(i, left);
	}
}

/* One word of every few pages, all over: far more frames move than fit in any one visit. */
static void sample(const uint32_t *generations, size_t move)
{
	for (size_t page = move % 64; page < words / PAGE_WORDS; page += 64) {
		size_t i = page * PAGE_WORDS + (page * 7 + move) % PAGE_WORDS;
		size_t part = i / (words / MOVES);

		if (part >= MOVES)
			part = MOVES - 1;
		if (memory[i] != word(i, generations[part]))
			guest_fail("sampled word %zu is wrong on CPU %d after %zu moves", i,
				   sched_getcpu(), move);
	}
}

int main(int argc, char **argv)
{
	uint32_t generations[MOVES] = { 0 };

	guest_start(argc, argv, "move", 512);
	words = (size_t)guest.size << 17;
	memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	guest_move(0, 0);
	fill();
	for (uint32_t move = 1; move <= MOVES; move++) {
		size_t part = move * 37 % MOVES;

		guest_move(0, (int)move);
		visit(part, generations[part], move);
		generations[part] = move;
		sample(generations, move);
	}
	for (size_t part = 0; part < MOVES; part++)
		visit(part, generations[part], MOVES + 1);
	return guest_ok();
}
