// The limits for AVX2. Every loop keeps its sums and factors in the 16 registers there are. The factors pass through an empty asm a step,
// so that the compiler cannot see that a product repeats and take it out of the loop; it names registers alone: one that clobbers memory
// would send the sums to the stack.
#include "../limits.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

inline double total(__m256 values_f32x8) {
    float values[8];
    _mm256_storeu_ps(values, values_f32x8);
    double sum = 0;
    for (float value : values) sum += value;
    return sum;
}

inline double total(__m256i values_i32x8) {
    return total(_mm256_cvtepi32_ps(values_i32x8));
}

// SUMMED products of `maddubs` are added in 16 bits before `madd` widens them: 1, 2 or 4.
template <int SUMMED>
double maddubs_loop(int64_t steps) {
    constexpr int kSums = 4;  // only the additions wait for each other
    const __m256i one_i16x16 = _mm256_set1_epi16(1);
    __m256i sum_i32x8[kSums];
    for (__m256i& sum : sum_i32x8) sum = _mm256_setzero_si256();
    __m256i left_u8x32[2] = {_mm256_set1_epi8(3), _mm256_set1_epi8(5)};
    const __m256i right_i8x32[2] = {_mm256_set1_epi8(-1), _mm256_set1_epi8(2)};
    for (int64_t s = 0; s < steps; ++s) {
        for (int i = 0; i < kSums; ++i) {
            asm("" : "+x"(left_u8x32[0]), "+x"(left_u8x32[1]));
            __m256i part_i16x16[SUMMED];
            for (int p = 0; p < SUMMED; ++p) part_i16x16[p] = _mm256_maddubs_epi16(left_u8x32[p % 2], right_i8x32[(p / 2 + i) % 2]);
            for (int gap = SUMMED / 2; gap > 0; gap /= 2) {
                for (int p = 0; p < gap; ++p) part_i16x16[p] = _mm256_add_epi16(part_i16x16[p], part_i16x16[p + gap]);
            }
            sum_i32x8[i] = _mm256_add_epi32(sum_i32x8[i], _mm256_madd_epi16(part_i16x16[0], one_i16x16));
        }
    }
    double sum = 0;
    for (const __m256i& part : sum_i32x8) sum += total(part);
    return sum;
}

}  // namespace

double fma_limit_avx2(int64_t steps) {
    constexpr int kSums = 12;  // four or five cycles of latency times two a cycle need ten at most
    __m256 sum_f32x8[kSums];
    for (int i = 0; i < kSums; ++i) sum_f32x8[i] = _mm256_set1_ps(static_cast<float>(i));
    __m256 left_f32x8 = _mm256_set1_ps(0.5f), right_f32x8 = _mm256_set1_ps(0.25f);
    for (int64_t s = 0; s < steps; ++s) {
        asm("" : "+x"(left_f32x8), "+x"(right_f32x8));
        for (int i = 0; i < kSums; ++i) sum_f32x8[i] = _mm256_fmadd_ps(left_f32x8, right_f32x8, sum_f32x8[i]);
    }
    double sum = 0;
    for (int i = 0; i < kSums; ++i) sum += total(sum_f32x8[i]);
    return sum;
}

double maddubs_limit_avx2(int64_t steps) {
    return maddubs_loop<1>(steps);
}

double maddubs_pairs_limit_avx2(int64_t steps) {
    return maddubs_loop<2>(steps);
}

double maddubs_fours_limit_avx2(int64_t steps) {
    return maddubs_loop<4>(steps);
}

double read_limit_avx2(const void* data, int64_t bytes, int64_t passes) {
    const char* from = static_cast<const char*>(data);
    __m256i sum_i32x8[4];
    for (__m256i& part : sum_i32x8) part = _mm256_setzero_si256();
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int64_t at = 0; at + 128 <= bytes; at += 128) {
            for (int i = 0; i < 4; ++i) {
                const __m256i read_i32x8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at + 32 * i));
                sum_i32x8[i] = _mm256_add_epi32(sum_i32x8[i], read_i32x8);
            }
        }
    }
    return total(_mm256_add_epi32(_mm256_add_epi32(sum_i32x8[0], sum_i32x8[1]), _mm256_add_epi32(sum_i32x8[2], sum_i32x8[3])));
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: limits() is empty where best_tier() is the reference.
double fma_limit_avx2(int64_t) { return 0; }
double maddubs_limit_avx2(int64_t) { return 0; }
double maddubs_pairs_limit_avx2(int64_t) { return 0; }
double maddubs_fours_limit_avx2(int64_t) { return 0; }
double read_limit_avx2(const void*, int64_t, int64_t) { return 0; }

}  // namespace compress_rec

#endif
