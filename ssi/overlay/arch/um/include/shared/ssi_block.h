/* SPDX-License-Identifier: GPL-2.0 */
/* Anonymous memory in blocks (arch/um/ssi/block.c), for mm/memory.c. */
#ifndef __SSI_BLOCK_H
#define __SSI_BLOCK_H

#include <linux/gfp_types.h>

struct folio;
struct vm_area_struct;

#ifdef CONFIG_UML_SSI
/* A page for there, zeroed, that follows the last one in physical memory; NULL: it may be any. */
struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address);
/* How to charge a page for there, besides GFP_KERNEL. */
gfp_t ssi_block_gfp(struct vm_area_struct *vma);
#else
static inline struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address) { return NULL; }
static inline gfp_t ssi_block_gfp(struct vm_area_struct *vma) { return 0; }
#endif

#endif
