// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel and the machine's first process are told, and what comes back (boot.h).
 *
 * A path never stands on the kernel's command line as the user wrote it: blanks and commas mean something
 * there. The run directory's own path is plain, and links in it lead to the first process and the root
 * image.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "boot.h"
#include "pangea.h"

#define UML_NAME	"kernel"	/* of its directory in ours, where its management socket is */
#define ARGUMENTS_MAX	24

struct program {
	const char *file, *variable, *missing;
};

static const struct program program_daemon = { "pangead", "PANGEA_DAEMON", "run ./demo or make" };
static const struct program program_stub = { "pangea-stub", "PANGEA_STUB", "run ./demo or make" };
static const struct program program_init = { "pangea-init", "PANGEA_INIT", "run ./demo or make" };
static const struct program program_kernel = { "pangea-linux", "PANGEA_KERNEL", "run ./demo or make kernel" };

/* The directory of this program, or of the others where they are installed. */
static int program_find(char *path, const struct program *program)
{
	static const char *const places[] = { "", "/../libexec/pangea" };
	const char *override = getenv(program->variable);
	char self[PATH_MAX / 2];
	ssize_t n;

	if (override && *override) {
		if (realpath(override, path) && access(path, X_OK) == 0)
			return 0;
		complain("%s=%s: %s", program->variable, override, strerror(errno));
		return EXIT_PANGEA;
	}
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n < 0 ? 0 : n] = 0;
	dirname(self);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char candidate[PATH_MAX];

		snprintf(candidate, sizeof(candidate), "%s%s/%s", self, places[i], program->file);
		if (realpath(candidate, path) && access(path, X_OK) == 0)
			return 0;
	}
	complain("%s is not in %s or %s/../libexec/pangea; %s", program->file, self, self, program->missing);
	return EXIT_PANGEA;
}

int programs_find_node(struct programs *p)
{
	return program_find(p->daemon, &program_daemon) ?: program_find(p->stub, &program_stub);
}

int programs_find(struct programs *p)
{
	return programs_find_node(p) ?: program_find(p->init, &program_init) ?:
	       program_find(p->kernel, &program_kernel);
}

__attribute__((format(printf, 3, 4)))
static void record(FILE *f, const char *key, const char *format, ...)
{
	va_list ap;

	fprintf(f, "%s=", key);
	va_start(ap, format);
	vfprintf(f, format, ap);
	va_end(ap);
	fputc(0, f);
}

static void write_credentials(FILE *f)
{
	gid_t groups[NGROUPS_MAX];
	int count = getgroups(NGROUPS_MAX, groups);
	mode_t mask = umask(0);

	umask(mask);
	record(f, "uid", "%u", geteuid());
	record(f, "gid", "%u", getegid());
	record(f, "umask", "%o", mask);
	for (int i = 0; i < count; i++)
		record(f, "group", "%u", groups[i]);
}

static void write_root(FILE *f, const struct options *o)
{
	switch (o->root_kind) {
	case ROOT_HOST:
		record(f, "root", "host");
		break;
	case ROOT_DIRECTORY:
		record(f, "root", "dir:%s", o->root);
		break;
	case ROOT_IMAGE:
		record(f, "root", "image");
		break;
	}
	for (char **rw = o->rw; rw && *rw; rw++)
		record(f, "rw", "%s", *rw);
}

static void write_config(FILE *f, const struct options *o, const struct directory *d,
			 const struct streams *streams, const char *cwd)
{
	for (char **word = o->command; *word; word++)
		record(f, "argv", "%s", *word);
	for (char **variable = environ; *variable; variable++)
		record(f, "env", "%s", *variable);
	record(f, "cwd", "%s", cwd);
	write_credentials(f);
	write_root(f, o);
	record(f, "hostname", "%s", d->name);
	if (o->net_address)
		record(f, "net", "%s", o->net_address);
	record(f, "streams", "%s", streams->kind);
}

int boot_configure(const struct options *o, const struct programs *p, const struct directory *d,
		   const struct streams *streams)
{
	const char *path = directory_file(d, BOOT_CONFIG);
	char cwd[PATH_MAX];
	bool written;
	FILE *f;

	if (!getcwd(cwd, sizeof(cwd))) {
		complain("the current directory: %s; change to another one", strerror(errno));
		return EXIT_PANGEA;
	}
	f = fopen(path, "we");
	if (f) {
		write_config(f, o, d, streams, cwd);
		written = !ferror(f);
		if (fclose(f) == 0 && written && symlink(p->init, directory_file(d, "init")) == 0 &&
		    (o->root_kind != ROOT_IMAGE || symlink(o->root, directory_file(d, "image")) == 0))
			return 0;
	}
	complain("%s: %s", d->path, strerror(errno));
	return EXIT_PANGEA;
}

__attribute__((format(printf, 3, 4)))
static bool argument(char **list, unsigned *count, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vasprintf(&list[*count], format, ap);
	va_end(ap);
	if (n < 0)
		list[*count] = NULL;
	else
		(*count)++;
	return n >= 0;
}

#define KERNEL_NET_FD	13

/* The kernel process inherits the streams as 10, 11 and 12. */
static bool stream_arguments(char **list, unsigned *count, const char *kind)
{
	const char *t = strchr(kind, 't');
	int fd[3];

	for (int i = 0; i < 3; i++)
		fd[i] = kind[i] == 'p' ? 10 + i : -1;
	if (!argument(list, count, "ssi_stdio=%d,%d,%d", fd[0], fd[1], fd[2]))
		return false;
	if (!t)
		return argument(list, count, "con0=null");
	return argument(list, count, "con0=fd:%d,fd:%d", (int)(10 + (t - kind)), (int)(10 + (t - kind)));
}

char **boot_kernel_arguments(const struct options *o, const struct directory *d,
			     const struct streams *streams)
{
	char **list = calloc(ARGUMENTS_MAX, sizeof(*list));
	unsigned count = 0;
	bool ok = list;

	ok = ok && argument(list, &count, "rootfstype=hostfs") && argument(list, &count, "rootflags=/") &&
	     argument(list, &count, "ro") && argument(list, &count, "init=%s/init", d->path) &&
	     argument(list, &count, BOOT_PARAMETER "=%s", d->path) &&
	     argument(list, &count, "uml_dir=%s", d->path) && argument(list, &count, "umid=" UML_NAME) &&
	     argument(list, &count, "con=null") && argument(list, &count, "ssl=null") &&
	     argument(list, &count, "ssl0=null,fd:2") && argument(list, &count, "console=ttyS0") &&
	     stream_arguments(list, &count, streams->kind);
	if (ok && *o->tap)
		ok = argument(list, &count, "vec0:transport=fd,fd=%d", KERNEL_NET_FD);
	if (ok && o->root_kind == ROOT_IMAGE)
		ok = argument(list, &count, "ubd0=%s/image", d->path);
	if (ok)
		return list;
	for (unsigned i = 0; i < count; i++)
		free(list[i]);
	free(list);
	return NULL;
}

int boot_result(const struct directory *d, char *failure, size_t size)
{
	FILE *f = fopen(directory_file(d, BOOT_STATUS), "re");
	int status = -1;

	failure[0] = 0;
	if (f) {
		if (fscanf(f, "%d", &status) != 1)
			status = -1;
		fclose(f);
	}
	f = fopen(directory_file(d, BOOT_FAILURE), "re");
	if (f) {
		if (!fgets(failure, size, f))
			failure[0] = 0;
		fclose(f);
	}
	return status;
}

bool boot_has_started(const struct directory *d)
{
	return access(directory_file(d, BOOT_STARTED), F_OK) == 0;
}

/* Ctrl-Alt-Del through the kernel's management socket: one request, whose answer nobody needs. */
bool boot_ask_to_end(const struct directory *d)
{
	struct {
		uint32_t magic, version, length;
		char data[512];
	} request = { .magic = 0xcafebabe, .version = 2, .length = sizeof("cad"), .data = "cad" };
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd;
	bool sent;

	if (!boot_has_started(d))
		return false;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", directory_file(d, UML_NAME "/mconsole"));
	sent = sendto(fd, &request, sizeof(request), MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) > 0;
	close(fd);
	return sent;
}
