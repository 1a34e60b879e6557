// What every op does with its tensors before a kernel sees them. Refusals: one sentence that names the op, the argument, what was wanted,
// what came and the way out; the same as the reference's.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace compress_rec {

// std::invalid_argument reaches Python as ValueError, of which CompressRecError is one.
[[noreturn]] inline void refuse(const std::string& op, const std::string& argument, const std::string& wanted, const std::string& came,
                                const std::string& way_out) {
    throw std::invalid_argument(op + ": " + argument + " must be " + wanted + ", but " + came + " came; " + way_out);
}

inline std::string dtype_name(const torch::stable::Tensor& tensor) {
    using torch::headeronly::ScalarType;
    switch (tensor.scalar_type()) {
        case ScalarType::Byte: return "uint8";
        case ScalarType::Char: return "int8";
        case ScalarType::Short: return "int16";
        case ScalarType::Int: return "int32";
        case ScalarType::Long: return "int64";
        case ScalarType::Half: return "float16";
        case ScalarType::Float: return "float32";
        case ScalarType::Double: return "float64";
        case ScalarType::Bool: return "bool";
        case ScalarType::BFloat16: return "bfloat16";
        case ScalarType::ComplexFloat: return "complex64";
        case ScalarType::ComplexDouble: return "complex128";
        default: return "another dtype";
    }
}

// The tensor with its numbers one behind the other.
inline torch::stable::Tensor in_order(const torch::stable::Tensor& tensor) {
    return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A new tensor on the CPU; past the dispatcher, which would take longer than a small product.
inline torch::stable::Tensor new_tensor(const std::vector<int64_t>& shape, int32_t dtype) {
    std::vector<int64_t> strides(shape.size());
    int64_t step = 1;
    for (size_t axis = shape.size(); axis-- > 0; step *= std::max<int64_t>(shape[axis], 1)) strides[axis] = step;
    AtenTensorHandle made = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                                                    dtype, aoti_torch_device_type_cpu(), 0, &made));
    return torch::stable::Tensor(made);
}

inline torch::stable::Tensor new_floats(const std::vector<int64_t>& shape) {
    return new_tensor(shape, aoti_torch_dtype_float32());
}

inline torch::stable::Tensor new_ids(const std::vector<int64_t>& shape) {
    return new_tensor(shape, aoti_torch_dtype_int64());
}

// "float32 (3, 384)"
inline std::string described(const torch::stable::Tensor& tensor) {
    std::ostringstream text;
    text << dtype_name(tensor) << " (";
    for (int64_t axis = 0; axis < tensor.dim(); ++axis) text << (axis ? ", " : "") << tensor.size(axis);
    text << ")";
    return text.str();
}

// Refuses panels that are not those of `rows` codes of `width` bytes, as compress_rec/int8_panels.py lays them out.
inline void check_int8_panels(const char* op, const torch::stable::Tensor& panels, int64_t rows, int64_t width, const char* which,
                              const char* way_out) {
    const int64_t blocks = (rows + 15) / 16, steps = (width + 7) / 8;
    const bool fit = panels.scalar_type() == torch::headeronly::ScalarType::Char && panels.dim() == 5 && panels.size(0) == blocks &&
                     panels.size(1) == steps && panels.size(2) == 2 && panels.size(3) == 16 && panels.size(4) == 4;
    if (fit) return;
    refuse(op, "panels", "int8 (" + std::to_string(blocks) + ", " + std::to_string(steps) + ", 2, 16, 4)" + which, described(panels),
           way_out);
}

}  // namespace compress_rec
