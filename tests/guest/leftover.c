// SPDX-License-Identifier: GPL-2.0
/*
 * A stub process is used for one process after the other (node/stubs.c).  -n of them on each CPU leave a pattern in what
 * they can write of it, the report of the node's first CPU, and find none of those before.
 */
#define _GNU_SOURCE
#include "guest.h"

#include "../../node/stub.h"

#define PATTERN 0x1ef7a11a5e1f0e15ull

/* Below what the signal stack is used for. */
enum { LEFT = 1024 };

static bool in_machine(void)
{
	char line[256];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "r");

	CHECK(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, "User Mode Linux");
	fclose(f);
	return found;
}

static void look_and_leave(void)
{
	volatile uint64_t *word = (void *)(STUB_REPORTS + STUB_REPORT_SIZE);

	for (unsigned i = 0; i < STUB_REPORT_SIZE / 8; i++)
		if (word[i] == PATTERN)
			guest_fail("word %u of the report is what another process has left", i);
	for (unsigned i = 0; i < LEFT; i++)
		word[sizeof(struct stub_report) / 8 + i] = PATTERN;
	CHECK(word[sizeof(struct stub_report) / 8] == PATTERN);
	_exit(0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "leftover", 50);
	if (!in_machine())
		return guest_ok();		/* no stub here */
	for (int cpu = 0; cpu < guest.cpu_count; cpu++) {
		guest_move(0, cpu);
		for (long i = 0; i < guest.size; i++) {
			pid_t child = fork();
			int status;

			CHECK(child >= 0);
			if (!child)
				look_and_leave();
			CHECK(waitpid(child, &status, 0) == child);
			if (status)
				guest_fail("child %ld: status 0x%x", i, status);
		}
	}
	return guest_ok();
}
