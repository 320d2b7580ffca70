// SPDX-License-Identifier: GPL-2.0
/*
 * Wires that are longer: Ethernet frames between the network namespaces of two nodes arrive later by a fixed time.
 *
 *   delay MICROSECONDS PID0 PID...    each way, between node 0, whose bridge PID0 sees, and each further node; until killed
 *
 * It makes a TAP device "long" in a node's namespace and "longK" for its other end in node 0's, and says "ready";
 * its caller gives them addresses.  What passes it is packets of up to 1.5 kB, one system call each: it is for round trips,
 * not for bandwidth.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common.h"

enum { WAITING_MAX = 4096, FRAME_MAX = 2048, NODES_MAX = 8 };

/* Frames on their way in one direction, a ring.  When it is full the device keeps, then drops, what comes. */
struct wire {
	int from, to;
	unsigned head, tail;
	struct {
		uint64_t due;		/* ns */
		size_t length;
		char bytes[FRAME_MAX];
	} frames[WAITING_MAX];
};

static void enter(const char *pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die(path);
	close(fd);
}

static int open_tap(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		die("/dev/net/tun");
	return fd;
}

static void take(struct wire *wire, uint64_t delay)
{
	ssize_t length;

	while (wire->tail - wire->head < WAITING_MAX) {
		unsigned at = wire->tail % WAITING_MAX;

		length = read(wire->from, wire->frames[at].bytes, FRAME_MAX);
		if (length <= 0)
			return;
		wire->frames[at].length = (size_t)length;
		wire->frames[at].due = now_ns() + delay;
		wire->tail++;
	}
}

/* What is due goes; returns when the next one is, ~0: never.  A device that takes no more loses it, as a wire does. */
static uint64_t deliver(struct wire *wire)
{
	for (; wire->head != wire->tail; wire->head++) {
		unsigned at = wire->head % WAITING_MAX;

		if (wire->frames[at].due > now_ns())
			return wire->frames[at].due;
		if (write(wire->to, wire->frames[at].bytes, wire->frames[at].length) < 0 && errno != EAGAIN && errno != EIO)
			die("write");
	}
	return ~0ull;
}

int main(int argc, char **argv)
{
	struct sched_param priority = { .sched_priority = sched_get_priority_max(SCHED_FIFO) };
	unsigned nodes = argc > 3 ? (unsigned)argc - 3 : 0, wires = 2 * nodes;
	struct pollfd polled[2 * NODES_MAX];
	struct wire *wire;
	uint64_t delay, next, due, now;
	char name[16];

	if (!nodes || nodes > NODES_MAX) {
		fprintf(stderr, "usage: delay MICROSECONDS PID0 PID...\n");
		return 2;
	}
	delay = strtoull(argv[1], NULL, 10) * 1000;
	wire = calloc(wires, sizeof(*wire));
	if (!wire)
		die("memory");
	for (unsigned k = 0; k < nodes; k++) {
		enter(argv[3 + k]);
		wire[2 * k].from = wire[2 * k + 1].to = open_tap("long");
		enter(argv[2]);
		snprintf(name, sizeof(name), "long%u", k + 1);
		wire[2 * k].to = wire[2 * k + 1].from = open_tap(name);
	}
	/* The machine's CPUs may not be late for what is measured, nor may this. */
	if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0)
		die("SCHED_FIFO");
	puts("ready");
	fflush(stdout);
	for (unsigned i = 0; i < wires; i++)
		polled[i] = (struct pollfd){ .fd = wire[i].from, .events = POLLIN };
	for (;;) {
		next = ~0ull;
		for (unsigned i = 0; i < wires; i++) {
			take(&wire[i], delay);
			due = deliver(&wire[i]);
			next = due < next ? due : next;
		}
		now = now_ns();
		due = next > now ? next - now : 0;
		ppoll(polled, wires, next == ~0ull ? NULL : &(struct timespec){ (time_t)(due / 1000000000), (long)(due % 1000000000) }, NULL);
	}
}
