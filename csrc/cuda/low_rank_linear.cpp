// low_rank_linear on CUDA devices with torch: checks, allocation, the launch. What the kernel does not take, two products of torch do.
#include <array>
#include <vector>

#include "../kernels.h"
#include "low_rank.h"
#include "torch_device.h"

namespace compress_rec::cuda {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "low_rank_linear";

void check(const Tensor& x, const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias) {
    if (a.dim() != 2 || x.dim() < 1 || a.size(1) != x.size(x.dim() - 1)) {
        const std::string wanted =
            x.dim() ? "(rank, " + std::to_string(x.size(x.dim() - 1)) + "), as wide as x" : "(rank, inputs), with x (…, inputs)";
        refuse(kOp, "a", wanted, described(a), "factorise the weight again");
    }
    if (b.dim() != 2 || b.size(1) != a.size(0)) {
        refuse(kOp, "b", "(outputs, " + std::to_string(a.size(0)) + "), as wide as a is high", described(b), "factorise the weight again");
    }
    if (bias.has_value() && (bias->dim() != 1 || bias->size(0) != b.size(0))) {
        refuse(kOp, "bias", "(" + std::to_string(b.size(0)) + ",), one number an output", described(*bias),
               "give the bias of the same layer");
    }
    for (const Named& named : {Named{"a", &a}, Named{"b", &b}, Named{"bias", pointer(bias)}}) {
        if (named.second == nullptr || named.second->scalar_type() == x.scalar_type()) continue;
        refuse(kOp, named.first, dtype_name(x) + " like x", described(*named.second), "convert one of them with .to()");
    }
    check_devices(kOp, {{"x", &x}, {"a", &a}, {"b", &b}, {"bias", pointer(bias)}});
}

Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
    std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                      torch::stable::detail::from(bias)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
}

Tensor low_rank_linear(const Tensor& given_x, const Tensor& given_a, const Tensor& given_b, std::optional<Tensor> given_bias) {
    check(given_x, given_a, given_b, given_bias);
    const Running running(given_x.get_device_index());
    const ScalarType type = given_x.scalar_type();
    LowRankLinearTask task{};
    task.type = type == ScalarType::Float ? NumberType::float32 : type == ScalarType::BFloat16 ? NumberType::bfloat16 : NumberType::float16;
    task.inputs = static_cast<int>(given_a.size(1)), task.rank = static_cast<int>(given_a.size(0));
    task.outputs = static_cast<int>(given_b.size(0));
    const bool known = type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
    if (!known || !fits(task)) return linear(linear(given_x, given_a, std::nullopt), given_b, given_bias);

    const Tensor x = in_order(given_x), a = in_order(given_a), b = in_order(given_b);
    std::optional<Tensor> bias;
    if (given_bias.has_value()) bias = in_order(*given_bias);
    std::vector<int64_t> shape;
    for (int64_t axis = 0; axis + 1 < x.dim(); ++axis) shape.push_back(x.size(axis));
    shape.push_back(task.outputs);
    Tensor y = torch::stable::new_empty(x, shape);
    task.rows = x.numel() / task.inputs;
    task.x = x.data_ptr(), task.a = a.data_ptr(), task.b = b.data_ptr(), task.y = y.data_ptr();
    task.bias = bias.has_value() ? bias->data_ptr() : nullptr;
    task.splits = splits_for(task.rows, task.outputs, running.multiprocessors());
    check_launch(kOp, cuda::low_rank_linear(task, running.stream()));
    return y;
}

const CudaKernel declared(kOp, TORCH_BOX(&low_rank_linear));

}  // namespace

}  // namespace compress_rec::cuda
