// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "layout.h"
#include "log.h"
#include "membership.h"

void report(const char *format, ...)
{
	char line[600];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "pangea: %s\n", line);
	log_line(LOG_ERROR, "%s", line);
}

/* --- trouble --- */

struct trouble {
	int eventfd;
	struct event *event;
	void (*callback)(void *ctx, const char *reason);
	void *ctx;
	pthread_mutex_t lock;		/* reason */
	char reason[256];		/* the first one stays */
};

/* machine_config.failed: any thread. */
static void trouble_tell(void *ctx, const char *reason)
{
	struct trouble *t = ctx;

	pthread_mutex_lock(&t->lock);
	if (!t->reason[0])
		snprintf(t->reason, sizeof(t->reason), "%s", reason);
	pthread_mutex_unlock(&t->lock);
	eventfd_write(t->eventfd, 1);
}

static void on_trouble(evutil_socket_t fd, short what, void *arg)
{
	struct trouble *t = arg;
	char reason[sizeof(t->reason)];
	eventfd_t value;

	(void)what;
	eventfd_read(fd, &value);
	pthread_mutex_lock(&t->lock);
	memcpy(reason, t->reason, sizeof(reason));
	pthread_mutex_unlock(&t->lock);
	t->callback(t->ctx, reason);
}

struct trouble *trouble_new(struct event_base *base, void (*callback)(void *ctx, const char *reason),
			    void *ctx)
{
	struct trouble *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->callback = callback;
	t->ctx = ctx;
	pthread_mutex_init(&t->lock, NULL);
	t->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->eventfd >= 0)
		t->event = event_new(base, t->eventfd, EV_READ | EV_PERSIST, on_trouble, t);
	if (t->event && !event_add(t->event, NULL))
		return t;
	trouble_free(t);
	return NULL;
}

void trouble_free(struct trouble *t)
{
	if (t->event)
		event_free(t->event);
	if (t->eventfd >= 0)
		close(t->eventfd);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* --- parts of the start --- */

struct machine *membership_make_machine(const struct options *options, const struct layout *layout,
					struct trouble *trouble, char *err, size_t err_size)
{
	struct machine_config *config = calloc(1, sizeof(*config));
	struct machine *machine;

	if (!config) {
		snprintf(err, err_size, "out of memory");
		return NULL;
	}
	config->layout = *layout;
	snprintf(config->stub_path, sizeof(config->stub_path), "%s", options->stub);
	config->starts = options->host && options->start_ms;
	config->failed = trouble_tell;
	config->ctx = trouble;
	machine = machine_new(config, err, err_size);
	free(config);
	return machine;
}

static void ignore_trouble(void *ctx, const char *reason)
{
	(void)ctx;
	(void)reason;
}

/* Makes the smallest machine and frees it again. */
int membership_check_host(const struct options *options)
{
	struct event_base *base = event_base_new();
	struct trouble *trouble = base ? trouble_new(base, ignore_trouble, NULL) : NULL;
	struct machine *machine = NULL;
	char err[256] = "out of memory";
	struct layout layout;

	if (trouble && !layout_divide(&layout, 1, 1, LAYOUT_MIN_HOST, err, sizeof(err)))
		machine = membership_make_machine(options, &layout, trouble, err, sizeof(err));
	if (machine)
		machine_free(machine);
	else
		report("%s", err);
	if (trouble)
		trouble_free(trouble);
	if (base)
		event_base_free(base);
	return machine ? 0 : EXIT_BROKEN;
}

int membership_listen(const struct options *options, struct address *bound, char *err, size_t err_size)
{
	char text[ADDRESS_TEXT_MAX];
	int fd = address_listen(options->listen, bound, err, err_size);

	if (fd < 0)
		return -1;
	address_format(bound, text);
	log_line(LOG_INFO, "listening on %s", text);
	if (options->ready_fd < 0)
		return fd;
	if (dprintf(options->ready_fd, "%s\n", text) < 0) {
		snprintf(err, err_size, "--ready-fd %d: %s", options->ready_fd, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

void membership_started(const struct options *options)
{
	if (options->ready_fd >= 0 && dprintf(options->ready_fd, "started\n") < 0)
		log_line(LOG_WARNING, "--ready-fd %d: %s", options->ready_fd, strerror(errno));
}

/* --- messages --- */

void membership_send_layout(struct control_conn *conn, const struct layout *layout, unsigned self,
			    const char *const addresses[WIRE_NODES_MAX])
{
	Pangea__Layout body = PANGEA__LAYOUT__INIT;
	CONTROL_MESSAGE(message, LAYOUT, layout, &body);
	Pangea__LayoutNode nodes[WIRE_NODES_MAX], *pointers[WIRE_NODES_MAX];
	unsigned i;

	for (i = 0; i < layout->nodes; i++) {
		const struct layout_node *node = &layout->node[i];

		pangea__layout_node__init(&nodes[i]);
		nodes[i].pfn_start = node->pfn_start;
		nodes[i].pfn_count = node->pfn_count;
		nodes[i].cpu_start = node->cpu_start;
		nodes[i].cpu_count = node->cpu_count;
		nodes[i].name = (char *)node->name;
		nodes[i].address = (char *)addresses[i];
		pointers[i] = &nodes[i];
	}
	body.machine = (ProtobufCBinaryData){ sizeof(layout->machine), (uint8_t *)layout->machine };
	body.self = self;
	body.n_node = layout->nodes;
	body.node = pointers;
	control_conn_send(conn, &message);
}

void membership_take_layout(const Pangea__Layout *message, struct layout *layout,
			    char addresses[WIRE_NODES_MAX][ADDRESS_TEXT_MAX])
{
	unsigned i;

	memset(layout, 0, sizeof(*layout));
	memcpy(layout->machine, message->machine.data, sizeof(layout->machine));
	layout->self = message->self;
	layout->nodes = message->n_node;
	for (i = 0; i < layout->nodes; i++) {
		const Pangea__LayoutNode *from = message->node[i];
		struct layout_node *node = &layout->node[i];

		node->pfn_start = from->pfn_start;
		node->pfn_count = from->pfn_count;
		node->cpu_start = from->cpu_start;
		node->cpu_count = from->cpu_count;
		snprintf(node->name, sizeof(node->name), "%s", from->name);
		snprintf(addresses[i], ADDRESS_TEXT_MAX, "%s", from->address);
		layout->cpus += node->cpu_count;
		layout->frames += node->pfn_count;
	}
}

/* struct machine_stats and its message have the same fields. */
#define STATS_FIELDS(x) \
	x(stubs) x(runs) x(interrupts) x(user_ns) x(frames_present) x(read_miss) x(write_miss) x(upgrade) \
	x(page_in) x(page_out) x(zero_in) x(invalidated) x(bytes_in) x(bytes_out) \
	x(kernel_bytes_in) x(kernel_bytes_out) x(handoff_ns) x(maps) x(map_ns) x(asks) x(ask_ns) \
	x(waits) x(wait_ns) x(wait_half_ns) x(wait_most_ns) x(kernel_waits) x(kernel_wait_ns)

_Static_assert(HOT_SHOWN == CONTROL_HOT_MAX, "as many as may be sent");

void membership_stats_to_message(const struct machine_stats *stats, struct stats_message *message)
{
	unsigned i;

	pangea__stats__init(&message->stats);
#define COPY(field) message->stats.field = stats->field;
	STATS_FIELDS(COPY)
#undef COPY
	for (i = 0; i < stats->hot_count; i++) {
		const struct hot_page *hot = &stats->hot[i];

		pangea__hot_page__init(&message->page[i]);
		message->page[i].pid = hot->pid;
		message->page[i].comm = (char *)hot->comm;
		message->page[i].address = hot->address;
		message->page[i].misses = hot->misses - hot->excess;
		message->pointer[i] = &message->page[i];
	}
	message->stats.n_hot = stats->hot_count;
	message->stats.hot = message->pointer;
}

void membership_stats_from_message(const Pangea__Stats *message, struct machine_stats *stats)
{
#define COPY(field) stats->field = message->field;
	STATS_FIELDS(COPY)
#undef COPY
	stats->hot_count = message->n_hot;
	for (size_t i = 0; i < message->n_hot; i++) {
		const Pangea__HotPage *hot = message->hot[i];

		stats->hot[i] = (struct hot_page){ .pid = hot->pid, .address = hot->address, .misses = hot->misses };
		snprintf(stats->hot[i].comm, sizeof(stats->hot[i].comm), "%s", hot->comm);
	}
}

void membership_send_heartbeat(struct control_conn *conn, struct machine *machine)
{
	Pangea__Heartbeat body = PANGEA__HEARTBEAT__INIT;
	CONTROL_MESSAGE(message, HEARTBEAT, heartbeat, &body);
	struct stats_message stats;
	struct machine_stats counted;

	if (machine && machine_get_stats(machine, &counted)) {
		membership_stats_to_message(&counted, &stats);
		body.stats = &stats.stats;
	}
	control_conn_send(conn, &message);
}

void membership_send_stop(struct control_conn *conn, bool clean, const char *reason)
{
	Pangea__Stop body = PANGEA__STOP__INIT;
	CONTROL_MESSAGE(message, STOP, stop, &body);

	body.clean = clean;
	body.reason = (char *)reason;
	control_conn_send(conn, &message);
}

/* --- this host --- */

int membership_read_signal(int signal_fd, const char **name)
{
	struct signalfd_siginfo info;

	*name = "a signal";
	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return SIGTERM;
	if (info.ssi_signo == SIGINT)
		*name = "SIGINT";
	if (info.ssi_signo == SIGTERM)
		*name = "SIGTERM";
	if (info.ssi_signo == SIGHUP)
		*name = "SIGHUP";
	return (int)info.ssi_signo;
}
