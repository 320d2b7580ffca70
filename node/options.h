/* SPDX-License-Identifier: GPL-2.0 */
/* The daemon's command line. */
#ifndef PANGEA_OPTIONS_H
#define PANGEA_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "../net/control.h"

struct options {
	bool host;			/* this is node 0 */
	bool check;			/* no node: only see whether this host could be one */
	unsigned nodes, cpus;		/* cpus: of each node */
	uint64_t memory;		/* bytes, of all nodes */
	const char *listen;		/* ADDR:PORT */
	const char *join;		/* ADDR:PORT of node 0 */
	const char *control;		/* path of the UNIX socket */
	const char *kernel, *stub;	/* programs */
	unsigned start_ms;		/* how long programs of other nodes' CPUs run on the kernel host first */
	bool start_follows_calls;	/* and longer, while they make many system calls */
	const char *log;
	char name[64];			/* for people */
	uint8_t key[CONTROL_KEY_SIZE];	/* of the machine, from the environment */
	bool stdio;			/* hand descriptors 0, 1, 2 to the kernel as 10, 11, 12 */
	int ready_fd;			/* written when listening; -1: none */
	int net_fd;			/* handed to the kernel as 13; -1: none */
	char **kernel_arguments;	/* NULL-terminated */
};

/*
 * 0; 1: --help was asked for and printed; -1: wrong, said in one line on stderr.  What can be known to be
 * impossible without asking another node is refused here.
 */
int options_parse(struct options *o, int argc, char **argv);

#endif
