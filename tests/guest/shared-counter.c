// SPDX-License-Identifier: GPL-2.0
/*
 * Counters in shared memory, incremented by one process on each CPU -n times in all: none may be lost.
 * One page holds an atomic counter, a counter under a lock built from atomics, and a plain counter for
 * each process: neighbours in one page that different CPUs write. -k anonymous (default), sysv, posix,
 * file or memfd.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>

enum { WORKERS_MAX = 16, PAGES = 3 };

struct shared {
	_Atomic uint64_t atomic;
	_Atomic uint32_t lock;
	uint32_t holder;
	uint64_t locked;
	uint32_t own[WORKERS_MAX];
	_Atomic uint64_t wide[PAGES][512];	/* also on other pages */
};

static void *map_descriptor(int fd)
{
	void *at;

	CHECK(fd >= 0 && ftruncate(fd, sizeof(struct shared)) == 0);
	at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED && close(fd) == 0);
	return at;
}

static void *map_sysv(void)
{
	int id = shmget(IPC_PRIVATE, sizeof(struct shared), IPC_CREAT | 0600);
	void *at;

	CHECK(id >= 0);
	at = shmat(id, NULL, 0);
	CHECK(at != (void *)-1 && shmctl(id, IPC_RMID, NULL) == 0);
	return at;
}

static void *map_posix(void)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "/counter-%d", getpid());
	fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
	CHECK(fd >= 0 && shm_unlink(name) == 0);
	return map_descriptor(fd);
}

static void *map_file(void)
{
	char path[] = "/tmp/counter-XXXXXX";
	int fd = mkstemp(path);

	CHECK(fd >= 0 && unlink(path) == 0);
	return map_descriptor(fd);
}

static struct shared *map_shared(void)
{
	void *at;

	if (guest_is("sysv"))
		return map_sysv();
	if (guest_is("posix"))
		return map_posix();
	if (guest_is("file"))
		return map_file();
	if (guest_is("memfd"))
		return map_descriptor(memfd_create("counter", 0));
	at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	return at;
}

static void count(struct shared *shared, int worker, long rounds)
{
	for (long i = 0; i < rounds; i++) {
		atomic_fetch_add(&shared->atomic, 1);
		atomic_fetch_add(&shared->wide[i % PAGES][i % 512], 1);
		shared->own[worker]++;
		while (atomic_exchange(&shared->lock, 1))
			sched_yield();
		shared->holder = (uint32_t)worker;
		shared->locked++;
		CHECK_EQUAL(shared->holder, worker);
		atomic_store(&shared->lock, 0);
	}
}

int main(int argc, char **argv)
{
	struct shared *shared;
	pid_t workers[WORKERS_MAX];
	int worker_count;
	uint64_t wide = 0;
	long rounds;

	guest_start(argc, argv, "shared-counter", 200000);
	worker_count = guest.cpu_count < 2 ? 2 : guest.cpu_count;
	if (worker_count > WORKERS_MAX)
		worker_count = WORKERS_MAX;
	rounds = guest.size / worker_count;
	shared = map_shared();
	for (int i = 0; i < worker_count; i++) {
		workers[i] = guest_fork(i);
		if (!workers[i]) {
			count(shared, i, rounds);
			_exit(0);
		}
	}
	for (int i = 0; i < worker_count; i++)
		guest_reap(workers[i]);
	CHECK_EQUAL(shared->atomic, rounds * worker_count);
	CHECK_EQUAL(shared->locked, rounds * worker_count);
	for (int i = 0; i < worker_count; i++)
		CHECK_EQUAL(shared->own[i], rounds);
	for (int i = 0; i < PAGES * 512; i++)
		wide += shared->wide[i / 512][i % 512];
	CHECK_EQUAL(wide, rounds * worker_count);
	return guest_ok();
}
