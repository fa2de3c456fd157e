#include <math.h>

#include "internal.h"

#define CHUNK 16384 /* elements of one task */

typedef void (*act_fn)(const float *x, float *y, ptrdiff_t count, float a, float b);

/* One loop per activation: v is the element. Comparisons are written so that NaN stays NaN. */
#define ACT(name, expr)                                                                            \
    static KN_CLONES void act_##name(const float *x, float *y, ptrdiff_t count, float a,           \
                                     float b) {                                                    \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        KN_IVDEP                                                                                   \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            float v = x[i];                                                                        \
            y[i] = (expr);                                                                         \
        }                                                                                          \
    }

static inline float at_least(float v, float low) {
    return v < low ? low : v;
}

static inline float at_most(float v, float high) {
    return v > high ? high : v;
}

static inline float leaky(float v, float a) {
    float scaled = a * v;
    return v < 0.0f ? scaled : v;
}

static inline float sigmoid(float v) {
    return 1.0f / (1.0f + expf(-v));
}

static inline float elu(float v, float a) {
    return v < 0.0f ? a * expm1f(v) : v;
}

static inline float softplus(float v) {
    return at_least(v, 0.0f) + log1pf(expf(-fabsf(v)));
}

static inline float hard_swish(float v) {
    return v * at_least(at_most(v / 6.0f + 0.5f, 1.0f), 0.0f);
}

/* v * gate(v) where the gate closes faster than v falls: 0 at -infinity, not infinity * 0. */
static inline float gated(float v, float gate) {
    return v == -INFINITY ? 0.0f : v * gate;
}

static inline float softsign(float v) {
    return isinf(v) ? copysignf(1.0f, v) : v / (1.0f + fabsf(v));
}

ACT(relu, at_least(v, 0.0f))
ACT(clip, at_most(at_least(v, a), b))
ACT(leaky_relu, leaky(v, a))
ACT(sigmoid, sigmoid(v))
ACT(tanh, tanhf(v))
ACT(hard_sigmoid, at_least(at_most(a *v + b, 1.0f), 0.0f))
ACT(hard_swish, v < -3.0f ? -0.0f : hard_swish(v))
ACT(silu, gated(v, sigmoid(v)))
ACT(elu, elu(v, a))
ACT(selu, b *elu(v, a))
ACT(celu, at_least(v, 0.0f) + at_most(a * expm1f(v / a), 0.0f))
ACT(softplus, softplus(v))
ACT(softsign, softsign(v))
ACT(thresholded_relu, v > a ? v : 0.0f)
ACT(erf, erff(v))
ACT(mish, gated(v, tanhf(softplus(v))))
ACT(gelu, gated(v, 0.5f * (1.0f + erff(v * 0.70710678f))))

static const act_fn acts[KN_ACT_COUNT] = {
    [KN_ACT_RELU] = act_relu,
    [KN_ACT_CLIP] = act_clip,
    [KN_ACT_LEAKY_RELU] = act_leaky_relu,
    [KN_ACT_SIGMOID] = act_sigmoid,
    [KN_ACT_TANH] = act_tanh,
    [KN_ACT_HARD_SIGMOID] = act_hard_sigmoid,
    [KN_ACT_HARD_SWISH] = act_hard_swish,
    [KN_ACT_SILU] = act_silu,
    [KN_ACT_ELU] = act_elu,
    [KN_ACT_SELU] = act_selu,
    [KN_ACT_CELU] = act_celu,
    [KN_ACT_SOFTPLUS] = act_softplus,
    [KN_ACT_SOFTSIGN] = act_softsign,
    [KN_ACT_THRESHOLDED_RELU] = act_thresholded_relu,
    [KN_ACT_ERF] = act_erf,
    [KN_ACT_MISH] = act_mish,
    [KN_ACT_GELU] = act_gelu,
};

void kn_act_row(const struct kn_activation *act, const float *x, float *y, ptrdiff_t count) {
    if (act && act->kind != KN_ACT_NONE) {
        acts[act->kind](x, y, count, act->a, act->b);
        return;
    }
    if (y == x)
        return;
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = x[i];
}

struct activate_job {
    const struct kn_activation *act;
    const float *x;
    float *y;
    ptrdiff_t count, chunk;
};

static void activate_task(void *arg, int task, int thread) {
    const struct activate_job *job = arg;
    ptrdiff_t begin = task * job->chunk;

    (void)thread;
    kn_act_row(job->act, job->x + begin, job->y + begin, kn_min(job->chunk, job->count - begin));
}

void kn_activate(const struct kn_activation *act, const float *x, float *y, size_t count,
                 struct kn_threads *threads) {
    struct activate_job job = {.act = act, .x = x, .y = y, .count = (ptrdiff_t)count};

    job.chunk = kn_max(CHUNK, kn_ceil_div(job.count, 1024));
    kn_parallel(threads, (int)kn_ceil_div(job.count, job.chunk), activate_task, &job);
}
