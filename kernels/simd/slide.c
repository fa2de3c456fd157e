/* Windows that slide over planes (simd.h says how scratch is laid out). */
#include "act.h"
#include "functions.h"

#define AHEAD 2048 /* elements */

/* ---- filling scratch ---- */

/* Elements [from, to), and up to a vector beyond. */
INLINED void fill_from(float *to, ptrdiff_t from, ptrdiff_t end, vf fill) {
    for (; from < end; from += VF_LANES)
        vf_store(to + from, fill);
}

/* Asks for what the next band or plane reads: planes lie one behind the other, but while a band's
 * results are computed nobody reads, and the CPU's own prefetching begins anew. */
INLINED void look_ahead(const struct kn_slide *s, const float *x) {
    if (s->far)
        __builtin_prefetch(x + AHEAD, 0, 2);
}

/* Reads up to a vector past the row's end, and writes past it before what belongs there. */
INLINED void fill_row(const struct kn_slide *s, const float *row, vf fill, float *to) {
    fill_from(to, 0, s->pad_left, fill);
    for (ptrdiff_t i = 0; i < s->iw; i += VF_LANES) {
        look_ahead(s, row + i);
        vf_store(to + s->pad_left + i, vf_load(row + i));
    }
    fill_from(to, s->pad_left + s->iw, s->columns, fill);
}

/* The row alone, between borders that are there. */
INLINED void copy_row(const struct kn_slide *s, const float *row, float *to) {
    ptrdiff_t i = 0;

    to += s->pad_left;
    for (; i + VF_LANES <= s->iw; i += VF_LANES) {
        look_ahead(s, row + i);
        vf_store(to + i, vf_load(row + i));
    }
    if (i < s->iw && s->iw >= VF_LANES)
        vf_store(to + s->iw - VF_LANES, vf_load(row + s->iw - VF_LANES));
    else if (i < s->iw)
        vf_store_n(to + i, vf_load_n(row + i, s->iw - i), s->iw - i);
}

/* Column c of the padded row is number c / 2 of phase c % 2. Pairs that begin with an even c are
 * pulled apart two vectors at a time. */
INLINED void fill_phases(const struct kn_slide *s, const float *row, vf fill, float *even,
                         float *odd, bool exact) {
    ptrdiff_t skip = s->pad_left & 1, count = s->iw - skip, at = (s->pad_left + skip) / 2;
    ptrdiff_t padded = s->pad_left + s->iw;

    if (!exact) {
        fill_from(even, 0, at, fill);
        fill_from(odd, 0, at, fill);
    }
    if (skip)
        odd[at - 1] = row[0];
    row += skip;
    for (ptrdiff_t i = 0; i < count; i += 2 * VF_LANES) {
        vf a = vf_load(row + i), b = count - i > VF_LANES ? vf_load(row + i + VF_LANES) : fill;
        ptrdiff_t left = count - i;
        look_ahead(s, row + i);
        look_ahead(s, row + i + VF_LANES);
        if (!exact || left >= 2 * VF_LANES) {
            vf_store(even + at + i / 2, vf_even(a, b));
            vf_store(odd + at + i / 2, vf_odd(a, b));
        } else {
            vf_store_n(even + at + i / 2, vf_even(a, b), (left + 1) / 2);
            vf_store_n(odd + at + i / 2, vf_odd(a, b), left / 2);
        }
    }
    if (!exact) {
        fill_from(even, (padded + 1) / 2, s->columns, fill);
        fill_from(odd, padded / 2, s->columns, fill);
    }
}

/* Whether rows are copied without touching the borders, and quicker so. */
INLINED bool keeps_borders(const struct kn_slide *s) {
    return VF_LANES == 16 || (s->stride == 1 && s->iw >= VF_LANES);
}

void KN_SIMD(kn_slide_fill)(const struct kn_slide *s, const float *x, ptrdiff_t oy, ptrdiff_t rows,
                            float fill, bool again, float *scratch) {
    ptrdiff_t iy = oy * s->stride - s->pad_top, end = iy + (rows - 1) * s->stride + s->kernel;
    vf fills = vf_set(fill);

    again = again && keeps_borders(s);
    for (; iy < end; iy++, scratch += s->stride * s->pitch) {
        const float *row = x + iy * s->iw;
        bool inside = iy >= 0 && iy < s->ih;
        if (inside && again && s->stride == 1) {
            copy_row(s, row, scratch);
        } else if (inside && s->stride == 1) {
            fill_row(s, row, fills, scratch);
        } else if (inside) {
            fill_phases(s, row, fills, scratch, scratch + s->pitch, again);
        } else if (!again) {
            fill_from(scratch, 0, s->columns, fills);
            if (s->stride > 1)
                fill_from(scratch + s->pitch, 0, s->columns, fills);
        }
    }
}

/* ---- results: R rows at a time, a vector of columns ---- */

/* One row's vector; the lanes beyond ow go to the next row, which comes later, if there is room. */
INLINED void store(float *y, vf v, ptrdiff_t ow, ptrdiff_t room) {
    if (ow >= VF_LANES || room >= VF_LANES)
        vf_store(y, v);
    else
        vf_store_n(y, v, kn_min(ow, room));
}

/* The last vector of a wide row overlaps the one before: -1 when that was it. */
INLINED ptrdiff_t next_column(ptrdiff_t ox, ptrdiff_t ow) {
    return ox + VF_LANES >= ow ? -1 : kn_min(ox + VF_LANES, ow - VF_LANES);
}

INLINED void sum_rows(const struct kn_slide *s, const struct kn_slide_sum *sum, const int kernel,
                      const int stride, const int count, const float *scratch, float *y,
                      ptrdiff_t room) {
    const ptrdiff_t pitch = s->pitch, ow = s->ow;
    const vf low = vf_set(sum->low), high = vf_set(sum->high);
    vf w[KN_SLIDE_KERNEL_MAX * KN_SLIDE_KERNEL_MAX], bias = vf_set(sum->bias);

    UNROLL(49)
    for (int t = 0; t < kernel * kernel; t++)
        w[t] = vf_set(sum->w[t]);
    for (ptrdiff_t ox = 0; ox >= 0; ox = next_column(ox, ow)) {
        vf sums[4] = {bias, bias, bias, bias};
        UNROLL(16)
        for (int iy = 0; iy < stride * (count - 1) + kernel; iy++)
            UNROLL(7)
        for (int kx = 0; kx < kernel; kx++) {
            vf x = vf_load(scratch + (iy * stride + kx % stride) * pitch + ox + kx / stride);
            UNROLL(4)
            for (int r = 0; r < count; r++)
                if (iy >= stride * r && iy < stride * r + kernel)
                    sums[r] = vf_fma(x, w[(iy - stride * r) * kernel + kx], sums[r]);
        }
        UNROLL(4)
        for (int r = 0; r < count; r++)
            store(y + r * ow + ox, vf_min(high, vf_max(low, sums[r])), ow, room - r * ow);
    }
}

/* The larger one; NaN is above everything. */
INLINED vf above(vf a, vf b) {
#if defined(__AVX512F__)
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q);
    return (vf)_mm512_mask_mov_ps(_mm512_max_ps((__m512)a, (__m512)b), nan, (__m512)a);
#else
    return vf_select(a != a, a, vf_max(a, b)); /* NOLINT(misc-redundant-expression) */
#endif
}

INLINED void max_rows(const struct kn_slide *s, const int kernel, const int stride, const int count,
                      const float *scratch, float *y, ptrdiff_t room) {
    const ptrdiff_t pitch = s->pitch, ow = s->ow;

    for (ptrdiff_t ox = 0; ox >= 0; ox = next_column(ox, ow)) {
        vf best[4];
        UNROLL(16)
        for (int iy = 0; iy < stride * (count - 1) + kernel; iy++) {
            vf across = vf_load(scratch + iy * stride * pitch + ox);
            UNROLL(3)
            for (int kx = 1; kx < kernel; kx++)
                across =
                    above(vf_load(scratch + (iy * stride + kx % stride) * pitch + ox + kx / stride),
                          across);
            UNROLL(4)
            for (int r = 0; r < count; r++)
                if (iy == stride * r)
                    best[r] = across;
                else if (iy > stride * r && iy < stride * r + kernel)
                    best[r] = above(across, best[r]);
        }
        UNROLL(4)
        for (int r = 0; r < count; r++)
            store(y + r * ow + ox, best[r], ow, room - r * ow);
    }
}

/* All rows of a band by fours; three that are left over are computed with one more, again.
 * compute() does count of them. */
#define EACH_ROWS(band, compute, ...)                                                              \
    do {                                                                                           \
        const struct kn_slide *s = (band)->slide;                                                  \
        ptrdiff_t oy = 0, left;                                                                    \
                                                                                                   \
        for (; (left = (band)->rows - oy) > 0;) {                                                  \
            if (left == 3 && oy > 0)                                                               \
                oy--, left++;                                                                      \
            int count = left >= 4 ? 4 : left >= 2 ? 2 : 1;                                         \
            const float *from = (band)->scratch + oy * s->stride * s->stride * s->pitch;           \
            float *to = (band)->y + oy * s->ow;                                                    \
            ptrdiff_t room = (band)->room - oy * s->ow;                                            \
            if (count == 4)                                                                        \
                compute(s, __VA_ARGS__, 4, from, to, room);                                        \
            else if (count == 2)                                                                   \
                compute(s, __VA_ARGS__, 2, from, to, room);                                        \
            else                                                                                   \
                compute(s, __VA_ARGS__, 1, from, to, room);                                        \
            oy += count;                                                                           \
        }                                                                                          \
    } while (0)

#define SUM_BAND(kernel, stride)                                                                   \
    static void sum_band_##kernel##_##stride(const struct kn_slide_band *band,                     \
                                             const struct kn_slide_sum *sum) {                     \
        EACH_ROWS(band, sum_rows, sum, kernel, stride);                                            \
    }

SUM_BAND(3, 1)
SUM_BAND(3, 2)
SUM_BAND(5, 1)
SUM_BAND(5, 2)
SUM_BAND(7, 1)
SUM_BAND(7, 2)

void KN_SIMD(kn_slide_sum)(const struct kn_slide_band *band, const struct kn_slide_sum *sum) {
    static void (*const bands[][2])(const struct kn_slide_band *, const struct kn_slide_sum *) = {
        [3] = {sum_band_3_1, sum_band_3_2},
        [5] = {sum_band_5_1, sum_band_5_2},
        [7] = {sum_band_7_1, sum_band_7_2},
    };

    bands[band->slide->kernel][band->slide->stride - 1](band, sum);
}

#define MAX_BAND(kernel, stride)                                                                   \
    static void max_band_##kernel##_##stride(const struct kn_slide_band *band) {                   \
        EACH_ROWS(band, max_rows, kernel, stride);                                                 \
    }

MAX_BAND(2, 1)
MAX_BAND(2, 2)
MAX_BAND(3, 1)
MAX_BAND(3, 2)

void KN_SIMD(kn_slide_max)(const struct kn_slide_band *band) {
    static void (*const bands[][2])(const struct kn_slide_band *) = {
        [2] = {max_band_2_1, max_band_2_2},
        [3] = {max_band_3_1, max_band_3_2},
    };

    bands[band->slide->kernel][band->slide->stride - 1](band);
}
