#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Two hosts, as the README shows them: `pangea up` on one, `pangea node` on the other.
#
#	namespace "here" 10.77.0.1          namespace "there" 10.77.0.2
#	+- pangea up --listen ------+ veth +- pangea node --join ------+
#	| node 0, kernel, CPU 0     |======| node 1, CPU 1             |
#	+---------------------------+      +---------------------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

if [ "${OWN_NAMESPACE-}" != 1 ]; then
	skip "two hosts" "needs root, for two network namespaces"
	exit 0
fi

# Neither host is the namespace of PID 1: there, pangead listens on loopback only.
if [ -z "${HERE-}" ]; then
	HERE=1 exec unshare --net bash "$0"
fi
ip link set lo up

there() { nsenter -t "$there" -n env XDG_RUNTIME_DIR="$WORK/there" "$@"; }

connect_hosts() {
	ip link add cable0 type veth peer name veth0 netns "$there" || fatal "no veth"
	ip addr add 10.77.0.1/24 dev cable0
	ip link set cable0 up
	there ip addr add 10.77.0.2/24 dev veth0
	there ip link set veth0 up
	there ip link set lo up
	ping -c 1 -W 5 10.77.0.2 >/dev/null || fatal "the hosts do not see each other"
}

# start_up COMMAND...; the node joins; leaves $up and $node
start_both() {
	"$PANGEA" up --nodes 2 --listen 10.77.0.1:7200 -- "$@" </dev/null >"$WORK/out" 2>"$WORK/err" &
	up=$!
	wait_for 120 listens || fatal "pangea up does not listen: $(cat "$WORK/err")"
	there "$PANGEA" node --join 10.77.0.1:7200 --listen 10.77.0.2:7201 --name there \
		--key "$XDG_RUNTIME_DIR/pangea/pangea/key" >"$WORK/node" 2>&1 &
	node=$!
}

listens() { ss -Hltn 'sport = :7200' | grep -q .; }

runs() {
	start_both sh -c 'nproc; taskset -c 1 sh -c "cut -d\" \" -f39 /proc/self/stat"; exit 6'
	wait $up
	same "status of pangea up" $? 6
	same "output" "$(cat "$WORK/out")" "2
1"
	same "stderr" "$(cat "$WORK/err")" ""
	wait $node || { cat "$WORK/node"; fatal "pangea node: status $?"; }
	nothing_kept
}

programs() {
	"$PANGEA" up --nodes 2 --listen 10.77.0.1:7200 -- "$SOURCE/tests/guest/run" --cpus 1,0 "$GUEST" \
		fork-tree 'stream -k pipe -n 64' signal-each futex 'shared-counter -k *s' mmap-file 'cow -n 4' \
		affinity </dev/null 2>"$WORK/err" &
	up=$!
	wait_for 120 listens || echo "not ok pangea up does not listen: $(cat "$WORK/err")"
	there "$PANGEA" node --join 10.77.0.1:7200 --listen 10.77.0.2:7201 --name there \
		--key "$XDG_RUNTIME_DIR/pangea/pangea/key" >"$WORK/node" 2>&1
	wait $up
	[ $? -le 1 ] || echo "not ok the machine: $(cat "$WORK/err")"
}

# The cable is pulled: silence is noticed, both ends say why and end.
cable() {
	local start status=0

	start_both sh -c 'while :; do :; done'
	wait_for 240 compgen -G "$XDG_RUNTIME_DIR/pangea/*/started" >/dev/null || fatal "it does not start"
	start=$(_now_ms)
	ip link set cable0 down
	wait $up || status=$?
	same "status of pangea up" $status 125
	one_line '^pangea: .*there.*[a-z]{3}'
	status=0
	wait $node || status=$?
	same "status of pangea node" $status 125
	[ $(($(_now_ms) - start)) -le 8000 ] || fatal "it took $(($(_now_ms) - start)) ms"
	nothing_left
	ip link set cable0 up
	rm -rf "$XDG_RUNTIME_DIR/pangea" "$WORK/there"
	mkdir -m 700 "$WORK/there"
}

# The user of the second host takes his node back.
leaves() {
	local status=0

	start_both sh -c 'while :; do :; done'
	wait_for 240 compgen -G "$XDG_RUNTIME_DIR/pangea/*/started" >/dev/null || fatal "it does not start"
	kill -INT "$(pgrep -P $node -x pangea || echo $node)"
	wait $up || status=$?
	same "status of pangea up" $status 125
	one_line '^pangea: .*there.*[a-z]{3}'
	wait $node
	nothing_left
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

mkdir -m 700 "$WORK/there"
unshare --net sleep infinity &
there=$!
wait_for 120 eval '[ "$(readlink /proc/$there/ns/net)" != "$(readlink /proc/self/ns/net)" ]'
check "two hosts are connected" connect_hosts
check "a machine of two hosts runs COMMAND" runs
programs
check "the cable is pulled" cable
check "a node leaves" leaves
ip link del cable0 2>/dev/null
kill $there
check "nothing is left" nothing_left
