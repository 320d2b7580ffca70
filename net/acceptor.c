// SPDX-License-Identifier: GPL-2.0
/*
 * Accepting connections, a bounded number of unproven ones at a time: while that many are in their handshake,
 * or when the host has no more descriptors, nothing is accepted and the rest waits in the kernel's backlog.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "acceptor.h"

#define GUESTS_MAX	64
#define PAUSE_MS	100

struct guest {
	struct guest *next;
	struct acceptor *acceptor;
	struct handshake *handshake;
	char from[ADDRESS_TEXT_MAX];
};

struct acceptor {
	struct event_base *base;
	int fd, timeout_ms;
	struct event *event, *resume;
	const struct acceptor_ops *ops;
	void *ctx;
	struct guest *guests;
	unsigned guest_count;
	bool starved;			/* and this has been said */
};

static void forget(struct guest *g)
{
	struct acceptor *a = g->acceptor;
	struct guest **p = &a->guests;

	while (*p != g)
		p = &(*p)->next;
	*p = g->next;
	if (a->guest_count-- == GUESTS_MAX)
		event_add(a->event, NULL);
	free(g);
}

static const char *on_judge(void *ctx, const struct wire_hello *hello)
{
	struct guest *g = ctx;

	return g->acceptor->ops->judge(g->acceptor->ctx, hello);
}

static void on_done(void *ctx, int fd, const struct wire_hello *hello, const char *why)
{
	struct guest *g = ctx;
	struct acceptor *a = g->acceptor;

	if (fd >= 0)
		a->ops->connected(a->ctx, fd, hello, g->from);
	else
		a->ops->refused(a->ctx, g->from, why);
	forget(g);
}

static int admit(struct acceptor *a, int fd, const struct address *from)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g) {
		close(fd);
		return -ENOMEM;
	}
	g->acceptor = a;
	if (from->sa.ss_family == AF_UNIX)
		snprintf(g->from, sizeof(g->from), "the control socket");
	else
		address_format(from, g->from);
	g->handshake = handshake_accept(a->base, fd, a->timeout_ms, on_judge, on_done, g);
	if (!g->handshake) {
		free(g);
		return -ENOMEM;
	}
	g->next = a->guests;
	a->guests = g;
	a->guest_count++;
	return 0;
}

static void pause_accepting(struct acceptor *a, int error)
{
	const struct timeval pause = { .tv_usec = PAUSE_MS * 1000 };

	if (!a->starved)
		a->ops->refused(a->ctx, "somebody", strerror(error));
	a->starved = true;
	event_del(a->event);
	event_add(a->resume, &pause);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct acceptor *a = arg;

	(void)fd;
	(void)what;
	if (a->guest_count < GUESTS_MAX)
		event_add(a->event, NULL);
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
	struct acceptor *a = arg;

	(void)what;
	while (a->guest_count < GUESTS_MAX) {
		struct address from = { .length = sizeof(from.sa) };
		int accepted = accept4(fd, (struct sockaddr *)&from.sa, &from.length, SOCK_CLOEXEC);

		if (accepted < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (accepted < 0) {
			if (errno != EAGAIN)
				pause_accepting(a, errno);
			return;
		}
		if (admit(a, accepted, &from)) {
			pause_accepting(a, ENOMEM);
			return;
		}
		a->starved = false;
	}
	event_del(a->event);
}

struct acceptor *acceptor_new(struct event_base *base, int fd, int timeout_ms,
			      const struct acceptor_ops *ops, void *ctx)
{
	struct acceptor *a = calloc(1, sizeof(*a));

	if (!a) {
		close(fd);
		return NULL;
	}
	a->base = base;
	a->fd = fd;
	a->timeout_ms = timeout_ms;
	a->ops = ops;
	a->ctx = ctx;
	a->event = event_new(base, fd, EV_READ | EV_PERSIST, on_connection, a);
	a->resume = evtimer_new(base, on_resume, a);
	if (a->event && a->resume && !event_add(a->event, NULL))
		return a;
	acceptor_free(a);
	return NULL;
}

void acceptor_free(struct acceptor *a)
{
	while (a->guests) {
		struct guest *g = a->guests;

		a->guests = g->next;
		handshake_cancel(g->handshake);
		free(g);
	}
	if (a->event)
		event_free(a->event);
	if (a->resume)
		event_free(a->resume);
	close(a->fd);
	free(a);
}
