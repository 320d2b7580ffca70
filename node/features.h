/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What user programs can see of this host's CPUs: a process moves only between nodes that show it the same.
 */
#ifndef PANGEA_FEATURES_H
#define PANGEA_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../migrate/xstate.h"

#define FEATURE_WORDS 9

struct features {
	uint32_t words[FEATURE_WORDS];
	uint64_t xcr0;
	uint32_t xstate_end[XSTATE_COMPONENTS];
	uint32_t xsave_size;
};

void features_read(struct features *features);

/* True when a host with `features` lacks something of `wanted`; text names it. */
bool features_missing(const struct features *features, const struct features *wanted,
		      char *text, size_t size);

#endif
