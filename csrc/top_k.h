// What the top-k ops share on torch's side: checks in the references' words, the excluded ids, the cut into parts.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "check.h"

namespace compress_rec {

constexpr int64_t kMostItems = std::numeric_limits<int32_t>::max();
constexpr int64_t kFewestItemsInRange = 2048;

inline void check_vectors(const char* op, const char* argument, const torch::stable::Tensor& vectors) {
    if (vectors.scalar_type() != torch::headeronly::ScalarType::Float || vectors.dim() != 2) {
        refuse(op, argument, std::string("float32 (") + argument + ", dimensions)", described(vectors),
               "reshape it, or convert it with .float()");
    }
}

// queries is as wide as the items, there are not too many items, and k of them can be had. `items` is the argument that holds them.
inline void check_sizes(const char* op, const char* items, const torch::stable::Tensor& queries, int64_t item_width, int64_t item_count,
                        int64_t k) {
    if (queries.size(1) != item_width) {
        refuse(op, "queries", std::string("as wide as ") + items + " (" + std::to_string(item_width) + ")",
               "width " + std::to_string(queries.size(1)), "encode both with the same recommender");
    }
    if (item_count > kMostItems) {
        refuse(op, items, "at most " + std::to_string(kMostItems) + " rows", std::to_string(item_count) + " rows", "search it in parts");
    }
    if (k < 1 || k > item_count) {
        refuse(op, "k", "from 1 to the number of items (" + std::to_string(item_count) + ")", std::to_string(k), "ask for fewer");
    }
}

inline void check_exclusions(const char* op, const std::optional<torch::stable::Tensor>& exclude,
                             const std::optional<torch::stable::Tensor>& exclude_offsets) {
    if (exclude.has_value() != exclude_offsets.has_value()) {
        refuse(op, exclude.has_value() ? "exclude_offsets" : "exclude", "given with its partner", "only one of exclude and exclude_offsets",
               "give both or neither");
    }
    if (!exclude.has_value()) return;
    const auto check_ids = [op](const char* argument, const torch::stable::Tensor& values) {
        if (values.scalar_type() != torch::headeronly::ScalarType::Long || values.dim() != 1) {
            refuse(op, argument, std::string("int64 (") + argument + ",)", described(values), "flatten it, or convert it with .long()");
        }
    };
    check_ids("exclude", *exclude);
    check_ids("exclude_offsets", *exclude_offsets);
}

// The excluded ids of every query, rising, as the kernel reads them.
struct Excluded {
    std::vector<int64_t> ids;
    std::vector<const int64_t*> begin, end;

    Excluded(const char* op, const torch::stable::Tensor& exclude, const torch::stable::Tensor& exclude_offsets, int64_t query_count,
             int64_t item_count) {
        const torch::stable::Tensor given = in_order(exclude), given_offsets = in_order(exclude_offsets);
        const int64_t* values = given.const_data_ptr<int64_t>();
        const int64_t* offsets = given_offsets.const_data_ptr<int64_t>();
        const int64_t length = given.size(0);
        bool rising = given_offsets.size(0) == query_count + 1 && offsets[0] == 0 && offsets[query_count] == length;
        for (int64_t q = 0; rising && q < query_count; ++q) rising = offsets[q] <= offsets[q + 1];
        if (!rising) {
            refuse(op, "exclude_offsets", std::to_string(query_count + 1) + " numbers rising from 0 to " + std::to_string(length),
                   "something else", "give one more offset than queries");
        }
        for (int64_t i = 0; i < length; ++i) {
            if (values[i] < 0 || values[i] >= item_count) {
                refuse(op, "exclude", "item ids from 0 to " + std::to_string(item_count - 1), "id " + std::to_string(values[i]),
                       "leave unknown ids out");
            }
        }
        ids.assign(values, values + length);
        for (int64_t q = 0; q < query_count; ++q) {
            std::sort(ids.begin() + offsets[q], ids.begin() + offsets[q + 1]);
            begin.push_back(ids.data() + offsets[q]);
            end.push_back(ids.data() + offsets[q + 1]);
        }
    }
};

[[noreturn]] inline void refuse_row(const char* op, const char* argument, const float* rows, int64_t row, int64_t width) {
    bool nan = false;
    for (int64_t i = 0; i < width; ++i) nan = nan || std::isnan(rows[row * width + i]);
    refuse(op, argument, "finite", std::string(nan ? "nan" : "inf") + " in row " + std::to_string(row), "drop or repair that row");
}

// The ranges of the items that a search is cut into: many queries are cut into blocks, few leave threads idle, which then share the items.
inline int64_t ranges_for(int64_t blocks, int64_t item_count) {
    const int64_t threads = torch::stable::get_num_threads();
    return blocks < threads ? std::clamp<int64_t>(item_count / kFewestItemsInRange, 1, threads) : 1;
}

constexpr int64_t kNoRange = -1;

// Merges the falling lists of several ranges into one: the ranges come in the order of their ids, so of equal scores the earlier is first.
inline void merge(const float* scores, const int64_t* ids, int64_t ranges, int64_t step, int64_t k, float* best, int64_t* best_ids) {
    std::vector<int64_t> place(static_cast<size_t>(ranges), 0);
    for (int64_t i = 0; i < k; ++i) {
        int64_t from = kNoRange;
        for (int64_t range = 0; range < ranges; ++range) {
            if (place[range] == k || ids[range * step + place[range]] == -1) continue;
            if (from == kNoRange || scores[range * step + place[range]] > scores[from * step + place[from]]) from = range;
        }
        best[i] = from == kNoRange ? -std::numeric_limits<float>::infinity() : scores[from * step + place[from]];
        best_ids[i] = from == kNoRange ? -1 : ids[from * step + place[from]];
        if (from != kNoRange) ++place[from];
    }
}

// A block of queries against a range of items, and where its best go.
struct SearchPart {
    int64_t first_query, query_count, first_item, last_item;
    float* scores;
    int64_t* ids;
};

// Many queries: each thread takes blocks of them. Few: each takes a range of the items (cut at a multiple of 16), and the ranges' best are
// merged. Neither changes a bit of the result where a pair's score depends on the pair alone and the order is total.
template <typename Search>
void search_in_parts(int64_t query_count, int64_t count, int64_t in_block, int64_t k, float* scores, int64_t* ids, const Search& search) {
    const int64_t blocks = (query_count + in_block - 1) / in_block;
    const int64_t ranges = ranges_for(blocks, count);
    const int64_t range_length = ((count + ranges - 1) / ranges + 15) / 16 * 16;
    std::vector<float> range_scores(static_cast<size_t>(ranges > 1 ? ranges * query_count * k : 0));
    std::vector<int64_t> range_ids(range_scores.size());
    std::atomic<bool> no_memory{false};
    torch::stable::parallel_for(0, blocks * ranges, 1, [&](int64_t begin, int64_t end) {
        for (int64_t index = begin; index < end; ++index) {
            const int64_t first_query = index / ranges * in_block, range = index % ranges;
            const int64_t first_item = std::min(range * range_length, count), place = (range * query_count + first_query) * k;
            try {
                search(SearchPart{first_query, std::min(in_block, query_count - first_query), first_item,
                                  std::min(first_item + range_length, count), (ranges > 1 ? range_scores.data() : scores) + place,
                                  (ranges > 1 ? range_ids.data() : ids) + place});
            } catch (const std::bad_alloc&) {  // an exception must not cross torch's C interface
                no_memory.store(true);
            }
        }
    });
    if (no_memory.load()) throw std::bad_alloc();
    for (int64_t q = 0; ranges > 1 && q < query_count; ++q)
        merge(range_scores.data() + q * k, range_ids.data() + q * k, ranges, query_count * k, k, scores + q * k, ids + q * k);
}

}  // namespace compress_rec
