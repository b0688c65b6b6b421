/* Merging sorted runs of records, each with an id. */
#ifndef UPLOADGUARD_EXACT_MERGE_H
#define UPLOADGUARD_EXACT_MERGE_H

#include <stddef.h>
#include <stdint.h>

/* The part of a run that is still to come: rows [at, end). */
typedef struct {
    uint64_t at, end;
} ug_run;

/* Takes the next rows, at most `room`, by (record, id), and moves the runs on. How many; -1 when out of memory. Runs that
   are not sorted come out in some order, and do no other harm. */
ptrdiff_t ug_exact_merge(const uint8_t *records, size_t record_bytes, const uint32_t *ids, ug_run *runs, size_t run_count,
                         uint8_t *merged, uint32_t *merged_ids, size_t room);

#endif
