// SPDX-License-Identifier: GPL-2.0
/* What tools see of the machine, and the end that they may ask for. */
#include <signal.h>
#include <stdlib.h>

#include "host.h"
#include "layout.h"

static const char *const host_state_names[] = {
	"waiting for nodes", "starting", "starting", "running", "stopping",
};

static const char *const peer_state_names[] = { "joining", "joined", "prepared", "ready" };

/*
 * What crossed the network: the kernel speaks with the other nodes for node 0, and they have counted that; with
 * node 0's own pangead it speaks through memory.
 */
static void count_traffic(const struct host *h, unsigned number, Pangea__Stats *counters)
{
	const struct peer *p;

	if (number) {
		counters->bytes_in += counters->kernel_bytes_in;
		counters->bytes_out += counters->kernel_bytes_out;
		return;
	}
	for (p = h->peers; p; p = p->next) {
		counters->bytes_in += p->stats.kernel_bytes_out;
		counters->bytes_out += p->stats.kernel_bytes_in;
	}
}

static void fill_node_status(const struct host *h, unsigned number, const struct peer *p,
			     struct machine_stats *stats, Pangea__NodeStatus *status, struct stats_message *counters)
{
	const struct layout_node *node = &h->layout.node[number];

	pangea__node_status__init(status);
	membership_stats_to_message(stats, counters);
	count_traffic(h, number, &counters->stats);
	status->number = number;
	status->name = (char *)(p ? p->name : h->options->name);
	status->state = (char *)(h->state == HOST_RUNNING ? "running" :
				 p ? peer_state_names[p->state] : "ready");
	status->cpu_start = node->cpu_start;
	status->cpu_count = node->cpu_count;
	status->memory = layout_bytes(node);
	status->stats = &counters->stats;
	status->address = (char *)(p ? p->address : "");
	status->kernel = (char *)(p ? p->kernel : h->uts.release);
}

static int by_number(const void *a, const void *b)
{
	const Pangea__NodeStatus *const *x = a, *const *y = b;

	return (int)(*x)->number - (int)(*y)->number;
}

static void send_status(void *ctx, struct control_conn *conn)
{
	struct host *h = ctx;
	Pangea__Status body = PANGEA__STATUS__INIT;
	CONTROL_MESSAGE(message, STATUS, status, &body);
	Pangea__NodeStatus nodes[WIRE_NODES_MAX], *pointers[WIRE_NODES_MAX];
	struct stats_message counters[WIRE_NODES_MAX];
	unsigned count = 1, i;
	struct peer *p;

	if (h->machine)
		machine_get_stats(h->machine, &h->stats);	/* or as they were */
	fill_node_status(h, 0, NULL, &h->stats, &nodes[0], &counters[0]);
	for (p = h->peers; p; p = p->next) {
		if (p->state == PEER_CANDIDATE || count == WIRE_NODES_MAX)
			continue;
		fill_node_status(h, p->number ? p->number : count, p, &p->stats, &nodes[count],
				 &counters[count]);
		count++;
	}
	for (i = 0; i < count; i++)
		pointers[i] = &nodes[i];
	qsort(pointers, count, sizeof(pointers[0]), by_number);
	body.machine = (ProtobufCBinaryData){ sizeof(h->layout.machine), h->layout.machine };
	body.state = (char *)host_state_names[h->state];
	body.nodes_wanted = h->layout.nodes;
	body.n_node = count;
	body.node = pointers;
	body.running_ms = h->started_ms ? host_now_ms() - h->started_ms : 0;
	body.kernel_pid = h->kernel.pid;
	control_conn_send(conn, &message);
}

static void stop_for_tool(void *ctx)
{
	host_conclude(ctx, VERDICT_FINAL, 128 + SIGTERM, true, "the machine was stopped by a tool");
}

const struct tools_ops host_tools_ops = { .status = send_status, .stop = stop_for_tool };
