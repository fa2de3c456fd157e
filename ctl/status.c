#include "base/sha256.h"
#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/query.h"
#include "ctl/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 5000

struct status_options {
    const char *address, *key;
    bool json, watch;
    double interval;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct status_options *options = arg;
    switch (key) {
    case 'c':
        options->address = value;
        return 0;
    case 'k':
        options->key = value;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case 'n':
        return options_real("--interval", value, 0.1, 3600, &options->interval, err);
    default:
        options->watch = true;
        return 0;
    }
}

/* ---- which stage holds the line up ---- */

struct bottleneck {
    size_t stage;
    bool is_link; /* the way to the next stage, not the computing */
    double ms;    /* per frame; 0: nothing has been measured */
};

/* Time per frame of the link behind a stage while it is sending, by its rate and bytes so far. */
static double link_ms(const Convoy__StageStatus *stage) {
    if (stage->send_mbit <= 0 || stage->frames_out == 0)
        return 0;
    return (double)stage->bytes_out / (double)stage->frames_out * 8 / (stage->send_mbit * 1000);
}

/* Frames are computed side by side by several workers. */
static double stage_ms(const Convoy__StageStatus *stage) {
    return stage->compute_ms / (stage->workers > 1 ? stage->workers : 1);
}

static struct bottleneck find_bottleneck(const Convoy__Status *status) {
    struct bottleneck worst = {0};
    for (size_t i = 0; i < status->n_stages; i++) {
        double compute = stage_ms(status->stages[i]), link = link_ms(status->stages[i]);
        if (compute > worst.ms)
            worst = (struct bottleneck){i, false, compute};
        if (link > worst.ms && i + 1 < status->n_stages)
            worst = (struct bottleneck){i, true, link};
    }
    return worst;
}

/* The stage for which the line stands still: the last that is not ready; NULL: none. */
static const Convoy__StageStatus *find_blocker(const Convoy__Status *status) {
    for (size_t i = status->n_stages; i-- > 0;)
        if (strcmp(status->stages[i]->state, "ready") != 0)
            return status->stages[i];
    return NULL;
}

/* ---- JSON ---- */

static void set_integer(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *digest_json(const ProtobufCBinaryData *digest) {
    char hex[SHA256_HEX];
    return digest->len == SHA256_SIZE ? json_text(sha256_format(digest->data, hex)) : json_null();
}

static json_t *plans_json(const Convoy__StageStatus *s) {
    json_t *plans = json_array();
    for (size_t i = 0; i < s->n_plans; i++) {
        const Convoy__PlanStatus *plan = s->plans[i];
        json_t *o = json_object();
        json_object_set_new(o, "plan", digest_json(&plan->plan));
        set_integer(o, "first", plan->first);
        set_integer(o, "last", plan->last ? plan->last - 1 : 0);
        json_object_set_new(o, "state", json_text(plan->state));
        json_object_set_new(o, "deployed", json_boolean(plan->deployed));
        set_integer(o, "frames", plan->frames);
        set_integer(o, "memory_bytes", plan->memory_bytes);
        json_array_append_new(plans, o);
    }
    return plans;
}

/* What the device's kernel tells; null where it does not. */
static json_t *device_json(const Convoy__StageStatus *s) {
    json_t *o = json_object();
    json_object_set_new(o, "cpu", s->cpu[0] ? json_text(s->cpu) : json_null());
    json_object_set_new(o, "cores", s->cores ? json_integer(s->cores) : json_null());
    json_object_set_new(o, "memory_available",
                        s->memory_available ? json_integer((json_int_t)s->memory_available)
                                            : json_null());
    json_object_set_new(o, "celsius", s->celsius != 0 ? json_number(s->celsius) : json_null());
    json_object_set_new(o, "throttled",
                        s->throttled ? json_boolean(s->throttled == 2) : json_null());
    return o;
}

static json_t *decisions_json(const Convoy__Status *status) {
    json_t *list = json_array();
    for (size_t i = 0; i < status->n_decisions; i++)
        json_array_append_new(list, json_text(status->decisions[i]));
    return list;
}

static json_t *stage_json(const Convoy__StageStatus *s) {
    json_t *o = json_object();
    json_object_set_new(o, "node", json_text(s->node));
    json_object_set_new(o, "state", json_text(s->state));
    json_object_set_new(o, "plan", digest_json(&s->plan));
    set_integer(o, "first", s->first);
    set_integer(o, "last", s->last ? s->last - 1 : 0);
    json_object_set_new(o, "first_layer", json_text(s->first_layer));
    json_object_set_new(o, "last_layer", json_text(s->last_layer));
    json_object_set_new(o, "compute_ms", json_number(s->compute_ms));
    json_object_set_new(o, "fps", json_number(s->fps));
    set_integer(o, "queued", s->queued);
    set_integer(o, "queue_limit", s->queue_limit);
    set_integer(o, "computing", s->computing);
    set_integer(o, "in_flight", s->in_flight);
    set_integer(o, "workers", s->workers);
    set_integer(o, "threads", s->threads);
    json_object_set_new(o, "send_mbit", json_number(s->send_mbit));
    json_object_set_new(o, "link_ms", json_number(link_ms(s)));
    set_integer(o, "bytes_out", s->bytes_out);
    set_integer(o, "memory_bytes", s->memory_bytes);
    set_integer(o, "weights_bytes", s->weights_bytes);
    set_integer(o, "arena_bytes", s->arena_bytes);
    set_integer(o, "frames_in", s->frames_in);
    set_integer(o, "frames_out", s->frames_out);
    set_integer(o, "frames_retried", s->frames_retried);
    set_integer(o, "frames_refused", s->frames_refused);
    set_integer(o, "uptime_ms", s->uptime_ms);
    set_integer(o, "uptime_plan_ms", s->uptime_plan_ms);
    json_object_set_new(o, "next", json_text(s->address));
    json_object_set_new(o, "version", json_text(s->version));
    json_object_set_new(o, "device", device_json(s));
    json_object_set_new(o, "plans", plans_json(s));
    set_integer(o, "cached_parts", s->cached_parts);
    set_integer(o, "cached_bytes", s->cached_bytes);
    set_integer(o, "cache_limit", s->cache_limit);
    return o;
}

static int print_json(const Convoy__Status *status, bool one_line, struct err *err) {
    json_t *root = json_object(), *stages = json_array();
    struct bottleneck worst = find_bottleneck(status);
    json_object_set_new(root, "model", json_text(status->model));
    json_object_set_new(root, "model_digest", digest_json(&status->model_digest));
    set_integer(root, "layers", status->layers);
    set_integer(root, "clients", status->clients);
    set_integer(root, "sessions", status->sessions);
    if (status->deployment[0])
        json_object_set_new(root, "deployment", json_text(status->deployment));
    for (size_t i = 0; i < status->n_stages; i++)
        json_array_append_new(stages, stage_json(status->stages[i]));
    if (status->n_decisions > 0)
        json_object_set_new(root, "decisions", decisions_json(status));
    json_object_set_new(root, "stages", stages);
    const Convoy__StageStatus *blocker = find_blocker(status);
    if (blocker) {
        json_object_set_new(root, "waits_for", json_text(blocker->node));
    } else if (worst.ms > 0) {
        json_t *object = json_object();
        json_object_set_new(object, "node", json_text(status->stages[worst.stage]->node));
        json_object_set_new(object, "what", json_text(worst.is_link ? "link" : "compute"));
        json_object_set_new(object, "ms", json_number(worst.ms));
        json_object_set_new(root, "bottleneck", object);
    }
    return one_line ? json_write_line(root, stdout, err) : json_write_pretty(root, stdout, err);
}

/* ---- text ---- */

static void add_row(struct table *table, const Convoy__StageStatus *s, bool last) {
    char text[48];
    table_cell(table, "%s", s->node);
    table_cell(table, "%s", s->state);
    if (s->last > s->first && s->first_layer[0])
        table_cell(table, "%u..%u  %s .. %s", s->first, s->last - 1, s->first_layer, s->last_layer);
    else if (s->last > s->first)
        table_cell(table, "%u..%u", s->first, s->last - 1);
    else
        table_cell(table, "-");
    if (s->workers == 0) { /* nothing is known of a device that cannot be reached */
        for (int i = 0; i < 11; i++)
            table_cell(table, "-");
        return;
    }
    table_cell(table, "%.2f", s->compute_ms);
    table_cell(table, "%.1f", s->fps);
    table_cell(table, "%u/%u", s->queued, s->queue_limit);
    table_cell(table, "%u/%u", s->computing, s->workers);
    table_cell(table, "%u", s->in_flight);
    if (last || s->send_mbit <= 0)
        table_cell(table, "-");
    else
        table_cell(table, "%.0f Mbit/s", s->send_mbit);
    table_cell(table, "%s", format_bytes((double)s->memory_bytes, text, sizeof(text)));
    table_cell(table, "%llu", (unsigned long long)s->frames_in);
    table_cell(table, "%llu", (unsigned long long)s->frames_out);
    table_cell(table, "%llu", (unsigned long long)s->frames_retried);
    table_cell(table, "%s", format_seconds((double)s->uptime_ms / 1000, text, sizeof(text)));
}

static void print_bottleneck(const Convoy__Status *status) {
    struct bottleneck worst = find_bottleneck(status);
    const Convoy__StageStatus *blocker = find_blocker(status);
    if (blocker) {
        printf("the line stands still: %s is %s\n", blocker->node, blocker->state);
        return;
    }
    if (worst.ms <= 0) {
        puts("no bottleneck known yet: no frames so far");
        return;
    }
    const Convoy__StageStatus *s = status->stages[worst.stage];
    if (worst.is_link)
        printf("bottleneck: the link %s -> %s, %.2f ms per frame: at most %.1f frames/s\n", s->node,
               status->stages[worst.stage + 1]->node, worst.ms, 1000 / worst.ms);
    else
        printf("bottleneck: computing on %s, %.2f ms per frame%s: at most %.1f frames/s\n", s->node,
               worst.ms, s->workers > 1 ? " over its workers" : "", 1000 / worst.ms);
}

/* ---- plans that were handed out ---- */

static bool has_deployed(const Convoy__StageStatus *s) {
    for (size_t i = 0; i < s->n_plans; i++)
        if (s->plans[i]->deployed)
            return true;
    return s->cached_parts > 0;
}

static void add_plan(struct table *table, const Convoy__StageStatus *s, size_t index) {
    char text[48], hex[SHA256_HEX];
    const Convoy__PlanStatus *plan = index < s->n_plans ? s->plans[index] : NULL;
    table_cell(table, "%s", index == 0 ? s->node : "");
    if (plan && plan->plan.len == SHA256_SIZE) {
        table_cell(table, "%.12s", sha256_format(plan->plan.data, hex));
        table_cell(table, "%s", plan->deployed ? "deployed" : "its own");
        table_cell(table, "%u..%u", plan->first, plan->last ? plan->last - 1 : 0);
        table_cell(table, "%s", plan->state);
        table_cell(table, "%u", plan->frames);
        table_cell(table, "%s", format_bytes((double)plan->memory_bytes, text, sizeof(text)));
    } else {
        for (int i = 0; i < 6; i++)
            table_cell(table, "-");
    }
    if (index == 0) {
        table_cell(table, "%u", s->cached_parts);
        table_cell(table, "%s", format_bytes((double)s->cached_bytes, text, sizeof(text)));
    } else {
        table_cell(table, "%s", "");
        table_cell(table, "%s", "");
    }
}

/* Which plans each device holds, newest first, and the parts that it keeps; nothing where all of
 * them come from the devices' own configurations. */
static int print_plans(const Convoy__Status *status, struct err *err) {
    static const char *const columns[] = {"node",       "plan",    "from",   "layers",   "state",
                                          ">under way", ">memory", ">parts", ">on disk", NULL};
    bool any = false;
    for (size_t i = 0; i < status->n_stages; i++)
        any = any || has_deployed(status->stages[i]);
    if (!any)
        return 0;
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < status->n_stages; i++) {
        const Convoy__StageStatus *s = status->stages[i];
        for (size_t k = 0; k < (s->n_plans ? s->n_plans : 1); k++)
            add_plan(table, s, k);
    }
    putchar('\n');
    int rc = table_print(table, stdout);
    table_free(table);
    return rc == 0 ? 0 : err_set(err, rc, "out of memory");
}

/* A device whose clock is held down explains a slow stage. */
static void print_throttled(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++)
        if (status->stages[i]->throttled == 2)
            printf("%s: its clock is being held down (%.0f degrees C)\n", status->stages[i]->node,
                   status->stages[i]->celsius);
}

static int print_text(const Convoy__Status *status, struct err *err) {
    static const char *const columns[] = {"node",   "state", "layers",     ">ms/frame", ">fps",
                                          ">queue", ">busy", ">in flight", ">sends",    ">memory",
                                          ">in",    ">out",  ">retried",   ">up",       NULL};
    struct table *table = table_new(columns);
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < status->n_stages; i++)
        add_row(table, status->stages[i], i + 1 == status->n_stages);
    printf("model %s, %u layers, %zu stages, %u clients, %u sessions\n\n",
           status->model[0] ? status->model : "-", status->layers, status->n_stages,
           status->clients, status->sessions);
    int rc = table_print(table, stdout);
    table_free(table);
    if (rc != 0)
        return err_set(err, rc, "out of memory");
    rc = print_plans(status, err);
    if (rc != 0)
        return rc;
    putchar('\n');
    if (status->deployment[0])
        printf("last deployment: %s\n", status->deployment);
    print_bottleneck(status);
    print_throttled(status);
    for (size_t i = 0; i < status->n_decisions; i++)
        printf("%s%s\n", i ? "           " : "decisions: ", status->decisions[i]);
    return json_flush(stdout, err);
}

static int show_once(const struct status_options *options, struct err *err) {
    Convoy__Status *status;
    bool screen = options->watch && !options->json && isatty(STDOUT_FILENO);
    int rc = query_status(options->address, options->key, TIMEOUT_MS, &status, err);
    if (screen)
        fputs("\033[H\033[J", stdout); /* top left, and the rest of the screen empty */
    if (rc != 0)
        return rc;
    rc = options->json ? print_json(status, options->watch, err) : print_text(status, err);
    convoy__status__free_unpacked(status, NULL);
    return rc;
}

/* Until the user ends it; a device that is away is said and asked again. */
static int watch(const struct status_options *options, struct err *err) {
    for (;;) {
        struct err why = {{0}};
        int rc = show_once(options, &why);
        if (rc == -EPIPE)
            return rc;
        if (rc != 0 && !options->json)
            printf("%s\n", why.text);
        rc = json_flush(stdout, err);
        if (rc != 0)
            return rc;
        double whole = (double)(time_t)options->interval;
        struct timespec pause = {.tv_sec = (time_t)options->interval,
                                 .tv_nsec = (long)((options->interval - whole) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

static int run_status(const struct command *command, int argc, char **argv, struct err *err) {
    struct status_options options = {.interval = 1};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (!options.address || argc != first)
        return err_set(err, COMMAND_USAGE,
                       "--to HOST:PORT is needed, and nothing else; see: convoyctl status --help");
    return options.watch ? watch(&options, err) : show_once(&options, err);
}

static const struct command_option option_rows[] = {
    {'c', "to", "HOST:PORT", "the device to ask; it asks those behind it"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'w', "watch", NULL, "show it again and again, in place on a terminal"},
    {'n', "interval", "SECONDS", "pause of --watch (default 1)"},
    {'j', "json", NULL, "print JSON; with --watch one line each time"},
    {0},
};

const struct command command_status = {
    .name = "status",
    .operands = "[OPTION...] --to HOST:PORT",
    .summary = "Shows every stage of a line and which one holds it up",
    .details = "ms/frame: computing time of one frame on one worker. busy: workers that compute. "
               "in flight: "
               "frames\nsent on whose result is not back. sends: rate of the link to the next "
               "device while "
               "it is sending.",
    .options = option_rows,
    .run = run_status,
};
