// SPDX-License-Identifier: GPL-2.0
/*
 * The control channel's outside: frames through control_unpack(), and connections through an acceptor that
 * meet every kind of bad HELLO.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../net/acceptor.h"
#include "../../net/control.h"

/* --- frames --- */

/* What is said about a message after a round trip through a frame of its own size. */
static const char *judged(const Pangea__Message *message)
{
	const char *why = NULL;
	size_t size;
	uint8_t *frame = control_pack(message, &size);
	Pangea__Message *m;

	assert_non_null(frame);
	m = control_unpack(frame, size, &why);
	if (m)
		pangea__message__free_unpacked(m, NULL);
	assert_int_equal(!m, why != NULL);
	free(frame);
	return why;
}

struct layout_message {
	Pangea__Message message;
	Pangea__Layout body;
	Pangea__LayoutNode nodes[17], *pointers[17];
	uint8_t machine[16];
};

static void make_layout(struct layout_message *l, unsigned nodes)
{
	unsigned i;

	memset(l, 0, sizeof(*l));
	pangea__message__init(&l->message);
	pangea__layout__init(&l->body);
	l->message.body_case = PANGEA__MESSAGE__BODY_LAYOUT;
	l->message.layout = &l->body;
	l->body.machine = (ProtobufCBinaryData){ sizeof(l->machine), l->machine };
	l->body.n_node = nodes;
	l->body.node = l->pointers;
	for (i = 0; i < nodes; i++) {
		pangea__layout_node__init(&l->nodes[i]);
		l->nodes[i].pfn_start = i * 100;
		l->nodes[i].pfn_count = 100;
		l->nodes[i].cpu_start = i * 2;
		l->nodes[i].cpu_count = 2;
		l->nodes[i].name = "name";
		l->pointers[i] = &l->nodes[i];
	}
}

static void layouts(void **state)
{
	static const char long_name[] = "0123456789012345678901234567890123456789012345678901234567890123";
	struct layout_message l;

	(void)state;
#define EXPECT_LAYOUT(good, change) do { \
		make_layout(&l, 3); \
		change; \
		if ((judged(&l.message) == NULL) != (good)) \
			fail_msg("after `%s`", #change); \
	} while (0)
	EXPECT_LAYOUT(true, );
	EXPECT_LAYOUT(true, make_layout(&l, 16));
	EXPECT_LAYOUT(false, make_layout(&l, 17));
	EXPECT_LAYOUT(false, make_layout(&l, 0));
	EXPECT_LAYOUT(true, l.body.self = 2);
	EXPECT_LAYOUT(false, l.body.self = 3);
	EXPECT_LAYOUT(false, l.body.machine.len = 15);
	EXPECT_LAYOUT(false, l.nodes[0].pfn_start = 1);
	EXPECT_LAYOUT(false, l.nodes[1].pfn_start = 101);
	EXPECT_LAYOUT(false, l.nodes[1].pfn_count = 0);
	EXPECT_LAYOUT(false, l.nodes[2].pfn_count = ~0ULL);
	EXPECT_LAYOUT(false, l.nodes[1].cpu_start = 3);
	EXPECT_LAYOUT(false, l.nodes[2].cpu_count = 0);
	EXPECT_LAYOUT(true, l.nodes[2].cpu_count = 60);
	EXPECT_LAYOUT(false, l.nodes[2].cpu_count = 61);
	EXPECT_LAYOUT(false, l.nodes[2].cpu_count = 0xffffffff);
	EXPECT_LAYOUT(true, l.nodes[2].name = (char *)long_name + 1);
	EXPECT_LAYOUT(false, l.nodes[2].name = (char *)long_name);
	EXPECT_LAYOUT(false, l.nodes[2].address = "a\nb");
#undef EXPECT_LAYOUT
}

static void joins(void **state)
{
	Pangea__Features features = PANGEA__FEATURES__INIT;
	Pangea__Join join = PANGEA__JOIN__INIT;
	CONTROL_MESSAGE(message, JOIN, join, &join);
	uint32_t words[65] = { 0 };
	uint8_t key[17] = { 0 };

	(void)state;
	assert_non_null(judged(&message));
	join.features = &features;
	assert_non_null(judged(&message));
	join.key = (ProtobufCBinaryData){ 15, key };
	assert_non_null(judged(&message));
	join.key.len = 16;
	assert_null(judged(&message));
	features.words = words;
	features.n_words = 64;
	assert_null(judged(&message));
	features.n_words = 65;
	assert_non_null(judged(&message));
	features.n_words = 0;
	features.xstate_end = words;
	features.n_xstate_end = 65;
	assert_non_null(judged(&message));
	features.n_xstate_end = 0;
	join.name = "\033[2J";
	assert_non_null(judged(&message));
}

static void names(void **state)
{
	static const char *const good[] = {
		"", "node-1", "k\xc3\xb6ln", "\xe2\x82\xac", "\xf0\x9f\x90\xa7", "with blank",
		"012345678901234567890123456789012345678901234567890123456789012",
	};
	static const char *const bad[] = {
		"\n", "\033[2J", "\x7f", "\xff", "\xc3", "\xc3(", "\x80", "\xc0\xaf", "\xe0\x82\xac",
		"\xc2\x9b" "2J" /* a control sequence of one character */, "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80\x80", "0123456789012345678901234567890123456789012345678901234567890123",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!control_name_ok(good[i]))
			fail_msg("'%s' is refused", good[i]);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (control_name_ok(bad[i]))
			fail_msg("bad name %zu is accepted", i);
}

static void keys(void **state)
{
	static const char text[] = "00112233445566778899aabbccddeeff";
	uint8_t key[CONTROL_KEY_SIZE], other[CONTROL_KEY_SIZE];
	char again[CONTROL_KEY_TEXT + 1];

	(void)state;
	assert_int_equal(control_key_parse(text, key), 0);
	assert_int_equal(key[1], 0x11);
	control_key_format(key, again);
	assert_string_equal(again, text);
	assert_int_equal(control_key_parse("00112233445566778899aabbccddeeff\n", other), 0);
	assert_true(control_key_same(key, other));
	other[15] ^= 1;
	assert_false(control_key_same(key, other));
	assert_int_equal(control_key_parse("", other), -1);
	assert_int_equal(control_key_parse(text + 1, other), -1);
	assert_int_equal(control_key_parse("00112233445566778899aabbccddeeff0", other), -1);
	assert_int_equal(control_key_parse("00112233445566778899aabbccddeeff x", other), -1);
	assert_int_equal(control_key_parse("0011223344556677-899aabbccddeeff", other), -1);
}

static void bad_frames(void **state)
{
	static const uint8_t no_body[] = { 1, 0, 0, 0, 0 };
	static const uint8_t empty[] = { 0, 0, 0, 0 };
	static const uint8_t huge[] = { 1, 0, 1, 0 };
	static const uint8_t unknown_body[] = { 3, 0, 0, 0, 0xfa, 0x01, 0 };
	Pangea__Ready ready = PANGEA__READY__INIT;
	CONTROL_MESSAGE(message, READY, ready, &ready);
	const char *why;
	uint8_t *frame;
	size_t size, cut;

	(void)state;
	assert_int_equal(control_frame_size(empty), 0);
	assert_int_equal(control_frame_size(huge), 0);
	assert_null(control_unpack(no_body, sizeof(no_body), &why));
	assert_null(control_unpack(unknown_body, sizeof(unknown_body), &why));
	assert_null(judged(&message));
	frame = control_pack(&message, &size);
	for (cut = 0; cut < size; cut++)
		assert_null(control_unpack(frame, cut, &why));
	free(frame);
}

static void noise(void **state)
{
	unsigned round, i;

	(void)state;
	srandom(3);
	for (round = 0; round < 100000; round++) {
		struct layout_message l;
		const char *why = NULL;
		uint8_t *frame;
		size_t size;
		Pangea__Message *m;

		make_layout(&l, 1 + random() % 4);
		frame = control_pack(&l.message, &size);
		for (i = 0; i < 3; i++)
			frame[CONTROL_PREFIX + random() % (size - CONTROL_PREFIX)] ^= 1u << random() % 8;
		m = control_unpack(frame, size, &why);
		assert_int_equal(!m, why != NULL);
		if (m)
			pangea__message__free_unpacked(m, NULL);
		free(frame);
	}
}

/* --- connections --- */

struct world {
	struct event_base *base;
	struct acceptor *acceptor;
	struct address address;
	char refused[256];		/* what the accepting side was told */
	int connected;			/* and the descriptor that it got */
	char answer[256];		/* what the connecting side was told */
	bool welcomed;
};

static struct wire_hello good_hello(void)
{
	return (struct wire_hello){
		.hdr = { .length = sizeof(struct wire_hello), .type = WIRE_HELLO },
		.magic = WIRE_MAGIC, .version = WIRE_VERSION, .purpose = WIRE_PURPOSE_DSM, .node = 2,
	};
}

static const char *judge(void *ctx, const struct wire_hello *hello)
{
	(void)ctx;
	return hello->node == 3 ? "node 3 is not wanted" : NULL;
}

static void connected(void *ctx, int fd, const struct wire_hello *hello, const char *from)
{
	struct world *w = ctx;

	(void)from;
	assert_int_equal(hello->node, 2);
	w->connected = fd;
	event_base_loopbreak(w->base);
}

static void refused(void *ctx, const char *from, const char *why)
{
	struct world *w = ctx;

	(void)from;
	snprintf(w->refused, sizeof(w->refused), "%s", why);
	event_base_loopbreak(w->base);
}

static const struct acceptor_ops ops = { .judge = judge, .connected = connected, .refused = refused };

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char err[256];
	int fd;

	w->base = event_base_new();
	fd = address_listen("127.0.0.1:0", &w->address, err, sizeof(err));
	assert_true(fd >= 0);
	w->acceptor = acceptor_new(w->base, fd, 300, &ops, w);
	assert_non_null(w->acceptor);
	w->connected = -1;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	acceptor_free(w->acceptor);
	event_base_free(w->base);
	free(w);
	return 0;
}

/* Send bytes, perhaps close; run the loop until the accepting side has judged.  The socket. */
static int provoke(struct world *w, const void *bytes, size_t size, bool close_then)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	w->refused[0] = 0;
	assert_int_equal(connect(fd, (struct sockaddr *)&w->address.sa, w->address.length), 0);
	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
	if (close_then)
		shutdown(fd, SHUT_WR);
	event_base_dispatch(w->base);
	assert_int_equal(w->connected, -1);
	return fd;
}

static void expect_refusal(struct world *w, const void *bytes, size_t size, const char *why)
{
	int fd = provoke(w, bytes, size, false);
	struct wire_refuse refuse;

	assert_int_equal(recv(fd, &refuse, sizeof(refuse), MSG_WAITALL), sizeof(refuse));
	assert_int_equal(refuse.hdr.type, WIRE_REFUSE);
	assert_string_equal(refuse.reason, w->refused);
	if (!strstr(w->refused, why))
		fail_msg("`%s` instead of `%s`", w->refused, why);
	close(fd);
}

static void bad_hellos(void **state)
{
	struct world *w = *state;
	struct wire_hello hello;
	struct { struct wire_hello hello; uint8_t more[64]; } longer = { 0 };
	uint8_t junk[512];

#define EXPECT_REFUSAL(why, change) do { \
		hello = good_hello(); \
		change; \
		expect_refusal(w, &hello, sizeof(hello), why); \
	} while (0)
	EXPECT_REFUSAL("no HELLO", hello.magic++);
	EXPECT_REFUSAL("no HELLO", hello.hdr.type = WIRE_WELCOME);
	EXPECT_REFUSAL("version 12, but this pangead speaks version 11", hello.version = 12);
	EXPECT_REFUSAL("impossible length", hello.hdr.length = 40);
	EXPECT_REFUSAL("impossible length", hello.hdr.length = 0xffffffff);
	EXPECT_REFUSAL("unknown purpose", hello.purpose = 9);
	EXPECT_REFUSAL("node number out of range", hello.node = 16);
	EXPECT_REFUSAL("node 3 is not wanted", hello.node = 3);
#undef EXPECT_REFUSAL
	longer.hello = good_hello();
	longer.hello.version = 99;
	longer.hello.hdr.length = sizeof(longer);
	expect_refusal(w, &longer, sizeof(longer), "protocol version 99");
	memset(junk, 'x', sizeof(junk));
	expect_refusal(w, junk, sizeof(junk), "no HELLO");
}

static void cut_hellos(void **state)
{
	struct world *w = *state;
	struct wire_hello hello = good_hello();
	size_t cut;

	for (cut = 0; cut < sizeof(hello); cut++) {
		close(provoke(w, &hello, cut, true));
		assert_non_null(strstr(w->refused, "closed before its HELLO"));
	}
}

/* The time counts for the whole HELLO. */
static void late_hello(void **state)
{
	struct world *w = *state;
	struct wire_hello hello = good_hello();

	close(provoke(w, &hello, 20, false));
	assert_string_equal(w->refused, "no HELLO came in time");
}

static void outgoing_done(void *ctx, int fd, const struct wire_hello *hello, const char *why)
{
	struct world *w = ctx;

	(void)hello;
	w->welcomed = fd >= 0;
	if (fd >= 0)
		close(fd);
	else
		snprintf(w->answer, sizeof(w->answer), "%s", why);
}

static void both_sides(void **state)
{
	struct world *w = *state;
	struct wire_hello hello = { .purpose = WIRE_PURPOSE_DSM, .node = 2 };
	char next;

	assert_non_null(handshake_connect(w->base, &w->address, 1000, &hello, outgoing_done, w));
	while (!w->welcomed || w->connected < 0)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(recv(w->connected, &next, 1, 0), 0);
	close(w->connected);
	hello.node = 3;
	assert_non_null(handshake_connect(w->base, &w->address, 1000, &hello, outgoing_done, w));
	while (!w->answer[0])
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_string_equal(w->answer, "refused: node 3 is not wanted");
}

/* More connections than may be unproven at a time: all are served in the end, none is lost. */
static void crowd(void **state)
{
	struct world *w = *state;
	struct wire_hello hello = good_hello();
	int fds[150], i;

	for (i = 0; i < 150; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&w->address.sa, w->address.length), 0);
	}
	assert_int_equal(send(fds[149], &hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
	while (w->connected < 0)
		event_base_dispatch(w->base);
	close(w->connected);
	for (i = 0; i < 150; i++)
		close(fds[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts),
		cmocka_unit_test(joins),
		cmocka_unit_test(names),
		cmocka_unit_test(keys),
		cmocka_unit_test(bad_frames),
		cmocka_unit_test(noise),
		cmocka_unit_test_setup_teardown(bad_hellos, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cut_hellos, set_up, tear_down),
		cmocka_unit_test_setup_teardown(late_hello, set_up, tear_down),
		cmocka_unit_test_setup_teardown(both_sides, set_up, tear_down),
		cmocka_unit_test_setup_teardown(crowd, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
