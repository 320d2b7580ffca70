/* SPDX-License-Identifier: GPL-2.0 */
/* Node 0: the kernel process. */
#ifndef PANGEA_KERNEL_H
#define PANGEA_KERNEL_H

#include <sys/types.h>

#include "node.h"
#include "options.h"

struct kernel {
	pid_t pid;		/* 0: not started, or reaped */
	int pidfd;		/* readable when it has ended; -1 */
};

/* Channels of other nodes, as raw sockets whose HELLO has been exchanged; -1: none. */
struct kernel_channels {
	int cpu[WIRE_CPUS_MAX];
	int mm[WIRE_NODES_MAX];
};

/*
 * Give the machine its ends of node 0's own channels and start the kernel with the others.  The descriptors
 * in channels are closed here and set to -1, whatever happens.  0, or -1 with one line in err.
 */
int kernel_start(struct kernel *kernel, const struct options *options, const struct layout *layout,
		 struct machine *machine, struct kernel_channels *channels, char *err, size_t err_size);

/* It has begun to end: its first thread has; the memory of a large one takes a while to be given back. */
bool kernel_is_ending(const struct kernel *kernel);

/* Wait for its end (at once when pidfd is readable).  The wait status. */
int kernel_reap(struct kernel *kernel);

/* Kill it if it runs, and reap it. */
void kernel_kill(struct kernel *kernel);

void kernel_channels_close(struct kernel_channels *channels);

#endif
