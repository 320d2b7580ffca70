// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that fork() copies at once.
 *
 * A child of fork() shares its pages with its parent, and who stores to one first gets a copy then.  That takes a fault, and
 * where it is the parent, whose stub shows the page, another mapping as well.  But it is known to which pages a process and its
 * children store after a fork(), as they are the same ones again and again (habit.c).  So these are copied for the child at
 * once, and stay the parent's own, to be written, with the mappings that they have.
 *
 * And the child is to have a stub that shows what a child before it had (mapped.c).  What it does not share is elsewhere in
 * physical memory each time, and would have to be mapped anew.  So the copies go to the very frames that one of these stubs
 * shows there.  They were freed a moment ago, and are among those that the page allocator gives next.
 *
 * That is done for a process of one thread on the kernel host.  Elsewhere copies are made on the task's node (user.c).
 *
 * All is the current task's, in its own mm.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include "../../../mm/internal.h"
#include <ssi.h>
#include <ssi_block.h>
#include "ssi_internal.h"

#define FREED_LOOKS 32	/* frames that are looked at: what a few children have freed */

/* Frames to be chosen from, the next one first. */
static unsigned int take_free(struct page **free)
{
	return alloc_pages_bulk_node(ssi_if_free(GFP_HIGHUSER_MOVABLE), 0, FREED_LOOKS, free);
}

static void choose_frames(struct ssi_early *e, const void *like)
{
	struct page *free[FREED_LOOKS] = {};
	unsigned long frame[EARLY_MAX];
	unsigned int count, i, k;

	if (!ssi_stubs_kept(like))
		return;
	lru_add_drain();	/* the CPU's batch holds references to what the last children had */
	count = take_free(free);
	ssi_mapped_frames(like, e->address, e->count, free, count, frame);
	for (i = 0; i < e->count; i++)
		for (k = 0; k < count && !e->page[i]; k++)
			if (free[k] && page_to_pfn(free[k]) == frame[i])
				swap(e->page[i], free[k]);
	while (count--)		/* in the order in which they were */
		if (free[count])
			__free_page(free[count]);
}

/* The current task is on the kernel host, and not only because it starts there (start.c). */
static bool is_local(void)
{
	return !ssi_user_node() && !ssi_cpu_node(raw_smp_processor_id());
}

void ssi_early_begin(struct ssi_mm *parent, const void *like)
{
	struct ssi_early *e = &parent->early;

	ssi_early_end(parent);
	if (!is_local() || atomic_read(&current->mm->mm_users) != 1 || current->mempolicy || !ssi_has_room(0))
		return;
	e->count = ssi_habit_written(&parent->habits, e->address);
	e->next = 0;
	if (e->count)
		choose_frames(e, like);
}

void ssi_early_end(struct ssi_mm *parent)
{
	struct ssi_early *e = &parent->early;

	while (e->count) {
		struct page *page = e->page[--e->count];

		e->page[e->count] = NULL;
		if (page)
			__free_page(page);
	}
}

static bool is_next(struct ssi_early *e, unsigned long address)
{
	while (e->next < e->count && e->address[e->next] < address)
		e->next++;
	return e->next < e->count && e->address[e->next] == address;
}

bool ssi_copies_early(struct vm_area_struct *vma, unsigned long address, unsigned long pfn)
{
	struct ssi_mm *sm = vma->vm_mm->context.ssi;

	return sm && is_next(&sm->early, address) && vma->vm_flags & VM_WRITE && !ssi_has_policy(vma) && ssi_held(pfn, false);
}

bool ssi_is_early(const struct vm_area_struct *vma)
{
	const struct ssi_mm *sm = vma->vm_mm->context.ssi;

	return sm && vma->vm_mm == current->mm && sm->early.next < sm->early.count;
}

bool ssi_early_gives_up(struct vm_area_struct *vma)
{
	bool any = ssi_is_early(vma);

	if (any)
		vma->vm_mm->context.ssi->early.next = EARLY_MAX;
	return any;
}

struct folio *ssi_early_folio(struct vm_area_struct *vma, unsigned long address)
{
	struct ssi_mm *sm = vma->vm_mm->context.ssi;
	struct page *page = NULL;

	if (!sm || vma->vm_mm != current->mm)
		return NULL;
	if (is_next(&sm->early, address))
		swap(page, sm->early.page[sm->early.next]);
	else if (vma->vm_flags & VM_WRITE && is_local())	/* it may be the kernel that stores there: no fault of the program's */
		ssi_habit_note(&sm->habits, address, true);
	return page ? page_folio(page) : NULL;
}
