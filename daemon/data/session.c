#include "daemon/data/session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void sessions_init(struct sessions *sessions, size_t max) {
    TAILQ_INIT(&sessions->list);
    sessions->count = 0;
    sessions->max = max;
}

void sessions_fini(struct sessions *sessions) {
    assert(sessions->count == 0);
    (void)sessions;
}

struct session *sessions_find(const struct sessions *sessions, uint64_t id) {
    struct session *session;
    TAILQ_FOREACH(session, &sessions->list, link) {
        if (session->id == id)
            return session;
    }
    return NULL;
}

struct session *sessions_open(struct sessions *sessions, uint64_t id, uint32_t limit) {
    if (sessions->count >= sessions->max)
        return NULL;
    struct session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->id = id;
    session->origin.is_session = true;
    session->origin.window.limit = limit;
    TAILQ_INIT(&session->origin.frames);
    TAILQ_INIT(&session->answered);
    TAILQ_INSERT_TAIL(&sessions->list, session, link);
    sessions->count++;
    return session;
}

void sessions_remove(struct sessions *sessions, struct session *session) {
    assert(!session->origin.peer && TAILQ_EMPTY(&session->origin.frames));
    TAILQ_REMOVE(&sessions->list, session, link);
    sessions->count--;
    free(session->delivered);
    free(session);
}

struct session *sessions_find_expired(const struct sessions *sessions, uint64_t now_us,
                                      uint64_t keep_us) {
    struct session *session;
    TAILQ_FOREACH(session, &sessions->list, link) {
        if (!session->origin.peer &&
            (!session->resumable || now_us - session->away_since_us >= keep_us))
            return session;
    }
    return NULL;
}

struct session *sessions_find_idle(const struct sessions *sessions) {
    struct session *session, *best = NULL;
    TAILQ_FOREACH(session, &sessions->list, link) {
        if (!session->origin.peer && TAILQ_EMPTY(&session->origin.frames) &&
            (!best || session->away_since_us < best->away_since_us))
            best = session;
    }
    return best;
}

int session_attach(struct session *session, struct peer *peer) {
    size_t retained = session->origin.window.occupied;
    uint64_t *delivered = NULL;
    if (retained > 0) {
        delivered = calloc(retained, sizeof(*delivered));
        if (!delivered)
            return -ENOMEM;
    }
    free(session->delivered);
    session->delivered = delivered;
    session->delivered_count = 0;
    session->delivered_max = retained;
    session->epoch++;
    session->origin.peer = peer;
    window_forget_credits(&session->origin.window);
    return 0;
}

void session_detach(struct session *session, uint64_t now_us) {
    session->origin.peer = NULL;
    session->away_since_us = now_us;
    window_forget_credits(&session->origin.window);
}

void session_note_delivered(struct session *session, const struct frame *frame) {
    if (frame->epoch == session->epoch || session->delivered_count == session->delivered_max)
        return;
    session->delivered[session->delivered_count++] = frame->sequence;
}

bool session_was_delivered(const struct session *session, uint64_t sequence) {
    for (size_t i = 0; i < session->delivered_count; i++)
        if (session->delivered[i] == sequence)
            return true;
    return false;
}
