// The inner loop of the float kernels. Included inside a file's target region and namespace, after the standard headers.
//
// A panel holds 16 columns of the right-hand side, step by step: (steps, 16) floats, 64 bytes a step. A tile multiplies ROWS rows by
// VECTORS × 8 columns of one or more panels and keeps every result in a register: six rows by one panel are twelve sums, two loads of
// the panel and six broadcasts a step. Every result is one chain of FMAs in the order of the steps, whatever tile it is part of, so a
// row's bits do not depend on its company.

constexpr int64_t kPanelColumns = 16;

struct NothingElse {
    inline __attribute__((always_inline)) void operator()(int64_t) const {}
};

// sum_f32x8[r][v] += rows[r][0 … steps - 1] · columns; row r's step s lies at rows[r * row_stride + s * step_stride], the panels lie
// panel_stride floats apart. `besides` is called with every step, to fetch what comes next.
template <int ROWS, int VECTORS, class Besides = NothingElse>
inline __attribute__((always_inline)) void fma_tile(const float* rows, int64_t row_stride, int64_t step_stride, const float* panels,
                                                    int64_t panel_stride, int64_t steps, __m256 (&sum_f32x8)[ROWS][VECTORS],
                                                    Besides besides = {}) {
#pragma GCC unroll 2  // half the branches, of which the last is often guessed wrong: 2 % where the steps are few
    for (int64_t s = 0; s < steps; ++s) {
        besides(s);
        __m256 column_f32x8[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            column_f32x8[v] = _mm256_loadu_ps(panels + (v / 2) * panel_stride + s * kPanelColumns + (v % 2) * 8);
        for (int r = 0; r < ROWS; ++r) {
            const __m256 row_f32x8 = _mm256_broadcast_ss(rows + r * row_stride + s * step_stride);
            for (int v = 0; v < VECTORS; ++v) sum_f32x8[r][v] = _mm256_fmadd_ps(row_f32x8, column_f32x8[v], sum_f32x8[r][v]);
        }
    }
}
