// int8_linear_packed for AVX2: rows rounded to bytes once a block, then three rows by 16 outputs a tile, exact in 32-bit integers, and
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

#include "eights_tile_avx2.h"

constexpr int64_t kRowBytes = 64 << 10;  // rows at a time, as bytes: they stay in a 512 KB L2 beside the weights that stream through
constexpr int64_t kFewBytes = 12 << 10;  // rows that lie on the stack
constexpr int64_t kSoon = 2 << 10;

// y = total · step · scale + bias in the reference's order, to rows `stride` apart.
template <int ROWS>
inline __attribute__((always_inline)) void scaled(const Int8LinearTask& task, const int32_t (*totals)[kEightsColumns],
                                                  const RoundedRow* rounded, int64_t column, float* to, int64_t stride) {
    for (int64_t v = 0; v < kEightsColumns; v += 8) {
        const __m256i sums_i32x8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(task.sums + column + v));
        const __m256 scale_f32x8 = _mm256_loadu_ps(task.scales + column + v), bias_f32x8 = _mm256_loadu_ps(task.bias + column + v);
#pragma GCC unroll 3
        for (int r = 0; r < ROWS; ++r) {
            const __m256i whole_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(totals[r] + v));
            const __m256i total_i32x8 = _mm256_sub_epi32(whole_i32x8, _mm256_mullo_epi32(_mm256_set1_epi32(rounded[r].zero), sums_i32x8));
            const __m256 y_f32x8 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(total_i32x8), _mm256_set1_ps(rounded[r].step)), scale_f32x8);
            _mm256_storeu_ps(to + r * stride + v, _mm256_add_ps(y_f32x8, bias_f32x8));
        }
    }
}

// ROWS rows of a block against a panel. What lies at `ahead` is fetched meanwhile.
template <int ROWS>
inline void pass(const Int8LinearTask& task, const uint8_t* bytes, const RoundedRow* rounded, int64_t panel, const int8_t* ahead, float* out) {
    alignas(32) int32_t totals[ROWS][kEightsColumns];
    const int64_t outputs = task.outputs, column = panel * kEightsColumns;
    eights_panel<ROWS>(bytes, task.parts, task.first[panel], task.first[panel + 1], task.steps, ahead, totals);
    if (column + kEightsColumns <= outputs) return scaled<ROWS>(task, totals, rounded, column, out + column, outputs);
    float rest[ROWS][kEightsColumns];  // the last outputs, where they do not fill their panel
    scaled<ROWS>(task, totals, rounded, column, rest[0], kEightsColumns);
    for (int r = 0; r < ROWS; ++r) std::copy(rest[r], rest[r] + (outputs - column), out + r * outputs + column);
}

// One row waits for its weights alone, so the lines that it comes to soon are fetched: kSoon bytes behind those it reads.
void one_row(const Int8LinearTask& task, const uint8_t* bytes, const RoundedRow* rounded, float* out) {
    for (int64_t panel = task.first_panel; panel < task.last_panel; ++panel) {
        const int8_t* soon = task.parts + task.first[panel] * task.steps * kBytesInEights + kSoon;
        pass<1>(task, bytes, rounded, panel, soon, out);
    }
}

void many_rows(const Int8LinearTask& task, const uint8_t* bytes, const RoundedRow* rounded, int64_t count, float* out) {
    const int64_t block_bytes = task.steps * kThreeStep;
    for (int64_t panel = task.first_panel; panel < task.last_panel; ++panel) {
        const int8_t* next = task.parts + task.first[panel + 1] * task.steps * kBytesInEights;
        int64_t r = 0;
        for (; r + kRowsInThree <= count; r += kRowsInThree)
            pass<3>(task, bytes + r / kRowsInThree * block_bytes, rounded + r, panel, next + std::min<int64_t>(r / kRowsInThree, 3) * 64,
                    out + r * task.outputs);
        const uint8_t* last = bytes + r / kRowsInThree * block_bytes;
        if (count - r == 2) pass<2>(task, last, rounded + r, panel, next, out + r * task.outputs);
        if (count - r == 1) pass<1>(task, last, rounded + r, panel, next, out + r * task.outputs);
    }
}

// The rows as bytes, in blocks, `at_once` at a time.
void in_turn(const Int8LinearTask& task, int64_t at_once, uint8_t* bytes, RoundedRow* rounded) {
    for (int64_t start = 0; start < task.rows; start += at_once) {
        const int64_t count = std::min(at_once, task.rows - start);
        round_rows(task.x + start * task.inputs, task.inputs, task.diagonal, task.inputs, count, bytes, rounded);
        float* out = task.out + start * task.outputs;
        if (count == 1) {
            one_row(task, bytes, rounded, out);
        } else {
            many_rows(task, bytes, rounded, count, out);
        }
    }
}

}  // namespace

void int8_linear_packed_avx2(const Int8LinearTask& task) {
    const int64_t block_bytes = task.steps * kThreeStep;
    const int64_t most = std::clamp<int64_t>(kRowBytes / std::max<int64_t>(block_bytes, 1), 1, 128) * kRowsInThree;
    const int64_t at_once = std::min(most, task.rows);
    const int64_t needed = (at_once + kRowsInThree - 1) / kRowsInThree * block_bytes;
    if (at_once <= kRowsInThree && needed <= kFewBytes) {  // nothing to allocate, which takes as long as a small product
        alignas(32) uint8_t bytes[kFewBytes];
        RoundedRow rounded[kRowsInThree];
        in_turn(task, at_once, bytes, rounded);
    } else {
        const std::unique_ptr<uint8_t[]> bytes(new uint8_t[static_cast<size_t>(needed)]);
        const std::unique_ptr<RoundedRow[]> rounded(new RoundedRow[static_cast<size_t>(at_once)]);
        in_turn(task, at_once, bytes.get(), rounded.get());
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
