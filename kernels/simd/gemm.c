/* The product of packed matrices. A tile of y, MR rows by up to NV vectors of columns, is summed in
 * registers over the whole depth: every step loads NV vectors of b and repeats each of MR numbers
 * of a. The few columns that do not fill a vector are summed the other way round, a vector being MR
 * rows. Either way an element is the sum of its products one after the other, first to last, so it
 * does not matter for the bits which tile it falls into.
 *
 * Loop order: panels of a (MR rows) outside, strips of b (NV vectors of columns) inside: a panel
 * stays in the first cache, the strips of a block in the second. Where strips are plain copies of a
 * matrix's columns the first panel makes them: the products hide the way from memory.
 */
#include "functions.h"

#define MR TILE_ROWS
#define NV TILE_VECTORS
#define NR (NV * VF_LANES)

/* Elements of a that are asked for meanwhile, for the second cache: where strips are few, panels
 * are read as fast as memory gives them. */
#define AHEAD 1024

/* Columns of a panel whose activation is done at once, or up to a strip more: they are in the first
 * cache still, and rows are long enough for what each costs. */
#define ACTIVE 384

/* MR rows of one column. */
typedef float vr __attribute__((vector_size(MR * 4)));
typedef vr vr_unaligned __attribute__((aligned(4), may_alias));

INLINED vr vr_fma(vr a, float b, vr c) {
#if defined(__AVX512F__)
    return (vr)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(b), (__m256)c);
#elif defined(__AVX2__)
    return (vr)_mm_fmadd_ps((__m128)a, _mm_set1_ps(b), (__m128)c);
#elif defined(__aarch64__)
    union {
        vr v;
        float32x4_t half[2];
    } x = {.v = a}, y = {.v = c};
    y.half[0] = vfmaq_n_f32(y.half[0], x.half[0], b);
    y.half[1] = vfmaq_n_f32(y.half[1], x.half[1], b);
    return y.v;
#else
    return (vr)vf_fma((vf)a, vf_set(b), (vf)c);
#endif
}

/* One tile's operands and where it goes. */
struct tile {
    const struct kn_block *block;
    const float *a;
    float *b;
    const float *x;        /* NULL, or columns that are still to be copied to b */
    const float *bias;     /* NULL: y holds what the products are added to */
    const float *residual; /* NULL: none */
    float *y;
    ptrdiff_t rows; /* of y: up to MR, or PANELS * MR */
    ptrdiff_t tail; /* columns of the last vector, up to VF_LANES */
};

/* In place; rows are ld apart. */
static void activate(const struct kn_activation *act, float *y, ptrdiff_t rows, ptrdiff_t count,
                     ptrdiff_t ld) {
    const struct kn_act_rows all = {.x = y, .y = y, .rows = rows, .count = count, .ld = ld};

    KN_SIMD(kn_act_rows)(act, &all);
}

INLINED vf load_part(const float *p, bool whole, ptrdiff_t count) {
    return whole ? vf_load(p) : vf_load_n(p, count);
}

/* A row's vector: what was there before, or bias and residual, and the activation's bounds. */
INLINED void finish(const struct tile *t, vf sum, int row, int column, bool whole) {
    ptrdiff_t at = row * t->block->ldy + column;

    if (t->bias) {
        sum += vf_set(t->bias[row]);
        if (t->residual)
            sum += load_part(t->residual + at, whole, t->tail);
    } else {
        sum += load_part(t->y + at, whole, t->tail);
    }
    sum = vf_min(vf_set(t->block->high), vf_max(vf_set(t->block->low), sum));
    if (whole)
        vf_store(t->y + at, sum);
    else
        vf_store_n(t->y + at, sum, t->tail);
}

/* nv vectors of columns; all but the last are whole. A tile that fills copies them from x to b as
 * it goes, and asks for those to the right of them: they are wanted next. */
INLINED void wide_tile(const struct tile *t, const int nv, const bool fills) {
    const float *a = t->a, *x = t->x;
    float *b = t->b;
    vf sums[MR][NV] = {0};

    for (ptrdiff_t k = t->block->depth; k > 0; k--, a += MR, b += NR) {
        vf columns[NV];
        __builtin_prefetch(a + AHEAD, 0, 2);
        for (int v = 0; v < nv; v++)
            columns[v] = vf_load((fills ? x : b) + v * VF_LANES);
        if (fills) {
            for (int v = 0; v < nv; v++) {
                vf_store(b + v * VF_LANES, columns[v]);
                __builtin_prefetch(x + NR + v * VF_LANES);
            }
            x += t->block->ldx;
        }
        UNROLL(8)
        for (int i = 0; i < MR; i++) {
            vf row = vf_set(a[i]);
            for (int v = 0; v < nv; v++)
                sums[i][v] = vf_fma(row, columns[v], sums[i][v]);
        }
    }
    UNROLL(8)
    for (int i = 0; i < MR; i++) {
        if (i >= t->rows)
            break;
        for (int v = 0; v < nv; v++)
            finish(t, sums[i][v], i, v * VF_LANES, v < nv - 1 || t->tail == VF_LANES);
    }
}

#define WIDE_TILE(nv)                                                                              \
    static void wide_tile_##nv(const struct tile *t) {                                             \
        wide_tile(t, nv, false);                                                                   \
    }                                                                                              \
    static void fill_tile_##nv(const struct tile *t) {                                             \
        wide_tile(t, nv, true);                                                                    \
    }

WIDE_TILE(1)
WIDE_TILE(2)
#if NV == 3
WIDE_TILE(3)
#endif

static void (*const wide_tiles[][2])(const struct tile *) = {
    {wide_tile_1, fill_tile_1},
    {wide_tile_2, fill_tile_2},
#if NV == 3
    {wide_tile_3, fill_tile_3},
#endif
};

/* Columns that are left: up to NARROW side by side, for PANELS panels at once, so that enough sums
 * are under way. */
#define NARROW 4
#if defined(__AVX512F__)
#define PANELS 4
#else
#define PANELS 2
#endif

/* A column of a panel, as finish() does a row; ret has what is stored in y in the end. */
INLINED void finish_column(const struct tile *t, vr sums, ptrdiff_t first, int column, float *ret) {
    const struct kn_block *block = t->block;

    for (int i = 0; i < MR && first + i < t->rows; i++) {
        ptrdiff_t at = (first + i) * block->ldy + column;
        float sum = sums[i];
        if (t->bias) {
            sum += t->bias[first + i];
            if (t->residual)
                sum += t->residual[at];
        } else {
            sum += t->y[at];
        }
        sum = block->low > sum ? block->low : sum;
        ret[i] = block->high < sum ? block->high : sum;
    }
}

INLINED void narrow_tile(const struct tile *t, const int panels, const int columns) {
    const float *a = t->a, *b = t->b;
    vr sums[PANELS][NARROW] = {0};
    float ret[NARROW][PANELS * MR] = {0};

    for (ptrdiff_t k = t->block->depth; k > 0; k--, a += MR, b += NR) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            vr rows = *(const vr_unaligned *)(a + p * t->block->a_stride);
            for (int j = 0; j < columns; j++)
                sums[p][j] = vr_fma(rows, b[j], sums[p][j]);
        }
    }
    for (int p = 0; p < panels; p++)
        for (int j = 0; j < columns; j++)
            finish_column(t, sums[p][j], p * MR, j, ret[j] + p * MR);
    if (t->block->act)
        activate(t->block->act, ret[0], columns, t->rows, PANELS * MR);
    for (ptrdiff_t i = 0; i < t->rows; i++)
        for (int j = 0; j < columns; j++)
            t->y[i * t->block->ldy + j] = ret[j][i];
}

/* Columns that are left, of one panel or of PANELS. */
INLINED void narrow_tiles(struct tile t, const int panels, ptrdiff_t columns) {
    for (; columns >= NARROW; columns -= NARROW) {
        narrow_tile(&t, panels, NARROW);
        t.b += NARROW;
        t.y += NARROW;
        if (t.residual)
            t.residual += NARROW;
    }
    if (columns == 3)
        narrow_tile(&t, panels, 3);
    else if (columns == 2)
        narrow_tile(&t, panels, 2);
    else if (columns == 1)
        narrow_tile(&t, panels, 1);
}

static void narrow_tiles_one(const struct tile *t, ptrdiff_t columns) {
    narrow_tiles(*t, 1, columns);
}

static void narrow_tiles_all(const struct tile *t, ptrdiff_t columns) {
    narrow_tiles(*t, PANELS, columns);
}

/* Columns up to this many are cheaper one by one than as a vector. */
#define NARROW_MOST (VF_LANES == 16 ? 12 : VF_LANES / 2)

/* Rows i and columns j on. */
static struct tile tile_at(const struct kn_block *block, ptrdiff_t i, ptrdiff_t j) {
    ptrdiff_t at = i * block->ldy + j;

    return (struct tile){.block = block,
                         .a = block->a + i / MR * block->a_stride,
                         .b = block->b + j / NR * block->b_stride + j % NR,
                         .x = block->x && i == 0 ? block->x + j : NULL,
                         .bias = block->bias ? block->bias + i : NULL,
                         .residual = block->residual ? block->residual + at : NULL,
                         .y = block->y + at,
                         .tail = VF_LANES};
}

/* The columns that are left lie in one vector of the last strip, which has room for all of it. */
static void copy_left(const struct tile *t) {
    for (ptrdiff_t k = 0; k < t->block->depth; k++)
        vf_store(t->b + k * NR, vf_load(t->x + k * t->block->ldx));
}

/* Columns [0, wide) of a panel's rows, from row i on. */
static void multiply_panel(const struct kn_block *block, ptrdiff_t i, ptrdiff_t wide) {
    ptrdiff_t rows = kn_min(MR, block->rows - i), active = 0;

    for (ptrdiff_t j = 0; j < wide; j += NR) {
        struct tile tile = tile_at(block, i, j);
        ptrdiff_t columns = kn_min(NR, wide - j), vectors = kn_ceil_div(columns, VF_LANES);
        ptrdiff_t done = j + columns - active;
        tile.rows = rows;
        tile.tail = columns - (vectors - 1) * VF_LANES;
        wide_tiles[vectors - 1][tile.x != NULL](&tile);
        if (block->act && (done >= ACTIVE || j + columns == wide)) {
            activate(block->act, block->y + i * block->ldy + active, rows, done, block->ldy);
            active += done;
        }
    }
}

void KN_SIMD(kn_multiply_block)(const struct kn_block *block) {
    ptrdiff_t left = block->cols % VF_LANES, wide;

    if (left > NARROW_MOST)
        left = 0;
    wide = block->cols - left;
    for (ptrdiff_t i = 0; i < block->rows; i += MR)
        multiply_panel(block, i, wide);
    for (ptrdiff_t i = 0, rows; left > 0 && i < block->rows; i += rows) {
        struct tile tile = tile_at(block, i, wide);
        bool all = block->rows - i > (PANELS - 1) * MR;
        if (tile.x)
            copy_left(&tile);
        rows = all ? PANELS * MR : MR;
        tile.rows = kn_min(rows, block->rows - i);
        (all ? narrow_tiles_all : narrow_tiles_one)(&tile, left);
    }
}

/* Columns [pos, pos + count) of one row of b. A vector may write past its end where the strip goes
 * on: what lies there is written later, or means nothing. */
INLINED void copy_columns(const float *x, ptrdiff_t count, ptrdiff_t pos, float *b,
                          ptrdiff_t b_stride) {
    while (count > 0) {
        ptrdiff_t column = pos % NR, n = kn_min(NR - column, count);
        float *to = b + pos / NR * b_stride + column;
        for (ptrdiff_t i = 0; i < n; i += VF_LANES)
            if (column + i + VF_LANES <= NR)
                vf_store(to + i, vf_load(x + i));
            else
                vf_store_n(to + i, vf_load(x + i), n - i);
        x += n;
        pos += n;
        count -= n;
    }
}

void KN_SIMD(kn_copy_to_strips)(const struct kn_to_strips *copy) {
    for (ptrdiff_t t = 0; t < copy->taps; t++) {
        const float *x = copy->x + copy->offsets[t];
        for (ptrdiff_t r = 0; r < copy->rows; r++)
            copy_columns(x + r * copy->pitch, copy->cols, copy->pos + r * copy->cols,
                         copy->b + t * NR, copy->b_stride);
    }
}
