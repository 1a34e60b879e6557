// int8_linear_packed with torch: checks, allocation, the cut into tasks. The kernel is in cpu/.
#include "int8_linear_packed.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
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
// of the tensor that holds a layer: a step of a panel, what a panel has besides, an extra
constexpr int64_t kNumbersOfStep = 32, kNumbersOfPanel = 3 * 16 + 1, kNumbersOfExtra = 17;

Tensor int8_linear_packed(const Tensor& given_x, const Tensor& given_layer, int64_t outputs) {
    if (given_x.scalar_type() != ScalarType::Float || given_x.dim() < 1) {
        refuse(kOp, "x", "float32 (…, inputs)", described(given_x), "convert it with .float()");
    }
    const int64_t axes = given_x.dim(), inputs = given_x.size(axes - 1);
    if (inputs > kMostInputs) {
        refuse(kOp, "x", "at most " + std::to_string(kMostInputs) + " wide", described(given_x), "split the layer");
    }
    if (outputs < 0) refuse(kOp, "outputs", "at least 0", std::to_string(outputs), "give the number of the layer's outputs");
    const int64_t blocks = (outputs + 15) / 16, steps = (inputs + 7) / 8;
    const int64_t codes = blocks * steps * kNumbersOfStep, least = codes + blocks * kNumbersOfPanel + 1;
    const int64_t behind = given_layer.numel() - least, extras = behind / kNumbersOfExtra;
    if (given_layer.scalar_type() != ScalarType::Int || given_layer.dim() != 1 || behind < 0 || extras * kNumbersOfExtra != behind) {
        const std::string numbers = std::to_string(least) + " + " + std::to_string(kNumbersOfExtra) + " an extra,";
        refuse(kOp, "layer", "int32 (" + numbers + "), the layer of " + std::to_string(outputs) + " outputs and as wide as x",
               described(given_layer), "pack the weight again");
    }
    const Tensor x = in_order(given_x), layer = in_order(given_layer);
    int64_t rows = 1;
    std::vector<int64_t> shape(static_cast<size_t>(axes));
    for (int64_t axis = 0; axis + 1 < axes; ++axis) rows *= shape[static_cast<size_t>(axis)] = x.size(axis);
    shape.back() = outputs;
    Tensor out = new_floats(shape);
    if (rows == 0 || outputs == 0) return out;

    Int8LinearTask whole{};
    whole.x = x.const_data_ptr<float>();
    whole.rows = rows, whole.inputs = inputs, whole.outputs = outputs, whole.steps = steps;
    const int32_t* numbers = layer.const_data_ptr<int32_t>();
    whole.panels = reinterpret_cast<const int8_t*>(numbers);
    whole.sums = numbers + codes;
    whole.scales = reinterpret_cast<const float*>(whole.sums + 16 * blocks);
    whole.bias = whole.scales + 16 * blocks;
    whole.extra_first = whole.sums + 3 * 16 * blocks;
    whole.extra_step = whole.extra_first + blocks + 1;
    whole.extra = reinterpret_cast<const int8_t*>(whole.extra_step + extras);
    whole.first_panel = 0, whole.last_panel = blocks;
    whole.out = out.mutable_data_ptr<float>();

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
