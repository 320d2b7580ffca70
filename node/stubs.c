// SPDX-License-Identifier: GPL-2.0
/*
 * The stub processes of a node: started ahead, and used again.
 *
 * Starting a process with its threads and filters takes longer than a fork may, and so does ending it.  So
 * STUB_SPARES_MIN stubs wait in store, and a stub whose mm is gone goes back there, up to STUB_SPARES_MAX; the reaper does
 * both.  On the kernel host the store stands in the arena as well, where the kernel takes stubs itself.
 *
 * The next mm must find nothing of the last one, whose user code may have written whatever it liked to its reports and
 * jumped wherever it liked in the stub's text.  What is trusted is what a thread was like when it parked for
 * the first time, before any user code: struct stub_fresh.  So for each CPU thread that has run since:
 *
 *	the host says that it sleeps in FUTEX_WAIT on its own flag, with the stack pointer and at the address of then
 *	all mappings of user code go, so nothing is left that could run but the stub's text, where all threads sleep; or they
 *	  stay, if the kernel knows them all, which sees to them before its next user code runs (orders.kept)
 *	its report is emptied, and what it returns to is written there: rt_sigreturn with the context of then
 *	it is resumed, takes all its registers, its signal mask and its signal stack from that, traps, and parks
 *
 * One that has not run since (orders.ran) sleeps in park() as it did, with the registers of then, and does not look at its
 * stack until it is resumed.  But its report, with its stack, could be written by any user code of the stub: it is
 * emptied, and the stack written anew.
 *
 * The service thread must wait for orders, with no answer of its under way.  A thread that is not found so, or does not park
 * so, ends with its process.  Its FS and GS base are set anew by the
 * first run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "machine.h"

#define SLEEP_TRIES	20		/* looks at a thread that is about to sleep, 50 us apart */
#define FRESH_TRIES	1000		/* of all threads of a new one: on a busy host they take their time */
#define RESET_TRIES	4		/* SIGALRM that were still on their way */
#define RESET_NS	50000000	/* for all of them */
#define KEPT_BYTES	(4 * NODE_PAGE_SIZE)	/* in a row: the ends of a report, with the next one's beginning */

/* What rt_sigreturn reads, as the kernel has it: less than ucontext_t. */
#define CONTEXT_SIZE	(offsetof(ucontext_t, uc_sigmask) + 8)

bool stub_alive(const struct mm *mm)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, mm->pid, &info, WEXITED | WNOHANG | WNOWAIT) && !info.si_pid;
}

/* --- what a thread is like before it runs user code --- */

/* Where it sleeps until it is resumed, as the host says: 1; 0: it does not; -EACCES: the host does not say. */
static int sleeps_at(const struct mm *mm, unsigned slot, unsigned long *sp, unsigned long *pc)
{
	unsigned long word, call, expected = STUB_ORDERS;	/* the service thread's */
	char path[64], line[256] = "";
	ssize_t told = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", mm->pid, mm->tid[slot]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		told = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	if (told <= 0)
		return -EACCES;
	if (slot)
		expected = STUB_REPORTS + slot * STUB_REPORT_SIZE + offsetof(struct stub_report, stub_waits);
	return sscanf(line, "%lu %lx %*x %*x %*x %*x %*x %lx %lx", &call, &word, sp, pc) == 4 && call == SYS_futex &&
	       word == expected;
}

/* Once it does, which takes it a moment after it has parked.  *tries: the looks that are left. */
static bool falls_asleep(const struct mm *mm, unsigned slot, unsigned *tries, unsigned long *sp, unsigned long *pc)
{
	struct timespec nap = { 0, 50000 };
	int ret = sleeps_at(mm, slot, sp, pc);

	for (; !ret && *tries; --*tries) {
		nanosleep(&nap, NULL);
		ret = sleeps_at(mm, slot, sp, pc);
	}
	return ret > 0;
}

static uint8_t *in_report(const struct mm *mm, unsigned slot, uint64_t address)
{
	return (uint8_t *)mm_slot(mm, slot).report + (address - STUB_REPORTS - slot * STUB_REPORT_SIZE);
}

/* From the stack pointer on: the frames of what waits, and the signal's. */
static size_t fresh_stack_size(const struct mm *mm, unsigned slot)
{
	return (uint8_t *)mm_slot(mm, slot).report + STUB_GATE_FRAME - in_report(mm, slot, mm->fresh[slot].sp);
}

/* Is it the same in all stubs?  They are one program, at the same addresses. */
static bool has_plain_stack(struct machine *m, const struct mm *mm, unsigned slot)
{
	const uint8_t *stack = in_report(mm, slot, mm->fresh[slot].sp);
	size_t size = fresh_stack_size(mm, slot);
	uint8_t **image = &m->fresh_stack[slot];
	bool same;

	if (size > STUB_GATE_FRAME)
		return false;
	pthread_mutex_lock(&m->reap_lock);
	if (!*image && (*image = malloc(size))) {
		memcpy(*image, stack, size);
		m->fresh_sp[slot] = mm->fresh[slot].sp;
	}
	same = *image && m->fresh_sp[slot] == mm->fresh[slot].sp && !memcmp(*image, stack, size);
	pthread_mutex_unlock(&m->reap_lock);
	return same;
}

/* Parked for the first time, by the trap in cpu_thread().  Where the host does not say enough, pc stays 0. */
static void note_fresh(struct machine *m, struct mm *mm, unsigned slot, unsigned *tries)
{
	struct stub_fresh *f = &mm->fresh[slot];
	const struct stub_report *r = mm_slot(mm, slot).report;
	const uint8_t *context = (const uint8_t *)r + r->context_offset;
	unsigned long sp, pc;

	if (!falls_asleep(mm, slot, tries, &sp, &pc))
		return;
	f->sp = sp;
	f->pc = pc;
	f->context_offset = r->context_offset;
	f->plain = has_plain_stack(m, mm, slot);
	memcpy(&f->restorer, context - sizeof(f->restorer), sizeof(f->restorer));
	memcpy(f->context, context, CONTEXT_SIZE);
	((ucontext_t *)f->context)->uc_mcontext.gregs[REG_RIP]--;	/* the trap again */
	((ucontext_t *)f->context)->uc_mcontext.fpregs = NULL;		/* as at a start */
}

/* --- used again --- */

/* Where the slot's thread is most likely used next: where the kernel has put it last, or where pangead does. */
static void place(const struct machine *m, struct mm *mm, unsigned slot)
{
	unsigned cpu = own_node(m)->cpu_start + (slot ? slot - 1 : 0);
	uint32_t placed = mm_slot(mm, slot).orders->placed;

	if (placed)
		pin_thread_at((int)placed - 1, mm->tid[slot]);
	else
		pin_thread(cpu, mm->tid[slot]);
	if (!slot)
		mm->served_on = cpu + 1;
}

/* What the kernel knows may stay (ssi/overlay/arch/um/ssi/mapped.c): it looks at that before user code runs. */
static int empty_mappings(struct machine *m, struct mm *mm)
{
	if (!mm_slot(mm, 0).orders->kept)
		return mm_unmap_all(m, mm);
	mm_keep_all(mm);
	return 0;
}

static bool sleeps_as_fresh(const struct mm *mm, unsigned slot)
{
	const struct stub_fresh *f = &mm->fresh[slot];
	unsigned tries = SLEEP_TRIES;
	unsigned long sp, pc;

	return f->pc && falls_asleep(mm, slot, &tries, &sp, &pc) && sp == f->sp && pc == f->pc;
}

/* It waits for orders, and has answered nothing that was not asked for. */
static bool service_is_idle(const struct mm *mm)
{
	unsigned tries = SLEEP_TRIES;
	unsigned long sp, pc;
	uint8_t byte;

	return falls_asleep(mm, 0, &tries, &sp, &pc) && recv(mm->socket, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void empty(uint8_t *start, size_t length)
{
	if (length <= KEPT_BYTES || madvise(start, length, MADV_REMOVE))
		memset(start, 0, length);
}

/* As far as they are there: for what is kept the host need not find memory again. */
static void empty_reports(const struct machine *m, const struct mm *mm)
{
	uint8_t *reports = (uint8_t *)mm_slot(mm, 0).report;
	off_t start = reports - m->arena, end = start + (off_t)mm->slots * STUB_REPORT_SIZE, hole;

	while ((start = lseek(m->arena_fd, start, SEEK_DATA)) >= 0 && start < end) {
		hole = lseek(m->arena_fd, start, SEEK_HOLE);
		if (hole < 0 || hole > end)
			hole = end;
		empty(m->arena + start, hole - start);
		start = hole;
	}
	if (start < 0 && errno != ENXIO)
		memset(reports, 0, mm->slots * STUB_REPORT_SIZE);
	for (unsigned i = 0; i < mm->slots; i++) {
		struct slot s = mm_slot(mm, i);

		s.report->tid = mm->tid[i];
		s.report->parked = s.orders->go;
		/* who resumed it for its last frame may look at the word only now */
		__atomic_store_n(&s.report->stub_waits, 1, __ATOMIC_RELAXED);
	}
}

/* What user code can read of what it was told last. */
static void empty_orders(const struct mm *mm)
{
	struct stub_orders *service = mm_slot(mm, 0).orders;

	memset(service->ops, 0, sizeof(service->ops));
	memset(service->taken, 0, sizeof(service->taken));
	for (unsigned i = 1; i < mm->slots; i++) {
		struct stub_orders *o = mm_slot(mm, i).orders;

		o->spin = 0;
		o->fs_base = o->gs_base = 0;
		if (o->actions_told)
			memset(o->actions, 0, sizeof(o->actions));
		o->actions_known = o->actions_told = 0;
		o->sync = STUB_SYNC_FS | STUB_SYNC_GS;
	}
}

/* It has not been resumed since it was fresh. */
static bool has_not_run(const struct mm *mm, unsigned slot)
{
	const struct stub_fresh *f = &mm->fresh[slot];

	return f->pc && f->plain && !mm_slot(mm, slot).orders->ran;
}

/* What lay there when it was fresh, and nothing else does. */
static void restore_thread(const struct machine *m, const struct mm *mm, unsigned slot)
{
	const struct stub_fresh *f = &mm->fresh[slot];
	struct stub_report *r = mm_slot(mm, slot).report;

	memcpy(in_report(mm, slot, f->sp), m->fresh_stack[slot], fresh_stack_size(mm, slot));
	r->signal = SIGTRAP;
	r->context_offset = f->context_offset;
}

/*
 * It has parked where it did when it was fresh.  The host does not set a signal stack, and does not say so, while one is in
 * use, which user code can have moved to where this thread sleeps.
 */
static bool has_fresh_signal_stack(const struct mm *mm, unsigned slot)
{
	const struct stub_fresh *f = &mm->fresh[slot];
	const struct stub_report *r = mm_slot(mm, slot).report;
	const ucontext_t *fresh = (const void *)f->context;
	const ucontext_t *now = (const void *)((const uint8_t *)r + f->context_offset);

	return r->context_offset == f->context_offset && now->uc_stack.ss_sp == fresh->uc_stack.ss_sp &&
	       now->uc_stack.ss_size == fresh->uc_stack.ss_size;
}

/* It sleeps, and nothing else runs. */
static bool reset_thread(struct mm *mm, unsigned slot)
{
	const struct stub_fresh *f = &mm->fresh[slot];
	struct slot s = mm_slot(mm, slot);
	uint8_t *stack = in_report(mm, slot, f->sp);
	uint64_t until = now_ns() + RESET_NS;
	unsigned tries = RESET_TRIES;

	memcpy(stack, &f->restorer, sizeof(f->restorer));
	memcpy(stack + sizeof(f->restorer), f->context, CONTEXT_SIZE);
	do {
		slot_resume(s);
		if (slot_wait(s, s.orders->go, until))
			return false;
	} while (s.report->signal == SIGALRM && --tries);
	s.orders->ran = 0;
	return s.report->signal == SIGTRAP && has_fresh_signal_stack(mm, slot);
}

/* After the last use: as it was when it was started, or false: it cannot be.  Not on the CPU that has just ended the process. */
static bool reset(struct machine *m, struct mm *mm)
{
	int here = sched_getcpu();

	for (unsigned i = 1; i < mm->slots; i++)
		if (!has_not_run(mm, i) && !sleeps_as_fresh(mm, i))
			return false;
	if (!service_is_idle(mm))
		return false;
	calm_thread(mm->pid);
	pin_thread_at(here, mm->pid);
	if (!stub_alive(mm) || empty_mappings(m, mm))
		return false;
	empty_orders(mm);
	empty_reports(m, mm);
	for (unsigned i = 1; i < mm->slots; i++) {
		mm->fp[i].length = 0;
		if (has_not_run(mm, i)) {
			restore_thread(m, mm, i);
			continue;
		}
		pin_thread_at(here, mm->tid[i]);
		if (!reset_thread(mm, i))
			return false;
		sched_yield();		/* it has parked, and had better fall asleep here */
		place(m, mm, i);
	}
	mm->id = mm->revoked = 0;
	place(m, mm, 0);
	hurry_thread(mm->pid, HURRY_MUCH);
	mm_slot(mm, 0).orders->other_time = 0;
	__atomic_store_n(&mm_slot(mm, 0).orders->mm, 0, __ATOMIC_RELEASE);
	return true;
}

/* --- their start --- */

static int receive_fd(int sock)
{
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -EPIPE;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static int spawn(struct machine *m, struct mm *mm, int sock)
{
	char *argv[] = { "pangea-user", NULL }, *envp[] = { NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int ret;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, sock, STUB_FD_SOCKET);
	posix_spawn_file_actions_adddup2(&actions, m->frame_fd, STUB_FD_FRAMES);
	posix_spawn_file_actions_adddup2(&actions, m->arena_fd, STUB_FD_AREA);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	ret = -posix_spawn(&mm->pid, m->config.stub_path, &actions, &attr, argv, envp);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return ret;
}

/*
 * The CPU threads have started, and park before they run anything.  They are looked at when all have: until then they are in
 * each other's way, and one that is not seen asleep makes a stub that is used once.
 */
static int wait_for_threads(struct machine *m, struct mm *mm, bool patient)
{
	unsigned tries = patient ? FRESH_TRIES : SLEEP_TRIES;
	int ret = 0;

	mm_slot(mm, 0).orders->pid = mm_slot(mm, 0).orders->tid = mm->tid[0] = mm->pid;
	for (unsigned i = 1; i < mm->slots && !ret; i++) {
		do
			ret = slot_wait(mm_slot(mm, i), 1, UINT64_MAX);
		while (ret == -ETIMEDOUT);
		mm->tid[i] = mm_slot(mm, i).report->tid;
		mm_slot(mm, i).orders->pid = mm->pid;
		mm_slot(mm, i).orders->tid = mm->tid[i];
		place(m, mm, i);
		/* what a thread under SCHED_FIFO starts has nice 0 */
		setpriority(PRIO_PROCESS, mm->tid[i], getpriority(PRIO_PROCESS, getpid()));
	}
	for (unsigned i = 1; i < mm->slots && !ret; i++)
		note_fresh(m, mm, i, &tries);
	place(m, mm, 0);
	return ret;
}

/* Start the stub and take its userfaultfd. */
static int start_stub(struct machine *m, struct mm *mm, bool patient)
{
	struct stub_init init = { .slots = mm->slots, .area = mm->area_number };
	int sock[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		return -errno;
	mm->socket = sock[0];
	ret = spawn(m, mm, sock[1]);
	close(sock[1]);
	if (ret) {
		mm->pid = 0;
		return ret;
	}
	hurry_thread(mm->pid, HURRY_MUCH);		/* its first thread, which serves */
	if (send(mm->socket, &init, sizeof(init), MSG_NOSIGNAL) != sizeof(init))
		return -errno;
	mm->uffd = receive_fd(mm->socket);
	if (mm->uffd < 0)
		return mm->uffd;
	pager_stub(m, mm, mm->uffd);
	return wait_for_threads(m, mm, patient);
}

/* --- control areas --- */

static size_t arena_size(const struct machine *m)
{
	return STUB_AREAS + STUB_AREAS_MAX * STUB_AREA_SIZE(stub_slots(m));
}

int stubs_open_arena(struct machine *m)
{
	void *arena;
	int ret;

	m->arena_fd = memfd_create("pangea-arena", MFD_CLOEXEC);
	if (m->arena_fd < 0)
		return -errno;
	arena = MAP_FAILED;
	if (!ftruncate(m->arena_fd, arena_size(m)))
		arena = mmap(NULL, arena_size(m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->arena_fd, 0);
	if (arena != MAP_FAILED) {
		m->arena = arena;
		return 0;
	}
	ret = -errno;
	close(m->arena_fd);
	return ret;
}

void stubs_close_arena(struct machine *m)
{
	if (!m->arena)
		return;
	munmap(m->arena, arena_size(m));
	close(m->arena_fd);
}

/* Its number, or -ENOSPC. */
static int take_area(struct machine *m)
{
	int number = -ENOSPC;

	pthread_mutex_lock(&m->reap_lock);
	for (unsigned i = 0; i < STUB_AREAS_MAX && number < 0; i++) {
		unsigned n = (m->area_next + i) % STUB_AREAS_MAX;

		if (!(m->area_used[n / 64] >> n % 64 & 1))
			number = (int)n;
	}
	if (number >= 0) {
		m->area_used[number / 64] |= 1ull << number % 64;
		m->area_next = number + 1;
	}
	pthread_mutex_unlock(&m->reap_lock);
	return number;
}

static int open_area(struct machine *m, struct mm *mm)
{
	int number = take_area(m);

	if (number < 0)
		return number;
	mm->area_number = number;
	mm->area = m->arena + STUB_AREAS + number * STUB_AREA_SIZE(mm->slots);
	for (unsigned i = 1; i < mm->slots; i++)
		mm_slot(mm, i).orders->go = 1;		/* report.parked is 0: it has not */
	return 0;
}

/* The stub has ended.  Who gets the area next finds zeros. */
static void close_area(struct machine *m, struct mm *mm)
{
	if (!mm->area)
		return;
	if (madvise(mm->area, STUB_AREA_SIZE(mm->slots), MADV_REMOVE))
		memset(mm->area, 0, STUB_AREA_SIZE(mm->slots));
	pthread_mutex_lock(&m->reap_lock);
	m->area_used[mm->area_number / 64] &= ~(1ull << mm->area_number % 64);
	pthread_mutex_unlock(&m->reap_lock);
}

static void release(struct machine *m, struct mm *mm)
{
	if (mm->pid > 0) {
		calm_thread(mm->pid);
		kill(mm->pid, SIGKILL);
		waitpid(mm->pid, NULL, 0);
	}
	if (mm->uffd >= 0) {
		pager_stub(m, mm, -1);
		close(mm->uffd);
	}
	if (mm->socket >= 0)
		close(mm->socket);
	close_area(m, mm);
	mm_drop_table(mm);
	for (unsigned i = 0; i < STUB_SLOTS_MAX; i++)
		free(mm->fp[i].bytes);
	pthread_mutex_destroy(&mm->lock);
	free(mm->fresh);
	free(mm);
}

/* An mm with its stub, and no id yet. */
struct mm *stub_new(struct machine *m, bool patient)
{
	struct mm *mm = calloc(1, sizeof(*mm));
	int ret;

	if (!mm)
		return NULL;
	mm->uffd = mm->socket = -1;
	mm->slots = stub_slots(m);
	pthread_mutex_init(&mm->lock, NULL);
	mm->fresh = calloc(mm->slots, sizeof(*mm->fresh));
	ret = mm->fresh ? open_area(m, mm) : -ENOMEM;
	if (!ret)
		ret = start_stub(m, mm, patient);
	if (!ret)
		return mm;
	log_line(LOG_WARNING, "cannot start a stub process (%s): %s", m->config.stub_path, strerror(-ret));
	release(m, mm);
	return NULL;
}

/* --- in store --- */

static struct stub_arena *arena_of(const struct machine *m)
{
	return (void *)m->arena;
}

static void wake_reaper(struct machine *m)
{
	__atomic_add_fetch(&arena_of(m)->reap_wakes, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &arena_of(m)->reap_wakes, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* reap_lock held. */
static void offer(struct machine *m, const struct mm *mm)
{
	uint32_t *spare = arena_of(m)->spare;

	for (unsigned i = 0; i < STUB_SPARES_MAX; i++)
		if (!__atomic_load_n(&spare[i], __ATOMIC_RELAXED)) {
			__atomic_store_n(&spare[i], mm->area_number + 1, __ATOMIC_RELEASE);
			return;
		}
}

/* reap_lock held.  false: the kernel has taken it. */
static bool withdraw(struct machine *m, const struct mm *mm)
{
	uint32_t *spare = arena_of(m)->spare;

	for (unsigned i = 0; i < STUB_SPARES_MAX; i++) {
		uint32_t number = mm->area_number + 1;

		if (__atomic_compare_exchange_n(&spare[i], &number, 0, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/* Nobody will look at what it has kept.  NULL: it cannot be used. */
static struct mm *emptied(struct machine *m, struct mm *mm)
{
	mm_slot(mm, 0).orders->kept = 0;
	if (!mm_unmap_all(m, mm))
		return mm;
	stub_give_back(m, mm);
	return NULL;
}

struct mm *stub_take_spare(struct machine *m)
{
	struct mm **p, *mm = NULL;

	pthread_mutex_lock(&m->reap_lock);
	for (p = &m->spare; *p && !mm;) {
		if (!withdraw(m, *p)) {
			p = &(*p)->next;
			continue;
		}
		mm = *p;
		*p = mm->next;
		m->spares--;
		if (!stub_alive(mm)) {
			mm->next = m->reap;	/* the host has killed it */
			m->reap = mm;
			mm = NULL;
		}
	}
	m->spares_failed = false;
	pthread_mutex_unlock(&m->reap_lock);
	m->spare_taken = true;
	return mm && mm_slot(mm, 0).orders->kept ? emptied(m, mm) : mm;
}

void stubs_replenish(struct machine *m)
{
	if (m->spare_taken && atomic_exchange(&m->spare_taken, false))
		wake_reaper(m);
}

/* One that the kernel has taken, out of the list; NULL: none. */
struct mm *stub_next_taken(struct machine *m)
{
	struct mm **p, *mm = NULL;

	pthread_mutex_lock(&m->reap_lock);
	for (p = &m->spare; *p && !mm; p = &(*p)->next)
		if (__atomic_load_n(&mm_slot(*p, 0).orders->mm, __ATOMIC_ACQUIRE)) {
			mm = *p;
			*p = mm->next;
			m->spares--;
			m->spares_failed = false;
			break;
		}
	pthread_mutex_unlock(&m->reap_lock);
	return mm;
}

/* The reaper's. */
static bool has_room(struct machine *m, unsigned enough)
{
	bool yes;

	pthread_mutex_lock(&m->reap_lock);
	yes = !m->stopping && !m->spares_failed && m->spares < enough;
	pthread_mutex_unlock(&m->reap_lock);
	return yes;
}

/* mm: NULL: it could not be made. */
static void add_spare(struct machine *m, struct mm *mm)
{
	pthread_mutex_lock(&m->reap_lock);
	m->spares_failed = !mm;		/* until one is asked for */
	if (mm) {
		mm->next = m->spare;
		m->spare = mm;
		m->spares++;
		offer(m, mm);
	}
	pthread_mutex_unlock(&m->reap_lock);
}

/* false: there are enough. */
static bool make_spare(struct machine *m, unsigned enough)
{
	if (!has_room(m, enough))
		return false;
	add_spare(m, stub_new(m, true));
	return true;
}

/* --- the reaper --- */

void stub_give_back(struct machine *m, struct mm *mm)
{
	pthread_mutex_lock(&m->reap_lock);
	mm->next = m->reap;
	m->reap = mm;
	pthread_mutex_unlock(&m->reap_lock);
	wake_reaper(m);
}

static struct mm *next_given_back(struct machine *m)
{
	struct mm *mm;

	pthread_mutex_lock(&m->reap_lock);
	mm = m->reap;
	if (mm)
		m->reap = mm->next;
	pthread_mutex_unlock(&m->reap_lock);
	return mm;
}

static bool any_given_back(struct machine *m)
{
	bool any;

	pthread_mutex_lock(&m->reap_lock);
	any = m->reap;
	pthread_mutex_unlock(&m->reap_lock);
	return any;
}

static void forget_freed(struct machine *m)
{
	uint64_t *freed = arena_of(m)->freed, id;

	for (unsigned i = 0; i < STUB_FREED_MAX; i++) {
		id = __atomic_load_n(&freed[i], __ATOMIC_RELAXED) ? __atomic_exchange_n(&freed[i], 0, __ATOMIC_ACQUIRE) : 0;
		if (id)
			mm_forget(m, id);
	}
}

/* One that is given back is sooner there for who waits for a stub than a new one. */
static bool reap(struct machine *m)
{
	struct mm *mm;

	forget_freed(m);
	mm_note_taken(m);
	mm = next_given_back(m);
	if (!mm)
		return make_spare(m, STUB_SPARES_MIN);
	if (has_room(m, STUB_SPARES_MAX) && reset(m, mm)) {
		add_spare(m, mm);
	} else {
		release(m, mm);
		make_spare(m, 1);
	}
	return true;
}

static void *reap_thread(void *arg)
{
	struct machine *m = arg;
	uint32_t *wakes = &arena_of(m)->reap_wakes, seen;
	bool stopping;

	do {
		stopping = m->stopping;
		seen = __atomic_load_n(wakes, __ATOMIC_SEQ_CST);
		if (!reap(m) && !stopping)
			syscall(SYS_futex, wakes, FUTEX_WAIT, seen, NULL, NULL, 0);
	} while (!stopping || any_given_back(m));
	return NULL;
}

int stubs_start(struct machine *m)
{
	return -pthread_create(&m->reap_thread, NULL, reap_thread, m);
}

void stubs_stop(struct machine *m)
{
	wake_reaper(m);
	pthread_join(m->reap_thread, NULL);
	for (struct mm *mm = m->spare, *next; mm; mm = next) {
		next = mm->next;
		release(m, mm);
	}
	m->spare = NULL;
	for (unsigned i = 0; i < STUB_SLOTS_MAX; i++)
		free(m->fresh_stack[i]);
}

void stubs_end(struct machine *m)
{
	struct mm *mm;

	while ((mm = next_given_back(m)))
		release(m, mm);
}
