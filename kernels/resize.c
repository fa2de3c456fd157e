/* Resize: where each output lies and what it is made of is settled first, axis by axis, in tables
 * in scratch; then one pass over the tensor for each axis that changes. The two last axes are one
 * pass: rows are interpolated into a few buffers that stay in cache, and added up from there. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "internal.h"

#define TAPS_MAX ((size_t)1 << 28) /* of all outputs of an axis */

/* ---- tables ---- */

/* For output o and tap t, at [t * out + o]: an input within [0, in), and its weight. The inputs of
 * one output follow one another, but for those beyond the ends. */
struct table {
    ptrdiff_t in, out, taps;
    int32_t *index;
    float *weight;    /* NULL: nearest */
    uint8_t *outside; /* [out]: extrapolated; NULL: nothing is */
};

/* An axis that stays as it is. */
static bool is_same(const struct kn_resize *r, const struct kn_resize_axis *axis) {
    return axis->in == axis->out && fabs(axis->scale - 1.0) < 1e-9 &&
           (r->coord != KN_COORD_CROP || (axis->roi_begin == 0.0 && axis->roi_end == 1.0));
}

/* ONNX's coordinate transformations. Its reference takes in * scale for the output's length, which
 * need not be whole. */
static double original(const struct kn_resize *r, const struct kn_resize_axis *axis, int o) {
    double length = axis->in * axis->scale, last = axis->in - 1;

    switch (r->coord) {
    case KN_COORD_ALIGN_CORNERS:
        return length == 1.0 || axis->out == 1 ? 0.0 : o * last / (length - 1.0);
    case KN_COORD_ASYMMETRIC:
        return o / axis->scale;
    case KN_COORD_HALF_PIXEL_FOR_NN:
        return (o + 0.5) / axis->scale;
    case KN_COORD_HALF_PIXEL_SYMMETRIC:
        return axis->in / 2.0 * (1.0 - axis->out / length) + (o + 0.5) / axis->scale - 0.5;
    case KN_COORD_CROP:
        if (length == 1.0 || axis->out == 1)
            return (axis->roi_begin + axis->roi_end) / 2.0 * last;
        return axis->roi_begin * last +
               o * (axis->roi_end - axis->roi_begin) * last / (length - 1.0);
    case KN_COORD_PYTORCH_HALF_PIXEL:
        if (axis->out == 1)
            return 0.0;
        break;
    case KN_COORD_HALF_PIXEL:
        break;
    }
    return (o + 0.5) / axis->scale - 0.5;
}

static double round_nearest(enum kn_resize_round mode, double x) {
    switch (mode) {
    case KN_ROUND_PREFER_FLOOR:
        return ceil(x - 0.5);
    case KN_ROUND_PREFER_CEIL:
        return floor(x + 0.5);
    case KN_ROUND_FLOOR:
        return floor(x);
    case KN_ROUND_CEIL:
        return ceil(x);
    }
    return x;
}

static int32_t clamp(double x, int in) {
    return x <= 0.0 ? 0 : x >= in - 1 ? in - 1 : (int32_t)x;
}

static double cubic(double a, double d) {
    d = fabs(d);
    if (d <= 1.0)
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    return d < 2.0 ? ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a : 0.0;
}

/* What reaches from a coordinate, in inputs: shrinking with antialias widens it. */
static double stretch(const struct kn_resize *r, const struct kn_resize_axis *axis) {
    return r->antialias && axis->scale < 1.0 ? axis->scale : 1.0;
}

static double reach(const struct kn_resize *r, const struct kn_resize_axis *axis) {
    return floor((r->mode == KN_RESIZE_CUBIC ? -2.0 : -1.0) / stretch(r, axis)) + 1.0;
}

static size_t count_taps(const struct kn_resize *r, const struct kn_resize_axis *axis) {
    if (is_same(r, axis) || r->mode == KN_RESIZE_NEAREST)
        return 1;
    double taps = 2.0 - 2.0 * reach(r, axis);
    return taps < (double)TAPS_MAX ? (size_t)taps : TAPS_MAX;
}

/* The weights of output o, whose coordinate is x; they add up to 1. */
static void set_weights(const struct kn_resize *r, const struct kn_resize_axis *axis,
                        const struct table *table, int o, double x) {
    double base = ceil(x) - 1.0, first = base + reach(r, axis), sum = 0.0;
    double narrow = stretch(r, axis);
    ptrdiff_t at = o;

    for (int pass = 0; pass < 2; pass++, at = o)
        for (ptrdiff_t t = 0; t < table->taps; t++, at += table->out) {
            double cell = first + (double)t, d = (cell - x) * narrow, w;
            w = r->mode == KN_RESIZE_CUBIC ? cubic((double)r->cubic_a, d)
                                           : fmax(1.0 - fabs(d), 0.0);
            if (r->exclude_outside && (cell < 0.0 || cell > axis->in - 1))
                w = 0.0;
            if (pass == 0) {
                sum += w;
                table->index[at] = clamp(cell, axis->in);
            } else {
                table->weight[at] = (float)(sum != 0.0 ? w / sum : w);
            }
        }
}

static void table_fill(const struct kn_resize *r, const struct kn_resize_axis *axis,
                       const struct table *table) {
    for (int o = 0; o < axis->out; o++) {
        double x = is_same(r, axis) ? o : original(r, axis, o);
        if (table->outside) {
            table->outside[o] = x < 0.0 || x > axis->in - 1;
            x = table->outside[o] ? 0.0 : x;
        }
        /* In float, so that a scale which float32 has rounded does not move ties. */
        if (!table->weight)
            table->index[o] = clamp(round_nearest(r->round, (double)(float)x), axis->in);
        else
            set_weights(r, axis, table, o, x);
    }
}

/* ---- the layout: made by each call, as that is nothing beside the tensor ---- */

struct pass {
    const struct table *rows, *cols; /* rows NULL: only columns; cols NULL: only rows */
    size_t outer, inner;             /* around the axes; in elements */
};

struct layout {
    struct table tables[KN_MAX_RANK];
    struct pass passes[KN_MAX_RANK];
    int passes_count;
    size_t table_bytes; /* all tables, KN_ALIGN aligned */
    size_t between;     /* elements of the largest intermediate result; there are two at most */
    size_t row_bytes;   /* of one thread's row buffers */
};

static size_t align_bytes(size_t bytes) {
    return kn_round_up(bytes, KN_ALIGN);
}

/* Gives every changing axis its table in scratch (NULL: counts only). */
static void lay_tables(const struct kn_resize *r, struct layout *layout, char *scratch) {
    for (int i = 0; i < r->rank; i++) {
        const struct kn_resize_axis *axis = &r->axes[i];
        struct table *table = &layout->tables[i];
        *table = (struct table){
            .in = axis->in, .out = axis->out, .taps = (ptrdiff_t)count_taps(r, axis)};
        if (is_same(r, axis) && r->mode != KN_RESIZE_NEAREST)
            continue;
        size_t cells = (size_t)table->taps * (size_t)table->out, at = layout->table_bytes;
        layout->table_bytes += align_bytes(cells * sizeof(int32_t));
        if (scratch)
            table->index = (int32_t *)(scratch + at);
        at = layout->table_bytes;
        if (r->mode != KN_RESIZE_NEAREST) {
            layout->table_bytes += align_bytes(cells * sizeof(float));
            if (scratch)
                table->weight = (float *)(scratch + at);
        }
        at = layout->table_bytes;
        if (r->coord == KN_COORD_CROP) {
            layout->table_bytes += align_bytes((size_t)table->out);
            if (scratch)
                table->outside = (uint8_t *)(scratch + at);
        }
        if (scratch)
            table_fill(r, axis, table);
    }
}

static size_t product(const struct kn_resize *r, int from, int to, bool out) {
    size_t count = 1;

    for (int i = from; i < to; i++)
        count *= (size_t)(out ? r->axes[i].out : r->axes[i].in);
    return count;
}

/* One pass per changing axis, from the first on; the two last ones together. */
static void lay_passes(const struct kn_resize *r, struct layout *layout) {
    for (int i = 0; i < r->rank; i++) {
        const struct table *table = &layout->tables[i];
        struct pass *pass = &layout->passes[layout->passes_count];
        bool last = i == r->rank - 1, before_last = i == r->rank - 2;
        bool pair = before_last && !is_same(r, &r->axes[r->rank - 1]);
        if (is_same(r, &r->axes[i]))
            continue;
        *pass = (struct pass){.rows = last ? NULL : table,
                              .cols = last   ? table
                                      : pair ? &layout->tables[r->rank - 1]
                                             : NULL,
                              .outer = product(r, 0, i, true),
                              .inner = last || pair ? 1 : product(r, i + 1, r->rank, false)};
        layout->passes_count++;
        if (pair)
            layout->row_bytes =
                align_bytes((size_t)table->taps * sizeof(int32_t)) +
                align_bytes((size_t)table->taps * (size_t)r->axes[r->rank - 1].out * sizeof(float));
        if (last || pair)
            break;
        size_t elements = product(r, 0, i + 1, true) * product(r, i + 1, r->rank, false);
        layout->between = elements > layout->between ? elements : layout->between;
    }
}

static void lay_out(const struct kn_resize *r, struct layout *layout, char *scratch) {
    memset(layout, 0, sizeof(*layout));
    lay_tables(r, layout, scratch);
    if (r->mode != KN_RESIZE_NEAREST)
        lay_passes(r, layout);
}

int kn_resize_scratch(const struct kn_resize *resize, int threads, size_t *ret_bytes) {
    struct layout layout;

    for (int i = 0; i < resize->rank; i++)
        if (count_taps(resize, &resize->axes[i]) * (size_t)resize->axes[i].out > TAPS_MAX)
            return -EOVERFLOW;
    lay_out(resize, &layout, NULL);
    *ret_bytes = layout.table_bytes + 2 * align_bytes(layout.between * sizeof(float)) +
                 (size_t)threads * layout.row_bytes;
    return 0;
}

/* ---- one row ---- */

/* y[i] = the sum over t of weight[t][i] * x[index[t][i]] */
static KN_CLONES void interpolate_cols(const struct table *t, const float *restrict x,
                                       float *restrict y) {
    const int32_t *restrict i0 = t->index, *restrict i1 = i0 + t->out;
    const float *restrict w0 = t->weight, *restrict w1 = w0 + t->out;

    for (ptrdiff_t i = 0; i < t->out; i++)
        y[i] = w0[i] * x[i0[i]] + w1[i] * x[i1[i]];
    for (ptrdiff_t k = 2; k < t->taps; k++) {
        const int32_t *restrict index = t->index + k * t->out;
        const float *restrict weight = t->weight + k * t->out;
        for (ptrdiff_t i = 0; i < t->out; i++)
            y[i] += weight[i] * x[index[i]];
    }
}

/* y = the sum over t of weight[t] * rows[t] */
static KN_CLONES void add_two(const float *a, float wa, const float *b, float wb, float *restrict y,
                              ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = wa * a[i] + wb * b[i];
}

static KN_CLONES void add_two_more(const float *a, float wa, const float *b, float wb,
                                   float *restrict y, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] += wa * a[i] + wb * b[i];
}

static void set_outside(const struct kn_resize *r, const struct table *cols, float *y) {
    for (ptrdiff_t i = 0; cols->outside && i < cols->out; i++)
        if (cols->outside[i])
            memcpy(&y[i], r->outside, sizeof(y[i]));
}

/* ---- a pass ---- */

struct job {
    const struct kn_resize *resize;
    const struct pass *pass;
    const float *x;
    float *y;
    char *rows; /* each thread's buffers */
    size_t row_bytes;
    ptrdiff_t bands, band; /* of one plane; output rows of each */
};

/* The rows that a thread has interpolated to the output's width: buffer i has row held[i], one of
 * those that are i modulo taps. An output's rows follow one another, so each has its own buffer. */
struct buffers {
    int32_t *held;
    float *rows;
};

static struct buffers buffers_of(const struct job *job, int thread) {
    char *scratch = job->rows + (size_t)thread * job->row_bytes;
    size_t held_bytes = align_bytes((size_t)job->pass->rows->taps * sizeof(int32_t));

    return (struct buffers){(int32_t *)scratch, (float *)(scratch + held_bytes)};
}

static const float *row_at(const struct job *job, const struct buffers *buffers, const float *plane,
                           int32_t row) {
    const struct table *rows = job->pass->rows, *cols = job->pass->cols;

    if (!cols)
        return plane + row * (ptrdiff_t)job->pass->inner;
    ptrdiff_t slot = row % rows->taps;
    float *buffer = buffers->rows + slot * cols->out;
    if (buffers->held[slot] != row) {
        interpolate_cols(cols, plane + row * cols->in, buffer);
        buffers->held[slot] = row;
    }
    return buffer;
}

static void make_row(const struct job *job, const struct buffers *buffers, const float *plane,
                     ptrdiff_t o, float *y, ptrdiff_t width) {
    const struct table *rows = job->pass->rows;

    for (ptrdiff_t t = 0; t < rows->taps; t += 2) { /* there is an even number of them */
        ptrdiff_t at = t * rows->out + o, next = at + rows->out;
        const float *a = row_at(job, buffers, plane, rows->index[at]);
        const float *b = row_at(job, buffers, plane, rows->index[next]);
        if (t == 0)
            add_two(a, rows->weight[at], b, rows->weight[next], y, width);
        else
            add_two_more(a, rows->weight[at], b, rows->weight[next], y, width);
    }
}

/* A band of output rows of one plane. */
static void rows_task(void *arg, int task, int thread) {
    const struct job *job = arg;
    const struct table *rows = job->pass->rows, *cols = job->pass->cols;
    ptrdiff_t inner = (ptrdiff_t)job->pass->inner, width = cols ? cols->out : inner;
    ptrdiff_t plane = task / job->bands, first = task % job->bands * job->band;
    const float *x = job->x + plane * rows->in * (cols ? cols->in : inner);
    float *y = job->y + (plane * rows->out + first) * width;
    struct buffers buffers = {NULL, NULL};

    if (cols) {
        buffers = buffers_of(job, thread);
        memset(buffers.held, 0xff, (size_t)rows->taps * sizeof(int32_t));
    }
    for (ptrdiff_t o = first; o < kn_min(first + job->band, rows->out); o++, y += width) {
        if (rows->outside && rows->outside[o]) {
            kn_fill(sizeof(float), job->resize->outside, (size_t)width, y);
            continue;
        }
        make_row(job, &buffers, x, o, y, width);
        if (cols)
            set_outside(job->resize, cols, y);
    }
}

#define COLS_ROWS 64 /* rows of one task, where only columns change */

static void cols_task(void *arg, int task, int thread) {
    const struct job *job = arg;
    const struct table *cols = job->pass->cols;
    ptrdiff_t first = (ptrdiff_t)task * COLS_ROWS;
    ptrdiff_t end = kn_min(first + COLS_ROWS, (ptrdiff_t)job->pass->outer);

    (void)thread;
    for (ptrdiff_t row = first; row < end; row++) {
        float *y = job->y + row * cols->out;
        interpolate_cols(cols, job->x + row * cols->in, y);
        set_outside(job->resize, cols, y);
    }
}

#define BAND 32 /* output rows of one task, where there are few planes */

static void run_pass(struct job *job, struct kn_threads *threads) {
    const struct pass *pass = job->pass;
    ptrdiff_t outer = (ptrdiff_t)pass->outer;

    if (!pass->rows) {
        kn_parallel(threads, (int)kn_ceil_div(outer, COLS_ROWS), cols_task, job);
        return;
    }
    job->band = outer < 64 ? BAND : pass->rows->out;
    job->bands = kn_ceil_div(pass->rows->out, job->band);
    kn_parallel(threads, (int)(outer * job->bands), rows_task, job);
}

static void resize_floats(const struct kn_resize *r, const struct layout *layout, char *scratch,
                          const float *x, float *y, struct kn_threads *threads) {
    size_t between = align_bytes(layout->between * sizeof(float));
    struct job job = {.resize = r,
                      .x = x,
                      .rows = scratch + layout->table_bytes + 2 * between,
                      .row_bytes = layout->row_bytes};

    for (int i = 0; i < layout->passes_count; i++) {
        bool last = i == layout->passes_count - 1;
        job.pass = &layout->passes[i];
        job.y = last ? y : (float *)(scratch + layout->table_bytes + (size_t)(i % 2) * between);
        run_pass(&job, threads);
        job.x = job.y;
    }
}

/* ---- nearest: elements of any size are copied ---- */

struct nearest {
    const struct kn_resize *resize;
    const struct table *tables;
    int first, last; /* axes that change lie between them */
    size_t block;    /* bytes of what does not change behind the last */
    size_t x_step[KN_MAX_RANK], y_step[KN_MAX_RANK]; /* bytes of one index of each axis */
    const char *x;
    char *y;
};

static void nearest_row(const struct nearest *n, const struct table *table, const char *x,
                        char *y) {
    size_t block = n->block;

    if (block == sizeof(float))
        for (ptrdiff_t o = 0; o < table->out; o++)
            memcpy(y + o * (ptrdiff_t)sizeof(float), x + table->index[o] * (ptrdiff_t)sizeof(float),
                   sizeof(float));
    else
        for (ptrdiff_t o = 0; o < table->out; o++)
            memcpy(y + (size_t)o * block, x + (size_t)table->index[o] * block, block);
    for (ptrdiff_t o = 0; o < table->out && table->outside; o++)
        if (table->outside[o])
            kn_fill(n->resize->elem_size, n->resize->outside, block / n->resize->elem_size,
                    y + (size_t)o * block);
}

static void nearest_axis(const struct nearest *n, int axis, const char *x, char *y) {
    const struct table *table = &n->tables[axis];
    size_t step = n->y_step[axis];
    ptrdiff_t before = -1; /* the input that the output before has come from */

    if (axis == n->last) {
        nearest_row(n, table, x, y);
        return;
    }
    for (ptrdiff_t o = 0; o < table->out; o++, y += step) {
        if (table->outside && table->outside[o]) {
            kn_fill(n->resize->elem_size, n->resize->outside, step / n->resize->elem_size, y);
            before = -1;
            continue;
        }
        if (table->index[o] == before)
            memcpy(y, y - step, step);
        else
            nearest_axis(n, axis + 1, x + (size_t)table->index[o] * n->x_step[axis], y);
        before = table->index[o];
    }
}

static void nearest_task(void *arg, int task, int thread) {
    const struct nearest *n = arg;
    const struct table *table = &n->tables[n->first];

    (void)thread;
    nearest_axis(n, n->first, n->x + (size_t)task * n->x_step[n->first] * (size_t)table->in,
                 n->y + (size_t)task * n->y_step[n->first] * (size_t)table->out);
}

static void resize_nearest(const struct kn_resize *r, const struct layout *layout, const char *x,
                           char *y, struct kn_threads *threads) {
    struct nearest n = {.resize = r, .tables = layout->tables, .x = x, .y = y};

    for (n.last = r->rank - 1; n.last > 0 && is_same(r, &r->axes[n.last]);)
        n.last--;
    for (n.first = 0; n.first < n.last && is_same(r, &r->axes[n.first]);)
        n.first++;
    n.block = product(r, n.last + 1, r->rank, false) * r->elem_size;
    for (int i = 0; i < r->rank; i++) {
        n.x_step[i] = product(r, i + 1, r->rank, false) * r->elem_size;
        n.y_step[i] = product(r, i + 1, r->rank, true) * r->elem_size;
    }
    kn_parallel(threads, (int)product(r, 0, n.first, true), nearest_task, &n);
}

void kn_resize(const struct kn_resize *resize, const void *x, void *y, void *scratch,
               struct kn_threads *threads) {
    struct layout layout;

    lay_out(resize, &layout, scratch);
    if (resize->mode == KN_RESIZE_NEAREST)
        resize_nearest(resize, &layout, x, y, threads);
    else if (layout.passes_count > 0)
        resize_floats(resize, &layout, scratch, x, y, threads);
    else
        memcpy(y, x, product(resize, 0, resize->rank, false) * sizeof(float));
}
