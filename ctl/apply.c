#include "base/sha256.h"
#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/query.h"
#include "ctl/table.h"

#include "config/config.h"
#include "proto/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SILENCE_MS 10000 /* a device that says nothing for so long is gone */
#define REFUSED    3     /* exit code: nothing has changed */

struct apply_options {
    const char *address, *key;
    bool json;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct apply_options *options = arg;
    (void)err;
    if (key == 'c')
        options->address = value;
    else if (key == 'k')
        options->key = value;
    else
        options->json = true;
    return 0;
}

/* ---- asking ---- */

/* What the ingress' model must be, where the file's model lies here, too: its digest and true. A
 * file that names a model of another machine says nothing about it. */
static int read_digest(const struct config *config, uint8_t *ret_digest, bool *ret_known,
                       struct err *err) {
    struct network_dims dims = {0};
    struct network network;
    *ret_known = false;
    if (!config->model || access(config->model, R_OK) < 0)
        return 0;
    network_add_config_dims(&dims, config->dims, config->dims_count);
    int rc = network_open(config->model, &dims, &network, err);
    if (rc != 0)
        return err_prefix(err, rc, "%s:%d", config->file, config->line_model);
    memcpy(ret_digest, model_digest(network.model), SHA256_SIZE);
    *ret_known = true;
    network_close(&network);
    return 0;
}

static int ask(const struct apply_options *options, const struct config *config,
               Convoy__Applied **ret_applied, struct err *err) {
    Convoy__Apply apply = CONVOY__APPLY__INIT;
    uint8_t digest[SHA256_SIZE];
    size_t count = config->pipeline_count;
    bool known;
    int rc = read_digest(config, digest, &known, err);
    if (rc != 0)
        return rc;
    Convoy__PlanStage *stages = calloc(count, sizeof(*stages));
    Convoy__PlanStage **pointers = calloc(count, sizeof(*pointers));
    if (stages && pointers) {
        for (size_t i = 0; i < count; i++) {
            convoy__plan_stage__init(&stages[i]);
            stages[i].node = config->pipeline[i].node;
            stages[i].address = config->pipeline[i].address;
            stages[i].shares = config->pipeline[i].shares;
            if (config->pipeline[i].until)
                stages[i].until = config->pipeline[i].until;
            pointers[i] = &stages[i];
        }
        apply.n_stages = count;
        apply.stages = pointers;
        apply.model_digest.data = digest;
        apply.model_digest.len = known ? SHA256_SIZE : 0;
        rc = query_apply(options->address, options->key, SILENCE_MS, &apply, ret_applied, err);
    } else {
        rc = err_set(err, -ENOMEM, "out of memory");
    }
    free(stages);
    free(pointers);
    return rc;
}

/* ---- the answer ---- */

static int print_json(const Convoy__Applied *applied, struct err *err) {
    json_t *root = json_object(), *devices = json_array();
    char hex[SHA256_HEX];
    json_object_set_new(root, "applied", json_boolean(applied->code == CONVOY__CODE__CODE_OK));
    json_object_set_new(root, "code", json_text(message_code_name(applied->code)));
    json_object_set_new(root, "text", json_text(applied->text));
    json_object_set_new(root, "plan",
                        applied->plan.len == SHA256_SIZE
                            ? json_text(sha256_format(applied->plan.data, hex))
                            : json_null());
    for (size_t i = 0; i < applied->n_devices; i++) {
        const Convoy__DeviceReport *each = applied->devices[i];
        json_t *entry = json_object();
        json_object_set_new(entry, "node", json_text(each->node));
        json_object_set_new(entry, "address", json_text(each->address));
        json_object_set_new(entry, "code", json_text(message_code_name(each->code)));
        json_object_set_new(entry, "text", json_text(each->text));
        json_object_set_new(entry, "part_bytes", json_integer((json_int_t)each->part_bytes));
        json_object_set_new(entry, "sent_bytes", json_integer((json_int_t)each->sent_bytes));
        json_array_append_new(devices, entry);
    }
    json_object_set_new(root, "devices", devices);
    return json_write_pretty(root, stdout, err);
}

static void add_row(struct table *table, const Convoy__DeviceReport *each, bool is_ingress) {
    char text[48];
    table_cell(table, "%s", each->node);
    table_cell(table, "%s", each->address);
    table_cell(table, "%s", each->code == CONVOY__CODE__CODE_OK ? "prepared" : "not prepared");
    table_cell(table, "%s",
               is_ingress ? "-" : format_bytes((double)each->part_bytes, text, sizeof(text)));
    if (is_ingress || (each->code != CONVOY__CODE__CODE_OK && each->sent_bytes == 0))
        table_cell(table, "-");
    else if (each->sent_bytes == 0)
        table_cell(table, "it had it");
    else
        table_cell(table, "%s", format_bytes((double)each->sent_bytes, text, sizeof(text)));
    table_cell(table, "%s%s%s",
               each->code == CONVOY__CODE__CODE_OK ? "" : message_code_name(each->code),
               each->text[0] ? ": " : "", each->text);
}

static int print_text(const Convoy__Applied *applied, struct err *err) {
    static const char *const columns[] = {"node",  "address", "state", ">part",
                                          ">sent", "why",     NULL};
    struct table *table = table_new(columns);
    char hex[SHA256_HEX];
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < applied->n_devices; i++)
        add_row(table, applied->devices[i], i == 0);
    int rc = applied->n_devices > 0 ? table_print(table, stdout) : 0;
    table_free(table);
    if (rc != 0)
        return err_set(err, rc, "out of memory");
    if (applied->code == CONVOY__CODE__CODE_OK && applied->plan.len == SHA256_SIZE)
        printf("\nplan %.12s is active\n", sha256_format(applied->plan.data, hex));
    return json_flush(stdout, err);
}

static int apply_file(const struct apply_options *options, const struct config *config,
                      struct err *err) {
    Convoy__Applied *applied;
    if (config->pipeline_count == 0)
        return err_set(err, -EINVAL, "%s has no `pipeline:` to apply", config->file);
    int rc = ask(options, config, &applied, err);
    if (rc != 0)
        return rc;
    rc = options->json ? print_json(applied, err) : print_text(applied, err);
    if (rc == 0 && applied->code != CONVOY__CODE__CODE_OK)
        rc = err_set(err, REFUSED, "nothing has changed: %s: %s", message_code_name(applied->code),
                     applied->text);
    convoy__applied__free_unpacked(applied, NULL);
    return rc;
}

static int run_apply(const struct command *command, int argc, char **argv, struct err *err) {
    struct apply_options options = {0};
    struct config *config;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (!options.address || argc - first != 1)
        return err_set(err, COMMAND_USAGE,
                       "one FILE.yaml and --to HOST:PORT are needed; see: convoyctl apply --help");
    rc = config_load(argv[first], &config, err);
    if (rc != 0)
        return rc;
    rc = apply_file(&options, config, err);
    config_free(config);
    return rc;
}

static const struct command_option option_rows[] = {
    {'c', "to", "HOST:PORT", "the first device of the line, which has the model"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'j', "json", NULL, "print JSON"},
    {0},
};

const struct command command_apply = {
    .name = "apply",
    .operands = "[OPTION...] FILE.yaml --to HOST:PORT",
    .summary = "Deploys the pipeline of a file to all its devices at once",
    .details = "Every device is sent its part of the model where it does not have it, and prepares "
               "it while the line\ngoes on. Either all prepare and the new plan is used from the "
               "next frame on, or nothing changes.\nExit code 3: nothing has changed, because a "
               "device refused or could not be reached.",
    .options = option_rows,
    .run = run_apply,
};
