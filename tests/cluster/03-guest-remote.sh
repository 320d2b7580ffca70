#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every guest program with all of its processes on one remote CPU; with --full the long ones, and on the two remote
# ones, too. Then some of them with their user code where that of others only starts, on the kernel host.
#
#	+- node 0 --+- node 1 --------------+- node 2 --------------+
#	| kernel    | the programs: -c 1    |                       |
#	|           | --full: -c 1,2        | --full: -c 1,2        |
#	+-----------+-----------------------+-----------------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# Lines come as the programs end; a machine that dies in the middle is a failure of its own.
guest() {
	local title=$1 status

	shift
	timeout 1800 "$PANGEA" run -- "$SOURCE/tests/guest/run" "$@" 2>"$WORK/err" |
		sed -u "s/^\(not ok\|ok\) /\1 $title: /"
	status=${PIPESTATUS[0]}
	[ "$status" -le 1 ] || echo "not ok $title: the machine: status $status: $(tail -n 1 "$WORK/err")"
}

export PANGEA_START=off
guest "CPU 1" "$([ -n "${FULL-}" ] && echo --all || echo --short)" --cpus 1 "$GUEST" '[!e]*' 'e[!s]*'	# script 11 runs escape there as well, which takes long
[ -z "${FULL-}" ] || guest "CPUs 1,2" --cpus 1,2 "$GUEST"
PANGEA_START=1
guest "CPUs 1,2, soon" --cpus 1,2 "$GUEST" fork-tree spawn 'signal-*' fp-state 'cow -n 4' results threads
PANGEA_START=1000000
guest "CPU 1, starting" --cpus 1 "$GUEST" fork-tree spawn 'signal-*' timers fp-state eintr runaway ptrace futex cow\ -n\ 4 copy-user \
	exec-args sigaction code leftover siblings threads gates
guest "CPUs 1,2, starting" --cpus 1,2 "$GUEST" threads fp-state futex
check "nothing is left" nothing_kept
