#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bad input and hosts that lack something: one line on stderr, the right status, nothing left.
#
#	case -> pangea ->X   no machine comes to be

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# refused STATUS PATTERN ARGUMENT...
refused() {
	local wanted=$1 pattern=$2 status=0

	shift 2
	timeout -k 10 300 "$PANGEA" "$@" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
	same "status of pangea $*" $status "$wanted"
	one_line "^pangea: .*$pattern"
	same "stdout of pangea $*" "$(cat "$WORK/out")" ""
	nothing_kept
}

options() {
	refused 2 'subcommand'
	refused 2 'frobnicate' frobnicate
	refused 2 -- '--frobnicate' --frobnicate
	for sub in run shell up node status stop; do
		refused 2 -- '--frobnicate' $sub --frobnicate
		refused 2 -- '-q' $sub -q
	done
	refused 2 'COMMAND' run
	refused 2 'COMMAND' run --nodes 2 --
	refused 2 -- '--mem needs|argument' run --mem
	refused 2 -- '--join' node
	refused 2 -- '--listen' up
	refused 2 'frobnicate' help frobnicate
	refused 2 'extra' shell extra
	refused 2 -- '--listen' run --listen 127.0.0.1:1 true
}

sizes() {
	local bad

	for bad in 0 -1 17 1000000000000 x 3x '' 3.5 0x2; do
		refused 2 'nodes' run --nodes "$bad" true
	done
	for bad in 0 65 -3 one; do
		refused 2 'cpus' run --cpus "$bad" true
	done
	refused 2 'CPUs' run --nodes 16 --cpus 5 true
	for bad in 0 1 64M -1G 12Q 1.5G G 99999999999999999999G 99999999T ''; do
		refused 2 'mem' run --mem "$bad" true
	done
	refused 125 'mem' run --mem 4000G true
	refused 2 'mem' run --nodes 16 --mem 512M true
	refused 2 'least is 256M' run --nodes 1 --mem 255M true
	refused 2 'least is 512M' run --nodes 3 --mem 511M true
	# To the daemon alike.
	for bad in 0 255M 512T 1.5G -1; do
		PANGEA=$BUILD/pangead refused 125 'mem|memory' host --nodes 1 --cpus 1 --mem "$bad" \
			--listen 127.0.0.1:0 --control "$WORK/control" --kernel /bin/true \
			--stub "$BUILD/pangea-stub" --log "$WORK/node.log"
	done
	PANGEA=$BUILD/pangead refused 125 'ready-fd 77: Bad file' host --ready-fd 77
	PANGEA=$BUILD/pangead refused 125 'frobnicate' node --frobnicate
	PANGEA_KEY=$(printf '%032d' 0) PANGEA=$BUILD/pangead refused 125 'nowhere/log: No such file' node --join \
		127.0.0.1:1 --listen 127.0.0.1:0 --cpus 1 --stub "$BUILD/pangea-stub" --log "$WORK/nowhere/log"
}

roots() {
	refused 2 'nowhere: No such file' run --root "$WORK/nowhere" true
	refused 2 'nowhere: No such file' run --rw "$WORK/nowhere" true
	echo "not an image" >"$WORK/text"
	refused 2 'text: .*ext4' run --root "$WORK/text" true
	: >"$WORK/empty"
	refused 2 'empty: .*ext4' run --root "$WORK/empty" true
	refused 2 'text: not a directory' run --rw "$WORK/text" true
	refused 2 'whole host' run --rw / true
	refused 2 'null' run --root /dev/null true
	# An image by its magic number only.
	head -c 1080 /dev/zero >"$WORK/fake"
	printf '\x53\xef' >>"$WORK/fake"
	head -c 1000000 /dev/zero >>"$WORK/fake"
	refused_late 125 'image' run --root "$WORK/fake" true
	# A directory in which there is nothing to run.
	mkdir -p "$WORK/void"
	refused_late 127 'true' run --root "$WORK/void" true
}

# A machine was made and found out; its logs are kept for the user, and he is told where.
refused_late() {
	local wanted=$1 pattern=$2 status=0

	shift 2
	timeout -k 10 300 "$PANGEA" "$@" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
	same "status of pangea $*" $status "$wanted"
	one_line "^pangea: .*$pattern"
	nothing_left
	same "environment left" "$(ls "$XDG_RUNTIME_DIR"/pangea/*/{config,key} 2>/dev/null)" ""
	rm -rf "$XDG_RUNTIME_DIR/pangea"
}

names() {
	local bad

	for bad in '' 'a b' -x ../up 'a/b' "$(printf 'n%.0s' $(seq 80))"; do
		refused 2 'name' run --name="$bad" true
	done
	refused 125 'no machine|no running machine' status nobody
	refused 125 'no machine|no running machine' stop nobody
	refused 125 'no machine|no running machine' stop
	refused 2 'one machine' status a b
}

name_taken() {
	machine_start --name taken sh -c 'read -r x; exit 4'
	timeout 300 "$PANGEA" run --name taken true </dev/null >"$WORK/out" 2>"$WORK/err"
	same "status of the second" $? 125
	one_line 'taken is running already'
	machine_wait
	same "status of the first" $? 4
	nothing_kept
}

addresses() {
	local bad

	PANGEA_KEY=$(printf '%032d' 0)
	export PANGEA_KEY
	for bad in '' 127.0.0.1 :1 127.0.0.1: 127.0.0.1:x 127.0.0.1:99999 127.0.0.1:-1; do
		refused 2 'listen' up --listen "$bad" true
		refused 2 'join' node --join "$bad"
	done
	for bad in 1.2.3.4.5:1 host:name:1 nowhere.invalid:7200; do
		refused 125 "$bad" up --listen "$bad" true
		refused 125 "$bad" node --join "$bad"
	done
	# Who joins must have the machine's key.
	echo 0123 >"$WORK/short"
	refused 2 'short: not a' node --join 127.0.0.1:1 --key "$WORK/short"
	refused 2 'nowhere: No such' node --join 127.0.0.1:1 --key "$WORK/nowhere"
	PANGEA_KEY=0123 refused 2 'PANGEA_KEY' node --join 127.0.0.1:1
	unset PANGEA_KEY
	refused 2 -- '--key FILE is missing' node --join 127.0.0.1:1
	export PANGEA_KEY=00112233445566778899aabbccddeeff
	# Without encryption nothing but loopback and private addresses will do.
	refused 125 '8.8.8.8|private|loopback' up --listen 8.8.8.8:7200 true
	refused 125 'private|loopback|0.0.0.0' up --listen 0.0.0.0:7200 true
	refused 125 'refused|connect|join' node --join 127.0.0.1:1 --name lonely
}

port_in_use() {
	"$HELPERS/poke" listen 127.0.0.1:7299 >"$WORK/poke" &
	local poke=$!

	wait_for 120 test -s "$WORK/poke" || fatal "cannot occupy a port"
	refused 125 '7299.*in use' up --listen 127.0.0.1:7299 true
	kill $poke
	wait $poke 2>/dev/null
	return 0
}

programs() {
	PANGEA_KERNEL=/nonexistent refused 125 'PANGEA_KERNEL=/nonexistent: No such file' run true
	PANGEA_DAEMON=/etc/passwd refused 125 'PANGEA_DAEMON=/etc/passwd: Permission denied' run true
	PANGEA_STUB=/nonexistent refused 125 'PANGEA_STUB' run true
	PANGEA_INIT=/nonexistent refused 125 'PANGEA_INIT' run true
	# Programs that are something else.
	PANGEA_KERNEL=/bin/true refused_late 125 'kernel' run true
	PANGEA_KERNEL=/bin/cat refused_late 125 'kernel' run true
	PANGEA_DAEMON=/bin/false refused 125 'node' run true
	PANGEA_STUB=/bin/true refused 125 'stub' run true
	PANGEA_START=soon refused 125 'PANGEA_START=soon.*milliseconds' run true
	PANGEA_START=5++ refused 125 'PANGEA_START=5\+\+.*milliseconds' run true
	PANGEA_START=-1 refused 125 'PANGEA_START=-1.*milliseconds' run true
	mkdir -p "$WORK/alone"
	cp "$PANGEA" "$WORK/alone/"
	PANGEA=$WORK/alone/pangea refused 125 'pangead is not in .*/alone.*make' run true
}

# What an administrator may have set; changed for the processes of this test only where there is a way to.
host_limits() {
	(
		ulimit -v 400000
		refused 125 '[Mm]emory|mem' run true
	) || exit 1
	(
		ulimit -f 400000
		refused 125 'ulimit -f' run true
	) || exit 1
	(
		ulimit -n 12
		refused 125 'files|descriptors' run true
	) || exit 1
	(
		export XDG_RUNTIME_DIR=$WORK/readonly
		mkdir -p "$XDG_RUNTIME_DIR"
		mount -t tmpfs -o ro tmpfs "$XDG_RUNTIME_DIR" 2>/dev/null || exit 0
		refused 125 'Read-only' run true
		mount -o remount,rw,size=1M "$XDG_RUNTIME_DIR"
		refused 125 'free' run true
		umount "$XDG_RUNTIME_DIR"
	) || exit 1
}

# Less memory than the machine may need, allowed to this process's control group: version 2 or 1.
control_group() {
	local group=/sys/fs/cgroup/pangea-test limit=memory.max

	[ ! -d /sys/fs/cgroup/memory ] || { group=/sys/fs/cgroup/memory/pangea-test; limit=memory.limit_in_bytes; }
	mkdir "$group/" && [ -w "$group/$limit" ] || { rmdir "$group"; return 0; }
	echo 900M >"$group/$limit"
	(
		sh -c 'echo $PPID' >"$group/cgroup.procs" && mkdir "$group/inner" || exit 1
		refused 125 'control group' run true
		expect 0 --nodes 2 --mem 512M -- true
	)
	local status=$?
	rmdir "$group/inner"
	wait_for 10 rmdir "$group"
	return $status
}

# A program that may not use userfaultfd, as in some containers.
no_userfaultfd() {
	printf '#!/bin/sh\nexec "%s" deny-userfaultfd "%s" "$@"\n' "$HELPERS/poke" "$PANGEA" >"$WORK/without"
	chmod +x "$WORK/without"
	PANGEA=$WORK/without refused 125 'userfaultfd' run true
	"$HELPERS/poke" deny-userfaultfd "$BUILD/pangead" check --stub "$BUILD/pangea-stub" 2>"$WORK/err"
	same "status of pangead check" $? 125
	one_line '^pangea: .*userfaultfd'
	"$BUILD/pangead" check --stub "$BUILD/pangea-stub" || fatal "pangead check: status $?"
}

# As on Debian 12 with its own kernel: said before anything is installed or built.
old_linux() {
	mkdir -p "$WORK/old"
	printf '#!/bin/sh\necho 6.1.0-18-amd64\n' >"$WORK/old/uname"
	chmod +x "$WORK/old/uname"
	for program in demo test; do
		PATH=$WORK/old:$PATH timeout 10 "$SOURCE/$program" >"$WORK/out" 2>"$WORK/err" </dev/null
		same "status of $program" $? 1
		same "lines on stderr" "$(wc -l <"$WORK/err")" 1
		contains stderr "$(cat "$WORK/err")" 'Linux 6.1.0-18-amd64 .*6\.4'
	done
}

# source_refused PATTERN SOURCE: what kernel-prepare says of it
source_refused() {
	"$SOURCE/tools/kernel-prepare" --build "$WORK/kernel" --source "$2" >"$WORK/out" 2>"$WORK/err"
	same "status for $2" $? 1
	one_line "^kernel-prepare: .*$1"
	rm -rf "$WORK/kernel"
}

kernel_sources() {
	source_refused 'there is no .*nowhere' "$WORK/nowhere"
	mkdir -p "$WORK/source/linux-7.2"
	source_refused 'not the source of Linux' "$WORK/source"
	echo "not a tarball" >"$WORK/notes"
	source_refused 'not the source of Linux' "$WORK/notes"
	for patchlevel in 2 4; do
		printf 'VERSION = 7\nPATCHLEVEL = %d\n' $patchlevel >"$WORK/source/linux-7.2/Makefile"
		source_refused "is Linux 7.$patchlevel; Pangea needs 7.3" "$WORK/source/linux-7.2"
		tar -C "$WORK/source" -cJf "$WORK/linux.tar.xz" linux-7.2
		source_refused "is Linux 7.$patchlevel; Pangea needs 7.3" "$WORK/linux.tar.xz"
	done
}

directory_gone() {
	mkdir "$WORK/gone"
	cd "$WORK/gone" || fatal "cannot enter $WORK/gone"
	rmdir "$WORK/gone"
	refused 125 'current directory' run pwd
}

# An image serves one machine.
image_in_use() {
	command -v mkfs.ext4 >/dev/null || return 0
	truncate -s 64M "$WORK/image"
	mkfs.ext4 -q "$WORK/image" || fatal "mkfs.ext4: status $?"
	flock "$WORK/image" sleep 100 &
	wait_for 10 eval '! flock -n "$WORK/image" true' || fatal "the image is not locked"
	refused 125 'image: in use' run --root "$WORK/image" /bin/true
	kill $!
	wait $! 2>/dev/null
	return 0
}

# vm.max_map_count is the host's, so only a private view of /proc/sys can be made to say less.
map_count() {
	mount | grep -q ' on /proc ' && [ -w /proc/sys/vm/max_map_count ] || return 0
	echo 1000 >"$WORK/max_map_count"
	mount --bind "$WORK/max_map_count" /proc/sys/vm/max_map_count || return 0
	refused 125 'max_map_count' run true
	umount /proc/sys/vm/max_map_count
}

check "unknown subcommands and options" options
check "impossible sizes" sizes
check "roots and directories that are none" roots
check "names" names
check "a name that is taken" name_taken
check "addresses" addresses
check "a port in use" port_in_use
check "programs that are missing or not what they should be" programs
check "host limits" host_limits
check "no right to userfaultfd" no_userfaultfd
check "a Linux that is too old" old_linux
check "sources of Linux that are not" kernel_sources
check "a directory that is gone" directory_gone
check "an image in use" image_in_use
if [ "${OWN_NAMESPACE-}" = 1 ]; then
	check "vm.max_map_count too low" map_count
	check "a control group's memory" control_group
fi
check "nothing is left" nothing_left
