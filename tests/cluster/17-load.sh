#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A little of everything that keeps the daemons busy at the same time, on nodes of two CPUs each.
#
#	+- node 0 --------+- node 1 --------+- node 2 --------+
#	| CPU 0, CPU 1    | CPU 2, CPU 3    | CPU 4, CPU 5    |
#	+-----------------+-----------------+-----------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# Lots of guest programs on all nodes at once.
cat >"$WORK/inside" <<'END'
cd "$SOURCE" || exit 9
lot() { tests/guest/run --limit 300 --cpus 2,4,0,3,5,1 "$GUEST" "$@"; }
lot threads futex ipc timers &
lot fork-tree spawn 'signal-*' runaway &
lot 'stream -k * -n 16' copy-user &
lot 'shared-counter -k [amp]*y*' cow fp-state 'move -n 64' &
status=0
for pid in $(jobs -p); do
	wait "$pid" || status=1
done
exit $status
END

at_once() {
	run --cpus 2 --mem 2G -- bash "$WORK/inside" && ! grep '^not ok' "$WORK/out" && return
	cat "$WORK/out" "$WORK/err"
	fatal "$(grep -m1 '^not ok' "$WORK/out" || tail -n 1 "$WORK/err")"
}

LIMIT=600
check "four lots of programs at once" at_once
check "nothing is left" nothing_kept
