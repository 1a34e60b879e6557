// Products of 64 rows by 128 weights, by a block of 256 threads: on the tensor cores for bfloat16 and float16, with FMAs for float32. Both
// factors lie in shared memory, pieces of 128 bytes a row at a time; sums stay in registers, 32 a thread.
#pragma once

#include "tensor_cores.h"

namespace compress_rec::cuda {

constexpr int kTileThreads = 256, kTileRows = 64, kTileColumns = 128, kTileStages = 3;

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline void to_number(float value, float& number) { number = value; }
__device__ inline void to_number(float value, __nv_bfloat16& number) { number = __float2bfloat16_rn(value); }
__device__ inline void to_number(float value, __half& number) { number = __float2half_rn(value); }

using Sums = float[8][4];

__device__ inline void clear(Sums& sums) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    }
}

// How a matrix lies in shared memory, `columns` a multiple of kPiece, and how two of them are multiplied. Half precision: pieces of 16
// bytes change places, so that eight rows lie in different banks. Eight warps, two by four, have 32 rows by 32 columns each.
template <class Number>
struct Tile {
    static constexpr int kPiece = 64, kChunk = 8;  // numbers in a piece, and in 16 bytes

    static constexpr __host__ __device__ int bytes(int rows, int columns) { return rows * columns * 2; }
    static __device__ int place(int row, int column, int columns) {
        return swizzled(row, column / kChunk, columns / kChunk) + column % kChunk * 2;
    }

    // Where sum [j][i] of this thread belongs.
    static __device__ int row_of(int j, int i) { return threadIdx.x / kLanes / 4 * 32 + j / 4 * 16 + threadIdx.x % kLanes / 4 + i / 2 * 8; }
    static __device__ int column_of(int j, int i) {
        return threadIdx.x / kLanes % 4 * 32 + j % 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
    }

    // Adds the products of a piece: of `rows`, with so many columns, from column `first`; of `weights` the only piece there is.
    static __device__ void multiply(Sums& sums, const unsigned char* rows, int columns, int first, const unsigned char* weights) {
        const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, matrix = lane / 8, in_matrix = lane % 8;
#pragma unroll
        for (int sixteen = 0; sixteen < kPiece; sixteen += 16) {
            unsigned of_rows[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                const int row = warp / 4 * 32 + 16 * m + in_matrix + 8 * (matrix & 1);
                load_matrices(of_rows[m], rows + place(row, first + sixteen + 8 * (matrix >> 1), columns));
            }
#pragma unroll
            for (int n = 0; n < 4; n += 2) {
                unsigned of_weights[4];
                const int row = warp % 4 * 32 + 8 * (n + (matrix >> 1)) + in_matrix;
                load_matrices(of_weights, weights + place(row, sixteen + 8 * (matrix & 1), kPiece));
                const unsigned one[2] = {of_weights[0], of_weights[1]}, two[2] = {of_weights[2], of_weights[3]};
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    multiply_add(sums[4 * m + n], of_rows[m], one, Number{});
                    multiply_add(sums[4 * m + n + 1], of_rows[m], two, Number{});
                }
            }
        }
    }
};

// float32: rows are four numbers longer than they need be, so that eight of them lie in different banks. A thread has every 16th row and
// every 16th column. The sums of a piece are taken by themselves, which keeps the error of long sums small.
template <>
struct Tile<float> {
    static constexpr int kPiece = 32, kChunk = 4;

    static constexpr __host__ __device__ int bytes(int rows, int columns) { return rows * (columns + 4) * 4; }
    static __device__ int place(int row, int column, int columns) { return (row * (columns + 4) + column) * 4; }
    static __device__ int row_of(int, int i) { return threadIdx.x / 16 + 16 * i; }
    static __device__ int column_of(int j, int) { return threadIdx.x % 16 + 16 * j; }

    static __device__ void multiply(Sums& sums, const unsigned char* rows, int columns, int first, const unsigned char* weights) {
        Sums of_piece;
        clear(of_piece);
#pragma unroll 2
        for (int four = 0; four < kPiece; four += 4) {
            float4 of_rows[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                of_rows[i] = *reinterpret_cast<const float4*>(rows + place(row_of(0, i), first + four, columns));
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float4 weight = *reinterpret_cast<const float4*>(weights + place(column_of(j, 0), four, kPiece));
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float sum = fmaf(of_rows[i].x, weight.x, of_piece[j][i]);
                    sum = fmaf(of_rows[i].y, weight.y, sum);
                    sum = fmaf(of_rows[i].z, weight.z, sum);
                    of_piece[j][i] = fmaf(of_rows[i].w, weight.w, sum);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[j][i] += of_piece[j][i];
        }
    }
};

// A matrix in global memory, (rows, columns), one number behind the other. `aligned`: pieces of 16 bytes can be copied.
template <class Number>
struct Matrix {
    const Number* data;
    int64_t rows;
    int columns;
    bool aligned;
};

template <class Number>
Matrix<Number> matrix(const void* data, int64_t rows, int columns) {
    return {static_cast<const Number*>(data), rows, columns,
            columns % Tile<Number>::kChunk == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0};
}

// Starts to copy `count` rows of a matrix, from row and column given, a piece of columns; zeros where the matrix ends.
template <class Number>
__device__ void fetch_piece(unsigned char* to, const Matrix<Number>& matrix, int count, int64_t first_row, int first_column) {
    constexpr int kChunk = Tile<Number>::kChunk, kChunks = Tile<Number>::kPiece / kChunk;
    for (int i = threadIdx.x; i < count * kChunks; i += kTileThreads) {
        const int64_t row = first_row + i / kChunks;
        const int within = i % kChunks * kChunk, column = first_column + within;
        const bool there = row < matrix.rows && column < matrix.columns;
        unsigned char* place = to + Tile<Number>::place(i / kChunks, within, Tile<Number>::kPiece);
        const Number* from = matrix.data + (there ? row * matrix.columns + column : 0);
        if (matrix.aligned) {
            copy_16(place, from, there);
            continue;
        }
        for (int j = 0; j < kChunk; ++j) {
            Number number{};
            if (there && column + j < matrix.columns) number = from[j];
            reinterpret_cast<Number*>(place)[j] = number;
        }
    }
}

// Room for pieces under way: of rows and of weights.
template <class Number>
struct Stages {
    unsigned char* memory;

    static constexpr int kRowsBytes = Tile<Number>::bytes(kTileRows, Tile<Number>::kPiece);
    static constexpr int kBytes = kRowsBytes + Tile<Number>::bytes(kTileColumns, Tile<Number>::kPiece);

    __device__ unsigned char* rows(int step) const { return memory + step % kTileStages * kBytes; }
    __device__ unsigned char* weights(int step) const { return rows(step) + kRowsBytes; }
};

// Runs `steps` steps: fetch(step) starts copies to its stage, work(step) multiplies what has arrived, two steps later. Ends with a barrier.
template <class Fetch, class Work>
__device__ void run_steps(int steps, const Fetch& fetch, const Work& work) {
    const auto start = [&](int step) {
        if (step < steps) fetch(step);
        end_copies();
    };
    start(0);
    start(1);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<1>();
        __syncthreads();  // this step's pieces are there for all, and all are through with the stage that is filled next
        start(step + 2);
        work(step);
    }
    wait_for_copies<0>();
    __syncthreads();
}

constexpr __host__ __device__ int pieces_of(int columns, int piece) { return (columns + piece - 1) / piece; }

// A middle's columns as whole blocks of 128, which are whole pieces too.
constexpr __host__ __device__ int whole_blocks(int columns) { return (columns + kTileColumns - 1) / kTileColumns * kTileColumns; }

// Fills the middle, 64 rows × whole_blocks(weights.rows) in shared memory, with the products of 64 rows of x and the weights.
template <class Number>
__device__ void fill_middle(unsigned char* middle, const Matrix<Number>& x, int64_t first_row, const Matrix<Number>& weights,
                            const Stages<Number>& stages) {
    using T = Tile<Number>;
    const int rank = static_cast<int>(weights.rows), columns = whole_blocks(rank);
    const int pieces = pieces_of(x.columns, T::kPiece), blocks = columns / kTileColumns;
    Sums sums;
    clear(sums);
    run_steps(
        blocks * pieces,
        [&](int step) {
            const int column = step % pieces * T::kPiece;
            fetch_piece(stages.rows(step), x, kTileRows, first_row, column);
            fetch_piece(stages.weights(step), weights, kTileColumns, step / pieces * kTileColumns, column);
        },
        [&](int step) {
            T::multiply(sums, stages.rows(step), T::kPiece, 0, stages.weights(step));
            if (step % pieces + 1 < pieces) return;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int column = step / pieces * kTileColumns + T::column_of(j, i);
                    to_number(sums[j][i], *reinterpret_cast<Number*>(middle + T::place(T::row_of(j, i), column, columns)));
                }
            }
            clear(sums);
        });
}

// Writes y, blocks of 128 columns from `first_block` to before `last_block`: the middle times the weights, and the bias where there is one.
// Nothing reads the middle before a barrier, so it may be written right before.
template <class Number>
__device__ void write_products(const unsigned char* middle, const Matrix<Number>& weights, const Number* bias, Number* y, int64_t row_count,
                               int64_t first_row, int first_block, int last_block, const Stages<Number>& stages) {
    using T = Tile<Number>;
    const int columns = whole_blocks(weights.columns), pieces = pieces_of(weights.columns, T::kPiece);
    Sums sums;
    clear(sums);
    run_steps(
        (last_block - first_block) * pieces,
        [&](int step) {
            const int64_t row = static_cast<int64_t>(first_block + step / pieces) * kTileColumns;
            fetch_piece(stages.weights(step), weights, kTileColumns, row, step % pieces * T::kPiece);
        },
        [&](int step) {
            T::multiply(sums, middle, columns, step % pieces * T::kPiece, stages.weights(step));
            if (step % pieces + 1 < pieces) return;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int64_t row = first_row + T::row_of(j, i);
                    const int64_t column = static_cast<int64_t>(first_block + step / pieces) * kTileColumns + T::column_of(j, i);
                    if (row >= row_count || column >= weights.rows) continue;
                    const float value = sums[j][i] + (bias ? to_float(bias[column]) : 0.0f);
                    to_number(value, y[row * weights.rows + column]);
                }
            }
            clear(sums);
        });
}

}  // namespace compress_rec::cuda
