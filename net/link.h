/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One connection that carries whole messages of net/wire.h, over whatever transport.
 *
 * A link is used by any number of senders and one receiver at a time.  Every message that link_recv()
 * returns has passed wire_check() for the link's purpose; a link that sees anything else is dead from
 * then on and says why (link_error()).
 */
#ifndef PANGEA_LINK_H
#define PANGEA_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire.h"

struct link;

struct link_ops {
	/* "tcp", "in-process": for messages to the user. */
	const char *name;
	/*
	 * Send whole messages, of which no header is divided, gathered from iov[0..count).  Any thread; never
	 * blocks: what the transport does not take now is queued (copied) and goes out in order.  The buffers are the
	 * caller's again on return.  0, or -EPIPE (link dead), -ENOBUFS (peer does not read: link is dead now).
	 */
	int (*send)(struct link *link, const struct iovec *iov, int count);
	/*
	 * Next whole message.  One thread at a time; never blocks.  Returns its length with *msg pointing
	 * to it, valid until the next recv on this link; 0: none is complete yet, or there may be one but poll
	 * first (what has been read empty is not read again at once); -EPIPE: the peer closed
	 * between two messages; -EPROTO: it broke the protocol, or closed within a message (see
	 * link_error()); -errno.
	 */
	int (*recv)(struct link *link, const struct wire_hdr **msg);
	/*
	 * Likewise, but waits for some input first if there is no whole message; output that is queued meanwhile
	 * waits as well.  NULL: poll and call recv.
	 */
	int (*recv_blocking)(struct link *link, const struct wire_hdr **msg);
	/*
	 * While it is quiet, who calls recv looks all the time: what comes need not wake others that poll.  What has not been
	 * received by the end of that wakes them then.  NULL: it does at once.
	 */
	void (*quiet)(struct link *link, bool quiet);
	/* Descriptor to poll: POLLIN when recv may have something. -1: none. */
	int (*fd)(const struct link *link);
	/* Queued output exists: poll for POLLOUT and call flush.  Any thread. */
	bool (*wants_flush)(const struct link *link);
	int (*flush)(struct link *link);
	/* Wakes a receiver that polls (it sees -EPIPE), frees nothing.  Any thread. */
	void (*shutdown)(struct link *link);
	/* After the last user has left. */
	void (*free)(struct link *link);
};

struct link_stats { uint64_t messages_in, messages_out, bytes_in, bytes_out; };

struct link {
	const struct link_ops *ops;
	enum wire_purpose purpose;
	struct link_stats stats;
	char peer[64];			/* for messages to the user: "node 2 (10.0.0.3:7200)" */
	char error[WIRE_REASON_MAX];	/* why it is dead; empty while it lives */
};

static inline int link_send(struct link *l, const struct iovec *iov, int count)
{
	return l->ops->send(l, iov, count);
}
static inline int link_recv(struct link *l, const struct wire_hdr **msg) { return l->ops->recv(l, msg); }
static inline int link_fd(const struct link *l) { return l->ops->fd(l); }
/* Why the link is dead; call it after send or recv has failed. */
static inline const char *link_error(const struct link *l) { return l->error; }
/* Any thread. */
void link_get_stats(const struct link *link, struct link_stats *stats);

/* One fixed-size message. */
int link_send_msg(struct link *link, const void *msg);
/* Like recv, but waits; timeout_ms < 0: for ever.  -ETIMEDOUT. */
int link_recv_wait(struct link *link, const struct wire_hdr **msg, int timeout_ms);

/* Takes ownership of a connected stream socket (TCP or UNIX). NULL: out of memory (fd is closed). */
struct link *link_socket_new(int fd, enum wire_purpose purpose, const char *peer);
/* Two ends in this process. 0 or -ENOMEM. */
int link_inprocess_pair(struct link *ends[2], enum wire_purpose purpose);

/*
 * The one check of everything that arrives.  `msg` holds `length` bytes, at least sizeof(struct wire_hdr).
 * Returns NULL when the message is whole and well-formed for the purpose, else one line that says what is
 * wrong. Pure.  wire_check_length() judges a header alone, before the rest is read: NULL or the reason.
 */
const char *wire_check_length(const struct wire_hdr *hdr, enum wire_purpose purpose);
const char *wire_check(const void *msg, size_t length, enum wire_purpose purpose);

#endif
