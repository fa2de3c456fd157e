#include "plan/plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

/* 00 01 02 ... 1f */
static const uint8_t digest[SHA256_SIZE] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                            11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

static const struct plan_request three[] = {{"pi-a", "10.0.0.1:7433", 3, false},
                                            {"pi-b", "10.0.0.2:7433", 8, false},
                                            {"pi-c", "10.0.0.3:7433", 11, false}};

static struct plan *build_good(const uint8_t *model, size_t layers,
                               const struct plan_request *requests, size_t count) {
    struct plan *plan = NULL;
    struct err err = {""};
    int rc = plan_build(model, layers, requests, count, &plan, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return plan;
}

static void plan_holds_the_stages_without_gap_or_overlap(void **state) {
    (void)state;
    struct plan *plan = build_good(digest, 12, three, 3);

    assert_int_equal(plan->count, 3);
    assert_memory_equal(plan->model_id, digest, sizeof(digest));
    static const size_t firsts[] = {0, 4, 9}, lasts[] = {4, 9, 12};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(plan->stages[i].node, three[i].node);
        assert_string_equal(plan->stages[i].address, three[i].address);
        assert_ptr_not_equal(plan->stages[i].node, three[i].node);
        assert_int_equal(plan->stages[i].first, firsts[i]);
        assert_int_equal(plan->stages[i].last, lasts[i]);
    }
    plan_free(plan);
}

static void node_is_found_in_the_plan(void **state) {
    (void)state;
    struct plan *plan = build_good(digest, 12, three, 3);

    assert_int_equal(plan_find_node(plan, "pi-a"), 0);
    assert_int_equal(plan_find_node(plan, "pi-c"), 2);
    assert_int_equal(plan_find_node(plan, "pi-d"), -1);
    plan_free(plan);
}

static void one_stage_takes_all_layers(void **state) {
    static const struct plan_request one[] = {{"pi-a", "10.0.0.1:7433", 0, false}};
    (void)state;
    struct plan *plan = build_good(digest, 1, one, 1);

    assert_int_equal(plan->stages[0].first, 0);
    assert_int_equal(plan->stages[0].last, 1);
    plan_free(plan);
}

static void every_layer_may_be_a_stage(void **state) {
    static const struct plan_request requests[] = {
        {"a", "h:1", 0, false}, {"b", "h:2", 1, false}, {"c", "h:3", 2, false}};
    (void)state;
    struct plan *plan = build_good(digest, 3, requests, 3);

    assert_int_equal(plan->stages[1].first, 1);
    assert_int_equal(plan->stages[1].last, 2);
    plan_free(plan);
}

/* ---- the id ------------------------------------------------------------------------------------
 */

/* The id that all devices must agree on, computed apart from this code from the form in plan.h. */
static void id_is_that_of_the_documented_bytes(void **state) {
    char hex[SHA256_HEX];
    (void)state;
    struct plan *plan = build_good(digest, 12, three, 3);

    assert_string_equal(sha256_format(plan->id, hex),
                        "c8b507f13d3e41a5618e502ce162fc4de53426cd9be68cf4d7d658a268a5272e");
    plan_free(plan);
}

static void id_does_not_depend_on_addresses(void **state) {
    struct plan_request moved[3];
    (void)state;
    memcpy(moved, three, sizeof(moved));
    moved[0].address = "elsewhere:1";
    moved[2].address = "[::1]:2";
    struct plan *plan = build_good(digest, 12, three, 3);
    struct plan *other = build_good(digest, 12, moved, 3);

    assert_memory_equal(plan->id, other->id, sizeof(plan->id));
    plan_free(plan);
    plan_free(other);
}

static void id_depends_on_model_cuts_names_and_order(void **state) {
    uint8_t other_digest[SHA256_SIZE];
    struct plan_request cut[3], name[3];
    (void)state;
    memcpy(other_digest, digest, sizeof(digest));
    other_digest[31]++;
    memcpy(cut, three, sizeof(cut));
    cut[0].until = 4;
    memcpy(name, three, sizeof(name));
    name[1].node = "pi-B";
    const struct plan_request swapped[] = {{"pi-b", "10.0.0.1:7433", 3, false},
                                           {"pi-a", "10.0.0.2:7433", 8, false},
                                           {"pi-c", "10.0.0.3:7433", 11, false}};
    const struct plan_request merged[] = {{"pi-a", "10.0.0.1:7433", 3, false},
                                          {"pi-b", "10.0.0.2:7433", 11, false}};
    struct plan *plans[] = {
        build_good(digest, 12, three, 3),   build_good(other_digest, 12, three, 3),
        build_good(digest, 12, cut, 3),     build_good(digest, 12, name, 3),
        build_good(digest, 12, swapped, 3), build_good(digest, 12, merged, 2)};

    for (size_t i = 0; i < LENGTH(plans); i++) {
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(plans[i]->id, plans[j]->id, SHA256_SIZE);
    }
    for (size_t i = 0; i < LENGTH(plans); i++)
        plan_free(plans[i]);
}

/* ---- stages that are shared ---------------------------------------------------------------------
 */

/* pi-b and pi-c share the second of three stages. */
static const struct plan_request shared[] = {{"pi-a", "10.0.0.1:7433", 3, false},
                                             {"pi-b", "10.0.0.2:7433", 8, false},
                                             {"pi-c", "10.0.0.3:7433", 8, true},
                                             {"pi-d", "10.0.0.4:7433", 11, false}};

static void devices_that_share_a_stage_have_its_layers(void **state) {
    static const size_t firsts[] = {0, 4, 4, 9}, lasts[] = {4, 9, 9, 12}, numbers[] = {1, 2, 2, 3};
    (void)state;
    struct plan *plan = build_good(digest, 12, shared, 4);

    assert_int_equal(plan->count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(plan->stages[i].first, firsts[i]);
        assert_int_equal(plan->stages[i].last, lasts[i]);
        assert_int_equal(plan_stage_number(plan, i), numbers[i]);
    }
    plan_free(plan);
}

static void devices_of_a_stage_and_of_the_next_one_are_found(void **state) {
    static const size_t begins[] = {0, 1, 1, 3}, counts[] = {1, 2, 2, 1};
    static const size_t nexts[] = {1, 3, 3, 4}, next_counts[] = {2, 1, 1, 0};
    (void)state;
    struct plan *plan = build_good(digest, 12, shared, 4);
    for (size_t i = 0; i < 4; i++) {
        size_t count;
        assert_int_equal(plan_replicas(plan, i, &count), begins[i]);
        assert_int_equal(count, counts[i]);
        assert_int_equal(plan_next(plan, i, &count), nexts[i]);
        assert_int_equal(count, next_counts[i]);
    }
    plan_free(plan);
}

static void id_of_a_shared_stage_is_that_of_no_other_plan(void **state) {
    struct plan_request swapped[4];
    (void)state;
    memcpy(swapped, shared, sizeof(swapped));
    swapped[1].node = "pi-c";
    swapped[2].node = "pi-b";
    struct plan *plans[] = {build_good(digest, 12, shared, 4), build_good(digest, 12, swapped, 4),
                            build_good(digest, 12, three, 3)};
    for (size_t i = 0; i < LENGTH(plans); i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(plans[i]->id, plans[j]->id, SHA256_SIZE);
    for (size_t i = 0; i < LENGTH(plans); i++)
        plan_free(plans[i]);
}

static void a_model_needs_a_layer_for_each_stage_but_not_for_each_device(void **state) {
    static const struct plan_request two[] = {
        {"a", "h:1", 0, false}, {"b", "h:2", 1, false}, {"c", "h:3", 1, true}};
    struct plan *plan = NULL;
    struct err err = {""};
    (void)state;
    plan_free(build_good(digest, 2, two, 3));
    assert_int_equal(plan_build(digest, 1, two, 3, &plan, &err), -EINVAL);
    assert_string_equal(err.text, "2 stages, but the model has only 1 layers");
}

static void impossible_sharing_is_refused(void **state) {
    static const struct {
        size_t count;
        struct plan_request requests[10];
        const char *sentence;
    } cases[] = {
        {3,
         {{"a", "h:1", 5, false}, {"b", "h:2", 5, true}, {"c", "h:3", 11, false}},
         "'b' cannot share the first stage: clients connect to its device, which keeps each frame "
         "until it is answered"},
        {1,
         {{"a", "h:1", 11, true}},
         "'a' cannot share the first stage: clients connect to its device, which keeps each frame "
         "until it is answered"},
        {4,
         {{"a", "h:1", 5, false},
          {"b", "h:2", 7, false},
          {"c", "h:3", 8, true},
          {"d", "h:4", 11, false}},
         "'c' shares stage 2 with 'b', but would end with layer 8 instead of 7"},
        {3,
         {{"a", "h:1", 5, false}, {"b", "h:2", 11, false}, {"a", "h:3", 11, true}},
         "node 'a' has stage 1 already, stage 2 must be another's"},
        {4,
         {{"a", "h:1", 5, false},
          {"b", "h:2", 7, false},
          {"c", "h:3", 7, true},
          {"d", "h:4", 10, false}},
         "stage 3 ('d') is the last and must run to the model's last layer 11, not to 10"},
        {4,
         {{"a", "h:1", 5, false},
          {"b", "h:2", 11, false},
          {"c", "h:3", 11, true},
          {"d", "h:4", 11, false}},
         "stage 2 ('b') ends with the model's last layer 11, which leaves nothing for stage 3 "
         "('d')"},
        {10,
         {{"a", "h:1", 5, false},
          {"b", "h:2", 11, false},
          {"c", "h:3", 11, true},
          {"d", "h:4", 11, true},
          {"e", "h:5", 11, true},
          {"f", "h:6", 11, true},
          {"g", "h:7", 11, true},
          {"h", "h:8", 11, true},
          {"i", "h:9", 11, true},
          {"j", "h:10", 11, true}},
         "stage 2 is shared by more than 8 devices"},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct plan *plan = NULL;
        struct err err = {""};

        int rc = plan_build(digest, 12, cases[i].requests, cases[i].count, &plan, &err);

        assert_string_equal(err.text, cases[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_null(plan);
    }
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void impossible_plan_is_refused(void **state) {
    static const struct {
        size_t layers, count;
        struct plan_request requests[3];
        const char *sentence;
    } cases[] = {
        {12, 0, {{0}}, "a plan needs at least one stage"},
        {2,
         3,
         {{"a", "h:1", 0, false}, {"b", "h:2", 1, false}, {"c", "h:3", 2, false}},
         "3 stages, but the model has only 2 layers"},
        {0, 1, {{"a", "h:1", 0, false}}, "1 stages, but the model has only 0 layers"},
        {12,
         2,
         {{"a", "h:1", 12, false}, {"b", "h:2", 11, false}},
         "stage 1 ('a') would end with layer 12, but the model's last is 11"},
        {12,
         2,
         {{"a", "h:1", 1000000, false}, {"b", "h:2", 11, false}},
         "stage 1 ('a') would end with layer 1000000, but the model's last is 11"},
        {12,
         3,
         {{"a", "h:1", 5, false}, {"b", "h:2", 5, false}, {"c", "h:3", 11, false}},
         "stage 2 ('b') would end with layer 5, which stage 1 ('a') has run already: it ends with "
         "layer 5"},
        {12,
         3,
         {{"a", "h:1", 5, false}, {"b", "h:2", 2, false}, {"c", "h:3", 11, false}},
         "stage 2 ('b') would end with layer 2, which stage 1 ('a') has run already: it ends with "
         "layer 5"},
        {12,
         2,
         {{"a", "h:1", 11, false}, {"b", "h:2", 11, false}},
         "stage 1 ('a') ends with the model's last layer 11, which leaves nothing for stage 2 "
         "('b')"},
        {12,
         2,
         {{"a", "h:1", 5, false}, {"b", "h:2", 10, false}},
         "stage 2 ('b') is the last and must run to the model's last layer 11, not to 10"},
        {12,
         3,
         {{"a", "h:1", 1, false}, {"b", "h:2", 2, false}, {"a", "h:3", 11, false}},
         "node 'a' has stage 1 already, stage 3 must be another's"},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct plan *plan = NULL;
        struct err err = {""};

        int rc =
            plan_build(digest, cases[i].layers, cases[i].requests, cases[i].count, &plan, &err);

        assert_string_equal(err.text, cases[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_null(plan);
    }
}

/* ---- from a configuration ----------------------------------------------------------------------
 */

static struct config *parse(const char *yaml) {
    struct config *config = NULL;
    struct err err = {""};
    int rc = config_parse(yaml, strlen(yaml), "f.yaml", &config, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return config;
}

#define LINE                                                                                       \
    "model: m\n"                                                                                   \
    "pipeline:\n"                                                                                  \
    "  - {node: pi-a, address: 10.0.0.1:7433, until: x}\n"                                         \
    "  - {node: pi-b, address: 10.0.0.2:7433, until: y}\n"                                         \
    "  - {node: pi-c, address: 10.0.0.3:7433}\n"

static void configuration_gives_the_same_plan_as_its_stages(void **state) {
    static const size_t untils[] = {3, 8, 0}; /* the last one's is not read */
    struct plan *plan = NULL;
    struct err err = {""};
    (void)state;
    struct config *config = parse(LINE);
    struct plan *expected = build_good(digest, 12, three, 3);

    int rc = plan_from_config(config, digest, 12, untils, &plan, &err);

    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_memory_equal(plan->id, expected->id, sizeof(plan->id));
    assert_int_equal(plan->stages[2].last, 12);
    assert_string_equal(plan->stages[1].address, "10.0.0.2:7433");
    config_free(config);
    plan_free(plan);
    plan_free(expected);
}

static void configuration_gives_replicas_the_layers_of_their_stage(void **state) {
    static const size_t untils[] = {3, 8, 8, 0};
    struct plan *plan = NULL;
    struct err err = {""};
    (void)state;
    struct config *config = parse("model: m\npipeline:\n"
                                  "  - {node: pi-a, address: 10.0.0.1:7433, until: x}\n"
                                  "  - until: y\n    replicas:\n"
                                  "      - {node: pi-b, address: 10.0.0.2:7433}\n"
                                  "      - {node: pi-c, address: 10.0.0.3:7433}\n"
                                  "  - {node: pi-d, address: 10.0.0.4:7433}\n");
    struct plan *expected = build_good(digest, 12, shared, 4);

    assert_int_equal(plan_from_config(config, digest, 12, untils, &plan, &err), 0);

    assert_memory_equal(plan->id, expected->id, sizeof(plan->id));
    config_free(config);
    plan_free(plan);
    plan_free(expected);
}

static void error_names_the_line_of_the_stage(void **state) {
    static const struct {
        size_t layers, untils[3];
        const char *sentence;
    } cases[] = {
        {12,
         {8, 3, 0},
         "f.yaml:4:5: stage 2 ('pi-b') would end with layer 3, which stage 1 ('pi-a') has run "
         "already: it ends with layer 8"},
        {12,
         {3, 11, 0},
         "f.yaml:4:5: stage 2 ('pi-b') ends with the model's last layer 11, which leaves nothing "
         "for "
         "stage 3 ('pi-c')"},
        {12,
         {12, 13, 0},
         "f.yaml:3:5: stage 1 ('pi-a') would end with layer 12, but the model's last is 11"},
        {2, {0, 1, 0}, "f.yaml:5:5: 3 stages, but the model has only 2 layers"},
        {0, {0, 1, 0}, "f.yaml:3:5: 3 stages, but the model has only 0 layers"},
    };
    (void)state;
    struct config *config = parse(LINE);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct plan *plan = NULL;
        struct err err = {""};

        int rc = plan_from_config(config, digest, cases[i].layers, cases[i].untils, &plan, &err);

        assert_string_equal(err.text, cases[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_null(plan);
    }
    config_free(config);
}

static void configuration_without_a_pipeline_has_no_plan(void **state) {
    struct plan *plan = NULL;
    struct err err = {""};
    (void)state;
    struct config *config = parse("node: a\n");

    int rc = plan_from_config(config, digest, 12, NULL, &plan, &err);

    assert_int_equal(rc, -EINVAL);
    assert_string_equal(err.text, "f.yaml: has no 'pipeline'");
    assert_null(plan);
    config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_holds_the_stages_without_gap_or_overlap),
        cmocka_unit_test(node_is_found_in_the_plan),
        cmocka_unit_test(one_stage_takes_all_layers),
        cmocka_unit_test(every_layer_may_be_a_stage),
        cmocka_unit_test(id_is_that_of_the_documented_bytes),
        cmocka_unit_test(id_does_not_depend_on_addresses),
        cmocka_unit_test(id_depends_on_model_cuts_names_and_order),
        cmocka_unit_test(impossible_plan_is_refused),
        cmocka_unit_test(devices_that_share_a_stage_have_its_layers),
        cmocka_unit_test(devices_of_a_stage_and_of_the_next_one_are_found),
        cmocka_unit_test(id_of_a_shared_stage_is_that_of_no_other_plan),
        cmocka_unit_test(a_model_needs_a_layer_for_each_stage_but_not_for_each_device),
        cmocka_unit_test(impossible_sharing_is_refused),
        cmocka_unit_test(configuration_gives_replicas_the_layers_of_their_stage),
        cmocka_unit_test(configuration_gives_the_same_plan_as_its_stages),
        cmocka_unit_test(error_names_the_line_of_the_stage),
        cmocka_unit_test(configuration_without_a_pipeline_has_no_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
