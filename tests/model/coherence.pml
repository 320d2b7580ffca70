/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The coherence protocol of doc/coherence.md for a model checker: every order of everything, where the
 * simulator tries some.  Names are those of dsm/; the function modelled stands at each event.
 *
 * Three nodes; FRAMES frames (default 1), frame f at home on node f % 3; one process for each node and
 * frame.  Messages travel in any order, those to self too.  Content is one bit, 0 the zero frame: what a
 * store changes is what a stale copy would not have.  Time is not modelled: residence only delays what
 * the home may do at any moment, so every behaviour with residence is one without.
 *
 * Checked in every state: one writer or many readers; whoever may read sees the last store; no message is
 * refused.  When nothing can happen any more, nobody waits.  With REQUESTS=n each node makes at most n
 * requests for each frame, so every run ends, and this means that every request is granted.
 *
 *	spin -a [-DREQUESTS=n] [-DFRAMES=n] coherence.pml
 *	cc -O1 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m1000000 -n
 *
 * -DBREAK=n breaks the protocol, which must be found:
 *   1 a holder acknowledges and keeps its copy     2 the home does not wait for DONE
 *   3 the home spares a holder                     4 a supplier of a writer keeps its copy
 *   5 a discard leaves the home's old content      6 an upgrade is granted although the copy was taken
 */
#define NODES		3
#ifndef FRAMES
#define FRAMES		1
#endif
#ifndef BREAK
#define BREAK		0
#endif

#define INVALID		0
#define SHARED		1
#define EXCLUSIVE	2

#define NONE		0	/* payloads */
#define ZERO		1
#define PAGE		2

#define IDLE		0	/* phases; Cooling and Waiting are matters of time */
#define INVALIDATING	1
#define GRANTING	2

#define QUEUE_MAX	5	/* one GET waiting from each node, one being served, one discard */

#define BIT(n)		(1 << (n))
#define ALL_BUT(n)	((1 << NODES) - 1 - BIT(n))

mtype = { GET, FETCH, INVALIDATE, INVALIDATE_ACK, GRANT, DONE };

typedef Frame {
	/* on each node */
	byte state[NODES];
	byte asked[NODES];
	byte wanted[NODES];
	bit content[NODES];
	/* at home */
	byte holders;
	bit shared;
	byte phase;
	byte acks;
	byte count;			/* of requests in the queue; the first is served unless IDLE */
	byte node[QUEUE_MAX];
	byte want[QUEUE_MAX];		/* INVALID: a discard */
	bit discarding;
	/* what must be read */
	bit truth;
};

Frame frame[FRAMES];

/* type, to, from, state, requester, payload */
chan net[FRAMES] = [12] of { mtype, byte, byte, byte, byte, byte };

#define HERE		frame[f]
#define MINE		frame[f].state[self]
#define HOLDS(n)	(HERE.holders & BIT(n))

#define QUIET(f) \
	(frame[f].count == 0 && frame[f].phase == IDLE && !frame[f].discarding && empty(net[f]) && \
	 frame[f].asked[0] + frame[f].asked[1] + frame[f].asked[2] == 0)

#define SEES_LAST_STORE(n) (HERE.state[n] == INVALID || HERE.content[n] == HERE.truth)
#define COUNT(s)	((HERE.state[0] == s) + (HERE.state[1] == s) + (HERE.state[2] == s))

inline check()
{
	assert(COUNT(EXCLUSIVE) == 0 || (COUNT(EXCLUSIVE) == 1 && COUNT(SHARED) == 0));
	assert(SEES_LAST_STORE(0) && SEES_LAST_STORE(1) && SEES_LAST_STORE(2))
}

/* dsm_send() */
#define send(type, to, state, requester, payload) \
	net[f]!!type, to, self, state, requester, payload

/* ---- the home: directory.c ---- */

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
	send(FETCH, other, HERE.want[0], HERE.node[0], NONE)
}

inline grant_held()
{
	HERE.phase = GRANTING;
	send(GRANT, HERE.node[0], HERE.want[0], HERE.node[0], NONE)
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
		:: HERE.acks & BIT(i) -> send(INVALIDATE, i, INVALID, HERE.node[0], NONE)
		:: else
		fi
	}
	i = 0
}

inline start()
{
	if
	:: HERE.want[0] == INVALID -> invalidate(HERE.holders)
	:: HERE.want[0] != INVALID && HOLDS(HERE.node[0]) && (!HERE.shared || HERE.want[0] == SHARED) ->
		assert(HERE.node[0] == self);	/* only after a discard */
		grant_held()
	:: HERE.want[0] == SHARED && !HOLDS(HERE.node[0]) -> fetch()
	:: HERE.want[0] == EXCLUSIVE && !HERE.shared && !HOLDS(HERE.node[0]) -> fetch()
	:: HERE.want[0] == EXCLUSIVE && HERE.shared ->
		if
		:: HOLDS(HERE.node[0]) -> other = HERE.node[0]
		:: else -> choose_supplier()
		fi;
		invalidate(HERE.holders & ALL_BUT(other))
	fi
}

inline advance()
{
	if
	:: HERE.phase == IDLE && HERE.count > 0 -> start()
	:: else
	fi
}

inline enqueue(who, what)
{
	assert(HERE.count < QUEUE_MAX);
	HERE.node[HERE.count] = who;
	HERE.want[HERE.count] = what;
	HERE.count++;
	advance()
}

/* directory_refuse_get() */
inline judge_get(who, what)
{
	other = (HOLDS(who) -> (HERE.shared -> SHARED : EXCLUSIVE) : INVALID);
	if	/* rights_afterwards(), into `other` */
	:: HERE.phase != IDLE && HERE.node[0] == who && HERE.want[0] > other -> other = HERE.want[0]
	:: HERE.phase != IDLE && HERE.node[0] != who && HERE.want[0] != SHARED -> other = INVALID
	:: HERE.phase != IDLE && HERE.node[0] != who && HERE.want[0] == SHARED && other == EXCLUSIVE ->
		other = SHARED
	:: else
	fi;
	assert(what != INVALID && (other < what || who == self));
	for (i : 1 .. QUEUE_MAX - 1) {
		assert(i >= HERE.count || HERE.node[i] != who || HERE.want[i] == INVALID)
	}
	i = 0
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
	i = 0;
	advance()
}

inline end_discard()
{
	HERE.holders = BIT(self);
	HERE.shared = 0;
	HERE.truth = 0;
	MINE = EXCLUSIVE;
#if BREAK != 5
	HERE.content[self] = 0;
#endif
	HERE.discarding = 0;
	served_to_end()
}

inline acknowledged()
{
	if
	:: HERE.want[0] == INVALID -> end_discard()
	:: HERE.want[0] != INVALID && (HOLDS(HERE.node[0]) || BREAK == 6) -> grant_held()
	:: else -> fetch()
	fi
}

inline change_entry()
{
	if
	:: HERE.want[0] == SHARED && !HOLDS(HERE.node[0]) ->
		HERE.holders = HERE.holders | BIT(HERE.node[0]);
		HERE.shared = 1
	:: HERE.want[0] == EXCLUSIVE ->
		HERE.holders = BIT(HERE.node[0]);
		HERE.shared = 0
	:: else
	fi
}

/* ---- requester and holder: cache.c ---- */

inline ask()
{
	HERE.asked[self] = HERE.wanted[self];
	send(GET, home, HERE.wanted[self], self, NONE)
}

inline granted()
{
	if
	:: payload == NONE -> assert(MINE != INVALID && from == home)
	:: else ->
		assert(MINE == INVALID);
		HERE.content[self] = (payload == PAGE)
	fi;
	if
	:: state > MINE -> MINE = state
	:: else
	fi;
	send(DONE, home, INVALID, self, NONE);
	HERE.asked[self] = INVALID;
	if
	:: HERE.wanted[self] > MINE -> ask()
	:: else -> HERE.wanted[self] = INVALID
	fi
}

/* ---- one node and one frame ---- */

#ifdef REQUESTS
#define MAY_REQUEST	(requests < REQUESTS)
#define COUNT_REQUEST	requests++
#else
#define MAY_REQUEST	true
#define COUNT_REQUEST	skip
#endif

/* dsm_acquire() */
#define ACQUIRE(w) \
	atomic { MAY_REQUEST && MINE < w && HERE.wanted[self] < w -> \
		COUNT_REQUEST; \
		HERE.wanted[self] = w; \
		if \
		:: HERE.asked[self] == INVALID -> ask() \
		:: else \
		fi }

/* directory_get(); which of several nodes' GETs comes first is anybody's guess */
#define RECEIVE_GET(n) \
	atomic { net[f]??GET, eval(self), eval(n), state, requester, payload -> \
		assert(self == home && requester == n); \
		judge_get(n, state); \
		enqueue(n, state); \
		FORGET }

/* What an event leaves in its variables must not tell two equal states apart. */
#define FORGET	from = 0; state = 0; requester = 0; payload = 0; other = 0; check()

proctype member(byte f, self)
{
	byte home = f % NODES;
	byte from, state, requester, payload, other, i;
#ifdef REQUESTS
	byte requests;
#endif

end:	do
	:: ACQUIRE(SHARED)
	:: ACQUIRE(EXCLUSIVE)

	/* a store; check() is every load that could happen */
	:: atomic { MINE == EXCLUSIVE ->
		HERE.truth = 1 - HERE.truth;
		HERE.content[self] = HERE.truth;
		check() }

	/* dsm_discard() */
	:: atomic { self == home && MAY_REQUEST && !HERE.discarding ->
		COUNT_REQUEST;
		if
		:: HERE.count == 0 && HERE.holders == BIT(self) ->
			HERE.truth = 0;
			HERE.content[self] = 0
		:: else ->
			HERE.discarding = 1;
			enqueue(self, INVALID)
		fi;
		FORGET }

	:: RECEIVE_GET(0)
	:: RECEIVE_GET(1)
	:: RECEIVE_GET(2)

	/* cache_fetch() */
	:: atomic { net[f]??FETCH, eval(self), from, state, requester, payload ->
		assert(from == home && requester != self && MINE != INVALID);
		if
		:: state == SHARED -> MINE = SHARED
		:: state != SHARED && BREAK != 4 -> MINE = INVALID
		:: else
		fi;
		send(GRANT, requester, state, requester, (HERE.content[self] -> PAGE : ZERO));
		FORGET }

	/* cache_invalidate() */
	:: atomic { net[f]??INVALIDATE, eval(self), from, state, requester, payload ->
		assert(from == home && MINE != INVALID);
		if
		:: BREAK != 1 -> MINE = INVALID
		:: else
		fi;
		send(INVALIDATE_ACK, home, INVALID, requester, NONE);
		FORGET }

	/* cache_grant() */
	:: atomic { net[f]??GRANT, eval(self), from, state, requester, payload ->
		assert(requester == self && state != INVALID && state == HERE.asked[self]);
		granted();
		FORGET }

	/* directory_ack() */
	:: atomic { net[f]??INVALIDATE_ACK, eval(self), from, state, requester, payload ->
		assert(HERE.phase == INVALIDATING && requester == HERE.node[0] && HERE.acks & BIT(from));
		HERE.acks = HERE.acks & ALL_BUT(from);
		if
		:: HERE.acks == 0 -> acknowledged()
		:: else
		fi;
		FORGET }

	/* directory_done() */
	:: atomic { net[f]??DONE, eval(self), from, state, requester, payload ->
#if BREAK != 2
		assert(HERE.phase == GRANTING && requester == from && HERE.node[0] == from);
		change_entry();
		served_to_end();
#endif
		FORGET }
#if BREAK == 2
	:: atomic { self == home && HERE.phase == GRANTING ->
		change_entry();
		served_to_end();
		FORGET }
#endif
	od
}

init {
	byte f, n;

	atomic {
		for (f : 0 .. FRAMES - 1) {
			frame[f].holders = BIT(f % NODES);
			frame[f].state[f % NODES] = EXCLUSIVE;
			for (n : 0 .. NODES - 1) {
				run member(f, n)
			}
		}
	}
end:	timeout ->
	for (f : 0 .. FRAMES - 1) {
		assert(QUIET(f))
	}
}
