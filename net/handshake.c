// SPDX-License-Identifier: GPL-2.0
/*
 * HELLO, WELCOME, REFUSE.
 *
 * Accepting:   reading HELLO -> judged -> WELCOME or REFUSE sent -> done
 * Connecting:  connecting -> HELLO sent -> reading WELCOME or REFUSE -> done
 *
 * The answers are far smaller than any socket's buffer, so that a write that is not whole is a failure.
 *
 * The first 22 bytes of a HELLO are the same in every protocol version, so a peer of another one is told so
 * whatever the rest of its HELLO looks like.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "handshake.h"
#include "link.h"

#define HELLO_PREFIX	offsetof(struct wire_hello, purpose)
#define DRAIN_READS_MAX	16

struct handshake {
	int fd;
	struct event *io, *timer;
	bool accepting, connected;
	handshake_judge *judge;
	handshake_done *done;
	void *ctx;
	struct wire_hello hello;	/* accepting: received; connecting: sent */
	size_t have;			/* bytes received */
	union {
		struct wire_hdr hdr;
		struct wire_hello hello;
		struct wire_refuse refuse;
	} in;
};

static void release(struct handshake *h)
{
	if (h->io)
		event_free(h->io);
	if (h->timer)
		event_free(h->timer);
	if (h->fd >= 0)
		close(h->fd);
	free(h);
}

void handshake_cancel(struct handshake *h)
{
	release(h);
}

static void fail(struct handshake *h, const char *why)
{
	h->done(h->ctx, -1, h->accepting ? NULL : &h->hello, why);
	release(h);
}

static void succeed(struct handshake *h)
{
	int fd = h->fd, one = 1;

	h->fd = -1;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	/* Fails on UNIX sockets, which have no need of it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	h->done(h->ctx, fd, &h->hello, NULL);
	release(h);
}

static bool send_whole(struct handshake *h, const void *msg, size_t length)
{
	return send(h->fd, msg, length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length;
}

static void refuse(struct handshake *h, const char *why)
{
	struct wire_refuse msg = { .hdr = { .length = sizeof(msg), .type = WIRE_REFUSE } };
	char rest[4096];
	int reads = 0;

	snprintf((char *)msg.reason, sizeof(msg.reason), "%s", why);
	send_whole(h, &msg, sizeof(msg));
	/* Closing with input unread would reset the connection, and the reason could be lost. */
	shutdown(h->fd, SHUT_WR);
	while (recv(h->fd, rest, sizeof(rest), MSG_DONTWAIT) == sizeof(rest) && ++reads < DRAIN_READS_MAX)
		;
	fail(h, why);
}

/*
 * Read until `want` bytes are there.  True when they are; false when more must come or when the handshake
 * has ended (then *ended is set).
 */
static bool receive(struct handshake *h, size_t want, bool *ended)
{
	while (h->have < want) {
		ssize_t n = recv(h->fd, (uint8_t *)&h->in + h->have, want - h->have, MSG_DONTWAIT);

		if (n > 0) {
			h->have += n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		*ended = true;
		if (n < 0)
			fail(h, strerror(errno));
		else
			fail(h, h->accepting ? "the connection was closed before its HELLO" :
					       "the connection was closed without an answer");
		return false;
	}
	return true;
}

static const char *hello_prefix_wrong(const struct wire_hello *hello, char *text, size_t size)
{
	if (hello->hdr.type != WIRE_HELLO || hello->magic != WIRE_MAGIC)
		return "this is not a pangead: no HELLO";
	if (hello->version == WIRE_VERSION)
		return NULL;
	snprintf(text, size, "protocol version %u, but this pangead speaks version %u", hello->version,
		 WIRE_VERSION);
	return text;
}

static void read_hello(struct handshake *h)
{
	struct wire_hdr welcome = { .length = sizeof(welcome), .type = WIRE_WELCOME };
	char text[WIRE_REASON_MAX];
	bool ended = false;
	const char *why;

	if (!receive(h, HELLO_PREFIX, &ended))
		return;
	why = hello_prefix_wrong(&h->in.hello, text, sizeof(text));
	if (!why)
		why = wire_check_length(&h->in.hdr, WIRE_PURPOSE_CONTROL);
	if (why) {
		refuse(h, why);
		return;
	}
	if (!receive(h, sizeof(h->in.hello), &ended))
		return;
	why = wire_check(&h->in, sizeof(h->in.hello), WIRE_PURPOSE_CONTROL);
	if (!why)
		why = h->judge(h->ctx, &h->in.hello);
	if (why) {
		refuse(h, why);
		return;
	}
	h->hello = h->in.hello;
	if (send_whole(h, &welcome, sizeof(welcome)))
		succeed(h);
	else
		fail(h, "the connection was closed before its WELCOME");
}

static void read_answer(struct handshake *h)
{
	char text[WIRE_REASON_MAX + 32];
	bool ended = false;
	const char *why;

	if (!receive(h, sizeof(h->in.hdr), &ended))
		return;
	why = wire_check_length(&h->in.hdr, WIRE_PURPOSE_CONTROL);
	if (!why && h->in.hdr.type != WIRE_WELCOME && h->in.hdr.type != WIRE_REFUSE)
		why = "message that is no answer to HELLO";
	if (!why && !receive(h, h->in.hdr.length, &ended))
		return;
	if (!why)
		why = wire_check(&h->in, h->in.hdr.length, WIRE_PURPOSE_CONTROL);
	if (!why && h->in.hdr.type == WIRE_WELCOME) {
		succeed(h);
		return;
	}
	if (why)
		snprintf(text, sizeof(text), "it answered with a %s", why);
	else
		snprintf(text, sizeof(text), "refused: %s", h->in.refuse.reason);
	fail(h, text);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
	struct handshake *h = arg;

	(void)fd;
	(void)what;
	fail(h, h->accepting ? "no HELLO came in time" : "no answer came in time");
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	struct handshake *h = arg;

	(void)fd;
	(void)what;
	if (h->accepting)
		read_hello(h);
	else
		read_answer(h);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct handshake *h = arg;
	socklen_t length = sizeof(int);
	int error = 0;

	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
		error = errno;
	if (error) {
		fail(h, strerror(error));
		return;
	}
	if (!send_whole(h, &h->hello, sizeof(h->hello))) {
		fail(h, "the connection was closed before its HELLO");
		return;
	}
	event_assign(h->io, event_get_base(h->io), fd, EV_READ | EV_PERSIST, on_input, h);
	event_add(h->io, NULL);
}

/* Takes fd, also when it fails. */
static struct handshake *handshake_new(struct event_base *base, int fd, int timeout_ms, short what,
				       event_callback_fn callback)
{
	struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	struct handshake *h = calloc(1, sizeof(*h));

	if (!h) {
		close(fd);
		return NULL;
	}
	h->fd = fd;
	h->io = event_new(base, fd, what, callback, h);
	h->timer = evtimer_new(base, on_time, h);
	if (h->io && h->timer && !event_add(h->io, NULL) && !event_add(h->timer, &timeout))
		return h;
	release(h);
	errno = ENOMEM;
	return NULL;
}

struct handshake *handshake_accept(struct event_base *base, int fd, int timeout_ms,
				   handshake_judge *judge, handshake_done *done, void *ctx)
{
	struct handshake *h = handshake_new(base, fd, timeout_ms, EV_READ | EV_PERSIST, on_input);

	if (!h)
		return NULL;
	h->accepting = true;
	h->judge = judge;
	h->done = done;
	h->ctx = ctx;
	return h;
}

struct handshake *handshake_connect(struct event_base *base, const struct address *to, int timeout_ms,
				    const struct wire_hello *hello, handshake_done *done, void *ctx)
{
	int fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct handshake *h;

	if (fd < 0)
		return NULL;
	if (connect(fd, (const struct sockaddr *)&to->sa, to->length) && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		errno = error;
		return NULL;
	}
	h = handshake_new(base, fd, timeout_ms, EV_WRITE, on_connected);
	if (!h)
		return NULL;
	h->hello = *hello;
	h->hello.hdr = (struct wire_hdr){ .length = sizeof(*hello), .type = WIRE_HELLO };
	h->hello.magic = WIRE_MAGIC;
	h->hello.version = WIRE_VERSION;
	h->done = done;
	h->ctx = ctx;
	return h;
}
