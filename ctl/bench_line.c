#include "ctl/bench.h"

#include "ctl/client.h"
#include "ctl/interrupt.h"
#include "ctl/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the thread that sends and the one that takes results share. */
struct flight {
    struct client *client;
    const struct tensor *sample_tensors; /* what every frame carries */
    uint64_t frames;                     /* at most; 0: no limit */
    uint64_t deadline_us;                /* 0: none */
    atomic_bool stopped;
};

static void on_interrupt(void *arg) {
    struct flight *flight = arg;
    atomic_store(&flight->stopped, true);
}

static void copy_tensors(const struct tensor *from, struct tensor *to, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        tensor_desc_bytes(&from[i].desc, &bytes);
        memcpy(to[i].data, from[i].data, bytes);
    }
}

/* Sends until the limit. */
static void *send_frames(void *arg) {
    struct flight *flight = arg;
    size_t inputs = client_get_info(flight->client)->inputs_count;
    struct err err;
    for (uint64_t n = 0; !flight->frames || n < flight->frames; n++) {
        if (atomic_load(&flight->stopped) ||
            (flight->deadline_us && clock_us() >= flight->deadline_us))
            break;
        struct client_frame *frame = client_frame_new(flight->client);
        if (!frame)
            break;
        copy_tensors(flight->sample_tensors, client_frame_tensors(frame), inputs);
        if (client_submit(flight->client, frame, NULL, &err) != 0)
            break;
    }
    client_finish(flight->client);
    return NULL;
}

/* Counts what comes until the deadline; the rest is only waited for. The rate is that between the
 * first and the last result counted: filling the line takes a while. */
static int take_results(struct flight *flight, struct bench_result *result, struct err *err) {
    uint64_t first_us = 0, last_us = 0;
    for (;;) {
        struct client_result answer;
        int rc = client_next(flight->client, -1, &answer, err);
        uint64_t now = clock_us(), counted = result->latency.count;
        if (rc <= 0) {
            if (counted > 1 && last_us > first_us)
                result->fps = (double)(counted - 1) * 1e6 / (double)(last_us - first_us);
            return rc;
        }
        bool late = flight->deadline_us && now > flight->deadline_us && counted > 0;
        if (answer.status == 0 && !late) {
            latency_add(&result->latency, answer.latency_us);
            first_us = counted ? first_us : now;
            last_us = now;
        } else if (answer.status != 0 && result->failed++ == 0) {
            fprintf(stderr, "convoyctl bench: %s\n", answer.text);
        }
        client_result_fini(&answer);
    }
}

/* One round on a connection of its own. */
static int fly(const struct bench_options *options, uint64_t frames, double seconds,
               struct bench_result *result, struct err *err) {
    struct client_params params = {.address = options->address,
                                   .key = options->key,
                                   .window = options->window,
                                   .wait_ms = (uint32_t)(options->wait * 1000)};
    struct flight flight = {.frames = frames};
    struct client_counts counts;
    struct interrupt *interrupt = NULL;
    struct client_frame *sample = NULL;
    pthread_t sender;
    int rc = client_new(&params, &flight.client, err);
    if (rc != 0)
        return rc;
    const struct client_info *info = client_get_info(flight.client);
    if (!result->model && !(result->model = strdup(info->model)))
        rc = err_set(err, -ENOMEM, "out of memory");
    sample = client_frame_new(flight.client);
    if (rc == 0 && !sample)
        rc = err_set(err, -ENOMEM, "out of memory");
    if (rc == 0) {
        struct tensor *tensors = client_frame_tensors(sample);
        flight.sample_tensors = tensors;
        rc = bench_fill(options, tensors, info->inputs_count, err);
    }
    if (rc == 0)
        rc = interrupt_start(on_interrupt, &flight, &interrupt);
    if (rc != 0)
        goto done;

    double cpu = bench_cpu_seconds();
    uint64_t start = clock_us();
    if (seconds > 0)
        flight.deadline_us = start + (uint64_t)(seconds * 1e6);
    rc = -pthread_create(&sender, NULL, send_frames, &flight);
    if (rc != 0) {
        err_set(err, rc, "%s", strerror(-rc));
        goto done;
    }
    rc = take_results(&flight, result, err);
    if (rc != 0)
        client_cancel(flight.client);
    pthread_join(sender, NULL);
    result->seconds = (double)(clock_us() - start) / 1e6;
    client_get_counts(flight.client, &counts);
    result->cpu_seconds_per_frame =
        (bench_cpu_seconds() - cpu) / (double)(counts.answered ? counts.answered : 1);
    if (result->fps == 0 && result->seconds > 0)
        result->fps = (double)result->latency.count / result->seconds;

done:
    interrupt_stop(interrupt);
    client_frame_free(sample);
    client_free(flight.client);
    return rc;
}

int bench_line(const struct bench_options *options, struct bench_result *ret_result,
               struct err *err) {
    if (options->warm_up) {
        struct bench_result *ignored = calloc(1, sizeof(*ignored));
        int rc = ignored ? fly(options, options->warm_up, 0, ignored, err)
                         : err_set(err, -ENOMEM, "out of memory");
        bench_result_free(ignored);
        if (rc != 0)
            return rc;
    }
    return fly(options, options->frames, options->seconds, ret_result, err);
}
