// SPDX-License-Identifier: GPL-2.0
/*
 * The threads of one process on different CPUs: -n rounds of mutex, condition variable, barrier, rwlock
 * and atomics; thread-local storage, join, signals to one thread, mmap and munmap beside running threads,
 * exit and exit_group.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { THREADS_MAX = 8 };

static int thread_count;
static long rounds;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static _Atomic long atomic_count, flag;
static long mutex_count, turn, pair[2];
static __thread long local = 7;
static __thread int self;

static void run_threads(void *(*body)(void *))
{
	pthread_t threads[THREADS_MAX];
	void *result;

	for (long i = 0; i < thread_count; i++)
		CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
	for (long i = 0; i < thread_count; i++) {
		CHECK(pthread_join(threads[i], &result) == 0);
		CHECK_EQUAL((long)result, i + 1000);
	}
}

static void *count(void *arg)
{
	self = (int)(long)arg;
	guest_move(0, self);
	CHECK_EQUAL(local, 7);
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < rounds; i++) {
		atomic_fetch_add(&atomic_count, 1);
		local++;
		CHECK(pthread_mutex_lock(&mutex) == 0);
		mutex_count++;
		CHECK(pthread_mutex_unlock(&mutex) == 0);
	}
	CHECK_EQUAL(local, 7 + rounds);
	pthread_barrier_wait(&barrier);
	CHECK_EQUAL(atomic_count, rounds * thread_count);
	CHECK_EQUAL(mutex_count, rounds * thread_count);
	return (void *)((long)arg + 1000);
}

static void *take_turns(void *arg)
{
	guest_move(0, (int)(long)arg);
	for (long i = 0; i < rounds / 20; i++) {
		CHECK(pthread_mutex_lock(&mutex) == 0);
		while (turn % thread_count != (long)arg)
			CHECK(pthread_cond_wait(&changed, &mutex) == 0);
		turn++;
		CHECK(pthread_cond_broadcast(&changed) == 0);
		CHECK(pthread_mutex_unlock(&mutex) == 0);
	}
	return (void *)((long)arg + 1000);
}

static void *read_and_write(void *arg)
{
	guest_move(0, (int)(long)arg);
	for (long i = 0; i < rounds / 20; i++) {
		if (i % 8 == (long)arg) {
			CHECK(pthread_rwlock_wrlock(&rwlock) == 0);
			pair[0]++;
			pair[1] = pair[0];
		} else {
			CHECK(pthread_rwlock_rdlock(&rwlock) == 0);
			CHECK_EQUAL(pair[0], pair[1]);
		}
		CHECK(pthread_rwlock_unlock(&rwlock) == 0);
	}
	return (void *)((long)arg + 1000);
}

/* Each maps, fills, checks and unmaps memory of its own, next to the others doing the same. */
static void *map_and_unmap(void *arg)
{
	long *page;

	guest_move(0, (int)(long)arg);
	for (long i = 0; i < rounds / 20; i++) {
		page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(page != MAP_FAILED);
		CHECK(page[0] == 0 && page[1023] == 0);
		page[0] = page[1023] = i * THREADS_MAX + (long)arg;
		CHECK(mprotect(page, 4096, PROT_READ) == 0);
		CHECK(page[0] == page[1023] && page[0] == i * THREADS_MAX + (long)arg);
		CHECK(munmap(page, 8192) == 0);
	}
	return (void *)((long)arg + 1000);
}

static __thread volatile sig_atomic_t got_signal;

static void note_signal(int number)
{
	(void)number;
	got_signal++;
}

/* A signal to one thread arrives there, in a loop or in a system call, and nowhere else. */
static void *await_signal(void *arg)
{
	guest_move(0, (int)(long)arg);
	atomic_fetch_add(&flag, 1);
	while ((long)arg % 2 == 0 && !got_signal)
		;
	while ((long)arg % 2 && !got_signal)
		guest_sleep_ms(1);
	atomic_fetch_add(&flag, 1);
	while (flag != 2 * thread_count)
		guest_sleep_ms(1);
	CHECK_EQUAL(got_signal, 1);
	return (void *)((long)arg + 1000);
}

static void check_signals(void)
{
	pthread_t threads[THREADS_MAX];
	void *result;

	CHECK(signal(SIGUSR1, note_signal) != SIG_ERR);
	flag = 0;
	for (long i = 0; i < thread_count; i++)
		CHECK(pthread_create(&threads[i], NULL, await_signal, (void *)i) == 0);
	while (flag != thread_count)
		guest_sleep_ms(1);
	for (int i = 0; i < thread_count; i++)
		CHECK(pthread_kill(threads[i], SIGUSR1) == 0);
	for (int i = 0; i < thread_count; i++)
		CHECK(pthread_join(threads[i], &result) == 0 && (long)result == i + 1000);
	CHECK_EQUAL(got_signal, 0);
}

static volatile long *doomed;
static _Atomic long alive;
static void *loop_on_page(void *arg)
{
	guest_move(0, (int)(long)arg);
	alive++;
	for (;;)
		*doomed = (long)arg;
	return NULL;
}

/* A page vanishes under threads that run elsewhere: they fault, and the process dies of it. */
static void check_unmap(void)
{
	pid_t pid = fork();
	pthread_t thread;
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		doomed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (long i = 1; i < thread_count; i++)
			CHECK(pthread_create(&thread, NULL, loop_on_page, (void *)i) == 0);
		while (alive != thread_count - 1)
			sched_yield();
		guest_sleep_ms(20);
		CHECK(munmap((void *)doomed, 4096) == 0);
		for (;;)
			pause();
	}
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void *loop(void *arg)
{
	guest_move(0, (int)(long)arg);
	alive++;
	for (;;)
		local++;
	return NULL;
}

static void *end_process(void *arg)
{
	guest_move(0, (int)(long)arg);
	exit(44);
}

/* exit_group by a thread ends those that loop on other CPUs. */
static void check_exit(void)
{
	pid_t pid = fork();
	pthread_t thread;
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		for (long i = 1; i < thread_count; i++)
			CHECK(pthread_create(&thread, NULL, loop, (void *)i) == 0);
		while (alive != thread_count - 1)
			sched_yield();
		CHECK(pthread_create(&thread, NULL, end_process, (void *)1) == 0);
		for (;;)
			pause();
	}
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQUAL(WEXITSTATUS(status), 44);
}

/* The first thread leaves; the process goes on until the last one does. */
static void *outlive(void *arg)
{
	guest_move(0, 1);
	guest_sleep_ms(50);
	syscall(SYS_exit_group, (long)arg);
	return NULL;
}

static void check_leader_exit(void)
{
	pid_t pid = fork();
	pthread_t thread;
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		CHECK(pthread_create(&thread, NULL, outlive, (void *)21L) == 0);
		pthread_exit(NULL);
	}
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 21);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "threads", 5000);
	rounds = guest.size;
	thread_count = guest.cpu_count < THREADS_MAX ? guest.cpu_count : THREADS_MAX;
	if (thread_count < 2)
		thread_count = 2;
	CHECK(pthread_barrier_init(&barrier, NULL, (unsigned)thread_count) == 0);
	run_threads(count);
	run_threads(take_turns);
	run_threads(read_and_write);
	run_threads(map_and_unmap);
	check_signals();
	check_unmap();
	check_exit();
	check_leader_exit();
	return guest_ok();
}
