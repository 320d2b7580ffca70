// SPDX-License-Identifier: GPL-2.0
/*
 * What a stub of the kernel host has mapped, as the kernel has told it (map.c).
 *
 * A range that has to go is mostly one where nothing was ever mapped: fork() says so of a whole address space, and every
 * system call to unmap nothing takes as long as one to return.  So what is mapped is listed, and only that is unmapped.
 *
 * And a child of fork() that ends is often followed by another of the same parent, with most of its mappings: the same frames at
 * the same addresses.  So its stub goes back to pangead's store with them, and its list.  Who takes it keeps those that are in
 * its own page table likewise; the others get new mappings in their place, or go, before its first user code runs (mm.c
 * has all of them pending from the beginning).  Between the two nothing runs in the stub, so what becomes of the frames is
 * nothing to it.  Others, who may have to take such a stub, unmap all.  The stubs of programs are not kept: when the next one
 * begins, most of what the last one had is not mapped yet, and would have to go.
 *
 * The list tells all that the stub may show; what is listed may have gone meanwhile.  It is lost when there is too much for it,
 * and when pangead maps for the mm: then whatever goes is unmapped, until all has been.
 *
 * A list is under ssi_mm.lock, which has disabled IRQs, or, of a stub in store, under kept.lock; the latter is also taken alone,
 * by who is about to fork().
 */
#include <linux/build_bug.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "ssi_internal.h"

#define KEPT_STUBS	16		/* whose lists are known; the others are emptied when they are taken */

static struct {
	raw_spinlock_t lock;		/* all of this, with IRQs disabled; after an ssi_mm.lock */
	unsigned int next;		/* to be replaced */
	struct { unsigned int area; struct ssi_mapped *list; } stub[KEPT_STUBS];	/* area: as in ssi_mm */
} kept = { .lock = __RAW_SPIN_LOCK_UNLOCKED(kept.lock) };

struct ssi_mapped *ssi_mapped_new(void)
{
	struct ssi_mapped *l = kmalloc(sizeof(*l), GFP_KERNEL);

	BUILD_BUG_ON(sizeof(*l) > PAGE_SIZE);
	if (l)
		l->lost = l->count = 0;
	return l;
}

/* The first mapping that ends behind there. */
static unsigned int find(const struct ssi_mapped *l, unsigned long at)
{
	unsigned int low = 0, high = l->count;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (l->mapping[middle].end > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* false: there is no room. */
static bool insert(struct ssi_mapped *l, unsigned int i, const struct ssi_mapping *m)
{
	if (l->count == MAPPED_MAX) {
		l->lost = true;
		return false;
	}
	memmove(&l->mapping[i + 1], &l->mapping[i], (l->count++ - i) * sizeof(*m));
	l->mapping[i] = *m;
	return true;
}

static void begin_at(struct ssi_mapping *m, unsigned long start)
{
	m->pfn += (start - m->start) >> PAGE_SHIFT;
	m->start = start;
}

bool ssi_mapped_remove(struct ssi_mapped *l, unsigned long start, unsigned long end)
{
	unsigned int i, gone;

	if (!l || l->lost)
		return true;
	i = find(l, start);
	if (i == l->count || l->mapping[i].start >= end)
		return false;
	if (l->mapping[i].start < start) {
		if (l->mapping[i].end > end && !insert(l, i, &l->mapping[i]))
			return true;
		l->mapping[i++].end = start;
	}
	for (gone = i; gone < l->count && l->mapping[gone].end <= end; gone++)
		;
	if (gone < l->count && l->mapping[gone].start < end)
		begin_at(&l->mapping[gone], end);
	memmove(&l->mapping[i], &l->mapping[gone], (l->count - gone) * sizeof(l->mapping[0]));
	l->count -= gone - i;
	return true;
}

u32 ssi_mapped_prot(const struct ssi_mapped *l, unsigned long at, unsigned long pfn)
{
	const struct ssi_mapping *m;
	unsigned int i;

	if (!l || l->lost)
		return 0;
	i = find(l, at);
	m = &l->mapping[i];
	return i < l->count && m->start <= at && m->pfn + ((at - m->start) >> PAGE_SHIFT) == pfn ? m->prot : 0;
}

unsigned long ssi_mapped_next(const struct ssi_mapped *l, unsigned long at, unsigned long *end)
{
	unsigned int i;

	*end = TASK_SIZE;
	if (!l || l->lost)
		return at;
	i = find(l, at);
	if (i == l->count)
		return TASK_SIZE;
	*end = l->mapping[i].end;
	return max(at, l->mapping[i].start);
}

void ssi_mapped_add(struct ssi_mapped *l, const struct ssi_mapping *m)
{
	struct ssi_mapping *before;
	unsigned int i;

	ssi_mapped_remove(l, m->start, m->end);
	if (!l || l->lost)
		return;
	i = find(l, m->start);
	before = i ? &l->mapping[i - 1] : NULL;
	if (before && before->end == m->start && before->prot == m->prot &&
	    before->pfn + ((m->start - before->start) >> PAGE_SHIFT) == m->pfn)
		before->end = m->end;
	else
		insert(l, i, m);
}

/* --- in store --- */

/* The stub's list, which is the caller's then, or NULL. */
static struct ssi_mapped *take_list(unsigned int area)
{
	struct ssi_mapped *list = NULL;
	unsigned int i;

	raw_spin_lock(&kept.lock);
	for (i = 0; i < KEPT_STUBS && !list; i++)
		if (kept.stub[i].area == area) {
			list = kept.stub[i].list;
			kept.stub[i].area = 0;
			kept.stub[i].list = NULL;
		}
	raw_spin_unlock(&kept.lock);
	return list;
}

static void put_list(unsigned int area, struct ssi_mapped *list)
{
	struct ssi_mapped *old;
	unsigned int i;

	raw_spin_lock(&kept.lock);
	for (i = 0; i < KEPT_STUBS && kept.stub[i].area; i++)
		;
	if (i == KEPT_STUBS)
		i = kept.next++ % KEPT_STUBS;
	old = kept.stub[i].list;
	kept.stub[i].area = area;
	kept.stub[i].list = list;
	raw_spin_unlock(&kept.lock);
	kfree(old);
}

/* Is that one of who was like that, and to be had?  kept.lock held. */
static bool is_there(unsigned int i, const void *like)
{
	return kept.stub[i].area && kept.stub[i].list->like == like && ssi_stub_in_store(kept.stub[i].area);
}

/*
 * The stubs of those who were like that, in liked[KEPT_STUBS]: how many.  First those that show most of what the child has: its
 * copies of its parent's pages get the frames of a child before, most often not the last one's.
 */
static unsigned int find_liked(const void *like, struct mm_struct *mm, const struct ssi_pages *also, unsigned int *liked)
{
	unsigned int differ[KEPT_STUBS], i, at, n = 0;

	raw_spin_lock(&kept.lock);
	for (i = 0; i < KEPT_STUBS && like; i++) {
		unsigned int d;

		if (!is_there(i, like))
			continue;
		d = ssi_differing(kept.stub[i].list, mm, also);
		for (at = n++; at && differ[at - 1] > d; at--) {
			differ[at] = differ[at - 1];
			liked[at] = liked[at - 1];
		}
		differ[at] = d;
		liked[at] = kept.stub[i].area;
	}
	raw_spin_unlock(&kept.lock);
	return n;
}

bool ssi_stubs_kept(const void *like)
{
	unsigned long flags;
	unsigned int i;
	bool any = false;

	raw_spin_lock_irqsave(&kept.lock, flags);
	for (i = 0; i < KEPT_STUBS && !any; i++)
		any = is_there(i, like);
	raw_spin_unlock_irqrestore(&kept.lock, flags);
	return any;
}

/* The frame that is shown there, to be written, if it is one of these; 0: none. */
static unsigned long free_frame(const struct ssi_mapped *l, unsigned long at, struct page *const *free, unsigned int count)
{
	unsigned int i = find(l, at);
	const struct ssi_mapping *m = &l->mapping[i];
	unsigned long pfn;

	if (i == l->count || m->start > at || !(m->prot & SSI_PROT_W))
		return 0;
	pfn = m->pfn + ((at - m->start) >> PAGE_SHIFT);
	for (i = 0; i < count; i++)
		if (page_to_pfn(free[i]) == pfn)
			return pfn;
	return 0;
}

void ssi_mapped_frames(const void *like, const unsigned long *address, unsigned int n, struct page *const *free,
		       unsigned int count, unsigned long *frame)
{
	unsigned int i, k, best = 0;
	unsigned long flags;

	memset(frame, 0, n * sizeof(*frame));
	raw_spin_lock_irqsave(&kept.lock, flags);
	for (i = 0; i < KEPT_STUBS; i++) {
		unsigned long shown[EARLY_MAX];
		unsigned int good = 0;

		if (!is_there(i, like))
			continue;
		for (k = 0; k < n; k++) {
			shown[k] = free_frame(kept.stub[i].list, address[k], free, count);
			good += !!shown[k];
		}
		if (good > best) {
			best = good;
			memcpy(frame, shown, n * sizeof(*frame));
		}
	}
	raw_spin_unlock_irqrestore(&kept.lock, flags);
}

void ssi_stub_keep(struct ssi_mm *sm)
{
	struct ssi_mapped *l = sm->mapped;

	if (!sm->area || !sm->like || !l || l->lost)
		return;
	kfree(take_list(sm->area));
	l->like = sm->like;
	ssi_stub_is_kept(sm->area - 1, 1);
	put_list(sm->area, l);
	sm->mapped = NULL;
}

bool ssi_stub_take(struct ssi_mm *sm, const struct ssi_pages *also)
{
	unsigned int liked[KEPT_STUBS], count = find_liked(sm->like, current->mm, also, liked);
	struct ssi_mapped *l;

	sm->area = ssi_take_stub(ssi_local_number(), sm->id, liked, count);
	if (!sm->area)
		return false;
	l = take_list(sm->area);
	if (!ssi_stub_is_kept(sm->area - 1, 0)) {
		kfree(l);	/* of another process there */
		return false;
	}
	/* what there is of somebody else is of no use, and his word not needed */
	if (l && sm->like && l->like == sm->like) {
		kfree(sm->mapped);
		sm->mapped = l;
		return true;
	}
	kfree(l);
	if (sm->mapped)
		sm->mapped->lost = true;
	return true;
}
