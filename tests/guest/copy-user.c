// SPDX-License-Identifier: GPL-2.0
/*
 * System calls read and write memory that was last used on another CPU: -n rounds of write, read, writev,
 * readv, splice and process_vm_readv with any alignment; memory that is not there gives EFAULT or a short
 * count, never other bytes.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>

enum { LENGTH = 64 * 4096 };

static unsigned char *from, *to;
static int file;

static unsigned char *map(size_t length, int flags)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void fill(unsigned char *at, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		at[i] = (unsigned char)guest_noise(seed, i);
}

static void expect(const unsigned char *at, size_t length, uint64_t seed, const char *what)
{
	for (size_t i = 0; i < length; i++)
		if (at[i] != (unsigned char)guest_noise(seed, i))
			guest_fail("%s: byte %zu of %zu is wrong on CPU %d", what, i, length, sched_getcpu());
}

/* Filled on one CPU, written from the next, read on the third into memory last touched on the first. */
static void check_round(long round)
{
	uint64_t seed = (uint64_t)round;
	size_t length = 1 + guest_noise(seed, 1) % (LENGTH - 8192);
	size_t in = guest_noise(seed, 2) % 4096, out = guest_noise(seed, 3) % 4096;
	struct iovec parts[3] = {
		{ to + out, length / 3 }, { to + out + length / 3, length / 5 },
		{ to + out + length / 3 + length / 5, length - length / 3 - length / 5 },
	};

	guest_move(0, (int)round);
	fill(from + in, length, seed);
	memset(to, 0x55, LENGTH);
	guest_move(0, (int)round + 1);
	CHECK_EQUAL(pwrite(file, from + in, length, 100), length);
	guest_move(0, (int)round + 2);
	CHECK_EQUAL(pread(file, to + out, length, 100), length);
	expect(to + out, length, seed, "pread");
	CHECK((out == 0 || to[out - 1] == 0x55) && to[out + length] == 0x55);
	memset(to, 0x66, LENGTH);
	guest_move(0, (int)round);
	CHECK_EQUAL(preadv(file, parts, 3, 100), length);
	expect(to + out, length, seed, "preadv");
	for (int i = 0; i < 3; i++)
		parts[i].iov_base = (unsigned char *)parts[i].iov_base - (to + out) + (from + in);
	fill(from + in, length, seed + 1);
	guest_move(0, (int)round + 1);
	CHECK_EQUAL(pwritev(file, parts, 3, 77), length);
	CHECK_EQUAL(pread(file, to + out, length, 77), length);
	expect(to + out, length, seed + 1, "pwritev");
}

/* A child elsewhere owns the memory and keeps changing it. */
static void check_other_process(void)
{
	unsigned char *shared = map(4096, MAP_SHARED);
	int go[2], done[2];
	char byte;
	pid_t pid;

	CHECK(pipe(go) == 0 && pipe(done) == 0);
	pid = guest_fork(1);
	if (!pid) {
		for (int round = 0; round < 20; round++) {
			fill(from, LENGTH, (uint64_t)round);
			CHECK(write(done[1], "", 1) == 1 && read(go[0], &byte, 1) == 1);
			expect(to, LENGTH, (uint64_t)round + 100, "process_vm_writev");
		}
		_exit(shared[0] == 1 ? 0 : GUEST_FAILED);
	}
	shared[0] = 1;
	for (int round = 0; round < 20; round++) {
		struct iovec here = { to, LENGTH }, there = { from, LENGTH };

		guest_move(0, round);
		CHECK(read(done[0], &byte, 1) == 1);
		CHECK(process_vm_readv(pid, &here, 1, &there, 1, 0) == LENGTH);
		expect(to, LENGTH, (uint64_t)round, "process_vm_readv");
		fill(to, LENGTH, (uint64_t)round + 100);
		there.iov_base = to;
		CHECK(process_vm_writev(pid, &here, 1, &there, 1, 0) == LENGTH);
		CHECK(write(go[1], "", 1) == 1);
	}
	guest_reap(pid);
}

static void check_bad_addresses(void)
{
	unsigned char *edge = map(8192, MAP_PRIVATE), *volatile low = (void *)8;
	int fds[2];

	memset(edge, 'e', 8192);
	CHECK(munmap(edge + 4096, 4096) == 0);
	CHECK(pipe(fds) == 0);
	CHECK(write(fds[1], low, 5) == -1 && errno == EFAULT);
	CHECK(write(fds[1], (void *)0x800000000000, 5) == -1 && errno == EFAULT);
	CHECK(pwrite(file, edge + 4090, 100, 0) == 6);
	CHECK(pread(file, edge + 4080, 100, 0) == 16);
	CHECK(stat("/", (void *)low) == -1 && errno == EFAULT);
	CHECK(uname((void *)(edge + 4090)) == -1 && errno == EFAULT);
	memset(edge, 'e', 4096);
	CHECK(open((const char *)edge + 4000, O_RDONLY) == -1 && errno == EFAULT);
	edge[4095] = 0;
	CHECK(open((const char *)edge + 4000, O_RDONLY) == -1 && errno == ENOENT);
	CHECK(mprotect(edge, 4096, PROT_READ) == 0);
	CHECK(pread(file, edge, 10, 0) == -1 && errno == EFAULT);
	CHECK(edge[0] == 'e' && edge[1] == 'e');
	CHECK(mprotect(edge, 4096, PROT_NONE) == 0);
	CHECK(write(fds[1], edge, 10) == -1 && errno == EFAULT);
}

/* The kernel fills pages that nobody has touched yet, and reads such pages as zero. */
static void check_untouched(void)
{
	unsigned char *fresh;

	for (int i = 0; i < 20; i++) {
		fresh = map(LENGTH, MAP_PRIVATE);
		guest_move(0, i);
		CHECK_EQUAL(pwrite(file, fresh, LENGTH, 0), LENGTH);
		guest_move(0, i + 1);
		CHECK_EQUAL(pread(file, to, LENGTH, 0), LENGTH);
		for (size_t at = 0; at < LENGTH; at++)
			CHECK_EQUAL(to[at], 0);
		CHECK(munmap(fresh, LENGTH) == 0);
		fresh = map(LENGTH, MAP_PRIVATE);
		fill(from, LENGTH, (uint64_t)i);
		CHECK_EQUAL(pwrite(file, from, LENGTH, 0), LENGTH);
		CHECK_EQUAL(pread(file, fresh, LENGTH - 50, 0), LENGTH - 50);
		guest_move(0, i + 2);
		expect(fresh, LENGTH - 50, (uint64_t)i, "pread to fresh memory");
		for (size_t at = LENGTH - 50; at < LENGTH; at++)
			CHECK_EQUAL(fresh[at], 0);
		CHECK(munmap(fresh, LENGTH) == 0);
	}
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/copy-user-XXXXXX";

	guest_start(argc, argv, "copy-user", 40);
	from = map(LENGTH, MAP_PRIVATE);
	to = map(LENGTH, MAP_PRIVATE);
	file = mkstemp(path);
	CHECK(file >= 0 && unlink(path) == 0);
	for (long round = 0; round < guest.size; round++)
		check_round(round);
	check_other_process();
	check_bad_addresses();
	check_untouched();
	return guest_ok();
}
