// SPDX-License-Identifier: GPL-2.0
/*
 * Run directories: $XDG_RUNTIME_DIR/pangea/NAME, or /tmp/pangea-UID/NAME.
 *
 * One a machine, mode 0700: what the machine's first process is told, logs, and the socket that `pangea
 * status` talks to.  The file "lock" in it names the process that started the machine and is locked by it,
 * which ends with the process however that ends; a directory whose lock is free is what an earlier machine
 * left behind, and its name may be used again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "pangea.h"

#define PATH_LONGEST	90	/* of a run directory: sockets in it have at most 107 */
#define RUNTIME_LONGEST	64	/* of XDG_RUNTIME_DIR, for the default name to fit */
#define DISK_MIN	(16ull << 20)	/* for logs */

/* The kernel's command line and hostfs take the path as one word, and paths of sockets are short. */
static bool path_is_plain(const char *path)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_.+@%";

	return path[0] == '/' && strlen(path) <= RUNTIME_LONGEST && strspn(path, allowed) == strlen(path);
}

static bool own_directory(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* Where all run directories of the user are. */
static void base_path(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (runtime && path_is_plain(runtime) && own_directory(runtime))
		snprintf(path, size, "%s/pangea", runtime);
	else
		snprintf(path, size, "/tmp/pangea-%u", geteuid());
}

static int base_make(char *path, size_t size)
{
	base_path(path, size);
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		complain("%s: %s", path, strerror(errno));
		return EXIT_PANGEA;
	}
	if (!own_directory(path) || chmod(path, 0700) < 0) {
		complain("%s: not a directory of yours; remove it", path);
		return EXIT_PANGEA;
	}
	return 0;
}

const char *directory_file(const struct directory *d, const char *file)
{
	static char ring[8][PATH_MAX];
	static unsigned next;
	char *path = ring[next++ % ARRAY_SIZE(ring)];

	snprintf(path, sizeof(ring[0]), "%s/%s", d->path, file);
	return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	if (ftw->level == 0 || (ftw->level == 1 && !strcmp(path + ftw->base, "lock")))
		return 0;
	return remove(path);
}

/* All but the lock, which may be waited for. */
static void directory_empty(const struct directory *d)
{
	nftw(d->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void directory_set(struct directory *d, const char *base, const char *name)
{
	snprintf(d->name, sizeof(d->name), "%.63s", name);
	snprintf(d->path, sizeof(d->path), "%s/%s", base, d->name);
}

/* Is this descriptor still the file of that path?  An earlier owner may have removed it before it let go. */
static bool still_there(int fd, const char *path)
{
	struct stat now, then;

	return stat(path, &now) == 0 && fstat(fd, &then) == 0 &&
	       now.st_ino == then.st_ino && now.st_dev == then.st_dev;
}

/* 0: ours now; -EBUSY: a machine of that name lives; -EAGAIN: it has just gone; -errno. */
static int directory_try(struct directory *d)
{
	const char *path = directory_file(d, "lock");
	int err = -EAGAIN;

	if (mkdir(d->path, 0700) < 0 && errno != EEXIST)
		return -errno;
	d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (flock(d->lock, LOCK_EX | LOCK_NB) < 0)
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
	else if (still_there(d->lock, path))
		return 0;
	close(d->lock);
	d->lock = -1;
	return err;
}

/* What an earlier machine left there goes. */
static int directory_claim(struct directory *d)
{
	int err;

	do
		err = directory_try(d);
	while (err == -EAGAIN);
	if (err)
		return err;
	directory_empty(d);
	if (ftruncate(d->lock, 0) < 0 || dprintf(d->lock, "%d\n", getpid()) < 0)
		return -errno;
	return 0;
}

static int disk_check(const char *base)
{
	struct statvfs fs;

	if (statvfs(base, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < DISK_MIN) {
		complain("%s: %lluM free, %lluM are needed for logs", base,
			 (unsigned long long)fs.f_bavail * fs.f_frsize >> 20, DISK_MIN >> 20);
		return EXIT_PANGEA;
	}
	return 0;
}

int directory_make(struct directory *d, const char *name)
{
	char base[PATH_MAX / 4], candidate[64];
	int err = base_make(base, sizeof(base));

	if (!err)
		err = disk_check(base);
	if (err)
		return err;
	snprintf(candidate, sizeof(candidate), "%s", name ?: "pangea");
	for (unsigned i = 2; ; i++) {
		directory_set(d, base, candidate);
		/* The last machine may take all of base along, just now. */
		do
			err = directory_claim(d);
		while (err == -ENOENT && base_make(base, sizeof(base)) == 0);
		if (err != -EBUSY || name)
			break;
		snprintf(candidate, sizeof(candidate), "pangea%u", i);
	}
	if (!err && strlen(d->path) > PATH_LONGEST) {
		directory_remove(d);
		complain("%s: too long for a run directory; choose a shorter --name", d->path);
		return EXIT_PANGEA;
	}
	if (err == -EBUSY)
		complain("a machine named %s is running already; choose another --name", name);
	else if (err)
		complain("%s: %s", d->path, strerror(-err));
	return err ? EXIT_PANGEA : 0;
}

void directory_keep(struct directory *d)
{
	unlink(directory_file(d, BOOT_CONFIG));
	unlink(directory_file(d, KEY_FILE));
	close(d->lock);
	d->lock = -1;
}

void directory_remove(struct directory *d)
{
	char base[sizeof(d->path)];

	directory_empty(d);
	unlink(directory_file(d, "lock"));
	rmdir(d->path);
	close(d->lock);
	d->lock = -1;
	snprintf(base, sizeof(base), "%s", d->path);
	rmdir(dirname(base));	/* if this was the last one */
}

/* Does a machine live here?  Its lock cannot be had then.  (`pangea node` has a directory only.) */
static bool directory_lives(const struct directory *d)
{
	int fd = open(directory_file(d, "lock"), O_RDWR | O_CLOEXEC);
	bool lives;

	if (fd < 0)
		return false;
	if (access(directory_file(d, BOOT_CONFIG), F_OK) < 0) {
		close(fd);
		return false;
	}
	lives = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	close(fd);
	return lives;
}

/* How many machines live; the first is left in *d, all names in names. */
static unsigned directories_living(struct directory *d, const char *base, char *names, size_t size)
{
	struct directory candidate = { .lock = -1 };
	struct dirent *entry;
	DIR *dir = opendir(base);
	unsigned count = 0;
	size_t used = 0;

	names[0] = 0;
	while (dir && (entry = readdir(dir))) {
		if (!name_check(entry->d_name))
			continue;
		directory_set(&candidate, base, entry->d_name);
		if (!directory_lives(&candidate))
			continue;
		if (!count++)
			*d = candidate;
		if (used < size)
			used += snprintf(names + used, size - used, " %s", candidate.name);
	}
	if (dir)
		closedir(dir);
	return count;
}

int directory_find(struct directory *d, const char *name)
{
	char base[PATH_MAX / 4], names[512];
	unsigned count;

	base_path(base, sizeof(base));
	d->lock = -1;
	if (name) {
		if (name_check(name))
			directory_set(d, base, name);
		if (name_check(name) && directory_lives(d))
			return 0;
		complain("there is no running machine named %s", name);
		return EXIT_PANGEA;
	}
	count = directories_living(d, base, names, sizeof(names));
	if (count == 1)
		return 0;
	if (count)
		complain("several machines are running, name one:%s", names);
	else
		complain("no machine is running");
	return EXIT_PANGEA;
}

pid_t directory_owner(const struct directory *d)
{
	FILE *f = fopen(directory_file(d, "lock"), "re");
	int pid = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%d", &pid) != 1 || !directory_lives(d))
		pid = 0;
	fclose(f);
	return pid;
}

bool directory_wait_gone(const struct directory *d, unsigned seconds)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

	for (unsigned i = 0; i < seconds * 50; i++) {
		if (!directory_lives(d))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}
