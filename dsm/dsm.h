/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Coherence of frames between nodes: the state machine of one node.
 *
 * Pure: no I/O, no clock, no allocation hidden from the caller, no thread.  Events go in through
 * dsm_acquire(), dsm_discard(), dsm_receive() and dsm_tick(); actions come out through struct dsm_ops,
 * called before the entry function returns.  The caller serialises all calls on one instance.
 * The protocol, its states and the reasons stand in doc/coherence.md.
 */
#ifndef PANGEA_DSM_H
#define PANGEA_DSM_H

#include <stddef.h>
#include <stdint.h>

#define DSM_NODES_MAX	16
#define DSM_PAGE_SIZE	4096

enum dsm_state { DSM_INVALID = 0, DSM_SHARED = 1, DSM_EXCLUSIVE = 2 };

enum dsm_type { DSM_GET, DSM_FETCH, DSM_INVALIDATE, DSM_INVALIDATE_ACK, DSM_GRANT, DSM_DONE };

/* What a GRANT carries: nothing (the receiver's copy is current), "all zero", or a page. */
enum dsm_payload { DSM_PAYLOAD_NONE = 0, DSM_PAYLOAD_ZERO = 1, DSM_PAYLOAD_PAGE = 2 };

struct dsm_msg {
	enum dsm_type type;
	enum dsm_state state;		/* wanted (GET, FETCH) or granted (GRANT) */
	unsigned requester;		/* node on whose behalf */
	enum dsm_payload payload;	/* GRANT only */
	uint64_t pfn;
	const void *page;		/* DSM_PAYLOAD_PAGE: DSM_PAGE_SIZE bytes, valid during the call only */
};

/* Called within the core's entry functions; none may call into the core. */
struct dsm_ops {
	/* Queue msg for another node (never this one).  Must not block. */
	void (*send)(void *ctx, unsigned to, const struct dsm_msg *msg);
	/*
	 * Reduce this node's rights on a frame from `have` to `keep` (from Exclusive to Shared or Invalid, from
	 * Shared to Invalid; Shared to Shared: only read); config.states says `keep` already, so that who looks
	 * there and then makes an entry finds it gone.  If page is not NULL, *page is where what the frame holds
	 * after the last store that could still happen can be read: by send(), which is told it next, and not
	 * necessarily before.  Returns DSM_PAYLOAD_ZERO if that is all zero (*page may then be anything), else
	 * DSM_PAYLOAD_PAGE; DSM_PAYLOAD_NONE if page is NULL.
	 */
	enum dsm_payload (*revoke)(void *ctx, uint64_t pfn, enum dsm_state have, enum dsm_state keep,
				   const void **page);
	/*
	 * This node is about to hold `state`, and config.states says so afterwards.  With DSM_PAYLOAD_ZERO or _PAGE it was Invalid before and the payload
	 * is what the frame holds; with DSM_PAYLOAD_NONE it has the content already (Shared to Exclusive).
	 */
	void (*install)(void *ctx, uint64_t pfn, enum dsm_state state,
			enum dsm_payload payload, const void *page);
	/*
	 * This node's acquires of pfn up to `state`, the rights it holds now, are satisfied.  Acquires
	 * that wanted more are still pending: another ready() follows for them, nothing need be asked again.
	 * Always after install(); never within the dsm_acquire() it answers.  The rights may be gone before the
	 * caller's thread runs: it then simply faults and acquires again.
	 */
	void (*ready)(void *ctx, uint64_t pfn, enum dsm_state state);
	/* The oldest dsm_discard() of pfn that returned 1 has ended: the frame reads as zero. */
	void (*discarded)(void *ctx, uint64_t pfn);
};

struct dsm_range { uint64_t start, count; };	/* frames */

struct dsm_config {
	unsigned self, nodes;
	struct dsm_range home[DSM_NODES_MAX];	/* frames at home on each node; ascending, no overlap */
	/*
	 * Where to keep this node's rights, for others to look at: a byte for each frame from the first range's start
	 * to the last one's end, all zero at first.  dsm_state() xor its state at the start.  NULL: nowhere.
	 */
	uint8_t *states;
	uint64_t residence_ns;	/* a granted frame stays so long before another node takes it, if ways take equally long */
	const struct dsm_ops *ops;
	void *ctx;
};

struct dsm;

/* NULL when out of memory.  Every frame starts Exclusive at its home. */
struct dsm *dsm_new(const struct dsm_config *config);
void dsm_free(struct dsm *d);

/* The home of pfn, or config.nodes when no range holds it. */
unsigned dsm_home(const struct dsm *d, uint64_t pfn);
/* Rights that this node has now.  pfn must have a home. */
enum dsm_state dsm_state(const struct dsm *d, uint64_t pfn);

/*
 * Want DSM_SHARED or DSM_EXCLUSIVE.  Returns 0 when this node already has the rights; 1: ops->ready follows
 * with at least `want`, once for all callers, after possibly one with less; -EINVAL: no such frame; -ENOMEM.
 * A second acquire of a pending frame sends nothing unless it wants more, and then not before the
 * first is granted.
 */
int dsm_acquire(struct dsm *d, uint64_t pfn, enum dsm_state want, uint64_t now_ns);

/*
 * Home only: nobody needs what the frame holds.  Returns 0 when done, 1 when ops->discarded follows, once for
 * each such call; -EINVAL: not at home here; -ENOMEM.
 */
int dsm_discard(struct dsm *d, uint64_t pfn, uint64_t now_ns);

/*
 * Returns 0, or with nothing changed and *why set to one line: -EPROTO: the peer `from` broke the protocol;
 * -ENOMEM.  `from` is another node of the machine, known from the link.
 */
int dsm_receive(struct dsm *d, unsigned from, const struct dsm_msg *msg, uint64_t now_ns,
		const char **why);

/*
 * Continue what waited for residence to end.  Returns when to call it next, or UINT64_MAX: nothing waits.
 * Any other entry function may make something wait, so ask again after it.
 */
uint64_t dsm_tick(struct dsm *d, uint64_t now_ns);

/* Counters for status and bench; monotonic. */
struct dsm_stats {
	uint64_t read_miss, write_miss, upgrade;	/* GETs sent: for reading; for writing, without and */
							/* with a copy */
	uint64_t page_in, page_out, zero_in;		/* GRANTs: received, sent with a page; received with zero */
	uint64_t invalidated;				/* copies that were taken from this node */
	uint64_t discarded;				/* discards that ended here */
};
const struct dsm_stats *dsm_stats(const struct dsm *d);

/* For tests: which invariant of this instance is broken, or NULL.  Visits every frame at home. */
const char *dsm_check(const struct dsm *d);

#endif
