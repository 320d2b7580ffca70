// SPDX-License-Identifier: GPL-2.0
/*
 * run, shell and up: from options to an exit status.
 *
 * One loop waits for children, signals, the terminal and time.  A machine ends in stages, each with its time:
 *
 *   RUNNING     -> ASKED       a signal came: COMMAND is ended, the machine powers off
 *   RUNNING     -> ENDING      a daemon has ended: the others do so by themselves
 *   ASKED       -> TERMINATED  too slow, a second signal, or nobody there to be asked: SIGTERM to node 0, then
 *                              to what it leaves behind
 *   ENDING      -> TERMINATED  too slow
 *   TERMINATED  -> KILLED      still too slow: SIGKILL
 *
 * advance() is the only one to change the stage.  COMMAND's status comes from its run directory (boot.h):
 * without it the machine has failed, whatever the daemons' exit statuses are.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pangea.h"

enum stage { RUNNING, ASKED, ENDING, TERMINATED, KILLED };

static const int stage_ms[] = { [ASKED] = 4000, [ENDING] = 2500, [TERMINATED] = 2000, [KILLED] = 2000 };
#define FOLLOW_MS 400	/* any stage, for nodes whose node 0 is gone already */

struct machine {
	struct options options;
	struct programs programs;
	struct directory directory;
	struct networks networks;
	struct daemons daemons;
	struct streams streams;
	struct terminal *terminal;
	struct tap tap;
	int stream_fds[3];
	int signal_fd;
	int started_fd;			/* inotify: readable when COMMAND may be starting */
	bool started;			/* it is, and has the terminal */
	enum stage stage;
	int64_t deadline_ms;		/* of the stage, unless RUNNING */
	bool told;			/* node 0 did not end by itself */
	int signal;			/* that ended the machine; 0: none */
	int failed_node;		/* whose daemon failed before node 0's; -1 */
	int status;			/* EXIT_PANGEA after a line, as long as nothing better is known; 0 */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void stage_enter(struct machine *m, enum stage stage)
{
	m->stage = stage;
	m->deadline_ms = now_ms() + (m->daemons.pid[0] ? stage_ms[stage] : FOLLOW_MS);
}

/* The next stage of ending. */
static void advance(struct machine *m)
{
	switch (m->stage) {
	case RUNNING:
		if (m->daemons.pid[0] == 0 || m->failed_node >= 0) {
			stage_enter(m, ENDING);
			return;
		}
		if (boot_ask_to_end(&m->directory)) {
			stage_enter(m, ASKED);
			return;
		}
		/* fall through */
	case ASKED:
	case ENDING:
		m->told = m->daemons.pid[0];
		daemons_terminate(&m->daemons);
		stage_enter(m, TERMINATED);
		return;
	case TERMINATED:
	case KILLED:
		daemons_kill(&m->daemons);
		stage_enter(m, KILLED);
	}
}

static void children_changed(struct machine *m)
{
	daemons_reap(&m->daemons);
	if (m->stage == TERMINATED && !m->daemons.pid[0])
		daemons_terminate(&m->daemons);
	if (m->stage != RUNNING && m->stage != ASKED)
		return;
	for (unsigned i = 1; i < m->daemons.started && m->daemons.pid[0] && m->failed_node < 0; i++)
		if (!m->daemons.pid[i] && m->daemons.status[i] != 0)
			m->failed_node = i;
	if (m->daemons.pid[0] && m->failed_node < 0)
		return;
	m->stage = RUNNING;
	advance(m);
}

static void signal_came(struct machine *m)
{
	struct signalfd_siginfo info;

	if (read(m->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGCHLD:
		children_changed(m);
		break;
	case SIGWINCH:
		if (m->terminal)
			terminal_resize(m->terminal);
		break;
	case SIGCONT:
		if (m->terminal && m->started) {
			terminal_start(m->terminal);
			terminal_resize(m->terminal);
		}
		break;
	default:
		m->signal = info.ssi_signo;
		advance(m);
	}
}

/*
 * The terminal stays as it was until COMMAND takes it, so that ^C works on a machine that waits for its
 * nodes.
 */
static void directory_changed(struct machine *m)
{
	char events[4096];

	if (read(m->started_fd, events, sizeof(events)) < 0 || m->started || !boot_has_started(&m->directory))
		return;
	m->started = true;
	if (m->terminal)
		terminal_start(m->terminal);
}

static int directory_watch(const struct directory *d)
{
	int fd = inotify_init1(IN_CLOEXEC);

	if (fd >= 0 && inotify_add_watch(fd, d->path, IN_CREATE) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int signals_open(void)
{
	static const int handled[] = { SIGCHLD, SIGWINCH, SIGCONT, SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(&set, handled[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int wait_ms(const struct machine *m)
{
	int64_t left;

	if (m->stage == RUNNING)
		return -1;
	left = m->deadline_ms - now_ms();
	return left > 0 ? left : 0;
}

static void loop(struct machine *m)
{
	while (daemons_any(&m->daemons)) {
		struct pollfd p[7] = {
			{ .fd = m->signal_fd, .events = POLLIN },
			{ .fd = m->daemons.ready_fd, .events = POLLIN },
			{ .fd = m->started_fd, .events = POLLIN },
			{ .fd = -1 }, { .fd = -1 },
		};
		int n;

		if (m->terminal)
			terminal_poll(m->terminal, p + 3);
		tap_poll(&m->tap, p + 5);
		n = poll(p, ARRAY_SIZE(p), wait_ms(m));
		if (n == 0) {
			if (m->stage == KILLED)
				return;
			advance(m);
		}
		if (n <= 0)
			continue;
		if (p[0].revents)
			signal_came(m);
		if (p[1].revents && daemons_continue(&m->daemons)) {
			m->status = EXIT_PANGEA;
			advance(m);
		}
		if (p[2].revents)
			directory_changed(m);
		if (m->terminal)
			terminal_relay(m->terminal);
		tap_relay(&m->tap, p + 5);
	}
}

/* What ended a machine that has not run COMMAND to its end; false: node 0 has said so itself, in one line. */
static bool failure_reason(const struct machine *m, char *reason, size_t size)
{
	int status = m->daemons.status[0];
	char words[256];

	if (*reason)	/* the first process's own */
		return true;
	if (!m->told && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_PANGEA)
		return false;
	if (m->failed_node > 0) {
		daemons_last_words(&m->daemons, m->failed_node, words, sizeof(words));
		snprintf(reason, size, "node%d ended: %s", m->failed_node,
			 *words ? words : "it gave no reason");
	} else if (WIFSIGNALED(status)) {
		snprintf(reason, size, "the daemon of node0 was ended by SIG%s",
			 sigabbrev_np(WTERMSIG(status)) ?: "?");
	} else if (!m->daemons.listening) {
		snprintf(reason, size, "the daemon of node0 ended with status %d", WEXITSTATUS(status));
	} else {
		snprintf(reason, size, "the kernel ended before COMMAND did");
	}
	return true;
}

/* Node 0's own line names the logs as this one does. */
static int machine_failed(struct machine *m, char *failure, size_t size)
{
	if (m->daemons.listening && m->daemons.ready_fd >= 0)
		daemons_continue(&m->daemons);
	/* In raw mode node 0's line did not return the carriage. */
	if (m->started && strchr(m->streams.kind, 't'))
		fputc('\r', stderr);
	if (m->status || !failure_reason(m, failure, size))
		*failure = 0;
	if (!m->daemons.kernel_started) {
		directory_remove(&m->directory);
		if (*failure)
			complain("%s", failure);
		return EXIT_PANGEA;
	}
	directory_keep(&m->directory);
	if (*failure)
		complain("%s; its logs are in %s", failure, m->directory.path);
	return EXIT_PANGEA;
}

static int machine_result(struct machine *m)
{
	char failure[1024];
	int status = boot_result(&m->directory, failure, sizeof(failure));

	if (m->signal || !m->daemons.started) {
		directory_remove(&m->directory);
		return m->signal ? 128 + m->signal : m->status;
	}
	if (status < 0 || *failure || m->status)
		return machine_failed(m, failure, sizeof(failure));
	directory_remove(&m->directory);
	return status;
}

static int machine_start(struct machine *m)
{
	char **arguments;
	int err;

	m->daemons = (struct daemons){
		.nodes = m->options.one_node_here ? 1 : m->options.nodes, .ready_fd = -1,
		.options = &m->options, .programs = &m->programs,
		.networks = &m->networks, .directory = &m->directory,
	};
	if (*m->options.tap && tap_open(&m->tap, m->options.tap))
		return EXIT_PANGEA;
	err = boot_configure(&m->options, &m->programs, &m->directory, &m->streams) ?:
	      daemons_key_make(&m->daemons);
	if (err)
		return err;
	arguments = boot_kernel_arguments(&m->options, &m->directory, &m->streams);
	if (!arguments) {
		complain("cannot start a machine: %s", strerror(errno));
		return EXIT_PANGEA;
	}
	if (!m->options.one_node_here) {
		err = networks_make(&m->networks, m->options.nodes);
		if (err)
			return err;
	}
	err = daemons_start(&m->daemons, m->stream_fds, m->tap.kernel, arguments);
	tap_kernel_close(&m->tap);
	return err;
}

static int machine_run(struct machine *m)
{
	int err;

	m->failed_node = -1;
	m->tap = (struct tap){ -1, -1, -1 };
	m->networks.nodes = 0;
	for (unsigned i = 0; i < NODES_MAX; i++)
		m->networks.fd[i] = -1;
	m->signal_fd = signals_open();
	err = programs_find(&m->programs) ?: directory_make(&m->directory, m->options.name);
	if (err)
		return err;
	m->started_fd = directory_watch(&m->directory);
	if (m->signal_fd < 0 || m->started_fd < 0) {
		complain("cannot watch a machine: %s", strerror(errno));
		directory_remove(&m->directory);
		return EXIT_PANGEA;
	}
	m->terminal = terminal_open(&m->streams, m->stream_fds);
	m->status = machine_start(m);
	if (m->terminal)
		terminal_slave_close(m->terminal);
	loop(m);
	networks_close(&m->networks);
	tap_close(&m->tap);
	if (m->terminal)
		terminal_close(m->terminal);
	return machine_result(m);
}

/* Your shell as the host knows it; another root may not have it. */
static char **login_shell(const struct options *o)
{
	static char *argv[3];
	const struct passwd *user = getpwuid(geteuid());
	const char *shell = getenv("SHELL");

	if (!shell || !*shell)
		shell = user && *user->pw_shell ? user->pw_shell : "/bin/sh";
	argv[0] = (char *)(o->root_kind == ROOT_HOST ? shell : "/bin/sh");
	argv[1] = "-l";
	return argv;
}

static int command(const char *subcommand, int argc, char **argv)
{
	struct machine *m = calloc(1, sizeof(*m));
	int status;

	if (!m) {
		complain("out of memory");
		return EXIT_PANGEA;
	}
	status = options_parse(&m->options, subcommand, argc, argv);
	if (status == 0) {
		if (!m->options.command)
			m->options.command = login_shell(&m->options);
		status = machine_run(m);
	}
	options_free(&m->options);
	free(m);
	return status < 0 ? 0 : status;
}

int command_run(int argc, char **argv)
{
	return command("run", argc, argv);
}

int command_shell(int argc, char **argv)
{
	return command("shell", argc, argv);
}

int command_up(int argc, char **argv)
{
	return command("up", argc, argv);
}
