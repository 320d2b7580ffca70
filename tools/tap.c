// SPDX-License-Identifier: GPL-2.0
/*
 * The machine's network device: frames between a tap device of the caller's network namespace and the kernel.
 *
 *   tap <--> this process <--> socket pair <--> kernel process, descriptor NET_FD of node 0's daemon: vec0
 *
 * The kernel's driver (vector) sends and receives many frames at a time, for which it needs a socket.  A frame that
 * one side cannot take now is dropped, as in any network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pangea.h"

#define FRAME_MAX	65536
#define BURST_MAX	64	/* frames before the other events of the loop have their turn */

bool tap_address_check(const char *text)
{
	char address[64], *bits, *gateway, *end;
	struct in_addr parsed;

	if (strlen(text) >= sizeof(address))
		return false;
	strcpy(address, text);
	gateway = strchr(address, ',');
	if (gateway)
		*gateway++ = 0;
	bits = strchr(address, '/');
	if (!bits)
		return false;
	*bits++ = 0;
	if (*bits < '0' || *bits > '9' || strtoul(bits, &end, 10) > 32 || *end)
		return false;
	return inet_pton(AF_INET, address, &parsed) == 1 &&
	       (!gateway || inet_pton(AF_INET, gateway, &parsed) == 1);
}

static int device_open(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int error;

	if (fd < 0)
		return -errno;
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &request) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

int tap_open(struct tap *t, const char *name)
{
	int pair[2];

	/* One that is not there would be made, and go with this process. */
	if (!if_nametoindex(name)) {
		complain("--net %s: there is no such device; make it: ip tuntap add %s mode tap user $USER", name,
			 name);
		return EXIT_PANGEA;
	}
	t->device = device_open(name);
	if (t->device < 0) {
		complain("--net %s: %s", name, t->device == -EINVAL ? "not a tap device" :
			 t->device == -EBUSY ? "in use by another machine" :
			 t->device == -EPERM ? "not a tap device of yours" : strerror(-t->device));
		return EXIT_PANGEA;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		complain("--net %s: %s", name, strerror(errno));
		close(t->device);
		t->device = -1;
		return EXIT_PANGEA;
	}
	t->socket = pair[0];
	t->kernel = pair[1];
	return 0;
}

void tap_kernel_close(struct tap *t)
{
	if (t->kernel >= 0)
		close(t->kernel);
	t->kernel = -1;
}

/* False: this end is gone. */
static bool move(int from, int to)
{
	static char frame[FRAME_MAX];

	for (unsigned i = 0; i < BURST_MAX; i++) {
		ssize_t n = read(from, frame, sizeof(frame));

		if (n <= 0)
			return n < 0 && (errno == EAGAIN || errno == EINTR || errno == EIO);
		if (write(to, frame, n) < 0 && errno == EPIPE)
			return false;
	}
	return true;
}

void tap_poll(const struct tap *t, struct pollfd p[2])
{
	p[0] = (struct pollfd){ .fd = t->device, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = t->socket, .events = POLLIN };
}

void tap_relay(struct tap *t, const struct pollfd p[2])
{
	if ((p[0].revents && !move(t->device, t->socket)) || (p[1].revents && !move(t->socket, t->device)))
		tap_close(t);
}

void tap_close(struct tap *t)
{
	tap_kernel_close(t);
	if (t->socket >= 0)
		close(t->socket);
	if (t->device >= 0)
		close(t->device);
	t->socket = t->device = -1;
}
