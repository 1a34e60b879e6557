// Cosine top-k for many queries at a time, on the tensor cores: a block keeps its queries in shared memory and lets its part of the
// catalogue stream past them, 128 items at a time, in pieces that are copied while others are multiplied. Scores never leave registers: a
// score is compared with the k-th best of its query so far, and the few that pass go to a buffer in global memory, where the cache has it.
//
// For catalogues of bfloat16 or float16 and a width that is a multiple of 8. The order of sums is that of the tensor cores, so the last
// bits differ from those for few queries. Where items have other lengths than 1, their squares are summed from the pieces as they pass.
#include "tensor_cores.h"
#include "top_k_parts.h"

namespace compress_rec::cuda {

namespace {

constexpr int kItemsInTile = 128, kPiece = 64, kStages = 3;  // a piece: so many numbers of every item of a tile
constexpr int kChunk = 8;                                    // numbers in 16 bytes
constexpr int kChunksInPiece = kPiece / kChunk;
constexpr int kSorting = 2048;                               // keys that are sorted at a time, by all warps together

constexpr __host__ __device__ int whole_pieces(int width) { return (width + kPiece - 1) / kPiece; }

__device__ inline void round_to(float value, __nv_bfloat16& rounded) { rounded = __float2bfloat16_rn(value); }
__device__ inline void round_to(float value, __half& rounded) { rounded = __float2half_rn(value); }

__device__ inline float2 both_of(unsigned pair, __nv_bfloat16) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
}
__device__ inline float2 both_of(unsigned pair, __half) {
    __half2 halves;
    memcpy(&halves, &pair, sizeof halves);
    return __half22float2(halves);
}

// Unit queries in the catalogue's type, zeros behind them. A warp each.
template <class Item>
__global__ void __launch_bounds__(kThreads)
unit_halves_kernel(const float* queries, int64_t query_count, int width, int padded_width, Item* unit, int* bad) {
    const int lane = threadIdx.x % kLanes;
    const int64_t query = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
    if (blockIdx.x == 0 && threadIdx.x == 0) bad[0] = 0;
    if (query >= query_count) return;
    const double length = length_of(queries + query * width, width, lane);
    const bool finite = length == length;
    const double by = finite && length > 0 ? length : 1.0;
    for (int j = lane; j < padded_width; j += kLanes) {
        const float value = finite && j < width ? static_cast<float>(queries[query * width + j] / by) : 0.0f;
        round_to(value, unit[query * padded_width + j]);
    }
    if (lane == 0) bad[1 + query] = !finite;
}

struct ManyTask {
    int64_t item_count, in_part, query_count;
    int width, k, parts, groups;
    bool normalised;
    Exclusions exclusions;
    Key* buffers;  // (parts, groups, queries of a group, capacity)
    Key* kept;     // (parts, query_count, k)
    int* bad;
};

// What a block knows of its queries.
struct Standing {
    Key* buffers;     // (queries, capacity) in global memory
    Key* thresholds;  // the k-th best so far, or 0
    float* least;     // its score; infinity where there is no query
    int2* counts;     // as in Selection
    float* scales;    // one over the length of each item of the tile, or NaN for one that float32 cannot hold the square of
    Key* sorting;     // kSorting keys
};

// Keeps the best k of every query; by as many warps as find room to sort. Between two barriers.
__device__ void keep_best_of_all(const Standing& standing, const ManyTask& task, int queries, int64_t first_query, int part, bool write) {
    const int capacity = capacity_for(task.k, kItemsInTile), lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
    const int sorters = kSorting / capacity < kWarps ? kSorting / capacity : kWarps;
    if (warp >= sorters) return;
    Key* keys = standing.sorting + warp * capacity;
    for (int slot = warp; slot < queries && first_query + slot < task.query_count; slot += sorters) {
        Key* buffer = standing.buffers + static_cast<int64_t>(slot) * capacity;
        const int count = standing.counts[slot].x;
        for (int i = lane; i < count; i += kLanes) keys[i] = buffer[i];
        __syncwarp();
        const Key last = keep_best_of(keys, standing.counts[slot], task.k, first_query + slot, task.exclusions);
        Key* to = write ? task.kept + (part * task.query_count + first_query + slot) * task.k : buffer;
        for (int i = lane; i < task.k; i += kLanes) to[i] = keys[i];
        if (lane == 0) {
            standing.thresholds[slot] = last;
            standing.least[slot] = last ? score_of(last) : -INFINITY;
        }
        __syncwarp();
    }
}

// The sum of squares of this thread's half of an item's piece.
template <class Item>
__device__ inline float squares_of_half(const unsigned char* stage) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kChunksInPiece / 2; ++i) {
        const int chunk = threadIdx.x % 2 * (kChunksInPiece / 2) + i;
        const uint4 eight = *reinterpret_cast<const uint4*>(stage + swizzled(threadIdx.x / 2, chunk, kChunksInPiece));
        const unsigned pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float2 two = both_of(pairs[j], Item{});
            sum = fmaf(two.x, two.x, fmaf(two.y, two.y, sum));
        }
    }
    return sum;
}

// kTiles: tiles of eight queries a warp multiplies by its 32 items; two warps stand side by side.
template <class Item, int kTiles>
__global__ void __launch_bounds__(kThreads, 1) many_kernel(const Item* items, const Item* unit, ManyTask task) {
    constexpr int kQueries = 2 * 8 * kTiles;
    const int pieces = whole_pieces(task.width), chunks = pieces * kChunksInPiece, capacity = capacity_for(task.k, kItemsInTile);
    SharedMemory shared;
    auto* queries = shared.take<unsigned char>(kQueries * chunks * 16);
    auto* stages = shared.take<unsigned char>(kStages * kItemsInTile * kChunksInPiece * 16);
    Standing standing{};
    standing.sorting = shared.take<Key>(kSorting);
    standing.thresholds = shared.take<Key>(kQueries);
    standing.least = shared.take<float>(kQueries);
    standing.counts = shared.take<int2>(kQueries);
    standing.scales = shared.take<float>(kItemsInTile);

    const int group = blockIdx.x % task.groups, part = blockIdx.x / task.groups;  // neighbours read the same items
    const int64_t first_query = static_cast<int64_t>(group) * kQueries, first = part * task.in_part;
    const int64_t last = first + task.in_part < task.item_count ? first + task.in_part : task.item_count;
    standing.buffers = task.buffers + static_cast<int64_t>(blockIdx.x) * kQueries * capacity;
    const int thread = threadIdx.x, lane = thread % kLanes, warp = thread / kLanes, g = lane / 4, t = lane % 4;
    const int warp_row = warp / 2 * 32, warp_query = warp % 2 * 8 * kTiles;
    const int matrix = lane / 8, in_matrix = lane % 8;

    if (thread < kItemsInTile) standing.scales[thread] = 1.0f;
    for (int slot = thread; slot < kQueries; slot += kThreads) {
        standing.thresholds[slot] = 0;
        standing.least[slot] = first_query + slot < task.query_count ? -INFINITY : INFINITY;
        standing.counts[slot] = make_int2(0, 0);
    }
    for (int i = thread; i < kQueries * chunks; i += kThreads) {
        const int row = i / chunks, chunk = i % chunks;
        const bool there = first_query + row < task.query_count;
        copy_16(queries + swizzled(row, chunk, chunks), unit + ((there ? first_query + row : 0) * chunks + chunk) * kChunk, there);
    }
    const int64_t tiles = last > first ? (last - first + kItemsInTile - 1) / kItemsInTile : 0, steps = tiles * pieces;
    const auto fetch = [&](int64_t step) {
        unsigned char* stage = stages + step % kStages * (kItemsInTile * kChunksInPiece * 16);
        const int64_t start = first + step / pieces * kItemsInTile;
        const int column = static_cast<int>(step % pieces) * kPiece;
        for (int i = thread; step < steps && i < kItemsInTile * kChunksInPiece; i += kThreads) {
            const int row = i / kChunksInPiece, chunk = i % kChunksInPiece;
            const bool there = start + row < last && column + chunk * kChunk < task.width;
            const Item* from = items + (there ? (start + row) * task.width + column + chunk * kChunk : 0);
            copy_16(stage + swizzled(row, chunk, kChunksInPiece), from, there);
        }
        end_copies();
    };
    fetch(0);
    fetch(1);

    // Whether what passes for a query fills its buffer.
    const auto keep = [&](int slot, float score, int64_t item) {
        const Key key = key_of(score, static_cast<unsigned>(item));
        if (key <= standing.thresholds[slot]) return false;
        const int place = atomicAdd(&standing.counts[slot].x, 1);
        standing.buffers[static_cast<int64_t>(slot) * capacity + place] = key;
        return place + 1 > capacity - kItemsInTile;
    };
    float sums[2][kTiles][4] = {}, square = 0;  // the latter of half an item: two threads share one
    for (int64_t step = 0; step < steps; ++step) {
        wait_for_copies<1>();
        __syncthreads();  // this step's piece is there for all, and all are through with the one before
        fetch(step + 2);
        const unsigned char* stage = stages + step % kStages * (kItemsInTile * kChunksInPiece * 16);
        const int piece = static_cast<int>(step % pieces);
#pragma unroll
        for (int sixteen = 0; sixteen < kPiece / 16; ++sixteen) {
            unsigned of_items[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                const int row = warp_row + 16 * m + in_matrix + 8 * (matrix & 1);
                load_matrices(of_items[m], stage + swizzled(row, 2 * sixteen + (matrix >> 1), kChunksInPiece));
            }
#pragma unroll
            for (int n = 0; n < kTiles; n += 2) {
                unsigned of_queries[4];
                const int row = warp_query + 8 * (n + (matrix >> 1)) + in_matrix;
                load_matrices(of_queries, queries + swizzled(row, piece * kChunksInPiece + 2 * sixteen + (matrix & 1), chunks));
                const unsigned one[2] = {of_queries[0], of_queries[1]}, two[2] = {of_queries[2], of_queries[3]};
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    multiply_add(sums[m][n], of_items[m], one, Item{});
                    multiply_add(sums[m][n + 1], of_items[m], two, Item{});
                }
            }
        }
        if (!task.normalised) square += squares_of_half<Item>(stage);
        if (piece + 1 < pieces) continue;

        const int64_t start = first + step / pieces * kItemsInTile;
        const int rows = last - start < kItemsInTile ? static_cast<int>(last - start) : kItemsInTile;
        bool full = false, odd = false;
        if (!task.normalised) {
            square += __shfl_xor_sync(kAllLanes, square, 1);
            const bool held = square > kLeastSquare && square < kMostSquare;
            if (thread % 2 == 0) standing.scales[thread / 2] = held ? 1.0f / sqrtf(square) : NAN;
            odd = __syncthreads_or(!held && thread / 2 < rows);
            square = 0;
        }
        float scales[2][2];
#pragma unroll
        for (int i = 0; i < 4; ++i) scales[i / 2][i % 2] = standing.scales[warp_row + 16 * (i / 2) + g + 8 * (i % 2)];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
            const int slot = warp_query + 8 * n + 2 * t;
            const float least[2] = {standing.least[slot], standing.least[slot + 1]};
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = warp_row + 16 * m + g + i / 2 * 8;
                    const float score = sums[m][n][i] * scales[m][i / 2];
                    sums[m][n][i] = 0;
                    // one column of scores betrays every item of length 1 that is not finite; of others, their squares do
                    const bool telling = task.normalised && n == 0 && i % 2 == 0 && group == 0 && slot == 0;
                    if (telling && row < rows && !(fabsf(score) < INFINITY)) atomicMax(task.bad, 1);
                    const bool passes = score >= least[i % 2] && row < rows;
                    if (!__any_sync(kAllLanes, passes)) continue;
                    if (passes && keep(slot + i % 2, score, start + row)) full = true;
                }
            }
        }
        for (int row = 0; odd && row < rows; ++row) {  // the few that are too long or too short, a query a warp
            if (standing.scales[row] == standing.scales[row]) continue;
            for (int slot = warp; slot < kQueries && first_query + slot < task.query_count; slot += kWarps) {
                const Item* item = items + (start + row) * task.width;
                const Item* query = unit + (first_query + slot) * chunks * kChunk;
                const float score = careful_cosine(item, query, task.width, lane);
                if (lane != 0) continue;
                if (!(fabsf(score) < INFINITY))
                    atomicMax(task.bad, 1);
                else if (keep(slot, score, start + row))
                    full = true;
            }
        }
        if (__syncthreads_or(full)) {
            keep_best_of_all(standing, task, kQueries, first_query, part, false);
            __syncthreads();
        }
    }
    wait_for_copies<0>();
    __syncthreads();
    keep_best_of_all(standing, task, kQueries, first_query, part, true);
}

constexpr int many_bytes(int tiles, int width) {
    const int queries = 16 * tiles;
    return queries * whole_pieces(width) * kPiece * 2 + kStages * kItemsInTile * kPiece * 2 + shared_bytes<Key>(kSorting) +
           shared_bytes<Key>(queries) + shared_bytes<float>(queries) + shared_bytes<int2>(queries) + shared_bytes<float>(kItemsInTile);
}

// Tiles a warp for which a block's shared memory is enough, or 0.
int tiles_for(int width) { return many_bytes(8, width) <= kSharedMost ? 8 : many_bytes(4, width) <= kSharedMost ? 4 : 0; }

struct ManyScratch {
    Scratch common;  // its `unit` holds halves
    Key* buffers;
    size_t bytes;

    ManyScratch(const CosineTopKTask& task)
        : common(task.scratch, task.query_count, whole_pieces(task.width) * kPiece / 2, task.k, task.parts) {
        const int64_t in_group = 16 * tiles_for(task.width), groups = (task.query_count + in_group - 1) / in_group;
        buffers = reinterpret_cast<Key*>(static_cast<unsigned char*>(task.scratch) + common.bytes);
        bytes = common.bytes + sizeof(Key) * task.parts * groups * in_group * capacity_for(task.k, kItemsInTile);
    }
};

template <class Item, int kTiles>
cudaError_t many(const CosineTopKTask& task, const ManyScratch& scratch, cudaStream_t stream) {
    const int padded_width = whole_pieces(task.width) * kPiece, bytes = many_bytes(kTiles, task.width), in_group = 16 * kTiles;
    auto* unit = reinterpret_cast<Item*>(scratch.common.unit);
    const auto prepare = unit_halves_kernel<Item>;
    COMPRESS_REC_LAUNCH(prepare, static_cast<unsigned>((task.query_count + kWarps - 1) / kWarps), kThreads, 0, stream, task.queries,
                        task.query_count, task.width, padded_width, unit, scratch.common.bad);
    if (const cudaError_t error = cudaGetLastError()) return error;
    const auto kernel = many_kernel<Item, kTiles>;
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    ManyTask many{};
    many.item_count = task.item_count, many.in_part = (task.item_count + task.parts - 1) / task.parts;
    many.query_count = task.query_count, many.width = task.width, many.k = task.k, many.parts = task.parts;
    many.groups = static_cast<int>((task.query_count + in_group - 1) / in_group);
    many.normalised = task.normalised;
    many.exclusions = Exclusions{task.exclude, task.exclude_offsets, task.exclude_count};
    many.buffers = scratch.buffers, many.kept = scratch.common.kept, many.bad = scratch.common.bad;
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>(many.groups * many.parts), kThreads, bytes, stream,
                        static_cast<const Item*>(task.items), unit, many);
    return cudaGetLastError();
}

}  // namespace

bool serves_many(const CosineTopKTask& task) {
    return task.type != ItemType::float32 && task.query_count > 16 && task.width > 0 && task.width % kChunk == 0 &&
           reinterpret_cast<uintptr_t>(task.items) % 16 == 0 && tiles_for(task.width) > 0;
}

int many_in_group(int width) { return 16 * tiles_for(width); }

size_t cosine_top_k_many_scratch(const CosineTopKTask& task) { return ManyScratch(task).bytes; }

const char* cosine_top_k_many(const CosineTopKTask& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    const ManyScratch scratch(task);
    const bool wide = tiles_for(task.width) == 8;
    cudaError_t error;
    if (task.type == ItemType::bfloat16)
        error = wide ? many<__nv_bfloat16, 8>(task, scratch, stream) : many<__nv_bfloat16, 4>(task, scratch, stream);
    else
        error = wide ? many<__half, 8>(task, scratch, stream) : many<__half, 4>(task, scratch, stream);
    if (!error) error = merge(scratch.common, task.parts, task.query_count, task.k, task.scores, task.ids, stream);
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
