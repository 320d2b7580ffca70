#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Machines that end before their time: a daemon killed, frozen or told to go, ^C at any moment.
#
#	+- node 0 --+- node 1 --+- node 2 --+
#	|  SIGKILL  |  SIGKILL  |  SIGSTOP  |  ... within two seconds nothing is left, and one line says why
#	+-----------+-----------+-----------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

busy='for k in 0 1 2; do taskset -c $k sh -c "while :; do :; done" & done; echo busy; wait'

busy_machine() {
	machine_start sh -c "$busy"
	wait_for 120 grep -q busy "$WORK/machine.out" || fatal "the machine is not busy"
}

# Ends within so many milliseconds: ended_within MS STATUS
ended_within() {
	local start=$1 limit=$2 wanted=$3 status=0 took

	exec 7>&-
	wait "$machine" || status=$?
	took=$(($(_now_ms) - start))
	cat "$WORK/machine.err"
	same status $status "$wanted"
	[ $took -le "$limit" ] || fatal "it took $took ms, at most $limit are allowed"
	nothing_left
}

# The line names the node and gives a reason.
names_node() {
	cp "$WORK/machine.err" "$WORK/err"
	one_line "^pangea: .*node$1.*[a-z]{3}"
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

daemon_dies() {
	local node=$1 signal=$2 limit=$3 start

	busy_machine
	start=$(_now_ms)
	kill -"$signal" "$(node_pid "$node")" || fatal "no daemon of node $node"
	ended_within "$start" "$limit" 125
	names_node "$node"
}

# The other nodes hear nothing from it any more; it is their part to notice.
daemon_freezes() {
	local node=$1 pid start

	busy_machine
	pid=$(node_pid "$node")
	start=$(_now_ms)
	kill -STOP "$pid"
	ended_within "$start" 6000 125
	names_node "$node"
}

kernel_dies() {
	local start pid

	busy_machine
	pid=$("$PANGEA" status --json | grep -o '"kernel_pid":[0-9]*' | cut -d: -f2)
	[ "${pid:-0}" -gt 1 ] || fatal "status does not tell the kernel's process"
	start=$(_now_ms)
	kill -KILL "$pid"
	ended_within "$start" 4000 125
	cp "$WORK/machine.err" "$WORK/err"
	one_line '^pangea: .*kernel'
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

command_dies() {
	local start

	busy_machine
	start=$(_now_ms)
	kill -KILL "$machine"
	ended_within "$start" 3000 137
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

stop_command() {
	local start

	busy_machine
	start=$(_now_ms)
	"$PANGEA" stop || fatal "pangea stop: status $?"
	ended_within "$start" 6000 143
	same "stderr" "$(cat "$WORK/machine.err")" ""
	nothing_kept
}

# COMMAND may end in order.
polite_end() {
	machine_start bash -c 'trap "echo caught; exit 9" TERM; echo busy; while :; do sleep 0.1; done'
	wait_for 120 grep -q busy "$WORK/machine.out" || fatal "the machine is not busy"
	kill -TERM "$machine"
	machine_wait
	same "status of pangea" $? 143
	contains "output" "$(cat "$WORK/machine.out")" '^caught$'
	nothing_kept
}

# An interrupt so many milliseconds after the start, from before the first daemon to after COMMAND has begun.
interrupt_at() {
	local ms=$1 signal=$2 wanted=$3 status=0 start

	env --default-signal=INT,QUIT "$PANGEA" run sh -c "$busy" </dev/null \
		>"$WORK/machine.out" 2>"$WORK/machine.err" &
	machine=$!
	sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
	start=$(_now_ms)
	kill -"$signal" "$machine" || fatal "pangea is not there"
	ended_within "$start" 6000 "$wanted"
	same "stderr" "$(cat "$WORK/machine.err")" ""
	nothing_kept
}

interrupts() {
	local ms

	for ms in 5 30 100 200 400 700 1000 1500 2000 3000 4500; do
		(interrupt_at $ms INT 130) || fatal "interrupted after $ms ms: see above"
	done
	(interrupt_at 300 TERM 143) || fatal "terminated after 300 ms"
	(interrupt_at 2500 HUP 129) || fatal "hung up after 2500 ms"
}

# As ^C does, to all processes of the job, after so many seconds: interrupted_job SECONDS COMMAND...
interrupted_job() {
	local seconds=$1 job status=0

	shift
	mkdir -p "$WORK/tmp"
	TMPDIR=$WORK/tmp env --default-signal=INT,QUIT setsid "$@" </dev/null >"$WORK/job.out" 2>"$WORK/job.err" &
	job=$!
	sleep "$seconds"
	kill -INT -- -$job || { cat "$WORK/job.err"; fatal "$* has ended before $seconds s"; }
	wait $job || status=$?
	same "status of $* after $seconds s" $status 130
	wait_for 5 eval '! pgrep -s $job >/dev/null' || fatal "still running: $(pgrep -as $job | head -n 1)"
	same "left in TMPDIR" "$(ls -A "$WORK/tmp")" ""
	same "stderr" "$(grep -v '^make' "$WORK/job.err")" ""
}

# In a checkout of its own, which is not built yet; and while the job runs.
interrupted_demo() {
	local seconds

	mkdir -p "$WORK/checkout"
	tar -C "$SOURCE" --exclude=./build --exclude=./configure --exclude=./.git --exclude=./autom4te.cache -cf - . |
		tar -C "$WORK/checkout" -xf -
	for seconds in 0.1 1 3; do
		(interrupted_job $seconds "$WORK/checkout/demo" --no-shell) || exit 1
	done
	[ -d "$BUILD/linux-source" ] || return 0
	for seconds in 0.5 2 6; do
		(interrupted_job $seconds "$SOURCE/tools/demo-job" "$BUILD") || exit 1
		same "left of the job" "$(ls -d "$BUILD"/demo.* 2>/dev/null)" ""
	done
	nothing_kept
}

# A second one does not wait for COMMAND, which ignores the first.
impatient() {
	local start

	machine_start sh -c 'trap "" TERM INT; echo busy; while :; do :; done'
	wait_for 120 grep -q busy "$WORK/machine.out" || fatal "the machine is not busy"
	start=$(_now_ms)
	kill -INT "$machine"
	sleep 0.3
	kill -INT "$machine"
	ended_within "$start" 5000 130
	nothing_kept
}

# Many machines one after the other and at the same time.
many() {
	local k pids=()

	for k in 1 2 3 4; do
		"$PANGEA" run --nodes 2 --mem 512M sh -c "sleep 1; exit $k" \
			</dev/null >/dev/null 2>"$WORK/err.$k" &
		pids+=($!)
	done
	for k in 1 2 3 4; do
		wait "${pids[$((k - 1))]}"
		same "status of machine $k" $? $k
	done
	nothing_kept
}

check "node 1's daemon is killed" daemon_dies 1 KILL 2000
check "node 2's daemon is told to go" daemon_dies 2 TERM 2000
check "node 0's daemon is killed" daemon_dies 0 KILL 2000
check "node 1's daemon freezes" daemon_freezes 1
check "the kernel is killed" kernel_dies
check "pangea itself is killed" command_dies
check "pangea stop" stop_command
check "COMMAND is told to end" polite_end
check "^C at any moment" interrupts
check "a second ^C" impatient
check "^C during ./demo" interrupted_demo
check "four machines at the same time" many
check "nothing is left" nothing_left
