/* SPDX-License-Identifier: GPL-2.0 */
/* What the transports of net/ share: for them only, users of links include net/link.h. */
#ifndef PANGEA_TRANSPORT_H
#define PANGEA_TRANSPORT_H

#include "link.h"

#define TRANSPORT_QUEUE_MAX	(64u << 20)	/* bytes queued for a peer that does not read */

void transport_init(struct link *link, const struct link_ops *ops, enum wire_purpose purpose,
		    const char *peer);

/* Bytes in iov, which hold whole messages; no header is divided. */
size_t transport_length(const struct iovec *iov, int count, unsigned *messages);

void transport_count_out(struct link *link, unsigned messages, size_t bytes);
void transport_count_in(struct link *link, size_t bytes);

/* The first reason stays.  The caller holds the lock of the link. */
__attribute__((format(printf, 2, 3)))
void transport_set_error(struct link *link, const char *format, ...);

#endif
