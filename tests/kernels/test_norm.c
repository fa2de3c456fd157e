#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static void scale_shift_agrees_with_its_definition(void **state) {
    struct rng rng = {.state = 41};
    const struct kn_activation relu = {KN_ACT_RELU, 0, 0};

    (void)state;
    for (int round = 0; round < 200; round++) {
        int n = rng_int(&rng, 1, 3), c = rng_int(&rng, 1, 9);
        size_t inner = (size_t)rng_int(&rng, 1, round % 20 == 0 ? 5000 : 60);
        size_t count = (size_t)(n * c) * inner;
        struct guarded x = guarded_floats(&rng, count), y = guarded_new(count * sizeof(float));
        struct guarded scale = guarded_floats(&rng, (size_t)c);
        struct guarded shift = guarded_floats(&rng, (size_t)c);
        struct guarded want = guarded_new(count * sizeof(float));
        bool act = rng_chance(&rng, 50);
        for (size_t i = 0; i < count; i++) {
            size_t k = i / inner % (size_t)c;
            float v = ((float *)x.data)[i] * ((float *)scale.data)[k] + ((float *)shift.data)[k];
            ((float *)want.data)[i] = act && v < 0.0f ? 0.0f : v;
        }
        kn_scale_shift(n, c, inner, scale.data, shift.data, act ? &relu : NULL, x.data, y.data,
                       check_pool(round % POOLS));
        check_bytes(y.data, want.data, count * sizeof(float), "scale_shift");
        kn_scale_shift(n, c, inner, scale.data, shift.data, act ? &relu : NULL, x.data, x.data,
                       check_pool(round % POOLS));
        check_bytes(x.data, want.data, count * sizeof(float), "scale_shift in place");
        struct guarded *all[] = {&x, &y, &scale, &shift, &want};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            guarded_free(all[i], "scale_shift");
    }
}

static void lrn_agrees_with_the_reference(void **state) {
    struct rng rng = {.state = 42};
    const struct tolerance tolerance = {.units = 16.0};
    char text[96];

    (void)state;
    for (int round = 0; round < 300; round++) {
        int n = rng_int(&rng, 1, 2), c = rng_int(&rng, 1, 14), size = rng_int(&rng, 1, 8);
        size_t inner = (size_t)rng_int(&rng, 1, round % 20 == 0 ? 1500 : 50);
        size_t count = (size_t)(n * c) * inner;
        float alpha = fabsf(rng_float(&rng)), beta = rng_chance(&rng, 50) ? 0.75f : 0.6f;
        struct guarded x = guarded_floats(&rng, count), want = guarded_new(count * sizeof(float));
        snprintf(text, sizeof(text), "lrn n %d c %d inner %zu size %d", n, c, inner, size);
        kn_lrn_ref(n, c, inner, size, alpha, beta, 1.0f, x.data, want.data);
        for (int i = 0; i < POOLS; i++) {
            struct guarded y = guarded_new(count * sizeof(float));
            kn_lrn(n, c, inner, size, alpha, beta, 1.0f, x.data, y.data, check_pool(i));
            check_floats(y.data, want.data, count, &tolerance, text);
            guarded_free(&y, text);
        }
        guarded_free(&x, text);
        guarded_free(&want, text);
    }
}

/* ONNX: from c - floor((size - 1) / 2) to c + ceil((size - 1) / 2). With size 2 that is c and c
 * + 1. */
static void an_even_window_leans_to_the_next_channel(void **state) {
    const float x[] = {1, 2, 3}, want[] = {1.0f / 6, 2.0f / 14, 3.0f / 10};
    const struct tolerance tolerance = {.units = 2.0};
    float y[3];

    (void)state;
    kn_lrn(1, 3, 1, 2, 2.0f, 1.0f, 1.0f, x, y, NULL);
    check_floats(y, want, 3, &tolerance, "lrn of size 2");
}

static void softmax_agrees_with_the_reference(void **state) {
    struct rng rng = {.state = 43};
    char text[96];

    (void)state;
    for (int round = 0; round < 600; round++) {
        enum kn_softmax_kind kind = (enum kn_softmax_kind)(round % 3);
        size_t outer = (size_t)rng_int(&rng, 1, 4), inner = (size_t)rng_int(&rng, 1, 3);
        size_t axis = (size_t)rng_int(&rng, 1, round % 10 == 0 ? 1500 : 30);
        size_t count = outer * axis * inner;
        struct tolerance tolerance = {.units = 8.0 + (double)axis / 8.0, .least = 1.0};
        struct guarded x = guarded_floats(&rng, count), y = guarded_new(count * sizeof(float));
        struct guarded want = guarded_new(count * sizeof(float));
        if (kind == KN_SOFTMAX)
            tolerance.least = 1e-3;
        for (size_t i = 0; i < count; i++)
            ((float *)x.data)[i] *= round % 2 ? 50.0f : 3.0f;
        snprintf(text, sizeof(text), "softmax %d [%zu][%zu][%zu]", (int)kind, outer, axis, inner);
        kn_softmax_ref(kind, outer, axis, inner, x.data, want.data);
        kn_softmax(kind, outer, axis, inner, x.data, y.data);
        check_floats(y.data, want.data, count, &tolerance, text);
        kn_softmax(kind, outer, axis, inner, x.data, x.data);
        check_bytes(x.data, y.data, count * sizeof(float), text);
        guarded_free(&x, text);
        guarded_free(&y, text);
        guarded_free(&want, text);
    }
}

static void softmax_survives_large_numbers(void **state) {
    const float x[] = {1e30f, 1e30f, -1e30f, -INFINITY};
    float y[4];

    (void)state;
    kn_softmax(KN_SOFTMAX, 1, 4, 1, x, y);
    assert_true(y[0] == 0.5f && y[1] == 0.5f && y[2] == 0.0f && y[3] == 0.0f);
    kn_softmax(KN_HARDMAX, 1, 4, 1, x, y);
    assert_true(y[0] == 1.0f && y[1] == 0.0f && y[2] == 0.0f && y[3] == 0.0f);
}

static void standardized_rows_agree_with_their_definition(void **state) {
    struct rng rng = {.state = 55};
    const struct tolerance tolerance = {.units = 64.0, .least = 1.0};

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct kn_standardize s = {.rows = (size_t)rng_int(&rng, 1, round % 50 ? 9 : 2000),
                                   .epsilon = 1e-5f};
        size_t parts = (size_t)rng_int(&rng, 1, 4), area = (size_t)rng_int(&rng, 1, 40);
        /* Layers; channels; groups with scales of channels; groups with their own. */
        s.count = round % 4 == 0 || round % 4 == 1 ? area : parts * area;
        s.inner = round % 4 == 0 ? 1 : round % 4 == 3 ? s.count : area;
        s.channels = round % 4 == 0 ? area : s.rows * s.count / s.inner;
        char text[96];
        snprintf(text, sizeof(text), "standardize [%zu][%zu] inner %zu channels %zu", s.rows,
                 s.count, s.inner, s.channels);
        struct guarded x = guarded_floats(&rng, s.rows * s.count);
        struct guarded scale = guarded_floats(&rng, s.channels);
        struct guarded bias = guarded_floats(&rng, s.channels);
        struct guarded want = guarded_new(x.bytes), mean = guarded_new(s.rows * sizeof(float));
        struct guarded inverse = guarded_new(mean.bytes);
        const float *b = rng_chance(&rng, 70) ? bias.data : NULL;
        kn_standardize_ref(&s, scale.data, b, x.data, want.data, mean.data, inverse.data);
        for (int i = 0; i < POOLS; i++) {
            struct guarded y = guarded_new(x.bytes), m = guarded_new(mean.bytes);
            struct guarded inv = guarded_new(mean.bytes);
            kn_standardize(&s, scale.data, b, x.data, y.data, m.data, inv.data, check_pool(i));
            /* A row of one element has no variance: everything is multiplied by 316. */
            const struct tolerance rough = {.units = s.count < 3 ? 1e4 : 64.0, .least = 1.0};
            check_floats(y.data, want.data, s.rows * s.count, &rough, text);
            check_floats(m.data, mean.data, s.rows, &tolerance, text);
            check_floats(inv.data, inverse.data, s.rows, &tolerance, text);
            guarded_free(&y, text);
            guarded_free(&m, text);
            guarded_free(&inv, text);
        }
        kn_standardize(&s, scale.data, b, x.data, x.data, NULL, NULL, NULL);
        const struct tolerance rough = {.units = s.count < 3 ? 1e4 : 64.0, .least = 1.0};
        check_floats(x.data, want.data, s.rows * s.count, &rough, text);
        guarded_free(&x, text);
        guarded_free(&scale, text);
        guarded_free(&bias, text);
        guarded_free(&want, text);
        guarded_free(&mean, text);
        guarded_free(&inverse, text);
    }
}

static void normalized_lines_have_length_one(void **state) {
    struct rng rng = {.state = 56};
    const struct tolerance tolerance = {.units = 8.0, .least = 1e-3};

    (void)state;
    for (int round = 0; round < 200; round++) {
        size_t outer = (size_t)rng_int(&rng, 1, 3), axis = (size_t)rng_int(&rng, 1, 20);
        size_t inner = (size_t)rng_int(&rng, 1, round % 20 ? 5 : 600), count = outer * axis * inner;
        int p = rng_int(&rng, 1, 2);
        struct guarded x = guarded_floats(&rng, count), y = guarded_new(count * sizeof(float));
        struct guarded want = guarded_new(count * sizeof(float));
        const float *from = x.data;
        for (size_t i = 0; i < count; i++) {
            size_t line = i / (axis * inner) * axis * inner + i % inner;
            double norm = 0.0;
            for (size_t a = 0; a < axis; a++) {
                double v = fabs((double)from[line + a * inner]);
                norm += p == 1 ? v : v * v;
            }
            ((float *)want.data)[i] = (float)((double)from[i] / (p == 1 ? norm : sqrt(norm)));
        }
        kn_lp_normalize(outer, axis, inner, p, x.data, y.data);
        check_floats(y.data, want.data, count, &tolerance, "normalized");
        guarded_free(&x, "x");
        guarded_free(&y, "normalized");
        guarded_free(&want, "definition");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_shift_agrees_with_its_definition),
        cmocka_unit_test(lrn_agrees_with_the_reference),
        cmocka_unit_test(an_even_window_leans_to_the_next_channel),
        cmocka_unit_test(softmax_agrees_with_the_reference),
        cmocka_unit_test(softmax_survives_large_numbers),
        cmocka_unit_test(standardized_rows_agree_with_their_definition),
        cmocka_unit_test(normalized_lines_have_length_one),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
