/* Happy path: resolve -> connect -> Hello -> Welcome: up. The device behind announces Plans and
 * gives Credit; frames go down, Results and Refusals come up; Ping and Pong keep both sides sure.
 *
 * Failure: whatever ends the connection (refused, broken, silent for heartbeat_ms, a message that
 * may not come here), the link forgets credits and announcements, its frames go back (flow.h), and
 * it tries again after a back-off of 100 ms .. 5 s (a control link: .. 1 s). The log says why it is
 * down once, not at each attempt.
 */
#include "daemon/data/link.h"

#include "daemon/control/deploy.h"
#include "daemon/device.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void set_state(struct link *link, enum link_state state) {
    link->state = state;
    link->since_us = device_now_us();
}

static const char *kind_name(const struct link *link) {
    return link->kind == LINK_CONTROL ? "control link" : "link";
}

bool link_is_up(const struct link *link) {
    return link->state == LINK_UP && conn_is_open(link->conn);
}

bool link_is_ready(const struct link *link, const uint8_t id[SHA256_SIZE], size_t bytes) {
    if (link->state != LINK_UP || bytes > link->max_payload)
        return false;
    for (size_t i = 0; i < link->ready_count; i++)
        if (memcmp(link->ready[i], id, SHA256_SIZE) == 0)
            return true;
    return false;
}

/* ---- messages up the link -------------------------------------------------------------------- */

static void handle_welcome(struct link *link, const Convoy__Message *message) {
    const Convoy__Welcome *welcome = message->welcome;
    if (link->state != LINK_GREETING) {
        conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED, "a second Welcome");
        return;
    }
    if (welcome->version != MESSAGE_VERSION) {
        conn_goodbye(link->conn, CONVOY__CODE__CODE_UNSUPPORTED_VERSION,
                     "this device speaks version 1 only");
        return;
    }
    set_state(link, LINK_UP);
    backoff_reset(&link->backoff);
    link->failure_logged = false;
    link->max_payload = welcome->max_payload;
    if (strcmp(welcome->node, link->node) != 0)
        log_warning("%s to %s at %s: the device there calls itself \"%.255s\"; look at `node:` "
                    "and `address:`",
                    kind_name(link), link->node, link->address, welcome->node);
    log_info("%s to %s at %s is up%s", kind_name(link), link->node, link->address,
             conn_security(link->conn));
    if (link->kind == LINK_CONTROL) {
        deploy_link_up(link->device, link);
        pilot_link_up(link->device, link);
    }
}

static void handle_plans(struct link *link, const Convoy__Message *message) {
    const Convoy__Plans *plans = message->plans;
    link->ready_count = 0;
    for (size_t i = 0; i < plans->n_ready && link->ready_count < LINK_PLANS_MAX; i++)
        if (plans->ready[i].len == SHA256_SIZE)
            memcpy(link->ready[link->ready_count++], plans->ready[i].data, SHA256_SIZE);
    device_plans_changed(link->device);
}

static void handle_credit(struct link *link, const Convoy__Message *message) {
    uint32_t frames = message->credit->frames;
    if (frames > LINK_CREDIT_MAX - link->credits) {
        conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED, "more credit than makes sense");
        return;
    }
    link->credits += frames;
    flow_pump(link->device);
    flow_dispatch(link->device);
}

static void handle_refusal(struct link *link, const Convoy__Message *message) {
    flow_refusal(link->device, link, message);
}

static void handle_goodbye(struct link *link, const Convoy__Message *message) {
    conn_close_on_goodbye(link->conn, message->goodbye);
}

static void handle_ping(struct link *link, const Convoy__Message *message) {
    conn_send_pong(link->conn, message->ping->token);
}

static void handle_pong(struct link *link, const Convoy__Message *message) {
    (void)link; /* that something came is noted by the connection */
    (void)message;
}

static void handle_status(struct link *link, const Convoy__Message *message) {
    if (link->kind == LINK_CONTROL)
        pilot_status(link->device, link, message->status);
    else
        status_answered(link->device, link, message->status);
}

static void handle_probed(struct link *link, const Convoy__Message *message) {
    pilot_probed(link->device, link, message->probed);
}

static void handle_prepared(struct link *link, const Convoy__Message *message) {
    deploy_prepared(link->device, link, message->prepared);
}

static void handle_part_request(struct link *link, const Convoy__Message *message) {
    deploy_part_request(link->device, link, message->part_request);
}

#define FRAMES  (1u << LINK_FRAMES)
#define CONTROL (1u << LINK_CONTROL)

static const struct {
    Convoy__Message__BodyCase body;
    unsigned kinds; /* of links that it may come up */
    bool before_welcome;
    void (*handle)(struct link *link, const Convoy__Message *message);
} handlers[] = {
    {CONVOY__MESSAGE__BODY_WELCOME, FRAMES | CONTROL, true, handle_welcome},
    {CONVOY__MESSAGE__BODY_PLANS, FRAMES, false, handle_plans},
    {CONVOY__MESSAGE__BODY_CREDIT, FRAMES, false, handle_credit},
    {CONVOY__MESSAGE__BODY_REFUSAL, FRAMES, false, handle_refusal},
    {CONVOY__MESSAGE__BODY_GOODBYE, FRAMES | CONTROL, true, handle_goodbye},
    {CONVOY__MESSAGE__BODY_PING, FRAMES | CONTROL, true, handle_ping},
    {CONVOY__MESSAGE__BODY_PONG, FRAMES | CONTROL, true, handle_pong},
    {CONVOY__MESSAGE__BODY_STATUS, FRAMES | CONTROL, false, handle_status},
    {CONVOY__MESSAGE__BODY_PROBED, CONTROL, false, handle_probed},
    {CONVOY__MESSAGE__BODY_PREPARED, CONTROL, false, handle_prepared},
    {CONVOY__MESSAGE__BODY_PART_REQUEST, CONTROL, false, handle_part_request},
};

static bool takes_result(const struct link *link, const Convoy__Message *message) {
    return message->body_case == CONVOY__MESSAGE__BODY_RESULT && link->state == LINK_UP &&
           link->kind == LINK_FRAMES;
}

static Convoy__Code on_header(void *owner, const Convoy__Message *header, size_t bytes,
                              const char **ret_text) {
    const struct link *link = owner;
    (void)bytes;
    if (takes_result(link, header))
        return CONVOY__CODE__CODE_OK;
    *ret_text = "only a Result has a payload here";
    return CONVOY__CODE__CODE_MALFORMED;
}

static void on_message(void *owner, const Convoy__Message *message, struct buffer *payload,
                       size_t payload_bytes) {
    struct link *link = owner;
    struct err err = {""};
    if (takes_result(link, message)) {
        if (flow_result(link->device, message, payload, payload_bytes, &err) < 0)
            conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED, err.text);
        return;
    }
    buffer_unref(payload);
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
        if (handlers[i].body == message->body_case && (handlers[i].kinds & 1u << link->kind) &&
            (handlers[i].before_welcome || link->state == LINK_UP)) {
            handlers[i].handle(link, message);
            return;
        }
    conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED,
                 "a message that may not come up a link now");
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer);

static void back_off(struct link *link, const char *why) {
    if (!link->failure_logged)
        log_warning("%s to %s at %s is down: %s; trying again", kind_name(link), link->node,
                    link->address, why);
    link->failure_logged = true;
    if (link->state == LINK_CLOSING)
        return;
    set_state(link, LINK_BACKING_OFF);
    uv_timer_start(&link->timer, on_timer, backoff_next(&link->backoff), 0);
}

static void free_if_closed(struct link *link) {
    if (link->conn || link->resolving || !link->timer_closed)
        return;
    free(link->node);
    free(link->address);
    free(link);
}

/* The connection is gone. */
static void on_close(void *owner, const char *why) {
    struct link *link = owner;
    uint64_t bytes, busy_us;
    bool was_closing = link->state == LINK_CLOSING;
    conn_tx(link->conn, &bytes, &busy_us);
    link->tx_bytes += bytes;
    link->tx_busy_us += busy_us;
    link->conn = NULL;
    link->credits = 0;
    link->ready_count = 0;
    if (was_closing) {
        free_if_closed(link);
        return;
    }
    back_off(link, why);
    flow_link_lost(link->device, link);
    status_link_lost(link->device, link);
    if (link->kind == LINK_CONTROL)
        deploy_link_lost(link->device, link, why);
    device_plans_changed(link->device);
}

static const struct conn_handlers conn_handlers = {on_header, on_message, on_close};

static void send_hello(struct link *link) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    hello.version = MESSAGE_VERSION;
    hello.role =
        link->kind == LINK_CONTROL ? CONVOY__ROLE__ROLE_INGRESS : CONVOY__ROLE__ROLE_UPSTREAM;
    hello.node = link->device->config->node;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    conn_send(link->conn, &message);
}

static void on_connected(uv_connect_t *connect, int status) {
    struct link *link = connect->data;
    if (status == UV_ECANCELED) /* it is being closed: the close callback goes on */
        return;
    if (status == 0)
        status = conn_begin(link->conn, TLS_CONNECTS, link->address);
    if (status < 0) {
        conn_close(link->conn, uv_strerror(status));
        return;
    }
    set_state(link, LINK_GREETING);
    send_hello(link);
}

static void connect_to(struct link *link, const struct sockaddr *address) {
    const struct config *config = link->device->config;
    const struct reader_limits limits = {MESSAGE_HEADER_MAX, config->max_payload};
    int rc = conn_new(link->device->net, &limits, &conn_handlers, link, &link->conn);
    if (rc < 0) {
        back_off(link, uv_strerror(rc));
        return;
    }
    set_state(link, LINK_CONNECTING);
    link->connect.data = link;
    rc = uv_tcp_connect(&link->connect, conn_handle(link->conn), address, on_connected);
    if (rc < 0)
        conn_close(link->conn, uv_strerror(rc));
}

/* A name may have several addresses, and the neighbour may listen on one of them only (IPv4, when
 * the resolver puts IPv6 first): each attempt takes the next. */
static const struct sockaddr *pick_address(const struct addrinfo *found, unsigned attempt) {
    unsigned count = 0;
    for (const struct addrinfo *each = found; each; each = each->ai_next)
        count++;
    assert(count > 0); /* the resolver answers with at least one, or with an error */
    for (unsigned skip = attempt % count; skip > 0; skip--)
        found = found->ai_next;
    return found->ai_addr;
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *result) {
    struct link *link = resolve->data;
    link->resolving = false;
    if (link->state == LINK_CLOSING)
        free_if_closed(link);
    else if (status < 0)
        back_off(link, uv_strerror(status));
    else
        connect_to(link, pick_address(result, link->attempts++));
    uv_freeaddrinfo(result);
}

static void on_timer(uv_timer_t *timer) {
    struct link *link = timer->data;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    char host[CONFIG_NAME_MAX + 1], port[32];
    struct err err = {""};
    if (config_split_address(link->address, host, sizeof(host), port, sizeof(port), &err) < 0) {
        back_off(link, err.text);
        return;
    }
    set_state(link, LINK_RESOLVING);
    link->resolve.data = link;
    int rc = uv_getaddrinfo(link->device->loop, &link->resolve, on_resolved, host, port, &hints);
    if (rc < 0)
        back_off(link, uv_strerror(rc));
    else
        link->resolving = true;
}

/* ---- life ------------------------------------------------------------------------------------ */

struct link *link_start(struct device *device, enum link_kind kind, const char *node,
                        const char *address) {
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->device = device;
    link->kind = kind;
    link->node = strdup(node);
    link->address = strdup(address);
    if (!link->node || !link->address) {
        free(link->node);
        free(link->address);
        free(link);
        return NULL;
    }
    TAILQ_INIT(&link->sent);
    backoff_init(&link->backoff, uv_hrtime() ^ ((uint64_t)getpid() << 32),
                 kind == LINK_CONTROL ? BACKOFF_WANTED_MS : BACKOFF_LAST_MS);
    uv_timer_init(device->loop, &link->timer);
    link->timer.data = link;
    set_state(link, LINK_BACKING_OFF);
    uv_timer_start(&link->timer, on_timer, 0, 0);
    TAILQ_INSERT_TAIL(&device->links, link, entry);
    return link;
}

struct link *link_find(struct device *device, enum link_kind kind, const char *node,
                       const char *address) {
    struct link *link;
    TAILQ_FOREACH(link, &device->links, entry) {
        if (link->kind == kind && strcmp(link->node, node) == 0 &&
            strcmp(link->address, address) == 0)
            break;
    }
    return link;
}

struct link *link_hold(struct device *device, const char *node, const char *address) {
    struct link *link = link_find(device, LINK_CONTROL, node, address);
    if (!link)
        link = link_start(device, LINK_CONTROL, node, address);
    if (link)
        link->holds++;
    return link;
}

void link_drop(struct link *link) {
    assert(link->kind == LINK_CONTROL && link->holds > 0);
    if (--link->holds == 0)
        link_close(link);
}

static void on_timer_closed(uv_handle_t *handle) {
    struct link *link = handle->data;
    link->timer_closed = true;
    free_if_closed(link);
}

void link_close(struct link *link) {
    TAILQ_REMOVE(&link->device->links, link, entry);
    link->failure_logged = true;
    set_state(link, LINK_CLOSING);
    flow_link_lost(link->device, link);
    status_link_lost(link->device, link);
    if (link->conn)
        conn_goodbye(link->conn, CONVOY__CODE__CODE_OK, "this link is not needed any more");
    if (link->resolving)
        uv_cancel((uv_req_t *)&link->resolve);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
}

void link_tick(struct link *link, uint64_t now_us) {
    const struct config *config = link->device->config;
    uint64_t silent_us;
    char why[64];
    if ((link->state == LINK_CONNECTING || link->state == LINK_GREETING) &&
        now_us > link->since_us && now_us - link->since_us > config->limits.hello_ms * 1000) {
        conn_close(link->conn, link->state == LINK_CONNECTING
                                   ? "no answer to the attempt to connect"
                                   : "no Welcome within `limits: hello_ms:`");
        return;
    }
    if (link->state != LINK_GREETING && link->state != LINK_UP)
        return;
    silent_us = now_us - conn_last_rx_us(link->conn);
    if (now_us > conn_last_rx_us(link->conn) && silent_us > config->heartbeat_ms * 1000) {
        snprintf(why, sizeof(why), "silent for %u ms", (unsigned)(silent_us / 1000));
        conn_close(link->conn, why);
        return;
    }
    if (conn_is_stuck(link->conn, now_us)) {
        conn_close(link->conn, "it takes nothing of what it is sent");
        return;
    }
    if (now_us - link->pinged_us < config->heartbeat_ms * 1000 / 3)
        return;
    link->pinged_us = now_us;
    conn_send_ping(link->conn, now_us);
}

void link_excuse(struct link *link, uint64_t us) {
    link->since_us = conn_excused(link->since_us, us, device_now_us());
    if (link->conn)
        conn_excuse(link->conn, us);
}

double link_rate(const struct link *link, uint64_t *ret_bytes, bool *ret_is_full) {
    uint64_t bytes = link->tx_bytes, busy_us = link->tx_busy_us, b, us;
    double rate = 0;
    *ret_is_full = false;
    if (link->conn) {
        rate = conn_rate(link->conn, ret_is_full);
        conn_tx(link->conn, &b, &us);
        bytes += b;
        busy_us += us;
    }
    *ret_bytes = bytes;
    if (rate > 0 && bytes > 0)
        return rate;
    return busy_us > 0 ? (double)bytes * 8 / (double)busy_us : 0;
}
