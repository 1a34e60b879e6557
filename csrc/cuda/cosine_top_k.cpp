// cosine_top_k on CUDA devices with torch: checks, allocation, the launch. Values are not looked at, since that would wait for the device:
// what is not finite comes back as NaN, and excluded ids outside the catalogue exclude nothing.
#include <tuple>

#include "../kernels.h"
#include "torch_top_k.h"

namespace compress_rec::cuda {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k";

void check_items(const Tensor& items) {
    const ScalarType type = items.scalar_type();
    const bool known = type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
    if (known && items.dim() == 2) return;
    refuse(kOp, "items", "float32 (items, dimensions)", described(items), "reshape it, or convert it with .float()");
}

std::tuple<Tensor, Tensor> cosine_top_k(const Tensor& given_queries, const Tensor& given_items, int64_t k, std::optional<Tensor> exclude,
                                        std::optional<Tensor> exclude_offsets, bool normalised) {
    check_vectors(kOp, "queries", given_queries);
    check_items(given_items);
    check_devices(kOp, {{"queries", &given_queries}, {"items", &given_items}, {"exclude", pointer(exclude)},
                        {"exclude_offsets", pointer(exclude_offsets)}});
    check_sizes(kOp, "items", given_queries, given_items.size(1), given_items.size(0), k);
    check_kept(kOp, k);
    const Running running(given_queries.get_device_index());
    const Tensor queries = in_order(given_queries), items = in_order(given_items);
    const LeftOut left_out(kOp, queries.size(0), exclude, exclude_offsets);
    CosineTopKTask task{};
    task.query_count = queries.size(0), task.item_count = items.size(0);
    task.width = static_cast<int>(items.size(1)), task.k = static_cast<int>(k);
    Tensor scores = torch::stable::new_empty(queries, {task.query_count, k});
    Tensor ids = torch::stable::new_empty(queries, {task.query_count, k}, ScalarType::Long);
    if (task.query_count == 0) return {scores, ids};

    task.queries = queries.const_data_ptr<float>(), task.items = items.data_ptr();
    task.type = items.scalar_type() == ScalarType::Float      ? ItemType::float32
                : items.scalar_type() == ScalarType::BFloat16 ? ItemType::bfloat16
                                                              : ItemType::float16;
    task.normalised = normalised;
    left_out.hand_to(task);
    task.parts = parts_for(task, running.multiprocessors());
    const Tensor scratch = scratch_like(queries, cosine_top_k_scratch(task));
    task.scores = scores.mutable_data_ptr<float>(), task.ids = ids.mutable_data_ptr<int64_t>();
    task.scratch = scratch.data_ptr();
    check_launch(kOp, cuda::cosine_top_k(task, running.stream()));
    return {scores, ids};
}

const CudaKernel declared(kOp, TORCH_BOX(&cosine_top_k));

}  // namespace

}  // namespace compress_rec::cuda
