// SPDX-License-Identifier: GPL-2.0
/*
 * The one check of everything that arrives (net/wire.h).
 *
 * A table says for every type on which channels it may appear and how long it may be; one function a type
 * then judges the fields.  What is checked here depends on the message alone.  What depends on the machine
 * (does the frame exist, is the address space known, is this answer expected) is for the receiver to judge.
 *
 * Every message is a multiple of 8 bytes long, so in a stream that starts aligned all messages are aligned.
 */
#include <string.h>
#include <sys/mman.h>

#include "link.h"

#define ADDRESS_LIMIT	(1ULL << 47)	/* user addresses of x86-64 with four-level page tables */
#define PFN_LIMIT	(1ULL << 36)	/* 2^48 bytes of memory */
#define FP_MIN		512		/* the legacy area that every XSAVE area starts with */
#define SIGNAL_MAX	64

#define ANY_PURPOSE	0xffffu
#define ON(purpose)	(1u << (purpose))
#define COHERENCE	(ON(WIRE_PURPOSE_DSM) | ON(WIRE_PURPOSE_BULK))

struct rule {
	unsigned purposes;	/* bit mask of enum wire_purpose */
	uint32_t length_min, length_max;
	bool numbered;		/* hdr.seq means something */
	const char *(*check)(const struct wire_hdr *hdr);
};

static bool aligned(uint64_t address)
{
	return address % WIRE_PAGE_SIZE == 0;
}

static const char *check_header_only(const struct wire_hdr *hdr)
{
	(void)hdr;
	return NULL;
}

static const char *check_hello(const struct wire_hdr *hdr)
{
	const struct wire_hello *m = (const void *)hdr;

	if (m->magic != WIRE_MAGIC)
		return "HELLO without Pangea's magic number";
	if (m->version != WIRE_VERSION)
		return "HELLO of another protocol version";
	if (m->purpose < WIRE_PURPOSE_CONTROL || m->purpose > WIRE_PURPOSE_BULK)
		return "HELLO with an unknown purpose";
	if (m->node >= WIRE_NODES_MAX && !(m->purpose == WIRE_PURPOSE_CONTROL && m->node == 0xffff))
		return "HELLO with a node number out of range";
	if (m->purpose == WIRE_PURPOSE_CPU ? m->cpu >= WIRE_CPUS_MAX : m->cpu != 0)
		return "HELLO with a CPU number out of range";
	if (m->reserved)
		return "HELLO with a reserved field set";
	return NULL;
}

static const char *check_refuse(const struct wire_hdr *hdr)
{
	const struct wire_refuse *m = (const void *)hdr;
	const __u8 *end = memchr(m->reason, 0, sizeof(m->reason));
	const __u8 *p;

	if (!end)
		return "REFUSE whose reason does not end";
	for (p = m->reason; p < end; p++)
		if (*p < 0x20 || *p == 0x7f)
			return "REFUSE with a control character in its reason";
	return NULL;
}

static const char *check_map(const struct wire_map *map)
{
	if (!aligned(map->addr) || map->addr >= ADDRESS_LIMIT)
		return "RUN that maps a bad address";
	if (map->pages == 0)
		return "RUN that maps no pages";
	if (map->prot & ~(__u32)(PROT_READ | PROT_WRITE | PROT_EXEC | WIRE_MAP_WANTED | WIRE_MAP_AHEAD))
		return "RUN that maps with unknown protection bits";
	if (map->prot & WIRE_MAP_WANTED && (map->prot == WIRE_MAP_WANTED || map->pages != 1))
		return "RUN that wants what is not one mapped page";
	if (map->prot & WIRE_MAP_AHEAD && (map->prot & WIRE_MAP_WANTED || map->prot == WIRE_MAP_AHEAD))
		return "RUN that looks ahead for what it wants at once or does not map";
	if (map->prot & WIRE_MAP_AHEAD && map->pages > WIRE_AHEAD_MAX)
		return "RUN that looks too far ahead";
	if (map->prot == 0 && map->pfn != 0)
		return "RUN that removes a mapping and names a frame";
	if (map->prot == 0 && map->pages == WIRE_MAP_ALL_PAGES)
		return NULL;
	if (map->pages > (ADDRESS_LIMIT - map->addr) / WIRE_PAGE_SIZE)
		return "RUN that maps beyond the user addresses";
	if (map->pfn >= PFN_LIMIT || map->pages > PFN_LIMIT - map->pfn)
		return "RUN that maps frames out of range";
	return NULL;
}

static const char *check_fp(uint32_t flags, uint32_t length)
{
	if (!(flags & WIRE_RUN_FP))
		return length ? "FP state without its flag" : NULL;
	if (length < FP_MIN || length > WIRE_FP_MAX || length % 8)
		return "FP state of an impossible size";
	return NULL;
}

static const char *check_run(const struct wire_hdr *hdr)
{
	const struct wire_run *m = (const void *)hdr;
	const struct wire_map *maps = (const void *)(m + 1);
	const char *why;
	unsigned i;

	if (m->flags & ~(__u32)(WIRE_RUN_SINGLESTEP | WIRE_RUN_FP | WIRE_RUN_LOADED | WIRE_RUN_STARTED |
				  WIRE_RUN_OTHER_TIME | WIRE_RUN_GATES | WIRE_RUN_APART | WIRE_RUN_ACTIONS |
				  WIRE_RUN_ALONE))
		return "RUN with unknown flags";
	if ((m->flags & WIRE_RUN_LOADED && m->flags & (WIRE_RUN_FP | WIRE_RUN_ACTIONS)) ||
	    (m->flags & WIRE_RUN_ACTIONS && m->flags & WIRE_RUN_FP) ||
	    (m->flags & WIRE_RUN_STARTED && (!(m->flags & WIRE_RUN_LOADED) || m->map_count)))
		return "RUN with flags that exclude each other";
	if (m->map_count > WIRE_MAPS_MAX)
		return "RUN with too many map operations";
	if (m->reserved || m->clock.reserved)
		return "RUN with a reserved field set";
	if (m->clock.shift > 32)
		return "RUN with a clock out of range";
	why = check_fp(m->flags, m->fp_length);
	if (why)
		return why;
	if (hdr->length != sizeof(*m) + m->map_count * sizeof(maps[0]) + m->fp_length +
			   (m->flags & WIRE_RUN_ACTIONS ? WIRE_SIGNALS * sizeof(struct wire_action) : 0))
		return "RUN whose length does not match its contents";
	for (i = 0; i < m->map_count && !why; i++)
		why = check_map(&maps[i]);
	return why;
}

static const char *check_segment(const struct wire_segment *s)
{
	if (s->reserved)
		return "segment with a reserved field set";
	if (s->pfn >= PFN_LIMIT)
		return "segment of a frame out of range";
	if (s->length == 0 || s->offset + s->length > WIRE_PAGE_SIZE)
		return "segment of an impossible part of a frame";
	return NULL;
}

static const char *check_copy(const struct wire_hdr *hdr)
{
	const struct wire_copy *m = (const void *)hdr;
	const struct wire_segment *segments = (const void *)(m + 1);
	uint32_t bytes = 0, i;
	const char *why;

	if (m->flags != 0 && m->flags != WIRE_COPY_WRITE && m->flags != WIRE_COPY_PAGE &&
	    m->flags != (WIRE_COPY_WRITE | WIRE_COPY_UNANSWERED))
		return "COPY with unknown flags";
	if (m->segment_count == 0 || m->segment_count > WIRE_SEGMENTS_MAX ||
	    (m->flags == WIRE_COPY_PAGE && m->segment_count != 2))
		return "COPY with an impossible number of segments";
	if (hdr->length < sizeof(*m) + m->segment_count * sizeof(segments[0]))
		return "COPY whose length does not match its contents";
	for (i = 0; i < m->segment_count; i++) {
		why = check_segment(&segments[i]);
		if (why)
			return why;
		if (m->flags == WIRE_COPY_PAGE && segments[i].length != WIRE_PAGE_SIZE)
			return "COPY of a part of a page";
		bytes += segments[i].length;
	}
	if (bytes > WIRE_COPY_MAX)
		return "COPY of too much";
	bytes = m->flags & WIRE_COPY_WRITE ? (bytes + 7) & ~7u : 0;
	if (hdr->length != sizeof(*m) + m->segment_count * sizeof(segments[0]) + bytes)
		return "COPY whose length does not match its contents";
	return NULL;
}

static const char *check_copied(const struct wire_hdr *hdr)
{
	const struct wire_copied *m = (const void *)hdr;

	if (m->done > WIRE_SEGMENTS_MAX)
		return "COPIED with an impossible number of segments";
	if (m->refused >> WIRE_UNANSWERED_MAX)
		return "COPIED with an unknown refusal";
	if (m->refused && (m->done || m->bytes))
		return "COPIED that goes on after a refusal";
	if (m->bytes > WIRE_COPY_MAX || hdr->length != sizeof(*m) + ((m->bytes + 7) & ~7u))
		return "COPIED whose length does not match its contents";
	return NULL;
}

static const char *check_event(const struct wire_hdr *hdr)
{
	const struct wire_event *m = (const void *)hdr;
	const char *why;

	if (m->flags & ~(__u32)(WIRE_RUN_FP | WIRE_EVENT_ASKING))
		return "EVENT with unknown flags";
	if (m->signal > SIGNAL_MAX)
		return "EVENT with an impossible signal";
	if (m->refused >> WIRE_UNANSWERED_MAX)
		return "EVENT with an unknown refusal";
	why = check_fp(m->flags, m->fp_length);
	if (why)
		return why;
	why = m->argument.length ? check_segment(&m->argument) : NULL;
	if (why)
		return why;
	if (m->argument.length > WIRE_ARGUMENT_MAX)
		return "EVENT with an impossible argument";
	if (!m->argument.length && (m->argument.pfn || m->argument.offset || m->argument.reserved))
		return "EVENT with a reserved field set";
	if (hdr->length != sizeof(*m) + m->fp_length + ((m->argument.length + 7) & ~7u))
		return "EVENT whose length does not match its contents";
	return NULL;
}

static const char *check_interrupt(const struct wire_hdr *hdr)
{
	const struct wire_interrupt *m = (const void *)hdr;

	if (m->cpu >= WIRE_CPUS_MAX)
		return "INTERRUPT with a CPU number out of range";
	if (m->reserved)
		return "INTERRUPT with a reserved field set";
	return NULL;
}

static const char *check_revoke(const struct wire_hdr *hdr)
{
	const struct wire_revoke *m = (const void *)hdr;

	if (!aligned(m->start) || !aligned(m->end))
		return "REVOKE of an unaligned range";
	if (m->start >= m->end || m->end > ADDRESS_LIMIT)
		return "REVOKE of an impossible range";
	return NULL;
}

static const char *check_discard(const struct wire_hdr *hdr)
{
	const struct wire_discard *m = (const void *)hdr;
	const struct wire_range *ranges = (const void *)(m + 1);
	unsigned i;

	if (m->reserved)
		return "DISCARD with a reserved field set";
	if (m->range_count == 0 || m->range_count > WIRE_RANGES_MAX)
		return "DISCARD with an impossible number of ranges";
	if (hdr->length != sizeof(*m) + m->range_count * sizeof(ranges[0]))
		return "DISCARD whose length does not match its contents";
	for (i = 0; i < m->range_count; i++) {
		if (ranges[i].count == 0)
			return "DISCARD of no frames";
		if (ranges[i].pfn >= PFN_LIMIT || ranges[i].count > PFN_LIMIT - ranges[i].pfn)
			return "DISCARD of frames out of range";
	}
	return NULL;
}

static const char *check_clock_stop(const struct wire_hdr *hdr)
{
	return ((const struct wire_clock_stop *)hdr)->reserved ? "CLOCK_STOP with a reserved field set" : NULL;
}

static const char *check_dsm(const struct wire_hdr *hdr)
{
	static const __u8 zero[sizeof(((struct wire_dsm *)0)->reserved)];
	const struct wire_dsm *m = (const void *)hdr;
	bool grant = hdr->type == WIRE_GRANT;
	uint32_t count = 1 + m->more, pages = m->payload == WIRE_PAYLOAD_PAGE ? count : 0;

	if (m->pfn >= PFN_LIMIT || count > PFN_LIMIT - m->pfn)
		return "coherence message with a frame out of range";
	if (m->state > 2 || (m->state == 0 && (grant || hdr->type == WIRE_GET)))
		return "coherence message with an unknown state";
	if (m->requester >= WIRE_NODES_MAX)
		return "coherence message for a node out of range";
	if (m->payload > (grant ? WIRE_PAYLOAD_PAGE : WIRE_PAYLOAD_NONE))
		return "coherence message with an unknown payload";
	if (memcmp(m->reserved, zero, sizeof(zero)))
		return "coherence message with a reserved field set";
	if (hdr->length != sizeof(*m) + pages * WIRE_PAGE_SIZE)
		return "coherence message whose length does not match its payload";
	return NULL;
}

#define FIXED(type)	sizeof(struct type), sizeof(struct type)

static const struct rule rules[] = {
	[WIRE_HELLO]	= { ANY_PURPOSE, FIXED(wire_hello), false, check_hello },
	[WIRE_WELCOME]	= { ANY_PURPOSE, FIXED(wire_hdr), false, check_header_only },
	[WIRE_REFUSE]	= { ANY_PURPOSE, FIXED(wire_refuse), false, check_refuse },

	[WIRE_RUN]	= { ON(WIRE_PURPOSE_CPU), sizeof(struct wire_run), sizeof(struct wire_run) +
			    WIRE_MAPS_MAX * sizeof(struct wire_map) + WIRE_FP_MAX, true, check_run },
	[WIRE_EVENT]	= { ON(WIRE_PURPOSE_CPU), sizeof(struct wire_event),
			    sizeof(struct wire_event) + WIRE_FP_MAX + WIRE_ARGUMENT_MAX, true, check_event },

	[WIRE_COPY]	= { ON(WIRE_PURPOSE_CPU), sizeof(struct wire_copy) + sizeof(struct wire_segment),
			    sizeof(struct wire_copy) + WIRE_SEGMENTS_MAX * sizeof(struct wire_segment) +
			    WIRE_COPY_MAX, true, check_copy },
	[WIRE_COPIED]	= { ON(WIRE_PURPOSE_CPU), sizeof(struct wire_copied),
			    sizeof(struct wire_copied) + WIRE_COPY_MAX, true, check_copied },

	[WIRE_INTERRUPT] = { ON(WIRE_PURPOSE_MM), FIXED(wire_interrupt), true, check_interrupt },
	[WIRE_REVOKE]	= { ON(WIRE_PURPOSE_MM), FIXED(wire_revoke), true, check_revoke },
	[WIRE_MM_FREE]	= { ON(WIRE_PURPOSE_MM), FIXED(wire_mm_free), false, check_header_only },
	[WIRE_DISCARD]	= { ON(WIRE_PURPOSE_MM), sizeof(struct wire_discard), sizeof(struct wire_discard) +
			    WIRE_RANGES_MAX * sizeof(struct wire_range), true, check_discard },
	[WIRE_CLOCK_STOP] = { ON(WIRE_PURPOSE_MM), FIXED(wire_clock_stop), true, check_clock_stop },
	[WIRE_ACK]	= { ON(WIRE_PURPOSE_MM), FIXED(wire_ack), true, check_header_only },

	[WIRE_GET]	= { COHERENCE, FIXED(wire_dsm), false, check_dsm },
	[WIRE_FETCH]	= { COHERENCE, FIXED(wire_dsm), false, check_dsm },
	[WIRE_INVALIDATE] = { COHERENCE, FIXED(wire_dsm), false, check_dsm },
	[WIRE_INVALIDATE_ACK] = { COHERENCE, FIXED(wire_dsm), false, check_dsm },
	[WIRE_GRANT]	= { COHERENCE, sizeof(struct wire_dsm), WIRE_GRANT_LENGTH_MAX, false, check_dsm },
	[WIRE_DONE]	= { COHERENCE, FIXED(wire_dsm), false, check_dsm },
};

#define RULE_COUNT (sizeof(rules) / sizeof(rules[0]))

_Static_assert(sizeof(struct wire_run) + WIRE_MAPS_MAX * sizeof(struct wire_map) + WIRE_FP_MAX <=
	       WIRE_LENGTH_MAX, "the longest RUN fits");
_Static_assert(sizeof(struct wire_dsm) + WIRE_PAGES_MAX * WIRE_PAGE_SIZE == WIRE_GRANT_LENGTH_MAX,
	       "the longest GRANT");

const char *wire_check_length(const struct wire_hdr *hdr, enum wire_purpose purpose)
{
	const struct rule *rule;

	if (hdr->type >= RULE_COUNT || !rules[hdr->type].check)
		return "message of an unknown type";
	rule = &rules[hdr->type];
	if (!(rule->purposes & ON(purpose)))
		return "message of a type that belongs to another channel";
	if (hdr->length < rule->length_min || hdr->length > rule->length_max || hdr->length % 8)
		return "message of an impossible length";
	if (hdr->reserved)
		return "message with a reserved header field set";
	if (!rule->numbered && hdr->seq)
		return "message with a number where none belongs";
	return NULL;
}

const char *wire_check(const void *msg, size_t length, enum wire_purpose purpose)
{
	const struct wire_hdr *hdr = msg;
	const char *why = wire_check_length(hdr, purpose);

	if (why)
		return why;
	if (hdr->length != length)
		return "message that is not as long as it says";
	return rules[hdr->type].check(hdr);
}
