/* The commands as a whole, on the project's own networks. */
#include "config/config.h"
#include "config/ranges.h"
#include "ctl/command.h"
#include "ctl/npy.h"
#include "model/model.h"

#include "tests/lib/folder.h"
#include "tests/lib/small_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"

struct fixture {
    char dir[64];
    char output[128]; /* what the command printed */
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/convoy-ctl-XXXXXX");
    *state = f;
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->output, sizeof(f->output), "%s/output", f->dir);
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    int rc = folder_remove(f->dir);
    free(f);
    return rc;
}

/* The path of name in the fixture's folder: one of the last 16, in static storage. */
static const char *path_of(const struct fixture *f, const char *name) {
    static char paths[16][192];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof(paths[0]), "%s/%s", f->dir, name);
    return path;
}

/* Runs a command on the words (NULL-terminated) with standard output going to f->output. */
static int run(struct fixture *f, const struct command *command, struct err *err, ...) {
    char words[16][192], *argv[17] = {(char *)(uintptr_t)command->name};
    int argc = 1, saved = dup(STDOUT_FILENO);
    va_list args;
    va_start(args, err);
    for (const char *word; (word = va_arg(args, const char *)) && argc < 16; argc++) {
        snprintf(words[argc], sizeof(words[0]), "%s", word);
        argv[argc] = words[argc];
    }
    va_end(args);
    fflush(stdout);
    int fd = open(f->output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO);
    close(fd);
    err->text[0] = '\0';
    int rc = command->run(command, argc, argv, err);
    fflush(stdout);
    assert_int_equal(dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
    close(saved);
    return rc;
}

static json_t *load_output(const struct fixture *f) {
    json_error_t error;
    json_t *root = json_load_file(f->output, 0, &error);
    if (!root)
        fail_msg("%s", error.text);
    return root;
}

static json_int_t integer_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void write_picture(struct fixture *f, const char *name, int seed) {
    FILE *file = fopen(path_of(f, name), "wb");
    assert_non_null(file);
    fprintf(file, "P5\n28 28\n255\n");
    for (int i = 0; i < 28 * 28; i++)
        fputc((seed * 31 + i * 7) % 256, file);
    assert_int_equal(fclose(file), 0);
}

static void inspect_describes_every_layer_and_cut(void **state) {
    struct fixture *f = *state;
    struct err err;
    json_int_t params = 0, macs = 0;
    size_t i;
    json_t *layer, *root;
    if (run(f, &command_inspect, &err, "--json", MODEL, NULL) != 0)
        fail_msg("%s", err.text);
    root = load_output(f);
    const json_t *layers = json_object_get(root, "layers");
    const json_t *totals = json_object_get(root, "totals");
    assert_int_equal(json_array_size(layers), integer_of(totals, "layers"));
    json_array_foreach(layers, i, layer) {
        json_int_t sum = 0;
        size_t t;
        json_t *tensor;
        const json_t *cut = json_object_get(layer, "cut");
        assert_int_equal(integer_of(layer, "index"), i);
        params += integer_of(layer, "params");
        macs += integer_of(layer, "macs");
        json_array_foreach(json_object_get(cut, "tensors"), t, tensor) {
            sum += integer_of(tensor, "bytes");
        }
        assert_int_equal(integer_of(cut, "bytes"), sum);
        assert_true(sum > 0);
    }
    assert_int_equal(params, integer_of(totals, "params"));
    assert_int_equal(macs, integer_of(totals, "macs"));
    assert_in_range(params, 200000, 300000);
    json_decref(root);
}

static void check_gives_each_device_its_share(void **state) {
    struct fixture *f = *state;
    struct err err;
    size_t i;
    json_int_t next = 0;
    json_t *stage, *root;
    if (run(f, &command_check, &err, "--json", "config/examples/three.yaml", NULL) != 0)
        fail_msg("%s", err.text);
    root = load_output(f);
    const json_t *stages = json_object_get(root, "stages");
    assert_int_equal(json_array_size(stages), 3);
    json_array_foreach(stages, i, stage) {
        assert_int_equal(integer_of(stage, "first"), next);
        next = integer_of(stage, "last") + 1;
        assert_true(integer_of(stage, "weight_bytes") > 0);
        assert_true(integer_of(stage, "arena_bytes") > 0);
        assert_true(integer_of(stage, "memory_bytes") > integer_of(stage, "weight_bytes"));
        assert_true(integer_of(stage, "cut_bytes") > 0);
    }
    assert_int_equal(next, integer_of(root, "layers"));
    json_decref(root);
}

static void check_names_the_line_of_a_wrong_layer(void **state) {
    struct fixture *f = *state;
    struct err err;
    char cwd[256];
    const char *path = path_of(f, "bad.yaml");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    fprintf(file,
            "model: %s/%s\npipeline:\n  - {node: a, address: 127.0.0.1:1, until: Relu_x}\n"
            "  - {node: b, address: 127.0.0.1:2}\n",
            cwd, MODEL);
    fclose(file);
    assert_int_equal(run(f, &command_check, &err, path, NULL), -ENOENT);
    assert_non_null(strstr(err.text, "bad.yaml:3:5: "));
    assert_non_null(strstr(err.text, "Relu_x"));
}

/* Whichever machine it is run on. */
static void check_finds_a_device_that_would_listen_without_a_key(void **state) {
    struct fixture *f = *state;
    struct err err;
    char cwd[256];
    const char *path = path_of(f, "open.yaml");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    fprintf(file,
            "model: %s/%s\npipeline:\n  - {node: a, address: 127.0.0.1:1, until: 7}\n"
            "  - {node: b, address: 10.0.0.12:7433}\n",
            cwd, MODEL);
    fclose(file);
    assert_int_equal(run(f, &command_check, &err, path, NULL), -EINVAL);
    assert_non_null(strstr(err.text, "10.0.0.12:7433"));
    assert_non_null(strstr(err.text, "there is no key"));
    assert_int_equal(run(f, &command_check, &err, "--node", "b", path, NULL), -EINVAL);
    assert_int_equal(run(f, &command_check, &err, "--node", "a", path, NULL), 0);
}

/* Reads a file of at most size bytes; returns how many. */
static size_t read_file(const char *path, void *buf, size_t size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    size_t bytes = fread(buf, 1, size, file);
    assert_true(bytes < size);
    fclose(file);
    return bytes;
}

/* The path of the only file of a folder. */
static void find_file(const char *folder, char *buf, size_t size) {
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(buf, size, "%s/%s", folder, entry->d_name);
        count++;
    }
    closedir(dir);
    assert_int_equal(count, 1);
}

/* Pictures for MODEL, at in. */
static void make_pictures(const char *in) {
    struct tensor_desc input = {.dtype = DTYPE_FLOAT, .rank = 4, .dims = {1, 1, 28, 28}};
    struct npy_writer *writer;
    float pixels[28 * 28];
    for (int i = 0; i < 28 * 28; i++)
        pixels[i] = (float)(i % 251) / 250;
    assert_int_equal(npy_writer_new(in, &input, NPY_JOINED, &writer, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(npy_writer_add(writer, pixels, sizeof(pixels), NULL), 0);
    assert_int_equal(npy_writer_finish(writer, NULL), 0);
    npy_writer_free(writer);
}

static void parts_compute_what_the_whole_does(void **state) {
    struct fixture *f = *state;
    struct err err;
    char part[256], cut[512], a[2048], b[2048];
    const char *in = path_of(f, "in.npy");
    make_pictures(in);

    const char *whole = path_of(f, "whole"), *parts = path_of(f, "parts");
    assert_int_equal(run(f, &command_run, &err, "-q", "-i", in, "-o", whole, MODEL, NULL), 0);
    assert_int_equal(run(f, &command_split, &err, "-u", "7", "-u", "12", "-o", parts, MODEL, NULL),
                     0);
    snprintf(cut, sizeof(cut), "%s", in);
    for (int i = 0; i < 3; i++) {
        char out[192];
        snprintf(part, sizeof(part), "%s/fmnist_resnet.part%d.onnx", parts, i);
        snprintf(out, sizeof(out), "%s/out%d", f->dir, i);
        if (run(f, &command_run, &err, "-q", "-i", cut, "-o", out, part, NULL) != 0)
            fail_msg("part %d: %s", i, err.text);
        find_file(out, cut, sizeof(cut));
    }
    snprintf(part, sizeof(part), "%s/prob.npy", whole);
    size_t size = read_file(part, a, sizeof(a));
    assert_int_equal(read_file(cut, b, sizeof(b)), size);
    assert_memory_equal(a, b, size);
}

/* Every tensor that crosses a cut has a range, in a file that daemons read. */
static void calibrate_notes_the_range_of_every_tensor_that_travels(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct ranges *ranges = NULL;
    char text[65536];
    struct model *model;
    const char *path = path_of(f, "m.ranges.yaml");
    make_pictures(path_of(f, "in.npy"));
    if (run(f, &command_calibrate, &err, "--out", path, "--tensor", path_of(f, "in.npy"), MODEL,
            NULL) != 0)
        fail_msg("%s", err.text);
    size_t size = read_file(path, text, sizeof(text));
    if (ranges_parse(text, size, path, &ranges, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(model_open(MODEL, NULL, &model, &err), 0);
    for (size_t at = 1; at < model_layers_count(model); at++) {
        size_t count;
        const struct tensor_desc *descs = model_cut(model, at, &count);
        for (size_t i = 0; i < count; i++)
            assert_non_null(ranges_find(ranges, descs[i].name));
    }
    model_unref(model);
    ranges_free(ranges);
}

static void split_refuses_cuts_out_of_order(void **state) {
    struct fixture *f = *state;
    struct err err;
    assert_int_equal(
        run(f, &command_split, &err, "-u", "9", "-u", "3", "-o", path_of(f, "x"), MODEL, NULL),
        -EINVAL);
    assert_non_null(strstr(err.text, "not behind"));
    assert_int_equal(access(path_of(f, "x"), F_OK), -1);
}

static void run_reports_a_bad_picture_and_goes_on(void **state) {
    struct fixture *f = *state;
    struct err err;
    json_error_t error;
    write_picture(f, "0.pgm", 1);
    write_picture(f, "2.pgm", 2);
    FILE *bad = fopen(path_of(f, "1.jpg"), "w");
    fputs("no picture", bad);
    fclose(bad);
    assert_int_equal(run(f, &command_run, &err, "--json", "--no-time", MODEL, f->dir, NULL),
                     COMMAND_FAILED);
    FILE *output = fopen(f->output, "r");
    for (int i = 0; i < 3; i++) {
        json_t *line = json_loadf(output, JSON_DISABLE_EOF_CHECK, &error);
        assert_non_null(line);
        assert_int_equal(integer_of(line, "frame"), i);
        const json_t *top = json_object_get(line, "top");
        assert_int_equal(top != NULL, i != 1);
        assert_int_equal(json_object_get(line, "error") != NULL, i == 1);
        if (top) {
            assert_int_equal(json_array_size(top), 5);
            assert_non_null(json_object_get(json_array_get(top, 0), "label"));
        }
        assert_null(json_object_get(line, "ms"));
        json_decref(line);
    }
    fclose(output);
}

static void bench_counts_its_frames(void **state) {
    struct fixture *f = *state;
    struct err err;
    if (run(f, &command_bench, &err, "--json", "--frames", "7", "--workers", "2", MODEL, NULL) != 0)
        fail_msg("%s", err.text);
    json_t *root = load_output(f);
    assert_int_equal(integer_of(root, "frames"), 7);
    assert_true(json_real_value(json_object_get(root, "fps")) > 0);
    json_decref(root);
    assert_int_equal(
        run(f, &command_bench, &err, "--json", "--frames", "2", "--layers", MODEL, NULL), 0);
    root = load_output(f);
    assert_int_equal(json_array_size(json_object_get(root, "layers")), 22);
    const json_t *conv = json_array_get(json_object_get(root, "layers"), 1);
    assert_true(json_is_string(json_object_get(conv, "algorithm")));
    assert_true(json_integer_value(json_object_get(conv, "bytes")) >= 53648); /* in, out, weights */
    assert_true(
        json_number_value(json_object_get(json_object_get(root, "machine"), "peak_gflops")) > 0);
    json_decref(root);
}

/* The shape of the model's input, as inspect shows it. */
static void assert_input_shape(struct fixture *f, const json_int_t *shape, size_t rank) {
    json_t *root = load_output(f);
    const json_t *input = json_array_get(json_object_get(root, "inputs"), 0);
    const json_t *list = json_object_get(input, "shape");
    assert_int_equal(json_array_size(list), rank);
    for (size_t i = 0; i < rank; i++)
        assert_int_equal(json_integer_value(json_array_get(list, i)), shape[i]);
    json_decref(root);
}

#define OPEN_MODEL                                                                                 \
    "input x f32 n,1,h,w\nconst c f32 1,1,3,3\nConv conv x,c -> z | pads=[1,1,1,1]\n"              \
    "Relu relu z -> r\nMaxPool pool r -> y | kernel_shape=[2,2]\noutput y\n"

static void dimensions_come_from_the_command_line_then_from_the_sidecar(void **state) {
    struct fixture *f = *state;
    struct err err;
    const char *model = path_of(f, "open.onnx");
    small_model_write(model, 13, OPEN_MODEL);
    assert_true(run(f, &command_inspect, &err, "--json", model, NULL) < 0);
    assert_non_null(strstr(err.text, "--dim h=VALUE"));
    assert_int_equal(run(f, &command_inspect, &err, "--json", "-d", "*=6", model, NULL), 0);
    assert_input_shape(f, (const json_int_t[]){6, 1, 6, 6}, 4);
    FILE *sidecar = fopen(path_of(f, "open.yaml"), "w");
    assert_non_null(sidecar);
    fputs("dims: {h: 8, w: 10}\n", sidecar);
    assert_int_equal(fclose(sidecar), 0);
    assert_int_equal(run(f, &command_inspect, &err, "--json", model, NULL), 0);
    assert_input_shape(f, (const json_int_t[]){1, 1, 8, 10}, 4);
    assert_int_equal(run(f, &command_inspect, &err, "--json", "--dim", "h=12", model, NULL), 0);
    assert_input_shape(f, (const json_int_t[]){1, 1, 12, 10}, 4);
    assert_int_equal(run(f, &command_inspect, &err, "--json", "--dim", "height=12", model, NULL),
                     -EINVAL);
    assert_non_null(strstr(err.text, "'height'; the unknown ones are 'n', 'h', 'w'"));
}

static void every_command_that_opens_a_model_takes_dimensions(void **state) {
    struct fixture *f = *state;
    struct err err;
    const char *model = path_of(f, "open.onnx"), *picture = path_of(f, "p.pgm"),
               *parts = path_of(f, "parts");
    small_model_write(model, 13, OPEN_MODEL);
    write_picture(f, "p.pgm", 3);
    if (run(f, &command_run, &err, "-q", "-d", "h=8", "-d", "w=6", "-o", path_of(f, "out"), model,
            picture, NULL) != 0)
        fail_msg("%s", err.text);
    if (run(f, &command_bench, &err, "--json", "--frames", "2", "-d", "h=8", "-d", "w=6", model,
            NULL) != 0)
        fail_msg("%s", err.text);
    if (run(f, &command_split, &err, "-u", "relu", "-d", "h=8", "-d", "w=6", "-o", parts, model,
            NULL) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(run(f, &command_run, &err, "-d", "depth=2", model, picture, NULL), -EINVAL);
    assert_non_null(strstr(err.text, "'depth'"));
    assert_int_equal(run(f, &command_bench, &err, "-d", "depth=2", model, NULL), -EINVAL);
    assert_non_null(strstr(err.text, "'depth'"));
    assert_int_equal(
        run(f, &command_split, &err, "-u", "relu", "-o", parts, "-d", "depth=2", model, NULL),
        -EINVAL);
    assert_non_null(strstr(err.text, "'depth'"));
    FILE *yaml = fopen(path_of(f, "line.yaml"), "w");
    assert_non_null(yaml);
    fprintf(yaml,
            "node: a\nmodel: %s\ndims: {h: 8, w: 6}\npipeline:\n"
            "  - {node: a, address: 127.0.0.1:7433}\n",
            model);
    assert_int_equal(fclose(yaml), 0);
    if (run(f, &command_check, &err, "--json", path_of(f, "line.yaml"), NULL) != 0)
        fail_msg("%s", err.text);
}

static void missing_model_is_a_sentence(void **state) {
    static const struct command *const commands[] = {&command_inspect, &command_bench};
    struct fixture *f = *state;
    struct err err;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run(f, commands[i], &err, path_of(f, "nothing.onnx"), NULL), -ENOENT);
        assert_non_null(strstr(err.text, "nothing.onnx"));
    }
}

static void line_that_is_not_there_is_a_sentence(void **state) {
    struct fixture *f = *state;
    struct err err;
    /* Port 1 is tcpmux, which nobody runs; and nothing else may listen there but root. */
    assert_true(run(f, &command_status, &err, "--to", "127.0.0.1:1", NULL) < 0);
    assert_non_null(strstr(err.text, "127.0.0.1:1: connection refused"));
    assert_true(run(f, &command_infer, &err, "--to", "127.0.0.1:1", f->dir, NULL) < 0);
    assert_non_null(strstr(err.text, "does convoyd listen there?"));
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Measures MODEL into the fixture's a.json, and describes two equal devices. */
static void measure(struct fixture *f, const char *devices) {
    struct err err;
    char words[512];
    int rc = run(f, &command_profile, &err, "--json", "--seconds", "0", "--workers", "1", "--keep",
                 path_of(f, "kept.json"), MODEL, NULL);
    if (rc != 0)
        fail_msg("%s", err.text);
    assert_int_equal(rename(f->output, path_of(f, "a.json")), 0);
    snprintf(words, sizeof(words), "profile: a.json\ndevices:\n%s", devices);
    write_text(path_of(f, "d.yaml"), words);
}

static void profile_is_measured_once_and_kept(void **state) {
    struct fixture *f = *state;
    struct err err;
    measure(f, "- {node: a}\n");
    json_error_t error;
    json_t *first = json_load_file(path_of(f, "a.json"), 0, &error);

    for (int fresh = 0; fresh < 2; fresh++) {
        assert_int_equal(run(f, &command_profile, &err, "--json", "--seconds", "0", "--workers",
                             "1", "--keep", path_of(f, "kept.json"), MODEL,
                             fresh ? "--fresh" : NULL, NULL),
                         0);
        json_t *again = load_output(f);
        /* Whole times in floating point are not the same twice. */
        assert_true(json_equal(json_object_get(first, "layers"),
                               json_object_get(again, "layers")) == !fresh);
        json_decref(again);
    }
    json_decref(first);
    assert_int_equal(run(f, &command_profile, &err, "--seconds", "0", "--workers", "1", "--keep",
                         path_of(f, "kept.json"), MODEL, NULL),
                     0);
}

static void plan_cuts_the_model_for_two_devices_and_writes_it(void **state) {
    struct fixture *f = *state;
    struct err err;
    measure(f, "- {node: a, address: '127.0.0.1:1', mbit: 1000}\n- {node: b, address: "
               "'127.0.0.1:2', mbit: 1000}\n");
    int rc = run(f, &command_plan, &err, "--json", "--simulate", "--devices", path_of(f, "d.yaml"),
                 "--write", path_of(f, "c.yaml"), MODEL, NULL);
    if (rc != 0)
        fail_msg("%s", err.text);
    json_t *plan = load_output(f);
    const json_t *stages = json_object_get(plan, "stages");
    assert_int_equal(json_array_size(stages), 2);
    assert_int_equal(integer_of(json_array_get(stages, 0), "first"), 0);
    assert_int_equal(integer_of(json_array_get(stages, 0), "last") + 1,
                     integer_of(json_array_get(stages, 1), "first"));
    double fps = json_number_value(json_object_get(plan, "fps"));
    const json_t *simulated = json_object_get(json_object_get(plan, "simulation"), "fps");
    assert_true(fps > json_number_value(json_object_get(plan, "one_fps")));
    assert_true(fps < json_number_value(json_object_get(plan, "ideal_fps")) * 1.0001);
    assert_true(fabs(json_number_value(simulated) / fps - 1) < 0.05);
    json_decref(plan);

    struct config *config = NULL;
    assert_int_equal(config_load(path_of(f, "c.yaml"), &config, &err), 0);
    assert_int_equal(config->pipeline_count, 2);
    config_free(config);
    assert_int_equal(run(f, &command_check, &err, "--node", "a", path_of(f, "c.yaml"), NULL), 0);
}

static void plan_says_when_one_device_is_enough(void **state) {
    struct fixture *f = *state;
    struct err err;
    measure(f, "- {node: a, mbit: 0.001}\n- {node: b, mbit: 0.001}\n");

    assert_int_equal(
        run(f, &command_plan, &err, "--json", "--devices", path_of(f, "d.yaml"), MODEL, NULL), 0);
    json_t *plan = load_output(f);
    assert_int_equal(json_array_size(json_object_get(plan, "stages")), 1);
    assert_non_null(strstr(json_string_value(json_object_get(plan, "advice")), "One device, a,"));
    json_decref(plan);
    assert_int_equal(run(f, &command_plan, &err, "--devices", path_of(f, "d.yaml"), MODEL, NULL),
                     0);
    assert_int_equal(run(f, &command_plan, &err, "--devices", path_of(f, "d.yaml"), "--write",
                         path_of(f, "c.yaml"), MODEL, NULL),
                     -EINVAL);
    assert_non_null(strstr(err.text, "has no 'address'"));
}

static void plan_refuses_profiles_of_other_models(void **state) {
    struct fixture *f = *state;
    struct err err;
    measure(f, "- {node: a}\n");

    assert_int_equal(run(f, &command_plan, &err, "--devices", path_of(f, "d.yaml"),
                         "models/fmnist_vgg.onnx", NULL),
                     -ESTALE);
    write_text(path_of(f, "d.yaml"), "devices: [{node: a}]");
    assert_int_equal(run(f, &command_plan, &err, "--devices", path_of(f, "d.yaml"), MODEL, NULL),
                     -EINVAL);
    assert_non_null(strstr(err.text, "no profile for 'a'"));
    assert_int_equal(run(f, &command_plan, &err, MODEL, NULL), COMMAND_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inspect_describes_every_layer_and_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(check_gives_each_device_its_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(check_names_the_line_of_a_wrong_layer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(check_finds_a_device_that_would_listen_without_a_key,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(parts_compute_what_the_whole_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate_notes_the_range_of_every_tensor_that_travels,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(split_refuses_cuts_out_of_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(run_reports_a_bad_picture_and_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bench_counts_its_frames, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dimensions_come_from_the_command_line_then_from_the_sidecar,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_command_that_opens_a_model_takes_dimensions, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(profile_is_measured_once_and_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plan_cuts_the_model_for_two_devices_and_writes_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(plan_says_when_one_device_is_enough, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plan_refuses_profiles_of_other_models, set_up, tear_down),
        cmocka_unit_test_setup_teardown(missing_model_is_a_sentence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(line_that_is_not_there_is_a_sentence, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
