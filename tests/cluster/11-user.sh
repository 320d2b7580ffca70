#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An ordinary user's machine: no privilege, nodes on 127.0.0.1 with different ports, the same guest programs.
#
#	user "nobody", 127.0.0.1
#	+- node 0 :p0 --+- node 1 :p1 --+- node 2 :p2 --+
#	| kernel, CPU 0 | CPU 1         | CPU 2         |
#	+---------------+---------------+---------------+

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

if [ "$(id -u)" != 0 ]; then
	skip "ordinary user" "the other tests have run as one"
	exit 0
fi

# What a user needs of the checkout, in a place that he may read.
home=$WORK/home
mkdir -p "$home/run" "$home/build/tests" "$home/tests"
cp "$BUILD"/pangea{,d,-stub,-init,-linux} "$home/build/"
cp -r "$BUILD/tests/guest" "$home/build/tests/"
cp -r "$SOURCE/tests/guest" "$home/tests/"
[ -z "${PANGEA_DAEMON-}" ] || cp "$PANGEA_DAEMON" "$home/build/pangead"
chown -R nobody "$home"
chmod 700 "$home/run"
chmod 755 "$WORK" "$home"

as_nobody() {
	(cd "$home" && env -u PANGEA_DAEMON XDG_RUNTIME_DIR="$home/run" HOME="$home" \
		setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs --bounding-set=-all "$@")
}

machine() { as_nobody timeout -k 10 "${LIMIT:-600}" "$home/build/pangea" run "$@"; }

boots() {
	machine sh -c 'id -un; nproc; touch /etc/x 2>/dev/null || echo no right' \
		>"$WORK/out" 2>"$WORK/err" </dev/null || { cat "$WORK/err"; fatal "status $?"; }
	same "stderr" "$(cat "$WORK/err")" ""
	contains output "$(cat "$WORK/out")" '^nobody$'
	contains output "$(cat "$WORK/out")" '^3$'
	contains output "$(cat "$WORK/out")" '^no right$'
}

streams() {
	head -c 3000000 /dev/urandom >"$WORK/random"
	chmod 644 "$WORK/random"
	machine taskset -c 1 cat <"$WORK/random" | cmp - "$WORK/random" || fatal "other bytes"
	machine sh -c 'exit 7' </dev/null
	same "exit status" $? 7
	machine /nonexistent </dev/null 2>"$WORK/err"
	same "exit status" $? 127
}

# The machine asks the host at most once a second who may search a directory.
searches() {
	local dir=$home/dir machine

	mkdir -p "$dir/inner"
	chown -R nobody "$dir"
	mkfifo "$WORK/in"
	machine sh -c "stat -c %F $dir/inner && read -r _ && sleep 1.5 && stat $dir/inner" <"$WORK/in" >"$WORK/out" 2>"$WORK/err" &
	machine=$!
	exec 9>"$WORK/in"
	wait_for 240 grep -q '^directory$' "$WORK/out" || fatal "the directory is not there: $(cat "$WORK/err")"
	chmod 0 "$dir"
	echo >&9
	exec 9>&-
	wait $machine
	same "exit status" $? 1
	contains "stderr" "$(cat "$WORK/err")" 'Permission denied'
}

guest() {
	local status

	LIMIT=1800 machine -- "$home/tests/guest/run" --cpus 0,1,2 "$home/build/tests/guest" \
		2>"$WORK/err" </dev/null
	status=$?
	[ $status -le 1 ] || echo "not ok the machine: status $status: $(tail -n 1 "$WORK/err")"
}

ends() {
	as_nobody "$home/build/pangea" run sleep 1000 </dev/null >"$WORK/out" 2>"$WORK/err" &
	wait_for 240 compgen -G "$home/run/pangea/*/started" >/dev/null || fatal "it does not start"
	as_nobody "$home/build/pangea" status >"$WORK/out" || fatal "status: $?"
	same "nodes" "$(grep -c '127.0.0.1\|node[0-9] ' "$WORK/out")" 3
	as_nobody "$home/build/pangea" stop || fatal "stop: $?"
	wait $!
	same "exit status" $? 143
}

check "a machine boots" boots
check "streams and exit statuses" streams
check "a directory that is closed on the host" searches
guest
check "status and stop" ends
check "nothing is left" nothing_left
check "no run directory is left" same "run directories" "$(ls -A "$home/run/pangea" 2>/dev/null)" ""
