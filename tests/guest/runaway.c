// SPDX-License-Identifier: GPL-2.0
/*
 * Loops that make no system call, on each CPU: preempted in favour of others, stopped and continued,
 * moved while they run, reniced, limited in CPU time, and killed.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>

static _Atomic uint64_t *progress;	/* one a process, shared */

static pid_t start_loop(int index, int slot)
{
	pid_t pid = guest_fork(index);

	if (pid)
		return pid;
	CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	for (;;)
		progress[slot * 512]++;
}

static void wait_for_progress(int slot)
{
	uint64_t before = progress[slot * 512], start = guest_now_ns(CLOCK_MONOTONIC);

	while (progress[slot * 512] <= before + 100) {
		if (guest_now_ns(CLOCK_MONOTONIC) - start > 60000000000u)
			guest_fail("loop %d does not run", slot);
		guest_sleep_ms(1);
	}
}

static void kill_loop(pid_t pid, int number)
{
	int status;

	CHECK(kill(pid, number) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQUAL(WTERMSIG(status), number);
}

static void check_stop(int index)
{
	pid_t pid = start_loop(index, 0);
	uint64_t before;
	int status;

	for (int i = 0; i < 5; i++) {
		wait_for_progress(0);
		CHECK(kill(pid, i % 2 ? SIGSTOP : SIGTSTP) == 0);
		CHECK_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		before = progress[0];
		guest_sleep_ms(50);
		CHECK_EQUAL(progress[0], before);
		CHECK(kill(pid, SIGCONT) == 0);
		CHECK_EQUAL(waitpid(pid, &status, WCONTINUED), pid);
		CHECK(WIFCONTINUED(status));
	}
	wait_for_progress(0);
	CHECK(kill(pid, SIGSTOP) == 0);
	CHECK_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
	kill_loop(pid, SIGKILL);
}

/* Three loops on one CPU all get their share, and so does whoever else needs that CPU. */
static void check_preemption(int index)
{
	pid_t pids[3];

	for (int i = 0; i < 3; i++)
		pids[i] = start_loop(index, i);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 3; i++)
			wait_for_progress(i);
	guest_move(0, index);
	for (int i = 0; i < 3; i++)
		wait_for_progress(i);
	for (int i = 0; i < 3; i++)
		kill_loop(pids[i], i == 1 ? SIGTERM : SIGKILL);
}

static void check_moves(int index)
{
	pid_t pid = start_loop(index, 0);

	for (int i = 1; i <= 20; i++) {
		guest_move(pid, index + i);
		wait_for_progress(0);
	}
	kill_loop(pid, SIGINT);
}

enum { SHARES = 20 };	/* looks: on a busy host it takes long until shares are what they should be */

/* Of the first one's CPU time in that of the second. */
static double share(pid_t nice_pid, pid_t pid)
{
	clockid_t nice_clock, clock;

	CHECK(clock_getcpuclockid(nice_pid, &nice_clock) == 0 && clock_getcpuclockid(pid, &clock) == 0);
	return (double)guest_now_ns(nice_clock) / (double)guest_now_ns(clock);
}

static void check_nice(int index)
{
	pid_t nice_pid = start_loop(index, 0), pid = start_loop(index, 1);
	double ratio = 1;

	CHECK(setpriority(PRIO_PROCESS, (id_t)nice_pid, 15) == 0);
	wait_for_progress(1);
	for (int i = 0; i < SHARES && ratio > 0.3; i++) {
		guest_sleep_ms(1500);
		ratio = share(nice_pid, pid);
	}
	if (ratio > 0.3)
		guest_fail("a loop at nice 15 got %.2f of the CPU time of one at nice 0", ratio);
	kill_loop(nice_pid, SIGKILL);
	kill_loop(pid, SIGKILL);
}

static void check_limit(int index)
{
	pid_t pid = start_loop(index, 0);
	struct rlimit one_second = { 1, 3 };
	int status;

	CHECK(prlimit(pid, RLIMIT_CPU, &one_second, NULL) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQUAL(WTERMSIG(status), SIGXCPU);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "runaway", 0);
	progress = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(progress != MAP_FAILED);
	for (int i = 0; i < guest.cpu_count; i++) {
		guest_move(0, i + 1);
		check_stop(i);
		check_preemption(i);
		check_moves(i);
		check_nice(i);
		check_limit(i);
	}
	return guest_ok();
}
