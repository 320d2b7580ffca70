// SPDX-License-Identifier: GPL-2.0
/*
 * Threads on all CPUs contend for locks of every kind that pthread has, -n times in all: what each lock
 * protects is counted plainly, and no count may be lost.  Robust locks are left locked by threads that end.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <pthread.h>

enum { THREADS_MAX = 16, LOCKS = 12, COUNTS = 5, DEATHS = 20 };

static struct lock {
	pthread_mutex_t mutex;
	long counts[COUNTS];		/* side by side with the locks: they share pages */
} locks[LOCKS];
static pthread_spinlock_t spin;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t robust;
static long spin_count, rwlock_count, robust_count, deaths_seen;
static int thread_count;
static long rounds;

static void init_locks(void)
{
	static const int types[] = {
		PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE,
		PTHREAD_MUTEX_ADAPTIVE_NP,
	};
	pthread_mutexattr_t attr;

	for (int i = 0; i < LOCKS; i++) {
		CHECK_EQUAL(pthread_mutexattr_init(&attr), 0);
		CHECK_EQUAL(pthread_mutexattr_settype(&attr, types[i % 4]), 0);
		if (i % 3 == 2)
			CHECK_EQUAL(pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT), 0);
		CHECK_EQUAL(pthread_mutex_init(&locks[i].mutex, &attr), 0);
	}
	CHECK_EQUAL(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE), 0);
	CHECK_EQUAL(pthread_mutexattr_init(&attr), 0);
	CHECK_EQUAL(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST), 0);
	CHECK_EQUAL(pthread_mutex_init(&robust, &attr), 0);
}

static void lock_robust(void)
{
	int ret = pthread_mutex_lock(&robust);

	if (ret == EOWNERDEAD) {
		deaths_seen++;
		ret = pthread_mutex_consistent(&robust);
	}
	CHECK_EQUAL(ret, 0);
	robust_count++;
}

static void count_once(uint64_t noise)
{
	struct lock *l = &locks[noise % LOCKS];

	CHECK_EQUAL(pthread_mutex_lock(&l->mutex), 0);
	for (int i = 0; i < COUNTS; i++)
		l->counts[i]++;
	CHECK_EQUAL(pthread_mutex_unlock(&l->mutex), 0);
	if (noise >> 8 & 1) {
		CHECK_EQUAL(pthread_rwlock_wrlock(&rwlock), 0);
		rwlock_count++;
	} else {
		CHECK_EQUAL(pthread_rwlock_rdlock(&rwlock), 0);
	}
	CHECK_EQUAL(pthread_rwlock_unlock(&rwlock), 0);
	if (noise >> 9 & 7)
		return;
	CHECK_EQUAL(pthread_spin_lock(&spin), 0);
	spin_count++;
	CHECK_EQUAL(pthread_spin_unlock(&spin), 0);
	lock_robust();
	CHECK_EQUAL(pthread_mutex_unlock(&robust), 0);
}

static void *contend(void *arg)
{
	uint64_t number = (uint64_t)(long)arg;

	guest_move(0, (int)number);
	for (long i = 0; i < rounds; i++)
		count_once(guest_noise(number, (uint64_t)i));
	return NULL;
}

/* Ends with the lock held: the next one is told. */
static void *die(void *arg)
{
	guest_move(0, (int)(long)arg);
	lock_robust();
	return NULL;
}

static void run_threads(int count, void *(*body)(void *))
{
	pthread_t threads[THREADS_MAX];

	for (long i = 0; i < count; i++)
		CHECK_EQUAL(pthread_create(&threads[i], NULL, body, (void *)i), 0);
	for (int i = 0; i < count; i++)
		CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
}

int main(int argc, char **argv)
{
	long locked[LOCKS] = { 0 }, written = 0, rare = 0;

	guest_start(argc, argv, "mutex", 20000);
	thread_count = guest.cpu_count < THREADS_MAX ? guest.cpu_count : THREADS_MAX;
	if (thread_count < 2)
		thread_count = 2;
	rounds = guest.size / thread_count;
	init_locks();
	run_threads(thread_count, contend);
	for (int thread = 0; thread < thread_count; thread++)
		for (long i = 0; i < rounds; i++) {
			uint64_t noise = guest_noise((uint64_t)thread, (uint64_t)i);

			locked[noise % LOCKS]++;
			written += noise >> 8 & 1;
			rare += !(noise >> 9 & 7);
		}
	for (int i = 0; i < LOCKS; i++)
		for (int j = 0; j < COUNTS; j++)
			CHECK_EQUAL(locks[i].counts[j], locked[i]);
	CHECK_EQUAL(rwlock_count, written);
	CHECK_EQUAL(spin_count, rare);
	CHECK_EQUAL(robust_count, rare);
	CHECK_EQUAL(deaths_seen, 0);
	for (int i = 0; i < DEATHS; i++)
		run_threads(thread_count, die);
	CHECK_EQUAL(robust_count, rare + DEATHS * thread_count);
	CHECK_EQUAL(deaths_seen, DEATHS * thread_count - 1);
	return guest_ok();
}
