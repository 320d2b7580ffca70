// SPDX-License-Identifier: GPL-2.0
/*
 * A stub process is used for one process after the other (node/stubs.c).  -n of them on each CPU leave a pattern in what
 * they can write of it, the reports of all its threads, and find none of those before.  Of threads that do not run they
 * write over everything, their stacks included; every other process goes to all CPUs of the node first, so that these
 * threads run again.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <sys/mman.h>

#include "../../node/stub.h"

#define PATTERN 0x1ef7a11a5e1f0e15ull
#define ADDRESS 0x1ef7a1140000ull
#define AREA (64 * 4096)

/* Of a report in use: behind its head, and below what the signal stack is used for, with our own registers. */
enum { HEAD = sizeof(struct stub_report), USED = 8192 };

/* A word from pattern on, of so many. */
static void look(const char *what, uintptr_t at, size_t bytes, uint64_t pattern, uint64_t many)
{
	for (const volatile uint64_t *word = (void *)at; (uintptr_t)word < at + bytes; word++)
		if (*word - pattern < many)
			guest_fail("%s: what another process has left at %p", what, (const void *)word);
}

static void leave(uintptr_t at, size_t bytes)
{
	for (volatile uint64_t *word = (void *)at; (uintptr_t)word < at + bytes; word++)
		*word = PATTERN;
}

static void look_and_leave(unsigned report, bool used)
{
	uintptr_t at = STUB_REPORTS + (uintptr_t)report * STUB_REPORT_SIZE;

	look("report", at, used ? USED : STUB_REPORT_SIZE, PATTERN, 1);
	if (used)
		leave(at + HEAD, USED - HEAD);
	else
		leave(at, STUB_REPORT_SIZE);
}

/* So many orders for the stub, one for each page, that the next process has fewer at first. */
static void map_and_unmap(void)
{
	volatile char *area = mmap((void *)ADDRESS, AREA, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0);

	CHECK(area == (void *)ADDRESS);
	for (size_t i = 0; i < AREA; i += 8192)
		CHECK(mprotect((void *)(area + i), 4096, PROT_READ) == 0);
	(void)*area;
	CHECK(munmap((void *)area, AREA) == 0);
}

static void child(const struct guest_node *node, int index, bool everywhere)
{
	unsigned own = guest_cpu(index) - node->first + 1;

	for (int i = 0; everywhere && i < guest.cpu_count; i++)
		if (guest_cpu(i) - node->first < node->count)
			guest_move(0, i);
	guest_move(0, index);
	look("orders", STUB_ORDERS, (node->count + 1) * sizeof(struct stub_orders), ADDRESS, AREA);
	map_and_unmap();
	for (unsigned report = 0; report <= node->count; report++)
		look_and_leave(report, report == own || !report);
	_exit(0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "leftover", 50);
	if (!guest_in_machine())
		return guest_ok();		/* no stub here */
	for (int index = 0; index < guest.cpu_count; index++) {
		struct guest_node node;

		guest_move(0, index);
		node = guest_node();
		for (long i = 0; i < guest.size; i++) {
			pid_t pid = fork();
			int status;

			CHECK(pid >= 0);
			if (!pid)
				child(&node, index, i % 2);
			CHECK(waitpid(pid, &status, 0) == pid);
			if (status)
				guest_fail("child %ld: status 0x%x", i, status);
		}
	}
	return guest_ok();
}
