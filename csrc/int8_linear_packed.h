// int8_linear_packed without torch: what the checks hand to a kernel. compress_rec/ops/int8_linear.py specifies the arithmetic,
// compress_rec/int8_eights.py the layout of the weights.
#pragma once

#include <cstdint>

namespace compress_rec {

// The largest width whose sums fit 32 bits: 127 · 127 · 131072 is below 2^31.
constexpr int64_t kMostInputs = 131072;

// Some rows of x against some panels of the weight. What there is once an output fills whole panels, with anything behind the last.
struct Int8LinearTask {
    const float* x;         // (rows, inputs)
    int64_t rows, inputs, outputs;
    const float* diagonal;  // (inputs,): a row of x is multiplied by it before it is rounded; null for ones
    int64_t steps;          // of a panel: ceil(inputs / 16)
    const int8_t* parts;    // (parts, steps, 4, 16, 4)
    const int32_t* first;   // (panels + 1,): panel p is the sum of the parts first[p] … first[p + 1] - 1, at least one
    const int32_t* sums;    // (panels, 16): the sum of an output's codes
    const float* scales;    // (panels, 16)
    const float* bias;      // (panels, 16): -0.0 where there is none, which leaves every number as it is
    int64_t first_panel, last_panel;
    float* out;             // (rows, outputs)
};

void int8_linear_packed_avx2(const Int8LinearTask& task);

}  // namespace compress_rec
