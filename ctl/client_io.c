/* The client's thread: connects, sends what waits, sorts what comes. It holds the lock except while
 * it connects or waits. */
#include "ctl/client_private.h"

#include "ctl/progress.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CONNECT_MS       5000 /* for one address */
#define WELCOME_MS       5000 /* from Hello to Welcome */
#define PING_US          1000000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   2000
#define GREETING_TRIES   4  /* where the device is there, but its Welcome does not come */
#define REFUSED_WAIT_MS  50 /* a frame refused for now; doubled with each attempt */
#define QUEUE_AHEAD      4  /* frames handed to the socket beyond the one being written */
#define CREDITS_MAX      (1u << 20)

/* A header before Welcome, and a result after. */
#define HEADER_BYTES MESSAGE_HEADER_MAX

/* ---- messages that come ---- */

static int copy_descs(Convoy__Tensor *const *wire, size_t count, struct tensor_desc **ret_descs) {
    struct tensor_desc *descs = calloc(count + 1, sizeof(*descs));
    int rc = descs ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (wire[i]->n_dims > TENSOR_MAX_RANK) {
            rc = -EPROTO;
            break;
        }
        descs[i].dtype = (enum dtype)wire[i]->dtype;
        descs[i].rank = (int)wire[i]->n_dims;
        descs[i].bounded = (uint8_t)wire[i]->bounded;
        memcpy(descs[i].dims, wire[i]->dims, wire[i]->n_dims * sizeof(int64_t));
        descs[i].name = strdup(wire[i]->name);
        if (!descs[i].name)
            rc = -ENOMEM;
    }
    *ret_descs = descs;
    return rc;
}

static int lay_out(const struct tensor_desc *descs, size_t count, size_t **ret_offsets,
                   size_t *ret_bytes) {
    *ret_offsets = calloc(count + 1, sizeof(**ret_offsets));
    return *ret_offsets ? message_layout(descs, count, *ret_offsets, ret_bytes) : -ENOMEM;
}

/* The first Welcome: what the line computes. The counts are set as soon as the lists are, for
 * client_free(). */
static int learn_info(struct client *client, const Convoy__Welcome *welcome, struct err *err) {
    struct client_info *info = &client->info;
    if (welcome->n_inputs == 0)
        return err_set(err, -EAGAIN,
                       "device %s takes no frames from clients: it is not the first of a pipeline",
                       welcome->node);
    if (welcome->n_inputs > MESSAGE_TENSORS_MAX || welcome->n_outputs > MESSAGE_TENSORS_MAX ||
        welcome->model_digest.len != SHA256_SIZE)
        return err_set(err, -EPROTO, "its Welcome makes no sense");
    memcpy(info->model_digest, welcome->model_digest.data, SHA256_SIZE);
    info->node = strdup(welcome->node);
    info->model = strdup(welcome->model);
    int rc = info->node && info->model ? 0 : -ENOMEM;
    if (rc == 0) {
        rc = copy_descs(welcome->inputs, welcome->n_inputs, &info->inputs);
        info->inputs_count = info->inputs ? welcome->n_inputs : 0;
    }
    if (rc == 0) {
        rc = copy_descs(welcome->outputs, welcome->n_outputs, &info->outputs);
        info->outputs_count = info->outputs ? welcome->n_outputs : 0;
    }
    if (rc == 0)
        rc =
            lay_out(info->inputs, info->inputs_count, &client->input_offsets, &client->input_bytes);
    if (rc == 0)
        rc = lay_out(info->outputs, info->outputs_count, &client->output_offsets,
                     &client->output_bytes);
    if (rc != 0)
        return err_set(err, rc, "the tensors in its Welcome: %s", strerror(-rc));
    if (welcome->max_payload && client->input_bytes > welcome->max_payload)
        return err_set(err, -EMSGSIZE,
                       "a frame is %zu bytes, the device takes %llu; raise max_payload: there",
                       client->input_bytes, (unsigned long long)welcome->max_payload);
    return 0;
}

/* After Welcome everything without a result is sent (again), the oldest first. */
static void rewind_slots(struct client *client, bool resumed) {
    struct slot *slot;
    TAILQ_FOREACH(slot, &client->slots, link) {
        if (slot->state == SLOT_DONE)
            continue;
        slot->state = SLOT_WAITING;
        slot->retry_at_us = 0;
        if (!resumed)
            slot->sequence = 0;
    }
    if (!resumed)
        client->last_sequence = 0;
}

static int take_welcome(struct client *client, const Convoy__Welcome *welcome, struct err *err) {
    if (client->ready)
        return err_set(err, -EPROTO, "it said Welcome twice");
    if (welcome->version != MESSAGE_VERSION)
        return err_set(err, -EPROTO, "it speaks version %u of the protocol, this program %u",
                       welcome->version, MESSAGE_VERSION);
    if (!client->welcomed) {
        int rc = learn_info(client, welcome, err);
        if (rc != 0)
            return rc;
    } else if (welcome->n_inputs == 0) {
        return err_set(err, -EAGAIN, "it has no pipeline any more");
    } else if (welcome->model_digest.len != SHA256_SIZE ||
               memcmp(welcome->model_digest.data, client->info.model_digest, SHA256_SIZE) != 0) {
        return err_set(err, -ESTALE, "it runs another model now (%s, before: %s)", welcome->model,
                       client->info.model);
    }
    struct reader_limits limits = {HEADER_BYTES, (uint32_t)client->output_bytes};
    stream_set_limits(client->stream, &limits);
    rewind_slots(client, welcome->resumed && welcome->session == client->session);
    if (client->welcomed)
        client->counts.reconnects++;
    client->session = welcome->session;
    client->credits = 0;
    client->welcomed = true;
    client->ready = true;
    pthread_cond_broadcast(&client->changed);
    return 0;
}

/* The slot that waits for an answer of that name, or NULL: it has been answered, or is none of
 * ours. */
static struct slot *find_slot(const struct client *client, uint64_t session, uint64_t sequence) {
    struct slot *slot;
    if (session != client->session || sequence == 0)
        return NULL;
    TAILQ_FOREACH(slot, &client->slots, link) {
        if (slot->sequence == sequence)
            return slot->state == SLOT_DONE ? NULL : slot;
    }
    return NULL;
}

/* Takes payload. */
static void take_result(struct client *client, const Convoy__Result *message, void *payload,
                        size_t payload_bytes) {
    struct slot *slot = find_slot(client, message->session, message->sequence);
    size_t count = client->info.outputs_count;
    struct err why = {{0}};
    if (!slot) {
        client->counts.duplicates++;
        tensor_buffer_free(payload);
        return;
    }
    struct tensor_desc *descs = calloc(count + 1, sizeof(*descs));
    size_t *offsets = calloc(count + 1, sizeof(*offsets));
    slot->result.payload = payload;
    slot->result.tensors = calloc(count + 1, sizeof(*slot->result.tensors));
    int rc = -ENOMEM;
    if (descs && offsets && slot->result.tensors)
        rc = message_check_tensors(message->tensors, message->n_tensors, payload_bytes,
                                   client->info.outputs, count, descs, offsets, &why);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        slot->result.tensors[i].desc = descs[i];
        slot->result.tensors[i].data = (char *)payload + offsets[i];
    }
    free(descs);
    free(offsets);
    slot->result.tensors_count = rc == 0 ? count : 0;
    slot->result.latency_us = clock_us() - slot->sent_us;
    if (rc == 0)
        slot_complete(client, slot);
    else
        slot_fail(client, slot, rc, "%s: its result: %s", client->address,
                  why.text[0] ? why.text : strerror(-rc));
}

static void take_refusal(struct client *client, const Convoy__Refusal *message) {
    struct slot *slot = find_slot(client, message->session, message->sequence);
    if (!slot) {
        client->counts.duplicates++;
        return;
    }
    if (message->retry) {
        unsigned doublings = slot->result.attempts < 6 ? slot->result.attempts : 6;
        slot->state = SLOT_WAITING;
        slot->retry_at_us = clock_us() + ((uint64_t)REFUSED_WAIT_MS * 1000 << doublings);
        return;
    }
    slot->result.latency_us = clock_us() - slot->sent_us;
    slot_fail(client, slot, message->code == CONVOY__CODE__CODE_DROPPED ? -ENOBUFS : -EREMOTEIO,
              "%s refused the frame (%s): %s", message->node[0] ? message->node : client->address,
              message_code_name(message->code), message->text);
}

/* The device ends the connection. */
static int take_goodbye(struct client *client, const Convoy__Goodbye *message, struct err *err) {
    static const Convoy__Code passing[] = {
        CONVOY__CODE__CODE_OK,        CONVOY__CODE__CODE_UNKNOWN_PLAN,
        CONVOY__CODE__CODE_LINK_LOST, CONVOY__CODE__CODE_SHUTTING_DOWN,
        CONVOY__CODE__CODE_INTERNAL,  CONVOY__CODE__CODE_TOO_MANY,
    };
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        client->retryable |= message->code == passing[i];
    return err_set(err, client->retryable ? -ECONNRESET : -EPROTO,
                   "it ended the connection (%s)%s%s", message_code_name(message->code),
                   message->text[0] ? ": " : "", message->text);
}

static int answer_ping(struct client *client, const Convoy__Ping *ping) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Pong pong = CONVOY__PONG__INIT;
    pong.token = ping->token;
    message.body_case = CONVOY__MESSAGE__BODY_PONG;
    message.pong = &pong;
    return stream_send(client->stream, &message, NULL, 0, NULL, NULL);
}

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct client *client = arg;
    if (header->body_case != CONVOY__MESSAGE__BODY_RESULT || !client->ready)
        return -EPROTO;
    client->incoming = tensor_buffer_new(bytes);
    if (!client->incoming)
        return -ENOMEM;
    *ret_buffer = client->incoming;
    return 0;
}

static int on_message(void *arg, const struct message *message) {
    struct client *client = arg;
    const Convoy__Message *header = message->header;
    void *payload = client->incoming;
    struct err *err = &client->said;
    client->incoming = NULL;
    if (header->body_case == CONVOY__MESSAGE__BODY_RESULT && client->ready) {
        take_result(client, header->result, payload, message->payload_bytes);
        return 0;
    }
    tensor_buffer_free(payload);
    switch ((int)header->body_case) {
    case CONVOY__MESSAGE__BODY_WELCOME:
        return take_welcome(client, header->welcome, err);
    case CONVOY__MESSAGE__BODY_CREDIT:
        if (header->credit->frames > CREDITS_MAX - client->credits)
            client->credits = CREDITS_MAX;
        else
            client->credits += header->credit->frames;
        return 0;
    case CONVOY__MESSAGE__BODY_REFUSAL:
        take_refusal(client, header->refusal);
        return 0;
    case CONVOY__MESSAGE__BODY_GOODBYE:
        return take_goodbye(client, header->goodbye, err);
    case CONVOY__MESSAGE__BODY_PING:
        return answer_ping(client, header->ping);
    case CONVOY__MESSAGE__BODY_PONG:
    case CONVOY__MESSAGE__BODY_PLANS:
        return 0;
    default:
        return err_set(err, -EPROTO, "it sent a message that no client expects");
    }
}

/* ---- messages that go ---- */

static int send_hello(struct client *client) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    hello.version = MESSAGE_VERSION;
    hello.role = CONVOY__ROLE__ROLE_CLIENT;
    hello.node = client->name;
    hello.session = client->session;
    hello.when_full = client->params.drop_oldest ? CONVOY__WHEN_FULL__WHEN_FULL_DROP_OLDEST
                                                 : CONVOY__WHEN_FULL__WHEN_FULL_DEFAULT;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    return stream_send(client->stream, &message, NULL, 0, NULL, NULL);
}

static int send_ping(struct client *client) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    ping.token = client->pinged_us;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    return stream_send(client->stream, &message, NULL, 0, NULL, NULL);
}

static void on_written(void *arg) {
    client_frame_unref(arg);
}

static int send_frame(struct client *client, struct slot *slot) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame body = CONVOY__FRAME__INIT;
    Convoy__Tensor wire[MESSAGE_TENSORS_MAX], *pointers[MESSAGE_TENSORS_MAX];
    size_t count = client->info.inputs_count;
    for (size_t i = 0; i < count; i++)
        convoy__tensor__init(&wire[i]);
    int rc = message_fill_tensors(client->info.inputs, count, wire, pointers);
    if (rc != 0)
        return rc;
    if (slot->sequence == 0)
        slot->sequence = ++client->last_sequence;
    body.session = client->session;
    body.sequence = slot->sequence;
    body.tensors = pointers;
    body.n_tensors = count;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &body;
    atomic_fetch_add(&slot->frame->refs, 1);
    rc = stream_send(client->stream, &message, slot->frame->payload, slot->frame->bytes, on_written,
                     slot->frame);
    if (rc != 0) {
        client_frame_unref(slot->frame);
        return rc;
    }
    client->credits--;
    slot->state = SLOT_SENT;
    if (slot->result.attempts++ == 0)
        slot->sent_us = clock_us();
    else
        client->counts.resent++;
    return 0;
}

/* Gives the socket as many frames as credits and its queue allow. *ret_wait_us: until a refused
 * frame's turn comes, at most what it was. */
static int send_frames(struct client *client, uint64_t *ret_wait_us) {
    struct slot *slot;
    uint64_t now = clock_us();
    if (!client->ready)
        return 0;
    TAILQ_FOREACH(slot, &client->slots, link) {
        if (client->credits == 0 || stream_queued(client->stream) > QUEUE_AHEAD)
            break;
        if (slot->state != SLOT_WAITING)
            continue;
        if (slot->retry_at_us > now) {
            if (slot->retry_at_us - now < *ret_wait_us)
                *ret_wait_us = slot->retry_at_us - now;
            continue;
        }
        int rc = send_frame(client, slot);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Asks after a quiet device; ends with -ETIMEDOUT when it stays quiet. */
static int check_silence(struct client *client, uint64_t *ret_wait_us, struct err *err) {
    uint64_t now = clock_us(), quiet = now - client->heard_us;
    uint64_t limit = (client->ready ? client->params.silence_ms : WELCOME_MS) * 1000ull;
    if (quiet >= limit)
        return err_set(err, -ETIMEDOUT, "no %s for %.1f s",
                       client->ready ? "sign of life" : "answer", (double)limit / 1e6);
    if (limit - quiet < *ret_wait_us)
        *ret_wait_us = limit - quiet;
    if (!client->ready || quiet < PING_US || now - client->pinged_us < PING_US)
        return 0;
    client->pinged_us = now;
    return send_ping(client);
}

/* ---- one connection ---- */

static bool must_stop(const struct client *client) {
    return client->closing || atomic_load(&client->cancelled);
}

/* Waits, without the lock, for the socket, the wake-up or wait_us. Returns the socket's events. */
static short wait_for_events(struct client *client, uint64_t wait_us) {
    struct pollfd fds[3] = {{.fd = client->wake_fd, .events = POLLIN},
                            {.fd = -1},
                            {.fd = client->stop_fd, .events = POLLIN}};
    uint64_t ignored;
    if (client->stream) {
        fds[1].fd = stream_fd(client->stream);
        fds[1].events = stream_events(client->stream);
    }
    pthread_mutex_unlock(&client->lock);
    int n = poll(fds, 3, (int)((wait_us + 999) / 1000));
    if (n > 0 && fds[0].revents && read(client->wake_fd, &ignored, sizeof(ignored)) < 0)
        n = 0; /* somebody else was faster */
    pthread_mutex_lock(&client->lock);
    return n > 0 ? fds[1].revents : 0;
}

/* Serves the connection until it ends: always an error, -ECANCELED when the client is to stop. */
static int serve(struct client *client, struct err *err) {
    int rc = send_hello(client);
    client->heard_us = clock_us();
    while (rc == 0) {
        uint64_t wait_us = PING_US;
        if (must_stop(client))
            return -ECANCELED;
        rc = send_frames(client, &wait_us);
        if (rc == 0)
            rc = check_silence(client, &wait_us, err);
        if (rc != 0)
            break;
        rc = stream_write(client->stream, err);
        /* The queue may have drained within credits: no need to wait for the socket then. */
        if (rc == 0 && stream_queued(client->stream) == 0) {
            rc = send_frames(client, &wait_us);
            if (rc == 0 && stream_queued(client->stream) > 0)
                wait_us = 0;
        }
        if (rc != 0)
            break;
        short events = wait_for_events(client, wait_us);
        size_t bytes = 0;
        if (events & (POLLIN | POLLHUP | POLLERR)) {
            rc = stream_read(client->stream, &bytes, err);
            if (rc != 0 && client->said.text[0])
                *err = client->said;
        }
        if (bytes > 0)
            client->heard_us = clock_us();
    }
    if (!err->text[0])
        err_set(err, rc, "%s", strerror(-rc));
    return rc;
}

/* Connects and serves one connection. */
static int run_connection(struct client *client, struct err *err) {
    static const struct reader_callbacks callbacks = {on_payload, on_message};
    struct reader_limits limits = {HEADER_BYTES, 0};
    int fd;
    pthread_mutex_unlock(&client->lock);
    int rc = stream_connect(client->address, CONNECT_MS, client->stop_fd, &fd, err);
    pthread_mutex_lock(&client->lock);
    client->connected = rc == 0;
    if (rc != 0)
        return rc;
    client->stream = stream_new(fd, client->tls, &limits, &callbacks, client);
    if (!client->stream)
        return err_set(err, -ENOMEM, "%s: out of memory", client->address);
    client->ready = false;
    client->retryable = false;
    client->said.text[0] = '\0';
    rc = serve(client, err);
    if (rc == -ECANCELED && client->ready) { /* lets the device forget the session at once */
        Convoy__Message message = CONVOY__MESSAGE__INIT;
        Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
        message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
        message.goodbye = &goodbye;
        if (stream_send(client->stream, &message, NULL, 0, NULL, NULL) == 0)
            stream_write(client->stream, NULL);
    }
    stream_free(client->stream);
    client->stream = NULL;
    client->ready = false;
    tensor_buffer_free(client->incoming);
    client->incoming = NULL;
    return err_prefix(err, rc, "%s", client->address);
}

/* True for errors that another attempt may cure. */
static bool is_passing(const struct client *client, int rc) {
    return client->retryable ||
           (rc != -ENOMEM && rc != -EPROTO && rc != -EMSGSIZE && rc != -ESTALE && rc != -EINVAL);
}

/* How often it tries in any case, however impatient its user is: a connection that ended, or was
 * silent, before Welcome may have been one of too many, or one end was late. */
static unsigned least_tries(const struct client *client, int rc) {
    if (client->welcomed)
        return 2;
    return client->connected && (rc == -ECONNRESET || rc == -EPIPE || rc == -ETIMEDOUT)
               ? GREETING_TRIES
               : 1;
}

/* The pause before attempt n: doubling, with a random part so that clients do not come in step. */
static uint64_t pause_us(unsigned attempt) {
    uint64_t ms = BACKOFF_FIRST_MS << (attempt < 6 ? attempt : 6);
    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    uint32_t chance = 0;
    if (getrandom(&chance, sizeof(chance), GRND_NONBLOCK) < 0)
        chance = (uint32_t)clock_us();
    return (ms / 2 + chance % ms) * 1000;
}

static void pause_between(struct client *client, uint64_t us) {
    uint64_t until = clock_us() + us;
    while (!must_stop(client)) {
        uint64_t now = clock_us();
        if (now >= until)
            return;
        wait_for_events(client, until - now);
    }
}

/* An error says how long one attempt took: it is said what all of them took, too. */
static void tell_attempts(struct err *err, unsigned attempts, uint64_t us) {
    struct err last = *err;
    if (attempts > 1)
        err_set(err, 0, "%.400s (%u attempts in %.1f s)", last.text, attempts, (double)us / 1e6);
}

void *client_thread(void *arg) {
    struct client *client = arg;
    struct err err = {{0}};
    uint64_t lost_us = clock_us(); /* since when there has been no connection */
    unsigned attempts = 0;
    int rc = 0;
    pthread_mutex_lock(&client->lock);
    while (!must_stop(client)) {
        uint64_t reconnects = client->counts.reconnects;
        bool welcomed = client->welcomed;
        err.text[0] = '\0';
        rc = run_connection(client, &err);
        if (must_stop(client) || !is_passing(client, rc))
            break;
        if (client->welcomed != welcomed || client->counts.reconnects != reconnects) {
            lost_us = clock_us();
            attempts = 0;
        }
        uint64_t patience = client->welcomed ? client->params.retry_ms : client->params.wait_ms;
        uint64_t wait = pause_us(attempts++);
        if (clock_us() + wait - lost_us > patience * 1000 && attempts >= least_tries(client, rc)) {
            tell_attempts(&err, attempts, clock_us() - lost_us);
            break;
        }
        pause_between(client, wait);
    }
    client->failure = must_stop(client) ? -ECANCELED : rc;
    if (client->failure == -ECANCELED)
        err_set(&err, rc, "interrupted");
    client->failure_text = err;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    return NULL;
}
