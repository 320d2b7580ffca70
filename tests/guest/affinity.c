// SPDX-License-Identifier: GPL-2.0
/*
 * Where a process runs: sched_setaffinity of itself and of others, what getcpu, restartable sequences and
 * /proc/PID/stat say, inheritance, the NUMA node of each CPU, and -n moves of a running, a sleeping and a
 * stopped process together with all it holds open: pipe, socket, file offset, terminal, timer and lock.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks;

static void tick(int number)
{
	(void)number;
	ticks++;
}

static int stat_cpu(pid_t pid)
{
	char path[64], line[1024], *field;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	CHECK(file && fgets(line, sizeof(line), file));
	fclose(file);
	field = strrchr(line, ')');
	for (int i = 2; i < 39; i++) {
		CHECK(field != NULL);
		field = strchr(field + 1, ' ');
	}
	CHECK(field != NULL);
	return atoi(field);
}

static void check_self(int index)
{
	unsigned cpu, node;
	cpu_set_t set;

	guest_move(0, index);
	CHECK(getcpu(&cpu, &node) == 0);
	CHECK_EQUAL(cpu, guest_cpu(index));
	CHECK_EQUAL(sched_getcpu(), guest_cpu(index));
	CHECK_EQUAL(stat_cpu(getpid()), guest_cpu(index));
	CHECK(sched_getaffinity(0, sizeof(set), &set) == 0);
	CHECK(CPU_COUNT(&set) == 1 && CPU_ISSET(guest_cpu(index), &set));
}

static void check_errors(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CHECK(sched_setaffinity(0, sizeof(set), &set) == -1 && errno == EINVAL);
	CPU_SET(1000, &set);
	CHECK(sched_setaffinity(0, sizeof(set), &set) == -1 && errno == EINVAL);
	CPU_SET(guest_cpu(0), &set);
	CHECK(sched_setaffinity(999999, sizeof(set), &set) == -1 && errno == ESRCH);
}

static void check_inheritance(int index)
{
	pid_t pid;

	guest_move(0, index);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK_EQUAL(sched_getcpu(), guest_cpu(index));
		execl("/bin/sh", "sh", "-c", "test $(cut -d' ' -f39 /proc/self/stat) = $0",
		      (char[]){ (char)('0' + guest_cpu(index) / 10), (char)('0' + guest_cpu(index) % 10), 0 }
		      + (guest_cpu(index) < 10), NULL);
		_exit(GUEST_FAILED);
	}
	guest_reap(pid);
}

/* Everything that a process may hold; checked by itself after every move that its parent makes. */
struct held {
	int pipe[2], sockets[2], terminal, terminal_user, file;
	uint64_t *map;
	long round;
};

static void hold(struct held *held)
{
	char path[] = "/tmp/affinity-XXXXXX";
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } };
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };

	CHECK(pipe(held->pipe) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, held->sockets) == 0);
	held->terminal = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(held->terminal >= 0 && grantpt(held->terminal) == 0 && unlockpt(held->terminal) == 0);
	held->terminal_user = open(ptsname(held->terminal), O_RDWR | O_NOCTTY);
	CHECK(held->terminal_user >= 0);
	held->file = mkstemp(path);
	CHECK(held->file >= 0 && unlink(path) == 0 && flock(held->file, LOCK_EX) == 0);
	held->map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(held->map != MAP_FAILED);
	CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &every, NULL) == 0);
}

static void echo(int to, int from, char byte)
{
	char back = 0;

	CHECK(write(to, (char[]){ byte, '\n' }, 2) == 2);
	CHECK(read(from, &back, 1) == 1 && back == byte);
	CHECK(read(from, &back, 1) == 1 && back == '\n');
}

static void use(struct held *held)
{
	char byte = (char)('a' + held->round % 26);

	echo(held->pipe[1], held->pipe[0], byte);
	echo(held->sockets[0], held->sockets[1], byte);
	echo(held->terminal, held->terminal_user, byte);
	CHECK(write(held->file, &byte, 1) == 1);
	CHECK_EQUAL(lseek(held->file, 0, SEEK_CUR), held->round + 1);
	CHECK_EQUAL(held->map[held->round * 512 % 131072], held->round < 256 ? 0 : held->round - 255);
	held->map[held->round * 512 % 131072] = (uint64_t)held->round + 1;
	held->round++;
}

/* Between orders the child sleeps in read(), or runs until the order comes. */
static void holder(int orders, int answers)
{
	struct held held = { .round = 0 };
	char order;

	hold(&held);
	for (;;) {
		ssize_t got;

		while ((got = read(orders, &order, 1)) == -1 && (errno == EAGAIN || errno == EINTR))
			;
		CHECK(got == 1);
		if (order == 'q')
			break;
		use(&held);
		CHECK(fcntl(orders, F_SETFL, held.round % 2 ? O_NONBLOCK : 0) == 0);
		CHECK(write(answers, &order, 1) == 1);
	}
	for (int wanted = ticks + 2; ticks < wanted;)
		;
}

static void check_holder(long moves)
{
	int orders[2], answers[2], status;
	char answer;
	pid_t pid;

	CHECK(pipe(orders) == 0 && pipe(answers) == 0);
	pid = guest_fork(0);
	if (!pid) {
		CHECK(close(orders[1]) == 0);
		holder(orders[0], answers[1]);
		_exit(0);
	}
	CHECK(close(answers[1]) == 0);
	for (long i = 0; i < moves; i++) {
		bool stop = i % 5 == 4;

		if (stop) {
			CHECK(kill(pid, SIGSTOP) == 0);
			CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
		}
		guest_move(pid, (int)i);
		if (stop)
			CHECK(kill(pid, SIGCONT) == 0);
		CHECK(write(orders[1], "u", 1) == 1);
		if (read(answers[0], &answer, 1) != 1)
			break;
		CHECK_EQUAL(stat_cpu(pid), guest_cpu((int)i));
	}
	CHECK(write(orders[1], "q", 1) == 1);
	guest_reap(pid);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "affinity", 300);
	for (int i = 0; i < 3 * guest.cpu_count; i++) {
		check_self(i);
		check_inheritance(i);
	}
	check_errors();
	check_holder(guest.size);
	return guest_ok();
}
