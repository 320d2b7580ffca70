/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the coherence core share.  Nobody outside dsm/ includes this.
 *
 *   dsm.c        entry functions, dispatch of messages, messages to self
 *   cache.c      this node as requester and holder of frames, whoever their home is
 *   directory.c  this node as home: who holds what, one transaction at a time per frame
 *   frame.c      where it is all kept: state array, directory array, frames with work in flight
 *   check.c      the invariants, for tests
 */
#ifndef PANGEA_DSM_INTERNAL_H
#define PANGEA_DSM_INTERNAL_H

#include <stdbool.h>
#include <sys/queue.h>

#include "dsm.h"

typedef uint16_t nodeset;

_Static_assert(sizeof(nodeset) * 8 >= DSM_NODES_MAX, "a nodeset has one bit for each node");

#define FRAME_BUCKETS	1024	/* of the table of frames in flight; a power of two */
#define ROUND_TRIP_MAX	8	/* residence times: who answers later is not waited for */
#define COOLING_MAX	1024	/* idle frames remembered for their residence only */
#define SELF_MAX	8	/* messages to self within one entry: one frame, at most two a message */

/* A directory entry.  All zero: Exclusive at home, so an untouched frame costs no memory. */
struct entry {
	nodeset holders;	/* empty: the home alone */
	uint16_t shared;	/* 0: Exclusive, one holder; 1: Shared, at least two */
};

/* A place in a frame's queue at home: a GET, or with want == DSM_INVALID a discard by the home. */
struct request {
	TAILQ_ENTRY(request) link;
	unsigned node;
	enum dsm_state want;
};

TAILQ_HEAD(request_list, request);

/* What the home does with a frame; the diagram is in directory.c. */
enum phase {
	PHASE_IDLE,		/* nothing */
	PHASE_COOLING,		/* nobody asks, residence has not passed */
	PHASE_WAITING,		/* the first request waits until residence has passed */
	PHASE_INVALIDATING,	/* the first request waits for INVALIDATE_ACKs */
	PHASE_GRANTING,		/* the first request waits for its requester's DONE */
};

/* A frame with work in flight here; all others live in the two arrays only. */
struct frame {
	uint64_t pfn;
	LIST_ENTRY(frame) bucket;
	/* cache half */
	enum dsm_state asked;		/* in the GET that is not yet granted; DSM_INVALID: none */
	enum dsm_state wanted;		/* by local callers, at least `asked`; DSM_INVALID: nothing */
	/* home half */
	enum phase phase;
	TAILQ_ENTRY(frame) link;	/* d->cooling or d->waiting, by phase; d->frame_pool when unused */
	struct request_list queue;	/* FIFO; the first is the one being served from INVALIDATING on */
	nodeset acks;			/* INVALIDATE_ACKs still to come */
	unsigned granter;		/* while Granting: the node that was told to send the GRANT */
	uint64_t told_ns;		/* and when */
	nodeset resident;		/* nodes granted less than a residence time before the next */
	uint64_t until_ns;		/* when the last of them has had its residence time */
};

TAILQ_HEAD(frame_list, frame);

struct dsm {
	struct dsm_config config;
	uint64_t first_pfn, pfn_count;	/* what the state array spans, gaps included */
	uint64_t now_ns;		/* latest time that any caller told */
	uint8_t *states;		/* of all frames, xor the frame's first state here */
	struct entry *entries;		/* of the frames at home here */
	LIST_HEAD(, frame) buckets[FRAME_BUCKETS];
	struct frame_list cooling;	/* in order of their DONEs, so about in that of until_ns */
	struct frame_list waiting;
	size_t cooling_count;
	uint64_t round_trip_ns;		/* from the home's GRANT to DONE, smoothed */
	struct frame_list frame_pool;	/* unused; each entry function makes sure of one of each first */
	struct request_list request_pool;
	struct dsm_msg self_queue[SELF_MAX];
	unsigned self_first, self_count;
	struct dsm_stats stats;
};

static inline nodeset node_bit(unsigned node)
{
	return (nodeset)(1u << node);
}

/* dsm.c */
void dsm_send(struct dsm *d, unsigned to, const struct dsm_msg *msg);

/* frame.c */
bool frame_is_home(const struct dsm *d, uint64_t pfn);
void frame_set_state(struct dsm *d, uint64_t pfn, enum dsm_state state);
struct entry *frame_entry(const struct dsm *d, uint64_t pfn);
struct frame *frame_find(const struct dsm *d, uint64_t pfn);
struct frame *frame_get(struct dsm *d, uint64_t pfn);
void frame_release_idle(struct dsm *d, struct frame *f);
int frame_reserve(struct dsm *d);
struct request *request_take(struct dsm *d);
void request_put(struct dsm *d, struct request *r);

/* cache.c: *_refuse() return why a message is impossible, or NULL */
void cache_ask(struct dsm *d, struct frame *f);
const char *cache_refuse_fetch(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
const char *cache_refuse_invalidate(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
const char *cache_refuse_grant(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
void cache_fetch(struct dsm *d, unsigned from, const struct dsm_msg *msg);
void cache_invalidate(struct dsm *d, unsigned from, const struct dsm_msg *msg);
void cache_grant(struct dsm *d, unsigned from, const struct dsm_msg *msg);

/* directory.c */
nodeset directory_holders(const struct dsm *d, uint64_t pfn);
enum dsm_state directory_rights(const struct dsm *d, uint64_t pfn, unsigned node);
const struct request *directory_served(const struct frame *f);
bool directory_told_to_grant(const struct dsm *d, const struct frame *f, unsigned node);
const char *directory_refuse_get(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
const char *directory_refuse_ack(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
const char *directory_refuse_done(const struct dsm *d, unsigned from, const struct dsm_msg *msg);
void directory_get(struct dsm *d, unsigned from, const struct dsm_msg *msg);
void directory_ack(struct dsm *d, unsigned from, const struct dsm_msg *msg);
void directory_done(struct dsm *d, unsigned from, const struct dsm_msg *msg);
bool directory_discard(struct dsm *d, uint64_t pfn);
void directory_forget_cooled(struct dsm *d);
bool directory_continue_due(struct dsm *d);
uint64_t directory_deadline(const struct dsm *d);

#endif
