/* ONNX's own node tests: what the executor accepts must come out as the standard says. What it
 * refuses is counted.
 * CONVOY_ONNX_DATA is the folder with node, simple, ...; -v as argument lists every refusal.
 */
#include "model/model.h"
#include "onnx.pb-c.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TENSORS_MAX 32
#define PATH_SIZE   1024

/* Cases of scales that do not give a whole number of pixels, with aligned corners: ONNX divides by
 * the length before it was rounded, we by the real one, as other runtimes do. */
static const char *const differing[] = {"test_resize_downsample_scales_cubic_align_corners",
                                        "test_resize_downsample_scales_linear_align_corners"};

static bool verbose;

static const char *data_dir(void) {
    const char *dir = getenv("CONVOY_ONNX_DATA");
    return dir ? dir : "/usr/share/libonnx-testdata/data";
}

static uint8_t *slurp(const char *path, size_t *ret_size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    fclose(file);
    *ret_size = (size_t)size;
    return bytes;
}

static Onnx__TensorProto *read_tensor(const char *folder, const char *which, size_t i) {
    char path[PATH_SIZE];
    size_t size;
    snprintf(path, sizeof(path), "%s/test_data_set_0/%s_%zu.pb", folder, which, i);
    uint8_t *bytes = slurp(path, &size);
    if (!bytes)
        return NULL;
    Onnx__TensorProto *proto = onnx__tensor_proto__unpack(NULL, size, bytes);
    free(bytes);
    return proto;
}

/* The numbers of a tensor in memory of its own; false for types that we do not have. */
static bool to_tensor(const Onnx__TensorProto *proto, struct tensor *ret) {
    size_t bytes, count;
    *ret = (struct tensor){.desc = {.dtype = (enum dtype)proto->data_type}};
    if (proto->n_dims > TENSOR_MAX_RANK)
        return false;
    ret->desc.rank = (int)proto->n_dims;
    for (size_t i = 0; i < proto->n_dims; i++)
        ret->desc.dims[i] = proto->dims[i];
    if (tensor_desc_bytes(&ret->desc, &bytes) < 0 || tensor_desc_count(&ret->desc, &count) < 0)
        return false;
    if (bytes > (size_t)1 << 28)
        return false;
    ret->data = tensor_buffer_new(bytes);
    assert_non_null(ret->data);
    if (bytes == 0 || proto->raw_data.len == bytes) {
        if (bytes > 0)
            memcpy(ret->data, proto->raw_data.data, bytes);
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        if (proto->n_float_data == count)
            ((float *)ret->data)[i] = proto->float_data[i];
        else if (proto->n_int64_data == count)
            ((int64_t *)ret->data)[i] = proto->int64_data[i];
        else if (proto->n_int32_data == count && ret->desc.dtype == DTYPE_INT32)
            ((int32_t *)ret->data)[i] = proto->int32_data[i];
        else if (proto->n_int32_data == count)
            ((char *)ret->data)[i] = (char)proto->int32_data[i];
    }
    return true;
}

static double number(const struct tensor *tensor, size_t i) {
    switch (tensor->desc.dtype) {
    case DTYPE_FLOAT:
        return (double)((const float *)tensor->data)[i];
    case DTYPE_DOUBLE:
        return ((const double *)tensor->data)[i];
    case DTYPE_INT64:
        return (double)((const int64_t *)tensor->data)[i];
    case DTYPE_INT32:
        return (double)((const int32_t *)tensor->data)[i];
    case DTYPE_INT8:
        return (double)((const int8_t *)tensor->data)[i];
    default:
        return (double)((const uint8_t *)tensor->data)[i];
    }
}

/* As ONNX's runner: rtol 1e-3, atol 1e-7. */
static bool same(const struct tensor *got, const struct tensor *wanted) {
    size_t count;
    if (!tensor_desc_same(&got->desc, &wanted->desc) ||
        tensor_desc_count(&wanted->desc, &count) < 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        double a = number(got, i), b = number(wanted, i);
        if (a == b || (isnan(a) && isnan(b)))
            continue;
        if (!(fabs(a - b) <= 1e-7 + 1e-3 * fabs(b)))
            return false;
    }
    return true;
}

struct one_case {
    char folder[PATH_SIZE];
    Onnx__ModelProto *proto;
    Onnx__TensorProto *inputs[TENSORS_MAX];
    size_t inputs_count;
    struct err err;
};

/* Writes the model with inputs [from, ...) as constants. */
static void write_variant(const struct one_case *c, size_t from, const char *path) {
    Onnx__GraphProto *graph = c->proto->graph;
    Onnx__TensorProto **old = graph->initializer, *all[TENSORS_MAX * 4];
    size_t old_count = graph->n_initializer, count = 0;
    for (; count < old_count && count < TENSORS_MAX; count++)
        all[count] = old[count];
    char *names[TENSORS_MAX];
    for (size_t i = from; i < c->inputs_count; i++) {
        names[i] = c->inputs[i]->name;
        c->inputs[i]->name = graph->input[i]->name;
        all[count++] = c->inputs[i];
    }
    graph->initializer = all;
    graph->n_initializer = count;
    size_t size = onnx__model_proto__get_packed_size(c->proto);
    uint8_t *bytes = malloc(size + 1);
    assert_non_null(bytes);
    onnx__model_proto__pack(c->proto, bytes);
    unlink(path); /* a new file: truncating one waits for the disk */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
    for (size_t i = from; i < c->inputs_count; i++)
        c->inputs[i]->name = names[i];
    graph->initializer = old;
    graph->n_initializer = old_count;
}

/* Runs the whole model on the case's inputs and compares. */
static bool run_case(struct one_case *c, struct model *model) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor in[TENSORS_MAX] = {{{0}, NULL}}, out[TENSORS_MAX] = {{{0}, NULL}};
    size_t in_count, out_count, bytes;
    bool good = false;
    if (stage_new(model, 0, model_layers_count(model), NULL, &stage, &c->err) < 0 ||
        exec_new(stage, &exec, &c->err) < 0)
        goto done;
    const struct tensor_desc *ins = stage_inputs(stage, &in_count);
    const struct tensor_desc *outs = stage_outputs(stage, &out_count);
    for (size_t i = 0; i < in_count; i++) {
        assert_true(to_tensor(c->inputs[i], &in[i]));
        if (!tensor_desc_same(&in[i].desc, &ins[i])) {
            err_set(&c->err, -EINVAL, "input has another shape");
            goto done;
        }
    }
    for (size_t i = 0; i < out_count; i++)
        if (stage_output_source(stage, i) < 0) {
            assert_int_equal(tensor_desc_bytes(&outs[i], &bytes), 0);
            out[i].data = tensor_buffer_new(bytes);
            memset(out[i].data, 0xff, bytes);
        }
    if (exec_run(exec, in, out, &c->err) < 0)
        goto done;
    good = true;
    for (size_t i = 0; i < out_count; i++) {
        struct tensor wanted = {{0}, NULL};
        Onnx__TensorProto *proto = read_tensor(c->folder, "output", i);
        if (!proto || !to_tensor(proto, &wanted) || !same(&out[i], &wanted)) {
            char a[96], b[96];
            good = false;
            err_set(&c->err, -EINVAL, "output %zu: %s instead of %s", i,
                    tensor_desc_format(&out[i].desc, a, sizeof(a)),
                    tensor_desc_format(&wanted.desc, b, sizeof(b)));
        }
        tensor_buffer_free(wanted.data);
        if (proto)
            onnx__tensor_proto__free_unpacked(proto, NULL);
    }
done:
    for (size_t i = 0; i < TENSORS_MAX; i++) {
        if (stage && i < out_count && stage_output_source(stage, i) < 0)
            tensor_buffer_free(out[i].data);
        tensor_buffer_free(in[i].data);
    }
    exec_free(exec);
    stage_unref(stage);
    return good;
}

enum outcome { PASSED, FAILED, REFUSED };

static enum outcome try_case(struct one_case *c) {
    char path[] = "/tmp/convoy-node-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    enum outcome outcome = REFUSED;
    /* First with all inputs given when it runs, then with all but the first known at load, then
     * with all of them known. */
    size_t known_from[] = {c->inputs_count, 1, 0};
    for (size_t i = 0; i < 3 && outcome == REFUSED; i++) {
        struct model *model = NULL;
        write_variant(c, known_from[i], path);
        struct err err = {0};
        if (model_open(path, NULL, &model, &err) < 0) {
            if (i == 0 || strstr(c->err.text, "must be known"))
                c->err = err;
            continue;
        }
        outcome = run_case(c, model) ? PASSED : FAILED;
        model_unref(model);
    }
    unlink(path);
    return outcome;
}

static bool load_case(struct one_case *c) {
    char path[PATH_SIZE + 16];
    size_t size;
    snprintf(path, sizeof(path), "%s/model.onnx", c->folder);
    uint8_t *bytes = slurp(path, &size);
    if (!bytes)
        return false;
    c->proto = onnx__model_proto__unpack(NULL, size, bytes);
    free(bytes);
    if (!c->proto || !c->proto->graph || c->proto->graph->n_input > TENSORS_MAX)
        return false;
    struct tensor tensor;
    for (size_t i = 0; i < c->proto->graph->n_input; i++) {
        c->inputs[i] = read_tensor(c->folder, "input", i);
        if (!c->inputs[i])
            break;
        if (!to_tensor(c->inputs[i], &tensor)) {
            onnx__tensor_proto__free_unpacked(c->inputs[i], NULL);
            err_set(&c->err, -ENOTSUP, "input %zu has an unsupported type", i);
            return false;
        }
        tensor_buffer_free(tensor.data);
        c->inputs_count++;
    }
    return true;
}

static bool differs(const char *name) {
    for (size_t i = 0; i < sizeof(differing) / sizeof(differing[0]); i++)
        if (strcmp(differing[i], name) == 0)
            return true;
    return false;
}

static void node_cases_match_the_standard(void **state) {
    const char *suite = *state;
    char root[PATH_SIZE / 2];
    size_t counts[3] = {0};
    snprintf(root, sizeof(root), "%s/%s", data_dir(), suite);
    struct dirent **names = NULL;
    int count = scandir(root, &names, NULL, alphasort);
    if (count < 0)
        skip();
    for (int i = 0; i < count; i++) {
        static struct one_case c;
        memset(&c, 0, sizeof(c));
        snprintf(c.folder, sizeof(c.folder), "%s/%s", root, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            enum outcome outcome =
                !differs(names[i]->d_name) && load_case(&c) ? try_case(&c) : REFUSED;
            counts[outcome]++;
            if (outcome == FAILED || (verbose && outcome == REFUSED))
                print_message("%s %s: %s\n", outcome == FAILED ? "FAILED" : "refused",
                              names[i]->d_name, c.err.text);
        }
        for (size_t k = 0; k < c.inputs_count; k++)
            onnx__tensor_proto__free_unpacked(c.inputs[k], NULL);
        if (c.proto)
            onnx__model_proto__free_unpacked(c.proto, NULL);
        free(names[i]);
    }
    free(names);
    print_message("%s: %zu passed, %zu failed, %zu refused\n", suite, counts[PASSED],
                  counts[FAILED], counts[REFUSED]);
    assert_int_equal(counts[FAILED], 0);
}

int main(int argc, char **argv) {
    static char node[] = "node", simple[] = "simple", converted[] = "pytorch-converted",
                operators[] = "pytorch-operator";
    verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(node_cases_match_the_standard, node),
        cmocka_unit_test_prestate(node_cases_match_the_standard, simple),
        cmocka_unit_test_prestate(node_cases_match_the_standard, converted),
        cmocka_unit_test_prestate(node_cases_match_the_standard, operators),
    };
    return cmocka_run_group_tests_name("ONNX's node tests", tests, NULL, NULL);
}
