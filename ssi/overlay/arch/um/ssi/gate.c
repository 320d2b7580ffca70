// SPDX-License-Identifier: GPL-2.0
/*
 * Gates: system calls without a trap, on the kernel host.
 *
 * A system call traps in the stub (seccomp), which takes the host as long as handing over to the kernel, often
 * longer.  Where a program makes calls over and over, in the C library's wrappers, the instructions are one of
 *
 *	mov $number, %eax		b8 nn nn nn nn		mov 8(%rsp), %r9	4c 8b 4c 24 08
 *	syscall				0f 05			syscall			0f 05
 *
 * and the first of them is replaced by a jump to a gate of its own, which does the same and then calls the stub's text
 * (node/stub.c): that leaves in the slot's report what the signal would have, and parks as ever.  The second stays as it
 * was, for who jumps there, for who is in that call meanwhile, and for calls that are made again.  In read() the first has
 * two bytes only: from there it is a hop to padding that is never executed, and the jump is there.
 *
 * Gates are pages of the kernel that every mm has mapped near its libraries, the same ones in all, so they go along
 * with fork() and to other nodes.  The address that is reported tells the gate, and gates[] where it stands.  If
 * the GS base, by which the stub's text finds the report, is not the slot's (on other nodes, when a debugger
 * single-steps, or the program has its own), the gate makes a system call by itself, which traps: all is the same but for
 * the time.
 *
 * Programs see the jump where they read their own code.  Only private mappings of files are changed that may be executed
 * and not written to, and not those of a process that is being traced.  PANGEA_GATES=off in the environment: no gates.
 *
 * The idea, and that it is worth the trouble, is gVisor's (systrap).
 */
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <asm/unistd.h>
#include <ssi.h>
#include <sysdep/ptrace.h>
#include "ssi_internal.h"

#define PAGE_GATES	((PAGE_SIZE - SSI_GATE_COMMON) / SSI_GATE_SIZE)
#define GATE_PAGES	4
#define GATES		(GATE_PAGES * PAGE_GATES)
#define USES		32		/* traps, close together, after which a gate is worth while */
#define LINE		64		/* bytes that a store changes at once, if it is in there; more than any site has */
#define SHORT_PADDING	13		/* from the start of a short site */

struct gate {
	unsigned long ip;		/* behind the system call that it stands for */
	u8 instruction[SSI_GATE_ROOM];	/* before that */
};

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

void ssi_gate_pass(const struct ssi_mm *sm, struct uml_pt_regs *regs)
{
	unsigned long at = regs->gp[HOST_IP] - sm->gates - SSI_GATE_RETURN;
	unsigned long n = at / PAGE_SIZE * PAGE_GATES + offset_in_page(at) / SSI_GATE_SIZE;

	if (at >= GATE_PAGES * PAGE_SIZE || n >= smp_load_acquire(&gate_count))
		return;
	regs->gp[HOST_IP] = regs->gp[HOST_CX] = gates[n].ip;
	regs->gp[HOST_R11] = regs->gp[HOST_EFLAGS];
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
		ssi_write_gate(page_address(pages[i / PAGE_GATES]), PAGE_SIZE, i % PAGE_GATES, instruction);
		smp_store_release(&gate_count, i + 1);
	}
	raw_spin_unlock_irqrestore(&gates_lock, flags);
	return i < GATES ? i : -ENOSPC;
}

static unsigned long gate_address(const struct ssi_mm *sm, unsigned int n)
{
	return sm->gates + n / PAGE_GATES * PAGE_SIZE + n % PAGE_GATES * SSI_GATE_SIZE;
}

/* All of it at once for who executes it meanwhile; false: it lies in two lines, or is not as it was any more. */
static bool replace(u8 *code, const u8 *bytes, unsigned int count)
{
	u64 old = READ_ONCE(*(u64 *)code), new = old;

	memcpy(&new, bytes, count);
	return (unsigned long)code % LINE <= LINE - sizeof(u64) && try_cmpxchg64((u64 *)code, &old, new);
}

/* At that address, to a gate for the instruction before the system call that ends at ip. */
static bool jump_to_gate(const struct ssi_mm *sm, u8 *code, unsigned long at, unsigned long ip, const u8 *instruction)
{
	u8 bytes[SSI_GATE_ROOM] = { 0xe9 };
	long distance;
	s32 near;
	int n = find_gate(ip, instruction);

	if (n < 0)
		return false;
	near = distance = gate_address(sm, n) - (at + SSI_GATE_ROOM);
	memcpy(bytes + 1, &near, sizeof(near));
	return near == distance && replace(code, bytes, sizeof(bytes));
}

static bool is_long_site(const u8 *code)
{
	static const u8 sixth_argument[] = { 0x4c, 0x8b, 0x4c, 0x24, 0x08 };

	return (code[0] == 0xb8 || !memcmp(code, sixth_argument, sizeof(sixth_argument))) &&
	       code[SSI_GATE_ROOM] == 0x0f && code[SSI_GATE_ROOM + 1] == 0x05;
}

/* What read() does: two bytes before the call, and after what follows it nothing that is ever executed. */
static bool is_short_site(const u8 *code)
{
	static const u8 padding[] = { 0x66, 0x2e, 0x0f, 0x1f, 0x84 }, call[] = { 0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d };

	return !memcmp(code, call, sizeof(call)) && code[10] == 0x77 && code[12] == 0xc3 &&
	       !memcmp(code + SHORT_PADDING, padding, sizeof(padding));
}

/* code: the page, in which the call ends at ip, LINE or more from either end. */
static void change(const struct ssi_mm *sm, u8 *page, unsigned long ip)
{
	static const u8 clear[SSI_GATE_ROOM] = { 0x31, 0xc0, 0x0f, 0x1f, 0x00 };	/* xor %eax, %eax; nop */
	static const u8 hop[] = { 0xeb, SHORT_PADDING - 2 };
	u8 *after = page + offset_in_page(ip), *site = after - 2 - SSI_GATE_ROOM;

	if (is_long_site(site)) {
		jump_to_gate(sm, site, ip - 2 - SSI_GATE_ROOM, ip, site);
		return;
	}
	site = after - 2 - sizeof(hop);
	if (is_short_site(site) &&
	    jump_to_gate(sm, site + SHORT_PADDING, ip - 2 - sizeof(hop) + SHORT_PADDING, ip, clear))
		replace(site, hop, sizeof(hop));
}

static bool may_change(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct vm_area_struct *vma = vma_lookup(mm, start);

	return vma && end <= vma->vm_end && vma->vm_file && !(vma->vm_flags & (VM_WRITE | VM_MAYSHARE)) &&
	       vma->vm_flags & VM_EXEC;
}

static void make_gate(struct mm_struct *mm, const struct ssi_mm *sm, unsigned long ip)
{
	struct page *page;

	if (offset_in_page(ip) < LINE || offset_in_page(ip) > PAGE_SIZE - LINE || mmap_read_lock_killable(mm))
		return;
	if (may_change(mm, ip - LINE, ip + LINE) &&
	    get_user_pages_remote(mm, ip, 1, FOLL_WRITE | FOLL_FORCE, &page, NULL) == 1) {
		change(sm, page_address(page), ip);
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
	struct ssi_trap_site *s = &sites[(ip / 4) % SSI_TRAP_SITES];

	if (!sm->gates || current->ptrace || regs->gp[GS_BASE / sizeof(long)] || ip - sm->gates < GATE_PAGES * PAGE_SIZE)
		return;
	if (s->mm != sm->id || s->ip != ip)
		*s = (struct ssi_trap_site){ .mm = sm->id, .ip = ip };
	if (++s->uses == USES && !is_last(nr))
		make_gate(current->mm, sm, ip);
}
