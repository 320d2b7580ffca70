// SPDX-License-Identifier: GPL-2.0
/*
 * The host has so much to spare, and each control group from ours up to the root may allow less: its limit, less
 * what is in use, but for file cache that the kernel gives back first.  In a container the path that
 * /proc/self/cgroup tells may not exist; then the walk ends at what is mounted, which is the container's.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "memory.h"

/* Where a hierarchy is mounted, and what its files are called. */
struct hierarchy {
	const char *mount, *limit, *usage, *cache;
};

static const struct hierarchy version1 = {
	"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
};
static const struct hierarchy version2 = {
	"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file",
};

/* The number after a key in a file, or at its beginning; false: there is none. */
static bool number(const char *path, const char *key, unsigned long long *value)
{
	char line[256], format[64];
	FILE *f = fopen(path, "re");
	bool found = false;

	if (!f)
		return false;
	snprintf(format, sizeof(format), "%s %%llu", key);
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, format, value) == 1;
	fclose(f);
	return found;
}

static uint64_t group_available(const struct hierarchy *h, const char *group)
{
	unsigned long long limit, used, cache = 0;
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s%s/%s", h->mount, group, h->limit);
	if (!number(path, "", &limit))	/* "max", or no such group */
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%s%s/%s", h->mount, group, h->usage);
	if (!number(path, "", &used))
		return limit;
	snprintf(path, sizeof(path), "%s%s/memory.stat", h->mount, group);
	number(path, h->cache, &cache);
	used -= cache < used ? cache : used;
	return limit > used ? limit - used : 0;
}

/* Takes the path apart. */
static uint64_t groups_available(const struct hierarchy *h, char *group)
{
	uint64_t least = UINT64_MAX, here;
	char *slash;

	do {
		slash = strrchr(group, '/');
		if (slash && !slash[1])
			*slash = 0;
		here = group_available(h, group);
		if (here < least)
			least = here;
		slash = strrchr(group, '/');
		if (slash)
			*slash = 0;
	} while (slash);
	return least;
}

/* One line of /proc/self/cgroup: NUMBER:CONTROLLER,...:PATH, version 2 without a controller. */
static uint64_t line_available(char *line)
{
	char *controllers = strchr(line, ':'), *path, *one;
	bool memory = false;

	path = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!path)
		return UINT64_MAX;
	*controllers++ = 0;
	*path++ = 0;
	path[strcspn(path, "\n")] = 0;
	if (!*controllers)
		return groups_available(&version2, path);
	while ((one = strsep(&controllers, ",")))
		memory |= !strcmp(one, "memory");
	return memory ? groups_available(&version1, path) : UINT64_MAX;
}

uint64_t memory_available(void)
{
	unsigned long long kilobytes;
	uint64_t least = UINT64_MAX, here;
	char line[PATH_MAX + 64];
	FILE *f;

	if (number("/proc/meminfo", "MemAvailable:", &kilobytes))
		least = kilobytes << 10;
	f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof(line), f)) {
		here = line_available(line);
		if (here < least)
			least = here;
	}
	if (f)
		fclose(f);
	return least;
}
