// SPDX-License-Identifier: GPL-2.0
/*
 * wire_check(): every message in its smallest and largest form is accepted on its own channel and on no
 * other; each field at and beyond its bounds; every possible truncation; and noise, which must never be
 * read out of bounds (run under a sanitizer to see that).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../net/link.h"

#define PURPOSES 5	/* 1..5 */

union any {
	struct wire_hdr hdr;
	struct wire_hello hello;
	struct wire_refuse refuse;
	struct wire_run run;
	struct wire_event event;
	struct wire_copy copy;
	struct wire_copied copied;
	struct wire_interrupt interrupt;
	struct wire_revoke revoke;
	struct wire_mm_free mm_free;
	struct wire_clock_stop clock_stop;
	struct wire_discard discard;
	struct wire_dsm dsm;
	uint8_t bytes[WIRE_GRANT_LENGTH_MAX + 8];
};

static union any m;

static void begin(enum wire_type type, size_t length)
{
	memset(&m, 0, sizeof(m));
	m.hdr.type = type;
	m.hdr.length = length;
}

static void make_hello(void)
{
	begin(WIRE_HELLO, sizeof(m.hello));
	m.hello.magic = WIRE_MAGIC;
	m.hello.version = WIRE_VERSION;
	m.hello.purpose = WIRE_PURPOSE_CPU;
	m.hello.node = WIRE_NODES_MAX - 1;
	m.hello.cpu = WIRE_CPUS_MAX - 1;
	memset(m.hello.machine, 0xa5, sizeof(m.hello.machine));
}

static void make_hello_control(void)
{
	make_hello();
	m.hello.purpose = WIRE_PURPOSE_CONTROL;
	m.hello.node = 0xffff;
	m.hello.cpu = 0;
}

static void make_welcome(void)
{
	begin(WIRE_WELCOME, sizeof(m.hdr));
}

static void make_refuse(void)
{
	begin(WIRE_REFUSE, sizeof(m.refuse));
	memset(m.refuse.reason, 'x', sizeof(m.refuse.reason) - 1);
}

static void make_run_small(void)
{
	begin(WIRE_RUN, sizeof(m.run));
	m.hdr.seq = 7;
	m.run.mm = ~0ULL;
}

static struct wire_map *run_map(unsigned i)
{
	return (struct wire_map *)(m.bytes + sizeof(m.run)) + i;
}

static void make_run_large(void)
{
	unsigned i;

	begin(WIRE_RUN, sizeof(m.run) + WIRE_MAPS_MAX * sizeof(struct wire_map) + WIRE_FP_MAX);
	m.hdr.seq = ~0ULL;
	m.run.flags = WIRE_RUN_FP | WIRE_RUN_SINGLESTEP;
	m.run.map_count = WIRE_MAPS_MAX;
	m.run.fp_length = WIRE_FP_MAX;
	for (i = 0; i < WIRE_MAPS_MAX; i++)
		*run_map(i) = (struct wire_map){ .addr = i << 12, .pfn = i, .pages = 1, .prot = i % 8 };
	for (i = 0; i < WIRE_MAPS_MAX; i += 8)
		run_map(i)->pfn = 0;
}

static void make_run_remove_all(void)
{
	begin(WIRE_RUN, sizeof(m.run) + sizeof(struct wire_map));
	m.run.map_count = 1;
	run_map(0)->pages = WIRE_MAP_ALL_PAGES;
}

static void make_run_actions(void)
{
	begin(WIRE_RUN, sizeof(m.run) + WIRE_SIGNALS * sizeof(struct wire_action));
	m.run.flags = WIRE_RUN_ACTIONS;
}

static void make_event_small(void)
{
	begin(WIRE_EVENT, sizeof(m.event));
	m.hdr.seq = 7;
	m.event.signal = 64;
}

static void make_event_large(void)
{
	begin(WIRE_EVENT, sizeof(m.event) + WIRE_FP_MAX);
	m.event.flags = WIRE_RUN_FP;
	m.event.fp_length = WIRE_FP_MAX;
}

static void make_event_argument(void)
{
	begin(WIRE_EVENT, sizeof(m.event) + 40);
	m.event.signal = 31;
	m.event.argument = (struct wire_segment){ .pfn = 9, .offset = 4000, .length = 33 };
}

static struct wire_segment *copy_segment(unsigned i)
{
	return (struct wire_segment *)(m.bytes + sizeof(m.copy)) + i;
}

static void make_copy_small(void)
{
	begin(WIRE_COPY, sizeof(m.copy) + sizeof(struct wire_segment));
	m.copy.segment_count = 1;
	*copy_segment(0) = (struct wire_segment){ .pfn = (1ULL << 36) - 1, .offset = 4095, .length = 1 };
}

static void make_copy_page(void)
{
	begin(WIRE_COPY, sizeof(m.copy) + 2 * sizeof(struct wire_segment));
	m.copy.flags = WIRE_COPY_PAGE;
	m.copy.segment_count = 2;
	for (unsigned i = 0; i < 2; i++)
		*copy_segment(i) = (struct wire_segment){ .pfn = i, .length = WIRE_PAGE_SIZE };
}

static void make_copy_large(void)
{
	unsigned i;

	begin(WIRE_COPY, sizeof(m.copy) + WIRE_SEGMENTS_MAX * sizeof(struct wire_segment) + WIRE_COPY_MAX);
	m.hdr.seq = ~0ULL;
	m.copy.flags = WIRE_COPY_WRITE;
	m.copy.segment_count = WIRE_SEGMENTS_MAX;
	for (i = 0; i < WIRE_SEGMENTS_MAX; i++)
		*copy_segment(i) = (struct wire_segment){ .pfn = i, .length = WIRE_COPY_MAX / WIRE_SEGMENTS_MAX };
}

static void make_copied_small(void)
{
	begin(WIRE_COPIED, sizeof(m.copied));
	m.copied.done = WIRE_SEGMENTS_MAX;
}

static void make_copied_large(void)
{
	begin(WIRE_COPIED, sizeof(m.copied) + WIRE_COPY_MAX);
	m.copied.bytes = WIRE_COPY_MAX - 7;
}

static void make_interrupt(void)
{
	begin(WIRE_INTERRUPT, sizeof(m.interrupt));
	m.hdr.seq = 3;
	m.interrupt.cpu = WIRE_CPUS_MAX - 1;
}

static void make_revoke(void)
{
	begin(WIRE_REVOKE, sizeof(m.revoke));
	m.hdr.seq = 3;
	m.revoke.end = 1ULL << 47;
}

static void make_mm_free(void)
{
	begin(WIRE_MM_FREE, sizeof(m.mm_free));
}

static void make_clock_stop(void)
{
	begin(WIRE_CLOCK_STOP, sizeof(m.clock_stop));
	m.hdr.seq = 9;
	m.clock_stop.generation = ~0u;
}

static struct wire_range *discard_range(unsigned i)
{
	return (struct wire_range *)(m.bytes + sizeof(m.discard)) + i;
}

static void make_discard_small(void)
{
	begin(WIRE_DISCARD, sizeof(m.discard) + sizeof(struct wire_range));
	m.hdr.seq = 3;
	m.discard.range_count = 1;
	discard_range(0)->count = 1;
}

static void make_discard_large(void)
{
	unsigned i;

	begin(WIRE_DISCARD, sizeof(m.discard) + WIRE_RANGES_MAX * sizeof(struct wire_range));
	m.discard.range_count = WIRE_RANGES_MAX;
	for (i = 0; i < WIRE_RANGES_MAX; i++)
		*discard_range(i) = (struct wire_range){ .pfn = i, .count = i + 1 };
}

static void make_ack(void)
{
	begin(WIRE_ACK, sizeof(m.hdr));
	m.hdr.seq = 3;
}

static void make_get(void)
{
	begin(WIRE_GET, sizeof(m.dsm));
	m.dsm.pfn = 1234;
	m.dsm.state = 2;
	m.dsm.requester = WIRE_NODES_MAX - 1;
}

static void make_invalidate(void)
{
	begin(WIRE_INVALIDATE, sizeof(m.dsm));
}

static void make_grant_zero(void)
{
	begin(WIRE_GRANT, sizeof(m.dsm));
	m.dsm.state = 1;
	m.dsm.payload = WIRE_PAYLOAD_ZERO;
}

static void make_grant_page(void)
{
	begin(WIRE_GRANT, sizeof(m.dsm) + WIRE_PAGE_SIZE);
	m.dsm.state = 2;
	m.dsm.payload = WIRE_PAYLOAD_PAGE;
	memset(m.bytes + sizeof(m.dsm), 0xee, WIRE_PAGE_SIZE);
}

static void make_grant_pages(void)
{
	begin(WIRE_GRANT, sizeof(m.dsm) + 3 * WIRE_PAGE_SIZE);
	m.dsm.state = 1;
	m.dsm.payload = WIRE_PAYLOAD_PAGE;
	m.dsm.more = 2;
}

static void make_done_many(void)
{
	begin(WIRE_DONE, sizeof(m.dsm));
	m.dsm.more = WIRE_FRAMES_MAX - 1;
}

static const struct {
	const char *name;
	void (*make)(void);
	int purpose;		/* 0: any; DSM stands for BULK too */
} good[] = {
	{ "HELLO", make_hello, 0 },
	{ "HELLO control", make_hello_control, 0 },
	{ "WELCOME", make_welcome, 0 },
	{ "REFUSE", make_refuse, 0 },
	{ "RUN small", make_run_small, WIRE_PURPOSE_CPU },
	{ "RUN large", make_run_large, WIRE_PURPOSE_CPU },
	{ "RUN remove all", make_run_remove_all, WIRE_PURPOSE_CPU },
	{ "EVENT small", make_event_small, WIRE_PURPOSE_CPU },
	{ "EVENT large", make_event_large, WIRE_PURPOSE_CPU },
	{ "EVENT argument", make_event_argument, WIRE_PURPOSE_CPU },
	{ "COPY small", make_copy_small, WIRE_PURPOSE_CPU },
	{ "COPY large", make_copy_large, WIRE_PURPOSE_CPU },
	{ "COPY page", make_copy_page, WIRE_PURPOSE_CPU },
	{ "COPIED small", make_copied_small, WIRE_PURPOSE_CPU },
	{ "COPIED large", make_copied_large, WIRE_PURPOSE_CPU },
	{ "INTERRUPT", make_interrupt, WIRE_PURPOSE_MM },
	{ "REVOKE", make_revoke, WIRE_PURPOSE_MM },
	{ "MM_FREE", make_mm_free, WIRE_PURPOSE_MM },
	{ "CLOCK_STOP", make_clock_stop, WIRE_PURPOSE_MM },
	{ "DISCARD small", make_discard_small, WIRE_PURPOSE_MM },
	{ "DISCARD large", make_discard_large, WIRE_PURPOSE_MM },
	{ "ACK", make_ack, WIRE_PURPOSE_MM },
	{ "GET", make_get, WIRE_PURPOSE_DSM },
	{ "INVALIDATE", make_invalidate, WIRE_PURPOSE_DSM },
	{ "GRANT zero", make_grant_zero, WIRE_PURPOSE_DSM },
	{ "GRANT page", make_grant_page, WIRE_PURPOSE_DSM },
	{ "GRANT pages", make_grant_pages, WIRE_PURPOSE_DSM },
	{ "DONE many", make_done_many, WIRE_PURPOSE_DSM },
};

#define GOOD_COUNT (sizeof(good) / sizeof(good[0]))

/* The check sees a copy of exactly `length` bytes, so that a sanitizer sees it read beyond them. */
static const char *check_copy(size_t length, int purpose)
{
	void *copy = malloc(length);
	const char *why;

	memcpy(copy, &m, length);
	why = wire_check(copy, length, purpose);
	free(copy);
	return why;
}

static void good_messages(void **state)
{
	unsigned i;
	int purpose;

	(void)state;
	for (i = 0; i < GOOD_COUNT; i++) {
		for (purpose = 1; purpose <= PURPOSES; purpose++) {
			bool expected = !good[i].purpose || good[i].purpose == purpose ||
					(good[i].purpose == WIRE_PURPOSE_DSM && purpose == WIRE_PURPOSE_BULK);
			const char *why;

			good[i].make();
			why = check_copy(m.hdr.length, purpose);
			if (!why != expected)
				fail_msg("%s on channel %d: %s", good[i].name, purpose,
					 why ? why : "accepted");
		}
	}
}

/* A message that was cut, grown, or lies about its length. */
static void wrong_lengths(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < GOOD_COUNT; i++) {
		int purpose = good[i].purpose ? good[i].purpose : WIRE_PURPOSE_CPU;
		size_t full, length;

		good[i].make();
		full = m.hdr.length;
		for (length = sizeof(m.hdr); length < full; length++)
			if (!check_copy(length, purpose))
				fail_msg("%s cut to %zu bytes was accepted", good[i].name, length);
		if (full < WIRE_LENGTH_MAX)
			assert_non_null(check_copy(full + 8, purpose));
		for (length = 0; length <= WIRE_LENGTH_MAX; length++) {
			m.hdr.length = length;
			if (length >= sizeof(m.hdr) && length != full && !check_copy(length, purpose))
				fail_msg("%s claiming %zu bytes was accepted", good[i].name, length);
			if (length < sizeof(m.hdr))
				assert_non_null(wire_check_length(&m.hdr, purpose));
		}
		m.hdr.length = 0xffffffff;
		assert_non_null(wire_check_length(&m.hdr, purpose));
		m.hdr.length = (m.hdr.type == WIRE_GRANT ? WIRE_GRANT_LENGTH_MAX : WIRE_LENGTH_MAX) + 8;
		assert_non_null(wire_check_length(&m.hdr, purpose));
	}
}

static void unknown_types(void **state)
{
	int type, purpose;

	(void)state;
	for (type = 0; type <= 0xffff; type++) {
		if ((type >= WIRE_HELLO && type <= WIRE_REFUSE) || (type >= WIRE_RUN && type <= WIRE_COPIED) ||
		    (type >= WIRE_INTERRUPT && type <= WIRE_ACK) || (type >= WIRE_GET && type <= WIRE_DONE))
			continue;
		begin(type, 64);
		for (purpose = 1; purpose <= PURPOSES; purpose++)
			assert_non_null(wire_check(&m, 64, purpose));
	}
}

/* One assignment that must turn a good message into a refused one (BAD) or leave it good (FINE). */
struct step {
	const char *text;
	void (*make)(void);
	void (*change)(void);
	bool fine;
};

#define BAD(make, statement)	{ #statement, make, ({ void f(void) { statement; } f; }), false }
#define FINE(make, statement)	{ #statement, make, ({ void f(void) { statement; } f; }), true }

static void check_steps(const struct step *steps, size_t count, int purpose)
{
	size_t i;

	for (i = 0; i < count; i++) {
		const char *why;

		steps[i].make();
		steps[i].change();
		why = check_copy(m.hdr.length, purpose);
		if (!why != steps[i].fine)
			fail_msg("after `%s`: %s", steps[i].text, why ? why : "accepted");
	}
}

#define CHECK_STEPS(steps, purpose) check_steps(steps, sizeof(steps) / sizeof(steps[0]), purpose)

static void fields_of_every_channel(void **state)
{
	const struct step steps[] = {
		BAD(make_hello, m.hdr.reserved = 1),
		BAD(make_hello, m.hdr.seq = 1),
		BAD(make_welcome, m.hdr.seq = 1),
		BAD(make_hello, m.hello.magic ^= 1),
		BAD(make_hello, m.hello.version++),
		BAD(make_hello, m.hello.version--),
		BAD(make_hello, m.hello.purpose = 0),
		BAD(make_hello, m.hello.purpose = 5),
		BAD(make_hello, m.hello.node = WIRE_NODES_MAX),
		BAD(make_hello, m.hello.node = 0xffff),
		BAD(make_hello, m.hello.cpu = WIRE_CPUS_MAX),
		BAD(make_hello, m.hello.purpose = WIRE_PURPOSE_MM),
		BAD(make_hello, m.hello.reserved = 1),
		FINE(make_hello, m.hello.cpu = 0),
		BAD(make_hello_control, m.hello.node = 0xfffe),
		BAD(make_hello_control, m.hello.cpu = 1),
		FINE(make_hello_control, m.hello.node = 3),
		BAD(make_refuse, m.refuse.reason[WIRE_REASON_MAX - 1] = 'x'),
		BAD(make_refuse, m.refuse.reason[5] = '\n'),
		BAD(make_refuse, m.refuse.reason[5] = 0x1b),
		BAD(make_refuse, m.refuse.reason[5] = 0x7f),
		FINE(make_refuse, m.refuse.reason[5] = 0),
		FINE(make_refuse, m.refuse.reason[0] = 0),
	};

	(void)state;
	CHECK_STEPS(steps, WIRE_PURPOSE_CPU);
}

static void fields_of_cpu(void **state)
{
	const struct step steps[] = {
		BAD(make_run_small, m.hdr.reserved = 1),
		BAD(make_run_small, m.run.flags = 512),
		BAD(make_run_small, m.run.flags = WIRE_RUN_ACTIONS),
		FINE(make_run_actions, m.run.flags |= WIRE_RUN_GATES),
		BAD(make_run_actions, m.run.flags = 0),
		BAD(make_run_actions, m.run.flags |= WIRE_RUN_LOADED),
		BAD(make_run_actions, m.run.flags |= WIRE_RUN_FP; m.run.fp_length = 1024; m.hdr.length += 1024),
		BAD(make_run_actions, m.hdr.length -= 8),
		FINE(make_run_small, m.run.flags = WIRE_RUN_OTHER_TIME),
		FINE(make_run_small, m.run.flags = WIRE_RUN_GATES),
		FINE(make_run_small, m.run.flags = WIRE_RUN_APART),
		FINE(make_run_small, m.run.flags = WIRE_RUN_ALONE),
		BAD(make_run_small, m.run.clock.reserved = 1),
		BAD(make_run_small, m.run.clock.shift = 33),
		FINE(make_run_small, m.run.clock.shift = 32),
		FINE(make_run_small, m.run.flags = WIRE_RUN_LOADED),
		FINE(make_run_small, m.run.flags = WIRE_RUN_LOADED | WIRE_RUN_STARTED),
		BAD(make_run_small, m.run.flags = WIRE_RUN_STARTED),
		FINE(make_run_remove_all, m.run.flags = WIRE_RUN_LOADED),
		BAD(make_run_remove_all, m.run.flags = WIRE_RUN_LOADED | WIRE_RUN_STARTED),
		BAD(make_run_large, m.run.flags |= WIRE_RUN_LOADED),
		FINE(make_run_small, m.run.flags = WIRE_RUN_SINGLESTEP),
		BAD(make_run_small, m.run.flags = WIRE_RUN_FP),
		BAD(make_run_small, m.run.fp_length = 512),
		BAD(make_run_small, m.run.map_count = 1),
		BAD(make_run_large, m.run.map_count = WIRE_MAPS_MAX + 1),
		BAD(make_run_large, m.run.map_count = 0xffff),
		BAD(make_run_large, m.run.map_count--),
		BAD(make_run_large, m.run.fp_length -= 8),
		BAD(make_run_large, m.run.fp_length += 8),
		BAD(make_run_large, m.run.flags &= ~WIRE_RUN_FP),
		BAD(make_run_large, run_map(9)->addr += 1),
		BAD(make_run_large, run_map(9)->addr = 1ULL << 47),
		FINE(make_run_large, run_map(9)->addr = (1ULL << 47) - 4096),
		BAD(make_run_large, run_map(9)->addr = (1ULL << 47) - 4096; run_map(9)->pages = 2),
		BAD(make_run_large, run_map(9)->addr = ~0xfffULL),
		BAD(make_run_large, run_map(9)->pages = 0),
		BAD(make_run_large, run_map(9)->pfn = 1ULL << 36),
		BAD(make_run_large, run_map(9)->pfn = (1ULL << 36) - 1; run_map(9)->pages = 2),
		FINE(make_run_large, run_map(9)->pfn = (1ULL << 36) - 2; run_map(9)->pages = 2),
		BAD(make_run_large, run_map(9)->prot = WIRE_MAP_WANTED),
		FINE(make_run_large, run_map(9)->prot = WIRE_MAP_WANTED | 1),
		BAD(make_run_large, run_map(9)->prot = WIRE_MAP_WANTED | 1; run_map(9)->pages = 2),
		BAD(make_run_large, run_map(9)->prot = WIRE_MAP_AHEAD),
		FINE(make_run_large, run_map(9)->prot = WIRE_MAP_AHEAD | 1; run_map(9)->pages = 2),
		BAD(make_run_large, run_map(9)->prot = WIRE_MAP_AHEAD | WIRE_MAP_WANTED | 1),
		BAD(make_run_large, run_map(9)->prot = 33),
		BAD(make_run_large, run_map(9)->prot = 0),
		BAD(make_run_large, run_map(WIRE_MAPS_MAX - 1)->pages = 0),
		FINE(make_run_remove_all, run_map(0)->addr = (1ULL << 47) - 4096),
		BAD(make_run_remove_all, run_map(0)->pfn = 1),
		FINE(make_run_remove_all, run_map(0)->prot = 1),
		BAD(make_run_remove_all, run_map(0)->prot = 1; run_map(0)->addr = (1ULL << 47) - 4096),
		BAD(make_run_small, m.run.reserved = 1),
		BAD(make_copy_small, m.copy.flags = 4),
		BAD(make_copy_small, m.copy.flags = WIRE_COPY_WRITE),
		BAD(make_copy_small, m.copy.flags = WIRE_COPY_PAGE),
		BAD(make_copy_page, m.copy.flags = WIRE_COPY_PAGE | WIRE_COPY_WRITE),
		BAD(make_copy_page, copy_segment(1)->length = 4088),
		BAD(make_copy_small, m.copy.segment_count = 0),
		BAD(make_copy_small, m.copy.segment_count = 2),
		BAD(make_copy_small, copy_segment(0)->length = 0),
		BAD(make_copy_small, copy_segment(0)->length = 2),
		BAD(make_copy_small, copy_segment(0)->offset = 4096),
		BAD(make_copy_small, copy_segment(0)->pfn = 1ULL << 36),
		BAD(make_copy_small, copy_segment(0)->reserved = 1),
		BAD(make_copy_large, m.copy.flags = 0),
		BAD(make_copy_large, m.copy.segment_count = 0xffffffff),
		BAD(make_copy_large, copy_segment(3)->length += 8),
		FINE(make_copy_large, copy_segment(3)->length -= 7),
		BAD(make_copied_small, m.copied.done = WIRE_SEGMENTS_MAX + 1),
		BAD(make_copied_small, m.copied.bytes = 1),
		BAD(make_copied_small, m.copied.refused = 1),
		FINE(make_copied_small, m.copied.done = 0; m.copied.refused = 0xff),
		BAD(make_copied_small, m.copied.done = 0; m.copied.refused = 0x100),
		BAD(make_copied_large, m.copied.refused = 1),
		FINE(make_copy_large, m.copy.flags |= WIRE_COPY_UNANSWERED),
		BAD(make_copy_page, m.copy.flags |= WIRE_COPY_UNANSWERED),
		FINE(make_event_small, m.event.refused = 0xff),
		BAD(make_event_small, m.event.refused = 0x100),
		BAD(make_copied_large, m.copied.bytes = WIRE_COPY_MAX + 1),
		BAD(make_event_small, m.event.signal = 65),
		BAD(make_event_small, m.event.flags = WIRE_RUN_SINGLESTEP),
		BAD(make_event_small, m.event.flags = WIRE_RUN_FP),
		FINE(make_event_small, m.event.area = 0xffff),
		BAD(make_event_small, m.event.fp_length = 512),
		FINE(make_event_small, m.event.signal = 0),
		BAD(make_event_small, m.event.argument.pfn = 1),
		BAD(make_event_argument, m.event.argument.length = 41),
		BAD(make_event_argument, m.event.argument.offset = 4070),
		BAD(make_event_argument, m.event.argument.pfn = 1ull << 36),
		BAD(make_event_argument, m.event.argument.reserved = 1),
		BAD(make_event_argument, m.event.argument.offset = 0; m.event.argument.length = 520; m.hdr.length = sizeof(m.event) + 520),
		FINE(make_event_argument, m.event.argument.length = 40),
		BAD(make_event_large, m.event.fp_length = 0),
		BAD(make_event_large, m.event.fp_length = 504; m.hdr.length = sizeof(m.event) + 504),
		FINE(make_event_large, m.event.fp_length = 512; m.hdr.length = sizeof(m.event) + 512),
		BAD(make_event_large, m.event.fp_length = 516; m.hdr.length = sizeof(m.event) + 516),
	};

	(void)state;
	CHECK_STEPS(steps, WIRE_PURPOSE_CPU);
}

static void fields_of_mm(void **state)
{
	const struct step steps[] = {
		BAD(make_interrupt, m.interrupt.cpu = WIRE_CPUS_MAX),
		BAD(make_interrupt, m.interrupt.reserved = 1),
		BAD(make_revoke, m.revoke.start = 1),
		BAD(make_revoke, m.revoke.end = 4097),
		BAD(make_revoke, m.revoke.end = 0),
		BAD(make_revoke, m.revoke.start = m.revoke.end),
		BAD(make_revoke, m.revoke.end += 4096),
		BAD(make_revoke, m.revoke.end = ~0xfffULL),
		FINE(make_revoke, m.revoke.start = m.revoke.end - 4096),
		BAD(make_mm_free, m.hdr.seq = 1),
		BAD(make_clock_stop, m.clock_stop.reserved = 1),
		BAD(make_discard_small, m.discard.reserved = 1),
		BAD(make_discard_small, m.discard.range_count = 0),
		BAD(make_discard_small, m.discard.range_count = 2),
		BAD(make_discard_small, m.discard.range_count = 0; m.hdr.length = sizeof(m.discard)),
		BAD(make_discard_large, m.discard.range_count = 0xffffffff),
		BAD(make_discard_large, m.discard.range_count = WIRE_RANGES_MAX + 1),
		BAD(make_discard_large, discard_range(WIRE_RANGES_MAX - 1)->count = 0),
		BAD(make_discard_large, discard_range(3)->pfn = 1ULL << 36),
		BAD(make_discard_large, discard_range(3)->count = ~0ULL),
		FINE(make_discard_small, discard_range(0)->count = 1ULL << 36),
		BAD(make_discard_small, discard_range(0)->count = (1ULL << 36) + 1),
	};

	(void)state;
	CHECK_STEPS(steps, WIRE_PURPOSE_MM);
}

static void fields_of_dsm(void **state)
{
	const struct step steps[] = {
		BAD(make_get, m.hdr.seq = 1),
		BAD(make_get, m.dsm.pfn = 1ULL << 36),
		FINE(make_get, m.dsm.pfn = (1ULL << 36) - 1),
		BAD(make_get, m.dsm.state = 0),
		BAD(make_get, m.dsm.state = 3),
		BAD(make_get, m.dsm.requester = WIRE_NODES_MAX),
		BAD(make_get, m.dsm.payload = WIRE_PAYLOAD_ZERO),
		BAD(make_get, m.dsm.reserved[0] = 1),
		BAD(make_get, m.dsm.reserved[3] = 1),
		FINE(make_get, m.dsm.more = 255),
		FINE(make_get, m.dsm.pfn = (1ULL << 36) - 256; m.dsm.more = 255),
		BAD(make_get, m.dsm.pfn = (1ULL << 36) - 255; m.dsm.more = 255),
		FINE(make_grant_zero, m.dsm.more = 255),
		BAD(make_get, m.dsm.payload = WIRE_PAYLOAD_PAGE; m.hdr.length += WIRE_PAGE_SIZE),
		FINE(make_get, m.dsm.state = 1),
		BAD(make_invalidate, m.dsm.state = 3),
		BAD(make_invalidate, m.dsm.payload = WIRE_PAYLOAD_ZERO),
		BAD(make_grant_zero, m.dsm.state = 0),
		BAD(make_grant_zero, m.dsm.payload = 3),
		BAD(make_grant_zero, m.dsm.payload = WIRE_PAYLOAD_PAGE),
		FINE(make_grant_zero, m.dsm.payload = WIRE_PAYLOAD_NONE),
		BAD(make_grant_page, m.dsm.payload = WIRE_PAYLOAD_ZERO),
		BAD(make_grant_page, m.dsm.payload = WIRE_PAYLOAD_NONE),
		BAD(make_grant_page, m.hdr.length -= 8),
		BAD(make_grant_page, m.hdr.length += 8),
		BAD(make_grant_page, m.dsm.more = 1),
		BAD(make_grant_page, m.hdr.length += WIRE_PAGE_SIZE),
		FINE(make_grant_page, m.dsm.more = 1; m.hdr.length += WIRE_PAGE_SIZE),
		FINE(make_grant_pages, m.dsm.more = WIRE_PAGES_MAX - 1; m.hdr.length = WIRE_GRANT_LENGTH_MAX),
		BAD(make_grant_pages, m.dsm.more = WIRE_PAGES_MAX; m.hdr.length = WIRE_GRANT_LENGTH_MAX),
		BAD(make_grant_pages, m.dsm.more = 1),
	};

	(void)state;
	CHECK_STEPS(steps, WIRE_PURPOSE_DSM);
}

/* Random bits in good messages, and random bytes with a plausible header. */
static void noise(void **state)
{
	unsigned seed = (unsigned)time(NULL), round, i;

	(void)state;
	print_message("noise seed %u\n", seed);
	srandom(seed);
	for (round = 0; round < 200000; round++) {
		size_t length;

		if (round % 2) {
			good[random() % GOOD_COUNT].make();
			for (i = 0; i < 3; i++)
				m.bytes[random() % 64] ^= 1u << random() % 8;
		} else {
			for (i = 0; i < 512; i++)
				m.bytes[i] = random();
			m.hdr.type = random() % 64;
			m.hdr.length = random() % 512 & ~7u;
			m.hdr.reserved = 0;
		}
		length = m.hdr.length % (sizeof(m) + 1);
		if (length >= sizeof(m.hdr))
			check_copy(length, 1 + random() % PURPOSES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_messages),
		cmocka_unit_test(wrong_lengths),
		cmocka_unit_test(unknown_types),
		cmocka_unit_test(fields_of_every_channel),
		cmocka_unit_test(fields_of_cpu),
		cmocka_unit_test(fields_of_mm),
		cmocka_unit_test(fields_of_dsm),
		cmocka_unit_test(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
