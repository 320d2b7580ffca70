// SPDX-License-Identifier: GPL-2.0
/*
 * Address spaces whose stubs are on the nodes.
 *
 * Rights are given lazily: a stub that lacks a mapping faults, the kernel makes the page-table entry if there is
 * none yet, and the next RUN carries it and its neighbours.  Rights are taken away at once: when
 * flush_tlb_*() returns, no user code can use what it named.
 *
 * Where nothing of the mm runs on a node, "at once" costs nothing: the range is remembered and removed by
 * the next RUN there, before its user code.  That is sound only if no other CPU of that node can start
 * the mm first; so with several CPUs on a node and several users of the mm, it is removed by a REVOKE, or, on the
 * kernel host, by the kernel itself (map.c).  All nodes that need a REVOKE get it at once.
 *
 * Nor may it wait while the node still asks for frames, ahead of what user code has used: the kernel host may get its request
 * only when the frame has another use there, the kernel's own maybe, which the others may not have.  A REVOKE is
 * acknowledged when all that was asked for has come.
 *
 * Races, and what excludes them:
 *   - an entry is read for a RUN while it is being taken away.  The reader holds ssi_mm.lock and counts
 *     itself as running before it looks; the taker clears the entry first and then takes the lock.  So
 *     either the reader sees it cleared, or the taker sees the reader and sends a REVOKE.
 *   - that REVOKE overtakes the RUN, on another connection.  The RUN carries the number of the
 *     newest REVOKE before its reading; the node leaves out rights that are older than a REVOKE it has seen.
 *   - page tables are freed under the reader: they are freed by RCU, and it reads with interrupts off.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>
#include <linux/pgtable.h>
#include <asm/mmu_context.h>
#include <ssi.h>
#include "ssi_internal.h"

#define AROUND_PAGES	16UL			/* as many as a file fault enters at a time */
#define HERE_PAGES	64UL			/* likewise, without the daemon: what more pages cost is less than another fault */
#define FILE_PAGES	512UL			/* likewise, of a file, as many as one page table holds: they often lie in a row */
#define AHEAD_PAGES	256UL			/* at a time */
#define AHEAD_AFTER	2			/* faults in sequence */
#define ALONG_PAGES	2048UL			/* of a small task's memory go along with it; on a bulk channel, which others use */
#define SMALL_PAGES	8192UL			/* has such a task at most */
#define ALONG_LOOKS	8192UL			/* at entries, with interrupts off, for a RUN */
#define ALONE_AFTER	(HZ / 20)
#define GIVE_PAGES	(AROUND_PAGES + AHEAD_PAGES)
#define GIVE_DOUBLINGS	4U			/* of that, for a sequence of faults */
#define STREAM_MAPS	32U			/* likewise, mappings more: each takes the node microseconds, a fault a round trip */

static atomic64_t next_id;
static unsigned int entered[SSI_CPUS_MAX];	/* a CPU's: ssi_mm_node.enters with it, if nobody else was there */

int ssi_init_new_context(struct task_struct *task, struct mm_struct *mm)
{
	struct ssi_mm *sm = kzalloc(struct_size(sm, node, ssi_boot.node_count), GFP_KERNEL);

	if (!sm)
		return -ENOMEM;
	sm->id = atomic64_inc_return(&next_id);
	raw_spin_lock_init(&sm->lock);
	if (task != current && current->mm) {
		ssi_habit_fork(&current->mm->context.ssi->habits, &sm->habits);
		sm->like = sm->habits.origin;
		ssi_early_begin(current->mm->context.ssi, sm->like);
		sm->gates = current->mm->context.ssi->gates;
		ssi_start_fork(sm);
	} else {
		ssi_start_exec(sm);
	}
	mm->context.ssi = sm;
	sm->mapped = ssi_mapped_new();
	return 0;
}

/* What the nodes have asked for has come when they have answered.  Under the lock: who finds no stub frees the memory. */
static void end_asking(struct ssi_mm *sm, unsigned long nodes)
{
	if (!nodes)
		return;
	ssi_node_revoke_begin(nodes, sm->id, 0, TASK_SIZE);
	ssi_node_revoke_end(nodes);
}

/* Nobody runs user code in it any more, nor will; but somebody may be unmapping. */
static void free_stubs(struct ssi_mm *sm)
{
	unsigned long flags, nodes = 0, asking = 0;
	unsigned int node;

	raw_spin_lock_irqsave(&sm->lock, flags);
	for (node = 0; node < ssi_boot.node_count; node++) {
		nodes |= sm->node[node].present ? BIT(node) : 0;
		asking |= sm->node[node].present && sm->node[node].asks ? BIT(node) : 0;
		sm->node[node].present = false;
		sm->node[node].pending_count = 0;
	}
	ssi_stub_keep(sm);
	WRITE_ONCE(sm->area, 0);
	end_asking(sm, asking);
	raw_spin_unlock_irqrestore(&sm->lock, flags);
	for_each_set_bit(node, &nodes, SSI_NODES_MAX)
		ssi_node_free_mm(node, sm->id);
}

void ssi_destroy_context(struct mm_struct *mm)
{
	struct ssi_mm *sm = mm->context.ssi;

	free_stubs(sm);
	ssi_early_end(sm);
	ssi_habit_end(&sm->habits);
	mm->context.ssi = NULL;
	kfree(sm->mapped);
	kfree(sm);
}

/* --- taking away --- */

static void add_pending(struct ssi_mm_node *n, unsigned long start, unsigned long end)
{
	struct ssi_range *last = n->pending_count ? &n->pending[n->pending_count - 1] : NULL;

	if (last && start <= last->end && end >= last->start) {
		last->start = min(last->start, start);
		last->end = max(last->end, end);
	} else if (n->pending_count < SSI_PENDING_MAX) {
		n->pending[n->pending_count++] = (struct ssi_range){ start, end };
	} else {
		n->pending[0] = (struct ssi_range){ 0, TASK_SIZE };
		n->pending_count = 1;
	}
}

/* Can one CPU only run user code there? */
static bool has_one_cpu(unsigned int node)
{
	return ssi_boot.nodes[node].cpu_count == 1 && (node || !ssi_start_possible(ssi_boot.cpu_count - 1));
}

static bool may_wait(struct mm_struct *mm, const struct ssi_mm_node *n, unsigned int node)
{
	return !n->running && (has_one_cpu(node) || atomic_read(&mm->mm_users) <= 1);
}

/* What was pending while nothing of the mm ran there cannot wait any longer. */
static void revoke_pending(struct ssi_mm *sm, unsigned int node)
{
	struct ssi_mm_node *n = &sm->node[node];

	while (n->pending_count) {
		struct ssi_range *r = &n->pending[--n->pending_count];

		ssi_node_revoke_begin(BIT(node), sm->id, r->start & PAGE_MASK, r->end);
		ssi_node_revoke_end(BIT(node));
	}
}

/* Nothing of the mm runs on the kernel host, but for the caller's CPU that is about to. */
static bool unmap_here(struct ssi_mm *sm)
{
	struct ssi_slot slot;

	return ssi_local_slot(&slot, sm) && ssi_unmap(sm, &slot);
}

/* What is pending on the kernel host while others are waited for, as that takes no longer.  false: it could not be done. */
static bool settle_meanwhile(struct ssi_mm *sm)
{
	struct ssi_mm_node *here = &sm->node[0];
	bool done = true;

	if (!raw_spin_trylock(&sm->lock))
		return true;
	if (here->pending_count && !here->running)
		done = unmap_here(sm);
	raw_spin_unlock(&sm->lock);
	return done;
}

/* What another CPU may not find pending there. */
static void settle(struct ssi_mm *sm, struct mm_struct *mm, bool try)
{
	struct ssi_mm_node *here = &sm->node[0];

	raw_spin_lock(&sm->lock);
	if (here->pending_count && !here->running && !may_wait(mm, here, 0) && !(try && unmap_here(sm)))
		revoke_pending(sm, 0);
	raw_spin_unlock(&sm->lock);
}

/*
 * Where nothing of the mm runs it is pending; on the kernel host also where that may not be for long.  The other nodes; enters: of
 * those where nothing runs, how often it has, by then.
 */
static unsigned long take_from(struct ssi_mm *sm, struct mm_struct *mm, unsigned long start, unsigned long end,
			       unsigned int *enters)
{
	unsigned long nodes = 0;
	unsigned int node;

	for (node = 0; node < ssi_boot.node_count; node++) {
		struct ssi_mm_node *n = &sm->node[node];

		raw_spin_lock(&sm->lock);
		if (n->present && !n->asks && (may_wait(mm, n, node) || (!node && !n->running)))
			add_pending(n, start, end);
		else if (n->present)
			nodes |= BIT(node);
		enters[node] = n->running ? n->enters - 1 : n->enters;
		raw_spin_unlock(&sm->lock);
	}
	return nodes;
}

/* They have answered: what they had asked for before has come. */
static void have_answered(struct ssi_mm *sm, unsigned long nodes, const unsigned int *enters)
{
	unsigned int node;

	raw_spin_lock(&sm->lock);
	for_each_set_bit(node, &nodes, SSI_NODES_MAX)
		if (sm->node[node].enters == enters[node])
			sm->node[node].asks = false;
	raw_spin_unlock(&sm->lock);
}

void ssi_revoke(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct ssi_mm *sm = mm->context.ssi;
	unsigned int enters[SSI_NODES_MAX];
	unsigned long flags, nodes;
	bool try = true;

	if (!sm || start >= TASK_SIZE)
		return;
	/* Not only with the context: an idle CPU may keep that until its next task comes, who would have to wait then. */
	if (!atomic_read(&mm->mm_users)) {
		free_stubs(sm);
		return;
	}
	end = min(PAGE_ALIGN(end), (unsigned long)TASK_SIZE);
	if (start >= end)
		return;
	local_irq_save(flags);
	nodes = take_from(sm, mm, start, end, enters);
	if (nodes) {
		ssi_node_revoke_begin(nodes, sm->id, start & PAGE_MASK, end);
		try = settle_meanwhile(sm);
		ssi_node_revoke_end(nodes);
		have_answered(sm, nodes, enters);
	}
	settle(sm, mm, try);
	local_irq_restore(flags);
}

/* --- giving --- */

u32 ssi_rights_of(pte_t pte)
{
	return pte_young(pte) ? ssi_rights_when_young(pte) : 0;
}

u32 ssi_rights_when_young(pte_t pte)
{
	u32 prot;

	if (!pte_present(pte) || !pte_read(pte))
		return 0;
	prot = pte_exec(pte) ? SSI_PROT_R | SSI_PROT_X : SSI_PROT_R;
	/* a clean page stays write-protected, so that its first store is seen */
	return pte_write(pte) && pte_dirty(pte) ? prot | SSI_PROT_W : prot;
}

/* What is passed over is most of an address space. */
pte_t *ssi_pte_table(struct mm_struct *mm, unsigned long address, unsigned long *next)
{
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd, entry;

	*next = (address & PGDIR_MASK) + PGDIR_SIZE;
	p4d = p4d_offset(pgd, address);		/* the same entry: there are four levels at most */
	if (!p4d_present(READ_ONCE(*p4d))) {
		while (*next < TASK_SIZE && !p4d_present(READ_ONCE(*++p4d)))
			*next += PGDIR_SIZE;
		return NULL;
	}
	*next = (address & PUD_MASK) + PUD_SIZE;
	pud = pud_offset(p4d, address);
	if (!pud_present(READ_ONCE(*pud))) {
		while (*next & ~PGDIR_MASK && !pud_present(READ_ONCE(*++pud)))
			*next += PUD_SIZE;
		return NULL;
	}
	*next = (address & PMD_MASK) + PMD_SIZE;
	pmd = pmd_offset(pud, address);
	entry = READ_ONCE(*pmd);
	if (!pmd_present(entry)) {
		while (*next & ~PUD_MASK && !pmd_present(READ_ONCE(*++pmd)))
			*next += PMD_SIZE;
		return NULL;
	}
	*next = address;
	return pte_offset_kernel(&entry, address);
}

static bool extends(const struct wire_map *map, unsigned long address, unsigned long pfn, u32 prot)
{
	return map->prot == prot && map->addr + map->pages * PAGE_SIZE == address &&
	       map->pfn + map->pages == pfn;
}

/* The entry of address; pte: that of the page before. */
static pte_t *next_entry(struct mm_struct *mm, pte_t *pte, unsigned long address)
{
	return pte && address & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, address, &address);
}

/* The aligned window of so many pages that holds the fault, and on to where was faulted ahead. */
static unsigned long window_start(const struct ssi_fault *fault, unsigned long pages)
{
	return fault->address & ~(pages * PAGE_SIZE - 1);
}

static unsigned long window_end(const struct ssi_fault *fault, unsigned long pages)
{
	return min(max(fault->end, window_start(fault, pages) + pages * PAGE_SIZE), (unsigned long)TASK_SIZE);
}

/* The rights from there to end, and on to limit as far as one mapping goes. */
static unsigned int give(struct mm_struct *mm, unsigned int node, unsigned long at, unsigned long end,
			 unsigned long limit, struct wire_map *maps, unsigned int count)
{
	struct wire_map *last = NULL;
	pte_t *pte = NULL, entry;
	u32 prot;

	while (at < limit) {
		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		entry = READ_ONCE(*pte);
		prot = ssi_rights_of(entry);
		if (prot && last && extends(last, at, pte_pfn(entry), prot)) {
			last->pages++;
		} else if (at >= end || (prot && count == WIRE_MAPS_MAX)) {
			break;
		} else if (prot) {
			last = &maps[count++];
			*last = (struct wire_map){ at, pte_pfn(entry), 1, prot };
		}
		if (prot)
			ssi_frames_given(node, pte_pfn(entry), 1);
		at += PAGE_SIZE;
	}
	return count;
}

static unsigned int give_around(struct mm_struct *mm, unsigned int node, const struct ssi_fault *fault,
				struct wire_map *maps, unsigned int count)
{
	unsigned long start = window_start(fault, AROUND_PAGES), end = window_end(fault, AROUND_PAGES);
	unsigned long limit = min(start + max(fault->pages, GIVE_PAGES) * PAGE_SIZE, (unsigned long)TASK_SIZE);
	unsigned int first = count, last;

	count = give(mm, node, start, end, limit, maps, count);
	if (count == first || fault->pages <= GIVE_PAGES)
		return count;
	/* a sequence of faults, which would go on where the frames do not follow each other any more */
	for (last = min(count + STREAM_MAPS, WIRE_MAPS_MAX - 2 * AROUND_PAGES); count < last; count++) {
		const struct wire_map *m = &maps[count - 1];
		unsigned long at = m->addr + m->pages * PAGE_SIZE;

		if (at < end || at >= limit || give(mm, node, at, at + PAGE_SIZE, limit, maps, count) == count)
			break;
	}
	return count;
}

/* Frames to be asked for first.  Not those for reading only that will be written: the task gets others for them. */
static unsigned int give_wanted(struct mm_struct *mm, unsigned int node, unsigned long page, u32 need,
				struct wire_map *maps, unsigned int count)
{
	unsigned int end;

	if (page >= TASK_SIZE)		/* a register is whatever user code likes, and page tables are found by some bits only */
		return count;
	end = give(mm, node, page, page + PAGE_SIZE, page + PAGE_SIZE, maps, count);
	if (end == count || (maps[count].prot & need) != need)
		return count;
	maps[count].prot |= WIRE_MAP_WANTED;
	return end;
}

/*
 * The task goes on where it has not been, or was long ago.  So that it need not fault for one thing after the other, it
 * gets what it will use at once: where it executes, its stack, and what it faulted on last.
 */
static unsigned int give_hot(struct mm_struct *mm, unsigned int node, const struct ssi_hot *hot, struct wire_map *maps,
			     unsigned int count)
{
	unsigned int i;

	count = give_wanted(mm, node, hot->ip & PAGE_MASK, SSI_PROT_X, maps, count);
	count = give_wanted(mm, node, hot->sp & PAGE_MASK, SSI_PROT_W, maps, count);
	for (i = 0; i < SSI_HOT_MAX; i++)
		count = give_wanted(mm, node, hot->data[i], SSI_PROT_W, maps, count);
	return count;
}

/*
 * What it has stored to on the kernel host, which is as long as a program starts (start.c), is asked for at once, if that is
 * little, and nobody else uses it: a good part of it is used again, and each page would be waited for.  As much at a time
 * as a RUN has room for.
 */
static unsigned int give_along(struct ssi_mm *sm, struct mm_struct *mm, unsigned int node, struct wire_map *maps,
			       unsigned int count)
{
	struct wire_map *last = NULL;
	unsigned long at = sm->along, looks = ALONG_LOOKS;
	pte_t *pte = NULL, entry;

	while (at < TASK_SIZE && sm->along_left && looks) {
		u32 prot;

		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		looks--;
		entry = READ_ONCE(*pte);
		prot = ssi_rights_of(entry) | WIRE_MAP_AHEAD;
		if (prot & SSI_PROT_W && PageAnon(pte_page(entry)) && ssi_held(pte_pfn(entry), true)) {
			if (last && last->pages < WIRE_AHEAD_MAX && extends(last, at, pte_pfn(entry), prot))
				last->pages++;
			else if (count == WIRE_MAPS_MAX)
				break;
			else
				*(last = &maps[count++]) = (struct wire_map){ at, pte_pfn(entry), 1, prot };
			ssi_frames_given(node, pte_pfn(entry), 1);
			sm->along_left--;
		}
		at += PAGE_SIZE;
	}
	sm->along = at;
	return count;
}

static bool is_small(struct mm_struct *mm)
{
	return atomic_read(&mm->mm_users) == 1 && get_mm_counter(mm, MM_ANONPAGES) <= SMALL_PAGES;
}

static void make_young(struct mm_struct *mm, unsigned long page)
{
	pte_t *pte = ssi_pte_table(mm, page, &page), entry;

	if (!pte)
		return;
	entry = READ_ONCE(*pte);
	if (ssi_rights_when_young(entry) && !pte_young(entry))
		try_cmpxchg(&pte->pte, &entry.pte, pte_mkyoung(entry).pte);
}

/* What it most likely uses besides (habit.c): so that it waits for these frames once, and not for each. */
static unsigned int give_also(struct mm_struct *mm, unsigned int node, const struct ssi_pages *also,
			      struct wire_map *maps, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < also->count; i++) {
		make_young(mm, also->address[i]);
		count = give_wanted(mm, node, also->address[i], 0, maps, count);
	}
	return count;
}

static bool may_be_written(struct mm_struct *mm, unsigned long address)
{
	pte_t *pte = address < TASK_SIZE ? next_entry(mm, NULL, address & PAGE_MASK) : NULL;

	return pte && ssi_rights_of(READ_ONCE(*pte)) & SSI_PROT_W;
}

/* And what is next to that, which the node maps when user code runs already; not the stack of a child of fork(). */
static unsigned int give_warm(struct mm_struct *mm, unsigned int node, const struct ssi_hot *hot, struct wire_map *maps,
			      unsigned int count)
{
	struct ssi_fault ip = { .address = hot->ip }, sp = { .address = hot->sp };
	unsigned long ip_end = window_end(&ip, AROUND_PAGES), sp_end = window_end(&sp, AROUND_PAGES);

	count = give(mm, node, window_start(&ip, AROUND_PAGES), ip_end, ip_end, maps, count);
	if (may_be_written(mm, hot->sp))
		count = give(mm, node, window_start(&sp, AROUND_PAGES), sp_end, sp_end, maps, count);
	return count;
}

static unsigned int take_pending(struct ssi_mm_node *n, struct wire_map *maps)
{
	unsigned int i, count = n->pending_count;

	for (i = 0; i < count; i++) {
		struct ssi_range *r = &n->pending[i];
		unsigned long pages = (r->end - (r->start & PAGE_MASK)) >> PAGE_SHIFT;

		maps[i] = (struct wire_map){
			.addr = r->start & PAGE_MASK,
			.pages = min(pages, (unsigned long)WIRE_MAP_ALL_PAGES),
		};
	}
	n->pending_count = 0;
	return count;
}

/*
 * Nothing of the mm runs on the kernel host, and on no other node, nor did so just before: frames that nodes take
 * from each other had better be known to the daemon.
 */
static bool is_alone(const struct ssi_mm *sm)
{
	unsigned int node;

	for (node = 1; node < ssi_boot.node_count; node++) {
		const struct ssi_mm_node *n = &sm->node[node];

		if (n->present && (n->running || time_before(jiffies, n->left + ALONE_AFTER)))
			return false;
	}
	return !sm->node[0].running;
}

/* Counted as running: see map.c. */
static bool map_here(struct ssi_mm *sm, const struct ssi_fault *fault, bool kept)
{
	unsigned long pages = fault->also->count ? 1 : HERE_PAGES;	/* what else is needed is known */
	struct ssi_slot slot;

	if (fault->frame || !ssi_local_slot(&slot, sm))
		return false;
	return ssi_map(sm, current->mm, &slot, fault, window_start(fault, pages), window_end(fault, pages), kept);
}

unsigned int ssi_mm_enter(struct ssi_mm *sm, unsigned int node, const struct ssi_fault *fault, const struct ssi_hot *hot,
			  struct wire_map *maps, __u64 *epoch)
{
	struct ssi_mm_node *n = &sm->node[node];
	bool given = fault->address >= TASK_SIZE, alone, kept = false;
	unsigned int count, removals;
	unsigned long flags;

	BUILD_BUG_ON(SSI_PENDING_MAX + 3 * AROUND_PAGES + 3 + SSI_HOT_MAX + HABIT_MAX > WIRE_MAPS_MAX);
	raw_spin_lock_irqsave(&sm->lock, flags);
	if (!may_wait(current->mm, n, node))	/* another RUN might overtake this one */
		revoke_pending(sm, node);
	alone = !node && is_alone(sm);
	if (alone && !n->present)
		kept = ssi_stub_take(sm, fault->also);
	if (kept) {
		add_pending(n, 0, TASK_SIZE);
		if (!may_wait(current->mm, n, node)) {
			kept = false;
			if (!unmap_here(sm))
				revoke_pending(sm, node);
		}
	}
	n->present = true;
	entered[raw_smp_processor_id()] = n->running++ ? n->enters++ : ++n->enters;
	*epoch = READ_ONCE(ssi_nodes[node].seq);
	smp_mb();	/* counted as running before the entries are read; pairs with the lock in ssi_revoke() */
	if (alone && !given)
		given = map_here(sm, fault, kept);
	else if (!node && n->running == 1 && n->pending_count && !fault->address)
		unmap_here(sm);
	removals = count = take_pending(n, maps);
	if (hot)
		count = give_hot(current->mm, node, hot, maps, count);
	if (node && fault->also->count && fault->address && !given)	/* before all that is not needed at once */
		count = give_wanted(current->mm, node, fault->address & PAGE_MASK, 0, maps, count);
	if (node)
		count = give_also(current->mm, node, fault->also, maps, count);
	if (fault->address && !given)
		count = give_around(current->mm, node, fault, maps, count);
	if (hot)
		count = give_warm(current->mm, node, hot, maps, count);
	if (hot) {
		sm->along = 0;
		sm->along_left = node && is_small(current->mm) ? ALONG_PAGES : 0;
	}
	if (node)
		count = give_along(sm, current->mm, node, maps, count);
	if (!node && count > removals && sm->mapped)
		sm->mapped->lost = true;		/* pangead maps as well */
	raw_spin_unlock_irqrestore(&sm->lock, flags);
	return count;
}

void ssi_mm_leave(struct ssi_mm *sm, unsigned int node, bool asks)
{
	struct ssi_mm_node *n = &sm->node[node];
	unsigned long flags;

	raw_spin_lock_irqsave(&sm->lock, flags);
	n->running--;
	n->left = jiffies;
	/* of several threads the one whose answer comes last need not have given it last */
	if (asks || entered[raw_smp_processor_id()] == n->enters)
		n->asks = asks;
	raw_spin_unlock_irqrestore(&sm->lock, flags);
}

/* --- faulting ahead --- */

/*
 * A fault costs a trap and a RUN, as much as making a hundred pages.  So who faults on one page after the other gets
 * those that follow with it, twice as many each time: about as many as it has used already.  That is only done where
 * it takes no memory that the program would not have taken: not for reads of anonymous memory or of private
 * files that may be written, which populating would give pages of their own.
 */
static bool may_fault_ahead(struct vm_area_struct *vma, bool write)
{
	if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_HUGETLB | VM_RAND_READ) || userfaultfd_armed(vma))
		return false;
	if (write)
		return vma_is_anonymous(vma) && vma->vm_flags & VM_WRITE;
	return !vma_is_anonymous(vma) && vma->vm_flags & VM_READ && (vma->vm_flags & (VM_WRITE | VM_SHARED)) != VM_WRITE;
}

/*
 * What a file holds in memory around a page that was read is entered in the page table: mm/memory.c does so too, but for
 * so few pages as a hardware's TLB miss makes worth while.
 */
static void fault_around(struct vm_area_struct *vma, unsigned long address)
{
	unsigned long start = max(address & ~(FILE_PAGES * PAGE_SIZE - 1), vma->vm_start);
	unsigned long end = min((address | (FILE_PAGES * PAGE_SIZE - 1)) + 1, vma->vm_end);
	struct vm_fault vmf = { .vma = vma, .address = address & PAGE_MASK, .pgoff = linear_page_index(vma, address) };

	if (vma_is_anonymous(vma) || !vma->vm_ops->map_pages || userfaultfd_armed(vma) || vma->vm_flags & VM_RAND_READ)
		return;
	vmf.pmd = pmd_off(vma->vm_mm, address);
	if (!pmd_present(READ_ONCE(*vmf.pmd)))
		return;
	rcu_read_lock();
	vma->vm_ops->map_pages(&vmf, linear_page_index(vma, start), linear_page_index(vma, end) - 1);
	rcu_read_unlock();
}

static void read_around(unsigned long address)
{
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(current->mm))
		return;
	vma = vma_lookup(current->mm, address);
	if (vma)
		fault_around(vma, address);
	mmap_read_unlock(current->mm);
}

/* Where the part of the mapping ends that begins there and may be faulted ahead; 0: none. */
static unsigned long ahead_end(unsigned long start, unsigned long pages, bool write)
{
	struct vm_area_struct *vma;
	unsigned long end = 0;

	if (mmap_read_lock_killable(current->mm))
		return 0;
	vma = vma_lookup(current->mm, start);
	if (vma && may_fault_ahead(vma, write))
		end = min(start + pages * PAGE_SIZE, vma->vm_end);
	mmap_read_unlock(current->mm);
	return end;
}

/* The next page from there on, of so many, on which such an access faults. */
static unsigned long next_fault(unsigned long at, unsigned long pages, bool write)
{
	unsigned long end = min(at + pages * PAGE_SIZE, (unsigned long)TASK_SIZE), flags;
	u32 need = write ? SSI_PROT_W : SSI_PROT_R;
	pte_t *pte;

	local_irq_save(flags);		/* page tables stay */
	for (pte = next_entry(current->mm, NULL, at); at < end; pte = next_entry(current->mm, pte, at)) {
		if (!pte || !(ssi_rights_of(READ_ONCE(*pte)) & need))
			break;
		at += PAGE_SIZE;
	}
	local_irq_restore(flags);
	return at;
}

/*
 * A node that looks ahead for frames (node/pager.c) does so only as far as it has mappings, and waits for the next ones
 * as for any message: the more of them it has, the less often.  A fault within what was there to be given goes on as
 * well: it was not given, because the frames do not follow each other.
 */
static unsigned long give_pages(struct ssi_stream *s, u64 id, unsigned long page, bool write)
{
	bool follows = s->mm == id && page > s->last && page <= s->given;
	unsigned long pages;

	if (!ssi_user_node())
		return GIVE_PAGES;
	s->gives = follows ? min(s->gives + 1, GIVE_DOUBLINGS) : 0;
	pages = GIVE_PAGES << s->gives;
	s->last = page;
	s->given = next_fault(page, pages, write);
	return pages;
}

pte_t ssi_entry_of(struct mm_struct *mm, unsigned long address)
{
	unsigned long flags;
	pte_t *pte, entry;

	local_irq_save(flags);		/* page tables stay */
	pte = address < TASK_SIZE ? next_entry(mm, NULL, address & PAGE_MASK) : NULL;
	entry = pte ? READ_ONCE(*pte) : __pte(0);
	local_irq_restore(flags);
	return entry;
}

bool ssi_may_access(unsigned long address, bool write)
{
	return ssi_rights_of(ssi_entry_of(current->mm, address)) & (write ? SSI_PROT_W : SSI_PROT_R);
}

bool ssi_is_given(unsigned long address)
{
	pte_t entry = ssi_entry_of(current->mm, address);

	return ssi_rights_of(entry) && !pte_needsync(entry);
}

unsigned long ssi_fault_ahead(struct ssi_stream *s, unsigned long address, bool write, unsigned long *give)
{
	u64 id = current->mm->context.ssi->id;
	unsigned long at, pages, end = 0;

	if (address >= TASK_SIZE)
		return 0;
	if (!write)
		read_around(address);
	*give = give_pages(s, id, address & PAGE_MASK, write);
	at = next_fault(address & PAGE_MASK, GIVE_PAGES, write);
	s->faults = s->mm == id && s->next == (address & PAGE_MASK) ? s->faults + 1 : 0;
	s->mm = id;
	s->next = at;
	pages = min(2UL << min(s->faults, 16U), AHEAD_PAGES);
	/* these sleep: another task may use s meanwhile, and this one another CPU */
	if (s->faults >= AHEAD_AFTER)
		end = ahead_end(at, pages, write);
	if (!end)
		return 0;
	ssi_populate(at, end);
	at = next_fault(at, pages, write);
	s->next = at;
	return at;
}
