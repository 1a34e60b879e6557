// A BERT encoder for AVX2 and FMA, block of tokens by block: every step but attention looks at a token alone. What they do is written in
// compress_rec/encoder.py and towers.py, in the same order.
#include "../encoder.h"
#include "../large_memory.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace compress_rec {

namespace {

#include "activations_avx2.h"
#include "eights_tile_avx2.h"
#include "fma_tile_avx2.h"
#include "room.h"

#include "encoder_product_avx2.h"

// Sums in four chains, so that none is waited for.
template <class Term>
inline float sum_over(int64_t vectors, Term term) {
    __m256 sum_f32x8[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t v = 0;
    for (; v + 4 <= vectors; v += 4)
        for (int c = 0; c < 4; ++c) sum_f32x8[c] = _mm256_add_ps(sum_f32x8[c], term(v + c));
    for (; v < vectors; ++v) sum_f32x8[0] = _mm256_add_ps(sum_f32x8[0], term(v));
    return total_of(_mm256_add_ps(_mm256_add_ps(sum_f32x8[0], sum_f32x8[1]), _mm256_add_ps(sum_f32x8[2], sum_f32x8[3])));
}

// Layer norm of a row in place; its padding, whose weight and bias are 0, stays 0.
inline void normalise(float* row, int64_t width, float epsilon, const Norm& norm) {
    const int64_t vectors = (width + 7) / 8;
    const auto at = [&](int64_t v) { return _mm256_loadu_ps(row + v * 8); };
    const float mean = sum_over(vectors, at) / static_cast<float>(width);
    const __m256 mean_f32x8 = _mm256_set1_ps(mean);
    const __m256i lane_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 in_last_f32x8 =
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(width - (vectors - 1) * 8)), lane_i32x8));
    const float squares = sum_over(vectors, [&](int64_t v) {
        __m256 off_f32x8 = _mm256_sub_ps(at(v), mean_f32x8);
        if (v == vectors - 1) off_f32x8 = _mm256_and_ps(off_f32x8, in_last_f32x8);  // the padding is no part of the row
        return _mm256_mul_ps(off_f32x8, off_f32x8);
    });
    const __m256 scale_f32x8 = _mm256_set1_ps(1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon));
    for (int64_t v = 0; v < vectors; ++v) {
        const __m256 unit_f32x8 = _mm256_mul_ps(_mm256_sub_ps(at(v), mean_f32x8), scale_f32x8);
        _mm256_storeu_ps(row + v * 8, _mm256_fmadd_ps(unit_f32x8, _mm256_loadu_ps(norm.weight + v * 8), _mm256_loadu_ps(norm.bias + v * 8)));
    }
}

inline void normalise_rows(float* rows, int64_t count, const Encoder& encoder, const Norm& norm) {
    for (int64_t r = 0; r < count; ++r) normalise(rows + r * padded(encoder.width), encoder.width, encoder.epsilon, norm);
}

}  // namespace

void embed_avx2(const EncoderWork& work, int64_t first, int64_t last) {
    const StepTime time(work, EncoderStep::embed);
    const Encoder& encoder = *work.encoder;
    const int64_t width = encoder.width, stride = padded(width);
    for (int64_t token = first; token < last; ++token) {
        float* row = work.hidden + token * stride;
        const int64_t id = work.ids[token];
        const float* place = encoder.places ? encoder.places + work.place[token] * width : nullptr;
        int64_t d = 0;
        for (; d + 8 <= width; d += 8) {
            __m256 word_f32x8;
            if (encoder.word_codes) {
                const __m128i codes_i8x16 = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(encoder.word_codes + id * width + d));
                word_f32x8 = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes_i8x16)), _mm256_set1_ps(encoder.word_scales[id]));
            } else {
                word_f32x8 = _mm256_loadu_ps(encoder.word_floats + id * width + d);
            }
            _mm256_storeu_ps(row + d, place ? _mm256_add_ps(word_f32x8, _mm256_loadu_ps(place + d)) : word_f32x8);
        }
        for (; d < width; ++d) {
            const float word = encoder.word_codes ? static_cast<float>(encoder.word_codes[id * width + d]) * encoder.word_scales[id]
                                                  : encoder.word_floats[id * width + d];
            row[d] = place ? word + place[d] : word;
        }
        std::fill(row + width, row + stride, 0.0f);
        if (encoder.embedding_norm) normalise(row, width, encoder.epsilon, encoder.norm);
    }
}

void project_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t first, int64_t last) {
    const StepTime time(work, EncoderStep::query_key_value);
    const int64_t stride = padded(work.encoder->width);
    scratch().given.forget();
    const auto run = [&](const Linear& linear, float* out) {
        run_linear(linear, work.hidden + first * stride, stride, last - first, store_panels(out + first * kEncoderPanel, work.tokens));
    };
    run(layer.query, work.query);
    run(layer.key, work.key);
    run(layer.value, work.value);
}

void finish_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t first, int64_t last) {
    const Encoder& encoder = *work.encoder;
    Scratch& room = scratch();
    const int64_t stride = padded(encoder.width), count = last - first, inner = padded(layer.heads * layer.head_width);
    float* hidden = work.hidden + first * stride;
    room.given.forget();
    {
        const StepTime time(work, EncoderStep::output);
        run_linear(layer.output, work.context + first * inner, inner, count, add_rows(hidden, stride));
        normalise_rows(hidden, count, encoder, layer.attention_norm);
    }
    const int64_t neurons = padded(layer.up.outputs());
    float* middle = room.neurons.at_least(count * neurons);
    room.given.forget();
    {
        const StepTime time(work, EncoderStep::up);
        const bool rough = layer.down.chain.front().bytes != nullptr;
        run_linear(layer.up, hidden, stride, count, StoreActivated{middle, neurons, encoder.activation, rough});
    }
    room.given.forget();
    const StepTime time(work, EncoderStep::down);
    run_linear(layer.down, middle, neurons, count, add_rows(hidden, stride));
    normalise_rows(hidden, count, encoder, layer.output_norm);
}

void pool_avx2(const EncoderWork& work, int64_t first, int64_t last) {
    const int64_t stride = padded(work.encoder->width);
    for (int64_t text = first; text < last; ++text) {
        const int64_t begin = work.offsets[text], end = work.encoder->mean_pooling ? work.offsets[text + 1] : begin + 1;
        const float share = 1.0f / static_cast<float>(end - begin);
        for (int64_t d = 0; d < stride; d += 8) {
            __m256 sum_f32x8 = _mm256_setzero_ps();
            for (int64_t token = begin; token < end; ++token)
                sum_f32x8 = _mm256_add_ps(sum_f32x8, _mm256_loadu_ps(work.hidden + token * stride + d));
            _mm256_storeu_ps(work.pooled + text * stride + d, _mm256_mul_ps(sum_f32x8, _mm256_set1_ps(share)));
        }
    }
}

void head_avx2(const EncoderWork& work, const std::vector<HeadStage>& stages, int64_t dimensions, float* out, int64_t first, int64_t last) {
    const int64_t count = last - first;
    int64_t stride = padded(work.encoder->width);
    const float* x = work.pooled + first * stride;
    for (size_t number = 0; number < stages.size(); ++number) {
        const HeadStage& stage = stages[number];
        const int64_t wide = padded(stage.linear.outputs());
        float* next = scratch().stages[number % 2].at_least(count * wide);
        scratch().given.forget();
        run_linear(stage.linear, x, stride, count, StoreActivated{next, wide, stage.activation, false});
        x = next, stride = wide;
    }
    for (int64_t row = 0; row < count; ++row) {
        const float* from = x + row * stride;
        double squares = 0.0;
        for (int64_t d = 0; d < dimensions; ++d) squares += static_cast<double>(from[d]) * from[d];
        const float scale = 1.0f / std::max(static_cast<float>(std::sqrt(squares)), 1e-12f);  // as torch.nn.functional.normalize
        for (int64_t d = 0; d < dimensions; ++d) out[(first + row) * dimensions + d] = from[d] * scale;
    }
}

}  // namespace compress_rec

#pragma GCC pop_options

#else

namespace compress_rec {

// Never reached: on other processors no encoder is made.
void embed_avx2(const EncoderWork&, int64_t, int64_t) {}
void project_avx2(const EncoderWork&, const EncoderLayer&, int64_t, int64_t) {}
void finish_avx2(const EncoderWork&, const EncoderLayer&, int64_t, int64_t) {}
void pool_avx2(const EncoderWork&, int64_t, int64_t) {}
void head_avx2(const EncoderWork&, const std::vector<HeadStage>&, int64_t, float*, int64_t, int64_t) {}

}  // namespace compress_rec

#endif
