// SPDX-License-Identifier: GPL-2.0
/*
 * Gates: system calls without a trap.
 *
 * A system call traps in the stub (seccomp), which takes the host as long as handing over to the kernel, often
 * longer.  Where a program makes calls over and over, in the C library's wrappers, the instructions are one of
 *
 *	mov $number, %eax		b8 nn nn nn nn		mov 8(%rsp), %r9	4c 8b 4c 24 08
 *	syscall				0f 05			syscall			0f 05
 *
 * and the first of them is replaced by a jump to a gate of its own, which does the same and then calls the stub's text
 * (node/stub.c): that leaves in the slot's report what the signal would have, and parks as ever, or answers itself.  The
 * second stays as it was, for who jumps there, for who is in that call meanwhile, and for calls that are made again.  In
 * read() the first has two bytes only: from there it is a hop to padding that is never executed, and the jump is there.
 *
 * Gates are pages of the kernel that every mm has mapped near its libraries, the same ones in all, so they go along
 * with fork() and to other nodes.  The address that is reported tells the gate, and gates[] where it stands.  If
 * the GS base, by which the stub's text finds the report, is not the slot's (when a debugger single-steps, or the
 * program has its own), the gate makes a system call by itself, which traps: all is the same but for
 * the time.  Who is interrupted in a gate goes on at the system call that it stands for, and is never seen in there.
 *
 * Programs see the jump where they read their own code.  Only private mappings of files are changed that may be executed
 * and not written to, and not those of a process that is being traced.  PANGEA_GATES=off in the environment: no gates.
 *
 * The idea, and that it is worth the trouble, is gVisor's (systrap).
 */
#include <linux/hash.h>
#include <linux/init.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <asm/unistd.h>
#include <ssi.h>
#include <sysdep/ptrace.h>
#include "ssi_internal.h"

#define PAGE_GATES	((PAGE_SIZE - SSI_GATE_COMMON) / SSI_GATE_SIZE)
#define GATE_PAGES	4
#define GATES		(GATE_PAGES * PAGE_GATES)
#define USES		32		/* traps, close together, after which a gate is worth while */
#define LINE		64		/* bytes that a store changes at once, if it is in there */
#define BEFORE		16		/* bytes that are looked at on either side of a call's end; all in one page */
#define AFTER		32

struct gate {
	unsigned long ip;		/* behind the system call that it stands for */
	u8 instruction[SSI_GATE_ROOM];	/* before that */
};

/* The first gate_count are there for good, and read without the lock, under which others are added. */
static struct gate gates[GATES];
static unsigned int gate_count;
static DEFINE_RAW_SPINLOCK(gates_lock);
static struct page *pages[GATE_PAGES + 1];
static const struct vm_special_mapping mapping = { .name = "[gates]", .pages = pages };

static int __init ssi_gates_init(void)
{
	unsigned int i;

	for (i = 0; ssi_active && ssi_may_gate() && i < GATE_PAGES; i++) {
		pages[i] = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!pages[i])
			panic("ssi: no memory for gates");
		ssi_prepare_gates(page_address(pages[i]), PAGE_SIZE);
	}
	return 0;
}
subsys_initcall(ssi_gates_init);

/* Near the libraries, as they are mapped next. */
int ssi_setup_gates(struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	unsigned long at;

	if (!ssi_active || !pages[0])
		return 0;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	at = get_unmapped_area(NULL, 0, GATE_PAGES * PAGE_SIZE, 0, 0);
	if (!IS_ERR_VALUE(at)) {
		vma = _install_special_mapping(mm, at, GATE_PAGES * PAGE_SIZE,
					       VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYEXEC, &mapping);
		if (!IS_ERR(vma))
			mm->context.ssi->gates = at;
	}
	mmap_write_unlock(mm);
	return 0;		/* who has no gates does without */
}

/* The number of the gate that such an address is in; GATES: of none. */
static unsigned long gate_of(const struct ssi_mm *sm, unsigned long address)
{
	unsigned long at = address - sm->gates, n = at / PAGE_SIZE * PAGE_GATES + offset_in_page(at) / SSI_GATE_SIZE;

	if (!sm->gates || at >= GATE_PAGES * PAGE_SIZE || offset_in_page(at) >= PAGE_SIZE - SSI_GATE_COMMON)
		return GATES;
	return n < smp_load_acquire(&gate_count) ? n : GATES;
}

bool ssi_gate_pass(const struct ssi_mm *sm, struct uml_pt_regs *regs)
{
	unsigned long n = gate_of(sm, regs->gp[HOST_IP] - SSI_GATE_RETURN);

	if (n == GATES)
		return false;
	regs->gp[HOST_IP] = regs->gp[HOST_CX] = gates[n].ip;
	regs->gp[HOST_R11] = regs->gp[HOST_EFLAGS];
	return true;
}

void ssi_gate_leave(const struct ssi_mm *sm, struct uml_pt_regs *regs)
{
	unsigned long ip = regs->gp[HOST_IP], at = ip - sm->gates, n;

	if (!sm->gates || at >= GATE_PAGES * PAGE_SIZE)
		return;
	if (offset_in_page(at) >= PAGE_SIZE - SSI_GATE_COMMON)
		n = gate_of(sm, regs->gp[HOST_CX] - SSI_GATE_RETURN);
	else if (offset_in_page(at) % SSI_GATE_SIZE < SSI_GATE_ROOM)
		return;		/* the instruction that it begins with can go on anywhere */
	else
		n = gate_of(sm, ip);
	if (n < GATES)
		regs->gp[HOST_IP] = gates[n].ip - 2;	/* the system call that is still there */
}

/* --- making gates --- */

/* The same for all mms that have it there.  -ENOSPC: there are no more. */
static int find_gate(unsigned long ip, const u8 *instruction)
{
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&gates_lock, flags);
	for (i = 0; i < gate_count; i++)
		if (gates[i].ip == ip && !memcmp(gates[i].instruction, instruction, SSI_GATE_ROOM))
			break;
	if (i == gate_count && i < GATES) {
		gates[i].ip = ip;
		memcpy(gates[i].instruction, instruction, SSI_GATE_ROOM);
		ssi_write_gate(page_address(pages[i / PAGE_GATES]), PAGE_SIZE, i % PAGE_GATES, instruction, ip);
		smp_store_release(&gate_count, i + 1);
	}
	raw_spin_unlock_irqrestore(&gates_lock, flags);
	return i < GATES ? i : -ENOSPC;
}

static unsigned long gate_address(const struct ssi_mm *sm, unsigned int n)
{
	return sm->gates + n / PAGE_GATES * PAGE_SIZE + n % PAGE_GATES * SSI_GATE_SIZE;
}

/* The code around a call, which ends at ip, as it was when it was looked at: seen[BEFORE]. */
struct site {
	const struct ssi_mm *sm;
	unsigned long ip, nr;
	bool alone;			/* nobody else executes it meanwhile */
	u8 seen[BEFORE + AFTER];
};

/* Can so many bytes from there (from ip) be changed at once?  Within a line no CPU sees half of that, others want a quadword. */
static bool in_one(const struct site *s, int from, unsigned int count)
{
	unsigned long at = s->ip + from, unit = s->alone ? LINE : sizeof(u64);

	return at % LINE <= LINE - sizeof(u64) && at % unit + count <= unit;
}

/* false: somebody else has changed it. */
static bool replace(const struct site *s, u8 *page, int from, const u8 *bytes, unsigned int count)
{
	u64 old, new;

	memcpy(&old, s->seen + BEFORE + from, sizeof(old));
	new = old;
	memcpy(&new, bytes, count);
	return try_cmpxchg64((u64 *)(page + offset_in_page(s->ip) + from), &old, new);
}

static bool is_near(const struct site *s)
{
	long distance = s->sm->gates - s->ip;

	return distance > -(long)SZ_1G && distance < (long)SZ_1G;
}

/* At from, to a gate for that instruction before the call. */
static bool jump_to_gate(const struct site *s, u8 *page, int from, const u8 *instruction)
{
	int n = find_gate(s->ip, instruction);
	u8 bytes[SSI_GATE_ROOM] = { 0xe9 };
	s32 distance;

	if (n < 0)
		return false;
	distance = gate_address(s->sm, n) - (s->ip + from + SSI_GATE_ROOM);
	memcpy(bytes + 1, &distance, sizeof(distance));
	return replace(s, page, from, bytes, sizeof(bytes));
}

/*
 * Could that be the rest of an instruction, with r8 for an operand?  With rax it could not: that is the number of the call,
 * and no address.
 */
static bool is_rest(const u8 *code)
{
	return (code[-1] & 0xf0) == 0x40 || (code[-2] & 0xf1) == 0x41 || ((code[-3] & 0xf1) == 0x41 && code[-2] == 0x0f);
}

#define LONG_SITE	(-2 - SSI_GATE_ROOM)
#define SHORT_SITE	(-2 - 2)
#define SHORT_PADDING	(SHORT_SITE + 13)

static bool is_long_site(const struct site *s)
{
	static const u8 sixth_argument[] = { 0x4c, 0x8b, 0x4c, 0x24, 0x08 };
	const u8 *code = s->seen + BEFORE + LONG_SITE;
	u32 nr = s->nr;

	if (code[SSI_GATE_ROOM] != 0x0f || code[SSI_GATE_ROOM + 1] != 0x05 || !in_one(s, LONG_SITE, SSI_GATE_ROOM))
		return false;
	return !memcmp(code, sixth_argument, sizeof(sixth_argument)) ||
	       (code[0] == 0xb8 && !memcmp(code + 1, &nr, sizeof(nr)) && !is_rest(code));
}

/* What read() does: two bytes before the call, and after what follows it nothing that is ever executed. */
static bool is_short_site(const struct site *s)
{
	static const u8 padding[] = { 0x66, 0x2e, 0x0f, 0x1f, 0x84 }, call[] = { 0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d };
	const u8 *code = s->seen + BEFORE + SHORT_SITE;

	return !s->nr && !memcmp(code, call, sizeof(call)) && (code[-1] & 0xf0) != 0x40 && code[10] == 0x77 && code[12] == 0xc3 &&
	       !memcmp(s->seen + BEFORE + SHORT_PADDING, padding, sizeof(padding)) && in_one(s, SHORT_SITE, 2) &&
	       in_one(s, SHORT_PADDING, SSI_GATE_ROOM);
}

static void change(const struct site *s, u8 *page)
{
	static const u8 clear[SSI_GATE_ROOM] = { 0x31, 0xc0, 0x0f, 0x1f, 0x00 };	/* xor %eax, %eax; nop */
	static const u8 hop[] = { 0xeb, SHORT_PADDING - SHORT_SITE - 2 };

	if (is_long_site(s))
		jump_to_gate(s, page, LONG_SITE, s->seen + BEFORE + LONG_SITE);
	else if (is_short_site(s) && jump_to_gate(s, page, SHORT_PADDING, clear))
		replace(s, page, SHORT_SITE, hop, sizeof(hop));
}

static bool may_change(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma = vma_lookup(mm, start);

	return vma && end <= vma->vm_end && vma->vm_file && !(vma->vm_flags & (VM_WRITE | VM_MAYSHARE)) &&
	       vma->vm_flags & VM_EXEC;
}

/* Its page, to be changed: then it is the mm's own.  mmap_lock held.  NULL: it cannot be had. */
static struct page *page_of(struct mm_struct *mm, const struct site *s, unsigned int flags)
{
	struct page *page;

	return get_user_pages_remote(mm, s->ip, 1, FOLL_FORCE | flags, &page, NULL) == 1 ? page : NULL;
}

static void look(struct site *s, struct page *page)
{
	memcpy(s->seen, page_address(page) + offset_in_page(s->ip) - BEFORE, sizeof(s->seen));
}

static void make_gate(struct mm_struct *mm, const struct ssi_mm *sm, unsigned long ip, unsigned long nr)
{
	struct site s = { .sm = sm, .ip = ip, .nr = nr, .alone = atomic_read(&mm->mm_users) == 1 };
	struct page *page;

	if (offset_in_page(ip) < BEFORE || offset_in_page(ip) > PAGE_SIZE - AFTER || !is_near(&s) ||
	    mmap_read_lock_killable(mm))
		return;
	page = may_change(mm, ip - BEFORE, ip + AFTER) ? page_of(mm, &s, 0) : NULL;
	if (page) {
		look(&s, page);
		put_page(page);
		page = is_long_site(&s) || is_short_site(&s) ? page_of(mm, &s, FOLL_WRITE) : NULL;
	}
	if (page) {
		look(&s, page);
		change(&s, page_address(page));
		set_page_dirty_lock(page);
		put_page(page);
	}
	mmap_read_unlock(mm);
}

/* Stubs whose last call comes so cannot be used again (node/stubs.c), or it is not worth while. */
static bool is_last(unsigned long nr)
{
	return nr == __NR_exit || nr == __NR_exit_group || nr == __NR_execve || nr == __NR_execveat || nr == __NR_rt_sigreturn;
}

void ssi_gate_consider(struct ssi_trap_site *sites, const struct ssi_mm *sm, const struct uml_pt_regs *regs)
{
	unsigned long ip = regs->gp[HOST_IP], nr = regs->gp[HOST_ORIG_AX];
	/* a child of fork() has the same addresses */
	struct ssi_trap_site *s = &sites[hash_64(ip ^ sm->id << 48, ilog2(SSI_TRAP_SITES))];

	if (!sm->gates || current->ptrace || regs->gp[GS_BASE / sizeof(long)])
		return;
	if (s->mm != sm->id || s->ip != ip)
		*s = (struct ssi_trap_site){ .mm = sm->id, .ip = ip };
	if (++s->uses == USES && !is_last(nr))
		make_gate(current->mm, sm, ip, nr);
}
