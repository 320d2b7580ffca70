/* SPDX-License-Identifier: GPL-2.0 */
/* Who gets which memory and CPUs. Pure. */
#ifndef PANGEA_LAYOUT_H
#define PANGEA_LAYOUT_H

#include "node.h"

#define LAYOUT_UNIT		(128ULL << 20)	/* bytes; the kernel hands out memory in such sections */
#define LAYOUT_MIN_HOST		(256ULL << 20)	/* of node 0 */
#define LAYOUT_MIN_NODE		(128ULL << 20)	/* of any other */
#define LAYOUT_MAX		(1ULL << 48)	/* of a machine */

/*
 * Fill in everything but self, machine and names.  memory is rounded down to LAYOUT_UNIT.  0, or -1 with
 * one line in err when that is too little.
 */
int layout_divide(struct layout *layout, unsigned nodes, unsigned cpus_each, uint64_t memory,
		  char *err, size_t err_size);

static inline uint64_t layout_bytes(const struct layout_node *node)
{
	return node->pfn_count * NODE_PAGE_SIZE;
}

#endif
