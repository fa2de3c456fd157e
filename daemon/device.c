/* Starting: configuration, model and stage first, on the caller's thread, so that whatever is wrong
 * with them is a sentence and an exit code; then threads, links and listeners. Reloading: the same,
 * but the stage is prepared by the builder while frames flow, and the plan joins those that are
 * held (planset.h). Draining: credits stop, plans are withdrawn, what is here is finished; then
 * Goodbye on every connection; then the handles are closed; the loop runs out. */
#include "daemon/device.h"

#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LISTENERS_MAX 8
#define LISTENER_TEXT 96
#define BACKLOG       128
#define TICK_LEAST_MS 10
#define TICK_MOST_MS  100
#define TRIM_US       30000000

uint64_t device_now_us(void) {
    return uv_hrtime() / 1000;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void log_plan(const struct held *held, const char *what) {
    char id[LOG_ID_SIZE];
    const struct plan_stage *stage = &held->plan->stages[held->index];
    log_info("plan %s (stage %zu of %zu, layers %zu to %zu): %s", log_id(held->id, id),
             plan_stage_number(held->plan, held->index),
             plan_stage_number(held->plan, held->count - 1), stage->first, stage->last - 1, what);
}

static void note_ready(struct held *held, uint64_t now_us) {
    char names[CONFIG_NAME_MAX + 1], what[sizeof(names) + 64];
    bool ready = held_is_ready(held);
    if (ready == (held->ready_us != 0))
        return;
    held->ready_us = ready ? now_us : 0;
    if (!ready)
        snprintf(what, sizeof(what), "waiting for %s", held_next_names(held, names, sizeof(names)));
    log_plan(held, ready ? "ready from here to its end" : what);
}

static void note_active(struct device *device, uint64_t now_us) {
    struct held *active = planset_active(&device->plans);
    if (!active || memcmp(active->id, device->active_id, SHA256_SIZE) == 0)
        return;
    memcpy(device->active_id, active->id, SHA256_SIZE);
    active->active_us = now_us;
    log_plan(active, "clients' frames go under this plan from now on");
    for (struct peer *peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        peer_resize(peer);
}

static void tell_status(struct device *device) {
    char text[sizeof(device->status_text)], state[CONFIG_NAME_MAX + 32], id[LOG_ID_SIZE];
    const struct held *newest = planset_newest(&device->plans);
    status_state(device, state, sizeof(state));
    if (newest)
        snprintf(text, sizeof(text), "%s, stage %zu of %zu, plan %s", state,
                 plan_stage_number(newest->plan, newest->index),
                 plan_stage_number(newest->plan, newest->count - 1), log_id(newest->id, id));
    else
        snprintf(text, sizeof(text), "%s", state);
    if (strcmp(text, device->status_text) == 0)
        return;
    memcpy(device->status_text, text, sizeof(text));
    device->events.on_status(device->events_arg, text);
}

/* Which devices behind are ready for a plan. */
static void find_ready(struct held *held) {
    size_t ready = 0;
    for (size_t i = 0; i < held->links_count; i++)
        ready += link_is_ready(held->links[i], held->id, held->payload_bytes) ? 1 : 0;
    held->next_ready = ready > 0;
    held->next_whole = ready == held->links_count;
}

void device_plans_changed(struct device *device) {
    uint64_t now_us = device_now_us();
    struct peer *peer;
    for (size_t i = 0; i < device->plans.count; i++) {
        struct held *held = device->plans.plans[i];
        find_ready(held);
        note_ready(held, now_us);
    }
    note_active(device, now_us);
    for (peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        peer_announce(peer);
    flow_plans_changed(device);
    deploy_plans_changed(device);
    tell_status(device);
}

static struct link *find_link(struct device *device, const struct plan_stage *next) {
    struct link *link = link_find(device, LINK_FRAMES, next->node, next->address);
    return link ? link : link_start(device, LINK_FRAMES, next->node, next->address);
}

static bool is_needed(const struct device *device, const struct link *link) {
    for (size_t i = 0; i < device->plans.count; i++) {
        const struct held *held = device->plans.plans[i];
        for (size_t k = 0; k < held->links_count; k++)
            if (held->links[k] == link)
                return true;
    }
    return false;
}

/* Gives a plan the links to the devices of its next stage. */
static void match_plan(struct device *device, struct held *held) {
    size_t count, next = plan_next(held->plan, held->index, &count);
    held->links_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct link *link = find_link(device, &held->plan->stages[next + i]);
        if (link)
            held->links[held->links_count++] = link;
        else
            log_error("no memory for the link to %s", held->plan->stages[next + i].node);
    }
}

/* Gives each plan its links, and ends those that no plan needs. */
static void match_links(struct device *device) {
    struct link *link, *next;
    for (size_t i = 0; i < device->plans.count; i++)
        match_plan(device, device->plans.plans[i]);
    for (link = TAILQ_FIRST(&device->links); link; link = next) {
        next = TAILQ_NEXT(link, entry);
        if (link->kind == LINK_FRAMES && !is_needed(device, link))
            link_close(link);
    }
}

/* A plan that has left the set. Frames under it may still hold it. */
static void release_plan(struct device *device, struct held *held) {
    log_plan(held, "released");
    held->links_count = 0;
    held->next_ready = false;
    deploy_plan_released(device, held->id);
    held_unref(held);
}

void device_release(struct device *device, struct held *held) {
    planset_take(&device->plans, held);
    release_plan(device, held);
    match_links(device);
    device_plans_changed(device);
}

struct held_settings device_settings(const struct device *device) {
    const struct config *config = device->config;
    uint64_t used = 0;
    for (size_t i = 0; i < device->plans.count; i++)
        used += held_memory(device->plans.plans[i]);
    return (struct held_settings){
        .workers = config->workers,
        .threads = config->threads,
        .max_payload = config->max_payload,
        .memory = !config->memory         ? UINT64_MAX
                  : config->memory > used ? config->memory - used
                                          : 0,
    };
}

void device_adopt(struct device *device, struct held *held) {
    struct held *dropped = NULL, *excess;
    uint64_t now_us = device_now_us();
    if (held) {
        held = planset_add(&device->plans, held, now_us, &dropped);
        log_plan(held, "held");
    } else {
        planset_retire(&device->plans);
        if (device->config->pipeline_count > 0)
            log_warning("`pipeline:` has no stage for this device, which is called \"%s\": its "
                        "name is the host's, `node:` or --node",
                        device->config->node);
        log_info("%s is in no pipeline of its own: %s", device->config->node,
                 device->plans.retired ? "idle" : "its plan is one that it was handed");
    }
    if (dropped)
        release_plan(device, dropped);
    while ((excess = planset_take_excess(&device->plans)))
        release_plan(device, excess);
    match_links(device);
    device_plans_changed(device);
}

static void release_unneeded(struct device *device, uint64_t now_us) {
    struct held *held;
    bool any = false;
    while ((held = planset_take_unneeded(&device->plans, now_us, DEVICE_PLAN_GRACE_MS * 1000))) {
        release_plan(device, held);
        any = true;
    }
    if (any) {
        match_links(device);
        device_plans_changed(device);
    }
}

/* ---- configuration --------------------------------------------------------------------------- */

/* The name under which this device runs is that of its start: neighbours and plans know it. */
static const char *keep_node(const struct device *device, const struct config *config) {
    if (!device->config)
        return device->node_option;
    if (!device->node_option && strcmp(device->config->node, config->node) != 0)
        log_warning("`node:` has changed from %s to %s: that takes effect after a restart",
                    device->config->node, config->node);
    return device->config->node;
}

static int read_config(const struct device *device, struct config **ret_config, struct err *err) {
    struct config *config;
    int rc = config_load(device->config_path, &config, err);
    if (rc < 0)
        return rc;
    if (device->config && config->is_empty && !device->config->is_empty) {
        rc = err_set(err, -EINVAL, "%s is empty; to go on with the defaults, let it say so with {}",
                     device->config_path);
        config_free(config);
        return rc;
    }
    rc = config_override(config, keep_node(device, config), device->listen_option, err);
    if (rc < 0) {
        config_free(config);
        return rc;
    }
    *ret_config = config;
    return 0;
}

/* The keys of a configuration, ready for use; NULL where it names none. */
static int read_keys(const struct config *config, struct tls_context **ret_tls, struct err *err) {
    struct tls_keys keys;
    *ret_tls = NULL;
    if (!config->key)
        return 0;
    int rc = tls_keys_load(config->key, &keys, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s: `key:`", config->file);
    *ret_tls = tls_context_new(&keys);
    if (*ret_tls)
        log_info("every connection is encrypted with key %s%s%s", keys.keys[0].id,
                 keys.count > 1 ? "; also accepted: " : "", keys.count > 1 ? keys.keys[1].id : "");
    else
        rc = err_set(err, -ENOMEM, "out of memory");
    tls_keys_wipe(&keys);
    return rc;
}

static void keep_number(const char *key, int old, int *new) {
    if (old == *new)
        return;
    log_warning("`%s:` has changed from %d to %d: that takes effect after a restart", key, old,
                *new);
    *new = old;
}

/* refused: takes what there is no memory for, one at a time, so that the kernel goes on telling. */
struct listener {
    uv_tcp_t tcp, refused;
    bool is_refusing;
    bool has_refused; /* the last time: another one may wait */
};

/* The address where a listener listens, HOST:PORT, in text. */
static const char *listener_text(const uv_tcp_t *tcp, char *text, size_t size) {
    static const char v4[] = "::ffff:"; /* in front of an IPv4 address on an IPv6 socket */
    struct sockaddr_storage address;
    int bytes = sizeof(address);
    char name[64] = "?", port[16] = "?", *host = name;
    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&address, &bytes) == 0)
        getnameinfo((struct sockaddr *)&address, (socklen_t)bytes, name, sizeof(name), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    if (strncmp(host, v4, strlen(v4)) == 0 && strchr(host, '.'))
        host += strlen(v4);
    snprintf(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    return text;
}

/* Sockets that listen stay until a restart, whatever `listen:` and `http:` say, and some were
 * passed to this process: a configuration must protect those that others can reach. */
static int check_open(const struct device *device, const struct config *config, struct err *err) {
    char text[LISTENER_TEXT];
    for (size_t i = 0; i < device->listeners_count && !config->key && !config->insecure; i++)
        if (!config_address_is_loopback(
                listener_text(&device->listeners[i].tcp, text, sizeof(text))))
            return err_set(err, -EINVAL,
                           "%s: this device listens on %s, which other machines can reach, and "
                           "there is no key. Make one with `convoyctl keygen` and name it with "
                           "'key:', or say 'insecure: true' on a network that you trust",
                           device->config_path, text);
    if (device->web && !config->insecure && !config_address_is_loopback(device->config->http))
        return err_set(err, -EINVAL,
                       "%s: the status page is on %s until a restart, where other machines can "
                       "reach it, and 'insecure: true' is gone",
                       device->config_path, device->config->http);
    return 0;
}

static int keep_text(const char *key, const char *old, char **new) {
    if (old && *new ? strcmp(old, *new) == 0 : old == *new)
        return 0;
    log_warning("`%s:` has changed from %s to %s: that takes effect after a restart", key,
                old ? old : "nothing", *new ? *new : "nothing");
    char *copy = old ? strdup(old) : NULL;
    if (old && !copy)
        return -ENOMEM;
    free(*new);
    *new = copy;
    return 0;
}

/* What cannot change while the daemon runs stays as it was. */
static int keep_until_restart(const struct config *old, struct config *new) {
    keep_number("workers", old->workers, &new->workers);
    keep_number("threads", old->threads, &new->threads);
    keep_number("limits: http_connections", old->limits.http_connections,
                &new->limits.http_connections);
    int rc = keep_text("http", old->http, &new->http);
    return rc == 0 ? keep_text("listen", old->listen, &new->listen) : rc;
}

/* What the configuration bounds, where others than the device's own code have to know it. */
static void apply_limits(struct device *device) {
    const struct config_limits *limits = &device->config->limits;
    const struct conn_limits conn = {(size_t)limits->messages, limits->write_ms,
                                     device->config->heartbeat_ms};
    net_set_limits(device->net, &conn);
    device->plans.limit = (size_t)limits->plans;
    device->sessions.max = (size_t)device->config->max_sessions;
}

static void finish_reload(struct device *device) {
    tls_context_unref(device->next_tls);
    device->next_tls = NULL;
    device->events.on_reloaded(device->events_arg);
    tell_status(device);
    if (device->reload_again && !device->draining) {
        device->reload_again = false;
        device_reload(device);
    }
}

/* A configuration that is read, with its plan prepared by the builder. */
struct reload {
    struct job job;
    struct device *device;
    struct config *config;
    uint8_t known[PLANSET_MAX][SHA256_SIZE];
    size_t known_count;
    struct held *held;
    int rc;
    struct err err;
};

static void build_reload(struct job *job) {
    struct reload *reload = (struct reload *)(uintptr_t)job; /* its first member */
    reload->rc = held_build(reload->config, (const uint8_t(*)[SHA256_SIZE])reload->known,
                            reload->known_count, &reload->held, &reload->err);
}

static void on_built(struct job *job, bool is_closing) {
    struct reload *reload = (struct reload *)(uintptr_t)job;
    struct device *device = reload->device;
    struct held *held = reload->held;
    device->reloading = false;
    if (is_closing) {
        tls_context_unref(device->next_tls);
        device->next_tls = NULL;
        held_unref(held);
        config_free(reload->config);
        free(reload);
        return;
    }
    if (reload->rc == 0 && held && !held->stage &&
        !planset_find(&device->plans, held->id, SHA256_SIZE)) {
        held_unref(held); /* it was held when the build began, and released meanwhile */
        config_free(reload->config);
        device->reload_again = true;
    } else if (reload->rc < 0) {
        log_error("reload: %s", reload->err.text);
        log_error("reload: the configuration stays as it was");
        config_free(reload->config);
    } else {
        config_free(device->config);
        device->config = reload->config;
        apply_limits(device);
        net_set_tls(device->net, device->next_tls);
        device->next_tls = NULL;
        log_info("reload: %s has been read", device->config->file);
        device_adopt(device, held);
        deploy_configured(device);
        pilot_configured(device);
    }
    free(reload);
    finish_reload(device);
}

/* Hands a configuration to the builder. Takes it on 0. */
static int submit_reload(struct device *device, struct config *config) {
    struct reload *reload = calloc(1, sizeof(*reload));
    if (!reload)
        return -ENOMEM;
    reload->job.work = build_reload;
    reload->job.done = on_built;
    reload->device = device;
    reload->config = config;
    reload->known_count = device->plans.count;
    for (size_t i = 0; i < device->plans.count; i++)
        memcpy(reload->known[i], device->plans.plans[i]->id, SHA256_SIZE);
    device->reloading = true;
    builder_submit(device->builder, &reload->job);
    return 0;
}

void device_reload(struct device *device) {
    struct config *config = NULL;
    struct err err = {""};
    if (device->draining || device->stopping)
        return;
    if (device->reloading) {
        device->reload_again = true;
        return;
    }
    int rc = read_config(device, &config, &err);
    if (rc == 0 && (rc = keep_until_restart(device->config, config)) < 0)
        err_set(&err, rc, "out of memory");
    if (rc == 0)
        rc = check_open(device, config, &err);
    if (rc == 0)
        rc = read_keys(config, &device->next_tls, &err);
    if (rc == 0 && (rc = submit_reload(device, config)) < 0)
        err_set(&err, rc, "%s", uv_strerror(rc));
    if (rc < 0) {
        config_free(config);
        log_error("reload: %s", err.text);
        log_error("reload: the configuration stays as it was");
        finish_reload(device);
    }
}

/* ---- listening ------------------------------------------------------------------------------- */

static void on_refused(uv_handle_t *handle);

/* Takes the connection that waits, and closes it. */
static void refuse_connection(struct listener *listener) {
    if (listener->is_refusing)
        return;                                          /* it waits until that one is closed */
    uv_tcp_init(listener->tcp.loop, &listener->refused); /* never fails without a socket */
    listener->refused.data = listener;
    listener->has_refused =
        uv_accept((uv_stream_t *)&listener->tcp, (uv_stream_t *)&listener->refused) == 0;
    listener->is_refusing = true;
    uv_close((uv_handle_t *)&listener->refused, on_refused);
}

static void on_refused(uv_handle_t *handle) {
    struct listener *listener = handle->data;
    listener->is_refusing = false;
    if (listener->has_refused)
        refuse_connection(listener);
}

static void on_connection(uv_stream_t *stream, int status) {
    struct device *device = stream->data;
    if (status < 0)
        log_error("a connection was not accepted: %s", uv_strerror(status));
    else if (peer_accept(device, stream) < 0)
        refuse_connection((struct listener *)(uintptr_t)stream); /* its first member */
}

/* A listener on an address, or on a socket (fd) that is bound already. */
static int add_listener(struct device *device, const struct sockaddr *address, int fd) {
    char text[LISTENER_TEXT];
    uv_tcp_t *tcp;
    if (device->listeners_count == LISTENERS_MAX)
        return 0;
    tcp = &device->listeners[device->listeners_count].tcp;
    int rc = uv_tcp_init(device->loop, tcp);
    if (rc < 0)
        return rc;
    device->listeners_count++; /* from here on it has to be closed */
    tcp->data = device;
    rc = address ? uv_tcp_bind(tcp, address, 0) : uv_tcp_open(tcp, fd);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)tcp, BACKLOG, on_connection);
    if (rc == 0)
        log_info("listening on %s", listener_text(tcp, text, sizeof(text)));
    return rc;
}

static int listen_on_address(struct device *device, struct err *err) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *listen = device->config->listen;
    char host[CONFIG_NAME_MAX + 1], port[32];
    struct addrinfo *found = NULL;
    int rc = config_split_address(listen, host, sizeof(host), port, sizeof(port), err);
    if (rc < 0)
        return rc;
    int eai = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (eai != 0)
        return err_set(err, -EADDRNOTAVAIL, "cannot listen on %s: %s", listen, gai_strerror(eai));
    for (const struct addrinfo *at = found; at && rc == 0; at = at->ai_next)
        rc = add_listener(device, at->ai_addr, -1);
    freeaddrinfo(found);
    if (rc == UV_EADDRINUSE)
        return err_set(
            err, rc,
            "cannot listen on %s: the address is in use; stop the program that has it, or "
            "choose another with `listen:` or --listen",
            listen);
    if (rc < 0)
        return err_set(err, rc, "cannot listen on %s: %s", listen, uv_strerror(rc));
    return 0;
}

static int start_listening(struct device *device, const struct device_options *options,
                           struct err *err) {
    for (size_t i = 0; i < options->listen_fds_count; i++) {
        int rc = add_listener(device, NULL, options->listen_fds[i]);
        if (rc < 0)
            return err_set(err, rc, "cannot listen on the socket that was passed: %s",
                           uv_strerror(rc));
    }
    int rc = options->listen_fds_count > 0 ? 0 : listen_on_address(device, err);
    return rc == 0 ? check_open(device, device->config, err) : rc;
}

/* ---- every tick ------------------------------------------------------------------------------ */

static void expire_sessions(struct device *device, uint64_t now_us) {
    struct session *session;
    while ((session = sessions_find_expired(&device->sessions, now_us,
                                            device->config->session_ms * 1000))) {
        if (session->resumable)
            log_info("session %016" PRIx64 " is forgotten: its client has been away too long",
                     session->id);
        flow_origin_gone(device, &session->origin);
        sessions_remove(&device->sessions, session);
    }
}

/* When this thread itself did not run (a suspended machine, a starved CPU), what peers sent
 * meanwhile lies in the sockets unread, be it Hello, and clients that come back wait to be
 * accepted: that is not their silence. */
static void excuse_all(struct device *device, uint64_t us, uint64_t now_us) {
    struct session *session;
    struct link *link;
    struct peer *peer;
    TAILQ_FOREACH(link, &device->links, entry) {
        link_excuse(link, us);
    }
    for (peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        peer_excuse(peer, us);
    TAILQ_FOREACH(session, &device->sessions.list, link) {
        session->away_since_us = conn_excused(session->away_since_us, us, now_us);
    }
    deploy_excuse(device, us, now_us);
    pilot_excuse(device, us, now_us);
}

static void on_tick(uv_timer_t *timer) {
    struct device *device = timer->data;
    uint64_t now_us = device_now_us();
    uint64_t gap_us = now_us - device->last_tick_us;
    struct link *link;
    struct peer *peer;
    if (gap_us > 2 * device->tick_us)
        excuse_all(device, gap_us - device->tick_us, now_us);
    device->last_tick_us = now_us;
    TAILQ_FOREACH(link, &device->links, entry) {
        link_tick(link, now_us);
    }
    for (peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        peer_tick(peer, now_us);
    status_tick(device, now_us);
    flow_tick(device, now_us);
    deploy_tick(device, now_us);
    pilot_tick(device, now_us);
    expire_sessions(device, now_us);
    release_unneeded(device, now_us);
    if (now_us - device->last_trim_us > TRIM_US) {
        device->last_trim_us = now_us;
        pool_trim(device->pool);
    }
    device_check_drained(device);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void drop_sessions(struct device *device) {
    struct session *session;
    while ((session = TAILQ_FIRST(&device->sessions.list))) {
        flow_origin_gone(device, &session->origin);
        sessions_remove(&device->sessions, session);
    }
}

static void on_listener_closed(uv_handle_t *handle) {
    (void)handle; /* its memory is the device's */
}

static void close_listeners(struct device *device) {
    for (size_t i = 0; i < device->listeners_count; i++)
        if (!uv_is_closing((uv_handle_t *)&device->listeners[i].tcp))
            uv_close((uv_handle_t *)&device->listeners[i].tcp, on_listener_closed);
}

static void on_tick_closed(uv_handle_t *handle) {
    struct device *device = handle->data;
    device->events.on_stopped(device->events_arg);
}

/* Every connection is gone (or was never there): closes the rest. */
static void stop(struct device *device) {
    if (device->stopping)
        return;
    device->stopping = true;
    close_listeners(device);
    web_close(device->web);
    device->web = NULL;
    workers_close(device->workers);
    recruit_close(device->recruit);
    pilot_close(device);
    deploy_close(device->deploy);
    builder_close(device->builder);
    device->workers = NULL;
    device->builder = NULL;
    drop_sessions(device);
    while (!TAILQ_EMPTY(&device->links))
        link_close(TAILQ_FIRST(&device->links));
    flow_close(&device->flow);
    net_close(device->net);
    uv_close((uv_handle_t *)&device->tick, on_tick_closed);
}

static void leave(struct device *device) {
    struct peer *peer;
    struct link *link;
    device->leaving = true;
    for (peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        conn_goodbye(peer_conn(peer), CONVOY__CODE__CODE_SHUTTING_DOWN,
                     "this device is shutting down");
    TAILQ_FOREACH(link, &device->links, entry) {
        if (link->conn)
            conn_goodbye(link->conn, CONVOY__CODE__CODE_OK, "this device is shutting down");
    }
}

void device_check_drained(struct device *device) {
    if (!device->draining || device->stopping)
        return;
    bool late = device_now_us() >= device->drain_until_us;
    if (!device->leaving && (late || flow_is_idle(device))) {
        if (!flow_is_idle(device))
            log_warning("%zu frames were not finished in time", device->flow.flights.count);
        leave(device);
    }
    if (device->leaving && TAILQ_EMPTY(&device->peers))
        stop(device);
}

void device_drain(struct device *device) {
    if (device->draining || device->stopping)
        return;
    device->draining = true;
    device->drain_until_us = device_now_us() + device->config->drain_ms * 1000;
    log_info("shutting down: finishing %zu frames", device->flow.flights.count);
    close_listeners(device);
    device_plans_changed(device);
    device_check_drained(device);
}

void device_free(struct device *device) {
    if (!device)
        return;
    planset_clear(&device->plans);
    cache_close(device->cache);
    flow_fini(&device->flow);
    sessions_fini(&device->sessions);
    net_free(device->net);
    pool_free(device->pool);
    config_free(device->config);
    free(device->listeners);
    free(device);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static uint64_t tick_ms(const struct config *config) {
    uint64_t ms = config->heartbeat_ms / 6;
    return ms < TICK_LEAST_MS ? TICK_LEAST_MS : ms > TICK_MOST_MS ? TICK_MOST_MS : ms;
}

/* Everything that has handles. After an error stop() undoes what there is. */
static int start_handles(struct device *device, const struct device_options *options,
                         struct err *err) {
    int rc = workers_start(device->loop, device->config->workers, flow_computed, device,
                           &device->workers);
    if (rc < 0)
        return err_set(err, rc, "cannot start workers: %s", uv_strerror(rc));
    rc = builder_start(device->loop, &device->builder);
    if (rc < 0)
        return err_set(err, rc, "cannot start: %s", uv_strerror(rc));
    rc = start_listening(device, options, err);
    if (rc == 0 && device->config->http) {
        rc = web_start(device, &device->web, err);
        if (rc == 0)
            log_info("page, status, metrics and health on http://%s", device->config->http);
    }
    return rc;
}

static struct device *device_new(uv_loop_t *loop, const struct device_options *options,
                                 const struct device_events *events, void *arg) {
    struct device *device = calloc(1, sizeof(*device));
    if (!device)
        return NULL;
    device->loop = loop;
    device->config_path = options->config_path;
    device->node_option = options->node;
    device->listen_option = options->listen;
    device->events = *events;
    device->events_arg = arg;
    device->started_us = device->last_tick_us = device->last_trim_us = device_now_us();
    TAILQ_INIT(&device->peers);
    TAILQ_INIT(&device->links);
    TAILQ_INIT(&device->status_requests);
    device->listeners = calloc(LISTENERS_MAX, sizeof(*device->listeners));
    device->pool = pool_new();
    if (!device->listeners || !device->pool || flow_init(&device->flow, device) < 0) {
        pool_free(device->pool);
        free(device->listeners);
        free(device);
        return NULL;
    }
    uv_timer_init(loop, &device->tick);
    device->tick.data = device;
    device->net = net_new(loop, device->pool);
    device->recruit = recruit_new(device);
    device->deploy = deploy_new(device);
    return device;
}

static int use_keys(struct device *device, struct err *err) {
    struct tls_context *tls;
    int rc = read_keys(device->config, &tls, err);
    if (rc == 0)
        net_set_tls(device->net, tls);
    if (rc == 0 && !tls && !config_address_is_loopback(device->config->listen))
        log_warning("`insecure: true`: whoever reaches %s may use this device, and links are not "
                    "encrypted; `key:` would change both",
                    device->config->listen);
    return rc;
}

int device_start(uv_loop_t *loop, const struct device_options *options,
                 const struct device_events *events, void *arg, struct device **ret_device,
                 struct err *err) {
    struct device *device = device_new(loop, options, events, arg);
    struct held *held = NULL;
    int rc;
    if (!device)
        return err_set(err, -ENOMEM, "out of memory");
    *ret_device = device;
    if (!device->net || !device->recruit || !device->deploy)
        rc = err_set(err, -ENOMEM, "out of memory");
    else
        rc = read_config(device, &device->config, err);
    if (rc == 0)
        rc = use_keys(device, err);
    if (rc == 0)
        rc = held_build(device->config, NULL, 0, &held, err);
    sessions_init(&device->sessions, 0);
    if (rc == 0)
        apply_limits(device);
    if (rc == 0)
        rc = start_handles(device, options, err);
    if (rc < 0) {
        held_unref(held);
        stop(device);
        return rc;
    }
    device->tick_us = tick_ms(device->config) * 1000;
    uv_timer_start(&device->tick, on_tick, device->tick_us / 1000, device->tick_us / 1000);
    device->last_tick_us = device_now_us();
    device_adopt(device, held);
    deploy_configured(device);
    pilot_configured(device);
    return 0;
}
