// SPDX-License-Identifier: GPL-2.0
/*
 * node: one daemon of a machine that `pangea up` started, here or on another host.  It stays in the
 * foreground and says itself what is wrong; this process passes signals on and keeps its log until it has
 * ended well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pangea.h"

#define GRACE_S 3	/* between SIGTERM and SIGKILL */

struct node_options {
	const char *join, *listen, *name, *key_file;
	char key[CONTROL_KEY_TEXT + 1];
	unsigned cpus;
};

enum { OPT_JOIN = 256, OPT_LISTEN, OPT_CPUS, OPT_NAME, OPT_KEY, OPT_HELP };

static const struct option long_options[] = {
	{ "join", required_argument, NULL, OPT_JOIN },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int address_option(const char **address, const char *option, const char *text)
{
	if (address_check(text))
		return usage_error("node", "--%s %s: not ADDRESS:PORT, as 127.0.0.1:7200", option, text);
	*address = text;
	return 0;
}

static int option_apply(struct node_options *o, int option, char **argv)
{
	switch (option) {
	case OPT_JOIN:
		return address_option(&o->join, "join", optarg);
	case OPT_LISTEN:
		return address_option(&o->listen, "listen", optarg);
	case OPT_CPUS:
		return count_parse("node", "cpus", optarg, CPUS_MAX, &o->cpus);
	case OPT_NAME:
		if (!name_check(optarg))
			return usage_error("node", "--name %s: letters, digits and hyphens, at most 63",
					   optarg);
		o->name = optarg;
		return 0;
	case OPT_KEY:
		o->key_file = optarg;
		return 0;
	case OPT_HELP:
		help_print("node");
		return -1;
	case ':':
		return usage_error("node", "%s needs an argument", argv[optind - 1]);
	default:
		return unknown_option("node", argv);
	}
}

static int key_read(struct node_options *o)
{
	const char *variable = getenv(CONTROL_KEY_VARIABLE);
	uint8_t key[CONTROL_KEY_SIZE];
	char text[128];
	ssize_t n = -1;
	int fd;

	if (!o->key_file && !variable)
		return usage_error("node", "--key FILE is missing, a copy of what 'pangea up' has written");
	if (!o->key_file) {
		if (control_key_parse(variable, key))
			return usage_error("node", CONTROL_KEY_VARIABLE ": not a machine's key");
		control_key_format(key, o->key);
		return 0;
	}
	fd = open(o->key_file, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		complain("--key %s: %s", o->key_file, strerror(errno));
		return EXIT_USAGE;
	}
	close(fd);
	text[n] = 0;
	if (control_key_parse(text, key))
		return usage_error("node", "--key %s: not a machine's key", o->key_file);
	control_key_format(key, o->key);
	return 0;
}

static int node_options_parse(struct node_options *o, int argc, char **argv)
{
	int option, err;

	*o = (struct node_options){ .listen = "127.0.0.1:0", .cpus = 1 };
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		err = option_apply(o, option, argv);
		if (err)
			return err;
	}
	if (optind < argc)
		return usage_error("node", "'%s': this takes options only", argv[optind]);
	return o->join ? key_read(o) : usage_error("node", "--join ADDR:PORT is missing");
}

static _Noreturn void node_exec(const struct node_options *o, const struct programs *p,
				const struct directory *d, int ready, const sigset_t *signals)
{
	char cpus[16], ready_fd[16];
	char *argv[] = {
		(char *)p->daemon, "node", "--join", (char *)o->join, "--listen", (char *)o->listen,
		"--cpus", cpus, "--stub", (char *)p->stub, "--log", (char *)directory_file(d, "node.log"),
		"--ready-fd", ready_fd, o->name ? "--name" : NULL, (char *)o->name, NULL,
	};

	snprintf(cpus, sizeof(cpus), "%u", o->cpus);
	snprintf(ready_fd, sizeof(ready_fd), "%d", ready);
	fcntl(ready, F_SETFD, 0);
	setenv(CONTROL_KEY_VARIABLE, o->key, 1);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	setsid();
	sigprocmask(SIG_UNBLOCK, signals, NULL);
	execv(p->daemon, argv);
	complain("%s: %s", p->daemon, strerror(errno));
	_exit(EXIT_PANGEA);
}

/* The first signal asks it to leave, the next or time makes it. */
static int node_wait(pid_t pid, const sigset_t *signals, int *ended_by)
{
	const struct timespec grace = { .tv_sec = GRACE_S };
	int sig, status;

	*ended_by = 0;
	while (waitpid(pid, &status, WNOHANG) != pid) {
		sig = sigtimedwait(signals, NULL, *ended_by ? &grace : NULL);
		if (sig == SIGCHLD || (sig < 0 && errno == EINTR))
			continue;
		kill(pid, *ended_by ? SIGKILL : SIGTERM);
		if (sig > 0)
			*ended_by = sig;
	}
	return status;
}

/* Has it been part of a machine?  Then its log is worth keeping, and its last line has named it. */
static bool node_had_started(int ready)
{
	char text[128];
	ssize_t n = read(ready, text, sizeof(text) - 1);

	text[n < 0 ? 0 : n] = 0;
	return strstr(text, "started");
}

static int node_result(struct directory *d, int ready, int status, int ended_by)
{
	bool clean = ended_by || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
	bool keep = !clean && node_had_started(ready);

	if (!clean && WIFSIGNALED(status))
		complain("the node's daemon was ended by SIG%s%s%s", sigabbrev_np(WTERMSIG(status)) ?: "?",
			 keep ? "; its log is " : "", keep ? directory_file(d, "node.log") : "");
	if (keep)
		directory_keep(d);
	else
		directory_remove(d);
	if (ended_by)
		return 128 + ended_by;
	return clean ? 0 : EXIT_PANGEA;
}

static int node_run(const struct node_options *o, const struct programs *p, struct directory *d,
		    const sigset_t *signals)
{
	int ready[2], status, ended_by;
	pid_t pid = -1;

	if (pipe2(ready, O_CLOEXEC) == 0)
		pid = fork();
	if (pid < 0) {
		complain("cannot start a process: %s", strerror(errno));
		directory_remove(d);
		return EXIT_PANGEA;
	}
	if (pid == 0)
		node_exec(o, p, d, ready[1], signals);
	close(ready[1]);
	status = node_wait(pid, signals, &ended_by);
	return node_result(d, ready[0], status, ended_by);
}

static void signals_block(sigset_t *signals)
{
	static const int handled[] = { SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT };

	sigemptyset(signals);
	for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(signals, handled[i]);
	sigprocmask(SIG_BLOCK, signals, NULL);
}

int command_node(int argc, char **argv)
{
	struct directory directory;
	struct node_options options;
	struct programs programs;
	int err = node_options_parse(&options, argc, argv);
	sigset_t signals;

	if (err)
		return err < 0 ? 0 : err;
	signals_block(&signals);
	err = programs_find_node(&programs) ?: directory_make(&directory, NULL);
	return err ?: node_run(&options, &programs, &directory, &signals);
}
