// low_rank_feed_forward on CUDA devices with torch: checks, allocation, the launch. What the kernel does not take, products of torch do.
#include "../kernels.h"
#include "torch_low_rank.h"

namespace compress_rec::cuda {

namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "low_rank_feed_forward";
constexpr const char* kAgain = "factorise the weights again";

struct Factor {
    const char* name;
    const Tensor& tensor;
    const char* axis;
};

void check(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d, const std::optional<Tensor>& bias,
           const std::optional<Tensor>& bias_out) {
    check_first_factor(kOp, x, a, kAgain);
    const Factor factors[] = {{"a", a, "rank"}, {"b", b, "hidden"}, {"c", c, "rank_out"}, {"d", d, "outputs"}};
    for (int i = 1; i < 4; ++i) {
        const Factor &before = factors[i - 1], &factor = factors[i];
        if (factor.tensor.dim() == 2 && factor.tensor.size(1) == before.tensor.size(0)) continue;
        const std::string wanted = std::string("(") + factor.axis + ", " + std::to_string(before.tensor.size(0)) + "), as wide as ";
        refuse(kOp, factor.name, wanted + before.name + " is high", described(factor.tensor), kAgain);
    }
    const auto check_bias = [](const char* name, const std::optional<Tensor>& one, const Tensor& of) {
        if (!one.has_value() || (one->dim() == 1 && one->size(0) == of.size(0))) return;
        refuse(kOp, name, "(" + std::to_string(of.size(0)) + ",), one number a row of its weight", described(*one),
               "give the bias of the same layer");
    };
    check_bias("bias", bias, b);
    check_bias("bias_out", bias_out, d);
    check_alike(kOp, x, {{"a", &a}, {"b", &b}, {"c", &c}, {"d", &d}, {"bias", pointer(bias)}, {"bias_out", pointer(bias_out)}});
}

Tensor low_rank_feed_forward(const Tensor& given_x, const Tensor& given_a, const Tensor& given_b, const Tensor& given_c,
                             const Tensor& given_d, std::optional<Tensor> given_bias, std::optional<Tensor> given_bias_out) {
    check(given_x, given_a, given_b, given_c, given_d, given_bias, given_bias_out);
    const Running running(given_x.get_device_index());
    LowRankFeedForwardTask task{};
    const std::optional<NumberType> type = number_type(given_x);
    task.type = type.value_or(NumberType::float32);
    task.inputs = static_cast<int>(given_a.size(1)), task.rank = static_cast<int>(given_a.size(0));
    task.hidden = static_cast<int>(given_b.size(0)), task.rank_out = static_cast<int>(given_c.size(0));
    task.outputs = static_cast<int>(given_d.size(0));
    if (!type.has_value() || !fits(task)) {
        const Tensor wide = gelu(linear(linear(given_x, given_a, std::nullopt), given_b, given_bias));
        return linear(linear(wide, given_c, std::nullopt), given_d, given_bias_out);
    }
    const Tensor x = in_order(given_x), a = in_order(given_a), b = in_order(given_b), c = in_order(given_c), d = in_order(given_d);
    const std::optional<Tensor> bias = in_order(given_bias), bias_out = in_order(given_bias_out);
    Tensor y = like_rows_of(x, task.outputs);
    task.rows = x.numel() / task.inputs;
    task.x = x.data_ptr(), task.a = a.data_ptr(), task.b = b.data_ptr(), task.c = c.data_ptr(), task.d = d.data_ptr();
    task.bias = data_of(bias), task.bias_out = data_of(bias_out), task.y = y.data_ptr();
    check_launch(kOp, cuda::low_rank_feed_forward(task, running.stream()));
    return y;
}

const CudaKernel declared(kOp, TORCH_BOX(&low_rank_feed_forward));

}  // namespace

}  // namespace compress_rec::cuda
