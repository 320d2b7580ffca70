// SPDX-License-Identifier: GPL-2.0
/*
 * The pages that travel most, found with a table of fixed size: Space-Saving (Metwally, Agrawal, El Abbadi:
 * Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005).  A page that is not in the full
 * table takes the place of the one with the fewest misses and inherits their number, as an excess.  Every
 * page with more than 1/HOT_SLOTS of all misses is then in the table.
 */
#include <stdlib.h>
#include <string.h>

#include "hot.h"

static struct hot_page *find(struct hot *hot, uint64_t mm, uint64_t address)
{
	for (unsigned i = 0; i < hot->count; i++)
		if (hot->page[i].address == address && hot->page[i].mm == mm)
			return &hot->page[i];
	return NULL;
}

static struct hot_page *coldest(struct hot *hot)
{
	struct hot_page *page = &hot->page[0];

	for (unsigned i = 1; i < hot->count; i++)
		if (hot->page[i].misses < page->misses)
			page = &hot->page[i];
	return page;
}

void hot_note(struct hot *hot, const struct hot_page *page)
{
	struct hot_page *slot = find(hot, page->mm, page->address);
	uint64_t misses = 0, excess = 0;

	if (slot) {
		misses = slot->misses;
		excess = slot->excess;
	} else if (hot->count < HOT_SLOTS) {
		slot = &hot->page[hot->count++];
	} else {
		slot = coldest(hot);
		misses = excess = slot->misses;
	}
	*slot = *page;
	slot->misses = misses + 1;
	slot->excess = excess;
}

void hot_forget(struct hot *hot, uint64_t mm)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < hot->count; i++)
		if (hot->page[i].mm != mm)
			hot->page[kept++] = hot->page[i];
	hot->count = kept;
}

static uint64_t certain(const struct hot_page *page)
{
	return page->misses - page->excess;
}

static int descending(const void *a, const void *b)
{
	uint64_t x = certain(a), y = certain(b);

	return (x < y) - (x > y);
}

unsigned hot_top(const struct hot *hot, struct hot_page *pages, unsigned max)
{
	struct hot all = *hot;
	unsigned count = hot->count < max ? hot->count : max;

	qsort(all.page, all.count, sizeof(all.page[0]), descending);
	memcpy(pages, all.page, count * sizeof(pages[0]));
	return count;
}
