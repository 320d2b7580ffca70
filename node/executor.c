// SPDX-License-Identifier: GPL-2.0
/*
 * The user half of one CPU: a thread that takes RUN from the kernel half, has the CPU's thread in the mm's
 * stub execute that context, and answers with the EVENT that ended it.
 *
 * Faults that only mean "the frame is not here" never reach the kernel: the stub parks with SIGBUS from its
 * userfaultfd, the executor asks the pager, and whoever brings the frame resumes the stub (pager.c).  Most often it does so
 * itself: it has nothing else to do, so it looks for what other nodes send (peers.c).
 *
 * An INTERRUPT carries the number of the run that it is meant for.  It may overtake that RUN, which came over
 * another connection: then the run ends before it has begun.  It may be late: then it is
 * ignored, and a SIGALRM that was already on its way resumes the stub where it was.
 *
 * A task that has come from another node has frames that the kernel says are wanted: they are asked for first, all at
 * once, and the thread runs when the last of them is here.  What else the RUN maps is mapped then.
 *
 * On the kernel host the kernel has the slots in front of it as well.  It loads contexts and reads them itself, and runs
 * its tasks without us as long as they only make system calls and traps (ssi/overlay/arch/um/ssi/local.c).  A RUN
 * comes when there are mappings to make, or, with WIRE_RUN_STARTED, when the thread has parked for a frame or
 * runs for long: then we see to it as to any other.
 *
 * Elsewhere vector state travels only when it has changed: both sides remember what was last exchanged for this
 * (mm, CPU) and compare.  The kernel half thus always has the current state and asks for nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "machine.h"

#define PF_PRESENT 1u		/* x86 page-fault error code */
#define PF_WRITE 2u
#define LOOK_NS 100000		/* for the next RUN: many system calls of the kernel */
#define QUIET_MAPS 20		/* made in some ten microseconds each, with one order to the stub */
#define BEGIN_NS 200000		/* about what mapping the rest takes, twice */
#define NO_SYSCALL (~0ull)
#define BUFFER_PAGES 64		/* a window of looking ahead that is beyond most buffers */
#define UNRESPONSIVE_TRIES 10	/* looks, half a second apart */

/* One run, from RUN to EVENT. */
struct run {
	struct executor *executor;
	const struct wire_run *message;
	struct mm *mm;
	struct slot slot;
	uint32_t go;			/* orders.go of the newest resumption */
	uint32_t signal;		/* that ended it */
	unsigned mapped;		/* of the message's maps */
	bool mapped_late;		/* some of them when it ran already */
	unsigned quiet;			/* 1 + the node whose link is; 0: none */
	ucontext_t *frame;		/* in the report */
};

static const void *frame_end(const struct run *r)
{
	return (const uint8_t *)r->slot.report + STUB_REPORT_SIZE;
}

static uintptr_t frame_delta(const struct run *r)
{
	return (uintptr_t)r->slot.report - (STUB_REPORTS + r->executor->slot * STUB_REPORT_SIZE);
}

/* The report lies in user code's address space: look where it says the frame is before using it. */
static int find_frame(struct run *r)
{
	uint32_t offset = __atomic_load_n(&r->slot.report->context_offset, __ATOMIC_RELAXED);

	if (offset < sizeof(*r->slot.report) || offset > STUB_REPORT_SIZE - sizeof(ucontext_t) || offset % 8)
		return -EFAULT;
	r->frame = (ucontext_t *)((uint8_t *)r->slot.report + offset);
	return 0;
}

static void *find_fp(const struct run *r, uint32_t *size)
{
	return context_fp(r->frame, frame_end(r), frame_delta(r), size);
}

/* Remember vector state as exchanged. */
static int keep_fp(struct fp_image *image, const void *fp, uint32_t length)
{
	if (!image->bytes)
		image->bytes = malloc(WIRE_FP_MAX);
	if (!image->bytes)
		return -ENOMEM;
	memcpy(image->bytes, fp, length);
	image->length = length;
	return 0;
}

static int load_fp(struct run *r)
{
	struct executor *x = r->executor;
	const struct wire_run *msg = r->message;
	const void *fp = (const uint8_t *)(msg + 1) + msg->map_count * sizeof(struct wire_map);
	uint32_t size;
	void *area;

	if (!(msg->flags & WIRE_RUN_FP))
		return 0;
	area = find_fp(r, &size);
	if (!area || !context_set_fp(&x->machine->context, area, size, fp, msg->fp_length))
		return -EINVAL;
	return keep_fp(&r->mm->fp[x->slot], fp, msg->fp_length);
}

static void load_actions(struct stub_orders *o, const struct wire_run *msg)
{
	o->actions_known = !!(msg->flags & WIRE_RUN_ACTIONS);
	if (!o->actions_known)
		return;
	o->actions_told = 1;
	memcpy(o->actions, (const uint8_t *)msg + msg->hdr.length - sizeof(o->actions), sizeof(o->actions));
}

static int load_context(struct run *r)
{
	const struct wire_run *msg = r->message;
	struct stub_orders *o = r->slot.orders;
	uint64_t report = STUB_REPORTS + r->executor->slot * STUB_REPORT_SIZE;
	uint64_t fs = msg->gp[CONTEXT_FS_BASE], gs = msg->flags & WIRE_RUN_GATES ? report : msg->gp[CONTEXT_GS_BASE];
	int ret = find_frame(r);

	if (ret || msg->flags & WIRE_RUN_LOADED)
		return ret;
	context_set_gp(r->frame, (const uint64_t *)msg->gp, msg->flags & WIRE_RUN_SINGLESTEP);
	/* what is set already was for a run that was interrupted before it began */
	o->sync |= (o->fs_base != fs ? STUB_SYNC_FS : 0) | (o->gs_base != gs ? STUB_SYNC_GS : 0);
	o->fs_base = fs;
	o->gs_base = gs;
	load_actions(o, msg);
	r->slot.report->posted = 0;
	return load_fp(r);
}

/* --- interruption --- */

/* lock held. */
static void signal_thread(struct executor *x)
{
	syscall(SYS_tgkill, x->stub_pid, x->stub_tid, SIGALRM);
	x->interrupts++;
}

/* false: the run was interrupted before it began. */
static bool begin(struct run *r)
{
	struct executor *x = r->executor;
	bool interrupted, started = r->message->flags & WIRE_RUN_STARTED;

	pthread_mutex_lock(&x->lock);
	interrupted = x->interrupted >= r->message->hdr.seq;
	if (!interrupted || started) {
		x->run = r->message->hdr.seq;
		x->stub_pid = r->mm->pid;
		x->stub_tid = r->slot.tid;
		if (interrupted)
			signal_thread(x);
	}
	pthread_mutex_unlock(&x->lock);
	return !interrupted || started;
}

static void end(struct executor *x)
{
	pthread_mutex_lock(&x->lock);
	x->run = 0;
	pthread_mutex_unlock(&x->lock);
}

static bool was_interrupted(struct run *r)
{
	struct executor *x = r->executor;
	bool yes;

	pthread_mutex_lock(&x->lock);
	yes = x->interrupted >= r->message->hdr.seq;
	pthread_mutex_unlock(&x->lock);
	return yes;
}

static struct executor *executor_of(struct machine *m, unsigned cpu)
{
	unsigned first = own_node(m)->cpu_start;

	return cpu >= first && cpu < first + m->executor_count ? &m->executors[cpu - first] : NULL;
}

void executor_interrupt(struct machine *m, unsigned cpu, uint64_t run)
{
	struct executor *x = executor_of(m, cpu);

	if (!x)
		return;
	pthread_mutex_lock(&x->lock);
	if (run > x->interrupted)
		x->interrupted = run;
	if (x->run == run)
		signal_thread(x);
	pthread_mutex_unlock(&x->lock);
}

/* --- running --- */

/* The pages from there on, as far as they are mapped.  mm.lock held. */
static unsigned pages_ahead(struct run *r, uint64_t address, enum dsm_state want, struct ahead *pages, unsigned count)
{
	uint64_t marker = r->executor->stream.marker;
	unsigned n;

	for (n = 0; n < count; n++, address += NODE_PAGE_SIZE) {
		struct mapping mapping = mm_lookup(r->mm, address);

		if (!mapping.prot)
			break;
		pages[n] = (struct ahead){ address == marker ? 0 : address, mapping.pfn, want };
		if (!(mapping.prot & PROT_WRITE))
			pages[n].want = DSM_SHARED;
	}
	return n;
}

/* In steps: what the first brings is not to wait for the last. */
static void look_ahead(struct run *r, const struct waiter *fault)
{
	struct stream *s = &r->executor->stream;
	unsigned left, count, done;
	struct ahead pages[AHEAD_STEP];

	left = stream_advance(s, fault->address, fault->want == DSM_SHARED ? AHEAD_READ_MAX : AHEAD_WRITE_MAX);
	for (done = 1; left && done; left -= done) {
		count = left < AHEAD_STEP ? left : AHEAD_STEP;
		pthread_mutex_lock(&r->mm->lock);
		count = pages_ahead(r, s->end, fault->want, pages, count);
		done = pager_ahead(r->executor->machine, r->mm, pages, count);
		pthread_mutex_unlock(&r->mm->lock);
		s->end += done * NODE_PAGE_SIZE;
	}
}

/* For people: which page it was that had to be waited for. */
static void note_miss(struct run *r, const struct waiter *w)
{
	struct machine *m = r->executor->machine;
	struct hot_page page = { .mm = r->mm->id, .address = w->address, .pfn = w->pfn, .pid = r->message->pid };

	for (unsigned i = 0; i < sizeof(page.comm) - 1 && r->message->comm[i]; i++)
		page.comm[i] = r->message->comm[i] > ' ' && r->message->comm[i] < 0x7f ? r->message->comm[i] : '?';
	pthread_mutex_lock(&m->hot_lock);
	hot_note(&m->hot, &page);
	pthread_mutex_unlock(&m->hot_lock);
}

static void resume(struct run *r)
{
	r->go = r->slot.orders->go + 1;
	slot_resume(r->slot);
}

/*
 * What the kernel has told to be wanted was asked for before it was mapped.  As it comes it is mapped, and the last of these
 * that was not here resumes the slot: 1; 0: everything is here; -errno.  What comes later still, from another home, is faulted
 * on.
 */
static int await_wanted(struct run *r)
{
	const struct wire_map *maps = (const void *)(r->message + 1), *map;
	struct machine *m = r->executor->machine;
	struct waiter *last = &r->executor->waiter;
	bool waits = false;
	int ret;

	for (map = maps; map < maps + r->message->map_count; map++) {
		struct waiter w = { .pfn = map->pfn, .address = map->addr, .want = mapping_state(map->prot),
				    .mm = r->mm, .slot = r->slot };

		if (!(map->prot & WIRE_MAP_WANTED) || pager_is_mapped(m, &w) || !pager_map(m, &w))
			continue;
		if (waits)
			pager_expect(m, last);
		*last = w;
		waits = true;
	}
	if (!waits)
		return 0;
	ret = pager_fault(m, last);
	__atomic_store_n(&last->asked, true, __ATOMIC_RELAXED);		/* before it was mapped */
	return ret;
}

/* Those that must be there before it can run. */
static unsigned urgent_maps(const struct wire_run *msg)
{
	const struct wire_map *maps = (const void *)(msg + 1);
	unsigned n = msg->map_count;

	while (n && !(maps[n - 1].prot & WIRE_MAP_WANTED))
		n--;
	for (n = n ? n : msg->map_count; n && maps[n - 1].prot & WIRE_MAP_AHEAD; n--)
		;
	return n;
}

/*
 * No other thread has the address space, the kernel says, which believes what one that has run on another CPU of this node
 * may have forged.
 */
static bool is_alone(const struct run *r)
{
	bool alone = r->message->flags & WIRE_RUN_ALONE;

	for (unsigned i = 1; i < r->mm->slots && alone; i++)
		alone = i == r->executor->slot || !mm_slot(r->mm, i).orders->ran;
	return alone;
}

/* Up to there; 0 or -errno.  runs: its thread, meanwhile. */
static int map_until(struct run *r, unsigned end, bool runs)
{
	bool still = !runs && is_alone(r);
	const struct wire_map *maps = (const void *)(r->message + 1);
	unsigned first = r->mapped;

	r->mapped = end;
	return mm_apply(r->executor->machine, r->mm, r->executor->cpu, maps + first, end - first, r->message->map_epoch,
			still);
}

/* A thread that runs on meanwhile may fault on what is just being mapped. */
static void map_rest(struct run *r)
{
	r->mapped_late = r->mapped < r->message->map_count;
	if (map_until(r, r->message->map_count, true))
		kill(r->mm->pid, SIGKILL);	/* which is seen when it is waited for */
	if (r->mapped_late)
		pager_settle(r->executor->machine);
}

/* Let the thread run.  0 or -errno. */
static int start(struct run *r)
{
	int ret;

	r->go = r->slot.orders->go;
	if (r->message->flags & WIRE_RUN_STARTED)
		return 0;
	r->go++;
	ret = await_wanted(r);
	if (!ret)
		slot_resume(r->slot);
	if (r->message->map_count)
		pager_settle(r->executor->machine);
	return ret < 0 ? ret : 0;
}

static bool is_frame_fault(const struct run *r)
{
	return r->signal == SIGBUS && r->slot.report->code == BUS_ADRERR;
}

/*
 * Where one thread only has the address space, nobody else reads what that may write, but the kernel, which stores to it.
 * Shared between the two, the frame would have to be upgraded there each time and fetched here.
 * Who reads on and on has more than a buffer there, and is to get it as fast as can be.
 */
static bool is_to_be_written(const struct run *r, const struct mapping *mapping)
{
	return r->frame->uc_mcontext.gregs[REG_ERR] & PF_WRITE ||
	       (r->message->flags & WIRE_RUN_ALONE && mapping->prot & PROT_WRITE && r->executor->stream.window < BUFFER_PAGES);
}

/* A fault on a registered mapping: 1 when it is the pager's and somebody resumes the stub; 0: not. */
static int frame_fault(struct run *r)
{
	struct executor *x = r->executor;
	struct waiter *w = &x->waiter, fault;
	struct mapping mapping;
	int ret;

	if (!is_frame_fault(r) || find_frame(r))
		return 0;
	w->address = r->slot.report->address & ~(uint64_t)(NODE_PAGE_SIZE - 1);
	pthread_mutex_lock(&r->mm->lock);
	mapping = mm_lookup(r->mm, w->address);
	pthread_mutex_unlock(&r->mm->lock);
	if (!mapping.prot)		/* the kernel has mapped it, or it is unmapped by now: the kernel sees to it */
		return 0;
	r->go = r->slot.orders->go + 1;
	w->pfn = mapping.pfn;
	w->want = is_to_be_written(r, &mapping) ? DSM_EXCLUSIVE : DSM_SHARED;
	w->mm = r->mm;
	w->slot = r->slot;
	w->since = 0;
	w->entry = r->frame->uc_mcontext.gregs[REG_ERR] & PF_PRESENT;
	w->given = w->asked = false;
	fault = *w;
	ret = pager_fault(x->machine, w);
	if (ret < 0)
		return ret;
	look_ahead(r, &fault);
	if (!ret)
		slot_resume(r->slot);
	pager_settle(x->machine);
	if (ret)
		note_miss(r, &fault);
	return 1;
}

/*
 * Since the last look: has the thread used CPU time, which the host counts in ticks, or does it sleep?  One that waits
 * for a CPU of the host, or that somebody has stopped there, has done nothing wrong.
 */
static bool has_gone_on(const struct run *r, unsigned long *last_ticks)
{
	unsigned long user, kernel, before = *last_ticks;
	char path[64], line[1024] = "", state;
	const char *fields;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", r->mm->pid, r->slot.tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	fields = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	fclose(file);
	if (!fields || sscanf(fields, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &user, &kernel) != 3)
		return false;
	*last_ticks = user + kernel;
	return *last_ticks != before || state == 'S';
}

/* Nothing may come over the channel during a RUN: it is the end, or nonsense, and nobody else looks. */
static bool channel_speaks(const struct executor *x)
{
	struct pollfd p = { .fd = link_fd(x->link), .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* Of what was asked for ahead nobody knows when it comes, and that comes over the bulk link. */
static bool may_come_soon(const struct executor *x, unsigned home)
{
	return __atomic_load_n(&x->waiter.asked, __ATOMIC_RELAXED) || home == x->machine->config.layout.self;
}

/* Who brings the frame resumes the thread, so that r->go is what its orders say. */
static bool awaits_frame(const struct run *r)
{
	return __atomic_load_n(&r->slot.orders->go, __ATOMIC_ACQUIRE) != r->go;
}

/*
 * What is wanted is asked for, and then mapped, which takes about as long as it takes to come.  Were the thread that
 * receives, which has this CPU as well, woken by that, it would go first when we come to wait, for nothing, as we receive then.
 */
static void begin_quiet(struct run *r)
{
	const struct wire_map *maps = (const void *)(r->message + 1);
	struct executor *x = r->executor;
	struct machine *m = x->machine;
	unsigned home;

	if (!x->urgent || !x->has_cpu || x->cpu != own_node(m)->cpu_start || urgent_maps(r->message) > QUIET_MAPS ||
	    !spin_will(&x->frame_spin))
		return;
	home = pager_lacks_from(m, maps, r->message->map_count);
	if (home == m->config.layout.self || home == m->config.layout.nodes)
		return;
	r->quiet = home + 1;
	peers_quiet(m, home, true);
}

static void end_quiet(struct run *r)
{
	if (r->quiet)
		peers_quiet(r->executor->machine, r->quiet - 1, false);
	r->quiet = 0;
}

static void await_frame(const struct run *r)
{
	struct executor *x = r->executor;
	unsigned home;

	if (!x->urgent || !x->has_cpu || !awaits_frame(r))
		return;
	home = dsm_home(x->machine->dsm, x->waiter.pfn);
	if (may_come_soon(x, home))
		peers_await(x->machine, home, &r->slot.orders->go, r->go, &x->frame_spin, &x->overdue);
}

static void send_deferred(struct executor *x)
{
	if (x->overdue != UINT64_MAX)
		peers_send_deferred(x->machine);
	x->overdue = UINT64_MAX;
}

/*
 * Both it and we have one CPU, and who maps goes first there, holding mm.lock, which who brings its frames needs.  So the
 * thread begins before the rest is mapped, which takes longer than all else that is done for it here; it may fault on
 * something of that.  Whatever ends this wait, wait_parked() sees it again.  What is overdue may wait as well: to set a timer
 * takes as long as the thread's first steps, and what they fault on goes with it.  Frames that take longer than this wait are
 * from far away: then the rest is mapped meanwhile.
 */
static void let_it_begin(struct run *r)
{
	uint64_t until = now_ns() + BEGIN_NS;

	if (r->mapped == r->message->map_count)
		return;
	if (!awaits_frame(r) || (slot_wait(r->slot, r->go, until) == -EAGAIN && !awaits_frame(r)))
		slot_wait(r->slot, r->go, now_ns() + BEGIN_NS);		/* they have come, but no turn of the thread's yet */
}

/*
 * Wait until the thread parks again.  One that goes on although it was interrupted has blocked SIGALRM,
 * which only user code that tampers with its signal frame can do.
 */
static int wait_parked(struct run *r)
{
	struct executor *x = r->executor;
	unsigned patience = UNRESPONSIVE_TRIES;
	unsigned long ticks = ~0ul;
	int ret;

	for (;;) {
		await_frame(r);
		ret = slot_wait(r->slot, r->go, x->overdue);
		if (ret == -EAGAIN) {
			send_deferred(x);
			continue;
		}
		if (ret != -ETIMEDOUT)
			return ret;
		if (channel_speaks(x))
			return -EPIPE;
		if (awaits_frame(r) || !was_interrupted(r))
			continue;	/* a frame is on its way, or nobody has asked */
		if (has_gone_on(r, &ticks) && !--patience) {
			log_line(LOG_WARNING, "mm %llu: a thread does not let itself be interrupted: ending the process",
				 (unsigned long long)r->mm->id);
			kill(r->mm->pid, SIGKILL);
		}
	}
}

/* A sibling says so, of a thread that waits for a frame: the pager would resume it at a time when nobody expects that. */
static int end_forger(const struct run *r)
{
	log_line(LOG_WARNING, "mm %llu: a thread is said to have parked that does not run: ending the process",
		 (unsigned long long)r->mm->id);
	kill(r->mm->pid, SIGKILL);
	return -EFAULT;
}

/* The stub says so, in memory that user code can write. */
static bool is_event(uint32_t signal)
{
	return signal == SIGSYS || signal == SIGSEGV || signal == SIGALRM || signal == SIGTRAP ||
	       signal == SIGILL || signal == SIGFPE || signal == SIGBUS;
}

/* Run until something happens that the kernel must know.  0 or -errno: the stub, or the channel, is lost. */
static int execute(struct run *r)
{
	uint64_t started = now_ns();
	int ret = start(r);

	if (ret)
		return ret;
	/* we look at the home of what comes last, and find what others have sent by polling */
	if (awaits_frame(r) && r->quiet != dsm_home(r->executor->machine->dsm, r->executor->waiter.pfn) + 1)
		end_quiet(r);
	await_frame(r);
	end_quiet(r);
	let_it_begin(r);
	if (now_ns() >= r->executor->overdue)
		send_deferred(r->executor);
	map_rest(r);
	stubs_replenish(r->executor->machine);
	for (;;) {
		ret = wait_parked(r);
		if (!ret && awaits_frame(r))
			ret = end_forger(r);
		if (ret) {
			if (awaits_frame(r))
				pager_cancel(r->executor->machine, &r->executor->waiter, r->go);
			break;
		}
		r->slot.orders->sync = 0;
		r->signal = r->slot.report->signal;
		if (is_frame_fault(r) && was_interrupted(r)) {
			r->signal = SIGALRM;	/* it will fault again; user code may report faults for ever */
			break;
		}
		if ((r->signal == SIGALRM || (r->signal == SIGSEGV && r->mapped_late)) && !was_interrupted(r)) {
			r->mapped_late = false;
			resume(r);
			continue;
		}
		ret = frame_fault(r);
		if (ret <= 0)
			break;
	}
	r->executor->user_ns += now_ns() - started;
	if (!ret && !is_event(r->signal))
		ret = -EFAULT;
	return ret ? ret : find_frame(r);
}

/* --- the answer --- */

/*
 * System calls that begin by reading some bytes of user memory, once: the argument that says where, and how many at most.
 * The kernel need not ask for them then, unless it has waited for something before it reads.
 */
#define PATH_BYTES 128		/* of most paths all, and the kernel reads on where it ends */
#define AS_MANY_AS_DX 0		/* if that is little */

static const struct { uint16_t nr; uint8_t gp, length; } arguments[] = {
	{ SYS_rt_sigaction, CONTEXT_SI, 32 }, { SYS_rt_sigprocmask, CONTEXT_SI, 8 },
	{ SYS_open, CONTEXT_DI, PATH_BYTES }, { SYS_openat, CONTEXT_SI, PATH_BYTES },
	{ SYS_stat, CONTEXT_DI, PATH_BYTES }, { SYS_lstat, CONTEXT_DI, PATH_BYTES },
	{ SYS_newfstatat, CONTEXT_SI, PATH_BYTES }, { SYS_statx, CONTEXT_SI, PATH_BYTES },
	{ SYS_access, CONTEXT_DI, PATH_BYTES }, { SYS_faccessat, CONTEXT_SI, PATH_BYTES },
	{ SYS_faccessat2, CONTEXT_SI, PATH_BYTES }, { SYS_readlink, CONTEXT_DI, PATH_BYTES },
	{ SYS_readlinkat, CONTEXT_SI, PATH_BYTES }, { SYS_unlink, CONTEXT_DI, PATH_BYTES },
	{ SYS_unlinkat, CONTEXT_SI, PATH_BYTES }, { SYS_mkdir, CONTEXT_DI, PATH_BYTES },
	{ SYS_chdir, CONTEXT_DI, PATH_BYTES }, { SYS_clone3, CONTEXT_DI, 88 },
	{ SYS_write, CONTEXT_SI, AS_MANY_AS_DX }, { SYS_pwrite64, CONTEXT_SI, AS_MANY_AS_DX },
	{ SYS_sendto, CONTEXT_SI, AS_MANY_AS_DX },
};

/* So many bytes there, as far as they lie in one page that user code can read; length 0: none do. */
static struct wire_segment locate(struct mm *mm, uint64_t address, unsigned length)
{
	unsigned offset = address % NODE_PAGE_SIZE, rest = NODE_PAGE_SIZE - offset;
	struct mapping mapping = { 0 };

	if (length && address && address < STUB_USER_END) {
		pthread_mutex_lock(&mm->lock);
		mapping = mm_lookup(mm, address - offset);
		pthread_mutex_unlock(&mm->lock);
	}
	if (!(mapping.prot & PROT_READ))
		return (struct wire_segment){ 0 };
	return (struct wire_segment){ .pfn = mapping.pfn, .offset = offset, .length = length < rest ? length : rest };
}

/* Of what is long a part would not save the kernel asking. */
static unsigned argument_length(const struct wire_event *event, unsigned i)
{
	uint64_t count = event->gp[CONTEXT_DX];

	if (arguments[i].length != AS_MANY_AS_DX)
		return arguments[i].length;
	return count <= WIRE_ARGUMENT_MAX ? (unsigned)count : 0;
}

/* event->argument, and its bytes, if it is such a call and the frame is here. */
static void add_argument(const struct run *r, struct wire_event *event, uint8_t *bytes)
{
	struct wire_segment s = { 0 };
	unsigned i = 0;
	size_t n;

	while (i < sizeof(arguments) / sizeof(arguments[0]) && arguments[i].nr != event->gp[CONTEXT_ORIG_AX])
		i++;
	if (i < sizeof(arguments) / sizeof(arguments[0]))
		s = locate(r->mm, event->gp[arguments[i].gp], argument_length(event, i));
	if (s.length && pager_copy(r->executor->machine, &s, 1, false, bytes, &n) == 1)
		event->argument = s;
}

/* To be said with the next answer. */
static uint32_t take_refused(struct executor *x)
{
	uint32_t refused = x->refused;

	x->refused = x->unanswered = 0;
	return refused;
}

static int send_event(struct run *r, struct wire_event *event, const void *fp, uint32_t fp_length)
{
	uint8_t bytes[WIRE_ARGUMENT_MAX] = { 0 };
	struct iovec iov[3] = { { event, sizeof(*event) }, { (void *)fp, fp_length } };
	unsigned count = fp_length ? 2 : 1;

	if (event->signal == SIGSYS && r->executor->machine->config.layout.self)
		add_argument(r, event, bytes);
	if (event->argument.length)
		iov[count++] = (struct iovec){ bytes, (event->argument.length + 7) & ~7u };
	event->hdr.length = sizeof(*event) + fp_length + ((event->argument.length + 7) & ~7u);
	event->hdr.type = WIRE_EVENT;
	event->hdr.seq = r->message->hdr.seq;
	event->mm = r->message->mm;
	event->area = r->mm && !r->executor->machine->config.layout.self ? r->mm->area_number + 1 : 0;
	event->fp_length = fp_length;
	event->refused = take_refused(r->executor);
	event->flags = fp_length ? WIRE_RUN_FP : 0;
	if (r->executor->machine->config.layout.self && r->mm && pager_is_asking(r->executor->machine, r->mm))
		event->flags |= WIRE_EVENT_ASKING;
	return link_send(r->executor->link, iov, count);
}

/* The registers that the run was given, unchanged: it has not begun, or cannot. */
static int report_unchanged(struct run *r, uint32_t signal)
{
	struct wire_event event = { .signal = signal };

	memcpy(event.gp, r->message->gp, sizeof(event.gp));
	return send_event(r, &event, NULL, 0);
}

static int report(struct run *r)
{
	struct wire_event event = {
		.signal = r->signal,
		.code = r->slot.report->code,
		.fault_address = r->frame->uc_mcontext.gregs[REG_CR2],
		.fault_error = r->frame->uc_mcontext.gregs[REG_ERR],
		.fault_trap = r->frame->uc_mcontext.gregs[REG_TRAPNO],
		.posted = r->slot.report->posted,
		.posted_restorer = r->slot.report->posted_restorer,
	};
	struct fp_image *last = &r->mm->fp[r->executor->slot];
	uint32_t size, length;
	uint8_t fp[WIRE_FP_MAX];
	void *area;

	context_get_gp(r->frame, (uint64_t *)event.gp);
	event.gp[CONTEXT_ORIG_AX] = r->signal == SIGSYS ? (uint64_t)r->slot.report->syscall : NO_SYSCALL;
	event.gp[CONTEXT_FS_BASE] = r->slot.orders->fs_base;
	event.gp[CONTEXT_GS_BASE] = stub_user_gs(r->slot.orders->gs_base);
	if (r->message->flags & WIRE_RUN_LOADED)
		return send_event(r, &event, NULL, 0);
	area = find_fp(r, &size);
	if (!area || size > WIRE_FP_MAX)
		return report_unchanged(r, 0);
	length = xstate_length(area, size, r->executor->machine->context.end);
	if (last->length == length && !memcmp(last->bytes, area, length))
		return send_event(r, &event, NULL, 0);
	memcpy(fp, area, length);
	if (keep_fp(last, fp, length))
		return report_unchanged(r, 0);
	return send_event(r, &event, fp, length);
}

static int handle_run(struct executor *x, const struct wire_run *msg)
{
	struct run r = { .executor = x, .message = msg, .mm = mm_get(x->machine, msg->mm) };
	uint64_t started = now_ns(), user_ns = x->user_ns;
	int ret;

	if (!r.mm)
		return report_unchanged(&r, 0);
	x->runs++;
	x->apart = msg->flags & WIRE_RUN_APART;
	r.slot = mm_slot(r.mm, x->slot);
	clock_update(x->machine, &msg->clock);
	/* the same for all threads of the process */
	__atomic_store_n(&mm_slot(r.mm, 0).orders->other_time, !!(msg->flags & WIRE_RUN_OTHER_TIME), __ATOMIC_RELAXED);
	begin_quiet(&r);
	ret = map_until(&r, urgent_maps(msg), false);
	if (msg->map_count) {
		x->maps++;
		x->map_ns += now_ns() - started;
	}
	if (!ret)
		ret = load_context(&r);
	if (ret) {
		ret = report_unchanged(&r, 0);
	} else if (x->refused || !begin(&r)) {
		ret = report_unchanged(&r, SIGALRM);
	} else {
		ret = execute(&r);
		end(x);
		ret = ret ? report_unchanged(&r, 0) : report(&r);
		send_deferred(x);
	}
	end_quiet(&r);			/* it has not begun */
	mm_put(x->machine, r.mm);
	x->handoff_ns += now_ns() - started - (x->user_ns - user_ns);
	return ret;
}

/* Of a COPY that is not to be answered; in order, so that after one that is refused all are. */
static int handle_unanswered(struct executor *x, const struct wire_copy *msg, uint8_t *data)
{
	const struct wire_segment *segments = (const void *)(msg + 1);
	size_t bytes;

	if (x->unanswered == WIRE_UNANSWERED_MAX)
		return -EPROTO;
	if (x->refused || pager_copy(x->machine, segments, msg->segment_count, true, data, &bytes) < msg->segment_count)
		x->refused |= 1u << x->unanswered;
	x->unanswered++;
	return 0;
}

/* The kernel half, between two runs, reads or writes memory of its task. */
static int handle_copy(struct executor *x, const struct wire_copy *msg)
{
	const struct wire_segment *segments = (const void *)(msg + 1);
	bool write = msg->flags & WIRE_COPY_WRITE;
	uint8_t *data = write ? (uint8_t *)(segments + msg->segment_count) : x->data;
	struct wire_copied reply = { .hdr = { sizeof(reply), WIRE_COPIED, 0, msg->hdr.seq } };
	struct iovec iov[2] = { { &reply, sizeof(reply) }, { x->data, 0 } };
	size_t bytes;

	if (msg->flags & WIRE_COPY_UNANSWERED)
		return handle_unanswered(x, msg, data);
	reply.refused = take_refused(x);
	if (reply.refused)
		return link_send(x->link, iov, 1);
	if (msg->flags & WIRE_COPY_PAGE) {
		reply.done = pager_copy_page(x->machine, segments[0].pfn, segments[1].pfn);
		return link_send(x->link, iov, 1);
	}
	reply.done = pager_copy(x->machine, segments, msg->segment_count, write, data, &bytes);
	if (!write && bytes) {
		iov[1].iov_len = (bytes + 7) & ~7ul;
		memset(x->data + bytes, 0, iov[1].iov_len - bytes);
		reply.hdr.length += iov[1].iov_len;
		reply.bytes = bytes;
	}
	return link_send(x->link, iov, iov[1].iov_len ? 2 : 1);
}

static int handle_message(struct executor *x, const struct wire_hdr *msg)
{
	switch (msg->type) {
	case WIRE_RUN:
		if (((const struct wire_run *)msg)->flags & WIRE_RUN_LOADED && x->machine->config.layout.self)
			return -EPROTO;		/* the kernel has no slots here */
		return handle_run(x, (const void *)msg);
	case WIRE_COPY:
		return handle_copy(x, (const void *)msg);
	}
	return -EPROTO;
}

/*
 * As link_recv(), but it may be some time before it says that there is nothing.  Only while the kernel half does the same,
 * which is on another host then, or on another CPU.
 */
static int look_for_message(struct executor *x, const struct wire_hdr **msg)
{
	uint64_t end = x->apart && x->has_cpu ? spin_begin(&x->run_spin, LOOK_NS) : 0;
	int ret = 0;

	if (!end)
		return 0;
	while (!ret && now_ns() < end && !x->machine->stopping) {
		ret = link_recv(x->link, msg);
		if (!ret)
			spin_pause();
	}
	spin_end(&x->run_spin, ret > 0);
	return ret;
}

static void *executor_thread(void *arg)
{
	struct executor *x = arg;
	const struct wire_hdr *msg;
	int ret = 0;

	pin_thread(x->cpu, 0);
	x->has_cpu = cpus_suffice(&x->machine->config.layout);
	x->urgent = hurry_thread(0, HURRY_MUCH);
	while (!ret) {
		ret = look_for_message(x, &msg);
		if (!ret)
			ret = link_recv_wait(x->link, &msg, -1);
		if (ret > 0)
			ret = handle_message(x, msg);
	}
	if (!x->machine->stopping)
		machine_fail(x->machine, "CPU %u: the kernel has closed the cpu channel%s%s", x->cpu,
			     *x->link->error ? ": " : "", x->link->error);
	return NULL;
}

int executor_start(struct machine *m, unsigned cpu, struct link *link)
{
	struct executor *x = executor_of(m, cpu);
	unsigned own = cpu - own_node(m)->cpu_start, last = stub_slots(m) - 1;
	int ret;

	if (!x)
		return -EINVAL;
	if (x->started)
		return -EEXIST;
	x->machine = m;
	x->cpu = cpu;
	x->slot = own < last ? own + 1 : last;
	x->link = link;
	x->overdue = UINT64_MAX;
	pthread_mutex_init(&x->lock, NULL);
	ret = -pthread_create(&x->thread, NULL, executor_thread, x);
	x->started = !ret;
	return ret;
}

/* With m->stopping set.  A run that is under way ends because its stub is killed. */
void executors_stop(struct machine *m)
{
	for (unsigned i = 0; i < m->executor_count; i++) {
		struct executor *x = &m->executors[i];

		if (!x->started)
			continue;
		x->link->ops->shutdown(x->link);
		pthread_mutex_lock(&x->lock);
		if (x->run)
			kill(x->stub_pid, SIGKILL);
		pthread_mutex_unlock(&x->lock);
		pthread_join(x->thread, NULL);
		x->link->ops->free(x->link);
		pthread_mutex_destroy(&x->lock);
	}
}
