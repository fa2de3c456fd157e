#include "config/limits.h"

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static const struct schema_key keys[] = {
    {.name = "greetings",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, greetings),
     .min = 1,
     .max = LIMITS_GREETINGS_MAX,
     .fallback = "64"},
    {.name = "hello_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config_limits, hello_ms),
     .min = 100,
     .max = 600000,
     .fallback = "5000"},
    {.name = "write_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config_limits, write_ms),
     .min = 100,
     .max = 3600000,
     .fallback = "30000"},
    {.name = "devices",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, devices),
     .min = 1,
     .max = 1024,
     .fallback = "64"},
    {.name = "plans",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, plans),
     .min = 2,
     .max = LIMITS_PLANS_MAX,
     .fallback = "4"},
    {.name = "messages",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, messages),
     .min = 16,
     .max = 65536,
     .fallback = "256"},
    {.name = "status_requests",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, status_requests),
     .min = 1,
     .max = 4096,
     .fallback = "64"},
    {.name = "http_connections",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, http_connections),
     .min = 1,
     .max = 1024,
     .fallback = "16"},
    {.name = "parts",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, parts),
     .min = 1,
     .max = LIMITS_PARTS_MAX,
     .fallback = "256"},
    {.name = "attempts",
     .read = schema_read_int,
     .offset = offsetof(struct config_limits, attempts),
     .min = 1,
     .max = 1000000,
     .fallback = "100"},
    {.name = "frame_memory",
     .read = schema_read_size,
     .offset = offsetof(struct config_limits, frame_memory),
     .min = 1 << 20,
     .max = INT64_C(1) << 40,
     .fallback = "128 MiB"},
};

const struct schema_key *limits_keys(size_t *ret_count) {
    *ret_count = LENGTH(keys);
    return keys;
}

int limits_read(const struct schema_file *file, const struct schema_key *key,
                const struct tree_node *value, void *field) {
    bool is_absent = value->text == key->fallback; /* the very text, not one like it */
    return schema_read_map(file, keys, LENGTH(keys), is_absent ? NULL : value, "'limits'", field);
}
