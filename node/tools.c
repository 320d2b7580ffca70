// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../net/acceptor.h"
#include "log.h"
#include "membership.h"
#include "tools.h"

#define TOOLS_MAX 16
#define BACKLOG 16

struct tool {
	struct tool *next;
	struct tools *tools;
	struct control_conn *conn;
};

struct tools {
	struct event_base *base;
	const struct tools_ops *ops;
	void *ctx;
	struct acceptor *acceptor;
	struct tool *first;
	unsigned count;
	struct sockaddr_un address;
	bool bound;
};

static void forget(struct tool *tool)
{
	struct tool **p = &tool->tools->first;

	while (*p != tool)
		p = &(*p)->next;
	*p = tool->next;
	tool->tools->count--;
	control_conn_free(tool->conn);
	free(tool);
}

static void on_message(void *ctx, const Pangea__Message *message)
{
	struct tool *tool = ctx;
	struct tools *t = tool->tools;

	if (message->body_case == PANGEA__MESSAGE__BODY_STATUS_REQUEST) {
		t->ops->status(t->ctx, tool->conn);
	} else if (message->body_case == PANGEA__MESSAGE__BODY_STOP_REQUEST) {
		t->ops->stop(t->ctx);
	} else {
		log_line(LOG_WARNING, "a tool sent a message that does not belong here");
		forget(tool);
	}
}

static void on_closed(void *ctx, const char *why)
{
	(void)why;
	forget(ctx);
}

static const struct control_conn_ops conn_ops = { .message = on_message, .closed = on_closed };

static const char *judge(void *ctx, const struct wire_hello *hello)
{
	struct tools *t = ctx;

	if (hello->purpose != WIRE_PURPOSE_CONTROL || hello->node != 0xffff)
		return "this socket is for tools only";
	return t->count < TOOLS_MAX ? NULL : "too many tools are connected";
}

static void on_connected(void *ctx, int fd, const struct wire_hello *hello, const char *from)
{
	struct tools *t = ctx;
	struct tool *tool = calloc(1, sizeof(*tool));

	(void)hello;
	(void)from;
	if (!tool) {
		close(fd);
		return;
	}
	tool->tools = t;
	tool->conn = control_conn_new(t->base, fd, &conn_ops, tool);
	if (!tool->conn) {
		free(tool);
		return;
	}
	tool->next = t->first;
	t->first = tool;
	t->count++;
}

static void on_refused(void *ctx, const char *from, const char *why)
{
	(void)ctx;
	log_line(LOG_WARNING, "connection to %s refused: %s", from, why);
}

static const struct acceptor_ops acceptor_ops = {
	.judge = judge, .connected = on_connected, .refused = on_refused,
};

/* 0: nobody answers at the path, it may be bound now; -EADDRINUSE: a daemon does; -errno. */
static int clear_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int fd, ret;

	if (lstat(address->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	ret = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? -errno : -EADDRINUSE;
	close(fd);
	if (ret == -EAGAIN)
		return -EADDRINUSE;
	if (ret != -ECONNREFUSED)
		return ret;
	return unlink(address->sun_path) ? -errno : 0;
}

static int listen_unix(struct tools *t)
{
	int fd, ret = clear_stale(&t->address);
	mode_t old;

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	old = umask(0177);
	t->bound = !bind(fd, (struct sockaddr *)&t->address, sizeof(t->address));
	umask(old);
	if (t->bound && !listen(fd, BACKLOG))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

struct tools *tools_new(struct event_base *base, const char *path, const struct tools_ops *ops, void *ctx,
			char *err, size_t err_size)
{
	struct tools *t = calloc(1, sizeof(*t));
	int fd = -ENOMEM;

	if (!t)
		goto fail;
	t->base = base;
	t->ops = ops;
	t->ctx = ctx;
	t->address.sun_family = AF_UNIX;
	fd = -ENAMETOOLONG;
	if (strlen(path) >= sizeof(t->address.sun_path))
		goto fail;
	strcpy(t->address.sun_path, path);
	fd = listen_unix(t);
	if (fd < 0)
		goto fail;
	t->acceptor = acceptor_new(base, fd, HANDSHAKE_MS, &acceptor_ops, t);
	if (t->acceptor)
		return t;
	fd = -ENOMEM;
fail:
	if (fd == -EADDRINUSE)
		snprintf(err, err_size, "--control %s: another machine is running with this socket", path);
	else
		snprintf(err, err_size, "--control %s: %s", path, strerror(-fd));
	if (t)
		tools_free(t);
	return NULL;
}

void tools_free(struct tools *t)
{
	if (t->bound)
		unlink(t->address.sun_path);
	if (t->acceptor)
		acceptor_free(t->acceptor);
	while (t->first)
		forget(t->first);
	free(t);
}
