// SPDX-License-Identifier: GPL-2.0
/*
 * What a program faults on, remembered for the next time.
 *
 * A page fault takes a trap, a hand-over and an order to the stub, ten times as long as making its page.  And most come
 * again and again: a child of fork() faults on what the last child did, its parent on what it wrote after the last fork(),
 * and a program, started anew, on the same code and data.  So the first faults of each are noted, and the next one gets
 * all these pages at once, before it runs, as far as they are mapped by then, and what is mapped later when memory
 * to be written is, or with the first fault on it.  (A library is mapped as a whole first, and its data last.)  Pages of
 * the stack are known by how far they are from where it began, as that is elsewhere in each process.
 *
 *	a child of fork()     follows what its siblings did		kept with the parent's mm
 *	a parent, after it    follows what it did itself		kept with its mm
 *	a program             follows the last runs of its file		kept in a table
 *
 * Pages that have been given do not fault, so a habit never loses what is not needed any more: now and then it is
 * forgotten, and learned anew.  It never gives more than its program may access, and writes to private memory only.  What it
 * takes in vain is at most HABIT_MAX pages a process.
 *
 * What a child or its parent stores to after fork() is copied by fork() itself, on the kernel host (early.c).
 *
 * On other nodes the frames of these pages are all asked for at once, and the task waits for the last of them, instead of for
 * one after the other (mm.c, give_also()).  And what is copied as it is written to is copied all at once, when all the pages
 * are in the page table, unless somebody else could see them there: who has the mm, or gets it and then mmap_lock.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/userfaultfd_k.h>
#include <ssi.h>
#include "ssi_internal.h"

#define RELEARN		64	/* uses */
#define PROGRAMS	64
#define WRITTEN		1UL	/* beside a page's address */
#define ON_STACK	2UL	/* likewise: it is relative to where the stack began */
#define NUMBER_SHIFT	1	/* where neither is any more, the place in its habit */
#define VAIN_MAX	16	/* looks in a row that found nothing to give */
#define STACK_SPAN	(1UL << 20)	/* so much, on both sides */

struct ssi_habit {
	refcount_t references;
	raw_spinlock_t lock;
	unsigned int uses, count;
	unsigned long fault[HABIT_MAX];		/* address of the page, WRITTEN, ON_STACK */
};

static struct {
	raw_spinlock_t lock;
	unsigned int next;			/* to be replaced */
	struct { dev_t dev; unsigned long ino; struct ssi_habit *habit; } program[PROGRAMS];
} programs = { .lock = __RAW_SPIN_LOCK_UNLOCKED(programs.lock) };

/* NULL where there is no memory: nothing is remembered then. */
static struct ssi_habit *make(void)
{
	struct ssi_habit *h = kzalloc(sizeof(*h), GFP_KERNEL);

	if (!h)
		return NULL;
	refcount_set(&h->references, 1);
	raw_spin_lock_init(&h->lock);
	return h;
}

static struct ssi_habit *get(struct ssi_habit *h)
{
	if (h)
		refcount_inc(&h->references);
	return h;
}

static void put(struct ssi_habit *h)
{
	if (h && refcount_dec_and_test(&h->references))
		kfree(h);
}

/* From now on, and from its beginning. */
static void follow(struct ssi_habits *s, struct ssi_habit *h)
{
	unsigned long flags;

	if (!h)
		return;
	raw_spin_lock_irqsave(&h->lock, flags);
	if (++h->uses % RELEARN == 0)
		h->count = 0;
	raw_spin_unlock_irqrestore(&h->lock, flags);
	bitmap_zero(s->done, HABIT_MAX);
	s->vain = 0;
	WRITE_ONCE(s->followed, h);
	WRITE_ONCE(s->settled, false);
}

/* Threads may fork at the same time. */
static void have(struct ssi_habit **place)
{
	struct ssi_habit *h = READ_ONCE(*place) ? NULL : make();

	if (h && cmpxchg(place, NULL, h))
		put(h);
}

void ssi_habit_fork(struct ssi_habits *parent, struct ssi_habits *child)
{
	have(&parent->children);
	have(&parent->after);
	child->origin = get(parent->children);
	follow(child, child->origin);
	follow(parent, parent->after);
}

void ssi_habit_end(struct ssi_habits *s)
{
	put(s->origin);
	put(s->children);
	put(s->after);
}

/* --- of programs --- */

static struct ssi_habit *find_program(dev_t dev, unsigned long ino)
{
	struct ssi_habit *found = NULL;
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&programs.lock, flags);
	for (i = 0; i < PROGRAMS && !found; i++)
		if (programs.program[i].habit && programs.program[i].dev == dev && programs.program[i].ino == ino)
			found = get(programs.program[i].habit);
	raw_spin_unlock_irqrestore(&programs.lock, flags);
	return found;
}

static void add_program(dev_t dev, unsigned long ino, struct ssi_habit *h)
{
	struct ssi_habit *old;
	unsigned long flags;

	raw_spin_lock_irqsave(&programs.lock, flags);
	old = programs.program[programs.next].habit;
	programs.program[programs.next].dev = dev;
	programs.program[programs.next].ino = ino;
	programs.program[programs.next].habit = get(h);
	programs.next = (programs.next + 1) % PROGRAMS;
	raw_spin_unlock_irqrestore(&programs.lock, flags);
	put(old);
}

static struct ssi_habit *habit_of_program(struct mm_struct *mm)
{
	struct file *exe = get_mm_exe_file(mm);
	struct ssi_habit *h;
	struct inode *inode;

	if (!exe)
		return NULL;
	inode = file_inode(exe);
	h = find_program(inode->i_sb->s_dev, inode->i_ino);
	if (!h) {
		h = make();
		if (h)
			add_program(inode->i_sb->s_dev, inode->i_ino, h);
	}
	fput(exe);
	return h;
}

/* --- what was faulted on --- */

static unsigned long stack_base(const struct mm_struct *mm)
{
	return READ_ONCE(mm->start_stack) & PAGE_MASK;
}

/* What is remembered of a page. */
static unsigned long to_fault(const struct mm_struct *mm, unsigned long page)
{
	unsigned long base = stack_base(mm);

	return page - base + STACK_SPAN < 2 * STACK_SPAN ? (page - base) | ON_STACK : page;
}

/* The page, and WRITTEN. */
static unsigned long from_fault(const struct mm_struct *mm, unsigned long fault)
{
	return fault & ON_STACK ? (fault & ~ON_STACK) + stack_base(mm) : fault;
}

void ssi_habit_note(struct ssi_habits *s, unsigned long address, bool write)
{
	struct ssi_habit *h = READ_ONCE(s->followed);
	unsigned long fault = to_fault(current->mm, address & PAGE_MASK), flags;
	unsigned int i;

	if (!h)
		return;
	raw_spin_lock_irqsave(&h->lock, flags);
	for (i = 0; i < h->count && (h->fault[i] & ~WRITTEN) != fault; i++)
		;
	if (i < h->count) {
		h->fault[i] |= write ? WRITTEN : 0;
		if (!test_and_set_bit(i, s->done) && find_first_zero_bit(s->done, h->count) < h->count)
			WRITE_ONCE(s->settled, false);
	} else if (i < HABIT_MAX) {
		h->fault[h->count++] = fault | (write ? WRITTEN : 0);
		set_bit(i, s->done);
	}
	raw_spin_unlock_irqrestore(&h->lock, flags);
}

static int by_address(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	return x < y ? -1 : x > y;
}

static unsigned int add_written(struct ssi_habit *h, const struct mm_struct *mm, unsigned long *pages, unsigned int n)
{
	unsigned long flags;
	unsigned int i, k;

	if (!h)
		return n;
	raw_spin_lock_irqsave(&h->lock, flags);
	for (i = 0; i < h->count && n < EARLY_MAX; i++) {
		unsigned long page = from_fault(mm, h->fault[i]) & PAGE_MASK;

		for (k = 0; k < n && pages[k] != page; k++)
			;
		if (h->fault[i] & WRITTEN && k == n)
			pages[n++] = page;
	}
	raw_spin_unlock_irqrestore(&h->lock, flags);
	return n;
}

unsigned int ssi_habit_written(const struct ssi_habits *s, unsigned long *pages)
{
	unsigned int n = add_written(s->children, current->mm, pages, 0);

	n = add_written(s->after, current->mm, pages, n);
	sort(pages, n, sizeof(*pages), by_address, NULL);
	return n;
}

/* --- what is given --- */

static bool may_be_given(const struct vm_area_struct *vma, unsigned long fault)
{
	if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_HUGETLB) || userfaultfd_armed((struct vm_area_struct *)vma))
		return false;
	if (fault & WRITTEN)
		return (vma->vm_flags & (VM_WRITE | VM_SHARED)) == VM_WRITE;
	return vma->vm_flags & VM_READ;
}

/* mmap_lock held, and again afterwards, unless that is not to be given up meanwhile: unlocked is NULL then. */
static bool make_there(struct mm_struct *mm, unsigned long fault, bool *unlocked)
{
	u32 need = fault & WRITTEN ? SSI_PROT_W : SSI_PROT_R;

	return ssi_rights_when_young(ssi_entry_of(mm, fault)) & need ||
	       !fixup_user_fault(mm, fault & PAGE_MASK, fault & WRITTEN ? FAULT_FLAG_WRITE : 0, unlocked);
}

/* To make it there takes a copy of a page, at most, and no waiting for one. */
static bool is_to_be_copied(struct mm_struct *mm, unsigned long fault)
{
	pte_t entry = ssi_entry_of(mm, fault);

	return fault & WRITTEN && pte_present(entry) && !pte_write(entry);
}

static bool is_alone(const struct mm_struct *mm)
{
	return atomic_read(&mm->mm_users) == 1;
}

/* Those that are not done yet, by address, with their places. */
static unsigned int collect(struct ssi_habits *s, const struct mm_struct *mm, unsigned long *faults)
{
	struct ssi_habit *h = READ_ONCE(s->followed);
	unsigned int i, n = 0;
	unsigned long flags;

	raw_spin_lock_irqsave(&h->lock, flags);
	for_each_clear_bit(i, s->done, h->count)
		faults[n++] = from_fault(mm, h->fault[i]) | i << NUMBER_SHIFT;
	raw_spin_unlock_irqrestore(&h->lock, flags);
	sort(faults, n, sizeof(*faults), by_address, NULL);
	return n;
}

static bool can_be_given(struct mm_struct *mm, unsigned long fault)
{
	struct vm_area_struct *vma = vma_lookup(mm, fault & PAGE_MASK);

	return vma && may_be_given(vma, fault);
}

/* Nobody but the current task sees their pages until mmap_lock is given up.  given: a bit for each that is there then. */
static void give_copies(struct mm_struct *mm, const unsigned long *faults, unsigned int n, const unsigned long *copied,
			unsigned long *given)
{
	struct ssi_copies *copies = &mm->context.ssi->copies;
	unsigned int i;

	if (mmap_write_lock_killable(mm))
		return;
	copies->put_off = is_alone(mm);
	for_each_set_bit(i, copied, n) {
		if (can_be_given(mm, faults[i]) && is_to_be_copied(mm, faults[i]) && make_there(mm, faults[i], NULL))
			set_bit(i, given);
		if (copies->count == COPIES_MAX)
			ssi_copy_pages(copies);
	}
	ssi_copy_pages(copies);
	copies->put_off = false;
	mmap_write_unlock(mm);
}

static void give(struct ssi_habits *s, struct mm_struct *mm, struct ssi_pages *pages)
{
	DECLARE_BITMAP(given, HABIT_MAX) = {};
	DECLARE_BITMAP(copied, HABIT_MAX) = {};
	unsigned long faults[HABIT_MAX];
	unsigned int i, n = collect(s, mm, faults);
	bool together = ssi_user_node() && is_alone(mm), unlocked;

	BUILD_BUG_ON(HABIT_MAX << NUMBER_SHIFT > PAGE_SIZE);
	if (!n || mmap_read_lock_killable(mm))
		return;
	for (i = 0; i < n; i++) {
		if (!can_be_given(mm, faults[i]))
			continue;
		set_bit((faults[i] & ~PAGE_MASK) >> NUMBER_SHIFT, s->done);
		if (together && is_to_be_copied(mm, faults[i]))
			set_bit(i, copied);
		else if (make_there(mm, faults[i], &unlocked))
			set_bit(i, given);
	}
	mmap_read_unlock(mm);
	if (!bitmap_empty(copied, n))
		give_copies(mm, faults, n, copied, given);
	for_each_set_bit(i, given, n)
		pages->address[pages->count++] = faults[i] & PAGE_MASK;
	s->vain = pages->count ? 0 : s->vain + 1;
}

/* More memory to be written is mapped than before, and that has not been looked at in vain too often. */
static bool has_grown(struct ssi_habits *s, const struct mm_struct *mm)
{
	unsigned long before = s->data_vm;

	s->data_vm = mm->data_vm;
	return s->data_vm > before && s->vain < VAIN_MAX;
}

void ssi_habit_give(struct ssi_habits *s, struct ssi_pages *pages)
{
	bool grown = has_grown(s, current->mm);

	pages->count = 0;
	if (READ_ONCE(s->settled) && !grown)
		return;
	WRITE_ONCE(s->settled, true);
	if (!READ_ONCE(s->followed) && !s->origin) {
		s->origin = habit_of_program(current->mm);
		follow(s, s->origin);
		WRITE_ONCE(s->settled, true);
	}
	if (READ_ONCE(s->followed))
		give(s, current->mm, pages);
}
