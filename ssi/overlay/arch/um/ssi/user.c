// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and writing user memory where it is.
 *
 * System calls read and write memory of their task, which is mostly on the node where the task runs.  To load
 * or store it from here would bring its frame here, and the task's next access would bring it back.  So
 * the bytes are asked of that node, or sent to it, over the channel of this CPU, which is idle while the CPU is in
 * the kernel.  The node refuses what it does not hold, and then a load or store does it as ever.  Whole pages it copies itself.
 *
 * execve() reads its arguments in three small pieces each, which would take a round trip for each.  So the frames that
 * they lie in are fetched as they are then, and read from that copy.  What calls that only read a path, a small structure or
 * a few bytes will read comes with the call (node/executor.c).  Others, and who has waited for somebody before, get what is
 * there when they look.
 *
 * What is written most often need not be waited for (result.c).
 *
 * The page table lock is held throughout, as for a load or store (kernel/skas/uaccess.c); all pages of one
 * request have their entries in one table.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <asm/ssi_user.h>
#include <os.h>
#include <ssi.h>
#include <ssi_result.h>
#include "ssi_internal.h"

#define PAUSE 16	/* accesses after one that the node refused: its neighbours are not there either */

/* What is to be done, and the bytes of it on their way. */
struct transfer {
	struct ssi_cpu *cpu;
	pte_t *pte;
	u32 flags;			/* enum wire_copy_flags */
	unsigned int count, done;	/* segments */
	unsigned long bytes;		/* of all segments */
	struct wire_segment segment[WIRE_SEGMENTS_MAX];
	u8 *data;
};

/* The pages from addr on that may be accessed and are elsewhere. */
static void collect(struct transfer *t, unsigned long addr, unsigned long len, bool (*permitted)(pte_t, int))
{
	unsigned int in_table = PTRS_PER_PTE - (addr >> PAGE_SHIFT) % PTRS_PER_PTE;
	int is_write = t->flags & WIRE_COPY_WRITE;
	unsigned long size;

	while (len && t->count < min(in_table, (unsigned int)WIRE_SEGMENTS_MAX)) {
		pte_t pte = READ_ONCE(t->pte[t->count]);

		size = min(PAGE_SIZE - offset_in_page(addr), len);
		if (t->bytes + size > WIRE_COPY_MAX || !permitted(pte, is_write) ||
		    ssi_held(pte_pfn(pte), false))		/* then nobody else may write */
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

static unsigned int own_node(void)
{
	return ssi_cpu_node(raw_smp_processor_id());
}

/* With what has been put off. */
static void send_all(const struct ssi_results *r, const struct wire_copy *msg)
{
	int fd = ssi_boot.cpu_fd[raw_smp_processor_id()];

	if ((r->count && ssi_link_send(fd, r->messages, r->bytes, !!msg)) || (msg && ssi_link_send(fd, msg, msg->hdr.length, 0)))
		ssi_cpu_lost(own_node(), "it has closed the channel");
}

static void send(struct transfer *t)
{
	struct wire_copy *msg = &t->cpu->msg.copy;
	unsigned long segments = t->count * sizeof(t->segment[0]);
	unsigned long padded = t->flags & WIRE_COPY_WRITE ? ALIGN(t->bytes, 8) : 0;

	*msg = (struct wire_copy){
		.hdr.length = sizeof(*msg) + segments + padded,
		.hdr.type = WIRE_COPY,
		.hdr.seq = t->cpu->run,
		.flags = t->flags,
		.segment_count = t->count,
	};
	memcpy(msg + 1, t->segment, segments);
	if (padded)
		memset(t->data + t->bytes, 0, padded - t->bytes);
	send_all(&t->cpu->results, msg);
}

static unsigned long bytes_done(const struct transfer *t)
{
	unsigned long bytes = 0;
	unsigned int i;

	for (i = 0; i < t->done; i++)
		bytes += t->segment[i].length;
	return bytes;
}

static void receive_answer(struct transfer *t, struct wire_copied *msg, unsigned long size)
{
	const char *why;

	if (ssi_link_receive(ssi_boot.cpu_fd[raw_smp_processor_id()], WIRE_PURPOSE_CPU, msg, sizeof(*msg), size,
			     &why) < 0)
		ssi_cpu_lost(own_node(), why);
	t->done = msg->done;
	if (msg->hdr.type != WIRE_COPIED || msg->hdr.seq != t->cpu->run || t->done > t->count ||
	    msg->bytes != (t->flags ? 0 : bytes_done(t)))
		ssi_cpu_lost(own_node(), "it has answered what was not asked");
	if (msg->refused && t->done)
		ssi_cpu_lost(own_node(), "it has gone on after what it has refused");
}

/* The answer to a write goes elsewhere: what the node refused must still be there. */
static void receive(struct transfer *t)
{
	struct wire_copied answer, *msg = t->flags ? &answer : &t->cpu->msg.copied;

	receive_answer(t, msg, t->flags ? sizeof(answer) : sizeof(t->cpu->msg));
	if (!t->done && !(t->flags & WIRE_COPY_PAGE))
		t->cpu->copy_pause = PAUSE;
	if (!t->flags)
		t->data = (u8 *)(msg + 1);
	ssi_results_answered(&t->cpu->results, msg->refused);
}

static void exchange(struct transfer *t)
{
	long long begun = os_nsecs();

	ssi_channel_begin(t->cpu);
	send(t);
	receive(t);
	ssi_channel_end(t->cpu);
	if (!(t->flags & WIRE_COPY_PAGE))	/* the node may have to fetch it */
		ssi_start_round_trip(own_node(), os_nsecs() - begun);
}

/* The last of them is to be answered. */
void ssi_results_exchange(struct ssi_cpu *c)
{
	struct ssi_results *r = &c->results;
	struct wire_copy *last = (void *)r->messages + r->last;
	struct transfer t = { .cpu = c, .flags = WIRE_COPY_WRITE, .count = last->segment_count };
	struct wire_copied answer;
	const char *why;

	last->flags = WIRE_COPY_WRITE;
	last->hdr.seq = c->run;
	ssi_channel_begin(c);
	send_all(r, NULL);
	receive_answer(&t, &answer, sizeof(answer));
	ssi_results_answered(r, answer.refused | (t.done < t.count ? BIT(r->count - 1) : 0));
	ssi_channel_end(c);
}

/* What the node refused, by load and store. */
static void do_rest(struct transfer *t)
{
	u8 *data = t->data + bytes_done(t);
	unsigned int i;

	for (i = t->done; i < t->count; i++) {
		if (t->flags & WIRE_COPY_WRITE)
			memcpy(own_address(t, i), data, t->segment[i].length);
		else
			memcpy(data, own_address(t, i), t->segment[i].length);
		data += t->segment[i].length;
	}
}

/* --- snapshots --- */

struct ssi_stay ssi_stay(void)
{
	return (struct ssi_stay){ task_pid_nr(current), current->nvcsw + current->nivcsw, current->mm->context.ssi->id };
}

static bool goes_on(const struct ssi_stay *s)
{
	struct ssi_stay now;

	if (!s->pid || !current->mm)
		return false;
	now = ssi_stay();
	return s->pid == now.pid && s->switches == now.switches && s->mm == now.mm;
}

void ssi_snapshot_begin(void)
{
	struct ssi_cpu *c;

	preempt_disable();		/* it is this CPU's */
	c = ssi_idle_channel();
	if (c && !c->snapshot.page)
		c->snapshot.page = kmalloc_array(SSI_SNAPSHOT_MAX, PAGE_SIZE, GFP_ATOMIC | __GFP_NOWARN);
	if (c && c->snapshot.page) {
		c->snapshot.stay = ssi_stay();
		c->snapshot.taken = 0;
	}
	preempt_enable();
}

/* NULL: the node does not hold it. */
static u8 *snapshot_of(struct ssi_cpu *c, unsigned long pfn)
{
	struct transfer t = { .cpu = c, .count = 1, .bytes = PAGE_SIZE, .segment = { { pfn, 0, PAGE_SIZE } } };
	struct ssi_snapshot *s = &c->snapshot;
	unsigned int i, count = min(s->taken, (unsigned int)SSI_SNAPSHOT_MAX);

	for (i = 0; i < count; i++)
		if (s->pfn[i] == pfn)
			return s->page[i];
	exchange(&t);
	if (!t.done)
		return NULL;
	i = s->taken++ % SSI_SNAPSHOT_MAX;
	s->pfn[i] = pfn;
	return memcpy(s->page[i], t.data, PAGE_SIZE);
}

/* As ssi_user_op(), which reads. */
static int read_snapshot(struct ssi_cpu *c, pte_t pte, unsigned long addr, unsigned long *len,
			 bool (*permitted)(pte_t, int), int (*op)(unsigned long, int, void *), void *arg)
{
	unsigned long size = min(PAGE_SIZE - offset_in_page(addr), *len);
	u8 *page;

	if (!permitted(pte, 0) || ssi_held(pte_pfn(pte), false))
		return -EAGAIN;
	page = snapshot_of(c, pte_pfn(pte));
	if (!page)
		return -EAGAIN;
	*len = size;
	return op((unsigned long)page + offset_in_page(addr), size, arg);
}

/* --- what came with the call --- */

static bool has_argument(const struct ssi_argument *a, pte_t pte, unsigned long addr)
{
	return goes_on(&a->stay) && a->at.pfn == pte_pfn(pte) && offset_in_page(addr) - a->at.offset < a->at.length;
}

/* As ssi_user_op(), which reads. */
static int read_argument(const struct ssi_argument *a, pte_t pte, unsigned long addr, unsigned long *len,
			 bool (*permitted)(pte_t, int), int (*op)(unsigned long, int, void *), void *arg)
{
	unsigned long from = offset_in_page(addr) - a->at.offset;

	if (!permitted(pte, 0) || ssi_held(pte_pfn(pte), false))
		return -EAGAIN;
	*len = min(a->at.length - from, *len);
	return op((unsigned long)a->bytes + from, *len, arg);
}

/* Memory of the current task is about to change. */
static void forget(void)
{
	struct ssi_cpu *c = ssi_idle_channel();

	if (!c)
		return;
	c->snapshot.taken = 0;
	c->argument.stay.pid = 0;
}

/* --- what the kernel calls --- */

/* The channel of a CPU elsewhere; NULL: there is none. */
static struct ssi_cpu *channel_there(void)
{
	return ssi_active && ssi_rights && ssi_user_node() ? ssi_idle_channel() : NULL;
}

/* Likewise, if it is worth while to ask its node for what it may have. */
static struct ssi_cpu *channel_to_ask(void)
{
	struct ssi_cpu *c = channel_there();

	if (!c || !c->copy_pause)
		return c;
	c->copy_pause--;
	return NULL;
}

/* By load and store, after what was put off. */
static int do_it_here(void)
{
	ssi_results_sync();
	return -EAGAIN;
}

int ssi_user_op(pte_t *pte, unsigned long addr, unsigned long *len, int is_write, bool (*permitted)(pte_t, int),
		int (*op)(unsigned long, int, void *), void *arg)
{
	struct transfer t = { .pte = pte, .flags = is_write ? WIRE_COPY_WRITE : 0 };
	int n = 0;

	if (is_write)
		forget();
	t.cpu = channel_to_ask();
	if (!t.cpu)
		return do_it_here();
	if (!is_write && has_argument(&t.cpu->argument, READ_ONCE(*pte), addr))
		return read_argument(&t.cpu->argument, READ_ONCE(*pte), addr, len, permitted, op, arg);
	if (!is_write && goes_on(&t.cpu->snapshot.stay))
		return read_snapshot(t.cpu, READ_ONCE(*pte), addr, len, permitted, op, arg);
	collect(&t, addr, *len, permitted);
	if (!t.count)
		return do_it_here();
	*len = t.bytes;
	t.data = is_write ? ssi_result_room(&t.cpu->results, t.segment, t.count, t.bytes) : NULL;
	if (t.data) {
		n = apply(&t, op, arg);
		ssi_result_put_off(&t.cpu->results);
		return n;
	}
	t.data = (u8 *)(&t.cpu->msg.copy + 1) + t.count * sizeof(t.segment[0]);
	if (is_write)
		n = apply(&t, op, arg);
	exchange(&t);
	do_rest(&t);
	if (!is_write)
		n = apply(&t, op, arg);
	return n;
}

/*
 * A page of the task is copied, because it is written to.  To do that here would bring the one here, if it is not, the right to
 * write the other too, and then that there, where it is used.  So the node is asked even for what is held here: most of
 * that it has as well, and what it lacks it gets once, for all children of fork().
 */
static struct transfer page_transfer(struct ssi_cpu *c, unsigned long to, unsigned long from)
{
	return (struct transfer){
		.cpu = c, .flags = WIRE_COPY_PAGE, .count = 2, .segment = { { from, 0, PAGE_SIZE }, { to, 0, PAGE_SIZE } },
	};
}

bool ssi_copy_page_there(unsigned long to, unsigned long from)
{
	struct transfer t;

	preempt_disable();		/* the channel is this CPU's */
	forget();
	t = page_transfer(channel_there(), to, from);
	if (t.cpu)
		exchange(&t);
	preempt_enable();
	return t.done == 2;
}

/*
 * Locked, so that it is neither moved nor written to a swap device as it is now.  And that somebody has a reference to what it is
 * copied from keeps others from writing to that, who would take it for their own.
 */
bool ssi_copy_page_later(struct page *to, struct page *from)
{
	struct ssi_copies *l = current->mm ? &current->mm->context.ssi->copies : NULL;

	if (!l || !l->put_off || l->count == COPIES_MAX || !trylock_page(to))
		return false;
	get_page(to);
	get_page(from);
	l->page[l->count].to = to;
	l->page[l->count++].from = from;
	return true;
}

/* All are asked for before the first answer: a round trip for all of them.  done: a bit for each. */
static unsigned long copy_there(struct ssi_cpu *c, const struct ssi_copies *l)
{
	unsigned long done = 0;
	struct transfer t;
	unsigned int i;

	ssi_channel_begin(c);
	for (i = 0; i < l->count; i++) {
		t = page_transfer(c, page_to_pfn(l->page[i].to), page_to_pfn(l->page[i].from));
		send(&t);
	}
	for (i = 0; i < l->count; i++) {
		receive(&t);
		done |= (unsigned long)(t.done == 2) << i;
	}
	ssi_channel_end(c);
	return done;
}

void ssi_copy_pages(struct ssi_copies *l)
{
	unsigned long done = 0;
	struct ssi_cpu *c;
	unsigned int i;

	if (!l->count)
		return;
	preempt_disable();
	forget();
	ssi_results_sync();		/* they may be to pages that are copied */
	c = channel_there();
	if (c)
		done = copy_there(c, l);
	preempt_enable();
	for (i = 0; i < l->count; i++) {
		if (!(done >> i & 1))
			copy_page(page_address(l->page[i].to), page_address(l->page[i].from));
		unlock_page(l->page[i].to);
		put_page(l->page[i].to);
		put_page(l->page[i].from);
	}
	l->count = 0;
}
