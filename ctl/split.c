#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define UNTILS_MAX 1023

struct split_options {
    const char *untils[UNTILS_MAX];
    size_t count;
    const char *dir;
    bool json;
    struct network_dims dims;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct split_options *options = arg;
    switch (key) {
    case 'd':
        return network_add_dim(&options->dims, (char *)(uintptr_t)value, err);
    case 'o':
        options->dir = value;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    default:
        if (options->count == UNTILS_MAX)
            return err_set(err, COMMAND_USAGE, "more than %d times --until", UNTILS_MAX);
        options->untils[options->count++] = value;
        return 0;
    }
}

/* The file name of a path without folder and ".onnx". */
static void model_stem(const char *path, char *buf, size_t size) {
    const char *slash = strrchr(path, '/');
    snprintf(buf, size, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(buf, '.');
    if (dot && dot != buf && strcmp(dot, ".onnx") == 0)
        *dot = '\0';
}

/* The layers behind the ends of the parts, rising. */
static int find_cuts(const struct model *model, const struct split_options *options, size_t *cuts,
                     struct err *err) {
    for (size_t i = 0; i < options->count; i++) {
        size_t index;
        int rc = model_find_layer(model, options->untils[i], &index, err);
        if (rc != 0)
            return err_prefix(err, rc, "--until %s", options->untils[i]);
        cuts[i] = index + 1;
        if (i > 0 && cuts[i] <= cuts[i - 1])
            return err_set(err, -EINVAL, "--until %s is not behind --until %s", options->untils[i],
                           options->untils[i - 1]);
        if (cuts[i] == model_layers_count(model))
            return err_set(err, -EINVAL,
                           "--until %s is the last layer: nothing is left for another part",
                           options->untils[i]);
    }
    return 0;
}

static json_t *cut_json(const struct model *model, size_t at) {
    size_t count;
    const struct tensor_desc *descs = model_cut(model, at, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *entry = json_object();
        json_object_set_new(entry, "name", json_text(descs[i].name));
        json_object_set_new(entry, "type", json_text(dtype_name(descs[i].dtype)));
        json_object_set_new(entry, "shape", json_shape(&descs[i]));
        json_array_append_new(list, entry);
    }
    return list;
}

static int report_part(const struct model *model, const char *path, size_t first, size_t last,
                       bool json, struct err *err) {
    char text[160];
    size_t count;
    if (json) {
        json_t *line = json_object();
        json_object_set_new(line, "file", json_text(path));
        json_object_set_new(line, "first", json_integer((json_int_t)first));
        json_object_set_new(line, "last", json_integer((json_int_t)last - 1));
        json_object_set_new(line, "inputs", cut_json(model, first));
        json_object_set_new(line, "outputs", cut_json(model, last));
        return json_write_line(line, stdout, err);
    }
    printf("%s: layers %zu to %zu (%s to %s)\n", path, first, last - 1,
           model_layer(model, first)->name, model_layer(model, last - 1)->name);
    const struct tensor_desc *descs = model_cut(model, first, &count);
    for (size_t i = 0; i < count; i++)
        printf("  input   %s  %s\n", descs[i].name,
               tensor_desc_format(&descs[i], text, sizeof(text)));
    descs = model_cut(model, last, &count);
    for (size_t i = 0; i < count; i++)
        printf("  output  %s  %s\n", descs[i].name,
               tensor_desc_format(&descs[i], text, sizeof(text)));
    return json_flush(stdout, err);
}

static int write_parts(const struct model *model, const struct split_options *options,
                       struct err *err) {
    size_t cuts[UNTILS_MAX];
    char stem[256];
    int rc = find_cuts(model, options, cuts, err);
    if (rc != 0)
        return rc;
    if (mkdir(options->dir, 0777) != 0 && errno != EEXIST)
        return err_set(err, -errno, "%s: %s", options->dir, strerror(errno));
    model_stem(model_path(model), stem, sizeof(stem));
    for (size_t i = 0; rc == 0 && i <= options->count; i++) {
        size_t first = i ? cuts[i - 1] : 0;
        size_t last = i < options->count ? cuts[i] : model_layers_count(model);
        char *path;
        if (asprintf(&path, "%s/%s.part%zu.onnx", options->dir, stem, i) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        rc = model_write_part(model, first, last, path, err);
        if (rc == 0)
            rc = report_part(model, path, first, last, options->json, err);
        free(path);
    }
    return rc;
}

static int run_split(const struct command *command, int argc, char **argv, struct err *err) {
    struct split_options *options = calloc(1, sizeof(*options));
    struct network network = {0};
    int first, rc;
    if (!options)
        return err_set(err, -ENOMEM, "out of memory");
    rc = options_parse(command, argc, argv, on_option, options, &first, err);
    if (rc != 0)
        goto done;
    if (argc - first != 1 || !options->dir || options->count == 0) {
        rc = err_set(err, COMMAND_USAGE,
                     "one MODEL, at least one --until NAME and -o DIR are needed; see: convoyctl "
                     "split --help");
        goto done;
    }
    rc = network_open(argv[first], &options->dims, &network, err);
    if (rc == 0)
        rc = write_parts(network.model, options, err);
    network_close(&network);

done:
    free(options);
    return rc;
}

static const struct command_option option_rows[] = {
    {'u', "until", "NAME", "last layer of a part, by name or number (repeatable, in order)"},
    {'o', "out", "DIR", "folder for MODEL.part0.onnx, MODEL.part1.onnx, ..."},
    OPTION_DIM_ROW,
    {'j', "json", NULL, "print JSON lines"},
    {0},
};

const struct command command_split = {
    .name = "split",
    .operands = "[OPTION...] MODEL.onnx --until NAME... -o DIR",
    .summary = "Writes parts of a model as ONNX files of their own",
    .options = option_rows,
    .run = run_split,
};
