// SPDX-License-Identifier: GPL-2.0
/*
 * The dsm links: one thread receives from all of them and carries messages between net/ and dsm/.
 *
 * It also calls dsm_tick() when the core's next deadline has come.  Sending happens on whatever thread the
 * core runs on and never blocks; what a link could not take at once is flushed from here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "machine.h"

_Static_assert((int)DSM_PAYLOAD_PAGE == (int)WIRE_PAYLOAD_PAGE &&
	       (int)DSM_PAYLOAD_ZERO == (int)WIRE_PAYLOAD_ZERO,
	       "payload kinds are the wire's");

void peers_kick(struct machine *m)
{
	uint64_t one = 1;

	if (write(m->peers_event, &one, sizeof(one)) < 0 && errno != EAGAIN)
		machine_fail(m, "eventfd: %s", strerror(errno));
}

/* What a link says of its end names the node already. */
static void peer_gone(struct machine *m, unsigned peer, int ret)
{
	const struct link *link = m->peer[peer];

	if (m->stopping)
		return;
	if (link && *link->error)
		machine_fail(m, "%s", link->error);
	else
		machine_fail(m, "node %u (%s) is gone: %s", peer, m->config.layout.node[peer].name,
			     ret == -EPIPE ? "it closed the dsm channel" : strerror(-ret));
}

static void send_now(struct machine *m, unsigned to, const struct dsm_msg *msg)
{
	bool page = msg->payload == DSM_PAYLOAD_PAGE;
	struct wire_dsm wire = {
		.hdr = { sizeof(wire) + (page ? WIRE_PAGE_SIZE : 0), WIRE_GET + msg->type, 0, 0 },
		.pfn = msg->pfn,
		.state = msg->state,
		.requester = msg->requester,
		.payload = msg->payload,
	};
	struct iovec iov[2] = { { &wire, sizeof(wire) }, { (void *)msg->page, WIRE_PAGE_SIZE } };
	struct link *link = m->peer[to];
	int ret = link ? link_send(link, iov, page ? 2 : 1) : -EPIPE;

	if (ret)
		peer_gone(m, to, ret);
	else if (link->ops->wants_flush(link))
		peers_kick(m);
}

/*
 * DONE tells the home that a miss has ended.  Nobody waits for it as urgently as the thread that missed waits to
 * go on, so it is sent after that thread has been resumed: by peers_send_deferred().
 */
void peers_send(struct machine *m, unsigned to, const struct dsm_msg *msg)
{
	if (msg->type == DSM_DONE && m->deferred_count < DEFERRED_MAX)
		m->deferred[m->deferred_count++] = (struct deferred){ to, *msg };
	else
		send_now(m, to, msg);
}

void peers_send_deferred(struct machine *m)
{
	pthread_mutex_lock(&m->frames_lock);
	while (m->deferred_count) {
		struct deferred *d = &m->deferred[--m->deferred_count];

		send_now(m, d->to, &d->msg);
	}
	pthread_mutex_unlock(&m->frames_lock);
}

/* One message; false when the link is of no use any more. */
static bool deliver(struct machine *m, unsigned peer, const struct wire_dsm *wire)
{
	struct dsm_msg msg = {
		.type = wire->hdr.type - WIRE_GET,
		.state = wire->state,
		.requester = wire->requester,
		.payload = wire->payload,
		.pfn = wire->pfn,
		.page = wire->payload == WIRE_PAYLOAD_PAGE ? wire + 1 : NULL,
	};
	const char *why = NULL;
	int ret;

	frames_lock(m);
	ret = dsm_receive(m->dsm, peer, &msg, now_ns(), &why);
	frames_unlock(m);
	pager_settle(m);
	if (!ret)
		return true;
	machine_fail(m, "node %u (%s) broke the coherence protocol: %s", peer,
		     m->config.layout.node[peer].name, why ? why : strerror(-ret));
	return false;
}

static void serve_peer(struct machine *m, unsigned peer, short events, bool *alive)
{
	struct link *link = m->peer[peer];
	const struct wire_hdr *msg;
	int ret = 0;

	if (events & POLLOUT)
		ret = link->ops->flush(link);
	while (!ret && *alive) {
		ret = link_recv(link, &msg);
		if (!ret)
			return;
		if (ret > 0) {
			*alive = deliver(m, peer, (const void *)msg);
			ret = 0;
		}
	}
	if (ret < 0) {
		*alive = false;
		peer_gone(m, peer, ret);
	}
}

static void tick(struct machine *m)
{
	frames_lock(m);
	frames_unlock(m);	/* runs dsm_tick() */
	pager_settle(m);
}

static int wait_for_peers(struct machine *m, struct pollfd *fds, unsigned count)
{
	uint64_t deadline, now = now_ns(), wait;
	struct timespec timeout;

	pthread_mutex_lock(&m->frames_lock);
	deadline = m->deadline;
	pthread_mutex_unlock(&m->frames_lock);
	if (deadline == UINT64_MAX)
		return ppoll(fds, count, NULL, NULL);
	wait = deadline > now ? deadline - now : 0;
	timeout = (struct timespec){ wait / 1000000000, wait % 1000000000 };
	return ppoll(fds, count, &timeout, NULL);
}

static void *peers_thread(void *arg)
{
	struct machine *m = arg;
	bool alive[WIRE_NODES_MAX];
	struct pollfd fds[WIRE_NODES_MAX + 1];
	unsigned peer[WIRE_NODES_MAX + 1], count;
	uint64_t ignored;

	pin_thread(own_node(m)->cpu_start, 0);
	hurry_thread(0);
	memset(alive, 1, sizeof(alive));
	while (!m->stopping) {
		fds[0] = (struct pollfd){ m->peers_event, POLLIN, 0 };
		count = 1;
		for (unsigned i = 0; i < m->config.layout.nodes; i++) {
			struct link *link = __atomic_load_n(&m->peer[i], __ATOMIC_ACQUIRE);

			if (!link || !alive[i])
				continue;
			fds[count] = (struct pollfd){ link_fd(link), POLLIN, 0 };
			if (link->ops->wants_flush(link))
				fds[count].events |= POLLOUT;
			peer[count++] = i;
		}
		if (wait_for_peers(m, fds, count) < 0 && errno != EINTR)
			machine_fail(m, "poll: %s", strerror(errno));
		if (fds[0].revents && read(m->peers_event, &ignored, sizeof(ignored)) < 0)
			continue;
		for (unsigned i = 1; i < count; i++)
			if (fds[i].revents)
				serve_peer(m, peer[i], fds[i].revents, &alive[peer[i]]);
		tick(m);
	}
	return NULL;
}

int machine_attach_dsm(struct machine *m, unsigned peer, struct link *link)
{
	if (peer >= m->config.layout.nodes || peer == m->config.layout.self)
		return -EINVAL;
	if (m->peer[peer])
		return -EEXIST;
	__atomic_store_n(&m->peer[peer], link, __ATOMIC_RELEASE);
	peers_kick(m);
	return 0;
}

int peers_start(struct machine *m)
{
	int ret;

	m->peers_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->peers_event < 0)
		return -errno;
	ret = -pthread_create(&m->peers_thread, NULL, peers_thread, m);
	m->peers_started = !ret;
	return ret;
}

/* With m->stopping set; frees the links. */
void peers_stop(struct machine *m)
{
	if (m->peers_started) {
		peers_kick(m);
		pthread_join(m->peers_thread, NULL);
	}
	for (unsigned i = 0; i < WIRE_NODES_MAX; i++)
		if (m->peer[i]) {
			m->peer[i]->ops->shutdown(m->peer[i]);
			m->peer[i]->ops->free(m->peer[i]);
		}
	if (m->peers_event >= 0)
		close(m->peers_event);
}
