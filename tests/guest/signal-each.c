// SPDX-License-Identifier: GPL-2.0
/*
 * Every signal, sent from one CPU to a process on another: delivered to a handler with who sent it,
 * queued with its value, blocked and fetched, and with its default action.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

static volatile sig_atomic_t last_signal, handled;
static volatile int last_value;
static volatile pid_t last_sender;
static volatile bool spinning;

static void handler(int number, siginfo_t *info, void *context)
{
	(void)context;
	last_signal = number;
	last_sender = info->si_pid;
	last_value = info->si_value.sival_int;
	handled++;
}

static bool can_handle(int number)
{
	return number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN);
}

/* Says ready, then waits for each signal: in a system call for even numbers, in a loop for odd ones. */
static void receive_all(int tell)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
	for (int number = 1; number <= SIGRTMAX; number++)
		if (can_handle(number))
			CHECK(sigaction(number, &action, NULL) == 0);
	CHECK(write(tell, "", 1) == 1);
	for (int number = 1, wanted = 1; number <= SIGRTMAX; number++) {
		if (!can_handle(number))
			continue;
		if (number % 2) {
			CHECK(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
			while (handled < wanted)
				;
			CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
		} else {
			CHECK(sigsuspend(&none) == -1 && errno == EINTR);
		}
		CHECK_EQUAL(handled, wanted);
		CHECK_EQUAL(last_signal, number);
		CHECK_EQUAL(last_value, number + 1000);
		CHECK_EQUAL(last_sender, getppid());
		wanted++;
		CHECK(write(tell, "", 1) == 1);
	}
}

static void check_handlers(void)
{
	int tell[2];
	char byte;
	pid_t pid;

	CHECK(pipe(tell) == 0);
	pid = guest_fork(1);
	if (!pid) {
		receive_all(tell[1]);
		_exit(0);
	}
	CHECK(close(tell[1]) == 0);
	CHECK(read(tell[0], &byte, 1) == 1);
	for (int number = 1; number <= SIGRTMAX; number++) {
		if (!can_handle(number))
			continue;
		CHECK(sigqueue(pid, number, (union sigval){ .sival_int = number + 1000 }) == 0);
		if (read(tell[0], &byte, 1) != 1)
			break;
	}
	CHECK(close(tell[0]) == 0);
	guest_reap(pid);
}

static bool is_ignored(int number)
{
	return number == SIGCHLD || number == SIGURG || number == SIGWINCH || number == SIGCONT;
}

static bool stops(int number)
{
	return number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

/* Waits for the end of the pipe, or computes. */
static void be_signalled(const int *fds, bool busy)
{
	struct rlimit no_core = { 0, 0 };
	char byte;

	setrlimit(RLIMIT_CORE, &no_core);
	CHECK(close(fds[1]) == 0);
	spinning = busy;
	while (spinning)
		;
	CHECK(read(fds[0], &byte, 1) == 0);
	_exit(3);
}

static int default_fate(int number, bool busy)
{
	int fds[2], status;
	pid_t pid;

	CHECK(pipe(fds) == 0);
	pid = guest_fork(1);
	if (!pid)
		be_signalled(fds, busy);
	guest_sleep_ms(5);
	CHECK(kill(pid, number) == 0);
	if (is_ignored(number)) {
		guest_sleep_ms(5);
		CHECK(close(fds[1]) == 0);
	}
	CHECK_EQUAL(waitpid(pid, &status, WUNTRACED), pid);
	if (WIFSTOPPED(status)) {
		CHECK(kill(pid, SIGKILL) == 0);
		CHECK_EQUAL(waitpid(pid, &(int){0}, 0), pid);
	}
	if (!is_ignored(number))
		CHECK(close(fds[1]) == 0);
	CHECK(close(fds[0]) == 0);
	return status;
}

static void check_default(int number, bool busy)
{
	bool ignored = is_ignored(number);
	int status;

	if (busy && ignored)
		return;
	status = default_fate(number, busy);
	if (ignored && !(WIFEXITED(status) && WEXITSTATUS(status) == 3))
		guest_fail("signal %d is not ignored by default: status 0x%x", number, status);
	if (stops(number) && !(WIFSTOPPED(status) && WSTOPSIG(status) == number))
		guest_fail("signal %d does not stop by default: status 0x%x", number, status);
	if (!ignored && !stops(number) && !(WIFSIGNALED(status) && WTERMSIG(status) == number))
		guest_fail("signal %d does not kill by default: status 0x%x", number, status);
}

/* Real-time signals arrive once for each time they were sent, lowest number first, in order. */
static void check_queue(void)
{
	enum { COUNT = 30 };
	sigset_t set;
	siginfo_t info;
	pid_t pid, parent = getpid();

	sigfillset(&set);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	pid = guest_fork(2);
	if (!pid) {
		for (int i = COUNT - 1; i >= 0; i--)
			CHECK(sigqueue(parent, SIGRTMIN + i % 3, (union sigval){ .sival_int = i }) == 0);
		_exit(0);
	}
	guest_reap(pid);
	sigdelset(&set, SIGCHLD);
	for (int kind = 0; kind < 3; kind++)
		for (int i = COUNT - 1; i >= 0; i--) {
			if (i % 3 != kind)
				continue;
			CHECK_EQUAL(sigwaitinfo(&set, &info), SIGRTMIN + kind);
			CHECK_EQUAL(info.si_value.sival_int, i);
			CHECK_EQUAL(info.si_pid, pid);
		}
	CHECK(sigtimedwait(&set, &info, &(struct timespec){ 0 }) == -1 && errno == EAGAIN);
}

/* All signals are still blocked here. */
static void check_signalfd(void)
{
	struct signalfd_siginfo info;
	sigset_t set;
	pid_t pid, parent = getpid();
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	fd = signalfd(-1, &set, 0);
	CHECK(fd >= 0);
	pid = guest_fork(1);
	if (!pid) {
		guest_sleep_ms(20);
		CHECK(sigqueue(parent, SIGUSR2, (union sigval){ .sival_int = 4711 }) == 0);
		_exit(0);
	}
	CHECK(read(fd, &info, sizeof(info)) == sizeof(info));
	CHECK(info.ssi_signo == SIGUSR2 && info.ssi_pid == (uint32_t)pid && info.ssi_int == 4711);
	guest_reap(pid);
	CHECK(close(fd) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "signal-each", 0);
	check_handlers();
	for (int number = 1; number < 32; number++) {
		check_default(number, false);
		check_default(number, true);
	}
	check_default(SIGRTMIN, false);
	check_default(SIGRTMAX, true);
	check_queue();
	check_signalfd();
	return guest_ok();
}
