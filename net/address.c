// SPDX-License-Identifier: GPL-2.0
/*
 * Addresses, and the rule of a daemon without TLS: it listens where no stranger can come.
 *
 * That is loopback, or a private address in a network namespace that is not the one the host itself lives in.
 * Whether two processes share a network namespace is told by the inode of a file in /proc/PID/net: unlike
 * /proc/PID/ns/net, an ordinary user may look at it for any process.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"

#define BACKLOG 256

static int split(const char *text, char host[256], char port[16])
{
	const char *colon = strrchr(text, ':');
	size_t length;

	if (!colon || colon == text || !colon[1] || strlen(colon + 1) >= 16)
		return -1;
	length = colon - text;
	if (text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	} else if (memchr(text, ':', length)) {
		return -1;
	}
	if (length == 0 || length >= 256)
		return -1;
	memcpy(host, text, length);
	host[length] = 0;
	strcpy(port, colon + 1);
	return strspn(port, "0123456789") == strlen(port) ? 0 : -1;
}

int address_parse(const char *text, struct address *address, char *err, size_t err_size)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found;
	char host[256], port[16];
	unsigned long number;
	int ret;

	if (split(text, host, port) || sscanf(port, "%lu", &number) != 1 || number > 65535) {
		snprintf(err, err_size, "%s is not ADDR:PORT, as 10.0.0.1:7200 or [::1]:7200", text);
		return -1;
	}
	ret = getaddrinfo(host, port, &hints, &found);
	if (ret) {
		snprintf(err, err_size, "%s: %s", text, gai_strerror(ret));
		return -1;
	}
	memset(address, 0, sizeof(*address));
	memcpy(&address->sa, found->ai_addr, found->ai_addrlen);
	address->length = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

void address_format(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->sa.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)&address->sa;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		const struct sockaddr_in *in = (const void *)&address->sa;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT_MAX, "%s:%u", host, ntohs(in->sin_port));
	}
}

static bool loopback(const struct address *address)
{
	const struct sockaddr_in6 *in6 = (const void *)&address->sa;
	const struct sockaddr_in *in = (const void *)&address->sa;

	if (address->sa.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
	return ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

static bool private_range(const struct address *address)
{
	const struct sockaddr_in6 *in6 = (const void *)&address->sa;
	const struct sockaddr_in *in = (const void *)&address->sa;
	uint32_t ip;

	if (address->sa.ss_family == AF_INET6)	/* fc00::/7, fe80::/10 */
		return (in6->sin6_addr.s6_addr[0] & 0xfe) == 0xfc || IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr);
	ip = ntohl(in->sin_addr.s_addr);
	return ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 || ip >> 16 == 0xa9fe;
}

/* In doubt (an unusual /proc) the namespace counts as the host's. */
static bool own_network_namespace(void)
{
	struct stat mine, hosts;

	if (stat("/proc/self/net/dev", &mine) || stat("/proc/1/net/dev", &hosts))
		return false;
	return mine.st_ino != hosts.st_ino;
}

const char *address_listen_refused(const struct address *address)
{
	if (loopback(address) || (private_range(address) && own_network_namespace()))
		return NULL;
	return "without TLS pangead listens on loopback or inside a private network namespace only";
}

static int open_listener(const struct address *address)
{
	int fd = socket(address->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind(fd, (const struct sockaddr *)&address->sa, address->length) && !listen(fd, BACKLOG))
		return fd;
	one = -errno;
	close(fd);
	return one;
}

int address_listen(const char *text, struct address *bound, char *err, size_t err_size)
{
	const char *refused;
	int fd;

	if (address_parse(text, bound, err, err_size))
		return -1;
	refused = address_listen_refused(bound);
	if (refused) {
		snprintf(err, err_size, "refusing to listen on %s: %s", text, refused);
		return -1;
	}
	fd = open_listener(bound);
	if (fd == -EADDRINUSE) {
		snprintf(err, err_size, "cannot listen on %s: the port is in use; choose another one", text);
		return -1;
	}
	if (fd < 0) {
		snprintf(err, err_size, "cannot listen on %s: %s", text, strerror(-fd));
		return -1;
	}
	bound->length = sizeof(bound->sa);
	getsockname(fd, (struct sockaddr *)&bound->sa, &bound->length);
	return fd;
}
