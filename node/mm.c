// SPDX-License-Identifier: GPL-2.0
/*
 * Address spaces that have a stub on this node.
 *
 * An mm gets its stub with the first RUN that names it, or from the kernel on its host, and loses it with MM_FREE or, there,
 * by the kernel's word in the arena (stub.h).  Besides the stub's host
 * mappings, pangead keeps its own table from address to frame, because a userfaultfd fault names an address
 * only.  Host mappings are a cache of that table, which is a cache of the kernel's page tables: when
 * the host refuses another mapping (vm.max_map_count), everything is dropped, and comes back by faults.
 *
 * Mapping system calls are made by the stub's service thread, one batch at a time, under mm.lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "machine.h"

#define ALIVE_CHECK_MIN_NS 32000000L	/* doubled from one look to the next; beyond the host's tick, so cheap to arm */
#define ALIVE_CHECK_MAX_NS 256000000L
#define IDLE_WAKES 64		/* that were for nothing, before each nap */

/* --- the mapping table: four levels of 512, like the hardware's --- */

#define LEVELS		4
#define LEVEL_BITS	9
#define LEVEL_SIZE	(1u << LEVEL_BITS)
#define PROT_BITS	3

struct mm_node {
	union {
		struct mm_node *child;
		uint64_t entry;		/* pfn << PROT_BITS | prot; 0: none */
	} slot[LEVEL_SIZE];
};

static unsigned level_index(uint64_t vpn, unsigned level)
{
	return vpn >> (level * LEVEL_BITS) & (LEVEL_SIZE - 1);
}

static uint64_t *table_entry(struct mm *mm, uint64_t vpn, bool make)
{
	struct mm_node **node = &mm->map;

	for (unsigned level = LEVELS; level-- > 0;) {
		if (!*node && (!make || !(*node = calloc(1, sizeof(**node)))))
			return NULL;
		if (!level)
			break;
		node = &(*node)->slot[level_index(vpn, level)].child;
	}
	return &(*node)->slot[level_index(vpn, 0)].entry;
}

static bool table_is_empty(const struct mm_node *node)
{
	for (unsigned i = 0; i < LEVEL_SIZE; i++)
		if (node->slot[i].entry)
			return false;
	return true;
}

/* Clear [first, last], vpns relative to the node's own range, and free what is empty then.  Was there anything? */
static bool table_clear(struct mm_node **where, unsigned level, uint64_t first, uint64_t last)
{
	struct mm_node *node = *where;
	uint64_t span = 1ull << (level * LEVEL_BITS);
	bool found = false;

	if (!node)
		return false;
	for (uint64_t i = first / span; i <= last / span; i++) {
		uint64_t base = i * span;
		uint64_t from = first > base ? first - base : 0;
		uint64_t to = last < base + span - 1 ? last - base : span - 1;

		if (level) {
			found |= table_clear(&node->slot[i].child, level - 1, from, to);
		} else {
			found |= node->slot[i].entry != 0;
			node->slot[i].entry = 0;
		}
	}
	if (table_is_empty(node)) {
		free(node);
		*where = NULL;
	}
	return found;
}

static bool table_clear_range(struct mm *mm, uint64_t start, uint64_t end)
{
	return start < end && table_clear(&mm->map, LEVELS - 1, start / NODE_PAGE_SIZE, end / NODE_PAGE_SIZE - 1);
}

/* The stub may have mappings that are not in the table. */
static void forget_all(struct mm *mm)
{
	mm->forgot = true;
	table_clear_range(mm, 0, STUB_USER_END);
}

/* What the kernel has unmapped since the last time; false: so much that it is not known any more. */
static bool forget_taken(struct mm *mm, const struct stub_orders *o, uint32_t now)
{
	struct { uint64_t start, end; } taken[STUB_TAKEN_MAX];
	uint32_t first = mm->kernel_takes, count = now - first, i;

	if (count > STUB_TAKEN_MAX)
		return false;
	for (i = 0; i < count; i++) {
		taken[i].start = __atomic_load_n(&o->taken[(first + i) % STUB_TAKEN_MAX].start, __ATOMIC_RELAXED);
		taken[i].end = __atomic_load_n(&o->taken[(first + i) % STUB_TAKEN_MAX].end, __ATOMIC_RELAXED);
	}
	/* those were not replaced meanwhile; the next one may be, before it is counted */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (count && __atomic_load_n(&o->kernel_takes, __ATOMIC_RELAXED) - first >= STUB_TAKEN_MAX)
		return false;
	for (i = 0; i < count; i++)
		table_clear_range(mm, taken[i].start, taken[i].end);
	return true;
}

/* The kernel has mapped and unmapped in its own way: what we know is out of date.  mm.lock held. */
static void forget_if_old(struct mm *mm)
{
	const struct stub_orders *o = stub_orders_of(mm->area, 0);
	uint32_t maps = __atomic_load_n(&o->kernel_maps, __ATOMIC_ACQUIRE);
	uint32_t takes = __atomic_load_n(&o->kernel_takes, __ATOMIC_ACQUIRE);

	if (maps != mm->kernel_maps || !forget_taken(mm, o, takes))
		forget_all(mm);
	mm->kernel_maps = maps;
	mm->kernel_takes = takes;
}

struct mapping mm_lookup(struct mm *mm, uint64_t address)
{
	uint64_t *entry = NULL;

	forget_if_old(mm);
	if (address < STUB_USER_END)
		entry = table_entry(mm, address / NODE_PAGE_SIZE, false);
	if (!entry)
		return (struct mapping){ 0 };
	return (struct mapping){ *entry >> PROT_BITS, *entry & ((1 << PROT_BITS) - 1) };
}

/* --- handing slots over --- */

struct slot mm_slot(const struct mm *mm, unsigned slot)
{
	return (struct slot){
		.mm = mm,
		.tid = mm->tid[slot],
		.orders = stub_orders_of(mm->area, slot),
		.report = stub_report_of(mm->area, mm->slots, slot),
	};
}

void slot_resume(struct slot s)
{
	s.orders->ran = 1;
	__atomic_store_n(&s.orders->go, s.orders->go + 1, __ATOMIC_SEQ_CST);
	if (__atomic_exchange_n(&s.report->stub_waits, 0, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &s.report->stub_waits, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * User code can write the word and wake who waits for it, as often as it likes.  So time is looked at whatever has ended
 * a wait, and who is always awake for nothing takes a nap: it may run under SCHED_FIFO.
 */
int slot_wait(struct slot s, uint32_t go, uint64_t until)
{
	struct timespec timeout = { 0, 0 }, nap = { 0, 1000000 };
	uint64_t now = now_ns(), check = ALIVE_CHECK_MIN_NS, look = now + check, end;
	unsigned wakes = 0;
	uint32_t parked;
	int ret = 0;

	__atomic_store_n(&s.orders->daemon_waits, 1, __ATOMIC_SEQ_CST);
	while ((parked = __atomic_load_n(&s.report->parked, __ATOMIC_SEQ_CST)) != go && !ret) {
		if (wakes++ % IDLE_WAKES == IDLE_WAKES - 1)
			nanosleep(&nap, NULL);
		end = until < look ? until : look;
		if (end > now) {	/* a timer that is over already takes as long as one that is not */
			timeout.tv_nsec = end - now;
			syscall(SYS_futex, &s.report->parked, FUTEX_WAIT, parked, &timeout, NULL, 0);
			now = now_ns();
		}
		if (__atomic_load_n(&s.report->parked, __ATOMIC_SEQ_CST) == go)
			continue;
		if (now >= until) {
			ret = -EAGAIN;
		} else if (now >= look) {
			if (!stub_alive(s.mm))
				ret = -ESRCH;
			else if (check >= ALIVE_CHECK_MAX_NS)
				ret = -ETIMEDOUT;
			check *= 2;
			look = now + check;
		}
	}
	__atomic_store_n(&s.orders->daemon_waits, 0, __ATOMIC_RELAXED);
	/* what the thread that resumed it did before that has happened before what we do now */
	__atomic_load_n(&s.orders->go, __ATOMIC_ACQUIRE);
	return parked == go ? 0 : ret;
}

/* --- map operations --- */

#define BATCH_MAX (STUB_OPS_MAX / 3)	/* each may be mapped, registered and given its rights */
#define REGISTER_SPAN (16ull << 20)	/* at a time, with what lies between: the host looks at all mappings in there */

struct batch {
	struct machine *machine;
	struct mm *mm;
	bool still;			/* nothing of it runs */
	unsigned count;
	struct stub_op op[BATCH_MAX];	/* MAP stands for all that makes a mapping usable */
};

/* The service thread carries out its orders: STUB_RESULT_..., or -ESRCH: the stub is gone. */
static int serve(struct batch *b, unsigned count)
{
	struct stub_orders *o = mm_slot(b->mm, 0).orders;
	uint8_t byte;

	o->op_count = count;
	__atomic_store_n(&o->go, o->go + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &o->go, FUTEX_WAKE, 1, NULL, NULL, 0);
	return TEMP_FAILURE_RETRY(recv(b->mm->socket, &byte, 1, 0)) == 1 ? byte : -ESRCH;
}

/* mm.lock held.  The kernel owns it for microseconds of CPU time, and runs where we do, at a lower priority. */
static void own_service(struct mm *mm)
{
	struct stub_orders *o = mm_slot(mm, 0).orders;
	struct timespec nap = { 0, 20000 };
	uint32_t none = STUB_OWNER_NONE;

	while (!__atomic_compare_exchange_n(&o->owner, &none, STUB_OWNER_DAEMON, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_RELAXED)) {
		none = STUB_OWNER_NONE;
		nanosleep(&nap, NULL);
	}
}

static void disown_service(struct mm *mm)
{
	__atomic_store_n(&mm_slot(mm, 0).orders->owner, STUB_OWNER_NONE, __ATOMIC_RELEASE);
}

static int result_error(int result)
{
	return result == STUB_RESULT_DONE ? 0 : result < 0 ? result : -EFAULT;
}

/* The host has no room for another mapping: start over with none. */
static int drop_all(struct batch *b)
{
	mm_slot(b->mm, 0).orders->ops[0] = (struct stub_op){ .length = STUB_USER_END, .kind = STUB_OP_UNMAP };
	table_clear_range(b->mm, 0, STUB_USER_END);
	return result_error(serve(b, 1));
}

/* One more order, or more for the last one, if that is the same for the addresses before. */
static unsigned add_order(struct stub_op *ops, unsigned count, const struct stub_op *op, uint32_t kind)
{
	struct stub_op *last = count ? &ops[count - 1] : NULL;

	if (last && last->kind == kind && last->addr + last->length == op->addr &&
	    (kind == STUB_OP_REGISTER || (kind == STUB_OP_PROTECT && last->prot == op->prot))) {
		last->length += op->length;
		return count;
	}
	ops[count] = *op;
	ops[count].kind = kind;
	return count + 1;
}

/* Of what lies between two, all is registered or not mapped. */
static unsigned add_register(struct stub_op *ops, unsigned count, const struct stub_op *op, bool still)
{
	struct stub_op *last = count ? &ops[count - 1] : NULL;

	if (!still || !last || last->kind != STUB_OP_REGISTER || op->addr < last->addr + last->length ||
	    op->addr + op->length - last->addr > REGISTER_SPAN)
		return add_order(ops, count, op, STUB_OP_REGISTER);
	last->length = op->addr + op->length - last->addr;
	return count;
}

/*
 * As orders for the service thread: everything is mapped, then registered, then gets its rights, unless it had them from the
 * start.  Their number.
 */
static unsigned compose(const struct batch *b, struct stub_op *ops)
{
	const struct stub_op *op, *end = b->op + b->count;
	unsigned n = 0;

	for (op = b->op; op < end; op++)
		if (op->kind != STUB_OP_PROTECT)
			n = add_order(ops, n, op, op->kind == STUB_OP_MAP && b->still ? STUB_OP_SHOW : op->kind);
	for (op = b->op; op < end; op++)
		if (op->kind == STUB_OP_MAP)
			n = add_register(ops, n, op, b->still);
	for (op = b->op; op < end; op++)
		if (op->kind == STUB_OP_PROTECT || (op->kind == STUB_OP_MAP && !b->still))
			n = add_order(ops, n, op, STUB_OP_PROTECT);
	return n;
}

/* Then the frames that this node holds need not be faulted on. */
static int batch_flush(struct batch *b)
{
	unsigned count = b->count;
	int ret;

	if (!count)
		return 0;
	ret = serve(b, compose(b, mm_slot(b->mm, 0).orders->ops));
	b->count = 0;
	if (ret == STUB_RESULT_FULL)
		return drop_all(b);
	for (const struct stub_op *op = b->op; op < b->op + count && ret == STUB_RESULT_DONE; op++)
		if (op->kind != STUB_OP_UNMAP)
			pager_map_held(b->machine, b->mm, op->addr, op->offset / NODE_PAGE_SIZE,
				       op->length / NODE_PAGE_SIZE);
	return result_error(ret);
}

/* Pages that are named one by one may follow each other all the same. */
static bool extends(const struct stub_op *last, uint32_t kind, const struct wire_map *map)
{
	return last->kind == kind && kind != STUB_OP_UNMAP && last->prot == map->prot &&
	       last->addr + last->length == map->addr && last->offset + last->length == map->pfn * NODE_PAGE_SIZE;
}

/* Whoever adds a mapping has entered it in the table, which a flush may clear: so it is added first. */
static int batch_add(struct batch *b, uint32_t kind, const struct wire_map *map, uint64_t length)
{
	int ret = 0;

	/* a removal must not come between mapping and registering */
	if (kind == STUB_OP_UNMAP && b->count && b->op[b->count - 1].kind != kind)
		ret = batch_flush(b);
	if (ret)
		return ret;
	if (b->count && extends(&b->op[b->count - 1], kind, map)) {
		b->op[b->count - 1].length += length;
		return 0;
	}
	b->op[b->count++] = (struct stub_op){
		.addr = map->addr, .length = length, .mode = STUB_REGISTER_MODES,
		.offset = map->pfn * NODE_PAGE_SIZE, .prot = map->prot, .kind = kind,
	};
	return b->count == BATCH_MAX ? batch_flush(b) : 0;
}

static uint64_t map_length(const struct wire_map *map)
{
	uint64_t room = STUB_USER_END - map->addr;

	if (map->pages == WIRE_MAP_ALL_PAGES || (uint64_t)map->pages * NODE_PAGE_SIZE > room)
		return room;
	return (uint64_t)map->pages * NODE_PAGE_SIZE;
}

static int add_removal(struct batch *b, const struct wire_map *map)
{
	uint64_t length = map_length(map);

	if (!table_clear_range(b->mm, map->addr, map->addr + length) && !b->mm->forgot)
		return 0;
	return batch_add(b, STUB_OP_UNMAP, map, length);
}

/* What the stub must do to show this frame with these rights: enum stub_op.kind; 0: nothing. */
static uint32_t change(uint64_t old, uint64_t new)
{
	if (old == new)
		return 0;
	return old && old >> PROT_BITS == new >> PROT_BITS ? STUB_OP_PROTECT : STUB_OP_MAP;
}

/*
 * Enter as many pages of the mapping in the table as need the same change, which is returned, or -ENOMEM.
 * *pages: how many.
 */
static int enter_mapping(struct mm *mm, const struct wire_map *map, uint32_t *pages)
{
	uint32_t first = 0, i;

	for (i = 0; i < map->pages; i++) {
		uint64_t *entry = table_entry(mm, map->addr / NODE_PAGE_SIZE + i, true);
		uint64_t new = (map->pfn + i) << PROT_BITS | map->prot;

		if (!entry)
			return -ENOMEM;
		if (!i)
			first = change(*entry, new);
		else if (change(*entry, new) != first)
			break;
		*entry = new;
	}
	*pages = i;
	return (int)first;
}

static int add_mapping(struct batch *b, const struct wire_map *map)
{
	struct wire_map rest = *map;
	uint32_t pages;
	int ret = 0;

	rest.prot &= ~(WIRE_MAP_WANTED | WIRE_MAP_AHEAD);
	if (map->pfn + map->pages > b->machine->config.layout.frames ||
	    map->addr + (uint64_t)map->pages * NODE_PAGE_SIZE > STUB_USER_END)
		return -EINVAL;
	for (; rest.pages; rest.pages -= pages) {
		ret = enter_mapping(b->mm, &rest, &pages);
		if (ret > 0)
			ret = batch_add(b, ret, &rest, (uint64_t)pages * NODE_PAGE_SIZE);
		if (ret)
			return ret;
		rest.addr += (uint64_t)pages * NODE_PAGE_SIZE;
		rest.pfn += pages;
	}
	return 0;
}

/* mm.lock held. */
static int apply(struct machine *m, struct mm *mm, const struct wire_map *maps, unsigned count, uint64_t epoch, bool still)
{
	struct batch b = { .machine = m, .mm = mm, .still = still };
	int ret = 0;

	if (mm->revoked <= epoch) {		/* frames travel while mappings are made for them */
		pager_want(m, mm, maps, count);
		pager_bring(m, mm, maps, count);
	}
	own_service(mm);
	forget_if_old(mm);
	for (unsigned i = 0; i < count && !ret; i++) {
		if (!maps[i].prot)
			ret = add_removal(&b, &maps[i]);
		else if (mm->revoked <= epoch)
			ret = add_mapping(&b, &maps[i]);
	}
	if (!ret)
		ret = batch_flush(&b);
	disown_service(mm);
	if (!ret)
		return 0;
	forget_all(mm);
	log_line(LOG_WARNING, "mm %llu: mapping failed: %s", (unsigned long long)mm->id, strerror(-ret));
	return ret;
}

int mm_apply(struct machine *m, struct mm *mm, unsigned cpu, const struct wire_map *maps, unsigned count,
	     uint64_t epoch, bool still)
{
	struct stub_orders *orders = mm_slot(mm, 0).orders;
	int ret;

	if (!count)
		return 0;
	pthread_mutex_lock(&mm->lock);
	if (mm->served_on != cpu + 1 || orders->placed) {
		pin_thread(cpu, mm->pid);
		mm->served_on = cpu + 1;
		orders->placed = 0;
	}
	ret = apply(m, mm, maps, count, epoch, still);
	pthread_mutex_unlock(&mm->lock);
	return ret;
}
/* Of a stub whose mm is used no more.  0; or -errno: it cannot be used again. */
int mm_unmap_all(struct machine *m, struct mm *mm)
{
	struct batch b = { .machine = m, .mm = mm };
	int ret;

	pthread_mutex_lock(&mm->lock);
	own_service(mm);
	forget_if_old(mm);
	ret = drop_all(&b);
	mm->forgot = ret != 0;
	disown_service(mm);
	pthread_mutex_unlock(&mm->lock);
	return ret;
}

void mm_keep_all(struct mm *mm)
{
	pthread_mutex_lock(&mm->lock);
	forget_all(mm);
	pthread_mutex_unlock(&mm->lock);
}

void mm_drop_table(struct mm *mm)
{
	table_clear_range(mm, 0, 1ull << (LEVELS * LEVEL_BITS + 12));
}

/* --- the table of mms, and their end --- */

static struct mm **find(struct machine *m, uint64_t id)
{
	struct mm **p = &m->mms[id % MM_HASH];

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static void enter(struct machine *m, struct mm *mm, uint64_t id)
{
	mm->id = id;
	mm->revoked = m->revoked_absent;
	mm->references = 1;
	mm->next = m->mms[id % MM_HASH];
	m->mms[id % MM_HASH] = mm;
	m->stubs++;
}

/* Those that the kernel has taken. */
static void enter_taken(struct machine *m)
{
	struct mm *mm;

	while ((mm = stub_next_taken(m))) {
		if (mm_slot(mm, 0).orders->mm == STUB_MM_NONE)
			stub_give_back(m, mm);
		else
			enter(m, mm, mm_slot(mm, 0).orders->mm);
	}
}

/* Where it hangs, or NULL there.  mms_lock held, as for the three above. */
static struct mm **mm_find(struct machine *m, uint64_t id)
{
	struct mm **p = find(m, id);

	if (*p)
		return p;
	enter_taken(m);
	return find(m, id);
}

/* mms_lock held. */
static struct mm *mm_start(struct machine *m, uint64_t id)
{
	struct mm *mm = stub_take_spare(m);

	if (!mm)
		mm = stub_new(m, false);
	if (mm)
		enter(m, mm, id);
	return mm;
}

/* With mms_lock held throughout: one mm is never started twice. */
struct mm *mm_get(struct machine *m, uint64_t id)
{
	struct mm *mm;

	pthread_mutex_lock(&m->mms_lock);
	mm = *mm_find(m, id);
	if (!mm)
		mm = mm_start(m, id);
	if (mm)
		mm->references++;
	pthread_mutex_unlock(&m->mms_lock);
	return mm;
}

struct mm *mm_find_started(struct machine *m, uint64_t id)
{
	struct mm *mm;

	if (pthread_mutex_trylock(&m->mms_lock))
		return NULL;
	mm = *mm_find(m, id);
	if (mm)
		mm->references++;
	pthread_mutex_unlock(&m->mms_lock);
	return mm;
}

void mm_put(struct machine *m, struct mm *mm)
{
	if (!--mm->references)
		stub_give_back(m, mm);
}

void mm_forget(struct machine *m, uint64_t id)
{
	struct mm **p, *mm;

	pthread_mutex_lock(&m->mms_lock);
	p = mm_find(m, id);
	mm = *p;
	if (mm) {
		*p = mm->next;
		m->stubs--;
	}
	pthread_mutex_unlock(&m->mms_lock);
	if (!mm)
		return;
	pthread_mutex_lock(&m->hot_lock);
	hot_forget(&m->hot, id);
	pthread_mutex_unlock(&m->hot_lock);
	mm_put(m, mm);
}

/* Is a mapping registered before it can be used? */
static int probe_mapping(struct machine *m, struct mm *mm)
{
	struct wire_map map = { .addr = 1 << 20, .pfn = own_node(m)->pfn_start, .pages = 1, .prot = PROT_READ };
	struct uffdio_continue c = { .range = { map.addr, NODE_PAGE_SIZE } };

	if (mm_apply(m, mm, own_node(m)->cpu_start, &map, 1, 0, false))
		return -ENOEXEC;
	return ioctl(mm->uffd, UFFDIO_CONTINUE, &c) && errno == ENOENT ? -ENOEXEC : 0;
}

int mm_probe(struct machine *m)
{
	struct mm *mm = mm_get(m, 0);	/* the kernel counts from 1 */
	int ret;

	if (!mm)
		return -ENOEXEC;
	ret = probe_mapping(m, mm);
	mm_forget(m, 0);
	mm_put(m, mm);
	return ret;
}

void mm_note_taken(struct machine *m)
{
	pthread_mutex_lock(&m->mms_lock);
	enter_taken(m);
	pthread_mutex_unlock(&m->mms_lock);
}

/* After the executors and the mm thread have ended. */
void mm_forget_all(struct machine *m)
{
	for (unsigned i = 0; i < MM_HASH; i++)
		while (m->mms[i])
			mm_forget(m, m->mms[i]->id);
}

/* --- the mm channel --- */

/*
 * The mm to take rights from.  If it has no stub here yet, the RUN that starts one may be on its way with rights
 * that are older than this request.
 */
static struct mm *mm_to_revoke(struct machine *m, const struct wire_revoke *msg)
{
	struct mm *mm;

	pthread_mutex_lock(&m->mms_lock);
	mm = *mm_find(m, msg->mm);
	if (mm)
		mm->references++;
	else
		m->revoked_absent = msg->hdr.seq;
	pthread_mutex_unlock(&m->mms_lock);
	return mm;
}

static void end_process(const struct mm *mm)
{
	siginfo_t info;

	kill(mm->pid, SIGKILL);
	TEMP_FAILURE_RETRY(waitid(P_PID, mm->pid, &info, WEXITED | WNOWAIT));
}

static void take_away(struct machine *m, const struct wire_revoke *msg)
{
	struct wire_map map = { .addr = msg->start };
	uint64_t pages = (msg->end - msg->start) / NODE_PAGE_SIZE;
	struct mm *mm = mm_to_revoke(m, msg);

	if (!mm)
		return;
	map.pages = pages < WIRE_MAP_ALL_PAGES ? pages : WIRE_MAP_ALL_PAGES;
	pthread_mutex_lock(&mm->lock);
	mm->revoked = msg->hdr.seq;
	/* rights that could not be taken away by unmapping end with the process */
	if (apply(m, mm, &map, 1, msg->hdr.seq, false))
		end_process(mm);
	pthread_mutex_unlock(&mm->lock);
	mm_put(m, mm);
	pager_drain(m);
}

static int acknowledge(struct machine *m, const struct wire_hdr *request)
{
	struct wire_ack ack = { .hdr = { sizeof(ack), WIRE_ACK, 0, request->seq } };

	return link_send_msg(m->mm_link, &ack);
}

static int handle(struct machine *m, const struct wire_hdr *msg)
{
	const struct wire_discard *discard = (const void *)msg;

	switch (msg->type) {
	case WIRE_INTERRUPT:
		executor_interrupt(m, ((const struct wire_interrupt *)msg)->cpu, msg->seq);
		return 0;
	case WIRE_REVOKE:
		take_away(m, (const void *)msg);
		return acknowledge(m, msg);
	case WIRE_MM_FREE:
		mm_forget(m, ((const struct wire_mm_free *)msg)->mm);
		return 0;
	case WIRE_CLOCK_STOP:
		clock_stop(m, ((const struct wire_clock_stop *)msg)->generation);
		return acknowledge(m, msg);
	case WIRE_DISCARD:
		pager_discard(m, (const void *)(discard + 1), discard->range_count);
		return acknowledge(m, msg);
	}
	return -EPROTO;
}

void *mm_channel_thread(void *arg)
{
	struct machine *m = arg;
	const struct wire_hdr *msg;
	int ret = 0;

	pin_thread(own_node(m)->cpu_start, 0);
	hurry_thread(0, HURRY_MUCH);
	while (!ret) {
		ret = link_recv_wait(m->mm_link, &msg, -1);
		if (ret > 0)
			ret = handle(m, msg);
	}
	if (!m->stopping)
		machine_fail(m, "the kernel has closed the mm channel%s%s", *m->mm_link->error ? ": " : "",
			     m->mm_link->error);
	return NULL;
}
