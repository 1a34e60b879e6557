// low_rank_linear_packed without torch: what the checks hand to the kernel. compress_rec/ops/low_rank_linear_packed.py specifies the op.
#pragma once

#include <cstdint>

namespace compress_rec {

// Tokens that go through both factors together: their middle stays in the nearer caches, and a panel is fetched once for all of them.
constexpr int64_t kTokensInBlock = 96;

// A block of tokens, or all of the few there are.
struct LowRankLinearTask {
    const float* x;      // (tokens, inputs)
    const float* a;      // (width / 16, inputs, 16)
    const float* b;      // (outputs / 16 rounded up, rank, 16)
    const float* bias;   // (outputs,), or null
    float* middle;       // (tokens, width): room for x · aᵀ
    float* out;          // (tokens, outputs)
    int64_t tokens, inputs, rank, outputs;
    int64_t width;       // rank rounded up to a multiple of 16
};

// middle = x · aᵀ, in the panels first … last - 1 of a.
void low_rank_middle_avx2(const LowRankLinearTask& task, int64_t first, int64_t last);

// out = bias + middle · bᵀ, in the panels first … last - 1 of b.
void low_rank_out_avx2(const LowRankLinearTask& task, int64_t first, int64_t last);

}  // namespace compress_rec
