// SPDX-License-Identifier: GPL-2.0
/*
 * Slots of stubs on the kernel host, where the kernel has their control areas mapped (node/stub.h).
 *
 * The report of a slot lies in user code's address space: nothing there is used before it has been looked at, and what
 * must not change between look and use is copied first.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <os.h>
#include "../os-Linux/internal.h"
#include "ssi_internal.h"
#include "context.h"
#include "stub.h"

#define SPIN_NS 20000
#define SPIN_LOOKS 1000			/* about as long: the stub has no clock */
#define NO_SYSCALL (~0ul)

static struct stub_arena *arena;
static unsigned slots;			/* of an area */
static struct context_layout layout;
static int may_gate;

int ssi_open_arena(int fd, unsigned int count)
{
	void *map;

	slots = count;
	map = mmap(NULL, STUB_AREAS + STUB_AREAS_MAX * STUB_AREA_SIZE(slots), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	close(fd);
	context_layout_init(&layout);
	arena = map;
	may_gate = ssi_may_gate();
	return 0;
}

static void *area_of(const struct ssi_slot *s)
{
	return (uint8_t *)arena + STUB_AREAS + s->area * STUB_AREA_SIZE(slots);
}

struct stub_arena *ssi_arena(void)
{
	return arena;
}

struct clock_page *ssi_clock_page(void)
{
	return (void *)((uint8_t *)arena + STUB_CLOCK);
}

void ssi_slot_other_time(const struct ssi_slot *s, int yes)
{
	ssi_slot_orders(&(struct ssi_slot){ s->area, 0 })->other_time = yes;
}

struct stub_orders *ssi_slot_orders(const struct ssi_slot *s)
{
	return stub_orders_of(area_of(s), s->number);
}

struct stub_report *ssi_slot_report(const struct ssi_slot *s)
{
	return stub_report_of(area_of(s), slots, s->number);
}

/* The signal frame of the parked thread; NULL: there is none. */
static ucontext_t *frame_of(const struct ssi_slot *s)
{
	struct stub_report *r = ssi_slot_report(s);
	uint32_t offset = __atomic_load_n(&r->context_offset, __ATOMIC_RELAXED);

	if (offset < sizeof(*r) || offset > STUB_REPORT_SIZE - sizeof(ucontext_t) || offset % 8)
		return NULL;
	return (ucontext_t *)((uint8_t *)r + offset);
}

static void *fp_of(const struct ssi_slot *s, ucontext_t *frame, uint32_t *size)
{
	uint8_t *report = (uint8_t *)ssi_slot_report(s);

	return context_fp(frame, report + STUB_REPORT_SIZE,
			  (uintptr_t)report - (STUB_REPORTS + s->number * STUB_REPORT_SIZE), size);
}

int ssi_slot_load_fp(const struct ssi_slot *s, const void *fp, int size)
{
	uint32_t room, length = xstate_length(fp, size, layout.end);
	ucontext_t *frame = frame_of(s);
	void *area = frame ? fp_of(s, frame, &room) : NULL;

	if (!area)
		return -EFAULT;
	if (length == xstate_length(area, room, layout.end) && !memcmp(area, fp, length))
		return 0;
	return context_set_fp(&layout, area, room, fp, length) ? 0 : -EFAULT;
}

/*
 * A gate finds its report by the GS base, if user code does not use that itself.  What is single-stepped goes where
 * single steps can follow.
 */
static uint64_t real_gs(const struct ssi_slot *s, uint64_t gs, int singlestep)
{
	return gs || singlestep || !may_gate ? gs : STUB_REPORTS + s->number * STUB_REPORT_SIZE;
}

int ssi_slot_load(const struct ssi_slot *s, const unsigned long *gp, int singlestep)
{
	struct stub_orders *o = ssi_slot_orders(s);
	uint64_t fs = gp[CONTEXT_FS_BASE], gs = real_gs(s, gp[CONTEXT_GS_BASE], singlestep);
	ucontext_t *frame = frame_of(s);

	if (!frame)
		return -EFAULT;
	context_set_gp(frame, gp, singlestep);
	o->sync |= (o->fs_base != fs ? STUB_SYNC_FS : 0) | (o->gs_base != gs ? STUB_SYNC_GS : 0);
	o->fs_base = fs;
	o->gs_base = gs;
	ssi_slot_report(s)->posted = 0;
	return 0;
}

struct wire_action *ssi_slot_actions(const struct ssi_slot *s, int known)
{
	struct stub_orders *o = ssi_slot_orders(s);

	_Static_assert(sizeof(struct stub_action) == sizeof(struct wire_action), "the same in both");
	o->actions_known = known;
	if (known)
		o->actions_told = 1;
	return (struct wire_action *)o->actions;
}

void ssi_slot_resume(const struct ssi_slot *s)
{
	struct stub_orders *o = ssi_slot_orders(s);
	struct stub_report *r = ssi_slot_report(s);

	o->ran = 1;
	__atomic_store_n(&o->go, o->go + 1, __ATOMIC_SEQ_CST);
	if (__atomic_exchange_n(&r->stub_waits, 0, __ATOMIC_SEQ_CST))
		syscall(__NR_futex, &r->stub_waits, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int ssi_slot_place(const struct ssi_slot *s, int host_cpu, int spin)
{
	struct stub_orders *o = ssi_slot_orders(s);
	uint32_t placed = host_cpu + 1;

	__atomic_store_n(&o->spin, spin ? SPIN_LOOKS : 0, __ATOMIC_RELAXED);
	if (o->placed == placed)
		return 0;
	o->placed = placed;
	ssi_pin_thread(o->tid, host_cpu);
	return 1;
}

void ssi_slot_leave(const struct ssi_slot *s)
{
	__atomic_store_n(&ssi_slot_orders(s)->spin, 0, __ATOMIC_RELAXED);
}

/* Until it has parked, or a signal waits, for SPIN_NS at most. */
static void spin(struct stub_report *r, uint32_t go)
{
	long long until = os_nsecs() + SPIN_NS;
	unsigned looks = 0;

	while (__atomic_load_n(&r->parked, __ATOMIC_ACQUIRE) != go && !os_signals_pending() &&
	       (++looks % 64 || os_nsecs() < until))
		__builtin_ia32_pause();
}

/* No timeout: arming a timer of the host's takes longer than all the rest, and the tick comes anyway. */
int ssi_slot_wait(const struct ssi_slot *s, int may_spin)
{
	struct stub_orders *o = ssi_slot_orders(s);
	struct stub_report *r = ssi_slot_report(s);
	uint32_t parked;

	if (may_spin)
		spin(r, o->go);
	__atomic_store_n(&o->daemon_waits, 1, __ATOMIC_SEQ_CST);
	do
		parked = __atomic_load_n(&r->parked, __ATOMIC_SEQ_CST);
	while (parked != o->go && ssi_wait_call(__NR_futex, (long)&r->parked, FUTEX_WAIT, parked, 0) != -EINTR);
	__atomic_store_n(&o->daemon_waits, 0, __ATOMIC_RELAXED);
	if (parked != o->go)
		return -EINTR;
	o->sync = 0;
	return 0;
}

void ssi_slot_interrupt(const struct ssi_slot *s)
{
	const struct stub_orders *o = ssi_slot_orders(s);

	syscall(__NR_tgkill, o->pid, o->tid, SIGALRM);
}

unsigned int ssi_slot_signal(const struct ssi_slot *s)
{
	return __atomic_load_n(&ssi_slot_report(s)->signal, __ATOMIC_RELAXED);
}

int ssi_slot_frame_fault(const struct ssi_slot *s)
{
	return ssi_slot_signal(s) == SIGBUS && ssi_slot_report(s)->code == BUS_ADRERR;
}

int ssi_slot_read_fp(const struct ssi_slot *s, void *fp, int fp_size)
{
	ucontext_t *frame = frame_of(s);
	uint32_t room, length;
	void *area;

	if (!frame)
		return -EFAULT;
	area = fp_of(s, frame, &room);
	if (!area)
		return -EFAULT;
	length = xstate_length(area, room, layout.end);
	if (length > (uint32_t)fp_size)
		return -EFAULT;
	memcpy(fp, area, length);
	return 0;
}

int ssi_slot_read(const struct ssi_slot *s, struct ssi_trap *trap, unsigned long *gp)
{
	const struct stub_orders *o = ssi_slot_orders(s);
	const struct stub_report *r = ssi_slot_report(s);
	ucontext_t *frame = frame_of(s);

	if (!frame)
		return -EFAULT;
	*trap = (struct ssi_trap){
		.code = r->code,
		.address = frame->uc_mcontext.gregs[REG_CR2],
		.error = frame->uc_mcontext.gregs[REG_ERR],
		.number = frame->uc_mcontext.gregs[REG_TRAPNO],
		.posted = r->posted,
		.posted_restorer = r->posted_restorer,
	};
	memset(gp, 0, WIRE_GP_COUNT * sizeof(*gp));
	context_get_gp(frame, gp);
	gp[CONTEXT_ORIG_AX] = ssi_slot_signal(s) == SIGSYS ? (unsigned long)r->syscall : NO_SYSCALL;
	gp[CONTEXT_FS_BASE] = o->fs_base;
	gp[CONTEXT_GS_BASE] = stub_user_gs(o->gs_base);
	return 0;
}

void ssi_slot_count(const struct ssi_slot *s, long long user_ns, int interrupted)
{
	arena->cpu[s->cpu].runs++;
	arena->cpu[s->cpu].interrupts += interrupted;
	arena->cpu[s->cpu].user_ns += user_ns;
}
