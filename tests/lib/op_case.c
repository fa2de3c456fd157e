#include "tests/lib/op_case.h"

#include "kernels/kernels.h"
#include "model/model.h"
#include "tests/lib/models.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LINES 16
#define TEXT  8192

/* The lines with numbers, and the model's text without them. */
struct op_case {
    char model[TEXT];
    struct tensor given[LINES], want[LINES];
    size_t given_count, want_count;
};

static enum dtype dtype_of(const char *name) {
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {{"f32", DTYPE_FLOAT},  {"u8", DTYPE_UINT8},    {"i8", DTYPE_INT8},
                 {"i32", DTYPE_INT32},  {"i64", DTYPE_INT64},   {"bool", DTYPE_BOOL},
                 {"f64", DTYPE_DOUBLE}, {"f16", DTYPE_FLOAT16}, {"i16", DTYPE_INT16},
                 {"u16", DTYPE_UINT16}, {"u32", DTYPE_UINT32},  {"u64", DTYPE_UINT64}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].dtype;
    fail_msg("no type %s", name);
    return DTYPE_NONE;
}

static enum kn_type kernel_type(const struct tensor *tensor) {
    return (enum kn_type)tensor->desc.dtype;
}

static void set_number(const struct tensor *tensor, size_t i, const char *text) {
    double d = strtod(text, NULL);
    int64_t l = strtoll(text, NULL, 10);
    bool real = tensor->desc.dtype == DTYPE_FLOAT || tensor->desc.dtype == DTYPE_DOUBLE ||
                tensor->desc.dtype == DTYPE_FLOAT16;
    char *at = (char *)tensor->data + i * dtype_size(tensor->desc.dtype);
    kn_cast(real ? KN_DOUBLE : KN_INT64, kernel_type(tensor), real ? (void *)&d : (void *)&l, at,
            1);
}

static double number(const struct tensor *tensor, size_t i) {
    double d = 0.0;
    kn_cast(kernel_type(tensor), KN_DOUBLE,
            (const char *)tensor->data + i * dtype_size(tensor->desc.dtype), &d, 1);
    return d;
}

/* "x f32 2,3 = 1,2,.." with the name left in desc.name, which points into line. */
static struct tensor read_tensor(char *line) {
    struct tensor tensor = {.desc = {.name = strtok(line, " ")}};
    size_t bytes, count = 0, wanted;
    char *numbers = NULL, *rest;
    tensor.desc.dtype = dtype_of(strtok(NULL, " "));
    char *word = strtok(NULL, " ");
    if (word && strcmp(word, "=") != 0) {
        for (char *d = strtok_r(word, ",", &rest); d; d = strtok_r(NULL, ",", &rest))
            tensor.desc.dims[tensor.desc.rank++] = atoll(d);
        word = strtok(NULL, " ");
    }
    if (word)
        numbers = strtok(NULL, " ");
    assert_int_equal(tensor_desc_bytes(&tensor.desc, &bytes), 0);
    assert_int_equal(tensor_desc_count(&tensor.desc, &wanted), 0);
    tensor.data = tensor_buffer_new(bytes);
    assert_non_null(tensor.data);
    for (char *n = numbers ? strtok_r(numbers, ",", &rest) : NULL; n && count < wanted;
         n = strtok_r(NULL, ",", &rest))
        set_number(&tensor, count++, n);
    assert_int_equal(count, wanted);
    return tensor;
}

/* The model's line for what is given: an input, or a constant. */
static void add_given(struct op_case *c, const char *line, const struct tensor *tensor,
                      bool constant) {
    const char *equals = strchr(line, '=');
    size_t length = constant || !equals ? strlen(line) : (size_t)(equals - line), count;
    bool empty = tensor_desc_count(&tensor->desc, &count) == 0 && count == 0;
    if (empty && equals)
        length = (size_t)(equals - line);
    snprintf(c->model + strlen(c->model), TEXT - strlen(c->model), "%s %.*s\n",
             constant ? "const" : "input", (int)length, line);
}

/* The first `inputs` of what is given are the model's inputs, the rest constants. */
static void case_init(struct op_case *c, const char *text, size_t inputs) {
    char line[TEXT], copy[TEXT];
    memset(c, 0, sizeof(*c));
    for (const char *p = text; *p;) {
        size_t length = strcspn(p, "\n");
        assert_true(length < TEXT && c->given_count < LINES && c->want_count < LINES);
        snprintf(line, sizeof(line), "%.*s", (int)length, p);
        p += length + (p[length] == '\n');
        if (strncmp(line, "given ", 6) == 0) {
            snprintf(copy, sizeof(copy), "%s", line + 6);
            c->given[c->given_count] = read_tensor(line + 6);
            c->given[c->given_count].desc.name = NULL;
            add_given(c, copy, &c->given[c->given_count], c->given_count >= inputs);
            c->given_count++;
        } else if (strncmp(line, "want ", 5) == 0) {
            snprintf(c->model + strlen(c->model), TEXT - strlen(c->model), "output %.*s\n",
                     (int)strcspn(line + 5, "="), line + 5);
            c->want[c->want_count] = read_tensor(line + 5);
            c->want[c->want_count++].desc.name = NULL;
        } else {
            snprintf(c->model + strlen(c->model), TEXT - strlen(c->model), "%s\n", line);
        }
    }
}

static void case_fini(struct op_case *c) {
    for (size_t i = 0; i < LINES; i++) {
        tensor_buffer_free(c->given[i].data);
        tensor_buffer_free(c->want[i].data);
    }
}

static int open_model(const struct op_case *c, int opset, struct model **ret, struct err *err) {
    char path[] = "/tmp/convoy-op-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    small_model_write(path, opset, c->model);
    int rc = model_open(path, NULL, ret, err);
    unlink(path);
    return rc;
}

static void compare(const struct tensor *got, const struct tensor *want, const char *text) {
    char one[96], other[96];
    size_t count;
    if (!tensor_desc_same(&got->desc, &want->desc))
        fail_msg("%s instead of %s:\n%s", tensor_desc_format(&got->desc, one, sizeof(one)),
                 tensor_desc_format(&want->desc, other, sizeof(other)), text);
    assert_int_equal(tensor_desc_count(&want->desc, &count), 0);
    for (size_t i = 0; i < count; i++) {
        double a = number(got, i), b = number(want, i);
        if (a == b || (isnan(a) && isnan(b)))
            continue;
        if (!(fabs(a - b) <= 1e-5 * fmax(1.0, fabs(b))))
            fail_msg("element %zu: %g instead of %g:\n%s", i, a, b, text);
    }
}

/* Opens and runs; compares unless it fails. What opening or running returns. */
static int run(struct op_case *c, int opset, size_t inputs, const char *text, struct err *err) {
    struct model *model = NULL;
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor out[MODELS_TENSORS_MAX] = {{{0}, NULL}};
    size_t count;
    case_init(c, text, inputs);
    int rc = open_model(c, opset, &model, err);
    if (rc < 0)
        goto done;
    assert_int_equal(stage_new(model, 0, model_layers_count(model), NULL, &stage, err), 0);
    assert_int_equal(exec_new(stage, &exec, err), 0);
    stage_outputs(stage, &count);
    assert_int_equal(count, c->want_count);
    models_room(stage, out);
    rc = exec_run(exec, c->given, out, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        compare(&out[i], &c->want[i], text);
    models_room_free(stage, out);
done:
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
    case_fini(c);
    return rc;
}

static void check(int opset, const char *text, size_t inputs) {
    struct op_case c;
    struct err err = {0};
    if (run(&c, opset, inputs, text, &err) < 0)
        fail_msg("%s:\n%s", err.text, text);
}

void op_case_check(int opset, const char *text) {
    check(opset, text, LINES);
    check(opset, text, 0);
    check(opset, text, 1);
}

void op_case_check_constant(int opset, const char *text) {
    check(opset, text, 0);
}

void op_case_refuse(int opset, const char *text, int code, const char *words) {
    struct op_case c;
    struct err err = {0};
    int rc = run(&c, opset, LINES, text, &err);
    if (rc != code)
        fail_msg("%d instead of %d: %s\n%s", rc, code, err.text, text);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, words);
}
