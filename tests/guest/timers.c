// SPDX-License-Identifier: GPL-2.0
/*
 * Timers that interrupt running and waiting code on each CPU: alarm, setitimer of all three kinds,
 * timer_create on four clocks, timerfd, timeouts of system calls; and clocks that never go back while the
 * process moves.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/timerfd.h>

static volatile sig_atomic_t ticks, last_value;

static void tick(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	ticks++;
	last_value = info->si_value.sival_int;
}

static void set_handler(int number)
{
	struct sigaction action = { .sa_sigaction = tick, .sa_flags = SA_SIGINFO };

	CHECK(sigaction(number, &action, NULL) == 0);
}

static void spin_until(int wanted)
{
	while (ticks < wanted)
		;
}

static void check_alarm(void)
{
	uint64_t start = guest_now_ns(CLOCK_MONOTONIC);

	ticks = 0;
	CHECK(alarm(1) == 0);
	CHECK(pause() == -1 && errno == EINTR);
	CHECK_EQUAL(ticks, 1);
	CHECK(guest_now_ns(CLOCK_MONOTONIC) - start >= 990000000);
	CHECK(alarm(100) == 0 && alarm(0) > 90);
}

static void check_interval(int which, clockid_t clock, int number)
{
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, none = { { 0, 0 }, { 0, 0 } };
	uint64_t start = guest_now_ns(clock), took;

	ticks = 0;
	set_handler(number);
	CHECK(setitimer(which, &every, NULL) == 0);
	spin_until(5);
	CHECK(setitimer(which, &none, &every) == 0);
	took = guest_now_ns(clock) - start;
	CHECK_EQUAL(every.it_interval.tv_usec, 20000);
	/* Ticks of CPU time are counted in whole jiffies, so they may come up to one early. */
	if (took < 60000000)
		guest_fail("5 ticks of timer %d took %llu ns", which, (unsigned long long)took);
}

static void check_posix(clockid_t clock)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN,
				  .sigev_value.sival_int = (int)clock + 10 };
	struct itimerspec every = { { 0, 15000000 }, { 0, 15000000 } }, left;
	timer_t timer;

	ticks = 0;
	set_handler(SIGRTMIN);
	CHECK(timer_create(clock, &event, &timer) == 0);
	CHECK(timer_settime(timer, 0, &every, NULL) == 0);
	spin_until(3);
	CHECK(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 15000000);
	CHECK(timer_delete(timer) == 0);
	CHECK_EQUAL(last_value, (int)clock + 10);
}

static void check_timerfd(void)
{
	struct itimerspec every = { { 0, 10000000 }, { 0, 10000000 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t expired, total = 0;

	CHECK(fd >= 0 && timerfd_settime(fd, 0, &every, NULL) == 0);
	while (total < 5) {
		CHECK(read(fd, &expired, sizeof(expired)) == sizeof(expired) && expired >= 1);
		total += expired;
	}
	CHECK(close(fd) == 0);
}

static void check_timeouts(void)
{
	uint64_t start = guest_now_ns(CLOCK_MONOTONIC), then;
	struct timespec at = { 0, 30000000 };

	CHECK(poll(NULL, 0, 30) == 0);
	then = guest_now_ns(CLOCK_MONOTONIC);
	CHECK(then - start >= 30000000);
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &at, NULL) == 0);
	CHECK(guest_now_ns(CLOCK_MONOTONIC) - then >= 30000000);
}

static void check_clocks(void)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME };
	uint64_t last[3] = { 0 }, now;

	for (int move = 0; move < 60; move++) {
		guest_move(0, move);
		for (int clock = 0; clock < 3; clock++) {
			for (int i = 0; i < 50; i++) {
				now = guest_now_ns(clocks[clock]);
				if (now < last[clock])
					guest_fail("clock %d went back by %llu ns on CPU %d", clock,
						   (unsigned long long)(last[clock] - now), sched_getcpu());
				last[clock] = now;
			}
		}
	}
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "timers", 0);
	set_handler(SIGALRM);
	for (int i = 0; i < guest.cpu_count; i++) {
		guest_move(0, i);
		check_alarm();
		check_interval(ITIMER_REAL, CLOCK_MONOTONIC, SIGALRM);
		check_interval(ITIMER_VIRTUAL, CLOCK_PROCESS_CPUTIME_ID, SIGVTALRM);
		check_interval(ITIMER_PROF, CLOCK_PROCESS_CPUTIME_ID, SIGPROF);
		check_posix(CLOCK_MONOTONIC);
		check_posix(CLOCK_REALTIME);
		check_posix(CLOCK_PROCESS_CPUTIME_ID);
		check_posix(CLOCK_THREAD_CPUTIME_ID);
		check_timerfd();
		check_timeouts();
	}
	check_clocks();
	return guest_ok();
}
