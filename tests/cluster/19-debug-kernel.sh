#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A kernel that watches itself (lockdep, KASAN, sleeping in atomic context) runs programs of all kinds without a
# report.  Takes minutes to build: only with tests/run --full, or by name when it has been built already.
#
#	+- node 0 ----------------+- node 1 --+- node 2 --+
#	| kernel-debug, programs  | programs  | programs  |
#	+-------------------------+-----------+-----------+
#
# This script runs itself in the machine, where it has the argument "inside".

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

export PANGEA_KERNEL=$BUILD/kernel-debug/linux

if [ -z "${FULL-}" ] && [ ! -x "$PANGEA_KERNEL" ]; then
	skip "kernel that watches itself" "takes minutes; tests/run --full does it"
	exit 0
fi

builds() {
	"$SOURCE/tools/kernel-prepare" --build "$BUILD" --debug >"$WORK/out" 2>&1 ||
		{ tail -n 30 "$WORK/out"; fatal "kernel-prepare: status $?"; }
}

# lockdep ends with its first report and KASAN's taints the kernel, whatever becomes of the text.
watches() {
	same tainted "$(cat /proc/sys/kernel/tainted)" 0
	contains lockdep "$(cat /proc/lockdep_stats)" 'debug_locks: +1$'
	contains messages "$(dmesg)" 'KernelAddressSanitizer initialized'
}

reported() { dmesg | grep -E 'BUG:|WARNING:|KASAN:|INFO: possible|INFO: task|Oops|inconsistent lock|suspicious RCU' | head; }

no_report() {
	watches
	[ -z "$(reported)" ] || { dmesg | tail -n 100; fatal "$(reported)"; }
}

stressed() {
	local name

	for name in vm futex fork mmap mremap signal; do
		timeout 120 stress-ng --$name 3 --timeout 5 --vm-bytes 16M --mmap-bytes 16M --mremap-bytes 16M \
			>"$WORK/out" 2>&1 || { cat "$WORK/out"; fatal "stress-ng $name: status $?"; }
	done
}

inside() {
	check "lockdep and KASAN are there" watches
	"$SOURCE/tests/guest/run" --limit 1800 --cpus 1,2,0 "$GUEST"
	check "no report after the programs" no_report
	check "torture" "$GUEST/torture" --seconds 60
	check "stress-ng" stressed
	check "no report" no_report
}

if [ "${1-}" = inside ]; then
	inside
	exit 0
fi

[ -z "${FULL-}" ] || check "it builds" builds
timeout 7000 "$PANGEA" run --nodes 3 --mem 3G -- bash "$0" inside 2>"$WORK/err" ||
	echo "not ok machine: status $?: $(tail -n 1 "$WORK/err")"
check "nothing is left" nothing_kept
