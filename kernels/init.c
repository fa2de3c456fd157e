#include <pthread.h>
#include <stdio.h>

#include "internal.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char cpu_name[96]; /* written once, by init() */

static const char *instruction_set(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return "x86-64 AVX-512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "x86-64 AVX2+FMA";
    return "x86-64 SSE2";
#elif defined(__aarch64__)
    return "arm64 NEON";
#elif defined(__ARM_NEON)
    return "arm NEON";
#else
    return "portable C";
#endif
}

static void init(void) {
    kn_blas_init();
    snprintf(cpu_name, sizeof(cpu_name), "%s, OpenBLAS %s", instruction_set(), kn_blas_core());
}

void kn_init(void) {
    pthread_once(&once, init);
}

const char *kn_cpu_name(void) {
    return cpu_name;
}
