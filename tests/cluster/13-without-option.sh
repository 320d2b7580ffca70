#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The same kernel tree builds and boots without our option, as an ordinary User-mode Linux.  Takes minutes:
# only with tests/run --full, or when the kernel has been built already.
#
#	linux (CONFIG_UML_SSI off) -- hostfs -- /bin/sh

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

kernel=$BUILD/kernel-without-option/linux

if [ -z "${FULL-}" ] && [ ! -x "$kernel" ]; then
	skip "kernel without the option" "takes minutes; tests/run --full does it"
	exit 0
fi

builds() {
	"$SOURCE/tools/kernel-prepare" --build "$BUILD" --without-option >"$WORK/out" 2>&1 ||
		{ tail -n 30 "$WORK/out"; fatal "kernel-prepare: status $?"; }
	[ -x "$kernel" ] || fatal "there is no $kernel"
}

# The shell is the first process; it says what it sees and powers off.
boots() {
	cat >"$WORK/init" <<-'END'
		#!/bin/sh
		mount -t proc proc /proc
		echo "sum $((6 * 7)) of $(grep -c ^processor /proc/cpuinfo) CPU" >/dev/console
		echo o >/proc/sysrq-trigger
		sleep 60
	END
	chmod +x "$WORK/init"
	timeout -k 5 120 "$kernel" mem=256M rootfstype=hostfs rootflags=/ ro init="$WORK/init" con=null \
		con0=null,fd:1 console=tty0 uml_dir="$WORK" </dev/null >"$WORK/console" 2>&1
	contains console "$(tr -d '\r' <"$WORK/console")" '^sum 42 of 1 CPU'
	if grep -aE 'BUG|WARNING|Oops|panic' "$WORK/console"; then
		fatal "the kernel complains: $(grep -aE 'BUG|WARNING|Oops|panic' "$WORK/console" | head -n 1)"
	fi
}

check "the tree builds without the option" builds
check "it boots" boots
