/* See exact_merge.h. A heap of the runs' first records; most comparisons are settled by the eight bytes kept in it. */
#include "exact_merge.h"

#include <stdlib.h>
#include <string.h>

#include "search.h"

typedef struct {
    uint64_t prefix;
    ug_run *run;
} head;

typedef struct {
    const uint8_t *records;
    const uint32_t *ids;
    size_t record_bytes, count;
    head heads[];
} heap;

static int is_before(const heap *h, const head *a, const head *b)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix;
    int order = memcmp(h->records + a->run->at * h->record_bytes, h->records + b->run->at * h->record_bytes,
                       h->record_bytes);
    return order != 0 ? order < 0 : h->ids[a->run->at] < h->ids[b->run->at];
}

static void sift_down(heap *h, size_t place)
{
    head moved = h->heads[place];
    for (size_t child; (child = 2 * place + 1) < h->count; place = child) {
        if (child + 1 < h->count && is_before(h, &h->heads[child + 1], &h->heads[child]))
            child++;
        if (!is_before(h, &h->heads[child], &moved))
            break;
        h->heads[place] = h->heads[child];
    }
    h->heads[place] = moved;
}

ptrdiff_t ug_exact_merge(const uint8_t *records, size_t record_bytes, const uint32_t *ids, ug_run *runs, size_t run_count,
                         uint8_t *merged, uint32_t *merged_ids, size_t room)
{
    heap *h = malloc(sizeof *h + run_count * sizeof *h->heads);
    if (h == NULL)
        return -1;
    *h = (heap){.records = records, .ids = ids, .record_bytes = record_bytes};
    for (size_t r = 0; r < run_count; r++)
        if (runs[r].at < runs[r].end)
            h->heads[h->count++] =
                (head){ug_record_prefix(records + runs[r].at * record_bytes, record_bytes), &runs[r]};
    for (size_t place = h->count / 2; place-- > 0;)
        sift_down(h, place);
    size_t taken = 0;
    while (taken < room && h->count > 0) {
        head *first = &h->heads[0];
        memcpy(merged + taken * record_bytes, records + first->run->at * record_bytes, record_bytes);
        merged_ids[taken++] = ids[first->run->at++];
        if (first->run->at < first->run->end)
            first->prefix = ug_record_prefix(records + first->run->at * record_bytes, record_bytes);
        else
            *first = h->heads[--h->count];
        if (h->count > 0)
            sift_down(h, 0);
    }
    free(h);
    return (ptrdiff_t)taken;
}
