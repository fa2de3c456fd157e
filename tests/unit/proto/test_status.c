/* What a Status says of lines where several devices share a stage. */
#include "proto/status_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static uint8_t plan[32];

/* pi-a, then pi-b and pi-c in turn, then pi-d: layers 0-3, 4-7, 8-9. */
struct line {
    Convoy__StageStatus stages[4], *pointers[4];
    Convoy__Status status;
};

static void set_up_line(struct line *line) {
    static const char *const nodes[] = {"pi-a", "pi-b", "pi-c", "pi-d"};
    static const uint32_t firsts[] = {0, 4, 4, 8}, lasts[] = {4, 8, 8, 10};
    convoy__status__init(&line->status);
    for (size_t i = 0; i < 4; i++) {
        Convoy__StageStatus *stage = &line->stages[i];
        convoy__stage_status__init(stage);
        stage->node = (char *)(uintptr_t)nodes[i];
        stage->state = (char *)(uintptr_t) "ready";
        stage->plan = (ProtobufCBinaryData){sizeof(plan), plan};
        stage->first = firsts[i];
        stage->last = lasts[i];
        stage->workers = 1;
        stage->compute_ms = 1;
        line->pointers[i] = stage;
    }
    line->status.n_stages = 4;
    line->status.stages = line->pointers;
}

static void devices_that_share_a_stage_take_as_long_as_all_of_them_together(void **state) {
    struct line line;
    (void)state;
    set_up_line(&line);
    line.stages[0].compute_ms = 3;
    line.stages[1].compute_ms = line.stages[2].compute_ms = 5; /* a frame every 2.5 ms */
    struct status_bottleneck worst = status_find_bottleneck(&line.status);
    assert_int_equal(worst.stage, 0);
    assert_true(worst.ms == 3);

    line.stages[2].compute_ms = 10; /* 0.2 and 0.1 frames per ms */
    worst = status_find_bottleneck(&line.status);
    assert_int_equal(worst.stage, 1);
    assert_false(worst.is_link);
    assert_true(worst.ms > 3.33 && worst.ms < 3.34);

    line.stages[2].state = (char *)(uintptr_t) "unreachable"; /* nothing is known of it */
    line.stages[2].compute_ms = 0;
    worst = status_find_bottleneck(&line.status);
    assert_true(worst.ms == 5);
}

static void links_of_devices_that_share_a_stage_carry_a_part_of_the_frames(void **state) {
    struct line line;
    (void)state;
    set_up_line(&line);
    for (size_t i = 1; i < 3; i++) { /* 10 ms per frame that it sends, every second one */
        line.stages[i].frames_out = 100;
        line.stages[i].bytes_out = 100 * 125000;
        line.stages[i].send_mbit = 100;
    }
    struct status_bottleneck worst = status_find_bottleneck(&line.status);
    assert_true(worst.is_link);
    assert_int_equal(worst.stage, 1);
    assert_true(worst.ms > 4.99 && worst.ms < 5.01);
}

static void a_line_stands_still_only_when_every_device_of_a_stage_is_away(void **state) {
    struct line line;
    (void)state;
    set_up_line(&line);
    assert_null(status_find_blocker(&line.status));
    line.stages[1].state = (char *)(uintptr_t) "unreachable";
    assert_null(status_find_blocker(&line.status));
    assert_true(status_is_replaced(&line.status, 1));
    assert_false(status_is_replaced(&line.status, 2));
    assert_false(status_is_replaced(&line.status, 3));

    line.stages[2].state = (char *)(uintptr_t) "unreachable";
    assert_ptr_equal(status_find_blocker(&line.status), &line.stages[2]);
    assert_false(status_is_replaced(&line.status, 1));

    line.stages[2].state = (char *)(uintptr_t) "ready";
    line.stages[3].state = (char *)(uintptr_t) "unreachable";
    assert_ptr_equal(status_find_blocker(&line.status), &line.stages[3]);
}

static void devices_of_other_plans_are_no_replicas(void **state) {
    static uint8_t other[32] = {1};
    struct line line;
    (void)state;
    set_up_line(&line);
    line.stages[1].state = (char *)(uintptr_t) "unreachable";
    line.stages[2].plan.data = other;
    assert_ptr_equal(status_find_blocker(&line.status), &line.stages[1]);
}

static void links_stand_in_the_json(void **state) {
    Convoy__LinkStatus links[2], *pointers[] = {&links[0], &links[1]};
    struct line line;
    (void)state;
    set_up_line(&line);
    for (size_t i = 0; i < 2; i++) {
        convoy__link_status__init(&links[i]);
        links[i].node = line.stages[1 + i].node;
        links[i].ready = i == 1;
        links[i].frames_out = 7 + i;
    }
    line.stages[0].n_links = 2;
    line.stages[0].links = pointers;

    json_t *root = status_json(&line.status);

    json_t *first = json_array_get(json_object_get(root, "stages"), 0);
    json_t *link = json_array_get(json_object_get(first, "links"), 1);
    assert_string_equal(json_string_value(json_object_get(link, "node")), "pi-c");
    assert_true(json_is_true(json_object_get(link, "ready")));
    assert_int_equal(json_integer_value(json_object_get(link, "frames_out")), 8);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_that_share_a_stage_take_as_long_as_all_of_them_together),
        cmocka_unit_test(links_of_devices_that_share_a_stage_carry_a_part_of_the_frames),
        cmocka_unit_test(a_line_stands_still_only_when_every_device_of_a_stage_is_away),
        cmocka_unit_test(devices_of_other_plans_are_no_replicas),
        cmocka_unit_test(links_stand_in_the_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
