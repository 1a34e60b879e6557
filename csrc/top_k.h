// What the top-k ops share on torch's side: checks in the references' words, the excluded ids, the cut into parts.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "check.h"

namespace compress_rec {

constexpr int64_t kMostItems = std::numeric_limits<int32_t>::max();
constexpr int64_t kFewestItemsInRange = 2048;

inline torch::stable::Tensor in_order(const torch::stable::Tensor& tensor) {
    return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

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

}  // namespace compress_rec
