#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static struct kn_conv random_conv(struct rng *rng) {
    struct kn_conv c = {
        .n = rng_int(rng, 1, 3),
        .ih = rng_int(rng, 1, 9),
        .iw = rng_int(rng, 1, 11),
        .kh = rng_int(rng, 1, 4),
        .kw = rng_int(rng, 1, 4),
        .stride_h = rng_int(rng, 1, 3),
        .stride_w = rng_int(rng, 1, 3),
        .dil_h = rng_int(rng, 1, 2),
        .dil_w = rng_int(rng, 1, 2),
        .pad_top = rng_int(rng, -1, 2),
        .pad_left = rng_int(rng, -1, 2),
        .group = rng_chance(rng, 60) ? 1 : rng_int(rng, 2, 4),
        .act = {rng_chance(rng, 50) ? KN_ACT_RELU : KN_ACT_NONE, 0.0f, 0.0f},
    };

    c.ic = c.group * rng_int(rng, 1, 5);
    c.oc = c.group * rng_int(rng, 1, 30);
    /* output_padding and the far pads are in oh and ow. */
    c.oh = (c.ih - 1) * c.stride_h + (c.kh - 1) * c.dil_h + 1 - c.pad_top + rng_int(rng, -2, 2);
    c.ow = (c.iw - 1) * c.stride_w + (c.kw - 1) * c.dil_w + 1 - c.pad_left + rng_int(rng, -2, 2);
    c.oh = c.oh < 1 ? 1 : c.oh;
    c.ow = c.ow < 1 ? 1 : c.ow;
    return c;
}

static void check_transpose(struct rng *rng, const struct kn_conv *c) {
    size_t x_count = (size_t)c->n * (size_t)c->ic * (size_t)c->ih * (size_t)c->iw;
    size_t y_count = (size_t)c->n * (size_t)c->oc * (size_t)c->oh * (size_t)c->ow;
    size_t w_count = (size_t)c->ic * (size_t)(c->oc / c->group) * (size_t)c->kh * (size_t)c->kw;
    struct guarded x = guarded_floats(rng, x_count), w = guarded_floats(rng, w_count);
    struct guarded bias = guarded_floats(rng, (size_t)c->oc);
    struct guarded want = guarded_new(y_count * sizeof(float));
    struct guarded first = guarded_new(y_count * sizeof(float));
    const float *b = rng_chance(rng, 50) ? bias.data : NULL;
    struct tolerance tolerance = {.units = 4.0 + c->ic * c->kh * c->kw, .least = 1.0};
    char text[160];

    snprintf(text, sizeof(text), "conv_transpose n %d x %dx%dx%d y %dx%dx%d k %dx%d group %d", c->n,
             c->ic, c->ih, c->iw, c->oc, c->oh, c->ow, c->kh, c->kw, c->group);
    kn_conv_transpose_ref(c, w.data, b, x.data, want.data);
    for (int i = 0; i < POOLS; i++) {
        struct guarded y = guarded_new(y_count * sizeof(float));
        struct guarded workspace = guarded_new(kn_conv_transpose_workspace(c));
        kn_conv_transpose(c, w.data, b, x.data, i == 0 ? first.data : y.data, workspace.data,
                          check_pool(i));
        if (i > 0)
            check_bytes(y.data, first.data, first.bytes, text);
        guarded_free(&workspace, text);
        guarded_free(&y, text);
    }
    check_floats(first.data, want.data, y_count, &tolerance, text);
    guarded_free(&x, text);
    guarded_free(&w, text);
    guarded_free(&bias, text);
    guarded_free(&want, text);
    guarded_free(&first, text);
}

static void random_transposes_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 11};

    (void)state;
    for (int i = 0; i < 500; i++) {
        struct kn_conv c = random_conv(&rng);
        check_transpose(&rng, &c);
    }
}

/* A 1 x 1 input shows the kernel itself. */
static void one_pixel_spreads_the_kernel(void **state) {
    const struct kn_conv c = {.n = 1,
                              .ic = 1,
                              .ih = 1,
                              .iw = 1,
                              .oc = 1,
                              .oh = 2,
                              .ow = 3,
                              .kh = 2,
                              .kw = 3,
                              .stride_h = 2,
                              .stride_w = 2,
                              .dil_h = 1,
                              .dil_w = 1,
                              .group = 1};
    const float w[] = {1, 2, 3, 4, 5, 6}, want[] = {3, 5, 7, 9, 11, 13}, bias = 1, x = 2;
    struct guarded workspace = guarded_new(kn_conv_transpose_workspace(&c));
    float y[6];

    (void)state;
    kn_conv_transpose(&c, w, &bias, &x, y, workspace.data, NULL);
    assert_memory_equal(y, want, sizeof(want));
    guarded_free(&workspace, "workspace");
}

static void a_workspace_that_does_not_fit_cannot_be_allocated(void **state) {
    const struct kn_conv c = {.n = 1,
                              .ic = 1,
                              .ih = 40000,
                              .iw = 40000,
                              .oc = 300000,
                              .oh = 80000,
                              .ow = 80000,
                              .kh = 100,
                              .kw = 100,
                              .stride_h = 2,
                              .stride_w = 2,
                              .dil_h = 1,
                              .dil_w = 1,
                              .group = 1};
    struct kn_conv wider = c;

    (void)state;
    assert_true(kn_conv_transpose_workspace(&c) > SIZE_MAX / 4);
    wider.iw = 60000;
    assert_true(kn_conv_transpose_workspace(&wider) > SIZE_MAX / 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_transposes_agree_with_the_reference),
        cmocka_unit_test(one_pixel_spreads_the_kernel),
        cmocka_unit_test(a_workspace_that_does_not_fit_cannot_be_allocated),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
