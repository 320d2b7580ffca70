/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What `pangea run` tells the first process of the machine (pangea-init), and what comes back.
 *
 * The run directory on the kernel host is named by the kernel parameter pangea=DIRECTORY.  In it,
 * BOOT_CONFIG holds records "key=value", each ended by a NUL:
 *
 *   argv=WORD        COMMAND and its arguments, in order
 *   env=NAME=VALUE   its environment
 *   cwd=PATH         its directory, if there is such a directory in the machine
 *   uid=N, gid=N, group=N, umask=OCTAL   its credentials; group once for each
 *   root=KIND        host: the kernel host's / ; dir:PATH: a tree of the host; image: /dev/ubda
 *   rw=PATH          directory of the host, writable at its own path; any number
 *   hostname=NAME
 *   net=ADDRESS/BITS[,GATEWAY]   of vec0, if it is there
 *   streams=XYZ      for descriptors 0, 1 and 2: t the terminal (/dev/tty0), p /dev/pangeaN, - closed
 *
 * BOOT_STARTED appears when COMMAND is about to be started; from then on Ctrl-Alt-Del ends the machine in
 * order. When COMMAND has ended, BOOT_STATUS holds its exit status in decimal, as the kernel process's own
 * exit status does. When it could not even be tried, BOOT_FAILURE holds one line that says why, and the
 * status is BOOT_FAILED.
 */
#ifndef PANGEA_BOOT_H
#define PANGEA_BOOT_H

#define BOOT_PARAMETER	"pangea"
#define BOOT_CONFIG	"config"
#define BOOT_STARTED	"started"
#define BOOT_STATUS	"status"
#define BOOT_FAILURE	"failure"

#define BOOT_FAILED		125
#define BOOT_NOT_EXECUTABLE	126
#define BOOT_NOT_FOUND		127

#endif
