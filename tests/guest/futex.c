// SPDX-License-Identifier: GPL-2.0
/*
 * Futexes between processes on different CPUs: -n hand-overs around a ring, then the things built on
 * futexes: process-shared mutex, condition variable, barrier, semaphore, robust mutex,
 * priority-inheritance lock, requeue.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

struct shared {
	_Atomic uint32_t turn;
	_Atomic uint32_t word;
	_Atomic uint32_t waiting;
	pthread_mutex_t mutex, robust, inheriting;
	pthread_cond_t changed;
	pthread_barrier_t barrier;
	sem_t semaphore;
	long value;
};

static long futex(_Atomic uint32_t *word, int operation, uint32_t value, struct timespec *timeout)
{
	return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

static void ring_member(struct shared *shared, uint32_t self, uint32_t members, long rounds)
{
	for (uint32_t wanted = self; rounds--; wanted += members) {
		for (uint32_t seen; (seen = shared->turn) != wanted;) {
			long result = futex(&shared->turn, FUTEX_WAIT, seen, NULL);

			CHECK(result == 0 || errno == EAGAIN || errno == EINTR);
		}
		shared->turn = wanted + 1;
		CHECK(futex(&shared->turn, FUTEX_WAKE, INT32_MAX, NULL) >= 0);
	}
}

static void check_ring(struct shared *shared, int members, long rounds)
{
	pid_t pids[8];

	for (int i = 0; i < members; i++) {
		pids[i] = guest_fork(i);
		if (!pids[i]) {
			ring_member(shared, (uint32_t)i, (uint32_t)members, rounds);
			_exit(0);
		}
	}
	for (int i = 0; i < members; i++)
		guest_reap(pids[i]);
	CHECK_EQUAL(shared->turn, members * rounds);
}

static void check_timeout(struct shared *shared)
{
	struct timespec wait = { .tv_nsec = 50000000 };
	uint64_t start = guest_now_ns(CLOCK_MONOTONIC);

	shared->word = 5;
	CHECK(futex(&shared->word, FUTEX_WAIT, 4, NULL) == -1 && errno == EAGAIN);
	CHECK(futex(&shared->word, FUTEX_WAIT, 5, &wait) == -1 && errno == ETIMEDOUT);
	CHECK(guest_now_ns(CLOCK_MONOTONIC) - start >= 50000000);
}

static void wait_for_waiters(struct shared *shared, uint32_t count)
{
	while (shared->waiting != count)
		sched_yield();
	guest_sleep_ms(50);
}

/* Three wait; one is woken and two are moved to another word, then woken there. */
static void check_requeue(struct shared *shared)
{
	pid_t pids[3];
	_Atomic uint32_t *other = &shared->turn;

	shared->word = 0;
	shared->waiting = 0;
	for (int i = 0; i < 3; i++) {
		pids[i] = guest_fork(i);
		if (!pids[i]) {
			shared->waiting++;
			CHECK(futex(&shared->word, FUTEX_WAIT, 0, NULL) == 0);
			_exit(0);
		}
	}
	wait_for_waiters(shared, 3);
	CHECK_EQUAL(syscall(SYS_futex, &shared->word, FUTEX_CMP_REQUEUE, 1, (void *)2, other, 0), 3);
	CHECK_EQUAL(futex(&shared->word, FUTEX_WAKE, 9, NULL), 0);
	CHECK_EQUAL(futex(other, FUTEX_WAKE, 9, NULL), 2);
	for (int i = 0; i < 3; i++)
		guest_reap(pids[i]);
}

static void init_shared(struct shared *shared, unsigned members)
{
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;
	pthread_barrierattr_t barrier;

	CHECK(pthread_mutexattr_init(&mutex) == 0 && pthread_condattr_init(&cond) == 0);
	CHECK(pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED) == 0);
	CHECK(pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED) == 0);
	CHECK(pthread_mutex_init(&shared->mutex, &mutex) == 0);
	CHECK(pthread_cond_init(&shared->changed, &cond) == 0);
	CHECK(pthread_mutexattr_setprotocol(&mutex, PTHREAD_PRIO_INHERIT) == 0);
	CHECK(pthread_mutex_init(&shared->inheriting, &mutex) == 0);
	CHECK(pthread_mutexattr_setprotocol(&mutex, PTHREAD_PRIO_NONE) == 0);
	CHECK(pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST) == 0);
	CHECK(pthread_mutex_init(&shared->robust, &mutex) == 0);
	CHECK(pthread_barrierattr_init(&barrier) == 0);
	CHECK(pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED) == 0);
	CHECK(pthread_barrier_init(&shared->barrier, &barrier, members) == 0);
	CHECK(sem_init(&shared->semaphore, 1, 0) == 0);
}

static void locked_member(struct shared *shared, long self, long members, long rounds)
{
	pthread_barrier_wait(&shared->barrier);
	for (long i = 0; i < rounds; i++) {
		CHECK(pthread_mutex_lock(&shared->mutex) == 0);
		while (shared->value % members != self)
			CHECK(pthread_cond_wait(&shared->changed, &shared->mutex) == 0);
		shared->value++;
		CHECK(pthread_cond_broadcast(&shared->changed) == 0);
		CHECK(pthread_mutex_unlock(&shared->mutex) == 0);
	}
	pthread_barrier_wait(&shared->barrier);
	CHECK_EQUAL(shared->value, members * rounds);
	pthread_barrier_wait(&shared->barrier);
	for (long i = 0; i < rounds; i++) {
		CHECK(pthread_mutex_lock(&shared->inheriting) == 0);
		shared->value++;
		CHECK(pthread_mutex_unlock(&shared->inheriting) == 0);
	}
	CHECK(sem_post(&shared->semaphore) == 0);
}

static void check_locks(struct shared *shared, int members, long rounds)
{
	pid_t pids[8];

	init_shared(shared, (unsigned)members);
	for (int i = 0; i < members; i++) {
		pids[i] = guest_fork(i);
		if (!pids[i]) {
			locked_member(shared, i, members, rounds);
			_exit(0);
		}
	}
	for (int i = 0; i < members; i++)
		CHECK(sem_wait(&shared->semaphore) == 0);
	for (int i = 0; i < members; i++)
		guest_reap(pids[i]);
	CHECK_EQUAL(shared->value, 2 * members * rounds);
}

/* The owner dies with the lock held, on another CPU: the kernel reads and marks its list. */
static void check_robust(struct shared *shared)
{
	int status;
	pid_t pid = guest_fork(1);

	if (!pid) {
		CHECK(pthread_mutex_lock(&shared->robust) == 0);
		kill(getpid(), SIGKILL);
	}
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK_EQUAL(pthread_mutex_lock(&shared->robust), EOWNERDEAD);
	CHECK(pthread_mutex_consistent(&shared->robust) == 0);
	CHECK(pthread_mutex_unlock(&shared->robust) == 0);
}

int main(int argc, char **argv)
{
	struct shared *shared;
	int members;

	guest_start(argc, argv, "futex", 2000);
	members = guest.cpu_count < 2 ? 2 : guest.cpu_count > 8 ? 8 : guest.cpu_count;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	check_ring(shared, members, guest.size / members);
	check_timeout(shared);
	check_requeue(shared);
	check_locks(shared, members, guest.size / 10);
	check_robust(shared);
	return guest_ok();
}
