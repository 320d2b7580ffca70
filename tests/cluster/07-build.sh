#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# `make -j` of a C program, its compilers on all nodes, gives the bytes that the host's make gives.
#
#	             make -j6
#	+- node 0 ----+- node 1 ----+- node 2 ----+
#	| cc a.c  ... | cc b.c  ... | cc c.c  ... |   the objects are in --rw DIR
#	+-------------+-------------+-------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# The coherence core, the message checks and the simulator that drives them.
prepare() {
	local tree=$1

	mkdir -p "$tree/dsm" "$tree/net" "$tree/tests/sim"
	cp "$SOURCE"/dsm/*.[ch] "$tree/dsm"
	cp "$SOURCE"/net/{wire,link,inprocess,socket,address}.c "$tree/net"
	cp "$SOURCE"/net/{wire,link,transport,address}.h "$tree/net"
	cp "$SOURCE"/tests/sim/*.[ch] "$tree/tests/sim" 2>/dev/null
	cat >"$tree/Makefile" <<-'END'
		.RECIPEPREFIX := >
		objects := $(patsubst %.c,%.o,$(wildcard dsm/*.c net/*.c tests/sim/*.c))
		CFLAGS := -O2 -g -std=gnu11 -D_GNU_SOURCE -ffile-prefix-map=$(CURDIR)=.
		sim: $(objects)
		>$(CC) -Wl,--build-id=none -o $@ $(sort $(objects)) -lpthread
	END
	# One compiler in three on each node.
	cat >"$tree/spread-cc" <<-'END'
		#!/bin/sh
		exec taskset -c $(($$ % $(nproc))) cc "$@"
	END
	chmod +x "$tree/spread-cc"
}

sums() { (cd "$1" && sha256sum dsm/*.o net/*.o tests/sim/*.o sim); }

same_bytes() {
	prepare "$WORK/outside"
	prepare "$WORK/inside"
	make -C "$WORK/outside" -s -j2 CC=./spread-cc >"$WORK/make.log" 2>&1 ||
		{ cat "$WORK/make.log"; fatal "the host's make fails"; }
	LIMIT=600 expect 0 --rw "$WORK/inside" -- make -C "$WORK/inside" -s -j6 CC=./spread-cc
	same "sums" "$(sums "$WORK/inside")" "$(sums "$WORK/outside")"
}

# What was built on several nodes runs on the host and in the machine alike.
same_run() {
	"$WORK/outside/sim" --seed 7 --steps 2000 --nodes 3 >"$WORK/out.host" 2>&1
	run -- taskset -c 2 "$WORK/inside/sim" --seed 7 --steps 2000 --nodes 3
	cat "$WORK/out" "$WORK/err" | cmp - "$WORK/out.host" || fatal "the program says something else"
}

check "make -j6 over three nodes gives the host's bytes" same_bytes
check "the program runs on a remote node" same_run
check "nothing is left" nothing_kept
