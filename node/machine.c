// SPDX-License-Identifier: GPL-2.0
/*
 * This node's share of the machine: owns the parts and their threads, from start to end.
 *
 * Ending is in phases: `stopping` is set, so that what breaks now is no failure; the executors and the mm
 * thread end; then stubs are killed and reaped; then the threads that serve faults end, which nobody needs any
 * more; then everything is freed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "machine.h"
#include "membership.h"

#define END_S		30		/* that its end may take, with thousands of processes */
#define STATS_WAIT_NS	100000000

void machine_fail(struct machine *m, const char *format, ...)
{
	char reason[256];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	log_line(LOG_ERROR, "%s", reason);
	m->config.failed(m->config.ctx, reason);
}

static void init_locks(struct machine *m)
{
	pthread_mutex_init(&m->mms_lock, NULL);
	pthread_mutex_init(&m->hot_lock, NULL);
	pthread_mutex_init(&m->reap_lock, NULL);
	pthread_mutex_init(&m->frames_lock, NULL);
	pthread_cond_init(&m->discards_done, NULL);
	pthread_cond_init(&m->asked_less, NULL);
}

struct machine *machine_new(const struct machine_config *config, char *err, size_t err_size)
{
	struct machine *m = calloc(1, sizeof(*m));
	int ret;

	if (!m) {
		snprintf(err, err_size, "out of memory");
		return NULL;
	}
	m->config = *config;
	m->urgent.event = m->bulk.event = -1;
	init_locks(m);
	context_layout_init(&m->context);
	m->executor_count = config->starts ? config->layout.cpus : own_node(m)->cpu_count;
	ret = stubs_open_arena(m);
	if (ret) {
		snprintf(err, err_size, "no memory for the control areas of stubs: %s", strerror(-ret));
		goto fail;
	}
	clock_start(m);
	ret = pager_start(m, err, err_size);
	if (ret)
		goto fail;
	ret = peers_start(m);
	if (!ret)
		ret = stubs_start(m);
	if (ret) {
		snprintf(err, err_size, "cannot start threads: %s", strerror(-ret));
		goto fail;
	}
	if (!mm_probe(m))
		return m;
	snprintf(err, err_size, "%.160s does not work as stub program on this host (see the log): is it "
		 "Pangea's, and are seccomp and userfaultfd allowed?", config->stub_path);
	machine_free(m);
	return NULL;
fail:
	m->stopping = true;
	peers_stop(m);
	pager_stop(m);
	stubs_close_arena(m);
	free(m);
	return NULL;
}

int machine_attach_cpu(struct machine *m, unsigned cpu, struct link *link)
{
	return executor_start(m, cpu, link);
}

int machine_attach_mm(struct machine *m, struct link *link)
{
	int ret;

	if (m->mm_link)
		return -EEXIST;
	m->mm_link = link;
	ret = -pthread_create(&m->mm_thread, NULL, mm_channel_thread, m);
	if (ret)
		m->mm_link = NULL;
	return ret;
}

int machine_rights_fd(const struct machine *m)
{
	return m->rights_fd;
}

int machine_arena_fd(const struct machine *m)
{
	return m->arena_fd;
}

int machine_frame_fd(const struct machine *m)
{
	return m->frame_fd;
}

static void add_link(uint64_t *bytes_in, uint64_t *bytes_out, struct link *link)
{
	struct link_stats counters;

	if (!link)
		return;
	link_get_stats(link, &counters);
	*bytes_in += counters.bytes_in;
	*bytes_out += counters.bytes_out;
}

/* Who asks keeps this node's heart beating: behind threads that come and go all the time the lock may be long in coming. */
static bool lock_soon(pthread_mutex_t *lock)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += STATS_WAIT_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return !pthread_mutex_timedlock(lock, &until);
}

/* frames_lock held. */
static void add_frames(struct machine_stats *stats, const struct machine *m)
{
	const struct dsm_stats *core = dsm_stats(m->dsm);

	stats->read_miss = core->read_miss;
	stats->write_miss = core->write_miss;
	stats->upgrade = core->upgrade;
	stats->page_in = core->page_in;
	stats->page_out = core->page_out;
	stats->zero_in = core->zero_in;
	stats->invalidated = core->invalidated;
	stats->asks = m->asks;
	stats->ask_ns = m->asked_ns;
	stats->waits = m->waits.count;
	stats->wait_ns = m->waits.ns;
	stats->wait_half_ns = waits_percentile(&m->waits, 50);
	stats->wait_most_ns = waits_percentile(&m->waits, 99);
	stats->kernel_waits = m->kernel_waits.count;
	stats->kernel_wait_ns = m->kernel_waits.ns;
}

bool machine_get_stats(struct machine *m, struct machine_stats *stats)
{
	const volatile struct stub_arena *arena = (const void *)m->arena;

	if (!lock_soon(&m->frames_lock))
		return false;
	memset(stats, 0, sizeof(*stats));
	add_frames(stats, m);
	pthread_mutex_unlock(&m->frames_lock);
	stats->stubs = m->stubs;
	stats->frames_present = pager_present(m);
	for (unsigned i = 0; i < m->executor_count; i++) {
		struct executor *x = &m->executors[i];

		stats->runs += x->runs + arena->cpu[i].runs;
		stats->interrupts += x->interrupts + arena->cpu[i].interrupts;
		stats->user_ns += x->user_ns + arena->cpu[i].user_ns;
		stats->handoff_ns += x->handoff_ns;
		stats->maps += x->maps + arena->cpu[i].maps;
		stats->map_ns += x->map_ns + arena->cpu[i].map_ns;
		add_link(&stats->kernel_bytes_in, &stats->kernel_bytes_out, x->link);
	}
	add_link(&stats->kernel_bytes_in, &stats->kernel_bytes_out, m->mm_link);
	for (unsigned i = 0; i < m->config.layout.nodes; i++) {
		add_link(&stats->bytes_in, &stats->bytes_out, m->urgent.link[i]);
		add_link(&stats->bytes_in, &stats->bytes_out, m->bulk.link[i]);
	}
	pthread_mutex_lock(&m->hot_lock);
	stats->hot_count = hot_top(&m->hot, stats->hot, HOT_SHOWN);
	pthread_mutex_unlock(&m->hot_lock);
	return true;
}

static void quiesce(struct machine *m)
{
	uint64_t one = 1;

	m->stopping = true;
	pthread_mutex_lock(&m->frames_lock);
	pthread_cond_broadcast(&m->discards_done);
	pthread_cond_broadcast(&m->asked_less);
	pthread_mutex_unlock(&m->frames_lock);
	executors_stop(m);
	if (m->mm_link) {
		m->mm_link->ops->shutdown(m->mm_link);
		pthread_join(m->mm_thread, NULL);
		m->mm_link->ops->free(m->mm_link);
	}
	stubs_stop(m);
	mm_forget_all(m);
	if (m->kernel_thread) {
		if (write(m->kernel_stop, &one, sizeof(one)) < 0)
			log_line(LOG_WARNING, "eventfd: %s", strerror(errno));
		pthread_join(m->kernel_thread, NULL);
	}
	peers_stop(m);
	stubs_end(m);
}

/* A thread that never ends, a bug or a host that is out of order, must not keep alive what has been said to end. */
static void end_now(int signal)
{
	static const char line[] = "pangea: this node's daemon hangs at its end and is ended now; if the host was not overloaded, report that\n";
	ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);

	(void)signal;
	(void)ignored;
	_exit(EXIT_BROKEN);
}

void machine_free(struct machine *m)
{
	signal(SIGALRM, end_now);
	alarm(END_S);
	quiesce(m);
	pager_stop(m);
	stubs_close_arena(m);
	pthread_mutex_destroy(&m->mms_lock);
	pthread_mutex_destroy(&m->hot_lock);
	pthread_mutex_destroy(&m->reap_lock);
	pthread_mutex_destroy(&m->frames_lock);
	pthread_cond_destroy(&m->discards_done);
	pthread_cond_destroy(&m->asked_less);
	free(m);
	alarm(0);
}
