// SPDX-License-Identifier: GPL-2.0
/*
 * Threads on all CPUs do everything to one address space that takes rights away from their siblings, and
 * check what memory holds against a model.
 *
 * Memory is a handful of regions of pages.  Of each page every thread owns a few words, and nobody else
 * writes there.  A word holds its own place (region, page, word) and a number that its owner only counts up:
 * so a page that shows up at a wrong place, after its end, or as it was before, is noticed by whoever reads
 * it.  The model of a region says what an owner may find in its word:
 *
 *   kept     what it wrote last.  Protection comes and goes, fork shares the pages; who may not write tries
 *            again.  Two words are written one after the other, and may not be seen the other way round.
 *   given    that, or zero for ever: its pages are given back by madvise at any time
 *   slots    that, or what a new mapping holds there: they are mapped, replaced and unmapped under a lock,
 *            but read and written without it; there may be nothing, and a fault
 *   moved    a thread's own, moved between two addresses by mremap
 *
 * Besides there are counters, some over the border of two pages, whose sum is what all threads have added;
 * children, which must find the memory as it was at the fork; signals, which must all arrive; files, which
 * must hold what was written from such memory; and moves to other CPUs.
 *
 *   --seconds N   (default 10)      --seed S    (default: from the clock; printed)
 *   --threads N   (default: two for each CPU)   --cpus LIST  (default: all)
 *   --break word|add   wrongs one word of another thread, or one sum: must be found
 *
 * Each thread's choices follow from the seed; how they interleave does not.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

enum {
	PAGE_SIZE = 4096,
	THREADS_MAX = 32,
	OWN_WORDS = 8,			/* of each thread in each page */
	FIRST_FREE_WORD = 2,		/* the two before are the ones written in order */
	PAGE_WORDS = THREADS_MAX * OWN_WORDS,
	PAGES = 16,			/* of a region, but */
	MOVED_PAGES = 2,		/* of a thread */
	PAGES_MAX = THREADS_MAX * MOVED_PAGES,
	SLOT_PAGES = 2,
	SLOTS = PAGES / SLOT_PAGES,
	COUNTER_PAGES = 4,
	ALIGNED_COUNTERS = 4,
	BORDER_COUNTERS = COUNTER_PAGES - 1,
	COUNTERS = 2 * (ALIGNED_COUNTERS + BORDER_COUNTERS),
	ACCESSES_MAX = 12,		/* of one operation: each may have to move a page */
	CHECKPOINT_S = 5,		/* between checkpoints */
	STUCK_S = 120,			/* without an operation that ended */
};

enum region { KEPT_PRIVATE, KEPT_SHARED, GIVEN_PRIVATE, GIVEN_SHARED, SLOT, MOVED, REGIONS };
static const char *const region_names[] = {
	"kept private", "kept shared", "given private", "given shared", "slot", "moved",
};

/* place of a word << SEQUENCE_BITS | its owner's count; what a file holds has count 0 */
enum { SEQUENCE_BITS = 36 };
#define SEQUENCE_MASK ((1ull << SEQUENCE_BITS) - 1)

struct thread {
	unsigned number;
	pthread_t id;
	uint64_t noise, noise_count;
	uint64_t sequence;
	uint64_t expected[REGIONS][PAGES_MAX][OWN_WORDS];
	uint64_t seen[REGIONS][PAGES_MAX][PAGE_WORDS];	/* newest count seen of anybody's word */
	uint64_t added[COUNTERS], signals_sent;
	char *_Atomic moved_at;
	char *moved_places[2];
	int file;
	const char *_Atomic doing;
	_Atomic uint64_t done;		/* operations */
};

static struct {
	char *base[REGIONS];		/* not of MOVED */
	char *counter_base[2];		/* private, shared */
	struct thread *threads[THREADS_MAX];
	unsigned thread_count;
	uint64_t seed;
	long seconds;
	bool break_word, break_add;
	char program[256];
	int pattern;			/* file that SLOT pages may show */
	_Atomic uint32_t slot_locks[SLOTS];
	pthread_barrier_t barrier;
	_Atomic unsigned checkpoint;	/* counts up; the last has ENDING */
	_Atomic unsigned met;		/* the newest that is over */
	_Atomic uint64_t signals_got;
} torture = { .seconds = 10 };

enum { ENDING = 1u << 31 };

static __thread struct thread *self;

#define violation(format, ...) \
	guest_fail("thread %u, %s: " format, self->number, self->doing, ##__VA_ARGS__)

static uint64_t noise(void)
{
	return guest_noise(self->noise, self->noise_count++);
}

static unsigned pick(unsigned count)
{
	return (unsigned)(noise() % count);
}

/* --- access that may fault --- */

/* 1, or 0 when there was a fault: fault() continues at probe_failed. */
int probe_load(const volatile uint64_t *at, uint64_t *value);
int probe_store(volatile uint64_t *at, uint64_t value);
extern const char probe_failed[], probe_end[];
asm(".text\n"
    "probe_load:	mov (%rdi), %rax\n"
    "		mov %rax, (%rsi)\n"
    "		mov $1, %eax\n"
    "		ret\n"
    "probe_store:	mov %rsi, (%rdi)\n"
    "		mov $1, %eax\n"
    "		ret\n"
    "probe_failed:	xor %eax, %eax\n"
    "		ret\n"
    "probe_end:\n");

static bool within(const void *at, const char *base, unsigned pages)
{
	return (const char *)at >= base && (const char *)at < base + pages * PAGE_SIZE;
}

/* Memory that somebody else has protected for a moment. */
static bool comes_back(const void *at)
{
	for (int i = KEPT_PRIVATE; i <= GIVEN_SHARED; i++)
		if (within(at, torture.base[i], PAGES))
			return true;
	return within(at, torture.counter_base[0], COUNTER_PAGES) ||
	       within(at, torture.counter_base[1], COUNTER_PAGES);
}

static void fault(int number, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	const char *ip = (const char *)registers[REG_RIP];

	if (ip >= (const char *)probe_load && ip < probe_failed)
		registers[REG_RIP] = (greg_t)probe_failed;
	else if (number == SIGSEGV && info->si_code == SEGV_ACCERR && comes_back(info->si_addr))
		sched_yield();
	else
		violation("signal %d, code %d, address %p, at %p", number, info->si_code, info->si_addr,
			  (const void *)ip);
}

/* --- words --- */

static uint64_t word_code(enum region region, unsigned page, unsigned word)
{
	return (uint64_t)((region + 1u) << 20 | page << 12 | word) << SEQUENCE_BITS;
}

static volatile uint64_t *word_at(enum region region, unsigned page, unsigned word)
{
	char *base = torture.base[region];

	if (region == MOVED) {
		base = atomic_load(&torture.threads[page / MOVED_PAGES]->moved_at);
		page %= MOVED_PAGES;
	}
	return (volatile uint64_t *)(base + page * PAGE_SIZE) + word;
}

static bool may_fault(enum region region)
{
	return region == SLOT || region == MOVED;
}

static unsigned own_page(enum region region)
{
	return region == MOVED ? self->number * MOVED_PAGES + pick(MOVED_PAGES) : pick(PAGES);
}

static void store_own(enum region region, unsigned page, unsigned own, uint64_t sequence)
{
	unsigned word = self->number * OWN_WORDS + own;
	uint64_t value = word_code(region, page, word) | sequence;

	if (!may_fault(region))
		*word_at(region, page, word) = value;
	else if (!probe_store(word_at(region, page, word), value))
		return;
	self->expected[region][page][own] = value;
}

static void check_own(enum region region, unsigned page, unsigned own)
{
	unsigned word = self->number * OWN_WORDS + own;
	uint64_t *expected = &self->expected[region][page][own], value;

	if (!may_fault(region))
		value = *word_at(region, page, word);
	else if (!probe_load(word_at(region, page, word), &value))
		return;
	if (value == *expected)
		return;
	if ((value && (region != SLOT || value != word_code(region, page, word))) || region == MOVED ||
	    region == KEPT_PRIVATE || region == KEPT_SHARED)
		violation("%s page %u word %u is %llx, not %llx", region_names[region], page, word,
			  (unsigned long long)value, (unsigned long long)*expected);
	*expected = value;
}

/* Any thread's word; its count, or -1: not to be read now. */
static int64_t peek(enum region region, unsigned page, unsigned word)
{
	uint64_t *seen = &self->seen[region][page][word], value, sequence;

	if (!probe_load(word_at(region, page, word), &value))
		return -1;
	sequence = value & SEQUENCE_MASK;
	if (value && value - sequence != word_code(region, page, word))
		violation("%s page %u word %u is %llx, which belongs elsewhere", region_names[region], page,
			  word, (unsigned long long)value);
	if (sequence < *seen && (sequence || region <= KEPT_SHARED))
		violation("%s page %u word %u is at %llu, after %llu was seen", region_names[region], page,
			  word, (unsigned long long)sequence, (unsigned long long)*seen);
	if (sequence > *seen)
		*seen = sequence;
	return (int64_t)sequence;
}

/* --- operations --- */

static void write_some(enum region region)
{
	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;)
		store_own(region, own_page(region), FIRST_FREE_WORD + pick(OWN_WORDS - FIRST_FREE_WORD),
			  ++self->sequence);
}

static void write_words(void)
{
	write_some(pick(REGIONS));
}

static void read_words(void)
{
	enum region region = pick(REGIONS);

	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;)
		check_own(region, own_page(region), pick(OWN_WORDS));
}

static unsigned anyones_word(void)
{
	return pick(torture.thread_count) * OWN_WORDS + pick(OWN_WORDS);
}

static void read_others(void)
{
	enum region region = pick(SLOT + 1);

	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;)
		peek(region, pick(PAGES), anyones_word());
}

/* Both places of a moved page: it is at one of them, or at neither for a moment. */
static void read_moved(void)
{
	const struct thread *owner = torture.threads[pick(torture.thread_count)];
	unsigned page = pick(MOVED_PAGES), word = owner->number * OWN_WORDS + pick(OWN_WORDS);
	uint64_t code = word_code(MOVED, owner->number * MOVED_PAGES + page, word), value;

	for (int place = 0; place < 2; place++) {
		uint64_t *at = (uint64_t *)(owner->moved_places[place] + page * PAGE_SIZE) + word;

		if (probe_load(at, &value) && value && value >> SEQUENCE_BITS != code >> SEQUENCE_BITS)
			violation("moved page %u of thread %u word %u is %llx, which belongs elsewhere", page,
				  owner->number, word, (unsigned long long)value);
	}
}

static void write_in_order(void)
{
	enum region region = pick(KEPT_SHARED + 1);

	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;) {
		unsigned page = pick(PAGES);

		store_own(region, page, 0, ++self->sequence);
		store_own(region, (page + 1) % PAGES, 1, self->sequence);
	}
}

static void read_in_order(void)
{
	enum region region = pick(KEPT_SHARED + 1);

	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;) {
		unsigned page = pick(PAGES), word = pick(torture.thread_count) * OWN_WORDS;
		int64_t second = peek(region, (page + 1) % PAGES, word + 1);
		int64_t first = peek(region, page, word);

		if (first >= 0 && first < second)
			violation("%s page %u: thread %u's second word shows %lld, its first only %lld",
				  region_names[region], page, word / OWN_WORDS, (long long)second,
				  (long long)first);
	}
}

static bool is_shared_counter(unsigned counter)
{
	return counter >= COUNTERS / 2;
}

static uint64_t *counter_at(unsigned counter)
{
	char *base = torture.counter_base[is_shared_counter(counter)];

	counter %= COUNTERS / 2;
	if (counter < ALIGNED_COUNTERS)
		return (uint64_t *)(base + counter * PAGE_SIZE + 64 * counter);
	counter -= ALIGNED_COUNTERS;
	return (uint64_t *)(base + (counter + 1) * PAGE_SIZE - 1 - 3 * counter);
}

static void add_to_counter(unsigned counter, uint64_t amount)
{
	__atomic_fetch_add(counter_at(counter), amount, __ATOMIC_SEQ_CST);
	self->added[counter] += amount;
}

static void add(void)
{
	for (unsigned n = 1 + pick(ACCESSES_MAX); n--;)
		add_to_counter(pick(COUNTERS), noise() >> 20);
}

/* Pages from somewhere within a region that others use at the moment. */
static char *some_pages(size_t *size, unsigned *area)
{
	unsigned pages = PAGES, from;
	char *base;

	*area = pick(GIVEN_SHARED + 1 + 2);
	if (*area <= GIVEN_SHARED) {
		base = torture.base[*area];
	} else {
		pages = COUNTER_PAGES;
		base = torture.counter_base[*area - GIVEN_SHARED - 1];
	}
	from = pick(pages);
	*size = (1 + pick(pages - from)) * PAGE_SIZE;
	return base + from * PAGE_SIZE;
}

static void protect(void)
{
	unsigned area;
	size_t size;
	char *at = some_pages(&size, &area);

	CHECK(mprotect(at, size, pick(4) ? PROT_READ : PROT_NONE) == 0);
	if (pick(2))
		sched_yield();
	CHECK(mprotect(at, size, PROT_READ | PROT_WRITE) == 0);
}

static void give_back(void)
{
	unsigned area;
	size_t size;
	char *at = some_pages(&size, &area);
	int advice = MADV_COLD;

	if (area == KEPT_SHARED || area == GIVEN_SHARED + 2)
		advice = MADV_DONTNEED;		/* unmapped, but the file keeps it */
	if (area == GIVEN_PRIVATE)
		advice = pick(4) ? MADV_DONTNEED : MADV_FREE;
	if (area == GIVEN_SHARED)
		advice = pick(2) ? MADV_REMOVE : MADV_DONTNEED;
	CHECK(madvise(at, size, advice) == 0);
}

static void map_slot(char *at, unsigned slot, unsigned how)
{
	static const int flags[] = { MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE };
	int fd = flags[how] & MAP_ANONYMOUS ? -1 : torture.pattern;

	CHECK(mmap(at, SLOT_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, flags[how] | MAP_FIXED, fd,
		   fd < 0 ? 0 : slot * SLOT_PAGES * PAGE_SIZE) == at);
	for (unsigned page = slot * SLOT_PAGES; page < (slot + 1) * SLOT_PAGES; page++)
		for (unsigned own = 0; own < OWN_WORDS; own++) {
			unsigned word = self->number * OWN_WORDS + own;
			uint64_t fresh = fd < 0 ? 0 : word_code(SLOT, page, word);

			if (*word_at(SLOT, page, word) != fresh)
				violation("page %u word %u of a new mapping is %llx, not %llx", page, word,
					  (unsigned long long)*word_at(SLOT, page, word),
					  (unsigned long long)fresh);
			self->expected[SLOT][page][own] = fresh;
			if (pick(2))
				store_own(SLOT, page, own, ++self->sequence);
		}
}

static void replace_slot(void)
{
	unsigned slot = pick(SLOTS), how = pick(6);
	char *at = torture.base[SLOT] + slot * SLOT_PAGES * PAGE_SIZE;

	if (atomic_exchange(&torture.slot_locks[slot], 1))
		return;
	if (how < 3)
		map_slot(at, slot, how);
	else if (how == 3)
		CHECK(munmap(at, SLOT_PAGES * PAGE_SIZE) == 0);
	else if (how == 4)
		CHECK(mmap(at, SLOT_PAGES * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) == at);
	else if (mprotect(at, SLOT_PAGES * PAGE_SIZE, pick(2) ? PROT_READ : PROT_READ | PROT_WRITE))
		CHECK_EQUAL(errno, ENOMEM);	/* nothing is mapped there */
	atomic_store(&torture.slot_locks[slot], 0);
}

/* The memory that a thread moves is private or shared. */
static bool moves_shared(unsigned thread)
{
	return thread & 1;
}

static void check_moved(void)
{
	for (unsigned page = 0; page < MOVED_PAGES; page++)
		for (unsigned own = 0; own < OWN_WORDS; own++)
			check_own(MOVED, self->number * MOVED_PAGES + page, own);
}

static void move_pages(void)
{
	size_t size = MOVED_PAGES * PAGE_SIZE;
	char *from = self->moved_at, *to = self->moved_places[from == self->moved_places[0]];
	bool leave = pick(2);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (leave ? MREMAP_DONTUNMAP : 0);
	uint64_t value;

	CHECK(mremap(from, size, size, flags, to) == to);
	atomic_store(&self->moved_at, to);
	/* what stays mapped of private memory is empty; of shared memory it is the same */
	if (!leave && probe_load((uint64_t *)from, &value))
		violation("there is still %llx where memory was moved from", (unsigned long long)value);
	if (pick(2))
		CHECK(mmap(from, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from);
	check_moved();
}

/* The other threads are not in the child: nothing changes there any more, and nobody gives rights back. */
static void unprotect_all(void)
{
	const int all = PROT_READ | PROT_WRITE;

	for (int i = KEPT_PRIVATE; i <= GIVEN_SHARED; i++)
		CHECK(mprotect(torture.base[i], PAGES * PAGE_SIZE, all) == 0);
	for (int i = 0; i < 2; i++)
		CHECK(mprotect(torture.counter_base[i], COUNTER_PAGES * PAGE_SIZE, all) == 0);
}

static void check_snapshot(unsigned page)
{
	uint64_t before[PAGE_WORDS];

	for (unsigned word = 0; word < PAGE_WORDS; word++) {
		peek(KEPT_PRIVATE, page, word);
		before[word] = *word_at(KEPT_PRIVATE, page, word);
	}
	usleep(pick(2000));
	for (unsigned word = 0; word < PAGE_WORDS; word++)
		if (*word_at(KEPT_PRIVATE, page, word) != before[word])
			violation("page %u word %u of the child has changed from %llx to %llx", page, word,
				  (unsigned long long)before[word],
				  (unsigned long long)*word_at(KEPT_PRIVATE, page, word));
}

__attribute__((noreturn)) static void run_child(unsigned shared_counter, uint64_t amount)
{
	unprotect_all();
	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned own = 0; own < OWN_WORDS; own++) {
			check_own(KEPT_PRIVATE, page, own);
			check_own(GIVEN_PRIVATE, page, own);
		}
	if (!moves_shared(self->number))
		check_moved();
	check_snapshot(pick(PAGES));
	write_some(KEPT_PRIVATE);
	write_some(GIVEN_PRIVATE);
	for (unsigned own = 0; own < OWN_WORDS; own++)
		check_own(KEPT_PRIVATE, pick(PAGES), own);
	add_to_counter(shared_counter, amount);
	_exit(0);
}

static void fork_child(void)
{
	unsigned counter = COUNTERS / 2 + pick(COUNTERS / 2);
	uint64_t amount = noise() >> 20;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		if (pick(2))
			guest_move(0, (int)pick((unsigned)guest.cpu_count));
		run_child(counter, amount);
	}
	if (pick(2))
		write_words();
	guest_reap(pid);
	self->added[counter] += amount;
}

static void spawn_program(void)
{
	char *argv[] = { torture.program, "--nothing", NULL }, *envp[] = { NULL };
	pid_t pid;

	if (pick(4))
		return;
	CHECK_EQUAL(posix_spawn(&pid, torture.program, NULL, NULL, argv, envp), 0);
	guest_reap(pid);
}

static void *run_short_thread(void *arg)
{
	self = arg;
	guest_move(0, (int)pick((unsigned)guest.cpu_count));
	read_words();
	write_words();
	add();
	return NULL;
}

/* It does some work as the thread that waits for it. */
static void short_thread(void)
{
	pthread_t thread;

	CHECK_EQUAL(pthread_create(&thread, NULL, run_short_thread, self), 0);
	CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

static void got_signal(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (info->si_value.sival_ptr != &torture)
		guest_fail("a signal came with %p", info->si_value.sival_ptr);
	torture.signals_got++;
}

static void send_signals(void)
{
	const struct thread *to = torture.threads[pick(torture.thread_count)];
	union sigval value = { .sival_ptr = &torture };

	for (unsigned n = 1 + pick(4); n--;) {
		int ret = pthread_sigqueue(to->id, SIGRTMIN, value);

		CHECK(ret == 0 || ret == EAGAIN);
		self->signals_sent += !ret;
	}
}

static void change_cpu(void)
{
	guest_move(0, (int)pick((unsigned)guest.cpu_count));
}

/* Whole, however often the memory is not there at the moment. */
static void transfer(bool out, void *block, off_t offset)
{
	const size_t size = OWN_WORDS * sizeof(uint64_t);

	for (;;) {
		ssize_t done = out ? pwrite(self->file, block, size, offset) :
				     pread(self->file, block, size, offset);

		if (done == (ssize_t)size)
			return;
		CHECK(done >= 0 || errno == EFAULT);
		sched_yield();
	}
}

static void use_file(void)
{
	enum region region = pick(KEPT_SHARED + 1);
	unsigned page = pick(PAGES);
	void *block = (void *)word_at(region, page, self->number * OWN_WORDS);
	uint64_t *expected = self->expected[region][page], copy[OWN_WORDS];

	transfer(true, block, page * PAGE_SIZE);
	transfer(false, copy, page * PAGE_SIZE);
	for (unsigned own = 0; own < OWN_WORDS; own++)
		if (copy[own] != expected[own])
			violation("write() of %s page %u word %u took %llx, not %llx", region_names[region],
				  page, own, (unsigned long long)copy[own],
				  (unsigned long long)expected[own]);
	self->sequence++;
	for (unsigned own = FIRST_FREE_WORD; own < OWN_WORDS; own++)
		copy[own] = word_code(region, page, self->number * OWN_WORDS + own) | self->sequence;
	transfer(true, copy, page * PAGE_SIZE);
	transfer(false, block, page * PAGE_SIZE);
	memcpy(expected, copy, sizeof(copy));
	for (unsigned own = 0; own < OWN_WORDS; own++)
		check_own(region, page, own);
}

static const struct operation {
	const char *name;
	void (*run)(void);
	unsigned weight;
} operations[] = {
	{ "writing", write_words, 20 },
	{ "reading", read_words, 20 },
	{ "reading others", read_others, 20 },
	{ "reading moved pages", read_moved, 10 },
	{ "writing in order", write_in_order, 10 },
	{ "reading in order", read_in_order, 10 },
	{ "adding", add, 20 },
	{ "mprotect", protect, 5 },
	{ "madvise", give_back, 8 },
	{ "mapping", replace_slot, 10 },
	{ "mremap", move_pages, 5 },
	{ "fork", fork_child, 3 },
	{ "exec", spawn_program, 1 },
	{ "a thread", short_thread, 2 },
	{ "signals", send_signals, 5 },
	{ "changing the CPU", change_cpu, 3 },
	{ "file", use_file, 6 },
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static const struct operation *pick_operation(void)
{
	const struct operation *o = operations;
	unsigned total = 0, at;

	for (size_t i = 0; i < OPERATIONS; i++)
		total += operations[i].weight;
	for (at = pick(total); at >= o->weight; o++)
		at -= o->weight;
	return o;
}

/* --- checkpoints: all threads stop, and sums are compared --- */

static void check_counters(void)
{
	for (unsigned counter = 0; counter < COUNTERS; counter++) {
		uint64_t added = 0, value = __atomic_load_n(counter_at(counter), __ATOMIC_SEQ_CST);

		for (unsigned t = 0; t < torture.thread_count; t++)
			added += torture.threads[t]->added[counter];
		if (value != added)
			violation("counter %u at %p is %llx, but %llx was added", counter,
				  (void *)counter_at(counter), (unsigned long long)value,
				  (unsigned long long)added);
	}
}

static void check_signals(void)
{
	uint64_t sent = 0, end = guest_now_ns(CLOCK_MONOTONIC) + STUCK_S * 1000000000ull;

	for (unsigned t = 0; t < torture.thread_count; t++)
		sent += torture.threads[t]->signals_sent;
	while (torture.signals_got != sent && guest_now_ns(CLOCK_MONOTONIC) < end)
		guest_sleep_ms(1);
	if (torture.signals_got != sent)
		violation("%llu signals have come of %llu", (unsigned long long)torture.signals_got,
			  (unsigned long long)sent);
}

static void check_all_own(void)
{
	for (enum region region = 0; region < MOVED; region++)
		for (unsigned page = 0; page < PAGES; page++)
			for (unsigned own = 0; own < OWN_WORDS; own++)
				check_own(region, page, own);
	check_moved();
}

static void meet(unsigned checkpoint)
{
	pthread_barrier_wait(&torture.barrier);
	if (self->number == 0) {
		check_counters();
		check_signals();
	}
	check_all_own();
	pthread_barrier_wait(&torture.barrier);
	atomic_store(&torture.met, checkpoint);
}

/* What --break asks for: something that the checks must find. */
static void do_wrong(void)
{
	if (torture.break_word)		/* until its owner looks before it writes */
		*word_at(KEPT_SHARED, 3, OWN_WORDS + FIRST_FREE_WORD) ^= 1ull << 40;
	if (torture.break_add && self->done == 50)
		self->added[COUNTERS - 1] += 1ull << 32;
}

static void *run_thread(void *arg)
{
	unsigned met = 0, checkpoint;

	self = arg;
	pthread_barrier_wait(&torture.barrier);		/* before that not all have an id */
	change_cpu();
	do {
		const struct operation *o = pick_operation();

		self->doing = o->name;
		o->run();
		self->done++;
		if (self->number == 0 && self->done % 50 == 0)
			do_wrong();
		checkpoint = torture.checkpoint;
		if (checkpoint != met) {
			self->doing = "a checkpoint";
			meet(checkpoint);
		}
		met = checkpoint;
	} while (!(met & ENDING));
	return NULL;
}

/* --- beginning and end --- */

static char *map_memory(unsigned pages, bool shared)
{
	char *at = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
			MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void make_pattern(void)
{
	torture.pattern = memfd_create("pattern", 0);
	CHECK(torture.pattern >= 0);
	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t words[PAGE_SIZE / sizeof(uint64_t)] = { 0 };

		for (unsigned word = 0; word < PAGE_WORDS; word++)
			words[word] = word_code(SLOT, page, word);
		guest_write_all(torture.pattern, words, sizeof(words));
	}
}

static void make_memory(void)
{
	torture.base[KEPT_PRIVATE] = map_memory(PAGES, false);
	torture.base[KEPT_SHARED] = map_memory(PAGES, true);
	torture.base[GIVEN_PRIVATE] = map_memory(PAGES, false);
	torture.base[GIVEN_SHARED] = map_memory(PAGES, true);
	torture.base[SLOT] = map_memory(PAGES, false);
	torture.counter_base[0] = map_memory(COUNTER_PAGES, false);
	torture.counter_base[1] = map_memory(COUNTER_PAGES, true);
	make_pattern();
}

static struct thread *make_thread(unsigned number)
{
	struct thread *t = calloc(1, sizeof(*t));

	CHECK(t);
	t->number = number;
	t->noise = guest_noise(torture.seed, number);
	t->moved_places[0] = map_memory(MOVED_PAGES, moves_shared(number));
	t->moved_places[1] = map_memory(MOVED_PAGES, moves_shared(number));
	t->moved_at = t->moved_places[0];
	t->file = memfd_create("torture", 0);
	CHECK(t->file >= 0);
	t->doing = "starting";
	return t;
}

static void handle_signals(void)
{
	struct sigaction faults = { .sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction signals = { .sa_sigaction = got_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	CHECK(sigaction(SIGSEGV, &faults, NULL) == 0 && sigaction(SIGBUS, &faults, NULL) == 0);
	CHECK(sigaction(SIGRTMIN, &signals, NULL) == 0);
}

/* Ends the program when a thread has not ended an operation for long. */
static void watch(uint64_t done[], unsigned still[])
{
	for (unsigned t = 0; t < torture.thread_count; t++) {
		still[t] = done[t] == torture.threads[t]->done ? still[t] + 1 : 0;
		done[t] = torture.threads[t]->done;
		if (still[t] < STUCK_S)
			continue;
		for (unsigned i = 0; i < torture.thread_count; i++)
			printf("# thread %u: %s, %llu operations\n", i, torture.threads[i]->doing,
			       (unsigned long long)torture.threads[i]->done);
		fflush(stdout);
		guest_fail("thread %u is stuck: %s", t, torture.threads[t]->doing);
	}
}

static void run(void)
{
	uint64_t done[THREADS_MAX] = { 0 }, total = 0;
	unsigned still[THREADS_MAX] = { 0 };

	for (unsigned i = 0; i < torture.thread_count; i++)
		torture.threads[i] = make_thread(i);
	CHECK_EQUAL(pthread_barrier_init(&torture.barrier, NULL, torture.thread_count), 0);
	for (unsigned i = 0; i < torture.thread_count; i++)
		CHECK_EQUAL(pthread_create(&torture.threads[i]->id, NULL, run_thread, torture.threads[i]), 0);
	for (long second = 0; second < torture.seconds; second++) {
		guest_sleep_ms(1000);
		watch(done, still);
		if (second % CHECKPOINT_S == 0 && torture.met == torture.checkpoint)
			torture.checkpoint++;
	}
	while (torture.met != torture.checkpoint) {
		guest_sleep_ms(1000);
		watch(done, still);
	}
	torture.checkpoint |= ENDING;
	for (unsigned i = 0; i < torture.thread_count; i++) {
		CHECK_EQUAL(pthread_join(torture.threads[i]->id, NULL), 0);
		total += torture.threads[i]->done;
	}
	printf("# %llu operations, %llu signals\n", (unsigned long long)total,
	       (unsigned long long)torture.signals_got);
}

static void parse(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "seconds", required_argument, NULL, 'n' }, { "seed", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' }, { "cpus", required_argument, NULL, 'c' },
		{ "break", required_argument, NULL, 'b' }, { "nothing", no_argument, NULL, 'x' }, { 0 },
	};

	for (int option; (option = getopt_long(argc, argv, "n:s:t:c:", long_options, NULL)) != -1;)
		switch (option) {
		case 'n': torture.seconds = strtol(optarg, NULL, 10); break;
		case 's': torture.seed = strtoull(optarg, NULL, 10); break;
		case 't': torture.thread_count = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'c': guest_parse_cpus(optarg); break;
		case 'b':
			torture.break_word = strcmp(optarg, "word") == 0;
			torture.break_add = strcmp(optarg, "add") == 0;
			break;
		case 'x': exit(0);
		default: guest_fail("the options stand at the top of torture.c");
		}
	if (!torture.thread_count)
		torture.thread_count = 2 * (unsigned)guest.cpu_count;
	if (torture.thread_count < 2)
		torture.thread_count = 2;
	if (torture.thread_count > THREADS_MAX)
		torture.thread_count = THREADS_MAX;
}

int main(int argc, char **argv)
{
	static char name[64] = "torture";
	ssize_t length = readlink("/proc/self/exe", torture.program, sizeof(torture.program) - 1);

	guest.name = name;
	guest.pid = getpid();
	CHECK(length > 0);
	guest.cpu_count = guest_usable_cpus(guest.cpus);
	torture.seed = guest_now_ns(CLOCK_REALTIME) / 1000 % 1000000;
	parse(argc, argv);
	snprintf(name, sizeof(name), "torture --seed %llu --threads %u", (unsigned long long)torture.seed,
		 torture.thread_count);
	printf("# %s, %d CPUs, %ld s\n", name, guest.cpu_count, torture.seconds);
	fflush(stdout);
	make_memory();
	handle_signals();
	run();
	return guest_ok();
}
