// cosine_top_k_int8 for AVX2: every item is screened in int8, and only what may be among the best is scored in float64.
//
// Why nothing is lost. Let q be the query, of length at most 1 + 2^-20 (it was rounded to float32), q = t·u + e with whole numbers u of 7
// bits and |e| = ε measured; and x an item of at most that length, x = s·c + r with |r| ≤ R as stored. With the exact integer D = c · u,
//     x·q = s·c·q + r·q = t·s·D + s·c·e + r·q  ≤  t·s·D + (1 + 2^-20 + R)·ε + R·(1 + 2^-20)
// by Cauchy and Schwarz, since |s·c| ≤ |x| + |r|. Where scale times codes stand for the item, r is 0 in this and the last term falls away.
// Divided by t, the item's part is s·D + R·a with a = (1 + 2^-20 + ε) / t, or ε / t; the query's part, (1 + 2^-20)·ε, is taken off the bar
// instead. The float32 arithmetic of the screening rounds D (from 2^24 on), s·D, R·a, their sum, a and the bar: six roundings of numbers
// below 1.4 / t, together less than 2^-21 / t; and a score is rounded to float32 once more, by at most 2^-24. The bar lies 2^-19 lower
// for all of that.
#include "../cosine_top_k_int8.h"

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

#include "finalists_avx2.h"

constexpr double kAboveOne = 1.0 + 0x1p-20, kRoundings = 0x1p-19;
constexpr int32_t kZero = 64;  // the byte that stands for 0 in a query
constexpr int kWide = 8;       // vectors of a tile for one query alone: four panels

// The queries of a block: their bytes as the tile reads them, and what a screened number is compared with.
struct Screen {
    std::vector<uint8_t> bytes;
    std::vector<float> part;  // a: what an item's residual counts
    std::vector<Finalists> lists;

    explicit Screen(const CosineTopKInt8Task& task)
        : bytes(static_cast<size_t>((task.query_count + kRowsInBlock - 1) / kRowsInBlock * task.steps * kBlockStep)),
          part(static_cast<size_t>(task.query_count)),
          lists(static_cast<size_t>(task.query_count)) {
        for (int64_t q = 0; q < task.query_count; ++q) {
            const float* query = task.queries + q * task.width;
            float most = 0.0f;
            for (int64_t d = 0; d < task.width; ++d) most = std::max(most, std::fabs(query[d]));
            const float unit = most == 0.0f ? 1.0f : most / 63.0f;
            uint8_t* place = bytes.data() + q / kRowsInBlock * task.steps * kBlockStep + q % kRowsInBlock * kPlacesInStep;
            double square = 0.0;
            for (int64_t d = 0; d < task.width; ++d) {
                const int32_t level = static_cast<int32_t>(std::clamp(std::nearbyint(query[d] / unit), -63.0f, 63.0f));
                const double rest = static_cast<double>(query[d]) - static_cast<double>(unit) * level;
                square += rest * rest;
                place[d / kPlacesInStep * kBlockStep + d % kPlacesInStep] = static_cast<uint8_t>(kZero + level);
            }
            const double error = std::sqrt(square) * (1.0 + 1e-6);
            part[q] = static_cast<float>((task.items ? kAboveOne + error : error) / unit);
            lists[q].open(task, q, kAboveOne * error + kRoundings, unit);
        }
    }
};

// What the screening reads of PANELS panels; behind the last item the scale is NaN, which reaches no bar.
template <int PANELS>
struct Items {
    alignas(32) int32_t offsets[PANELS * kInt8Columns];
    alignas(32) float scales[PANELS * kInt8Columns];
    alignas(32) float residuals[PANELS * kInt8Columns];

    Items(const CosineTopKInt8Task& task, int64_t first) {
        for (int64_t i = 0; i < PANELS * kInt8Columns; ++i) {
            const bool there = first + i < task.last;
            offsets[i] = there ? kZero * task.sums[first + i] : 0;
            scales[i] = there ? task.scales[first + i] : std::numeric_limits<float>::quiet_NaN();
            residuals[i] = there ? task.residuals[first + i] : 0.0f;
        }
    }
};

// Some queries of one block of four against some panels.
template <int ROWS, int VECTORS>
inline void pass(const CosineTopKInt8Task& task, Screen& screen, const Items<VECTORS / 2>& items, int64_t first_query, int64_t id) {
    alignas(32) int32_t total[ROWS][VECTORS * 8];
    const int64_t panel_bytes = task.steps * kBytesInStep;
    maddubs_tile<ROWS, VECTORS>(screen.bytes.data() + first_query / kRowsInBlock * task.steps * kBlockStep,
                                task.panels + id / kInt8Columns * panel_bytes, panel_bytes, task.steps, total);
    for (int r = 0; r < ROWS; ++r) {
        Finalists& list = screen.lists[first_query + r];
        const __m256 part_f32x8 = _mm256_set1_ps(screen.part[first_query + r]), bar_f32x8 = _mm256_set1_ps(list.bar());
        alignas(32) float upper[VECTORS * 8];
        uint64_t reached = 0;
        for (int v = 0; v < VECTORS; ++v) {
            const __m256i total_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(total[r] + v * 8));
            const __m256i offset_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(items.offsets + v * 8));
            const __m256 product_f32x8 = _mm256_cvtepi32_ps(_mm256_sub_epi32(total_i32x8, offset_i32x8));
            const __m256 screened_f32x8 = _mm256_mul_ps(product_f32x8, _mm256_load_ps(items.scales + v * 8));
            const __m256 upper_f32x8 = _mm256_add_ps(screened_f32x8, _mm256_mul_ps(_mm256_load_ps(items.residuals + v * 8), part_f32x8));
            _mm256_store_ps(upper + v * 8, upper_f32x8);
            const int mask = _mm256_movemask_ps(_mm256_cmp_ps(upper_f32x8, bar_f32x8, _CMP_GE_OQ));
            reached |= static_cast<uint64_t>(static_cast<uint32_t>(mask)) << (v * 8);
        }
        for (; reached != 0; reached &= reached - 1) {
            const int lane = __builtin_ctzll(reached);
            if (upper[lane] >= list.bar()) list.add(upper[lane], static_cast<int32_t>(id + lane));
        }
    }
}

void one_query(const CosineTopKInt8Task& task, Screen& screen) {
    constexpr int kPanels = kWide / 2;
    int64_t id = task.first;
    for (; id + kPanels * kInt8Columns <= task.last; id += kPanels * kInt8Columns) {
        const Items<kPanels> items(task, id);
        pass<1, kWide>(task, screen, items, 0, id);
    }
    for (; id < task.last; id += kInt8Columns) {
        const Items<1> items(task, id);
        pass<1, 2>(task, screen, items, 0, id);
    }
}

void many_queries(const CosineTopKInt8Task& task, Screen& screen) {
    for (int64_t id = task.first; id < task.last; id += kInt8Columns) {
        const Items<1> items(task, id);
        int64_t q = 0;
        for (; q + kRowsInBlock <= task.query_count; q += kRowsInBlock) pass<kRowsInBlock, 2>(task, screen, items, q, id);
        if (task.query_count - q == 3) pass<3, 2>(task, screen, items, q, id);
        if (task.query_count - q == 2) pass<2, 2>(task, screen, items, q, id);
        if (task.query_count - q == 1) pass<1, 2>(task, screen, items, q, id);
    }
}

}  // namespace

void cosine_top_k_int8_avx2(const CosineTopKInt8Task& task) {
    Screen screen(task);
    if (task.query_count == 1) {
        one_query(task, screen);
    } else {
        many_queries(task, screen);
    }
    for (int64_t q = 0; q < task.query_count; ++q) screen.lists[q].close(task.scores + q * task.k, task.ids + q * task.k);
}

void scores_of_avx2(const CosineTopKInt8Task& task, const int64_t* ids, int64_t each, float* scores) {
    const int64_t pairs = task.query_count * each;
    std::vector<int64_t> place(static_cast<size_t>(task.last - task.first + 1), 0), order(static_cast<size_t>(pairs));
    for (int64_t i = 0; i < pairs; ++i)
        if (ids[i] >= 0) ++place[ids[i] - task.first + 1];
    for (size_t item = 1; item < place.size(); ++item) place[item] += place[item - 1];
    const int64_t wanted = place.back();
    for (int64_t i = 0; i < pairs; ++i)
        if (ids[i] >= 0) order[place[ids[i] - task.first]++] = i;
    const std::vector<double> wide(task.queries, task.queries + task.query_count * task.width);
    for (int64_t i = 0; i < wanted; ++i) {
        const int64_t pair = order[i];
        scores[pair] = score_of(product_of(wide.data() + pair / each * task.width, task.items + ids[pair] * task.width, task.width));
    }
}

void panels_of_avx2(const float* items, const float* scales, int64_t count, int64_t width, float* panels) {
    for (int64_t first = 0; first < count; first += 16) {
        for (int64_t half = 0; half < 16; half += 8) {
            const int64_t there = std::clamp<int64_t>(count - first - half, 0, 8);
            const float* rows = items + (first + half) * width;
            float* panel = panels + first * width + half;
            int64_t d = 0;
            for (; there == 8 && d + 8 <= width; d += 8) {
                __m256 a_f32x8[8], b_f32x8[8];
                for (int i = 0; i < 8; ++i) a_f32x8[i] = _mm256_loadu_ps(rows + i * width + d);
                for (int i = 0; i < 8; i += 2) {
                    b_f32x8[i] = _mm256_unpacklo_ps(a_f32x8[i], a_f32x8[i + 1]);
                    b_f32x8[i + 1] = _mm256_unpackhi_ps(a_f32x8[i], a_f32x8[i + 1]);
                }
                for (int i = 0; i < 8; i += 4) {
                    a_f32x8[i] = _mm256_shuffle_ps(b_f32x8[i], b_f32x8[i + 2], 0x44);
                    a_f32x8[i + 1] = _mm256_shuffle_ps(b_f32x8[i], b_f32x8[i + 2], 0xEE);
                    a_f32x8[i + 2] = _mm256_shuffle_ps(b_f32x8[i + 1], b_f32x8[i + 3], 0x44);
                    a_f32x8[i + 3] = _mm256_shuffle_ps(b_f32x8[i + 1], b_f32x8[i + 3], 0xEE);
                }
                for (int i = 0; i < 4; ++i) {
                    _mm256_storeu_ps(panel + (d + i) * 16, _mm256_permute2f128_ps(a_f32x8[i], a_f32x8[i + 4], 0x20));
                    _mm256_storeu_ps(panel + (d + i + 4) * 16, _mm256_permute2f128_ps(a_f32x8[i], a_f32x8[i + 4], 0x31));
                }
            }
            for (; d < width; ++d)
                for (int64_t i = 0; i < 8; ++i) panel[d * 16 + i] = i < there ? rows[i * width + d] : 0.0f;
            for (int64_t i = 0; i < there; ++i)
                for (int64_t e = 0; std::isnan(scales[first + half + i]) && e < width; ++e) panel[e * 16 + i] = scales[first + half + i];
        }
    }
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
void cosine_top_k_int8_avx2(const CosineTopKInt8Task&) {}
void scores_of_avx2(const CosineTopKInt8Task&, const int64_t*, int64_t, float*) {}
void panels_of_avx2(const float*, const float*, int64_t, int64_t, float*) {}

}  // namespace compress_rec

#endif
