/* 3x3 convolution with stride 1 by Winograd's F(4x4, 3x3), or F(2x2, 3x3) for small planes, and 5x5
 * by F(2x2, 5x5): tiles of 4x4 or 2x2 outputs. Weights are transformed and packed at load, 4, 1.8
 * or 1.4 times as many numbers as before. Then, for a block of tiles: every input plane's tiles are
 * transformed into strips, one matrix [ic][tiles] for each of the 36 or 16 points; each is
 * multiplied with its weights, some output channels at a time; these channels' products are
 * transformed back while they are in cache. A group of an image is a block of its own, at least.
 *
 * Each thread does blocks of its own. Of those that are left when every thread has had as many, all
 * threads transform the input together and then share its output channels. The same sums either
 * way.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "conv_internal.h"
#include "packed.h"

#define INPUTS_MAX  KN_WINOGRAD_INPUTS_MAX
#define ROWS        32 /* output channels whose products are in scratch at once */
#define ROWS_SHARED 16
#define CHANNELS    4             /* input channels of one shared task */
#define MANY        4             /* blocks per thread: none is shared, whatever is left */
#define BLOCK_BYTES (1024 * 1024) /* of transformed input, but for a single strip */
#define APART       16 /* floats between points: their rows do not meet in one set of a cache */
#define REST        4  /* this part of a strip joins the last block, else weights are read for it */

/* What the choice rests on: docs/decisions. */
#define CHANNELS_LEAST    16
#define CHANNELS_OF_GROUP 8 /* at least: what else there is pads panels, and copies for few */
#define CHANNELS_MOST     1024
#define OUTPUTS_LEAST     5  /* rows and columns of y */
#define TILES_FEW         49 /* of 2x2: up to so many, they are taken */
#define OUTPUTS_MOST      4096

/* Channels of a group. */
static ptrdiff_t inputs_of(const struct kn_conv *conv) {
    return conv->ic / conv->group;
}

static ptrdiff_t outputs_of(const struct kn_conv *conv) {
    return conv->oc / conv->group;
}

static bool winograd_fits(const struct kn_conv *conv) {
    ptrdiff_t least = conv->group > 1 ? CHANNELS_OF_GROUP : CHANNELS_LEAST;

    return (conv->kh == 3 || conv->kh == 5) && conv->kw == conv->kh && conv->stride_h == 1 &&
           conv->stride_w == 1 && conv->dil_h == 1 && conv->dil_w == 1 &&
           inputs_of(conv) >= least && inputs_of(conv) <= CHANNELS_MOST &&
           outputs_of(conv) >= least && conv->oh >= OUTPUTS_LEAST && conv->ow >= OUTPUTS_LEAST &&
           conv->ow <= OUTPUTS_MOST;
}

/* Sizes in floats. */
struct layout {
    int tile, points, kernel;
    ptrdiff_t across, tiles; /* of a plane */
    ptrdiff_t width;         /* of a strip */
    ptrdiff_t block;         /* tiles of a block: whole strips; the last has what is left */
    ptrdiff_t blocks;        /* of a plane */
    ptrdiff_t room;          /* for the tiles of the largest block: whole strips */
    ptrdiff_t v_point, v_strip;
    ptrdiff_t m_point;
    ptrdiff_t w_point; /* packed weights of one point of a group */
    ptrdiff_t w_group; /* of all points of a group */
    ptrdiff_t pitch;   /* of padded input rows */
    size_t v, m, rows; /* scratch: transformed input, products, padded input */
    size_t bias;       /* in front of the packed weights */
};

static struct layout layout_of(const struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    const struct kn_simd *simd = plan->simd;
    bool few = kn_ceil_div(conv->oh, 2) * kn_ceil_div(conv->ow, 2) <= TILES_FEW;
    int tile = few || conv->kh == 5 ? 2 : 4, inputs = tile + conv->kh - 1;
    struct layout l = {.tile = tile,
                       .points = inputs * inputs,
                       .kernel = conv->kh,
                       .across = kn_ceil_div(conv->ow, tile),
                       .width = simd->strip_cols};

    l.tiles = l.across * kn_ceil_div(conv->oh, tile);
    l.v_strip = inputs_of(conv) * l.width;
    ptrdiff_t most = BLOCK_BYTES / (l.points * l.v_strip * (ptrdiff_t)sizeof(float));
    ptrdiff_t strips = kn_ceil_div(kn_max(l.tiles - l.width / REST, 1), l.width);
    strips = kn_ceil_div(strips, kn_ceil_div(strips, kn_max(most, 1)));
    l.block = strips * l.width;
    l.blocks = kn_ceil_div(kn_max(l.tiles - l.width / REST, 1), l.block);
    ptrdiff_t last = l.tiles - (l.blocks - 1) * l.block;
    l.room = kn_ceil_div(kn_max(last, l.blocks > 1 ? l.block : 1), l.width) * l.width;
    l.v_point = l.room / l.width * l.v_strip + APART;
    l.m_point = ROWS * l.room + APART;
    l.w_point = (ptrdiff_t)kn_panels_count(simd, outputs_of(conv), inputs_of(conv));
    l.w_group = l.points * l.w_point;
    l.pitch = kn_winograd_pitch(tile, l.across, simd->lanes);
    l.v = (size_t)(l.points * l.v_point);
    l.m = (size_t)(l.points * l.m_point) + KN_TAIL / sizeof(float);
    /* A block may begin and end within a row of tiles. */
    ptrdiff_t down = kn_min(kn_ceil_div(l.room - 1, l.across) + 1, kn_ceil_div(conv->oh, tile));
    l.rows = (size_t)((tile * down + l.kernel) * l.pitch);
    l.bias = kn_round_up((size_t)conv->oc, KN_ALIGN / sizeof(float));
    return l;
}

static size_t scratch_bytes(const struct layout *l) {
    return kn_round_up((l->v + l->m + l->rows) * sizeof(float), KN_ALIGN);
}

static int winograd_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;

    if (!kn_panels_fit(plan->simd, outputs_of(conv), inputs_of(conv),
                       (ptrdiff_t)INPUTS_MAX * INPUTS_MAX * conv->group, conv->oc))
        return -EOVERFLOW;
    struct layout l = layout_of(plan);
    plan->panel = (int)l.block;
    plan->packed_bytes =
        kn_round_up((l.bias + (size_t)(conv->group * l.w_group)) * sizeof(float), KN_ALIGN);
    plan->workspace_bytes = scratch_bytes(&l);
    return 0;
}

/* ---- weights: G w G^T, each row of G the powers of a point over its distance from the others ----
 */

struct transform {
    int inputs, kernel;
    double g[INPUTS_MAX][KN_WINOGRAD_KERNEL_MAX];
};

/* Infinity comes last. F(2x2, 3x3)'s first row has the other sign, on both sides. */
static struct transform weights_transform(int tile, int kernel) {
    const double a = KN_WINOGRAD_A, b = KN_WINOGRAD_B, a2 = a * a, b2 = b * b;
    const double points[2][INPUTS_MAX - 1] = {{0.0, 1.0, -1.0}, {0.0, a, -a, b, -b}};
    const double distances[2][INPUTS_MAX - 1] = {
        {1.0, 2.0, 2.0},
        {a2 * b2, 2 * a2 * (a2 - b2), 2 * a2 * (a2 - b2), 2 * b2 * (b2 - a2), 2 * b2 * (b2 - a2)}};
    struct transform t = {.inputs = tile + kernel - 1, .kernel = kernel};

    for (int i = 0; i < t.inputs - 1; i++) {
        double point = points[t.inputs == 6][i], power = 1.0 / distances[t.inputs == 6][i];
        for (int k = 0; k < kernel; k++) {
            t.g[i][k] = power;
            power *= point;
        }
    }
    t.g[t.inputs - 1][kernel - 1] = 1.0;
    return t;
}

static void winograd_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                          void *packed) {
    const struct kn_simd *simd = plan->simd;
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t ocg = outputs_of(conv), height = simd->panel_rows;
    struct layout l = layout_of(plan);
    struct transform t = weights_transform(l.tile, l.kernel);
    const struct kn_rows all = {.w = weights->w,
                                .scale = weights->scale,
                                .count = weights->rows,
                                .depth = inputs_of(conv) * l.kernel * l.kernel};
    struct kn_winograd_weights to = {
        .g = t.g, .kernel = t.kernel, .inputs = t.inputs, .point_stride = l.w_point};

    kn_conv_pack_bias(plan, weights, l.bias, packed);
    /* All groups, or a piece of the only one. */
    for (ptrdiff_t row = 0, n; row < all.count; row += n) {
        ptrdiff_t group = (weights->first + row) / ocg, first = (weights->first + row) % ocg;
        struct kn_rows rows = kn_rows_part(&all, row, kn_min(height, ocg - first));
        n = rows.count;
        to.panel = (float *)packed + l.bias + group * l.w_group + first * inputs_of(conv);
        simd->winograd_pack(&rows, &to);
    }
}

struct winograd_job {
    const struct kn_conv_plan *plan;
    const float *packed, *x, *residual;
    float *y;
    char *workspace;
    struct layout layout;
    float low, high;
    bool bounds; /* the activation is done by them */
    bool narrow; /* half a vector has lanes enough */
    int shared;  /* the block that all threads work on */
};

static float *scratch_of(const struct winograd_job *job, int thread) {
    return (float *)(job->workspace + (size_t)thread * scratch_bytes(&job->layout));
}

static struct kn_winograd tiles_of(const struct winograd_job *job, int block) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct layout *l = &job->layout;
    ptrdiff_t index = block % l->blocks, first = index * l->block;

    return (struct kn_winograd){.tile = l->tile,
                                .kernel = l->kernel,
                                .ih = conv->ih,
                                .iw = conv->iw,
                                .oh = conv->oh,
                                .ow = conv->ow,
                                .pad_top = conv->pad_top,
                                .pad_left = conv->pad_left,
                                .across = l->across,
                                .first = first,
                                .count = index + 1 < l->blocks ? l->block : l->tiles - first};
}

/* Input channels [first, last) of a block into v. */
static void transform_channels(const struct winograd_job *job, int block, ptrdiff_t first,
                               ptrdiff_t last, float *v, float *rows) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct layout *l = &job->layout;
    struct kn_winograd tiles = tiles_of(job, block);
    const struct kn_simd *simd = job->plan->simd;
    ptrdiff_t plane = block / l->blocks * inputs_of(conv);

    for (ptrdiff_t c = first; c < last; c++) {
        const struct kn_winograd_in in = {
            .x = job->x + (plane + c) * conv->ih * conv->iw,
            .v = v + c * l->width,
            .width = l->width,
            .point_stride = l->v_point,
            .strip_stride = l->v_strip,
            .rows = rows,
            .pitch = l->pitch,
        };
        (job->narrow ? simd->winograd_in_narrow : simd->winograd_in)(&tiles, &in);
    }
}

/* The block's part of one output plane, a piece of a row at a time. */
static void activate_tiles(const struct kn_conv *conv, const struct kn_winograd *tiles, float *y) {
    ptrdiff_t end = tiles->first + tiles->count;

    for (ptrdiff_t t = tiles->first, n; t < end; t += n) {
        ptrdiff_t oy = t / tiles->across * tiles->tile, tx = t % tiles->across;
        ptrdiff_t ox = tx * tiles->tile;
        n = kn_min(tiles->across - tx, end - t);
        ptrdiff_t cols = kn_min(n * tiles->tile, conv->ow - ox);
        for (ptrdiff_t r = oy; r < kn_min(oy + tiles->tile, conv->oh); r++) {
            float *row = y + r * conv->ow + ox;
            kn_act_row(&conv->act, row, row, cols);
        }
    }
}

/* The outputs of a block from its products: channels [first, first + rows). */
static void finish_channels(const struct winograd_job *job, int block, ptrdiff_t first,
                            ptrdiff_t rows, const float *m) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_winograd tiles = tiles_of(job, block);
    const struct kn_simd *simd = job->plan->simd;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow, n = block / job->layout.blocks;
    const float *bias = job->packed + n % conv->group * outputs_of(conv) + first;

    for (ptrdiff_t i = 0; i < rows; i++) {
        ptrdiff_t at = (n * outputs_of(conv) + first + i) * pixels;
        const struct kn_winograd_out out = {
            .m = m + i * job->layout.room,
            .residual = job->residual ? job->residual + at : NULL,
            .y = job->y + at,
            .point_stride = job->layout.m_point,
            .bias = bias[i],
            .low = job->low,
            .high = job->high,
        };
        (job->narrow ? simd->winograd_out_narrow : simd->winograd_out)(&tiles, &out);
        if (!job->bounds)
            activate_tiles(conv, &tiles, job->y + at);
    }
}

/* Output channels [first, first + rows), at most ROWS, of a block whose input is in v. */
static void multiply_channels(const struct winograd_job *job, int block, ptrdiff_t first,
                              ptrdiff_t rows, float *v, float *m) {
    static const float no_bias[ROWS];
    const struct layout *l = &job->layout;
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ic = inputs_of(conv), group = block / l->blocks % conv->group;
    struct kn_block product = {
        .rows = rows,
        .cols = tiles_of(job, block).count,
        .depth = ic,
        .a = job->packed + l->bias + group * l->w_group + first * ic,
        .b = v,
        .a_stride = job->plan->simd->panel_rows * ic,
        .b_stride = l->v_strip,
        .y = m,
        .ldy = l->room,
        .bias = no_bias,
        .low = -INFINITY,
        .high = INFINITY,
    };

    for (int p = 0; p < l->points; p++) {
        job->plan->simd->multiply_block(&product);
        product.a += l->w_point;
        product.b += l->v_point;
        product.y += l->m_point;
    }
    finish_channels(job, block, first, rows, m);
}

static void block_task(void *arg, int block, int thread) {
    const struct winograd_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    float *v = scratch_of(job, thread), *m = v + job->layout.v;

    transform_channels(job, block, 0, inputs_of(conv), v, m + job->layout.m);
    for (ptrdiff_t oc = 0; oc < outputs_of(conv); oc += ROWS)
        multiply_channels(job, block, oc, kn_min(ROWS, outputs_of(conv) - oc), v, m);
}

static void transform_task(void *arg, int task, int thread) {
    const struct winograd_job *job = arg;
    const struct layout *l = &job->layout;
    ptrdiff_t first = (ptrdiff_t)task * CHANNELS;

    transform_channels(job, job->shared, first,
                       kn_min(first + CHANNELS, inputs_of(&job->plan->conv)), scratch_of(job, 0),
                       scratch_of(job, thread) + l->v + l->m);
}

static void multiply_task(void *arg, int task, int thread) {
    const struct winograd_job *job = arg;
    ptrdiff_t first = (ptrdiff_t)task * ROWS_SHARED;
    ptrdiff_t left = outputs_of(&job->plan->conv) - first;

    multiply_channels(job, job->shared, first, kn_min(ROWS_SHARED, left), scratch_of(job, 0),
                      scratch_of(job, thread) + job->layout.v);
}

static void winograd_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                         const float *residual, float *y, void *workspace,
                         struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct winograd_job job = {.plan = plan,
                               .packed = packed,
                               .x = x,
                               .residual = residual,
                               .y = y,
                               .workspace = workspace,
                               .layout = layout_of(plan)};

    job.bounds = kn_act_bounds(&conv->act, &job.low, &job.high);
    job.narrow = 2 * job.layout.across <= plan->simd->lanes;
    int blocks = (int)(conv->n * conv->group * job.layout.blocks),
        count = kn_threads_count(threads);
    int own = blocks >= MANY * count ? blocks : blocks - blocks % count;

    kn_parallel(threads, own, block_task, &job);
    for (job.shared = own; job.shared < blocks; job.shared++) {
        kn_parallel(threads, (int)kn_ceil_div(inputs_of(conv), CHANNELS), transform_task, &job);
        kn_parallel(threads, (int)kn_ceil_div(outputs_of(conv), ROWS_SHARED), multiply_task, &job);
    }
}

const struct kn_conv_algo kn_conv_winograd = {
    .name = "winograd",
    .fits = winograd_fits,
    .size = winograd_size,
    .pack = winograd_pack,
    .run = winograd_run,
};
