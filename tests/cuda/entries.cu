// The launchers as plain functions, for tests in Python: the same file for the emulation and for nvcc.
#include "cosine_top_k.cu"
#include "cosine_top_k_exact.cu"
#include "cosine_top_k_int8.cu"
#include "cosine_top_k_many.cu"
#include "cosine_top_k_panels.cu"
#include "low_rank_feed_forward.cu"
#include "low_rank_linear.cu"

#define ENTRY extern "C" __attribute__((visibility("default")))

using namespace compress_rec::cuda;

static CosineTopKTask task_of(int64_t query_count, const void* items, int64_t type, int64_t item_count, int64_t width, int64_t k,
                              int64_t normalised) {
    CosineTopKTask task{};
    task.items = items, task.type = static_cast<ItemType>(type), task.query_count = query_count, task.item_count = item_count;
    task.width = static_cast<int>(width), task.k = static_cast<int>(k), task.normalised = normalised != 0;
    return task;
}

ENTRY uint64_t cosine_top_k_entry_scratch(int64_t query_count, const void* items, int64_t type, int64_t item_count, int64_t width,
                                          int64_t k, int64_t normalised, int64_t parts) {
    CosineTopKTask task = task_of(query_count, items, type, item_count, width, k, normalised);
    task.parts = static_cast<int>(parts);
    return cosine_top_k_scratch(task);
}

ENTRY const char* cosine_top_k_entry(int64_t query_count, const void* items, int64_t type, int64_t item_count, int64_t width, int64_t k,
                                     int64_t normalised, int64_t parts, const float* queries, const int64_t* exclude,
                                     const int64_t* offsets, int64_t exclude_count, float* scores, int64_t* ids, void* scratch) {
    CosineTopKTask task = task_of(query_count, items, type, item_count, width, k, normalised);
    task.parts = static_cast<int>(parts), task.queries = queries;
    task.exclude = exclude, task.exclude_offsets = offsets, task.exclude_count = exclude_count;
    task.scores = scores, task.ids = ids, task.scratch = scratch;
    return cosine_top_k(task, nullptr);
}

ENTRY int64_t parts_for_entry(int64_t query_count, const void* items, int64_t type, int64_t item_count, int64_t width, int64_t k,
                              int64_t normalised, int64_t multiprocessors) {
    const CosineTopKTask task = task_of(query_count, items, type, item_count, width, k, normalised);
    return parts_for(task, static_cast<int>(multiprocessors));
}

static CosineTopKInt8Task int8_task(int64_t queries, int64_t width, int64_t k, int64_t parts) {
    CosineTopKInt8Task task{};
    task.query_count = queries, task.width = static_cast<int>(width), task.k = static_cast<int>(k), task.parts = static_cast<int>(parts);
    return task;
}

ENTRY uint64_t cosine_top_k_int8_entry_scratch(int64_t queries, int64_t width, int64_t k, int64_t parts, const float* items) {
    CosineTopKInt8Task task = int8_task(queries, width, k, parts);
    task.items = items;
    return cosine_top_k_int8_scratch(task);
}

ENTRY const char* cosine_top_k_int8_entry(const float* queries, int64_t query_count, const int8_t* panels, const float* scales,
                                          const float* residuals, const float* items, int64_t item_count, int64_t width, int64_t k,
                                          const int64_t* exclude, const int64_t* offsets, int64_t exclude_count, int64_t parts,
                                          float* scores, int64_t* ids, float* bounds, void* scratch) {
    CosineTopKInt8Task task = int8_task(query_count, width, k, parts);
    task.queries = queries, task.panels = panels, task.scales = scales, task.residuals = residuals, task.item_count = item_count;
    task.items = items;
    task.exclude = exclude, task.exclude_offsets = offsets, task.exclude_count = exclude_count;
    task.scores = scores, task.ids = ids, task.bounds = bounds, task.scratch = scratch;
    return cosine_top_k_int8(task, nullptr);
}

ENTRY int64_t low_rank_linear_entry_splits(int64_t rows, int64_t outputs, int64_t multiprocessors) {
    return splits_for(rows, static_cast<int>(outputs), static_cast<int>(multiprocessors));
}

ENTRY const char* low_rank_linear_entry(int64_t type, const void* x, const void* a, const void* b, const void* bias, void* y, int64_t rows,
                                        int64_t inputs, int64_t rank, int64_t outputs, int64_t splits) {
    LowRankLinearTask task{};
    task.type = static_cast<NumberType>(type), task.x = x, task.a = a, task.b = b, task.bias = bias, task.y = y, task.rows = rows;
    task.inputs = static_cast<int>(inputs), task.rank = static_cast<int>(rank), task.outputs = static_cast<int>(outputs);
    task.splits = static_cast<int>(splits);
    return low_rank_linear(task, nullptr);
}

ENTRY const char* low_rank_feed_forward_entry(int64_t type, const void* x, const void* a, const void* b, const void* bias, const void* c,
                                              const void* d, const void* bias_out, void* y, int64_t rows, int64_t inputs, int64_t rank,
                                              int64_t hidden, int64_t rank_out, int64_t outputs) {
    LowRankFeedForwardTask task{};
    task.type = static_cast<NumberType>(type), task.x = x, task.a = a, task.b = b, task.bias = bias, task.c = c, task.d = d;
    task.bias_out = bias_out, task.y = y, task.rows = rows;
    task.inputs = static_cast<int>(inputs), task.rank = static_cast<int>(rank), task.hidden = static_cast<int>(hidden);
    task.rank_out = static_cast<int>(rank_out), task.outputs = static_cast<int>(outputs);
    return low_rank_feed_forward(task, nullptr);
}

static CosineTopKPanelsTask panels_task(int64_t queries, int64_t width, int64_t k, int64_t parts) {
    CosineTopKPanelsTask task{};
    task.query_count = queries, task.width = static_cast<int>(width), task.k = static_cast<int>(k), task.parts = static_cast<int>(parts);
    return task;
}

ENTRY uint64_t cosine_top_k_panels_entry_scratch(int64_t queries, int64_t width, int64_t k, int64_t parts) {
    return cosine_top_k_panels_scratch(panels_task(queries, width, k, parts));
}

ENTRY const char* cosine_top_k_panels_entry(const float* queries, int64_t query_count, const float* panels, int64_t item_count,
                                            int64_t width, int64_t k, const int64_t* exclude, const int64_t* offsets,
                                            int64_t exclude_count, int64_t parts, float* scores, int64_t* ids, void* scratch) {
    CosineTopKPanelsTask task = panels_task(query_count, width, k, parts);
    task.queries = queries, task.panels = panels, task.item_count = item_count;
    task.exclude = exclude, task.exclude_offsets = offsets, task.exclude_count = exclude_count;
    task.scores = scores, task.ids = ids, task.scratch = scratch;
    return cosine_top_k_panels(task, nullptr);
}
