// What the searches share around their scans: the scratch memory, queries made unit length, the merge of the parts.
#pragma once

#include "cosine_top_k.h"
#include "rows.h"
#include "selection.h"

namespace compress_rec::cuda {

constexpr int kStep = 4 * kLanes;  // numbers of a row that a warp reads at a time

constexpr int64_t padded(int64_t width) { return (width + kStep - 1) / kStep * kStep; }

// Enough blocks for so many multiprocessors, where a block takes `in_group` queries and each multiprocessor holds `at_once` blocks; but no
// more than leave each part many times k items, so that merging stays small beside scanning.
inline int parts_of(int64_t query_count, int64_t item_count, int k, int64_t in_group, int at_once, int multiprocessors) {
    const int64_t groups = query_count > in_group ? (query_count + in_group - 1) / in_group : 1;
    const int64_t wanted = (int64_t{at_once} * multiprocessors + groups - 1) / groups;
    const int64_t least = k < kRound ? 4 * kRound : 4 * k, most = (item_count + least - 1) / least;
    return static_cast<int>(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
}

// The path for many queries, in cosine_top_k_many.cu: whether it takes the task, and how many queries a block of it holds.
bool serves_many(const CosineTopKTask& task);
int many_in_group(int width);
size_t cosine_top_k_many_scratch(const CosineTopKTask& task);
const char* cosine_top_k_many(const CosineTopKTask& task, void* stream);

// Where the parts of the scratch memory lie.
struct Scratch {
    float* unit;   // (query_count, padded width) unit queries
    Key* kept;     // (parts, query_count, k) the best of each part
    int* bad;      // (1 + query_count,): an item, and which queries, hold what is not finite
    size_t bytes;

    Scratch(void* memory, int64_t query_count, int64_t floats_a_query, int k, int parts) {
        auto* next = static_cast<unsigned char*>(memory);
        const auto take = [&](size_t size) {
            unsigned char* taken = next;
            next += (size + 15) / 16 * 16;
            return taken;
        };
        unit = reinterpret_cast<float*>(take(sizeof(float) * query_count * floats_a_query));
        kept = reinterpret_cast<Key*>(take(sizeof(Key) * parts * query_count * k));
        bad = reinterpret_cast<int*>(take(sizeof(int) * (1 + query_count)));
        bytes = static_cast<size_t>(next - static_cast<unsigned char*>(memory));
    }
};

__device__ inline double warp_sum(double sum) {
    for (int step = kLanes / 2; step; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    return sum;
}

// The length of a row, in double so that no finite row overflows, or NaN where the row holds what is not finite. By a warp.
__device__ inline double length_of(const float* row, int width, int lane) {
    double squares = 0;
    for (int j = lane; j < width; j += kLanes) squares += static_cast<double>(row[j]) * row[j];
    squares = warp_sum(squares);
    return squares <= 1.7e308 ? sqrt(squares) : NAN;
}

constexpr float kLeastSquare = 1e-30f, kMostSquare = 1e30f;  // between them a sum of squares in float32 is as good as any

// The cosine of one row and one query in double, for rows too long or too short for float32. NaN where the row is not finite. By a warp.
template <class Item, class Query>
__device__ float careful_cosine(const Item* row, const Query* query, int width, int lane) {
    double squares = 0, product = 0;
    for (int j = lane; j < width; j += kLanes) {
        const double value = number(row[j]);
        squares += value * value;
        product += value * number(query[j]);
    }
    squares = warp_sum(squares);
    product = warp_sum(product);
    return squares == 0 ? 0.0f : static_cast<float>(product / sqrt(squares));
}

// Unit queries and zeros behind them, rounded to the catalogue's type where that is half precision. A warp each.
static __global__ void __launch_bounds__(kThreads)
unit_kernel(const float* queries, int64_t query_count, int width, int padded_width, ItemType type, float* unit, int* bad) {
    const int lane = threadIdx.x % kLanes;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
    if (blockIdx.x == 0 && threadIdx.x == 0) bad[0] = 0;
    if (query >= query_count) return;
    const double length = length_of(queries + query * width, width, lane);
    const bool finite = length == length;
    const double by = finite && length > 0 ? length : 1.0;
    for (int j = lane; j < padded_width; j += kLanes) {
        float value = finite && j < width ? static_cast<float>(queries[query * width + j] / by) : 0.0f;
        if (type == ItemType::bfloat16) value = __bfloat162float(__float2bfloat16_rn(value));
        if (type == ItemType::float16) value = __half2float(__float2half_rn(value));
        unit[query * padded_width + j] = value;
    }
    if (lane == 0) bad[1 + query] = !finite;
}

// Writes a part's best of `count` queries from a block's selection to where the merge reads them.
__device__ inline void write_part(const Selection& selection, Key* kept, int part, int64_t first_query, int count, int64_t query_count,
                                  int k) {
    for (int i = threadIdx.x; i < count * k; i += kThreads) {
        kept[(part * query_count + first_query + i / k) * k + i % k] = selection.best(i / k)[i % k];
    }
}

// Merges the parts' best of one query, a block each.
static __global__ void __launch_bounds__(kThreads)
merge_kernel(const Key* kept, const int* bad, int parts, int64_t query_count, int k, float* scores, int64_t* ids) {
    SharedMemory shared;
    const int64_t query = blockIdx.x, total = static_cast<int64_t>(parts) * k;
    Selection selection(shared, 1, k, query, Exclusions{});
    selection.begin();
    __syncthreads();
    for (int64_t start = 0; start < total; start += kRound) {
        const int64_t i = start + threadIdx.x;
        const Key key = i < total ? kept[(i / k * query_count + query) * k + i % k] : 0;
        const bool full = selection.offer(0, kAllLanes, score_of(key), static_cast<unsigned>(id_of(key)), key != 0);
        if (__syncthreads_or(full)) {
            selection.keep_best();
            __syncthreads();
        }
    }
    selection.keep_best();
    __syncthreads();
    const bool failed = bad[0] || bad[1 + query];
    for (int i = threadIdx.x; i < k; i += kThreads) {
        const Key key = selection.best(0)[i];
        scores[query * k + i] = failed ? NAN : key ? score_of(key) : -INFINITY;
        ids[query * k + i] = failed || !key ? -1 : id_of(key);
    }
}

inline cudaError_t make_unit(const float* queries, int64_t query_count, int width, ItemType type, const Scratch& scratch,
                             cudaStream_t stream) {
    COMPRESS_REC_LAUNCH(unit_kernel, static_cast<unsigned>((query_count + kWarps - 1) / kWarps), kThreads, 0, stream, queries, query_count,
                        width, static_cast<int>(padded(width)), type, scratch.unit, scratch.bad);
    return cudaGetLastError();
}

inline cudaError_t merge(const Scratch& scratch, int parts, int64_t query_count, int k, float* scores, int64_t* ids, cudaStream_t stream) {
    const int bytes = Selection::bytes(1, k);
    if (const cudaError_t error = allow_shared(merge_kernel, bytes)) return error;
    COMPRESS_REC_LAUNCH(merge_kernel, static_cast<unsigned>(query_count), kThreads, bytes, stream, scratch.kept, scratch.bad, parts,
                        query_count, k, scores, ids);
    return cudaGetLastError();
}

}  // namespace compress_rec::cuda
