// Cosine top-k from a catalogue in int8, in the panels that the CPU kernels read: 16 items side by side, so a lane has an item of its own
// and nothing has to be summed over lanes. dp4a multiplies four codes at a time.
//
// A query becomes an integer of 24 bits a number, in three digits of 8 bits: the dot products are exact integers, and a score is that of
// the query as it came, but for half a step a number, which the bound that goes with the score holds.
#include "exact.h"
#include "top_k_parts.h"

namespace compress_rec::cuda {

namespace {

constexpr int kPanel = 16;
constexpr double kLevels = 126 << 16;  // steps to a query's largest number; its highest digit is then at most 126
// roundings to float32 of the query (twice, where an index converted it first), of the item and of the score, as the reference has them
constexpr float kRoundingOfUnits = 5 * 0x1p-24f;

// A query's numbers in groups of four, each as four bytes of the highest digit, the middle and the lowest, and nothing.
using Digits = int4;

// int4s that a query takes: its groups, and one that holds its step, a double.
constexpr __host__ __device__ int places(int groups) { return groups + 1; }

__device__ inline double& step_of(Digits* digits, int groups) { return *reinterpret_cast<double*>(digits + groups); }
__device__ inline double step_of(const Digits* digits, int groups) { return *reinterpret_cast<const double*>(digits + groups); }

// Splits off the lowest digit of base 256, -128 … 127.
__device__ inline int lowest_digit(int& number) {
    const int digit = ((number + 128) & 255) - 128;
    number = (number - digit) / 256;
    return digit;
}

// A warp each.
__global__ void __launch_bounds__(kThreads)
digits_kernel(const float* queries, int64_t query_count, int width, int groups, Digits* digits, int* bad) {
    const int lane = threadIdx.x % kLanes;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
    if (blockIdx.x == 0 && threadIdx.x == 0) bad[0] = 0;
    if (query >= query_count) return;
    const float* row = queries + query * width;
    const double length = length_of(row, width, lane);
    const bool finite = length == length;
    float most = 0;
    for (int j = lane; finite && j < width; j += kLanes) most = fmaxf(most, fabsf(row[j]));
    for (int step = kLanes / 2; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
    const double by = most > 0 ? kLevels / most : 0.0;
    Digits* own = digits + query * places(groups);
    for (int group = lane; group < groups; group += kLanes) {
        unsigned high = 0, middle = 0, low = 0;
        for (int i = 0; i < 4; ++i) {
            int number = 4 * group + i < width && finite ? static_cast<int>(rint(row[4 * group + i] * by)) : 0;
            low |= (lowest_digit(number) & 255u) << 8 * i;
            middle |= (lowest_digit(number) & 255u) << 8 * i;
            high |= (number & 255u) << 8 * i;
        }
        own[group] = make_int4(static_cast<int>(high), static_cast<int>(middle), static_cast<int>(low), 0);
    }
    if (lane == 0) {
        step_of(own, groups) = most > 0 ? most / length / kLevels : 0.0;
        bad[1 + query] = !finite;
    }
}

template <int kQueries>
__global__ void __launch_bounds__(kThreads, 2)
int8_scan_kernel(const int* panels, const float* scales, int64_t item_count, int64_t in_part, const Digits* digits, int64_t query_count,
                 int groups, int k, Exclusions exclusions, Key* kept, int* bad, int parts) {
    SharedMemory shared;
    Digits* queries = shared.take<Digits>(kQueries * places(groups));
    const int groups_of_queries = static_cast<int>(gridDim.x) / parts, part = blockIdx.x / groups_of_queries;
    const int64_t first_query = static_cast<int64_t>(blockIdx.x % groups_of_queries) * kQueries;  // neighbours read the same items
    Selection selection(shared, kQueries, k, first_query, exclusions);
    const int64_t first = part * in_part, last = first + in_part < item_count ? first + in_part : item_count;
    for (int i = threadIdx.x; i < kQueries * places(groups); i += kThreads) {
        const bool there = first_query + i / places(groups) < query_count;
        queries[i] = there ? digits[first_query * places(groups) + i] : make_int4(0, 0, 0, 0);
    }
    selection.begin();
    __syncthreads();
    for (int64_t round = first; round < last; round += kRound) {
        const int64_t item = round + threadIdx.x, read = item < last ? item : last - 1;
        const int* codes = panels + (read / kPanel * groups) * kPanel + read % kPanel;
        int high[kQueries] = {}, middle[kQueries] = {}, low[kQueries] = {};
#pragma unroll 4
        for (int group = 0; group < groups; ++group) {
            const int four = __ldg(codes + group * kPanel);
#pragma unroll
            for (int q = 0; q < kQueries; ++q) {
                const Digits digit = queries[q * places(groups) + group];
                high[q] = __dp4a(four, digit.x, high[q]);
                middle[q] = __dp4a(four, digit.y, middle[q]);
                low[q] = __dp4a(four, digit.z, low[q]);
            }
        }
        const float scale = scales[read];
        const bool removed = scale != scale;
        bool full = false;
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
            const int64_t total = static_cast<int64_t>(high[q]) * 65536 + static_cast<int64_t>(middle[q]) * 256 + low[q];
            const float score = static_cast<float>(static_cast<double>(total) * step_of(queries + q * places(groups), groups) * scale);
            const bool there = item < last && !removed && first_query + q < query_count, finite = fabsf(score) < INFINITY;
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

__global__ void __launch_bounds__(kThreads)
bounds_kernel(const int64_t* ids, const float* residuals, const Digits* digits, int groups, int width, int64_t query_count, int k,
              float* bounds) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= query_count * k) return;
    if (digits == nullptr) {  // of the vectors themselves nothing is lost
        bounds[i] = kRoundingOfUnits;
        return;
    }
    // half a step a number, against an item of length 1
    const double off = 0.5 * step_of(digits + i / k * places(groups), groups) * sqrt(static_cast<double>(width));
    bounds[i] = (ids[i] < 0 ? 0.0f : residuals[ids[i]]) + kRoundingOfUnits + static_cast<float>(1.001 * off);
}

int groups_of(int width) { return (width + 7) / 8 * 2; }

int64_t floats_a_query(int width) { return int64_t{4} * places(groups_of(width)); }

cudaError_t write_bounds(const CosineTopKInt8Task& task, const Digits* digits, cudaStream_t stream) {
    const int64_t blocks = (task.query_count * task.k + kThreads - 1) / kThreads;
    COMPRESS_REC_LAUNCH(bounds_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, task.ids, task.residuals, digits,
                        groups_of(task.width), task.width, task.query_count, task.k, task.bounds);
    return cudaGetLastError();
}

int int8_scan_bytes(int queries, int groups, int k) {
    return shared_bytes<Digits>(queries * places(groups)) + Selection::bytes(queries, k);
}

template <int kQueries>
cudaError_t int8_scan(const CosineTopKInt8Task& task, const Scratch& scratch, cudaStream_t stream) {
    const int groups = groups_of(task.width), bytes = int8_scan_bytes(kQueries, groups, task.k);
    const auto kernel = int8_scan_kernel<kQueries>;
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    const int64_t in_part = (task.item_count + task.parts - 1) / task.parts;
    const int64_t query_groups = (task.query_count + kQueries - 1) / kQueries;
    const Exclusions exclusions{task.exclude, task.exclude_offsets, task.exclude_count};
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>(query_groups * task.parts), kThreads, bytes, stream,
                        reinterpret_cast<const int*>(task.panels), task.scales, task.item_count, in_part,
                        reinterpret_cast<const Digits*>(scratch.unit), task.query_count, groups, task.k, exclusions, scratch.kept,
                        scratch.bad, task.parts);
    return cudaGetLastError();
}

}  // namespace

int parts_for(const CosineTopKInt8Task& task, int multiprocessors) {
    return parts_of(task.query_count, task.item_count, task.k, 8, 2, multiprocessors);
}

size_t cosine_top_k_int8_scratch(const CosineTopKInt8Task& task) {
    if (task.items) return exact_scratch(task);
    return Scratch(nullptr, task.query_count, floats_a_query(task.width), task.k, task.parts).bytes;
}

const char* cosine_top_k_int8(const CosineTopKInt8Task& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    if (task.query_count == 0) return nullptr;
    if (task.items) {
        const char* refused = cosine_top_k_exact(task, on_stream);
        if (refused) return refused;
        const cudaError_t failed = write_bounds(task, nullptr, stream);
        return failed ? cudaGetErrorString(failed) : nullptr;
    }
    const int groups = groups_of(task.width);
    const Scratch scratch(task.scratch, task.query_count, floats_a_query(task.width), task.k, task.parts);
    auto* digits = reinterpret_cast<Digits*>(scratch.unit);
    const auto fits = [&](int queries) { return int8_scan_bytes(queries, groups, task.k) <= kSharedMost; };
    if (!fits(1)) return "a query this wide does not fit into a block's shared memory";
    COMPRESS_REC_LAUNCH(digits_kernel, static_cast<unsigned>((task.query_count + kWarps - 1) / kWarps), kThreads, 0, stream, task.queries,
                        task.query_count, task.width, groups, digits, scratch.bad);
    cudaError_t error = cudaGetLastError();
    if (!error) {
        if (task.query_count > 4 && fits(8))
            error = int8_scan<8>(task, scratch, stream);
        else if (task.query_count > 1 && fits(4))
            error = int8_scan<4>(task, scratch, stream);
        else
            error = int8_scan<1>(task, scratch, stream);
    }
    if (!error) error = merge(scratch, task.parts, task.query_count, task.k, task.scores, task.ids, stream);
    if (!error) error = write_bounds(task, digits, stream);
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
