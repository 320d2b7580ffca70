/* SPDX-License-Identifier: GPL-2.0 */
/* Anonymous memory in blocks (arch/um/ssi/block.c), for mm/memory.c. */
#ifndef __SSI_BLOCK_H
#define __SSI_BLOCK_H

struct folio;
struct vm_area_struct;

/* A page for there, zeroed, that follows the last one in physical memory; NULL: it may be any. */
struct folio *ssi_block_folio(struct vm_area_struct *vma, unsigned long address);

#endif
