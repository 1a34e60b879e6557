// Cosine top-k from unit vectors in the panels that the CPU kernels read: 16 items side by side, so a lane has an item of its own and
// nothing has to be summed over lanes. Memory is what limits it.
#include "top_k_parts.h"

namespace compress_rec::cuda {

namespace {

constexpr int kRowsInPanel = 16;

template <int kQueries>
__global__ void __launch_bounds__(kThreads, 2)
panels_kernel(const float* panels, int64_t item_count, int64_t in_part, const float* unit, int64_t query_count, int width, int padded_width,
              int k, Exclusions exclusions, Key* kept, int* bad, int parts) {
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
    for (int64_t round = first; round < last; round += kRound) {
        const int64_t item = round + threadIdx.x, read = item < last ? item : last - 1;
        const float* numbers = panels + read / kRowsInPanel * width * kRowsInPanel + read % kRowsInPanel;
        float even[kQueries] = {}, odd[kQueries] = {};  // two chains each, for speed and for smaller errors
        const int whole = width / 4 * 4;
#pragma unroll 2
        for (int j = 0; j < whole; j += 4) {
            float four[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) four[i] = __ldg(numbers + (j + i) * kRowsInPanel);
#pragma unroll
            for (int q = 0; q < kQueries; ++q) {
                const float4 query = four_at(queries + q * padded_width + j);
                even[q] = fmaf(four[2], query.z, fmaf(four[0], query.x, even[q]));
                odd[q] = fmaf(four[3], query.w, fmaf(four[1], query.y, odd[q]));
            }
        }
        for (int j = whole; j < width; ++j) {
            const float one = __ldg(numbers + j * kRowsInPanel);
#pragma unroll
            for (int q = 0; q < kQueries; ++q) even[q] = fmaf(one, queries[q * padded_width + j], even[q]);
        }
        bool full = false;
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
            const float score = even[q] + odd[q];
            const bool removed = score != score, there = item < last && !removed && first_query + q < query_count;
            const bool finite = fabsf(score) < INFINITY;
            if (there && !finite) atomicMax(bad, 1);
            const bool filled = selection.offer(q, kAllLanes, score, static_cast<unsigned>(item), there && finite);
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

int panels_bytes(int queries, int width, int k) {
    return shared_bytes<float>(queries * static_cast<int>(padded(width))) + Selection::bytes(queries, k);
}

template <int kQueries>
cudaError_t scan_panels(const CosineTopKPanelsTask& task, const Scratch& scratch, cudaStream_t stream) {
    const int bytes = panels_bytes(kQueries, task.width, task.k);
    const auto kernel = panels_kernel<kQueries>;
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    const int64_t in_part = (task.item_count + task.parts - 1) / task.parts, groups = (task.query_count + kQueries - 1) / kQueries;
    const Exclusions exclusions{task.exclude, task.exclude_offsets, task.exclude_count};
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>(groups * task.parts), kThreads, bytes, stream, task.panels, task.item_count, in_part,
                        scratch.unit, task.query_count, task.width, static_cast<int>(padded(task.width)), task.k, exclusions, scratch.kept,
                        scratch.bad, task.parts);
    return cudaGetLastError();
}

}  // namespace

int parts_for(const CosineTopKPanelsTask& task, int multiprocessors) {
    return parts_of(task.query_count, task.item_count, task.k, 8, 2, multiprocessors);
}

size_t cosine_top_k_panels_scratch(const CosineTopKPanelsTask& task) {
    return Scratch(nullptr, task.query_count, padded(task.width), task.k, task.parts).bytes;
}

const char* cosine_top_k_panels(const CosineTopKPanelsTask& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    if (task.query_count == 0) return nullptr;
    const Scratch scratch(task.scratch, task.query_count, padded(task.width), task.k, task.parts);
    const auto fits = [&](int queries) { return panels_bytes(queries, task.width, task.k) <= kSharedMost; };
    if (!fits(1)) return "a query this wide does not fit into a block's shared memory";
    cudaError_t error = make_unit(task.queries, task.query_count, task.width, ItemType::float32, scratch, stream);
    if (!error) {
        if (task.query_count > 4 && fits(8))
            error = scan_panels<8>(task, scratch, stream);
        else if (task.query_count > 1 && fits(4))
            error = scan_panels<4>(task, scratch, stream);
        else
            error = scan_panels<1>(task, scratch, stream);
    }
    if (!error) error = merge(scratch, task.parts, task.query_count, task.k, task.scores, task.ids, stream);
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
