// SPDX-License-Identifier: GPL-2.0
/* A program to be debugged: three functions deep, two threads if asked, a counter to be read. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

volatile unsigned long count;
volatile double half;
volatile int leave;

__attribute__((noinline)) void inner(unsigned long add)
{
	count += add;
	half = (double)count / 2;
}

__attribute__((noinline)) void outer(unsigned long add)
{
	while (!leave)
		inner(add);
}

static void *second(void *arg)
{
	outer((unsigned long)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	(void)argv;
	printf("%d\n", getpid());
	fflush(stdout);
	if (argc > 1 && pthread_create(&thread, NULL, second, (void *)1UL))
		return 1;
	outer(1);
	if (argc > 1)
		pthread_join(thread, NULL);
	printf("left at %s\n", count ? "some count" : "zero");
	return 3;
}
