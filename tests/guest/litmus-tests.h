/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The litmus tests themselves: what they are called, what their threads do, and from that text the program
 * for the model and the machine code for each thread.
 *
 * A variant is a test with a fence and a placement of its variables; litmus.c says what these are.
 */
#ifndef LITMUS_TESTS_H
#define LITMUS_TESTS_H

#include "guest.h"
#include "litmus-model.h"

#include <sys/mman.h>

/*
 * W: store, R: load, X: exchange that also shows what was there, each with a variable, then the value; F:
 * fence.  | stands between threads.  `relaxed` is an outcome of which it is known from the literature
 * whether x86-TSO allows it when there are no fences; sequential consistency never does.  The model is
 * compared with that before anything runs.  It has what loads show / what variables hold, * for anything.
 */
static const struct test {
	const char *name, *text, *relaxed;
	bool allowed;
} tests[] = {
	{ "SB", "Wx1 F Ry | Wy1 F Rx", "00/**", true },
	{ "3SB", "Wx1 F Ry | Wy1 F Rz | Wz1 F Rx", "000/***", true },
	{ "R", "Wx1 F Wy1 | Wy2 F Rx", "0/*2", true },
	{ "RWC", "Wx1 | Rx F Ry | Wy1 F Rx", "100/**", true },
	{ "n6", "Wx1 F Rx F Ry | Wy2 F Wx2", "10/1*", true },
	{ "MP", "Wx1 F Wy1 | Ry F Rx", "10/**", false },
	{ "LB", "Rx F Wy1 | Ry F Wx1", "11/**", false },
	{ "S", "Wx2 F Wy1 | Ry F Wx1", "1/2*", false },
	{ "2+2W", "Wx1 F Wy2 | Wy1 F Wx2", "/11", false },
	{ "WRC", "Wx1 | Rx F Wy1 | Ry F Rx", "110/**", false },
	{ "ISA2", "Wx1 F Wy1 | Ry F Wz1 | Rz F Rx", "110/***", false },
	{ "IRIW", "Wx1 | Wy1 | Rx F Ry | Ry F Rx", "1010/**", false },
	{ "CoRR", "Wx1 | Rx F Rx", "10/*", false },
	{ "CoRR2", "Wx1 | Wx2 | Rx F Rx | Rx F Rx", "1221/*", false },
	{ "CoWW", "Wx1 F Wx2 | Rx F Rx", "21/*", false },
	{ "CoRW", "Rx F Wx1 | Wx2", "2/2", false },
	{ "CoWR", "Wx1 F Rx | Wx2", "2/1", false },
	{ "CoWR2", "Wx1 F Rx | Wx2 F Rx", "21/*", false },
	{ "exchange", "Xx1 | Xx2", "00/*", false },
	{ "exchange-store", "Xx1 | Wx2", "2/2", false },
};
#define TESTS (sizeof(tests) / sizeof(tests[0]))

enum fence { PLAIN, MFENCE, LOCKED, XCHG, ATOMIC, FENCES };
static const char *const fence_names[] = { "plain", "mfence", "locked", "xchg", "atomic" };

enum placement { PAGE, PAGES, STRADDLE, PLACEMENTS };
static const char *const placement_names[] = { "page", "pages", "straddle" };

enum {
	VARIABLES_MAX = 3,
	LOADS_MAX = 3,			/* of a thread: as many registers as the code uses */
	ACCESSES_MAX = 6,		/* of a thread, fences included */
	VALUES = 2,			/* that are stored: 1 and 2 */
	WORD = 8,			/* bytes of a variable */
	CODE_SIZE = 4096,
};

/* --- a test's text with a fence and a placement: what its threads do --- */

enum access_kind { STORE, LOAD, EXCHANGE, FENCE };

struct access {
	enum access_kind kind;
	bool locked;
	bool shows;		/* a value that is part of the outcome */
	unsigned variable, value;
};

struct variant {
	const struct test *test;
	enum fence fence;
	enum placement placement;
	unsigned threads, variables;
	unsigned length[MODEL_THREADS_MAX];
	struct access access[MODEL_THREADS_MAX][ACCESSES_MAX];
	unsigned loads[MODEL_THREADS_MAX];
	unsigned width;		/* locations to a variable: 2 when some access is by halves */
};

static inline struct access read_access(const char **at, enum fence fence)
{
	struct access access = { .kind = FENCE };
	char kind = *(*at)++;

	if (kind == 'F')
		return access;
	access.variable = (unsigned)(*(*at)++ - 'x');
	access.kind = kind == 'W' ? STORE : kind == 'R' ? LOAD : EXCHANGE;
	access.locked = kind == 'X' || fence == ATOMIC || (fence == XCHG && kind == 'W');
	access.shows = kind != 'W';
	if (kind != 'R')
		access.value = (unsigned)(*(*at)++ - '0');
	return access;
}

static inline void variant_init(struct variant *v, const struct test *test, enum fence fence,
				enum placement placement)
{
	unsigned thread = 0;

	*v = (struct variant){ .test = test, .fence = fence, .placement = placement, .width = 1 };
	for (const char *at = test->text; *at;) {
		struct access access;

		if (*at == ' ' || *at == '|') {
			thread += *at++ == '|';
			continue;
		}
		access = read_access(&at, fence);
		if (access.kind != FENCE && access.variable >= v->variables)
			v->variables = access.variable + 1;
		if (access.kind != FENCE && !access.locked && placement == STRADDLE)
			v->width = 2;
		v->access[thread][v->length[thread]++] = access;
		v->loads[thread] += access.shows;
	}
	v->threads = thread + 1;
}

/* The register of the model where the loads of a thread begin. */
static inline unsigned first_register(const struct variant *v, unsigned thread)
{
	unsigned reg = 0;

	while (thread--)
		reg += v->loads[thread] * v->width;
	return reg;
}

static inline struct model_step access_step(const struct access *a, unsigned width, unsigned reg)
{
	static const enum model_step_kind plain[] = { [STORE] = MODEL_STORE, [LOAD] = MODEL_LOAD };

	if (a->kind == FENCE)
		return (struct model_step){ .kind = MODEL_FENCE };
	return (struct model_step){
		.kind = a->locked ? MODEL_LOCKED : plain[a->kind],
		.location = a->variable * width, .width = width, .value = a->value,
		.writes = a->kind != LOAD, .reads = a->shows, .reg = reg,
	};
}

static inline void variant_program(const struct variant *v, struct model_program *program)
{
	*program = (struct model_program){ .threads = v->threads };
	for (unsigned t = 0; t < v->threads; t++) {
		unsigned reg = first_register(v, t);

		for (unsigned i = 0; i < v->length[t]; i++) {
			const struct access *a = &v->access[t][i];

			if (a->kind == FENCE && v->fence != MFENCE && v->fence != LOCKED)
				continue;
			program->step[t][program->length[t]++] = access_step(a, v->width, reg);
			reg += a->shows ? v->width : 0;
		}
	}
}

/* --- the machine code of one thread --- */

/* Called once a round; loaded[] gets what the loads showed, in order. */
typedef void body(void *x, void *y, void *z, uint64_t one, uint64_t two, uint64_t loaded[LOADS_MAX]);

enum { RAX, RCX, RDX, RBX, RSI = 6, RDI = 7, R8 = 8, R9 = 9, R10 = 10, R11 = 11 };
static const uint8_t address_register[VARIABLES_MAX] = { RDI, RSI, RDX };	/* as the ABI passes them */
static const uint8_t value_register[1 + VALUES] = { 0, RCX, R8 };
static const uint8_t load_register[LOADS_MAX] = { RAX, R10, RBX };
enum { LOADED_REGISTER = R9, SCRATCH = R11 };

struct emitter { uint8_t *at; };

static inline void emit(struct emitter *e, const void *bytes, size_t length)
{
	memcpy(e->at, bytes, length);
	e->at += length;
}
#define EMIT(e, ...) emit((e), (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* A 64-bit instruction on `reg` and the memory at base + offset; base has an encoding without SIB byte. */
static inline void emit_memory(struct emitter *e, uint8_t opcode, uint8_t reg, uint8_t base, uint8_t offset)
{
	EMIT(e, 0x48 | (reg >> 3) << 2 | base >> 3, opcode, 0x40 | (reg & 7) << 3 | (base & 7), offset);
}

static inline void emit_move(struct emitter *e, uint8_t to, uint8_t from)
{
	EMIT(e, 0x48 | (from >> 3) << 2 | to >> 3, 0x89, 0xc0 | (from & 7) << 3 | (to & 7));
}

static inline void emit_fence(struct emitter *e, enum fence fence)
{
	if (fence == MFENCE)
		EMIT(e, 0x0f, 0xae, 0xf0);
	if (fence == LOCKED)
		EMIT(e, 0xf0, 0x48, 0x83, 0x0c, 0x24, 0x00);	/* lock orq $0, (%rsp) */
}

static inline void emit_access(struct emitter *e, const struct access *a, uint8_t reg)
{
	uint8_t address = address_register[a->variable], value = value_register[a->value];

	if (!a->locked) {
		emit_memory(e, a->kind == STORE ? 0x89 : 0x8b, a->kind == STORE ? value : reg, address, 0);
	} else if (a->kind == LOAD) {
		/* xor reg, reg; lock xadd reg, (address) */
		EMIT(e, 0x48 | (reg >> 3) << 2 | reg >> 3, 0x31, 0xc0 | (reg & 7) << 3 | (reg & 7));
		EMIT(e, 0xf0, 0x48 | (reg >> 3) << 2, 0x0f, 0xc1, (reg & 7) << 3 | address);
	} else {
		emit_move(e, reg, value);
		emit_memory(e, 0x87, reg, address, 0);		/* xchg */
	}
}

static inline body *variant_body(const struct variant *v, unsigned thread)
{
	void *code = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct emitter e = { code };
	unsigned loads = 0;

	CHECK(code != MAP_FAILED);
	EMIT(&e, 0x53);						/* push %rbx */
	for (unsigned i = 0; i < v->length[thread]; i++) {
		const struct access *a = &v->access[thread][i];

		if (a->kind == FENCE)
			emit_fence(&e, v->fence);
		else
			emit_access(&e, a, a->shows ? load_register[loads++] : SCRATCH);
	}
	for (unsigned i = 0; i < loads; i++)
		emit_memory(&e, 0x89, load_register[i], LOADED_REGISTER, (uint8_t)(i * WORD));
	EMIT(&e, 0x5b, 0xc3);					/* pop %rbx; ret */
	CHECK(mprotect(code, CODE_SIZE, PROT_READ | PROT_EXEC) == 0);
	return (body *)code;
}

static inline void body_free(body *b)
{
	munmap((void *)b, CODE_SIZE);
}

#endif
