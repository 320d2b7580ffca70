// SPDX-License-Identifier: GPL-2.0
/* Who gets which memory and CPUs, and which CPUs may be in one machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../node/features.h"
#include "../../node/layout.h"

#define MIB 256u	/* frames */

static void shares(void **state)
{
	static const struct {
		unsigned nodes, memory, first, other;	/* MiB */
	} cases[] = {
		{ 1, 256, 256, 0 }, { 1, 300, 256, 0 }, { 1, 1000, 896, 0 },
		{ 2, 384, 256, 128 }, { 2, 511, 256, 128 }, { 2, 512, 256, 256 }, { 2, 1024, 512, 512 },
		{ 3, 512, 256, 128 }, { 3, 1024, 512, 256 }, { 3, 1536, 512, 512 }, { 3, 1535, 640, 384 },
		{ 16, 2176, 256, 128 }, { 16, 65536, 4096, 4096 },
	};
	struct layout l;
	char err[200];
	unsigned i, n;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t pfn = 0;

		assert_int_equal(layout_divide(&l, cases[i].nodes, 2, (uint64_t)cases[i].memory << 20, err,
					       sizeof(err)), 0);
		assert_int_equal(l.cpus, 2 * cases[i].nodes);
		for (n = 0; n < l.nodes; n++) {
			assert_int_equal(l.node[n].pfn_start, pfn);
			assert_int_equal(l.node[n].pfn_count, (n ? cases[i].other : cases[i].first) * MIB);
			assert_int_equal(l.node[n].cpu_start, 2 * n);
			pfn += l.node[n].pfn_count;
		}
		assert_int_equal(l.frames, pfn);
	}
}

static void too_little(void **state)
{
	struct layout l;
	char err[200];

	(void)state;
	assert_int_equal(layout_divide(&l, 1, 1, 255ULL << 20, err, sizeof(err)), -1);
	assert_int_equal(layout_divide(&l, 3, 1, 400ULL << 20, err, sizeof(err)), -1);
	assert_string_equal(err, "400M of memory are too little for 3 nodes: the least is 512M");
}

/* Whatever the sizes are, each node has its least, and nothing is lost but less than a unit. */
static void invariants(void **state)
{
	unsigned nodes, mib, n;
	struct layout l;
	char err[200];

	(void)state;
	for (nodes = 1; nodes <= WIRE_NODES_MAX; nodes++) {
		for (mib = 256 + (nodes - 1) * 128; mib < 6000; mib += 7) {
			uint64_t memory = (uint64_t)mib << 20, sum = 0;

			assert_int_equal(layout_divide(&l, nodes, 1, memory, err, sizeof(err)), 0);
			for (n = 0; n < nodes; n++) {
				uint64_t least = n ? LAYOUT_MIN_NODE : LAYOUT_MIN_HOST;

				assert_true(layout_bytes(&l.node[n]) >= least);
				assert_int_equal(layout_bytes(&l.node[n]) % LAYOUT_UNIT, 0);
				sum += layout_bytes(&l.node[n]);
			}
			assert_int_equal(sum, memory / LAYOUT_UNIT * LAYOUT_UNIT);
		}
	}
}

static void features(void **state)
{
	struct features host, other;
	char text[300];

	(void)state;
	features_read(&host);
	other = host;
	assert_false(features_missing(&other, &host, text, sizeof(text)));
	assert_string_equal(text, "");

	host.words[1] |= 1u << 28;
	host.words[2] |= 1u << 5;
	other.words[1] &= ~(1u << 28);
	other.words[2] &= ~(1u << 5);
	assert_true(features_missing(&other, &host, text, sizeof(text)));
	assert_string_equal(text, "avx avx2");
	assert_false(features_missing(&host, &other, text, sizeof(text)));

	/* what only a kernel sees does not matter */
	other = host;
	host.words[1] |= 1u << 5;	/* vmx */
	other.words[1] &= ~(1u << 5);
	assert_false(features_missing(&other, &host, text, sizeof(text)));
}

static void vector_state(void **state)
{
	struct features host = { .xcr0 = 7, .xstate_end = { 576, 576, 832 }, .xsave_size = 832 }, other;
	char text[300];

	(void)state;
	other = host;
	other.xcr0 |= 1 << 5;
	other.xstate_end[5] = 1088;
	other.xsave_size = 1088;
	assert_false(features_missing(&other, &host, text, sizeof(text)));
	assert_true(features_missing(&host, &other, text, sizeof(text)));
	other = host;
	other.xstate_end[2] = 840;
	assert_true(features_missing(&other, &host, text, sizeof(text)));
	assert_non_null(strstr(text, "vector state"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares),
		cmocka_unit_test(too_little),
		cmocka_unit_test(invariants),
		cmocka_unit_test(features),
		cmocka_unit_test(vector_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
