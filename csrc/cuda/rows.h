// How a warp reads rows of a catalogue and sums over its lanes.
#pragma once

#include "device.h"

namespace compress_rec::cuda {

__device__ inline float number(float value) { return value; }
__device__ inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float number(__half value) { return __half2float(value); }

__device__ inline float4 four_at(const float* place) { return *reinterpret_cast<const float4*>(place); }
__device__ inline float4 four_at(const __nv_bfloat16* place) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(place);
    return make_float4(__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xFFFF0000u), __uint_as_float(pairs.y << 16),
                       __uint_as_float(pairs.y & 0xFFFF0000u));
}
__device__ inline float4 four_at(const __half* place) {
    struct alignas(8) Four { __half2 low, high; };
    const Four four = *reinterpret_cast<const Four*>(place);
    const float2 low = __half22float2(four.low), high = __half22float2(four.high);
    return make_float4(low.x, low.y, high.x, high.y);
}

// Numbers j to j + 3 of a row, zeros behind its end. kAligned: the width is a multiple of four and so is every row's place.
template <bool kAligned, class Item>
__device__ inline float4 four_of(const Item* row, int j, int width) {
    if (kAligned) return four_at(row + j);
    return make_float4(number(row[j]), j + 1 < width ? number(row[j + 1]) : 0.0f, j + 2 < width ? number(row[j + 2]) : 0.0f,
                       j + 3 < width ? number(row[j + 3]) : 0.0f);
}

// Sums kCount values over the lanes of a warp; lane i gets the total of value i * kCount / 32.
template <int kCount, class Number>
__device__ inline Number transposed_sum(Number (&values)[kCount], int lane) {
    int step = kLanes / 2;
#pragma unroll
    for (int half = kCount / 2; half; half /= 2, step /= 2) {
        const bool upper = lane & step;
#pragma unroll
        for (int i = 0; i < kCount / 2; ++i) {
            if (i >= half) break;
            const Number given = upper ? values[i] : values[i + half];
            values[i] = (upper ? values[i + half] : values[i]) + __shfl_xor_sync(kAllLanes, given, step);
        }
    }
    for (; step; step /= 2) values[0] += __shfl_xor_sync(kAllLanes, values[0], step);
    return values[0];
}

}  // namespace compress_rec::cuda
