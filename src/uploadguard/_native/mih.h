/* Multi-index hashing: exact Hamming look-up without reading most of the codes.

   Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014).
   A code is cut into m substrings, and for each there is a table from its value to the rows that have it. If two codes
   are within r = m*a + b bits (0 <= b < m), then one of the first b+1 substrings is within a bits, or one of the others
   within a-1: probing those values in the tables finds every row, whatever the limit. */
#ifndef UPLOADGUARD_MIH_H
#define UPLOADGUARD_MIH_H

#include <stddef.h>
#include <stdint.h>

#include "search.h"

enum { UG_MIH_MAX_TABLES = 32, UG_MIH_MAX_KEY_BITS = 28 };

/* Substrings are runs of bits, bit k of a code being bit k % 8 of byte k / 8; the shorter ones come first. Table t
   holds 2^key_bits + 1 row offsets into its own rows; row numbers of equal value stand together. */
typedef struct {
    const uint8_t *codes;     /* rows x code_bytes */
    const uint32_t *offsets;  /* all tables, one after the other */
    const uint32_t *row_ids;  /* tables x rows */
    size_t rows, code_bytes;
    unsigned tables;
    unsigned first_bit[UG_MIH_MAX_TABLES], key_bits[UG_MIH_MAX_TABLES];
    size_t first_offset[UG_MIH_MAX_TABLES + 1]; /* the last: how many offsets there are in all */
} ug_mih;

/* Sets everything that follows from rows, code_bytes (8 or 32) and tables. 0, or -1 where such tables cannot be. */
int ug_mih_layout(ug_mih *index, size_t rows, size_t code_bytes, unsigned tables);

/* Fills table t from the codes; offsets and row_ids point at that table's own part. */
void ug_mih_build_table(const ug_mih *index, unsigned table, uint32_t *offsets, uint32_t *row_ids);

/* How many probes a query takes, and how many candidates follow if codes are spread evenly. */
void ug_mih_cost(const ug_mih *index, unsigned max_distance_bits, double *probes, double *candidates);

/* Appends every pair of query and row at most max_distance_bits apart, each once. 0; -1 when out of memory; -2 when the
   tables are damaged (never reads outside them); 1 when there are more than max_candidates, as where very many codes
   are alike: then the hits are incomplete and a scan is the faster way. */
int ug_mih_query(const ug_mih *index, const uint8_t *queries, size_t query_count, unsigned max_distance_bits,
                 size_t max_candidates, ug_hits *hits);

#endif
