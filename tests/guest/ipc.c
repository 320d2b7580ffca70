// SPDX-License-Identifier: GPL-2.0
/*
 * System V and POSIX message queues and semaphores between CPUs, -n messages each.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

struct message {
	long type;
	uint64_t words[64];
};

static void make(struct message *message, long number)
{
	message->type = number % 3 + 1;
	for (int i = 0; i < 64; i++)
		message->words[i] = guest_noise((uint64_t)number, (uint64_t)i);
}

static void expect(const struct message *seen, long number)
{
	struct message wanted;

	make(&wanted, number);
	if (memcmp(seen->words, wanted.words, sizeof(wanted.words)))
		guest_fail("message %ld is wrong", number);
}

static void check_sysv_messages(long count)
{
	int queue = msgget(IPC_PRIVATE, 0600);
	struct message message;
	pid_t pid;

	CHECK(queue >= 0);
	pid = guest_fork(1);
	if (!pid) {
		for (long i = 0; i < count; i++) {
			make(&message, i);
			CHECK(msgsnd(queue, &message, sizeof(message.words), 0) == 0);
		}
		_exit(0);
	}
	for (long i = 0; i < count; i++) {
		CHECK(msgrcv(queue, &message, sizeof(message.words), i % 3 + 1, 0) == sizeof(message.words));
		expect(&message, i);
	}
	guest_reap(pid);
	CHECK(msgctl(queue, IPC_RMID, NULL) == 0);
}

static void check_posix_messages(long count)
{
	struct mq_attr attributes = { .mq_maxmsg = 5, .mq_msgsize = sizeof(struct message) };
	struct message message;
	char name[32];
	mqd_t queue;
	pid_t pid;

	snprintf(name, sizeof(name), "/ipc-%d", getpid());
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
	CHECK(queue >= 0 && mq_unlink(name) == 0);
	pid = guest_fork(2);
	if (!pid) {
		for (long i = 0; i < count; i++) {
			make(&message, i);
			CHECK(mq_send(queue, (char *)&message, sizeof(message), 0) == 0);
		}
		_exit(0);
	}
	for (long i = 0; i < count; i++) {
		CHECK(mq_receive(queue, (char *)&message, sizeof(message), NULL) == sizeof(message));
		expect(&message, i);
	}
	guest_reap(pid);
	CHECK(mq_close(queue) == 0);
}

/* Two semaphores pass one turn to and fro; a third is undone by the kernel when its holder dies. */
static void check_sysv_semaphores(long count)
{
	int set = semget(IPC_PRIVATE, 3, 0600);
	struct sembuf take = { .sem_num = 0, .sem_op = -1 }, give = { .sem_num = 1, .sem_op = 1 };
	struct sembuf undo = { .sem_num = 2, .sem_op = 1, .sem_flg = SEM_UNDO };
	pid_t pid;

	CHECK(set >= 0 && semctl(set, 0, SETVAL, 1) == 0 && semctl(set, 1, SETVAL, 0) == 0);
	CHECK(semctl(set, 2, SETVAL, 0) == 0);
	pid = guest_fork(1);
	if (!pid) {
		CHECK(semop(set, &undo, 1) == 0 && semctl(set, 2, GETVAL) == 1);
		for (long i = 0; i < count; i++)
			CHECK(semop(set, &take, 1) == 0 && semop(set, &give, 1) == 0);
		_exit(0);
	}
	take.sem_num = 1;
	give.sem_num = 0;
	for (long i = 0; i < count; i++)
		CHECK(semop(set, &take, 1) == 0 && semop(set, &give, 1) == 0);
	guest_reap(pid);
	CHECK(semctl(set, 0, GETVAL) == 1 && semctl(set, 2, GETVAL) == 0);
	CHECK(semctl(set, 0, IPC_RMID) == 0);
}

static void check_posix_semaphores(long count)
{
	char name[32];
	sem_t *semaphore;
	pid_t pid;

	snprintf(name, sizeof(name), "/ipc-%d", getpid());
	semaphore = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
	CHECK(semaphore != SEM_FAILED && sem_unlink(name) == 0);
	pid = guest_fork(1);
	if (!pid) {
		for (long i = 0; i < count; i++)
			CHECK(sem_post(semaphore) == 0);
		_exit(0);
	}
	for (long i = 0; i < count; i++)
		CHECK(sem_wait(semaphore) == 0);
	guest_reap(pid);
	CHECK(sem_trywait(semaphore) == -1 && errno == EAGAIN);
	CHECK(sem_close(semaphore) == 0);
}

int main(int argc, char **argv)
{
	guest_start(argc, argv, "ipc", 1000);
	guest_move(0, 0);
	check_sysv_messages(guest.size);
	check_posix_messages(guest.size);
	check_sysv_semaphores(guest.size);
	check_posix_semaphores(guest.size);
	return guest_ok();
}
