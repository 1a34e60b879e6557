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
// of the tensor that holds a layer: a step of a part, what a panel has besides, the most parts of a panel
constexpr int64_t kNumbersOfStep = 64, kNumbersOfPanel = 3 * 16 + 1, kMostParts = 4;

// Whether each panel has at least one part, and together they have all: what lies beyond must not be read.
bool ascends(const int32_t* first, int64_t panels, int64_t parts) {
    bool fit = first[0] == 0 && first[panels] == parts;
    for (int64_t panel = 0; panel < panels; ++panel) fit = fit && first[panel] < first[panel + 1];
    return fit;
}

Tensor int8_linear_packed(const Tensor& given_x, const Tensor& given_layer, int64_t outputs, std::optional<Tensor> given_diagonal) {
    if (given_x.scalar_type() != ScalarType::Float || given_x.dim() < 1) {
        refuse(kOp, "x", "float32 (…, inputs)", described(given_x), "convert it with .float()");
    }
    const int64_t axes = given_x.dim(), inputs = given_x.size(axes - 1);
    if (inputs > kMostInputs) {
        refuse(kOp, "x", "at most " + std::to_string(kMostInputs) + " wide", described(given_x), "split the layer");
    }
    if (outputs < 0) refuse(kOp, "outputs", "at least 0", std::to_string(outputs), "give the number of the layer's outputs");
    const int64_t panels = (outputs + 15) / 16, steps = (inputs + 15) / 16;
    const int64_t part = steps * kNumbersOfStep, least = panels * kNumbersOfPanel + 1, codes = given_layer.numel() - least;
    const int64_t parts = steps == 0 ? panels : codes / part;
    const bool sized = given_layer.scalar_type() == ScalarType::Int && given_layer.dim() == 1 && codes >= 0 && parts * part == codes &&
                       parts >= panels && parts <= kMostParts * panels;
    Tensor layer = given_layer;
    if (sized) layer = in_order(given_layer);
    if (!sized || !ascends(layer.const_data_ptr<int32_t>() + codes + 48 * panels, panels, parts)) {
        const std::string numbers = std::to_string(least) + " + " + std::to_string(part) + " a part,";
        refuse(kOp, "layer", "int32 (" + numbers + "), the layer of " + std::to_string(outputs) + " outputs and as wide as x",
               described(given_layer), "pack the weight again");
    }
    if (given_diagonal &&
        (given_diagonal->scalar_type() != ScalarType::Float || given_diagonal->dim() != 1 || given_diagonal->size(0) != inputs)) {
        refuse(kOp, "diagonal", "float32 (" + std::to_string(inputs) + ",), as wide as x", described(*given_diagonal),
               "give that of the same layer");
    }
    const Tensor x = in_order(given_x);
    std::optional<Tensor> diagonal;
    if (given_diagonal) diagonal = in_order(*given_diagonal);
    int64_t rows = 1;
    std::vector<int64_t> shape(static_cast<size_t>(axes));
    for (int64_t axis = 0; axis + 1 < axes; ++axis) rows *= shape[static_cast<size_t>(axis)] = x.size(axis);
    shape.back() = outputs;
    Tensor out = new_floats(shape);
    if (rows == 0 || outputs == 0) return out;

    Int8LinearTask whole{};
    whole.x = x.const_data_ptr<float>();
    whole.rows = rows, whole.inputs = inputs, whole.outputs = outputs, whole.steps = steps;
    whole.diagonal = diagonal ? diagonal->const_data_ptr<float>() : nullptr;
    const int32_t* numbers = layer.const_data_ptr<int32_t>();
    whole.parts = reinterpret_cast<const int8_t*>(numbers);
    whole.sums = numbers + codes;
    whole.scales = reinterpret_cast<const float*>(whole.sums + 16 * panels);
    whole.bias = whole.scales + 16 * panels;
    whole.first = whole.sums + 48 * panels;
    whole.first_panel = 0, whole.last_panel = panels;
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
        torch::stable::parallel_for(0, panels, std::max<int64_t>(1, panels / threads), [&](int64_t begin, int64_t end) {
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
