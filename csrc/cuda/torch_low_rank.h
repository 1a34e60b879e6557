// What low-rank layers and blocks on CUDA devices share on torch's side.
#pragma once

#include <array>
#include <vector>

#include "low_rank.h"
#include "torch_device.h"

namespace compress_rec::cuda {

using compress_rec::in_order;

inline std::optional<torch::stable::Tensor> in_order(const std::optional<torch::stable::Tensor>& tensor) {
    if (!tensor.has_value()) return std::nullopt;
    return compress_rec::in_order(*tensor);
}

inline const void* data_of(const std::optional<torch::stable::Tensor>& tensor) { return tensor.has_value() ? tensor->data_ptr() : nullptr; }

inline std::optional<NumberType> number_type(const torch::stable::Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case torch::headeronly::ScalarType::Float: return NumberType::float32;
        case torch::headeronly::ScalarType::BFloat16: return NumberType::bfloat16;
        case torch::headeronly::ScalarType::Half: return NumberType::float16;
        default: return std::nullopt;
    }
}

inline void check_first_factor(const char* op, const torch::stable::Tensor& x, const torch::stable::Tensor& a, const char* way_out) {
    if (a.dim() == 2 && x.dim() >= 1 && a.size(1) == x.size(x.dim() - 1)) return;
    const std::string wanted =
        x.dim() ? "(rank, " + std::to_string(x.size(x.dim() - 1)) + "), as wide as x" : "(rank, inputs), with x (…, inputs)";
    refuse(op, "a", wanted, described(a), way_out);
}

// Everything of x's dtype, and on its device.
inline void check_alike(const char* op, const torch::stable::Tensor& x, const std::vector<Named>& tensors) {
    for (const Named& named : tensors) {
        if (named.second == nullptr || named.second->scalar_type() == x.scalar_type()) continue;
        refuse(op, named.first, dtype_name(x) + " like x", described(*named.second), "convert one of them with .to()");
    }
    for (const Named& named : tensors) check_devices(op, {{"x", &x}, named});
}

// An empty result with x's leading axes.
inline torch::stable::Tensor like_rows_of(const torch::stable::Tensor& x, int64_t outputs) {
    std::vector<int64_t> shape;
    for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) shape.push_back(x.size(axis));
    shape.push_back(outputs);
    return torch::stable::new_empty(x, shape);
}

inline torch::stable::Tensor linear(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                    const std::optional<torch::stable::Tensor>& bias) {
    std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                      torch::stable::detail::from(bias)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

inline torch::stable::Tensor gelu(const torch::stable::Tensor& x) {
    std::array<StableIValue, 2> stack{torch::stable::detail::from(x), torch::stable::detail::from(std::string("none"))};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::gelu", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace compress_rec::cuda
