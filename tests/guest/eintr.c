// SPDX-License-Identifier: GPL-2.0
/*
 * A process without handlers never sees EINTR, however often it is moved, signalled with ignored signals,
 * or (in the calls that Linux restarts) stopped and continued: -n disturbances while it waits in each of
 * several calls.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int fds[2], sockets[2];
static _Atomic uint32_t *word;

static void wait_read(void)
{
	char byte;

	CHECK(read(fds[0], &byte, 1) == 1);
}

static void wait_receive(void)
{
	char byte;

	CHECK(recv(sockets[0], &byte, 1, 0) == 1);
}

static void wait_poll(void)
{
	struct pollfd poll_fd = { .fd = fds[0], .events = POLLIN };

	CHECK(poll(&poll_fd, 1, -1) == 1);
}

static void wait_epoll(void)
{
	int epoll = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };

	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event) == 0);
	CHECK(epoll_wait(epoll, &event, 1, -1) == 1);
}

static void wait_futex(void)
{
	while (!*word)
		CHECK(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 || errno == EAGAIN);
}

static void wait_flock(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int fd = (int)word[1];

	CHECK(fcntl(fd, F_SETLKW, &lock) == 0);
}

static void wait_child(void)
{
	pid_t pid = fork();

	if (!pid) {
		wait_read();
		_exit(0);
	}
	CHECK(waitpid(pid, &(int){0}, 0) == pid);
}

static void wait_sleep(void)
{
	struct timespec time = { 0, 500000000 };

	CHECK(nanosleep(&time, NULL) == 0);
}

struct call {
	const char *name;
	void (*wait)(void);
	bool restarts_after_stop;
};

static void release(int locked)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = 1 };

	*word = 1;
	CHECK(write(fds[1], "x", 1) == 1 && send(sockets[1], "x", 1, 0) == 1);
	CHECK(syscall(SYS_futex, word, FUTEX_WAKE, 9, NULL, NULL, 0) >= 0);
	CHECK(fcntl(locked, F_SETLK, &lock) == 0);
}

static void disturb(pid_t pid, const struct call *call, long i)
{
	int status;

	if (i % 3 == 0)
		guest_move(pid, (int)i / 3);
	else if (i % 3 == 1)
		CHECK(kill(pid, SIGWINCH) == 0);
	else if (call->restarts_after_stop) {
		CHECK(kill(pid, SIGSTOP) == 0);
		CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
		CHECK(kill(pid, SIGCONT) == 0);
	}
}

static void check_call(const struct call *call, int locked)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int status;
	pid_t pid;

	*word = 0;
	CHECK(pipe(fds) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	CHECK(fcntl(locked, F_SETLK, &lock) == 0);
	pid = guest_fork(0);
	if (!pid) {
		call->wait();
		_exit(0);
	}
	for (long i = 0; i < guest.size; i++) {
		guest_sleep_ms(1);
		disturb(pid, call, i);
	}
	release(locked);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	if (status)
		guest_fail("%s did not wait to its end: status 0x%x", call->name, status);
	for (int i = 0; i < 2; i++)
		CHECK(close(fds[i]) == 0 && close(sockets[i]) == 0);
}

int main(int argc, char **argv)
{
	static const struct call calls[] = {
		{ "read of a pipe", wait_read, true },
		{ "recv", wait_receive, true },
		{ "poll", wait_poll, true },
		{ "epoll_wait", wait_epoll, false },
		{ "futex", wait_futex, true },
		{ "fcntl(F_SETLKW)", wait_flock, true },
		{ "waitpid", wait_child, true },
		{ "nanosleep", wait_sleep, true },
	};
	char path[] = "/tmp/eintr-XXXXXX";
	int locked;

	guest_start(argc, argv, "eintr", 60);
	word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(word != MAP_FAILED);
	locked = mkstemp(path);
	CHECK(locked >= 0 && unlink(path) == 0);
	word[1] = (uint32_t)locked;
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		check_call(&calls[i], locked);
	return guest_ok();
}
