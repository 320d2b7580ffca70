// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <os.h>
#include "ssi_internal.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

int ssi_read_boot(int fd, struct ssi_boot *boot)
{
	ssize_t n = pread(fd, boot, sizeof(*boot), 0);

	if (n != sizeof(*boot))
		return n < 0 ? -errno : -EINVAL;
	if (boot->magic != SSI_BOOT_MAGIC || boot->version != SSI_BOOT_VERSION ||
	    !boot->node_count || boot->node_count > SSI_NODES_MAX || boot->cpu_count > SSI_CPUS_MAX)
		return -EPROTO;
	close(fd);
	return 0;
}

unsigned long long *ssi_shown;

const unsigned char *ssi_map_rights(int fd, unsigned long frames)
{
	void *map = mmap(NULL, frames, PROT_READ, MAP_SHARED, fd, 0);

	ssi_shown = mmap(NULL, frames * sizeof(*ssi_shown), PROT_READ | PROT_WRITE, MAP_SHARED, fd, SSI_SHOWN_OFFSET(frames));
	close(fd);
	return map == MAP_FAILED || ssi_shown == MAP_FAILED ? NULL : map;
}

static int open_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev < 0)
		return -1;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	close(dev);
	return fd;
}

int ssi_open_userfaultfd(int *fd)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	int user_only = 0;

	*fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		*fd = open_device();
	if (*fd < 0) {
		user_only = 1;
		*fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	}
	if (*fd < 0 || ioctl(*fd, UFFDIO_API, &api))
		return -errno;
	return user_only;
}

int ssi_clock_usable(void)
{
	const char *choice = getenv("PANGEA_CLOCK");
	char line[8] = "";
	int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	int n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	return n > 0 && !strcmp(line, "tsc\n") && (!choice || strcmp(choice, "syscall"));
}

int ssi_hand_over(int sock, const struct ssi_pager *pager, int uffd)
{
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)pager, sizeof(*pager) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	char byte;
	ssize_t n;

	c->cmsg_len = CMSG_LEN(sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(c), &uffd, sizeof(uffd));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != sizeof(*pager))
		return -EPIPE;
	do {
		n = read(sock, &byte, 1);
	} while (n < 0 && errno == EINTR);
	close(sock);
	return n == 1 ? 0 : -EPIPE;
}
