// A feed-forward block of two low-rank layers in one kernel. A block has 64 rows; their first middle stays in shared memory, their second
// in registers, and the wide activation between exists 128 columns at a time: made from the first middle, sent through GELU, multiplied
// into the second, forgotten. That is where fusing pays on a GPU, since the activation is the widest thing there is.
#include "low_rank.h"
#include "tile.h"

namespace compress_rec::cuda {

namespace {

__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// kBlocks: blocks of 128 in the second middle's width.
template <class Number, int kBlocks>
__global__ void __launch_bounds__(kTileThreads, 1)
feed_forward_kernel(Matrix<Number> x, Matrix<Number> a, Matrix<Number> b, const Number* bias, Matrix<Number> c, Matrix<Number> d,
                    const Number* bias_out, Number* y) {
    using T = Tile<Number>;
    const int rank = b.columns, hidden = c.columns, columns = whole_blocks(rank), columns_out = kBlocks * kTileColumns;
    SharedMemory shared;
    auto* middle = shared.take<unsigned char>(T::bytes(kTileRows, columns > columns_out ? columns : columns_out));
    auto* activation = shared.take<unsigned char>(T::bytes(kTileRows, kTileColumns));
    const Stages<Number> stages{shared.take<unsigned char>(kTileStages * Stages<Number>::kBytes)};
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTileRows;
    fill_middle(middle, x, first_row, a, stages);

    // For every 128 columns of the activation: the steps that make them, then those that multiply them into the second middle's blocks.
    const int making = pieces_of(rank, T::kPiece), using_up = kTileColumns / T::kPiece, steps = making + kBlocks * using_up;
    Sums made, sums[kBlocks];
    clear(made);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) clear(sums[block]);
    run_steps(
        (hidden + kTileColumns - 1) / kTileColumns * steps,
        [&](int step) {
            const int wide = step / steps * kTileColumns, within = step % steps;
            if (within < making) {
                fetch_piece(stages.weights(step), b, kTileColumns, wide, within * T::kPiece);
            } else {
                const int block = (within - making) / using_up, piece = (within - making) % using_up;
                fetch_piece(stages.weights(step), c, kTileColumns, block * kTileColumns, wide + piece * T::kPiece);
            }
        },
        [&](int step) {
            const int wide = step / steps * kTileColumns, within = step % steps;
            if (within >= making) {
                const int column = (within - making) % using_up * T::kPiece;
                if (within < making + using_up)  // each block by itself: an index would move the sums to memory
                    T::multiply(sums[0], activation, kTileColumns, column, stages.weights(step));
                else
                    T::multiply(sums[kBlocks - 1], activation, kTileColumns, column, stages.weights(step));
                return;
            }
            T::multiply(made, middle, columns, within * T::kPiece, stages.weights(step));
            if (within + 1 < making) return;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int column = wide + T::column_of(j, i);
                    const float value = column < hidden ? gelu(made[j][i] + (bias ? to_float(bias[column]) : 0.0f)) : 0.0f;
                    unsigned char* place = activation + T::place(T::row_of(j, i), T::column_of(j, i), kTileColumns);
                    to_number(value, *reinterpret_cast<Number*>(place));
                }
            }
            clear(made);
        });

    // the first middle is done with: the second takes its place, as wide as whole blocks of the second rank are
    const int rank_out = d.columns;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int column = block * kTileColumns + T::column_of(j, i);
                unsigned char* place = middle + T::place(T::row_of(j, i), column, whole_blocks(rank_out));
                to_number(sums[block][j][i], *reinterpret_cast<Number*>(place));
            }
        }
    }
    const int blocks = static_cast<int>((d.rows + kTileColumns - 1) / kTileColumns);
    write_products(middle, d, bias_out, y, x.rows, first_row, 0, blocks, stages);
}

template <class Number>
int feed_forward_bytes(int rank, int rank_out) {
    const int widest = whole_blocks(rank > rank_out ? rank : rank_out);
    return Tile<Number>::bytes(kTileRows, widest) + Tile<Number>::bytes(kTileRows, kTileColumns) + kTileStages * Stages<Number>::kBytes;
}

template <class Number, int kBlocks>
cudaError_t launch_feed_forward(const LowRankFeedForwardTask& task, cudaStream_t stream) {
    const auto kernel = feed_forward_kernel<Number, kBlocks>;
    const int bytes = feed_forward_bytes<Number>(task.rank, task.rank_out);
    if (const cudaError_t error = allow_shared(kernel, bytes)) return error;
    COMPRESS_REC_LAUNCH(kernel, static_cast<unsigned>((task.rows + kTileRows - 1) / kTileRows), kTileThreads, bytes, stream,
                        matrix<Number>(task.x, task.rows, task.inputs), matrix<Number>(task.a, task.rank, task.inputs),
                        matrix<Number>(task.b, task.hidden, task.rank), static_cast<const Number*>(task.bias),
                        matrix<Number>(task.c, task.rank_out, task.hidden), matrix<Number>(task.d, task.outputs, task.rank_out),
                        static_cast<const Number*>(task.bias_out), static_cast<Number*>(task.y));
    return cudaGetLastError();
}

template <class Number>
cudaError_t feed_forward(const LowRankFeedForwardTask& task, cudaStream_t stream) {
    if constexpr (sizeof(Number) == 2) {  // in float32, two blocks and what feeds them are too much for shared memory
        if (task.rank_out > kTileColumns) return launch_feed_forward<Number, 2>(task, stream);
    }
    return launch_feed_forward<Number, 1>(task, stream);
}

}  // namespace

bool fits(const LowRankFeedForwardTask& task) {
    const int bytes = task.type == NumberType::float32 ? feed_forward_bytes<float>(task.rank, task.rank_out)
                                                       : feed_forward_bytes<__half>(task.rank, task.rank_out);
    const bool some = task.inputs > 0 && task.rank > 0 && task.hidden > 0 && task.rank_out > 0;
    return some && bytes <= kSharedMost && task.rank_out <= (task.type == NumberType::float32 ? 1 : 2) * kTileColumns;
}

const char* low_rank_feed_forward(const LowRankFeedForwardTask& task, void* on_stream) {
    const auto stream = static_cast<cudaStream_t>(on_stream);
    if (task.rows == 0 || task.outputs == 0) return nullptr;
    if (!fits(task)) return "middles of these ranks do not fit into a block";
    cudaError_t error = cudaSuccess;
    switch (task.type) {
        case NumberType::float32: error = feed_forward<float>(task, stream); break;
        case NumberType::bfloat16: error = feed_forward<__nv_bfloat16>(task, stream); break;
        case NumberType::float16: error = feed_forward<__half>(task, stream); break;
    }
    return error ? cudaGetErrorString(error) : nullptr;
}

}  // namespace compress_rec::cuda
