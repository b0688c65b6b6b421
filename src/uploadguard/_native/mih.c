/* See mih.h. A look-up is bound by memory latency: each probe touches an offset, then row numbers, then codes, each at
   a place that no cache holds. So every touch is announced to the memory long before its turn, through three short
   queues that run through all tables and queries without a pause. */
#include "mih.h"

#include <string.h>

#include "kernel.h"

enum { AHEAD_OFFSETS = 32, AHEAD_ROWS = 32, AHEAD_CODES = 32 };

static inline uint64_t load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

int ug_mih_layout(ug_mih *index, size_t rows, size_t code_bytes, unsigned tables)
{
    unsigned bits = (unsigned)code_bytes * 8;
    if (tables < 1 || tables > UG_MIH_MAX_TABLES || rows > UINT32_MAX || (code_bytes != 8 && code_bytes != 32))
        return -1;
    unsigned shorter = bits / tables, longer_count = bits % tables, first = 0;
    if (shorter < 1 || shorter + (longer_count > 0) > UG_MIH_MAX_KEY_BITS)
        return -1;
    index->rows = rows;
    index->code_bytes = code_bytes;
    index->tables = tables;
    index->first_offset[0] = 0;
    for (unsigned t = 0; t < tables; t++) {
        index->first_bit[t] = first;
        index->key_bits[t] = shorter + (t >= tables - longer_count);
        first += index->key_bits[t];
        index->first_offset[t + 1] = index->first_offset[t] + ((size_t)1 << index->key_bits[t]) + 1;
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

void ug_mih_build_table(const ug_mih *index, unsigned table, uint32_t *offsets, uint32_t *row_ids)
{
    const size_t buckets = (size_t)1 << index->key_bits[table], n = index->rows, size = index->code_bytes;
    const unsigned first = index->first_bit[table], bits = index->key_bits[table];
    const uint8_t *codes = index->codes;
    enum { FAR = 64, NEAR = 32 };
    memset(offsets, 0, (buckets + 1) * sizeof *offsets);
    /* offsets[v + 1] counts bucket v, then says where it begins, then, as its rows are put in, where it ends. */
    for (size_t row = 0; row < n; row++) {
        if (row + FAR < n)
            __builtin_prefetch(&offsets[substring(codes + (row + FAR) * size, size, first, bits) + 1], 1);
        offsets[substring(codes + row * size, size, first, bits) + 1]++;
    }
    uint32_t begin = 0;
    for (size_t v = 1; v <= buckets; v++) {
        uint32_t count = offsets[v];
        offsets[v] = begin;
        begin += count;
    }
    for (size_t row = 0; row < n; row++) {
        if (row + FAR < n)
            __builtin_prefetch(&offsets[substring(codes + (row + FAR) * size, size, first, bits) + 1], 1);
        if (row + NEAR < n)
            __builtin_prefetch(&row_ids[offsets[substring(codes + (row + NEAR) * size, size, first, bits) + 1]], 1);
        row_ids[offsets[substring(codes + row * size, size, first, bits) + 1]++] = (uint32_t)row;
    }
}

/* How far from the query the keys of table t are probed for a limit; -1: not at all. */
static inline __attribute__((always_inline)) int probe_radius(unsigned tables, unsigned table, unsigned limit_bits)
{
    return (int)(limit_bits / tables) - (table > limit_bits % tables);
}

void ug_mih_cost(const ug_mih *index, unsigned max_distance_bits, double *probes, double *candidates)
{
    *probes = *candidates = 0.0;
    for (unsigned t = 0; t < index->tables; t++) {
        unsigned bits = index->key_bits[t];
        int radius = probe_radius(index->tables, t, max_distance_bits);
        double of_weight = 1.0, keys = 0.0;
        for (int weight = 0; weight <= radius && weight <= (int)bits; weight++) {
            keys += of_weight;
            of_weight = of_weight * (bits - (unsigned)weight) / (weight + 1);
        }
        *probes += keys;
        *candidates += keys * (double)index->rows / (double)((size_t)1 << bits);
    }
}

typedef struct {
    const uint32_t *offset;
    uint32_t query, table;
} probe;

typedef struct {
    const uint32_t *row_ids;
    uint32_t count, query, table;
} bucket;

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
    size_t probes_in, buckets_in, candidates_in;
    probe probes[AHEAD_OFFSETS];
    bucket buckets[AHEAD_ROWS];
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

static inline __attribute__((always_inline)) void finish_bucket(search *s, const bucket *b, size_t size)
{
    if (__builtin_expect(s->candidates_in + b->count > s->max_candidates, 0)) {
        s->status = 1;
        return;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t row = b->row_ids[i];
        if (__builtin_expect(row >= s->index->rows, 0)) {
            s->status = -2;
            return;
        }
        candidate *slot = &s->candidates[s->candidates_in % AHEAD_CODES];
        if (s->candidates_in++ >= AHEAD_CODES)
            finish_candidate(s, slot, size);
        *slot = (candidate){row, b->query, b->table};
        __builtin_prefetch(s->index->codes + row * size);
    }
}

static inline __attribute__((always_inline)) void finish_probe(search *s, const probe *p, size_t size)
{
    uint32_t begin = p->offset[0], end = p->offset[1];
    if (begin == end)
        return;
    if (__builtin_expect(begin > end || end > s->index->rows, 0)) {
        s->status = -2;
        return;
    }
    bucket *slot = &s->buckets[s->buckets_in % AHEAD_ROWS];
    if (s->buckets_in++ >= AHEAD_ROWS)
        finish_bucket(s, slot, size);
    *slot = (bucket){s->index->row_ids + p->table * s->index->rows + begin, end - begin, p->query, p->table};
    __builtin_prefetch(slot->row_ids);
}

static inline __attribute__((always_inline)) void add_probe(search *s, const uint32_t *offset, uint32_t query,
                                                            uint32_t table, size_t size)
{
    probe *slot = &s->probes[s->probes_in % AHEAD_OFFSETS];
    if (s->probes_in++ >= AHEAD_OFFSETS)
        finish_probe(s, slot, size);
    *slot = (probe){offset, query, table};
    __builtin_prefetch(offset);
}

static inline __attribute__((always_inline)) void drain(search *s, size_t size)
{
    size_t first = s->probes_in > AHEAD_OFFSETS ? s->probes_in - AHEAD_OFFSETS : 0;
    for (size_t i = first; i < s->probes_in && s->status == 0; i++)
        finish_probe(s, &s->probes[i % AHEAD_OFFSETS], size);
    first = s->buckets_in > AHEAD_ROWS ? s->buckets_in - AHEAD_ROWS : 0;
    for (size_t i = first; i < s->buckets_in && s->status == 0; i++)
        finish_bucket(s, &s->buckets[i % AHEAD_ROWS], size);
    first = s->candidates_in > AHEAD_CODES ? s->candidates_in - AHEAD_CODES : 0;
    for (size_t i = first; i < s->candidates_in && s->status == 0; i++)
        finish_candidate(s, &s->candidates[i % AHEAD_CODES], size);
}

/* Probes every key within `radius` bits of `key`: all masks of each weight, by Gosper's hack. */
static inline __attribute__((always_inline)) void probe_around(search *s, const uint32_t *offsets, uint32_t key,
                                                               unsigned bits, int radius, uint32_t query,
                                                               uint32_t table, size_t size)
{
    add_probe(s, offsets + key, query, table, size);
    for (int weight = 1; weight <= radius && weight <= (int)bits && s->status == 0; weight++) {
        uint64_t mask = ((uint64_t)1 << weight) - 1, end = (uint64_t)1 << bits;
        while (mask < end) {
            add_probe(s, offsets + (key ^ (uint32_t)mask), query, table, size);
            uint64_t lowest = mask & (~mask + 1), carried = mask + lowest;
            mask = carried | (((mask ^ carried) >> 2) >> __builtin_ctzll(lowest));
        }
    }
}

static inline __attribute__((always_inline)) int query_all(search *s, size_t query_count, size_t size)
{
    const ug_mih *index = s->index;
    for (size_t q = 0; q < query_count; q++)
        for (unsigned t = 0; t < index->tables && s->status == 0; t++) {
            int radius = probe_radius(index->tables, t, s->limit_bits);
            if (radius < 0)
                break;
            uint32_t key = substring(s->queries + q * size, size, index->first_bit[t], index->key_bits[t]);
            probe_around(s, index->offsets + index->first_offset[t], key, index->key_bits[t], radius, (uint32_t)q, t,
                         size);
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
