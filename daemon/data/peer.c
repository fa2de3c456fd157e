/* Happy path: accept -> Hello -> Welcome, then Credit (and Plans, to a device); then frames come
 * and answers go. An ingress that hands out plans sends no frames (recruit.h). A client gets a
 * session where this device is the first of a plan; elsewhere it may only ask for status.
 *
 * Failure: what may not come is answered with Goodbye and the log says so; the connection's end
 * leaves a client's session behind (session.h), while an upstream device's frames are dropped, for
 * their ingress sends them again. A client that does not read cannot make the device grow: what
 * waits for it is bounded by its session's window and by `limits: messages:`.
 *
 * States: greeting -> client, upstream or ingress -> closed.
 */
#include "daemon/data/peer.h"

#include "daemon/device.h"
#include "daemon/log.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HELLO_HEADER_MAX       4096
#define CLIENT_SILENT_FACTOR   15    /* a client may be silent so many heartbeats ... */
#define CLIENT_SILENT_LEAST_MS 30000 /* ... and at least this long */

enum peer_role { PEER_GREETING, PEER_CLIENT, PEER_UPSTREAM, PEER_INGRESS };

struct peer {
    TAILQ_ENTRY(peer) entry;
    struct device *device;
    struct conn *conn;
    enum peer_role role;
    struct session *session; /* of a client on an ingress; else NULL */
    struct origin origin;    /* of an upstream device */
    uint64_t number;         /* in the order of connecting */
    uint64_t started_us, pinged_us;
    uint8_t announced[PLANSET_MAX][SHA256_SIZE];
    size_t announced_count;
    bool has_announced;
    char name[CONN_NAME_SIZE + 80];
};

struct conn *peer_conn(struct peer *peer) {
    return peer->conn;
}

const char *peer_name(const struct peer *peer) {
    return peer->name;
}

struct origin *peer_origin(struct peer *peer) {
    return peer->session ? &peer->session->origin : &peer->origin;
}

struct peer *peer_next(struct peer *peer) {
    return TAILQ_NEXT(peer, entry);
}

/* A client of a device that is not the first of a plan may not send frames. */
static bool may_send_frames(const struct peer *peer) {
    return peer->role == PEER_UPSTREAM || peer->session;
}

/* How many frames a session may have here: enough to fill every device of the line; and where the
 * oldest shall go when it is full, some that wait besides. */
static uint32_t session_limit(const struct device *device, bool drops) {
    const struct held *held = planset_ingress(&device->plans);
    uint32_t limit = held ? (uint32_t)device->config->queue * (uint32_t)held->count : 1;
    return drops ? limit + flow_busy_max(device) : limit;
}

/* Frames of clients, with their answers, that `limits: frame_memory:` has room for; at least one.
 */
static uint64_t frames_in_memory(const struct device *device) {
    const struct held *held = planset_ingress(&device->plans);
    uint64_t bytes = held ? held->input_bytes + held->result_bytes : 1;
    uint64_t frames = device->config->limits.frame_memory / (bytes > 0 ? bytes : 1);
    return frames > 0 ? frames : 1;
}

/* Where memory does not suffice for every session's frames each has an equal share of it, but no
 * more than the others have left; and one frame in any case. */
static void settle_limit(const struct peer *peer) {
    const struct sessions *sessions = &peer->device->sessions;
    const struct session *session;
    uint64_t most = frames_in_memory(peer->device), others = 0;
    uint32_t limit = session_limit(peer->device, peer->session->drops);
    if ((uint64_t)limit * sessions->count > most) {
        TAILQ_FOREACH(session, &sessions->list, link) {
            if (session != peer->session)
                others += session->origin.window.granted + session->origin.window.occupied;
        }
        uint64_t left = most > others ? most - others : 1;
        uint64_t share = most > sessions->count ? most / sessions->count : 1;
        share = share < left ? share : left;
        limit = share < limit ? (uint32_t)share : limit;
    }
    peer->session->origin.window.limit = limit;
}

void peer_grant(struct peer *peer) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    if (!may_send_frames(peer) || peer->device->draining || !conn_is_open(peer->conn))
        return;
    if (peer->session)
        settle_limit(peer);
    credit.frames = window_grant(&peer_origin(peer)->window);
    if (credit.frames == 0)
        return;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    conn_send(peer->conn, &message);
}

void peer_announce(struct peer *peer) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    ProtobufCBinaryData data[PLANSET_MAX];
    const uint8_t *ids[PLANSET_MAX];
    size_t count;
    bool same;
    if (peer->role != PEER_UPSTREAM)
        return;
    count = peer->device->draining ? 0 : planset_ready_ids(&peer->device->plans, ids);
    same = peer->has_announced && count == peer->announced_count;
    for (size_t i = 0; i < count; i++) {
        same = same && memcmp(peer->announced[i], ids[i], SHA256_SIZE) == 0;
        data[i] = (ProtobufCBinaryData){.len = SHA256_SIZE, .data = (uint8_t *)(uintptr_t)ids[i]};
    }
    if (same)
        return;
    for (size_t i = 0; i < count; i++)
        memcpy(peer->announced[i], ids[i], SHA256_SIZE);
    peer->announced_count = count;
    peer->has_announced = true;
    plans.n_ready = count;
    plans.ready = data;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    conn_send(peer->conn, &message);
}

/* ---- Hello ----------------------------------------------------------------------------------- */

static uint64_t random_id(void) {
    uint64_t id = 0;
    while (id == 0)
        if (uv_random(NULL, NULL, &id, sizeof(id), 0, NULL) < 0)
            return 0;
    return id;
}

void peer_resize(struct peer *peer) {
    if (peer->session)
        peer_grant(peer);
}

static struct session *open_session(struct device *device) {
    struct session *idle;
    uint64_t id = random_id();
    size_t max = device->sessions.max, most = frames_in_memory(device);
    if (id == 0 || sessions_find(&device->sessions, id))
        return NULL;
    if (device->sessions.count >= (most < max ? most : max)) {
        idle = sessions_find_idle(&device->sessions);
        if (idle)
            sessions_remove(&device->sessions, idle);
        else if (device->sessions.count > 0)
            return NULL;
    }
    return sessions_open(&device->sessions, id, 1); /* settle_limit() says how many */
}

/* Gives a client its session: the one it names, or a new one. NULL: it has been told why not. */
static struct session *attach_session(struct peer *peer, const Convoy__Hello *hello,
                                      bool *ret_resumed) {
    struct device *device = peer->device;
    uint64_t id = hello->session;
    struct session *session = id ? sessions_find(&device->sessions, id) : NULL;
    *ret_resumed = session != NULL;
    if (!session)
        session = open_session(device);
    if (!session) {
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_TOO_MANY, "too many sessions; try again later");
        return NULL;
    }
    struct peer *older = session->origin.peer;
    if (session_attach(session, peer) < 0) {
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_INTERNAL, "out of memory");
        return NULL;
    }
    if (older) {
        older->session = NULL;
        conn_close(older->conn, "its session was resumed on another connection");
    }
    session->drops = hello->when_full == CONVOY__WHEN_FULL__WHEN_FULL_DEFAULT
                         ? device->config->when_full == CONFIG_DROP_OLDEST
                         : hello->when_full == CONVOY__WHEN_FULL__WHEN_FULL_DROP_OLDEST;
    return session;
}

/* Describes what a client's frames must carry and will bring. */
static int describe_model(const struct held *held, Convoy__Welcome *welcome) {
    size_t outputs_count;
    const struct tensor_desc *outputs =
        model_cut(held->model, model_layers_count(held->model), &outputs_count);
    size_t count = held->inputs_count + outputs_count;
    Convoy__Tensor *wire = calloc(count, sizeof(*wire));
    Convoy__Tensor **pointers = calloc(count, sizeof(*pointers));
    int rc = wire && pointers ? 0 : -ENOMEM;
    if (rc == 0)
        rc = message_fill_tensors(held->inputs, held->inputs_count, wire, pointers);
    if (rc == 0)
        rc = message_fill_tensors(outputs, outputs_count, wire + held->inputs_count,
                                  pointers + held->inputs_count);
    if (rc < 0) {
        free(wire);
        free(pointers);
        return rc;
    }
    welcome->n_inputs = held->inputs_count;
    welcome->inputs = pointers;
    welcome->n_outputs = outputs_count;
    welcome->outputs = pointers + held->inputs_count;
    return 0;
}

static void send_welcome(struct peer *peer, bool resumed) {
    struct device *device = peer->device;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    struct held *held = planset_active(&device->plans);
    if (!held)
        held = planset_ingress(&device->plans);
    welcome.version = MESSAGE_VERSION;
    welcome.node = device->config->node;
    welcome.max_payload = device->config->max_payload;
    welcome.resumed = resumed;
    if (peer->session) {
        welcome.session = peer->session->id;
        welcome.model = held->model_name;
        welcome.model_digest.data = (uint8_t *)(uintptr_t)model_digest(held->model);
        welcome.model_digest.len = SHA256_SIZE;
        if (describe_model(held, &welcome) < 0) {
            conn_close(peer->conn, "out of memory");
            return;
        }
    }
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    conn_send(peer->conn, &message);
    if (welcome.n_inputs > 0) {
        free(welcome.inputs[0]);
        free(welcome.inputs);
    }
}

static void greet_client(struct peer *peer, const Convoy__Hello *hello) {
    struct device *device = peer->device;
    bool resumed = false;
    device->greetings--;
    device->clients++;
    peer->role = PEER_CLIENT;
    snprintf(peer->name, sizeof(peer->name), "client %s", conn_name(peer->conn));
    if (device->clients > (size_t)device->config->max_clients) {
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_TOO_MANY, "too many clients; try again later");
        return;
    }
    if (planset_ingress(&device->plans)) {
        peer->session = attach_session(peer, hello, &resumed);
        if (!peer->session)
            return;
    }
    log_info("%s \"%.64s\" connected%s%s", peer->name, hello->node, conn_security(peer->conn),
             resumed         ? " and resumed its session"
             : peer->session ? ""
                             : " (for status only: this device is not the first of a plan)");
    send_welcome(peer, resumed);
    if (resumed)
        flow_session_attached(device, peer->session);
}

/* Another device, of either kind. False: it has been told that there are too many. */
static bool greet_device(struct peer *peer, const Convoy__Hello *hello, enum peer_role role) {
    struct device *device = peer->device;
    device->greetings--;
    device->upstreams++;
    peer->role = role;
    snprintf(peer->name, sizeof(peer->name), "%s %.64s at %s",
             role == PEER_INGRESS ? "ingress" : "device", hello->node, conn_name(peer->conn));
    log_info("%s connected%s", peer->name, conn_security(peer->conn));
    if (device->upstreams <= (size_t)device->config->limits.devices)
        return true;
    conn_goodbye(peer->conn, CONVOY__CODE__CODE_TOO_MANY, "too many devices; try again later");
    return false;
}

static void greet_upstream(struct peer *peer, const Convoy__Hello *hello) {
    peer->origin.peer = peer;
    peer->origin.window.limit = (uint32_t)peer->device->config->queue;
    if (!greet_device(peer, hello, PEER_UPSTREAM))
        return;
    send_welcome(peer, false);
    peer_announce(peer);
}

static void greet_ingress(struct peer *peer, const Convoy__Hello *hello) {
    const struct reader_limits limits = {MESSAGE_HEADER_MAX, DEPLOY_CHUNK};
    conn_set_limits(peer->conn, &limits);
    if (greet_device(peer, hello, PEER_INGRESS))
        send_welcome(peer, false);
}

static void handle_hello(struct peer *peer, const Convoy__Message *message) {
    const Convoy__Hello *hello = message->hello;
    const struct config *config = peer->device->config;
    const struct reader_limits limits = {MESSAGE_HEADER_MAX, config->max_payload};
    if (hello->version != MESSAGE_VERSION) {
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_UNSUPPORTED_VERSION,
                     "this device speaks version 1 only");
        return;
    }
    if (peer->device->draining) {
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_SHUTTING_DOWN, "this device is shutting down");
        return;
    }
    conn_set_limits(peer->conn, &limits);
    if (hello->role == CONVOY__ROLE__ROLE_CLIENT)
        greet_client(peer, hello);
    else if (hello->role == CONVOY__ROLE__ROLE_UPSTREAM)
        greet_upstream(peer, hello);
    else if (hello->role == CONVOY__ROLE__ROLE_INGRESS)
        greet_ingress(peer, hello);
    else
        conn_goodbye(peer->conn, CONVOY__CODE__CODE_MALFORMED, "a role that is not known");
    peer_grant(peer);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void handle_ping(struct peer *peer, const Convoy__Message *message) {
    conn_send_pong(peer->conn, message->ping->token);
}

static void handle_pong(struct peer *peer, const Convoy__Message *message) {
    (void)peer; /* that something came is noted by the connection */
    (void)message;
}

static void handle_goodbye(struct peer *peer, const Convoy__Message *message) {
    if (peer->session && message->goodbye->code == CONVOY__CODE__CODE_OK)
        peer->session->resumable = false;
    conn_close_on_goodbye(peer->conn, message->goodbye);
}

static void handle_status_request(struct peer *peer, const Convoy__Message *message) {
    status_request(peer->device, peer, message->status_request);
}

static void handle_prepare(struct peer *peer, const Convoy__Message *message) {
    recruit_prepare(peer->device, peer, message->prepare);
}

static void handle_release(struct peer *peer, const Convoy__Message *message) {
    recruit_release(peer->device, peer, message->release);
}

static void handle_measure(struct peer *peer, const Convoy__Message *message) {
    recruit_measure(peer->device, peer, message->measure);
}

/* CPU time of this thread, which is the loop's. */
static uint64_t loop_cpu_us(void) {
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void handle_probe(struct peer *peer, const Convoy__Message *message) {
    Convoy__Message reply = CONVOY__MESSAGE__INIT;
    Convoy__Probed probed = CONVOY__PROBED__INIT;
    probed.token = message->probe->token;
    probed.cpu_us = loop_cpu_us();
    reply.body_case = CONVOY__MESSAGE__BODY_PROBED;
    reply.probed = &probed;
    conn_send(peer->conn, &reply);
}

static void handle_apply(struct peer *peer, const Convoy__Message *message) {
    apply_request(peer->device, peer, message->apply);
}

#define GREETING (1u << PEER_GREETING)
#define CLIENT   (1u << PEER_CLIENT)
#define UPSTREAM (1u << PEER_UPSTREAM)
#define INGRESS  (1u << PEER_INGRESS)

static const struct {
    Convoy__Message__BodyCase body;
    unsigned roles; /* that may send it */
    void (*handle)(struct peer *peer, const Convoy__Message *message);
} handlers[] = {
    {CONVOY__MESSAGE__BODY_HELLO, GREETING, handle_hello},
    {CONVOY__MESSAGE__BODY_PING, CLIENT | UPSTREAM | INGRESS, handle_ping},
    {CONVOY__MESSAGE__BODY_PONG, CLIENT | UPSTREAM | INGRESS, handle_pong},
    {CONVOY__MESSAGE__BODY_GOODBYE, GREETING | CLIENT | UPSTREAM | INGRESS, handle_goodbye},
    {CONVOY__MESSAGE__BODY_STATUS_REQUEST, CLIENT | UPSTREAM | INGRESS, handle_status_request},
    {CONVOY__MESSAGE__BODY_PREPARE, INGRESS, handle_prepare},
    {CONVOY__MESSAGE__BODY_RELEASE, INGRESS, handle_release},
    {CONVOY__MESSAGE__BODY_APPLY, CLIENT, handle_apply},
    {CONVOY__MESSAGE__BODY_MEASURE, INGRESS, handle_measure},
    {CONVOY__MESSAGE__BODY_PROBE, INGRESS, handle_probe},
};

/* The largest payload that a frame of this peer's can have under a plan that is held. Where none
 * is, the connection's own bound is enough: the frame is refused with the reason. */
static size_t largest_payload(const struct peer *peer) {
    const struct planset *plans = &peer->device->plans;
    size_t most = 0;
    for (size_t i = 0; i < plans->count; i++)
        if (held_is_first(plans->plans[i]) == (peer->session != NULL) &&
            plans->plans[i]->input_bytes > most)
            most = plans->plans[i]->input_bytes;
    return most > 0 ? most : SIZE_MAX;
}

static Convoy__Code check_frame(struct peer *peer, const char **ret_text) {
    if (peer->role == PEER_GREETING) {
        *ret_text = "the first message must be Hello";
        return CONVOY__CODE__CODE_MALFORMED;
    }
    if (!may_send_frames(peer)) {
        *ret_text = "this device takes no frames from clients: it is not the first of a plan";
        return CONVOY__CODE__CODE_NO_PIPELINE;
    }
    if (peer_origin(peer)->window.granted == 0) {
        *ret_text = "a frame came without a credit for it";
        return CONVOY__CODE__CODE_NO_CREDIT;
    }
    return CONVOY__CODE__CODE_OK;
}

static bool takes_chunk(const struct peer *peer, const Convoy__Message *header, size_t bytes) {
    return header->body_case == CONVOY__MESSAGE__BODY_PART_CHUNK && peer->role == PEER_INGRESS &&
           recruit_expects(peer->device, peer, header->part_chunk, bytes);
}

static Convoy__Code on_header(void *owner, const Convoy__Message *header, size_t bytes,
                              const char **ret_text) {
    const struct peer *peer = owner;
    if (header->body_case == CONVOY__MESSAGE__BODY_FRAME && peer->role != PEER_INGRESS) {
        Convoy__Code code = check_frame(owner, ret_text);
        if (code != CONVOY__CODE__CODE_OK || !peer->session || bytes <= largest_payload(peer))
            return code;
        *ret_text = "a frame larger than the model's inputs";
        return CONVOY__CODE__CODE_TOO_LARGE;
    }
    if (takes_chunk(peer, header, bytes) ||
        (header->body_case == CONVOY__MESSAGE__BODY_PROBE && peer->role == PEER_INGRESS))
        return CONVOY__CODE__CODE_OK;
    *ret_text = peer->role == PEER_INGRESS
                    ? "only a Probe, or a PartChunk that was asked for, has a payload here"
                    : "only a Frame has a payload here";
    return CONVOY__CODE__CODE_MALFORMED;
}

static void on_message(void *owner, const Convoy__Message *message, struct buffer *payload,
                       size_t payload_bytes) {
    struct peer *peer = owner;
    const char *text = "a message that may not come here now";
    Convoy__Code code = CONVOY__CODE__CODE_MALFORMED;
    if (takes_chunk(peer, message, payload_bytes)) {
        recruit_chunk(peer->device, peer, message->part_chunk, payload, payload_bytes);
        return;
    }
    if (message->body_case == CONVOY__MESSAGE__BODY_FRAME && peer->role != PEER_INGRESS) {
        code = check_frame(peer, &text);
        if (code == CONVOY__CODE__CODE_OK) {
            flow_frame(peer->device, peer, message->frame, payload, payload_bytes);
            return;
        }
    }
    buffer_unref(payload);
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
        if (handlers[i].body == message->body_case && (handlers[i].roles & 1u << peer->role)) {
            handlers[i].handle(peer, message);
            return;
        }
    conn_goodbye(peer->conn, code, text);
}

static void on_close(void *owner, const char *why) {
    struct peer *peer = owner;
    struct device *device = peer->device;
    log_info("%s is gone: %s", peer->name, why);
    TAILQ_REMOVE(&device->peers, peer, entry);
    if (peer->role == PEER_GREETING)
        device->greetings--;
    else if (peer->role == PEER_CLIENT)
        device->clients--;
    else
        device->upstreams--;
    status_forget(device, peer);
    apply_peer_gone(device, peer);
    if (peer->role == PEER_INGRESS && device->recruit)
        recruit_peer_gone(device, peer);
    if (peer->session)
        session_detach(peer->session, device_now_us());
    if (peer->role == PEER_UPSTREAM)
        flow_origin_gone(device, &peer->origin);
    free(peer);
    device_check_drained(device);
}

static const struct conn_handlers conn_handlers = {on_header, on_message, on_close};

/* ---- life ------------------------------------------------------------------------------------ */

static bool is_greeting(const struct peer *peer) {
    return peer->role == PEER_GREETING && conn_is_open(peer->conn);
}

/* The address without its port. */
static size_t host_length(const char *name) {
    const char *port = strrchr(name, ':');
    return port ? (size_t)(port - name) : strlen(name);
}

static int compare_hosts(const struct peer *a, const struct peer *b) {
    const char *x = conn_name(a->conn), *y = conn_name(b->conn);
    size_t x_length = host_length(x), y_length = host_length(y);
    if (x_length != y_length)
        return x_length < y_length ? -1 : 1;
    return memcmp(x, y, x_length);
}

/* By address; those of one by age. */
static int compare_greetings(const void *a, const void *b) {
    const struct peer *x = *(struct peer *const *)a, *y = *(struct peer *const *)b;
    int order = compare_hosts(x, y);
    if (order == 0 && x->number != y->number)
        order = x->number < y->number ? -1 : 1;
    return order;
}

/* What one has said and nobody has read yet may be its Hello. Then the older one goes. */
static bool goes_before(const struct peer *a, const struct peer *b) {
    bool a_spoke = conn_has_unread(a->conn), b_spoke = conn_has_unread(b->conn);
    return a_spoke != b_spoke ? b_spoke : a->number < b->number;
}

/* Makes room among the connections that have not said Hello yet: of the addresses that have most of
 * them the oldest goes that has said nothing. So a flood of them from one machine keeps nobody else
 * out, and one from many keeps nobody out who says it at once. */
static void drop_a_greeting(struct device *device) {
    struct peer *greetings[LIMITS_GREETINGS_MAX], *first = NULL, *peer;
    size_t count = 0, most = 0, next;
    for (peer = TAILQ_FIRST(&device->peers); peer; peer = peer_next(peer))
        if (is_greeting(peer) && count < LIMITS_GREETINGS_MAX)
            greetings[count++] = peer;
    qsort(greetings, count, sizeof(greetings[0]), compare_greetings);
    for (size_t i = 0; i < count; i = next) {
        struct peer *of_host = greetings[i];
        for (next = i + 1; next < count && compare_hosts(greetings[i], greetings[next]) == 0;
             next++)
            if (goes_before(greetings[next], of_host))
                of_host = greetings[next];
        if (next - i > most || (next - i == most && goes_before(of_host, first)))
            first = of_host;
        most = next - i > most ? next - i : most;
    }
    if (first)
        conn_close(first->conn, "it has not said Hello, and others came");
}

int peer_accept(struct device *device, uv_stream_t *listener) {
    const struct reader_limits limits = {HELLO_HEADER_MAX, 0};
    struct peer *peer = calloc(1, sizeof(*peer));
    int rc;
    if (!peer) {
        log_error("a connection is dropped: out of memory");
        return -ENOMEM;
    }
    peer->device = device;
    peer->number = device->connections++;
    peer->started_us = device_now_us();
    TAILQ_INIT(&peer->origin.frames);
    rc = conn_new(device->net, &limits, &conn_handlers, peer, &peer->conn);
    if (rc < 0) {
        log_error("a connection is dropped: %s", uv_strerror(rc));
        free(peer);
        return -ENOMEM;
    }
    if (device->greetings >= (size_t)device->config->limits.greetings)
        drop_a_greeting(device);
    TAILQ_INSERT_TAIL(&device->peers, peer, entry);
    device->greetings++;
    rc = uv_accept(listener, (uv_stream_t *)conn_handle(peer->conn));
    if (rc == 0)
        rc = conn_begin(peer->conn, TLS_ACCEPTS, NULL);
    snprintf(peer->name, sizeof(peer->name), "connection from %s", conn_name(peer->conn));
    if (rc < 0)
        conn_close(peer->conn, uv_strerror(rc));
    return 0;
}

static bool is_silent(const struct peer *peer, uint64_t now_us) {
    uint64_t limit_ms = peer->device->config->heartbeat_ms;
    uint64_t last_us = conn_last_rx_us(peer->conn);
    if (peer->role == PEER_CLIENT) {
        limit_ms *= CLIENT_SILENT_FACTOR;
        if (limit_ms < CLIENT_SILENT_LEAST_MS)
            limit_ms = CLIENT_SILENT_LEAST_MS;
    }
    return now_us > last_us && now_us - last_us > limit_ms * 1000;
}

void peer_tick(struct peer *peer, uint64_t now_us) {
    if (!conn_is_open(peer->conn))
        return;
    if (peer->role == PEER_GREETING) {
        if (now_us > peer->started_us &&
            now_us - peer->started_us > peer->device->config->limits.hello_ms * 1000)
            conn_goodbye(peer->conn, CONVOY__CODE__CODE_MALFORMED,
                         "no Hello within `limits: hello_ms:`");
        return;
    }
    if (is_silent(peer, now_us)) {
        conn_close(peer->conn, "silent for too long");
        return;
    }
    if (conn_is_stuck(peer->conn, now_us)) {
        conn_close(peer->conn, "it takes nothing of what it is sent");
        return;
    }
    if (peer->session && peer->session->origin.window.granted == 0)
        peer_grant(peer); /* other sessions may have left it room */
    if (now_us - peer->pinged_us < peer->device->config->heartbeat_ms * 1000 / 3)
        return;
    peer->pinged_us = now_us;
    conn_send_ping(peer->conn, now_us);
}

void peer_excuse(struct peer *peer, uint64_t us) {
    peer->started_us = conn_excused(peer->started_us, us, device_now_us());
    conn_excuse(peer->conn, us);
}
