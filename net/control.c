// SPDX-License-Identifier: GPL-2.0
/*
 * Frames of the control channel: packing, the check of what arrives, and the tools' blocking client.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"
#include "wire.h"

#define REASON_MAX	511u	/* bytes of text in Refuse, Failed and Stop */
#define WORDS_MAX	64u	/* repeated fields of Features */
#define CLIENT_WAIT_S	5

/* --- frames --- */

uint8_t *control_pack(const Pangea__Message *message, size_t *size)
{
	size_t length = pangea__message__get_packed_size(message);
	uint8_t *frame = malloc(CONTROL_PREFIX + length);
	uint32_t prefix = (uint32_t)length;

	if (!frame)
		return NULL;
	memcpy(frame, &prefix, sizeof(prefix));
	pangea__message__pack(message, frame + CONTROL_PREFIX);
	*size = CONTROL_PREFIX + length;
	return frame;
}

size_t control_frame_size(const uint8_t prefix[CONTROL_PREFIX])
{
	uint32_t length;

	memcpy(&length, prefix, sizeof(length));
	return length && length <= CONTROL_LENGTH_MAX ? CONTROL_PREFIX + length : 0;
}

/* --- the check --- */

static bool text_ok(const char *text, size_t max)
{
	size_t i;

	for (i = 0; text[i]; i++)
		if (i == max || (unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return true;
}

/* Bytes of the character that begins here; 0: it is none of UTF-8, or a terminal would obey it. */
static size_t character(const unsigned char *text)
{
	static const struct { unsigned char mask, lead; uint32_t least; } forms[] = {
		{ 0x80, 0x00, 0x20 }, { 0xe0, 0xc0, 0xa0 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 },
	};
	size_t length = 0, i;
	uint32_t code;

	while (length < 4 && (text[0] & forms[length].mask) != forms[length].lead)
		length++;
	if (length == 4)
		return 0;
	code = text[0] & (unsigned char)~forms[length].mask;
	for (i = 1; i <= length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	if (code < forms[length].least || code == 0x7f || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	return length + 1;
}

bool control_name_ok(const char *text)
{
	size_t length = strlen(text), at = 0, step;

	if (length > CONTROL_NAME_MAX)
		return false;
	for (; at < length; at += step) {
		step = character((const unsigned char *)text + at);
		if (!step)
			return false;
	}
	return true;
}

static const char *check_join(const Pangea__Join *join)
{
	if (!control_name_ok(join->address) || !control_name_ok(join->name) || !control_name_ok(join->kernel))
		return "Join with an impossible text";
	if (join->key.len != CONTROL_KEY_SIZE)
		return "Join without a machine's key";
	if (!join->features)
		return "Join without CPU features";
	if (join->features->n_words > WORDS_MAX || join->features->n_xstate_end > WORDS_MAX)
		return "Join with too many CPU feature words";
	return NULL;
}

static const char *check_layout(const Pangea__Layout *layout)
{
	uint64_t pfn = 0;
	uint32_t cpu = 0;
	size_t i;

	if (layout->machine.len != sizeof(((struct wire_hello *)0)->machine))
		return "Layout without a machine";
	if (layout->n_node < 1 || layout->n_node > WIRE_NODES_MAX || layout->self >= layout->n_node)
		return "Layout with an impossible number of nodes";
	for (i = 0; i < layout->n_node; i++) {
		const Pangea__LayoutNode *node = layout->node[i];

		if (!control_name_ok(node->name) || !control_name_ok(node->address))
			return "Layout with an impossible text";
		if (node->pfn_start != pfn || !node->pfn_count || node->pfn_count > 1ULL << 36)
			return "Layout with impossible memory";
		if (node->cpu_start != cpu || !node->cpu_count || node->cpu_count > WIRE_CPUS_MAX - cpu)
			return "Layout with impossible CPUs";
		pfn += node->pfn_count;
		cpu += node->cpu_count;
	}
	return NULL;
}

static const char *check_stats(const Pangea__Stats *stats)
{
	if (!stats)
		return NULL;
	if (stats->n_hot > CONTROL_HOT_MAX)
		return "statistics of too many pages";
	for (size_t i = 0; i < stats->n_hot; i++)
		if (!control_name_ok(stats->hot[i]->comm))
			return "statistics with an impossible text";
	return NULL;
}

static const char *check_status(const Pangea__Status *status)
{
	size_t i;

	if (status->n_node > WIRE_NODES_MAX || !control_name_ok(status->state))
		return "Status that cannot be";
	for (i = 0; i < status->n_node; i++) {
		const Pangea__NodeStatus *node = status->node[i];

		if (!control_name_ok(node->name) || !control_name_ok(node->state) || !control_name_ok(node->address) ||
		    !control_name_ok(node->kernel))
			return "Status with an impossible text";
		if (check_stats(node->stats))
			return check_stats(node->stats);
	}
	return NULL;
}

static const char *check_reason(const char *reason)
{
	return text_ok(reason, REASON_MAX) ? NULL : "reason that is no text";
}

static const char *check(const Pangea__Message *m)
{
	switch (m->body_case) {
	case PANGEA__MESSAGE__BODY_JOIN:
		return check_join(m->join);
	case PANGEA__MESSAGE__BODY_REFUSE:
		return check_reason(m->refuse->reason);
	case PANGEA__MESSAGE__BODY_LAYOUT:
		return check_layout(m->layout);
	case PANGEA__MESSAGE__BODY_FAILED:
		return check_reason(m->failed->reason);
	case PANGEA__MESSAGE__BODY_STOP:
		return check_reason(m->stop->reason);
	case PANGEA__MESSAGE__BODY_STATUS:
		return check_status(m->status);
	case PANGEA__MESSAGE__BODY_HEARTBEAT:
		return check_stats(m->heartbeat->stats);
	case PANGEA__MESSAGE__BODY_PREPARED:
	case PANGEA__MESSAGE__BODY_CONNECT:
	case PANGEA__MESSAGE__BODY_READY:
	case PANGEA__MESSAGE__BODY_STATUS_REQUEST:
	case PANGEA__MESSAGE__BODY_STOP_REQUEST:
		return NULL;
	default:
		return "control message of an unknown type";
	}
}

Pangea__Message *control_unpack(const uint8_t *frame, size_t size, const char **why)
{
	Pangea__Message *m;

	*why = "control message that is not as long as it says";
	if (size < CONTROL_PREFIX || control_frame_size(frame) != size)
		return NULL;
	*why = "control message that cannot be decoded";
	m = pangea__message__unpack(NULL, size - CONTROL_PREFIX, frame + CONTROL_PREFIX);
	if (!m)
		return NULL;
	*why = check(m);
	if (!*why)
		return m;
	pangea__message__free_unpacked(m, NULL);
	return NULL;
}

/* --- a machine's key --- */

void control_key_format(const uint8_t key[CONTROL_KEY_SIZE], char text[CONTROL_KEY_TEXT + 1])
{
	size_t i;

	for (i = 0; i < CONTROL_KEY_SIZE; i++)
		sprintf(text + 2 * i, "%02x", key[i]);
}

int control_key_parse(const char *text, uint8_t key[CONTROL_KEY_SIZE])
{
	size_t i;

	if (strspn(text, "0123456789abcdef") != CONTROL_KEY_TEXT || strspn(text + CONTROL_KEY_TEXT, "\r\n") !=
	    strlen(text + CONTROL_KEY_TEXT))
		return -1;
	for (i = 0; i < CONTROL_KEY_SIZE; i++)
		sscanf(text + 2 * i, "%2hhx", &key[i]);
	return 0;
}

bool control_key_same(const uint8_t a[CONTROL_KEY_SIZE], const uint8_t b[CONTROL_KEY_SIZE])
{
	volatile uint8_t difference = 0;
	size_t i;

	for (i = 0; i < CONTROL_KEY_SIZE; i++)
		difference |= a[i] ^ b[i];
	return !difference;
}

/* --- the tools' client --- */

static int send_all(int fd, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	while (size) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= n;
	}
	return 0;
}

/* Bytes received: fewer than size when the peer has closed.  -errno. */
static ssize_t receive_all(int fd, void *bytes, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = recv(fd, (uint8_t *)bytes + have, size - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		have += n;
	}
	return have;
}

static int say_hello(int fd, char *err, size_t err_size)
{
	struct wire_hello hello = {
		.hdr = { .length = sizeof(hello), .type = WIRE_HELLO },
		.magic = WIRE_MAGIC, .version = WIRE_VERSION,
		.purpose = WIRE_PURPOSE_CONTROL, .node = 0xffff,
	};
	struct wire_refuse answer = { 0 };
	ssize_t n = send_all(fd, &hello, sizeof(hello));

	if (!n)
		n = receive_all(fd, &answer.hdr, sizeof(answer.hdr));
	if (n == sizeof(answer.hdr) && answer.hdr.type == WIRE_WELCOME &&
	    answer.hdr.length == sizeof(answer.hdr))
		return 0;
	if (n == sizeof(answer.hdr) && answer.hdr.type == WIRE_REFUSE && answer.hdr.length == sizeof(answer))
		n = receive_all(fd, answer.reason, sizeof(answer.reason));
	answer.reason[sizeof(answer.reason) - 1] = 0;
	if (n == sizeof(answer.reason) && text_ok((char *)answer.reason, sizeof(answer.reason)))
		snprintf(err, err_size, "the daemon refuses: %s", answer.reason);
	else
		snprintf(err, err_size, "the daemon does not answer as a pangead does");
	return -1;
}

int control_open(const char *path, char *err, size_t err_size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval wait = { .tv_sec = CLIENT_WAIT_S };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		snprintf(err, err_size, "%s: the name of a socket has at most %zu bytes", path,
			 sizeof(address.sun_path) - 1);
		return -1;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		snprintf(err, err_size, "%s: %s", path, strerror(errno));
		goto fail;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (!say_hello(fd, err, err_size))
		return fd;
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

int control_send(int fd, const Pangea__Message *message, char *err, size_t err_size)
{
	size_t size = 0;
	uint8_t *frame = control_pack(message, &size);
	int ret = frame ? send_all(fd, frame, size) : -ENOMEM;

	free(frame);
	if (ret)
		snprintf(err, err_size, "cannot ask the daemon: %s", strerror(-ret));
	return ret ? -1 : 0;
}

static Pangea__Message *receive_rest(int fd, const uint8_t prefix[CONTROL_PREFIX], char *err, size_t err_size)
{
	const char *why = "frame of an impossible length";
	size_t size = control_frame_size(prefix);
	Pangea__Message *m = NULL;
	uint8_t *frame = NULL;

	if (size)
		frame = malloc(size);
	if (frame) {
		memcpy(frame, prefix, CONTROL_PREFIX);
		why = "message that ends too soon";
		if (receive_all(fd, frame + CONTROL_PREFIX, size - CONTROL_PREFIX) ==
		    (ssize_t)(size - CONTROL_PREFIX))
			m = control_unpack(frame, size, &why);
	}
	if (!m)
		snprintf(err, err_size, "the daemon sent a %s", why);
	free(frame);
	return m;
}

Pangea__Message *control_receive(int fd, int timeout_ms, char *err, size_t err_size)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	uint8_t prefix[CONTROL_PREFIX];
	ssize_t n;
	int ret;

	do {
		ret = poll(&pfd, 1, timeout_ms);
	} while (ret < 0 && errno == EINTR);
	if (ret == 0) {
		snprintf(err, err_size, "the daemon does not answer");
		return NULL;
	}
	err[0] = 0;
	n = receive_all(fd, prefix, sizeof(prefix));
	if (n == 0 || n == -ECONNRESET)
		return NULL;
	if (n == sizeof(prefix))
		return receive_rest(fd, prefix, err, err_size);
	snprintf(err, err_size, "the daemon's answer ends too soon");
	return NULL;
}
