// cosine_top_k_panels for AVX2 and FMA: a fused product and selection; the queries × items matrix is never written whole.
//
// Queries are packed in tiles of up to six, and each tile is multiplied by a panel of 16 items at a time. The first items' scores are
// written in rows, a small group of queries at a time, and a row's best are found by comparing all of it with a bound. From there on
// each tile is compared, in registers, with what its queries have to beat; the few that do go to the shortlists. A small catalogue ends
// with its rows. One query alone takes four panels at a time and two take two, so that enough chains of FMAs run beside each other.
#include "../cosine_top_k_panels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "fma_tile_avx2.h"
#include "shortlist_avx2.h"

constexpr int64_t kTile = 6;          // queries of a full tile
constexpr int64_t kRowItems = 2048;   // scores in a row
constexpr int64_t kRowTiles = 8;      // tiles whose rows are written at a time: 48 rows of 2,048 floats are 384 KB
constexpr int64_t kSteps = 8;         // dimensions between two prefetches; more of them at a time stall

// Up to six queries, step by step: (width, rows) floats.
struct Tile {
    const float* queries;
    int64_t first, rows;
};


// Which lines of every kSteps of the next panel a tile fetches ahead.
struct Share {
    int64_t from, to;
};

class Block {
  public:
    explicit Block(const CosineTopKPanelsTask& task)
        : task_(task),
          capacity_(Shortlist::capacity_for(task.k, task.last - task.first)),
          packed_(new float[static_cast<size_t>(task.query_count * task.width)]),
          scores_(new float[static_cast<size_t>(task.query_count * capacity_)]),
          ids_(new int32_t[static_cast<size_t>(task.query_count * capacity_)]),
          lists_(static_cast<size_t>(task.query_count)),
          thresholds_(static_cast<size_t>(task.query_count), kNone) {
        for (int64_t q = 0; q < task.query_count; ++q) {
            lists_[q].open(scores_.get() + q * capacity_, ids_.get() + q * capacity_, capacity_, task.k,
                           task.excluded ? task.excluded[q] : nullptr, task.excluded ? task.excluded_end[q] : nullptr);
        }
        pack();
    }

    void search() {
        // a threshold needs k scores; twice as many make it worth having
        const int64_t ahead = std::max(kRowItems, (2 * task_.k + 15) / 16 * 16);
        const int64_t rows_end = task_.last - task_.first <= std::max(kRowsOnlyItems, ahead) ? task_.last : task_.first + ahead;
        rows(rows_end);
        for (int64_t q = 0; q < task_.query_count; ++q) {
            if (rows_end < task_.last) lists_[q].cut();
            thresholds_[q] = lists_[q].threshold();
        }
        const int64_t step = panels_at_once() * kPanelColumns;
        for (int64_t first = rows_end; first < task_.last; first += step)
            for (size_t t = 0; t < tiles_.size(); ++t)
                multiply(tiles_[t], first, std::min(first + step, task_.last), nullptr, 0, share_of(t, tiles_.size()));
        for (int64_t q = 0; q < task_.query_count; ++q) lists_[q].close(task_.scores + q * task_.k, task_.ids + q * task_.k);
    }

  private:
    // Sixes, and what is left over in tiles of nearly equal height, so that none of them is a lonely row.
    void pack() {
        float* out = packed_.get();
        for (int64_t q = 0; q < task_.query_count;) {
            const int64_t left = task_.query_count - q;
            const int64_t rows = left > kTile && left < 2 * kTile ? (left + 1) / 2 : std::min(left, kTile);
            tiles_.push_back({out, q, rows});
            for (int64_t d = 0; d < task_.width; ++d)
                for (int64_t r = 0; r < rows; ++r) *out++ = task_.queries[(q + r) * task_.query_stride + d];
            q += rows;
        }
    }

    Share share_of(size_t turn, size_t turns) const {
        if (panels_at_once() > 1) return {0, 0};
        const int64_t i = static_cast<int64_t>(turn), n = static_cast<int64_t>(turns);
        return {kSteps * i / n, kSteps * (i + 1) / n};
    }

    int64_t panels_at_once() const { return task_.query_count == 1 ? 4 : task_.query_count <= 3 ? 2 : 1; }

    // Writes the scores of the items up to `end` in rows, and offers the rows to the shortlists.
    void rows(int64_t end) {
        const int64_t stride = std::min(kRowItems, (end - task_.first + 15) / 16 * 16) + kPanelColumns;
        const int64_t step = panels_at_once() * kPanelColumns;
        const int64_t group = std::min<int64_t>(kRowTiles, static_cast<int64_t>(tiles_.size()));
        const std::unique_ptr<float[]> room(new float[static_cast<size_t>(group * kTile * stride + kPanelColumns)]);
        float* scores = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(room.get()) + 63) / 64 * 64);
        const std::unique_ptr<float[]> maxima(new float[static_cast<size_t>(stride)]);
        const std::unique_ptr<int32_t[]> ids(new int32_t[static_cast<size_t>(stride)]);
        for (size_t begin = 0; begin < tiles_.size(); begin += kRowTiles) {
            const size_t behind = std::min(begin + kRowTiles, tiles_.size());
            const int64_t first_query = tiles_[begin].first, last_query = tiles_[behind - 1].first + tiles_[behind - 1].rows;
            for (int64_t first = task_.first; first < end; first += kRowItems) {
                const int64_t last = std::min(first + kRowItems, end);
                for (int64_t item = first; item < last; item += step) {
                    for (size_t t = begin; t < behind; ++t) {
                        multiply(tiles_[t], item, std::min(item + step, last),
                                 scores + (tiles_[t].first - first_query) * stride + (item - first), stride,
                                 share_of(t - begin, behind - begin));
                    }
                }
                for (int64_t q = first_query; q < last_query; ++q)
                    lists_[q].add_row(scores + (q - first_query) * stride, last - first, first, maxima.get(), ids.get());
            }
        }
    }

    void multiply(const Tile& tile, int64_t first, int64_t last, float* rows, int64_t stride, Share share) {
        const int64_t panels = (last - first + kPanelColumns - 1) / kPanelColumns;
        switch (tile.rows * 8 + panels) {
            case 1 * 8 + 4: return pass<1, 4>(tile, first, last, rows, stride, share);
            case 2 * 8 + 2: return pass<2, 2>(tile, first, last, rows, stride, share);
            case 3 * 8 + 2: return pass<3, 2>(tile, first, last, rows, stride, share);
        }
        for (; first < last; first += kPanelColumns) {
            const int64_t behind = std::min(first + kPanelColumns, last);
            switch (tile.rows) {
                case 1: pass<1, 1>(tile, first, behind, rows, stride, share); break;
                case 2: pass<2, 1>(tile, first, behind, rows, stride, share); break;
                case 3: pass<3, 1>(tile, first, behind, rows, stride, share); break;
                case 4: pass<4, 1>(tile, first, behind, rows, stride, share); break;
                case 5: pass<5, 1>(tile, first, behind, rows, stride, share); break;
                default: pass<6, 1>(tile, first, behind, rows, stride, share); break;
            }
            if (rows != nullptr) rows += kPanelColumns;
        }
    }

    // The scores of a tile against PANELS panels: into rows where there are some, else to the shortlists.
    template <int ROWS, int PANELS>
    __attribute__((noinline)) void pass(const Tile& tile, int64_t first, int64_t last, float* rows, int64_t stride, Share share) {
        const float* panels = task_.panels + first * task_.width;
        __m256 sum_f32x8[ROWS][PANELS * 2];
        _Pragma("GCC unroll 8")
        for (int r = 0; r < ROWS; ++r)
            _Pragma("GCC unroll 8")
            for (int v = 0; v < PANELS * 2; ++v) sum_f32x8[r][v] = _mm256_setzero_ps();
        const int64_t panel = kPanelColumns * task_.width;
        for (int64_t d = 0; d < task_.width; d += kSteps) {
            for (int64_t line = share.from; line < share.to; ++line)
                _mm_prefetch(reinterpret_cast<const char*>(panels + panel + (d + line) * kPanelColumns), _MM_HINT_T1);
            const int64_t steps = std::min(kSteps, task_.width - d);
            fma_tile<ROWS, PANELS * 2>(tile.queries + d * ROWS, 1, ROWS, panels + d * kPanelColumns, panel, steps, sum_f32x8);
        }
        if (rows != nullptr) {
            _Pragma("GCC unroll 8")
            for (int r = 0; r < ROWS; ++r)
                _Pragma("GCC unroll 8")
                for (int v = 0; v < PANELS * 2; ++v) _mm256_storeu_ps(rows + r * stride + v * 8, sum_f32x8[r][v]);
            return;
        }
        __m256 any_f32x8 = _mm256_setzero_ps();
        const float* thresholds = thresholds_.data() + tile.first;
        _Pragma("GCC unroll 8")
        for (int r = 0; r < ROWS; ++r) {
            const __m256 threshold_f32x8 = _mm256_broadcast_ss(thresholds + r);
            _Pragma("GCC unroll 8")
            for (int v = 0; v < PANELS * 2; ++v)
                any_f32x8 = _mm256_or_ps(any_f32x8, _mm256_cmp_ps(sum_f32x8[r][v], threshold_f32x8, _CMP_GT_OQ));
        }
        if (__builtin_expect(_mm256_movemask_ps(any_f32x8) == 0, 1)) return;
        alignas(32) float found[ROWS][PANELS * kPanelColumns];
        _Pragma("GCC unroll 8")
        for (int r = 0; r < ROWS; ++r)
            _Pragma("GCC unroll 8")
            for (int v = 0; v < PANELS * 2; ++v) _mm256_store_ps(found[r] + v * 8, sum_f32x8[r][v]);
        _Pragma("GCC unroll 8")
        for (int r = 0; r < ROWS; ++r)
            for (int p = 0; p < PANELS; ++p) offer(tile.first + r, found[r] + p * kPanelColumns, first + p * kPanelColumns, last);
    }

    // The 16 scores of a panel for one query; items behind `last` are none.
    void offer(int64_t q, const float* scores, int64_t first, int64_t last) {
        const __m256 threshold_f32x8 = _mm256_set1_ps(thresholds_[q]);
        const __m256 low_f32x8 = _mm256_cmp_ps(_mm256_load_ps(scores), threshold_f32x8, _CMP_GT_OQ);
        const __m256 high_f32x8 = _mm256_cmp_ps(_mm256_load_ps(scores + 8), threshold_f32x8, _CMP_GT_OQ);
        unsigned wanted = static_cast<unsigned>(_mm256_movemask_ps(low_f32x8) | _mm256_movemask_ps(high_f32x8) << 8);
        if (last - first < kPanelColumns) wanted &= (1u << (last - first)) - 1;
        if (wanted == 0) return;
        lists_[q].add(scores, wanted, first);
        thresholds_[q] = lists_[q].threshold();
    }

    const CosineTopKPanelsTask& task_;
    const int64_t capacity_;
    const std::unique_ptr<float[]> packed_, scores_;
    const std::unique_ptr<int32_t[]> ids_;
    std::vector<Shortlist> lists_;
    std::vector<float> thresholds_;  // of the shortlists, one behind the other
    std::vector<Tile> tiles_;
};

}  // namespace

void cosine_top_k_panels_avx2(const CosineTopKPanelsTask& task) {
    Block(task).search();
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
void cosine_top_k_panels_avx2(const CosineTopKPanelsTask&) {}

}  // namespace compress_rec

#endif
