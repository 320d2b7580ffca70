// SPDX-License-Identifier: GPL-2.0
/*
 * The home of a frame: who holds it, and one transaction at a time that changes that.
 *
 * An entry is Exclusive with one holder or Shared with several.  Requests (GETs of any node, discards of the
 * home) queue in order of arrival.  The first is served alone: nothing else is sent about the frame until
 * its requester has said DONE.  So every message of a transaction comes causally after all of the
 * previous one, and the protocol does not depend on the order in which messages of different, or even the
 * same, pairs of nodes arrive.
 *
 *   +------+                        start()
 *   | Idle |--------------------------------------------+
 *   +------+                                            v
 *      ^  residence                       +--------------------------------+
 *      |  has passed  +---------+ start() |                last            |
 *      +--------------| Cooling |-------->| Invalidating ---ack-> Granting |
 *                     +---------+         +--------------------------------+
 *                          | conflict        ^              |
 *                          |   +---------+   | due          | DONE, or the last ack of a discard:
 *                          +-->| Waiting |---+              v
 *                              +---------+            advance() to Waiting, on to the next request,
 *                                                     or with none to Cooling or Idle
 *
 *   want       entry                   first step                       then
 *   Shared     Exclusive(o)            fetch(): FETCH(Shared) to o      Shared{o, requester}
 *   Shared     Shared(s)               fetch(): FETCH(Shared) to one    Shared(s + requester)
 *   Exclusive  Exclusive(o)            fetch(): FETCH(Exclusive) to o   Exclusive(requester)
 *   Exclusive  Shared(s), requester    invalidate() the others,         Exclusive(requester)
 *              in s                    grant_held()
 *   Exclusive  Shared(s), requester    invalidate() all but one,        Exclusive(requester)
 *              not in s                fetch() from that one
 *   discard    any                     invalidate() all, end_discard()  Exclusive(home), zero
 *   any        home holds it already   grant_held()                     as before
 *
 * advance() decides between start(), Waiting, Cooling and Idle; served_to_end() follows DONE and the end of a
 * discard.  The setter of a phase is set_phase(), of an entry set_entry().
 *
 * Residence: whoever was granted a frame keeps it for config.residence_ns before another node's
 * conflicting request takes it, or two writers would spend their time passing the frame on.  A
 * struct frame stays for that time after its last request; at most COOLING_MAX idle ones do, and the oldest
 * loses its residence time when there would be more.  Readers behind a waiting writer wait with it, or they
 * could keep it waiting for ever.
 */
#include <assert.h>

#include "internal.h"

nodeset directory_holders(const struct dsm *d, uint64_t pfn)
{
	nodeset holders = frame_entry(d, pfn)->holders;

	return holders ? holders : node_bit(d->config.self);
}

enum dsm_state directory_rights(const struct dsm *d, uint64_t pfn, unsigned node)
{
	if (!(directory_holders(d, pfn) & node_bit(node)))
		return DSM_INVALID;
	return frame_entry(d, pfn)->shared ? DSM_SHARED : DSM_EXCLUSIVE;
}

static void set_entry(struct dsm *d, uint64_t pfn, enum dsm_state state, nodeset holders)
{
	struct entry *entry = frame_entry(d, pfn);

	entry->shared = state == DSM_SHARED;
	entry->holders = holders == node_bit(d->config.self) ? 0 : holders;
}

static void set_phase(struct dsm *d, struct frame *f, enum phase phase)
{
	if (f->phase == PHASE_COOLING) {
		TAILQ_REMOVE(&d->cooling, f, link);
		d->cooling_count--;
	}
	if (f->phase == PHASE_WAITING)
		TAILQ_REMOVE(&d->waiting, f, link);
	f->phase = phase;
	if (phase == PHASE_COOLING) {
		TAILQ_INSERT_TAIL(&d->cooling, f, link);
		d->cooling_count++;
	}
	if (phase == PHASE_WAITING)
		TAILQ_INSERT_TAIL(&d->waiting, f, link);
}

/* The request being served, or NULL. */
const struct request *directory_served(const struct frame *f)
{
	return f->phase >= PHASE_INVALIDATING ? TAILQ_FIRST(&f->queue) : NULL;
}

/* Is a GRANT of this node to the home itself due? */
bool directory_told_to_grant(const struct dsm *d, const struct frame *f, unsigned node)
{
	return f->phase == PHASE_GRANTING && TAILQ_FIRST(&f->queue)->node == d->config.self &&
	       f->granter == node;
}

/* The home if it holds the frame, for it has no network to cross; else any. */
static unsigned supplier(const struct dsm *d, uint64_t pfn)
{
	nodeset holders = directory_holders(d, pfn);

	return holders & node_bit(d->config.self) ? d->config.self : (unsigned)__builtin_ctz(holders);
}

static void set_granting(struct dsm *d, struct frame *f, unsigned granter)
{
	set_phase(d, f, PHASE_GRANTING);
	f->granter = granter;
	f->told_ns = d->now_ns;
}

static void fetch(struct dsm *d, struct frame *f)
{
	const struct request *r = TAILQ_FIRST(&f->queue);
	struct dsm_msg msg = { .type = DSM_FETCH, .state = r->want, .requester = r->node, .pfn = f->pfn };

	set_granting(d, f, supplier(d, f->pfn));
	dsm_send(d, f->granter, &msg);
}

static void grant_held(struct dsm *d, struct frame *f)
{
	const struct request *r = TAILQ_FIRST(&f->queue);
	struct dsm_msg msg = { .type = DSM_GRANT, .state = r->want, .requester = r->node, .pfn = f->pfn };

	set_granting(d, f, d->config.self);
	dsm_send(d, r->node, &msg);
}

static void invalidate(struct dsm *d, struct frame *f, nodeset targets)
{
	struct dsm_msg msg = {
		.type = DSM_INVALIDATE, .requester = TAILQ_FIRST(&f->queue)->node, .pfn = f->pfn,
	};

	set_phase(d, f, PHASE_INVALIDATING);
	f->acks = targets;
	for (unsigned node = 0; node < d->config.nodes; node++)
		if (targets & node_bit(node))
			dsm_send(d, node, &msg);
}

static void start(struct dsm *d, struct frame *f)
{
	const struct request *r = TAILQ_FIRST(&f->queue);
	enum dsm_state rights = directory_rights(d, f->pfn, r->node);
	nodeset holders = directory_holders(d, f->pfn);

	if (r->want == DSM_INVALID)
		invalidate(d, f, holders);
	else if (rights >= r->want)
		grant_held(d, f);
	else if (r->want == DSM_SHARED || !frame_entry(d, f->pfn)->shared)
		fetch(d, f);
	else
		invalidate(d, f, holders & ~node_bit(rights ? r->node : supplier(d, f->pfn)));
}

/* Would r take from a node what it was granted a moment ago? */
static bool conflicts(const struct dsm *d, const struct frame *f, const struct request *r)
{
	if (r->want == DSM_INVALID || !(f->resident & ~node_bit(r->node)))
		return false;
	return r->want == DSM_EXCLUSIVE || !frame_entry(d, f->pfn)->shared;
}

/* No request is being served: decide what happens next.  May free f. */
static void advance(struct dsm *d, struct frame *f)
{
	const struct request *r = TAILQ_FIRST(&f->queue);
	bool cooling = d->now_ns < f->until_ns;

	if (r && cooling && conflicts(d, f, r)) {
		set_phase(d, f, PHASE_WAITING);
	} else if (r) {
		start(d, f);
	} else {
		set_phase(d, f, cooling ? PHASE_COOLING : PHASE_IDLE);
		frame_release_idle(d, f);
	}
}

static void enqueue(struct dsm *d, struct frame *f, unsigned node, enum dsm_state want)
{
	struct request *r = request_take(d);

	r->node = node;
	r->want = want;
	TAILQ_INSERT_TAIL(&f->queue, r, link);
	if (f->phase == PHASE_IDLE || f->phase == PHASE_COOLING)
		advance(d, f);
}

static void served_to_end(struct dsm *d, struct frame *f)
{
	struct request *r = TAILQ_FIRST(&f->queue);

	TAILQ_REMOVE(&f->queue, r, link);
	request_put(d, r);
	set_phase(d, f, PHASE_IDLE);
	advance(d, f);
}

/* Every copy is gone. */
static void end_discard(struct dsm *d, struct frame *f)
{
	uint64_t pfn = f->pfn;

	set_entry(d, pfn, DSM_EXCLUSIVE, node_bit(d->config.self));
	frame_set_state(d, pfn, DSM_EXCLUSIVE);
	f->resident = 0;
	f->until_ns = 0;
	d->stats.discarded++;
	d->config.ops->install(d->config.ctx, pfn, DSM_EXCLUSIVE, DSM_PAYLOAD_ZERO, NULL);
	d->config.ops->discarded(d->config.ctx, pfn);
	served_to_end(d, f);
}

/* The rights that a node will have when the request being served has ended. */
static enum dsm_state rights_afterwards(const struct dsm *d, uint64_t pfn, unsigned node)
{
	const struct frame *f = frame_find(d, pfn);
	const struct request *served = f ? directory_served(f) : NULL;
	enum dsm_state rights = directory_rights(d, pfn, node);

	if (!served)
		return rights;
	if (served->node == node && served->want > rights)
		return served->want;
	if (served->node != node && served->want != DSM_SHARED)
		return DSM_INVALID;
	return served->node != node && rights == DSM_EXCLUSIVE ? DSM_SHARED : rights;
}

static bool is_queued(const struct frame *f, unsigned node)
{
	const struct request *r;

	TAILQ_FOREACH(r, &f->queue, link)
		if (r->node == node && r->want != DSM_INVALID && r != directory_served(f))
			return true;
	return false;
}

const char *directory_refuse_get(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	const struct frame *f;

	if (!frame_is_home(d, msg->pfn))
		return "GET of a frame that is not at home here";
	if (msg->requester != from)
		return "GET on behalf of another node";
	f = frame_find(d, msg->pfn);
	if (f && is_queued(f, from))
		return "GET while its last GET of the frame waits";
	if (from != d->config.self && rights_afterwards(d, msg->pfn, from) >= msg->state)
		return "GET of a right that it has";
	return NULL;
}

/* The frame, if `from` may answer in its present phase and answers for the request being served. */
static const struct frame *answered(const struct dsm *d, enum phase phase, const struct dsm_msg *msg)
{
	const struct frame *f = frame_is_home(d, msg->pfn) ? frame_find(d, msg->pfn) : NULL;

	return f && f->phase == phase && TAILQ_FIRST(&f->queue)->node == msg->requester ? f : NULL;
}

const char *directory_refuse_ack(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	const struct frame *f = answered(d, PHASE_INVALIDATING, msg);

	return f && f->acks & node_bit(from) ? NULL : "INVALIDATE_ACK that nobody waits for";
}

const char *directory_refuse_done(const struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	const struct frame *f = answered(d, PHASE_GRANTING, msg);

	return f && msg->requester == from ? NULL : "DONE that nobody waits for";
}

void directory_get(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	enqueue(d, frame_get(d, msg->pfn), from, msg->state);
}

void directory_ack(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	struct frame *f = frame_find(d, msg->pfn);
	const struct request *r = TAILQ_FIRST(&f->queue);

	f->acks &= ~node_bit(from);
	if (f->acks)
		return;
	if (r->want == DSM_INVALID)
		end_discard(d, f);
	else if (directory_rights(d, f->pfn, r->node))
		grant_held(d, f);
	else
		fetch(d, f);
}

/*
 * When the home may take the frame from the node whose DONE it has: residence_ns after the GRANT came there, less the
 * way of the message that takes it.  If ways take equally long, the GRANT came one way after the home sent it, or
 * after two of the three that a FETCH, the GRANT and DONE took.  Nodes far from the home and near it so have a
 * frame equally long, and each at least from its DONE until it has been asked for, a round trip: so the home
 * keeps it that long too.
 */
static uint64_t residence_end(struct dsm *d, const struct frame *f, unsigned node)
{
	uint64_t residence_ns = d->config.residence_ns, since_told_ns = d->now_ns - f->told_ns;
	uint64_t most_ns = ROUND_TRIP_MAX * residence_ns;

	if (node == d->config.self)
		return d->now_ns + (d->round_trip_ns > residence_ns ? d->round_trip_ns : residence_ns);
	if (f->granter != d->config.self)
		return f->told_ns + since_told_ns / 3 + residence_ns;
	d->round_trip_ns = (d->round_trip_ns * 7 + (since_told_ns < most_ns ? since_told_ns : most_ns)) / 8;
	return f->told_ns + residence_ns;
}

void directory_done(struct dsm *d, unsigned from, const struct dsm_msg *msg)
{
	struct frame *f = frame_find(d, msg->pfn);
	const struct request *r = TAILQ_FIRST(&f->queue);
	uint64_t until_ns;

	if (directory_rights(d, f->pfn, from) < r->want) {
		nodeset kept = r->want == DSM_SHARED ? directory_holders(d, f->pfn) : 0;

		set_entry(d, f->pfn, r->want, kept | node_bit(from));
	}
	if (d->now_ns >= f->until_ns)
		f->resident = 0;
	f->resident |= node_bit(from);
	until_ns = residence_end(d, f, from);
	if (f->until_ns < until_ns)
		f->until_ns = until_ns;
	served_to_end(d, f);
}

/* Returns true when it was done at once, for the home alone holds the frame and serves nobody. */
bool directory_discard(struct dsm *d, uint64_t pfn)
{
	const struct frame *f = frame_find(d, pfn);

	if ((f && !TAILQ_EMPTY(&f->queue)) || directory_rights(d, pfn, d->config.self) != DSM_EXCLUSIVE) {
		enqueue(d, frame_get(d, pfn), d->config.self, DSM_INVALID);
		return false;
	}
	/* Exclusive all the time: who discards sees to it that nobody uses the frame */
	d->config.ops->revoke(d->config.ctx, pfn, DSM_EXCLUSIVE, DSM_INVALID, NULL);
	d->config.ops->install(d->config.ctx, pfn, DSM_EXCLUSIVE, DSM_PAYLOAD_ZERO, NULL);
	d->stats.discarded++;
	return true;
}

void directory_forget_cooled(struct dsm *d)
{
	struct frame *f;

	while ((f = TAILQ_FIRST(&d->cooling)) &&
	       (f->until_ns <= d->now_ns || d->cooling_count > COOLING_MAX)) {
		set_phase(d, f, PHASE_IDLE);
		frame_release_idle(d, f);
	}
}

/* Continue one frame whose first request has waited long enough; false: there is none. */
bool directory_continue_due(struct dsm *d)
{
	struct frame *f;

	TAILQ_FOREACH(f, &d->waiting, link)
		if (f->until_ns <= d->now_ns) {
			advance(d, f);
			return true;
		}
	return false;
}

uint64_t directory_deadline(const struct dsm *d)
{
	uint64_t deadline_ns = UINT64_MAX;
	const struct frame *f;

	TAILQ_FOREACH(f, &d->waiting, link)
		if (f->until_ns < deadline_ns)
			deadline_ns = f->until_ns;
	return deadline_ns;
}
