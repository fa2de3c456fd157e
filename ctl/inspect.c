#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/table.h"

#include <errno.h>

struct inspect_options {
    bool json;
    struct network_dims dims;
};

struct totals {
    uint64_t params, macs, weight_bytes, largest_output;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct inspect_options *options = arg;
    if (key == 'd')
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    options->json = true;
    return 0;
}

static uint64_t descs_bytes(const struct tensor_desc *descs, size_t count) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        if (tensor_desc_bytes(&descs[i], &bytes) == 0)
            sum += bytes;
    }
    return sum;
}

static struct totals add_up(const struct model *model) {
    struct totals t = {0};
    for (size_t i = 0; i < model_layers_count(model); i++) {
        const struct model_layer *layer = model_layer(model, i);
        t.params += layer->params;
        t.macs += layer->macs;
        t.weight_bytes += layer->weight_bytes;
        if (layer->output_bytes > t.largest_output)
            t.largest_output = layer->output_bytes;
    }
    return t;
}

/* ---- JSON ---- */

static json_t *desc_json(const struct tensor_desc *desc) {
    json_t *entry = json_object();
    json_object_set_new(entry, "name", json_text(desc->name));
    json_object_set_new(entry, "type", json_text(dtype_name(desc->dtype)));
    json_object_set_new(entry, "shape", json_shape(desc));
    if (desc->bounded) { /* dimensions whose number is the most they can be */
        json_t *list = json_array();
        for (int i = 0; i < desc->rank; i++)
            if (desc->bounded >> i & 1U)
                json_array_append_new(list, json_integer(i));
        json_object_set_new(entry, "bounded", list);
    }
    json_object_set_new(entry, "bytes", json_integer((json_int_t)descs_bytes(desc, 1)));
    return entry;
}

static json_t *descs_json(const struct tensor_desc *descs, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, desc_json(&descs[i]));
    return list;
}

static json_t *cut_json(const struct model *model, size_t at) {
    size_t count;
    const struct tensor_desc *descs = model_cut(model, at, &count);
    json_t *cut = json_object();
    json_object_set_new(cut, "tensors", descs_json(descs, count));
    json_object_set_new(cut, "bytes", json_integer((json_int_t)descs_bytes(descs, count)));
    return cut;
}

static json_t *layer_json(const struct model *model, size_t index) {
    const struct model_layer *layer = model_layer(model, index);
    json_t *entry = json_object();
    json_object_set_new(entry, "index", json_integer((json_int_t)index));
    json_object_set_new(entry, "name", json_text(layer->name));
    json_object_set_new(entry, "op", json_text(layer->op));
    json_object_set_new(entry, "outputs", descs_json(layer->outputs, layer->outputs_count));
    json_object_set_new(entry, "params", json_integer((json_int_t)layer->params));
    json_object_set_new(entry, "macs", json_integer((json_int_t)layer->macs));
    json_object_set_new(entry, "weight_bytes", json_integer((json_int_t)layer->weight_bytes));
    json_object_set_new(entry, "output_bytes", json_integer((json_int_t)layer->output_bytes));
    json_object_set_new(entry, "cut", cut_json(model, index + 1));
    return entry;
}

static json_t *model_json(const struct model *model) {
    char hex[SHA256_HEX];
    size_t count;
    struct totals t = add_up(model);
    json_t *root = json_object(), *layers = json_array(), *totals = json_object();
    json_object_set_new(root, "model", json_text(model_path(model)));
    json_object_set_new(root, "sha256", json_text(sha256_format(model_digest(model), hex)));
    const struct tensor_desc *descs = model_cut(model, 0, &count);
    json_object_set_new(root, "inputs", descs_json(descs, count));
    descs = model_cut(model, model_layers_count(model), &count);
    json_object_set_new(root, "outputs", descs_json(descs, count));
    for (size_t i = 0; i < model_layers_count(model); i++)
        json_array_append_new(layers, layer_json(model, i));
    json_object_set_new(root, "layers", layers);
    json_object_set_new(totals, "layers", json_integer((json_int_t)model_layers_count(model)));
    json_object_set_new(totals, "params", json_integer((json_int_t)t.params));
    json_object_set_new(totals, "macs", json_integer((json_int_t)t.macs));
    json_object_set_new(totals, "weight_bytes", json_integer((json_int_t)t.weight_bytes));
    json_object_set_new(root, "totals", totals);
    return root;
}

/* ---- text ---- */

static void print_descs(const char *what, const struct tensor_desc *descs, size_t count) {
    char text[160];
    for (size_t i = 0; i < count; i++)
        printf("%-8s %s  %s\n", what, descs[i].name,
               tensor_desc_format(&descs[i], text, sizeof(text)));
}

static void add_layer_row(struct table *table, const struct model *model, size_t index) {
    const struct model_layer *layer = model_layer(model, index);
    char shape[160], text[32];
    size_t count;
    const struct tensor_desc *cut = model_cut(model, index + 1, &count);
    table_cell(table, "%zu", index);
    table_cell(table, "%s", layer->name);
    table_cell(table, "%s", layer->op);
    if (layer->outputs_count == 0)
        table_cell(table, "-");
    else if (layer->outputs_count == 1)
        table_cell(table, "%s", tensor_desc_format(&layer->outputs[0], shape, sizeof(shape)));
    else
        table_cell(table, "%s +%zu", tensor_desc_format(&layer->outputs[0], shape, sizeof(shape)),
                   layer->outputs_count - 1);
    table_cell(table, "%s", format_count((double)layer->params, text, sizeof(text)));
    table_cell(table, "%s", format_count((double)layer->macs, text, sizeof(text)));
    table_cell(
        table, "%s",
        format_bytes((double)(layer->weight_bytes + layer->output_bytes), text, sizeof(text)));
    table_cell(table, "%zu", count);
    table_cell(table, "%s", format_bytes((double)descs_bytes(cut, count), text, sizeof(text)));
}

static int print_model(const struct model *model, struct err *err) {
    static const char *const columns[] = {">#",    "layer",   "operator",      "output", ">params",
                                          ">MACs", ">memory", ">cut: tensors", ">bytes", NULL};
    char hex[SHA256_HEX], params[32], macs[32], weights[32], output[32];
    size_t count, layers = model_layers_count(model);
    struct totals t = add_up(model);
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    printf("model    %s\nsha256   %s\n", model_path(model),
           sha256_format(model_digest(model), hex));
    const struct tensor_desc *descs = model_cut(model, 0, &count);
    print_descs("input", descs, count);
    descs = model_cut(model, layers, &count);
    print_descs("output", descs, count);
    putchar('\n');
    for (size_t i = 0; i < layers; i++)
        add_layer_row(table, model, i);
    int rc = table_print(table, stdout);
    table_free(table);
    if (rc != 0)
        return err_set(err, rc, "out of memory");
    printf("\n%zu layers, %s parameters, %s MACs per frame, %s of weights, largest output %s\n",
           layers, format_count((double)t.params, params, sizeof(params)),
           format_count((double)t.macs, macs, sizeof(macs)),
           format_bytes((double)t.weight_bytes, weights, sizeof(weights)),
           format_bytes((double)t.largest_output, output, sizeof(output)));
    puts(
        "memory: the layer's weights and its output. cut: what travels when a stage ends with this "
        "layer;\nwrite its name or number as `until:` in the pipeline.");
    return json_flush(stdout, err);
}

static int run_inspect(const struct command *command, int argc, char **argv, struct err *err) {
    struct inspect_options options = {0};
    struct network network;
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != 1)
        return err_set(err, COMMAND_USAGE, "one MODEL is needed; see: convoyctl inspect --help");
    rc = network_open(argv[first], &options.dims, &network, err);
    if (rc != 0)
        return rc;
    if (options.json)
        rc = json_write_pretty(model_json(network.model), stdout, err);
    else
        rc = print_model(network.model, err);
    network_close(&network);
    return rc;
}

static const struct command_option option_rows[] = {
    OPTION_DIM_ROW,
    {'j', "json", NULL, "print JSON"},
    {0},
};

const struct command command_inspect = {
    .name = "inspect",
    .operands = "[OPTION...] MODEL.onnx",
    .summary = "Shows a model's layers and what would travel at each cut",
    .options = option_rows,
    .run = run_inspect,
};
