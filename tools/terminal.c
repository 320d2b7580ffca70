// SPDX-License-Identifier: GPL-2.0
/*
 * The caller's terminal.
 *
 * When standard output is a terminal, COMMAND gets a terminal too, with job control: the machine's console
 * on a pseudo-terminal whose other end is relayed here, the caller's terminal being in raw mode meanwhile. 
 * The pseudo-terminal keeps the kernel's hands (modes, O_NONBLOCK, the controlling session that window
 * sizes need) off what the caller's shell goes on using.
 *
 * When standard output is no terminal the command is part of a pipeline or writes a file; then another
 * program may own the terminal (a pager, say), so its modes are left alone, and standard input and error
 * are passed as they are, like any other stream.
 *
 * However this process ends, short of SIGKILL, the terminal's modes are restored first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "pangea.h"

struct flow {
	int from, to;
	size_t start, end;	/* of what is in the buffer */
	bool ended;
	char buffer[16384];
};

struct terminal {
	int tty;		/* the caller's, opened anew: its flags are ours */
	int master, slave;
	bool raw;		/* and so what is typed is COMMAND's */
	struct flow in, out;	/* tty to master, master to tty */
};

static bool stream_closed[3];	/* by the caller */
static struct termios modes_saved;
static int modes_tty = -1;	/* terminal whose modes must be restored; -1: none */

static void modes_restore(void)
{
	int tty = modes_tty;

	modes_tty = -1;
	if (tty >= 0)
		tcsetattr(tty, TCSADRAIN, &modes_saved);
}

static void crashed(int sig)
{
	modes_restore();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void modes_guard(void)
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	struct sigaction action = { .sa_handler = crashed };

	for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], &action, NULL);
	atexit(modes_restore);
}

static bool same_terminal(int fd, const struct stat *terminal)
{
	struct stat st;

	return isatty(fd) && fstat(fd, &st) == 0 && st.st_rdev == terminal->st_rdev;
}

void streams_note(void)
{
	for (int i = 0; i < 3; i++) {
		stream_closed[i] = fcntl(i, F_GETFD) < 0;
		if (stream_closed[i] && open("/dev/null", O_RDWR) != i)
			_exit(EXIT_PANGEA);
	}
}

static void streams_sort(struct streams *s, bool take_over)
{
	struct stat terminal = { 0 };

	if (take_over)
		fstat(STDOUT_FILENO, &terminal);
	for (int i = 0; i < 3; i++) {
		if (take_over && same_terminal(i, &terminal))
			s->kind[i] = 't';
		else
			s->kind[i] = stream_closed[i] ? '-' : 'p';
	}
	s->kind[3] = 0;
}

static int pty_open(struct terminal *t)
{
	struct termios raw;

	t->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (t->master < 0 || grantpt(t->master) < 0 || unlockpt(t->master) < 0)
		return -errno;
	t->slave = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->slave < 0 || tcgetattr(t->slave, &raw) < 0)
		return -errno;
	cfmakeraw(&raw);
	return tcsetattr(t->slave, TCSANOW, &raw) < 0 ? -errno : 0;
}

static int tty_open(void)
{
	const char *path = ttyname(STDOUT_FILENO);

	return path ? open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK) : -1;
}

struct terminal *terminal_open(struct streams *streams, int fds[3])
{
	struct terminal *t = calloc(1, sizeof(*t));

	for (int i = 0; i < 3; i++)
		fds[i] = i;
	if (!t)
		return NULL;
	t->tty = t->master = t->slave = -1;
	if (isatty(STDOUT_FILENO))
		t->tty = tty_open();
	if (t->tty >= 0 && pty_open(t) == 0) {
		streams_sort(streams, true);
		for (int i = 0; i < 3; i++)
			if (streams->kind[i] == 't')
				fds[i] = t->slave;
		t->in = (struct flow){ .from = t->tty, .to = t->master };
		t->out = (struct flow){ .from = t->master, .to = t->tty };
		terminal_resize(t);
		return t;
	}
	streams_sort(streams, false);
	if (t->tty >= 0)
		close(t->tty);
	if (t->master >= 0)
		close(t->master);
	free(t);
	return NULL;
}

void terminal_start(struct terminal *t)
{
	struct termios raw;

	if (modes_tty < 0) {
		if (tcgetattr(t->tty, &modes_saved) < 0)
			return;
		modes_guard();
	}
	modes_tty = t->tty;
	raw = modes_saved;
	cfmakeraw(&raw);
	t->raw = tcsetattr(t->tty, TCSADRAIN, &raw) == 0;
}

void terminal_slave_close(struct terminal *t)
{
	close(t->slave);
	t->slave = -1;
}

void terminal_resize(struct terminal *t)
{
	struct winsize size;

	if (ioctl(t->tty, TIOCGWINSZ, &size) == 0)
		ioctl(t->master, TIOCSWINSZ, &size);
}

static void flow_poll(const struct flow *f, struct pollfd *from, struct pollfd *to)
{
	if (f->start == f->end && !f->ended)
		from->events |= POLLIN;
	else if (f->start < f->end)
		to->events |= POLLOUT;
}

void terminal_poll(struct terminal *t, struct pollfd p[2])
{
	p[0] = (struct pollfd){ .fd = t->tty };
	p[1] = (struct pollfd){ .fd = t->master };
	if (t->raw)
		flow_poll(&t->in, &p[0], &p[1]);
	flow_poll(&t->out, &p[1], &p[0]);
	for (int i = 0; i < 2; i++)
		if (!p[i].events)
			p[i].fd = -1;
}

static bool temporary(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Moves what can be moved now; false: nothing could. */
static bool flow_move(struct flow *f)
{
	ssize_t n;

	if (f->start == f->end) {
		if (f->ended)
			return false;
		n = read(f->from, f->buffer, sizeof(f->buffer));
		if (n <= 0) {
			f->ended = !temporary(n);
			return false;
		}
		f->start = 0;
		f->end = n;
	}
	n = write(f->to, f->buffer + f->start, f->end - f->start);
	if (n < 0) {
		if (!temporary(n))
			f->start = f->end;
		return false;
	}
	f->start += n;
	return true;
}

void terminal_relay(struct terminal *t)
{
	if (t->raw)
		flow_move(&t->in);
	flow_move(&t->out);
}

void terminal_close(struct terminal *t)
{
	struct pollfd p = { .fd = t->tty, .events = POLLOUT };

	/* The kernel has ended: what it wrote is in the pseudo-terminal, and no more comes. */
	while (flow_move(&t->out) || (t->out.start < t->out.end && poll(&p, 1, 1000) > 0))
		;
	modes_restore();
	close(t->tty);
	close(t->master);
	if (t->slave >= 0)
		close(t->slave);
	free(t);
}
