/* Building one table of multi-index hashing (mih.h) block by block: memory follows the block, not the rows. */
#ifndef UPLOADGUARD_MIH_BUILD_H
#define UPLOADGUARD_MIH_BUILD_H

#include "mih.h"

/* Some lines of one table. `keys` holds the substring of every row, those of other lines too. */
typedef struct {
    const uint32_t *keys;
    size_t rows, first_line, line_count;
    unsigned low_bits; /* key bits beyond those that number the line */
} ug_mih_block;

/* Writes the substring that table t has of each code. */
void ug_mih_keys(const ug_mih *index, unsigned table, uint32_t *keys);

/* Lays out the block's lines, and says how many words of overflow go with them; the places that overflowing lines note
   count from the block's own first. `places`, line_count << low_bits words, gets where each value's rows begin, for
   ug_mih_fill. 0, or -1 where there are too many words to number. */
int ug_mih_place(const ug_mih_block *block, uint32_t *places, uint32_t *lines, size_t *overflow_words);

/* Puts the rows into the lines, and into `overflow` what belongs to the window of `words` words from `first` on, so that
   a block whose overflow is large can be filled window by window. Lines and places must be as ug_mih_place left them
   for these very keys; if not, -1, but nothing is written outside the buffers. */
int ug_mih_fill(const ug_mih_block *block, uint32_t *places, uint32_t *lines, uint32_t *overflow, size_t first,
                size_t words);

/* Adds `shift` to the places that lines note, once their overflow has found its place among all. */
void ug_mih_shift_overflow(uint32_t *lines, size_t line_count, uint32_t shift);

#endif
