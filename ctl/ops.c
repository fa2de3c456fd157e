#include "ctl/ops.h"

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/table.h"
#include "model/op.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ATTRS_SIZE 512

enum { OPTION_MARKDOWN = OPTION_FIRST };

/* ---- the table, in the order of names and opsets ---- */

static int compare_ops(const void *a, const void *b) {
    const struct op *x = *(const struct op *const *)a, *y = *(const struct op *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->since > y->since) - (x->since < y->since);
}

/* The lines sorted, NULL-terminated; to be freed. NULL when there is no memory. */
static const struct op **sorted_ops(void) {
    size_t count;
    const struct op *table = op_table(&count);
    const struct op **ops = calloc(count + 1, sizeof(*ops));
    for (size_t i = 0; ops && i < count; i++)
        ops[i] = &table[i];
    if (ops)
        qsort(ops, count, sizeof(*ops), compare_ops);
    return ops;
}

static bool is_first(const struct op *const *ops, size_t i) {
    return i == 0 || strcmp(ops[i - 1]->name, ops[i]->name) != 0;
}

/* "1", "2-5", "1 or more" */
static const char *format_range(int from, int to, char *buf, size_t size) {
    if (to >= OP_ANY)
        snprintf(buf, size, "%d or more", from);
    else if (from == to)
        snprintf(buf, size, "%d", from);
    else
        snprintf(buf, size, "%d-%d", from, to);
    return buf;
}

/* What a letter of op->attrs says. */
static const char *attr_kind(char letter) {
    static const struct {
        char letter;
        const char *name;
    } kinds[] = {{'i', "int"},  {'f', "float"},  {'s', "string"}, {'t', "tensor"},
                 {'I', "ints"}, {'F', "floats"}, {'S', "strings"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].letter == letter)
            return kinds[i].name;
    return "unknown";
}

/* The next "name:k" of a list of attributes. False at its end. */
static bool next_attr(const char **list, char *ret_name, size_t size, char *ret_kind) {
    const char *at = *list + strspn(*list, " ");
    size_t length = strcspn(at, " ");
    if (length < 3)
        return false;
    snprintf(ret_name, size, "%.*s", (int)(length - 2), at);
    *ret_kind = at[length - 1];
    *list = at + length;
    return true;
}

/* "axis, keepdims" */
static const char *format_attrs(const struct op *op, char *buf, size_t size) {
    const char *list = op->attrs;
    char name[64], kind;
    size_t used = 0;
    *buf = '\0';
    while (used < size && next_attr(&list, name, sizeof(name), &kind))
        used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : "", name);
    return buf;
}

/* ---- for people, programs and docs/ ---- */

static int print_ops(const struct op *const *ops, FILE *stream, struct err *err) {
    static const char *const columns[] = {"operator", "opsets",     "inputs",
                                          "outputs",  "attributes", NULL};
    char opsets[32], inputs[32], outputs[32], attrs[ATTRS_SIZE];
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; ops[i]; i++) {
        const struct op *op = ops[i];
        table_cell(table, "%s", is_first(ops, i) ? op->name : "");
        table_cell(table, "%s", format_range(op->since, op->until, opsets, sizeof(opsets)));
        table_cell(table, "%s", format_range(op->in_min, op->in_max, inputs, sizeof(inputs)));
        table_cell(table, "%s", format_range(1, op->out_max, outputs, sizeof(outputs)));
        table_cell(table, "%s", format_attrs(op, attrs, sizeof(attrs)));
    }
    int rc = table_print(table, stream);
    table_free(table);
    return rc < 0 ? err_set(err, rc, "out of memory") : json_flush(stream, err);
}

static json_t *range_json(int from, int to) {
    json_t *range = json_array();
    json_array_append_new(range, json_integer(from));
    json_array_append_new(range, to >= OP_ANY ? json_null() : json_integer(to));
    return range;
}

static json_t *version_json(const struct op *op) {
    json_t *version = json_object(), *attrs = json_object();
    const char *list = op->attrs;
    char name[64], kind;
    while (next_attr(&list, name, sizeof(name), &kind))
        json_object_set_new(attrs, name, json_string(attr_kind(kind)));
    json_object_set_new(version, "opsets", range_json(op->since, op->until));
    json_object_set_new(version, "inputs", range_json(op->in_min, op->in_max));
    json_object_set_new(version, "outputs", range_json(1, op->out_max));
    json_object_set_new(version, "attributes", attrs);
    return version;
}

static json_t *ops_json(const struct op *const *ops) {
    json_t *list = json_array(), *versions = NULL;
    for (size_t i = 0; ops[i]; i++) {
        if (is_first(ops, i)) {
            json_t *entry = json_object();
            versions = json_array();
            json_object_set_new(entry, "name", json_string(ops[i]->name));
            json_object_set_new(entry, "versions", versions);
            json_array_append_new(list, entry);
        }
        json_array_append_new(versions, version_json(ops[i]));
    }
    return list;
}

static void write_rows(const struct op *const *ops, FILE *stream) {
    char opsets[32], inputs[32], outputs[32], attrs[ATTRS_SIZE];
    fputs("| operator | opsets | inputs | outputs | attributes |\n|---|---|---|---|---|\n", stream);
    for (size_t i = 0; ops[i]; i++)
        fprintf(stream, "| %s | %s | %s | %s | %s |\n", is_first(ops, i) ? ops[i]->name : "",
                format_range(ops[i]->since, ops[i]->until, opsets, sizeof(opsets)),
                format_range(ops[i]->in_min, ops[i]->in_max, inputs, sizeof(inputs)),
                format_range(1, ops[i]->out_max, outputs, sizeof(outputs)),
                format_attrs(ops[i], attrs, sizeof(attrs)));
}

int ops_write_markdown(FILE *stream, struct err *err) {
    const struct op **ops = sorted_ops();
    size_t names = 0;
    if (!ops)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; ops[i]; i++)
        names += is_first(ops, i);
    fprintf(stream,
            "<!-- Written by `make operators` from the table in model/ops/ops.c. -->\n"
            "# Operators\n\n"
            "The %zu operators of ONNX's own domain that Convoy runs. A line holds for a range of\n"
            "opsets. `convoyctl ops` prints the same, with `--json` for programs; a model with\n"
            "another operator, opset or attribute is refused when it is opened, with the node's\n"
            "name.\n"
            "[Adding an operator](adding-operators.md) says how the list grows.\n\n",
            names);
    write_rows(ops, stream);
    free(ops);
    return json_flush(stream, err);
}

struct ops_options {
    bool json, markdown;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct ops_options *options = arg;
    (void)value;
    (void)err;
    if (key == 'j')
        options->json = true;
    else
        options->markdown = true;
    return 0;
}

static int run_ops(const struct command *command, int argc, char **argv, struct err *err) {
    struct ops_options options = {0};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc > first)
        return err_set(err, COMMAND_USAGE, "'%s': there is nothing to name", argv[first]);
    if (options.markdown)
        return ops_write_markdown(stdout, err);
    const struct op **ops = sorted_ops();
    if (!ops)
        return err_set(err, -ENOMEM, "out of memory");
    rc = options.json ? json_write_pretty(ops_json(ops), stdout, err) : print_ops(ops, stdout, err);
    free(ops);
    return rc;
}

static const struct command_option option_rows[] = {
    {'j', "json", NULL, "print JSON"},
    {OPTION_MARKDOWN, "markdown", NULL, "print docs/operators.md"},
    {0},
};

const struct command command_ops = {
    .name = "ops",
    .operands = "[OPTION...]",
    .summary = "Lists the operators that a model may have",
    .options = option_rows,
    .run = run_ops,
};
