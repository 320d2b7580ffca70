/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The coherence protocol of doc/coherence.md for a model checker: every order of everything, where the
 * simulator tries some.  Names are those of dsm/; the function modelled stands at each event.
 *
 * Three nodes; FRAMES frames, 1 (default) or 2, frame f at home on node f.  The threads of each node are a
 * process, its clock is one, and what it receives from each other node.  A step is one entry function of
 * dsm.h with all that it does, messages to self included.
 *
 *   links       The messages of a pair of nodes arrive in any order.  With -DDAEMON=1 they go as node/peers.c
 *               sends them over TCP: in order, those of all frames on one link, but DONE is put off for any
 *               time; what the node sends meanwhile, answers to what it receives included, may overtake it.
 *   requests    A node may ask for any frame at any moment, and need not wait for one before it asks for
 *               another: it has many threads, and looks ahead for pages that no thread waits for.  With
 *               -DREQUESTS=n all nodes together make n, discards among them, so that every run ends.
 *   content     One bit, 0 the zero frame: what a store changes is what a stale copy would not have.  One
 *               store each time that a node becomes Exclusive; a second would hide the stale copies again.
 *   time        Residence ends when the clock says so, which may be at any moment.  -DRESIDENCE=0: there is
 *               none, as when config.residence_ns is 0.
 *
 * Checked in every state: one writer or many readers; whoever may read sees the last store; no message is
 * refused.  Where nothing can happen any more, nobody waits and no message is left: with REQUESTS, every
 * request has ended.  With -DENDS and without REQUESTS: each request and each discard ends, if every process
 * that can make a step makes one some day.
 *
 *	spin -a [-DNAME=n]... coherence.pml
 *	cc -O1 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000 -n
 *	spin -a -DENDS [-DNAME=n]... coherence.pml
 *	cc -O1 -DNOREDUCE -DNFAIR=4 -DCOLLAPSE -o pan pan.c && ./pan -m200000 -n -a -f
 *
 * What is printed is for tests/model/tables: what happened in which state.
 *
 * -DBREAK=n breaks the protocol, which must be found:
 *   1 a holder acknowledges and keeps its copy     2 there is no DONE, the home goes on at once
 *   3 the home spares a holder                     4 a supplier of a writer keeps its copy
 *   5 a discard leaves the home's old content      6 an upgrade is granted although the copy was taken
 *   7 a store is lost when the frame is taken      8 a DONE that was put off is forgotten
 *   9 the home serves the newest request first, with -DENDS
 */
#define NODES		3
#ifndef FRAMES
#define FRAMES		1
#endif
#ifndef DAEMON
#define DAEMON		0
#endif
#ifndef RESIDENCE
#define RESIDENCE	1
#endif
#ifndef BREAK
#define BREAK		0
#endif

/* enum dsm_state */
#define INVALID		0
#define SHARED		1
#define EXCLUSIVE	2

/* enum dsm_payload */
#define NONE		0
#define ZERO		1
#define PAGE		2

/* enum phase */
#define IDLE		0
#define COOLING		1
#define WAITING		2
#define INVALIDATING	3
#define GRANTING	4

/* enum dsm_type */
mtype = { GET, FETCH, INVALIDATE, INVALIDATE_ACK, GRANT, DONE };

#define QUEUE_MAX	5	/* one GET waiting from each node, one being served, one discard */
#define LINK_MAX	(FRAMES * 3)

#define BIT(n)		(1 << (n))
#define ALL_BUT(n)	((1 << NODES) - 1 - BIT(n))
#define HOME(f)		(f)
#define LINK(m, n)	((m) * (NODES - 1) + (n) - ((n) > (m)))	/* from m to n */
#define NO_LINK		(NODES * (NODES - 1))

typedef Frame {
	/* on each node */
	byte state[NODES];
	byte asked[NODES];
	byte wanted[NODES];
	bit content[NODES];
	byte deferred;			/* nodes that have put off DONE */
	/* at home */
	byte holders;
	bit shared;
	byte phase;
	byte acks;
	byte resident;
	byte count;			/* of requests queued; from INVALIDATING on the first is served */
	byte node[QUEUE_MAX];
	byte want[QUEUE_MAX];		/* INVALID: a discard */
	bit discarding;
	/* what must be read */
	bit truth;
	bit stored;			/* since its node became Exclusive */
};

Frame frame[FRAMES];

/* frame, type, state, requester, payload */
chan net[NODES * (NODES - 1) + 1] = [LINK_MAX] of { byte, mtype, byte, byte, byte };
/* dsm.self_queue, and what has been received; empty between two steps.  From in place of frame. */
chan own = [2] of { mtype, byte, byte, byte, byte };

/* Of the step under way; all zero between two steps, or they would tell equal states apart. */
byte f, from, state, requester, payload, other, i, was;
bit served;
mtype type;

#define HERE		frame[f]
#define MINE		frame[f].state[self]
#define HOLDS(n)	(HERE.holders & BIT(n))
#define RIGHTS(n)	(HOLDS(n) -> (HERE.shared -> SHARED : EXCLUSIVE) : INVALID)
#define SERVING		(HERE.phase >= INVALIDATING)

#define COUNT(s)	((HERE.state[0] == s) + (HERE.state[1] == s) + (HERE.state[2] == s))
#define SEES_LAST_STORE(n) (HERE.state[n] == INVALID || HERE.content[n] == HERE.truth)

inline check()
{
	assert(COUNT(EXCLUSIVE) == 0 || (COUNT(EXCLUSIVE) == 1 && COUNT(SHARED) == 0));
	assert(SEES_LAST_STORE(0) && SEES_LAST_STORE(1) && SEES_LAST_STORE(2))
}

/* A frame that is given up is a hole, which reads as zero. */
inline set_state(to)
{
	MINE = to;
	if
	:: to == INVALID -> HERE.content[self] = 0
	:: to == EXCLUSIVE -> HERE.stored = 0
	:: else
	fi
}

/* send_overdue() for one frame, or at once */
inline send_now(to, kind, right, who, load)
{
	assert(nfull(net[LINK(self, to)]));
#if DAEMON
	net[LINK(self, to)]!f, kind, right, who, load
#else
	net[LINK(self, to)]!!f, kind, right, who, load
#endif
}

/* dsm_send(), and behind it peers_send() */
inline send(to, kind, right, who, load)
{
	if
	:: to == self -> own!kind, self, right, who, load
#if DAEMON || BREAK == 8
	:: to != self && kind == DONE -> HERE.deferred = HERE.deferred | BIT(self)
	:: to != self && kind != DONE -> send_now(to, kind, right, who, load)
#else
	:: else -> send_now(to, kind, right, who, load)
#endif
	fi
}

/* ---- the home: directory.c ---- */

#define SAY_REQUEST \
	printf("request %d entry %d requester %d ", HERE.want[0], HERE.shared, HOLDS(HERE.node[0]) != 0)

inline choose_supplier()	/* supplier(), into `other` */
{
	if
	:: HOLDS(self) -> other = self
	:: else ->
		other = 0;
		do
		:: HOLDS(other) -> break
		:: else -> other++
		od
	fi
}

inline fetch()
{
	HERE.phase = GRANTING;
	choose_supplier();
	send(other, FETCH, HERE.want[0], HERE.node[0], NONE)
}

inline grant_held()
{
	HERE.phase = GRANTING;
	send(HERE.node[0], GRANT, HERE.want[0], HERE.node[0], NONE)
}

inline invalidate(targets)
{
	HERE.phase = INVALIDATING;
	HERE.acks = targets;
#if BREAK == 3
	if
	:: HERE.acks & (HERE.acks - 1) -> HERE.acks = HERE.acks & (HERE.acks - 1)
	:: else
	fi;
#endif
	for (i : 0 .. NODES - 1) {
		if
		:: HERE.acks & BIT(i) -> send(i, INVALIDATE, INVALID, HERE.node[0], NONE)
		:: else
		fi
	}
}

inline start()
{
	if
	:: HERE.want[0] == INVALID ->
		SAY_REQUEST; printf("first INVALIDATE 0 0\n");
		invalidate(HERE.holders)
	:: HERE.want[0] != INVALID && RIGHTS(HERE.node[0]) >= HERE.want[0] ->
		assert(HERE.node[0] == self);	/* only after a discard */
		SAY_REQUEST; printf("first GRANT %d 0\n", HERE.want[0]);
		grant_held()
	:: HERE.want[0] > RIGHTS(HERE.node[0]) && (HERE.want[0] == SHARED || !HERE.shared) ->
		SAY_REQUEST; printf("first FETCH %d 0\n", HERE.want[0]);
		fetch()
	:: HERE.want[0] > RIGHTS(HERE.node[0]) && HERE.want[0] == EXCLUSIVE && HERE.shared ->
		SAY_REQUEST; printf("first INVALIDATE 0 0\n");
		if
		:: HOLDS(HERE.node[0]) -> other = HERE.node[0]
		:: else -> choose_supplier()
		fi;
		invalidate(HERE.holders & ALL_BUT(other))
	fi
}

#define CONFLICTS \
	(HERE.want[0] != INVALID && (HERE.resident & ALL_BUT(HERE.node[0])) && \
	 (HERE.want[0] == EXCLUSIVE || !HERE.shared))

inline advance()
{
	if
	:: HERE.count > 0 && CONFLICTS -> HERE.phase = WAITING
	:: HERE.count > 0 && !CONFLICTS -> start()
	:: HERE.count == 0 && HERE.resident != 0 -> HERE.phase = COOLING
	:: HERE.count == 0 && HERE.resident == 0 -> HERE.phase = IDLE
	fi
}

inline enqueue(who, what)
{
	assert(HERE.count < QUEUE_MAX);
	i = HERE.count;
#if BREAK == 9
	do
	:: i > SERVING -> HERE.node[i] = HERE.node[i - 1]; HERE.want[i] = HERE.want[i - 1]; i--
	:: else -> break
	od;
#endif
	HERE.node[i] = who;
	HERE.want[i] = what;
	HERE.count++;
	if
	:: HERE.phase == IDLE || HERE.phase == COOLING -> advance()
	:: else
	fi
}

/* directory_refuse_get() */
inline judge_get()
{
	other = RIGHTS(from);
	if	/* rights_afterwards(), into `other` */
	:: SERVING && HERE.node[0] == from && HERE.want[0] > other -> other = HERE.want[0]
	:: SERVING && HERE.node[0] != from && HERE.want[0] != SHARED -> other = INVALID
	:: SERVING && HERE.node[0] != from && HERE.want[0] == SHARED && other == EXCLUSIVE -> other = SHARED
	:: else
	fi;
	assert(self == HOME(f) && requester == from && state != INVALID && (other < state || from == self));
	for (i : 0 .. QUEUE_MAX - 1) {
		assert(i >= HERE.count || HERE.node[i] != from || HERE.want[i] == INVALID ||
		       (i == 0 && SERVING))
	}
}

inline served_to_end()
{
	HERE.phase = IDLE;
	HERE.count--;
	for (i : 0 .. QUEUE_MAX - 2) {
		HERE.node[i] = HERE.node[i + 1];
		HERE.want[i] = HERE.want[i + 1]
	}
	HERE.node[QUEUE_MAX - 1] = 0;
	HERE.want[QUEUE_MAX - 1] = 0;
	advance()
}

inline end_discard()
{
	SAY_REQUEST; printf("leaves 0\n");
	HERE.holders = BIT(self);
	HERE.shared = 0;
	HERE.truth = 0;
	set_state(EXCLUSIVE);
	HERE.resident = 0;
	HERE.discarding = 0;
	served_to_end()
}

inline change_entry()
{
	SAY_REQUEST; printf("leaves ");
	if
	:: RIGHTS(from) < HERE.want[0] && HERE.want[0] == SHARED ->
		HERE.holders = HERE.holders | BIT(from);
		HERE.shared = 1
	:: RIGHTS(from) < HERE.want[0] && HERE.want[0] == EXCLUSIVE ->
		HERE.holders = BIT(from);
		HERE.shared = 0
	:: else
	fi;
	printf("%d\n", HERE.shared);
	HERE.resident = (RESIDENCE -> HERE.resident | BIT(from) : 0)
}

#define SERVED_GET(n)	(SERVING && HERE.node[0] == n && HERE.want[0] != INVALID)

inline directory_get()
{
	judge_get();
	was = HERE.phase;
	served = SERVED_GET(from);
	enqueue(from, state);
	printf("home GET %d %d phase %d\n", was, served, HERE.phase)
}

inline directory_ack()
{
	assert(HERE.phase == INVALIDATING && requester == HERE.node[0] && (HERE.acks & BIT(from)));
	HERE.acks = HERE.acks & ALL_BUT(from);
	if
	:: HERE.acks != 0
	:: HERE.acks == 0 && HERE.want[0] == INVALID -> end_discard()
	:: HERE.acks == 0 && HERE.want[0] != INVALID && (HOLDS(HERE.node[0]) || BREAK == 6) ->
		SAY_REQUEST; printf("then GRANT 2 0\n");
		grant_held()
	:: HERE.acks == 0 && HERE.want[0] != INVALID && !(HOLDS(HERE.node[0]) || BREAK == 6) ->
		SAY_REQUEST; printf("then FETCH 2 0\n");
		fetch()
	fi;
	printf("home INVALIDATE_ACK %d 0 phase %d\n", INVALIDATING, HERE.phase)
}

inline directory_done()
{
	assert(HERE.phase == GRANTING && requester == from && HERE.node[0] == from);
	change_entry();
	served_to_end();
	printf("home DONE %d 0 phase %d\n", GRANTING, HERE.phase)
}

/* dsm_discard() and directory_discard() */
inline discard()
{
	was = HERE.phase;
	if
	:: HERE.count == 0 && HERE.holders == BIT(self) ->
		HERE.truth = 0;
		HERE.content[self] = (BREAK == 5 -> HERE.content[self] : 0);
		HERE.stored = 0
	:: else ->
		HERE.discarding = 1;
		enqueue(self, INVALID)
	fi;
	printf("home discard %d 0 phase %d\n", was, HERE.phase)
}

/* ---- requester and holder: cache.c ---- */


/* cache_ask() */
inline ask()
{
	HERE.asked[self] = HERE.wanted[self];
	send(HOME(f), GET, HERE.wanted[self], self, NONE)
}

inline cache_fetch()
{
	assert(from == HOME(f) && requester != self && MINE != INVALID);
	was = MINE;
	other = (HERE.content[self] != (BREAK == 7 && MINE == EXCLUSIVE && HERE.stored) -> PAGE : ZERO);
	if
	:: state == SHARED -> set_state(SHARED)
	:: state != SHARED && BREAK != 4 -> set_state(INVALID)
	:: else
	fi;
	send(requester, GRANT, state, requester, other);
	printf("holder FETCH %d %d at %d sends GRANT %d %d\n", state, payload, was, state, other);
	printf("holder FETCH %d %d at %d state %d\n", state, payload, was, MINE)
}

inline cache_invalidate()
{
	assert(from == HOME(f) && MINE != INVALID);
	was = MINE;
	if
	:: BREAK != 1 -> set_state(INVALID)
	:: else
	fi;
	send(HOME(f), INVALIDATE_ACK, INVALID, requester, NONE);
	printf("holder INVALIDATE 0 0 at %d sends INVALIDATE_ACK 0 0\n", was);
	printf("holder INVALIDATE 0 0 at %d state %d\n", was, MINE)
}

inline cache_grant()
{
	assert(requester == self && state != INVALID && state == HERE.asked[self]);
	assert((payload == NONE) == (MINE != INVALID) && (payload != NONE || from == HOME(f)));
	was = MINE;
	if
	:: payload != NONE -> HERE.content[self] = (payload == PAGE)
	:: else
	fi;
	if
	:: state > MINE -> set_state(state)
	:: else
	fi;
#if BREAK != 2
	send(HOME(f), DONE, INVALID, self, NONE);
#endif
	printf("holder GRANT %d %d at %d sends DONE 0 0\n", state, payload, was);
	printf("holder GRANT %d %d at %d state %d\n", state, payload, was, MINE);
	HERE.asked[self] = INVALID;
	if
	:: HERE.wanted[self] > MINE ->
		ask();
		printf("holder GRANT %d %d at %d sends GET %d 0\n", state, payload, was, HERE.wanted[self])
	:: else -> HERE.wanted[self] = INVALID
	fi
}

/* ---- steps ---- */

inline handle()
{
	if
	:: type == GET -> directory_get()
	:: type == FETCH -> cache_fetch()
	:: type == INVALIDATE -> cache_invalidate()
	:: type == INVALIDATE_ACK -> directory_ack()
	:: type == GRANT -> cache_grant()
	:: type == DONE -> directory_done()
	fi
}

/* handle_own() */
inline handle_own()
{
	do
	:: own?type, from, state, requester, payload -> handle()
	:: empty(own) -> break
	od;
	check();
	f = 0; from = 0; type = 0; state = 0; requester = 0; payload = 0;
	other = 0; i = 0; was = 0; served = 0
}

#ifdef REQUESTS
byte requests;
#define MAY_REQUEST	(requests < REQUESTS)
#define COUNT_REQUEST	requests++
#else
#define MAY_REQUEST	true
#define COUNT_REQUEST	skip
#endif

/* dsm_acquire() */
#define ACQUIRE(n, right) \
	:: role == THREADS && MAY_REQUEST && \
	   frame[n].state[self] < right && frame[n].wanted[self] < right -> \
		COUNT_REQUEST; \
		f = n; \
		HERE.wanted[self] = right; \
		if \
		:: HERE.asked[self] == INVALID -> \
			printf("holder wants %d 0 at %d sends GET %d 0\n", right, MINE, right); \
			ask() \
		:: else \
		fi

/* A load needs no step of its own: check() is every load that could happen.  No step depends on content. */
#ifdef ENDS
#define STORE(n)
#else
#define STORE(n) \
	:: role == THREADS && frame[n].state[self] == EXCLUSIVE && !frame[n].stored -> \
		f = n; \
		HERE.stored = 1; \
		HERE.truth = 1 - HERE.truth; \
		HERE.content[self] = HERE.truth
#endif

#define DISCARD(n) \
	:: role == THREADS && self == HOME(n) && MAY_REQUEST && !frame[n].discarding -> \
		COUNT_REQUEST; \
		f = n; \
		discard()

/* dsm_tick(): residence has passed */
#define TICK(n) \
	:: role == CLOCK && self == HOME(n) && frame[n].resident != 0 -> \
		f = n; \
		was = HERE.phase; \
		HERE.resident = 0; \
		if \
		:: HERE.phase == COOLING || HERE.phase == WAITING -> \
			advance(); \
			printf("home residence %d 0 phase %d\n", was, HERE.phase) \
		:: else \
		fi

/* dsm_receive() */
#define RECEIVE_TYPE(n, kind) \
	:: net[in]??eval(n), eval(kind), state, requester, payload -> \
		f = n; \
		own!kind, peer, state, requester, payload

#define RECEIVE(n) \
	RECEIVE_TYPE(n, GET) RECEIVE_TYPE(n, FETCH) RECEIVE_TYPE(n, INVALIDATE) \
	RECEIVE_TYPE(n, INVALIDATE_ACK) RECEIVE_TYPE(n, GRANT) RECEIVE_TYPE(n, DONE)

#define RECEIVE_IN_ORDER \
	:: nempty(net[in]) -> \
		net[in]?f, type, state, requester, payload; \
		own!type, peer, state, requester, payload

#if FRAMES > 1
#define DEFERRED	((frame[0].deferred | frame[1].deferred) & BIT(self))
#else
#define DEFERRED	(frame[0].deferred & BIT(self))
#endif

/* send_overdue() */
#define SETTLE \
	:: role == CLOCK && DEFERRED -> \
		for (f : 0 .. FRAMES - 1) { \
			if \
			:: HERE.deferred & BIT(self) -> \
				HERE.deferred = HERE.deferred & ALL_BUT(self); \
				send_now(HOME(f), DONE, INVALID, self, NONE) \
			:: else \
			fi \
		} \
		f = 0

#define GO_ON_AT_ONCE \
	:: role == CLOCK && self == HOME(0) && frame[0].phase == GRANTING -> \
		from = HERE.node[0]; \
		change_entry(); \
		served_to_end()

#define STEPS(n) \
	ACQUIRE(n, SHARED) ACQUIRE(n, EXCLUSIVE) STORE(n) DISCARD(n) TICK(n)

/* The threads of a node, its clock, or what it receives from a peer. */
#define THREADS		0
#define CLOCK		1
#define RECEIVER	2

proctype part(byte role, self, peer)
{
	byte in = (role == RECEIVER -> LINK(peer, self) : NO_LINK);

end:	do
	:: atomic {
		if
		STEPS(0)
#if FRAMES > 1
		STEPS(1)
#endif
#if DAEMON
		RECEIVE_IN_ORDER
#if BREAK != 8
		SETTLE
#endif
#else
		RECEIVE(0)
#if FRAMES > 1
		RECEIVE(1)
#endif
#endif
#if BREAK == 2
		GO_ON_AT_ONCE
#endif
		fi;
		d_step { handle_own() } }
	od
}

#define QUIET(n) \
	(frame[n].count == 0 && frame[n].phase == IDLE && !frame[n].discarding && !frame[n].deferred && \
	 frame[n].asked[0] + frame[n].asked[1] + frame[n].asked[2] == 0)

#ifdef ENDS
#define ENDS_FOR(n)	([]<> (frame[0].wanted[n] == INVALID))
ltl ends { ENDS_FOR(0) && ENDS_FOR(1) && ENDS_FOR(2) && ([]<> (frame[0].discarding == 0)) }
#endif

init {
	byte n, m;

	atomic {
		for (n : 0 .. FRAMES - 1) {
			frame[n].holders = BIT(HOME(n));
			frame[n].state[HOME(n)] = EXCLUSIVE
		}
		for (n : 0 .. NODES - 1) {
			run part(THREADS, n, n);
			run part(CLOCK, n, n);
			for (m : 0 .. NODES - 1) {
				if
				:: m != n -> run part(RECEIVER, n, m)
				:: else
				fi
			}
		}
		n = 0;
		m = 0
	}
end:	timeout ->
	for (n : 0 .. FRAMES - 1) {
		assert(QUIET(n))
	}
	for (n : 0 .. NODES * (NODES - 1) - 1) {
		assert(empty(net[n]))
	}
}
