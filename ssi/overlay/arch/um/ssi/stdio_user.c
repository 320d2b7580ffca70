// SPDX-License-Identifier: GPL-2.0
/*
 * Host side of the standard streams: moving bytes without blocking, and waiting.
 *
 * The descriptors belong to open files that other processes of the host use too, the caller's shell for
 * one.  So nothing may change on them: no O_NONBLOCK, no O_ASYNC, which is how the other devices of this
 * architecture wait.  Bytes are moved with the per-call forms of "do not block", and waiting is done by a
 * thread with an epoll set of its own, which writes the number of a stream that became ready into a pipe;
 * that pipe is what raises the interrupt.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <os.h>
#include "stdio_user.h"

static int watch_epoll = -1;
static int watch_pipe[2] = { -1, -1 };
static struct os_helper_thread *watch_thread;

static void *watch(void *unused)
{
	struct epoll_event event;
	unsigned char stream;
	int n;

	os_fix_helper_thread_signals();
	for (;;) {
		CATCH_EINTR(n = epoll_wait(watch_epoll, &event, 1, -1));
		if (n != 1)
			return NULL;
		stream = event.data.u32;
		CATCH_EINTR(n = write(watch_pipe[1], &stream, 1));
		if (n != 1)
			return NULL;
	}
}

int ssi_stdio_host_start(void)
{
	int err;

	watch_epoll = epoll_create1(EPOLL_CLOEXEC);
	if (watch_epoll < 0)
		return -errno;
	if (pipe2(watch_pipe, O_CLOEXEC) < 0) {
		err = -errno;
		goto out_epoll;
	}
	err = os_run_helper_thread(&watch_thread, watch, NULL);
	if (err < 0)
		goto out_pipe;
	return watch_pipe[0];

out_pipe:
	close(watch_pipe[0]);
	close(watch_pipe[1]);
out_epoll:
	close(watch_epoll);
	return err;
}

void ssi_stdio_host_stop(void)
{
	if (watch_thread)
		os_kill_helper_thread(watch_thread);
	watch_thread = NULL;
}

int ssi_stdio_host_add(int stream, int fd)
{
	struct epoll_event event = { .data.u32 = stream };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (epoll_ctl(watch_epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return errno == EPERM ? SSI_STDIO_DIRECT : -errno;
	/* Errors and hang-ups are reported even when nothing was asked for, until the entry is disarmed. */
	event.events = EPOLLONESHOT;
	if (epoll_ctl(watch_epoll, EPOLL_CTL_MOD, fd, &event) < 0)
		return -errno;
	return S_ISSOCK(st.st_mode) ? SSI_STDIO_SOCKET : SSI_STDIO_WAITED;
}

unsigned int ssi_stdio_host_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
	int n;

	CATCH_EINTR(n = poll(&p, 1, 0));
	return n == 1 ? p.revents : 0;
}

/*
 * A file that does not know RWF_NOWAIT does not block after poll() said so: a read by being the only
 * reader, a write by asking for no more than a pipe takes whole.
 */
static ssize_t polled_read(int fd, void *buffer, size_t length)
{
	if (!(ssi_stdio_host_poll(fd) & (POLLIN | POLLHUP | POLLERR))) {
		errno = EAGAIN;
		return -1;
	}
	return read(fd, buffer, length);
}

static ssize_t polled_write(int fd, const void *buffer, size_t length)
{
	if (!(ssi_stdio_host_poll(fd) & (POLLOUT | POLLHUP | POLLERR))) {
		errno = EAGAIN;
		return -1;
	}
	return write(fd, buffer, length < PIPE_BUF ? length : PIPE_BUF);
}

int ssi_stdio_host_read(int fd, enum ssi_stdio_kind kind, void *buffer, unsigned int length)
{
	struct iovec iov = { .iov_base = buffer, .iov_len = length };
	ssize_t n;

	do {
		if (kind == SSI_STDIO_DIRECT) {
			n = read(fd, buffer, length);
		} else if (kind == SSI_STDIO_SOCKET) {
			n = recv(fd, buffer, length, MSG_DONTWAIT);
		} else {
			n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
			if (n < 0 && errno == EOPNOTSUPP)
				n = polled_read(fd, buffer, length);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int ssi_stdio_host_write(int fd, enum ssi_stdio_kind kind, const void *buffer, unsigned int length)
{
	struct iovec iov = { .iov_base = (void *)buffer, .iov_len = length };
	ssize_t n;

	do {
		if (kind == SSI_STDIO_DIRECT) {
			n = write(fd, buffer, length);
		} else if (kind == SSI_STDIO_SOCKET) {
			n = send(fd, buffer, length, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else {
			n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
			if (n < 0 && errno == EOPNOTSUPP)
				n = polled_write(fd, buffer, length);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

long long ssi_stdio_host_seek(int fd, long long offset, int whence)
{
	off_t position = lseek(fd, offset, whence);

	return position < 0 ? -errno : position;
}

int ssi_stdio_host_arm(int stream, int fd, unsigned int events)
{
	struct epoll_event event = { .events = events | EPOLLONESHOT, .data.u32 = stream };

	return epoll_ctl(watch_epoll, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}
