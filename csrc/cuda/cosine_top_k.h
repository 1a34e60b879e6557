// cosine_top_k on CUDA devices, without torch: what a caller hands over. compress_rec/ops/cosine_top_k.py specifies the op.
#pragma once

#include <cstddef>
#include <cstdint>

namespace compress_rec::cuda {

enum class ItemType : int { float32, bfloat16, float16 };

constexpr int kMostItemsKept = 1024;  // the largest k

// All pointers are of the device. Nothing is looked at by the host: a query that holds NaN or infinity gets scores NaN and ids -1, an item
// that does (and is scored) gives them to every query.
struct CosineTopKTask {
    const float* queries;    // (query_count, width), of any length
    const void* items;       // (item_count, width), of any length; in a half-precision catalogue, unit queries are rounded to it too
    ItemType type;
    int64_t query_count, item_count;
    int width;
    int k;                   // 1 … the lesser of 1024 and item_count
    bool normalised;         // items have length 1 already
    const int64_t* exclude;  // null where nothing is excluded
    const int64_t* exclude_offsets;
    int64_t exclude_count;
    int parts;               // how many blocks share the items, from parts_for
    float* scores;           // (query_count, k)
    int64_t* ids;            // (query_count, k)
    void* scratch;           // cosine_top_k_scratch bytes, aligned to 16
};

// How many parts to cut the items into, so that a device of so many multiprocessors is busy. All else but pointers to results is filled in.
int parts_for(const CosineTopKTask& task, int multiprocessors);

// Bytes of scratch memory that the task needs, its parts chosen.
size_t cosine_top_k_scratch(const CosineTopKTask& task);

// Puts the kernels on the stream (a cudaStream_t); allocates nothing and waits for nothing. Returns null, or why it cannot.
const char* cosine_top_k(const CosineTopKTask& task, void* stream);

// The same from unit vectors in the panels of compress_rec/panels.py; an item that holds NaN is removed.
struct CosineTopKPanelsTask {
    const float* queries;  // (query_count, width)
    const float* panels;   // (ceil(item_count / 16), width, 16)
    int64_t query_count, item_count;
    int width, k;
    const int64_t* exclude;
    const int64_t* exclude_offsets;
    int64_t exclude_count;
    int parts;
    float* scores;
    int64_t* ids;
    void* scratch;
};

int parts_for(const CosineTopKPanelsTask& task, int multiprocessors);
size_t cosine_top_k_panels_scratch(const CosineTopKPanelsTask& task);
const char* cosine_top_k_panels(const CosineTopKPanelsTask& task, void* stream);

// The same from a catalogue in int8, as compress_rec/int8_items.py describes it. Without the vectors that were quantised, scores are those
// of scale * codes; with them they are the products of the vectors in double, rounded once, and the codes are not read.
struct CosineTopKInt8Task {
    const float* queries;  // (query_count, width)
    const int8_t* panels;  // (ceil(item_count / 16), ceil(width / 8), 2, 16, 4)
    const float* scales;   // (item_count,); NaN: the item is removed
    const float* residuals;
    const float* items;    // (item_count, width) unit vectors, or null
    int64_t query_count, item_count;
    int width, k;
    const int64_t* exclude;
    const int64_t* exclude_offsets;
    int64_t exclude_count;
    int parts;
    float* scores;
    int64_t* ids;
    float* bounds;         // (query_count, k): how far a score may be off the vectors that were quantised
    void* scratch;
};

int parts_for(const CosineTopKInt8Task& task, int multiprocessors);
size_t cosine_top_k_int8_scratch(const CosineTopKInt8Task& task);
const char* cosine_top_k_int8(const CosineTopKInt8Task& task, void* stream);

}  // namespace compress_rec::cuda
