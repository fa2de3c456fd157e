#include "config/devices.h"

#include "config/config.h"
#include "config/schema.h"
#include "config/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static schema_read read_address, read_number, read_mbit, read_memory, read_entries;

static const struct schema_key keys[] = {
    {.name = "profile",
     .read = schema_read_path,
     .offset = offsetof(struct devices, profile),
     .min = 1,
     .max = PATH_MAX - 1,
     .computed = "none"},
    {.name = "raw_input_stays",
     .read = schema_read_bool,
     .offset = offsetof(struct devices, raw_input_stays),
     .fallback = "false"},
    {.name = "max_replicas",
     .read = schema_read_int,
     .offset = offsetof(struct devices, max_replicas),
     .min = 1,
     .max = DEVICES_REPLICAS_MAX,
     .fallback = "1"},
    {.name = "devices", .read = read_entries, .required = true},
};

static const struct schema_key entry_keys[] = {
    {.name = "node",
     .read = schema_read_name,
     .offset = offsetof(struct devices_entry, node),
     .min = 1,
     .max = CONFIG_NAME_MAX,
     .required = true},
    {.name = "address",
     .read = read_address,
     .offset = offsetof(struct devices_entry, address),
     .computed = "none"},
    {.name = "profile",
     .read = schema_read_path,
     .offset = offsetof(struct devices_entry, profile),
     .min = 1,
     .max = PATH_MAX - 1,
     .computed = "that of the whole file"},
    {.name = "speed",
     .read = read_number,
     .offset = offsetof(struct devices_entry, speed),
     .min = 0,
     .max = 1000,
     .fallback = "1"},
    {.name = "workers",
     .read = schema_read_int,
     .offset = offsetof(struct devices_entry, workers),
     .min = 1,
     .max = 256,
     .computed = "those of the profile"},
    {.name = "mbit", .read = read_mbit, .min = 0, .max = 1000000, .computed = "not limited"},
    {.name = "send_mbit",
     .read = read_number,
     .offset = offsetof(struct devices_entry, send_mbit),
     .min = 0,
     .max = 1000000,
     .computed = "mbit"},
    {.name = "receive_mbit",
     .read = read_number,
     .offset = offsetof(struct devices_entry, receive_mbit),
     .min = 0,
     .max = 1000000,
     .computed = "mbit"},
    {.name = "latency_ms",
     .read = read_number,
     .offset = offsetof(struct devices_entry, latency_ms),
     .min = 0,
     .max = 60000,
     .fallback = "0.1"},
    {.name = "frame_ms",
     .read = read_number,
     .offset = offsetof(struct devices_entry, frame_ms),
     .min = 0,
     .max = 60000,
     .fallback = "0"},
    {.name = "byte_ns",
     .read = read_number,
     .offset = offsetof(struct devices_entry, byte_ns),
     .min = 0,
     .max = 60000,
     .fallback = "0"},
    {.name = "message_us",
     .read = read_number,
     .offset = offsetof(struct devices_entry, message_us),
     .min = 0,
     .max = 60000,
     .fallback = "0"},
    {.name = "memory",
     .read = read_memory,
     .offset = offsetof(struct devices_entry, memory),
     .min = 1 << 10,
     .max = UINT32_MAX,
     .computed = "not limited"},
};

const struct schema_key *devices_keys(size_t *ret_count) {
    *ret_count = LENGTH(keys);
    return keys;
}

const struct schema_key *devices_entry_keys(size_t *ret_count) {
    *ret_count = LENGTH(entry_keys);
    return entry_keys;
}

/* ---- readers of single keys --------------------------------------------------------------------
 */

/* char *: HOST:PORT where others can connect. */
static int read_address(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field) {
    char host[CONFIG_NAME_MAX + 1], port[8];
    struct err why;
    if (value->kind != TREE_TEXT)
        return schema_mismatch(file, key, value, "HOST:PORT");
    if (config_split_address(value->text, host, sizeof(host), port, sizeof(port), &why) < 0)
        return tree_error(file->tree, value, file->err, "'%s': %s", key->name, why.text);
    if (!*host || strcmp(port, "0") == 0)
        return tree_error(file->tree, value, file->err,
                          "'%s' needs a host and a port: other devices must know where to connect",
                          key->name);
    *(char **)field = strdup(value->text);
    return *(char **)field ? 0 : schema_no_memory(file);
}

/* double: a speed or a rate must be above 0, other times may be 0. */
static int read_number(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, void *field) {
    bool may_be_0 = strcmp(key->name, "speed") != 0 && !strstr(key->name, "mbit");
    double number;
    int rc = schema_read_number(file, key, value, &number);
    if (rc < 0)
        return rc;
    if (number == 0 && !may_be_0)
        return schema_mismatch(file, key, value, "above 0");
    *(double *)field = number;
    return 0;
}

/* Both ways at once; the keys that name one way come after it. */
static int read_mbit(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    struct devices_entry *entry = field;
    int rc = read_number(file, key, value, &entry->send_mbit);
    entry->receive_mbit = entry->send_mbit;
    return rc;
}

static int read_memory(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, void *field) {
    uint32_t bytes = 0;
    int rc = schema_read_bytes(file, key, value, &bytes);
    *(uint64_t *)field = bytes;
    return rc;
}

/* What must hold between a device and those before it. */
static int check_entry(const struct schema_file *file, const struct devices *devices, size_t i,
                       const struct tree_node *map) {
    const struct devices_entry *entry = &devices->entries[i];
    for (size_t j = 0; j < i; j++) {
        const struct devices_entry *other = &devices->entries[j];
        if (strcmp(entry->node, other->node) == 0)
            return tree_error(file->tree, map, file->err, "node '%s' is in line %d already",
                              entry->node, other->line);
        if (entry->address && other->address && strcmp(entry->address, other->address) == 0)
            return tree_error(file->tree, map, file->err,
                              "address %s belongs to node '%s' already (line %d)", entry->address,
                              other->node, other->line);
    }
    return 0;
}

static int read_entries(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field) {
    struct devices *devices = field;
    char what[64];
    size_t count = 0;
    if (value->kind != TREE_LIST)
        return schema_mismatch(file, key, value, "a list of devices ('- {node: ...}')");
    for (const struct tree_node *node = value->first; node; node = node->next)
        count++;
    if (count == 0 || count > DEVICES_MAX)
        return tree_error(file->tree, value, file->err, "'%s' has %zu entries: 1 to %d can be",
                          key->name, count, DEVICES_MAX);
    devices->entries = calloc(count, sizeof(*devices->entries));
    if (!devices->entries)
        return schema_no_memory(file);
    for (const struct tree_node *node = value->first; node; node = node->next) {
        size_t i = devices->count++;
        struct devices_entry *entry = &devices->entries[i];
        snprintf(what, sizeof(what), "device %zu", i + 1);
        entry->line = node->line;
        entry->column = node->column;
        int rc = schema_read_map(file, entry_keys, LENGTH(entry_keys), node, what, entry);
        if (rc == 0)
            rc = check_entry(file, devices, i, node);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the whole file ----------------------------------------------------------------------------
 */

int devices_parse(const char *text, size_t size, const char *name, struct devices **ret_devices,
                  struct err *err) {
    struct tree tree = {.name = name};
    struct schema_file file = {.tree = &tree, .err = err};
    int rc = tree_parse(text, size, name, &tree, err);
    if (rc < 0)
        return rc;
    struct devices *devices = calloc(1, sizeof(*devices));
    if (!devices || !(devices->file = strdup(name)))
        rc = schema_no_memory(&file);
    else if (!tree.root)
        rc = err_set(err, -EINVAL, "%s: is empty: it needs a list 'devices'", name);
    else
        rc = schema_read_map(&file, keys, LENGTH(keys), tree.root, "the file", devices);
    tree_fini(&tree);
    if (rc < 0)
        devices_free(devices);
    else
        *ret_devices = devices;
    return rc;
}

int devices_load(const char *path, struct devices **ret_devices, struct err *err) {
    char *text;
    size_t size;
    int rc = tree_read_file(path, CONFIG_FILE_MAX, &text, &size, err);
    if (rc < 0)
        return rc;
    rc = devices_parse(text, size, path, ret_devices, err);
    free(text);
    return rc;
}

void devices_free(struct devices *devices) {
    if (!devices)
        return;
    for (size_t i = 0; i < devices->count; i++) {
        free(devices->entries[i].node);
        free(devices->entries[i].address);
        free(devices->entries[i].profile);
    }
    free(devices->entries);
    free(devices->profile);
    free(devices->file);
    free(devices);
}
