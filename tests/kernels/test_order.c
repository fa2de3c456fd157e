#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static const enum kn_type types[] = {KN_FLOAT, KN_DOUBLE, KN_UINT8, KN_INT8,   KN_INT32,
                                     KN_INT64, KN_UINT16, KN_INT16, KN_UINT32, KN_UINT64};
#define TYPES (sizeof(types) / sizeof(types[0]))

static size_t size_of(enum kn_type type) {
    switch (type) {
    case KN_UINT8:
    case KN_INT8:
        return 1;
    case KN_UINT16:
    case KN_INT16:
        return 2;
    case KN_FLOAT:
    case KN_INT32:
    case KN_UINT32:
        return 4;
    default:
        return 8;
    }
}

/* Few different numbers, so that many are equal; of floats some are infinite, NaN, -0. Negative
 * ones are large in unsigned types. */
static void set(struct rng *rng, enum kn_type type, void *x, size_t i) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, -0.0, 0.0, 1e-40, -1e-40};
    int64_t small = rng_chance(rng, 5) ? INT64_MIN : rng_int(rng, -9, 9);
    double d = rng_chance(rng, 20) ? odd[rng_int(rng, 0, 6)] : (double)small / 3.0;
    bool real = type == KN_FLOAT || type == KN_DOUBLE;

    kn_cast(real ? KN_DOUBLE : KN_INT64, type, real ? (void *)&d : (void *)&small,
            (char *)x + i * size_of(type), 1);
}

/* For types that double has all numbers of. */
static double get(enum kn_type type, const void *x, size_t i) {
    double number;

    kn_cast(type, KN_DOUBLE, (const char *)x + i * size_of(type), &number, 1);
    return number;
}

/* Element a comes before element b among the largest: NaN is larger than everything. */
static bool larger(enum kn_type type, const void *x, size_t a, size_t b) {
    if (type == KN_INT64)
        return ((const int64_t *)x)[a] > ((const int64_t *)x)[b];
    if (type == KN_UINT64)
        return ((const uint64_t *)x)[a] > ((const uint64_t *)x)[b];
    double v = get(type, x, a), w = get(type, x, b);
    return isnan(v) ? !isnan(w) : v > w;
}

/* How many elements of the line come before element i. */
static size_t rank_of(enum kn_type type, const void *x, size_t from, size_t axis, size_t inner,
                      size_t i, bool smallest, bool last) {
    size_t rank = 0, at = from + i * inner;

    for (size_t j = 0; j < axis; j++) {
        size_t other = from + j * inner;
        bool above = larger(type, x, other, at), below = larger(type, x, at, other);
        bool before = smallest ? below : above;
        rank += before || (!above && !below && (last ? j > i : j < i));
    }
    return rank;
}

static void topk_gives_each_element_its_rank(void **state) {
    struct rng rng = {.state = 7};

    (void)state;
    for (int round = 0; round < 600; round++) {
        struct kn_topk t = {.type = types[(size_t)round % TYPES],
                            .outer = (size_t)rng_int(&rng, 1, 3),
                            .axis = (size_t)rng_int(&rng, 1, round % 40 ? 30 : 700),
                            .inner = (size_t)rng_int(&rng, 1, 4),
                            .smallest = rng_chance(&rng, 50)};
        char text[96];
        t.k = (size_t)rng_int(&rng, 0, (int)t.axis);
        snprintf(text, sizeof(text), "top %zu of [%zu][%zu][%zu] type %d", t.k, t.outer, t.axis,
                 t.inner, (int)t.type);
        size_t size = size_of(t.type), count = t.outer * t.axis * t.inner;
        size_t out = t.outer * t.k * t.inner;
        struct guarded x = guarded_new(count * size), y = guarded_new(out * size);
        struct guarded index = guarded_new(out * 8), scratch = guarded_new(t.k * 8);
        for (size_t i = 0; i < count; i++)
            set(&rng, t.type, x.data, i);
        assert_int_equal(kn_topk(&t, x.data, y.data, index.data, scratch.data), 0);
        for (size_t i = 0; i < out; i++) {
            size_t o = i / (t.k * t.inner), k = i / t.inner % t.k, in = i % t.inner;
            size_t at = (size_t)((int64_t *)index.data)[i], from = o * t.axis * t.inner + in;
            assert_true(at < t.axis);
            if (rank_of(t.type, x.data, from, t.axis, t.inner, at, t.smallest, false) != k)
                fail_msg("%s: element %zu", text, i);
            assert_memory_equal((char *)y.data + i * size,
                                (char *)x.data + (from + at * t.inner) * size, size);
        }
        guarded_free(&x, text);
        guarded_free(&y, text);
        guarded_free(&index, text);
        guarded_free(&scratch, text);
    }
}

static void arg_gives_the_element_before_all_others(void **state) {
    struct rng rng = {.state = 8};

    (void)state;
    for (int round = 0; round < 600; round++) {
        struct kn_arg a = {.type = types[(size_t)round % TYPES],
                           .outer = (size_t)rng_int(&rng, 1, 3),
                           .axis = (size_t)rng_int(&rng, 1, round % 40 ? 20 : 700),
                           .inner = (size_t)rng_int(&rng, 1, round % 30 ? 4 : 600),
                           .smallest = rng_chance(&rng, 50),
                           .last = rng_chance(&rng, 50)};
        char text[96];
        snprintf(text, sizeof(text), "arg of [%zu][%zu][%zu] type %d", a.outer, a.axis, a.inner,
                 (int)a.type);
        size_t count = a.outer * a.axis * a.inner, out = a.outer * a.inner;
        struct guarded x = guarded_new(count * size_of(a.type)), y = guarded_new(out * 8);
        for (size_t i = 0; i < count; i++)
            set(&rng, a.type, x.data, i);
        assert_int_equal(kn_arg(&a, x.data, y.data), 0);
        for (size_t i = 0; i < out; i++) {
            size_t at = (size_t)((int64_t *)y.data)[i];
            assert_true(at < a.axis);
            if (rank_of(a.type, x.data, i / a.inner * a.axis * a.inner + i % a.inner, a.axis,
                        a.inner, at, a.smallest, a.last) != 0)
                fail_msg("%s: element %zu", text, i);
        }
        guarded_free(&x, text);
        guarded_free(&y, text);
    }
}

static void types_without_order_are_refused(void **state) {
    const struct kn_topk t = {.type = KN_BOOL, .outer = 1, .axis = 1, .inner = 1, .k = 1};
    const struct kn_arg a = {.type = KN_BOOL, .outer = 1, .axis = 1, .inner = 1};
    int64_t number = 5;

    (void)state;
    assert_int_equal(kn_topk(&t, &number, &number, &number, &number), -ENOTSUP);
    assert_int_equal(kn_arg(&a, &number, &number), -ENOTSUP);
    assert_int_equal(number, 5);
}

/* ---- NonMaxSuppression ---- */

struct box {
    double y0, x0, y1, x1;
};

static struct box box_at(const struct kn_nms *nms, const float *boxes, int64_t i) {
    const float *b = boxes + 4 * i;
    struct box box = {(double)b[0], (double)b[1], (double)b[2], (double)b[3]};

    if (nms->center)
        return (struct box){(double)b[1] - (double)b[3] / 2, (double)b[0] - (double)b[2] / 2,
                            (double)b[1] + (double)b[3] / 2, (double)b[0] + (double)b[2] / 2};
    return (struct box){fmin(box.y0, box.y1), fmin(box.x0, box.x1), fmax(box.y0, box.y1),
                        fmax(box.x0, box.x1)};
}

static double iou(const struct kn_nms *nms, const float *boxes, int64_t i, int64_t j) {
    struct box a = box_at(nms, boxes, i), b = box_at(nms, boxes, j);
    double w = fmin(a.x1, b.x1) - fmax(a.x0, b.x0), h = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
    double both = w > 0 && h > 0 ? w * h : 0;

    return both / ((a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - both);
}

/* Selection as the operator's text has it: the best left, until there is none. */
static size_t select_naively(const struct kn_nms *nms, const float *boxes, const float *scores,
                             int64_t *y) {
    size_t count = 0;
    bool gone[64] = {false};

    for (;;) {
        int64_t best = -1;
        for (int64_t i = 0; i < nms->boxes; i++)
            if (!gone[i] && (!nms->has_score || scores[i] > nms->score) &&
                (best < 0 || scores[i] > scores[best]))
                best = i;
        if (best < 0 || count >= (size_t)nms->most)
            return count;
        y[count++] = best;
        for (int64_t i = 0; i < nms->boxes; i++)
            gone[i] = gone[i] || i == best || iou(nms, boxes, best, i) > (double)nms->iou;
    }
}

static void nms_selects_as_its_definition(void **state) {
    struct rng rng = {.state = 9};

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct kn_nms nms = {.batches = rng_int(&rng, 1, 2),
                             .classes = rng_int(&rng, 1, 3),
                             .boxes = rng_int(&rng, 0, 40),
                             .most = rng_int(&rng, 0, 12),
                             .center = rng_chance(&rng, 50),
                             .has_score = rng_chance(&rng, 50),
                             .iou = (rng_float(&rng) + 1.0f) / 2.0f,
                             .score = rng_float(&rng)};
        size_t lists = (size_t)(nms.batches * nms.classes), boxes = (size_t)nms.boxes;
        size_t most = nms.most < nms.boxes ? (size_t)nms.most : boxes, at = 0;
        struct guarded b = guarded_floats(&rng, (size_t)nms.batches * boxes * 4);
        struct guarded s = guarded_floats(&rng, lists * boxes);
        struct guarded y = guarded_new(lists * most * 24);
        struct guarded scratch = guarded_new(kn_nms_scratch(&nms));
        for (size_t i = 0; i < lists * boxes; i++) /* some are equal */
            ((float *)s.data)[i] = roundf(((float *)s.data)[i] * 20.0f) / 20.0f;
        for (size_t i = 0; nms.center && i < (size_t)nms.batches * boxes * 4; i++)
            if (i % 4 > 1)
                ((float *)b.data)[i] = fabsf(((float *)b.data)[i]);
        size_t found = kn_nms(&nms, b.data, s.data, y.data, scratch.data);
        for (size_t list = 0; list < lists; list++) {
            int64_t want[64];
            size_t batch = list / (size_t)nms.classes;
            size_t count = select_naively(&nms, (float *)b.data + batch * boxes * 4,
                                          (float *)s.data + list * boxes, want);
            for (size_t i = 0; i < count; i++, at++) {
                const int64_t *row = (int64_t *)y.data + 3 * at;
                assert_true(at < found);
                assert_int_equal(row[0], batch);
                assert_int_equal(row[1], list % (size_t)nms.classes);
                assert_int_equal(row[2], want[i]);
            }
        }
        assert_int_equal(at, found);
        guarded_free(&b, "boxes");
        guarded_free(&s, "scores");
        guarded_free(&y, "selected");
        guarded_free(&scratch, "scratch");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_gives_each_element_its_rank),
        cmocka_unit_test(arg_gives_the_element_before_all_others),
        cmocka_unit_test(types_without_order_are_refused),
        cmocka_unit_test(nms_selects_as_its_definition),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
