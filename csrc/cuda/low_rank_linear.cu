// A low-rank layer in one kernel: a block multiplies 64 rows by the first factor, keeps the middle in shared memory, and multiplies it by
// the second. The middle never reaches memory.
#include "low_rank.h"
#include "tile.h"

namespace compress_rec::cuda {

namespace {

template <class Number>
__global__ void __launch_bounds__(kTileThreads)
low_rank_kernel(Matrix<Number> x, Matrix<Number> a, Matrix<Number> b, const Number* bias, Number* y) {
    SharedMemory shared;
    auto* middle = shared.take<unsigned char>(Tile<Number>::bytes(kTileRows, whole_blocks(b.columns)));
    const Stages<Number> stages{shared.take<unsigned char>(kTileStages * Stages<Number>::kBytes)};
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTileRows;
    fill_middle(middle, x, first_row, a, stages);
    const int blocks = static_cast<int>((b.rows + kTileColumns - 1) / kTileColumns);
    const int each = (blocks + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y);
    const int first_block = static_cast<int>(blockIdx.y) * each, last_block = first_block + each < blocks ? first_block + each : blocks;
    if (first_block < last_block) write_products(middle, b, bias, y, x.rows, first_row, first_block, last_block, stages);
}

template <class Number>
int low_rank_bytes(int rank) {
    return Tile<Number>::bytes(kTileRows, whole_blocks(rank)) + kTileStages * Stages<Number>::kBytes;
}

template <class Number>
cudaError_t launch_low_rank(const LowRankLinearTask& task, cudaStream_t stream) {
    const auto kernel = low_rank_kernel<Number>;
    const int bytes = low_rank_bytes<Number>(task.rank);
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    const dim3 grid(static_cast<unsigned>((task.rows + kTileRows - 1) / kTileRows), static_cast<unsigned>(task.splits));
    COMPRESS_REC_LAUNCH(kernel, grid, kTileThreads, bytes, stream, matrix<Number>(task.x, task.rows, task.inputs),
                        matrix<Number>(task.a, task.rank, task.inputs), matrix<Number>(task.b, task.outputs, task.rank),
                        static_cast<const Number*>(task.bias), static_cast<Number*>(task.y));
    return cudaGetLastError();
}

}  // namespace

int splits_for(int64_t rows, int outputs, int multiprocessors) {
    const int64_t tiles = rows > kTileRows ? (rows + kTileRows - 1) / kTileRows : 1, most = (outputs + kTileColumns - 1) / kTileColumns;
    const int64_t wanted = multiprocessors / tiles;
    return static_cast<int>(wanted < 1 || most < 1 ? 1 : wanted < most ? wanted : most);
}

bool fits(const LowRankLinearTask& task) {
    const int bytes = task.type == NumberType::float32 ? low_rank_bytes<float>(task.rank) : low_rank_bytes<__half>(task.rank);
    return task.inputs > 0 && task.rank > 0 && bytes <= kSharedMost;
}

const char* low_rank_linear(const LowRankLinearTask& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    if (task.rows == 0 || task.outputs == 0) return nullptr;
    if (!fits(task)) return "a middle of this rank does not fit into a block's shared memory";
    cudaError_t error = cudaSuccess;
    switch (task.type) {
        case NumberType::float32: error = launch_low_rank<float>(task, stream); break;
        case NumberType::bfloat16: error = launch_low_rank<__nv_bfloat16>(task, stream); break;
        case NumberType::float16: error = launch_low_rank<__half>(task, stream); break;
    }
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
