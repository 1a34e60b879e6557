// int8_embedding without torch: what the checks hand to the kernel. compress_rec/ops/int8_embedding.py specifies the op.
#pragma once

#include <cstdint>

namespace compress_rec {

// Some rows of the result; Id is int64_t or int32_t.
template <class Id>
struct Int8EmbeddingTask {
    const Id* ids;         // (count,), each within the table
    int64_t count;
    const int8_t* codes;   // (table rows, width)
    const float* scales;   // (table rows,)
    int64_t width;
    float* out;            // (count, width)
};

template <class Id>
void int8_embedding_avx2(const Int8EmbeddingTask<Id>& task);

}  // namespace compress_rec
