// SPDX-License-Identifier: GPL-2.0
/*
 * A stub process is used for one process after the other (node/stubs.c).  -n of them on each CPU leave a pattern in what
 * they can write of it, the reports of all its threads, and find none of those before.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <glob.h>

#include "../../node/stub.h"

#define PATTERN 0x1ef7a11a5e1f0e15ull

/* Words behind a report, below what the signal stack is used for: there our own registers stand after an interruption. */
enum { FIRST = sizeof(struct stub_report) / 8, LEFT = 1024 };

/* The service thread's and one for each CPU of this node. */
static unsigned count_reports(void)
{
	unsigned cpu, node, count;
	char pattern[64];
	glob_t found;

	CHECK(getcpu(&cpu, &node) == 0);
	snprintf(pattern, sizeof(pattern), "/sys/devices/system/node/node%u/cpu[0-9]*", node);
	CHECK(glob(pattern, 0, NULL, &found) == 0);
	count = found.gl_pathc + 1;
	globfree(&found);
	return count;
}

static void look_and_leave(unsigned reports)
{
	for (unsigned n = 0; n < reports; n++) {
		volatile uint64_t *word = (void *)(STUB_REPORTS + (uintptr_t)n * STUB_REPORT_SIZE);

		for (unsigned i = 0; i < FIRST + LEFT; i++)
			if (word[i] == PATTERN)
				guest_fail("word %u of report %u is what another process has left", i, n);
		for (unsigned i = 0; i < LEFT; i++)
			word[FIRST + i] = PATTERN;
		CHECK(word[FIRST] == PATTERN);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "leftover", 50);
	if (!guest_in_machine())
		return guest_ok();		/* no stub here */
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		unsigned reports;

		guest_move(0, cpu);
		reports = count_reports();
		for (long i = 0; i < guest.size; i++) {
			pid_t child = fork();
			int status;

			CHECK(child >= 0);
			if (!child)
				look_and_leave(reports);
			CHECK(waitpid(child, &status, 0) == child);
			if (status)
				guest_fail("child %ld: status 0x%x", i, status);
		}
	}
	return guest_ok();
}
