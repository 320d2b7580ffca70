// SPDX-License-Identifier: GPL-2.0
/*
 * The clock that user code reads without a system call (node/clock_page.h), as the kernel host's TSC counts it.
 *
 * The clock source "pangea" counts nanoseconds along a line over the TSC, whose rate is steered so that it stays with the
 * host's CLOCK_MONOTONIC.  It never jumps, unless it is behind by more than steering makes good.  The line, and what the
 * timekeeping says of its clocks, are in the clock page of this host, and go to the other nodes with each RUN.
 *
 * A clock that is set or slowed down, or another clock source, must be seen at once by everybody: the nodes stop
 * reading until their next RUN.
 *
 * Only where the host itself trusts its TSC, and not with PANGEA_CLOCK=syscall.
 */
#include <linux/clocksource.h>
#include <linux/init.h>
#include <linux/math64.h>
#include <linux/nsproxy.h>
#include <linux/pvclock_gtod.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/time_namespace.h>
#include <linux/timekeeper_internal.h>
#include <linux/workqueue.h>
#include <os.h>
#include <ssi.h>
#include "ssi_internal.h"
#include "clock_page.h"

#define STEER_NS	1000000000	/* what is wrong is made good in that time, */
#define STEER_MAX	2500		/* by a rate that differs by 1 in so many at most */
#define SLOWED_MIN	16384		/* a clock that is slower by 1 in so many: nodes must hear of it at once */
#define JUMP_NS		50000000LL	/* more than can be steered soon: the host has slept */

static struct clock_page *page;
static DEFINE_RAW_SPINLOCK(page_lock);		/* to write the page, and what follows */
static bool told;				/* some node may be reading */

/* A point of the host's own clock; its TSC is that of the middle. */
struct sample { u64 tsc, ns; };

static struct sample last;

static struct sample take_sample(void)
{
	struct sample best = {};
	u64 before, after, width = ~0ULL;
	unsigned int i;

	for (i = 0; i < 5; i++) {
		u64 ns;

		before = clock_tsc();
		ns = os_nsecs();
		after = clock_tsc();
		if (after - before < width) {
			width = after - before;
			best = (struct sample){ before + width / 2, ns };
		}
	}
	return best;
}

static u64 read_line(struct clocksource *source)
{
	u32 seq;
	u64 now;

	do {
		seq = smp_load_acquire(&page->seq);
		now = page->now + clock_since(page, clock_tsc());
		smp_rmb();
	} while (seq & 1 || seq != READ_ONCE(page->seq));
	return now;
}

static struct clocksource source = {
	.name	= "pangea",
	.rating	= 400,
	.read	= read_line,
	.mask	= CLOCKSOURCE_MASK(64),
	.flags	= CLOCK_SOURCE_IS_CONTINUOUS,
};

static void register_source(struct work_struct *work)
{
	clocksource_register_hz(&source, NSEC_PER_SEC);
}

static DECLARE_WORK(source_work, register_source);

/* --- the line --- */

/* As fast as the host's clock has been since the last look, and a little more or less for what is wrong. */
static u64 steered(const struct sample *s, u64 now)
{
	u64 rate = mul_u64_u64_div_u64(s->ns - last.ns, 1ULL << CLOCK_MULT_SHIFT, s->tsc - last.tsc);
	s64 wrong = clamp((s64)(s->ns - now), -STEER_NS / STEER_MAX, STEER_NS / STEER_MAX);

	return rate + div_s64((s64)rate * wrong, STEER_NS);
}

/* page_lock held. */
static void move_line(const struct sample *s)
{
	u64 then = page->now + clock_since(page, s->tsc), jump = 0, mult, tsc;

	if ((s64)(s->ns - then) > JUMP_NS)
		jump = s->ns - then;
	mult = steered(s, then + jump);
	clock_write_begin(page);
	/* not the sample's: the old line may have been read since, ahead of a slower one that starts there */
	tsc = clock_tsc();
	page->now += clock_since(page, tsc) + jump;
	page->tsc = tsc;
	page->mult = mult;
	clock_write_end(page);
	last = *s;
}

/* page_lock held.  true: the clock source can be used from now on. */
static bool begin_line(const struct sample *s)
{
	if (!last.ns) {
		last = *s;
		return false;
	}
	clock_write_begin(page);
	page->mult = steered(s, s->ns);
	page->now = s->ns;
	page->tsc = s->tsc;
	page->length = ~0ULL;
	clock_write_end(page);
	last = *s;
	return true;
}

void ssi_clock_steer(void)
{
	struct sample s;
	unsigned long flags;
	bool begun = false;

	if (!page)
		return;
	raw_spin_lock_irqsave(&page_lock, flags);
	s = take_sample();
	if (page->mult)
		move_line(&s);
	else
		begun = begin_line(&s);
	raw_spin_unlock_irqrestore(&page_lock, flags);
	if (begun)
		schedule_work(&source_work);
}

/* --- the record --- */

static void note_clocks(struct wire_clock *r, const struct timekeeper *tk)
{
	const struct tk_read_base *b = &tk->tkr_mono;
	u64 second = (u64)NSEC_PER_SEC << b->shift;

	r->mult = b->mult;
	r->shift = b->shift;
	r->cycle_last = b->cycle_last;
	r->real_sec = tk->xtime_sec;
	r->real_frac = b->xtime_nsec;
	r->mono_sec = tk->xtime_sec + tk->wall_to_monotonic.tv_sec;
	r->mono_frac = b->xtime_nsec + ((u64)tk->wall_to_monotonic.tv_nsec << b->shift);
	for (; r->mono_frac >= second; r->mono_frac -= second)
		r->mono_sec++;
}

/*
 * adjtimex() can slow the clocks down by far more than the lines of other nodes run slow, which would be ahead then.
 * fastest: since the nodes were last told to stop; so many small steps count as well.  page_lock held.
 */
static bool slowed_down(const struct tk_read_base *b)
{
	static u32 fastest;
	bool slowed = b->mult < fastest - fastest / SLOWED_MIN;

	if (slowed || b->mult > fastest)
		fastest = b->mult;
	return slowed;
}

/* The timekeeping has changed something; its lock is held. */
static int clocks_changed(struct notifier_block *nb, unsigned long was_set, void *timekeeper)
{
	const struct timekeeper *tk = timekeeper;
	unsigned int node;
	unsigned long flags;
	bool stop;

	raw_spin_lock_irqsave(&page_lock, flags);
	clock_write_begin(page);
	page->usable = tk->tkr_mono.clock == &source;
	stop = slowed_down(&tk->tkr_mono) || was_set;
	page->record.generation += stop;
	note_clocks(&page->record, tk);
	clock_write_end(page);
	raw_spin_unlock_irqrestore(&page_lock, flags);
	smp_mb();	/* pairs with that in ssi_clock_record() */
	if (!stop || !READ_ONCE(told))
		return NOTIFY_OK;
	for (node = 1; node < ssi_boot.node_count; node++)
		ssi_node_stop_clock(node, page->record.generation);
	return NOTIFY_OK;
}

static struct notifier_block clocks_notifier = { .notifier_call = clocks_changed };

void ssi_clock_record(struct wire_clock *record)
{
	u32 seq, usable;

	memset(record, 0, sizeof(*record));
	if (!page || !READ_ONCE(page->usable))
		return;
	WRITE_ONCE(told, true);
	smp_mb();	/* said before it is read: who sets a clock afterwards tells everybody */
	do {
		seq = smp_load_acquire(&page->seq);
		usable = page->usable;
		*record = page->record;
		record->now = page->now + clock_since(page, clock_tsc());
		smp_rmb();
	} while (seq & 1 || seq != READ_ONCE(page->seq));
	if (!usable)
		memset(record, 0, sizeof(*record));
}

bool ssi_clock_is_other(void)
{
	return IS_ENABLED(CONFIG_TIME_NS) && current->nsproxy && current->nsproxy->time_ns != &init_time_ns;
}

/* --- start --- */

/* Early, so that the rate is known when the first program starts. */
void __init ssi_clock_prepare(void)
{
	if (!ssi_clock_usable())
		return;
	page = ssi_clock_page();
	ssi_clock_steer();
}

static int __init ssi_clock_init(void)
{
	if (!page)
		return 0;
	pvclock_gtod_register_notifier(&clocks_notifier);
	ssi_clock_steer();
	return 0;
}
late_initcall(ssi_clock_init);
