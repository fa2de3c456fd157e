/* Happy path on the ingress: a client's Frame is checked against its credit, its session and the
 * stage's inputs, and becomes a frame (QUEUED) that keeps the received payload. When a worker has
 * room it takes the active plan and is COMPUTING; then it is WAITING for the next device's credit,
 * SENDING, SENT; the Result comes up the link, it is ANSWERED, and when the kernel has taken the
 * answer for the client it ends. On a later device the origin is an upstream device instead of a
 * session, the plan comes with the frame, and its memory is released as soon as its outputs have
 * been written: what is left is a name in a table, so that the Result finds its way. On the last
 * stage COMPUTING leads to ANSWERED.
 *
 * Where several devices share the next stage (its replicas), each frame is dealt to one of them,
 * when it is its turn to be sent: see choose_link(). From then on it is with that device, until it
 * is answered or the link breaks; a later attempt may go to another.
 *
 * Failure modes:
 * - A device behind cannot take a frame, or the link to it breaks. The ingress queues the frame
 * again (it has the input; stage 0 is computed again, under the plan that is active then). Any
 * other device keeps no copies: it answers with a Refusal that may be retried, for everything it
 * cannot pass on, at once. So a frame is always either on a device that is working on it, or at the
 * ingress.
 * - The origin goes away: the frame is DROPPED. A worker or a write under way may still hold its
 * memory; its result, if one comes, finds no frame and is dropped.
 * - The same frame is sent twice (by an ingress whose link broke, over the new connection): the
 * newer one takes the place of the older, and the first result to come answers it; the second finds
 * no frame. The ingress ends a frame with its first answer: no client sees two.
 * - The same frame comes from two devices (from a replica that fell silent with it and is back, and
 * from the one that it was dealt to then): which is the newer attempt cannot be told here, so both
 * go on. The device behind takes the second for a repetition of the first; a result answers both,
 * and the one whose origin is not waiting for it any more finds no frame there.
 * - The client goes away: see session.h.
 *
 * Bounds: what arrives is bounded by credits. What is computed and not yet written to the next
 * device is bounded here: no frame that must go on from here starts while as many as `queue` (but
 * at least two per worker) are COMPUTING, WAITING or SENDING. So a slow device behind slows this
 * one, and through credits the source. With replicas behind, SENDING is bounded so for each of
 * them, and the one with the fewest counts: one that takes nothing does not stop the others.
 */
#include "daemon/data/flow.h"

#include "daemon/device.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOGS_PER_SECOND 10
#define OVERDUE_FACTOR  10       /* times its usual time, and */
#define OVERDUE_LEAST   1000000  /* us, make a frame overdue; */
#define OVERDUE_UNKNOWN 60000000 /* so many where the usual time is not known */
#define SMOOTH_SHARE    0.1      /* of one frame in the average of their times, at most, and: */
#define SMOOTH_US       1e6      /* the time whose frames make the average */
#define JOBS_PER_WORKER 2        /* one that runs, one that is there when it ends */

static const uint8_t zeros[TENSOR_ALIGN]; /* the gaps between tensors in a payload */

/* ---- life of a frame ------------------------------------------------------------------------- */

static bool is_with_link(enum frame_state state) {
    return state == FRAME_SENDING || state == FRAME_SENT;
}

/* From SENDING until it leaves SENT a frame belongs to a link, which counts it. */
static void set_state(struct flow *flow, struct frame *frame, enum frame_state state) {
    struct link *link = frame->link;
    flow->counts[frame->state]--;
    flow->counts[state]++;
    if (link) {
        link->sending += state == FRAME_SENDING;
        link->sending -= frame->state == FRAME_SENDING;
        link->under_way += is_with_link(state);
        link->under_way -= is_with_link(frame->state);
    }
    if (!is_with_link(state))
        frame->link = NULL;
    frame->state = state;
}

static void drop_held(struct frame *frame) {
    if (!frame->held)
        return;
    frame->held->frames--;
    held_unref(frame->held);
    frame->held = NULL;
}

static void take_held(struct frame *frame, struct held *held) {
    drop_held(frame);
    frame->held = held_ref(held);
    held->used_us = device_now_us();
    held->frames++;
}

static void drop_output(struct frame *frame) {
    buffer_unref(frame->output);
    frame->output = NULL;
    frame->outputs = NULL;
    frame->outputs_count = 0;
}

static void frame_unref(struct flow *flow, struct frame *frame) {
    if (--frame->refs > 0)
        return;
    drop_output(frame);
    drop_held(frame);
    buffer_unref(frame->input);
    buffer_unref(frame->tensors);
    buffer_unref(frame->answer_header);
    buffer_unref(frame->answer_payload);
    flow->counts[frame->state]--;
    flights_recycle(&flow->flights, frame);
}

static void free_slot(struct frame *frame) {
    if (!frame->holds_slot)
        return;
    frame->holds_slot = false;
    window_release(&frame->origin->window);
    if (frame->origin->peer)
        peer_grant(frame->origin->peer);
}

/* The frame is over for everybody but those who hold references. */
static void frame_end(struct flow *flow, struct frame *frame) {
    free_slot(frame);
    frame_move(frame, NULL);
    TAILQ_REMOVE(&frame->origin->frames, frame, of_origin);
    frame->origin = NULL;
    flights_remove(&flow->flights, frame);
    set_state(flow, frame, FRAME_DROPPED);
    frame_unref(flow, frame);
}

/* ---- answers --------------------------------------------------------------------------------- */

static struct session *session_of(const struct origin *origin) {
    assert(origin->is_session);
    return (struct session *)(uintptr_t)origin; /* its first member */
}

/* The pieces of the payload of a frame's outputs, with zeros between them. Returns how many. */
static size_t lay_out_segments(const struct frame *frame, const size_t *offsets,
                               struct segment *segments) {
    const struct stage *stage = frame->held->stage;
    size_t n = 0, at = 0;
    for (size_t i = 0; i < frame->outputs_count; i++) {
        const struct tensor *output = &frame->outputs[i];
        size_t bytes = 0;
        if (offsets[i] > at)
            segments[n++] = (struct segment){zeros, offsets[i] - at, NULL};
        tensor_desc_bytes(&output->desc, &bytes); /* it was laid out: it has a size */
        segments[n++] = (struct segment){
            output->data, bytes, stage_output_source(stage, i) >= 0 ? frame->input : frame->output};
        at = offsets[i] + bytes;
    }
    return n;
}

static void on_delivered(void *arg, const struct conn *conn, int status);

/* Sends an answered frame to where it came from, or keeps it for a client that is away. */
static void deliver(struct device *device, struct frame *frame) {
    struct flow_scratch *scratch = device->flow.scratch;
    struct origin *origin = frame->origin;
    struct segment *segments = scratch->segments;
    size_t count = 0, bytes;
    int rc = -ENOTCONN;
    frame_move(frame, NULL);
    if (origin->peer) {
        if (frame->answer_payload) {
            segments[count++] = (struct segment){
                frame->answer_payload->data, frame->answer_payload_bytes, frame->answer_payload};
        } else if (frame->answer_is_result) {
            for (size_t i = 0; i < frame->outputs_count; i++)
                scratch->descs[i] = frame->outputs[i].desc;
            message_layout(scratch->descs, frame->outputs_count, scratch->offsets, &bytes);
            count = lay_out_segments(frame, scratch->offsets, segments);
        }
        frame->refs++;
        rc = conn_send_packed(peer_conn(origin->peer), buffer_ref(frame->answer_header),
                              frame->answer_header_bytes, segments, count, on_delivered, frame);
        if (rc < 0)
            frame->refs--;
        if (rc == -ENOMEM)
            conn_close(peer_conn(origin->peer), "out of memory");
    }
    if (rc < 0 && origin->is_session)
        frame_move(frame, &session_of(origin)->answered);
}

/* What an older connection of a session's client has written may never have come: only of the
 * present one is it noted. */
static void on_delivered(void *arg, const struct conn *conn, int status) {
    struct frame *frame = arg;
    struct device *device = frame->device;
    if (frame->state != FRAME_DROPPED) {
        if (status == 0) {
            struct peer *peer = frame->origin->peer;
            if (frame->origin->is_session && peer && peer_conn(peer) == conn)
                session_note_delivered(session_of(frame->origin), frame);
            frame_end(&device->flow, frame);
        } else if (frame->origin->is_session) {
            deliver(device, frame);
        }
    }
    frame_unref(&device->flow, frame);
}

/* The answer's header is packed; frees what is no longer needed and sends it. */
static void answer(struct device *device, struct frame *frame, struct buffer *header, size_t bytes,
                   bool is_result) {
    set_state(&device->flow, frame, FRAME_ANSWERED);
    frame->answer_header = header;
    frame->answer_header_bytes = bytes;
    frame->answer_is_result = is_result;
    if (!frame->holds_slot) {
        frame->holds_slot = true;
        window_occupy(&frame->origin->window);
    }
    deliver(device, frame);
}

/* Without memory for an answer there is nothing to be said to this peer any more. */
static void cannot_answer(struct device *device, struct frame *frame) {
    struct peer *peer = frame->origin->peer;
    log_error("frame %016" PRIx64 "/%" PRIu64 ": no memory for its answer", frame->session,
              frame->sequence);
    frame_end(&device->flow, frame);
    if (peer)
        conn_close(peer_conn(peer), "out of memory");
}

/* At most a few lines a second about frames; the counters know them all. */
static bool may_log(struct flow *flow) {
    uint64_t second = device_now_us() / 1000000;
    if (second != flow->log_second) {
        flow->log_second = second;
        flow->log_count = 0;
    }
    return flow->log_count++ < LOGS_PER_SECOND;
}

/* A refusal of this device's, in the message that carries it. */
struct own_refusal {
    Convoy__Refusal refusal;
    Convoy__Message message;
};

/* text is borrowed. */
static void refusal_fill(struct own_refusal *own, const struct device *device, uint64_t session,
                         uint64_t sequence, Convoy__Code code, bool retry, const char *text) {
    convoy__refusal__init(&own->refusal);
    own->refusal.session = session;
    own->refusal.sequence = sequence;
    own->refusal.code = code;
    own->refusal.retry = retry;
    own->refusal.text = (char *)(uintptr_t)text;
    own->refusal.node = device->config->node;
    convoy__message__init(&own->message);
    own->message.body_case = CONVOY__MESSAGE__BODY_REFUSAL;
    own->message.refusal = &own->refusal;
}

static void log_refusal(struct device *device, const Convoy__Refusal *refusal, const char *peer) {
    struct flow *flow = &device->flow;
    if (may_log(flow))
        log_warning("refused frame %016" PRIx64 "/%" PRIu64 " of %s: %s: %s%s", refusal->session,
                    refusal->sequence, peer, message_code_name(refusal->code), refusal->text,
                    flow->log_count == LOGS_PER_SECOND ? " (and more)" : "");
}

static void answer_refusal(struct device *device, struct frame *frame,
                           const Convoy__Message *message) {
    struct buffer *header;
    size_t bytes;
    buffer_unref(frame->answer_payload);
    frame->answer_payload = NULL;
    if (conn_pack(device->pool, message, 0, &header, &bytes) < 0)
        cannot_answer(device, frame);
    else
        answer(device, frame, header, bytes, false);
}

static const char *origin_name(const struct origin *origin) {
    return origin->peer ? peer_name(origin->peer) : "a client that is away";
}

static void refuse(struct device *device, struct frame *frame, Convoy__Code code, bool retry,
                   const char *text) {
    struct own_refusal own;
    refusal_fill(&own, device, frame->session, frame->sequence, code, retry, text);
    device->flow.stats.frames_refused++;
    log_refusal(device, &own.refusal, origin_name(frame->origin));
    answer_refusal(device, frame, &own.message);
}

/* A newer frame of its session takes its place. */
static void drop(struct device *device, struct frame *frame) {
    struct own_refusal own;
    struct session *session = session_of(frame->origin);
    if (!session->drops_logged)
        log_warning("frames of session %016" PRIx64 " are dropped: they come faster than the line "
                    "computes them (status counts them)",
                    session->id);
    session->drops_logged = true;
    device->flow.stats.frames_dropped++;
    refusal_fill(&own, device, frame->session, frame->sequence, CONVOY__CODE__CODE_DROPPED, false,
                 "newer frames came before its turn did");
    frame_move(frame, NULL);
    answer_refusal(device, frame, &own.message);
}

/* The session's last credit has been spent on newest: the oldest that waits here goes, so that
 * there is one for the next. Where all the others are being worked on there is none to drop, and
 * the next one waits. */
static void drop_for(struct device *device, const struct origin *origin,
                     const struct frame *newest) {
    struct frame *frame;
    if (!origin->is_session || !session_of(origin)->drops || origin->window.granted > 0)
        return;
    TAILQ_FOREACH(frame, &origin->frames, of_origin) {
        if (frame != newest && (frame->state == FRAME_QUEUED || frame->state == FRAME_RETRYING)) {
            drop(device, frame);
            return;
        }
    }
}

/* The last stage's own result. */
static void answer_result(struct device *device, struct frame *frame) {
    struct flow_scratch *scratch = device->flow.scratch;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Result result = CONVOY__RESULT__INIT;
    struct buffer *header;
    size_t bytes, header_bytes;
    for (size_t i = 0; i < frame->outputs_count; i++)
        scratch->descs[i] = frame->outputs[i].desc;
    int rc = message_layout(scratch->descs, frame->outputs_count, scratch->offsets, &bytes);
    if (rc == 0)
        rc = message_fill_tensors(scratch->descs, frame->outputs_count, scratch->wire,
                                  scratch->pointers);
    result.session = frame->session;
    result.sequence = frame->sequence;
    result.n_tensors = frame->outputs_count;
    result.tensors = scratch->pointers;
    message.body_case = CONVOY__MESSAGE__BODY_RESULT;
    message.result = &result;
    if (rc == 0)
        rc = conn_pack(device->pool, &message, bytes, &header, &header_bytes);
    if (rc < 0) {
        cannot_answer(device, frame);
        return;
    }
    device->flow.stats.frames_out++;
    answer(device, frame, header, header_bytes, true);
}

/* ---- frames that cannot go on ---------------------------------------------------------------- */

static void on_retry(uv_timer_t *timer);

/* What a device does with a frame that the line behind it cannot take now. delay: not at once. */
static void give_back(struct device *device, struct frame *frame, Convoy__Code code,
                      const char *text, bool delay) {
    struct flow *flow = &device->flow;
    if (!frame->origin->is_session) {
        frame_move(frame, NULL);
        refuse(device, frame, code, true, text);
        return;
    }
    drop_output(frame);
    drop_held(frame);
    flow->stats.frames_retried++;
    set_state(flow, frame, delay ? FRAME_RETRYING : FRAME_QUEUED);
    frame_move_ordered(frame, delay ? &flow->retrying : &flow->pending);
    if (delay && !uv_is_active((uv_handle_t *)&flow->retry))
        uv_timer_start(&flow->retry, on_retry, FLOW_RETRY_MS, 0);
}

static void queue_retrying(struct flow *flow) {
    struct frame *frame;
    while ((frame = TAILQ_FIRST(&flow->retrying)) != NULL) {
        set_state(flow, frame, FRAME_QUEUED);
        frame_move_ordered(frame, &flow->pending);
    }
}

static void on_retry(uv_timer_t *timer) {
    struct device *device = timer->data;
    queue_retrying(&device->flow);
    flow_dispatch(device);
}

/* An attempt at a frame of a client has failed. True: it was the last that is made, and the client
 * has been told so. */
static bool give_up(struct device *device, struct frame *frame, Convoy__Code code,
                    const char *reason) {
    int limit = device->config->limits.attempts;
    char text[512];
    if (!frame->origin->is_session || ++frame->attempts < limit)
        return false;
    snprintf(text, sizeof(text), "%d attempts have failed (`limits: attempts:`); the last: %.400s",
             limit, reason);
    frame_move(frame, NULL);
    refuse(device, frame, code, false, text);
    return true;
}

void flow_link_lost(struct device *device, struct link *link) {
    static const char why[] = "the connection to the next device broke";
    struct frame *frame = TAILQ_FIRST(&link->sent);
    size_t count = 0;
    /* Should one of them be why, it is the one that has been there longest. */
    if (frame)
        give_up(device, frame, CONVOY__CODE__CODE_LINK_LOST, why);
    for (; (frame = TAILQ_FIRST(&link->sent)) != NULL; count++)
        give_back(device, frame, CONVOY__CODE__CODE_LINK_LOST, why, false);
    if (count > 0)
        log_warning("link to %s lost with %zu frames in flight: %s", link->node, count,
                    planset_ingress(&device->plans) ? "they will be sent again"
                                                    : "given back to the device before");
}

/* Of the frames in list, gives back those whose plan leads nowhere now. */
static void give_back_unready(struct device *device, struct frame_list *list, const char *text) {
    struct frame *frame, *next;
    for (frame = TAILQ_FIRST(list); frame; frame = next) {
        next = TAILQ_NEXT(frame, place);
        if (!held_is_ready(frame->held))
            give_back(device, frame, CONVOY__CODE__CODE_UNKNOWN_PLAN, text, false);
    }
}

void flow_plans_changed(struct device *device) {
    struct flow *flow = &device->flow;
    give_back_unready(device, &flow->transit, "the devices behind are not ready for this plan");
    give_back_unready(device, &flow->waiting,
                      "the devices behind are not ready for this plan any more");
    flow_pump(device);
    queue_retrying(flow);
    flow_dispatch(device);
}

void flow_origin_gone(struct device *device, struct origin *origin) {
    struct frame *frame;
    while ((frame = TAILQ_FIRST(&origin->frames)) != NULL)
        frame_end(&device->flow, frame);
    flow_dispatch(device);
}

void flow_session_attached(struct device *device, struct session *session) {
    struct frame_list kept = TAILQ_HEAD_INITIALIZER(kept);
    struct frame *frame;
    while ((frame = TAILQ_FIRST(&session->answered)) != NULL)
        frame_move(frame, &kept);
    while ((frame = TAILQ_FIRST(&kept)) != NULL)
        deliver(device, frame);
}

/* ---- arrival --------------------------------------------------------------------------------- */

/* Refuses a frame for which there is no struct frame; its credit has been taken and comes back. */
static void refuse_message(struct device *device, struct peer *peer, const Convoy__Frame *message,
                           Convoy__Code code, bool retry, const char *text) {
    struct own_refusal own;
    refusal_fill(&own, device, message->session, message->sequence, code, retry, text);
    device->flow.stats.frames_refused++;
    log_refusal(device, &own.refusal, peer_name(peer));
    conn_send(peer_conn(peer), &own.message);
    window_release(&peer_origin(peer)->window);
    peer_grant(peer);
}

/* True when the frame need not be looked at: it is here already, or just answered. */
static bool is_repeated(struct device *device, struct peer *peer, const Convoy__Frame *message) {
    struct origin *origin = peer_origin(peer);
    struct frame *frame =
        flights_find(&device->flow.flights, origin, message->session, message->sequence);
    if (!origin->is_session) {
        if (frame)
            frame_end(&device->flow, frame); /* the newer attempt takes its place */
        return false;
    }
    if (!frame && !session_was_delivered(session_of(origin), message->sequence))
        return false;
    window_release(&origin->window);
    peer_grant(peer);
    return true;
}

/* The plan under which a frame is checked; or NULL, and it has been refused. */
static struct held *find_plan(struct device *device, struct peer *peer,
                              const Convoy__Frame *message) {
    struct held *held;
    if (peer_origin(peer)->is_session) {
        held = planset_active(&device->plans);
        if (!held)
            held = planset_ingress(&device->plans);
        if (!held)
            refuse_message(device, peer, message, CONVOY__CODE__CODE_NO_PIPELINE, false,
                           "this device is not the first of its plan any more");
        return held;
    }
    held = planset_find(&device->plans, message->plan.data, message->plan.len);
    if (!held || held_is_first(held)) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_UNKNOWN_PLAN, true,
                       "this device does not hold the frame's plan");
        return NULL;
    }
    if (!held_is_ready(held)) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_LINK_LOST, true,
                       "the devices behind are not ready for the frame's plan");
        return NULL;
    }
    return held;
}

/* The frame, with its inputs pointing into payload, whose reference it takes on success. */
static struct frame *make_frame(struct device *device, struct origin *origin,
                                const Convoy__Frame *message, struct held *held,
                                struct buffer *payload) {
    struct flow *flow = &device->flow;
    struct buffer *tensors = pool_get(device->pool, held->inputs_count * sizeof(struct tensor));
    struct frame *frame =
        tensors ? flights_add(&flow->flights, origin, message->session, message->sequence) : NULL;
    if (!frame) {
        buffer_unref(tensors);
        return NULL;
    }
    frame->device = device;
    frame->holds_slot = true;
    frame->state = FRAME_QUEUED;
    flow->counts[FRAME_QUEUED]++;
    frame->accepted_us = device_now_us();
    frame->input = payload;
    frame->tensors = tensors;
    frame->inputs = tensors->data;
    frame->inputs_count = held->inputs_count;
    for (size_t i = 0; i < held->inputs_count; i++) {
        frame->inputs[i].desc = flow->scratch->descs[i]; /* checked against those of the stage */
        frame->inputs[i].desc.name = held->inputs[i].name;
        frame->inputs[i].data = (char *)payload->data + flow->scratch->offsets[i];
    }
    memcpy(frame->inputs_id, held->inputs_id, sizeof(frame->inputs_id));
    TAILQ_INSERT_TAIL(&origin->frames, frame, of_origin);
    if (origin->is_session) {
        session_of(origin)->resumable = true;
        frame->epoch = session_of(origin)->epoch;
        frame_move(frame, &flow->pending);
    } else {
        take_held(frame, held);
        frame_move(frame, &flow->transit);
    }
    flow->stats.frames_in++;
    return frame;
}

/* True when the message may stand where it does; else the connection has been told. */
static bool is_in_order(struct peer *peer, const Convoy__Frame *message) {
    const struct origin *origin = peer_origin(peer);
    const char *text = NULL;
    if (message->sequence == 0)
        text = "a frame's sequence starts from 1";
    else if (origin->is_session && message->session != session_of(origin)->id)
        text = "a client's frame must carry the session of its Welcome";
    if (text)
        conn_goodbye(peer_conn(peer), CONVOY__CODE__CODE_MALFORMED, text);
    return !text;
}

void flow_frame(struct device *device, struct peer *peer, const Convoy__Frame *message,
                struct buffer *payload, size_t payload_bytes) {
    struct flow_scratch *scratch = device->flow.scratch;
    struct origin *origin = peer_origin(peer);
    struct held *held;
    struct frame *frame;
    struct err err = {""};
    if (!is_in_order(peer, message))
        goto drop;
    if (window_take(&origin->window) < 0) {
        conn_goodbye(peer_conn(peer), CONVOY__CODE__CODE_NO_CREDIT,
                     "a frame came without a credit for it");
        goto drop;
    }
    if (is_repeated(device, peer, message))
        goto drop;
    if (device->draining) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_SHUTTING_DOWN, true,
                       "this device is shutting down");
        goto drop;
    }
    if (origin->is_session && message->plan.len > 0) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_UNKNOWN_PLAN, false,
                       "a client's frame names no plan");
        goto drop;
    }
    held = find_plan(device, peer, message);
    if (!held)
        goto drop;
    if (message_check_tensors(message->tensors, message->n_tensors, payload_bytes, held->inputs,
                              held->inputs_count, scratch->descs, scratch->offsets, &err) < 0) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_WRONG_TENSORS, false, err.text);
        goto drop;
    }
    if (!payload)
        payload = pool_get(device->pool, 0); /* inputs without elements */
    frame = payload ? make_frame(device, origin, message, held, payload) : NULL;
    if (!frame) {
        refuse_message(device, peer, message, CONVOY__CODE__CODE_INTERNAL, true, "out of memory");
        goto drop;
    }
    peer_grant(peer);
    flow_dispatch(device);
    drop_for(device, origin, frame); /* which may have been refused, and be gone */
    return;
drop:
    buffer_unref(payload);
}

/* ---- computing ------------------------------------------------------------------------------- */

/* No plan begins here any more, and none will: clients must turn to another device. */
static void refuse_pending(struct device *device) {
    struct frame *frame;
    while ((frame = TAILQ_FIRST(&device->flow.pending)) != NULL) {
        frame_move(frame, NULL);
        refuse(device, frame, CONVOY__CODE__CODE_NO_PIPELINE, false,
               "this device is not the first of its plan any more");
    }
}

/* True when one more frame of a plan may be computed. What is being written to a device that takes
 * nothing does not keep frames from the others of its stage. */
static bool has_room_ahead(const struct device *device, const struct held *held) {
    size_t least = held->links_count > 0 ? SIZE_MAX : 0;
    for (size_t i = 0; i < held->links_count; i++)
        if (held->links[i]->sending < least)
            least = held->links[i]->sending;
    return device->flow.jobs + device->flow.counts[FRAME_WAITING] + least < flow_busy_max(device);
}

/* The frame whose turn it is, under a plan that is ready; NULL: none can start now. Without room
 * ahead only one that ends here can: two devices that have a line in each direction would wait for
 * each other otherwise. */
static struct frame *next_to_start(struct device *device) {
    struct flow *flow = &device->flow;
    struct frame *frame, *next;
    for (frame = TAILQ_FIRST(&flow->transit); frame; frame = next) {
        next = TAILQ_NEXT(frame, place);
        if (!held_is_ready(frame->held))
            give_back(device, frame, CONVOY__CODE__CODE_LINK_LOST,
                      "the devices behind are not ready for this plan", false);
        else if (held_is_last(frame->held) || has_room_ahead(device, frame->held))
            return frame;
    }
    struct held *active = planset_active(&device->plans);
    if (!active && !planset_ingress(&device->plans))
        refuse_pending(device);
    if (!active || (!held_is_last(active) && !has_room_ahead(device, active)))
        return NULL;
    while ((frame = TAILQ_FIRST(&flow->pending)) != NULL) {
        if (memcmp(frame->inputs_id, active->inputs_id, sizeof(frame->inputs_id)) == 0) {
            take_held(frame, active);
            return frame;
        }
        frame_move(frame, NULL);
        refuse(device, frame, CONVOY__CODE__CODE_WRONG_TENSORS, false,
               "the model was changed for one with other inputs");
    }
    return NULL;
}

/* Room for what the worker writes: the computed outputs, then the descriptions of all. */
static int make_outputs(struct device *device, struct frame *frame) {
    const struct held *held = frame->held;
    size_t descriptions = held->outputs_count * sizeof(struct tensor);
    frame->output = pool_get(device->pool, held->output_bytes + descriptions);
    if (!frame->output)
        return -ENOMEM;
    char *data = frame->output->data;
    frame->outputs = (struct tensor *)(void *)(data + held->output_bytes);
    frame->outputs_count = held->outputs_count;
    for (size_t i = 0; i < held->outputs_count; i++) {
        frame->outputs[i].desc = held->outputs[i];
        frame->outputs[i].data = data + held->output_offsets[i];
    }
    return 0;
}

static void start(struct device *device, struct frame *frame) {
    struct flow *flow = &device->flow;
    frame_move(frame, NULL);
    if (make_outputs(device, frame) < 0) {
        refuse(device, frame, CONVOY__CODE__CODE_INTERNAL, true, "out of memory");
        return;
    }
    set_state(flow, frame, FRAME_COMPUTING);
    frame->refs++;
    frame->job.bad_values = device->config->bad_values;
    flow->jobs++;
    workers_submit(device->workers, frame);
}

uint32_t flow_busy_max(const struct device *device) {
    uint32_t jobs_max = JOBS_PER_WORKER * (uint32_t)device->config->workers;
    uint32_t queue = (uint32_t)device->config->queue;
    return queue > jobs_max ? queue : jobs_max;
}

void flow_dispatch(struct device *device) {
    struct flow *flow = &device->flow;
    size_t jobs_max = JOBS_PER_WORKER * (size_t)device->config->workers;
    while (!device->stopping && flow->jobs < jobs_max) {
        struct frame *frame = next_to_start(device);
        if (!frame)
            break;
        start(device, frame);
    }
}

double flow_smoothed(double average, double value, uint64_t before, uint64_t since_us) {
    double share = fmin(SMOOTH_SHARE, (double)since_us / SMOOTH_US);
    return average + fmax(share, 1 / (double)(before + 1)) * (value - average);
}

static void count_computed(struct flow_stats *stats, const struct frame *frame) {
    uint64_t now_us = device_now_us(), second = now_us / 1000000;
    uint64_t since_us = now_us - stats->computed_at_us;
    size_t slots = sizeof(stats->per_second) / sizeof(stats->per_second[0]);
    if (second - stats->second >= slots)
        memset(stats->per_second, 0, sizeof(stats->per_second));
    else
        for (uint64_t s = stats->second + 1; s <= second; s++)
            stats->per_second[s % slots] = 0;
    stats->second = second;
    stats->per_second[second % slots]++;
    if (frame->held != stats->computed_under)
        stats->computed = 0;
    stats->computed_under = frame->held;
    stats->computed_at_us = now_us;
    stats->compute_us =
        flow_smoothed(stats->compute_us, (double)frame->job.compute_us, stats->computed, since_us);
    stats->cpu_us =
        flow_smoothed(stats->cpu_us, (double)frame->job.cpu_us, stats->computed, since_us);
    stats->computed++;
}

double flow_time_us(const struct flow_stats *stats, int workers, int threads, double quota) {
    return fmax(stats->compute_us, stats->cpu_us * workers * threads / quota);
}

double flow_fps(const struct flow *flow, uint64_t now_us) {
    const struct flow_stats *stats = &flow->stats;
    uint64_t second = now_us / 1000000;
    size_t slots = sizeof(stats->per_second) / sizeof(stats->per_second[0]);
    uint32_t sum = 0;
    for (uint64_t s = second - FLOW_FPS_SECONDS; s < second; s++)
        if (s <= stats->second && stats->second - s < slots)
            sum += stats->per_second[s % slots];
    return (double)sum / FLOW_FPS_SECONDS;
}

uint64_t flow_overdue_us(double usual_us, uint64_t longest_us) {
    double limit = usual_us > 0 ? OVERDUE_FACTOR * usual_us : OVERDUE_UNKNOWN;
    return (double)longest_us > limit && longest_us > OVERDUE_LEAST ? longest_us : 0;
}

void flow_tick(struct device *device, uint64_t now_us) {
    struct flow *flow = &device->flow;
    uint64_t longest_us = flow->jobs > 0 ? workers_longest_us(device->workers, now_us) : 0;
    bool is_overdue = flow_overdue_us(flow->stats.compute_us, longest_us) > 0;
    if (is_overdue && !flow->overdue_logged)
        log_warning("a frame has been computed for %.1f s and is not done, where %.1f ms are usual",
                    (double)longest_us / 1e6, flow->stats.compute_us / 1e3);
    if (!is_overdue && flow->overdue_logged)
        log_info("the frame that took so long is done");
    flow->overdue_logged = is_overdue;
}

/* Whoever sent it computes wrongly, or is made to. */
static void note_suspect(struct device *device, const struct frame *frame) {
    device->flow.stats.frames_suspect++;
    if (may_log(&device->flow))
        log_warning("frame %016" PRIx64 "/%" PRIu64 " of %s: %s", frame->session, frame->sequence,
                    origin_name(frame->origin), frame->job.why);
}

/* Why a worker has no result. */
static Convoy__Code code_of(int rc) {
    return rc == -EINVAL    ? CONVOY__CODE__CODE_WRONG_TENSORS
           : rc == -EBADMSG ? CONVOY__CODE__CODE_BAD_VALUES
                            : CONVOY__CODE__CODE_INTERNAL;
}

void flow_computed(void *arg, struct frame *frame) {
    struct device *device = arg;
    struct flow *flow = &device->flow;
    flow->jobs--;
    if (frame->state != FRAME_COMPUTING || frame->job.rc == -ECANCELED) {
        frame_unref(flow, frame); /* an older attempt's result, or nobody waits for it */
        if (!device->stopping)
            flow_dispatch(device);
        return;
    }
    if (frame->job.is_suspect)
        note_suspect(device, frame);
    if (frame->job.rc != -EBADMSG)
        count_computed(&flow->stats, frame);
    if (frame->job.rc < 0) {
        refuse(device, frame, code_of(frame->job.rc), false, frame->job.err.text);
    } else if (held_is_last(frame->held)) {
        answer_result(device, frame);
    } else if (!held_is_ready(frame->held)) {
        give_back(device, frame, CONVOY__CODE__CODE_LINK_LOST,
                  "the connection to the next device broke", false);
    } else {
        set_state(flow, frame, FRAME_WAITING);
        frame_move(frame, &flow->waiting);
        flow_pump(device);
    }
    frame_unref(flow, frame);
    flow_dispatch(device);
}

/* ---- sending on ------------------------------------------------------------------------------ */

/* The end of a write; of an earlier attempt perhaps, on a link that was closed meanwhile. */
static void on_sent(void *arg, const struct conn *conn, int status) {
    struct frame *frame = arg;
    struct device *device = frame->device;
    if (status == 0)
        device->flow.stats.frames_out++;
    if (status == 0 && frame->state == FRAME_SENDING && frame->link->conn == conn) {
        set_state(&device->flow, frame, FRAME_SENT);
        drop_output(frame);
        if (!frame->origin->is_session) {
            buffer_unref(frame->input);
            frame->input = NULL;
            free_slot(frame);
        }
    }
    frame_unref(&device->flow, frame);
    if (status == 0)
        flow_pump(device); /* one that waits may go down this link now */
    flow_dispatch(device);
}

/* Hands one frame to the link's connection. */
static int send_frame(struct device *device, struct link *link, struct frame *frame) {
    struct flow_scratch *scratch = device->flow.scratch;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame body = CONVOY__FRAME__INIT;
    struct buffer *header;
    size_t payload_bytes, header_bytes, count;
    for (size_t i = 0; i < frame->outputs_count; i++)
        scratch->descs[i] = frame->outputs[i].desc;
    int rc = message_layout(scratch->descs, frame->outputs_count, scratch->offsets, &payload_bytes);
    if (rc == 0)
        rc = message_fill_tensors(scratch->descs, frame->outputs_count, scratch->wire,
                                  scratch->pointers);
    if (rc < 0)
        return rc;
    body.session = frame->session;
    body.sequence = frame->sequence;
    body.plan.data = frame->held->id;
    body.plan.len = SHA256_SIZE;
    body.n_tensors = frame->outputs_count;
    body.tensors = scratch->pointers;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &body;
    rc = conn_pack(device->pool, &message, payload_bytes, &header, &header_bytes);
    if (rc < 0)
        return rc;
    count = lay_out_segments(frame, scratch->offsets, scratch->segments);
    rc = conn_send_packed(link->conn, header, header_bytes, scratch->segments, count, on_sent,
                          frame);
    if (rc == 0) {
        frame->refs++;
        frame->link = link;
        set_state(&device->flow, frame, FRAME_SENDING);
        frame_move(frame, &link->sent);
        link->credits--;
        link->frames_out++;
        link->turn = ++device->flow.turns;
    }
    return rc;
}

/* The link whose turn a frame is: of those to the devices that share the next stage, that are ready
 * and have given credits, the one with the fewest frames under way; where they are equal, the one
 * that has waited longest. So equal devices take turns, a slow one is sent as many as it answers,
 * and one that is silent no more than its credits. NULL: none can take a frame now. */
static struct link *choose_link(const struct device *device, const struct held *held) {
    struct link *best = NULL;
    for (size_t i = 0; i < held->links_count; i++) {
        struct link *link = held->links[i];
        if (!link_is_up(link) || link->credits == 0 || link->sending >= flow_busy_max(device) ||
            !link_is_ready(link, held->id, held->payload_bytes))
            continue;
        if (!best || link->under_way < best->under_way ||
            (link->under_way == best->under_way && link->turn < best->turn))
            best = link;
    }
    return best;
}

void flow_pump(struct device *device) {
    struct frame *frame, *next;
    for (frame = TAILQ_FIRST(&device->flow.waiting); frame; frame = next) {
        struct link *link = choose_link(device, frame->held);
        next = TAILQ_NEXT(frame, place);
        if (!link)
            continue;
        int rc = send_frame(device, link, frame);
        if (rc < 0 && rc != -ENOTCONN) /* that one's end is on the way */
            conn_close(link->conn, "out of memory");
    }
}

/* ---- answers from behind --------------------------------------------------------------------- */

/* An attempt at a frame that has no answer yet; NULL: none. */
static struct frame *find_unanswered(const struct flights *flights, uint64_t session,
                                     uint64_t sequence) {
    struct frame *frame = flights_next(flights, session, sequence, NULL);
    while (frame && frame->state == FRAME_ANSWERED)
        frame = flights_next(flights, session, sequence, frame);
    return frame;
}

int flow_result(struct device *device, const Convoy__Message *message, struct buffer *payload,
                size_t payload_bytes, struct err *err) {
    const Convoy__Result *result = message->result;
    const struct flights *flights = &device->flow.flights;
    struct flow_scratch *scratch = device->flow.scratch;
    struct frame *frame;
    struct buffer *header;
    size_t bytes;
    int rc = message_check_tensors(result->tensors, result->n_tensors, payload_bytes, NULL, 0,
                                   scratch->descs, scratch->offsets, err);
    /* Where there is none, nobody waits for it, or it is the second one. */
    while (rc == 0 &&
           (frame = find_unanswered(flights, result->session, result->sequence)) != NULL) {
        frame_move(frame, NULL);
        if (conn_pack(device->pool, message, payload_bytes, &header, &bytes) < 0) {
            cannot_answer(device, frame);
            continue;
        }
        frame->answer_payload = payload ? buffer_ref(payload) : NULL;
        frame->answer_payload_bytes = payload_bytes;
        answer(device, frame, header, bytes, true);
    }
    buffer_unref(payload);
    if (rc == 0)
        flow_dispatch(device);
    return rc;
}

/* An attempt at a frame that is with the device behind link; NULL: none. */
static struct frame *find_sent(const struct flights *flights, const struct link *link,
                               uint64_t session, uint64_t sequence) {
    struct frame *frame = flights_next(flights, session, sequence, NULL);
    while (frame && frame->link != link)
        frame = flights_next(flights, session, sequence, frame);
    return frame;
}

void flow_refusal(struct device *device, struct link *link, const Convoy__Message *message) {
    const Convoy__Refusal *refusal = message->refusal;
    const struct flights *flights = &device->flow.flights;
    struct frame *frame;
    /* Where there is none, it is about an attempt that is over. */
    while ((frame = find_sent(flights, link, refusal->session, refusal->sequence)) != NULL) {
        log_refusal(device, refusal, refusal->node);
        if (frame->origin->is_session && refusal->retry) {
            if (!give_up(device, frame, refusal->code, refusal->text))
                give_back(device, frame, refusal->code, refusal->text, true);
            continue;
        }
        frame_move(frame, NULL);
        device->flow.stats.frames_refused++;
        answer_refusal(device, frame, message);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

bool flow_is_idle(const struct device *device) {
    const struct session *session;
    const struct frame *frame;
    size_t kept = 0;
    TAILQ_FOREACH(session, &device->sessions.list, link) {
        TAILQ_FOREACH(frame, &session->answered, place) {
            kept++;
        }
    }
    return device->flow.jobs == 0 && device->flow.flights.count == kept;
}

int flow_init(struct flow *flow, struct device *device) {
    memset(flow, 0, sizeof(*flow));
    flow->scratch = calloc(1, sizeof(*flow->scratch));
    if (!flow->scratch)
        return -ENOMEM;
    flights_init(&flow->flights);
    TAILQ_INIT(&flow->transit);
    TAILQ_INIT(&flow->pending);
    TAILQ_INIT(&flow->waiting);
    TAILQ_INIT(&flow->retrying);
    for (size_t i = 0; i < MESSAGE_TENSORS_MAX; i++)
        convoy__tensor__init(&flow->scratch->wire[i]);
    uv_timer_init(device->loop, &flow->retry);
    flow->retry.data = device;
    return 0;
}

void flow_close(struct flow *flow) {
    if (!uv_is_closing((uv_handle_t *)&flow->retry))
        uv_close((uv_handle_t *)&flow->retry, NULL);
}

void flow_fini(struct flow *flow) {
    flights_fini(&flow->flights);
    free(flow->scratch);
}
