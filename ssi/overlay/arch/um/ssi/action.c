// SPDX-License-Identifier: GPL-2.0
/*
 * Signal actions that the stub may tell a task without asking here (node/stub.h).
 *
 * They are a copy for one stay in user mode, given to a task that does nothing but call rt_sigaction(), and only where
 * nobody but the task itself can change them: no other task shares them, and signals that reset them are taken by the
 * task, in here.
 */
#include <linux/kernel.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/thread_info.h>
#include <ssi.h>
#include "ssi_internal.h"

/* Somebody wants to see each system call. */
static bool is_watched(void)
{
	return current->ptrace || read_thread_flags() & (_TIF_SYSCALL_TRACE | _TIF_SYSCALL_AUDIT | _TIF_SECCOMP |
							 _TIF_SINGLESTEP | BIT(TIF_SYSCALL_TRACEPOINT));
}

/*
 * To set the default of these, which is to ignore them, discards what is pending of them.  What comes later may have come
 * after that.
 */
static bool any_to_discard(void)
{
	const u64 ignored = BIT_ULL(SIGCHLD - 1) | BIT_ULL(SIGCONT - 1) | BIT_ULL(SIGURG - 1) | BIT_ULL(SIGWINCH - 1);

	return (current->pending.signal.sig[0] | current->signal->shared_pending.signal.sig[0]) & ignored;
}

bool ssi_actions_are_own(void)
{
	return refcount_read(&current->sighand->count) == 1 && !is_watched() && !any_to_discard();
}

void ssi_actions_copy(struct wire_action *to)
{
	const struct k_sigaction *from = current->sighand->action;
	unsigned int i;

	BUILD_BUG_ON(_NSIG != WIRE_SIGNALS || sizeof(from->sa.sa_mask) != sizeof(to->mask));
	spin_lock_irq(&current->sighand->siglock);
	for (i = 0; i < _NSIG; i++)
		to[i] = (struct wire_action){ (unsigned long)from[i].sa.sa_handler, from[i].sa.sa_flags & UAPI_SA_FLAGS,
					      (unsigned long)from[i].sa.sa_restorer, from[i].sa.sa_mask.sig[0] };
	spin_unlock_irq(&current->sighand->siglock);
}

/* The stub may say what it likes: the task could do as much, but to these two. */
void ssi_actions_posted(u64 signals, u64 restorer)
{
	struct k_sigaction *action = current->sighand->action;
	unsigned int i;

	spin_lock_irq(&current->sighand->siglock);
	for (i = 0; i < _NSIG; i++) {
		if (!(signals & BIT_ULL(i)) || sig_kernel_only(i + 1) || action[i].sa.sa_handler != SIG_DFL ||
		    action[i].sa.sa_flags & SA_IMMUTABLE)
			continue;
		action[i].sa.sa_flags |= SA_RESTORER;
		action[i].sa.sa_restorer = (__sigrestore_t)restorer;
	}
	spin_unlock_irq(&current->sighand->siglock);
}
