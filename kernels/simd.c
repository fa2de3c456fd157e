/* Chooses the instruction set, once per process. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "simd.h"

#if defined(__x86_64__)

extern const struct kn_simd kn_simd_table__sse2, kn_simd_table__avx2, kn_simd_table__avx512;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)

extern const struct kn_simd kn_simd_table__neon;

#elif defined(__arm__)
#include <sys/auxv.h>

#define HWCAP_BIT_NEON  (1UL << 12)
#define HWCAP_BIT_VFPV4 (1UL << 16)

extern const struct kn_simd kn_simd_table__portable, kn_simd_table__neon;

static bool has_neon(void) {
    unsigned long wanted = HWCAP_BIT_NEON | HWCAP_BIT_VFPV4;

    return (getauxval(AT_HWCAP) & wanted) == wanted;
}
#else

extern const struct kn_simd kn_simd_table__portable;

#endif

/* From the baseline upwards; every level has those before it. */
static const struct {
    const char *name;           /* as CONVOY_SIMD has it */
    bool (*is_supported)(void); /* NULL: always */
    const struct kn_simd *table;
} levels[] = {
#if defined(__x86_64__)
    {"sse2", NULL, &kn_simd_table__sse2},
    {"avx2", has_avx2, &kn_simd_table__avx2},
    {"avx512", has_avx512, &kn_simd_table__avx512},
#elif defined(__aarch64__)
    {"neon", NULL, &kn_simd_table__neon},
#elif defined(__arm__)
    {"portable", NULL, &kn_simd_table__portable},
    {"neon", has_neon, &kn_simd_table__neon},
#else
    {"portable", NULL, &kn_simd_table__portable},
#endif
};

#define LEVELS ((int)(sizeof(levels) / sizeof(levels[0])))

static atomic_int current;

const struct kn_simd *kn_simd(void) {
    return levels[atomic_load_explicit(&current, memory_order_relaxed)].table;
}

int kn_simd_count(void) {
    int count = 1;

#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    while (count < LEVELS && levels[count].is_supported())
        count++;
    return count;
}

const char *kn_simd_name(int level) {
    return levels[level].name;
}

void kn_simd_use(int level) {
    atomic_store(&current, (int)kn_min(kn_max(level, 0), kn_simd_count() - 1));
}

void kn_simd_init(void) {
    const char *most = getenv("CONVOY_SIMD");
    int level = kn_simd_count() - 1;

    for (int i = 0; most && i < level; i++)
        if (strcmp(levels[i].name, most) == 0)
            level = i;
    kn_simd_use(level);
}
