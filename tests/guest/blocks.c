// SPDX-License-Identifier: GPL-2.0
/*
 * Anonymous memory that a program stores to here and there: what it did not store to reads as zero, keeps what siblings
 * and children write to it, and is not many times as much as the program used.  -n: MiB that it has before.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096, AREA = 8 << 20, STEP = 256 << 10, SMALL_BLOCK = 64 << 10 };

/* Next to no other memory: who goes from one to the next in order is given more. */
static volatile uint64_t *map(size_t size)
{
	uint8_t *area = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(area != MAP_FAILED && !mprotect(area += PAGE, size, PROT_READ | PROT_WRITE));
	madvise(area, size, MADV_NOHUGEPAGE);		/* natively */
	return (volatile uint64_t *)area;
}

/* Bytes of the area that are in memory. */
static size_t resident(volatile uint64_t *area)
{
	unsigned char pages[AREA / PAGE];
	size_t count = 0;

	CHECK(!mincore((void *)area, AREA, pages));
	for (size_t i = 0; i < AREA / PAGE; i++)
		count += pages[i] & 1;
	return count * PAGE;
}

static uint64_t value_of(size_t page)
{
	return page * 0x9e3779b97f4a7c15u | 1;
}

static void check_all(const volatile uint64_t *area, size_t step)
{
	for (size_t at = 0; at < AREA; at += PAGE)
		for (size_t word = 0; word < PAGE / 8; word += 73)
			CHECK_EQUAL(area[at / 8 + word], at % step || word ? 0 : value_of(at / PAGE));
}

static void store(volatile uint64_t *area, size_t step)
{
	for (size_t at = 0; at < AREA; at += step)
		area[at / 8] = value_of(at / PAGE);
}

static void check_sparse(bool random)
{
	volatile uint64_t *area = map(AREA);
	size_t large = (size_t)guest.size << 20 >> 7, block = random ? PAGE : large > SMALL_BLOCK ? large : SMALL_BLOCK, used;

	CHECK(!random || !madvise((void *)area, AREA, MADV_RANDOM));
	store(area, STEP);
	used = resident(area);
	CHECK(used >= AREA / STEP * PAGE);
	if (used > AREA / STEP * block)
		guest_fail("%zu pages are in memory where %d were used", used / PAGE, AREA / STEP);
	check_all(area, STEP);
	munmap((void *)area, AREA);
}

/* Each thread stores to pages of its own, next to those of others. */
struct part { volatile uint64_t *area; size_t first, step; int cpu; };

static void *store_part(void *arg)
{
	const struct part *p = arg;

	guest_move(0, p->cpu);
	for (size_t page = p->first; page < AREA / PAGE; page += p->step)
		p->area[page * PAGE / 8] = value_of(page);
	return NULL;
}

static void check_threads(void)
{
	int count = guest.cpu_count < 4 ? guest.cpu_count : 4;
	volatile uint64_t *area = map(AREA);
	pthread_t thread[4];
	struct part part[4];

	for (int i = 0; i < count; i++) {
		part[i] = (struct part){ area, i, count, i };
		CHECK(!pthread_create(&thread[i], NULL, store_part, &part[i]));
	}
	for (int i = 0; i < count; i++)
		pthread_join(thread[i], NULL);
	check_all(area, PAGE);
	munmap((void *)area, AREA);
}

static void check_child(void)
{
	volatile uint64_t *area = map(AREA);
	pid_t child;

	store(area, 2 * STEP);
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		check_all(area, 2 * STEP);
		store(area, STEP);
		check_all(area, STEP);
		_exit(0);
	}
	guest_reap(child);
	check_all(area, 2 * STEP);
	munmap((void *)area, AREA);
}

int main(int argc, char **argv)
{
	volatile uint64_t *before;
	size_t words;

	guest_start(argc, argv, "blocks", 4);
	words = (size_t)guest.size << 17;
	before = map(words * 8);
	for (size_t i = 0; i < words; i += PAGE / 8)
		before[i] = i;
	check_sparse(false);
	check_sparse(true);
	check_threads();
	check_child();
	for (size_t i = 0; i < words; i += PAGE / 8)
		CHECK_EQUAL(before[i], i);
	return guest_ok();
}
