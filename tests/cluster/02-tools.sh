#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Stock programs see one machine of three nodes and place work on it.
#
#	       xz   tail   taskset   ps   top   kill   lscpu   numactl   numastat
#	+- CPU 0, NUMA node 0 -+- CPU 1, NUMA node 1 -+- CPU 2, NUMA node 2 -+
#	| ZONE_NORMAL, 512 MiB | ZONE_MOVABLE, 512 MiB| ZONE_MOVABLE, 512 MiB|
#	+----------------------+----------------------+----------------------+
#
# This script runs itself in the machine, where it has the argument "inside".

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# A field of /proc/PID/stat, counted as in proc(5); the name may hold blanks.
stat_field() {
	sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f$(($2 - 2))
}

cpu_of() { stat_field "$1" 39; }

on_cpu() { [ "$(cpu_of "$1")" = "$2" ]; }

topology() {
	same nproc "$(nproc)" 3
	same "/proc/cpuinfo" "$(grep -c ^processor /proc/cpuinfo)" 3
	lscpu >"$WORK/out" || fatal "lscpu: status $?"
	contains lscpu "$(cat "$WORK/out")" '^NUMA node\(s\): +3$'
	for k in 0 1 2; do
		contains lscpu "$(cat "$WORK/out")" "^NUMA node$k CPU\(s\): +$k\$"
	done
	numactl -H >"$WORK/out" || fatal "numactl -H: status $?"
	contains "numactl -H" "$(cat "$WORK/out")" '^available: 3 nodes \(0-2\)$'
	for k in 0 1 2; do
		contains "numactl -H" "$(cat "$WORK/out")" "^node $k cpus: $k\$"
		contains "numactl -H" "$(cat "$WORK/out")" "^node $k size: (4[0-9][0-9]|50[0-9]|51[0-2]) MB\$"
	done
	contains "numactl -H" "$(cat "$WORK/out")" '^  0: +10 +[1-9][0-9]+ +[1-9][0-9]+'
}

# Present pages of a zone, from /proc/zoneinfo.
zone_present() {
	awk -v node="Node $1, zone" -v zone="$2" '
		/^Node/ { inside = (index($0, node) == 1 && $NF == zone) }
		inside && $1 == "present" { print $2; exit }' /proc/zoneinfo
}

zones() {
	[ "$(zone_present 0 Normal)" -gt 100000 ] || fatal "node 0 has $(zone_present 0 Normal) normal pages"
	for k in 1 2; do
		[ "$(zone_present $k Movable)" -gt 100000 ] ||
			fatal "node $k has $(zone_present $k Movable) movable pages"
		[ "$(zone_present $k Normal || true)0" -eq 0 ] || fatal "node $k has normal pages"
	done
}

# MiB of a process on a NUMA node
private_mib() {
	numastat -p "$1" | awk -v column=$(($2 + 2)) '$1 == "Total" { print int($column) }'
}

# A program that fills 16 MiB wherever it was told to, and waits.
placement() {
	local how=$1 node=$2 pid mib

	# shellcheck disable=SC2086
	$how perl -e '$| = 1; $x = "x" x 16777216; print "filled\n"; sleep 1000' >"$WORK/filled" &
	pid=$!
	wait_for 480 test -s "$WORK/filled" || fatal "perl does not get ready"
	mib=$(private_mib "$pid" "$node")
	rm "$WORK/filled"
	kill "$pid"
	wait "$pid" 2>/dev/null
	[ "${mib:-0}" -ge 16 ] || fatal "$how: $mib MiB on node $node, 16 expected"
}

memory_by_policy() {
	for k in 0 1 2; do
		placement "numactl -m $k" $k
	done
}

memory_by_first_touch() {
	for k in 1 2 0; do
		placement "taskset -c $k" $k
	done
}

starting() {
	for k in 0 1 2 1 0 2; do
		same "taskset -c $k" "$(taskset -c $k sh -c 'cut -d" " -f39 /proc/$$/stat')" $k
		same "numactl -N $k" "$(numactl -N $k sh -c 'cut -d" " -f39 /proc/$$/stat')" $k
	done
}

moving() {
	local pid

	sh -c 'while :; do :; done' &
	pid=$!
	for k in 2 1 0 2 0 1 2; do
		taskset -cp $k $pid >"$WORK/out" || fatal "taskset -cp: status $?"
		contains taskset "$(cat "$WORK/out")" "new affinity list: $k\$"
		wait_for 120 on_cpu $pid $k || fatal "still on CPU $(cpu_of $pid), not $k"
		same "PSR of ps" "$(ps -o psr= -p $pid | tr -d ' ')" $k
	done
	kill $pid
	wait $pid
	same "status after kill" $? 143
}

watching() {
	local pid

	taskset -c 1 sh -c 'while :; do :; done' busy-loop &
	pid=$!
	sleep 2
	ps -eo pid,psr,stat,time,args >"$WORK/out" || fatal "ps: status $?"
	contains ps "$(cat "$WORK/out")" "^ *$pid +1 +R"
	contains ps "$(cat "$WORK/out")" '^ *1 '
	top -b -n 2 -d 1 -w 120 >"$WORK/out" || fatal "top: status $?"
	contains top "$(cat "$WORK/out")" '^%Cpu\(s\)|^Tasks:'
	awk -v pid=$pid '$1 == pid && $9 > 50 { found = 1 } END { exit !found }' "$WORK/out" ||
		fatal "top does not show the loop busy: $(awk -v pid=$pid '$1 == pid' "$WORK/out" | tail -1)"
	contains "free" "$(free -m)" '^Mem: +1[0-9]{3} '
	contains "uptime" "$(uptime)" 'load average'
	kill -STOP $pid
	wait_for 120 stopped $pid || fatal "kill -STOP: state $(stat_field $pid 3)"
	kill -CONT $pid
	kill -KILL $pid
	wait $pid
	same "status after kill -KILL" $? 137
}

stopped() { [ "$(stat_field "$1" 3)" = T ]; }

# The same bytes as on the host, from every CPU at the same time.
compressing() {
	local k

	for k in 0 1 2; do
		taskset -c $k xz -1 -T1 -c <"$WORK/plain" >"$WORK/packed.$k" &
	done
	wait
	for k in 0 1 2; do
		same "xz on CPU $k" "$(sha256sum <"$WORK/packed.$k")" "$PACKED_SUM"
		same "xz -d on CPU $k" "$(taskset -c $k xz -dc "$WORK/packed.$k" | sha256sum)" "$PLAIN_SUM"
	done
}

features() {
	local kind

	for kind in ext4 overlay tmpfs 9p fuse proc sysfs cgroup2; do
		contains "file systems" "$(cat /proc/filesystems)" "[[:space:]]$kind\$"
	done
	for kind in mnt pid net ipc uts user cgroup; do
		[ -e /proc/self/ns/$kind ] || fatal "no namespaces of kind $kind"
	done
	same "a process in new namespaces" \
		"$(unshare --mount --pid --net --ipc --uts --fork --mount-proc sh -c 'echo $$')" 1
	contains "cgroup v2" "$(cat /sys/fs/cgroup/cgroup.controllers)" 'memory'
	contains "seccomp" "$(cat /proc/self/status)" '^Seccomp:'
	contains "loopback" "$(ip -o link show lo)" 'UP'
	contains "devices" "$(ls /dev/null /dev/zero /dev/urandom /dev/tty /dev/ptmx /dev/shm)" ptmx
}

# A memory limit and a CPU set of a control group hold on remote CPUs.
control_groups() {
	local group=/sys/fs/cgroup/test

	echo "+memory +cpuset +pids" >/sys/fs/cgroup/cgroup.subtree_control ||
		fatal "the controllers cannot be enabled"
	mkdir $group
	echo 2 >$group/cpuset.cpus
	echo 32M >$group/memory.max
	same "CPU in a cpuset" "$(sh -c "echo \$\$ >$group/cgroup.procs; cut -d' ' -f39 /proc/self/stat")" 2
	sh -c "echo \$\$ >$group/cgroup.procs; head -c 100000000 /dev/zero | tail -c 90000000 | wc -c" \
		>/dev/null 2>&1
	contains "memory.events" "$(cat $group/memory.events)" '^oom_kill [1-9]'
	wait_for 120 rmdir $group || fatal "the group stays busy"
}

if [ "${1-}" = inside ]; then
	check "nproc, lscpu and numactl -H show the nodes" topology
	check "node 0 is normal memory, the others movable" zones
	check "numactl -m K allocates on node K, numastat tells" memory_by_policy
	check "first touch allocates on the toucher's node" memory_by_first_touch
	check "taskset -c and numactl -N start on the node" starting
	check "taskset -cp moves a running process" moving
	check "ps, top and kill of a remote process" watching
	check "xz gives the host's bytes on every node" compressing
	check "file systems, namespaces and devices" features
	check "control groups" control_groups
	exit 0
fi

head -c 3000000 <(cat "$BUILD"/pangea* "$SOURCE"/*/*.c "$SOURCE"/*/*.c) >"$WORK/plain"
PLAIN_SUM=$(sha256sum <"$WORK/plain")
PACKED_SUM=$(xz -1 -T1 -c <"$WORK/plain" | sha256sum)
export PLAIN_SUM PACKED_SUM
timeout 600 "$PANGEA" run -- bash "$0" inside || echo "not ok machine: status $?"
check "nothing is left" nothing_kept
