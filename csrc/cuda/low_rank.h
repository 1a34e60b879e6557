// Low-rank layers on CUDA devices, without torch: what a caller hands over. compress_rec/ops/low_rank_linear.py specifies the layer.
#pragma once

#include <cstdint>

namespace compress_rec::cuda {

enum class NumberType : int { float32, bfloat16, float16 };

// y = (x · aᵀ) · bᵀ + bias, everything of one type; sums are taken in float32, and the middle is rounded to the type as two layers would.
struct LowRankLinearTask {
    NumberType type;
    const void* x;     // (rows, inputs)
    const void* a;     // (rank, inputs)
    const void* b;     // (outputs, rank)
    const void* bias;  // (outputs,), or null
    void* y;           // (rows, outputs)
    int64_t rows;
    int inputs, rank, outputs;
    int splits;        // how many blocks share the outputs of 64 rows, each with a middle of its own; from splits_for
};

// y = gelu((x · aᵀ) · bᵀ + bias) · cᵀ · dᵀ + bias_out: a feed-forward block of two low-rank layers. What lies between stays in the block.
struct LowRankFeedForwardTask {
    NumberType type;
    const void* x;         // (rows, inputs)
    const void* a;         // (rank, inputs)
    const void* b;         // (hidden, rank)
    const void* bias;      // (hidden,), or null
    const void* c;         // (rank_out, hidden)
    const void* d;         // (outputs, rank_out)
    const void* bias_out;  // (outputs,), or null
    void* y;               // (rows, outputs)
    int64_t rows;
    int inputs, rank, hidden, rank_out, outputs;
};

int splits_for(int64_t rows, int outputs, int multiprocessors);

// Whether a block's shared memory and registers are enough; else two products one behind the other have to do.
bool fits(const LowRankLinearTask& task);
bool fits(const LowRankFeedForwardTask& task);

// Put the kernel on the stream (a cudaStream_t); they allocate nothing and wait for nothing. Return null, or why they cannot.
const char* low_rank_linear(const LowRankLinearTask& task, void* stream);
const char* low_rank_feed_forward(const LowRankFeedForwardTask& task, void* stream);

}  // namespace compress_rec::cuda
