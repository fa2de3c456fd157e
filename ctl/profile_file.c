#include "ctl/profile_file.h"

#include "ctl/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION_KEY "convoy_profile"
#define VERSION     1

void profile_record_fini(struct profile_record *record) {
    free(record->layer_us);
    record->layer_us = NULL;
}

/* ---- to JSON -----------------------------------------------------------------------------------
 */

static json_t *device_json(const struct profile_record *record) {
    const struct facts *facts = &record->facts;
    json_t *device = json_object();
    json_object_set_new(device, "node", json_text(record->node));
    json_object_set_new(device, "cpu", json_text(record->cpu));
    json_object_set_new(device, "cores", json_integer(record->cores));
    json_object_set_new(device, "memory_bytes", json_integer((json_int_t)facts->memory_bytes));
    json_object_set_new(device, "memory_available",
                        json_integer((json_int_t)facts->memory_available));
    json_object_set_new(device, "celsius", json_number(facts->celsius));
    json_object_set_new(device, "throttled",
                        facts->throttled == FACTS_UNKNOWN
                            ? json_null()
                            : json_boolean(facts->throttled == FACTS_YES));
    return device;
}

static json_t *link_json(const struct profile_link *link) {
    json_t *root = json_object();
    json_object_set_new(root, "mbit", json_number(link->mbit));
    json_object_set_new(root, "latency_ms", json_number(link->latency_ms));
    json_object_set_new(root, "byte_ns", json_number(link->byte_ns));
    json_object_set_new(root, "message_us", json_number(link->message_us));
    return root;
}

json_t *profile_record_json(const struct profile_record *record, const struct model *model) {
    json_t *root = json_object(), *layers = json_array();
    double sum = 0;
    json_object_set_new(root, VERSION_KEY, json_integer(VERSION));
    json_object_set_new(root, "program", json_text(CONVOY_VERSION));
    json_object_set_new(root, "model", json_text(model_path(model)));
    json_object_set_new(root, "model_id", json_text(record->model_id));
    json_object_set_new(root, "device", device_json(record));
    if (record->link.is_measured)
        json_object_set_new(root, "link", link_json(&record->link));
    json_object_set_new(root, "workers", json_integer(record->workers));
    json_object_set_new(root, "threads", json_integer(record->threads));
    json_object_set_new(root, "frames", json_integer((json_int_t)record->frames));
    json_object_set_new(root, "when", json_integer((json_int_t)record->when));
    for (size_t i = 0; i < record->layers; i++) {
        json_t *layer = json_object();
        json_object_set_new(layer, "name", json_text(model_layer(model, i)->name));
        json_object_set_new(layer, "us", json_number(record->layer_us[i]));
        json_array_append_new(layers, layer);
        sum += record->layer_us[i];
    }
    json_object_set_new(root, "frame_us", json_number(sum));
    json_object_set_new(root, "fps", json_number(sum > 0 ? 1e6 * record->workers / sum : 0));
    json_object_set_new(root, "layers", layers);
    return root;
}

/* ---- from JSON ---------------------------------------------------------------------------------
 */

static bool read_integer(const json_t *object, const char *key, int64_t min, int64_t max,
                         int64_t *ret_value) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max)
        return false;
    *ret_value = json_integer_value(value);
    return true;
}

static bool read_string(const json_t *object, const char *key, char *buf, size_t size) {
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) >= size)
        return false;
    memcpy(buf, text, strlen(text) + 1);
    return true;
}

static int read_layers(const json_t *layers, const char *name, struct profile_record *record,
                       struct err *err) {
    record->layers = json_array_size(layers);
    if (record->layers == 0 || record->layers > PROFILE_FILE_MAX / 8)
        return err_set(err, -EINVAL, "%s: has no 'layers'", name);
    record->layer_us = calloc(record->layers, sizeof(*record->layer_us));
    if (!record->layer_us)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < record->layers; i++) {
        const json_t *us = json_object_get(json_array_get(layers, i), "us");
        double value = json_number_value(us);
        if (!json_is_number(us) || !(value >= 0 && value <= PROFILE_LAYER_MAX))
            return err_set(err, -EINVAL, "%s: layer %zu has no time 'us'", name, i);
        record->layer_us[i] = value;
    }
    return 0;
}

int profile_record_read(const json_t *json, const char *name, struct profile_record *ret_record,
                        struct err *err) {
    struct profile_record record = {.facts = {.celsius = NAN}};
    const json_t *device = json_object_get(json, "device");
    int64_t version = 0, cores = 0, workers = 0, threads = 0, frames = 0;
    bool good = read_integer(json, VERSION_KEY, VERSION, VERSION, &version) &&
                read_string(json, "model_id", record.model_id, sizeof(record.model_id)) &&
                read_string(device, "node", record.node, sizeof(record.node)) &&
                read_string(device, "cpu", record.cpu, sizeof(record.cpu)) &&
                read_integer(device, "cores", 1, 1 << 20, &cores) &&
                read_integer(json, "workers", 1, 1 << 16, &workers) &&
                read_integer(json, "threads", 1, 1 << 16, &threads) &&
                read_integer(json, "frames", 0, INT64_MAX, &frames) &&
                read_integer(json, "when", 0, INT64_MAX, &record.when);
    if (!good)
        return err_set(err, -EINVAL, "%s: is not what 'convoyctl profile --json' writes", name);
    record.cores = (int)cores;
    record.workers = (int)workers;
    record.threads = (int)threads;
    record.frames = (size_t)frames;
    int rc = read_layers(json_object_get(json, "layers"), name, &record, err);
    if (rc < 0)
        profile_record_fini(&record);
    else
        *ret_record = record;
    return rc;
}

/* Reads a file of at most PROFILE_FILE_MAX bytes as JSON. */
static int load_json(const char *path, json_t **ret_json, struct err *err) {
    struct stat st;
    json_error_t error;
    if (stat(path, &st) < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    if (st.st_size > PROFILE_FILE_MAX)
        return err_set(err, -EFBIG, "%s: larger than a profile may be", path);
    *ret_json = json_load_file(path, 0, &error);
    if (*ret_json)
        return 0;
    return err_set(err, -EINVAL, "%s:%d: %s", path, error.line > 0 ? error.line : 1, error.text);
}

int profile_file_load(const char *path, const struct model *model,
                      struct profile_record *ret_record, struct err *err) {
    uint8_t id[SHA256_SIZE];
    char hex[SHA256_HEX];
    json_t *json;
    struct profile_record record;
    int rc = load_json(path, &json, err);
    if (rc < 0)
        return rc;
    rc = profile_record_read(json, path, &record, err);
    json_decref(json);
    if (rc < 0)
        return rc;
    if (model_identity(model, id) < 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    else if (strcmp(sha256_format(id, hex), record.model_id) != 0 ||
             record.layers != model_layers_count(model))
        rc = err_set(err, -ESTALE,
                     "%s: is of another model than %s, or of other --dim: measure again with "
                     "'convoyctl profile --json %s'",
                     path, model_path(model), model_path(model));
    if (rc < 0)
        profile_record_fini(&record);
    else
        *ret_record = record;
    return rc;
}

/* ---- what is kept ------------------------------------------------------------------------------
 */

char *profile_kept_path(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int rc = -1;
    if (state && *state == '/')
        rc = asprintf(&path, "%s/convoy/profiles.json", state);
    else if (home && *home == '/')
        rc = asprintf(&path, "%s/.local/state/convoy/profiles.json", home);
    return rc < 0 ? NULL : path;
}

/* Whether JSON of a record was measured under the same conditions. */
static bool is_same(const json_t *json, const struct profile_record *record) {
    struct profile_record kept;
    const char *program = json_string_value(json_object_get(json, "program"));
    if (!program || strcmp(program, CONVOY_VERSION) != 0 ||
        profile_record_read(json, "", &kept, NULL) < 0)
        return false;
    bool same = strcmp(kept.model_id, record->model_id) == 0 &&
                strcmp(kept.node, record->node) == 0 && strcmp(kept.cpu, record->cpu) == 0 &&
                kept.cores == record->cores && kept.workers == record->workers &&
                kept.threads == record->threads;
    profile_record_fini(&kept);
    return same;
}

bool profile_kept_find(const char *path, const struct profile_record *record,
                       struct profile_record *ret_record) {
    json_t *root, *item;
    size_t i;
    bool found = false;
    if (load_json(path, &root, NULL) < 0)
        return false;
    json_array_foreach(json_object_get(root, "profiles"), i, item) {
        if (!found && is_same(item, record))
            found = profile_record_read(item, path, ret_record, NULL) == 0;
    }
    json_decref(root);
    return found;
}

bool profile_kept_take(const char *path, struct profile_record *record) {
    struct profile_record kept;
    if (!profile_kept_find(path, record, &kept))
        return false;
    record->layers = kept.layers;
    record->layer_us = kept.layer_us;
    record->frames = kept.frames;
    record->when = kept.when;
    return true;
}

/* Makes the folders that a path needs. */
static void make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755); /* what is missing shows when the file is written */
        *slash = '/';
    }
}

static int write_beside(json_t *root, const char *path, struct err *err) {
    char *beside, *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    if (!text || asprintf(&beside, "%s.%d", path, (int)getpid()) < 0) {
        free(text);
        return err_set(err, -ENOMEM, "out of memory");
    }
    make_folders(beside);
    errno = 0;
    FILE *file = fopen(beside, "wbe");
    bool good = file && fputs(text, file) >= 0;
    if (file)
        good = fclose(file) == 0 && good;
    good = good && rename(beside, path) == 0;
    int rc = good ? 0 : err_set(err, errno ? -errno : -EIO, "%s: %s", path, strerror(errno));
    if (!good && file)
        unlink(beside);
    free(beside);
    free(text);
    return rc;
}

int profile_kept_store(const char *path, const struct profile_record *record,
                       const struct model *model, struct err *err) {
    json_t *root = json_object(), *list = json_array(), *old = NULL, *item;
    size_t i;
    json_array_append_new(list, profile_record_json(record, model));
    if (load_json(path, &old, NULL) == 0) {
        json_array_foreach(json_object_get(old, "profiles"), i, item) {
            if (json_array_size(list) < PROFILE_KEPT_MAX && !is_same(item, record))
                json_array_append(list, item);
        }
        json_decref(old);
    }
    json_object_set_new(root, "profiles", list);
    int rc = write_beside(root, path, err);
    json_decref(root);
    return rc;
}
