// cosine_top_k_int8 with torch: checks, allocation, the cut into tasks. The kernel is in cpu/.
#include "cosine_top_k_int8.h"

#include <memory>
#include <tuple>

#include "cosine_top_k.h"
#include "cosine_top_k_panels.h"
#include "kernels.h"
#include "top_k.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "cosine_top_k_int8";
constexpr int64_t kItemsToEachOfK = 128, kMoreThanK = 8, kQueriesInSmallBlock = 96;
constexpr int64_t kBytesInBlock = 96 << 10;  // queries of a block, as bytes: they stay in a 512 KB L2
// of the query (twice, where an index converted it first), of the item and of the score to float32: at most 2^-24 each, and room for
// their products
constexpr float kRoundingOfUnits = 5 * 0x1p-24f;

void check_numbers(const char* argument, const Tensor& values, int64_t count) {
    if (values.scalar_type() != ScalarType::Float || values.dim() != 1 || values.size(0) != count) {
        refuse(kOp, argument, "float32 (" + std::to_string(count) + ",), one number an item", described(values),
               "quantise the items with compress_rec.int8_items.quantized");
    }
}

void check(const Tensor& queries, const Tensor& panels, const Tensor& sums, const Tensor& scales, const Tensor& residuals,
           const std::optional<Tensor>& items, int64_t k, const std::optional<Tensor>& exclude,
           const std::optional<Tensor>& exclude_offsets) {
    check_vectors(kOp, "queries", queries);
    const int64_t width = queries.size(1), count = sums.numel();
    if (sums.scalar_type() != ScalarType::Int || sums.dim() != 1) {
        refuse(kOp, "sums", "int32 (items,)", described(sums), "quantise the items with compress_rec.int8_items.quantized");
    }
    check_int8_panels(kOp, panels, count, width, "", "encode both with the same recommender");
    check_numbers("scales", scales, count);
    check_numbers("residuals", residuals, count);
    if (items.has_value() && (items->scalar_type() != ScalarType::Float || items->dim() != 2 || items->size(0) != count ||
                              items->size(1) != width)) {
        refuse(kOp, "items", "float32 (" + std::to_string(count) + ", " + std::to_string(width) + ")", described(*items),
               "give the vectors that were quantised");
    }
    check_sizes(kOp, "panels", queries, width, count, k);
    check_exclusions(kOp, exclude, exclude_offsets);
}

// A few items and a k that is a good part of them: too many would have to be rescored after int8 screening. They are multiplied in float32
// then, and of a few more than k the float64 scores are taken.
bool few_items(int64_t query_count, int64_t count, int64_t k) {
    return count <= kRowsOnlyItems && query_count >= 8 && k * kItemsToEachOfK >= count;
}

// Takes the best k by float64 score out of more, which float32 found, and sorts them in place. False where float32 leaves open whether
// others belong among them: a chain of `width` FMAs over vectors of length 1 is off by at most 1.01 · width · 2^-24.
bool settled(const CosineTopKInt8Task& task, int64_t query, const float* rough, int64_t* ids, float* scores, int64_t more) {
    const double off = (1.01 * static_cast<double>(task.width) + 1.0) * 0x1p-24;
    int64_t filled = 0;
    while (filled < more && ids[filled] >= 0) ++filled;
    const bool all = filled < more || more == task.last - task.first;
    if (!all && rough[more - 1] + off >= rough[task.k - 1] - off - 0x1p-24) return false;
    // float32 has nearly sorted them, so inserting one after the other moves little
    for (int64_t i = 1; i < filled; ++i) {
        const float score = scores[i];
        const int64_t id = ids[i];
        int64_t place = i;
        for (; place > 0 && (scores[place - 1] < score || (scores[place - 1] == score && ids[place - 1] > id)); --place)
            scores[place] = scores[place - 1], ids[place] = ids[place - 1];
        scores[place] = score, ids[place] = id;
    }
    for (int64_t i = 0; i < task.k; ++i) {
        task.scores[query * task.k + i] = i < filled ? scores[i] : -std::numeric_limits<float>::infinity();
        task.ids[query * task.k + i] = i < filled ? ids[i] : -1;
    }
    return true;
}

void search_few(const CosineTopKInt8Task& task, const float* panels) {
    const int64_t more = std::min(task.k + kMoreThanK, task.last - task.first);
    std::vector<float> rough(static_cast<size_t>(task.query_count * more)), scores(rough.size());
    std::vector<int64_t> found(rough.size());
    CosineTopKPanelsTask floats{};
    floats.queries = task.queries, floats.query_count = task.query_count, floats.query_stride = task.width, floats.width = task.width;
    floats.panels = panels, floats.first = task.first, floats.last = task.last, floats.k = more;
    floats.excluded = task.excluded, floats.excluded_end = task.excluded_end;
    floats.scores = rough.data(), floats.ids = found.data();
    cosine_top_k_panels_avx2(floats);
    scores_of_avx2(task, found.data(), more, scores.data());
    for (int64_t q = 0; q < task.query_count; ++q) {
        const int64_t place = q * more;
        if (settled(task, q, rough.data() + place, found.data() + place, scores.data() + place, more)) continue;
        CosineTopKInt8Task alone = task;
        alone.queries += q * task.width, alone.query_count = 1;
        alone.scores += q * task.k, alone.ids += q * task.k;
        if (task.excluded) alone.excluded += q, alone.excluded_end += q;
        cosine_top_k_int8_avx2(alone);
    }
}

std::tuple<Tensor, Tensor, Tensor> cosine_top_k_int8(const Tensor& given_queries, const Tensor& given_panels, const Tensor& given_sums,
                                                     const Tensor& given_scales, const Tensor& given_residuals,
                                                     std::optional<Tensor> given_items, int64_t k, std::optional<Tensor> exclude,
                                                     std::optional<Tensor> exclude_offsets) {
    check(given_queries, given_panels, given_sums, given_scales, given_residuals, given_items, k, exclude, exclude_offsets);
    const Tensor queries = in_order(given_queries), panels = in_order(given_panels), sums = in_order(given_sums);
    const Tensor scales = in_order(given_scales), residuals = in_order(given_residuals);
    std::optional<Tensor> items;
    if (given_items.has_value()) items = in_order(*given_items);
    const int64_t query_count = queries.size(0), width = queries.size(1), count = sums.numel();
    std::optional<Excluded> excluded;
    if (exclude.has_value()) excluded.emplace(kOp, *exclude, *exclude_offsets, query_count, count);
    std::vector<float> unit(static_cast<size_t>(query_count * width));
    const int64_t bad_query = unit_rows_avx2(queries.const_data_ptr<float>(), query_count, width, width, unit.data());
    if (bad_query != kNoRow) refuse_row(kOp, "queries", queries.const_data_ptr<float>(), bad_query, width);

    Tensor scores = new_floats({query_count, k}), bounds = new_floats({query_count, k});
    Tensor ids = new_ids({query_count, k});
    float *score_out = scores.mutable_data_ptr<float>(), *bound_out = bounds.mutable_data_ptr<float>();
    int64_t* id_out = ids.mutable_data_ptr<int64_t>();
    const float* residual_data = residuals.const_data_ptr<float>();
    const bool few = items.has_value() && few_items(query_count, count, k);
    std::unique_ptr<float[]> floats;  // nothing is written twice: they are as large as the catalogue
    if (few) {
        floats.reset(new float[static_cast<size_t>((count + 15) / 16 * 16 * width)]);
        panels_of_avx2(items->const_data_ptr<float>(), scales.const_data_ptr<float>(), count, width, floats.get());
    }
    const int64_t fitting = std::clamp<int64_t>(kBytesInBlock / std::max<int64_t>(panels.size(1) * 8, 1) / 4 * 4, 16, 256);
    const int64_t in_block = few ? std::min(fitting, kQueriesInSmallBlock) : fitting;
    search_in_parts(query_count, count, in_block, k, score_out, id_out, [&](const SearchPart& part) {
        CosineTopKInt8Task task{};
        task.queries = unit.data() + part.first_query * width;
        task.query_count = part.query_count, task.width = width;
        task.panels = panels.const_data_ptr<int8_t>(), task.steps = panels.size(1);
        task.sums = sums.const_data_ptr<int32_t>();
        task.scales = scales.const_data_ptr<float>(), task.residuals = residual_data;
        task.items = items.has_value() ? items->const_data_ptr<float>() : nullptr;
        task.first = part.first_item, task.last = part.last_item;
        task.k = k;
        task.excluded = excluded ? excluded->begin.data() + part.first_query : nullptr;
        task.excluded_end = excluded ? excluded->end.data() + part.first_query : nullptr;
        task.scores = part.scores, task.ids = part.ids;
        few ? search_few(task, floats.get()) : cosine_top_k_int8_avx2(task);
    });
    for (int64_t i = 0; i < query_count * k; ++i)
        bound_out[i] = (items.has_value() || id_out[i] < 0 ? 0.0f : residual_data[id_out[i]]) + kRoundingOfUnits;
    return {scores, ids, bounds};
}

const CpuKernel declared(kOp, TORCH_BOX(&cosine_top_k_int8));

}  // namespace

}  // namespace compress_rec
