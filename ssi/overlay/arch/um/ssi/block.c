// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in blocks.
 *
 * A page that a program stores to first costs a trap and a mapping of the host's, and of mappings a process of the host may
 * have only so many (vm.max_map_count).  Pages that follow each other in physical memory as they do in the program's need
 * one for all of them, but a kernel that has run for a while hands out pages in any order.  So
 *
 *   - whatever populates more than one page takes blocks of pages from the page allocator that follow each other, and
 *     divides them: they are ordinary pages from then on, to be freed, swapped or sent elsewhere one by one;
 *   - a store to a page that is not there gets the block around it, if nothing of that is there.
 *
 * As the huge pages of Linux that takes memory which the program may never use.  So a block grows with what the process has
 * already: to 64 KiB with 1 MiB, from 16 MiB on a 256th, to 2 MiB with 512 MiB.  So few blocks are enough for a
 * process of any size, in whatever order it uses its memory.  There is none where memory is short, and where the program
 * has said that it wants none (MADV_RANDOM).
 *
 * One thread of a process at a time takes a block; others go without meanwhile.
 *
 * What the kernel fills for a task of another node, with a program's arguments or from the page cache, and what a program
 * uses that starts (start.c), gets pages of the kernel host: any other would have to be fetched first, one by one, and that
 * node then fetches them all at once.
 *
 * What is read ahead of a file gets such pages as well (ssi_run_folio()), no more than would be read anyway;
 * up to a quarter of a block may be given back unused.
 */
#include <linux/cpuset.h>
#include <linux/highmem.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mempolicy.h>
#include <linux/mmzone.h>
#include <linux/sched.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <ssi.h>
#include <ssi_block.h>
#include "ssi_internal.h"

#define SMALL_MAX	16UL		/* pages that a fault gets, of small processes */
#define SMALL_SHARE	16UL		/* at most that part of what they have */
#define LARGE_MAX	512UL		/* likewise, of large ones: as many as one page table holds */
#define LARGE_SHARE	256UL
#define GROWTH_MAX	64UL		/* pages that brk() or mmap() gives at once; that part of what there is, too */
#define READS_KEPT	64U
#define READS_SEEN	8U
#define FREE_SHARE	16UL		/* of a node's memory that stays free of blocks */
#define ORDER_MAX	SSI_RUN_ORDER	/* of what is taken for many pages */

/* Where the current task has its memory. */
static int memory_node(void)
{
	return ssi_active ? ssi_user_node() : numa_node_id();
}

/*
 * So many pages; NULL: there are none that are free and follow each other.  Nobody waits for them, and nobody is woken to
 * make some: that would push out of memory what is in use, or move it about.
 */
static struct page *take(gfp_t flags, unsigned int order)
{
	struct page *page = alloc_pages_node(memory_node(), ssi_if_free(flags), order);

	if (page)
		split_page(page, order);
	return page;
}

static bool begin(struct ssi_block *b)
{
	if (cmpxchg(&b->owner, NULL, current))
		return false;
	b->left = b->wanted = 0;
	return true;
}

static void end(struct ssi_block *b)
{
	for (; b->left; b->left--)
		__free_page(b->next++);
	smp_store_release(&b->owner, NULL);
}

static struct ssi_block *own_block(struct vm_area_struct *vma)
{
	struct ssi_mm *sm = vma->vm_mm->context.ssi;

	return sm && READ_ONCE(sm->block.owner) == current ? &sm->block : NULL;
}

/* Pages of a block are all of one node, which may not be what is wanted. */
bool ssi_has_policy(const struct vm_area_struct *vma)
{
	return vma->vm_policy || current->mempolicy || (vma->vm_ops && vma->vm_ops->get_policy);
}

/* Clean pages of files make room soon. */
bool ssi_has_room(int node)
{
	unsigned long have = sum_zone_node_page_state(node, NR_FREE_PAGES) + node_page_state(NODE_DATA(node), NR_INACTIVE_FILE);

	return have > node_present_pages(node) / FREE_SHARE && node_isset(node, cpuset_current_mems_allowed);
}

/*
 * For a task of another node; NULL: it has a policy of its own, or is one of this node, or there is little left: all that
 * the kernel needs for itself must come from there.
 */
static struct folio *kernel_host_folio(const struct vm_area_struct *vma)
{
	if (!ssi_active || !ssi_cpu_node(raw_smp_processor_id()) || ssi_has_policy(vma) || !ssi_has_room(0))
		return NULL;
	return __folio_alloc_node(ssi_if_free(GFP_HIGHUSER_MOVABLE), 0, 0);
}

static struct folio *zeroed_folio(const struct vm_area_struct *vma, unsigned long address)
{
	struct folio *folio = kernel_host_folio(vma);

	if (folio)
		clear_user_highpage(folio_page(folio, 0), address);
	return folio;
}

/* Not of a block. */
static struct folio *any_folio(const struct vm_area_struct *vma, unsigned long address)
{
	return ssi_is_starting(vma->vm_mm) ? zeroed_folio(vma, address) : NULL;
}

/* mmap_lock or the VMA's held. */
static bool is_from_page_cache(struct vm_area_struct *vma, unsigned long address)
{
	unsigned long flags, next;
	struct page *page;
	pte_t *pte, entry;

	local_irq_save(flags);		/* page tables stay */
	pte = ssi_pte_table(vma->vm_mm, address, &next);
	entry = pte ? READ_ONCE(*pte) : __pte(0);
	local_irq_restore(flags);
	if (!vma->vm_file || pte_none(entry))
		return vma->vm_file;
	page = pte_present(entry) ? vm_normal_page(vma, address, entry) : NULL;
	return page && !PageAnon(page);
}

struct folio *ssi_copy_folio(struct vm_area_struct *vma, unsigned long address)
{
	struct folio *folio = ssi_early_folio(vma, address);

	if (folio)
		return folio;
	return ssi_is_starting(vma->vm_mm) || is_from_page_cache(vma, address) ? kernel_host_folio(vma) : NULL;
}

struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address)
{
	struct ssi_block *b = own_block(vma);
	struct page *page;

	if (vma_is_temporary_stack(vma))		/* of a program that is to start */
		return zeroed_folio(vma, address);
	if (!b || ssi_has_policy(vma))
		return any_folio(vma, address);
	if (!b->left && b->wanted > 1) {
		unsigned int order = min((unsigned int)ilog2(b->wanted), ORDER_MAX);

		b->next = take(GFP_HIGHUSER_MOVABLE, order);
		b->left = b->next ? 1UL << order : 0;
		b->wanted = b->next ? b->wanted - b->left : 0;
	}
	if (!b->left)
		return any_folio(vma, address);
	b->left--;
	page = b->next++;
	clear_user_highpage(page, address);
	return page_folio(page);
}

/* Who reaches its control group's limit with what it has not asked for goes without. */
gfp_t ssi_block_gfp(struct vm_area_struct *vma)
{
	return own_block(vma) || ssi_is_early(vma) ? __GFP_NORETRY : 0;
}

/* false: another thread does so. */
static bool populate(unsigned long start, unsigned long stop)
{
	struct ssi_block *b = &current->mm->context.ssi->block;

	if (!begin(b))
		return false;
	b->wanted = (stop - start) >> PAGE_SHIFT;
	__mm_populate(start, stop - start, 1);
	end(b);
	return true;
}

void ssi_populate(unsigned long start, unsigned long stop)
{
	if (!populate(start, stop))
		__mm_populate(start, stop - start, 1);
}

/* --- at brk() and mmap() --- */

static bool is_to_be_written(struct vm_area_struct *vma)
{
	return vma && vma_is_anonymous(vma) && vma->vm_flags & VM_WRITE && !ssi_has_policy(vma) &&
	       !(vma->vm_flags & (VM_RAND_READ | VM_HUGETLB)) && !userfaultfd_armed(vma);
}

unsigned long ssi_block_growth(unsigned long start, unsigned long stop)
{
	struct mm_struct *mm = current->mm;
	unsigned long pages = (stop - start) >> PAGE_SHIFT;
	bool yes;

	if (pages > min(get_mm_counter(mm, MM_ANONPAGES) / SMALL_SHARE, GROWTH_MAX) || !ssi_has_room(memory_node()) ||
	    mmap_read_lock_killable(mm))
		return 0;
	yes = is_to_be_written(vma_lookup(mm, start));
	mmap_read_unlock(mm);
	return yes && populate(start, stop) ? stop : 0;
}

/* --- of files --- */

/* How many pages of a file, at most so many, are not there from index on; index is not. */
static unsigned long count_missing(struct address_space *mapping, pgoff_t index, unsigned long max)
{
	unsigned long n = 1;

	while (n < max) {
		const void *entry = xa_load(&mapping->i_pages, index + n);

		if (entry && !xa_is_value(entry))
			break;
		n++;
	}
	return n;
}

struct folio *ssi_run_folio(struct ssi_run *run, struct address_space *mapping, pgoff_t index, unsigned long max, gfp_t flags)
{
	if (!run->left && run->order && !current->mempolicy && !cpuset_do_page_mem_spread()) {
		unsigned long missing = count_missing(mapping, index, min(max, 1UL << run->order));
		unsigned int order = min((unsigned int)ilog2(missing + missing / 4), run->order);

		for (; order && !run->left; order--) {
			run->next = take(flags, order);
			if (run->next)
				run->left = 1U << order;
			else
				run->order = order - 1;		/* nor will there be for the next ones */
		}
	}
	if (!run->left)
		return NULL;
	run->left--;
	return page_folio(run->next++);
}

void ssi_run_end(struct ssi_run *run)
{
	for (; run->left; run->left--)
		__free_page(run->next++);
}

/* --- at a fault --- */

static bool is_empty(struct mm_struct *mm, unsigned long at, unsigned long end)
{
	unsigned long flags;
	pte_t *pte = NULL;
	bool yes = true;

	local_irq_save(flags);		/* page tables stay */
	while (at < end && yes) {
		pte = pte && at & ~PMD_MASK ? pte + 1 : ssi_pte_table(mm, at, &at);
		if (!pte)
			continue;
		yes = pte_none(READ_ONCE(*pte));
		at += PAGE_SIZE;
	}
	local_irq_restore(flags);
	return yes;
}

/* Is there the page of zeros that stands for memory not written to yet? */
static bool shows_zeros(struct mm_struct *mm, unsigned long address)
{
	unsigned long flags, next;
	pte_t *pte;
	bool yes;

	local_irq_save(flags);		/* page tables stay */
	pte = ssi_pte_table(mm, address, &next);
	yes = pte && pte_present(READ_ONCE(*pte)) && is_zero_pfn(pte_pfn(READ_ONCE(*pte)));
	local_irq_restore(flags);
	return yes;
}

/* How large an aligned block around address may be given, of at most so many pages; 0: it is no such memory.  mmap_lock held. */
static unsigned long block_around(struct mm_struct *mm, unsigned long address, unsigned long pages)
{
	struct vm_area_struct *vma = vma_lookup(mm, address);

	if (!is_to_be_written(vma))
		return 0;
	for (; pages > 1; pages /= 2) {
		unsigned long start = address & ~(pages * PAGE_SIZE - 1), end = start + pages * PAGE_SIZE;

		if (start >= vma->vm_start && end <= vma->vm_end && is_empty(mm, start, end))
			break;
	}
	return pages;
}

/* The largest that can be had. */
static void give_block(struct ssi_block *b, unsigned long address, unsigned long pages)
{
	if (!begin(b))
		return;
	while (pages > 1 && !(b->next = take(GFP_HIGHUSER_MOVABLE, ilog2(pages))))
		pages /= 2;
	if (pages > 1) {
		b->left = pages;
		__mm_populate(address & ~(pages * PAGE_SIZE - 1), pages * PAGE_SIZE, 1);
	}
	end(b);
}

/*
 * Some programs read memory before they write to it, a hash table for example.  Where a third of what was read first was
 * written to then, which takes two faults, what is read gets pages of its own at once.  But one in READS_SEEN does not, to see.
 */
static bool will_be_written(struct ssi_block *b)
{
	if (b->reads_written > b->reads / 3 && ++b->guesses % READS_SEEN)
		return true;
	if (++b->reads == READS_KEPT) {
		b->reads /= 2;
		b->reads_written /= 2;
	}
	return false;
}

void ssi_block_fault(unsigned long address, bool write)
{
	struct mm_struct *mm = current->mm;
	struct ssi_block *b = &mm->context.ssi->block;
	unsigned long has = get_mm_counter(mm, MM_ANONPAGES), page = address & PAGE_MASK;
	unsigned long pages = max(min(has / SMALL_SHARE, SMALL_MAX), min(has / LARGE_SHARE, LARGE_MAX));

	if (pages < 2 || address >= TASK_SIZE || !ssi_has_room(memory_node()))
		return;
	if (!is_empty(mm, page, page + PAGE_SIZE)) {
		b->reads_written += write && shows_zeros(mm, page);
		return;
	}
	if (mmap_read_lock_killable(mm))
		return;
	pages = block_around(mm, address, rounddown_pow_of_two(pages));
	mmap_read_unlock(mm);
	if (!pages || (!write && !will_be_written(b)))
		return;
	if (pages > 1)
		give_block(b, address, pages);
	else if (!write)
		populate(page, page + PAGE_SIZE);
}
