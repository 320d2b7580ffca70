// SPDX-License-Identifier: GPL-2.0
/*
 * A node that joins the machine of node 0.
 *
 * Why it ends is for node 0 to say: when something breaks here, or a channel breaks because another node or
 * the kernel has ended, this node tells node 0 (Failed) and waits a moment for its Stop.  Only when there
 * is none, or node 0 itself is gone, it ends by its own judgement.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../net/acceptor.h"
#include "features.h"
#include "log.h"
#include "membership.h"
#include "memory.h"

#define EXIT_NODE_BROKEN	125
#define STOP_WAIT_MS		(6 * VERDICT_MS)	/* for node 0's judgement, which it may defer */

enum member_state { MEMBER_JOINING, MEMBER_JOINED, MEMBER_PREPARED, MEMBER_READY, MEMBER_ENDING };

struct member;

/* A channel that is being connected. */
struct outgoing {
	struct outgoing *next;
	struct member *member;
	struct handshake *handshake;
	unsigned peer;
};

struct member {
	const struct options *options;
	struct event_base *base;
	int signal_fd;
	enum member_state state;
	int status;
	struct event *signal, *tick, *give_up;
	struct acceptor *acceptor;
	struct handshake *joining;
	struct control_conn *conn;	/* to node 0 */
	struct address node0;
	char listening[ADDRESS_TEXT_MAX];
	unsigned silent;		/* ticks since node 0 was heard */
	struct layout layout;
	char addresses[WIRE_NODES_MAX][ADDRESS_TEXT_MAX];
	struct trouble *trouble;
	struct machine *machine;
	bool dsm[WIRE_NODES_MAX], bulk[WIRE_NODES_MAX];	/* attached */
	struct outgoing *outgoing;
	char reason[256];		/* of a failure here that node 0 has been told */
};

static const char *node0_name(const struct member *m)
{
	return m->layout.nodes ? m->layout.node[0].name : m->options->join;
}

__attribute__((format(printf, 3, 4)))
static void end(struct member *m, int status, const char *format, ...)
{
	char line[600];
	va_list args;

	if (m->state == MEMBER_ENDING)
		return;
	if (format) {
		va_start(args, format);
		vsnprintf(line, sizeof(line), format, args);
		va_end(args);
		if (m->state == MEMBER_READY)
			report("%s; its log is %s", line, m->options->log);
		else
			report("%s", line);
	}
	m->state = MEMBER_ENDING;
	m->status = status;
	event_base_loopbreak(m->base);
}

/* Something broke here: node 0 judges. */
static void failed(struct member *m, const char *reason)
{
	const struct timeval wait = { .tv_sec = STOP_WAIT_MS / 1000 };
	Pangea__Failed body = PANGEA__FAILED__INIT;
	CONTROL_MESSAGE(message, FAILED, failed, &body);

	if (m->reason[0] || m->state == MEMBER_ENDING)
		return;
	snprintf(m->reason, sizeof(m->reason), "%s", reason);
	log_line(LOG_WARNING, "telling node 0: %s", reason);
	body.reason = m->reason;
	control_conn_send(m->conn, &message);
	event_add(m->give_up, &wait);
}

static void on_trouble(void *ctx, const char *reason)
{
	failed(ctx, reason);
}

static void on_give_up(evutil_socket_t fd, short what, void *arg)
{
	struct member *m = arg;

	(void)fd;
	(void)what;
	end(m, EXIT_NODE_BROKEN, "%s; this node stops", m->reason);
}

/* --- channels --- */

static const char *judge(void *ctx, const struct wire_hello *hello)
{
	struct member *m = ctx;

	if (hello->purpose != WIRE_PURPOSE_DSM && hello->purpose != WIRE_PURPOSE_BULK)
		return "this is not node 0: it takes dsm and bulk channels only";
	if (!m->machine || memcmp(hello->machine, m->layout.machine, sizeof(hello->machine)))
		return "this node does not belong to that machine";
	if (hello->node >= m->layout.nodes || hello->node <= m->layout.self)
		return "a channel from that node is not expected here";
	if (hello->purpose == WIRE_PURPOSE_BULK ? m->bulk[hello->node] : m->dsm[hello->node])
		return "that node has its channel already";
	return NULL;
}

/* 0 or -errno. */
static int attach(struct member *m, int fd, enum wire_purpose purpose, unsigned peer, unsigned cpu)
{
	struct link *link;
	char name[64];
	int ret;

	snprintf(name, sizeof(name), "node %u (%.40s)", peer, m->layout.node[peer].name);
	link = link_socket_new(fd, purpose, name);
	if (!link)
		return -ENOMEM;
	if (purpose == WIRE_PURPOSE_CPU)
		ret = machine_attach_cpu(m->machine, cpu, link);
	else if (purpose == WIRE_PURPOSE_MM)
		ret = machine_attach_mm(m->machine, link);
	else
		ret = machine_attach_dsm(m->machine, peer, link);
	if (ret)
		link->ops->free(link);
	else if (purpose == WIRE_PURPOSE_DSM)
		m->dsm[peer] = true;
	else if (purpose == WIRE_PURPOSE_BULK)
		m->bulk[peer] = true;
	return ret;
}

static void on_channel(void *ctx, int fd, const struct wire_hello *hello, const char *from)
{
	struct member *m = ctx;
	int ret = attach(m, fd, hello->purpose, hello->node, hello->cpu);

	(void)from;
	if (ret)
		failed(m, strerror(-ret));
}

static void on_refused(void *ctx, const char *from, const char *why)
{
	(void)ctx;
	log_line(LOG_WARNING, "connection from %s refused: %s", from, why);
}

static const struct acceptor_ops acceptor_ops = {
	.judge = judge, .connected = on_channel, .refused = on_refused,
};

static void all_connected(struct member *m)
{
	Pangea__Ready body = PANGEA__READY__INIT;
	CONTROL_MESSAGE(message, READY, ready, &body);

	m->state = MEMBER_READY;
	control_conn_send(m->conn, &message);
	membership_started(m->options);
	log_line(LOG_INFO, "node %u of %u is ready", m->layout.self, m->layout.nodes);
}

static void cannot_connect(struct member *m, unsigned peer, const char *why)
{
	char reason[256];

	snprintf(reason, sizeof(reason), "cannot connect to node %u (%s): %s", peer,
		 m->layout.node[peer].name, why);
	failed(m, reason);
}

static void outgoing_done(void *ctx, int fd, const struct wire_hello *hello, const char *why)
{
	struct outgoing *o = ctx, **p = &o->member->outgoing;
	struct member *m = o->member;
	unsigned peer = o->peer;
	int ret = 0;

	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	free(o);
	if (fd >= 0)
		ret = attach(m, fd, hello->purpose, peer, hello->cpu);
	if (fd < 0 || ret)
		cannot_connect(m, peer, ret ? strerror(-ret) : why);
	else if (!m->outgoing && m->state == MEMBER_PREPARED)
		all_connected(m);
}

/* False when it failed at once, which has been said. */
static bool connect_channel(struct member *m, enum wire_purpose purpose, unsigned peer, unsigned cpu)
{
	struct wire_hello hello = { .purpose = purpose, .node = m->layout.self, .cpu = cpu };
	struct outgoing *o = calloc(1, sizeof(*o));
	struct address to = m->node0;
	char why[256] = "";

	if (!o) {
		cannot_connect(m, peer, strerror(ENOMEM));
		return false;
	}
	memcpy(hello.machine, m->layout.machine, sizeof(hello.machine));
	o->member = m;
	o->peer = peer;
	if (!peer || !address_parse(m->addresses[peer], &to, why, sizeof(why))) {
		errno = 0;
		o->handshake = handshake_connect(m->base, &to, HANDSHAKE_MS, &hello, outgoing_done, o);
	}
	if (!o->handshake) {
		free(o);
		cannot_connect(m, peer, why[0] ? why : strerror(errno));
		return false;
	}
	o->next = m->outgoing;
	m->outgoing = o;
	return true;
}

static void connect_channels(struct member *m)
{
	const struct layout_node *own = &m->layout.node[m->layout.self];
	bool ok = connect_channel(m, WIRE_PURPOSE_MM, 0, 0);
	unsigned i;

	for (i = 0; i < own->cpu_count && ok; i++)
		ok = connect_channel(m, WIRE_PURPOSE_CPU, 0, own->cpu_start + i);
	for (i = 0; i < m->layout.self && ok; i++)
		ok = connect_channel(m, WIRE_PURPOSE_DSM, i, 0) && connect_channel(m, WIRE_PURPOSE_BULK, i, 0);
}

/* --- node 0's messages --- */

static void prepare(struct member *m, const Pangea__Layout *layout)
{
	Pangea__Prepared body = PANGEA__PREPARED__INIT;
	CONTROL_MESSAGE(message, PREPARED, prepared, &body);
	char err[256];

	membership_take_layout(layout, &m->layout, m->addresses);
	if (m->layout.self == 0 || m->layout.node[m->layout.self].cpu_count != m->options->cpus) {
		end(m, EXIT_NODE_BROKEN, "node 0 (%s) sent an impossible layout", node0_name(m));
		return;
	}
	log_line(LOG_INFO, "this is node %u of %u", m->layout.self, m->layout.nodes);
	m->machine = membership_make_machine(m->options, &m->layout, m->trouble, err, sizeof(err));
	if (!m->machine) {
		failed(m, err);
		return;
	}
	m->state = MEMBER_PREPARED;
	m->silent = 0;
	control_conn_send(m->conn, &message);
}

static void stopped(struct member *m, const Pangea__Stop *stop)
{
	if (stop->clean) {
		log_line(LOG_INFO, "node 0 (%s) ends the machine: %s", node0_name(m), stop->reason);
		end(m, 0, NULL);
	} else {
		end(m, EXIT_NODE_BROKEN, "node 0 (%s) stops the machine: %s", node0_name(m), stop->reason);
	}
}

static void on_message(void *ctx, const Pangea__Message *message)
{
	struct member *m = ctx;

	m->silent = 0;
	switch (message->body_case) {
	case PANGEA__MESSAGE__BODY_HEARTBEAT:
		return;
	case PANGEA__MESSAGE__BODY_STOP:
		stopped(m, message->stop);
		return;
	case PANGEA__MESSAGE__BODY_REFUSE:
		end(m, EXIT_NODE_BROKEN, "node 0 (%s) refuses this node: %s", node0_name(m),
		    message->refuse->reason);
		return;
	case PANGEA__MESSAGE__BODY_LAYOUT:
		if (m->state != MEMBER_JOINED || m->machine)
			break;
		prepare(m, message->layout);
		return;
	case PANGEA__MESSAGE__BODY_CONNECT:
		if (m->state != MEMBER_PREPARED || m->outgoing)
			break;
		connect_channels(m);
		return;
	default:
		break;
	}
	end(m, EXIT_NODE_BROKEN, "node 0 (%s) sent a control message that does not belong here",
	    node0_name(m));
}

static void on_closed(void *ctx, const char *why)
{
	struct member *m = ctx;

	end(m, EXIT_NODE_BROKEN, "node 0 (%s) is gone: %s; this node stops", node0_name(m), why);
}

static const struct control_conn_ops conn_ops = { .message = on_message, .closed = on_closed };

static void send_join(struct member *m)
{
	Pangea__Features features = PANGEA__FEATURES__INIT;
	Pangea__Join body = PANGEA__JOIN__INIT;
	CONTROL_MESSAGE(message, JOIN, join, &body);
	struct features own;
	struct utsname uts;

	uname(&uts);
	features_read(&own);
	features.n_words = FEATURE_WORDS;
	features.words = own.words;
	features.xcr0 = own.xcr0;
	features.n_xstate_end = XSTATE_COMPONENTS;
	features.xstate_end = own.xstate_end;
	features.xsave_size = own.xsave_size;
	body.protocol = WIRE_VERSION;
	body.cpus = m->options->cpus;
	body.address = m->listening;
	body.name = (char *)m->options->name;
	uts.release[CONTROL_NAME_MAX] = 0;
	body.kernel = uts.release;
	body.memory_free = memory_available();
	body.features = &features;
	body.key = (ProtobufCBinaryData){ CONTROL_KEY_SIZE, (uint8_t *)m->options->key };
	control_conn_send(m->conn, &message);
}

static void on_joined(void *ctx, int fd, const struct wire_hello *hello, const char *why)
{
	struct member *m = ctx;

	(void)hello;
	m->joining = NULL;
	if (fd < 0) {
		end(m, EXIT_NODE_BROKEN, "cannot join %s: %s", m->options->join, why);
		return;
	}
	m->conn = control_conn_new(m->base, fd, &conn_ops, m);
	if (!m->conn) {
		end(m, EXIT_NODE_BROKEN, "cannot join %s: out of memory", m->options->join);
		return;
	}
	m->state = MEMBER_JOINED;
	send_join(m);
}

/* --- the rest --- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct member *m = arg;
	unsigned limit = m->state == MEMBER_READY ? SILENCE_TICKS : SILENCE_TICKS_START;

	(void)fd;
	(void)what;
	if (!m->conn)
		return;
	if (++m->silent > limit)
		end(m, EXIT_NODE_BROKEN, "node 0 (%s) is gone: it has been silent for %u ms; this node stops",
		    node0_name(m), limit * HEARTBEAT_MS);
	else
		membership_send_heartbeat(m->conn, m->machine);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct member *m = arg;
	const char *name;
	int number = membership_read_signal(fd, &name);
	char reason[64];

	(void)what;
	snprintf(reason, sizeof(reason), "it was ended by %s", name);
	log_line(LOG_INFO, "ended by %s", name);
	if (m->conn)
		membership_send_stop(m->conn, false, reason);
	end(m, -number, NULL);
}

static int start(struct member *m, char *err, size_t err_size)
{
	const struct timeval heartbeat = { .tv_usec = HEARTBEAT_MS * 1000 };
	const struct wire_hello hello = { .purpose = WIRE_PURPOSE_CONTROL, .node = 0xffff };
	struct address bound;
	int fd;

	if (address_parse(m->options->join, &m->node0, err, err_size))
		return -1;
	fd = membership_listen(m->options, &bound, err, err_size);
	if (fd < 0)
		return -1;
	address_format(&bound, m->listening);
	snprintf(err, err_size, "out of memory");
	m->acceptor = acceptor_new(m->base, fd, HANDSHAKE_MS, &acceptor_ops, m);
	m->trouble = trouble_new(m->base, on_trouble, m);
	m->signal = event_new(m->base, m->signal_fd, EV_READ | EV_PERSIST, on_signal, m);
	m->tick = event_new(m->base, -1, EV_PERSIST, on_tick, m);
	m->give_up = evtimer_new(m->base, on_give_up, m);
	if (!m->acceptor || !m->trouble || !m->signal || !m->tick || !m->give_up ||
	    event_add(m->signal, NULL) || event_add(m->tick, &heartbeat))
		return -1;
	m->joining = handshake_connect(m->base, &m->node0, HANDSHAKE_MS, &hello, on_joined, m);
	if (m->joining)
		return 0;
	snprintf(err, err_size, "cannot join %s: %s", m->options->join, strerror(errno));
	return -1;
}

static void release(struct member *m)
{
	if (m->joining)
		handshake_cancel(m->joining);
	while (m->outgoing) {
		struct outgoing *o = m->outgoing;

		m->outgoing = o->next;
		handshake_cancel(o->handshake);
		free(o);
	}
	if (m->acceptor)
		acceptor_free(m->acceptor);
	if (m->machine)
		machine_free(m->machine);
	if (m->trouble)
		trouble_free(m->trouble);
	/* Last: to node 0 the end of this connection means that nothing of this node is left. */
	if (m->conn)
		control_conn_free(m->conn);
	if (m->signal)
		event_free(m->signal);
	if (m->tick)
		event_free(m->tick);
	if (m->give_up)
		event_free(m->give_up);
	free(m);
}

int member_run(const struct options *options, struct event_base *base, int signal_fd)
{
	struct member *m = calloc(1, sizeof(*m));
	char err[256] = "out of memory";
	int status = EXIT_NODE_BROKEN;

	if (m) {
		m->options = options;
		m->base = base;
		m->signal_fd = signal_fd;
	}
	if (m && !start(m, err, sizeof(err))) {
		event_base_dispatch(base);
		status = m->status;
	} else {
		report("%s", err);
	}
	if (m)
		release(m);
	return status;
}
