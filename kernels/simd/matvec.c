/* Products of a matrix and a vector. They read every element of the matrix once, along memory, and
 * sum in an order that depends on the sizes alone. */
#include "functions.h"

#define ROWS  8   /* multiplied side by side: so many streams keep memory busy */
#define AHEAD 512 /* elements: what is asked for meanwhile, for the second cache */

void KN_SIMD(kn_matvec_rows)(const struct kn_matvec *m) {
    for (ptrdiff_t r = 0; r < m->rows; r += ROWS) {
        const float *row[ROWS];
        vf sums[ROWS] = {0};
        ptrdiff_t k = 0;

        for (ptrdiff_t i = 0; i < ROWS; i++)
            row[i] = m->a + kn_min(r + i, m->rows - 1) * m->ld;
        for (; k + VF_LANES <= m->depth; k += VF_LANES) {
            vf x = vf_load(m->x + k);
            ptrdiff_t next = k + AHEAD < m->depth ? k + AHEAD : ROWS * m->ld + k + AHEAD - m->depth;
            for (int i = 0; i < ROWS; i++) {
                sums[i] = vf_fma(vf_load(row[i] + k), x, sums[i]);
                if (k % VF_LINE == 0)
                    __builtin_prefetch(row[i] + next, 0, 2);
            }
        }
        for (ptrdiff_t i = 0; i < ROWS && r + i < m->rows; i++) {
            float sum = vf_sum(sums[i]);
            for (ptrdiff_t j = k; j < m->depth; j++)
                sum += row[i][j] * m->x[j];
            m->y[r + i] += m->alpha * sum;
        }
    }
}

#define COLUMNS 4    /* added side by side */
#define CHUNK   1024 /* sums that stay in the first cache */

static void add_four(const float *a, ptrdiff_t ld, const float *x, float *sum, ptrdiff_t count) {
    const float *b = a + ld, *c = b + ld, *d = c + ld;
    vf x0 = vf_set(x[0]), x1 = vf_set(x[1]), x2 = vf_set(x[2]), x3 = vf_set(x[3]);

    for (ptrdiff_t i = 0; i < count; i += VF_LANES) {
        ptrdiff_t n = kn_min(VF_LANES, count - i);
        vf s = vf_load(sum + i);
        s = vf_fma(x0, vf_load_n(a + i, n), s);
        s = vf_fma(x1, vf_load_n(b + i, n), s);
        s = vf_fma(x2, vf_load_n(c + i, n), s);
        s = vf_fma(x3, vf_load_n(d + i, n), s);
        vf_store(sum + i, s);
    }
}

static void add_one(const float *a, float x, float *sum, ptrdiff_t count) {
    vf x0 = vf_set(x);

    for (ptrdiff_t i = 0; i < count; i += VF_LANES) {
        ptrdiff_t n = kn_min(VF_LANES, count - i);
        vf_store(sum + i, vf_fma(x0, vf_load_n(a + i, n), vf_load(sum + i)));
    }
}

void KN_SIMD(kn_matvec_columns)(const struct kn_matvec *m) {
    for (ptrdiff_t r = 0; r < m->rows; r += CHUNK) {
        float sum[CHUNK] = {0};
        ptrdiff_t count = kn_min(CHUNK, m->rows - r), k = 0;

        for (; k + COLUMNS <= m->depth; k += COLUMNS)
            add_four(m->a + k * m->ld + r, m->ld, m->x + k, sum, count);
        for (; k < m->depth; k++)
            add_one(m->a + k * m->ld + r, m->x[k], sum, count);
        for (ptrdiff_t i = 0; i < count; i++)
            m->y[r + i] += m->alpha * sum[i];
    }
}
