/* SPDX-License-Identifier: GPL-2.0 */
/* The daemon's log: one line per event, with time and level.  Any thread. */
#ifndef PANGEA_LOG_H
#define PANGEA_LOG_H

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO };

/* Append to a file from now on (before: to stderr).  0 or -errno. */
int log_open(const char *path);
/* format without newline. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
