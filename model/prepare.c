#include "model/prepare.h"

#include "model/affine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PLANNED_BYTES_MAX (64U << 10U) /* larger constants are no shapes, axes or bounds */

static int ask_size(const struct layer *layer, int threads, struct op_prep *ret, struct err *err) {
    *ret = (struct op_prep){.node = layer->main,
                            .plan = layer->plan,
                            .threads = threads,
                            .act = layer->act,
                            .residual = layer->residual != NULL,
                            .affine = layer->affine_count > 0};
    int rc = layer->op->kind->size && !layer->view ? layer->op->kind->size(ret) : 0;
    return rc < 0 ? err_set(err, rc, "layer '%s': its weights cannot be prepared", layer->info.name)
                  : 0;
}

/* Whether run() reads the constant input i itself, or plan(), in each frame. */
static bool is_direct(const struct layer *layer, const struct op_prep *prep, size_t i) {
    const struct value *value = layer->in[i];
    if (!value || !value->constant)
        return false;
    return !(i < 32 && (prep->absorbed >> i & 1U)) ||
           (layer->dynamic && value->constant->bytes <= PLANNED_BYTES_MAX);
}

static size_t direct_bytes(const struct layer *layer, const struct op_prep *prep) {
    size_t bytes = 0;
    for (size_t i = 0; i < layer->in_count; i++)
        if (is_direct(layer, prep, i))
            bytes += layer->in[i]->constant->bytes;
    return bytes;
}

int prepare_bytes(const struct layer *layer, uint64_t *ret, struct err *err) {
    struct op_prep prep;
    int rc = ask_size(layer, 1, &prep, err);
    if (rc == 0)
        *ret = (uint64_t)prep.bytes + direct_bytes(layer, &prep);
    return rc;
}

static void prepared_free(struct prepared *prepared, size_t in_count) {
    if (!prepared)
        return;
    for (size_t i = 0; prepared->constants && i < in_count; i++)
        tensor_buffer_free(prepared->constants[i].data);
    free(prepared->constants);
    tensor_buffer_free(prepared->packed);
    free(prepared);
}

static int copy_constants(const struct model *model, const struct layer *layer,
                          const struct op_prep *prep, const struct constant *const *numbers,
                          struct prepared *prepared) {
    for (size_t i = 0; i < layer->in_count; i++) {
        if (!numbers[i])
            continue;
        prepared->constants[i].desc = numbers[i]->desc;
        if (!is_direct(layer, prep, i))
            continue;
        prepared->constants[i].data = tensor_buffer_new_lasting(numbers[i]->bytes);
        if (!prepared->constants[i].data)
            return -ENOMEM;
        graph_copy_constant(model->graph, numbers[i], prepared->constants[i].data);
    }
    return 0;
}

/* Room for what pack() writes, and scale and shift where the layer has them, in *ret_scale: to be
 * freed. */
static int make_room(const struct model *model, const struct layer *layer, struct op_prep *prep,
                     struct prepared *prepared, double **ret_scale, struct err *err) {
    if (prep->bytes == 0)
        return 0;
    prepared->packed = tensor_buffer_new_lasting(prep->bytes);
    if (!prepared->packed)
        return -ENOMEM;
    prep->data = prepared->packed;
    if (!prep->affine)
        return 0;
    size_t channels = (size_t)layer->out[0]->desc.dims[affine_axis(layer)];
    double *scale = *ret_scale = calloc(2 * channels + 1, sizeof(*scale));
    if (!scale)
        return -ENOMEM;
    prep->scale = scale;
    prep->shift = scale + channels;
    return affine_numbers(model, layer, channels, scale, scale + channels, err);
}

/* Whether a number that pack() reads is the fold's: another thread's fold_drop() would free it. */
static bool reads_computed(const struct layer *layer, const struct constant *const *numbers) {
    for (size_t i = 0; i < layer->in_count; i++)
        if (numbers[i] && layer->in[i]->producer)
            return true;
    return false;
}

/* Everything of one layer; numbers has room for its inputs. Holds the fold's lock where it is
 * needed only: layers are packed by several threads at once. */
static int fill(struct model *model, const struct layer *layer, const struct constant **numbers,
                struct prepared *prepared, struct err *err) {
    struct op_prep prep;
    double *scale = NULL;
    int rc = ask_size(layer, prepared->threads, &prep, err);
    fold_lock(model->fold);
    for (size_t i = 0; rc == 0 && i < layer->in_count; i++)
        if (layer->in[i] && layer->in[i]->constant)
            rc = fold_numbers(model->fold, layer->in[i], &numbers[i], err);
    if (rc == 0)
        rc = copy_constants(model, layer, &prep, numbers, prepared);
    if (rc == 0)
        rc = make_room(model, layer, &prep, prepared, &scale, err);
    prep.numbers = numbers;
    prep.graph = model->graph;
    bool keeps_lock = reads_computed(layer, numbers);
    if (!keeps_lock) {
        fold_drop(model->fold);
        fold_unlock(model->fold);
    }
    if (rc == 0 && prep.bytes > 0)
        rc = layer->op->kind->pack(&prep);
    if (keeps_lock) {
        fold_drop(model->fold);
        fold_unlock(model->fold);
    }
    free(scale);
    if (rc < 0)
        return rc;
    prepared->bytes = prep.bytes + direct_bytes(layer, &prep);
    prepared->workspace_bytes = prep.workspace_bytes;
    for (size_t i = 0; i < layer->in_count; i++)
        if (numbers[i] && numbers[i]->in_file)
            graph_drop_pages(model->graph, numbers[i]);
    return 0;
}

static int make(struct model *model, const struct layer *layer, int threads, struct prepared **ret,
                struct err *err) {
    const struct constant **numbers = calloc(layer->in_count + 1, sizeof(*numbers));
    struct prepared *prepared = calloc(1, sizeof(*prepared));
    int rc = numbers && prepared ? 0 : -ENOMEM;
    if (rc == 0) {
        prepared->threads = threads;
        prepared->constants = calloc(layer->in_count + 1, sizeof(*prepared->constants));
        rc = prepared->constants ? 0 : -ENOMEM;
    }
    if (rc == 0)
        rc = fill(model, layer, numbers, prepared, err);
    free(numbers);
    if (rc < 0) {
        prepared_free(prepared, layer->in_count);
        return rc == -ENOMEM
                   ? err_set(err, rc, "no memory for the weights of layer '%s'", layer->info.name)
                   : rc;
    }
    *ret = prepared;
    return 0;
}

/* What is prepared already, with one more reference; or NULL. Under the model's lock. */
static struct prepared *find(struct model *model, const struct layer *layer, int threads) {
    struct prepared *prepared = model->prepared[layer->index];
    while (prepared && prepared->threads != threads)
        prepared = prepared->next;
    if (prepared)
        prepared->refs++;
    return prepared;
}

int prepare_get(struct model *model, const struct layer *layer, int threads, struct prepared **ret,
                struct err *err) {
    struct prepared *made = NULL;
    pthread_mutex_lock(&model->lock);
    struct prepared *prepared = find(model, layer, threads);
    pthread_mutex_unlock(&model->lock);
    if (!prepared) {
        int rc = make(model, layer, threads, &made, err);
        if (rc < 0)
            return rc;
        pthread_mutex_lock(&model->lock);
        prepared = find(model, layer, threads); /* another thread may have been faster */
        if (!prepared) {
            prepared = made;
            prepared->refs = 1;
            prepared->next = model->prepared[layer->index];
            model->prepared[layer->index] = prepared;
            made = NULL;
        }
        pthread_mutex_unlock(&model->lock);
    }
    prepared_free(made, layer->in_count);
    *ret = prepared;
    return 0;
}

void prepare_put(struct model *model, const struct layer *layer, struct prepared *prepared) {
    if (!prepared)
        return;
    pthread_mutex_lock(&model->lock);
    if (--prepared->refs == 0) {
        struct prepared **at = &model->prepared[layer->index];
        while (*at != prepared)
            at = &(*at)->next;
        *at = prepared->next;
        prepared_free(prepared, layer->in_count);
    }
    pthread_mutex_unlock(&model->lock);
}
