#include "config/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

struct refusal {
    const char *yaml;
    const char *sentence;
};

static int parse(const char *yaml, const char *name, struct config **ret_config, struct err *err) {
    return config_parse(yaml, strlen(yaml), name, ret_config, err);
}

/* Each yaml, as the file f.yaml, must be refused with exactly its sentence. */
static void expect_refusals(const struct refusal *refusals, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct config *config = NULL;
        struct err err = {""};
        int rc = parse(refusals[i].yaml, "f.yaml", &config, &err);
        assert_string_equal(err.text, refusals[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_null(config);
    }
}

static struct config *parse_good(const char *yaml, const char *name) {
    struct config *config = NULL;
    struct err err = {""};
    int rc = parse(yaml, name, &config, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return config;
}

/* ---- defaults and values -----------------------------------------------------------------------
 */

static void empty_file_gives_the_defaults(void **state) {
    static const char *const empties[] = {"",   "\n",   "# nothing\n", "---\n",
                                          "{}", "null", "~\n...\n"};
    char host[256];
    (void)state;
    gethostname(host, sizeof(host));
    for (size_t i = 0; i < LENGTH(empties); i++) {
        struct config *config = parse_good(empties[i], "f.yaml");

        assert_string_equal(config->file, "f.yaml");
        assert_int_equal(config->is_empty, strcmp(empties[i], "{}") != 0);
        assert_string_equal(config->node, host);
        assert_null(config->listen);
        assert_null(config->http);
        assert_null(config->key);
        assert_null(config->model);
        assert_int_equal(config->dims_count, 0);
        assert_int_equal(config->pipeline_count, 0);
        assert_false(config->insecure);
        assert_true(config->workers >= 1);
        assert_int_equal(config->threads, 1);
        assert_int_equal(config->queue, 4 + config->workers);
        assert_int_equal(config->max_payload, 64 << 20);
        assert_int_equal(config->max_clients, 64);
        assert_int_equal(config->max_sessions, 256);
        assert_int_equal(config->heartbeat_ms, 2000);
        assert_int_equal(config->session_ms, 60000);
        assert_int_equal(config->drain_ms, 10000);
        assert_int_equal(config->prepare_ms, 300000);
        assert_null(config->state);
        assert_int_equal(config->cache, 1 << 30);
        assert_int_equal(config->memory, 0);
        assert_false(config->deploy);
        assert_int_equal(config->limits.greetings, 64);
        assert_true(config->limits.frame_memory == 128u << 20);
        assert_int_equal(config->line_pipeline, 0);
        assert_int_equal(config->line_model, 0);
        config_free(config);
    }
}

static void every_key_is_read(void **state) {
    (void)state;
    struct config *config =
        parse_good("node: pi-a\n"
                   "listen: 0.0.0.0:7433\n"
                   "http: off\n"
                   "insecure: yes\n"
                   "model: m.onnx\n"
                   "dims: {h: 320, '*': 1}\n"
                   "workers: 3\n"
                   "threads: 2\n"
                   "queue: 9\n"
                   "max_payload: 1 MiB\n"
                   "max_clients: 5\n"
                   "max_sessions: 6\n"
                   "heartbeat_ms: 500\n"
                   "session_ms: 0\n"
                   "drain_ms: 7\n"
                   "prepare_ms: 8000\n"
                   "state: kept\n"
                   "cache: 8 GiB\n"
                   "memory: 300 MiB\n"
                   "deploy: yes\n"
                   "pipeline:\n"
                   "  - {node: pi-a, address: 10.0.0.11:7433, until: fire4/concat}\n"
                   "  - node: pi-b\n"
                   "    address: pi-b.local:7433\n"
                   "    until: 17\n"
                   "  - {node: pi-c, address: '[fe80::1%eth0]:1', until: }\n",
                   "/etc/convoy/convoy.yaml");

    assert_string_equal(config->node, "pi-a");
    assert_string_equal(config->listen, "0.0.0.0:7433");
    assert_null(config->http);
    assert_true(config->insecure);
    assert_string_equal(config->model, "/etc/convoy/m.onnx");
    assert_int_equal(config->dims_count, 2);
    assert_string_equal(config->dims[0].name, "h");
    assert_int_equal(config->dims[0].value, 320);
    assert_string_equal(config->dims[1].name, "*");
    assert_int_equal(config->workers, 3);
    assert_int_equal(config->threads, 2);
    assert_int_equal(config->queue, 9);
    assert_int_equal(config->max_payload, 1 << 20);
    assert_int_equal(config->max_clients, 5);
    assert_int_equal(config->max_sessions, 6);
    assert_int_equal(config->heartbeat_ms, 500);
    assert_int_equal(config->session_ms, 0);
    assert_int_equal(config->drain_ms, 7);
    assert_int_equal(config->prepare_ms, 8000);
    assert_string_equal(config->state, "/etc/convoy/kept");
    assert_true(config->cache == UINT64_C(8) << 30);
    assert_int_equal(config->memory, 300 << 20);
    assert_true(config->deploy);
    assert_int_equal(config->line_listen, 2);
    assert_int_equal(config->column_listen, 9);
    assert_int_equal(config->line_model, 5);
    assert_int_equal(config->line_pipeline, 21);
    assert_int_equal(config->pipeline_count, 3);
    assert_string_equal(config->pipeline[0].until, "fire4/concat");
    assert_string_equal(config->pipeline[1].node, "pi-b");
    assert_string_equal(config->pipeline[1].address, "pi-b.local:7433");
    assert_string_equal(config->pipeline[1].until, "17");
    assert_int_equal(config->pipeline[1].line, 23);
    assert_int_equal(config->pipeline[1].column, 5);
    assert_null(config->pipeline[2].until);
    config_free(config);
}

static void empty_value_means_the_default(void **state) {
    (void)state;
    struct config *config = parse_good("threads:\nnode: ~\nmodel: null\nhttp: off\n", "f.yaml");

    assert_int_equal(config->threads, 1);
    assert_non_null(config->node);
    assert_null(config->model);
    assert_null(config->http);
    config_free(config);
}

static void quoted_null_is_a_name(void **state) {
    (void)state;
    struct config *config = parse_good("node: 'null'\n", "f.yaml");

    assert_string_equal(config->node, "null");
    config_free(config);
}

static void workers_default_shares_the_cores_among_threads(void **state) {
    (void)state;
    struct config *config = parse_good("threads: 64\n", "f.yaml");
    struct config *other = parse_good("threads: 1\nworkers: 7\n", "f.yaml");

    assert_true(config->workers >= 1 && config->workers <= 1024 / 64);
    assert_int_equal(config->queue, 4 + config->workers);
    assert_int_equal(other->queue, 11);
    config_free(config);
    config_free(other);
}

static void bytes_may_have_a_unit(void **state) {
    static const struct {
        const char *yaml;
        uint32_t bytes;
    } cases[] = {{"max_payload: 1024", 1024},     {"max_payload: 64KiB", 64 << 10},
                 {"max_payload: 3 mib", 3 << 20}, {"max_payload: 1 GiB", 1 << 30},
                 {"max_payload: '2048'", 2048},   {"max_payload: 1073741824", 1 << 30}};
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct config *config = parse_good(cases[i].yaml, "f.yaml");

        assert_int_equal(config->max_payload, cases[i].bytes);
        config_free(config);
    }
}

static void model_path_is_relative_to_the_file(void **state) {
    static const char *const cases[][3] = {{"f.yaml", "m.onnx", "m.onnx"},
                                           {"/f.yaml", "m.onnx", "/m.onnx"},
                                           {"a/b/f.yaml", "../m.onnx", "a/b/../m.onnx"},
                                           {"a/f.yaml", "/m.onnx", "/m.onnx"},
                                           {"a/f.yaml", "with space.onnx", "a/with space.onnx"}};
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char yaml[128];
        snprintf(yaml, sizeof(yaml), "model: %s", cases[i][1]);
        struct config *config = parse_good(yaml, cases[i][0]);

        assert_string_equal(config->model, cases[i][2]);
        config_free(config);
    }
}

static void one_stage_needs_no_until(void **state) {
    (void)state;
    struct config *config =
        parse_good("model: m\npipeline: [{node: a, address: 127.0.0.1:1}]", "f.yaml");

    assert_int_equal(config->pipeline_count, 1);
    config_free(config);
}

static void byte_order_mark_and_dos_lines_are_read(void **state) {
    (void)state;
    struct config *config = parse_good("\xef\xbb\xbfnode: a\r\nthreads: 2\r\n", "f.yaml");

    assert_string_equal(config->node, "a");
    assert_int_equal(config->threads, 2);
    config_free(config);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void limits_are_the_defaults_but_for_those_that_are_given(void **state) {
    static const struct refusal refusals[] = {
        {"limits: those below\n", "f.yaml:1:9: 'limits' must be a map of keys and values (such as "
                                  "'greetings: ...'), not 'those below'"},
        {"limits: {greeting: 3}\n",
         "f.yaml:1:10: unknown key 'greeting' (did you mean 'greetings'?)"},
        {"limits: {plans: 1}\n",
         "f.yaml:1:17: 'plans' must be a whole number from 2 to 16, not '1'"},
    };
    (void)state;
    struct config *config = parse_good("limits: {plans: 9, frame_memory: 5 MiB}\n", "f.yaml");
    assert_int_equal(config->limits.plans, 9);
    assert_true(config->limits.frame_memory == 5u << 20);
    assert_int_equal(config->limits.greetings, 64);
    assert_int_equal(config->limits.write_ms, 30000);
    config_free(config);
    config = parse_good("limits:\n", "f.yaml");
    assert_int_equal(config->limits.parts, 256);
    config_free(config);
    expect_refusals(refusals, LENGTH(refusals));
}

static void unknown_key_is_refused_with_the_nearest(void **state) {
    static const struct refusal refusals[] = {
        {"node: a\ntheads: 2\n", "f.yaml:2:1: unknown key 'theads' (did you mean 'threads'?)"},
        {"  Listen: 1\n", "f.yaml:1:3: unknown key 'Listen' (did you mean 'listen'?)"},
        {"max-payload: 1\n", "f.yaml:1:1: unknown key 'max-payload' (did you mean 'max_payload'?)"},
        {"colour: red\n",
         "f.yaml:1:1: unknown key 'colour'; the file may have: node, listen, http, key, insecure, "
         "model, dims, workers, threads, queue, when_full, bad_values, max_payload, "
         "max_clients, max_sessions, limits, heartbeat_ms, session_ms, drain_ms, prepare_ms, "
         "state, cache, "
         "memory, deploy, pipeline, neighbours, "
         "raw_input_stays, max_replicas"},
        {"\"a\\e[31m\": 1\n",
         "f.yaml:1:1: unknown key 'a?[31m'; the file may have: node, listen, http, key, insecure, "
         "model, dims, workers, threads, queue, when_full, bad_values, max_payload, "
         "max_clients, max_sessions, limits, heartbeat_ms, session_ms, drain_ms, prepare_ms, "
         "state, cache, "
         "memory, deploy, pipeline, neighbours, "
         "raw_input_stays, max_replicas"},
        {"model: m\npipeline:\n  - node: a\n    adress: 1:1\n",
         "f.yaml:4:5: unknown key 'adress' (did you mean 'address'?)"},
        {"model: m\npipeline:\n  - {node: a, address: b:1, to: c}\n",
         "f.yaml:3:29: unknown key 'to'; stage 1 of 'pipeline' may have: node, address, replicas, "
         "until"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void key_that_stands_twice_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"node: a\nworkers: 1\nnode: b\n",
         "f.yaml:3:1: 'node' stands twice (first in line 1): remove one"},
        {"node:\nnode: b\n", "f.yaml:2:1: 'node' stands twice (first in line 1): remove one"},
        {"model: m\npipeline:\n  - {node: a, address: b:1, node: c}\n",
         "f.yaml:3:29: 'node' stands twice (first in line 3): remove one"},
        {"dims: {h: 1, h: 2}", "f.yaml:1:14: 'h' stands twice in 'dims'"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void wrong_kind_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"- node: a\n",
         "f.yaml:1:1: the file must be a map of keys and values (such as 'node: ...'), not a list"},
        {"hello\n",
         "f.yaml:1:1: the file must be a map of keys and values (such as 'node: ...'), not "
         "'hello'"},
        {"node: [a]\n", "f.yaml:1:7: 'node' must be a text, not a list"},
        {"model: {a: b}\n", "f.yaml:1:8: 'model' must be a text, not a map"},
        {"threads: [1]\n",
         "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not a list"},
        {"listen: {a: b}\n", "f.yaml:1:9: 'listen' must be HOST:PORT, not a map"},
        {"insecure: [true]\n", "f.yaml:1:11: 'insecure' must be true or false, not a list"},
        {"dims: 1\n", "f.yaml:1:7: 'dims' must be a map such as {n: 1}, not '1'"},
        {"max_payload: {}\n", "f.yaml:1:14: 'max_payload' must be a number of bytes from 1 KiB to "
                              "1 GiB (units: KiB, MiB, GiB), not a map"},
        {"pipeline: {node: a}\n",
         "f.yaml:1:11: 'pipeline' must be a list of stages ('- {node: ..., "
         "address: ...}'), or auto, not a map"},
        {"pipeline: [a]\n", "f.yaml:1:12: stage 1 of 'pipeline' must be a map of keys and values "
                            "(such as 'node: ...'), not 'a'"},
        {"[a]: b\n", "f.yaml:1:1: a key must be a word, not a list"},
        {"{a: b}: c\n", "f.yaml:1:1: a key must be a word, not a map"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void wrong_value_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"threads: 0", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not '0'"},
        {"threads: 65", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not '65'"},
        {"threads: -1", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not '-1'"},
        {"threads: 1.5", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not '1.5'"},
        {"threads: 0x2", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not '0x2'"},
        {"threads: ''", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not ''"},
        {"threads: ' 2'", "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not ' 2'"},
        {"workers: 99999999999999999999",
         "f.yaml:1:10: 'workers' must be a whole number from 1 to 256, not "
         "'99999999999999999999'"},
        {"heartbeat_ms: 2s",
         "f.yaml:1:15: 'heartbeat_ms' must be a whole number from 10 to 3600000, not '2s'"},
        {"max_payload: 1023", "f.yaml:1:14: 'max_payload' must be a number of bytes from 1 KiB to "
                              "1 GiB (units: KiB, MiB, GiB), not '1023'"},
        {"max_payload: 2 GiB", "f.yaml:1:14: 'max_payload' must be a number of bytes from 1 KiB to "
                               "1 GiB (units: KiB, MiB, GiB), not '2 GiB'"},
        {"max_payload: 9999999999 GiB", "f.yaml:1:14: 'max_payload' must be a number of bytes from "
                                        "1 KiB to 1 GiB (units: KiB, MiB, GiB), not "
                                        "'9999999999 GiB'"},
        {"max_payload: 64 MB", "f.yaml:1:14: 'max_payload' must be a number of bytes from 1 KiB to "
                               "1 GiB (units: KiB, MiB, GiB), not '64 MB'"},
        {"insecure: maybe", "f.yaml:1:11: 'insecure' must be true or false, not 'maybe'"},
        {"node: pi a", "f.yaml:1:7: 'node' must be a name without spaces, not 'pi a'"},
        {"node: ''", "f.yaml:1:7: 'node' must be a text of 1 to 255 bytes, not ''"},
        {"node: \"a\\nb\"",
         "f.yaml:1:7: 'node' must be a text without control characters, not 'a?b'"},
        {"model: ''", "f.yaml:1:8: 'model' must be a text of 1 to 4095 bytes, not ''"},
        {"dims: {h: 0}", "f.yaml:1:11: 'h' must be a whole number from 1 to 1000000, not '0'"},
        {"dims: {h: }", "f.yaml:1:11: 'h' must be a whole number from 1 to 1000000, not nothing"},
        {"dims: {'': 1}", "f.yaml:1:8: 'dims: NAME' must be a text of 1 to 255 bytes, not ''"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void bad_address_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"listen: 10.0.0.1",
         "f.yaml:1:9: 'listen': '10.0.0.1' has no port: write HOST:PORT, such as "
         "192.168.1.10:7433"},
        {"listen: 10.0.0.1:",
         "f.yaml:1:17: not valid YAML: a ':' where no key can stand: check the indentation, or put "
         "the text in quotes"},
        {"listen: '10.0.0.1:'",
         "f.yaml:1:9: 'listen': '10.0.0.1:' has no port from 0 to 65535 after its ':'"},
        {"listen: 10.0.0.1:65536",
         "f.yaml:1:9: 'listen': '10.0.0.1:65536' has no port from 0 to 65535 after its ':'"},
        {"listen: 10.0.0.1:http",
         "f.yaml:1:9: 'listen': '10.0.0.1:http' has no port from 0 to 65535 after its ':'"},
        {"listen: 10.0.0.256:1",
         "f.yaml:1:9: 'listen': '10.0.0.256:1' is neither an IPv4 address nor a host name"},
        {"listen: pi_a/b:1",
         "f.yaml:1:9: 'listen': 'pi_a/b:1' is neither an IPv4 address nor a host name"},
        {"listen: '[::g]:1'",
         "f.yaml:1:9: 'listen': '[::g]:1' is neither an IPv6 address nor a host name"},
        {"listen: '[::1:7433'",
         "f.yaml:1:9: 'listen': '[::1:7433' has no ']' after its IPv6 address"},
        {"listen: ::1:7433", "f.yaml:1:9: 'listen': '::1:7433' has several ':': write an IPv6 "
                             "address as [ADDRESS]:PORT"},
        {"listen: [::1]:7433",
         "f.yaml:1:10: an IPv6 address must stand in quotes, such as \"[::1]:7433\""},
        {"http: 80",
         "f.yaml:1:7: 'http': '80' has no port: write HOST:PORT, such as 192.168.1.10:7433"},
        {"pipeline: [{node: a, address: ':7433'}]",
         "f.yaml:1:31: 'address' has no host: other devices must know where to connect"},
        {"pipeline: [{node: a, address: pi-a:0}]",
         "f.yaml:1:31: 'address' has port 0: other devices must know where to connect"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void contradictory_pipeline_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"model: m\npipeline: []\n",
         "f.yaml:2:11: 'pipeline' has no stages: remove it, or list at least one"},
        {"pipeline:\n  - {node: a, address: b:1}\n",
         "f.yaml:1:1: 'pipeline' needs a 'model': name the ONNX file that it runs"},
        {"pipeline:\n  - {address: b:1}\n", "f.yaml:2:5: stage 1 of 'pipeline' has no 'node'"},
        {"pipeline:\n  - {node: a}\n", "f.yaml:2:5: stage 1 of 'pipeline' has no 'address'"},
        {"pipeline:\n  - {node: a, address: }\n",
         "f.yaml:2:5: stage 1 of 'pipeline' has no 'address'"},
        {"pipeline:\n  -\n", "f.yaml:2:4: stage 1 of 'pipeline' has no 'node'"},
        {"model: m\npipeline:\n  - {node: a, address: b:1, until: x}\n",
         "f.yaml:3:36: the last stage ('a') runs to the end: remove its 'until'"},
        {"model: m\npipeline:\n  - {node: a, address: b:1}\n  - {node: c, address: d:1}\n",
         "f.yaml:3:5: stage 1 ('a') has no 'until': name the last layer it runs, as 'convoyctl "
         "inspect' prints it (only the last stage needs none)"},
        {"model: m\npipeline:\n  - {node: a, address: b:1, until: x}\n  - {node: a, address: "
         "d:1}\n",
         "f.yaml:4:5: node 'a' has a stage already (line 3): a device runs one stage"},
        {"model: m\npipeline:\n  - {node: a, address: b:1, until: x}\n  - {node: c, address: "
         "b:1}\n",
         "f.yaml:4:5: address b:1 belongs to node 'a' already (line 3)"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

#define HEAD  "model: m\npipeline:\n  - {node: a, address: h:1, until: x}\n"
#define PAIR  "[{node: b, address: h:2}, {node: c, address: h:3}]"
#define THIRD "  - {node: d, address: h:4}\n"

static void devices_that_share_a_stage_follow_each_other_in_the_pipeline(void **state) {
    (void)state;
    struct config *config =
        parse_good("node: c\n" HEAD "  - replicas:\n      - {node: b, address: h:2}\n"
                   "      - {node: c, address: 127.0.0.1:3}\n    until: y\n" THIRD,
                   "f.yaml");

    assert_int_equal(config->pipeline_count, 4);
    static const bool shares[] = {false, false, true, false};
    static const char *const nodes[] = {"a", "b", "c", "d"}, *const untils[] = {"x", "y", "y"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(config->pipeline[i].shares, shares[i]);
        assert_string_equal(config->pipeline[i].node, nodes[i]);
        if (i < 3)
            assert_string_equal(config->pipeline[i].until, untils[i]);
    }
    assert_null(config->pipeline[3].until);
    assert_int_equal(config->pipeline[2].line, 7);
    assert_int_equal(config_find_stage(config), 2);
    assert_int_equal(config_override(config, NULL, NULL, NULL), 0);
    assert_string_equal(config->listen, "127.0.0.1:3"); /* each on its own address */
    config_free(config);
}

static void devices_may_share_the_last_stage(void **state) {
    (void)state;
    struct config *config = parse_good(HEAD "  - replicas: " PAIR "\n", "f.yaml");

    assert_int_equal(config->pipeline_count, 3);
    assert_null(config->pipeline[1].until);
    assert_null(config->pipeline[2].until);
    assert_true(config->pipeline[2].shares);
    config_free(config);
}

static void contradictory_replicas_are_refused(void **state) {
    static const struct refusal refusals[] = {
        {"model: m\npipeline:\n  - {replicas: " PAIR ", until: x}\n" THIRD,
         "f.yaml:3:6: the first stage cannot have 'replicas': clients connect to its device, which "
         "keeps each frame until it is answered"},
        {HEAD "  - {replicas: [{node: b, address: h:2}]}\n",
         "f.yaml:4:16: 'replicas' lists the devices that share a stage, at least two: for one "
         "write its 'node' and 'address' in the stage itself"},
        {HEAD "  - {replicas: []}\n",
         "f.yaml:4:16: 'replicas' lists the devices that share a stage, at least two: for one "
         "write its 'node' and 'address' in the stage itself"},
        {HEAD "  - {replicas: b}\n",
         "f.yaml:4:16: 'replicas' must be a list of devices ('- {node: ..., address: ...}'), not "
         "'b'"},
        {HEAD "  - {node: e, replicas: " PAIR "}\n",
         "f.yaml:4:15: stage 2 has 'replicas' and a 'node' or 'address' of its own: write each "
         "device in 'replicas', and only there"},
        {HEAD "  - {replicas: [{node: b, address: h:2}, {node: c}]}\n",
         "f.yaml:4:42: device 2 of 'replicas' has no 'address'"},
        {HEAD "  - {replicas: [{node: b, address: h:2}, {node: c, until: y}]}\n",
         "f.yaml:4:52: unknown key 'until'; device 2 of 'replicas' may have: node, address"},
        {HEAD "  - {replicas: [{node: b, address: h:2}, {node: b, address: h:3}]}\n",
         "f.yaml:4:42: node 'b' has a stage already (line 4): a device runs one stage"},
        {HEAD "  - {replicas: [{node: b, address: h:2}, {node: c, address: h:1}]}\n",
         "f.yaml:4:42: address h:1 belongs to node 'a' already (line 3)"},
        {HEAD "  - {replicas: " PAIR "}\n" THIRD,
         "f.yaml:4:5: stage 2 ('b') has no 'until': name the last layer it runs, as 'convoyctl "
         "inspect' prints it (only the last stage needs none)"},
        {HEAD "  - {replicas: " PAIR ", until: y}\n",
         "f.yaml:4:75: the last stage ('b') runs to the end: remove its 'until'"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

/* A stage of `replicas` devices behind one of a single device; the caller frees it. */
static char *many_replicas(int stages, int replicas) {
    char *yaml = NULL;
    size_t size;
    FILE *out = open_memstream(&yaml, &size);
    fprintf(out, "model: m\npipeline:\n- {node: n, address: h:1, until: x}\n");
    for (int i = 0; i < stages; i++) {
        fprintf(out, "- replicas:\n");
        for (int k = 0; k < replicas; k++)
            fprintf(out, "  - {node: n%d-%d, address: h%d-%d:1}\n", i, k, i, k);
        fprintf(out, i + 1 < stages ? "  until: x\n" : "");
    }
    fclose(out);
    return yaml;
}

static void stages_are_shared_by_so_many_devices_at_most(void **state) {
    struct config *config = NULL;
    struct err err = {""};
    char *most = many_replicas(1, CONFIG_REPLICAS_MAX), *more = many_replicas(1, 9);
    char *devices = many_replicas(128, CONFIG_REPLICAS_MAX);
    (void)state;

    assert_int_equal(parse(most, "f.yaml", &config, &err), 0);
    assert_int_equal(config->pipeline_count, 1 + CONFIG_REPLICAS_MAX);
    config_free(config);
    assert_int_equal(parse(more, "f.yaml", &config, &err), -EINVAL);
    assert_string_equal(err.text, "f.yaml:13:5: 'replicas' has more than 8 devices");
    assert_int_equal(parse(devices, "f.yaml", &config, &err), -EINVAL);
    assert_string_equal(err.text, "f.yaml:3:1: 'pipeline' has more than 1024 devices");
    free(most);
    free(more);
    free(devices);
}

static void http_off_loopback_is_refused_without_insecure(void **state) {
    static const struct refusal refusals[] = {
        {"http: 0.0.0.0:7434\nkey: a.key\n",
         "f.yaml:1:1: other machines can reach this address, and HTTP is not encrypted: whoever "
         "connects sees the line's status. Serve on 127.0.0.1 and use a tunnel, or say 'insecure: "
         "true' on a network that you trust"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
    struct config *config = parse_good("http: 0.0.0.0:7434\ninsecure: true\n", "f.yaml");
    assert_string_equal(config->http, "0.0.0.0:7434");
    config_free(config);
}

static void what_is_not_plain_yaml_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"node: [a",
         "f.yaml:2:1: not valid YAML: did not find expected ',' or ']' (while parsing a "
         "flow sequence that began in line 1)"},
        {"node: a\n  threads: 2\n",
         "f.yaml:2:10: not valid YAML: a ':' where no key can stand: check the indentation, or put "
         "the text in quotes"},
        {"  node: a\n threads: 2\n", "f.yaml:2:2: not valid YAML: this line belongs to nothing "
                                     "above it: check the indentation"},
        {"node: a\n- b\n",
         "f.yaml:2:1: not valid YAML: no 'key: value' where one is due: check the indentation and "
         "the quotes (while parsing a block mapping that began in line 1)"},
        {"node: a\nthreads\nworkers: 2\n", "f.yaml:3:1: not valid YAML: a key without a ':' behind "
                                           "it (while scanning a simple key that "
                                           "began in line 2)"},
        {"node: @a\n", "f.yaml:1:7: not valid YAML: a text that starts with this character must "
                       "stand in quotes"},
        {"a: b\n\tc: d\n",
         "f.yaml:2:1: a tab at the start of the line: YAML is indented with spaces"},
        {"node: &x a\n", "f.yaml:1:7: '&x' is an anchor, which is not supported: remove it"},
        {"dims: &x {a: 1}\n", "f.yaml:1:7: '&x' is an anchor, which is not supported: remove it"},
        {"node: *x\n", "f.yaml:1:7: '*x' is an alias, which is not supported: write the value out, "
                       "or put it in quotes"},
        {"node: !!str a\n", "f.yaml:1:7: 'tag:yaml.org,2002:str' is a tag, which is not supported: "
                            "remove it"},
        {"pipeline: !x [a]\n", "f.yaml:1:11: '!x' is a tag, which is not supported: remove it"},
        {"node: a\n---\nnode: b\n", "f.yaml:2:1: a second document ('---'): the file may hold one"},
        {"node: [[[[[[[[a]]]]]]]]\n", "f.yaml:1:14: lists and maps more than 8 deep"},
        {"node: \xff\n", "f.yaml:1:7: not UTF-8 text (byte 0xff)"},
        {"# \xc3\xa4\nnode: \xc3(\n", "f.yaml:2:7: not UTF-8 text (byte 0xc3)"},
        {"node: \xc0\x80\n", "f.yaml:1:7: not UTF-8 text (byte 0xc0)"},
        {"node: \xed\xa0\x80\n", "f.yaml:1:7: not UTF-8 text (byte 0xed)"},
        {"node: \xf4\x90\x80\x80\n", "f.yaml:1:7: not UTF-8 text (byte 0xf4)"},
        {"node: \xe2\x82", "f.yaml:1:7: not UTF-8 text (byte 0xe2)"},
        {"node: a\x1b[31m\n", "f.yaml:1:8: a control character (U+001B)"},
        {"# \xc3\xa4\xc2\x9b\n", "f.yaml:1:4: a control character (U+009B)"},
        {"# a\xe2\x80\xa8node: a\n", "f.yaml:1:4: a control character (U+2028)"},
        {"%YAML 1.1\n---\nnode: a\n",
         "f.yaml:1:1: a line that starts with '%', which is not supported"},
        {"node: a\r\n%TAG ! x\n",
         "f.yaml:2:1: a line that starts with '%', which is not supported"},
        {"node: \"a\\0b\"\n", "f.yaml:1:7: a NUL character inside a text"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void nul_byte_is_refused(void **state) {
    struct config *config = NULL;
    struct err err;
    (void)state;

    int rc = config_parse("node: a\nb\0c", 11, "f.yaml", &config, &err);

    assert_int_equal(rc, -EINVAL);
    assert_string_equal(err.text, "f.yaml:2:2: a NUL character: this is not a text file");
}

/* The classic: nine anchors that each name the one before nine times. */
static void billion_laughs_is_refused_at_its_first_anchor(void **state) {
    static const struct refusal refusals[] = {
        {"a: &a [lol, lol]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
         "f.yaml:1:4: '&a' is an anchor, which is not supported: remove it"}};
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void long_value_is_shortened_in_the_sentence(void **state) {
    char yaml[1024] = "threads: ";
    struct config *config = NULL;
    struct err err;
    (void)state;
    memset(yaml + 9, 'x', 500);

    int rc = parse(yaml, "f.yaml", &config, &err);

    assert_int_equal(rc, -EINVAL);
    assert_string_equal(err.text,
                        "f.yaml:1:10: 'threads' must be a whole number from 1 to 64, not "
                        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'");
}

static void names_have_a_longest_length(void **state) {
    char yaml[512];
    struct err err;
    struct config *config = NULL;
    (void)state;

    snprintf(yaml, sizeof(yaml), "node: %0255d", 1);
    assert_int_equal(parse(yaml, "f.yaml", &config, &err), 0);
    assert_int_equal(strlen(config->node), 255);
    config_free(config);

    config = NULL;
    snprintf(yaml, sizeof(yaml), "node: %0256d", 1);
    assert_int_equal(parse(yaml, "f.yaml", &config, &err), -EINVAL);
    assert_null(config);
}

/* A file with count stages; the caller frees it. */
static char *many_stages(int count) {
    char *yaml = NULL;
    size_t size;
    FILE *out = open_memstream(&yaml, &size);
    fprintf(out, "model: m\npipeline:\n");
    for (int i = 0; i < count; i++)
        fprintf(out, "- {node: n%d, address: h%d:1%s}\n", i, i, i + 1 < count ? ", until: x" : "");
    fclose(out);
    return yaml;
}

static void pipeline_has_a_longest_length(void **state) {
    struct config *config = NULL;
    struct err err;
    (void)state;
    char *good = many_stages(CONFIG_STAGES_MAX), *bad = many_stages(CONFIG_STAGES_MAX + 1);

    assert_int_equal(parse(good, "f.yaml", &config, &err), 0);
    assert_int_equal(config->pipeline_count, CONFIG_STAGES_MAX);
    config_free(config);
    assert_int_equal(parse(bad, "f.yaml", &config, &err), -EINVAL);
    assert_string_equal(err.text, "f.yaml:3:1: 'pipeline' has 1025 stages: at most 1024 can be");
    free(good);
    free(bad);
}

static void dims_have_a_largest_count(void **state) {
    char *yaml = NULL;
    size_t size;
    struct config *config = NULL;
    struct err err;
    (void)state;
    FILE *out = open_memstream(&yaml, &size);
    fprintf(out, "dims: {");
    for (int i = 0; i < CONFIG_DIMS_MAX + 1; i++)
        fprintf(out, "d%02d: 1, ", i);
    fprintf(out, "}");
    fclose(out);

    assert_int_equal(parse(yaml, "f.yaml", &config, &err), -EINVAL);
    assert_string_equal(err.text, "f.yaml:1:520: more than 64 names in 'dims'");
    free(yaml);
}

static void file_that_is_too_large_is_refused(void **state) {
    struct config *config = NULL;
    struct err err;
    (void)state;
    size_t size = CONFIG_FILE_MAX + 1;
    char *text = malloc(size);
    memset(text, '#', size);

    int rc = config_parse(text, size, "f.yaml", &config, &err);

    assert_int_equal(rc, -EFBIG);
    assert_string_equal(err.text,
                        "f.yaml: larger than the 1048576 bytes that such a file may have");
    rc = config_parse(text, CONFIG_FILE_MAX, "f.yaml", &config, &err);
    assert_int_equal(rc, 0);
    config_free(config);
    free(text);
}

static void too_many_values_are_refused(void **state) {
    struct config *config = NULL;
    struct err err;
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    fprintf(out, "dims: [ ");
    for (int i = 0; i < 200000; i++)
        fprintf(out, "a,");
    fclose(out);

    int rc = config_parse(text, size, "f.yaml", &config, &err);

    assert_int_equal(rc, -EINVAL);
    assert_string_equal(err.text, "f.yaml:1:262147: more than 131072 values in one file");
    free(text);
}

static void a_missing_err_is_no_trouble(void **state) {
    struct config *config = NULL;
    (void)state;
    assert_int_equal(parse("theads: 1", "f.yaml", &config, NULL), -EINVAL);
    assert_int_equal(parse("node: [", "f.yaml", &config, NULL), -EINVAL);
    assert_int_equal(config_load("/nonexistent/f.yaml", &config, NULL), -ENOENT);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static void file_is_loaded_and_named_in_errors(void **state) {
    char folder[] = "/tmp/convoy-test-XXXXXX", path[64], model[64], expected[128];
    struct config *config = NULL;
    struct err err;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/f.yaml", folder);
    snprintf(model, sizeof(model), "%s/m.onnx", folder);
    FILE *file = fopen(path, "w");
    fprintf(file, "model: m.onnx\n");
    fflush(file);

    assert_int_equal(config_load(path, &config, &err), 0);
    assert_string_equal(config->file, path);
    assert_string_equal(config->model, model);
    config_free(config);
    fprintf(file, "x: 1\n");
    fclose(file);
    assert_int_equal(config_load(path, &config, &err), -EINVAL);
    snprintf(expected, sizeof(expected), "%s:2:1: unknown key 'x'; the file may have", path);
    assert_int_equal(strncmp(err.text, expected, strlen(expected)), 0);
    unlink(path);
    rmdir(folder);
}

static void file_that_cannot_be_read_says_why(void **state) {
    struct config *config = NULL;
    struct err err;
    (void)state;

    assert_int_equal(config_load("/nonexistent/f.yaml", &config, &err), -ENOENT);
    assert_string_equal(err.text, "/nonexistent/f.yaml: No such file or directory");
    assert_int_equal(config_load("/", &config, &err), -EISDIR);
    assert_string_equal(err.text, "/: Is a directory");
    assert_int_equal(config_load("/dev/zero", &config, &err), -EFBIG);
    assert_string_equal(err.text,
                        "/dev/zero: larger than the 1048576 bytes that such a file may have");
}

/* ---- addresses ---------------------------------------------------------------------------------
 */

static void address_is_split(void **state) {
    static const char *const cases[][3] = {{"10.0.0.1:7433", "10.0.0.1", "7433"},
                                           {"pi-a.local:1", "pi-a.local", "1"},
                                           {"[::1]:65535", "::1", "65535"},
                                           {"[fe80::1%eth0]:80", "fe80::1%eth0", "80"},
                                           {":0", "", "0"}};
    char host[64], port[8];
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int rc = config_split_address(cases[i][0], host, sizeof(host), port, sizeof(port), NULL);

        assert_int_equal(rc, 0);
        assert_string_equal(host, cases[i][1]);
        assert_string_equal(port, cases[i][2]);
    }
}

static void bad_address_leaves_the_results_alone(void **state) {
    static const char *const bad[] = {"",       "a",      "a:",       "a:b:1",    "[::1]",
                                      "[::1]1", "[::1:1", "a:-1",     "a:123456", "[]:1",
                                      "-a:1",   "a b:1",  "[::1%]:1", "1.2.3:1"};
    char host[64] = "unchanged", port[8] = "same";
    (void)state;
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct err err = {""};
        int rc = config_split_address(bad[i], host, sizeof(host), port, sizeof(port), &err);

        assert_int_equal(rc, -EINVAL);
        assert_true(err.text[0]);
        assert_string_equal(host, "unchanged");
        assert_string_equal(port, "same");
    }
}

static void host_that_does_not_fit_is_refused(void **state) {
    char host[5], port[8];
    struct err err;
    (void)state;
    assert_int_equal(config_split_address("abcd:1", host, sizeof(host), port, sizeof(port), &err),
                     0);
    assert_int_equal(config_split_address("abcde:1", host, sizeof(host), port, sizeof(port), &err),
                     -EINVAL);
    assert_string_equal(err.text, "'abcde:1' has a host of more than 4 bytes");
}

static void loopback_is_told_from_the_rest(void **state) {
    static const char *const loopback[] = {"127.0.0.1:1", "127.9.8.7:0", "[::1]:1", "localhost:1"};
    static const char *const others[] = {"0.0.0.0:1", ":1",          "128.0.0.1:1",
                                         "[::]:1",    "[fe80::1]:1", "pi-a:1",
                                         "127.0.0.1", "127.com:1",   "localhost.evil.org:1"};
    (void)state;
    for (size_t i = 0; i < LENGTH(loopback); i++)
        assert_true(config_address_is_loopback(loopback[i]));
    for (size_t i = 0; i < LENGTH(others); i++)
        assert_false(config_address_is_loopback(others[i]));
}

/* ---- the command line --------------------------------------------------------------------------
 */

#define LINE_OF_TWO                                                                                \
    "model: m\npipeline:\n- {node: a, address: 127.0.0.1:1, until: x}\n- {node: b, address: "      \
    "10.0.0.2:2}\n"

static void listen_is_settled_from_the_first_that_says(void **state) {
    static const struct {
        const char *yaml, *node, *listen, *expected;
        int stage;
    } cases[] = {
        {"node: x", NULL, NULL, "127.0.0.1:7433", -1},
        {"node: x\nlisten: '[::1]:5'", NULL, NULL, "[::1]:5", -1},
        {"node: x\nlisten: '[::1]:5'", NULL, "127.0.0.1:0", "127.0.0.1:0", -1},
        {"node: a\n" LINE_OF_TWO, NULL, NULL, "127.0.0.1:1", 0},
        {"node: x\n" LINE_OF_TWO, NULL, NULL, "127.0.0.1:7433", -1},
        {"node: x\n" LINE_OF_TWO, "a", NULL, "127.0.0.1:1", 0},
        {"node: b\nlisten: 127.0.0.1:9\n" LINE_OF_TWO, NULL, NULL, "127.0.0.1:9", 1},
        {"node: b\ninsecure: true\n" LINE_OF_TWO, NULL, NULL, "10.0.0.2:2", 1},
        {"insecure: true\nlisten: ':7433'", NULL, NULL, ":7433", -1},
        {"insecure: true", NULL, "0.0.0.0:7433", "0.0.0.0:7433", -1},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct config *config = parse_good(cases[i].yaml, "f.yaml");
        struct err err = {""};

        int rc = config_override(config, cases[i].node, cases[i].listen, &err);

        assert_string_equal(err.text, "");
        assert_int_equal(rc, 0);
        assert_string_equal(config->listen, cases[i].expected);
        assert_int_equal(config_find_stage(config), cases[i].stage);
        if (cases[i].node)
            assert_string_equal(config->node, cases[i].node);
        config_free(config);
    }
}

static void listening_off_loopback_is_refused_without_key_or_insecure(void **state) {
#define REMEDY                                                                                     \
    ": other machines can reach this address, and there is no key. Make one with `convoyctl "      \
    "keygen`, copy it to every device and name it with 'key:'; or say 'insecure: true' on a "      \
    "network that you trust; or listen on 127.0.0.1"
    static const struct {
        const char *yaml, *node, *listen, *sentence;
    } cases[] = {
        {"node: x\nlisten: 0.0.0.0:7433", NULL, NULL, "f.yaml:2:9: 'listen: 0.0.0.0:7433'" REMEDY},
        {"listen: ':7433'\ninsecure: false", NULL, NULL, "f.yaml:1:9: 'listen: :7433'" REMEDY},
        {"node: x", NULL, "pi-a:7433", "--listen pi-a:7433" REMEDY},
        {LINE_OF_TWO, "b", NULL,
         "f.yaml:4:3: without 'listen', node 'b' listens on its 'address: 10.0.0.2:2'" REMEDY},
        {"node: x", "a b", NULL,
         "--node must be a name of 1 to 255 bytes without spaces or control characters"},
        {"node: x", "", NULL,
         "--node must be a name of 1 to 255 bytes without spaces or control characters"},
        {"node: x", NULL, "127.0.0.1",
         "--listen: '127.0.0.1' has no port: write HOST:PORT, such as 192.168.1.10:7433"},
    };
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct config *config = parse_good(cases[i].yaml, "f.yaml");
        struct err err = {""};
        char *node = config->node, *listen = config->listen;

        int rc = config_override(config, cases[i].node, cases[i].listen, &err);

        assert_string_equal(err.text, cases[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_ptr_equal(config->node, node);
        assert_ptr_equal(config->listen, listen);
        config_free(config);
    }
}

static void a_key_allows_to_listen_off_loopback(void **state) {
    struct config *config =
        parse_good("node: x\nlisten: 0.0.0.0:7433\nkey: a.key\n", "/etc/f.yaml");
    struct err err = {""};
    (void)state;
    assert_string_equal(config->key, "/etc/a.key");
    assert_int_equal(config_override(config, NULL, NULL, &err), 0);
    assert_string_equal(config->listen, "0.0.0.0:7433");
    config_free(config);
}

/* ---- where state is kept -----------------------------------------------------------------------
 */

static void expect_state(const char *text, const char *node, const char *state) {
    struct config *config = parse_good(text, "/etc/convoy/convoy.yaml");
    struct err err = {""};
    assert_int_equal(config_override(config, node, NULL, &err), 0);
    if (state)
        assert_string_equal(config->state, state);
    else
        assert_null(config->state);
    config_free(config);
}

static void state_is_kept_in_the_service_s_folder_or_the_user_s(void **state) {
    (void)state;
    setenv("STATE_DIRECTORY", "/var/lib/convoy:/var/lib/other", 1);
    setenv("XDG_STATE_HOME", "/xdg", 1);
    setenv("HOME", "/home/pi", 1);
    expect_state("state: /data\n", "pi-a", "/data");
    expect_state("", "pi-a", "/var/lib/convoy");
    unsetenv("STATE_DIRECTORY");
    expect_state("", "pi-a", "/xdg/convoy/pi-a");
    setenv("XDG_STATE_HOME", "relative", 1);
    expect_state("", "../pi/a", "/home/pi/.local/state/convoy/___pi_a");
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    expect_state("", "pi-a", NULL);
}

static void line_that_plans_itself_names_its_neighbours(void **state) {
    static const char text[] =
        "model: m\npipeline: auto\nraw_input_stays: yes\nmax_replicas: 3\n"
        "neighbours:\n- {node: b, address: 'h:1'}\n- {node: c, address: 'h:2'}\n";
    struct config *config = NULL, *copy = NULL;
    struct err err = {""};
    (void)state;
    assert_int_equal(config_parse(text, sizeof(text) - 1, "d/f.yaml", &config, &err), 0);

    assert_true(config->pipeline_auto && config->raw_input_stays);
    assert_int_equal(config->max_replicas, 3);
    assert_int_equal(config->pipeline_count, 0);
    assert_int_equal(config->neighbours_count, 2);
    assert_string_equal(config->neighbours[1].node, "c");
    assert_string_equal(config->neighbours[1].address, "h:2");
    assert_null(config->neighbours[1].until);

    assert_int_equal(config_copy_for_model(config, &copy), 0);
    assert_string_equal(copy->model, "d/m");
    config_free(copy);
    config_free(config);
}

static void mistakes_about_neighbours_are_named(void **state) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"pipeline: automatic\n",
         "f.yaml:1:11: 'pipeline' must be a list of stages ('- {node: ..., "
         "address: ...}'), or auto, not 'automatic'"},
        {"pipeline: auto\n", "f.yaml:1:1: 'pipeline' needs a 'model'"},
        {"neighbours: [{node: a, address: 'h:1'}]\n",
         "f.yaml:1:1: 'neighbours' is for 'pipeline: auto'"},
        {"raw_input_stays: true\n", "f.yaml:1:1: 'raw_input_stays' is for 'pipeline: auto'"},
        {"workers: 1\nmax_replicas: 2\n", "f.yaml:2:1: 'max_replicas' is for 'pipeline: auto'"},
        {"model: m\npipeline: auto\nneighbours: 3\n", "must be a list of devices"},
        {"model: m\npipeline: auto\nneighbours: [{node: a}]\n", "has no 'address'"},
        {"model: m\npipeline: auto\nneighbours:\n- {node: a, address: 'h:1'}\n"
         "- {node: b, address: 'h:1'}\n",
         "f.yaml:5:3: neighbour 'b' has the name or the address of 'a' (line 4)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct config *config = NULL;
        struct err err = {""};
        assert_int_equal(
            config_parse(cases[i].text, strlen(cases[i].text), "f.yaml", &config, &err), -EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' gives '%s'", cases[i].text, err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_that_plans_itself_names_its_neighbours),
        cmocka_unit_test(mistakes_about_neighbours_are_named),
        cmocka_unit_test(empty_file_gives_the_defaults),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(state_is_kept_in_the_service_s_folder_or_the_user_s),
        cmocka_unit_test(empty_value_means_the_default),
        cmocka_unit_test(quoted_null_is_a_name),
        cmocka_unit_test(workers_default_shares_the_cores_among_threads),
        cmocka_unit_test(bytes_may_have_a_unit),
        cmocka_unit_test(model_path_is_relative_to_the_file),
        cmocka_unit_test(one_stage_needs_no_until),
        cmocka_unit_test(byte_order_mark_and_dos_lines_are_read),
        cmocka_unit_test(limits_are_the_defaults_but_for_those_that_are_given),
        cmocka_unit_test(unknown_key_is_refused_with_the_nearest),
        cmocka_unit_test(key_that_stands_twice_is_refused),
        cmocka_unit_test(wrong_kind_is_refused),
        cmocka_unit_test(wrong_value_is_refused),
        cmocka_unit_test(bad_address_is_refused),
        cmocka_unit_test(contradictory_pipeline_is_refused),
        cmocka_unit_test(devices_that_share_a_stage_follow_each_other_in_the_pipeline),
        cmocka_unit_test(devices_may_share_the_last_stage),
        cmocka_unit_test(contradictory_replicas_are_refused),
        cmocka_unit_test(stages_are_shared_by_so_many_devices_at_most),
        cmocka_unit_test(http_off_loopback_is_refused_without_insecure),
        cmocka_unit_test(what_is_not_plain_yaml_is_refused),
        cmocka_unit_test(nul_byte_is_refused),
        cmocka_unit_test(billion_laughs_is_refused_at_its_first_anchor),
        cmocka_unit_test(long_value_is_shortened_in_the_sentence),
        cmocka_unit_test(names_have_a_longest_length),
        cmocka_unit_test(pipeline_has_a_longest_length),
        cmocka_unit_test(dims_have_a_largest_count),
        cmocka_unit_test(file_that_is_too_large_is_refused),
        cmocka_unit_test(too_many_values_are_refused),
        cmocka_unit_test(a_missing_err_is_no_trouble),
        cmocka_unit_test(file_is_loaded_and_named_in_errors),
        cmocka_unit_test(file_that_cannot_be_read_says_why),
        cmocka_unit_test(address_is_split),
        cmocka_unit_test(bad_address_leaves_the_results_alone),
        cmocka_unit_test(host_that_does_not_fit_is_refused),
        cmocka_unit_test(loopback_is_told_from_the_rest),
        cmocka_unit_test(listen_is_settled_from_the_first_that_says),
        cmocka_unit_test(listening_off_loopback_is_refused_without_key_or_insecure),
        cmocka_unit_test(a_key_allows_to_listen_off_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
