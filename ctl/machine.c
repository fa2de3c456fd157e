#include "ctl/machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define CHAINS        12 /* fits 16 registers with two operands; hides a latency of 6 at 2 a cycle */
#define ROUNDS        9
#define ROUND_SECONDS 0.01
#define PROBE_STEPS   20000
#define BUFFER_BYTES  ((size_t)128 << 20) /* of all threads together: several times the caches */

/* ---- the peak ---- */

/* Runs CHAINS chains of `steps` multiply-adds each; the sum keeps the compiler from dropping them.
 */
typedef float (*fma_loop)(long steps);

/* acc converges to 1: no overflow, no denormals. */
#define FMA_LOOP(name, attribute, type, multiply_add)                                              \
    attribute static float name(long steps) {                                                      \
        type acc[CHAINS], scale = (type){0} + 0.5f, shift = (type){0} + 0.5f, sum = {0};           \
        for (int i = 0; i < CHAINS; i++)                                                           \
            acc[i] = (type){0} + (float)i;                                                         \
        for (long s = 0; s < steps; s++) {                                                         \
            _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) acc[i] =                     \
                multiply_add(acc[i], scale, shift);                                                \
        }                                                                                          \
        for (int i = 0; i < CHAINS; i++)                                                           \
            sum += acc[i];                                                                         \
        return sum[0];                                                                             \
    }

struct fma_level {
    const char *isa;
    bool (*available)(void);
    fma_loop loop;
    int lanes;
};

typedef float float4 __attribute__((vector_size(16)));

#if defined(__x86_64__) || defined(__i386__)

#define MULTIPLY_THEN_ADD(a, b, c) ((a) * (b) + (c))
FMA_LOOP(fma_avx512, __attribute__((target("avx512f"))), __m512, _mm512_fmadd_ps)
FMA_LOOP(fma_avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_fmadd_ps)
FMA_LOOP(fma_sse2, , float4, MULTIPLY_THEN_ADD)

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_baseline(void) {
    return true;
}

static const struct fma_level levels[] = {
    {"AVX-512", has_avx512, fma_avx512, 16},
    {"AVX2+FMA", has_avx2, fma_avx2, 8},
    {"SSE2", has_baseline, fma_sse2, 4},
};

#else

#if defined(__ARM_FEATURE_FMA)
#define NEON_FMA(a, b, c) vfmaq_f32(c, a, b)
FMA_LOOP(fma_baseline, , float32x4_t, NEON_FMA)
#define BASELINE_ISA      "NEON"
#else
#define MULTIPLY_THEN_ADD(a, b, c) ((a) * (b) + (c))
FMA_LOOP(fma_baseline, , float4, MULTIPLY_THEN_ADD)
#define BASELINE_ISA               "portable C"
#endif

static bool has_baseline(void) {
    return true;
}

static const struct fma_level levels[] = {{BASELINE_ISA, has_baseline, fma_baseline, 4}};

#endif

static const struct fma_level *best_level(void) {
    const struct fma_level *level = levels;
    while (!level->available()) /* the last one always is */
        level++;
    return level;
}

/* ---- the bandwidth ---- */

typedef uint64_t words8 __attribute__((vector_size(64)));

static uint64_t read_all(const words8 *data, size_t bytes) {
    words8 a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= bytes / sizeof(words8); i += 4) {
        a ^= data[i];
        b ^= data[i + 1];
        c ^= data[i + 2];
        d ^= data[i + 3];
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

/* ---- rounds ---- */

struct race {
    const struct fma_level *level;
    long steps;
    size_t bytes; /* of each thread's buffer */
    pthread_barrier_t barrier;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    enum { GATE_SHUT, GATE_OPEN, GATE_CANCELLED } gate; /* opens when all threads exist */
};

struct runner {
    struct race *race;
    pthread_t thread;
    words8 *buffer;
    double fma_seconds, read_seconds; /* the shortest round, between two barriers */
    volatile float fma_sink;          /* makes the loops' results needed */
    volatile uint64_t read_sink;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void keep_shortest(double *shortest, double seconds) {
    if (*shortest == 0 || seconds < *shortest)
        *shortest = seconds;
}

static void run_rounds(struct runner *runner) {
    struct race *race = runner->race;
    memset(runner->buffer, 1, race->bytes); /* its pages exist from here on */
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&race->barrier);
        double start = now();
        runner->fma_sink = race->level->loop(race->steps);
        pthread_barrier_wait(&race->barrier);
        double middle = now();
        runner->read_sink = read_all(runner->buffer, race->bytes);
        pthread_barrier_wait(&race->barrier);
        keep_shortest(&runner->fma_seconds, middle - start);
        keep_shortest(&runner->read_seconds, now() - middle);
    }
}

static void *await_gate(void *arg) {
    struct runner *runner = arg;
    struct race *race = runner->race;
    pthread_mutex_lock(&race->lock);
    while (race->gate == GATE_SHUT)
        pthread_cond_wait(&race->opened, &race->lock);
    bool cancelled = race->gate == GATE_CANCELLED;
    pthread_mutex_unlock(&race->lock);
    if (!cancelled)
        run_rounds(runner);
    return NULL;
}

static void set_gate(struct race *race, int gate) {
    pthread_mutex_lock(&race->lock);
    race->gate = gate;
    pthread_cond_broadcast(&race->opened);
    pthread_mutex_unlock(&race->lock);
}

/* Runs all runners, the last one on the calling thread. */
static int run_threads(struct race *race, struct runner *runners, int threads, struct err *err) {
    int helpers = 0, rc = 0;
    while (helpers < threads - 1 &&
           pthread_create(&runners[helpers].thread, NULL, await_gate, &runners[helpers]) == 0)
        helpers++;
    if (helpers < threads - 1)
        rc = err_set(err, -EAGAIN, "only %d of %d threads could be started", helpers + 1, threads);
    set_gate(race, rc == 0 ? GATE_OPEN : GATE_CANCELLED);
    if (rc == 0)
        run_rounds(&runners[threads - 1]);
    for (int i = 0; i < helpers; i++)
        pthread_join(runners[i].thread, NULL);
    return rc;
}

/* Steps that take about a round. */
static long settle_steps(const struct fma_level *level) {
    volatile float sink;
    double shortest = 0;
    for (int i = 0; i < 5; i++) {
        double start = now();
        sink = level->loop(PROBE_STEPS);
        keep_shortest(&shortest, now() - start);
    }
    (void)sink;
    return (long)(PROBE_STEPS * ROUND_SECONDS / (shortest > 0 ? shortest : 1)) + 1;
}

static void add_up(const struct race *race, const struct runner *runners, int threads,
                   struct machine *machine) {
    double fma = 0, read = 0; /* rounds end together: the slowest thread's shortest counts */
    for (int i = 0; i < threads; i++) {
        fma = runners[i].fma_seconds > fma ? runners[i].fma_seconds : fma;
        read = runners[i].read_seconds > read ? runners[i].read_seconds : read;
    }
    machine->isa = race->level->isa;
    machine->threads = threads;
    machine->peak_flops = 2.0 * CHAINS * race->level->lanes * (double)race->steps * threads / fma;
    machine->bytes_per_second = (double)race->bytes * threads / read;
}

int machine_measure(int threads, struct machine *ret_machine, struct err *err) {
    struct race race = {.level = best_level(), .lock = PTHREAD_MUTEX_INITIALIZER};
    struct runner runners[MACHINE_THREADS_MAX] = {0};
    words8 *buffers = NULL;
    if (threads < 1 || threads > MACHINE_THREADS_MAX)
        return err_set(err, -EINVAL, "%d threads cannot be measured: 1 to %d", threads,
                       MACHINE_THREADS_MAX);
    int rc = pthread_barrier_init(&race.barrier, NULL, (unsigned)threads);
    if (rc != 0)
        return err_set(err, -rc, "no barrier for %d threads: %s", threads, strerror(rc));
    race.steps = settle_steps(race.level);
    race.bytes = BUFFER_BYTES / (size_t)threads / sizeof(words8) * sizeof(words8);
    buffers = aligned_alloc(sizeof(words8), race.bytes * (size_t)threads);
    if (!buffers) {
        rc = err_set(err, -ENOMEM, "no memory to measure its bandwidth: %zu bytes", BUFFER_BYTES);
        goto done;
    }
    for (int i = 0; i < threads; i++)
        runners[i] = (struct runner){.race = &race,
                                     .buffer = buffers + (size_t)i * (race.bytes / sizeof(words8))};
    rc = run_threads(&race, runners, threads, err);
    if (rc == 0)
        add_up(&race, runners, threads, ret_machine);
done:
    free(buffers);
    pthread_barrier_destroy(&race.barrier);
    return rc;
}

double machine_roof(const struct machine *machine, double flops, double bytes) {
    double fed = bytes > 0 ? flops / bytes * machine->bytes_per_second : machine->peak_flops;
    return fed < machine->peak_flops ? fed : machine->peak_flops;
}
