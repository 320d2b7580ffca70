// SPDX-License-Identifier: GPL-2.0
/*
 * Job control on a terminal of its own, with the jobs on other CPUs: control-C, control-Z, control-\,
 * window size, background reads and hang-up reach the right process group.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t winches;

static void winch(int number)
{
	(void)number;
	winches++;
}

/* A job in its own process group, in the foreground unless told otherwise. */
static pid_t start_job(int index, bool foreground, bool reads)
{
	int ready[2];
	char byte;
	pid_t pid;

	CHECK(pipe(ready) == 0);
	pid = guest_fork(index);
	if (!pid) {
		CHECK(setpgid(0, 0) == 0);
		signal(SIGTTOU, SIG_IGN);
		if (foreground)
			CHECK(tcsetpgrp(0, getpid()) == 0);
		signal(SIGTTOU, SIG_DFL);
		CHECK(write(ready[1], "", 1) == 1);
		if (reads)
			_exit(read(0, &byte, 1) == 1 ? 8 : 9);
		for (;;)
			;
	}
	CHECK(close(ready[1]) == 0);
	CHECK(read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0);
	return pid;
}

static int wait_status(pid_t pid, int options)
{
	int status;

	CHECK_EQUAL(waitpid(pid, &status, options), pid);
	return status;
}

static void order(int fd, char what)
{
	CHECK(write(fd, &what, 1) == 1);
}

static void expect_order_done(int fd)
{
	char byte;

	CHECK(read(fd, &byte, 1) == 1);
}

/* The session leader; `orders` asks for what must be typed at the terminal. */
static void session(int orders, int typed)
{
	struct winsize size;
	pid_t pid;
	int status;

	signal(SIGTTOU, SIG_IGN);
	signal(SIGWINCH, winch);
	for (int round = 0; round < 3; round++) {
		pid = start_job(round, true, false);
		order(orders, '\003');
		expect_order_done(typed);
		CHECK(WIFSIGNALED(status = wait_status(pid, 0)) && WTERMSIG(status) == SIGINT);
		pid = start_job(round + 1, true, false);
		order(orders, '\032');
		expect_order_done(typed);
		CHECK(WIFSTOPPED(status = wait_status(pid, WUNTRACED)) && WSTOPSIG(status) == SIGTSTP);
		CHECK(kill(-pid, SIGCONT) == 0);
		CHECK(WIFCONTINUED(wait_status(pid, WCONTINUED)));
		order(orders, '\034');
		expect_order_done(typed);
		CHECK(WIFSIGNALED(status = wait_status(pid, 0)) && WTERMSIG(status) == SIGQUIT);
		CHECK(tcsetpgrp(0, getpid()) == 0);
		pid = start_job(round + 2, false, true);
		CHECK(WIFSTOPPED(status = wait_status(pid, WUNTRACED)) && WSTOPSIG(status) == SIGTTIN);
		CHECK(tcsetpgrp(0, pid) == 0 && kill(-pid, SIGCONT) == 0);
		order(orders, '\n');
		expect_order_done(typed);
		CHECK(WIFEXITED(status = wait_status(pid, 0)) && WEXITSTATUS(status) == 8);
		CHECK(tcsetpgrp(0, getpid()) == 0);
	}
	order(orders, 'w');
	expect_order_done(typed);
	CHECK(winches == 1 && ioctl(0, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 99);
	order(orders, 'h');
	for (;;)
		pause();
}

static void serve(int terminal, int orders, int typed)
{
	struct winsize size = { .ws_row = 33, .ws_col = 99 };
	char what;

	while (read(orders, &what, 1) == 1 && what != 'h') {
		if (what == 'w')
			CHECK(ioctl(terminal, TIOCSWINSZ, &size) == 0);
		else
			CHECK(write(terminal, &what, 1) == 1);
		CHECK(write(typed, "", 1) == 1);
	}
	/* Closing the terminal hangs up its session. */
	CHECK(close(terminal) == 0);
}

int main(int argc, char **argv)
{
	int terminal, orders[2], typed[2], status;
	pid_t pid;

	guest_start(argc, argv, "terminal", 0);
	CHECK(pipe(orders) == 0 && pipe(typed) == 0);
	pid = forkpty(&terminal, NULL, NULL, NULL);
	CHECK(pid >= 0);
	if (!pid) {
		dup2(orders[1], 2);
		CHECK(close(orders[0]) == 0 && close(typed[1]) == 0);
		session(orders[1], typed[0]);
	}
	CHECK(close(orders[1]) == 0);
	serve(terminal, orders[0], typed[1]);
	status = wait_status(pid, 0);
	CHECK(WIFSIGNALED(status));
	CHECK_EQUAL(WTERMSIG(status), SIGHUP);
	return guest_ok();
}
