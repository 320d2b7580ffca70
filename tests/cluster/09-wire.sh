#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Garbage on every port, before and while a machine runs: it goes on, and who talks nonsense is cut off.
#
#	+- node 0 -----+- node 1 -----+- node 2 -----+
#	| port, socket | port         | port         |
#	+----^---------+----^---------+----^---------+
#	     poke: noise, truncated and wrong frames, half connections

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# A command in the network namespace of a node.
in_network_of() {
	local pid

	pid=$(node_pid "$1") || fatal "there is no daemon of node $1"
	shift
	if [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ]; then
		"$@"
	else
		nsenter -t "$pid" -n "$@"
	fi
}

# Where a node listens.
port_of() {
	in_network_of "$1" ss -Hltn | awk '{ print $4 }' | head -n 1
}

still_works() {
	echo "ping $1" >&7
	wait_for 120 grep -qx "pong $1 0 1 2" "$WORK/machine.out" ||
		fatal "after $1 the machine does not answer"
}

# A machine that answers with a process from each CPU.
echo_machine='while read -r word what; do
	cpus=$(for k in 0 1 2; do taskset -c $k sh -c "cut -d\" \" -f39 /proc/self/stat"; done | xargs)
	echo "pong $what $cpus"
done'

attack_node() {
	local node=$1 where

	where=$(port_of "$node")
	[ -n "$where" ] || fatal "node $node listens nowhere"
	in_network_of "$node" "$HELPERS/poke" attack "$where" || fatal "node $node: see above"
	in_network_of "$node" "$HELPERS/poke" flood "$where" 300 "$node" || fatal "flood: status $?"
	in_network_of "$node" "$HELPERS/poke" hang "$where" 100 3 &
	sleep 1
	still_works "node$node"
	"$PANGEA" status >"$WORK/status" || fatal "status: $?"
	same "nodes of the machine" "$(grep -c running "$WORK/status")" 4
	wait $!
}

attack_socket() {
	local socket

	socket=$(echo "$XDG_RUNTIME_DIR"/pangea/*/control)
	"$HELPERS/poke" attack "$socket" || fatal "the control socket: see above"
	"$HELPERS/poke" flood "$socket" 300 5 || fatal "flood: status $?"
	still_works socket
}

# A node that joins beside the machine's own ones: latecomer KEY PATTERN
latecomer() {
	local status=0

	PANGEA_KEY=$1 in_network_of 0 timeout 30 "${PANGEA_DAEMON:-$BUILD/pangead}" node --join "$(port_of 0)" \
		--listen 127.0.0.1:0 --cpus 1 --stub "$BUILD/pangea-stub" --log "$WORK/late.log" --name late \
		>"$WORK/out" 2>"$WORK/err" || status=$?
	same "status of a late node" $status 125
	one_line "^pangea: $2"
	still_works latecomer
}

# The machine is complete; a node too many hears so, if it has the key.
refuses_latecomers() {
	local key

	key=$(tr '\0' '\n' <"/proc/$(node_pid 0)/environ" | sed -n 's/^PANGEA_KEY=//p')
	latecomer "$key" 'node 0 .*refuses this node: the machine has its 3 nodes already'
	latecomer "${key//[0-9]/0}" 'node 0 .*refuses this node: its key'
	latecomer abc 'PANGEA_KEY in the environment'
	same "arguments that tell the key" \
		"$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -cF -f <(echo "$key"))" 0
}

# A node that talks nonsense on a connection of a running machine, or is cut off in a message: the machine ends at
# once and names it.  Of node 1's connections to node 0 one is for control, one mm, one cpu, one dsm and one
# bulk.
garbled() {
	local index=$1 what=$2 start took status=0

	machine_start sh -c 'for k in 0 1 2; do taskset -c $k sh -c "while :; do :; done" & done; echo busy; wait'
	wait_for 120 grep -q busy "$WORK/machine.out" || fatal "the machine is not busy"
	start=$(_now_ms)
	"$HELPERS/poke" garble "$(node_pid 1)" "$index" "$what" || fatal "node 1 has no connection $index"
	exec 7>&-
	wait "$machine" || status=$?
	took=$(($(_now_ms) - start))
	cp "$WORK/machine.err" "$WORK/err"
	same status $status 125
	one_line '^pangea: .*node1'
	[ $took -le 2500 ] || fatal "it took $took ms"
	nothing_left
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

ended() {
	same "status of the machine" "$1" 0
	same "stderr of the machine" "$(cat "$WORK/machine.err")" ""
	nothing_kept
}

# Before the nodes have come, node 0 is as deaf to nonsense.
waiting_machine() {
	local status=0

	"$PANGEA" up --nodes 2 --listen 127.0.0.1:7311 true </dev/null >"$WORK/out" 2>"$WORK/err" &
	local up=$!
	wait_for 120 listening 7311 || fatal "nobody listens"
	"$HELPERS/poke" attack 127.0.0.1:7311 || fatal "attack: see above"
	"$HELPERS/poke" flood 127.0.0.1:7311 300 77 || fatal "flood: status $?"
	# A full house of those who do not join keeps nobody out who does.
	"$HELPERS/poke" idle 127.0.0.1:7311 40 60 >"$WORK/poke" 2>&1 &
	local idle=$!
	wait_for 60 grep -q idle "$WORK/poke" || fatal "$(cat "$WORK/poke")"
	cp "$XDG_RUNTIME_DIR/pangea/pangea/key" "$WORK/key"
	tr 0-9a-f 1-9a-f0 <"$WORK/key" >"$WORK/wrong"
	"$PANGEA" node --join 127.0.0.1:7311 --name other --key "$WORK/wrong" >"$WORK/node.out" 2>&1 &&
		fatal "a wrong key is taken"
	contains "wrong key" "$(cat "$WORK/node.out")" '^pangea: .*refuses this node: its key'
	"$PANGEA" node --join 127.0.0.1:7311 --name other --key "$WORK/key" >"$WORK/node.out" 2>&1 || status=$?
	kill $idle
	same "status of the node" $status 0
	wait $up || { cat "$WORK/err"; fatal "the machine: status $?"; }
	nothing_kept
}

listening() { ss -Hltn "sport = :$1" | grep -q .; }

# A node that joins something which is not a node 0.
false_host() {
	local what status

	for what in close half noise version refuse huge; do
		status=0
		"$HELPERS/poke" serve 127.0.0.1:7312 $what >"$WORK/poke" 2>&1 &
		wait_for 120 test -s "$WORK/poke" || fatal "poke does not serve"
		PANGEA_KEY=$(printf '%032d' 0) timeout 30 "$PANGEA" node --join 127.0.0.1:7312 --name lost \
			>"$WORK/out" 2>"$WORK/err" || status=$?
		same "status of a node that hears '$what'" $status 125
		one_line '^pangea'
		[ $what != version ] || one_line 'version 99'
		wait $!
		: >"$WORK/poke"
	done
	nothing_kept
}

machine_start bash -c "$echo_machine" || exit 1
for node in 0 1 2; do
	check "garbage on the port of node $node" attack_node $node
done
check "garbage on the control socket" attack_socket
check "a node too many is refused" refuses_latecomers
machine_wait
check "the machine ends as it should" ended $?
for index in 0 1 2 3 4; do
	for what in noise half; do
		check "$what on connection $index of node 1" garbled $index $what
	done
done
check "garbage while nodes are missing" waiting_machine
check "a node joins something else" false_host
check "nothing is left" nothing_left
