// SPDX-License-Identifier: GPL-2.0
/*
 * What mmap, munmap, mprotect, mremap and madvise leave in memory, for -n MiB at a time, while the
 * process moves from CPU to CPU: contents kept where they must be, zero where they must be, and no access
 * where there is none.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf jump;
static size_t length, pages;
static int step;

static void leave(int number)
{
	siglongjmp(jump, number);
}

static int load(volatile char *at)
{
	int number = sigsetjmp(jump, 1);

	return number ? number : (*at, 0);
}

static int store(volatile char *at)
{
	int number = sigsetjmp(jump, 1);

	return number ? number : (*at = 1, 0);
}

static uint64_t *map(size_t bytes)
{
	uint64_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void move_on(void)
{
	guest_move(0, step++);
}

static void fill(uint64_t *at, uint64_t seed)
{
	for (size_t page = 0; page < pages; page++)
		for (size_t i = page % 8; i < 512; i += 61)
			at[page * 512 + i] = guest_noise(seed, page * 512 + i);
}

static void expect_page(const uint64_t *at, size_t page, size_t original, uint64_t seed)
{
	for (size_t i = original % 8; i < 512; i += 61)
		if (at[page * 512 + i] != guest_noise(seed, original * 512 + i))
			guest_fail("page %zu (at first %zu) lost its contents in step %d", page, original,
				   step);
}

static void expect_zero(const uint64_t *at, size_t page)
{
	for (size_t i = 0; i < 512; i++)
		if (at[page * 512 + i])
			guest_fail("page %zu should be zero in step %d", page, step);
}

static void check_protect(void)
{
	uint64_t *at = map(length);

	fill(at, 1);
	move_on();
	CHECK(mprotect(at, length, PROT_READ) == 0);
	for (size_t page = 0; page < pages; page += 7) {
		expect_page(at, page, page, 1);
		CHECK_EQUAL(store((char *)at + page * 4096), SIGSEGV);
	}
	move_on();
	CHECK(mprotect(at, length, PROT_NONE) == 0);
	for (size_t page = 0; page < pages; page += 7)
		CHECK_EQUAL(load((char *)at + page * 4096), SIGSEGV);
	move_on();
	/* Every second page again: as many mappings as there are pages. */
	for (size_t page = 0; page < 600 && page < pages; page += 2)
		CHECK(mprotect(at + page * 512, 4096, PROT_READ | PROT_WRITE) == 0);
	for (size_t page = 0; page < 600 && page < pages; page++) {
		if (page % 2)
			CHECK_EQUAL(load((char *)at + page * 4096), SIGSEGV);
		else
			expect_page(at, page, page, 1);
	}
	CHECK(munmap(at, length) == 0);
	CHECK_EQUAL(load((char *)at), SIGSEGV);
}

static void check_remap(void)
{
	uint64_t *at = map(length), *bigger, *aside;

	fill(at, 2);
	move_on();
	bigger = mremap(at, length, length * 2, MREMAP_MAYMOVE);
	CHECK(bigger != MAP_FAILED);
	for (size_t page = 0; page < pages; page++)
		expect_page(bigger, page, page, 2);
	for (size_t page = pages; page < 2 * pages; page += 11)
		expect_zero(bigger, page);
	move_on();
	/* The upper half of what was filled moves over the empty part. */
	aside = mremap(bigger + pages / 2 * 512, length / 2, length / 2, MREMAP_MAYMOVE | MREMAP_FIXED,
		       bigger + pages * 512);
	CHECK(aside == bigger + pages * 512);
	for (size_t page = pages / 2; page < pages; page++)
		expect_page(aside, page - pages / 2, page, 2);
	CHECK_EQUAL(load((char *)(bigger + pages / 2 * 512)), SIGSEGV);
	move_on();
	CHECK(mremap(bigger, length / 2, 4096, 0) == bigger);
	expect_page(bigger, 0, 0, 2);
	CHECK_EQUAL(load((char *)bigger + 4096), SIGSEGV);
	CHECK(munmap(bigger, length * 2) == 0);
}

static void check_advise(void)
{
	uint64_t *at = map(length);

	fill(at, 3);
	move_on();
	CHECK(madvise(at + pages / 4 * 512, length / 2, MADV_DONTNEED) == 0);
	move_on();
	for (size_t page = 0; page < pages; page++) {
		if (page >= pages / 4 && page < pages / 4 + pages / 2)
			expect_zero(at, page);
		else
			expect_page(at, page, page, 3);
	}
	fill(at, 4);
	CHECK(madvise(at, length, MADV_FREE) == 0);
	fill(at, 5);
	move_on();
	for (size_t page = 0; page < pages; page++)
		expect_page(at, page, page, 5);
	CHECK(munmap(at, length) == 0);
}

/* Memory that comes back from the kernel is zero, whoever wrote it before and wherever. */
static void check_reuse(void)
{
	for (int round = 0; round < 8; round++) {
		uint64_t *at = map(length);

		move_on();
		for (size_t page = 0; page < pages; page += 3)
			expect_zero(at, page);
		memset(at, 0xee, length);
		move_on();
		CHECK(munmap(at, length) == 0);
	}
}

/* A hole in the middle, filled again from a file. */
static void check_fixed(void)
{
	uint64_t *at = map(length);
	int fd = memfd_create("file", 0);
	size_t middle = pages / 2;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	fill(at, 6);
	CHECK_EQUAL(pwrite(fd, at, length, 0), length);
	fill(at, 7);
	move_on();
	CHECK(mmap(at + middle * 512, 4096 * 16, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)middle * 4096)
	      == at + middle * 512);
	for (size_t page = 0; page < pages; page++)
		expect_page(at, page, page, page >= middle && page < middle + 16 ? 6 : 7);
	CHECK_EQUAL(store((char *)(at + middle * 512)), SIGSEGV);
	CHECK(munmap(at, length) == 0 && close(fd) == 0);
}

static void check_lock_and_core(void)
{
	unsigned char resident[64];
	uint64_t *at = map(sizeof(resident) * 4096);

	move_on();
	at[0] = at[63 * 512] = 1;
	CHECK(mincore(at, sizeof(resident) * 4096, resident) == 0);
	CHECK((resident[0] & 1) && (resident[63] & 1) && !(resident[30] & 1));
	if (mlock(at, 16 * 4096) == 0) {
		CHECK(mincore(at, sizeof(resident) * 4096, resident) == 0);
		CHECK(resident[15] & 1);
		CHECK(munlock(at, 16 * 4096) == 0);
	}
	CHECK(munmap(at, sizeof(resident) * 4096) == 0);
}

static void check_brk(void)
{
	char *old = sbrk(0);

	CHECK(sbrk((intptr_t)length) == old);
	move_on();
	for (size_t at = 0; at < length; at += 4096)
		CHECK_EQUAL(old[at], 0);
	memset(old, 1, length);
	CHECK(sbrk(-(intptr_t)length) != (void *)-1);
	move_on();
	CHECK_EQUAL(load(old + length - 1), SIGSEGV);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "memory-map", 32);
	length = (size_t)guest.size << 20;
	pages = length / 4096;
	CHECK(signal(SIGSEGV, leave) != SIG_ERR && signal(SIGBUS, leave) != SIG_ERR);
	check_protect();
	check_remap();
	check_advise();
	check_reuse();
	check_fixed();
	check_lock_and_core();
	check_brk();
	return guest_ok();
}
