// SPDX-License-Identifier: GPL-2.0
/*
 * Channels, on the host's side of the libc line.
 *
 * ssi_link_wait() is where a CPU's kernel thread is while its user half runs elsewhere.  The timer, IPIs and
 * I/O reach it as host signals and are handled as always; only when they leave work for this
 * task (a reschedule, a signal) does the user half hear of it.  IRQs are disabled from the look at that
 * work until the wait has ended, which a signal's note does (wait_user.c), so none can slip in between.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <kern_util.h>
#include <os.h>
#include <smp.h>
#include "../os-Linux/internal.h"
#include "ssi_internal.h"
#include "link.h"

#define LOST_SECONDS 3		/* that a node may take to notice */
#define SPIN_NS 100000		/* some round trips of a fast network */
#define LOOK_PAUSES 12
#define SPIN_MISSES_MAX 10	/* in a row, that are told apart */
#define SILENCE_MS 1500		/* in the middle of a message, as for heartbeats */

int ssi_link_send(int fd, const void *msg, int length, int more)
{
	const char *p = msg;
	ssize_t n;

	while (length) {
		n = send(fd, p, length, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		p += n;
		length -= n;
	}
	return 0;
}

/* Within that time. */
static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, ms);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

int ssi_link_readable(int fd)
{
	return readable(fd, 0);
}

static bool may_spin;

void ssi_spin_prepare(void)
{
	const char *spin = getenv("PANGEA_SPIN");

	may_spin = !spin || strcmp(spin, "off");
}

int ssi_may_spin(void)
{
	return may_spin;
}

/* After an answer that did not come in time the next 1, 3, 7, ... are not spun for. */
void ssi_link_spin(int fd, struct ssi_spin *s)
{
	long long until;
	bool came;

	if (!may_spin || s->skip) {
		s->skip -= !!s->skip;
		return;
	}
	until = os_nsecs() + SPIN_NS;
	do
		came = readable(fd, 0);
	while (!came && os_nsecs() < until);
	s->misses = came ? 0 : s->misses < SPIN_MISSES_MAX ? s->misses + 1 : s->misses;
	s->skip = (1u << s->misses) - 1;
}

/* Of a message of at least min bytes, of which so many are there: how many it has; -EPROTO: it cannot be good. */
static int message_length(const struct wire_hdr *hdr, int have, int min, int size, const char **why)
{
	int length;

	if (have < (int)sizeof(*hdr))
		return min;
	length = hdr->length;
	*why = "it has sent a message of an impossible length";
	return length < min || length > size || have > length ? -EPROTO : length;
}

/* The rest of a message, of which so many bytes are there. */
static int receive_rest(int fd, enum wire_purpose purpose, void *buf, int have, int min, int size, const char **why)
{
	char *p = buf;
	int want = message_length(buf, have, min, size, why);
	ssize_t n;

	while (have < want) {
		*why = "it has sent a part of a message and no more";
		if (have && !readable(fd, SILENCE_MS))
			return -ETIMEDOUT;
		*why = "it has closed the channel";
		n = recv(fd, p + have, (have ? want : size) - have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		have += n;
		want = message_length(buf, have, min, size, why);
	}
	if (want < 0)
		return want;
	*why = wire_check(buf, have, purpose);
	return *why ? -EPROTO : have;
}

int ssi_link_receive(int fd, enum wire_purpose purpose, void *buf, int min, int size, const char **why)
{
	return receive_rest(fd, purpose, buf, 0, min, size, why);
}

/* What recv() says; -EINTR: a signal waits; -EAGAIN: until then there was nothing. */
static long look_for(int fd, void *buf, int size, long long until)
{
	long n = -EAGAIN;
	unsigned looks;

	while (n == -EAGAIN && os_nsecs() < until) {
		n = recv(fd, buf, size, MSG_DONTWAIT);
		if (n < 0)
			n = -errno;
		for (looks = 0; n == -EAGAIN && looks < LOOK_PAUSES; looks++)
			__builtin_ia32_pause();
		if (n == -EAGAIN && os_signals_pending())
			n = -EINTR;
	}
	return n;
}

int ssi_link_wait(int fd, enum wire_purpose purpose, void *buf, int min, int size, long long until, int (*wanted)(void),
		  void (*interrupt)(void *), void *arg, const char **why)
{
	bool told = false;
	long n;

	block_signals_trace();
	do {
		if (!told && wanted()) {
			told = true;
			interrupt(arg);
		}
		n = look_for(fd, buf, size, until);
		if (n == -EAGAIN)
			n = ssi_wait_call(__NR_recvfrom, fd, (long)buf, size, 0);
		if (n == -EINTR) {
			unblock_signals_trace();
			block_signals_trace();
		}
	} while (n == -EINTR);
	unblock_signals_trace();
	*why = "it has closed the channel";
	return n > 0 ? receive_rest(fd, purpose, buf, n, min, size, why) : -EPIPE;
}

/* The host's CPUs that the kernel may use; none: it is not to pin. */
static cpu_set_t allowed;

/* Not the C library's functions, here and below: the kernel has its own of these names. */
void ssi_pin_prepare(void)
{
	const char *pin = getenv("PANGEA_PIN");

	if (pin && !strcmp(pin, "off"))
		return;
	if (syscall(__NR_sched_getaffinity, 0, sizeof(allowed), &allowed) < 0)
		CPU_ZERO(&allowed);
}

int ssi_host_cpus(void)
{
	return CPU_COUNT(&allowed);
}

int ssi_host_cpu(int cpu)
{
	int skip, i;

	if (!ssi_host_cpus())
		return -1;
	skip = cpu % ssi_host_cpus();
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &allowed) && !skip--)
			break;
	return i;
}

void ssi_pin_thread(int tid, int host_cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(host_cpu, &one);
	syscall(__NR_sched_setaffinity, tid, sizeof(one), &one);
}

void ssi_pin(int cpu)
{
	int host_cpu = ssi_host_cpu(cpu);

	if (host_cpu >= 0)
		ssi_pin_thread(0, host_cpu);
}

void ssi_lost(int fd, const char *what, const char *why)
{
	sigset_t all;

	os_warn("pangea: %s is lost: %s\n", what, why);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	shutdown(fd, SHUT_RDWR);	/* its daemon says so to ours, which ends the machine */
	sleep(LOST_SECONDS);
	for (;;)
		kill(getpid(), SIGKILL);
}
