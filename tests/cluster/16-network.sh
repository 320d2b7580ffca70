#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A machine with a network device, joined to a tap device of the host.
#
#	host: tap 10.99.0.1 ==== pangea --net ==== vec0 10.99.0.2 :machine of three nodes

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

if [ "${OWN_NAMESPACE-}" != 1 ] || [ ! -w /dev/net/tun ]; then
	skip "network device" "needs root and /dev/net/tun"
	exit 0
fi

address=10.99.0.2/24,10.99.0.1

make_tap() {
	ip tuntap add ptap0 mode tap || fatal "ip tuntap: status $?"
	ip addr add 10.99.0.1/24 dev ptap0
	ip link set ptap0 up
}

configured() {
	expect 0 --net ptap0,$address -- sh -c 'ip -br -4 addr show vec0; ip route'
	contains output "$(cat "$WORK/out")" '^vec0 .*10\.99\.0\.2/24'
	contains output "$(cat "$WORK/out")" '^default via 10\.99\.0\.1 dev vec0'
	expect 0 --net ptap0 -- sh -c 'ip addr add 10.99.0.7/24 dev vec0; ip link set vec0 up; ping -c 2 10.99.0.1'
	nothing_kept
}

answers() { ping -c 3 -W 10 10.99.0.2 >/dev/null; }

# A server in the machine, on the CPU of node 2; its client is on the host.
server() {
	local sum

	command -v python3 >/dev/null || { echo "no python3"; return 0; }
	head -c 20000000 /dev/urandom >"$WORK/sent"
	sum=$(sha256sum <"$WORK/sent")
	machine_start --net ptap0,$address taskset -c 2 python3 -SIc '
import socket, hashlib
s = socket.create_server(("10.99.0.2", 80))
print("listening", flush=True)
c, _ = s.accept()
sum = hashlib.sha256()
while True:
    part = c.recv(65536)
    if not part:
        break
    sum.update(part)
c.sendall((sum.hexdigest() + "  -\n").encode())'
	wait_for 300 grep -q listening "$WORK/machine.out" || fatal "the server does not start"
	answers || fatal "no answer to ping"
	timeout 200 python3 -SIc '
import socket, sys
c = socket.create_connection(("10.99.0.2", 80), 30)
c.settimeout(150)
c.sendall(open(sys.argv[1], "rb").read())
c.shutdown(socket.SHUT_WR)
print(c.makefile().read(), end="")' "$WORK/sent" >"$WORK/sum" || fatal "the client: status $?"
	same "sum of what came" "$(cat "$WORK/sum")" "$sum"
	machine_wait || { cat "$WORK/machine.err"; fatal "the machine: status $?"; }
	nothing_kept
}

in_use() {
	machine_start --net ptap0 sh -c 'read -r x; exit 0'
	timeout 60 "$PANGEA" run --net ptap0 true </dev/null >"$WORK/out" 2>"$WORK/err"
	same "status of the second" $? 125
	one_line 'ptap0: in use'
	machine_wait || fatal "the first: status $?"
	nothing_kept
}

# refused STATUS PATTERN VALUE
refused() {
	expect "$1" --net "$3" -- true
	one_line "^pangea: --net .*$2"
	nothing_kept
}

wrong_devices() {
	refused 125 'no such device' nothere
	refused 125 'not a tap device' lo
	refused 2 'not the name' ''
	refused 2 'not the name' a-name-that-is-too-long
	for bad in x 10.0.0.1 10.0.0.1/33 10.0.0.1/ 10.0.0.256/8 10.0.0.1/8, 10.0.0.1/8,x; do
		refused 2 'not TAP,ADDRESS/BITS' "ptap0,$bad"
	done
}

check "a tap device" make_tap
check "addresses, route and ping" configured
check "20 MB to a server in the machine" server
check "a device in use" in_use
check "devices that are none" wrong_devices
ip link del ptap0
check "nothing is left" nothing_left
