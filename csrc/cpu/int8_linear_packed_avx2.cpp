// int8_linear_packed for AVX2: rows rounded to bytes once a block, then four rows by 16 outputs a tile, exact in 32-bit integers, and
// scaled as the reference scales. The float steps are those of the reference in its order, so the bits are too.
#include "../int8_linear_packed.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "maddubs_tile_avx2.h"
#include "quantize_row_avx2.h"

constexpr int64_t kRowBytes = 128 << 10;  // rows at a time, as bytes: they stay in a 512 KB L2 beside the weights that stream through
constexpr int kWide = 8;                  // vectors of a tile for one row alone: four panels, eight sums

// What a panel's sums are multiplied by, with zeros behind the last output.
struct Finish {
    alignas(32) int32_t sums[kInt8Columns] = {};
    alignas(32) float scales[kInt8Columns] = {};
    alignas(32) float bias[kInt8Columns] = {};

    Finish(const Int8LinearTask& task, int64_t first, int64_t count) {
        std::copy(task.sums + first, task.sums + first + count, sums);
        std::copy(task.scales + first, task.scales + first + count, scales);
        if (task.bias) std::copy(task.bias + first, task.bias + first + count, bias);
    }
};

// total · step · scale + bias for eight outputs of one row.
inline __m256 finished(const int32_t* total, const RowScale& scale, const Finish& finish, int64_t column, bool has_bias) {
    const __m256i sums_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(finish.sums + column));
    const __m256i offset_i32x8 = _mm256_mullo_epi32(_mm256_set1_epi32(scale.zero), sums_i32x8);
    const __m256i total_i32x8 = _mm256_sub_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(total)), offset_i32x8);
    const __m256 scaled_f32x8 = _mm256_mul_ps(_mm256_cvtepi32_ps(total_i32x8), _mm256_set1_ps(scale.step));
    const __m256 y_f32x8 = _mm256_mul_ps(scaled_f32x8, _mm256_load_ps(finish.scales + column));
    return has_bias ? _mm256_add_ps(y_f32x8, _mm256_load_ps(finish.bias + column)) : y_f32x8;
}

// Adds what was taken out of a panel: two products to a 32-bit sum.
template <int ROWS, int COLUMNS>
inline void add_extra(const Int8LinearTask& task, int64_t panel, const uint8_t* bytes, int32_t (*total)[COLUMNS], int64_t column) {
    const __m256i one_i16x16 = _mm256_set1_epi16(1);
    for (int32_t e = task.extra_first[panel]; e < task.extra_first[panel + 1]; ++e) {
        const int8_t* extra = task.extra + int64_t{e} * (kBytesInStep / 2);
        const __m256i low_i8x32 = bytes_at(extra), high_i8x32 = bytes_at(extra + 32);
        const uint8_t* row = bytes + task.extra_step[e] * kBlockStep + 4;
        for (int r = 0; r < ROWS; ++r) {
            const __m256i row_u8x32 = four_bytes(row + r * kPlacesInStep);
            __m256i* to = reinterpret_cast<__m256i*>(total[r] + column);
            const __m256i low_i32x8 = _mm256_madd_epi16(_mm256_maddubs_epi16(row_u8x32, low_i8x32), one_i16x16);
            const __m256i high_i32x8 = _mm256_madd_epi16(_mm256_maddubs_epi16(row_u8x32, high_i8x32), one_i16x16);
            _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), low_i32x8));
            _mm256_store_si256(to + 1, _mm256_add_epi32(_mm256_load_si256(to + 1), high_i32x8));
        }
    }
}

// ROWS rows of a block against the panels `panel` … panel + VECTORS / 2 - 1.
template <int ROWS, int VECTORS>
inline void pass(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, const Finish* finish, int64_t panel,
                 float* out) {
    alignas(32) int32_t total[ROWS][VECTORS * 8];
    const int64_t panel_bytes = task.steps * kBytesInStep, outputs = task.outputs, column = panel * kInt8Columns;
    maddubs_tile<ROWS, VECTORS>(bytes, task.panels + panel * panel_bytes, panel_bytes, task.steps, total);
    for (int p = 0; p < VECTORS / 2; ++p) add_extra<ROWS>(task, panel + p, bytes, total, p * kInt8Columns);
    const bool has_bias = task.bias != nullptr, full = column + VECTORS * 8 <= outputs;
    alignas(32) float rest[VECTORS * 8];  // the last outputs, where they do not fill their panel
    for (int r = 0; r < ROWS; ++r) {
        float* to = full ? out + r * outputs + column : rest;
        for (int v = 0; v < VECTORS; ++v)
            _mm256_storeu_ps(to + v * 8, finished(total[r] + v * 8, scales[r], finish[v / 2], (v % 2) * 8, has_bias));
        if (!full) std::copy(rest, rest + (outputs - column), out + r * outputs + column);
    }
}

Finish finish_of(const Int8LinearTask& task, int64_t panel) {
    return Finish(task, panel * kInt8Columns, std::min(kInt8Columns, task.outputs - panel * kInt8Columns));
}

void one_row(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, float* out) {
    int64_t panel = task.first_panel;
    for (; panel + kWide / 2 <= task.last_panel; panel += kWide / 2) {
        const Finish finish[] = {finish_of(task, panel), finish_of(task, panel + 1), finish_of(task, panel + 2),
                                 finish_of(task, panel + 3)};
        pass<1, kWide>(task, bytes, scales, finish, panel, out);
    }
    for (; panel < task.last_panel; ++panel) {
        const Finish finish = finish_of(task, panel);
        pass<1, 2>(task, bytes, scales, &finish, panel, out);
    }
}

void many_rows(const Int8LinearTask& task, const uint8_t* bytes, const RowScale* scales, int64_t count, float* out) {
    const int64_t block_bytes = task.steps * kBlockStep;
    for (int64_t panel = task.first_panel; panel < task.last_panel; ++panel) {
        const Finish finish = finish_of(task, panel);
        int64_t r = 0;
        for (; r + kRowsInBlock <= count; r += kRowsInBlock)
            pass<kRowsInBlock, 2>(task, bytes + r / kRowsInBlock * block_bytes, scales + r, &finish, panel, out + r * task.outputs);
        const uint8_t* last = bytes + r / kRowsInBlock * block_bytes;
        if (count - r == 3) pass<3, 2>(task, last, scales + r, &finish, panel, out + r * task.outputs);
        if (count - r == 2) pass<2, 2>(task, last, scales + r, &finish, panel, out + r * task.outputs);
        if (count - r == 1) pass<1, 2>(task, last, scales + r, &finish, panel, out + r * task.outputs);
    }
}

}  // namespace

void int8_linear_packed_avx2(const Int8LinearTask& task) {
    const int64_t block_bytes = task.steps * kBlockStep;
    const int64_t most = std::clamp<int64_t>(kRowBytes / std::max<int64_t>(block_bytes, 1), 1, 64) * kRowsInBlock;
    const int64_t at_once = std::min(most, task.rows);
    std::vector<uint8_t> bytes(static_cast<size_t>((at_once + kRowsInBlock - 1) / kRowsInBlock * block_bytes));
    std::vector<RowScale> scales(static_cast<size_t>(at_once));
    for (int64_t start = 0; start < task.rows; start += at_once) {
        const int64_t count = std::min(at_once, task.rows - start);
        for (int64_t r = 0; r < count; ++r) {
            uint8_t* place = bytes.data() + r / kRowsInBlock * block_bytes + r % kRowsInBlock * kPlacesInStep;
            scales[r] = quantize_row(task.x + (start + r) * task.inputs, task.inputs, task.steps, place);
        }
        float* out = task.out + start * task.outputs;
        if (count == 1) {
            one_row(task, bytes.data(), scales.data(), out);
        } else {
            many_rows(task, bytes.data(), scales.data(), count, out);
        }
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
