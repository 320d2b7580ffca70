// SPDX-License-Identifier: GPL-2.0
/*
 * The program of a stub process: an address space of the machine, run natively on one node.
 *
 * It is linked without a C library at STUB_TEXT and reads only what pangead left in its descriptors
 * (stub.h).  At start it makes its userfaultfd and sends it to pangead, maps the control area, drops every
 * other mapping, starts one thread for each CPU, and locks itself in with seccomp.  From then on:
 *
 *   - A CPU thread runs user code.  Whatever ends that (a system call, which seccomp turns into SIGSYS; a
 *     fault; SIGALRM from pangead) enters handler(), which parks the thread until pangead resumes it with the
 *     registers that pangead put into the signal frame.
 *     What the stub can tell itself (stub.h) it does, and goes on.
 *   - The service thread maps and unmaps.
 *
 * A mapping is made PROT_NONE, registered with the userfaultfd, and only then given its rights, because
 * sibling threads run meanwhile: an unregistered mapping would show them stale frames.  Where no other thread of the stub has
 * run user code it has its rights from the start.
 *
 * User code shares the address space with all this, can jump anywhere and write whatever is writable, at any
 * moment.  What it cannot do:
 *
 *   - Make a system call.  Each thread has a filter of its own.  A system call from elsewhere than this text
 *     traps; in this text each permitted call has one address, and there its arguments are checked as far as they
 *     matter.  Everything else kills the process.  A CPU thread may wait for its own report.stub_waits, wake who
 *     waits for its own report.parked, set its FS and GS base, and return from a signal.  All of that gives
 *     user code nothing: the words and the registers are its own.
 *   - Influence the service thread, which reads no memory but its orders, which are mapped read-only: no stack,
 *     so there is no return address to forge, and no buffer to change between check and use.  Its answer to the
 *     kernel can be forged, by a thread that has forged its report (below) and runs on while the kernel maps.  What the
 *     kernel believes to be mapped need not be true then, for this process and for the next child of its parent.
 *   - Be resumed by anyone but pangead: the thread waits for its orders to change.
 *
 * A thread that has SIGALRM blocked by a forged frame does not park when pangead asks; pangead ends such a
 * process (executor.c).
 *
 * Not prevented: a report can be forged, so that a thread seems to have parked and runs on.  It makes no system
 * call, but it can use the mappings of its stub until they are taken away, and where the kernel has seen nothing
 * run, it takes them away late (ssi/overlay/arch/um/ssi/mm.c).  On other nodes a frame that gets another use is
 * first taken from all nodes; on the kernel host it is not, so there such a process may read and write frames that
 * it has given back (README, limits).
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/ioctl.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>

#include "../migrate/xstate.h"
#include "clock_page.h"
#include "stub.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall" : "=a"(ret) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return ret;
}

#define sys(nr, ...) sys_pick(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define sys_pick(nr, a, b, c, d, e, f, ...) \
	sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* The compiler may ask for these whatever the options. */
void *memset(void *to, int c, size_t n)
{
	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

static _Noreturn void die(int status)
{
	for (;;)
		sys(__NR_exit_group, status);
}

#define ORDERS(slot)	(STUB_ORDERS + (slot) * sizeof(struct stub_orders))
#define REPORT(slot)	(STUB_REPORTS + (slot) * STUB_REPORT_SIZE)

/* The slot of the running CPU thread: its stack lies in its report.  If not, its filter ends it. */
static inline unsigned long own_slot(void)
{
	return ((uintptr_t)__builtin_frame_address(0) - STUB_REPORTS) / STUB_REPORT_SIZE;
}

/*
 * The system calls of CPU threads once their filters are set, each with one address.  The label is where the
 * kernel sees the instruction pointer: behind the instruction.
 */
#define STRING(x) #x
#define S(x) STRING(x)
asm(".pushsection .text\n"
    "call_base:	mov %edi, %eax; mov %esi, %edi; mov %rdx, %rsi\n"
    "	syscall\nafter_base:	ret\n"
    "restorer:	mov $15, %eax\n"	/* the signal frame must be the only thing on the stack */
    "	syscall\nafter_return:	hlt\n"
    ".popsection");
long call_base(int nr, int code, uint64_t base);
extern char restorer[], after_wait[], after_wake[], after_base[], after_return[], after_service[];

/*
 * Report, and wait until pangead wants the thread to go on.  From the report on, which others may take for the thread's
 * last act, it uses its registers only, until its orders say otherwise: whatever user code writes to its stack, and
 * whatever wakes it.  Registers could have come with it, so the orders are found by the stack pointer.
 *
 * r8: orders; r9d: orders.go before; rdi: the report, then its stub_waits.  It does not wait on the orders themselves: the
 * host is slow to find a futex that may not be written.
 */
asm(".pushsection .text\n"
    "park:\n"
    "	mov %rdi, %r8; mov %rsi, %rdi; mov (%r8), %r9d\n"
    "	mov %r9d, %eax; xchg %eax, (%rdi)\n"
    "	cmpl $0, 4(%r8); je 1f\n"
    "	mov $" S(__NR_futex) ", %eax; mov $" S(FUTEX_WAKE) ", %esi; mov $1, %edx\n"
    "	syscall\nafter_wake:\n"
    "1:	mov 2600(%r8), %ecx\n"
    "2:	test %ecx, %ecx; jz 3f\n"
    "	cmpl $0, 2600(%r8); je 3f\n"
    "	cmp %r9d, (%r8); jne 6f\n"
    "	pause; dec %ecx; jmp 2b\n"
    "3:	add $4, %rdi; mov $" S(FUTEX_WAIT) ", %esi; mov $1, %edx; xor %r10d, %r10d\n"
    "4:	mov $1, %eax; xchg %eax, (%rdi)\n"
    "	mov %rsp, %rax; shr $15, %rax; shl $12, %rax\n"
    "	movabs $" S(STUB_ORDERS) " - (" S(STUB_REPORTS) " >> 3), %r8; add %rax, %r8\n"
    "	cmp %r9d, (%r8); jne 5f\n"
    "	mov $" S(__NR_futex) ", %eax\n"
    "	syscall\nafter_wait:	jmp 4b\n"
    "5:	movl $0, (%rdi)\n"
    "6:	ret\n"
    ".popsection");
void park(const struct stub_orders *o, struct stub_report *r);

/* Between user memory and our own; not 0: some of it is not there. */
asm(".pushsection .text\n"
    "copy:	mov %rdx, %rcx\n"
    "copy_bytes: rep movsb\n"
    "	xor %eax, %eax; ret\n"
    "copy_failed: mov $1, %eax; ret\n"
    ".popsection");
int copy(void *to, const void *from, size_t bytes);
extern char copy_bytes[], copy_failed[];

#define BIT(signal) (1ull << ((signal) - 1))

static bool is_user_action(uint64_t address)
{
	return address <= STUB_USER_END - sizeof(struct stub_action);
}

/* How to set an action without the kernel.  To ignore a signal discards what is pending of it. */
enum set_how { SET_BY_KERNEL, SET_NOTHING, SET_POST, SET_REFUSED };

static enum set_how how_to_set(const struct stub_report *r, uint64_t bit, const struct stub_action *now,
			       const struct stub_action *to)
{
	uint64_t differs = now->flags ^ to->flags;

	if (bit & (BIT(SIGKILL) | BIT(SIGSTOP)))
		return SET_REFUSED;
	if (to->handler != now->handler || to->mask != now->mask || to->handler == (uintptr_t)SIG_IGN)
		return SET_BY_KERNEL;
	if (!differs && now->restorer == to->restorer)
		return SET_NOTHING;
	if (differs != STUB_SA_RESTORER || now->flags & STUB_SA_RESTORER || to->handler != (uintptr_t)SIG_DFL ||
	    (r->posted && r->posted_restorer != to->restorer))
		return SET_BY_KERNEL;
	return SET_POST;
}

/*
 * rt_sigaction(), whose arguments are in these registers, and its result to them; false: the kernel is to do it.  It finds
 * what it is to read then, even if what was here has been written to.
 */
static bool answers(const struct stub_orders *o, struct stub_report *r, greg_t *registers)
{
	uint64_t signal = registers[REG_RDI], set = registers[REG_RSI], get = registers[REG_RDX];
	struct stub_action now, to;
	enum set_how how = SET_NOTHING;

	if (!o->actions_known || signal - 1 >= 64 || registers[REG_R10] != 8 || !is_user_action(set) ||
	    !is_user_action(get) || (set && get && set - get + sizeof(to) < 2 * sizeof(to)))
		return false;
	now = o->actions[signal - 1];
	if (r->posted & BIT(signal)) {
		now.flags |= STUB_SA_RESTORER;
		now.restorer = r->posted_restorer;
	}
	if (set)
		how = copy(&to, (void *)set, sizeof(to)) ? SET_BY_KERNEL : how_to_set(r, BIT(signal), &now, &to);
	if (how == SET_BY_KERNEL || (how != SET_REFUSED && get && copy((void *)get, &now, sizeof(now))))
		return false;
	if (how == SET_POST) {
		r->posted_restorer = to.restorer;
		r->posted |= BIT(signal);
	}
	registers[REG_RAX] = how == SET_REFUSED ? -EINVAL : 0;
	return true;
}

static void set_bases(const struct stub_orders *o)
{
	if (o->sync & STUB_SYNC_FS)
		call_base(__NR_arch_prctl, ARCH_SET_FS, o->fs_base);
	if (o->sync & STUB_SYNC_GS)
		call_base(__NR_arch_prctl, ARCH_SET_GS, o->gs_base);
}

/*
 * Gates (ssi/overlay/arch/um/ssi/gate.c): a system call that comes by a jump.  rax: its number; rcx: what to report as the
 * instruction pointer, behind a system call that does as well; r11 is free.  The GS base is the report.
 *
 * Nothing is blocked here.  A SIGALRM leaves a note, which is looked at before user code goes on; in the sequence from
 * there to user code the handler leads to gate_alarm instead, where what was about to be loaded is still in the report.
 */
#define GREG(i) "(" S(STUB_GATE_FRAME) " + 40 + 8 * (" S(i) "))"	/* in the order of enum REG_... */
#define FEATURES "(" S(STUB_GATE_FP) " + " S(XSTATE_SW_OFFSET) " + 8)"	/* struct _fpx_sw_bytes.xfeatures */
asm(".pushsection .gate, \"ax\"\n"
    ".macro each_register what\n"
    "	\\what %r8, 0; \\what %r9, 1; \\what %r10, 2; \\what %r12, 4; \\what %r13, 5; \\what %r14, 6\n"
    "	\\what %r15, 7; \\what %rdi, 8; \\what %rsi, 9; \\what %rbp, 10\n"
    ".endm\n"
    ".macro keep register, i\n	mov \\register, %gs:" GREG(\\i) "\n.endm\n"
    ".macro load register, i\n	mov " GREG(\\i) "(%rbx), \\register\n.endm\n"
    "gate:\n"
    "	cmpl $0, %gs:28; jne 1f\n"
    "	lea -2(%rcx), %r11; jmp *%r11\n"
    "1:	each_register keep\n"
    "	keep %rbx, 11; keep %rdx, 12; keep %rax, 13; keep %rcx, 14; keep %rsp, 15; keep %rcx, 16\n"
    "	rdgsbase %rbx\n"
    "	lea " S(STUB_REPORT_SIZE) "(%rbx), %rsp\n"
    "	pushfq; popq " GREG(17) "(%rbx); cld\n"
    "	mov " FEATURES "(%rbx), %eax; mov 4 + " FEATURES "(%rbx), %edx; xsave64 " S(STUB_GATE_FP) "(%rbx)\n"
    "	xor %esi, %esi\n"
    "gate_call:\n"
    "	mov %rbx, %rdi; call gate_park\n"
    "gate_leave:\n"
    "	cmpl $0, 40(%rbx); jne gate_alarm\n"
    "	test %eax, %eax; jne gate_return\n"
    "	mov " FEATURES "(%rbx), %eax; mov 4 + " FEATURES "(%rbx), %edx; xrstor64 " S(STUB_GATE_FP) "(%rbx)\n"
    "	pushq " GREG(17) "(%rbx); popfq\n"
    "	each_register load\n"
    "	load %r11, 3; load %rdx, 12; load %rax, 13; load %rcx, 14; load %rsp, 15; load %rbx, 11\n"
    "	jmp *%gs:" GREG(16) "\n"
    "gate_return:\n"		/* all that rt_sigreturn can */
    "	lea " S(STUB_GATE_FRAME) "(%rbx), %rsp; mov $15, %eax\n"
    "	syscall\ngate_returned: hlt\n"
    "gate_alarm:\n"
    "	mov $1, %esi; lea " S(STUB_REPORT_SIZE) "(%rbx), %rsp; jmp gate_call\n"
    ".popsection");
extern char gate_leave[], gate_returned[], gate_alarm[];

/* What xsave does not write: as in the frame of a signal. */
static void prepare_gate(struct stub_report *r, const ucontext_t *context)
{
	const uint8_t *fp = (const uint8_t *)context->uc_mcontext.fpregs;
	const struct _fpx_sw_bytes *sw = (const void *)(fp + XSTATE_SW_OFFSET);
	ucontext_t *frame = (void *)((uint8_t *)r + STUB_GATE_FRAME);

	if (!fp || sw->magic1 != FP_XSTATE_MAGIC1 || sw->extended_size > STUB_GATE_STACK - STUB_GATE_FP)
		return;
	memcpy(frame, context, offsetof(ucontext_t, uc_sigmask) + 8);
	frame->uc_mcontext.fpregs = (void *)((uint8_t *)r + STUB_GATE_FP);
	memcpy(frame->uc_mcontext.fpregs, fp, sw->extended_size);
	r->gate_ready = 1;
}

/* 0: to go on as gate_leave does; 1: it takes more. */
__attribute__((used)) static int gate_park(struct stub_report *r, int alarm)
{
	const struct stub_orders *o = (void *)ORDERS(own_slot());
	ucontext_t *frame = (void *)((uint8_t *)r + STUB_GATE_FRAME);
	greg_t *registers = frame->uc_mcontext.gregs, ends;

	if (alarm)
		__atomic_store_n(&r->alarm, 0, __ATOMIC_SEQ_CST);
	else if (registers[REG_RAX] == __NR_rt_sigaction && !copy(&ends, (void *)(registers[REG_RIP] + STUB_GATE_ENDS), 8) &&
		 answers(o, r, registers)) {
		registers[REG_RIP] = registers[REG_RCX] = ends;
		registers[REG_R11] = registers[REG_EFL];
		return o->gs_base != (uintptr_t)r;
	}
	r->signal = alarm ? SIGALRM : SIGSYS;
	r->code = alarm ? SI_TKILL : 1;		/* SYS_SECCOMP */
	r->syscall = registers[REG_RAX];
	r->context_offset = STUB_GATE_FRAME;
	park(o, r);
	set_bases(o);
	return o->gs_base != (uintptr_t)r;
}

/* SIGALRM in this text, not blocked: user code has come through a gate. */
static void interrupt_gate(struct stub_report *r, greg_t *registers)
{
	uintptr_t ip = registers[REG_RIP];

	r->alarm = 1;
	if (ip < (uintptr_t)gate_leave || ip >= (uintptr_t)gate_returned)
		return;
	registers[REG_RIP] = (uintptr_t)gate_alarm;
	registers[REG_RBX] = (uintptr_t)r;
}

/* Every signal of a CPU thread, with all others blocked until it returns, but those of copy(). */
static void handler(int sig, siginfo_t *info, void *context)
{
	const struct stub_orders *o = (void *)ORDERS(own_slot());
	struct stub_report *r = (void *)REPORT(own_slot());
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (sig == SIGALRM && registers[REG_RIP] - STUB_TEXT < STUB_TEXT_SIZE && registers[REG_RIP] >= STUB_TEXT) {
		interrupt_gate(r, registers);
		return;
	}
	if ((sig == SIGSEGV || sig == SIGBUS) && registers[REG_RIP] == (greg_t)(uintptr_t)copy_bytes) {
		registers[REG_RIP] = (greg_t)(uintptr_t)copy_failed;
		return;
	}
	/* who was interrupted on the way here, in a gate that could not be passed, is waited for */
	if (sig == SIGSYS && info->si_syscall == __NR_rt_sigaction && !r->alarm && answers(o, r, registers))
		return;
	r->signal = sig;
	r->code = info->si_code;
	r->syscall = info->si_syscall;
	r->address = (uintptr_t)info->si_addr;
	r->context_offset = (uintptr_t)context - (uintptr_t)r;
	park(o, r);
	set_bases(o);
	if (o->gs_base == (uintptr_t)r && !r->gate_ready)
		prepare_gate(r, context);
}

/*
 * The service thread.  rbx: its orders; r12: the operation; r13: operations left; r14: orders.go as last seen; r15: the
 * number of UFFDIO_REGISTER; rbp: where a system call returns to; rsi, at the end: the answer.  REGISTER wants to say
 * which ioctls the range permits, in orders that it cannot write: EFAULT means that the rest is done (pangead tries it
 * when it starts, mm.c).
 */
asm(".pushsection .text\n"
    ".macro call_service\n"		/* one address for all of them */
    "	lea 77f(%rip), %rbp; jmp service_call\n"
    "77:\n"
    ".endm\n"
    "service_call:\n"
    "	syscall\nafter_service: jmp *%rbp\n"
    "service:\n"
    "	movabs $" S(STUB_ORDERS) ", %rbx; xor %r14d, %r14d\n"
    "wait_orders:\n"
    "	mov (%rbx), %eax; cmp %r14d, %eax; jne new_orders\n"
    "	mov $" S(__NR_futex) ", %eax; mov %rbx, %rdi; mov $" S(FUTEX_WAIT) ", %esi\n"
    "	mov %r14d, %edx; xor %r10d, %r10d; call_service; jmp wait_orders\n"
    "new_orders:\n"
    "	mov %eax, %r14d\n"
    "	lea 32(%rbx), %r12; mov 12(%rbx), %r13d\n"
    "next_op:\n"
    "	mov $" S(STUB_RESULT_DONE) ", %esi\n"
    "	sub $1, %r13d; js answer\n"
    "	mov (%r12), %rdi; mov 8(%r12), %rsi\n"
    "	cmpl $" S(STUB_OP_MAP) ", 36(%r12); je op_map\n"
    "	cmpl $" S(STUB_OP_GIVE) ", 36(%r12); je op_give\n"
    "	cmpl $" S(STUB_OP_SHOW) ", 36(%r12); je op_show\n"
    "	cmpl $" S(STUB_OP_REGISTER) ", 36(%r12); je op_register\n"
    "	cmpl $" S(STUB_OP_PROTECT) ", 36(%r12); je op_protect\n"
    "	mov $" S(__NR_munmap) ", %eax; call_service; jmp op_ended\n"
    "op_give:\n"
    "	mov 32(%r12), %edx; mov $" S(MAP_SHARED | MAP_FIXED | MAP_POPULATE) ", %r10d; jmp do_map\n"
    "op_show:\n"
    "	mov 32(%r12), %edx; mov $" S(MAP_SHARED | MAP_FIXED) ", %r10d; jmp do_map\n"
    "op_map:\n"
    "	mov $" S(PROT_NONE) ", %edx; mov $" S(MAP_SHARED | MAP_FIXED) ", %r10d\n"
    "do_map:\n"
    "	mov $" S(__NR_mmap) ", %eax; mov $" S(STUB_FD_FRAMES) ", %r8d; mov 24(%r12), %r9; call_service\n"
    "	cmp (%r12), %rax; je op_done; jmp op_failed\n"
    "op_register:\n"
    "	mov $" S(__NR_ioctl) ", %eax; mov $" S(STUB_FD_UFFD) ", %edi; mov %r15d, %esi\n"
    "	mov %r12, %rdx; call_service\n"
    "	cmp $-" S(EFAULT) ", %rax; je op_done; jmp op_failed\n"
    "op_protect:\n"
    "	mov $" S(__NR_mprotect) ", %eax; mov 32(%r12), %edx; call_service\n"
    "op_ended:\n"
    "	test %rax, %rax; jnz op_failed\n"
    "op_done:\n"
    "	add $40, %r12; jmp next_op\n"
    "op_failed:\n"
    "	mov $" S(STUB_RESULT_FULL) ", %esi\n"
    "	cmp $-" S(ENOMEM) ", %rax; je answer\n"
    "	mov $" S(STUB_RESULT_FAILED) ", %esi\n"
    "answer:\n"
    "	cmpl $" S(STUB_OWNER_KERNEL) ", 2608(%rbx); je answer_kernel\n"
    "	lea results(%rip), %rax; add %rax, %rsi; mov $1, %edx\n"
    "	mov $" S(__NR_write) ", %eax; mov $" S(STUB_FD_SOCKET) ", %edi; call_service\n"
    "	jmp wait_orders\n"
    "answer_kernel:\n"		/* it looks again after having said that it waits: xchg orders that */
    "	movabs $" S(STUB_REPORTS) ", %rdi; mov %esi, 12(%rdi); mov %r14d, %eax; xchg %eax, (%rdi)\n"
    "	cmpl $0, 4(%rbx); je wait_orders\n"
    "	mov $" S(__NR_futex) ", %eax; mov $" S(FUTEX_WAKE) ", %esi; mov $1, %edx; call_service\n"
    "	jmp wait_orders\n"
    "results: .byte 0, 1, 2, 3\n"
    ".popsection");
/* --- filters --- */

#define FILTER_MAX 80		/* it stands on a small stack */

struct filter {
	struct sock_filter code[FILTER_MAX];
	unsigned short length, block;
};

static void emit(struct filter *f, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (f->length == FILTER_MAX)
		die(20);
	f->code[f->length++] = (struct sock_filter){ code, jt, jf, k };
}

#define FIELD(name)	offsetof(struct seccomp_data, name)

/* On unless the 32 bits at that offset have this value. */
static void unless_equal(struct filter *f, uint32_t field, uint32_t value, uint32_t verdict)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, field, 0, 0);
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
	emit(f, BPF_RET | BPF_K, verdict, 0, 0);
}

static void require(struct filter *f, uint32_t field, uint32_t value)
{
	unless_equal(f, field, value, SECCOMP_RET_KILL_PROCESS);
}

static void require_argument(struct filter *f, unsigned i, uint64_t value)
{
	require(f, FIELD(args) + 8 * i, value);
	require(f, FIELD(args) + 8 * i + 4, value >> 32);
}

static void require_one_of(struct filter *f, uint32_t field, const uint32_t *values, unsigned count)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, field, 0, 0);
	for (unsigned i = 0; i < count; i++)
		emit(f, BPF_JMP | BPF_JEQ | BPF_K, values[i], count - i, 0);
	emit(f, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
}

/* System calls of user code trap. */
static void begin_filter(struct filter *f)
{
	f->length = 0;
	require(f, FIELD(arch), AUDIT_ARCH_X86_64);
	unless_equal(f, FIELD(instruction_pointer) + 4, STUB_TEXT >> 32, SECCOMP_RET_TRAP);
	emit(f, BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer), 0, 0);
	emit(f, BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(STUB_TEXT + STUB_TEXT_SIZE), 0, 1);
	emit(f, BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0);
}

/* What is required between these two applies to the system call at that address. */
static void begin_call(struct filter *f, const char *after)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer), 0, 0);
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(uintptr_t)after, 0, 0);
	f->block = f->length;
}

static void end_call(struct filter *f)
{
	emit(f, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	f->code[f->block - 1].jf = f->length - f->block;
}

static void lock_in(struct filter *f)
{
	struct sock_fprog prog = { .filter = f->code };

	emit(f, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	prog.len = f->length;
	if (sys(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		die(21);
}

static void lock_in_cpu(unsigned long slot)
{
	static const uint32_t bases[] = { ARCH_SET_FS, ARCH_SET_GS };
	struct filter f;

	begin_filter(&f);
	begin_call(&f, after_return);
	require(&f, FIELD(nr), __NR_rt_sigreturn);
	end_call(&f);
	begin_call(&f, gate_returned);
	require(&f, FIELD(nr), __NR_rt_sigreturn);
	end_call(&f);
	begin_call(&f, after_wait);
	require(&f, FIELD(nr), __NR_futex);
	require_argument(&f, 0, REPORT(slot) + offsetof(struct stub_report, stub_waits));
	require_argument(&f, 1, FUTEX_WAIT);
	require_argument(&f, 3, 0);
	end_call(&f);
	begin_call(&f, after_wake);
	require(&f, FIELD(nr), __NR_futex);
	require_argument(&f, 0, REPORT(slot) + offsetof(struct stub_report, parked));
	require_argument(&f, 1, FUTEX_WAKE);
	end_call(&f);
	begin_call(&f, after_base);
	require(&f, FIELD(nr), __NR_arch_prctl);
	require_one_of(&f, FIELD(args), bases, sizeof(bases) / sizeof(bases[0]));
	end_call(&f);
	lock_in(&f);
}

static void lock_in_service(void)
{
	static const uint32_t calls[] = { __NR_futex, __NR_write, __NR_mmap, __NR_munmap, __NR_mprotect, __NR_ioctl };
	struct filter f;

	begin_filter(&f);
	begin_call(&f, after_service);
	require_one_of(&f, FIELD(nr), calls, sizeof(calls) / sizeof(calls[0]));
	end_call(&f);
	lock_in(&f);
}

/* --- start --- */

/* A CPU thread parks for the first time by a trap of its own. */
static _Noreturn void cpu_thread(void)
{
	struct stub_report *r = (void *)REPORT(own_slot());
	stack_t stack = {
		.ss_sp = r->stack,	/* the first one lies behind, where that of gates is later */
		.ss_size = STUB_GATE_FRAME - sizeof(*r),
	};

	r->tid = sys(__NR_gettid);
	if (sys(__NR_sigaltstack, &stack, 0))
		die(22);
	lock_in_cpu(own_slot());
	asm volatile("int3");
	die(23);
}

static void start_cpu_thread(unsigned i)
{
	uintptr_t stack = REPORT(i + 1);	/* its end */
	long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	long ret;

	asm volatile("syscall\n\t"
		     "test %%eax, %%eax\n\t"
		     "jnz 1f\n\t"
		     "xor %%ebp, %%ebp\n\t"
		     "call *%4\n\t"
		     "1:"
		     : "=a"(ret) : "0"(__NR_clone), "D"(flags), "S"(stack), "r"(cpu_thread), "d"(0)
		     : "rcx", "r11", "memory");
	if (ret < 0)
		die(24);
}

static void set_handlers(void)
{
	static const int signals[] = { SIGSEGV, SIGSYS, SIGALRM, SIGTRAP, SIGILL, SIGFPE, SIGBUS };
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} action = { handler, SA_ONSTACK | SA_NODEFER | SA_SIGINFO | STUB_SA_RESTORER, restorer, ~0ull };

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		action.mask = signals[i] == SIGSYS ? ~(BIT(SIGSEGV) | BIT(SIGBUS)) : ~0ull;
		if (sys(__NR_rt_sigaction, signals[i], &action, 0, 8))
			die(25);
	}
}

/* Only our own program and control area stay mapped. */
static void drop_other_mappings(unsigned slots)
{
	if (sys(__NR_munmap, 0, STUB_TEXT) || sys(__NR_munmap, REPORT(slots), 0x7ffffffff000ul - REPORT(slots)))
		die(26);
}

/* On slot 0's report, with nothing of the initial stack needed any more. */
static _Noreturn void become_service(unsigned slots)
{
	drop_other_mappings(slots);
	set_handlers();
	for (unsigned i = 1; i < slots; i++)
		start_cpu_thread(i);
	lock_in_service();
	asm volatile("mov %0, %%r15d; jmp service" : : "r"((uint32_t)UFFDIO_REGISTER));
	__builtin_unreachable();
}

static void send_userfaultfd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	int fd = sys(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || sys(__NR_ioctl, fd, UFFDIO_API, &api))
		die(12);
	if (fd != STUB_FD_UFFD && (sys(__NR_dup2, fd, STUB_FD_UFFD) < 0 || sys(__NR_close, fd)))
		die(13);
	control.align.cmsg_len = CMSG_LEN(sizeof(int));
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	*(int *)CMSG_DATA(&control.align) = STUB_FD_UFFD;
	if (sys(__NR_sendmsg, STUB_FD_SOCKET, &msg, 0) != 1)
		die(14);
}

static void map_area(uintptr_t where, size_t size, int prot, uint64_t offset)
{
	if (sys(__NR_mmap, where, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, STUB_FD_AREA, offset) != (long)where)
		die(15);
}

__attribute__((used)) static _Noreturn void start(void)
{
	struct stub_init init;
	uint64_t area;
	size_t size;

	sys(__NR_prctl, PR_SET_NAME, "pangea-user");
	if (sys(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL) || sys(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1))
		die(10);
	if (sys(__NR_read, STUB_FD_SOCKET, &init, sizeof(init)) != sizeof(init) ||
	    init.slots < 2 || init.slots > STUB_SLOTS_MAX || init.area >= STUB_AREAS_MAX)
		die(11);
	send_userfaultfd();
	area = STUB_AREAS + init.area * STUB_AREA_SIZE(init.slots);
	size = init.slots * sizeof(struct stub_orders);
	map_area(STUB_ORDERS, size, PROT_READ, area);
	map_area(CLOCK_PAGE, 4096, PROT_READ, STUB_CLOCK);
	map_area(STUB_REPORTS, init.slots * STUB_REPORT_SIZE, PROT_READ | PROT_WRITE, area + size);
	if (sys(__NR_close, STUB_FD_AREA))
		die(16);
	asm volatile("mov %0, %%rsp\n\txor %%ebp, %%ebp\n\tcall *%1"
		     : : "r"(REPORT(1)), "r"(become_service), "D"((unsigned long)init.slots));
	__builtin_unreachable();
}

asm(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall start\n\thlt");
