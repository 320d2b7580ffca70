#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Where programs run: they start on the kernel host, whatever their CPU, and those that go on move to its node.
#
#	+- node 0 -----------+- node 1 -----------+
#	| kernel             |                    |
#	| -c 1, its start    | -c 1, all the rest |
#	+--------------------+--------------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# begin_machine NODES: what is said to its shell has been done when that answers.
begin_machine() {
	machine_start --nodes "$1" bash -c 'while read -r line; do eval "$line"; echo "did $line"; done'
	asked=0
}

tell() {
	asked=$((asked + 1))
	echo "$1 # $asked" >&7
	wait_for 240 grep -q "^did .*# $asked\$" "$WORK/machine.out" || fatal "the machine does not $1"
	sleep 1.5		# the nodes tell what they counted twice a second or so
}

# The system calls and faults of 40 short programs that node 1 sees.
runs_of_short() {
	local before

	tell "taskset -c 1 true"
	before=$(number 1 runs)
	tell "for i in {1..40}; do taskset -c 1 true; done"
	echo $(($(number 1 runs) - before))
}

# Those of taskset itself, and of its shell, which moves there with it.
short() {
	local here there

	export PANGEA_START=100		# however slow the host is
	begin_machine 2
	here=$(runs_of_short) || fatal "$here"
	machine_wait
	export PANGEA_START=off
	begin_machine 2
	there=$(runs_of_short) || fatal "$there"
	machine_wait
	echo "node 1 has $here runs where programs start on node 0, $there where they do not"
	[ "$here" -lt $((there / 3)) ] || fatal "node 1 has $here runs of short programs, and $there if they do not start on node 0"
}

# share COMMAND: that of node 0 of the user time of both nodes, in percent
share() {
	local here=-$(number 0 user_ns) there=-$(number 1 user_ns)

	tell "$1"
	here=$((here + $(number 0 user_ns))) there=$((there + $(number 1 user_ns)))
	echo "node 0 $here ns, node 1 $there ns" >&2
	echo $((100 * here / (1 + here + there)))
}

# of_node_0 -le|-ge PERCENT NODES COMMAND: and that it should be
of_node_0() {
	local of

	begin_machine "$3"
	of=$(share "$4") || fatal "$of"
	machine_wait
	[ "$of" "$1" "$2" ] || fatal "node 0 has $of % of the user time of: $4"
}

loop='for ((i = 0; i < 100000; i++)); do :; done'

long() { of_node_0 -le 20 2 "taskset -c 1 bash -c '$loop; $loop'"; }

# Every child of a program that starts does so as well, for as long.
forever() { PANGEA_START=1000000 of_node_0 -ge 80 2 "taskset -c 1 bash -c '$loop; ($loop)'"; }

# Two threads at a time are more than there is room for.
threads() { PANGEA_START=1000000 of_node_0 -le 20 3 "OMP_NUM_THREADS=2 taskset -c 1,2 $BUILD/tests/bench/omp reduction"; }

# Calls that come more often than messages could.
calls='taskset -c 1 dd if=/dev/zero of=/dev/null bs=1 count=50000 status=none'

busy() {
	local stays goes

	PANGEA_START=100+ begin_machine 2
	tell "taskset -c 1 bash -c '$loop; $loop; date'"	# from there, so that it is known how long a message takes
	stays=$(share "$calls") || fatal "$stays"
	machine_wait
	PANGEA_START=20 begin_machine 2
	goes=$(share "$calls") || fatal "$goes"
	machine_wait
	[ "$stays" -ge 80 ] || fatal "node 0 has $stays % of the user time of: $calls"
	[ "$goes" -le 20 ] || fatal "node 0 has $goes % of the user time of: PANGEA_START=20 $calls"
}

check "short programs stay on the kernel host" short
check "long ones move to their CPU's node" long
check "unless they are to start for longer" forever
check "but threads do" threads
check "who makes many calls stays" busy
check "nothing is left" nothing_kept
