// SPDX-License-Identifier: GPL-2.0
/*
 * Many frames at a time.
 *
 * Who reads one page after the other waits for a page as long as a message takes, or, if the next ones were asked for
 * before, as long as its share of the work takes: locks, system calls, messages, wake-ups.  So what was asked for
 * ahead travels over links of its own (net/wire.h, bulk), where one message may be about many frames, and is worked
 * off many frames at a time.
 *
 * The coherence core knows nothing of that: to it each frame is a request of its own, that queues, waits for
 * residence or goes elsewhere by itself.  It is called for one frame after the other, all under one frames_lock,
 * and what it does meanwhile is put off here, and combined if it is the same for frames that follow each other:
 *
 *   send      one message for all
 *   revoke    to Shared, when the content is to be sent: protected all at once, and sent from where it lies;
 *             to Invalid: taken out all at once, before what says so is sent
 *   install   written all at once
 *   ready     mapped all at once, or in one with writing them, where somebody has looked ahead for them
 *
 * All but the last, and DONEs, is done when combine_end() returns.  In between nobody else sees the frames, since
 * whoever makes an entry or copies holds the lock; the kernel on the kernel host does not, but obeys m->rights, which
 * the core has changed before it takes something away (pager.c), and after it has installed something: so there that is
 * written at once.  What the core says of one frame depends on no other.  And of one frame it says two things only where a
 * content that came is sent on at once, so all that came is written before anything is revoked; and where it is discarded
 * and given away in one, so what is dropped is dropped before anything is sent.
 */
#define _GNU_SOURCE
#include <string.h>

#include "machine.h"

static const uint8_t zero_page[NODE_PAGE_SIZE];

void combine_begin(struct machine *m, uint64_t now)
{
	m->combined.on = true;
	m->combined.now = now;
}

uint64_t combine_now(const struct machine *m)
{
	return m->combined.on ? m->combined.now : now_ns();
}

/* As many of these pages as the mm still shows where they are expected.  Its lock is held. */
static unsigned still_shown(struct mm *mm, const struct arrival *a)
{
	unsigned n;

	for (n = 0; n < a->count; n++) {
		struct mapping mapping = mm_lookup(mm, a->address + n * NODE_PAGE_SIZE);

		if (!mapping.prot || mapping.pfn != a->pfn + n)
			break;
	}
	return n;
}

/* Pages that are all to be mapped, so that writing and mapping them is one thing; the others must be written.  How many are. */
static unsigned write_arrival(struct machine *m, const struct arrival *a, uint64_t pfn, const uint8_t *pages, unsigned count)
{
	struct mm *mm = m->combined.mm;

	if (!mm || a->mm != mm->id || a->pfn < pfn || a->pfn + a->count > pfn + count || still_shown(mm, a) < a->count)
		return 0;
	for (unsigned i = 0; i < a->count; i++)
		if (dsm_state(m->dsm, a->pfn + i) != a->state)	/* it is just being revoked */
			return 0;
	return pager_write_mapped(m, mm, a->address, a->pfn, pages + (a->pfn - pfn) * NODE_PAGE_SIZE, a->count, a->state);
}

/* Arrivals come in the order of the pages. */
static void flush_pages(struct machine *m)
{
	struct combined *c = &m->combined;
	uint64_t at = c->pfn, end = at + c->page_count;

	for (unsigned i = 0; at < end && i < c->arrival_count; i++) {
		struct arrival *a = &c->arrivals[i];
		unsigned done = write_arrival(m, a, at, c->pages + (at - c->pfn) * NODE_PAGE_SIZE, end - at);

		if (!done)
			continue;
		if (a->pfn > at)
			pager_write(m, at, c->pages + (at - c->pfn) * NODE_PAGE_SIZE, a->pfn - at);
		a->address += done * NODE_PAGE_SIZE;
		a->pfn += done;
		a->count -= done;
		at = a->pfn;
	}
	if (at < end)
		pager_write(m, at, c->pages + (at - c->pfn) * NODE_PAGE_SIZE, end - at);
	c->page_count = 0;
}

/* --- sending --- */

static const uint8_t *frame_at(const struct machine *m, uint64_t pfn)
{
	return m->frames + pfn * NODE_PAGE_SIZE;
}

static bool is_zero(const uint8_t *page)
{
	return !memcmp(page, zero_page, NODE_PAGE_SIZE);
}

/* Those that are zero are not sent. */
static void send_pages(struct machine *m, unsigned to, struct dsm_msg msg, const uint8_t *pages, unsigned count)
{
	unsigned n;

	for (; count; msg.pfn += n, pages += n * NODE_PAGE_SIZE, count -= n) {
		bool zero = is_zero(pages);

		for (n = 1; n < count && is_zero(pages + n * NODE_PAGE_SIZE) == zero; n++)
			;
		msg.payload = zero ? DSM_PAYLOAD_ZERO : DSM_PAYLOAD_PAGE;
		msg.page = zero ? NULL : pages;
		peers_send_bulk(m, to, &msg, n);
	}
}

/* Pages that leave the frame cache. */
static void send_leaving(struct machine *m, unsigned to, struct dsm_msg msg, unsigned count)
{
	unsigned n;

	for (; count; msg.pfn += n, count -= n) {
		n = count < m->pipe_pages ? count : m->pipe_pages;
		pager_take(m, msg.pfn, n);
		send_pages(m, to, msg, m->taken, n);
	}
}

static void flush_dropped(struct machine *m)
{
	struct combined *c = &m->combined;

	if (c->dropped_count)
		pager_drop(m, c->dropped, c->dropped_count);
	c->dropped_count = 0;
}

/* What they say of frames that are dropped is to be true. */
static void flush_messages(struct machine *m)
{
	struct combined *c = &m->combined;
	unsigned count = c->count;

	flush_dropped(m);
	c->count = 0;
	if (!count)
		return;
	if (c->lent && c->leave) {
		send_leaving(m, c->to, c->msg, count);
		return;
	}
	if (c->lent && c->writable)
		pager_protect(m, c->msg.pfn, count);
	if (c->lent)
		send_pages(m, c->to, c->msg, frame_at(m, c->msg.pfn), count);
	else
		peers_send_bulk(m, c->to, &c->msg, count);
}

bool combine_lend(struct machine *m, uint64_t pfn, enum dsm_state have, enum dsm_state keep, const void **page)
{
	struct combined *c = &m->combined;
	bool writable = have == DSM_EXCLUSIVE, leave = keep == DSM_INVALID;

	if (!c->on)
		return false;
	flush_pages(m);
	if (c->writable != writable || c->leave != leave)
		flush_messages(m);
	c->writable = writable;
	c->leave = leave;
	*page = frame_at(m, pfn);
	return true;
}

bool combine_drop(struct machine *m, uint64_t pfn)
{
	struct combined *c = &m->combined;

	if (!c->on)
		return false;
	flush_pages(m);
	if (c->dropped + c->dropped_count != pfn)
		flush_dropped(m);
	if (!c->dropped_count++)
		c->dropped = pfn;
	return true;
}

static bool continues(const struct combined *c, unsigned to, const struct dsm_msg *msg, bool lent)
{
	return c->count && c->count < (msg->page ? WIRE_PAGES_MAX : WIRE_FRAMES_MAX) && c->to == to && c->lent == lent &&
	       c->msg.pfn + c->count == msg->pfn && c->msg.type == msg->type && c->msg.state == msg->state &&
	       c->msg.requester == msg->requester && c->msg.payload == msg->payload;
}

void combine_send(struct machine *m, unsigned to, const struct dsm_msg *msg)
{
	struct combined *c = &m->combined;
	bool lent = msg->page && msg->page == frame_at(m, msg->pfn);

	if (continues(c, to, msg, lent)) {
		c->count++;
		return;
	}
	flush_messages(m);
	c->to = to;
	c->msg = *msg;
	c->count = 1;
	c->lent = lent;
	if (msg->page && !lent)
		flush_messages(m);	/* the page is the core's again */
}

/* --- what comes --- */

void combine_install(struct machine *m, uint64_t pfn, const void *page)
{
	struct combined *c = &m->combined;

	flush_dropped(m);
	if (!c->on || m->rights) {
		pager_write(m, pfn, page, 1);
		return;
	}
	if (c->page_count && (c->pfn + c->page_count != pfn || c->pages + c->page_count * NODE_PAGE_SIZE != page))
		flush_pages(m);
	if (!c->page_count++) {
		c->pfn = pfn;
		c->pages = page;
	}
}

void combine_ready(struct machine *m, uint64_t pfn, enum dsm_state state)
{
	struct combined *c = &m->combined;
	struct expected *e = &m->expected[pfn % EXPECTED_MAX];
	struct arrival *last;

	if (!c->on || e->pfn != pfn || !e->address)
		return;
	last = c->arrival_count ? &c->arrivals[c->arrival_count - 1] : NULL;
	if (last && last->mm == e->mm && last->state == state && last->pfn + last->count == pfn &&
	    last->address + last->count * NODE_PAGE_SIZE == e->address)
		last->count++;
	else if (c->arrival_count < ARRIVALS_MAX)	/* the others are mapped when they are used */
		c->arrivals[c->arrival_count++] = (struct arrival){ e->mm, e->address, pfn, 1, state };
	e->address = 0;
}

void combine_flush(struct machine *m)
{
	flush_pages(m);
	flush_messages(m);
}

void combine_precede(struct machine *m, uint64_t pfn)
{
	if (pfn - m->combined.msg.pfn < m->combined.count)
		combine_flush(m);
}

/* DONE waits until the bulk thread has worked off all that has come, or until it cannot be combined any more. */
void combine_end(struct machine *m)
{
	flush_pages(m);
	flush_dropped(m);
	if (m->combined.msg.type != DSM_DONE)
		flush_messages(m);
	m->combined.on = false;
}

void combine_prepare(struct machine *m, uint64_t pfn)
{
	const struct expected *e = &m->expected[pfn % EXPECTED_MAX];
	uint64_t id;

	pthread_mutex_lock(&m->frames_lock);
	id = e->pfn == pfn ? e->mm : 0;		/* also of the page at the marker, which gets no entry itself */
	pthread_mutex_unlock(&m->frames_lock);
	m->combined.mm = id ? mm_find_started(m, id) : NULL;
	if (m->combined.mm)
		pthread_mutex_lock(&m->combined.mm->lock);
}

void combine_map(struct machine *m)
{
	struct combined *c = &m->combined;

	for (unsigned i = 0; c->mm && i < c->arrival_count; i++) {
		const struct arrival *a = &c->arrivals[i];
		unsigned count = a->mm == c->mm->id ? still_shown(c->mm, a) : 0;

		if (count)
			pager_map_held(m, c->mm, a->address, a->pfn, count);
	}
	c->arrival_count = 0;
	if (!c->mm)
		return;
	pthread_mutex_unlock(&c->mm->lock);
	mm_put(m, c->mm);
	c->mm = NULL;
}
