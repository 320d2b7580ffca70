// SPDX-License-Identifier: GPL-2.0
/* What is the same for links of every transport. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "transport.h"

int link_send_msg(struct link *link, const void *msg)
{
	const struct wire_hdr *hdr = msg;
	struct iovec iov = { .iov_base = (void *)msg, .iov_len = hdr->length };

	return link_send(link, &iov, 1);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int wait_for_input(struct link *link, int timeout_ms)
{
	bool flush = link->ops->wants_flush(link);
	struct pollfd pfd = { .fd = link_fd(link), .events = POLLIN | (flush ? POLLOUT : 0) };

	if (poll(&pfd, 1, timeout_ms) < 0 && errno != EINTR)
		return -errno;
	/* A failed flush is seen by the next recv, which knows what came before. */
	if (pfd.revents & POLLOUT)
		link->ops->flush(link);
	return 0;
}

int link_recv_wait(struct link *link, const struct wire_hdr **msg, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
	int64_t left = timeout_ms;
	int ret;

	for (;;) {
		if (timeout_ms < 0 && link->ops->recv_blocking && !link->ops->wants_flush(link))
			ret = link->ops->recv_blocking(link, msg);
		else
			ret = link_recv(link, msg);
		if (ret)
			return ret;
		if (timeout_ms >= 0) {
			left = deadline - now_ms();
			if (left <= 0)
				return -ETIMEDOUT;
		}
		ret = wait_for_input(link, (int)left);
		if (ret)
			return ret;
	}
}

void link_get_stats(const struct link *link, struct link_stats *stats)
{
	stats->messages_in = __atomic_load_n(&link->stats.messages_in, __ATOMIC_RELAXED);
	stats->messages_out = __atomic_load_n(&link->stats.messages_out, __ATOMIC_RELAXED);
	stats->bytes_in = __atomic_load_n(&link->stats.bytes_in, __ATOMIC_RELAXED);
	stats->bytes_out = __atomic_load_n(&link->stats.bytes_out, __ATOMIC_RELAXED);
}

void transport_init(struct link *link, const struct link_ops *ops, enum wire_purpose purpose,
		    const char *peer)
{
	link->ops = ops;
	link->purpose = purpose;
	snprintf(link->peer, sizeof(link->peer), "%s", peer);
}

size_t transport_length(const struct iovec *iov, int count, unsigned *messages)
{
	size_t length = 0, next = 0;

	*messages = 0;
	for (int i = 0; i < count; length += iov[i++].iov_len)
		for (; next < length + iov[i].iov_len; ++*messages)
			next += ((const struct wire_hdr *)((const uint8_t *)iov[i].iov_base + next - length))->length;
	assert(length && next == length);
	return length;
}

/* Senders are serialised by the lock of the link, and there is one receiver: no read-modify-write needed. */
static void count(uint64_t *counter, uint64_t more)
{
	__atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

void transport_count_out(struct link *link, unsigned messages, size_t bytes)
{
	count(&link->stats.messages_out, messages);
	count(&link->stats.bytes_out, bytes);
}

void transport_count_in(struct link *link, size_t bytes)
{
	count(&link->stats.messages_in, 1);
	count(&link->stats.bytes_in, bytes);
}

void transport_set_error(struct link *link, const char *format, ...)
{
	va_list args;

	if (link->error[0])
		return;
	va_start(args, format);
	vsnprintf(link->error, sizeof(link->error), format, args);
	va_end(args);
}
