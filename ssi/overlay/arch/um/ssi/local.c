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
 * Kernel half and user half are on one CPU of the host, where handing over is two switches.  Where a CPU of the host
 * is free and system calls are frequent, the user half is put there, and each spins for a while when the other one
 * has its turn, which is several times faster.  Whether it is, is measured: what a call gains against the time of all
 * stays that took longer than spinning lasts, be it that user code computes, which gains nothing, or that it has to
 * wait for a CPU that is not free after all.
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

#define WINDOW_NS	5000000		/* after so long it is decided anew */
#define GAIN_NS		4000		/* of a call, apart; more where switches are slow */
#define STAY_NS		20000		/* a longer stay was slept for */
#define EXECUTOR_NS	50000		/* the executor's wake-ups, when it is on another CPU than the thread */
#define PAUSES_MAX	8		/* 2^n windows until it is tried again */

/* How a CPU's user half is handed over; its own. */
struct hand_over {
	bool apart;
	unsigned int failures, pause;	/* in a row; windows */
	long long since, missed;	/* this window: began; time of long stays */
	unsigned int hits;		/* short stays */
	struct ssi_slot last;		/* whose thread may still spin */
};

static struct hand_over hand_overs[SSI_CPUS_MAX];

/* Does no other CPU of ours want the host's CPU that is next to that one's? */
static bool next_is_free(unsigned int cpu)
{
	unsigned int first = ssi_boot.nodes[0].cpu_start, other, hosts = ssi_host_cpus();

	if (hosts < 2 || !ssi_may_spin())
		return false;
	for (other = first; other < first + ssi_boot.nodes[0].cpu_count; other++)
		if (other % hosts == (cpu + 1) % hosts && cpu_online(other) && !idle_cpu(other))
			return false;
	return true;
}

static void decide(struct hand_over *h, unsigned int cpu, long long now)
{
	long long gain = (long long)h->hits * GAIN_NS;

	if (h->apart) {
		h->apart = gain > h->missed && next_is_free(cpu);
		h->failures = h->apart ? 0 : min(h->failures + 1, (unsigned int)PAUSES_MAX);
		h->pause = h->apart ? 0 : 1u << h->failures;
	} else if (h->pause) {
		h->pause--;
	} else {
		h->apart = gain > WINDOW_NS / 8 && next_is_free(cpu);
	}
	h->since = now;
	h->missed = 0;
	h->hits = 0;
}

static void note_stay(struct hand_over *h, unsigned int cpu, long long started, long long ended)
{
	if (ended - started < STAY_NS)
		h->hits++;
	else
		h->missed += ended - started;
	if (ended - h->since >= WINDOW_NS)
		decide(h, cpu, ended);
}

void ssi_local_executor(void)
{
	struct hand_over *h = &hand_overs[raw_smp_processor_id()];

	h->missed += h->apart ? EXECUTOR_NS : 0;
}

static void place(const struct hand_over *h, const struct ssi_slot *slot, unsigned int cpu)
{
	int host_cpu = ssi_host_cpu(cpu + h->apart);

	if (host_cpu >= 0)
		ssi_slot_place(slot, host_cpu, h->apart);
}

/* The thread of the task before spins where this one is to run. */
static void relieve(struct hand_over *h, const struct ssi_slot *slot)
{
	if (h->apart && h->last.area != slot->area)
		ssi_slot_leave(&h->last);
	h->last = *slot;
}

bool ssi_local_slot(struct ssi_slot *slot, const struct ssi_mm *sm)
{
	unsigned int cpu = raw_smp_processor_id(), area = READ_ONCE(sm->area);

	if (!area || ssi_cpu_node(cpu))
		return false;
	*slot = (struct ssi_slot){ .area = area - 1, .number = cpu - ssi_boot.nodes[0].cpu_start + 1 };
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
	struct hand_over *h = &hand_overs[cpu];
	long long started = os_nsecs(), ended;
	bool told = false;
	int ret;

	place(h, slot, cpu);
	ssi_slot_resume(slot);
	relieve(h, slot);
	local_irq_disable();
	ret = wait_parked(slot, started + PATIENCE_NS, h->apart, wanted, &told);
	local_irq_enable();
	ended = os_nsecs();
	ssi_slot_count(slot, ended - started, told);
	note_stay(h, cpu, started, ended);
	return ret || ssi_slot_frame_fault(slot) ? -EAGAIN : 0;
}
