// Attention of one text and head for AVX2 and FMA: keys packed once in panels of 16, then six queries at a time: their scores, softmax, and
// the weighted values, which the product before has left in panels.
#include "../encoder.h"
#include "../large_memory.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "activations_avx2.h"
#include "fma_tile_avx2.h"
#include "room.h"

constexpr int64_t kQueries = 6;

// What a text's head works on; panels of query, key and value lie `stride` floats apart.
struct Attention {
    const float *query, *key, *value;
    int64_t stride, panels, length, head_width;
    const float* keys;   // (padded length / 16, panels · 16, 16): the keys of a panel, number by number
    float* scores;       // (6, padded length)
    float scale;         // of a score, log2(e) in it
    float* context;      // of the text's first token and the head's first number
    int64_t context_stride;
};

// Eight rows of eight floats, 16 apart, to columns 16 apart.
inline void transpose_8x8(const float* from, float* to) {
    __m256 row_f32x8[8], pair_f32x8[8], four_f32x8[8];
    for (int r = 0; r < 8; ++r) row_f32x8[r] = _mm256_loadu_ps(from + r * kPanelColumns);
    for (int r = 0; r < 8; r += 2) {
        pair_f32x8[r] = _mm256_unpacklo_ps(row_f32x8[r], row_f32x8[r + 1]);
        pair_f32x8[r + 1] = _mm256_unpackhi_ps(row_f32x8[r], row_f32x8[r + 1]);
    }
    for (int r = 0; r < 8; r += 4)
        for (int half = 0; half < 2; ++half) {
            four_f32x8[r + half * 2] = _mm256_shuffle_ps(pair_f32x8[r + half], pair_f32x8[r + half + 2], 0x44);
            four_f32x8[r + half * 2 + 1] = _mm256_shuffle_ps(pair_f32x8[r + half], pair_f32x8[r + half + 2], 0xEE);
        }
    for (int r = 0; r < 4; ++r) {
        _mm256_storeu_ps(to + r * kPanelColumns, _mm256_permute2f128_ps(four_f32x8[r], four_f32x8[r + 4], 0x20));
        _mm256_storeu_ps(to + (r + 4) * kPanelColumns, _mm256_permute2f128_ps(four_f32x8[r], four_f32x8[r + 4], 0x31));
    }
}

void pack_keys(const Attention& text, float* keys) {
    alignas(32) float tail[kPanelColumns * kPanelColumns];
    for (int64_t first = 0; first < text.length; first += kPanelColumns)
        for (int64_t panel = 0; panel < text.panels; ++panel) {
            const float* from = text.key + panel * text.stride + first * kPanelColumns;
            float* to = keys + (first * text.panels + panel * kPanelColumns) * kPanelColumns;
            if (first + kPanelColumns > text.length) {
                const int64_t there = (text.length - first) * kPanelColumns;
                std::copy(from, from + there, tail);
                std::fill(tail + there, tail + kPanelColumns * kPanelColumns, 0.0f);
                from = tail;
            }
            for (int64_t row = 0; row < 16; row += 8)
                for (int64_t column = 0; column < 16; column += 8)
                    transpose_8x8(from + row * kPanelColumns + column, to + column * kPanelColumns + row);
        }
}

inline float largest_of(__m256 most_f32x8) {
    __m128 most_f32x4 = _mm_max_ps(_mm256_castps256_ps128(most_f32x8), _mm256_extractf128_ps(most_f32x8, 1));
    most_f32x4 = _mm_max_ps(most_f32x4, _mm_movehl_ps(most_f32x4, most_f32x4));
    return _mm_cvtss_f32(_mm_max_ss(most_f32x4, _mm_movehdup_ps(most_f32x4)));
}

// Scores to their exponentials, of which the largest is 1 and those of the padding 0; returns 1 / sum. `length` counts from 1 on.
inline float softmax(float* scores, int64_t length, float scale) {
    const int64_t whole = length / 8 * 8, rest = length - whole;
    const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 there_f32x8 = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rest)), lane_i32x8));
    const __m256 least_f32x8 = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
    __m256 most_f32x8 = least_f32x8;
    for (int64_t c = 0; c < whole; c += 8) most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_loadu_ps(scores + c));
    if (rest) most_f32x8 = _mm256_max_ps(most_f32x8, _mm256_blendv_ps(least_f32x8, _mm256_loadu_ps(scores + whole), there_f32x8));
    const __m256 scale_f32x8 = _mm256_set1_ps(scale);
    most_f32x8 = _mm256_set1_ps(largest_of(most_f32x8));
    const auto power = [&](int64_t c) {
        // the difference first: it is exactly 0 for the largest, however large
        const __m256 x_f32x8 = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(scores + c), most_f32x8), scale_f32x8);
        return exp2_f32x8(_mm256_max_ps(_mm256_set1_ps(-126.0f), x_f32x8));  // in this order NaN stays
    };
    __m256 sum_f32x8 = _mm256_setzero_ps();
    for (int64_t c = 0; c < whole; c += 8) {
        const __m256 power_f32x8 = power(c);
        _mm256_storeu_ps(scores + c, power_f32x8);
        sum_f32x8 = _mm256_add_ps(sum_f32x8, power_f32x8);
    }
    if (rest) {
        const __m256 power_f32x8 = _mm256_and_ps(power(whole), there_f32x8);
        _mm256_storeu_ps(scores + whole, power_f32x8);
        sum_f32x8 = _mm256_add_ps(sum_f32x8, power_f32x8);
    }
    return 1.0f / total_of(sum_f32x8);
}

template <int ROWS>
void queries(const Attention& text, int64_t row) {
    const int64_t wide = padded(text.length);
    for (int64_t first = 0; first < text.length; first += kPanelColumns) {
        __m256 sum_f32x8[ROWS][2];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) sum_f32x8[r][0] = sum_f32x8[r][1] = _mm256_setzero_ps();
        for (int64_t panel = 0; panel < text.panels; ++panel)
            fma_tile<ROWS, 2>(text.query + panel * text.stride + row * kPanelColumns, kPanelColumns, 1,
                              text.keys + (first * text.panels + panel * kPanelColumns) * kPanelColumns, 0, kPanelColumns, sum_f32x8);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) {
            _mm256_storeu_ps(text.scores + r * wide + first, sum_f32x8[r][0]);
            _mm256_storeu_ps(text.scores + r * wide + first + 8, sum_f32x8[r][1]);
        }
    }
    float share[ROWS];
    for (int r = 0; r < ROWS; ++r) share[r] = softmax(text.scores + r * wide, text.length, text.scale);
    for (int64_t panel = 0; panel < text.panels; ++panel) {
        __m256 sum_f32x8[ROWS][2];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) sum_f32x8[r][0] = sum_f32x8[r][1] = _mm256_setzero_ps();
        fma_tile<ROWS, 2>(text.scores, wide, 1, text.value + panel * text.stride, 0, text.length, sum_f32x8);
        const int64_t wanted = std::min(kPanelColumns, text.head_width - panel * kPanelColumns);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) {
            const __m256 share_f32x8 = _mm256_set1_ps(share[r]);
            const __m256 low_f32x8 = _mm256_mul_ps(sum_f32x8[r][0], share_f32x8), high_f32x8 = _mm256_mul_ps(sum_f32x8[r][1], share_f32x8);
            float* to = text.context + (row + r) * text.context_stride + panel * kPanelColumns;
            if (wanted == kPanelColumns) {
                _mm256_storeu_ps(to, low_f32x8);
                _mm256_storeu_ps(to + 8, high_f32x8);
            } else {
                alignas(32) float both[kPanelColumns];
                _mm256_store_ps(both, low_f32x8);
                _mm256_store_ps(both + 8, high_f32x8);
                std::copy(both, both + wanted, to);
            }
        }
    }
}

}  // namespace

void attend_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t number, int64_t head) {
    thread_local Room<float> key_room, score_room;
    Attention text{};
    const int64_t begin = work.offsets[number], from = begin * kEncoderPanel;
    text.panels = in_panels(layer.head_width), text.length = work.offsets[number + 1] - begin, text.head_width = layer.head_width;
    text.stride = work.tokens * kEncoderPanel;
    const int64_t offset = head * text.panels * text.stride + from;
    text.query = work.query + offset, text.key = work.key + offset, text.value = work.value + offset;
    text.scale = 1.44269504f / std::sqrt(static_cast<float>(layer.head_width));
    text.context_stride = padded(layer.heads * layer.head_width);
    text.context = work.context + begin * text.context_stride + head * layer.head_width;
    float* keys = key_room.at_least(padded(text.length) * text.panels * kPanelColumns);
    text.keys = keys;
    text.scores = score_room.at_least(kQueries * padded(text.length));
    pack_keys(text, keys);
    int64_t row = 0;
    for (; row + kQueries <= text.length; row += kQueries) queries<kQueries>(text, row);
    switch (text.length - row) {
        case 5: return queries<5>(text, row);
        case 4: return queries<4>(text, row);
        case 3: return queries<3>(text, row);
        case 2: return queries<2>(text, row);
        case 1: return queries<1>(text, row);
    }
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors no encoder is made.
void attend_avx2(const EncoderWork&, const EncoderLayer&, int64_t, int64_t) {}

}  // namespace compress_rec

#endif
