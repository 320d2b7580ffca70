// SPDX-License-Identifier: GPL-2.0
/*
 * The frame cache: every memory system call of a node is made here.
 *
 * The cache is a memory file as large as the machine's memory; a frame lies at pfn * 4096 and is present
 * only while this node has rights on it (or it has never been given out by its home).  All mappings of the
 * file, in stubs and in the kernel process, are registered with a userfaultfd for MISSING, MINOR and WP
 * faults, so a page-table entry exists only because it was made here: default deny.  On the kernel host the kernel
 * makes entries too, of frames that are held, before it registers the mapping (ssi/overlay/arch/um/ssi/map.c).
 *
 *   give rights   UFFDIO_CONTINUE, write-protected for Shared, plain for Exclusive; or, with a content that has just come
 *                 for somebody who waits, UFFDIO_COPY
 *   Shared -> Exclusive   remove the protection at the address that faulted; others fault in turn
 *   Exclusive -> Invalid  splice the page into a pipe, punch it out, read the pipe.  The hole takes away
 *                         every page-table entry on this host; a store that raced with it went to the page
 *                         that the pipe holds, so none is lost.  Nothing of that can wait until the page has been
 *                         sent: the next owner's stores are not to be missed by who reads here.
 *   Exclusive -> Shared   write-protect the only entry, many frames at a time if it can be; or else as above,
 *                         and the page is then written back
 *   Shared -> Invalid     punch
 *
 * Where the only entry of a frame in a stub is, m->shown tells.  It is kept under frames_lock, like every CONTINUE: 0 means
 * that no entry was made since the frame was last punched; a stub and an address, that all that were made were made there;
 * SHOWN_MANY, anything.  So there never is an entry elsewhere than it says.  What it says may be out of date the other
 * way: the address may be unmapped, or show another frame, which then faults once in vain, or the stub may have another
 * process by now, which is the same.  Where it cannot be protected, because it is not registered (any more) or a process
 * ends, the frame is punched.  On the kernel host the kernel makes entries as well, and notes them; wait_for_kernel_maps() is
 * between its notes and our looks.  There its own mapping may always have an entry, at the place of the frame.
 *
 * A stub's fault arrives as SIGBUS in the stub (executor.c), the kernel's as an event on its
 * userfaultfd (kernel_thread below).  Whoever needs a frame is a struct waiter; when the frame comes, the
 * thread that received it maps it and resumes the stub, without waking the executor.
 *
 * On the kernel host, most of the kernel's memory is never wanted elsewhere and need not pay for this:
 * its linear mapping is registered in chunks of 2 MiB, just before the first frame of a chunk is taken
 * from it.  Registering changes no entry, so the kernel runs on meanwhile; and only a registered mapping
 * is ever punched.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../ssi/contract.h"
#include "log.h"
#include "machine.h"

/* Newer than the headers of Debian 12. */
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((uint64_t)1 << 1)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)	/* Linux 6.4, which brought CONTINUE_MODE_WP */
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define CHUNK_FRAMES	512
#define RESIDENCE_NS	100000		/* a frame that came stays that long: enough to use it once */
#define DISCARD_STEP	64		/* frames */
#define DISCARD_MANY	16		/* likewise: messages about them are combined */
#define HELD_STEP	64		/* likewise: others want the lock */
#define MAP_COUNT_MIN	16384
#define FEATURES_NEEDED	(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | \
			 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED)

_Static_assert(STUB_REGISTER_MODES == (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
				       UFFDIO_REGISTER_MODE_WP), "every kind of fault");

static const uint8_t zero_page[NODE_PAGE_SIZE];

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static struct waiter **pending_bucket(struct machine *m, uint64_t pfn)
{
	return &m->pending[pfn % WAITER_HASH];
}

/* --- the frame file --- */

/* An entry may be made.  frames_lock held. */
static void note_shown(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn)
{
	if (mm)
		stub_note_shown(&m->shown[pfn], stub_shown_at(mm->area_number, address));
}

static void punch(struct machine *m, uint64_t pfn, uint64_t count)
{
	memset(&m->shown[pfn], 0, count * sizeof(m->shown[0]));
	if (fallocate(m->frame_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pfn * NODE_PAGE_SIZE,
		      count * NODE_PAGE_SIZE))
		machine_fail(m, "cannot take frames out of the frame cache: %s", strerror(errno));
}

void pager_write(struct machine *m, uint64_t pfn, const void *pages, unsigned count)
{
	ssize_t length = count * NODE_PAGE_SIZE;

	if (pwrite(m->frame_fd, pages, length, pfn * NODE_PAGE_SIZE) != length)
		machine_fail(m, "no memory for a frame: %s", strerror(errno));
}

static void frame_read(struct machine *m, uint64_t pfn, void *page)
{
	if (pread(m->frame_fd, page, NODE_PAGE_SIZE, pfn * NODE_PAGE_SIZE) != NODE_PAGE_SIZE)
		machine_fail(m, "cannot read the frame cache: %s", strerror(errno));
}

/* Into the pipe, which has room for them. */
static bool splice_frames(struct machine *m, uint64_t pfn, unsigned count)
{
	off_t offset = pfn * NODE_PAGE_SIZE, end = offset + count * NODE_PAGE_SIZE;

	while (offset < end)
		if (splice(m->frame_fd, &offset, m->pipe[1], NULL, end - offset, SPLICE_F_NONBLOCK) <= 0) {
			machine_fail(m, "cannot take a frame: %s", strerror(errno));
			return false;
		}
	return true;
}

/* Take frames out, at most m->pipe_pages, with what they hold after the last store to them: to m->taken. */
static void take(struct machine *m, uint64_t pfn, unsigned count)
{
	size_t length = count * NODE_PAGE_SIZE, have = 0;
	ssize_t n = 1;

	if (!splice_frames(m, pfn, count))
		return;
	punch(m, pfn, count);
	for (; have < length && n > 0; have += n)
		n = read(m->pipe[0], m->taken + have, length - have);
	if (n <= 0)
		machine_fail(m, "cannot read a frame: %s", strerror(errno));
}

uint64_t pager_present(const struct machine *m)
{
	struct stat st;

	return fstat(m->frame_fd, &st) ? 0 : st.st_blocks * 512 / NODE_PAGE_SIZE;
}

/* --- mappings --- */

static int register_range(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_register reg = { .range = { start, length }, .mode = STUB_REGISTER_MODES };

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static bool unprotect(int uffd, uint64_t address, uint64_t pages)
{
	struct uffdio_writeprotect wp = { .range = { address, pages * NODE_PAGE_SIZE } };
	int ret;

	do
		ret = ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	while (ret && errno == EAGAIN);
	return !ret;
}

static void wake(int uffd, uint64_t address)
{
	struct uffdio_range range = { address, NODE_PAGE_SIZE };

	ioctl(uffd, UFFDIO_WAKE, &range);
}

/* mm NULL: the kernel's */
static int uffd_of(const struct machine *m, const struct mm *mm)
{
	return mm ? mm->uffd : m->kernel_uffd;
}

/* Frames without memory are all zero; it is there from now on. */
static bool fill_holes(struct machine *m, uint64_t pfn, uint64_t count)
{
	if (!fallocate(m->frame_fd, FALLOC_FL_KEEP_SIZE, pfn * NODE_PAGE_SIZE, count * NODE_PAGE_SIZE))
		return true;
	machine_fail(m, "no memory for a frame: %s", strerror(errno));
	return false;
}

/*
 * Make the page-table entry for a frame that this node holds, and wake who waits for it.  frames_lock held,
 * so the rights cannot go away meanwhile.  That the address is not mapped any more is no error.  entry: most likely there
 * is one, which does not permit a store; if it has gone there will be another fault.
 */
static void map_frame(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, enum dsm_state state,
		      bool entry)
{
	struct uffdio_continue c = {
		.range = { address, NODE_PAGE_SIZE },
		.mode = state == DSM_EXCLUSIVE ? 0 : UFFDIO_CONTINUE_MODE_WP,
	};
	int uffd = uffd_of(m, mm);

	note_shown(m, mm, address, pfn);
	if (entry && state == DSM_EXCLUSIVE) {
		unprotect(uffd, address, 1);
		return;
	}
	while (ioctl(uffd, UFFDIO_CONTINUE, &c)) {
		if (errno == EAGAIN)
			continue;
		if (errno == EFAULT) {	/* a hole */
			if (fill_holes(m, pfn, 1))
				continue;
		} else if (errno == EEXIST && state == DSM_EXCLUSIVE) {
			unprotect(uffd, address, 1);
		} else {
			wake(uffd, address);
		}
		return;
	}
}

/*
 * Frames of one state, as map_frame().  Where one has an entry already, most likely all that follow have, which may be for
 * reading only; what then has none faults.  frames_lock held.
 */
static void map_frames(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, uint64_t pages,
		       enum dsm_state state)
{
	bool filled = false;

	for (uint64_t i = 0; i < pages; i++)
		note_shown(m, mm, address + i * NODE_PAGE_SIZE, pfn + i);
	while (pages) {
		struct uffdio_continue c = {
			.range = { address, pages * NODE_PAGE_SIZE },
			.mode = state == DSM_EXCLUSIVE ? 0 : UFFDIO_CONTINUE_MODE_WP,
		};
		uint64_t done;

		if (!ioctl(uffd_of(m, mm), UFFDIO_CONTINUE, &c))
			return;
		done = c.mapped > 0 ? c.mapped / NODE_PAGE_SIZE : 0;
		if (!done && errno == EFAULT && pages > 1 && !filled) {
			filled = true;
			if (!fill_holes(m, pfn, pages))
				return;
			continue;
		}
		if (!done && errno == EEXIST && pages > 1 && state == DSM_EXCLUSIVE &&
		    unprotect(uffd_of(m, mm), address, pages))
			return;
		if (!done && errno != EAGAIN) {
			map_frame(m, mm, address, pfn, state, false);
			done = 1;
		}
		address += done * NODE_PAGE_SIZE;
		pfn += done;
		pages -= done;
	}
}

unsigned pager_write_mapped(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, const void *pages,
			    unsigned count, enum dsm_state state)
{
	struct uffdio_copy c = {
		.dst = address, .src = (uintptr_t)pages, .len = count * NODE_PAGE_SIZE,
		.mode = state == DSM_EXCLUSIVE ? 0 : UFFDIO_COPY_MODE_WP,
	};

	for (unsigned i = 0; i < count; i++)
		note_shown(m, mm, address + i * NODE_PAGE_SIZE, pfn + i);
	if (!ioctl(mm->uffd, UFFDIO_COPY, &c))
		return count;
	return c.copy > 0 ? c.copy / NODE_PAGE_SIZE : 0;
}

void pager_map_held(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, uint64_t pages)
{
	uint64_t n;

	for (; pages; address += n * NODE_PAGE_SIZE, pfn += n, pages -= n) {
		enum dsm_state state;

		frames_lock(m);
		state = dsm_state(m->dsm, pfn);
		for (n = 1; n < pages && n < HELD_STEP && dsm_state(m->dsm, pfn + n) == state; n++)
			;
		if (state != DSM_INVALID)
			map_frames(m, mm, address, pfn, n, state);
		frames_unlock(m);
	}
}

/* Node 0: the kernel must fault on this frame from now on.  frames_lock held. */
static void expose_to_kernel(struct machine *m, uint64_t pfn)
{
	uint64_t chunk = pfn / CHUNK_FRAMES, start = chunk * CHUNK_FRAMES, end = start + CHUNK_FRAMES;
	int ret;

	if (m->kernel_uffd < 0 || m->exposed[chunk] || pfn < m->kernel_mapped_start)
		return;
	if (start < m->kernel_mapped_start)
		start = m->kernel_mapped_start;
	if (end > m->kernel_frames)
		end = m->kernel_frames;
	ret = register_range(m->kernel_uffd, m->kernel_base + start * NODE_PAGE_SIZE,
			     (end - start) * NODE_PAGE_SIZE);
	if (ret)
		machine_fail(m, "cannot watch the kernel's memory: %s", strerror(-ret));
	m->exposed[chunk] = 1;
}

/*
 * Node 0: the kernel makes mappings itself, with the rights that it sees we have (ssi/overlay/arch/um/ssi/map.c).  They
 * have changed, and it may not have seen that.  What it has begun ends within microseconds of CPU time.
 */
static void wait_for_kernel_maps(struct machine *m)
{
	const struct stub_arena *arena = (const void *)m->arena;
	struct timespec nap = { 0, 20000 };

	if (!m->rights)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);	/* pairs with the kernel's, between its count and its look */
	for (unsigned i = 0; i < m->executor_count; i++) {
		const uint64_t *count = &arena->cpu[i].mapping;
		uint64_t begun = __atomic_load_n(count, __ATOMIC_ACQUIRE);

		while (begun % 2 && __atomic_load_n(count, __ATOMIC_ACQUIRE) == begun && !m->stopping)
			nanosleep(&nap, NULL);
	}
}

/* Nobody here makes entries of these frames meanwhile, and nobody has begun to.  frames_lock held. */
static void expose_range(struct machine *m, uint64_t pfn, unsigned count)
{
	for (uint64_t i = pfn; i < pfn + count; i++)
		expose_to_kernel(m, i);
	wait_for_kernel_maps(m);
}

/* --- from Exclusive to Shared; frames_lock held --- */

void pager_stub(struct machine *m, const struct mm *mm, int uffd)
{
	pthread_mutex_lock(&m->frames_lock);
	m->stub_uffd[mm->area_number] = uffd + 1;
	pthread_mutex_unlock(&m->frames_lock);
}

static bool protect(int uffd, uint64_t address, unsigned count)
{
	struct uffdio_writeprotect wp = {
		.range = { address, count * NODE_PAGE_SIZE }, .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int ret;

	do
		ret = ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	while (ret && errno == EAGAIN);
	return !ret;
}

/* Where that many frames are shown, one after the other. */
static bool protect_shown(struct machine *m, uint64_t at, unsigned count)
{
	int uffd = m->stub_uffd[(at >> SHOWN_ADDRESS) - 1] - 1;

	/* -1: the process has ended, and its entries with it */
	return uffd < 0 || protect(uffd, (at & ((1ull << SHOWN_ADDRESS) - 1)) * NODE_PAGE_SIZE, count);
}

/* Those of the kernel, on its host. */
static bool protect_kernel(struct machine *m, uint64_t pfn, unsigned count)
{
	return !m->rights || protect(m->kernel_uffd, m->kernel_base + pfn * NODE_PAGE_SIZE, count);
}

/* The kernel may be noting entries for reading. */
static uint64_t shown_now(const struct machine *m, uint64_t pfn)
{
	return __atomic_load_n(&m->shown[pfn], __ATOMIC_RELAXED);
}

/* How many of so many are shown like the first: at addresses that follow each other, nowhere, or at many. */
static unsigned shown_alike(const struct machine *m, uint64_t at, uint64_t pfn, unsigned count)
{
	unsigned n = 1;

	while (n < count && shown_now(m, pfn + n) == (at && at != SHOWN_MANY ? at + n : at))
		n++;
	return n;
}

/*
 * Take frames out, and put them back without entries; at most m->pipe_pages.  Meanwhile there are holes: the kernel, which
 * goes by m->rights without a lock, must believe that it has nothing to read there.
 */
static void take_and_return(struct machine *m, uint64_t pfn, unsigned count)
{
	uint64_t local = own_node(m)->pfn_count;
	uint8_t held[WIRE_PAGES_MAX];

	for (unsigned i = 0; m->rights && i < count; i++)
		held[i] = __atomic_exchange_n(&m->rights[pfn + i], SSI_RIGHTS(0, pfn + i < local), __ATOMIC_RELAXED);
	wait_for_kernel_maps(m);
	take(m, pfn, count);
	pager_write(m, pfn, m->taken, count);
	for (unsigned i = 0; m->rights && i < count; i++)
		__atomic_store_n(&m->rights[pfn + i], held[i], __ATOMIC_RELEASE);
}

void pager_protect(struct machine *m, uint64_t pfn, unsigned count)
{
	unsigned n;

	expose_range(m, pfn, count);
	for (; count; pfn += n, count -= n) {
		uint64_t at = shown_now(m, pfn);

		n = shown_alike(m, at, pfn, count);
		if (at != SHOWN_MANY && protect_kernel(m, pfn, n) && (!at || protect_shown(m, at, n)))
			continue;
		n = n < m->pipe_pages ? n : m->pipe_pages;
		take_and_return(m, pfn, n);
	}
}

/* --- from whatever to Invalid; frames_lock held --- */

void pager_drop(struct machine *m, uint64_t pfn, unsigned count)
{
	expose_range(m, pfn, count);
	punch(m, pfn, count);
}

void pager_take(struct machine *m, uint64_t pfn, unsigned count)
{
	expose_range(m, pfn, count);
	take(m, pfn, count);
}

/* --- actions of the coherence core (dsm.h); frames_lock held --- */

static enum dsm_payload op_revoke(void *ctx, uint64_t pfn, enum dsm_state have, enum dsm_state keep,
				  const void **page)
{
	struct machine *m = ctx;

	if (page && combine_lend(m, pfn, have, keep, page))
		return DSM_PAYLOAD_PAGE;
	if (!page && combine_drop(m, pfn))
		return DSM_PAYLOAD_NONE;
	if (!page) {
		pager_drop(m, pfn, 1);
		return DSM_PAYLOAD_NONE;
	}
	if (keep == DSM_SHARED) {
		if (have == DSM_EXCLUSIVE)
			pager_protect(m, pfn, 1);
		frame_read(m, pfn, m->taken);
	} else {
		pager_take(m, pfn, 1);
	}
	*page = m->taken;
	return memcmp(m->taken, zero_page, NODE_PAGE_SIZE) ? DSM_PAYLOAD_PAGE : DSM_PAYLOAD_ZERO;
}

/* mm.lock held. */
static bool is_mapped_to(struct mm *mm, const struct waiter *w)
{
	struct mapping mapping = mm_lookup(mm, w->address);

	return mapping.prot && mapping.pfn == w->pfn;
}

/* Content and entry at once, if a thread waits for it and its mapping is not just being changed. */
static bool give(struct machine *m, uint64_t pfn, enum dsm_state state, const void *page)
{
	struct waiter *w = *pending_bucket(m, pfn);

	while (w && (w->pfn != pfn || w->want > state || !w->mm))
		w = w->next;
	if (!w || m->combined.on || pthread_mutex_trylock(&w->mm->lock))
		return false;
	w->given = is_mapped_to(w->mm, w) && pager_write_mapped(m, w->mm, w->address, pfn, page, 1, state) == 1;
	pthread_mutex_unlock(&w->mm->lock);
	return w->given;
}

static void op_install(void *ctx, uint64_t pfn, enum dsm_state state, enum dsm_payload payload,
		       const void *page)
{
	/* a frame that comes was Invalid, so it is a hole, which reads as zero */
	if (payload == DSM_PAYLOAD_PAGE && !give(ctx, pfn, state, page))
		combine_install(ctx, pfn, page);
}

/* Since then, for that mm, of the kernel host, which uses frames for itself as well.  frames_lock held. */
static void note_asked(const struct machine *m, struct mm *mm, uint64_t before)
{
	if (mm && m->asked_host_end > before)
		__atomic_store_n(&mm->asked_end, m->asked_host_end, __ATOMIC_RELAXED);
}

bool pager_is_asking(const struct machine *m, const struct mm *mm)
{
	/* as it was when the core had said all that it had to say of an answer */
	uint64_t first = __atomic_load_n(&m->asked_seen, __ATOMIC_ACQUIRE);

	return first < __atomic_load_n(&mm->asked_end, __ATOMIC_RELAXED) ||
	       first < __atomic_load_n(&m->upgrades_end, __ATOMIC_RELAXED);
}

/* A GET for it was under way if it came from another node. */
static void answered(struct machine *m, uint64_t pfn)
{
	for (uint64_t i = m->asked_first; i < m->asked_end; i++) {
		struct asked *a = &m->asked[i % ASKED_MAX];

		if (a->pfn != pfn)
			continue;
		m->asked_ns += combine_now(m) - a->since;
		a->pfn = ASKED_ANSWERED;
		break;
	}
	while (m->asked_first < m->asked_end && m->asked[m->asked_first % ASKED_MAX].pfn == ASKED_ANSWERED)
		m->asked_first++;
	pthread_cond_broadcast(&m->asked_less);
}

static void op_ready(void *ctx, uint64_t pfn, enum dsm_state state)
{
	struct machine *m = ctx;
	struct waiter **p = pending_bucket(m, pfn), *w;

	answered(m, pfn);
	combine_ready(m, pfn, state);
	while ((w = *p)) {
		if (w->pfn != pfn || w->want > state) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->next = m->done;
		m->done = w;
	}
}

static void op_discarded(void *ctx, uint64_t pfn)
{
	struct machine *m = ctx;

	(void)pfn;
	if (!--m->discards)
		pthread_cond_signal(&m->discards_done);
}

static void op_send(void *ctx, unsigned to, const struct dsm_msg *msg)
{
	struct machine *m = ctx;

	m->asks += msg->type == DSM_GET;
	if (msg->type == DSM_GET && m->asked_end - m->asked_first < ASKED_MAX)
		m->asked[m->asked_end++ % ASKED_MAX] = (struct asked){ msg->pfn, combine_now(m) };
	if (msg->type == DSM_GET && !to)
		m->asked_host_end = m->asked_end;
	if (msg->type == DSM_GET && !to && m->receiving)	/* more than was granted just now is wanted, by whomever */
		__atomic_store_n(&m->upgrades_end, m->asked_end, __ATOMIC_RELAXED);
	peers_send(m, to, msg);
}

/* Twice: the answer to one who wanted to read may be followed by the request of one who wants to write. */
void pager_drain(struct machine *m)
{
	uint64_t last;

	pthread_mutex_lock(&m->frames_lock);
	for (unsigned pass = 0; pass < 2; pass++) {
		last = m->asked_end;
		while (m->asked_first < last && !m->stopping)
			pthread_cond_wait(&m->asked_less, &m->frames_lock);
	}
	pthread_mutex_unlock(&m->frames_lock);
}

static const struct dsm_ops ops = {
	.send = op_send,
	.revoke = op_revoke,
	.install = op_install,
	.ready = op_ready,
	.discarded = op_discarded,
};

void frames_lock(struct machine *m)
{
	pthread_mutex_lock(&m->frames_lock);
}

/* The peers thread sleeps until m->deadline: does it have to be told that the core wants to be called earlier? */
static bool note_deadline(struct machine *m)
{
	uint64_t next = dsm_tick(m->dsm, now_ns());
	bool earlier = next < m->deadline;

	m->deadline = next;
	return earlier;
}

void frames_unlock(struct machine *m)
{
	bool earlier = note_deadline(m);

	pthread_mutex_unlock(&m->frames_lock);
	if (earlier)
		peers_kick(m);
}

/* --- waiters --- */

static bool rights_suffice(struct machine *m, const struct waiter *w)
{
	return dsm_state(m->dsm, w->pfn) >= w->want;
}

/* Of a frame shown at many places it is not known where.  If this is none of them, the access faults, and nobody is asked. */
bool pager_is_mapped(struct machine *m, const struct waiter *w)
{
	uint64_t at;
	bool yes;

	frames_lock(m);
	at = w->pfn < m->config.layout.frames ? shown_now(m, w->pfn) : 0;
	yes = at && rights_suffice(m, w) && (at == SHOWN_MANY || at == stub_shown_at(w->mm->area_number, w->address));
	frames_unlock(m);
	return yes;
}

/* Where the mapping has gone the access will fault anew. */
int pager_map(struct machine *m, struct waiter *w)
{
	int ret = 0;

	if (w->mm)
		pthread_mutex_lock(&w->mm->lock);
	if (!w->mm || is_mapped_to(w->mm, w)) {
		frames_lock(m);
		if (rights_suffice(m, w))
			map_frame(m, w->mm, w->address, w->pfn, dsm_state(m->dsm, w->pfn), w->entry);
		else
			ret = 1;
		frames_unlock(m);
	}
	if (w->mm)
		pthread_mutex_unlock(&w->mm->lock);
	return ret;
}

/* As acquire(); mm.lock held, if there is an mm. */
static int acquire_locked(struct machine *m, struct waiter *w, struct mm *mm)
{
	struct waiter **bucket = pending_bucket(m, w->pfn);
	uint64_t now = now_ns(), asks, end;
	int ret;

	frames_lock(m);
	asks = m->asks;
	end = m->asked_end;
	/* queued first: the core may call op_ready() from within */
	w->next = *bucket;
	*bucket = w;
	ret = dsm_acquire(m->dsm, w->pfn, w->want, now);
	if (ret > 0 && !w->since)
		w->since = now;
	__atomic_store_n(&w->asked, m->asks != asks, __ATOMIC_RELAXED);
	note_asked(m, mm, end);
	if (ret <= 0)
		*bucket = w->next;
	frames_unlock(m);
	return ret;
}

/*
 * For mm.  0: the rights are here, or the mapping has gone; 1: they will come, the waiter is queued; -errno.
 *
 * A REVOKE that takes the mapping away either comes first, and nothing is asked for, or it waits for the answer (pager_drain()):
 * the kernel host may use the frame for itself from then on.
 */
static int acquire(struct machine *m, struct waiter *w, struct mm *mm)
{
	int ret = 0;

	if (!mm)
		return acquire_locked(m, w, NULL);
	pthread_mutex_lock(&mm->lock);
	if (is_mapped_to(mm, w))
		ret = acquire_locked(m, w, mm);
	pthread_mutex_unlock(&mm->lock);
	return ret;
}

int pager_fault(struct machine *m, struct waiter *w)
{
	int ret;

	do {
		ret = acquire(m, w, w->mm);
		if (!ret)
			ret = pager_map(m, w);
		else
			return ret;
	} while (ret);
	return 0;
}

/* Take it out of a list; false: it is not in there. */
static bool unlink_waiter(struct waiter **list, const struct waiter *w)
{
	for (; *list; list = &(*list)->next)
		if (*list == w) {
			*list = w->next;
			return true;
		}
	return false;
}

void pager_cancel(struct machine *m, struct waiter *w, uint32_t go)
{
	struct timespec nap = { 0, 20000 };
	bool found;

	/* if in neither list, a thread in pager_settle() has it in hand, to resume it or to put it back; it may come after us here */
	do {
		pthread_mutex_lock(&m->frames_lock);
		found = unlink_waiter(pending_bucket(m, w->pfn), w) || unlink_waiter(&m->done, w);
		pthread_mutex_unlock(&m->frames_lock);
		if (!found)
			nanosleep(&nap, NULL);
	} while (!found && __atomic_load_n(&w->slot.orders->go, __ATOMIC_SEQ_CST) != go);
}

static void count_wait(struct waits *w, uint64_t ns)
{
	unsigned bucket = 0;

	for (uint64_t us = ns / 1000; us && bucket < WAIT_BUCKETS - 1; us /= 2)
		bucket++;
	w->count++;
	w->ns += ns;
	w->bucket[bucket]++;
}

uint64_t waits_percentile(const struct waits *w, unsigned percent)
{
	uint64_t wanted = w->count * percent / 100, seen = 0;

	if (!w->count)
		return 0;
	for (unsigned i = 0; i < WAIT_BUCKETS; i++) {
		seen += w->bucket[i];
		if (seen > wanted || i == WAIT_BUCKETS - 1)
			return 1000ull << i;
	}
	return 0;
}

/* Once it is resumed, its executor may end the run, and the stub be used by others before it is woken. */
static void resume_waiter(struct machine *m, struct waiter *w)
{
	struct mm *mm = w->mm;

	if (w->since)
		count_wait(mm ? &m->waits : &m->kernel_waits, now_ns() - w->since);
	if (!mm) {
		free(w);
		return;
	}
	mm->references++;
	slot_resume(w->slot);
	mm_put(m, mm);
}

/*
 * If it has been taken away again, or the mm has ended, nobody waits for it.  On the kernel host the kernel may be changing
 * the mapping, as nobody runs for whom we do this.
 */
static void map_expected(struct machine *m, struct waiter *w)
{
	w->mm = m->rights ? NULL : mm_find_started(m, w->expected_in);
	if (w->mm) {
		pager_map(m, w);
		mm_put(m, w->mm);
	}
	free(w);
}

/* Once it is queued again, the run may be cancelled, and the mm end, before we are out of it. */
static int fault_again(struct machine *m, struct waiter *w)
{
	struct mm *mm = w->mm;
	int ret;

	if (!mm)
		return pager_fault(m, w);
	mm->references++;
	ret = pager_fault(m, w);
	mm_put(m, mm);
	return ret;
}

/* Serve the waiters whose frames have come.  No lock held. */
void pager_settle(struct machine *m)
{
	struct waiter *w;
	int ret;

	for (;;) {
		pthread_mutex_lock(&m->frames_lock);
		w = m->done;
		if (w)
			m->done = w->next;
		pthread_mutex_unlock(&m->frames_lock);
		if (!w)
			break;
		if (w->expected_in) {
			map_expected(m, w);
			continue;
		}
		ret = w->given ? 0 : pager_map(m, w);
		if (ret)
			ret = fault_again(m, w);
		if (ret < 0)
			machine_fail(m, "cannot wait for a frame: %s", strerror(-ret));
		if (ret <= 0)
			resume_waiter(m, w);
	}
}

/* --- copies for the kernel --- */

/* A word that is aligned on both sides in one piece: the kernel may be reading a futex. */
static void copy_bytes(void *to, const void *from, size_t length)
{
	if (((uintptr_t)to | (uintptr_t)from) & (length - 1))
		memcpy(to, from, length);
	else if (length == 8)
		__atomic_store_n((uint64_t *)to, __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	else if (length == 4)
		__atomic_store_n((uint32_t *)to, __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	else
		memcpy(to, from, length);
}

/* frames_lock held all the time: nobody takes a frame away in the middle. */
unsigned pager_copy(struct machine *m, const struct wire_segment *segments, unsigned count, bool write,
		    uint8_t *data, size_t *bytes)
{
	unsigned i;

	*bytes = 0;
	pthread_mutex_lock(&m->frames_lock);
	for (i = 0; i < count; i++) {
		const struct wire_segment *s = &segments[i];
		uint8_t *there = m->frames + s->pfn * NODE_PAGE_SIZE + s->offset;

		if (s->pfn >= m->config.layout.frames ||
		    dsm_state(m->dsm, s->pfn) < (write ? DSM_EXCLUSIVE : DSM_SHARED))
			break;
		copy_bytes(write ? there : data + *bytes, write ? data + *bytes : there, s->length);
		*bytes += s->length;
	}
	pthread_mutex_unlock(&m->frames_lock);
	return i;
}

/* frames_lock held, but not while it waits.  false: it cannot be had. */
static bool fetch(struct machine *m, uint64_t pfn)
{
	while (dsm_state(m->dsm, pfn) < DSM_SHARED) {
		if (m->stopping || dsm_acquire(m->dsm, pfn, DSM_SHARED, now_ns()) < 0)
			return false;
		if (note_deadline(m))		/* where this is the home, that may be all there is to wait for */
			peers_kick(m);
		if (dsm_state(m->dsm, pfn) < DSM_SHARED)
			pthread_cond_wait(&m->asked_less, &m->frames_lock);
	}
	return true;
}

unsigned pager_copy_page(struct machine *m, uint64_t from, uint64_t to)
{
	uint64_t frames = m->config.layout.frames;
	unsigned done = 0;

	if (from >= frames || to >= frames || from == to)
		return 0;
	frames_lock(m);
	if (dsm_state(m->dsm, to) == DSM_EXCLUSIVE && fetch(m, from) && dsm_state(m->dsm, to) == DSM_EXCLUSIVE) {
		memcpy(m->frames + to * NODE_PAGE_SIZE, m->frames + from * NODE_PAGE_SIZE, NODE_PAGE_SIZE);
		done = 2;
	}
	frames_unlock(m);
	pager_settle(m);
	return done;
}

/* --- looking ahead --- */

static unsigned next_window(const struct stream *s, unsigned most)
{
	unsigned pages = s->window ? 2 * s->window : 2 * s->run;

	return pages < most ? pages : most;
}

unsigned stream_advance(struct stream *s, uint64_t address, unsigned most)
{
	uint64_t next = address + NODE_PAGE_SIZE;
	bool follows = address == s->next;

	s->next = next;
	if (s->window && !follows && address > s->marker && address < s->end)
		return 0;		/* it is on its way */
	if (!s->window || (address != s->marker && address != s->end)) {
		s->run = follows ? s->run + 1 : 0;
		s->window = 0;
		s->end = next;
	}
	if (s->run < 2)
		return 0;
	s->window = next_window(s, most);
	s->marker = s->end > next ? s->end : next;
	s->end = s->marker;
	return s->window;
}

/* Ahead of need only where there is room for what is needed. */
static bool may_ask(const struct machine *m)
{
	return m->asked_end - m->asked_first < ASKED_MAX / 2;
}

/* Nobody waits for it. */
static bool ask_ahead(struct machine *m, const struct mm *mm, const struct ahead *a, uint64_t now)
{
	if (!may_ask(m) || dsm_acquire(m->dsm, a->pfn, a->want, now) < 0)
		return false;
	/* on the kernel host, the kernel maps for itself what does not run */
	if (mm && m->config.layout.self)
		m->expected[a->pfn % EXPECTED_MAX] = (struct expected){ a->pfn, a->address, mm->id };
	return true;
}

/* Is b the page that follows a, n pages on, in both ways, and held with that state, which is enough? */
static bool held_likewise(const struct machine *m, const struct ahead *a, const struct ahead *b, unsigned n,
			  enum dsm_state state)
{
	return b->address == a->address + n * NODE_PAGE_SIZE && b->pfn == a->pfn + n && b->want <= state &&
	       dsm_state(m->dsm, b->pfn) == state;
}

unsigned pager_ahead(struct machine *m, struct mm *mm, const struct ahead *pages, unsigned count)
{
	uint64_t now = now_ns(), end;
	unsigned i, n;

	frames_lock(m);
	end = m->asked_end;
	combine_begin(m, now);
	for (i = 0; i < count; i += n) {
		const struct ahead *a = &pages[i];
		enum dsm_state state = dsm_state(m->dsm, a->pfn);

		n = 1;
		if (state < a->want && !ask_ahead(m, mm, a, now))
			break;
		if (state < a->want || !a->address)
			continue;
		while (i + n < count && held_likewise(m, a, a + n, n, state))
			n++;
		map_frames(m, mm, a->address, a->pfn, n, state);
	}
	note_asked(m, mm, end);
	combine_end(m);
	frames_unlock(m);
	return i;
}

unsigned pager_lacks_from(struct machine *m, const struct wire_map *maps, unsigned count)
{
	unsigned home = m->config.layout.nodes;

	frames_lock(m);
	for (unsigned i = 0; i < count && home == m->config.layout.nodes; i++)
		if (maps[i].prot & WIRE_MAP_WANTED && maps[i].pfn < m->config.layout.frames &&
		    dsm_state(m->dsm, maps[i].pfn) < mapping_state(maps[i].prot))
			home = dsm_home(m->dsm, maps[i].pfn);
	frames_unlock(m);
	return home;
}

void pager_want(struct machine *m, struct mm *mm, const struct wire_map *maps, unsigned count)
{
	bool any = false;
	uint64_t end;

	for (unsigned i = 0; i < count; i++)
		any |= maps[i].prot & WIRE_MAP_WANTED;
	if (!any)
		return;
	frames_lock(m);
	end = m->asked_end;
	m->gathering = true;
	for (unsigned i = 0; i < count; i++)
		if (maps[i].prot & WIRE_MAP_WANTED && may_ask(m))
			/* an error is seen by who needs it */
			dsm_acquire(m->dsm, maps[i].pfn, mapping_state(maps[i].prot), now_ns());
	note_asked(m, mm, end);
	peers_send_gathered(m);
	frames_unlock(m);
}

/* Those of one map; false: there is no room for more. */
static bool bring(struct machine *m, struct mm *mm, const struct wire_map *map)
{
	uint64_t now = now_ns(), end;
	bool room = true;

	frames_lock(m);
	end = m->asked_end;
	combine_begin(m, now);
	for (uint32_t n = 0; n < map->pages && room; n++) {
		const struct ahead a = { map->addr + (uint64_t)n * NODE_PAGE_SIZE, map->pfn + n, mapping_state(map->prot) };

		room = dsm_state(m->dsm, a.pfn) >= a.want || ask_ahead(m, mm, &a, now);
	}
	note_asked(m, mm, end);
	combine_end(m);
	frames_unlock(m);
	return room;
}

void pager_bring(struct machine *m, struct mm *mm, const struct wire_map *maps, unsigned count)
{
	bool room = true;

	for (unsigned i = 0; i < count && room; i++)
		if (maps[i].prot & WIRE_MAP_AHEAD && maps[i].pfn + maps[i].pages <= m->config.layout.frames)
			room = bring(m, mm, &maps[i]);
}

void pager_expect(struct machine *m, const struct waiter *w)
{
	struct waiter *own = malloc(sizeof(*own));

	if (!own)
		return;
	*own = *w;
	own->mm = NULL;
	own->expected_in = w->mm->id;
	if (acquire(m, own, w->mm) <= 0)
		free(own);
}

static bool discard_one(struct machine *m, uint64_t pfn)
{
	int ret;

	m->discards++;
	ret = dsm_discard(m->dsm, pfn, now_ns());
	if (ret <= 0)
		m->discards--;
	if (ret < 0)
		machine_fail(m, "cannot discard frame %llu: %s", (unsigned long long)pfn, strerror(-ret));
	return ret >= 0;
}

/*
 * Those that only this node holds are dropped all at once, and of others many that follow each other are revoked with few
 * messages; a few with one each, which are not held up by those with pages.
 */
static void discard(struct machine *m, uint64_t pfn, uint64_t end)
{
	bool fine = true;

	while (pfn < end && fine) {
		enum dsm_state state = dsm_state(m->dsm, pfn);
		uint64_t next = pfn + 1;
		bool together;

		while (next < end && dsm_state(m->dsm, next) == state)
			next++;
		together = state == DSM_EXCLUSIVE || next - pfn >= DISCARD_MANY;
		if (together)
			combine_begin(m, now_ns());
		for (; pfn < next && fine; pfn++)
			fine = discard_one(m, pfn);
		if (together)
			combine_end(m);
	}
}

/* Blocks until no node holds the frames any more and all read as zero. */
void pager_discard(struct machine *m, const struct wire_range *ranges, unsigned count)
{
	frames_lock(m);
	for (unsigned i = 0; i < count; i++)
		for (uint64_t pfn = ranges[i].pfn, end = pfn + ranges[i].count; pfn < end; pfn += DISCARD_STEP) {
			discard(m, pfn, end - pfn < DISCARD_STEP ? end : pfn + DISCARD_STEP);
			frames_unlock(m);	/* others need not wait for all of it */
			frames_lock(m);
		}
	while (m->discards && !m->stopping)
		pthread_cond_wait(&m->discards_done, &m->frames_lock);
	frames_unlock(m);
	pager_settle(m);
}

/* --- node 0: faults of the kernel process --- */

/*
 * The kernel copies to or from user pages that follow each other in memory.  Only frames of other nodes are looked
 * at: all of them are user or page-cache pages, while a neighbour on the kernel host may be the kernel's own.
 */
static void kernel_ahead(struct machine *m, const struct waiter *w)
{
	uint64_t local = m->config.layout.node[0].pfn_count;
	struct stream *s = &m->kernel_stream;
	unsigned count = stream_advance(s, w->address, AHEAD_MAX), n = 0;
	uint64_t pfn = (s->marker - m->kernel_base) / NODE_PAGE_SIZE;
	struct ahead pages[AHEAD_MAX];

	for (; n < count && pfn >= local && pfn < m->kernel_frames; pfn++, n++)
		pages[n] = (struct ahead){ n ? m->kernel_base + pfn * NODE_PAGE_SIZE : 0, pfn, w->want };
	if (n)
		s->end += pager_ahead(m, NULL, pages, n) * NODE_PAGE_SIZE;
}

static void kernel_fault(struct machine *m, const struct uffd_msg *msg)
{
	uint64_t address = msg->arg.pagefault.address & ~(uint64_t)(NODE_PAGE_SIZE - 1);
	bool write = msg->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	struct waiter *w = calloc(1, sizeof(*w)), fault;
	int ret;

	if (!w) {
		machine_fail(m, "no memory for a fault of the kernel");
		return;
	}
	w->address = address;
	w->pfn = (address - m->kernel_base) / NODE_PAGE_SIZE;
	w->want = write ? DSM_EXCLUSIVE : DSM_SHARED;
	w->entry = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
	fault = *w;
	ret = pager_fault(m, w);
	kernel_ahead(m, &fault);
	if (ret < 0)
		machine_fail(m, "the kernel cannot reach frame %llu: %s", (unsigned long long)fault.pfn, strerror(-ret));
	if (ret <= 0)
		free(w);
	pager_settle(m);
}

static void *kernel_thread(void *arg)
{
	struct machine *m = arg;
	struct pollfd fds[2] = { { m->kernel_uffd, POLLIN, 0 }, { m->kernel_stop, POLLIN, 0 } };
	struct uffd_msg msgs[16];
	ssize_t n;

	while (!m->stopping) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		n = read(m->kernel_uffd, msgs, sizeof(msgs));
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(*msgs); i++)
			if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
				kernel_fault(m, &msgs[i]);
	}
	return NULL;
}

/* Frames of other nodes are never the kernel's to touch unasked: all of them fault from the start. */
static int expose_remote_frames(struct machine *m)
{
	uint64_t local = own_node(m)->pfn_count;

	if (m->kernel_frames <= local)
		return 0;
	memset(m->exposed + local / CHUNK_FRAMES, 1, (m->kernel_frames - local) / CHUNK_FRAMES);
	return register_range(m->kernel_uffd, m->kernel_base + local * NODE_PAGE_SIZE,
			      (m->kernel_frames - local) * NODE_PAGE_SIZE);
}

static int receive_pager(int fd, struct ssi_pager *pager)
{
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { pager, sizeof(*pager) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int uffd;

	if (recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof(*pager))
		return -EPIPE;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&uffd, CMSG_DATA(c), sizeof(uffd));
	return uffd;
}

struct kernel_attach { struct machine *machine; int fd; };

/* Waits for the kernel to boot far enough to send its userfaultfd, then serves it. */
static void *kernel_attach_thread(void *arg)
{
	struct kernel_attach *a = arg;
	struct machine *m = a->machine;
	struct ssi_pager pager;
	int uffd = receive_pager(a->fd, &pager), ret = uffd < 0 ? uffd : 0;

	hurry_thread(0, HURRY_MUCH);
	if (!ret && (pager.frames > m->config.layout.frames || pager.base % NODE_PAGE_SIZE))
		ret = -EPROTO;
	if (!ret) {
		pthread_mutex_lock(&m->frames_lock);
		m->kernel_uffd = uffd;
		m->kernel_base = pager.base;
		m->kernel_mapped_start = pager.mapped_start;
		m->kernel_frames = pager.frames;
		ret = expose_remote_frames(m);
		pthread_mutex_unlock(&m->frames_lock);
	}
	if (!ret && write(a->fd, "", 1) != 1)
		ret = -errno;
	close(a->fd);
	free(a);
	if (!ret) {
		log_line(LOG_INFO, "serving the kernel's faults%s",
			 pager.user_mode_only ? ", those of its host system calls by retry" : "");
		return kernel_thread(m);
	}
	if (!m->stopping)
		machine_fail(m, "the kernel ended before it was ready, or broke the protocol: %s", strerror(-ret));
	return NULL;
}

int machine_attach_kernel(struct machine *m, int fd)
{
	struct kernel_attach *a = malloc(sizeof(*a));
	int ret = -ENOMEM;

	if (a) {
		*a = (struct kernel_attach){ m, fd };
		ret = -pthread_create(&m->kernel_thread, NULL, kernel_attach_thread, a);
		if (!ret)
			return 0;
	}
	m->kernel_thread = 0;
	free(a);
	close(fd);
	return ret;
}

/* --- start and end --- */

static bool read_line(const char *path, char *line, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(line, size, f);

	if (f)
		fclose(f);
	return ok;
}

/* Pages are taken out of the frame cache one by one: none may be part of a large one. */
static int check_huge_pages(char *err, size_t err_size)
{
	glob_t files;
	char line[128];
	int ret = 0;

	if (glob("/sys/kernel/mm/transparent_hugepage/{,hugepages-*/}shmem_enabled", GLOB_BRACE, NULL, &files))
		return 0;
	for (size_t i = 0; i < files.gl_pathc && !ret; i++)
		if (read_line(files.gl_pathv[i], line, sizeof(line)) &&
		    (strstr(line, "[always]") || strstr(line, "[within_size]") || strstr(line, "[force]"))) {
			snprintf(err, err_size, "huge pages for shared memory are on: write 'never' or 'advise' to %s",
				 files.gl_pathv[i]);
			ret = -EINVAL;
		}
	globfree(&files);
	return ret;
}

static int check_host(char *err, size_t err_size)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	char line[128];

	if (fd < 0) {
		snprintf(err, err_size, "no userfaultfd right on this host (%s): allow the userfaultfd system call",
			 strerror(errno));
		return -EPERM;
	}
	if (ioctl(fd, UFFDIO_API, &api) || (api.features & FEATURES_NEEDED) != FEATURES_NEEDED) {
		close(fd);
		snprintf(err, err_size, "this host's Linux is too old: userfaultfd lacks what Linux 6.4 and later have");
		return -ENOSYS;
	}
	close(fd);
	if (read_line("/proc/sys/vm/max_map_count", line, sizeof(line)) && atol(line) < MAP_COUNT_MIN) {
		snprintf(err, err_size, "vm.max_map_count is %ld, too low: set it to 65530 or more (sysctl)",
			 atol(line));
		return -EINVAL;
	}
	return check_huge_pages(err, err_size);
}

static int make_files(struct machine *m)
{
	m->frame_fd = memfd_create("pangea-frames", MFD_CLOEXEC);
	if (m->frame_fd < 0 || ftruncate(m->frame_fd, m->config.layout.frames * NODE_PAGE_SIZE) ||
	    pipe2(m->pipe, O_CLOEXEC))
		return -errno;
	m->frames = mmap(NULL, m->config.layout.frames * NODE_PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_NORESERVE, m->frame_fd, 0);
	if (m->frames == MAP_FAILED) {
		m->frames = NULL;
		return -ENOMEM;
	}
	/* how much a pipe may hold is the host's decision */
	fcntl(m->pipe[1], F_SETPIPE_SZ, WIRE_PAGES_MAX * NODE_PAGE_SIZE);
	m->pipe_pages = fcntl(m->pipe[1], F_GETPIPE_SZ) / NODE_PAGE_SIZE;
	if (m->pipe_pages > WIRE_PAGES_MAX)
		m->pipe_pages = WIRE_PAGES_MAX;
	m->kernel_stop = eventfd(0, EFD_CLOEXEC);
	if (m->kernel_stop < 0)
		return -errno;
	m->exposed = calloc(1, m->config.layout.frames / CHUNK_FRAMES + 1);
	m->taken = malloc(WIRE_PAGES_MAX * NODE_PAGE_SIZE);
	m->stub_uffd = calloc(STUB_AREAS_MAX, sizeof(m->stub_uffd[0]));
	return m->exposed && m->taken && m->stub_uffd ? 0 : -ENOMEM;
}

static size_t rights_size(const struct machine *m)
{
	return SSI_SHOWN_OFFSET(m->config.layout.frames) + m->config.layout.frames * sizeof(m->shown[0]);
}

/* On the kernel host the kernel sees at a glance what it need not wait for, and notes where it makes entries. */
static int make_rights(struct machine *m)
{
	void *map;

	if (m->config.layout.self) {
		m->shown = calloc(m->config.layout.frames, sizeof(m->shown[0]));
		return m->shown ? 0 : -ENOMEM;
	}
	m->rights_fd = memfd_create("pangea-rights", MFD_CLOEXEC);
	if (m->rights_fd < 0 || ftruncate(m->rights_fd, rights_size(m)))
		return -errno;
	map = mmap(NULL, rights_size(m), PROT_READ | PROT_WRITE, MAP_SHARED, m->rights_fd, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	m->rights = map;
	m->shown = (void *)(m->rights + SSI_SHOWN_OFFSET(m->config.layout.frames));
	return 0;
}

static int make_core(struct machine *m)
{
	const struct layout *l = &m->config.layout;
	struct dsm_config config = {
		.self = l->self, .nodes = l->nodes, .residence_ns = RESIDENCE_NS, .ops = &ops, .ctx = m,
	};

	for (unsigned i = 0; i < l->nodes; i++)
		config.home[i] = (struct dsm_range){ l->node[i].pfn_start, l->node[i].pfn_count };
	config.states = m->rights;
	m->dsm = dsm_new(&config);
	return m->dsm ? 0 : -ENOMEM;
}

int pager_start(struct machine *m, char *err, size_t err_size)
{
	int ret = check_host(err, err_size);

	m->kernel_uffd = m->kernel_stop = m->frame_fd = m->rights_fd = m->pipe[0] = m->pipe[1] = -1;
	m->deadline = UINT64_MAX;
	if (ret)
		return ret;
	ret = make_files(m);
	if (!ret)
		ret = make_rights(m);
	if (!ret)
		ret = make_core(m);
	if (ret)
		snprintf(err, err_size, "cannot set up the frame cache: %s", strerror(-ret));
	return ret;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* After every other thread of the machine has ended. */
void pager_stop(struct machine *m)
{
	struct waiter *w;

	for (unsigned i = 0; i < WAITER_HASH; i++)
		while ((w = m->pending[i])) {
			m->pending[i] = w->next;
			if (!w->mm)
				free(w);
		}
	while ((w = m->done)) {
		m->done = w->next;
		if (!w->mm)
			free(w);
	}
	dsm_free(m->dsm);
	if (m->rights)
		munmap(m->rights, rights_size(m));
	else
		free(m->shown);
	if (m->frames)
		munmap(m->frames, m->config.layout.frames * NODE_PAGE_SIZE);
	close_fd(m->rights_fd);
	free(m->exposed);
	free(m->taken);
	free(m->stub_uffd);
	close_fd(m->kernel_uffd);
	close_fd(m->kernel_stop);
	close_fd(m->pipe[0]);
	close_fd(m->pipe[1]);
	close_fd(m->frame_fd);
}
