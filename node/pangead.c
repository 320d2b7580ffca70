// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon of a node: options, log, signals, loop.
 *
 * The main thread runs the loop, in which membership lives (host.c on node 0, member.c elsewhere); the
 * machine has threads of its own.  Signals that end the daemon are blocked in all threads and read from a
 * signalfd by the loop, so the ending is an event like any other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "membership.h"

/* Otherwise a file opened here would be taken for a standard stream. */
static void fill_standard_streams(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int take_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -1;
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* As if it had not been caught: who waits for this process sees which signal it was. */
static void die_of(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	signal(number, SIG_DFL);
	raise(number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(int argc, char **argv)
{
	struct options options;
	struct event_base *base;
	int ret, signal_fd, status = EXIT_BROKEN;

	fill_standard_streams();
	ret = options_parse(&options, argc, argv);
	if (ret > 0)
		return 0;
	if (ret < 0)
		return status;
	ret = log_open(options.check ? "/dev/null" : options.log);
	if (ret) {
		fprintf(stderr, "pangea: --log %s: %s\n", options.log, strerror(-ret));
		return status;
	}
	if (options.check)
		return membership_check_host(&options);
	signal_fd = take_signals();
	base = event_base_new();
	if (signal_fd < 0 || !base) {
		report("cannot start: %s", strerror(errno));
		return status;
	}
	status = options.host ? host_run(&options, base, signal_fd) : member_run(&options, base, signal_fd);
	if (status >= 0)
		log_line(LOG_INFO, "exit status %d", status);
	event_base_free(base);
	close(signal_fd);
	if (status < 0)
		die_of(-status);
	return status;
}
