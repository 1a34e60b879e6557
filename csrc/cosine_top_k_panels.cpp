// cosine_top_k_panels with torch: checks, allocation, the cut into tasks, the merge. The kernel is in cpu/.
#include "cosine_top_k_panels.h"

#include <atomic>
#include <new>
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

// Merges the falling lists of several ranges into one: the ranges come in the order of their ids, so of equal scores the earlier is first.
void merge(const float* scores, const int64_t* ids, int64_t ranges, int64_t step, int64_t k, float* best, int64_t* best_ids) {
    std::vector<int64_t> place(static_cast<size_t>(ranges), 0);
    for (int64_t i = 0; i < k; ++i) {
        int64_t from = kNoRow;
        for (int64_t range = 0; range < ranges; ++range) {
            if (place[range] == k || ids[range * step + place[range]] == -1) continue;
            if (from == kNoRow || scores[range * step + place[range]] > scores[from * step + place[from]]) from = range;
        }
        best[i] = from == kNoRow ? -std::numeric_limits<float>::infinity() : scores[from * step + place[from]];
        best_ids[i] = from == kNoRow ? -1 : ids[from * step + place[from]];
        if (from != kNoRow) ++place[from];
    }
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

    Tensor scores = torch::stable::new_empty(queries, {query_count, k});
    Tensor ids = torch::stable::new_empty(queries, {query_count, k}, ScalarType::Long);
    float* score_out = scores.mutable_data_ptr<float>();
    int64_t* id_out = ids.mutable_data_ptr<int64_t>();

    // Many queries: each thread takes blocks of them. Few: each takes a range of the items, and the ranges' best are merged. Neither
    // changes a bit of the result: a pair's score depends on the pair alone, and the order is total.
    const int64_t fitting = std::clamp<int64_t>(kFloatsInBlock / std::max<int64_t>(width, 1) / 6 * 6, 24, 192);
    const int64_t in_block = count <= kRowsOnlyItems ? std::min(fitting, kQueriesInSmallBlock) : fitting;
    const int64_t blocks = (query_count + in_block - 1) / in_block;
    const int64_t ranges = ranges_for(blocks, count);
    const int64_t range_length = ((count + ranges - 1) / ranges + kRows - 1) / kRows * kRows;
    std::vector<float> range_scores(static_cast<size_t>(ranges > 1 ? ranges * query_count * k : 0));
    std::vector<int64_t> range_ids(range_scores.size());
    std::atomic<bool> no_memory{false};
    torch::stable::parallel_for(0, blocks * ranges, 1, [&](int64_t begin, int64_t end) {
        for (int64_t index = begin; index < end; ++index) {
            const int64_t first_query = index / ranges * in_block, range = index % ranges;
            CosineTopKPanelsTask task{};
            task.queries = unit.data() + first_query * width;
            task.query_count = std::min(in_block, query_count - first_query);
            task.query_stride = width;
            task.width = width;
            task.panels = panels.const_data_ptr<float>();
            task.first = std::min(range * range_length, count);
            task.last = std::min(task.first + range_length, count);
            task.k = k;
            task.excluded = excluded ? excluded->begin.data() + first_query : nullptr;
            task.excluded_end = excluded ? excluded->end.data() + first_query : nullptr;
            const int64_t place = (range * query_count + first_query) * k;
            task.scores = (ranges > 1 ? range_scores.data() : score_out) + place;
            task.ids = (ranges > 1 ? range_ids.data() : id_out) + place;
            try {
                cosine_top_k_panels_avx2(task);
            } catch (const std::bad_alloc&) {  // an exception must not cross torch's C interface
                no_memory.store(true);
            }
        }
    });
    if (no_memory.load()) throw std::bad_alloc();
    for (int64_t q = 0; ranges > 1 && q < query_count; ++q)
        merge(range_scores.data() + q * k, range_ids.data() + q * k, ranges, query_count * k, k, score_out + q * k, id_out + q * k);
    return {scores, ids};
}

const CpuKernel declared(kOp, TORCH_BOX(&cosine_top_k_panels));

}  // namespace

}  // namespace compress_rec
