// SPDX-License-Identifier: GPL-2.0
/*
 * OpenMP: a stencil over a grid of -n x -n integers, reductions, dynamic schedules, tasks and critical
 * sections, one thread on each CPU.  All results are exact: they are compared with those of one thread, and
 * printed, to be compared with those of another machine.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <omp.h>

enum { STEPS = 20, PRIMES_BELOW = 60000, FIBONACCI = 22, FIBONACCI_SERIAL = 12, HISTOGRAM = 64 };

static uint32_t *new_grid(long n)
{
	uint32_t *grid = malloc((size_t)(n * n) * sizeof(*grid));

	CHECK(grid);
	return grid;
}

static uint32_t next(const uint32_t *grid, long n, long row, long column)
{
	long above = (row + n - 1) % n, below = (row + 1) % n;
	long left = (column + n - 1) % n, right = (column + 1) % n;

	return (grid[above * n + column] + 3 * grid[below * n + column] + 5 * grid[row * n + left] +
		7 * grid[row * n + right]) ^ grid[row * n + column] >> 7;
}

/* Returns a sum over the grid after STEPS steps. */
static uint64_t stencil(long n, int threads)
{
	uint32_t *from = new_grid(n), *to = new_grid(n), *swap;
	uint64_t sum = 0;

#pragma omp parallel for num_threads(threads)
	for (long i = 0; i < n * n; i++)
		from[i] = (uint32_t)guest_noise(1, (uint64_t)i);
	for (int step = 0; step < STEPS; step++) {
#pragma omp parallel for num_threads(threads)
		for (long row = 0; row < n; row++)
			for (long column = 0; column < n; column++)
				to[row * n + column] = next(from, n, row, column);
		swap = from;
		from = to;
		to = swap;
	}
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
	for (long i = 0; i < n * n; i++)
		sum += from[i] * (uint64_t)(i + 1);
	free(from);
	free(to);
	return sum;
}

static bool is_prime(long number)
{
	for (long divisor = 2; divisor * divisor <= number; divisor++)
		if (number % divisor == 0)
			return false;
	return number > 1;
}

static uint64_t primes(int threads)
{
	uint64_t count = 0, last = 0;

#pragma omp parallel for num_threads(threads) schedule(dynamic, 500) \
	reduction(+ : count) reduction(max : last)
	for (long i = 0; i < PRIMES_BELOW; i++)
		if (is_prime(i)) {
			count++;
			last = (uint64_t)i;
		}
	return count * 1000000 + last;
}

static uint64_t fibonacci(int n)
{
	uint64_t a, b;

	if (n < 2)
		return (uint64_t)n;
	if (n < FIBONACCI_SERIAL)
		return fibonacci(n - 1) + fibonacci(n - 2);
#pragma omp task shared(a)
	a = fibonacci(n - 1);
#pragma omp task shared(b)
	b = fibonacci(n - 2);
#pragma omp taskwait
	return a + b;
}

static uint64_t tasks(int threads)
{
	uint64_t result = 0;

#pragma omp parallel num_threads(threads)
#pragma omp single
	result = fibonacci(FIBONACCI);
	return result;
}

/* Each place is a word that all threads add to; one sum is under a lock, one is atomic. */
static uint64_t histogram(long n, int threads)
{
	uint64_t places[HISTOGRAM] = { 0 }, locked = 0, atomic = 0, sum = GUEST_CHECKSUM_START;

#pragma omp parallel for num_threads(threads) schedule(static, 16)
	for (long i = 0; i < 4 * n; i++) {
		uint64_t noise = guest_noise(2, (uint64_t)i);

#pragma omp atomic
		places[noise % HISTOGRAM] += noise;
#pragma omp atomic
		atomic++;
		if (noise >> 32 & 3)
			continue;
#pragma omp critical
		locked += noise;
	}
	CHECK_EQUAL(atomic, 4 * n);
	sum = guest_checksum(sum, places, sizeof(places));
	return guest_checksum(sum, &locked, sizeof(locked));
}

static void compare(const char *name, uint64_t seen, uint64_t wanted)
{
	if (seen != wanted)
		guest_fail("%s: %llx by all threads, %llx by one", name, (unsigned long long)seen,
			   (unsigned long long)wanted);
	printf("# %s: %llx\n", name, (unsigned long long)seen);
}

int main(int argc, char **argv)
{
	int threads;
	long n;

	guest_start(argc, argv, "openmp", 512);
	n = guest.size;
	threads = guest.cpu_count;
	omp_set_dynamic(0);
#pragma omp parallel num_threads(threads)
	{
		guest_move(0, omp_get_thread_num());
		CHECK_EQUAL(omp_get_num_threads(), threads);
	}
	compare("stencil", stencil(n, threads), stencil(n, 1));
	compare("primes", primes(threads), primes(1));
	compare("tasks", tasks(threads), tasks(1));
	compare("histogram", histogram(n, threads), histogram(n, 1));
	return guest_ok();
}
