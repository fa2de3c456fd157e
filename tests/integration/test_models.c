/* Real models of full size through real daemons: frames larger than sockets' buffers, cuts across
 * residuals and branches, where several tensors travel and some only pass through. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"
#include "tests/lib/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define FRAMES 16

/* The layer whose cut behind it carries the most tensors, from `from` on. */
static size_t busiest_cut(const struct oracle *oracle, size_t from, size_t to) {
    size_t best = from, most = 0, count;
    for (size_t at = from; at < to; at++) {
        model_cut(oracle->model, at + 1, &count);
        if (count > most) {
            most = count;
            best = at;
        }
    }
    return best;
}

static void run_model(const char *file) {
    char path[512];
    struct daemons line;
    struct client client;
    struct oracle oracle;
    if (!models_path(file, path, sizeof(path)))
        skip();
    oracle_init(&oracle, path);
    size_t layers = model_layers_count(oracle.model);
    const char *untils[] = {
        oracle_layer(&oracle, busiest_cut(&oracle, layers / 4, layers / 2)),
        oracle_layer(&oracle, busiest_cut(&oracle, layers / 2, layers - 2)),
    };
    daemons_init(&line, 3, path);
    line.extra = "workers: 2\nheartbeat_ms: 5000\n";
    daemons_configure_all(&line, untils);
    daemons_start_all(&line);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = FRAMES;
    client_run(&client, FRAMES);
    client_assert_exactly_once(&client, FRAMES);
    client_fini(&client);
    daemons_fini(&line);
    oracle_fini(&oracle);
}

static void squeezenet_in_three_answers_as_the_undivided_model(void **state) {
    (void)state;
    run_model("squeezenet1.1.onnx");
}

static void mobilenet_v2_in_three_answers_as_the_undivided_model(void **state) {
    (void)state;
    run_model("mobilenet_v2_dequant.onnx");
}

static void resnet20_in_three_answers_as_the_undivided_model(void **state) {
    (void)state;
    run_model("resnet20_cifar10.onnx");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squeezenet_in_three_answers_as_the_undivided_model),
        cmocka_unit_test(mobilenet_v2_in_three_answers_as_the_undivided_model),
        cmocka_unit_test(resnet20_in_three_answers_as_the_undivided_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
