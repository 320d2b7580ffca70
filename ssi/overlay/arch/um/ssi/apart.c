// SPDX-License-Identifier: GPL-2.0
/*
 * Both halves of a CPU awake, on two CPUs of the host.
 *
 * Kernel half and user half hand over to each other.  On one CPU of the host, each sleeps while the other one has its turn.
 * Where they do so often, and another CPU of the host is free, one of them goes there, and each looks for the end of the
 * other's turn for a while before it sleeps: of a CPU on the kernel host the user half goes, of one of another node's the
 * kernel half.  That is several times faster.  Whether it is, is measured: what short turns gain against the time
 * that was looked in vain, be it that user code computes, which gains nothing, or that it has to wait for a CPU that is
 * not free after all, and what moving threads and mapping cost where two CPUs are in use (local.c).
 */
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/sched/idle.h>
#include <linux/smp.h>
#include <ssi.h>
#include "ssi_internal.h"

#define WINDOW_NS	5000000		/* after so long it is decided anew */
#define WORTH_NS	(WINDOW_NS / 32)	/* it is tried if so much could be gained */
#define LOST_NS		(WINDOW_NS / 16)	/* after so much it is not tried again at once */
#define PAUSES_MAX	5		/* but after 2^n windows */

/* Of a CPU; its own. */
struct apart {
	bool yes;
	unsigned int failures, pause;	/* in a row; windows */
	long long since, gained, lost;	/* this window */
	long long last;			/* end of a turn */
};

static struct apart aparts[SSI_CPUS_MAX];

/* It runs something, or did: one that has just become idle is awake and looks for work. */
static bool is_in_use(unsigned int cpu, long long now)
{
	return cpu_online(cpu) && (!idle_cpu(cpu) || now - READ_ONCE(aparts[cpu].last) < WINDOW_NS);
}

/* Is one of its halves on that CPU of the host, of so many, and awake? */
static bool uses(unsigned int cpu, unsigned int host_cpu, unsigned int hosts, long long now)
{
	bool own = cpu % hosts == host_cpu && ssi_cpu_is_here(cpu);
	bool next = (cpu + 1) % hosts == host_cpu && READ_ONCE(aparts[cpu].yes);

	return (own || next) && is_in_use(cpu, now);
}

/* Does no other CPU of ours want the host's CPU that is next to that one's? */
static bool next_is_free(unsigned int cpu, long long now)
{
	unsigned int other, hosts = ssi_host_cpus();

	if (hosts < 2 || !ssi_may_spin())
		return false;
	for (other = 0; other < ssi_boot.cpu_count; other++)
		if (other != cpu && uses(other, (cpu + 1) % hosts, hosts, now))
			return false;
	return true;
}

static void decide(struct apart *a, unsigned int cpu, long long now)
{
	if (a->yes) {
		WRITE_ONCE(a->yes, a->gained > a->lost && next_is_free(cpu, now));
		a->failures = a->yes || a->lost < LOST_NS ? 0 : min(a->failures + 1, (unsigned int)PAUSES_MAX);
		a->pause = a->failures ? 1u << a->failures : 0;
	} else if (a->pause) {
		a->pause--;
	} else {
		WRITE_ONCE(a->yes, a->gained > WORTH_NS && next_is_free(cpu, now));
	}
	a->since = now;
	a->gained = a->lost = 0;
}

bool ssi_apart(void)
{
	return aparts[raw_smp_processor_id()].yes;
}

void ssi_apart_note(long long now, long long gained, long long lost)
{
	unsigned int cpu = raw_smp_processor_id();
	struct apart *a = &aparts[cpu];

	WRITE_ONCE(a->last, now);
	a->gained += gained;
	a->lost += lost;
	if (now - a->since >= WINDOW_NS)
		decide(a, cpu, now);
}
