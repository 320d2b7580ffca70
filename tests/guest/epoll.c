// SPDX-License-Identifier: GPL-2.0
/*
 * Events between CPUs: eventfd, epoll (level, edge, one-shot), poll, select, inotify, pidfd and
 * descriptors passed over a socket; -n round trips.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int wait_one(int epoll)
{
	struct epoll_event event;
	int count;

	do
		count = epoll_wait(epoll, &event, 1, 30000);
	while (count == -1 && errno == EINTR);
	CHECK_EQUAL(count, 1);
	return event.data.fd;
}

static void add(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void pump(int epoll, int in, int out, long rounds, uint64_t value)
{
	uint64_t seen;

	for (long i = 0; i < rounds; i++) {
		CHECK_EQUAL(wait_one(epoll), in);
		CHECK(read(in, &seen, sizeof(seen)) == sizeof(seen));
		CHECK_EQUAL(seen, value);
		CHECK(write(out, &seen, sizeof(seen)) == sizeof(seen));
	}
}

static void check_round_trips(long rounds, uint32_t how)
{
	int ping = eventfd(0, EFD_NONBLOCK), pong = eventfd(0, EFD_NONBLOCK), epoll = epoll_create1(0);
	uint64_t value = 17;
	pid_t pid;

	CHECK(ping >= 0 && pong >= 0 && epoll >= 0);
	pid = guest_fork(1);
	if (!pid) {
		int own = epoll_create1(0);

		add(own, ping, EPOLLIN | how);
		pump(own, ping, pong, rounds, value);
		_exit(0);
	}
	add(epoll, pong, EPOLLIN | how);
	CHECK(write(ping, &value, sizeof(value)) == sizeof(value));
	pump(epoll, pong, ping, rounds - 1, value);
	CHECK_EQUAL(wait_one(epoll), pong);
	guest_reap(pid);
	CHECK(close(ping) == 0 && close(pong) == 0 && close(epoll) == 0);
}

static void check_semaphore(void)
{
	int fd = eventfd(0, EFD_SEMAPHORE), zero = eventfd(5, 0);
	uint64_t value = 3;
	pid_t pid = guest_fork(2);

	CHECK(fd >= 0 && zero >= 0);
	if (!pid) {
		for (int i = 0; i < 3; i++)
			CHECK(read(fd, &value, sizeof(value)) == sizeof(value) && value == 1);
		_exit(0);
	}
	guest_sleep_ms(10);
	CHECK(write(fd, &value, sizeof(value)) == sizeof(value));
	guest_reap(pid);
	CHECK(read(zero, &value, sizeof(value)) == sizeof(value) && value == 5);
	CHECK(close(fd) == 0 && close(zero) == 0);
}

static void check_one_shot(void)
{
	int fds[2], epoll = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT };
	pid_t pid;

	CHECK(pipe(fds) == 0);
	event.data.fd = fds[0];
	add(epoll, fds[0], EPOLLIN | EPOLLONESHOT);
	pid = guest_fork(1);
	if (!pid) {
		CHECK(write(fds[1], "ab", 2) == 2);
		_exit(0);
	}
	CHECK_EQUAL(wait_one(epoll), fds[0]);
	CHECK(epoll_wait(epoll, &event, 1, 20) == 0);
	event = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.fd = fds[0] };
	CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event) == 0);
	CHECK_EQUAL(wait_one(epoll), fds[0]);
	guest_reap(pid);
	CHECK(close(epoll) == 0 && close(fds[0]) == 0 && close(fds[1]) == 0);
}

static void check_select_and_poll(void)
{
	int fds[2];
	struct timeval limit = { 30, 0 };
	struct pollfd poll_fd;
	fd_set set;
	char byte;
	pid_t pid;

	CHECK(pipe(fds) == 0);
	pid = guest_fork(1);
	if (!pid) {
		guest_sleep_ms(20);
		CHECK(write(fds[1], "x", 1) == 1);
		_exit(0);
	}
	CHECK(close(fds[1]) == 0);
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	CHECK_EQUAL(select(fds[0] + 1, &set, NULL, NULL, &limit), 1);
	CHECK(FD_ISSET(fds[0], &set) && read(fds[0], &byte, 1) == 1 && byte == 'x');
	guest_reap(pid);
	poll_fd = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	CHECK(poll(&poll_fd, 1, 30000) == 1 && (poll_fd.revents & POLLHUP));
	CHECK(close(fds[0]) == 0);
}

static void check_inotify(void)
{
	char directory[] = "/tmp/epoll-XXXXXX", path[64], buffer[512] __attribute__((aligned(8)));
	const struct inotify_event *event = (const void *)buffer;
	int fd = inotify_init();
	pid_t pid;

	CHECK(fd >= 0 && mkdtemp(directory) && inotify_add_watch(fd, directory, IN_CREATE) > 0);
	snprintf(path, sizeof(path), "%s/new", directory);
	pid = guest_fork(1);
	if (!pid) {
		CHECK(close(open(path, O_CREAT | O_WRONLY, 0600)) == 0);
		_exit(0);
	}
	CHECK(read(fd, buffer, sizeof(buffer)) > 0);
	CHECK((event->mask & IN_CREATE) && strcmp(event->name, "new") == 0);
	guest_reap(pid);
	CHECK(unlink(path) == 0 && rmdir(directory) == 0 && close(fd) == 0);
}

static void check_pidfd(void)
{
	struct pollfd poll_fd = { .events = POLLIN };
	siginfo_t info;
	pid_t pid = guest_fork(1);

	if (!pid) {
		for (;;)
			;
	}
	poll_fd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(poll_fd.fd >= 0 && poll(&poll_fd, 1, 10) == 0);
	CHECK(syscall(SYS_pidfd_send_signal, poll_fd.fd, SIGKILL, NULL, 0) == 0);
	CHECK(poll(&poll_fd, 1, 30000) == 1);
	CHECK(waitid(P_PIDFD, (id_t)poll_fd.fd, &info, WEXITED) == 0);
	CHECK(info.si_pid == pid && info.si_status == SIGKILL && close(poll_fd.fd) == 0);
}

static void send_descriptor(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { (char[]){ "d" }, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	CHECK(sendmsg(socket, &message, 0) == 1);
}

static int receive_descriptor(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int fd;

	CHECK(recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

static void check_passing(void)
{
	int sockets[2], fds[2], fd;
	char byte;
	pid_t pid;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	pid = guest_fork(1);
	if (!pid) {
		CHECK(pipe(fds) == 0 && write(fds[1], "q", 1) == 1);
		send_descriptor(sockets[1], fds[0]);
		_exit(0);
	}
	fd = receive_descriptor(sockets[0]);
	guest_reap(pid);
	CHECK(read(fd, &byte, 1) == 1 && byte == 'q' && read(fd, &byte, 1) == 0);
	CHECK(close(fd) == 0 && close(sockets[0]) == 0 && close(sockets[1]) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "epoll", 1000);
	guest_move(0, 0);
	check_round_trips(guest.size, 0);
	check_round_trips(guest.size, EPOLLET);
	check_semaphore();
	check_one_shot();
	check_select_and_poll();
	check_inotify();
	check_pidfd();
	check_passing();
	return guest_ok();
}
