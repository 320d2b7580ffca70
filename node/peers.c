// SPDX-License-Identifier: GPL-2.0
/*
 * The dsm and the bulk links: for each kind one thread receives from all of them and carries messages between net/
 * and dsm/.
 *
 * The first also calls dsm_tick() when the core's next deadline has come, and sends what has been put off.  Sending
 * happens on whatever thread the core runs on and never blocks; what a link could not take at once is flushed from here.
 *
 * An executor whose thread waits for a frame takes the first one's place for a while: it looks for what comes without
 * sleeping, and the CPU goes from it straight to the thread when the frame is here (peers_await()).
 *
 * Somebody waits for what comes over a dsm link, so the bulk thread runs after all others of the node, and works off
 * a message in steps, between which the others get the lock.
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

#define STEP_FRAMES	32
#define LOOK_NS		200000	/* for a frame, which may come by way of two other nodes */
#define HOME_LOOKS	3	/* of so many one is at all others */
#define PUT_OFF_NS	80000	/* nearly as long as who was granted a frame keeps it anyway (RESIDENCE_NS, pager.c) */

/* Of an executor that receives: it sends in time what it puts off, and until when that can wait; UINT64_MAX: nothing. */
static _Thread_local bool sees_to_overdue;
static _Thread_local uint64_t overdue_at;

static void kick(struct peers *p)
{
	uint64_t one = 1;

	if (write(p->event, &one, sizeof(one)) < 0 && errno != EAGAIN)
		machine_fail(p->machine, "eventfd: %s", strerror(errno));
}

void peers_kick(struct machine *m)
{
	kick(&m->urgent);
}

/* What a link says of its end names the node already. */
static void peer_gone(struct peers *p, unsigned peer, int ret)
{
	const struct link *link = p->link[peer];
	struct machine *m = p->machine;

	if (m->stopping)
		return;
	if (link && *link->error)
		machine_fail(m, "%s", link->error);
	else
		machine_fail(m, "node %u (%s) is gone: %s", peer, m->config.layout.node[peer].name,
			     ret == -EPIPE ? "it closed its channel" : strerror(-ret));
}

static size_t page_bytes(const struct dsm_msg *msg, unsigned count)
{
	return msg->payload == DSM_PAYLOAD_PAGE ? count * WIRE_PAGE_SIZE : 0;
}

static struct wire_dsm on_wire(const struct dsm_msg *msg, unsigned count)
{
	return (struct wire_dsm){
		.hdr = { sizeof(struct wire_dsm) + page_bytes(msg, count), WIRE_GET + msg->type, 0, 0 },
		.pfn = msg->pfn,
		.state = msg->state,
		.requester = msg->requester,
		.payload = msg->payload,
		.more = count - 1,
	};
}

/* What has been put off for that node: how many. */
static unsigned take_deferred(struct machine *m, unsigned to, struct wire_dsm *wire)
{
	unsigned taken = 0, left = 0;

	for (unsigned i = 0; i < m->deferred_count; i++) {
		const struct deferred *d = &m->deferred[i];

		if (d->to == to)
			wire[taken++] = on_wire(&d->msg, 1);
		else
			m->deferred[left++] = *d;
	}
	m->deferred_count = left;
	return taken;
}

static void send_iov(struct peers *p, unsigned to, const struct iovec *iov, int count)
{
	struct link *link = p->link[to];
	int ret = link ? link_send(link, iov, count) : -EPIPE;

	if (ret)
		peer_gone(p, to, ret);
	else if (link->ops->wants_flush(link))
		kick(p);
}

/* frames_lock held.  With it goes what has been put off. */
static void send_over(struct peers *p, unsigned to, const struct dsm_msg *msg, unsigned count)
{
	struct wire_dsm wire[DEFERRED_MAX + 1];
	unsigned before = p == &p->machine->urgent ? take_deferred(p->machine, to, wire) : 0;
	struct iovec iov[2] = {
		{ wire, (before + 1) * sizeof(wire[0]) }, { (void *)msg->page, page_bytes(msg, count) },
	};

	wire[before] = on_wire(msg, count);
	send_iov(p, to, iov, iov[1].iov_len ? 2 : 1);
}

void peers_send_bulk(struct machine *m, unsigned to, const struct dsm_msg *msg, unsigned count)
{
	send_over(&m->bulk, to, msg, count);
}

/*
 * DONE tells the home that a miss has ended.  The thread that missed waits to go on, and nobody else for DONE, unless
 * another node wants the frame.  That one would not get it before residence has passed, but for a reader of what
 * other nodes may read already.  So DONE is put off, and goes with what is sent there next, often the thread's next GET.
 * (Less for readers, 20 us, made read misses a third slower: DONE went by itself then, in the middle of the next miss.)
 */
static void put_off(struct machine *m, unsigned to, const struct dsm_msg *msg)
{
	if (!m->deferred_count) {
		m->deferred_until = now_ns() + PUT_OFF_NS;
		m->deferred_ours = false;
	}
	m->deferred[m->deferred_count++] = (struct deferred){ to, *msg };
	if (sees_to_overdue) {
		overdue_at = m->deferred_until;
		return;
	}
	m->deferred_ours = true;
	if (!pthread_equal(pthread_self(), m->urgent.thread))
		kick(&m->urgent);	/* which sleeps longer */
}

void peers_send(struct machine *m, unsigned to, const struct dsm_msg *msg)
{
	if (!m->combined.on && msg->type == DSM_GET)
		combine_precede(m, msg->pfn);
	if (m->combined.on)
		combine_send(m, to, msg);
	else if (m->gathering && !msg->page && m->deferred_count < DEFERRED_MAX)
		m->deferred[m->deferred_count++] = (struct deferred){ to, *msg };
	else if (msg->type == DSM_DONE && m->deferred_count < DEFERRED_MAX)
		put_off(m, to, msg);
	else
		send_over(&m->urgent, to, msg, 1);
}

/* frames_lock held */
static void send_deferred(struct machine *m)
{
	struct wire_dsm wire[DEFERRED_MAX];

	while (m->deferred_count) {
		unsigned to = m->deferred[0].to;
		struct iovec iov = { wire, take_deferred(m, to, wire) * sizeof(wire[0]) };

		send_iov(&m->urgent, to, &iov, 1);
	}
}

void peers_send_gathered(struct machine *m)
{
	m->gathering = false;
	send_deferred(m);
}

/* frames_lock held */
static void send_overdue(struct machine *m, uint64_t now)
{
	if (now >= m->deferred_until)
		send_deferred(m);
}

void peers_send_deferred(struct machine *m)
{
	frames_lock(m);
	send_deferred(m);
	frames_unlock(m);
	pager_settle(m);
}

/* What it says of frame number `first` and so many that follow.  As dsm_receive(). */
static int deliver_some(struct peers *p, unsigned peer, const struct wire_dsm *wire, unsigned first, unsigned count,
			const char **why)
{
	const uint8_t *pages = (const uint8_t *)(wire + 1);
	struct machine *m = p->machine;
	bool bulk = p == &m->bulk;
	uint64_t now = now_ns();
	int ret = 0;

	if (bulk && wire->hdr.type == WIRE_GRANT)
		combine_prepare(m, wire->pfn + first);
	frames_lock(m);
	if (bulk)
		combine_begin(m, now);
	for (unsigned i = first; i < first + count && !ret; i++) {
		struct dsm_msg msg = {
			.type = wire->hdr.type - WIRE_GET,
			.state = wire->state,
			.requester = wire->requester,
			.payload = wire->payload,
			.pfn = wire->pfn + i,
			.page = wire->payload == WIRE_PAYLOAD_PAGE ? pages + i * WIRE_PAGE_SIZE : NULL,
		};

		m->receiving = true;
		ret = dsm_receive(m->dsm, peer, &msg, now, why);
		m->receiving = false;
		__atomic_store_n(&m->asked_seen, m->asked_first, __ATOMIC_RELEASE);
	}
	if (bulk)
		combine_end(m);
	else if (!sees_to_overdue)	/* who does may have got all that it waits for */
		send_overdue(m, now);
	frames_unlock(m);
	if (bulk)
		combine_map(m);
	pager_settle(m);
	return ret;
}

/* One message; false when the link is of no use any more. */
static bool deliver(struct peers *p, unsigned peer, const struct wire_dsm *wire)
{
	struct machine *m = p->machine;
	const char *why = NULL;
	unsigned count = 1 + wire->more;
	int ret = 0;

	for (unsigned i = 0; i < count && !ret; i += STEP_FRAMES)
		ret = deliver_some(p, peer, wire, i, count - i < STEP_FRAMES ? count - i : STEP_FRAMES, &why);
	if (!ret)
		return true;
	machine_fail(m, "node %u (%s) broke the coherence protocol: %s", peer,
		     m->config.layout.node[peer].name, why ? why : strerror(-ret));
	return false;
}

static void lose(struct peers *p, unsigned peer, int ret)
{
	p->dead[peer] = true;
	peer_gone(p, peer, ret);
}

/* p->receiving held */
static void serve_peer(struct peers *p, unsigned peer)
{
	const struct wire_hdr *msg;
	int ret = 1;

	while (ret > 0 && !p->dead[peer]) {
		ret = link_recv(p->link[peer], &msg);
		if (ret > 0 && !deliver(p, peer, (const void *)msg))
			p->dead[peer] = true;
	}
	if (ret < 0)
		lose(p, peer, ret);
}

static void flush_peer(struct peers *p, unsigned peer)
{
	int ret = p->link[peer]->ops->flush(p->link[peer]);

	if (ret < 0)
		lose(p, peer, ret);
}

static void tick(struct machine *m)
{
	frames_lock(m);
	send_overdue(m, now_ns());
	frames_unlock(m);	/* runs dsm_tick() */
	pager_settle(m);
}

/* All links that can be used but one, for poll(): how many; *peer: whose. */
static unsigned poll_others(struct peers *p, unsigned but, struct pollfd *fds, unsigned *peer)
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->machine->config.layout.nodes; i++) {
		struct link *link = __atomic_load_n(&p->link[i], __ATOMIC_ACQUIRE);

		if (i == but || !link || p->dead[i])
			continue;
		fds[count] = (struct pollfd){ link_fd(link), POLLIN, 0 };
		if (link->ops->wants_flush(link))
			fds[count].events |= POLLOUT;
		peer[count++] = i;
	}
	return count;
}

/* p->receiving held.  From the home it comes most likely. */
static void look_around(struct peers *p, unsigned home)
{
	struct pollfd fds[WIRE_NODES_MAX];
	unsigned peer[WIRE_NODES_MAX], count = poll_others(p, home, fds, peer);

	if (poll(fds, count, 0) > 0)
		for (unsigned i = 0; i < count; i++) {
			if (fds[i].revents & POLLOUT)
				flush_peer(p, peer[i]);
			if (fds[i].revents & ~POLLOUT)
				serve_peer(p, peer[i]);
		}
	if (p->link[home] && p->link[home]->ops->wants_flush(p->link[home]))
		flush_peer(p, home);
	tick(p->machine);
}

static void quiet(struct link *link, bool yes)
{
	if (link && link->ops->quiet)
		link->ops->quiet(link, yes);
}

void peers_quiet(struct machine *m, unsigned home, bool yes)
{
	quiet(__atomic_load_n(&m->urgent.link[home], __ATOMIC_ACQUIRE), yes);
}

void peers_await(struct machine *m, unsigned home, const uint32_t *go, uint32_t wanted, struct spin *spin,
		 uint64_t *overdue)
{
	struct peers *p = &m->urgent;
	struct link *expected = __atomic_load_n(&p->link[home], __ATOMIC_ACQUIRE);
	uint64_t end = spin_begin(spin, LOOK_NS);
	bool came = false;

	if (!end || pthread_mutex_trylock(&p->receiving))
		return;		/* who has it brings the frame */
	sees_to_overdue = true;
	overdue_at = UINT64_MAX;
	quiet(expected, true);
	for (unsigned i = 0; !came && now_ns() < end && !m->stopping; i++) {
		if (i % HOME_LOOKS == HOME_LOOKS - 1)
			look_around(p, home);
		else if (expected)
			serve_peer(p, home);
		came = __atomic_load_n(go, __ATOMIC_ACQUIRE) == wanted;
		if (!came)
			spin_pause();
	}
	quiet(expected, false);
	sees_to_overdue = false;
	pthread_mutex_unlock(&p->receiving);
	spin_end(spin, came);
	if (overdue_at != UINT64_MAX)
		*overdue = overdue_at;
}

static int wait_for_peers(struct peers *p, struct pollfd *fds, unsigned count)
{
	uint64_t deadline = UINT64_MAX, now = now_ns(), wait;
	struct machine *m = p->machine;
	struct timespec timeout;

	pthread_mutex_lock(&m->frames_lock);
	if (p == &m->bulk)
		combine_flush(m);
	else
		deadline = m->deadline;
	if (p == &m->urgent && m->deferred_count && m->deferred_ours && m->deferred_until < deadline)
		deadline = m->deferred_until;
	pthread_mutex_unlock(&m->frames_lock);
	if (deadline == UINT64_MAX)
		return ppoll(fds, count, NULL, NULL);
	wait = deadline > now ? deadline - now : 0;
	timeout = (struct timespec){ wait / 1000000000, wait % 1000000000 };
	return ppoll(fds, count, &timeout, NULL);
}

/* From those that have something.  Where an executor does that just now it sees to them. */
static void receive(struct peers *p, const struct pollfd *fds, const unsigned *peer, unsigned count)
{
	bool any = false;

	for (unsigned i = 0; i < count; i++)
		any |= fds[i].revents & ~POLLOUT;
	if (!any)
		return;
	pthread_mutex_lock(&p->receiving);
	for (unsigned i = 0; i < count; i++)
		if (fds[i].revents & ~POLLOUT)
			serve_peer(p, peer[i]);
	pthread_mutex_unlock(&p->receiving);
}

static void *peers_thread(void *arg)
{
	struct peers *p = arg;
	struct machine *m = p->machine;
	struct pollfd fds[WIRE_NODES_MAX + 1];
	unsigned peer[WIRE_NODES_MAX], count;
	uint64_t ignored;

	pin_thread(own_node(m)->cpu_start, 0);
	hurry_thread(0, p == &m->urgent ? HURRY_MUCH : HURRY_LITTLE);
	while (!m->stopping) {
		fds[0] = (struct pollfd){ p->event, POLLIN, 0 };
		count = 1 + poll_others(p, m->config.layout.self, fds + 1, peer);
		if (wait_for_peers(p, fds, count) < 0 && errno != EINTR)
			machine_fail(m, "poll: %s", strerror(errno));
		if (fds[0].revents && read(p->event, &ignored, sizeof(ignored)) < 0)
			continue;
		for (unsigned i = 1; i < count; i++)
			if (fds[i].revents & POLLOUT)
				flush_peer(p, peer[i - 1]);
		if (p == &m->urgent)
			tick(m);
		receive(p, fds + 1, peer, count - 1);
	}
	return NULL;
}

int machine_attach_dsm(struct machine *m, unsigned peer, struct link *link)
{
	struct peers *p = link->purpose == WIRE_PURPOSE_BULK ? &m->bulk : &m->urgent;

	if (peer >= m->config.layout.nodes || peer == m->config.layout.self)
		return -EINVAL;
	if (p->link[peer])
		return -EEXIST;
	__atomic_store_n(&p->link[peer], link, __ATOMIC_RELEASE);
	kick(p);
	return 0;
}

static int start(struct machine *m, struct peers *p)
{
	int ret;

	p->machine = m;
	pthread_mutex_init(&p->receiving, NULL);
	p->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->event < 0)
		return -errno;
	ret = -pthread_create(&p->thread, NULL, peers_thread, p);
	p->started = !ret;
	return ret;
}

int peers_start(struct machine *m)
{
	int ret = start(m, &m->urgent);

	return ret ? ret : start(m, &m->bulk);
}

static void join(struct peers *p)
{
	if (!p->started)
		return;
	kick(p);
	pthread_join(p->thread, NULL);
}

static void release(struct peers *p)
{
	for (unsigned i = 0; i < WIRE_NODES_MAX; i++)
		if (p->link[i]) {
			p->link[i]->ops->shutdown(p->link[i]);
			p->link[i]->ops->free(p->link[i]);
		}
	if (p->event >= 0)
		close(p->event);
	pthread_mutex_destroy(&p->receiving);
}

/* With m->stopping set; frees the links.  Either thread may send over both kinds. */
void peers_stop(struct machine *m)
{
	join(&m->urgent);
	join(&m->bulk);
	release(&m->urgent);
	release(&m->bulk);
}
