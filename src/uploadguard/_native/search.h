/* Look-up over plain memory: no Python in here, so that it runs with the GIL released. */
#ifndef UPLOADGUARD_SEARCH_H
#define UPLOADGUARD_SEARCH_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t query;
    uint32_t row;
    uint32_t distance_bits;
} ug_hit;

typedef struct {
    ug_hit *items; /* malloc'ed; the caller frees it, after a failure too */
    size_t count;
    size_t capacity;
} ug_hits;

/* Appends one hit. Returns 0, or -1 when out of memory. */
int ug_add_hit(ug_hits *hits, ug_hit hit);

/* Appends every pair of query and row at most max_distance_bits apart. Codes and queries are packed, code_bytes
   (8 or 32) each, of any alignment; at most UINT32_MAX rows and queries. Returns 0, or -1 when out of memory. */
int ug_hamming_scan(const uint8_t *codes, size_t rows, size_t code_bytes, const uint8_t *queries, size_t query_count,
                    unsigned max_distance_bits, ug_hits *hits);

/* Finds the rows [*low, *high) equal to key among records of record_bytes each, sorted as memcmp sorts. Takes
   O(log rows) steps whatever the records hold; in unsorted records the answer is a wrong but valid range. */
void ug_exact_find(const uint8_t *records, size_t rows, size_t record_bytes, const uint8_t *key, size_t *low,
                   size_t *high);

/* The first eight bytes as a number that orders as memcmp does; shorter records count as padded with zeros. */
static inline uint64_t ug_record_prefix(const uint8_t *record, size_t record_bytes)
{
    uint64_t word = 0;
    if (record_bytes >= 8) {
        for (int i = 0; i < 8; i++)
            word = word << 8 | record[i];
        return word;
    }
    for (size_t i = 0; i < record_bytes; i++)
        word |= (uint64_t)record[i] << (56 - 8 * i);
    return word;
}

#endif
