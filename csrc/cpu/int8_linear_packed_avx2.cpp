// int8_linear_packed for AVX2: rows rounded to bytes once a block, then four rows by 16 outputs a tile, exact in 32-bit integers, and
// scaled as the reference scales. The float steps are those of the reference in its order, so the bits are too.
#include "../int8_linear_packed.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "maddubs_tile_avx2.h"
#include "quantize_row_avx2.h"

constexpr int64_t kRowBytes = 128 << 10;  // rows at a time, as bytes: they stay in a 512 KB L2 beside the weights that stream through
constexpr int64_t kFewBytes = 16 << 10;    // rows that lie on the stack
constexpr int kWide = 8;                  // vectors of a tile for one row alone: four panels, eight sums

// Adds what was taken out of a panel: two products to a 32-bit sum. The sums stay in registers meanwhile.
template <int ROWS, int COLUMNS>
inline void add_extra(const Int8LinearTask& task, int64_t panel, const uint8_t* bytes, int32_t (*total)[COLUMNS], int64_t column) {
    const int32_t first = task.extra_first[panel], last = task.extra_first[panel + 1];
    if (first == last) return;
    const __m256i one_i16x16 = _mm256_set1_epi16(1);
    __m256i sum_i32x8[ROWS][2];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) sum_i32x8[r][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(total[r] + column + v * 8));
    for (int32_t e = first; e < last; ++e) {
        const int8_t* extra = task.extra + int64_t{e} * (kBytesInStep / 2);
        const __m256i low_i8x32 = bytes_at(extra), high_i8x32 = bytes_at(extra + 32);
        const uint8_t* row = bytes + task.extra_step[e] * kBlockStep + 4;
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const __m256i row_u8x32 = four_bytes(row + r * kPlacesInStep);
            const __m256i low_i32x8 = _mm256_madd_epi16(_mm256_maddubs_epi16(row_u8x32, low_i8x32), one_i16x16);
            const __m256i high_i32x8 = _mm256_madd_epi16(_mm256_maddubs_epi16(row_u8x32, high_i8x32), one_i16x16);
            sum_i32x8[r][0] = _mm256_add_epi32(sum_i32x8[r][0], low_i32x8);
            sum_i32x8[r][1] = _mm256_add_epi32(sum_i32x8[r][1], high_i32x8);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) _mm256_store_si256(reinterpret_cast<__m256i*>(total[r] + column + v * 8), sum_i32x8[r][v]);
}

// ROWS rows of a block against the panels `panel` … panel + VECTORS / 2 - 1.
template <int ROWS, int VECTORS>
inline void pass(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, int64_t panel, float* out) {
    alignas(32) int32_t total[ROWS][VECTORS * 8];
    const int64_t panel_bytes = task.steps * kBytesInStep, outputs = task.outputs, column = panel * kInt8Columns;
    maddubs_tile<ROWS, VECTORS>(bytes, task.panels + panel * panel_bytes, panel_bytes, task.steps, total);
    for (int p = 0; p < VECTORS / 2; ++p) add_extra<ROWS>(task, panel + p, bytes, total, p * kInt8Columns);
    const bool full = column + VECTORS * 8 <= outputs;
    alignas(32) float rest[ROWS][VECTORS * 8];  // the last outputs, where they do not fill their panel
    float* to = full ? out + column : rest[0];
    const int64_t stride = full ? outputs : VECTORS * 8;
    const int32_t* sums = task.sums + column;
    const float *scale = task.scales + column, *bias = task.bias + column;
    for (int p = 0; p < VECTORS; p += 2) {
        __m256i sums_i32x8[2];
        __m256 scale_f32x8[2], bias_f32x8[2];
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            sums_i32x8[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + (p + v) * 8));
            scale_f32x8[v] = _mm256_loadu_ps(scale + (p + v) * 8), bias_f32x8[v] = _mm256_loadu_ps(bias + (p + v) * 8);
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const __m256i zero_i32x8 = _mm256_set1_epi32(scales[r].zero);
            const __m256 step_f32x8 = _mm256_set1_ps(scales[r].step);
#pragma GCC unroll 2
            for (int v = 0; v < 2; ++v) {
                const __m256i whole_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(total[r] + (p + v) * 8));
                const __m256i total_i32x8 = _mm256_sub_epi32(whole_i32x8, _mm256_mullo_epi32(zero_i32x8, sums_i32x8[v]));
                const __m256 y_f32x8 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(total_i32x8), step_f32x8), scale_f32x8[v]);
                _mm256_storeu_ps(to + r * stride + (p + v) * 8, _mm256_add_ps(y_f32x8, bias_f32x8[v]));
            }
        }
    }
    if (full) return;
    for (int r = 0; r < ROWS; ++r) std::copy(rest[r], rest[r] + (outputs - column), out + r * outputs + column);
}

void one_row(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, float* out) {
    int64_t panel = task.first_panel;
    for (; panel + kWide / 2 <= task.last_panel; panel += kWide / 2) pass<1, kWide>(task, bytes, scales, panel, out);
    for (; panel < task.last_panel; ++panel) pass<1, 2>(task, bytes, scales, panel, out);
}

void many_rows(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, int64_t count, float* out) {
    const int64_t block_bytes = task.steps * kBlockStep;
    for (int64_t panel = task.first_panel; panel < task.last_panel; ++panel) {
        int64_t r = 0;
        for (; r + kRowsInBlock <= count; r += kRowsInBlock)
            pass<kRowsInBlock, 2>(task, bytes + r / kRowsInBlock * block_bytes, scales + r, panel, out + r * task.outputs);
        const uint8_t* last = bytes + r / kRowsInBlock * block_bytes;
        if (count - r == 3) pass<3, 2>(task, last, scales + r, panel, out + r * task.outputs);
        if (count - r == 2) pass<2, 2>(task, last, scales + r, panel, out + r * task.outputs);
        if (count - r == 1) pass<1, 2>(task, last, scales + r, panel, out + r * task.outputs);
    }
}

// The rows as bytes, in blocks, `at_once` at a time.
void in_turn(const Int8LinearTask& task, int64_t at_once, uint8_t* bytes, RowScale* scales) {
    const int64_t block_bytes = task.steps * kBlockStep;
    for (int64_t start = 0; start < task.rows; start += at_once) {
        const int64_t count = std::min(at_once, task.rows - start);
        for (int64_t r = 0; r < count; ++r) {
            uint8_t* place = bytes + r / kRowsInBlock * block_bytes + r % kRowsInBlock * kPlacesInStep;
            scales[r] = quantize_row(task.x + (start + r) * task.inputs, task.inputs, task.steps, place);
        }
        float* out = task.out + start * task.outputs;
        if (count == 1) {
            one_row(task, bytes, scales, out);
        } else {
            many_rows(task, bytes, scales, count, out);
        }
    }
}

}  // namespace

void int8_linear_packed_avx2(const Int8LinearTask& task) {
    const int64_t block_bytes = task.steps * kBlockStep;
    const int64_t most = std::clamp<int64_t>(kRowBytes / std::max<int64_t>(block_bytes, 1), 1, 64) * kRowsInBlock;
    const int64_t at_once = std::min(most, task.rows);
    const int64_t needed = (at_once + kRowsInBlock - 1) / kRowsInBlock * block_bytes;
    if (at_once <= kRowsInBlock && needed <= kFewBytes) {  // nothing to allocate, which takes as long as a small product
        alignas(32) uint8_t bytes[kFewBytes];
        RowScale scales[kRowsInBlock];
        in_turn(task, at_once, bytes, scales);
    } else {
        const std::unique_ptr<uint8_t[]> bytes(new uint8_t[static_cast<size_t>(needed)]);
        const std::unique_ptr<RowScale[]> scales(new RowScale[static_cast<size_t>(at_once)]);
        in_turn(task, at_once, bytes.get(), scales.get());
    }
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
void int8_linear_packed_avx2(const Int8LinearTask&) {}

}  // namespace compress_rec

#endif
