// cosine_top_k for AVX2 and FMA: a fused product and selection; the queries × items matrix is never written.
//
// A score is one chain of 8-lane FMAs over the width, from both vectors as they lie in memory (nothing is packed), summed by a fixed
// tree. Tiles of three queries by four items keep twelve such chains in registers: 12 FMAs for 7 loads. One query alone, the last
// query of a block and the full tile all make the same chain, so a query's bits do not depend on its company.
#include "../cosine_top_k.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

constexpr int64_t kQueries = 3;  // of a tile
constexpr int64_t kItems = 4;    // of a tile
constexpr int64_t kPanel = 8;    // item rows that stay in L1 while the queries pass: 8 × 384 floats are 12 KB

// Lengths within these bounds leave a float dot product far from overflow and underflow; other rows are rescaled first.
constexpr double kSafeLeast = 1e-12, kSafeMost = 1e12;

inline __m256i mask_of(int64_t lanes) {
    alignas(32) static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 8 - lanes));
}

// The sums of the lanes of four accumulators: always the same tree.
inline __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 ab_f32x8 = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd_f32x8 = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 abcd_f32x8 = _mm256_add_ps(_mm256_shuffle_ps(ab_f32x8, cd_f32x8, 0x44), _mm256_shuffle_ps(ab_f32x8, cd_f32x8, 0xEE));
    return _mm_add_ps(_mm256_castps256_ps128(abcd_f32x8), _mm256_extractf128_ps(abcd_f32x8, 1));
}

// Dot products of Q queries and four items, out[q] = (item 0 … 3). The items have `width` floats, the queries zeros behind them.
template <int Q>
inline void tile(const float* queries, int64_t query_stride, const float* const* items, int64_t width, __m128* out) {
    __m256 sum_f32x8[Q][kItems];
    for (int q = 0; q < Q; ++q)
        for (int i = 0; i < kItems; ++i) sum_f32x8[q][i] = _mm256_setzero_ps();
    const float *item0 = items[0], *item1 = items[1], *item2 = items[2], *item3 = items[3];
    const int64_t whole = width / 8 * 8;
    for (int64_t d = 0; d < whole; d += 8) {
        __m256 query_f32x8[Q];
        for (int q = 0; q < Q; ++q) query_f32x8[q] = _mm256_loadu_ps(queries + q * query_stride + d);
        __m256 item_f32x8 = _mm256_loadu_ps(item0 + d);
        for (int q = 0; q < Q; ++q) sum_f32x8[q][0] = _mm256_fmadd_ps(query_f32x8[q], item_f32x8, sum_f32x8[q][0]);
        item_f32x8 = _mm256_loadu_ps(item1 + d);
        for (int q = 0; q < Q; ++q) sum_f32x8[q][1] = _mm256_fmadd_ps(query_f32x8[q], item_f32x8, sum_f32x8[q][1]);
        item_f32x8 = _mm256_loadu_ps(item2 + d);
        for (int q = 0; q < Q; ++q) sum_f32x8[q][2] = _mm256_fmadd_ps(query_f32x8[q], item_f32x8, sum_f32x8[q][2]);
        item_f32x8 = _mm256_loadu_ps(item3 + d);
        for (int q = 0; q < Q; ++q) sum_f32x8[q][3] = _mm256_fmadd_ps(query_f32x8[q], item_f32x8, sum_f32x8[q][3]);
    }
    if (whole < width) {
        const __m256i mask_i32x8 = mask_of(width - whole);
        for (int i = 0; i < kItems; ++i) {
            const __m256 item_f32x8 = _mm256_maskload_ps(items[i] + whole, mask_i32x8);
            for (int q = 0; q < Q; ++q)
                sum_f32x8[q][i] = _mm256_fmadd_ps(_mm256_loadu_ps(queries + q * query_stride + whole), item_f32x8, sum_f32x8[q][i]);
        }
    }
    for (int q = 0; q < Q; ++q) out[q] = sums_of(sum_f32x8[q][0], sum_f32x8[q][1], sum_f32x8[q][2], sum_f32x8[q][3]);
}

// The sum of squares in double: no float overflows it or vanishes in it. NaN and infinity come through.
double squares(const float* row, int64_t width) {
    __m256d low_f64x4 = _mm256_setzero_pd(), high_f64x4 = _mm256_setzero_pd();
    const int64_t whole = width / 8 * 8;
    for (int64_t d = 0; d < width; d += 8) {
        const __m256 row_f32x8 = d < whole ? _mm256_loadu_ps(row + d) : _mm256_maskload_ps(row + d, mask_of(width - whole));
        const __m256d a_f64x4 = _mm256_cvtps_pd(_mm256_castps256_ps128(row_f32x8));
        const __m256d b_f64x4 = _mm256_cvtps_pd(_mm256_extractf128_ps(row_f32x8, 1));
        low_f64x4 = _mm256_fmadd_pd(a_f64x4, a_f64x4, low_f64x4);
        high_f64x4 = _mm256_fmadd_pd(b_f64x4, b_f64x4, high_f64x4);
    }
    alignas(32) double lanes[4];
    _mm256_store_pd(lanes, _mm256_add_pd(low_f64x4, high_f64x4));
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

void scaled(const float* row, int64_t width, double factor, float* out) {
    for (int64_t d = 0; d < width; ++d) out[d] = static_cast<float>(row[d] * factor);
}

bool finite(const float* row, int64_t width) {
    for (int64_t d = 0; d < width; ++d)
        if (!std::isfinite(row[d])) return false;
    return true;
}

inline Candidate candidate_of(float score, int64_t id) {
    const float positive_zero = score + 0.0f;  // -0 becomes 0, so that they tie
    uint32_t bits;
    std::memcpy(&bits, &positive_zero, sizeof bits);
    const uint32_t order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<Candidate>(order) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}

// The candidates of one query: a buffer that is cut back to its best k when it is full. Ids come rising, so of equal scores the later
// one never displaces the earlier, and "above the threshold" may be strict.
class Shortlist {
  public:
    void open(Candidate* room, int64_t capacity, int64_t k, const int64_t* excluded, const int64_t* excluded_end) {
        room_ = room, capacity_ = capacity, k_ = k, excluded_ = excluded, excluded_end_ = excluded_end;
    }
    float threshold() const { return threshold_; }
    void add(float score, int64_t id) {
        while (excluded_ != excluded_end_ && *excluded_ < id) ++excluded_;
        if (excluded_ != excluded_end_ && *excluded_ == id) return;
        room_[filled_++] = candidate_of(score, id);
        if (filled_ == capacity_) cut();
    }
    void close(Candidate* kept) {
        if (filled_ > k_) cut();
        std::copy(room_, room_ + filled_, kept);
        std::fill(kept + filled_, kept + k_, Candidate{0});
    }

  private:
    void cut() {
        std::nth_element(room_, room_ + k_ - 1, room_ + filled_, std::greater<>());
        filled_ = k_;
        const uint32_t order = static_cast<uint32_t>(room_[k_ - 1] >> 32);
        const uint32_t bits = order & 0x80000000u ? order ^ 0x80000000u : ~order;
        std::memcpy(&threshold_, &bits, sizeof bits);
    }

    Candidate* room_ = nullptr;
    int64_t capacity_ = 0, k_ = 0, filled_ = 0;
    const int64_t* excluded_ = nullptr;
    const int64_t* excluded_end_ = nullptr;
    float threshold_ = -std::numeric_limits<float>::infinity();
};

// Four scores of one query: those above its threshold go to its shortlist.
inline void offer(Shortlist& list, __m128 score_f32x4, int64_t id, int64_t count) {
    int above = _mm_movemask_ps(_mm_cmp_ps(score_f32x4, _mm_set1_ps(list.threshold()), _CMP_GT_OQ)) & ((1 << count) - 1);
    if (above == 0) return;
    alignas(16) float score[4];
    _mm_store_ps(score, score_f32x4);
    for (; above != 0; above &= above - 1) {
        const int lane = __builtin_ctz(static_cast<unsigned>(above));
        if (score[lane] > list.threshold()) list.add(score[lane], id + lane);
    }
}

// A panel's rows as the tiles read them, and what each dot product is multiplied by.
struct Panel {
    const float* rows[kPanel];
    alignas(16) float factor[kPanel];
};

// Points at the rows id … id + count - 1; the places behind them repeat the last row and are not offered. Returns a bad row or kNoRow.
int64_t fill(Panel& panel, const CosineTopKTask& task, int64_t id, int64_t count, float* spare) {
    for (int64_t i = 0; i < kPanel; ++i) {
        const int64_t row = id + std::min(i, count - 1);
        panel.rows[i] = task.items + row * task.width;
        panel.factor[i] = 1.0f;
        if (task.normalised || i >= count) continue;
        const double square = squares(panel.rows[i], task.width);
        if (!std::isfinite(square)) return row;
        const double length = std::sqrt(square);
        if (length >= kSafeLeast && length <= kSafeMost) {
            panel.factor[i] = static_cast<float>(1.0 / length);
        } else {
            scaled(panel.rows[i], task.width, length == 0.0 ? 0.0 : 1.0 / length, spare + i * task.width);
            panel.rows[i] = spare + i * task.width;
        }
    }
    return kNoRow;
}

template <int Q>
inline void pass(const CosineTopKTask& task, const Panel& panel, int64_t first_query, int64_t id, int64_t count, Shortlist* lists,
                 bool& suspicious) {
    for (int64_t part = 0; part < count; part += kItems) {
        __m128 score_f32x4[Q];
        tile<Q>(task.queries + first_query * task.padded_width, task.padded_width, panel.rows + part, task.width, score_f32x4);
        const __m128 factor_f32x4 = _mm_load_ps(panel.factor + part);
        for (int q = 0; q < Q; ++q) {
            score_f32x4[q] = _mm_mul_ps(score_f32x4[q], factor_f32x4);
            offer(lists[first_query + q], score_f32x4[q], id + part, std::min(kItems, count - part));
        }
        if (first_query == 0) {  // NaN or infinity anywhere in a row makes its product with any query NaN or infinite
            const __m128 zero_f32x4 = _mm_sub_ps(score_f32x4[0], score_f32x4[0]);
            suspicious |= _mm_movemask_ps(_mm_cmp_ps(zero_f32x4, zero_f32x4, _CMP_UNORD_Q)) != 0;
        }
    }
}

}  // namespace

int64_t cosine_top_k_avx2(const CosineTopKTask& task) {
    const int64_t capacity = std::min(std::max<int64_t>(2 * task.k, task.k + 32), std::max(task.k, task.last - task.first) + 1);
    std::vector<Candidate> room(static_cast<size_t>(task.query_count * capacity));
    std::vector<Shortlist> lists(static_cast<size_t>(task.query_count));
    std::vector<float> spare(static_cast<size_t>(kPanel * task.width));
    for (int64_t q = 0; q < task.query_count; ++q) {
        lists[q].open(room.data() + q * capacity, capacity, task.k, task.excluded ? task.excluded[q] : nullptr,
                      task.excluded ? task.excluded_end[q] : nullptr);
    }
    Panel panel;
    for (int64_t id = task.first; id < task.last; id += kPanel) {
        const int64_t count = std::min(kPanel, task.last - id);
        const int64_t bad = fill(panel, task, id, count, spare.data());
        if (bad != kNoRow) return bad;
        bool suspicious = false;
        int64_t q = 0;
        for (; q + kQueries <= task.query_count; q += kQueries) pass<kQueries>(task, panel, q, id, count, lists.data(), suspicious);
        if (task.query_count - q == 2) pass<2>(task, panel, q, id, count, lists.data(), suspicious);
        if (task.query_count - q == 1) pass<1>(task, panel, q, id, count, lists.data(), suspicious);
        if (suspicious && task.check_finite) {
            for (int64_t row = id; row < id + count; ++row)
                if (!finite(task.items + row * task.width, task.width)) return row;
        }
    }
    for (int64_t q = 0; q < task.query_count; ++q) lists[q].close(task.kept + q * task.k);
    return kNoRow;
}

int64_t unit_rows_avx2(const float* rows, int64_t count, int64_t width, int64_t padded_width, float* unit) {
    for (int64_t row = 0; row < count; ++row) {
        const double square = squares(rows + row * width, width);
        if (!std::isfinite(square)) return row;
        float* out = unit + row * padded_width;
        scaled(rows + row * width, width, square == 0.0 ? 0.0 : 1.0 / std::sqrt(square), out);
        std::fill(out + width, out + padded_width, 0.0f);
    }
    return kNoRow;
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
int64_t cosine_top_k_avx2(const CosineTopKTask&) { return kNoRow; }
int64_t unit_rows_avx2(const float*, int64_t, int64_t, int64_t, float*) { return kNoRow; }

}  // namespace compress_rec

#endif
