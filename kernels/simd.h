/* What is compiled once per instruction set: one table of functions per level, filled in by
 * simd/table.c, chosen by simd.c. docs/kernels.md tells how to add a function. */
#ifndef KERNELS_SIMD_H
#define KERNELS_SIMD_H

#include "internal.h"

/* A matrix and a vector: y[r] += alpha * sum over k of a(r, k) * x[k]. */
struct kn_matvec {
    const float *a, *x;
    float *y;
    ptrdiff_t rows, depth;
    ptrdiff_t ld; /* between rows (matvec_rows), between columns (matvec_columns) */
    float alpha;
};

/* What an activation is applied to: `rows` rows of count elements, ld apart in both; y may be x. */
struct kn_act_rows {
    const float *x;
    float *y;
    ptrdiff_t rows, count, ld;
};

/* Rows of weights as a model has them, [count][depth], at any address; scale, or NULL: what each is
 * multiplied with, rounded to float. */
struct kn_rows {
    const float *w;
    const double *scale;
    ptrdiff_t count, depth;
};

/* A block of y [rows][cols], ldy apart: products of packed panels of a, [depth][panel_rows] each,
 * and packed strips of b, [depth][strip_cols] each; the last panel and the last strip may be partly
 * filled, with anything. y = clamp(a * b + bias + residual), or clamp(a * b + y) without a bias. An
 * element is the sum of its products in order, then bias (or y), then residual; clamp keeps NaN;
 * then the activation, where there is one. */
struct kn_block {
    ptrdiff_t rows, cols, depth;
    const float *a;
    float *b;
    ptrdiff_t a_stride, b_stride; /* between panels, between strips */
    const float *x; /* not NULL: b is filled first, row k with cols from x + k * ldx; */
    ptrdiff_t ldx;  /* up to KN_TAIL bytes behind each row are read */
    float *y;
    ptrdiff_t ldy;
    const float *bias;     /* [rows], or NULL */
    const float *residual; /* like y, may be y; NULL: none */
    float low, high;
    const struct kn_activation *act; /* NULL: none */
};

/* Input pixels that become columns of packed strips: for each tap, `rows` rows of `cols` pixels,
 * pitch apart, go to columns [pos, pos + rows * cols) of the block; tap t to row t of b. Up to
 * KN_TAIL bytes behind each row of x are read. Calls for one row of b come in the order of pos. */
struct kn_to_strips {
    const float *x;
    const ptrdiff_t *offsets; /* [taps]: where each begins to read */
    ptrdiff_t taps, pitch, rows, cols, pos;
    float *b;
    ptrdiff_t b_stride; /* between strips */
};

/* A square window that slides over planes: what depthwise convolution and pooling share.
 *
 * A band of input rows is copied with its padding into scratch that stays in the first cache; with
 * stride 2, even and odd columns apart. So every tap reads consecutive elements, no result is at a
 * border, and several rows of results share what they load. Made by kn_slide_init() (slide.c). */
struct kn_slide {
    ptrdiff_t planes; /* that it is used for, one behind the other */
    ptrdiff_t ih, iw, oh, ow;
    ptrdiff_t pad_top, pad_left;
    int kernel, stride;
    ptrdiff_t columns; /* of one phase that are read */
    ptrdiff_t pitch;   /* of a row of one phase; scratch is [row][phase][pitch] */
    ptrdiff_t rows;    /* output rows of a band */
    size_t bytes;      /* of scratch, a multiple of KN_ALIGN */
    bool narrow;       /* the *_narrow functions are better */
    bool far;          /* the planes together come from beyond the second cache */
};
#define KN_SLIDE_KERNEL_MAX 7
#define KN_SLIDE_BYTES_MAX  (64 * 1024)

/* A band that is computed from scratch. */
struct kn_slide_band {
    const struct kn_slide *slide;
    const float *scratch;
    float *y;
    ptrdiff_t rows;
    ptrdiff_t room; /* elements that may be written from y on; at least rows * ow */
};

/* What becomes of the taps' products: min(max(bias + sum, low), high). */
struct kn_slide_sum {
    const float *w; /* [kernel][kernel] */
    float bias, low, high;
};

/* The same for as many channels at once as a vector has lanes: a pixel is a vector. A band of input
 * rows is transposed, with its padding, into scratch [row][column][lane]. */
struct kn_lanes {
    const struct kn_lanes_functions *by;
    ptrdiff_t ih, iw, oh, ow;
    int kernel, stride;
    ptrdiff_t pitch;       /* floats from a row of scratch to the next */
    ptrdiff_t rows;        /* output rows of a band */
    ptrdiff_t height;      /* rows of scratch */
    const int32_t *places; /* of the pixels of a band, from where its first row begins */
};
#define KN_LANES_KERNEL_MAX 7

/* As kn_slide_sum, lane by lane. */
struct kn_lanes_sum {
    const float *w;    /* [kernel][kernel][lanes] */
    const float *bias; /* [lanes] */
    float low, high;
};

/* What is done with kn_lanes, for one number of lanes. */
struct kn_lanes_functions {
    int lanes;
    /* Copies `pixels` of count planes to the first count lanes of their places; the lanes behind
     * get anything. Up to KN_TAIL bytes behind each plane's pixels are read. */
    void (*in)(const struct kn_lanes *l, const float *x, ptrdiff_t pixels, ptrdiff_t count,
               float *to);
    /* `rows` rows of results, y [rows][ow][lanes]. Kernels 3, 5 and 7; the taps are added row by
     * row, from the left. */
    void (*sum)(const struct kn_lanes *l, const struct kn_lanes_sum *sum, ptrdiff_t rows,
                const float *scratch, float *y);
    /* The first count lanes of from, [pixels][lanes], to count planes. */
    void (*out)(const struct kn_lanes *l, const float *from, ptrdiff_t pixels, ptrdiff_t count,
                float *y);
};

/* One row of results of all output channels, made of planes in scratch: tap k of the result in
 * column 0 reads x[offsets[k]], the one in column j j elements further on. */
struct kn_direct {
    const float *w;    /* packed panels, [depth][panel_rows] each */
    const float *bias; /* [oc] */
    const ptrdiff_t *offsets;
    ptrdiff_t depth, oc, ow; /* ow is a tile's width or more */
    ptrdiff_t ldy;           /* between output channels */
    float low, high;
};

/* Winograd's F(2x2, 3x3), F(4x4, 3x3) and F(2x2, 5x5): a tile of `tile` x `tile` outputs is made of
 * kernel - 1 more rows and columns of input, by 16 products instead of 36, 36 instead of 144, or 36
 * instead of 100. The points are 0, +-1 and infinity, or 0, +-3/4, +-3/2 and infinity, which halve
 * the error of the usual 0, +-1, +-2. */
#define KN_WINOGRAD_TILE_MAX   4
#define KN_WINOGRAD_KERNEL_MAX 5
#define KN_WINOGRAD_INPUTS_MAX 6 /* rows and columns of a tile's input: tile + kernel - 1 */
#define KN_WINOGRAD_A          0.75
#define KN_WINOGRAD_B          1.5

/* Where a panel's transformed weights go, [ic][panel_rows] for each point: G w G^T, row i of G
 * being g[i]. */
struct kn_winograd_weights {
    const double (*g)[KN_WINOGRAD_KERNEL_MAX];
    int kernel, inputs; /* columns and rows of G */
    float *panel;
    ptrdiff_t point_stride;
};
#define KN_WINOGRAD_POINTS_MAX (KN_WINOGRAD_INPUTS_MAX * KN_WINOGRAD_INPUTS_MAX)

/* The tiles [first, first + count) of a plane, row by row of tiles, `across` in each. */
struct kn_winograd {
    int tile;   /* 2 or 4 */
    int kernel; /* 3, or 5 with tiles of 2 */
    int ih, iw, oh, ow, pad_top, pad_left;
    ptrdiff_t across, first, count;
};

/* What becomes of one input plane: for each point p, tile t, the number at v[p * point_stride +
 * t / width * strip_stride + t % width] (behind the last tile anything is written, up to the end of
 * its strip's row). */
struct kn_winograd_in {
    const float *x;
    float *v;
    ptrdiff_t width, point_stride, strip_stride;
    float *rows;     /* scratch: the rows of input that the tiles need, with their padding */
    ptrdiff_t pitch; /* of rows: kn_winograd_pitch() */
};

/* Floats from one row of scratch to the next; the last may be read as far beyond its end. */
static inline ptrdiff_t kn_winograd_pitch(int tile, ptrdiff_t across, ptrdiff_t lanes) {
    return tile * across + (tile + 1) * lanes;
}

/* One output plane from its products: m[p * point_stride + t]; up to KN_TAIL bytes behind are read.
 */
struct kn_winograd_out {
    const float *m, *residual; /* like y, may be y; NULL: none */
    float *y;
    ptrdiff_t point_stride;
    float bias, low, high;
};

/* A product of a packed matrix with a vector: y[r] = bias[r] + sum over k of w[k][r] * x[k]. The
 * matrix has `rows` rows, at most KN_PANEL_VECTORS vectors, filled up to whole vectors; so has the
 * bias. The order of the sum depends on rows and depth. */
struct kn_panel {
    const float *w, *bias, *x;
    float *y;
    ptrdiff_t rows, depth;
};
#define KN_PANEL_VECTORS 4

/* Rows of widened numbers (quantized.h): y[i * ldy + j] = sum over k of a[i * lda + k] *
 * b[j * ldb + k]. k is a multiple of KN_DOT_DEPTH; a, b, lda and ldb are KN_ALIGN aligned. */
struct kn_qdots {
    const int16_t *a, *b;
    int32_t *y;
    ptrdiff_t m, n, k;
    ptrdiff_t lda, ldb, ldy;
};

/* A window over KN_QCHANNELS channels of a widened picture, at count places:
 * y[i][c] = sum over ky, kx of x[i * x_next + ky * x_row + kx * x_column + c] *
 * w[ky * w_row + kx * KN_QCHANNELS + c]. */
#define KN_QCHANNELS 32
struct kn_qwindows {
    const int16_t *x, *w;
    int32_t *y;
    ptrdiff_t count, taps_h, taps_w;
    ptrdiff_t x_next, x_row, x_column, w_row;
};

struct kn_simd {
    const char *name; /* "AVX2+FMA" */
    int lanes;        /* floats of a vector */

    /* a(r, k) = a[r * ld + k]: each row a dot product, summed in an order that depends on depth. */
    void (*matvec_rows)(const struct kn_matvec *m);
    /* a(r, k) = a[k * ld + r]: columns are added up. */
    void (*matvec_columns)(const struct kn_matvec *m);

    /* y = act(x), element by element. kn_act_row() is the way in for a single row. */
    void (*act_rows)(const struct kn_activation *act, const struct kn_act_rows *rows);
    void (*panel_times)(const struct kn_panel *panel);
    /* Packed products: the shape of a tile, and the function. */
    int panel_rows, strip_cols;
    void (*multiply_block)(const struct kn_block *block);
    void (*copy_to_strips)(const struct kn_to_strips *copy);
    /* One panel [depth][height] of up to height rows, zeros for those that are missing; height is a
     * multiple of 4. */
    void (*pack_panel)(const struct kn_rows *rows, ptrdiff_t height, float *to);

    /* Copies what output rows [oy, oy + rows) need of the plane x; cells outside it are fill, or,
     * again, what the same call with another plane has left there. */
    void (*slide_fill)(const struct kn_slide *slide, const float *x, ptrdiff_t oy, ptrdiff_t rows,
                       float fill, bool again, float *scratch);
    /* Kernels 3, 5 and 7. The taps are added row by row, from the left. Elements of y behind the
     * band's may be overwritten, within its room. */
    void (*slide_sum)(const struct kn_slide_band *band, const struct kn_slide_sum *sum);
    /* Kernels 2 and 3: maxima, NaN above everything. */
    void (*slide_max)(const struct kn_slide_band *band);
    void (*slide_max_narrow)(const struct kn_slide_band *band);

    /* y = clamp(sum of products in their order + bias), as multiply_block() does it. */
    void (*direct_row)(const struct kn_direct *d, const float *x, float *y);

    struct kn_lanes_functions by_lanes, by_half_lanes;

    /* One panel of 3x3 or 5x5 kernels, up to panel_rows rows of them. */
    void (*winograd_pack)(const struct kn_rows *rows, const struct kn_winograd_weights *to);
    /* _narrow: half as many lanes; better where fewer tiles lie side by side. */
    void (*winograd_in)(const struct kn_winograd *tiles, const struct kn_winograd_in *in);
    void (*winograd_in_narrow)(const struct kn_winograd *tiles, const struct kn_winograd_in *in);
    void (*winograd_out)(const struct kn_winograd *tiles, const struct kn_winograd_out *out);
    void (*winograd_out_narrow)(const struct kn_winograd *tiles, const struct kn_winograd_out *out);

    /* Integers: the same bits on every level. */
    void (*qdots)(const struct kn_qdots *d);
    void (*qwindows)(const struct kn_qwindows *w);
};

/* The level in use: the baseline before kn_init(), then the CPU's best, or what CONVOY_SIMD and
 * kn_simd_use() say. Who packs for a level keeps this pointer with what it packs. */
const struct kn_simd *kn_simd(void);

/* Whether the window's shape is one for the functions above; kernel and stride are for both axes,
 * sums says what for. Depends on the shape and the level alone. */
bool kn_slide_init(struct kn_slide *slide, bool sums);

/* By kn_init(). */
void kn_simd_init(void);

#endif
