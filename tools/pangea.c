// SPDX-License-Identifier: GPL-2.0
/*
 * pangea(1): the user's command.  Subcommands and what they say of themselves.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pangea.h"

#define MACHINE_OPTIONS \
	"  --nodes N       nodes of the machine, 1 to 16 (default 3)\n" \
	"  --cpus C        CPUs of each node (default 1; 64 in all)\n" \
	"  --mem SIZE      memory of all nodes together, as 1536M or 2G (default 1536M)\n" \
	"  --root DIR      use this directory tree instead of / (read-only, writes go to memory)\n" \
	"  --root IMAGE    use this ext4 image (read and written)\n" \
	"  --net TAP[,ADDRESS/BITS[,GATEWAY]]\n" \
	"                  join the machine to this tap device, as its device vec0\n" \
	"  --rw DIR        let the machine write this directory of the host; may be repeated\n" \
	"  --name NAME     name of the machine, its hostname too\n"

struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
	const char *help;
};

static int command_help(int argc, char **argv);

static const struct subcommand subcommands[] = {
	{ "run", command_run, "run a command in a new machine",
	  "Usage: pangea run [OPTION]... [--] COMMAND [ARGUMENT]...\n\n"
	  "Boots a machine of several nodes on this host, runs COMMAND in it with this directory,\n"
	  "environment, standard streams and terminal, and exits with its status.\n\n"
	  MACHINE_OPTIONS
	  "\nExit status: COMMAND's; 128+N if signal N killed it; 127 if it was not found, 126 if it\n"
	  "cannot be executed; 125 if the machine could not be made or broke; 2 for a mistake on the\n"
	  "command line.\n" },
	{ "shell", command_shell, "start a login shell in a new machine",
	  "Usage: pangea shell [OPTION]...\n\n"
	  "Like `pangea run`, with your login shell as COMMAND (/bin/sh with --root).\n\n"
	  MACHINE_OPTIONS },
	{ "up", command_up, "start node 0 of a machine of several hosts",
	  "Usage: pangea up --listen ADDR:PORT [OPTION]... [--] [COMMAND [ARGUMENT]...]\n\n"
	  "Like `pangea run`, but only node 0 is started here; the others join from other hosts with\n"
	  "`pangea node`. Without COMMAND: a login shell.\n\n"
	  "  --listen ADDR:PORT  where other nodes reach this one (a loopback or private address)\n"
	  MACHINE_OPTIONS },
	{ "node", command_node, "join a machine as one of its nodes",
	  "Usage: pangea node --join ADDR:PORT --key FILE [OPTION]...\n\n"
	  "Gives CPUs and memory of this host to the machine that `pangea up` started at ADDR:PORT,\n"
	  "until it ends.\n\n"
	  "  --join ADDR:PORT    where node 0 listens\n"
	  "  --key FILE          the machine's key, a copy of the file that `pangea up` has named\n"
	  "                      (default: the key itself in $PANGEA_KEY)\n"
	  "  --listen ADDR:PORT  where other nodes reach this one (default 127.0.0.1 and a free port)\n"
	  "  --cpus C            CPUs to give (default 1)\n"
	  "  --name NAME         name of this node (default: the host's name)\n" },
	{ "status", command_status, "show nodes, CPUs, memory and traffic",
	  "Usage: pangea status [--json | --perf] [NAME]\n\n"
	  "Shows the nodes of a running machine. Without NAME: of the only one, or the names of all.\n\n"
	  "  --json    for programs\n"
	  "  --perf    where time goes\n" },
	{ "stop", command_stop, "end a machine",
	  "Usage: pangea stop [NAME]\n\n"
	  "Ends a running machine and returns when it is gone. Without NAME: the only one.\n" },
	{ "help", command_help, "explain a subcommand",
	  "Usage: pangea help [SUBCOMMAND]\n" },
};

static const struct subcommand *subcommand_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++)
		if (!strcmp(subcommands[i].name, name))
			return &subcommands[i];
	return NULL;
}

void complain(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("pangea: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
}

int usage_error(const char *subcommand, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("pangea: ", stderr);
	vfprintf(stderr, format, ap);
	fprintf(stderr, "; see 'pangea %s%s--help'\n", subcommand ?: "", subcommand ? " " : "");
	va_end(ap);
	return EXIT_USAGE;
}

static void overview_print(void)
{
	puts("Usage: pangea SUBCOMMAND [ARGUMENT]...\n\n"
	     "One Linux machine made of several hosts.\n");
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++)
		printf("  %-8s %s\n", subcommands[i].name, subcommands[i].summary);
	puts("\n'pangea SUBCOMMAND --help' tells more; the manual page is pangea(1).");
}

void help_print(const char *subcommand)
{
	fputs(subcommand_find(subcommand)->help, stdout);
}

static int command_help(int argc, char **argv)
{
	if (argc < 2) {
		overview_print();
		return 0;
	}
	if (!strcmp(argv[1], "--help")) {
		help_print("help");
		return 0;
	}
	if (argc > 2 || !subcommand_find(argv[1]))
		return usage_error("help", "there is no subcommand '%s'", argv[argc > 2 ? 2 : 1]);
	help_print(argv[1]);
	return 0;
}

int main(int argc, char **argv)
{
	const struct subcommand *sub;

	streams_note();
	if (argc < 2)
		return usage_error(NULL, "a subcommand is missing");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		overview_print();
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("pangea " PANGEA_VERSION);
		return 0;
	}
	sub = subcommand_find(argv[1]);
	if (!sub)
		return usage_error(NULL, "there is no %s '%s'",
				   argv[1][0] == '-' ? "option" : "subcommand", argv[1]);
	return sub->run(argc - 1, argv + 1);
}
