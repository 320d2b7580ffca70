/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks of the page allocator: a frame that is given up by the kernel is discarded on all nodes before it is
 * used again, and reads as zero then (arch/um/ssi/frames.c).
 */
#ifndef __UM_SSI_PAGE_H
#define __UM_SSI_PAGE_H

#ifdef CONFIG_UML_SSI

struct page;

#define HAVE_ARCH_FREE_PAGE
void arch_free_page(struct page *page, int order);
#define HAVE_ARCH_ALLOC_PAGE
void arch_alloc_page(struct page *page, int order);

/* Clears a page that has just been allocated for user space; costs nothing if it is known to be zero. */
void ssi_clear_user_page(void *address, struct page *page);
#define clear_user_page(address, vaddr, page)	ssi_clear_user_page(address, page)

/* Where the task runs, if `to` is there. */
void ssi_copy_user_page(void *to, void *from, struct page *page);
#undef copy_user_page
#define copy_user_page(to, from, vaddr, page)	ssi_copy_user_page(to, from, page)

#endif
#endif
