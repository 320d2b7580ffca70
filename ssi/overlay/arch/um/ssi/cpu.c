// SPDX-License-Identifier: GPL-2.0
/*
 * The user half of a CPU.
 *
 * While a task is in user mode, its registers are with the executor of the CPU's node, and the CPU's kernel
 * thread waits for the event that ends that.  A task that the scheduler has moved to another CPU simply goes on
 * there with its next RUN: its registers are in its thread_struct, its vector state goes with
 * the RUN because the other CPU has not seen it.  Its mappings and pages follow by faults, but for those that it uses
 * now, which the RUN gives at once.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/smp.h>
#include <asm/mmu_context.h>
#include <asm/unistd.h>
#include <kern_util.h>
#include <os.h>
#include <skas.h>
#include <ssi.h>
#include <ssi_fp.h>
#include <ssi_result.h>
#include <sysdep/ptrace.h>
#include "ssi_internal.h"
#include "xstate.h"

/* What a task brings along from one stay in user mode to the next. */
struct trail {
	struct ssi_fault fault;		/* that ended the last one */
	u64 mm;				/* where that was; 0: there was none */
	unsigned int node;
	struct ssi_hot hot;
	unsigned int newest;		/* of hot.data */
	struct ssi_pages also;
	unsigned long nr;		/* of the system call that ended it; none: -1 */
	bool asks_actions;		/* rt_sigaction() has ended the last stay: */
	bool tell_actions;		/* they are told in this one */
};

static struct ssi_cpu ssi_cpus[SSI_CPUS_MAX];
static u32 xstate_end[XSTATE_COMPONENTS];

static int __init ssi_cpu_init(void)
{
	xstate_layout(xstate_end);
	return 0;
}
early_initcall(ssi_cpu_init);

int ssi_in_user(void)
{
	return ssi_cpus[raw_smp_processor_id()].in_user;
}

/* Does the kernel need this task back before it traps by itself? */
static int control_wanted(void)
{
	return read_thread_flags() & _TIF_WORK_MASK || ssi_start_is_over();
}

static void interrupt_user(void *unused)
{
	unsigned int cpu = raw_smp_processor_id();

	ssi_node_interrupt(ssi_cpus[cpu].node, cpu, ssi_cpus[cpu].run);
}

struct ssi_cpu *ssi_idle_channel(void)
{
	struct ssi_cpu *c = &ssi_cpus[raw_smp_processor_id()];

	return c->busy ? NULL : c;
}

void ssi_channel_begin(struct ssi_cpu *c)
{
	WRITE_ONCE(c->busy, true);
	WRITE_ONCE(c->exchanges, c->exchanges + 1);
	smp_mb();	/* pairs with those in ssi_cpu_watch() */
}

void ssi_channel_end(struct ssi_cpu *c)
{
	smp_mb();
	WRITE_ONCE(c->busy, false);
}

static int channel_to(unsigned int cpu, unsigned int node)
{
	return node == ssi_cpu_node(cpu) ? ssi_boot.cpu_fd[cpu] : ssi_boot.start_fd[cpu];
}

static void __noreturn lost(unsigned int cpu, unsigned int node, const char *why)
{
	char what[32];

	snprintf(what, sizeof(what), "CPU %u on node %u", cpu, node);
	ssi_lost(channel_to(cpu, node), what, why);
}

void __noreturn ssi_cpu_lost(unsigned int node, const char *why)
{
	lost(raw_smp_processor_id(), node, why);
}

bool ssi_cpu_is_here(unsigned int cpu)
{
	return !READ_ONCE(ssi_cpus[cpu].node);
}

/* What is there is asked for if an exchange is under way, was just before or is just after. */
static void watch(unsigned int cpu, unsigned int node)
{
	const struct ssi_cpu *c = &ssi_cpus[cpu];
	unsigned int before = READ_ONCE(c->exchanges);
	bool unasked;

	smp_mb();
	if (READ_ONCE(c->busy))
		return;
	smp_mb();
	unasked = ssi_link_readable(channel_to(cpu, node));
	smp_mb();
	if (unasked && before == READ_ONCE(c->exchanges))
		lost(cpu, node, "it has sent what was not asked, or closed the channel");
}

void ssi_cpu_watch(unsigned int cpu)
{
	if (ssi_start_possible(cpu))
		watch(cpu, 0);
	watch(cpu, ssi_cpu_node(cpu));
}

static struct wire_map *run_maps(struct ssi_cpu *c)
{
	return (struct wire_map *)(&c->msg.run + 1);
}

/* --- vector state in a slot --- */

/*
 * Copying it both ways takes as long as all the rest of a system call, and hardly anybody looks at it.  So it stays in
 * the slot until the task goes elsewhere, or somebody does.
 */
static bool is_in_slot(const struct ssi_cpu *c, const struct ssi_slot *slot)
{
	return c->fp_task == current && c->fp_slot.area == slot->area && c->fp_slot.number == slot->number &&
	       c->fp_slot_mm == current->mm->context.ssi->id;
}

static void leave_in_slot(struct ssi_cpu *c, const struct ssi_slot *slot)
{
	c->fp_slot = *slot;
	c->fp_slot_mm = current->mm->context.ssi->id;
	c->fp_task = current;
}

/* Whoever has lost the slot, by exec() or at its end, has lost what was in there.  What user code has destroyed is lost, too. */
void ssi_fp_sync(void)
{
	struct ssi_cpu *c = &ssi_cpus[raw_smp_processor_id()];

	if (c->fp_task != current)
		return;
	c->fp_task = NULL;
	if (current->mm && current->mm->context.ssi->id == c->fp_slot_mm)
		ssi_slot_read_fp(&c->fp_slot, current->thread.regs.regs.fp, host_fp_size);
}

/* The vector state goes along unless the executor has it already. */
static u32 add_fp(struct ssi_cpu *c, u64 mm, const struct uml_pt_regs *regs, u8 *to)
{
	u32 length = xstate_length(regs->fp, host_fp_size, xstate_end);

	if (c->fp_mm == mm && c->fp_length == length && !memcmp(c->fp, regs->fp, length))
		return 0;
	memcpy(to, regs->fp, length);
	memcpy(c->fp, regs->fp, length);
	c->fp_length = length;
	c->fp_mm = mm;
	return length;
}

/* No other thread uses it, and it has no memory in common with other processes. */
static bool is_alone(struct mm_struct *mm)
{
	return atomic_read(&mm->mm_users) == 1 && !get_mm_counter(mm, MM_SHMEMPAGES);
}

static int send_results(const struct ssi_cpu *c)
{
	const struct ssi_results *r = &c->results;

	return r->count ? ssi_link_send(channel_to(raw_smp_processor_id(), c->node), r->messages, r->bytes, 1) : 0;
}

/* What remains to be said of a RUN: flags, registers, vector state. */
static void send_run(struct ssi_cpu *c, struct uml_pt_regs *regs, u32 flags)
{
	struct wire_run *run = &c->msg.run;
	u32 fp_length = 0;

	if (c->node) {
		ssi_clock_record(&run->clock);
		flags |= ssi_apart() ? WIRE_RUN_APART : 0;
		flags |= is_alone(current->mm) ? WIRE_RUN_ALONE : 0;
	}
	if (ssi_clock_is_other())
		flags |= WIRE_RUN_OTHER_TIME;
	if (current->mm->context.ssi->gates && !regs->gp[GS_BASE / sizeof(long)] && !singlestepping())
		flags |= WIRE_RUN_GATES;
	if (!(flags & WIRE_RUN_LOADED))
		fp_length = add_fp(c, run->mm, regs, (u8 *)(run_maps(c) + run->map_count));
	run->hdr.length = sizeof(*run) + run->map_count * sizeof(struct wire_map) + fp_length;
	if (flags & WIRE_RUN_ACTIONS && !fp_length) {
		ssi_actions_copy((void *)run + run->hdr.length);
		run->hdr.length += WIRE_SIGNALS * sizeof(struct wire_action);
	} else {
		flags &= ~WIRE_RUN_ACTIONS;
	}
	run->hdr.type = WIRE_RUN;
	run->hdr.seq = ++c->run;
	run->flags = flags | (fp_length ? WIRE_RUN_FP : 0) | (singlestepping() ? WIRE_RUN_SINGLESTEP : 0);
	run->fp_length = fp_length;
	run->pid = task_tgid_nr(current);
	strscpy(run->comm, current->comm, sizeof(run->comm));
	memcpy(run->gp, regs->gp, sizeof(run->gp));
	if (send_results(c) || ssi_link_send(channel_to(raw_smp_processor_id(), c->node), run, run->hdr.length, 0))
		ssi_cpu_lost(c->node, "it has closed the channel");
}

/* Begin a RUN with what must be mapped first. */
static void enter(struct ssi_cpu *c, struct ssi_mm *sm, unsigned int node, const struct ssi_fault *fault,
		  const struct ssi_hot *hot)
{
	u64 epoch;

	c->snapshot.stay.pid = c->argument.stay.pid = 0;
	memset(&c->msg.run, 0, sizeof(c->msg.run));
	c->msg.run.mm = sm->id;
	c->msg.run.map_count = ssi_mm_enter(sm, node, fault, hot, run_maps(c), &epoch);
	c->msg.run.map_epoch = epoch;
}

static void take_fp(struct ssi_cpu *c, struct uml_pt_regs *regs)
{
	const struct wire_event *event = &c->msg.event;

	if (!event->fp_length)
		return;
	memcpy(regs->fp, event + 1, event->fp_length);
	memcpy(c->fp, event + 1, event->fp_length);
	c->fp_length = event->fp_length;
	c->fp_mm = event->mm;
}

/* They first take a lock, perhaps without sleeping, and who has it may change what they read. */
static bool reads_late(unsigned long nr)
{
	return nr == __NR_write || nr == __NR_pwrite64 || nr == __NR_sendto;
}

static void take_argument(struct ssi_cpu *c)
{
	const struct wire_event *event = &c->msg.event;
	struct ssi_argument *a = &c->argument;

	if (!event->argument.length || (reads_late(event->gp[HOST_ORIG_AX]) && !is_alone(current->mm)))
		return;
	a->stay = ssi_stay();
	a->at = event->argument;
	memcpy(a->bytes, (const u8 *)(event + 1) + event->fp_length, a->at.length);
}

static bool is_event(u32 signal)
{
	return !signal || signal == SIGSYS || signal == SIGSEGV || signal == SIGALRM || signal == SIGTRAP ||
	       signal == SIGILL || signal == SIGFPE || signal == SIGBUS;
}

#define LOOK_NS		100000		/* some round trips of a fast network */
#define LOOK_GAIN_NS	8000		/* of not sleeping, both sides together; more where switches are slow */

/* Where the CPU's user half is on another node, this half goes where it may look for the answer. */
static bool sit_apart(struct ssi_cpu *c)
{
	bool apart = c->node && ssi_apart();

	if (c->apart != apart)
		ssi_pin(raw_smp_processor_id() + apart);
	c->apart = apart;
	return apart;
}

static void note_answer(long long sent, long long came)
{
	bool in_time = came - sent < LOOK_NS;

	ssi_apart_note(came, in_time ? LOOK_GAIN_NS : 0, in_time ? 0 : LOOK_NS);
}

static void receive_event(struct ssi_cpu *c, struct uml_pt_regs *regs)
{
	long long sent = os_nsecs(), until = sit_apart(c) ? sent + LOOK_NS : 0;
	struct wire_event *event = &c->msg.event;
	const char *why;
	int n;

	n = ssi_link_wait(channel_to(raw_smp_processor_id(), c->node), WIRE_PURPOSE_CPU, event, sizeof(*event),
			  sizeof(c->msg), until, control_wanted, interrupt_user, NULL, &why);
	if (n < 0)
		ssi_cpu_lost(c->node, why);
	if (c->node)
		note_answer(sent, os_nsecs());
	if (event->hdr.type != WIRE_EVENT || event->hdr.seq != c->run || event->mm != current->mm->context.ssi->id)
		ssi_cpu_lost(c->node, "it has answered what was not asked");
	if (event->fp_length > host_fp_size || !is_event(event->signal) || event->argument.length > WIRE_ARGUMENT_MAX)
		ssi_cpu_lost(c->node, "it has sent an event that there is not");
	if (event->refused && event->signal && event->signal != SIGALRM)
		ssi_cpu_lost(c->node, "it has run a task without its results");
	ssi_results_answered(&c->results, event->refused);
	memcpy(regs->gp, event->gp, sizeof(event->gp));
	regs->faultinfo.cr2 = event->fault_address;
	regs->faultinfo.error_code = event->fault_error;
	regs->faultinfo.trap_no = event->fault_trap;
	take_fp(c, regs);
	take_argument(c);
	/* for good: who runs without loading trusts what was last exchanged, which loading does not keep */
	if (!c->node)
		WRITE_ONCE(current->mm->context.ssi->area, event->area);
}

/* What user code has destroyed cannot run on: as if its stub were lost. */
static void read_slot(struct ssi_cpu *c, const struct ssi_slot *slot, struct uml_pt_regs *regs)
{
	struct wire_event *event = &c->msg.event;
	struct ssi_trap trap = {};

	event->signal = ssi_slot_signal(slot);
	if (ssi_slot_read(slot, &trap, regs->gp) || !is_event(event->signal))
		event->signal = 0;
	event->code = trap.code;
	event->posted = trap.posted;
	event->posted_restorer = trap.posted_restorer;
	regs->faultinfo.cr2 = trap.address;
	regs->faultinfo.error_code = trap.error;
	regs->faultinfo.trap_no = trap.number;
}

/* On the kernel host; the executor is needed for mappings, frames, and patience. */
static void run_local(struct ssi_cpu *c, const struct ssi_slot *slot, struct uml_pt_regs *regs, bool tell_actions)
{
	struct wire_action *actions = ssi_slot_actions(slot, tell_actions);
	bool started = !c->msg.run.map_count;

	ssi_slot_other_time(slot, ssi_clock_is_other());
	if (tell_actions)
		ssi_actions_copy(actions);
	if (!is_in_slot(c, slot)) {
		ssi_fp_sync();
		if (ssi_slot_load_fp(slot, regs->fp, host_fp_size))
			goto destroyed;
	}
	if (ssi_slot_load(slot, regs->gp, singlestepping()))
		goto destroyed;
	leave_in_slot(c, slot);
	if (started && !ssi_local_run(slot, control_wanted)) {
		read_slot(c, slot, regs);
		return;
	}
	ssi_local_executor();
	send_run(c, regs, WIRE_RUN_LOADED | (started ? WIRE_RUN_STARTED : 0));
	receive_event(c, regs);
	return;
destroyed:
	c->msg.event.signal = 0;
}

/* The stub process is lost, for example to the host's out-of-memory killer: so is everyone who uses the mm. */
static void __noreturn stub_lost(void)
{
	pr_err("ssi: %s[%d] has lost its host process on node %u\n", current->comm, task_pid_nr(current),
	       ssi_cpus[raw_smp_processor_id()].node);
	do_group_exit(SIGKILL);
}

static void note_hot(struct trail *t, unsigned long page)
{
	unsigned int i;

	for (i = 0; i < SSI_HOT_MAX; i++)
		if (t->hot.data[i] == page)
			return;
	t->newest = (t->newest + 1) % SSI_HOT_MAX;
	t->hot.data[t->newest] = page;
}

/* What must be mapped before the next stay in user mode.  After a frame fault that is all. */
static void note_fault(struct uml_pt_regs *regs, struct trail *t)
{
	struct ssi_cpu *c = &ssi_cpus[raw_smp_processor_id()];

	t->fault.address = regs->faultinfo.cr2;
	if (!t->fault.frame && ssi_may_access(t->fault.address, FAULT_WRITE(regs->faultinfo)))
		ssi_habit_note(&current->mm->context.ssi->habits, t->fault.address, FAULT_WRITE(regs->faultinfo));
	if (!t->fault.frame)
		t->fault.end = ssi_fault_ahead(&c->stream, t->fault.address, FAULT_WRITE(regs->faultinfo),
					       &t->fault.pages);
	if (FAULT_WRITE(regs->faultinfo) && !c->stream.faults)
		note_hot(t, t->fault.address & PAGE_MASK);
}

/*
 * What the task uses, if it has come to another node, or begins on one; NULL: it has not.  What begins on the kernel host
 * does so without the daemon (map.c).
 */
static const struct ssi_hot *arrive(struct trail *t, u64 mm, unsigned int node, struct uml_pt_regs *regs)
{
	bool arrived = t->mm == mm ? t->node != node : !!node;

	if (t->mm != mm)
		memset(&t->hot, 0, sizeof(t->hot));
	t->mm = mm;
	t->node = node;
	t->hot.ip = REGS_IP(regs->gp);
	t->hot.sp = REGS_SP(regs->gp);
	return arrived ? &t->hot : NULL;
}

/* The system call has given memory that will be written to. */
static void note_growth(struct trail *t, const struct uml_pt_regs *regs, unsigned long brk)
{
	struct ssi_range r = {};

	if (t->nr == __NR_brk)
		r = (struct ssi_range){ PAGE_ALIGN(brk), PAGE_ALIGN(current->mm->brk) };
	else if (t->nr == __NR_mmap && regs->gp[HOST_R10] & MAP_ANONYMOUS && !IS_ERR_VALUE(regs->gp[HOST_AX]))
		r = (struct ssi_range){ regs->gp[HOST_AX], regs->gp[HOST_AX] + PAGE_ALIGN(regs->gp[HOST_SI]) };
	if (r.end <= r.start || r.start & ~PAGE_MASK || r.end > TASK_SIZE)
		return;
	t->fault.end = ssi_block_growth(r.start, r.end);
	if (t->fault.end)
		t->fault.address = r.start;
}

static bool reads_many(unsigned long nr)
{
	return nr == __NR_execve || nr == __NR_execveat;
}

/* What was last exchanged was so with another executor; or with one whose slot other CPUs use as well. */
static void go_to(struct ssi_cpu *c, unsigned int node)
{
	if (c->node != node || node != ssi_cpu_node(raw_smp_processor_id()))
		c->fp_mm = 0;
	WRITE_ONCE(c->node, node);
}

/* Another thread may have the slot next, with the vector state in it. */
static void leave_start(struct ssi_mm *sm, unsigned int node)
{
	if (node != ssi_cpu_node(raw_smp_processor_id()) && atomic_read(&current->mm->mm_users) > 1)
		ssi_fp_sync();
	ssi_start_leave(sm, ssi_cpus[raw_smp_processor_id()].msg.event.signal == SIGSYS);
}

/* One stay in user mode. */
static void run_user(struct uml_pt_regs *regs, struct trail *t)
{
	struct ssi_cpu *c = &ssi_cpus[raw_smp_processor_id()];
	struct ssi_mm *sm = current->mm->context.ssi;
	unsigned int node = ssi_start_enter(sm);
	struct siginfo info = {};
	struct ssi_slot slot;
	unsigned long brk;
	int signal;

	BUILD_BUG_ON(sizeof(((struct wire_run *)NULL)->gp) != sizeof(regs->gp));
	if (!c->pinned) {
		ssi_pin(raw_smp_processor_id());
		c->pinned = true;
	}
	t->fault.also = &t->also;
	t->tell_actions = t->asks_actions && ssi_actions_are_own();
	if (node != ssi_cpu_node(raw_smp_processor_id()))
		ssi_results_sync();
	go_to(c, node);
	ssi_channel_begin(c);
	enter(c, sm, node, &t->fault, arrive(t, sm->id, node, regs));
	c->in_user = 1;
	if (!node && ssi_local_slot(&slot, sm)) {
		sit_apart(c);
		run_local(c, &slot, regs, t->tell_actions);
	} else {
		ssi_fp_sync();
		send_run(c, regs, t->tell_actions ? WIRE_RUN_ACTIONS : 0);
		receive_event(c, regs);
		if (c->msg.event.refused)	/* it has not run there: what it needs is said again */
			t->node = ~0u;
	}
	c->in_user = 0;
	regs->is_user = 1;
	ssi_channel_end(c);
	ssi_mm_leave(sm, node, node && c->msg.event.flags & WIRE_EVENT_ASKING);
	leave_start(sm, node);
	signal = c->msg.event.signal;
	info.si_signo = signal;
	info.si_code = c->msg.event.code;
	t->fault = (struct ssi_fault){ .frame = signal == SIGBUS && info.si_code == BUS_ADRERR };
	if (!signal) {
		c->fp_mm = 0;
		stub_lost();
	}
	if (t->tell_actions && c->msg.event.posted)
		ssi_actions_posted(c->msg.event.posted, c->msg.event.posted_restorer);
	if (t->fault.frame && !ssi_may_access(regs->faultinfo.cr2, FAULT_WRITE(regs->faultinfo))) {
		t->fault.frame = false;
		signal = info.si_signo = SIGSEGV;
	}
	if (signal != SIGSYS)
		ssi_gate_leave(sm, regs);
	else if (!ssi_gate_pass(sm, regs))
		ssi_gate_consider(c->sites, sm, regs);
	t->asks_actions = signal == SIGSYS && regs->gp[HOST_ORIG_AX] == __NR_rt_sigaction;
	if (signal == SIGSYS && node && reads_many(regs->gp[HOST_ORIG_AX]))
		ssi_snapshot_begin();
	if (signal == SIGSEGV)
		ssi_block_fault(regs->faultinfo.cr2, FAULT_WRITE(regs->faultinfo));
	t->nr = signal == SIGSYS ? regs->gp[HOST_ORIG_AX] : -1UL;
	brk = current->mm->brk;
	if (t->fault.frame)
		interrupt_end();
	else
		userspace_signal(regs, signal, &info);
	if (t->fault.frame || signal == SIGSEGV)
		note_fault(regs, t);
	else
		note_growth(t, regs, brk);
}

void ssi_userspace(struct uml_pt_regs *regs)
{
	struct trail trail = {};

	/* it begins, with nothing mapped, unless it shares the mm */
	if (!ssi_is_given(REGS_IP(regs->gp)))
		trail.fault.address = REGS_IP(regs->gp);
	interrupt_end();
	for (;;) {
		ssi_early_end(current->mm->context.ssi);
		ssi_habit_give(&current->mm->context.ssi->habits, &trail.also);
		run_user(regs, &trail);
	}
}
