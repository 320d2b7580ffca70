/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the clock page of the node (node/clock_page.h), in user mode.  Whatever it does not tell is left to the
 * system call: other clocks, tasks in time namespaces, a page that is being written, old or not there.
 */
#ifndef __SSI_VDSO_CLOCK_H
#define __SSI_VDSO_CLOCK_H

#include <linux/time.h>
#include "../../../um/ssi/clock_page.h"

#define SSI_OTHER_TIME	0x7f9000100a40UL	/* stub_orders.other_time of slot 0 (node/stub.h) */

struct ssi_time { __s64 sec; __u64 nsec; };

static inline bool ssi_read_page(const volatile struct clock_page *p, bool mono, struct ssi_time *t, __s64 *tick_sec)
{
	__u64 since, count, frac;
	__u32 seq = p->seq;

	if (seq & 1)
		return false;
	barrier();
	if (!p->usable || *(const volatile __u32 *)SSI_OTHER_TIME)
		return false;
	since = clock_since(p, clock_tsc());
	if (since > p->length)
		return false;
	count = p->now + since;
	count = count > p->record.cycle_last ? count - p->record.cycle_last : 0;
	*tick_sec = p->record.real_sec;
	t->sec = mono ? p->record.mono_sec : p->record.real_sec;
	frac = mono ? p->record.mono_frac : p->record.real_frac;
	t->nsec = (frac + count * p->record.mult) >> p->record.shift;
	barrier();
	if (seq != p->seq)
		return false;
	for (; t->nsec >= NSEC_PER_SEC; t->nsec -= NSEC_PER_SEC)
		t->sec++;
	return true;
}

static inline bool ssi_read_clock(clockid_t clock, struct ssi_time *t)
{
	__s64 tick_sec;

	return (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC) &&
	       ssi_read_page((void *)CLOCK_PAGE, clock == CLOCK_MONOTONIC, t, &tick_sec);
}

/* As of the last tick that the page has heard of, like the system call and the times of files. */
static inline bool ssi_read_seconds(__s64 *tick_sec)
{
	struct ssi_time t;

	return ssi_read_page((void *)CLOCK_PAGE, false, &t, tick_sec);
}

#endif
