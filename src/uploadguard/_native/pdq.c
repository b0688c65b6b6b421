/* The fast way to a PDQ hash: one sparse matrix product a picture, then bits with a margin. See pdq.h. */
#include "pdq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

float ug_pdq_dct[UG_PDQ_DCT][UG_PDQ_SIDE];

/* How far the published single-precision sums stray from the true ones, in sample values (0 to 255): a random walk
   along each axis. docs/performance.md has the measurement; these are at least twice what was seen. */
static double sample_tolerance(const ug_picture *p)
{
    int longest = p->full_width > p->full_height ? p->full_width : p->full_height;
    return 3e-3 * (1.0 + sqrt(longest) / 64.0);
}

/* The same for coefficients, as a multiple of that for samples. */
static const double COEFF_TOLERANCE = 3.0;

void ug_pdq_init(void)
{
    ug_pdq_reference_init();
    const double pi = 3.14159265358979323846;
    const float scale = (float)sqrt(2.0 / UG_PDQ_SIDE);
    for (int i = 0; i < UG_PDQ_DCT; i++)
        for (int j = 0; j < UG_PDQ_SIDE; j++)
            ug_pdq_dct[i][j] = (float)(scale * cos(pi / 2.0 / UG_PDQ_SIDE * (i + 1) * (2 * j + 1)));
}

int ug_pdq_window(int n)
{
    return (n + 2 * UG_PDQ_SIDE - 1) / (2 * UG_PDQ_SIDE);
}

int ug_pdq_sample_index(int k, int n)
{
    return (int)(((k + 0.5) * n) / UG_PDQ_SIDE);
}

/* One axis of the product: row k of W covers indices first[k] .. first[k] + count[k] - 1 of the (scaled) axis. */
typedef struct {
    int first[UG_PDQ_SIDE], count[UG_PDQ_SIDE];
    float *weights[UG_PDQ_SIDE];
    float *storage;
} axis_weights;

/* The input indices that a box of width w centred on i averages, cut off at the edges of 0 .. n - 1. */
static void box_range(int i, int n, int w, int *low, int *high)
{
    int half = (w + 2) / 2;
    *low = i - (w - half);
    *high = i + half - 1;
    if (*low < 0)
        *low = 0;
    if (*high > n - 1)
        *high = n - 1;
}

/* Composes two box passes at every sample point, and sums the weights over blocks of `scale` pixels. */
static int axis_init(axis_weights *axis, int n, int scale)
{
    int w = ug_pdq_window(n);
    int span = 2 * w + 1; /* 2w - 1 pixels at most, and one more for the difference array's end */
    axis->storage = malloc(sizeof(float) * UG_PDQ_SIDE * (size_t)span);
    double *steps = malloc(sizeof(double) * (size_t)span);
    if (!axis->storage || !steps) {
        free(axis->storage);
        free(steps);
        return -1;
    }
    for (int k = 0; k < UG_PDQ_SIDE; k++) {
        int low, high, first, last, inner_low, inner_high;
        box_range(ug_pdq_sample_index(k, n), n, w, &low, &high);
        box_range(low, n, w, &first, &inner_high);
        box_range(high, n, w, &inner_low, &last);
        memset(steps, 0, sizeof(double) * (size_t)span);
        for (int q = low; q <= high; q++) {
            box_range(q, n, w, &inner_low, &inner_high);
            double share = 1.0 / ((double)(high - low + 1) * (inner_high - inner_low + 1));
            steps[inner_low - first] += share;
            steps[inner_high + 1 - first] -= share;
        }
        float *weights = axis->storage + (size_t)k * (size_t)span;
        int blocks = last / scale - first / scale + 1;
        double weight = 0.0, sum = 0.0;
        int block = 0;
        for (int r = first; r <= last; r++) {
            weight += steps[r - first];
            sum += weight;
            if (r == last || (r + 1) % scale == 0) {
                weights[block++] = (float)sum;
                sum = 0.0;
            }
        }
        axis->first[k] = first / scale;
        axis->count[k] = blocks;
        axis->weights[k] = weights;
    }
    free(steps);
    return 0;
}

/* sums[x] += weights . column x, for `rows` rows of `n` bytes. Four rows at a time: one load and store of the sums. */
UG_CLONES
static void add_rows(float *restrict sums, const uint8_t *restrict base, size_t n, const float *weights, int rows)
{
    int y = 0;
    for (; y + 4 <= rows; y += 4) {
        const uint8_t *r0 = base + (size_t)y * n, *r1 = r0 + n, *r2 = r1 + n, *r3 = r2 + n;
        float w0 = weights[y], w1 = weights[y + 1], w2 = weights[y + 2], w3 = weights[y + 3];
        for (size_t x = 0; x < n; x++)
            sums[x] += (w0 * r0[x] + w1 * r1[x]) + (w2 * r2[x] + w3 * r3[x]);
    }
    for (; y < rows; y++) {
        const uint8_t *r = base + (size_t)y * n;
        float w = weights[y];
        for (size_t x = 0; x < n; x++)
            sums[x] += w * r[x];
    }
}

/* One output row: the weighted sums along the other axis, channels folded to luma. */
static void fold_row(const float *sums, int channels, const axis_weights *columns, double *out)
{
    for (int l = 0; l < UG_PDQ_SIDE; l++) {
        const float *weights = columns->weights[l];
        const float *s = sums + (size_t)columns->first[l] * (size_t)channels;
        int count = columns->count[l];
        if (channels == 1) {
            double y = 0.0;
            for (int i = 0; i < count; i++)
                y += (double)weights[i] * s[i];
            out[l] = y;
        } else {
            double r = 0.0, g = 0.0, b = 0.0;
            for (int i = 0; i < count; i++) {
                r += (double)weights[i] * s[3 * i];
                g += (double)weights[i] * s[3 * i + 1];
                b += (double)weights[i] * s[3 * i + 2];
            }
            out[l] = 0.299 * r + 0.587 * g + 0.114 * b;
        }
    }
}

UG_CLONES
static void dct(double samples[UG_PDQ_SIDE][UG_PDQ_SIDE], double coeffs[UG_PDQ_COEFFS])
{
    double half[UG_PDQ_DCT][UG_PDQ_SIDE] = {{0}};
    for (int i = 0; i < UG_PDQ_DCT; i++)
        for (int k = 0; k < UG_PDQ_SIDE; k++)
            for (int j = 0; j < UG_PDQ_SIDE; j++)
                half[i][j] += ug_pdq_dct[i][k] * samples[k][j];
    for (int i = 0; i < UG_PDQ_DCT; i++)
        for (int j = 0; j < UG_PDQ_DCT; j++) {
            double sum = 0.0;
            for (int k = 0; k < UG_PDQ_SIDE; k++)
                sum += half[i][k] * ug_pdq_dct[j][k];
            coeffs[i * UG_PDQ_DCT + j] = sum;
        }
}

int ug_pdq_fast(const ug_picture *p, double samples[UG_PDQ_SIDE][UG_PDQ_SIDE], double coeffs[UG_PDQ_COEFFS])
{
    size_t row_bytes = (size_t)p->width * (size_t)p->channels;
    axis_weights rows = {.storage = NULL}, columns = {.storage = NULL};
    float *sums = malloc(sizeof(float) * row_bytes);
    int status = -1;
    if (sums && axis_init(&rows, p->full_height, p->scale) == 0 && axis_init(&columns, p->full_width, p->scale) == 0) {
        for (int k = 0; k < UG_PDQ_SIDE; k++) {
            memset(sums, 0, sizeof(float) * row_bytes);
            add_rows(sums, p->pixels + (size_t)rows.first[k] * row_bytes, row_bytes, rows.weights[k], rows.count[k]);
            fold_row(sums, p->channels, &columns, samples[k]);
        }
        dct(samples, coeffs);
        status = 0;
    }
    free(sums);
    free(rows.storage);
    free(columns.storage);
    return status;
}

/* The element of rank 127 of 256 (the lower median), by quickselect. */
static double lower_median(const double values[UG_PDQ_COEFFS])
{
    double v[UG_PDQ_COEFFS];
    memcpy(v, values, sizeof v);
    int low = 0, high = UG_PDQ_COEFFS - 1;
    const int rank = UG_PDQ_COEFFS / 2 - 1;
    while (low < high) {
        double pivot = v[(low + high) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot)
                i++;
            while (v[j] > pivot)
                j--;
            if (i <= j) {
                double t = v[i];
                v[i++] = v[j];
                v[j--] = t;
            }
        }
        if (rank <= j)
            high = j;
        else if (rank >= i)
            low = i;
        else
            break;
    }
    return v[rank];
}

/* The dihedral forms are the same coefficients with signs flipped by the parity of row or column, and transposed for
   the quarter turns and diagonal flips. Four sign patterns make all eight. Coefficient (i, j) stands for frequencies
   i + 1 and j + 1, so an even index is an odd, antisymmetric frequency. */
typedef enum { SIGN_NONE, SIGN_SUM, SIGN_ROW, SIGN_COLUMN } sign_pattern;

static int negated(sign_pattern pattern, int i, int j)
{
    switch (pattern) {
    case SIGN_SUM:
        return (i + j) & 1;
    case SIGN_ROW:
        return !(i & 1);
    case SIGN_COLUMN:
        return !(j & 1);
    default:
        return 0;
    }
}

/* In the order of UG_PDQ_VARIANTS. */
static const struct {
    sign_pattern pattern;
    int transposed;
} VARIANTS[UG_PDQ_VARIANTS] = {
    {SIGN_NONE, 0}, {SIGN_COLUMN, 1}, {SIGN_SUM, 0},  {SIGN_ROW, 1},
    {SIGN_ROW, 0},  {SIGN_COLUMN, 0}, {SIGN_NONE, 1}, {SIGN_SUM, 1},
};

/* All hashes from the coefficients. Returns how many of the four patterns have a second coefficient within
   `tolerance` of the median, so that its bit hangs on rounding. */
static int hash_variants(const double coeffs[UG_PDQ_COEFFS], double tolerance, ug_pdq *out)
{
    int uncertain = 0;
    for (sign_pattern pattern = SIGN_NONE; pattern <= SIGN_COLUMN; pattern++) {
        double v[UG_PDQ_COEFFS];
        for (int i = 0; i < UG_PDQ_DCT; i++)
            for (int j = 0; j < UG_PDQ_DCT; j++) {
                double c = coeffs[i * UG_PDQ_DCT + j];
                v[i * UG_PDQ_DCT + j] = negated(pattern, i, j) ? -c : c;
            }
        double median = lower_median(v);
        int near = 0;
        for (int n = 0; n < UG_PDQ_COEFFS; n++)
            near += fabs(v[n] - median) <= tolerance;
        uncertain += near > 1;
        if (pattern == SIGN_NONE) {
            out->close = 0;
            for (int n = 0; n < UG_PDQ_COEFFS; n++)
                out->close += fabs(v[n] - median) <= UG_PDQ_CLOSE;
        }
        for (int variant = 0; variant < UG_PDQ_VARIANTS; variant++) {
            if (VARIANTS[variant].pattern != pattern)
                continue;
            uint8_t *hash = out->hashes[variant];
            memset(hash, 0, UG_PDQ_BYTES);
            for (int n = 0; n < UG_PDQ_COEFFS; n++) {
                int bit = VARIANTS[variant].transposed ? (n % UG_PDQ_DCT) * UG_PDQ_DCT + n / UG_PDQ_DCT : n;
                if (v[n] > median)
                    hash[UG_PDQ_BYTES - 1 - bit / 8] |= (uint8_t)(1u << (bit % 8));
            }
        }
    }
    return uncertain;
}

static int quality_of_sum(long sum)
{
    long quality = sum / 90;
    return quality > 100 ? 100 : (int)quality;
}

/* The quality from the true samples; `certain` is cleared where a step so near a whole number that rounding decides
   would change it. */
static int quality_fast(double a[UG_PDQ_SIDE][UG_PDQ_SIDE], double tolerance, int *certain)
{
    long low = 0, high = 0;
    double slack = 2.0 * tolerance * 100.0 / 255.0;
    for (int i = 0; i < UG_PDQ_SIDE; i++)
        for (int j = 0; j < UG_PDQ_SIDE; j++)
            for (int down = 0; down < 2; down++) {
                if ((down ? i : j) == UG_PDQ_SIDE - 1)
                    continue;
                double step = fabs(a[i][j] - (down ? a[i + 1][j] : a[i][j + 1])) * 100.0 / 255.0;
                low += step > slack ? (long)(step - slack) : 0;
                high += (long)(step + slack);
            }
    *certain = quality_of_sum(low) == quality_of_sum(high);
    return quality_of_sum((low + high) / 2);
}

static int quality_reference(float a[UG_PDQ_SIDE][UG_PDQ_SIDE])
{
    long sum = 0;
    for (int i = 0; i < UG_PDQ_SIDE; i++)
        for (int j = 0; j < UG_PDQ_SIDE; j++) {
            if (i + 1 < UG_PDQ_SIDE)
                sum += abs((int)(((a[i][j] - a[i + 1][j]) * 100) / 255));
            if (j + 1 < UG_PDQ_SIDE)
                sum += abs((int)(((a[i][j] - a[i][j + 1]) * 100) / 255));
        }
    return quality_of_sum(sum);
}

static int hash_in_reference_order(const ug_picture *p, ug_pdq *out)
{
    float samples[UG_PDQ_SIDE][UG_PDQ_SIDE], coeffs[UG_PDQ_COEFFS];
    double wide[UG_PDQ_COEFFS];
    if (ug_pdq_reference(p, 1, samples, coeffs) < 0)
        return -1;
    for (int n = 0; n < UG_PDQ_COEFFS; n++)
        wide[n] = coeffs[n];
    hash_variants(wide, 0.0, out);
    out->quality = quality_reference(samples);
    out->reference_order = 1;
    if (p->width == UG_PDQ_SIDE && p->height == UG_PDQ_SIDE) {
        /* The published code filters a 64x64 picture for the dihedral forms and not for the original. */
        ug_pdq unfiltered;
        if (ug_pdq_reference(p, 0, samples, coeffs) < 0)
            return -1;
        for (int n = 0; n < UG_PDQ_COEFFS; n++)
            wide[n] = coeffs[n];
        hash_variants(wide, 0.0, &unfiltered);
        memcpy(out->hashes[0], unfiltered.hashes[0], UG_PDQ_BYTES);
        out->quality = quality_reference(samples);
    }
    return 0;
}

int ug_pdq_hash(const ug_picture *p, int bit_exact, ug_pdq *out)
{
    double samples[UG_PDQ_SIDE][UG_PDQ_SIDE], coeffs[UG_PDQ_COEFFS];
    memset(out, 0, sizeof *out);
    if (p->full_width < UG_PDQ_MIN_SIDE || p->full_height < UG_PDQ_MIN_SIDE)
        return 0;
    if (ug_pdq_fast(p, samples, coeffs) < 0)
        return -1;
    double tolerance = sample_tolerance(p);
    int certain;
    out->quality = quality_fast(samples, tolerance, &certain);
    int uncertain = hash_variants(coeffs, 2.0 * COEFF_TOLERANCE * tolerance, out);
    if (bit_exact && (uncertain || !certain))
        return hash_in_reference_order(p, out);
    return 0;
}
