// SPDX-License-Identifier: GPL-2.0
/*
 * Two OpenMP loops, in the machine or natively: omp stencil|reduction prints `stencil NANOSECONDS`.
 *
 *   stencil     40 steps of five points over 2,048 x 2,048 numbers: neighbours meet at one row after each
 *   reduction   20 sums over 64 MiB: once there, the memory stays where its thread is
 *
 * Each thread touches its part first, so that it is at home on that thread's node; that is not timed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE = 2048, STEPS = 40, LENGTH = 8 << 20, SUMS = 20 };

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static double *numbers(size_t count)
{
	double *n = aligned_alloc(4096, count * sizeof(*n));

	if (!n) {
		perror("omp: memory");
		exit(1);
	}
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < count; i++)
		n[i] = (double)(i % 1000);
	return n;
}

static double stencil(uint64_t *took)
{
	double *from = numbers(SIDE * SIDE), *to = numbers(SIDE * SIDE), *swap;
	uint64_t start = now_ns();

	for (int step = 0; step < STEPS; step++) {
#pragma omp parallel for schedule(static)
		for (long row = 1; row < SIDE - 1; row++)
			for (long i = row * SIDE + 1; i < (row + 1) * SIDE - 1; i++)
				to[i] = 0.2 * (from[i] + from[i - 1] + from[i + 1] + from[i - SIDE] + from[i + SIDE]);
		swap = from;
		from = to;
		to = swap;
	}
	*took = now_ns() - start;
	return from[SIDE * SIDE / 2 + 7];
}

static double reduction(uint64_t *took)
{
	double *n = numbers(LENGTH), total = 0;
	uint64_t start = now_ns();

	for (int i = 0; i < SUMS; i++) {
		double sum = 0;

#pragma omp parallel for schedule(static) reduction(+ : sum)
		for (size_t j = 0; j < LENGTH; j++)
			sum += n[j] * (double)(i + 1);
		total += sum;
	}
	*took = now_ns() - start;
	return total;
}

int main(int argc, char **argv)
{
	uint64_t took;
	double result;

	if (argc != 2 || (strcmp(argv[1], "stencil") != 0 && strcmp(argv[1], "reduction") != 0)) {
		fprintf(stderr, "usage: omp stencil|reduction; OMP_NUM_THREADS tells how many threads\n");
		return 2;
	}
	result = argv[1][0] == 's' ? stencil(&took) : reduction(&took);
	printf("%s %llu\n", argv[1], (unsigned long long)took);
	return !(result > 0);	/* used, so that it is computed */
}
