// SPDX-License-Identifier: GPL-2.0
/*
 * The mm channel of each node: requests that do not belong to the run of one CPU.
 */
#include <linux/kernel.h>
#include <linux/spinlock.h>
#include <ssi.h>
#include "ssi_internal.h"

struct ssi_node ssi_nodes[SSI_NODES_MAX] = {
	[0 ... SSI_NODES_MAX - 1] = {
		.lock = __RAW_SPIN_LOCK_UNLOCKED(ssi_nodes.lock),
		.send = __RAW_SPIN_LOCK_UNLOCKED(ssi_nodes.send),
	},
};

unsigned int ssi_cpu_node(unsigned int cpu)
{
	unsigned int node;

	for (node = 0; node < ssi_boot.node_count - 1; node++)
		if (cpu < ssi_boot.nodes[node].cpu_start + ssi_boot.nodes[node].cpu_count)
			break;
	return node;
}

static void __noreturn lost(unsigned int node, const char *why)
{
	char what[32];

	snprintf(what, sizeof(what), "node %u", node);
	ssi_lost(ssi_boot.nodes[node].mm_fd, what, why);
}

static void send_to(unsigned int node, const struct wire_hdr *msg)
{
	unsigned long flags;
	int err;

	raw_spin_lock_irqsave(&ssi_nodes[node].send, flags);
	err = ssi_link_send(ssi_boot.nodes[node].mm_fd, msg, msg->length, 0);
	raw_spin_unlock_irqrestore(&ssi_nodes[node].send, flags);
	if (err)
		lost(node, "it has closed the channel");
}

/* The node's lock is held until the answer is here: one request at a time. */
static void ask(unsigned int node, struct wire_hdr *msg)
{
	msg->seq = ++ssi_nodes[node].seq;
	send_to(node, msg);
}

/*
 * Nothing else can be done until the answer is here, and who is awake then need not be woken, which takes both sides about
 * as long as the wire: so it is spun for.
 */
static void await_answer(unsigned int node)
{
	struct wire_ack ack;
	const char *why;

	ssi_link_spin(ssi_boot.nodes[node].mm_fd, &ssi_nodes[node].spin);
	if (ssi_link_receive(ssi_boot.nodes[node].mm_fd, WIRE_PURPOSE_MM, &ack, sizeof(ack), sizeof(ack), &why) < 0)
		lost(node, why);
	if (ack.hdr.type != WIRE_ACK || ack.hdr.seq != ssi_nodes[node].seq)
		lost(node, "it has answered what was not asked");
}

static void request_locked(unsigned int node, struct wire_hdr *msg)
{
	ask(node, msg);
	await_answer(node);
}

static void request(unsigned int node, struct wire_hdr *msg)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&ssi_nodes[node].lock, flags);
	request_locked(node, msg);
	raw_spin_unlock_irqrestore(&ssi_nodes[node].lock, flags);
}

/* End the machine if something has come over the channel that nobody waits for. */
void ssi_node_watch(unsigned int node)
{
	unsigned long flags;

	if (!raw_spin_trylock_irqsave(&ssi_nodes[node].lock, flags))
		return;
	if (ssi_link_readable(ssi_boot.nodes[node].mm_fd))
		lost(node, "it has sent what was not asked, or closed the channel");
	raw_spin_unlock_irqrestore(&ssi_nodes[node].lock, flags);
}

void ssi_node_discard(unsigned int node, unsigned long pfn,
		      unsigned int (*collect)(unsigned int, unsigned long, struct wire_range *),
		      void (*done)(const struct wire_range *, unsigned int))
{
	struct ssi_node *n = &ssi_nodes[node];
	struct wire_discard *msg = &n->discard.msg;
	unsigned int count;
	unsigned long flags;

	raw_spin_lock_irqsave(&n->lock, flags);
	count = collect(node, pfn, n->discard.ranges);
	if (count) {
		*msg = (struct wire_discard){
			.hdr.length = sizeof(*msg) + count * sizeof(struct wire_range),
			.hdr.type = WIRE_DISCARD,
			.range_count = count,
		};
		request_locked(node, &msg->hdr);
		done(n->discard.ranges, count);
	}
	raw_spin_unlock_irqrestore(&n->lock, flags);
}

/* Always in the order of the nodes' numbers: who has some of the locks never waits for one with a lower number. */
void ssi_node_revoke_begin(unsigned long nodes, __u64 mm, unsigned long start, unsigned long end)
{
	struct wire_revoke msg = {
		.hdr = { .length = sizeof(msg), .type = WIRE_REVOKE },
		.mm = mm, .start = start, .end = end,
	};
	unsigned int node;

	for_each_set_bit(node, &nodes, SSI_NODES_MAX) {
		raw_spin_lock(&ssi_nodes[node].lock);
		ask(node, &msg.hdr);
	}
}

void ssi_node_revoke_end(unsigned long nodes)
{
	unsigned int node;

	for_each_set_bit(node, &nodes, SSI_NODES_MAX) {
		await_answer(node);
		raw_spin_unlock(&ssi_nodes[node].lock);
	}
}

void ssi_node_stop_clock(unsigned int node, __u32 generation)
{
	struct wire_clock_stop msg = {
		.hdr = { .length = sizeof(msg), .type = WIRE_CLOCK_STOP },
		.generation = generation,
	};

	request(node, &msg.hdr);
}

void ssi_node_free_mm(unsigned int node, __u64 mm)
{
	struct wire_mm_free msg = {
		.hdr = { .length = sizeof(msg), .type = WIRE_MM_FREE },
		.mm = mm,
	};

	/* on the kernel host who is needed looks for himself, and whose CPU it is goes on */
	if (node || ssi_free_stub(mm))
		send_to(node, &msg.hdr);
}

void ssi_node_interrupt(unsigned int node, unsigned int cpu, __u64 run)
{
	struct wire_interrupt msg = {
		.hdr = { .length = sizeof(msg), .type = WIRE_INTERRUPT, .seq = run },
		.cpu = cpu,
	};

	send_to(node, &msg.hdr);
}
