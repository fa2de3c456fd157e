#include "config/schema.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

#define VALUE_SHOWN 96 /* room for what tree_show() writes */

int schema_no_memory(const struct schema_file *file) {
    return err_set(file->err, -ENOMEM, "%s: no memory", file->tree->name);
}

int schema_mismatch(const struct schema_file *file, const struct schema_key *key,
                    const struct tree_node *value, const char *what) {
    char shown[VALUE_SHOWN];
    return tree_error(file->tree, value, file->err, "'%s' must be %s, not %s", key->name, what,
                      tree_show(value, shown, sizeof(shown)));
}

/* ---- maps --------------------------------------------------------------------------------------
 */

static int fail_unknown(const struct schema_file *file, const struct schema_key *keys, size_t count,
                        const struct tree_node *node, const char *what) {
    const char *names[SCHEMA_KEYS_MAX];
    char list[480] = "", shown[VALUE_SHOWN];
    for (size_t i = 0, used = 0; i < count; i++) {
        names[i] = keys[i].name;
        int n = snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", keys[i].name);
        assert(n > 0 && used + (size_t)n < sizeof(list));
        used += (size_t)n;
    }
    tree_show(node, shown, sizeof(shown));
    const char *nearest = err_nearest(node->text, names, count);
    if (nearest)
        return tree_error(file->tree, node, file->err, "unknown key %s (did you mean '%s'?)", shown,
                          nearest);
    return tree_error(file->tree, node, file->err, "unknown key %s; %s may have: %s", shown, what,
                      list);
}

/* Reads the default as if it had been written. */
static int read_fallback(const struct schema_file *file, const struct schema_key *key,
                         void *object) {
    if (!key->fallback)
        return 0;
    struct tree_node value = {.kind = TREE_TEXT, .text = key->fallback};
    return key->read(file, key, &value, (char *)object + key->offset);
}

static const struct schema_key *find_key(const struct schema_key *keys, size_t count,
                                         const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

/* Notes the value of each key of map in values[]. */
static int collect_values(const struct schema_file *file, const struct schema_key *keys,
                          size_t count, const struct tree_node *map, const char *what,
                          const struct tree_node **values) {
    int lines[SCHEMA_KEYS_MAX] = {0};
    char shown[VALUE_SHOWN];
    for (const struct tree_node *node = map->first; node; node = node->next->next) {
        if (node->kind != TREE_TEXT)
            return tree_error(file->tree, node, file->err, "a key must be a word, not %s",
                              tree_show(node, shown, sizeof(shown)));
        const struct schema_key *key = find_key(keys, count, node->text);
        if (!key)
            return fail_unknown(file, keys, count, node, what);
        size_t i = (size_t)(key - keys);
        if (values[i])
            return tree_error(file->tree, node, file->err,
                              "'%s' stands twice (first in line %d): remove one", key->name,
                              lines[i]);
        values[i] = node->next;
        lines[i] = node->line;
    }
    return 0;
}

int schema_read_map(const struct schema_file *file, const struct schema_key *keys, size_t count,
                    const struct tree_node *map, const char *what, void *object) {
    assert(count <= SCHEMA_KEYS_MAX);
    const struct tree_node *values[SCHEMA_KEYS_MAX] = {NULL};
    char shown[VALUE_SHOWN];
    if (!tree_is_null(map) && map->kind != TREE_MAP)
        return tree_error(file->tree, map, file->err,
                          "%s must be a map of keys and values (such as '%s: ...'), not %s", what,
                          keys[0].name, tree_show(map, shown, sizeof(shown)));
    int rc = tree_is_null(map) ? 0 : collect_values(file, keys, count, map, what, values);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (!tree_is_null(values[i]))
            rc = keys[i].read(file, &keys[i], values[i], (char *)object + keys[i].offset);
        else if (keys[i].required)
            rc = tree_error(file->tree, map, file->err, "%s has no '%s'", what, keys[i].name);
        else
            rc = read_fallback(file, &keys[i], object);
    }
    return rc;
}

/* ---- texts -------------------------------------------------------------------------------------
 */

/* Copies a text whose characters pass: no control characters, and no spaces where they are not
 * wanted. */
static int copy_text(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, bool spaces, char **field) {
    char what[128];
    if (value->kind != TREE_TEXT)
        return schema_mismatch(file, key, value, "a text");
    size_t length = strlen(value->text);
    if (length < (size_t)key->min || length > (size_t)key->max) {
        snprintf(what, sizeof(what), "a text of %d to %d bytes", (int)key->min, (int)key->max);
        return schema_mismatch(file, key, value, what);
    }
    for (const char *c = value->text; *c; c++) {
        if (iscntrl((unsigned char)*c))
            return schema_mismatch(file, key, value, "a text without control characters");
        if (!spaces && *c == ' ')
            return schema_mismatch(file, key, value, "a name without spaces");
    }
    *field = strdup(value->text);
    return *field ? 0 : schema_no_memory(file);
}

int schema_read_text(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    return copy_text(file, key, value, true, field);
}

int schema_read_name(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    return copy_text(file, key, value, false, field);
}

int schema_read_path(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    char **path = field;
    int rc = copy_text(file, key, value, true, path);
    const char *slash = strrchr(file->tree->name, '/');
    if (rc < 0 || !slash || (*path)[0] == '/')
        return rc;
    char *joined = NULL;
    if (asprintf(&joined, "%.*s/%s", (int)(slash - file->tree->name), file->tree->name, *path) < 0)
        return schema_no_memory(file);
    free(*path);
    *path = joined;
    return 0;
}

int schema_read_word(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    char what[128] = "one of";
    size_t used = strlen(what);
    for (const struct schema_word *word = key->words; word->word; word++) {
        if (value->kind == TREE_TEXT && strcasecmp(value->text, word->word) == 0) {
            *(int *)field = word->value;
            return 0;
        }
        int n = snprintf(what + used, sizeof(what) - used, "%s %s", word > key->words ? "," : "",
                         word->word);
        assert(n > 0 && used + (size_t)n < sizeof(what));
        used += (size_t)n;
    }
    return schema_mismatch(file, key, value, what);
}

int schema_read_bool(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true}, {"false", false}, {"yes", true},
                 {"no", false},  {"on", true},     {"off", false}};
    for (size_t i = 0; i < LENGTH(words) && value->kind == TREE_TEXT; i++) {
        if (strcasecmp(value->text, words[i].word) == 0) {
            *(bool *)field = words[i].value;
            return 0;
        }
    }
    return schema_mismatch(file, key, value, "true or false");
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

/* Reads decimal digits with a sign; *end is where they stop. False when there are none, or too many
 * for an int64_t. */
static bool scan_integer(const char *text, int64_t *ret_number, const char **ret_end) {
    char *end;
    if (!isdigit((unsigned char)text[0]) && !(text[0] == '-' && isdigit((unsigned char)text[1])))
        return false;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno)
        return false;
    *ret_number = number;
    *ret_end = end;
    return true;
}

static int read_integer(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, int64_t *ret_number) {
    char what[128];
    const char *end;
    int64_t number;
    if (value->kind == TREE_TEXT && scan_integer(value->text, &number, &end) && !*end &&
        number >= key->min && number <= key->max) {
        *ret_number = number;
        return 0;
    }
    snprintf(what, sizeof(what), "a whole number from %lld to %lld", (long long)key->min,
             (long long)key->max);
    return schema_mismatch(file, key, value, what);
}

int schema_read_int(const struct schema_file *file, const struct schema_key *key,
                    const struct tree_node *value, void *field) {
    int64_t number;
    int rc = read_integer(file, key, value, &number);
    if (rc == 0)
        *(int *)field = (int)number;
    return rc;
}

int schema_read_u64(const struct schema_file *file, const struct schema_key *key,
                    const struct tree_node *value, void *field) {
    int64_t number;
    int rc = read_integer(file, key, value, &number);
    if (rc == 0)
        *(uint64_t *)field = (uint64_t)number;
    return rc;
}

static const struct {
    const char *name;
    int shift;
} units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};

/* 65536 -> "64 KiB". */
static const char *format_bytes(int64_t bytes, char *buf, size_t size) {
    size_t i = LENGTH(units) - 1;
    while (i > 0 && bytes % (INT64_C(1) << units[i].shift) != 0)
        i--;
    snprintf(buf, size, "%lld%s%s", (long long)(bytes >> units[i].shift), i ? " " : "",
             units[i].name);
    return buf;
}

static int read_bytes(const struct schema_file *file, const struct schema_key *key,
                      const struct tree_node *value, int64_t *ret_bytes) {
    char what[128], min[32], max[32];
    const char *end;
    int64_t number;
    if (value->kind == TREE_TEXT && scan_integer(value->text, &number, &end)) {
        while (*end == ' ')
            end++;
        for (size_t i = 0; i < LENGTH(units); i++) {
            if (strcasecmp(end, units[i].name) != 0 || number < 0 ||
                number > key->max >> units[i].shift || number << units[i].shift < key->min)
                continue;
            *ret_bytes = number << units[i].shift;
            return 0;
        }
    }
    snprintf(what, sizeof(what), "a number of bytes from %s to %s (units: KiB, MiB, GiB)",
             format_bytes(key->min, min, sizeof(min)), format_bytes(key->max, max, sizeof(max)));
    return schema_mismatch(file, key, value, what);
}

int schema_read_bytes(const struct schema_file *file, const struct schema_key *key,
                      const struct tree_node *value, void *field) {
    int64_t bytes;
    int rc = read_bytes(file, key, value, &bytes);
    if (rc == 0)
        *(uint32_t *)field = (uint32_t)bytes;
    return rc;
}

int schema_read_size(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    int64_t bytes;
    int rc = read_bytes(file, key, value, &bytes);
    if (rc == 0)
        *(uint64_t *)field = (uint64_t)bytes;
    return rc;
}

/* One decimal number without the hexadecimal, infinite and other forms of strtod(). */
static bool scan_decimal(const char *text, double *ret_number, const char **ret_end) {
    size_t length = strspn(text, "+-.0123456789eE");
    char *end;
    *ret_number = strtod(text, &end);
    *ret_end = end;
    return end > text && end <= text + length && isfinite(*ret_number);
}

int schema_read_number(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, double *ret_number) {
    char what[128];
    const char *end;
    double number, divisor = 1;
    bool good = value->kind == TREE_TEXT && scan_decimal(value->text, &number, &end);
    if (good && *end == '/')
        good = scan_decimal(end + 1, &divisor, &end) && divisor != 0;
    if (good && !*end && number / divisor >= (double)key->min &&
        number / divisor <= (double)key->max) {
        *ret_number = number / divisor;
        return 0;
    }
    snprintf(what, sizeof(what), "a number from %lld to %lld (as 0.5 or 1/255)",
             (long long)key->min, (long long)key->max);
    return schema_mismatch(file, key, value, what);
}

/* ---- dims --------------------------------------------------------------------------------------
 */

int schema_read_dims(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, struct config_dim **dims, size_t *count) {
    static const struct schema_key name_key = {.name = "dims: NAME", .min = 1, .max = 255};
    char shown[VALUE_SHOWN];
    if (value->kind != TREE_MAP)
        return schema_mismatch(file, key, value, "a map such as {n: 1}");
    *dims = calloc(CONFIG_DIMS_MAX, sizeof(**dims));
    if (!*dims)
        return schema_no_memory(file);
    for (const struct tree_node *node = value->first; node; node = node->next->next) {
        if (*count == CONFIG_DIMS_MAX)
            return tree_error(file->tree, node, file->err, "more than %d names in '%s'",
                              CONFIG_DIMS_MAX, key->name);
        struct config_dim *dim = &(*dims)[*count];
        int rc = schema_read_name(file, &name_key, node, &dim->name);
        if (rc < 0)
            return rc;
        *count += 1;
        for (size_t i = 0; i + 1 < *count; i++) {
            if (strcmp((*dims)[i].name, dim->name) == 0)
                return tree_error(file->tree, node, file->err, "%s stands twice in '%s'",
                                  tree_show(node, shown, sizeof(shown)), key->name);
        }
        struct schema_key value_key = {.name = dim->name, .min = key->min, .max = key->max};
        rc = read_integer(file, &value_key, node->next, &dim->value);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void schema_free_dims(struct config_dim *dims, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(dims[i].name);
    free(dims);
}
