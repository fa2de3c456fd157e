#include "ctl/bench.h"

#include "ctl/interrupt.h"
#include "ctl/progress.h"
#include "model/runner.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What the workers share. */
struct race {
    const struct bench_options *options;
    uint64_t deadline_us;  /* 0: none. Set before go */
    atomic_ullong started; /* frames begun */
    atomic_bool stopped;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int warm; /* workers that have warmed up */
    bool go;  /* the clock has been read */
};

#define LAYER_SAMPLES 512 /* of the newest frames, for a layer's median */

struct worker {
    struct race *race;
    struct runner runner;
    pthread_t thread;
    struct latency latency;
    uint64_t *layer_ns; /* [layers_count][LAYER_SAMPLES], a ring; NULL without --layers */
    size_t layers_count;
    int rc;
    struct err err;
};

static void on_interrupt(void *arg) {
    struct race *race = arg;
    atomic_store(&race->stopped, true);
}

static bool goes_on(struct race *race) {
    const struct bench_options *options = race->options;
    if (atomic_load(&race->stopped) || (race->deadline_us && clock_us() >= race->deadline_us))
        return false;
    return !options->frames || atomic_fetch_add(&race->started, 1) < options->frames;
}

static void run_one(struct worker *worker, bool counts) {
    uint64_t start = clock_us();
    worker->rc = runner_run(&worker->runner, &worker->err);
    if (worker->rc != 0 || !counts)
        return;
    size_t slot = worker->latency.count % LAYER_SAMPLES;
    latency_add(&worker->latency, clock_us() - start);
    if (!worker->layer_ns)
        return;
    const uint64_t *ns = exec_layer_ns(worker->runner.exec);
    for (size_t i = 0; ns && i < worker->layers_count; i++)
        worker->layer_ns[i * LAYER_SAMPLES + slot] = ns[i];
}

/* The worker is warm: tells so and waits for the others and the clock. */
static void await_start(struct race *race) {
    pthread_mutex_lock(&race->lock);
    race->warm++;
    pthread_cond_broadcast(&race->changed);
    while (!race->go)
        pthread_cond_wait(&race->changed, &race->lock);
    pthread_mutex_unlock(&race->lock);
}

static void *work(void *arg) {
    struct worker *worker = arg;
    for (uint64_t i = 0; i < worker->race->options->warm_up && worker->rc == 0; i++)
        run_one(worker, false);
    await_start(worker->race);
    while (worker->rc == 0 && goes_on(worker->race))
        run_one(worker, true);
    return NULL;
}

static int init_worker(struct worker *worker, struct race *race, struct stage *stage,
                       size_t layers_count, struct err *err) {
    worker->race = race;
    int rc = runner_init(&worker->runner, stage, err);
    if (rc == 0)
        rc = bench_fill(race->options, worker->runner.inputs, worker->runner.inputs_count, err);
    if (rc != 0 || !race->options->layers)
        return rc;
    worker->layers_count = layers_count;
    worker->layer_ns = calloc(layers_count * LAYER_SAMPLES, sizeof(uint64_t));
    exec_profile(worker->runner.exec, true);
    return worker->layer_ns ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* When all of count workers are warm, reads the clock and lets them go. */
static void fire(struct race *race, int count, uint64_t *ret_start_us, double *ret_cpu) {
    pthread_mutex_lock(&race->lock);
    while (race->warm < count)
        pthread_cond_wait(&race->changed, &race->lock);
    *ret_cpu = bench_cpu_seconds();
    *ret_start_us = clock_us();
    if (race->options->seconds > 0)
        race->deadline_us = *ret_start_us + (uint64_t)(race->options->seconds * 1e6);
    race->go = true;
    pthread_cond_broadcast(&race->changed);
    pthread_mutex_unlock(&race->lock);
}

/* Starts the threads, lets them warm up, measures until they are done. */
static int run_race(struct race *race, struct worker *workers, struct bench_result *result,
                    struct err *err) {
    int running = 0, rc = 0;
    uint64_t start;
    double cpu;
    pthread_mutex_init(&race->lock, NULL);
    pthread_cond_init(&race->changed, NULL);
    while (running < race->options->workers &&
           pthread_create(&workers[running].thread, NULL, work, &workers[running]) == 0)
        running++;
    if (running < race->options->workers) {
        rc = err_set(err, -EAGAIN, "only %d of %d workers could be started", running,
                     race->options->workers);
        atomic_store(&race->stopped, true);
    }
    fire(race, running, &start, &cpu);
    for (int i = 0; i < running; i++) {
        pthread_join(workers[i].thread, NULL);
        latency_merge(&result->latency, &workers[i].latency);
        if (workers[i].rc != 0 && rc == 0)
            rc = err_set(err, workers[i].rc, "%s", workers[i].err.text);
    }
    result->seconds = (double)(clock_us() - start) / 1e6;
    double frames = result->latency.count ? (double)result->latency.count : 1;
    result->cpu_seconds_per_frame = (bench_cpu_seconds() - cpu) / frames;
    result->fps = result->seconds > 0 ? (double)result->latency.count / result->seconds : 0;
    pthread_cond_destroy(&race->changed);
    pthread_mutex_destroy(&race->lock);
    return rc;
}

static int compare_ns(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Sorts the layer's samples. */
static double median_ms(struct worker *worker, size_t layer) {
    size_t count = worker->latency.count < LAYER_SAMPLES ? worker->latency.count : LAYER_SAMPLES;
    uint64_t *ns = worker->layer_ns + layer * LAYER_SAMPLES;
    if (count == 0)
        return 0;
    qsort(ns, count, sizeof(*ns), compare_ns);
    size_t lower = (count - 1) / 2, upper = count / 2;
    return (double)(ns[lower] + ns[upper]) / 2e6;
}

static int describe_layers(const struct model *model, const struct stage *stage,
                           struct worker *worker, struct bench_result *result) {
    size_t count = model_layers_count(model);
    result->layers = calloc(count, sizeof(*result->layers));
    if (!result->layers)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct model_layer *layer = model_layer(model, i);
        struct bench_layer *to = &result->layers[result->layers_count++];
        to->name = strdup(layer->name);
        to->op = strdup(layer->op);
        to->algorithm = stage_layer_algorithm(stage, i);
        to->macs = layer->macs;
        if (!to->algorithm || strcmp(to->algorithm, "view") != 0)
            to->bytes = layer->input_bytes + layer->weight_bytes + layer->output_bytes;
        to->ms = median_ms(worker, i);
        if (!to->name || !to->op)
            return -ENOMEM;
    }
    return 0;
}

static int measure(struct model *model, const struct bench_options *options,
                   struct bench_result *result, struct err *err) {
    struct stage_options stage_options = {.threads = options->threads};
    struct race race = {.options = options};
    struct interrupt *interrupt = NULL;
    struct stage *stage = NULL;
    size_t layers = model_layers_count(model);
    struct worker *workers = calloc((size_t)options->workers, sizeof(*workers));
    int rc = workers ? stage_new(model, 0, layers, &stage_options, &stage, err)
                     : err_set(err, -ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < options->workers; i++)
        rc = init_worker(&workers[i], &race, stage, layers, err);
    if (rc == 0 && options->layers)
        rc = machine_measure(options->threads, &result->machine, err);
    if (rc == 0)
        rc = interrupt_start(on_interrupt, &race, &interrupt);
    if (rc == 0)
        rc = run_race(&race, workers, result, err);
    if (rc == 0 && options->layers && describe_layers(model, stage, &workers[0], result) != 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    interrupt_stop(interrupt);
    for (int i = 0; workers && i < options->workers; i++) {
        runner_fini(&workers[i].runner);
        free(workers[i].layer_ns);
    }
    free(workers);
    stage_unref(stage);
    return rc;
}

int bench_local(const struct bench_options *options, const char *path,
                struct bench_result *ret_result, struct err *err) {
    struct bench_options settled = *options;
    struct network network;
    if (settled.layers)
        settled.workers = 1;
    int rc = network_open(path, &settled.dims, &network, err);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < model_layers_count(network.model); i++)
        ret_result->macs += model_layer(network.model, i)->macs;
    ret_result->model = strdup(path);
    rc = ret_result->model ? measure(network.model, &settled, ret_result, err)
                           : err_set(err, -ENOMEM, "out of memory");
    network_close(&network);
    return rc;
}
