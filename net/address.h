/* SPDX-License-Identifier: GPL-2.0 */
/* ADDR:PORT as users write it, and where a daemon may listen. */
#ifndef PANGEA_ADDRESS_H
#define PANGEA_ADDRESS_H

#include <stddef.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_MAX 64

struct address {
	struct sockaddr_storage sa;
	socklen_t length;
};

/* "10.0.0.1:7200", "[::1]:0", "host:7200".  0, or -1 with one line in err. */
int address_parse(const char *text, struct address *address, char *err, size_t err_size);

void address_format(const struct address *address, char text[ADDRESS_TEXT_MAX]);

/*
 * NULL when a daemon without TLS may listen there, else the reason: anything but loopback, and but private
 * addresses inside a network namespace of its own.
 */
const char *address_listen_refused(const struct address *address);

/* Listen there, if that may be; *bound is the address with its real port.  A descriptor, or -1 with err. */
int address_listen(const char *text, struct address *bound, char *err, size_t err_size);

#endif
