// SPDX-License-Identifier: GPL-2.0
/*
 * Seeded simulator of the coherence core: several instances of the code that ships, one imagined network.
 *
 * A run is a function of its options alone.  In every step a random node reads, writes or discards a
 * random frame, or a random message arrives (the oldest of its pair of nodes, or with --reorder any), or
 * time passes.  Pages are real: a frame holds one 64-bit value throughout, zero or a store's number.
 *
 * What is checked after every step, on the rights as the core installed and revoked them, which is what
 * threads could do at that moment:
 *   - a node that may write a frame is the only one that may use it;
 *   - whoever may read a frame sees the last value written, or zero after a discard;
 *   - the core reports the rights that it installed, and dsm_check() holds everywhere;
 *   - the home asks no node for what it had granted to it less than the residence time ago;
 *   - no message is refused.
 * Every SETTLE_STEPS steps nothing new is asked until all is quiet.  Every request must have ended by then,
 * within a number of messages that the requests account for, and every page sent has arrived.
 *
 * A checker that cannot fail proves nothing: --faults breaks the network or the pager in known ways, one
 * at a time, and succeeds only if each is found.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../dsm/dsm.h"

#define NODES_MAX	5
#define FRAMES_MAX	64
#define SETTLE_STEPS	500
#define RESIDENCE_NS	1000
#define STEP_NS_MAX	100
#define NODE_STRIDE	100		/* pfns from one node's first frame to the next one's */
#define FIRST_PFN	16
#define WORDS		(DSM_PAGE_SIZE / sizeof(uint64_t))

enum fault {
	FAULT_NONE, FAULT_DROP_ACK, FAULT_DROP_GET, FAULT_ACK_UNREVOKED, FAULT_DUPLICATE, FAULT_OLD_PAGE,
	FAULT_ZERO_GRANT, FAULT_STAY_WRITABLE, FAULT_LOST_STORE, FAULT_NO_RESIDENCE, FAULT_KEEP_DISCARDED,
	FAULT_COUNT
};

static const char *const fault_names[FAULT_COUNT] = {
	[FAULT_NONE]		= "none",
	[FAULT_DROP_ACK]	= "an INVALIDATE_ACK is lost",
	[FAULT_DROP_GET]	= "a GET is lost",
	[FAULT_ACK_UNREVOKED]	= "an INVALIDATE is acknowledged and not obeyed",
	[FAULT_DUPLICATE]	= "a message arrives twice",
	[FAULT_OLD_PAGE]	= "a page arrives as it was one store ago",
	[FAULT_ZERO_GRANT]	= "a page arrives as zero",
	[FAULT_STAY_WRITABLE]	= "a frame stays writable when it is shared",
	[FAULT_LOST_STORE]	= "a store is lost when a frame is taken",
	[FAULT_NO_RESIDENCE]	= "a node does not know of the residence time",
	[FAULT_KEEP_DISCARDED]	= "a discarded frame keeps its content",
};

struct options {
	uint64_t seed;
	unsigned long steps;
	unsigned nodes, frames;
	bool reorder, trace;
	enum fault fault;
};

struct message {
	struct message *next;
	unsigned from, to;
	struct dsm_msg msg;
	uint64_t page[WORDS];
};

struct copy {
	enum dsm_state state;		/* what threads of the node may do now */
	enum dsm_state pending;		/* acquired, not yet ready */
	uint64_t granted_ns;		/* when the home had it granted; 0: not, or given up since */
	uint64_t page[WORDS];
};

struct world;

struct node {
	struct world *world;
	unsigned number;
	struct dsm *dsm;
	struct copy copies[FRAMES_MAX];
};

struct world {
	struct options options;
	uint64_t random, now_ns, stores;
	struct node nodes[NODES_MAX];
	struct message *first, **last;	/* under way, oldest first */
	unsigned long in_flight, delivered, asked, ended;
	uint64_t truth[FRAMES_MAX];	/* what a reader must see */
	uint64_t before[FRAMES_MAX];	/* what it was one store ago */
	unsigned discards[FRAMES_MAX];	/* not yet ended */
	bool fault_done;
	char failure[200];
};

static void fail(struct world *w, const char *format, ...)
{
	va_list args;

	if (w->failure[0])
		return;
	va_start(args, format);
	vsnprintf(w->failure, sizeof(w->failure), format, args);
	va_end(args);
}

/* splitmix64 */
static uint64_t next_random(struct world *w)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static unsigned below(struct world *w, unsigned limit)
{
	return next_random(w) % limit;
}

/* Frame i is the i/nodes'th at home on node i%nodes; no frames lie between the nodes' ranges. */
static uint64_t pfn_of(const struct world *w, unsigned frame)
{
	return FIRST_PFN + frame % w->options.nodes * NODE_STRIDE + frame / w->options.nodes;
}

static unsigned frame_of(const struct world *w, uint64_t pfn)
{
	return (pfn - FIRST_PFN) % NODE_STRIDE * w->options.nodes + (pfn - FIRST_PFN) / NODE_STRIDE;
}

static void fill(uint64_t *page, uint64_t value)
{
	for (unsigned i = 0; i < WORDS; i++)
		page[i] = value;
}

static bool holds(const uint64_t *page, uint64_t value)
{
	return page[0] == value && !memcmp(page, page + 1, DSM_PAGE_SIZE - sizeof(*page));
}

/* True at the first chance to do the wanted harm, and never again. */
static bool harm(struct world *w, enum fault fault)
{
	if (w->options.fault != fault || w->fault_done)
		return false;
	w->fault_done = true;
	return true;
}

static void trace(const struct world *w, const char *what, unsigned a, unsigned b, const struct dsm_msg *msg)
{
	static const char *const names[] = { "GET", "FETCH", "INVALIDATE", "INVALIDATE_ACK", "GRANT", "DONE" };

	if (w->options.trace)
		printf("%8" PRIu64 " %s %u -> %u %s pfn %" PRIu64 " state %d for %u payload %d\n", w->now_ns,
		       what, a, b, names[msg->type], msg->pfn, msg->state, msg->requester, msg->payload);
}

static void post(struct world *w, unsigned from, unsigned to, const struct dsm_msg *msg)
{
	struct message *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->from = from;
	m->to = to;
	m->msg = *msg;
	if (msg->page) {
		memcpy(m->page, msg->page, DSM_PAGE_SIZE);
		m->msg.page = m->page;
	}
	*w->last = m;
	w->last = &m->next;
	w->in_flight++;
}

static void check_residence(struct world *w, const struct node *n, unsigned frame)
{
	const struct copy *c = &n->copies[frame];

	if (!c->granted_ns || w->discards[frame] || w->now_ns >= c->granted_ns + RESIDENCE_NS)
		return;
	fail(w, "node %u loses frame %u %" PRIu64 " ns after it was granted", n->number, frame,
	     w->now_ns - c->granted_ns);
}

/* Time between what the home says to grant a frame and to take it: it cannot know how long messages take. */
static void follow_residence(struct world *w, const struct node *n, unsigned to, const struct dsm_msg *msg)
{
	unsigned frame = frame_of(w, msg->pfn);

	if (n->number != dsm_home(n->dsm, msg->pfn))
		return;
	if (msg->type == DSM_INVALIDATE ||
	    (msg->type == DSM_FETCH && (msg->state == DSM_EXCLUSIVE || w->nodes[to].copies[frame].state == DSM_EXCLUSIVE)))
		check_residence(w, &w->nodes[to], frame);
	if (msg->type == DSM_GRANT || (msg->type == DSM_FETCH && msg->requester != n->number))
		w->nodes[msg->requester].copies[frame].granted_ns = w->now_ns;
}

/* To the network; the harm that a network can do is done here. */
static void op_send(void *ctx, unsigned to, const struct dsm_msg *msg)
{
	struct node *n = ctx;
	struct world *w = n->world;
	struct dsm_msg sent = *msg;
	uint64_t old[WORDS];

	if (to == n->number)
		fail(w, "node %u sends to itself", to);
	trace(w, "send", n->number, to, msg);
	follow_residence(w, n, to, msg);
	if (msg->type == DSM_INVALIDATE_ACK && harm(w, FAULT_DROP_ACK))
		return;
	if (msg->type == DSM_GET && harm(w, FAULT_DROP_GET))
		return;
	if (msg->payload == DSM_PAYLOAD_PAGE && harm(w, FAULT_OLD_PAGE)) {
		fill(old, w->before[frame_of(w, msg->pfn)]);
		sent.page = old;
	}
	if (msg->payload == DSM_PAYLOAD_PAGE && harm(w, FAULT_ZERO_GRANT)) {
		sent.payload = DSM_PAYLOAD_ZERO;
		sent.page = NULL;
	}
	post(w, n->number, to, &sent);
	if (harm(w, FAULT_DUPLICATE))
		post(w, n->number, to, &sent);
}

static enum dsm_payload op_revoke(void *ctx, uint64_t pfn, enum dsm_state have, enum dsm_state keep,
				 const void **page)
{
	struct node *n = ctx;
	struct world *w = n->world;
	unsigned frame = frame_of(w, pfn);
	struct copy *c = &n->copies[frame];

	if (c->state == DSM_INVALID || have != c->state || keep > c->state || (keep == c->state && keep != DSM_SHARED))
		fail(w, "node %u revokes frame %u from %d to %d", n->number, frame, c->state, keep);
	if (keep < c->state && n->number == dsm_home(n->dsm, pfn))
		check_residence(w, n, frame);
	if (c->state == DSM_EXCLUSIVE && page && harm(w, FAULT_LOST_STORE))
		fill(c->page, w->before[frame]);
	if (c->state == DSM_SHARED || keep != DSM_SHARED || !harm(w, FAULT_STAY_WRITABLE))
		c->state = keep;
	if (keep == DSM_INVALID)
		c->granted_ns = 0;
	if (!page)
		return DSM_PAYLOAD_NONE;
	*page = c->page;
	return holds(c->page, 0) ? DSM_PAYLOAD_ZERO : DSM_PAYLOAD_PAGE;
}

static void op_install(void *ctx, uint64_t pfn, enum dsm_state state,
		       enum dsm_payload payload, const void *page)
{
	struct node *n = ctx;
	struct world *w = n->world;
	unsigned frame = frame_of(w, pfn);
	struct copy *c = &n->copies[frame];

	if ((payload == DSM_PAYLOAD_NONE) != (c->state != DSM_INVALID) || state < c->state)
		fail(w, "node %u installs frame %u payload %d over state %d", n->number, frame, payload, c->state);
	if ((payload == DSM_PAYLOAD_PAGE) != (page != NULL))
		fail(w, "node %u installs payload %d with page %p", n->number, payload, page);
	c->state = state;
	if (payload == DSM_PAYLOAD_PAGE)
		memcpy(c->page, page, DSM_PAGE_SIZE);
	if (payload == DSM_PAYLOAD_ZERO && !(w->discards[frame] && harm(w, FAULT_KEEP_DISCARDED)))
		fill(c->page, 0);
	if (n->number == dsm_home(n->dsm, pfn))
		c->granted_ns = w->now_ns;
}

static void read_frame(struct world *w, const struct node *n, unsigned frame)
{
	const struct copy *c = &n->copies[frame];

	if (!holds(c->page, w->truth[frame]))
		fail(w, "node %u reads %" PRIu64 " in frame %u, last written %" PRIu64, n->number, c->page[0],
		     frame, w->truth[frame]);
}

static void write_frame(struct world *w, struct node *n, unsigned frame)
{
	uint64_t value = below(w, 4) ? ++w->stores : 0;

	w->before[frame] = w->truth[frame];
	w->truth[frame] = value;
	fill(n->copies[frame].page, value);
}

/* The thread that waited goes on at once. */
static void op_ready(void *ctx, uint64_t pfn, enum dsm_state state)
{
	struct node *n = ctx;
	struct world *w = n->world;
	unsigned frame = frame_of(w, pfn);
	struct copy *c = &n->copies[frame];

	if (c->pending == DSM_INVALID || state != c->state)
		fail(w, "node %u is told ready(%d) holding %d, waiting for %d", n->number, state, c->state,
		     c->pending);
	read_frame(w, n, frame);
	if (state < c->pending)
		return;
	if (c->pending == DSM_EXCLUSIVE)
		write_frame(w, n, frame);
	c->pending = DSM_INVALID;
	w->ended++;
}

static void discard_ended(struct world *w, struct node *home, unsigned frame)
{
	if (home->copies[frame].state != DSM_EXCLUSIVE)
		fail(w, "frame %u is discarded and its home may not use it", frame);
	w->before[frame] = w->truth[frame];
	w->truth[frame] = 0;
	home->copies[frame].granted_ns = 0;
}

static void op_discarded(void *ctx, uint64_t pfn)
{
	struct node *n = ctx;
	unsigned frame = frame_of(n->world, pfn);

	if (!n->world->discards[frame])
		fail(n->world, "a discard of frame %u ended that nobody waits for", frame);
	n->world->discards[frame]--;
	n->world->ended++;
	discard_ended(n->world, n, frame);
}

static const struct dsm_ops ops = {
	.send = op_send, .revoke = op_revoke, .install = op_install, .ready = op_ready, .discarded = op_discarded,
};

/* A thread of the node touches the frame; it does so at once if it may. */
static void touch(struct world *w, struct node *n, unsigned frame, enum dsm_state want)
{
	struct copy *c = &n->copies[frame];
	int ret;

	if (c->state < want) {
		ret = dsm_acquire(n->dsm, pfn_of(w, frame), want, w->now_ns);
		if (ret != 1)
			fail(w, "node %u acquires frame %u: %d", n->number, frame, ret);
		w->asked += c->pending == DSM_INVALID;
		if (c->pending < want)
			c->pending = want;
	} else if (want == DSM_SHARED) {
		read_frame(w, n, frame);
	} else {
		write_frame(w, n, frame);
	}
}

static void discard(struct world *w, unsigned frame)
{
	struct node *home = &w->nodes[frame % w->options.nodes];
	int ret;

	w->discards[frame]++;
	ret = dsm_discard(home->dsm, pfn_of(w, frame), w->now_ns);
	if (ret == 1) {
		w->asked++;
		return;
	}
	if (ret)
		fail(w, "discard of frame %u: %d", frame, ret);
	w->discards[frame]--;
	discard_ended(w, home, frame);
}

/* Unlink what arrives next: a random message, or in order the oldest of its pair of nodes. */
static struct message *pick(struct world *w)
{
	struct message **at = &w->first, **chosen, *m;

	for (unsigned i = below(w, w->in_flight); i; i--)
		at = &(*at)->next;
	chosen = at;
	if (!w->options.reorder)
		for (chosen = &w->first; (*chosen)->from != (*at)->from || (*chosen)->to != (*at)->to; )
			chosen = &(*chosen)->next;
	m = *chosen;
	*chosen = m->next;
	if (!*chosen)
		w->last = chosen;
	w->in_flight--;
	return m;
}

static void deliver(struct world *w)
{
	struct message *m = pick(w);
	struct dsm_msg ack = { .type = DSM_INVALIDATE_ACK, .requester = m->msg.requester, .pfn = m->msg.pfn };
	const char *why = NULL;

	trace(w, "recv", m->from, m->to, &m->msg);
	w->delivered++;
	if (m->msg.type == DSM_INVALIDATE && harm(w, FAULT_ACK_UNREVOKED))
		post(w, m->to, m->from, &ack);
	else if (dsm_receive(w->nodes[m->to].dsm, m->from, &m->msg, w->now_ns, &why))
		fail(w, "node %u refuses a message of node %u: %s", m->to, m->from, why);
	free(m);
}

/* How a frame may be used on all nodes together. */
static void check_frame(struct world *w, unsigned frame)
{
	unsigned readers = 0, writers = 0;

	for (unsigned i = 0; i < w->options.nodes; i++) {
		const struct node *n = &w->nodes[i];

		readers += n->copies[frame].state == DSM_SHARED;
		writers += n->copies[frame].state == DSM_EXCLUSIVE;
		if (n->copies[frame].state != DSM_INVALID)
			read_frame(w, n, frame);
		if (n->copies[frame].state != dsm_state(n->dsm, pfn_of(w, frame)))
			fail(w, "node %u holds frame %u in another state than the core says", i, frame);
	}
	if (writers > 1 || (writers && readers))
		fail(w, "frame %u has %u writers and %u readers", frame, writers, readers);
}

static void check(struct world *w)
{
	for (unsigned frame = 0; frame < w->options.frames; frame++)
		check_frame(w, frame);
	for (unsigned i = 0; i < w->options.nodes && !w->failure[0]; i++) {
		const char *broken = dsm_check(w->nodes[i].dsm);

		if (broken)
			fail(w, "node %u: %s", i, broken);
	}
}

static void step(struct world *w)
{
	unsigned frame = below(w, w->options.frames);
	struct node *n = &w->nodes[below(w, w->options.nodes)];
	unsigned dice = below(w, 100);

	w->now_ns += below(w, STEP_NS_MAX);
	if (dice < 50 && w->in_flight) {
		deliver(w);
	} else if (dice < 60) {
		dsm_tick(n->dsm, w->now_ns);
	} else if (dice < 63) {
		discard(w, frame);
	} else {
		touch(w, n, frame, dice < 83 ? DSM_SHARED : DSM_EXCLUSIVE);
	}
}

/* Let time pass until a node has something to do; false: none ever will. */
static bool pass_time(struct world *w)
{
	uint64_t next_ns = UINT64_MAX;

	for (unsigned i = 0; i < w->options.nodes; i++) {
		uint64_t ns = dsm_tick(w->nodes[i].dsm, w->now_ns);

		next_ns = ns < next_ns ? ns : next_ns;
	}
	if (next_ns != UINT64_MAX && next_ns > w->now_ns)
		w->now_ns = next_ns;
	return w->in_flight || next_ns != UINT64_MAX;
}

/* Ask nothing more.  A request may cost a GET, a FETCH, a GRANT, a DONE, and two messages for each holder. */
static void settle(struct world *w)
{
	unsigned long open = w->asked - w->ended;
	unsigned long limit = w->delivered + w->in_flight + open * 2 * (4 + 2 * w->options.nodes);
	uint64_t sent = 0, received = 0;

	while (!w->failure[0] && pass_time(w)) {
		if (w->in_flight)
			deliver(w);
		check(w);
		if (w->delivered > limit)
			fail(w, "%lu requests are not done after %lu messages", w->asked - w->ended, limit);
	}
	if (w->asked != w->ended)
		fail(w, "%lu requests of %lu never end", w->asked - w->ended, w->asked);
	for (unsigned i = 0; i < w->options.nodes; i++) {
		sent += dsm_stats(w->nodes[i].dsm)->page_out;
		received += dsm_stats(w->nodes[i].dsm)->page_in;
	}
	if (sent != received)
		fail(w, "%" PRIu64 " pages were sent and %" PRIu64 " received", sent, received);
}

static void world_start(struct world *w, const struct options *options)
{
	struct dsm_config config = { .nodes = options->nodes, .residence_ns = RESIDENCE_NS, .ops = &ops };

	*w = (struct world){ .options = *options, .random = options->seed, .now_ns = 1 };
	w->last = &w->first;
	for (unsigned i = 0; i < options->nodes; i++) {
		config.home[i].start = FIRST_PFN + i * NODE_STRIDE;
		config.home[i].count = (options->frames + options->nodes - 1 - i) / options->nodes;
	}
	for (unsigned i = 0; i < options->nodes; i++) {
		struct node *n = &w->nodes[i];

		n->world = w;
		n->number = config.self = i;
		config.ctx = n;
		config.residence_ns = harm(w, FAULT_NO_RESIDENCE) ? 0 : RESIDENCE_NS;
		n->dsm = dsm_new(&config);
		if (!n->dsm)
			abort();
		for (unsigned frame = i; frame < options->frames; frame += options->nodes)
			n->copies[frame].state = DSM_EXCLUSIVE;
	}
}

static void world_end(struct world *w)
{
	struct message *m;

	while ((m = w->first)) {
		w->first = m->next;
		free(m);
	}
	for (unsigned i = 0; i < w->options.nodes; i++)
		dsm_free(w->nodes[i].dsm);
}

/* Returns whether all went well; failure[] then says what did not. */
static bool run(const struct options *options, char *failure, size_t size)
{
	static struct world world;
	struct world *w = &world;
	unsigned long done;

	world_start(w, options);
	for (done = 0; done < options->steps && !w->failure[0]; done++) {
		step(w);
		check(w);
		if (done % SETTLE_STEPS == SETTLE_STEPS - 1 || done == options->steps - 1)
			settle(w);
	}
	snprintf(failure, size, "step %lu: %s", done, w->failure);
	world_end(w);
	return !w->failure[0];
}

static bool run_and_tell(const struct options *o)
{
	char failure[256];

	if (run(o, failure, sizeof(failure)))
		return true;
	printf("FAILED %s\nagain: sim --seed %" PRIu64 " --steps %lu --nodes %u --frames %u%s --trace\n", failure,
	       o->seed, o->steps, o->nodes, o->frames, o->reorder ? " --reorder" : "");
	return false;
}

/* The same seeds every time, for every size of machine, in order and not; and one nobody has tried. */
static bool run_fixed(const struct options *base)
{
	struct options o = *base;
	unsigned runs = 0;

	for (o.seed = 1; o.seed <= 40; o.seed++)
		for (o.nodes = 2; o.nodes <= NODES_MAX; o.nodes++, runs++) {
			o.frames = 1 + (o.seed + o.nodes) % 7;
			o.reorder = o.seed % 2;
			if (!run_and_tell(&o))
				return false;
		}
	o.seed = (uint64_t)time(NULL) * 1000003u % 1000000000;
	o.nodes = 2 + o.seed % (NODES_MAX - 1);
	o.frames = 1 + o.seed % 7;
	o.reorder = o.seed & 1;
	if (!run_and_tell(&o))
		return false;
	printf("%u fixed runs and random seed %" PRIu64 " of %lu steps: no error\n", runs, o.seed, o.steps);
	return true;
}

/* Each known harm must be found, by some seed. */
static bool find_faults(const struct options *base)
{
	struct options o = *base;
	char failure[256];
	bool found = true;

	for (o.fault = FAULT_NONE + 1; o.fault < FAULT_COUNT; o.fault++) {
		for (o.seed = 1; o.seed <= 20; o.seed++)
			if (!run(&o, failure, sizeof(failure)))
				break;
		if (o.seed > 20) {
			snprintf(failure, sizeof(failure), "NOT FOUND");
			found = false;
		}
		printf("%s: seed %" PRIu64 ", %s\n", fault_names[o.fault], o.seed, failure);
	}
	return found;
}

static const char usage[] =
	"usage: sim [--seed S] [--steps N] [--nodes K] [--frames F] [--reorder] [--fault I] [--trace]\n"
	"       sim --faults\n"
	"Without --seed: a fixed set of runs and a random one, then --faults.\n";

static unsigned long number(const char *name, const char *text, unsigned long min, unsigned long max)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max) {
		fprintf(stderr, "sim: --%s %s: give a number from %lu to %lu\n", name, text, min, max);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "seed", required_argument, NULL, 's' }, { "steps", required_argument, NULL, 'n' },
		{ "nodes", required_argument, NULL, 'k' }, { "frames", required_argument, NULL, 'f' },
		{ "reorder", no_argument, NULL, 'r' }, { "trace", no_argument, NULL, 't' },
		{ "fault", required_argument, NULL, 'x' }, { "faults", no_argument, NULL, 'F' }, { NULL, 0, NULL, 0 },
	};
	struct options o = { .steps = 4000, .nodes = 3, .frames = 3 };
	bool one = false, faults = false;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's': o.seed = number("seed", optarg, 0, ULONG_MAX); one = true; break;
		case 'n': o.steps = number("steps", optarg, 1, ULONG_MAX); break;
		case 'k': o.nodes = number("nodes", optarg, 2, NODES_MAX); break;
		case 'f': o.frames = number("frames", optarg, 1, FRAMES_MAX); break;
		case 'r': o.reorder = true; break;
		case 't': o.trace = true; break;
		case 'x': o.fault = number("fault", optarg, 0, FAULT_COUNT - 1); break;
		case 'F': faults = true; break;
		default: fputs(usage, stderr); return 2;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (one)
		return !run_and_tell(&o);
	if (faults)
		return !find_faults(&o);
	return !(run_fixed(&o) && find_faults(&o));
}
