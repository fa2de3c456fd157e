/* Shapes that depend on data: which dimensions of a node's outputs do, and the bounds of numbers
 * that are computed from shapes. Used while a model is loaded (infer.c). */
#ifndef CONVOY_MODEL_BOUNDS_H
#define CONVOY_MODEL_BOUNDS_H

#include "model/net.h"

/* The node has been planned by call for the most that its inputs can be; plans it again for the
 * least, and marks the outputs' dimensions that differ as bounded. -ENOTSUP where they shrink when
 * the inputs grow, or their number changes: there is no bound then. */
int bounds_mark(const struct op_call *call);

/* Computes the least and the most that the numbers of the node's outputs can be, when it reads
 * constants, shapes and bounded numbers alone, and grows with each. Otherwise does nothing. */
int bounds_compute(struct model *model, const struct node *node, struct err *err);

#endif
