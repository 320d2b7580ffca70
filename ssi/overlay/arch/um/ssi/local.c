// SPDX-License-Identifier: GPL-2.0
/*
 * CPUs of the kernel host, and others' where programs start: the kernel hands the stubs' threads over itself, without the daemon
 * between.
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
 * Kernel half and user half are on one CPU of the host, where handing over is two switches, or apart (apart.c).
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

#define GAIN_NS		4000		/* of a call, apart; more where switches are slow */
#define STAY_NS		20000		/* a longer stay was slept for, apart in vain */
#define WAKE_NS		20000		/* what that costs */
#define CROWDED_NS	700000		/* one that long may have waited for its CPU all the time */
#define MOVE_NS		20000		/* a thread that comes from another CPU: the host's work, and cold caches there */
#define MAP_NS		8000		/* of an address space in use on two CPUs, the other one is told by an interrupt */
#define EXECUTOR_NS	50000		/* the executor's wake-ups, when it is on another CPU than the thread */

/* Whose thread may still spin where the CPU's next one is to run. */
static struct ssi_slot last_slots[SSI_CPUS_MAX];

void ssi_local_executor(void)
{
	if (ssi_apart())
		ssi_apart_note(os_nsecs(), 0, EXECUTOR_NS);
}

void ssi_local_mapped(void)
{
	if (ssi_apart())
		ssi_apart_note(os_nsecs(), 0, MAP_NS);
}

static void place(const struct ssi_slot *slot, unsigned int cpu, bool apart)
{
	int host_cpu = ssi_host_cpu(cpu + apart);

	if (host_cpu >= 0 && ssi_slot_place(slot, host_cpu, apart) && apart)
		ssi_apart_note(os_nsecs(), 0, MOVE_NS);
}

/* The thread of the task before spins where this one is to run. */
static void relieve(struct ssi_slot *last, const struct ssi_slot *slot, bool apart)
{
	if (apart && last->area != slot->area)
		ssi_slot_leave(last);
	*last = *slot;
}

static void note_stay(long long started, long long ended)
{
	long long stay = ended - started;

	if (stay < STAY_NS)
		ssi_apart_note(ended, GAIN_NS, 0);
	else
		ssi_apart_note(ended, 0, stay < CROWDED_NS ? WAKE_NS : stay);
}

unsigned int ssi_local_number(void)
{
	unsigned int cpu = raw_smp_processor_id(), own = ssi_boot.nodes[0].cpu_count;

	if (cpu < own)
		return cpu + 1;
	return ssi_start_possible(cpu) ? own + 1 : 0;
}

bool ssi_local_slot(struct ssi_slot *slot, const struct ssi_mm *sm)
{
	unsigned int area = READ_ONCE(sm->area), number = ssi_local_number();

	if (!area || !number)
		return false;
	*slot = (struct ssi_slot){ .area = area - 1, .number = number, .cpu = raw_smp_processor_id() };
	return true;
}

/* Until the thread has parked, with IRQs disabled: 0, or -ETIMEDOUT. */
static int wait_parked(const struct ssi_slot *slot, long long deadline, bool spin, int (*wanted)(void), bool *told)
{
	int ret;

	for (;;) {
		if (!*told && wanted()) {
			*told = true;
			ssi_slot_interrupt(slot);
		}
		ret = ssi_slot_wait(slot, spin);
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
	unsigned int cpu = raw_smp_processor_id();
	long long started = os_nsecs(), ended;
	bool told = false, apart = ssi_apart();
	int ret;

	place(slot, cpu, apart);
	ssi_slot_resume(slot);
	relieve(&last_slots[cpu], slot, apart);
	local_irq_disable();
	ret = wait_parked(slot, started + PATIENCE_NS, apart, wanted, &told);
	local_irq_enable();
	ended = os_nsecs();
	ssi_slot_count(slot, ended - started, told);
	note_stay(started, ended);
	return ret || ssi_slot_frame_fault(slot) ? -EAGAIN : 0;
}
