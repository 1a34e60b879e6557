// cosine_top_k with torch: checks, allocation, what a part of the search is. The kernel is in cpu/.
#include "cosine_top_k.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "top_k.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k";
constexpr int64_t kQueriesInBlock = 192;   // 192 × 384 floats are 288 KB: they stay in a 512 KB L2

void check(const Tensor& queries, const Tensor& items, int64_t k, const std::optional<Tensor>& exclude,
           const std::optional<Tensor>& exclude_offsets) {
    check_vectors(kOp, "queries", queries);
    check_vectors(kOp, "items", items);
    check_sizes(kOp, "items", queries, items.size(1), items.size(0), k);
    check_exclusions(kOp, exclude, exclude_offsets);
}

float score_of(Candidate candidate) {
    const uint32_t order = static_cast<uint32_t>(candidate >> 32);
    const uint32_t bits = order & 0x80000000u ? order ^ 0x80000000u : ~order;
    float score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}

int64_t id_of(Candidate candidate) {
    return static_cast<int64_t>(0xFFFFFFFFu - static_cast<uint32_t>(candidate));
}

std::tuple<Tensor, Tensor> cosine_top_k(const Tensor& given_queries, const Tensor& given_items, int64_t k, std::optional<Tensor> exclude,
                                        std::optional<Tensor> exclude_offsets, bool normalised) {
    check(given_queries, given_items, k, exclude, exclude_offsets);
    const Tensor queries = in_order(given_queries), items = in_order(given_items);
    const int64_t query_count = queries.size(0), item_count = items.size(0), width = items.size(1);
    const int64_t padded_width = (width + 7) / 8 * 8;
    const float* item_data = items.const_data_ptr<float>();

    std::optional<Excluded> excluded;
    if (exclude.has_value()) excluded.emplace(kOp, *exclude, *exclude_offsets, query_count, item_count);
    std::vector<float> unit(static_cast<size_t>(query_count * padded_width));
    const int64_t bad_query = unit_rows_avx2(queries.const_data_ptr<float>(), query_count, width, padded_width, unit.data());
    if (bad_query != kNoRow) refuse_row(kOp, "queries", queries.const_data_ptr<float>(), bad_query, width);

    for (int64_t i = 0; query_count == 0 && i < item_count * width; ++i) {  // no score will betray a bad item
        if (!std::isfinite(item_data[i])) refuse_row(kOp, "items", item_data, i / width, width);
    }

    Tensor scores = new_floats({query_count, k});
    Tensor ids = new_ids({query_count, k});

    std::atomic<int64_t> bad_item{kNoRow};
    const auto search = [&](const SearchPart& part) {
        std::vector<Candidate> kept(static_cast<size_t>(part.query_count * k));
        CosineTopKTask task{};
        task.queries = unit.data() + part.first_query * padded_width;
        task.items = item_data;
        task.query_count = part.query_count;
        task.width = width;
        task.padded_width = padded_width;
        task.first = part.first_item, task.last = part.last_item;
        task.k = k;
        task.normalised = normalised;
        task.check_finite = part.first_query == 0;
        task.excluded = excluded ? excluded->begin.data() + part.first_query : nullptr;
        task.excluded_end = excluded ? excluded->end.data() + part.first_query : nullptr;
        task.kept = kept.data();
        const int64_t bad = cosine_top_k_avx2(task);
        int64_t least = bad_item.load();
        while (bad != kNoRow && (least == kNoRow || bad < least) && !bad_item.compare_exchange_weak(least, bad)) {
        }
        for (int64_t q = 0; q < part.query_count; ++q) std::sort(kept.begin() + q * k, kept.begin() + (q + 1) * k, std::greater<>());
        for (int64_t i = 0; i < part.query_count * k; ++i) {
            part.scores[i] = kept[i] == 0 ? -std::numeric_limits<float>::infinity() : score_of(kept[i]);
            part.ids[i] = kept[i] == 0 ? -1 : id_of(kept[i]);
        }
    };
    search_in_parts(query_count, item_count, kQueriesInBlock, k, scores.mutable_data_ptr<float>(), ids.mutable_data_ptr<int64_t>(), search);
    if (bad_item.load() != kNoRow) refuse_row(kOp, "items", item_data, bad_item.load(), width);
    return {scores, ids};
}

const CpuKernel declared(kOp, TORCH_BOX(&cosine_top_k));

}  // namespace

}  // namespace compress_rec
