/* The daemon's cores that know no sockets: back-off, windows, buffers, flights. */
#include "daemon/data/flow.h"
#include "daemon/data/frame.h"
#include "daemon/data/link.h"
#include "daemon/data/pool.h"
#include "daemon/data/window.h"
#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/net/backoff.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- back-off -------------------------------------------------------------------------------- */

static void backoff_doubles_from_100_ms_to_5_s_with_jitter_below(void **state) {
    static const uint64_t whole[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct backoff backoff;
        backoff_init(&backoff, seed, BACKOFF_LAST_MS);
        for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
            assert_in_range(backoff_next(&backoff), whole[i] / 2, whole[i]);
    }
}

static void neighbour_that_is_wanted_is_tried_once_a_second_at_least(void **state) {
    struct backoff backoff;
    (void)state;
    backoff_init(&backoff, 7, BACKOFF_WANTED_MS);
    for (int i = 0; i < 50; i++)
        assert_in_range(backoff_next(&backoff), 50, 1000);
    assert_in_range(backoff_next(&backoff), 500, 1000);
}

static void backoff_starts_over_after_a_success(void **state) {
    struct backoff backoff;
    (void)state;
    backoff_init(&backoff, 1, BACKOFF_LAST_MS);
    for (int i = 0; i < 10; i++)
        backoff_next(&backoff);
    backoff_reset(&backoff);
    assert_in_range(backoff_next(&backoff), 50, 100);
}

static void backoffs_of_two_devices_do_not_keep_step(void **state) {
    struct backoff a, b;
    int same = 0;
    (void)state;
    backoff_init(&a, 1, BACKOFF_LAST_MS);
    backoff_init(&b, 2, BACKOFF_LAST_MS);
    for (int i = 0; i < 50; i++)
        same += backoff_next(&a) == backoff_next(&b);
    assert_true(same < 10);
}

/* ---- what is said again -----------------------------------------------------------------------
 */

static void what_is_the_same_is_said_once_and_seldom_again(void **state) {
    struct log_repeat repeat = {.said_us = 0};
    char long_text[2 * sizeof(repeat.text)], other[sizeof(long_text)];
    uint64_t now_us = 1;
    (void)state;
    assert_true(log_is_news(&repeat, "", now_us));
    assert_false(log_is_news(&repeat, "", now_us));
    assert_true(log_is_news(&repeat, "no", now_us));
    assert_false(log_is_news(&repeat, "no", now_us + LOG_REPEAT_US - 1));
    assert_true(log_is_news(&repeat, "no", now_us + LOG_REPEAT_US + 1));
    assert_true(log_is_news(&repeat, "not", now_us + LOG_REPEAT_US + 1));
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    memcpy(other, long_text, sizeof(other));
    other[0] = 'y';
    now_us += 2 * LOG_REPEAT_US;
    assert_true(log_is_news(&repeat, long_text, now_us));
    assert_false(log_is_news(&repeat, long_text, now_us));
    assert_true(log_is_news(&repeat, other, now_us));
}

/* ---- excuses --------------------------------------------------------------------------------- */

#define SECOND UINT64_C(1000000)
#define NOW    (1000 * SECOND)

static void what_is_excused_begins_later_but_never_in_the_future(void **state) {
    static const struct {
        uint64_t since_us, us, expected_us;
    } cases[] = {
        {NOW - 10 * SECOND, 3 * SECOND, NOW - 7 * SECOND},
        {NOW - 10 * SECOND, 10 * SECOND, NOW},
        {NOW - 10 * SECOND, 3600 * SECOND, NOW}, /* it began while this device was away */
        {NOW - 10 * SECOND, UINT64_MAX, NOW},
        {NOW, 3600 * SECOND, NOW}, /* heard of since then */
        {NOW + 5, SECOND, NOW},    /* the clock is read more than once */
        {NOW - 10 * SECOND, 0, NOW - 10 * SECOND},
        {0, 2 * SECOND, 2 * SECOND},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(conn_excused(cases[i].since_us, cases[i].us, NOW), cases[i].expected_us);
}

/* One that waits for an answer to its attempt to connect: it has no other times. */
static void a_link_is_excused_for_what_its_device_was_away(void **state) {
    static const struct {
        uint64_t age_us, us, expected_age_us;
    } cases[] = {
        {10 * SECOND, 4 * SECOND, 6 * SECOND},
        {10 * SECOND, 3600 * SECOND, 0},
        {0, 3600 * SECOND, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before_us = device_now_us();
        struct link link = {.state = LINK_CONNECTING, .since_us = before_us - cases[i].age_us};
        link_excuse(&link, cases[i].us);
        uint64_t after_us = device_now_us();
        assert_in_range(link.since_us, before_us - cases[i].expected_age_us,
                        after_us - cases[i].expected_age_us);
    }
}

/* ---- windows --------------------------------------------------------------------------------- */

static void a_window_grants_its_limit_once(void **state) {
    struct window window = {.limit = 8};
    (void)state;
    assert_int_equal(window_grant(&window), 8);
    assert_int_equal(window_grant(&window), 0);
}

static void a_frame_without_a_credit_is_refused(void **state) {
    struct window window = {.limit = 1};
    (void)state;
    assert_int_equal(window_take(&window), -EDQUOT);
    window_grant(&window);
    assert_int_equal(window_take(&window), 0);
    assert_int_equal(window_take(&window), -EDQUOT);
}

static void a_credit_returns_when_its_slot_is_free(void **state) {
    struct window window = {.limit = 1};
    (void)state;
    window_grant(&window);
    assert_int_equal(window_take(&window), 0);
    assert_int_equal(window_grant(&window), 0);
    window_release(&window);
    assert_int_equal(window_grant(&window), 1);
}

static void small_amounts_are_held_back_while_the_peer_has_credits(void **state) {
    struct window window = {.limit = 8};
    (void)state;
    window_grant(&window);
    assert_int_equal(window_take(&window), 0);
    window_release(&window);
    assert_int_equal(window_grant(&window), 0);
    assert_int_equal(window_take(&window), 0);
    window_release(&window);
    assert_int_equal(window_grant(&window), 2);
}

static void results_from_behind_take_slots_and_withhold_credits(void **state) {
    struct window window = {.limit = 2};
    (void)state;
    window_occupy(&window);
    window_occupy(&window);
    window_occupy(&window);
    assert_int_equal(window_grant(&window), 0);
    window_release(&window);
    window_release(&window);
    assert_int_equal(window_grant(&window), 1);
}

/* Whatever happens, what the peer may send and what is held stay within the limit. */
static void a_window_never_exceeds_its_limit_in_random_play(void **state) {
    struct window window = {.limit = 13};
    unsigned seed = 1;
    (void)state;
    for (int i = 0; i < 100000; i++) {
        switch (rand_r(&seed) % 4) {
        case 0:
            window_take(&window);
            break;
        case 1:
            if (window.occupied > 0)
                window_release(&window);
            break;
        case 2:
            window_grant(&window);
            break;
        default:
            if (rand_r(&seed) % 100 == 0)
                window_forget_credits(&window);
        }
        assert_true(window.granted + window.occupied <= window.limit);
        if (window.granted == 0 && window.occupied < window.limit)
            assert_true(window_grant(&window) > 0); /* no peer starves */
    }
}

/* ---- buffers --------------------------------------------------------------------------------- */

static void a_buffer_is_aligned_and_large_enough(void **state) {
    struct pool *pool = pool_new();
    (void)state;
    for (size_t bytes = 0; bytes < 5000; bytes += 7) {
        struct buffer *buffer = pool_get(pool, bytes);
        assert_non_null(buffer);
        assert_true(buffer->capacity >= bytes);
        assert_true(buffer->capacity <= 512 || buffer->capacity <= bytes + bytes / 4 + 1);
        assert_int_equal((uintptr_t)buffer->data % TENSOR_ALIGN, 0);
        memset(buffer->data, 1, bytes + TENSOR_ALIGN); /* the tail is there, says the sanitizer */
        buffer_unref(buffer);
    }
    pool_free(pool);
}

static void a_steady_stream_takes_the_same_buffers_again(void **state) {
    struct pool *pool = pool_new();
    struct pool_stats warm, after;
    (void)state;
    for (int round = 0; round < 1000; round++) {
        struct buffer *a = pool_get(pool, 100000), *b = pool_get(pool, 3000);
        struct buffer *c = pool_get(pool, 100000);
        buffer_unref(a);
        buffer_unref(b);
        buffer_unref(c);
        if (round == 0)
            pool_get_stats(pool, &warm);
    }
    pool_get_stats(pool, &after);
    assert_int_equal(after.allocations, warm.allocations);
    assert_int_equal(after.allocations, 3);
    assert_int_equal(after.in_use, 0);
    pool_free(pool);
}

static void a_buffer_lives_until_its_last_reference_goes(void **state) {
    struct pool *pool = pool_new();
    struct pool_stats stats;
    struct buffer *buffer = pool_get(pool, 1);
    (void)state;
    buffer_ref(buffer);
    buffer_unref(buffer);
    pool_get_stats(pool, &stats);
    assert_int_equal(stats.in_use, 1);
    buffer_unref(buffer);
    pool_get_stats(pool, &stats);
    assert_int_equal(stats.in_use, 0);
    pool_free(pool);
}

static void trimming_gives_back_what_nobody_needed_since_the_last_time(void **state) {
    struct pool *pool = pool_new();
    struct pool_stats stats;
    struct buffer *buffers[10];
    (void)state;
    for (int i = 0; i < 10; i++)
        buffers[i] = pool_get(pool, 1000);
    for (int i = 0; i < 10; i++)
        buffer_unref(buffers[i]);
    pool_trim(pool); /* all were needed */
    pool_get_stats(pool, &stats);
    assert_int_equal(stats.idle_bytes, 10 * 1024);
    buffers[0] = pool_get(pool, 1000);
    buffers[1] = pool_get(pool, 1000);
    buffer_unref(buffers[0]);
    buffer_unref(buffers[1]);
    pool_trim(pool); /* two were */
    pool_get_stats(pool, &stats);
    assert_int_equal(stats.idle_bytes, 2 * 1024);
    pool_free(pool);
}

static void more_than_a_gigabyte_is_not_given(void **state) {
    struct pool *pool = pool_new();
    (void)state;
    assert_null(pool_get(pool, ((size_t)1 << 30) + 1));
    assert_null(pool_get(pool, SIZE_MAX));
    pool_free(pool);
}

/* ---- flights --------------------------------------------------------------------------------- */

static void end(struct flights *flights, struct frame *frame) {
    flights_remove(flights, frame);
    frame->refs = 0;
    flights_recycle(flights, frame);
}

static struct origin here, there;

static void a_frame_is_found_by_session_and_sequence(void **state) {
    static struct flights flights;
    (void)state;
    flights_init(&flights);
    for (uint64_t session = 1; session < 20; session++)
        for (uint64_t sequence = 1; sequence < 100; sequence++)
            assert_non_null(flights_add(&flights, &here, session, sequence));
    assert_null(flights_find(&flights, &here, 20, 1));
    assert_null(flights_find(&flights, &here, 1, 100));
    for (uint64_t session = 1; session < 20; session++)
        for (uint64_t sequence = 1; sequence < 100; sequence++) {
            struct frame *frame = flights_find(&flights, &here, session, sequence);
            assert_non_null(frame);
            assert_true(frame->session == session && frame->sequence == sequence);
            end(&flights, frame);
            assert_null(flights_find(&flights, &here, session, sequence));
        }
    flights_fini(&flights);
}

static void attempts_of_two_origins_at_one_frame_are_two(void **state) {
    static struct flights flights;
    (void)state;
    flights_init(&flights);
    struct frame *first = flights_add(&flights, &here, 1, 1);
    assert_null(flights_find(&flights, &there, 1, 1));
    struct frame *other = flights_add(&flights, &here, 1, 2);
    struct frame *second = flights_add(&flights, &there, 1, 1);

    assert_ptr_equal(flights_find(&flights, &here, 1, 1), first);
    assert_ptr_equal(flights_find(&flights, &there, 1, 1), second);
    struct frame *one = flights_next(&flights, 1, 1, NULL);
    struct frame *two = flights_next(&flights, 1, 1, one);
    assert_true((one == first && two == second) || (one == second && two == first));
    assert_null(flights_next(&flights, 1, 1, two));
    end(&flights, first);
    assert_ptr_equal(flights_next(&flights, 1, 1, NULL), second);
    assert_null(flights_next(&flights, 1, 1, second));
    end(&flights, second);
    assert_null(flights_next(&flights, 1, 1, NULL));
    end(&flights, other);
    flights_fini(&flights);
}

static void frames_that_are_over_lend_their_memory_to_new_ones(void **state) {
    static struct flights flights;
    (void)state;
    flights_init(&flights);
    for (uint64_t sequence = 1; sequence < 1000; sequence++) {
        struct frame *frame = flights_add(&flights, &here, 1, sequence);
        frame->answer_is_result = true;
        end(&flights, frame);
        frame = flights_add(&flights, &here, 2, sequence);
        assert_false(frame->answer_is_result);
        end(&flights, frame);
    }
    assert_int_equal(flights.made, 1);
    flights_fini(&flights);
}

static void a_frame_that_is_sent_back_takes_its_old_place_in_the_queue(void **state) {
    static struct flights flights;
    struct frame_list list = TAILQ_HEAD_INITIALIZER(list);
    struct frame *frames[5];
    (void)state;
    flights_init(&flights);
    for (uint64_t i = 0; i < 5; i++) {
        frames[i] = flights_add(&flights, &here, 1, i + 1);
        frames[i]->accepted_us = i;
        frame_move(frames[i], &list);
    }
    frame_move(frames[1], NULL);
    frame_move(frames[4], NULL);
    frame_move_ordered(frames[4], &list);
    frame_move_ordered(frames[1], &list);
    uint64_t expected = 1;
    struct frame *frame;
    TAILQ_FOREACH(frame, &list, place) {
        assert_int_equal(frame->sequence, expected++);
    }
    for (int i = 0; i < 5; i++) {
        frame_move(frames[i], NULL);
        end(&flights, frames[i]);
    }
    flights_fini(&flights);
}

/* ---- frames that take too long --------------------------------------------------------------- */

static void an_average_of_times_is_of_a_second_or_of_ten_frames(void **state) {
    double fast = 0, slow = 0, jump = 0;
    (void)state;
    for (uint64_t i = 0; i < 5; i++) /* at first all count alike */
        fast = flow_smoothed(fast, (double)i, i, 10000);
    assert_true(fabs(fast - 2) < 1e-9);
    for (uint64_t i = 0; i < 1000; i++) /* 100 frames per second, every other one takes twice */
        fast = flow_smoothed(fast, i % 2 ? 200 : 100, i, 10000);
    assert_true(fabs(fast - 150) < 1);
    for (uint64_t i = 0; i < 1000; i++) /* one in 2 s: the last ten count */
        slow = flow_smoothed(slow, 100, i, 2000000);
    for (uint64_t i = 1000; i < 1010; i++)
        slow = flow_smoothed(slow, 200, i, 2000000);
    assert_true(slow > 160 && slow < 170);
    for (uint64_t i = 1; i < 1000; i++)
        jump = flow_smoothed(jump, i < 800 ? 100 : 200, i, 10000);
    assert_true(jump > 180 && jump < 190); /* two seconds after a change */
}

static void a_frame_is_overdue_after_ten_times_its_usual_time_and_a_second(void **state) {
    (void)state;
    assert_int_equal(flow_overdue_us(20000, 199000), 0);
    assert_int_equal(flow_overdue_us(20000, 999000), 0);
    assert_int_equal(flow_overdue_us(20000, 1000001), 1000001);
    assert_int_equal(flow_overdue_us(500000, 4900000), 0);
    assert_int_equal(flow_overdue_us(500000, 5000001), 5000001);
    assert_int_equal(flow_overdue_us(0, 59000000), 0); /* the first one may be a long one */
    assert_int_equal(flow_overdue_us(0, 60000001), 60000001);
    assert_int_equal(flow_overdue_us(20000, 0), 0);
}

static void a_device_that_rests_is_not_faster_than_its_quota(void **state) {
    const struct flow_stats stats = {.compute_us = 6000, .cpu_us = 4000};
    (void)state;
    assert_true(flow_time_us(&stats, 1, 1, INFINITY) == 6000);
    assert_true(flow_time_us(&stats, 1, 1, 1) == 6000);
    assert_true(fabs(flow_time_us(&stats, 1, 1, 0.4) - 10000) < 1e-6);
    assert_true(fabs(flow_time_us(&stats, 3, 2, 2) - 12000) < 1e-6); /* six threads on two cores */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff_doubles_from_100_ms_to_5_s_with_jitter_below),
        cmocka_unit_test(neighbour_that_is_wanted_is_tried_once_a_second_at_least),
        cmocka_unit_test(backoff_starts_over_after_a_success),
        cmocka_unit_test(backoffs_of_two_devices_do_not_keep_step),
        cmocka_unit_test(what_is_the_same_is_said_once_and_seldom_again),
        cmocka_unit_test(what_is_excused_begins_later_but_never_in_the_future),
        cmocka_unit_test(a_link_is_excused_for_what_its_device_was_away),
        cmocka_unit_test(a_window_grants_its_limit_once),
        cmocka_unit_test(a_frame_without_a_credit_is_refused),
        cmocka_unit_test(a_credit_returns_when_its_slot_is_free),
        cmocka_unit_test(small_amounts_are_held_back_while_the_peer_has_credits),
        cmocka_unit_test(results_from_behind_take_slots_and_withhold_credits),
        cmocka_unit_test(a_window_never_exceeds_its_limit_in_random_play),
        cmocka_unit_test(a_buffer_is_aligned_and_large_enough),
        cmocka_unit_test(a_steady_stream_takes_the_same_buffers_again),
        cmocka_unit_test(a_buffer_lives_until_its_last_reference_goes),
        cmocka_unit_test(trimming_gives_back_what_nobody_needed_since_the_last_time),
        cmocka_unit_test(more_than_a_gigabyte_is_not_given),
        cmocka_unit_test(an_average_of_times_is_of_a_second_or_of_ten_frames),
        cmocka_unit_test(a_frame_is_overdue_after_ten_times_its_usual_time_and_a_second),
        cmocka_unit_test(a_device_that_rests_is_not_faster_than_its_quota),
        cmocka_unit_test(a_frame_is_found_by_session_and_sequence),
        cmocka_unit_test(attempts_of_two_origins_at_one_frame_are_two),
        cmocka_unit_test(frames_that_are_over_lend_their_memory_to_new_ones),
        cmocka_unit_test(a_frame_that_is_sent_back_takes_its_old_place_in_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
