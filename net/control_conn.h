/* SPDX-License-Identifier: GPL-2.0 */
/* One control connection in a daemon's libevent loop: whole, checked messages in and out. */
#ifndef PANGEA_CONTROL_CONN_H
#define PANGEA_CONTROL_CONN_H

#include <event2/event.h>

#include "control.h"

struct control_conn;

struct control_conn_ops {
	/* A message has come; it is freed when this returns.  May call control_conn_free(). */
	void (*message)(void *ctx, const Pangea__Message *message);
	/* The connection is dead; why is one line.  Called once at most.  May call control_conn_free(). */
	void (*closed)(void *ctx, const char *why);
};

/* Takes a connected socket.  NULL: out of memory (fd is closed). */
struct control_conn *control_conn_new(struct event_base *base, int fd, const struct control_conn_ops *ops,
				      void *ctx);

/*
 * Written at once as far as the socket takes it, then by the loop.  Never calls back; nothing when it is
 * dead.
 */
void control_conn_send(struct control_conn *conn, const Pangea__Message *message);

/* Closes it.  What is queued and the socket does not take now is lost. */
void control_conn_free(struct control_conn *conn);

#endif
