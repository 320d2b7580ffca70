/* SPDX-License-Identifier: GPL-2.0 */
/* What this process and its children may still take of this host's memory. */
#ifndef PANGEA_MEMORY_H
#define PANGEA_MEMORY_H

#include <stdint.h>

/* Bytes; UINT64_MAX when nothing tells. */
uint64_t memory_available(void);

#endif
