// What threads do together: barriers, shuffles, votes, atomics, asynchronous copies.
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>

#include "fibres.h"

#define CUDA_EMULATION_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cuda_emulation {

// Every lane of the mask brings a value and gets those of all. Inline-PTX warp instructions are written as one exchange in their twins.
template <class T>
std::array<T, kLanes> exchange(const char* what, unsigned mask, const T& value, const char* file, int line) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kPayload);
    const Snapshot& snapshot = Machine::instance().wait_for_lanes({what, file, line}, mask, &value, sizeof(T));
    std::array<T, kLanes> values{};
    for (int lane = 0; lane < kLanes; ++lane)
        if (mask >> lane & 1) std::memcpy(&values[lane], snapshot.values[lane], sizeof(T));
    return values;
}

inline int lane() { return Machine::instance().current().number % kLanes; }

// A read from a lane outside the mask is undefined on the device, so it is a fault here.
template <class T>
T from_lane(const char* what, unsigned mask, const T& value, int source, const char* file, int line) {
    if (!(mask >> source & 1)) Machine::instance().fail("reads from lane " + std::to_string(source) + ", which is not in the mask");
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kPayload);
    T found;
    std::memcpy(&found, Machine::instance().wait_for_lanes({what, file, line}, mask, &value, sizeof(T)).values[source], sizeof(T));
    return found;
}

}  // namespace cuda_emulation

inline void __syncthreads(CUDA_EMULATION_SITE) { cuda_emulation::Machine::instance().wait_at_barrier({"__syncthreads", file, line}); }
inline int __syncthreads_count(int predicate, CUDA_EMULATION_SITE) {
    auto& machine = cuda_emulation::Machine::instance();
    machine.barrier_sum += predicate != 0;
    machine.wait_at_barrier({"__syncthreads_count", file, line});
    return static_cast<int>(machine.barrier_result);
}
inline int __syncthreads_or(int predicate, CUDA_EMULATION_SITE) { return __syncthreads_count(predicate, file, line) != 0; }
inline int __syncthreads_and(int predicate, CUDA_EMULATION_SITE) { return __syncthreads_count(!predicate, file, line) == 0; }

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CUDA_EMULATION_SITE) {
    cuda_emulation::exchange("__syncwarp", mask, char{}, file, line);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_EMULATION_SITE) {
    const int first = cuda_emulation::lane() / width * width;
    return cuda_emulation::from_lane("__shfl_sync", mask, value, first + (source & (width - 1)), file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_EMULATION_SITE) {
    const int lane = cuda_emulation::lane(), other = lane ^ bits;
    return cuda_emulation::from_lane("__shfl_xor_sync", mask, value, other / width > lane / width ? lane : other, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32, CUDA_EMULATION_SITE) {
    const int lane = cuda_emulation::lane(), other = lane + static_cast<int>(step);
    return cuda_emulation::from_lane("__shfl_down_sync", mask, value, other / width != lane / width ? lane : other, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32, CUDA_EMULATION_SITE) {
    const int lane = cuda_emulation::lane(), other = lane - static_cast<int>(step);
    return cuda_emulation::from_lane("__shfl_up_sync", mask, value, other < lane / width * width ? lane : other, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) {
    const auto votes = cuda_emulation::exchange("__ballot_sync", mask, predicate, file, line);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= (mask >> lane & 1 && votes[lane] ? 1u : 0u) << lane;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) { return __ballot_sync(mask, predicate, file, line) == mask; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUDA_EMULATION_SITE) {
    const auto values = cuda_emulation::exchange("__match_any_sync", mask, value, file, line);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= (mask >> lane & 1 && values[lane] == value ? 1u : 0u) << lane;
    return bits;
}

namespace cuda_emulation {

// In random order, an atomic operation is also a place where others may come between.
template <class T, class Change>
T atomically(T* address, Change change) {
    Machine& machine = Machine::instance();
    if (machine.shuffles() && machine.coin()) machine.yield();
    const T before = *address;
    *address = change(before);
    return before;
}

}  // namespace cuda_emulation

template <class T>
T atomicAdd(T* address, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T before) { return before + value; });
}
template <class T>
T atomicMax(T* address, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T before) { return std::max(before, value); });
}
template <class T>
T atomicMin(T* address, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T before) { return std::min(before, value); });
}
template <class T>
T atomicOr(T* address, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T before) { return before | value; });
}
template <class T>
T atomicExch(T* address, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return cuda_emulation::atomically(address, [=](T before) { return before == expected ? value : before; });
}

// Writes are seen at once here, so fences have nothing to do: what they are missing for, the emulation cannot find out.
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace cuda_emulation {

// Twins of cp.async: a copy happens no sooner than it is waited for, so that a wait left out is seen as poison.
inline void copy_later(void* to, const void* from, size_t bytes, size_t whole) {
    auto& groups = Machine::instance().current().copies;
    if (groups.empty()) groups.emplace_back();
    groups.back().push_back({to, from, bytes, whole});
}

inline void end_group() {
    auto& groups = Machine::instance().current().copies;
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}

// Until at most `open` of the ended groups are under way.
inline void wait_for_copies(size_t open) {
    auto& groups = Machine::instance().current().copies;
    while (groups.size() > open + 1) {
        for (const Copy& copy : groups.front()) {
            std::memcpy(copy.to, copy.from, copy.bytes);
            std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.whole - copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

// The next shared array of the calling thread's block.
inline void* take_shared(size_t bytes) {
    Machine& machine = Machine::instance();
    void* data = machine.shared.take(machine.current().shared_arrays++, bytes);
    if (!data) machine.fail("takes a shared array of another size than its block has there");
    return data;
}

}  // namespace cuda_emulation
