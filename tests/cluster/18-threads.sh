#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Threads of one process on CPUs of several nodes: memory between them is x86-64's, whatever happens to their
# address space, and real programs with threads compute what they compute on the host.
#
#	+- node 0 ---------+- node 1 ---------+- node 2 ---------+
#	| kernel           |                  |                  |
#	| thread, thread   | thread, thread   | thread, thread   |   one process
#	+------------------+------------------+------------------+
#
# With --full litmus tests of 100,000 rounds, which takes hours, torture for ten minutes, and Java; without, few
# rounds, and 40 seconds.
#
# This script runs itself in the machine, where it has the argument "inside".

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

# litmus TITLE MACHINE-OPTIONS ROUNDS [TEST]...
litmus() {
	local title=$1 options=$2 rounds=$3 status

	shift 3
	# shellcheck disable=SC2086
	timeout "${LIMIT:-900}" "$PANGEA" run $options -- "$GUEST/litmus" --rounds "$rounds" "$@" 2>"$WORK/err" |
		sed -u "s/^\(not ok\|ok\) /\1 $title: /"
	status=${PIPESTATUS[0]}
	[ "$status" -le 1 ] || echo "not ok $title: the machine: status $status: $(tail -n 1 "$WORK/err")"
}

# The checks can fail: what is wrong on purpose is found.
finds() {
	local said=$1

	shift
	run "$@"
	same "status" $? 1
	contains "output" "$(cat "$WORK/out")" "$said"
}

# What the kernel has to say when it fails is said as well.
torture() {
	local seconds=$1 options=$2 status=0

	# shellcheck disable=SC2086
	LIMIT=$((seconds * 3 + 300)) run $options -- \
		sh -c "'$GUEST/torture' --seconds $seconds || { dmesg | tail -n 9 | sed 's/^/# /'; exit 1; }" || status=$?
	cat "$WORK/out"
	same "status" $status 0
	contains output "$(cat "$WORK/out")" '^ok torture'
}

# --- programs: on the host, then in the machine ---

make_programs() {
	head -c 8M "$BUILD/pangea-linux" >"$WORK/input"
	cat >"$WORK/threads.py" <<-'END'
		import concurrent.futures, hashlib, queue, threading

		def digest(n):
		    return hashlib.sha256(bytes([n, n * 7]) * 1000000).hexdigest()

		with concurrent.futures.ThreadPoolExecutor(3) as pool:
		    for line in pool.map(digest, range(9)):
		        print(line)

		todo, done, lock, total = queue.Queue(8), [], threading.Lock(), [0]

		def worker():
		    while (n := todo.get()) is not None:
		        with lock:
		            total[0] += n
		        done.append(n * n)

		threads = [threading.Thread(target=worker) for _ in range(3)]
		for thread in threads:
		    thread.start()
		for n in range(30):
		    todo.put(n)
		for thread in threads:
		    todo.put(None)
		for thread in threads:
		    thread.join()
		print(total[0], sum(done), len(done))
	END
	cat >"$WORK/threads.js" <<-'END'
		const { Worker, isMainThread, workerData } = require('worker_threads');
		const workers = 3, rounds = 2000;

		function work(words, i) {
		  for (let n = 0; n < rounds; n++) {
		    Atomics.add(words, 0, n % 7);
		    while (Atomics.compareExchange(words, 2, 0, 1))
		      Atomics.wait(words, 2, 1, 10);
		    words[1]++;
		    Atomics.store(words, 2, 0);
		    Atomics.notify(words, 2, 1);
		    words[16 + i + workers * n] += n;
		  }
		}

		if (isMainThread) {
		  const memory = new SharedArrayBuffer(65536), words = new Int32Array(memory);
		  let left = workers;
		  for (let i = 0; i < workers; i++)
		    new Worker(__filename, { workerData: { memory, i } }).on('exit', (status) => {
		      if (!status && !--left)
		        console.log(words[0], words[1], words.reduce((sum, word) => (sum * 31 + word) % 1000003, 0));
		    });
		} else {
		  work(new Int32Array(workerData.memory), workerData.i);
		}
	END
	cat >"$WORK/Threads.java" <<-'END'
		import java.util.concurrent.*;
		import java.util.stream.*;

		public class Threads {
		    static int count;
		    static synchronized void add(int n) { count += n; }

		    static long work(long seed) {
		        long sum = 0;
		        var kept = new java.util.ArrayList<Long>();
		        for (long i = 0; i < 20000; i++) {
		            kept.add(i * seed);
		            sum = sum * 31 + kept.get((int) (i / 2));
		            if (i % 100 == 0)
		                add(1);
		        }
		        return sum;
		    }

		    public static void main(String[] arguments) throws Exception {
		        ExecutorService pool = Executors.newFixedThreadPool(6);
		        var results = LongStream.range(0, 24).mapToObj(seed -> pool.submit(() -> work(seed))).toList();
		        for (var result : results)
		            System.out.println(result.get());
		        pool.shutdown();
		        System.out.println(count);
		        System.out.println(IntStream.range(0, 300000).parallel().mapToLong(i -> (long) i * i % 1009).sum());
		    }
		}
	END
	if command -v javac >/dev/null; then
		javac -d "$WORK" "$WORK/Threads.java"
	fi
}

# The programs themselves, not scripts that look for them: PROGRAM says what it is.
program_path() {
	case "$1" in
	python3) python3 -c 'import sys; print(sys.executable)' ;;
	node) node -p process.execPath ;;
	*) command -v "$1" ;;
	esac
}

# Its output on stdout must be the same everywhere.
run_program() {
	case "$1" in
	xz) "$2" -T3 --block-size=1MiB -1 -c "$WORK/input" ;;
	openmp) "$GUEST/openmp" -c "$(seq -s, 0 2)" ;;
	python3) "$2" "$WORK/threads.py" ;;
	node) "$2" "$WORK/threads.js" ;;
	java) "$2" -cp "$WORK" Threads ;;
	esac
}

# CPUs of remote nodes that have run user code since boot, in clock ticks.
remote_ticks() { awk '/^cpu[12] / { printf "%d ", $2 + $3 }' /proc/stat; }

same_output() {
	local name=$1 before after

	before=$(remote_ticks)
	run_program "$name" "$(cat "$WORK/$name.path")" >"$WORK/$name.inside" || fatal "$name: status $?"
	cmp "$WORK/$name.inside" "$WORK/$name.outside" || fatal "the output is not that of the host"
	after=$(remote_ticks)
	echo "user ticks on CPUs 1 and 2: $before, then $after"
	[ "${after%% *}" -gt "${before%% *}" ] || fatal "nothing has run on CPU 1"
	[ "$(cut -d' ' -f2 <<<"$after")" -gt "$(cut -d' ' -f2 <<<"$before")" ] || fatal "nothing has run on CPU 2"
}

contention() {
	"$GUEST/mutex" -c 0,1,2 -n "$1" >"$WORK/out" || fatal "$(cat "$WORK/out")"
}

stress() {
	timeout 120 stress-ng --"$1" 3 --timeout "$2" --verify --vm-bytes 16M --mmap-bytes 16M \
		--mremap-bytes 16M >"$WORK/out" 2>&1 || { cat "$WORK/out"; fatal "stress-ng: status $?"; }
	contains stress-ng "$(cat "$WORK/out")" 'successful run completed'
	if grep -E 'fail|error' "$WORK/out"; then
		fatal "stress-ng has found something"
	fi
}

# A number that gdb has printed: value N
value() { sed -n 's/^\$'"$1"' = //p' "$WORK/out"; }

debug() {
	taskset -c 0 timeout -k 5 240 gdb -nx -batch -ex 'set breakpoint pending on' "$@" \
		--args taskset -c 1,2 "$HELPERS/loop" two >"$WORK/out" 2>&1 || fatal "gdb: status $?"
}

# One thread stands still or steps on one node, the other runs on another and goes on counting.
step_while_others_run() {
	debug -ex 'set non-stop on' -ex 'break second' -ex run -ex 'thread 2' -ex 'print count' \
		-ex 'shell sleep 0.5' -ex 'print count' -ex step -ex step -ex step -ex bt -ex 'stepi 100' \
		-ex 'info threads' -ex 'print count' -ex kill
	contains backtrace "$(cat "$WORK/out")" '^#0 +inner \(add=1\)'
	contains "the other thread" "$(cat "$WORK/out")" '^  1 +Thread .*\(running\)'
	[ "$(value 2)" -gt $(($(value 1) + 1000)) ] || fatal "the other thread does not count: $(value 1), $(value 2)"
	[ "$(value 3)" -gt "$(value 2)" ] || fatal "the other thread does not count: $(value 2), $(value 3)"
}

# All stop together; while one steps the others run, or not, as gdb is told.
step_with_others() {
	debug -ex 'break second' -ex run -ex delete -ex 'print count' -ex 'stepi 300' -ex 'print count' \
		-ex 'set scheduler-locking on' -ex 'stepi 300' -ex 'print count' -ex kill
	[ "$(value 2)" -gt $(($(value 1) + 1000)) ] || fatal "the other thread does not run: $(value 1), $(value 2)"
	[ "$(value 3)" -le $(($(value 2) + 300)) ] || fatal "the other thread runs: $(value 2), $(value 3)"
}

inside() {
	local name

	for name in $(cat "$WORK/programs"); do
		check "$name over three nodes gives the host's output" same_output "$name"
	done
	check "mutexes of all kinds" contention "${FULL:+100}5000"
	for name in vm futex fork mmap mremap signal sigq; do
		if command -v stress-ng >/dev/null; then
			check "stress-ng $name" stress $name "${FULL:+3}2"
		else
			skip "stress-ng $name" "there is no stress-ng"
		fi
	done
	if command -v gdb >/dev/null; then
		check "gdb steps one thread while another runs" step_while_others_run
		check "gdb steps one thread with and without the others" step_with_others
	else
		skip "gdb" "there is no gdb"
	fi
}

prepare_programs() {
	local name path

	make_programs
	for name in xz openmp python3 node ${FULL:+java}; do
		if [ $name = openmp ]; then
			path=$GUEST/openmp
		else
			path=$(program_path $name 2>/dev/null)
		fi
		if [ -z "$path" ] || { [ $name = java ] && [ ! -e "$WORK/Threads.class" ]; }; then
			skip "$name" "it is not installed"
			continue
		fi
		echo "$path" >"$WORK/$name.path"
		run_program $name "$path" >"$WORK/$name.outside" || echo "not ok $name on the host: status $?"
		echo $name >>"$WORK/programs"
	done
}

copies() {
	# shellcheck disable=SC2016
	LIMIT=300 run --nodes 3 -- bash -c 'for i in 1 2 3; do TMPDIR=/dev/shm "$0" -c 0,1,2 || exit; done' "$GUEST/copy-user" ||
		fatal "status $?: $(tail -n 3 "$WORK/out" "$WORK/err")"
	same "runs" "$(grep -c '^ok copy-user' "$WORK/out")" 3
}

if [ "${1-}" = inside ]; then
	inside
	exit 0
fi

if [ -n "${FULL-}" ]; then
	for nodes in 2 3; do
		LIMIT=8000 litmus "$nodes nodes" "--nodes $nodes" 100000
	done
	LIMIT=8000 litmus "2 nodes of 2 CPUs" "--nodes 2 --cpus 2" 100000 --placements page,pages
	check "torture on 3 nodes" torture 600 "--nodes 3"
	check "torture on 2 nodes of 2 CPUs" torture 600 "--nodes 2 --cpus 2"
else
	litmus "2 nodes" "--nodes 2" 1000 SB MP CoRR exchange
	litmus "3 nodes" "--nodes 3" 300
	litmus "2 nodes of 2 CPUs" "--nodes 2 --cpus 2" 1000 SB IRIW 2+2W
	check "torture on 3 nodes" torture 25 "--nodes 3"
fi
# Threads of the daemon that are preempted meet in other orders.
export PANGEA_REALTIME=off
litmus "3 nodes, no real-time threads" "--nodes 3" 100
check "torture, no real-time threads" torture 15 "--nodes 3"
check "copies to and from user memory, no real-time threads" copies
unset PANGEA_REALTIME
check "litmus finds old memory" finds "^not ok litmus MP" --nodes 2 -- \
	"$GUEST/litmus" --break memory --rounds 4000 --placements pages MP
check "torture finds a wrong word" finds "^not ok torture" --nodes 2 -- \
	"$GUEST/torture" --break word --seconds 60
prepare_programs
timeout 1800 "$PANGEA" run --nodes 3 --mem 2G -- bash "$0" inside || echo "not ok machine: status $?"
check "nothing is left" nothing_kept
