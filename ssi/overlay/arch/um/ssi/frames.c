// SPDX-License-Identifier: GPL-2.0
/*
 * Frames that are free do not travel.
 *
 * The daemons do not know what a frame is used for.  Without help they would carry what a freed frame held to
 * its next user, and a new anonymous page would be zeroed on the kernel host and then carried to the node that
 * wants it.  So the kernel tells the home of a frame to discard it, after which no node holds it
 * and it reads as zero; zeroing it again is then left out.
 *
 * Discarding takes a round trip.  It is done when a stale frame is allocated, and then for many stale frames
 * around it at once, so that they share the price; not for all, because a CPU waits meanwhile.  Frames of the
 * kernel host that were never mapped on another node are never stale: the kernel's own data costs nothing.
 *
 * Per frame:  away   it may be held elsewhere than at the kernel host
 *             stale  it was freed while away, and must be discarded before it is used
 *             zero   it was discarded, or never used, and was allocated since; what is copied to it as a whole ends that
 */
#include <linux/bitmap.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <mem_user.h>
#include <ssi.h>
#include "ssi_internal.h"

#define DISCARD_FRAMES_MAX 512		/* in one request: about half a millisecond of work */
#define DISCARD_SPAN (1ul << 18)	/* frames to look through for them on either side; microseconds */

static unsigned long *away, *stale, *zero;
static bool ready;

static unsigned int home_of(unsigned long pfn)
{
	unsigned int node = ssi_boot.node_count - 1;

	while (node && pfn < ssi_boot.nodes[node].pfn_start)
		node--;
	return node;
}

/* The stale frames in between, as many as there is room for: the number of ranges by then. */
static unsigned int collect_between(unsigned long pfn, unsigned long end, struct wire_range *ranges, unsigned int count,
				    unsigned long *room)
{
	unsigned long next;

	while (count < WIRE_RANGES_MAX && *room) {
		pfn = find_next_bit(stale, end, pfn);
		if (pfn >= end)
			break;
		next = find_next_zero_bit(stale, min(end, pfn + *room), pfn);
		ranges[count++] = (struct wire_range){ pfn, next - pfn };
		*room -= next - pfn;
		pfn = next;
	}
	return count;
}

/* Those at home there around pfn, the ones from there on first: what was freed last is used next, in no order. */
static unsigned int collect_stale(unsigned int node, unsigned long pfn, struct wire_range *ranges)
{
	unsigned long start = ssi_boot.nodes[node].pfn_start, end = start + ssi_boot.nodes[node].pfn_count;
	unsigned long room = DISCARD_FRAMES_MAX;
	unsigned int count = collect_between(pfn, min(end, pfn + DISCARD_SPAN), ranges, 0, &room);

	return collect_between(pfn - min(pfn - start, DISCARD_SPAN), pfn, ranges, count, &room);
}

/* Called with the request acknowledged: the frames are like new. */
static void discarded(const struct wire_range *ranges, unsigned int count)
{
	unsigned long pfn;

	while (count--)
		for (pfn = ranges[count].pfn; pfn < ranges[count].pfn + ranges[count].count; pfn++) {
			clear_bit(pfn, away);
			clear_bit(pfn, stale);
		}
}

static bool any_stale(unsigned long pfn, unsigned long end)
{
	return find_next_bit(stale, end, pfn) < end;
}

/* All pages of an allocation have one home: nodes are larger than any allocation and aligned to it. */
static void discard_before_use(unsigned long pfn, unsigned long end)
{
	unsigned int node = home_of(pfn);

	while (any_stale(pfn, end))
		ssi_node_discard(node, pfn, collect_stale, discarded);
}

/* Some more of the stale frames at home there, so that their memory goes back to that host. */
bool ssi_frames_trim(unsigned int node)
{
	unsigned long end = ssi_boot.nodes[node].pfn_start + ssi_boot.nodes[node].pfn_count, pfn;

	if (!ready)
		return false;
	pfn = find_next_bit(stale, end, ssi_boot.nodes[node].pfn_start);
	if (pfn >= end)
		return false;
	ssi_node_discard(node, pfn, collect_stale, discarded);
	return true;
}

void arch_free_page(struct page *page, int order)
{
	unsigned long pfn = page_to_pfn(page), end = pfn + (1UL << order);

	if (!ready)
		return;
	for (pfn = find_next_bit(away, end, pfn); pfn < end; pfn = find_next_bit(away, end, pfn + 1))
		set_bit(pfn, stale);
}

/* So that host system calls find them (host_user.c). */
static void touch(struct page *page, unsigned int count)
{
	for (; count; page++, count--)
		atomic_or(0, (atomic_t *)page_address(page));
}

void arch_alloc_page(struct page *page, int order)
{
	unsigned long first = page_to_pfn(page), end = first + (1UL << order), pfn;
	bool remote;

	if (!ready)
		return;
	remote = home_of(first) != 0;
	if (remote || any_stale(first, end))
		discard_before_use(first, end);
	if (!remote && ssi_touch_frames)
		touch(page, 1 << order);
	for (pfn = first; remote && pfn < end; pfn++) {
		set_bit(pfn, zero);
		set_bit(pfn, away);	/* its own node may hold it from now on */
	}
}

void ssi_clear_user_page(void *address, struct page *page)
{
	if (!ready || !test_and_clear_bit(page_to_pfn(page), zero))
		clear_page(address);
}

/* The node may fetch the source, without its being noted as away: so only one that is already is copied there. */
void ssi_copy_user_page(void *to, void *from, struct page *page)
{
	unsigned long pfn = page_to_pfn(page), source = PHYS_PFN(__pa(from));

	if (!ready || !home_of(pfn) || home_of(pfn) != ssi_user_node() || !test_bit(source, away) ||
	    !(ssi_copy_page_later(page, virt_to_page(from)) || ssi_copy_page_there(pfn, source)))
		copy_page(to, from);
	if (ready)
		clear_bit(pfn, zero);
}

/* Frames are about to be mapped on a node. */
void ssi_frames_given(unsigned int node, unsigned long pfn, unsigned long count)
{
	if (!node)
		return;
	for (; count; pfn++, count--)
		if (!test_bit(pfn, away))
			set_bit(pfn, away);
}

static int __init ssi_frames_init(void)
{
	unsigned long frames = PFN_DOWN(physmem_size), bytes = BITS_TO_LONGS(frames) * sizeof(long);

	if (!ssi_active)
		return 0;
	away = vzalloc(bytes);
	stale = vzalloc(bytes);
	zero = vzalloc(bytes);
	if (!away || !stale || !zero)
		panic("no memory to track %lu frames", frames);
	ready = true;
	return 0;
}
early_initcall(ssi_frames_init);
