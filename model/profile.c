#include "model/profile.h"

#include "model/runner.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARM_UP    2
#define FRAMES_MIN 5
#define FRAMES_MAX 256

/* What the workers share. All go on computing until the last has enough, so that every frame that
 * counts was computed beside as many others. */
struct session {
    const struct profile_options *options;
    size_t layers;
    int workers;
    atomic_int warm, done; /* workers that have warmed up, that have enough */
    atomic_bool failed;
};

struct worker {
    struct session *session;
    struct runner runner;
    pthread_t thread;
    float *samples; /* [layers + 1][FRAMES_MAX] in nanoseconds; the last row is of whole frames */
    size_t count;
    int rc;
    struct err err;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static bool is_stopped(const struct session *session) {
    return atomic_load(&session->failed) ||
           (session->options->stop && atomic_load(session->options->stop));
}

static void note_frame(struct worker *worker) {
    const uint64_t *ns = exec_layer_ns(worker->runner.exec);
    size_t layers = worker->session->layers;
    uint64_t sum = 0;
    for (size_t i = 0; i < layers; i++) {
        worker->samples[i * FRAMES_MAX + worker->count] = (float)ns[i];
        sum += ns[i];
    }
    worker->samples[layers * FRAMES_MAX + worker->count] = (float)sum;
    worker->count++;
}

/* Frames count from when all are warm until this worker has enough. */
static void *work(void *arg) {
    struct worker *worker = arg;
    struct session *session = worker->session;
    uint64_t start = 0, needed = (uint64_t)(session->options->seconds * 1e9);
    int warm_up = 0;
    bool enough = false;
    while (!is_stopped(session) && atomic_load(&session->done) < session->workers) {
        worker->rc = runner_run(&worker->runner, &worker->err);
        if (worker->rc < 0) {
            atomic_store(&session->failed, true);
            break;
        }
        if (++warm_up == WARM_UP)
            atomic_fetch_add(&session->warm, 1);
        if (enough || atomic_load(&session->warm) < session->workers)
            continue;
        if (start)
            note_frame(worker);
        else
            start = now_ns();
        enough = worker->count == FRAMES_MAX ||
                 (worker->count >= FRAMES_MIN && now_ns() - start >= needed);
        if (enough)
            atomic_fetch_add(&session->done, 1);
    }
    return NULL;
}

/* xorshift64*: the same numbers everywhere. Integers stay 0, which is a valid index. */
static void fill(const struct tensor *tensor) {
    size_t bytes = 0;
    uint64_t state = 1;
    tensor_desc_bytes(&tensor->desc, &bytes);
    memset(tensor->data, 0, bytes);
    for (size_t i = 0; tensor->desc.dtype == DTYPE_FLOAT && i < bytes / sizeof(float); i++) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((float *)tensor->data)[i] = (float)(state * 0x2545f4914f6cdd1dull >> 40) / (1 << 24);
    }
}

static int init_worker(struct worker *worker, struct session *session, struct stage *stage,
                       struct err *err) {
    worker->session = session;
    int rc = runner_init(&worker->runner, stage, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < worker->runner.inputs_count; i++)
        fill(&worker->runner.inputs[i]);
    exec_profile(worker->runner.exec, true);
    worker->samples = calloc((session->layers + 1) * FRAMES_MAX, sizeof(*worker->samples));
    return worker->samples ? 0 : err_set(err, -ENOMEM, "no memory for a profile");
}

static int run_all(struct session *session, struct worker *workers, struct err *err) {
    int running = 0, rc = 0;
    while (running < session->workers &&
           pthread_create(&workers[running].thread, NULL, work, &workers[running]) == 0)
        running++;
    if (running < session->workers) {
        rc = err_set(err, -EAGAIN, "only %d of %d workers could be started", running,
                     session->workers);
        atomic_store(&session->failed, true);
    }
    for (int i = 0; i < running; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; rc == 0 && i < running; i++)
        if (workers[i].rc < 0)
            rc = err_set(err, workers[i].rc, "%s", workers[i].err.text);
    if (rc == 0 && is_stopped(session))
        rc = err_set(err, -ECANCELED, "the measurement was stopped");
    return rc;
}

/* A frame of one worker. */
struct sample {
    const struct worker *worker;
    size_t at;
    float ns;
};

static int by_time(const void *a, const void *b) {
    const struct sample *x = a, *y = b;
    return (x->ns > y->ns) - (x->ns < y->ns);
}

/* The mean of a row over some frames, in microseconds. */
static double mean_us(const struct sample *samples, size_t count, size_t row) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)samples[i].worker->samples[row * FRAMES_MAX + samples[i].at];
    return sum / (double)count / 1e3;
}

/* The mean over the middle half of all frames, so that layers add up to a frame. What disturbs few
 * frames does not count; what disturbs each of them in another layer, as a quota of CPU time does
 * every few milliseconds, counts for every layer as much as it should. */
static int sum_up(const struct session *session, const struct worker *workers,
                  struct profile *profile) {
    struct sample *samples = calloc((size_t)session->workers * FRAMES_MAX, sizeof(*samples));
    size_t count = 0;
    profile->layer_us = calloc(session->layers + 1, sizeof(*profile->layer_us));
    if (!samples || !profile->layer_us) {
        free(samples);
        return -ENOMEM;
    }
    for (int w = 0; w < session->workers; w++)
        for (size_t i = 0; i < workers[w].count; i++)
            samples[count++] = (struct sample){
                &workers[w], i, workers[w].samples[session->layers * FRAMES_MAX + i]};
    qsort(samples, count, sizeof(*samples), by_time);
    size_t left_out = count / 4, half = count - 2 * left_out;
    for (size_t i = 0; i < session->layers; i++)
        profile->layer_us[i] = mean_us(samples + left_out, half, i);
    profile->frame_us = mean_us(samples + left_out, half, session->layers);
    profile->frames = count;
    free(samples);
    return 0;
}

int profile_measure(struct model *model, size_t first, size_t last,
                    const struct profile_options *options, struct profile *ret_profile,
                    struct err *err) {
    struct stage_options stage_options = {.threads = options->threads};
    struct session session = {.options = options, .layers = last - first};
    struct profile profile = {.first = first, .last = last};
    struct stage *stage = NULL;
    session.workers = options->workers > 1 ? options->workers : 1;
    if (session.workers > PROFILE_WORKERS_MAX)
        return err_set(err, -EINVAL, "more than %d workers", PROFILE_WORKERS_MAX);
    struct worker *workers = calloc((size_t)session.workers, sizeof(*workers));
    int rc = workers ? stage_new(model, first, last, &stage_options, &stage, err)
                     : err_set(err, -ENOMEM, "no memory for a profile");
    for (int i = 0; rc == 0 && i < session.workers; i++)
        rc = init_worker(&workers[i], &session, stage, err);
    if (rc == 0)
        rc = run_all(&session, workers, err);
    if (rc == 0 && sum_up(&session, workers, &profile) < 0)
        rc = err_set(err, -ENOMEM, "no memory for a profile");
    if (rc == 0)
        profile.arena_bytes = stage_arena_bytes(stage);
    for (int i = 0; workers && i < session.workers; i++) {
        runner_fini(&workers[i].runner);
        free(workers[i].samples);
    }
    free(workers);
    stage_unref(stage);
    if (rc < 0)
        profile_fini(&profile);
    else
        *ret_profile = profile;
    return rc;
}

void profile_fini(struct profile *profile) {
    free(profile->layer_us);
    profile->layer_us = NULL;
}
