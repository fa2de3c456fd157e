/* Activations that exporters write as several operators. */
#ifndef CONVOY_MODEL_COMPOSED_H
#define CONVOY_MODEL_COMPOSED_H

#include "model/net.h"

/* When the layer is the last operator of such an activation: *ret_act and *ret_x are the function
 * and its argument, and the layers that it is made of, this one among them, are put into ret_parts.
 * Every value between them has no other use. Returns how many parts, or 0. */
#define COMPOSED_PARTS_MAX 6
size_t composed_match(struct model *model, struct layer *last, struct kn_activation *ret_act,
                      struct value **ret_x, struct layer *ret_parts[COMPOSED_PARTS_MAX]);

#endif
