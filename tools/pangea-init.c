// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a machine that runs one COMMAND (`pangea run`).
 *
 * The kernel boots with the kernel host's / as a read-only hostfs, and this program in it.  It reads what
 * to do (boot.h), builds the root that COMMAND will see under /dev (a directory that every host has), moves
 * there, starts COMMAND in a session of its own, adopts and reaps orphans, and when COMMAND has ended
 * writes back its status, takes down what is mounted and powers off.
 *
 * The root is an overlay: the host's tree below, a tmpfs above, so that COMMAND may write wherever its
 * credentials allow and the host never sees it.  Only --rw directories are mounts of the host that can be
 * written. An image needs no overlay; it is mounted as it is.
 *
 * SIGINT (the kernel's Ctrl-Alt-Del, which `pangea stop` uses) ends COMMAND: SIGTERM first, SIGKILL a
 * second later.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "boot.h"

#define STAGE	"/dev"		/* where the new root is put together */
#define ROOT	STAGE "/root"
#define GRACE_S	1		/* between SIGTERM and SIGKILL */
#define GROUPS_MAX 256

struct config {
	char *text;		/* all records; the strings below point into it */
	char **argv, **env, **rw;
	size_t argc, env_count, rw_count;
	const char *cwd, *root, *hostname, *streams;
	char *net;
	gid_t groups[GROUPS_MAX];
	size_t group_count;
	uid_t uid;
	gid_t gid;
	mode_t mask;
};

static int run_directory = -1;

static void write_report(const char *name, const char *text)
{
	int fd = openat(run_directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		unlinkat(run_directory, name, 0);
	close(fd);
}

static _Noreturn void power_off(int status)
{
	char text[16];
	int fd;

	snprintf(text, sizeof(text), "%d\n", status);
	write_report(BOOT_STATUS, text);
	fd = open("/proc/exitcode", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "pangea-init: /proc/exitcode: %s\n", strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	abort();
}

/* COMMAND cannot be started: one line for the user. */
static _Noreturn __attribute__((format(printf, 1, 2))) void fail(const char *format, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	fprintf(stderr, "pangea-init: %s\n", line);
	write_report(BOOT_FAILURE, line);
	power_off(BOOT_FAILED);
}

static char *read_file(const char *path, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	text = malloc(st.st_size + 1);
	if (!text)
		return NULL;
	n = read(fd, text, st.st_size);
	close(fd);
	if (n != st.st_size) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	*length = n;
	return text;
}

/* The three lists end with NULL. */
static void append(char ***list, size_t *count, char *value)
{
	char **longer = reallocarray(*list, *count + 2, sizeof(**list));

	if (!longer)
		fail("out of memory");
	longer[(*count)++] = value;
	longer[*count] = NULL;
	*list = longer;
}

static void config_record(struct config *c, char *key, char *value)
{
	if (!strcmp(key, "argv"))
		append(&c->argv, &c->argc, value);
	else if (!strcmp(key, "env"))
		append(&c->env, &c->env_count, value);
	else if (!strcmp(key, "rw"))
		append(&c->rw, &c->rw_count, value);
	else if (!strcmp(key, "cwd"))
		c->cwd = value;
	else if (!strcmp(key, "root"))
		c->root = value;
	else if (!strcmp(key, "hostname"))
		c->hostname = value;
	else if (!strcmp(key, "net"))
		c->net = value;
	else if (!strcmp(key, "streams"))
		c->streams = value;
	else if (!strcmp(key, "uid"))
		c->uid = strtoul(value, NULL, 10);
	else if (!strcmp(key, "gid"))
		c->gid = strtoul(value, NULL, 10);
	else if (!strcmp(key, "umask"))
		c->mask = strtoul(value, NULL, 8);
	else if (!strcmp(key, "group") && c->group_count < GROUPS_MAX)
		c->groups[c->group_count++] = strtoul(value, NULL, 10);
}

static void config_read(struct config *c, const char *directory)
{
	char path[4096];
	size_t length = 0;
	char *record, *value;

	snprintf(path, sizeof(path), "%s/" BOOT_CONFIG, directory);
	c->text = read_file(path, &length);
	if (!c->text)
		fail("%s: %s", path, strerror(errno));
	for (record = c->text; record < c->text + length; record = value + strlen(value) + 1) {
		value = strchr(record, '=');
		if (!value)
			fail("%s: a record without '='", path);
		*value++ = 0;
		config_record(c, record, value);
	}
	if (!c->argc || !c->root || !c->streams || strlen(c->streams) != 3)
		fail("%s: incomplete", path);
}

static void make_directories(const char *path)
{
	char part[4096];

	snprintf(part, sizeof(part), "%s", path);
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		mkdir(part, 0755);
		*p = '/';
	}
	mkdir(part, 0755);
}

static void mount_or_fail(const char *type, const char *target, unsigned long flags, const char *options)
{
	make_directories(target);
	if (mount(type, target, type, flags, options) < 0)
		fail("cannot mount %s on %s (%s): %s", type, target, options ?: "", strerror(errno));
}

static void mount_if_there(const char *type, const char *target, const char *options)
{
	make_directories(target);
	if (mount(type, target, type, MS_NOSUID, options) < 0)
		fprintf(stderr, "pangea-init: %s on %s: %s\n", type, target, strerror(errno));
}

static void stage_make(const char *directory)
{
	mount_or_fail("tmpfs", STAGE, 0, "mode=755");
	mount_or_fail("hostfs", STAGE "/run", 0, directory);
	run_directory = open(STAGE "/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (run_directory < 0)
		fail("%s: %s", directory, strerror(errno));
	umount2(STAGE "/run", MNT_DETACH);
}

static void root_make_image(void)
{
	mount_or_fail("devtmpfs", STAGE "/nodes", 0, "");
	mkdir(ROOT, 0755);
	if (mount(STAGE "/nodes/ubda", ROOT, "ext4", 0, "") < 0)
		fail("the root image cannot be mounted as ext4: %s", strerror(errno));
	umount2(STAGE "/nodes", MNT_DETACH);
}

static void root_make_overlay(const char *lower)
{
	char options[256];

	snprintf(options, sizeof(options),
		 "lowerdir=%s,upperdir=" STAGE "/upper,workdir=" STAGE "/work,redirect_dir=on", lower);
	mkdir(STAGE "/upper", 0755);
	mkdir(STAGE "/work", 0755);
	mount_or_fail("overlay", ROOT, 0, options);
}

static void root_make(const struct config *c)
{
	const char *directory = c->root + strlen("dir:");

	if (!strcmp(c->root, "image")) {
		root_make_image();
	} else if (!strcmp(c->root, "host")) {
		root_make_overlay("/");
	} else {
		mount_or_fail("hostfs", STAGE "/lower", MS_RDONLY, directory);
		root_make_overlay(STAGE "/lower");
	}
}

/* COMMAND's directory, if it is about to be hidden by what is mounted next; -1. */
static int hidden_open(const char *directory)
{
	char path[4200];

	if (!directory || (strncmp(directory, "/dev/", 5) && strncmp(directory, "/run/", 5)))
		return -1;
	snprintf(path, sizeof(path), ROOT "%s", directory);
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* It alone comes back, over what hid it. */
static void hidden_restore(int fd, const char *directory)
{
	char source[32], target[4200];

	if (fd < 0)
		return;
	snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
	snprintf(target, sizeof(target), ROOT "%s", directory);
	make_directories(target);
	if (mount(source, target, NULL, MS_BIND, NULL) < 0)
		fprintf(stderr, "pangea-init: %s: %s\n", directory, strerror(errno));
	close(fd);
}

static void devices_make(void)
{
	static const struct { const char *path, *target; } links[] = {
		{ ROOT "/dev/fd", "/proc/self/fd" },
		{ ROOT "/dev/stdin", "/proc/self/fd/0" },
		{ ROOT "/dev/stdout", "/proc/self/fd/1" },
		{ ROOT "/dev/stderr", "/proc/self/fd/2" },
	};

	mount_or_fail("devtmpfs", ROOT "/dev", MS_NOSUID, "mode=755");
	mount_if_there("devpts", ROOT "/dev/pts", "gid=5,mode=620,ptmxmode=666");
	mount_if_there("mqueue", ROOT "/dev/mqueue", "");
	mount_or_fail("tmpfs", ROOT "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		if (symlink(links[i].target, links[i].path) < 0 && errno != EEXIST)
			fprintf(stderr, "pangea-init: %s: %s\n", links[i].path, strerror(errno));
}

static void root_furnish(const struct config *c)
{
	int hidden = hidden_open(c->cwd);

	mount_or_fail("proc", "/proc", 0, "");
	devices_make();
	mount_or_fail("tmpfs", ROOT "/run", MS_NOSUID | MS_NODEV, "mode=755");
	hidden_restore(hidden, c->cwd);
	mount_if_there("sysfs", ROOT "/sys", "");
	mount_if_there("cgroup2", ROOT "/sys/fs/cgroup", "");
	make_directories(ROOT "/tmp");
	make_directories(ROOT "/proc");
	for (size_t i = 0; i < c->rw_count; i++) {
		char target[4200];

		snprintf(target, sizeof(target), ROOT "%s", c->rw[i]);
		mount_or_fail("hostfs", target, 0, c->rw[i]);
	}
	if (mount("/proc", ROOT "/proc", NULL, MS_MOVE, NULL) < 0)
		fail("cannot move /proc: %s", strerror(errno));
}

static void root_enter(void)
{
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		fail("cannot change to the new root: %s", strerror(errno));
}

static void device_up(int fd, const char *name)
{
	struct ifreq ifr = { .ifr_flags = IFF_UP | IFF_RUNNING };

	strcpy(ifr.ifr_name, name);
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		fprintf(stderr, "pangea-init: %s: %s\n", name, strerror(errno));
}

static struct sockaddr internet(in_addr_t address)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = address };
	struct sockaddr any;

	memcpy(&any, &in, sizeof(any));
	return any;
}

/* net: ADDRESS/BITS[,GATEWAY], which pangea has checked. */
static void device_configure(int fd, const char *name, char *net)
{
	char *gateway = strchr(net, ','), *bits = strchr(net, '/');
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	struct ifreq address, mask;
	unsigned count = strtoul(bits + 1, NULL, 10);

	*bits = 0;
	strcpy(address.ifr_name, name);
	strcpy(mask.ifr_name, name);
	address.ifr_addr = internet(inet_addr(net));
	mask.ifr_netmask = internet(htonl(count ? ~0u << (32 - count) : 0));
	if (ioctl(fd, SIOCSIFADDR, &address) < 0 || ioctl(fd, SIOCSIFNETMASK, &mask) < 0)
		fail("--net: the address %s: %s", net, strerror(errno));
	device_up(fd, name);
	if (!gateway)
		return;
	route.rt_dst = internet(INADDR_ANY);
	route.rt_genmask = internet(INADDR_ANY);
	route.rt_gateway = internet(inet_addr(gateway + 1));
	if (ioctl(fd, SIOCADDRT, &route) < 0)
		fail("--net: the gateway %s: %s", gateway + 1, strerror(errno));
}

static void network_up(const struct config *c)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("there is no network: %s", strerror(errno));
	device_up(fd, "lo");
	if (c->net)
		device_configure(fd, "vec0", c->net);
	close(fd);
}

/*
 * The session is this process's own: a terminal is hung up when its session's leader ends, and what is
 * still on its way to the user would be lost.  COMMAND's process group is its foreground; being a child of
 * the first process it counts as orphaned, so ^Z cannot stop it with nobody there to continue it.
 */
static int terminal_take(const struct config *c)
{
	int fd;

	if (!strchr(c->streams, 't'))
		return -1;
	fd = open("/dev/tty0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fchown(fd, c->uid, 5) < 0 || fchmod(fd, 0620) < 0 ||
	    setsid() < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
		fail("/dev/tty0: %s", strerror(errno));
	return fd;
}

/* On the host it may be open in one direction only; that is the host's to refuse. */
static void stream_open(int number, char kind)
{
	static const char *const devices[] = { "/dev/pangea0", "/dev/pangea1", "/dev/pangea2" };
	int fd;

	close(number);
	if (kind == '-')
		return;
	fd = open(kind == 't' ? "/dev/tty0" : devices[number], O_RDWR | O_NOCTTY);
	if (fd < 0)
		_exit(BOOT_FAILED);
	if (fd != number) {
		dup2(fd, number);
		close(fd);
	}
}

static void streams_open(const char *kinds)
{
	/* A closed descriptor below an open one must not be taken by it. */
	for (int i = 0; i < 3; i++)
		dup2(open("/dev/null", O_RDWR | O_CLOEXEC), i);
	for (int i = 0; i < 3; i++)
		if (kinds[i] != '-')
			stream_open(i, kinds[i]);
	for (int i = 0; i < 3; i++)
		if (kinds[i] == '-')
			close(i);
}

static _Noreturn void command_exec(const struct config *c, int terminal)
{
	sigset_t none;

	if (terminal < 0) {
		setsid();
	} else {
		setpgid(0, 0);
		tcsetpgrp(terminal, getpid());
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	streams_open(c->streams);
	umask(c->mask);
	if (setgroups(c->group_count, c->groups) < 0 || setresgid(c->gid, c->gid, c->gid) < 0 ||
	    setresuid(c->uid, c->uid, c->uid) < 0) {
		dprintf(2, "pangea: cannot become user %u: %s\n", c->uid, strerror(errno));
		_exit(BOOT_FAILED);
	}
	/* Another root need not have that directory; COMMAND then starts in /. */
	if (c->cwd && chdir(c->cwd) < 0 && !strcmp(c->root, "host"))
		dprintf(2, "pangea: %s: %s; starting in /\n", c->cwd, strerror(errno));
	environ = c->env;
	execvp(c->argv[0], c->argv);
	if (errno == ENOENT || errno == ENOTDIR) {
		dprintf(2, "pangea: %s: not found\n", c->argv[0]);
		_exit(BOOT_NOT_FOUND);
	}
	dprintf(2, "pangea: %s: %s\n", c->argv[0], strerror(errno));
	_exit(BOOT_NOT_EXECUTABLE);
}

static int status_of(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* Reaps what has ended; true when COMMAND was among it. */
static bool reap(pid_t command, int *status)
{
	bool ended = false;
	int wait_status;
	pid_t pid;

	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		*status = status_of(wait_status);
		ended = true;
	}
	return ended;
}

static int command_wait(pid_t command, const sigset_t *signals)
{
	const struct timespec grace = { .tv_sec = GRACE_S };
	bool ending = false;
	int status = 0, sig;

	while (!reap(command, &status)) {
		sig = sigtimedwait(signals, NULL, ending ? &grace : NULL);
		if (sig == SIGINT && !ending) {
			ending = true;
			kill(-1, SIGTERM);
			kill(-1, SIGCONT);
		} else if (sig < 0 && errno == EAGAIN) {
			kill(-1, SIGKILL);
		}
	}
	return status;
}

static void processes_end(void)
{
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void filesystems_end(const struct config *c)
{
	sync();
	for (size_t i = c->rw_count; i > 0; i--)
		if (umount(c->rw[i - 1]) < 0)
			fprintf(stderr, "pangea-init: umount %s: %s\n", c->rw[i - 1], strerror(errno));
	if (!strcmp(c->root, "image") && mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		fprintf(stderr, "pangea-init: root: %s\n", strerror(errno));
}

int main(void)
{
	const char *directory = getenv(BOOT_PARAMETER);
	struct config config = { .mask = 022 };
	sigset_t signals;
	int status, terminal;
	pid_t command;

	if (getpid() != 1 || !directory) {
		fprintf(stderr, "pangea-init: the first process of a machine; started by pangea(1) only\n");
		return 2;
	}
	sigfillset(&signals);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	reboot(RB_DISABLE_CAD);
	umask(0);
	stage_make(directory);
	config_read(&config, directory);
	root_make(&config);
	root_furnish(&config);
	root_enter();
	network_up(&config);
	if (config.hostname && sethostname(config.hostname, strlen(config.hostname)) < 0)
		fprintf(stderr, "pangea-init: hostname: %s\n", strerror(errno));
	terminal = terminal_take(&config);
	write_report(BOOT_STARTED, "");

	command = fork();
	if (command < 0)
		fail("cannot start a process: %s", strerror(errno));
	if (command == 0)
		command_exec(&config, terminal);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	status = command_wait(command, &signals);
	processes_end();
	if (terminal >= 0)
		tcdrain(terminal);
	filesystems_end(&config);
	power_off(status);
}
