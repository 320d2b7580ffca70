#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What an idle machine costs, and what `pangea status` tells of a busy one.
#
#	+- node 0 --+- node 1 --+- node 2 --+
#	|   idle    |   idle    |   idle    |   heartbeats only; memory that nobody touched is not there
#	+-----------+-----------+-----------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

resident_mib() {
	awk '/^Rss:/ { sum += $2 } END { print int(sum / 1024) }' "/proc/$(node_pid "$1")/smaps_rollup"
}

# Frames, runs and bytes of the remote nodes over five seconds of nothing.
idle() {
	local node before after runs

	sleep 3
	for node in 1 2; do
		before=$(number $node bytes_out) runs=$(number $node runs)
		sleep 5
		after=$(number $node bytes_out)
		echo "node $node: $((after - before)) bytes and $(($(number $node runs) - runs)) runs in 5 s"
		[ $((after - before)) -le 20000 ] || fatal "node $node sent $((after - before)) bytes in 5 s"
		[ $(($(number $node runs) - runs)) -le 20 ] || fatal "node $node ran user code though idle"
	done
}

# CPU time of the daemons over five seconds of nothing, in clock ticks of 10 ms
quiet() {
	local node before after

	for node in 1 2; do
		before=$(cpu_ticks $node)
		sleep 5
		after=$(cpu_ticks $node)
		[ $((after - before)) -le 25 ] ||
			fatal "node $node used $((after - before)) ticks of CPU in 5 s"
	done
}

cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$(node_pid "$1")/stat"; }

# 16 MiB that were written on node 0 are read on node 1.
perf() {
	local waits wait_ns asked table

	waits=$(number 1 waits) wait_ns=$(number 1 wait_ns) asked=$(number 1 asked)
	echo "$BUILD/tests/bench/large stream 1 0 16" >&7
	wait_for 240 grep -q 'stream [0-9]' "$WORK/machine.out" || fatal "the memory is not read"
	sleep 2
	[ $(($(number 1 asked) - asked)) -ge 4000 ] || fatal "node 1 asked for $(($(number 1 asked) - asked)) frames"
	table=$("$PANGEA" status --perf)
	contains "status --perf" "$table" '^ *1 +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9]+ '
	same "lines of status --perf" "$(wc -l <<<"$table")" 6
	[ $(($(number 1 wait_ns) - wait_ns)) -le 60000000000 ] || fatal "node 1 waited longer than that took"
	[ "$(number 1 wait_p99_ns)" -ge "$(number 1 wait_p50_ns)" ] || fatal "more than half took longer than most"
	[ $(($(number 1 waits) - waits)) -gt 0 ] && [ "$(number 0 maps)" -gt 0 ] && [ "$(number 0 map_ns)" -gt 0 ] ||
		fatal "no mappings were counted on node 0"
}

# The machine has 3 GiB, of which next to nothing is used.
memory() {
	local node held

	for node in 1 2; do
		held=$(($(number $node held) / 1048576))
		[ $held -le 40 ] || fatal "node $node holds $held MiB though nobody used them"
		[ "$(resident_mib $node)" -le 200 ] ||
			fatal "node $node's daemon has $(resident_mib $node) MiB"
	done
}

# 200 MiB are used and given back: the node gives them back to its host.
given_back() {
	local held

	echo 'taskset -c 1 numactl -m 1 perl -e "\$x = q(x) x 200000000; print length(\$x)"' >&7
	wait_for 480 grep -qx 200000000 "$WORK/machine.out" || fatal "the work does not end"
	wait_for 120 gave_back || fatal "node 1 still holds $(($(number 1 held) / 1048576)) MiB"
}

gave_back() { [ $(($(number 1 held) / 1048576)) -le 80 ]; }

status_tells() {
	local before

	"$PANGEA" status >"$WORK/out" || fatal "status: $?"
	contains status "$(cat "$WORK/out")" '^machine .*: running, 3 of 3 nodes'
	same "lines of nodes" "$(grep -cE '^ +[0-2] +node[0-2] +running' "$WORK/out")" 3
	before=$(number 2 user_ns)
	echo 'taskset -c 2 timeout 2 sh -c "while :; do :; done"; echo looped' >&7
	wait_for 240 grep -qx looped "$WORK/machine.out" || fatal "the loop does not end"
	sleep 1
	[ $(($(number 2 user_ns) - before)) -ge 1000000000 ] ||
		fatal "node 2 counts $(($(number 2 user_ns) - before)) ns of user time for a loop of 2 s"
}

ended() {
	same "status of the machine" "$1" 0
	nothing_kept
}

machine_start --mem 3G sh || exit 1
check "idle nodes send heartbeats only" idle
check "idle nodes use next to no CPU" quiet
check "untouched memory is not there" memory
check "status tells what runs where" status_tells
check "freed memory goes back to the host" given_back
check "status --perf tells where time goes" perf
machine_wait
check "the machine ends as it should" ended $?
