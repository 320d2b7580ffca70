// SPDX-License-Identifier: GPL-2.0
/*
 * Memory is divided evenly in units; what cannot be divided goes to node 0, which also holds the kernel.
 *
 * When the whole is at least the sum of the least shares, every share is: an even share below two units
 * leaves all of the rest, which is then at least two units, to node 0.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"

int layout_divide(struct layout *layout, unsigned nodes, unsigned cpus_each, uint64_t memory,
		  char *err, size_t err_size)
{
	uint64_t least = LAYOUT_MIN_HOST + (nodes - 1) * LAYOUT_MIN_NODE;
	uint64_t share, pfn = 0;
	unsigned i;

	if (memory < least) {
		snprintf(err, err_size, "%" PRIu64 "M of memory are too little for %u node%s: the least is %"
			 PRIu64 "M", memory >> 20, nodes, nodes == 1 ? "" : "s", least >> 20);
		return -1;
	}
	memory -= memory % LAYOUT_UNIT;
	share = memory / nodes / LAYOUT_UNIT * LAYOUT_UNIT;
	memset(layout, 0, sizeof(*layout));
	layout->nodes = nodes;
	layout->cpus = nodes * cpus_each;
	layout->frames = memory / NODE_PAGE_SIZE;
	for (i = 0; i < nodes; i++) {
		struct layout_node *node = &layout->node[i];

		node->pfn_start = pfn;
		node->pfn_count = (i ? share : memory - (nodes - 1) * share) / NODE_PAGE_SIZE;
		node->cpu_start = i * cpus_each;
		node->cpu_count = cpus_each;
		pfn += node->pfn_count;
	}
	return 0;
}
