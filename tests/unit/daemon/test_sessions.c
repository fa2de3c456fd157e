/* Sessions and the set of plans, without sockets. */
#include "daemon/control/planset.h"
#include "daemon/data/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Something to point to: connections are never looked into. */
static struct peer *const here = (struct peer *)&(char){0};

/* ---- sessions -------------------------------------------------------------------------------- */

static void a_session_is_found_by_its_id_until_it_is_removed(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 4);
    struct session *session = sessions_open(&sessions, 17, 8);
    assert_non_null(session);
    assert_ptr_equal(sessions_find(&sessions, 17), session);
    assert_null(sessions_find(&sessions, 18));
    sessions_remove(&sessions, session);
    assert_null(sessions_find(&sessions, 17));
    sessions_fini(&sessions);
}

static void there_are_never_more_sessions_than_allowed(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 2);
    struct session *first = sessions_open(&sessions, 1, 8);
    struct session *second = sessions_open(&sessions, 2, 8);
    assert_null(sessions_open(&sessions, 3, 8));
    sessions_remove(&sessions, first);
    sessions_remove(&sessions, second);
}

static void a_session_without_a_connection_expires_after_its_time(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 2);
    struct session *session = sessions_open(&sessions, 1, 8);
    session->resumable = true;
    assert_int_equal(session_attach(session, here), 0);
    assert_null(sessions_find_expired(&sessions, 1000000, 10));
    session_detach(session, 500);
    assert_null(sessions_find_expired(&sessions, 509, 10));
    assert_ptr_equal(sessions_find_expired(&sessions, 510, 10), session);
    sessions_remove(&sessions, session);
}

static void a_session_that_never_had_a_frame_expires_at_once(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 2);
    struct session *session = sessions_open(&sessions, 1, 8);
    assert_int_equal(session_attach(session, here), 0);
    session_detach(session, 500);
    assert_ptr_equal(sessions_find_expired(&sessions, 500, 1000000), session);
    sessions_remove(&sessions, session);
}

static void room_is_made_by_the_session_that_is_away_longest_with_nothing_kept(void **state) {
    struct sessions sessions;
    struct frame frame = {.sequence = 1};
    struct session *all[4];
    (void)state;
    sessions_init(&sessions, 4);
    for (uint64_t i = 0; i < 4; i++) {
        all[i] = sessions_open(&sessions, i + 1, 8);
        session_detach(all[i], 100 - i);
    }
    all[3]->origin.peer = here;                                   /* connected */
    TAILQ_INSERT_TAIL(&all[2]->origin.frames, &frame, of_origin); /* something kept */
    assert_ptr_equal(sessions_find_idle(&sessions), all[1]);
    TAILQ_REMOVE(&all[2]->origin.frames, &frame, of_origin);
    all[3]->origin.peer = NULL;
    for (int i = 0; i < 4; i++)
        sessions_remove(&sessions, all[i]);
}

static void credits_start_afresh_less_what_is_retained(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 1);
    struct session *session = sessions_open(&sessions, 1, 8);
    assert_int_equal(session_attach(session, here), 0);
    assert_int_equal(window_grant(&session->origin.window), 8);
    for (int i = 0; i < 3; i++)
        assert_int_equal(window_take(&session->origin.window), 0);
    session_detach(session, 1);
    assert_int_equal(session_attach(session, here), 0);
    assert_int_equal(window_grant(&session->origin.window), 5);
    session_detach(session, 2);
    sessions_remove(&sessions, session);
}

static void only_answers_of_earlier_connections_are_remembered_as_delivered(void **state) {
    struct sessions sessions;
    (void)state;
    sessions_init(&sessions, 1);
    struct session *session = sessions_open(&sessions, 1, 8);
    assert_int_equal(session_attach(session, here), 0);
    struct frame old = {.sequence = 5, .epoch = session->epoch};
    window_grant(&session->origin.window);
    assert_int_equal(window_take(&session->origin.window), 0);
    session_note_delivered(session, &old);
    assert_false(session_was_delivered(session, 5)); /* its client has seen no other connection */
    session_detach(session, 1);
    assert_int_equal(session_attach(session, here), 0);
    struct frame new = {.sequence = 6, .epoch = session->epoch};
    session_note_delivered(session, &old);
    session_note_delivered(session, &new);
    assert_true(session_was_delivered(session, 5));
    assert_false(session_was_delivered(session, 6));
    session_detach(session, 2);
    assert_int_equal(session_attach(session, here),
                     0); /* lost with the connection: computed anew */
    assert_false(session_was_delivered(session, 5));
    session_detach(session, 3);
    sessions_remove(&sessions, session);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static struct held *new_held(uint8_t id, size_t index, size_t count) {
    struct held *held = calloc(1, sizeof(*held));
    assert_non_null(held);
    memset(held->id, id, sizeof(held->id));
    held->index = index;
    held->count = count;
    held->is_last = index + 1 == count;
    held->refs = 1;
    return held;
}

static struct held *add(struct planset *set, struct held *held, uint64_t now_us) {
    struct held *dropped;
    held = planset_add(set, held, now_us, &dropped);
    assert_null(dropped);
    return held;
}

static void the_ingress_uses_the_newest_plan_that_is_ready(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    assert_null(planset_active(&set));
    struct held *old = add(&set, new_held(1, 0, 2), 1);
    assert_null(planset_active(&set));
    assert_ptr_equal(planset_ingress(&set), old);
    old->next_ready = true;
    assert_ptr_equal(planset_active(&set), old);
    struct held *new = add(&set, new_held(2, 0, 2), 2);
    assert_ptr_equal(planset_active(&set), old);
    assert_ptr_equal(planset_ingress(&set), new);
    new->next_ready = true;
    assert_ptr_equal(planset_active(&set), new);
    planset_clear(&set);
}

static void a_plan_of_one_stage_is_ready_by_itself(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    struct held *held = add(&set, new_held(1, 0, 1), 1);
    assert_ptr_equal(planset_active(&set), held);
    planset_clear(&set);
}

static void
only_plans_that_lead_to_their_end_are_announced_and_none_that_starts_here(void **state) {
    struct planset set = {.count = 0};
    const uint8_t *ids[PLANSET_MAX];
    (void)state;
    add(&set, new_held(1, 0, 1), 1); /* starts here */
    add(&set, new_held(2, 1, 3), 1); /* waits for the next device */
    struct held *last = add(&set, new_held(3, 2, 3), 1);
    assert_int_equal(planset_ready_ids(&set, ids), 1);
    assert_ptr_equal(ids[0], last->id);
    planset_clear(&set);
}

static void a_known_plan_becomes_the_newest_again(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    struct held *first = add(&set, new_held(1, 0, 1), 1);
    struct held *second = add(&set, new_held(2, 0, 1), 2);
    assert_ptr_equal(planset_newest(&set), second);
    assert_ptr_equal(add(&set, new_held(1, 0, 1), 3), first);
    assert_ptr_equal(planset_newest(&set), first);
    assert_int_equal(set.count, 2);
    planset_clear(&set);
}

static void a_plan_too_many_takes_the_place_of_the_oldest_that_no_frame_is_under(void **state) {
    struct planset set = {.limit = 4};
    struct held *dropped, *plans[5];
    (void)state;
    for (uint8_t i = 0; i < 4; i++)
        plans[i] = add(&set, new_held(i, 0, 1), i);
    plans[0]->frames = 1;
    plans[4] = planset_add(&set, new_held(4, 0, 1), 5, &dropped);
    assert_ptr_equal(dropped, plans[1]);
    assert_ptr_equal(planset_newest(&set), plans[4]);
    held_unref(dropped);
    planset_clear(&set);
}

static void when_the_limit_is_lowered_all_that_are_too_many_go_but_the_newest(void **state) {
    struct planset set = {.limit = 4};
    struct held *plans[4], *taken;
    (void)state;
    for (uint8_t i = 0; i < 4; i++)
        plans[i] = add(&set, new_held(i, 0, 1), i);
    plans[0]->frames = 1;
    assert_null(planset_take_excess(&set));
    set.limit = 2;
    for (size_t i = 1; i < 3; i++) {
        taken = planset_take_excess(&set);
        assert_ptr_equal(taken, plans[i]);
        held_unref(taken);
    }
    assert_null(planset_take_excess(&set));
    set.limit = 1; /* a frame is under it, but there is no other */
    taken = planset_take_excess(&set);
    assert_ptr_equal(taken, plans[0]);
    held_unref(taken);
    assert_ptr_equal(planset_newest(&set), plans[3]);
    planset_clear(&set);
}

static void an_older_plan_stays_until_frames_come_under_the_newest_only(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    struct held *old = add(&set, new_held(1, 1, 2), 10);
    struct held *new = add(&set, new_held(2, 1, 2), 20);
    old->used_us = 25;
    assert_null(planset_take_unneeded(&set, 1000, 30)); /* upstream has not been reloaded yet */
    new->used_us = 990;
    old->used_us = 980;
    assert_null(planset_take_unneeded(&set, 1000, 30)); /* just changed */
    old->frames = 1;
    assert_null(planset_take_unneeded(&set, 2000, 30)); /* a frame is still here */
    old->frames = 0;
    assert_ptr_equal(planset_take_unneeded(&set, 2000, 30), old);
    assert_null(planset_take_unneeded(&set, 2000, 30));
    held_unref(old);
    planset_clear(&set);
}

static void a_plan_that_came_back_is_not_taken_for_settled_by_its_past(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    add(&set, new_held(1, 1, 2), 10)->used_us = 15;
    struct held *second = add(&set, new_held(2, 1, 2), 20);
    second->used_us = 25;
    add(&set, new_held(1, 1, 2), 1000);
    assert_null(planset_take_unneeded(&set, 1001, 30));
    planset_clear(&set);
}

static void without_a_plan_in_the_configuration_all_go_when_they_are_not_used(void **state) {
    struct planset set = {.count = 0};
    (void)state;
    struct held *held = add(&set, new_held(1, 1, 2), 10);
    held->used_us = 100;
    planset_retire(&set);
    assert_null(planset_take_unneeded(&set, 120, 30));
    assert_ptr_equal(planset_take_unneeded(&set, 130, 30), held);
    held_unref(held);
    assert_null(planset_newest(&set));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_is_found_by_its_id_until_it_is_removed),
        cmocka_unit_test(there_are_never_more_sessions_than_allowed),
        cmocka_unit_test(a_session_without_a_connection_expires_after_its_time),
        cmocka_unit_test(a_session_that_never_had_a_frame_expires_at_once),
        cmocka_unit_test(room_is_made_by_the_session_that_is_away_longest_with_nothing_kept),
        cmocka_unit_test(credits_start_afresh_less_what_is_retained),
        cmocka_unit_test(only_answers_of_earlier_connections_are_remembered_as_delivered),
        cmocka_unit_test(the_ingress_uses_the_newest_plan_that_is_ready),
        cmocka_unit_test(a_plan_of_one_stage_is_ready_by_itself),
        cmocka_unit_test(only_plans_that_lead_to_their_end_are_announced_and_none_that_starts_here),
        cmocka_unit_test(a_known_plan_becomes_the_newest_again),
        cmocka_unit_test(a_plan_too_many_takes_the_place_of_the_oldest_that_no_frame_is_under),
        cmocka_unit_test(when_the_limit_is_lowered_all_that_are_too_many_go_but_the_newest),
        cmocka_unit_test(an_older_plan_stays_until_frames_come_under_the_newest_only),
        cmocka_unit_test(a_plan_that_came_back_is_not_taken_for_settled_by_its_past),
        cmocka_unit_test(without_a_plan_in_the_configuration_all_go_when_they_are_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
