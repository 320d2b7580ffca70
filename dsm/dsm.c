// SPDX-License-Identifier: GPL-2.0
/*
 * Coherence of frames between nodes: entry functions.
 *
 * Every node plays two parts, cache.c for each frame it uses and directory.c for each frame at home
 * on it; the state diagrams and edge tables stand there.  The parts know each other only as peers know each
 * other, by messages, also when both are on this node: a message to self waits in a small queue until its
 * sender has returned and is then handled like any other.  A handler thus never runs within another.
 *
 *   GET             requester -> home       I want this right on the frame
 *   FETCH           home -> a holder        send the requester what the frame holds, and keep what is left
 *   INVALIDATE      home -> a holder        drop the frame
 *   INVALIDATE_ACK  holder -> home          nobody here can use it any more
 *   GRANT           holder -> requester     here it is
 *                   home -> requester       what you hold is current, and yours alone
 *   DONE            requester -> home       I have it; go on with the next
 *
 * Whatever arrives is judged first, by the *_refuse_*() function of its type, on what this node knows for
 * sure.  Own messages obey the same rules.
 */
#include <assert.h>
#include <errno.h>

#include "internal.h"

static const struct {
	const char *(*refuse)(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
	void (*handle)(struct dsm *d, unsigned from, const struct dsm_msg *msg);
	bool has_state;
} handlers[] = {
	[DSM_GET]		= { directory_refuse_get, directory_get, true },
	[DSM_FETCH]		= { cache_refuse_fetch, cache_fetch, true },
	[DSM_INVALIDATE]	= { cache_refuse_invalidate, cache_invalidate, false },
	[DSM_INVALIDATE_ACK]	= { directory_refuse_ack, directory_ack, false },
	[DSM_GRANT]		= { cache_refuse_grant, cache_grant, true },
	[DSM_DONE]		= { directory_refuse_done, directory_done, false },
};

/* What is wrong with the message whatever this node's state is. */
static const char *refuse_form(const struct dsm *d, const struct dsm_msg *msg)
{
	bool has_page = msg->payload == DSM_PAYLOAD_PAGE;

	if ((unsigned)msg->type >= sizeof(handlers) / sizeof(handlers[0]))
		return "message of unknown type";
	if (dsm_home(d, msg->pfn) == d->config.nodes)
		return "message about a frame that the machine does not have";
	if ((unsigned)msg->state > DSM_EXCLUSIVE || (msg->state != DSM_INVALID) != handlers[msg->type].has_state)
		return "message with an impossible state";
	if ((unsigned)msg->payload > DSM_PAYLOAD_PAGE || (msg->payload && msg->type != DSM_GRANT))
		return "message with an impossible payload";
	if (has_page != (msg->page != NULL))
		return "message whose payload and page disagree";
	return NULL;
}

static const char *refuse(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	const char *why = refuse_form(d, msg);

	return why ? why : handlers[msg->type].refuse(d, from, msg);
}

void dsm_send(struct dsm *d, unsigned to, const struct dsm_msg *msg)
{
	if (to != d->config.self) {
		d->config.ops->send(d->config.ctx, to, msg);
		return;
	}
	assert(d->self_count < SELF_MAX && !msg->page);
	d->self_queue[(d->self_first + d->self_count++) % SELF_MAX] = *msg;
}

static void handle_own(struct dsm *d)
{
	while (d->self_count) {
		struct dsm_msg msg = d->self_queue[d->self_first];

		d->self_first = (d->self_first + 1) % SELF_MAX;
		d->self_count--;
		assert(!refuse(d, d->config.self, &msg));
		handlers[msg.type].handle(d, d->config.self, &msg);
	}
}

/* Callers may have read the clock before they waited for each other. */
static void advance_time(struct dsm *d, uint64_t now_ns)
{
	if (now_ns > d->now_ns)
		d->now_ns = now_ns;
	directory_forget_cooled(d);
}

/* First in every entry function: time goes on, and memory for all that may follow is there. */
static int enter(struct dsm *d, uint64_t now_ns)
{
	advance_time(d, now_ns);
	return frame_reserve(d);
}

int dsm_acquire(struct dsm *d, uint64_t pfn, enum dsm_state want, uint64_t now_ns)
{
	struct frame *f;
	int err;

	assert(want == DSM_SHARED || want == DSM_EXCLUSIVE);
	if (dsm_home(d, pfn) == d->config.nodes)
		return -EINVAL;
	if (dsm_state(d, pfn) >= want)
		return 0;
	err = enter(d, now_ns);
	if (err)
		return err;
	f = frame_get(d, pfn);
	if (f->wanted < want)
		f->wanted = want;
	if (f->asked == DSM_INVALID)
		cache_ask(d, f);
	handle_own(d);
	return 1;
}

int dsm_discard(struct dsm *d, uint64_t pfn, uint64_t now_ns)
{
	bool ended;
	int err;

	if (!frame_is_home(d, pfn))
		return -EINVAL;
	err = enter(d, now_ns);
	if (err)
		return err;
	ended = directory_discard(d, pfn);
	handle_own(d);
	return !ended;
}

int dsm_receive(struct dsm *d, unsigned from, const struct dsm_msg *msg, uint64_t now_ns,
		const char **why)
{
	int err;

	assert(from < d->config.nodes && from != d->config.self);
	*why = refuse(d, from, msg);
	if (*why)
		return -EPROTO;
	err = enter(d, now_ns);
	if (err) {
		*why = "out of memory";
		return err;
	}
	handlers[msg->type].handle(d, from, msg);
	handle_own(d);
	return 0;
}

/* No request can begin in here, so no memory is needed. */
uint64_t dsm_tick(struct dsm *d, uint64_t now_ns)
{
	advance_time(d, now_ns);
	while (directory_continue_due(d))
		handle_own(d);
	return directory_deadline(d);
}

const struct dsm_stats *dsm_stats(const struct dsm *d)
{
	return &d->stats;
}
