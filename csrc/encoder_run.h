// A whole encoder on a ragged batch, from token ids to unit vectors.
#pragma once

#include <cstdint>
#include <vector>

#include "encoder.h"

namespace compress_rec {

struct EncoderOutput {
    int64_t head;        // its number among the encoder's heads; -1 for the pooled vector itself, as long as it is
    int64_t dimensions;  // numbers of a vector
    float* to;           // (texts, dimensions)
};

// ids (tokens,), offsets (texts + 1,) ascending from 0 to tokens. Throws std::invalid_argument with one sentence for ids beyond the
// vocabulary, offsets that do not ascend, empty texts, and texts longer than the positions. With `nanoseconds` (kEncoderStepCount,) it runs on
// one thread and adds each step's time.
void run_encoder(const Encoder& encoder, const int64_t* ids, int64_t tokens, const int64_t* offsets, int64_t texts,
                 const std::vector<EncoderOutput>& outputs, int64_t* nanoseconds = nullptr);

}  // namespace compress_rec
