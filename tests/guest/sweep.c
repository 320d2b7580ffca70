// SPDX-License-Identifier: GPL-2.0
/*
 * Threads go over shared pages in order, again and again.  On each CPU one writes a word of its own in every page, which
 * nobody else writes: it must find there what it stored the round before.  One reads all words, which never go back.
 * -n: pages.  -k process: instead of threads, processes that share the pages, which the kernel maps itself on its host.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { WRITERS_MAX = 8, ROUNDS = 6, PAGE = 4096, PAGE_WORDS = PAGE / 8 };

static volatile uint64_t *words;
static atomic_int *writing;
static int writers;
static pthread_t threads[2 * WRITERS_MAX];
static pid_t processes[2 * WRITERS_MAX];

static volatile uint64_t *word(long page, int writer)
{
	return words + page * PAGE_WORDS + writer * (PAGE_WORDS / WRITERS_MAX) + page % 32;
}

static void *write_words(void *arg)
{
	int writer = (int)(intptr_t)arg;

	guest_move(0, writer);
	for (uint64_t round = 1; round <= ROUNDS; round++)
		for (long i = 0; i < guest.size; i++) {
			CHECK_EQUAL(*word(i, writer), round - 1);
			*word(i, writer) = round;
		}
	atomic_fetch_sub(writing, 1);
	return NULL;
}

static void *read_words(void *arg)
{
	uint64_t *seen = calloc(guest.size * writers, sizeof(*seen));

	CHECK(seen);
	guest_move(0, (int)(intptr_t)arg);
	while (atomic_load(writing))
		for (long i = 0; i < guest.size; i++)
			for (int w = 0; w < writers; w++) {
				uint64_t now = *word(i, w);

				if (now < seen[i * writers + w] || now > ROUNDS)
					guest_fail("page %ld, writer %d: %llu after %llu", i, w, (unsigned long long)now,
						   (unsigned long long)seen[i * writers + w]);
				seen[i * writers + w] = now;
			}
	free(seen);
	return NULL;
}

/* Half of them write. */
static void start(intptr_t i)
{
	void *(*body)(void *) = i % 2 ? read_words : write_words;
	void *cpu = (void *)(i / 2);

	if (!guest_is("process")) {
		CHECK(!pthread_create(&threads[i], NULL, body, cpu));
		return;
	}
	processes[i] = fork();
	CHECK(processes[i] >= 0);
	if (!processes[i]) {
		body(cpu);
		_exit(0);
	}
}

static void join(intptr_t i)
{
	int status;

	if (!guest_is("process")) {
		CHECK(!pthread_join(threads[i], NULL));
		return;
	}
	CHECK(waitpid(processes[i], &status, 0) == processes[i]);
	CHECK_EQUAL(status, 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "sweep", 512);
	writers = guest.cpu_count < 2 ? 2 : guest.cpu_count < WRITERS_MAX ? guest.cpu_count : WRITERS_MAX;
	words = mmap(NULL, guest.size * PAGE, PROT_READ | PROT_WRITE,
		     (guest_is("process") ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
	writing = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(words != MAP_FAILED && writing != MAP_FAILED);
	*writing = writers;
	for (int i = 0; i < 2 * writers; i++)
		start(i);
	for (int i = 0; i < 2 * writers; i++)
		join(i);
	for (long i = 0; i < guest.size; i++)
		for (int w = 0; w < writers; w++)
			CHECK_EQUAL(*word(i, w), ROUNDS);
	return guest_ok();
}
