// SPDX-License-Identifier: GPL-2.0
/*
 * vfork, posix_spawn, exec from every CPU, exec by a second thread, system(), scripts and programs that are
 * not there; clone with shared memory and descriptors.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

extern char **environ;

static volatile int shared_value;

static void check_vfork(int index)
{
	pid_t pid;

	guest_move(0, index);
	shared_value = 1;
	pid = vfork();
	if (!pid) {
		shared_value = index + 2;
		_exit(0);
	}
	CHECK(pid > 0);
	CHECK_EQUAL(shared_value, index + 2);
	guest_reap(pid);
	pid = vfork();
	if (!pid) {
		execl("/bin/sh", "sh", "-c", "exit 0", NULL);
		_exit(GUEST_FAILED);
	}
	guest_reap(pid);
}

static void check_spawn(void)
{
	char *argv[] = { "sh", "-c", "echo spawned on $(cat); exit 3", NULL }, text[64] = "";
	posix_spawn_file_actions_t actions;
	int in[2], out[2], status;
	pid_t pid;

	CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	CHECK(posix_spawn_file_actions_init(&actions) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&actions, in[0], 0) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&actions, out[1], 1) == 0);
	CHECK(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, environ) == 0);
	CHECK(close(in[0]) == 0 && close(out[1]) == 0);
	CHECK(write(in[1], "Pangea", 6) == 6 && close(in[1]) == 0);
	CHECK(guest_read_all(out[0], text, sizeof(text) - 1) == 18);
	CHECK(strcmp(text, "spawned on Pangea\n") == 0);
	CHECK(close(out[0]) == 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
	CHECK_EQUAL(posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, environ), ENOENT);
}

static void *exec_in_thread(void *arg)
{
	guest_move(0, 2);
	execl("/bin/sh", "sh", "-c", "test $$ = $0", (char *)arg, NULL);
	_exit(GUEST_FAILED);
}

static void *loop_in_thread(void *arg)
{
	guest_move(0, 1);
	for (;;)
		++*(volatile uint64_t *)arg;
	return NULL;
}

/* exec by one thread ends the others, wherever they run, and keeps the process's number. */
static void check_thread_exec(void)
{
	static uint64_t count;
	pthread_t threads[2];
	char self[16];
	pid_t pid = guest_fork(0);

	if (!pid) {
		snprintf(self, sizeof(self), "%d", getpid());
		CHECK(pthread_create(&threads[0], NULL, loop_in_thread, &count) == 0);
		CHECK(pthread_create(&threads[1], NULL, exec_in_thread, self) == 0);
		for (;;)
			pause();
	}
	guest_reap(pid);
}

static void check_errors(void)
{
	char path[] = "/tmp/spawn-XXXXXX";
	int fd = mkstemp(path), status;

	CHECK(fd >= 0 && write(fd, "#!/bin/sh\nexit 9\n", 17) == 17);
	CHECK(fchmod(fd, 0700) == 0 && close(fd) == 0);
	status = system(path);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
	CHECK(chmod(path, 0600) == 0);
	status = system(path);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 126);
	CHECK(unlink(path) == 0);
	status = system("/nonexistent 2>/dev/null");
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 127);
	CHECK(execl("/", "x", NULL) == -1 && errno == EACCES);
	CHECK(syscall(SYS_execve, 8L, NULL, NULL) == -1 && errno == EFAULT);
}

static int cloned(void *arg)
{
	int *fd = arg;

	guest_move(0, 1);
	shared_value = 33;
	*fd = dup(1);
	return 4;
}

/* A process of its own that shares memory and descriptors, but not the signal handlers. */
static void check_clone(void)
{
	enum { STACK = 65536 };
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = -1, status;
	pid_t pid;

	CHECK(stack != MAP_FAILED);
	pid = clone(cloned, stack + STACK, CLONE_VM | CLONE_FILES | SIGCHLD, &fd);
	CHECK(pid > 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 4);
	CHECK(shared_value == 33 && fd > 1 && close(fd) == 0);
	CHECK(munmap(stack, STACK) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "spawn", 10);
	for (int i = 0; i < guest.size; i++) {
		check_vfork(i);
		check_spawn();
		check_clone();
	}
	check_thread_exec();
	check_errors();
	return guest_ok();
}
