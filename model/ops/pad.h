/* What a Pad node does: passes.c looks into it, to move pads into a convolution. */
#ifndef CONVOY_MODEL_OPS_PAD_H
#define CONVOY_MODEL_OPS_PAD_H

#include "model/fold.h"
#include "model/ops/kinds.h"

struct pad_plan {
    enum kn_pad_mode mode;
    struct kn_shape shape; /* of the input */
    int64_t begin[KN_MAX_RANK], end[KN_MAX_RANK];
    bool known;             /* value is; else it is input 2 when it runs */
    unsigned char value[8]; /* one element */
};

#endif
