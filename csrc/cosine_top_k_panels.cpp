// cosine_top_k_panels with torch: checks, allocation, the cut into tasks, the merge. The kernel is in cpu/.
#include "cosine_top_k_panels.h"

#include <tuple>

#include "cosine_top_k.h"
#include "kernels.h"
#include "top_k.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k_panels";
constexpr int64_t kRows = 16;               // of a panel
constexpr int64_t kFloatsInBlock = 73728;   // queries of a block: 288 KB stay in a 512 KB L2
constexpr int64_t kQueriesInSmallBlock = 96;  // where the rows of scores have to stay there too

void check(const Tensor& queries, const Tensor& panels, int64_t count, int64_t k, const std::optional<Tensor>& exclude,
           const std::optional<Tensor>& exclude_offsets) {
    check_vectors(kOp, "queries", queries);
    if (panels.scalar_type() != ScalarType::Float || panels.dim() != 3 || panels.size(2) != kRows) {
        refuse(kOp, "panels", "float32 (panels, dimensions, 16)", described(panels), "pack them with compress_rec.panels.packed");
    }
    const int64_t wanted = count / kRows + (count % kRows != 0);
    if (count < 0 || wanted != panels.size(0)) {
        refuse(kOp, "count", "the number of items in " + std::to_string(panels.size(0)) + " panels of 16", std::to_string(count),
               "give the number that was packed");
    }
    check_sizes(kOp, "panels", queries, panels.size(1), count, k);
    check_exclusions(kOp, exclude, exclude_offsets);
}

std::tuple<Tensor, Tensor> cosine_top_k_panels(const Tensor& given_queries, const Tensor& given_panels, int64_t count, int64_t k,
                                               std::optional<Tensor> exclude, std::optional<Tensor> exclude_offsets) {
    check(given_queries, given_panels, count, k, exclude, exclude_offsets);
    const Tensor queries = in_order(given_queries), panels = in_order(given_panels);
    const int64_t query_count = queries.size(0), width = queries.size(1);
    std::optional<Excluded> excluded;
    if (exclude.has_value()) excluded.emplace(kOp, *exclude, *exclude_offsets, query_count, count);
    std::vector<float> unit(static_cast<size_t>(query_count * width));
    const int64_t bad_query = unit_rows_avx2(queries.const_data_ptr<float>(), query_count, width, width, unit.data());
    if (bad_query != kNoRow) refuse_row(kOp, "queries", queries.const_data_ptr<float>(), bad_query, width);

    Tensor scores = new_floats({query_count, k});
    Tensor ids = new_ids({query_count, k});
    float* score_out = scores.mutable_data_ptr<float>();
    int64_t* id_out = ids.mutable_data_ptr<int64_t>();

    const int64_t fitting = std::clamp<int64_t>(kFloatsInBlock / std::max<int64_t>(width, 1) / 6 * 6, 24, 192);
    const int64_t in_block = count <= kRowsOnlyItems ? std::min(fitting, kQueriesInSmallBlock) : fitting;
    search_in_parts(query_count, count, in_block, k, score_out, id_out, [&](const SearchPart& part) {
        CosineTopKPanelsTask task{};
        task.queries = unit.data() + part.first_query * width;
        task.query_count = part.query_count;
        task.query_stride = width;
        task.width = width;
        task.panels = panels.const_data_ptr<float>();
        task.first = part.first_item, task.last = part.last_item;
        task.k = k;
        task.excluded = excluded ? excluded->begin.data() + part.first_query : nullptr;
        task.excluded_end = excluded ? excluded->end.data() + part.first_query : nullptr;
        task.scores = part.scores, task.ids = part.ids;
        cosine_top_k_panels_avx2(task);
    });
    return {scores, ids};
}

const CpuKernel declared(kOp, TORCH_BOX(&cosine_top_k_panels));

}  // namespace

}  // namespace compress_rec
