// SPDX-License-Identifier: GPL-2.0
/*
 * The coherence core alone: one instance, its peers and its pager played by the test.
 *
 * A case is a dialogue about one frame: what goes in, what must come out.  There are four nodes; the
 * instance is node 0, frames 0..7 are at home there, 100..107 on node 1 and so on.
 *
 *   in   "acquire S"  "discard"  "tick"      entry functions; S Shared, E Exclusive, I Invalid
 *        "2 GET S for 2"                     a message from node 2 on behalf of node 2
 *        "2 GRANT E for 0 page"              page, zero, or nothing: what it carries
 *        "at 500"                            it is 500 ns now
 *        "memory zero"  "memory page"        what revoke finds from now on
 *   out  "later" "now" "due 1500" "never"    what the entry function returned; nothing for a message
 *        "refused: REASON"                   -EPROTO
 *        "to 1 FETCH S for 2"                a message to node 1
 *        "revoke S read"  "revoke I"         with or without reading the content
 *        "install E page"  "ready E"  "discarded"
 *   The outputs of one input are joined by ", ".
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static long callocs_until_failure = -1, callocs;

static void *counted_calloc(size_t count, size_t size)
{
	if (!callocs_until_failure)
		return NULL;
	if (callocs_until_failure > 0)
		callocs_until_failure--;
	callocs++;
	return calloc(count, size);
}

/* The core gets all its memory in this file, so here it is, in place of the library's. */
#define calloc counted_calloc
#include "../../dsm/frame.c"
#undef calloc

#include "../../dsm/dsm.h"

#define RESIDENCE_NS	1000
#define STEPS_MAX	24
#define HOME_FRAMES	8

static const char *const type_names[] = { "GET", "FETCH", "INVALIDATE", "ACK", "GRANT", "DONE" };
static const char state_names[] = "ISE";
static const char *const payload_names[] = { "", " zero", " page" };

static const uint8_t some_page[DSM_PAGE_SIZE] = { 1, 2, 3 };

struct fixture {
	struct dsm *d;
	char log[1024];
	bool memory_zero;
	uint64_t now_ns;
	unsigned long sent, pages_sent, readies;
};

static void note(struct fixture *f, const char *format, ...)
{
	size_t used = strlen(f->log);
	va_list args;

	if (used)
		used += snprintf(f->log + used, sizeof(f->log) - used, ", ");
	va_start(args, format);
	vsnprintf(f->log + used, sizeof(f->log) - used, format, args);
	va_end(args);
}

static void op_send(void *ctx, unsigned to, const struct dsm_msg *msg)
{
	struct fixture *f = ctx;
	char state[4] = "";

	assert_int_not_equal(to, 0);
	assert_int_equal(msg->page != NULL, msg->payload == DSM_PAYLOAD_PAGE);
	if (msg->page)
		assert_memory_equal(msg->page, some_page, DSM_PAGE_SIZE);
	if (msg->state)
		snprintf(state, sizeof(state), " %c", state_names[msg->state]);
	note(f, "to %u %s%s for %u%s", to, type_names[msg->type], state, msg->requester,
	     payload_names[msg->payload]);
	f->sent++;
	f->pages_sent += msg->page != NULL;
}

static enum dsm_payload op_revoke(void *ctx, uint64_t pfn, enum dsm_state have, enum dsm_state keep,
				 const void **page)
{
	struct fixture *f = ctx;

	(void)pfn, (void)have;
	note(f, "revoke %c%s", state_names[keep], page ? " read" : "");
	if (!page)
		return DSM_PAYLOAD_NONE;
	if (f->memory_zero)
		return DSM_PAYLOAD_ZERO;
	*page = some_page;
	return DSM_PAYLOAD_PAGE;
}

static void op_install(void *ctx, uint64_t pfn, enum dsm_state state,
		       enum dsm_payload payload, const void *page)
{
	(void)pfn;
	if (payload == DSM_PAYLOAD_PAGE)
		assert_memory_equal(page, some_page, DSM_PAGE_SIZE);
	else
		assert_null(page);
	note(ctx, "install %c%s", state_names[state], payload_names[payload]);
}

static void op_ready(void *ctx, uint64_t pfn, enum dsm_state state)
{
	struct fixture *f = ctx;

	(void)pfn;
	note(f, "ready %c", state_names[state]);
	f->readies++;
}

static void op_discarded(void *ctx, uint64_t pfn)
{
	(void)pfn;
	note(ctx, "discarded");
}

static const struct dsm_ops ops = {
	.send = op_send, .revoke = op_revoke, .install = op_install, .ready = op_ready, .discarded = op_discarded,
};

static struct dsm_config config_of(struct fixture *f, uint64_t home_frames)
{
	struct dsm_config config = { .self = 0, .nodes = 4, .residence_ns = 0, .ops = &ops, .ctx = f };

	for (unsigned i = 0; i < config.nodes; i++)
		config.home[i] = (struct dsm_range){ .start = i * 100, .count = home_frames };
	return config;
}

static void begin(struct fixture *f, uint64_t residence_ns)
{
	struct dsm_config config = config_of(f, HOME_FRAMES);

	*f = (struct fixture){ 0 };
	config.residence_ns = residence_ns;
	f->d = dsm_new(&config);
	assert_non_null(f->d);
}

static void end(struct fixture *f)
{
	dsm_free(f->d);
}

static unsigned index_of(const char *word, const char *const *names, unsigned count)
{
	unsigned i;

	for (i = 0; i < count && strcmp(word, names[i]); i++)
		;
	assert_in_range(i, 0, count - 1);
	return i;
}

static enum dsm_state state_of(char letter)
{
	const char *at = strchr(state_names, letter);

	assert_true(at && *at);
	return at - state_names;
}

/* "GET S for 2", "GRANT E for 0 page", "DONE for 1" */
static struct dsm_msg parse(const char *text, uint64_t pfn)
{
	struct dsm_msg msg = { .pfn = pfn };
	char type[16], state = 'I', payload[8] = " ";

	if (sscanf(text, "%15s for %u", type, &msg.requester) != 2)
		assert_in_range(sscanf(text, "%15s %c for %u %6s", type, &state, &msg.requester, payload + 1), 3, 4);
	if (!payload[1])
		payload[0] = '\0';
	msg.type = index_of(type, type_names, 6);
	msg.state = state_of(state);
	msg.payload = index_of(payload, payload_names, 3);
	msg.page = msg.payload == DSM_PAYLOAD_PAGE ? some_page : NULL;
	return msg;
}

static void receive(struct fixture *f, unsigned from, const struct dsm_msg *msg)
{
	const char *why = NULL;
	int ret = dsm_receive(f->d, from, msg, f->now_ns, &why);

	if (!ret) {
		assert_null(why);
		return;
	}
	assert_int_equal(ret, -EPROTO);
	assert_string_equal(f->log, "");
	note(f, "refused: %s", why);
}

static void tick(struct fixture *f)
{
	uint64_t due_ns = dsm_tick(f->d, f->now_ns);

	if (due_ns == UINT64_MAX)
		note(f, "never");
	else
		note(f, "due %" PRIu64, due_ns);
}

static void feed(struct fixture *f, const char *in, uint64_t pfn)
{
	static const char *const returned[] = { "now", "later" };
	struct dsm_msg msg;
	char letter, word[8];
	unsigned from;
	int skip;

	f->log[0] = '\0';
	if (sscanf(in, "at %" SCNu64, &f->now_ns) == 1)
		return;
	if (sscanf(in, "memory %7s", word) == 1) {
		f->memory_zero = !strcmp(word, "zero");
	} else if (sscanf(in, "acquire %c", &letter) == 1) {
		note(f, "%s", returned[dsm_acquire(f->d, pfn, state_of(letter), f->now_ns)]);
	} else if (!strcmp(in, "discard")) {
		note(f, "%s", returned[dsm_discard(f->d, pfn, f->now_ns)]);
	} else if (!strcmp(in, "tick")) {
		tick(f);
	} else {
		assert_int_equal(sscanf(in, "%u %n", &from, &skip), 1);
		msg = parse(in + skip, pfn);
		receive(f, from, &msg);
	}
}

struct step { const char *in, *out; };

struct dialogue {
	const char *name;
	uint64_t pfn;
	uint64_t residence_ns;
	enum dsm_state held_at_end;
	struct step steps[STEPS_MAX];
};

static void talk(struct fixture *f, const struct dialogue *c)
{
	for (const struct step *s = c->steps; s->in; s++) {
		feed(f, s->in, c->pfn);
		if (strcmp(f->log, s->out) || dsm_check(f->d))
			fail_msg("%s: \"%s\"\n  gives    \"%s\"\n  expected \"%s\"\n  invariant: %s", c->name, s->in,
				 f->log, s->out, dsm_check(f->d));
	}
	if (dsm_state(f->d, c->pfn) != c->held_at_end)
		fail_msg("%s: holds %c at the end", c->name, state_names[dsm_state(f->d, c->pfn)]);
}

static void talk_all(const struct dialogue *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct fixture f;

		begin(&f, cases[i].residence_ns);
		talk(&f, &cases[i]);
		end(&f);
	}
}

#define TALK(cases) talk_all(cases, sizeof(cases) / sizeof((cases)[0]))

/* Dialogues that many cases begin with. */
#define NODE1_READS	{ "1 GET S for 1", "revoke S read, to 1 GRANT S for 1 page" }, { "1 DONE for 1", "" }
#define NODE2_READS	{ "2 GET S for 2", "revoke S read, to 2 GRANT S for 2 page" }, { "2 DONE for 2", "" }
#define NODE1_WRITES	{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" }, { "1 DONE for 1", "" }
#define HOLD_SHARED	{ "acquire S", "to 1 GET S for 0, later" }, \
			{ "2 GRANT S for 0 page", "install S page, ready S, to 1 DONE for 0" }
#define HOLD_EXCLUSIVE	{ "acquire E", "to 1 GET E for 0, later" }, \
			{ "2 GRANT E for 0 page", "install E page, ready E, to 1 DONE for 0" }

/* Every edge of cache.c, for a frame at home on node 1. */
static void test_cache(void **state)
{
	static const struct dialogue cases[] = {
		{ "read miss", 100, 0, DSM_SHARED, {
			HOLD_SHARED, { "acquire S", "now" } } },
		{ "read miss of a zero frame", 100, 0, DSM_SHARED, {
			{ "acquire S", "to 1 GET S for 0, later" },
			{ "1 GRANT S for 0 zero", "install S zero, ready S, to 1 DONE for 0" } } },
		{ "write miss", 100, 0, DSM_EXCLUSIVE, {
			HOLD_EXCLUSIVE, { "acquire S", "now" }, { "acquire E", "now" } } },
		{ "upgrade", 100, 0, DSM_EXCLUSIVE, {
			HOLD_SHARED,
			{ "acquire E", "to 1 GET E for 0, later" },
			{ "acquire S", "now" },
			{ "1 GRANT E for 0", "install E, ready E, to 1 DONE for 0" } } },
		{ "upgrade overtaken by a writer", 100, 0, DSM_EXCLUSIVE, {
			HOLD_SHARED,
			{ "acquire E", "to 1 GET E for 0, later" },
			{ "1 INVALIDATE for 3", "revoke I, to 1 ACK for 3" },
			{ "acquire S", "later" },
			{ "3 GRANT E for 0 page", "install E page, ready E, to 1 DONE for 0" } } },
		{ "upgrade overtaken by a writer that reads here", 100, 0, DSM_EXCLUSIVE, {
			HOLD_SHARED,
			{ "acquire E", "to 1 GET E for 0, later" },
			{ "1 FETCH E for 3", "revoke I read, to 3 GRANT E for 3 page" },
			{ "3 GRANT E for 0 page", "install E page, ready E, to 1 DONE for 0" } } },
		{ "the same wish twice", 100, 0, DSM_SHARED, {
			{ "acquire S", "to 1 GET S for 0, later" },
			{ "acquire S", "later" },
			{ "1 GRANT S for 0 page", "install S page, ready S, to 1 DONE for 0" } } },
		{ "a stronger wish waits for the first grant", 100, 0, DSM_EXCLUSIVE, {
			{ "acquire S", "to 1 GET S for 0, later" },
			{ "acquire E", "later" },
			{ "1 GRANT S for 0 page", "install S page, ready S, to 1 DONE for 0, to 1 GET E for 0" },
			{ "1 GRANT E for 0", "install E, ready E, to 1 DONE for 0" } } },
		{ "a weaker wish is met by the stronger", 100, 0, DSM_EXCLUSIVE, {
			{ "acquire E", "to 1 GET E for 0, later" },
			{ "acquire S", "later" },
			{ "1 GRANT E for 0 page", "install E page, ready E, to 1 DONE for 0" } } },
		{ "owner supplies a reader", 100, 0, DSM_SHARED, {
			HOLD_EXCLUSIVE, { "1 FETCH S for 3", "revoke S read, to 3 GRANT S for 3 page" } } },
		{ "owner supplies a zero frame", 100, 0, DSM_SHARED, {
			HOLD_EXCLUSIVE, { "memory zero", "" },
			{ "1 FETCH S for 1", "revoke S read, to 1 GRANT S for 1 zero" } } },
		{ "owner supplies a writer", 100, 0, DSM_INVALID, {
			HOLD_EXCLUSIVE, { "1 FETCH E for 3", "revoke I read, to 3 GRANT E for 3 page" } } },
		{ "reader supplies a reader", 100, 0, DSM_SHARED, {
			HOLD_SHARED, { "1 FETCH S for 3", "revoke S read, to 3 GRANT S for 3 page" } } },
		{ "reader supplies a writer", 100, 0, DSM_INVALID, {
			HOLD_SHARED, { "1 FETCH E for 3", "revoke I read, to 3 GRANT E for 3 page" } } },
		{ "reader is invalidated", 100, 0, DSM_INVALID, {
			HOLD_SHARED, { "1 INVALIDATE for 1", "revoke I, to 1 ACK for 1" } } },
		{ "owner is invalidated by a discard", 100, 0, DSM_INVALID, {
			HOLD_EXCLUSIVE, { "1 INVALIDATE for 1", "revoke I, to 1 ACK for 1" },
			{ "acquire S", "to 1 GET S for 0, later" } } },
	};

	(void)state;
	TALK(cases);
}

/* Every edge of directory.c, for a frame at home here. */
static void test_home(void **state)
{
	static const struct dialogue cases[] = {
		{ "the home starts Exclusive", 3, 0, DSM_EXCLUSIVE, {
			{ "acquire E", "now" }, { "tick", "never" } } },
		{ "Shared from Exclusive at home", 3, 0, DSM_SHARED, { NODE1_READS, { "acquire S", "now" } } },
		{ "Shared from Exclusive at home, zero", 3, 0, DSM_SHARED, {
			{ "memory zero", "" }, { "1 GET S for 1", "revoke S read, to 1 GRANT S for 1 zero" },
			{ "1 DONE for 1", "" } } },
		{ "Exclusive from Exclusive at home", 3, 0, DSM_INVALID, { NODE1_WRITES } },
		{ "Shared from Exclusive elsewhere: three hops", 3, 0, DSM_INVALID, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" },
			{ "2 DONE for 2", "" },
			{ "3 GET S for 3", "to 1 FETCH S for 3" } } },
		{ "Exclusive from Exclusive elsewhere: three hops", 3, 0, DSM_INVALID, {
			NODE1_WRITES,
			{ "2 GET E for 2", "to 1 FETCH E for 2" },
			{ "2 DONE for 2", "" },
			{ "1 GET S for 1", "to 2 FETCH S for 1" } } },
		{ "the home reads its frame back", 3, 0, DSM_SHARED, {
			NODE1_WRITES,
			{ "acquire S", "to 1 FETCH S for 0, later" },
			{ "1 GRANT S for 0 page", "install S page, ready S" } } },
		{ "the home takes its frame back", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "acquire E", "to 1 FETCH E for 0, later" },
			{ "1 GRANT E for 0 zero", "install E zero, ready E" } } },
		{ "the home reads, then wants to write", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "acquire S", "to 1 FETCH S for 0, later" },
			{ "acquire E", "later" },
			{ "1 GRANT S for 0 page", "install S page, ready S, to 1 INVALIDATE for 0" },
			{ "1 ACK for 0", "install E, ready E" } } },
		{ "upgrade of a reader moves no page", 3, 0, DSM_INVALID, {
			NODE1_READS, NODE2_READS,
			{ "1 GET E for 1", "to 2 INVALIDATE for 1, revoke I" },
			{ "2 ACK for 1", "to 1 GRANT E for 1" },
			{ "1 DONE for 1", "" } } },
		{ "upgrade of the home moves no page", 3, 0, DSM_EXCLUSIVE, {
			NODE1_READS, NODE2_READS,
			{ "acquire E", "to 1 INVALIDATE for 0, to 2 INVALIDATE for 0, later" },
			{ "2 ACK for 0", "" },
			{ "1 ACK for 0", "install E, ready E" } } },
		{ "Exclusive from Shared, the home supplies", 3, 0, DSM_INVALID, {
			NODE1_READS, NODE2_READS,
			{ "3 GET E for 3", "to 1 INVALIDATE for 3, to 2 INVALIDATE for 3" },
			{ "1 ACK for 3", "" },
			{ "2 ACK for 3", "revoke I read, to 3 GRANT E for 3 page" },
			{ "3 DONE for 3", "" } } },
		{ "Exclusive from Shared elsewhere, the lowest supplies", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" }, { "2 DONE for 2", "" },
			{ "acquire E", "to 2 INVALIDATE for 0, later" },
			{ "2 ACK for 0", "to 1 FETCH E for 0" },
			{ "1 GRANT E for 0 page", "install E page, ready E" } } },
		{ "requests are served in order", 3, 0, DSM_INVALID, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "3 GET S for 3", "" }, { "2 GET E for 2", "" }, { "acquire S", "later" },
			{ "1 DONE for 1", "to 1 FETCH S for 3" },
			{ "3 DONE for 3", "to 3 INVALIDATE for 2" },
			{ "3 ACK for 2", "to 1 FETCH E for 2" },
			{ "2 DONE for 2", "to 2 FETCH S for 0" } } },
		{ "a node's next GET may overtake its DONE", 3, 0, DSM_INVALID, {
			{ "1 GET S for 1", "revoke S read, to 1 GRANT S for 1 page" },
			{ "1 GET E for 1", "" },
			{ "1 DONE for 1", "revoke I, to 1 GRANT E for 1" },
			{ "1 DONE for 1", "" } } },
		{ "a node's next GET may overtake its acknowledgement", 3, 0, DSM_INVALID, {
			NODE1_READS,
			{ "2 GET E for 2", "to 1 INVALIDATE for 2" },
			{ "1 GET S for 1", "" },
			{ "1 ACK for 2", "revoke I read, to 2 GRANT E for 2 page" },
			{ "2 DONE for 2", "to 2 FETCH S for 1" } } },
		{ "an owner may want to write again while it supplies a reader", 3, 0, DSM_INVALID, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" },
			{ "1 GET E for 1", "" },
			{ "2 DONE for 2", "to 2 INVALIDATE for 1" },
			{ "2 ACK for 1", "to 1 GRANT E for 1" } } },
	};

	(void)state;
	TALK(cases);
}

static void test_discard(void **state)
{
	static const struct dialogue cases[] = {
		{ "the home alone holds it", 3, 0, DSM_EXCLUSIVE, {
			{ "discard", "revoke I, install E zero, now" }, { "acquire E", "now" } } },
		{ "an owner drops it", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "1 ACK for 0", "install E zero, discarded" } } },
		{ "readers and the home drop it", 3, 0, DSM_EXCLUSIVE, {
			NODE1_READS, NODE2_READS,
			{ "discard", "to 1 INVALIDATE for 0, to 2 INVALIDATE for 0, revoke I, later" },
			{ "1 ACK for 0", "" },
			{ "2 ACK for 0", "install E zero, discarded" } } },
		{ "requests before it see the content, after it zero", 3, 0, DSM_INVALID, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "2 GET S for 2", "" }, { "discard", "later" }, { "3 GET E for 3", "" },
			{ "1 DONE for 1", "to 1 FETCH S for 2" },
			{ "2 DONE for 2", "to 1 INVALIDATE for 0, to 2 INVALIDATE for 0" },
			{ "memory zero", "" }, { "1 ACK for 0", "" },
			{ "2 ACK for 0", "install E zero, discarded, revoke I read, to 3 GRANT E for 3 zero" } } },
		{ "an upgrade overtaken by it", 3, 0, DSM_INVALID, {
			NODE1_READS,
			{ "discard", "to 1 INVALIDATE for 0, revoke I, later" },
			{ "1 GET E for 1", "" }, { "memory zero", "" },
			{ "1 ACK for 0", "install E zero, discarded, revoke I read, to 1 GRANT E for 1 zero" } } },
		{ "the home reads behind it", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "acquire S", "later" },
			{ "1 ACK for 0", "install E zero, discarded, install E, ready E" } } },
		{ "the home writes behind it", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "acquire S", "later" }, { "acquire E", "later" },
			{ "1 ACK for 0", "install E zero, discarded, install E, ready E" } } },
		{ "twice", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "discard", "later" },
			{ "1 ACK for 0", "install E zero, discarded, revoke I, install E zero, discarded" } } },
	};

	(void)state;
	TALK(cases);
}

static void test_residence(void **state)
{
	static const struct dialogue cases[] = {
		{ "a writer keeps it", 3, RESIDENCE_NS, DSM_INVALID, {
			{ "at 5000", "" }, { "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "at 5300", "" }, { "1 DONE for 1", "" },
			{ "tick", "never" },
			{ "at 5400", "" }, { "2 GET S for 2", "" }, { "tick", "due 6000" },
			{ "at 5999", "" }, { "tick", "due 6000" },
			{ "at 6000", "" }, { "tick", "to 1 FETCH S for 2, never" } } },
		{ "a third of the time when another node granted", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_WRITES, { "at 2000", "" }, { "2 GET E for 2", "to 1 FETCH E for 2" },
			{ "at 2300", "" }, { "2 DONE for 2", "" }, { "1 GET E for 1", "" }, { "tick", "due 3100" } } },
		{ "far away it has been there long enough at DONE", 3, RESIDENCE_NS, DSM_INVALID, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "2 GET E for 2", "" }, { "at 1000", "" }, { "1 DONE for 1", "to 1 FETCH E for 2" } } },
		{ "and keeps it for a round trip", 3, RESIDENCE_NS, DSM_EXCLUSIVE, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "at 100000", "" }, { "1 DONE for 1", "" }, { "acquire E", "to 1 FETCH E for 0, later" },
			{ "1 GRANT E for 0 page", "install E page, ready E" },
			{ "1 GET E for 1", "" }, { "tick", "due 101000" },
			{ "at 101000", "" }, { "tick", "revoke I read, to 1 GRANT E for 1 page, never" },
			{ "at 201000", "" }, { "1 DONE for 1", "" }, { "acquire E", "to 1 FETCH E for 0, later" },
			{ "1 GRANT E for 0 page", "install E page, ready E" },
			{ "1 GET E for 1", "" }, { "tick", "due 202875" } } },
		{ "which a later reader does not shorten", 3, RESIDENCE_NS, DSM_SHARED, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "at 100000", "" }, { "1 DONE for 1", "" }, { "acquire E", "to 1 FETCH E for 0, later" },
			{ "1 GRANT E for 0 page", "install E page, ready E" },
			{ "1 GET E for 1", "" }, { "at 101000", "" },
			{ "tick", "revoke I read, to 1 GRANT E for 1 page, never" },
			{ "at 201000", "" }, { "1 DONE for 1", "" }, { "acquire S", "to 1 FETCH S for 0, later" },
			{ "1 GRANT S for 0 page", "install S page, ready S" },
			{ "at 201100", "" }, { "2 GET S for 2", "revoke S read, to 2 GRANT S for 2 page" },
			{ "2 DONE for 2", "" }, { "1 GET E for 1", "" }, { "tick", "due 202875" } } },
		{ "the home has it from when it comes", 3, RESIDENCE_NS, DSM_EXCLUSIVE, {
			NODE1_WRITES, { "at 2000", "" }, { "acquire E", "to 1 FETCH E for 0, later" },
			{ "at 2400", "" }, { "1 GRANT E for 0 page", "install E page, ready E" },
			{ "1 GET E for 1", "" }, { "tick", "due 3400" } } },
		{ "the home's own wish waits too", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_WRITES, { "acquire S", "later" }, { "tick", "due 1000" },
			{ "at 1000", "" }, { "tick", "to 1 FETCH S for 0, never" } } },
		{ "the same node need not wait for itself", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_READS, { "1 GET E for 1", "revoke I, to 1 GRANT E for 1" } } },
		{ "but for another reader", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_READS, { "at 300", "" }, NODE2_READS,
			{ "at 1100", "" }, { "2 GET E for 2", "" }, { "tick", "due 1300" },
			{ "at 1300", "" }, { "tick", "to 1 INVALIDATE for 2, revoke I, never" } } },
		{ "a reader whose time has passed keeps nobody", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_READS, { "at 1000", "" }, NODE2_READS,
			{ "2 GET E for 2", "to 1 INVALIDATE for 2, revoke I" } } },
		{ "nor does a writer whose time has passed", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_WRITES, { "2 GET S for 2", "" }, { "at 1000", "" },
			{ "tick", "to 1 FETCH S for 2, never" }, { "2 DONE for 2", "" },
			{ "2 GET E for 2", "to 1 INVALIDATE for 2" } } },
		{ "readers do not conflict", 3, RESIDENCE_NS, DSM_SHARED, { NODE1_READS, NODE2_READS } },
		{ "a request after its end starts at once", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_WRITES, { "at 1000", "" }, { "2 GET E for 2", "to 1 FETCH E for 2" } } },
		{ "readers behind a waiting writer wait", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_READS, { "2 GET E for 2", "" }, { "3 GET S for 3", "" }, { "tick", "due 1000" },
			{ "at 1000", "" }, { "tick", "to 1 INVALIDATE for 2, never" },
			{ "1 ACK for 2", "revoke I read, to 2 GRANT E for 2 page" },
			{ "2 DONE for 2", "" }, { "tick", "due 2000" },
			{ "at 2000", "" }, { "tick", "to 2 FETCH S for 3, never" } } },
		{ "the next in the queue waits after DONE", 3, RESIDENCE_NS, DSM_INVALID, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "2 GET E for 2", "" }, { "tick", "never" },
			{ "at 50", "" }, { "1 DONE for 1", "" }, { "tick", "due 1000" } } },
		{ "a discard waits for nobody", 3, RESIDENCE_NS, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "1 ACK for 0", "install E zero, discarded" } } },
		{ "and leaves no residence behind", 3, RESIDENCE_NS, DSM_INVALID, {
			NODE1_WRITES,
			{ "discard", "to 1 INVALIDATE for 0, later" },
			{ "1 ACK for 0", "install E zero, discarded" },
			{ "2 GET E for 2", "revoke I read, to 2 GRANT E for 2 page" } } },
		{ "time never goes back", 3, RESIDENCE_NS, DSM_INVALID, {
			{ "at 5000", "" }, { "tick", "never" },
			{ "at 10", "" }, NODE1_WRITES, { "2 GET E for 2", "" }, { "tick", "due 6000" } } },
	};

	(void)state;
	TALK(cases);
}

/* Each refusal changes nothing: the dialogue goes on as if the message had not come. */
static void test_refusals(void **state)
{
	static const struct dialogue cases[] = {
		{ "GET elsewhere", 100, 0, DSM_INVALID, {
			{ "2 GET S for 2", "refused: GET of a frame that is not at home here" } } },
		{ "GET for others, of nothing, with a page", 3, 0, DSM_INVALID, {
			{ "2 GET S for 1", "refused: GET on behalf of another node" },
			{ "2 GET I for 2", "refused: message with an impossible state" },
			{ "2 GET S for 2 page", "refused: message with an impossible payload" },
			NODE1_WRITES } },
		{ "GET of what it has", 3, 0, DSM_SHARED, {
			NODE1_READS,
			{ "1 GET S for 1", "refused: GET of a right that it has" },
			NODE2_READS } },
		{ "GET of what it will have", 3, 0, DSM_SHARED, {
			{ "1 GET S for 1", "revoke S read, to 1 GRANT S for 1 page" },
			{ "1 GET S for 1", "refused: GET of a right that it has" },
			{ "1 DONE for 1", "" } } },
		{ "GET of what an owner keeps", 3, 0, DSM_INVALID, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" },
			{ "1 GET S for 1", "refused: GET of a right that it has" },
			{ "2 DONE for 2", "" } } },
		{ "GET twice", 3, 0, DSM_INVALID, {
			{ "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 page" },
			{ "2 GET S for 2", "" },
			{ "2 GET E for 2", "refused: GET while its last GET of the frame waits" },
			{ "1 DONE for 1", "to 1 FETCH S for 2" } } },
		{ "orders about a frame not held", 100, 0, DSM_INVALID, {
			{ "1 FETCH S for 2", "refused: an order about a frame that is not held here" },
			{ "1 INVALIDATE for 2", "refused: an order about a frame that is not held here" } } },
		{ "orders from another than the home", 100, 0, DSM_SHARED, {
			HOLD_SHARED,
			{ "2 FETCH E for 3", "refused: an order about a frame that is not at home there" },
			{ "2 INVALIDATE for 3", "refused: an order about a frame that is not at home there" } } },
		{ "orders about a frame at home here", 3, 0, DSM_EXCLUSIVE, {
			{ "1 FETCH E for 1", "refused: an order about a frame that is not at home there" },
			{ "1 INVALIDATE for 1", "refused: an order about a frame that is not at home there" } } },
		{ "orders for the holder itself or nobody", 100, 0, DSM_SHARED, {
			HOLD_SHARED,
			{ "1 FETCH S for 0", "refused: FETCH from the requester itself" },
			{ "1 INVALIDATE for 0", "refused: INVALIDATE of the requester itself" },
			{ "1 FETCH S for 4", "refused: an order on behalf of an unknown node" },
			{ "1 FETCH I for 2", "refused: message with an impossible state" },
			{ "1 INVALIDATE S for 2", "refused: message with an impossible state" } } },
		{ "GRANT not asked for", 100, 0, DSM_SHARED, {
			{ "1 GRANT S for 0 page", "refused: GRANT of a frame that was not asked for" },
			{ "acquire S", "to 1 GET S for 0, later" },
			{ "1 GRANT S for 2 page", "refused: GRANT for another node" },
			{ "1 GRANT E for 0 page", "refused: GRANT of another right than was asked for" },
			{ "1 GRANT S for 0", "refused: GRANT without content for a frame that is not held here" },
			{ "2 GRANT S for 0", "refused: GRANT without content, not from the home" },
			{ "1 GRANT S for 0 zero", "install S zero, ready S, to 1 DONE for 0" },
			{ "1 GRANT S for 0 zero", "refused: GRANT of a frame that was not asked for" } } },
		{ "GRANT of an upgrade with content", 100, 0, DSM_EXCLUSIVE, {
			HOLD_SHARED,
			{ "acquire E", "to 1 GET E for 0, later" },
			{ "1 GRANT E for 0 page", "refused: GRANT with content for a frame that is held here" },
			{ "2 GRANT E for 0", "refused: GRANT without content, not from the home" },
			{ "1 GRANT E for 0", "install E, ready E, to 1 DONE for 0" } } },
		{ "GRANT to the home from one that was not told to", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" }, { "2 DONE for 2", "" },
			{ "acquire E", "to 2 INVALIDATE for 0, later" },
			{ "2 GRANT E for 0 page", "refused: GRANT from a node that was not told to" },
			{ "2 ACK for 0", "to 1 FETCH E for 0" },
			{ "2 GRANT E for 0 page", "refused: GRANT from a node that was not told to" },
			{ "1 GRANT E for 0 page", "install E page, ready E" } } },
		{ "GRANT to the home from the one that was told to last time", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES,
			{ "2 GET S for 2", "to 1 FETCH S for 2" }, { "acquire E", "later" },
			{ "2 DONE for 2", "to 2 INVALIDATE for 0" },
			{ "1 GRANT E for 0 page", "refused: GRANT from a node that was not told to" },
			{ "2 ACK for 0", "to 1 FETCH E for 0" },
			{ "1 GRANT E for 0 page", "install E page, ready E" } } },
		{ "acknowledgements nobody waits for", 3, 0, DSM_INVALID, {
			{ "1 ACK for 2", "refused: INVALIDATE_ACK that nobody waits for" },
			NODE1_READS,
			{ "2 GET E for 2", "to 1 INVALIDATE for 2" },
			{ "3 ACK for 2", "refused: INVALIDATE_ACK that nobody waits for" },
			{ "1 ACK for 3", "refused: INVALIDATE_ACK that nobody waits for" },
			{ "1 ACK S for 2", "refused: message with an impossible state" },
			{ "2 DONE for 2", "refused: DONE that nobody waits for" },
			{ "1 ACK for 2", "revoke I read, to 2 GRANT E for 2 page" },
			{ "1 ACK for 2", "refused: INVALIDATE_ACK that nobody waits for" } } },
		{ "DONE nobody waits for", 3, 0, DSM_SHARED, {
			{ "1 DONE for 1", "refused: DONE that nobody waits for" },
			{ "1 GET S for 1", "revoke S read, to 1 GRANT S for 1 page" },
			{ "2 DONE for 2", "refused: DONE that nobody waits for" },
			{ "2 DONE for 1", "refused: DONE that nobody waits for" },
			{ "1 DONE for 1", "" },
			{ "1 DONE for 1", "refused: DONE that nobody waits for" } } },
		{ "answers about a frame that is not at home here", 100, 0, DSM_INVALID, {
			{ "1 DONE for 1", "refused: DONE that nobody waits for" },
			{ "1 ACK for 1", "refused: INVALIDATE_ACK that nobody waits for" } } },
		{ "a frame the machine does not have", 50, 0, DSM_INVALID, {
			{ "1 GET S for 1", "refused: message about a frame that the machine does not have" } } },
	};

	(void)state;
	TALK(cases);
}

/* What the dialogues cannot write down. */
static void test_malformed(void **state)
{
	static const struct dsm_msg good = { .type = DSM_GET, .state = DSM_SHARED, .requester = 1, .pfn = 3 };
	struct dsm_msg bad[7];
	struct fixture f;
	const char *why;

	(void)state;
	for (unsigned i = 0; i < 7; i++)
		bad[i] = good;
	bad[0].type = 6;
	bad[1].type = -1;
	bad[2].state = 3;
	bad[3].payload = 3;
	bad[4].page = some_page;
	bad[5].pfn = UINT64_MAX;
	bad[6] = (struct dsm_msg){ .type = DSM_GRANT, .state = DSM_SHARED, .payload = DSM_PAYLOAD_PAGE, .pfn = 3 };
	begin(&f, 0);
	for (unsigned i = 0; i < 7; i++) {
		why = NULL;
		assert_int_equal(dsm_receive(f.d, 1, &bad[i], 0, &why), -EPROTO);
		assert_non_null(why);
		assert_string_equal(f.log, "");
		assert_null(dsm_check(f.d));
	}
	assert_int_equal(dsm_acquire(f.d, 50, DSM_SHARED, 0), -EINVAL);
	assert_int_equal(dsm_acquire(f.d, UINT64_MAX, DSM_SHARED, 0), -EINVAL);
	assert_int_equal(dsm_discard(f.d, 100, 0), -EINVAL);
	assert_int_equal(dsm_home(f.d, 50), 4);
	assert_int_equal(dsm_home(f.d, 307), 3);
	assert_int_equal(dsm_home(f.d, 308), 4);
	end(&f);
}

/*
 * Peers that send whatever they like, well-formed or not, cannot break an invariant, hit an assertion or make
 * the core send to itself.
 */
static void test_hostile_peers(void **state)
{
	uint64_t random = 88172645463325252ull;
	unsigned long accepted = 0, refused = 0;
	struct fixture f;

	(void)state;
	begin(&f, RESIDENCE_NS);
	for (unsigned i = 0; i < 300000; i++) {
		struct dsm_msg msg = { 0 };
		const char *why = NULL;
		const char *broken;
		uint64_t dice;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		dice = random >> 20;
		f.log[0] = '\0';
		f.now_ns += dice % 64;
		msg.type = dice % 7;
		msg.state = dice / 7 % 3;
		msg.requester = dice / 21 % 5;
		msg.payload = msg.type == DSM_GRANT ? dice / 105 % 3 : DSM_PAYLOAD_NONE;
		msg.page = msg.payload == DSM_PAYLOAD_PAGE ? some_page : NULL;
		msg.pfn = dice / 315 % 3 * 50;
		if (dice / 945 % 16 == 0 && msg.state && msg.pfn != 50)
			dsm_acquire(f.d, msg.pfn, msg.state, f.now_ns);
		else if (dice / 945 % 64 == 1)
			dsm_discard(f.d, 0, f.now_ns);
		else if (dice / 945 % 16 == 2)
			dsm_tick(f.d, f.now_ns);
		else if (dsm_receive(f.d, 1 + dice / 945 / 64 % 3, &msg, f.now_ns, &why))
			refused++;
		else
			accepted++;
		broken = dsm_check(f.d);
		if (broken)
			fail_msg("after %u inputs: %s", i, broken);
	}
	assert_true(accepted > 1000 && refused > 1000);
	end(&f);
}

/* Messages and pages that this node sends for one transaction, DONE included. */
static void test_message_counts(void **state)
{
	static const struct {
		struct dialogue d;
		unsigned long sent, pages;
	} cases[] = {
		{ { "read miss, asked here", 100, 0, DSM_SHARED, { HOLD_SHARED } }, 2, 0 },
		{ { "read miss, owner at home", 3, 0, DSM_SHARED, { NODE1_READS } }, 1, 1 },
		{ { "write miss, owner at home", 3, 0, DSM_INVALID, { NODE1_WRITES } }, 1, 1 },
		{ { "the home takes back", 3, 0, DSM_EXCLUSIVE, {
			NODE1_WRITES, { "acquire E", "to 1 FETCH E for 0, later" },
			{ "1 GRANT E for 0 page", "install E page, ready E" } } }, 2, 1 },
		{ { "upgrade at home", 3, 0, DSM_EXCLUSIVE, {
			NODE1_READS, { "acquire E", "to 1 INVALIDATE for 0, later" },
			{ "1 ACK for 0", "install E, ready E" } } }, 2, 1 },
		{ { "zero frame", 3, 0, DSM_INVALID, {
			{ "memory zero", "" }, { "1 GET E for 1", "revoke I read, to 1 GRANT E for 1 zero" },
			{ "1 DONE for 1", "" } } }, 1, 0 },
		{ { "discard of what the home holds", 3, 0, DSM_EXCLUSIVE, {
			{ "discard", "revoke I, install E zero, now" } } }, 0, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;

		begin(&f, 0);
		talk(&f, &cases[i].d);
		if (f.sent != cases[i].sent || f.pages_sent != cases[i].pages)
			fail_msg("%s: %lu messages, %lu pages", cases[i].d.name, f.sent, f.pages_sent);
		end(&f);
	}
}

static void test_stats(void **state)
{
	static const struct dialogue remote = { "remote", 100, 0, DSM_INVALID, {
		HOLD_SHARED,
		{ "acquire E", "to 1 GET E for 0, later" },
		{ "1 GRANT E for 0", "install E, ready E, to 1 DONE for 0" },
		{ "1 FETCH S for 3", "revoke S read, to 3 GRANT S for 3 page" },
		{ "1 INVALIDATE for 1", "revoke I, to 1 ACK for 1" },
		{ "acquire E", "to 1 GET E for 0, later" },
		{ "1 GRANT E for 0 zero", "install E zero, ready E, to 1 DONE for 0" },
		{ "memory zero", "" },
		{ "1 FETCH E for 3", "revoke I read, to 3 GRANT E for 3 zero" } } };
	static const struct dialogue home = { "home", 3, 0, DSM_EXCLUSIVE, {
		{ "discard", "revoke I, install E zero, now" } } };
	const struct dsm_stats *stats;
	struct fixture f;

	(void)state;
	begin(&f, 0);
	talk(&f, &remote);
	talk(&f, &home);
	stats = dsm_stats(f.d);
	assert_int_equal(stats->read_miss, 1);
	assert_int_equal(stats->write_miss, 1);
	assert_int_equal(stats->upgrade, 1);
	assert_int_equal(stats->page_in, 1);
	assert_int_equal(stats->page_out, 1);
	assert_int_equal(stats->zero_in, 1);
	assert_int_equal(stats->invalidated, 2);
	assert_int_equal(stats->discarded, 1);
	end(&f);
}

/* Whichever allocation fails, the entry function says so, does nothing, and works when tried again. */
static void test_out_of_memory(void **state)
{
	struct dsm_msg get = { .type = DSM_GET, .state = DSM_SHARED, .requester = 1, .pfn = 3 };
	struct fixture f = { 0 };
	struct dsm_config config = config_of(&f, HOME_FRAMES);
	const char *why;

	(void)state;
	for (callocs_until_failure = 0; callocs_until_failure < 3; callocs_until_failure++) {
		long left = callocs_until_failure;

		assert_null(dsm_new(&config));
		callocs_until_failure = left;
	}
	for (unsigned i = 0; i < 2; i++) {
		callocs_until_failure = -1;
		begin(&f, 0);
		callocs_until_failure = i;
		assert_int_equal(dsm_acquire(f.d, 100, DSM_SHARED, 0), -ENOMEM);
		callocs_until_failure = 0;
		assert_int_equal(dsm_discard(f.d, 3, 0), -ENOMEM);
		assert_int_equal(dsm_receive(f.d, 1, &get, 0, &why), -ENOMEM);
		assert_string_equal(why, "out of memory");
		assert_string_equal(f.log, "");
		assert_null(dsm_check(f.d));
		callocs_until_failure = -1;
		assert_int_equal(dsm_acquire(f.d, 100, DSM_SHARED, 0), 1);
		assert_int_equal(dsm_receive(f.d, 1, &get, 0, &why), 0);
		end(&f);
	}
	dsm_free(NULL);
}

static void give(struct fixture *f, uint64_t pfn, uint64_t now_ns)
{
	const char *why;
	struct dsm_msg msg = { .type = DSM_GET, .state = DSM_EXCLUSIVE, .requester = 1, .pfn = pfn };

	f->log[0] = '\0';
	assert_int_equal(dsm_receive(f->d, 1, &msg, now_ns, &why), 0);
	msg.type = DSM_DONE;
	msg.state = DSM_INVALID;
	assert_int_equal(dsm_receive(f->d, 1, &msg, now_ns, &why), 0);
}

/*
 * Memory follows what is in flight, not what was ever asked for: while nothing cools down, what may cool at
 * once; otherwise, what was given in the last residence time.
 */
static void test_bounded_memory(void **state)
{
	static const struct { uint64_t step_ns; long callocs_min, callocs_max; } cases[] = {
		{ 0, 1000, 1100 }, { 100, 10, 20 },
	};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct fixture f = { 0 };
		struct dsm_config config = config_of(&f, 0);

		config.home[0] = (struct dsm_range){ .start = 1000, .count = 20000 };
		config.residence_ns = RESIDENCE_NS;
		f.d = dsm_new(&config);
		callocs = 0;
		for (uint64_t k = 0; k < 20000; k++)
			give(&f, 1000 + k, 1 + k * cases[i].step_ns);
		assert_null(dsm_check(f.d));
		assert_in_range(callocs, cases[i].callocs_min, cases[i].callocs_max);
		end(&f);
	}
}

/* The deadline is that of the first frame to continue, whichever was asked for first. */
static void test_deadlines(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, RESIDENCE_NS);
	give(&f, 3, 100);
	give(&f, 4, 200);
	give(&f, 5, 300);
	assert_int_equal(dsm_acquire(f.d, 4, DSM_SHARED, 400), 1);
	assert_int_equal(dsm_acquire(f.d, 3, DSM_SHARED, 400), 1);
	assert_int_equal(dsm_acquire(f.d, 5, DSM_SHARED, 400), 1);
	f.log[0] = '\0';
	assert_int_equal(dsm_tick(f.d, 400), 1100);
	assert_string_equal(f.log, "");
	assert_int_equal(dsm_tick(f.d, 1100), 1200);
	assert_string_equal(f.log, "to 1 FETCH S for 0");
	assert_int_equal(dsm_tick(f.d, 5000), UINT64_MAX);
	assert_string_equal(f.log, "to 1 FETCH S for 0, to 1 FETCH S for 0, to 1 FETCH S for 0");
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_home),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_residence),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_hostile_peers),
		cmocka_unit_test(test_message_counts),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_bounded_memory),
		cmocka_unit_test(test_deadlines),
	};

	return cmocka_run_group_tests_name("dsm", tests, NULL, NULL);
}
