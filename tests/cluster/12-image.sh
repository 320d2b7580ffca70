#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An ext4 image as root, and swapping to an image, with memory of all nodes.
#
#	+- node 0 ---------+- node 1 --+- node 2 --+
#	| ext4 on root.img | programs  | programs  |
#	| swap on a loop   |           |           |
#	+------------------+-----------+-----------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

command -v mkfs.ext4 >/dev/null || { skip "image" "there is no mkfs.ext4"; exit 0; }

copy_with_libraries() {
	local root=$1 file library

	shift
	for file; do
		install -D "$file" "$root$file"
		ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
			[ -e "$root$library" ] || install -D "$library" "$root$library"
		done
	done
}

make_image() {
	local root=$WORK/root program library

	mkdir -p "$root"/{proc,sys,dev,tmp,run,etc,root,guest} "$root"/usr/{bin,sbin,lib,lib64}
	ln -s usr/{bin,sbin,lib,lib64} "$root/"		# as Debian has it: /bin/sh wherever PATH finds sh
	for program in sh bash cat ls sync mount sed grep sleep dd rm mkdir cp date env tail timeout dirname \
		id head cut nproc taskset sha256sum seq sort stat cmp mktemp; do
		copy_with_libraries "$root" "$(command -v $program)"
	done
	cp "$GUEST"/* "$root/guest/"
	cp "$SOURCE"/tests/guest/{run,list} "$root/guest/"
	for library in $(ldd "$GUEST/terminal" | grep -o '/[^ ]*'); do
		[ -e "$root$library" ] || install -D "$library" "$root$library"
	done
	ln -sf bash "$root/bin/rbash"
	truncate -s 400M "$WORK/root.img"
	mkfs.ext4 -q -F -d "$root" "$WORK/root.img" || fatal "mkfs.ext4: status $?"
}

boots() {
	cd / || exit 1
	expect 0 --root "$WORK/root.img" -- sh -c 'grep " / " /proc/mounts; nproc; echo kept >/etc/kept
		head -c 30000000 /dev/urandom >/big; sha256sum </big >/sum
		taskset -c 1 sha256sum </big | cmp - /sum'
	contains mounts "$(cat "$WORK/out")" ' / ext4 rw'
	contains CPUs "$(cat "$WORK/out")" '^3$'
}

# What the first machine wrote, the second reads, and the file system is sound.
keeps() {
	expect 0 --root "$WORK/root.img" -- \
		sh -c 'cat /etc/kept; taskset -c 2 sha256sum </big | cmp - /sum'
	same "kept" "$(cat "$WORK/out")" kept
	e2fsck -fn "$WORK/root.img" >"$WORK/fsck" 2>&1 || { cat "$WORK/fsck"; fatal "e2fsck: status $?"; }
}

programs() {
	timeout 900 "$PANGEA" run --root "$WORK/root.img" -- bash /guest/run --cpus 1,2,0 /guest \
		mmap-file 'shared-counter -k file' copy-user 'stream -k fifo*' 'cow -n 4' spawn \
		2>"$WORK/err" </dev/null
	[ $? -le 1 ] || echo "not ok the machine: $(tail -n 1 "$WORK/err")"
}

# A control group that may use 24 MiB runs a process of 72: the rest goes to the image and comes back.
swap_inside() {
	local group=/sys/fs/cgroup/swap device

	truncate -s 300M /tmp/swap.img
	mkswap /tmp/swap.img >/dev/null || fatal "mkswap: status $?"
	device=$(losetup -f --show /tmp/swap.img) || fatal "losetup: status $?"
	swapon "$device" || fatal "swapon: status $?"
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir $group
	echo 24M >$group/memory.max
	sh -c "echo \$\$ >$group/cgroup.procs; exec $GUEST/move -n 36 -c 1,2,0" || fatal "move: status $?"
	[ "$(awk '/^pswpout/ { print $2 }' /proc/vmstat)" -gt 5000 ] || fatal "nothing was swapped out"
	[ "$(awk '/^pswpin/ { print $2 }' /proc/vmstat)" -gt 5000 ] || fatal "nothing was swapped in"
	swapoff "$device" || fatal "swapoff: status $?"
}

swap() {
	LIMIT=900 expect 0 --mem 2G -- \
		bash -c ". $SOURCE/tests/lib.sh; $(declare -f swap_inside); swap_inside"
}

check "an image is made" make_image
check "an ext4 image as root" boots
check "the image keeps what was written" keeps
programs
check "a process is swapped to an image and back, on all nodes" swap
check "nothing is left" nothing_kept
