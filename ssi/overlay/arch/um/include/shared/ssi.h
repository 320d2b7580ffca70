/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What arch/um calls in a machine of many hosts.  Every function here is empty, or says "not mine", when
 * the option is off or the kernel was started by itself.
 */
#ifndef __UM_SSI_H
#define __UM_SSI_H

struct mm_struct;
struct task_struct;
struct uml_pt_regs;

#ifdef CONFIG_UML_SSI

/* Set once, before the first mm is made. */
extern int ssi_active;

/* The user half of the current task, for as long as it lives. */
void ssi_userspace(struct uml_pt_regs *regs);
/* The physical memory file that the daemon gave, or -1. */
int ssi_frame_fd(void);
int ssi_init_new_context(struct task_struct *task, struct mm_struct *mm);
void ssi_destroy_context(struct mm_struct *mm);
/* The new mm of exec(), with what the kernel maps in every one.  0 or -EINTR. */
int ssi_setup_gates(struct mm_struct *mm);
/* Take away what every node's stub of mm maps in [start, end); done when this returns. Any context. */
void ssi_revoke(struct mm_struct *mm, unsigned long start, unsigned long end);
/* Is the user half of this CPU running, so that the kernel thread only waits? */
int ssi_in_user(void);
/* The calling CPU, which is idle, waits for work; IRQs disabled, as in arch_cpu_idle(). */
void ssi_cpu_idle(void);
/* A signal's handler is about to return to where this host context is from: end a wait there. */
void ssi_leave_wait(void *context);

#else

#define ssi_active 0
static inline void ssi_userspace(struct uml_pt_regs *regs) { }
static inline int ssi_frame_fd(void) { return -1; }
static inline int ssi_init_new_context(struct task_struct *task, struct mm_struct *mm) { return 0; }
static inline void ssi_destroy_context(struct mm_struct *mm) { }
static inline int ssi_setup_gates(struct mm_struct *mm) { return 0; }
static inline void ssi_revoke(struct mm_struct *mm, unsigned long start, unsigned long end) { }
static inline int ssi_in_user(void) { return 0; }
static inline void ssi_cpu_idle(void) { }
static inline void ssi_leave_wait(void *context) { }

#endif

#endif
