/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of pangead know of each other.
 *
 *   pangead.c     options, the loop, signals, ending
 *   membership.c  who is in the machine: join, layout, heartbeat, status (control channel)
 *   kernel.c      node 0 only: starting and watching the kernel process
 *   machine.c     this node's share of the machine: owns the parts below and their threads
 *   executor.c    one thread per CPU of this node: drives the CPU's user half
 *   mm.c          address spaces that have a stub on this node, and their mapping tables
 *   stub.c        the program that a stub process executes (freestanding; stub.h)
 *   pager.c       the frame cache: the only memory system calls
 *   hot.c         which pages miss most
 *   schedule.c    which of the host's CPUs runs a thread, and how soon
 *   peers.c       dsm links: carries frames and messages between dsm/ and net/
 *
 * membership.c makes the layout and hands over connected links; machine.c reports trouble through
 * machine_config.failed.  Nothing below machine.c knows of libevent or protobuf.
 */
#ifndef PANGEA_NODE_H
#define PANGEA_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "../net/link.h"
#include "hot.h"

#define NODE_PAGE_SIZE 4096u

/* The machine as agreed by all nodes at its start. */
struct layout_node {
	uint64_t pfn_start, pfn_count;	/* frames at home there */
	unsigned cpu_start, cpu_count;	/* Linux CPUs there */
	char name[64];			/* for people */
};

struct layout {
	unsigned self, nodes;
	unsigned cpus;			/* of all nodes */
	uint64_t frames;		/* of all nodes */
	uint8_t machine[16];
	struct layout_node node[WIRE_NODES_MAX];
};

struct machine;

struct machine_config {
	struct layout layout;
	char stub_path[4096];		/* the stub program */
	bool starts;			/* node 0: CPUs of other nodes start programs here (ssi/overlay/arch/um/ssi/start.c) */
	/*
	 * Something ended that the machine cannot go on without; reason is one line.  Any thread; must not
	 * block and must not call back into the machine.
	 */
	void (*failed)(void *ctx, const char *reason);
	void *ctx;
};

struct machine_stats {
	uint64_t stubs;				/* address spaces that have a stub here */
	uint64_t runs, interrupts;		/* RUN messages executed; runs that were interrupted */
	uint64_t user_ns;			/* time that user code ran here */
	uint64_t frames_present;		/* frames held here, in pages of 4 KiB */
	uint64_t read_miss, write_miss, upgrade;	/* of this node's threads */
	uint64_t page_in, page_out, zero_in, invalidated;
	uint64_t bytes_in, bytes_out;		/* of dsm links */
	uint64_t kernel_bytes_in, kernel_bytes_out;	/* of cpu and mm links; node 0's are no network's */
	uint64_t handoff_ns;			/* time that executors spent on runs, less user_ns; map_ns is a part of it */
	uint64_t maps, map_ns;			/* times that mappings of a stub were changed; on node 0 by the kernel too */
	uint64_t asks, ask_ns;			/* frames asked of other nodes, and until they came */
	uint64_t waits, wait_ns;		/* of user code for frames, which is a part of user_ns */
	uint64_t wait_half_ns, wait_most_ns;	/* half of these waits took less, and 99 of 100 */
	uint64_t kernel_waits, kernel_wait_ns;	/* of the kernel for frames */
	unsigned hot_count;			/* pages that missed most, in order */
	struct hot_page hot[HOT_SHOWN];
};

/*
 * Create the frame cache and start the node's threads.  Checks first what the host must give
 * (userfaultfd features, vm.max_map_count, shmem_enabled) and writes one line to err[err_size] when something is
 * missing.  Returns NULL on failure.  Called once, before any link is attached.
 */
struct machine *machine_new(const struct machine_config *config, char *err, size_t err_size);

/* Hand over connected links whose HELLO has been exchanged.  Any thread.  0 or -errno. */
int machine_attach_dsm(struct machine *m, unsigned peer, struct link *link);	/* purpose DSM or BULK */
/* A CPU of this node, or on node 0 one that starts programs there. */
int machine_attach_cpu(struct machine *m, unsigned cpu, struct link *link);
int machine_attach_mm(struct machine *m, struct link *link);

/* Node 0: descriptors that the kernel process inherits. */
int machine_frame_fd(const struct machine *m);
int machine_rights_fd(const struct machine *m);
int machine_arena_fd(const struct machine *m);
/* Node 0: start serving the kernel's own faults; fd: our end of ssi_boot.pager_fd.  Takes the fd. */
int machine_attach_kernel(struct machine *m, int fd);

/* false: they are not to be had soon (0.1 s), and stats is as it was. */
bool machine_get_stats(struct machine *m, struct machine_stats *stats);

/* Let the calling process, and the threads that it will start, run soon after they are woken. */
void shorten_slices(void);

/* Ends all stubs and threads and frees everything; the links given are shut down and freed too. */
void machine_free(struct machine *m);

#endif
