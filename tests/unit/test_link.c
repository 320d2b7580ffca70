// SPDX-License-Identifier: GPL-2.0
/*
 * What net/link.h promises, tested the same way over every transport; then what only a byte stream can do
 * wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../net/link.h"

#define WAIT_MS 10000

struct transport {
	const char *name;
	void (*pair)(struct link *ends[2], enum wire_purpose purpose);
};

/* ---- the transports ---- */

static void tcp_sockets(int fds[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &length), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&addr, sizeof(addr)), 0);
	fds[1] = accept(listener, NULL, NULL);
	assert_true(fds[1] >= 0);
	close(listener);
}

static void wrap(const int fds[2], struct link *ends[2], enum wire_purpose purpose)
{
	ends[0] = link_socket_new(fds[0], purpose, "left");
	ends[1] = link_socket_new(fds[1], purpose, "right");
	assert_non_null(ends[0]);
	assert_non_null(ends[1]);
}

static void pair_tcp(struct link *ends[2], enum wire_purpose purpose)
{
	int fds[2];

	tcp_sockets(fds);
	wrap(fds, ends, purpose);
}

static void pair_unix(struct link *ends[2], enum wire_purpose purpose)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	wrap(fds, ends, purpose);
}

static void pair_inprocess(struct link *ends[2], enum wire_purpose purpose)
{
	assert_int_equal(link_inprocess_pair(ends, purpose), 0);
}

static const struct transport tcp = { "TCP", pair_tcp };
static const struct transport unix_socket = { "UNIX", pair_unix };
static const struct transport inprocess = { "in-process", pair_inprocess };

static void pair(void **state, struct link *ends[2], enum wire_purpose purpose)
{
	((const struct transport *)*state)->pair(ends, purpose);
}

static void release(struct link *ends[2])
{
	ends[0]->ops->free(ends[0]);
	ends[1]->ops->free(ends[1]);
}

/* ---- messages ---- */

static void send_ack(struct link *link, uint64_t seq)
{
	struct wire_ack ack = { .hdr = { .length = sizeof(ack), .type = WIRE_ACK, .seq = seq } };

	assert_int_equal(link_send_msg(link, &ack), 0);
}

static void expect_ack(struct link *link, uint64_t seq)
{
	const struct wire_hdr *msg;

	assert_int_equal(link_recv_wait(link, &msg, WAIT_MS), sizeof(struct wire_ack));
	assert_int_equal(msg->type, WIRE_ACK);
	assert_int_equal(msg->seq, seq);
}

/* A GRANT whose page is filled from pfn, gathered from two buffers. */
static int send_page(struct link *link, uint64_t pfn)
{
	uint64_t page[WIRE_PAGE_SIZE / 8];
	struct wire_dsm grant = {
		.hdr = { .length = sizeof(grant) + sizeof(page), .type = WIRE_GRANT },
		.pfn = pfn, .state = 1, .payload = WIRE_PAYLOAD_PAGE,
	};
	struct iovec iov[2] = { { &grant, sizeof(grant) }, { page, sizeof(page) } };
	unsigned i;

	for (i = 0; i < WIRE_PAGE_SIZE / 8; i++)
		page[i] = pfn * 0x9e3779b97f4a7c15ULL + i;
	return link_send(link, iov, 2);
}

static void check_page(const struct wire_hdr *msg, uint64_t pfn)
{
	const struct wire_dsm *grant = (const void *)msg;
	const uint64_t *page = (const void *)(grant + 1);
	unsigned i;

	assert_int_equal((uintptr_t)msg % 8, 0);
	assert_int_equal(msg->length, sizeof(*grant) + WIRE_PAGE_SIZE);
	assert_int_equal(grant->pfn, pfn);
	for (i = 0; i < WIRE_PAGE_SIZE / 8; i++)
		assert_int_equal(page[i], pfn * 0x9e3779b97f4a7c15ULL + i);
}

static void expect_page(struct link *link, uint64_t pfn)
{
	const struct wire_hdr *msg = NULL;

	assert_true(link_recv_wait(link, &msg, WAIT_MS) > 0);
	check_page(msg, pfn);
}

static bool readable(const struct link *link, int timeout_ms)
{
	struct pollfd pfd = { .fd = link_fd(link), .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) == 1;
}

/* ---- every transport ---- */

static void in_order_both_ways(void **state)
{
	struct link *ends[2];
	const struct wire_hdr *msg;
	uint64_t i;

	pair(state, ends, WIRE_PURPOSE_MM);
	assert_int_equal(link_recv(ends[0], &msg), 0);
	assert_false(readable(ends[1], 0));
	for (i = 0; i < 100; i++) {
		send_ack(ends[0], i);
		send_ack(ends[1], 1000 + i);
	}
	assert_true(readable(ends[1], WAIT_MS));
	for (i = 0; i < 100; i++) {
		expect_ack(ends[1], i);
		expect_ack(ends[0], 1000 + i);
	}
	assert_int_equal(link_recv(ends[0], &msg), 0);
	assert_false(readable(ends[0], 0));
	release(ends);
}

static void waiting_ends(void **state)
{
	struct link *ends[2];
	const struct wire_hdr *msg;

	pair(state, ends, WIRE_PURPOSE_MM);
	assert_int_equal(link_recv_wait(ends[0], &msg, 20), -ETIMEDOUT);
	send_ack(ends[1], 1);
	expect_ack(ends[0], 1);
	release(ends);
}

static void counted(void **state)
{
	struct link_stats stats;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_DSM);
	send_page(ends[0], 5);
	expect_page(ends[1], 5);
	link_get_stats(ends[0], &stats);
	assert_int_equal(stats.messages_out, 1);
	assert_int_equal(stats.bytes_out, sizeof(struct wire_dsm) + WIRE_PAGE_SIZE);
	assert_int_equal(stats.messages_in + stats.bytes_in, 0);
	link_get_stats(ends[1], &stats);
	assert_int_equal(stats.messages_in, 1);
	assert_int_equal(stats.bytes_in, sizeof(struct wire_dsm) + WIRE_PAGE_SIZE);
	release(ends);
}

/* Two short messages and one with a page, in two buffers. */
static void several_at_a_time(void **state)
{
	uint8_t page[WIRE_PAGE_SIZE] = { 1 };
	struct wire_dsm short_one = { .hdr = { .length = sizeof(short_one), .type = WIRE_DONE }, .pfn = 1 };
	struct wire_dsm messages[3] = { short_one, short_one, short_one };
	struct iovec iov[2] = { { messages, sizeof(messages) }, { page, sizeof(page) } };
	struct link_stats stats;
	struct link *ends[2];
	const struct wire_hdr *msg;

	messages[1].pfn = 2;
	messages[2] = (struct wire_dsm){
		.hdr = { .length = sizeof(short_one) + sizeof(page), .type = WIRE_GRANT },
		.pfn = 3, .state = 1, .payload = WIRE_PAYLOAD_PAGE,
	};
	pair(state, ends, WIRE_PURPOSE_DSM);
	assert_int_equal(link_send(ends[0], iov, 2), 0);
	for (uint64_t pfn = 1; pfn <= 3; pfn++) {
		assert_true(link_recv_wait(ends[1], &msg, WAIT_MS) > 0);
		assert_int_equal(((const struct wire_dsm *)msg)->pfn, pfn);
	}
	assert_memory_equal((const struct wire_dsm *)msg + 1, page, sizeof(page));
	assert_false(readable(ends[1], 0));
	link_get_stats(ends[0], &stats);
	assert_int_equal(stats.messages_out, 3);
	link_get_stats(ends[1], &stats);
	assert_int_equal(stats.messages_in, 3);
	release(ends);
}

/* 16 MiB without a reader: nothing blocks, nothing is lost. */
static void queues_what_is_not_read(void **state)
{
	const uint64_t count = 4096;
	struct link *ends[2];
	uint64_t i;

	pair(state, ends, WIRE_PURPOSE_DSM);
	for (i = 0; i < count; i++)
		assert_int_equal(send_page(ends[0], i), 0);
	for (i = 0; i < count; i++) {
		const struct wire_hdr *msg = NULL;
		int ret;

		while (!(ret = link_recv(ends[1], &msg))) {
			if (ends[0]->ops->wants_flush(ends[0]))
				assert_int_equal(ends[0]->ops->flush(ends[0]), 0);
			readable(ends[1], 1);
		}
		assert_true(ret > 0);
		check_page(msg, i);
	}
	assert_false(ends[0]->ops->wants_flush(ends[0]));
	release(ends);
}

static void gives_up_on_a_silent_reader(void **state)
{
	struct link *ends[2];
	int ret = 0;
	uint64_t i;

	pair(state, ends, WIRE_PURPOSE_DSM);
	for (i = 0; i < (128u << 20) / WIRE_PAGE_SIZE && !ret; i++)
		ret = send_page(ends[0], i);
	assert_int_equal(ret, -ENOBUFS);
	assert_true(i > (60u << 20) / WIRE_PAGE_SIZE);
	assert_non_null(strstr(link_error(ends[0]), "does not read"));
	assert_int_equal(send_page(ends[0], i), -EPIPE);
	assert_false(ends[0]->ops->wants_flush(ends[0]));
	release(ends);
}

/* What was sent before the end arrives, then -EPIPE, again and again. */
static void peer_leaves(void **state)
{
	const struct wire_hdr *msg;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_MM);
	send_ack(ends[0], 1);
	send_ack(ends[0], 2);
	ends[0]->ops->free(ends[0]);
	assert_true(readable(ends[1], WAIT_MS));
	expect_ack(ends[1], 1);
	expect_ack(ends[1], 2);
	assert_int_equal(link_recv_wait(ends[1], &msg, WAIT_MS), -EPIPE);
	assert_int_equal(link_recv(ends[1], &msg), -EPIPE);
	assert_non_null(strstr(link_error(ends[1]), "closed the connection"));
	assert_int_equal(send_page(ends[1], 1), -EPIPE);
	assert_true(readable(ends[1], 0));
	ends[1]->ops->free(ends[1]);
}

static void *shut_soon(void *arg)
{
	struct link *link = arg;

	usleep(20000);
	link->ops->shutdown(link);
	return NULL;
}

static void shutdown_wakes(void **state)
{
	const struct wire_hdr *msg;
	struct link *ends[2];
	pthread_t thread;

	pair(state, ends, WIRE_PURPOSE_MM);
	pthread_create(&thread, NULL, shut_soon, ends[0]);
	assert_int_equal(link_recv_wait(ends[0], &msg, WAIT_MS), -EPIPE);
	assert_int_equal(link_recv_wait(ends[1], &msg, WAIT_MS), -EPIPE);
	pthread_join(thread, NULL);
	assert_true(link_error(ends[0])[0] && link_error(ends[1])[0]);
	release(ends);
}

/* Input that had arrived is not wanted any more by the side that shuts down. */
static void shutdown_drops_input(void **state)
{
	const struct wire_hdr *msg;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_MM);
	send_ack(ends[1], 1);
	assert_true(readable(ends[0], WAIT_MS));
	ends[0]->ops->shutdown(ends[0]);
	assert_int_equal(link_recv(ends[0], &msg), -EPIPE);
	release(ends);
}

static void refuses_bad_messages(void **state)
{
	struct wire_interrupt bad = { .hdr = { .length = sizeof(bad), .type = WIRE_INTERRUPT },
				      .cpu = WIRE_CPUS_MAX };
	const struct wire_hdr *msg;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_MM);
	send_ack(ends[0], 1);
	assert_int_equal(link_send_msg(ends[0], &bad), 0);
	send_ack(ends[0], 2);
	expect_ack(ends[1], 1);
	assert_int_equal(link_recv_wait(ends[1], &msg, WAIT_MS), -EPROTO);
	assert_non_null(strstr(link_error(ends[1]), "CPU number out of range"));
	assert_int_equal(link_recv(ends[1], &msg), -EPROTO);
	assert_int_equal(link_recv_wait(ends[0], &msg, WAIT_MS), -EPIPE);
	release(ends);
}

static void refuses_other_channels(void **state)
{
	const struct wire_hdr *msg;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_CPU);
	send_ack(ends[0], 1);
	assert_int_equal(link_recv_wait(ends[1], &msg, WAIT_MS), -EPROTO);
	assert_non_null(strstr(link_error(ends[1]), "another channel"));
	release(ends);
}

#define SENDERS		4
#define PER_SENDER	3000

struct sender {
	struct link *link;
	unsigned number;
	pthread_t thread;
};

static void *send_many(void *arg)
{
	struct sender *s = arg;
	uint64_t i;

	for (i = 0; i < PER_SENDER; i++)
		if (send_page(s->link, (uint64_t)s->number << 32 | i))
			return s;
	while (s->link->ops->wants_flush(s->link) && !s->link->ops->flush(s->link))
		usleep(100);
	return NULL;
}

/* Messages of several threads do not mix, and those of one thread stay in order. */
static void many_senders(void **state)
{
	struct sender senders[SENDERS];
	uint64_t next[SENDERS] = { 0 };
	struct link *ends[2];
	unsigned i;

	pair(state, ends, WIRE_PURPOSE_DSM);
	for (i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .link = ends[0], .number = i };
		pthread_create(&senders[i].thread, NULL, send_many, &senders[i]);
	}
	for (i = 0; i < SENDERS * PER_SENDER; i++) {
		const struct wire_hdr *msg = NULL;
		uint64_t pfn;

		assert_true(link_recv_wait(ends[1], &msg, WAIT_MS) > 0);
		pfn = ((const struct wire_dsm *)msg)->pfn;
		assert_true(pfn >> 32 < SENDERS);
		assert_int_equal((uint32_t)pfn, next[pfn >> 32]++);
		check_page(msg, pfn);
	}
	for (i = 0; i < SENDERS; i++) {
		void *failed;

		pthread_join(senders[i].thread, &failed);
		assert_null(failed);
	}
	release(ends);
}

/* ---- streams only ---- */

struct stream {
	int fd;			/* the peer writes bytes here */
	struct link *link;
};

static struct stream stream_open(enum wire_purpose purpose)
{
	int fds[2];

	tcp_sockets(fds);
	return (struct stream){ .fd = fds[0], .link = link_socket_new(fds[1], purpose, "node 2") };
}

static void stream_close(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->link->ops->free(s->link);
}

static void one_byte_at_a_time(void **state)
{
	struct wire_ack ack = { .hdr = { .length = sizeof(ack), .type = WIRE_ACK, .seq = 9 } };
	struct stream s = stream_open(WIRE_PURPOSE_MM);
	const struct wire_hdr *msg;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(ack); i++) {
		assert_int_equal(link_recv(s.link, &msg), 0);
		assert_int_equal(write(s.fd, (char *)&ack + i, 1), 1);
		assert_true(readable(s.link, WAIT_MS));
	}
	expect_ack(s.link, 9);
	stream_close(&s);
}

/* Boundaries of the receive buffer fall everywhere within messages of different sizes. */
static void any_split(void **state)
{
	struct stream s = stream_open(WIRE_PURPOSE_DSM);
	static uint8_t bytes[600 * (sizeof(struct wire_dsm) + WIRE_PAGE_SIZE)];
	size_t length = 0, sent = 0;
	unsigned i, seen = 0;

	(void)state;
	for (i = 0; i < 600; i++) {
		struct wire_dsm *grant = (void *)(bytes + length);
		bool page = i % 3;

		*grant = (struct wire_dsm){
			.hdr = { .length = sizeof(*grant) + (page ? WIRE_PAGE_SIZE : 0), .type = WIRE_GRANT },
			.pfn = i, .state = 1, .payload = page ? WIRE_PAYLOAD_PAGE : WIRE_PAYLOAD_NONE,
		};
		length += grant->hdr.length;
	}
	srandom(1);
	while (seen < 600) {
		const struct wire_hdr *msg;
		size_t part = 1 + random() % 30000;
		int ret;

		if (part > length - sent)
			part = length - sent;
		if (part)
			assert_int_equal(write(s.fd, bytes + sent, part), part);
		sent += part;
		while ((ret = link_recv(s.link, &msg)) > 0)
			assert_int_equal(((const struct wire_dsm *)msg)->pfn, seen++);
		assert_int_equal(ret, 0);
	}
	stream_close(&s);
}

/* A peer that closes after each possible number of bytes. */
static void closes_within(void **state)
{
	struct wire_revoke revoke = { .hdr = { .length = sizeof(revoke), .type = WIRE_REVOKE }, .end = 4096 };
	const struct wire_hdr *msg;
	size_t cut;

	(void)state;
	for (cut = 0; cut <= sizeof(revoke); cut++) {
		struct stream s = stream_open(WIRE_PURPOSE_MM);
		int expected = cut % sizeof(revoke) ? -EPROTO : -EPIPE;

		assert_int_equal(write(s.fd, &revoke, cut), cut);
		close(s.fd);
		s.fd = -1;
		if (cut == sizeof(revoke))
			assert_int_equal(link_recv_wait(s.link, &msg, WAIT_MS), sizeof(revoke));
		assert_int_equal(link_recv_wait(s.link, &msg, WAIT_MS), expected);
		if (expected == -EPROTO)
			assert_string_equal(link_error(s.link),
					    "node 2 closed the connection within a message");
		stream_close(&s);
	}
}

/* A length that cannot be is refused with the header, without waiting for more. */
static void refuses_early(void **state)
{
	static const uint32_t lengths[] = { 0, 8, 15, 17, 24, WIRE_LENGTH_MAX, 0x7fffffff, 0xffffffff };
	const struct wire_hdr *msg;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct wire_hdr hdr = { .length = lengths[i], .type = WIRE_ACK };
		struct stream s = stream_open(WIRE_PURPOSE_MM);

		assert_int_equal(write(s.fd, &hdr, sizeof(hdr)), sizeof(hdr));
		assert_int_equal(link_recv_wait(s.link, &msg, WAIT_MS), -EPROTO);
		stream_close(&s);
	}
}

static void noise(void **state)
{
	const struct wire_hdr *msg;
	unsigned round, i;

	(void)state;
	srandom(2);
	for (round = 0; round < 300; round++) {
		struct stream s = stream_open(1 + round % 5);
		uint8_t bytes[4096];
		int ret;

		for (i = 0; i < sizeof(bytes); i++)
			bytes[i] = random();
		assert_int_equal(write(s.fd, bytes, sizeof(bytes)), sizeof(bytes));
		while ((ret = link_recv_wait(s.link, &msg, WAIT_MS)) > 0)
			;
		assert_int_equal(ret, -EPROTO);
		stream_close(&s);
	}
}

/* The last words of a peer that has closed can be read after a write to it failed. */
static void last_words(void **state)
{
	struct wire_refuse refuse = { .hdr = { .length = sizeof(refuse), .type = WIRE_REFUSE },
				      .reason = "too many nodes" };
	const struct wire_hdr *msg;
	struct link *link;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	link = link_socket_new(fds[1], WIRE_PURPOSE_MM, "node 0");
	assert_int_equal(write(fds[0], &refuse, sizeof(refuse)), sizeof(refuse));
	close(fds[0]);
	assert_int_equal(link_send_msg(link, &refuse), -EPIPE);
	assert_int_equal(link_recv_wait(link, &msg, WAIT_MS), sizeof(refuse));
	assert_string_equal(((const struct wire_refuse *)msg)->reason, "too many nodes");
	assert_int_equal(link_recv_wait(link, &msg, WAIT_MS), -EPIPE);
	link->ops->free(link);
}

/* Whether poll() sees input within so many ms. */
static int polled(const struct link *link, int ms)
{
	struct pollfd p = { link_fd(link), POLLIN, 0 };

	return poll(&p, 1, ms);
}

/* What comes while a link is quiet is received, and is seen by who polls afterwards; its end is seen at once. */
static void quiet_for_a_while(void **state)
{
	const struct wire_hdr *msg;
	struct link *ends[2];

	pair(state, ends, WIRE_PURPOSE_MM);
	ends[1]->ops->quiet(ends[1], true);
	send_ack(ends[0], 1);
	assert_int_equal(polled(ends[1], 50), 0);
	expect_ack(ends[1], 1);
	send_ack(ends[0], 2);
	assert_int_equal(polled(ends[1], 50), 0);
	ends[1]->ops->quiet(ends[1], false);
	assert_int_equal(polled(ends[1], WAIT_MS), 1);
	expect_ack(ends[1], 2);
	ends[1]->ops->quiet(ends[1], true);
	ends[0]->ops->shutdown(ends[0]);
	assert_int_equal(polled(ends[1], WAIT_MS), 1);
	assert_int_equal(link_recv_wait(ends[1], &msg, WAIT_MS), -EPIPE);
	release(ends);
}

#define ON(test, transport) { #test " over " #transport, test, NULL, NULL, (void *)&transport }
#define ON_ALL(test) ON(test, tcp), ON(test, unix_socket), ON(test, inprocess)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_ALL(in_order_both_ways),
		ON_ALL(waiting_ends),
		ON_ALL(counted),
		ON_ALL(several_at_a_time),
		ON_ALL(queues_what_is_not_read),
		ON_ALL(gives_up_on_a_silent_reader),
		ON_ALL(peer_leaves),
		ON_ALL(shutdown_wakes),
		ON_ALL(shutdown_drops_input),
		ON_ALL(refuses_bad_messages),
		ON_ALL(refuses_other_channels),
		ON_ALL(many_senders),
		ON(quiet_for_a_while, tcp),
		cmocka_unit_test(one_byte_at_a_time),
		cmocka_unit_test(any_split),
		cmocka_unit_test(closes_within),
		cmocka_unit_test(refuses_early),
		cmocka_unit_test(noise),
		cmocka_unit_test(last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
