// Cosine top-k for few queries at a time (cosine_top_k_many.cu has the path for many): every row of the catalogue is read once for a
// handful of queries, and memory is what limits it.
//
// A warp multiplies a few rows by kQueries queries, 32 products, or 8 for a single query: its lanes share each row, every lane sums all
// products over its numbers of the rows, and one transposing reduction leaves lane i with the sum of (row i / kQueries, query
// i % kQueries). Norms of rows are summed beside them, so that the catalogue is read once.
#include "top_k_parts.h"

namespace compress_rec::cuda {

namespace {

__device__ inline float dot(float4 a, float4 b, float sum) {
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

template <class Item, int kQueries, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
scan_kernel(const Item* items, int64_t item_count, int64_t in_part, const float* unit, int64_t query_count, int width, int padded_width,
            int k, bool normalised, Exclusions exclusions, Key* kept, int* bad, int parts) {
    constexpr int kItems = kQueries == 1 ? 8 : kLanes / kQueries;
    constexpr int kShare = kLanes / (kItems * kQueries);  // lanes with the same sum, of which the first counts
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
    const unsigned alike = (kAllLanes / ((1ull << kQueries) - 1)) << slot;  // every kQueries-th lane
    for (int64_t round = first; round < last; round += kRound) {
        bool full = false;
        for (int tile = warp; tile < kRound / kItems; tile += kWarps) {
            const int64_t start = round + tile * kItems;
            if (start >= last) break;
            float sums[kItems * kQueries] = {}, squares[kItems] = {};
            const Item* rows = items + start * width;
            const int behind = last - start < kItems ? static_cast<int>(last - start) - 1 : kItems - 1;
            for (int j = 4 * lane; j < width; j += kStep) {
                float4 of_query[kQueries];
#pragma unroll
                for (int q = 0; q < kQueries; ++q) of_query[q] = four_at(queries + q * padded_width + j);
#pragma unroll
                for (int i = 0; i < kItems; ++i) {
                    const float4 numbers = four_of<kAligned>(rows + (i < behind ? i : behind) * width, j, width);
                    squares[i] = dot(numbers, numbers, squares[i]);
#pragma unroll
                    for (int q = 0; q < kQueries; ++q) sums[i * kQueries + q] = dot(numbers, of_query[q], sums[i * kQueries + q]);
                }
            }
            float score = transposed_sum(sums, lane);
            const float square = transposed_sum(squares, lane);
            const int64_t item = start + lane / kShare / kQueries;
            const bool there = lane % kShare == 0 && item < last && first_query + slot < query_count;
            if (!normalised) {
                const bool odd = there && !(square > kLeastSquare && square < kMostSquare);
                score = score / sqrtf(odd ? 1.0f : square);
                for (unsigned odds = __ballot_sync(kAllLanes, odd); odds; odds &= odds - 1) {
                    const int source = __ffs(odds) - 1;
                    const Item* row = rows + source / kShare / kQueries * width;
                    const float* asked = queries + source / kShare % kQueries * padded_width;
                    const float careful = careful_cosine(row, asked, width, lane);
                    if (lane == source) score = careful;
                }
            }
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

int scan_bytes(int queries, int padded_width, int k) { return shared_bytes<float>(queries * padded_width) + Selection::bytes(queries, k); }

template <class Item, int kQueries, bool kAligned>
cudaError_t scan(const CosineTopKTask& task, const Scratch& scratch, cudaStream_t stream) {
    const int padded_width = static_cast<int>(padded(task.width)), bytes = scan_bytes(kQueries, padded_width, task.k);
    const auto kernel = scan_kernel<Item, kQueries, kAligned>;
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    const int64_t in_part = (task.item_count + task.parts - 1) / task.parts;
    const int64_t groups = (task.query_count + kQueries - 1) / kQueries;
    const Exclusions exclusions{task.exclude, task.exclude_offsets, task.exclude_count};
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>(groups * task.parts), kThreads, bytes, stream, static_cast<const Item*>(task.items),
                        task.item_count, in_part, scratch.unit, task.query_count, task.width, padded_width, task.k, task.normalised,
                        exclusions, scratch.kept, scratch.bad, task.parts);
    return cudaGetLastError();
}

template <class Item>
const char* scan_for(const CosineTopKTask& task, const Scratch& scratch, cudaStream_t stream, cudaError_t& error) {
    const int padded_width = static_cast<int>(padded(task.width));
    const auto fits = [&](int queries) { return scan_bytes(queries, padded_width, task.k) <= kSharedMost; };
    const bool aligned = task.width % 4 == 0 && reinterpret_cast<uintptr_t>(task.items) % (4 * sizeof(Item)) == 0;
    if (task.query_count > 4 && fits(8))
        error = aligned ? scan<Item, 8, true>(task, scratch, stream) : scan<Item, 8, false>(task, scratch, stream);
    else if (task.query_count > 1 && aligned && fits(4))
        error = scan<Item, 4, true>(task, scratch, stream);
    else if (fits(1))
        error = aligned ? scan<Item, 1, true>(task, scratch, stream) : scan<Item, 1, false>(task, scratch, stream);
    else
        return "a query this wide does not fit into a block's shared memory";
    return nullptr;
}

}  // namespace

int parts_for(const CosineTopKTask& task, int multiprocessors) {
    const bool many = serves_many(task);
    return parts_of(task.query_count, task.item_count, task.k, many ? many_in_group(task.width) : 8, many ? 1 : 2, multiprocessors);
}

size_t cosine_top_k_scratch(const CosineTopKTask& task) {
    if (serves_many(task)) return cosine_top_k_many_scratch(task);
    return Scratch(nullptr, task.query_count, padded(task.width), task.k, task.parts).bytes;
}

const char* cosine_top_k(const CosineTopKTask& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    if (task.query_count == 0) return nullptr;
    if (serves_many(task)) return cosine_top_k_many(task, on_stream);
    const Scratch scratch(task.scratch, task.query_count, padded(task.width), task.k, task.parts);
    cudaError_t error = make_unit(task.queries, task.query_count, task.width, task.type, scratch, stream);
    if (error) return cudaGetErrorString(error);
    const char* refused = nullptr;
    switch (task.type) {
        case ItemType::float32: refused = scan_for<float>(task, scratch, stream, error); break;
        case ItemType::bfloat16: refused = scan_for<__nv_bfloat16>(task, scratch, stream, error); break;
        case ItemType::float16: refused = scan_for<__half>(task, scratch, stream, error); break;
    }
    if (refused) return refused;
    if (!error) error = merge(scratch, task.parts, task.query_count, task.k, task.scores, task.ids, stream);
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
