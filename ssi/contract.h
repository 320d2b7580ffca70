/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the daemon of the kernel host tells the kernel that it starts.
 *
 * The kernel finds struct ssi_boot in the file whose descriptor number stands in its command line as
 * `ssi=FD`.  All descriptors named in it are inherited by the kernel process.
 */
#ifndef PANGEA_CONTRACT_H
#define PANGEA_CONTRACT_H

#include <linux/types.h>

#define SSI_BOOT_MAGIC		0x49535350u
#define SSI_BOOT_VERSION	8
#define SSI_NODES_MAX		16
#define SSI_CPUS_MAX		64

/*
 * A byte of rights_fd, of a frame at home on the kernel host or elsewhere: 0 none, 1 may read, 2 may write too.
 * It may have changed when it is looked at: a hint.
 */
#define SSI_RIGHTS(byte, at_home_here)	((byte) ^ ((at_home_here) ? 2 : 0))

/* Behind those of so many frames, in rights_fd: where each has its entry in a stub, 64 bits (node/stub.h). */
#define SSI_SHOWN_OFFSET(frames)	(((frames) + 4096) & ~4095ul)

struct ssi_boot_node {
	__u64 pfn_start;	/* frames at home on this node */
	__u64 pfn_count;
	__u32 cpu_start;	/* Linux CPUs of this node */
	__u32 cpu_count;
	__s32 mm_fd;		/* mm channel (net/wire.h) */
	__u32 reserved;
};

struct ssi_boot {
	__u32 magic;
	__u32 version;
	__u32 node_count;	/* node 0 is the kernel host */
	__u32 cpu_count;
	__s32 frame_fd;		/* the kernel host's frame cache, as large as the machine's memory */
	__s32 pager_fd;		/* UNIX socket: the kernel sends struct ssi_pager and its userfaultfd */
	__s32 rights_fd;	/* what the kernel host holds: a byte for each frame, see SSI_RIGHTS */
	__s32 arena_fd;		/* control areas of the kernel host's stubs (node/stub.h) */
	struct ssi_boot_node nodes[SSI_NODES_MAX];
	__s32 cpu_fd[SSI_CPUS_MAX];	/* cpu channels (net/wire.h) */
	__s32 start_fd[SSI_CPUS_MAX];	/* of CPUs of other nodes, to the kernel host; -1: there is none */
	__u32 start_us;		/* how long their programs run there first */
	__u32 start_follows_calls;	/* and longer, while they make many system calls */
};

/* Sent once by the kernel over pager_fd, the userfaultfd attached (SCM_RIGHTS); answered by one byte. */
struct ssi_pager {
	__u64 base;		/* virtual address of frame 0 in the kernel process */
	__u64 mapped_start;	/* first frame of the linear mapping: frames below are the kernel's image */
	__u64 frames;		/* frames in all */
	__u32 user_mode_only;	/* the userfaultfd does not serve faults of host system calls */
	__u32 reserved;
};

#endif
