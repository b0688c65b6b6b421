/* PDQ, the perceptual hash of Meta's "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm".

   The published algorithm blurs the whole picture (two passes of a box along rows, then along columns), keeps 64x64
   samples, takes 16x16 of their DCT and thresholds at the median. Blur and sampling are linear and separable, so here
   they are one step, A = Wr Y Wc^T with two sparse 64xN matrices: about one multiply-add a pixel (pdq.c).

   The published result also holds the rounding of its single-precision running sums. Where a bit hangs on that
   rounding, the sums are repeated in the published order (pdq_reference.c). */
#ifndef UPLOADGUARD_PDQ_H
#define UPLOADGUARD_PDQ_H

#include <stddef.h>
#include <stdint.h>

enum {
    UG_PDQ_SIDE = 64,      /* samples along each axis */
    UG_PDQ_DCT = 16,       /* DCT coefficients along each axis */
    UG_PDQ_COEFFS = 256,   /* coefficients, and bits of a hash */
    UG_PDQ_BYTES = 32,     /* bytes of a hash */
    UG_PDQ_VARIANTS = 8,   /* original, rot90, rot180, rot270, flip_x, flip_y, flip_plus1, flip_minus1 */
    UG_PDQ_MIN_SIDE = 5,   /* below it the hash is all zero and the quality 0 */
};

/* What luma in place of colour typically does to a coefficient: RGB is rounded and clipped before luma is taken. */
#define UG_PDQ_CLOSE 0.5

/* Packed 8-bit pixels, rows top to bottom. channels: 1 (luma; read as R = G = B) or 3 (RGB). The array holds means
   over scale x scale blocks of a full_width x full_height picture: width = ceil(full_width / scale). */
typedef struct {
    const uint8_t *pixels;
    int width, height, channels;
    int full_width, full_height, scale;
} ug_picture;

typedef struct {
    uint8_t hashes[UG_PDQ_VARIANTS][UG_PDQ_BYTES];
    int quality;          /* 0 to 100 */
    int reference_order;  /* whether the published order of sums had to decide */
    int close;            /* how many of the original's coefficients lie within UG_PDQ_CLOSE of the median */
} ug_pdq;

/* Fills the constant tables; call once before anything else. */
void ug_pdq_init(void);
void ug_pdq_reference_init(void);

/* Hashes a picture. bit_exact (scale 1 only) makes every bit that of the published order. 0, or -1 for no memory. */
int ug_pdq_hash(const ug_picture *picture, int bit_exact, ug_pdq *out);

/* 64x64 samples and 16x16 coefficients by the fast way, in double precision. 0, or -1 for no memory. */
int ug_pdq_fast(const ug_picture *picture, double samples[UG_PDQ_SIDE][UG_PDQ_SIDE],
                double coeffs[UG_PDQ_COEFFS]);

/* The same in the published order and precision; scale must be 1. filter 0 takes a 64x64 picture as it is. */
int ug_pdq_reference(const ug_picture *picture, int filter, float samples[UG_PDQ_SIDE][UG_PDQ_SIDE],
                     float coeffs[UG_PDQ_COEFFS]);

/* Width of the box along an axis of n pixels, and the input index behind sample k. */
int ug_pdq_window(int n);
int ug_pdq_sample_index(int k, int n);

/* The DCT matrix without its constant row, in single precision as published. */
extern float ug_pdq_dct[UG_PDQ_DCT][UG_PDQ_SIDE];

#endif
