/* Products with a vector are our own: the GEMM library would copy the whole matrix first. They read
 * every element of the matrix once, along memory, and sum in an order that depends on the sizes
 * alone. */
#include "internal.h"

/* Elements at once, at any address. The compiler makes one or two registers of it. */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
#define VEC  8
#define ROWS 4 /* rows that are multiplied side by side */

/* A matrix and a vector: y[r] += alpha * sum over k of a(r, k) * x[k]. */
struct matvec {
    const float *a, *x;
    float *y;
    ptrdiff_t rows, depth;
    ptrdiff_t ld; /* between rows (dot_rows), between columns (add_columns) */
    float alpha;
};

static inline float sum_lanes(vec v) {
    float sum = 0.0f;

    for (int i = 0; i < VEC; i++)
        sum += v[i];
    return sum;
}

/* a(r, k) = a[r * ld + k]: up to four rows at a time, each a dot product. */
static KN_CLONES void dot_rows(const struct matvec *m) {
    for (ptrdiff_t r = 0; r < m->rows; r += ROWS) {
        const float *row[ROWS];
        vec even[ROWS] = {0}, odd[ROWS] = {0};
        ptrdiff_t k = 0;

        for (ptrdiff_t i = 0; i < ROWS; i++)
            row[i] = m->a + kn_min(r + i, m->rows - 1) * m->ld;
        for (; k + 2 * VEC <= m->depth; k += 2 * VEC) {
            const vec *x = (const vec *)(m->x + k);
            for (int i = 0; i < ROWS; i++) {
                const vec *a = (const vec *)(row[i] + k);
                even[i] += a[0] * x[0];
                odd[i] += a[1] * x[1];
            }
        }
        for (ptrdiff_t i = 0; i < ROWS && r + i < m->rows; i++) {
            float sum = sum_lanes(even[i] + odd[i]);
            for (ptrdiff_t j = k; j < m->depth; j++)
                sum += row[i][j] * m->x[j];
            m->y[r + i] += m->alpha * sum;
        }
    }
}

#define COLUMNS 4    /* added side by side */
#define CHUNK   1024 /* sums that stay in the first cache */

static KN_CLONES void add_four(const float *restrict a, ptrdiff_t ld, const float *x,
                               float *restrict sum, ptrdiff_t count) {
    const float *restrict b = a + ld, *restrict c = b + ld, *restrict d = c + ld;

    for (ptrdiff_t i = 0; i < count; i++)
        sum[i] += (x[0] * a[i] + x[1] * b[i]) + (x[2] * c[i] + x[3] * d[i]);
}

static KN_CLONES void add_one(const float *restrict a, float x, float *restrict sum,
                              ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        sum[i] += x * a[i];
}

/* a(r, k) = a[k * ld + r]: columns are added up. */
static void add_columns(const struct matvec *m) {
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

static void matvec(const struct matvec *m, bool along_rows) {
    if (along_rows)
        dot_rows(m);
    else
        add_columns(m);
}

void kn_multiply(const struct kn_product *p, const float *a, const float *b, float *y) {
    struct matvec m = {.y = y, .depth = p->k, .alpha = p->alpha};

    if (p->m == 0 || p->n == 0 || p->k == 0)
        return;
    if (p->m == 1 && (!p->trans_a || p->lda == 1)) {
        m.a = b;
        m.x = a;
        m.rows = p->n;
        m.ld = p->ldb;
        matvec(&m, p->trans_b);
    } else if (p->n == 1 && (p->trans_b || p->ldb == 1) && p->ldy == 1) {
        m.a = a;
        m.x = b;
        m.rows = p->m;
        m.ld = p->lda;
        matvec(&m, !p->trans_a);
    } else {
        kn_blas_gemm(p, a, b, y);
    }
}
