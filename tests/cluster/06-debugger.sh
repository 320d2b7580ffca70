#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# gdb on one node debugs a process on another; strace follows system calls.
#
#	+- node 0 --+- node 1 --+- node 2 --+
#	|           | loop  <===|== gdb -p  |
#	+-----------+-----------+-----------+
#
# This script runs itself in the machine, where it has the argument "inside".

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

start_loop() {
	local cpus=$1

	shift
	taskset -c "$cpus" "$HELPERS/loop" "$@" >"$WORK/loop" &
	loop=$!
	wait_for 120 test -s "$WORK/loop" || fatal "the loop does not start"
}

end_loop() {
	kill -KILL "$loop"
	wait "$loop" 2>/dev/null
	return 0
}

debug() {
	local cpu=$1

	shift
	taskset -c "$cpu" timeout -k 5 240 gdb -nx -batch -p "$loop" "$@" >"$WORK/out" 2>&1 && return 0
	cat "$WORK/out"
	fatal "gdb fails or does not end: $(tail -n 1 "$WORK/out")"
}

# CPU of gdb, CPU of the process
attach() {
	start_loop "$2"
	debug "$1" -ex bt -ex 'print count' -ex 'break inner' -ex continue -ex continue -ex 'print count' \
		-ex 'echo finish\n' -ex finish -ex 'info registers rip' -ex delete -ex detach
	contains backtrace "$(cat "$WORK/out")" 'outer \(add='
	contains backtrace "$(cat "$WORK/out")" 'main \('
	contains breakpoint "$(cat "$WORK/out")" '^Breakpoint 1, inner \(add=1\)'
	contains finish "$(sed '1,/^finish$/d' "$WORK/out")" '\<outer \(add='
	contains registers "$(cat "$WORK/out")" '^rip .*<outer'
	kill -0 $loop || fatal "the process has ended with the debugger"
	end_loop
}

# What the debugger writes, the process sees; and it goes on to its end.
change() {
	start_loop 1
	debug 2 -ex 'set var leave = 1' -ex 'print half' -ex 'print $xmm0' -ex detach
	contains 'a double' "$(cat "$WORK/out")" '^\$1 = [0-9.e+]+'
	wait $loop
	same "status of the changed process" $? 3
	contains output "$(cat "$WORK/loop")" 'left at some count'
}

steps() {
	start_loop 2
	debug 0 -ex 'break inner' -ex continue -ex delete -ex 'stepi 300' -ex 'set can-use-hw-watchpoints 0' \
		-ex 'watch half' -ex continue -ex 'print half > 0' -ex detach
	contains watchpoint "$(cat "$WORK/out")" '^Watchpoint .*: half'
	contains watchpoint "$(cat "$WORK/out")" '^New value = '
	end_loop
}

# Threads on two nodes stop together.
threads() {
	start_loop 1,2 two
	debug 0 -ex 'info threads' -ex 'thread apply all bt' -ex 'break inner thread 2' -ex continue \
		-ex detach
	same "threads seen" "$(grep -cE '^[* ] +[12] +Thread' "$WORK/out")" 2
	contains "second thread" "$(cat "$WORK/out")" 'second \(arg='
	end_loop
}

core() {
	start_loop 1
	(cd "$WORK" && taskset -c 2 timeout 240 gcore -o core $loop) >"$WORK/out" 2>&1 ||
		{ cat "$WORK/out"; fatal "gcore fails or does not end"; }
	gdb -nx -batch "$HELPERS/loop" "$WORK/core.$loop" -ex bt >"$WORK/out" 2>&1
	contains "backtrace of the core" "$(cat "$WORK/out")" 'in main \('
	end_loop
}

# From its start under gdb on another CPU than the one it then moves to.
run_under() {
	timeout -k 5 240 gdb -nx -batch -ex 'set breakpoint pending on' -ex 'break inner' -ex run \
		-ex 'set var leave = 1' -ex delete -ex continue \
		--args taskset -c 1 "$HELPERS/loop" >"$WORK/out" 2>&1
	contains "run" "$(cat "$WORK/out")" '^Breakpoint 1, .*inner'
	contains "end" "$(cat "$WORK/out")" 'exited with code 03'
}

trace_calls() {
	command -v strace >/dev/null || return 0
	taskset -c 2 timeout 240 strace -f -o "$WORK/trace" taskset -c 1 sh -c 'echo a; /bin/echo b; exit 4' \
		>"$WORK/out"
	same "status under strace" $? 4
	same "output under strace" "$(cat "$WORK/out")" "a
b"
	contains trace "$(cat "$WORK/trace")" 'execve\("/(usr/)?bin/echo"'
	contains trace "$(cat "$WORK/trace")" 'exited with 4'
}

if [ "${1-}" = inside ]; then
	check "gdb on CPU 0 of a process on CPU 1" attach 0 1
	check "gdb on CPU 2 of a process on CPU 1" attach 2 1
	check "gdb on CPU 1 of a process on CPU 0" attach 1 0
	check "gdb and the process on CPU 2" attach 2 2
	check "gdb changes a remote process" change
	check "steps and watchpoints" steps
	check "threads on two nodes" threads
	check "a core of a remote process" core
	check "a program from its start" run_under
	check "strace of a remote process" trace_calls
	exit 0
fi

command -v gdb >/dev/null || { skip "gdb" "there is no gdb"; exit 0; }
timeout 900 "$PANGEA" run -- bash "$0" inside || echo "not ok machine: status $?"
check "nothing is left" nothing_kept
