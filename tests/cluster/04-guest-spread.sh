#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every guest program with its processes on all nodes, the long ones too; then with two CPUs a node.
#
#	+- node 0 -------------+- node 1 -------------+- node 2 -------------+
#	| kernel               |                      |                      |
#	| the programs: CPU 0  | the programs: CPU 1  | the programs: CPU 2  |
#	+----------------------+----------------------+----------------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

guest() {
	local title=$1 options=$2 status

	shift 2
	# shellcheck disable=SC2086
	timeout 3000 "$PANGEA" run $options -- "$SOURCE/tests/guest/run" "$@" 2>"$WORK/err" |
		sed -u "s/^\(not ok\|ok\) /\1 $title: /"
	status=${PIPESTATUS[0]}
	[ "$status" -le 1 ] || echo "not ok $title: the machine: status $status: $(tail -n 1 "$WORK/err")"
}

ahead() {
	run --nodes 2 --cpus 2 -- "$GUEST/escape" -k ahead -c 2,0,3,1 && return
	cat "$WORK/err" "$WORK/out"
	return 1
}

# Long ones of tests/guest/list: script 11 runs the others in this shape of machine, as an ordinary user; with
# --full all programs in three more shapes.  And always what is about several CPU threads of one stub.
guest "CPUs 0,1,2" "--mem 2G" --all --cpus 0,1,2 --limit 900 "$GUEST" '* -n 1024' '* -n 1000000'
guest "2 nodes of 2 CPUs" "--nodes 2 --cpus 2" --cpus 2,0,3,1 "$GUEST" leftover
check "a thread that is reported to have parked before it runs" ahead
if [ -n "${FULL-}" ]; then
	guest "all on CPUs 0,1,2" "--mem 2G" --all --cpus 0,1,2 --limit 900 "$GUEST"
	guest "2 nodes of 2 CPUs" "--nodes 2 --cpus 2" --cpus 2,0,3,1 "$GUEST"
	guest "node 0 alone" "--nodes 1 --cpus 2" --cpus 0,1 "$GUEST"
fi
check "nothing is left" nothing_kept
