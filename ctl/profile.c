/* `profile`: how long each layer of a model takes on this device, or on another that is asked. */
#include "model/profile.h"

#include "ctl/command.h"
#include "ctl/interrupt.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/profile_file.h"
#include "ctl/survey.h"
#include "ctl/table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OPTION_FRESH = OPTION_FIRST, OPTION_KEEP, OPTION_NODE };

struct profile_command {
    struct network_dims dims;
    int workers, threads; /* 0: as the daemon would take */
    double seconds;
    bool json, fresh;
    const char *keep; /* NULL: the user's state; "none" */
    const char *node;
    const char *to, *key; /* the device that is asked; NULL: this one */
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct profile_command *options = arg;
    int64_t number = 0;
    int rc;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'j':
        options->json = true;
        return 0;
    case 's':
        return options_real("--seconds", value, 0, 3600, &options->seconds, err);
    case 'W':
        rc = options_integer("--workers", value, 1, PROFILE_WORKERS_MAX, &number, err);
        options->workers = (int)number;
        return rc;
    case 'T':
        rc = options_integer("--threads", value, 1, 256, &number, err);
        options->threads = (int)number;
        return rc;
    case OPTION_FRESH:
        options->fresh = true;
        return 0;
    case OPTION_KEEP:
        options->keep = value;
        return 0;
    case 't':
        options->to = value;
        return 0;
    case 'k':
        options->key = value;
        return 0;
    default:
        if (!*value || strlen(value) > 255)
            return err_set(err, COMMAND_USAGE, "--node must be a name of 1 to 255 bytes");
        options->node = value;
        return 0;
    }
}

/* What is to be measured, and where: all but the times. */
static int describe(const struct profile_command *options, const struct model *model,
                    struct survey *survey, struct profile_record *record, struct err *err) {
    uint8_t id[SHA256_SIZE];
    if (model_identity(model, id) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    sha256_format(id, record->model_id);
    if (survey)
        return survey_describe(survey, record, err);
    facts_read("", &record->facts);
    memcpy(record->cpu, record->facts.cpu, sizeof(record->cpu));
    record->cores = record->facts.cores;
    record->threads = options->threads ? options->threads : 1;
    int workers = record->cores / record->threads;
    record->workers = options->workers ? options->workers : workers > 1 ? workers : 1;
    if (options->node)
        snprintf(record->node, sizeof(record->node), "%s", options->node);
    else if (gethostname(record->node, sizeof(record->node)) < 0 || !*record->node)
        strcpy(record->node, "localhost");
    record->node[sizeof(record->node) - 1] = '\0';
    return 0;
}

static void on_interrupt(void *arg) {
    atomic_bool *stop = arg;
    atomic_store(stop, true);
}

static int measure_here(const struct profile_command *options, struct model *model,
                        const atomic_bool *stop, struct profile_record *record, struct err *err) {
    struct profile_options how = {.workers = record->workers,
                                  .threads = record->threads,
                                  .seconds = options->seconds,
                                  .stop = stop};
    struct profile profile;
    int rc = profile_measure(model, 0, model_layers_count(model), &how, &profile, err);
    if (rc < 0)
        return rc;
    record->layers = profile.last;
    record->layer_us = profile.layer_us;
    record->frames = profile.frames;
    record->when = (int64_t)time(NULL);
    facts_read("", &record->facts); /* as warm as it has become */
    return 0;
}

/* Takes what is kept, or measures and keeps it. Not being able to keep it is no failure. */
static int find_or_measure(const struct profile_command *options, struct model *model,
                           struct survey *survey, const atomic_bool *stop,
                           struct profile_record *record, bool *ret_kept, struct err *err) {
    bool keeps = !options->keep || strcmp(options->keep, "none") != 0;
    char *path = !keeps ? NULL : options->keep ? strdup(options->keep) : profile_kept_path();
    struct err why;
    int rc = 0;
    if (path && !options->fresh && profile_kept_take(path, record)) {
        *ret_kept = true;
    } else {
        rc = survey ? survey_measure(survey, model, options->seconds, record, err)
                    : measure_here(options, model, stop, record, err);
        if (rc == 0 && path && profile_kept_store(path, record, model, &why) < 0)
            fprintf(stderr, "convoyctl profile: not kept for later: %s\n", why.text);
    }
    free(path);
    return rc;
}

/* All that is to be known of this device, or of the one that is asked and the link to it. */
static int find_out(const struct profile_command *options, struct model *model,
                    struct profile_record *record, bool *ret_kept, struct err *err) {
    atomic_bool stop = false;
    struct interrupt *interrupt;
    struct survey *survey = NULL;
    int rc = interrupt_start(on_interrupt, &stop, &interrupt);
    if (rc < 0)
        return rc;
    if (options->to)
        rc = survey_new(options->to, options->key, &stop, &survey, err);
    if (rc == 0)
        rc = describe(options, model, survey, record, err);
    if (rc == 0 && survey)
        rc = survey_probe(survey, &record->link, err);
    if (rc == 0)
        rc = find_or_measure(options, model, survey, &stop, record, ret_kept, err);
    survey_free(survey);
    interrupt_stop(interrupt);
    return rc == -ECANCELED ? COMMAND_INTERRUPTED : rc;
}

static void print_facts(const struct profile_record *record) {
    const struct facts *facts = &record->facts;
    char total[32], available[32];
    printf("device   %s: %s, %d core%s", record->node, *record->cpu ? record->cpu : "unknown CPU",
           record->cores, record->cores == 1 ? "" : "s");
    if (!facts->memory_bytes && facts->memory_available)
        printf(", %s memory available",
               format_bytes((double)facts->memory_available, available, sizeof(available)));
    if (facts->memory_bytes)
        printf(", %s of %s memory available",
               format_bytes((double)facts->memory_available, available, sizeof(available)),
               format_bytes((double)facts->memory_bytes, total, sizeof(total)));
    if (!isnan(facts->celsius))
        printf(", %.0f degrees C", facts->celsius);
    if (facts->throttled == FACTS_YES)
        printf(", its clock is being held down");
    putchar('\n');
    if (record->link.is_measured)
        printf("link     %.0f Mbit/s, %.2f ms; costs the device %.2f ns of CPU time per byte and "
               "%.0f us per message\n",
               record->link.mbit, record->link.latency_ms, record->link.byte_ns,
               record->link.message_us);
}

static int print_text(const struct profile_record *record, const struct model *model, bool kept,
                      struct err *err) {
    static const char *const columns[] = {">#", "layer", "operator", ">us", ">share", NULL};
    struct table *table = table_new(columns);
    double sum = 0;
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < record->layers; i++)
        sum += record->layer_us[i];
    for (size_t i = 0; i < record->layers; i++) {
        table_cell(table, "%zu", i);
        table_cell(table, "%s", model_layer(model, i)->name);
        table_cell(table, "%s", model_layer(model, i)->op);
        table_cell(table, "%.1f", record->layer_us[i]);
        table_cell(table, "%.1f %%", sum > 0 ? 100 * record->layer_us[i] / sum : 0);
    }
    printf("model    %s\n", model_path(model));
    print_facts(record);
    putchar('\n');
    int rc = table_print(table, stdout);
    table_free(table);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    printf("\n%.2f ms per frame, %d side by side of %d thread%s each: %.1f frames/s (of the middle "
           "half of %zu "
           "frames%s)\n",
           sum / 1e3, record->workers, record->threads, record->threads == 1 ? "" : "s",
           sum > 0 ? 1e6 * record->workers / sum : 0, record->frames,
           kept ? ", measured earlier: --fresh measures again" : "");
    return json_flush(stdout, err);
}

static int run_profile(const struct command *command, int argc, char **argv, struct err *err) {
    struct profile_command options = {.seconds = 3};
    struct profile_record record = {.layers = 0};
    struct network network;
    bool kept = false;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != 1)
        return err_set(err, COMMAND_USAGE, "one MODEL is needed; see: convoyctl profile --help");
    if (options.to && (options.workers || options.threads || options.node))
        return err_set(err, COMMAND_USAGE,
                       "--workers, --threads and --node are the asked device's own with --to");
    if (options.key && !options.to)
        return err_set(err, COMMAND_USAGE, "--key is for --to");
    rc = network_open(argv[first], &options.dims, &network, err);
    if (rc < 0)
        return rc;
    rc = find_out(&options, network.model, &record, &kept, err);
    if (rc == 0)
        rc = options.json
                 ? json_write_pretty(profile_record_json(&record, network.model), stdout, err)
                 : print_text(&record, network.model, kept, err);
    profile_record_fini(&record);
    network_close(&network);
    return rc;
}

static const struct command_option option_rows[] = {
    {'t', "to", "HOST:PORT", "measure on that device, and the link to it"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'W', "workers", "N", "frames computed side by side (cores / threads)"},
    {'T', "threads", "N", "cores per frame (1)"},
    {'s', "seconds", "S", "measure at least this long (3)"},
    {OPTION_FRESH, "fresh", NULL, "measure again, even if this was measured before"},
    {OPTION_KEEP, "keep", "FILE", "where results are kept (~/.local/state/...); none: nowhere"},
    {OPTION_NODE, "node", "NAME", "name of this device in the result (the host name)"},
    OPTION_DIM_ROW,
    {'j', "json", NULL, "print JSON, for `convoyctl plan`"},
    {0},
};

const struct command command_profile = {
    .name = "profile",
    .operands = "[OPTION...] MODEL.onnx",
    .summary = "Measures how long each layer of a model takes on a device",
    .options = option_rows,
    .run = run_profile,
};
