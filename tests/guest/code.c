// SPDX-License-Identifier: GPL-2.0
/*
 * Instructions that are written at run time and executed on another CPU, -n times: written through the
 * executable mapping, through a second mapping of the same file, and under changing protection.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <sys/mman.h>

typedef uint32_t function(void);

/* movl $value, %eax; ret */
static void write_function(unsigned char *at, uint32_t value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, sizeof(value));
	at[5] = 0xc3;
}

static uint32_t run(unsigned char *at)
{
	return ((function *)(uintptr_t)at)();
}

static void check_same_mapping(void)
{
	unsigned char *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(code != MAP_FAILED);
	for (uint32_t i = 0; i < guest.size; i++) {
		guest_move(0, (int)i);
		write_function(code + 4093, i);	/* over the border of two pages */
		guest_move(0, (int)i + 1);
		CHECK_EQUAL(run(code + 4093), i);
	}
	CHECK(munmap(code, 8192) == 0);
}

static void check_two_mappings(void)
{
	int fd = memfd_create("code", 0);
	unsigned char *data, *code;

	CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
	data = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	CHECK(data != MAP_FAILED && code != MAP_FAILED);
	for (uint32_t i = 0; i < guest.size; i++) {
		guest_move(0, (int)i);
		write_function(data + 16 * (i % 200), i);
		guest_move(0, (int)i + 1);
		CHECK_EQUAL(run(code + 16 * (i % 200)), i);
	}
	CHECK(munmap(data, 4096) == 0 && munmap(code, 4096) == 0 && close(fd) == 0);
}

static void check_protection(void)
{
	unsigned char *code = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(code != MAP_FAILED);
	for (uint32_t i = 0; i < guest.size; i++) {
		guest_move(0, (int)i);
		CHECK(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
		write_function(code, i);
		CHECK(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
		guest_move(0, (int)i + 1);
		CHECK_EQUAL(run(code), i);
	}
	CHECK(munmap(code, 4096) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "code", 100);
	check_same_mapping();
	check_two_mappings();
	check_protection();
	return guest_ok();
}
