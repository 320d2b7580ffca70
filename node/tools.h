/* SPDX-License-Identifier: GPL-2.0 */
/* Node 0's UNIX socket, on which tools ask for the status of the machine or for its end. */
#ifndef PANGEA_TOOLS_H
#define PANGEA_TOOLS_H

#include <event2/event.h>

#include "../net/control_conn.h"

struct tools;

struct tools_ops {
	/* Send a Status to conn. */
	void (*status)(void *ctx, struct control_conn *conn);
	/* Begin the end of the machine; tools_free() later tells the tool that it is complete. */
	void (*stop)(void *ctx);
};

/* Make the socket at path, in place of one that a daemon left behind.  NULL with one line in err. */
struct tools *tools_new(struct event_base *base, const char *path, const struct tools_ops *ops, void *ctx,
			char *err, size_t err_size);
/* Removes the socket and closes all connections.  Not for use within the callbacks. */
void tools_free(struct tools *tools);

#endif
