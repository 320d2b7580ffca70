// SPDX-License-Identifier: GPL-2.0
/*
 * Results of system calls that go along with the next RUN.
 *
 * What a system call writes to memory of a task of another node goes there as a COPY (user.c), and the task goes on with the
 * RUN after that.  To wait for the answer in between would double what a call takes that has a result, most of them.  So
 * such a COPY is put off until something else is sent, goes with that, and is not answered.  A node that does not hold the frame
 * (any more) says so in the next answer, an EVENT or COPIED, and does nothing more until then: no RUN, and no
 * COPY after it.  The stores are done here then, and the task begins anew.
 *
 * Nobody may notice:
 *   - no other thread has the mm, and the pages are anonymous, so nobody else sees them;
 *   - the pages are referenced until then, so that they are not swapped out, moved, or given to others;
 *   - what reads or writes the task's memory from here does so after it was done (ssi_results_sync()), or over the same channel;
 *   - before a signal is delivered, which may dump it, and before another task runs, it is done;
 *   - who has an io_uring may have several calls in one, of which one reads what another wrote: nothing is put off.
 *
 * What remains: a process that the call has woken, and that looks into this one's memory at once (process_vm_readv()), may
 * see it as it was before the call.  And a task that computes for long afterwards keeps these few pages where they are.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <ssi.h>
#include <ssi_result.h>
#include "ssi_internal.h"

static bool is_own(const struct page *page)
{
	return PageAnon(page);
}

/* Only the current task can see it before it goes on. */
static bool is_alone(void)
{
	return in_task() && !(current->flags & (PF_KTHREAD | PF_EXITING | PF_IO_WORKER | PF_USER_WORKER)) &&
	       !current->ptrace && !current->io_uring && atomic_read(&current->mm->mm_users) == 1;
}

void *ssi_result_room(struct ssi_results *r, const struct wire_segment *segments, unsigned int count, unsigned long bytes)
{
	struct wire_copy *msg = (void *)r->messages + r->bytes;
	unsigned long head = sizeof(*msg) + count * sizeof(*segments), length = head + ALIGN(bytes, 8);
	unsigned int i;

	if (r->count == WIRE_UNANSWERED_MAX || r->bytes + length > sizeof(r->messages) || !is_alone())
		return NULL;
	for (i = 0; i < count; i++)
		if (!is_own(pfn_to_page(segments[i].pfn)))
			return NULL;
	*msg = (struct wire_copy){
		.hdr = { .length = length, .type = WIRE_COPY },
		.flags = WIRE_COPY_WRITE | WIRE_COPY_UNANSWERED,
		.segment_count = count,
	};
	memcpy(msg + 1, segments, count * sizeof(*segments));
	memset((void *)msg + head + bytes, 0, length - head - bytes);
	return (void *)msg + head;
}

void ssi_result_put_off(struct ssi_results *r)
{
	const struct wire_copy *msg = (const void *)r->messages + r->bytes;
	const struct wire_segment *segments = (const void *)(msg + 1);
	unsigned int i;

	for (i = 0; i < msg->segment_count; i++)
		get_page(pfn_to_page(segments[i].pfn));
	r->last = r->bytes;
	r->bytes += msg->hdr.length;
	r->count++;
}

/* What the node has refused, by stores of our own. */
static void store(const struct wire_copy *msg)
{
	const struct wire_segment *segments = (const void *)(msg + 1);
	const u8 *data = (const u8 *)(segments + msg->segment_count);
	unsigned int i;

	for (i = 0; i < msg->segment_count; i++) {
		memcpy(page_address(pfn_to_page(segments[i].pfn)) + segments[i].offset, data, segments[i].length);
		data += segments[i].length;
	}
}

static void release(const struct wire_copy *msg)
{
	const struct wire_segment *segments = (const void *)(msg + 1);
	unsigned int i;

	for (i = 0; i < msg->segment_count; i++)
		put_page(pfn_to_page(segments[i].pfn));
}

void ssi_results_answered(struct ssi_results *r, u32 refused)
{
	const void *at = r->messages, *end = at + r->bytes;

	for (; at < end; at += ((const struct wire_copy *)at)->hdr.length, refused >>= 1) {
		if (refused & 1)
			store(at);
		release(at);
	}
	r->count = r->bytes = 0;
}

void ssi_results_sync(void)
{
	struct ssi_cpu *c = ssi_idle_channel();

	if (c && c->results.count)
		ssi_results_exchange(c);
}
