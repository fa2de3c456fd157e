/* What the parts of `bench` share. */
#ifndef CONVOY_CTL_BENCH_H
#define CONVOY_CTL_BENCH_H

#include "ctl/feed.h"
#include "ctl/json.h"
#include "ctl/latency.h"
#include "ctl/machine.h"
#include "ctl/network.h"

#define BENCH_WORKERS_MAX 256
#define BENCH_TENSORS_MAX 256

struct bench_options {
    const char *address; /* NULL: this device */
    const char *key;     /* file of the line's key, or NULL */
    struct network_dims dims;
    const char *tensors[BENCH_TENSORS_MAX];
    size_t tensors_count;
    double seconds;   /* 0: no limit */
    uint64_t frames;  /* 0: no limit */
    uint64_t warm_up; /* frames per worker that do not count */
    int threads, workers;
    size_t window;
    double wait; /* seconds */
    bool zero, layers, machine, json;
};

struct bench_layer {
    char *name, *op;
    const char *algorithm; /* NULL: there is one way only */
    double ms;             /* median over frames */
    uint64_t macs;
    uint64_t bytes; /* moved at least: activations read, weights as prepared, results written */
};

struct bench_result {
    char *model;
    double seconds, fps, cpu_seconds_per_frame;
    uint64_t failed;
    uint64_t macs;              /* per frame; 0: unknown */
    struct latency latency;     /* us */
    struct bench_layer *layers; /* with --layers */
    size_t layers_count;
    struct machine machine; /* with --layers: the roofline that its layers stand under */
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

/* Of a layer: GFLOP/s, 0 when it computes nothing worth counting; FLOP per byte moved; the share of
 * what the roofline allows, that is of the FLOP/s there, or of the bandwidth when it only moves
 * bytes; the line of the roofline above it, "compute" or "memory", NULL for a view. Pure. */
double bench_layer_gflops(const struct bench_layer *layer);
double bench_layer_intensity(const struct bench_layer *layer);
double bench_layer_share(const struct machine *machine, const struct bench_layer *layer);
const char *bench_layer_bound(const struct machine *machine, const struct bench_layer *layer);

/* The layers and the machine for --json (the caller's), and as text on stdout. */
json_t *bench_layers_json(const struct bench_result *result);
json_t *bench_machine_json(const struct machine *machine);
int bench_print_layers(const struct bench_result *result, struct err *err);
void bench_print_machine(const struct machine *machine);

/* CPU time of this process so far. */
double bench_cpu_seconds(void);

#endif
