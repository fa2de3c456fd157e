/* Activations of rows: a loop for each kind. */
#include "act.h"
#include "functions.h"

/* Whole vectors, then one that is filled up with zeros; row by row. */
#define ROWS(name)                                                                                 \
    static void rows_##name(const struct kn_act_rows *rows, float a, float b) {                    \
        const float *x = rows->x;                                                                  \
        float *y = rows->y;                                                                        \
        ptrdiff_t count = rows->count;                                                             \
                                                                                                   \
        for (ptrdiff_t r = rows->rows; r > 0; r--, x += rows->ld, y += rows->ld) {                 \
            ptrdiff_t i = 0;                                                                       \
            for (; i + VF_LANES <= count; i += VF_LANES)                                           \
                vf_store(y + i, vf_act_##name(vf_load(x + i), a, b));                              \
            if (i < count)                                                                         \
                vf_store_n(y + i, vf_act_##name(vf_load_n(x + i, count - i), a, b), count - i);    \
        }                                                                                          \
    }

ROWS(none)
ROWS(relu)
ROWS(clip)
ROWS(leaky_relu)
ROWS(sigmoid)
ROWS(tanh)
ROWS(hard_sigmoid)
ROWS(hard_swish)
ROWS(silu)
ROWS(elu)
ROWS(selu)
ROWS(celu)
ROWS(softplus)
ROWS(softsign)
ROWS(thresholded_relu)
ROWS(erf)
ROWS(mish)
ROWS(gelu)
ROWS(gelu_tanh)

void KN_SIMD(kn_act_rows)(const struct kn_activation *act, const struct kn_act_rows *rows) {
    static void (*const of[KN_ACT_COUNT])(const struct kn_act_rows *, float, float) = {
        [KN_ACT_NONE] = rows_none,
        [KN_ACT_RELU] = rows_relu,
        [KN_ACT_CLIP] = rows_clip,
        [KN_ACT_LEAKY_RELU] = rows_leaky_relu,
        [KN_ACT_SIGMOID] = rows_sigmoid,
        [KN_ACT_TANH] = rows_tanh,
        [KN_ACT_HARD_SIGMOID] = rows_hard_sigmoid,
        [KN_ACT_HARD_SWISH] = rows_hard_swish,
        [KN_ACT_SILU] = rows_silu,
        [KN_ACT_ELU] = rows_elu,
        [KN_ACT_SELU] = rows_selu,
        [KN_ACT_CELU] = rows_celu,
        [KN_ACT_SOFTPLUS] = rows_softplus,
        [KN_ACT_SOFTSIGN] = rows_softsign,
        [KN_ACT_THRESHOLDED_RELU] = rows_thresholded_relu,
        [KN_ACT_ERF] = rows_erf,
        [KN_ACT_MISH] = rows_mish,
        [KN_ACT_GELU] = rows_gelu,
        [KN_ACT_GELU_TANH] = rows_gelu_tanh,
    };

    of[act->kind](rows, act->a, act->b);
}
