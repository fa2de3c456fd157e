#include "config/config.h"

#include "config/schema.h"
#include "config/tree.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

#define DEFAULT_LISTEN "127.0.0.1:7433"
#define PORT_SIZE      6 /* "65535" and a NUL */
#define ADDRESS_MAX    (CONFIG_NAME_MAX + PORT_SIZE + 2)

static schema_read read_address, read_http, read_dims, read_pipeline, read_replicas,
    read_neighbours;

static const struct schema_word when_full_words[] = {
    {"block", CONFIG_BLOCK}, {"drop-oldest", CONFIG_DROP_OLDEST}, {NULL, 0}};

static const struct schema_word bad_values_words[] = {
    {"ignore", CONFIG_IGNORE}, {"report", CONFIG_REPORT}, {"refuse", CONFIG_REFUSE}, {NULL, 0}};

static const struct schema_key keys[] = {
    {.name = "node",
     .read = schema_read_name,
     .offset = offsetof(struct config, node),
     .min = 1,
     .max = CONFIG_NAME_MAX,
     .computed = "the host name"},
    {.name = "listen",
     .read = read_address,
     .offset = offsetof(struct config, listen),
     .min = 0,
     .max = 65535,
     .computed = DEFAULT_LISTEN},
    {.name = "http",
     .read = read_http,
     .offset = offsetof(struct config, http),
     .min = 0,
     .max = 65535,
     .computed = "off"},
    {.name = "key",
     .read = schema_read_path,
     .offset = offsetof(struct config, key),
     .min = 1,
     .max = PATH_MAX - 1,
     .computed = "none"},
    {.name = "insecure",
     .read = schema_read_bool,
     .offset = offsetof(struct config, insecure),
     .fallback = "false"},
    {.name = "model",
     .read = schema_read_path,
     .offset = offsetof(struct config, model),
     .min = 1,
     .max = PATH_MAX - 1,
     .computed = "none"},
    {.name = "dims", .read = read_dims, .min = 1, .max = 1000000, .computed = "none"},
    {.name = "workers",
     .read = schema_read_int,
     .offset = offsetof(struct config, workers),
     .min = 1,
     .max = 256,
     .computed = "cores / threads"},
    {.name = "threads",
     .read = schema_read_int,
     .offset = offsetof(struct config, threads),
     .min = 1,
     .max = 64,
     .fallback = "1"},
    {.name = "queue",
     .read = schema_read_int,
     .offset = offsetof(struct config, queue),
     .min = 1,
     .max = 4096,
     .computed = "4 + workers"},
    {.name = "when_full",
     .read = schema_read_word,
     .offset = offsetof(struct config, when_full),
     .words = when_full_words,
     .fallback = "block"},
    {.name = "bad_values",
     .read = schema_read_word,
     .offset = offsetof(struct config, bad_values),
     .words = bad_values_words,
     .fallback = "report"},
    {.name = "max_payload",
     .read = schema_read_bytes,
     .offset = offsetof(struct config, max_payload),
     .min = 1 << 10,
     .max = 1 << 30,
     .fallback = "64 MiB"},
    {.name = "max_clients",
     .read = schema_read_int,
     .offset = offsetof(struct config, max_clients),
     .min = 1,
     .max = 65536,
     .fallback = "64"},
    {.name = "max_sessions",
     .read = schema_read_int,
     .offset = offsetof(struct config, max_sessions),
     .min = 1,
     .max = 65536,
     .fallback = "256"},
    {.name = "limits",
     .read = limits_read,
     .offset = offsetof(struct config, limits),
     .fallback = "those below"},
    {.name = "heartbeat_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config, heartbeat_ms),
     .min = 10,
     .max = 3600000,
     .fallback = "2000"},
    {.name = "session_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config, session_ms),
     .min = 0,
     .max = 86400000,
     .fallback = "60000"},
    {.name = "drain_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config, drain_ms),
     .min = 0,
     .max = 3600000,
     .fallback = "10000"},
    {.name = "prepare_ms",
     .read = schema_read_u64,
     .offset = offsetof(struct config, prepare_ms),
     .min = 100,
     .max = 86400000,
     .fallback = "300000"},
    {.name = "state",
     .read = schema_read_path,
     .offset = offsetof(struct config, state),
     .min = 1,
     .max = PATH_MAX - 1,
     .computed = "the service's own folder"},
    {.name = "cache",
     .read = schema_read_size,
     .offset = offsetof(struct config, cache),
     .min = 1 << 20,
     .max = INT64_C(1) << 40,
     .fallback = "1 GiB"},
    {.name = "memory",
     .read = schema_read_size,
     .offset = offsetof(struct config, memory),
     .min = 1 << 20,
     .max = INT64_C(1) << 40,
     .computed = "what the system has left"},
    {.name = "deploy",
     .read = schema_read_bool,
     .offset = offsetof(struct config, deploy),
     .fallback = "false"},
    {.name = "pipeline", .read = read_pipeline, .computed = "none"},
    {.name = "neighbours", .read = read_neighbours, .computed = "none"},
    {.name = "raw_input_stays",
     .read = schema_read_bool,
     .offset = offsetof(struct config, raw_input_stays),
     .fallback = "false"},
    {.name = "max_replicas",
     .read = schema_read_int,
     .offset = offsetof(struct config, max_replicas),
     .min = 1,
     .max = CONFIG_REPLICAS_MAX,
     .fallback = "1"},
};

/* A stage of `pipeline:` as it is written. */
struct entry {
    struct config_stage stage;     /* with node and address, or without both */
    struct config_stage *replicas; /* node and address only; NULL: none */
    size_t replicas_count;
};

static const struct schema_key stage_keys[] = {
    {.name = "node",
     .read = schema_read_name,
     .offset = offsetof(struct entry, stage.node),
     .min = 1,
     .max = CONFIG_NAME_MAX},
    {.name = "address",
     .read = read_address,
     .offset = offsetof(struct entry, stage.address),
     .min = 1,
     .max = 65535},
    {.name = "replicas", .read = read_replicas},
    {.name = "until",
     .read = schema_read_text,
     .offset = offsetof(struct entry, stage.until),
     .min = 1,
     .max = CONFIG_LAYER_MAX},
};

/* Of a neighbour, and of a replica. */
static const struct schema_key neighbour_keys[] = {
    {.name = "node",
     .read = schema_read_name,
     .offset = offsetof(struct config_stage, node),
     .min = 1,
     .max = CONFIG_NAME_MAX,
     .required = true},
    {.name = "address",
     .read = read_address,
     .offset = offsetof(struct config_stage, address),
     .min = 1,
     .max = 65535,
     .required = true},
};

const struct schema_key *config_keys(size_t *ret_count) {
    *ret_count = LENGTH(keys);
    return keys;
}

const struct schema_key *config_stage_keys(size_t *ret_count) {
    *ret_count = LENGTH(stage_keys);
    return stage_keys;
}

const struct schema_key *config_neighbour_keys(size_t *ret_count) {
    *ret_count = LENGTH(neighbour_keys);
    return neighbour_keys;
}

/* ---- addresses ---------------------------------------------------------------------------------
 */

static bool is_port(const char *text) {
    size_t length = strspn(text, "0123456789");
    return length > 0 && length < PORT_SIZE && !text[length] && atoi(text) <= 65535;
}

/* An IPv6 address, with a zone ("%eth0") or without. */
static bool is_ipv6(const char *host) {
    char bare[INET6_ADDRSTRLEN];
    struct in6_addr address;
    size_t length = strcspn(host, "%");
    if (length >= sizeof(bare) || (host[length] && !host[length + 1]))
        return false;
    memcpy(bare, host, length);
    bare[length] = '\0';
    for (const char *c = host + length; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("%-_.", *c))
            return false;
    }
    return inet_pton(AF_INET6, bare, &address) == 1;
}

/* A name or an IPv4 address; what consists of digits and dots must be the latter. */
static bool is_host(const char *host) {
    struct in_addr address;
    if (!host[strspn(host, "0123456789.")])
        return !*host || inet_pton(AF_INET, host, &address) == 1;
    for (const char *c = host; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
            return false;
    }
    return *host != '-';
}

int config_split_address(const char *address, char *ret_host, size_t host_size, char *ret_port,
                         size_t port_size, struct err *err) {
    char shown[96], host[CONFIG_NAME_MAX + 1];
    struct tree_node node = {.kind = TREE_TEXT, .text = address};
    tree_show(&node, shown, sizeof(shown));
    bool brackets = address[0] == '[';
    const char *start = address + brackets;
    const char *end = strchr(start, brackets ? ']' : ':');
    if (brackets && !end)
        return err_set(err, -EINVAL, "%s has no ']' after its IPv6 address", shown);
    const char *port = end ? end + brackets : start + strlen(start);
    if (*port != ':')
        return err_set(err, -EINVAL, "%s has no port: write HOST:PORT, such as 192.168.1.10:7433",
                       shown);
    port++;
    if (!brackets && strchr(port, ':'))
        return err_set(err, -EINVAL, "%s has several ':': write an IPv6 address as [ADDRESS]:PORT",
                       shown);
    if (!is_port(port) || strlen(port) >= port_size)
        return err_set(err, -EINVAL, "%s has no port from 0 to 65535 after its ':'", shown);
    size_t length = (size_t)(end - start);
    if (length >= sizeof(host) || length >= host_size)
        return err_set(err, -EINVAL, "%s has a host of more than %zu bytes", shown,
                       (host_size < sizeof(host) ? host_size : sizeof(host)) - 1);
    memcpy(host, start, length);
    host[length] = '\0';
    if (brackets ? !is_ipv6(host) : !is_host(host))
        return err_set(err, -EINVAL, "%s is neither %s nor a host name", shown,
                       brackets ? "an IPv6 address" : "an IPv4 address");
    memcpy(ret_host, host, length + 1);
    memcpy(ret_port, port, strlen(port) + 1);
    return 0;
}

bool config_address_is_loopback(const char *address) {
    char host[CONFIG_NAME_MAX + 1], port[PORT_SIZE];
    struct in_addr v4;
    if (config_split_address(address, host, sizeof(host), port, sizeof(port), NULL) < 0)
        return false;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0)
        return true;
    return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* ---- readers of single keys --------------------------------------------------------------------
 */

/* char *: HOST:PORT. Where the lowest port is not 0, others must be able to connect: so a host is
 * demanded, too. */
static int read_address(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field) {
    char host[CONFIG_NAME_MAX + 1], port[PORT_SIZE];
    struct err why;
    if (value->kind != TREE_TEXT)
        return schema_mismatch(file, key, value, "HOST:PORT");
    if (config_split_address(value->text, host, sizeof(host), port, sizeof(port), &why) < 0)
        return tree_error(file->tree, value, file->err, "'%s': %s", key->name, why.text);
    if (key->min > 0 && !*host)
        return tree_error(file->tree, value, file->err,
                          "'%s' has no host: other devices must know where to connect", key->name);
    if (atoi(port) < key->min)
        return tree_error(file->tree, value, file->err,
                          "'%s' has port 0: other devices must know where to connect", key->name);
    *(char **)field = strdup(value->text);
    return *(char **)field ? 0 : schema_no_memory(file);
}

/* As read_address(), or "off". */
static int read_http(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    if (value->kind == TREE_TEXT && strcmp(value->text, "off") == 0)
        return 0;
    return read_address(file, key, value, field);
}

static int read_dims(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    struct config *config = field;
    return schema_read_dims(file, key, value, &config->dims, &config->dims_count);
}

/* Reads a list of devices into list, which has room for max of them; what names one in messages. */
static int read_devices(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, const char *what, struct config_stage *list,
                        size_t max, size_t *count) {
    char each[64];
    for (const struct tree_node *node = value->first; node; node = node->next) {
        if (*count == max)
            return tree_error(file->tree, node, file->err, "'%s' has more than %zu devices",
                              key->name, max);
        struct config_stage *device = &list[(*count)++];
        snprintf(each, sizeof(each), "%s %zu of '%s'", what, *count, key->name);
        device->line = node->line;
        device->column = node->column;
        int rc = schema_read_map(file, neighbour_keys, LENGTH(neighbour_keys), node, each, device);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_replicas(const struct schema_file *file, const struct schema_key *key,
                         const struct tree_node *value, void *field) {
    struct entry *entry = field;
    if (value->kind != TREE_LIST)
        return schema_mismatch(file, key, value,
                               "a list of devices ('- {node: ..., address: ...}')");
    entry->replicas = calloc(CONFIG_REPLICAS_MAX, sizeof(*entry->replicas));
    if (!entry->replicas)
        return schema_no_memory(file);
    int rc = read_devices(file, key, value, "device", entry->replicas, CONFIG_REPLICAS_MAX,
                          &entry->replicas_count);
    if (rc == 0 && entry->replicas_count < 2)
        rc = tree_error(file->tree, value, file->err,
                        "'%s' lists the devices that share a stage, at least two: for one write "
                        "its 'node' and 'address' in the stage itself",
                        key->name);
    return rc;
}

static void free_device(struct config_stage *device) {
    free(device->node);
    free(device->address);
    free(device->until);
}

static void entry_fini(struct entry *entry) {
    free_device(&entry->stage);
    for (size_t i = 0; i < entry->replicas_count; i++)
        free_device(&entry->replicas[i]);
    free(entry->replicas);
}

/* Whether a stage has one device or several, and that the first has one. */
static int check_devices(const struct schema_file *file, const struct entry *entry,
                         const struct tree_node *map, size_t number) {
    const struct tree_node *replicas = tree_find(map, "replicas");
    const char *missing = !entry->stage.node ? "node" : "address";
    if (!entry->replicas_count && (!entry->stage.node || !entry->stage.address))
        return tree_error(file->tree, map, file->err, "stage %zu of 'pipeline' has no '%s'", number,
                          missing);
    if (entry->replicas_count && (entry->stage.node || entry->stage.address))
        return tree_error(file->tree, replicas, file->err,
                          "stage %zu has 'replicas' and a 'node' or 'address' of its own: write "
                          "each device in 'replicas', and only there",
                          number);
    if (entry->replicas_count && number == 1)
        return tree_error(file->tree, replicas, file->err,
                          "the first stage cannot have 'replicas': clients connect to its device, "
                          "which keeps each frame until it is answered");
    return 0;
}

/* What must hold between the devices before number i and this one. */
static int check_device(const struct schema_file *file, const struct config *config, size_t i,
                        const struct tree_node *at) {
    const struct config_stage *device = &config->pipeline[i];
    for (size_t j = 0; j < i; j++) {
        const struct config_stage *other = &config->pipeline[j];
        if (strcmp(device->node, other->node) == 0)
            return tree_error(file->tree, at, file->err,
                              "node '%s' has a stage already (line %d): a device runs one stage",
                              device->node, other->line);
        if (strcmp(device->address, other->address) == 0)
            return tree_error(file->tree, at, file->err,
                              "address %s belongs to node '%s' already (line %d)", device->address,
                              other->node, other->line);
    }
    return 0;
}

/* Moves a device of a stage to the end of the pipeline, which has room for it. */
static int add_device(const struct schema_file *file, struct config *config,
                      struct config_stage *device, const char *until, bool shares,
                      const struct tree_node *at) {
    size_t i = config->pipeline_count++;
    config->pipeline[i] = *device;
    config->pipeline[i].until = until ? strdup(until) : NULL;
    config->pipeline[i].shares = shares;
    *device = (struct config_stage){.node = NULL};
    if (until && !config->pipeline[i].until)
        return schema_no_memory(file);
    return check_device(file, config, i, at);
}

/* Number `number` of the stages as it is written -> its devices. */
static int add_stage(const struct schema_file *file, struct config *config, struct entry *entry,
                     const struct tree_node *map, size_t number, bool is_last) {
    const struct tree_node *until = tree_find(map, "until"), *replicas, *at;
    const char *name = entry->replicas_count ? entry->replicas[0].node : entry->stage.node;
    int rc = check_devices(file, entry, map, number);
    if (rc < 0)
        return rc;
    if (is_last && entry->stage.until)
        return tree_error(file->tree, until->next, file->err,
                          "the last stage ('%s') runs to the end: remove its 'until'", name);
    if (!is_last && !entry->stage.until)
        return tree_error(file->tree, map, file->err,
                          "stage %zu ('%s') has no 'until': name the last layer it runs, as "
                          "'convoyctl inspect' prints it (only the last stage needs none)",
                          number, name);
    if (!entry->replicas_count) {
        struct config_stage alone = entry->stage;
        entry->stage.node = entry->stage.address = NULL;
        alone.line = map->line;
        alone.column = map->column;
        return add_device(file, config, &alone, entry->stage.until, false, map);
    }
    replicas = tree_find(map, "replicas");
    at = replicas->next->first;
    for (size_t i = 0; i < entry->replicas_count && rc == 0; i++, at = at->next)
        rc = add_device(file, config, &entry->replicas[i], entry->stage.until, i > 0, at);
    return rc;
}

static size_t count_nodes(const struct tree_node *list) {
    size_t count = 0;
    for (const struct tree_node *node = list->first; node; node = node->next)
        count++;
    return count;
}

/* The replicas of all stages of a list, before anything of it is checked. */
static size_t count_replicas(const struct tree_node *stages) {
    size_t count = 0;
    for (const struct tree_node *stage = stages->first; stage; stage = stage->next) {
        const struct tree_node *replicas = tree_find(stage, "replicas");
        count += replicas ? count_nodes(replicas->next) : 0;
    }
    return count;
}

static int read_pipeline(const struct schema_file *file, const struct schema_key *key,
                         const struct tree_node *value, void *field) {
    struct config *config = field;
    char what[64];
    size_t number = 0;
    if (value->kind == TREE_TEXT && strcmp(value->text, "auto") == 0) {
        config->pipeline_auto = true;
        return 0;
    }
    if (value->kind != TREE_LIST)
        return schema_mismatch(file, key, value,
                               "a list of stages ('- {node: ..., address: ...}'), or auto");
    size_t count = count_nodes(value);
    if (count == 0)
        return tree_error(file->tree, value, file->err,
                          "'%s' has no stages: remove it, or list at least one", key->name);
    if (count > CONFIG_STAGES_MAX)
        return tree_error(file->tree, value, file->err, "'%s' has %zu stages: at most %d can be",
                          key->name, count, CONFIG_STAGES_MAX);
    config->pipeline = calloc(count + count_replicas(value), sizeof(*config->pipeline));
    if (!config->pipeline)
        return schema_no_memory(file);
    for (const struct tree_node *node = value->first; node; node = node->next) {
        struct entry entry = {.replicas = NULL};
        snprintf(what, sizeof(what), "stage %zu of 'pipeline'", ++number);
        int rc = schema_read_map(file, stage_keys, LENGTH(stage_keys), node, what, &entry);
        if (rc == 0)
            rc = add_stage(file, config, &entry, node, number, !node->next);
        entry_fini(&entry);
        if (rc < 0)
            return rc;
        if (config->pipeline_count > CONFIG_STAGES_MAX)
            return tree_error(file->tree, value, file->err, "'%s' has more than %d devices",
                              key->name, CONFIG_STAGES_MAX);
    }
    return 0;
}

static int check_neighbour(const struct schema_file *file, const struct config *config, size_t i,
                           const struct tree_node *map) {
    const struct config_stage *own = &config->neighbours[i];
    for (size_t j = 0; j < i; j++) {
        const struct config_stage *other = &config->neighbours[j];
        if (strcmp(own->node, other->node) == 0 || strcmp(own->address, other->address) == 0)
            return tree_error(file->tree, map, file->err,
                              "neighbour '%s' has the name or the address of '%s' (line %d)",
                              own->node, other->node, other->line);
    }
    return 0;
}

static int read_neighbours(const struct schema_file *file, const struct schema_key *key,
                           const struct tree_node *value, void *field) {
    struct config *config = field;
    if (value->kind != TREE_LIST)
        return schema_mismatch(file, key, value,
                               "a list of devices ('- {node: ..., address: ...}')");
    config->neighbours = calloc(CONFIG_NEIGHBOURS_MAX, sizeof(*config->neighbours));
    if (!config->neighbours)
        return schema_no_memory(file);
    int rc = read_devices(file, key, value, "device", config->neighbours, CONFIG_NEIGHBOURS_MAX,
                          &config->neighbours_count);
    const struct tree_node *node = value->first;
    for (size_t i = 0; i < config->neighbours_count && rc == 0; i++, node = node->next)
        rc = check_neighbour(file, config, i, node);
    return rc;
}

/* ---- the whole file ----------------------------------------------------------------------------
 */

static int count_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* The defaults that no table can hold. */
static int set_computed(struct config *config) {
    char host[CONFIG_NAME_MAX + 1];
    if (!config->workers) {
        int workers = count_cores() / config->threads;
        config->workers = workers > 1 ? workers : 1;
    }
    if (!config->queue)
        config->queue = 4 + config->workers;
    if (config->node)
        return 0;
    if (gethostname(host, sizeof(host)) < 0 || !*host)
        strcpy(host, "localhost");
    host[sizeof(host) - 1] = '\0';
    config->node = strdup(host);
    return config->node ? 0 : -ENOMEM;
}

/* HTTP is not encrypted, whatever the key. */
static int check_http(const struct schema_file *file, const struct config *config) {
    if (!config->http || config->insecure || config_address_is_loopback(config->http))
        return 0;
    return tree_error(file->tree, tree_find(file->tree->root, "http"), file->err,
                      "other machines can reach this address, and HTTP is not encrypted: whoever "
                      "connects sees the line's status. Serve on 127.0.0.1 and use a tunnel, or "
                      "say 'insecure: true' on a network that you trust");
}

/* What must hold between keys. */
static int check_whole(const struct schema_file *file, struct config *config) {
    static const char *const of_auto[] = {"neighbours", "raw_input_stays", "max_replicas"};
    const struct tree_node *root = file->tree->root;
    const struct tree_node *pipeline = tree_find(root, "pipeline"),
                           *listen = tree_find(root, "listen"), *model = tree_find(root, "model");
    config->line_pipeline = pipeline ? pipeline->line : 0;
    config->line_model = model ? model->line : 0;
    config->line_listen = listen ? listen->next->line : 0;
    config->column_listen = listen ? listen->next->column : 0;
    for (size_t i = 0; i < LENGTH(of_auto) && !config->pipeline_auto; i++) {
        const struct tree_node *key = tree_find(root, of_auto[i]);
        if (key)
            return tree_error(file->tree, key, file->err,
                              "'%s' is for 'pipeline: auto', with which this device plans the line "
                              "itself: write that, or remove this key",
                              of_auto[i]);
    }
    if ((config->pipeline_count || config->pipeline_auto) && !config->model)
        return tree_error(file->tree, pipeline, file->err,
                          "'pipeline' needs a 'model': name the ONNX file that it runs");
    return check_http(file, config);
}

int config_parse(const char *text, size_t size, const char *name, struct config **ret_config,
                 struct err *err) {
    struct tree tree = {.name = name};
    struct schema_file file = {.tree = &tree, .err = err};
    int rc = tree_parse(text, size, name, &tree, err);
    if (rc < 0)
        return rc;
    struct config *config = calloc(1, sizeof(*config));
    if (!config || !(config->file = strdup(name))) {
        rc = schema_no_memory(&file);
        goto fail;
    }
    rc = schema_read_map(&file, keys, LENGTH(keys), tree.root, "the file", config);
    if (rc < 0)
        goto fail;
    config->is_empty = tree_is_null(tree.root);
    rc = check_whole(&file, config);
    if (rc < 0)
        goto fail;
    if (set_computed(config) < 0) {
        rc = schema_no_memory(&file);
        goto fail;
    }
    tree_fini(&tree);
    *ret_config = config;
    return 0;
fail:
    config_free(config);
    tree_fini(&tree);
    return rc;
}

int config_load(const char *path, struct config **ret_config, struct err *err) {
    char *text;
    size_t size;
    int rc = tree_read_file(path, CONFIG_FILE_MAX, &text, &size, err);
    if (rc < 0)
        return rc;
    rc = config_parse(text, size, path, ret_config, err);
    free(text);
    return rc;
}

void config_free(struct config *config) {
    if (!config)
        return;
    for (size_t i = 0; i < config->pipeline_count; i++)
        free_device(&config->pipeline[i]);
    free(config->pipeline);
    for (size_t i = 0; i < config->neighbours_count; i++)
        free_device(&config->neighbours[i]);
    free(config->neighbours);
    schema_free_dims(config->dims, config->dims_count);
    free(config->file);
    free(config->node);
    free(config->listen);
    free(config->http);
    free(config->key);
    free(config->model);
    free(config->state);
    free(config);
}

int config_copy_for_model(const struct config *config, struct config **ret_config) {
    struct config *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    copy->cache = config->cache;
    copy->limits = config->limits;
    copy->line_model = config->line_model;
    copy->file = strdup(config->file);
    copy->model = strdup(config->model);
    copy->state = config->state ? strdup(config->state) : NULL;
    copy->dims = calloc(config->dims_count + 1, sizeof(*copy->dims));
    bool good = copy->file && copy->model && copy->dims && (copy->state || !config->state);
    for (size_t i = 0; good && i < config->dims_count; i++) {
        copy->dims[i].value = config->dims[i].value;
        copy->dims[i].name = strdup(config->dims[i].name);
        good = copy->dims[i].name != NULL;
        copy->dims_count++;
    }
    if (!good) {
        config_free(copy);
        return -ENOMEM;
    }
    *ret_config = copy;
    return 0;
}

/* ---- the command line --------------------------------------------------------------------------
 */

static int find_stage(const struct config *config, const char *node) {
    for (size_t i = 0; i < config->pipeline_count; i++) {
        if (strcmp(config->pipeline[i].node, node) == 0)
            return (int)i;
    }
    return -1;
}

int config_find_stage(const struct config *config) {
    return find_stage(config, config->node);
}

static int check_node_option(const char *node, struct err *err) {
    size_t length = strlen(node);
    bool good = length > 0 && length <= CONFIG_NAME_MAX;
    for (const char *c = node; *c && good; c++)
        good = *c != ' ' && !iscntrl((unsigned char)*c);
    return good ? 0
                : err_set(err, -EINVAL,
                          "--node must be a name of 1 to %d bytes without spaces or control "
                          "characters",
                          CONFIG_NAME_MAX);
}

/* The address that counts, borrowed, and in where the words for it in a sentence. */
static const char *choose_listen(const struct config *config, int stage, const char *option,
                                 char *where, size_t size) {
    if (option) {
        snprintf(where, size, "--listen %s", option);
        return option;
    }
    if (config->listen) {
        snprintf(where, size, "%s:%d:%d: 'listen: %s'", config->file, config->line_listen,
                 config->column_listen, config->listen);
        return config->listen;
    }
    if (stage < 0)
        return DEFAULT_LISTEN;
    const struct config_stage *own = &config->pipeline[stage];
    snprintf(where, size, "%s:%d:%d: without 'listen', node '%s' listens on its 'address: %s'",
             config->file, own->line, own->column, own->node, own->address);
    return own->address;
}

/* The folder for state that counts when the file names none; *ret_state NULL where there is no home
 * either. Several devices of one user get a folder each, named after the node. */
static int choose_state(const char *node, char **ret_state) {
    const char *service = getenv("STATE_DIRECTORY"), *base = getenv("XDG_STATE_HOME"),
               *home = getenv("HOME");
    char name[CONFIG_NAME_MAX + 1];
    size_t length = 0;
    int rc = 0;
    *ret_state = NULL;
    for (const char *c = node; *c && length + 1 < sizeof(name); c++)
        name[length++] = isalnum((unsigned char)*c) || strchr("-_", *c) ? *c : '_';
    name[length] = '\0';
    if (service && *service == '/')
        rc = asprintf(ret_state, "%.*s", (int)strcspn(service, ":"), service);
    else if (base && *base == '/')
        rc = asprintf(ret_state, "%s/convoy/%s", base, name);
    else if (home && *home == '/')
        rc = asprintf(ret_state, "%s/.local/state/convoy/%s", home, name);
    if (rc < 0)
        *ret_state = NULL;
    return rc < 0 ? -ENOMEM : 0;
}

/* Where others can connect, they must have the key. */
static int check_reach(const struct config *config, const char *address, const char *where,
                       struct err *err) {
    if (config->key || config->insecure || config_address_is_loopback(address))
        return 0;
    return err_set(err, -EINVAL,
                   "%s: other machines can reach this address, and there is no key. Make one "
                   "with `convoyctl keygen`, copy it to every device and name it with 'key:'; "
                   "or say 'insecure: true' on a network that you trust; or listen on "
                   "127.0.0.1",
                   where);
}

int config_check_pipeline(const struct config *config, struct err *err) {
    char where[512];
    int rc = 0;
    for (size_t i = 0; i < config->pipeline_count && rc == 0; i++) {
        const char *chosen = choose_listen(config, (int)i, NULL, where, sizeof(where));
        rc = check_reach(config, chosen, where, err);
    }
    return rc;
}

int config_override(struct config *config, const char *node, const char *listen, struct err *err) {
    char host[CONFIG_NAME_MAX + 1], port[PORT_SIZE], where[512] = "";
    char *new_node = NULL, *new_listen = NULL, *new_state = NULL;
    int rc = node ? check_node_option(node, err) : 0;
    if (rc < 0)
        return rc;
    rc = listen ? config_split_address(listen, host, sizeof(host), port, sizeof(port), err) : 0;
    if (rc < 0)
        return err_prefix(err, rc, "--listen");
    int stage = find_stage(config, node ? node : config->node);
    const char *chosen = choose_listen(config, stage, listen, where, sizeof(where));
    rc = check_reach(config, chosen, where, err);
    if (rc < 0)
        return rc;
    new_node = strdup(node ? node : config->node);
    new_listen = strdup(chosen);
    if (!new_node || !new_listen || (!config->state && choose_state(new_node, &new_state) < 0)) {
        rc = err_set(err, -ENOMEM, "%s: no memory", config->file);
        goto fail;
    }
    free(config->node);
    free(config->listen);
    config->node = new_node;
    config->listen = new_listen;
    if (new_state)
        config->state = new_state;
    return 0;
fail:
    free(new_node);
    free(new_listen);
    return rc;
}
