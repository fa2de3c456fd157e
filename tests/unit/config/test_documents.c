/* The examples and the man pages must be true. Run from the root of the repository, like all tests.
 */
#include "config/config.h"
#include "config/devices.h"
#include "config/schema.h"
#include "config/sidecar.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

/* ---- examples ----------------------------------------------------------------------------------
 */

static void examples_are_good_lines_of_one_to_four_devices(void **state) {
    static const char *const names[] = {"one", "two", "three", "four"};
    static const char *const nodes[] = {"pi-a", "pi-b", "pi-c", "pi-d"};
    (void)state;
    for (size_t i = 0; i < LENGTH(names); i++) {
        char path[64];
        snprintf(path, sizeof(path), "config/examples/%s.yaml", names[i]);
        for (size_t j = 0; j <= i; j++) {
            struct config *config = NULL;
            struct err err = {""};

            int rc = config_load(path, &config, &err);
            if (rc == 0)
                rc = config_override(config, nodes[j], NULL, &err);

            assert_string_equal(err.text, "");
            assert_int_equal(rc, 0);
            assert_int_equal(config->pipeline_count, i + 1);
            assert_int_equal(config_find_stage(config), j);
            assert_string_equal(config->listen, config->pipeline[j].address);
            assert_null(config->http);
            assert_int_equal(access(config->model, R_OK), 0);
            config_free(config);
        }
    }
}

static void example_of_replicas_shares_the_last_stage(void **state) {
    static const char *const nodes[] = {"pi-a", "pi-b", "pi-c"};
    (void)state;
    for (size_t i = 0; i < LENGTH(nodes); i++) {
        struct config *config = NULL;
        struct err err = {""};
        assert_int_equal(config_load("config/examples/replicas.yaml", &config, &err), 0);
        assert_int_equal(config_override(config, nodes[i], NULL, &err), 0);
        assert_int_equal(config->pipeline_count, 3);
        assert_int_equal(config_find_stage(config), i);
        assert_int_equal(config->pipeline[i].shares, i == 2);
        assert_string_equal(config->listen, config->pipeline[i].address);
        config_free(config);
    }
}

static void examples_of_recruits_are_good(void **state) {
    struct config *config = NULL;
    struct err err = {""};
    (void)state;
    assert_int_equal(config_load("config/examples/deploy.yaml", &config, &err), 0);
    assert_int_equal(config_override(config, "pi-a", NULL, &err), 0);
    assert_true(config->deploy);
    assert_int_equal(config_find_stage(config), 0);
    assert_int_equal(config->pipeline_count, 3);
    config_free(config);
    assert_int_equal(config_load("config/examples/recruit.yaml", &config, &err), 0);
    assert_int_equal(config_override(config, "pi-b", "127.0.0.1:7435", &err), 0);
    assert_int_equal(config->pipeline_count, 0);
    assert_null(config->model);
    config_free(config);
}

/* Comments in four.yaml say that its values are the defaults. */
static void example_of_four_writes_the_defaults(void **state) {
    struct config *config = NULL, *defaults = NULL;
    struct err err;
    (void)state;
    assert_int_equal(config_load("config/examples/four.yaml", &config, &err), 0);
    assert_int_equal(config_parse("", 0, "f.yaml", &defaults, &err), 0);

    assert_int_equal(config->threads, defaults->threads);
    assert_int_equal(config->max_payload, defaults->max_payload);
    assert_int_equal(config->max_clients, defaults->max_clients);
    assert_int_equal(config->max_sessions, defaults->max_sessions);
    assert_int_equal(config->heartbeat_ms, defaults->heartbeat_ms);
    assert_int_equal(config->session_ms, defaults->session_ms);
    assert_int_equal(config->drain_ms, defaults->drain_ms);
    assert_int_equal(config->cache, defaults->cache);
    config_free(config);
    config_free(defaults);
}

static void sidecars_of_our_models_name_ten_classes(void **state) {
    static const char *const models[] = {"models/fmnist_resnet.onnx", "models/fmnist_vgg.onnx"};
    (void)state;
    for (size_t i = 0; i < LENGTH(models); i++) {
        struct sidecar *sidecar = NULL;
        struct err err = {""};

        int rc = sidecar_load(models[i], &sidecar, &err);

        assert_string_equal(err.text, "");
        assert_int_equal(rc, 0);
        assert_int_equal(sidecar->width, 28);
        assert_int_equal(sidecar->height, 28);
        assert_int_equal(sidecar->channels, SIDECAR_GRAY);
        assert_true(sidecar->mean[0] == 0 && sidecar->scale[0] == 1 / 255.0f);
        assert_false(sidecar->softmax);
        assert_int_equal(sidecar->labels_count, 10);
        assert_string_equal(sidecar->labels[0], "T-shirt/top");
        assert_string_equal(sidecar->labels[9], "Ankle boot");
        sidecar_free(sidecar);
    }
}

/* ---- man pages ---------------------------------------------------------------------------------
 */

/* The caller frees it. */
static char *read_page(const char *path) {
    char *text = calloc(1, 1 << 20);
    FILE *file = fopen(path, "r");
    assert_non_null(text);
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

/* Fails unless the entry of key, the first behind text, holds words. */
static void expect_words(const char *text, const char *key, const char *words) {
    char head[64];
    snprintf(head, sizeof(head), "\n.It Cm %s :", key);
    const char *entry = strstr(text, head);
    if (!entry) {
        fail_msg("no entry for '%s'", key);
        return;
    }
    const char *end = strstr(entry + 1, "\n.It"), *list_end = strstr(entry + 1, "\n.El");
    if (!end || list_end < end)
        end = list_end;
    const char *found = strstr(entry, words);
    if (!found || found > end)
        fail_msg("the entry of '%s' does not say '%s'", key, words);
}

/* Every key of the table must have an entry behind text with its default and its range. */
static void expect_entries(const char *text, const struct schema_key *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct schema_key *key = &keys[i];
        const char *fallback = key->fallback ? key->fallback : key->computed;
        char words[128];
        if (fallback)
            snprintf(words, sizeof(words), "Default: %s.", fallback);
        expect_words(text, key->name, key->required ? "Required." : fallback ? words : "");
        snprintf(words, sizeof(words), "%lld to %lld", (long long)key->min, (long long)key->max);
        if (key->read == schema_read_int || key->read == schema_read_u64 ||
            key->read == schema_read_name)
            expect_words(text, key->name, key->required ? "" : words);
        for (const struct schema_word *word = key->words; word && word->word; word++)
            expect_words(text, key->name, word->word);
    }
}

static size_t count_entries(const char *text) {
    size_t count = 0;
    while ((text = strstr(text, "\n.It Cm "))) {
        text++;
        count++;
    }
    return count;
}

static void man_page_describes_every_key(void **state) {
    size_t count, stage_count, neighbour_count;
    const struct schema_key *keys = config_keys(&count);
    const struct schema_key *stage_keys = config_stage_keys(&stage_count);
    const struct schema_key *neighbour_keys = config_neighbour_keys(&neighbour_count);
    (void)state;
    char *page = read_page("docs/man/convoy.yaml.5");
    size_t limit_count;
    const struct schema_key *limit_keys = limits_keys(&limit_count);
    const char *limits = strstr(page, "\n.Ss Keys of limits");
    const char *stages = strstr(page, "\nEach stage of");
    const char *neighbours = strstr(page, "\nEach of the\n.Cm neighbours");
    assert_non_null(stages);
    assert_non_null(neighbours);

    expect_entries(page, keys, count);
    expect_entries(stages, stage_keys, stage_count);
    expect_entries(neighbours, neighbour_keys, neighbour_count);
    expect_words(page, "max_payload", "1 KiB to 1 GiB");
    expect_words(page, "pipeline", "1 to 1024");
    expect_words(stages, "replicas", "two to 8");
    expect_words(page, "cache", "1 MiB to 1024 GiB");
    expect_words(page, "memory", "1 MiB to 1024 GiB");
    assert_int_equal(count_entries(page), count + stage_count + neighbour_count + limit_count);
    assert_non_null(limits);
    expect_entries(limits, limit_keys, limit_count);
    expect_words(limits, "frame_memory", "1 MiB to 1024 GiB");
    free(page);
}

static void operations_say_what_happens_at_every_limit(void **state) {
    size_t count;
    const struct schema_key *keys = limits_keys(&count);
    (void)state;
    char *page = read_page("docs/operations.md");
    for (size_t i = 0; i < count; i++) {
        char row[128];
        snprintf(row, sizeof(row), "\n| `%s` | %s | ", keys[i].name, keys[i].fallback);
        if (!strstr(page, row))
            fail_msg("docs/operations.md has no row '%s'", row + 1);
    }
    free(page);
}

static void man_page_of_sidecars_describes_every_key(void **state) {
    size_t count, picture_count;
    const struct schema_key *keys = sidecar_keys(&count);
    const struct schema_key *picture_keys = sidecar_picture_keys(&picture_count);
    (void)state;
    char *page = read_page("docs/man/convoy-model.yaml.5");
    const char *picture = strstr(page, "\n.Ss Keys of picture");
    assert_non_null(picture);

    expect_entries(page, keys, count);
    expect_entries(picture, picture_keys, picture_count);
    assert_int_equal(count_entries(page), count + picture_count);
    free(page);
}

static void man_page_of_devices_describes_every_key(void **state) {
    size_t count, entry_count;
    const struct schema_key *keys = devices_keys(&count);
    const struct schema_key *entry_keys = devices_entry_keys(&entry_count);
    (void)state;
    char *page = read_page("docs/man/convoy-devices.yaml.5");
    const char *entry = strstr(page, "\n.Ss Keys of a device");
    assert_non_null(entry);

    expect_entries(page, keys, count);
    expect_entries(entry, entry_keys, entry_count);
    expect_words(page, "devices", "1 to 1024");
    assert_int_equal(count_entries(page), count + entry_count);
    free(page);
}

static void example_that_plans_itself_has_two_neighbours(void **state) {
    struct config *config = NULL;
    struct err err = {""};
    (void)state;

    int rc = config_load("config/examples/auto.yaml", &config, &err);

    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_true(config->pipeline_auto && config->raw_input_stays);
    assert_int_equal(config->neighbours_count, 2);
    assert_int_equal(access(config->model, R_OK), 0);
    config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_are_good_lines_of_one_to_four_devices),
        cmocka_unit_test(example_of_replicas_shares_the_last_stage),
        cmocka_unit_test(examples_of_recruits_are_good),
        cmocka_unit_test(example_of_four_writes_the_defaults),
        cmocka_unit_test(sidecars_of_our_models_name_ten_classes),
        cmocka_unit_test(man_page_describes_every_key),
        cmocka_unit_test(operations_say_what_happens_at_every_limit),
        cmocka_unit_test(man_page_of_sidecars_describes_every_key),
        cmocka_unit_test(man_page_of_devices_describes_every_key),
        cmocka_unit_test(example_that_plans_itself_has_two_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
