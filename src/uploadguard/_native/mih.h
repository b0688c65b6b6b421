/* Multi-index hashing: exact Hamming look-up without reading most of the codes.

   Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014).
   A code is cut into m substrings, and for each there is a table from its value to the rows that have it. If two codes
   are within r = m*a + b bits (0 <= b < m), then one of the first b+1 substrings is within a bits, or one of the others
   within a-1: probing those values in the tables finds every row, whatever the limit.

   A look-up is bound by memory latency, so a table is laid out for the fewest cache lines. Up to 16 values that differ in
   their low bits only share one line of 64 bytes, which holds how many rows each has and the rows themselves. Probing
   all values near one then takes one line for several of them, and nothing else before the codes. */
#ifndef UPLOADGUARD_MIH_H
#define UPLOADGUARD_MIH_H

#include <stddef.h>
#include <stdint.h>

#include "search.h"

enum {
    UG_MIH_LAYOUT = 2, /* to be raised whenever stored tables would be read otherwise than they were written */
    UG_MIH_MAX_TABLES = 32,
    UG_MIH_MAX_KEY_BITS = 28,
    UG_MIH_MAX_LINE_BITS = 26,
    UG_MIH_MAX_LOW_BITS = 4,  /* values in a line, as a power of two */
    UG_MIH_LINE_WORDS = 16,   /* 32-bit words in a line */
    UG_MIH_INLINE_ROWS = 14,  /* rows that fit into a line, behind its two words of counts */
};

/* Substrings are runs of bits, bit k of a code being bit k % 8 of byte k / 8. The last ones, those that a query within the
   design limit (31 of 256 bits, 7 of 64) probes one bit less far than the first, are line_bits long where that leaves no
   more than line_bits + UG_MIH_MAX_LOW_BITS for the others; the rest is shared evenly, the shorter ones first.

   A line is two words of 4-bit counts, the lowest value's lowest, and then the rows by value; or, if they do not fit, two
   words of ones and where in `overflow` they stand: first the end of each value's rows, counted from behind the last
   end, then the rows. */
typedef struct {
    const uint8_t *codes;     /* rows x code_bytes */
    const uint32_t *lines;    /* tables x 2^line_bits x 16 */
    const uint32_t *overflow; /* overflow_words */
    size_t rows, code_bytes, overflow_words;
    unsigned tables, line_bits;
    unsigned first_bit[UG_MIH_MAX_TABLES], key_bits[UG_MIH_MAX_TABLES];
} ug_mih;

/* Sets everything that follows from rows, code_bytes (8 or 32), tables and line_bits. 0, or -1 where such tables cannot
   be: a substring must be as long as line_bits, or longer by no more than UG_MIH_MAX_LOW_BITS. */
int ug_mih_layout(ug_mih *index, size_t rows, size_t code_bytes, unsigned tables, unsigned line_bits);

/* How many lines a query touches, and how many candidates follow if codes are spread evenly. */
void ug_mih_cost(const ug_mih *index, unsigned max_distance_bits, double *lines, double *candidates);

/* Appends every pair of query and row at most max_distance_bits apart, each once. 0; -1 when out of memory; -2 when the
   tables are damaged (never reads outside them); 1 when there are more than max_candidates, as where very many codes
   are alike: then the hits are incomplete and a scan is the faster way. */
int ug_mih_query(const ug_mih *index, const uint8_t *queries, size_t query_count, unsigned max_distance_bits,
                 size_t max_candidates, ug_hits *hits);

#endif
