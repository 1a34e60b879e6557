// low_rank_linear_packed with torch: checks, allocation, the cut into tasks. The kernel is in cpu/.
#include "low_rank_linear_packed.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "kernels.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "low_rank_linear_packed";
constexpr int64_t kPanel = 16;                // rows of a matrix in a panel
constexpr int64_t kFewTokens = 12;            // a thread with fewer spends its time on fetching the factors
constexpr int64_t kProductsInTask = 1 << 19;  // below that, about 10 µs, a second thread costs more than it saves

int64_t panels_of(int64_t rows) {
    return (rows + kPanel - 1) / kPanel;
}

void check(const Tensor& x, const Tensor& a, const Tensor& b, int64_t outputs, const std::optional<Tensor>& bias) {
    const auto is_packed = [](const Tensor& factor, int64_t panels) {
        return factor.scalar_type() == ScalarType::Float && factor.dim() == 3 && factor.size(0) == panels && factor.size(2) == kPanel;
    };
    if (x.scalar_type() != ScalarType::Float || x.dim() < 1) {
        refuse(kOp, "x", "float32 (…, inputs)", described(x), "convert it with .float()");
    }
    if (outputs < 0) refuse(kOp, "outputs", "at least 0", std::to_string(outputs), "give the number of the layer's outputs");
    if (!is_packed(b, panels_of(outputs))) {
        refuse(kOp, "b",
               "float32 (" + std::to_string(panels_of(outputs)) + ", rank, 16), the panels of " + std::to_string(outputs) + " outputs",
               described(b), "pack the factor again");
    }
    const int64_t inputs = x.size(x.dim() - 1), rank = b.size(1);
    if (!is_packed(a, panels_of(rank)) || a.size(1) != inputs) {
        refuse(kOp, "a",
               "float32 (" + std::to_string(panels_of(rank)) + ", " + std::to_string(inputs) + ", 16), the panels of rank " +
                   std::to_string(rank) + " and as wide as x",
               described(a), "pack the factor again");
    }
    if (bias.has_value() && (bias->scalar_type() != ScalarType::Float || bias->dim() != 1 || bias->size(0) != outputs)) {
        refuse(kOp, "bias", "float32 (" + std::to_string(outputs) + ",), one number an output", described(*bias),
               "give the bias of the same layer");
    }
}

// Tokens first … last - 1 in blocks as even as may be, each through both factors.
void by_blocks(LowRankLinearTask task, int64_t first, int64_t last) {
    const int64_t blocks = (last - first + kTokensInBlock - 1) / kTokensInBlock;
    const float* x = task.x;
    float* out = task.out;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t begin = first + (last - first) * block / blocks, end = first + (last - first) * (block + 1) / blocks;
        task.tokens = end - begin;
        task.x = x + begin * task.inputs;
        task.out = out + begin * task.outputs;
        low_rank_middle_avx2(task, 0, panels_of(task.rank));
        low_rank_out_avx2(task, 0, panels_of(task.outputs));
    }
}

Tensor low_rank_linear_packed(const Tensor& given_x, const Tensor& given_a, const Tensor& given_b, int64_t outputs,
                              std::optional<Tensor> given_bias) {
    check(given_x, given_a, given_b, outputs, given_bias);
    const Tensor x = in_order(given_x), a = in_order(given_a), b = in_order(given_b);
    std::optional<Tensor> bias;
    if (given_bias.has_value()) bias = in_order(*given_bias);
    std::vector<int64_t> shape;
    int64_t tokens = 1;
    for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) {
        shape.push_back(x.size(axis));
        tokens *= x.size(axis);
    }
    shape.push_back(outputs);
    Tensor out = new_floats(shape);
    if (tokens == 0 || outputs == 0) return out;

    LowRankLinearTask task{};
    task.x = x.const_data_ptr<float>();
    task.a = a.const_data_ptr<float>();
    task.b = b.const_data_ptr<float>();
    task.bias = bias ? bias->const_data_ptr<float>() : nullptr;
    task.out = out.mutable_data_ptr<float>();
    task.inputs = x.size(x.dim() - 1);
    task.rank = b.size(1);
    task.outputs = outputs;
    task.width = panels_of(task.rank) * kPanel;

    const int64_t products = tokens * task.rank * (task.inputs + outputs);
    const int64_t threads = std::clamp<int64_t>(products / kProductsInTask, 1, torch::stable::get_num_threads());
    const bool shared = tokens < kFewTokens * threads;  // all threads work on all tokens, each on some of the panels
    const int64_t room = shared ? tokens : threads * std::min(kTokensInBlock, tokens);
    const std::unique_ptr<float[]> middle(new float[static_cast<size_t>(room * task.width)]);
    task.middle = middle.get();
    if (!shared) {
        torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
            LowRankLinearTask mine = task;
            mine.middle = task.middle + begin * std::min(kTokensInBlock, tokens) * task.width;
            by_blocks(mine, tokens * begin / threads, tokens * end / threads);
        });
    } else if (threads == 1) {
        by_blocks(task, 0, tokens);
    } else {
        task.tokens = tokens;
        const auto each = [&](int64_t panels, auto multiply) {
            torch::stable::parallel_for(0, panels, (panels + threads - 1) / threads,
                                        [&](int64_t begin, int64_t end) { multiply(task, begin, end); });
        };
        each(panels_of(task.rank), low_rank_middle_avx2);
        each(panels_of(outputs), low_rank_out_avx2);
    }
    return out;
}

const CpuKernel declared(kOp, TORCH_BOX(&low_rank_linear_packed));

}  // namespace

}  // namespace compress_rec
