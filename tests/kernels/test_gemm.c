#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static void check_gemm(struct rng *rng, const struct kn_gemm *g, bool with_c) {
    size_t m = (size_t)g->m, n = (size_t)g->n, k = (size_t)g->k;
    struct kn_gemm plain = *g;
    struct guarded a = guarded_floats(rng, m * k), b = guarded_floats(rng, k * n);
    struct guarded c = guarded_floats(rng, m * n);
    struct guarded abs_a = guarded_magnitude(&a), abs_b = guarded_magnitude(&b);
    struct guarded abs_c = guarded_magnitude(&c);
    struct guarded want = guarded_new(m * n * sizeof(float));
    struct guarded magnitude = guarded_new(m * n * sizeof(float));
    char text[160];

    snprintf(text, sizeof(text), "gemm m %d n %d k %d trans %d %d c %d strides %d %d act %d", g->m,
             g->n, g->k, g->trans_a, g->trans_b, with_c, g->c_stride_m, g->c_stride_n,
             (int)g->act.kind);
    kn_gemm_ref(g, a.data, b.data, with_c ? c.data : NULL, want.data);
    plain.act.kind = KN_ACT_NONE;
    plain.alpha = fabsf(g->alpha);
    plain.beta = fabsf(g->beta);
    kn_gemm_ref(&plain, abs_a.data, abs_b.data, with_c ? abs_c.data : NULL, magnitude.data);
    struct tolerance tolerance = {
        .units = 2.0 * (4.0 + sqrt((double)k)), .magnitude = magnitude.data, .least = 1e-6};
    for (int level = kn_simd_count() - 1; level >= 0; level--) {
        struct guarded first = guarded_new(m * n * sizeof(float));
        kn_simd_use(level);
        kn_gemm(g, a.data, b.data, with_c ? c.data : NULL, first.data, NULL);
        check_floats(first.data, want.data, m * n, &tolerance, text);
        for (int i = 1; i < POOLS; i++) {
            struct guarded y = guarded_new(m * n * sizeof(float));
            kn_gemm(g, a.data, b.data, with_c ? c.data : NULL, y.data, check_pool(i));
            check_bytes(y.data, first.data, first.bytes, text);
            guarded_free(&y, text);
        }
        guarded_free(&first, text);
    }
    struct guarded *all[] = {&a, &b, &c, &abs_a, &abs_b, &abs_c, &want, &magnitude};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        guarded_free(all[i], text);
}

/* c as Gemm broadcasts it: a scalar, a row, a column, a matrix. */
static void random_c(struct rng *rng, struct kn_gemm *g) {
    const int strides[][2] = {{0, 0}, {0, 1}, {1, 0}, {g->n, 1}};
    int i = rng_int(rng, 0, 3);

    g->c_stride_m = strides[i][0];
    g->c_stride_n = strides[i][1];
}

static void random_products_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 21};

    (void)state;
    for (int i = 0; i < 800; i++) {
        struct kn_gemm g = {
            .m = rng_chance(&rng, 30) ? 1 : rng_int(&rng, 1, 40),
            .n = rng_chance(&rng, 30) ? 1 : rng_int(&rng, 1, 60),
            .k = rng_int(&rng, 0, 70),
            .trans_a = rng_chance(&rng, 50),
            .trans_b = rng_chance(&rng, 50),
            .alpha = rng_chance(&rng, 50) ? 1.0f : rng_float(&rng),
            .beta = rng_chance(&rng, 50) ? 1.0f : rng_float(&rng),
            .act = {rng_chance(&rng, 30) ? KN_ACT_RELU : KN_ACT_NONE, 0.0f, 0.0f},
        };
        random_c(&rng, &g);
        check_gemm(&rng, &g, rng_chance(&rng, 70));
    }
}

static void products_of_several_blocks_agree_with_the_reference(void **state) {
    static const int shapes[][3] = {{1, 1003, 517},  {1003, 1, 517}, {130, 700, 65},
                                    {257, 129, 400}, {1, 2100, 33},  {3, 1025, 20}};
    struct rng rng = {.state = 22};

    (void)state;
    for (int i = 0; i < 24; i++) {
        const int *shape = shapes[i / 4];
        struct kn_gemm g = {.m = shape[0],
                            .n = shape[1],
                            .k = shape[2],
                            .trans_a = i % 2 != 0,
                            .trans_b = i / 2 % 2 != 0,
                            .alpha = 1.0f,
                            .beta = 1.0f};
        random_c(&rng, &g);
        check_gemm(&rng, &g, true);
    }
}

static void a_row_is_the_same_bits_at_any_address(void **state) {
    struct rng rng = {.state = 23};
    struct kn_gemm g = {.m = 1, .n = 77, .k = 123, .alpha = 1.0f};

    (void)state;
    for (int trans = 0; trans < 2; trans++) {
        struct guarded a = guarded_floats(&rng, 123 + 16), b = guarded_floats(&rng, 77 * 123);
        float first[77], y[77], *x = a.data;
        g.trans_b = trans != 0;
        kn_gemm(&g, x, b.data, NULL, first, NULL);
        for (int shift = 1; shift < 16; shift++) {
            for (int i = 122; i >= 0; i--)
                x[i + shift] = x[i + shift - 1];
            kn_gemm(&g, x + shift, b.data, NULL, y, NULL);
            check_bytes(y, first, sizeof(y), "shifted row");
        }
        guarded_free(&a, "a");
        guarded_free(&b, "b");
    }
}

/* Cuts move tensors about in memory: that must not show in the numbers. */
static void products_are_the_same_bits_at_any_address(void **state) {
    static const int shapes[][3] = {{5, 7, 9}, {16, 49, 576}, {64, 196, 128}, {130, 33, 300}};
    struct rng rng = {.state = 24};

    (void)state;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        struct kn_gemm g = {.m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2], .alpha = 1.0f};
        size_t a_count = (size_t)(g.m * g.k), b_count = (size_t)(g.k * g.n);
        size_t bytes = (size_t)(g.m * g.n) * sizeof(float);
        struct guarded a = guarded_floats(&rng, a_count), b = guarded_floats(&rng, b_count);
        struct guarded first = guarded_new(bytes);
        kn_gemm(&g, a.data, b.data, NULL, first.data, NULL);
        for (size_t shift = 1; shift < 16; shift += 2) {
            struct guarded a2 = guarded_new((a_count + 32) * sizeof(float));
            struct guarded b2 = guarded_new((b_count + 32) * sizeof(float));
            struct guarded y = guarded_new(bytes + 16 * sizeof(float));
            float *y2 = (float *)y.data + shift;
            memcpy((float *)a2.data + shift, a.data, a_count * sizeof(float));
            memcpy((float *)b2.data + 16 - shift, b.data, b_count * sizeof(float));
            kn_gemm(&g, (float *)a2.data + shift, (float *)b2.data + 16 - shift, NULL, y2, NULL);
            check_bytes(y2, first.data, bytes, "shifted matrices");
            guarded_free(&a2, "a");
            guarded_free(&b2, "b");
            guarded_free(&y, "y");
        }
        guarded_free(&a, "a");
        guarded_free(&b, "b");
        guarded_free(&first, "y");
    }
}

static void a_product_without_terms_is_the_addend(void **state) {
    const struct kn_gemm g = {.m = 1, .n = 2, .alpha = 1.0f, .beta = 2.0f, .c_stride_n = 1};
    const float c[] = {3, 4};
    float y[2] = {NAN, NAN};

    (void)state;
    kn_gemm(&g, c, c, c, y, NULL);
    assert_true(y[0] == 6.0f && y[1] == 8.0f);
    kn_gemm(&g, c, c, NULL, y, NULL);
    assert_true(y[0] == 0.0f && y[1] == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_products_agree_with_the_reference),
        cmocka_unit_test(products_of_several_blocks_agree_with_the_reference),
        cmocka_unit_test(a_row_is_the_same_bits_at_any_address),
        cmocka_unit_test(products_are_the_same_bits_at_any_address),
        cmocka_unit_test(a_product_without_terms_is_the_addend),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
