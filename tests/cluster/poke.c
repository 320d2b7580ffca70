// SPDX-License-Identifier: GPL-2.0
/*
 * A peer that behaves badly towards a pangead.
 *
 *   poke listen ADDR:PORT           occupies a port, says so, and waits to be killed
 *   poke attack WHERE               connects once for each wrong thing to say; WHERE: ADDR:PORT or a path
 *   poke flood WHERE COUNT SEED     COUNT connections with noise that begins like something right
 *   poke hang WHERE COUNT SECONDS   COUNT connections that say half of a HELLO and stay
 *   poke idle WHERE COUNT SECONDS   COUNT connections that say HELLO, hear WELCOME, and nothing more
 *   poke serve ADDR:PORT WHAT       accepts one connection and answers its HELLO with WHAT: close, half,
 *                                   noise, version, refuse or huge
 *   poke garble PID INDEX WHAT      speaks for a daemon on one of its TCP connections, counted from 0: noise, or
 *                                   half a message and the end; fails when there are fewer
 *   poke deny-userfaultfd COMMAND...  runs it without the right to that system call
 *
 * attack prints what came back and fails when the daemon keeps a connection it should have ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../net/wire.h"

enum { PATIENCE_MS = 15000 };

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_un un;
};

__attribute__((noreturn))
static void die(const char *what)
{
	fprintf(stderr, "poke: %s: %s\n", what, strerror(errno));
	exit(2);
}

static socklen_t parse_address(const char *text, union address *address)
{
	char host[64];
	unsigned port;

	memset(address, 0, sizeof(*address));
	if (*text == '/') {
		address->un.sun_family = AF_UNIX;
		snprintf(address->un.sun_path, sizeof(address->un.sun_path), "%s", text);
		return sizeof(address->un);
	}
	address->in.sin_family = AF_INET;
	if (sscanf(text, "%63[^:]:%u", host, &port) != 2 ||
	    inet_pton(AF_INET, host, &address->in.sin_addr) != 1)
		die(text);
	address->in.sin_port = htons((uint16_t)port);
	return sizeof(address->in);
}

static int open_connection(const char *where)
{
	union address address;
	socklen_t length = parse_address(where, &address);
	int fd = socket(address.any.sa_family, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, &address.any, length) < 0)
		die(where);
	return fd;
}

static int open_listener(const char *where)
{
	union address address;
	socklen_t length = parse_address(where, &address);
	int fd = socket(address.any.sa_family, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, &address.any, length) < 0 || listen(fd, 8) < 0)
		die(where);
	puts("listening");
	fflush(stdout);
	return fd;
}

static uint64_t noise_state;

static uint64_t noise(void)
{
	noise_state ^= noise_state << 13;
	noise_state ^= noise_state >> 7;
	return noise_state ^= noise_state << 17;
}

static void fill_noise(void *data, size_t length)
{
	for (unsigned char *at = data; length--; at++)
		*at = (unsigned char)(noise() >> 32);
}

static struct wire_hello make_hello(uint16_t purpose)
{
	return (struct wire_hello){
		.hdr = { .length = sizeof(struct wire_hello), .type = WIRE_HELLO },
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .purpose = purpose, .node = 0xffff,
	};
}

struct speech {
	unsigned char bytes[65536];
	size_t length;
};

static void say(struct speech *speech, const void *data, size_t length)
{
	memcpy(speech->bytes + speech->length, data, length);
	speech->length += length;
}

static void say_hello(struct speech *speech, uint16_t purpose)
{
	struct wire_hello hello = make_hello(purpose);

	say(speech, &hello, sizeof(hello));
}

static void say_noise(struct speech *speech, size_t length)
{
	fill_noise(speech->bytes + speech->length, length);
	speech->length += length;
}

static void nothing(struct speech *speech)
{
	(void)speech;
}

static void text(struct speech *speech)
{
	say(speech, "GET / HTTP/1.1\r\nHost: node\r\n\r\n", 30);
}

static void short_noise(struct speech *speech)
{
	say_noise(speech, 20);
}

static void long_noise(struct speech *speech)
{
	say_noise(speech, 60000);
}

static void half_header(struct speech *speech)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	speech->length = 7;
}

static void half_hello(struct speech *speech)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	speech->length = 30;
}

static void changed_hello(struct speech *speech, size_t at, uint32_t value, size_t size)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	memcpy(speech->bytes + at, &value, size);
}

static void wrong_magic(struct speech *speech)
{
	changed_hello(speech, offsetof(struct wire_hello, magic), 0x12345678, 4);
}

static void wrong_version(struct speech *speech)
{
	changed_hello(speech, offsetof(struct wire_hello, version), WIRE_VERSION + 1, 2);
}

static void wrong_type(struct speech *speech)
{
	changed_hello(speech, offsetof(struct wire_hdr, type), WIRE_GRANT, 2);
}

static void wrong_purpose(struct speech *speech)
{
	changed_hello(speech, offsetof(struct wire_hello, purpose), 77, 2);
}

static void length_zero(struct speech *speech)
{
	changed_hello(speech, 0, 0, 4);
}

static void length_huge(struct speech *speech)
{
	changed_hello(speech, 0, 0xfffffff0, 4);
}

static void reserved_set(struct speech *speech)
{
	changed_hello(speech, offsetof(struct wire_hello, reserved), 1, 4);
}

static void hello_as(struct speech *speech, uint16_t purpose, uint16_t node, uint16_t cpu)
{
	struct wire_hello hello = make_hello(purpose);

	hello.node = node;
	hello.cpu = cpu;
	say(speech, &hello, sizeof(hello));
}

static void cpu_of_nobody(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_CPU, 0, 9999);
}

static void cpu_of_other_machine(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_CPU, 0, 1);
}

static void mm_of_other_machine(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_MM, 0, 0);
}

static void dsm_of_other_machine(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_DSM, 1, 0);
}

static void bulk_of_other_machine(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_BULK, 1, 0);
}

static void dsm_of_nobody(struct speech *speech)
{
	hello_as(speech, WIRE_PURPOSE_DSM, 0x1234, 0);
}

static void control_noise(struct speech *speech)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	say_noise(speech, 5000);
}

static void control_frame(struct speech *speech, uint32_t length, size_t sent)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	say(speech, &length, sizeof(length));
	say_noise(speech, sent);
}

static void control_empty_frame(struct speech *speech)
{
	control_frame(speech, 0, 0);
}

static void control_huge_frame(struct speech *speech)
{
	control_frame(speech, 0x7fffffff, 100);
}

static void control_wrong_frame(struct speech *speech)
{
	control_frame(speech, 200, 200);
}

static void control_half_frame(struct speech *speech)
{
	control_frame(speech, 200, 100);
}

static void hello_twice(struct speech *speech)
{
	say_hello(speech, WIRE_PURPOSE_CONTROL);
	say_hello(speech, WIRE_PURPOSE_CONTROL);
}

static const struct attack {
	const char *name;
	void (*compose)(struct speech *speech);
	const char *reason;		/* must be in a REFUSE that comes back */
} attacks[] = {
	{ "nothing", nothing, NULL },
	{ "text", text, NULL },
	{ "short noise", short_noise, NULL },
	{ "long noise", long_noise, NULL },
	{ "half a header", half_header, NULL },
	{ "half a HELLO", half_hello, NULL },
	{ "wrong magic", wrong_magic, NULL },
	{ "another version", wrong_version, "version" },
	{ "not a HELLO", wrong_type, NULL },
	{ "unknown purpose", wrong_purpose, NULL },
	{ "length 0", length_zero, NULL },
	{ "length 4 GiB", length_huge, NULL },
	{ "reserved bits", reserved_set, NULL },
	{ "a CPU that is not there", cpu_of_nobody, NULL },
	{ "a CPU of another machine", cpu_of_other_machine, NULL },
	{ "memory of another machine", mm_of_other_machine, NULL },
	{ "frames of another machine", dsm_of_other_machine, NULL },
	{ "many frames of another machine", bulk_of_other_machine, NULL },
	{ "a node that is not there", dsm_of_nobody, NULL },
	{ "HELLO, then noise", control_noise, NULL },
	{ "HELLO, then an empty frame", control_empty_frame, NULL },
	{ "HELLO, then a frame of 2 GiB", control_huge_frame, NULL },
	{ "HELLO, then a wrong message", control_wrong_frame, NULL },
	{ "HELLO, then half a message", control_half_frame, NULL },
	{ "HELLO twice", hello_twice, NULL },
};

static void send_all(int fd, const struct speech *speech, size_t step)
{
	for (size_t at = 0; at < speech->length;) {
		size_t left = speech->length - at;
		ssize_t sent = send(fd, speech->bytes + at, left < step ? left : step, MSG_NOSIGNAL);

		if (sent <= 0)
			return;		/* the daemon has had enough */
		at += (size_t)sent;
		if (step < 100)
			usleep(1000);
	}
}

/* What the daemon says until it closes; false when it does not close. */
static bool listen_to_end(int fd, char *answer, size_t size)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	size_t have = 0;

	memset(answer, 0, size);
	for (;;) {
		ssize_t got;

		if (poll(&poll_fd, 1, PATIENCE_MS) == 0)
			return false;
		got = recv(fd, answer + have, size - 1 - have, 0);
		if (got <= 0 || (have += (size_t)got) == size - 1)
			return true;
	}
}

static void describe(const char *answer, char *description, size_t size)
{
	const struct wire_refuse *refuse = (const void *)answer;

	if (refuse->hdr.type == WIRE_REFUSE)
		snprintf(description, size, "refused: %.*s", WIRE_REASON_MAX, (const char *)refuse->reason);
	else if (refuse->hdr.type == WIRE_WELCOME)
		snprintf(description, size, "welcomed, then closed");
	else
		snprintf(description, size, "closed");
}

static bool attack_once(const char *where, const struct attack *attack, bool close_first, size_t step)
{
	static struct speech speech;
	static char answer[65536];
	char description[WIRE_REASON_MAX + 32];
	int fd = open_connection(where);
	bool ended;

	speech.length = 0;
	attack->compose(&speech);
	send_all(fd, &speech, step);
	if (close_first)
		shutdown(fd, SHUT_WR);
	ended = listen_to_end(fd, answer, sizeof(answer));
	close(fd);
	describe(answer, description, sizeof(description));
	printf("%s%s%s: %s\n", attack->name, close_first ? ", then the end" : "",
	       step < 100 ? ", slowly" : "", ended ? description : "NOT CLOSED");
	if (ended && attack->reason && !strstr(description, attack->reason)) {
		printf("%s: no word of \"%s\"\n", attack->name, attack->reason);
		return false;
	}
	return ended;
}

static int attack(const char *where)
{
	bool all_ended = true;

	noise_state = 4711;
	for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		all_ended &= attack_once(where, &attacks[i], true, SIZE_MAX);
		if (i % 3 == 1)
			all_ended &= attack_once(where, &attacks[i], true, 7);
	}
	return all_ended ? 0 : 1;
}

static int flood(const char *where, long count, long seed)
{
	static struct speech speech;
	size_t kinds = sizeof(attacks) / sizeof(*attacks);

	noise_state = (uint64_t)seed * 2 + 1;
	for (long i = 0; i < count; i++) {
		int fd = open_connection(where);

		speech.length = 0;
		attacks[noise() % kinds].compose(&speech);
		for (size_t flips = noise() % 8; flips-- && speech.length;)
			speech.bytes[noise() % speech.length] ^= (unsigned char)(1u << noise() % 8);
		if (speech.length > 1 && noise() % 2)
			speech.length = noise() % speech.length;
		send_all(fd, &speech, SIZE_MAX);
		close(fd);
	}
	return 0;
}

static int hang(const char *where, long count, unsigned seconds)
{
	static struct speech speech;

	half_hello(&speech);
	for (long i = 0; i < count; i++)
		send_all(open_connection(where), &speech, SIZE_MAX);
	puts("hanging");
	fflush(stdout);
	sleep(seconds);
	return 0;
}

static int idle(const char *where, long count, unsigned seconds)
{
	struct wire_hello hello = make_hello(WIRE_PURPOSE_CONTROL);
	struct wire_hdr welcome;

	for (long i = 0; i < count; i++) {
		int fd = open_connection(where);

		if (send(fd, &hello, sizeof(hello), 0) != sizeof(hello) ||
		    recv(fd, &welcome, sizeof(welcome), MSG_WAITALL) != sizeof(welcome) ||
		    welcome.type != WIRE_WELCOME) {
			fprintf(stderr, "poke: connection %ld is not welcome\n", i + 1);
			return 1;
		}
	}
	puts("idle");
	fflush(stdout);
	sleep(seconds);
	return 0;
}

static void compose_answer(struct speech *speech, const char *what)
{
	struct wire_refuse refuse = { .hdr = { .length = sizeof(refuse), .type = WIRE_REFUSE } };
	struct wire_hdr welcome = { .length = sizeof(welcome), .type = WIRE_WELCOME };

	if (strcmp(what, "half") == 0) {
		say(speech, &welcome, 9);
	} else if (strcmp(what, "noise") == 0) {
		say_noise(speech, 3000);
	} else if (strcmp(what, "version") == 0) {
		snprintf((char *)refuse.reason, sizeof(refuse.reason), "this pangead speaks version 99");
		say(speech, &refuse, sizeof(refuse));
	} else if (strcmp(what, "refuse") == 0) {
		memset(refuse.reason, 'x', sizeof(refuse.reason));	/* no NUL */
		say(speech, &refuse, sizeof(refuse));
	} else if (strcmp(what, "huge") == 0) {
		welcome.length = 0x40000000;
		say(speech, &welcome, sizeof(welcome));
		say_noise(speech, 60000);
	}
}

static int serve(const char *where, const char *what)
{
	static struct speech speech;
	struct wire_hello hello;
	int fd = accept(open_listener(where), NULL, NULL);

	noise_state = 99;
	compose_answer(&speech, what);
	if (fd < 0 || recv(fd, &hello, sizeof(hello), MSG_WAITALL) < 0)
		die("accept");
	send_all(fd, &speech, SIZE_MAX);
	shutdown(fd, SHUT_WR);
	sleep(1);
	return 0;
}

/* A copy of the process's connected TCP socket with that index, in the order of descriptors; -1: none. */
static int steal_connection(pid_t pid, unsigned index)
{
	int process = (int)syscall(SYS_pidfd_open, pid, 0);

	if (process < 0)
		die("pidfd_open");
	for (int number = 3; number < 1024; number++) {
		int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
		union address peer;
		socklen_t length = sizeof(peer);

		if (fd < 0 && errno != EBADF)
			die("pidfd_getfd");
		if (fd < 0)
			continue;
		if (getpeername(fd, &peer.any, &length) == 0 && peer.any.sa_family == AF_INET && index-- == 0)
			return fd;
		close(fd);
	}
	return -1;
}

static int garble(pid_t pid, unsigned index, const char *what)
{
	struct wire_hdr half = { .length = sizeof(struct wire_event), .type = WIRE_EVENT };
	static struct speech speech;
	int fd = steal_connection(pid, index);

	if (fd < 0)
		return 1;
	noise_state = 31 + index;
	if (strcmp(what, "noise") == 0)
		say_noise(&speech, 5000);
	else
		say(&speech, &half, 9);
	send_all(fd, &speech, SIZE_MAX);
	if (strcmp(what, "half") == 0)
		shutdown(fd, SHUT_RDWR);
	return 0;
}

static int deny_userfaultfd(char **command)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		die("seccomp");
	execvp(*command, command);
	die(*command);
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "deny-userfaultfd") == 0)
		return deny_userfaultfd(argv + 2);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "listen") == 0) {
		open_listener(argv[2]);
		pause();
	}
	if (argc == 3 && strcmp(argv[1], "attack") == 0)
		return attack(argv[2]);
	if (argc == 5 && strcmp(argv[1], "flood") == 0)
		return flood(argv[2], atol(argv[3]), atol(argv[4]));
	if (argc == 5 && strcmp(argv[1], "hang") == 0)
		return hang(argv[2], atol(argv[3]), (unsigned)atoi(argv[4]));
	if (argc == 5 && strcmp(argv[1], "idle") == 0)
		return idle(argv[2], atol(argv[3]), (unsigned)atoi(argv[4]));
	if (argc == 5 && strcmp(argv[1], "garble") == 0)
		return garble(atoi(argv[2]), (unsigned)atoi(argv[3]), argv[4]);
	if (argc == 4 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2], argv[3]);
	fprintf(stderr, "usage: poke listen|attack|flood|hang|idle|serve|garble|deny-userfaultfd ARGUMENT...; see its source\n");
	return 2;
}
