/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inside of host.c (life and end of the machine), join.c (from nodes to a machine) and status.c (what tools
 * see): node 0's knowledge of the machine.  All of it belongs to the main thread.
 */
#ifndef PANGEA_HOST_H
#define PANGEA_HOST_H

#include <sys/utsname.h>

#include "features.h"
#include "kernel.h"
#include "membership.h"
#include "tools.h"

#define CANDIDATES_MAX	32	/* control connections that are no node yet; one more ends the oldest */

/* Each state follows from the one before, but ENDING from all of them. */
enum host_state { HOST_WAITING, HOST_PREPARING, HOST_CONNECTING, HOST_RUNNING, HOST_ENDING };

enum peer_state { PEER_CANDIDATE, PEER_JOINED, PEER_PREPARED, PEER_READY };

struct host;

/* A node, or what may become one.  Its number is given with the layout, in the order of names. */
struct peer {
	struct peer *next;
	struct host *host;
	enum peer_state state;
	unsigned number;
	struct control_conn *conn;
	unsigned silent;		/* ticks since it was heard; of a candidate since it connected */
	bool dsm, bulk;			/* its channel is attached */
	char from[ADDRESS_TEXT_MAX];
	char name[CONTROL_NAME_MAX + 1], address[CONTROL_NAME_MAX + 1], kernel[CONTROL_NAME_MAX + 1];
	struct machine_stats stats;
};

enum verdict_rank { VERDICT_NONE, VERDICT_MACHINE, VERDICT_CRASH, VERDICT_FINAL };

struct verdict {
	enum verdict_rank rank;
	int status;			/* as host_run() returns it */
	bool clean;
	char reason[512];
};

struct host {
	const struct options *options;
	struct event_base *base;
	enum host_state state;
	struct verdict verdict;
	unsigned deferrals;		/* of the verdict */
	struct layout layout;
	struct features features;
	struct utsname uts;
	struct peer *peers;		/* in the order of connecting, with the candidates */
	struct peer *node[WIRE_NODES_MAX];	/* by number, from PREPARING on; NULL: itself, or gone */
	unsigned candidates;
	struct kernel_channels channels;
	struct kernel kernel;
	int64_t started_ms;
	struct trouble *trouble;
	struct machine *machine;
	struct machine_stats stats;	/* its, when they were asked for last */
	struct acceptor *acceptor;
	struct tools *tools;
	struct event *signal, *tick, *judge, *farewell, *kernel_end;
};

int64_t host_now_ms(void);

/* --- host.c --- */

/*
 * Something has ended that the machine cannot go on without, or the machine has ended.  FINAL: it ends now,
 * else in a moment, with the verdict of the highest rank by then.  May free candidates.
 */
void host_conclude(struct host *h, enum verdict_rank rank, int status, bool clean, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
void host_start_kernel(struct host *h);
void host_peer_free(struct peer *p);

/* --- join.c --- */

/* A candidate's Join: takes it in, or refuses and frees it. */
void host_join(struct peer *p, const Pangea__Join *message);
void host_lay_out(struct host *h);
void host_peer_prepared(struct peer *p);
void host_peer_ready(struct peer *p);
/* What a connection's HELLO asks for: NULL to welcome it. */
const char *host_judge(void *ctx, const struct wire_hello *hello);
void host_attach_dsm(struct host *h, int fd, struct peer *p, enum wire_purpose purpose);

/* --- status.c --- */

extern const struct tools_ops host_tools_ops;

#endif
