/* `bench MODEL` measures this device, `bench --to` a line. bench_local.c and bench_line.c do the
 * work. */
#include "ctl/bench.h"

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { OPTION_WAIT = OPTION_FIRST, OPTION_LAYERS, OPTION_MACHINE, OPTION_WARMUP };

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct bench_options *options = arg;
    int64_t number = 0;
    int rc = 0;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'c':
        options->address = value;
        return 0;
    case 'k':
        options->key = value;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case 'z':
        options->zero = true;
        return 0;
    case OPTION_LAYERS:
        options->layers = true;
        return 0;
    case OPTION_MACHINE:
        options->machine = true;
        return 0;
    case 's':
        return options_real("--seconds", value, 0.001, 1e6, &options->seconds, err);
    case OPTION_WAIT:
        return options_real("--wait", value, 0, 1e6, &options->wait, err);
    case 'f':
        rc = options_integer("--frames", value, 1, INT64_MAX, &number, err);
        options->frames = (uint64_t)number;
        return rc;
    case 'T':
        rc = options_integer("--threads", value, 1, 256, &number, err);
        options->threads = (int)number;
        return rc;
    case 'W':
        rc = options_integer("--workers", value, 1, BENCH_WORKERS_MAX, &number, err);
        options->workers = (int)number;
        return rc;
    case 'w':
        rc = options_integer("--window", value, 1, 65536, &number, err);
        options->window = (size_t)number;
        return rc;
    case OPTION_WARMUP:
        rc = options_integer("--warm-up", value, 0, 1000000, &number, err);
        options->warm_up = (uint64_t)number;
        return rc;
    default:
        if (options->tensors_count == BENCH_TENSORS_MAX)
            return err_set(err, COMMAND_USAGE, "more than %d tensors", BENCH_TENSORS_MAX);
        options->tensors[options->tensors_count++] = value;
        return 0;
    }
}

double bench_cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* xorshift64*: the same numbers everywhere. */
static uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

static void fill_random(const struct tensor *tensor, uint64_t *state) {
    size_t bytes = 0;
    tensor_desc_bytes(&tensor->desc, &bytes);
    memset(tensor->data, 0, bytes);
    if (tensor->desc.dtype == DTYPE_FLOAT)
        for (size_t i = 0; i < bytes / sizeof(float); i++)
            ((float *)tensor->data)[i] = (float)(next_random(state) >> 40) / (1 << 24);
    else if (tensor->desc.dtype == DTYPE_UINT8)
        for (size_t i = 0; i < bytes; i++)
            ((uint8_t *)tensor->data)[i] = (uint8_t)(next_random(state) >> 56);
}

int bench_fill(const struct bench_options *options, struct tensor *tensors, size_t count,
               struct err *err) {
    struct tensor_desc descs[BENCH_TENSORS_MAX];
    struct feed *feed;
    struct feed_item item;
    uint64_t state = 1;
    if (count > BENCH_TENSORS_MAX)
        return err_set(err, -EINVAL, "more than %d inputs", BENCH_TENSORS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        descs[i] = tensors[i].desc;
        tensor_desc_bytes(&descs[i], &bytes);
        if (options->zero)
            memset(tensors[i].data, 0, bytes);
        else
            fill_random(&tensors[i], &state);
    }
    if (options->tensors_count == 0)
        return 0;
    int rc = feed_new_tensors(options->tensors, options->tensors_count, descs, count, &feed, err);
    if (rc != 0)
        return rc;
    rc = feed_next(feed, tensors, &item, err);
    feed_free(feed);
    return rc < 0 ? rc : 0;
}

static json_t *latency_json(const struct latency *latency) {
    json_t *object = json_object();
    double count = latency->count ? (double)latency->count : 1;
    json_object_set_new(object, "mean", json_number((double)latency->sum / count / 1000));
    json_object_set_new(object, "p50", json_number(latency_percentile(latency, 0.5) / 1000));
    json_object_set_new(object, "p95", json_number(latency_percentile(latency, 0.95) / 1000));
    json_object_set_new(object, "p99", json_number(latency_percentile(latency, 0.99) / 1000));
    json_object_set_new(object, "max", json_number((double)latency->max / 1000));
    return object;
}

static int print_json(const struct bench_options *options, const struct bench_result *result,
                      struct err *err) {
    json_t *root = json_object();
    if (options->address)
        json_object_set_new(root, "to", json_text(options->address));
    json_object_set_new(root, "model", json_text(result->model));
    if (options->address) {
        json_object_set_new(root, "window", json_integer((json_int_t)options->window));
    } else {
        json_object_set_new(root, "workers", json_integer(options->workers));
        json_object_set_new(root, "threads", json_integer(options->threads));
    }
    json_object_set_new(root, "frames", json_integer((json_int_t)result->latency.count));
    json_object_set_new(root, "failed", json_integer((json_int_t)result->failed));
    json_object_set_new(root, "seconds", json_number(result->seconds));
    json_object_set_new(root, "fps", json_number(result->fps));
    json_object_set_new(root, "latency_ms", latency_json(&result->latency));
    json_object_set_new(root,
                        options->address ? "client_cpu_seconds_per_frame" : "cpu_seconds_per_frame",
                        json_number(result->cpu_seconds_per_frame));
    if (result->macs)
        json_object_set_new(root, "gflops", json_number(2e-9 * (double)result->macs * result->fps));
    if (result->layers_count) {
        json_object_set_new(root, "machine", bench_machine_json(&result->machine));
        json_object_set_new(root, "layers", bench_layers_json(result));
    }
    return json_write_pretty(root, stdout, err);
}

static int print_text(const struct bench_options *options, const struct bench_result *result,
                      struct err *err) {
    const struct latency *l = &result->latency;
    if (result->layers_count) {
        int rc = bench_print_layers(result, err);
        if (rc != 0)
            return rc;
    }
    if (options->address)
        printf("%s at %s, %zu frames on their way at most\n", result->model, options->address,
               options->window);
    else
        printf("%s, %d workers with %d threads each\n", result->model, options->workers,
               options->threads);
    printf("frames      %llu in %.2f s", (unsigned long long)l->count, result->seconds);
    if (result->failed)
        printf(", %llu failed", (unsigned long long)result->failed);
    printf("\nthroughput  %.2f frames/s", result->fps);
    if (result->macs)
        printf(" (%.2f GFLOP/s)", 2e-9 * (double)result->macs * result->fps);
    printf("\nlatency     p50 %.3f ms  p95 %.3f ms  p99 %.3f ms  max %.3f ms\n",
           latency_percentile(l, 0.5) / 1000, latency_percentile(l, 0.95) / 1000,
           latency_percentile(l, 0.99) / 1000, (double)l->max / 1000);
    printf("CPU         %.6f s per frame%s\n", result->cpu_seconds_per_frame,
           options->address ? " in this client alone; the devices' own is not counted" : "");
    if (result->layers_count)
        bench_print_machine(&result->machine);
    return json_flush(stdout, err);
}

static int bench_machine(const struct bench_options *options, struct err *err) {
    struct machine machine;
    int rc = machine_measure(options->threads, &machine, err);
    if (rc != 0)
        return rc;
    if (options->json)
        return json_write_pretty(bench_machine_json(&machine), stdout, err);
    bench_print_machine(&machine);
    return json_flush(stdout, err);
}

static int run_bench(const struct command *command, int argc, char **argv, struct err *err) {
    struct bench_options options = {.threads = 1, .workers = 1, .warm_up = 2, .window = 64};
    struct bench_result *result = NULL;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != (options.address || options.machine ? 0 : 1) ||
        (options.address && options.machine))
        return err_set(err, COMMAND_USAGE,
                       "one of MODEL, --to HOST:PORT and --machine is needed; see: convoyctl bench "
                       "--help");
    if (options.address && options.layers)
        return err_set(err, COMMAND_USAGE, "--layers measures a MODEL on this device, not a line");
    if (options.machine)
        return bench_machine(&options, err);
    if (options.seconds == 0 && options.frames == 0)
        options.seconds = 5;
    result = calloc(1, sizeof(*result));
    if (!result)
        return err_set(err, -ENOMEM, "out of memory");
    rc = options.address ? bench_line(&options, result, err)
                         : bench_local(&options, argv[first], result, err);
    if (rc == 0)
        rc = options.json ? print_json(&options, result, err) : print_text(&options, result, err);
    if (rc == 0 && result->failed)
        rc = COMMAND_FAILED;
    bench_result_free(result);
    return rc;
}

void bench_result_free(struct bench_result *result) {
    if (!result)
        return;
    for (size_t i = 0; i < result->layers_count; i++) {
        free(result->layers[i].name);
        free(result->layers[i].op);
    }
    free(result->layers);
    free(result->model);
    free(result);
}

static const struct command_option option_rows[] = {
    {'c', "to", "HOST:PORT", "measure the line that starts there, not this device"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'s', "seconds", "S", "how long (default 5)"},
    {'f', "frames", "N", "how many frames, instead of or besides --seconds"},
    {'T', "threads", "N", "cores per frame (default 1)"},
    {'W', "workers", "N", "frames computed side by side (default 1)"},
    {'w', "window", "N", "frames on their way in the line at most (default 64)"},
    {OPTION_WARMUP, "warm-up", "N", "frames before the measurement (default 2 per worker)"},
    {OPTION_LAYERS, "layers", NULL, "time, algorithm and place on the roofline of each layer"},
    {OPTION_MACHINE, "machine", NULL, "measure this machine's peak and bandwidth alone"},
    {'i', "tensor", "[NAME=]FILE.npy", "an input (repeatable; default: random numbers)"},
    {'z', "zero", NULL, "zeros instead of random numbers"},
    {OPTION_WAIT, "wait", "SECONDS", "wait so long for the line to come up (default 0)"},
    OPTION_DIM_ROW,
    {'j', "json", NULL, "print JSON"},
    {0},
};

const struct command command_bench = {
    .name = "bench",
    .operands = "[OPTION...] MODEL.onnx | --to HOST:PORT | --machine",
    .summary = "Measures frames/s, latency and CPU time of this device or of a line",
    .details =
        "Latency of a line is the time from sending a frame to having its result; with a full "
        "window it is\nmostly waiting: --window 1 measures the way of one frame.\n\n--layers uses "
        "one worker. Bytes moved are those a layer cannot avoid: activations, weights "
        "as\nprepared, "
        "results, each once; one that finds them in a cache can pass 100 % of the memory roof.",
    .options = option_rows,
    .run = run_bench,
};
