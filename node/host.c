// SPDX-License-Identifier: GPL-2.0
/*
 * Node 0: takes nodes in, lays the machine out, starts the kernel, judges why the machine ends.
 *
 * States: WAITING for nodes -> PREPARING (machines are made) -> CONNECTING (channels) -> RUNNING -> ENDING.
 *
 * When one thing breaks, others break of it at once: a dead node closes its channels, so the kernel and its
 * peers fail; a kernel that exits closes its channels, so every machine fails.  So reports have ranks.  The
 * end of the kernel by exit, the loss of a node, a signal are causes: final.  A failed machine or a crashed
 * kernel may be a consequence: it waits a moment for something of higher rank.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../net/acceptor.h"
#include "host.h"
#include "layout.h"
#include "log.h"
#include "memory.h"

#define FAREWELL_MS	500	/* for nodes to end after Stop */
#define DEFERRALS_MAX	4	/* of the verdict, each by VERDICT_MS, while the kernel ends */

int64_t host_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static void arm(struct event *timer, unsigned ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(timer, &tv);
}

/* --- the end --- */

static void leave_when_alone(struct host *h)
{
	if (h->state == HOST_ENDING && !h->peers)
		event_base_loopbreak(h->base);
}

void host_peer_free(struct peer *p)
{
	struct host *h = p->host;
	struct peer **link = &h->peers;

	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	if (p->state == PEER_CANDIDATE)
		h->candidates--;
	if (h->node[p->number] == p)
		h->node[p->number] = NULL;
	control_conn_free(p->conn);
	free(p);
	leave_when_alone(h);
}

static void end(struct host *h)
{
	struct peer *p, *next;

	if (!h->verdict.clean && h->started_ms)
		report("%s; the machine stops, its log is %s", h->verdict.reason, h->options->log);
	else if (!h->verdict.clean)
		report("%s; the machine stops", h->verdict.reason);
	else
		log_line(LOG_INFO, "%s", h->verdict.reason);
	h->state = HOST_ENDING;
	if (h->kernel_end)
		event_del(h->kernel_end);
	kernel_kill(&h->kernel);
	arm(h->farewell, FAREWELL_MS);
	for (p = h->peers; p; p = next) {
		next = p->next;
		if (p->state == PEER_CANDIDATE)
			host_peer_free(p);
		else
			membership_send_stop(p->conn, h->verdict.clean, h->verdict.reason);
	}
	if (h->machine)
		machine_free(h->machine);
	h->machine = NULL;
	leave_when_alone(h);
}

void host_conclude(struct host *h, enum verdict_rank rank, int status, bool clean, const char *format, ...)
{
	struct verdict *v = &h->verdict;
	va_list args;

	if (h->state == HOST_ENDING || rank <= v->rank)
		return;
	v->rank = rank;
	v->status = status;
	v->clean = clean;
	va_start(args, format);
	vsnprintf(v->reason, sizeof(v->reason), format, args);
	va_end(args);
	if (rank == VERDICT_FINAL || h->deferrals)	/* nobody has had anything better to say by then */
		end(h);
	else
		arm(h->judge, VERDICT_MS);
}

static void on_judge(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;

	(void)fd;
	(void)what;
	if (h->state == HOST_ENDING)
		return;
	/* Channels that close are the first to be seen of a kernel that ends, and its status is still to come. */
	if (h->verdict.rank == VERDICT_MACHINE && h->deferrals < DEFERRALS_MAX && kernel_is_ending(&h->kernel)) {
		h->deferrals++;
		arm(h->judge, VERDICT_MS);
	} else {
		end(h);
	}
}

static void on_farewell(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;

	(void)fd;
	(void)what;
	log_line(LOG_WARNING, "not all nodes have ended in time");
	event_base_loopbreak(h->base);
}

static void on_trouble(void *ctx, const char *reason)
{
	host_conclude(ctx, VERDICT_MACHINE, EXIT_BROKEN, false, "node 0 has failed: %s", reason);
}

static void peer_gone(struct peer *p, const char *why)
{
	struct host *h = p->host;

	if (p->state == PEER_CANDIDATE || h->state == HOST_WAITING || h->state == HOST_ENDING)
		log_line(LOG_INFO, "node %s at %s has left: %s", p->name, p->from, why);
	else
		host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "node %u (%s) is gone: %s", p->number,
			      p->name, why);
	host_peer_free(p);
}

/* --- the kernel --- */

static void on_kernel_end(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;
	int status;

	(void)fd;
	(void)what;
	event_free(h->kernel_end);
	h->kernel_end = NULL;
	status = kernel_reap(&h->kernel);
	if (WIFEXITED(status))
		host_conclude(h, VERDICT_FINAL, WEXITSTATUS(status), true,
			      "the machine has ended with status %d", WEXITSTATUS(status));
	else
		host_conclude(h, VERDICT_CRASH, EXIT_BROKEN, false,
			      "the kernel was killed by signal %d (%s)", WTERMSIG(status),
			      strsignal(WTERMSIG(status)));
}

void host_start_kernel(struct host *h)
{
	char err[256];

	if (kernel_start(&h->kernel, h->options, &h->layout, h->machine, &h->channels, err, sizeof(err))) {
		host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "%s", err);
		return;
	}
	h->started_ms = host_now_ms();
	h->state = HOST_RUNNING;
	membership_started(h->options);
	h->kernel_end = event_new(h->base, h->kernel.pidfd, EV_READ, on_kernel_end, h);
	if (!h->kernel_end || event_add(h->kernel_end, NULL))
		host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "cannot watch the kernel: out of memory");
}

/* --- control connections --- */

static bool expected(const struct peer *p, const Pangea__Message *message)
{
	switch (message->body_case) {
	case PANGEA__MESSAGE__BODY_JOIN:
		return p->state == PEER_CANDIDATE;
	case PANGEA__MESSAGE__BODY_PREPARED:
		return p->state == PEER_JOINED && p->number;
	case PANGEA__MESSAGE__BODY_READY:
		return p->state == PEER_PREPARED && p->host->state == HOST_CONNECTING;
	case PANGEA__MESSAGE__BODY_FAILED:
		return p->number;
	case PANGEA__MESSAGE__BODY_STOP:
		return p->state != PEER_CANDIDATE;
	case PANGEA__MESSAGE__BODY_HEARTBEAT:
		return p->state != PEER_CANDIDATE;
	default:
		return false;
	}
}

static void on_message(void *ctx, const Pangea__Message *message)
{
	struct peer *p = ctx;
	struct host *h = p->host;

	if (h->state == HOST_ENDING)
		return;
	if (!expected(p, message)) {
		peer_gone(p, "it sent a control message that does not belong here");
		return;
	}
	p->silent = 0;
	switch (message->body_case) {
	case PANGEA__MESSAGE__BODY_JOIN:
		host_join(p, message->join);
		break;
	case PANGEA__MESSAGE__BODY_PREPARED:
		host_peer_prepared(p);
		break;
	case PANGEA__MESSAGE__BODY_READY:
		host_peer_ready(p);
		break;
	case PANGEA__MESSAGE__BODY_HEARTBEAT:
		if (message->heartbeat->stats)
			membership_stats_from_message(message->heartbeat->stats, &p->stats);
		break;
	case PANGEA__MESSAGE__BODY_FAILED:
		host_conclude(h, VERDICT_MACHINE, EXIT_BROKEN, false, "node %u (%s) has failed: %s",
			      p->number, p->name, message->failed->reason);
		break;
	case PANGEA__MESSAGE__BODY_STOP:
		peer_gone(p, message->stop->reason);
		break;
	default:
		break;
	}
}

static void on_closed(void *ctx, const char *why)
{
	peer_gone(ctx, why);
}

static const struct control_conn_ops conn_ops = { .message = on_message, .closed = on_closed };

/* Who has not joined by now has less claim to the place than who has just come. */
static void drop_oldest_candidate(struct host *h)
{
	struct peer *p = h->peers;

	while (p->state != PEER_CANDIDATE)
		p = p->next;
	peer_gone(p, "it did not join, and others want to");
}

static void new_candidate(struct host *h, int fd, const char *from)
{
	struct peer **end_of_list = &h->peers;
	struct peer *p = calloc(1, sizeof(*p));

	if (!p) {
		close(fd);
		return;
	}
	p->host = h;
	snprintf(p->name, sizeof(p->name), "(unknown)");
	snprintf(p->from, sizeof(p->from), "%s", from);
	p->conn = control_conn_new(h->base, fd, &conn_ops, p);
	if (!p->conn) {
		free(p);
		return;
	}
	if (h->candidates == CANDIDATES_MAX)
		drop_oldest_candidate(h);
	while (*end_of_list)
		end_of_list = &(*end_of_list)->next;
	*end_of_list = p;
	h->candidates++;
}

static void on_connected(void *ctx, int fd, const struct wire_hello *hello, const char *from)
{
	struct host *h = ctx;

	if (hello->purpose == WIRE_PURPOSE_CONTROL)
		new_candidate(h, fd, from);
	else if (hello->purpose == WIRE_PURPOSE_CPU)
		h->channels.cpu[hello->cpu] = fd;
	else if (hello->purpose == WIRE_PURPOSE_MM)
		h->channels.mm[hello->node] = fd;
	else
		host_attach_dsm(h, fd, h->node[hello->node], hello->purpose);
}

static void on_refused(void *ctx, const char *from, const char *why)
{
	(void)ctx;
	log_line(LOG_WARNING, "connection from %s refused: %s", from, why);
}

static const struct acceptor_ops acceptor_ops = {
	.judge = host_judge, .connected = on_connected, .refused = on_refused,
};

static void tick_peer(struct peer *p)
{
	unsigned limit = p->state == PEER_READY ? SILENCE_TICKS : SILENCE_TICKS_START;
	char why[64];

	if (p->state == PEER_CANDIDATE) {
		if (++p->silent > JOIN_TICKS)
			peer_gone(p, "it did not join in time");
	} else if (++p->silent > limit) {
		snprintf(why, sizeof(why), "it has been silent for %u ms", limit * HEARTBEAT_MS);
		peer_gone(p, why);
	} else {
		membership_send_heartbeat(p->conn, NULL);
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;
	struct peer *p, *next;

	(void)fd;
	(void)what;
	for (p = h->peers; p && h->state != HOST_ENDING; p = next) {
		next = p->next;
		tick_peer(p);
	}
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	const char *name;
	int number = membership_read_signal(fd, &name);

	(void)what;
	host_conclude(arg, VERDICT_FINAL, -number, true, "the machine was ended by %s", name);
}

/* --- start and end --- */

static int check_own_host(struct host *h, char *err, size_t err_size)
{
	uint64_t available = memory_available(), share;

	if (layout_divide(&h->layout, h->options->nodes, h->options->cpus, h->options->memory, err, err_size))
		return -1;
	share = layout_bytes(&h->layout.node[0]);
	if (available < share) {
		snprintf(err, err_size, "this host has %" PRIu64 "M of free memory, the share of node 0 is %"
			 PRIu64 "M; use a smaller --mem", available >> 20, share >> 20);
		return -1;
	}
	features_read(&h->features);
	uname(&h->uts);
	h->uts.release[CONTROL_NAME_MAX] = 0;
	return 0;
}

static int make_events(struct host *h, int signal_fd)
{
	const struct timeval heartbeat = { .tv_usec = HEARTBEAT_MS * 1000 };

	h->trouble = trouble_new(h->base, on_trouble, h);
	h->signal = event_new(h->base, signal_fd, EV_READ | EV_PERSIST, on_signal, h);
	h->tick = event_new(h->base, -1, EV_PERSIST, on_tick, h);
	h->judge = evtimer_new(h->base, on_judge, h);
	h->farewell = evtimer_new(h->base, on_farewell, h);
	if (!h->trouble || !h->signal || !h->tick || !h->judge || !h->farewell)
		return -1;
	return event_add(h->signal, NULL) || event_add(h->tick, &heartbeat) ? -1 : 0;
}

static int start(struct host *h, int signal_fd, char *err, size_t err_size)
{
	struct address bound;
	int fd;

	if (check_own_host(h, err, err_size))
		return -1;
	if (getrandom(h->layout.machine, sizeof(h->layout.machine), 0) != sizeof(h->layout.machine)) {
		snprintf(err, err_size, "no random numbers: %s", strerror(errno));
		return -1;
	}
	h->tools = tools_new(h->base, h->options->control, &host_tools_ops, h, err, err_size);
	if (!h->tools)
		return -1;
	fd = membership_listen(h->options, &bound, err, err_size);
	if (fd < 0)
		return -1;
	h->acceptor = acceptor_new(h->base, fd, HANDSHAKE_MS, &acceptor_ops, h);
	if (h->acceptor && !make_events(h, signal_fd))
		return 0;
	snprintf(err, err_size, "out of memory");
	return -1;
}

/* After end(), or when the start has failed.  The tools are last: they wait for the end. */
static void release(struct host *h)
{
	struct event *const events[] = { h->signal, h->tick, h->judge, h->farewell, h->kernel_end };
	size_t i;

	while (h->peers)
		host_peer_free(h->peers);
	if (h->acceptor)
		acceptor_free(h->acceptor);
	kernel_channels_close(&h->channels);
	if (h->trouble)
		trouble_free(h->trouble);
	for (i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
	if (h->tools)
		tools_free(h->tools);
	free(h);
}

int host_run(const struct options *options, struct event_base *base, int signal_fd)
{
	struct host *h = calloc(1, sizeof(*h));
	char err[256] = "out of memory";
	int status = EXIT_BROKEN;

	if (!h) {
		report("%s", err);
		return status;
	}
	h->options = options;
	h->base = base;
	h->kernel.pidfd = -1;
	memset(&h->channels, 0xff, sizeof(h->channels));
	if (start(h, signal_fd, err, sizeof(err))) {
		report("%s", err);
	} else {
		if (h->layout.nodes == 1)
			host_lay_out(h);
		if (h->state != HOST_ENDING)
			event_base_dispatch(base);
		status = h->verdict.status;
	}
	release(h);
	return status;
}
