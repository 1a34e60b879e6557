// The best k of a stream of scores, kept by a block in shared memory for several queries at once. A score costs a comparison with the
// k-th best so far and a share of a ballot; only what passes is written, and only when a buffer is full is it sorted.
#pragma once

#include "device.h"

namespace compress_rec::cuda {

// A candidate as one number that orders by (score, then smaller id), as on the CPU: the score's bits in an order of integers, above
// 2^32 - 1 - id. No finite score gives 0, so 0 stands for "none".
using Key = unsigned long long;

constexpr int kThreads = 256, kWarps = kThreads / kLanes;
constexpr int kRound = 256;  // the most a query gets between two barriers

// Room for k and a round, as a power of two, since it is sorted.
constexpr __host__ __device__ int capacity_for(int k, int round = kRound) {
    int capacity = 2 * round;
    while (capacity < k + round) capacity *= 2;
    return capacity;
}

__device__ inline Key key_of(float score, unsigned id) {
    const unsigned bits = __float_as_uint(score + 0.0f);  // adding 0 turns -0 into 0, so that they tie
    const unsigned order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return Key{order} << 32 | (0xFFFFFFFFu - id);
}

__device__ inline float score_of(Key key) {
    const unsigned order = static_cast<unsigned>(key >> 32);
    return __uint_as_float(order & 0x80000000u ? order ^ 0x80000000u : ~order);
}

__device__ inline int64_t id_of(Key key) { return static_cast<int64_t>(0xFFFFFFFFu - static_cast<unsigned>(key)); }

// Sorts `size` keys, a power of two, the largest first. By one warp.
__device__ inline void sort_falling(Key* keys, int size, int lane) {
    for (int width = 2; width <= size; width *= 2) {
        for (int step = width / 2; step; step /= 2) {
            for (int i = lane; i < size / 2; i += kLanes) {
                const int low = 2 * i - (i & (step - 1)), high = low + step;
                const Key one = keys[low], two = keys[high];
                if ((one < two) == ((low & width) == 0)) keys[low] = two, keys[high] = one;
            }
            __syncwarp();
        }
    }
}

// Item ids that a query must not get: of query q those from offsets[q] to offsets[q + 1], in any order. Null where nothing is excluded.
// The host has not looked at them: offsets that point outside are cut.
struct Exclusions {
    const int64_t* ids;
    const int64_t* offsets;
    int64_t count;
};

// Whether the item is excluded for the query. All lanes ask the same.
__device__ inline bool is_excluded(const Exclusions& exclusions, int64_t query, int64_t id, int lane) {
    const int64_t begin = exclusions.offsets[query] < 0 ? 0 : exclusions.offsets[query];
    const int64_t end = exclusions.offsets[query + 1] < exclusions.count ? exclusions.offsets[query + 1] : exclusions.count;
    bool found = false;
    for (int64_t i = begin + lane; i < end; i += kLanes) found = found || exclusions.ids[i] == id;
    return __any_sync(kAllLanes, found) != 0;
}

// Takes the excluded out of a buffer of keys in shared memory, sorts it, keeps the best k and returns the k-th, or 0. `count` is how many
// there are, and how many of them are settled already. By one warp.
__device__ inline Key keep_best_of(Key* keys, int2& count, int k, int64_t query, const Exclusions& exclusions) {
    const int lane = threadIdx.x % kLanes;
    const int2 before = count;
    int size = kLanes;
    while (size < before.x || size < k) size *= 2;
    for (int i = before.x + lane; i < size; i += kLanes) keys[i] = 0;
    __syncwarp();
    if (exclusions.ids) {
        for (int i = before.y; i < before.x; ++i) {
            const bool excluded = is_excluded(exclusions, query, id_of(keys[i]), lane);
            __syncwarp();
            if (excluded && lane == 0) keys[i] = 0;
        }
        __syncwarp();
    }
    sort_falling(keys, size, lane);
    int filled = 0;
    for (int i = lane; i < k; i += kLanes) filled += keys[i] != 0;
    for (int step = kLanes / 2; step; step /= 2) filled += __shfl_xor_sync(kAllLanes, filled, step);
    const Key last = keys[k - 1];
    __syncwarp();
    if (lane == 0) count = make_int2(filled, filled);
    return last;
}

class Selection {
  public:
    // Buffers of `queries` in shared memory; the first is that of query `first_query`.
    __device__ Selection(SharedMemory& shared, int queries, int k, int64_t first_query, const Exclusions& exclusions)
        : queries_(queries), k_(k), capacity_(capacity_for(k)), first_query_(first_query), exclusions_(exclusions),
          kept_(shared.take<Key>(queries * capacity_for(k))), thresholds_(shared.take<Key>(queries)), counts_(shared.take<int2>(queries)) {}

    static constexpr __host__ __device__ int bytes(int queries, int k) {
        return shared_bytes<Key>(queries * capacity_for(k)) + shared_bytes<Key>(queries) + shared_bytes<int2>(queries);
    }

    // To be followed by a barrier.
    __device__ void begin() {
        for (int slot = threadIdx.x; slot < queries_; slot += kThreads) thresholds_[slot] = 0, counts_[slot] = make_int2(0, 0);
    }

    // Every lane offers one score of one item to the query in its slot; `alike` are the lanes with the same slot. Where `there` is false
    // a lane offers nothing. Returns whether the lane saw a buffer that has to be sorted before the next round.
    __device__ bool offer(int slot, unsigned alike, float score, unsigned id, bool there) {
        const int lane = threadIdx.x % kLanes;
        const Key key = key_of(score, id);
        const bool passes = there && key > thresholds_[slot];
        const unsigned passing = __ballot_sync(kAllLanes, passes);
        if (!passing) return false;
        const unsigned mine = passing & alike;
        const int first = __ffs(mine) - 1;
        int place = 0;
        if (lane == first) place = atomicAdd(&counts_[slot].x, __popc(mine));
        place = __shfl_sync(kAllLanes, place, first < 0 ? lane : first) + __popc(mine & ((1u << lane) - 1));
        if (passes) kept_[slot * capacity_ + place] = key;
        return passes && place + 1 > capacity_ - kRound;
    }

    // Takes the excluded out of every buffer, sorts it and keeps the best k. By all warps, between two barriers.
    __device__ void keep_best() {
        for (int slot = threadIdx.x / kLanes; slot < queries_; slot += kWarps) {
            const Key last = keep_best_of(kept_ + slot * capacity_, counts_[slot], k_, first_query_ + slot, exclusions_);
            if (threadIdx.x % kLanes == 0) thresholds_[slot] = last;
        }
    }

    // The best k of a slot, the largest first, 0 behind them; after keep_best and a barrier.
    __device__ const Key* best(int slot) const { return kept_ + slot * capacity_; }

  private:
    int queries_, k_, capacity_;
    int64_t first_query_;
    Exclusions exclusions_;
    Key* kept_;
    Key* thresholds_;
    int2* counts_;  // keys in the buffer, and how many of them are sorted and known not to be excluded
};

}  // namespace compress_rec::cuda
