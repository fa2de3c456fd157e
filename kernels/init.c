#include <pthread.h>
#include <stdio.h>

#include "simd.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char cpu_name[96]; /* written once, by init() */

static const char *architecture(void) {
#if defined(__x86_64__)
    return "x86-64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__arm__)
    return "arm";
#else
    return "generic";
#endif
}

static void init(void) {
    kn_simd_init();
    kn_blas_init();
    snprintf(cpu_name, sizeof(cpu_name), "%s %s, OpenBLAS %s", architecture(), kn_simd()->name,
             kn_blas_core());
}

void kn_init(void) {
    pthread_once(&once, init);
}

const char *kn_cpu_name(void) {
    return cpu_name;
}
