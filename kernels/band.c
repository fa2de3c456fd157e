#include "band.h"
#include "conv_internal.h"

/* Where each tap reads. */
static void find_taps(struct kn_band *band) {
    const struct kn_window *w = &band->window;
    ptrdiff_t phase = (band->rows + band->reach_h) * band->pitch;

    for (ptrdiff_t ky = 0; ky < w->kh; ky++)
        for (ptrdiff_t kx = 0; kx < w->kw; kx++) {
            ptrdiff_t y = ky * w->dil_h, x = kx * w->dil_w;
            ptrdiff_t py = y % w->stride_h, px = x % w->stride_w;
            band->offsets[ky * w->kw + kx] = (py * band->phases_w + px) * phase +
                                             y / w->stride_h * band->pitch + x / w->stride_w;
        }
}

bool kn_band_init(struct kn_band *band, const struct kn_window *window) {
    ptrdiff_t most = KN_BAND_BYTES / (ptrdiff_t)sizeof(float);
    ptrdiff_t reach_h = (window->kh - 1) * window->dil_h;
    ptrdiff_t reach_w = (window->kw - 1) * window->dil_w;

    if (window->kh > KN_BAND_TAPS_MAX || window->kw > KN_BAND_TAPS_MAX || reach_h > most ||
        reach_w > most || window->ow > most || window->kh * window->kw > KN_BAND_TAPS_MAX)
        return false;
    *band = (struct kn_band){.window = *window, .taps = window->kh * window->kw};
    band->phases_h = kn_min(window->stride_h, reach_h + 1);
    band->phases_w = kn_min(window->stride_w, reach_w + 1);
    band->reach_h = reach_h / window->stride_h;
    band->pitch = window->ow + reach_w / window->stride_w;

    /* Loops run on to the next KN_UNIT: behind the results, and from the last tap's last row. */
    ptrdiff_t phases = band->phases_h * band->phases_w;
    ptrdiff_t room = (most - 2 * KN_UNIT) / band->pitch;
    ptrdiff_t rows = (room - phases * band->reach_h) / (phases + 1);
    if (phases > most || rows < 1)
        return false;
    band->rows = kn_min(rows, window->oh);
    band->results = phases * (band->rows + band->reach_h) * band->pitch + KN_UNIT;
    band->bytes = kn_round_up(
        (size_t)(band->results + band->rows * band->pitch + KN_UNIT) * sizeof(float), KN_ALIGN);
    find_taps(band);
    return true;
}

#define LINE 16 /* floats that a cache brings at once */

/* What kn_band_fill() calls is inlined into each of its versions. */
#define INLINED static inline __attribute__((always_inline))

INLINED void fill_row(float *to, float fill, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        to[i] = fill;
}

/* Columns of one phase that lie inside the plane; column i reads row[i * stride + offset]. */
struct span {
    ptrdiff_t offset, lo, hi;
};

static struct span span_of(const struct kn_band *band, ptrdiff_t phase) {
    struct span span = {.offset = phase - band->window.pad_left};

    kn_valid_range(band->window.iw, band->pitch, band->window.stride_w, span.offset, &span.lo,
                   &span.hi);
    return span;
}

INLINED void copy_row(const struct kn_band *band, const struct span *span, const float *row,
                      float fill, float *restrict to) {
    ptrdiff_t stride = band->window.stride_w;

    fill_row(to, fill, span->lo);
    row += span->offset;
    if (stride == 1)
        for (ptrdiff_t i = span->lo; i < span->hi; i++)
            to[i] = row[i];
    else if (stride == 2)
        for (ptrdiff_t i = span->lo; i < span->hi; i++)
            to[i] = row[2 * i];
    else
        for (ptrdiff_t i = span->lo; i < span->hi; i++)
            to[i] = row[i * stride];
    fill_row(to + span->hi, fill, band->pitch - span->hi);
}

/* Both phases of stride 2 at once: every element of the row is loaded once. */
INLINED void copy_pair(const struct kn_band *band, const struct span spans[2], const float *row,
                       float fill, float *restrict even, float *restrict odd) {
    ptrdiff_t lo = kn_max(spans[0].lo, spans[1].lo);
    ptrdiff_t hi = kn_max(kn_min(spans[0].hi, spans[1].hi), lo);

    row += spans[0].offset;
    for (ptrdiff_t i = 0; i < lo; i++) {
        even[i] = i >= spans[0].lo && i < spans[0].hi ? row[2 * i] : fill;
        odd[i] = i >= spans[1].lo && i < spans[1].hi ? row[2 * i + 1] : fill;
    }
    for (ptrdiff_t i = lo; i < hi; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
    }
    for (ptrdiff_t i = hi; i < band->pitch; i++) {
        even[i] = i >= spans[0].lo && i < spans[0].hi ? row[2 * i] : fill;
        odd[i] = i >= spans[1].lo && i < spans[1].hi ? row[2 * i + 1] : fill;
    }
}

/* Phases px and px + 1 of one input row (NULL: outside the plane), `size` elements apart; px + 1
 * only when pair is set. */
static inline __attribute__((always_inline)) void copy_phases(const struct kn_band *band,
                                                              const struct span spans[2], bool pair,
                                                              const float *row, float fill,
                                                              ptrdiff_t size, float *to) {
    if (row && pair) {
        copy_pair(band, spans, row, fill, to, to + size);
    } else if (row) {
        copy_row(band, spans, row, fill, to);
    } else {
        fill_row(to, fill, band->pitch);
        if (pair)
            fill_row(to + size, fill, band->pitch);
    }
}

/* Asks for the next plane's row: it is read when this one has been filled in. */
INLINED void look_ahead(const struct kn_window *w, const float *row) {
    for (ptrdiff_t i = 0; i < w->iw; i += LINE)
        __builtin_prefetch(row + w->ih * w->iw + i, 0, 2);
}

KN_CLONES void kn_band_fill(const struct kn_band *band, const float *x, ptrdiff_t oy,
                            ptrdiff_t rows, float fill, float *scratch) {
    const struct kn_window *w = &band->window;
    ptrdiff_t size = (band->rows + band->reach_h) * band->pitch;
    bool pair = w->stride_w == 2 && band->phases_w == 2;

    for (ptrdiff_t py = 0; py < band->phases_h; py++)
        for (ptrdiff_t px = 0; px < band->phases_w; px += pair ? 2 : 1) {
            const struct span spans[2] = {span_of(band, px), span_of(band, px + 1)};
            ptrdiff_t iy = oy * w->stride_h + py - w->pad_top;
            float *to = scratch + (py * band->phases_w + px) * size;
            for (ptrdiff_t r = 0; r < rows + band->reach_h; r++, to += band->pitch) {
                const float *row = iy >= 0 && iy < w->ih ? x + iy * w->iw : NULL;
                if (row && w->far)
                    look_ahead(w, row);
                copy_phases(band, spans, pair, row, fill, size, to);
                iy += w->stride_h;
            }
        }
}
