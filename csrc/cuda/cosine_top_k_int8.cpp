// cosine_top_k_int8 on CUDA devices with torch: checks, allocation, the launch.
#include <tuple>

#include "../kernels.h"
#include "torch_top_k.h"

namespace compress_rec::cuda {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k_int8";
constexpr const char* kQuantise = "quantise the items with compress_rec.int8_items.quantized";

void check_numbers(const char* argument, const Tensor& values, int64_t count) {
    if (values.scalar_type() == ScalarType::Float && values.dim() == 1 && values.size(0) == count) return;
    refuse(kOp, argument, "float32 (" + std::to_string(count) + ",), one number an item", described(values), kQuantise);
}

std::tuple<Tensor, Tensor, Tensor> cosine_top_k_int8(const Tensor& given_queries, const Tensor& given_panels, const Tensor& sums,
                                                     const Tensor& given_scales, const Tensor& given_residuals,
                                                     std::optional<Tensor> given_items, int64_t k, std::optional<Tensor> exclude,
                                                     std::optional<Tensor> exclude_offsets) {
    check_vectors(kOp, "queries", given_queries);
    if (sums.scalar_type() != ScalarType::Int || sums.dim() != 1) refuse(kOp, "sums", "int32 (items,)", described(sums), kQuantise);
    const int64_t count = sums.size(0), query_count = given_queries.size(0), width = given_queries.size(1);
    check_int8_panels(kOp, given_panels, count, width, "", "encode both with the same recommender");
    check_numbers("scales", given_scales, count);
    check_numbers("residuals", given_residuals, count);
    if (given_items.has_value() && (given_items->scalar_type() != ScalarType::Float || given_items->dim() != 2 ||
                                    given_items->size(0) != count || given_items->size(1) != width)) {
        refuse(kOp, "items", "float32 (" + std::to_string(count) + ", " + std::to_string(width) + ")", described(*given_items),
               "give the vectors that were quantised");
    }
    check_devices(kOp, {{"queries", &given_queries}, {"panels", &given_panels}, {"sums", &sums}, {"scales", &given_scales},
                        {"residuals", &given_residuals}, {"items", pointer(given_items)}, {"exclude", pointer(exclude)},
                        {"exclude_offsets", pointer(exclude_offsets)}});
    check_sizes(kOp, "panels", given_queries, width, count, k);
    check_kept(kOp, k);

    const Running running(given_queries.get_device_index());
    const Tensor queries = in_order(given_queries), panels = in_order(given_panels), scales = in_order(given_scales);
    const Tensor residuals = in_order(given_residuals);
    std::optional<Tensor> items;
    if (given_items.has_value()) items = in_order(*given_items);
    const LeftOut left_out(kOp, query_count, exclude, exclude_offsets);
    Tensor scores = torch::stable::new_empty(queries, {query_count, k}), bounds = torch::stable::new_empty(queries, {query_count, k});
    Tensor ids = torch::stable::new_empty(queries, {query_count, k}, ScalarType::Long);
    if (query_count == 0) return {scores, ids, bounds};

    CosineTopKInt8Task task{};
    task.queries = queries.const_data_ptr<float>(), task.panels = panels.const_data_ptr<int8_t>();
    task.scales = scales.const_data_ptr<float>(), task.residuals = residuals.const_data_ptr<float>();
    task.items = items.has_value() ? items->const_data_ptr<float>() : nullptr;
    task.query_count = query_count, task.item_count = count;
    task.width = static_cast<int>(width), task.k = static_cast<int>(k);
    left_out.hand_to(task);
    task.parts = parts_for(task, running.multiprocessors());
    const Tensor scratch = scratch_like(queries, cosine_top_k_int8_scratch(task));
    task.scores = scores.mutable_data_ptr<float>(), task.ids = ids.mutable_data_ptr<int64_t>();
    task.bounds = bounds.mutable_data_ptr<float>(), task.scratch = scratch.data_ptr();
    check_launch(kOp, cuda::cosine_top_k_int8(task, running.stream()));
    return {scores, ids, bounds};
}

const CudaKernel declared(kOp, TORCH_BOX(&cosine_top_k_int8));

}  // namespace

}  // namespace compress_rec::cuda
