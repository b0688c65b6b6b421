/* See mih.h. Every touch of memory is announced long before its turn, through short queues that run through all tables
   and queries without a pause: lines, then (seldom) overflow, then codes. */
#include "mih.h"

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { AHEAD_LINES = 32, AHEAD_OVERFLOW = 8, AHEAD_CODES = 48 };

static const uint64_t OVERFLOWS = UINT64_MAX;

static inline uint64_t load64(const void *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

int ug_mih_layout(ug_mih *index, size_t rows, size_t code_bytes, unsigned tables, unsigned line_bits)
{
    if (tables < 1 || tables > UG_MIH_MAX_TABLES || rows > INT32_MAX || (code_bytes != 8 && code_bytes != 32) ||
        line_bits < 1 || line_bits > UG_MIH_MAX_LINE_BITS)
        return -1;
    unsigned bits = (unsigned)code_bytes * 8, design_limit_bits = code_bytes == 8 ? 7 : 31;
    /* The tables from `narrow` on are probed one bit less far at the design limit: as few bits are enough for them. */
    unsigned narrow = design_limit_bits % tables + 1, wide_bits = bits - (tables - narrow) * line_bits;
    if (narrow * line_bits > bits || wide_bits < narrow * line_bits ||
        wide_bits > narrow * (line_bits + UG_MIH_MAX_LOW_BITS))
        narrow = tables, wide_bits = bits;
    unsigned shorter = wide_bits / narrow, longer_count = wide_bits % narrow, first = 0;
    unsigned longest = shorter + (longer_count > 0);
    if (longest > UG_MIH_MAX_KEY_BITS || shorter < line_bits || longest > line_bits + UG_MIH_MAX_LOW_BITS)
        return -1;
    index->rows = rows;
    index->code_bytes = code_bytes;
    index->tables = tables;
    index->line_bits = line_bits;
    for (unsigned t = 0; t < tables; t++) {
        index->first_bit[t] = first;
        index->key_bits[t] = t >= narrow ? line_bits : shorter + (t >= narrow - longer_count);
        first += index->key_bits[t];
    }
    return 0;
}

/* `count` bits (28 at most) of a code from bit `first` on. Reads whole words inside the code only. */
static inline __attribute__((always_inline)) uint32_t substring(const uint8_t *code, size_t code_bytes, unsigned first,
                                                                unsigned count)
{
    size_t word = first / 64, shift = first % 64;
    uint64_t value = load64(code + 8 * word) >> shift;
    if (shift + count > 64 && 8 * (word + 1) < code_bytes)
        value |= load64(code + 8 * (word + 1)) << (64 - shift);
    return (uint32_t)(value & (((uint64_t)1 << count) - 1));
}

/* The sum of the 4-bit counts in a line's first `values`; right as long as it is below 16. */
static inline __attribute__((always_inline)) unsigned count_before(uint64_t counts, unsigned values)
{
    uint64_t below = values >= 16 ? counts : counts & (((uint64_t)1 << (4 * values)) - 1);
    return (unsigned)((below * 0x1111111111111111u) >> 60);
}

/* How far from the query the values of a table are probed for a limit; -1: not at all. */
static inline __attribute__((always_inline)) int probe_radius(unsigned tables, unsigned table, unsigned limit_bits)
{
    return (int)(limit_bits / tables) - (table > limit_bits % tables);
}

/* How many values of so many bits lie within a radius. */
static double ball(unsigned bits, int radius)
{
    double of_weight = 1.0, all = 0.0;
    for (int weight = 0; weight <= radius && weight <= (int)bits; weight++) {
        all += of_weight;
        of_weight = of_weight * (bits - (unsigned)weight) / (weight + 1);
    }
    return all;
}

void ug_mih_cost(const ug_mih *index, unsigned max_distance_bits, double *lines, double *candidates)
{
    *lines = *candidates = 0.0;
    for (unsigned t = 0; t < index->tables; t++) {
        int radius = probe_radius(index->tables, t, max_distance_bits);
        *lines += ball(index->line_bits, radius);
        *candidates += ball(index->key_bits[t], radius) * (double)index->rows / (double)((size_t)1 << index->key_bits[t]);
    }
}

/* Values in a line are probed if they are within `radius` bits of `low`. */
typedef struct {
    const uint32_t *line;
    uint32_t query;
    uint16_t table;
    uint8_t low, radius;
} probe;

typedef struct {
    uint32_t row, query, table;
} candidate;

typedef struct {
    const ug_mih *index;
    const uint8_t *queries;
    unsigned limit_bits;
    size_t max_candidates;
    ug_hits *hits;
    int status;
    size_t probes_in, overflows_in, candidates_in;
    probe probes[AHEAD_LINES];
    probe overflows[AHEAD_OVERFLOW]; /* `line` is the overflow's place here */
    candidate candidates[AHEAD_CODES];
} search;

/* Whether an earlier table has led to this row already. */
static int found_before(const search *s, const uint8_t *code, const uint8_t *query, unsigned table)
{
    const ug_mih *index = s->index;
    for (unsigned t = 0; t < table; t++) {
        uint32_t differing = substring(code, index->code_bytes, index->first_bit[t], index->key_bits[t]) ^
                             substring(query, index->code_bytes, index->first_bit[t], index->key_bits[t]);
        if (__builtin_popcount(differing) <= probe_radius(index->tables, t, s->limit_bits))
            return 1;
    }
    return 0;
}

static inline __attribute__((always_inline)) void finish_candidate(search *s, const candidate *c, size_t size)
{
    const uint8_t *code = s->index->codes + c->row * size, *query = s->queries + c->query * size;
    unsigned distance_bits = 0;
    for (size_t at = 0; at < size; at += 8)
        distance_bits += (unsigned)__builtin_popcountll(load64(code + at) ^ load64(query + at));
    if (__builtin_expect(distance_bits <= s->limit_bits, 0) && !found_before(s, code, query, c->table))
        if (ug_add_hit(s->hits, (ug_hit){c->query, c->row, distance_bits}) < 0)
            s->status = -1;
}

static inline __attribute__((always_inline)) void add_candidates(search *s, const probe *p, const uint32_t *rows,
                                                                 size_t count, size_t size)
{
    if (__builtin_expect(s->candidates_in + count > s->max_candidates, 0)) {
        s->status = 1;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t row = rows[i];
        if (__builtin_expect(row >= s->index->rows, 0)) {
            s->status = -2;
            return;
        }
        candidate *slot = &s->candidates[s->candidates_in % AHEAD_CODES];
        if (s->candidates_in++ >= AHEAD_CODES)
            finish_candidate(s, slot, size);
        *slot = (candidate){row, p->query, p->table};
        __builtin_prefetch(s->index->codes + row * size);
    }
}

static unsigned values_of(const search *s, const probe *p)
{
    return 1u << (s->index->key_bits[p->table] - s->index->line_bits);
}

static inline __attribute__((always_inline)) void finish_overflow(search *s, const probe *p, size_t size)
{
    const unsigned values = values_of(s, p);
    const uint32_t *ends = p->line, *rows = ends + values;
    size_t room = (size_t)(s->index->overflow + s->index->overflow_words - rows);
    uint32_t begin = 0;
    for (unsigned v = 0; v < values && s->status == 0; v++) {
        if (begin > ends[v] || ends[v] > room) {
            s->status = -2;
            return;
        }
        if (__builtin_popcount(v ^ p->low) <= p->radius)
            add_candidates(s, p, rows + begin, ends[v] - begin, size);
        begin = ends[v];
    }
}

static void add_overflow(search *s, const probe *p, size_t size)
{
    const ug_mih *index = s->index;
    size_t place = p->line[2], values = values_of(s, p);
    if (place > index->overflow_words || index->overflow_words - place < values) {
        s->status = -2;
        return;
    }
    probe *slot = &s->overflows[s->overflows_in % AHEAD_OVERFLOW];
    if (s->overflows_in++ >= AHEAD_OVERFLOW)
        finish_overflow(s, slot, size);
    *slot = *p;
    slot->line = index->overflow + place;
    __builtin_prefetch(slot->line);
    __builtin_prefetch(slot->line + values);
}

static inline __attribute__((always_inline)) void finish_probe(search *s, const probe *p, size_t size)
{
    uint64_t counts = load64(p->line);
    if (counts == 0)
        return;
    if (__builtin_expect(counts == OVERFLOWS, 0)) {
        add_overflow(s, p, size);
        return;
    }
    /* 4-bit counts can only add up to what a line holds; a damaged line is held to its own sixteen words. */
    if (p->radius == 0) {
        unsigned before = count_before(counts, p->low), count = (unsigned)(counts >> (4 * p->low)) & 15;
        if (__builtin_expect(before + count > UG_MIH_INLINE_ROWS, 0))
            s->status = -2;
        else
            add_candidates(s, p, p->line + 2 + before, count, size);
        return;
    }
    const unsigned values = values_of(s, p);
    unsigned before = 0;
    for (unsigned v = 0; v < values && s->status == 0; v++) {
        unsigned count = (unsigned)(counts >> (4 * v)) & 15;
        if (__builtin_expect(before + count > UG_MIH_INLINE_ROWS, 0)) {
            s->status = -2;
            return;
        }
        if (__builtin_popcount(v ^ p->low) <= p->radius)
            add_candidates(s, p, p->line + 2 + before, count, size);
        before += count;
    }
}

static inline __attribute__((always_inline)) void add_probe(search *s, probe p, size_t size)
{
    probe *slot = &s->probes[s->probes_in % AHEAD_LINES];
    if (s->probes_in++ >= AHEAD_LINES)
        finish_probe(s, slot, size);
    *slot = p;
    __builtin_prefetch(p.line);
}

static inline __attribute__((always_inline)) void drain(search *s, size_t size)
{
    size_t first = s->probes_in > AHEAD_LINES ? s->probes_in - AHEAD_LINES : 0;
    for (size_t i = first; i < s->probes_in && s->status == 0; i++)
        finish_probe(s, &s->probes[i % AHEAD_LINES], size);
    first = s->overflows_in > AHEAD_OVERFLOW ? s->overflows_in - AHEAD_OVERFLOW : 0;
    for (size_t i = first; i < s->overflows_in && s->status == 0; i++)
        finish_overflow(s, &s->overflows[i % AHEAD_OVERFLOW], size);
    first = s->candidates_in > AHEAD_CODES ? s->candidates_in - AHEAD_CODES : 0;
    for (size_t i = first; i < s->candidates_in && s->status == 0; i++)
        finish_candidate(s, &s->candidates[i % AHEAD_CODES], size);
}

/* Probes every value within `radius` bits of `key`: all masks of each weight over the line's bits, by Gosper's hack; what
   the mask leaves of the radius is for the low bits, inside the line. */
static inline __attribute__((always_inline)) void probe_around(search *s, const uint32_t *lines, uint32_t key,
                                                               unsigned low_bits, int radius, uint32_t query,
                                                               unsigned table, size_t size)
{
    const unsigned line_bits = s->index->line_bits;
    const uint32_t high = key >> low_bits;
    probe p = {lines + (size_t)high * UG_MIH_LINE_WORDS, query, (uint16_t)table,
               (uint8_t)(key & ((1u << low_bits) - 1)), (uint8_t)radius};
    add_probe(s, p, size);
    for (int weight = 1; weight <= radius && weight <= (int)line_bits && s->status == 0; weight++) {
        uint64_t mask = ((uint64_t)1 << weight) - 1, end = (uint64_t)1 << line_bits;
        p.radius = (uint8_t)(radius - weight);
        while (mask < end) {
            p.line = lines + (size_t)(high ^ (uint32_t)mask) * UG_MIH_LINE_WORDS;
            add_probe(s, p, size);
            uint64_t lowest = mask & (~mask + 1), carried = mask + lowest;
            mask = carried | (((mask ^ carried) >> 2) >> __builtin_ctzll(lowest));
        }
    }
}

static inline __attribute__((always_inline)) int query_all(search *s, size_t query_count, size_t size)
{
    const ug_mih *index = s->index;
    const size_t table_words = UG_MIH_LINE_WORDS << index->line_bits;
    for (size_t q = 0; q < query_count; q++)
        for (unsigned t = 0; t < index->tables && s->status == 0; t++) {
            int radius = probe_radius(index->tables, t, s->limit_bits);
            if (radius < 0)
                break;
            uint32_t key = substring(s->queries + q * size, size, index->first_bit[t], index->key_bits[t]);
            probe_around(s, index->lines + t * table_words, key, index->key_bits[t] - index->line_bits, radius,
                         (uint32_t)q, t, size);
        }
    drain(s, size);
    return s->status;
}

UG_CLONES static int query_32(search *s, size_t query_count)
{
    return query_all(s, query_count, 32);
}

UG_CLONES static int query_8(search *s, size_t query_count)
{
    return query_all(s, query_count, 8);
}

int ug_mih_query(const ug_mih *index, const uint8_t *queries, size_t query_count, unsigned max_distance_bits,
                 size_t max_candidates, ug_hits *hits)
{
    if (index->rows == 0)
        return 0;
    search s = {.index = index,
                .queries = queries,
                .limit_bits = max_distance_bits,
                .max_candidates = max_candidates,
                .hits = hits};
    return index->code_bytes == 32 ? query_32(&s, query_count) : query_8(&s, query_count);
}
