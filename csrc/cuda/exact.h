// The search of cosine_top_k_int8 where the vectors lie beside the codes, in cosine_top_k_exact.cu; fills scores and ids alone.
#pragma once

#include "cosine_top_k.h"

namespace compress_rec::cuda {

size_t exact_scratch(const CosineTopKInt8Task& task);
const char* cosine_top_k_exact(const CosineTopKInt8Task& task, void* stream);

}  // namespace compress_rec::cuda
