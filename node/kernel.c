// SPDX-License-Identifier: GPL-2.0
/*
 * Starting and ending the kernel process (ssi/contract.h is what it is told).
 *
 * The kernel inherits exactly the descriptors that struct ssi_boot names, the caller's standard streams and its
 * network socket; everything else is close-on-exec.  Inherited descriptors are first moved above INHERIT_MIN, out
 * of the way of the fixed numbers.
 *
 * It runs in a session of its own: signals from the terminal do not reach it, and it may still read a
 * terminal that it was handed, because no job control applies to a terminal that is not its session's.  It
 * dies with this daemon's main thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ssi/contract.h"
#include "kernel.h"
#include "log.h"

#define INHERIT_MIN	64	/* above 0..2 and STDIO_FIRST..NET_FD */
#define INHERIT_MAX	(2 * WIRE_CPUS_MAX + WIRE_NODES_MAX + 5)
#define STDIO_FIRST	10
#define NET_FD		13
#define PF_EXITING	4	/* of the flags in /proc/PID/stat */
#define ARGUMENT_SIZE	640	/* of one argument made here; numa= is the longest */

_Static_assert(WIRE_CPUS_MAX == SSI_CPUS_MAX && WIRE_NODES_MAX == SSI_NODES_MAX, "one machine");

/* Everything that the child needs, prepared so that nothing is allocated between fork and exec. */
struct launch {
	const struct options *options;
	pid_t parent;
	int inherit[INHERIT_MAX];
	unsigned inherit_count;
	int null_fd, log_fd, net_fd;
	int error_pipe[2];		/* tells the errno of a failed exec */
	char **argv;
	char argument[5][ARGUMENT_SIZE];
};

/* A descriptor for the child, from one that is closed here.  Its number, or -1. */
static int inherit(struct launch *l, int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, INHERIT_MIN);

	close(fd);
	if (moved >= 0)
		l->inherit[l->inherit_count++] = moved;
	return moved;
}

/* A pair of connected sockets: one for the child (its number is returned), one for the machine. -errno. */
static int inherit_pair(struct launch *l, int *mine)
{
	int fds[2], number;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	number = inherit(l, fds[1]);
	if (number < 0) {
		number = -errno;
		close(fds[0]);
		return number;
	}
	*mine = fds[0];
	return number;
}

static int local_cpu(struct launch *l, struct machine *machine, unsigned cpu)
{
	int mine, ret, number = inherit_pair(l, &mine);
	struct link *link;
	char name[32];

	if (number < 0)
		return number;
	snprintf(name, sizeof(name), "the kernel's CPU %u", cpu);
	link = link_socket_new(mine, WIRE_PURPOSE_CPU, name);
	if (!link)
		return -ENOMEM;
	ret = machine_attach_cpu(machine, cpu, link);
	if (ret)
		link->ops->free(link);
	return ret ? ret : number;
}

static int local_mm(struct launch *l, struct machine *machine)
{
	int mine, ret, number = inherit_pair(l, &mine);
	struct link *link;

	if (number < 0)
		return number;
	link = link_socket_new(mine, WIRE_PURPOSE_MM, "the kernel");
	if (!link)
		return -ENOMEM;
	ret = machine_attach_mm(machine, link);
	if (ret)
		link->ops->free(link);
	return ret ? ret : number;
}

static int pager(struct launch *l, struct machine *machine)
{
	int mine, ret, number = inherit_pair(l, &mine);

	if (number < 0)
		return number;
	ret = machine_attach_kernel(machine, mine);
	return ret ? ret : number;
}

/* Hand a channel of another node on: its number for the child, or -errno. */
static int take(struct launch *l, int *fd)
{
	int number = inherit(l, *fd);

	*fd = -1;
	return number < 0 ? -errno : number;
}

static int fill_cpus(struct launch *l, struct ssi_boot *boot, const struct layout *layout,
		     struct machine *machine, struct kernel_channels *channels)
{
	unsigned cpu;

	for (cpu = 0; cpu < layout->cpus; cpu++) {
		bool own = cpu < layout->node[0].cpu_count;

		boot->cpu_fd[cpu] = own ? local_cpu(l, machine, cpu) : take(l, &channels->cpu[cpu]);
		if (boot->cpu_fd[cpu] < 0)
			return boot->cpu_fd[cpu];
		boot->start_fd[cpu] = -1;
		if (own || !l->options->start_ms)
			continue;
		boot->start_fd[cpu] = local_cpu(l, machine, cpu);
		if (boot->start_fd[cpu] < 0)
			return boot->start_fd[cpu];
	}
	return 0;
}

static int fill_nodes(struct launch *l, struct ssi_boot *boot, const struct layout *layout,
		      struct machine *machine, struct kernel_channels *channels)
{
	unsigned i;

	for (i = 0; i < layout->nodes; i++) {
		const struct layout_node *node = &layout->node[i];
		int fd = i ? take(l, &channels->mm[i]) : local_mm(l, machine);

		if (fd < 0)
			return fd;
		boot->nodes[i] = (struct ssi_boot_node){
			.pfn_start = node->pfn_start, .pfn_count = node->pfn_count,
			.cpu_start = node->cpu_start, .cpu_count = node->cpu_count,
			.mm_fd = fd,
		};
	}
	return 0;
}

static int fill_boot(struct launch *l, struct ssi_boot *boot, const struct layout *layout,
		     struct machine *machine, struct kernel_channels *channels)
{
	int ret, rights_fd, arena_fd, frame_fd = dup(machine_frame_fd(machine));

	if (frame_fd < 0)
		return -errno;
	boot->frame_fd = inherit(l, frame_fd);
	if (boot->frame_fd < 0)
		return -errno;
	rights_fd = dup(machine_rights_fd(machine));
	if (rights_fd < 0)
		return -errno;
	boot->rights_fd = inherit(l, rights_fd);
	if (boot->rights_fd < 0)
		return -errno;
	arena_fd = dup(machine_arena_fd(machine));
	if (arena_fd < 0)
		return -errno;
	boot->arena_fd = inherit(l, arena_fd);
	if (boot->arena_fd < 0)
		return -errno;
	boot->pager_fd = pager(l, machine);
	if (boot->pager_fd < 0)
		return boot->pager_fd;
	ret = fill_cpus(l, boot, layout, machine, channels);
	return ret ? ret : fill_nodes(l, boot, layout, machine, channels);
}

/* The file that holds struct ssi_boot: its number for the child, or -errno. */
static int boot_file(struct launch *l, const struct ssi_boot *boot)
{
	int fd = memfd_create("ssi-boot", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (pwrite(fd, boot, sizeof(*boot), 0) != sizeof(*boot)) {
		close(fd);
		return -EIO;
	}
	fd = inherit(l, fd);
	return fd < 0 ? -errno : fd;
}

static int build_arguments(struct launch *l, const struct layout *layout, int boot_fd)
{
	char *numa = l->argument[4];
	size_t own = 1 + 5, given = 0, used;
	unsigned i;

	while (l->options->kernel_arguments[given])
		given++;
	l->argv = calloc(own + given + 1, sizeof(*l->argv));
	if (!l->argv)
		return -ENOMEM;
	snprintf(l->argument[0], ARGUMENT_SIZE, "ssi=%d", boot_fd);
	snprintf(l->argument[1], ARGUMENT_SIZE, "seccomp=on");
	snprintf(l->argument[2], ARGUMENT_SIZE, "mem=%lluK",
		 (unsigned long long)layout->frames * NODE_PAGE_SIZE >> 10);
	snprintf(l->argument[3], ARGUMENT_SIZE, "ncpus=%u", layout->cpus);
	used = snprintf(numa, ARGUMENT_SIZE, "numa=");
	for (i = 0; i < layout->nodes; i++)
		used += snprintf(numa + used, ARGUMENT_SIZE - used, "%s%lluM:%u", i ? "," : "",
				 (unsigned long long)layout->node[i].pfn_count * NODE_PAGE_SIZE >> 20,
				 layout->node[i].cpu_count);
	l->argv[0] = (char *)l->options->kernel;
	for (i = 0; i < 5; i++)
		l->argv[1 + i] = l->argument[i];
	memcpy(l->argv + own, l->options->kernel_arguments, given * sizeof(*l->argv));
	return 0;
}

static int open_high(const char *path, int flags)
{
	int moved, fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, INHERIT_MIN);
	close(fd);
	return moved;
}

static int open_streams(struct launch *l)
{
	int fds[2];

	l->null_fd = open_high("/dev/null", O_RDWR);
	l->log_fd = open_high(l->options->log, O_WRONLY | O_CREAT | O_APPEND);
	if (l->options->net_fd >= 0) {
		l->net_fd = fcntl(l->options->net_fd, F_DUPFD_CLOEXEC, INHERIT_MIN);
		if (l->net_fd < 0)
			return -errno;
	}
	if (l->null_fd < 0 || l->log_fd < 0 || pipe2(fds, O_CLOEXEC))
		return -errno;
	l->error_pipe[0] = fds[0];
	l->error_pipe[1] = fcntl(fds[1], F_DUPFD_CLOEXEC, INHERIT_MIN);
	close(fds[1]);
	return l->error_pipe[1] < 0 ? -errno : 0;
}

/* In the child: only async-signal-safe calls, because other threads may hold any lock. */
static void __attribute__((noreturn)) child(const struct launch *l)
{
	sigset_t none;
	unsigned i;
	int error;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shorten_slices();
	if (getppid() != l->parent)
		_exit(125);
	if (setsid() < 0)
		goto fail;
	for (i = 0; i < 3 && l->options->stdio; i++)
		if (dup2((int)i, STDIO_FIRST + (int)i) < 0)
			goto fail;
	if (l->net_fd >= 0 && dup2(l->net_fd, NET_FD) < 0)
		goto fail;
	if (dup2(l->null_fd, 0) < 0 || dup2(l->log_fd, 1) < 0 || dup2(l->log_fd, 2) < 0)
		goto fail;
	for (i = 0; i < l->inherit_count; i++)
		if (fcntl(l->inherit[i], F_SETFD, 0) < 0)
			goto fail;
	execv(l->options->kernel, l->argv);
fail:
	error = errno;
	if (write(l->error_pipe[1], &error, sizeof(error)) < 0)
		_exit(124);
	_exit(125);
}

/* 0 when the child has executed the kernel, else -errno of what failed there; it is reaped then. */
static int wait_for_exec(struct launch *l, struct kernel *kernel)
{
	int error = 0;
	ssize_t n;

	close(l->error_pipe[1]);
	l->error_pipe[1] = -1;
	do {
		n = read(l->error_pipe[0], &error, sizeof(error));
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return 0;
	kernel_reap(kernel);
	return -error;
}

static int spawn(struct launch *l, struct kernel *kernel)
{
	l->parent = getpid();
	kernel->pid = fork();
	if (kernel->pid < 0) {
		kernel->pid = 0;
		return -errno;
	}
	if (!kernel->pid)
		child(l);
	kernel->pidfd = (int)syscall(SYS_pidfd_open, kernel->pid, 0);
	if (kernel->pidfd < 0) {
		int error = -errno;

		kernel_kill(kernel);
		return error;
	}
	return wait_for_exec(l, kernel);
}

static void close_launch(struct launch *l)
{
	const int more[] = { l->null_fd, l->log_fd, l->net_fd, l->error_pipe[0], l->error_pipe[1] };
	unsigned i;

	for (i = 0; i < l->inherit_count; i++)
		close(l->inherit[i]);
	for (i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		if (more[i] >= 0)
			close(more[i]);
	free(l->argv);
}

int kernel_start(struct kernel *kernel, const struct options *options, const struct layout *layout,
		 struct machine *machine, struct kernel_channels *channels, char *err, size_t err_size)
{
	struct launch l = {
		.options = options, .null_fd = -1, .log_fd = -1, .net_fd = -1, .error_pipe = { -1, -1 },
	};
	struct ssi_boot boot = {
		.magic = SSI_BOOT_MAGIC, .version = SSI_BOOT_VERSION,
		.node_count = layout->nodes, .cpu_count = layout->cpus,
		.start_us = options->start_ms * 1000, .start_follows_calls = options->start_follows_calls,
	};
	const char *what = "cannot prepare the kernel's channels";
	int ret;

	ret = fill_boot(&l, &boot, layout, machine, channels);
	if (ret)
		goto out;
	ret = boot_file(&l, &boot);
	if (ret < 0)
		goto out;
	ret = build_arguments(&l, layout, ret);
	if (!ret)
		ret = open_streams(&l);
	if (ret)
		goto out;
	what = "cannot execute the kernel";
	ret = spawn(&l, kernel);
	if (!ret)
		log_line(LOG_INFO, "kernel started, pid %d: %s %s %s %s %s", (int)kernel->pid,
			 options->kernel, l.argument[0], l.argument[2], l.argument[3], l.argument[4]);
out:
	close_launch(&l);
	kernel_channels_close(channels);
	if (ret)
		snprintf(err, err_size, "%s %s: %s", what, options->kernel, strerror(-ret));
	return ret ? -1 : 0;
}

bool kernel_is_ending(const struct kernel *kernel)
{
	char path[32], line[256] = "";
	const char *name_end;
	unsigned flags;
	FILE *file;

	if (!kernel->pid)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)kernel->pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	name_end = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	fclose(file);
	return name_end && sscanf(name_end, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & PF_EXITING;
}

int kernel_reap(struct kernel *kernel)
{
	int status = 0;

	while (waitpid(kernel->pid, &status, 0) < 0 && errno == EINTR)
		;
	kernel->pid = 0;
	if (kernel->pidfd >= 0)
		close(kernel->pidfd);
	kernel->pidfd = -1;
	return status;
}

void kernel_kill(struct kernel *kernel)
{
	if (!kernel->pid)
		return;
	kill(kernel->pid, SIGKILL);
	kernel_reap(kernel);
}

void kernel_channels_close(struct kernel_channels *channels)
{
	unsigned i;

	for (i = 0; i < WIRE_CPUS_MAX; i++) {
		if (channels->cpu[i] >= 0)
			close(channels->cpu[i]);
		channels->cpu[i] = -1;
	}
	for (i = 0; i < WIRE_NODES_MAX; i++) {
		if (channels->mm[i] >= 0)
			close(channels->mm[i]);
		channels->mm[i] = -1;
	}
}
