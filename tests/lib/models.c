#include "tests/lib/models.h"

#include "onnx.pb-c.h"
#include "tests/lib/npy_read.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct models_entry models_all[] = {
    {"mnist-8.onnx", false, NULL, 0, 1, 0.0},
    {"fmnist_resnet.onnx", false, NULL, 0, 1, 0.0},
    {"fmnist_vgg.onnx", false, NULL, 0, 1, 0.0},
    {"fmnist_resnet_nofold.onnx", false, NULL, 0, 1, 0.0},
    {"fmnist_vgg_nofold.onnx", false, NULL, 0, 1, 0.0},
    {"squeezenet1.1.onnx", false, NULL, 0, 1, 0.0},
    {"mobilenet_v1_1.0_224.onnx", false, NULL, 0, 1, 0.0},
    {"mobilenet_v2_dequant.onnx", false, NULL, 0, 1, 0.0},
    {"resnet20_cifar10.onnx", false, NULL, 0, 1, 0.0},
    {"ultraface-rfb320.onnx", false, NULL, 0, 2, 0.0},
    {"fastestdet.onnx", false, NULL, 0, 1, 0.0},
    {"deeplabv3_257.onnx", false, NULL, 0, 1, 0.0},
    {"ppocr_v4_det.onnx", false, "*", 320, 1, 1.0},
    {"light/light_squeezenet.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_shufflenet.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_densenet121.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_inception_v1.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_inception_v2.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_resnet50.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_bvlc_alexnet.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_zfnet512.onnx", true, NULL, 0, 1, 0.0},
    {"light/light_vgg19.onnx", true, NULL, 0, 1, 0.0},
    {NULL, false, NULL, 0, 0, 0.0},
};

const char *models_dir(void) {
    const char *dir = getenv("CONVOY_MODELS");
    return dir ? dir : "../shared/models";
}

bool models_path(const char *file, char *buf, size_t size) {
    snprintf(buf, size, "%s/%s", models_dir(), file);
    FILE *there = fopen(buf, "rb");
    if (there)
        fclose(there);
    return there != NULL;
}

struct model *models_open(const struct models_entry *entry) {
    char path[1024];
    struct model *model = NULL;
    struct err err = {0};
    if (!models_path(entry->file, path, sizeof(path)))
        return NULL;
    struct model_dim dims[] = {{"p2o.DynamicDimension.0", 1}, {entry->dim, entry->dim_value}};
    struct model_options options = {.dims = dims, .dims_count = entry->dim ? 2 : 0};
    int rc = model_open(path, &options, &model, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    return model;
}

/* "x.onnx" -> "<dir>/x<suffix>" */
static void beside(const struct models_entry *entry, const char *suffix, char *buf, size_t size) {
    size_t len = strlen(entry->file) - strlen(".onnx");
    snprintf(buf, size, "%s/%.*s%s", models_dir(), (int)len, entry->file, suffix);
}

struct tensor models_input(const struct models_entry *entry, const struct model *model) {
    char path[1024];
    struct tensor tensor = {0};
    size_t count, n;
    const struct tensor_desc *inputs = model_cut(model, 0, &count);
    assert_int_equal(count, 1);
    if (!entry->light) {
        beside(entry, ".in.npy", path, sizeof(path));
        assert_int_equal(npy_read(path, &tensor), 0);
        tensor.desc.name = inputs[0].name;
        return tensor;
    }
    assert_int_equal(tensor_desc_count(&inputs[0], &n), 0);
    tensor.desc = inputs[0];
    float *data = tensor.data = tensor_buffer_new(n * sizeof(float));
    assert_non_null(data);
    for (size_t i = 0; i < n; i++)
        data[i] = (float)((double)i / (double)n);
    return tensor;
}

struct tensor models_output(const struct models_entry *entry, size_t i) {
    char path[1024], suffix[64];
    struct tensor tensor = {0};
    snprintf(suffix, sizeof(suffix), entry->light ? "_output_%zu.pb" : ".out%zu.npy", i);
    beside(entry, suffix, path, sizeof(path));
    assert_int_equal(entry->light ? models_read_pb(path, &tensor) : npy_read(path, &tensor), 0);
    return tensor;
}

void models_room(const struct stage *stage, struct tensor *outputs) {
    size_t count, bytes;
    const struct tensor_desc *descs = stage_outputs(stage, &count);
    assert_true(count <= MODELS_TENSORS_MAX);
    for (size_t i = 0; i < count; i++) {
        outputs[i] = (struct tensor){.desc = descs[i]};
        if (stage_output_source(stage, i) >= 0)
            continue;
        assert_int_equal(tensor_desc_bytes(&descs[i], &bytes), 0);
        outputs[i].data = tensor_buffer_new(bytes);
        assert_non_null(outputs[i].data);
        memset(outputs[i].data, 0xff, bytes);
    }
}

void models_room_free(const struct stage *stage, struct tensor *outputs) {
    size_t count;
    stage_outputs(stage, &count);
    for (size_t i = 0; i < count; i++)
        if (stage_output_source(stage, i) < 0)
            tensor_buffer_free(outputs[i].data);
}

double models_difference(const struct tensor *got, const struct tensor *wanted, double range) {
    size_t a, b;
    if (tensor_desc_count(&got->desc, &a) < 0 || tensor_desc_count(&wanted->desc, &b) < 0 ||
        a != b || got->desc.dtype != DTYPE_FLOAT || wanted->desc.dtype != DTYPE_FLOAT)
        return INFINITY;
    double largest = range, worst = 0.0;
    const float *x = got->data, *y = wanted->data;
    for (size_t i = 0; i < a; i++) {
        double difference = fabs((double)x[i] - (double)y[i]);
        if (!(difference <= worst))
            worst = isnan(difference) ? INFINITY : difference;
        if (fabs((double)y[i]) > largest)
            largest = fabs((double)y[i]);
    }
    return worst / (largest > 0.0 ? largest : 1.0);
}

int models_read_pb(const char *path, struct tensor *ret) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return -errno;
    static uint8_t bytes[1 << 22];
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    Onnx__TensorProto *proto = onnx__tensor_proto__unpack(NULL, size, bytes);
    if (!proto)
        return -EBADMSG;
    struct tensor tensor = {.desc = {.dtype = DTYPE_FLOAT, .rank = (int)proto->n_dims}};
    for (size_t i = 0; i < proto->n_dims; i++)
        tensor.desc.dims[i] = proto->dims[i];
    size_t need;
    int rc = tensor_desc_bytes(&tensor.desc, &need);
    tensor.data = rc == 0 ? tensor_buffer_new(need) : NULL;
    if (!tensor.data)
        rc = -ENOMEM;
    else if (proto->raw_data.len == need)
        memcpy(tensor.data, proto->raw_data.data, need);
    else if (proto->n_float_data * sizeof(float) == need)
        memcpy(tensor.data, proto->float_data, need);
    else
        rc = -EBADMSG;
    onnx__tensor_proto__free_unpacked(proto, NULL);
    if (rc < 0)
        tensor_buffer_free(tensor.data);
    else
        *ret = tensor;
    return rc;
}
