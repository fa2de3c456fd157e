/* Activations of rows: a loop for each kind. */
#include "act.h"
#include "functions.h"

/* Whole vectors, then one that is filled up with zeros. */
#define ROW(name)                                                                                  \
    static void row_##name(const float *x, float *y, ptrdiff_t count, float a, float b) {          \
        ptrdiff_t i = 0;                                                                           \
                                                                                                   \
        for (; i + VF_LANES <= count; i += VF_LANES)                                               \
            vf_store(y + i, vf_act_##name(vf_load(x + i), a, b));                                  \
        if (i < count)                                                                             \
            vf_store_n(y + i, vf_act_##name(vf_load_n(x + i, count - i), a, b), count - i);        \
    }

ROW(none)
ROW(relu)
ROW(clip)
ROW(leaky_relu)
ROW(sigmoid)
ROW(tanh)
ROW(hard_sigmoid)
ROW(hard_swish)
ROW(silu)
ROW(elu)
ROW(selu)
ROW(celu)
ROW(softplus)
ROW(softsign)
ROW(thresholded_relu)
ROW(erf)
ROW(mish)
ROW(gelu)
ROW(gelu_tanh)

void KN_SIMD(kn_act_row)(const struct kn_activation *act, const float *x, float *y,
                         ptrdiff_t count) {
    static void (*const rows[KN_ACT_COUNT])(const float *, float *, ptrdiff_t, float, float) = {
        [KN_ACT_NONE] = row_none,
        [KN_ACT_RELU] = row_relu,
        [KN_ACT_CLIP] = row_clip,
        [KN_ACT_LEAKY_RELU] = row_leaky_relu,
        [KN_ACT_SIGMOID] = row_sigmoid,
        [KN_ACT_TANH] = row_tanh,
        [KN_ACT_HARD_SIGMOID] = row_hard_sigmoid,
        [KN_ACT_HARD_SWISH] = row_hard_swish,
        [KN_ACT_SILU] = row_silu,
        [KN_ACT_ELU] = row_elu,
        [KN_ACT_SELU] = row_selu,
        [KN_ACT_CELU] = row_celu,
        [KN_ACT_SOFTPLUS] = row_softplus,
        [KN_ACT_SOFTSIGN] = row_softsign,
        [KN_ACT_THRESHOLDED_RELU] = row_thresholded_relu,
        [KN_ACT_ERF] = row_erf,
        [KN_ACT_MISH] = row_mish,
        [KN_ACT_GELU] = row_gelu,
        [KN_ACT_GELU_TANH] = row_gelu_tanh,
    };

    rows[act->kind](x, y, count, act->a, act->b);
}
