// int8_linear_packed without torch: what the checks hand to a kernel. compress_rec/ops/int8_linear.py specifies the arithmetic,
// compress_rec/int8_panels.py the layout of the weights.
#pragma once

#include <cstdint>

namespace compress_rec {

// The largest width whose sums fit 32 bits: 127 · 127 · 131072 is below 2^31.
constexpr int64_t kMostInputs = 131072;

// Some rows of x against some panels of the weight. What there is once an output fills whole panels, with anything behind the last.
struct Int8LinearTask {
    const float* x;               // (rows, inputs)
    int64_t rows, inputs, outputs;
    int64_t steps;                // of a panel: ceil(inputs / 8)
    const int8_t* panels;         // (panels, steps, 2, 16, 4)
    const int8_t* extra;          // (extras, 16, 4): weights taken out of a step's second group, which 16 bits might not have held
    const int32_t* extra_first;   // (panels + 1,): panel p owns the extras extra_first[p] … extra_first[p + 1] - 1
    const int32_t* extra_step;    // (extras,): the step each belongs to
    const int32_t* sums;          // (panels, 16): the sum of an output's codes
    const float* scales;          // (panels, 16)
    const float* bias;            // (panels, 16): -0.0 where there is none, which leaves every number as it is
    int64_t first_panel, last_panel;
    float* out;                   // (rows, outputs)
};

void int8_linear_packed_avx2(const Int8LinearTask& task);

}  // namespace compress_rec
