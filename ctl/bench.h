/* What the two kinds of `bench` share. */
#ifndef CONVOY_CTL_BENCH_H
#define CONVOY_CTL_BENCH_H

#include "ctl/feed.h"
#include "ctl/latency.h"
#include "ctl/network.h"

#define BENCH_WORKERS_MAX 256
#define BENCH_TENSORS_MAX 256

struct bench_options {
    const char *address; /* NULL: this device */
    struct network_dims dims;
    const char *tensors[BENCH_TENSORS_MAX];
    size_t tensors_count;
    double seconds;   /* 0: no limit */
    uint64_t frames;  /* 0: no limit */
    uint64_t warm_up; /* frames per worker that do not count */
    int threads, workers;
    size_t window;
    double wait; /* seconds */
    bool zero, layers, json;
};

struct bench_layer {
    char *name, *op;
    double ms; /* mean per frame */
    uint64_t macs;
};

struct bench_result {
    char *model;
    double seconds, fps, cpu_seconds_per_frame;
    uint64_t failed;
    uint64_t macs;              /* per frame; 0: unknown */
    struct latency latency;     /* us */
    struct bench_layer *layers; /* with --layers */
    size_t layers_count;
};

/* Fill *ret_result (zeroed by the caller, freed with bench_result_free() in every case). */
int bench_local(const struct bench_options *options, const char *path,
                struct bench_result *ret_result, struct err *err);
int bench_line(const struct bench_options *options, struct bench_result *ret_result,
               struct err *err);
void bench_result_free(struct bench_result *result);

/* Fills inputs as options say: given files, zeros, or random numbers in [0, 1) for float32 (whole
 * bytes for uint8, zeros for other types). */
int bench_fill(const struct bench_options *options, struct tensor *tensors, size_t count,
               struct err *err);

/* CPU time of this process so far. */
double bench_cpu_seconds(void);

#endif
