/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which outcomes of a small parallel program x86-TSO allows: all of them, found by trying every step.
 *
 * The machine is the operational one of x86-TSO.  Each thread has a FIFO buffer of stores.  A store goes to
 * the end of its thread's buffer; the first of a buffer may go to memory at any time.  A load takes the
 * youngest store to its location in its own thread's buffer, else memory.  A fence waits until the buffer
 * is empty.  A locked instruction does so too, and reads and writes memory in one step.
 *
 * An outcome is what all registers and all locations hold when every thread has ended and every buffer is
 * empty.  Values are 0, 1 and 2, two bits each, so a state of the machine is one 64-bit word: what a
 * buffer holds follows from the program, the thread's position and how many of its stores have left.
 *
 * Access that lies on two pages and is not locked is two accesses, of one half each, in either order; a
 * locked one is one step on both halves.
 */
#ifndef LITMUS_MODEL_H
#define LITMUS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
	MODEL_THREADS_MAX = 4,
	MODEL_STEPS_MAX = 15,		/* a thread's */
	MODEL_LOCATIONS_MAX = 6,
	MODEL_REGISTERS_MAX = 8,
	MODEL_VALUE_BITS = 2,
	MODEL_REGISTERS_SHIFT = MODEL_LOCATIONS_MAX * MODEL_VALUE_BITS,
};

enum model_step_kind { MODEL_STORE, MODEL_LOAD, MODEL_FENCE, MODEL_LOCKED };

struct model_step {
	enum model_step_kind kind;
	unsigned location, width;	/* width 2: this location and the next; one after the other in */
					/* either order, or, when locked, both at once */
	unsigned value;			/* stored */
	bool writes, reads;		/* MODEL_LOCKED */
	unsigned reg;			/* first of `width` that are read */
};

struct model_program {
	unsigned threads;
	unsigned length[MODEL_THREADS_MAX];
	struct model_step step[MODEL_THREADS_MAX][MODEL_STEPS_MAX];
};

/* An outcome: MODEL_VALUE_BITS for each location, then for each register. */
typedef uint32_t model_outcome;

static inline unsigned model_location(model_outcome outcome, unsigned location)
{
	return outcome >> location * MODEL_VALUE_BITS & 3;
}

static inline unsigned model_register(model_outcome outcome, unsigned reg)
{
	return outcome >> (MODEL_REGISTERS_SHIFT + reg * MODEL_VALUE_BITS) & 3;
}

/* A set of words, open addressing; a member is kept plus one so that 0 is a free place. */
struct model_set {
	uint64_t *place;
	size_t size, count;		/* size is a power of two */
};

static inline size_t model_set_find(const struct model_set *set, uint64_t word)
{
	size_t at = (word + 1) * 0x9e3779b97f4a7c15u >> 20 & (set->size - 1);

	while (set->place[at] && set->place[at] != word + 1)
		at = (at + 1) & (set->size - 1);
	return at;
}

static inline bool model_set_has(const struct model_set *set, uint64_t word)
{
	return set->size && set->place[model_set_find(set, word)];
}

/* True when the word was not there. */
static inline bool model_set_add(struct model_set *set, uint64_t word)
{
	if (2 * set->count >= set->size) {
		struct model_set old = *set;

		set->size = old.size ? 2 * old.size : 64;
		set->place = calloc(set->size, sizeof(*set->place));
		if (!set->place)
			abort();
		for (size_t i = 0; i < old.size; i++)
			if (old.place[i])
				set->place[model_set_find(set, old.place[i] - 1)] = old.place[i];
		free(old.place);
	}
	if (model_set_has(set, word))
		return false;
	set->place[model_set_find(set, word)] = word + 1;
	set->count++;
	return true;
}

static inline void model_set_clear(struct model_set *set)
{
	free(set->place);
	*set = (struct model_set){ 0 };
}

/* --- one state: the outcome so far, then for each thread its position and how many stores have left --- */

enum { MODEL_POSITION_SHIFT = 28, MODEL_LEFT_SHIFT = 44, MODEL_COUNT_BITS = 4 };

static inline unsigned model_get(uint64_t state, unsigned shift, unsigned bits)
{
	return state >> shift & ((1u << bits) - 1);
}

static inline uint64_t model_put(uint64_t state, unsigned shift, unsigned bits, unsigned value)
{
	uint64_t mask = (uint64_t)((1u << bits) - 1) << shift;

	return (state & ~mask) | (uint64_t)value << shift;
}

struct model_search {
	const struct model_program *program;
	bool buffers;				/* false: sequential consistency */
	struct model_set seen, *outcomes;
};

/* The n-th store of a thread, or NULL when it has fewer before its position. */
static inline const struct model_step *model_store(const struct model_search *s, unsigned thread,
						   unsigned position, unsigned n)
{
	const struct model_step *step = s->program->step[thread];

	for (unsigned i = 0; i < position; i++)
		if (step[i].kind == MODEL_STORE && !n--)
			return &step[i];
	return NULL;
}

static inline unsigned model_load(const struct model_search *s, uint64_t state, unsigned thread,
				  unsigned position, unsigned location)
{
	unsigned left = model_get(state, MODEL_LEFT_SHIFT + thread * MODEL_COUNT_BITS, MODEL_COUNT_BITS);
	unsigned value = model_location((model_outcome)state, location);
	const struct model_step *store;

	while ((store = model_store(s, thread, position, left++)))
		if (store->location == location)
			value = store->value;
	return value;
}

static inline uint64_t model_write(uint64_t state, unsigned location, unsigned value)
{
	return model_put(state, location * MODEL_VALUE_BITS, MODEL_VALUE_BITS, value);
}

static inline uint64_t model_read(uint64_t state, unsigned reg, unsigned value)
{
	return model_put(state, MODEL_REGISTERS_SHIFT + reg * MODEL_VALUE_BITS, MODEL_VALUE_BITS, value);
}

static inline void model_visit(struct model_search *s, uint64_t state);

/* The oldest store of a thread's buffer goes to memory.  False: the buffer is empty. */
static inline bool model_drain(struct model_search *s, uint64_t state, unsigned thread, unsigned position)
{
	unsigned shift = MODEL_LEFT_SHIFT + thread * MODEL_COUNT_BITS;
	unsigned left = model_get(state, shift, MODEL_COUNT_BITS);
	const struct model_step *store = model_store(s, thread, position, left);

	if (!store)
		return false;
	state = model_put(state, shift, MODEL_COUNT_BITS, left + 1);
	model_visit(s, model_write(state, store->location, store->value));
	return true;
}

static inline void model_execute(struct model_search *s, uint64_t state, unsigned thread, unsigned position,
				 bool buffered)
{
	const struct model_step *step = &s->program->step[thread][position];
	bool drained = step->kind == MODEL_FENCE || step->kind == MODEL_LOCKED || !s->buffers;

	if (drained && buffered)
		return;
	state = model_put(state, MODEL_POSITION_SHIFT + thread * MODEL_COUNT_BITS, MODEL_COUNT_BITS,
			  position + 1);
	if (step->kind == MODEL_LOAD)
		state = model_read(state, step->reg, model_load(s, state, thread, position, step->location));
	for (unsigned half = 0; step->kind == MODEL_LOCKED && half < step->width; half++) {
		unsigned old = model_location((model_outcome)state, step->location + half);

		if (step->reads)
			state = model_read(state, step->reg + half, old);
		if (step->writes)
			state = model_write(state, step->location + half, step->value);
	}
	model_visit(s, state);
}

static inline void model_visit(struct model_search *s, uint64_t state)
{
	bool ended = true;

	if (!model_set_add(&s->seen, state))
		return;
	for (unsigned thread = 0; thread < s->program->threads; thread++) {
		unsigned position = model_get(state, MODEL_POSITION_SHIFT + thread * MODEL_COUNT_BITS,
					      MODEL_COUNT_BITS);
		bool buffered = model_drain(s, state, thread, position);

		if (position < s->program->length[thread])
			model_execute(s, state, thread, position, buffered);
		if (buffered || position < s->program->length[thread])
			ended = false;
	}
	if (ended)
		model_set_add(s->outcomes, state & ((1u << MODEL_POSITION_SHIFT) - 1));
}

/*
 * Adds every outcome of the program; without buffers those of sequential consistency.  As long as there is
 * a two-page access that is not locked it is replaced by its halves, in both orders.
 */
static inline void model_outcomes(const struct model_program *program, bool buffers,
				  struct model_set *outcomes)
{
	struct model_search search = { .program = program, .buffers = buffers, .outcomes = outcomes };

	for (unsigned t = 0; t < program->threads; t++)
		for (unsigned i = 0; i < program->length[t]; i++) {
			const struct model_step *whole = &program->step[t][i];
			struct model_program halves = *program;

			if (whole->width < 2 || whole->kind == MODEL_LOCKED)
				continue;
			for (unsigned j = halves.length[t]++; j > i; j--)
				halves.step[t][j] = halves.step[t][j - 1];
			for (unsigned first = 0; first < 2; first++) {
				for (unsigned j = 0; j < 2; j++) {
					halves.step[t][i + j] = *whole;
					halves.step[t][i + j].width = 1;
					halves.step[t][i + j].location += j ^ first;
					halves.step[t][i + j].reg += j ^ first;
				}
				model_outcomes(&halves, buffers, outcomes);
			}
			return;
		}
	model_visit(&search, 0);
	model_set_clear(&search.seen);
}

#endif
