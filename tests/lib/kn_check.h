/* What the checkers of kernels share: seeded random numbers, guarded buffers, comparison with a
 * stated tolerance. One thread. */
#ifndef TESTS_LIB_KN_CHECK_H
#define TESTS_LIB_KN_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kn_threads;

struct rng {
    uint64_t state;
};

uint64_t rng_next(struct rng *rng);
int rng_int(struct rng *rng, int lo, int hi); /* in [lo, hi] */
bool rng_chance(struct rng *rng, int percent);
float rng_float(struct rng *rng); /* in [-1, 1) */

/* A buffer with guard bytes on both sides and, when it is new, 0xff everywhere: NaN in floats, true
 * in no bool. data is KN_ALIGN aligned. Aborts the test when there is no memory. */
struct guarded {
    void *data;
    size_t bytes;
};

struct guarded guarded_new(size_t bytes);

/* The same with random floats in [-1, 1), and NaN behind them. */
struct guarded guarded_floats(struct rng *rng, size_t count);

/* Fails the test when a byte outside data has changed; then frees it. what is for the message. */
void guarded_free(struct guarded *buffer, const char *what);

/* Every element is |x|. Freed as any other. */
struct guarded guarded_magnitude(const struct guarded *floats);

#define FLOAT_EPS 1.1920929e-7 /* 2^-23 */

/* Fails the test unless |got - want| <= units * FLOAT_EPS * (|magnitude| + least) for every
 * element; NaN matches NaN only, an infinity only itself. magnitude: the sums of the absolute
 * values of what was added up; NULL: |want|. */
struct tolerance {
    double units;
    const float *magnitude;
    double least;
};
void check_floats(const float *got, const float *want, size_t count,
                  const struct tolerance *tolerance, const char *what);
void check_bytes(const void *got, const void *want, size_t bytes, const char *what);

/* Pools of 1 (NULL), 2 and 3 threads, for all tests of one program. */
#define POOLS 3
struct kn_threads *check_pool(int index);
int check_setup(void **state);
int check_teardown(void **state);

#endif
