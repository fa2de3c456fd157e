#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static struct guarded random_bytes(struct rng *rng, size_t bytes) {
    struct guarded buffer = guarded_new(bytes);

    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)buffer.data)[i] = (uint8_t)rng_next(rng);
    return buffer;
}

static size_t count_of(const struct kn_shape *shape) {
    size_t count = 1;

    for (int i = 0; i < shape->rank; i++)
        count *= (size_t)shape->dims[i];
    return count;
}

static struct kn_shape random_shape(struct rng *rng, int least_rank) {
    struct kn_shape shape = {.rank = rng_int(rng, least_rank, 5)};

    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = rng_chance(rng, 3) ? 0 : rng_int(rng, 1, 8);
    return shape;
}

static int64_t offset(const struct kn_shape *shape, const int64_t *strides, size_t flat) {
    int64_t at = 0;

    for (int i = shape->rank; i-- > 0;) {
        at += (int64_t)(flat % (size_t)shape->dims[i]) * strides[i];
        flat /= (size_t)shape->dims[i];
    }
    return at;
}

static const size_t sizes[] = {1, 2, 4, 8, 16, 3};

/* A view of a dense array: axes permuted, some walked backwards, some stretched, some repeated. */
struct view {
    int64_t strides[KN_MAX_RANK];
    int64_t first; /* of the element that the view begins with */
    size_t count;  /* of the array behind the view */
};

static struct view random_view(struct rng *rng, const struct kn_shape *shape, bool repeats) {
    struct view view = {.count = 1};
    int order[KN_MAX_RANK];

    for (int i = 0; i < shape->rank; i++)
        order[i] = i;
    for (int i = shape->rank - 1; i > 0 && rng_chance(rng, 60); i--) {
        int j = rng_int(rng, 0, i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (int i = shape->rank; i-- > 0;) {
        int axis = order[i];
        int64_t dim = shape->dims[axis], step = rng_chance(rng, 20) ? 2 : 1;
        if (repeats && rng_chance(rng, 15)) {
            view.strides[axis] = 0;
            continue;
        }
        view.strides[axis] = (int64_t)view.count * step;
        if (rng_chance(rng, 15) && dim > 0) {
            view.first += view.strides[axis] * (dim - 1);
            view.strides[axis] = -view.strides[axis];
        }
        view.count *= (size_t)(dim * step);
    }
    return view;
}

static void copies_walk_any_strides(void **state) {
    struct rng rng = {.state = 91};

    (void)state;
    for (int round = 0; round < 1500; round++) {
        struct kn_shape shape = random_shape(&rng, 0);
        size_t count = count_of(&shape), size = sizes[rng_int(&rng, 0, 5)];
        struct view from = random_view(&rng, &shape, true), to = random_view(&rng, &shape, false);
        struct guarded x = random_bytes(&rng, from.count * size);
        struct guarded y = guarded_new(to.count * size), want = guarded_new(to.count * size);
        const char *x0 = (const char *)x.data + from.first * (int64_t)size;
        for (size_t i = 0; i < count; i++)
            memcpy((char *)want.data + (to.first + offset(&shape, to.strides, i)) * (int64_t)size,
                   x0 + offset(&shape, from.strides, i) * (int64_t)size, size);
        kn_copy(size, &shape, from.strides, x0, to.strides,
                (char *)y.data + to.first * (int64_t)size);
        check_bytes(y.data, want.data, want.bytes, "copy");
        guarded_free(&x, "copy");
        guarded_free(&y, "copy");
        guarded_free(&want, "copy");
    }
}

/* Long rows, both ways round: 2-D transposes of sizes that are no multiple of a block. */
static void large_transposes_are_exact(void **state) {
    struct rng rng = {.state = 92};
    static const int shapes[][2] = {{131, 67}, {64, 64}, {3, 1001}, {1001, 3}, {33, 257}};

    (void)state;
    for (size_t k = 0; k < 5 * 6; k++) {
        int64_t h = shapes[k / 6][0], w = shapes[k / 6][1];
        size_t size = sizes[k % 6], bytes = (size_t)(2 * h * w) * size;
        struct kn_shape shape = {.rank = 3, .dims = {2, w, h}};
        const int64_t x_strides[] = {h * w, 1, w}, y_strides[] = {h * w, h, 1};
        struct guarded x = random_bytes(&rng, bytes), y = guarded_new(bytes);
        kn_copy(size, &shape, x_strides, x.data, y_strides, y.data);
        for (int64_t i = 0; i < 2 * h * w; i++) {
            int64_t b = i / (h * w), c = i / h % w, r = i % h;
            assert_memory_equal((char *)y.data + i * (int64_t)size,
                                (char *)x.data + (b * h * w + r * w + c) * (int64_t)size, size);
        }
        guarded_free(&x, "transpose");
        guarded_free(&y, "transpose");
    }
}

static void gathers_take_what_the_indices_say(void **state) {
    struct rng rng = {.state = 93};

    (void)state;
    for (int round = 0; round < 300; round++) {
        size_t outer = (size_t)rng_int(&rng, 1, 5), axis = (size_t)rng_int(&rng, 1, 6);
        size_t inner = (size_t)rng_int(&rng, 1, 7), count = (size_t)rng_int(&rng, 0, 9);
        size_t size = sizes[rng_int(&rng, 0, 3)];
        struct guarded x = random_bytes(&rng, outer * axis * inner * size);
        struct guarded y = guarded_new(outer * count * inner * size);
        int64_t indices[9];
        for (size_t i = 0; i < count; i++)
            indices[i] = rng_int(&rng, 0, (int)axis - 1);
        kn_gather(size, outer, axis, inner, indices, count, x.data, y.data);
        for (size_t o = 0; o < outer; o++)
            for (size_t i = 0; i < count * inner; i++) {
                size_t from = (o * axis + (size_t)indices[i / inner]) * inner + i % inner;
                assert_memory_equal((char *)y.data + (o * count * inner + i) * size,
                                    (char *)x.data + from * size, size);
            }
        guarded_free(&x, "gather");
        guarded_free(&y, "gather");
    }
}

static void where_chooses_element_by_element(void **state) {
    struct rng rng = {.state = 94};

    (void)state;
    for (int round = 0; round < 400; round++) {
        struct kn_shape shape = random_shape(&rng, 0);
        size_t count = count_of(&shape), size = sizes[rng_int(&rng, 0, 3)];
        struct view vc = random_view(&rng, &shape, true), va = random_view(&rng, &shape, true);
        struct view vb = random_view(&rng, &shape, true);
        struct guarded c = random_bytes(&rng, vc.count), y = guarded_new(count * size);
        struct guarded a = random_bytes(&rng, va.count * size);
        struct guarded b = random_bytes(&rng, vb.count * size);
        for (size_t i = 0; i < vc.count; i++)
            ((uint8_t *)c.data)[i] &= 1;
        const bool *c0 = (const bool *)c.data + vc.first;
        const char *a0 = (const char *)a.data + va.first * (int64_t)size;
        const char *b0 = (const char *)b.data + vb.first * (int64_t)size;
        kn_where(size, &shape, vc.strides, va.strides, vb.strides, c0, a0, b0, y.data);
        for (size_t i = 0; i < count; i++) {
            const char *want = c0[offset(&shape, vc.strides, i)]
                                   ? a0 + offset(&shape, va.strides, i) * (int64_t)size
                                   : b0 + offset(&shape, vb.strides, i) * (int64_t)size;
            assert_memory_equal((char *)y.data + i * size, want, size);
        }
        struct guarded *all[] = {&a, &b, &c, &y};
        for (size_t i = 0; i < 4; i++)
            guarded_free(all[i], "where");
    }
}

/* Where y's element i of an axis comes from, in an axis that was cropped to [first, first + in) of
 * x; -1: the constant. Walks cell by cell, unlike the code under test. */
static int64_t pad_source(enum kn_pad_mode mode, int64_t i, int64_t in) {
    int64_t step = i < 0 ? -1 : 1, at = i < 0 ? 0 : in - 1, left = i < 0 ? -i : i - in + 1;
    int64_t direction = -step;

    if (i >= 0 && i < in)
        return i;
    if (mode == KN_PAD_CONSTANT)
        return -1;
    if (mode == KN_PAD_EDGE || in == 1)
        return at;
    for (; left > 0; left--) {
        if (mode == KN_PAD_WRAP) {
            at = left == (i < 0 ? -i : i - in + 1) ? (i < 0 ? in - 1 : 0) : (at + step + in) % in;
            continue;
        }
        at += direction;
        if ((at == 0 || at == in - 1))
            direction = -direction;
    }
    return at;
}

static void check_pad(struct rng *rng, enum kn_pad_mode mode) {
    struct kn_shape shape = {.rank = rng_int(rng, 1, 4)}, out = {.rank = shape.rank};
    int64_t begin[KN_MAX_RANK], end[KN_MAX_RANK];
    size_t size = sizes[rng_int(rng, 0, 3)];
    uint64_t value = rng_next(rng);

    for (int i = 0; i < shape.rank; i++) {
        shape.dims[i] = rng_int(rng, 1, 7);
        begin[i] = rng_int(rng, -(int)shape.dims[i] / 2, 9);
        end[i] = rng_int(rng, -(int)shape.dims[i] / 2 + 1, 9);
        if (begin[i] < 0 && end[i] < 0 && shape.dims[i] + begin[i] + end[i] < 1)
            end[i] = 0;
        out.dims[i] = shape.dims[i] + begin[i] + end[i];
    }
    struct guarded x = random_bytes(rng, count_of(&shape) * size);
    struct guarded y = guarded_new(count_of(&out) * size);
    kn_pad(size, mode, &shape, begin, end, &value, x.data, y.data);
    for (size_t flat = 0; flat < count_of(&out); flat++) {
        int64_t from = 0, stride = 1;
        size_t rest = flat;
        bool constant = false;
        for (int i = out.rank; i-- > 0;) {
            int64_t before = begin[i] > 0 ? begin[i] : 0, first = begin[i] < 0 ? -begin[i] : 0;
            int64_t in = shape.dims[i] - first + (end[i] < 0 ? end[i] : 0);
            int64_t at = pad_source(mode, (int64_t)(rest % (size_t)out.dims[i]) - before, in);
            constant |= at < 0;
            from += (first + at) * stride;
            stride *= shape.dims[i];
            rest /= (size_t)out.dims[i];
        }
        const void *want = constant ? (const void *)&value : (char *)x.data + from * (int64_t)size;
        assert_memory_equal((char *)y.data + flat * size, want, size);
    }
    guarded_free(&x, "pad");
    guarded_free(&y, "pad");
}

static void pads_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 95};

    (void)state;
    for (int round = 0; round < 800; round++)
        check_pad(&rng, (enum kn_pad_mode)(round % 4));
}

/* NumPy's documentation of numpy.pad: [1, 2, 3, 4, 5] with (2, 3). */
static void pads_look_like_numpy(void **state) {
    const struct kn_shape shape = {.rank = 1, .dims = {5}};
    const uint8_t x[] = {1, 2, 3, 4, 5}, value = 9;
    const int64_t begin = 2, end = 3;
    static const uint8_t want[][10] = {
        [KN_PAD_CONSTANT] = {9, 9, 1, 2, 3, 4, 5, 9, 9, 9},
        [KN_PAD_REFLECT] = {3, 2, 1, 2, 3, 4, 5, 4, 3, 2},
        [KN_PAD_EDGE] = {1, 1, 1, 2, 3, 4, 5, 5, 5, 5},
        [KN_PAD_WRAP] = {4, 5, 1, 2, 3, 4, 5, 1, 2, 3},
    };
    uint8_t y[10];

    (void)state;
    for (int mode = 0; mode < 4; mode++) {
        kn_pad(1, (enum kn_pad_mode)mode, &shape, &begin, &end, &value, x, y);
        assert_memory_equal(y, want[mode], sizeof(y));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_walk_any_strides),
        cmocka_unit_test(large_transposes_are_exact),
        cmocka_unit_test(gathers_take_what_the_indices_say),
        cmocka_unit_test(where_chooses_element_by_element),
        cmocka_unit_test(pads_agree_with_their_definitions),
        cmocka_unit_test(pads_look_like_numpy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
