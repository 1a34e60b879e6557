// int8_embedding for AVX2: eight codes at a time widened and multiplied by the row's scale. One product a number, so the bits are those
// of the reference.
#include "../int8_embedding.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

template <class Id>
void int8_embedding_avx2(const Int8EmbeddingTask<Id>& task) {
    for (int64_t i = 0; i < task.count; ++i) {
        const int64_t id = task.ids[i];
        const int8_t* row = task.codes + id * task.width;
        const float scale = task.scales[id];
        const __m256 scale_f32x8 = _mm256_set1_ps(scale);
        float* out = task.out + i * task.width;
        int64_t j = 0;
        for (; j + 8 <= task.width; j += 8) {
            const __m128i codes_i8x16 = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + j));
            const __m256 codes_f32x8 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes_i8x16));
            _mm256_storeu_ps(out + j, _mm256_mul_ps(codes_f32x8, scale_f32x8));
        }
        for (; j < task.width; ++j) out[j] = static_cast<float>(row[j]) * scale;
    }
}

template void int8_embedding_avx2(const Int8EmbeddingTask<int64_t>&);
template void int8_embedding_avx2(const Int8EmbeddingTask<int32_t>&);

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors best_tier() is the reference and the kernels are not registered.
template <class Id>
void int8_embedding_avx2(const Int8EmbeddingTask<Id>&) {}

template void int8_embedding_avx2(const Int8EmbeddingTask<int64_t>&);
template void int8_embedding_avx2(const Int8EmbeddingTask<int32_t>&);

}  // namespace compress_rec

#endif
