// SPDX-License-Identifier: GPL-2.0
/*
 * Where the core keeps what it knows of frames.
 *
 * A frame that nothing happens to is one byte in the state array and, at home, one entry in the directory
 * array.  Both arrays start as zero pages that are never touched, so both are encoded such that zero means
 * the start: Exclusive at home, Invalid elsewhere.
 *
 * A frame with work in flight has a struct frame besides, found by its pfn in a hash table.  These and the
 * queued requests come from two pools that only grow.  frame_reserve() at the start of every entry function
 * is the only place that may run out of memory; one entry function needs at most one of each, so
 * everything behind it cannot fail.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

static unsigned bucket_of(uint64_t pfn)
{
	return (pfn * 0x9e3779b97f4a7c15ull >> 32) % FRAME_BUCKETS;
}

unsigned dsm_home(const struct dsm *d, uint64_t pfn)
{
	unsigned node;

	for (node = 0; node < d->config.nodes; node++)
		if (pfn - d->config.home[node].start < d->config.home[node].count)
			break;
	return node;
}

bool frame_is_home(const struct dsm *d, uint64_t pfn)
{
	const struct dsm_range *home = &d->config.home[d->config.self];

	return pfn - home->start < home->count;
}

static enum dsm_state first_state(const struct dsm *d, uint64_t pfn)
{
	return frame_is_home(d, pfn) ? DSM_EXCLUSIVE : DSM_INVALID;
}

enum dsm_state dsm_state(const struct dsm *d, uint64_t pfn)
{
	assert(pfn - d->first_pfn < d->pfn_count);
	return d->states[pfn - d->first_pfn] ^ first_state(d, pfn);
}

void frame_set_state(struct dsm *d, uint64_t pfn, enum dsm_state state)
{
	d->states[pfn - d->first_pfn] = (uint8_t)(state ^ first_state(d, pfn));
}

struct entry *frame_entry(const struct dsm *d, uint64_t pfn)
{
	assert(frame_is_home(d, pfn));
	return &d->entries[pfn - d->config.home[d->config.self].start];
}

struct frame *frame_find(const struct dsm *d, uint64_t pfn)
{
	struct frame *f;

	LIST_FOREACH(f, &d->buckets[bucket_of(pfn)], bucket)
		if (f->pfn == pfn)
			break;
	return f;
}

struct frame *frame_get(struct dsm *d, uint64_t pfn)
{
	struct frame *f = frame_find(d, pfn);

	if (f)
		return f;
	f = TAILQ_FIRST(&d->frame_pool);
	assert(f);
	TAILQ_REMOVE(&d->frame_pool, f, link);
	*f = (struct frame){ .pfn = pfn };
	TAILQ_INIT(&f->queue);
	LIST_INSERT_HEAD(&d->buckets[bucket_of(pfn)], f, bucket);
	return f;
}

/* Back to the pool unless either half still needs it. */
void frame_release_idle(struct dsm *d, struct frame *f)
{
	if (f->phase != PHASE_IDLE || f->asked)
		return;
	LIST_REMOVE(f, bucket);
	TAILQ_INSERT_HEAD(&d->frame_pool, f, link);
}

struct request *request_take(struct dsm *d)
{
	struct request *r = TAILQ_FIRST(&d->request_pool);

	assert(r);
	TAILQ_REMOVE(&d->request_pool, r, link);
	return r;
}

void request_put(struct dsm *d, struct request *r)
{
	TAILQ_INSERT_HEAD(&d->request_pool, r, link);
}

int frame_reserve(struct dsm *d)
{
	if (TAILQ_EMPTY(&d->frame_pool)) {
		struct frame *f = calloc(1, sizeof(*f));

		if (!f)
			return -ENOMEM;
		TAILQ_INSERT_HEAD(&d->frame_pool, f, link);
	}
	if (TAILQ_EMPTY(&d->request_pool)) {
		struct request *r = calloc(1, sizeof(*r));

		if (!r)
			return -ENOMEM;
		TAILQ_INSERT_HEAD(&d->request_pool, r, link);
	}
	return 0;
}

/* The ranges ascend; what lies between them is nobody's. */
static void span_ranges(struct dsm *d)
{
	uint64_t end = 0;

	for (unsigned node = 0; node < d->config.nodes; node++) {
		const struct dsm_range *home = &d->config.home[node];

		if (!home->count)
			continue;
		assert(home->start >= end && home->start + home->count > home->start);
		if (!end)
			d->first_pfn = home->start;
		end = home->start + home->count;
	}
	d->pfn_count = end - d->first_pfn;
}

struct dsm *dsm_new(const struct dsm_config *config)
{
	struct dsm *d;

	assert(config->nodes && config->nodes <= DSM_NODES_MAX && config->self < config->nodes);
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->config = *config;
	span_ranges(d);
	for (unsigned i = 0; i < FRAME_BUCKETS; i++)
		LIST_INIT(&d->buckets[i]);
	TAILQ_INIT(&d->cooling);
	TAILQ_INIT(&d->waiting);
	TAILQ_INIT(&d->frame_pool);
	TAILQ_INIT(&d->request_pool);
	d->states = config->states ? config->states : calloc(d->pfn_count + 1, sizeof(*d->states));
	d->entries = calloc(config->home[config->self].count + 1, sizeof(*d->entries));
	if (!d->states || !d->entries) {
		dsm_free(d);
		return NULL;
	}
	return d;
}

static void free_requests(struct request_list *list)
{
	struct request *r;

	while ((r = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, r, link);
		free(r);
	}
}

void dsm_free(struct dsm *d)
{
	struct frame *f;

	if (!d)
		return;
	for (unsigned i = 0; i < FRAME_BUCKETS; i++)
		while ((f = LIST_FIRST(&d->buckets[i]))) {
			LIST_REMOVE(f, bucket);
			free_requests(&f->queue);
			free(f);
		}
	while ((f = TAILQ_FIRST(&d->frame_pool))) {
		TAILQ_REMOVE(&d->frame_pool, f, link);
		free(f);
	}
	free_requests(&d->request_pool);
	free(d->entries);
	if (!d->config.states)
		free(d->states);
	free(d);
}
