#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# `pangea run` as a command: help, exit statuses, arguments, environment, directory, streams, roots.
#
#	this host
#	+- node 0 ------------+- node 1 ------+- node 2 ------+
#	| pangead, kernel     | pangead       | pangead       |
#	| CPU 0, 512 MiB      | CPU 1, 512 MiB| CPU 2, 512 MiB|
#	+---------------------+---------------+---------------+
#	  COMMAND is a process of the machine with the caller's directory, environment and streams.

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

help_at_every_level() {
	local sub

	for sub in "" run shell up node status stop help; do
		# shellcheck disable=SC2086
		"$PANGEA" $sub --help >"$WORK/out" 2>"$WORK/err" || fatal "pangea $sub --help: status $?"
		contains "pangea $sub --help" "$(cat "$WORK/out")" "^Usage: pangea"
		same "stderr of pangea $sub --help" "$(cat "$WORK/err")" ""
	done
	contains version "$("$PANGEA" --version)" '^pangea [0-9]'
	same "status without a machine" "$("$PANGEA" status >/dev/null 2>&1; echo $?)" 125
}

exit_statuses() {
	expect 0 true
	same "stderr of true" "$(cat "$WORK/err")" ""
	expect 7 -- sh -c 'exit 7'
	expect 137 -- sh -c 'kill -KILL $$'
	expect 139 -- sh -c 'kill -SEGV $$'
	expect 127 /nonexistent/command
	one_line '/nonexistent/command'
	expect 127 no-such-command
	one_line 'no-such-command'
	expect 126 /etc/passwd
	one_line '/etc/passwd'
	nothing_kept
}

arguments() {
	local words=('a b' '' "it's" $'two\nlines' '*' '-x' '=' 'ümlaut' 'back\slash' '"quoted"' 'a,b')

	expect 0 -- printf '[%s]\n' "${words[@]}"
	same words "$(cat "$WORK/out")" "$(printf '[%s]\n' "${words[@]}")"
}

environment() {
	local directory="$WORK/directory with, blanks"

	mkdir -p "$directory"
	cd "$directory" || fatal "cannot enter $directory"
	umask 027
	TEST_VARIABLE=$'two\nlines' expect 0 -- \
		sh -c 'pwd; printenv TEST_VARIABLE; umask; id -u; id -g; id -G'
	same seen "$(cat "$WORK/out")" "$directory
two
lines
0027
$(id -u)
$(id -g)
$(id -G)"
}

streams() {
	local sum status

	head -c 9000001 /dev/urandom >"$WORK/random"
	sum=$(sha256sum <"$WORK/random")
	run cat <"$WORK/random" || fatal "cat: status $?"
	same "9 MB through cat" "$(sha256sum <"$WORK/out")" "$sum"
	run wc -c <"$WORK/random" || fatal "wc: status $?"
	same "bytes on stdin" "$(cat "$WORK/out")" 9000001
	expect 3 -- sh -c 'echo to stdout; echo to stderr >&2; exit 3'
	same stdout "$(cat "$WORK/out")" "to stdout"
	same stderr "$(cat "$WORK/err")" "to stderr"
	run cat <"/dev/null" || fatal "cat of nothing: status $?"
	same "cat of nothing" "$(cat "$WORK/out")" ""
	status=0
	timeout 300 "$PANGEA" run cat <&- >"$WORK/out" 2>"$WORK/err" || status=$?
	same "status of cat without stdin" $status 1
	contains "cat without stdin" "$(cat "$WORK/err")" 'Bad file descriptor'
	timeout 300 "$PANGEA" run yes 2>"$WORK/err" | head -n 1 >"$WORK/out"
	same "status of yes, whose reader leaves" "${PIPESTATUS[0]}" 141
	same "first line of yes" "$(cat "$WORK/out")" y
	printf 'line\n' | timeout 300 "$PANGEA" run sh -c 'read -r x; echo "got $x"' >"$WORK/out" 2>&1
	same "a line through a pipe" "$(cat "$WORK/out")" "got line"
	nothing_kept
}

files() {
	mkdir -p "$WORK/shared" "$WORK/private"
	echo old >"$WORK/shared/file"
	echo old | tee "$WORK/private/file" >"$WORK/private/removed"
	expect 0 --rw "$WORK/shared" -- sh -c "echo new >$WORK/shared/file && mkdir $WORK/shared/d &&
		mv $WORK/shared/file $WORK/shared/d/moved && ln -s moved $WORK/shared/d/link &&
		echo new >$WORK/private/file && echo x >$WORK/private/other && rm $WORK/private/removed &&
		cat $WORK/private/file"
	same "seen inside" "$(cat "$WORK/out")" new
	same "written with --rw" "$(cat "$WORK/shared/d/link")" new
	same "written without --rw" "$(cat "$WORK/private/file"; ls "$WORK/private")" "old
file
removed"
}

# A small root: a shell and what it needs.
root_directory() {
	local root="$WORK/root" file

	mkdir -p "$root"/{proc,sys,dev,tmp,run,etc}
	for file in /bin/sh /bin/ls /bin/cat; do
		install -D "$file" "$root$file"
		ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
			[ -e "$root$library" ] || install -D "$library" "$root$library"
		done
	done
	echo "this root" >"$root/etc/marker"
	cd / || fatal "cannot enter /"
	expect 0 --root "$root" -- /bin/sh -c 'cat /etc/marker; echo x >/etc/new; ls /etc'
	same seen "$(cat "$WORK/out")" "this root
marker
new"
	same "after it" "$(ls "$root/etc")" marker
}

sizes() {
	expect 0 --nodes 1 -- nproc
	same "CPUs of 1 node" "$(cat "$WORK/out")" 1
	expect 0 --nodes 2 --cpus 2 -- nproc
	same "CPUs of 2 nodes of 2" "$(cat "$WORK/out")" 4
	expect 0 --nodes 5 --mem 2G -- \
		sh -c 'nproc; grep MemTotal /proc/meminfo; ls -d /sys/devices/system/node/node*'
	contains "5 nodes" "$(cat "$WORK/out")" '^5$'
	contains "memory of 2G" "$(cat "$WORK/out")" '^MemTotal: *(19|20)[0-9]{5} kB'
	same "NUMA nodes" "$(grep -c '/node/node' "$WORK/out")" 5
	nothing_kept
}

check "help and version" help_at_every_level
check "exit statuses" exit_statuses
check "arguments reach COMMAND as they are" arguments
check "directory, environment and credentials" environment
check "streams carry every byte" streams
check "files and --rw" files
check "--root DIR" root_directory
check "--nodes, --cpus and --mem" sizes
check "nothing is left" nothing_kept
