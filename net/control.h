/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The control channel's frames (net/control.proto), for both of its sides, and the tools' way to a daemon.
 */
#ifndef PANGEA_CONTROL_H
#define PANGEA_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.pb-c.h"

#define CONTROL_LENGTH_MAX	65536u	/* bytes of one Message */
#define CONTROL_PREFIX		4u	/* bytes of its length in front */
#define CONTROL_NAME_MAX	63u	/* bytes of a node's name or address */
#define CONTROL_HOT_MAX		8	/* pages in one Stats */
#define CONTROL_KEY_SIZE	16u	/* of a machine: who joins must have it */

/* A malloc()ed frame, *size bytes.  NULL: out of memory. */
uint8_t *control_pack(const Pangea__Message *message, size_t *size);

/* Bytes of the frame that begins with prefix, the prefix included; 0: no frame has that length. */
size_t control_frame_size(const uint8_t prefix[CONTROL_PREFIX]);

/*
 * The one check of everything that arrives on a control channel: frame holds size bytes, the prefix
 * included.  NULL with *why set to one line, else a message whose bodies are present, whose texts are
 * printable and bounded, and whose counts are in range; free it with pangea__message__free_unpacked(m,
 * NULL).
 */
Pangea__Message *control_unpack(const uint8_t *frame, size_t size, const char **why);

/* A name that may be shown: UTF-8 without control characters, not too long. */
bool control_name_ok(const char *text);

/* --- a machine's key --- */

#define CONTROL_KEY_VARIABLE	"PANGEA_KEY"	/* in a daemon's environment, as text */
#define CONTROL_KEY_TEXT	(2 * CONTROL_KEY_SIZE)	/* hexadecimal digits */

void control_key_format(const uint8_t key[CONTROL_KEY_SIZE], char text[CONTROL_KEY_TEXT + 1]);
/* A newline may follow the digits.  0, or -1: it is none. */
int control_key_parse(const char *text, uint8_t key[CONTROL_KEY_SIZE]);
/* In a time that does not tell where they differ. */
bool control_key_same(const uint8_t a[CONTROL_KEY_SIZE], const uint8_t b[CONTROL_KEY_SIZE]);

/* --- for tools: blocking --- */

/* Connect to the daemon's UNIX socket.  A descriptor, or -1 with one line in err. */
int control_open(const char *path, char *err, size_t err_size);

/* Send one request.  0, or -1 with one line in err. */
int control_send(int fd, const Pangea__Message *message, char *err, size_t err_size);

/* Wait for a message.  NULL with one line in err; an empty err: the daemon has closed the connection. */
Pangea__Message *control_receive(int fd, int timeout_ms, char *err, size_t err_size);

/* A Message with one body: CONTROL_MESSAGE(m, STATUS_REQUEST, status_request, &request). */
#define CONTROL_MESSAGE(name, CASE, field, body) \
	Pangea__Message name = PANGEA__MESSAGE__INIT; \
	name.body_case = PANGEA__MESSAGE__BODY_##CASE; \
	name.field = (body)

#endif
