// What every .cu file includes first: CUDA where nvcc compiles, the emulation where a C++ compiler does. Launches, shared memory and the
// few instructions that CUDA C++ has no name for.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
// `kernel` is a pointer to a kernel: a template's commas would end a macro's argument.
#define COMPRESS_REC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) (kernel)<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#else
#include "emulation/emulation.h"
#define COMPRESS_REC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    cuda_emulation::launch(__func__, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#endif

namespace compress_rec {

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kSharedUnasked = 48 << 10, kSharedMost = 163 << 10;  // bytes a block may have: without asking, and on sm_80

// What an array takes of a block's shared memory.
template <class T>
constexpr __host__ __device__ int shared_bytes(int count) {
    return (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
}

// A block's shared memory, taken array by array: by every thread, in the same order, as many bytes as the launcher asked for.
class SharedMemory {
  public:
#if defined(__CUDACC__)
    __device__ SharedMemory() {
        extern __shared__ __align__(16) unsigned char memory[];
        next_ = memory;
    }
    template <class T>
    __device__ T* take(int count) {
        T* array = reinterpret_cast<T*>(next_);
        next_ += shared_bytes<T>(count);
        return array;
    }

  private:
    unsigned char* next_;
#else
    template <class T>
    T* take(int count) {
        return static_cast<T*>(cuda_emulation::take_shared(count * sizeof(T)));
    }
#endif
};

// Lets a kernel have more than 48 KiB of shared memory, where it needs them.
template <class Kernel>
cudaError_t allow_shared(Kernel kernel, int bytes) {
    if (bytes <= kSharedUnasked) return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace compress_rec
