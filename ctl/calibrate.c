/* Runs the model layer by layer, for it is cut between layers: what a layer hands on is what may
 * travel. The smallest and the largest number of each such tensor over all frames are kept. */
#include "config/ranges.h"
#include "ctl/command.h"
#include "ctl/feed.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/progress.h"
#include "model/values.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TENSORS_MAX  256
#define SLACK_DIGITS 9 /* of a float: as many as tell it from its neighbours */

struct calibrate_options {
    struct network_dims dims;
    const char *tensors[TENSORS_MAX];
    size_t tensors_count;
    const char *out;
    int64_t frames;
};

/* One layer as a stage of its own. */
struct step {
    struct stage *stage;
    struct exec *exec;
    struct tensor *outputs;
    void **buffers;        /* NULL where an output is an input's bytes */
    struct values *values; /* of each output, over all frames */
    size_t count;
};

struct calibration {
    struct step *steps;
    size_t count;
    struct tensor *inputs; /* of the model */
    size_t inputs_count;
    uint64_t frames;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct calibrate_options *options = arg;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'f':
        return options_integer("--frames", value, 1, INT32_MAX, &options->frames, err);
    case 'o':
        options->out = value;
        return 0;
    default:
        if (options->tensors_count == TENSORS_MAX)
            return err_set(err, COMMAND_USAGE, "more than %d tensors", TENSORS_MAX);
        options->tensors[options->tensors_count++] = value;
        return 0;
    }
}

/* ---- the steps ------------------------------------------------------------------------------- */

static int make_buffer(const struct tensor_desc *desc, void **ret_buffer) {
    size_t bytes;
    int rc = tensor_desc_bytes(desc, &bytes);
    if (rc == 0 && !(*ret_buffer = tensor_buffer_new(bytes)))
        rc = -ENOMEM;
    return rc;
}

static int step_init(struct step *step, struct model *model, size_t layer, struct err *err) {
    const struct stage_options options = {.threads = 1};
    int rc = stage_new(model, layer, layer + 1, &options, &step->stage, err);
    if (rc < 0)
        return rc;
    const struct tensor_desc *descs = stage_outputs(step->stage, &step->count);
    step->outputs = calloc(step->count + 1, sizeof(*step->outputs));
    step->buffers = calloc(step->count + 1, sizeof(*step->buffers));
    step->values = calloc(step->count + 1, sizeof(*step->values));
    if (!step->outputs || !step->buffers || !step->values)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < step->count && rc == 0; i++) {
        step->outputs[i].desc = descs[i];
        step->values[i] = (struct values){.min = INFINITY, .max = -INFINITY};
        if (stage_output_source(step->stage, i) < 0)
            rc = make_buffer(&descs[i], &step->buffers[i]);
    }
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    return exec_new(step->stage, &step->exec, err);
}

static void step_fini(struct step *step) {
    exec_free(step->exec);
    for (size_t i = 0; step->buffers && i < step->count; i++)
        tensor_buffer_free(step->buffers[i]);
    free(step->outputs);
    free(step->buffers);
    free(step->values);
    stage_unref(step->stage);
}

static void calibration_fini(struct calibration *calibration) {
    for (size_t i = 0; calibration->steps && i < calibration->count; i++)
        step_fini(&calibration->steps[i]);
    for (size_t i = 0; calibration->inputs && i < calibration->inputs_count; i++)
        tensor_buffer_free(calibration->inputs[i].data);
    free(calibration->steps);
    free(calibration->inputs);
}

static int calibration_init(struct calibration *calibration, struct model *model, struct err *err) {
    const struct tensor_desc *descs = model_cut(model, 0, &calibration->inputs_count);
    calibration->count = model_layers_count(model);
    calibration->steps = calloc(calibration->count, sizeof(*calibration->steps));
    calibration->inputs = calloc(calibration->inputs_count + 1, sizeof(*calibration->inputs));
    int rc = calibration->steps && calibration->inputs ? 0 : -ENOMEM;
    for (size_t i = 0; i < calibration->inputs_count && rc == 0; i++) {
        calibration->inputs[i].desc = descs[i];
        rc = make_buffer(&descs[i], &calibration->inputs[i].data);
    }
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    for (size_t i = 0; i < calibration->count && rc == 0; i++)
        rc = step_init(&calibration->steps[i], model, i, err);
    return rc;
}

/* The next layer's inputs are the outputs of the one before: both are the cut's tensors, in its
 * order. */
static int run_frame(struct calibration *calibration, struct err *err) {
    const struct tensor *inputs = calibration->inputs;
    for (size_t i = 0; i < calibration->count; i++) {
        struct step *step = &calibration->steps[i];
        for (size_t j = 0; j < step->count; j++)
            step->outputs[j].data = step->buffers[j];
        int rc = exec_run(step->exec, inputs, step->outputs, err);
        if (rc < 0)
            return rc;
        for (size_t j = 0; j < step->count && i + 1 < calibration->count; j++) {
            struct values values;
            values_scan(&step->outputs[j], &values);
            step->values[j].min = fminf(step->values[j].min, values.min);
            step->values[j].max = fmaxf(step->values[j].max, values.max);
            step->values[j].odd += values.odd;
        }
        inputs = step->outputs;
    }
    calibration->frames++;
    return 0;
}

static int run_frames(struct calibration *calibration, struct feed *feed, uint64_t most,
                      struct err *err) {
    struct progress progress;
    struct feed_item item;
    uint64_t total = feed_total(feed);
    int rc = 1;
    progress_init(&progress, most && (!total || most < total) ? most : total, true);
    while (rc == 1 && (most == 0 || calibration->frames < most)) {
        rc = feed_next(feed, calibration->inputs, &item, err);
        if (rc == 1)
            rc = run_frame(calibration, err) < 0 ? -EINVAL : 1;
        progress_update(&progress, calibration->frames, "");
    }
    progress_clear(&progress);
    return rc < 0 ? rc : 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* A name as YAML's single quotes have it; one with control characters cannot be written. */
static bool write_name(FILE *file, const char *name) {
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            return false;
    fputs("  '", file);
    for (const char *c = name; *c; c++)
        fputs(*c == '\'' ? "''" : (char[]){*c, '\0'}, file);
    fputs("': ", file);
    return true;
}

/* Whether an earlier cut has this tensor, too; its numbers are the same there. */
static bool was_written(const struct calibration *calibration, size_t step, const char *name) {
    if (step == 0)
        return false;
    const struct step *before = &calibration->steps[step - 1];
    for (size_t i = 0; i < before->count; i++)
        if (strcmp(before->outputs[i].desc.name, name) == 0)
            return true;
    return false;
}

static void write_ranges(const struct calibration *calibration, const struct model *model,
                         FILE *file) {
    char hex[SHA256_HEX];
    fprintf(file, "# Made by convoyctl calibrate.\nmodel: %s\nframes: %llu\ntensors:\n",
            sha256_format(model_digest(model), hex), (unsigned long long)calibration->frames);
    for (size_t i = 0; i + 1 < calibration->count; i++)
        for (size_t j = 0; j < calibration->steps[i].count; j++) {
            const struct step *step = &calibration->steps[i];
            const struct values *values = &step->values[j];
            const char *name = step->outputs[j].desc.name;
            if (values->min <= values->max && fabsf(values->min) < 1e18f &&
                fabsf(values->max) < 1e18f && !was_written(calibration, i, name) &&
                write_name(file, name))
                fprintf(file, "[%.*g, %.*g]\n", SLACK_DIGITS, (double)values->min, SLACK_DIGITS,
                        (double)values->max);
        }
}

/* Into a file of its own first: a daemon never reads half a one. */
static int save(const struct calibration *calibration, const struct model *model, const char *path,
                struct err *err) {
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.part", path) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    FILE *file = fopen(temporary, "we");
    int rc = file ? 0 : -errno;
    if (file) {
        write_ranges(calibration, model, file);
        rc = ferror(file) ? -EIO : 0;
        if (fclose(file) != 0 && rc == 0)
            rc = -errno;
    }
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc < 0) {
        unlink(temporary);
        err_set(err, rc, "%s: %s", path, strerror(-rc));
    }
    free(temporary);
    return rc;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int calibrate(const struct network *network, const struct calibrate_options *options,
                     const char *const *sources, size_t count, struct err *err) {
    struct calibration calibration = {0};
    struct feed *feed = NULL;
    char *path = options->out ? strdup(options->out) : ranges_path(model_path(network->model));
    size_t inputs_count;
    const struct tensor_desc *inputs = model_cut(network->model, 0, &inputs_count);
    int rc = path ? 0 : err_set(err, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = options->tensors_count ? feed_new_tensors(options->tensors, options->tensors_count,
                                                       inputs, inputs_count, &feed, err)
                                    : feed_new_pictures(sources, count, network->sidecar, inputs,
                                                        inputs_count, &feed, err);
    if (rc == 0)
        rc = calibration_init(&calibration, network->model, err);
    if (rc == 0)
        rc = run_frames(&calibration, feed, (uint64_t)options->frames, err);
    if (rc == 0 && calibration.frames == 0)
        rc = err_set(err, -EINVAL, "there was no frame to look at");
    if (rc == 0)
        rc = save(&calibration, network->model, path, err);
    if (rc == 0)
        printf("%s: ranges over %llu frames\n", path, (unsigned long long)calibration.frames);
    calibration_fini(&calibration);
    feed_free(feed);
    free(path);
    return rc == 0 ? json_flush(stdout, err) : rc;
}

static int run_calibrate(const struct command *command, int argc, char **argv, struct err *err) {
    struct calibrate_options options = {0};
    struct network network = {0};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first < 1 || (argc - first > 1) == (options.tensors_count > 0))
        return err_set(err, COMMAND_USAGE,
                       "a MODEL and PICTUREs (or --tensor) are needed; see: convoyctl calibrate "
                       "--help");
    rc = network_open(argv[first], &options.dims, &network, err);
    if (rc == 0)
        rc = calibrate(&network, &options, (const char *const *)argv + first + 1,
                       (size_t)(argc - first - 1), err);
    network_close(&network);
    return rc;
}

static const struct command_option option_rows[] = {
    {'i', "tensor", "[NAME=]FILE.npy",
     "an input as a NumPy file (repeatable), instead of pictures"},
    {'f', "frames", "N", "stop after N frames"},
    {'o', "out", "FILE", "write there (default: MODEL.ranges.yaml beside the model)"},
    OPTION_DIM_ROW,
    {0},
};

const struct command command_calibrate = {
    .name = "calibrate",
    .operands = "[OPTION...] MODEL.onnx PICTURE|FOLDER|VIDEO...",
    .summary = "Notes between what numbers a model's activations lie, for devices to watch",
    .details =
        "Devices that have MODEL.ranges.yaml beside their model report frames whose tensors come\n"
        "with numbers far outside: half as much again as the range that was seen. Take some "
        "hundred\nframes of the kind that the line will see.",
    .options = option_rows,
    .run = run_calibrate,
};
