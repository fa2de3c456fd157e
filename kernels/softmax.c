#include <math.h>

#include "internal.h"
#include "vexp.h"

struct line {
    const float *x;
    float *y;
    ptrdiff_t count, stride;
};

/* The first of the largest; NaN counts as larger than everything. */
static ptrdiff_t find_max(const struct line *line) {
    ptrdiff_t best = 0;

    for (ptrdiff_t i = 1; i < line->count; i++) {
        float v = line->x[i * line->stride], b = line->x[best * line->stride];
        if (v > b || (isnan(v) && !isnan(b)))
            best = i;
    }
    return best;
}

/* y[i] = exp(x[i] - max) */
static KN_CLONES void exp_row(const float *x, float max, float *y, ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = kn_exp(x[i] - max);
}

static void softmax_line(const struct line *line) {
    float max = line->x[find_max(line) * line->stride], sum = 0.0f;

    if (line->stride == 1)
        exp_row(line->x, max, line->y, line->count);
    else
        for (ptrdiff_t i = 0; i < line->count; i++)
            line->y[i * line->stride] = kn_exp(line->x[i * line->stride] - max);
    for (ptrdiff_t i = 0; i < line->count; i++)
        sum += line->y[i * line->stride];
    for (ptrdiff_t i = 0; i < line->count; i++)
        line->y[i * line->stride] /= sum;
}

static void log_softmax_line(const struct line *line) {
    float max = line->x[find_max(line) * line->stride], sum = 0.0f;

    for (ptrdiff_t i = 0; i < line->count; i++)
        sum += kn_exp(line->x[i * line->stride] - max);
    sum = logf(sum);
    for (ptrdiff_t i = 0; i < line->count; i++)
        line->y[i * line->stride] = line->x[i * line->stride] - max - sum;
}

static void hardmax_line(const struct line *line) {
    ptrdiff_t best = find_max(line);

    for (ptrdiff_t i = 0; i < line->count; i++)
        line->y[i * line->stride] = i == best ? 1.0f : 0.0f;
}

void kn_softmax(enum kn_softmax_kind kind, size_t outer, size_t axis, size_t inner, const float *x,
                float *y) {
    static void (*const lines[])(const struct line *) = {
        [KN_SOFTMAX] = softmax_line,
        [KN_LOG_SOFTMAX] = log_softmax_line,
        [KN_HARDMAX] = hardmax_line,
    };

    if (axis == 0)
        return;
    for (size_t o = 0; o < outer; o++)
        for (size_t i = 0; i < inner; i++) {
            size_t at = o * axis * inner + i;
            struct line line = {x + at, y + at, (ptrdiff_t)axis, (ptrdiff_t)inner};
            lines[kind](&line);
        }
}
