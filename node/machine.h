/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inside of machine.c, executor.c, mm.c, stubs.c, pager.c, combine.c and peers.c.
 *
 * Threads of a node: one executor per CPU (executor.c), one for the mm channel (mm.c), one for the dsm links, which
 * executors relieve, and one for the bulk links (peers.c), one that starts stubs and takes them back (stubs.c), and on
 * node 0 one that reads the kernel's userfaultfd (pager.c).
 *
 * Lock order: peers.receiving, machine.mms_lock, then mm.lock, then machine.frames_lock, within which mm.lock may be tried.
 * executor.lock, clock.lock, machine.hot_lock and machine.reap_lock are leaves.  No lock but peers.receiving is held
 * while waiting for another node; mm.lock is held while waiting for the service thread of that mm's stub, which waits
 * for nobody.
 */
#ifndef PANGEA_MACHINE_H
#define PANGEA_MACHINE_H

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../dsm/dsm.h"
#include "../migrate/context.h"
#include "node.h"
#include "stub.h"

struct executor;

/* --- mm.c: address spaces with a stub here --- */

struct mm_node;				/* of the mapping table */

/* A CPU thread of a stub as it parked before it ran user code (stubs.c). */
struct stub_fresh {
	uint64_t sp, pc;		/* where it slept; pc 0: not known */
	uint32_t context_offset;
	bool plain;			/* its stack is as in machine.fresh_stack */
	uint64_t restorer;		/* address of rt_sigreturn */
	uint8_t context[sizeof(ucontext_t)] __attribute__((aligned(8)));
};

struct mm {
	struct mm *next;		/* machine.mms chain, or machine.reap list; owner's lock */
	uint64_t id;
	uint64_t asked_end;		/* behind the number of the newest GET of node 0 for it; atomic */
	atomic_uint references;
	pid_t pid;
	int uffd;
	int socket;			/* to the stub's service thread */
	unsigned area_number;
	uint8_t *area;			/* the stub's control area in machine.arena; NULL: none yet */
	unsigned slots;
	unsigned served_on;		/* 1 + the CPU whose host CPU the service thread is kept on; 0: any */
	pid_t tid[STUB_SLOTS_MAX];	/* of the CPU threads */
	pthread_mutex_t lock;		/* from map to forgot, slot 0, and mapping system calls of the stub */
	struct mm_node *map;		/* address -> frame and rights, as far as pangead has mapped it */
	uint32_t kernel_maps, kernel_takes;	/* those of orders when they were looked at last */
	bool forgot;			/* the stub may show what is not in map */
	uint64_t revoked;		/* newest REVOKE */
	struct stub_fresh *fresh;	/* a slot each */
	struct fp_image {		/* vector state as last exchanged, per slot; its executor's */
		uint32_t length;
		uint8_t *bytes;
	} fp[STUB_SLOTS_MAX];
};

struct mapping { uint64_t pfn; uint32_t prot; };	/* prot 0: none */

/* What all that a mapping allows takes of its frame. */
static inline enum dsm_state mapping_state(uint32_t prot)
{
	return prot & PROT_WRITE ? DSM_EXCLUSIVE : DSM_SHARED;
}

/* The mm of that id, its stub made if there is none yet.  NULL: no stub could be made (said in the log). */
struct mm *mm_get(struct machine *m, uint64_t id);
/* Likewise, but NULL if it has no stub, or one is just being started: for who may do without. */
struct mm *mm_find_started(struct machine *m, uint64_t id);
void mm_put(struct machine *m, struct mm *mm);
/*
 * Carry out map operations in order, without those that give rights if a REVOKE newer than epoch has come.
 * cpu: of the machine, for which that is done.  still: none of its threads runs meanwhile, on this node.
 * 0 or -errno: then the stub cannot be used any more.
 */
int mm_apply(struct machine *m, struct mm *mm, unsigned cpu, const struct wire_map *maps, unsigned count,
	     uint64_t epoch, bool still);
/* mm.lock held. */
struct mapping mm_lookup(struct mm *mm, uint64_t address);
/* A thread of a stub: what stub.h says of a slot. */
struct slot {
	const struct mm *mm;
	pid_t tid;
	struct stub_orders *orders;
	struct stub_report *report;
};

struct slot mm_slot(const struct mm *mm, unsigned slot);
/* Let a parked CPU thread run. */
void slot_resume(struct slot slot);
/*
 * Wait until a CPU thread has parked with orders.go at this value.  0; -ESRCH: the stub has died; -ETIMEDOUT: not
 * for half a second; -EAGAIN: not until then (now_ns(); UINT64_MAX: no limit).
 */
int slot_wait(struct slot slot, uint32_t go, uint64_t until);
/* Can this host run stubs?  0, or -ENOEXEC: no (said in the log). */
int mm_probe(struct machine *m);
void *mm_channel_thread(void *machine);
/* The kernel needs it no more: its stub is given back when its last user lets go of it. */
void mm_forget(struct machine *m, uint64_t id);
/* The kernel has taken stubs that stand in store (stub.h): they have their mm from now on. */
void mm_note_taken(struct machine *m);
/* After the executors, the mm thread and the reaper have ended. */
void mm_forget_all(struct machine *m);
/* Of a stub whose mm is used no more, or that has none: user code's mappings go.  0, or -errno: it cannot be used again. */
int mm_unmap_all(struct machine *m, struct mm *mm);
/* Likewise, but they stay, as the kernel will see to them. */
void mm_keep_all(struct mm *mm);
void mm_drop_table(struct mm *mm);

/* --- stubs.c: stub processes, made ahead and used again --- */

/* Before any mm; 0 or -errno. */
int stubs_open_arena(struct machine *m);
void stubs_close_arena(struct machine *m);
int stubs_start(struct machine *m);
void stubs_stop(struct machine *m);
/* When nobody holds an mm any more: those that somebody still held when they were stopped. */
void stubs_end(struct machine *m);
bool stub_alive(const struct mm *mm);
/*
 * One with no id yet, started now or out of the store.  NULL: none could be started (said in the log); there is none.
 * patient: it may take some 100 ms more on a busy host, so that the stub can be used again.
 */
struct mm *stub_new(struct machine *m, bool patient);
struct mm *stub_take_spare(struct machine *m);
/* Once what the spare was for has begun: to wake who makes others takes longer than to take one. */
void stubs_replenish(struct machine *m);
/* One that the kernel has taken, out of the store; NULL: none. */
struct mm *stub_next_taken(struct machine *m);
/* After the last reference: ending a process, or emptying it, may take long. */
void stub_give_back(struct machine *m, struct mm *mm);

/* --- pager.c: frames --- */

/* Someone who needs a frame. */
struct waiter {
	struct waiter *next;		/* pending or done list; frames_lock */
	uint64_t pfn, address;		/* address: where it is to be mapped */
	enum dsm_state want;
	struct mm *mm;			/* NULL: the kernel process, or */
	uint64_t expected_in;		/* nobody: it is only mapped in that mm; else 0 */
	struct slot slot;
	uint64_t since;			/* ns; 0: it has not had to wait */
	bool entry;			/* one that permits no store was there */
	bool given;			/* the entry has been made; frames_lock */
	bool asked;			/* another node, when it began to wait; atomic */
};

/* How long waiters have waited.  Any thread. */
#define WAIT_BUCKETS 24

struct waits {
	atomic_ullong count, ns;
	atomic_ullong bucket[WAIT_BUCKETS];	/* of 2^(n-1) to 2^n us */
};

/*
 * Someone who faults on one page after the other gets the next ones before asking (pager.c).  [marker, end) was
 * asked for last; the page at marker is left without an entry, so that its use shows that more will be wanted.
 */
#define AHEAD_MAX	16		/* pages at a time, of the kernel */
#define AHEAD_READ_MAX	512		/* of a thread that reads, which takes them from nobody */
#define AHEAD_WRITE_MAX	256		/* of one that writes */
#define AHEAD_STEP	128		/* to pager_ahead() at a time */

struct stream {
	uint64_t next;			/* address of the fault that would begin or continue it */
	unsigned run;			/* faults in sequence so far */
	unsigned window;		/* pages asked for last; 0: none */
	uint64_t marker, end;
};

/* What so many of a hundred have not exceeded, in ns. */
uint64_t waits_percentile(const struct waits *w, unsigned percent);

struct ahead { uint64_t address, pfn; enum dsm_state want; };	/* address 0: needs no entry */

/* A fault at this address: how many pages, at most so many, to look ahead from s->marker on. */
unsigned stream_advance(struct stream *s, uint64_t address, unsigned most);
/*
 * Map what is held already, ask for the rest without waiting; it is mapped when it comes.  mm NULL: the kernel; else
 * mm.lock is held.  Returns how many of the pages there was room for.
 */
unsigned pager_ahead(struct machine *m, struct mm *mm, const struct ahead *pages, unsigned count);

/* 0: mapped, go on; 1: the slot is resumed (or the kernel woken) as soon as the frame is here; -errno. */
int pager_fault(struct machine *m, struct waiter *w);
/* The home of the first of those frames that are wanted and not here; the number of nodes: there is none. */
unsigned pager_lacks_from(struct machine *m, const struct wire_map *maps, unsigned count);
/* The frames of those maps that are wanted will be needed at once: ask for them.  The mm.lock of an mm that is to map them held. */
void pager_want(struct machine *m, struct mm *mm, const struct wire_map *maps, unsigned count);
/* Likewise those that are to be asked for ahead; they are mapped as they come. */
void pager_bring(struct machine *m, struct mm *mm, const struct wire_map *maps, unsigned count);
/* Has something that the kernel host was asked for, for that mm, not come yet?  What is asked for meanwhile may be left out. */
bool pager_is_asking(const struct machine *m, const struct mm *mm);
/* Has it been mapped, with the rights it wants?  Most likely at least: or it will fault. */
bool pager_is_mapped(struct machine *m, const struct waiter *w);
/* 0: mapped, or the mapping has gone; 1: the rights are not here. */
int pager_map(struct machine *m, struct waiter *w);
/* Have it mapped when it comes.  What becomes of the waiter is the pager's; the mm may end before. */
void pager_expect(struct machine *m, const struct waiter *w);
/* Spare the faults on those of the frames from pfn on that this node holds already.  mm.lock held. */
void pager_map_held(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, uint64_t pages);
/*
 * Read or write user memory for the kernel: as many of the segments, in order, as this node holds the frames of.
 * data: their bytes, one segment after the other.  Returns how many; *bytes: of these.
 */
unsigned pager_copy(struct machine *m, const struct wire_segment *segments, unsigned count, bool write,
		    uint8_t *data, size_t *bytes);
/*
 * One frame to another, if this node holds that as only one.  May wait for the first, as the kernel does for us, so that it
 * stays what it is.  Returns how many have been used: 2 or 0.
 */
unsigned pager_copy_page(struct machine *m, uint64_t from, uint64_t to);
/* The stub is gone: nobody is to resume its thread any more.  go: orders.go when that has been done already. */
void pager_cancel(struct machine *m, struct waiter *w, uint32_t go);
/*
 * Wait until the requests that this node has sent so far have been answered.  After a REVOKE: one that was still
 * under way might otherwise get a frame out of the hands of its next user.
 */
void pager_drain(struct machine *m);
int pager_start(struct machine *m, char *err, size_t err_size);
void pager_stop(struct machine *m);
/* Before and after any call into m->dsm; after unlocking call pager_settle(). */
void frames_lock(struct machine *m);
void frames_unlock(struct machine *m);
void pager_settle(struct machine *m);
void pager_discard(struct machine *m, const struct wire_range *ranges, unsigned count);
uint64_t pager_present(const struct machine *m);
/* No store to these frames can happen any more.  frames_lock held. */
void pager_protect(struct machine *m, uint64_t pfn, unsigned count);
/* Nobody here can use them any more, and they read as zero.  frames_lock held. */
void pager_drop(struct machine *m, uint64_t pfn, unsigned count);
/* Likewise; what they held after the last store is in m->taken then.  At most m->pipe_pages. */
void pager_take(struct machine *m, uint64_t pfn, unsigned count);
void pager_write(struct machine *m, uint64_t pfn, const void *pages, unsigned count);
/*
 * Likewise, and make the entries, to read them or, if they are Exclusive, to write them.  The mm shows these frames
 * there, and its lock is held too.  Returns how many, from the first on, have been done: user code may have written to
 * them since.
 */
unsigned pager_write_mapped(struct machine *m, const struct mm *mm, uint64_t address, uint64_t pfn, const void *pages,
			    unsigned count, enum dsm_state state);
/* The mm has a stub with this userfaultfd, or, -1, has none any more.  No lock held. */
void pager_stub(struct machine *m, const struct mm *mm, int uffd);

/* --- combine.c: the core's actions for many frames --- */

struct arrival { uint64_t mm, address, pfn; unsigned count; enum dsm_state state; };

#define ARRIVALS_MAX 8

struct combined {			/* frames_lock, but for the last three */
	bool on;
	uint64_t now;
	/* the same message about so many frames, from msg.pfn on, has not been sent */
	unsigned to, count;
	struct dsm_msg msg;
	bool lent;			/* its pages are where the frame cache has them */
	bool writable;			/* and can still be written */
	bool leave;			/* and do not stay there */
	/* so many frames, from there on, are not held any more and still there */
	uint64_t dropped;
	unsigned dropped_count;
	/* so many pages that have come have not been written to the frame cache */
	uint64_t pfn;
	const uint8_t *pages;
	unsigned page_count;
	/* the bulk thread's: have come and are not mapped; and whose lock it holds, or NULL */
	struct arrival arrivals[ARRIVALS_MAX];
	unsigned arrival_count;
	struct mm *mm;
};

/* Between these, with frames_lock held throughout. */
void combine_begin(struct machine *m, uint64_t now);
void combine_end(struct machine *m);
/* The time, which meanwhile stands still. */
uint64_t combine_now(const struct machine *m);
/* What the core does meanwhile (dsm.h).  combine_lend, combine_drop: false: there is nothing to be put off. */
bool combine_lend(struct machine *m, uint64_t pfn, enum dsm_state have, enum dsm_state keep, const void **page);
bool combine_drop(struct machine *m, uint64_t pfn);
void combine_send(struct machine *m, unsigned to, const struct dsm_msg *msg);
void combine_install(struct machine *m, uint64_t pfn, const void *page);
void combine_ready(struct machine *m, uint64_t pfn, enum dsm_state state);
/* Nothing is put off any more. */
void combine_flush(struct machine *m);
/* Likewise if it is about this frame, for which somebody waits. */
void combine_precede(struct machine *m, uint64_t pfn);
/*
 * For the bulk thread, around what it receives.  Before, with no lock held: take that of the mm for which this frame was
 * asked, if there is one.  Afterwards: map what came, and give the lock back.
 */
void combine_prepare(struct machine *m, uint64_t pfn);
void combine_map(struct machine *m);

/* --- peers.c --- */

/* How well it went to wait without sleeping; the waiting thread's. */
struct spin { unsigned misses, skip; };

/* The links of one purpose to all other nodes, and the thread that receives from them. */
struct peers {
	struct machine *machine;
	struct link *link[WIRE_NODES_MAX];
	int event;			/* eventfd: a link was added or has output, or an earlier deadline */
	pthread_t thread;
	bool started;
	pthread_mutex_t receiving;	/* who has it receives; before all other locks */
	atomic_bool dead[WIRE_NODES_MAX];	/* nothing is received from there any more */
};

/* frames_lock held, as for the next */
void peers_send(struct machine *m, unsigned to, const struct dsm_msg *msg);
/* The same message about so many frames; its pages follow each other.  Over the bulk link. */
void peers_send_bulk(struct machine *m, unsigned to, const struct dsm_msg *msg, unsigned count);
void peers_kick(struct machine *m);
/*
 * For an executor that asks for frames and will call peers_await() in less than a round trip or two, which ends it; it has to end it
 * otherwise: what comes from there need not wake anybody.
 */
void peers_quiet(struct machine *m, unsigned home, bool yes);
/*
 * For an executor that waits for a frame and has nothing else to do: receive, without sleeping, until *go has this value, which
 * whoever brings the frame sees to, or it has taken too long.  home: of the frame.  What the core then puts off the caller
 * must have sent (peers_send_deferred()): *overdue says when, and stays as it is if there is nothing.  It has to run
 * before what is ordinary, as nobody else receives meanwhile.
 */
void peers_await(struct machine *m, unsigned home, const uint32_t *go, uint32_t wanted, struct spin *spin,
		 uint64_t *overdue);
/* The end of m->gathering.  frames_lock held. */
void peers_send_gathered(struct machine *m);
/* What has been put off, by whomever. */
void peers_send_deferred(struct machine *m);
int peers_start(struct machine *m);
void peers_stop(struct machine *m);

/* --- clock.c: the clock page of another node than the kernel's; any thread --- */

struct clock_page;

struct clock {
	bool enabled;
	pthread_mutex_t lock;		/* all below */
	struct clock_page *page;	/* in the arena */
	uint32_t generation;		/* newest that was heard of */
	uint64_t start_tsc, start_ns;
	uint64_t mult, measure_again;	/* rate; TSC */
};

/* After stubs_open_arena(). */
void clock_start(struct machine *m);
void clock_update(struct machine *m, const struct wire_clock *record);
/* User code reads no clock any more until it is updated with this generation or a newer one. */
void clock_stop(struct machine *m, uint32_t generation);

/* --- executor.c --- */

struct executor {
	struct machine *machine;
	unsigned cpu, slot;
	struct link *link;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;		/* the four below */
	uint64_t run;			/* run number that executes; 0: none */
	uint64_t interrupted;		/* highest run number that was interrupted */
	pid_t stub_pid, stub_tid;	/* of the run */
	struct waiter waiter;
	struct stream stream;
	struct spin frame_spin, run_spin;
	bool apart;			/* the kernel half is awake somewhere else (WIRE_RUN_APART) */
	bool urgent, has_cpu;		/* it runs before what is ordinary; cpus_suffice() */
	uint32_t unanswered, refused;	/* COPYs since the last answer, and 1 << number of those that could not be done */
	uint64_t overdue;		/* peers_send_deferred() is to be called then; UINT64_MAX: need not be */
	uint8_t data[WIRE_COPY_MAX + 8] __attribute__((aligned(8)));
	atomic_ullong runs, interrupts, user_ns, handoff_ns, maps, map_ns;
};

int executor_start(struct machine *m, unsigned cpu, struct link *link);
void executor_interrupt(struct machine *m, unsigned cpu, uint64_t run);
void executors_stop(struct machine *m);

/* --- schedule.c --- */

/* Keep a thread (0: the calling one) where the host runs this CPU of the machine. */
void pin_thread(unsigned cpu, pid_t tid);
/* Or on a CPU of the host, of those it may use. */
void pin_thread_at(int host_cpu, pid_t tid);
/*
 * Let a thread run as soon as it is woken, even when user code keeps its CPU busy; what it starts is not like that.
 * Who waits for HURRY_LITTLE has asked before it had to.  false: the host permits only a wish.
 */
enum hurry { HURRY_LITTLE = 1, HURRY_MUCH = 2 };
bool hurry_thread(pid_t tid, enum hurry hurry);
/* And no more: it ends, or empties its stub, which may take long. */
void calm_thread(pid_t tid);
/* Has each CPU of the machine that this host serves one of the host's?  On node 0 the kernel's halves of all are here. */
bool cpus_suffice(const struct layout *layout);
/*
 * To wait without sleeping, for so many ns at most: until when (now_ns()); 0: not this time.  Afterwards say whether it has
 * come: the more often in vain, the more of the next, 1, 3, 7, ..., are not waited for like that.
 */
uint64_t spin_begin(struct spin *s, uint64_t most);
/* Will it, this time? */
bool spin_will(const struct spin *s);
void spin_end(struct spin *s, bool came);
/* Between two looks: lets other threads of this node run, and what shares the CPU's core. */
void spin_pause(void);

/* --- machine.c --- */

#define MM_HASH 256
#define WAITER_HASH 256
#define DEFERRED_MAX 16

struct deferred { unsigned to; struct dsm_msg msg; };

/* A GET under way; more than half of these are not looked ahead for. */
#define ASKED_MAX 8192
#define ASKED_ANSWERED (~0ull)
struct asked { uint64_t pfn, since; };

/* A page that was looked ahead for; a hint, and found by pfn % EXPECTED_MAX. */
#define EXPECTED_MAX 4096
struct expected { uint64_t pfn, address, mm; };

struct machine {
	struct machine_config config;
	struct context_layout context;
	atomic_bool stopping;

	pthread_mutex_t mms_lock;
	struct mm *mms[MM_HASH];
	uint64_t revoked_absent;	/* newest REVOKE of an mm that had no stub here */
	int arena_fd;			/* stub.h; mapped whole, as it is sparse */
	uint8_t *arena;
	uint8_t *fresh_stack[STUB_SLOTS_MAX];	/* of the first stub's CPU threads when they were fresh; written once, by reap_lock */
	uint64_t fresh_sp[STUB_SLOTS_MAX];	/* where that begins */
	atomic_ullong stubs;
	struct link *mm_link;
	pthread_t mm_thread;

	pthread_mutex_t hot_lock;
	struct hot hot;
	struct clock clock;

	pthread_mutex_t reap_lock;
	struct mm *reap;		/* to be ended; reap_lock, as the next three */
	struct mm *spare;		/* have a stub and no id yet */
	unsigned spares;
	bool spares_failed;		/* no more are made until one is asked for */
	atomic_bool spare_taken;	/* and who makes others has not been told */
	pthread_t reap_thread;
	uint64_t area_used[STUB_AREAS_MAX / 64];	/* reap_lock; a bit for each control area */
	unsigned area_next;		/* where to look for a free one */

	pthread_mutex_t frames_lock;	/* dsm and everything below up to the next blank line */
	struct dsm *dsm;
	int frame_fd;
	uint8_t *frames;		/* the frame cache, for copies (pager_copy()); never registered */
	int rights_fd;			/* of the kernel host: dsm's states, which the kernel looks at */
	uint8_t *rights;
	int pipe[2];			/* carries pages past their removal from the frame cache */
	unsigned pipe_pages;		/* so many, at most WIRE_PAGES_MAX */
	uint8_t *taken;			/* where they are read to */
	uint64_t *shown;		/* where a frame has an entry in a stub (pager.c); on node 0 in memory of the kernel's too */
	int *stub_uffd;			/* 1 + the userfaultfd of the stub with the control area of this number */
	struct combined combined;
	struct expected expected[EXPECTED_MAX];
	struct waiter *pending[WAITER_HASH];
	struct waiter *done;
	struct deferred deferred[DEFERRED_MAX];	/* messages that nobody waits for */
	unsigned deferred_count;
	bool gathering;			/* what is sent is put there as well, to go in one message for each node */
	uint64_t deferred_until;	/* then the first of them has waited long enough */
	bool deferred_ours;		/* the peers thread sees to some of them, not only executors */
	uint64_t deadline;		/* when dsm_tick() is next due, as the peers thread knows it */
	pthread_cond_t discards_done;
	uint64_t discards;		/* under way */
	struct asked asked[ASKED_MAX];	/* GETs to other nodes, in order, at their number % ASKED_MAX */
	uint64_t asked_first, asked_end;	/* numbers; the first is under way, pfn ASKED_ANSWERED of others not */
	bool receiving;			/* the core is being told what a peer has sent */
	uint64_t asked_host_end;	/* behind the newest number of a GET of node 0 */
	uint64_t asked_seen;		/* asked_first when that was over last; read without the lock, atomic */
	uint64_t upgrades_end;		/* as asked_host_end, of what the core asked for meanwhile; likewise */
	uint64_t asks, asked_ns;	/* so far, numbered or not; from asking to answer, of those answered */
	pthread_cond_t asked_less;
	struct waits waits, kernel_waits;
	uint8_t *exposed;		/* node 0: chunk of the kernel's memory is registered */

	int kernel_uffd, kernel_stop;	/* node 0; kernel_stop: eventfd */
	uint64_t kernel_base, kernel_mapped_start, kernel_frames;
	pthread_t kernel_thread;
	struct stream kernel_stream;	/* kernel_thread's */

	struct peers urgent, bulk;

	struct executor executors[WIRE_CPUS_MAX];
	unsigned executor_count;	/* those that CPUs of this node have, and on node 0 those that start programs */
};

void machine_fail(struct machine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t now_ns(void);

static inline const struct layout_node *own_node(const struct machine *m)
{
	return &m->config.layout.node[m->config.layout.self];
}

/* Of a stub (stub.h): that of its service, one for each CPU, and one for what starts here. */
static inline unsigned stub_slots(const struct machine *m)
{
	return 1 + own_node(m)->cpu_count + (m->executor_count > own_node(m)->cpu_count);
}

#endif
