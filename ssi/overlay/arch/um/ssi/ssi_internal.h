/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inside of arch/um/ssi.
 *
 *   action.c              signal actions that stubs may tell
 *   apart.c               both halves of a CPU awake at once
 *   boot.c, boot_user.c   what the daemon told; the userfaultfd of the linear mapping
 *   clock.c               the clock that user code reads
 *   cpu.c                 running the user half of a CPU
 *   local.c, local_user.c the same without the daemon, on the kernel host
 *   map.c, service_user.c mappings without the daemon, on the kernel host
 *   mm.c                  address spaces: giving rights lazily, taking them away at once
 *   node.c                the mm channel of each node
 *   result.c              results of system calls that go along with the next RUN
 *   start.c               programs start on the kernel host
 *   idle.c                waiting for work
 *   frames.c              frames that the kernel frees and allocates
 *   user.c                reading and writing user memory where it is
 *   link_user.c           host system calls on channels
 *   wait_user.c           host system calls that a signal ends
 *   host_user.c           host system calls on frames, for ordinary users
 *
 * Lock order: ssi_mm.lock, then ssi_node.lock.  Both are taken with interrupts off and held while a node
 * answers: that is a shoot-down, and takes a network round trip.  Nodes answer without the kernel's help.
 */
#ifndef __SSI_INTERNAL_H
#define __SSI_INTERNAL_H

#include "contract.h"
#include "wire.h"

/* link_user.c; all of them block without the scheduler's knowledge, at most for a round trip */
/* more: something else follows at once, and may go with it. */
int ssi_link_send(int fd, const void *msg, int length, int more);
/* A whole message of at least min bytes into buf[size]; its length, or -errno and *why. */
int ssi_link_receive(int fd, enum wire_purpose purpose, void *buf, int min, int size, const char **why);
/*
 * Like receive, but with interrupts served meanwhile, and without sleeping before until (os_nsecs()).  wanted() is called
 * whenever one may have changed its answer; once it says yes, interrupt(arg) is called, once.
 */
int ssi_link_wait(int fd, enum wire_purpose purpose, void *buf, int min, int size, long long until, int (*wanted)(void),
		  void (*interrupt)(void *), void *arg, const char **why);
/* Is there something to receive, or the end? */
int ssi_link_readable(int fd);
/* How well it went to wait for a channel's answers without sleeping. */
struct ssi_spin { unsigned int skip, misses; };
/*
 * Wait for something to receive without sleeping, for 100 us at most, and less and less often where that was in vain;
 * never with PANGEA_SPIN=off in the environment of ssi_spin_prepare().
 */
void ssi_link_spin(int fd, struct ssi_spin *spin);
void ssi_spin_prepare(void);
int ssi_may_spin(void);
/*
 * The calling CPU's host thread to one of the host's CPUs, unless PANGEA_PIN=off is in the environment; after
 * ssi_pin_prepare(), which must come before any CPU is pinned.
 */
void ssi_pin_prepare(void);
void ssi_pin(int cpu);
/* The host's CPU on which that one is, and any thread to one; -1: the kernel is not to pin. */
int ssi_host_cpu(int cpu);
void ssi_pin_thread(int tid, int host_cpu);
/* How many of the host's CPUs there are to pin to. */
int ssi_host_cpus(void);
/*
 * Close a channel over which nothing good comes any more.  The daemons end a machine that has lost a part of
 * it; until then nothing can go on.
 */
void ssi_lost(int fd, const char *what, const char *why) __attribute__((noreturn));

/*
 * wait_user.c: a system call that may sleep, unless os_signals_pending(); a signal ends it even where it would be made
 * again.  What it returns, or -EINTR.
 */
long ssi_wait_call(long nr, long a, long b, long c, long d);
/*
 * Look for a signal, or for wanted(), without sleeping.  1: there is one; 0: until then (os_nsecs()) there was none;
 * -EBUSY: the host has others to run on this CPU.
 */
int ssi_stay_awake(long long until, int (*wanted)(void));

/*
 * local_user.c: the threads of stubs on the kernel host; each is used by its CPU only, or by who starts (start.c), and has
 * parked unless said
 */
struct ssi_slot { unsigned int area, number, cpu; };	/* cpu: whose it is now, for what is counted */
/* si_code; of a fault; struct stub_report.posted */
struct ssi_trap { int code; unsigned long address, error, number, posted, posted_restorer; };

/* With areas of so many slots.  0 or -errno */
int ssi_open_arena(int fd, unsigned int count);
/* gp: in the order of struct user_regs_struct.  0; -EFAULT, as all of these: user code has destroyed its frame. */
int ssi_slot_load(const struct ssi_slot *s, const unsigned long *gp, int singlestep);
/* What the next run may be told of its signal actions; known: they are there. */
struct wire_action *ssi_slot_actions(const struct ssi_slot *s, int known);
int ssi_slot_load_fp(const struct ssi_slot *s, const void *fp, int fp_size);
void ssi_slot_resume(const struct ssi_slot *s);
/*
 * After resuming, with IRQs disabled.  0: it has parked; -EINTR: a signal or an IPI waits for IRQs to be enabled.
 */
int ssi_slot_wait(const struct ssi_slot *s, int may_spin);
/* Its thread need not spin any more. */
void ssi_slot_leave(const struct ssi_slot *s);
/* Keep the parked thread on one of the host's CPUs, and let it spin or not when it parks next.  1: it comes from another one. */
int ssi_slot_place(const struct ssi_slot *s, int host_cpu, int spin);
/* Make it park if it does not by itself; may be late. */
void ssi_slot_interrupt(const struct ssi_slot *s);
unsigned int ssi_slot_signal(const struct ssi_slot *s);
/* Has it parked because of a frame that is not there? */
int ssi_slot_frame_fault(const struct ssi_slot *s);
int ssi_slot_read(const struct ssi_slot *s, struct ssi_trap *trap, unsigned long *gp);
int ssi_slot_read_fp(const struct ssi_slot *s, void *fp, int fp_size);
void ssi_slot_count(const struct ssi_slot *s, long long user_ns, int interrupted);

struct stub_arena;
struct stub_orders;
struct stub_report;

/* Where the arena is mapped; orders and report of a slot. */
struct stub_arena *ssi_arena(void);
struct stub_orders *ssi_slot_orders(const struct ssi_slot *s);
struct stub_report *ssi_slot_report(const struct ssi_slot *s);

/*
 * service_user.c: the service thread of a stub on the kernel host, between begin and end.  IRQs are disabled, none of the
 * stub's other threads runs user code, and nothing waits for pangead.
 */
struct ssi_service {
	struct ssi_slot slot;		/* of the CPU that asks */
	int gives;
	long long begun;
	int error;			/* the first: nothing was done after it */
	unsigned int count;		/* operations to be carried out */
	unsigned long start, end;	/* mapped by these, and not registered yet */
};

/*
 * A stub in store for that mm, with a living thread for that slot: 1 + the number of its area, the first of so many that are
 * liked best if one is there; 0: there is none.
 */
unsigned int ssi_take_stub(unsigned int slot, unsigned long long mm, const unsigned int *liked, unsigned int count);
/* Is that stub, by 1 + the number of its area, in store now? */
int ssi_stub_in_store(unsigned int number);
/* Is the stub in store, or goes there, with its mappings?  What it was before. */
int ssi_stub_is_kept(unsigned int area, int yes);
/* Let pangead know that the mm needs its stub no more.  0; -ENOSPC: there is no room to say so. */
int ssi_free_stub(unsigned long long mm);
/* It is told of several at a time; now, as the calling CPU has nothing else to do, or it has been a while. */
void ssi_tell_freed(void);
/* gives: it is not for unmapping only.  0; -EBUSY: pangead uses it. */
int ssi_service_begin(struct ssi_service *s, const struct ssi_slot *slot, int host_cpu, int gives);
/* Everything is done: 0; -ENOMEM: some of it, as the host refused a mapping; -ESRCH: the stub is gone. */
int ssi_service_end(struct ssi_service *s);
void ssi_service_flush(struct ssi_service *s);
void ssi_service_unmap(struct ssi_service *s, unsigned long start, unsigned long end);
/* Of a mapping that is there. */
void ssi_service_protect(struct ssi_service *s, unsigned long start, unsigned long end, unsigned int prot);
/* Map frames that the node holds, with entries; offset: in the frame cache; prot: PROT_... */
void ssi_service_give(struct ssi_service *s, unsigned long start, unsigned long length, unsigned long long offset,
		      unsigned int prot);

/* gate_user.c */
#define SSI_GATE_SIZE	32
#define SSI_GATE_ROOM	5		/* bytes of a jump */
#define SSI_GATE_RETURN	19		/* behind the system call of a gate */
#define SSI_GATE_COMMON	64		/* bytes of what the gates of a page jump to, at its end */

/* May system calls be replaced by jumps: PANGEA_GATES, and what the host can. */
int ssi_may_gate(void);
/*
 * A page of so many bytes for gates, and gate number n in it, for that instruction, which the jump replaces; ip: behind the
 * system call that follows.
 */
void ssi_prepare_gates(unsigned char *page, unsigned long size);
void ssi_write_gate(unsigned char *page, unsigned long size, unsigned int n, const unsigned char *instruction,
		    unsigned long ip);

struct clock_page;

/* This host's; whether its TSC is good for that and nobody has forbidden it. */
struct clock_page *ssi_clock_page(void);
int ssi_clock_usable(void);
/* The clock page is not for the tasks of this stub, or it is. */
void ssi_slot_other_time(const struct ssi_slot *s, int yes);

/* boot_user.c */
/* NULL: it cannot be mapped. */
const unsigned char *ssi_map_rights(int fd, unsigned long frames);
/* Where frames have their entries in stubs (node/stub.h); with the rights. */
extern unsigned long long *ssi_shown;
int ssi_read_boot(int fd, struct ssi_boot *boot);
/* 0: host system calls fault like the kernel itself; 1: they do not; -errno */
int ssi_open_userfaultfd(int *fd);
/* Host system calls do not wait for frames: touch them first (host_user.c). */
extern int ssi_touch_frames;
int ssi_hand_over(int sock, const struct ssi_pager *pager, int uffd);

#ifndef __UM_HOST__

#include <linux/gfp_types.h>
#include <linux/pgtable.h>
#include <linux/spinlock.h>

extern struct ssi_boot ssi_boot;

/* boot.c: struct ssi_boot.rights_fd, mapped */
extern const unsigned char *ssi_rights;

/* Does the kernel host hold the frame, so that it may be read, or written too?  A hint. */
static inline bool ssi_held(unsigned long pfn, bool write)
{
	bool local = pfn < ssi_boot.nodes[0].pfn_count;

	return SSI_RIGHTS(READ_ONCE(ssi_rights[pfn]), local) >= (write ? 2 : 1);
}

/* --- mm.c: a sequence of faults on one page after the other --- */
struct ssi_stream {
	__u64 mm;
	unsigned long next;		/* address of the fault that would continue it */
	unsigned int faults;		/* in sequence so far */
	unsigned long last, given;	/* the last fault, and where what could be given with it ended */
	unsigned int gives;		/* in sequence so far, up to a few */
};

/* --- gate.c --- */
#define SSI_TRAP_SITES 256	/* a power of two */

struct ssi_trap_site { __u64 mm; unsigned long ip; unsigned int uses; };

struct ssi_mm;
struct uml_pt_regs;

/* The current task has made a system call; if that came through a gate (true), to what it stands for. */
bool ssi_gate_pass(const struct ssi_mm *sm, struct uml_pt_regs *regs);
/* Something else has ended its stay in user mode; if that was in a gate, to what it stands for. */
void ssi_gate_leave(const struct ssi_mm *sm, struct uml_pt_regs *regs);
/* It came by a trap: is it frequent?  May sleep. */
void ssi_gate_consider(struct ssi_trap_site *sites, const struct ssi_mm *sm, const struct uml_pt_regs *regs);

/* A task's stay in the kernel, as long as it has not been scheduled away, nor has changed its mm.  pid 0: none. */
struct ssi_stay {
	pid_t pid;
	unsigned long switches;
	__u64 mm;
};

/*
 * Frames of a task's memory as they were a moment ago, for a system call that reads many small pieces of it, and orders
 * them with nothing: user.c.  For that stay only.
 */
#define SSI_SNAPSHOT_MAX 4
struct ssi_snapshot {
	struct ssi_stay stay;
	unsigned int taken;		/* so far; the newest are kept */
	unsigned long pfn[SSI_SNAPSHOT_MAX];
	__u8 (*page)[PAGE_SIZE];
};

/* What the EVENT has told of memory that the current system call reads; in that stay only. */
struct ssi_argument {
	struct ssi_stay stay;
	struct wire_segment at;
	__u8 bytes[WIRE_ARGUMENT_MAX];
};

/* --- result.c --- */
#define SSI_RESULTS_BYTES 16384

/* COPYs that have been put off, in order. */
struct ssi_results {
	unsigned int count, bytes, last;	/* last: where the newest one begins */
	__u8 messages[SSI_RESULTS_BYTES] __aligned(8);
};

/*
 * Room for the bytes of these segments of the current task's memory, to be written there; NULL: they must be written now.
 * When they have been filled in: put off.  Page table lock held from the first to the second.
 */
void *ssi_result_room(struct ssi_results *r, const struct wire_segment *segments, unsigned int count, unsigned long bytes);
void ssi_result_put_off(struct ssi_results *r);
/* All that was put off has been sent, and an answer came after it: these, 1 << number, have been refused. */
void ssi_results_answered(struct ssi_results *r, __u32 refused);
/* user.c: send all of them to the calling CPU's node and wait until they are done. */
struct ssi_cpu;
void ssi_results_exchange(struct ssi_cpu *c);

/* --- cpu.c --- */
/* What a CPU and its executor last exchanged, and the message in hand.  Only the CPU's own thread uses it. */
struct ssi_cpu {
	__u64 run;			/* number of the newest RUN */
	int in_user;
	bool busy;			/* from RUN to EVENT, from COPY to COPIED */
	unsigned int exchanges;		/* so far, changed while busy */
	bool pinned, apart;
	unsigned int node;		/* where its user half is, or was last */
	struct ssi_stream stream;
	struct ssi_trap_site sites[SSI_TRAP_SITES];
	struct ssi_snapshot snapshot;
	struct ssi_argument argument;
	struct ssi_results results;
	unsigned int copy_pause;	/* so many accesses to user memory are not tried on the node */
	struct task_struct *fp_task;	/* current: its vector state is in fp_slot, of the stub of fp_slot_mm; NULL */
	struct ssi_slot fp_slot;
	__u64 fp_slot_mm;
	__u64 fp_mm;			/* fp was last exchanged for this mm; 0: nothing was */
	__u32 fp_length;
	__u8 fp[WIRE_FP_MAX] __aligned(64);
	union {
		struct wire_run run;
		struct wire_event event;
		struct wire_copy copy;
		struct wire_copied copied;
		__u8 bytes[WIRE_LENGTH_MAX];
	} msg;
};

/* The calling CPU's, whose message may be used; NULL while a RUN is under way. */
struct ssi_cpu *ssi_idle_channel(void);
/* Around what is sent and its answer. */
void ssi_channel_begin(struct ssi_cpu *c);
void ssi_channel_end(struct ssi_cpu *c);
/* End the machine if something has come over the channel that nobody waits for. */
void ssi_cpu_watch(unsigned int cpu);
/* What is the matter with the calling CPU's channel to a node. */
void ssi_cpu_lost(unsigned int node, const char *why) __attribute__((noreturn));
/* Is the user half of that CPU on the kernel host, or was it last? */
bool ssi_cpu_is_here(unsigned int cpu);

/* --- action.c, of the current task --- */
/* Nobody else can change its signal actions, nor wants to see that it asks for them. */
bool ssi_actions_are_own(void);
void ssi_actions_copy(struct wire_action *to);
/* These signals (1 << signal - 1) have got that restorer, if their action is the default. */
void ssi_actions_posted(__u64 signals, __u64 restorer);

/* --- clock.c --- */
/* After ssi_open_arena(). */
void ssi_clock_prepare(void);
/* Twice a second or so. */
void ssi_clock_steer(void);
/* What a RUN tells another node. */
void ssi_clock_record(struct wire_clock *record);
/* Is the current task in a time namespace? */
bool ssi_clock_is_other(void);

/* --- apart.c --- */
/* Are both halves of the calling CPU to be awake? */
bool ssi_apart(void);
/* A turn of its user half has ended now (os_nsecs()): what that gained or would have, and what was lost. */
void ssi_apart_note(long long now, long long gained, long long lost);

/* --- start.c --- */
/* Can programs of that CPU start on the kernel host, where it is not one of its own? */
bool ssi_start_possible(unsigned int cpu);
/* A new mm, of execve() or of the current task's fork(). */
void ssi_start_exec(struct ssi_mm *sm);
void ssi_start_fork(struct ssi_mm *child);
/* Is it used on the kernel host by the calling CPU, which is another node's? */
bool ssi_is_starting(const struct mm_struct *mm);
/* Where the current task runs user code, and so has its memory. */
unsigned int ssi_user_node(void);
/* Around a stay of the current task in user mode; enter returns on which node, and leave is told if a system call ended it. */
unsigned int ssi_start_enter(struct ssi_mm *sm);
void ssi_start_leave(struct ssi_mm *sm, bool called);
/* That node has answered after so long. */
void ssi_start_round_trip(unsigned int node, long long ns);
/* Must the stay that is under way end, because it takes longer than a start? */
bool ssi_start_is_over(void);

/* --- local.c --- */
struct ssi_mm;

/* The number of the slot that the calling CPU has in stubs of the kernel host; 0: it has none. */
unsigned int ssi_local_number(void);
/* The calling CPU's slot, if it has one and the mm a stub there. */
bool ssi_local_slot(struct ssi_slot *slot, const struct ssi_mm *sm);
/* Run what is loaded: 0: it has parked; -EAGAIN: the executor must see to it, with WIRE_RUN_STARTED. */
int ssi_local_run(const struct ssi_slot *slot, int (*wanted)(void));
/* The executor runs the calling CPU's user half instead. */
void ssi_local_executor(void);
/* The calling CPU has mapped something for its user half, itself. */
void ssi_local_mapped(void);

/* --- node.c --- */
struct ssi_node {
	raw_spinlock_t lock;	/* one request at a time on the mm channel; after ssi_mm.lock, which its holders only try for */
	raw_spinlock_t send;	/* one message at a time; after lock */
	__u64 seq;		/* of the newest request */
	struct ssi_spin spin;	/* for its answer */
	struct {
		struct wire_discard msg;
		struct wire_range ranges[WIRE_RANGES_MAX];
	} discard;
};

extern struct ssi_node ssi_nodes[SSI_NODES_MAX];

unsigned int ssi_cpu_node(unsigned int cpu);
void ssi_node_watch(unsigned int node);
/*
 * Take rights away on the nodes of a mask, on all of them at once: begin() says so to them, and end() waits until they have
 * done it.  In between IRQs are disabled, as at both, and nothing may be waited for that another CPU does.
 */
void ssi_node_revoke_begin(unsigned long nodes, __u64 mm, unsigned long start, unsigned long end);
void ssi_node_revoke_end(unsigned long nodes);
void ssi_node_free_mm(unsigned int node, __u64 mm);
void ssi_node_stop_clock(unsigned int node, __u32 generation);
/*
 * Discard frames at home on a node: collect fills ranges[WIRE_RANGES_MAX] from pfn on and returns their count,
 * done is called after they have been discarded, both under the node's lock.
 */
void ssi_node_discard(unsigned int node, unsigned long pfn,
		      unsigned int (*collect)(unsigned int, unsigned long, struct wire_range *),
		      void (*done)(const struct wire_range *, unsigned int));
void ssi_node_interrupt(unsigned int node, unsigned int cpu, __u64 run);

/* --- frames.c --- */
/* true: there were some, and there may be more. */
bool ssi_frames_trim(unsigned int node);
void ssi_frames_given(unsigned int node, unsigned long pfn, unsigned long count);

/* --- mm.c --- */
struct ssi_range { unsigned long start, end; };

#define SSI_PENDING_MAX 8

/* An mm as one node sees it. */
struct ssi_mm_node {
	unsigned int running;	/* CPUs whose user half may be executing it there */
	bool present;		/* it may have a stub there */
	bool asks;		/* the node may have asked for frames for it that have not come */
	unsigned int enters;	/* of CPUs */
	unsigned long left;	/* jiffies when its user half last stopped there */
	unsigned int pending_count;
	struct ssi_range pending[SSI_PENDING_MAX];	/* to be removed before user code runs there again */
};

/* --- habit.c: what an mm faults on, and what is known of that --- */
#define HABIT_MAX 128

struct ssi_habit;

/* Threads of the mm change it without a lock: what gets lost is a page that is given by its own fault then. */
struct ssi_habits {
	struct ssi_habit *origin;	/* its program's, or its siblings' if it was forked; until it ends, as the next two */
	struct ssi_habit *children, *after;	/* its children's, and its own after a fork */
	struct ssi_habit *followed;	/* one of these, not a reference */
	DECLARE_BITMAP(done, HABIT_MAX);	/* those of its pages that are there, or could not be made */
	unsigned long data_vm;		/* that of the mm when it was last looked at */
	unsigned int vain;		/* times since there was something to give */
	bool settled;			/* there was nothing more to give then */
};

struct ssi_pages {
	unsigned int count;
	unsigned long address[HABIT_MAX];	/* ascending */
};

/* The current task's stay in the kernel begins, or goes on. */
struct ssi_stay ssi_stay(void);
/* From now on until the current task is scheduled away, changes its mm, or goes on in user mode. */
void ssi_snapshot_begin(void);
/* Copy a frame to another on the node of the current CPU.  false: it does not hold them so, nothing is done. */
bool ssi_copy_page_there(unsigned long to, unsigned long from);

#define COPIES_MAX 16

/* Pages of an mm that are to be copied on its task's node, locked, and what from.  Its only task's, which holds mmap_lock. */
struct ssi_copies {
	bool put_off;
	unsigned int count;
	struct { struct page *to, *from; } page[COPIES_MAX];
};

/* false: it cannot be put off. */
bool ssi_copy_page_later(struct page *to, struct page *from);
/* Copy what has been put off.  May sleep. */
void ssi_copy_pages(struct ssi_copies *l);

/* In fork(), before the child runs; may sleep. */
void ssi_habit_fork(struct ssi_habits *parent, struct ssi_habits *child);
/* Pages that the current task or its children have stored to after a fork(), ascending, at most EARLY_MAX: how many. */
unsigned int ssi_habit_written(const struct ssi_habits *s, unsigned long *pages);
/* Nothing uses the mm any more. */
void ssi_habit_end(struct ssi_habits *s);
/* The current task has faulted there, and that has been seen to. */
void ssi_habit_note(struct ssi_habits *s, unsigned long address, bool write);
/* The current task is about to run: pages to be given to it, which are in its page table then.  May sleep. */
void ssi_habit_give(struct ssi_habits *s, struct ssi_pages *pages);

/* early.c: the current task, of that mm, begins to fork a child like that; may sleep.  It has ended, whether well or not. */
void ssi_early_begin(struct ssi_mm *parent, const void *like);
void ssi_early_end(struct ssi_mm *parent);
/* Some are still to be copied, by the current task. */
bool ssi_is_early(const struct vm_area_struct *vma);
/* The frame chosen for a copy of the page there, uncharged; NULL: none. */
struct folio *ssi_early_folio(struct vm_area_struct *vma, unsigned long address);

/* Pages being populated.  next and what is left of it are the owner's. */
struct ssi_block {
	struct task_struct *owner;	/* NULL: nobody */
	struct page *next;		/* so many are left of those that follow each other */
	unsigned long left, wanted;	/* and so many are wanted besides */
	/* Faults of reads where nothing was; of stores to these; of reads that were taken for stores. */
	unsigned int reads, reads_written, guesses;
};

/* Pages that are free on that node, or none: nobody waits for them, nor is woken to make some. */
static inline gfp_t ssi_if_free(gfp_t flags)
{
	return (flags | __GFP_THISNODE | __GFP_NOMEMALLOC | __GFP_NOWARN) & ~__GFP_RECLAIM;
}

/* block.c: does it say, or the current task, of which node its memory is to be? */
bool ssi_has_policy(const struct vm_area_struct *vma);
/* block.c: may the current task be given memory of that node that need not come from there? */
bool ssi_has_room(int node);
/* block.c: populate pages of the current mm there; and those around a fault that is to be handled next.  May block. */
void ssi_populate(unsigned long start, unsigned long end);
void ssi_block_fault(unsigned long address, bool write);
/*
 * The process has got [start, stop) just now: populate that if it will most likely be used, as it is little beside what the
 * process has.  stop; 0: not done.  May block.
 */
unsigned long ssi_block_growth(unsigned long start, unsigned long stop);

#define EARLY_MAX 32

/* Pages that the fork() under way copies, ascending, and where to.  Without a lock: the mm's one task forks, and does all else. */
struct ssi_early {
	unsigned int count, next;
	unsigned long address[EARLY_MAX];
	struct page *page[EARLY_MAX];	/* NULL: it may be any; or it has been used */
};

struct ssi_mm {
	__u64 id;
	struct ssi_habits habits;
	struct ssi_early early;
	struct ssi_mapped *mapped;	/* NULL: not known */
	const void *like;		/* the same for all children of a process; NULL: it has executed a program, or nobody knows */
	struct ssi_copies copies;
	struct ssi_block block;
	unsigned long gates;	/* where they are mapped; 0: nowhere */
	bool starting, start_busy;	/* start.c; somebody uses the slot for that */
	long long start_left, start_age, start_ran;	/* ns: of this time; in all before; of some times, lately */
	unsigned int start_calls;	/* in start_ran */
	unsigned long along, along_left;	/* where to go on with what goes to the task's node with it, and so many pages */
	unsigned int area;	/* 1 + number of its stub's control area on the kernel host; 0: not known yet */
	raw_spinlock_t lock;	/* all of node[], and mapped; held while the kernel uses the stub of area, and when that is given up */
	struct ssi_mm_node node[];
};

/* What must be mapped before the next stay in user mode. */
struct ssi_fault {
	unsigned long address, end;	/* rights around address and up to end; 0: none */
	unsigned long pages;		/* and up to so many, as far as one mapping goes */
	bool frame;			/* pangead was asked for the frame, and does not know the page */
	const struct ssi_pages *also;	/* where that costs little */
};

#define SSI_HOT_MAX 2

/* What a task uses, as far as is known. */
struct ssi_hot {
	unsigned long ip, sp;
	unsigned long data[SSI_HOT_MAX];	/* pages that it stored to first, and not in sequence; 0: none */
};

/*
 * The current task has faulted at address, and that has been seen to: fault on the pages that follow as well if they
 * are likely to be next.  Returns where those end for which this was done, and *give, how many pages to give; may sleep.
 */
unsigned long ssi_fault_ahead(struct ssi_stream *s, unsigned long address, bool write, unsigned long *give);
/*
 * The current task's mm is about to run on a node: fill maps[WIRE_MAPS_MAX] with what must go and, if there was a
 * fault, with rights around it; hot: also with these.  Returns the count; *epoch as in struct wire_run.
 */
unsigned int ssi_mm_enter(struct ssi_mm *sm, unsigned int node, const struct ssi_fault *fault, const struct ssi_hot *hot,
			  struct wire_map *maps, __u64 *epoch);
/*
 * Has the current task's page table an entry that permits this?  Where it has not, a stub may show the page all the same,
 * as who makes an entry old need not flush it: then a frame fault is a page fault as well.
 */
bool ssi_may_access(unsigned long address, bool write);
/* Does a stub of the kernel host show that page of the current task, as far as the kernel knows? */
bool ssi_is_given(unsigned long address);
/* asks: the node has asked for frames that have not come. */
void ssi_mm_leave(struct ssi_mm *sm, unsigned int node, bool asks);

/* PROT_READ, PROT_WRITE, PROT_EXEC of struct wire_map */
enum { SSI_PROT_R = 1, SSI_PROT_W = 2, SSI_PROT_X = 4 };

/* What user code may be given by an entry; once it has been used. */
u32 ssi_rights_of(pte_t pte);
u32 ssi_rights_when_young(pte_t pte);
/* The entry of a page; NULL: there is no table there, and *next is where the next one may be.  Interrupts off. */
pte_t *ssi_pte_table(struct mm_struct *mm, unsigned long address, unsigned long *next);
/* As it is just now; 0: there is none. */
pte_t ssi_entry_of(struct mm_struct *mm, unsigned long address);

/* --- mapped.c, with ssi_mm.lock held and IRQs disabled --- */
/* Pages that follow each other in both address spaces, with the same rights. */
struct ssi_mapping { unsigned long start, end, pfn; u32 prot; };

#define MAPPED_MAX 126	/* in 4 KiB */

/* Of one stub, ascending. */
struct ssi_mapped {
	const void *like;	/* in store: as in struct ssi_mm */
	unsigned int count;
	bool lost;		/* it may have others mapped */
	struct ssi_mapping mapping[MAPPED_MAX];
};

/* Empty; NULL, without memory, is one that is lost.  May sleep, and the lock is not needed. */
struct ssi_mapped *ssi_mapped_new(void);
/* false: there was nothing. */
bool ssi_mapped_remove(struct ssi_mapped *l, unsigned long start, unsigned long end);
/* The rights with which that frame is mapped there, if nobody else has taken them away; 0: it is not, or nobody knows. */
u32 ssi_mapped_prot(const struct ssi_mapped *l, unsigned long at, unsigned long pfn);
/* What may be mapped at or behind an address: from there, and its end; TASK_SIZE: nothing. */
unsigned long ssi_mapped_next(const struct ssi_mapped *l, unsigned long at, unsigned long *end);
void ssi_mapped_add(struct ssi_mapped *l, const struct ssi_mapping *m);
/* Are there stubs in store with mappings of who was like that?  No lock is needed, nor for the next. */
bool ssi_stubs_kept(const void *like);
/*
 * The frames, of so many that are free, that one of them shows at n addresses, at most EARLY_MAX; 0: none there.  It is the one
 * with most of them.
 */
void ssi_mapped_frames(const void *like, const unsigned long *address, unsigned int n, struct page *const *free,
		       unsigned int count, unsigned long *frame);
/* Before its stub goes to the store: with its mappings, if they are known and another child of its parent may want them. */
void ssi_stub_keep(struct ssi_mm *sm);
/*
 * The current mm gets a stub from there, if there is one; also: the pages that it is to be given.  true: with mappings of an mm
 * before, which must go, or belong to this one too.
 */
bool ssi_stub_take(struct ssi_mm *sm, const struct ssi_pages *also);

/* --- map.c --- */
/* How many pages a stub with these mappings would have to be given, or lose, for an mm that gets those.  IRQs disabled. */
unsigned int ssi_differing(const struct ssi_mapped *l, struct mm_struct *mm, const struct ssi_pages *also);
/*
 * Do what is pending on the kernel host and give what [start, end) lacks around the fault (address 0: there was none),
 * and its other pages, all without the daemon; kept: the stub's mappings are another mm's, and pending.  false: the daemon
 * must do what is pending then, and give.  ssi_mm.lock held.
 */
bool ssi_map(struct ssi_mm *sm, struct mm_struct *mm, const struct ssi_slot *slot, const struct ssi_fault *fault,
	     unsigned long start, unsigned long end, bool kept);
/* Do what is pending only, in any mm.  false: it is to be done by the daemon.  ssi_mm.lock held, IRQs disabled. */
bool ssi_unmap(struct ssi_mm *sm, const struct ssi_slot *slot);

#endif
#endif
