// low_rank_linear on CUDA devices with torch: checks, allocation, the launch. What the kernel does not take, two products of torch do.
#include "../kernels.h"
#include "torch_low_rank.h"

namespace compress_rec::cuda {

namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "low_rank_linear";

void check(const Tensor& x, const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias) {
    check_first_factor(kOp, x, a, "factorise the weight again");
    if (b.dim() != 2 || b.size(1) != a.size(0)) {
        refuse(kOp, "b", "(outputs, " + std::to_string(a.size(0)) + "), as wide as a is high", described(b), "factorise the weight again");
    }
    if (bias.has_value() && (bias->dim() != 1 || bias->size(0) != b.size(0))) {
        refuse(kOp, "bias", "(" + std::to_string(b.size(0)) + ",), one number an output", described(*bias),
               "give the bias of the same layer");
    }
    check_alike(kOp, x, {{"a", &a}, {"b", &b}, {"bias", pointer(bias)}});
}

Tensor low_rank_linear(const Tensor& given_x, const Tensor& given_a, const Tensor& given_b, std::optional<Tensor> given_bias) {
    check(given_x, given_a, given_b, given_bias);
    const Running running(given_x.get_device_index());
    const std::optional<NumberType> type = number_type(given_x);
    LowRankLinearTask task{};
    task.type = type.value_or(NumberType::float32);
    task.inputs = static_cast<int>(given_a.size(1)), task.rank = static_cast<int>(given_a.size(0));
    task.outputs = static_cast<int>(given_b.size(0));
    if (!type.has_value() || !fits(task)) return linear(linear(given_x, given_a, std::nullopt), given_b, given_bias);

    const Tensor x = in_order(given_x), a = in_order(given_a), b = in_order(given_b);
    const std::optional<Tensor> bias = in_order(given_bias);
    Tensor y = like_rows_of(x, task.outputs);
    task.rows = x.numel() / task.inputs;
    task.x = x.data_ptr(), task.a = a.data_ptr(), task.b = b.data_ptr(), task.bias = data_of(bias), task.y = y.data_ptr();
    task.splits = splits_for(task.rows, task.outputs, running.multiprocessors());
    check_launch(kOp, cuda::low_rank_linear(task, running.stream()));
    return y;
}

const CudaKernel declared(kOp, TORCH_BOX(&low_rank_linear));

}  // namespace

}  // namespace compress_rec::cuda
