/* Happy path: a path is looked up in the table at the end. The page and what this device knows of
 * itself are answered at once; /status asks the devices behind and is answered when they have.
 *
 * A request that waits is held here, so that the end of the server finds it.
 */
#include "daemon/control/web.h"

#include "daemon/device.h"
#include "daemon/net/http.h"
#include "proto/status_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METRICS_BYTES (32 * 1024) /* more than all of them, with the longest names */
#define TEXT          "text/plain; charset=utf-8"

extern const char web_page[]; /* page.html, by the Makefile */

struct web {
    struct device *device;
    struct http *http;
};

static void answer(struct http_request *request, unsigned status, const char *type,
                   const char *body) {
    http_answer(request, status, type, body, strlen(body));
}

/* ---- / --------------------------------------------------------------------------------------- */

static void serve_page(struct web *web, struct http_request *request) {
    (void)web;
    answer(request, 200, "text/html; charset=utf-8", web_page);
}

/* ---- /health --------------------------------------------------------------------------------- */

/* 200 when frames of this device's plans can be computed, 503 and the reason when not. A device
 * that waits to be recruited is healthy, and so is one whose next stage is shared by several of
 * which one is there; those that are not are named. */
static void serve_health(struct web *web, struct http_request *request) {
    char state[CONFIG_NAME_MAX + 32], away[CONFIG_NAME_MAX + 1];
    char text[sizeof(state) + sizeof(away) + 16];
    status_state(web->device, state, sizeof(state));
    bool is_well = strcmp(state, "ready") == 0 || strcmp(state, "idle") == 0;
    status_away(web->device, away, sizeof(away));
    snprintf(text, sizeof(text), "%s%s%s\n", state, away[0] ? ", without " : "", away);
    answer(request, is_well ? 200 : 503, TEXT, text);
}

/* ---- /status --------------------------------------------------------------------------------- */

static void answer_status(void *arg, uint64_t token, const Convoy__Status *status) {
    struct http_request *request = arg;
    json_t *root = status ? status_json(status) : NULL;
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    (void)token;
    json_decref(root);
    if (text)
        answer(request, 200, "application/json", text);
    else
        answer(request, 500, TEXT, "out of memory\n");
    free(text);
}

static void serve_status(struct web *web, struct http_request *request) {
    status_ask(web->device, false, 0, answer_status, request);
}

/* ---- /metrics -------------------------------------------------------------------------------- */

/* https://prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4. */
struct metrics {
    char text[METRICS_BYTES];
    size_t bytes;
};

__attribute__((format(printf, 2, 3))) static void add(struct metrics *metrics, const char *fmt,
                                                      ...) {
    va_list args;
    size_t room = sizeof(metrics->text) - metrics->bytes;
    va_start(args, fmt);
    int n = vsnprintf(metrics->text + metrics->bytes, room, fmt, args);
    va_end(args);
    if (n > 0)
        metrics->bytes += (size_t)n < room ? (size_t)n : room - 1;
}

static void add_head(struct metrics *metrics, const char *name, const char *type,
                     const char *help) {
    add(metrics, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value, with what would end it escaped. */
static const char *escape(const char *text, char *buf, size_t size) {
    size_t at = 0;
    for (; *text && at + 3 < size; text++) {
        if (*text == '"' || *text == '\\' || *text == '\n')
            buf[at++] = '\\';
        buf[at++] = *text;
        if (*text == '\n')
            buf[at - 1] = 'n';
    }
    buf[at] = '\0';
    return buf;
}

static void add_numbers(struct metrics *metrics, const Convoy__Status *status) {
    const Convoy__StageStatus *own = status->stages[0];
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {
        {"convoy_ready", "gauge", "1 when this device and those behind it can compute frames.",
         strcmp(own->state, "ready") == 0},
        {"convoy_frames_in_total", "counter", "Frames that came to this device.",
         (double)own->frames_in},
        {"convoy_frames_out_total", "counter", "Frames that this device has finished.",
         (double)own->frames_out},
        {"convoy_frames_retried_total", "counter", "Frames that were sent again.",
         (double)own->frames_retried},
        {"convoy_frames_refused_total", "counter", "Frames that were refused.",
         (double)own->frames_refused},
        {"convoy_frames_dropped_total", "counter", "Frames of clients that newer ones replaced.",
         (double)own->frames_dropped},
        {"convoy_frames_queued", "gauge", "Frames that wait for a worker.", own->queued},
        {"convoy_frames_queued_limit", "gauge", "How many frames may wait.", own->queue_limit},
        {"convoy_frames_computing", "gauge", "Frames that are being computed.", own->computing},
        {"convoy_frames_in_flight", "gauge", "Frames sent on whose answer is not back.",
         own->in_flight},
        {"convoy_compute_seconds", "gauge", "Computing time of one frame, smoothed.",
         own->compute_ms / 1000},
        {"convoy_frames_suspect_total", "counter",
         "Frames that came with NaN, infinity or numbers beyond the calibration.",
         (double)own->frames_suspect},
        {"convoy_frame_overdue_seconds", "gauge",
         "How long a frame has been computed that takes many times the usual; 0: none does.",
         (double)own->overdue_ms / 1000},
        {"convoy_link_send_bytes_total", "counter", "Bytes sent to the next device.",
         (double)own->bytes_out},
        {"convoy_link_send_bits_per_second", "gauge",
         "Rate of the link to the next device while it is sending.", own->send_mbit * 1e6},
        {"convoy_clients", "gauge", "Clients that are connected.", status->clients},
        {"convoy_sessions", "gauge", "Sessions that are kept.", status->sessions},
        {"convoy_resident_memory_bytes", "gauge", "Memory that the daemon occupies.",
         (double)own->memory_bytes},
        {"convoy_weights_bytes", "gauge", "Weights of this device's stage, prepared.",
         (double)own->weights_bytes},
        {"convoy_arena_bytes", "gauge", "Memory for activations, of all workers.",
         (double)own->arena_bytes},
        {"convoy_uptime_seconds", "gauge", "Time since the daemon started.",
         (double)own->uptime_ms / 1000},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        add_head(metrics, rows[i].name, rows[i].type, rows[i].help);
        add(metrics, "%s %.17g\n", rows[i].name, rows[i].value);
    }
}

/* Of each device of the next stage: several where they share it. */
static void add_links(struct metrics *metrics, const Convoy__StageStatus *own) {
    static const struct {
        const char *name, *type, *help;
    } rows[] = {
        {"convoy_link_ready", "gauge", "1 when the device takes frames of the plan in use."},
        {"convoy_link_frames_total", "counter", "Frames sent to the device."},
        {"convoy_link_frames_in_flight", "gauge", "Of them, those without an answer yet."},
    };
    char node[2 * CONFIG_NAME_MAX + 4];
    for (size_t i = 0; own->n_links > 0 && i < sizeof(rows) / sizeof(rows[0]); i++) {
        add_head(metrics, rows[i].name, rows[i].type, rows[i].help);
        for (size_t k = 0; k < own->n_links; k++) {
            const Convoy__LinkStatus *link = own->links[k];
            const double values[] = {link->ready, (double)link->frames_out, link->in_flight};
            add(metrics, "%s{next=\"%s\"} %.17g\n", rows[i].name,
                escape(link->node, node, sizeof(node)), values[i]);
        }
    }
}

static void answer_metrics(void *arg, uint64_t token, const Convoy__Status *status) {
    struct http_request *request = arg;
    char node[2 * CONFIG_NAME_MAX + 4], model[2 * CONFIG_NAME_MAX + 4];
    struct metrics *metrics = status ? calloc(1, sizeof(*metrics)) : NULL;
    (void)token;
    if (!metrics) {
        answer(request, 500, TEXT, "out of memory\n");
        return;
    }
    add_head(metrics, "convoy_info", "gauge", "Always 1; its labels tell what runs here.");
    add(metrics, "convoy_info{node=\"%s\",model=\"%s\",version=\"%s\"} 1\n",
        escape(status->stages[0]->node, node, sizeof(node)),
        escape(status->model, model, sizeof(model)), CONVOY_VERSION);
    add_numbers(metrics, status);
    add_links(metrics, status->stages[0]);
    http_answer(request, 200, "text/plain; version=0.0.4; charset=utf-8", metrics->text,
                metrics->bytes);
    free(metrics);
}

static void serve_metrics(struct web *web, struct http_request *request) {
    status_ask(web->device, true, 0, answer_metrics, request);
}

/* ---- the site -------------------------------------------------------------------------------- */

static const struct {
    const char *path;
    void (*serve)(struct web *web, struct http_request *request);
} site[] = {
    {"/", serve_page},
    {"/health", serve_health},
    {"/metrics", serve_metrics},
    {"/status", serve_status},
};

static void on_request(void *arg, struct http_request *request, const char *path) {
    for (size_t i = 0; i < sizeof(site) / sizeof(site[0]); i++)
        if (strcmp(path, site[i].path) == 0) {
            site[i].serve(arg, request);
            return;
        }
    answer(request, 404, TEXT, "here are: /, /health, /metrics, /status\n");
}

/* Nobody waits for this request's answer any more. */
static void on_gone(void *arg, struct http_request *request) {
    struct web *web = arg;
    status_forget(web->device, request);
}

int web_start(struct device *device, struct web **ret_web, struct err *err) {
    struct web *web = calloc(1, sizeof(*web));
    if (!web)
        return err_set(err, -ENOMEM, "out of memory");
    web->device = device;
    const struct http_options options = {
        .address = device->config->http,
        .connections = (unsigned)device->config->limits.http_connections,
        .request_ms = HTTP_REQUEST_MS,
        .handler = on_request,
        .gone = on_gone,
        .arg = web,
    };
    int rc = http_start(device->loop, &options, &web->http, err);
    if (rc < 0) {
        free(web);
        return err_prefix(err, rc, "`http:`");
    }
    *ret_web = web;
    return 0;
}

unsigned web_port(const struct web *web) {
    return http_port(web->http);
}

void web_close(struct web *web) {
    if (!web)
        return;
    http_close(web->http);
    free(web);
}
