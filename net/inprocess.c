// SPDX-License-Identifier: GPL-2.0
/*
 * Links between two parts of one process: whole messages in a queue, an eventfd to poll.
 *
 * Each end owns the queue of what is on its way to it; both share one lock and go away together when the
 * second end is freed.  The eventfd of an end is readable exactly while its queue holds something or the
 * peer has gone.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport.h"

/* What was sent at a time: one message or several. */
struct parcel {
	struct parcel *next;
	size_t length, handed_out;
	unsigned messages;
	uint8_t bytes[] __attribute__((aligned(8)));
};

struct end {
	struct link link;
	struct pair *pair;
	int eventfd;
	struct parcel *held;		/* what the receiver still looks at; the receiver's alone */
	int rx_error;			/* the receiver's alone */

	/* Under pair->lock, as is link.error. */
	struct parcel *first, **last;
	size_t queued;			/* bytes */
	bool closed;			/* nothing is sent to or from this end any more */
	bool signalled;
};

struct pair {
	pthread_mutex_t lock;
	int users;
	struct end end[2];
};

static struct end *to_end(struct link *link)
{
	return (struct end *)link;
}

static struct end *peer_of(struct end *e)
{
	return &e->pair->end[e == &e->pair->end[0]];
}

/* Called with the lock held, whenever the queue or `closed` of either end has changed. */
static void update_eventfd(struct end *e)
{
	bool wanted = e->first || e->closed || peer_of(e)->closed;
	eventfd_t value;

	if (wanted == e->signalled)
		return;
	if (wanted)
		eventfd_write(e->eventfd, 1);
	else
		eventfd_read(e->eventfd, &value);
	e->signalled = wanted;
}

/* Called with the lock held. */
static void close_end(struct end *e)
{
	e->closed = true;
	update_eventfd(e);
	update_eventfd(peer_of(e));
}

static struct parcel *parcel_new(const struct iovec *iov, int count)
{
	unsigned messages;
	size_t length = transport_length(iov, count, &messages);
	struct parcel *p = malloc(sizeof(*p) + length);
	uint8_t *to;
	int i;

	if (!p)
		return NULL;
	*p = (struct parcel){ .length = length, .messages = messages };
	for (to = p->bytes, i = 0; i < count; to += iov[i].iov_len, i++)
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
	return p;
}

/* Called with the lock held. */
static int deliver(struct end *from, struct parcel *p)
{
	struct end *to = peer_of(from);

	if (from->closed || to->closed) {
		transport_set_error(&from->link, "%s closed the connection", from->link.peer);
		return -EPIPE;
	}
	if (!p || to->queued + p->length > TRANSPORT_QUEUE_MAX) {
		transport_set_error(&from->link, "%s does not read what is sent to it", from->link.peer);
		close_end(from);
		return -ENOBUFS;
	}
	*to->last = p;
	to->last = &p->next;
	to->queued += p->length;
	update_eventfd(to);
	transport_count_out(&from->link, p->messages, p->length);
	return 0;
}

static int inprocess_send(struct link *link, const struct iovec *iov, int count)
{
	struct end *e = to_end(link);
	struct parcel *p = parcel_new(iov, count);
	int ret;

	pthread_mutex_lock(&e->pair->lock);
	ret = deliver(e, p);
	pthread_mutex_unlock(&e->pair->lock);
	if (ret)
		free(p);
	return ret;
}

/* Called with the lock held. */
static int take(struct end *e, const struct wire_hdr **msg)
{
	struct parcel *p = e->closed ? NULL : e->first;

	if (!p) {
		if (!e->closed && !peer_of(e)->closed)
			return 0;
		transport_set_error(&e->link, "%s closed the connection", e->link.peer);
		return -EPIPE;
	}
	*msg = (const void *)(p->bytes + p->handed_out);
	p->handed_out += (*msg)->length;
	if (p->handed_out < p->length)
		return (int)(*msg)->length;
	e->first = p->next;
	if (!e->first)
		e->last = &e->first;
	e->queued -= p->length;
	e->held = p;
	update_eventfd(e);
	return (int)(*msg)->length;
}

static int protocol_error(struct end *e, const char *why)
{
	pthread_mutex_lock(&e->pair->lock);
	transport_set_error(&e->link, "%s sent a %s", e->link.peer, why);
	close_end(e);
	pthread_mutex_unlock(&e->pair->lock);
	return -EPROTO;
}

static int inprocess_recv(struct link *link, const struct wire_hdr **msg)
{
	struct end *e = to_end(link);
	const char *why;
	int ret;

	free(e->held);
	e->held = NULL;
	if (e->rx_error)
		return e->rx_error;
	pthread_mutex_lock(&e->pair->lock);
	ret = take(e, msg);
	pthread_mutex_unlock(&e->pair->lock);
	if (ret > 0) {
		why = wire_check(*msg, ret, link->purpose);
		if (why)
			ret = protocol_error(e, why);
	}
	if (ret < 0) {
		e->rx_error = ret;
		return ret;
	}
	if (ret > 0)
		transport_count_in(link, ret);
	return ret;
}

static int inprocess_fd(const struct link *link)
{
	return ((const struct end *)link)->eventfd;
}

static bool inprocess_wants_flush(const struct link *link)
{
	(void)link;
	return false;
}

static int inprocess_flush(struct link *link)
{
	(void)link;
	return 0;
}

static void inprocess_shutdown(struct link *link)
{
	struct end *e = to_end(link);

	pthread_mutex_lock(&e->pair->lock);
	transport_set_error(link, "the connection to %s was shut down", link->peer);
	close_end(e);
	pthread_mutex_unlock(&e->pair->lock);
}

static void pair_free(struct pair *pair)
{
	int i;

	for (i = 0; i < 2; i++) {
		struct end *e = &pair->end[i];

		while (e->first) {
			struct parcel *p = e->first;

			e->first = p->next;
			free(p);
		}
		free(e->held);
		if (e->eventfd >= 0)
			close(e->eventfd);
	}
	pthread_mutex_destroy(&pair->lock);
	free(pair);
}

static void inprocess_free(struct link *link)
{
	struct pair *pair = to_end(link)->pair;
	int users;

	inprocess_shutdown(link);
	pthread_mutex_lock(&pair->lock);
	users = --pair->users;
	pthread_mutex_unlock(&pair->lock);
	if (!users)
		pair_free(pair);
}

static const struct link_ops inprocess_ops = {
	.name = "in-process",
	.send = inprocess_send,
	.recv = inprocess_recv,
	.fd = inprocess_fd,
	.wants_flush = inprocess_wants_flush,
	.flush = inprocess_flush,
	.shutdown = inprocess_shutdown,
	.free = inprocess_free,
};

int link_inprocess_pair(struct link *ends[2], enum wire_purpose purpose)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int i;

	if (!pair)
		return -ENOMEM;
	pthread_mutex_init(&pair->lock, NULL);
	pair->users = 2;
	for (i = 0; i < 2; i++) {
		struct end *e = &pair->end[i];

		transport_init(&e->link, &inprocess_ops, purpose, "the other end");
		e->pair = pair;
		e->last = &e->first;
		e->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ends[i] = &e->link;
	}
	if (pair->end[0].eventfd < 0 || pair->end[1].eventfd < 0) {
		pair_free(pair);
		return -ENOMEM;
	}
	return 0;
}
