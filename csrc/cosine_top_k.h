// cosine_top_k without torch: what the checks hand to a kernel. compress_rec/ops/cosine_top_k.py specifies the op.
#pragma once

#include <cstdint>

namespace compress_rec {

// A candidate as one number that orders by (score, then smaller id): the score's bits in an order of integers, above 2^32 - 1 - id.
// No finite score gives 0, so 0 stands for "none".
using Candidate = uint64_t;

constexpr int64_t kNoRow = -1;

// One block of queries against one range of items.
struct CosineTopKTask {
    const float* queries;   // (queries, padded_width) unit length or zero, zeros behind width
    const float* items;     // (all items, width), the whole catalogue
    int64_t query_count;
    int64_t width;
    int64_t padded_width;   // width rounded up to a multiple of 8
    int64_t first, last;    // the range: item ids first … last - 1
    int64_t k;              // how many to keep a query
    bool normalised;        // items have length 1 already
    bool check_finite;      // where normalised: look for NaN and infinity in the items, through the first query's scores
    const int64_t* const* excluded;      // a query: its excluded ids, rising; null where nothing is excluded
    const int64_t* const* excluded_end;  // a query: one behind its last
    Candidate* kept;        // (queries, k): the best of the range in no order, 0 behind them
};

// Fills task.kept. Returns kNoRow, or an item that holds NaN or infinity: then kept means nothing.
// The score of a pair is one chain of 8-lane FMAs over the width and a fixed tree, whatever else is in the task.
int64_t cosine_top_k_avx2(const CosineTopKTask& task);

// Writes unit rows, (rows, padded_width) with zeros behind width; rows of length 0 stay 0. Norms are taken in double.
// Returns kNoRow or the first row that holds NaN or infinity.
int64_t unit_rows_avx2(const float* rows, int64_t count, int64_t width, int64_t padded_width, float* unit);

}  // namespace compress_rec
