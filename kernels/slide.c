#include "simd.h"

#define BAND_BYTES (24 * 1024) /* of scratch: less than a first cache of 32 KB */
#define ROWS_MIN   4           /* that are computed together */
#define ALIGN      16          /* of pitches, in elements */
#define NARROW     8           /* planes up to so many columns */

static bool kernel_fits(const struct kn_slide *s, bool sums) {
    if (s->stride != 1 && s->stride != 2)
        return false;
    return sums ? s->kernel == 3 || s->kernel == 5 || s->kernel == 7
                : s->kernel == 2 || s->kernel == 3;
}

/* Elements of scratch for bands of so many rows; loops run on by up to two vectors. */
static ptrdiff_t scratch_elements(const struct kn_slide *s, ptrdiff_t rows) {
    return ((rows - 1) * s->stride + s->kernel) * s->stride * s->pitch + 2 * ALIGN;
}

/* Output rows whose band is not too large. Asked this way round because planes may have so many
 * that the bytes of all of them do not fit 32 bits. */
static ptrdiff_t rows_in_band(const struct kn_slide *s) {
    ptrdiff_t rows = (BAND_BYTES / (ptrdiff_t)sizeof(float) - 2 * ALIGN) / (s->stride * s->pitch);

    return (rows - s->kernel) / s->stride + 1;
}

bool kn_slide_init(struct kn_slide *s, bool sums) {
    ptrdiff_t most = KN_SLIDE_BYTES_MAX / (ptrdiff_t)sizeof(float);

    if (!kernel_fits(s, sums) || s->pad_top < 0 || s->pad_left < 0 || s->pad_top >= s->kernel ||
        s->pad_left >= s->kernel || s->iw > most || s->ow > most)
        return false;
    s->columns = s->ow + (s->kernel - 1) / s->stride;
    ptrdiff_t width = kn_max(s->columns, kn_ceil_div(s->pad_left + s->iw, s->stride));
    s->pitch = kn_ceil_div(width, ALIGN) * ALIGN + (s->stride > 1 ? ALIGN : 0);
    ptrdiff_t fit = rows_in_band(s);
    s->rows = s->oh <= fit ? s->oh : kn_min(kn_max(fit / ROWS_MIN, 1) * ROWS_MIN, s->oh);
    s->bytes = kn_round_up((size_t)scratch_elements(s, s->rows) * sizeof(float), KN_ALIGN);
    s->narrow = s->ow <= NARROW && kn_simd()->lanes > NARROW;
    s->far = s->planes * s->ih * s->iw > KN_FAR_BYTES / (ptrdiff_t)sizeof(float);
    return s->bytes <= KN_SLIDE_BYTES_MAX;
}
