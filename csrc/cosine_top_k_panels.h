// cosine_top_k_panels without torch: what the checks hand to the kernel. compress_rec/ops/cosine_top_k_panels.py specifies the op.
#pragma once

#include <cstdint>

namespace compress_rec {

constexpr int64_t kRowsOnlyItems = 6144;  // up to so many items the kernel selects from whole rows of scores

// One block of queries against one range of items.
struct CosineTopKPanelsTask {
    const float* queries;  // (queries, query_stride) unit length or zero
    int64_t query_count;
    int64_t query_stride;
    int64_t width;
    const float* panels;   // (all items / 16, width, 16), the whole catalogue
    int64_t first, last;   // the range: item ids first … last - 1; first is a multiple of 16
    int64_t k;             // how many to keep a query
    const int64_t* const* excluded;      // a query: its excluded ids, rising; null where nothing is excluded
    const int64_t* const* excluded_end;  // a query: one behind its last
    float* scores;         // (queries, k): the best of the range, falling, equal ones by the smaller id; -inf behind them
    int64_t* ids;          // (queries, k): theirs; -1 behind them
};

// Fills task.scores and task.ids. An item whose score is NaN is never among them.
// The score of a pair is one chain of FMAs in the order of the dimensions, whatever else is in the task.
void cosine_top_k_panels_avx2(const CosineTopKPanelsTask& task);

}  // namespace compress_rec
