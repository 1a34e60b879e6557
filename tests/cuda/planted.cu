// Kernels with one planted fault each, and the same without: what the emulation has to find, and what it has to leave alone.
#include "tensor_cores.h"

using namespace compress_rec;

namespace {

__global__ void sum_kernel(const float* values, float* sums, int count) {
    SharedMemory shared;
    float* of_warp = shared.take<float>(blockDim.x / kLanes);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = i < count ? values[i] : 0.0f;
    for (int step = kLanes / 2; step; step /= 2) sum += __shfl_down_sync(kAllLanes, sum, step);
    if (threadIdx.x % kLanes == 0) of_warp[threadIdx.x / kLanes] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned warp = 1; warp < blockDim.x / kLanes; ++warp) sum += of_warp[warp];
        sums[blockIdx.x] = sum;
    }
}

// Faults of barriers and warps, one a number.
__global__ void together_kernel(int fault, int* out) {
    SharedMemory shared;
    int* seen = shared.take<int>(fault == 4 && threadIdx.x ? 65 : 64);
    const int i = threadIdx.x;
    if (fault == 0 && i < 32) return;
    if (fault == 1) {
        if (i < 32)
            __syncthreads();
        else
            __syncthreads();
    }
    seen[i] = i;
    if (fault != 2) __syncthreads();
    out[i] = seen[63 - i];
    if (fault == 3) out[i] += seen[i % 2 ? i : 62] = 0;
    if (fault == 5 && i % 32 == 7) return;
    if (fault == 5) out[i] = __shfl_sync(kAllLanes, i, 0);
    if (fault == 6) out[i] = i % 2 ? __shfl_sync(kAllLanes, i, 0) : __shfl_xor_sync(kAllLanes, i, 1);
    if (fault == 7) __syncwarp(1u << (i % 32 + 1) % 32);
    if (fault == 8) out[i] = i % 32 < 16 ? __shfl_sync(0xFFFFu, i, 20) : 0;
    if (fault == 9 && i % 32 < 16) __syncwarp();
}

// Faults of memory, one a number. data holds `count` numbers, shared memory 8.
__global__ void memory_kernel(int fault, const float* data, float* out, int count) {
    SharedMemory shared;
    float* few = shared.take<float>(fault == 7 ? 12 : 8);
    int* more = shared.take<int>(3);
    float own[4] = {0, 1, 2, 3};
    const int i = threadIdx.x;
    if (i < 3) more[i] = i;
    if (i < 8) few[i] = i;
    __syncthreads();
    float value = data[i % count];
    if (fault == 0 && i == 5) value = data[count];
    if (fault == 1 && i == 5) value = data[-1];
    if (fault == 2 && i == 5) out[blockDim.x] = value;
    if (fault == 3 && i == 5) value += few[8];
    if (fault == 4 && i == 5) more[3] = 1;
    if (fault == 5 && i == 5) few[-1] = 1;
    if (fault == 6 && i == 5) value = *reinterpret_cast<const float*>(static_cast<uintptr_t>(i + 3));
    if (fault == 8 && i == 5) value = own[count];
    if (fault == 9 && i == 5) value = reinterpret_cast<const float4*>(data + 1)->x;
    out[i] = value;
}

// Results that depend on order, or on what nobody wrote, one a number.
__global__ void order_kernel(int fault, const float* values, float* out, int* counter) {
    SharedMemory shared;
    float* row = shared.take<float>(64);
    const int i = threadIdx.x;
    if (fault != 0 || i % 2) row[i] = values[i];
    if (fault != 1) __syncthreads();
    float value = row[63 - i];
    if (fault == 2) atomicAdd(out + 64, values[i]);
    if (fault == 3 && i == 0) out[65] = blockIdx.x;
    if (fault == 4) value = atomicAdd(counter, 1);
    if (fault == 5) {  // reads, and writes without an atomic
        const int before = *counter;
        atomicAdd(counter + 1, 1);
        *counter = before + 1;
    }
    if (fault == 6) atomicAdd(counter, 1);  // sums of integers do not depend on order
    if (blockIdx.x == 0) out[i] = value;
}

const char* named(cudaError_t error) { return cudaGetErrorString(error); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* sum(const float* values, float* sums, int count, int blocks, int threads) {
    COMPRESS_REC_LAUNCH(sum_kernel, blocks, threads, shared_bytes<float>(threads / kLanes), nullptr, values, sums, count);
    return named(cudaGetLastError());
}

extern "C" __attribute__((visibility("default"))) const char* together(int fault, int* out, int threads) {
    COMPRESS_REC_LAUNCH(together_kernel, 1, threads, shared_bytes<int>(64), nullptr, fault, out);
    return named(cudaGetLastError());
}

extern "C" __attribute__((visibility("default"))) const char* touch(int fault, const float* data, float* out, int count) {
    COMPRESS_REC_LAUNCH(memory_kernel, 1, 32, shared_bytes<float>(8) + shared_bytes<int>(3), nullptr, fault, data, out, count);
    return named(cudaGetLastError());
}

extern "C" __attribute__((visibility("default"))) const char* ordered(int fault, const float* values, float* out, int* counter) {
    COMPRESS_REC_LAUNCH(order_kernel, 3, 64, shared_bytes<float>(64), nullptr, fault, values, out, counter);
    return named(cudaGetLastError());
}

extern "C" __attribute__((visibility("default"))) const char* launched_with(int threads, int shared) {
    static float sums[1], values[1];
    COMPRESS_REC_LAUNCH(sum_kernel, 1, threads, shared, nullptr, values, sums, 0);
    return named(cudaGetLastError());
}

// The twins, each against what it stands for.

namespace {

// One product of 16 × 16 by 16 × 8, its fragments filled as tensor_cores.h lays them out: by hand, or by load_matrices.
template <class Number>
__global__ void product_kernel(const Number* a, const Number* b, float* c, int by_hand) {
    SharedMemory shared;
    Number* a_tile = shared.take<Number>(16 * 16);
    Number* b_tile = shared.take<Number>(16 * 8);
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 16 * 2; i += kLanes) cuda::copy_16(a_tile + 8 * i, a + 8 * i, true);
    for (int i = lane; i < 8 * 2; i += kLanes) cuda::copy_16(b_tile + 8 * i, b + 8 * i, true);
    cuda::end_copies();
    if (by_hand >= 0) cuda::wait_for_copies<0>();
    __syncthreads();
    const auto pair = [](const Number* first) { return *reinterpret_cast<const unsigned*>(first); };
    unsigned of_a[4], of_b[4] = {};
    if (by_hand) {  // b lies column by column
        for (int i = 0; i < 4; ++i) of_a[i] = pair(a_tile + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8);
        for (int i = 0; i < 2; ++i) of_b[i] = pair(b_tile + g * 16 + 2 * t + i * 8);
    } else {
        const int matrix = lane / 8, row = lane % 8;
        cuda::load_matrices(of_a, a_tile + (row + matrix % 2 * 8) * 16 + matrix / 2 * 8);
        cuda::load_matrices(of_b, b_tile + row * 16 + matrix % 2 * 8);
    }
    float sums[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
    const unsigned two[2] = {of_b[0], of_b[1]};
    cuda::multiply_add(sums, of_a, two, Number{});
    for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* product(int half, const void* a, const void* b, float* c, int by_hand) {
    const int bytes = shared_bytes<__half>(256) + shared_bytes<__half>(128);
    const auto in_half = product_kernel<__half>;
    const auto in_bfloat = product_kernel<__nv_bfloat16>;
    if (half)
        COMPRESS_REC_LAUNCH(in_half, 1, 32, bytes, nullptr, static_cast<const __half*>(a), static_cast<const __half*>(b), c, by_hand);
    else
        COMPRESS_REC_LAUNCH(in_bfloat, 1, 32, bytes, nullptr, static_cast<const __nv_bfloat16*>(a), static_cast<const __nv_bfloat16*>(b), c,
                            by_hand);
    return named(cudaGetLastError());
}

extern "C" __attribute__((visibility("default"))) void convert(const float* floats, uint16_t* halves, uint16_t* bfloats, int count) {
    for (int i = 0; i < count; ++i) halves[i] = __float2half_rn(floats[i]).bits, bfloats[i] = __float2bfloat16_rn(floats[i]).bits;
}

extern "C" __attribute__((visibility("default"))) void widen(float* from_half, float* from_bfloat) {
    for (int bits = 0; bits < 65536; ++bits) {
        from_half[bits] = __half2float({static_cast<uint16_t>(bits)});
        from_bfloat[bits] = __bfloat162float({static_cast<uint16_t>(bits)});
    }
}

extern "C" __attribute__((visibility("default"))) void four_products(const int* a, const int* b, int* sums, int count) {
    for (int i = 0; i < count; ++i) sums[i] = __dp4a(a[i], b[i], sums[i]);
}
