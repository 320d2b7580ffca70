/* SPDX-License-Identifier: GPL-2.0 */
/* Memory in blocks (arch/um/ssi/block.c), for mm/memory.c and mm/readahead.c. */
#ifndef __SSI_BLOCK_H
#define __SSI_BLOCK_H

#include <linux/gfp_types.h>
#include <linux/types.h>

struct address_space;
struct folio;
struct page;
struct vm_area_struct;

/* What is left of pages that follow each other, to be filled from a file. */
struct ssi_run {
	struct page *next;
	unsigned int left;
	unsigned int order;	/* of the most that there may be at a time */
};

#define SSI_RUN_ORDER 8U		/* what follows each other is sought for so many pages at a time, at most */

#ifdef CONFIG_UML_SSI
/* A page for there, zeroed, that follows the last one in physical memory; NULL: it may be any. */
struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address);
/* A page for there, to which another is copied; NULL: it may be any. */
struct folio *ssi_copy_folio(struct vm_area_struct *vma, unsigned long address);
/* Is that page of the parent copied for the child, as if it was pinned (arch/um/ssi/early.c)?  pfn: where it is. */
bool ssi_copies_early(struct vm_area_struct *vma, unsigned long address, unsigned long pfn);
/* There is no memory for the copy.  true: then no more of the current task's pages are copied like that. */
bool ssi_early_gives_up(struct vm_area_struct *vma);
/* How to charge a page for there, besides GFP_KERNEL. */
gfp_t ssi_block_gfp(struct vm_area_struct *vma);
/*
 * A page, uncharged, for there in a file, that follows the last one of the run; NULL: it may be any.  At most max are wanted
 * from there on.
 */
struct folio *ssi_run_folio(struct ssi_run *run, struct address_space *mapping, pgoff_t index, unsigned long max, gfp_t flags);
/* Gives back those that were not used. */
void ssi_run_end(struct ssi_run *run);
#else
static inline struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address) { return NULL; }
static inline struct folio *ssi_copy_folio(struct vm_area_struct *vma, unsigned long address) { return NULL; }
static inline bool ssi_copies_early(struct vm_area_struct *vma, unsigned long address, unsigned long pfn) { return false; }
static inline bool ssi_early_gives_up(struct vm_area_struct *vma) { return false; }
static inline gfp_t ssi_block_gfp(struct vm_area_struct *vma) { return 0; }
static inline struct folio *ssi_run_folio(struct ssi_run *run, struct address_space *mapping, pgoff_t index, unsigned long max,
					  gfp_t flags) { return NULL; }
static inline void ssi_run_end(struct ssi_run *run) { }
#endif

#endif
