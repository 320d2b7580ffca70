/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The first exchange of every connection: HELLO from the side that connected, WELCOME or REFUSE back.
 *
 * Runs in the libevent loop, never blocks, reads not one byte more than its message, and ends in time.
 * What comes out is a connected socket in blocking mode with which the caller does what it likes.
 */
#ifndef PANGEA_HANDSHAKE_H
#define PANGEA_HANDSHAKE_H

#include <event2/event.h>

#include "address.h"
#include "wire.h"

struct handshake;

/*
 * The end of a handshake, called once; the handshake is freed after it returned.  fd >= 0: agreed, the
 * caller's now.  Else why is one line.  hello: what was said (accepting: NULL unless fd >= 0).
 */
typedef void handshake_done(void *ctx, int fd, const struct wire_hello *hello, const char *why);

/* Accepting side: NULL welcomes the peer, else the reason to refuse it, which is sent.  */
typedef const char *handshake_judge(void *ctx, const struct wire_hello *hello);

/* Takes the accepted socket.  NULL: out of memory (fd is closed). */
struct handshake *handshake_accept(struct event_base *base, int fd, int timeout_ms,
				   handshake_judge *judge, handshake_done *done, void *ctx);

/*
 * Connect and say hello; hello needs purpose, node, cpu and machine, the rest is filled in.  NULL with
 * errno set: it failed at once, done is not called.
 */
struct handshake *handshake_connect(struct event_base *base, const struct address *to, int timeout_ms,
				    const struct wire_hello *hello, handshake_done *done, void *ctx);

/* Give up: closes the socket, done is not called.  Not for use within done. */
void handshake_cancel(struct handshake *h);

#endif
