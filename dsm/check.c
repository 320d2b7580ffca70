// SPDX-License-Identifier: GPL-2.0
/* The invariants of one instance, between two calls of entry functions.  Tests call this after each. */
#include "internal.h"

static const char *check_cache_half(const struct dsm *d, const struct frame *f)
{
	if (f->wanted < f->asked || (f->wanted && !f->asked))
		return "wanted and asked disagree";
	if (f->asked && f->asked <= dsm_state(d, f->pfn) && !frame_is_home(d, f->pfn))
		return "asked for a right that is held";
	if (!f->asked && f->phase == PHASE_IDLE)
		return "a frame without work is kept";
	return NULL;
}

static const char *check_queue(const struct dsm *d, const struct frame *f)
{
	const struct request *served = directory_served(f);
	const struct request *r;
	nodeset seen = 0;

	TAILQ_FOREACH(r, &f->queue, link) {
		if (r == served || r->want == DSM_INVALID)
			continue;
		if (seen & node_bit(r->node))
			return "a node waits twice";
		seen |= node_bit(r->node);
	}
	if (TAILQ_EMPTY(&f->queue) != (f->phase < PHASE_WAITING))
		return "phase and queue disagree";
	if (f->asked && frame_is_home(d, f->pfn) && !(seen & node_bit(d->config.self)) &&
	    !(served && served->node == d->config.self))
		return "the home's own GET is lost";
	return NULL;
}

static const char *check_home_half(const struct dsm *d, const struct frame *f)
{
	if (!frame_is_home(d, f->pfn))
		return f->phase == PHASE_IDLE && TAILQ_EMPTY(&f->queue) ? NULL : "serves a frame of another home";
	if ((f->phase == PHASE_INVALIDATING) != (f->acks != 0))
		return "phase and missing acknowledgements disagree";
	if (f->acks & ~directory_holders(d, f->pfn))
		return "waits for a node that holds nothing";
	if (f->phase == PHASE_WAITING && !(f->resident & ~node_bit(TAILQ_FIRST(&f->queue)->node)))
		return "waits for nobody's residence";
	return check_queue(d, f);
}

static const char *check_entry(const struct dsm *d, uint64_t pfn)
{
	const struct frame *f = frame_find(d, pfn);
	const struct entry *entry = frame_entry(d, pfn);
	nodeset holders = directory_holders(d, pfn);
	bool many = holders & (holders - 1);

	if ((uint32_t)holders >> d->config.nodes)
		return "an unknown node holds a frame";
	if (many != (entry->shared != 0))
		return "an entry is neither one Exclusive holder nor several Shared ones";
	if (!(f && directory_served(f)) && dsm_state(d, pfn) != directory_rights(d, pfn, d->config.self))
		return "the home's state is not what its directory says";
	return NULL;
}

static const char *check_lists(const struct dsm *d)
{
	const struct frame *f;
	size_t cooling = 0;

	TAILQ_FOREACH(f, &d->cooling, link) {
		if (f->phase != PHASE_COOLING)
			return "a frame on the cooling list does not cool";
		cooling++;
	}
	TAILQ_FOREACH(f, &d->waiting, link)
		if (f->phase != PHASE_WAITING)
			return "a frame on the waiting list does not wait";
	if (cooling != d->cooling_count)
		return "cooling frames are miscounted";
	return d->self_count ? "a message to self was left" : NULL;
}

const char *dsm_check(const struct dsm *d)
{
	const struct dsm_range *home = &d->config.home[d->config.self];
	const char *broken = check_lists(d);
	const struct frame *f;

	for (unsigned i = 0; i < FRAME_BUCKETS && !broken; i++)
		LIST_FOREACH(f, &d->buckets[i], bucket) {
			broken = check_cache_half(d, f);
			broken = broken ? broken : check_home_half(d, f);
			if (broken)
				break;
		}
	for (uint64_t i = 0; i < home->count && !broken; i++)
		broken = check_entry(d, home->start + i);
	return broken;
}
