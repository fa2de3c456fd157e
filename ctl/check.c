#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/table.h"

#include "config/config.h"
#include "plan/plan.h"
#include "proto/message.h"
#include "tls/key.h"

#include <errno.h>
#include <stdlib.h>

struct check_options {
    bool json;
    const char *node;
};

/* What a device would run. */
struct share {
    uint64_t params, macs, weight_bytes, arena_bytes, cut_bytes;
    size_t cut_tensors;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct check_options *options = arg;
    (void)err;
    if (key == 'n')
        options->node = value;
    else
        options->json = true;
    return 0;
}

static uint64_t cut_bytes(const struct model *model, size_t at, size_t *ret_count) {
    const struct tensor_desc *descs = model_cut(model, at, ret_count);
    uint64_t sum = 0;
    for (size_t i = 0; i < *ret_count; i++) {
        size_t bytes;
        if (tensor_desc_bytes(&descs[i], &bytes) == 0)
            sum += bytes;
    }
    return sum;
}

/* Prepares the stage as the device would, for its true memory. */
static int measure_share(struct model *model, const struct config *config,
                         const struct plan_stage *stage, struct share *ret_share, struct err *err) {
    struct share share = {0};
    struct stage_options options = {.threads = config->threads};
    struct stage *prepared;
    for (size_t i = stage->first; i < stage->last; i++) {
        const struct model_layer *layer = model_layer(model, i);
        share.params += layer->params;
        share.macs += layer->macs;
    }
    share.cut_bytes = cut_bytes(model, stage->last, &share.cut_tensors);
    int rc = stage_new(model, stage->first, stage->last, &options, &prepared, err);
    if (rc != 0)
        return err_prefix(err, rc, "%s", stage->node);
    share.weight_bytes = stage_weight_bytes(prepared);
    share.arena_bytes = stage_arena_bytes(prepared);
    stage_unref(prepared);
    *ret_share = share;
    return 0;
}

/* Memory a device needs: weights once, an arena per worker, the frames it holds. */
static uint64_t device_bytes(const struct config *config, const struct share *share,
                             uint64_t input_bytes) {
    uint64_t frames = (uint64_t)(config->queue > 0 ? config->queue : 0);
    return share->weight_bytes + (uint64_t)config->workers * share->arena_bytes +
           frames * (input_bytes + share->cut_bytes);
}

static json_t *stage_json(const struct config *config, const struct model *model,
                          const struct plan *plan, size_t index, const struct share *share) {
    const struct plan_stage *stage = &plan->stages[index];
    size_t ignored;
    uint64_t input_bytes = cut_bytes(model, stage->first, &ignored);
    json_t *entry = json_object();
    json_object_set_new(entry, "stage", json_integer((json_int_t)plan_stage_number(plan, index)));
    json_object_set_new(entry, "node", json_text(stage->node));
    json_object_set_new(entry, "address", json_text(stage->address));
    json_object_set_new(entry, "first", json_integer((json_int_t)stage->first));
    json_object_set_new(entry, "last", json_integer((json_int_t)stage->last - 1));
    json_object_set_new(entry, "first_layer", json_text(model_layer(model, stage->first)->name));
    json_object_set_new(entry, "last_layer", json_text(model_layer(model, stage->last - 1)->name));
    json_object_set_new(entry, "params", json_integer((json_int_t)share->params));
    json_object_set_new(entry, "macs", json_integer((json_int_t)share->macs));
    json_object_set_new(entry, "weight_bytes", json_integer((json_int_t)share->weight_bytes));
    json_object_set_new(entry, "arena_bytes", json_integer((json_int_t)share->arena_bytes));
    json_object_set_new(entry, "memory_bytes",
                        json_integer((json_int_t)device_bytes(config, share, input_bytes)));
    json_object_set_new(entry, "cut_tensors", json_integer((json_int_t)share->cut_tensors));
    json_object_set_new(entry, "cut_bytes", json_integer((json_int_t)share->cut_bytes));
    return entry;
}

static void add_row(struct table *table, const struct config *config, const struct model *model,
                    const struct plan_stage *stage, const struct share *share, uint64_t total_macs,
                    uint64_t input_bytes) {
    char a[32];
    table_cell(table, "%s", stage->node);
    table_cell(table, "%s", stage->address);
    table_cell(table, "%zu..%zu", stage->first, stage->last - 1);
    table_cell(table, "%s", model_layer(model, stage->last - 1)->name);
    table_cell(table, "%s", format_count((double)share->params, a, sizeof(a)));
    table_cell(table, "%.1f %%",
               total_macs ? 100.0 * (double)share->macs / (double)total_macs : 0.0);
    table_cell(table, "%s", format_bytes((double)share->weight_bytes, a, sizeof(a)));
    table_cell(table, "%s", format_bytes((double)share->arena_bytes, a, sizeof(a)));
    table_cell(table, "%s",
               format_bytes((double)device_bytes(config, share, input_bytes), a, sizeof(a)));
    table_cell(table, "%zu", share->cut_tensors);
    table_cell(table, "%s", format_bytes((double)share->cut_bytes, a, sizeof(a)));
}

static int print_text(const struct config *config, const struct model *model,
                      const struct plan *plan, const struct share *shares, struct err *err) {
    static const char *const columns[] = {"node",    "address",         "layers",   "until",
                                          ">params", ">MACs",           ">weights", ">arena",
                                          ">device", ">sends: tensors", ">bytes",   NULL};
    char hex[SHA256_HEX];
    uint64_t macs = 0;
    size_t ignored;
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < plan->count; i++)
        if (i == 0 || plan->stages[i].first != plan->stages[i - 1].first)
            macs += shares[i].macs; /* replicas run the same layers */
    for (size_t i = 0; i < plan->count; i++)
        add_row(table, config, model, &plan->stages[i], &shares[i], macs,
                cut_bytes(model, plan->stages[i].first, &ignored));
    printf("%s: %zu device%s, model %s, plan %.12s\n\n", config->file, plan->count,
           plan->count == 1 ? "" : "s", model_path(model), sha256_format(plan->id, hex));
    int rc = table_print(table, stdout);
    table_free(table);
    if (rc != 0)
        return err_set(err, rc, "out of memory");
    printf("\ndevice: weights, an arena for each of %d workers and %d queued frames. sends: what "
           "goes to the next device\nfor each frame; the last one's goes back to the first.\n",
           config->workers, config->queue);
    return json_flush(stdout, err);
}

static int print_json(const struct config *config, const struct model *model,
                      const struct plan *plan, const struct share *shares, struct err *err) {
    char hex[SHA256_HEX];
    json_t *root = json_object(), *stages = json_array();
    json_object_set_new(root, "file", json_text(config->file));
    json_object_set_new(root, "model", json_text(model_path(model)));
    json_object_set_new(root, "plan", json_text(sha256_format(plan->id, hex)));
    json_object_set_new(root, "layers", json_integer((json_int_t)model_layers_count(model)));
    json_object_set_new(root, "key", config->key ? json_text(config->key) : json_null());
    for (size_t i = 0; i < plan->count; i++)
        json_array_append_new(stages, stage_json(config, model, plan, i, &shares[i]));
    json_object_set_new(root, "stages", stages);
    return json_write_pretty(root, stdout, err);
}

/* The layer of each `until:`; the last stage has none. */
static int find_untils(const struct config *config, const struct model *model, size_t *untils,
                       struct err *err) {
    for (size_t i = 0; i < config->pipeline_count; i++) {
        const struct config_stage *stage = &config->pipeline[i];
        if (!stage->until)
            continue;
        int rc = model_find_layer(model, stage->until, &untils[i], err);
        if (rc != 0)
            return err_prefix(err, rc, "%s:%d:%d", config->file, stage->line, stage->column);
    }
    return 0;
}

/* What crosses a cut must fit the messages that every device takes. */
static int check_cut(const struct config *config, const struct model *model, size_t at,
                     struct err *err) {
    size_t count;
    uint64_t bytes = cut_bytes(model, at, &count);
    if (count > MESSAGE_TENSORS_MAX)
        return err_set(err, -EMSGSIZE, "%zu tensors cross the cut before layer %zu; at most %d may",
                       count, at, MESSAGE_TENSORS_MAX);
    if (bytes + count * TENSOR_ALIGN > config->max_payload)
        return err_set(err, -EMSGSIZE,
                       "the tensors at the cut before layer %zu do not fit `max_payload:` (%u "
                       "bytes); raise it on every device",
                       at, config->max_payload);
    return 0;
}

static int check_cuts(const struct config *config, const struct model *model,
                      const struct plan *plan, struct err *err) {
    int rc = check_cut(config, model, 0, err);
    for (size_t i = 0; rc == 0 && i < plan->count; i++)
        rc = check_cut(config, model, plan->stages[i].last, err);
    return rc == 0 ? 0 : err_prefix(err, rc, "%s", config->model);
}

/* Prepares and prints every stage of config's plan for model. */
static int check_plan(const struct config *config, struct model *model, bool json,
                      struct err *err) {
    struct plan *plan = NULL;
    uint8_t model_id[SHA256_SIZE];
    size_t *untils = calloc(config->pipeline_count + 1, sizeof(*untils));
    struct share *shares = calloc(config->pipeline_count + 1, sizeof(*shares));
    int rc = untils && shares ? find_untils(config, model, untils, err)
                              : err_set(err, -ENOMEM, "out of memory");
    if (rc == 0 && model_identity(model, model_id) < 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = plan_from_config(config, model_id, model_layers_count(model), untils, &plan, err);
    if (rc == 0)
        rc = check_cuts(config, model, plan, err);
    for (size_t i = 0; rc == 0 && i < plan->count; i++)
        rc = measure_share(model, config, &plan->stages[i], &shares[i], err);
    if (rc == 0)
        rc = json ? print_json(config, model, plan, shares, err)
                  : print_text(config, model, plan, shares, err);
    plan_free(plan);
    free(untils);
    free(shares);
    return rc;
}

/* A key file that is here must be good. One that is not may lie on the devices only: that is said,
 * and no error. */
static int check_key(const struct config *config, struct err *err) {
    struct tls_keys keys;
    struct err why;
    if (!config->key)
        return 0;
    int rc = tls_keys_load(config->key, &keys, &why);
    if (rc == 0)
        tls_keys_wipe(&keys);
    if (rc == -ENOENT) {
        fprintf(
            stderr,
            "convoyctl check: %s: `key:`: %s; every device needs it, and does not start without "
            "(`convoyctl keygen` makes one)\n",
            config->file, why.text);
        return 0;
    }
    return rc < 0 ? err_set(err, rc, "%s: `key:`: %s", config->file, why.text) : 0;
}

static int check_config(const struct config *config, bool json, struct err *err) {
    struct network_dims dims = {0};
    struct network network;
    int rc = check_key(config, err);
    if (rc != 0)
        return rc;
    if (config->pipeline_auto) {
        network_add_config_dims(&dims, config->dims, config->dims_count);
        rc = network_open(config->model, &dims, &network, err);
        if (rc != 0)
            return err_prefix(err, rc, "%s:%d", config->file, config->line_model);
        network_close(&network);
        printf("%s: device %s plans the line itself, with %zu neighbour%s, at %s\n", config->file,
               config->node, config->neighbours_count, config->neighbours_count == 1 ? "" : "s",
               config->listen);
        return json_flush(stdout, err);
    }
    if (config->pipeline_count == 0) {
        printf("%s: no pipeline: device %s would wait at %s for work\n", config->file, config->node,
               config->listen);
        return json_flush(stdout, err);
    }
    if (!config->model)
        return err_set(err, -EINVAL, "%s:%d: `pipeline:` needs a `model:`", config->file,
                       config->line_pipeline);
    network_add_config_dims(&dims, config->dims, config->dims_count);
    rc = network_open(config->model, &dims, &network, err);
    if (rc != 0)
        return err_prefix(err, rc, "%s:%d", config->file, config->line_model);
    rc = check_plan(config, network.model, json, err);
    network_close(&network);
    return rc;
}

static int run_check(const struct command *command, int argc, char **argv, struct err *err) {
    struct check_options options = {0};
    struct config *config;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != 1)
        return err_set(err, COMMAND_USAGE, "one FILE.yaml is needed; see: convoyctl check --help");
    rc = config_load(argv[first], &config, err);
    if (rc != 0)
        return rc;
    rc = options.node ? 0 : config_check_pipeline(config, err);
    if (rc == 0)
        rc = config_override(config, options.node, NULL, err);
    if (rc == 0)
        rc = check_config(config, options.json, err);
    config_free(config);
    return rc;
}

static const struct command_option option_rows[] = {
    {'n', "node", "NAME", "check as this device would (default: the file's node:, the host name)"},
    {'j', "json", NULL, "print JSON"},
    {0},
};

const struct command command_check = {
    .name = "check",
    .operands = "[OPTION...] FILE.yaml",
    .summary = "Says what each device of a configuration would run, or what is wrong with it",
    .details =
        "Every stage is prepared as its device would prepare it, one after the other, so that "
        "the memory shown\nis measured. Exit code 1 when a daemon would refuse the file: with "
        "--node the "
        "daemon of that name,\nelse that of any device of the pipeline.",
    .options = option_rows,
    .run = run_check,
};
