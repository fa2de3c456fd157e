#include "base/sha256.h"
#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/options.h"
#include "ctl/query.h"
#include "ctl/table.h"
#include "proto/status_json.h"

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

static int print_json(const Convoy__Status *status, bool one_line, struct err *err) {
    json_t *root = status_json(status);
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

/* The devices whose stage begins with a layer: "pi-b", or "pi-b and pi-c". */
static void stage_names(const Convoy__Status *status, uint32_t first, char *buf, size_t size) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < status->n_stages && used < size; i++)
        if (status->stages[i]->first == first && status->stages[i]->last > first)
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used > 0 ? " and " : "",
                                     status->stages[i]->node);
}

static void print_bottleneck(const Convoy__Status *status) {
    struct status_bottleneck worst = status_find_bottleneck(status);
    const Convoy__StageStatus *blocker = status_find_blocker(status);
    if (blocker) {
        printf("the line stands still: %s is %s\n", blocker->node, blocker->state);
        return;
    }
    if (worst.ms <= 0) {
        puts("no bottleneck known yet: no frames so far");
        return;
    }
    const Convoy__StageStatus *s = status->stages[worst.stage];
    char names[256];
    stage_names(status, s->first, names, sizeof(names));
    if (worst.is_link) {
        char next[256];
        stage_names(status, s->last, next, sizeof(next));
        printf("bottleneck: the link %s -> %s, %.2f ms per frame: at most %.1f frames/s\n", names,
               next, worst.ms, 1000 / worst.ms);
    } else {
        printf("bottleneck: computing on %s, %.2f ms per frame%s: at most %.1f frames/s\n", names,
               worst.ms, s->workers > 1 ? " over its workers" : "", 1000 / worst.ms);
    }
}

/* Devices whose work the others of their stage do meanwhile. */
static void print_replaced(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++)
        if (status_is_replaced(status, i))
            printf("%s is %s: the other devices of its stage go on without it\n",
                   status->stages[i]->node, status->stages[i]->state);
}

/* Where a device deals frames out to several: how many each has had. */
static void print_dealt(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++) {
        const Convoy__StageStatus *s = status->stages[i];
        for (size_t k = 0; s->n_links > 1 && k < s->n_links; k++)
            printf("%s%s %s %llu frames (%u in flight%s)%s", k == 0 ? s->node : "",
                   k == 0 ? " has dealt out: to" : ", to", s->links[k]->node,
                   (unsigned long long)s->links[k]->frames_out, s->links[k]->in_flight,
                   s->links[k]->ready ? "" : "; it is away", k + 1 == s->n_links ? "\n" : "");
    }
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

static void print_overdue(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++)
        if (status->stages[i]->overdue_ms > 0)
            printf("%s: a frame has been computed for %.1f s and is not done; %.2f ms are usual\n",
                   status->stages[i]->node, (double)status->stages[i]->overdue_ms / 1000,
                   status->stages[i]->compute_ms);
}

static void print_suspect(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++)
        if (status->stages[i]->frames_suspect > 0)
            printf(
                "%s: %llu frames came with numbers that cannot be right; its log says from where\n",
                status->stages[i]->node, (unsigned long long)status->stages[i]->frames_suspect);
}

/* Of clients that asked for the newest frames rather than for all. */
static void print_dropped(const Convoy__Status *status) {
    for (size_t i = 0; i < status->n_stages; i++)
        if (status->stages[i]->frames_dropped > 0)
            printf("%s: %llu frames were dropped for newer ones\n", status->stages[i]->node,
                   (unsigned long long)status->stages[i]->frames_dropped);
}

static const char *plural(size_t count) {
    return count == 1 ? "" : "s";
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
    printf("model %s, %u layer%s, %zu device%s, %u client%s, %u session%s\n\n",
           status->model[0] ? status->model : "-", status->layers, plural(status->layers),
           status->n_stages, plural(status->n_stages), status->clients, plural(status->clients),
           status->sessions, plural(status->sessions));
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
    print_dealt(status);
    print_replaced(status);
    print_throttled(status);
    print_overdue(status);
    print_dropped(status);
    print_suspect(status);
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
