/* The sessions of this device's clients. Pure: no socket, no clock of its own.
 *
 * A session outlives its connections. Its rules:
 *
 * - It is made for a client that says Hello without one (or with one that is not known: the client
 *   sees the new id and resumed = false), and its id is random: nobody guesses another's.
 * - A client holds at most `window.limit` of: credits, frames whose answer it has not been written.
 * - A frame is retained (its input buffer with it) until its answer has been handed to the kernel
 * for the client's connection. When that connection breaks before, the answer is kept for the next.
 * - Resuming attaches the new connection; an older one of the same session is closed. Credits start
 *   afresh: the limit less what is retained. Kept answers are sent first.
 * - A frame that comes again while it is retained is ignored, and its credit comes back. So is one
 *   whose answer has been written to this very connection although it was accepted on an earlier
 * one: the client sent it again before it could read the answer (session_was_delivered()).
 * - Any other frame that comes again is computed again: its answer was lost on the way to the
 * client.
 * - Without a connection it is kept for session_ms; one that never had a frame, or whose client
 * left with Goodbye OK, goes at once. When there are too many, the one that is longest away with
 *   nothing retained makes room.
 */
#ifndef CONVOY_DAEMON_DATA_SESSION_H
#define CONVOY_DAEMON_DATA_SESSION_H

#include "daemon/data/frame.h"

struct session {
    struct origin origin;
    struct frame_list answered; /* answers that wait for a connection */
    TAILQ_ENTRY(session) link;
    uint64_t id;
    uint64_t epoch;         /* how many connections it has had */
    uint64_t away_since_us; /* valid while origin.peer is NULL */
    bool drops;          /* when it is full its oldest frame goes, instead of the newest waiting */
    bool drops_logged;   /* that it does has been said */
    bool resumable;      /* a frame was accepted, and its client has not said that it is done */
    uint64_t *delivered; /* sequences of earlier epochs that were answered in this one */
    size_t delivered_count, delivered_max;
};

struct sessions {
    TAILQ_HEAD(, session) list;
    size_t count, max;
};

/* On the caller's storage. sessions_fini() demands that no session is left. */
void sessions_init(struct sessions *sessions, size_t max);
void sessions_fini(struct sessions *sessions);

struct session *sessions_find(const struct sessions *sessions, uint64_t id);

/* A session without a connection. id is not 0 and not known yet. NULL when there are too many or no
 * memory. Owned by sessions. */
struct session *sessions_open(struct sessions *sessions, uint64_t id, uint32_t limit);

/* Forgets a session that has neither frames nor a connection. */
void sessions_remove(struct sessions *sessions, struct session *session);

/* A session that has been away too long at now_us, or that never had a frame; NULL: none. The
 * caller drops its frames and removes it. */
struct session *sessions_find_expired(const struct sessions *sessions, uint64_t now_us,
                                      uint64_t keep_us);

/* The session that had best make room for a new one: away longest, with nothing retained. */
struct session *sessions_find_idle(const struct sessions *sessions);

/* peer is the session's connection from here on. 0, or -ENOMEM with nothing changed. */
int session_attach(struct session *session, struct peer *peer);
void session_detach(struct session *session, uint64_t now_us);

/* An answer has been written to the connection of the session's present epoch. */
void session_note_delivered(struct session *session, const struct frame *frame);
bool session_was_delivered(const struct session *session, uint64_t sequence);

#endif
