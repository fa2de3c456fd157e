/* Multiplying by and adding one constant per channel: BatchNormalization, and Add, Sub, Mul, Div as
 * exporters write them. Folded into the weights of the operator before (passes.c finds them,
 * prepare.c makes the numbers). */
#ifndef CONVOY_MODEL_AFFINE_H
#define CONVOY_MODEL_AFFINE_H

#include "model/net.h"

/* Whether node changes x per channel of axis and by constants alone; structure only. */
bool affine_matches(const struct model *model, const struct node *node, const struct value *x,
                    int axis);

/* The constant-free operand of a node that matches for some axis: 1 for channels, or NULL. */
struct value *affine_operand(const struct model *model, const struct node *node, int axis);

/* The axis of a layer's channels: 1, or the last for matrix products. */
int affine_axis(const struct layer *layer);

/* scale and shift [channels] of all of the layer's affine nodes, one after the other. Under
 * fold_lock(). */
int affine_numbers(const struct model *model, const struct layer *layer, size_t channels,
                   double *scale, double *shift, struct err *err);

/* An operator that is nothing else: in[0] times scale plus shift, then act. */
extern const struct op affine_op;
/* Its plan for a tensor. NULL: no memory. */
void *affine_plan_new(struct graph *graph, const struct tensor_desc *x);

#endif
