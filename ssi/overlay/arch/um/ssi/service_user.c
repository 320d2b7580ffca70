// SPDX-License-Identifier: GPL-2.0
/*
 * The service threads of stubs on the kernel host, as the kernel uses them (node/stub.h): it writes what to map and
 * unmap into the orders of slot 0 and waits for the report.  And the stubs that pangead has in store.
 *
 * The thread is kept on the CPU of who waits for it: handing over is then two switches.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <os.h>
#include "ssi_internal.h"
#include "stub.h"

#define ALIVE_CHECK_NS 64000000		/* beyond the host's tick, so cheap to arm */
#define UNTOLD_MAX 4			/* to wake pangead takes as long as a good part of fork() */
#define OPS_AN_ADD 2			/* at most */
#define REGISTER_SPAN (16UL << 20)	/* at a time: the host looks at all mappings in there */

static struct stub_orders *orders_of(const struct ssi_service *s)
{
	const struct ssi_slot slot = { .area = s->slot.area, .number = 0 };

	return ssi_slot_orders(&slot);
}

static struct stub_report *report_of(const struct ssi_service *s)
{
	const struct ssi_slot slot = { .area = s->slot.area, .number = 0 };

	return ssi_slot_report(&slot);
}

/* Odd from before the look at rights until all orders by it are carried out: pangead waits for that (node/pager.c). */
static void count_mapping(const struct ssi_service *s)
{
	uint64_t *count = &ssi_arena()->cpu[s->slot.cpu].mapping;

	__atomic_store_n(count, *count + 1, __ATOMIC_SEQ_CST);
}

static void count_maps(struct stub_orders *o)
{
	__atomic_store_n(&o->kernel_maps, o->kernel_maps + 1, __ATOMIC_RELEASE);
}

/* Before it is unmapped, so that pangead never believes in a mapping that is not there any more. */
static void note_taken(struct stub_orders *o, unsigned long start, unsigned long end)
{
	uint32_t takes = o->kernel_takes;

	__atomic_store_n(&o->taken[takes % STUB_TAKEN_MAX].start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&o->taken[takes % STUB_TAKEN_MAX].end, end, __ATOMIC_RELAXED);
	__atomic_store_n(&o->kernel_takes, takes + 1, __ATOMIC_RELEASE);
}

int ssi_service_begin(struct ssi_service *s, const struct ssi_slot *slot, int host_cpu, int gives)
{
	struct stub_orders *o;
	uint32_t none = STUB_OWNER_NONE;

	*s = (struct ssi_service){ .slot = *slot, .gives = gives, .begun = os_nsecs() };
	o = orders_of(s);
	if (!__atomic_compare_exchange_n(&o->owner, &none, STUB_OWNER_KERNEL, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return -EBUSY;
	if (gives)
		count_maps(o);
	if (host_cpu >= 0 && o->placed != (uint32_t)host_cpu + 1) {
		o->placed = host_cpu + 1;
		ssi_pin_thread(o->tid, host_cpu);
	}
	if (gives)
		count_mapping(s);
	return 0;
}

int ssi_service_end(struct ssi_service *s)
{
	ssi_service_flush(s);
	if (s->error)
		count_maps(orders_of(s));	/* who knows what is there */
	if (s->gives)
		count_mapping(s);
	ssi_arena()->cpu[s->slot.cpu].maps++;
	ssi_arena()->cpu[s->slot.cpu].map_ns += os_nsecs() - s->begun;
	__atomic_store_n(&orders_of(s)->owner, STUB_OWNER_NONE, __ATOMIC_RELEASE);
	return s->error;
}

/* A process that has ended stays until pangead has reaped it; its first thread with it, but not the others. */
static int is_alive(const struct ssi_slot *slot)
{
	const struct stub_orders *o = ssi_slot_orders(slot);

	return !syscall(__NR_tgkill, o->pid, o->tid, 0);
}

/* mms that have been freed since pangead was told. */
static unsigned untold;

/* Pangead makes it good. */
static void wake_reaper(struct stub_arena *a)
{
	__atomic_store_n(&untold, 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&a->reap_wakes, 1, __ATOMIC_SEQ_CST);
	syscall(__NR_futex, &a->reap_wakes, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* For that mm; the host may have killed it in store: then for none, pangead sees to it. */
static uint32_t take_one(struct stub_arena *a, unsigned i, unsigned slot, uint64_t mm)
{
	uint32_t number = __atomic_exchange_n(&a->spare[i], 0, __ATOMIC_ACQUIRE);
	int alive = number && is_alive(&(struct ssi_slot){ number - 1, slot });

	if (number)
		__atomic_store_n(&ssi_slot_orders(&(struct ssi_slot){ number - 1, 0 })->mm, alive ? mm : STUB_MM_NONE,
				 __ATOMIC_RELEASE);
	return alive ? number : 0;
}

static uint32_t *kept_of(unsigned int area)
{
	return &ssi_slot_orders(&(struct ssi_slot){ area, 0 })->kept;
}

int ssi_stub_is_kept(unsigned int area, int yes)
{
	return (int)__atomic_exchange_n(kept_of(area), yes, __ATOMIC_RELAXED);
}

int ssi_stub_in_store(unsigned int number)
{
	struct stub_arena *a = ssi_arena();
	unsigned i;

	for (i = 0; i < STUB_SPARES_MAX && __atomic_load_n(&a->spare[i], __ATOMIC_RELAXED) != number; i++)
		;
	return i < STUB_SPARES_MAX;
}

static uint32_t take_liked(struct stub_arena *a, uint32_t liked, unsigned slot, uint64_t mm)
{
	unsigned i;

	for (i = 0; i < STUB_SPARES_MAX; i++)
		if (__atomic_load_n(&a->spare[i], __ATOMIC_ACQUIRE) == liked)
			return take_one(a, i, slot, mm);
	return 0;
}

/* What is kept in one that is not liked has to be unmapped. */
static uint32_t take_any(struct stub_arena *a, int kept, unsigned slot, uint64_t mm)
{
	uint32_t number = 0;
	unsigned i;

	for (i = 0; i < STUB_SPARES_MAX && !number; i++) {
		uint32_t there = __atomic_load_n(&a->spare[i], __ATOMIC_ACQUIRE);

		if (there && (kept || !__atomic_load_n(kept_of(there - 1), __ATOMIC_RELAXED)))
			number = take_one(a, i, slot, mm);
	}
	return number;
}

static int are_enough(const struct stub_arena *a)
{
	unsigned i, count = 0;

	for (i = 0; i < STUB_SPARES_MAX; i++)
		count += !!__atomic_load_n(&a->spare[i], __ATOMIC_RELAXED);
	return count >= STUB_SPARES_MIN;
}

unsigned int ssi_take_stub(unsigned int slot, unsigned long long mm, const unsigned int *liked, unsigned int count)
{
	struct stub_arena *a = ssi_arena();
	uint32_t number = 0;
	unsigned i;

	for (i = 0; i < count && !number; i++)
		number = take_liked(a, liked[i], slot, mm);
	if (!number)
		number = take_any(a, 0, slot, mm);
	if (!number)
		number = take_any(a, 1, slot, mm);
	if (!are_enough(a))
		wake_reaper(a);
	return number;
}

int ssi_free_stub(unsigned long long mm)
{
	struct stub_arena *a = ssi_arena();
	unsigned i;

	for (i = 0; i < STUB_FREED_MAX; i++) {
		uint64_t none = 0;

		if (!__atomic_compare_exchange_n(&a->freed[i], &none, mm, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			continue;
		if (__atomic_add_fetch(&untold, 1, __ATOMIC_RELAXED) >= UNTOLD_MAX || !are_enough(a))
			wake_reaper(a);
		return 0;
	}
	return -ENOSPC;
}

void ssi_tell_freed(void)
{
	if (__atomic_load_n(&untold, __ATOMIC_RELAXED))
		wake_reaper(ssi_arena());
}

static int wait_report(const struct ssi_service *s, struct stub_orders *o, struct stub_report *r)
{
	struct timespec check = { 0, ALIVE_CHECK_NS };
	uint32_t parked;
	int ret = 0;

	if (__atomic_load_n(&r->parked, __ATOMIC_ACQUIRE) == o->go)
		return 0;
	__atomic_store_n(&o->daemon_waits, 1, __ATOMIC_SEQ_CST);
	while ((parked = __atomic_load_n(&r->parked, __ATOMIC_SEQ_CST)) != o->go && !ret)
		if (syscall(__NR_futex, &r->parked, FUTEX_WAIT, parked, &check, NULL, 0) && errno == ETIMEDOUT &&
		    !is_alive(&s->slot))
			ret = -ESRCH;
	__atomic_store_n(&o->daemon_waits, 0, __ATOMIC_RELAXED);
	return parked == o->go ? 0 : ret;
}

static void order(struct ssi_service *s, uint32_t kind, uint64_t addr, uint64_t length, uint64_t offset, uint32_t prot)
{
	orders_of(s)->ops[s->count++] = (struct stub_op){
		.addr = addr, .length = length, .mode = STUB_REGISTER_MODES, .offset = offset, .prot = prot,
		.kind = kind,
	};
}

/* What is mapped and not registered yet, in one go with what lies between, which is registered or not mapped. */
static void order_register(struct ssi_service *s)
{
	if (s->end)
		order(s, STUB_OP_REGISTER, s->start, s->end - s->start, 0, 0);
	s->start = s->end = 0;
}

static void make_room(struct ssi_service *s)
{
	if (s->count > STUB_OPS_MAX - OPS_AN_ADD - 1)
		ssi_service_flush(s);
}

/* STUB_RESULT_..., or -ESRCH */
static int carry_out(struct ssi_service *s)
{
	struct stub_orders *o = orders_of(s);
	struct stub_report *r = report_of(s);
	int ret;

	/* nothing of the stub runs: what its user code may have answered in advance is not there any more */
	__atomic_store_n(&r->parked, o->go, __ATOMIC_SEQ_CST);
	o->op_count = s->count;
	__atomic_store_n(&o->go, o->go + 1, __ATOMIC_SEQ_CST);
	syscall(__NR_futex, &o->go, FUTEX_WAKE, 1, NULL, NULL, 0);
	ret = wait_report(s, o, r);
	return ret ? ret : (int)r->signal;
}

/* What was mapped before an order failed is not registered: nothing stays. */
static void drop_all(struct ssi_service *s)
{
	s->count = 0;
	order(s, STUB_OP_UNMAP, 0, STUB_USER_END, 0, 0);
	carry_out(s);
}

void ssi_service_flush(struct ssi_service *s)
{
	int result;

	order_register(s);
	if (s->count && !s->error) {
		result = carry_out(s);
		s->error = result < 0 ? result : result == STUB_RESULT_DONE ? 0 : -ENOMEM;
		if (s->error == -ENOMEM)
			drop_all(s);
	}
	s->count = 0;
}

void ssi_service_unmap(struct ssi_service *s, unsigned long start, unsigned long end)
{
	make_room(s);
	order_register(s);
	if (!s->gives)
		note_taken(orders_of(s), start, end);
	order(s, STUB_OP_UNMAP, start, end - start, 0, 0);
}

void ssi_service_protect(struct ssi_service *s, unsigned long start, unsigned long end, unsigned int prot)
{
	make_room(s);
	order(s, STUB_OP_PROTECT, start, end - start, 0, prot);
}

static void note_shown(const struct ssi_service *s, unsigned long start, unsigned long length, unsigned long long offset)
{
	for (unsigned long at = 0; at < length; at += 4096)
		stub_note_shown((uint64_t *)&ssi_shown[(offset + at) / 4096], stub_shown_at(s->slot.area, start + at));
}

/*
 * No other thread of the stub runs user code, so the entries can be made before the mapping is registered, which
 * leaves them as they are.
 */
void ssi_service_give(struct ssi_service *s, unsigned long start, unsigned long length, unsigned long long offset,
		      unsigned int prot)
{
	make_room(s);
	if (s->end && (start < s->end || start + length - s->start > REGISTER_SPAN))
		order_register(s);
	note_shown(s, start, length, offset);
	order(s, STUB_OP_GIVE, start, length, offset, prot);
	if (!s->end)
		s->start = start;
	s->end = start + length;
}
