// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and writing user memory where it is.
 *
 * System calls read and write memory of their task, which is mostly on the node where the task runs.  To load
 * or store it from here would bring its frame here, and the task's next access would bring it back.  So
 * the bytes are asked of that node, or sent to it, over the channel of this CPU, which is idle while the CPU is in
 * the kernel.  The node refuses what it does not hold, and then a load or store does it as ever.
 *
 * The page table lock is held throughout, as for a load or store (kernel/skas/uaccess.c); all pages of one
 * request have their entries in one table.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/ssi_user.h>
#include <ssi.h>
#include "ssi_internal.h"

#define PAUSE 16	/* accesses after one that the node refused: its neighbours are not there either */

/* What is to be done, and the bytes of it on their way. */
struct transfer {
	struct ssi_cpu *cpu;
	pte_t *pte;
	int is_write;
	unsigned int count, done;	/* segments */
	unsigned long bytes;		/* of all segments */
	struct wire_segment segment[WIRE_SEGMENTS_MAX];
	u8 *data;
};

static bool held_here(unsigned long pfn, int is_write)
{
	bool local = pfn < ssi_boot.nodes[0].pfn_count;

	return SSI_RIGHTS(READ_ONCE(ssi_rights[pfn]), local) >= (is_write ? 2 : 1);
}

/* The pages from addr on that may be accessed and are elsewhere. */
static void collect(struct transfer *t, unsigned long addr, unsigned long len, bool (*permitted)(pte_t, int))
{
	unsigned int in_table = PTRS_PER_PTE - (addr >> PAGE_SHIFT) % PTRS_PER_PTE;
	unsigned long size;

	while (len && t->count < min(in_table, (unsigned int)WIRE_SEGMENTS_MAX)) {
		pte_t pte = READ_ONCE(t->pte[t->count]);

		size = min(PAGE_SIZE - offset_in_page(addr), len);
		if (t->bytes + size > WIRE_COPY_MAX || !permitted(pte, t->is_write) ||
		    held_here(pte_pfn(pte), t->is_write))
			break;
		t->segment[t->count++] = (struct wire_segment){ pte_pfn(pte), offset_in_page(addr), size };
		t->bytes += size;
		addr += size;
		len -= size;
	}
}

static void *own_address(const struct transfer *t, unsigned int i)
{
	return page_address(pte_page(t->pte[i])) + t->segment[i].offset;
}

/* Apply op to the segments' bytes in data: its answer. */
static int apply(struct transfer *t, int (*op)(unsigned long, int, void *), void *arg)
{
	u8 *data = t->data;
	unsigned int i;
	int n = 0;

	for (i = 0; i < t->count && !n; i++) {
		n = op((unsigned long)data, t->segment[i].length, arg);
		data += t->segment[i].length;
	}
	return n;
}

static void send(struct transfer *t)
{
	struct wire_copy *msg = &t->cpu->msg.copy;
	unsigned long segments = t->count * sizeof(t->segment[0]);
	unsigned long padded = t->is_write ? ALIGN(t->bytes, 8) : 0;

	*msg = (struct wire_copy){
		.hdr.length = sizeof(*msg) + segments + padded,
		.hdr.type = WIRE_COPY,
		.hdr.seq = t->cpu->run,
		.flags = t->is_write ? WIRE_COPY_WRITE : 0,
		.segment_count = t->count,
	};
	memcpy(msg + 1, t->segment, segments);
	if (padded)
		memset(t->data + t->bytes, 0, padded - t->bytes);
	if (ssi_link_send(ssi_boot.cpu_fd[raw_smp_processor_id()], msg, msg->hdr.length))
		ssi_cpu_lost("it has closed the channel");
}

static unsigned long bytes_done(const struct transfer *t)
{
	unsigned long bytes = 0;
	unsigned int i;

	for (i = 0; i < t->done; i++)
		bytes += t->segment[i].length;
	return bytes;
}

/* The answer to a write goes elsewhere: what the node refused must still be there. */
static void receive(struct transfer *t)
{
	struct wire_copied answer, *msg = t->is_write ? &answer : &t->cpu->msg.copied;
	unsigned long size = t->is_write ? sizeof(answer) : sizeof(t->cpu->msg);
	const char *why;

	if (ssi_link_receive(ssi_boot.cpu_fd[raw_smp_processor_id()], WIRE_PURPOSE_CPU, msg, sizeof(*msg), size,
			     &why) < 0)
		ssi_cpu_lost(why);
	t->done = msg->done;
	if (msg->hdr.type != WIRE_COPIED || msg->hdr.seq != t->cpu->run || t->done > t->count ||
	    msg->bytes != (t->is_write ? 0 : bytes_done(t)))
		ssi_cpu_lost("it has answered what was not asked");
	if (!t->done)
		t->cpu->copy_pause = PAUSE;
	if (!t->is_write)
		t->data = (u8 *)(msg + 1);
}

/* What the node refused, by load and store. */
static void do_rest(struct transfer *t)
{
	u8 *data = t->data + bytes_done(t);
	unsigned int i;

	for (i = t->done; i < t->count; i++) {
		if (t->is_write)
			memcpy(own_address(t, i), data, t->segment[i].length);
		else
			memcpy(data, own_address(t, i), t->segment[i].length);
		data += t->segment[i].length;
	}
}

int ssi_user_op(pte_t *pte, unsigned long addr, unsigned long *len, int is_write, bool (*permitted)(pte_t, int),
		int (*op)(unsigned long, int, void *), void *arg)
{
	struct transfer t = { .cpu = ssi_idle_channel(), .pte = pte, .is_write = is_write };
	int n = 0;

	if (!ssi_active || !ssi_rights || !ssi_cpu_node(raw_smp_processor_id()) || !t.cpu)
		return -EAGAIN;
	if (t.cpu->copy_pause) {
		t.cpu->copy_pause--;
		return -EAGAIN;
	}
	collect(&t, addr, *len, permitted);
	if (!t.count)
		return -EAGAIN;
	t.data = (u8 *)(&t.cpu->msg.copy + 1) + t.count * sizeof(t.segment[0]);
	if (is_write)
		n = apply(&t, op, arg);
	ssi_channel_begin(t.cpu);
	send(&t);
	receive(&t);
	ssi_channel_end(t.cpu);
	do_rest(&t);
	if (!is_write)
		n = apply(&t, op, arg);
	*len = t.bytes;
	return n;
}
