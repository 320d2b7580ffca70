// SPDX-License-Identifier: GPL-2.0
/*
 * What a CPU does when it has nothing to do.
 *
 * Waking a thread on another of the host's CPUs takes both sides some 20 us where the host is a virtual machine itself.
 * Programs that wait for each other over and over (pipes, sockets, locks) wait about as long, so a CPU looks for work for
 * a while before it sleeps, and as long as it does, no IPI is sent to it.  The while follows what has been: doubled after
 * a wait that was short enough to be looked for, halved after one that was not, as in the kernel's haltpoll governor.
 * Where the host has others for this CPU to run, they run, and for some waits nobody looks.
 *
 * It is not spent where that is not wanted (PANGEA_SPIN=off).
 */
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/sched/idle.h>
#include <linux/smp.h>
#include <kern_util.h>
#include <os.h>
#include <ssi.h>
#include "ssi_internal.h"

#define AWAKE_MIN_NS	10000
#define AWAKE_MAX_NS	100000
#define PAUSES_MAX	8		/* 2^n waits that are slept for */

struct idle_wait {
	unsigned int awake_ns;		/* of the next wait */
	unsigned int failures, pause;	/* in a row; waits */
};

static struct idle_wait idle_waits[SSI_CPUS_MAX];	/* each its CPU's */

static int work_waits(void)
{
	return need_resched();
}

/* 1: there is work, or a signal; 0: there is none; -EBUSY: others of the host want the CPU. */
static int look_for_work(long long until)
{
	int ret = 1;

	if (!current_set_polling_and_test())
		ret = ssi_stay_awake(until, work_waits);
	current_clr_polling();
	return ret;
}

static void adapt(struct idle_wait *w, long long waited_ns)
{
	if (w->pause)
		w->pause--;
	else if (waited_ns < AWAKE_MAX_NS)
		w->awake_ns = clamp(2 * w->awake_ns, AWAKE_MIN_NS, AWAKE_MAX_NS);
	else
		w->awake_ns = w->awake_ns / 2 < AWAKE_MIN_NS ? 0 : w->awake_ns / 2;
}

static void give_up(struct idle_wait *w)
{
	w->failures = min(w->failures + 1, (unsigned int)PAUSES_MAX);
	w->pause = 1U << w->failures;
	w->awake_ns = 0;
}

/* IRQs are disabled as the kernel knows it: what comes leaves a note. */
void ssi_cpu_idle(void)
{
	struct idle_wait *w = &idle_waits[raw_smp_processor_id()];
	long long began = os_nsecs();
	int found = w->awake_ns && ssi_may_spin() ? look_for_work(began + w->awake_ns) : 0;

	if (found > 0) {
		w->failures = 0;
		return;
	}
	ssi_tell_freed();
	um_idle_sleep();
	if (found < 0)
		give_up(w);
	else
		adapt(w, os_nsecs() - began);
}
