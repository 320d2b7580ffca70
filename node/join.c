// SPDX-License-Identifier: GPL-2.0
/*
 * From nodes to a machine: who may join, who gets what, which channels must be there (membership.h has the
 * steps).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "layout.h"
#include "log.h"

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
	if (hello->purpose == WIRE_PURPOSE_BULK)
		return h->node[hello->node]->bulk ? "that node has its bulk channel already" : NULL;
	return h->node[hello->node]->dsm ? "that node has its dsm channel already" : NULL;
}

const char *host_judge(void *ctx, const struct wire_hello *hello)
{
	struct host *h = ctx;

	if (hello->purpose != WIRE_PURPOSE_CONTROL)
		return judge_channel(h, hello);
	if (hello->node != 0xffff)
		return "a node that joins has no number yet";
	return NULL;
}

void host_attach_dsm(struct host *h, int fd, struct peer *p, enum wire_purpose purpose)
{
	bool *attached = purpose == WIRE_PURPOSE_BULK ? &p->bulk : &p->dsm;
	struct link *link;
	char name[64];
	int ret = -ENOMEM;

	snprintf(name, sizeof(name), "node %u (%.40s)", p->number, p->name);
	link = link_socket_new(fd, purpose, name);
	if (link)
		ret = machine_attach_dsm(h->machine, p->number, link);
	*attached = !ret;
	if (!ret)
		return;
	if (link)
		link->ops->free(link);
	host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "the channel of %s: %s", name, strerror(-ret));
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
	if (!p->bulk)
		return "bulk";
	return p->dsm ? NULL : "dsm";
}

void host_peer_ready(struct peer *p)
{
	struct host *h = p->host;
	const char *missing = missing_channel(h, p);

	if (missing) {
		host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false,
			      "node %u (%s) says it is ready but has no %s channel", p->number, p->name,
			      missing);
		return;
	}
	p->state = PEER_READY;
	if (all_in_state(h, PEER_READY))
		host_start_kernel(h);
}

/* --- layout and joining --- */

static void connect_all(struct host *h)
{
	Pangea__Connect body = PANGEA__CONNECT__INIT;
	CONTROL_MESSAGE(message, CONNECT, connect, &body);
	unsigned i;

	h->state = HOST_CONNECTING;
	for (i = 1; i < h->layout.nodes; i++)
		control_conn_send(h->node[i]->conn, &message);
	if (h->layout.nodes == 1)
		host_start_kernel(h);
}

static void make_own_machine(struct host *h)
{
	char err[256];

	h->machine = membership_make_machine(h->options, &h->layout, h->trouble, err, sizeof(err));
	if (!h->machine)
		host_conclude(h, VERDICT_FINAL, EXIT_BROKEN, false, "%s", err);
	else if (all_in_state(h, PEER_PREPARED))
		connect_all(h);
}

/* By name, with numbers in names by value; of equal names by the order of connecting. */
static void number_nodes(struct host *h)
{
	unsigned count = 1, i;
	struct peer *p;

	for (p = h->peers; p; p = p->next) {
		if (p->state != PEER_JOINED)
			continue;
		for (i = count++; i > 1 && strverscmp(h->node[i - 1]->name, p->name) > 0; i--)
			h->node[i] = h->node[i - 1];
		h->node[i] = p;
	}
	for (i = 1; i < count; i++)
		h->node[i]->number = i;
}

static void name_nodes(struct host *h, const char *addresses[WIRE_NODES_MAX])
{
	unsigned i;

	addresses[0] = "";
	snprintf(h->layout.node[0].name, sizeof(h->layout.node[0].name), "%s", h->options->name);
	for (i = 1; i < h->layout.nodes; i++) {
		const struct peer *p = h->node[i];

		addresses[i] = p->address;
		snprintf(h->layout.node[i].name, sizeof(h->layout.node[i].name), "%s", p->name);
		log_line(LOG_INFO, "node %u is %s at %s", i, p->name, p->address);
	}
}

void host_lay_out(struct host *h)
{
	const char *addresses[WIRE_NODES_MAX];
	unsigned i;

	h->state = HOST_PREPARING;
	number_nodes(h);
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
	if (!control_key_same(join->key.data, h->options->key))
		snprintf(text, size, "its key is not the one of this machine");
	else if (join->protocol != WIRE_VERSION)
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

void host_join(struct peer *p, const Pangea__Join *message)
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
		host_peer_free(p);
		return;
	}
	p->state = PEER_JOINED;
	p->silent = 0;
	h->candidates--;
	log_line(LOG_INFO, "node %s at %s has joined (Linux %s, %" PRIu64 "M free)", p->name, p->address,
		 p->kernel, message->memory_free >> 20);
	if (joined(h) == h->layout.nodes - 1)
		host_lay_out(h);
}

void host_peer_prepared(struct peer *p)
{
	struct host *h = p->host;

	p->state = PEER_PREPARED;
	if (h->machine && all_in_state(h, PEER_PREPARED))
		connect_all(h);
}
