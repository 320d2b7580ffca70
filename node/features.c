// SPDX-License-Identifier: GPL-2.0
/*
 * The CPU feature baseline: what node 0 shows to user programs, every node must have.
 *
 * Only features that user code can use without asking the kernel are compared; a host may lack what only a
 * kernel or hypervisor sees.  Vector state travels in the standard XSAVE format, whose layout differs
 * between vendors, so every component that node 0 has switched on must lie at the same place.
 */
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#include "features.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE 2
#endif

enum word { W1_EDX, W1_ECX, W7_EBX, W7_ECX, W7_EDX, W7_1_EAX, WD_1_EAX, WX_ECX, WX_EDX };

static const struct {
	uint32_t leaf, sub, reg;	/* reg: eax 0 to edx 3 */
} leaves[FEATURE_WORDS] = {
	[W1_EDX] = { 1, 0, 3 }, [W1_ECX] = { 1, 0, 2 },
	[W7_EBX] = { 7, 0, 1 }, [W7_ECX] = { 7, 0, 2 }, [W7_EDX] = { 7, 0, 3 },
	[W7_1_EAX] = { 7, 1, 0 }, [WD_1_EAX] = { 0xd, 1, 0 },
	[WX_ECX] = { 0x80000001, 0, 2 }, [WX_EDX] = { 0x80000001, 0, 3 },
};

static const struct {
	enum word word;
	unsigned bit;
	const char *name;
} features_known[] = {
	{ W1_EDX, 0, "fpu" }, { W1_EDX, 4, "tsc" }, { W1_EDX, 8, "cx8" }, { W1_EDX, 15, "cmov" },
	{ W1_EDX, 19, "clflush" }, { W1_EDX, 23, "mmx" }, { W1_EDX, 24, "fxsr" }, { W1_EDX, 25, "sse" },
	{ W1_EDX, 26, "sse2" },
	{ W1_ECX, 0, "sse3" }, { W1_ECX, 1, "pclmulqdq" }, { W1_ECX, 9, "ssse3" }, { W1_ECX, 12, "fma" },
	{ W1_ECX, 13, "cx16" }, { W1_ECX, 19, "sse4_1" }, { W1_ECX, 20, "sse4_2" }, { W1_ECX, 22, "movbe" },
	{ W1_ECX, 23, "popcnt" }, { W1_ECX, 25, "aes" }, { W1_ECX, 27, "xsave" }, { W1_ECX, 28, "avx" },
	{ W1_ECX, 29, "f16c" }, { W1_ECX, 30, "rdrand" },
	{ W7_EBX, 0, "fsgsbase" }, { W7_EBX, 3, "bmi1" }, { W7_EBX, 4, "hle" }, { W7_EBX, 5, "avx2" },
	{ W7_EBX, 8, "bmi2" }, { W7_EBX, 9, "erms" }, { W7_EBX, 11, "rtm" }, { W7_EBX, 16, "avx512f" },
	{ W7_EBX, 17, "avx512dq" }, { W7_EBX, 18, "rdseed" }, { W7_EBX, 19, "adx" },
	{ W7_EBX, 21, "avx512ifma" }, { W7_EBX, 23, "clflushopt" }, { W7_EBX, 24, "clwb" },
	{ W7_EBX, 28, "avx512cd" }, { W7_EBX, 29, "sha_ni" }, { W7_EBX, 30, "avx512bw" },
	{ W7_EBX, 31, "avx512vl" },
	{ W7_ECX, 1, "avx512_vbmi" }, { W7_ECX, 3, "pku" }, { W7_ECX, 5, "waitpkg" },
	{ W7_ECX, 6, "avx512_vbmi2" }, { W7_ECX, 8, "gfni" }, { W7_ECX, 9, "vaes" },
	{ W7_ECX, 10, "vpclmulqdq" }, { W7_ECX, 11, "avx512_vnni" }, { W7_ECX, 12, "avx512_bitalg" },
	{ W7_ECX, 14, "avx512_vpopcntdq" }, { W7_ECX, 22, "rdpid" }, { W7_ECX, 25, "cldemote" },
	{ W7_ECX, 27, "movdiri" }, { W7_ECX, 28, "movdir64b" },
	{ W7_EDX, 4, "fsrm" }, { W7_EDX, 8, "avx512_vp2intersect" }, { W7_EDX, 14, "serialize" },
	{ W7_EDX, 22, "amx_bf16" }, { W7_EDX, 23, "avx512_fp16" }, { W7_EDX, 24, "amx_tile" },
	{ W7_EDX, 25, "amx_int8" },
	{ W7_1_EAX, 0, "sha512" }, { W7_1_EAX, 1, "sm3" }, { W7_1_EAX, 2, "sm4" },
	{ W7_1_EAX, 4, "avx_vnni" }, { W7_1_EAX, 5, "avx512_bf16" }, { W7_1_EAX, 7, "cmpccxadd" },
	{ W7_1_EAX, 21, "amx_fp16" }, { W7_1_EAX, 23, "avx_ifma" },
	{ WD_1_EAX, 0, "xsaveopt" }, { WD_1_EAX, 1, "xsavec" }, { WD_1_EAX, 2, "xgetbv1" },
	{ WX_ECX, 0, "lahf_lm" }, { WX_ECX, 5, "lzcnt" }, { WX_ECX, 6, "sse4a" },
	{ WX_ECX, 7, "misalignsse" },
	{ WX_ECX, 8, "prefetchw" }, { WX_ECX, 11, "xop" }, { WX_ECX, 16, "fma4" }, { WX_ECX, 21, "tbm" },
	{ WX_ECX, 29, "mwaitx" },
	{ WX_EDX, 11, "syscall" }, { WX_EDX, 22, "mmxext" }, { WX_EDX, 27, "rdtscp" }, { WX_EDX, 29, "lm" },
};

static uint64_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

void features_read(struct features *f)
{
	uint32_t r[4], i;

	memset(f, 0, sizeof(*f));
	for (i = 0; i < FEATURE_WORDS; i++) {
		xstate_cpuid(leaves[i].leaf & 0x80000000, 0, r);
		if (leaves[i].leaf > r[0])
			continue;
		xstate_cpuid(leaves[i].leaf, leaves[i].sub, r);
		f->words[i] = r[leaves[i].reg];
	}
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))	/* the host can be told to leave it off */
		f->words[W7_EBX] &= ~1u;
	if (!(f->words[W1_ECX] & 1u << 27))	/* OSXSAVE */
		return;
	f->xcr0 = read_xcr0();
	xstate_layout(f->xstate_end);
	xstate_cpuid(0xd, 0, r);
	f->xsave_size = r[1];
}

static void append(char *text, size_t size, const char *name)
{
	size_t used = strlen(text);

	snprintf(text + used, size - used, "%s%s", used ? " " : "", name);
}

static bool vector_state_differs(const struct features *f, const struct features *wanted)
{
	unsigned i;

	for (i = 0; i < XSTATE_COMPONENTS; i++)
		if (wanted->xcr0 >> i & 1 &&
		    (!(f->xcr0 >> i & 1) || f->xstate_end[i] != wanted->xstate_end[i]))
			return true;
	return f->xsave_size < wanted->xsave_size;
}

bool features_missing(const struct features *f, const struct features *wanted, char *text, size_t size)
{
	size_t i;

	text[0] = 0;
	for (i = 0; i < sizeof(features_known) / sizeof(features_known[0]); i++) {
		uint32_t bit = 1u << features_known[i].bit;

		if (wanted->words[features_known[i].word] & ~f->words[features_known[i].word] & bit)
			append(text, size, features_known[i].name);
	}
	if (vector_state_differs(f, wanted))
		append(text, size, "(the same layout of vector state)");
	return text[0];
}
