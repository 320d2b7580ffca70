// SPDX-License-Identifier: GPL-2.0
/*
 * Options of run, shell and up, and every check of them that needs no machine: what is wrong is said in one
 * line before anything has been started.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../node/layout.h"
#include "../node/memory.h"
#include "pangea.h"

#define KERNEL_SPACE		(512ull << 20)	/* of the kernel process, beside the machine's memory */
#define EXT4_MAGIC_OFFSET	1080	/* of s_magic: in the superblock at 1024 */

enum { OPT_NODES = 256, OPT_CPUS, OPT_MEM, OPT_ROOT, OPT_RW, OPT_NAME, OPT_LISTEN, OPT_NET, OPT_HELP };

static const struct option long_options[] = {
	{ "nodes", required_argument, NULL, OPT_NODES },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "mem", required_argument, NULL, OPT_MEM },
	{ "root", required_argument, NULL, OPT_ROOT },
	{ "rw", required_argument, NULL, OPT_RW },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "net", required_argument, NULL, OPT_NET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

int size_parse(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	unsigned long long value;
	const char *suffix;
	unsigned shift;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (!*end || end[1])
		return -EINVAL;
	suffix = strchr(suffixes, *end & ~0x20);
	if (!suffix)
		return -EINVAL;
	shift = 10 * (suffix - suffixes + 1);
	if (value > LAYOUT_MAX >> shift)
		return -ERANGE;
	*bytes = (uint64_t)value << shift;
	return 0;
}

/* Only the form: what may be listened on is the daemon's to judge. */
int address_check(const char *text)
{
	const char *colon = strrchr(text, ':');
	unsigned long port;
	char *end;

	if (!colon || colon == text || strlen(text) >= ADDRESS_MAX || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	return *end || port > 65535 ? -EINVAL : 0;
}

/* A name is a directory's, a hostname and a word on the kernel's command line. */
bool name_check(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

	return *name && *name != '-' && strlen(name) < 64 && strspn(name, allowed) == strlen(name);
}

int count_parse(const char *sub, const char *option, const char *text, unsigned max, unsigned *count)
{
	unsigned long value;
	char *end;

	value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || value < 1 || value > max)
		return usage_error(sub, "--%s %s: not a number from 1 to %u", option, text, max);
	*count = value;
	return 0;
}

static int memory_parse(struct options *o, const char *text)
{
	switch (size_parse(text, &o->memory)) {
	case 0:
		return 0;
	case -ERANGE:
		return usage_error(o->subcommand, "--mem %s: no machine has as much", text);
	default:
		return usage_error(o->subcommand, "--mem %s: not a size such as 1536M or 2G", text);
	}
}

/* Ours until this process ends.  The kernel that has an image open locks it in its own way. */
static bool image_lock(int fd)
{
	struct flock kernels = { .l_type = F_WRLCK };

	return flock(fd, LOCK_EX | LOCK_NB) == 0 && fcntl(fd, F_OFD_GETLK, &kernels) == 0 &&
	       kernels.l_type == F_UNLCK;
}

static int image_check(const char *text, const char *path)
{
	unsigned char magic[2];
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		complain("--root %s: %s", text, strerror(errno));
		return EXIT_USAGE;
	}
	n = pread(fd, magic, sizeof(magic), EXT4_MAGIC_OFFSET);
	if (n != sizeof(magic) || magic[0] != 0x53 || magic[1] != 0xef) {
		close(fd);
		complain("--root %s: neither a directory nor an ext4 image; make one with mkfs.ext4", text);
		return EXIT_USAGE;
	}
	if (image_lock(fd))
		return 0;
	close(fd);
	complain("--root %s: in use by another machine, and an image serves one at a time", text);
	return EXIT_PANGEA;
}

static int root_parse(struct options *o, const char *text)
{
	struct stat st;

	free(o->root);
	o->root = realpath(text, NULL);
	if (!o->root || stat(o->root, &st) < 0) {
		complain("--root %s: %s", text, strerror(errno));
		return EXIT_USAGE;
	}
	if (!S_ISDIR(st.st_mode)) {
		o->root_kind = ROOT_IMAGE;
		return image_check(text, o->root);
	}
	o->root_kind = strcmp(o->root, "/") ? ROOT_DIRECTORY : ROOT_HOST;
	return 0;
}

static int rw_parse(struct options *o, const char *text)
{
	char *path = realpath(text, NULL);
	struct stat st;
	size_t count = 0;

	if (!path || stat(path, &st) < 0) {
		complain("--rw %s: %s", text, strerror(errno));
		free(path);
		return EXIT_USAGE;
	}
	if (!S_ISDIR(st.st_mode) || !strcmp(path, "/")) {
		complain("--rw %s: %s", text,
			 path[1] ? "not a directory" : "this is the whole host; name a directory in it");
		free(path);
		return EXIT_USAGE;
	}
	while (o->rw && o->rw[count])
		count++;
	o->rw = reallocarray(o->rw, count + 2, sizeof(*o->rw));
	if (!o->rw)
		abort();
	o->rw[count] = path;
	o->rw[count + 1] = NULL;
	return 0;
}

static int name_parse(struct options *o, const char *text)
{
	if (!name_check(text))
		return usage_error(o->subcommand, "--name %s: letters, digits and hyphens, at most 63", text);
	o->name = text;
	return 0;
}

static int listen_parse(struct options *o, const char *text)
{
	if (strcmp(o->subcommand, "up"))
		return usage_error(o->subcommand, "--listen is an option of 'pangea up' only");
	if (address_check(text))
		return usage_error(o->subcommand, "--listen %s: not ADDRESS:PORT, as 127.0.0.1:7200", text);
	o->listen = text;
	return 0;
}

static int net_parse(struct options *o, const char *text)
{
	size_t length = strcspn(text, ",");

	if (!length || length >= sizeof(o->tap))
		return usage_error(o->subcommand, "--net %s: not the name of a network device", text);
	if (text[length] && !tap_address_check(text + length + 1))
		return usage_error(o->subcommand, "--net %s: not TAP,ADDRESS/BITS[,GATEWAY], as tap0,10.0.0.2/24",
				   text);
	snprintf(o->tap, sizeof(o->tap), "%.*s", (int)length, text);
	o->net_address = text[length] ? text + length + 1 : NULL;
	return 0;
}

/* getopt_long() has met something it does not know. */
int unknown_option(const char *sub, char **argv)
{
	if (optopt > 0 && optopt < 256)
		return usage_error(sub, "there is no option '-%c'", optopt);
	return usage_error(sub, "there is no option '%s'", argv[optind - 1]);
}

static int option_apply(struct options *o, int option, const char *argument, char **argv)
{
	switch (option) {
	case OPT_NODES:
		return count_parse(o->subcommand, "nodes", argument, NODES_MAX, &o->nodes);
	case OPT_CPUS:
		return count_parse(o->subcommand, "cpus", argument, CPUS_MAX, &o->cpus);
	case OPT_MEM:
		return memory_parse(o, argument);
	case OPT_ROOT:
		return root_parse(o, argument);
	case OPT_RW:
		return rw_parse(o, argument);
	case OPT_NAME:
		return name_parse(o, argument);
	case OPT_LISTEN:
		return listen_parse(o, argument);
	case OPT_NET:
		return net_parse(o, argument);
	case OPT_HELP:
		help_print(o->subcommand);
		return -1;
	case ':':
		return usage_error(o->subcommand, "%s needs an argument", argv[optind - 1]);
	default:
		return unknown_option(o->subcommand, argv);
	}
}

static int memory_check(const struct options *o)
{
	uint64_t available = memory_available();
	uint64_t here = o->one_node_here ? o->memory / o->nodes : o->memory;
	struct rlimit space, file;

	if (here > available) {
		complain("--mem: nodes here may need %lluM, there are %lluM to spare (of this host, or of its "
			 "control group); ask for less",
			 (unsigned long long)here >> 20, (unsigned long long)available >> 20);
		return EXIT_PANGEA;
	}
	if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY &&
	    space.rlim_cur < o->memory + KERNEL_SPACE) {
		complain("--mem: %lluM need an address space of %lluM, its limit is %lluM; see ulimit -v",
			 (unsigned long long)o->memory >> 20,
			 (unsigned long long)(o->memory + KERNEL_SPACE) >> 20,
			 (unsigned long long)space.rlim_cur >> 20);
		return EXIT_PANGEA;
	}
	if (getrlimit(RLIMIT_FSIZE, &file) == 0 && file.rlim_cur != RLIM_INFINITY && file.rlim_cur < o->memory) {
		complain("--mem: %lluM are held in a file of that size, whose limit is %lluM; see ulimit -f",
			 (unsigned long long)o->memory >> 20, (unsigned long long)file.rlim_cur >> 20);
		return EXIT_PANGEA;
	}
	return 0;
}

/* What is possible one by one may be impossible together. */
static int options_check(struct options *o)
{
	uint64_t least = LAYOUT_MIN_HOST + (o->nodes - 1) * LAYOUT_MIN_NODE;

	if (o->nodes * o->cpus > CPUS_MAX)
		return usage_error(o->subcommand, "%u nodes of %u CPUs are %u CPUs; a machine has at most %u",
				   o->nodes, o->cpus, o->nodes * o->cpus, CPUS_MAX);
	if (o->memory < least)
		return usage_error(o->subcommand, "--mem: %lluM are too little for %u node%s; the least is %lluM",
				   (unsigned long long)o->memory >> 20, o->nodes, o->nodes == 1 ? "" : "s",
				   (unsigned long long)least >> 20);
	if (o->one_node_here && !o->listen)
		return usage_error(o->subcommand, "--listen ADDR:PORT is missing");
	return memory_check(o);
}

int options_parse(struct options *o, const char *subcommand, int argc, char **argv)
{
	bool wants_command = !strcmp(subcommand, "run");
	int option, err;

	*o = (struct options){ .subcommand = subcommand, .nodes = 3, .cpus = 1, .memory = 1536ull << 20 };
	o->one_node_here = !strcmp(subcommand, "up");
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, "+:", long_options, NULL)) != -1) {
		err = option_apply(o, option, optarg, argv);
		if (err)
			return err;
	}
	if (optind < argc)
		o->command = argv + optind;
	if (wants_command && !o->command)
		return usage_error(subcommand, "COMMAND is missing");
	if (!strcmp(subcommand, "shell") && o->command)
		return usage_error(subcommand, "'%s': a shell takes no command", *o->command);
	return options_check(o);
}

void options_free(struct options *o)
{
	for (char **rw = o->rw; rw && *rw; rw++)
		free(*rw);
	free(o->rw);
	free(o->root);
}
