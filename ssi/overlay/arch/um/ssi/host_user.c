// SPDX-License-Identifier: GPL-2.0
/*
 * Host system calls on frames that may be elsewhere.
 *
 * Without full userfaultfd rights (an ordinary user has none) the host's kernel does not wait for a frame when a
 * system call of ours reaches it: the call returns EFAULT, or stops short of it.  So the frames are touched
 * before the call, which waits like any access, and the call is repeated when one has gone again
 * meanwhile.  The linker puts these functions in the place of the C library's.
 *
 * The kernel's own data needs no such care: its frames are touched when they are allocated (frames.c),
 * and are never wanted elsewhere.
 */
#include <errno.h>
#include <unistd.h>
#include <as-layout.h>
#include <kern_util.h>
#include "ssi_internal.h"

#define HOST_PAGE 4096ul

int ssi_touch_frames;

ssize_t __real_read(int fd, void *buf, size_t count);
ssize_t __real_write(int fd, const void *buf, size_t count);
ssize_t __real_pread64(int fd, void *buf, size_t count, off_t offset);
ssize_t __real_pwrite64(int fd, const void *buf, size_t count, off_t offset);

ssize_t __wrap_read(int fd, void *buf, size_t count);
ssize_t __wrap_write(int fd, const void *buf, size_t count);
ssize_t __wrap_pread64(int fd, void *buf, size_t count, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t count, off_t offset);

static int in_frames(const void *buf)
{
	unsigned long address = (unsigned long)buf;

	return ssi_touch_frames && address >= uml_reserved && address < high_physmem;
}

static void touch(const void *buf, size_t count, int store)
{
	char *p = (char *)((unsigned long)buf & ~(HOST_PAGE - 1)), *end = (char *)buf + count;

	for (; p < end; p += HOST_PAGE)
		if (store)
			__atomic_fetch_or(p, 0, __ATOMIC_RELAXED);
		else
			*(volatile char *)p;
}

ssize_t __wrap_read(int fd, void *buf, size_t count)
{
	ssize_t n;

	if (!in_frames(buf))
		return __real_read(fd, buf, count);
	do {
		touch(buf, count, 1);
		n = __real_read(fd, buf, count);
	} while (n < 0 && errno == EFAULT);
	return n;
}

ssize_t __wrap_write(int fd, const void *buf, size_t count)
{
	ssize_t n;

	if (!in_frames(buf))
		return __real_write(fd, buf, count);
	do {
		touch(buf, count, 0);
		n = __real_write(fd, buf, count);
	} while (n < 0 && errno == EFAULT);
	return n;
}

/* A file: short may mean that a frame was gone, or the end of the file, which reads as 0 next time. */
ssize_t __wrap_pread64(int fd, void *buf, size_t count, off_t offset)
{
	size_t have = 0;
	ssize_t n;

	if (!in_frames(buf))
		return __real_pread64(fd, buf, count, offset);
	do {
		touch((char *)buf + have, count - have, 1);
		n = __real_pread64(fd, (char *)buf + have, count - have, offset + have);
		if (n > 0)
			have += n;
	} while (have < count && (n > 0 || (n < 0 && errno == EFAULT)));
	return have || n >= 0 ? (ssize_t)have : n;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t count, off_t offset)
{
	size_t have = 0;
	ssize_t n;

	if (!in_frames(buf))
		return __real_pwrite64(fd, buf, count, offset);
	do {
		touch((const char *)buf + have, count - have, 0);
		n = __real_pwrite64(fd, (const char *)buf + have, count - have, offset + have);
		if (n > 0)
			have += n;
	} while (have < count && (n > 0 || (n < 0 && errno == EFAULT)));
	return have || n >= 0 ? (ssize_t)have : n;
}
