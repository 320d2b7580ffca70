// SPDX-License-Identifier: GPL-2.0
/*
 * Links over stream sockets: TCP between hosts, UNIX inside one.
 *
 * Input goes through one buffer, so that one read() usually brings whole messages; a message is handed out
 * where it lies.  The unread rest is moved to the front only when the longest message would not fit behind
 * it.  Of a message that has begun only the rest is read, so that long ones, which come in a stream, all lie at the front:
 * what is there is still in a CPU's cache.
 *
 * Output is written at once by the sender.  What the socket does not take is queued, and while
 * anything is queued everything else queues up behind it, until flush has written it.
 *
 * The two directions die separately: after a failed write a last message of the peer (why it left) can
 * still be read.  Whoever kills a direction shuts the socket down, so that the peer and all pollers notice.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport.h"

#define RX_SIZE		(1u << 20)
#define RX_READ		(64u << 10)
#define QUIET_BYTES	(64 << 10)	/* less wakes nobody then: some pages */

_Static_assert(RX_SIZE >= 2 * WIRE_GRANT_LENGTH_MAX && RX_READ <= WIRE_GRANT_LENGTH_MAX, "compaction is rare");

struct socket_link {
	struct link link;
	int fd;

	/* The receiver's alone. */
	size_t rx_start, rx_end;	/* bytes received and not handed out */
	size_t rx_held;			/* bytes of the message that the caller still looks at */
	bool rx_short, rx_drained;	/* the last read got less than it wanted; and a whole message */
	int rx_error;

	bool shut;			/* this side has ended it: input that is left is not wanted. Atomic */
	pthread_mutex_t lock;		/* protects link.error and what follows */
	bool tx_dead;
	uint8_t *tx;			/* queue: tx[tx_start..tx_end) of tx_size */
	size_t tx_start, tx_end, tx_size;

	uint8_t rx[RX_SIZE] __attribute__((aligned(64)));
};

static struct socket_link *to_socket(struct link *link)
{
	return (struct socket_link *)link;
}

static size_t queued(const struct socket_link *s)
{
	return __atomic_load_n(&s->tx_end, __ATOMIC_RELAXED) -
	       __atomic_load_n(&s->tx_start, __ATOMIC_RELAXED);
}

static void set_queue(struct socket_link *s, size_t start, size_t end)
{
	__atomic_store_n(&s->tx_start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&s->tx_end, end, __ATOMIC_RELAXED);
}

/* Called with the lock held. */
static void kill_output(struct socket_link *s)
{
	s->tx_dead = true;
	set_queue(s, 0, 0);
}

/* Called with the lock held. */
static void kill_both(struct socket_link *s)
{
	kill_output(s);
	__atomic_store_n(&s->shut, true, __ATOMIC_RELEASE);
	shutdown(s->fd, SHUT_RDWR);
}

/* Room behind the queue.  It is at most half full then, so that bytes are moved once on average. */
static int make_room(struct socket_link *s, size_t more)
{
	size_t used = queued(s), size = s->tx_size ? s->tx_size : 4 * WIRE_LENGTH_MAX;
	uint8_t *tx = s->tx;

	if (used + more > TRANSPORT_QUEUE_MAX)
		return -ENOBUFS;
	while (size < 2 * (used + more))
		size *= 2;
	if (size > s->tx_size)
		tx = malloc(size);
	if (!tx)
		return -ENOBUFS;
	if (used)
		memmove(tx, s->tx + s->tx_start, used);
	if (tx != s->tx)
		free(s->tx);
	s->tx = tx;
	s->tx_size = size;
	set_queue(s, 0, used);
	return 0;
}

/* Queue what iov holds beyond the first `skip` bytes. */
static int enqueue(struct socket_link *s, const struct iovec *iov, int count, size_t skip, size_t length)
{
	int ret = 0, i;

	if (s->tx_end + length - skip > s->tx_size)
		ret = make_room(s, length - skip);
	if (ret) {
		transport_set_error(&s->link, "%s does not read what is sent to it", s->link.peer);
		kill_both(s);
		return ret;
	}
	for (i = 0; i < count; i++) {
		size_t part = iov[i].iov_len;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		memcpy(s->tx + s->tx_end, (uint8_t *)iov[i].iov_base + skip, part - skip);
		set_queue(s, s->tx_start, s->tx_end + part - skip);
		skip = 0;
	}
	return 0;
}

/* Bytes taken, 0 when the socket is full, -EPIPE. */
static ssize_t write_some(struct socket_link *s, const struct iovec *iov, int count)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
	ssize_t n;

	do {
		n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	if (errno == EPIPE || errno == ECONNRESET)
		transport_set_error(&s->link, "%s closed the connection", s->link.peer);
	else
		transport_set_error(&s->link, "writing to %s: %s", s->link.peer, strerror(errno));
	kill_output(s);
	return -EPIPE;
}

static int socket_send(struct link *link, const struct iovec *iov, int count)
{
	struct socket_link *s = to_socket(link);
	unsigned messages;
	size_t length = transport_length(iov, count, &messages);
	ssize_t n = 0;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (s->tx_dead)
		n = -EPIPE;
	else if (!queued(s))
		n = write_some(s, iov, count);
	if (n < 0)
		ret = (int)n;
	else if ((size_t)n < length)
		ret = enqueue(s, iov, count, n, length);
	if (!ret)
		transport_count_out(link, messages, length);
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static bool socket_wants_flush(const struct link *link)
{
	return queued((const struct socket_link *)link) != 0;
}

static int socket_flush(struct link *link)
{
	struct socket_link *s = to_socket(link);
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	while (queued(s)) {
		struct iovec iov = { .iov_base = s->tx + s->tx_start, .iov_len = queued(s) };
		ssize_t n = write_some(s, &iov, 1);

		if (n <= 0) {
			ret = (int)n;
			break;
		}
		set_queue(s, s->tx_start + n, s->tx_end);
		if (!queued(s))
			set_queue(s, 0, 0);
	}
	if (s->tx_dead)
		ret = -EPIPE;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static int kill_input(struct socket_link *s, int error, const char *what)
{
	s->rx_error = error;
	pthread_mutex_lock(&s->lock);
	transport_set_error(&s->link, "%s %s", s->link.peer, what);
	kill_both(s);
	pthread_mutex_unlock(&s->lock);
	return error;
}

static int protocol_error(struct socket_link *s, const char *why)
{
	char what[WIRE_REASON_MAX];

	strcpy(what, "sent a ");
	strncat(what, why, sizeof(what) - strlen(what) - 1);
	return kill_input(s, -EPROTO, what);
}

/* Length of the first message in the buffer, 0 when it is not whole, -EPROTO. */
static int first_message(struct socket_link *s, const struct wire_hdr **msg)
{
	const struct wire_hdr *hdr = (const void *)(s->rx + s->rx_start);
	size_t have = s->rx_end - s->rx_start;
	const char *why;

	if (have < sizeof(*hdr))
		return 0;
	why = wire_check_length(hdr, s->link.purpose);
	if (!why && have < hdr->length)
		return 0;
	if (!why)
		why = wire_check(hdr, hdr->length, s->link.purpose);
	if (why)
		return protocol_error(s, why);
	s->rx_held = hdr->length;
	transport_count_in(&s->link, hdr->length);
	*msg = hdr;
	return (int)hdr->length;
}

/* How many bytes to read: what a message that is not whole lacks, or whatever there is. */
static size_t wanted(const struct socket_link *s)
{
	const struct wire_hdr *hdr = (const void *)(s->rx + s->rx_start);
	size_t have = s->rx_end - s->rx_start;

	return have < sizeof(*hdr) ? RX_READ : hdr->length - have;
}

static int read_more(struct socket_link *s, int flags)
{
	size_t want;
	ssize_t n;

	if (s->rx_start == s->rx_end) {
		s->rx_start = s->rx_end = 0;
	} else if (RX_SIZE - s->rx_start < WIRE_GRANT_LENGTH_MAX) {
		memmove(s->rx, s->rx + s->rx_start, s->rx_end - s->rx_start);
		s->rx_end -= s->rx_start;
		s->rx_start = 0;
	}
	want = wanted(s);
	do {
		n = recv(s->fd, s->rx + s->rx_end, want, flags);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		s->rx_end += n;
		s->rx_short = (size_t)n < want;
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n < 0 && errno != ECONNRESET)
		return kill_input(s, -errno, strerror(errno));
	if (s->rx_start != s->rx_end)
		return kill_input(s, -EPROTO, "closed the connection within a message");
	return kill_input(s, -EPIPE, "closed the connection");
}

static int receive(struct link *link, const struct wire_hdr **msg, int flags)
{
	struct socket_link *s = to_socket(link);
	int ret;

	s->rx_start += s->rx_held;
	s->rx_held = 0;
	if (!s->rx_error && __atomic_load_n(&s->shut, __ATOMIC_ACQUIRE))
		s->rx_error = -EPIPE;
	if (s->rx_error)
		return s->rx_error;
	ret = first_message(s, msg);
	if (ret)
		return ret;
	if (s->rx_drained && flags & MSG_DONTWAIT) {
		s->rx_drained = false;	/* who polls next will know */
		return 0;
	}
	ret = read_more(s, flags);
	if (ret > 0)
		ret = first_message(s, msg);
	s->rx_drained = ret > 0 && s->rx_short;
	return ret;
}

static int socket_recv(struct link *link, const struct wire_hdr **msg)
{
	return receive(link, msg, MSG_DONTWAIT);
}

static int socket_recv_blocking(struct link *link, const struct wire_hdr **msg)
{
	return receive(link, msg, 0);
}

static void socket_quiet(struct link *link, bool quiet)
{
	int least = quiet ? QUIET_BYTES : 1;

	/* who polls wakes up all the same at the end of the connection, and of a UNIX socket always: no harm */
	setsockopt(to_socket(link)->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
}

static int socket_fd(const struct link *link)
{
	return ((const struct socket_link *)link)->fd;
}

static void socket_shutdown(struct link *link)
{
	struct socket_link *s = to_socket(link);

	pthread_mutex_lock(&s->lock);
	transport_set_error(link, "the connection to %s was shut down", link->peer);
	kill_both(s);
	pthread_mutex_unlock(&s->lock);
}

static void socket_free(struct link *link)
{
	struct socket_link *s = to_socket(link);

	close(s->fd);
	pthread_mutex_destroy(&s->lock);
	free(s->tx);
	free(s);
}

static const struct link_ops socket_ops = {
	.name = "tcp",
	.send = socket_send,
	.recv = socket_recv,
	.recv_blocking = socket_recv_blocking,
	.quiet = socket_quiet,
	.fd = socket_fd,
	.wants_flush = socket_wants_flush,
	.flush = socket_flush,
	.shutdown = socket_shutdown,
	.free = socket_free,
};

struct link *link_socket_new(int fd, enum wire_purpose purpose, const char *peer)
{
	struct socket_link *s;
	int one = 1;

	s = aligned_alloc(64, sizeof(*s));
	if (!s) {
		close(fd);
		return NULL;
	}
	memset(s, 0, offsetof(struct socket_link, rx));
	transport_init(&s->link, &socket_ops, purpose, peer);
	pthread_mutex_init(&s->lock, NULL);
	s->fd = fd;
	/* Fails on UNIX sockets, which have no need of it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return &s->link;
}
