// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../net/wire.h"
#include "layout.h"
#include "options.h"

#define START_VARIABLE	"PANGEA_START"
#define START_DEFAULT	"5+"	/* in user mode: about what moving costs, with all that is fetched after it */
#define START_MS_MAX	1000000u

static const char usage_all[] =
"Usage: pangead host|node|check OPTION...\n"
"The daemon of one node of a Pangea machine; `pangea` starts it.\n"
"\n"
"  pangead host --help    options of node 0, which runs the kernel\n"
"  pangead node --help    options of the other nodes\n"
"  pangead check --stub PATH\n"
"                         says on standard error what this host lacks to be a node\n";

static const char usage_host[] =
"Usage: pangead host OPTION... [-- KERNEL-ARGUMENT...]\n"
"Node 0: waits for the others, starts the kernel and exits with its status\n"
"(125: the machine could not be started or has broken).\n"
"The environment's PANGEA_KEY, 32 hexadecimal digits, is what nodes must know to join.\n"
"\n"
"  --nodes N            nodes of the machine, this one included\n"
"  --cpus C             CPUs of each node\n"
"  --mem SIZE           memory of all nodes together, as 1536M or 2G\n"
"  --listen ADDR:PORT   where the other nodes join; port 0: any\n"
"  --control SOCKET     path of the socket for status and stop\n"
"  --kernel PATH        the kernel to run\n"
"  --stub PATH          the program that holds user code\n"
"  --log FILE           messages of this daemon and of the kernel\n"
"  --stdio              hand descriptors 0, 1 and 2 to the kernel as 10, 11 and 12\n"
"  --name NAME          name of this node (the host's name)\n"
"  --ready-fd FD        write ADDR:PORT there when listening, \"started\" when the kernel runs\n"
"  --net-fd FD          hand this socket to the kernel as 13, for a network device\n";

static const char usage_node[] =
"Usage: pangead node OPTION...\n"
"A node that gives CPUs and memory to the machine of another host, and knows its PANGEA_KEY.\n"
"\n"
"  --join ADDR:PORT     where node 0 listens\n"
"  --listen ADDR:PORT   where other nodes reach this one; port 0: any\n"
"  --cpus C             CPUs of this node, as many as node 0 was told\n"
"  --stub PATH          the program that holds user code\n"
"  --log FILE           messages of this daemon\n"
"  --name NAME          name of this node (the host's name)\n"
"  --ready-fd FD        write ADDR:PORT there when listening, \"started\" when all channels are there\n";

__attribute__((format(printf, 1, 2)))
static int wrong(const char *format, ...)
{
	va_list args;

	fputs("pangea: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -1;
}

static int parse_number(const char *option, const char *text, unsigned min, unsigned max, unsigned *out)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno || value < min || value > max)
		return wrong("--%s %s: must be a number from %u to %u", option, text, min, max);
	*out = (unsigned)value;
	return 0;
}

static int parse_size(const char *option, const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	unsigned long long value;
	const char *unit;
	unsigned shift = 0;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			goto bad;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (!isdigit((unsigned char)text[0]) || errno || value > LAYOUT_MAX >> shift)
		goto bad;
	*out = value << shift;
	return 0;
bad:
	return wrong("--%s %s: must be a size as 1536M or 2G", option, text);
}

enum { NODES = 1, CPUS, MEM, LISTEN, JOIN, CONTROL, KERNEL, STUB, LOG, STDIO, NAME, READY_FD, NET_FD, HELP };

static const struct option host_options[] = {
	{ "nodes", required_argument, NULL, NODES },
	{ "cpus", required_argument, NULL, CPUS },
	{ "mem", required_argument, NULL, MEM },
	{ "listen", required_argument, NULL, LISTEN },
	{ "control", required_argument, NULL, CONTROL },
	{ "kernel", required_argument, NULL, KERNEL },
	{ "stub", required_argument, NULL, STUB },
	{ "log", required_argument, NULL, LOG },
	{ "stdio", no_argument, NULL, STDIO },
	{ "name", required_argument, NULL, NAME },
	{ "ready-fd", required_argument, NULL, READY_FD },
	{ "net-fd", required_argument, NULL, NET_FD },
	{ "help", no_argument, NULL, HELP },
	{ 0 },
};

static const struct option node_options[] = {
	{ "join", required_argument, NULL, JOIN },
	{ "listen", required_argument, NULL, LISTEN },
	{ "cpus", required_argument, NULL, CPUS },
	{ "stub", required_argument, NULL, STUB },
	{ "log", required_argument, NULL, LOG },
	{ "name", required_argument, NULL, NAME },
	{ "ready-fd", required_argument, NULL, READY_FD },
	{ "help", no_argument, NULL, HELP },
	{ 0 },
};

static const struct option check_options[] = {
	{ "stub", required_argument, NULL, STUB },
	{ "help", no_argument, NULL, HELP },
	{ 0 },
};

static int set_name(struct options *o, const char *name)
{
	if (strchr(name, ' ') || (strlen(name) <= CONTROL_NAME_MAX && !control_name_ok(name)))
		return wrong("--name: must be text without blanks and control characters");
	if (!*name || strlen(name) >= sizeof(o->name))
		return wrong("--name %s: must have 1 to %zu characters", name, sizeof(o->name) - 1);
	strcpy(o->name, name);
	return 0;
}

static int take_fd(const char *option, const char *text, int *out)
{
	unsigned fd;

	if (parse_number(option, text, 3, 1 << 20, &fd))
		return -1;
	if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return wrong("--%s %u: %s", option, fd, strerror(errno));
	*out = (int)fd;
	return 0;
}

static int apply(struct options *o, int which, const char *argument)
{
	switch (which) {
	case NODES:
		return parse_number("nodes", argument, 1, WIRE_NODES_MAX, &o->nodes);
	case CPUS:
		return parse_number("cpus", argument, 1, WIRE_CPUS_MAX, &o->cpus);
	case MEM:
		return parse_size("mem", argument, &o->memory);
	case LISTEN:
		o->listen = argument;
		return 0;
	case JOIN:
		o->join = argument;
		return 0;
	case CONTROL:
		o->control = argument;
		return 0;
	case KERNEL:
		o->kernel = argument;
		return 0;
	case STUB:
		o->stub = argument;
		return 0;
	case LOG:
		o->log = argument;
		return 0;
	case STDIO:
		o->stdio = true;
		return 0;
	case NAME:
		return set_name(o, argument);
	case READY_FD:
		return take_fd("ready-fd", argument, &o->ready_fd);
	case NET_FD:
		return take_fd("net-fd", argument, &o->net_fd);
	default:
		return -1;
	}
}

static int check_given(const struct options *o)
{
	const struct { const char *name; bool given; } needed[] = {
		{ "nodes", !o->host || o->nodes },
		{ "cpus", o->cpus },
		{ "mem", !o->host || o->memory },
		{ "listen", o->listen },
		{ "join", o->host || o->join },
		{ "control", !o->host || o->control },
		{ "kernel", !o->host || o->kernel },
		{ "stub", o->stub },
		{ "log", o->log },
	};
	size_t i;

	if (o->check)
		return o->stub ? 0 : wrong("--stub is missing (see `pangead --help`)");
	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!needed[i].given)
			return wrong("--%s is missing (see `pangead %s --help`)", needed[i].name,
				     o->host ? "host" : "node");
	if (o->nodes * o->cpus > WIRE_CPUS_MAX)
		return wrong("%u nodes of %u CPUs are %u CPUs, but a machine has at most %u", o->nodes,
			     o->cpus, o->nodes * o->cpus, WIRE_CPUS_MAX);
	return 0;
}

/* From the environment, as all that chooses between ways to do the same. */
static int take_start(struct options *o)
{
	const char *text = getenv(START_VARIABLE);
	char *end = NULL;
	long value;

	if (!text)
		text = START_DEFAULT;
	value = strcmp(text, "off") ? strtol(text, &end, 10) : 0;
	o->start_follows_calls = end && *end == '+';
	if (end && (!isdigit((unsigned char)text[0]) || end[o->start_follows_calls] || value > (long)START_MS_MAX))
		return wrong(START_VARIABLE "=%s in the environment: must be off, or milliseconds up to %u, which may end in +", text,
			     START_MS_MAX);
	o->start_ms = (unsigned)value;
	return 0;
}

/* Not on the command line, which every user of this host can read; nor for the kernel to inherit. */
static int take_key(struct options *o)
{
	const char *text = getenv(CONTROL_KEY_VARIABLE);

	if (o->check || (o->host && o->nodes == 1))
		return 0;
	if (!text)
		return wrong("the environment has no " CONTROL_KEY_VARIABLE ", the key of the machine: %u "
			     "hexadecimal digits, the same for all its nodes", CONTROL_KEY_TEXT);
	if (control_key_parse(text, o->key))
		return wrong(CONTROL_KEY_VARIABLE " in the environment is not %u hexadecimal digits",
			     CONTROL_KEY_TEXT);
	unsetenv(CONTROL_KEY_VARIABLE);
	return 0;
}

static int check_program(const char *option, const char *path)
{
	if (!path || !access(path, X_OK))
		return 0;
	return wrong("--%s %s: %s", option, path, strerror(errno));
}

static int parse_rest(struct options *o, int argc, char **argv)
{
	const struct option *list = o->host ? host_options : o->check ? check_options : node_options;
	const char *usage = o->host ? usage_host : o->check ? usage_all : usage_node;
	int which;

	while ((which = getopt_long(argc, argv, "+:", list, NULL)) != -1) {
		if (which == HELP) {
			fputs(usage, stdout);
			return 1;
		}
		if (which == ':')
			return wrong("%s needs a value", argv[optind - 1]);
		if (which == '?')
			return wrong("unknown option %s (see `pangead %s --help`)", argv[optind - 1],
				     o->host ? "host" : "node");
		if (apply(o, which, optarg))
			return -1;
	}
	o->kernel_arguments = argv + optind;
	if (optind < argc && (!o->host || strcmp(argv[optind - 1], "--")))
		return wrong("unexpected argument %s", argv[optind]);
	if (check_given(o) || take_key(o) || take_start(o) || check_program("kernel", o->kernel) ||
	    check_program("stub", o->stub))
		return -1;
	return 0;
}

int options_parse(struct options *o, int argc, char **argv)
{
	*o = (struct options){ .ready_fd = -1, .net_fd = -1 };
	if (gethostname(o->name, sizeof(o->name) - 1) || !o->name[0])
		strcpy(o->name, "unnamed");
	if (argc >= 2 && !strcmp(argv[1], "--help")) {
		fputs(usage_all, stdout);
		return 1;
	}
	o->host = argc >= 2 && !strcmp(argv[1], "host");
	o->check = argc >= 2 && !strcmp(argv[1], "check");
	if (!o->host && !o->check && (argc < 2 || strcmp(argv[1], "node")))
		return wrong("say `pangead host` or `pangead node` (see `pangead --help`)");
	opterr = 0;
	optind = 1;
	return parse_rest(o, argc - 1, argv + 1);
}
