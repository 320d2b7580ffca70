// SPDX-License-Identifier: GPL-2.0
/*
 * One node's rights on frames, whoever their home is: asking for them and giving them up.
 *
 *                 GRANT(Exclusive)                   GRANT(Exclusive, NONE)
 *        +--------------------------------+   +-------------------------------+
 *        |                                v   |                               v
 *   +---------+   GRANT(Shared)   +--------------+   FETCH(Shared)   +-----------------+
 *   | Invalid |------------------>|    Shared    |<------------------|    Exclusive    |
 *   +---------+                   +--------------+                   +-----------------+
 *     ^     ^  INVALIDATE,              |                                     |
 *     |     +--FETCH(Exclusive)---------+          FETCH(Exclusive), INVALIDATE (discard)
 *     +-----------------------------------------------------------------------+
 *
 *   from       message            to         function            answer
 *   Invalid    GRANT(Shared)      Shared     cache_grant()       DONE to the home
 *   Invalid    GRANT(Exclusive)   Exclusive  cache_grant()       DONE to the home
 *   Shared     GRANT(Excl, NONE)  Exclusive  cache_grant()       DONE to the home
 *   Exclusive  FETCH(Shared)      Shared     cache_fetch()       GRANT with the content to the requester
 *   Shared     FETCH(Shared)      Shared     cache_fetch()       GRANT with the content to the requester
 *   Exclusive  FETCH(Exclusive)   Invalid    cache_fetch()       GRANT with the content to the requester
 *   Shared     FETCH(Exclusive)   Invalid    cache_fetch()       GRANT with the content to the requester
 *   Shared     INVALIDATE         Invalid    cache_invalidate()  INVALIDATE_ACK to the home
 *   Exclusive  INVALIDATE         Invalid    cache_invalidate()  INVALIDATE_ACK to the home (discard)
 *
 * The setter of a state is frame_set_state().  Besides these edges, directory.c makes a discarded frame
 * Exclusive at its home.
 *
 * A node has at most one GET per frame under way (frame.asked).  Local callers that want more meanwhile
 * raise frame.wanted; the stronger GET leaves when the first is granted.  An INVALIDATE that meets a
 * pending upgrade just takes the copy away: the home sees that when it serves the GET, and sends the content.
 */
#include <assert.h>

#include "internal.h"

static void count_miss(struct dsm *d, enum dsm_state held, enum dsm_state want)
{
	if (want == DSM_SHARED)
		d->stats.read_miss++;
	else if (held == DSM_INVALID)
		d->stats.write_miss++;
	else
		d->stats.upgrade++;
}

void cache_ask(struct dsm *d, struct frame *f)
{
	struct dsm_msg get = {
		.type = DSM_GET, .state = f->wanted, .requester = d->config.self, .pfn = f->pfn,
	};

	count_miss(d, dsm_state(d, f->pfn), f->wanted);
	f->asked = f->wanted;
	dsm_send(d, dsm_home(d, f->pfn), &get);
}

static const char *refuse_order(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	if (from != dsm_home(d, msg->pfn))
		return "an order about a frame that is not at home there";
	if (msg->requester >= d->config.nodes)
		return "an order on behalf of an unknown node";
	if (dsm_state(d, msg->pfn) == DSM_INVALID)
		return "an order about a frame that is not held here";
	return NULL;
}

const char *cache_refuse_fetch(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	if (msg->requester == d->config.self)
		return "FETCH from the requester itself";
	return refuse_order(d, from, msg);
}

const char *cache_refuse_invalidate(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	if (msg->requester == d->config.self && from != d->config.self)
		return "INVALIDATE of the requester itself";
	return refuse_order(d, from, msg);
}

const char *cache_refuse_grant(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	const struct frame *f = frame_find(d, msg->pfn);
	bool current = msg->payload == DSM_PAYLOAD_NONE;

	if (msg->requester != d->config.self)
		return "GRANT for another node";
	if (!f || f->asked == DSM_INVALID)
		return "GRANT of a frame that was not asked for";
	if (f->asked != msg->state)
		return "GRANT of another right than was asked for";
	if (frame_is_home(d, msg->pfn) && !directory_told_to_grant(d, f, from))
		return "GRANT from a node that was not told to";
	if (current && from != dsm_home(d, msg->pfn))
		return "GRANT without content, not from the home";
	if (current && dsm_state(d, msg->pfn) == DSM_INVALID)
		return "GRANT without content for a frame that is not held here";
	if (!current && dsm_state(d, msg->pfn) != DSM_INVALID)
		return "GRANT with content for a frame that is held here";
	return NULL;
}

/* Give the content to the requester, and up whatever it may not share. */
void cache_fetch(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	enum dsm_state have = dsm_state(d, msg->pfn);
	enum dsm_state keep = msg->state == DSM_EXCLUSIVE ? DSM_INVALID : DSM_SHARED;
	struct dsm_msg grant = {
		.type = DSM_GRANT, .state = msg->state, .requester = msg->requester, .pfn = msg->pfn,
	};
	const void *page = NULL;

	(void)from;
	frame_set_state(d, msg->pfn, keep);
	grant.payload = d->config.ops->revoke(d->config.ctx, msg->pfn, have, keep, &page);
	assert(grant.payload != DSM_PAYLOAD_NONE);
	if (grant.payload == DSM_PAYLOAD_PAGE) {
		grant.page = page;
		d->stats.page_out++;
	}
	if (keep == DSM_INVALID)
		d->stats.invalidated++;
	dsm_send(d, msg->requester, &grant);
}

void cache_invalidate(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	struct dsm_msg ack = { .type = DSM_INVALIDATE_ACK, .requester = msg->requester, .pfn = msg->pfn };
	enum dsm_state have = dsm_state(d, msg->pfn);

	frame_set_state(d, msg->pfn, DSM_INVALID);
	d->config.ops->revoke(d->config.ctx, msg->pfn, have, DSM_INVALID, NULL);
	d->stats.invalidated++;
	dsm_send(d, from, &ack);
}

/*
 * What was asked for is here.  Only a home that discarded the frame in the meantime holds more by now
 * than it asked for, and keeps it.
 */
void cache_grant(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	struct frame *f = frame_find(d, msg->pfn);
	enum dsm_state held = dsm_state(d, msg->pfn);
	enum dsm_state state = held > msg->state ? held : msg->state;
	struct dsm_msg done = { .type = DSM_DONE, .requester = d->config.self, .pfn = msg->pfn };

	(void)from;
	d->stats.page_in += msg->payload == DSM_PAYLOAD_PAGE;
	d->stats.zero_in += msg->payload == DSM_PAYLOAD_ZERO;
	d->config.ops->install(d->config.ctx, msg->pfn, state, msg->payload, msg->page);
	frame_set_state(d, msg->pfn, state);
	d->config.ops->ready(d->config.ctx, msg->pfn, state);
	dsm_send(d, dsm_home(d, msg->pfn), &done);
	f->asked = DSM_INVALID;
	if (f->wanted > state) {
		cache_ask(d, f);
		return;
	}
	f->wanted = DSM_INVALID;
	frame_release_idle(d, f);
}
