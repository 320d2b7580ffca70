/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages travel most: the misses of this node's threads, counted by process and page.
 *
 * Pure.  The caller serialises all calls on one table.
 */
#ifndef PANGEA_HOT_H
#define PANGEA_HOT_H

#include <stdint.h>

#define HOT_SLOTS	64
#define HOT_SHOWN	8

struct hot_page {
	uint64_t mm, address;	/* address: of the page, in the process */
	uint64_t pfn;
	uint32_t pid;
	char comm[16];
	uint64_t misses;	/* at most `excess` more than there were */
	uint64_t excess;
};

struct hot {
	unsigned count;
	struct hot_page page[HOT_SLOTS];
};

/* One more miss of the page that `page` names; misses and excess of it are not looked at. */
void hot_note(struct hot *hot, const struct hot_page *page);
/* The mm is gone. */
void hot_forget(struct hot *hot, uint64_t mm);
/* Those that are known to have missed most, in order, at most `max`.  Returns how many. */
unsigned hot_top(const struct hot *hot, struct hot_page *pages, unsigned max);

#endif
