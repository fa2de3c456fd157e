#include "tests/models/networks.h"

#include <errno.h>
#include <stdio.h>

#define NAME_MAX_BYTES 128

/* "prefix.suffix", valid until the end of the caller's block. */
#define JOIN(prefix, suffix) join((char[NAME_MAX_BYTES]){""}, prefix, suffix)

static const char *join(char *buf, const char *prefix, const char *suffix) {
    snprintf(buf, NAME_MAX_BYTES, "%s.%s", prefix, suffix);
    return buf;
}

/* "prefix.number", likewise. */
#define NUMBERED(prefix, number) numbered((char[NAME_MAX_BYTES]){""}, prefix, number)

static const char *numbered(char *buf, const char *prefix, int number) {
    snprintf(buf, NAME_MAX_BYTES, "%s.%d", prefix, number);
    return buf;
}

static struct value *relu(struct builder *b, const char *name, struct value *x) {
    return builder_unary(b, "Relu", name, x);
}

static struct value *max_pool(struct builder *b, const char *name, struct value *x, int kernel,
                              int stride, int pad, bool ceil) {
    return builder_pool(
        b, name, x,
        (struct pool_shape){
            .op = "MaxPool", .kernel = kernel, .stride = stride, .pad = pad, .ceil = ceil});
}

/* Global average, then one dense layer. */
static struct value *classify(struct builder *b, struct value *x, const char *name) {
    x = builder_unary(b, "GlobalAveragePool", "avgpool", x);
    x = builder_flatten(b, "flatten", x);
    return builder_linear(b, name, x, 1000);
}

/* ---- LeNet-5 (LeCun et al. 1998), on 28x28 with two pixels of border, all maps connected ---- */

static struct value *lenet5(struct builder *b) {
    static const struct pool_shape half = {.op = "AveragePool", .kernel = 2, .stride = 2};
    struct value *x = builder_input(b, "input", 1, 28);
    x = builder_conv(
        b, "c1", x, (struct conv_shape){.oc = 6, .kernel = 5, .stride = 1, .pad = 2, .bias = true});
    x = builder_pool(b, "s2", builder_unary(b, "Tanh", "c1.tanh", x), half);
    x = builder_conv(b, "c3", x,
                     (struct conv_shape){.oc = 16, .kernel = 5, .stride = 1, .bias = true});
    x = builder_pool(b, "s4", builder_unary(b, "Tanh", "c3.tanh", x), half);
    x = builder_linear(b, "c5", builder_flatten(b, "flatten", x), 120);
    x = builder_linear(b, "f6", builder_unary(b, "Tanh", "c5.tanh", x), 84);
    return builder_linear(b, "output", builder_unary(b, "Tanh", "f6.tanh", x), 10);
}

/* ---- AlexNet (Krizhevsky 2014, "one weird trick") ---- */

static struct value *alexnet(struct builder *b) {
    static const struct {
        struct conv_shape conv;
        bool pool;
    } layers[] = {
        {{.oc = 64, .kernel = 11, .stride = 4, .pad = 2, .bias = true}, true},
        {{.oc = 192, .kernel = 5, .stride = 1, .pad = 2, .bias = true}, true},
        {{.oc = 384, .kernel = 3, .stride = 1, .pad = 1, .bias = true}, false},
        {{.oc = 256, .kernel = 3, .stride = 1, .pad = 1, .bias = true}, false},
        {{.oc = 256, .kernel = 3, .stride = 1, .pad = 1, .bias = true}, true},
    };
    struct value *x = builder_input(b, "input", 3, 224);
    for (int i = 0; i < (int)(sizeof(layers) / sizeof(layers[0])); i++) {
        const char *name = NUMBERED("conv", i + 1);
        x = relu(b, JOIN(name, "relu"), builder_conv(b, name, x, layers[i].conv));
        if (layers[i].pool)
            x = max_pool(b, JOIN(name, "pool"), x, 3, 2, 0, false);
    }
    x = builder_flatten(b, "flatten", x);
    x = relu(b, "fc6.relu", builder_linear(b, "fc6", x, 4096));
    x = relu(b, "fc7.relu", builder_linear(b, "fc7", x, 4096));
    return builder_linear(b, "fc8", x, 1000);
}

/* ---- VGG-16 (Simonyan, Zisserman 2014), configuration D ---- */

static struct value *vgg16(struct builder *b) {
    static const struct {
        int convs, oc;
    } blocks[] = {{2, 64}, {2, 128}, {3, 256}, {3, 512}, {3, 512}};
    struct value *x = builder_input(b, "input", 3, 224);
    for (int i = 0; i < (int)(sizeof(blocks) / sizeof(blocks[0])); i++) {
        const char *block = NUMBERED("block", i + 1);
        for (int j = 0; j < blocks[i].convs; j++) {
            const char *name = NUMBERED(block, j + 1);
            x = builder_conv(
                b, name, x,
                (struct conv_shape){
                    .oc = blocks[i].oc, .kernel = 3, .stride = 1, .pad = 1, .bias = true});
            x = relu(b, JOIN(name, "relu"), x);
        }
        x = max_pool(b, JOIN(block, "pool"), x, 2, 2, 0, false);
    }
    x = builder_flatten(b, "flatten", x);
    x = relu(b, "fc6.relu", builder_linear(b, "fc6", x, 4096));
    x = relu(b, "fc7.relu", builder_linear(b, "fc7", x, 4096));
    return builder_linear(b, "fc8", x, 1000);
}

/* ---- GoogLeNet (Szegedy et al. 2014) with batch normalisation and 3x3 in place of 5x5, as
 * torchvision has it; without the auxiliary classifiers ---- */

static struct value *conv_bn_relu(struct builder *b, const char *name, struct value *x, int oc,
                                  int kernel, int stride) {
    x = builder_conv(
        b, JOIN(name, "conv"), x,
        (struct conv_shape){.oc = oc, .kernel = kernel, .stride = stride, .pad = kernel / 2});
    return relu(b, JOIN(name, "relu"), builder_batchnorm(b, JOIN(name, "bn"), x, 1e-3F, 1));
}

struct inception {
    const char *name;
    int one, three_reduce, three, five_reduce, five, pool;
};

static struct value *inception(struct builder *b, struct value *x, const struct inception *shape) {
    const char *name = shape->name;
    struct value *parts[4];
    parts[0] = conv_bn_relu(b, JOIN(name, "branch1"), x, shape->one, 1, 1);
    parts[1] = conv_bn_relu(b, JOIN(name, "branch2.0"), x, shape->three_reduce, 1, 1);
    parts[1] = conv_bn_relu(b, JOIN(name, "branch2.1"), parts[1], shape->three, 3, 1);
    parts[2] = conv_bn_relu(b, JOIN(name, "branch3.0"), x, shape->five_reduce, 1, 1);
    parts[2] = conv_bn_relu(b, JOIN(name, "branch3.1"), parts[2], shape->five, 3, 1);
    parts[3] = max_pool(b, JOIN(name, "branch4.pool"), x, 3, 1, 1, true);
    parts[3] = conv_bn_relu(b, JOIN(name, "branch4.1"), parts[3], shape->pool, 1, 1);
    return builder_concat(b, JOIN(name, "concat"), parts, 4);
}

static struct value *googlenet(struct builder *b) {
    static const struct inception blocks[] = {
        {"inception3a", 64, 96, 128, 16, 32, 32},     {"inception3b", 128, 128, 192, 32, 96, 64},
        {"inception4a", 192, 96, 208, 16, 48, 64},    {"inception4b", 160, 112, 224, 24, 64, 64},
        {"inception4c", 128, 128, 256, 24, 64, 64},   {"inception4d", 112, 144, 288, 32, 64, 64},
        {"inception4e", 256, 160, 320, 32, 128, 128}, {"inception5a", 256, 160, 320, 32, 128, 128},
        {"inception5b", 384, 192, 384, 48, 128, 128},
    };
    struct value *x = builder_input(b, "input", 3, 224);
    x = conv_bn_relu(b, "conv1", x, 64, 7, 2);
    x = max_pool(b, "maxpool1", x, 3, 2, 0, true);
    x = conv_bn_relu(b, "conv2", x, 64, 1, 1);
    x = conv_bn_relu(b, "conv3", x, 192, 3, 1);
    x = max_pool(b, "maxpool2", x, 3, 2, 0, true);
    for (int i = 0; i < (int)(sizeof(blocks) / sizeof(blocks[0])); i++) {
        x = inception(b, x, &blocks[i]);
        if (i == 1)
            x = max_pool(b, "maxpool3", x, 3, 2, 0, true);
        if (i == 6)
            x = max_pool(b, "maxpool4", x, 2, 2, 0, true);
    }
    return classify(b, x, "fc");
}

/* ---- ResNet (He et al. 2015); the stride of a bottleneck is in its 3x3 ---- */

#define BN_EPSILON    1e-5F
#define RESIDUAL_GAIN 0.5F /* so that sums of many blocks stay small */

static struct value *conv_bn(struct builder *b, const char *name, int number, struct value *x,
                             struct conv_shape shape, float gain) {
    char conv[NAME_MAX_BYTES], bn[NAME_MAX_BYTES];
    snprintf(conv, sizeof(conv), "%s.conv%d", name, number);
    snprintf(bn, sizeof(bn), "%s.bn%d", name, number);
    return builder_batchnorm(b, bn, builder_conv(b, conv, x, shape), BN_EPSILON, gain);
}

struct block {
    const char *name;
    int oc; /* of the 3x3 */
    int stride;
    int expansion; /* 4: a bottleneck; 1: two 3x3 */
};

static struct value *residual(struct builder *b, struct value *x, const struct block *block) {
    const struct conv_shape three = {
        .oc = block->oc, .kernel = 3, .stride = block->stride, .pad = 1};
    const int out = block->oc * block->expansion;
    const char *name = block->name;
    struct value *shortcut = x, *y = x;
    bool same = x && x->desc.dims[1] == out && block->stride == 1;
    if (block->expansion == 1) {
        y = relu(b, JOIN(name, "relu1"), conv_bn(b, name, 1, y, three, 1));
        y = conv_bn(b, name, 2, y,
                    (struct conv_shape){.oc = out, .kernel = 3, .stride = 1, .pad = 1},
                    RESIDUAL_GAIN);
    } else {
        y = conv_bn(b, name, 1, y, (struct conv_shape){.oc = block->oc, .kernel = 1, .stride = 1},
                    1);
        y = conv_bn(b, name, 2, relu(b, JOIN(name, "relu1"), y), three, 1);
        y = conv_bn(b, name, 3, relu(b, JOIN(name, "relu2"), y),
                    (struct conv_shape){.oc = out, .kernel = 1, .stride = 1}, RESIDUAL_GAIN);
    }
    if (!same)
        shortcut = conv_bn(b, JOIN(name, "downsample"), 0, x,
                           (struct conv_shape){.oc = out, .kernel = 1, .stride = block->stride}, 1);
    return relu(b, JOIN(name, "relu"), builder_binary(b, "Add", JOIN(name, "add"), y, shortcut));
}

static struct value *resnet(struct builder *b, const int blocks[4], int expansion) {
    struct value *x = builder_input(b, "input", 3, 224);
    x = conv_bn(b, "stem", 1, x, (struct conv_shape){.oc = 64, .kernel = 7, .stride = 2, .pad = 3},
                1);
    x = max_pool(b, "maxpool", relu(b, "stem.relu", x), 3, 2, 1, false);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < blocks[i]; j++)
            x = residual(b, x,
                         &(struct block){.name = NUMBERED(NUMBERED("layer", i + 1), j),
                                         .oc = 64 << i,
                                         .stride = i > 0 && j == 0 ? 2 : 1,
                                         .expansion = expansion});
    return classify(b, x, "fc");
}

static struct value *resnet18(struct builder *b) {
    return resnet(b, (const int[4]){2, 2, 2, 2}, 1);
}

static struct value *resnet50(struct builder *b) {
    return resnet(b, (const int[4]){3, 4, 6, 3}, 4);
}

/* ---- MobileNetV2 (Sandler et al. 2018), width 1 ---- */

static struct value *relu6(struct builder *b, const char *name, struct value *x) {
    return builder_clip(b, name, x, 0, 6);
}

static struct value *inverted_residual(struct builder *b, const char *name, struct value *x, int oc,
                                       int stride, int expansion) {
    if (!x)
        return NULL;
    int ic = (int)x->desc.dims[1], inner = ic * expansion;
    struct value *y = x;
    if (expansion > 1)
        y = relu6(
            b, JOIN(name, "relu1"),
            conv_bn(b, name, 1, y, (struct conv_shape){.oc = inner, .kernel = 1, .stride = 1}, 1));
    y = conv_bn(
        b, name, 2, y,
        (struct conv_shape){.oc = inner, .kernel = 3, .stride = stride, .pad = 1, .group = inner},
        1);
    y = conv_bn(b, name, 3, relu6(b, JOIN(name, "relu2"), y),
                (struct conv_shape){.oc = oc, .kernel = 1, .stride = 1}, RESIDUAL_GAIN);
    return stride == 1 && ic == oc ? builder_binary(b, "Add", JOIN(name, "add"), x, y) : y;
}

static struct value *mobilenet_v2(struct builder *b) {
    static const struct {
        int expansion, oc, count, stride;
    } stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                  {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    builder_set_opset(b, 10); /* OpenCV 4.6 takes a Clip without tensors for its bounds only */
    struct value *x = builder_input(b, "input", 3, 224);
    x = conv_bn(b, "stem", 1, x, (struct conv_shape){.oc = 32, .kernel = 3, .stride = 2, .pad = 1},
                1);
    x = relu6(b, "stem.relu", x);
    for (int i = 0; i < (int)(sizeof(stages) / sizeof(stages[0])); i++)
        for (int j = 0; j < stages[i].count; j++)
            x = inverted_residual(b, NUMBERED(NUMBERED("stage", i + 1), j), x, stages[i].oc,
                                  j == 0 ? stages[i].stride : 1, stages[i].expansion);
    x = conv_bn(b, "last", 1, x, (struct conv_shape){.oc = 1280, .kernel = 1, .stride = 1}, 1);
    return classify(b, relu6(b, "last.relu", x), "classifier");
}

/* ---- MobileNetV3-Large (Howard et al. 2019) ---- */

/* What the networks with squeeze-and-excite have in common. */
struct mobile_style {
    struct value *(*act)(struct builder *b, const char *name, struct value *x);
    struct value *(*squeeze_act)(struct builder *b, const char *name, struct value *x);
    struct value *(*gate)(struct builder *b, const char *name, struct value *x);
    float epsilon;
};

/* A block: 1x1, depthwise, squeeze-and-excite, 1x1, sum. */
struct mobile_block {
    const char *name;
    int inner, oc, kernel, stride;
    int squeeze; /* channels between the two dense layers of the gate; 0: no gate */
};

static struct value *hard_swish(struct builder *b, const char *name, struct value *x) {
    return builder_unary(b, "HardSwish", name, x);
}

static struct value *sigmoid(struct builder *b, const char *name, struct value *x) {
    return builder_unary(b, "Sigmoid", name, x);
}

/* As exporters write it: a product. */
static struct value *silu(struct builder *b, const char *name, struct value *x) {
    return builder_binary(b, "Mul", name, x, sigmoid(b, JOIN(name, "sigmoid"), x));
}

static struct value *mobile_conv(struct builder *b, const char *name, struct value *x,
                                 struct conv_shape shape, float epsilon, float gain) {
    x = builder_conv(b, JOIN(name, "conv"), x, shape);
    return builder_batchnorm(b, JOIN(name, "bn"), x, epsilon, gain);
}

static struct value *squeeze_excite(struct builder *b, const char *name, struct value *x,
                                    int squeeze, const struct mobile_style *style) {
    if (!x)
        return NULL;
    const struct conv_shape reduce = {.oc = squeeze, .kernel = 1, .stride = 1, .bias = true};
    const struct conv_shape expand = {
        .oc = (int)x->desc.dims[1], .kernel = 1, .stride = 1, .bias = true};
    struct value *gate = builder_unary(b, "GlobalAveragePool", JOIN(name, "avgpool"), x);
    gate = builder_conv(b, JOIN(name, "fc1"), gate, reduce);
    gate = style->squeeze_act(b, JOIN(name, "act"), gate);
    gate = builder_conv(b, JOIN(name, "fc2"), gate, expand);
    gate = style->gate(b, JOIN(name, "gate"), gate);
    return builder_binary(b, "Mul", JOIN(name, "mul"), x, gate);
}

static struct value *mobile_block(struct builder *b, struct value *x,
                                  const struct mobile_block *block,
                                  const struct mobile_style *style) {
    if (!x)
        return NULL;
    const struct conv_shape expand = {.oc = block->inner, .kernel = 1, .stride = 1};
    const struct conv_shape depthwise = {.oc = block->inner,
                                         .kernel = block->kernel,
                                         .stride = block->stride,
                                         .pad = block->kernel / 2,
                                         .group = block->inner};
    const struct conv_shape project = {.oc = block->oc, .kernel = 1, .stride = 1};
    const char *name = block->name;
    struct value *y = x;
    if (x->desc.dims[1] != block->inner) {
        y = mobile_conv(b, JOIN(name, "expand"), y, expand, style->epsilon, 1);
        y = style->act(b, JOIN(name, "expand.act"), y);
    }
    y = mobile_conv(b, JOIN(name, "depthwise"), y, depthwise, style->epsilon, 1);
    y = style->act(b, JOIN(name, "depthwise.act"), y);
    if (block->squeeze > 0)
        y = squeeze_excite(b, JOIN(name, "se"), y, block->squeeze, style);
    y = mobile_conv(b, JOIN(name, "project"), y, project, style->epsilon, 1);
    bool same = x->desc.dims[1] == block->oc && block->stride == 1;
    return same ? builder_binary(b, "Add", JOIN(name, "add"), y, x) : y;
}

/* channels / 4, rounded to a multiple of 8, but not down by more than a tenth. */
static int quarter(int channels) {
    int rounded = (channels / 4 + 4) / 8 * 8;
    return 10 * rounded < 9 * channels / 4 ? rounded + 8 : rounded;
}

static struct value *mobilenet_v3_large(struct builder *b) {
    static const struct {
        int kernel, inner, oc, stride;
        bool squeeze, hard_swish;
    } blocks[] = {
        {3, 16, 16, 1, false, false}, {3, 64, 24, 2, false, false}, {3, 72, 24, 1, false, false},
        {5, 72, 40, 2, true, false},  {5, 120, 40, 1, true, false}, {5, 120, 40, 1, true, false},
        {3, 240, 80, 2, false, true}, {3, 200, 80, 1, false, true}, {3, 184, 80, 1, false, true},
        {3, 184, 80, 1, false, true}, {3, 480, 112, 1, true, true}, {3, 672, 112, 1, true, true},
        {5, 672, 160, 2, true, true}, {5, 960, 160, 1, true, true}, {5, 960, 160, 1, true, true},
    };
    static const struct mobile_style styles[2] = {{relu, relu, builder_hard_sigmoid, 1e-3F},
                                                  {hard_swish, relu, builder_hard_sigmoid, 1e-3F}};
    static const struct conv_shape stem = {.oc = 16, .kernel = 3, .stride = 2, .pad = 1};
    struct value *x = builder_input(b, "input", 3, 224);
    x = hard_swish(b, "stem.act", mobile_conv(b, "stem", x, stem, 1e-3F, 1));
    for (int i = 0; i < (int)(sizeof(blocks) / sizeof(blocks[0])); i++)
        x = mobile_block(
            b, x,
            &(struct mobile_block){.name = NUMBERED("block", i + 1),
                                   .inner = blocks[i].inner,
                                   .oc = blocks[i].oc,
                                   .kernel = blocks[i].kernel,
                                   .stride = blocks[i].stride,
                                   .squeeze = blocks[i].squeeze ? quarter(blocks[i].inner) : 0},
            &styles[blocks[i].hard_swish]);
    x = mobile_conv(b, "last", x, (struct conv_shape){.oc = 960, .kernel = 1, .stride = 1}, 1e-3F,
                    1);
    x = builder_unary(b, "GlobalAveragePool", "avgpool", hard_swish(b, "last.act", x));
    x = builder_linear(b, "classifier.0", builder_flatten(b, "flatten", x), 1280);
    return builder_linear(b, "classifier.3", hard_swish(b, "classifier.1", x), 1000);
}

/* ---- EfficientNet-B0 (Tan, Le 2019) ---- */

static struct value *efficientnet_b0(struct builder *b) {
    static const struct {
        int expansion, kernel, stride, oc, count;
    } stages[] = {{1, 3, 1, 16, 1},  {6, 3, 2, 24, 2},  {6, 5, 2, 40, 2}, {6, 3, 2, 80, 3},
                  {6, 5, 1, 112, 3}, {6, 5, 2, 192, 4}, {6, 3, 1, 320, 1}};
    static const struct mobile_style style = {silu, silu, sigmoid, BN_EPSILON};
    static const struct conv_shape stem = {.oc = 32, .kernel = 3, .stride = 2, .pad = 1};
    struct value *x = builder_input(b, "input", 3, 224);
    x = silu(b, "stem.act", mobile_conv(b, "stem", x, stem, BN_EPSILON, 1));
    int ic = stem.oc;
    for (int i = 0; i < (int)(sizeof(stages) / sizeof(stages[0])); i++)
        for (int j = 0; j < stages[i].count; j++, ic = stages[i].oc)
            x = mobile_block(b, x,
                             &(struct mobile_block){.name = NUMBERED(NUMBERED("stage", i + 1), j),
                                                    .inner = ic * stages[i].expansion,
                                                    .oc = stages[i].oc,
                                                    .kernel = stages[i].kernel,
                                                    .stride = j == 0 ? stages[i].stride : 1,
                                                    .squeeze = ic / 4},
                             &style);
    x = mobile_conv(b, "last", x, (struct conv_shape){.oc = 1280, .kernel = 1, .stride = 1},
                    BN_EPSILON, 1);
    return classify(b, silu(b, "last.act", x), "classifier");
}

/* ---- ShuffleNetV2, width 1 (Ma et al. 2018) ---- */

static struct value *shuffle_branch(struct builder *b, const char *name, struct value *x, int oc,
                                    int stride, bool reduce) {
    const struct conv_shape one = {.oc = oc, .kernel = 1, .stride = 1};
    if (!x)
        return NULL;
    if (reduce)
        x = relu(b, JOIN(name, "relu1"),
                 mobile_conv(b, JOIN(name, "reduce"), x, one, BN_EPSILON, 1));
    if (!x)
        return NULL;
    int ic = (int)x->desc.dims[1];
    const struct conv_shape depthwise = {
        .oc = ic, .kernel = 3, .stride = stride, .pad = 1, .group = ic};
    x = mobile_conv(b, JOIN(name, "depthwise"), x, depthwise, BN_EPSILON, 1);
    x = mobile_conv(b, JOIN(name, "pointwise"), x, one, BN_EPSILON, 0.8F);
    return relu(b, JOIN(name, "relu2"), x);
}

static struct value *shuffle_block(struct builder *b, const char *name, struct value *x, int oc,
                                   int stride) {
    struct value *parts[2] = {x, x};
    if (stride == 1 && !builder_halve(b, JOIN(name, "split"), x, parts))
        return NULL;
    if (stride > 1)
        parts[0] = shuffle_branch(b, JOIN(name, "branch1"), parts[0], oc / 2, stride, false);
    parts[1] = shuffle_branch(b, JOIN(name, "branch2"), parts[1], oc / 2, stride, true);
    return builder_shuffle(b, JOIN(name, "shuffle"),
                           builder_concat(b, JOIN(name, "concat"), parts, 2), 2);
}

static struct value *shufflenet_v2(struct builder *b) {
    static const struct { int oc, count; } stages[] = {{116, 4}, {232, 8}, {464, 4}};
    static const struct conv_shape stem = {.oc = 24, .kernel = 3, .stride = 2, .pad = 1};
    static const struct conv_shape last = {.oc = 1024, .kernel = 1, .stride = 1};
    struct value *x = builder_input(b, "input", 3, 224);
    x = relu(b, "conv1.relu", mobile_conv(b, "conv1", x, stem, BN_EPSILON, 1));
    x = max_pool(b, "maxpool", x, 3, 2, 1, false);
    for (int i = 0; i < (int)(sizeof(stages) / sizeof(stages[0])); i++)
        for (int j = 0; j < stages[i].count; j++)
            x = shuffle_block(b, NUMBERED(NUMBERED("stage", i + 2), j), x, stages[i].oc,
                              j == 0 ? 2 : 1);
    x = relu(b, "conv5.relu", mobile_conv(b, "conv5", x, last, BN_EPSILON, 1));
    return builder_linear(b, "fc", builder_mean(b, "mean", x), 1000);
}

/* ---- SqueezeNet 1.1 (Iandola et al. 2016) ---- */

static struct value *conv_relu(struct builder *b, const char *name, struct value *x,
                               struct conv_shape shape) {
    shape.bias = true;
    return relu(b, JOIN(name, "relu"), builder_conv(b, name, x, shape));
}

static struct value *fire(struct builder *b, const char *name, struct value *x, int squeeze,
                          int expand) {
    x = conv_relu(b, JOIN(name, "squeeze"), x,
                  (struct conv_shape){.oc = squeeze, .kernel = 1, .stride = 1});
    struct value *parts[2] = {
        conv_relu(b, JOIN(name, "expand1x1"), x,
                  (struct conv_shape){.oc = expand, .kernel = 1, .stride = 1}),
        conv_relu(b, JOIN(name, "expand3x3"), x,
                  (struct conv_shape){.oc = expand, .kernel = 3, .stride = 1, .pad = 1})};
    return builder_concat(b, JOIN(name, "concat"), parts, 2);
}

static struct value *squeezenet1_1(struct builder *b) {
    static const struct {
        int squeeze, expand;
        bool pool; /* before */
    } fires[] = {{16, 64, true},  {16, 64, false},  {32, 128, true},  {32, 128, false},
                 {48, 192, true}, {48, 192, false}, {64, 256, false}, {64, 256, false}};
    struct value *x = builder_input(b, "input", 3, 224);
    x = conv_relu(b, "conv1", x, (struct conv_shape){.oc = 64, .kernel = 3, .stride = 2});
    for (int i = 0; i < (int)(sizeof(fires) / sizeof(fires[0])); i++) {
        const char *name = NUMBERED("fire", i + 2);
        if (fires[i].pool)
            x = max_pool(b, JOIN(name, "pool"), x, 3, 2, 0, true);
        x = fire(b, name, x, fires[i].squeeze, fires[i].expand);
    }
    x = conv_relu(b, "classifier", x, (struct conv_shape){.oc = 1000, .kernel = 1, .stride = 1});
    return builder_flatten(b, "flatten", builder_unary(b, "GlobalAveragePool", "avgpool", x));
}

/* ---- all ---- */

const struct network networks[] = {
    {"lenet5", lenet5, 61706},
    {"alexnet", alexnet, 61100840},
    {"vgg16", vgg16, 138357544},
    {"googlenet", googlenet, 6624904},
    {"resnet18", resnet18, 11689512},
    {"resnet50", resnet50, 25557032},
    {"mobilenet_v2", mobilenet_v2, 3504872},
    {"mobilenet_v3_large", mobilenet_v3_large, 5483032},
    {"efficientnet_b0", efficientnet_b0, 5288548},
    {"shufflenet_v2_x1_0", shufflenet_v2, 2278604},
    {"squeezenet1_1", squeezenet1_1, 1235496},
};
const size_t networks_count = sizeof(networks) / sizeof(networks[0]);

int network_write(const struct network *network, uint64_t seed, const char *path, struct err *err) {
    struct builder *builder = builder_new(seed);
    if (!builder)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    struct value *output = network->build(builder);
    int rc = builder_write(builder, output, path, err);
    builder_free(builder);
    return rc;
}
