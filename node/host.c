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
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../net/acceptor.h"
#include "features.h"
#include "kernel.h"
#include "layout.h"
#include "log.h"
#include "membership.h"
#include "tools.h"

#define CANDIDATES_MAX	32	/* control connections that are no node yet */
#define VERDICT_MS	200	/* for a cause to show up behind a consequence */
#define FAREWELL_MS	500	/* for nodes to end after Stop */

enum host_state { HOST_WAITING, HOST_PREPARING, HOST_CONNECTING, HOST_RUNNING, HOST_ENDING };

static const char *const host_state_names[] = {
	"waiting for nodes", "starting", "starting", "running", "stopping",
};

enum peer_state { PEER_CANDIDATE, PEER_JOINED, PEER_PREPARED, PEER_READY };

static const char *const peer_state_names[] = { "joining", "joined", "prepared", "ready" };

struct host;

/*
 * A node, or what may become one: its number follows from the order of joining and is final with the
 * layout.
 */
struct peer {
	struct peer *next;
	struct host *host;
	enum peer_state state;
	unsigned number;
	struct control_conn *conn;
	unsigned silent;		/* ticks since it was heard */
	bool dsm;			/* its dsm channel is attached */
	char from[ADDRESS_TEXT_MAX];
	char name[CONTROL_NAME_MAX + 1], address[CONTROL_NAME_MAX + 1], kernel[CONTROL_NAME_MAX + 1];
	struct machine_stats stats;
};

enum verdict_rank { VERDICT_NONE, VERDICT_MACHINE, VERDICT_CRASH, VERDICT_FINAL };

struct verdict {
	enum verdict_rank rank;
	int status;
	bool clean;
	char reason[512];
};

struct host {
	const struct options *options;
	struct event_base *base;
	enum host_state state;
	struct verdict verdict;
	struct layout layout;
	struct features features;
	struct utsname uts;
	struct peer *peers;		/* in the order of joining, candidates anywhere */
	struct peer *node[WIRE_NODES_MAX];	/* by number, from PREPARING on; NULL: itself, or gone */
	unsigned candidates;
	struct kernel_channels channels;
	struct kernel kernel;
	int64_t started_ms;
	struct trouble *trouble;
	struct machine *machine;
	struct acceptor *acceptor;
	struct tools *tools;
	struct event *signal, *tick, *judge, *farewell, *kernel_end;
};

static int64_t now_ms(void)
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

static void peer_free(struct peer *p)
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

	if (!h->verdict.clean)
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
			peer_free(p);
		else
			membership_send_stop(p->conn, h->verdict.clean, h->verdict.reason);
	}
	leave_when_alone(h);
}

__attribute__((format(printf, 5, 6)))
static void conclude(struct host *h, enum verdict_rank rank, int status, bool clean, const char *format, ...)
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
	if (rank == VERDICT_FINAL)
		end(h);
	else
		arm(h->judge, VERDICT_MS);
}

static void on_judge(evutil_socket_t fd, short what, void *arg)
{
	struct host *h = arg;

	(void)fd;
	(void)what;
	if (h->state != HOST_ENDING)
		end(h);
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
	conclude(ctx, VERDICT_MACHINE, EXIT_BROKEN, false, "node 0 has failed: %s", reason);
}

static void peer_gone(struct peer *p, const char *why)
{
	struct host *h = p->host;

	if (p->state == PEER_CANDIDATE || h->state == HOST_WAITING || h->state == HOST_ENDING)
		log_line(LOG_INFO, "node %s at %s has left: %s", p->name, p->from, why);
	else
		conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "node %u (%s) is gone: %s",
			 p->number, p->name, why);
	peer_free(p);
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
		conclude(h, VERDICT_FINAL, WEXITSTATUS(status), true, "the machine has ended with status %d",
			 WEXITSTATUS(status));
	else
		conclude(h, VERDICT_CRASH, EXIT_BROKEN, false,
			 "the kernel was killed by signal %d (%s), see %s",
			 WTERMSIG(status), strsignal(WTERMSIG(status)), h->options->log);
}

static void start_kernel(struct host *h)
{
	char err[256];

	if (kernel_start(&h->kernel, h->options, &h->layout, h->machine, &h->channels, err, sizeof(err))) {
		conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "%s", err);
		return;
	}
	h->started_ms = now_ms();
	h->state = HOST_RUNNING;
	h->kernel_end = event_new(h->base, h->kernel.pidfd, EV_READ, on_kernel_end, h);
	if (!h->kernel_end || event_add(h->kernel_end, NULL))
		conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "cannot watch the kernel: out of memory");
}

/* --- channels of other nodes --- */

static const char *judge_channel(struct host *h, const struct wire_hello *hello)
{
	const struct layout_node *node = &h->layout.node[hello->node];

	if (h->state != HOST_CONNECTING || memcmp(hello->machine, h->layout.machine, sizeof(hello->machine)))
		return "this is not the machine, or it takes no channels now";
	if (!h->node[hello->node])
		return "there is no such node";
	if (hello->purpose == WIRE_PURPOSE_CPU) {
		if (hello->cpu < node->cpu_start || hello->cpu - node->cpu_start >= node->cpu_count)
			return "that CPU is not one of that node";
		return h->channels.cpu[hello->cpu] < 0 ? NULL : "that CPU has its channel already";
	}
	if (hello->purpose == WIRE_PURPOSE_MM)
		return h->channels.mm[hello->node] < 0 ? NULL : "that node has its mm channel already";
	return h->node[hello->node]->dsm ? "that node has its dsm channel already" : NULL;
}

static const char *judge(void *ctx, const struct wire_hello *hello)
{
	struct host *h = ctx;

	if (hello->purpose != WIRE_PURPOSE_CONTROL)
		return judge_channel(h, hello);
	if (hello->node != 0xffff)
		return "a node that joins has no number yet";
	return h->candidates < CANDIDATES_MAX ? NULL : "too many nodes try to join";
}

static void attach_dsm(struct host *h, int fd, struct peer *p)
{
	struct link *link;
	char name[64];
	int ret = -ENOMEM;

	snprintf(name, sizeof(name), "node %u (%.40s)", p->number, p->name);
	link = link_socket_new(fd, WIRE_PURPOSE_DSM, name);
	if (link)
		ret = machine_attach_dsm(h->machine, p->number, link);
	p->dsm = !ret;
	if (!ret)
		return;
	if (link)
		link->ops->free(link);
	conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "the channel of %s: %s", name,
		 strerror(-ret));
}

static bool all_in_state(const struct host *h, enum peer_state state)
{
	unsigned i;

	for (i = 1; i < h->layout.nodes; i++)
		if (!h->node[i] || h->node[i]->state != state)
			return false;
	return true;
}

/* What a node that says it is ready has not connected; NULL: nothing. */
static const char *missing_channel(const struct host *h, const struct peer *p)
{
	const struct layout_node *node = &h->layout.node[p->number];
	unsigned cpu;

	for (cpu = node->cpu_start; cpu < node->cpu_start + node->cpu_count; cpu++)
		if (h->channels.cpu[cpu] < 0)
			return "cpu";
	if (h->channels.mm[p->number] < 0)
		return "mm";
	return p->dsm ? NULL : "dsm";
}

static void peer_ready(struct peer *p)
{
	struct host *h = p->host;
	const char *missing = missing_channel(h, p);

	if (missing) {
		conclude(h, VERDICT_FINAL, EXIT_BROKEN, false,
			 "node %u (%s) says it is ready but has no %s channel", p->number,
			 p->name, missing);
		return;
	}
	p->state = PEER_READY;
	if (all_in_state(h, PEER_READY))
		start_kernel(h);
}

/* --- from nodes to a machine --- */

static void connect_all(struct host *h)
{
	Pangea__Connect body = PANGEA__CONNECT__INIT;
	CONTROL_MESSAGE(message, CONNECT, connect, &body);
	unsigned i;

	h->state = HOST_CONNECTING;
	for (i = 1; i < h->layout.nodes; i++)
		control_conn_send(h->node[i]->conn, &message);
	if (h->layout.nodes == 1)
		start_kernel(h);
}

static void make_own_machine(struct host *h)
{
	char err[256];

	h->machine = membership_make_machine(h->options, &h->layout, h->trouble, err, sizeof(err));
	if (!h->machine)
		conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "%s", err);
	else if (all_in_state(h, PEER_PREPARED))
		connect_all(h);
}

static void name_nodes(struct host *h, const char *addresses[WIRE_NODES_MAX])
{
	unsigned number = 0;
	struct peer *p;

	addresses[0] = "";
	snprintf(h->layout.node[0].name, sizeof(h->layout.node[0].name), "%s", h->options->name);
	for (p = h->peers; p; p = p->next) {
		if (p->state != PEER_JOINED)
			continue;
		p->number = ++number;
		h->node[number] = p;
		addresses[number] = p->address;
		snprintf(h->layout.node[number].name, sizeof(h->layout.node[number].name), "%s", p->name);
		log_line(LOG_INFO, "node %u is %s at %s", number, p->name, p->address);
	}
}

static void lay_out(struct host *h)
{
	const char *addresses[WIRE_NODES_MAX];
	unsigned i;

	h->state = HOST_PREPARING;
	name_nodes(h, addresses);
	for (i = 1; i < h->layout.nodes; i++)
		membership_send_layout(h->node[i]->conn, &h->layout, i, addresses);
	make_own_machine(h);
}

static unsigned joined(const struct host *h)
{
	const struct peer *p;
	unsigned count = 0;

	for (p = h->peers; p; p = p->next)
		count += p->state != PEER_CANDIDATE;
	return count;
}

static void features_from_message(const Pangea__Features *message, struct features *f)
{
	size_t i;

	memset(f, 0, sizeof(*f));
	for (i = 0; i < message->n_words && i < FEATURE_WORDS; i++)
		f->words[i] = message->words[i];
	for (i = 0; i < message->n_xstate_end && i < XSTATE_COMPONENTS; i++)
		f->xstate_end[i] = message->xstate_end[i];
	f->xcr0 = message->xcr0;
	f->xsave_size = message->xsave_size;
}

/* True when the node cannot be taken; text says why. */
static bool unfit(const struct host *h, const Pangea__Join *join, char *text, size_t size)
{
	uint64_t share = h->layout.nodes > 1 ? layout_bytes(&h->layout.node[1]) : 0;
	struct features features;
	char missing[256];

	features_from_message(join->features, &features);
	if (join->protocol != WIRE_VERSION)
		snprintf(text, size, "it speaks protocol version %u, this machine version %u", join->protocol,
			 WIRE_VERSION);
	else if (h->state != HOST_WAITING || joined(h) >= h->layout.nodes - 1)
		snprintf(text, size, "the machine has its %u nodes already", h->layout.nodes);
	else if (join->cpus != h->options->cpus)
		snprintf(text, size, "it gives %u CPUs, but every node of this machine gives %u", join->cpus,
			 h->options->cpus);
	else if (!join->name[0] || !join->address[0])
		snprintf(text, size, "it has no name or no address");
	else if (features_missing(&features, &h->features, missing, sizeof(missing)))
		snprintf(text, size, "its CPU lacks what node 0 (%s) has: %s", h->options->name, missing);
	else if (join->memory_free < share)
		snprintf(text, size, "it has %" PRIu64 "M of free memory, its share is %" PRIu64 "M",
			 join->memory_free >> 20, share >> 20);
	else
		return false;
	return true;
}

static void join(struct peer *p, const Pangea__Join *message)
{
	struct host *h = p->host;
	Pangea__Refuse body = PANGEA__REFUSE__INIT;
	CONTROL_MESSAGE(refusal, REFUSE, refuse, &body);
	char text[400];

	snprintf(p->name, sizeof(p->name), "%s", message->name);
	snprintf(p->address, sizeof(p->address), "%s", message->address);
	snprintf(p->kernel, sizeof(p->kernel), "%s", message->kernel);
	if (unfit(h, message, text, sizeof(text))) {
		log_line(LOG_WARNING, "node %s at %s refused: %s", p->name, p->from, text);
		body.reason = text;
		control_conn_send(p->conn, &refusal);
		peer_free(p);
		return;
	}
	p->state = PEER_JOINED;
	h->candidates--;
	log_line(LOG_INFO, "node %s at %s has joined (Linux %s, %" PRIu64 "M free)", p->name, p->address,
		 p->kernel, message->memory_free >> 20);
	if (joined(h) == h->layout.nodes - 1)
		lay_out(h);
}

/* --- control connections --- */

static void prepared(struct peer *p)
{
	struct host *h = p->host;

	p->state = PEER_PREPARED;
	if (h->machine && all_in_state(h, PEER_PREPARED))
		connect_all(h);
}

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
	case PANGEA__MESSAGE__BODY_STOP:
		return p->state != PEER_CANDIDATE;
	default:
		return message->body_case == PANGEA__MESSAGE__BODY_HEARTBEAT;
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
		join(p, message->join);
		break;
	case PANGEA__MESSAGE__BODY_PREPARED:
		prepared(p);
		break;
	case PANGEA__MESSAGE__BODY_READY:
		peer_ready(p);
		break;
	case PANGEA__MESSAGE__BODY_HEARTBEAT:
		if (message->heartbeat->stats)
			membership_stats_from_message(message->heartbeat->stats, &p->stats);
		break;
	case PANGEA__MESSAGE__BODY_FAILED:
		conclude(h, VERDICT_MACHINE, EXIT_BROKEN, false, "node %u (%s) has failed: %s",
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
		attach_dsm(h, fd, h->node[hello->node]);
}

static void on_refused(void *ctx, const char *from, const char *why)
{
	(void)ctx;
	log_line(LOG_WARNING, "connection from %s refused: %s", from, why);
}

static const struct acceptor_ops acceptor_ops = {
	.judge = judge, .connected = on_connected, .refused = on_refused,
};

static void tick_peer(struct peer *p)
{
	unsigned limit = p->state == PEER_READY ? SILENCE_TICKS : SILENCE_TICKS_START;
	char why[64];

	if (++p->silent > limit) {
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

/* --- tools --- */

static void fill_node_status(const struct host *h, unsigned number, const struct peer *p,
			     struct machine_stats *stats, Pangea__NodeStatus *status, Pangea__Stats *counters)
{
	const struct layout_node *node = &h->layout.node[number];

	pangea__node_status__init(status);
	pangea__stats__init(counters);
	membership_stats_to_message(stats, counters);
	status->number = number;
	status->name = (char *)(p ? p->name : h->options->name);
	status->state = (char *)(h->state == HOST_RUNNING ? "running" :
				 p ? peer_state_names[p->state] : "ready");
	status->cpu_start = node->cpu_start;
	status->cpu_count = node->cpu_count;
	status->memory = layout_bytes(node);
	status->stats = counters;
	status->address = (char *)(p ? p->address : "");
	status->kernel = (char *)(p ? p->kernel : h->uts.release);
}

static void send_status(void *ctx, struct control_conn *conn)
{
	struct host *h = ctx;
	Pangea__Status body = PANGEA__STATUS__INIT;
	CONTROL_MESSAGE(message, STATUS, status, &body);
	Pangea__NodeStatus nodes[WIRE_NODES_MAX], *pointers[WIRE_NODES_MAX];
	Pangea__Stats counters[WIRE_NODES_MAX];
	struct machine_stats own = { 0 };
	unsigned count = 1, i;
	struct peer *p;

	if (h->machine)
		machine_get_stats(h->machine, &own);
	fill_node_status(h, 0, NULL, &own, &nodes[0], &counters[0]);
	for (p = h->peers; p; p = p->next) {
		if (p->state == PEER_CANDIDATE || count == WIRE_NODES_MAX)
			continue;
		fill_node_status(h, p->number ? p->number : count, p, &p->stats, &nodes[count],
				 &counters[count]);
		count++;
	}
	for (i = 0; i < count; i++)
		pointers[i] = &nodes[i];
	body.machine = (ProtobufCBinaryData){ sizeof(h->layout.machine), h->layout.machine };
	body.state = (char *)host_state_names[h->state];
	body.nodes_wanted = h->layout.nodes;
	body.n_node = count;
	body.node = pointers;
	body.running_ms = h->started_ms ? now_ms() - h->started_ms : 0;
	body.kernel_pid = h->kernel.pid;
	control_conn_send(conn, &message);
}

static void stop_for_tool(void *ctx)
{
	conclude(ctx, VERDICT_FINAL, 128 + SIGTERM, true, "the machine was stopped by a tool");
}

static const struct tools_ops tools_ops = { .status = send_status, .stop = stop_for_tool };

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	const char *name;
	int number = membership_read_signal(fd, &name);

	(void)what;
	conclude(arg, VERDICT_FINAL, 128 + number, true, "the machine was ended by %s", name);
}

/* --- start and end --- */

static int check_own_host(struct host *h, char *err, size_t err_size)
{
	uint64_t available = membership_memory_free(), share;

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
	h->tools = tools_new(h->base, h->options->control, &tools_ops, h, err, err_size);
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

/*
 * The kernel is dead already.  Nodes first, then what they were connected to; the tools last, who wait for
 * the end.
 */
static void release(struct host *h)
{
	struct event *const events[] = { h->signal, h->tick, h->judge, h->farewell, h->kernel_end };
	size_t i;

	while (h->peers)
		peer_free(h->peers);
	if (h->acceptor)
		acceptor_free(h->acceptor);
	kernel_channels_close(&h->channels);
	if (h->machine)
		machine_free(h->machine);
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
			lay_out(h);
		if (h->state != HOST_ENDING)
			event_base_dispatch(base);
		status = h->verdict.status;
	}
	release(h);
	return status;
}
