# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts of tests/cluster share, outside a machine and inside it.
#
# A script says how each of its cases went with one line, `ok NAME (SECONDS s)` or `not ok NAME: reason`;
# tests/run counts them.  A case is a function that says why and ends its subshell when something is wrong:
#
#   check "name" function [ARGUMENT]...     runs the case; what it prints is shown only if it fails
#   fatal REASON                            ends a case that has failed
#   same WHAT SEEN WANTED                   fatal unless both are equal
#   contains WHAT TEXT PATTERN              fatal unless a line of TEXT matches the regular expression
#   skip "name" REASON                      instead of check, when the host cannot do it
#
# tests/run sets:
#   PANGEA   the command        BUILD   the build directory     SOURCE  the checkout
#   GUEST    guest programs     HELPERS programs of tests/cluster
#   WORK     scratch directory of the script, removed when all has gone well
# Outside a machine XDG_RUNTIME_DIR is $WORK/run, so no other machine of this user is seen or harmed.

set -u

_now_ms() { echo $(($(date +%s%N) / 1000000)); }
_seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }

# The text of a case's failure: what it said last.
_reason() {
	local reason

	reason=$(grep -av '^[[:space:]]*$' "$1" | tail -n 1 | tr -d '\000' | cut -c 1-300)
	echo "${reason:-it says nothing}"
}

check() {
	local name=$1 start log status

	shift
	log=$WORK/case.log
	start=$(_now_ms)
	("$@") >"$log" 2>&1
	status=$?
	if [ $status = 0 ]; then
		echo "ok $name ($(_seconds $(($(_now_ms) - start))) s)"
		return 0
	fi
	echo "not ok $name: $(_reason "$log")"
	sed 's/^/# /' "$log" | tail -n 40
	set_aside
	return 1
}

skip() { echo "ok $1 # SKIP $2"; }

fatal() {
	echo "$*"
	exit 1
}

same() {
	[ "$2" = "$3" ] || fatal "$1: '$2', not '$3'"
}

contains() {
	grep -qaE -- "$3" <<<"$2" || { echo "$2"; fatal "$1: no line matches '$3'"; }
}

# Waits until a command succeeds: wait_for SECONDS COMMAND...
wait_for() {
	local end=$(($(_now_ms) + $1 * 1000))

	shift
	until "$@"; do
		[ "$(_now_ms)" -lt $end ] || return 1
		sleep 0.05
	done
}

# Runs `pangea run` with its output in $WORK/out and $WORK/err, returns its status.  The limit finds hangs.
run() {
	timeout -k 10 "${LIMIT:-600}" "$PANGEA" run "$@" >"$WORK/out" 2>"$WORK/err"
}

# expect STATUS ARGUMENT...: the same, and the status must be this.
expect() {
	local wanted=$1 status=0

	shift
	run "$@" || status=$?
	[ $status = "$wanted" ] && return 0
	sed 's/^/err: /' "$WORK/err"
	fatal "pangea run $*: status $status, not $wanted: $(_reason "$WORK/err")"
}

# Exactly one line on stderr, and it matches.
one_line() {
	local lines

	lines=$(wc -l <"$WORK/err")
	[ "$lines" = 1 ] || { cat "$WORK/err"; fatal "$lines lines on stderr, not one"; }
	contains stderr "$(cat "$WORK/err")" "$1"
}

# What failed machines have written goes out of the next case's way, for whoever reads the script's directory.
set_aside() {
	local directory

	for directory in "$XDG_RUNTIME_DIR"/pangea/*/; do
		[ -d "$directory" ] || continue
		tail -qn 5 "$directory"/*.log 2>/dev/null | sed 's/^/# log: /'
		flock -n "$directory/lock" mv "$directory" "$WORK/logs.$(_now_ms)" 2>/dev/null
	done
}

# Processes of this script's machines that are still there: in a PID namespace of its own all of our programs;
# elsewhere those with the script's run directory in their environment or arguments.
leftovers() {
	local process program

	for process in /proc/[0-9]*; do
		[ "$(readlink "$process/ns/pid" 2>/dev/null)" = "$(readlink /proc/self/ns/pid)" ] || continue
		grep -qs "^State:.*Z" "$process/status" && continue
		[ "${OWN_NAMESPACE-}" = 1 ] ||
			grep -qsa "$XDG_RUNTIME_DIR" "$process/environ" "$process/cmdline" || continue
		program=$(readlink "$process/exe")
		case "${program##*/}" in pangea* | linux) ;; *) continue ;; esac
		echo "${process#/proc/}: $(tr '\0' ' ' <"$process/cmdline" | cut -c 1-120)"
	done
}

none_left() { [ -z "$(leftovers)" ]; }

# A case of its own at the end of each script, and a part of those that end machines by force.
nothing_left() {
	wait_for 1 none_left || { leftovers; fatal "still running: $(leftovers | head -n 1)"; }
	same "left in /dev/shm" "$(find /dev/shm -mindepth 1 -newer "$WORK/started" 2>/dev/null)" ""
	same "networks left" "$(ip -o link 2>/dev/null | grep -v LOOPBACK | grep -F pangea)" ""
}

# And the run directory is empty: nothing failed.
nothing_kept() {
	nothing_left
	same "run directories left" "$(ls -A "$XDG_RUNTIME_DIR/pangea" 2>/dev/null)" ""
}

# A machine beside the script: machine_start ARGUMENT... returns when COMMAND has been started.
# Its stdin is descriptor 7, its pid $machine, its output $WORK/machine.out and .err.
machine_start() {
	rm -f "$WORK/machine.in"
	mkfifo "$WORK/machine.in"
	"$PANGEA" run "$@" <"$WORK/machine.in" >"$WORK/machine.out" 2>"$WORK/machine.err" &
	machine=$!
	exec 7>"$WORK/machine.in"
	wait_for 60 machine_runs || { cat "$WORK/machine.err"; fatal "the machine does not start"; }
}

machine_runs() {
	compgen -G "$XDG_RUNTIME_DIR/pangea/*/started" >/dev/null && return 0
	kill -0 "$machine" 2>/dev/null || { cat "$WORK/machine.err"; fatal "the machine has ended"; }
	return 1
}

# Returns its status.
machine_wait() {
	local status=0

	exec 7>&-
	wait "$machine" || status=$?
	return $status
}

# A number of a node of the only machine in `pangea status --json`: number NODE KEY
number() {
	"$PANGEA" status --json | sed 's/{"node":/\n&/g' |
		sed -n "/^{\"node\":$1,/s/.*\"$2\":\([0-9]*\).*/\1/p"
}

# The daemon of a node of the only machine: node_pid NUMBER
node_pid() {
	local number=$1 process

	for process in /proc/[0-9]*; do
		[ "$(readlink "$process/ns/pid" 2>/dev/null)" = "$(readlink /proc/self/ns/pid)" ] || continue
		case "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)" in
		*"pangead "*"$XDG_RUNTIME_DIR/"*"--name node$number "*)
			echo "${process#/proc/}"
			return 0 ;;
		esac
	done
	return 1
}
