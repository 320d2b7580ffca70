/* SPDX-License-Identifier: GPL-2.0 */
/* The vector state of the current task (arch/um/ssi/cpu.c), for arch/um and arch/x86/um. */
#ifndef __SSI_FP_H
#define __SSI_FP_H

/*
 * On the kernel host it stays in the slot of a stub as long as the task does.  From then on it is in thread.regs, to be
 * looked at, copied or changed.
 */
#ifdef CONFIG_UML_SSI
void ssi_fp_sync(void);
#else
static inline void ssi_fp_sync(void) { }
#endif

#endif
