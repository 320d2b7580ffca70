// SPDX-License-Identifier: GPL-2.0
/*
 * Starting, watching and ending pangeads.
 *
 * Node 0 comes first; when it listens it writes its address into a pipe, and then the others are started to
 * join it there; when the kernel runs it writes "started".  Each is in a session of its own, so that ^C is ours to handle, and gets SIGTERM when this
 * process dies, however that happens.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pangea.h"

#define ARGUMENTS_MAX	48
#define READY_FD	3	/* in the daemon of node 0 */
#define NET_FD		4	/* likewise */

/* Moves the streams to 0, 1, 2; none of them may be overwritten before it has been moved. */
static int streams_place(const int streams[3])
{
	int moved[3];

	for (int i = 0; i < 3; i++) {
		moved[i] = fcntl(streams[i], F_DUPFD_CLOEXEC, 10);
		if (moved[i] < 0)
			return -errno;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(moved[i], i) < 0)
			return -errno;
	return 0;
}

static _Noreturn void daemon_exec(const struct daemons *d, unsigned node, pid_t parent, const int streams[3],
				  int ready, int net, char **argv)
{
	sigset_t none;
	int network = d->networks->fd[node];

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_PANGEA);
	setsid();
	if (ready >= 0)
		ready = fcntl(ready, F_DUPFD_CLOEXEC, 10);
	if (net >= 0)
		net = fcntl(net, F_DUPFD_CLOEXEC, 10);
	if (network >= 0 && setns(network, CLONE_NEWNET) < 0) {
		complain("node %u: cannot enter its network: %s", node, strerror(errno));
		_exit(EXIT_PANGEA);
	}
	setenv(CONTROL_KEY_VARIABLE, d->key, 1);
	if (streams_place(streams) == 0 && (ready < 0 || dup2(ready, READY_FD) >= 0) &&
	    (net < 0 || dup2(net, NET_FD) >= 0))
		execv(d->programs->daemon, argv);
	complain("%s: %s", d->programs->daemon, strerror(errno));
	_exit(EXIT_PANGEA);
}

static int daemon_start(struct daemons *d, unsigned node, const int streams[3], int ready, int net,
			char **argv)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0) {
		complain("cannot start a process: %s", strerror(errno));
		return EXIT_PANGEA;
	}
	if (pid == 0)
		daemon_exec(d, node, parent, streams, ready, net, argv);
	d->pid[node] = pid;
	d->started++;
	return 0;
}

/* Where a node listens: on a free port of loopback, or the usual one in a namespace of its own. */
static void listen_address(const struct daemons *d, unsigned node, char *text, size_t size)
{
	char host[32] = "127.0.0.1";
	bool own = d->networks->fd[node] >= 0;

	if (own)
		networks_address(node, host, sizeof(host));
	snprintf(text, size, "%s:%u", host, own ? NODE_PORT : 0);
}

int daemons_key_make(struct daemons *d)
{
	const char *path = directory_file(d->directory, KEY_FILE);
	uint8_t key[CONTROL_KEY_SIZE];
	int fd, n;

	if (getrandom(key, sizeof(key), 0) != sizeof(key)) {
		complain("no random numbers: %s", strerror(errno));
		return EXIT_PANGEA;
	}
	control_key_format(key, d->key);
	if (!d->options->one_node_here)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	n = fd < 0 ? -1 : dprintf(fd, "%s\n", d->key);
	if (n < 0)
		complain("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return n < 0 ? EXIT_PANGEA : 0;
}

int daemons_start(struct daemons *d, const int streams[3], int net, char **kernel_arguments)
{
	const struct options *o = d->options;
	char nodes[16], cpus[16], memory[32], listen[64], ready_fd[16], net_fd[16];
	char *argv[ARGUMENTS_MAX] = {
		(char *)d->programs->daemon, "host", "--nodes", nodes, "--cpus", cpus, "--mem", memory,
		"--listen", (char *)o->listen ?: listen,
		"--control", (char *)directory_file(d->directory, "control"),
		"--kernel", (char *)d->programs->kernel, "--stub", (char *)d->programs->stub,
		"--log", (char *)directory_file(d->directory, "node0.log"), "--ready-fd", ready_fd, "--stdio",
	};
	unsigned count = 0;
	int ready[2], err;

	while (argv[count])
		count++;
	if (!o->one_node_here) {
		argv[count++] = "--name";
		argv[count++] = "node0";
	}
	if (net >= 0) {
		argv[count++] = "--net-fd";
		argv[count++] = net_fd;
	}
	argv[count++] = "--";
	for (; *kernel_arguments && count < ARGUMENTS_MAX - 1; kernel_arguments++)
		argv[count++] = *kernel_arguments;
	snprintf(nodes, sizeof(nodes), "%u", o->nodes);
	snprintf(cpus, sizeof(cpus), "%u", o->cpus);
	snprintf(memory, sizeof(memory), "%lluK", (unsigned long long)o->memory >> 10);
	snprintf(ready_fd, sizeof(ready_fd), "%d", READY_FD);
	snprintf(net_fd, sizeof(net_fd), "%d", NET_FD);
	listen_address(d, 0, listen, sizeof(listen));
	if (pipe2(ready, O_CLOEXEC) < 0 || fcntl(ready[0], F_SETFL, O_NONBLOCK) < 0) {
		complain("cannot make a pipe: %s", strerror(errno));
		return EXIT_PANGEA;
	}
	err = daemon_start(d, 0, streams, ready[1], net, argv);
	close(ready[1]);
	d->ready_fd = ready[0];
	return err;
}

static int node_start(struct daemons *d, unsigned node, const char *join)
{
	char cpus[16], listen[64], name[16], file[32], log[PATH_MAX];
	char *argv[] = {
		(char *)d->programs->daemon, "node", "--join", (char *)join, "--listen", listen,
		"--cpus", cpus, "--stub", (char *)d->programs->stub, "--log", log, "--name", name, NULL,
	};
	int streams[3], err;

	snprintf(cpus, sizeof(cpus), "%u", d->options->cpus);
	snprintf(name, sizeof(name), "node%u", node);
	listen_address(d, node, listen, sizeof(listen));
	snprintf(file, sizeof(file), "%s.log", name);
	snprintf(log, sizeof(log), "%s", directory_file(d->directory, file));
	snprintf(file, sizeof(file), "%s.err", name);
	streams[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	streams[1] = streams[0];
	streams[2] = open(directory_file(d->directory, file), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			  0600);
	if (streams[0] < 0 || streams[2] < 0) {
		complain("%s: %s", directory_file(d->directory, file), strerror(errno));
		return EXIT_PANGEA;
	}
	err = daemon_start(d, node, streams, -1, -1, argv);
	close(streams[0]);
	close(streams[2]);
	return err;
}

/* Node 0 listens. */
static int nodes_start(struct daemons *d, const char *join)
{
	int err = 0;

	d->listening = true;
	if (d->options->one_node_here && d->options->nodes > 1 && isatty(STDERR_FILENO))
		complain("%s waits for %u more; on each of their hosts: pangea node --cpus %u --join %s --key "
			 "FILE, a copy of %s", d->directory->name, d->options->nodes - 1, d->options->cpus, join,
			 directory_file(d->directory, KEY_FILE));
	for (unsigned i = 1; i < d->nodes && !err; i++)
		err = node_start(d, i, join);
	return err;
}

int daemons_continue(struct daemons *d)
{
	char text[128], *rest = text, *line;
	ssize_t n = read(d->ready_fd, text, sizeof(text) - 1);
	int err = 0;

	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0) {	/* it has said all, or is ending */
		close(d->ready_fd);
		d->ready_fd = -1;
		return 0;
	}
	text[n] = 0;
	while (!err && (line = strsep(&rest, "\n")) && *line) {
		if (d->listening)
			d->kernel_started = true;
		else
			err = nodes_start(d, line);
	}
	return err;
}

void daemons_reap(struct daemons *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < d->nodes; i++) {
			if (d->pid[i] != pid)
				continue;
			d->pid[i] = 0;
			d->status[i] = status;
		}
	}
}

bool daemons_any(const struct daemons *d)
{
	for (unsigned i = 0; i < d->nodes; i++)
		if (d->pid[i])
			return true;
	return false;
}

void daemons_kill(const struct daemons *d)
{
	for (unsigned i = 0; i < d->nodes; i++)
		if (d->pid[i])
			kill(d->pid[i], SIGKILL);
}

/* A node that went before node 0 knows why would be a failure to it. */
void daemons_terminate(const struct daemons *d)
{
	for (unsigned i = 0; i < (d->pid[0] ? 1 : d->nodes); i++)
		if (d->pid[i])
			kill(d->pid[i], SIGTERM);
}

/* Its own "pangead: " in front would be one name too many. */
void daemons_last_words(const struct daemons *d, unsigned node, char *line, size_t size)
{
	char file[32], words[512] = "";
	const char *text = words;
	FILE *f;

	line[0] = 0;
	snprintf(file, sizeof(file), "node%u.err", node);
	f = fopen(directory_file(d->directory, file), "re");
	if (!f)
		return;
	while (fgets(words, sizeof(words), f))
		;
	fclose(f);
	words[strcspn(words, "\n")] = 0;
	if (!strncmp(words, "pangea", strlen("pangea")) && strstr(words, ": "))
		text = strstr(words, ": ") + 2;
	snprintf(line, size, "%s", text);
}
