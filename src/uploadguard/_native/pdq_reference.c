/* PDQ's blur in the published order of single-precision sums, for the rare picture where a bit hangs on rounding.

   Same values as filtering the whole picture in memory, but streamed: a row enters, is boxed along the row, enters the
   box along columns (which holds only as many rows as the box is high), and so on through both passes. The last box
   along columns needs 64 columns only. Compiled without contraction to fused multiply-adds (setup.py). */
#include "pdq.h"

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

/* The share of each 8-bit sample in luma. */
static double red[256], green[256], blue[256];

void ug_pdq_reference_init(void)
{
    for (int v = 0; v < 256; v++) {
        red[v] = v * 0.299;
        green[v] = v * 0.587;
        blue[v] = v * 0.114;
    }
}

/* A box along columns, fed row by row. */
typedef struct {
    int width, length, window, fed, flushed;
    float *sums; /* width */
    float *ring; /* window x width: the rows still inside the box */
} column_box;

static int column_box_init(column_box *box, int width, int length)
{
    memset(box, 0, sizeof *box);
    box->width = width;
    box->length = length;
    box->window = ug_pdq_window(length);
    box->sums = calloc((size_t)width, sizeof(float));
    box->ring = malloc(sizeof(float) * (size_t)width * (size_t)box->window);
    return box->sums && box->ring ? 0 : -1;
}

static void column_box_free(column_box *box)
{
    free(box->sums);
    free(box->ring);
}

UG_CLONES
static void slide(float *restrict sums, const float *restrict row, const float *restrict slot, int width)
{
    for (int x = 0; x < width; x++) {
        sums[x] += row[x];
        sums[x] -= slot[x];
    }
}

UG_CLONES
static void divide(const float *restrict sums, float *restrict out, float count, int width)
{
    for (int x = 0; x < width; x++)
        out[x] = sums[x] / count;
}

/* Takes a row in, or for NULL goes on past the last one. Returns whether a row came out. */
static int column_box_step(column_box *box, const float *row, float *out)
{
    const int w = box->window, half = (w + 2) / 2, width = box->width;
    float *sums = box->sums;
    int in_box;
    if (row) {
        float *slot = box->ring + (size_t)(box->fed % w) * (size_t)width;
        if (box->fed < w) {
            for (int x = 0; x < width; x++)
                sums[x] += row[x];
        } else {
            slide(sums, row, slot, width);
        }
        memcpy(slot, row, sizeof(float) * (size_t)width);
        box->fed++;
        if (box->fed < half)
            return 0;
        in_box = box->fed < w ? box->fed : w;
    } else {
        if (box->flushed == half - 1)
            return 0;
        const float *slot = box->ring + (size_t)((box->length - w + box->flushed) % w) * (size_t)width;
        for (int x = 0; x < width; x++)
            sums[x] -= slot[x];
        box->flushed++;
        in_box = w - box->flushed;
    }
    divide(sums, out, (float)in_box, width);
    return 1;
}

/* Eight rows side by side, pixel x of row l at [8 * x + l]: a running sum waits for itself, eight do not. */
enum { LANES = 8 };

UG_CLONES
static void box_along_rows(const float *restrict in, float *restrict out, int n)
{
    const int w = ug_pdq_window(n), half = (w + 2) / 2;
    float sums[LANES] = {0};
    int count = 0, left = 0, right = 0, o = 0;
    for (; right < w; right++) {
        for (int l = 0; l < LANES; l++)
            sums[l] += in[right * LANES + l];
        count++;
        if (count >= half) {
            for (int l = 0; l < LANES; l++)
                out[o * LANES + l] = sums[l] / (float)count;
            o++;
        }
    }
    for (; right < n; right++, left++, o++) {
        for (int l = 0; l < LANES; l++) {
            sums[l] += in[right * LANES + l];
            sums[l] -= in[left * LANES + l];
            out[o * LANES + l] = sums[l] / (float)count;
        }
    }
    for (; o < n; left++, o++) {
        count--;
        for (int l = 0; l < LANES; l++) {
            sums[l] -= in[left * LANES + l];
            out[o * LANES + l] = sums[l] / (float)count;
        }
    }
}

/* Luma as the Python binding of the published code takes it: double precision, rounded once. */
static void luma_row(const ug_picture *p, int y, float *restrict out)
{
    const uint8_t *restrict row = p->pixels + (size_t)y * (size_t)p->width * (size_t)p->channels;
    const int g = p->channels == 3 ? 1 : 0, b = p->channels == 3 ? 2 : 0;
    for (int x = 0; x < p->width; x++, row += p->channels)
        out[x] = (float)((red[row[0]] + green[row[g]]) + blue[row[b]]);
}

static void dct_reference(float a[UG_PDQ_SIDE][UG_PDQ_SIDE], float coeffs[UG_PDQ_COEFFS])
{
    float half[UG_PDQ_DCT][UG_PDQ_SIDE] = {{0}};
    for (int i = 0; i < UG_PDQ_DCT; i++)
        for (int k = 0; k < UG_PDQ_SIDE; k++)
            for (int j = 0; j < UG_PDQ_SIDE; j++)
                half[i][j] += ug_pdq_dct[i][k] * a[k][j];
    for (int i = 0; i < UG_PDQ_DCT; i++)
        for (int j = 0; j < UG_PDQ_DCT; j++) {
            float sum = 0.0f;
            for (int k = 0; k < UG_PDQ_SIDE; k++)
                sum += half[i][k] * ug_pdq_dct[j][k];
            coeffs[i * UG_PDQ_DCT + j] = sum;
        }
}

/* The second pass: rows gathered in groups, boxed along the row, cut to the 64 sampled columns, boxed along columns,
   sampled. */
typedef struct {
    const ug_picture *picture;
    column_box box;
    float *group, *boxed; /* LANES rows side by side */
    int in_group;
    int row; /* the next one to come out */
    float (*samples)[UG_PDQ_SIDE];
} second_pass;

static void second_pass_emit(second_pass *pass, const float *out)
{
    for (int k = 0; k < UG_PDQ_SIDE; k++)
        if (ug_pdq_sample_index(k, pass->picture->height) == pass->row)
            memcpy(pass->samples[k], out, sizeof(float) * UG_PDQ_SIDE);
    pass->row++;
}

static void second_pass_flush_group(second_pass *pass)
{
    float picked[UG_PDQ_SIDE], out[UG_PDQ_SIDE];
    box_along_rows(pass->group, pass->boxed, pass->picture->width);
    for (int lane = 0; lane < pass->in_group; lane++) {
        for (int l = 0; l < UG_PDQ_SIDE; l++)
            picked[l] = pass->boxed[ug_pdq_sample_index(l, pass->picture->width) * LANES + lane];
        if (column_box_step(&pass->box, picked, out))
            second_pass_emit(pass, out);
    }
    pass->in_group = 0;
}

static void second_pass_add(second_pass *pass, const float *row)
{
    for (int x = 0; x < pass->picture->width; x++)
        pass->group[x * LANES + pass->in_group] = row[x];
    if (++pass->in_group == LANES)
        second_pass_flush_group(pass);
}

static void second_pass_finish(second_pass *pass)
{
    float out[UG_PDQ_SIDE];
    second_pass_flush_group(pass);
    while (column_box_step(&pass->box, NULL, out))
        second_pass_emit(pass, out);
}

/* Puts `count` rows of a block side by side, or takes them apart again. */
UG_CLONES
static void interleave(const float *restrict rows, float *restrict group, size_t width)
{
    for (size_t x = 0; x < width; x++)
        for (size_t l = 0; l < LANES; l++)
            group[x * LANES + l] = rows[l * width + x];
}

UG_CLONES
static void take_apart(const float *restrict group, float *restrict rows, size_t width)
{
    for (size_t l = 0; l < LANES; l++)
        for (size_t x = 0; x < width; x++)
            rows[l * width + x] = group[x * LANES + l];
}

static int filter_and_sample(const ug_picture *p, float samples[UG_PDQ_SIDE][UG_PDQ_SIDE])
{
    const size_t width = (size_t)p->width;
    column_box first;
    second_pass second = {.picture = p, .samples = samples};
    float *group = calloc(width * LANES, sizeof(float)), *boxed = malloc(sizeof(float) * width * LANES);
    float *rows = calloc(width * LANES, sizeof(float)), *out = malloc(sizeof(float) * width);
    second.group = calloc(width * LANES, sizeof(float));
    second.boxed = malloc(sizeof(float) * width * LANES);
    int first_ready = column_box_init(&first, p->width, p->height);
    int second_ready = column_box_init(&second.box, UG_PDQ_SIDE, p->height);
    int status = -1;
    if (group && boxed && rows && out && second.group && second.boxed && first_ready == 0 && second_ready == 0) {
        for (int y = 0; y < p->height; y += LANES) {
            int count = p->height - y < LANES ? p->height - y : LANES;
            for (int lane = 0; lane < count; lane++)
                luma_row(p, y + lane, rows + (size_t)lane * width);
            interleave(rows, group, width);
            box_along_rows(group, boxed, p->width);
            take_apart(boxed, rows, width);
            for (int lane = 0; lane < count; lane++)
                if (column_box_step(&first, rows + (size_t)lane * width, out))
                    second_pass_add(&second, out);
        }
        while (column_box_step(&first, NULL, out))
            second_pass_add(&second, out);
        second_pass_finish(&second);
        status = 0;
    }
    column_box_free(&first);
    column_box_free(&second.box);
    free(group);
    free(boxed);
    free(rows);
    free(out);
    free(second.group);
    free(second.boxed);
    return status;
}

int ug_pdq_reference(const ug_picture *p, int filter, float samples[UG_PDQ_SIDE][UG_PDQ_SIDE],
                     float coeffs[UG_PDQ_COEFFS])
{
    if (filter) {
        if (filter_and_sample(p, samples) < 0)
            return -1;
    } else {
        for (int y = 0; y < UG_PDQ_SIDE; y++)
            luma_row(p, y, samples[y]);
    }
    dct_reference(samples, coeffs);
    return 0;
}
