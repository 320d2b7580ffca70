// SPDX-License-Identifier: GPL-2.0
/*
 * Where and how soon this host runs the threads of a node.
 *
 * A CPU of the machine is one of this host's: executor and stub thread only ever run in turn, and a wake-up
 * within a CPU costs a fraction of one between two.  The kernel half does the same on its host.
 *
 * But then what the daemon does for other nodes (coherence, REVOKE) shares that CPU with user code that never
 * gives it up.  As an ordinary thread it waits there: where user code faults often and the daemon serves its
 * faults, the daemon is the one that has had more than its share, and the host lets the user code run until the
 * next tick, 4 ms where a round trip takes 0.1.  So its threads, which only pass things on, run under
 * SCHED_FIFO if the host allows that; else they ask for short slices, which Linux 6.12 and later take as a wish
 * for early deadlines (EEVDF).  The kernel half's threads get short slices too; user code gets nothing.
 *
 * To sleep and be woken takes as long as a message through a fast network.  So an executor that waits for an answer, and has
 * a CPU of the host for itself and its thread, looks for it instead for a while, as long as that goes well (PANGEA_SPIN).
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine.h"

#define SHORT_SLICE_NS	100000		/* the least that Linux takes */
#define SPIN_MISSES_MAX	5		/* more than those that came */
#define SPIN_PAUSES	20
#define RESET_ON_FORK	1		/* SCHED_FLAG_RESET_ON_FORK: of stubs, nothing is inherited */

/*
 * The library of a sanitizer spins for its own locks with sched_yield().  Who has one and comes after the spinner on its CPU, by
 * priority, would never give it back; to those that are not under SCHED_FIFO the host leaves a twentieth of the time.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define PRIORITY(hurry) ((void)(hurry), HURRY_MUCH)
#else
#define PRIORITY(hurry) (hurry)
#endif

/* struct sched_attr, first version: the kernel's header and Debian 12's <sched.h> exclude each other. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static bool is_off(const char *variable)
{
	const char *value = getenv(variable);

	return value && !strcmp(value, "off");
}

/* Empty when the user does not want that. */
static cpu_set_t host_cpu(unsigned cpu)
{
	cpu_set_t allowed, one;
	int skip, i;

	CPU_ZERO(&one);
	if (is_off("PANGEA_PIN") || sched_getaffinity(getpid(), sizeof(allowed), &allowed))
		return one;
	skip = cpu % CPU_COUNT(&allowed);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &allowed) && !skip--)
			break;
	CPU_SET(i, &one);
	return one;
}

void pin_thread(unsigned cpu, pid_t tid)
{
	cpu_set_t set = host_cpu(cpu);

	if (CPU_COUNT(&set))
		sched_setaffinity(tid, sizeof(set), &set);
}

void pin_thread_at(int host_cpu, pid_t tid)
{
	cpu_set_t one;

	if (host_cpu < 0 || is_off("PANGEA_PIN"))
		return;
	CPU_ZERO(&one);
	CPU_SET(host_cpu, &one);
	sched_setaffinity(tid, sizeof(one), &one);
}

static bool set_attributes(pid_t tid, struct attributes attr)
{
	attr.size = sizeof(attr);
	return !syscall(SYS_sched_setattr, tid, &attr, 0);
}

static bool shorten(pid_t tid, uint64_t flags)
{
	return set_attributes(tid, (struct attributes){ .policy = SCHED_OTHER, .runtime = SHORT_SLICE_NS,
							.nice = getpriority(PRIO_PROCESS, tid), .flags = flags });
}

/* Any other policy is the user's choice, for example of chrt around pangea. */
static bool is_ordinary(pid_t tid)
{
	return sched_getscheduler(tid) == SCHED_OTHER;
}

/* No error in either: they are wishes, and older kernels do not know of short slices. */
void shorten_slices(void)
{
	if (is_ordinary(0))
		shorten(0, 0);
}

void calm_thread(pid_t tid)
{
	set_attributes(tid, (struct attributes){ .policy = SCHED_OTHER });
}

bool hurry_thread(pid_t tid, enum hurry hurry)
{
	if (!is_ordinary(tid))
		return false;
	if (!is_off("PANGEA_REALTIME") &&
	    set_attributes(tid, (struct attributes){ .policy = SCHED_FIFO, .priority = PRIORITY(hurry),
						      .flags = RESET_ON_FORK }))
		return true;
	shorten(tid, RESET_ON_FORK);
	return false;
}

bool cpus_suffice(const struct layout *layout)
{
	unsigned cpus = layout->node[layout->self].cpu_count;
	cpu_set_t allowed;

	for (unsigned i = 1; !layout->self && i < layout->nodes; i++)
		cpus += layout->node[i].cpu_count;
	return !sched_getaffinity(getpid(), sizeof(allowed), &allowed) && cpus <= (unsigned)CPU_COUNT(&allowed);
}

static bool may_spin(void)
{
	static int may = -1;		/* all threads come to the same */
	int now = __atomic_load_n(&may, __ATOMIC_RELAXED);

	if (now < 0) {
		now = !is_off("PANGEA_SPIN");
		__atomic_store_n(&may, now, __ATOMIC_RELAXED);
	}
	return now;
}

bool spin_will(const struct spin *s)
{
	return may_spin() && !s->skip;
}

uint64_t spin_begin(struct spin *s, uint64_t most)
{
	if (!may_spin())
		return 0;
	if (s->skip) {
		s->skip--;
		return 0;
	}
	return now_ns() + most;
}

void spin_end(struct spin *s, bool came)
{
	if (came)
		s->misses -= !!s->misses;
	else
		s->misses += s->misses < SPIN_MISSES_MAX;
	s->skip = (1u << s->misses) - 1;
}

void spin_pause(void)
{
	for (unsigned i = 0; i < SPIN_PAUSES; i++)
		__builtin_ia32_pause();
	sched_yield();
}
