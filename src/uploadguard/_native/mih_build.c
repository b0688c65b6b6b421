/* See mih_build.h. Rows outside the block are sorted out without a branch, a batch at a time; what is left of a batch
   touches memory all over the block, so each touch is announced before its turn. */
#include "mih_build.h"

#include <string.h>

enum { BATCH_ROWS = 4096, FAR = 64, NEAR = 32 };

static const uint64_t OVERFLOWS = UINT64_MAX;
static const uint32_t IN_OVERFLOW = (uint32_t)1 << 31;

/* Rows of the block, and the number of each one's value in it. */
typedef struct {
    size_t count;
    uint32_t rows[BATCH_ROWS], values[BATCH_ROWS];
} batch;

static int overflows(const uint32_t *line)
{
    return memcmp(line, &OVERFLOWS, sizeof OVERFLOWS) == 0;
}

static uint64_t word_of(const uint8_t *code, size_t word)
{
    uint64_t value;
    memcpy(&value, code + 8 * word, sizeof value);
    return value;
}

void ug_mih_keys(const ug_mih *index, unsigned table, uint32_t *keys)
{
    const size_t size = index->code_bytes, word = index->first_bit[table] / 64;
    const unsigned shift = index->first_bit[table] % 64, bits = index->key_bits[table];
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    if (shift + bits <= 64)
        for (size_t row = 0; row < index->rows; row++)
            keys[row] = (uint32_t)(word_of(index->codes + row * size, word) >> shift) & mask;
    else
        for (size_t row = 0; row < index->rows; row++) {
            const uint8_t *code = index->codes + row * size;
            keys[row] = (uint32_t)(word_of(code, word) >> shift | word_of(code, word + 1) << (64 - shift)) & mask;
        }
}

/* The block's rows among the next few from *row on, which it moves on. */
static void collect(const ug_mih_block *block, size_t *row, batch *found)
{
    const size_t end = block->rows - *row > BATCH_ROWS ? *row + BATCH_ROWS : block->rows;
    const uint32_t base = (uint32_t)(block->first_line << block->low_bits);
    const uint32_t values = (uint32_t)(block->line_count << block->low_bits);
    size_t count = 0;
    for (size_t at = *row; at < end; at++) {
        uint32_t value = block->keys[at] - base;
        found->rows[count] = (uint32_t)at;
        found->values[count] = value;
        count += value < values;
    }
    found->count = count;
    *row = end;
}

static void count_rows(const ug_mih_block *block, uint32_t *counts)
{
    batch found;
    for (size_t row = 0; row < block->rows;) {
        collect(block, &row, &found);
        for (size_t i = 0; i < found.count; i++) {
            if (i + FAR < found.count)
                __builtin_prefetch(&counts[found.values[i + FAR]], 1);
            counts[found.values[i]]++;
        }
    }
}

int ug_mih_place(const ug_mih_block *block, uint32_t *places, uint32_t *lines, size_t *overflow_words)
{
    const size_t values = (size_t)1 << block->low_bits;
    size_t used = 0;
    memset(places, 0, (block->line_count << block->low_bits) * sizeof *places);
    count_rows(block, places);
    memset(lines, 0, block->line_count * UG_MIH_LINE_WORDS * sizeof *lines);
    for (size_t line = 0; line < block->line_count; line++) {
        uint32_t *count = places + line * values, *out = lines + line * UG_MIH_LINE_WORDS;
        size_t total = 0;
        for (size_t v = 0; v < values; v++)
            total += count[v];
        uint32_t place = (uint32_t)(line * UG_MIH_LINE_WORDS + 2);
        if (total <= UG_MIH_INLINE_ROWS) {
            uint64_t counts = 0;
            for (size_t v = 0; v < values; v++)
                counts |= (uint64_t)count[v] << (4 * v);
            memcpy(out, &counts, sizeof counts);
        } else {
            if (values + total > IN_OVERFLOW - 1 - used)
                return -1;
            memcpy(out, &OVERFLOWS, sizeof OVERFLOWS);
            out[2] = (uint32_t)used;
            place = (uint32_t)(used + values) | IN_OVERFLOW;
            used += values + total;
        }
        for (size_t v = 0; v < values; v++) {
            uint32_t next = place + count[v];
            count[v] = place;
            place = next;
        }
    }
    *overflow_words = used;
    return 0;
}

/* Where the rows of each value end is known once they are in. Takes the places back to where they began, too. */
static void write_ends(const ug_mih_block *block, uint32_t *places, const uint32_t *lines, uint32_t *overflow,
                       size_t first, size_t words)
{
    const size_t values = (size_t)1 << block->low_bits;
    for (size_t line = 0; line < block->line_count; line++) {
        const uint32_t *out = lines + line * UG_MIH_LINE_WORDS;
        uint32_t *place = places + line * values, begin = (uint32_t)(line * UG_MIH_LINE_WORDS + 2);
        if (overflows(out)) {
            begin = (uint32_t)(out[2] + values) | IN_OVERFLOW;
            for (size_t v = 0; v < values; v++)
                if (out[2] + v - first < words)
                    overflow[out[2] + v - first] = place[v] - begin;
        }
        for (size_t v = values - 1; v > 0; v--)
            place[v] = place[v - 1];
        place[0] = begin;
    }
}

int ug_mih_fill(const ug_mih_block *block, uint32_t *places, uint32_t *lines, uint32_t *overflow, size_t first,
                size_t words)
{
    const size_t line_words = block->line_count * UG_MIH_LINE_WORDS;
    batch found;
    for (size_t row = 0; row < block->rows;) {
        collect(block, &row, &found);
        for (size_t i = 0; i < found.count; i++) {
            if (i + FAR < found.count)
                __builtin_prefetch(&places[found.values[i + FAR]], 1);
            if (i + NEAR < found.count) {
                uint32_t near = places[found.values[i + NEAR]];
                if (near < line_words)
                    __builtin_prefetch(&lines[near], 1);
            }
            uint32_t place = places[found.values[i]]++;
            if (place & IN_OVERFLOW) {
                size_t at = (size_t)(place & ~IN_OVERFLOW) - first;
                if (at < words)
                    overflow[at] = found.rows[i];
            } else if (place < line_words) {
                lines[place] = found.rows[i];
            } else {
                return -1;
            }
        }
    }
    write_ends(block, places, lines, overflow, first, words);
    return 0;
}

void ug_mih_shift_overflow(uint32_t *lines, size_t line_count, uint32_t shift)
{
    for (size_t line = 0; line < line_count; line++, lines += UG_MIH_LINE_WORDS)
        if (overflows(lines))
            lines[2] += shift;
}
