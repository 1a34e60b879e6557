// cosine_top_k_panels on CUDA devices with torch: checks, allocation, the launch.
#include <tuple>

#include "../kernels.h"
#include "torch_top_k.h"

namespace compress_rec::cuda {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k_panels";
constexpr int64_t kRowsInPanel = 16;

void check(const Tensor& queries, const Tensor& panels, int64_t count, int64_t k) {
    check_vectors(kOp, "queries", queries);
    if (panels.scalar_type() != ScalarType::Float || panels.dim() != 3 || panels.size(2) != kRowsInPanel) {
        refuse(kOp, "panels", "float32 (panels, dimensions, 16)", described(panels), "pack them with compress_rec.panels.packed");
    }
    if (count < 0 || (count + kRowsInPanel - 1) / kRowsInPanel != panels.size(0)) {
        refuse(kOp, "count", "the number of items in " + std::to_string(panels.size(0)) + " panels of 16", std::to_string(count),
               "give the number that was packed");
    }
    check_sizes(kOp, "panels", queries, panels.size(1), count, k);
    check_kept(kOp, k);
}

std::tuple<Tensor, Tensor> cosine_top_k_panels(const Tensor& given_queries, const Tensor& given_panels, int64_t count, int64_t k,
                                               std::optional<Tensor> exclude, std::optional<Tensor> exclude_offsets) {
    check(given_queries, given_panels, count, k);
    check_devices(kOp, {{"queries", &given_queries}, {"panels", &given_panels}, {"exclude", pointer(exclude)},
                        {"exclude_offsets", pointer(exclude_offsets)}});
    const Running running(given_queries.get_device_index());
    const Tensor queries = in_order(given_queries), panels = in_order(given_panels);
    const LeftOut left_out(kOp, queries.size(0), exclude, exclude_offsets);
    CosineTopKPanelsTask task{};
    task.query_count = queries.size(0), task.item_count = count;
    task.width = static_cast<int>(panels.size(1)), task.k = static_cast<int>(k);
    Tensor scores = torch::stable::new_empty(queries, {task.query_count, k});
    Tensor ids = torch::stable::new_empty(queries, {task.query_count, k}, ScalarType::Long);
    if (task.query_count == 0) return {scores, ids};
    task.queries = queries.const_data_ptr<float>(), task.panels = panels.const_data_ptr<float>();
    left_out.hand_to(task);
    task.parts = parts_for(task, running.multiprocessors());
    const Tensor scratch = scratch_like(queries, cosine_top_k_panels_scratch(task));
    task.scores = scores.mutable_data_ptr<float>(), task.ids = ids.mutable_data_ptr<int64_t>();
    task.scratch = scratch.data_ptr();
    check_launch(kOp, cuda::cosine_top_k_panels(task, running.stream()));
    return {scores, ids};
}

const CudaKernel declared(kOp, TORCH_BOX(&cosine_top_k_panels));

}  // namespace

}  // namespace compress_rec::cuda
