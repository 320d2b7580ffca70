// SPDX-License-Identifier: GPL-2.0
/*
 * CPUs of the kernel host: the kernel hands the stubs' threads over itself, without the daemon between.
 *
 * The daemon still makes the stubs, maps, brings frames, and waits for threads that compute for long, so that it alone
 * has to know what becomes of a stub process.  So a stay in user mode goes
 *
 *	 mappings to make?  --yes-->  RUN(LOADED)  ---------------------------------+
 *	      | no                                                                  v
 *	 resume the thread, wait  --frame fault, or a tick after PATIENCE_NS-->  RUN(STARTED)  -->  EVENT
 *	      |
 *	      +--> it has parked: a system call, a fault that is ours, a trap, an interruption
 *
 * In the wait IRQs are disabled as the kernel knows it, so that a signal leaves a note, which ends the wait.
 */
#include <linux/irqflags.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <os.h>
#include <skas.h>
#include <sysdep/ptrace.h>
#include "ssi_internal.h"

#define PATIENCE_NS 2000000	/* some hundred system calls: then what the executor costs is little */

bool ssi_local_slot(struct ssi_slot *slot, const struct ssi_mm *sm)
{
	unsigned int cpu = raw_smp_processor_id(), area = READ_ONCE(sm->area);

	if (!area || ssi_cpu_node(cpu))
		return false;
	*slot = (struct ssi_slot){ .area = area - 1, .number = cpu - ssi_boot.nodes[0].cpu_start + 1 };
	return true;
}

/* Until the thread has parked, with IRQs disabled: 0, or -ETIMEDOUT. */
static int wait_parked(const struct ssi_slot *slot, long long deadline, int (*wanted)(void), bool *told)
{
	int ret;

	for (;;) {
		if (!*told && wanted()) {
			*told = true;
			ssi_slot_interrupt(slot);
		}
		ret = ssi_slot_wait(slot);
		if (!ret && ssi_slot_signal(slot) == SIGALRM && !*told) {
			/* meant for an earlier run; or user code says so, for ever */
			ssi_slot_resume(slot);
			ret = -EINTR;
		}
		if (!ret)
			return 0;
		if (os_nsecs() >= deadline)
			return -ETIMEDOUT;
		local_irq_enable();
		local_irq_disable();
	}
}

int ssi_local_run(const struct ssi_slot *slot, int (*wanted)(void))
{
	long long started = os_nsecs();
	bool told = false;
	int ret;

	ssi_slot_resume(slot);
	local_irq_disable();
	ret = wait_parked(slot, started + PATIENCE_NS, wanted, &told);
	local_irq_enable();
	ssi_slot_count(slot, os_nsecs() - started, told);
	return ret || ssi_slot_frame_fault(slot) ? -EAGAIN : 0;
}
