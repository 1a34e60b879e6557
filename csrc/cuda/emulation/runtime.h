// The part of CUDA's runtime that a launcher calls.
#pragma once

#include <map>
#include <tuple>
#include <utility>

#include "collectives.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;

namespace cuda_emulation {

// Limits of the devices that the kernels are meant for, sm_80 and on. Up to 48 KiB of shared memory come without asking.
constexpr size_t kSharedUnasked = 48 << 10, kSharedMost = 163 << 10;
constexpr unsigned kThreadsMost = 1024, kGridMost = 65535;  // of a grid's second and third axis

inline std::map<const void*, size_t>& shared_allowed() {
    static std::map<const void*, size_t> allowed;
    return allowed;
}

inline cudaError_t& last_error() {
    static cudaError_t error = cudaSuccess;
    return error;
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments&&... arguments) {
    const void* address = reinterpret_cast<const void*>(kernel);
    const auto allowed = shared_allowed().find(address);
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    const bool empty = !threads || !grid.x || !grid.y || !grid.z;
    if (empty || threads > kThreadsMost || grid.x > 0x7FFFFFFFu || grid.y > kGridMost || grid.z > kGridMost) {
        last_error() = cudaErrorInvalidConfiguration;
        return;
    }
    if (shared_bytes > (allowed == shared_allowed().end() ? kSharedUnasked : allowed->second)) {
        last_error() = cudaErrorInvalidValue;
        return;
    }
    const std::tuple<Parameters...> given(std::forward<Arguments>(arguments)...);
    const bool well = Machine::instance().run(name, grid, block, shared_bytes, [&] { std::apply(kernel, given); });
    if (!well) last_error() = cudaErrorLaunchFailure;
}

}  // namespace cuda_emulation

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), int attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || static_cast<size_t>(value) > cuda_emulation::kSharedMost)
        return cudaErrorInvalidValue;
    cuda_emulation::shared_allowed()[reinterpret_cast<const void*>(kernel)] = static_cast<size_t>(value);
    return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error(), cudaSuccess); }

inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorLaunchFailure: return "unspecified launch failure";
        default: return "unknown error";
    }
}

inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t = nullptr) {
    std::memset(data, value, bytes);
    return cudaSuccess;
}
