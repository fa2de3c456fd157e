#include "config/ranges.h"

#include "config/config.h"
#include "config/schema.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

#define DIGEST_DIGITS 64
#define TENSOR_MAX    4096 /* bytes of a tensor's name */
#define NUMBER_MAX    (INT64_C(1) << 62)

static schema_read read_tensors;

static const struct schema_key keys[] = {
    {.name = "model",
     .read = schema_read_name,
     .offset = offsetof(struct ranges, model),
     .min = DIGEST_DIGITS,
     .max = DIGEST_DIGITS,
     .required = true},
    {.name = "frames",
     .read = schema_read_int,
     .offset = offsetof(struct ranges, frames),
     .min = 1,
     .max = INT_MAX,
     .required = true},
    {.name = "tensors", .read = read_tensors, .required = true},
};

/* A list of two numbers, the smaller one first. */
static int read_range(const struct schema_file *file, const struct tree_node *value,
                      struct ranges_entry *entry) {
    const struct schema_key key = {.name = "tensors", .min = -NUMBER_MAX, .max = NUMBER_MAX};
    const struct tree_node *min = value->kind == TREE_LIST ? value->first : NULL;
    if (!min || !min->next || min->next->next)
        return schema_mismatch(file, &key, value, "a map of lists such as [-1.5, 2.5]");
    int rc = schema_read_number(file, &key, min, &entry->min);
    if (rc == 0)
        rc = schema_read_number(file, &key, min->next, &entry->max);
    if (rc == 0 && entry->min > entry->max)
        rc = tree_error(file->tree, value, file->err, "the smaller number comes first");
    return rc;
}

static int read_tensors(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field) {
    static const struct schema_key name_key = {.name = "tensors", .min = 1, .max = TENSOR_MAX};
    struct ranges *ranges = (struct ranges *)field; /* at offset 0 */
    size_t room = 0;
    if (value->kind != TREE_MAP)
        return schema_mismatch(file, key, value, "a map of lists such as [-1.5, 2.5]");
    for (const struct tree_node *node = value->first; node; node = node->next->next)
        room++;
    if (room > RANGES_MAX)
        return tree_error(file->tree, value, file->err, "more than %d tensors", RANGES_MAX);
    ranges->entries = calloc(room + 1, sizeof(*ranges->entries));
    if (!ranges->entries)
        return schema_no_memory(file);
    for (const struct tree_node *node = value->first; node; node = node->next->next) {
        struct ranges_entry *entry = &ranges->entries[ranges->count];
        int rc = schema_read_text(file, &name_key, node, &entry->name);
        ranges->count += entry->name != NULL;
        if (rc == 0)
            rc = read_range(file, node->next, entry);
        if (rc < 0)
            return rc;
    }
    return 0;
}

char *ranges_path(const char *model_path) {
    size_t stem = strlen(model_path);
    char *path;
    if (stem > 5 && strcmp(model_path + stem - 5, ".onnx") == 0)
        stem -= 5;
    if (stem > PATH_MAX || asprintf(&path, "%.*s.ranges.yaml", (int)stem, model_path) < 0)
        return NULL;
    return path;
}

int ranges_parse(const char *text, size_t size, const char *name, struct ranges **ret_ranges,
                 struct err *err) {
    struct tree tree = {.name = name};
    struct schema_file file = {.tree = &tree, .err = err};
    int rc = tree_parse(text, size, name, &tree, err);
    if (rc < 0)
        return rc;
    struct ranges *ranges = calloc(1, sizeof(*ranges));
    rc = ranges ? schema_read_map(&file, keys, LENGTH(keys), tree.root, "the file", ranges)
                : schema_no_memory(&file);
    tree_fini(&tree);
    if (rc < 0) {
        ranges_free(ranges);
        return rc;
    }
    *ret_ranges = ranges;
    return 0;
}

int ranges_load(const char *model_path, struct ranges **ret_ranges, struct err *err) {
    struct err ignored = {""};
    char *text = NULL, *path = ranges_path(model_path);
    size_t size = 0;
    if (!path)
        return err_set(err, -ENOMEM, "%s: no memory", model_path);
    int rc = tree_read_file(path, CONFIG_FILE_MAX, &text, &size, &ignored);
    if (rc == 0)
        rc = ranges_parse(text, size, path, ret_ranges, err);
    else if (rc != -ENOENT)
        err_set(err, rc, "%s", ignored.text);
    if (rc == -ENOENT) {
        *ret_ranges = NULL;
        rc = 0;
    }
    free(text);
    free(path);
    return rc;
}

void ranges_free(struct ranges *ranges) {
    if (!ranges)
        return;
    for (size_t i = 0; i < ranges->count; i++)
        free(ranges->entries[i].name);
    free(ranges->entries);
    free(ranges->model);
    free(ranges);
}

const struct ranges_entry *ranges_find(const struct ranges *ranges, const char *name) {
    for (size_t i = 0; ranges && i < ranges->count; i++)
        if (strcmp(ranges->entries[i].name, name) == 0)
            return &ranges->entries[i];
    return NULL;
}

void ranges_widen(const struct ranges_entry *entry, float *ret_min, float *ret_max) {
    double slack = (entry->max - entry->min) / 2;
    *ret_min = (float)(entry->min - slack);
    *ret_max = (float)(entry->max + slack);
}
