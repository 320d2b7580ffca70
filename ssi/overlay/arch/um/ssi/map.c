// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings on the kernel host that the kernel makes itself.
 *
 * A RUN with mappings passes the executor, which keeps a table of them, and its service of frames: five switches and
 * some locks.  Most mappings need none of that: the mm is used on the kernel host only, nothing of it runs there
 * just now, and the host holds the frames.  Then the stub's service thread is told directly (service_user.c), which is
 * several times faster.  Whatever else there is goes the long way (mm.c).
 *
 * Taking away goes without the daemon as well, also while other nodes use the mm; then whole ranges go.
 *
 * What the stub shows already is not mapped again, and not unmapped with what surrounds it: an entry that the stub
 * has been given as it is has no _PAGE_NEEDSYNC, which set_pte() and pte_clear() set.  That it is clear is a hint
 * only, as a REVOKE or the host may have taken the mapping away: the page that was faulted on is given anyway.
 *
 * Races, and what excludes them:
 *   - an entry is given while it is taken away: the taker clears it first and then takes ssi_mm.lock, which is held
 *     until the stub has been given it; then the taker sees that user code may run, and sends a REVOKE.
 *   - a frame that the host holds goes to another node: before its entries go, pangead says that it is not held and waits
 *     until nobody is at what is done here (struct stub_arena.cpu.mapping).  That may hold up other nodes for as long
 *     as the service thread takes.  Nothing here may wait for pangead therefore: frames that are given to user code
 *     are not touched.
 *   - the frame fault of a page that pangead does not know comes back to the kernel, which lets pangead map it.
 */
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <ssi.h>
#include "ssi_internal.h"

#define EXCHANGE_PAGES	16UL	/* of a range that is taken away; of a larger one most is not used soon */
#define DIFFERING_LOOKS	256U	/* IRQs are disabled */
#define MORE_PAGES	448UL	/* with the window, as many as one page table holds */

/* --- taking away --- */

/* Does the stub show the page as it is? */
static bool is_current(pte_t entry)
{
	return pte_present(entry) && !pte_needsync(entry) && ssi_rights_of(entry);
}

static void unmap(struct ssi_service *s, struct ssi_mapped *l, unsigned long start, unsigned long end)
{
	if (!ssi_mapped_remove(l, start, end))
		return;
	ssi_service_unmap(s, start, end);
	if (l && !start && end == TASK_SIZE)
		l->lost = l->count = 0;
}

/* All that is mapped but what is current: what lies between goes in one piece. */
static void take(struct ssi_service *s, struct ssi_mapped *l, struct mm_struct *mm, const struct ssi_range *r)
{
	unsigned long at = r->start & PAGE_MASK, end = min(r->end, (unsigned long)TASK_SIZE), taken = at, mapped_end = at;
	pte_t *pte = NULL;

	for (;;) {
		if (at >= mapped_end) {
			at = ssi_mapped_next(l, at, &mapped_end);
			pte = NULL;
		}
		if (at >= end)
			break;
		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		if (is_current(READ_ONCE(*pte))) {
			if (at > taken)
				unmap(s, l, taken, at);
			taken = at + PAGE_SIZE;
		}
		at += PAGE_SIZE;
	}
	if (end > taken)
		unmap(s, l, taken, end);
}

/* --- giving --- */

struct run {
	struct ssi_mapped *mapped;
	struct ssi_mapping now;		/* prot: 0: there is none */
	bool narrows;			/* it is mapped, with more rights */
};

static void give_run(struct ssi_service *s, struct run *r)
{
	const struct ssi_mapping *m = &r->now;

	if (m->prot) {
		ssi_mapped_add(r->mapped, m);
		if (r->narrows)
			ssi_service_protect(s, m->start, m->end, m->prot);
		else
			ssi_service_give(s, m->start, m->end - m->start, (unsigned long long)m->pfn << PAGE_SHIFT, m->prot);
	}
	r->now.prot = 0;
}

static bool goes_on(const struct run *r, bool narrows, unsigned long at, unsigned long pfn, u32 prot)
{
	const struct ssi_mapping *m = &r->now;

	return r->narrows == narrows && m->prot == prot && m->end == at && m->pfn + ((at - m->start) >> PAGE_SHIFT) == pfn;
}

static void add_page(struct ssi_service *s, struct run *r, bool narrows, unsigned long at, unsigned long pfn, u32 prot)
{
	if (!goes_on(r, narrows, at, pfn, prot)) {
		give_run(s, r);
		r->narrows = narrows;
		r->now = (struct ssi_mapping){ at, at, pfn, prot };
	}
	r->now.end += PAGE_SIZE;
}

/* The entry is being given as it is.  If it changes, it is marked again. */
static bool mark_given(pte_t *pte, pte_t entry)
{
	return try_cmpxchg(&pte->pte, &entry.pte, pte_mkuptodate(pte_mkyoung(entry)).pte);
}

/* Give a page if the stub lacks it, or all the same; outside the window only where the run goes on.  true: it is given. */
static bool give_page(struct ssi_service *s, struct run *run, pte_t *pte, unsigned long at, bool all, bool inside)
{
	pte_t entry = READ_ONCE(*pte);
	u32 prot = ssi_rights_when_young(entry), mapped;

	if (!prot || !(all || pte_needsync(entry)) || !ssi_held(pte_pfn(entry), prot & SSI_PROT_W))
		return false;
	mapped = all ? 0 : ssi_mapped_prot(run->mapped, at, pte_pfn(entry));
	if (!inside && !goes_on(run, (mapped & prot) == prot, at, pte_pfn(entry), prot))
		return false;
	if (!mark_given(pte, entry))
		return false;
	if (mapped != prot)
		add_page(s, run, (mapped & prot) == prot, at, pte_pfn(entry), prot);
	return true;
}

/*
 * What the window of the fault lacks: at most [start, end), and what the same mapping of the host takes in behind.  all:
 * even what does not seem to lack.  All of it counts as used then, like what mm/memory.c faults around; a child's pages,
 * which fork() makes old, would fault one by one.
 */
static void give(struct ssi_service *s, struct ssi_mapped *l, struct mm_struct *mm, unsigned long start, unsigned long end,
		 bool all)
{
	unsigned long at = start, limit = min(end + MORE_PAGES * PAGE_SIZE, (unsigned long)TASK_SIZE);
	struct run run = { .mapped = l };
	pte_t *pte = NULL;

	while (at < limit) {
		bool inside = at < end;

		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		if (!give_page(s, &run, pte, at, all && inside, inside) && !inside)
			break;
		at += PAGE_SIZE;
	}
	give_run(s, &run);
}

/*
 * A few pages are given anew at once, as they are now, instead of being taken away: relocations made read-only, a page
 * copied before it was written to.  But not those whose use is to be seen (they are old), nor what is not there any more.
 */
static void exchange(struct ssi_service *s, struct ssi_mapped *l, struct mm_struct *mm, const struct ssi_range *r)
{
	unsigned long at = r->start & PAGE_MASK, end = min(r->end, (unsigned long)TASK_SIZE);
	struct run run = { .mapped = l };
	pte_t *pte = NULL;

	if (end - at > EXCHANGE_PAGES * PAGE_SIZE)
		return;
	while (at < end) {
		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		if (ssi_rights_of(READ_ONCE(*pte)))
			give_page(s, &run, pte, at, false, true);
		at += PAGE_SIZE;
	}
	give_run(s, &run);
}

/* Can the fault at address be seen to here?  *lost: the page has been given before. */
static bool can_give(struct mm_struct *mm, unsigned long address, bool *lost)
{
	unsigned long at = address & PAGE_MASK;
	pte_t *pte = ssi_pte_table(mm, at, &at), entry;
	u32 prot;

	*lost = false;
	if (!pte)
		return true;
	entry = READ_ONCE(*pte);
	prot = ssi_rights_of(entry);
	*lost = prot && !pte_needsync(entry);
	return !prot || ssi_held(pte_pfn(entry), prot & SSI_PROT_W);
}

static bool is_shown(const struct ssi_mapping *m, unsigned long at, pte_t entry)
{
	return pte_present(entry) && pte_pfn(entry) == m->pfn + ((at - m->start) >> PAGE_SHIFT) &&
	       ssi_rights_when_young(entry) == m->prot && ssi_held(pte_pfn(entry), m->prot & SSI_PROT_W);
}

/* What the stub shows of an mm before and the page table has likewise is given, and stays. */
static void adopt(const struct ssi_mapped *l, struct mm_struct *mm)
{
	const struct ssi_mapping *m;
	pte_t *pte, entry;

	if (!l || l->lost)
		return;
	for (m = l->mapping; m < l->mapping + l->count; m++) {
		unsigned long at = m->start;

		for (pte = NULL; at < m->end;) {
			pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
			if (!pte)
				continue;
			entry = READ_ONCE(*pte);
			if (is_shown(m, at, entry))
				mark_given(pte, entry);
			at += PAGE_SIZE;
		}
	}
}

/* What may be written is the child's own; the rest it shares with its parent, mostly as the child before. */
unsigned int ssi_differing(const struct ssi_mapped *l, struct mm_struct *mm, const struct ssi_pages *also)
{
	unsigned int i, differ = 0, looks = DIFFERING_LOOKS;

	for (i = 0; i < l->count; i++) {
		const struct ssi_mapping *m = &l->mapping[i];
		unsigned long at;

		for (at = m->start; m->prot & SSI_PROT_W && at < m->end && looks; at += PAGE_SIZE, looks--)
			differ += !is_shown(m, at, ssi_entry_of(mm, at));
	}
	for (i = 0; i < also->count; i++)
		differ += !ssi_mapped_prot(l, also->address[i], pte_pfn(ssi_entry_of(mm, also->address[i])));
	return differ;
}

/* The service has ended: did it do all? */
static bool is_done(struct ssi_service *s, struct ssi_mm *sm)
{
	if (!ssi_service_end(s))
		return true;
	if (sm->mapped)
		sm->mapped->lost = true;
	return false;
}

/* All that is mapped of it, whatever the stub shows as it is: who waits for that may hold other nodes' locks. */
bool ssi_unmap(struct ssi_mm *sm, const struct ssi_slot *slot)
{
	struct ssi_mm_node *n = &sm->node[0];
	struct ssi_service service;
	unsigned int i;

	if (ssi_service_begin(&service, slot, ssi_host_cpu(raw_smp_processor_id()), false))
		return false;
	for (i = 0; i < n->pending_count; i++)
		unmap(&service, sm->mapped, n->pending[i].start & PAGE_MASK, n->pending[i].end);
	if (!is_done(&service, sm))
		return false;
	n->pending_count = 0;
	return true;
}

bool ssi_map(struct ssi_mm *sm, struct mm_struct *mm, const struct ssi_slot *slot, const struct ssi_fault *fault,
	     unsigned long start, unsigned long end, bool kept)
{
	struct ssi_mm_node *n = &sm->node[0];
	struct ssi_mapped *l = sm->mapped;
	struct ssi_service service;
	bool may, lost;
	unsigned int i;

	if (!n->pending_count && !fault->address && !fault->also->count)
		return true;
	if (ssi_service_begin(&service, slot, ssi_host_cpu(raw_smp_processor_id()), true))
		return false;
	may = can_give(mm, fault->address, &lost);	/* before adopt() and exchange() give it */
	if (kept && (!l || l->lost))
		unmap(&service, l, 0, TASK_SIZE);
	else if (kept)
		adopt(l, mm);
	for (i = 0; i < n->pending_count; i++)
		exchange(&service, l, mm, &n->pending[i]);
	if (may && fault->address)
		give(&service, l, mm, start, end, lost);
	for (i = 0; i < fault->also->count; i++)
		give(&service, l, mm, fault->also->address[i], fault->also->address[i] + PAGE_SIZE, false);
	for (i = 0; i < n->pending_count; i++)		/* but what has got another mapping by now */
		take(&service, l, mm, &n->pending[i]);
	if (!is_done(&service, sm))
		return false;
	ssi_local_mapped();
	n->pending_count = 0;
	return may;
}
