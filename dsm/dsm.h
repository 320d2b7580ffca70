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

struct dsm_ops {
	/* Queue msg for another node (never this one).  Must not block and must not call into the core. */
	void (*send)(void *ctx, unsigned to, const struct dsm_msg *msg);
	/*
	 * Reduce this node's rights on a frame to `keep` (from Exclusive to Shared or Invalid, from Shared
	 * to Invalid; equal rights: only read).  If page is not NULL, copy what the frame holds after
	 * the last store that could still happen to page[DSM_PAGE_SIZE].  Returns DSM_PAYLOAD_ZERO if that is all zero
	 * (page is then not filled), else DSM_PAYLOAD_PAGE; DSM_PAYLOAD_NONE if page is NULL.
	 */
	enum dsm_payload (*revoke)(void *ctx, uint64_t pfn, enum dsm_state keep, void *page);
	/* This node now holds `state`; the payload replaces what it held, unless it is DSM_PAYLOAD_NONE. */
	void (*install)(void *ctx, uint64_t pfn, enum dsm_state state,
			enum dsm_payload payload, const void *page);
	/* Requests of this node on pfn up to `state` are satisfied now (always after install). */
	void (*ready)(void *ctx, uint64_t pfn, enum dsm_state state);
	/* A dsm_discard() that returned 1 has ended: the frame reads as zero. */
	void (*discarded)(void *ctx, uint64_t pfn);
};

struct dsm_range { uint64_t start, count; };	/* frames */

struct dsm_config {
	unsigned self, nodes;
	struct dsm_range home[DSM_NODES_MAX];	/* frames at home on each node; ascending, no overlap */
	uint64_t residence_ns;	/* a granted frame stays at least so long before another node gets it */
	const struct dsm_ops *ops;
	void *ctx;
};

struct dsm;

/* NULL when out of memory.  Every frame starts Exclusive at its home. */
struct dsm *dsm_new(const struct dsm_config *config);
void dsm_free(struct dsm *d);

unsigned dsm_home(const struct dsm *d, uint64_t pfn);
/* Rights that this node has now. */
enum dsm_state dsm_state(const struct dsm *d, uint64_t pfn);

/* Returns 0 when this node already has the rights; 1: ops->ready follows, once, for all callers;
 * -ENOMEM. A second acquire of a pending frame sends nothing unless it wants more. */
int dsm_acquire(struct dsm *d, uint64_t pfn, enum dsm_state want, uint64_t now_ns);

/* Home only: nobody needs what the frame holds.  Returns 0 when done, 1 when ops->discarded follows;
 * -EINVAL: not at home here; -ENOMEM. */
int dsm_discard(struct dsm *d, uint64_t pfn, uint64_t now_ns);

/* Returns 0, or -EPROTO with *why set to one line: the peer `from` broke the protocol (nothing was changed). */
int dsm_receive(struct dsm *d, unsigned from, const struct dsm_msg *msg, uint64_t now_ns,
		const char **why);

/* Continue what waited for residence to end.  Returns the next deadline, or UINT64_MAX. */
uint64_t dsm_tick(struct dsm *d, uint64_t now_ns);

/* Counters for status and bench; monotonic. */
struct dsm_stats {
	uint64_t read_miss, write_miss, upgrade, page_in, page_out, zero_in, invalidated, discarded;
};
const struct dsm_stats *dsm_stats(const struct dsm *d);

#endif
