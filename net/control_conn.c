// SPDX-License-Identifier: GPL-2.0
/*
 * Frames over a bufferevent.  Its input never holds more than one frame of the greatest length and one
 * read; its output is bounded, and a peer that does not read it is cut off.
 *
 * Callbacks may free the connection, so it lives until the outermost of them has returned.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "control_conn.h"

#define OUTPUT_MAX (1u << 20)

struct control_conn {
	struct bufferevent *bev;
	const struct control_conn_ops *ops;
	void *ctx;
	bool busy, dead, unwanted;
};

/*
 * Write what the socket takes now.  The rest, and any error, is for the bufferevent, which keeps its output
 * frozen.
 */
static void write_now(struct control_conn *conn)
{
	struct evbuffer *output = bufferevent_get_output(conn->bev);

	evbuffer_unfreeze(output, 1);
	evbuffer_write(output, bufferevent_getfd(conn->bev));
	evbuffer_freeze(output, 1);
}

static void release(struct control_conn *conn)
{
	if (!conn->dead)
		write_now(conn);
	bufferevent_free(conn->bev);
	free(conn);
}

/* Callbacks run between enter and leave; conn may be gone after leave. */
static void enter(struct control_conn *conn)
{
	conn->busy = true;
}

static void leave(struct control_conn *conn)
{
	conn->busy = false;
	if (conn->unwanted)
		release(conn);
}

static void die(struct control_conn *conn, const char *why)
{
	if (conn->dead || conn->unwanted)
		return;
	conn->dead = true;
	bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
	conn->ops->closed(conn->ctx, why);
}

/* True when there may be another frame to take. */
static bool take_frame(struct control_conn *conn)
{
	struct evbuffer *input = bufferevent_get_input(conn->bev);
	uint8_t prefix[CONTROL_PREFIX];
	const char *why = "control message of an impossible length";
	Pangea__Message *m = NULL;
	size_t size;

	if (evbuffer_copyout(input, prefix, sizeof(prefix)) < (ssize_t)sizeof(prefix))
		return false;
	size = control_frame_size(prefix);
	if (size && evbuffer_get_length(input) < size)
		return false;
	if (size)
		m = control_unpack(evbuffer_pullup(input, size), size, &why);
	if (!m) {
		char text[160];

		snprintf(text, sizeof(text), "it sent a %s", why);
		die(conn, text);
		return false;
	}
	evbuffer_drain(input, size);
	conn->ops->message(conn->ctx, m);
	pangea__message__free_unpacked(m, NULL);
	return !conn->unwanted;
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct control_conn *conn = arg;

	(void)bev;
	if (conn->dead || conn->unwanted)
		return;
	enter(conn);
	while (take_frame(conn))
		;
	leave(conn);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct control_conn *conn = arg;
	bool partial = evbuffer_get_length(bufferevent_get_input(bev)) > 0;

	enter(conn);
	if (what & BEV_EVENT_ERROR && errno != ECONNRESET && errno != EPIPE)
		die(conn, strerror(errno));
	else if (partial)
		die(conn, "it closed the connection within a message");
	else
		die(conn, "it closed the connection");
	leave(conn);
}

struct control_conn *control_conn_new(struct event_base *base, int fd, const struct control_conn_ops *ops,
				      void *ctx)
{
	struct control_conn *conn = calloc(1, sizeof(*conn));

	evutil_make_socket_nonblocking(fd);
	if (conn)
		conn->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!conn || !conn->bev) {
		evutil_closesocket(fd);
		free(conn);
		return NULL;
	}
	conn->ops = ops;
	conn->ctx = ctx;
	bufferevent_setcb(conn->bev, on_read, NULL, on_event, conn);
	bufferevent_setwatermark(conn->bev, EV_READ, 0, CONTROL_PREFIX + CONTROL_LENGTH_MAX);
	bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
	return conn;
}

void control_conn_send(struct control_conn *conn, const Pangea__Message *message)
{
	struct evbuffer *output = bufferevent_get_output(conn->bev);
	uint8_t *frame;
	size_t size;

	if (conn->dead)
		return;
	frame = control_pack(message, &size);
	/* A peer that takes nothing is found by its silence or by this shutdown. */
	if (!frame || evbuffer_get_length(output) + size > OUTPUT_MAX || evbuffer_add(output, frame, size))
		shutdown(bufferevent_getfd(conn->bev), SHUT_RDWR);
	else
		write_now(conn);
	free(frame);
}

void control_conn_free(struct control_conn *conn)
{
	conn->unwanted = true;
	if (!conn->busy)
		release(conn);
}
