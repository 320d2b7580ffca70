// SPDX-License-Identifier: GPL-2.0
/* The table of the hottest pages: exact while it is not full, and afterwards never without a hot page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../node/hot.h"

static void note(struct hot *hot, uint64_t mm, uint64_t address, unsigned times)
{
	struct hot_page page = { .mm = mm, .address = address, .pid = (uint32_t)mm };

	while (times--)
		hot_note(hot, &page);
}

static void few_are_exact(void **state)
{
	struct hot hot = { 0 };
	struct hot_page top[HOT_SHOWN];

	(void)state;
	assert_int_equal(hot_top(&hot, top, HOT_SHOWN), 0);
	note(&hot, 1, 0x1000, 3);
	note(&hot, 2, 0x1000, 5);
	note(&hot, 1, 0x2000, 4);
	assert_int_equal(hot_top(&hot, top, HOT_SHOWN), 3);
	assert_int_equal(top[0].mm, 2);
	assert_int_equal(top[0].misses, 5);
	assert_int_equal(top[1].address, 0x2000);
	assert_int_equal(top[2].misses, 3);
	assert_int_equal(top[2].excess, 0);
	assert_int_equal(hot_top(&hot, top, 1), 1);
}

static void what_is_gone_is_forgotten(void **state)
{
	struct hot hot = { 0 };
	struct hot_page top[HOT_SHOWN];

	(void)state;
	note(&hot, 1, 0x1000, 3);
	note(&hot, 2, 0x1000, 5);
	note(&hot, 1, 0x2000, 4);
	hot_forget(&hot, 1);
	assert_int_equal(hot_top(&hot, top, HOT_SHOWN), 1);
	assert_int_equal(top[0].mm, 2);
	hot_forget(&hot, 2);
	assert_int_equal(hot_top(&hot, top, HOT_SHOWN), 0);
}

/* Thousands of pages that miss once, and a few that miss more often than one time in HOT_SLOTS. */
static void noise_hides_no_hot_page(void **state)
{
	struct hot hot = { 0 };
	struct hot_page top[HOT_SHOWN];
	unsigned seed = 7, count = 0;

	(void)state;
	for (unsigned i = 0; i < 100000; i++)
		if (rand_r(&seed) % 10 == 0)
			note(&hot, 9, (uint64_t)(rand_r(&seed) % 3) << 12, 1);
		else
			note(&hot, 1, (uint64_t)i << 12, 1);
	hot_top(&hot, top, HOT_SHOWN);
	for (unsigned i = 0; i < HOT_SHOWN; i++) {
		assert_true(top[i].excess < top[i].misses);
		count += top[i].mm == 9;
	}
	assert_int_equal(count, 3);
	assert_true(top[2].mm == 9 && top[2].misses - top[2].excess > 2000);
	assert_int_equal(hot.count, HOT_SLOTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_are_exact),
		cmocka_unit_test(what_is_gone_is_forgotten),
		cmocka_unit_test(noise_hides_no_hot_page),
	};

	return cmocka_run_group_tests_name("hot", tests, NULL, NULL);
}
