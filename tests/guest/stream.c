// SPDX-License-Identifier: GPL-2.0
/*
 * A stream of -n MiB from one CPU to another, with a checksum at both ends.
 * -k pipe (default), socketpair, fifo, tcp, splice or packets.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { CHUNK_MAX = 256 * 1024, PACKET_MAX = 8192 };

struct ends { int reader, writer; };

static struct ends open_tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct ends ends;

	CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, length) == 0);
	CHECK(listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	ends.writer = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(ends.writer, (struct sockaddr *)&address, length) == 0);
	ends.reader = accept(listener, NULL, NULL);
	CHECK(ends.reader >= 0 && close(listener) == 0);
	return ends;
}

static struct ends open_fifo(void)
{
	char path[] = "/tmp/stream-XXXXXX";
	struct ends ends;

	CHECK(mkdtemp(path) != NULL && rmdir(path) == 0);
	CHECK(mkfifo(path, 0600) == 0);
	ends.reader = open(path, O_RDONLY | O_NONBLOCK);
	CHECK(ends.reader >= 0);
	ends.writer = open(path, O_WRONLY);
	CHECK(ends.writer >= 0);
	CHECK(fcntl(ends.reader, F_SETFL, 0) == 0 && unlink(path) == 0);
	return ends;
}

static struct ends open_ends(void)
{
	int fds[2];

	if (guest_is("tcp"))
		return open_tcp();
	if (guest_is("fifo"))
		return open_fifo();
	if (guest_is("socketpair"))
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	else if (guest_is("packets"))
		CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
	else
		CHECK(pipe(fds) == 0);
	return (struct ends){ .reader = fds[0], .writer = fds[1] };
}

/* Lengths and offsets in the buffer vary, so that copies begin and end anywhere in a page. */
static size_t chunk_length(uint64_t round, uint64_t left)
{
	uint64_t most = guest_is("packets") ? PACKET_MAX : CHUNK_MAX;
	uint64_t length = round % 4 ? 1 + guest_noise(7, round) % most : most;

	return (size_t)(length < left ? length : left);
}

static uint64_t write_stream(int fd, uint64_t total)
{
	unsigned char *buffer = aligned_alloc(4096, CHUNK_MAX + 4096);
	uint64_t sum = GUEST_CHECKSUM_START, sent = 0;

	CHECK(buffer != NULL);
	for (uint64_t round = 0; sent < total; round++) {
		size_t length = chunk_length(round, total - sent);
		unsigned char *data = buffer + guest_noise(9, round) % 4096;

		for (size_t i = 0; i < length; i += 64)
			data[i] = (unsigned char)guest_noise(round, i);
		for (size_t i = 0; i < length; i++)
			sum = (sum ^ data[i]) * 0x100000001b3u;
		guest_write_all(fd, data, length);
		sent += length;
	}
	free(buffer);
	return sum;
}

static uint64_t read_stream(int fd, uint64_t total)
{
	unsigned char *buffer = malloc(CHUNK_MAX + 4096);
	uint64_t sum = GUEST_CHECKSUM_START, got = 0;

	CHECK(buffer != NULL);
	for (uint64_t round = 0;; round++) {
		unsigned char *data = buffer + guest_noise(11, round) % 4096;
		ssize_t length = read(fd, data, CHUNK_MAX);

		CHECK(length >= 0);
		if (!length)
			break;
		for (ssize_t i = 0; i < length; i++)
			sum = (sum ^ data[i]) * 0x100000001b3u;
		got += (uint64_t)length;
	}
	CHECK_EQUAL(got, total);
	free(buffer);
	return sum;
}

/* Through a second pipe without the bytes being looked at. */
static int splice_stream(int reader, pid_t *pid)
{
	int fds[2];
	ssize_t moved;

	CHECK(pipe(fds) == 0);
	*pid = guest_fork(2);
	if (*pid) {
		CHECK(close(fds[1]) == 0 && close(reader) == 0);
		return fds[0];
	}
	while ((moved = splice(reader, NULL, fds[1], NULL, CHUNK_MAX, SPLICE_F_MOVE)) > 0)
		;
	CHECK(moved == 0);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct ends ends;
	uint64_t total, sum;
	int result[2];
	pid_t writer, splicer = 0;

	guest_start(argc, argv, "stream", 32);
	total = (uint64_t)guest.size << 20;
	ends = open_ends();
	CHECK(pipe(result) == 0);
	writer = guest_fork(1);
	if (!writer) {
		CHECK(close(ends.reader) == 0);
		sum = write_stream(ends.writer, total);
		CHECK(write(result[1], &sum, sizeof(sum)) == sizeof(sum));
		_exit(0);
	}
	CHECK(close(ends.writer) == 0 && close(result[1]) == 0);
	guest_move(0, 0);
	if (guest_is("splice"))
		ends.reader = splice_stream(ends.reader, &splicer);
	uint64_t seen = read_stream(ends.reader, total);

	CHECK(read(result[0], &sum, sizeof(sum)) == sizeof(sum));
	CHECK_EQUAL(seen, sum);
	guest_reap(writer);
	if (splicer)
		guest_reap(splicer);
	return guest_ok();
}
