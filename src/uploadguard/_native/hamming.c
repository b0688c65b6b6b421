/* Hamming look-up by a linear scan: one pass over the codes for a whole batch of queries.

   A block of codes is brought into the first-level cache once and met with every query there. A first, vectorised
   look takes a lower bound of each distance; only blocks where one is within the limit are counted in full, so nothing
   within the limit is ever missed. */
#include "kernel.h"
#include "search.h"

#include <stdlib.h>
#include <string.h>

/* Small enough that codes and words stay in a first-level cache of 32 KiB, measured as the fastest of 256 to 1024. */
enum { BLOCK_ROWS = 256 };

/* Two words of each code of a block, set apart so that a vector holds the same word of several codes. */
typedef struct {
    _Alignas(64) uint64_t first[BLOCK_ROWS];
    _Alignas(64) uint64_t second[BLOCK_ROWS];
} word_block;

/* The byte order does not matter to a count of differing bits, only that codes and queries are read alike. */
static inline uint64_t load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline __attribute__((always_inline)) void split_words(const uint8_t *codes, size_t rows, size_t code_bytes,
                                                              word_block *block)
{
    if (code_bytes == 8) {
        memcpy(block->first, codes, rows * 8);
        memcpy(block->second, codes, rows * 8);
        return;
    }
    for (size_t row = 0; row < rows; row++) {
        block->first[row] = load64(codes + 32 * row);
        block->second[row] = load64(codes + 32 * row + 8);
    }
}

/* The least lower bound of the block's distances. The bits that differ in either of two words are at most as many as
   differ in the whole code: a bound that costs one population count and, for limits up to about 40 of 256 bits, holds
   back nearly every unrelated code. */
static inline __attribute__((always_inline)) uint64_t least_bound(const word_block *block, uint64_t first,
                                                                  uint64_t second)
{
    uint64_t least = UINT64_MAX;
    for (size_t row = 0; row < BLOCK_ROWS; row++) {
        uint64_t differing = (block->first[row] ^ first) | (block->second[row] ^ second);
        uint64_t bound = (uint64_t)__builtin_popcountll(differing);
        least = bound < least ? bound : least;
    }
    return least;
}

typedef void split_function(const uint8_t *codes, size_t rows, size_t code_bytes, word_block *block);
typedef uint64_t bound_function(const word_block *block, uint64_t first, uint64_t second);

UG_CLONES static void split_any(const uint8_t *codes, size_t rows, size_t code_bytes, word_block *block)
{
    split_words(codes, rows, code_bytes, block);
}

UG_CLONES static uint64_t bound_any(const word_block *block, uint64_t first, uint64_t second)
{
    return least_bound(block, first, second);
}

/* Counting bits in vectors is part of no x86-64 level, so that clone is chosen by hand. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
#define UG_VECTOR_POPCOUNT __attribute__((target("arch=x86-64-v4,avx512vpopcntdq,prefer-vector-width=512")))

UG_VECTOR_POPCOUNT static void split_popcount(const uint8_t *codes, size_t rows, size_t code_bytes, word_block *block)
{
    split_words(codes, rows, code_bytes, block);
}

UG_VECTOR_POPCOUNT static uint64_t bound_popcount(const word_block *block, uint64_t first, uint64_t second)
{
    return least_bound(block, first, second);
}

static int has_vector_popcount(void)
{
    return __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd");
}
#else
#define split_popcount split_any
#define bound_popcount bound_any
static int has_vector_popcount(void)
{
    return 0;
}
#endif

UG_CLONES static void count_distances(const uint8_t *codes, size_t rows, size_t code_bytes, const uint8_t *query,
                                      uint32_t *distances_bits)
{
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *code = codes + row * code_bytes;
        uint32_t distance_bits = 0;
        for (size_t at = 0; at < code_bytes; at += 8)
            distance_bits += (uint32_t)__builtin_popcountll(load64(code + at) ^ load64(query + at));
        distances_bits[row] = distance_bits;
    }
}

int ug_add_hit(ug_hits *hits, ug_hit hit)
{
    if (hits->count == hits->capacity) {
        if (hits->capacity > SIZE_MAX / (2 * sizeof hit))
            return -1;
        size_t capacity = hits->capacity ? 2 * hits->capacity : 64;
        ug_hit *items = realloc(hits->items, capacity * sizeof hit);
        if (items == NULL)
            return -1;
        hits->items = items;
        hits->capacity = capacity;
    }
    hits->items[hits->count++] = hit;
    return 0;
}

int ug_hamming_scan(const uint8_t *codes, size_t rows, size_t code_bytes, const uint8_t *queries, size_t query_count,
                    unsigned max_distance_bits, ug_hits *hits)
{
    split_function *split = has_vector_popcount() ? split_popcount : split_any;
    bound_function *bound = has_vector_popcount() ? bound_popcount : bound_any;
    size_t second_at = code_bytes == 8 ? 0 : 8;
    word_block block = {{0}, {0}};
    uint32_t distances_bits[BLOCK_ROWS];
    for (size_t start = 0; start < rows; start += BLOCK_ROWS) {
        const uint8_t *block_codes = codes + start * code_bytes;
        size_t block_rows = rows - start < BLOCK_ROWS ? rows - start : BLOCK_ROWS;
        split(block_codes, block_rows, code_bytes, &block);
        for (size_t query = 0; query < query_count; query++) {
            const uint8_t *wanted = queries + query * code_bytes;
            if (bound(&block, load64(wanted), load64(wanted + second_at)) > max_distance_bits)
                continue;
            count_distances(block_codes, block_rows, code_bytes, wanted, distances_bits);
            for (size_t row = 0; row < block_rows; row++) {
                ug_hit hit = {(uint32_t)query, (uint32_t)(start + row), distances_bits[row]};
                if (hit.distance_bits <= max_distance_bits && ug_add_hit(hits, hit) < 0)
                    return -1;
            }
        }
    }
    return 0;
}
