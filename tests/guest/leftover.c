// SPDX-License-Identifier: GPL-2.0
/*
 * A stub process is used for one process after the other (node/stubs.c).  -n of them on each CPU leave a pattern in what
 * they can write of it, the reports of all its threads, and find none of those before.  Of threads that do not run they
 * write over everything, their stacks included; every other process goes to all CPUs of the node first, so that these
 * threads run again.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <glob.h>
#include <stdbool.h>

#include "../../node/stub.h"

#define PATTERN 0x1ef7a11a5e1f0e15ull

/* Words behind a report, below what the signal stack is used for: there our own registers stand after an interruption. */
enum { FIRST = sizeof(struct stub_report) / 8, LEFT = 1024, ALL = STUB_REPORT_SIZE / 8 - FIRST };

/* The CPUs of the node where we run: the threads of a stub are the service's and one for each of these. */
struct cpus { unsigned first, count; };

static struct cpus cpus_of_node(void)
{
	struct cpus c = { .first = ~0u };
	unsigned cpu, node;
	char pattern[64];
	glob_t found;

	CHECK(getcpu(&cpu, &node) == 0);
	snprintf(pattern, sizeof(pattern), "/sys/devices/system/node/node%u/cpu[0-9]*", node);
	CHECK(glob(pattern, 0, NULL, &found) == 0);
	c.count = found.gl_pathc;
	for (unsigned i = 0; i < c.count; i++) {
		CHECK(sscanf(strrchr(found.gl_pathv[i], '/'), "/cpu%u", &cpu) == 1);
		if (cpu < c.first)
			c.first = cpu;
	}
	globfree(&found);
	return c;
}

static void look_and_leave(unsigned report, unsigned words)
{
	volatile uint64_t *word = (void *)(STUB_REPORTS + (uintptr_t)report * STUB_REPORT_SIZE);

	for (unsigned i = 0; i < FIRST + words; i++)
		if (word[i] == PATTERN)
			guest_fail("word %u of report %u is what another process has left", i, report);
	for (unsigned i = 0; i < words; i++)
		word[FIRST + i] = PATTERN;
	CHECK(word[FIRST] == PATTERN);
}

static void child(const struct cpus *c, int index, bool everywhere)
{
	unsigned own = guest_cpu(index) - c->first + 1;

	for (int i = 0; everywhere && i < guest.cpu_count; i++)
		if (guest_cpu(i) - c->first < c->count)
			guest_move(0, i);
	guest_move(0, index);
	for (unsigned report = 0; report <= c->count; report++) {
		bool runs = report == own;

		look_and_leave(report, runs || !report ? LEFT : ALL);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "leftover", 50);
	if (!guest_in_machine())
		return guest_ok();		/* no stub here */
	for (int index = 0; index < guest.cpu_count; index++) {
		struct cpus c;

		guest_move(0, index);
		c = cpus_of_node();
		for (long i = 0; i < guest.size; i++) {
			pid_t pid = fork();
			int status;

			CHECK(pid >= 0);
			if (!pid)
				child(&c, index, i % 2);
			CHECK(waitpid(pid, &status, 0) == pid);
			if (status)
				guest_fail("child %ld: status 0x%x", i, status);
		}
	}
	return guest_ok();
}
