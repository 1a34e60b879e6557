// A BERT encoder as plain numbers, and the steps that run it on a ragged batch: texts one behind the other, nothing padded.
//
// Buffers of floats have rows of whole panels: 16 numbers, zeros behind the last that counts.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace compress_rec {

constexpr int64_t kEncoderPanel = 16;

constexpr int64_t in_panels(int64_t numbers) {
    return (numbers + kEncoderPanel - 1) / kEncoderPanel;
}

constexpr int64_t padded(int64_t numbers) {
    return in_panels(numbers) * kEncoderPanel;
}

enum class Activation { identity, gelu, gelu_tanh, relu, silu, tanh };

// A weight (outputs, inputs) in panels of 16 outputs, in floats or in bytes.
struct Matrix {
    int64_t inputs, outputs;
    const float* floats;    // (panels, inputs, 16), or null
    const int8_t* bytes;    // (parts, steps, 4, 16, 4), or null: a panel is the sum of its parts, see eights_tile_avx2.h
    const int32_t* first;   // (panels + 1,): the parts of panel p are first[p] … first[p + 1] - 1
    const int32_t* sums;    // (panels · 16,): the sum of each output's codes
    const float* scales;    // (panels · 16,)
    const float* diagonal;  // (inputs,): a row of x is multiplied by it before it is rounded; null for ones
};

// A product of matrices, the first one first, and a bias.
struct Linear {
    std::vector<Matrix> chain;
    const float* bias;  // (panels of the last one · 16,), zeros where there is none

    int64_t inputs() const { return chain.front().inputs; }
    int64_t outputs() const { return chain.back().outputs; }
};

struct Norm {
    const float *weight, *bias;  // (padded width,) each
};

// The outputs of query, key and value are the heads one behind the other, each padded to whole panels.
struct EncoderLayer {
    int64_t heads, head_width;
    Linear query, key, value, output, up, down;
    Norm attention_norm, output_norm;
};

struct HeadStage {
    Linear linear;
    Activation activation;
};

struct Encoder {
    int64_t width, vocabulary, most_tokens;  // most_tokens: in a text
    float epsilon;
    Activation activation;
    bool mean_pooling;           // else the first token
    const float* word_floats;    // (vocabulary, width), or null
    const int8_t* word_codes;    // (vocabulary, width), or null
    const float* word_scales;    // (vocabulary,)
    const float* places;         // (most_tokens, width): position and type embeddings together, or null
    bool embedding_norm;
    Norm norm;
    std::vector<EncoderLayer> layers;
    std::vector<std::vector<HeadStage>> heads;
};

// The steps that a profile tells apart, in their order.
enum class EncoderStep { embed, query_key_value, attention, output, up, down, pooling };
constexpr const char* kEncoderSteps[] = {"embeddings", "query, key, value", "attention", "output, norm", "up, activation", "down, norm",
                                         "pooling"};
constexpr int64_t kEncoderStepCount = 7;

// What a call works on: so many tokens of whole texts, and the room for what stands between the steps.
struct EncoderWork {
    const Encoder* encoder;
    const int64_t* ids;      // (tokens,)
    const int64_t* offsets;  // (texts + 1,), from 0 on
    const int32_t* place;    // (tokens,): of a token in its text
    int64_t texts, tokens;
    float* hidden;   // (tokens, padded width)
    float* query;    // (panels, tokens, 16) each
    float* key;
    float* value;
    float* context;  // (tokens, padded heads · head_width)
    float* pooled;   // (texts, padded width)
    int64_t* nanoseconds;  // (kEncoderStepCount,) that steps are added to, or null; one thread only
};

// Adds the time until its end to a step, where that is wanted.
class StepTime {
  public:
    StepTime(const EncoderWork& work, EncoderStep step)
        : to_(work.nanoseconds ? work.nanoseconds + static_cast<int64_t>(step) : nullptr),
          begin_(to_ ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point()) {}
    ~StepTime() {
        if (to_) *to_ += std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin_).count();
    }
    StepTime(const StepTime&) = delete;
    StepTime& operator=(const StepTime&) = delete;

  private:
    int64_t* to_;
    std::chrono::steady_clock::time_point begin_;
};

// hidden of tokens first … last - 1 from their ids
void embed_avx2(const EncoderWork& work, int64_t first, int64_t last);

// query, key and value of tokens first … last - 1 from hidden
void project_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t first, int64_t last);

// context of one text and head from query, key and value
void attend_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t text, int64_t head);

// hidden of tokens first … last - 1 behind the layer, from hidden and context
void finish_avx2(const EncoderWork& work, const EncoderLayer& layer, int64_t first, int64_t last);

// pooled of texts first … last - 1 from hidden
void pool_avx2(const EncoderWork& work, int64_t first, int64_t last);

// out (texts, dimensions), unit length, of texts first … last - 1 from pooled
void head_avx2(const EncoderWork& work, const std::vector<HeadStage>& stages, int64_t dimensions, float* out, int64_t first, int64_t last);

}  // namespace compress_rec
