/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the command pangea(1) know of each other.
 *
 *   pangea.c     subcommands, help
 *   options.c    options of run, shell and up; sizes; checks that need no machine
 *   run.c        run, shell and up: from options to an exit status
 *   node.c       node: one daemon of a machine that was started on another host
 *   status.c     status and stop
 *   directory.c  run directories: one a machine, and finding them again
 *   boot.c       what the kernel and the machine's first process are told
 *   daemons.c    starting, watching and ending pangeads
 *   netns.c      a network namespace a node, joined by a bridge (root only)
 *   tap.c        the machine's network device: frames to and from a tap device
 *   terminal.c   the caller's terminal: raw mode, the pseudo-terminal behind it, window size
 */
#ifndef PANGEA_H
#define PANGEA_H

#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../net/control.h"

#ifndef PANGEA_VERSION
#define PANGEA_VERSION "0.1"
#endif

/* Exit statuses beside COMMAND's own. */
#define EXIT_USAGE	2
#define EXIT_PANGEA	125	/* the machine could not be made, or broke */

#define NODES_MAX	16
#define CPUS_MAX	64	/* of all nodes */
#define ADDRESS_MAX	64	/* bytes of ADDR:PORT */
#define NODE_PORT	7200	/* of every node in a namespace of its own */

/* What nodes must know to join a machine (net/control.h); never in a command line. */
#define KEY_FILE	"key"	/* in the run directory of `up` */

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* One line on standard error, "pangea: " in front. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with where to read on; returns EXIT_USAGE. */
int usage_error(const char *subcommand, const char *format, ...) __attribute__((format(printf, 2, 3)));
void help_print(const char *subcommand);

/* --- options.c --- */

enum root_kind { ROOT_HOST, ROOT_DIRECTORY, ROOT_IMAGE };

struct options {
	const char *subcommand;
	unsigned nodes, cpus;		/* cpus: of each node */
	uint64_t memory;		/* bytes, of all nodes */
	enum root_kind root_kind;
	char *root;			/* absolute, unless ROOT_HOST */
	char **rw;			/* absolute, NULL at the end */
	const char *name;		/* NULL: any free one */
	const char *listen;		/* up: ADDR:PORT of node 0 */
	char tap[IFNAMSIZ];		/* network device of the host; "": none */
	const char *net_address;	/* of the machine there, ADDRESS/BITS[,GATEWAY]; NULL: none */
	bool one_node_here;		/* up: the other nodes are started by hand */
	char **command;			/* NULL at the end; NULL: a login shell */
};

/* Returns 0, or an exit status after one line; -1: help was printed. */
int options_parse(struct options *o, const char *subcommand, int argc, char **argv);
void options_free(struct options *o);
/* 0, or -EINVAL / -ERANGE. */
int size_parse(const char *text, uint64_t *bytes);
/* ADDR:PORT: 0, or -EINVAL. */
int address_check(const char *text);
/* These two: 0, or an exit status after one line. */
int count_parse(const char *subcommand, const char *option, const char *text, unsigned max, unsigned *count);
int unknown_option(const char *subcommand, char **argv);
bool name_check(const char *name);

/* --- directory.c --- */

struct directory {
	char path[PATH_MAX / 2];
	char name[64];
	int lock;		/* held as long as the machine is ours; -1 */
};

/* Makes the run directory of a new machine.  0, or an exit status after one line. */
int directory_make(struct directory *d, const char *name);
/* "path/file" in a static ring of buffers. */
const char *directory_file(const struct directory *d, const char *file);
void directory_remove(struct directory *d);
/* Leaves the logs for the user to read, but nothing of his environment and no key. */
void directory_keep(struct directory *d);
/* Finds a running machine by name, or the only one.  0, or an exit status after one line. */
int directory_find(struct directory *d, const char *name);
/* The process that has the machine's directory; 0: none. */
pid_t directory_owner(const struct directory *d);
/* Waits until the machine that directory_find() found is gone; false: it is still there. */
bool directory_wait_gone(const struct directory *d, unsigned seconds);

/* --- boot.c --- */

struct programs {
	char daemon[PATH_MAX], stub[PATH_MAX], init[PATH_MAX], kernel[PATH_MAX];
};

/* Which of descriptors 0, 1, 2 are what (tools/boot.h). */
struct streams {
	char kind[4];
};

/* Programs beside this one, or where they are installed.  0, or an exit status after one line. */
int programs_find(struct programs *p);
/* What of the host's programs only `pangea node` needs. */
int programs_find_node(struct programs *p);
/* Writes the configuration for pangea-init.  0, or an exit status after one line. */
int boot_configure(const struct options *o, const struct programs *p, const struct directory *d,
		   const struct streams *streams);
/* The kernel's arguments, malloc()ed, NULL at the end; NULL: out of memory. */
char **boot_kernel_arguments(const struct options *o, const struct directory *d,
			     const struct streams *streams);
/* What pangea-init wrote back: its status; -1 when it did not end.  failure gets its line, or is emptied. */
int boot_result(const struct directory *d, char *failure, size_t size);
/* COMMAND is about to be started, or has been. */
bool boot_has_started(const struct directory *d);
/* Asks the machine's first process to end; false when it is not there to be asked. */
bool boot_ask_to_end(const struct directory *d);

/* --- netns.c --- */

struct networks {
	unsigned nodes;
	int fd[NODES_MAX];	/* namespace of each node; -1: the caller's */
};

/* Makes the namespaces; for an ordinary user there are none.  0, or an exit status after one line. */
int networks_make(struct networks *n, unsigned nodes);
void networks_close(struct networks *n);
/* Address of a node that has a namespace. */
void networks_address(unsigned node, char *text, size_t size);

/* --- tap.c --- */

struct tap {
	int device, socket;	/* what is relayed; -1: no network */
	int kernel;		/* the other end of socket; -1 */
};

/* ADDRESS/BITS[,GATEWAY] of IPv4 */
bool tap_address_check(const char *text);
/* Takes the device.  0, or an exit status after one line. */
int tap_open(struct tap *t, const char *name);
/* Node 0 has its copy. */
void tap_kernel_close(struct tap *t);
/* What to poll() for, and what to do after it. */
void tap_poll(const struct tap *t, struct pollfd p[2]);
void tap_relay(struct tap *t, const struct pollfd p[2]);
void tap_close(struct tap *t);

/* --- daemons.c --- */

/* The pangeads of a machine that run here. */
struct daemons {
	unsigned nodes;			/* of those, node 0 first */
	unsigned started;
	pid_t pid[NODES_MAX];		/* 0: not started, or ended */
	int status[NODES_MAX];		/* wait status of those that have ended */
	bool listening;			/* node 0 */
	bool kernel_started;
	int ready_fd;			/* where node 0 says so; -1 */
	char key[CONTROL_KEY_TEXT + 1];
	const struct options *options;
	const struct programs *programs;
	const struct networks *networks;
	const struct directory *directory;
};

/* A new key; in a file for nodes on other hosts, if there are such.  0, or an exit status after one line. */
int daemons_key_make(struct daemons *d);
/* Starts node 0, whose kernel gets the streams and net (-1: none).  0, or an exit status after one line. */
int daemons_start(struct daemons *d, const int streams[3], int net, char **kernel_arguments);
/* ready_fd is readable: when node 0 listens, starts the others.  0; an exit status after one line. */
int daemons_continue(struct daemons *d);
/* Takes note of children that have ended. */
void daemons_reap(struct daemons *d);
bool daemons_any(const struct daemons *d);
/* Node 0, which tells the others; when it has gone, all that are left. */
void daemons_terminate(const struct daemons *d);
void daemons_kill(const struct daemons *d);
/* Last line that a node's daemon (not node 0's) wrote on its standard error; "" if none. */
void daemons_last_words(const struct daemons *d, unsigned node, char *line, size_t size);

/* --- terminal.c --- */

struct terminal;

/*
 * First of all: notes which streams the caller has closed and puts /dev/null there, so that nothing opened
 * later takes their numbers.
 */
void streams_note(void);
/*
 * Sorts the streams and says which descriptors the machine is to get for them.  NULL: no terminal to take
 * over.
 */
struct terminal *terminal_open(struct streams *streams, int fds[3]);
/* COMMAND takes the terminal: raw mode until terminal_close(), whatever happens; again after SIGCONT. */
void terminal_start(struct terminal *t);
/* The daemons have their copies of the machine's end. */
void terminal_slave_close(struct terminal *t);
void terminal_resize(struct terminal *t);
/* What to poll() for, and what to do after it. */
void terminal_poll(struct terminal *t, struct pollfd p[2]);
void terminal_relay(struct terminal *t);
/* Shows what is still on its way and restores the terminal. */
void terminal_close(struct terminal *t);

/* --- subcommands: argv[0] is the subcommand's name; the exit status --- */

int command_run(int argc, char **argv);
int command_shell(int argc, char **argv);
int command_up(int argc, char **argv);
int command_node(int argc, char **argv);
int command_status(int argc, char **argv);
int command_stop(int argc, char **argv);

#endif
