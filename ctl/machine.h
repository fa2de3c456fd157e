/* What this machine can do at most: the two lines of a roofline (Williams, Waterman, Patterson,
 * "Roofline: an insightful visual performance model", CACM 2009), both measured, neither computed
 * from a data sheet: clocks change with load, and a virtual machine says little about its own.
 *
 * Peak: chains of fused multiply-adds on registers, as wide as this CPU has them, enough of them
 * to hide the latency; without FMA a multiplication and an addition. Bandwidth: every byte of a
 * buffer larger than the caches is read once, in order. Each is the best of several short rounds,
 * because whatever else runs on the machine can only make a round slower.
 */
#ifndef CONVOY_CTL_MACHINE_H
#define CONVOY_CTL_MACHINE_H

#include "base/err.h"

#define MACHINE_THREADS_MAX 256

struct machine {
    const char *isa; /* what the peak was measured with: "AVX-512", "AVX2+FMA", "NEON", ... */
    int threads;
    double peak_flops;       /* single precision FLOP/s of all threads together; an FMA is two */
    double bytes_per_second; /* read from memory by all threads together */
};

/* Measures with `threads` threads side by side, 1 to MACHINE_THREADS_MAX; takes about 0.3 s and
 * 128 MiB. 0, -EINVAL, -ENOMEM, or -EAGAIN when the threads cannot be started. Any thread. */
int machine_measure(int threads, struct machine *ret_machine, struct err *err);

/* FLOP/s that a computation of `flops` operations which moves `bytes` can reach: the lower of the
 * peak and of what the memory feeds. The peak when it moves nothing. Pure. */
double machine_roof(const struct machine *machine, double flops, double bytes);

#endif
