/* SPDX-License-Identifier: GPL-2.0 */
/* Results of system calls that have been put off (arch/um/ssi/result.c), for arch/um. */
#ifndef __SSI_RESULT_H
#define __SSI_RESULT_H

/* From now on what the current task's system call has written to its memory is there.  Any context of the task. */
#ifdef CONFIG_UML_SSI
void ssi_results_sync(void);
#else
static inline void ssi_results_sync(void) { }
#endif

#endif
