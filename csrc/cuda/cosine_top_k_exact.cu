// Cosine top-k with products in double, for a catalogue whose scores are to be exact: that of int8 items kept beside their vectors. On
// devices whose double precision is half of the single, memory is still what limits it; on others it is slow, and right.
#include "exact.h"

#include "top_k_parts.h"

namespace compress_rec::cuda {

namespace {

// A warp multiplies four rows by four queries, or eight by one: kSums products, of which each lane sums its numbers.
template <int kQueries, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
exact_kernel(const float* items, const float* scales, int64_t item_count, int64_t in_part, const float* unit, int64_t query_count,
             int width, int padded_width, int k, Exclusions exclusions, Key* kept, int* bad, int parts) {
    constexpr int kItems = kQueries == 1 ? 8 : 4, kSums = kItems * kQueries, kShare = kLanes / kSums;
    SharedMemory shared;
    float* queries = shared.take<float>(kQueries * padded_width);
    const int groups_of_queries = static_cast<int>(gridDim.x) / parts, part = blockIdx.x / groups_of_queries;
    const int64_t first_query = static_cast<int64_t>(blockIdx.x % groups_of_queries) * kQueries;  // neighbours read the same items
    Selection selection(shared, kQueries, k, first_query, exclusions);
    const int64_t first = part * in_part, last = first + in_part < item_count ? first + in_part : item_count;
    for (int i = threadIdx.x; i < kQueries * padded_width; i += kThreads) {
        queries[i] = first_query + i / padded_width < query_count ? unit[first_query * padded_width + i] : 0.0f;
    }
    selection.begin();
    __syncthreads();
    const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, slot = lane / kShare % kQueries;
    unsigned alike = 0;  // lanes with the same query
    for (int other = 0; other < kLanes; ++other) alike |= (other / kShare % kQueries == slot ? 1u : 0u) << other;
    for (int64_t round = first; round < last; round += kRound) {
        bool full = false;
        for (int tile = warp; tile < kRound / kItems; tile += kWarps) {
            const int64_t start = round + tile * kItems;
            if (start >= last) break;
            double sums[kSums] = {};
            const float* rows = items + start * width;
            const int behind = last - start < kItems ? static_cast<int>(last - start) - 1 : kItems - 1;
            for (int j = 4 * lane; j < width; j += kStep) {
                float4 numbers[kItems];
#pragma unroll
                for (int i = 0; i < kItems; ++i) numbers[i] = four_of<kAligned>(rows + (i < behind ? i : behind) * width, j, width);
#pragma unroll
                for (int q = 0; q < kQueries; ++q) {
                    const float4 query = four_at(queries + q * padded_width + j);
                    const double x = query.x, y = query.y, z = query.z, w = query.w;
#pragma unroll
                    for (int i = 0; i < kItems; ++i) {
                        double& sum = sums[i * kQueries + q];
                        sum = fma(x, static_cast<double>(numbers[i].x), fma(y, static_cast<double>(numbers[i].y), sum));
                        sum = fma(z, static_cast<double>(numbers[i].z), fma(w, static_cast<double>(numbers[i].w), sum));
                    }
                }
            }
            const float score = static_cast<float>(transposed_sum(sums, lane));
            const int64_t item = start + lane / kShare / kQueries;
            const bool mine = lane % kShare == 0 && item < last && first_query + slot < query_count;
            const bool there = mine && scales[item] == scales[item];  // the scale of a removed item is NaN
            const bool finite = fabsf(score) < INFINITY;
            if (there && !finite) atomicMax(bad, 1);
            const bool filled = selection.offer(slot, alike, score, static_cast<unsigned>(item), there && finite);
            full = full || filled;
        }
        if (__syncthreads_or(full)) {
            selection.keep_best();
            __syncthreads();
        }
    }
    selection.keep_best();
    __syncthreads();
    const int64_t left = query_count - first_query;
    write_part(selection, kept, part, first_query, left < kQueries ? static_cast<int>(left) : kQueries, query_count, k);
}

int exact_bytes(int queries, int width, int k) {
    return shared_bytes<float>(queries * static_cast<int>(padded(width))) + Selection::bytes(queries, k);
}

template <int kQueries, bool kAligned>
cudaError_t scan_exactly(const CosineTopKInt8Task& task, const Scratch& scratch, cudaStream_t stream) {
    const int bytes = exact_bytes(kQueries, task.width, task.k);
    const auto kernel = exact_kernel<kQueries, kAligned>;
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    const int64_t in_part = (task.item_count + task.parts - 1) / task.parts, groups = (task.query_count + kQueries - 1) / kQueries;
    const Exclusions exclusions{task.exclude, task.exclude_offsets, task.exclude_count};
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>(groups * task.parts), kThreads, bytes, stream, task.items, task.scales,
                        task.item_count, in_part, scratch.unit, task.query_count, task.width, static_cast<int>(padded(task.width)), task.k,
                        exclusions, scratch.kept, scratch.bad, task.parts);
    return cudaGetLastError();
}

}  // namespace

size_t exact_scratch(const CosineTopKInt8Task& task) {
    return Scratch(nullptr, task.query_count, padded(task.width), task.k, task.parts).bytes;
}

const char* cosine_top_k_exact(const CosineTopKInt8Task& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    const Scratch scratch(task.scratch, task.query_count, padded(task.width), task.k, task.parts);
    const auto fits = [&](int queries) { return exact_bytes(queries, task.width, task.k) <= kSharedMost; };
    if (!fits(1)) return "a query this wide does not fit into a block's shared memory";
    cudaError_t error = make_unit(task.queries, task.query_count, task.width, ItemType::float32, scratch, stream);
    const bool aligned = task.width % 4 == 0 && reinterpret_cast<uintptr_t>(task.items) % 16 == 0;
    if (!error) {
        if (task.query_count > 1 && fits(4))
            error = aligned ? scan_exactly<4, true>(task, scratch, stream) : scan_exactly<4, false>(task, scratch, stream);
        else
            error = aligned ? scan_exactly<1, true>(task, scratch, stream) : scan_exactly<1, false>(task, scratch, stream);
    }
    if (!error) error = merge(scratch, task.parts, task.query_count, task.k, task.scores, task.ids, stream);
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
