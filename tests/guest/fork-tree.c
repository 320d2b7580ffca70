// SPDX-License-Identifier: GPL-2.0
/*
 * Trees of processes, every child on the next CPU: fork, exec, wait, exit statuses, orphans.
 * -n: depth of the tree; every inner process has three children, and every second one is a new program.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <sys/prctl.h>

enum { FANOUT = 3 };

static char **guest_argv;

/* How many processes a tree of this depth has, modulo what an exit status holds. */
static int tree_size(long depth)
{
	int size = 1;

	for (long level = 1, row = FANOUT; level <= depth; level++, row *= FANOUT)
		size += (int)row;
	return size % 90;
}

static int tree_run(long depth, int index);

static void tree_exec(long depth, int index)
{
	char depth_text[16], index_text[16], cpus[GUEST_CPUS_MAX * 4] = "";
	char *argv[] = { guest_argv[0], "-c", cpus, "--tree", depth_text, index_text, NULL };

	snprintf(depth_text, sizeof(depth_text), "%ld", depth);
	snprintf(index_text, sizeof(index_text), "%d", index);
	for (int i = 0; i < guest.cpu_count; i++)
		sprintf(cpus + strlen(cpus), "%s%d", i ? "," : "", guest.cpus[i]);
	execv("/proc/self/exe", argv);
	guest_fail("exec: %s", strerror(errno));
}

static pid_t tree_child(long depth, int index)
{
	pid_t pid = guest_fork(index);

	if (pid)
		return pid;
	if (index & 1)
		tree_exec(depth, index);
	_exit(tree_run(depth, index));
}

/* The number of processes of the tree below and including the caller. */
static int tree_run(long depth, int index)
{
	pid_t children[FANOUT];
	int size = 1;

	for (int i = 0; depth && i < FANOUT; i++)
		children[i] = tree_child(depth - 1, index + i + 1);
	for (int i = 0; depth && i < FANOUT; i++) {
		int status;

		CHECK_EQUAL(waitpid(children[i], &status, 0), children[i]);
		CHECK(WIFEXITED(status));
		CHECK_EQUAL(WEXITSTATUS(status), tree_size(depth - 1));
		size += WEXITSTATUS(status);
	}
	CHECK(wait(NULL) == -1 && errno == ECHILD);
	return size % 90;
}

static void check_statuses(void)
{
	int status;
	siginfo_t info;
	pid_t pid;

	for (int code = 0; code < 256; code += 51) {
		pid = guest_fork(code);
		if (!pid)
			_exit(code);
		CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
		CHECK(info.si_pid == pid && info.si_code == CLD_EXITED && info.si_status == code);
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
	}
	pid = guest_fork(1);
	if (!pid)
		pause();
	CHECK(waitpid(pid, &status, WNOHANG) == 0);
	CHECK(kill(pid, SIGTERM) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

/* The grandchild outlives its parent and becomes a child of this subreaper. */
static void check_orphan(void)
{
	int tell[2];
	pid_t child, orphan, parent = getpid();
	char byte;

	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK(pipe(tell) == 0);
	child = guest_fork(1);
	if (!child) {
		if (guest_fork(2))
			_exit(0);
		CHECK(close(tell[1]) == 0);
		CHECK(read(tell[0], &byte, 1) == 0);
		CHECK_EQUAL(getppid(), parent);
		_exit(7);
	}
	guest_reap(child);
	CHECK(close(tell[1]) == 0);
	orphan = wait(&(int){0});
	CHECK(orphan > 0 && orphan != child);
	CHECK(close(tell[0]) == 0);
}

static void check_arguments(void)
{
	enum { LENGTH = 100000 };
	char *big = malloc(LENGTH + 1), text[32];
	char *argv[] = { "sh", "-c", "test ${#BIG} = $0 && test ${#1} = $0", text, big, NULL };
	pid_t pid;

	CHECK(big != NULL);
	memset(big, 'x', LENGTH);
	big[LENGTH] = 0;
	snprintf(text, sizeof(text), "%d", LENGTH);
	pid = guest_fork(2);
	if (!pid) {
		CHECK(setenv("BIG", big, 1) == 0);
		execv("/bin/sh", argv);
		_exit(GUEST_FAILED);
	}
	guest_reap(pid);
	free(big);
}

/* As a new program: still on the CPU that was set before exec, and from there on as before. */
static int tree_main(char **argv)
{
	int index = atoi(argv[5]), cpu = sched_getcpu();
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
	guest_start(3, argv, "fork-tree", 0);
	guest.pid = 0;
	CHECK_EQUAL(cpu, guest_cpu(index));
	return tree_run(atol(argv[4]), index);
}

int main(int argc, char **argv)
{
	guest_argv = argv;
	if (argc == 6 && strcmp(argv[3], "--tree") == 0)
		return tree_main(argv);
	guest_start(argc, argv, "fork-tree", 3);
	CHECK_EQUAL(tree_run(guest.size, 0), tree_size(guest.size));
	check_statuses();
	check_orphan();
	check_arguments();
	return guest_ok();
}
