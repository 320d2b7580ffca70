// SPDX-License-Identifier: GPL-2.0
/*
 * What the coherence core really does with each event in each state, for tests/model/tables.
 *
 * Three instances and one frame, at home on node 0, take random walks: a node wants rights, the home
 * discards, any message that is under way arrives, residence passes.  Each walk ends with a forged message;
 * most of these are refused.  The core's own functions are linked with --wrap, so that every message is seen
 * when it is handled, those of the home to itself too.  What they did is printed in the words of
 * coherence.pml, #n being message n of enum dsm_type and SERVED a GET of the node whose GET is being served:
 *
 *   holder MESSAGE STATE PAYLOAD at STATE sends MESSAGE STATE PAYLOAD | state STATE | refused
 *   holder wants STATE 0 at STATE sends ...
 *   home EVENT PHASE SERVED phase PHASE | refused
 *   request STATE entry SHARED requester HOLDS first MESSAGE... | then MESSAGE... | leaves SHARED
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../dsm/internal.h"

#define NODES		3
#define PFN		1
#define HOME		0
#define WALKS		60000
#define STEPS_MAX	80
#define UNDER_WAY_MAX	64
#define RESIDENCE_NS	10

static struct dsm *nodes[NODES];
static uint64_t now_ns;
static uint8_t page[DSM_PAGE_SIZE];
static struct { unsigned from, to; struct dsm_msg msg; } under_way[UNDER_WAY_MAX];
static unsigned under_way_count;
static bool discarding;

/* ---- what is observed ---- */

/* The event that a holder handles. */
static struct {
	bool active;
	char what[64];
} holder;
static struct dsm_msg last_sent;

static void print_sent(const struct dsm_msg *msg)
{
	printf("#%d %d %d\n", msg->type, msg->state, msg->payload);
}

void __real_dsm_send(struct dsm *d, unsigned to, const struct dsm_msg *msg);
void __wrap_dsm_send(struct dsm *d, unsigned to, const struct dsm_msg *msg);

void __wrap_dsm_send(struct dsm *d, unsigned to, const struct dsm_msg *msg)
{
	last_sent = *msg;
	if (holder.active) {
		printf("holder %s sends ", holder.what);
		print_sent(msg);
	}
	__real_dsm_send(d, to, msg);
}

static void name_event(const struct dsm *d, const struct dsm_msg *msg)
{
	snprintf(holder.what, sizeof(holder.what), "#%d %d %d at %d", msg->type, msg->state, msg->payload,
		 dsm_state(d, PFN));
}

#define OBSERVE_HOLDER(event)									\
	const char *__real_cache_refuse_##event(const struct dsm *, unsigned, const struct dsm_msg *);	\
	const char *__wrap_cache_refuse_##event(const struct dsm *, unsigned, const struct dsm_msg *);	\
	void __real_cache_##event(struct dsm *, unsigned, const struct dsm_msg *);		\
	void __wrap_cache_##event(struct dsm *, unsigned, const struct dsm_msg *);		\
												\
	const char *__wrap_cache_refuse_##event(const struct dsm *d, unsigned from,		\
						const struct dsm_msg *msg)			\
	{											\
		const char *why = __real_cache_refuse_##event(d, from, msg);			\
												\
		name_event(d, msg);								\
		if (why)									\
			printf("holder %s refused\n", holder.what);				\
		return why;									\
	}											\
												\
	void __wrap_cache_##event(struct dsm *d, unsigned from, const struct dsm_msg *msg)	\
	{											\
		name_event(d, msg);								\
		holder.active = true;								\
		__real_cache_##event(d, from, msg);						\
		holder.active = false;								\
		printf("holder %s state %d\n", holder.what, dsm_state(d, PFN));			\
	}

OBSERVE_HOLDER(fetch)
OBSERVE_HOLDER(invalidate)
OBSERVE_HOLDER(grant)

void __real_cache_ask(struct dsm *d, struct frame *f);
void __wrap_cache_ask(struct dsm *d, struct frame *f);

void __wrap_cache_ask(struct dsm *d, struct frame *f)
{
	snprintf(holder.what, sizeof(holder.what), "wants %d 0 at %d", f->wanted, dsm_state(d, PFN));
	holder.active = true;
	__real_cache_ask(d, f);
	holder.active = false;
}

/* What the home serves, as it was before an event. */
struct seen {
	enum phase phase;
	const struct request *served;
	enum dsm_state want;
	unsigned node;
	bool shared, holds, last_ack;
};

static struct seen look(const struct dsm *d, unsigned from)
{
	const struct frame *f = frame_find(d, PFN);
	struct seen s = { .phase = f ? f->phase : PHASE_IDLE, .served = f ? directory_served(f) : NULL };

	s.shared = frame_entry(d, PFN)->shared;
	if (s.served) {
		s.want = s.served->want;
		s.node = s.served->node;
		s.holds = directory_rights(d, PFN, s.node) != DSM_INVALID;
		s.last_ack = s.phase == PHASE_INVALIDATING && f->acks == node_bit(from);
	}
	return s;
}

static void print_request(const struct seen *s)
{
	printf("request %d entry %d requester %d ", s->want, s->shared, s->holds);
}

static void print_home(const char *event, const struct seen *before, const struct dsm *d, unsigned from)
{
	bool served = before->served && before->node == from && before->want != DSM_INVALID;

	printf("home %s %d %d ", event, before->phase, served);
	if (d)
		printf("phase %d\n", look(d, from).phase);
	else
		printf("refused\n");
}

/* After any event at home, none of which serves more than the end of one request and the start of another. */
static void print_served(const struct seen *before, const struct dsm *d, unsigned from)
{
	struct seen after = look(d, from);

	if (after.served && after.served != before->served) {
		print_request(&after);
		printf("first ");
		print_sent(&last_sent);
	} else if (before->phase == PHASE_INVALIDATING && after.phase == PHASE_GRANTING) {
		print_request(before);
		printf("then ");
		print_sent(&last_sent);
	}
	if (before->served && before->served != after.served) {
		print_request(before);
		printf("leaves %d\n", after.shared);
	}
}

#define OBSERVE_HOME(event, name)								\
	const char *__real_directory_refuse_##event(const struct dsm *, unsigned, const struct dsm_msg *); \
	const char *__wrap_directory_refuse_##event(const struct dsm *, unsigned, const struct dsm_msg *); \
	void __real_directory_##event(struct dsm *, unsigned, const struct dsm_msg *);		\
	void __wrap_directory_##event(struct dsm *, unsigned, const struct dsm_msg *);		\
												\
	const char *__wrap_directory_refuse_##event(const struct dsm *d, unsigned from,		\
						    const struct dsm_msg *msg)			\
	{											\
		const char *why = __real_directory_refuse_##event(d, from, msg);		\
		struct seen before;								\
												\
		if (why && frame_is_home(d, PFN)) {						\
			before = look(d, from);							\
			print_home(name, &before, NULL, from);				\
		}										\
		return why;									\
	}											\
												\
	void __wrap_directory_##event(struct dsm *d, unsigned from, const struct dsm_msg *msg)	\
	{											\
		struct seen before = look(d, from);						\
												\
		__real_directory_##event(d, from, msg);						\
		print_home(name, &before, d, from);						\
		print_served(&before, d, from);							\
	}

OBSERVE_HOME(get, "#0")
OBSERVE_HOME(ack, "#3")
OBSERVE_HOME(done, "#5")

bool __real_directory_discard(struct dsm *d, uint64_t pfn);
bool __wrap_directory_discard(struct dsm *d, uint64_t pfn);
bool __real_directory_continue_due(struct dsm *d);
bool __wrap_directory_continue_due(struct dsm *d);
void __real_directory_forget_cooled(struct dsm *d);
void __wrap_directory_forget_cooled(struct dsm *d);

bool __wrap_directory_discard(struct dsm *d, uint64_t pfn)
{
	struct seen before = look(d, HOME);
	bool ended = __real_directory_discard(d, pfn);

	print_home("discard", &before, d, HOME);
	print_served(&before, d, HOME);
	return ended;
}

bool __wrap_directory_continue_due(struct dsm *d)
{
	struct seen before = { 0 };
	bool some;

	if (frame_is_home(d, PFN))
		before = look(d, HOME);
	some = __real_directory_continue_due(d);
	if (some) {
		print_home("residence", &before, d, HOME);
		print_served(&before, d, HOME);
	}
	return some;
}

void __wrap_directory_forget_cooled(struct dsm *d)
{
	struct seen before = { 0 };

	if (frame_is_home(d, PFN))
		before = look(d, HOME);
	__real_directory_forget_cooled(d);
	if (before.phase == PHASE_COOLING && look(d, HOME).phase != PHASE_COOLING)
		print_home("residence", &before, d, HOME);
}

/* ---- the walks ---- */

static void op_send(void *ctx, unsigned to, const struct dsm_msg *msg)
{
	unsigned from = *(unsigned *)ctx;

	if (under_way_count == UNDER_WAY_MAX) {
		fprintf(stderr, "facts: more than %d messages are under way\n", UNDER_WAY_MAX);
		exit(2);
	}
	under_way[under_way_count].from = from;
	under_way[under_way_count].to = to;
	under_way[under_way_count].msg = *msg;
	under_way[under_way_count++].msg.page = msg->page ? page : NULL;
}

static enum dsm_payload op_revoke(void *ctx, uint64_t pfn, enum dsm_state have, enum dsm_state keep,
				 const void **to)
{
	(void)ctx, (void)pfn, (void)have, (void)keep;
	if (!to)
		return DSM_PAYLOAD_NONE;
	*to = page;
	return rand() % 2 ? DSM_PAYLOAD_ZERO : DSM_PAYLOAD_PAGE;
}

static void op_install(void *ctx, uint64_t pfn, enum dsm_state state, enum dsm_payload payload,
		       const void *from)
{
	(void)ctx, (void)pfn, (void)state, (void)payload, (void)from;
}

static void op_ready(void *ctx, uint64_t pfn, enum dsm_state state)
{
	(void)ctx, (void)pfn, (void)state;
}

static void op_discarded(void *ctx, uint64_t pfn)
{
	(void)ctx, (void)pfn;
	discarding = false;
}

static const struct dsm_ops ops = { op_send, op_revoke, op_install, op_ready, op_discarded };

static void begin(void)
{
	static unsigned ids[NODES];
	struct dsm_config config = { .nodes = NODES, .residence_ns = RESIDENCE_NS, .ops = &ops };

	config.home[HOME] = (struct dsm_range){ PFN, 1 };
	under_way_count = 0;
	discarding = false;
	for (unsigned i = 0; i < NODES; i++) {
		ids[i] = i;
		config.self = i;
		config.ctx = &ids[i];
		nodes[i] = dsm_new(&config);
		if (!nodes[i]) {
			fprintf(stderr, "facts: out of memory\n");
			exit(2);
		}
	}
}

/* A refusal is a fact like any other: in the tables it will be missed. */
static void arrive(unsigned i)
{
	const char *why;
	struct dsm_msg msg = under_way[i].msg;
	unsigned from = under_way[i].from, to = under_way[i].to;

	under_way[i] = under_way[--under_way_count];
	dsm_receive(nodes[to], from, &msg, now_ns, &why);
}

/* Time stands still then: a DONE that comes after residence would be two events of the tables in one. */
static bool being_served(void)
{
	const struct frame *f = frame_find(nodes[HOME], PFN);

	return f && directory_served(f);
}

static void step(void)
{
	int kind = rand() % 100;

	if (kind < 60 && under_way_count) {
		arrive(rand() % under_way_count);
	} else if (kind < 90) {
		dsm_acquire(nodes[rand() % NODES], PFN, rand() % 2 ? DSM_SHARED : DSM_EXCLUSIVE, now_ns);
	} else if (kind < 95 && !discarding) {
		discarding = true;
		if (!dsm_discard(nodes[HOME], PFN, now_ns))
			discarding = false;
	} else if (!being_served()) {
		now_ns += RESIDENCE_NS;
		dsm_tick(nodes[HOME], now_ns);
	}
}

static void forge(void)
{
	struct dsm_msg msg = { .type = rand() % (DSM_DONE + 1), .requester = rand() % NODES, .pfn = PFN };
	unsigned to = rand() % NODES;
	const char *why;

	if (msg.type == DSM_GET || msg.type == DSM_FETCH || msg.type == DSM_GRANT)
		msg.state = rand() % 2 ? DSM_SHARED : DSM_EXCLUSIVE;
	if (msg.type == DSM_GRANT)
		msg.payload = rand() % 3;
	if (msg.payload == DSM_PAYLOAD_PAGE)
		msg.page = page;
	dsm_receive(nodes[to], (to + 1 + rand() % (NODES - 1)) % NODES, &msg, now_ns, &why);
}

int main(void)
{
	for (unsigned walk = 0; walk < WALKS; walk++) {
		begin();
		for (int steps = rand() % STEPS_MAX; steps > 0; steps--)
			step();
		forge();
		for (unsigned i = 0; i < NODES; i++)
			dsm_free(nodes[i]);
	}
	return 0;
}
