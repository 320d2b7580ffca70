// SPDX-License-Identifier: GPL-2.0
/*
 * Becoming the kernel of a machine: what the daemon told with `ssi=FD`, and giving it the right to serve the
 * faults of our linear mapping.  From then on any load or store of the kernel to a frame whose rights are
 * elsewhere waits, like a slow memory access, until the daemon has brought it.
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/panic.h>
#include <linux/timer.h>
#include <as-layout.h>
#include <init.h>
#include <os.h>
#include <ssi.h>
#include "ssi_internal.h"

struct ssi_boot ssi_boot;
int ssi_active;
const unsigned char *ssi_rights;

int ssi_frame_fd(void)
{
	return ssi_active ? ssi_boot.frame_fd : -1;
}

static int __init ssi_setup(char *line, int *add)
{
	int fd, err;

	*add = 0;
	err = kstrtoint(line, 10, &fd);
	if (!err)
		err = ssi_read_boot(fd, &ssi_boot);
	if (err) {
		os_warn("ssi=%s: not started by a pangead of this version (%d)\n", line, err);
		return -1;
	}
	ssi_active = 1;
	return 0;
}

__uml_setup("ssi=", ssi_setup,
"ssi=<file descriptor>\n"
"    Be the kernel of a machine of many hosts.  Given by pangead.\n\n"
);

/*
 * A channel is read when an answer is due.  What a node does to one that is idle would not be seen before that,
 * which may be never.
 */
#define WATCH_MS 500
#define TRIM_MS 20	/* while there are frames to give back, */
#define TRIM_SHARE 20	/* but no more than that part of the CPU's time, which waits for the nodes meanwhile */

static void trim(struct timer_list *timer)
{
	long long began = os_nsecs();
	bool more = false;
	unsigned int i;

	for (i = 0; i < ssi_boot.node_count; i++)
		more |= ssi_frames_trim(i);
	if (more)
		mod_timer(timer, jiffies + max(msecs_to_jiffies(TRIM_MS), nsecs_to_jiffies((os_nsecs() - began) * TRIM_SHARE)));
}

static DEFINE_TIMER(trim_timer, trim);

static void twice_a_second(struct timer_list *timer)
{
	unsigned int i;

	ssi_clock_steer();
	ssi_tell_freed();
	for (i = 0; i < ssi_boot.node_count; i++)
		ssi_node_watch(i);
	if (!timer_pending(&trim_timer))
		trim(&trim_timer);
	for (i = 0; i < ssi_boot.cpu_count; i++)
		ssi_cpu_watch(i);
	mod_timer(timer, jiffies + msecs_to_jiffies(WATCH_MS));
}

static DEFINE_TIMER(watch_timer, twice_a_second);

static int __init ssi_watch(void)
{
	if (ssi_active)
		mod_timer(&watch_timer, jiffies + msecs_to_jiffies(WATCH_MS));
	return 0;
}
late_initcall(ssi_watch);

static unsigned long __init frames_in_all(void)
{
	const struct ssi_boot_node *last = &ssi_boot.nodes[ssi_boot.node_count - 1];

	return last->pfn_start + last->pfn_count;
}

static int __init ssi_attach(void)
{
	struct ssi_pager pager = {
		.base = uml_physmem,
		.mapped_start = PFN_UP(__pa(uml_reserved)),
		.frames = PFN_DOWN(physmem_size),
	};
	int uffd, ret;

	if (!ssi_active)
		return 0;
	ret = ssi_open_userfaultfd(&uffd);
	if (ret < 0)
		panic("no userfaultfd right on the kernel host (%d)", ret);
	pager.user_mode_only = ssi_touch_frames = ret;
	ssi_rights = ssi_map_rights(ssi_boot.rights_fd, frames_in_all());
	if (!ssi_rights)
		panic("no room for the rights on %lu frames", frames_in_all());
	ssi_pin_prepare();
	ssi_spin_prepare();
	ret = ssi_open_arena(ssi_boot.arena_fd, 1 + ssi_boot.nodes[0].cpu_count + ssi_start_possible(ssi_boot.cpu_count - 1));
	if (ret)
		panic("no room for the control areas of stubs (%d)", ret);
	ssi_clock_prepare();
	ret = ssi_hand_over(ssi_boot.pager_fd, &pager, uffd);
	if (ret)
		panic("the daemon does not serve this kernel's faults (%d)", ret);
	pr_info("ssi: %u nodes, %u CPUs%s\n", ssi_boot.node_count, ssi_boot.cpu_count,
		pager.user_mode_only ? "; faults of host system calls are retried" : "");
	return 0;
}
early_initcall(ssi_attach);
