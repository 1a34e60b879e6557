// CUDA's vector and half-precision types, laid out and aligned as the device has them.
#pragma once

#include <cstdint>
#include <cstring>

struct uint3 { unsigned x, y, z; };

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define CUDA_EMULATION_PAIR(name, type, bytes) \
    struct alignas(bytes) name { type x, y; }; \
    inline name make_##name(type x, type y) { return {x, y}; }
#define CUDA_EMULATION_FOUR(name, type, bytes) \
    struct alignas(bytes) name { type x, y, z, w; }; \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_EMULATION_PAIR(int2, int, 8)
CUDA_EMULATION_PAIR(uint2, unsigned, 8)
CUDA_EMULATION_PAIR(float2, float, 8)
CUDA_EMULATION_PAIR(double2, double, 16)
CUDA_EMULATION_PAIR(longlong2, long long, 16)
CUDA_EMULATION_PAIR(ulonglong2, unsigned long long, 16)
CUDA_EMULATION_FOUR(int4, int, 16)
CUDA_EMULATION_FOUR(uint4, unsigned, 16)
CUDA_EMULATION_FOUR(float4, float, 16)
CUDA_EMULATION_FOUR(char4, signed char, 4)
CUDA_EMULATION_FOUR(uchar4, unsigned char, 4)
CUDA_EMULATION_FOUR(short4, short, 8)
CUDA_EMULATION_FOUR(ushort4, unsigned short, 8)
#undef CUDA_EMULATION_PAIR
#undef CUDA_EMULATION_FOUR

struct __nv_bfloat16 { uint16_t bits; };
struct __half { uint16_t bits; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
struct alignas(4) __half2 { __half x, y; };

inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline double __longlong_as_double(long long bits) { double value; std::memcpy(&value, &bits, 8); return value; }
inline long long __double_as_longlong(double value) { long long bits; std::memcpy(&bits, &value, 8); return bits; }

inline float __bfloat162float(__nv_bfloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

// To the nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FFF};
    return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {__bfloat162float(pair.x), __bfloat162float(pair.y)}; }

inline float __half2float(__half value) {
    const unsigned sign = (value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31u, fraction = value.bits & 0x3FFu;
    if (exponent == 31) return __uint_as_float(sign | 0x7F800000u | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
}

inline __half __float2half_rn(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    if (size > 0x7F800000u) return {0x7FFF};
    if (size >= 0x477FF000u) return {static_cast<uint16_t>(sign | 0x7C00u)};  // 65520 and above round to infinity
    if (size < 0x38800000u) {                                                 // below 2^-14: multiples of 2^-24
        const float magnitude = __uint_as_float(size) + 0.5f;                 // the sum rounds to a multiple of 2^-24, ties to even
        return {static_cast<uint16_t>(sign | (__float_as_uint(magnitude) - 0x3F000000u))};
    }
    return {static_cast<uint16_t>(sign | ((size + 0xFFFu + (size >> 13 & 1u)) - 0x38000000u) >> 13)};
}
inline __half __float2half(float value) { return __float2half_rn(value); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
