// cosine_top_k_int8 without torch: what the checks hand to the kernel. compress_rec/ops/cosine_top_k_int8.py specifies the op.
#pragma once

#include <cstdint>

namespace compress_rec {

// One block of queries against one range of items.
struct CosineTopKInt8Task {
    const float* queries;     // (queries, width) unit length or zero
    int64_t query_count, width;
    const int8_t* panels;     // (all items / 16, steps, 2, 16, 4): no four codes that meet in 16 bits may leave them
    int64_t steps;            // of a panel: ceil(width / 8)
    const int32_t* sums;      // (all items,): the sum of an item's codes
    const float* scales;      // (all items,): NaN where the item is removed
    const float* residuals;   // (all items,): at least the length of vector - scale · codes
    const float* items;       // (all items, width) the vectors themselves, or null: then scale · codes stand for them
    int64_t first, last;      // the range: item ids first … last - 1; first is a multiple of 16
    int64_t k;                // how many to keep a query
    const int64_t* const* excluded;      // a query: its excluded ids, rising; null where nothing is excluded
    const int64_t* const* excluded_end;  // a query: one behind its last
    float* scores;            // (queries, k): the best of the range, falling, equal ones by the smaller id; -inf behind them
    int64_t* ids;             // (queries, k): theirs; -1 behind them
};

// Fills task.scores and task.ids with the best by float64 dot product, rounded to float32 once.
void cosine_top_k_int8_avx2(const CosineTopKInt8Task& task);

// Scores for each of the task's queries `each` items of its range by float64 dot product, rounded to float32 once; ids (queries, each), of
// which those below 0 get no score. Item by item, so that a row comes from memory once for all queries that want it.
void scores_of_avx2(const CosineTopKInt8Task& task, const int64_t* ids, int64_t each, float* scores);

// Lays (count, width) rows out in panels of 16 (compress_rec/panels.py), zeros behind the last one; rows of a NaN scale become NaN.
void panels_of_avx2(const float* items, const float* scales, int64_t count, int64_t width, float* panels);

}  // namespace compress_rec
