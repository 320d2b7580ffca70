// SPDX-License-Identifier: GPL-2.0
/*
 * Programs start on the kernel host.
 *
 * A program of another node's CPU that starts there has everything to fetch: its arguments, which the kernel has just
 * written, the pages of its file and its libraries, which are in the page cache, and the answer to each of some 80 system
 * calls and faults until it has begun to do what it is for.  All that is here.  And most programs end soon: what a shell
 * runs, what `make` asks a compiler.  So the user half of a task is on the kernel host, whatever its CPU, from execve() until
 * it has run for ssi_boot.start_us there; then it moves to the node of its CPU, as if it had been scheduled on that just now.
 * Who has lived that long will most likely live as long again, so that moving pays: the lifetimes of processes have a long
 * tail (Harchol-Balter and Downey, "Exploiting process lifetime distributions for dynamic load balancing", ACM TOCS
 * 15(3), 1997).  It costs the kernel host's CPUs less than to serve these calls and faults over the network.
 *
 * Nor does one move that makes system calls so often that it would wait for their answers, there, longer than it would run:
 * a shell script, a compiler that reads its files where a message takes a millisecond.  So it stays for as long again, as often
 * as calls come closer together than a round trip takes.  That is measured by the clock: where many programs start on one
 * CPU of this host, the calls of each come less often, and it goes.  Who has stayed so has memory here, which would have to be
 * fetched: it goes when it has run for as long as that would take.  But nobody stays who needs a good part of this host's memory.
 *
 * A child of fork() starts here if its parent's memory is here.  What runs on a CPU of the kernel host first starts there for
 * as long.  A stub has one thread for what starts on other nodes' CPUs: where two threads of a process would need it at the
 * same time, it has started.
 */
#include <linux/hrtimer.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/mmu_context.h>
#include <os.h>
#include <ssi.h>
#include "ssi_internal.h"

#define MEAN_OF		16	/* times that a program stays for as long again */
#define MEMORY_SHARE	4	/* of the kernel host's, at most */
#define PAGES_A_WAIT	2	/* of a task that has moved; rather too few: a compile on a node waited 2,250 times, its cc1 has 22,000 */
#define PAGES_MAX	8192LL	/* of what has more it may never use all again */
#define FIRST_NS	(10 * NSEC_PER_MSEC)	/* nothing is known yet, and somebody may have been busy */

/* Of a CPU. */
struct start {
	long long until;	/* of the stay that is under way (os_nsecs()); 0: it is none of a program that starts */
	bool guest;		/* the CPU is another node's */
	struct hrtimer timer;	/* ends a stay, as the tick may be long in coming */
};

static struct start starts[SSI_CPUS_MAX];
static long long round_trips[SSI_NODES_MAX];	/* ns; 0: not known yet */

bool ssi_start_possible(unsigned int cpu)
{
	return ssi_cpu_node(cpu) && ssi_boot.start_fd[cpu] >= 0;
}

/* The shortest one, as others had more to do; but a network that becomes slower is to be noticed soon, too. */
void ssi_start_round_trip(unsigned int node, long long ns)
{
	long long known = READ_ONCE(round_trips[node]);

	if (!known)
		ns = min(ns, FIRST_NS);
	WRITE_ONCE(round_trips[node], known && ns > known ? known + min(ns - known, known) / 8 : ns);
}

static void begin(struct ssi_mm *sm)
{
	sm->start_left = ssi_boot.start_us * NSEC_PER_USEC;
	sm->start_age = sm->start_ran = sm->start_calls = 0;
	sm->starting = true;
}

/*
 * It has run for as long as it had: does it for as long again?  Its calls are those of some such times, as a compiler thinks
 * in between.  And who has stayed for them goes only when what it has run so far is worth its memory's move.
 */
static bool stays(struct ssi_mm *sm, struct mm_struct *mm)
{
	long long ns = ssi_boot.start_us * NSEC_PER_USEC, pages = get_mm_counter(mm, MM_ANONPAGES);
	long long round_trip = READ_ONCE(round_trips[ssi_cpu_node(raw_smp_processor_id())]);
	bool again = sm->start_age;

	sm->start_age += ns;
	sm->start_ran += ns;
	if (!ssi_boot.start_follows_calls || pages > node_present_pages(0) / MEMORY_SHARE || !ssi_has_room(0))
		return false;
	pages = min(pages, PAGES_MAX);
	if (sm->start_calls * round_trip <= sm->start_ran && !(again && pages * round_trip / PAGES_A_WAIT > sm->start_age))
		return false;
	sm->start_ran -= sm->start_ran / MEAN_OF;
	sm->start_calls -= DIV_ROUND_UP(sm->start_calls, MEAN_OF);
	sm->start_left = ns;
	return true;
}

void ssi_start_exec(struct ssi_mm *sm)
{
	begin(sm);
}

void ssi_start_fork(struct ssi_mm *child)
{
	if (!ssi_user_node())
		begin(child);
}

bool ssi_is_starting(const struct mm_struct *mm)
{
	return ssi_active && mm && READ_ONCE(mm->context.ssi->starting) && ssi_start_possible(raw_smp_processor_id());
}

unsigned int ssi_user_node(void)
{
	return ssi_is_starting(current->mm) ? 0 : ssi_cpu_node(raw_smp_processor_id());
}

/* It only has to end a wait.  Where it comes early, it was set for a stay before. */
static enum hrtimer_restart wake(struct hrtimer *timer)
{
	const struct start *s = container_of(timer, struct start, timer);
	long long left = s->guest ? s->until - os_nsecs() : 0;

	if (left <= 0)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, ns_to_ktime(left));
	return HRTIMER_RESTART;
}

/* To set it takes longer than a system call, so it stays set if it does not come late. */
static void set_timer(struct start *s, long long ns)
{
	if (!hrtimer_active(&s->timer) || ktime_to_ns(hrtimer_get_remaining(&s->timer)) > ns)
		hrtimer_start(&s->timer, ns_to_ktime(ns), HRTIMER_MODE_REL_PINNED);
}

unsigned int ssi_start_enter(struct ssi_mm *sm)
{
	struct start *s = &starts[raw_smp_processor_id()];

	s->guest = false;
	if (!READ_ONCE(sm->starting))
		return ssi_cpu_node(raw_smp_processor_id());
	s->guest = ssi_is_starting(current->mm);
	if ((sm->start_left <= 0 && !(s->guest && stays(sm, current->mm))) || (s->guest && cmpxchg(&sm->start_busy, false, true))) {
		s->guest = false;
		WRITE_ONCE(sm->starting, false);
		return ssi_cpu_node(raw_smp_processor_id());
	}
	s->until = os_nsecs() + sm->start_left;
	if (s->guest)
		set_timer(s, sm->start_left);
	return s->guest ? 0 : ssi_cpu_node(raw_smp_processor_id());
}

void ssi_start_leave(struct ssi_mm *sm, bool called)
{
	struct start *s = &starts[raw_smp_processor_id()];

	if (!s->until)
		return;
	sm->start_calls += called;
	sm->start_left = s->until - os_nsecs();
	s->until = 0;
	if (s->guest)
		smp_store_release(&sm->start_busy, false);
	s->guest = false;
}

bool ssi_start_is_over(void)
{
	const struct start *s = &starts[raw_smp_processor_id()];

	return s->guest && (os_nsecs() >= s->until || !READ_ONCE(current->mm->context.ssi->starting));
}

static int __init ssi_start_init(void)
{
	unsigned int cpu;

	for (cpu = 0; cpu < SSI_CPUS_MAX; cpu++)
		hrtimer_setup(&starts[cpu].timer, wake, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	return 0;
}
early_initcall(ssi_start_init);
