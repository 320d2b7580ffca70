// SPDX-License-Identifier: GPL-2.0
/*
 * A file mapped by two processes on different CPUs, -n pages of it: what one stores the other loads, and
 * read() and write() see and change the same bytes; msync, truncation, a private mapping of the same file.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { WORDS = 512 };

struct file {
	int fd;
	size_t length;
	uint64_t *map;
};

/* Parent and child take turns; a turn ends with one byte in a pipe. */
struct turns { int mine[2], yours[2]; };

static void pass(const int *pipe_fds)
{
	CHECK(write(pipe_fds[1], "", 1) == 1);
}

static void await(const int *pipe_fds)
{
	char byte;

	CHECK(read(pipe_fds[0], &byte, 1) == 1);
}

static void fill(struct file *file, uint64_t seed)
{
	for (size_t i = 0; i < file->length / sizeof(uint64_t); i++)
		file->map[i] = guest_noise(seed, i);
}

static void expect_map(struct file *file, uint64_t seed)
{
	for (size_t i = 0; i < file->length / sizeof(uint64_t); i++)
		if (file->map[i] != guest_noise(seed, i))
			guest_fail("map: word %zu is wrong for turn %llu", i, (unsigned long long)seed);
}

static void expect_read(struct file *file, uint64_t seed)
{
	uint64_t page[WORDS];

	for (size_t at = 0; at < file->length; at += sizeof(page)) {
		CHECK(pread(file->fd, page, sizeof(page), (off_t)at) == sizeof(page));
		for (size_t i = 0; i < WORDS; i++)
			if (page[i] != guest_noise(seed, at / sizeof(uint64_t) + i))
				guest_fail("read: word %zu of page %zu is wrong for turn %llu", i,
					   at / sizeof(page), (unsigned long long)seed);
	}
}

static void write_file(struct file *file, uint64_t seed)
{
	uint64_t page[WORDS];

	for (size_t at = 0; at < file->length; at += sizeof(page)) {
		for (size_t i = 0; i < WORDS; i++)
			page[i] = guest_noise(seed, at / sizeof(uint64_t) + i);
		CHECK(pwrite(file->fd, page, sizeof(page), (off_t)at) == sizeof(page));
	}
}

static void other_side(struct file *file, struct turns *turns)
{
	await(turns->yours);
	expect_map(file, 1);
	expect_read(file, 1);
	fill(file, 2);
	CHECK(msync(file->map, file->length, MS_SYNC) == 0);
	pass(turns->mine);
	await(turns->yours);
	expect_map(file, 3);
	write_file(file, 4);
	pass(turns->mine);
	await(turns->yours);
	for (size_t i = 0; i < file->length / sizeof(uint64_t); i += 2)
		file->map[i] = i;
	pass(turns->mine);
}

/* Both write the same pages at the same time, each its own words. */
static void check_halves(struct file *file, struct turns *turns)
{
	pass(turns->yours);
	for (size_t i = 1; i < file->length / sizeof(uint64_t); i += 2)
		file->map[i] = i;
	await(turns->mine);
	for (size_t i = 0; i < file->length / sizeof(uint64_t); i++)
		CHECK_EQUAL(file->map[i], i);
}

static void check_turns(struct file *file)
{
	struct turns turns;
	pid_t pid;

	CHECK(pipe(turns.mine) == 0 && pipe(turns.yours) == 0);
	pid = guest_fork(1);
	if (!pid) {
		other_side(file, &turns);
		_exit(0);
	}
	fill(file, 1);
	pass(turns.yours);
	await(turns.mine);
	expect_read(file, 2);
	expect_map(file, 2);
	write_file(file, 3);
	expect_map(file, 3);
	pass(turns.yours);
	await(turns.mine);
	expect_map(file, 4);
	expect_read(file, 4);
	check_halves(file, &turns);
	guest_reap(pid);
}

/* A private mapping shows what the file holds until it is written to, and then its own. */
static void check_private(struct file *file)
{
	uint64_t *own = mmap(NULL, file->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, file->fd, 0);
	pid_t pid;

	CHECK(own != MAP_FAILED);
	own[0] = 77;
	pid = guest_fork(1);
	if (!pid) {
		CHECK(own[0] == 77 && own[WORDS + 1] == WORDS + 1);
		own[0] = 78;
		own[WORDS] = 79;
		CHECK(file->map[0] == 0 && file->map[WORDS] == WORDS);
		file->map[1] = 80;
		_exit(0);
	}
	guest_reap(pid);
	CHECK(own[0] == 77 && own[WORDS] == WORDS && file->map[1] == 80);
	CHECK(munmap(own, file->length) == 0);
}

/* Pages beyond the end lose their contents, also those that another CPU wrote. */
static void check_truncate(struct file *file)
{
	pid_t pid = guest_fork(2);

	if (!pid) {
		file->map[file->length / sizeof(uint64_t) - 1] = 1;
		_exit(0);
	}
	guest_reap(pid);
	CHECK(ftruncate(file->fd, 100) == 0);
	CHECK(ftruncate(file->fd, (off_t)file->length) == 0);
	for (size_t i = 13; i < file->length / sizeof(uint64_t); i++)
		CHECK_EQUAL(file->map[i], 0);
	CHECK_EQUAL(file->map[2], 2);
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/mmap-file-XXXXXX";
	struct file file;

	guest_start(argc, argv, "mmap-file", 256);
	guest_move(0, 0);
	file.length = (size_t)guest.size * WORDS * sizeof(uint64_t);
	file.fd = mkstemp(path);
	CHECK(file.fd >= 0 && unlink(path) == 0 && ftruncate(file.fd, (off_t)file.length) == 0);
	file.map = mmap(NULL, file.length, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
	CHECK(file.map != MAP_FAILED);
	check_turns(&file);
	check_private(&file);
	check_truncate(&file);
	return guest_ok();
}
