// SPDX-License-Identifier: GPL-2.0
/*
 * Raw TCP round trips, the floor under everything between two nodes.
 *
 *   pingpong serve ADDR:PORT REQUEST REPLY            until its client leaves
 *   pingpong call ADDR:PORT REQUEST REPLY COUNT [new] prints the median in nanoseconds; sizes in bytes, and what is
 *                                                     more than 64 KiB goes in pieces of that; new: each piece to memory
 *                                                     that was never used
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

__attribute__((noreturn))
static void die(const char *what)
{
	fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in parse_address(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	unsigned port;

	if (sscanf(text, "%63[^:]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &address.sin_addr) != 1)
		die(text);
	address.sin_port = htons((uint16_t)port);
	return address;
}

static void set_no_delay(int fd)
{
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) < 0)
		die("TCP_NODELAY");
}

static size_t piece(size_t length)
{
	return length < sizeof(buffer) ? length : sizeof(buffer);
}

static int receive(int fd, size_t length, char *to, size_t step)
{
	ssize_t got;

	for (; length; length -= (size_t)got, to += step) {
		got = recv(fd, to, piece(length), MSG_WAITALL);
		if (got < 0)
			die("recv");
		if ((size_t)got != piece(length))
			return 0;
	}
	return 1;
}

static void transmit(int fd, size_t length)
{
	for (; length; length -= piece(length))
		if (send(fd, buffer, piece(length), MSG_NOSIGNAL) != (ssize_t)piece(length))
			die("send");
}

static int serve(const char *where, size_t request, size_t reply)
{
	struct sockaddr_in address = parse_address(where);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;

	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
		die(where);
	puts("listening");
	fflush(stdout);
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept");
	set_no_delay(fd);
	while (receive(fd, request, buffer, 0))
		transmit(fd, reply);
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static char *new_memory(size_t length)
{
	char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static int call(const char *where, size_t request, size_t reply, size_t count, int is_new)
{
	struct sockaddr_in address = parse_address(where);
	int64_t *times = calloc(count, sizeof(*times)), start;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (!times || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(where);
	set_no_delay(fd);
	for (size_t i = 0; i < count; i++) {
		char *to = is_new ? new_memory(reply) : buffer;

		start = now_ns();
		transmit(fd, request);
		if (!receive(fd, reply, to, is_new ? sizeof(buffer) : 0))
			die("the other side has left");
		times[i] = now_ns() - start;
		if (is_new)
			munmap(to, reply);
	}
	qsort(times, count, sizeof(*times), ascending);
	printf("%lld\n", (long long)times[count / 2]);
	free(times);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
	if ((argc == 6 || (argc == 7 && strcmp(argv[6], "new") == 0)) && strcmp(argv[1], "call") == 0)
		return call(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10),
			    strtoul(argv[5], NULL, 10), argc == 7);
	fprintf(stderr, "usage: pingpong serve|call ADDR:PORT REQUEST REPLY [COUNT [new]]\n");
	return 2;
}
