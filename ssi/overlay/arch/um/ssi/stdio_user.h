/* SPDX-License-Identifier: GPL-2.0 */
/* Host side of the standard streams (stdio_user.c), called from stdio.c. */
#ifndef __SSI_STDIO_USER_H
#define __SSI_STDIO_USER_H

#define SSI_STDIO_STREAMS 3

/* What a stream can be waited for; the numbers of EPOLLIN and EPOLLOUT on both sides. */
#define SSI_STDIO_IN	0x001u
#define SSI_STDIO_OUT	0x004u

enum ssi_stdio_kind {
	SSI_STDIO_DIRECT,	/* always ready: regular files, block devices, /dev/null */
	SSI_STDIO_SOCKET,
	SSI_STDIO_WAITED,	/* pipes, terminals and everything else that epoll accepts */
};

/* Starts the watcher; returns the descriptor that it writes stream numbers to, or -errno. */
int ssi_stdio_host_start(void);
void ssi_stdio_host_stop(void);

/* Makes the watcher know a stream; its kind, or -errno. */
int ssi_stdio_host_add(int stream, int fd);

/* Never block; -EAGAIN when nothing can be moved now.  A read of 0 is the end of the stream. */
int ssi_stdio_host_read(int fd, enum ssi_stdio_kind kind, void *buffer, unsigned int length);
int ssi_stdio_host_write(int fd, enum ssi_stdio_kind kind, const void *buffer, unsigned int length);

/* The new position, or -errno. */
long long ssi_stdio_host_seek(int fd, long long offset, int whence);

/* Events (EPOLL*) that hold now. */
unsigned int ssi_stdio_host_poll(int fd);

/* The watcher reports the stream once, when one of the events holds (or an error, or a hang-up). */
int ssi_stdio_host_arm(int stream, int fd, unsigned int events);

#endif
