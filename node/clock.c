// SPDX-License-Identifier: GPL-2.0
/*
 * The clock page of a node that is not the kernel's (clock_page.h).
 *
 * Each RUN brings the kernel's count as of its sending.  The page's line starts anew there, or where it is by now if
 * that is later, with the rate that the host's own CLOCK_MONOTONIC has shown, less what the kernel's clock may be slowed
 * down by meanwhile.  A page that has heard nothing for a while says so, and then a system call brings the next RUN.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock_page.h"
#include "machine.h"

#define SLOWER			2048		/* by 1/2048: the kernel steers by 1/2500, and tells of clocks slowed by 1/16384 */
#define LENGTH_NS		20000000	/* so it lags by 10 us at most, and a system call each 20 ms is nothing */
#define FIRST_RATE_NS		50000000	/* that the rate is measured over at least */
#define NEXT_RATE_NS		1000000000

static bool host_uses_tsc(void)
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	char line[32] = "";
	bool yes = f && fgets(line, sizeof(line), f) && !strcmp(line, "tsc\n");

	if (f)
		fclose(f);
	return yes;
}

void clock_start(struct machine *m)
{
	const char *choice = getenv("PANGEA_CLOCK");

	pthread_mutex_init(&m->clock.lock, NULL);
	m->clock.page = (void *)(m->arena + STUB_CLOCK);
	if (!m->config.layout.self || (choice && !strcmp(choice, "syscall")) || !host_uses_tsc())
		return;
	m->clock.start_tsc = clock_tsc();
	m->clock.start_ns = now_ns();
	m->clock.enabled = true;
}

/* The rate since the start, which grows more exact.  0: not known yet.  clock.lock held. */
static uint64_t rate(struct clock *c)
{
	uint64_t tsc, ns;

	if (c->mult && clock_tsc() < c->measure_again)
		return c->mult;
	/* in this order, and the other one at the start: who is held up in between makes the line slower, never faster */
	ns = now_ns() - c->start_ns;
	tsc = clock_tsc() - c->start_tsc;
	if (ns < FIRST_RATE_NS)
		return 0;
	c->mult = ((unsigned __int128)ns << CLOCK_MULT_SHIFT) / tsc;
	c->mult -= c->mult / SLOWER;
	c->measure_again = c->start_tsc + tsc + (unsigned __int128)tsc * NEXT_RATE_NS / ns;
	return c->mult;
}

/* The line goes on while the page cannot be used: what a RUN says that was long under way has been seen here before. */
static void write_page(struct clock_page *p, const struct wire_clock *record, uint64_t mult)
{
	uint64_t tsc, now;

	clock_write_begin(p);
	tsc = clock_tsc();	/* nobody reads the old line from here on */
	now = p->now + clock_since(p, tsc);
	p->tsc = tsc;
	p->now = now > record->now ? now : record->now;
	p->mult = mult;
	p->length = LENGTH_NS;
	p->record = *record;
	p->usable = record->now && mult;
	clock_write_end(p);
}

static bool is_older(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

void clock_update(struct machine *m, const struct wire_clock *record)
{
	struct clock *c = &m->clock;

	if (!c->enabled)
		return;
	pthread_mutex_lock(&c->lock);
	/* RUNs of several CPUs overtake each other */
	if (!is_older(record->generation, c->generation) &&
	    !(c->page->usable && record->now && record->cycle_last < c->page->record.cycle_last &&
	      record->generation == c->page->record.generation)) {
		c->generation = record->generation;
		write_page(c->page, record, rate(c));
	}
	pthread_mutex_unlock(&c->lock);
}

void clock_stop(struct machine *m, uint32_t generation)
{
	struct clock *c = &m->clock;

	pthread_mutex_lock(&c->lock);
	c->generation = generation;
	clock_write_begin(c->page);
	c->page->usable = 0;
	clock_write_end(c->page);
	pthread_mutex_unlock(&c->lock);
}
