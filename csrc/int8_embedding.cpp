// int8_embedding with torch: checks, allocation, the cut into tasks. The kernel is in cpu/.
#include "int8_embedding.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <string>
#include <vector>

#include "check.h"
#include "kernels.h"

namespace compress_rec {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr const char* kOp = "int8_embedding";
constexpr int64_t kNumbersInTask = 1 << 15;  // below that a second thread costs more than it saves

// The rows of the table, one an id; Id is what the ids are stored as.
template <class Id>
void look_up(const Tensor& given_ids, const Tensor& codes, const Tensor& scales, float* out) {
    const Tensor in_memory = in_order(given_ids);
    const Id* ids = in_memory.const_data_ptr<Id>();
    const int64_t count = in_memory.numel(), rows = codes.size(0), width = codes.size(1);
    for (int64_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || ids[i] >= rows) {
            refuse(kOp, "ids", "from 0 to " + std::to_string(rows - 1), "id " + std::to_string(ids[i]),
                   "tokenise with the vocabulary of this table");
        }
    }
    const int8_t* code_data = codes.const_data_ptr<int8_t>();
    const float* scale_data = scales.const_data_ptr<float>();
    torch::stable::parallel_for(0, count, kNumbersInTask / (width + 1) + 1, [&](int64_t begin, int64_t end) {
        int8_embedding_avx2(Int8EmbeddingTask<Id>{ids + begin, end - begin, code_data, scale_data, width, out + begin * width});
    });
}

Tensor int8_embedding(const Tensor& ids, const Tensor& given_codes, const Tensor& given_scales) {
    if (ids.scalar_type() != ScalarType::Long && ids.scalar_type() != ScalarType::Int) {
        refuse(kOp, "ids", "int64 or int32", described(ids), "convert it with .long()");
    }
    if (given_codes.scalar_type() != ScalarType::Char || given_codes.dim() != 2) {
        refuse(kOp, "codes", "int8 (rows, width)", described(given_codes), "quantise the table again");
    }
    const int64_t rows = given_codes.size(0), width = given_codes.size(1);
    if (given_scales.scalar_type() != ScalarType::Float || given_scales.dim() != 1 || given_scales.size(0) != rows) {
        refuse(kOp, "scales", "float32 (" + std::to_string(rows) + ",), one number a row", described(given_scales),
               "give the scales of the same table");
    }
    const Tensor codes = in_order(given_codes), scales = in_order(given_scales);
    std::vector<int64_t> shape;
    for (int64_t axis = 0; axis < ids.dim(); ++axis) shape.push_back(ids.size(axis));
    shape.push_back(width);
    Tensor out = new_floats(shape);
    const auto fill = ids.scalar_type() == ScalarType::Long ? look_up<int64_t> : look_up<int32_t>;
    fill(ids, codes, scales, out.mutable_data_ptr<float>());
    return out;
}

const CpuKernel declared(kOp, TORCH_BOX(&int8_embedding));

}  // namespace

}  // namespace compress_rec
