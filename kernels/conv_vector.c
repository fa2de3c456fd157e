/* The window is the whole picture: a product of the weights with one vector per image. Weights are
 * packed into panels of rows side by side, [depth][rows], and read once, along memory. */
#include <errno.h>

#include "conv_internal.h"
#include "packed.h"

#define TASK_PRODUCTS 65536 /* of one task, at least: less is not worth waking a thread */

static bool vector_fits(const struct kn_conv *conv) {
    return conv->group == 1 && conv->oh == 1 && conv->ow == 1 && conv->kh == conv->ih &&
           conv->kw == conv->iw && conv->pad_top == 0 && conv->pad_left == 0 &&
           (conv->kh == 1 || conv->dil_h == 1) && (conv->kw == 1 || conv->dil_w == 1);
}

static ptrdiff_t depth_of(const struct kn_conv *conv) {
    return (ptrdiff_t)conv->ic * conv->kh * conv->kw;
}

static ptrdiff_t rows_of_panel(const struct kn_conv_plan *plan) {
    return (ptrdiff_t)plan->simd->lanes * KN_PANEL_VECTORS;
}

/* Output channels, filled up to whole vectors. */
static ptrdiff_t padded_rows(const struct kn_conv_plan *plan) {
    ptrdiff_t lanes = plan->simd->lanes;

    return kn_ceil_div(plan->conv.oc, lanes) * lanes;
}

/* Packed: biases, padded to KN_ALIGN, then the panels. */
static ptrdiff_t panels_at(const struct kn_conv_plan *plan) {
    return kn_ceil_div(padded_rows(plan), KN_ALIGN) * KN_ALIGN;
}

static int vector_size(struct kn_conv_plan *plan) {
    size_t floats;

    plan->panel = (int)rows_of_panel(plan);
    if (__builtin_mul_overflow((size_t)padded_rows(plan), (size_t)depth_of(&plan->conv), &floats) ||
        floats > PTRDIFF_MAX / 8)
        return -EOVERFLOW;
    plan->packed_bytes = ((size_t)panels_at(plan) + floats) * sizeof(float);
    plan->workspace_bytes = 0;
    return 0;
}

static void vector_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                        void *packed) {
    const struct kn_rows all = {.w = weights->w,
                                .scale = weights->scale,
                                .count = weights->rows,
                                .depth = depth_of(&plan->conv)};
    ptrdiff_t left = padded_rows(plan) - weights->first;
    float *to = (float *)packed + panels_at(plan) + weights->first * all.depth;

    kn_conv_pack_bias(plan, weights, (size_t)panels_at(plan), packed);
    for (ptrdiff_t first = 0; first < all.count; first += plan->panel) {
        struct kn_rows rows = kn_rows_part(&all, first, plan->panel);
        ptrdiff_t height = kn_min(plan->panel, left - first);
        plan->simd->pack_panel(&rows, height, to);
        to += height * all.depth;
    }
}

struct vector_job {
    const struct kn_conv_plan *plan;
    const float *packed, *x, *residual;
    float *y;
    ptrdiff_t panels, panels_per_task, tasks_per_image;
};

static void run_panel(const struct vector_job *job, ptrdiff_t n, ptrdiff_t number) {
    const struct kn_conv_plan *plan = job->plan;
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t first = number * plan->panel, at = n * conv->oc + first;
    ptrdiff_t depth = depth_of(conv);
    float sums[16 * KN_PANEL_VECTORS], *y = job->y + at;
    struct kn_panel panel = {.w = job->packed + panels_at(plan) + first * depth,
                             .bias = job->packed + first,
                             .x = job->x + n * depth,
                             .y = job->residual ? sums : y,
                             .rows = kn_min(plan->panel, conv->oc - first),
                             .depth = depth};

    plan->simd->panel_times(&panel);
    for (ptrdiff_t i = 0; job->residual && i < panel.rows; i++)
        y[i] = sums[i] + job->residual[at + i];
    kn_act_row(&conv->act, y, y, panel.rows);
}

static void vector_task(void *arg, int task, int thread) {
    const struct vector_job *job = arg;
    ptrdiff_t n = task / job->tasks_per_image;
    ptrdiff_t panel = task % job->tasks_per_image * job->panels_per_task;
    ptrdiff_t end = kn_min(panel + job->panels_per_task, job->panels);

    (void)thread;
    for (; panel < end; panel++)
        run_panel(job, n, panel);
}

static void vector_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct vector_job job = {.plan = plan, .packed = packed, .x = x, .residual = residual, .y = y};

    (void)workspace;
    job.panels = kn_ceil_div(conv->oc, plan->panel);
    job.panels_per_task = kn_max(TASK_PRODUCTS / (plan->panel * depth_of(conv)), 1);
    job.tasks_per_image = kn_ceil_div(job.panels, job.panels_per_task);
    kn_parallel(threads, (int)(conv->n * job.tasks_per_image), vector_task, &job);
}

const struct kn_conv_algo kn_conv_vector = {
    .name = "vector",
    .fits = vector_fits,
    .size = vector_size,
    .pack = vector_pack,
    .run = vector_run,
};
