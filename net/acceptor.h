/* SPDX-License-Identifier: GPL-2.0 */
/* A listening socket in a daemon's libevent loop: what comes out has said a HELLO that was welcomed. */
#ifndef PANGEA_ACCEPTOR_H
#define PANGEA_ACCEPTOR_H

#include "handshake.h"

struct acceptor;

struct acceptor_ops {
	/* NULL welcomes, else the reason to refuse; `connected` follows at once for what was welcomed. */
	const char *(*judge)(void *ctx, const struct wire_hello *hello);
	/* fd is the callee's.  from: the peer's address, for messages. */
	void (*connected)(void *ctx, int fd, const struct wire_hello *hello, const char *from);
	/* Something connected and is gone again; why is one line. */
	void (*refused)(void *ctx, const char *from, const char *why);
};

/* Takes the listening socket (TCP or UNIX).  NULL: out of memory (fd is closed). */
struct acceptor *acceptor_new(struct event_base *base, int fd, int timeout_ms,
			      const struct acceptor_ops *ops, void *ctx);
/* Closes the listening socket and whatever has not said its HELLO.  Not for use within the callbacks. */
void acceptor_free(struct acceptor *acceptor);

#endif
