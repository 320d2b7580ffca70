/* SPDX-License-Identifier: GPL-2.0 */
/* User memory that is on another node. */
#ifndef __UM_SSI_USER_H
#define __UM_SSI_USER_H

#include <linux/pgtable.h>

#ifdef CONFIG_UML_SSI

/*
 * Apply op to user memory from addr on where it is: in chunks of one page or less, on copies of them.
 * pte: of the first page, its table locked, IRQs off; permitted: may this entry be used so.  *len: bytes; in: at
 * most, out: done.  Returns what op does, or -EAGAIN: do one page by load and store.
 */
int ssi_user_op(pte_t *pte, unsigned long addr, unsigned long *len, int is_write,
		bool (*permitted)(pte_t pte, int is_write), int (*op)(unsigned long addr, int len, void *arg),
		void *arg);

#else

static inline int ssi_user_op(pte_t *pte, unsigned long addr, unsigned long *len, int is_write,
			      bool (*permitted)(pte_t pte, int is_write),
			      int (*op)(unsigned long addr, int len, void *arg), void *arg)
{
	return -EAGAIN;
}

#endif

#endif
