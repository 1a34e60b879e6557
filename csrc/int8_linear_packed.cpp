// int8_linear_packed with torch: checks, allocation, the cut into tasks. The kernel is in cpu/.
#include "int8_linear_packed.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "kernels.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "int8_linear_packed";
constexpr int64_t kRowsInTask = 64;  // fewer are not worth a thread of their own: then the outputs are cut

void check_numbers(const char* argument, const Tensor& values, int64_t outputs) {
    if (values.scalar_type() != ScalarType::Float || values.dim() != 1 || values.size(0) != outputs) {
        refuse(kOp, argument, "float32 (" + std::to_string(outputs) + ",), one number an output", described(values),
               "give that of the same layer");
    }
}

void check(const Tensor& x, const Tensor& panels, const Tensor& extra, const Tensor& where, const Tensor& sums, const Tensor& scales,
           const std::optional<Tensor>& bias) {
    if (x.scalar_type() != ScalarType::Float || x.dim() < 1) {
        refuse(kOp, "x", "float32 (…, inputs)", described(x), "convert it with .float()");
    }
    const int64_t inputs = x.size(x.dim() - 1), outputs = sums.numel(), blocks = (outputs + 15) / 16;
    if (inputs > kMostInputs) {
        refuse(kOp, "x", "at most " + std::to_string(kMostInputs) + " wide", described(x), "split the layer");
    }
    check_int8_panels(kOp, panels, outputs, inputs, ", as wide as x", "pack the weight again");
    const bool rest = extra.scalar_type() == ScalarType::Char && extra.dim() == 3 && where.scalar_type() == ScalarType::Int &&
                      where.dim() == 1 && where.size(0) == blocks + 1 + extra.size(0);
    if (!rest) {
        refuse(kOp, "where", "int32 (" + std::to_string(blocks + 1 + (extra.dim() ? extra.size(0) : 0)) + ",), the places of extra",
               described(where), "pack the weight again");
    }
    check_numbers("scales", scales, outputs);
    if (bias.has_value()) check_numbers("bias", *bias, outputs);
}

Tensor int8_linear_packed(const Tensor& given, const Tensor& given_panels, const Tensor& given_extra, const Tensor& given_where,
                          const Tensor& given_sums, const Tensor& given_scales, std::optional<Tensor> given_bias) {
    check(given, given_panels, given_extra, given_where, given_sums, given_scales, given_bias);
    const Tensor x = in_order(given), panels = in_order(given_panels), extra = in_order(given_extra), where = in_order(given_where);
    const Tensor sums = in_order(given_sums), scales = in_order(given_scales);
    std::optional<Tensor> bias;
    if (given_bias.has_value()) bias = in_order(*given_bias);
    const int64_t inputs = x.size(x.dim() - 1), outputs = sums.numel(), blocks = panels.size(0);
    int64_t rows = 1;
    std::vector<int64_t> shape;
    for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) shape.push_back(x.size(axis)), rows *= x.size(axis);
    shape.push_back(outputs);
    Tensor out = new_floats(shape);

    Int8LinearTask whole{};
    whole.x = x.const_data_ptr<float>();
    whole.rows = rows, whole.inputs = inputs, whole.outputs = outputs, whole.steps = panels.size(1);
    whole.panels = panels.const_data_ptr<int8_t>();
    whole.extra = extra.const_data_ptr<int8_t>();
    whole.extra_first = where.const_data_ptr<int32_t>();
    whole.extra_step = whole.extra_first + blocks + 1;
    whole.sums = sums.const_data_ptr<int32_t>();
    whole.scales = scales.const_data_ptr<float>();
    whole.bias = bias.has_value() ? bias->const_data_ptr<float>() : nullptr;
    whole.first_panel = 0, whole.last_panel = blocks;
    whole.out = out.mutable_data_ptr<float>();
    if (rows == 0 || outputs == 0) return out;

    // A result depends on its row and its output alone, so neither cut changes a bit.
    const int64_t threads = torch::stable::get_num_threads();
    if (threads == 1) {
        int8_linear_packed_avx2(whole);
    } else if (rows >= threads * kRowsInTask) {
        torch::stable::parallel_for(0, rows, kRowsInTask, [&](int64_t begin, int64_t end) {
            Int8LinearTask task = whole;
            task.x += begin * inputs, task.out += begin * outputs, task.rows = end - begin;
            int8_linear_packed_avx2(task);
        });
    } else {
        torch::stable::parallel_for(0, blocks, std::max<int64_t>(1, blocks / threads), [&](int64_t begin, int64_t end) {
            Int8LinearTask task = whole;
            task.first_panel = begin, task.last_panel = end;
            int8_linear_packed_avx2(task);
        });
    }
    return out;
}

const CpuKernel declared(kOp, TORCH_BOX(&int8_linear_packed));

}  // namespace

}  // namespace compress_rec
