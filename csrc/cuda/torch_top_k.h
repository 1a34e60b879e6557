// What the searches on CUDA devices refuse alike.
#pragma once

#include "../top_k.h"
#include "cosine_top_k.h"
#include "torch_device.h"

namespace compress_rec::cuda {

inline void check_kept(const char* op, int64_t k) {
    if (k <= kMostItemsKept) return;
    refuse(op, "k", "at most " + std::to_string(kMostItemsKept) + " on a CUDA device", std::to_string(k), "ask for fewer");
}

// Excluded ids one behind the other, or nothing. Their values are not looked at.
struct LeftOut {
    std::optional<torch::stable::Tensor> ids, offsets;

    LeftOut(const char* op, int64_t query_count, const std::optional<torch::stable::Tensor>& exclude,
            const std::optional<torch::stable::Tensor>& exclude_offsets) {
        check_exclusions(op, exclude, exclude_offsets);
        if (!exclude.has_value()) return;
        if (exclude_offsets->size(0) != query_count + 1) {
            refuse(op, "exclude_offsets", std::to_string(query_count + 1) + " numbers rising from 0 to " + std::to_string(exclude->size(0)),
                   "something else", "give one more offset than queries");
        }
        ids = in_order(*exclude), offsets = in_order(*exclude_offsets);
    }

    template <class Task>
    void hand_to(Task& task) const {
        if (!ids.has_value()) return;
        task.exclude = ids->const_data_ptr<int64_t>(), task.exclude_offsets = offsets->const_data_ptr<int64_t>();
        task.exclude_count = ids->size(0);
    }
};

}  // namespace compress_rec::cuda
