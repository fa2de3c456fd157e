/* NonMaxSuppression: greedy, one class of one picture after the other. */
#include <math.h>

#include "internal.h"

struct box {
    float x0, y0, x1, y1, area;
};

/* Boxes by index, the best score first; of equal scores the one in front. */
struct queue {
    const float *scores;
    int32_t *order;
    int32_t count;
};

static bool is_better(const struct queue *q, int32_t i, int32_t j) {
    float a = q->scores[q->order[i]], b = q->scores[q->order[j]];

    return a > b || (a == b && q->order[i] < q->order[j]);
}

static void sift_down(struct queue *q, int32_t i) {
    for (;;) {
        int32_t best = i, left = 2 * i + 1;
        if (left < q->count && is_better(q, left, best))
            best = left;
        if (left + 1 < q->count && is_better(q, left + 1, best))
            best = left + 1;
        if (best == i)
            return;
        int32_t swapped = q->order[i];
        q->order[i] = q->order[best];
        q->order[best] = swapped;
        i = best;
    }
}

/* Everything over the threshold; a score that is NaN is none. */
static void queue_fill(struct queue *q, const struct kn_nms *nms) {
    q->count = 0;
    for (int32_t i = 0; i < nms->boxes; i++)
        if (nms->has_score ? q->scores[i] > nms->score : !isnan(q->scores[i]))
            q->order[q->count++] = i;
    for (int32_t i = q->count / 2; i-- > 0;)
        sift_down(q, i);
}

static int32_t queue_pop(struct queue *q) {
    int32_t best = q->order[0];

    q->order[0] = q->order[--q->count];
    sift_down(q, 0);
    return best;
}

/* Corners in any order: [y, x, y, x]; or centre and size: [x, y, w, h]. */
static struct box read_box(const struct kn_nms *nms, const float *b) {
    struct box box;

    if (nms->center)
        box = (struct box){.x0 = b[0] - b[2] / 2.0f,
                           .y0 = b[1] - b[3] / 2.0f,
                           .x1 = b[0] + b[2] / 2.0f,
                           .y1 = b[1] + b[3] / 2.0f};
    else
        box = (struct box){.x0 = fminf(b[1], b[3]),
                           .y0 = fminf(b[0], b[2]),
                           .x1 = fmaxf(b[1], b[3]),
                           .y1 = fmaxf(b[0], b[2])};
    box.area = (box.x1 - box.x0) * (box.y1 - box.y0);
    return box;
}

static bool overlaps(const struct box *a, const struct box *b, float iou) {
    float w = fminf(a->x1, b->x1) - fmaxf(a->x0, b->x0);
    float h = fminf(a->y1, b->y1) - fmaxf(a->y0, b->y0);

    if (!(w > 0.0f) || !(h > 0.0f) || !(a->area > 0.0f) || !(b->area > 0.0f))
        return false;
    return w * h / (a->area + b->area - w * h) > iou;
}

size_t kn_nms_scratch(const struct kn_nms *nms) {
    size_t most = (size_t)kn_min(nms->boxes, (ptrdiff_t)nms->most);

    return kn_round_up((size_t)nms->boxes * sizeof(int32_t), KN_ALIGN) + most * sizeof(struct box);
}

/* One class: writes the boxes that are kept, at most nms->most. */
static size_t select_boxes(const struct kn_nms *nms, const float *boxes, struct queue *q,
                           struct box *kept, int64_t batch, int64_t class, int64_t *y) {
    size_t count = 0;

    queue_fill(q, nms);
    while (q->count > 0 && count < (size_t)nms->most) {
        int32_t i = queue_pop(q);
        struct box box = read_box(nms, boxes + 4 * (ptrdiff_t)i);
        bool keep = true;
        for (size_t k = 0; keep && k < count; k++)
            keep = !overlaps(&box, &kept[k], nms->iou);
        if (!keep)
            continue;
        kept[count] = box;
        y[3 * count] = batch;
        y[3 * count + 1] = class;
        y[3 * count + 2] = i;
        count++;
    }
    return count;
}

size_t kn_nms(const struct kn_nms *nms, const float *boxes, const float *scores, int64_t *y,
              void *scratch) {
    size_t order_bytes = kn_round_up((size_t)nms->boxes * sizeof(int32_t), KN_ALIGN), found = 0;
    struct queue q = {.order = scratch};

    for (ptrdiff_t b = 0; b < nms->batches; b++)
        for (ptrdiff_t c = 0; c < nms->classes; c++) {
            q.scores = scores + (b * nms->classes + c) * nms->boxes;
            found +=
                select_boxes(nms, boxes + b * nms->boxes * 4, &q,
                             (struct box *)((char *)scratch + order_bytes), b, c, y + 3 * found);
        }
    return found;
}
