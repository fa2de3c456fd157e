#include <float.h>
#include <math.h>

#include "internal.h"
#include "vexp.h"

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

/* v * gate(v) where the gate closes faster than v falls: 0 at -infinity, not infinity * 0. */
static inline float gated(float v, float gate) {
    return kn_at_least(v, -FLT_MAX) * gate;
}

/* Both sides of zero as a sum: no branch to keep a loop from vectorising. */
static inline float leaky(float v, float a) {
    return kn_at_least(v, 0.0f) + a * kn_at_most(v, 0.0f);
}

static inline float elu(float v, float a) {
    return kn_at_least(v, 0.0f) + a * (kn_exp(kn_at_most(v, 0.0f)) - 1.0f);
}

static inline float celu(float v, float a) {
    return kn_at_least(v, 0.0f) + kn_at_most(a * (kn_exp(v / a) - 1.0f), 0.0f);
}

static inline float softplus(float v) {
    return kn_at_least(v, 0.0f) + log1pf(expf(-fabsf(v)));
}

static inline float hard_sigmoid(float v, float a, float b) {
    return kn_at_least(kn_at_most(a * v + b, 1.0f), 0.0f);
}

static inline float hard_swish(float v) {
    float c = kn_at_least(v, -3.0f);

    return c * kn_at_most(c / 6.0f + 0.5f, 1.0f);
}

static inline float softsign(float v) {
    float c = kn_at_most(kn_at_least(v, -FLT_MAX), FLT_MAX);

    return c / (1.0f + fabsf(c));
}

/* tanh(log(1 + e)) = w / (w + 2) with e = exp(v) and w = e * (e + 2); 1 from v = 20 on. */
static inline float mish_gate(float v) {
    float e = kn_exp(kn_at_most(v, 20.0f)), w = e * (e + 2.0f);

    return w / (w + 2.0f);
}

ACT(relu, kn_at_least(v, 0.0f))
ACT(clip, kn_at_most(kn_at_least(v, a), b))
ACT(leaky_relu, leaky(v, a))
ACT(sigmoid, kn_sigmoid(v))
ACT(tanh, kn_tanh(v))
ACT(hard_sigmoid, hard_sigmoid(v, a, b))
ACT(hard_swish, hard_swish(v))
ACT(silu, gated(v, kn_sigmoid(v)))
ACT(elu, elu(v, a))
ACT(selu, b *elu(v, a))
ACT(celu, celu(v, a))
ACT(softplus, softplus(v))
ACT(softsign, softsign(v))
ACT(thresholded_relu, v > a ? v : 0.0f)
ACT(erf, erff(v))
ACT(mish, gated(v, mish_gate(v)))
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
