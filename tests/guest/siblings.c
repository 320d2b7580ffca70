// SPDX-License-Identifier: GPL-2.0
/*
 * -n children of one process, one after the other, which may get a stub process that still shows the last one's memory
 * (ssi/overlay/arch/um/ssi/mapped.c), and copies of pages at once (early.c).  Each looks at what its parent has changed since, at
 * what it may not access any more, and for what others have left, as does its own child; then it writes to all that it can, and
 * maps more.  And to some pages both write after the fork, or a system call for them, and each sees what it has written itself.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define LEFT		0x1ef7a1140000ull	/* where a child leaves something */
#define MARK		0x51b11465ull
#define PAGE		4096

enum { PAGES = 24, WORDS = PAGE / 8, TEXT_PAGES = 4 };

static volatile uint64_t *own, *shared, *text, *both;
static int file, through[2];
static sigjmp_buf fault;

static void on_fault(int signal)
{
	(void)signal;
	siglongjmp(fault, 1);
}

static bool can_read(const volatile uint64_t *word)
{
	if (sigsetjmp(fault, 1))
		return false;
	(void)*word;
	return true;
}

static bool can_write(volatile uint64_t *word)
{
	if (sigsetjmp(fault, 1))
		return false;
	*word = *word;
	return true;
}

/* What becomes of a page in that round. */
static int rights(long round, size_t page)
{
	static const int kinds[] = { PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };

	return kinds[(page / 3 + (size_t)round) % 4];
}

/* When its parent has written to it last, or it is as it was at first. */
static uint64_t content(long round, size_t page)
{
	for (; round > 0 && (page + (size_t)round) % 5; round--)
		;
	return (uint64_t)round << 32 | page;
}

static volatile uint64_t *page_of(volatile uint64_t *area, size_t page)
{
	return area + page * WORDS;
}

static void change(long round)
{
	CHECK(mprotect((void *)own, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
	for (size_t page = 0; page < PAGES; page++)
		*page_of(own, page) = content(round, page);
	for (size_t page = 0; page < PAGES; page++)
		CHECK(mprotect((void *)page_of(own, page), PAGE, rights(round, page)) == 0);
	/* the same pages with other rights, or others in their place */
	CHECK(mmap((void *)shared, PAGES * PAGE, round % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
		   round / 2 % 2 * PAGES * PAGE) == shared);
	if (round % 3 == 2)
		CHECK(munmap((void *)text, TEXT_PAGES * PAGE) == 0);
	else
		CHECK(mmap((void *)text, TEXT_PAGES * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) == text);
}

static void look(long round)
{
	for (size_t page = 0; page < PAGES; page++) {
		int prot = rights(round, page);
		uint64_t number = page + (size_t)(round / 2 % 2) * PAGES;

		CHECK_EQUAL(can_read(page_of(own, page)), prot != PROT_NONE);
		CHECK_EQUAL(can_write(page_of(own, page)), (prot & PROT_WRITE) != 0);
		if (prot != PROT_NONE)
			CHECK_EQUAL(*page_of(own, page), content(round, page));
		CHECK_EQUAL(*page_of(shared, page), MARK + number);
		CHECK_EQUAL(can_write(page_of(shared, page)), round % 2 == 0);
	}
	for (size_t page = 0; page < TEXT_PAGES; page++) {
		CHECK_EQUAL(can_read(page_of(text, page)), round % 3 != 2);
		CHECK(!can_write(page_of(text, page)));
	}
	CHECK(!can_read((const void *)LEFT));
}

static void leave(long round)
{
	volatile uint64_t *more = mmap((void *)LEFT, PAGE * TEXT_PAGES, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(more == (void *)LEFT);
	for (size_t page = 0; page < TEXT_PAGES; page++)
		*page_of(more, page) = (uint64_t)round;
	for (size_t page = 0; page < PAGES; page++)
		if (rights(round, page) & PROT_WRITE)
			*page_of(own, page) = ~0ull;
}

/* Every other page by a system call; not parent and child at once. */
static void fill(uint64_t word)
{
	for (size_t page = 0; page < PAGES; page++) {
		uint64_t value = word + page;

		if (page % 2)
			*page_of(both, page) = value;
		else
			CHECK(write(through[1], &value, sizeof(value)) == sizeof(value) &&
			      read(through[0], (void *)page_of(both, page), sizeof(value)) == sizeof(value));
	}
}

static void look_for(uint64_t word)
{
	for (size_t page = 0; page < PAGES; page++)
		CHECK_EQUAL(*page_of(both, page), word + page);
}

/* What the writers write, each: before the fork, after it, and the child. */
static uint64_t word_of(long round, unsigned writer)
{
	return (uint64_t)round << 32 | writer << 16;
}

static void child(long round, int told)
{
	pid_t pid;
	char byte;

	CHECK(read(told, &byte, 1) == 1);
	look_for(word_of(round, 1));
	fill(word_of(round, 3));
	look(round);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		look(round);
		leave(round);
		_exit(0);
	}
	guest_reap(pid);
	look(round);
	leave(round);
	look_for(word_of(round, 3));
	_exit(0);
}

static volatile uint64_t *map_pages(size_t pages, int fd)
{
	void *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_fault };
	int tell[2];

	guest_start(argc, argv, "siblings", 40);
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	file = memfd_create("siblings", 0);
	CHECK(file >= 0 && ftruncate(file, 2 * PAGES * PAGE) == 0);
	own = map_pages(PAGES, -1);
	both = map_pages(PAGES, -1);
	text = map_pages(TEXT_PAGES, -1);
	shared = map_pages(2 * PAGES, file);
	for (size_t page = 0; page < 2 * PAGES; page++)
		*page_of(shared, page) = MARK + page;
	CHECK(pipe(tell) == 0 && pipe(through) == 0);
	for (long round = 0; round < guest.size; round++) {
		pid_t pid;

		change(round);
		fill(word_of(round, 1));
		pid = guest_fork((int)round);
		if (!pid)
			child(round, tell[0]);
		fill(word_of(round, 2));
		CHECK(write(tell[1], "", 1) == 1);
		guest_reap(pid);
		look_for(word_of(round, 2));
		CHECK(!can_read((const void *)LEFT));
	}
	return guest_ok();
}
