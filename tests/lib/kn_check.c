#include "tests/lib/kn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

#define GUARD      64
#define GUARD_BYTE 0xa5

uint64_t rng_next(struct rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int rng_int(struct rng *rng, int lo, int hi) {
    return lo + (int)(rng_next(rng) % (uint64_t)(hi - lo + 1));
}

bool rng_chance(struct rng *rng, int percent) {
    return rng_int(rng, 1, 100) <= percent;
}

float rng_float(struct rng *rng) {
    return (float)((int64_t)(rng_next(rng) >> 40) - (1 << 23)) / (float)(1 << 23);
}

struct guarded guarded_new(size_t bytes) {
    size_t all = (bytes + 2 * GUARD + KN_ALIGN - 1) / KN_ALIGN * KN_ALIGN;
    unsigned char *block = aligned_alloc(KN_ALIGN, all);

    assert_non_null(block);
    memset(block, GUARD_BYTE, all);
    memset(block + GUARD, 0xff, bytes);
    return (struct guarded){.data = block + GUARD, .bytes = bytes};
}

struct guarded guarded_floats(struct rng *rng, size_t count) {
    struct guarded buffer = guarded_new((count + KN_TAIL / sizeof(float)) * sizeof(float));
    float *x = buffer.data;

    for (size_t i = 0; i < count; i++)
        x[i] = rng_float(rng);
    return buffer;
}

struct guarded guarded_magnitude(const struct guarded *floats) {
    struct guarded buffer = guarded_new(floats->bytes);
    const float *x = floats->data;
    float *y = buffer.data;

    for (size_t i = 0; i < floats->bytes / sizeof(float); i++)
        y[i] = fabsf(x[i]);
    return buffer;
}

void guarded_free(struct guarded *buffer, const char *what) {
    unsigned char *data = buffer->data;

    if (!data)
        return;
    for (size_t i = 0; i < GUARD; i++) {
        if (data[-GUARD + (ptrdiff_t)i] != GUARD_BYTE)
            fail_msg("%s: wrote %zu bytes before its output", what, GUARD - i);
        if (data[buffer->bytes + i] != GUARD_BYTE)
            fail_msg("%s: wrote %zu bytes behind its output", what, i + 1);
    }
    free(data - GUARD);
    *buffer = (struct guarded){0};
}

void check_floats(const float *got, const float *want, size_t count,
                  const struct tolerance *tolerance, const char *what) {
    for (size_t i = 0; i < count; i++) {
        double magnitude = fabs((double)(tolerance->magnitude ? tolerance->magnitude : want)[i]);
        double limit = tolerance->units * FLOAT_EPS * (magnitude + tolerance->least);
        double error = fabs((double)got[i] - (double)want[i]);
        if ((isnan(got[i]) && isnan(want[i])) || got[i] == want[i])
            continue;
        if (!(error <= limit) || isinf(want[i]))
            fail_msg("%s: element %zu of %zu is %.9g, not %.9g; off by %.3g, allowed %.3g", what, i,
                     count, (double)got[i], (double)want[i], error, limit);
    }
}

void check_bytes(const void *got, const void *want, size_t bytes, const char *what) {
    const unsigned char *g = got, *w = want;

    for (size_t i = 0; i < bytes; i++)
        if (g[i] != w[i])
            fail_msg("%s: byte %zu of %zu is %#x, not %#x", what, i, bytes, g[i], w[i]);
}

static struct kn_threads *pools[POOLS];

struct kn_threads *check_pool(int index) {
    return pools[index];
}

int check_setup(void **state) {
    (void)state;
    kn_init();
    for (int i = 1; i < POOLS; i++)
        if (!(pools[i] = kn_threads_new(i + 1)))
            return -1;
    return 0;
}

int check_teardown(void **state) {
    (void)state;
    for (int i = 1; i < POOLS; i++)
        kn_threads_free(pools[i]);
    return 0;
}
