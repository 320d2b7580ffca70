// SPDX-License-Identifier: GPL-2.0
/*
 * status and stop: what can be asked of a machine that runs (net/control.proto).
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../net/control.h"
#include "pangea.h"

#define ANSWER_MS	5000
#define HOT_MISSES	10	/* fewer are not worth a line */
#define HOT_LINES	4	/* pages of each node in the table; --json has more */
#define GRACE_S		8	/* for a machine to end in order */

static int control_connect(const struct directory *d)
{
	char err[256];
	int fd = control_open(directory_file(d, "control"), err, sizeof(err));

	if (fd < 0)
		complain("machine %s does not answer: %s", d->name, err);
	return fd;
}

static Pangea__Message *status_get(const struct directory *d)
{
	Pangea__StatusRequest request = PANGEA__STATUS_REQUEST__INIT;
	CONTROL_MESSAGE(question, STATUS_REQUEST, status_request, &request);
	Pangea__Message *answer = NULL;
	char err[256] = "";
	int fd = control_connect(d);

	if (fd < 0)
		return NULL;
	if (control_send(fd, &question, err, sizeof(err)) == 0)
		answer = control_receive(fd, ANSWER_MS, err, sizeof(err));
	close(fd);
	if (answer && answer->body_case == PANGEA__MESSAGE__BODY_STATUS)
		return answer;
	complain("machine %s does not answer: %s", d->name, *err ? err : "it is ending");
	if (answer)
		pangea__message__free_unpacked(answer, NULL);
	return NULL;
}

/* "1.5M": three digits and a unit of 1024. */
static const char *amount(uint64_t bytes)
{
	static char ring[8][16];
	static unsigned next;
	char *text = ring[next++ % ARRAY_SIZE(ring)];
	double value = bytes;
	const char *unit = "BKMGTP";

	while (value >= 1000 && unit[1]) {
		value /= 1024;
		unit++;
	}
	snprintf(text, sizeof(ring[0]), value < 10 && *unit != 'B' ? "%.1f%c" : "%.0f%c", value, *unit);
	return text;
}

static const char *cpu_range(const Pangea__NodeStatus *n)
{
	static char text[32];

	if (n->cpu_count > 1)
		snprintf(text, sizeof(text), "%u-%u", n->cpu_start, n->cpu_start + n->cpu_count - 1);
	else
		snprintf(text, sizeof(text), "%u", n->cpu_start);
	return text;
}

static const Pangea__Stats *stats_of(const Pangea__NodeStatus *n)
{
	static const Pangea__Stats none = PANGEA__STATS__INIT;

	return n->stats ?: &none;
}

/* Pages that travel much: where two nodes share what they should not. */
static void hot_print(const Pangea__Status *s)
{
	bool header = false;

	for (size_t i = 0; i < s->n_node; i++) {
		const Pangea__Stats *c = stats_of(s->node[i]);

		for (size_t k = 0; k < c->n_hot && k < HOT_LINES && c->hot[k]->misses >= HOT_MISSES; k++) {
			if (!header)
				printf("\n%4s %8s %-16s %-18s %9s\n", "NODE", "PID", "COMMAND", "HOTTEST PAGES", "MISSES");
			header = true;
			printf("%4u %8u %-16s 0x%-16" PRIx64 " %9" PRIu64 "\n", s->node[i]->number, c->hot[k]->pid,
			       c->hot[k]->comm, c->hot[k]->address, c->hot[k]->misses);
		}
	}
}

static void table_print(const struct directory *d, const Pangea__Status *s)
{
	printf("machine %s: %s, %zu of %u nodes, %.1f s\n\n", d->name, s->state, s->n_node, s->nodes_wanted,
	       s->running_ms / 1000.0);
	printf("%4s %-12s %-9s %-6s %7s %7s %6s %9s %9s %9s %8s %8s\n", "NODE", "NAME", "STATE", "CPUS",
	       "MEMORY", "HELD", "PROCS", "USER-S", "PAGES-IN", "PAGES-OUT", "NET-IN", "NET-OUT");
	for (size_t i = 0; i < s->n_node; i++) {
		const Pangea__NodeStatus *n = s->node[i];
		const Pangea__Stats *c = stats_of(n);

		printf("%4u %-12s %-9s %-6s %7s %7s %6" PRIu64 " %9.2f %9" PRIu64 " %9" PRIu64 " %8s %8s\n",
		       n->number, n->name, n->state, cpu_range(n), amount(n->memory),
		       amount(c->frames_present * 4096), c->stubs, c->user_ns / 1e9, c->page_in, c->page_out,
		       amount(c->bytes_in), amount(c->bytes_out));
	}
	hot_print(s);
}

static double per(uint64_t ns, uint64_t count, double unit)
{
	return count ? ns / unit / count : 0;
}

/* Where time goes.  Waits for frames are inside the time of user code, and taken out of it. */
static void perf_print(const struct directory *d, const Pangea__Status *s)
{
	printf("machine %s: %s, %.1f s\n\n", d->name, s->state, s->running_ms / 1000.0);
	printf("%4s %9s %9s %10s %8s %8s %8s %9s %8s %8s %9s %7s %7s %8s %9s\n", "NODE", "TRAPS", "USER-S", "HAND-OFF-S",
	       "MAPS", "MAP-S", "ASKED", "ANSWER-US", "WAITS", "WAIT-S", "MEAN-US", "P50-US", "P99-US", "K-WAITS",
	       "K-WAIT-S");
	for (size_t i = 0; i < s->n_node; i++) {
		const Pangea__Stats *c = stats_of(s->node[i]);
		uint64_t user_ns = c->user_ns > c->wait_ns ? c->user_ns - c->wait_ns : 0;

		printf("%4u %9" PRIu64 " %9.2f %10.2f %8" PRIu64 " %8.2f %8" PRIu64 " %9.0f %8" PRIu64
		       " %8.2f %9.0f %7.0f %7.0f %8" PRIu64 " %9.2f\n", s->node[i]->number, c->runs, user_ns / 1e9,
		       c->handoff_ns / 1e9, c->maps, c->map_ns / 1e9, c->asks, per(c->ask_ns, c->asks, 1e3), c->waits,
		       c->wait_ns / 1e9, per(c->wait_ns, c->waits, 1e3), c->wait_half_ns / 1e3, c->wait_most_ns / 1e3,
		       c->kernel_waits, c->kernel_wait_ns / 1e9);
	}
}

/* What control_unpack() lets through is printable; only these two need an escape. */
static void json_text(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('"');
}

static void json_node(const Pangea__NodeStatus *n)
{
	const Pangea__Stats *c = stats_of(n);
	const struct { const char *key; uint64_t value; } numbers[] = {
		{ "cpu_start", n->cpu_start }, { "cpu_count", n->cpu_count }, { "memory", n->memory },
		{ "held", c->frames_present * 4096 }, { "processes", c->stubs }, { "runs", c->runs },
		{ "interrupts", c->interrupts }, { "user_ns", c->user_ns }, { "read_misses", c->read_miss },
		{ "write_misses", c->write_miss }, { "upgrades", c->upgrade }, { "pages_in", c->page_in },
		{ "pages_out", c->page_out }, { "zero_pages_in", c->zero_in },
		{ "pages_invalidated", c->invalidated }, { "bytes_in", c->bytes_in },
		{ "bytes_out", c->bytes_out }, { "handoff_ns", c->handoff_ns }, { "maps", c->maps },
		{ "map_ns", c->map_ns }, { "asked", c->asks }, { "asked_ns", c->ask_ns }, { "waits", c->waits },
		{ "wait_ns", c->wait_ns }, { "wait_p50_ns", c->wait_half_ns }, { "wait_p99_ns", c->wait_most_ns },
		{ "kernel_waits", c->kernel_waits }, { "kernel_wait_ns", c->kernel_wait_ns },
	};

	printf("{\"node\":%u,\"name\":", n->number);
	json_text(n->name);
	fputs(",\"state\":", stdout);
	json_text(n->state);
	fputs(",\"address\":", stdout);
	json_text(n->address);
	fputs(",\"host_kernel\":", stdout);
	json_text(n->kernel);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		printf(",\"%s\":%" PRIu64, numbers[i].key, numbers[i].value);
	fputs(",\"hot\":[", stdout);
	for (size_t i = 0; i < c->n_hot; i++) {
		printf("%s{\"pid\":%u,\"command\":", i ? "," : "", c->hot[i]->pid);
		json_text(c->hot[i]->comm);
		printf(",\"address\":%" PRIu64 ",\"misses\":%" PRIu64 "}", c->hot[i]->address, c->hot[i]->misses);
	}
	fputs("]}", stdout);
}

static void json_print(const struct directory *d, const Pangea__Status *s)
{
	fputs("{\"machine\":", stdout);
	json_text(d->name);
	fputs(",\"state\":", stdout);
	json_text(s->state);
	printf(",\"nodes_wanted\":%u,\"running_ms\":%" PRIu64 ",\"kernel_pid\":%u,\"nodes\":[",
	       s->nodes_wanted, s->running_ms, s->kernel_pid);
	for (size_t i = 0; i < s->n_node; i++) {
		if (i)
			putchar(',');
		json_node(s->node[i]);
	}
	puts("]}");
}

enum form { FORM_TABLE, FORM_JSON, FORM_PERF };

/* Options of both: --help, and those of status if allowed; then at most one name. */
static int arguments_parse(int argc, char **argv, enum form *form, const char **name)
{
	static const struct option long_options[] = {
		{ "json", no_argument, NULL, FORM_JSON }, { "perf", no_argument, NULL, FORM_PERF },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	int option;

	*name = NULL;
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (option == 'h') {
			help_print(argv[0]);
			return -1;
		}
		if (option == '?')
			return unknown_option(argv[0], argv);
		if (!form)
			return usage_error(argv[0], "there is no option '%s'", argv[optind - 1]);
		*form = option;
	}
	if (argc - optind > 1)
		return usage_error(argv[0], "'%s': one machine at a time", argv[optind + 1]);
	*name = argv[optind];
	return 0;
}

int command_status(int argc, char **argv)
{
	struct directory directory;
	Pangea__Message *answer;
	const char *name;
	enum form form = FORM_TABLE;
	int err = arguments_parse(argc, argv, &form, &name);

	if (err)
		return err < 0 ? 0 : err;
	err = directory_find(&directory, name);
	if (err)
		return err;
	answer = status_get(&directory);
	if (!answer)
		return EXIT_PANGEA;
	(form == FORM_JSON ? json_print : form == FORM_PERF ? perf_print : table_print)(&directory, answer->status);
	pangea__message__free_unpacked(answer, NULL);
	return 0;
}

/* The daemon of node 0 is asked when the process that started the machine does not do it. */
static int machine_stop_daemon(const struct directory *d)
{
	Pangea__StopRequest request = PANGEA__STOP_REQUEST__INIT;
	CONTROL_MESSAGE(message, STOP_REQUEST, stop_request, &request);
	int fd = control_connect(d), status = EXIT_PANGEA;
	char err[256];

	if (fd < 0)
		return EXIT_PANGEA;
	if (control_send(fd, &message, err, sizeof(err)) < 0)
		complain("machine %s does not answer: %s", d->name, err);
	else if (directory_wait_gone(d, GRACE_S))
		status = 0;
	else
		complain("machine %s has not ended within %d s", d->name, 2 * GRACE_S);
	close(fd);
	return status;
}

static int machine_stop(const struct directory *d)
{
	pid_t owner = directory_owner(d);

	if (owner > 0 && kill(owner, SIGTERM) == 0 && directory_wait_gone(d, GRACE_S))
		return 0;
	return machine_stop_daemon(d);
}

int command_stop(int argc, char **argv)
{
	struct directory directory;
	const char *name;
	int err = arguments_parse(argc, argv, NULL, &name);

	if (err)
		return err < 0 ? 0 : err;
	return directory_find(&directory, name) ?: machine_stop(&directory);
}
