// low_rank_linear_packed for AVX2 and FMA: two products of rows and panels, one behind the other.
//
// Six rows by one panel make a tile. Behind the sixes come two groups that are nearly alike, so that none has fewer than three rows: a
// tile of one or two rows by a panel has so few chains of FMAs that it waits for each of them. One to three rows alone take two or four
// panels at once for the same reason. Whatever the tile, a number is a sum of chains of FMAs, each over the same 128 steps in their order
// and begun from 0: its bits depend on its row and its column alone.
#include "../low_rank_linear_packed.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "fma_tile_avx2.h"

// out (count, columns) = bias + rows (count, steps) · panels
struct Product {
    const float* rows;
    int64_t row_stride;
    const float* panels;
    int64_t panel_stride;
    int64_t steps;
    const float* bias;  // (columns,), or null
    float* out;
    int64_t out_stride;
    int64_t columns;
};

// A chain's rounding errors grow with its length: one over 3,072 steps is two and a half times as far off as torch's blocked sums, chains
// of 128 are nearer than those. For a single row, which torch multiplies eight sums at a time, they are 1.3 times as far off, chains of 256
// 1.6 times; shorter ones cost more time than they are worth.
constexpr int64_t kStepsInChain = 128;

// Where all columns of the panels are wanted. The loops are unrolled by order: gcc 12 keeps the sums in memory otherwise.
template <int ROWS, int VECTORS>
inline __attribute__((always_inline)) void whole_tile(const Product& product, int64_t row, int64_t column) {
    const float* rows = product.rows + row * product.row_stride;
    const float* panels = product.panels + column / kPanelColumns * product.panel_stride;
    const float* begun = product.bias ? product.bias + column : nullptr;
    int64_t begun_stride = 0;
    float* out = product.out + row * product.out_stride + column;
    int64_t step = 0;
    do {
        __m256 sum_f32x8[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sum_f32x8[r][v] = _mm256_setzero_ps();
        const int64_t steps = std::min(kStepsInChain, product.steps - step);
        fma_tile<ROWS, VECTORS>(rows + step, product.row_stride, 1, panels + step * kPanelColumns, product.panel_stride, steps, sum_f32x8);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                if (begun) sum_f32x8[r][v] = _mm256_add_ps(sum_f32x8[r][v], _mm256_loadu_ps(begun + r * begun_stride + v * 8));
                _mm256_storeu_ps(out + r * product.out_stride + v * 8, sum_f32x8[r][v]);
            }
        begun = out;
        begun_stride = product.out_stride;
        step += steps;
    } while (step < product.steps);
}

// ROWS rows from `row` on by the PANELS panels from `panel` on.
template <int ROWS, int PANELS>
void tile(const Product& product, int64_t row, int64_t panel) {
    constexpr int64_t kColumns = PANELS * kPanelColumns;
    const int64_t column = panel * kPanelColumns, wanted = product.columns - column;
    if (wanted >= kColumns) return whole_tile<ROWS, 2 * PANELS>(product, row, column);
    // the last columns of the result: through a tile's worth of room
    float bias[kColumns] = {}, out[ROWS * kColumns];
    Product edge = product;
    edge.rows += row * product.row_stride;
    edge.panels += panel * product.panel_stride;
    if (product.bias) {
        std::copy_n(product.bias + column, wanted, bias);
        edge.bias = bias;
    }
    edge.out = out;
    edge.out_stride = kColumns;
    whole_tile<ROWS, 2 * PANELS>(edge, 0, 0);
    for (int r = 0; r < ROWS; ++r) std::copy_n(out + r * kColumns, wanted, product.out + (row + r) * product.out_stride + column);
}

void group(int64_t rows, const Product& product, int64_t row, int64_t panel) {
    switch (rows) {
        case 3: return tile<3, 1>(product, row, panel);
        case 4: return tile<4, 1>(product, row, panel);
        default: return tile<5, 1>(product, row, panel);
    }
}

template <int ROWS, int PANELS>
void few_rows(const Product& product, int64_t first, int64_t last) {
    int64_t panel = first;
    for (; panel + PANELS <= last; panel += PANELS) tile<ROWS, PANELS>(product, 0, panel);
    if constexpr (PANELS > 1) few_rows<ROWS, PANELS / 2>(product, panel, last);
}

void multiply(const Product& product, int64_t count, int64_t first, int64_t last) {
    switch (count) {
        case 0: return;
        case 1: return few_rows<1, 4>(product, first, last);
        case 2: return few_rows<2, 2>(product, first, last);
        case 3: return few_rows<3, 2>(product, first, last);
    }
    const int64_t rest = count % 6;
    const int64_t sixes = rest == 0 || rest >= 4 ? count - rest : count - rest - 6;  // 1 … 3 behind the sixes go with the last of them
    const int64_t half = rest >= 4 ? rest : (count - sixes + 1) / 2;
    for (int64_t panel = first; panel < last; ++panel) {
        int64_t row = 0;
        for (; row < sixes; row += 6) tile<6, 1>(product, row, panel);
        for (; row < count; row += half) group(std::min(half, count - row), product, row, panel);
    }
}

}  // namespace

void low_rank_middle_avx2(const LowRankLinearTask& task, int64_t first, int64_t last) {
    const Product product{task.x,  task.inputs, task.a,     task.inputs * kPanelColumns, task.inputs,
                          nullptr, task.middle, task.width, task.width};
    multiply(product, task.tokens, first, last);
}

void low_rank_out_avx2(const LowRankLinearTask& task, int64_t first, int64_t last) {
    const Product product{task.middle, task.width,   task.b,   task.rank * kPanelColumns, task.rank,
                          task.bias,   task.out, task.outputs, task.outputs};
    multiply(product, task.tokens, first, last);
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
void low_rank_middle_avx2(const LowRankLinearTask&, int64_t, int64_t) {}
void low_rank_out_avx2(const LowRankLinearTask&, int64_t, int64_t) {}

}  // namespace compress_rec

#endif
