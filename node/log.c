// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static int log_fd = STDERR_FILENO;

int log_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	log_fd = fd;
	return 0;
}

void log_line(enum log_level level, const char *format, ...)
{
	static const char *const names[] = { "error", "warning", "info" };
	struct timespec now;
	char line[512];
	va_list args;
	int n, more;

	clock_gettime(CLOCK_REALTIME, &now);
	n = strftime(line, sizeof(line), "%F %T", gmtime_r(&now.tv_sec, &(struct tm){ 0 }));
	n += snprintf(line + n, sizeof(line) - n, ".%03ld %s: ", now.tv_nsec / 1000000, names[level]);
	va_start(args, format);
	more = vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	va_end(args);
	n = more < (int)sizeof(line) - n - 1 ? n + more : (int)sizeof(line) - 2;
	line[n] = '\n';
	/* one write per line, so that lines of several threads do not mix */
	if (write(log_fd, line, n + 1) < 0)
		return;
}
