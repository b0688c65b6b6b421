/* Exact look-up in sorted records of one length: interpolation, which needs few cache misses on digests, and then
   galloping, which stays logarithmic on anything else. */
#include "search.h"

#include <string.h>

/* Digests are uniform: each step takes the distance to the goal to about its square root, so that three steps in ten
   million rows end a few rows away. More steps would only add cache misses. */
enum { INTERPOLATION_STEPS = 3, NEAR_ROWS = 16 };

/* The first row in [low, high) that is above the key, or equal to it if or_equal; high if there is none. */
static size_t bisect(const uint8_t *records, size_t record_bytes, const uint8_t *key, size_t low, size_t high,
                     int or_equal)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(records + middle * record_bytes, key, record_bytes) >= !or_equal)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static size_t lower_bound(const uint8_t *records, size_t rows, size_t record_bytes, const uint8_t *key)
{
    /* Rows before low are below the key, rows from high on are not; low_prefix <= goal <= high_prefix. */
    size_t low = 0, high = rows;
    uint64_t low_prefix = 0, high_prefix = UINT64_MAX, goal = ug_record_prefix(key, record_bytes);
    int from_low = 1;
    for (int step = 0; step < INTERPOLATION_STEPS && high - low > NEAR_ROWS && low_prefix < high_prefix; step++) {
        double share = (double)(goal - low_prefix) / (double)(high_prefix - low_prefix);
        size_t row = low + (size_t)(share * (double)(high - low));
        if (row >= high)
            row = high - 1;
        const uint8_t *record = records + row * record_bytes;
        from_low = memcmp(record, key, record_bytes) < 0;
        if (from_low) {
            low = row + 1;
            low_prefix = ug_record_prefix(record, record_bytes);
        } else {
            high = row;
            high_prefix = ug_record_prefix(record, record_bytes);
        }
    }
    for (size_t stride = 8; high - low > stride; stride *= 2) {
        size_t row = from_low ? low + stride : high - stride;
        int below = memcmp(records + row * record_bytes, key, record_bytes) < 0;
        if (below)
            low = row + 1;
        else
            high = row;
        if (below != from_low)
            break;
    }
    return bisect(records, record_bytes, key, low, high, 1);
}

void ug_exact_find(const uint8_t *records, size_t rows, size_t record_bytes, const uint8_t *key, size_t *low,
                   size_t *high)
{
    size_t first = lower_bound(records, rows, record_bytes, key), end = first;
    /* Most keys are absent or stand alone, so look at the next row before galloping over duplicates. */
    for (size_t stride = 1; end < rows; stride *= 2) {
        size_t row = rows - end > stride ? end + stride - 1 : rows - 1;
        if (memcmp(records + row * record_bytes, key, record_bytes) != 0) {
            end = bisect(records, record_bytes, key, end, row, 0);
            break;
        }
        end = row + 1;
    }
    *low = first;
    *high = end;
}
