/* `plan`: the fastest line for a file of devices, or for those of a running ingress. */
#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/line_devices.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/pipeline_file.h"
#include "ctl/profile_file.h"
#include "ctl/table.h"

#include "config/devices.h"
#include "model/numbers.h"
#include "plan/planner.h"
#include "plan/simulate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_PER_US_OF_MBIT 0.125
#define TOLERANCE            0.01

enum { OPTION_SIMULATE = OPTION_FIRST, OPTION_JITTER, OPTION_FRAMES, OPTION_QUEUE, OPTION_FRESH };

struct plan_command {
    struct network_dims dims;
    const char *devices, *write;
    struct line_devices_options line; /* address NULL: the file says it all */
    bool json, simulate;
    double jitter;
    int64_t frames, queue;
};

/* Everything that a plan is made of and what it became. */
struct planning {
    struct network network;
    struct devices *devices;
    struct profile_record *records; /* of the devices, where they were asked; NULL: in files */
    size_t layers;
    struct model_numbers numbers;
    struct cost_network cost_network;
    double **layer_us; /* [devices->count] */
    struct cost_device *cost_devices;
    struct cost *cost;
    struct planner_result plan;
    double alone_period_us; /* of the ingress by itself; INFINITY: it does not fit */
    struct simulate_result simulation;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct plan_command *options = arg;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'D':
        options->devices = value;
        return 0;
    case 'w':
        options->write = value;
        return 0;
    case 't':
        options->line.address = value;
        return 0;
    case 'k':
        options->line.key = value;
        return 0;
    case 's':
        return options_real("--seconds", value, 0, 60, &options->line.seconds, err);
    case OPTION_FRESH:
        options->line.fresh = true;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case OPTION_SIMULATE:
        options->simulate = true;
        return 0;
    case OPTION_JITTER:
        options->simulate = true;
        return options_real("--jitter", value, 0, 1, &options->jitter, err);
    case OPTION_FRAMES:
        options->simulate = true;
        return options_integer("--frames", value, 16, SIMULATE_FRAMES_MAX, &options->frames, err);
    default:
        options->simulate = true;
        return options_integer("--queue", value, 1, 4096, &options->queue, err);
    }
}

/* ---- what goes in ------------------------------------------------------------------------------
 */

static int describe_network(struct planning *p, struct err *err) {
    if (model_numbers_init(&p->numbers, p->network.model) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    p->layers = p->numbers.layers;
    p->cost_network = (struct cost_network){
        .layers = p->layers,
        .cut_bytes = p->numbers.cut_bytes,
        .weight_bytes = p->numbers.weight_bytes,
        .arena_bytes = p->numbers.arena_bytes,
        .first_cut = p->devices->raw_input_stays ? p->numbers.first_mixed : 1};
    return 0;
}

static double rate_of(double mbit) {
    return mbit > 0 ? mbit * BYTES_PER_US_OF_MBIT : INFINITY;
}

/* What was measured of a device: its times are the caller's. */
static int find_record(struct planning *p, size_t i, struct profile_record *ret_record,
                       struct err *err) {
    const struct devices_entry *entry = &p->devices->entries[i];
    const char *path = entry->profile ? entry->profile : p->devices->profile;
    if (p->records) {
        *ret_record = p->records[i];
        p->records[i].layer_us = NULL;
        return 0;
    }
    if (!path)
        return err_set(err, -EINVAL,
                       "%s:%d:%d: no profile for '%s': measure with 'convoyctl profile --json' and "
                       "name the file as 'profile'",
                       p->devices->file, entry->line, entry->column, entry->node);
    return profile_file_load(path, p->network.model, ret_record, err);
}

static int describe_device(struct planning *p, size_t i, struct err *err) {
    const struct devices_entry *entry = &p->devices->entries[i];
    struct profile_record record;
    int rc = find_record(p, i, &record, err);
    if (rc < 0)
        return rc;
    p->layer_us[i] = record.layer_us;
    for (size_t l = 0; l < p->layers; l++)
        p->layer_us[i][l] /= entry->speed;
    p->cost_devices[i] =
        (struct cost_device){.node = entry->node,
                             .layer_us = p->layer_us[i],
                             .workers = entry->workers ? entry->workers : record.workers,
                             .frame_us = entry->frame_ms * 1e3,
                             .byte_us = entry->byte_ns / 1e3,
                             .message_us = entry->message_us,
                             .send_rate = rate_of(entry->send_mbit),
                             .receive_rate = rate_of(entry->receive_mbit),
                             .latency_us = entry->latency_ms * 1e3,
                             .memory = entry->memory ? entry->memory : UINT64_MAX};
    return 0;
}

static int describe_devices(struct planning *p, struct err *err) {
    p->layer_us = calloc(p->devices->count, sizeof(*p->layer_us));
    p->cost_devices = calloc(p->devices->count, sizeof(*p->cost_devices));
    if (!p->layer_us || !p->cost_devices)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < p->devices->count; i++) {
        int rc = describe_device(p, i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- planning ----------------------------------------------------------------------------------
 */

static int find_line(struct planning *p, struct err *err) {
    struct planner_options options = {.max_replicas = (size_t)p->devices->max_replicas,
                                      .tolerance = TOLERANCE};
    bool fits = cost_memory(p->cost, 0, 0, p->layers) <= p->cost_devices[0].memory;
    p->alone_period_us = fits ? 1e6 / cost_alone_fps(p->cost, 0) : INFINITY;
    return planner_run(p->cost, &options, &p->plan, err);
}

static int simulate(const struct plan_command *options, struct planning *p, struct err *err) {
    struct simulate_options how = {.frames = (size_t)options->frames,
                                   .jitter = options->jitter,
                                   .queue = (int)options->queue,
                                   .seed = 1};
    return simulate_run(p->cost, p->plan.line, &how, &p->simulation, err);
}

static void fini(struct planning *p) {
    simulate_fini(&p->simulation);
    cost_line_free(p->plan.line);
    cost_free(p->cost);
    for (size_t i = 0; p->layer_us && i < p->devices->count; i++)
        free(p->layer_us[i]);
    free(p->layer_us);
    free(p->cost_devices);
    model_numbers_fini(&p->numbers);
    if (p->devices)
        line_devices_free_records(p->records, p->devices->count);
    devices_free(p->devices);
    network_close(&p->network);
}

static size_t devices_used(const struct cost_line *line) {
    size_t used = 0;
    for (size_t k = 0; k < line->count; k++)
        used += line->stages[k].replicas;
    return used;
}

static const char *until_name(const struct planning *p, const struct cost_stage *stage) {
    return model_layer(p->network.model, stage->last - 1)->name;
}

/* Names of a stage's devices: "pi-b", or "pi-b + pi-c". */
static const char *stage_nodes(const struct planning *p, const struct cost_stage *stage, char *buf,
                               size_t size) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < stage->replicas && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%s", i ? " + " : "",
                                 p->devices->entries[stage->devices[i]].node);
    return buf;
}

/* The sentence about what else would be as fast; empty when every device is used. */
static const char *advice(const struct planning *p, char *buf, size_t size) {
    const struct cost_line *line = p->plan.line;
    size_t used = devices_used(line), count = p->devices->count;
    const char *ingress = p->devices->entries[0].node;
    if (used == 1 && count > 1)
        snprintf(
            buf, size,
            "One device, %s, is as fast as any line of these %zu: a cut would cost more than it "
            "gains.",
            ingress, count);
    else if (used < count)
        snprintf(buf, size,
                 "%zu of the %zu devices are enough: the other%s would not make it faster.", used,
                 count, count - used == 1 ? "" : "s");
    else
        buf[0] = '\0';
    return buf;
}

/* ---- output ------------------------------------------------------------------------------------
 */

static json_t *stage_json(const struct planning *p, size_t k) {
    const struct cost_stage *stage = &p->plan.line->stages[k];
    json_t *entry = json_object(), *nodes = json_array();
    for (size_t i = 0; i < stage->replicas; i++)
        json_array_append_new(nodes, json_text(p->devices->entries[stage->devices[i]].node));
    json_object_set_new(entry, "nodes", nodes);
    json_object_set_new(entry, "first", json_integer((json_int_t)stage->first));
    json_object_set_new(entry, "last", json_integer((json_int_t)stage->last - 1));
    json_object_set_new(entry, "until", json_text(until_name(p, stage)));
    json_object_set_new(entry, "time_ms", json_number(stage->time_us / 1e3));
    json_object_set_new(entry, "compute_ms", json_number(stage->compute_us / 1e3));
    json_object_set_new(entry, "send_ms", json_number(stage->send_us / 1e3));
    json_object_set_new(entry, "receive_ms", json_number(stage->receive_us / 1e3));
    json_object_set_new(entry, "cut_bytes",
                        json_integer((json_int_t)p->numbers.cut_bytes[stage->last]));
    json_object_set_new(entry, "memory_bytes", json_integer((json_int_t)stage->memory));
    if (p->simulation.stages) {
        const struct simulate_stage *busy = &p->simulation.stages[k];
        json_t *shares = json_object();
        json_object_set_new(shares, "compute", json_number(busy->computing));
        json_object_set_new(shares, "send", json_number(busy->sending));
        json_object_set_new(shares, "receive", json_number(busy->receiving));
        json_object_set_new(entry, "busy", shares);
    }
    return entry;
}

static json_t *simulation_json(const struct planning *p) {
    json_t *root = json_object();
    json_object_set_new(root, "fps", json_number(1e6 / p->simulation.period_us));
    json_object_set_new(root, "p50_ms", json_number(p->simulation.p50_us / 1e3));
    json_object_set_new(root, "p99_ms", json_number(p->simulation.p99_us / 1e3));
    json_object_set_new(root, "frames", json_integer((json_int_t)p->simulation.frames));
    return root;
}

static json_t *plan_json(const struct planning *p) {
    const struct cost_line *line = p->plan.line;
    json_t *root = json_object(), *stages = json_array(), *bottleneck = json_object();
    char text[512];
    for (size_t k = 0; k < line->count; k++)
        json_array_append_new(stages, stage_json(p, k));
    json_object_set_new(root, "model", json_text(model_path(p->network.model)));
    json_object_set_new(root, "stages", stages);
    json_object_set_new(root, "fps", json_number(1e6 / line->period_us));
    json_object_set_new(root, "latency_ms", json_number(line->latency_us / 1e3));
    json_object_set_new(root, "latency_proved", json_boolean(p->plan.latency_proved));
    json_object_set_new(root, "one_fps", json_number(1e6 / p->alone_period_us));
    json_object_set_new(root, "speedup", json_number(p->alone_period_us / line->period_us));
    json_object_set_new(root, "ideal_fps", json_number(cost_ideal_fps(p->cost)));
    json_object_set_new(root, "ideal_speedup",
                        json_number(cost_ideal_fps(p->cost) / cost_alone_fps(p->cost, 0)));
    json_object_set_new(bottleneck, "stage", json_integer((json_int_t)line->bottleneck));
    json_object_set_new(bottleneck, "resource", json_text(cost_resource_name(line->resource)));
    json_object_set_new(root, "bottleneck", bottleneck);
    json_object_set_new(root, "advice", json_text(advice(p, text, sizeof(text))));
    if (p->simulation.stages)
        json_object_set_new(root, "simulation", simulation_json(p));
    return root;
}

static void add_stage_row(struct table *table, const struct planning *p, size_t k) {
    const struct cost_stage *stage = &p->plan.line->stages[k];
    char nodes[128], bytes[32];
    table_cell(table, "%zu", k + 1);
    table_cell(table, "%s", stage_nodes(p, stage, nodes, sizeof(nodes)));
    table_cell(table, "%zu-%zu", stage->first, stage->last - 1);
    table_cell(table, "%s", stage->last < p->layers ? until_name(p, stage) : "(end)");
    table_cell(table, "%.2f", stage->compute_us / 1e3);
    table_cell(table, "%.2f", stage->receive_us / 1e3);
    table_cell(table, "%.2f", stage->send_us / 1e3);
    table_cell(table, "%s",
               stage->last < p->layers
                   ? format_bytes((double)p->numbers.cut_bytes[stage->last], bytes, sizeof(bytes))
                   : "-");
    table_cell(table, "%s", format_bytes((double)stage->memory, bytes, sizeof(bytes)));
}

static void print_summary(const struct planning *p) {
    static const char *const words[] = {"computing", "sending", "receiving"};
    const struct cost_line *line = p->plan.line;
    char text[512];
    printf("\npredicted  %.2f frames/s, %.2f ms from picture to result when the line is idle\n",
           1e6 / line->period_us, line->latency_us / 1e3);
    if (isinf(p->alone_period_us))
        printf("one        the model does not fit %s alone\n", p->devices->entries[0].node);
    else
        printf("one        %.2f frames/s on %s alone: the line is %.2f times as fast\n",
               1e6 / p->alone_period_us, p->devices->entries[0].node,
               p->alone_period_us / line->period_us);
    printf("bound      %.2f frames/s if work could be cut anywhere and nothing had to travel (%.2f "
           "times %s)\n",
           cost_ideal_fps(p->cost), cost_ideal_fps(p->cost) / cost_alone_fps(p->cost, 0),
           p->devices->entries[0].node);
    printf("limit      %s of stage %zu (%s)\n", words[line->resource], line->bottleneck + 1,
           stage_nodes(p, &line->stages[line->bottleneck], text, sizeof(text)));
    if (p->simulation.stages)
        printf("simulated  %.2f frames/s; under this load half of the frames take up to %.2f ms, "
               "99 %% "
               "up to %.2f ms (%zu frames)\n",
               1e6 / p->simulation.period_us, p->simulation.p50_us / 1e3,
               p->simulation.p99_us / 1e3, p->simulation.frames);
    if (*advice(p, text, sizeof(text)))
        printf("\n%s\n", text);
}

static int print_plan(const struct planning *p, struct err *err) {
    static const char *const columns[] = {">#",       "device", ">layers", "until",   ">compute ms",
                                          ">receive", ">send",  ">cut",    ">memory", NULL};
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t k = 0; k < p->plan.line->count; k++)
        add_stage_row(table, p, k);
    int rc = table_print(table, stdout);
    table_free(table);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    print_summary(p);
    return json_flush(stdout, err);
}

/* ---- the pipeline ------------------------------------------------------------------------------
 */

/* How `until:` names a layer: by its name, or by its index where that name means another. */
static const char *until_word(const struct planning *p, const struct cost_stage *stage,
                              char index[24]) {
    size_t found;
    const char *name = until_name(p, stage);
    if (model_find_layer(p->network.model, name, &found, NULL) == 0 && found == stage->last - 1)
        return name;
    snprintf(index, 24, "%zu", stage->last - 1);
    return index;
}

static int write_pipeline(const struct planning *p, const char *path, struct err *err) {
    const struct cost_line *line = p->plan.line;
    size_t count = 0, used = devices_used(line);
    struct pipeline_stage *stages = calloc(used + 1, sizeof(*stages));
    char(*words)[24] = calloc(line->count, sizeof(*words));
    int rc = stages && words ? 0 : err_set(err, -ENOMEM, "out of memory");
    for (size_t k = 0; rc == 0 && k < line->count; k++) {
        const struct cost_stage *stage = &line->stages[k];
        const char *until = stage->last < p->layers ? until_word(p, stage, words[k]) : NULL;
        for (size_t i = 0; rc == 0 && i < stage->replicas; i++) {
            const struct devices_entry *entry = &p->devices->entries[stage->devices[i]];
            stages[count++] = (struct pipeline_stage){
                .node = entry->node, .address = entry->address, .until = until, .shares = i > 0};
            if (!entry->address)
                rc =
                    err_set(err, -EINVAL, "%s:%d:%d: '%s' has no 'address', which a pipeline needs",
                            p->devices->file, entry->line, entry->column, entry->node);
        }
    }
    if (rc == 0)
        rc = pipeline_file_write(path, model_path(p->network.model), stages, count, err);
    free(stages);
    free(words);
    return rc;
}

/* The devices, as the file has them or as they say themselves. */
static int find_devices(const struct plan_command *options, struct planning *p, struct err *err) {
    if (!options->line.address)
        return devices_load(options->devices, &p->devices, err);
    return line_devices_find(&options->line, p->network.model, &p->devices, &p->records, err);
}

static int run_plan(const struct command *command, int argc, char **argv, struct err *err) {
    struct plan_command options = {.line = {.seconds = 1}};
    struct planning p = {.devices = NULL};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != 1 || !options.devices == !options.line.address)
        return err_set(err, COMMAND_USAGE,
                       "one MODEL and either --devices FILE or --to HOST:PORT are needed; see: "
                       "convoyctl plan --help");
    rc = network_open(argv[first], &options.dims, &p.network, err);
    if (rc == 0)
        rc = find_devices(&options, &p, err);
    if (rc == 0)
        rc = describe_network(&p, err);
    if (rc == 0)
        rc = describe_devices(&p, err);
    if (rc == 0)
        rc = cost_new(&p.cost_network, p.cost_devices, p.devices->count, &p.cost, err);
    if (rc == 0)
        rc = find_line(&p, err);
    if (rc == 0 && options.simulate)
        rc = simulate(&options, &p, err);
    if (rc == 0 && options.write)
        rc = write_pipeline(&p, options.write, err);
    if (rc == 0)
        rc = options.json ? json_write_pretty(plan_json(&p), stdout, err) : print_plan(&p, err);
    fini(&p);
    return rc;
}

static const struct command_option option_rows[] = {
    {'D', "devices", "FILE", "the devices, as convoy-devices.yaml(5) describes them"},
    {'t', "to", "HOST:PORT", "... or those of a running ingress: its line, and its neighbours"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'s', "seconds", "S", "measure each of these at least this long (1)"},
    {OPTION_FRESH, "fresh", NULL, "measure again what was measured before"},
    {'w', "write", "FILE", "put the pipeline into this YAML; what else it says stays"},
    {OPTION_SIMULATE, "simulate", NULL, "run the line event by event, with queues and credits"},
    {OPTION_JITTER, "jitter", "SHARE", "... with times that vary: standard deviation (0)"},
    {OPTION_FRAMES, "frames", "N", "... for so many frames"},
    {OPTION_QUEUE, "queue", "N", "... with so many frames held by each device (4 + workers)"},
    OPTION_DIM_ROW,
    {'j', "json", NULL, "print JSON"},
    {0},
};

const struct command command_plan = {
    .name = "plan",
    .operands = "[OPTION...] MODEL.onnx --devices FILE.yaml | --to HOST:PORT",
    .summary = "Finds the cuts that make the fastest line of some devices",
    .options = option_rows,
    .run = run_plan,
};
