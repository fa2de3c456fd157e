#include "ctl/command.h"
#include "ctl/feed.h"
#include "ctl/interrupt.h"
#include "ctl/labels.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/progress.h"
#include "ctl/report.h"
#include "ctl/table.h"
#include "model/runner.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TENSORS_MAX 256

enum { OPTION_NO_TIME = OPTION_FIRST };

struct run_options {
    struct network_dims dims;
    struct report_options report;
    const char *tensors[TENSORS_MAX];
    size_t tensors_count;
    int64_t threads, frames;
};

struct run_counts {
    uint64_t done, failed, busy_us;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct run_options *options = arg;
    int64_t number;
    int rc = 0;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'j':
        options->report.json = true;
        return 0;
    case 'q':
        options->report.quiet = true;
        return 0;
    case OPTION_NO_TIME:
        options->report.time = false;
        return 0;
    case 'o':
        options->report.out_dir = value;
        return 0;
    case 'T':
        return options_integer("--threads", value, 1, 256, &options->threads, err);
    case 'f':
        return options_integer("--frames", value, 1, INT64_MAX, &options->frames, err);
    case 't':
        rc = options_integer("--top", value, 1, LABELS_TOP_MAX, &number, err);
        if (rc == 0)
            options->report.top = (size_t)number;
        return rc;
    default:
        if (options->tensors_count == TENSORS_MAX)
            return err_set(err, COMMAND_USAGE, "more than %d tensors", TENSORS_MAX);
        options->tensors[options->tensors_count++] = value;
        return 0;
    }
}

/* On the thread of interrupt.h. */
struct stopper {
    atomic_bool stopped;
    struct feed *feed;
};

static void on_interrupt(void *arg) {
    struct stopper *stopper = arg;
    atomic_store(&stopper->stopped, true);
    feed_interrupt(stopper->feed);
}

/* One frame after the other until the end, an interruption or an error of our own. */
static int run_frames(struct runner *runner, struct feed *feed, struct report *report,
                      const struct run_options *options, struct run_counts *counts,
                      struct err *err) {
    struct progress progress;
    struct feed_item item;
    uint64_t total = feed_total(feed);
    if (options->frames && (total == 0 || (uint64_t)options->frames < total))
        total = (uint64_t)options->frames;
    progress_init(&progress, total,
                  total != 1 && (!isatty(STDOUT_FILENO) || options->report.quiet));
    int rc = 0;
    while (rc == 0 &&
           (options->frames == 0 || counts->done + counts->failed < (uint64_t)options->frames)) {
        struct err why = {{0}};
        int got = feed_next(feed, runner->inputs, &item, &why);
        if (got == 0 || got == -ECANCELED) {
            rc = got;
            break;
        }
        uint64_t start = clock_us();
        if (got > 0)
            got = runner_run(runner, &why) == 0 ? 1 : -EINVAL;
        uint64_t us = clock_us() - start;
        if (got < 0) {
            progress_clear(&progress);
            counts->failed++;
            rc = report_failure(report, &item, why.text, err);
            continue;
        }
        counts->done++;
        counts->busy_us += us;
        rc = report_result(report, &item, runner->outputs, (double)us / 1000, err);
        progress_update(&progress, counts->done + counts->failed, "");
    }
    progress_clear(&progress);
    return rc;
}

static void print_summary(const struct run_counts *counts, uint64_t us) {
    char time[32];
    double seconds = (double)us / 1e6;
    if (counts->done + counts->failed < 2)
        return;
    fprintf(stderr, "%llu frames in %s (%.1f frames/s, %.2f ms each)",
            (unsigned long long)counts->done, format_seconds(seconds, time, sizeof(time)),
            seconds > 0 ? (double)counts->done / seconds : 0,
            counts->done ? (double)counts->busy_us / 1000 / (double)counts->done : 0);
    if (counts->failed)
        fprintf(stderr, ", %llu failed", (unsigned long long)counts->failed);
    fputc('\n', stderr);
}

/* Feeds and runs a stage that is ready. */
static int run_stage(const struct network *network, struct stage *stage,
                     const struct run_options *options, const char *const *sources,
                     size_t sources_count, struct err *err) {
    struct report_options report_options = options->report;
    struct runner runner = {0};
    struct stopper stopper = {0};
    struct run_counts counts = {0};
    struct interrupt *interrupt = NULL;
    struct report *report = NULL;
    size_t inputs_count, outputs_count;
    const struct tensor_desc *inputs = stage_inputs(stage, &inputs_count);
    const struct tensor_desc *outputs = stage_outputs(stage, &outputs_count);
    int rc = options->tensors_count ? feed_new_tensors(options->tensors, options->tensors_count,
                                                       inputs, inputs_count, &stopper.feed, err)
                                    : feed_new_pictures(sources, sources_count, network->sidecar,
                                                        inputs, inputs_count, &stopper.feed, err);
    if (rc != 0)
        goto done;
    report_options.form = feed_form(stopper.feed);
    rc =
        report_new(&report_options, network->sidecar, outputs, outputs_count, stdout, &report, err);
    if (rc == 0)
        rc = interrupt_start(on_interrupt, &stopper, &interrupt);
    if (rc == 0)
        rc = runner_init(&runner, stage, err);
    if (rc != 0)
        goto done;
    uint64_t start = clock_us();
    rc = run_frames(&runner, stopper.feed, report, options, &counts, err);
    print_summary(&counts, clock_us() - start);
    if (rc == 0)
        rc = report_finish(report, err);
    if (rc == -ECANCELED)
        rc = err_set(err, COMMAND_INTERRUPTED, "interrupted");
    if (rc == 0 && counts.failed)
        rc = COMMAND_FAILED;

done:
    interrupt_stop(interrupt);
    runner_fini(&runner);
    report_free(report);
    feed_free(stopper.feed);
    return rc;
}

static int run_run(const struct command *command, int argc, char **argv, struct err *err) {
    struct run_options options = {.report = {.time = true, .top = 5}, .threads = 1};
    struct network network = {0};
    struct stage *stage = NULL;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    int operands = argc - first;
    if (operands < 1 || (operands < 2 && options.tensors_count == 0))
        return err_set(err, COMMAND_USAGE,
                       "a MODEL and a PICTURE (or --tensor) are needed; see: convoyctl run --help");
    if (operands > 1 && options.tensors_count)
        return err_set(err, COMMAND_USAGE, "pictures or --tensor, not both");
    rc = network_open(argv[first], &options.dims, &network, err);
    if (rc != 0)
        return rc;
    if (!network.has_sidecar && options.tensors_count == 0)
        fprintf(
            stderr,
            "convoyctl run: %s has no sidecar (.yaml) beside it: pictures are cropped, RGB, from "
            "0 to 1\n",
            argv[first]);
    struct stage_options stage_options = {.threads = (int)options.threads};
    rc =
        stage_new(network.model, 0, model_layers_count(network.model), &stage_options, &stage, err);
    if (rc == 0)
        rc = run_stage(&network, stage, &options, (const char *const *)argv + first + 1,
                       (size_t)operands - 1, err);
    stage_unref(stage);
    network_close(&network);
    return rc;
}

static const struct command_option option_rows[] = {
    {'i', "tensor", "[NAME=]FILE.npy",
     "an input as a NumPy file (repeatable), instead of pictures"},
    {'o', "out", "DIR", "write the outputs as DIR/OUTPUT.npy"},
    {'t', "top", "N", "classes to print per picture (default 5)"},
    {'T', "threads", "N", "cores per frame (default 1)"},
    {'f', "frames", "N", "stop after N frames"},
    {'j', "json", NULL, "print a line of JSON per frame"},
    {OPTION_NO_TIME, "no-time", NULL, "leave out the milliseconds"},
    {'q', "quiet", NULL, "print nothing for frames that succeed"},
    OPTION_DIM_ROW,
    {0},
};

const struct command command_run = {
    .name = "run",
    .operands = "[OPTION...] MODEL.onnx PICTURE|FOLDER|VIDEO|CAMERA|-...",
    .summary = "Runs a model on pictures or tensors in this process, without daemons",
    .details =
        "A tensor file holds one frame, several stacked (one more leading dimension) or several "
        "joined\n(a multiple of the first dimension); results are laid out alike. MODEL.yaml "
        "beside "
        "the model says\nhow a picture becomes its input and names the classes.",
    .options = option_rows,
    .run = run_run,
};
