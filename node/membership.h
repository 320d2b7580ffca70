/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who is in the machine: what node 0 (host.c) and the others (member.c) do alike.
 *
 * A machine starts in steps, each begun by node 0 when all nodes have ended the one before:
 *
 *   node k                         node 0
 *   HELLO control, Join      -->   checks; waits until all nodes have joined
 *                            <--   Layout
 *   makes its machine        -->   Prepared; meanwhile node 0 makes its own
 *                            <--   Connect
 *   connects cpu, mm, dsm    -->   Ready
 *                                  starts the kernel
 *
 * From then on Heartbeats both ways.  It ends with Stop, from node 0.
 */
#ifndef PANGEA_MEMBERSHIP_H
#define PANGEA_MEMBERSHIP_H

#include <event2/event.h>

#include "../net/address.h"
#include "../net/control_conn.h"
#include "../net/handshake.h"
#include "node.h"
#include "options.h"

#define HEARTBEAT_MS		250
#define SILENCE_TICKS		6	/* heartbeats missed by a node that is gone */
#define SILENCE_TICKS_START	40	/* while it makes its machine */
#define VERDICT_MS		1000	/* node 0 waits for a cause to show up behind a consequence */
#define JOIN_TICKS		20	/* from a connection to its Join */
#define HANDSHAKE_MS		5000
#define EXIT_BROKEN		125	/* of node 0 when the machine could not start or has broken */

/* Could this host be a node?  0, or EXIT_BROKEN after one line. */
int membership_check_host(const struct options *options);
/*
 * Run this daemon's part until the machine ends.  signal_fd: a signalfd.  The exit status; -N: signal N ended
 * it.
 */
int host_run(const struct options *options, struct event_base *base, int signal_fd);
int member_run(const struct options *options, struct event_base *base, int signal_fd);

/* One line for the user, on stderr as `pangead: ...`, and for the log. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- trouble: the machine's threads tell the loop that something has ended --- */

struct trouble;
struct trouble *trouble_new(struct event_base *base, void (*callback)(void *ctx, const char *reason),
			    void *ctx);
void trouble_free(struct trouble *trouble);	/* after machine_free() */

/* NULL with one line in err. */
struct machine *membership_make_machine(const struct options *options, const struct layout *layout,
					struct trouble *trouble, char *err, size_t err_size);

/* Listen as options say, and tell --ready-fd.  A descriptor, or -1 with one line in err. */
int membership_listen(const struct options *options, struct address *bound, char *err, size_t err_size);
/* Tell --ready-fd that this node is part of a machine: from now on its log is worth reading. */
void membership_started(const struct options *options);

/* --- messages --- */

void membership_send_layout(struct control_conn *conn, const struct layout *layout, unsigned self,
			    const char *const addresses[WIRE_NODES_MAX]);
/* A message that control_unpack() has accepted. */
void membership_take_layout(const Pangea__Layout *message, struct layout *layout,
			    char addresses[WIRE_NODES_MAX][ADDRESS_TEXT_MAX]);
void membership_send_heartbeat(struct control_conn *conn, struct machine *machine);
/* A message and the parts that it points to. */
struct stats_message {
	Pangea__Stats stats;
	Pangea__HotPage page[HOT_SHOWN], *pointer[HOT_SHOWN];
};

/* The message uses texts of stats. */
void membership_stats_to_message(const struct machine_stats *stats, struct stats_message *message);
void membership_stats_from_message(const Pangea__Stats *message, struct machine_stats *stats);
void membership_send_stop(struct control_conn *conn, bool clean, const char *reason);

/* --- this host --- */

/* Number of the signal that has arrived; *name is for messages. */
int membership_read_signal(int signal_fd, const char **name);

#endif
