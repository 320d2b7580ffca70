// SPDX-License-Identifier: GPL-2.0
/*
 * The program of a stub process: an address space of the machine, run natively on one node.
 *
 * It is linked without a C library at STUB_TEXT and reads only what pangead left in its descriptors
 * (stub.h).  At start it maps the control area, makes its userfaultfd and sends it to pangead, drops every
 * other mapping, starts one thread for each CPU, and locks itself in with seccomp.  From then on:
 *
 *   - A CPU thread runs user code.  Whatever ends that (a system call, which seccomp turns into SIGSYS; a
 *     fault; SIGALRM from pangead) enters handler(), which parks the thread until pangead resumes it with the
 *     registers that pangead put into the signal frame.
 *   - The service thread maps and unmaps.  User code cannot: each thread has its own filter, and that of
 *     a CPU thread permits only what handler() needs, at this program's addresses.
 *
 * A mapping is made PROT_NONE, registered with the userfaultfd, and only then given its rights, because
 * sibling threads run meanwhile: an unregistered mapping would show them stale frames.
 *
 * Not handled here: user code can write to the control area, because it is in its address space.  It
 * can thereby have the service thread map any frame of the machine.  Programs inside one machine are
 * therefore not protected from one another against deliberate attack (README, limits).
 */
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
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>

#include "stub.h"

#define SA_RESTORER_FLAG 0x04000000
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

static struct stub_slot *slot_at(unsigned i)
{
	return (struct stub_slot *)(STUB_AREA + i * STUB_SLOT_SIZE);
}

/* The slot of the running thread: its stack lies in it. */
static inline struct stub_slot *own_slot(void)
{
	return (struct stub_slot *)((uintptr_t)__builtin_frame_address(0) & ~(STUB_SLOT_SIZE - 1));
}

/* Give the slot to pangead and wait until it comes back. */
static void hand_over(struct stub_slot *s)
{
	uint32_t turn;

	__atomic_store_n(&s->turn, STUB_TURN_DAEMON, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->daemon_waits, __ATOMIC_SEQ_CST))
		sys(__NR_futex, &s->turn, FUTEX_WAKE_BITSET, 1, 0, 0, STUB_WAKE_DAEMON);
	__atomic_store_n(&s->stub_waits, 1, __ATOMIC_SEQ_CST);
	while ((turn = __atomic_load_n(&s->turn, __ATOMIC_SEQ_CST)) != STUB_TURN_STUB)
		sys(__NR_futex, &s->turn, FUTEX_WAIT_BITSET, turn, 0, 0, STUB_WAKE_STUB);
	__atomic_store_n(&s->stub_waits, 0, __ATOMIC_RELAXED);
}

/* Every signal of a CPU thread, with all others blocked until it returns. */
static void handler(int sig, siginfo_t *info, void *context)
{
	struct stub_slot *s = own_slot();

	s->signal = sig;
	s->code = info->si_code;
	s->syscall = info->si_syscall;
	s->address = (uintptr_t)info->si_addr;
	s->context_offset = (uintptr_t)context - (uintptr_t)s;
	hand_over(s);
	if (s->sync & STUB_SYNC_FS)
		sys(__NR_arch_prctl, ARCH_SET_FS, s->fs_base);
	if (s->sync & STUB_SYNC_GS)
		sys(__NR_arch_prctl, ARCH_SET_GS, s->gs_base);
	s->sync = 0;
}

/* The signal frame must be the only thing on the stack. */
asm(".pushsection .text; restorer: mov $15, %eax; syscall; .popsection");
extern char restorer[];

static long map_registered(const struct stub_op *op)
{
	struct uffdio_register reg = {
		.range = { op->addr, op->length },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
	};
	long ret;

	ret = sys(__NR_mmap, op->addr, op->length, PROT_NONE, MAP_SHARED | MAP_FIXED, STUB_FD_FRAMES,
		  op->offset);
	if (ret != (long)op->addr)
		return ret;
	ret = sys(__NR_ioctl, STUB_FD_UFFD, UFFDIO_REGISTER, &reg);
	if (ret)
		return ret;
	return sys(__NR_mprotect, op->addr, op->length, op->prot);
}

static long carry_out(const struct stub_op *op)
{
	switch (op->kind) {
	case STUB_OP_MAP:
		return map_registered(op);
	case STUB_OP_PROTECT:
		return sys(__NR_mprotect, op->addr, op->length, op->prot);
	case STUB_OP_UNMAP:
		return sys(__NR_munmap, op->addr, op->length);
	}
	return -EINVAL;
}

static _Noreturn void serve(struct stub_slot *s)
{
	for (;;) {
		uint32_t i, count;

		hand_over(s);
		count = s->op_count;
		s->op_error = 0;
		for (i = 0; i < count && !s->op_error; i++)
			s->op_error = carry_out(&s->ops[i]);
		s->op_count = s->op_error ? i - 1 : i;
	}
}

#define BPF_LOAD(field)		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define BPF_IF_NOT(k, skip)	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, skip)
#define BPF_RETURN(k)		BPF_STMT(BPF_RET | BPF_K, k)
#define BPF_PERMIT(nr)		BPF_IF_NOT(nr, 1), BPF_RETURN(SECCOMP_RET_ALLOW)

/* System calls of user code trap; those from this program's text must be among the permitted ones. */
#define FILTER_HEAD								\
	BPF_LOAD(arch), BPF_IF_NOT(AUDIT_ARCH_X86_64, 8),			\
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4), \
	BPF_IF_NOT(STUB_TEXT >> 32, 5),						\
	BPF_LOAD(instruction_pointer),						\
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)STUB_TEXT, 0, 3),		\
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(STUB_TEXT + STUB_TEXT_SIZE), 2, 0), \
	BPF_LOAD(nr),								\
	BPF_STMT(BPF_JMP | BPF_JA, 2),						\
	BPF_RETURN(SECCOMP_RET_TRAP),						\
	BPF_RETURN(SECCOMP_RET_KILL_PROCESS)

static void lock_in(const struct sock_filter *filter, unsigned short length)
{
	struct sock_fprog prog = { .len = length, .filter = (struct sock_filter *)filter };

	if (sys(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		die(21);
}

static void lock_in_cpu(void)
{
	struct sock_filter filter[] = {
		FILTER_HEAD,
		BPF_PERMIT(__NR_futex),
		BPF_PERMIT(__NR_arch_prctl),
		BPF_PERMIT(__NR_rt_sigreturn),
		BPF_RETURN(SECCOMP_RET_KILL_PROCESS),
	};

	lock_in(filter, sizeof(filter) / sizeof(filter[0]));
}

static void lock_in_service(void)
{
	struct sock_filter filter[] = {
		FILTER_HEAD,
		BPF_PERMIT(__NR_futex),
		BPF_PERMIT(__NR_mmap),
		BPF_PERMIT(__NR_munmap),
		BPF_PERMIT(__NR_mprotect),
		BPF_PERMIT(__NR_ioctl),
		BPF_RETURN(SECCOMP_RET_KILL_PROCESS),
	};

	lock_in(filter, sizeof(filter) / sizeof(filter[0]));
}

/* A CPU thread parks for the first time by a trap of its own. */
static _Noreturn void cpu_thread(void)
{
	struct stub_slot *s = own_slot();
	stack_t stack = {
		.ss_sp = s->stack,
		/* this very stack: it is not needed any more once the first signal has come */
		.ss_size = STUB_SLOT_SIZE - sizeof(*s) - 512,
	};

	s->tid = sys(__NR_gettid);
	if (sys(__NR_sigaltstack, &stack, 0))
		die(22);
	lock_in_cpu();
	asm volatile("int3");
	die(23);
}

static void start_cpu_thread(unsigned i)
{
	/* the top 512 bytes stay outside of the signal stack that cpu_thread() installs */
	uintptr_t stack = (uintptr_t)slot_at(i) + STUB_SLOT_SIZE;
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
	} action = { handler, SA_ONSTACK | SA_NODEFER | SA_SIGINFO | SA_RESTORER_FLAG, restorer, ~0ull };

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sys(__NR_rt_sigaction, signals[i], &action, 0, 8))
			die(25);
}

/* Only our own program and control area stay mapped. */
static void drop_other_mappings(unsigned slots)
{
	uintptr_t area_end = STUB_AREA + slots * STUB_SLOT_SIZE;

	if (sys(__NR_munmap, 0, STUB_TEXT) || sys(__NR_munmap, area_end, 0x7ffffffff000ul - area_end))
		die(26);
}

/* On slot 0's stack, with nothing of the initial stack needed any more. */
static _Noreturn void become_service(unsigned slots)
{
	struct stub_slot *s = slot_at(0);

	drop_other_mappings(slots);
	s->tid = sys(__NR_gettid);
	set_handlers();
	for (unsigned i = 1; i < slots; i++)
		start_cpu_thread(i);
	lock_in_service();
	serve(s);
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

__attribute__((used)) static _Noreturn void start(void)
{
	struct stub_init init;
	size_t size;

	sys(__NR_prctl, PR_SET_NAME, "pangea-user");
	if (sys(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL) || sys(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1))
		die(10);
	if (sys(__NR_read, STUB_FD_SOCKET, &init, sizeof(init)) != sizeof(init) ||
	    init.slots < 2 || init.slots > STUB_SLOTS_MAX)
		die(11);
	send_userfaultfd();
	size = init.slots * STUB_SLOT_SIZE;
	if (sys(__NR_mmap, STUB_AREA, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, STUB_FD_AREA,
		0) != (long)STUB_AREA)
		die(15);
	if (sys(__NR_close, STUB_FD_SOCKET) || sys(__NR_close, STUB_FD_AREA))
		die(16);
	asm volatile("mov %0, %%rsp\n\txor %%ebp, %%ebp\n\tcall *%1"
		     : : "r"((uintptr_t)slot_at(1)), "r"(become_service), "D"((unsigned long)init.slots));
	__builtin_unreachable();
}

asm(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall start\n\thlt");
