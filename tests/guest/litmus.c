// SPDX-License-Identifier: GPL-2.0
/*
 * Litmus tests: small parallel programs whose outcomes tell what memory promises, between threads on given
 * CPUs while their pages are kept moving.
 *
 * A test is written once, in litmus-tests.h.  From that text come both the set of outcomes that x86-TSO
 * allows (litmus-model.h) and the machine code that the threads run, so they cannot differ.  Any other
 * outcome fails the test.  Each runs in several variants:
 *
 *   fence: what stands where the test has an F    placement of the variables of one round
 *     plain    nothing                              page      in one page
 *     mfence   mfence                               pages     each in a page of its own
 *     locked   a locked instruction on the stack    straddle  each over the border of two pages
 *     xchg     nothing, but stores are exchanges
 *     atomic   nothing, but all access is locked
 *
 * Plain access over a border is no single access on x86: the model, and what is looked at here, is its
 * halves.  Locked access is atomic there, too.
 *
 * Moving a page takes a hundred microseconds and waking a thread on another node as much, so a round cannot
 * have its own start.  Threads meet for a batch of rounds, each round with variables of its own that lie
 * among those of others, and run through it at one pace with some noise: who had to wait for a page then
 * catches up.  After a batch one thread, another each time, notes what the variables hold and clears them,
 * by stores or by giving the memory back.  Values carry the number of their batch, so what is left over
 * from an earlier one is no value at all.
 *
 * The lines say in how many rounds some thread waited, for a page as a rule: the others were over too soon to
 * meet anything.
 *
 * Meanwhile one more thread writes to other words of the same pages, takes and gives the right to write,
 * forks and has the pages unmapped.  A thread that then may not write tries again.
 *
 *   --rounds N        of each variant (default 10000); straddle: of its five fences together
 *   --seed S
 *   --cpus LIST       threads take turns on them (default: all)
 *   --fences LIST, --placements LIST                          (default: all)
 *   --verbose         a line with the outcomes of each variant
 *   --break model     judge by a model without store buffers: fails where two CPUs run at once
 *   --break memory    sometimes show a thread old memory: fails everywhere
 *   --list            names of tests
 *   NAME...           tests to run (default: all)
 */
#define _GNU_SOURCE
#include "guest.h"
#include "litmus-tests.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <x86intrin.h>

enum {
	PAGE_SIZE = 4096,
	MOVER_WORD = PAGE_SIZE - 2 * WORD,	/* of each page: no variable lies there */
	ARENA_PAGES = 256,
	BORDERS_MAX = 64,		/* for each variable */
	BATCH_MAX = 1024,		/* rounds */
};

static struct {
	long rounds;
	uint64_t seed;
	bool fences[FENCES], placements[PLACEMENTS];
	bool verbose, break_model, break_memory;
} options = { .rounds = 10000, .seed = 1 };

/* --- memory of a batch --- */

/* One is private, so that fork write-protects it; one is shared, so that it may be unmapped at any time. */
static char *arenas[2];
enum { PRIVATE, SHARED };

struct batch {
	unsigned number, first, rounds;		/* rounds of the variant: from first on */
	unsigned pages;				/* over which one variable of the rounds is spread */
	unsigned offset;			/* of a variable over a border: bytes before it */
	uint64_t pace;				/* cycles of a round */
	char *arena;
	bool give_back;				/* to clear the variables */
};

static struct run {
	const struct variant *v;
	uint64_t seed;
	int turn;				/* CPU of the first thread */
	uint32_t rounds;
	body *bodies[MODEL_THREADS_MAX];
	uint16_t *loaded[MODEL_THREADS_MAX];	/* of each round, MODEL_VALUE_BITS each; WAITED */
	uint16_t *held[MODEL_THREADS_MAX];	/* of the rounds that this thread has cleared */
	pthread_barrier_t barrier;
	_Atomic uint64_t start;			/* of the batch, in cycles */
	_Atomic bool done;
} run;

enum {
	WAITED = 1 << 15,		/* the thread met a page that was not there, or lost its CPU */
	WAITED_US_MIN = 10,
	START_US = 500,			/* to the start of a batch: time for all to wake up */
	START_US_MAX = 3000,
};

static uint64_t cycles_per_us;
static char old_memory[2 * PAGE_SIZE];		/* never written to; --break memory */

static unsigned slots_per_page(const struct variant *v)
{
	return v->placement == STRADDLE ? 1 : MOVER_WORD / WORD / (v->placement == PAGE ? v->variables : 1);
}

static struct batch batch_make(unsigned number, unsigned first)
{
	static const unsigned pages[] = { 1, 2, 4, 16 }, paces_ns[] = { 500, 2000, 8000, 16000 };
	uint64_t noise = guest_noise(run.seed, number);
	const struct variant *v = run.v;
	struct batch b = {
		.number = number, .first = first,
		.pages = v->placement == STRADDLE ? (unsigned)BORDERS_MAX >> (noise & 1) : pages[noise & 3],
		.pace = paces_ns[noise >> 2 & 3] * cycles_per_us / 1000,
		.arena = arenas[noise >> 4 & 1],
		.give_back = noise >> 5 & 1,
		.offset = v->width == 2 ? WORD / 2 : 1 + (noise >> 6 & 0xff) % (WORD - 1),
	};

	if (v->placement == STRADDLE)
		b.pace *= 4;
	b.rounds = b.pages * slots_per_page(v);
	if (b.rounds > BATCH_MAX)
		b.rounds = BATCH_MAX;
	if (b.rounds > run.rounds - first)
		b.rounds = run.rounds - first;
	return b;
}

static char *variable_at(const struct batch *b, unsigned round, unsigned variable)
{
	unsigned page = round % b->pages, slot = round / b->pages, count = run.v->variables;

	if (run.v->placement == PAGE)
		return b->arena + page * PAGE_SIZE + (slot + variable * slots_per_page(run.v)) * WORD;
	page = page * count + variable;
	if (run.v->placement == PAGES)
		return b->arena + page * PAGE_SIZE + slot * WORD;
	return b->arena + (page + 1) * PAGE_SIZE - b->offset;
}

static size_t batch_size(const struct batch *b)
{
	return (b->pages * VARIABLES_MAX + 1) * PAGE_SIZE;
}

/* Both halves of a stored word hold this. */
static uint64_t batch_value(const struct batch *b, unsigned value)
{
	uint64_t half = (uint64_t)(b->number + 1) << MODEL_VALUE_BITS | value;

	return half << 32 | half;
}

/* 0, 1, 2; 3 for anything that nobody has stored in this batch. */
static unsigned decode_half(const struct batch *b, uint32_t half)
{
	for (unsigned value = 1; value <= VALUES; value++)
		if (half == (uint32_t)batch_value(b, value))
			return value;
	return half ? 3 : 0;
}

static unsigned decode(const struct batch *b, uint64_t word)
{
	unsigned low = decode_half(b, (uint32_t)word), high = decode_half(b, (uint32_t)(word >> 32));

	if (run.v->width == 2)
		return high << MODEL_VALUE_BITS | low;
	return low == high ? low : 3;
}

/* --- threads --- */

static void wait_until(uint64_t cycles)
{
	/* A clock of another host may be anywhere: then this thread starts when it is here. */
	while (cycles - __rdtsc() < START_US_MAX * cycles_per_us)
		_mm_pause();
}

static void batch_run(const struct batch *b, unsigned thread)
{
	uint64_t seed = run.seed ^ (uint64_t)thread << 32 ^ b->number, loaded[LOADS_MAX] = { 0 };
	uint64_t one = batch_value(b, 1), two = batch_value(b, 2), start = atomic_load(&run.start), begun;

	if (start - __rdtsc() >= START_US_MAX * cycles_per_us)
		start = __rdtsc();
	for (unsigned i = 0; i < b->rounds; i++) {
		uint64_t noise = guest_noise(seed, i);
		char *at[VARIABLES_MAX];
		unsigned codes = 0;
		bool waited;

		for (unsigned v = 0; v < VARIABLES_MAX; v++)
			at[v] = variable_at(b, i, v);
		if (options.break_memory && thread && noise >> 58 == 0)
			at[0] = old_memory;
		wait_until(start + i * b->pace + noise % (2 * b->pace));
		begun = __rdtsc();
		run.bodies[thread](at[0], at[1], at[2], one, two, loaded);
		waited = __rdtsc() - begun > WAITED_US_MIN * cycles_per_us;
		for (unsigned l = run.v->loads[thread]; l-- > 0;)
			codes = codes << run.v->width * MODEL_VALUE_BITS | decode(b, loaded[l]);
		run.loaded[thread][b->first + i] = (uint16_t)(waited ? codes | WAITED : codes);
	}
}

static void batch_clear(const struct batch *b, unsigned thread)
{
	for (unsigned i = 0; i < b->rounds; i++) {
		unsigned codes = 0;

		for (unsigned v = run.v->variables; v-- > 0;) {
			uint64_t *word = (uint64_t *)variable_at(b, i, v), value;

			/* one move of the page, not a read and then a write */
			value = b->give_back ? *word : __atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST);
			codes = codes << run.v->width * MODEL_VALUE_BITS | decode(b, value);
		}
		run.held[thread][b->first + i] = (uint16_t)codes;
	}
	if (b->give_back)
		CHECK(madvise(b->arena, batch_size(b),
			      b->arena == arenas[SHARED] ? MADV_REMOVE : MADV_DONTNEED) == 0);
}

static void meet(void)
{
	uint64_t start = __rdtsc() + START_US * cycles_per_us;

	for (uint64_t seen = atomic_load(&run.start); start - seen < 1ull << 63 &&
	     !atomic_compare_exchange_weak(&run.start, &seen, start);)
		;
	pthread_barrier_wait(&run.barrier);
}

static void *run_thread(void *arg)
{
	unsigned thread = (unsigned)(long)arg;
	struct batch b;

	guest_move(0, run.turn + (int)thread);
	for (unsigned first = 0, number = 0; first < run.rounds; first += b.rounds, number++) {
		b = batch_make(number, first);
		meet();
		batch_run(&b, thread);
		pthread_barrier_wait(&run.barrier);
		if (number % run.v->threads == thread)
			batch_clear(&b, thread);
	}
	return NULL;
}

/* --- what goes on meanwhile --- */

static void mover_fork(uint64_t noise)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		if (noise & 1)
			usleep(noise >> 1 & 0x7ff);
		_exit(0);
	}
	guest_reap(pid);
}

static void mover_act(uint64_t noise)
{
	char *arena = arenas[noise & 1], *from = arena + (noise >> 8 & 15) * PAGE_SIZE;
	size_t size = (1 + (noise >> 12 & 31)) * PAGE_SIZE;

	switch (noise >> 1 & 31) {
	case 0:
		mover_fork(noise >> 20);
		break;
	case 1 ... 3:
		CHECK(mprotect(from, size, PROT_READ) == 0);
		CHECK(mprotect(from, size, PROT_READ | PROT_WRITE) == 0);
		break;
	case 4:
		CHECK(mprotect(from, size, PROT_NONE) == 0);
		CHECK(mprotect(from, size, PROT_READ | PROT_WRITE) == 0);
		break;
	case 5 ... 7:
		if (arena == arenas[SHARED])
			CHECK(madvise(from, size, MADV_DONTNEED) == 0);
		break;
	case 8 ... 15:
		for (size_t at = MOVER_WORD; at < size; at += PAGE_SIZE)
			(void)*(volatile char *)(from + at);
		break;
	default:
		for (size_t at = MOVER_WORD; at < size; at += PAGE_SIZE)
			++*(volatile char *)(from + at);
	}
	usleep(noise >> 40 & 0x3ff);
}

static void *run_mover(void *arg)
{
	(void)arg;
	guest_move(0, run.turn + (int)run.v->threads);
	for (uint64_t i = 0; !atomic_load(&run.done); i++)
		mover_act(guest_noise(~run.seed, i));
	return NULL;
}

/* The mover has taken the right to write, and will give it back. */
static void try_again(int number, siginfo_t *info, void *context)
{
	size_t size = ARENA_PAGES * PAGE_SIZE;
	char *at = info->si_addr;

	(void)context;
	for (int i = 0; i < 2; i++)
		if (info->si_code == SEGV_ACCERR && at >= arenas[i] && at < arenas[i] + size) {
			sched_yield();
			return;
		}
	guest_fail("signal %d, code %d at %p", number, info->si_code, info->si_addr);
}

/* --- judgement --- */

static void print_outcome(const struct variant *v, model_outcome outcome)
{
	for (unsigned t = 0, reg = 0; t < v->threads; t++)
		for (unsigned l = 0; l < v->loads[t]; l++) {
			printf(" %u:", t);
			for (unsigned half = 0; half < v->width; half++, reg++)
				printf("%c", "012?"[model_register(outcome, reg)]);
		}
	for (unsigned i = 0; i < v->variables * v->width; i++)
		printf("%s%c", i % v->width ? "" : (const char *[]){ " x=", " y=", " z=" }[i / v->width],
		       "012?"[model_location(outcome, i)]);
}

struct tally {
	model_outcome *seen;		/* of each round; sorted */
	unsigned seen_kinds, forbidden_rounds, allowed_kinds, waited_rounds;
};

static model_outcome outcome_of_round(uint32_t round, unsigned clearer, bool *waited)
{
	model_outcome outcome = run.held[clearer][round];

	*waited = false;
	for (unsigned t = 0; t < run.v->threads; t++) {
		unsigned shift = MODEL_REGISTERS_SHIFT + first_register(run.v, t) * MODEL_VALUE_BITS;
		unsigned codes = run.loaded[t][round];

		*waited |= codes & WAITED;
		outcome |= (codes & ~WAITED) << shift;
	}
	return outcome;
}

static int compare_outcomes(const void *a, const void *b)
{
	model_outcome left = *(const model_outcome *)a, right = *(const model_outcome *)b;

	return left < right ? -1 : left > right;
}

static void collect(struct tally *tally)
{
	struct batch b;

	tally->seen = calloc(run.rounds, sizeof(*tally->seen));
	CHECK(tally->seen);
	for (unsigned first = 0, number = 0; first < run.rounds; first += b.rounds, number++) {
		b = batch_make(number, first);
		for (unsigned i = first; i < first + b.rounds; i++) {
			bool waited;

			tally->seen[i] = outcome_of_round(i, number % run.v->threads, &waited);
			tally->waited_rounds += waited;
		}
	}
	qsort(tally->seen, run.rounds, sizeof(*tally->seen), compare_outcomes);
}

static void print_variant(void)
{
	printf("# %s %s %s on CPUs", run.v->test->name, fence_names[run.v->fence],
	       placement_names[run.v->placement]);
	for (unsigned t = 0; t < run.v->threads; t++)
		printf("%c%d", t ? ',' : ' ', guest_cpu(run.turn + (int)t));
	printf(", seed %llu:\n", (unsigned long long)options.seed);
}

static void judge(struct tally *tally)
{
	struct model_program program;
	struct model_set allowed = { 0 };
	bool named = false;

	variant_program(run.v, &program);
	model_outcomes(&program, !options.break_model, &allowed);
	tally->allowed_kinds = (unsigned)allowed.count;
	for (uint32_t i = 0, next; i < run.rounds; i = next) {
		bool good = model_set_has(&allowed, tally->seen[i]);

		for (next = i; next < run.rounds && tally->seen[next] == tally->seen[i]; next++)
			;
		tally->seen_kinds++;
		tally->forbidden_rounds += good ? 0 : next - i;
		if (good && !options.verbose)
			continue;
		if (!named)
			print_variant();
		named = true;
		printf("#   %s", good ? "         " : "FORBIDDEN");
		print_outcome(run.v, tally->seen[i]);
		printf(": %u of %u\n", next - i, run.rounds);
	}
	model_set_clear(&allowed);
}

/* --- */

static void run_variant(const struct variant *v, struct tally *tally, unsigned number)
{
	pthread_t threads[MODEL_THREADS_MAX], mover;

	run = (struct run){
		.v = v, .seed = guest_noise(options.seed, number), .turn = (int)number,
		.rounds = (uint32_t)options.rounds,
	};
	if (v->placement == STRADDLE)
		run.rounds = (run.rounds + FENCES - 1) / FENCES;
	CHECK(pthread_barrier_init(&run.barrier, NULL, v->threads) == 0);
	for (unsigned t = 0; t < v->threads; t++) {
		run.bodies[t] = variant_body(v, t);
		run.loaded[t] = calloc(run.rounds, sizeof(*run.loaded[t]));
		run.held[t] = calloc(run.rounds, sizeof(*run.held[t]));
		CHECK(run.loaded[t] && run.held[t]);
	}
	for (int i = 0; i < 2; i++)
		memset(arenas[i], 0, ARENA_PAGES * PAGE_SIZE);
	for (unsigned t = 0; t < v->threads; t++)
		CHECK(pthread_create(&threads[t], NULL, run_thread, (void *)(long)t) == 0);
	CHECK(pthread_create(&mover, NULL, run_mover, NULL) == 0);
	for (unsigned t = 0; t < v->threads; t++)
		CHECK(pthread_join(threads[t], NULL) == 0);
	atomic_store(&run.done, true);
	CHECK(pthread_join(mover, NULL) == 0);
	collect(tally);
	judge(tally);
	free(tally->seen);
	pthread_barrier_destroy(&run.barrier);
	for (unsigned t = 0; t < v->threads; t++) {
		body_free(run.bodies[t]);
		free(run.loaded[t]);
		free(run.held[t]);
	}
}

static bool run_test(const struct test *test, unsigned *number)
{
	unsigned long rounds = 0, waited = 0, forbidden = 0, seen = 0, allowed = 0, variants = 0;
	uint64_t begun = guest_now_ns(CLOCK_MONOTONIC);
	double seconds;

	for (unsigned fence = 0; fence < FENCES; fence++)
		for (unsigned placement = 0; placement < PLACEMENTS; placement++) {
			struct tally tally = { 0 };
			struct variant v;

			variant_init(&v, test, fence, placement);
			if (!options.fences[fence] || !options.placements[placement] ||
			    (placement == PAGES && v.variables == 1))
				continue;
			run_variant(&v, &tally, (*number)++);
			variants++;
			rounds += run.rounds;
			waited += tally.waited_rounds;
			forbidden += tally.forbidden_rounds;
			seen += tally.seen_kinds;
			allowed += tally.allowed_kinds;
		}
	seconds = (double)(guest_now_ns(CLOCK_MONOTONIC) - begun) / 1e9;
	if (forbidden)
		printf("not ok litmus %s: x86-TSO forbids what %lu of %lu rounds ended in\n", test->name,
		       forbidden, rounds);
	else
		printf("ok litmus %s: %lu variants, %lu rounds, %lu waited, %lu of %lu outcomes (%.2f s)\n",
		       test->name, variants, rounds, waited, seen, allowed, seconds);
	fflush(stdout);
	return !forbidden;
}

static bool matches(model_outcome outcome, const char *wanted)
{
	bool same = true;

	for (unsigned reg = 0; *wanted != '/'; reg++, wanted++)
		same &= *wanted == '*' || model_register(outcome, reg) + '0' == (unsigned)*wanted;
	wanted++;
	for (unsigned location = 0; *wanted; location++, wanted++)
		same &= *wanted == '*' || model_location(outcome, location) + '0' == (unsigned)*wanted;
	return same;
}

/* The relaxed outcome of a test is one of this set. */
static bool has_relaxed(const struct variant *v, const struct model_set *outcomes)
{
	for (size_t i = 0; i < outcomes->size; i++)
		if (outcomes->place[i] && matches((model_outcome)(outcomes->place[i] - 1), v->test->relaxed))
			return true;
	return false;
}

static void check_model_of(const struct test *test, enum fence fence, bool buffers)
{
	bool wanted = buffers && fence == PLAIN && test->allowed;
	struct model_set outcomes = { 0 };
	struct model_program program;
	struct variant v;

	variant_init(&v, test, fence, PAGE);
	variant_program(&v, &program);
	model_outcomes(&program, buffers, &outcomes);
	if (has_relaxed(&v, &outcomes) != wanted)
		guest_fail("the model %s buffers is wrong about %s %s", buffers ? "with" : "without",
			   test->name, fence_names[fence]);
	model_set_clear(&outcomes);
}

static void check_model(void)
{
	for (size_t i = 0; i < TESTS; i++)
		for (unsigned fence = 0; fence < FENCES; fence++) {
			check_model_of(&tests[i], fence, false);
			check_model_of(&tests[i], fence, true);
		}
}

static void make_arenas(void)
{
	struct sigaction action = { .sa_sigaction = try_again, .sa_flags = SA_SIGINFO };
	uint64_t begun_ns = guest_now_ns(CLOCK_MONOTONIC), begun = __rdtsc();

	for (int i = 0; i < 2; i++) {
		arenas[i] = mmap(NULL, ARENA_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
				 MAP_ANONYMOUS | (i == SHARED ? MAP_SHARED : MAP_PRIVATE), -1, 0);
		CHECK(arenas[i] != MAP_FAILED);
	}
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	guest_sleep_ms(20);
	cycles_per_us = (__rdtsc() - begun) * 1000 / (guest_now_ns(CLOCK_MONOTONIC) - begun_ns);
	CHECK(cycles_per_us > 0);
}

/* --- arguments --- */

static bool choose(bool *chosen, const char *const *names, unsigned count, char *list)
{
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		unsigned i = 0;

		while (i < count && strcmp(name, names[i]))
			i++;
		if (i == count)
			guest_fail("there is no variant \"%s\"", name);
		chosen[i] = true;
	}
	return true;
}

static void choose_break(const char *what)
{
	options.break_model = strcmp(what, "model") == 0;
	options.break_memory = strcmp(what, "memory") == 0;
	if (!options.break_model && !options.break_memory)
		guest_fail("--break takes model or memory, not \"%s\"", what);
}

static void parse(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "rounds", required_argument, NULL, 'n' }, { "cpus", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' }, { "fences", required_argument, NULL, 'f' },
		{ "placements", required_argument, NULL, 'p' }, { "verbose", no_argument, NULL, 'v' },
		{ "break", required_argument, NULL, 'b' }, { "list", no_argument, NULL, 'l' }, { 0 },
	};
	bool fences = false, placements = false;

	for (int option; (option = getopt_long(argc, argv, "n:c:s:f:p:vb:l", long_options, NULL)) != -1;)
		switch (option) {
		case 'n': options.rounds = strtol(optarg, NULL, 10); break;
		case 'c': guest_parse_cpus(optarg); break;
		case 's': options.seed = strtoull(optarg, NULL, 10); break;
		case 'f': fences = choose(options.fences, fence_names, FENCES, optarg); break;
		case 'p': placements = choose(options.placements, placement_names, PLACEMENTS, optarg); break;
		case 'v': options.verbose = true; break;
		case 'b': choose_break(optarg); break;
		case 'l':
			for (size_t i = 0; i < TESTS; i++)
				printf("%-16s%s\n", tests[i].name, tests[i].text);
			exit(0);
		default: guest_fail("the options stand at the top of litmus.c");
		}
	if (options.rounds < 1 || options.rounds > 100000000)
		guest_fail("--rounds takes a number from 1 to 100000000");
	for (unsigned i = 0; i < FENCES; i++)
		options.fences[i] |= !fences;
	for (unsigned i = 0; i < PLACEMENTS; i++)
		options.placements[i] |= !placements;
}

static bool named(const struct test *test, char **names)
{
	for (char **name = names; *name; name++)
		if (strcmp(*name, test->name) == 0)
			return true;
	return !*names;
}

int main(int argc, char **argv)
{
	unsigned number = 0, ran = 0;
	bool good = true;

	guest.name = "litmus";
	guest.pid = getpid();
	guest.cpu_count = guest_usable_cpus(guest.cpus);
	parse(argc, argv);
	check_model();
	make_arenas();
	for (size_t i = 0; i < TESTS; i++)
		if (named(&tests[i], argv + optind)) {
			good &= run_test(&tests[i], &number);
			ran++;
		}
	if (!ran)
		guest_fail("no test has this name; --list shows them");
	return good ? 0 : 1;
}
